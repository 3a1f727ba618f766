/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Cursors: one leaf under its shard's lock, entered from above (by handle) or
 * from below (by leaf).
 *
 * From above: hash -> shard -> lock -> look. A leaf that is missing is made
 * from a reserve: look, count what is missing, unlock, get exactly that, lock
 * and look again; somebody may have made or removed something meanwhile, so
 * the loop goes on until the reserve covers the need. It ends, because a
 * reserve only grows and no need exceeds 2 * RADIX_HEIGHT_MAX nodes.
 *
 * From below, a zpage knows only its leaf's id, which may be stale:
 *
 *   lock bottom_up; node->object; object->shard   read without the shard's lock
 *   lock that shard                               its memory is there (L2)
 *   node->object, object->shard again             same: the leaf is live, and ours
 *
 * If the second look agrees, both are covered by the lock we hold, since both
 * change only under the lock of the shard that they lead to (L1). If not, the
 * leaf was unlinked between the looks, and whoever asked has a stale id.
 * bottom_up stays locked until index_unlock(), so all of this stays put.
 *
 * Lock order: bottom_up before shard before the arenas. A caller from below may
 * hold its allocator's class lock, which ranks lower than all three.
 */
#include "index/shard.h"

#include <errno.h>

static void cursor_at(struct index_cursor *c, struct index_shard *sh, arena_id object,
		      arena_id leaf, uint64_t index)
{
	c->pool = sh->pool;
	c->shard = sh;
	c->object = object;
	c->leaf = leaf;
	c->base = index & ~(uint64_t)(INDEX_FANOUT - 1);
	c->words = NULL;
	c->immediate = NULL;
	if (leaf) {
		struct index_node *n = index_node(sh->pool->ix, leaf);

		tmem_assert(I3, n->base == c->base && n->object == object && n->shift == 0);
		c->words = n->word;
		c->immediate = &n->bits;
	}
}

/* The leaf of a cursor that has one: bits is a node's first member. */
static struct index_node *cursor_leaf(const struct index_cursor *c)
{
	_Static_assert(offsetof(struct index_node, bits) == 0, "cursors point to nodes");
	return (struct index_node *)c->immediate;
}

void index_lock(struct index_pool *ip, const struct index_oid *oid, uint64_t index,
		struct index_cursor *c)
{
	uint64_t hash = index_hash(ip, oid);
	struct index_shard *sh = index_pool_shard(ip, hash);
	arena_id object, leaf;

	os_mutex_lock(&sh->lock);
	leaf = shard_find_leaf(sh, oid, (uint32_t)hash, index, &object);
	cursor_at(c, sh, object, leaf, index);
}

static void count_need(struct index_shard *sh, arena_id object, uint64_t index,
		       struct index_need *need)
{
	const struct index *ix = sh->pool->ix;

	need->objects = object ? 0 : 1;
	need->table_heads = object ? 0 : table_wanted(sh);
	need->nodes = radix_missing(ix, object ? index_object(ix, object) : NULL, index);
}

static arena_id make_leaf(struct index_shard *sh, const struct index_oid *oid, uint32_t tag,
			  uint64_t index, arena_id *object, struct index_reserve *r)
{
	arena_id leaf;

	if (!*object) {
		*object = table_insert(sh, oid, tag, r);
		sh->last_object = *object;
		sh->last_oid = *oid;
	}
	leaf = radix_link(sh->pool->ix, *object, index, r);
	shard_remember_leaf(sh, index, leaf);
	return leaf;
}

int index_lock_create(struct index_pool *ip, const struct index_oid *oid, uint64_t index,
		      struct index_cursor *c)
{
	uint64_t hash = index_hash(ip, oid);
	struct index_shard *sh = index_pool_shard(ip, hash);
	struct index_reserve r = {0};
	struct index_need need;
	arena_id object, leaf;
	int err = 0;

	for (;;) {
		os_mutex_lock(&sh->lock);
		leaf = shard_find_leaf(sh, oid, (uint32_t)hash, index, &object);
		if (tmem_likely(leaf))
			break;
		count_need(sh, object, index, &need);
		if (index_reserve_covers(&r, &need)) {
			leaf = make_leaf(sh, oid, (uint32_t)hash, index, &object, &r);
			break;
		}
		os_mutex_unlock(&sh->lock);
		err = index_reserve_fill(ip, &r, &need);
		if (err)
			goto out;
	}
	cursor_at(c, sh, object, leaf, index);
out:
	/* Left over after a race, or a table that is done with; rare, so under the lock. */
	index_reserve_release(ip, &r);
	return err;
}

/*
 * Reads of fields whose item may be changing, freed or cleared by its arena
 * at this moment. Aligned words, so never torn; what is read is checked again
 * under the lock. Not instrumented: to a race detector an arena that clears a
 * page of free items would seem to race with the read.
 */
#define RACY __attribute__((noinline, no_sanitize("thread")))

RACY static arena_id racy_object(const struct index_node *n)
{
	return *(const volatile arena_id *)&n->object;
}

RACY static struct index_shard *racy_shard(const struct index_object *o)
{
	return *(struct index_shard *const volatile *)&o->shard;
}

RACY uint64_t index_peek(const struct index *ix, arena_id leaf, unsigned slot, unsigned n,
			 uint64_t *words)
{
	const volatile struct index_node *node;

	tmem_assert(slot, slot + n <= INDEX_FANOUT);
	if (!arena_id_plausible(ix->nodes, leaf)) {
		memset(words, 0, n * sizeof(*words));
		return 0;
	}
	node = index_node(ix, leaf);
	for (unsigned i = 0; i < n; i++)
		words[i] = node->word[slot + i];
	return node->bits >> slot;
}

void index_peek_soon(const struct index *ix, arena_id leaf, unsigned slot)
{
	if (arena_id_plausible(ix->nodes, leaf))
		__builtin_prefetch(&index_node(ix, leaf)->word[slot]);
}

RACY bool index_maybe_leaf(const struct index *ix, arena_id leaf)
{
	return arena_id_plausible(ix->nodes, leaf) && racy_object(index_node(ix, leaf)) != 0;
}

bool index_lock_leaf(struct index *ix, arena_id leaf, struct index_cursor *c)
{
	struct index_object *o;
	struct index_shard *sh;
	struct index_node *n;
	arena_id object;
	bool found = false;

	os_mutex_lock(&ix->bottom_up);
	if (!arena_id_plausible(ix->nodes, leaf))
		goto out;
	n = index_node(ix, leaf);
	object = racy_object(n);
	if (!arena_id_plausible(ix->objects, object))
		goto out;
	o = index_object(ix, object);
	sh = racy_shard(o);
	if (!sh)
		goto out;
	os_mutex_lock(&sh->lock);
	found = racy_object(n) == object && racy_shard(o) == sh && n->shift == 0;
	if (found) {
		sh->bottom_up = 1;
		cursor_at(c, sh, object, leaf, n->base);
	} else {
		os_mutex_unlock(&sh->lock);
	}
out:
	if (!found)
		os_mutex_unlock(&ix->bottom_up);
	return found;
}

arena_id index_leaf_top(struct index *ix)
{
	return arena_top(ix->nodes);
}

void index_cursor_set(struct index_cursor *c, unsigned slot, struct pampd p)
{
	struct pampd was;

	tmem_assert(cursor, c->leaf && slot < INDEX_FANOUT);
	shard_set_word(c->shard, cursor_leaf(c), slot, p, &was);
}

void index_cursor_clear(struct index_cursor *c, unsigned slot)
{
	tmem_assert(cursor, slot < INDEX_FANOUT);
	if (index_cursor_present(c, slot))
		shard_clear_word(c->shard, cursor_leaf(c), slot);
}

void index_unlock(struct index_cursor *c)
{
	struct index_shard *sh = c->shard;
	struct index *ix = c->pool->ix; /* the pool may be gone after the unlock */
	struct index_reserve freed = {0};
	bool bottom_up = sh->bottom_up;

	if (c->leaf && cursor_leaf(c)->count == 0) {
		shard_prune(sh, c->leaf, &freed);
		index_reserve_uncharge(sh->pool, &freed);
	}
	index_shard_check(sh);
	c->shard = NULL;
	sh->bottom_up = 0;
	os_mutex_unlock(&sh->lock);
	if (bottom_up)
		os_mutex_unlock(&ix->bottom_up);
	index_reserve_free(ix, &freed);
}

void index_cursor_oid(const struct index_cursor *c, struct index_oid *oid)
{
	tmem_assert(cursor, c->object);
	*oid = index_object(c->pool->ix, c->object)->oid;
}
