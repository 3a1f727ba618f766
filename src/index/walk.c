/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Operations on many pages: ranges, objects, the whole pool.
 *
 * All go in batches: lock, take at most INDEX_BATCH words (or visit one leaf),
 * unlock, and only then drop. Between batches anything may happen; the place
 * to go on from is a key and an index, not a pointer (table.h), so pages that
 * stay are neither missed nor seen twice, and pages that come behind the
 * walk's back are left alone.
 */
#include "index/shard.h"

#define FLUSH_OBJECTS 64 /* objects entered in one section of the lock */

uint64_t index_invalidate_range(struct index_pool *ip, const struct index_oid *oid, uint64_t index,
				uint64_t n)
{
	uint64_t hash = index_hash(ip, oid);
	struct index_shard *sh = index_pool_shard(ip, hash);
	uint64_t last = n - 1 > UINT64_MAX - index ? UINT64_MAX : index + n - 1;
	struct index_batch batch = {.n = 0};
	uint64_t removed = 0;
	bool done = n == 0;

	while (!done) {
		struct index_reserve freed = {0};
		arena_id object;

		os_mutex_lock(&sh->lock);
		object = shard_find_object(sh, oid, (uint32_t)hash);
		done = !object || shard_take_range(sh, object, &index, last, &batch, &freed);
		index_shard_check(sh);
		os_mutex_unlock(&sh->lock);
		removed += shard_finish(ip, &batch, &freed);
	}
	return removed;
}

uint64_t index_invalidate_object(struct index_pool *ip, const struct index_oid *oid)
{
	/* 2^64 - 1 from 0 on leaves out the last index of all. */
	return index_invalidate_range(ip, oid, 0, UINT64_MAX) +
	       index_invalidate(ip, oid, UINT64_MAX);
}

/* Where a walk stands in its shard. */
struct place {
	struct table_key key;
	uint64_t index;
	bool end;
};

/* The object to look at next; the index starts anew when it is another one than before. */
static arena_id place_object(struct index_shard *sh, struct place *at)
{
	struct table_key was = at->key;
	arena_id id = table_next(sh, &at->key, &at->end);

	if (was.order != at->key.order || !index_oid_equal(&was.oid, &at->key.oid))
		at->index = 0;
	return id;
}

static void place_leave_object(struct place *at)
{
	at->index = 0;
	at->end = !table_key_after(&at->key);
}

/* One batch of a flush, under the lock. */
static void flush_batch(struct index_shard *sh, struct place *at, struct index_batch *batch,
			struct index_reserve *freed)
{
	unsigned i;

	for (i = 0; i < FLUSH_OBJECTS && !at->end && batch->n < INDEX_BATCH; i++) {
		arena_id object = place_object(sh, at);

		if (!object)
			break;
		if (shard_take_range(sh, object, &at->index, UINT64_MAX, batch, freed))
			place_leave_object(at);
	}
}

uint64_t index_flush(struct index_pool *ip)
{
	struct index_batch batch = {.n = 0};
	uint64_t removed = 0;
	unsigned i;

	for (i = 0; i < ip->shards; i++) {
		struct index_shard *sh = &ip->shard[i];
		struct place at = {.end = false};

		while (!at.end) {
			struct index_reserve freed = {0};

			os_mutex_lock(&sh->lock);
			flush_batch(sh, &at, &batch, &freed);
			index_shard_check(sh);
			os_mutex_unlock(&sh->lock);
			removed += shard_finish(ip, &batch, &freed);
		}
	}
	return removed;
}

/*
 * Lock the shard at its next leaf. False: nothing is locked, and either the
 * shard is done (at->end) or the call is to be repeated.
 */
static bool walk_lock(struct index_shard *sh, struct place *at, struct index_cursor *c)
{
	const struct index *ix = sh->pool->ix;
	struct index_node *n;
	arena_id object, leaf;

	os_mutex_lock(&sh->lock);
	object = place_object(sh, at);
	if (!object)
		goto none;
	leaf = radix_next(ix, index_object(ix, object), at->index);
	if (!leaf) {
		place_leave_object(at);
		goto none;
	}
	n = index_node(ix, leaf);
	*c = (struct index_cursor){.pool = sh->pool,
				   .shard = sh,
				   .object = object,
				   .leaf = leaf,
				   .base = n->base,
				   .words = n->word,
				   .immediate = &n->bits};
	at->index = n->base + INDEX_FANOUT;
	if (!at->index)
		place_leave_object(at);
	return true;
none:
	os_mutex_unlock(&sh->lock);
	return false;
}

int index_walk(struct index_pool *ip, int (*fn)(void *arg, struct index_cursor *c), void *arg)
{
	struct index_cursor c;
	unsigned i;
	int ret = 0;

	for (i = 0; i < ip->shards && !ret; i++) {
		struct place at = {.end = false};

		while (!at.end && !ret) {
			if (!walk_lock(&ip->shard[i], &at, &c))
				continue;
			ret = fn(arg, &c);
			index_unlock(&c);
		}
	}
	return ret;
}
