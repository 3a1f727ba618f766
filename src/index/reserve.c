/* SPDX-License-Identifier: BSD-2-Clause */
/* The operation's reserve: see reserve.h. */
#include "index/reserve.h"

#include "index/radix.h"

#include <errno.h>

static void note_max(_Atomic uint64_t *max, uint64_t now)
{
	uint64_t seen = atomic_load_explicit(max, memory_order_relaxed);

	while (seen < now && !atomic_compare_exchange_weak_explicit(
				     max, &seen, now, memory_order_relaxed, memory_order_relaxed))
		;
}

void index_reserve_add_node(const struct index *ix, struct index_reserve *r, arena_id id)
{
	struct index_node *n = index_node(ix, id);

	__atomic_store_n(&n->object, 0, __ATOMIC_RELAXED);
	n->parent = r->nodes;
	r->nodes = id;
	r->nr_nodes++;
}

void index_reserve_add_object(const struct index *ix, struct index_reserve *r, arena_id id)
{
	struct index_object *o = index_object(ix, id);

	__atomic_store_n(&o->shard, NULL, __ATOMIC_RELAXED);
	o->next = r->objects;
	r->objects = id;
	r->nr_objects++;
}

arena_id index_reserve_take_node(const struct index *ix, struct index_reserve *r)
{
	arena_id id = r->nodes;

	tmem_assert(reserve, r->nr_nodes > 0 && id);
	r->nodes = index_node(ix, id)->parent;
	r->nr_nodes--;
	return id;
}

arena_id index_reserve_take_object(const struct index *ix, struct index_reserve *r)
{
	arena_id id = r->objects;

	tmem_assert(reserve, r->nr_objects > 0 && id);
	r->objects = index_object(ix, id)->next;
	r->nr_objects--;
	return id;
}

static uint64_t table_bytes(uint32_t heads)
{
	return heads * sizeof(arena_id);
}

/* A bigger table is a matter of speed only: without memory for one the operation goes on. */
static void fill_table(struct index_pool *ip, struct index_reserve *r, uint32_t heads)
{
	if (r->table) {
		index_block_free(ip->ix, r->table, table_bytes(r->table_heads));
		index_pool_uncharge(ip, table_bytes(r->table_heads));
	}
	r->table = NULL;
	if (index_pool_charge(ip, table_bytes(heads))) {
		r->table = index_block_alloc(ip->ix, table_bytes(heads));
		if (!r->table)
			index_pool_uncharge(ip, table_bytes(heads));
	}
	r->table_heads = r->table ? heads : 0;
	r->table_refused = !r->table;
}

/* One item of an arena, charged to the pool; 0 with *err set. */
static arena_id get_item(struct index_pool *ip, struct arena *a, uint64_t bytes, int *err)
{
	arena_id id;

	*err = -EDQUOT;
	if (!index_pool_charge(ip, bytes))
		return 0;
	*err = -ENOMEM;
	id = arena_alloc(a);
	if (!id)
		index_pool_uncharge(ip, bytes);
	return id;
}

int index_reserve_fill(struct index_pool *ip, struct index_reserve *r,
		       const struct index_need *need)
{
	struct index *ix = ip->ix;
	arena_id id;
	int err;

	while (r->nr_objects < need->objects) {
		id = get_item(ip, ix->objects, sizeof(struct index_object), &err);
		if (!id)
			goto out;
		index_reserve_add_object(ix, r, id);
		note_max(&ix->objects_max, arena_items(ix->objects));
	}
	while (r->nr_nodes < need->nodes) {
		id = get_item(ip, ix->nodes, INDEX_NODE_BYTES, &err);
		if (!id)
			goto out;
		index_reserve_add_node(ix, r, id);
		note_max(&ix->nodes_max, arena_items(ix->nodes));
	}
	if (need->table_heads && !r->table_refused && r->table_heads != need->table_heads)
		fill_table(ip, r, need->table_heads);
	err = 0;
out:
	return err;
}

void index_reserve_uncharge(const struct index_pool *ip, const struct index_reserve *r)
{
	uint64_t bytes = r->nr_nodes * (uint64_t)INDEX_NODE_BYTES +
			 r->nr_objects * (uint64_t)sizeof(struct index_object);

	if (r->table)
		bytes += table_bytes(r->table_heads);
	if (r->old)
		bytes += table_bytes(r->old_heads);
	index_pool_uncharge(ip, bytes);
}

void index_reserve_free(struct index *ix, struct index_reserve *r)
{
	while (r->nr_nodes)
		arena_free(ix->nodes, index_reserve_take_node(ix, r));
	while (r->nr_objects)
		arena_free(ix->objects, index_reserve_take_object(ix, r));
	if (r->table)
		index_block_free(ix, r->table, table_bytes(r->table_heads));
	if (r->old)
		index_block_free(ix, r->old, table_bytes(r->old_heads));
	r->table = NULL;
	r->old = NULL;
}

void index_reserve_release(struct index_pool *ip, struct index_reserve *r)
{
	index_reserve_uncharge(ip, r);
	index_reserve_free(ip->ix, r);
}
