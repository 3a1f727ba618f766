/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine against a model: engine_model [OPERATIONS [THREADS [SEED [ZPOOL]]]]
 * (seed 0: by the clock)
 *
 * Each thread has two pools of its own, in which it does everything, pool
 * operations included, and its own object in a pool that all share. For those
 * handles it knows exactly what is there: a version for each, 0 for nothing.
 *
 * In the shared pool there is also one object with one writer a page and all
 * threads as readers. Its pages name themselves; `begun` and `done` bound what a
 * reader may see:
 *
 *   writer   begun = v; put or invalidate; done = v, present or not
 *   reader   d = done; get; b = begun:  found version in d..b, or absent and
 *            some operation later than d was begun, or d was an invalidate
 *
 * Pools of a thread may be ephemeral. Then a page may be gone, but what is found
 * is the last version put, and a page that was missed once is missed until the
 * next put. In the third of the worlds the pool of all is ephemeral too: a pool
 * with a UUID, that half of the threads reach through another client.
 *
 * Meanwhile another thread evicts, compacts, moves the limit up and down, changes the
 * codec, freezes and thaws. Threads end and start anew in each round; between
 * rounds nothing runs and tmem_host_verify() checks the sums.
 *
 * A failure names the seed; the same arguments replay the same operations of
 * each thread (not the same interleaving).
 */
#include "os/clock.h"
#include "os/thread.h"
#include "tmem/tmem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MAX 16
#define ROUNDS	    12
#define POOLS	    2 /* of a thread */
#define OBJECTS	    3
#define PAGES	    192 /* of an object */
#define SHARED	    256 /* pages of the object with many readers */
#define PAGE	    TMEM_PAGE_SIZE
#define MAGIC	    0x6d6f64656c706167u

struct page {
	uint64_t magic, pool, object, index, version, seed, sum, word[505];
};
_Static_assert(sizeof(struct page) == PAGE, "a page");

struct model_pool {
	tmem_pool id;
	bool ephemeral; /* pages may be gone; once missed, a page stays so until it is put (T4) */
	bool uuid;	/* a shared one: a get keeps */
	uint64_t tag;	/* pages carry the tag of the pool that they were put into */
	uint64_t version[OBJECTS][PAGES];
	uint64_t tags[OBJECTS][PAGES];
};

struct worker {
	unsigned number;
	uint64_t rng, ops, op;
	struct model_pool pool[POOLS + 1]; /* the last: the shared pool, own object */
	uint64_t next_version, next_tag;
	char buf[TMEM_CLUSTER_MAX * PAGE], want[PAGE];
};

static tmem_host *host;
static tmem_client *client, *client2;
static uint64_t seed0;
static unsigned nthreads = 4;
static tmem_pool shared, shared2; /* one pool, as client and client2 name it */
static _Atomic uint64_t begun[SHARED], done[SHARED];
static _Atomic bool stop;
static struct worker *workers[THREADS_MAX];
static const char *zpool = "zsmalloc";
static bool eph;   /* the shared pool is ephemeral */
static bool tight; /* the limit bites, and there is an overflow file */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static uint64_t rnd(struct worker *w, uint64_t below)
{
	w->rng += 0x9e3779b97f4a7c15u;
	return mix(w->rng) % below;
}

__attribute__((noreturn, format(printf, 2, 3))) static void fail(const struct worker *w,
								 const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "FAILED: seed %llu, %u threads, thread %u, operation %llu: ",
		(unsigned long long)seed0, nthreads, w ? w->number : 999,
		(unsigned long long)(w ? w->op : 0));
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	abort();
}

/* ---- pages ------------------------------------------------------------------------ */

static uint64_t page_sum(const struct page *p)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < 505; i++)
		sum = (sum ^ p->word[i]) * 0x100000001b3u;
	return mix(sum ^ p->pool ^ mix(p->object ^ mix(p->index ^ mix(p->version ^ p->seed))));
}

/* What is in a page follows from its name: mostly compressible, some noise, some same-filled. */
static void fill(void *to, uint64_t pool, uint64_t object, uint64_t index, uint64_t version,
		 bool named)
{
	uint64_t seed = mix(pool ^ mix(object ^ mix(index ^ mix(version)))), kind = seed % 16, r;
	unsigned noise = kind == 2 ? 505 : (unsigned)(seed >> 8) % 380;
	struct page *p = to;

	if (!named && kind < 2) {
		r = kind ? seed : 0;
		for (unsigned i = 0; i < 512; i++)
			((uint64_t *)to)[i] = r;
		return;
	}
	*p = (struct page){MAGIC, pool, object, index, version, seed, 0, {0}};
	r = seed;
	if (named && kind == 2)
		noise = 100;
	for (unsigned i = 0; i < 505; i++) {
		if (i < noise) {
			r = r * 6364136223846793005u + 1442695040888963407u;
			p->word[i] = r ^ r >> 29;
		} else {
			p->word[i] = seed & 0xff;
		}
	}
	p->sum = page_sum(p);
}

static void check(struct worker *w, const struct model_pool *m, unsigned o, uint64_t i,
		  const void *page, const char *what)
{
	const struct page *p = page;

	fill(w->want, m->tags[o][i], o, i, m->version[o][i], false);
	if (memcmp(w->want, page, PAGE) == 0)
		return;
	if (p->magic == MAGIC)
		fail(w,
		     "%s of pool %llu object %u index %llu version %llu: got pool %llu object "
		     "%llu index %llu version %llu (%s)",
		     what, (unsigned long long)m->tags[o][i], o, (unsigned long long)i,
		     (unsigned long long)m->version[o][i], (unsigned long long)p->pool,
		     (unsigned long long)p->object, (unsigned long long)p->index,
		     (unsigned long long)p->version, p->sum == page_sum(p) ? "whole" : "torn");
	fail(w, "%s of object %u index %llu: foreign bytes", what, o, (unsigned long long)i);
}

static tmem_oid oid_of(const struct worker *w, const struct model_pool *m, unsigned o)
{
	/* In the shared pool the objects of threads differ in a few bits only. */
	return (tmem_oid){{(uint64_t)w->number << 8 | o, m->id == shared ? 1 : 0, 0}};
}

static void put_failed(const struct worker *w, int rc)
{
	if (rc != -ENOMEM && rc != -E2BIG && rc != -EAGAIN && rc != -ECANCELED)
		fail(w, "put: %d", rc);
}

/* ---- operations on known handles ----------------------------------------------------- */

static void op_put(struct worker *w, struct model_pool *m, unsigned o, uint64_t i)
{
	tmem_oid oid = oid_of(w, m, o);
	uint64_t version = ++w->next_version;
	int rc;

	fill(w->buf, m->tag, o, i, version, false);
	rc = tmem_put_flags(client, m->id, &oid, i, w->buf, rnd(w, 8) ? 0 : TMEM_PUT_INACTIVE);
	if (rc)
		put_failed(w, rc);
	m->version[o][i] = rc ? 0 : version;
	m->tags[o][i] = m->tag;
}

static void op_put_cluster(struct worker *w, struct model_pool *m, unsigned o, uint64_t i)
{
	unsigned n = 1 + (unsigned)rnd(w, TMEM_CLUSTER_MAX), room = 64 - (unsigned)(i % 64);
	tmem_oid oid = oid_of(w, m, o);
	uint64_t version = w->next_version + 1;
	int rc;

	n = n > room ? room : n;
	w->next_version += n;
	for (unsigned k = 0; k < n; k++)
		fill(w->buf + (size_t)k * PAGE, m->tag, o, i + k, version + k, false);
	rc = tmem_put_cluster(client, m->id, &oid, i, n, w->buf);
	if (rc)
		put_failed(w, rc);
	for (unsigned k = 0; k < n; k++) {
		m->version[o][i + k] = rc ? 0 : version + k;
		m->tags[o][i + k] = m->tag;
	}
}

static void op_get(struct worker *w, struct model_pool *m, unsigned o, uint64_t i, bool invalidate)
{
	tmem_oid oid = oid_of(w, m, o);
	bool keep = !invalidate && rnd(w, 2);
	int rc = invalidate ? tmem_get_and_invalidate(client, m->id, &oid, i, w->buf)
		 : keep	    ? tmem_get_keep(client, m->id, &oid, i, w->buf)
			    : tmem_get(client, m->id, &oid, i, w->buf);

	if (rc == 1 && m->ephemeral)
		m->version[o][i] = 0;
	if (rc != (m->version[o][i] ? 0 : 1))
		fail(w, "get: %d, version %llu", rc, (unsigned long long)m->version[o][i]);
	if (rc == 0)
		check(w, m, o, i, w->buf, "get");
	if (invalidate || (m->ephemeral && !m->uuid && !keep))
		m->version[o][i] = 0;
}

static void op_get_cluster(struct worker *w, struct model_pool *m, unsigned o, uint64_t i,
			   bool invalidate)
{
	tmem_oid oid = oid_of(w, m, o);
	uint64_t first = 0;
	uint32_t mask = 0;
	int rc = tmem_get_cluster(client, m->id, &oid, i, invalidate, w->buf, &first, &mask);

	if (rc == 1 && m->ephemeral)
		m->version[o][i] = 0;
	if (rc != (m->version[o][i] ? 0 : 1))
		fail(w, "get_cluster: %d, version %llu", rc, (unsigned long long)m->version[o][i]);
	if (rc)
		return;
	if (first > i || i - first >= TMEM_CLUSTER_MAX || !(mask >> (i - first) & 1))
		fail(w, "get_cluster: the page asked for is not among those returned");
	for (unsigned k = 0; k < TMEM_CLUSTER_MAX; k++) {
		if (!(mask >> k & 1))
			continue;
		if (first + k >= PAGES || !m->version[o][first + k])
			fail(w, "get_cluster: a page that was never put, or invalidated");
		check(w, m, o, first + k, w->buf + (size_t)k * PAGE, "get_cluster");
		if (invalidate)
			m->version[o][first + k] = 0;
	}
}

/* A number of pages that a call says it found, and how many there can be. */
static bool agrees(const struct model_pool *m, int64_t said, uint64_t known)
{
	return m->ephemeral ? said >= 0 && (uint64_t)said <= known : said == (int64_t)known;
}

static void op_invalidate(struct worker *w, struct model_pool *m, unsigned o, uint64_t i)
{
	tmem_oid oid = oid_of(w, m, o);
	int rc = tmem_invalidate_page(client, m->id, &oid, i);

	if (!agrees(m, rc, m->version[o][i] != 0))
		fail(w, "invalidate_page: %d", rc);
	m->version[o][i] = 0;
}

static void op_range(struct worker *w, struct model_pool *m, unsigned o, uint64_t i)
{
	uint64_t n = rnd(w, PAGES - i) + 1, found = 0;
	tmem_oid oid = oid_of(w, m, o);
	int64_t rc;

	if (rnd(w, 4)) {
		n = n % 20 + 1;
		n = i + n > PAGES ? PAGES - i : n;
		rc = tmem_invalidate_range(client, m->id, &oid, i, n);
	} else {
		i = 0;
		n = PAGES;
		rc = tmem_invalidate_object(client, m->id, &oid);
	}
	for (uint64_t k = i; k < i + n; k++) {
		found += m->version[o][k] != 0;
		m->version[o][k] = 0;
	}
	if (!agrees(m, rc, found))
		fail(w, "invalidated %lld of %llu", (long long)rc, (unsigned long long)found);
}

static uint64_t count(const struct model_pool *m)
{
	uint64_t n = 0;

	for (unsigned o = 0; o < OBJECTS; o++)
		for (unsigned i = 0; i < PAGES; i++)
			n += m->version[o][i] != 0;
	return n;
}

/* ---- operations on whole pools --------------------------------------------------------- */

static void pool_open(struct worker *w, struct model_pool *m)
{
	uint64_t kind = rnd(w, 4);
	uint8_t uuid[16] = {1, (uint8_t)w->number, (uint8_t)(m - w->pool)};

	m->ephemeral = kind >= 2;
	m->uuid = kind == 3;
	if (m->uuid)
		m->id = tmem_pool_create_shared(client, uuid, 0, 1u << rnd(w, 4));
	else
		m->id = tmem_pool_create(client, m->ephemeral ? 0 : TMEM_POOL_PERSIST,
					 1u << rnd(w, 4));
	if (m->id < 0 && m->id != -ENOMEM)
		fail(w, "pool_create: %d", m->id);
	memset(m->version, 0, sizeof(m->version));
	m->tag = (uint64_t)w->number << 32 | ++w->next_tag;
}

static void pool_close(struct worker *w, struct model_pool *m)
{
	int rc = m->id < 0 ? 0 : tmem_pool_destroy(client, m->id);

	if (rc)
		fail(w, "pool_destroy: %d", rc);
	m->id = -1;
}

static void op_clone(struct worker *w, struct model_pool *from, struct model_pool *to)
{
	pool_close(w, to);
	to->id = tmem_pool_clone(client, from->id);
	to->ephemeral = from->ephemeral;
	to->uuid = false;
	if (to->id < 0 && to->id != (from->uuid ? -EOPNOTSUPP : -ENOMEM))
		fail(w, "pool_clone: %d", to->id);
	memcpy(to->version, from->version, sizeof(to->version));
	memcpy(to->tags, from->tags, sizeof(to->tags));
	if (to->id < 0)
		memset(to->version, 0, sizeof(to->version));
	to->tag = (uint64_t)w->number << 32 | ++w->next_tag;
}

/* The pool's own codec, or a dictionary for it, or neither any more. */
static void pool_codec(struct worker *w, struct model_pool *m)
{
	static const char *const codec[] = {NULL, "zstd:1", "zstd:1", "lz4hc", "deflate", "lz4:4"};
	int rc = tmem_pool_set_codec(client, m->id, codec[rnd(w, 6)]);

	if (rc && rc != -ENOMEM)
		fail(w, "pool_set_codec: %d", rc);
	rc = rnd(w, 3) ? tmem_pool_train(client, m->id, 4096, NULL)
		       : tmem_pool_drop_dictionary(client, m->id);
	if (rc && rc != -ENOMEM && rc != -ENODATA && rc != -ENOSPC && rc != -EOPNOTSUPP)
		fail(w, "dictionary: %d", rc);
}

static void op_pool(struct worker *w, struct model_pool *m)
{
	struct model_pool *other = &w->pool[m == &w->pool[0]];
	uint64_t n = count(m);
	int64_t rc;

	switch (rnd(w, 10)) {
	case 0:
		rc = tmem_pool_flush(client, m->id);
		if (!agrees(m, rc, n))
			fail(w, "flush: %lld of %llu", (long long)rc, (unsigned long long)n);
		memset(m->version, 0, sizeof(m->version));
		break;
	case 1:
		pool_close(w, m);
		pool_open(w, m);
		break;
	case 2:
		rc = tmem_pool_pages(client, m->id);
		if (!agrees(m, rc, n))
			fail(w, "pages: %lld of %llu", (long long)rc, (unsigned long long)n);
		break;
	case 3:
		pool_codec(w, m);
		break;
	default:
		op_clone(w, m, other);
	}
}

/* ---- pages with many readers ------------------------------------------------------------- */

static const tmem_oid shared_oid = {{~0ull, 1, 0}};

static void shared_write(struct worker *w, unsigned i)
{
	unsigned n = rnd(w, 3) ? 1 : 1 + (unsigned)rnd(w, 8), end = (i / 64 + 1) * 64;
	bool put = rnd(w, 4) != 0;
	int rc = 1;

	/* A thread writes whole groups of 16, so that its clusters stay its own. */
	end = (i / 16 + 1) * 16 < end ? (i / 16 + 1) * 16 : end;
	n = i + n > end ? end - i : n;
	for (unsigned k = 0; k < n; k++) {
		uint64_t version = atomic_load(&begun[i + k]) + 1;

		atomic_store(&begun[i + k], version);
		fill(w->buf + (size_t)k * PAGE, 0, ~0u, i + k, version, true);
	}
	if (!put)
		(void)tmem_invalidate_range(client, shared, &shared_oid, i, n);
	else
		rc = n == 1 ? tmem_put(client, shared, &shared_oid, i, w->buf)
			    : tmem_put_cluster(client, shared, &shared_oid, i, n, w->buf);
	if (put && rc)
		put_failed(w, rc);
	for (unsigned k = 0; k < n; k++)
		atomic_store(&done[i + k], atomic_load(&begun[i + k]) << 1 | (rc == 0));
}

static void shared_found(struct worker *w, unsigned i, uint64_t d, const struct page *p)
{
	uint64_t b = atomic_load(&begun[i]);

	if (p->magic != MAGIC || p->sum != page_sum(p))
		fail(w, "shared page %u: torn or foreign", i);
	if (p->object != ~0u || p->index != i)
		fail(w, "shared page %u: is object %llx index %llu", i,
		     (unsigned long long)p->object, (unsigned long long)p->index);
	if (p->version > b || p->version < (d >> 1) + !(d & 1))
		fail(w, "shared page %u: version %llu, outside %llu(%u)..%llu", i,
		     (unsigned long long)p->version, (unsigned long long)(d >> 1),
		     (unsigned)(d & 1), (unsigned long long)b);
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
	if (rc < 0)
		fail(w, "shared page %u: %d", i, rc);
	if (rc == 1 && !eph && (d[i - base] & 1) && atomic_load(&begun[i]) == d[i - base] >> 1)
		fail(w, "shared page %u: version %llu is lost", i,
		     (unsigned long long)(d[i - base] >> 1));
	for (unsigned k = 0; rc == 0 && k < TMEM_CLUSTER_MAX; k++)
		if (mask >> k & 1)
			shared_found(w, (unsigned)first + k, d[first + k - base],
				     (const struct page *)(w->buf + (size_t)k * PAGE));
}

static void op_shared(struct worker *w)
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

/* ---- threads --------------------------------------------------------------------------------- */

static void one_operation(struct worker *w)
{
	struct model_pool *m = &w->pool[rnd(w, POOLS + 1)];
	unsigned o = (unsigned)rnd(w, OBJECTS);
	uint64_t i = rnd(w, PAGES), what = rnd(w, 1000);

	if (m->id < 0) {
		pool_open(w, m);
		return;
	}
	if (what < 300)
		op_put(w, m, o, i);
	else if (what < 400)
		op_put_cluster(w, m, o, i);
	else if (what < 600)
		op_get(w, m, o, i, false);
	else if (what < 660)
		op_get(w, m, o, i, true);
	else if (what < 720)
		op_get_cluster(w, m, o, i, false);
	else if (what < 760)
		op_get_cluster(w, m, o, i, true);
	else if (what < 800)
		op_invalidate(w, m, o, i);
	else if (what < 805)
		op_range(w, m, o, i);
	else if (what < 808 && m->id != shared)
		op_pool(w, m);
	else
		op_shared(w);
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (uint64_t k = 0; k < w->ops; k++) {
		w->op++;
		one_operation(w);
	}
	return NULL;
}

/* Every handle that a thread knows, at a quiet point. */
static void check_all(struct worker *w)
{
	for (unsigned p = 0; p <= POOLS; p++)
		for (unsigned o = 0; o < OBJECTS && w->pool[p].id >= 0; o++)
			for (unsigned i = 0; i < PAGES; i++)
				op_get(w, &w->pool[p], o, i, false);
}

/* A pass, or a bounded step, to this codec or that. */
static void recompress(struct worker *w)
{
	static const char *const to[] = {"zstd:1", "zstd:3", "deflate:1", "lz4hc:3"};
	tmem_recompress o = TMEM_RECOMPRESS;
	int rc;

	o.codec = to[rnd(w, 4)];
	o.idle_ms = rnd(w, 2) ? 1 : 0;
	o.max_pages = rnd(w, 2) ? 100 : 0;
	rc = tmem_host_recompress(host, &o, NULL);
	if (rc && rc != -ENOMEM)
		fail(w, "recompress: %d", rc);
}

/* A step of upkeep, with its tunables now this, now that. */
static void maintain(struct worker *w)
{
	static const struct {
		const char *name, *value[3];
	} k[] = {
		{"idle_ms", {"0", "300", "2000"}},
		{"pressure_ppm", {"1000000", "1000", "0"}},
		{"recompress_rate", {"0", "1000", "1000000"}},
		{"recompress_idle_ms", {"1000", "1500", "60000"}},
		{"recompress_codec", {"zstd:3", "deflate:1", "lz4hc:3"}},
	};
	unsigned i = rnd(w, sizeof(k) / sizeof(k[0]));
	int rc = tmem_tunable_set(host, NULL, k[i].name, k[i].value[rnd(w, 3)], NULL, 0);

	if (rc && rc != -ENOMEM)
		fail(w, "%s: %d", k[i].name, rc);
	tmem_host_maintain(host);
}

static void *disturb(void *arg)
{
	static const char *const codec[] = {"lz4", "lz4", "lz4", "zstd:1", "zstd:-3", "none"};
	struct worker *w = arg;

	while (!atomic_load(&stop)) {
		switch (rnd(w, 23)) {
		case 0:
			/* Not while it is tight: verify and quiet checks want it defined. */
			(void)tmem_host_set_limit(host, (tight ? 1 : 2) * (2u + rnd(w, 4)) << 20);
			break;
		case 1:
			(void)tmem_host_set_limit(host, tight ? 4u << 20 : 0);
			break;
		case 2:
			if (tmem_host_set_codec(host, codec[rnd(w, 6)]) == -ENOENT)
				fail(w, "set_codec");
			break;
		case 3:
			tmem_host_freeze(host, 1);
			os_sleep_ns(100000);
			tmem_host_freeze(host, 0);
			break;
		case 4:
			if (rnd(w, 8) == 0 && tmem_host_verify(host, 0))
				fail(w, "verify while others run");
			break;
		case 5:
			(void)tmem_host_shrink(host, rnd(w, 200), NULL);
			break;
		case 6:
			(void)tmem_host_age(host, 1 + rnd(w, 100));
			break;
		case 7:
			(void)tmem_host_set_target(host, rnd(w, 2) ? (1 + rnd(w, 4)) << 20 : 0);
			break;
		case 8:
			tmem_client_freeze(client, 1);
			os_sleep_ns(100000);
			tmem_client_freeze(client, 0);
			break;
		case 9:
		case 10:
		case 11:
			recompress(w);
			break;
		case 12:
		case 13:
			maintain(w);
			break;
		default:
			(void)tmem_host_compact(host, 1u << 20);
		}
		os_sleep_ns(200000 + rnd(w, 400000));
	}
	return NULL;
}

static void run_round(uint64_t ops, struct worker *disturber)
{
	os_thread t[THREADS_MAX], d;

	atomic_store(&stop, false);
	if (os_thread_create(&d, "disturb", disturb, disturber))
		fail(NULL, "thread");
	for (unsigned i = 0; i < nthreads; i++) {
		workers[i]->ops = ops;
		if (os_thread_create(&t[i], "work", work, workers[i]))
			fail(NULL, "thread");
	}
	for (unsigned i = 0; i < nthreads; i++)
		os_thread_join(t[i]);
	atomic_store(&stop, true);
	os_thread_join(d);
	for (unsigned i = 0; i < nthreads; i++)
		check_all(workers[i]);
	if (tmem_host_verify(host, 1))
		fail(NULL, "verify at a quiet point");
}

static void open_shared(void)
{
	static const uint8_t uuid[16] = "the pool of all";

	if (!eph) {
		tmem_client_destroy(client2);
		client2 = client;
		shared = shared2 = tmem_pool_create(client, TMEM_POOL_PERSIST, 16);
	} else {
		shared = tmem_pool_create_shared(client, uuid, 0, 16);
		if (shared < 0 || tmem_pool_allow(client, shared, client2, 1))
			fail(NULL, "shared pool");
		shared2 = tmem_pool_create_shared(client2, uuid, 0, 0);
	}
	if (shared < 0 || shared2 < 0)
		fail(NULL, "shared pool");
}

static void open_world(const char *overflow)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	char err[200];

	o.policy = seed0 & 2 || eph ? "s3fifo" : "lru";
	o.limit_bytes = tight ? 4u << 20 : 0;
	o.zpool = zpool;
	/* A raw page does not fit into a frame that zbud divides. */
	o.store_raw = seed0 & 1 && strcmp(zpool, "zbud");
	o.overflow_path = overflow;
#ifdef TMEM_HAVE_CRYPTO
	o.overflow_encrypt = overflow && seed0 % 2;
#endif
	if (tmem_host_create(&o, &host, err, sizeof(err)))
		fail(NULL, "host: %s", err);
	if (tmem_client_create(host, "model", &client) ||
	    tmem_client_create(host, "model, too", &client2))
		fail(NULL, "client");
	open_shared();
	for (unsigned i = 0; i < nthreads; i++) {
		struct worker *w = calloc(1, sizeof(*w));

		if (!w)
			fail(NULL, "memory");
		workers[i] = w;
		w->number = i;
		w->rng = mix(seed0 * 1000 + i);
		for (unsigned p = 0; p < POOLS; p++)
			w->pool[p].id = -1;
		w->pool[POOLS].id = shared;
		w->pool[POOLS].ephemeral = w->pool[POOLS].uuid = eph;
		w->pool[POOLS].tag = (uint64_t)i << 32;
	}
	for (unsigned i = 0; i < SHARED; i++) {
		atomic_store(&begun[i], 0);
		atomic_store(&done[i], 0);
	}
}

static void close_world(void)
{
	tmem_stats s = {.size = sizeof(s)};

	(void)tmem_host_stats(host, &s);
	printf("  puts %llu ok %llu nomem %llu poor %llu frozen %llu; gets found %llu; shared "
	       "%llu; "
	       "moved %llu; in file %llu, went %llu, came back %llu; evicted %llu; "
	       "recompressed %llu\n",
	       (unsigned long long)s.puts, (unsigned long long)s.puts_ok,
	       (unsigned long long)s.puts_nomem, (unsigned long long)s.puts_poor,
	       (unsigned long long)s.puts_frozen, (unsigned long long)s.gets_found,
	       (unsigned long long)s.shared_pages, (unsigned long long)s.moved_zpages,
	       (unsigned long long)s.overflow_pages, (unsigned long long)s.overflow_moved_pages,
	       (unsigned long long)s.overflow_returned_pages, (unsigned long long)s.evicted_pages,
	       (unsigned long long)s.recompressed);
	tmem_client_destroy(client);
	if (client2 != client)
		tmem_client_destroy(client2);
	if (tmem_host_verify(host, 1))
		fail(NULL, "verify of the empty host");
	s.size = sizeof(s);
	(void)tmem_host_stats(host, &s);
	if (s.pages || s.zpages || s.compressed_bytes || s.same_filled_pages || s.overflow_pages ||
	    s.overflow_bytes)
		fail(NULL, "an empty host is not empty");
	tmem_host_destroy(host);
	for (unsigned i = 0; i < nthreads; i++)
		free(workers[i]);
}

int main(int argc, char **argv)
{
	uint64_t ops = argc > 1 ? strtoull(argv[1], NULL, 10) : 300000;
	char path[] = "/tmp/tmem-model-XXXXXX";
	struct worker disturber = {.number = 100};
	int fd = mkstemp(path);

	if (argc > 2)
		nthreads = (unsigned)strtoul(argv[2], NULL, 10);
	if (nthreads < 1 || nthreads > THREADS_MAX || fd < 0)
		return 2;
	close(fd);
	seed0 = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
	if (!seed0)
		seed0 = os_clock_ns() % 1000000 + 1;
	if (argc > 4)
		zpool = argv[4];
	printf("seed %llu, %llu operations, %u threads, %s\n", (unsigned long long)seed0,
	       (unsigned long long)ops, nthreads, zpool);
	disturber.rng = mix(seed0);
	for (unsigned world = 0; world < 3; world++) {
		tight = world > 0;
		eph = world == 2;
		open_world(world == 1 ? path : NULL);
		for (unsigned r = 0; r < ROUNDS; r++)
			run_round(ops / nthreads / ROUNDS / 3 + 1, &disturber);
		close_world();
	}
	(void)unlink(path);
	return 0;
}
