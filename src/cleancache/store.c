/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the store has of a file, and what that is worth.
 *
 * A slow source takes a time for each request, and a time for each byte. A page that was read with
 * 63 others costs little to have again; one that was all of a request costs twenty times as much,
 * for the same room. Whoever streams a large file, or archives, would push out all the small ones,
 * and gain next to nothing by it. So there are two pools, and the host's eviction spares one of
 * them (TMEM_POOL_COSTLY):
 *
 *   streamed   of a read of COSTLY_PAGES or more, mostly ahead of who reads in order
 *   costly     of a smaller one: small files, and reads at random
 *
 * It is the read that counts, not the piece of it that was missing. What is left of a stream since
 * its last time lies scattered, and each piece in between is a request; as costly pages those would
 * push out the small files, all of them in two passes, and be no more use than the rest of the
 * stream.
 *
 * What is costly is also compressed harder, unless a codec was asked for: the time for that is
 * little beside a request's, and each page more that fits saves one. Not in a small mount: what
 * each thread needs for it, 200 KiB, would be pages.
 *
 * While there are only pages of one kind they have all the room. A page is in the pool that it was
 * put into when it was read; after it has gone, and has been read in another way, in the other. It
 * may be in both, where two read it at the same time: both have the same bytes, for both are put
 * and dropped under the same rules (file.c).
 */
#include "cleancache/cleancache.h"

#include <errno.h>

#define COSTLY_PAGES 16u

/* Before anything is put. 0 or -ENOMEM. */
static int choose_codec(struct cc_mount *m)
{
	if (m->o->codec || m->o->size_bytes < CC_COSTLY_SIZE_MIN)
		return 0;
	return tmem_pool_set_codec(m->client, m->pool[CC_COSTLY], CC_CODEC_COSTLY);
}

int cc_store_open(struct cc_mount *m)
{
	static const uint32_t flags[CC_POOLS] = {[CC_STREAMED] = 0, [CC_COSTLY] = TMEM_POOL_COSTLY};

	for (unsigned i = 0; i < CC_POOLS; i++) {
		m->pool[i] = tmem_pool_create(m->client, flags[i], 0);
		if (m->pool[i] < 0)
			return m->pool[i];
	}
	return choose_codec(m);
}

void cc_store_take(struct cc_mount *m, tmem_client *client, const tmem_pool_pair *pool)
{
	tmem_client_destroy(m->client);
	m->client = client;
	for (unsigned i = 0; i < CC_POOLS; i++)
		m->pool[i] = pool[i].is;
	(void)choose_codec(m); /* else it is the host's */
}

bool cc_store_get(struct cc_mount *m, const tmem_oid *oid, uint64_t index, void *pages,
		  uint64_t *first, uint32_t *mask)
{
	int rc = 1;

	for (unsigned i = 0; rc && i < CC_POOLS; i++) {
		rc = tmem_get_cluster(m->client, m->pool[i], oid, index, 0, pages, first, mask);
		if (rc == -EIO) { /* the source has it */
			cc_count(m, CC_DAMAGED, 1);
			(void)tmem_invalidate_page(m->client, m->pool[i], oid, index);
		}
	}
	return rc == 0;
}

/* Clusters begin where their index is a multiple of their pages, so that runs meet. */
unsigned cc_store_put(struct cc_mount *m, const tmem_oid *oid, uint64_t index, unsigned n,
		      const char *pages, unsigned asked)
{
	tmem_pool pool = m->pool[asked < COSTLY_PAGES ? CC_COSTLY : CC_STREAMED];
	unsigned most = m->o->cluster, refused = 0;

	while (n) {
		unsigned k = most - (unsigned)(index % most);

		k = k < n ? k : n;
		if (k == 1 ? tmem_put(m->client, pool, oid, index, pages)
			   : tmem_put_cluster(m->client, pool, oid, index, k, pages))
			refused += k;
		index += k;
		pages += (size_t)k * CC_PAGE;
		n -= k;
	}
	cc_count(m, CC_REFUSED, refused);
	return refused;
}

bool cc_store_drop(struct cc_mount *m, const tmem_oid *oid)
{
	bool any = false;

	/* Only -ENOENT is possible: the pools are ours. */
	for (unsigned i = 0; i < CC_POOLS; i++)
		any |= tmem_invalidate_object(m->client, m->pool[i], oid) > 0;
	return any;
}
