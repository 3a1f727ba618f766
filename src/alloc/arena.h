/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Arena: type-stable metadata items with 32-bit ids.
 *
 * All items of an arena have one size and live in one reservation of address
 * space of their own. A freed item's memory is only ever reused for an item
 * of the same arena or returned to the OS, after which it reads as zeros. So a
 * stale id may be dereferenced for reading at any time: what is found is an
 * item of this type (perhaps another one now) or zeros, and the reader checks
 * under the right lock. Bottom-up walks (a zpage looking for its index leaf)
 * rest on this.
 *
 * Slabs are runs of 1 to 16 frames chosen for the least waste; a slab whose
 * last item goes is returned to the OS, but for one that is kept for the next.
 */
#ifndef TMEM_ALLOC_ARENA_H
#define TMEM_ALLOC_ARENA_H

#include "alloc/frames.h"
#include "os/lock.h"

typedef uint32_t arena_id; /* 0 is no item */

struct arena;

/*
 * An arena for items of item_bytes (a multiple of 8, at most 16384), at most
 * max_items of them (bounds the reservation only). `name` is static. 0 or -ENOMEM.
 */
int arena_create(struct frames *f, const char *name, size_t item_bytes, uint32_t max_items,
		 struct arena **out) __attribute__((warn_unused_result));
/* All items must be free. NULL is allowed. */
void arena_destroy(struct arena *a);
/* A zeroed item; 0 when memory or ids are short. Takes the arena's lock. */
arena_id arena_alloc(struct arena *a) __attribute__((warn_unused_result));
/* The item's bytes are zeroed before it can be seen again. Takes the arena's lock. */
void arena_free(struct arena *a, arena_id id);
/* No id above this one was ever given out. Takes the arena's lock. */
arena_id arena_top(struct arena *a);
uint64_t arena_items(const struct arena *a);
uint64_t arena_bytes(const struct arena *a); /* charged now, slab tables included */
/* Walks every slab. 0 or -EINVAL with a line logged. */
int arena_verify(struct arena *a);

/*
 * Address of item id (> 0). Layout is public so that this is a handful of
 * instructions: slab = (id-1) / per_slab, by multiplication.
 */
struct arena_geometry {
	char *base;
	uint32_t item_bytes, per_slab, slab_bytes;
	uint64_t reciprocal; /* floor((2^64 - 1) / per_slab) + 1, per_slab >= 2: exact for any id */
	uint32_t max_items;
};
static inline const struct arena_geometry *arena_geometry(const struct arena *a)
{
	return (const struct arena_geometry *)a; /* first member of struct arena */
}
static inline void *arena_ptr(const struct arena *a, arena_id id)
{
	const struct arena_geometry *g = arena_geometry(a);
	uint32_t i = id - 1;
	uint32_t slab = (uint32_t)(((__uint128_t)i * g->reciprocal) >> 64);
	return g->base + (size_t)slab * g->slab_bytes +
	       (size_t)(i - slab * g->per_slab) * g->item_bytes;
}
/* Whether an id taken from untrusted or stale memory names a place in the arena at all. */
static inline bool arena_id_plausible(const struct arena *a, arena_id id)
{
	return id != 0 && id <= arena_geometry(a)->max_items;
}

#endif
