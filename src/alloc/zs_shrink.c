/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shrinking zsmalloc: evict the objects of the oldest zspages until enough
 * frames went back.
 *
 * What is known of age. A zspage has a number, `born`, in the order in which
 * zspages were begun; nothing is kept for an object. Slots that were freed and
 * used again hold objects younger than their zspage. So the oldest zspage is
 * where the oldest objects are most likely, no more; and a zspage holds up to
 * 64 frames of objects, all of which have to go for its frames to come back
 * (measured in zbud.h). A host that knows the age of its pages evicts by that
 * and compacts; this is for owners without queues of their own.
 *
 * Of each ring of zspages the last few are looked at: the ring of full ones is
 * in the order in which they became full, so its end is what has been left alone
 * for longest.
 *
 *   pick      class locks one after the other: the least `born`
 *   isolate   class lock: into the ring EVICTING, which nobody allocates from
 *   pin       class lock: a batch of its movable objects       (in use -> zombie)
 *   evict     no lock: owner->evict(), then unpin              (zombie -> dying -> gone)
 *   release   class lock: empty? out of the class, its frames go back. Else it
 *             joins its group again, as the youngest: it is not tried twice
 *
 * While a zspage is isolated its freed slots cannot be filled by compaction,
 * which may then move a few objects without emptying their zspage.
 *
 * Locking: one class lock at a time, none during evict(). Several threads may
 * shrink: a zspage that is isolated is in no ring that others look at.
 *
 * Failure: none. Less comes back than was asked for.
 */
#include "alloc/zs_internal.h"

#define ZS_AGE_LOOK    2 /* zspages of a ring looked at */
#define ZS_EVICT_BATCH 32

struct zs_batch {
	unsigned n;
	zpool_handle h[ZS_EVICT_BATCH];
};

/* The zspage born first, and before `limit`; 0 if there is none. The class is locked. */
static uint32_t zs_oldest(const struct zs_pool *p, const struct zs_class *c, uint64_t limit)
{
	uint32_t best = 0;

	for (unsigned g = 0; g <= ZS_FULL; g++) {
		/* Of a ring the last is the one before the head. */
		uint32_t last = c->head[g] ? p->pages[c->head[g]].prev : 0, id = last;

		for (unsigned i = 0; id && i < ZS_AGE_LOOK; i++) {
			const struct zs_page *z = &p->pages[id];

			if (z->inuse && z->born < limit) {
				best = id;
				limit = z->born;
			}
			id = z->prev;
			if (id == last)
				break;
		}
	}
	return best;
}

/* The class with the oldest zspage of all born before `limit`; NULL: there is none. */
static struct zs_class *zs_oldest_class(struct zs_pool *p, uint64_t limit)
{
	struct zs_class *best = NULL;

	for (unsigned i = 0; i < p->nr_classes; i++) {
		struct zs_class *c = &p->classes[i];
		uint32_t id;

		zs_class_lock(c);
		id = zs_oldest(p, c, limit);
		if (id) {
			best = c;
			limit = p->pages[id].born;
		}
		zs_class_unlock(c);
	}
	return best;
}

/* Choose and isolate. 0: nothing born before `limit` was seen. */
static uint32_t zs_victim(struct zs_pool *p, uint64_t limit, struct zs_class **class)
{
	struct zs_class *c;
	uint32_t id = 0;

	while (!id && (c = zs_oldest_class(p, limit)) != NULL) {
		zs_class_lock(c);
		/* Others may have been here meanwhile: its oldest now, if it has one. */
		id = zs_oldest(p, c, limit);
		if (id)
			zs_page_isolate(p, c, id);
		zs_class_unlock(c);
		*class = c;
	}
	return id;
}

/*
 * Pin an object if the owner can find it. By compare and swap, not by an add
 * that is looked at afterwards: its owner may free it at this moment, and when
 * he saw no pins he is on his way to free it; a pin that came after that would,
 * given back, free it again.
 */
static bool zs_pin(struct zs_pool *p, zpool_handle h)
{
	const unsigned in_use = ZS_ALLOCATED | ZS_MOVABLE;
	uint16_t state = atomic_load_explicit(zs_state(p, h), memory_order_relaxed);

	do {
		if ((state & (in_use | ZS_DYING)) != in_use || (state & ZS_PINS) >= ZPOOL_PINS_MAX)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(zs_state(p, h), &state,
							(uint16_t)(state + 1), memory_order_acquire,
							memory_order_relaxed));
	return true;
}

/* Pin objects from *slot on, at most a batch. False when the end was reached. */
static bool zs_pin_batch(struct zs_pool *p, struct zs_class *c, uint32_t id, uint32_t *slot,
			 struct zs_batch *b)
{
	struct zs_page *z = &p->pages[id];
	bool more;

	b->n = 0;
	zs_class_lock(c);
	for (; *slot < z->touched && b->n < ZS_EVICT_BATCH; ++*slot) {
		b->h[b->n] = zs_handle(p, id, *slot * c->units);
		b->n += zs_pin(p, b->h[b->n]);
	}
	more = *slot < z->touched;
	zs_class_unlock(c);
	return more;
}

static void zs_evict_batch(struct zs_pool *p, const struct zs_class *c, const struct zs_batch *b)
{
	for (unsigned i = 0; i < b->n; i++) {
		char *ptr = zs_address(p, b->h[i]) + ZS_OBJECT_OVERHEAD;
		bool gone =
			p->zp.owner->evict(p->zp.ctx, b->h[i], ptr, c->size - ZS_OBJECT_OVERHEAD);

		atomic_fetch_add_explicit(gone ? &p->evicted : &p->evict_refused, 1,
					  memory_order_relaxed);
		zpool_unmap(&p->zp, b->h[i]);
	}
}

/* Evict what is in an isolated zspage. Frames that went back. */
static uint32_t zs_evict_page(struct zs_pool *p, struct zs_class *c, uint32_t id)
{
	struct zs_page *z = &p->pages[id];
	uint32_t slot = 0, frames = 0;
	struct zs_batch batch;
	bool more;

	do {
		more = zs_pin_batch(p, c, id, &slot, &batch);
		zs_evict_batch(p, c, &batch);
	} while (more);
	zs_class_lock(c);
	if (z->inuse == 0) {
		frames = zs_page_detach(p, c, id);
	} else {
		z->born = atomic_fetch_add_explicit(&p->births, 1, memory_order_relaxed);
		zs_page_rejoin(p, c, id);
	}
	zs_class_unlock(c);
	if (frames)
		zs_span_release(p, id, frames);
	return frames;
}

uint64_t zs_shrink(struct zpool *zp, uint64_t pages)
{
	struct zs_pool *p = zs_pool(zp);
	uint64_t limit = atomic_load_explicit(&p->births, memory_order_relaxed), got = 0;
	struct zs_class *c;
	uint32_t id;

	while (got < pages && (id = zs_victim(p, limit, &c)) != 0)
		got += zs_evict_page(p, c, id);
	atomic_fetch_add_explicit(&p->shrunk_frames, got, memory_order_relaxed);
	return got;
}
