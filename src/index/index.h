/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The index: tmem core. Handle <pool, oid, index> -> pampd word.
 *
 *   pool --hash(oid)--> shard { mutex, table of objects } --> object
 *   object --> 64-way radix tree by index (64 bits, grows and shrinks in
 *   height) --> leaf: 64 words (pampd), one bit each saying "immediate"
 *
 * The index knows nothing of what a word means. An *immediate* word carries 64
 * bits of its own (a same-filled page's value); any other word is non-zero and
 * names something that the pool's PAM ops look after.
 *
 * All calls are safe from any thread. No call allocates while it holds a
 * shard: memory is reserved first, and the operation carries its reserve
 * itself. Words that a call takes out of the index are given to pam->drop()
 * after the shard is unlocked.
 *
 * Invariants, checked by index_verify() (field names: internal.h):
 *   I1  node->count = words (leaf) or children (interior) present = 1..64;
 *       object->pages >= 1
 *   I2  object->pages = sum of count over its leaves;
 *       shard->pages = sum of object->pages; pool = sum over shards
 *   I3  every node's parent, slot, shift, base and object agree with the path
 *       that leads to it
 *   I4  a tree is as low as it can be: its root is a leaf, or has a child in a
 *       slot other than 0
 *   I5  an object is in the shard and the bucket of its hash;
 *       shard->objects = objects in the shard's chains
 */
#ifndef TMEM_INDEX_INDEX_H
#define TMEM_INDEX_INDEX_H

#include "alloc/arena.h"
#include "os/lock.h"

#include <stdbool.h>
#include <stdint.h>

#define INDEX_FANOUT_SHIFT 6
#define INDEX_FANOUT	   (1u << INDEX_FANOUT_SHIFT)

struct index_oid {
	uint64_t w[3];
};

struct pampd {
	uint64_t word;
	bool immediate;
};

/* What backs a pool: page-addressable memory. One table and one ctx per pool. */
struct pam_ops {
	/*
	 * Make `p` safe to use after the shard is unlocked (pin it). Called
	 * with the shard locked; must not block, allocate or call the index.
	 * 0, or a negative errno that the get returns.
	 */
	int (*take)(void *ctx, struct pampd p, void *taken);
	/*
	 * n words left the index: let go of what they name. No lock is held.
	 * n is 1..INDEX_BATCH.
	 */
	void (*drop)(void *ctx, const struct pampd *p, unsigned n);
	/*
	 * Optional, both or none. The pool takes or gives back `bytes` of
	 * metadata: nodes, objects, tables, and the pool itself. charge is
	 * called with no shard locked, and may refuse (then the operation fails
	 * with -EDQUOT); uncharge may be called under a shard, and must not
	 * lock. Neither calls the index.
	 */
	bool (*charge)(void *ctx, uint64_t bytes);
	void (*uncharge)(void *ctx, uint64_t bytes);
};
#define INDEX_BATCH 64

struct index;	   /* per host: the arenas of objects and nodes */
struct index_pool; /* per pool */

int index_create(struct frames *f, struct index **out) __attribute__((warn_unused_result));
/* All pools must be gone. NULL is allowed. */
void index_destroy(struct index *ix);

/*
 * shards: a power of two up to 4096; 0 takes 256. `owner` is an opaque word
 * returned by index_pool_owner(). 0, -ENOMEM, -EDQUOT (pam->charge() refused), or -EINVAL for a
 * bad shard count.
 */
int index_pool_create(struct index *ix, unsigned shards, const struct pam_ops *pam, void *ctx,
		      void *owner, struct index_pool **out) __attribute__((warn_unused_result));
/* Empties the pool in batches, then frees it. No other call may be in the pool any more. */
void index_pool_destroy(struct index_pool *ip);
void *index_pool_owner(const struct index_pool *ip);

/*
 * Whole operations.
 *
 * put: link n words at index, index+1, ... which must lie in one leaf
 * (index / 64 equal for all). Replaced words are dropped. 0; -ENOMEM: then
 * nothing was linked and nothing was removed.
 */
int index_put(struct index_pool *ip, const struct index_oid *oid, uint64_t index, unsigned n,
	      const struct pampd *p) __attribute__((warn_unused_result));
/* get: 0 and pam->take() was called; 1: absent; or what take returned. Word in *p. */
int index_get(struct index_pool *ip, const struct index_oid *oid, uint64_t index, struct pampd *p,
	      void *taken) __attribute__((warn_unused_result));
/* Whether something was there. */
bool index_invalidate(struct index_pool *ip, const struct index_oid *oid, uint64_t index);
/* Remove n words from index on (any range). Number removed. In batches. */
uint64_t index_invalidate_range(struct index_pool *ip, const struct index_oid *oid, uint64_t index,
				uint64_t n);
uint64_t index_invalidate_object(struct index_pool *ip, const struct index_oid *oid);
/* Empty the pool, keep it. Pages put meanwhile may or may not remain. */
uint64_t index_flush(struct index_pool *ip);

/*
 * Cursors: one leaf under its shard's lock, for operations that look at
 * neighbours. Between lock and unlock: no allocation, no other index call.
 */
struct index_cursor {
	struct index_pool *pool;
	void *shard;
	arena_id object;
	arena_id leaf;	     /* 0: no such leaf; then words and immediate are NULL */
	uint64_t base;	     /* index of slot 0 */
	uint64_t *words;     /* INDEX_FANOUT of them */
	uint64_t *immediate; /* one bit a slot */
};
/* Lock the shard of oid and find the leaf that holds index. Always locks. */
void index_lock(struct index_pool *ip, const struct index_oid *oid, uint64_t index,
		struct index_cursor *c);
/* The same, and the leaf exists when 0 is returned. -ENOMEM, -EDQUOT: nothing is locked. */
int index_lock_create(struct index_pool *ip, const struct index_oid *oid, uint64_t index,
		      struct index_cursor *c) __attribute__((warn_unused_result));
/*
 * Bottom-up: lock the shard that the leaf belongs to. `leaf` may be stale or
 * any number. False: no such leaf now, nothing is locked. Serialised with the
 * end of pools (rank OS_RANK_BOTTOM_UP).
 */
bool index_lock_leaf(struct index *ix, arena_id leaf, struct index_cursor *c)
	__attribute__((warn_unused_result));
/* For walks over all leaves of all pools: no leaf has an id above this one now. */
arena_id index_leaf_top(struct index *ix);
/* Whether `leaf` may be one: false is certain for this instant. Lock-free. */
bool index_maybe_leaf(const struct index *ix, arena_id leaf);
static inline bool index_cursor_present(const struct index_cursor *c, unsigned slot)
{
	return c->leaf && (c->words[slot] || (*c->immediate >> slot & 1));
}
static inline struct pampd index_cursor_get(const struct index_cursor *c, unsigned slot)
{
	return (struct pampd){c->words[slot], *c->immediate >> slot & 1};
}
/*
 * What is at n slots of a leaf (slot + n <= INDEX_FANOUT), read without any
 * lock: `leaf` may be stale or any number, and what is found may have changed
 * when the call returns. words[i], and bit i of the result for immediate ones;
 * all zero for nothing. What it is good for: a word that is seen to be gone
 * has gone.
 */
uint64_t index_peek(const struct index *ix, arena_id leaf, unsigned slot, unsigned n,
		    uint64_t *words);
/* Ask for the memory that index_peek() will read. */
void index_peek_soon(const struct index *ix, arena_id leaf, unsigned slot);
/* Replace or remove; keeps all counters. What was there is the caller's now. */
void index_cursor_set(struct index_cursor *c, unsigned slot, struct pampd p);
void index_cursor_clear(struct index_cursor *c, unsigned slot);
/* Frees nodes and the object if they became empty, then unlocks. */
void index_unlock(struct index_cursor *c);
/* The handle a locked leaf belongs to. */
void index_cursor_oid(const struct index_cursor *c, struct index_oid *oid);

/*
 * Visit every leaf of the pool, each under its shard's lock, one lock for one
 * leaf; leaves that come or go meanwhile may be missed or seen. fn may change
 * words through the cursor. Stops early when fn returns non-zero, with that.
 */
int index_walk(struct index_pool *ip, int (*fn)(void *arg, struct index_cursor *c), void *arg);

struct index_stats {
	uint64_t objects, nodes, pages, meta_bytes;
	uint64_t objects_max, nodes_max;
	uint64_t charged_bytes; /* what the pools were charged for, in all; the rest is slack */
};
void index_stats(struct index *ix, struct index_stats *st);
uint64_t index_pool_pages(struct index_pool *ip);
/* How many locks it has. */
unsigned index_pool_shards(const struct index_pool *ip);
/* Objects in it. Takes each shard for a moment. */
uint64_t index_pool_objects(struct index_pool *ip);
/* The spread: how many objects the fullest shard holds, and the mean times 1000. For tests. */
void index_pool_spread(struct index_pool *ip, uint64_t *fullest, uint64_t *mean_milli);
/* Checks I1..I5 for the pool, shard by shard. 0 or -EINVAL with a line logged. */
int index_verify(struct index_pool *ip);

#endif
