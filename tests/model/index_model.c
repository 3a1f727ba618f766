/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The index against a plain map, on seeded operations, with everything racing.
 *
 *   index_model [SEED [SECONDS [THREADS]]]      default: 1, 6 seconds in all, 3
 *
 * Round 1, one thread: every operation, memory that runs out at random, and a
 * whole verification now and then.
 *
 * Round 2, threads on one pool. Each has objects of its own, with a model that
 * must agree exactly after every operation; and objects that all share, where
 * what comes back must at least name the right handle. At the same time
 *
 *   - a mover goes bottom-up from random leaf ids, checks that each word it
 *     finds under the lock belongs where it is, and replaces some (as
 *     compaction does), keeping the version;
 *   - a churner makes, fills and destroys pools of its own;
 *   - a walker walks the shared pool: pages of a set that nobody touches must
 *     be seen exactly once each time, while the tables double.
 *
 * The double (index_double.h) finds double drops, leaks and words under a
 * wrong handle. Every failure prints the seed; with one thread it replays.
 */
#include "../unit/index_double.h"

#include "index/internal.h"
#include "os/clock.h"
#include "os/log.h"
#include "os/thread.h"

#include <errno.h>
#include <inttypes.h>

static uint64_t seed = 1;
#define FAIL(fmt, ...) DIE("seed %" PRIu64 ": " fmt, seed, __VA_ARGS__)
#define MUST(cond)                                                                                 \
	do {                                                                                       \
		if (!(cond))                                                                       \
			FAIL("%s", #cond);                                                         \
	} while (0)

#define THREADS_MAX 16
#define OBJECTS	    24	/* of one thread */
#define DENSE	    300 /* indexes 0.. of an object in the model */
#define PLACES	    (DENSE + 20)
#define STEADY	    4000 /* pages that stay, for the walker */

static const uint64_t far_index[PLACES - DENSE] = {
	4095,
	4096,
	4097,
	1 << 18,
	(1 << 18) + 63,
	1ull << 24,
	1ull << 30,
	1ull << 36,
	(1ull << 36) + 1,
	1ull << 42,
	1ull << 48,
	1ull << 54,
	(1ull << 60) - 1,
	1ull << 60,
	1ull << 61,
	1ull << 63,
	(1ull << 63) + 64,
	~0ull - 64,
	~0ull - 1,
	~0ull,
};

static struct frames frames;
static struct index *ix;
static struct index_pool *pool;
static struct pam_double pam;
static _Atomic bool stop;
static char pool_owner, churn_owner;
static _Atomic uint64_t moved, bottom_up_hits, bottom_up_misses, walks;

struct rng {
	uint64_t s;
};

static uint64_t rnd(struct rng *r)
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static unsigned below(struct rng *r, unsigned n)
{
	return (unsigned)(rnd(r) % n);
}

/* What one handle of the model holds. */
struct entry {
	uint64_t version; /* 0: absent */
	bool immediate;
};

struct worker {
	unsigned number;
	struct rng rng;
	uint64_t version, ops, nomem;
	bool starve; /* memory may run out */
	struct entry model[OBJECTS][PLACES];
};

static uint64_t place_index(unsigned place)
{
	return place < DENSE ? place : far_index[place - DENSE];
}

static struct index_oid worker_oid(unsigned worker, unsigned object)
{
	return (struct index_oid){{worker, object * 0x100000000ull, worker ^ object}};
}

/* An immediate word is anything, 0 too; of some versions it is 0. */
static uint64_t immediate_word(uint64_t version)
{
	return version % 3 ? version * 0x9e3779b97f4a7c15u : 0;
}

static struct pampd new_word(const struct index_oid *oid, uint64_t index, struct entry e)
{
	if (e.immediate)
		return (struct pampd){immediate_word(e.version), true};
	return pam_double_new(&pam, oid, index, e.version);
}

/* ---- a worker's own handles ---------------------------------------------- */

static void check_entry(struct worker *w, unsigned object, unsigned place)
{
	const struct entry *e = &w->model[object][place];
	struct index_oid oid = worker_oid(w->number, object);
	uint64_t index = place_index(place);
	struct taken t = {0};
	struct pampd p;
	int err = index_get(pool, &oid, index, &p, &t);

	if (err != (e->version ? 0 : 1))
		FAIL("thread %u object %u index %" PRIu64
		     ": get says %d, the model has version %" PRIu64,
		     w->number, object, index, err, e->version);
	if (err)
		return;
	MUST(p.immediate == e->immediate);
	if (p.immediate) {
		MUST(p.word == immediate_word(e->version));
		return;
	}
	MUST(index_oid_same(&t.oid, &oid) && t.index == index);
	if (t.version != e->version)
		FAIL("thread %u object %u index %" PRIu64 ": version %" PRIu64 ", not %" PRIu64,
		     w->number, object, index, t.version, e->version);
}

static void do_put(struct worker *w, unsigned object, unsigned place)
{
	struct index_oid oid = worker_oid(w->number, object);
	uint64_t index = place_index(place);
	struct pampd p[INDEX_FANOUT];
	struct entry e[INDEX_FANOUT];
	unsigned n = 1, i;
	int err;

	if (place < DENSE && below(&w->rng, 3) == 0)
		n += below(&w->rng, 16);
	while (n > 1 && (place + n > DENSE || index % INDEX_FANOUT + n > INDEX_FANOUT))
		n--;
	for (i = 0; i < n; i++) {
		e[i] = (struct entry){++w->version, below(&w->rng, 4) == 0};
		p[i] = new_word(&oid, index + i, e[i]);
	}
	err = index_put(pool, &oid, index, n, p);
	if (err) {
		MUST(err == -ENOMEM && w->starve);
		w->nomem++;
		for (i = 0; i < n; i++)
			pam_double_drop_one(&pam, p[i]);
		return;
	}
	memcpy(&w->model[object][place], e, n * sizeof(e[0]));
}

static uint64_t model_clear(struct worker *w, unsigned object, uint64_t first, uint64_t last)
{
	uint64_t removed = 0;
	unsigned place;

	for (place = 0; place < PLACES; place++) {
		struct entry *e = &w->model[object][place];
		uint64_t index = place_index(place);

		if (index < first || index > last || !e->version)
			continue;
		e->version = 0;
		removed++;
	}
	return removed;
}

static void do_range(struct worker *w, unsigned object)
{
	struct index_oid oid = worker_oid(w->number, object);
	uint64_t first = place_index(below(&w->rng, PLACES));
	uint64_t n = below(&w->rng, 2) ? below(&w->rng, 200) : rnd(&w->rng) >> below(&w->rng, 64);
	uint64_t last, got;

	got = index_invalidate_range(pool, &oid, first, n);
	last = n ? first + n - 1 : 0;
	if (n && last < first)
		last = ~0ull;
	MUST(got == (n ? model_clear(w, object, first, last) : 0));
}

/* Changes a leaf through a cursor, as clusters do. */
static void do_cursor(struct worker *w, unsigned object, unsigned place)
{
	struct index_oid oid = worker_oid(w->number, object), found;
	uint64_t index = place_index(place);
	unsigned slot = index % INDEX_FANOUT;
	struct entry *e = &w->model[object][place];
	struct entry fresh = {++w->version, below(&w->rng, 4) == 0};
	struct pampd p = new_word(&oid, index, fresh), old = {0};
	bool create = below(&w->rng, 2), put = false, had;
	struct index_cursor c;

	if (create && index_lock_create(pool, &oid, index, &c)) {
		MUST(w->starve);
		pam_double_drop_one(&pam, p);
		return;
	}
	if (!create)
		index_lock(pool, &oid, index, &c);
	MUST(c.base == (index & ~63ull) && (!create || c.leaf));
	had = index_cursor_present(&c, slot);
	MUST(had == (e->version != 0));
	if (had)
		old = index_cursor_get(&c, slot);
	if (c.leaf) {
		index_cursor_oid(&c, &found);
		MUST(index_oid_same(&found, &oid));
		put = below(&w->rng, 3) > 0;
		if (put)
			index_cursor_set(&c, slot, p);
		else
			index_cursor_clear(&c, slot);
		*e = put ? fresh : (struct entry){0};
	}
	index_unlock(&c);
	if (had)
		pam_double_drop_one(&pam, old);
	if (!put)
		pam_double_drop_one(&pam, p);
}

static void own_operation(struct worker *w)
{
	unsigned object = below(&w->rng, OBJECTS);
	unsigned place = below(&w->rng, PLACES);
	struct index_oid oid = worker_oid(w->number, object);
	unsigned what = below(&w->rng, 1000);

	if (what < 400) {
		do_put(w, object, place);
	} else if (what < 700) {
		check_entry(w, object, place);
	} else if (what < 880) {
		bool was = index_invalidate(pool, &oid, place_index(place));

		MUST(was == (w->model[object][place].version != 0));
		w->model[object][place].version = 0;
	} else if (what < 980) {
		do_cursor(w, object, place);
	} else if (what < 996) {
		do_range(w, object);
	} else {
		MUST(index_invalidate_object(pool, &oid) == model_clear(w, object, 0, ~0ull));
	}
	check_entry(w, object, place);
}

static void check_all(struct worker *w)
{
	unsigned object, place;

	for (object = 0; object < OBJECTS; object++)
		for (place = 0; place < PLACES; place++)
			check_entry(w, object, place);
}

/* ---- handles that all threads share --------------------------------------- */

static void shared_operation(struct worker *w)
{
	struct index_oid oid = {{1000, below(&w->rng, 6), 0}};
	uint64_t index = (uint64_t)below(&w->rng, 200) << (below(&w->rng, 4) ? 0 : 12);
	unsigned what = below(&w->rng, 100);
	struct taken t = {0};
	struct pampd p;

	if (what < 45) {
		p = pam_double_new(&pam, &oid, index, 1);
		MUST(index_put(pool, &oid, index, 1, &p) == 0);
	} else if (what < 75) {
		if (!index_get(pool, &oid, index, &p, &t))
			MUST(index_oid_same(&t.oid, &oid) && t.index == index);
	} else if (what < 95) {
		index_invalidate(pool, &oid, index);
	} else if (what < 98) {
		index_invalidate_range(pool, &oid, index, below(&w->rng, 300));
	} else {
		index_invalidate_object(pool, &oid);
	}
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		if (below(&w->rng, 4))
			own_operation(w);
		else
			shared_operation(w);
		w->ops++;
	}
	check_all(w);
	return NULL;
}

/* ---- the mover, the churner, the walker ----------------------------------- */

static void check_leaf(struct index_cursor *c, const struct index_oid *oid)
{
	unsigned slot, present = 0;

	for (slot = 0; slot < INDEX_FANOUT; slot++) {
		const struct ticket *t;

		if (!index_cursor_present(c, slot))
			continue;
		present++;
		if (index_cursor_get(c, slot).immediate)
			continue;
		t = pam_double_ticket(&pam, index_cursor_get(c, slot));
		MUST(index_oid_same(&t->oid, oid) && t->index == c->base + slot);
	}
	MUST(present > 0);
}

static void *mover_main(void *arg)
{
	struct rng r = {seed ^ 0xabcdef};

	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		arena_id leaf = 1 + below(&r, 4000);
		unsigned slot = below(&r, INDEX_FANOUT);
		struct pampd old = {0, true};
		struct index_cursor c;
		struct index_oid oid;

		if (!index_lock_leaf(ix, leaf, &c)) {
			atomic_fetch_add_explicit(&bottom_up_misses, 1, memory_order_relaxed);
			continue;
		}
		atomic_fetch_add_explicit(&bottom_up_hits, 1, memory_order_relaxed);
		MUST(c.leaf == leaf);
		MUST(index_pool_owner(c.pool) == &pool_owner ||
		     index_pool_owner(c.pool) == &churn_owner);
		index_cursor_oid(&c, &oid);
		check_leaf(&c, &oid);
		if (index_cursor_present(&c, slot) && !index_cursor_get(&c, slot).immediate) {
			const struct ticket *t;

			old = index_cursor_get(&c, slot);
			t = pam_double_ticket(&pam, old);
			index_cursor_set(&c, slot,
					 pam_double_new(&pam, &oid, t->index, t->version));
			atomic_fetch_add_explicit(&moved, 1, memory_order_relaxed);
		}
		index_unlock(&c);
		if (!old.immediate)
			pam_double_drop_one(&pam, old);
	}
	return NULL;
}

static void *churner_main(void *arg)
{
	struct rng r = {seed ^ 0x123456};

	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		struct index_pool *ip;
		unsigned i, n = below(&r, 800);

		MUST(index_pool_create(ix, 1u << below(&r, 5), &pam_double_ops, &pam, &churn_owner,
				       &ip) == 0);
		for (i = 0; i < n; i++) {
			struct index_oid oid = {{2000, below(&r, 40), 0}};
			uint64_t index = below(&r, 1000);
			struct pampd p = pam_double_new(&pam, &oid, index, i);

			MUST(index_put(ip, &oid, index, 1, &p) == 0);
		}
		if (below(&r, 4) == 0) {
			MUST(index_pool_pages(ip) == index_flush(ip));
			MUST(index_verify(ip) == 0);
		}
		index_pool_destroy(ip);
	}
	return NULL;
}

static uint8_t steady_seen[STEADY];

static struct index_oid steady_oid(unsigned i)
{
	return (struct index_oid){{3000, i / 4, 7}};
}

static int see_leaf(void *arg, struct index_cursor *c)
{
	struct index_oid oid;
	unsigned slot;

	index_cursor_oid(c, &oid);
	check_leaf(c, &oid);
	if (oid.w[0] != 3000)
		return 0;
	for (slot = 0; slot < INDEX_FANOUT; slot++) {
		if (index_cursor_present(c, slot)) {
			MUST(pam_double_ticket(&pam, index_cursor_get(c, slot))->version < STEADY);
			steady_seen[pam_double_ticket(&pam, index_cursor_get(c, slot))->version]++;
		}
	}
	return 0;
}

static void *walker_main(void *arg)
{
	struct index_stats st;
	uint64_t extra = 0;
	unsigned i;

	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		memset(steady_seen, 0, sizeof(steady_seen));
		MUST(index_walk(pool, see_leaf, NULL) == 0);
		for (i = 0; i < STEADY; i++) {
			if (steady_seen[i] != 1)
				FAIL("a page that stays was seen %u times", steady_seen[i]);
		}
		MUST(index_verify(pool) == 0);
		index_stats(ix, &st);
		atomic_fetch_add_explicit(&walks, 1, memory_order_relaxed);
		/* More objects every round, so that tables double under everybody's feet. */
		for (i = 0; i < 300 && extra < 30000; i++) {
			struct index_oid oid = {{4000, extra++, 0}};
			struct pampd p = {extra, true};

			MUST(index_put(pool, &oid, 0, 1, &p) == 0);
		}
	}
	return NULL;
}

/* ---- rounds --------------------------------------------------------------- */

static void begin(unsigned shards)
{
	frames_init(&frames, 0);
	pam_double_init(&pam, 1 << 17);
	MUST(index_create(&frames, &ix) == 0);
	ix->seed = seed * 0x9e3779b97f4a7c15u; /* tables and walks replay too */
	MUST(index_pool_create(ix, shards, &pam_double_ops, &pam, &pool_owner, &pool) == 0);
}

static void end(void)
{
	struct index_stats st;

	MUST(index_verify(pool) == 0);
	index_pool_destroy(pool);
	index_stats(ix, &st);
	MUST(st.objects == 0 && st.nodes == 0 && st.pages == 0);
	index_destroy(ix);
	MUST(frames_used(&frames) == 0);
	pam_double_fini(&pam);
}

static struct worker *new_worker(unsigned number)
{
	struct worker *w = calloc(1, sizeof(*w));

	MUST(w != NULL);
	w->number = number;
	w->rng.s = seed * 1000003 + number;
	return w;
}

static uint64_t model_pages(const struct worker *w)
{
	uint64_t pages = 0;
	unsigned object, place;

	for (object = 0; object < OBJECTS; object++)
		for (place = 0; place < PLACES; place++)
			pages += w->model[object][place].version != 0;
	return pages;
}

static void round_single(uint64_t deadline)
{
	struct worker *w = new_worker(1);

	begin(4);
	w->starve = true;
	while (os_clock_ns() < deadline) {
		unsigned i;

		/* Little memory above what is in use, or as much as it likes. */
		frames_set_limit(&frames, below(&w->rng, 3) ? 0
							    : frames_used(&frames) +
								      below(&w->rng, 5) * 4096);
		for (i = 0; i < 500; i++)
			own_operation(w);
		w->ops += i;
		MUST(index_pool_pages(pool) == model_pages(w));
		if (below(&w->rng, 20) == 0) {
			check_all(w);
			MUST(index_verify(pool) == 0);
		}
		if (below(&w->rng, 100) == 0) {
			MUST(index_flush(pool) == model_pages(w));
			memset(w->model, 0, sizeof(w->model));
		}
	}
	frames_set_limit(&frames, 0);
	check_all(w);
	printf("one thread: %" PRIu64 " operations, %" PRIu64 " puts without memory\n", w->ops,
	       w->nomem);
	end();
	free(w);
}

static void round_threads(uint64_t deadline, unsigned threads)
{
	static void *(*const others[])(void *) = {mover_main, churner_main, walker_main};
	struct worker *w[THREADS_MAX];
	os_thread t[THREADS_MAX + 3];
	uint64_t ops = 0;
	unsigned i;

	begin(8);
	for (i = 0; i < STEADY; i++) {
		struct index_oid oid = steady_oid(i);
		uint64_t index = (uint64_t)(i % 4) << (9 * (i % 7));
		struct pampd p = pam_double_new(&pam, &oid, index, i);

		/* i % 4 == 0 is index 0; the others are apart by their shift. */
		MUST(index_put(pool, &oid, index, 1, &p) == 0);
	}
	atomic_store(&stop, false);
	for (i = 0; i < threads; i++) {
		w[i] = new_worker(i + 1);
		MUST(os_thread_create(&t[i], "worker", worker_main, w[i]) == 0);
	}
	for (i = 0; i < 3; i++)
		MUST(os_thread_create(&t[threads + i], "other", others[i], NULL) == 0);
	while (os_clock_ns() < deadline)
		os_sleep_ns(10000000);
	atomic_store(&stop, true);
	for (i = 0; i < threads + 3; i++)
		os_thread_join(t[i]);
	for (i = 0; i < threads; i++) {
		ops += w[i]->ops;
		free(w[i]);
	}
	printf("%u threads: %" PRIu64 " operations, %" PRIu64 " leaves found bottom-up and %" PRIu64
	       " not, %" PRIu64 " words moved, %" PRIu64 " walks\n",
	       threads, ops, atomic_load(&bottom_up_hits), atomic_load(&bottom_up_misses),
	       atomic_load(&moved), atomic_load(&walks));
	end();
}

int main(int argc, char **argv)
{
	uint64_t seconds = 6, now = os_clock_ns();
	unsigned threads = 3;

	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0);
	if (argc > 2)
		seconds = strtoull(argv[2], NULL, 0);
	if (argc > 3)
		threads = (unsigned)strtoul(argv[3], NULL, 0);
	if (threads < 1 || threads > THREADS_MAX)
		threads = 3;
	printf("seed %" PRIu64 "\n", seed);
	round_single(now + seconds * 1000000000 / 3);
	round_threads(now + seconds * 1000000000, threads);
	return 0;
}
