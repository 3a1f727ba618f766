/* SPDX-License-Identifier: BSD-2-Clause */
/* The walk that checks I1 to I5 of index.h, one shard at a time, under its lock. */
#include "index/shard.h"

#include "os/log.h"

#include <errno.h>

#define CHECK(inv, cond)                                                                           \
	do {                                                                                       \
		if (tmem_unlikely(!(cond))) {                                                      \
			os_log(OS_LOG_ERROR, "index: %s broken: %s (%s:%d)", #inv, #cond,          \
			       __func__, __LINE__);                                                \
			return -EINVAL;                                                            \
		}                                                                                  \
	} while (0)

struct expect {
	arena_id object, parent;
	unsigned slot, shift;
	uint64_t base;
};

static unsigned slots_used(const struct index_node *n)
{
	unsigned used = 0;
	unsigned slot;

	for (slot = 0; slot < INDEX_FANOUT; slot++)
		used += radix_present(n, slot);
	return used;
}

/* Depth is at most RADIX_HEIGHT_MAX: each level's shift is checked to be 6 less. */
static int verify_node(const struct index *ix, arena_id id, const struct expect *e, uint64_t *pages)
{
	const struct index_node *n;
	unsigned slot;
	int err = 0;

	CHECK(I3, arena_id_plausible(ix->nodes, id));
	n = index_node(ix, id);
	CHECK(I3, n->object == e->object);
	CHECK(I3, n->parent == e->parent);
	CHECK(I3, n->slot == e->slot);
	CHECK(I3, n->shift == e->shift);
	CHECK(I3, n->base == e->base);
	CHECK(I1, n->count >= 1 && n->count == slots_used(n));
	if (!n->shift) {
		*pages += n->count;
		return 0;
	}
	for (slot = 0; slot < INDEX_FANOUT && !err; slot++) {
		struct expect child = {e->object, id, slot, e->shift - INDEX_FANOUT_SHIFT,
				       e->base + ((uint64_t)slot << e->shift)};

		CHECK(I1, !!n->word[slot] == (n->bits >> slot & 1));
		/* The top level has room for 66 bits of index: those beyond 64 hold nothing. */
		CHECK(I3, !n->word[slot] || (uint64_t)slot << e->shift >> e->shift == slot);
		if (n->word[slot])
			err = verify_node(ix, (arena_id)n->word[slot], &child, pages);
	}
	return err;
}

static int verify_object(struct index_shard *sh, arena_id id, uint64_t *pages_sum)
{
	const struct index *ix = sh->pool->ix;
	const struct index_object *o;
	struct expect e = {.object = id};
	uint64_t pages = 0;
	uint64_t hash;
	int err;

	CHECK(I5, arena_id_plausible(ix->objects, id));
	o = index_object(ix, id);
	hash = index_hash(sh->pool, &o->oid);
	CHECK(I5, o->shard == sh);
	CHECK(I5, o->tag == (uint32_t)hash);
	CHECK(I5, index_pool_shard(sh->pool, hash) == sh);
	CHECK(I5, table_find(sh, &o->oid, o->tag) == id);
	CHECK(I1, o->height >= 1 && o->height <= RADIX_HEIGHT_MAX);
	e.shift = (o->height - 1u) * INDEX_FANOUT_SHIFT;
	err = verify_node(ix, o->root, &e, &pages);
	if (err)
		return err;
	CHECK(I4, o->height == 1 || index_node(ix, o->root)->bits != 1);
	CHECK(I1, pages >= 1);
	CHECK(I2, pages == o->pages);
	*pages_sum += pages;
	return 0;
}

static int verify_chain(struct index_shard *sh, arena_id head, uint64_t *objects, uint64_t *pages)
{
	arena_id id = head;
	int err = 0;

	while (id && !err) {
		/* A chain that closes on itself would not end. */
		CHECK(I5, ++*objects <= sh->objects);
		err = verify_object(sh, id, pages);
		id = index_object(sh->pool->ix, id)->next;
	}
	return err;
}

static int verify_memory(const struct index_shard *sh)
{
	const struct index *ix = sh->pool->ix;
	const struct index_object *o;
	const struct index_node *n;

	CHECK(cache, !sh->last_leaf || sh->last_object);
	if (!sh->last_object)
		return 0;
	o = index_object(ix, sh->last_object);
	CHECK(cache, o->shard == sh && index_oid_equal(&o->oid, &sh->last_oid));
	if (!sh->last_leaf)
		return 0;
	n = index_node(ix, sh->last_leaf);
	CHECK(cache, n->object == sh->last_object && !n->shift);
	CHECK(cache, n->base >> INDEX_FANOUT_SHIFT == sh->last_group);
	return 0;
}

int index_shard_verify(struct index_shard *sh)
{
	uint32_t old_size = sh->old ? (sh->mask + 1) / 2 : 0;
	uint64_t objects = 0, pages = 0;
	uint32_t i;
	int err = 0;

	os_mutex_assert_held(&sh->lock);
	for (i = 0; i <= sh->mask && !err; i++)
		err = verify_chain(sh, sh->heads[i], &objects, &pages);
	for (i = 0; i < old_size && !err; i++) {
		CHECK(I5, i >= sh->moved || !sh->old[i]);
		err = verify_chain(sh, sh->old[i], &objects, &pages);
	}
	if (!err)
		err = verify_memory(sh);
	if (err)
		return err;
	CHECK(I5, objects == sh->objects);
	CHECK(I2, pages == sh->pages);
	return 0;
}

int index_verify(struct index_pool *ip)
{
	unsigned i;
	int err = 0;

	for (i = 0; i < ip->shards && !err; i++) {
		os_mutex_lock(&ip->shard[i].lock);
		err = index_shard_verify(&ip->shard[i]);
		os_mutex_unlock(&ip->shard[i].lock);
	}
	return err;
}
