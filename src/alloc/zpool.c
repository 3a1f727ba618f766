/* SPDX-License-Identifier: BSD-2-Clause */
/* The registry of zpool drivers: a constant table, so nothing can be unregistered while in use. */
#include "alloc/zpool.h"
#include "alloc/zsmalloc.h"

#include <errno.h>
#include <string.h>

static const struct zpool_ops *const zpool_drivers[] = {
	&zsmalloc_ops,
};

/* Kept beside the table; the unit test checks that each name is found. */
static const char zpool_driver_names[] = "zsmalloc";

const struct zpool_ops *zpool_find(const char *type)
{
	for (size_t i = 0; i < sizeof(zpool_drivers) / sizeof(zpool_drivers[0]); i++)
		if (strcmp(zpool_drivers[i]->type, type) == 0)
			return zpool_drivers[i];
	return NULL;
}

const char *zpool_names(void)
{
	return zpool_driver_names;
}

int zpool_create(const char *type, struct frames *f, const struct zpool_owner *owner, void *ctx,
		 struct zpool **out)
{
	const struct zpool_ops *ops = zpool_find(type);

	*out = NULL;
	return ops ? ops->create(f, owner, ctx, out) : -ENOENT;
}
