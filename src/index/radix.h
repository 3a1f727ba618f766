/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The radix tree of one object: 64-way, by 64-bit index.
 *
 *   height 3   shift 12  [ . | x | . | x ... ]          word[] = ids of children,
 *                              │       └──────┐          bits   = which are there
 *   height 2   shift 6   [ x | . ... ]   [ . | x ... ]
 *                          │                   │
 *   height 1   shift 0   [ 64 words ]      [ 64 words ]  word[] = pampd words,
 *                                                        bits   = which are immediate
 *
 * Leaves and interior nodes are one kind of item, 544 bytes: a leaf that is
 * full costs 8.5 bytes a page, its share of interior nodes 0.13. Nodes carry
 * the way back up (parent, slot) and what they are (object, base), so that a
 * leaf's id alone leads to its handle.
 *
 * All functions want the object's shard locked.
 */
#ifndef TMEM_INDEX_RADIX_H
#define TMEM_INDEX_RADIX_H

#include "index/internal.h"
#include "index/reserve.h"

#define RADIX_HEIGHT_MAX 11 /* 11 x 6 >= 64 bits */

struct index_node {
	uint64_t bits;	 /* leaf: slot is immediate; interior: slot has a child */
	uint64_t base;	 /* the first index below this node */
	arena_id object; /* 0: in no tree */
	arena_id parent; /* 0: the root; in a reserve: the next spare node */
	uint8_t count;	 /* slots in use */
	uint8_t shift;	 /* 0: a leaf */
	uint8_t slot;	 /* in the parent */
	uint8_t pad[5];
	uint64_t word[INDEX_FANOUT];
};

static inline struct index_node *index_node(const struct index *ix, arena_id id)
{
	return arena_ptr(ix->nodes, id);
}

static inline bool radix_present(const struct index_node *leaf, unsigned slot)
{
	return leaf->word[slot] || (leaf->bits >> slot & 1);
}

/* The least height whose tree holds index. */
static inline unsigned radix_height_for(uint64_t index)
{
	return index ? (63 - (unsigned)__builtin_clzll(index)) / INDEX_FANOUT_SHIFT + 1 : 1;
}

/* The leaf that holds index, or 0. */
static inline arena_id radix_find(const struct index *ix, const struct index_object *o,
				  uint64_t index)
{
	unsigned shift = o->height * INDEX_FANOUT_SHIFT;
	arena_id id = o->root;

	/* A root at height 11 has room for 66 bits: no index is too large for it. */
	if (shift < 64 && index >> shift)
		return 0;
	while (id && (shift -= INDEX_FANOUT_SHIFT))
		id = (arena_id)index_node(ix, id)->word[index >> shift & (INDEX_FANOUT - 1)];
	return id;
}

/* The first leaf that holds an index >= the given one, or 0. */
arena_id radix_next(const struct index *ix, const struct index_object *o, uint64_t index);
/* How many nodes radix_link() would take from the reserve; o may be NULL (no object yet). */
unsigned radix_missing(const struct index *ix, const struct index_object *o, uint64_t index);
/* Make the path to index; the leaf is new and empty. The reserve has enough. */
arena_id radix_link(const struct index *ix, arena_id object, uint64_t index,
		    struct index_reserve *r);
/* Take out an empty leaf and all that becomes empty by it, into the reserve; shrink the tree. */
void radix_unlink(const struct index *ix, struct index_object *o, arena_id leaf,
		  struct index_reserve *r);

#endif
