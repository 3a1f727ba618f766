/* SPDX-License-Identifier: BSD-2-Clause */
/* A shard's table of objects: see table.h. */
#include "index/table.h"

arena_id table_find(struct index_shard *sh, const struct index_oid *oid, uint32_t tag)
{
	const struct index *ix = sh->pool->ix;
	arena_id id = *table_head(sh, tag);

	while (id) {
		const struct index_object *o = index_object(ix, id);

		if (o->tag == tag && index_oid_equal(&o->oid, oid))
			break;
		id = o->next;
	}
	return id;
}

uint32_t table_wanted(const struct index_shard *sh)
{
	uint32_t heads = sh->mask + 1;

	if (sh->old || sh->objects < (uint64_t)heads * TABLE_LOAD || heads >= TABLE_HEADS_MAX)
		return 0;
	return heads * 2;
}

static void table_install(struct index_shard *sh, struct index_reserve *r)
{
	tmem_assert(I5, !sh->old && r->table_heads == 2 * (sh->mask + 1));
	sh->old = sh->heads;
	sh->moved = 0;
	sh->heads = r->table;
	sh->mask = r->table_heads - 1;
	r->table = NULL;
	r->table_heads = 0;
}

/* Move a few buckets of the old table; hand it over when it is empty. */
static void table_migrate(struct index_shard *sh, struct index_reserve *r)
{
	const struct index *ix = sh->pool->ix;
	uint32_t size = (sh->mask + 1) / 2;
	unsigned n;

	for (n = 0; n < TABLE_STEP && sh->moved < size; n++) {
		arena_id id = sh->old[sh->moved];

		sh->old[sh->moved] = 0;
		while (id) {
			struct index_object *o = index_object(ix, id);
			arena_id next = o->next;

			o->next = sh->heads[o->tag & sh->mask];
			sh->heads[o->tag & sh->mask] = id;
			id = next;
		}
		sh->moved++;
	}
	if (sh->moved < size)
		return;
	if (sh->old != index_shard_first_heads(sh)) {
		r->old = sh->old;
		r->old_heads = size;
	}
	sh->old = NULL;
	sh->moved = 0;
}

arena_id table_insert(struct index_shard *sh, const struct index_oid *oid, uint32_t tag,
		      struct index_reserve *r)
{
	const struct index *ix = sh->pool->ix;
	arena_id id = index_reserve_take_object(ix, r);
	struct index_object *o = index_object(ix, id);
	arena_id *head;

	if (r->table && r->table_heads == table_wanted(sh))
		table_install(sh, r);
	if (sh->old)
		table_migrate(sh, r);

	o->oid = *oid;
	o->root = 0;
	o->pages = 0;
	o->tag = tag;
	o->height = 0;
	head = table_head(sh, tag);
	o->next = *head;
	*head = id;
	sh->objects++;
	__atomic_store_n(&o->shard, sh, __ATOMIC_RELAXED);
	return id;
}

void table_remove(struct index_shard *sh, arena_id id, struct index_reserve *r)
{
	const struct index *ix = sh->pool->ix;
	struct index_object *o = index_object(ix, id);
	arena_id *link = table_head(sh, o->tag);

	tmem_assert(I1, o->pages == 0 && !o->root);
	while (*link != id) {
		tmem_must(*link);
		link = &index_object(ix, *link)->next;
	}
	*link = o->next;
	sh->objects--;
	if (sh->last_object == id) {
		sh->last_object = 0;
		sh->last_leaf = 0;
	}
	index_reserve_add_object(ix, r, id);
}

static int key_compare(const struct table_key *a, const struct table_key *b)
{
	unsigned i;

	if (a->order != b->order)
		return a->order < b->order ? -1 : 1;
	for (i = 0; i < 3; i++) {
		if (a->oid.w[i] != b->oid.w[i])
			return a->oid.w[i] < b->oid.w[i] ? -1 : 1;
	}
	return 0;
}

bool table_key_after(struct table_key *key)
{
	unsigned i;

	for (i = 3; i > 0; i--) {
		if (++key->oid.w[i - 1])
			return true;
	}
	return ++key->order != 0;
}

/* The chain's object with the least key that is >= key and below *best. */
static arena_id chain_least(const struct index *ix, arena_id id, const struct table_key *key,
			    struct table_key *best, arena_id best_id)
{
	for (; id; id = index_object(ix, id)->next) {
		const struct index_object *o = index_object(ix, id);
		struct table_key k = {table_reverse(o->tag), o->oid};

		if (key_compare(&k, key) < 0)
			continue;
		if (best_id && key_compare(&k, best) >= 0)
			continue;
		*best = k;
		best_id = id;
	}
	return best_id;
}

arena_id table_next(struct index_shard *sh, struct table_key *key, bool *end)
{
	const struct index *ix = sh->pool->ix;
	/* While the table doubles, a bucket of the old one is two of the new one. */
	uint32_t size = sh->old ? (sh->mask + 1) / 2 : sh->mask + 1;
	unsigned shift = 32 - (unsigned)__builtin_ctz(size);
	struct table_key best = {0};
	unsigned n;

	*end = false;
	for (n = 0; n < TABLE_LOOK; n++) {
		uint32_t b = table_reverse(key->order >> shift << shift);
		arena_id id;

		if (sh->old && b >= sh->moved) {
			id = chain_least(ix, sh->old[b], key, &best, 0);
		} else {
			id = chain_least(ix, sh->heads[b], key, &best, 0);
			if (sh->old)
				id = chain_least(ix, sh->heads[b + size], key, &best, id);
		}
		if (id) {
			*key = best;
			return id;
		}
		if (key->order >> shift == size - 1) {
			*end = true;
			return 0;
		}
		key->order = ((key->order >> shift) + 1) << shift;
		memset(&key->oid, 0, sizeof(key->oid));
	}
	return 0;
}
