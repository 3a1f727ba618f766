/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compaction: move objects together so that frames go back to the OS.
 *
 * For each class, as long as it pays:
 *
 *   source: the emptiest zspage           destination: the fullest with a freed slot
 *   | A......A..A | --- owner->move() --> | AAAAAA.AAAA |
 *   source empty: its frames and its id go back
 *
 * It pays when the freed slots elsewhere hold everything that is left in the
 * source: then the source comes empty. Each move keeps that condition true, so
 * nothing is moved for nothing, but where objects turn out to be unmovable.
 *
 * What is left at the end is at most about one zspage with freed slots in a
 * class. With a few hundred classes that matters when the store is small, so
 * the last step *packs* it: objects move from its top into its freed slots,
 * `touched` falls to what is in use, and the frames above go back.
 *
 * Running beside readers and writers. A class lock is held for at most
 * ZS_MOVE_BATCH moves and one walk over one zspage's state words. While a
 * class is compacted, those who want its lock count themselves in `waiting`,
 * and the compactor sleeps a moment when it sees any: a mutex alone would let
 * it take the lock again before they wake.
 *
 * A zspage with objects that cannot move (pinned, dying, refused by the owner)
 * is given up for this pass and goes to the end of its ring.
 *
 * Locking: compact_lock, then one class lock at a time, then what the owner
 * takes in move(). Emptied zspages go back after the class lock is dropped.
 *
 * Failure: none. Less comes back than was asked for.
 */
#include "alloc/zs_internal.h"
#include "os/clock.h"

#define ZS_LOOK_MAX  8 /* zspages of a ring looked at */
#define ZS_PACK_MAX  4 /* zspages of a class packed */
#define ZS_POLITE_NS 20000

/* Zspages that left their class, to be released when the class lock is dropped. */
struct zs_gone {
	unsigned nr;
	struct {
		uint32_t id, frames;
	} page[ZS_MOVE_BATCH];
};

static void zs_gone_release(struct zs_pool *p, struct zs_gone *gone)
{
	for (unsigned i = 0; i < gone->nr; i++)
		zs_span_release(p, gone->page[i].id, gone->page[i].frames);
	gone->nr = 0;
}

static void zs_gone_add(struct zs_gone *gone, uint32_t id, uint32_t frames)
{
	gone->page[gone->nr].id = id;
	gone->page[gone->nr].frames = frames;
	gone->nr++;
}

static bool zs_can_move(const struct zs_pool *p)
{
	return p->zp.owner && p->zp.owner->move;
}

static bool zs_is_movable(const struct zs_pool *p, zpool_handle h)
{
	return atomic_load_explicit(zs_state(p, h), memory_order_acquire) ==
	       (ZS_ALLOCATED | ZS_MOVABLE);
}

/* A zspage of the ring of `group` that was not given up in this pass; 0 if none is near. */
static uint32_t zs_ring_pick(const struct zs_pool *p, const struct zs_class *c, unsigned group)
{
	uint32_t head = c->head[group], id = head;

	for (unsigned i = 0; head && i < ZS_LOOK_MAX; i++) {
		if (p->pages[id].pass != p->pass && p->pages[id].inuse)
			return id;
		id = p->pages[id].next;
		if (id == head)
			break;
	}
	return 0;
}

static uint32_t zs_emptiest(const struct zs_pool *p, const struct zs_class *c)
{
	uint32_t id = 0;

	for (uint32_t bits = c->partial; bits && !id; bits &= bits - 1)
		id = zs_ring_pick(p, c, (unsigned)__builtin_ctz(bits));
	return id;
}

/* What to empty next; 0 when no zspage of the class can be emptied into the others. */
static uint32_t zs_source(const struct zs_pool *p, const struct zs_class *c)
{
	uint32_t id = zs_emptiest(p, c), room = zs_ring_pick(p, c, ZS_ROOM);
	const struct zs_page *z;
	uint64_t freed;

	if (room && (!id || p->pages[room].inuse < p->pages[id].inuse))
		id = room;
	z = &p->pages[id];
	freed = c->touched_slots - c->objects - (uint64_t)(z->touched - z->inuse);
	return id && freed >= z->inuse ? id : 0;
}

/* The fullest zspage with a freed slot, other than the source. */
static uint32_t zs_destination(const struct zs_pool *p, const struct zs_class *c, uint32_t source)
{
	for (uint32_t bits = c->partial; bits;) {
		unsigned g = 31u - (unsigned)__builtin_clz(bits);
		uint32_t id = c->head[g];

		if (id != source)
			return id;
		if (p->pages[id].next != id)
			return p->pages[id].next;
		bits &= ~(1u << g);
	}
	return 0;
}

/*
 * Let the owner move one object to a freed slot of zspage `dst`. True when it
 * did; the old slot is still allocated then and nobody will map it again.
 */
static bool zs_move(struct zs_pool *p, struct zs_class *c, zpool_handle from, uint32_t dst)
{
	/* Movable from the start: once move() returns the owner may say otherwise. */
	zpool_handle to = zs_slot_reuse(p, c, dst, ZS_ALLOCATED | ZS_MOVABLE);
	uint32_t id, frames;

	if (p->zp.owner->move(p->zp.ctx, from, zs_address(p, from) + ZS_OBJECT_OVERHEAD, to,
			      zs_address(p, to) + ZS_OBJECT_OVERHEAD,
			      c->size - ZS_OBJECT_OVERHEAD)) {
		c->moved++;
		return true;
	}
	if (zs_slot_free(p, c, to, &id, &frames))
		tmem_must(!"a destination holds other objects");
	return false;
}

/* Mark a moved object's old slot; true when it can be freed at once (else the last unmap does). */
static bool zs_moved_away(struct zs_pool *p, zpool_handle from)
{
	return !(atomic_fetch_or_explicit(zs_state(p, from), ZS_DYING, memory_order_acq_rel) &
		 ZS_PINS);
}

/* Move up to a batch of objects. False when the class has nothing more to gain. */
static bool zs_compact_batch(struct zs_pool *p, struct zs_class *c, struct zs_gone *gone)
{
	uint32_t id = zs_source(p, c), slot, dst, frames, was;
	struct zs_page *z = &p->pages[id];
	unsigned tried = 0;

	if (!id)
		return false;
	slot = id == c->source ? c->source_slot : 0;
	c->source = id;
	for (; slot < z->touched && tried < ZS_MOVE_BATCH; slot++) {
		zpool_handle from = zs_handle(p, id, slot * c->units);

		if (!zs_is_movable(p, from))
			continue;
		dst = zs_destination(p, c, id);
		if (!dst)
			return false;
		tried++;
		if (!zs_move(p, c, from, dst) || !zs_moved_away(p, from))
			continue;
		if (zs_slot_free(p, c, from, &was, &frames)) {
			zs_gone_add(gone, was, frames);
			return true;
		}
		if (!z->inuse)
			return true;
	}
	c->source_slot = slot;
	if (slot >= z->touched) {
		z->pass = p->pass;
		c->source = 0;
		zs_page_defer(p, c, id);
	}
	return true;
}

/* Thread the freed slots below touched in ascending order. */
static void zs_free_list_rebuild(struct zs_pool *p, struct zs_class *c, uint32_t id)
{
	uint16_t *link = &p->pages[id].free_head;

	for (uint32_t s = 0; s < p->pages[id].touched; s++) {
		zpool_handle h = zs_handle(p, id, s * c->units);

		if (atomic_load_explicit(zs_state(p, h), memory_order_relaxed))
			continue;
		*link = (uint16_t)(s * c->units + 1);
		link = (uint16_t *)zs_address(p, h) + 1;
	}
	*link = 0;
}

/*
 * Move objects from the top of a zspage to its bottom, at most a batch, and
 * give back the frames above. True when another batch would go on.
 */
static bool zs_pack(struct zs_pool *p, struct zs_class *c, uint32_t id)
{
	struct zs_page *z = &p->pages[id];
	uint32_t top = z->touched;
	unsigned tried = 0;
	bool more = false;

	zs_free_list_rebuild(p, c, id);
	for (; top > 0; top--) {
		zpool_handle from = zs_handle(p, id, (top - 1) * c->units);

		if (!atomic_load_explicit(zs_state(p, from), memory_order_relaxed))
			continue;
		/* The lowest freed slot is the head; above the top it does not help. */
		if (!zs_can_move(p) || !z->free_head || z->free_head > (top - 1) * c->units ||
		    !zs_is_movable(p, from))
			break;
		more = tried++ == ZS_MOVE_BATCH;
		if (more || !zs_move(p, c, from, id) || !zs_moved_away(p, from))
			break;
		/* Not zs_slot_free(): the free list must stay in order. */
		atomic_store_explicit(zs_state(p, from), 0, memory_order_relaxed);
		z->inuse--;
		c->objects--;
	}
	c->touched_slots -= z->touched - top;
	z->touched = (uint16_t)top;
	zs_free_list_rebuild(p, c, id);
	zs_page_regroup(p, c, id);
	zs_page_trim(p, c, id, zs_frames_for(c, top));
	return more;
}

/* Frames of ROOM beyond what is used, and an empty zspage that was kept. */
static void zs_trim_room(struct zs_pool *p, struct zs_class *c, struct zs_gone *gone)
{
	uint32_t id = c->head[ZS_ROOM], next;

	for (unsigned i = 0; id && i < ZS_LOOK_MAX; i++, id = next) {
		next = p->pages[id].next;
		if (!p->pages[id].inuse)
			zs_gone_add(gone, id, zs_page_detach(p, c, id));
		else
			zs_page_trim(p, c, id, zs_frames_for(c, p->pages[id].touched));
		if (next == c->head[ZS_ROOM] || next == id)
			break;
	}
}

static void zs_be_polite(struct zs_class *c)
{
	if (atomic_load_explicit(&c->waiting, memory_order_relaxed))
		os_sleep_ns(ZS_POLITE_NS);
}

/* Empty zspages into others while it pays. */
static uint64_t zs_compact_moves(struct zs_pool *p, struct zs_class *c, uint64_t want)
{
	struct zs_gone gone = {0};
	uint64_t frames = 0, rounds = 16, before;
	bool more = true;

	/* Enough for all that is there now: others may make new work without end. */
	for (uint64_t i = 0; more && frames < want && i < rounds; i++) {
		os_mutex_lock(&c->lock);
		if (i == 0)
			rounds += 2 * c->zspages + 2 * c->objects / ZS_MOVE_BATCH;
		before = c->resident_frames; /* nothing here makes frames resident */
		more = zs_compact_batch(p, c, &gone);
		frames += before - c->resident_frames;
		os_mutex_unlock(&c->lock);
		zs_gone_release(p, &gone);
		zs_be_polite(c);
	}
	return frames;
}

/* Pack what is left half used. */
static uint64_t zs_compact_tails(struct zs_pool *p, struct zs_class *c)
{
	struct zs_gone gone = {0};
	unsigned packed = 0;
	uint64_t frames = 0, before;
	uint32_t id;

	do {
		os_mutex_lock(&c->lock);
		before = c->resident_frames;
		id = zs_emptiest(p, c);
		if (id && (zs_frames_for(c, p->pages[id].inuse) >= p->pages[id].frames ||
			   !zs_pack(p, c, id))) {
			p->pages[id].pass = p->pass;
			packed++;
		}
		if (!id || packed == ZS_PACK_MAX) {
			zs_trim_room(p, c, &gone);
			id = 0;
		}
		frames += before - c->resident_frames;
		os_mutex_unlock(&c->lock);
		zs_gone_release(p, &gone);
		zs_be_polite(c);
	} while (id);
	return frames;
}

static uint64_t zs_compact_class(struct zs_pool *p, struct zs_class *c, uint64_t want)
{
	uint64_t frames = 0;

	atomic_store_explicit(&c->compacting, true, memory_order_relaxed);
	if (zs_can_move(p))
		frames = zs_compact_moves(p, c, want);
	if (frames < want)
		frames += zs_compact_tails(p, c);
	atomic_store_explicit(&c->compacting, false, memory_order_relaxed);
	return frames;
}

uint64_t zs_compact(struct zpool *zp, uint64_t frames)
{
	struct zs_pool *p = zs_pool(zp);
	uint64_t got = 0;

	os_mutex_lock(&p->compact_lock);
	p->pass++;
	for (unsigned i = 0; i < p->nr_classes && got < frames; i++) {
		/* Where the last one stopped, so that all classes have their turn. */
		got += zs_compact_class(p, &p->classes[p->next_class], frames - got);
		if (got < frames)
			p->next_class = (p->next_class + 1) % p->nr_classes;
	}
	atomic_fetch_add_explicit(&p->compacted_frames, got, memory_order_relaxed);
	os_mutex_unlock(&p->compact_lock);
	return got;
}
