/* SPDX-License-Identifier: BSD-2-Clause */
/* Failing calls where memory is short: limits, the overflow file, pages that may go. */
#include "alloc_scenarios.h"

/* ---- limits, overflow ---- */

static void limit(struct world *w)
{
	tmem_host_options o = options("lz4");

	o.limit_bytes = lz4_baseline + 200 * 1024;
	w->may_refuse = true;
	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, W_PAGES);
	w_get_all(w, 0);
	for (unsigned i = 0; i < W_PAGES; i += 3)
		w_invalidate(w, 0, 0, i);
	fill(w, 0, 0, 0, 30);
	w_put_cluster(w, 0, 1, 0, 16, 0);
}

static void limit_changes(struct world *w)
{
	w->may_refuse = true;
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 60);
	W_CHECK(tmem_host_set_limit(w->host, 1 << 16) == 0, "limit");
	fill(w, 0, 0, 50, 70);
	w_get_all(w, 0);
	W_CHECK(tmem_host_set_limit(w->host, 0) == 0, "limit");
	fill(w, 0, 0, 50, 70);
}

static void overflow(struct world *w)
{
	tmem_host_options o = options("lz4");

	o.limit_bytes = lz4_baseline + 300 * 1024;
	o.overflow_path = overflow_path;
	w->may_refuse = true;
	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, W_PAGES);
	w_put_cluster(w, 0, 1, 0, 16, 0);
	w_get_all(w, 0);
	for (unsigned i = 0; i < W_PAGES; i += 2)
		w_invalidate(w, 0, 0, i);
	fill(w, 0, 0, 100, 120);
	w_get_cluster(w, 0, 1, 3, true);
}

static void overflow_clone(struct world *w)
{
	tmem_host_options o = options("lz4");

	o.limit_bytes = lz4_baseline + 300 * 1024;
	o.overflow_path = overflow_path;
	w->may_refuse = true;
	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, W_PAGES);
	w_clone(w, 0, 1);
	for (unsigned i = 0; i < W_PAGES; i += 2)
		w_invalidate(w, 0, 0, i);
	w_get_all(w, 1);
	w_pool_destroy(w, 0);
	w_get_all(w, 1);
}

/* The client's own limit: what it refuses is -EDQUOT, and goes to the file where there is one. */
static void client_limit_of(struct world *w, const char *path)
{
	tmem_client_stats st = {.size = sizeof(st)};
	tmem_host_options o = options("lz4");

	o.overflow_path = path;
	w->may_refuse = w->quota = true;
	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 20);
	W_CHECK(tmem_client_stats_get(w->client, &st) == 0, "statistics");
	W_CHECK(tmem_client_set_limit(w->client, st.store_bytes + 20000) == 0, "client limit");
	fill(w, 0, 0, 0, 80);
	fill(w, 0, 2, 0, 20);
	w_put_cluster(w, 0, 1, 0, 16, 0);
	w_clone(w, 0, 1);
	w_get_all(w, 0);
	W_CHECK(tmem_client_stats_get(w->client, &st) == 0, "statistics");
	W_CHECK(st.store_bytes <= st.limit_bytes, "a client above its limit");
}

static void client_limit(struct world *w)
{
	client_limit_of(w, NULL);
}

static void client_limit_overflow(struct world *w)
{
	client_limit_of(w, overflow_path);
}

/* Sealed with a key, and back when there is room again. */
static void overflow_back(struct world *w)
{
	tmem_host_options o = options("lz4");
	tmem_stats st = {.size = sizeof(st)};

	o.limit_bytes = lz4_baseline + 200 * 1024;
	o.overflow_path = overflow_path;
#ifdef TMEM_HAVE_CRYPTO
	o.overflow_encrypt = 1;
#endif
	w->may_refuse = true;
	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 100);
	w_put_cluster(w, 0, 1, 0, 16, 0);
	W_CHECK(tmem_host_set_limit(w->host, o.limit_bytes + (1 << 20)) == 0, "limit");
	for (unsigned i = 0; i < 3; i++)
		w_get_all(w, 0);
	W_CHECK(tmem_host_stats(w->host, &st) == 0, "stats");
	W_CHECK(shim_failed() || st.overflow_returned_pages, "no page came back");
}

static void overflow_zbud(struct world *w)
{
	tmem_host_options o = options("lz4");

	o.zpool = "zbud";
	o.limit_bytes = lz4_baseline + 200 * 1024;
	o.overflow_path = overflow_path;
	w->may_refuse = true;
	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 60);
	w_clone(w, 0, 1);
	fill(w, 0, 0, 0, 10);
}

/* ---- ephemeral pools ---------------------------------------------------- */

/*
 * Pages may go, so the model's pools are no use: what is found must be the last
 * put, what a put refused must be absent.
 */
struct eph {
	struct world *w;
	tmem_pool id;
	uint64_t version[W_PAGES];
};

static void eph_page(uint64_t *page, unsigned i, uint64_t version)
{
	uint64_t s = version << 16 | i;

	for (unsigned k = 0; k < TMEM_PAGE_SIZE / 8; k++) {
		s = s * UINT64_C(6364136223846793005) + 1442695040888963407u;
		page[k] = i % 11 == 5 ? version : k % 4 ? page[k - 1] : s >> 40;
	}
}

static void eph_put(struct eph *e, unsigned i)
{
	tmem_oid oid = {{7, 0, 0}};
	static uint64_t version;
	uint64_t page[TMEM_PAGE_SIZE / 8], back[TMEM_PAGE_SIZE / 8];
	int rc;

	eph_page(page, i, ++version);
	rc = tmem_put_flags(e->w->client, e->id, &oid, i, page, i % 7 ? 0 : TMEM_PUT_INACTIVE);
	e->version[i] = rc ? 0 : version;
	W_CHECK(rc == 0 || rc == -ENOMEM || rc == -ECANCELED, "ephemeral put: %d", rc);
	W_CHECK(rc != -ENOMEM || shim_failed() || e->w->may_refuse,
		"ephemeral put refused, but there is memory");
	if (rc)
		W_CHECK(tmem_get(e->w->client, e->id, &oid, i, back) == 1, "refused, but there");
}

static void eph_get(struct eph *e, unsigned i, bool keep)
{
	tmem_oid oid = {{7, 0, 0}};
	uint64_t page[TMEM_PAGE_SIZE / 8], back[TMEM_PAGE_SIZE / 8];
	int rc = keep ? tmem_get_keep(e->w->client, e->id, &oid, i, back)
		      : tmem_get(e->w->client, e->id, &oid, i, back);

	W_CHECK(rc == 0 || rc == 1, "ephemeral get: %d", rc);
	if (rc == 0) {
		W_CHECK(e->version[i], "a page that was missed, or refused, is there");
		eph_page(page, i, e->version[i]);
		W_CHECK(memcmp(page, back, sizeof(page)) == 0, "ephemeral page %u: wrong", i);
	}
	if (rc || !keep)
		e->version[i] = 0;
}

/* The model of the world knows nothing of it. */
static void eph_end(struct eph *e)
{
	int rc = tmem_host_verify(e->w->host, 1);

	W_CHECK(rc == 0 || (rc == -ENOMEM && shim_failed()), "the host finds damage: %d", rc);
	W_CHECK(e->id < 0 || tmem_pool_destroy(e->w->client, e->id) == 0, "ephemeral destroy");
}

static void eph_run(struct eph *e)
{
	uint64_t got;

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < W_PAGES; i++)
			eph_put(e, i);
		for (unsigned i = 0; i < W_PAGES; i += 3)
			eph_get(e, i, true);
		for (unsigned i = 0; i < W_PAGES; i += 5)
			eph_get(e, i, false);
		W_CHECK(tmem_host_shrink(e->w->host, 5, &got) == 0, "shrink");
	}
	fill(e->w, 0, 0, 0, 40);
	W_CHECK(tmem_host_shrink(e->w->host, UINT64_MAX, &got) == 0, "shrink");
	W_CHECK(tmem_pool_pages(e->w->client, e->id) == 0, "shrunk to nothing, but pages are left");
	w_get_all(e->w, 0);
	eph_put(e, 3);
	eph_get(e, 3, false);
	eph_end(e);
}

static void ephemeral(struct world *w)
{
	static struct eph e;

	if (!w_start(w, NULL))
		return;
	e = (struct eph){.w = w, .id = tmem_pool_create(w->client, 0, 2)};
	W_CHECK(e.id >= 0 || e.id == -ENOMEM, "ephemeral pool: %d", e.id);
	if (e.id >= 0)
		eph_run(&e);
}

static void ephemeral_limit(struct world *w)
{
	tmem_host_options o = options("lz4");
	static struct eph e;

	o.limit_bytes = lz4_baseline + 300 * 1024;
	o.policy = "s3fifo";
	w->may_refuse = true;
	if (!w_start(w, &o))
		return;
	e = (struct eph){.w = w, .id = tmem_pool_create(w->client, 0, 2)};
	W_CHECK(e.id >= 0 || e.id == -ENOMEM, "ephemeral pool: %d", e.id);
	if (e.id < 0)
		return;
	for (unsigned round = 0; round < 4; round++)
		for (unsigned i = 0; i < W_PAGES; i++)
			eph_put(&e, i);
	for (unsigned i = 0; i < W_PAGES; i++)
		eph_get(&e, i, true);
	/* Persistent pages take the place of ephemeral ones. */
	fill(w, 0, 0, 0, W_PAGES);
	w_get_all(w, 0);
	eph_end(&e);
}

/* Frames are what is evicted. */
static void ephemeral_zbud(struct world *w)
{
	tmem_host_options o = options("lz4");
	static struct eph e;

	o.zpool = "zbud";
	o.limit_bytes = lz4_baseline + 200 * 1024;
	w->may_refuse = true;
	if (!w_start(w, &o))
		return;
	e = (struct eph){.w = w, .id = tmem_pool_create(w->client, 0, 2)};
	W_CHECK(e.id >= 0 || e.id == -ENOMEM, "ephemeral pool: %d", e.id);
	if (e.id < 0)
		return;
	for (unsigned i = 0; i < W_PAGES; i++)
		eph_put(&e, i);
	W_CHECK(tmem_host_shrink(w->host, 10, NULL) == 0, "shrink");
	for (unsigned i = 0; i < W_PAGES; i++)
		eph_put(&e, i);
	for (unsigned i = 0; i < W_PAGES; i++)
		eph_get(&e, i, i % 2);
	eph_end(&e);
}

static void ephemeral_clone(struct world *w)
{
	static struct eph e, copy;

	if (!w_start(w, NULL))
		return;
	e = (struct eph){.w = w, .id = tmem_pool_create(w->client, 0, 2)};
	if (e.id < 0)
		return;
	for (unsigned i = 0; i < W_PAGES; i++)
		eph_put(&e, i);
	copy = e;
	copy.id = tmem_pool_clone(w->client, e.id);
	W_CHECK(copy.id >= 0 || copy.id == -ENOMEM, "clone: %d", copy.id);
	for (unsigned i = 0; i < W_PAGES; i += 2)
		eph_get(&e, i, false);
	for (unsigned i = 0; copy.id >= 0 && i < W_PAGES; i++)
		eph_get(&copy, i, i % 2);
	W_CHECK(tmem_host_shrink(w->host, 40, NULL) == 0, "shrink");
	for (unsigned i = 0; i < W_PAGES; i++)
		eph_get(&e, i, true);
	eph_end(&e);
	eph_end(&copy);
}

static void shared_pool(struct world *w)
{
	static const uint8_t uuid[16] = "fault";
	tmem_client *second = NULL;
	static struct eph e;
	tmem_pool other = -1;
	int rc;

	if (!w_start(w, NULL) || tmem_client_create(w->host, "second", &second))
		return;
	e = (struct eph){.w = w, .id = tmem_pool_create_shared(w->client, uuid, 0, 2)};
	W_CHECK(e.id >= 0 || e.id == -ENOMEM, "shared pool: %d", e.id);
	if (e.id < 0)
		goto out;
	rc = tmem_pool_allow(w->client, e.id, second, 1);
	W_CHECK(rc == 0 || rc == -ENOMEM, "allow: %d", rc);
	other = tmem_pool_create_shared(second, uuid, 0, 0);
	W_CHECK(other >= 0 || other == (rc ? -EACCES : -ENOMEM) || shim_failed(), "join: %d",
		other);
	for (unsigned i = 0; i < 60; i++)
		eph_put(&e, i);
	for (unsigned i = 0; i < 60; i++)
		eph_get(&e, i, true);
	eph_end(&e); /* the maker leaves, the other stays */
out:
	tmem_client_destroy(second);
}

static void frozen(struct world *w)
{
	char bytes[TMEM_PAGE_SIZE] = "frozen";
	tmem_oid oid = {{1, 0, ~UINT64_C(0)}}; /* the model's object 0 */
	int rc;

	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 8);
	tmem_host_freeze(w->host, 1);
	rc = tmem_put(w->client, w->pool[0].id, &oid, 3, bytes);
	W_CHECK(rc == -EAGAIN, "put while frozen: %d", rc);
	w->pool[0].want[0][3] = 0;
	w_get_all(w, 0);
	tmem_host_freeze(w->host, 0);
	fill(w, 0, 0, 2, 5);
}

const struct scenario alloc_short[] = {
	{"limit", limit, false},
	{"limit_changes", limit_changes, false},
	{"overflow", overflow, false},
	{"overflow_clone", overflow_clone, false},
	{"client_limit", client_limit, false},
	{"client_limit_over", client_limit_overflow, false},
	{"overflow_back", overflow_back, false},
	{"overflow_zbud", overflow_zbud, false},
	{"ephemeral_zbud", ephemeral_zbud, false},
	{"ephemeral", ephemeral, false},
	{"ephemeral_limit", ephemeral_limit, false},
	{"ephemeral_clone", ephemeral_clone, false},
	{"shared_pool", shared_pool, false},
	{"frozen", frozen, false},
	{NULL, NULL, false},
};
