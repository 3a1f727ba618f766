/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every operation does inside a locked shard: find the object and the
 * leaf, take a word out, let go of what became empty.
 *
 * Each shard remembers the object and the leaf of its last operation; a run of
 * neighbouring pages then needs neither the table nor the tree. The memory is
 * exact: whoever unlinks a leaf or an object clears it.
 */
#ifndef TMEM_INDEX_SHARD_H
#define TMEM_INDEX_SHARD_H

#include "index/radix.h"
#include "index/table.h"

/* Words that left the index, to be dropped when the shard is unlocked. */
struct index_batch {
	unsigned n;
	struct pampd p[INDEX_BATCH];
};

static inline arena_id shard_find_object(struct index_shard *sh, const struct index_oid *oid,
					 uint32_t tag)
{
	arena_id id = sh->last_object;

	if (id && index_oid_equal(&sh->last_oid, oid))
		return id;
	id = table_find(sh, oid, tag);
	if (id) {
		sh->last_object = id;
		sh->last_oid = *oid;
		sh->last_leaf = 0;
	}
	return id;
}

static inline void shard_remember_leaf(struct index_shard *sh, uint64_t index, arena_id leaf)
{
	sh->last_leaf = leaf;
	sh->last_group = index >> INDEX_FANOUT_SHIFT;
}

/* The leaf of oid that holds index, or 0. *object: 0 when there is no such object. */
static inline arena_id shard_find_leaf(struct index_shard *sh, const struct index_oid *oid,
				       uint32_t tag, uint64_t index, arena_id *object)
{
	const struct index *ix = sh->pool->ix;
	arena_id leaf;

	*object = shard_find_object(sh, oid, tag);
	if (!*object)
		return 0;
	if (sh->last_leaf && sh->last_group == index >> INDEX_FANOUT_SHIFT)
		return sh->last_leaf;
	leaf = radix_find(ix, index_object(ix, *object), index);
	if (leaf)
		shard_remember_leaf(sh, index, leaf);
	return leaf;
}

/* Link a word where there may be one; true when there was, with it in *was. */
static inline bool shard_set_word(struct index_shard *sh, struct index_node *leaf, unsigned slot,
				  struct pampd p, struct pampd *was)
{
	uint64_t bit = 1ull << slot;
	bool present = radix_present(leaf, slot);

	tmem_assert(I1, p.word || p.immediate);
	was->word = leaf->word[slot];
	was->immediate = leaf->bits & bit;
	leaf->word[slot] = p.word;
	leaf->bits = p.immediate ? leaf->bits | bit : leaf->bits & ~bit;
	if (!present) {
		leaf->count++;
		index_object(sh->pool->ix, leaf->object)->pages++;
		index_shard_add_pages(sh, 1);
	}
	return present;
}

/* Take a word that is there out. */
static inline struct pampd shard_clear_word(struct index_shard *sh, struct index_node *leaf,
					    unsigned slot)
{
	uint64_t bit = 1ull << slot;
	struct pampd p = {leaf->word[slot], leaf->bits & bit};

	tmem_assert(I1, radix_present(leaf, slot) && leaf->count > 0);
	leaf->word[slot] = 0;
	leaf->bits &= ~bit;
	leaf->count--;
	index_object(sh->pool->ix, leaf->object)->pages--;
	index_shard_add_pages(sh, -1);
	return p;
}

/* Unlink an empty leaf, and the object if that was its last. True: the object went. */
bool shard_prune(struct index_shard *sh, arena_id leaf, struct index_reserve *r);

/*
 * Move words of the object in [*index, last] into the batch until it is full.
 * True: nothing of the range is left (and perhaps no object); else *index is
 * where to go on. What became empty goes into the reserve.
 */
bool shard_take_range(struct index_shard *sh, arena_id object, uint64_t *index, uint64_t last,
		      struct index_batch *batch, struct index_reserve *r);

/* After the unlock: give the reserve back and the words to the pool's PAM. The words' number. */
unsigned shard_finish(struct index_pool *ip, struct index_batch *batch, struct index_reserve *r);

#endif
