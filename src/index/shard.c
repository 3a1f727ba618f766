/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside a locked shard: see shard.h. */
#include "index/shard.h"

bool shard_prune(struct index_shard *sh, arena_id leaf, struct index_reserve *r)
{
	const struct index *ix = sh->pool->ix;
	arena_id object = index_node(ix, leaf)->object;
	struct index_object *o = index_object(ix, object);
	bool gone = false;

	if (sh->last_leaf == leaf)
		sh->last_leaf = 0;
	radix_unlink(ix, o, leaf, r);
	if (!o->root) {
		table_remove(sh, object, r);
		gone = true;
	}
	return gone;
}

bool shard_take_range(struct index_shard *sh, arena_id object, uint64_t *index, uint64_t last,
		      struct index_batch *batch, struct index_reserve *r)
{
	const struct index *ix = sh->pool->ix;
	bool done = false;

	while (!done && batch->n < INDEX_BATCH) {
		arena_id id = radix_next(ix, index_object(ix, object), *index);
		struct index_node *leaf;
		unsigned slot, end;

		if (!id)
			return true;
		leaf = index_node(ix, id);
		if (leaf->base > last)
			return true;
		slot = *index > leaf->base ? (unsigned)(*index - leaf->base) : 0;
		end = last - leaf->base >= INDEX_FANOUT ? INDEX_FANOUT
							: (unsigned)(last - leaf->base) + 1;
		for (; slot < end && batch->n < INDEX_BATCH; slot++) {
			if (radix_present(leaf, slot))
				batch->p[batch->n++] = shard_clear_word(sh, leaf, slot);
		}
		if (slot < end) {
			*index = leaf->base + slot;
		} else {
			*index = leaf->base + end;
			/* The range ends here, or the index space does. */
			done = *index > last || *index == 0;
		}
		if (leaf->count == 0)
			done |= shard_prune(sh, id, r);
	}
	return done;
}

unsigned shard_finish(struct index_pool *ip, struct index_batch *batch, struct index_reserve *r)
{
	unsigned n = batch->n;

	index_reserve_release(ip->ix, r);
	if (n)
		ip->pam->drop(ip->ctx, batch->p, n);
	batch->n = 0;
	return n;
}
