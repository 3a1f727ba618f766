/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of zsmalloc share. The theory is at the top of zsmalloc.c. */
#ifndef TMEM_ALLOC_ZS_INTERNAL_H
#define TMEM_ALLOC_ZS_INTERNAL_H

#include "alloc/zpool.h"
#include "alloc/zsmalloc.h"
#include "os/check.h"
#include "os/lock.h"
#include "os/mem.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Geometry. A unit is 16 bytes; a handle counts units from the base of the reservation. */
#define ZS_UNIT_SHIFT	  4
#define ZS_UNIT		  (1u << ZS_UNIT_SHIFT)
#define ZS_SMALL_FRAMES	  16   /* of a span of the small region */
#define ZS_LARGE_FRAMES	  64   /* of a span of the large region */
#define ZS_SMALL_SHIFT	  12   /* units of a small span, as a shift: 64 KiB */
#define ZS_LARGE_SHIFT	  14   /* of a large one: 256 KiB */
#define ZS_SMALL_SPAN_MAX 1024 /* slots up to this size live in the small region */
#define ZS_SLOT_MIN	  32
#define ZS_LINEAR_MAX	  4128 /* slot sizes step by one unit up to here */
#define ZS_SLOT_MAX	  65536
#define ZS_STEP_SHIFT	  6 /* above it by about 1/64 */
#define ZS_HUGE_WATERMARK 3632
#define ZS_CLASSES_MAX	  432
#define ZS_REGION_MAX	  ((size_t)1 << 40)
#define ZS_REGION_MIN	  ((size_t)8 << 30)
#define ZS_POPULATE_MAX	  16u /* frames in one go, at most */
#define ZS_MOVE_BATCH	  32  /* objects moved in one hold of a class lock */

/* The state word in front of each object. */
#define ZS_ALLOCATED 0x8000u
#define ZS_MOVABLE   0x4000u
#define ZS_DYING     0x2000u
#define ZS_PINS	     0x1fffu

/*
 * Groups. 0..15: zspages with freed slots, by sixteenths in use. ROOM: no
 * freed slot, but slots that were never used. FULL: neither. EVICTING: shrink
 * has it, out of reach of malloc and compaction, whatever it holds.
 */
#define ZS_PARTIAL_GROUPS 16
#define ZS_ROOM		  16
#define ZS_FULL		  17
#define ZS_EVICTING	  18
#define ZS_GROUPS	  19

/* Descriptor of a zspage. Guarded by the lock of its class, or by its id being free. */
struct zs_page {
	uint32_t next, prev; /* ring of its group, ids */
	uint32_t pass;	     /* the compaction that gave it up */
	uint16_t cls;	     /* class number + 1; 0: no zspage here */
	uint16_t inuse;	     /* slots allocated, dying ones included */
	uint16_t touched;    /* slots ever used: those above hold nothing */
	uint16_t free_head;  /* first freed slot, in units from the start, + 1; 0: none */
	uint16_t frames;     /* resident and charged */
	uint8_t group;
	uint8_t pad;
	uint64_t born; /* zspages begun before it in its pool; younger after an eviction failed */
};
_Static_assert(sizeof(struct zs_page) == 32, "two to a cache line");

struct zs_class {
	_Alignas(64) struct os_mutex lock;
	/* Constant. */
	uint32_t size, frames, slots, units;
	uint32_t group_mul; /* group = inuse * group_mul >> 16 */
	bool large;
	uint16_t number;
	/* Guarded by lock. */
	uint32_t partial; /* bit g: group g, one of the partial ones, has zspages */
	uint32_t head[ZS_GROUPS];
	uint64_t zspages, objects, touched_slots, resident_frames, moved;
	uint32_t source, source_slot; /* where the last batch of compaction stopped */
	/* Politeness of compaction to those who wait for the lock. */
	_Atomic uint32_t waiting;
	_Atomic bool compacting;
};

/* Ids of one region: the lowest free one first. Two levels of bits, 1 = free. */
struct zs_region {
	struct os_mutex lock;
	uint32_t first;	    /* id = first + k */
	uint32_t max, next; /* k below next was used before */
	uint32_t nr_free;   /* of those */
	uint32_t hint;	    /* no word of `coarse` below has a bit */
	uint64_t *fine, *coarse;
	uint64_t meta_bytes; /* charged for descriptors and bits */
};

struct zs_pool {
	struct zpool zp; /* first */
	char *base;	 /* objects: small region, then large region */
	struct zs_page *pages;
	uint64_t large_units; /* where the large region begins, in units from base */
	uint32_t large_first; /* its lowest id */
	uint32_t large_bias;  /* id = bias + units >> ZS_LARGE_SHIFT there */
	struct frames *frames;
	size_t object_bytes, meta_bytes; /* reserved */
	char *meta;
	unsigned nr_classes;
	struct zs_region region[2];
	struct os_mutex compact_lock;
	uint32_t pass, next_class; /* guarded by compact_lock */
	_Atomic uint64_t freed_frames, compacted_frames, shrunk_frames;
	_Atomic uint64_t evicted, evict_refused, births;
	uint16_t class_of[ZS_SLOT_MAX / ZS_UNIT + 1]; /* by units of the slot */
	struct zs_class classes[];
};

static inline struct zs_pool *zs_pool(struct zpool *zp)
{
	return (struct zs_pool *)zp;
}

static inline char *zs_address(const struct zs_pool *p, zpool_handle h)
{
	return p->base + (h << ZS_UNIT_SHIFT);
}

static inline _Atomic uint16_t *zs_state(const struct zs_pool *p, zpool_handle h)
{
	return (_Atomic uint16_t *)zs_address(p, h);
}

static inline uint32_t zs_id(const struct zs_pool *p, zpool_handle h)
{
	return h < p->large_units ? (uint32_t)(h >> ZS_SMALL_SHIFT)
				  : (uint32_t)(h >> ZS_LARGE_SHIFT) + p->large_bias;
}

static inline zpool_handle zs_handle(const struct zs_pool *p, uint32_t id, uint32_t unit)
{
	zpool_handle start = id < p->large_first
				     ? (zpool_handle)id << ZS_SMALL_SHIFT
				     : (zpool_handle)(id - p->large_bias) << ZS_LARGE_SHIFT;

	return start + unit;
}

/* Frames that `slots` slots from the start of a zspage reach into. */
static inline uint32_t zs_frames_for(const struct zs_class *c, uint32_t slots)
{
	return (uint32_t)(((uint64_t)slots * c->size + OS_FRAME_SIZE - 1) >> OS_FRAME_SHIFT);
}

/* While a class is being compacted, say that somebody waits. */
static inline void zs_class_lock(struct zs_class *c)
{
	if (tmem_likely(!atomic_load_explicit(&c->compacting, memory_order_relaxed))) {
		os_mutex_lock(&c->lock);
		return;
	}
	atomic_fetch_add_explicit(&c->waiting, 1, memory_order_relaxed);
	os_mutex_lock(&c->lock);
	atomic_fetch_sub_explicit(&c->waiting, 1, memory_order_relaxed);
}

static inline void zs_class_unlock(struct zs_class *c)
{
	os_mutex_unlock(&c->lock);
}

/* zs_class.c: fill the class table and class_of. Returns the number of classes. */
unsigned zs_classes_plan(struct zs_class *classes, uint16_t *class_of);

/* zs_span.c: ids, descriptors and frames. */
int zs_spans_create(struct zs_pool *p);
void zs_spans_destroy(struct zs_pool *p);
/* An id whose descriptor is charged and all zero; 0 when refused. Takes the region's lock. */
uint32_t zs_span_alloc(struct zs_pool *p, bool large);
/* Return `frames` frames and the id. The zspage is on no list. No lock needed. */
void zs_span_release(struct zs_pool *p, uint32_t id, uint32_t frames);
/* Make frames from..to of a zspage resident. False: refused, nothing changed. */
bool zs_span_populate(struct zs_pool *p, uint32_t id, uint32_t from, uint32_t to);
/* Return frames from..to. */
void zs_span_return(struct zs_pool *p, uint32_t id, uint32_t from, uint32_t to);
uint64_t zs_spans_meta_bytes(struct zs_pool *p);

/* zs_page.c: zspages of a class. All need the class lock. */
void zs_page_link(struct zs_pool *p, struct zs_class *c, uint32_t id, unsigned group);
void zs_page_unlink(struct zs_pool *p, struct zs_class *c, uint32_t id);
/* To the end of its ring, so that others are looked at first. */
void zs_page_defer(struct zs_pool *p, struct zs_class *c, uint32_t id);
/* Put it in the group that its counts say. */
void zs_page_regroup(struct zs_pool *p, struct zs_class *c, uint32_t id);
/* Out of all groups, for an eviction; and back to the group that its counts say. */
void zs_page_isolate(struct zs_pool *p, struct zs_class *c, uint32_t id);
void zs_page_rejoin(struct zs_pool *p, struct zs_class *c, uint32_t id);
/* Any slot of the class; 0 when memory is refused. Its state word is set. */
zpool_handle zs_slot_alloc(struct zs_pool *p, struct zs_class *c);
/* A freed slot of zspage id, which has one; state word set to `state`. */
zpool_handle zs_slot_reuse(struct zs_pool *p, struct zs_class *c, uint32_t id, unsigned state);
/* Free a slot. When true, the zspage has left the class: zs_span_release(*id, *frames). */
bool zs_slot_free(struct zs_pool *p, struct zs_class *c, zpool_handle h, uint32_t *id,
		  uint32_t *frames);
/* Take an empty zspage out of the class; returns its frames for zs_span_release(). */
uint32_t zs_page_detach(struct zs_pool *p, struct zs_class *c, uint32_t id);
/* Give resident frames from the end back until `keep` are left. Returns how many went. */
uint32_t zs_page_trim(struct zs_pool *p, struct zs_class *c, uint32_t id, uint32_t keep);

/* zs_compact.c */
uint64_t zs_compact(struct zpool *zp, uint64_t frames);

/* zs_shrink.c */
uint64_t zs_shrink(struct zpool *zp, uint64_t pages);

/* zs_verify.c */
void zs_stats(struct zpool *zp, struct zpool_stats *st);
/* One class, whose lock is held. */
int zs_verify_class(struct zs_pool *p, struct zs_class *c);

#endif
