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
 *
 * Evicting: shrink chooses the oldest frames and asks the owner to give up
 * what is in them, object by object, through owner->evict(). Where an object
 * then is, by who still names it and who has it pinned:
 *
 *   in use   the owner names it; readers may pin it
 *   zombie   shrink has it pinned and out of reach of malloc and compaction.
 *            Its data is valid, the owner still names it, readers may still
 *            pin it: nothing has happened yet as far as they can see
 *   dying    the owner no longer names it and has freed it: nobody can find it
 *            any more, those who have it pinned read on. The last unpin frees
 *
 *   in use --shrink pins it--> zombie --owner unlinks it, zpool_free()--> dying
 *     ^                           |                     last unpin, often shrink's |
 *     +---- evict() said false ---+                                    (none) <----+
 *
 * Shrink holds no lock of the driver while it calls evict(): the owner may
 * take any of its own locks, allocate, and do I/O. That is sound because of
 * the pin: the handle cannot be freed, moved or given to another object before
 * shrink lets go. Top-down and bottom-up so never wait for one another.
 */
#ifndef TMEM_ALLOC_ZPOOL_H
#define TMEM_ALLOC_ZPOOL_H

#include "alloc/frames.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t zpool_handle;
#define ZPOOL_HANDLE_BITS 44

/* What the owner of a pool does for its driver. Static: outlives every pool. */
struct zpool_owner {
	/*
	 * Move an object of `size` bytes from `src` (handle `from`) to `dst`
	 * (handle `to`), as above. True when done: the driver then frees
	 * `from`; false: busy or unknown, and nothing was changed. NULL: the
	 * owner moves nothing.
	 */
	bool (*move)(void *ctx, zpool_handle from, void *src, zpool_handle to, void *dst,
		     size_t size);
	/*
	 * Give up an object, as above: find whoever names handle h through its
	 * bytes, unlink them, zpool_free() it, and return true; or return false
	 * with nothing changed (busy, unknown, too good to lose: it is passed
	 * over and grows young again). `ptr`: its bytes, which stay readable
	 * until the call returns, also after zpool_free(). `size`: of its slot,
	 * which may be more than was asked for. Only called for objects that
	 * are movable. By the time of the call somebody else may have unlinked
	 * or even freed it (it then is dying, its bytes as they were): the
	 * owner finds nobody who names it and returns false.
	 *
	 * Called from zpool_shrink(), in its thread, with no driver lock held.
	 * May block, take any lock that zpool_shrink()'s caller allows, and call
	 * this pool (malloc, free, map, unmap, stats), but not shrink. NULL:
	 * this owner cannot evict, zpool_shrink() refuses.
	 */
	bool (*evict)(void *ctx, zpool_handle h, void *ptr, size_t size);
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
	uint64_t evicted_objects;  /* given up by evict(), ever */
	uint64_t evict_refused;	   /* evict() said false, ever */
	uint64_t shrunk_frames;	   /* of freed_frames, by shrink */
};

/*
 * What a mapping is for.
 *   RO  nothing is written. Any number of readers at once.
 *   WO  what was there is not read; all of it is undefined until written. Only
 *       while nobody else has the object mapped. (Builds with checks overwrite
 *       it, so that reading it shows.)
 *   RW  both; what is written is there for all who map it later.
 * Drivers of this tree keep an object contiguous, so no mode copies anything;
 * one that does not may leave out the copy in (WO) or out (RO). Writers, see
 * "Moving": either the object is not movable, or move() asks zpool_pinned().
 */
enum zpool_mode { ZPOOL_RO, ZPOOL_WO, ZPOOL_RW };

/* Flags of an allocation. */
#define ZPOOL_EPHEMERAL 1u /* may be evicted before anything that is not; a hint */

struct zpool; /* a driver's instance; first member is its ops pointer */

struct zpool_ops {
	const char *type; /* "zsmalloc", "zbud" */
	int (*create)(struct frames *f, const struct zpool_owner *owner, void *ctx,
		      struct zpool **out);
	void (*destroy)(struct zpool *zp);
	int (*malloc)(struct zpool *zp, size_t size, unsigned flags, zpool_handle *out);
	void (*free)(struct zpool *zp, zpool_handle h);
	void *(*map)(struct zpool *zp, zpool_handle h, enum zpool_mode mode);
	void (*unmap)(struct zpool *zp, zpool_handle h);
	void (*set_movable)(struct zpool *zp, zpool_handle h, bool movable);
	void *(*peek)(struct zpool *zp, zpool_handle h);
	bool (*pinned)(struct zpool *zp, zpool_handle h);
	uint64_t (*compact)(struct zpool *zp, uint64_t frames);
	uint64_t (*shrink)(struct zpool *zp, uint64_t pages); /* the owner has evict() */
	void (*stats)(struct zpool *zp, struct zpool_stats *st);
	int (*verify)(struct zpool *zp);
	size_t max_size;
	/* Frame bytes that an object of this size costs where frames are full; NULL: see below. */
	size_t (*slot_bytes)(struct zpool *zp, size_t size);
};

struct zpool {
	const struct zpool_ops *ops;
	const struct zpool_owner *owner; /* or NULL: nothing moves, nothing is evicted */
	void *ctx;			 /* the owner's, given to its functions */
};

/* ---- the registry of drivers (zpool.c): one a process ------------------------------------ */

/*
 * Make a driver known by its type, 1 to 31 characters of a-z, 0-9, '_' and
 * '-'. ops stays the caller's and must outlive the registration. 0; -EEXIST,
 * -EINVAL (name, or a function is missing), -ENOMEM (the table is full).
 */
int zpool_register(const struct zpool_ops *ops) __attribute__((warn_unused_result));
/* -EBUSY while pools use it (nothing is changed); -ENOENT. A module is unloaded. */
int zpool_unregister(const char *type) __attribute__((warn_unused_result));
/*
 * Driver by name. One that is not registered is looked for in the directory of
 * modules (os_module_dir()) as tmem-zpool-NAME.so, loaded and registered: that may
 * block on the file system. NULL when there is none; the reason why a module
 * that is there cannot be used is logged.
 */
const struct zpool_ops *zpool_find(const char *type);
/* The names that are registered now, "a, b", into buf; cut off at len. Returns buf. */
char *zpool_names(char *buf, size_t len);

/*
 * A module exports one of these as `tmem_zpool_module`. It links what it needs
 * of src/os and src/alloc itself; libtmem's own are not exported.
 */
struct zpool_module {
	uint32_t abi; /* ZPOOL_MODULE_ABI: that of this header */
	const struct zpool_ops *ops;
};
#define ZPOOL_MODULE_ABI 1u

/* ---- pools --------------------------------------------------------------------------------- */

/*
 * Create by driver name. owner may be NULL (nothing ever moves). 0; -ENOENT
 * for an unknown name (zpool_names() says which there are; there is no
 * fallback to another), -ENOMEM. The driver cannot be unregistered until the
 * pool is destroyed.
 */
int zpool_create(const char *type, struct frames *f, const struct zpool_owner *owner, void *ctx,
		 struct zpool **out) __attribute__((warn_unused_result));
/* All objects must be free. NULL is allowed. */
void zpool_destroy(struct zpool *zp);
/* The driver's name. Static. */
static inline const char *zpool_type(const struct zpool *zp)
{
	return zp->ops->type;
}
/*
 * Room for size bytes, 1..max_size; contents undefined, not movable, not
 * mapped. 0; -ENOMEM when the frame source refuses and no partly filled frame
 * of the class has room; -EINVAL for a bad size. Takes the class lock.
 */
static inline int zpool_malloc(struct zpool *zp, size_t size, zpool_handle *out)
{
	return zp->ops->malloc(zp, size, 0, out);
}
/* The same with flags (ZPOOL_EPHEMERAL). */
static inline int zpool_malloc_flags(struct zpool *zp, size_t size, unsigned flags,
				     zpool_handle *out)
{
	return zp->ops->malloc(zp, size, flags, out);
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
static inline void *zpool_map_mode(struct zpool *zp, zpool_handle h, enum zpool_mode mode)
{
	return zp->ops->map(zp, h, mode);
}
/* Shorthand for a mapping that does not overwrite: RO, or RW where the owner minds the pins. */
static inline void *zpool_map(struct zpool *zp, zpool_handle h)
{
	return zp->ops->map(zp, h, ZPOOL_RO);
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
/*
 * Evict the oldest objects until `pages` frames went back to the OS, or
 * everything that is there now was tried once. *reclaimed: frames that did,
 * which may be more (a driver frees whole runs) or fewer than asked for. An
 * object that a reader still has pinned keeps its frames for now: they go with
 * his unpin and are not counted.
 * 0, also with *reclaimed = 0; -EOPNOTSUPP: the owner has no evict(), nothing
 * was done. Several threads may shrink at once. Takes and drops class locks;
 * blocks as evict() does.
 */
int zpool_shrink(struct zpool *zp, uint64_t pages, uint64_t *reclaimed)
	__attribute__((warn_unused_result));
/*
 * What an object of `size` bytes costs in frames, its share of what is lost at
 * their ends included. Drivers that do not say: size in chunks of 64 bytes.
 */
static inline size_t zpool_slot_bytes(struct zpool *zp, size_t size)
{
	return zp->ops->slot_bytes ? zp->ops->slot_bytes(zp, size) : (size + 63) / 64 * 64;
}
/* Total over everything the driver holds. Takes class locks one after the other. */
static inline void zpool_stats(struct zpool *zp, struct zpool_stats *st)
{
	zp->ops->stats(zp, st);
}
/* Bytes of frames and metadata; frames. As dear as zpool_stats(). */
uint64_t zpool_total_bytes(struct zpool *zp);
uint64_t zpool_total_pages(struct zpool *zp);
/* Walks everything; takes each class lock. 0 or -EINVAL. */
static inline int zpool_verify(struct zpool *zp)
{
	return zp->ops->verify(zp);
}

#endif
