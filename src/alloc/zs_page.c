/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Zspages of a class: groups, slots, growth. All under the class lock.
 *
 *        inuse              touched                 slots
 *   |AAAA.AA.AAAA..AAAAAAAAAA|~~~~~~~~~~~~~~~~~~~~~~~|
 *   |      frames resident       |   not resident    |
 *      A allocated   . freed: on the free list   ~ never used
 *
 * An allocation takes, in this order,
 *   1. a freed slot of the fullest zspage that has one: no new frame, and the
 *      emptiest zspages are left alone to come empty;
 *   2. the next unused slot of a zspage in ROOM that is resident already;
 *   3. the same after making more of it resident;
 *   4. the first slot of a new zspage.
 * Only 3 and 4 charge the account. A class begins a new zspage only when ROOM
 * is empty, so ROOM seldom holds more than one, and when memory is refused in
 * 3 the few in ROOM are searched for a resident slot: a put succeeds as long
 * as any frame of the class has room.
 *
 * Frames come in chunks, one call each, of 1/128 of what the class holds and
 * at most 16: what is resident but not yet used stays under 1 % of a class,
 * and a large class pays a sixteenth of a call a frame.
 *
 * Of the zspages that come empty one is kept, and only while ROOM is empty, so
 * that an object freed and allocated in turn does not call the OS; it keeps
 * the frames of one slot or one chunk.
 *
 * Invariants, by zspage z of class c
 *   I1  objects = sum of z.inuse; touched_slots = sum of z.touched
 *   I2  z.inuse + length of free list = z.touched <= slots
 *   I3  z is in the ring of its group:
 *         inuse < touched           inuse * 16 / slots
 *         inuse = touched < slots   ROOM
 *         inuse = touched = slots   FULL
 *       or in EVICTING while shrink has it; then inuse may be 0
 *   I4  z.frames * 4096 >= z.touched * size; resident_frames = sum of z.frames
 *   I5  the state word of a freed slot is 0, of any other below touched it
 *       has ALLOCATED
 *   I6  bit g of partial = ring g is not empty, for g < 16
 */
#include "alloc/zs_internal.h"

void zs_page_link(struct zs_pool *p, struct zs_class *c, uint32_t id, unsigned group)
{
	struct zs_page *z = &p->pages[id];
	uint32_t head = c->head[group];

	z->group = (uint8_t)group;
	if (head) {
		struct zs_page *h = &p->pages[head];

		z->next = head;
		z->prev = h->prev;
		p->pages[h->prev].next = id;
		h->prev = id;
	} else {
		z->next = z->prev = id;
		if (group < ZS_PARTIAL_GROUPS)
			c->partial |= 1u << group;
	}
	c->head[group] = id;
}

void zs_page_unlink(struct zs_pool *p, struct zs_class *c, uint32_t id)
{
	struct zs_page *z = &p->pages[id];
	unsigned group = z->group;

	if (z->next == id) {
		c->head[group] = 0;
		if (group < ZS_PARTIAL_GROUPS)
			c->partial &= ~(1u << group);
		return;
	}
	p->pages[z->next].prev = z->prev;
	p->pages[z->prev].next = z->next;
	if (c->head[group] == id)
		c->head[group] = z->next;
}

void zs_page_defer(struct zs_pool *p, struct zs_class *c, uint32_t id)
{
	struct zs_page *z = &p->pages[id];
	unsigned group = z->group;

	/* In a ring the last is the one before the head. */
	zs_page_unlink(p, c, id);
	zs_page_link(p, c, id, group);
	c->head[group] = z->next;
}

static unsigned zs_page_group(const struct zs_class *c, const struct zs_page *z)
{
	if (z->inuse != z->touched)
		return z->inuse * c->group_mul >> 16;
	return z->touched == c->slots ? ZS_FULL : ZS_ROOM;
}

void zs_page_regroup(struct zs_pool *p, struct zs_class *c, uint32_t id)
{
	unsigned group = zs_page_group(c, &p->pages[id]);

	if (group == p->pages[id].group || p->pages[id].group == ZS_EVICTING)
		return;
	zs_page_unlink(p, c, id);
	zs_page_link(p, c, id, group);
}

void zs_page_isolate(struct zs_pool *p, struct zs_class *c, uint32_t id)
{
	tmem_assert(I3, p->pages[id].group != ZS_EVICTING);
	zs_page_unlink(p, c, id);
	zs_page_link(p, c, id, ZS_EVICTING);
}

void zs_page_rejoin(struct zs_pool *p, struct zs_class *c, uint32_t id)
{
	tmem_assert(I3, p->pages[id].group == ZS_EVICTING);
	zs_page_unlink(p, c, id);
	zs_page_link(p, c, id, zs_page_group(c, &p->pages[id]));
}

uint32_t zs_page_trim(struct zs_pool *p, struct zs_class *c, uint32_t id, uint32_t keep)
{
	struct zs_page *z = &p->pages[id];
	uint32_t gone = z->frames > keep ? z->frames - keep : 0;

	if (gone) {
		tmem_assert(I4, keep >= zs_frames_for(c, z->touched));
		zs_span_return(p, id, keep, z->frames);
		z->frames = (uint16_t)keep;
		c->resident_frames -= gone;
	}
	return gone;
}

uint32_t zs_page_detach(struct zs_pool *p, struct zs_class *c, uint32_t id)
{
	struct zs_page *z = &p->pages[id];

	tmem_assert(I1, z->inuse == 0);
	zs_page_unlink(p, c, id);
	c->touched_slots -= z->touched;
	c->resident_frames -= z->frames;
	c->zspages--;
	z->cls = 0;
	return z->frames;
}

static uint32_t zs_chunk(const struct zs_class *c)
{
	uint64_t chunk = c->resident_frames / 128;

	return chunk < 1 ? 1 : chunk > ZS_POPULATE_MAX ? ZS_POPULATE_MAX : (uint32_t)chunk;
}

/* Make the slot at touched resident: a whole chunk, or if that is refused just the slot. */
static bool zs_page_grow(struct zs_pool *p, struct zs_class *c, uint32_t id)
{
	struct zs_page *z = &p->pages[id];
	uint32_t need = zs_frames_for(c, z->touched + 1u);
	uint32_t want = z->frames + zs_chunk(c);

	if (want > c->frames)
		want = c->frames;
	if (want < need)
		want = need;
	if (!zs_span_populate(p, id, z->frames, want)) {
		if (want == need || !zs_span_populate(p, id, z->frames, need))
			return false;
		want = need;
	}
	c->resident_frames += want - z->frames;
	z->frames = (uint16_t)want;
	return true;
}

static bool zs_page_has_room(const struct zs_class *c, const struct zs_page *z)
{
	return (uint32_t)(z->touched + 1) * c->size <= (uint32_t)z->frames << OS_FRAME_SHIFT;
}

static uint32_t zs_page_new(struct zs_pool *p, struct zs_class *c)
{
	uint32_t id = zs_span_alloc(p, c->large);
	struct zs_page *z = &p->pages[id];

	if (!id)
		return 0;
	*z = (struct zs_page){
		.cls = (uint16_t)(c->number + 1),
		.born = atomic_fetch_add_explicit(&p->births, 1, memory_order_relaxed),
	};
	if (!zs_page_grow(p, c, id)) {
		zs_span_release(p, id, 0);
		return 0;
	}
	c->zspages++;
	zs_page_link(p, c, id, ZS_ROOM);
	return id;
}

/* A zspage in ROOM whose next slot is resident; makes it so. 0 when memory is refused. */
static uint32_t zs_page_with_room(struct zs_pool *p, struct zs_class *c)
{
	uint32_t head = c->head[ZS_ROOM], id = head;

	if (!head)
		return zs_page_new(p, c);
	if (zs_page_has_room(c, &p->pages[head]) || zs_page_grow(p, c, head))
		return head;
	while ((id = p->pages[id].next) != head)
		if (zs_page_has_room(c, &p->pages[id]))
			return id;
	return 0;
}

zpool_handle zs_slot_reuse(struct zs_pool *p, struct zs_class *c, uint32_t id, unsigned state)
{
	struct zs_page *z = &p->pages[id];
	zpool_handle h = zs_handle(p, id, z->free_head - 1u);

	tmem_assert(I2, z->free_head && z->inuse < z->touched);
	tmem_assert(I5, atomic_load_explicit(zs_state(p, h), memory_order_relaxed) == 0);
	z->free_head = ((const uint16_t *)zs_address(p, h))[1];
	z->inuse++;
	c->objects++;
	atomic_store_explicit(zs_state(p, h), (uint16_t)state, memory_order_relaxed);
	zs_page_regroup(p, c, id);
	return h;
}

zpool_handle zs_slot_alloc(struct zs_pool *p, struct zs_class *c)
{
	struct zs_page *z;
	zpool_handle h;
	uint32_t id;

	if (c->partial)
		return zs_slot_reuse(p, c, c->head[31 - __builtin_clz(c->partial)], ZS_ALLOCATED);
	id = zs_page_with_room(p, c);
	if (!id)
		return 0;
	z = &p->pages[id];
	h = zs_handle(p, id, z->touched * c->units);
	z->touched++;
	z->inuse++;
	c->touched_slots++;
	c->objects++;
	atomic_store_explicit(zs_state(p, h), ZS_ALLOCATED, memory_order_relaxed);
	if (z->touched == c->slots)
		zs_page_regroup(p, c, id);
	return h;
}

/* The last object has gone. True when the zspage left the class. */
static bool zs_page_empty(struct zs_pool *p, struct zs_class *c, uint32_t id, uint32_t *frames)
{
	struct zs_page *z = &p->pages[id];
	uint32_t keep = zs_frames_for(c, 1), chunk = zs_chunk(c);

	if (c->head[ZS_ROOM] && (z->group != ZS_ROOM || z->next != id)) {
		*frames = zs_page_detach(p, c, id);
		return true;
	}
	c->touched_slots -= z->touched;
	z->touched = 0;
	z->free_head = 0;
	zs_page_regroup(p, c, id);
	zs_page_trim(p, c, id, keep > chunk ? keep : chunk);
	return false;
}

bool zs_slot_free(struct zs_pool *p, struct zs_class *c, zpool_handle h, uint32_t *id,
		  uint32_t *frames)
{
	struct zs_page *z;

	*id = zs_id(p, h);
	z = &p->pages[*id];
	tmem_assert(I2, z->cls == c->number + 1u && z->inuse > 0);
	tmem_assert(I3, (h - zs_handle(p, *id, 0)) % c->units == 0);
	((uint16_t *)zs_address(p, h))[1] = z->free_head;
	atomic_store_explicit(zs_state(p, h), 0, memory_order_relaxed);
	z->free_head = (uint16_t)(h - zs_handle(p, *id, 0) + 1);
	z->inuse--;
	c->objects--;
	if (z->inuse == 0 && z->group != ZS_EVICTING)
		return zs_page_empty(p, c, *id, frames);
	zs_page_regroup(p, c, *id);
	return false;
}
