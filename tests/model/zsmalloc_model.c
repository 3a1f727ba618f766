/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * zsmalloc against a model, seeded.
 *
 *   zsmalloc_model [SEED [SECONDS [THREADS]]]
 *
 * The model is a table of entries, each with a lock, a handle and what its
 * object must hold: a stream of bytes that follows from {entry, version}.
 * Threads put, replace, read, read with a pin held over other operations,
 * write in place, drop, change movability; some of them compact and shrink;
 * all of it with the frame source now and then at its limit. The owner's move() does
 * what an owner does: takes the entry's lock, checks that the entry still has
 * the old handle, copies, and stores the new one. Every byte is checked when
 * read, on the old place too while a pin holds it.
 *
 * One thread first runs alone, with a full verify every few steps; then all
 * run together, with a verify now and then from the compacting thread. On
 * failure the seed is printed. A move is refused only when it meets another
 * thread within microseconds: where that has not happened in time (a slow
 * build, a busy machine), they run on until it has.
 */
#include "alloc/zsmalloc.h"
#include "os/clock.h"
#include "os/lock.h"
#include "os/thread.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES	    6000
#define THREADS_MAX 16
#define HELD	    24
#define PATIENCE_S  45

struct entry {
	struct os_mutex lock;
	zpool_handle h; /* 0: absent */
	uint32_t size, version;
	bool movable;
};

/* A read whose pin outlives the operation: what it sees must not change. */
struct held {
	zpool_handle h;
	uint32_t n, size, version;
};

struct worker {
	uint64_t rnd, ops, puts, refused, reads, moves_refused;
	struct held held[HELD];
	os_thread thread;
	unsigned number;
};

static struct entry entries[ENTRIES];
static struct worker workers[THREADS_MAX];
static struct frames account;
static struct zpool *zp;
static uint64_t seed;
static _Atomic bool stop;
static _Atomic uint64_t moves, moves_refused, evictions, evictions_refused;

#define check(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: %s; seed %llu\n", __FILE__, __LINE__, #cond,       \
				(unsigned long long)seed);                                         \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static uint64_t rnd(struct worker *w)
{
	w->rnd ^= w->rnd << 13;
	w->rnd ^= w->rnd >> 7;
	w->rnd ^= w->rnd << 17;
	return w->rnd * 0x2545f4914f6cdd1dull >> 16;
}

/* Object: its entry's number in four bytes (if it has them), then the stream. */
static unsigned char stream(uint32_t n, uint32_t version, uint32_t i)
{
	return (unsigned char)((n * 2654435761u + version * 40503u + i * 193u) >> 13);
}

/* Whose it is never changes: move() and evict() read it without the entry's lock. */
static void refill(unsigned char *p, uint32_t n, uint32_t version, uint32_t size)
{
	for (uint32_t i = 4; i < size; i++)
		p[i] = stream(n, version, i);
}

static void fill(unsigned char *p, uint32_t n, uint32_t version, uint32_t size)
{
	memcpy(p, &n, sizeof(n));
	refill(p, n, version, size);
}

static void expect(const unsigned char *p, uint32_t n, uint32_t version, uint32_t size)
{
	check(memcmp(p, &n, sizeof(n)) == 0);
	for (uint32_t i = 4; i < size; i++)
		check(p[i] == stream(n, version, i));
}

static bool move(void *ctx, zpool_handle from, void *src, zpool_handle to, void *dst, size_t size)
{
	struct entry *e;
	bool done = false;
	uint32_t n;

	(void)ctx;
	/* Racy on purpose: the entry's lock and handle say whether it is true. */
	memcpy(&n, src, sizeof(n));
	check(n < ENTRIES);
	e = &entries[n];
	os_mutex_lock(&e->lock);
	/* Odd entries are written in place while mapped: their owner asks for pins. */
	if (e->h == from && e->movable && !(n % 2 && zpool_pinned(zp, from))) {
		check(size >= e->size);
		memcpy(dst, src, size);
		e->h = to;
		done = true;
	}
	os_mutex_unlock(&e->lock);
	atomic_fetch_add(done ? &moves : &moves_refused, 1);
	return done;
}

static bool evict(void *ctx, zpool_handle h, void *ptr, size_t size)
{
	struct entry *e;
	bool done = false;
	uint32_t n;

	(void)ctx;
	memcpy(&n, ptr, sizeof(n));
	check(n < ENTRIES);
	e = &entries[n];
	os_mutex_lock(&e->lock);
	/* Some are too good to lose. */
	if (e->h == h && e->movable && e->version % 8) {
		check(size >= e->size);
		if (n % 2 == 0)
			expect(ptr, n, e->version, e->size);
		e->h = 0;
		done = true;
	}
	os_mutex_unlock(&e->lock);
	if (done)
		zpool_free(zp, h);
	atomic_fetch_add(done ? &evictions : &evictions_refused, 1);
	/* Nobody can have taken its place: it is pinned for us. */
	check(memcmp(ptr, &n, sizeof(n)) == 0);
	return done;
}

static const struct zpool_owner owner = {.move = move, .evict = evict};

static uint32_t pick_size(struct worker *w)
{
	/* Few classes get most, so that zspages fill; all get some. */
	switch (rnd(w) % 8) {
	case 0:
		return 4 + (uint32_t)(rnd(w) % 60);
	case 1:
		return 4 + (uint32_t)(rnd(w) % 9000);
	case 2:
		return rnd(w) % 16 ? 4098 : 4 + (uint32_t)(rnd(w) % (ZS_MAX_SIZE - 3));
	case 3:
	case 4:
		return 1500 + (uint32_t)(rnd(w) % 40);
	default:
		return 100 + (uint32_t)(rnd(w) % 100);
	}
}

static void do_put(struct worker *w, uint32_t n)
{
	struct entry *e = &entries[n];
	uint32_t size = pick_size(w), version = (uint32_t)rnd(w);
	zpool_handle h, old;
	bool movable = rnd(w) % 16 != 0;

	w->puts++;
	if (zpool_malloc(zp, size, &h) != 0) {
		w->refused++;
		return;
	}
	check(h && h >> ZPOOL_HANDLE_BITS == 0);
	fill(zpool_peek(zp, h), n, version, size);
	os_mutex_lock(&e->lock);
	old = e->h;
	e->h = h;
	e->size = size;
	e->version = version;
	e->movable = movable;
	if (movable)
		zpool_set_movable(zp, h, true);
	os_mutex_unlock(&e->lock);
	if (old)
		zpool_free(zp, old);
}

static void do_drop(struct entry *e)
{
	zpool_handle h;

	os_mutex_lock(&e->lock);
	h = e->h;
	e->h = 0;
	os_mutex_unlock(&e->lock);
	if (h)
		zpool_free(zp, h);
}

/* Pin under the lock, look after it: the object may be freed or moved meanwhile. */
static void do_read(struct worker *w, uint32_t n, bool keep)
{
	struct held *slot = &w->held[rnd(w) % HELD], got = {.n = n};
	struct entry *e = &entries[n];
	const unsigned char *p = NULL;

	if (slot->h) {
		expect(zpool_peek(zp, slot->h), slot->n, slot->version, slot->size);
		zpool_unmap(zp, slot->h);
		slot->h = 0;
	}
	os_mutex_lock(&e->lock);
	if (e->h) {
		got.h = e->h;
		got.size = e->size;
		got.version = e->version;
		p = zpool_map(zp, got.h);
		check(p);
	}
	os_mutex_unlock(&e->lock);
	if (!p)
		return;
	w->reads++;
	/* Odd entries may be rewritten by others while this pin is held. */
	if (n % 2 == 0) {
		expect(p, n, got.version, got.size);
		if (keep) {
			*slot = got;
			return;
		}
	}
	zpool_unmap(zp, got.h);
}

/* In place, through a mapping, with the lock dropped between pin and write. */
static void do_write(struct worker *w, uint32_t n)
{
	struct entry *e = &entries[n | 1];
	uint32_t version = (uint32_t)rnd(w);
	zpool_handle h;

	n |= 1;
	os_mutex_lock(&e->lock);
	h = e->h;
	if (h)
		check(zpool_map(zp, h));
	os_mutex_unlock(&e->lock);
	if (!h)
		return;
	os_mutex_lock(&e->lock);
	if (e->h == h) {
		e->version = version;
		refill(zpool_peek(zp, h), n, version, e->size);
	}
	os_mutex_unlock(&e->lock);
	zpool_unmap(zp, h);
	os_mutex_lock(&e->lock);
	if (e->h)
		expect(zpool_peek(zp, e->h), n, e->version, e->size);
	os_mutex_unlock(&e->lock);
}

static void do_movable(struct worker *w, struct entry *e)
{
	os_mutex_lock(&e->lock);
	if (e->h) {
		e->movable = rnd(w) % 4 != 0;
		zpool_set_movable(zp, e->h, e->movable);
	}
	os_mutex_unlock(&e->lock);
}

static void do_limit(struct worker *w)
{
	uint64_t used = frames_used(&account);

	switch (rnd(w) % 3) {
	case 0:
		frames_set_limit(&account, used - used / 8);
		break;
	case 1:
		frames_set_limit(&account, used + 65536);
		break;
	default:
		frames_set_limit(&account, 0);
	}
}

static void step(struct worker *w)
{
	uint64_t op = rnd(w) % 1000, got;
	/* Skewed: some entries are fought over. */
	uint32_t n = (uint32_t)(rnd(w) % (rnd(w) % 4 ? ENTRIES : 64));

	w->ops++;
	if (op < 350)
		do_put(w, n);
	else if (op < 550)
		do_drop(&entries[n]);
	else if (op < 850)
		do_read(w, n, op < 650);
	else if (op < 930)
		do_write(w, n);
	else if (op < 970)
		do_movable(w, &entries[n]);
	else if (op < 975)
		do_limit(w);
	else if (op < 990 && w->number == 0)
		zpool_compact(zp, 1 + rnd(w) % 64);
	else if (op < 991 && w->number <= 1)
		zpool_compact(zp, UINT64_MAX);
	else if (op < 993 && w->number <= 2)
		check(zpool_shrink(zp, 1 + rnd(w) % 16, &got) == 0);
	else if (op == 999 && w->number == 0)
		for (unsigned k = 0; k < ENTRIES / 2; k++)
			do_drop(&entries[rnd(w) % ENTRIES]);
}

static void release_held(struct worker *w)
{
	for (unsigned k = 0; k < HELD; k++) {
		struct held *s = &w->held[k];

		if (!s->h)
			continue;
		expect(zpool_peek(zp, s->h), s->n, s->version, s->size);
		zpool_unmap(zp, s->h);
		s->h = 0;
	}
}

static void *run(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&stop)) {
		step(w);
		if (w->number == 0 && w->ops % 20000 == 0)
			check(zpool_verify(zp) == 0);
	}
	release_held(w);
	return NULL;
}

/* Nothing runs: the account, the walk and the model must agree. */
static void settle(void)
{
	struct zpool_stats st;
	uint64_t present = 0;

	for (uint32_t n = 0; n < ENTRIES; n++) {
		if (!entries[n].h)
			continue;
		present++;
		expect(zpool_peek(zp, entries[n].h), n, entries[n].version, entries[n].size);
	}
	check(zpool_verify(zp) == 0);
	zpool_stats(zp, &st);
	check(st.objects == present);
	check(frames_used(&account) == st.frame_bytes + st.meta_bytes);
	check(st.moved_objects == atomic_load(&moves));
	check(st.evicted_objects == atomic_load(&evictions));
	check(st.evict_refused == atomic_load(&evictions_refused));
}

int main(int argc, char **argv)
{
	unsigned threads = argc > 3 ? (unsigned)atoi(argv[3]) : 4;
	double seconds = argc > 2 ? atof(argv[2]) : 4;
	uint64_t ops = 0, puts = 0, refused = 0, reads = 0;
	struct zpool_stats st;

	seed = argc > 1 ? strtoull(argv[1], NULL, 0) : os_clock_ns();
	check(threads >= 1 && threads <= THREADS_MAX);
	frames_init(&account, 0);
	check(zpool_create("zsmalloc", &account, &owner, NULL, &zp) == 0);
	for (uint32_t n = 0; n < ENTRIES; n++)
		os_mutex_init(&entries[n].lock, OS_RANK_SHARD, "entry");
	for (unsigned i = 0; i < threads; i++) {
		workers[i].number = i;
		workers[i].rnd = (seed + 1) * 0x9e3779b97f4a7c15ull + i * 0xda942042e4dd58b5ull;
	}
	for (unsigned i = 0; i < 40000; i++) {
		step(&workers[0]);
		if (i % 500 == 0)
			check(zpool_verify(zp) == 0);
	}
	release_held(&workers[0]);
	settle();
	for (unsigned i = 0; i < threads; i++)
		check(os_thread_create(&workers[i].thread, "model", run, &workers[i]) == 0);
	os_sleep_ns((uint64_t)(seconds * 1e9));
	for (unsigned i = 0; i < PATIENCE_S * 10; i++) {
		if (atomic_load(&moves) > 0 && atomic_load(&moves_refused) > 0)
			break;
		os_sleep_ns(100 * 1000 * 1000);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < threads; i++) {
		os_thread_join(workers[i].thread);
		ops += workers[i].ops;
		puts += workers[i].puts;
		refused += workers[i].refused;
		reads += workers[i].reads;
	}
	settle();
	for (uint32_t n = 0; n < ENTRIES; n++)
		do_drop(&entries[n]);
	zpool_compact(zp, UINT64_MAX);
	settle();
	zpool_stats(zp, &st);
	check(st.frame_bytes == 0);
	/* Each path must have been walked. */
	check(refused > 0 && reads > 0 && atomic_load(&moves) > 0 &&
	      atomic_load(&moves_refused) > 0 && st.compacted_frames > 0 &&
	      atomic_load(&evictions) > 0 && atomic_load(&evictions_refused) > 0 &&
	      st.shrunk_frames > 0);
	printf("seed %llu: %llu operations, %llu puts (%llu refused), %llu reads, %llu moves "
	       "(%llu refused)\n",
	       (unsigned long long)seed, (unsigned long long)ops, (unsigned long long)puts,
	       (unsigned long long)refused, (unsigned long long)reads,
	       (unsigned long long)atomic_load(&moves),
	       (unsigned long long)atomic_load(&moves_refused));
	zpool_destroy(zp);
	check(frames_used(&account) == 0);
	return 0;
}
