/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * zsmalloc: the dense zpool driver.
 *
 * What it is. Objects of one size class lie in *zspages*, runs of 1 to 64
 * frames that are contiguous in virtual addresses. A handle is the object's
 * place in one reservation of address space, counted in units of 16 bytes:
 *
 *   handle 37 bits | zspage | unit in its span |     address = base + handle * 16
 *
 *   slot: | state 16 bits | the owner's bytes ... | up to 14 bytes of rounding
 *
 *   class 0  {lock, groups}     zspages     | AAAA.AA~~ |
 *   class 1  {lock, groups} --> in rings -> | AAAAAAAAA |  32-byte descriptor each,
 *   ...                         by fullness | A..A.AAAA |  found by id
 *
 * Why this design.
 *  - Address arithmetic instead of a table: map and unmap touch the object's
 *    own state word and nothing else. A table of zspages or of objects would
 *    cost a second cache miss and 4 to 8 bytes an object.
 *  - Contiguity: an object is always one range of bytes, so mapping never
 *    copies, and a zspage may be as long as packs best (zs_class.c).
 *  - Two bytes an object, against 16 for a handle slot and a back pointer. The
 *    back pointer that compaction needs is the owner's: what names the object
 *    is in the owner's bytes, and owner->move() finds it.
 *  - Frames become resident as slots are first used, from the bottom up, so
 *    the tail of a zspage that is not full costs nothing.
 *  - The free list is in the freed slots, LIFO: the slot that is still in the
 *    cache is the first to be used again.
 *
 * The state word decides, by one atomic operation each, who frees an object:
 *
 *   bit 15 ALLOCATED  14 MOVABLE  13 DYING  12..0 pins
 *
 *   map      old = add 1          pins was at ZPOOL_PINS_MAX: undo, NULL
 *   free     old = or DYING       pins of old = 0: this call frees it
 *   unmap    old = subtract 1     old = DYING, 1 pin: this call frees it
 *
 * After DYING is set nobody maps the object any more (the owner's promise), so
 * pins only fall, and exactly one of these calls sees the last transition.
 *
 * Compaction (zs_compact.c) moves objects with the class lock held; the owner
 * takes its own lock in move(), and pins may still be taken until it has it.
 * A reader who pinned the old place in that window keeps it: the old slot is
 * then marked DYING like any other freed object and lives until unmapped. An
 * owner that writes to mapped objects asks zpool_pinned() under its lock in
 * move(), when no new pin can come, and refuses.
 *
 * Invariants: those of zs_page.c, zs_span.c and zs_class.c, and
 *   I7  pins <= ZPOOL_PINS_MAX + threads inside a map that will fail
 *   I8  bytes charged = resident frames * 4096 + meta bytes of both regions
 *       + sizeof(struct zs_pool) + the classes
 *
 * Locking: class locks (OS_RANK_ZS_CLASS, one at a time) guard zspages and
 * slots; region locks (OS_RANK_SPAN) guard ids and nest inside; compact_lock
 * (OS_RANK_ZS_POOL) serialises compactions and is outside. map, peek and
 * set_movable take none; unmap takes the class lock only to free.
 *
 * Failure: a refused charge makes malloc return -ENOMEM with nothing changed.
 * Nothing else fails.
 */
#include "alloc/zs_internal.h"

#include <errno.h>
#include <string.h>

static int zs_create(struct frames *f, const struct zpool_owner *owner, void *ctx,
		     struct zpool **out)
{
	size_t bytes = sizeof(struct zs_pool) + ZS_CLASSES_MAX * sizeof(struct zs_class);
	struct zs_pool *p;
	int ret = -ENOMEM;

	*out = NULL;
	if (!frames_charge(f, bytes))
		return -ENOMEM;
	p = os_zalloc_aligned(bytes);
	if (!p)
		goto uncharge;
	p->zp.ops = &zsmalloc_ops;
	p->frames = f;
	p->zp.owner = owner;
	p->zp.ctx = ctx;
	p->nr_classes = zs_classes_plan(p->classes, p->class_of);
	ret = zs_spans_create(p);
	if (ret)
		goto free_pool;
	for (unsigned i = 0; i < p->nr_classes; i++)
		os_mutex_init(&p->classes[i].lock, OS_RANK_ZS_CLASS, "zs class");
	os_mutex_init(&p->compact_lock, OS_RANK_ZS_POOL, "zs compaction");
	*out = &p->zp;
	return 0;
free_pool:
	os_free(p);
uncharge:
	frames_uncharge(f, bytes);
	return ret;
}

static void zs_destroy(struct zpool *zp)
{
	struct zs_pool *p = zs_pool(zp);
	struct frames *f = p->frames;
	uint64_t resident = 0;

	for (unsigned i = 0; i < p->nr_classes; i++) {
		tmem_assert(I1, p->classes[i].objects == 0);
		resident += p->classes[i].resident_frames;
		os_mutex_destroy(&p->classes[i].lock);
	}
	os_mutex_destroy(&p->compact_lock);
	zs_spans_destroy(p);
	frames_uncharge(f, (resident << OS_FRAME_SHIFT) + sizeof(*p) +
				   ZS_CLASSES_MAX * sizeof(struct zs_class));
	os_free(p);
}

/* In the strictest check level: walk the class now and then. */
static void zs_sample_verify(struct zs_pool *p, struct zs_class *c)
{
#if TMEM_CHECKS >= 2
	if (c->objects % 256 == 0)
		tmem_must(zs_verify_class(p, c) == 0);
#else
	(void)p;
	(void)c;
#endif
}

static int zs_malloc(struct zpool *zp, size_t size, unsigned flags, zpool_handle *out)
{
	struct zs_pool *p = zs_pool(zp);
	struct zs_class *c;
	zpool_handle h;

	(void)flags; /* objects of one size lie together, whatever they are */
	*out = 0;
	if (tmem_unlikely(size == 0 || size > ZS_MAX_SIZE))
		return -EINVAL;
	c = &p->classes[p->class_of[(size + ZS_OBJECT_OVERHEAD + ZS_UNIT - 1) >> ZS_UNIT_SHIFT]];
	zs_class_lock(c);
	h = zs_slot_alloc(p, c);
	zs_sample_verify(p, c);
	zs_class_unlock(c);
	*out = h;
	return h ? 0 : -ENOMEM;
}

/* The object is DYING and unpinned, and this thread is the one that frees it. */
static void zs_free_now(struct zs_pool *p, zpool_handle h)
{
	/* An allocated object's zspage cannot change its class. */
	struct zs_class *c = &p->classes[p->pages[zs_id(p, h)].cls - 1];
	uint32_t id, frames;
	bool gone;

	zs_class_lock(c);
	gone = zs_slot_free(p, c, h, &id, &frames);
	zs_sample_verify(p, c);
	zs_class_unlock(c);
	if (gone)
		zs_span_release(p, id, frames);
}

static void zs_free(struct zpool *zp, zpool_handle h)
{
	struct zs_pool *p = zs_pool(zp);
	unsigned old = atomic_fetch_or_explicit(zs_state(p, h), ZS_DYING, memory_order_acq_rel);

	tmem_assert(I5, (old & (ZS_ALLOCATED | ZS_DYING)) == ZS_ALLOCATED);
	if (!(old & ZS_PINS))
		zs_free_now(p, h);
}

static void zs_unmap(struct zpool *zp, zpool_handle h)
{
	struct zs_pool *p = zs_pool(zp);
	unsigned old = atomic_fetch_sub_explicit(zs_state(p, h), 1, memory_order_acq_rel);

	tmem_assert(I7, (old & ZS_ALLOCATED) && (old & ZS_PINS));
	if ((old & (ZS_DYING | ZS_PINS)) == (ZS_DYING | 1))
		zs_free_now(p, h);
}

/* What a mapping for writing alone must not read: so that reading it shows. */
static void zs_scribble(struct zs_pool *p, zpool_handle h)
{
#if TMEM_CHECKS >= 1
	const struct zs_class *c = &p->classes[p->pages[zs_id(p, h)].cls - 1];

	memset(zs_address(p, h) + ZS_OBJECT_OVERHEAD, 0xa5, c->size - ZS_OBJECT_OVERHEAD);
#else
	(void)p;
	(void)h;
#endif
}

static void *zs_map(struct zpool *zp, zpool_handle h, enum zpool_mode mode)
{
	struct zs_pool *p = zs_pool(zp);
	unsigned old = atomic_fetch_add_explicit(zs_state(p, h), 1, memory_order_acquire);

	tmem_assert(I5, old & ZS_ALLOCATED);
	if (tmem_unlikely((old & ZS_PINS) >= ZPOOL_PINS_MAX)) {
		/* Should the others have gone meanwhile, this may be the last unpin. */
		zs_unmap(zp, h);
		return NULL;
	}
	if (mode == ZPOOL_WO) {
		tmem_assert(mode, (old & ZS_PINS) == 0);
		zs_scribble(p, h);
	}
	return zs_address(p, h) + ZS_OBJECT_OVERHEAD;
}

static void *zs_peek(struct zpool *zp, zpool_handle h)
{
	return zs_address(zs_pool(zp), h) + ZS_OBJECT_OVERHEAD;
}

static bool zs_pinned(struct zpool *zp, zpool_handle h)
{
	return atomic_load_explicit(zs_state(zs_pool(zp), h), memory_order_acquire) & ZS_PINS;
}

static void zs_set_movable(struct zpool *zp, zpool_handle h, bool movable)
{
	_Atomic uint16_t *state = zs_state(zs_pool(zp), h);

	/* Release: the object's bytes are complete before compaction may copy them. */
	if (movable)
		atomic_fetch_or_explicit(state, ZS_MOVABLE, memory_order_release);
	else
		atomic_fetch_and_explicit(state, (uint16_t)~ZS_MOVABLE, memory_order_release);
}

static size_t zs_slot_bytes(struct zpool *zp, size_t size)
{
	const struct zs_pool *p = zs_pool(zp);
	const struct zs_class *c;

	if (size > ZS_MAX_SIZE)
		size = ZS_MAX_SIZE;
	c = &p->classes[p->class_of[(size + ZS_OBJECT_OVERHEAD + ZS_UNIT - 1) >> ZS_UNIT_SHIFT]];
	return c->frames * OS_FRAME_SIZE / c->slots;
}

const struct zpool_ops zsmalloc_ops = {
	.type = "zsmalloc",
	.create = zs_create,
	.destroy = zs_destroy,
	.malloc = zs_malloc,
	.free = zs_free,
	.map = zs_map,
	.unmap = zs_unmap,
	.set_movable = zs_set_movable,
	.peek = zs_peek,
	.pinned = zs_pinned,
	.compact = zs_compact,
	.shrink = zs_shrink,
	.stats = zs_stats,
	.verify = zs_verify,
	.max_size = ZS_MAX_SIZE,
	.slot_bytes = zs_slot_bytes,
};
