/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A shard's table of objects: chains by the low bits of the hash.
 *
 * It doubles when it holds more than two objects a head. The bigger table is
 * got before the lock and filled bit by bit, TABLE_STEP old buckets for each
 * object that comes in, so that no lock is held for longer than a handful of
 * buckets. While that lasts there are two tables:
 *
 *     old[0 .. moved-1]   empty, their objects are in heads
 *     old[moved .. ]      still in use
 *
 * Walks see objects in the order of their *key*: the hash's low half with its
 * bits reversed, then the oid. A bucket is a contiguous stretch of keys at
 * every size of the table (the idea is the split-ordered list of Shalev and
 * Shavit), so a walk that lets the lock go in between misses no object that
 * stays, however often the table doubles meanwhile.
 *
 * All functions want the shard locked.
 */
#ifndef TMEM_INDEX_TABLE_H
#define TMEM_INDEX_TABLE_H

#include "index/internal.h"
#include "index/reserve.h"

#define TABLE_LOAD	2   /* objects a head before the table doubles */
#define TABLE_STEP	4   /* old buckets moved for each insertion */
#define TABLE_LOOK	256 /* buckets looked at in one call of table_next() */
#define TABLE_HEADS_MAX (1u << 27)

struct table_key {
	uint32_t order; /* reversed tag */
	struct index_oid oid;
};

/* The head of the chain that an object with this tag is in, or would be. */
static inline arena_id *table_head(struct index_shard *sh, uint32_t tag)
{
	if (tmem_unlikely(sh->old != NULL)) {
		uint32_t b = tag & sh->mask >> 1;

		if (b >= sh->moved)
			return &sh->old[b];
	}
	return &sh->heads[tag & sh->mask];
}

/* 0: no such object. */
arena_id table_find(struct index_shard *sh, const struct index_oid *oid, uint32_t tag);
/* Heads of the bigger table that one more object calls for; 0: none. */
uint32_t table_wanted(const struct index_shard *sh);
/* Make the object; may install r->table, and may put a table that is done with into r->old. */
arena_id table_insert(struct index_shard *sh, const struct index_oid *oid, uint32_t tag,
		      struct index_reserve *r);
/* Take an object without pages out, into the reserve. */
void table_remove(struct index_shard *sh, arena_id id, struct index_reserve *r);
/*
 * The object with the least key >= *key; *key becomes that object's. 0 when
 * none was found: then *end says that there is none, else *key was moved on
 * and the call is to be repeated, after letting the lock go.
 */
arena_id table_next(struct index_shard *sh, struct table_key *key, bool *end);
/* Past this object. False when it was the last key of all. */
bool table_key_after(struct table_key *key);

static inline uint32_t table_reverse(uint32_t v)
{
	v = (v >> 1 & 0x55555555u) | (v & 0x55555555u) << 1;
	v = (v >> 2 & 0x33333333u) | (v & 0x33333333u) << 2;
	v = (v >> 4 & 0x0f0f0f0fu) | (v & 0x0f0f0f0fu) << 4;
	return __builtin_bswap32(v);
}

#endif
