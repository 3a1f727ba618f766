/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * zbud: the zpool driver with predictable reclaim.
 *
 * What it is. A frame holds at most two objects ("buddies"), the first from
 * its start, the last to its end, in chunks of 64 bytes:
 *
 *   frame   |state|first object ...  |   free chunks   |state| ... last object|
 *           chunk 0                                                    chunk 63
 *
 *   queue[persistent]  oldest frame - ... - youngest frame    one ring each, by age
 *   queue[ephemeral]   oldest frame - ... - youngest frame
 *   unbuddied[kind][f] frames with one object and f free chunks
 *
 *   handle 44 bits | frame number | chunk 6 |       address = base + handle * 64
 *
 * An object goes to the fullest frame of its kind that still has room for it:
 * the lowest bit of lists[kind] that is not below its chunks. Only frames of
 * one object are on those lists, so that is all there is to placement.
 *
 * Age. A frame is as old as its youngest object: taking one in makes it the
 * youngest of its queue. Nothing else moves it but second chances. Shrink takes
 * the ephemeral frames first, then the persistent ones, each from the old end;
 * how full a frame is plays no part. (The first zbud of the field chose the
 * emptiest: that evicts what was just put, for a frame is emptiest then.)
 * Ephemeral and persistent objects never share a frame: evicting the one would
 * evict the other.
 *
 * Why this design.
 *  - Two objects a frame is what makes eviction cheap and certain: one frame
 *    for at most two objects, whatever their sizes. The price is density; the
 *    figures are in zbud.h.
 *  - Descriptors outside the frames (zbud_frame.c): queues and lists are walked
 *    without touching what they list.
 *  - The state word of an object lies in front of its bytes, as zsmalloc's, so
 *    that a get touches no other line of the allocator's.
 *  - One lock. The field's zbud had a lock for its lists and one for each frame,
 *    and two deadlocks from taking them in different orders. Here what the frame
 *    lock guarded is divided: the counts of a frame are under the list lock, its
 *    bytes under pins, which are atomic and never wait. The order "list, then
 *    frame" then holds everywhere by having no second member. What is done under
 *    the lock is a few links; memory is fetched and returned outside of it.
 *
 * The protocol of in use, zombie and dying objects (T11). An object's state
 * word decides, by one atomic operation each, who frees it:
 *
 *   bit 15 ALLOCATED  14 MOVABLE  13 DYING  12..0 pins
 *
 *   map      old = add 1          pins was at ZPOOL_PINS_MAX: undo, NULL
 *   free     old = or DYING       pins of old = 0: this call frees it
 *   unmap    old = subtract 1     old = DYING, 1 pin: this call frees it
 *
 *   in use   ALLOCATED, not DYING: the owner names it
 *   zombie   in use, its frame EVICTING, pinned by shrink, lock dropped: the
 *            owner still names it and readers still find it, but it can no
 *            longer go: no other object takes its place while evict() asks
 *   dying    DYING: nobody names it any more, whoever pinned it reads on
 *
 *   top-down (owner)                        bottom-up (shrink)
 *     owner's lock                            lock: oldest frame -> EVICTING,
 *     find handle, map         [pin]                in-use objects pinned; unlock
 *     unlock                                  evict(): owner's lock, does anything
 *     ...                                       name h? unlink; unlock; free: DYING
 *     unmap                    [unpin]        unmap: the last unpin frees
 *                                             lock: empty -> frame goes back
 *                                                   else  -> youngest; unlock
 *
 * The two never wait for each other with a lock held, so there is no order
 * between zbud's lock and the owner's on this path. Who frees a dying object is
 * decided by its state word alone. A frame that is EVICTING belongs to that one
 * shrink: objects in it may go, none may come, and when it comes empty nobody
 * else returns it.
 *
 * Compaction (zbud_compact.c) merges unbuddied frames, with the lock held, in
 * zpool.h's protocol for moving.
 *
 * Invariants, by frame f
 *   I1  first + last <= 64; both 0 exactly if f is free or spare, or EVICTING
 *   I2  where = QUEUED: f is in the ring queue[kind], whose stamps ascend
 *   I3  listed = free chunks if QUEUED with one object and a free chunk, else 0;
 *       f is in the ring unbuddied[kind][listed]; bit of lists[kind] set exactly
 *       for rings that are not empty
 *   I4  resident = queued[0] + queued[1] + nr_spare + nr_evicting
 *   I5  the state word of each object has ALLOCATED; objects and chunks are
 *       their sums
 *   I6  bytes charged = resident * 4096 + meta_bytes + sizeof(pool)
 *       + frames on their way
 *   I7  pins <= ZPOOL_PINS_MAX + threads inside a map that will fail
 *
 * Locking: the pool's lock (OS_RANK_ZBUD). map, peek and set_movable take none;
 * unmap takes it only to free. Inside it only the owner's, in move().
 *
 * Failure: a refused charge makes malloc return -ENOMEM with nothing changed,
 * and only when no frame of the kind has room. Nothing else fails.
 */
#include "alloc/zbud_internal.h"

#include <errno.h>
#include <string.h>

static int zbud_create(struct frames *f, const struct zpool_owner *owner, void *ctx,
		       struct zpool **out)
{
	struct zbud_pool *p;
	int ret = -ENOMEM;

	*out = NULL;
	if (!frames_charge(f, sizeof(*p)))
		return -ENOMEM;
	p = os_zalloc_aligned(sizeof(*p));
	if (!p)
		goto uncharge;
	p->zp.ops = &zbud_ops;
	p->zp.owner = owner;
	p->zp.ctx = ctx;
	p->frames = f;
	ret = zbud_frames_create(p);
	if (ret)
		goto free_pool;
	os_mutex_init(&p->lock, OS_RANK_ZBUD, "zbud");
	*out = &p->zp;
	return 0;
free_pool:
	os_free(p);
uncharge:
	frames_uncharge(f, sizeof(*p));
	return ret;
}

static void zbud_destroy(struct zpool *zp)
{
	struct zbud_pool *p = zbud_pool(zp);
	struct frames *f = p->frames;

	tmem_assert(I5, p->objects == 0);
	zbud_frames_destroy(p);
	os_mutex_destroy(&p->lock);
	os_free(p);
	frames_uncharge(f, sizeof(*p));
}

/* In the strictest check level: walk everything now and then. */
static void zbud_sample_verify(struct zbud_pool *p)
{
#if TMEM_CHECKS >= 2
	if ((p->objects + p->stamp) % 256 == 0)
		tmem_must(zbud_verify_locked(p) == 0);
#else
	(void)p;
#endif
}

zpool_handle zbud_take(struct zbud_pool *p, uint32_t id, unsigned chunks, unsigned state)
{
	struct zbud_frame *f = &p->desc[id];
	unsigned chunk = f->first ? ZBUD_CHUNKS - chunks : 0;
	zpool_handle h = zbud_handle(id, chunk);

	tmem_assert(I1, f->first + f->last + chunks <= ZBUD_CHUNKS && (!f->first || !f->last));
	*zbud_side(f, chunk) = (uint8_t)chunks;
	p->objects++;
	p->chunks += chunks;
	p->huge += chunks >= ZBUD_HUGE_CHUNKS;
	atomic_store_explicit(zbud_state(p, h), (uint16_t)state, memory_order_relaxed);
	zbud_relist(p, id);
	return h;
}

void zbud_clear(struct zbud_pool *p, zpool_handle h)
{
	uint32_t id = zbud_frame_of(h);
	uint8_t *side = zbud_side(&p->desc[id], zbud_chunk_of(h));

	tmem_assert(I5, *side && p->objects);
	p->objects--;
	p->chunks -= *side;
	p->huge -= *side >= ZBUD_HUGE_CHUNKS;
	*side = 0;
	atomic_store_explicit(zbud_state(p, h), 0, memory_order_relaxed);
}

/* Room in the fullest frame that has it, else in a spare one; 0 when there is neither. */
static zpool_handle zbud_place(struct zbud_pool *p, enum zbud_kind kind, unsigned chunks)
{
	uint64_t fit = chunks < ZBUD_CHUNKS ? p->lists[kind] >> chunks << chunks : 0;
	uint32_t id;

	if (fit) {
		/* The head: of those that are as full, the one that has waited longest. */
		id = p->unbuddied[kind][__builtin_ctzll(fit)];
		zbud_ring_del(p, &p->queue[kind], id, ZBUD_QUEUE);
		p->queued[kind]--;
		zbud_queue_add(p, id);
	} else {
		id = zbud_spare_use(p, kind);
	}
	return id ? zbud_take(p, id, chunks, ZBUD_ALLOCATED) : 0;
}

static int zbud_malloc(struct zpool *zp, size_t size, unsigned flags, zpool_handle *out)
{
	enum zbud_kind kind = flags & ZPOOL_EPHEMERAL ? ZBUD_EPHEMERAL : ZBUD_PERSISTENT;
	struct zbud_pool *p = zbud_pool(zp);
	unsigned chunks;
	zpool_handle h;

	*out = 0;
	if (tmem_unlikely(size == 0 || size > ZBUD_MAX_SIZE))
		return -EINVAL;
	chunks = (unsigned)(size + ZBUD_OBJECT_HEAD + ZBUD_CHUNK - 1) >> ZBUD_CHUNK_SHIFT;
	os_mutex_lock(&p->lock);
	while (!(h = zbud_place(p, kind, chunks)) && zbud_grow(p))
		;
	/* The lock was dropped meanwhile: somebody may have made room. */
	if (tmem_unlikely(!h))
		h = zbud_place(p, kind, chunks);
	zbud_sample_verify(p);
	os_mutex_unlock(&p->lock);
	*out = h;
	return h ? 0 : -ENOMEM;
}

/* The object is DYING and unpinned, and this thread is the one that frees it. */
static void zbud_free_now(struct zbud_pool *p, zpool_handle h)
{
	uint32_t id = zbud_frame_of(h);
	struct zbud_frame *f = &p->desc[id];
	uint32_t gone[ZBUD_BATCH];
	unsigned n = 0;

	os_mutex_lock(&p->lock);
	zbud_clear(p, h);
	if (f->where == ZBUD_QUEUED) {
		if (f->first || f->last)
			zbud_relist(p, id);
		else
			n = zbud_frame_empty(p, id, gone);
	}
	zbud_sample_verify(p);
	os_mutex_unlock(&p->lock);
	zbud_release(p, gone, n);
}

static void zbud_free(struct zpool *zp, zpool_handle h)
{
	struct zbud_pool *p = zbud_pool(zp);
	unsigned old = atomic_fetch_or_explicit(zbud_state(p, h), ZBUD_DYING, memory_order_acq_rel);

	tmem_assert(I5, (old & (ZBUD_ALLOCATED | ZBUD_DYING)) == ZBUD_ALLOCATED);
	if (!(old & ZBUD_PINS))
		zbud_free_now(p, h);
}

static void zbud_unmap(struct zpool *zp, zpool_handle h)
{
	struct zbud_pool *p = zbud_pool(zp);
	unsigned old = atomic_fetch_sub_explicit(zbud_state(p, h), 1, memory_order_acq_rel);

	tmem_assert(I7, (old & ZBUD_ALLOCATED) && (old & ZBUD_PINS));
	if ((old & (ZBUD_DYING | ZBUD_PINS)) == (ZBUD_DYING | 1))
		zbud_free_now(p, h);
}

/* What a mapping for writing alone must not read: so that reading it shows. */
static void zbud_scribble(struct zbud_pool *p, zpool_handle h)
{
#if TMEM_CHECKS >= 1
	unsigned chunks = *zbud_side(&p->desc[zbud_frame_of(h)], zbud_chunk_of(h));

	memset(zbud_bytes(p, h), 0xa5, zbud_capacity(chunks));
#else
	(void)p;
	(void)h;
#endif
}

static void *zbud_map(struct zpool *zp, zpool_handle h, enum zpool_mode mode)
{
	struct zbud_pool *p = zbud_pool(zp);
	unsigned old = atomic_fetch_add_explicit(zbud_state(p, h), 1, memory_order_acquire);

	tmem_assert(I5, old & ZBUD_ALLOCATED);
	if (tmem_unlikely((old & ZBUD_PINS) >= ZPOOL_PINS_MAX)) {
		/* Should the others have gone meanwhile, this may be the last unpin. */
		zbud_unmap(zp, h);
		return NULL;
	}
	if (mode == ZPOOL_WO) {
		tmem_assert(mode, (old & ZBUD_PINS) == 0);
		zbud_scribble(p, h);
	}
	return zbud_bytes(p, h);
}

static void *zbud_peek(struct zpool *zp, zpool_handle h)
{
	return zbud_bytes(zbud_pool(zp), h);
}

static bool zbud_pinned(struct zpool *zp, zpool_handle h)
{
	return atomic_load_explicit(zbud_state(zbud_pool(zp), h), memory_order_acquire) & ZBUD_PINS;
}

static void zbud_set_movable(struct zpool *zp, zpool_handle h, bool movable)
{
	_Atomic uint16_t *state = zbud_state(zbud_pool(zp), h);

	/* Release: the object's bytes are complete before they may be copied or evicted. */
	if (movable)
		atomic_fetch_or_explicit(state, ZBUD_MOVABLE, memory_order_release);
	else
		atomic_fetch_and_explicit(state, (uint16_t)~ZBUD_MOVABLE, memory_order_release);
}

const struct zpool_ops zbud_ops = {
	.type = "zbud",
	.create = zbud_create,
	.destroy = zbud_destroy,
	.malloc = zbud_malloc,
	.free = zbud_free,
	.map = zbud_map,
	.unmap = zbud_unmap,
	.set_movable = zbud_set_movable,
	.peek = zbud_peek,
	.pinned = zbud_pinned,
	.compact = zbud_compact,
	.shrink = zbud_shrink,
	.stats = zbud_stats,
	.verify = zbud_verify,
	.max_size = ZBUD_MAX_SIZE,
};
