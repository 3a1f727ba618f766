/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The policy "s3fifo": three queues (Yang and others, "FIFO queues are all you
 * need for cache eviction", SOSP 2023), fitted to a store whose gets may remove,
 * and to programs that read in a loop what is larger than the store.
 *
 *            new                     known to the ghosts, or main has room
 *             │                              │
 *             ▼                              ▼
 *        ┌─ small ─┐  got twice or more ┌─ main ──────┐
 *        │  10 %   │ ─────────────────► │    90 %     │ ◄─┐ got since its last
 *        └────┬────┘                    └──────┬──────┘ ──┘ turn: another one
 *             │ not                            │ not
 *             ▼                                ▼
 *          evicted, its name to the ghosts   evicted
 *
 * What passes through once (a scan) leaves by the small queue and pushes out
 * nothing that was wanted. A page that comes back soon after it was evicted
 * was wanted: the ghosts, names without pages, remember it, and it joins the
 * main queue.
 *
 * A loop larger than the store (a tree that is searched again and again) has
 * each page come back too late: as published, all of it passes through small,
 * main stays empty, and nothing is ever found. So
 *
 *   - main is filled with whatever comes while it has less than its share. In a
 *     loop that part is found in every round: nearly what OPT finds.
 *   - one of MAIN_TURN victims comes from main all the same, and new pages take
 *     its room: what was kept so and is not asked for gives way in time.
 *   - a ghost proves something only if it came back within a quarter of what
 *     the store has: of two pages of one loop neither is worth more, and pages
 *     that change places are found by nobody.
 *
 * Where a get removes (private ephemeral pools) a page is never got twice while
 * it is here. There the get itself makes the name a ghost: when the page is put
 * again it has proved itself, and joins the main queue.
 *
 * Ghosts: a table of 4-byte slots, four to a set: 20 bits of the name's hash
 * and 12 of time. Time counts ghosts, in units of 1/512 of the table, so it
 * wraps after eight tables full; by then a slot has been used again. The table
 * grows with the queues; when memory for that is refused it stays as it is,
 * and remembers less.
 *
 *   I1  time of any ghost <= table's clock, modulo 2^12 units
 *
 * Locks: set.lock guards the table. Failure: none that shows.
 */
#include "zcache/zcache.h"

enum { SMALL, MAIN };

#define MAIN_TURN  12u /* shorter, and of a loop of eight times the store nothing is found */
#define GHOST_PART 4u  /* of the entries: how late a ghost still counts */
#define SLACK	   512u /* what a put may evict at once: below its tenth small does not come so soon */
#define WAYS	   4u
#define SLOTS_MIN  1024u
#define TIME_BITS  12
#define TIME_MASK  ((1u << TIME_BITS) - 1)
#define TIME_UNITS 512u /* of a table */

struct zc_ghosts {
	uint64_t slots;	 /* a power of two */
	uint64_t clock;	 /* ghosts ever */
	uint32_t slot[]; /* tag << TIME_BITS | time; 0: free */
};

static size_t table_bytes(uint64_t slots)
{
	return sizeof(struct zc_ghosts) + slots * sizeof(uint32_t);
}

static uint32_t *set_of(struct zc_ghosts *g, uint32_t name)
{
	return &g->slot[(name & (g->slots / WAYS - 1)) * WAYS];
}

/* Never 0, so that no ghost looks like a free slot. */
static uint32_t tag_of(uint32_t name)
{
	uint32_t tag = name >> TIME_BITS;

	return tag ? tag : 1;
}

static uint32_t time_now(const struct zc_ghosts *g)
{
	return g->clock / (g->slots / TIME_UNITS) & TIME_MASK;
}

/* Ghosts that came after this one, about. */
static uint64_t ghost_age(const struct zc_ghosts *g, uint32_t slot)
{
	return (uint64_t)((time_now(g) - slot) & TIME_MASK) * (g->slots / TIME_UNITS);
}

/* Whether the name is known; then no longer. */
static bool ghost_take(struct zc_evict *ev, uint32_t name)
{
	struct zc_ghosts *g = ev->ghosts;
	uint64_t oldest;
	uint32_t *set;

	if (!g)
		return false;
	oldest = atomic_load_explicit(&ev->entries, memory_order_relaxed) / GHOST_PART;
	set = set_of(g, name);
	for (unsigned i = 0; i < WAYS; i++) {
		if (set[i] >> TIME_BITS == tag_of(name) && ghost_age(g, set[i]) <= oldest) {
			set[i] = 0;
			return true;
		}
	}
	return false;
}

static void ghost_add(struct zc_ghosts *g, uint32_t name)
{
	uint32_t *set = set_of(g, name);
	unsigned at = 0;

	for (unsigned i = 0; i < WAYS; i++) {
		if (set[i] == 0 || set[i] >> TIME_BITS == tag_of(name)) {
			at = i;
			break;
		}
		if (ghost_age(g, set[i]) > ghost_age(g, set[at]))
			at = i;
	}
	g->clock++;
	set[at] = tag_of(name) << TIME_BITS | time_now(g);
}

/* ---- the policy ------------------------------------------------------------------------ */

static unsigned s3_admit(struct zc_evict *ev, uint32_t name)
{
	if (ghost_take(ev, name))
		return MAIN;
	return ev->fifo[SMALL].entries > ev->fifo[MAIN].entries / 8 + SLACK ? MAIN : SMALL;
}

static unsigned s3_choose(struct zc_evict *ev)
{
	uint64_t small = ev->fifo[SMALL].entries, main = ev->fifo[MAIN].entries;

	if (!small || !main)
		return main ? MAIN : SMALL;
	return ++ev->turns % MAIN_TURN == 0 || small * 10 <= small + main ? MAIN : SMALL;
}

static int s3_judge(unsigned from, unsigned *seen)
{
	if (from == SMALL && *seen > 1) {
		*seen = 0;
		return MAIN;
	}
	if (from == MAIN && *seen) {
		--*seen;
		return MAIN;
	}
	return ZC_EVICT;
}

static void s3_gone(struct zc_evict *ev, int from, uint32_t name)
{
	if (from == MAIN)
		return;
	os_mutex_lock(&ev->lock);
	if (ev->ghosts)
		ghost_add(ev->ghosts, name);
	os_mutex_unlock(&ev->lock);
}

/* A table for twice as many. Each old set's ghosts go to all new sets that they may belong to. */
static void s3_grow(struct zc_evict *ev)
{
	uint64_t want = atomic_load_explicit(&ev->entries, memory_order_relaxed);
	uint64_t slots = SLOTS_MIN, had = 0;
	struct zc_ghosts *g, *old;

	os_mutex_lock(&ev->lock);
	if (ev->ghosts)
		had = ev->ghosts->slots;
	os_mutex_unlock(&ev->lock);
	while (slots < want)
		slots *= 2;
	if (slots <= had)
		return;
	g = zc_alloc(ev->host, table_bytes(slots));
	if (!g)
		return;
	g->slots = slots;
	os_mutex_lock(&ev->lock);
	old = ev->ghosts;
	if (old && old->slots >= slots) {
		old = g; /* somebody was faster */
	} else {
		for (uint64_t i = 0; old && i < slots; i++) {
			uint32_t ghost = old->slot[i & (old->slots - 1)];

			/* All as old as the youngest: times of another scale are no use. */
			g->slot[i] = ghost >> TIME_BITS << TIME_BITS;
		}
		ev->ghosts = g;
	}
	os_mutex_unlock(&ev->lock);
	if (old)
		zc_free(ev->host, old, table_bytes(old->slots));
}

static void s3_trim(struct zc_evict *ev)
{
	struct zc_ghosts *g = NULL;

	os_mutex_lock(&ev->lock);
	if (!atomic_load_explicit(&ev->entries, memory_order_relaxed)) {
		g = ev->ghosts;
		ev->ghosts = NULL;
	}
	os_mutex_unlock(&ev->lock);
	if (g)
		zc_free(ev->host, g, table_bytes(g->slots));
}

const struct zc_policy zc_policy_s3fifo = {
	.name = "s3fifo",
	.fifos = 2,
	.by_name = true,
	.admit = s3_admit,
	.choose = s3_choose,
	.judge = s3_judge,
	.gone = s3_gone,
	.grow = s3_grow,
	.trim = s3_trim,
};
