/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * zbud against a model, seeded.
 *
 *   zbud_model [SEED [SECONDS [THREADS]]]
 *
 * The model is a table of entries, each with a lock, a handle and what its
 * object must hold: a stream of bytes that follows from {entry, version}.
 *
 * First one thread alone, with a model of the frames too (what is in each, of
 * which kind, how old), which follows from the handles. So each placement can
 * be judged: the fullest partner that fits, no partner only if none fits, one
 * kind a frame; and each eviction: ephemeral before persistent, then the oldest
 * frame, none twice in a shrink, as many frames back as came empty.
 *
 * Then several threads put, read with pins held over other operations, write,
 * drop; some of them shrink and compact; the frame source is now and then at
 * its limit. Every byte is checked when read, also what a pin holds after its
 * object was moved, evicted or freed; and every object that evict() was asked
 * for is what the model says or has just gone. On failure the seed is printed.
 */
#include "alloc/zbud_internal.h"
#include "os/clock.h"
#include "os/thread.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES	    3000
#define FRAMES_MAX  8192
#define THREADS_MAX 16
#define HELD	    24

struct entry {
	struct os_mutex lock;
	zpool_handle h; /* 0: absent */
	uint32_t size, version;
};

/* A read whose pin outlives the operation: what it sees must not change. */
struct held {
	zpool_handle h;
	uint32_t n, size, version;
};

struct worker {
	uint64_t rnd, ops, puts, refused, reads;
	struct held held[HELD];
	os_thread thread;
	unsigned number;
};

/* What the first part knows of a frame. */
struct frame {
	unsigned objects, chunks, kind;
	uint64_t stamp;
	bool tried; /* in this shrink */
};

static struct entry entries[ENTRIES];
static struct worker workers[THREADS_MAX];
static struct frame frame[FRAMES_MAX];
static uint64_t now, limit;
static bool alone;
static struct frames account;
static struct zpool *zp;
static uint64_t seed;
static _Atomic bool stop;
static _Atomic uint64_t moves, moves_refused, evictions, evictions_refused, ephemerals;

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

/* Object: its entry's number in four bytes, then the stream. */
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

static unsigned chunks_of(uint32_t size)
{
	return (size + 2 + 63) / 64;
}

/* Two kinds, by the entry's number: known without asking anybody. */
static unsigned kind_of(uint32_t n)
{
	return n % 3 == 0;
}

/* ---- the model of frames ------------------------------------------------------------------ */

static struct frame *frame_at(zpool_handle h)
{
	check(h >> 6 < FRAMES_MAX);
	return &frame[h >> 6];
}

static void frame_add(zpool_handle h, uint32_t n, uint32_t size)
{
	struct frame *f = frame_at(h);
	unsigned chunks = chunks_of(size), room = f->objects ? 64 - f->chunks : 65;

	check(f->objects < 2 && f->chunks + chunks <= 64);
	check(!f->objects || f->kind == kind_of(n));
	for (unsigned i = 1; i < FRAMES_MAX; i++) {
		struct frame *g = &frame[i];

		if (g->objects == 1 && g->kind == kind_of(n) && 64 - g->chunks >= chunks)
			check(64 - g->chunks >= room);
	}
	f->objects++;
	f->chunks += chunks;
	f->kind = kind_of(n);
	f->stamp = ++now;
}

static void frame_remove(zpool_handle h, uint32_t size)
{
	struct frame *f = frame_at(h);

	check(f->objects);
	f->objects--;
	f->chunks -= chunks_of(size);
}

static void frame_evict(zpool_handle h)
{
	struct frame *f = frame_at(h);

	check(f->stamp <= limit);
	/* The second object of a frame comes right after the first. */
	if (f->tried)
		return;
	f->tried = true;
	for (unsigned i = 1; i < FRAMES_MAX; i++) {
		struct frame *g = &frame[i];

		if (!g->objects || g->tried)
			continue;
		check(g->kind < f->kind || (g->kind == f->kind && g->stamp > f->stamp));
	}
}

/* ---- the owner ------------------------------------------------------------------------------ */

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
	if (e->h == from && !(n % 2 && zpool_pinned(zp, from))) {
		check(size >= e->size);
		if (alone) {
			struct frame *a = frame_at(from), *b = frame_at(to);

			check(b->objects == 1 && a->objects == 1 && a->kind == b->kind);
			check(a->stamp < b->stamp);
			frame_remove(from, e->size);
			b->objects++;
			b->chunks += chunks_of(e->size);
			check(b->chunks <= 64);
		}
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
	uint32_t n;
	bool done = false;

	(void)ctx;
	memcpy(&n, ptr, sizeof(n));
	check(n < ENTRIES);
	e = &entries[n];
	if (alone)
		frame_evict(h);
	os_mutex_lock(&e->lock);
	/* Some are too good to lose. */
	if (e->h == h && e->version % 8) {
		check(size >= e->size);
		if (n % 2 == 0)
			expect(ptr, n, e->version, e->size);
		if (alone)
			frame_remove(h, e->size);
		e->h = 0;
		done = true;
	}
	os_mutex_unlock(&e->lock);
	if (done)
		zpool_free(zp, h);
	if (done && kind_of(n))
		atomic_fetch_add(&ephemerals, 1);
	atomic_fetch_add(done ? &evictions : &evictions_refused, 1);
	/* Nobody can have taken its place: it is pinned for us. */
	check(memcmp(ptr, &n, sizeof(n)) == 0);
	return done;
}

static const struct zpool_owner owner = {.move = move, .evict = evict};

/* ---- operations -------------------------------------------------------------------------------
 */

static uint32_t pick_size(struct worker *w)
{
	switch (rnd(w) % 4) {
	case 0:
		return 4 + (uint32_t)(rnd(w) % (ZBUD_MAX_SIZE - 3));
	case 1:
		return 4 + (uint32_t)(rnd(w) % 600);
	default:
		return 1200 + (uint32_t)(rnd(w) % 1000);
	}
}

static void do_put(struct worker *w, uint32_t n)
{
	uint32_t size = pick_size(w), version = (uint32_t)rnd(w);
	struct entry *e = &entries[n];
	zpool_handle h, old;
	uint32_t old_size;

	w->puts++;
	if (zpool_malloc_flags(zp, size, kind_of(n) ? ZPOOL_EPHEMERAL : 0, &h) != 0) {
		w->refused++;
		/* Alone, there must indeed have been no room. */
		for (unsigned i = 1; alone && i < FRAMES_MAX; i++)
			check(frame[i].objects != 1 || frame[i].kind != kind_of(n) ||
			      64 - frame[i].chunks < chunks_of(size));
		return;
	}
	check(h && h >> ZPOOL_HANDLE_BITS == 0);
	if (alone)
		frame_add(h, n, size);
	fill(zpool_peek(zp, h), n, version, size);
	os_mutex_lock(&e->lock);
	old = e->h;
	old_size = e->size;
	e->h = h;
	e->size = size;
	e->version = version;
	zpool_set_movable(zp, h, true);
	os_mutex_unlock(&e->lock);
	if (old && alone)
		frame_remove(old, old_size);
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
	if (h && alone)
		frame_remove(h, e->size);
	if (h)
		zpool_free(zp, h);
}

static void held_release(struct held *s)
{
	if (!s->h)
		return;
	expect(zpool_peek(zp, s->h), s->n, s->version, s->size);
	zpool_unmap(zp, s->h);
	s->h = 0;
}

/* Pin under the lock, look after it: the object may be freed, moved or evicted meanwhile. */
static void do_read(struct worker *w, uint32_t n, bool keep)
{
	struct held *slot = &w->held[rnd(w) % HELD], got = {.n = n};
	struct entry *e = &entries[n];
	const unsigned char *p = NULL;

	held_release(slot);
	os_mutex_lock(&e->lock);
	if (e->h) {
		got.h = e->h;
		got.size = e->size;
		got.version = e->version;
		p = zpool_map_mode(zp, got.h, ZPOOL_RO);
		check(p);
	}
	os_mutex_unlock(&e->lock);
	if (!p)
		return;
	w->reads++;
	/* Odd entries may be rewritten by others while this pin is held. */
	if (n % 2 == 0) {
		expect(p, n, got.version, got.size);
		if (keep && !alone) {
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
		check(zpool_map_mode(zp, h, ZPOOL_RW));
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

static uint64_t frames_with_objects(void)
{
	uint64_t n = 0;

	for (unsigned i = 1; i < FRAMES_MAX; i++)
		n += frame[i].objects != 0;
	return n;
}

static void do_shrink(struct worker *w)
{
	uint64_t got, before = 0, pages = 1 + rnd(w) % 8;
	struct zbud_info info;

	if (alone) {
		zbud_info(zp, &info);
		limit = now;
		before = frames_with_objects();
		for (unsigned i = 1; i < FRAMES_MAX; i++)
			frame[i].tried = false;
		/* Spare frames go first. */
		pages += info.spare;
	}
	check(zpool_shrink(zp, pages, &got) == 0);
	if (!alone)
		return;
	check(got == before - frames_with_objects() + info.spare);
	/* What stayed had its second chance, in the order of the queue: young now. */
	for (;;) {
		struct frame *next = NULL;

		for (unsigned i = 1; i < FRAMES_MAX; i++)
			if (frame[i].objects && frame[i].tried &&
			    (!next || frame[i].stamp < next->stamp))
				next = &frame[i];
		if (!next)
			break;
		next->tried = false;
		next->stamp = ++now;
	}
}

static void step(struct worker *w)
{
	uint64_t op = rnd(w) % 1000;
	/* Skewed: some entries are fought over. */
	uint32_t n = (uint32_t)(rnd(w) % (rnd(w) % 4 ? ENTRIES : 64));

	w->ops++;
	if (op < 350)
		do_put(w, n);
	else if (op < 500)
		do_drop(&entries[n]);
	else if (op < 800)
		do_read(w, n, op < 600);
	else if (op < 900)
		do_write(w, n);
	else if (op < 906)
		do_limit(w);
	else if (op < 912 && w->number <= 1)
		do_shrink(w);
	else if (op < 930 && w->number != 1)
		zpool_compact(zp, 1 + rnd(w) % 64);
	else if (op == 999 && w->number == 0 && rnd(w) % 8 == 0)
		for (unsigned k = 0; k < ENTRIES / 2; k++)
			do_drop(&entries[rnd(w) % ENTRIES]);
}

static void *run(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&stop)) {
		step(w);
		if (w->number == 0 && w->ops % 20000 == 0)
			check(zpool_verify(zp) == 0);
	}
	for (unsigned k = 0; k < HELD; k++)
		held_release(&w->held[k]);
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
	check(st.freed_frames >= st.shrunk_frames + st.compacted_frames);
}

static void run_alone(void)
{
	alone = true;
	for (unsigned i = 0; i < 30000; i++) {
		step(&workers[0]);
		if (i % 500 == 0)
			check(zpool_verify(zp) == 0);
	}
	settle();
	check(frames_with_objects() > 100 && atomic_load(&moves) > 0 &&
	      atomic_load(&evictions) > 0 && atomic_load(&evictions_refused) > 0 &&
	      atomic_load(&ephemerals) > 0 && workers[0].refused > 0);
	alone = false;
}

int main(int argc, char **argv)
{
	unsigned threads = argc > 3 ? (unsigned)atoi(argv[3]) : 4;
	double seconds = argc > 2 ? atof(argv[2]) : 3;
	uint64_t ops = 0, puts = 0, refused = 0, reads = 0, alone_moves;
	struct zpool_stats st;

	seed = argc > 1 ? strtoull(argv[1], NULL, 0) : os_clock_ns();
	check(threads >= 1 && threads <= THREADS_MAX);
	frames_init(&account, 0);
	check(zpool_create("zbud", &account, &owner, NULL, &zp) == 0);
	for (uint32_t n = 0; n < ENTRIES; n++)
		os_mutex_init(&entries[n].lock, OS_RANK_SHARD, "entry");
	for (unsigned i = 0; i < threads; i++) {
		workers[i].number = i;
		workers[i].rnd = (seed + 1) * 0x9e3779b97f4a7c15ull + i * 0xda942042e4dd58b5ull;
	}
	run_alone();
	alone_moves = atomic_load(&moves);
	frames_set_limit(&account, 0);
	for (unsigned i = 0; i < threads; i++)
		check(os_thread_create(&workers[i].thread, "model", run, &workers[i]) == 0);
	os_sleep_ns((uint64_t)(seconds * 1e9));
	atomic_store(&stop, true);
	for (unsigned i = 0; i < threads; i++) {
		os_thread_join(workers[i].thread);
		ops += workers[i].ops;
		puts += workers[i].puts;
		refused += workers[i].refused;
		reads += workers[i].reads;
	}
	settle();
	check(atomic_load(&moves) > alone_moves && reads > 0);
	for (uint32_t n = 0; n < ENTRIES; n++)
		do_drop(&entries[n]);
	zpool_compact(zp, UINT64_MAX);
	settle();
	zpool_stats(zp, &st);
	check(st.frame_bytes == 0);
	printf("seed %llu: %llu operations, %llu puts (%llu refused), %llu reads, %llu moves "
	       "(%llu refused), %llu evictions (%llu refused)\n",
	       (unsigned long long)seed, (unsigned long long)ops, (unsigned long long)puts,
	       (unsigned long long)refused, (unsigned long long)reads,
	       (unsigned long long)atomic_load(&moves),
	       (unsigned long long)atomic_load(&moves_refused),
	       (unsigned long long)atomic_load(&evictions),
	       (unsigned long long)atomic_load(&evictions_refused));
	zpool_destroy(zp);
	check(frames_used(&account) == 0);
	return 0;
}
