/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The registry of zpool drivers, and what is the same for all of them.
 *
 * The registry is the one piece of state that hosts of a process share: which
 * names there are is a fact of the program, not of a host. A fixed table under
 * one mutex, which only creation and destruction of pools take.
 *
 *   zpool_drivers[] | zsmalloc, 2 users | zbud, 0 users | (module) toy | free ...
 *
 *   I1  users of an entry = pools of that driver that were created and not
 *       yet destroyed; an entry leaves the table only with users = 0
 *   I2  no two entries have the same type
 *
 * A module is loaded with the mutex held, so that two threads that ask for the
 * same name at once load it once.
 */
#include "alloc/zpool.h"
#include "alloc/zbud.h"
#include "alloc/zsmalloc.h"
#include "os/check.h"
#include "os/lock.h"
#include "os/log.h"
#include "os/mem.h"
#include "os/module.h"

#include <errno.h>
#include <string.h>

#define DRIVERS_MAX 16

struct zpool_driver {
	const struct zpool_ops *ops; /* NULL: a free entry */
	uint64_t users;
	void *module; /* to be closed with the entry; NULL: part of the program */
};

static struct os_mutex zpool_lock = OS_MUTEX_INIT(OS_RANK_REGISTRY, "zpool drivers");
static struct zpool_driver zpool_drivers[DRIVERS_MAX] = {
	{.ops = &zsmalloc_ops},
	{.ops = &zbud_ops},
};

static struct zpool_driver *driver_lookup(const char *type)
{
	for (size_t i = 0; i < DRIVERS_MAX; i++)
		if (zpool_drivers[i].ops && strcmp(zpool_drivers[i].ops->type, type) == 0)
			return &zpool_drivers[i];
	return NULL;
}

static bool ops_complete(const struct zpool_ops *o)
{
	return o->type && os_module_name_ok(o->type) && o->create && o->destroy && o->malloc &&
	       o->free && o->map && o->unmap && o->set_movable && o->peek && o->pinned &&
	       o->compact && o->shrink && o->stats && o->verify && o->max_size;
}

static int driver_add(const struct zpool_ops *ops, void *module)
{
	if (!ops || !ops_complete(ops))
		return -EINVAL;
	if (driver_lookup(ops->type))
		return -EEXIST;
	for (size_t i = 0; i < DRIVERS_MAX; i++) {
		if (zpool_drivers[i].ops)
			continue;
		zpool_drivers[i] = (struct zpool_driver){.ops = ops, .module = module};
		return 0;
	}
	return -ENOMEM;
}

/* From a module's file; NULL when there is none that can be used. */
static struct zpool_driver *driver_load(const char *type)
{
	const struct zpool_module *m;
	void *handle, *data;
	int ret;

	if (os_module_open("tmem-zpool", type, "tmem_zpool_module", &handle, &data))
		return NULL;
	m = data;
	ret = m->abi == ZPOOL_MODULE_ABI ? driver_add(m->ops, handle) : -ENOEXEC;
	if (ret == 0 && driver_lookup(type))
		return driver_lookup(type);
	os_log(OS_LOG_ERROR, "module tmem-zpool-%s: %s", type,
	       m->abi != ZPOOL_MODULE_ABI ? "made for another version"
	       : ret			  ? "its driver is incomplete, or known already"
					  : "its driver has another name");
	if (ret == 0)
		*driver_lookup(m->ops->type) = (struct zpool_driver){0};
	os_module_close(handle);
	return NULL;
}

static struct zpool_driver *driver_get(const char *type)
{
	struct zpool_driver *d = driver_lookup(type);

	return d ? d : driver_load(type);
}

int zpool_register(const struct zpool_ops *ops)
{
	int ret;

	os_mutex_lock(&zpool_lock);
	ret = driver_add(ops, NULL);
	os_mutex_unlock(&zpool_lock);
	return ret;
}

int zpool_unregister(const char *type)
{
	struct zpool_driver *d;
	void *module = NULL;
	int ret = -ENOENT;

	os_mutex_lock(&zpool_lock);
	d = driver_lookup(type);
	if (d)
		ret = d->users ? -EBUSY : 0;
	if (d && ret == 0) {
		module = d->module;
		*d = (struct zpool_driver){0};
	}
	os_mutex_unlock(&zpool_lock);
	os_module_close(module);
	return ret;
}

const struct zpool_ops *zpool_find(const char *type)
{
	struct zpool_driver *d;

	os_mutex_lock(&zpool_lock);
	d = driver_get(type);
	os_mutex_unlock(&zpool_lock);
	return d ? d->ops : NULL;
}

char *zpool_names(char *buf, size_t len)
{
	size_t at = 0;

	if (!len)
		return buf;
	os_mutex_lock(&zpool_lock);
	for (size_t i = 0; i < DRIVERS_MAX; i++) {
		const char *parts[2] = {at ? ", " : "", NULL};

		if (!zpool_drivers[i].ops)
			continue;
		parts[1] = zpool_drivers[i].ops->type;
		for (unsigned k = 0; k < 2; k++)
			for (const char *c = parts[k]; *c && at + 1 < len; c++)
				buf[at++] = *c;
	}
	os_mutex_unlock(&zpool_lock);
	buf[at] = '\0';
	return buf;
}

/* One more pool of a driver, or one less: I1. */
static const struct zpool_ops *driver_use(const char *type)
{
	struct zpool_driver *d;

	os_mutex_lock(&zpool_lock);
	d = driver_get(type);
	if (d)
		d->users++;
	os_mutex_unlock(&zpool_lock);
	return d ? d->ops : NULL;
}

static void driver_unuse(const struct zpool_ops *ops)
{
	struct zpool_driver *d;

	os_mutex_lock(&zpool_lock);
	d = driver_lookup(ops->type);
	tmem_assert(I1, d && d->ops == ops && d->users > 0);
	d->users--;
	os_mutex_unlock(&zpool_lock);
}

int zpool_create(const char *type, struct frames *f, const struct zpool_owner *owner, void *ctx,
		 struct zpool **out)
{
	const struct zpool_ops *ops = driver_use(type);
	int ret;

	*out = NULL;
	if (!ops)
		return -ENOENT;
	ret = ops->create(f, owner, ctx, out);
	if (ret)
		driver_unuse(ops);
	return ret;
}

void zpool_destroy(struct zpool *zp)
{
	const struct zpool_ops *ops;

	if (!zp)
		return;
	ops = zp->ops;
	ops->destroy(zp);
	driver_unuse(ops);
}

int zpool_shrink(struct zpool *zp, uint64_t pages, uint64_t *reclaimed)
{
	*reclaimed = 0;
	if (!zp->owner || !zp->owner->evict)
		return -EOPNOTSUPP;
	*reclaimed = zp->ops->shrink(zp, pages);
	return 0;
}

uint64_t zpool_total_bytes(struct zpool *zp)
{
	struct zpool_stats st;

	zpool_stats(zp, &st);
	return st.frame_bytes + st.meta_bytes;
}

uint64_t zpool_total_pages(struct zpool *zp)
{
	struct zpool_stats st;

	zpool_stats(zp, &st);
	return st.frame_bytes >> OS_FRAME_SHIFT;
}
