/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whole operations: put, get, invalidate of a page.
 *
 * Each is one section of its shard's lock: hash, lock, find, change a word,
 * unlock. What left the index goes to pam->drop() after that. get is written
 * out here rather than through a cursor: it is the path that a fault waits for.
 */
#include "index/shard.h"

int index_put(struct index_pool *ip, const struct index_oid *oid, uint64_t index, unsigned n,
	      const struct pampd *p)
{
	struct pampd old[INDEX_FANOUT];
	struct index_cursor c;
	struct index_node *leaf;
	unsigned slot = index & (INDEX_FANOUT - 1);
	unsigned replaced = 0;
	unsigned i;
	int err;

	tmem_assert(put, n >= 1 && slot + n <= INDEX_FANOUT);
	err = index_lock_create(ip, oid, index, &c);
	if (err)
		goto out;
	leaf = (struct index_node *)c.immediate;
	for (i = 0; i < n; i++)
		replaced += shard_set_word(c.shard, leaf, slot + i, p[i], &old[replaced]);
	index_shard_check(c.shard);
	os_mutex_unlock(&((struct index_shard *)c.shard)->lock);
	if (replaced)
		ip->pam->drop(ip->ctx, old, replaced);
out:
	return err;
}

int index_get(struct index_pool *ip, const struct index_oid *oid, uint64_t index, struct pampd *p,
	      void *taken)
{
	uint64_t hash = index_hash(ip, oid);
	struct index_shard *sh = index_pool_shard(ip, hash);
	unsigned slot = index & (INDEX_FANOUT - 1);
	arena_id object, id;
	int err = 1;

	os_mutex_lock(&sh->lock);
	id = shard_find_leaf(sh, oid, (uint32_t)hash, index, &object);
	if (id) {
		const struct index_node *leaf = index_node(ip->ix, id);

		if (radix_present(leaf, slot)) {
			p->word = leaf->word[slot];
			p->immediate = leaf->bits >> slot & 1;
			err = ip->pam->take(ip->ctx, *p, taken);
		}
	}
	os_mutex_unlock(&sh->lock);
	return err;
}

bool index_invalidate(struct index_pool *ip, const struct index_oid *oid, uint64_t index)
{
	uint64_t hash = index_hash(ip, oid);
	struct index_shard *sh = index_pool_shard(ip, hash);
	struct index_reserve freed = {0};
	unsigned slot = index & (INDEX_FANOUT - 1);
	struct pampd p = {0};
	arena_id object, id;
	bool found = false;

	os_mutex_lock(&sh->lock);
	id = shard_find_leaf(sh, oid, (uint32_t)hash, index, &object);
	if (id) {
		struct index_node *leaf = index_node(ip->ix, id);

		found = radix_present(leaf, slot);
		if (found)
			p = shard_clear_word(sh, leaf, slot);
		if (leaf->count == 0)
			shard_prune(sh, id, &freed);
	}
	index_shard_check(sh);
	os_mutex_unlock(&sh->lock);
	index_reserve_release(ip, &freed);
	if (found)
		ip->pam->drop(ip->ctx, &p, 1);
	return found;
}
