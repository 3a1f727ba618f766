/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages that are read often come back from the overflow file to memory.
 *
 * The reading get has the bytes, checked; it makes a zpage of them, and under
 * the shard's lock puts its word, or the words of its cluster, in the place of
 * those that name the item. As in overflow_move.c, the other way round: the
 * words in this leaf must be all references but the reader's own, so nobody
 * else has the item in hand.
 *
 *   B1  words that name the item in the leaf + 1 = item.refs
 *
 * A page comes back at its second read when memory is below `low`, and at its
 * fourth when it is below `high`; never above, where it would push out another.
 * It comes with marks for the second chance, so it does not leave at once again.
 *
 * Failure: any; the page stays in the file, the get has its bytes.
 */
#include "zcache/overflow.h"

#define READS_LOW  2
#define READS_HIGH 4

static bool wanted(struct tmem_host *h, struct over_item *it)
{
	uint8_t reads = atomic_load_explicit(&it->reads, memory_order_relaxed);
	enum zc_fill fill = zc_overflow_fill(h);

	if (reads < UINT8_MAX)
		atomic_store_explicit(&it->reads, ++reads, memory_order_relaxed);
	return (reads >= READS_LOW && fill == ZC_FILL_LOW) ||
	       (reads >= READS_HIGH && fill == ZC_FILL_MIDDLE);
}

/* Under the shard: the words, switched. How many, in old[]. */
static unsigned switch_words(struct tmem_host *h, struct index_cursor *c, unsigned slot,
			     const struct over_back *b, zpool_handle handle, struct pampd *old)
{
	struct over_item *it = over_item(h->overflow, zc_word_handle(b->word));
	unsigned first = slot - zc_word_place(b->word), n = 0, words;
	struct zpage *z = zpool_peek(h->zpool, handle);
	uint32_t mask;

	if (!index_cursor_present(c, slot) || *c->immediate >> slot & 1 ||
	    !zc_word_same(c->words[slot], b->word))
		return 0;
	words = zc_words_of(c, slot, it->pages, &mask);
	if (atomic_load(&it->refs) != words + 1) /* B1 */
		return 0;
	if (words > 1 && !zpage_ref(z, words - 1))
		return 0;
	for (; mask; mask &= mask - 1) {
		unsigned i = (unsigned)__builtin_ctz(mask);

		struct pampd p = index_cursor_get(c, first + i);

		old[n++] = p;
		p.word = (p.word & ~ZC_NAME_MASK) | zc_word(ZC_LOCAL, i, handle);
		index_cursor_set(c, first + i, p);
	}
	zpage_place(h, handle, c->leaf, first);
	for (unsigned i = 0; i < 2; i++)
		zc_overflow_touch(h, c->leaf, slot);
	return n;
}

void zc_overflow_back(struct tmem_host *h, struct zc_thread *t, const struct over_back *b,
		      const struct zc_stored *s)
{
	struct over_item *it = over_item(h->overflow, zc_word_handle(b->word));
	struct pampd old[TMEM_CLUSTER_MAX];
	struct index_cursor c;
	zpool_handle handle;
	unsigned n;

	if (!wanted(h, it) || zpage_make(h, t, s, 1, &handle))
		return;
	index_lock(b->pool, b->oid, b->index, &c);
	n = switch_words(h, &c, zc_slot(b->index), b, handle, old);
	index_unlock(&c);
	if (!n) {
		zpage_free(h, t, handle);
		return;
	}
	zc_count(t, ZC_OVER_BACK, n);
	zc_drop(h, t, old, n);
}
