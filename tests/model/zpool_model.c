/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A driver of zpool against a model, seeded.
 *
 *   zpool_model DRIVER [SEED [SECONDS [THREADS]]]
 *
 * The model is a table of entries, each with a lock, a handle and what its
 * object must hold: a stream of bytes that follows from {entry, version}.
 * Threads put, replace, read, read with a pin held over other operations,
 * write in place, drop, change movability; some of them compact and shrink;
 * all of it with the frame source now and then at its limit. The owner's move()
 * does what an owner does: takes the entry's lock, checks that the entry still
 * has the old handle, copies, and stores the new one. Every byte is checked
 * when read, also what a pin holds after its object was moved, evicted or
 * freed; and every object that evict() was asked for is what the model says or
 * has just gone.
 *
 * One thread first runs alone, with a full verify every few steps and, where
 * the driver has one, a judge of where it puts things (zpool_model.h); then all
 * run together, with a verify now and then from the compacting thread. Now and
 * then move() waits before it takes the entry's lock, and the others go for
 * that very entry: so what a move meets is not left to chance. On failure the
 * seed is printed. Where no move has been refused in time (a slow build, a busy
 * machine), they run on until one has.
 */
#include "zpool_model.h"

#include "alloc/zbud.h"
#include "alloc/zsmalloc.h"
#include "os/clock.h"
#include "os/lock.h"
#include "os/thread.h"

#include <string.h>

#define ENTRIES	    6000
#define THREADS_MAX 16
#define HELD	    24
#define STEPS_ALONE 30000
#define MOVES_WAIT  1000
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
	uint64_t rnd, ops, puts, refused, reads;
	struct held held[HELD];
	os_thread thread;
	unsigned number;
};

static struct entry entries[ENTRIES];
static struct worker workers[THREADS_MAX];
static struct frames account;
static const struct driver *driver;
static struct zpool *zp;
uint64_t model_seed;
static const struct judge *judge; /* NULL: nobody, or several threads run */
static _Atomic bool together, stop;
static _Atomic uint32_t moving; /* 1 + the entry for which move() waits; 0: none */
static _Atomic uint64_t moves, moves_refused, moves_tried, evictions, evictions_refused, ephemerals;

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
	if (atomic_load(&together) && atomic_fetch_add(&moves_tried, 1) % MOVES_WAIT == 0) {
		atomic_store(&moving, n + 1);
		os_sleep_ns(50000);
		atomic_store(&moving, 0);
	}
	os_mutex_lock(&e->lock);
	/* Odd entries are written in place while mapped: their owner asks for pins. */
	if (e->h == from && e->movable && !(n % 2 && zpool_pinned(zp, from))) {
		check(size >= e->size);
		if (judge)
			judge->moved(from, to, e->size);
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
	if (judge)
		judge->evicting(h);
	os_mutex_lock(&e->lock);
	/* Some are too good to lose. */
	if (e->h == h && e->movable && e->version % 8) {
		check(size >= e->size);
		if (n % 2 == 0)
			expect(ptr, n, e->version, e->size);
		if (judge)
			judge->removed(h, e->size);
		e->h = 0;
		done = true;
	}
	os_mutex_unlock(&e->lock);
	if (done)
		zpool_free(zp, h);
	if (done && is_ephemeral(n))
		atomic_fetch_add(&ephemerals, 1);
	atomic_fetch_add(done ? &evictions : &evictions_refused, 1);
	/* Nobody can have taken its place: it is pinned for us. */
	check(memcmp(ptr, &n, sizeof(n)) == 0);
	return done;
}

static const struct zpool_owner owner = {.move = move, .evict = evict};

/* Few classes get most, so that zspages fill; all get some. */
static uint32_t zsmalloc_size(uint64_t r, uint64_t kind)
{
	switch (kind % 8) {
	case 0:
		return 4 + (uint32_t)(r % 60);
	case 1:
		return 4 + (uint32_t)(r % 9000);
	case 2:
		return kind / 8 % 16 ? 4098 : 4 + (uint32_t)(r % (ZS_MAX_SIZE - 3));
	case 3:
	case 4:
		return 1500 + (uint32_t)(r % 40);
	default:
		return 100 + (uint32_t)(r % 100);
	}
}

/* Many that two of go into a frame, or just not. */
static uint32_t zbud_size(uint64_t r, uint64_t kind)
{
	switch (kind % 4) {
	case 0:
		return 4 + (uint32_t)(r % (ZBUD_MAX_SIZE - 3));
	case 1:
		return 4 + (uint32_t)(r % 600);
	default:
		return 1200 + (uint32_t)(r % 1000);
	}
}

static const struct driver {
	const char *name;
	uint32_t (*size)(uint64_t r, uint64_t kind); /* 4..max_size, by two random numbers */
	const struct judge *judge;
} drivers[] = {
	{"zsmalloc", zsmalloc_size, NULL},
	{"zbud", zbud_size, &zbud_judge},
};

static void do_put(struct worker *w, uint32_t n)
{
	struct entry *e = &entries[n];
	uint64_t r = rnd(w);
	uint32_t version = (uint32_t)rnd(w), size = driver->size(r, rnd(w)), old_size;
	zpool_handle h, old;
	bool movable = judge || rnd(w) % 16;

	w->puts++;
	if (zpool_malloc_flags(zp, size, is_ephemeral(n) ? ZPOOL_EPHEMERAL : 0, &h) != 0) {
		w->refused++;
		if (judge)
			judge->refused(n, size);
		return;
	}
	check(h && h >> ZPOOL_HANDLE_BITS == 0);
	if (judge)
		judge->added(h, n, size);
	fill(zpool_peek(zp, h), n, version, size);
	os_mutex_lock(&e->lock);
	old = e->h;
	old_size = e->size;
	e->h = h;
	e->size = size;
	e->version = version;
	e->movable = movable;
	if (movable)
		zpool_set_movable(zp, h, true);
	os_mutex_unlock(&e->lock);
	if (old && judge)
		judge->removed(old, old_size);
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
	if (h && judge)
		judge->removed(h, e->size);
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
		if (keep && !judge) {
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
	os_mutex_lock(&e->lock);
	if (e->h)
		expect(zpool_peek(zp, e->h), n, e->version, e->size);
	os_mutex_unlock(&e->lock);
}

static void do_movable(struct worker *w, struct entry *e)
{
	os_mutex_lock(&e->lock);
	if (e->h) {
		e->movable = judge || rnd(w) % 4;
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

static void do_shrink(struct worker *w)
{
	uint64_t got, pages = 1 + rnd(w) % 8;

	if (judge)
		pages = judge->shrink_begins(zp, pages);
	check(zpool_shrink(zp, pages, &got) == 0);
	if (judge)
		judge->shrink_ended(got);
}

static void step(struct worker *w)
{
	uint64_t op = rnd(w) % 1000;
	/* Skewed: some entries are fought over. */
	uint32_t n = (uint32_t)(rnd(w) % (rnd(w) % 4 ? ENTRIES : 64)), m = atomic_load(&moving);

	if (m && rnd(w) % 2)
		n = m - 1;
	w->ops++;
	if (op < 350)
		do_put(w, n);
	else if (op < 530)
		do_drop(&entries[n]);
	else if (op < 830)
		do_read(w, n, op < 630);
	else if (op < 910)
		do_write(w, n);
	else if (op < 940)
		do_movable(w, &entries[n]);
	else if (op < 946)
		do_limit(w);
	else if (op < 949 && w->number <= 1)
		do_shrink(w);
	else if (op < 966 && w->number % 2 == 0)
		zpool_compact(zp, 1 + rnd(w) % 64);
	else if (op < 967 && w->number <= 1)
		zpool_compact(zp, UINT64_MAX);
	else if (op == 999 && w->number == 0 && rnd(w) % 4 == 0)
		for (unsigned k = 0; k < ENTRIES / 2; k++)
			do_drop(&entries[rnd(w) % ENTRIES]);
}

static void release_all(struct worker *w)
{
	for (unsigned k = 0; k < HELD; k++)
		held_release(&w->held[k]);
}

static void *run(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&stop)) {
		step(w);
		if (w->number == 0 && w->ops % 20000 == 0)
			check(zpool_verify(zp) == 0);
	}
	release_all(w);
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

static void run_alone(struct worker *w)
{
	judge = driver->judge;
	for (unsigned i = 0; i < STEPS_ALONE; i++) {
		step(w);
		if (i % 500 == 0)
			check(zpool_verify(zp) == 0);
	}
	release_all(w);
	settle();
	check(atomic_load(&moves) > 0 && atomic_load(&evictions) > 0 &&
	      atomic_load(&evictions_refused) > 0 && atomic_load(&ephemerals) > 0 &&
	      w->refused > 0);
	if (judge)
		judge->ended();
	judge = NULL;
	frames_set_limit(&account, 0);
}

/* Returns what the threads did in all, the part alone included. */
static struct worker run_together(unsigned threads, double seconds)
{
	uint64_t alone = atomic_load(&moves);
	bool wait = threads > 1;
	struct worker sum = {0};

	atomic_store(&together, true);
	for (unsigned i = 0; i < threads; i++)
		check(os_thread_create(&workers[i].thread, "model", run, &workers[i]) == 0);
	os_sleep_ns((uint64_t)(seconds * 1e9));
	for (unsigned i = 0; wait && !atomic_load(&moves_refused) && i < PATIENCE_S * 10; i++)
		os_sleep_ns(100 * 1000 * 1000);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < threads; i++) {
		os_thread_join(workers[i].thread);
		sum.ops += workers[i].ops;
		sum.puts += workers[i].puts;
		sum.refused += workers[i].refused;
		sum.reads += workers[i].reads;
	}
	atomic_store(&together, false);
	settle();
	check(atomic_load(&moves) > alone && sum.reads > 0);
	check(!wait || atomic_load(&moves_refused) > 0);
	return sum;
}

/* Everything goes, and no frame stays. */
static void drain(void)
{
	struct zpool_stats st;

	for (uint32_t n = 0; n < ENTRIES; n++)
		do_drop(&entries[n]);
	zpool_compact(zp, UINT64_MAX);
	settle();
	zpool_stats(zp, &st);
	check(st.frame_bytes == 0);
	check(st.compacted_frames > 0 && st.shrunk_frames > 0);
	zpool_destroy(zp);
	check(frames_used(&account) == 0);
}

int main(int argc, char **argv)
{
	unsigned threads = argc > 4 ? (unsigned)atoi(argv[4]) : 4;
	double seconds = argc > 3 ? atof(argv[3]) : 3;
	struct worker sum;

	for (unsigned i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++)
		if (argc > 1 && !strcmp(argv[1], drivers[i].name))
			driver = &drivers[i];
	if (!driver || threads < 1 || threads > THREADS_MAX) {
		fprintf(stderr, "usage: %s zsmalloc|zbud [SEED [SECONDS [THREADS, to %d]]]\n",
			argv[0], THREADS_MAX);
		return 2;
	}
	model_seed = argc > 2 ? strtoull(argv[2], NULL, 0) : os_clock_ns();
	frames_init(&account, 0);
	check(zpool_create(driver->name, &account, &owner, NULL, &zp) == 0);
	for (uint32_t n = 0; n < ENTRIES; n++)
		os_mutex_init(&entries[n].lock, OS_RANK_SHARD, "entry");
	for (unsigned i = 0; i < threads; i++) {
		workers[i].number = i;
		workers[i].rnd =
			(model_seed + 1) * 0x9e3779b97f4a7c15ull + i * 0xda942042e4dd58b5ull;
	}
	run_alone(&workers[0]);
	sum = run_together(threads, seconds);
	drain();
	printf("%s, seed %llu: %llu operations, %llu puts (%llu refused), %llu reads, %llu moves "
	       "(%llu refused), %llu evictions (%llu refused)\n",
	       driver->name, (unsigned long long)model_seed, (unsigned long long)sum.ops,
	       (unsigned long long)sum.puts, (unsigned long long)sum.refused,
	       (unsigned long long)sum.reads, (unsigned long long)atomic_load(&moves),
	       (unsigned long long)atomic_load(&moves_refused),
	       (unsigned long long)atomic_load(&evictions),
	       (unsigned long long)atomic_load(&evictions_refused));
	return 0;
}
