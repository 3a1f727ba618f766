/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eviction: the oldest frames go back, each for at most two objects. The
 * protocol is at the top of zbud.c.
 *
 * Spare frames go first, they cost nothing; then ephemeral frames, oldest
 * first; then persistent ones. A frame whose objects the owner does not give
 * up, or a reader has pinned, or nobody can find yet (not movable), becomes the
 * youngest: its second chance. Frames younger than the shrink itself are not
 * looked at, so each is tried once and shrink ends.
 *
 * Locking: the pool's lock to choose and to finish; none during evict().
 */
#include "alloc/zbud_internal.h"

struct zbud_victim {
	uint32_t id;
	unsigned n;
	zpool_handle h[2];
	size_t size[2];
};

/*
 * Pin an object if the owner can find it. By compare and swap, not by an add
 * that is looked at afterwards: its owner may free it at this moment, and when
 * he saw no pins he is on his way to free it; a pin that came after that would,
 * given back, free it again.
 */
static void zbud_pin(struct zbud_pool *p, struct zbud_victim *v, unsigned chunk, unsigned chunks)
{
	zpool_handle h = zbud_handle(v->id, chunk);
	uint16_t state = atomic_load_explicit(zbud_state(p, h), memory_order_relaxed);

	do {
		if ((state & (ZBUD_IN_USE | ZBUD_DYING)) != ZBUD_IN_USE ||
		    (state & ZBUD_PINS) >= ZPOOL_PINS_MAX)
			return;
	} while (!atomic_compare_exchange_weak_explicit(zbud_state(p, h), &state,
							(uint16_t)(state + 1), memory_order_acquire,
							memory_order_relaxed));
	v->h[v->n] = h;
	v->size[v->n++] = zbud_capacity(chunks);
}

/* Take the oldest frame of a kind out of everybody's reach. False: none is older than limit. */
static bool zbud_victim(struct zbud_pool *p, enum zbud_kind kind, uint64_t limit,
			struct zbud_victim *v)
{
	struct zbud_frame *f;

	v->n = 0;
	os_mutex_lock(&p->lock);
	v->id = p->queue[kind];
	f = &p->desc[v->id];
	if (v->id && f->stamp <= limit) {
		zbud_queue_del(p, v->id, ZBUD_EVICTING);
		p->nr_evicting++;
		if (f->first)
			zbud_pin(p, v, 0, f->first);
		if (f->last)
			zbud_pin(p, v, ZBUD_CHUNKS - f->last, f->last);
	} else {
		v->id = 0;
	}
	os_mutex_unlock(&p->lock);
	return v->id != 0;
}

static void zbud_evict_objects(struct zbud_pool *p, const struct zbud_victim *v, unsigned *gone,
			       unsigned *refused)
{
	for (unsigned i = 0; i < v->n; i++) {
		bool ok =
			p->zp.owner->evict(p->zp.ctx, v->h[i], zbud_bytes(p, v->h[i]), v->size[i]);

		++*(ok ? gone : refused);
		zpool_unmap(&p->zp, v->h[i]);
	}
}

/* True when the frame goes back to the OS. */
static bool zbud_evict_frame(struct zbud_pool *p, struct zbud_victim *v)
{
	struct zbud_frame *f = &p->desc[v->id];
	unsigned evicted = 0, refused = 0;
	bool empty;

	zbud_evict_objects(p, v, &evicted, &refused);
	os_mutex_lock(&p->lock);
	p->evicted += evicted;
	p->evict_refused += refused;
	p->nr_evicting--;
	empty = !f->first && !f->last;
	if (empty) {
		f->where = ZBUD_FREE;
		p->resident--;
	} else {
		zbud_queue_add(p, v->id);
		zbud_relist(p, v->id);
	}
	os_mutex_unlock(&p->lock);
	if (empty)
		zbud_release(p, &v->id, 1);
	return empty;
}

uint64_t zbud_shrink(struct zpool *zp, uint64_t pages)
{
	static const enum zbud_kind order[] = {ZBUD_EPHEMERAL, ZBUD_PERSISTENT};
	struct zbud_pool *p = zbud_pool(zp);
	struct zbud_victim v;
	uint64_t limit, got;

	os_mutex_lock(&p->lock);
	limit = p->stamp;
	os_mutex_unlock(&p->lock);
	got = zbud_spares_return(p, pages);
	for (unsigned i = 0; i < ZBUD_KINDS; i++)
		while (got < pages && zbud_victim(p, order[i], limit, &v))
			got += zbud_evict_frame(p, &v);
	os_mutex_lock(&p->lock);
	p->shrunk += got;
	os_mutex_unlock(&p->lock);
	return got;
}
