/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Queues of eviction entries: FIFOs of 4096-byte chunks. The words and the
 * invariants are in evict.h.
 *
 *   head                                            tail
 *   [chunk: first..n] -> [chunk] -> [chunk] -> [chunk: ..n]
 *     pop here                                   push here
 *
 * Why chunks of entries and not links in the zpages: a list through zpages
 * costs 16 bytes a page, needs a lock to unlink at each get, and every step
 * along it is a cache miss. Here a page costs 8.06 bytes; a page that goes is
 * not looked for, its entry turns stale where it is.
 *
 * Stale entries are bounded: when there are more entries than pages and an
 * eighth, each ZC_SWEEP_EVERY pushes sweep one chunk: entries that
 * zc_entry_stale() is sure of are taken out, and chunks that fit into one are
 * joined. A sweep visits four times what the pushes add, so the surplus
 * settles at about a third. The order of what stays does not change.
 *
 * Times. A chunk has a base, an entry 14 bits of 64 ms from there, 17 minutes;
 * beyond that it shows the newest time of its chunk. Time is read by the
 * kernel's tick, rounded up. So an entry never looks older than it is.
 *
 * Failure: a push that needs a chunk gets it before; there are always some
 * spare ones left for zc_requeue() (E4).
 */
#include "os/clock.h"
#include "zcache/zcache.h"

#define ENTRY_SLOT_SHIFT  32
#define ENTRY_STAMP_SHIFT 38
#define ENTRY_IMMEDIATE	  ((uint64_t)1 << 49)
#define ENTRY_TIME_SHIFT  50
#define ENTRY_TIME_MAX	  ((1u << 14) - 1)

#define ZC_SWEEP_EVERY 128u
#define ZC_SWEEP_SLACK (2 * ZC_CHUNK_ENTRIES)

static uint64_t now_ms(void)
{
	return os_clock_tick_ns() / 1000000;
}

static struct zc_chunk *chunk(const struct zc_evict *ev, arena_id id)
{
	return arena_ptr(ev->host->chunks, id);
}

/* ---- entries ------------------------------------------------------------------ */

static uint64_t pack(struct zc_chunk *k, const struct zc_entry *e)
{
	uint64_t time = (e->ms - k->base_ms) / ZC_TIME_UNIT_MS;

	if (e->ms < k->base_ms) /* clocks read in one order, pushed in another */
		time = 0;
	else if (time > ENTRY_TIME_MAX)
		time = ENTRY_TIME_MAX;
	if (e->ms > k->newest_ms)
		k->newest_ms = e->ms;
	return time << ENTRY_TIME_SHIFT | (e->immediate ? ENTRY_IMMEDIATE : 0) |
	       (uint64_t)e->stamp << ENTRY_STAMP_SHIFT | (uint64_t)e->slot << ENTRY_SLOT_SHIFT |
	       e->leaf;
}

static struct zc_entry unpack(const struct zc_chunk *k, uint64_t v)
{
	uint64_t time = v >> ENTRY_TIME_SHIFT;

	return (struct zc_entry){
		.leaf = (arena_id)v,
		.slot = v >> ENTRY_SLOT_SHIFT & (INDEX_FANOUT - 1),
		.stamp = v >> ENTRY_STAMP_SHIFT & ZC_STAMP_MASK,
		.immediate = v & ENTRY_IMMEDIATE,
		.ms = time == ENTRY_TIME_MAX ? k->newest_ms : k->base_ms + time * ZC_TIME_UNIT_MS,
	};
}

uint32_t zc_entry_words(const struct index_cursor *c, const struct zc_entry *e)
{
	uint32_t mask = 0;

	if (e->immediate)
		return *c->immediate >> e->slot & 1;
	for (unsigned i = 0; i < TMEM_CLUSTER_MAX && e->slot + i < INDEX_FANOUT; i++) {
		uint64_t word = c->words[e->slot + i];

		if (word && zc_word_place(word) == i && zc_word_stamp(word) == e->stamp &&
		    !(*c->immediate >> (e->slot + i) & 1))
			mask |= 1u << i;
	}
	return mask;
}

/* How many words an entry names, by peeking: 0 is certain, more only when nothing else runs. */
static unsigned names(const struct tmem_host *h, const struct zc_entry *e)
{
	uint64_t words[TMEM_CLUSTER_MAX], immediate;
	unsigned most = INDEX_FANOUT - e->slot, found = 0;

	if (e->immediate)
		return index_peek(h->index, e->leaf, e->slot, 1, words) & 1;
	most = most < TMEM_CLUSTER_MAX ? most : TMEM_CLUSTER_MAX;
	immediate = index_peek(h->index, e->leaf, e->slot, most, words);
	for (unsigned i = 0; i < most; i++)
		found += words[i] && zc_word_place(words[i]) == i &&
			 zc_word_stamp(words[i]) == e->stamp && !(immediate >> i & 1);
	return found;
}

bool zc_entry_stale(const struct tmem_host *h, const struct zc_entry *e)
{
	return names(h, e) == 0;
}

/* ---- chunks -------------------------------------------------------------------- */

/* Chunks that leave a set: freed when its lock is. */
struct leaving {
	arena_id list;
};

static void free_leaving(struct zc_evict *ev, struct leaving *l)
{
	while (l->list) {
		arena_id id = l->list;

		l->list = chunk(ev, id)->next;
		arena_free(ev->host->chunks, id);
	}
}

static void add_spare(struct zc_evict *ev, arena_id id)
{
	chunk(ev, id)->next = ev->spare;
	ev->spare = id;
	ev->spares++;
}

static arena_id take_spare(struct zc_evict *ev)
{
	arena_id id = ev->spare;

	ev->spare = chunk(ev, id)->next;
	ev->spares--;
	return id;
}

/* A chunk is empty: it fills the reserve (E4), or goes. */
static void retire(struct zc_evict *ev, arena_id id, struct leaving *l)
{
	if (ev->sweep_at == id)
		ev->sweep_at = 0;
	if (ev->spares < ev->policy->fifos) {
		add_spare(ev, id);
	} else {
		chunk(ev, id)->next = l->list;
		l->list = id;
	}
}

/* Changed under the lock only; atomic for those who read it without. */
static void add_entries(struct zc_evict *ev, int64_t n)
{
	uint64_t now = atomic_load_explicit(&ev->entries, memory_order_relaxed);

	atomic_store_explicit(&ev->entries, now + (uint64_t)n, memory_order_relaxed);
}

/* False: a chunk is wanted first. `keep`: so many spare ones may not be taken. */
static bool push(struct zc_evict *ev, unsigned to, const struct zc_entry *e, unsigned keep)
{
	struct zc_fifo *f = &ev->fifo[to];
	struct zc_chunk *k = f->tail ? chunk(ev, f->tail) : NULL;

	if (!k || k->n == ZC_CHUNK_ENTRIES) {
		arena_id id;

		if (ev->spares <= keep)
			return false;
		id = take_spare(ev);
		if (k)
			k->next = id;
		else
			f->head = id;
		f->tail = id;
		k = chunk(ev, id);
		k->next = 0;
		k->first = k->n = 0;
		k->base_ms = k->newest_ms = e->ms;
	}
	k->entry[k->n++] = pack(k, e);
	f->entries++;
	add_entries(ev, 1);
	return true;
}

static void pop(struct zc_evict *ev, struct zc_fifo *f, struct leaving *l)
{
	arena_id id = f->head;
	struct zc_chunk *k = chunk(ev, id);

	k->first++;
	f->entries--;
	add_entries(ev, -1);
	if (k->first < k->n)
		return;
	f->head = k->next;
	if (!f->head)
		f->tail = 0;
	retire(ev, id, l);
}

/* ---- sweeping -------------------------------------------------------------------- */

/* Take stale entries out of a chunk; what stays moves to its front. */
static void filter(struct zc_evict *ev, struct zc_fifo *f, struct zc_chunk *k)
{
	unsigned from = k->n, kept = 0;

	for (unsigned i = k->first; i < k->n; i++) {
		struct zc_entry e = unpack(k, k->entry[i]);

		index_peek_soon(ev->host->index, e.leaf, e.slot);
	}
	for (unsigned i = k->first; i < from; i++) {
		struct zc_entry e = unpack(k, k->entry[i]);

		if (!zc_entry_stale(ev->host, &e))
			k->entry[kept++] = k->entry[i];
	}
	from -= k->first + kept;
	k->first = 0;
	k->n = (uint16_t)kept;
	f->entries -= from;
	add_entries(ev, -(int64_t)from);
}

/* Append all of chunk b to chunk a, which has room. */
static void join(struct zc_chunk *a, struct zc_chunk *b)
{
	if (a->first) {
		memmove(a->entry, a->entry + a->first,
			(size_t)(a->n - a->first) * sizeof(uint64_t));
		a->n -= a->first;
		a->first = 0;
	}
	for (unsigned i = b->first; i < b->n; i++) {
		struct zc_entry e = unpack(b, b->entry[i]);

		a->entry[a->n++] = pack(a, &e);
	}
}

/* Sweep the next chunk. The tail is left alone. */
static void sweep(struct zc_evict *ev, struct leaving *l)
{
	struct zc_fifo *f = &ev->fifo[ev->sweep_fifo];
	struct zc_chunk *before = ev->sweep_at ? chunk(ev, ev->sweep_at) : NULL, *k;
	arena_id id = before ? before->next : f->head;

	if (!id || id == f->tail) {
		ev->sweep_at = 0;
		ev->sweep_fifo = (ev->sweep_fifo + 1) % ev->policy->fifos;
		return;
	}
	k = chunk(ev, id);
	filter(ev, f, k);
	if (before && before->n - before->first + k->n <= (int)ZC_CHUNK_ENTRIES) {
		join(before, k);
		k->n = 0;
	}
	if (k->n) {
		ev->sweep_at = id;
		return;
	}
	if (before)
		before->next = k->next;
	else
		f->head = k->next;
	retire(ev, id, l);
}

static void maybe_sweep(struct zc_evict *ev, struct leaving *l)
{
	uint64_t pages = atomic_load_explicit(&ev->pages, memory_order_relaxed);

	if (++ev->pushes % ZC_SWEEP_EVERY == 0 &&
	    atomic_load_explicit(&ev->entries, memory_order_relaxed) >
		    pages + pages / 8 + ZC_SWEEP_SLACK)
		sweep(ev, l);
}

/* When a queue's oldest entry came; UINT64_MAX: it has none. */
static uint64_t head_ms(const struct zc_evict *ev, unsigned q)
{
	const struct zc_chunk *k = ev->fifo[q].head ? chunk(ev, ev->fifo[q].head) : NULL;

	return k ? unpack(k, k->entry[k->first]).ms : UINT64_MAX;
}

/* The queue that has the oldest entry of all. */
static unsigned oldest(const struct zc_evict *ev)
{
	unsigned best = 0;

	for (unsigned q = 1; q < ev->policy->fifos; q++)
		if (head_ms(ev, q) < head_ms(ev, best))
			best = q;
	return best;
}

/* When the oldest entry came, for who compares sets. */
static void note_oldest(struct zc_evict *ev)
{
	atomic_store_explicit(&ev->oldest_ms, head_ms(ev, oldest(ev)), memory_order_relaxed);
}

/* ---- in and out -------------------------------------------------------------------- */

/* One new entry. -ENOMEM: not queued. */
static int enqueue(struct zc_evict *ev, const struct zc_entry *e, uint32_t name)
{
	struct leaving l = {0};
	int to = -1;
	arena_id id;
	bool done;

	for (;;) {
		os_mutex_lock(&ev->lock);
		/* Once: a ghost that it takes has gone. */
		if (to < 0)
			to = (int)ev->policy->admit(ev, name);
		done = push(ev, (unsigned)to, e, ev->policy->fifos);
		if (done && atomic_load_explicit(&ev->entries, memory_order_relaxed) == 1)
			note_oldest(ev);
		if (done)
			maybe_sweep(ev, &l);
		os_mutex_unlock(&ev->lock);
		free_leaving(ev, &l);
		if (tmem_likely(done))
			return 0;
		id = arena_alloc(ev->host->chunks);
		if (!id)
			return -ENOMEM;
		os_mutex_lock(&ev->lock);
		add_spare(ev, id);
		os_mutex_unlock(&ev->lock);
		if (ev->policy->grow)
			ev->policy->grow(ev);
	}
}

int zc_enqueue(struct zc_slot *s, arena_id leaf, const struct index_oid *oid, uint64_t base,
	       unsigned slot, unsigned n, const struct pampd *p)
{
	struct zc_entry e = {.leaf = leaf, .ms = now_ms()};
	uint64_t last = 0;
	int rc = 0;

	for (unsigned i = 0; i < n && rc == 0; i++) {
		uint64_t word = p[i].word;

		e.immediate = p[i].immediate;
		e.slot = (uint8_t)(slot + i);
		e.stamp = 0;
		if (!e.immediate) {
			if (zc_word_kind(word) != ZC_LOCAL || zc_word_handle(word) == last)
				continue;
			last = zc_word_handle(word);
			e.slot = (uint8_t)(slot + i - zc_word_place(word));
			e.stamp = (uint16_t)zc_word_stamp(word);
		}
		rc = enqueue(s->ev, &e, zc_policy_name(s->ev, s, oid, base + e.slot));
	}
	return rc;
}

bool zc_dequeue(struct zc_evict *ev, uint64_t young_ms, struct zc_entry *e, unsigned *from)
{
	struct leaving l = {0};
	bool found = false;

	os_mutex_lock(&ev->lock);
	if (atomic_load_explicit(&ev->entries, memory_order_relaxed)) {
		struct zc_fifo *f =
			&ev->fifo[ *from = young_ms == UINT64_MAX ? ev->policy->choose(ev)
								  : oldest(ev)];
		struct zc_chunk *k = chunk(ev, f->head);

		*e = unpack(k, k->entry[k->first]);
		found = young_ms == UINT64_MAX || e->ms + ZC_TIME_UNIT_MS <= young_ms;
		if (found)
			pop(ev, f, &l);
		note_oldest(ev);
	}
	os_mutex_unlock(&ev->lock);
	free_leaving(ev, &l);
	return found;
}

bool zc_requeue(struct zc_evict *ev, const struct zc_entry *e, unsigned to)
{
	struct zc_entry again = *e;
	bool done;

	again.ms = now_ms();
	os_mutex_lock(&ev->lock);
	done = push(ev, to, &again, 0);
	note_oldest(ev);
	os_mutex_unlock(&ev->lock);
	return done;
}

void zc_evict_trim(struct zc_evict *ev)
{
	struct leaving l = {0};

	os_mutex_lock(&ev->lock);
	while (!atomic_load(&ev->entries) && ev->spares) {
		arena_id id = take_spare(ev);

		chunk(ev, id)->next = l.list;
		l.list = id;
	}
	os_mutex_unlock(&ev->lock);
	free_leaving(ev, &l);
	if (ev->policy->trim)
		ev->policy->trim(ev);
}

/* ---- verification ---------------------------------------------------------------------- */

int zc_evict_verify(struct zc_evict *ev, uint64_t *named)
{
	uint64_t all = 0;
	int rc = 0;

	os_mutex_lock(&ev->lock);
	*named = 0;
	for (unsigned q = 0; q < ev->policy->fifos; q++) {
		const struct zc_fifo *f = &ev->fifo[q];
		uint64_t entries = 0;
		arena_id last = 0;

		for (arena_id id = f->head; id; id = chunk(ev, id)->next) {
			const struct zc_chunk *k = chunk(ev, id);

			if (k->first >= k->n || k->n > ZC_CHUNK_ENTRIES)
				rc = -EINVAL;
			for (unsigned i = k->first; i < k->n; i++) {
				struct zc_entry e = unpack(k, k->entry[i]);

				*named += names(ev->host, &e);
			}
			entries += k->n - k->first;
			last = id;
		}
		if (entries != f->entries || last != f->tail)
			rc = -EINVAL; /* E3 */
		all += entries;
	}
	if (all != atomic_load(&ev->entries))
		rc = -EINVAL;
	os_mutex_unlock(&ev->lock);
	return rc;
}
