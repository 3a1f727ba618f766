/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reclaim: from a queue's entry, bottom-up, to the pages that go (T11).
 *
 * The life of a zpage, as the two directions see it:
 *
 *                 top-down                            bottom-up
 *
 *   IN USE        words in leaves name it             its entry is in a queue
 *     │             get: shard, word, pin, unlock       entry taken out of the queue
 *     │                                                 leaf found, shard locked
 *   ZOMBIE          data valid: a get that has the        stamps compared (S)
 *     │             shard first wins                      policy says: goes
 *     │             ─────────── words taken out of the leaf, shard unlocked ───────────
 *   DYING           no word names it; its bytes           zc_drop: references given up
 *     │             stay for those who have it pinned     zpool_free: DYING in its state
 *   (gone)          ─────────── last unpin, or zpool_free if there was none ───────────
 *
 * ZOMBIE is nothing that is written anywhere: a victim is chosen but still
 * named; whoever locks the shard first decides. There is no window in which a
 * get could find a word whose zpage was given up, because words are taken out
 * and references given up in this order, and no way for a page to be given up
 * twice, because the one who took the words out has the references (I1 in
 * pam_local.c) and nobody else.
 *
 *   (S)  an entry may evict what is at its place if and only if
 *          - the leaf id leads to a live leaf (index_lock_leaf),
 *          - that leaf's pool is one of the set that the entry came from,
 *          - the words there carry the entry's stamp and places.
 *        So no entry, however stale, touches another client's page or a
 *        persistent one; at worst it takes a newer page of the same kind early.
 *
 * Moves (pam_local.c) exchange the handle in a word and leave stamp and place
 * alone, under the same shard lock: an entry survives any number of them.
 *
 * Lock order: bottom-up < shard < set.lock. Freeing (class lock) comes after
 * the shard is unlocked. No lock is held over more than one zpage's words.
 *
 * Limits, and who pays.
 *
 *   The hard limit is the account's (frames.h): nothing gets past it for an
 *   instant. A put that it refuses evicts the oldest ephemeral pages of the
 *   host and tries again (ouroboros): persistent outrank ephemeral, younger
 *   outrank older. First about what it needs, then twice that, and so on; what
 *   was evicted leaves holes, so after ROOM_COMPACT bytes the allocator moves
 *   zpages together. When nothing ephemeral is left, the put fails.
 *
 *   The accept threshold is for that case. An ephemeral put that found no
 *   memory and nothing to evict sets host->full. From then on ephemeral puts
 *   are refused at once, before they compress anything, until less than
 *   accept_percent (90) of the limit is in use: without it each of them would
 *   compress in vain, and the store would be full of ephemeral pages again at
 *   the first frame that a persistent put might want. Where there is something
 *   to evict the threshold does not matter: a put then brings what it takes.
 *
 *   Measured on 40000 pages of a running interpreter, lz4 (1.6 KiB a page): a put
 *   takes 7.1 µs of processor time, 7.5 where it evicts for each that it brings
 *   (24 MiB; 9 % of that are holes), and the index, queues included, is 1.6 %.
 *
 *   The soft target is above which puts evict a little more than they bring, and
 *   maintenance shrinks. Persistent pages may stand above it.
 */
#include "os/clock.h"
#include "zcache/zcache.h"

#define ROOM_ROUNDS  12u
#define ROOM_LEAST   ((uint64_t)2 * ZC_PAGE)
#define ROOM_COMPACT ((uint64_t)16 * ZC_PAGE) /* holes that pay for a compaction */
#define ROOM_FRAMES  16
#define TRIES_MAX    4096u

/* ---- victims ----------------------------------------------------------------------- */

/* A zpage that is to go, its leaf locked. */
struct victim {
	struct zc_evict *ev;
	struct zc_entry e;
	unsigned from; /* queue */
	uint32_t mask; /* its words: slot e.slot + i */
};

static unsigned words_seen(const struct index_cursor *c, const struct victim *v)
{
	unsigned most = 0;

	if (v->e.immediate)
		return 0;
	for (uint32_t m = v->mask; m; m &= m - 1) {
		unsigned seen = zc_word_seen(c->words[v->e.slot + (unsigned)__builtin_ctz(m)]);

		most = seen > most ? seen : most;
	}
	return most;
}

static void set_words_seen(struct index_cursor *c, const struct victim *v, unsigned seen)
{
	for (uint32_t m = v->mask; m && !v->e.immediate; m &= m - 1) {
		uint64_t *word = &c->words[v->e.slot + (unsigned)__builtin_ctz(m)];

		*word = (*word & ~(ZC_SEEN_ONE * ZC_SEEN_MAX)) | ZC_SEEN_ONE * seen;
	}
}

/*
 * What the policy says of a victim. By age alone (young_ms), what was got since it was
 * queued is not idle, however poor a candidate it is: it has a turn in its queue.
 */
static int verdict(const struct victim *v, uint64_t young_ms, unsigned *seen)
{
	int to = v->ev->policy->judge(v->from, seen);

	if (to != ZC_EVICT || young_ms == UINT64_MAX || !*seen)
		return to;
	*seen = 0;
	return (int)v->from;
}

/* Spared: counted for its pool, whose leaf is locked. */
static void count_chance(struct zc_slot *s, uint32_t mask)
{
	zc_add(&s->spare, &s->spare.count[ZC_SECOND_CHANCES], (unsigned)__builtin_popcount(mask));
}

/*
 * The next one that the policy gives up, with its leaf locked: the caller takes the
 * words out and calls index_unlock(c). Its entry is out of the queue. young_ms: only
 * what came in before; UINT64_MAX: any. *tries: entries looked at, at most; counted
 * down. False: none.
 */
static bool victim_next(struct zc_evict *ev, uint64_t young_ms, unsigned *tries,
			struct index_cursor *c, struct victim *v)
{
	struct tmem_host *h = ev->host;

	v->ev = ev;
	while (*tries && zc_dequeue(ev, young_ms, &v->e, &v->from)) {
		unsigned seen;
		int to;

		--*tries;
		if (zc_entry_stale(h, &v->e) || !index_lock_leaf(h->index, v->e.leaf, c))
			continue;
		/* (S) */
		v->mask = 0;
		if (((struct zc_slot *)index_pool_owner(c->pool))->ev == ev)
			v->mask = zc_entry_words(c, &v->e);
		if (v->mask) {
			seen = words_seen(c, v);
			to = verdict(v, young_ms, &seen);
			/* All of so many were wanted: the last one goes, so that a put gets on. */
			if (to == ZC_EVICT || (*tries == 0 && young_ms == UINT64_MAX))
				return true;
			set_words_seen(c, v, seen);
			/* No room to remember it: then it goes. */
			if (!zc_requeue(ev, &v->e, (unsigned)to))
				return true;
			count_chance(index_pool_owner(c->pool), v->mask);
		}
		index_unlock(c);
	}
	return false;
}

/* What a page costs that has no zpage: its word in a full leaf, its entry. */
#define SAME_BYTES 16u

/* Bytes that go with these words, metadata of zpages left out; the leaf is locked. */
static uint64_t freed_bytes(struct tmem_host *h, const struct index_cursor *c,
			    const struct victim *v)
{
	uint64_t word = c->words[v->e.slot + (unsigned)__builtin_ctz(v->mask)];
	struct zpage *z;

	if (v->e.immediate)
		return SAME_BYTES;
	if (zc_word_kind(word) != ZC_LOCAL)
		return 0;
	z = zpool_peek(h->zpool, zc_word_handle(word));
	return zpage_refs(z, zpage_info(z, __ATOMIC_ACQUIRE)) ==
			       (unsigned)__builtin_popcount(v->mask)
		       ? z->zsize
		       : 0;
}

/* Take a victim's words out, unlock, and let go. */
static void evict_one(struct tmem_host *h, struct zc_thread *t, struct index_cursor *c,
		      const struct victim *v, enum zc_why why, struct zc_got *got)
{
	struct pampd taken[TMEM_CLUSTER_MAX];
	struct zc_slot *s = index_pool_owner(c->pool);
	uint64_t bytes = freed_bytes(h, c, v);
	struct zc_counts *mine;
	struct index_oid oid;
	unsigned n = 0;
	uint32_t name;

	index_cursor_oid(c, &oid);
	name = zc_policy_name(v->ev, s, &oid, c->base + v->e.slot);
	for (uint32_t m = v->mask; m; m &= m - 1) {
		unsigned slot = v->e.slot + (unsigned)__builtin_ctz(m);

		taken[n++] = index_cursor_get(c, slot);
		index_cursor_clear(c, slot);
	}
	mine = zc_count_slot(t, s);
	/* The pool may be gone after this; the set stays, it is in use. */
	index_unlock(c);
	atomic_fetch_sub_explicit(&v->ev->pages, n, memory_order_relaxed);
	zc_drop(h, t, taken, n);
	zc_policy_gone(v->ev, (int)v->from, name);
	zc_count(t, ZC_EVICTED_ZPAGES, !v->e.immediate);
	zc_count(t, ZC_EVICTED_BYTES, bytes);
	zc_count(t, ZC_EVICTED + why, n);
	zc_count_back(t, mine);
	got->pages += n;
	got->bytes += bytes;
}

/*
 * From the allocator: it has z pinned (so the handle means this very zpage
 * until we return) and holds no lock. Words that name the handle in the leaf
 * that z knows are z's; when they are all the references there are, nobody else
 * can be about to use them (M in pam_local.c).
 */
bool zc_evict_zpage(void *ctx, uint64_t handle, void *ptr, size_t size)
{
	struct tmem_host *h = ctx;
	struct zpage *z = ptr;
	uint16_t info = zpage_info(z, __ATOMIC_ACQUIRE);
	unsigned slot = zpage_slot(info), pages = zpage_pages(info), n = 0, seen = 0;
	struct pampd taken[TMEM_CLUSTER_MAX];
	/* Only frames_back() makes the allocator call, and its callers have a state. */
	struct zc_thread *t = os_tls_get(h->tls);
	uint64_t zsize = z->zsize;
	struct zc_counts *mine;
	struct zc_evict *ev;
	struct index_cursor c;
	struct zc_slot *s;
	uint32_t mask = 0;

	if (!index_lock_leaf(h->index, zpage_leaf(z), &c))
		return false;
	s = index_pool_owner(c.pool);
	ev = s->ev;
	for (unsigned i = 0; i < pages && slot + i < INDEX_FANOUT; i++) {
		uint64_t word = c.words[slot + i];

		if (!zc_word_same(word, zc_word(ZC_LOCAL, i, handle)) ||
		    *c.immediate >> (slot + i) & 1)
			continue;
		mask |= 1u << i;
		seen += zc_word_seen(word);
	}
	if (s->flags & TMEM_POOL_PERSIST || !mask ||
	    zpage_refs(z, zpage_info(z, __ATOMIC_ACQUIRE)) != (unsigned)__builtin_popcount(mask))
		mask = 0;
	for (uint32_t m = mask; m; m &= m - 1) {
		unsigned at = slot + (unsigned)__builtin_ctz(m);

		if (seen) {
			c.words[at] &= ~(ZC_SEEN_ONE * ZC_SEEN_MAX);
			continue;
		}
		taken[n++] = index_cursor_get(&c, at);
		index_cursor_clear(&c, at);
	}
	if (!n) {
		index_unlock(&c);
		return false;
	}
	t = t ? t : h->emergency;
	zc_sets_get(ev); /* keeps the client, and the slot with it */
	mine = zc_count_slot(t, s);
	/* The pool may be gone after this. */
	index_unlock(&c);
	atomic_fetch_sub_explicit(&ev->pages, n, memory_order_relaxed);
	zc_drop(h, t, taken, n);
	zc_count(t, ZC_EVICTED + ZC_WHY_DRIVER, n);
	zc_count(t, ZC_EVICTED_ZPAGES, 1);
	zc_count(t, ZC_EVICTED_BYTES, zsize);
	zc_count_back(t, mine);
	zc_sets_put(ev);
	return true;
}

static bool enough(const struct zc_want *w, const struct zc_got *got)
{
	return got->pages >= w->pages || got->bytes >= w->bytes;
}

void zc_evict(struct tmem_host *h, struct zc_thread *t, const struct zc_want *w, struct zc_got *got)
{
	*got = (struct zc_got){0};
	while (!enough(w, got)) {
		struct zc_evict *ev = zc_sets_pick(h, ZC_EPHEMERAL, w->client, w->young_ms);
		unsigned tries = TRIES_MAX, batch = 16, victims = 0;
		struct index_cursor c;
		struct victim v;

		if (!ev)
			break;
		/*
		 * Each pass gets on, also one that evicts nothing: stale entries are used up,
		 * of TRIES_MAX that were wanted one goes, and by age they are young again. A
		 * set that is not as old as it looked is known better by then.
		 */
		while (batch-- && !enough(w, got) && victim_next(ev, w->young_ms, &tries, &c, &v)) {
			evict_one(h, t, &c, &v, w->why, got);
			victims++;
		}
		zc_sets_took(ev, victims);
		zc_sets_put(ev);
	}
}

void zc_evict_to_target(struct tmem_host *h, struct zc_thread *t, unsigned n)
{
	uint64_t target = zc_soft_bytes(h);
	struct zc_want w = {
		.why = ZC_WHY_TARGET, .pages = 4 * n, .bytes = UINT64_MAX, .young_ms = UINT64_MAX};
	struct zc_got got;

	if (target && frames_used(&h->frames) > target)
		zc_evict(h, t, &w, &got);
}

/* ---- the accept threshold ---------------------------------------------------------------- */

static uint64_t accept_bytes(const struct tmem_host *h, uint64_t limit)
{
	return limit / 100 * atomic_load_explicit(&h->accept_percent, memory_order_relaxed);
}

void zc_set_full(struct tmem_host *h)
{
	uint64_t limit = atomic_load_explicit(&h->frames.limit_bytes, memory_order_relaxed);

	/* Memory may also be short in the machine; then the next put may do. */
	if (limit && frames_used(&h->frames) > accept_bytes(h, limit))
		atomic_store_explicit(&h->full, true, memory_order_relaxed);
}

bool zc_full(struct tmem_host *h)
{
	uint64_t limit = atomic_load_explicit(&h->frames.limit_bytes, memory_order_relaxed);

	if (!atomic_load_explicit(&h->full, memory_order_relaxed))
		return false;
	if (limit && frames_used(&h->frames) > accept_bytes(h, limit))
		return true;
	atomic_store_explicit(&h->full, false, memory_order_relaxed);
	return false;
}

bool zc_short_of_memory(struct tmem_host *h)
{
	uint64_t mark = atomic_load_explicit(&h->mark_bytes, memory_order_relaxed);

	return atomic_load_explicit(&h->pressed, memory_order_relaxed) ||
	       (mark != UINT64_MAX && frames_used(&h->frames) > accept_bytes(h, mark));
}

/* Frames from holes, or, where the allocator knows how, from its oldest frames. */
static uint64_t frames_back(struct tmem_host *h, uint64_t frames)
{
	uint64_t got;

	if (h->by_frames && zpool_shrink(h->zpool, frames, &got) == 0)
		return got;
	return zpool_compact(h->zpool, frames);
}

/* ---- shrinking --------------------------------------------------------------------------- */

int tmem_host_shrink(tmem_host *h, uint64_t frames, uint64_t *reclaimed)
{
	uint64_t got = 0;
	int rc = zc_shrink(h, frames, ZC_WHY_SHRINK, &got);

	if (reclaimed)
		*reclaimed = got;
	return rc;
}

/* Bytes in use above what is wanted. */
static uint64_t above(struct tmem_host *h, uint64_t goal)
{
	uint64_t used = frames_used(&h->frames);

	return used > goal ? used - goal : 0;
}

/*
 * Evict what should suffice, move the rest together, look at the account: what
 * evicting gives back by itself depends on how the victims lay. Ends when
 * neither gives anything any more.
 */
int zc_shrink(struct tmem_host *h, uint64_t frames, enum zc_why why, uint64_t *reclaimed)
{
	uint64_t start = frames_used(&h->frames), bytes = frames * OS_FRAME_SIZE;
	uint64_t goal = frames < start / OS_FRAME_SIZE ? start - bytes : 0, left;
	struct zc_thread *t = zc_thread_enter_host(h);
	struct zc_got got;

	while ((left = above(h, goal)) >= OS_FRAME_SIZE) {
		struct zc_want w = {.why = why, .pages = UINT64_MAX, .young_ms = UINT64_MAX};
		uint64_t before = frames_used(&h->frames);

		w.bytes = left;
		/* Frame by frame first, where that is to be had: each victim counts. */
		if (h->by_frames && frames_back(h, left / OS_FRAME_SIZE))
			continue;
		zc_evict(h, t, &w, &got);
		left = above(h, goal);
		if (left >= OS_FRAME_SIZE)
			(void)frames_back(h, left / OS_FRAME_SIZE);
		if (!got.pages && frames_used(&h->frames) >= before)
			break;
	}
	zc_thread_leave(t);
	zc_evict_trim_all(h);
	*reclaimed = start > frames_used(&h->frames)
			     ? (start - frames_used(&h->frames)) / OS_FRAME_SIZE
			     : 0;
	return 0;
}

uint64_t zc_soft_bytes(const struct tmem_host *h)
{
	uint64_t target = atomic_load_explicit(&h->target_bytes, memory_order_relaxed);
	uint64_t ceiling = atomic_load_explicit(&h->ceiling_bytes, memory_order_relaxed);

	return !target || (ceiling && ceiling < target) ? ceiling : target;
}

int tmem_host_set_target(tmem_host *h, uint64_t target_bytes)
{
	atomic_store(&h->target_bytes, target_bytes);
	zc_marks_update(h);
	return 0;
}

uint64_t tmem_host_age(tmem_host *h, uint64_t idle_ms)
{
	uint64_t now = os_clock_ns() / 1000000;
	struct zc_want w = {.why = ZC_WHY_IDLE, .pages = UINT64_MAX, .bytes = UINT64_MAX};
	struct zc_thread *t;
	struct zc_got got;

	if (idle_ms >= now)
		return 0;
	w.young_ms = now - idle_ms;
	t = zc_thread_enter_host(h);
	zc_evict(h, t, &w, &got);
	zc_thread_leave(t);
	return got.pages;
}

/* ---- room ------------------------------------------------------------------------------ */

bool zc_evict_for_put(struct tmem_host *h, struct zc_thread *t, struct tmem_client *client,
		      bool persistent, size_t need, unsigned round)
{
	struct zc_want w = {.why = client	? ZC_WHY_QUOTA
				   : persistent ? ZC_WHY_PERSISTENT
						: ZC_WHY_EPHEMERAL,
			    .young_ms = UINT64_MAX,
			    .client = client};
	uint64_t holes, frames = 0;
	struct zc_got got;

	if (round >= ROOM_ROUNDS)
		return false;
	w.bytes = (need * 2 > ROOM_LEAST ? need * 2 : ROOM_LEAST) << (round < 5 ? round : 5);
	w.pages = 64 << (round < 3 ? round : 3);
	zc_evict(h, t, &w, &got);
	holes = atomic_fetch_add(&h->evicted_bytes, got.bytes) + got.bytes;
	/* Frames are the host's: at a client's own limit they are no help, and may cost others. */
	if (round && !client && holes >= ROOM_COMPACT) {
		atomic_store(&h->evicted_bytes, 0);
		frames = frames_back(h, ROOM_FRAMES);
	}
	return got.pages || frames;
}
