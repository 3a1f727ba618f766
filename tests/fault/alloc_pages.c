/* SPDX-License-Identifier: BSD-2-Clause */
/* Failing calls: pages, clusters, clones, compaction. */
#include "alloc_scenarios.h"

/* ---- pages -------------------------------------------------------------- */

static void put_get(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	w_get(w, 0, 0, 7);
	w_put(w, 0, 0, 7, W_TEXT);
	w_get(w, 0, 0, 7);
	w_get(w, 0, 0, 8);
}

static void put_many(struct world *w)
{
	tmem_host_options o = options("zstd");

	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, W_PAGES);
	fill(w, 0, 1, 0, 10);
	w_get_all(w, 0);
}

static void put_sparse(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	for (unsigned i = 0; i < 24; i++) {
		w_put(w, 0, 2, i, W_TEXT);
		w_get(w, 0, 2, i);
	}
	for (unsigned i = 0; i < 24; i += 2)
		w_invalidate(w, 0, 2, i);
	w_put(w, 0, 2, 3, W_SAME);
}

/* Object k of many, beside the model's: its one page is k + 1 everywhere; `there`: it is put. */
static void put_object(struct world *w, tmem_pool pool, uint64_t k, bool *there)
{
	tmem_oid oid = {{k, 77, 0}};
	uint64_t page[TMEM_PAGE_SIZE / 8];
	int rc;

	for (unsigned i = 0; i < TMEM_PAGE_SIZE / 8; i++)
		page[i] = k + 1;
	rc = tmem_put(w->client, pool, &oid, k, page);
	W_CHECK(rc == 0 || (rc == -ENOMEM && shim_failed()), "object %llu: %d",
		(unsigned long long)k, rc);
	*there = rc == 0;
}

static void check_object(struct world *w, tmem_pool pool, uint64_t k, bool there)
{
	tmem_oid oid = {{k, 77, 0}};
	uint64_t page[TMEM_PAGE_SIZE / 8];
	int rc = tmem_get(w->client, pool, &oid, k, page);

	W_CHECK(rc == !there, "object %llu: %d", (unsigned long long)k, rc);
	for (unsigned i = 0; there && i < TMEM_PAGE_SIZE / 8; i++)
		W_CHECK(page[i] == k + 1, "object %llu: wrong bytes", (unsigned long long)k);
}

/* So many that a shard's table grows, of the pool and of its clone. */
static void objects(struct world *w)
{
	tmem_pool pool, copy;
	bool there[80];

	if (!w_start(w, NULL))
		return;
	pool = tmem_pool_create(w->client, TMEM_POOL_PERSIST, 1);
	W_CHECK(pool >= 0 || pool == -ENOMEM, "pool: %d", pool);
	if (pool < 0)
		return;
	for (unsigned k = 0; k < 80; k++)
		put_object(w, pool, k, &there[k]);
	copy = tmem_pool_clone(w->client, pool);
	W_CHECK(copy >= 0 || (copy == -ENOMEM && shim_failed()), "clone: %d", copy);
	for (unsigned k = 0; k < 80; k++) {
		check_object(w, pool, k, there[k]);
		if (copy >= 0)
			check_object(w, copy, k, there[k]);
	}
	W_CHECK(copy < 0 || tmem_pool_destroy(w->client, copy) == 0, "destroy");
	W_CHECK(tmem_pool_destroy(w->client, pool) == 0, "destroy");
}

static void same_filled(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	for (unsigned i = 0; i < 70; i++)
		w_put(w, 0, 0, i, i % 2 ? W_ZERO : W_SAME);
	w_get_all(w, 0);
}

static void replace(struct world *w)
{
	static const enum w_kind kinds[] = {W_TEXT, W_SAME, W_TEXT, W_NOISE, W_TEXT, W_ZERO};

	if (!w_start(w, NULL))
		return;
	for (unsigned k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		for (unsigned i = 0; i < 8; i++) {
			w_put(w, 0, 0, i, kinds[k]);
			w_get(w, 0, 0, i);
		}
	}
}

static void poor(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 4);
	for (unsigned i = 0; i < 6; i++)
		w_put(w, 0, 0, i, W_NOISE);
	w_put_cluster(w, 0, 0, 0, 4, 0xff);
}

static void raw(struct world *w)
{
	tmem_host_options o = options("lz4");

	o.store_raw = 1;
	if (!w_start(w, &o))
		return;
	for (unsigned i = 0; i < 12; i++)
		w_put(w, 0, 0, i, i % 3 ? W_NOISE : W_TEXT);
	w_put_cluster(w, 0, 1, 0, 6, 0xf0f);
	w_get_all(w, 0);
}

static void codec_none(struct world *w)
{
	tmem_host_options o = options("none");

	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 8);
	w_get_all(w, 0);
}

static void invalidate(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 100);
	fill(w, 0, 1, 0, 10);
	fill(w, 0, 2, 0, 5);
	w_invalidate(w, 0, 0, 50);
	w_invalidate(w, 0, 0, 50);
	w_invalidate_range(w, 0, 0, 60, 30);
	w_invalidate_object(w, 0, 1);
	w_invalidate_object(w, 0, 1);
	fill(w, 0, 1, 3, 6);
}

static void get_invalidate(struct world *w)
{
	tmem_host_options o = options("zstd:-1");

	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 40);
	for (unsigned i = 0; i < 45; i++)
		w_get_invalidate(w, 0, 0, i);
	fill(w, 0, 0, 10, 20);
}

/* ---- clusters ------------------------------------------------------------ */

static void cluster(struct world *w)
{
	tmem_host_options o = options("zstd");

	if (!w_start(w, &o))
		return;
	w_put_cluster(w, 0, 0, 0, 16, 0);
	w_put_cluster(w, 0, 0, 16, 2, 0);
	w_put_cluster(w, 0, 0, 20, 5, 0x111); /* same-filled first, third, last */
	w_put_cluster(w, 0, 0, 32, 4, 0xaa);  /* zeros only */
	w_put_cluster(w, 0, 1, 60, 1, 0);
	w_get(w, 0, 0, 3);
	w_get_cluster(w, 0, 0, 3, false);
	w_invalidate(w, 0, 0, 5);
	w_get_cluster(w, 0, 0, 6, false);
	w_get_cluster(w, 0, 0, 7, true);
	w_get_cluster(w, 0, 0, 22, true);
	w_get_cluster(w, 0, 0, 33, true);
	w_get_cluster(w, 0, 1, 60, true);
}

static void cluster_replace(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	w_put_cluster(w, 0, 0, 0, 8, 0);
	w_put(w, 0, 0, 2, W_TEXT);
	w_get_cluster(w, 0, 0, 0, false);
	w_put_cluster(w, 0, 0, 4, 8, 0);
	w_put_cluster(w, 0, 0, 0, 16, 0xc0);
	w_get_all(w, 0);
	w_put_cluster(w, 0, 0, 0, 16, 0);
	w_invalidate_range(w, 0, 0, 0, 15);
	w_get(w, 0, 0, 15);
}

static void cluster_emptied(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	for (unsigned i = 0; i < 64; i += 16)
		w_put_cluster(w, 0, 0, i, 16, 0);
	for (unsigned i = 0; i < 64; i++) {
		if (i % 16 != 7)
			w_get_invalidate(w, 0, 0, i);
	}
	w_get_all(w, 0);
}

/* ---- clones --------------------------------------------------------------- */

static void clone_one(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 70);
	fill(w, 0, 2, 0, 3);
	w_clone(w, 0, 1);
	fill(w, 0, 0, 10, 14);
	fill(w, 1, 0, 12, 16);
	w_invalidate(w, 0, 0, 1);
	w_invalidate(w, 1, 0, 2);
	w_get_all(w, 0);
	w_get_all(w, 1);
	w_pool_destroy(w, 0);
	w_get_all(w, 1);
}

static void clone_cluster(struct world *w)
{
	tmem_host_options o = options("zstd");

	if (!w_start(w, &o))
		return;
	w_put_cluster(w, 0, 0, 0, 16, 0);
	w_put_cluster(w, 0, 0, 16, 8, 0x11);
	w_clone(w, 0, 1);
	w_get_cluster(w, 1, 0, 4, true);
	w_get_cluster(w, 0, 0, 4, false);
	w_put(w, 0, 0, 17, W_TEXT);
	w_get_cluster(w, 1, 0, 18, false);
	w_flush(w, 0);
}

static void clone_chain(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 20);
	w_clone(w, 0, 1);
	w_clone(w, 1, 2);
	w_pool_destroy(w, 1);
	fill(w, 2, 0, 5, 8);
	w_clone(w, 2, 1);
	w_get_all(w, 1);
	w_pool_destroy(w, 0);
	w_pool_destroy(w, 2);
}

/* More forks of one page than a lone zpage has room to count. */
static void clone_many(struct world *w)
{
	tmem_pool more[40];
	unsigned n = 0;

	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 3);
	for (; n < 40; n++) {
		more[n] = tmem_pool_clone(w->client, w->pool[0].id);
		if (more[n] < 0) {
			W_CHECK(more[n] == -ENOMEM && shim_failed(), "clone %u: %d", n, more[n]);
			break;
		}
	}
	w_get_all(w, 0);
	for (unsigned i = 0; i < n; i++)
		W_CHECK(tmem_pool_destroy(w->client, more[i]) == 0, "destroy of clone %u", i);
}

/* ---- changes of codec, compaction ----------------------------------------------------- */

static void codecs(struct world *w)
{
	static const char *const names[] = {"zstd", "lz4:4", "zstd:9", "none", "zstd:-7", "lz4"};

	if (!w_start(w, NULL))
		return;
	for (unsigned i = 0; i < 6; i++) {
		w_codec(w, names[i]);
		fill(w, 0, 0, i * 6, i * 6 + 6);
		w_put_cluster(w, 0, 1, i * 8, 8, 0);
	}
	w_get_all(w, 0);
}

static void compact(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, W_PAGES);
	fill(w, 0, 1, 0, W_PAGES);
	for (unsigned i = 0; i < W_PAGES; i++) {
		if (i % 4)
			w_invalidate(w, 0, i % 2, i);
	}
	(void)tmem_host_compact(w->host, 1 << 20);
	w_get_all(w, 0);
	fill(w, 0, 1, 0, 20);
	(void)tmem_host_compact(w->host, UINT64_MAX);
}

/* The other allocator: frames one by one, merged, and full before their buddies come. */
static void zbud(struct world *w)
{
	tmem_host_options o = options("lz4");

	o.zpool = "zbud";
	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 100);
	w_put_cluster(w, 0, 1, 64, 16, 0x11);
	for (unsigned i = 0; i < 100; i++)
		if (i % 3)
			w_invalidate(w, 0, 0, i);
	(void)tmem_host_compact(w->host, UINT64_MAX);
	w_get_all(w, 0);
	fill(w, 0, 2, 0, 40);
	w_clone(w, 0, 1);
	fill(w, 1, 0, 0, 30);
	w_put_cluster(w, 1, 1, 0, 16, 0);
}

static void compact_clone(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 100);
	w_put_cluster(w, 0, 1, 0, 16, 0);
	w_clone(w, 0, 1);
	for (unsigned i = 0; i < 100; i++) {
		if (i % 3) {
			w_invalidate(w, 0, 0, i);
			w_invalidate(w, 1, 0, i);
		}
	}
	(void)tmem_host_compact(w->host, 1 << 20);
	w_pool_destroy(w, 0);
	(void)tmem_host_compact(w->host, 1 << 20);
	w_get_all(w, 1);
}

const struct scenario alloc_pages[] = {
	{"put_get", put_get, false},
	{"put_many", put_many, false},
	{"put_sparse", put_sparse, false},
	{"objects", objects, false},
	{"same_filled", same_filled, false},
	{"replace", replace, false},
	{"poor", poor, false},
	{"raw", raw, false},
	{"codec_none", codec_none, false},
	{"invalidate", invalidate, false},
	{"get_invalidate", get_invalidate, false},
	{"cluster", cluster, false},
	{"cluster_replace", cluster_replace, false},
	{"cluster_emptied", cluster_emptied, false},
	{"clone", clone_one, false},
	{"clone_cluster", clone_cluster, false},
	{"clone_chain", clone_chain, false},
	{"clone_many", clone_many, false},
	{"codecs", codecs, false},
	{"compact", compact, false},
	{"zbud", zbud, false},
	{"compact_clone", compact_clone, false},
	{NULL, NULL, false},
};
