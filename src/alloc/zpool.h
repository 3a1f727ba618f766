/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * zpool: one interface over page-store allocators.
 *
 * A driver keeps objects (zpages) of up to `max_size` bytes in frames that it
 * takes from the owner's frame source. A handle is an integer, never a
 * pointer, at most ZPOOL_HANDLE_BITS wide and never 0. Objects may *move*
 * (compaction): an object that is mapped never does.
 *
 * Life of an object:
 *
 *            malloc            owner links it         free, not mapped
 *   (none) ---------> allocated ------------> movable ----------------> (none)
 *                         |   map: pins++, unmap: pins--        |
 *                         +--- free while mapped: dying --------+
 *                              the last unmap frees it
 *
 * Moving: only objects for which zpool_set_movable() was called, only while
 * pins == 0, and only through owner->move(), which the driver calls with its
 * class lock held. The owner takes its own lock (rank above the driver's),
 * checks that nobody else can be about to use the old handle, copies the bytes
 * and puts the new handle where the old one was; or refuses. The owner never
 * calls malloc or free with that lock of its own held; map is allowed, and is
 * what makes an object safe to use after that lock is dropped.
 *
 * Between the driver's look at the pins and the owner's lock a reader may
 * still pin the old place. His pin keeps the old bytes until he unmaps, so a
 * reader needs nothing more; but what he *writes* there after the copy is
 * lost. An owner that writes to mapped objects calls zpool_pinned(from) in
 * move(), with its lock held, and refuses when it says true.
 */
#ifndef TMEM_ALLOC_ZPOOL_H
#define TMEM_ALLOC_ZPOOL_H

#include "alloc/frames.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t zpool_handle;
#define ZPOOL_HANDLE_BITS 44

struct zpool_owner {
	/*
	 * Move an object of `size` bytes from `src` (handle `from`) to `dst`
	 * (handle `to`), as above. True when done: the driver then frees
	 * `from`; false: busy or unknown, and nothing was changed.
	 */
	bool (*move)(void *ctx, zpool_handle from, void *src, zpool_handle to, void *dst,
		     size_t size);
};

struct zpool_stats {
	uint64_t objects;	   /* allocated, dying included */
	uint64_t object_bytes;	   /* sum of the sizes that were asked for, rounded to the class */
	uint64_t frame_bytes;	   /* frames held for objects */
	uint64_t meta_bytes;	   /* descriptors and tables */
	uint64_t huge_objects;	   /* above the huge watermark */
	uint64_t moved_objects;	   /* by compaction, ever */
	uint64_t freed_frames;	   /* returned to the OS, ever */
	uint64_t compacted_frames; /* of those, by compaction */
};

struct zpool; /* a driver's instance; first member is its ops pointer */

struct zpool_ops {
	const char *type; /* "zsmalloc", "zbud" */
	int (*create)(struct frames *f, const struct zpool_owner *owner, void *ctx,
		      struct zpool **out);
	void (*destroy)(struct zpool *zp);
	int (*malloc)(struct zpool *zp, size_t size, zpool_handle *out);
	void (*free)(struct zpool *zp, zpool_handle h);
	void *(*map)(struct zpool *zp, zpool_handle h);
	void (*unmap)(struct zpool *zp, zpool_handle h);
	void (*set_movable)(struct zpool *zp, zpool_handle h, bool movable);
	void *(*peek)(struct zpool *zp, zpool_handle h);
	bool (*pinned)(struct zpool *zp, zpool_handle h);
	uint64_t (*compact)(struct zpool *zp, uint64_t frames);
	int (*shrink)(struct zpool *zp, uint64_t pages, uint64_t *reclaimed);
	void (*stats)(struct zpool *zp, struct zpool_stats *st);
	int (*verify)(struct zpool *zp);
	size_t max_size;
};

struct zpool {
	const struct zpool_ops *ops;
};

/* Driver by name; NULL when unknown (zpool_names() lists them, comma separated). */
const struct zpool_ops *zpool_find(const char *type);
const char *zpool_names(void);

/*
 * Create by driver name. owner may be NULL (nothing ever moves). 0; -ENOENT
 * for an unknown name, -ENOMEM.
 */
int zpool_create(const char *type, struct frames *f, const struct zpool_owner *owner, void *ctx,
		 struct zpool **out) __attribute__((warn_unused_result));
/* All objects must be free. NULL is allowed. */
static inline void zpool_destroy(struct zpool *zp)
{
	if (zp)
		zp->ops->destroy(zp);
}
/*
 * Room for size bytes, 1..max_size; contents undefined, not movable, not
 * mapped. 0; -ENOMEM when the frame source refuses and no partly filled frame
 * of the class has room; -EINVAL for a bad size. Takes the class lock.
 */
static inline int zpool_malloc(struct zpool *zp, size_t size, zpool_handle *out)
{
	return zp->ops->malloc(zp, size, out);
}
/* Free now, or at the last unmap. Takes the class lock. */
static inline void zpool_free(struct zpool *zp, zpool_handle h)
{
	zp->ops->free(zp, h);
}
/*
 * Pin and return the object's address. The caller owns the object, or holds
 * the lock under which its owner would let it go. Any number of handles and of
 * threads at once; NULL when the pin count of this object is at its maximum
 * (ZPOOL_PINS_MAX): copy the object out under your lock then (peek). Lock-free.
 */
#define ZPOOL_PINS_MAX 1000
static inline void *zpool_map(struct zpool *zp, zpool_handle h)
{
	return zp->ops->map(zp, h);
}
/* The address is dead afterwards. May free a dying object (then takes the class lock). */
static inline void zpool_unmap(struct zpool *zp, zpool_handle h)
{
	zp->ops->unmap(zp, h);
}
/* The address without a pin: for use under the owner's lock, or before the object is movable. */
static inline void *zpool_peek(struct zpool *zp, zpool_handle h)
{
	return zp->ops->peek(zp, h);
}
/* Whether anybody has the object mapped: firm only while the owner's lock keeps others out. */
static inline bool zpool_pinned(struct zpool *zp, zpool_handle h)
{
	return zp->ops->pinned(zp, h);
}
/* Say that the owner can now find (or no longer find) whoever names this object. Lock-free. */
static inline void zpool_set_movable(struct zpool *zp, zpool_handle h, bool movable)
{
	zp->ops->set_movable(zp, h, movable);
}
/* Move objects together until about `frames` were returned or no more can be. Frames returned. */
static inline uint64_t zpool_compact(struct zpool *zp, uint64_t frames)
{
	return zp->ops->compact(zp, frames);
}
/* Total over everything the driver holds. Takes class locks one after the other. */
static inline void zpool_stats(struct zpool *zp, struct zpool_stats *st)
{
	zp->ops->stats(zp, st);
}
/* Walks everything; takes each class lock. 0 or -EINVAL. */
static inline int zpool_verify(struct zpool *zp)
{
	return zp->ops->verify(zp);
}

#endif
