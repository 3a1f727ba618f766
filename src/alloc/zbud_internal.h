/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of zbud share. The theory is at the top of zbud.c. */
#ifndef TMEM_ALLOC_ZBUD_INTERNAL_H
#define TMEM_ALLOC_ZBUD_INTERNAL_H

#include "alloc/zbud.h"
#include "os/check.h"
#include "os/lock.h"
#include "os/mem.h"

#include <stdatomic.h>

#define ZBUD_CHUNK_SHIFT  6
#define ZBUD_HUGE_CHUNKS  57 /* 3632 bytes and more: as zsmalloc counts them */
#define ZBUD_REGION_MAX	  ((size_t)1 << 40)
#define ZBUD_REGION_MIN	  ((size_t)8 << 30)
#define ZBUD_POPULATE_MAX 16u /* frames in one go, at most */
#define ZBUD_BATCH	  32u /* frames moved or returned in one go, at most */
#define ZBUD_LOOK_MAX	  8u  /* frames of a ring looked at */

/* The state word in front of each object: as zsmalloc's. */
#define ZBUD_ALLOCATED 0x8000u
#define ZBUD_MOVABLE   0x4000u
#define ZBUD_DYING     0x2000u
#define ZBUD_PINS      0x1fffu
#define ZBUD_IN_USE    (ZBUD_ALLOCATED | ZBUD_MOVABLE)

/* Where a frame is. */
enum zbud_where {
	ZBUD_FREE,     /* not resident; on the list of free ids, or on its way from or to it */
	ZBUD_SPARE,    /* resident, empty */
	ZBUD_QUEUED,   /* holds objects; in the queue of its kind */
	ZBUD_EVICTING, /* a shrink has it: in no queue and on no list */
};

enum zbud_kind { ZBUD_PERSISTENT, ZBUD_EPHEMERAL, ZBUD_KINDS };

/* Two rings go through a frame. */
enum zbud_ring {
	ZBUD_QUEUE,	/* frames of a kind by age; of a free or spare frame: its list */
	ZBUD_UNBUDDIED, /* frames of a kind with one object and as many free chunks */
	ZBUD_RINGS
};

/* Descriptor of a frame, guarded by the pool's lock. */
struct zbud_frame {
	struct {
		uint32_t next, prev; /* frame numbers */
	} link[ZBUD_RINGS];
	uint64_t stamp;	     /* age: when it last took an object in, or was spared */
	uint8_t first, last; /* chunks of either object, 0: none */
	uint8_t where, kind;
	uint8_t listed; /* the ring of free chunks that it is in, 0: none */
	uint8_t pad;
	uint16_t pass; /* the compaction that gave it up */
};
_Static_assert(sizeof(struct zbud_frame) == 32, "two to a cache line");

struct zbud_pool {
	struct zpool zp; /* first */
	char *base;	 /* frame n at base + n * 4096; frame 0 is not used */
	struct zbud_frame *desc;
	struct frames *frames;
	size_t object_bytes, desc_bytes; /* reserved */
	uint32_t max;			 /* frame numbers below it */

	_Alignas(64) struct os_mutex lock;
	/* All below is guarded by it. */
	uint32_t queue[ZBUD_KINDS]; /* the oldest frame of each; its prev is the youngest */
	uint32_t unbuddied[ZBUD_KINDS][ZBUD_CHUNKS]; /* by free chunks, 1.. */
	uint64_t lists[ZBUD_KINDS];		     /* bit f: unbuddied[f] is not empty */
	uint64_t queued[ZBUD_KINDS];
	uint32_t spare, free_ids, next; /* lists; numbers below next were used before */
	uint64_t nr_spare, nr_evicting, resident;
	uint64_t objects, chunks, huge;
	uint64_t stamp, meta_bytes;
	uint64_t freed, moved, compacted, evicted, evict_refused, shrunk;
	uint16_t pass;
};

static inline struct zbud_pool *zbud_pool(struct zpool *zp)
{
	return (struct zbud_pool *)zp;
}
/* A handle is the object's place in units of 64 bytes, by arithmetic alone. */
static inline zpool_handle zbud_handle(uint32_t frame, unsigned chunk)
{
	return (zpool_handle)frame << (OS_FRAME_SHIFT - ZBUD_CHUNK_SHIFT) | chunk;
}
static inline uint32_t zbud_frame_of(zpool_handle h)
{
	return (uint32_t)(h >> (OS_FRAME_SHIFT - ZBUD_CHUNK_SHIFT));
}
static inline unsigned zbud_chunk_of(zpool_handle h)
{
	return h & (ZBUD_CHUNKS - 1);
}
static inline _Atomic uint16_t *zbud_state(const struct zbud_pool *p, zpool_handle h)
{
	return (_Atomic uint16_t *)(p->base + (h << ZBUD_CHUNK_SHIFT));
}
static inline char *zbud_bytes(const struct zbud_pool *p, zpool_handle h)
{
	return p->base + (h << ZBUD_CHUNK_SHIFT) + ZBUD_OBJECT_HEAD;
}
/* The first object begins at chunk 0; the last one ends at the last chunk. */
static inline uint8_t *zbud_side(struct zbud_frame *f, unsigned chunk)
{
	return chunk == 0 ? &f->first : &f->last;
}
static inline size_t zbud_capacity(unsigned chunks)
{
	return (size_t)chunks * ZBUD_CHUNK - ZBUD_OBJECT_HEAD;
}

/* zbud_frame.c: frames and their rings. All but create, destroy and release need the lock. */
int zbud_frames_create(struct zbud_pool *p);
void zbud_frames_destroy(struct zbud_pool *p);
void zbud_ring_add(struct zbud_pool *p, uint32_t *head, uint32_t id, enum zbud_ring r);
void zbud_ring_del(struct zbud_pool *p, uint32_t *head, uint32_t id, enum zbud_ring r);
/* Put it on the list that its free chunks say; of frames in a queue only. */
void zbud_relist(struct zbud_pool *p, uint32_t id);
/* Young end of the queue of its kind. */
void zbud_queue_add(struct zbud_pool *p, uint32_t id);
/* Out of its queue and off its list. */
void zbud_queue_del(struct zbud_pool *p, uint32_t id, enum zbud_where where);
/* More spare frames; drops the lock meanwhile. False: refused. */
bool zbud_grow(struct zbud_pool *p);
/* A spare frame, made part of a queue as the youngest; 0 if there is none. */
uint32_t zbud_spare_use(struct zbud_pool *p, enum zbud_kind kind);
/* A frame that came empty becomes spare. How many frames gone[] has then for zbud_release(). */
unsigned zbud_frame_empty(struct zbud_pool *p, uint32_t id, uint32_t gone[ZBUD_BATCH]);
/* A frame that came empty and is for zbud_release(). */
void zbud_frame_gone(struct zbud_pool *p, uint32_t id);
/* Return frames to the OS, and their numbers; sorts id[]. No lock held. */
void zbud_release(struct zbud_pool *p, uint32_t *id, unsigned n);
/* Return up to `want` spare frames; how many. No lock held. */
uint64_t zbud_spares_return(struct zbud_pool *p, uint64_t want);

/* zbud.c: an object's room within a frame; the lock is held. */
zpool_handle zbud_take(struct zbud_pool *p, uint32_t id, unsigned chunks, unsigned state);
/* Chunks of an object; forget it. */
void zbud_clear(struct zbud_pool *p, zpool_handle h);

/* zbud_shrink.c, zbud_compact.c */
uint64_t zbud_shrink(struct zpool *zp, uint64_t pages);
uint64_t zbud_compact(struct zpool *zp, uint64_t frames);

/* zbud_verify.c */
void zbud_stats(struct zpool *zp, struct zpool_stats *st);
/* With the lock held. */
int zbud_verify_locked(struct zbud_pool *p);

#endif
