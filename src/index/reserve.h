/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What one operation has in hand: memory it got before it locked, and memory
 * it took out of the index and gives back after it unlocked. It lives on the
 * operation's stack, so no thread can lose its reserve to another.
 *
 * Spare nodes are linked through node->parent, spare objects through
 * object->next; both are disconnected (internal.h, L1), so a bottom-up walk
 * that meets one sees that it is nothing.
 */
#ifndef TMEM_INDEX_RESERVE_H
#define TMEM_INDEX_RESERVE_H

#include "index/internal.h"

struct index_reserve {
	arena_id nodes, objects; /* lists */
	uint32_t nr_nodes, nr_objects;
	arena_id *table; /* a bigger table to install, of table_heads */
	arena_id *old;	 /* a table that was replaced, of old_heads */
	uint32_t table_heads, old_heads;
	bool table_refused; /* there was no memory for a bigger one: go on without */
};

/* What an operation lacks, counted under the lock. */
struct index_need {
	uint32_t nodes, objects, table_heads;
};

static inline bool index_reserve_covers(const struct index_reserve *r, const struct index_need *n)
{
	return r->nr_nodes >= n->nodes && r->nr_objects >= n->objects &&
	       (!n->table_heads || r->table_heads == n->table_heads || r->table_refused);
}

/* Get what is missing; no shard is locked. 0, -ENOMEM or -EDQUOT; what was got stays. */
int index_reserve_fill(struct index_pool *ip, struct index_reserve *r,
		       const struct index_need *need) __attribute__((warn_unused_result));
/* Give back all it holds. Best with no lock held; a shard may be (arenas rank above). */
void index_reserve_release(struct index_pool *ip, struct index_reserve *r);
/*
 * The same in two steps, for when the pool may be gone by the time the memory
 * can be freed: give its charge back while it is there, then free.
 */
void index_reserve_uncharge(const struct index_pool *ip, const struct index_reserve *r);
void index_reserve_free(struct index *ix, struct index_reserve *r);

void index_reserve_add_node(const struct index *ix, struct index_reserve *r, arena_id id);
void index_reserve_add_object(const struct index *ix, struct index_reserve *r, arena_id id);
/* There is one. The items' bytes are whatever the last user left. */
arena_id index_reserve_take_node(const struct index *ix, struct index_reserve *r);
arena_id index_reserve_take_object(const struct index *ix, struct index_reserve *r);

#endif
