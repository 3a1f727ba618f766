/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The index of a host, and its pools: made, counted, freed.
 *
 * A pool is one block: its shards, each on cache lines of its own, and a first
 * small table for each of them, so that a pool in which little happens takes
 * no other memory.
 */
#include "index/internal.h"

#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>

#define SHARDS_DEFAULT 256u
#define SHARDS_MAX     4096u
/* Bounds on address space only: 73 GB and 8 GB of it. */
#define NODES_MAX      (1u << 27)
#define OBJECTS_MAX    (1u << 27)

void *index_block_alloc(struct index *ix, size_t bytes)
{
	void *p = NULL;

	if (!frames_charge(ix->frames, bytes))
		goto out;
	p = os_zalloc_aligned(bytes);
	if (!p)
		frames_uncharge(ix->frames, bytes);
	else
		atomic_fetch_add_explicit(&ix->block_bytes, bytes, memory_order_relaxed);
out:
	return p;
}

void index_block_free(struct index *ix, void *p, size_t bytes)
{
	if (!p)
		return;
	os_free(p);
	atomic_fetch_sub_explicit(&ix->block_bytes, bytes, memory_order_relaxed);
	frames_uncharge(ix->frames, bytes);
}

int index_create(struct frames *f, struct index **out)
{
	struct index *ix = NULL;
	int err = -ENOMEM;

	if (!frames_charge(f, sizeof(*ix)))
		goto out;
	ix = os_zalloc_aligned(sizeof(*ix));
	if (!ix) {
		frames_uncharge(f, sizeof(*ix));
		goto out;
	}
	ix->frames = f;
	/* The clock only: where it is simulated, the order of walks replays. */
	ix->seed = index_fold(os_clock_ns() ^ 0x9e3779b97f4a7c15u, 0xe7037ed1a0b428dbu);
	os_mutex_init(&ix->bottom_up, OS_RANK_BOTTOM_UP, "index bottom-up");
	err = arena_create(f, "index nodes", INDEX_NODE_BYTES, NODES_MAX, &ix->nodes);
	if (!err)
		err = arena_create(f, "index objects", sizeof(struct index_object), OBJECTS_MAX,
				   &ix->objects);
	if (err) {
		index_destroy(ix);
		ix = NULL;
	}
out:
	*out = ix;
	return err;
}

void index_destroy(struct index *ix)
{
	struct frames *f;

	if (!ix)
		return;
	tmem_must(!ix->pools);
	f = ix->frames;
	arena_destroy(ix->objects);
	arena_destroy(ix->nodes);
	os_mutex_destroy(&ix->bottom_up);
	os_free(ix);
	frames_uncharge(f, sizeof(*ix));
}

int index_pool_create(struct index *ix, unsigned shards, const struct pam_ops *pam, void *ctx,
		      void *owner, struct index_pool **out)
{
	struct index_pool *ip = NULL;
	size_t bytes;
	unsigned i;
	int err = -EINVAL;

	if (!shards)
		shards = SHARDS_DEFAULT;
	if (shards > SHARDS_MAX || (shards & (shards - 1)))
		goto out;
	bytes = sizeof(*ip) +
		shards * (sizeof(ip->shard[0]) + SHARD_FIRST_HEADS * sizeof(arena_id));
	err = -EDQUOT;
	if (pam->charge && !pam->charge(ctx, bytes))
		goto out;
	err = -ENOMEM;
	ip = index_block_alloc(ix, bytes);
	if (!ip) {
		if (pam->uncharge)
			pam->uncharge(ctx, bytes);
		goto out;
	}
	ip->ix = ix;
	ip->pam = pam;
	ip->ctx = ctx;
	ip->owner = owner;
	ip->seed = ix->seed;
	ip->shards = shards;
	ip->shard_shift = 63 - (unsigned)__builtin_ctz(shards);
	ip->block_bytes = bytes;

	/* L2: a bottom-up walk that finds one of these shards has come after this section. */
	os_mutex_lock(&ix->bottom_up);
	for (i = 0; i < shards; i++) {
		struct index_shard *sh = &ip->shard[i];

		os_mutex_init(&sh->lock, OS_RANK_SHARD, "index shard");
		sh->pool = ip;
		sh->heads = index_shard_first_heads(sh);
		sh->mask = SHARD_FIRST_HEADS - 1;
	}
	ip->next = ix->pools;
	ip->link = &ix->pools;
	if (ip->next)
		ip->next->link = &ip->next;
	ix->pools = ip;
	os_mutex_unlock(&ix->bottom_up);
	err = 0;
out:
	*out = ip;
	return err;
}

static void table_free(struct index_shard *sh, arena_id *table, size_t heads)
{
	index_pool_uncharge(sh->pool, heads * sizeof(arena_id));
	index_block_free(sh->pool->ix, table, heads * sizeof(arena_id));
}

static void shard_free_tables(struct index_shard *sh)
{
	arena_id *first = index_shard_first_heads(sh);
	size_t heads = sh->mask + 1;

	if (sh->old && sh->old != first)
		table_free(sh, sh->old, heads / 2);
	if (sh->heads != first)
		table_free(sh, sh->heads, heads);
}

void index_pool_destroy(struct index_pool *ip)
{
	struct index *ix;
	unsigned i;

	if (!ip)
		return;
	ix = ip->ix;
	index_flush(ip);

	/*
	 * A bottom-up walk may still be inside a shard of ours; once we have
	 * this mutex it has left, and no other can find the way in (L2).
	 */
	os_mutex_lock(&ix->bottom_up);
	for (i = 0; i < ip->shards; i++) {
		struct index_shard *sh = &ip->shard[i];

		tmem_must(sh->objects == 0);
		tmem_assert(I2, sh->pages == 0);
		shard_free_tables(sh);
		os_mutex_destroy(&sh->lock);
	}
	*ip->link = ip->next;
	if (ip->next)
		ip->next->link = ip->link;
	index_pool_uncharge(ip, ip->block_bytes);
	index_block_free(ix, ip, ip->block_bytes);
	os_mutex_unlock(&ix->bottom_up);
}

void *index_pool_owner(const struct index_pool *ip)
{
	return ip->owner;
}

void index_stats(struct index *ix, struct index_stats *st)
{
	struct index_pool *ip;

	memset(st, 0, sizeof(*st));
	os_mutex_lock(&ix->bottom_up);
	for (ip = ix->pools; ip; ip = ip->next)
		st->pages += index_pool_pages(ip);
	os_mutex_unlock(&ix->bottom_up);
	st->objects = arena_items(ix->objects);
	st->nodes = arena_items(ix->nodes);
	st->meta_bytes = arena_bytes(ix->objects) + arena_bytes(ix->nodes) + sizeof(*ix) +
			 atomic_load_explicit(&ix->block_bytes, memory_order_relaxed);
	st->charged_bytes = st->objects * sizeof(struct index_object) +
			    st->nodes * INDEX_NODE_BYTES +
			    atomic_load_explicit(&ix->block_bytes, memory_order_relaxed);
	st->objects_max = atomic_load_explicit(&ix->objects_max, memory_order_relaxed);
	st->nodes_max = atomic_load_explicit(&ix->nodes_max, memory_order_relaxed);
}

uint64_t index_pool_pages(struct index_pool *ip)
{
	uint64_t pages = 0;
	unsigned i;

	for (i = 0; i < ip->shards; i++)
		pages += __atomic_load_n(&ip->shard[i].pages, __ATOMIC_RELAXED);
	return pages;
}

/* Of all shards, one after the other; fullest: of the one that has most. */
static uint64_t count_objects(struct index_pool *ip, uint64_t *fullest)
{
	uint64_t sum = 0;
	unsigned i;

	*fullest = 0;
	for (i = 0; i < ip->shards; i++) {
		struct index_shard *sh = &ip->shard[i];

		os_mutex_lock(&sh->lock);
		sum += sh->objects;
		if (sh->objects > *fullest)
			*fullest = sh->objects;
		os_mutex_unlock(&sh->lock);
	}
	return sum;
}

void index_pool_spread(struct index_pool *ip, uint64_t *fullest, uint64_t *mean_milli)
{
	*mean_milli = count_objects(ip, fullest) * 1000 / ip->shards;
}

uint64_t index_pool_objects(struct index_pool *ip)
{
	uint64_t fullest;

	return count_objects(ip, &fullest);
}

unsigned index_pool_shards(const struct index_pool *ip)
{
	return ip->shards;
}
