/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compaction: merge frames that hold one object each.
 *
 *   a: | AAAA            |      | BBBBBB     AAAA |   a's frame goes back
 *   b: | BBBBBB          |  ->
 *
 * `a` is of the emptiest unbuddied frames, `b` the fullest that has room for
 * a's object: the rule of placement, applied again after objects have gone.
 * The object of the older of the two moves into the younger frame, so that no
 * frame gets an age that none of its objects has, and queues stay in order:
 * what is moved lives as long as its new buddy, like anything that was placed.
 * Each merge frees one frame.
 *
 * Afterwards spare frames go back.
 *
 * Frames whose object cannot move (pinned, dying, refused by the owner), or
 * for which there is no partner, are given up for this pass.
 *
 * Locking: the pool's lock for a batch of ZBUD_BATCH merges, and inside it what
 * the owner takes in move(). Frames go back after it is dropped.
 *
 * Failure: none. Less comes back than was asked for.
 */
#include "alloc/zbud_internal.h"

struct zbud_gone {
	unsigned n;
	uint32_t id[ZBUD_BATCH];
};

/* A frame with `room` free chunks that was not given up in this pass; 0 if none is near. */
static uint32_t zbud_pick(const struct zbud_pool *p, enum zbud_kind kind, unsigned room,
			  uint16_t pass)
{
	uint32_t head = p->unbuddied[kind][room], id = head;

	for (unsigned i = 0; head && i < ZBUD_LOOK_MAX; i++) {
		if (p->desc[id].pass != pass)
			return id;
		id = p->desc[id].link[ZBUD_UNBUDDIED].next;
		if (id == head)
			break;
	}
	return 0;
}

/* The fullest other frame with room for `chunks`; 0 if there is none. */
static uint32_t zbud_partner(struct zbud_pool *p, enum zbud_kind kind, unsigned chunks,
			     uint16_t pass, uint32_t other)
{
	uint16_t was = p->desc[other].pass;
	uint32_t id = 0;

	/* So that it is not found itself. */
	p->desc[other].pass = pass;
	for (uint64_t fit = p->lists[kind] >> chunks << chunks; fit && !id; fit &= fit - 1)
		id = zbud_pick(p, kind, (unsigned)__builtin_ctzll(fit), pass);
	p->desc[other].pass = was;
	return id;
}

/* Not again in this pass; out of the way of those behind it. */
static void zbud_give_up(struct zbud_pool *p, uint32_t id, uint16_t pass)
{
	struct zbud_frame *f = &p->desc[id];
	uint32_t *head = &p->unbuddied[f->kind][f->listed];

	f->pass = pass;
	if (f->listed) {
		zbud_ring_del(p, head, id, ZBUD_UNBUDDIED);
		zbud_ring_add(p, head, id, ZBUD_UNBUDDIED);
	}
}

/* Move the one object of frame `src` into frame `dst`. False: it cannot move. */
static bool zbud_move(struct zbud_pool *p, uint32_t src, uint32_t dst, uint16_t pass,
		      struct zbud_gone *gone)
{
	struct zbud_frame *f = &p->desc[src];
	unsigned chunks = f->first ? f->first : f->last;
	zpool_handle from = zbud_handle(src, f->first ? 0 : ZBUD_CHUNKS - chunks), to;

	if (atomic_load_explicit(zbud_state(p, from), memory_order_acquire) != ZBUD_IN_USE)
		return false;
	/* Movable from the start: once move() returns the owner may say otherwise. */
	to = zbud_take(p, dst, chunks, ZBUD_IN_USE);
	if (!p->zp.owner->move(p->zp.ctx, from, zbud_bytes(p, from), to, zbud_bytes(p, to),
			       zbud_capacity(chunks))) {
		zbud_clear(p, to);
		zbud_relist(p, dst);
		return false;
	}
	p->moved++;
	/* A reader who pinned the old place meanwhile keeps it, dying, until he unpins. */
	if (atomic_fetch_or_explicit(zbud_state(p, from), ZBUD_DYING, memory_order_acq_rel) &
	    ZBUD_PINS) {
		zbud_give_up(p, src, pass);
		return true;
	}
	zbud_clear(p, from);
	zbud_frame_gone(p, src);
	gone->id[gone->n++] = src;
	return true;
}

/* One merge, or one frame given up. False: there is nothing to look at any more. */
static bool zbud_merge(struct zbud_pool *p, enum zbud_kind kind, uint16_t pass,
		       struct zbud_gone *gone)
{
	uint32_t a = 0, b = 0;

	for (uint64_t lists = p->lists[kind]; lists && !a;) {
		unsigned room = 63u - (unsigned)__builtin_clzll(lists);

		a = zbud_pick(p, kind, room, pass);
		if (a)
			b = zbud_partner(p, kind, ZBUD_CHUNKS - room, pass, a);
		lists &= ~(1ull << room);
	}
	if (!a)
		return false;
	if (b && p->desc[b].stamp < p->desc[a].stamp) {
		uint32_t older = b;

		b = a;
		a = older;
	}
	if (!b || !zbud_move(p, a, b, pass, gone))
		zbud_give_up(p, a, pass);
	return true;
}

static uint64_t zbud_compact_kind(struct zbud_pool *p, enum zbud_kind kind, uint16_t pass,
				  uint64_t want)
{
	uint64_t frames = 0, rounds = 0;
	struct zbud_gone gone;
	bool more = true;

	/* Enough for all that is there now: others may make new work without end. */
	for (uint64_t i = 0; more && frames < want && i <= rounds; i++) {
		gone.n = 0;
		os_mutex_lock(&p->lock);
		if (i == 0)
			rounds = 1 + 2 * p->queued[kind] / ZBUD_BATCH;
		for (unsigned k = 0; more && k < ZBUD_BATCH && frames + gone.n < want; k++)
			more = zbud_merge(p, kind, pass, &gone);
		os_mutex_unlock(&p->lock);
		zbud_release(p, gone.id, gone.n);
		frames += gone.n;
	}
	return frames;
}

uint64_t zbud_compact(struct zpool *zp, uint64_t frames)
{
	struct zbud_pool *p = zbud_pool(zp);
	uint64_t got = 0;
	uint16_t pass;

	os_mutex_lock(&p->lock);
	pass = ++p->pass;
	os_mutex_unlock(&p->lock);
	if (p->zp.owner && p->zp.owner->move)
		for (unsigned kind = 0; kind < ZBUD_KINDS; kind++)
			got += zbud_compact_kind(p, kind, pass, frames - got);
	got += zbud_spares_return(p, frames - got);
	os_mutex_lock(&p->lock);
	p->compacted += got;
	os_mutex_unlock(&p->lock);
	return got;
}
