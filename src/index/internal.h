/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The index's own structures: host, pool, shard, object. For src/index only.
 *
 *   struct index ── arenas of nodes and objects, the bottom-up mutex
 *   struct index_pool ── shard[0] shard[1] ... shard[2^n - 1]
 *                          │ heads[hash & mask]
 *                          └─> object ─next─> object ─next─> 0
 *                                │ root
 *                                └─> node ─word[]─> node ─word[]─> leaf
 *
 * Ids, not pointers, join objects and nodes: half the size, and an id may go
 * stale without harm, because arena items are type-stable (alloc/arena.h).
 *
 * Locking. A shard's mutex guards its table, its objects and all their nodes.
 * Two fields are also read without it, by index_lock_leaf() only:
 *
 *   node->object   0 <=> the node is in no tree
 *   object->shard  NULL <=> the object is in no table
 *
 *   L1  both are set and cleared under the shard's mutex, cleared before the
 *       item goes back to its arena, and lie past the item's first 16 bytes
 *   L2  a shard's memory is made before and freed after a section of
 *       index->bottom_up, and freed only when no object names the shard
 *
 * So whoever holds index->bottom_up and reads a shard pointer from any item,
 * live or stale, may lock that shard and look again.
 */
#ifndef TMEM_INDEX_INTERNAL_H
#define TMEM_INDEX_INTERNAL_H

#include "index/index.h"
#include "os/check.h"

#include <stdatomic.h>
#include <string.h>

struct index {
	struct frames *frames;
	struct arena *nodes;
	struct arena *objects;
	struct os_mutex bottom_up;
	uint64_t seed; /* of the hash; a test that wants the same order each time sets it */
	_Atomic uint64_t block_bytes; /* charged for pools and tables */
	_Atomic uint64_t nodes_max, objects_max;
	struct index_pool *pools; /* list, under bottom_up */
};

struct index_object {
	struct index_oid oid;
	arena_id next; /* in its bucket; in a reserve: the next spare object */
	arena_id root;
	struct index_shard *shard;
	uint64_t pages;
	uint32_t tag;	/* low half of the oid's hash */
	uint8_t height; /* levels of the tree, 1..11; 0: no root */
	uint8_t pad[3];
};

#define SHARD_FIRST_HEADS  8u
#define SHARD_VERIFY_EVERY 512u /* operations between walks of a shard, -Dchecks=2 */

struct index_shard {
	struct os_mutex lock;
	struct index_pool *pool;
	arena_id *heads; /* mask + 1 of them */
	arena_id *old;	 /* the smaller table while its buckets are being moved, else NULL */
	uint32_t mask;
	uint32_t moved; /* old[0 .. moved-1] have been moved to heads */
	uint32_t objects;
	uint32_t bottom_up; /* the holder came by index_lock_leaf() */
	uint64_t pages;	    /* written under the lock, summed without it */
	/* What the last operation found. 0: nothing; last_leaf implies last_object. */
	struct index_oid last_oid;
	uint64_t last_group; /* index / 64 of last_leaf */
	arena_id last_object;
	arena_id last_leaf;
#if TMEM_CHECKS >= 2
	uint32_t unlocks;
#endif
} __attribute__((aligned(64)));

struct index_pool {
	struct index *ix;
	struct index_pool *next, **link; /* in ix->pools */
	const struct pam_ops *pam;
	void *ctx;
	void *owner;
	uint64_t seed; /* of ix */
	unsigned shards;
	unsigned shard_shift; /* shard = hash >> 1 >> shard_shift */
	uint64_t block_bytes;
	struct index_shard shard[];
};

static inline struct index_object *index_object(const struct index *ix, arena_id id)
{
	return arena_ptr(ix->objects, id);
}

static inline bool index_oid_equal(const struct index_oid *a, const struct index_oid *b)
{
	return !((a->w[0] ^ b->w[0]) | (a->w[1] ^ b->w[1]) | (a->w[2] ^ b->w[2]));
}

/* 64 x 64 -> 128 bits, halves folded: each bit of the input reaches each of the result. */
static inline uint64_t index_fold(uint64_t a, uint64_t b)
{
	__uint128_t p = (__uint128_t)a * b;

	return (uint64_t)p ^ (uint64_t)(p >> 64);
}

/*
 * The shard is taken from the high bits, the bucket from the low ones, so both
 * halves must be good for oids that differ in a few low bits of one word:
 * tests/unit/index_spread.c measures that. The seed is the host's own, so that
 * a client cannot choose oids that all meet in one bucket.
 */
static inline uint64_t index_hash(const struct index_pool *ip, const struct index_oid *oid)
{
	uint64_t h = index_fold(oid->w[0] ^ ip->seed, oid->w[1] ^ 0xd1b54a32d192ed03u);

	h = index_fold(h ^ 0x8cb92ba72f3d8dd7u, oid->w[2] ^ 0xaef17502108ef2d9u);
	return index_fold(h, 0x9fb21c651e98df25u);
}

static inline struct index_shard *index_pool_shard(struct index_pool *ip, uint64_t hash)
{
	return &ip->shard[hash >> 1 >> ip->shard_shift];
}

/* The table that came with the pool's block and is never freed on its own. */
static inline arena_id *index_shard_first_heads(const struct index_shard *sh)
{
	struct index_pool *ip = sh->pool;
	arena_id *first = (arena_id *)&ip->shard[ip->shards];

	return first + (size_t)(sh - ip->shard) * SHARD_FIRST_HEADS;
}

static inline void index_shard_add_pages(struct index_shard *sh, int64_t n)
{
	__atomic_store_n(&sh->pages, sh->pages + (uint64_t)n, __ATOMIC_RELAXED);
}

#define INDEX_NODE_BYTES 544u

/* What a pool's metadata is charged to, if anybody wants to know (pam_ops). */
static inline bool index_pool_charge(const struct index_pool *ip, uint64_t bytes)
{
	return !ip->pam->charge || ip->pam->charge(ip->ctx, bytes);
}
static inline void index_pool_uncharge(const struct index_pool *ip, uint64_t bytes)
{
	if (ip->pam->uncharge && bytes)
		ip->pam->uncharge(ip->ctx, bytes);
}

/* pool.c: charged blocks. NULL when the frame source or the OS refuses. */
void *index_block_alloc(struct index *ix, size_t bytes);
void index_block_free(struct index *ix, void *p, size_t bytes);

/* verify.c: one shard, which the caller has locked. 0 or -EINVAL with a line logged. */
int index_shard_verify(struct index_shard *sh);

/* After each operation, before the unlock: walks the shard now and then in -Dchecks=2. */
static inline void index_shard_check(struct index_shard *sh)
{
#if TMEM_CHECKS >= 2
	if (++sh->unlocks % SHARD_VERIFY_EVERY == 0)
		tmem_must(index_shard_verify(sh) == 0);
#else
	(void)sh;
#endif
}

#endif
