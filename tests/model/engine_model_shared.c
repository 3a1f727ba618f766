/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages with one writer each and all threads as readers: one object of the pool of all.
 *
 *   writer   begun = v; put or invalidate; done = v, present or not
 *   reader   d = done; get; b = begun:  found version in d..b, or absent and
 *            some operation later than d was begun, or d was an invalidate
 *
 * A file that was saved between d and b is judged in the same way.
 */
#include "engine_model.h"

static const tmem_oid shared_oid = {{~0ull, 1, 0}};
static _Atomic uint64_t begun[SHARED], done[SHARED]; /* done: version << 1 | present */

void open_shared(void)
{
	static const uint8_t uuid[16] = "the pool of all";

	for (unsigned i = 0; i < SHARED; i++) {
		atomic_store(&begun[i], 0);
		atomic_store(&done[i], 0);
	}
	if (!eph) {
		tmem_client_destroy(client2);
		client2 = client;
		shared = shared2 = tmem_pool_create(client, TMEM_POOL_PERSIST, 16);
	} else {
		shared = tmem_pool_create_shared(client, uuid, 0, 16);
		if (tmem_pool_create_shared(client2, uuid, 0, 0) != -EACCES)
			fail(NULL, "a shared pool is joined by who may not");
		if (shared < 0 || tmem_pool_allow(client, shared, client2, 1))
			fail(NULL, "shared pool");
		shared2 = tmem_pool_create_shared(client2, uuid, 0, 0);
	}
	if (shared < 0 || shared2 < 0)
		fail(NULL, "shared pool");
}

/* ---- writing ----------------------------------------------------------------------------- */

static int write_pages(struct worker *w, unsigned i, unsigned n, bool put)
{
	int64_t dropped;
	int rc;

	if (!put) {
		dropped = tmem_invalidate_range(client, shared, &shared_oid, i, n);
		note(w, TRACE_DROP, shared, &shared_oid, i, n, dropped > 0);
		return 1;
	}
	rc = n == 1 ? tmem_put(client, shared, &shared_oid, i, w->buf)
		    : tmem_put_cluster(client, shared, &shared_oid, i, n, w->buf);
	note(w, TRACE_PUT, shared, &shared_oid, i, n, rc == 0);
	if (rc)
		put_failed(w, &w->pool[POOLS], rc);
	return rc;
}

static void shared_write(struct worker *w, unsigned i)
{
	unsigned n = rnd(w, 3) ? 1 : 1 + (unsigned)rnd(w, 8), end = (i / 64 + 1) * 64;
	bool put = rnd(w, 4) != 0;
	int rc;

	/* A thread writes whole groups of 16, so that its clusters stay its own. */
	end = (i / 16 + 1) * 16 < end ? (i / 16 + 1) * 16 : end;
	n = i + n > end ? end - i : n;
	for (unsigned k = 0; k < n; k++) {
		uint64_t version = atomic_load(&begun[i + k]) + 1;

		atomic_store(&begun[i + k], version);
		fill(w->buf + (size_t)k * PAGE, 0, ~0u, i + k, version, true);
	}
	rc = write_pages(w, i, n, put);
	for (unsigned k = 0; k < n; k++)
		atomic_store(&done[i + k], atomic_load(&begun[i + k]) << 1 | (rc == 0));
}

/* ---- reading ----------------------------------------------------------------------------- */

static void found(struct worker *w, unsigned i, uint64_t d, const void *page)
{
	uint64_t version = named_version(w, page, ~0u, i), b = atomic_load(&begun[i]);

	if (version > b || version < (d >> 1) + !(d & 1))
		fail(w, "shared page %u: version %llu, outside %llu(%u)..%llu", i, ULL(version),
		     ULL(d >> 1), (unsigned)(d & 1), ULL(b));
}

/* Absent, and nothing that began since d can have made it so. */
static bool is_lost(unsigned i, uint64_t d)
{
	return !eph && (d & 1) && atomic_load(&begun[i]) == d >> 1;
}

static void shared_read(struct worker *w, unsigned i)
{
	tmem_client *c = w->number & 1 ? client2 : client;
	tmem_pool pool = w->number & 1 ? shared2 : shared;
	uint64_t d[TMEM_CLUSTER_MAX * 2], first = i, base = i >= 16 ? i - 15 : 0;
	uint32_t mask = 1;
	int rc;

	for (unsigned k = 0; k < 32 && base + k < SHARED; k++)
		d[k] = atomic_load(&done[base + k]);
	if (rnd(w, 2))
		rc = tmem_get(c, pool, &shared_oid, i, w->buf);
	else
		rc = tmem_get_cluster(c, pool, &shared_oid, i, 0, w->buf, &first, &mask);
	note(w, TRACE_GET, pool, &shared_oid, i, 1, rc == 0);
	if (rc < 0)
		fail(w, "shared page %u: %d", i, rc);
	if (rc == 1 && is_lost(i, d[i - base]))
		fail(w, "shared page %u: version %llu is lost", i, ULL(d[i - base] >> 1));
	for (unsigned k = 0; rc == 0 && k < TMEM_CLUSTER_MAX; k++)
		if (mask >> k & 1)
			found(w, (unsigned)first + k, d[first + k - base],
			      w->buf + (size_t)k * PAGE);
}

void op_shared(struct worker *w)
{
	unsigned i = (unsigned)rnd(w, SHARED);

	if (rnd(w, 3) == 0) {
		i = i / 16 / nthreads * nthreads * 16 + w->number * 16 + i % 16;
		if (i < SHARED)
			shared_write(w, i);
	} else {
		shared_read(w, i);
	}
}

/* ---- in a saved file ------------------------------------------------------------------------ */

void shared_before(struct shared_before *b)
{
	for (unsigned i = 0; i < SHARED; i++)
		b->done[i] = atomic_load(&done[i]);
}

void shared_check_saved(struct worker *w, const struct shared_before *b, tmem_client *c,
			tmem_pool pool)
{
	for (unsigned i = 0; i < SHARED; i++) {
		int rc = tmem_get(c, pool, &shared_oid, i, w->buf);

		note(w, TRACE_GET, pool, &shared_oid, i, 1, rc == 0);
		if (rc == 0)
			found(w, i, b->done[i], w->buf);
		else if (rc != 1 || is_lost(i, b->done[i]))
			fail(w, "shared page %u: version %llu was not saved: %d", i,
			     ULL(b->done[i] >> 1), rc);
	}
}
