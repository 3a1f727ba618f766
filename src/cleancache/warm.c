/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Warm restart: what a mount keeps, into a file at its end, and back at its beginning.
 *
 * The file is a client's save file (tmem_client_save()) with the mount's two pools (store.c),
 * pages compressed as they are, and a third: the identities that they were read under (known.c),
 * packed into pages. So one set of checksums holds both together, and a file that is damaged
 * anywhere is no file. Nothing in it is believed that the source does not confirm: a page is found
 * only under the identity that its file turns out to have when it is opened.
 *
 * Whoever can write such a file decides what the files of the mount seem to hold. So one that
 * another user may have written is not taken; and what is no such file, a slip of the keyboard
 * perhaps, ends the mount at its beginning, and is not overwritten at its end.
 *
 * Files are named by device and inode number in it, the device of the source's root as 0: that
 * may be numbered anew at each boot.
 */
#include "cleancache/cleancache.h"

#include "os/log.h"
#include "os/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MAGIC 0x6e776f6e6b636374ull /* in each page of identities */

struct packed {
	uint64_t oid[3];
	uint64_t size;
	int64_t mtime_ns, ctime_ns;
};
#define A_PAGE ((CC_PAGE - 16) / sizeof(struct packed))

struct page {
	uint64_t magic, n;
	struct packed id[A_PAGE];
	char rest[CC_PAGE - 16 - A_PAGE * sizeof(struct packed)];
};
_Static_assert(sizeof(struct page) == CC_PAGE, "a page");

#define SAVED (CC_POOLS + 1) /* pools */

static const tmem_oid identities = {{~0ull, ~0ull, ~0ull}};

/* ---- out -------------------------------------------------------------------------------- */

struct packer {
	struct cc_mount *m;
	tmem_pool pool;
	uint64_t pages;
	struct page page;
};

static int flush(struct packer *p)
{
	int rc;

	p->page.magic = MAGIC;
	rc = tmem_put(p->m->client, p->pool, &identities, p->pages++, &p->page);
	memset(&p->page, 0, sizeof(p->page));
	return rc;
}

static int pack(void *arg, const tmem_oid *oid, const struct cc_identity *id)
{
	struct packer *p = arg;
	struct packed *to = &p->page.id[p->page.n++];

	memcpy(to->oid, oid->w, sizeof(to->oid));
	to->size = id->size;
	to->mtime_ns = id->mtime_ns;
	to->ctime_ns = id->ctime_ns;
	return p->page.n == A_PAGE ? flush(p) : 0;
}

/* Its room is charged, and the store gives it up, before it is there. */
static int pack_all(struct cc_mount *m)
{
	struct packer *p;
	int rc = -ENOMEM;

	if (!cc_charge(m, sizeof(*p)))
		return rc;
	p = os_zalloc(sizeof(*p));
	if (p) {
		p->m = m;
		p->pool = tmem_pool_create(m->client, TMEM_POOL_PERSIST, 1);
		rc = p->pool < 0 ? p->pool : cc_known_each(m, pack, p);
		/* One at least: by it the file is a mount's. */
		if (rc == 0 && (p->page.n || !p->pages))
			rc = flush(p);
		os_free(p);
	}
	cc_uncharge(m, sizeof(*p));
	return rc;
}

int cc_warm_save(struct cc_mount *m)
{
	tmem_save io = TMEM_SAVE;
	int rc = pack_all(m);

	io.ephemeral = 1;
	if (rc == 0)
		rc = tmem_client_save(m->client, m->o->save, &io);
	if (rc)
		os_log(OS_LOG_ERROR, "%s: nothing is saved: %s", m->o->save,
		       io.error[0] ? io.error : tmem_strerror(rc));
	else
		os_log(OS_LOG_INFO, "%s: %llu pages saved", m->o->save,
		       (unsigned long long)io.pages);
	return rc;
}

/* ---- in --------------------------------------------------------------------------------- */

static int unpack(struct cc_mount *m, tmem_client *client, tmem_pool pool)
{
	struct page *page = os_alloc(sizeof(*page));
	uint64_t at = 0;
	int rc = page ? 0 : -ENOMEM;

	while (rc == 0 && tmem_get(client, pool, &identities, at++, page) == 0) {
		if (page->magic != MAGIC || page->n > A_PAGE)
			rc = -EBADMSG;
		for (uint64_t i = 0; rc == 0 && i < page->n; i++) {
			const struct packed *k = &page->id[i];
			const struct cc_identity id = {k->size, k->mtime_ns, k->ctime_ns};
			tmem_oid oid;

			memcpy(oid.w, k->oid, sizeof(oid.w));
			cc_known_add(m, &oid, &id);
		}
	}
	os_free(page);
	return rc == 0 && at == 1 ? -EINVAL : rc; /* none */
}

/* The mount's client and pools from now on; the file is left as it is. -EINVAL: not of a mount. */
static int take(struct cc_mount *m, tmem_client *client, const tmem_save *io)
{
	tmem_pool ids;
	int rc;

	if (io->pools != SAVED)
		return -EINVAL;
	/* In the order of their making: the mount's came first. */
	ids = io->pool[CC_POOLS].is;
	rc = unpack(m, client, ids);
	if (rc)
		return rc;
	(void)tmem_pool_destroy(client, ids);
	cc_store_take(m, client, io->pool);
	return 0;
}

int cc_warm_load(struct cc_mount *m)
{
	tmem_pool_pair pair[SAVED];
	tmem_save io = TMEM_SAVE;
	tmem_client *client;
	int rc;

	io.pool = pair;
	io.pool_room = SAVED;
	io.own = 1;
	rc = tmem_client_restore(m->host, m->o->save, &io, &client);
	if (rc == -ENOENT)
		return 0; /* the first time */
	if (rc == 0) {
		rc = take(m, client, &io);
		if (rc)
			tmem_client_destroy(client);
		if (rc == -EINVAL)
			snprintf(io.error, sizeof(io.error), "saved by something else");
	}
	if (rc == 0)
		return 0;
	os_log(OS_LOG_WARNING, "%s: not used: %s", m->o->save,
	       io.error[0] ? io.error : tmem_strerror(rc));
	return rc == -EINVAL ? rc : 0;
}
