/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mover: batches of the oldest zpages go from memory to the overflow file.
 *
 * Why in the threads that put, and not in one of its own: who fills the store
 * waits for the room, so no queue can grow between the two; nothing runs while
 * nobody puts; and a library starts no threads behind its user's back. A put
 * pays for a batch at most a few times, when memory is above `high`; one that
 * finds the mover at work goes on while there is room, and waits when not.
 *
 *   1  take    leaf by leaf, under its shard: zpages whose references are all
 *              in this leaf, not touched lately: pin            (overflow_victims.c)
 *   2  pack    no lock: checksum right? copy (seal) into the batch; an item each
 *   3  write   no lock: runs of units, one write each, waited for, read back
 *   4  switch  leaf by leaf, under its shard: the words are still these, and all
 *              references? words := the item
 *   5  let go  no lock: drop the old words' references, unpin
 *
 * What may happen between 1 and 4, and why it is right (compare pam_local.c):
 *
 *   get         pins or finds the old word: it reads the old place, whose bytes
 *               never change. After 4 it finds the item.
 *   invalidate, put    take the word out: in 4 it is not there, or another one.
 *               A word that looks the same is the same: our pin keeps the handle
 *               from being given out again.
 *   clone       has taken references in a leaf of its own: words < refs, refused.
 *               To switch our words alone would be right too, since the clone's
 *               references keep the zpage; but it would write without freeing.
 *   a word taken out and not yet dropped    the same: words < refs.
 *   compaction  does not move what is pinned.
 *   end of the pool    index_lock_leaf() finds nobody, or another pool's leaf,
 *               in which no word names our handle.
 *   get that takes the page out (get_and_invalidate)    as invalidate.
 *
 *   M1  in 4: words that name z in the leaf = refs(z): with the last of them
 *       switched z is free
 *   M2  item.refs = words switched, set before the first is
 *
 * What goes back to memory for room are frames, and a zpage's place alone frees
 * none. Neighbours in age are neighbours in memory more often than not; for the
 * rest the mover compacts when it has freed as much as a batch.
 *
 * Failure: a batch that cannot be written leaves everything as it was, for all
 * zpages of a run of units. After a failed write nothing is written for a
 * second. A zpage whose own checksum is wrong is not moved: the get says so.
 *
 * Locks: moving, held throughout; below it one leaf at a time, or the space's.
 */
#include "zcache/overflow.h"

#define BATCHES_A_PUT 4

/* ---- 2: pack -------------------------------------------------------------------------- */

static void fill_item(struct zc_overflow *o, struct over_item *it, struct over_move *m)
{
	uint16_t info = zpage_info(m->z, __ATOMIC_RELAXED);

	it->zsize = m->z->zsize;
	it->checksum = m->z->checksum;
	it->codec = (uint8_t)zpage_codec(info);
	it->dict = it->codec == CODEC_ID_ZSTD_DICT ? zc_dict_of(zpage_bytes(m->z, info)) : 0;
	it->pages = (uint8_t)zpage_pages(info);
	it->units = m->units;
	tmem_assert(units, m->units == over_units(o, it->zsize));
}

/* Bytes of the batch that are in use. Moves that do not go have no item. */
static size_t pack(struct zc_overflow *o, unsigned n)
{
	size_t used = 0;

	for (unsigned i = 0; i < n; i++) {
		struct over_move *m = &o->move[i];
		const char *bytes = zpage_bytes(m->z, zpage_info(m->z, __ATOMIC_RELAXED));

		if (zc_checksum(bytes, m->z->zsize) != m->z->checksum)
			continue;
		m->item = arena_alloc(o->items);
		if (!m->item)
			continue;
		fill_item(o, over_item(o, m->item), m);
		m->at = (uint32_t)used;
		if (over_pack(o, over_item(o, m->item), bytes, o->batch + used)) {
			arena_free(o->items, m->item);
			m->item = 0;
			continue;
		}
		used += m->units * OVER_UNIT;
	}
	return used;
}

/* ---- 3: write -------------------------------------------------------------------------- */

static void cancel(struct zc_overflow *o, struct over_move *m, bool units)
{
	if (units)
		over_units_free(o, m->unit, m->units);
	arena_free(o->items, m->item);
	m->item = 0;
}

/*
 * Units for all: one run if the file has or can get one; pieces between what is
 * there, where much of the file is free, so that it need not grow.
 */
static void find_units(struct tmem_host *h, unsigned n, size_t used)
{
	struct zc_overflow *o = h->overflow;
	unsigned units = (unsigned)(used / OVER_UNIT);
	bool sparse = over_units_free_now(o) > 4ull * units + OVER_CHUNK_UNITS;
	uint64_t first = 0;
	bool one = over_units_alloc(h, o, units, !sparse, &first) == 0;

	for (unsigned i = 0; i < n; i++) {
		struct over_move *m = &o->move[i];

		if (!m->item)
			continue;
		if (one)
			m->unit = first + m->at / OVER_UNIT;
		else if (over_units_alloc(h, o, m->units, true, &m->unit))
			cancel(o, m, false);
	}
}

/* The run of moves from i on that lie behind each other in batch and file; its end. */
static unsigned run_end(const struct zc_overflow *o, unsigned i, unsigned n, size_t *bytes)
{
	unsigned last = i, k;

	for (k = i + 1; k < n; k++) {
		const struct over_move *a = &o->move[last], *b = &o->move[k];

		if (!b->item)
			continue;
		if (b->unit != a->unit + a->units || b->at != a->at + a->units * OVER_UNIT)
			break;
		last = k;
	}
	*bytes = o->move[last].at + o->move[last].units * OVER_UNIT - o->move[i].at;
	return k;
}

static void write_all(struct zc_overflow *o, struct zc_thread *t, unsigned n)
{
	int rc = 0;

	for (unsigned i = 0, end; i < n; i = end) {
		size_t bytes;

		end = i + 1;
		if (!o->move[i].item)
			continue;
		end = run_end(o, i, n, &bytes);
		/* After one failure the rest is not tried. */
		if (rc == 0)
			rc = over_write(o, t, o->batch + o->move[i].at, bytes, o->move[i].unit);
		for (unsigned k = i; k < end && rc; k++)
			if (o->move[k].item)
				cancel(o, &o->move[k], true);
	}
}

/* ---- 4 and 5: switch, let go -------------------------------------------------------------- */

/* Under the shard: all words of one zpage, if they are as they were. How many, in old[]. */
static unsigned switch_words(struct tmem_host *h, struct index_cursor *c, struct over_move *m,
			     struct pampd *old)
{
	uint64_t from = zc_word(ZC_LOCAL, 0, m->handle);
	uint64_t to = zc_word(ZC_OVERFLOW, 0, m->item);
	unsigned lowest = (unsigned)__builtin_ctz(m->mask), n = 0;
	struct over_item *it = over_item(h->overflow, m->item);
	uint32_t mask;

	/* The lowest place may be gone, and the others still there: they go next time. */
	if (!zc_word_same(c->words[m->slot + lowest], from | (uint64_t)lowest << ZC_PLACE_SHIFT) ||
	    *c->immediate >> (m->slot + lowest) & 1 ||
	    !over_whole(c, m->slot + lowest, m->z, &mask)) /* M1 */
		return 0;
	it->unit = m->unit;
	atomic_store(&it->refs, (uint32_t)__builtin_popcount(mask)); /* M2 */
	if (it->dict) /* the words keep it, until they are switched */
		zc_dict_ref(h, it->dict);
	for (; mask; mask &= mask - 1) {
		unsigned i = (unsigned)__builtin_ctz(mask);

		struct pampd p = index_cursor_get(c, m->slot + i);

		old[n++] = p;
		p.word = (p.word & ~ZC_NAME_MASK) | to | (uint64_t)i << ZC_PLACE_SHIFT;
		index_cursor_set(c, m->slot + i, p);
	}
	return n;
}

/*
 * Moves i .. end-1 are of one leaf. Pages moved. What leaves memory is another
 * pool's, as a rule: it is counted, and given back, for that one. Its slot stays
 * until the mover has seen zc_overflow_wait(), also when the pool ends.
 */
static unsigned switch_leaf(struct tmem_host *h, struct zc_thread *t, unsigned i, unsigned end)
{
	struct zc_overflow *o = h->overflow;
	uint64_t pages = 0, zpages = 0, bytes = 0;
	struct pampd old[INDEX_FANOUT];
	struct zc_counts *mine;
	struct index_cursor c;
	struct zc_slot *s;

	if (!index_lock_leaf(h->index, o->move[i].leaf, &c))
		return 0;
	s = index_pool_owner(c.pool);
	for (; i < end; i++) {
		struct over_move *m = &o->move[i];
		unsigned n = m->item ? switch_words(h, &c, m, old + pages) : 0;

		if (!n)
			continue;
		m->item = 0; /* its words have it now */
		pages += n;
		zpages++;
		bytes += m->z->zsize;
	}
	if (!pages) {
		index_unlock(&c);
		return 0;
	}
	mine = zc_count_slot(t, s);
	index_unlock(&c);
	o->freed += bytes;
	zc_count(t, ZC_OVER_WORDS_NOW, pages);
	zc_count(t, ZC_OVER_ZPAGES_NOW, zpages);
	zc_count(t, ZC_OVER_BYTES_NOW, bytes);
	zc_count(t, ZC_OVER_MOVED, pages);
	zc_drop(h, t, old, (unsigned)pages);
	zc_count_back(t, mine);
	return (unsigned)pages;
}

static unsigned switch_all(struct tmem_host *h, struct zc_thread *t, unsigned n)
{
	struct zc_overflow *o = h->overflow;
	unsigned pages = 0;

	for (unsigned i = 0, end; i < n; i = end) {
		for (end = i + 1; end < n && o->move[end].leaf == o->move[i].leaf; end++)
			;
		pages += switch_leaf(h, t, i, end);
	}
	return pages;
}

static void let_go(struct tmem_host *h, unsigned n)
{
	struct zc_overflow *o = h->overflow;

	for (unsigned i = 0; i < n; i++) {
		struct over_move *m = &o->move[i];

		if (m->item)
			cancel(o, m, true);
		zpool_unmap(h->zpool, m->handle);
	}
}

/* ---- a batch ---------------------------------------------------------------------------- */

/* Pages moved. */
static unsigned move_batch(struct tmem_host *h, struct zc_thread *t)
{
	struct zc_overflow *o = h->overflow;
	size_t room = over_tokens_take(o, OVER_BATCH_MIN, o->batch_bytes), used = 0;
	unsigned n, pages = 0;

	if (!room) {
		zc_count(t, ZC_OVER_THROTTLED, 1);
		return 0;
	}
	n = over_victims(h, t, room);
	if (n)
		used = pack(o, n);
	over_tokens_return(o, room - used);
	if (used) {
		find_units(h, n, used);
		write_all(o, t, n);
		pages = switch_all(h, t, n);
	}
	let_go(h, n);
	return pages;
}

/* Places that were freed become frames. */
static void compact(struct tmem_host *h)
{
	struct zc_overflow *o = h->overflow;
	uint64_t frames = o->freed / OS_FRAME_SIZE;

	if (o->freed < o->batch_bytes || zc_overflow_fill(h) < ZC_FILL_HIGH)
		return;
	o->freed = 0;
	(void)zpool_compact(h->zpool, frames);
}

void zc_overflow_wait(struct tmem_host *h)
{
	if (!h->overflow)
		return;
	os_mutex_lock(&h->overflow->moving);
	os_mutex_unlock(&h->overflow->moving);
}

void zc_overflow_make_room(struct tmem_host *h, struct zc_thread *t)
{
	struct zc_overflow *o = h->overflow;

	/* The emergency state is wanted by gets: no waiting for files with it. */
	if (t == h->emergency || over_failing(o))
		return;
	if (!os_mutex_trylock(&o->moving)) {
		if (zc_overflow_fill(h) < ZC_FILL_FULL)
			return;
		os_mutex_lock(&o->moving);
	}
	for (unsigned i = 0; i < BATCHES_A_PUT && zc_overflow_fill(h) >= ZC_FILL_HIGH; i++) {
		unsigned pages = move_batch(h, t);

		compact(h);
		if (!pages || zc_overflow_fill(h) < ZC_FILL_FULL)
			break;
	}
	os_mutex_unlock(&o->moving);
}
