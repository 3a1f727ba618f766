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

/* The slots first .. last of a leaf that hold something, one bit each. */
static uint64_t present_slots(const struct index_node *leaf, unsigned first, unsigned last)
{
	uint64_t present = leaf->bits;

	for (unsigned slot = 0; slot < INDEX_FANOUT; slot++)
		present |= (uint64_t)(leaf->word[slot] != 0) << slot;
	return present & UINT64_MAX << first & UINT64_MAX >> (INDEX_FANOUT - 1 - last);
}

bool shard_take_range(struct index_shard *sh, arena_id object, uint64_t *index, uint64_t last,
		      struct index_batch *batch, struct index_reserve *r)
{
	const struct index *ix = sh->pool->ix;
	bool done = false;

	while (!done && batch->n < INDEX_BATCH) {
		arena_id id = radix_next(ix, index_object(ix, object), *index);
		struct index_node *leaf;
		unsigned from, to;
		uint64_t present;

		if (!id)
			return true;
		leaf = index_node(ix, id);
		if (leaf->base > last)
			return true;
		/* The leaf holds *index, or lies behind it. */
		from = *index > leaf->base ? (unsigned)(*index % INDEX_FANOUT) : 0;
		to = last - leaf->base >= INDEX_FANOUT ? INDEX_FANOUT - 1
						       : (unsigned)(last - leaf->base);
		present = present_slots(leaf, from, to);
		for (; present && batch->n < INDEX_BATCH; present &= present - 1)
			batch->p[batch->n++] =
				shard_clear_word(sh, leaf, (unsigned)__builtin_ctzll(present));
		if (present) {
			*index = leaf->base + (unsigned)__builtin_ctzll(present);
		} else {
			*index = leaf->base + to + 1;
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

	index_reserve_release(ip, r);
	if (n)
		ip->pam->drop(ip->ctx, batch->p, n);
	batch->n = 0;
	return n;
}
