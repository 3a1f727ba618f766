/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The index by itself: see index_bench.h.
 *
 * Handles are laid out as frontswap lays them: object {space, page >> 12},
 * index page & 4095, so a large set has many objects and the whole path is
 * measured: hash, shard, table, tree. The PAM does nothing.
 *
 * A round is, for the small set and for the large one in turn: fill in order,
 * get, replace, empty in order; fill, get, replace, empty at random. The small
 * set is gone over again and again until it has done some hundred thousand
 * operations of each kind. Figures are medians over rounds, so that both sets
 * see the same noise.
 */
#include "index_bench.h"

#include "index/index.h"
#include "os/clock.h"
#include "os/mem.h"
#include "os/thread.h"

#include <jansson.h>
#include <stdlib.h>

#define SMALL_PAGES    4096u
#define DEFAULT_PAGES  (4u << 20)
#define MIN_OPERATIONS (1u << 20)
#define ROUNDS	       5
#define THREADS_MAX    64
#define THREAD_PASSES  4

enum kind {
	FILL_SEQ,
	GET_SEQ,
	REPLACE_SEQ,
	INVALIDATE_SEQ,
	FILL_RANDOM,
	GET_RANDOM,
	REPLACE_RANDOM,
	INVALIDATE_RANDOM,
	KINDS
};

static const char *const kind_name[KINDS] = {
	"put_seq",    "get_seq",    "replace_seq",    "invalidate_seq",
	"put_random", "get_random", "replace_random", "invalidate_random",
};

static int no_take(void *ctx, struct pampd p, void *taken)
{
	return 0;
}

static void no_drop(void *ctx, const struct pampd *p, unsigned n)
{
}

static const struct pam_ops no_pam = {.take = no_take, .drop = no_drop};

struct set {
	struct index_pool *pool;
	uint64_t space; /* address space of the handles */
	uint32_t pages;
	uint32_t *order; /* a permutation, or NULL: in order */
	uint64_t failed;
};

static void operate(struct set *s, enum kind kind)
{
	bool random = kind >= FILL_RANDOM;
	struct index_oid oid = {{s->space, 0, 0}};
	uint32_t i;

	for (i = 0; i < s->pages; i++) {
		uint32_t page = random ? s->order[i] : i;
		struct pampd p = {page + 1ull, false};

		oid.w[1] = page >> 12;
		switch (kind) {
		case GET_SEQ:
		case GET_RANDOM:
			s->failed += index_get(s->pool, &oid, page & 4095, &p, NULL) != 0;
			break;
		case INVALIDATE_SEQ:
		case INVALIDATE_RANDOM:
			s->failed += !index_invalidate(s->pool, &oid, page & 4095);
			break;
		default:
			s->failed += index_put(s->pool, &oid, page & 4095, 1, &p) != 0;
		}
	}
}

static uint32_t *permutation(uint32_t n)
{
	uint32_t *order = os_alloc(n * sizeof(*order));
	uint64_t s = 88172645463325252u;
	uint32_t i;

	for (i = 0; order && i < n; i++)
		order[i] = i;
	for (i = n; order && i > 1; i--) {
		uint32_t j, t;

		s ^= s << 13;
		s ^= s >> 7;
		s ^= s << 17;
		j = (uint32_t)(s % i);
		t = order[i - 1];
		order[i - 1] = order[j];
		order[j] = t;
	}
	return order;
}

/* One round of all kinds; nanoseconds an operation into ns[]. */
static void round_of(struct set *s, double ns[KINDS])
{
	uint32_t passes = s->pages < MIN_OPERATIONS ? MIN_OPERATIONS / s->pages : 1;
	uint64_t spent[KINDS] = {0};
	uint32_t pass;
	int k;

	for (pass = 0; pass < passes; pass++) {
		for (k = 0; k < KINDS; k++) {
			uint64_t begin = os_clock_ns();

			operate(s, k);
			spent[k] += os_clock_ns() - begin;
		}
	}
	for (k = 0; k < KINDS; k++)
		ns[k] = (double)spent[k] / ((double)s->pages * passes);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), by_value);
	return v[n / 2];
}

/* Metadata of one object with all pages there, a page: charged bytes before and after. */
static double dense_meta(struct index *ix, uint32_t pages)
{
	struct index_oid oid = {{1, 2, 3}};
	struct index_stats before, after;
	struct index_pool *pool;
	uint64_t i;

	if (index_pool_create(ix, 1, &no_pam, NULL, NULL, &pool))
		return 0;
	index_stats(ix, &before);
	for (i = 0; i < pages; i++) {
		struct pampd p = {i + 1, false};

		if (index_put(pool, &oid, i, 1, &p))
			break;
	}
	index_stats(ix, &after);
	index_pool_destroy(pool);
	return (double)(after.meta_bytes - before.meta_bytes) / (double)pages;
}

/* How n object ids of one frontend lie on 256 shards. */
static json_t *spread(struct index *ix, const char *name, unsigned n, bool cleancache)
{
	struct pampd p = {1, true};
	struct index_pool *pool;
	uint64_t fullest, mean;
	unsigned i;

	if (index_pool_create(ix, 256, &no_pam, NULL, NULL, &pool))
		return NULL;
	for (i = 0; i < n; i++) {
		struct index_oid swap = {{1 + i % 8, 0x7f0000 + i / 8, 0}};
		struct index_oid file = {{0xfd01, 131072 + i, i * 2654435761u}};

		if (index_put(pool, cleancache ? &file : &swap, 0, 1, &p))
			break;
	}
	index_pool_spread(pool, &fullest, &mean);
	index_pool_destroy(pool);
	return json_pack("{s:s, s:I, s:I, s:f}", "oids", name, "objects", (json_int_t)n,
			 "fullest_shard", (json_int_t)fullest, "mean_shard", (double)mean / 1000);
}

/* ---- threads --------------------------------------------------------------- */

struct runner {
	struct set set;
	enum kind kind;
	os_thread thread;
};

static void *runner_main(void *arg)
{
	struct runner *r = arg;
	unsigned i;

	for (i = 0; i < THREAD_PASSES; i++)
		operate(&r->set, r->kind);
	return NULL;
}

/* Million operations a second of n threads together, each in an address space of its own. */
static double rate(struct runner *r, unsigned n, enum kind kind)
{
	uint64_t begin = os_clock_ns();
	unsigned i, started = 0;

	for (i = 0; i < n; i++) {
		r[i].kind = kind;
		if (os_thread_create(&r[i].thread, "bench", runner_main, &r[i]))
			break;
		started++;
	}
	for (i = 0; i < started; i++)
		os_thread_join(r[i].thread);
	return (double)started * r->set.pages * THREAD_PASSES * 1000 /
	       (double)(os_clock_ns() - begin);
}

static json_t *scale(struct index *ix, unsigned threads)
{
	static const enum kind kinds[] = {GET_SEQ, GET_RANDOM, REPLACE_RANDOM};
	struct runner r[THREADS_MAX] = {0};
	uint32_t pages = 1u << 18;
	json_t *out = json_object();
	struct index_pool *pool;
	uint32_t *order = permutation(pages);
	unsigned i, k;

	if (!order || index_pool_create(ix, 0, &no_pam, NULL, NULL, &pool)) {
		os_free(order);
		return out;
	}
	for (i = 0; i < threads; i++) {
		r[i].set = (struct set){pool, i + 1, pages, order, 0};
		operate(&r[i].set, FILL_SEQ);
	}
	for (k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		double one[3], all[3];
		unsigned n;

		for (n = 0; n < 3; n++) {
			one[n] = rate(r, 1, kinds[k]);
			all[n] = rate(r, threads, kinds[k]);
		}
		json_object_set_new(out, kind_name[kinds[k]],
				    json_pack("{s:f, s:f, s:f}", "one_mops", median(one, 3),
					      "all_mops", median(all, 3), "scaling",
					      median(all, 3) / median(one, 3)));
	}
	index_pool_destroy(pool);
	os_free(order);
	return out;
}

static void add_sizes(json_t *out, struct set *small, struct set *large)
{
	double ns[2][KINDS][ROUNDS], now[KINDS];
	json_t *at_small = json_object(), *at_large = json_object(), *ratio = json_object();
	unsigned i;
	int k;

	for (i = 0; i < ROUNDS; i++) {
		round_of(small, now);
		for (k = 0; k < KINDS; k++)
			ns[0][k][i] = now[k];
		round_of(large, now);
		for (k = 0; k < KINDS; k++)
			ns[1][k][i] = now[k];
	}
	for (k = 0; k < KINDS; k++) {
		double s = median(ns[0][k], ROUNDS), l = median(ns[1][k], ROUNDS);

		json_object_set_new(at_small, kind_name[k], json_real(s));
		json_object_set_new(at_large, kind_name[k], json_real(l));
		json_object_set_new(ratio, kind_name[k], json_real(l / s));
	}
	json_object_set_new(out, "small_pages", json_integer(small->pages));
	json_object_set_new(out, "large_pages", json_integer(large->pages));
	json_object_set_new(out, "small_ns", at_small);
	json_object_set_new(out, "large_ns", at_large);
	json_object_set_new(out, "large_over_small", ratio);
}

struct json_t *bench_index(unsigned threads, uint64_t max_pages)
{
	struct set small = {.space = 1, .pages = SMALL_PAGES};
	struct set large = {.space = 1, .pages = DEFAULT_PAGES};
	struct index *ix = NULL;
	struct frames frames;
	json_t *out = json_object();
	json_t *spreads = json_array();

	if (max_pages)
		large.pages = max_pages > 1u << 31 ? 1u << 31 : (uint32_t)max_pages;
	if (threads < 1 || threads > THREADS_MAX)
		threads = threads < 1 ? 1 : THREADS_MAX;
	frames_init(&frames, 0);
	small.order = permutation(small.pages);
	large.order = permutation(large.pages);
	if (!small.order || !large.order || index_create(&frames, &ix) ||
	    index_pool_create(ix, 0, &no_pam, NULL, NULL, &small.pool) ||
	    index_pool_create(ix, 0, &no_pam, NULL, NULL, &large.pool)) {
		json_decref(out);
		json_decref(spreads);
		out = NULL;
		goto out;
	}
	add_sizes(out, &small, &large);
	json_object_set_new(out, "failed", json_integer((json_int_t)(small.failed + large.failed)));
	json_object_set_new(out, "meta_bytes_per_page", json_real(dense_meta(ix, 1u << 20)));
	json_array_append_new(spreads, spread(ix, "frontswap", 16384, false));
	json_array_append_new(spreads, spread(ix, "cleancache", 100000, true));
	json_object_set_new(out, "spread", spreads);
	json_object_set_new(out, "threads", json_integer(threads));
	json_object_set_new(out, "threads_mops", scale(ix, threads));
out:
	if (ix) {
		index_pool_destroy(small.pool);
		index_pool_destroy(large.pool);
	}
	index_destroy(ix);
	os_free(small.order);
	os_free(large.order);
	return out;
}
