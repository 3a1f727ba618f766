/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which zpages go to the overflow file: a clock over the leaves.
 *
 *   leaf ids   1 2 3 4 5 6 7 ...  top        the hand goes round; ids are given
 *                    ^ hand                  out in the order that leaves come
 *
 * At each leaf the hand looks at groups of 8 neighbours. A group that was
 * used since it came by last loses one of its marks and stays: the second
 * chance. A read adds a mark, up to three; a put leaves one, however many pages
 * of the group are put, for that is no sign that they will be wanted again. Of
 * the others every zpage goes all of whose references are in this leaf. So what
 * goes has not been used for at least one round, and what is read often stays
 * for three. When all are marked the hand goes round at once until some are not:
 * that is when reads must count for more than puts. (When each put added a mark,
 * filling a store made all alike, and the first such turn emptied the memory of
 * what was being read: of reads of 2000 pages while 22000 were put in order, 16 %
 * went to the file; now none does.)
 *
 * Is that "oldest first"? In rounds, not in pages: a clock is a queue whose order
 * is that of places. Measured on 24000 pages put into memory for 10500, as to what
 * was in the file at the end: put in order of their indexes, 99 % of it was among
 * the oldest, as strict order would have all of it; put in random order, 80 %, and
 * of the youngest tenth of all pages 2 % had gone; replaced at random, 84 %, 1 %.
 *
 * The choice was between this and queues of entries as ephemeral pages have
 * (evict.h), which are exact. They cost 8 bytes a page, 0.5 % of a page of 1600
 * bytes and as much as the index itself, a lock and 30 ns at each put, and 23 ns
 * when a page goes, all of it also where nothing ever has to leave memory; and
 * those who fill memory once, front to back, which is what an overflow file is
 * for, gain one page in a hundred. The clock costs a byte for 8 KiB of the limit,
 * at most 1 MiB, a store at each put and read, and a walk over the leaves: the
 * index is read, 512 bytes for 64 pages, and no zpage of a group that stays.
 *
 * The marks are in a table of bytes indexed by a hash of leaf and group, sized by
 * the limit. Groups that share a byte share their marks, which costs one of
 * them a round; in exchange nothing of it is in the index, and a store with no
 * overflow file pays one comparison a get. Marks are written without a lock
 * and without a read-modify-write: one lost among threads costs nothing either.
 *
 *   V1  hand is in 1 .. top + 1
 *   V2  what over_victims() returns is pinned, and was whole (words in the leaf =
 *       references) when the leaf was locked
 *
 * Locks: called with `moving`; takes bottom-up and a shard for one leaf at a time.
 */
#include "zcache/overflow.h"

#define GROUP_SHIFT    3
#define GROUP_PAGES    (1u << GROUP_SHIFT)
#define MARKS_MAX      3
#define TABLE_MIN      1024u
#define TABLE_MAX      (1u << 20)
#define BYTES_A_GROUP  8192u /* of memory, about */
#define LEAVES_AT_ONCE 4096u

static _Atomic uint8_t *marks_of(const struct zc_overflow *o, arena_id leaf, unsigned slot)
{
	uint32_t group = leaf * (INDEX_FANOUT / GROUP_PAGES) + (slot >> GROUP_SHIFT);

	return &o->touched[(group * 2654435769u >> 8) & o->touched_mask];
}

void zc_overflow_touch(struct tmem_host *h, uint32_t leaf, unsigned slot)
{
	_Atomic uint8_t *m = marks_of(h->overflow, leaf, slot);
	uint8_t n = atomic_load_explicit(m, memory_order_relaxed);

	if (n < MARKS_MAX)
		atomic_store_explicit(m, (uint8_t)(n + 1), memory_order_relaxed);
}

void zc_overflow_fresh(struct tmem_host *h, uint32_t leaf, unsigned slot)
{
	_Atomic uint8_t *m = marks_of(h->overflow, leaf, slot);

	if (!atomic_load_explicit(m, memory_order_relaxed))
		atomic_store_explicit(m, 1, memory_order_relaxed);
}

int over_victims_create(struct tmem_host *h, struct zc_overflow *o)
{
	uint64_t limit = atomic_load_explicit(&h->frames.limit_bytes, memory_order_relaxed);
	uint32_t n = TABLE_MIN;

	while (n < TABLE_MAX && (uint64_t)n * BYTES_A_GROUP < limit)
		n *= 2;
	o->touched = zc_alloc(h, n);
	o->touched_mask = n - 1;
	o->hand = 1;
	return o->touched ? 0 : -ENOMEM;
}

void over_victims_destroy(struct tmem_host *h, struct zc_overflow *o)
{
	zc_free(h, (void *)(uintptr_t)o->touched, (size_t)o->touched_mask + 1);
}

bool over_whole(const struct index_cursor *c, unsigned slot, const struct zpage *z, uint32_t *mask)
{
	uint16_t info = zpage_info(z, __ATOMIC_ACQUIRE);

	return zc_words_of(c, slot, zpage_pages(info), mask) == zpage_refs(z, info);
}

static bool local_at(const struct index_cursor *c, unsigned slot)
{
	return c->words[slot] && !(*c->immediate >> slot & 1) &&
	       zc_word_kind(c->words[slot]) == ZC_LOCAL;
}

/* Groups that have zpages in memory and were touched; each loses a mark. */
static unsigned touched_groups(struct zc_overflow *o, struct zc_thread *t,
			       const struct index_cursor *c)
{
	unsigned touched = 0, has = 0;

	for (unsigned slot = 0; slot < INDEX_FANOUT; slot++)
		if (local_at(c, slot))
			has |= 1u << (slot >> GROUP_SHIFT);
	for (; has; has &= has - 1) {
		unsigned group = (unsigned)__builtin_ctz(has);
		_Atomic uint8_t *m = marks_of(o, c->leaf, group << GROUP_SHIFT);
		uint8_t n = atomic_load_explicit(m, memory_order_relaxed);

		if (!n)
			continue;
		atomic_store_explicit(m, (uint8_t)(n - 1), memory_order_relaxed);
		touched |= 1u << group;
		zc_count(t, ZC_OVER_CHANCES, 1);
	}
	return touched;
}

/* The zpage that the word at slot names, if it may go; false: the batch is full. */
static bool take_slot(struct tmem_host *h, const struct index_cursor *c, unsigned slot,
		      size_t *room, unsigned *n)
{
	struct zc_overflow *o = h->overflow;
	zpool_handle handle = zc_word_handle(c->words[slot]);
	struct zpage *z = zpool_peek(h->zpool, handle);
	unsigned place = zc_word_place(c->words[slot]), units = over_units(o, z->zsize);
	uint32_t mask;

	/* Once for each zpage, at its first word. */
	if (!over_whole(c, slot, z, &mask) || (unsigned)__builtin_ctz(mask) != place)
		return true;
	if (*n == o->moves_max || units * OVER_UNIT > *room)
		return false;
	z = zpool_map(h->zpool, handle);
	if (!z)
		return true;
	*room -= units * OVER_UNIT;
	o->move[(*n)++] = (struct over_move){
		.handle = handle,
		.z = z,
		.leaf = c->leaf,
		.units = (uint16_t)units,
		.slot = (uint8_t)(slot - place),
		.mask = mask,
	};
	return true;
}

/* False: the batch is full, this leaf is to be looked at again. */
static bool take_leaf(struct tmem_host *h, struct zc_thread *t, const struct index_cursor *c,
		      size_t *room, unsigned *n)
{
	const struct zc_slot *s = index_pool_owner(c->pool);
	unsigned touched;
	bool more = true;

	/* Ephemeral pages are dropped, not written. */
	if (!(s->flags & TMEM_POOL_PERSIST))
		return true;
	touched = touched_groups(h->overflow, t, c);

	for (unsigned slot = 0; slot < INDEX_FANOUT && more; slot++)
		if (local_at(c, slot) && !(touched >> (slot >> GROUP_SHIFT) & 1))
			more = take_slot(h, c, slot, room, n);
	return more;
}

unsigned over_victims(struct tmem_host *h, struct zc_thread *t, size_t room)
{
	struct zc_overflow *o = h->overflow;
	arena_id top = index_leaf_top(h->index);
	unsigned n = 0;
	bool more = true;

	for (unsigned seen = 0; seen < LEAVES_AT_ONCE && more; seen++) {
		struct index_cursor c;

		/* Once round is enough for one call. */
		if (seen >= top)
			break;
		if (o->hand > top)
			o->hand = 1;
		if (index_lock_leaf(h->index, o->hand, &c)) {
			more = take_leaf(h, t, &c, &room, &n);
			index_unlock(&c);
		}
		if (more)
			o->hand++;
	}
	return n;
}
