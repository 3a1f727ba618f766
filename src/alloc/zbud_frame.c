/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames of zbud: numbers, descriptors, queues and lists.
 *
 *   numbers below `next`:   free list <--release-- resident --> queue (objects)
 *                               |                     ^    \--> spare (empty)
 *                               +------- grow --------+
 *
 * The frames of a pool that grows are made resident in batches, one call each,
 * of 1/128 of what it holds and at most 16: those not used yet are spare. Frames
 * that come empty become spare until there is a batch of them; then half of it
 * goes back, neighbours with one call. So an object that is freed and allocated
 * in turn does not call the OS, and a get that removes pays for its frame what a
 * put does: what taking a page out costs beside reading it, where a frame holds
 * two, went from 1.2 us to 0.5. What is evicted or
 * compacted goes back at once, spare frames first.
 *
 * Descriptors lie outside of the frames: choosing partners, ageing and walking
 * then touch 32 bytes a frame in a dense table and not the frame itself, and
 * all 64 chunks are left for objects. Numbers that are free are chained
 * through their descriptors.
 *
 * Locking: the pool's lock, never held over a call to the OS. A frame on its
 * way to or from the OS is ZBUD_FREE and in nobody's list.
 *
 * Failure: a refused charge or populate leaves everything as it was, but for
 * numbers that were taken fresh: they go to the free list, their descriptors
 * stay charged.
 */
#include "alloc/zbud_internal.h"

#include <errno.h>

int zbud_frames_create(struct zbud_pool *p)
{
	for (size_t bytes = ZBUD_REGION_MAX; bytes >= ZBUD_REGION_MIN; bytes /= 2) {
		p->max = (uint32_t)(bytes >> OS_FRAME_SHIFT);
		p->object_bytes = bytes;
		p->desc_bytes = (size_t)p->max * sizeof(struct zbud_frame);
		p->base = os_reserve(p->object_bytes);
		p->desc = p->base ? os_reserve(p->desc_bytes) : NULL;
		if (p->desc) {
			p->next = 1;
			return 0;
		}
		os_unreserve(p->base, p->object_bytes);
		p->base = NULL;
	}
	return -ENOMEM;
}

void zbud_frames_destroy(struct zbud_pool *p)
{
	os_unreserve(p->desc, p->desc_bytes);
	os_unreserve(p->base, p->object_bytes);
	frames_uncharge(p->frames, p->meta_bytes + (p->resident << OS_FRAME_SHIFT));
}

/* ---- rings ----------------------------------------------------------------------------- */

void zbud_ring_add(struct zbud_pool *p, uint32_t *head, uint32_t id, enum zbud_ring r)
{
	struct zbud_frame *f = &p->desc[id];

	if (*head) {
		uint32_t last = p->desc[*head].link[r].prev;

		f->link[r].next = *head;
		f->link[r].prev = last;
		p->desc[last].link[r].next = id;
		p->desc[*head].link[r].prev = id;
	} else {
		f->link[r].next = f->link[r].prev = id;
		*head = id;
	}
}

void zbud_ring_del(struct zbud_pool *p, uint32_t *head, uint32_t id, enum zbud_ring r)
{
	uint32_t next = p->desc[id].link[r].next, prev = p->desc[id].link[r].prev;

	if (next == id) {
		tmem_assert(I2, *head == id);
		*head = 0;
		return;
	}
	p->desc[next].link[r].prev = prev;
	p->desc[prev].link[r].next = next;
	if (*head == id)
		*head = next;
}

void zbud_relist(struct zbud_pool *p, uint32_t id)
{
	struct zbud_frame *f = &p->desc[id];
	unsigned room = f->where == ZBUD_QUEUED && (!f->first || !f->last)
				? (ZBUD_CHUNKS - f->first - f->last) % ZBUD_CHUNKS
				: 0;

	if (f->listed == room)
		return;
	if (f->listed) {
		uint32_t *head = &p->unbuddied[f->kind][f->listed];

		zbud_ring_del(p, head, id, ZBUD_UNBUDDIED);
		if (!*head)
			p->lists[f->kind] &= ~(1ull << f->listed);
	}
	f->listed = (uint8_t)room;
	if (room) {
		zbud_ring_add(p, &p->unbuddied[f->kind][room], id, ZBUD_UNBUDDIED);
		p->lists[f->kind] |= 1ull << room;
	}
}

void zbud_queue_add(struct zbud_pool *p, uint32_t id)
{
	struct zbud_frame *f = &p->desc[id];

	f->where = ZBUD_QUEUED;
	f->stamp = ++p->stamp;
	zbud_ring_add(p, &p->queue[f->kind], id, ZBUD_QUEUE);
	p->queued[f->kind]++;
}

void zbud_queue_del(struct zbud_pool *p, uint32_t id, enum zbud_where where)
{
	struct zbud_frame *f = &p->desc[id];

	tmem_assert(I2, f->where == ZBUD_QUEUED);
	zbud_ring_del(p, &p->queue[f->kind], id, ZBUD_QUEUE);
	p->queued[f->kind]--;
	f->where = (uint8_t)where;
	zbud_relist(p, id);
}

/* ---- frames in and out ------------------------------------------------------------------- */

static void zbud_list_push(struct zbud_pool *p, uint32_t *list, uint32_t id, enum zbud_where where)
{
	p->desc[id].where = (uint8_t)where;
	p->desc[id].link[ZBUD_QUEUE].next = *list;
	*list = id;
}

static uint32_t zbud_list_pop(struct zbud_pool *p, uint32_t *list)
{
	uint32_t id = *list;

	if (id)
		*list = p->desc[id].link[ZBUD_QUEUE].next;
	return id;
}

/* Charge descriptors for the numbers below `next`. */
static bool zbud_desc_charge(struct zbud_pool *p, uint32_t next)
{
	uint64_t need = ((uint64_t)next * sizeof(struct zbud_frame) + OS_FRAME_SIZE - 1) &
			~(uint64_t)(OS_FRAME_SIZE - 1);

	if (need <= p->meta_bytes)
		return true;
	if (!frames_charge(p->frames, need - p->meta_bytes))
		return false;
	p->meta_bytes = need;
	return true;
}

/* Up to *n consecutive numbers; the first of them, or 0. */
static uint32_t zbud_ids_take(struct zbud_pool *p, uint32_t *n)
{
	uint32_t id = zbud_list_pop(p, &p->free_ids), more = 1;

	if (id) {
		while (more < *n && p->free_ids == id + more) {
			(void)zbud_list_pop(p, &p->free_ids);
			more++;
		}
		*n = more;
		return id;
	}
	if (*n > p->max - p->next)
		*n = p->max - p->next;
	if (!*n || !zbud_desc_charge(p, p->next + *n))
		return 0;
	id = p->next;
	p->next += *n;
	return id;
}

static bool zbud_populate(struct zbud_pool *p, uint32_t id, uint32_t n)
{
	size_t bytes = (size_t)n << OS_FRAME_SHIFT;
	char *at = p->base + ((size_t)id << OS_FRAME_SHIFT);

	if (!frames_charge(p->frames, bytes))
		return false;
	if (os_frames_populate(at, bytes)) {
		/* Part of it may be there: it must not stay behind uncharged. */
		os_frames_return(at, bytes);
		frames_uncharge(p->frames, bytes);
		return false;
	}
	return true;
}

/* Frames that come or go in one call. */
static uint32_t zbud_batch(const struct zbud_pool *p)
{
	uint64_t n = p->resident / 128;

	return n < 1 ? 1 : n > ZBUD_POPULATE_MAX ? ZBUD_POPULATE_MAX : (uint32_t)n;
}

bool zbud_grow(struct zbud_pool *p)
{
	uint32_t n = zbud_batch(p), id = zbud_ids_take(p, &n), got;

	if (!id && n > 1) {
		n = 1;
		id = zbud_ids_take(p, &n);
	}
	if (!id)
		return false;
	os_mutex_unlock(&p->lock);
	got = zbud_populate(p, id, n) ? n : n > 1 && zbud_populate(p, id, 1);
	os_mutex_lock(&p->lock);
	p->resident += got;
	p->nr_spare += got;
	/* From the end, so that the lowest is used first. */
	for (uint32_t i = n; i-- > 0;)
		zbud_list_push(p, i < got ? &p->spare : &p->free_ids, id + i,
			       i < got ? ZBUD_SPARE : ZBUD_FREE);
	return got > 0;
}

uint32_t zbud_spare_use(struct zbud_pool *p, enum zbud_kind kind)
{
	uint32_t id = zbud_list_pop(p, &p->spare);

	if (id) {
		p->nr_spare--;
		p->desc[id].kind = (uint8_t)kind;
		zbud_queue_add(p, id);
	}
	return id;
}

void zbud_frame_gone(struct zbud_pool *p, uint32_t id)
{
	tmem_assert(I1, !p->desc[id].first && !p->desc[id].last);
	zbud_queue_del(p, id, ZBUD_FREE);
	p->resident--;
}

/* Up to n spare frames, to be released. */
static unsigned zbud_spares_take(struct zbud_pool *p, uint32_t *id, uint64_t n)
{
	unsigned taken = 0;

	while (p->spare && taken < n) {
		id[taken] = zbud_list_pop(p, &p->spare);
		p->desc[id[taken++]].where = ZBUD_FREE;
		p->nr_spare--;
		p->resident--;
	}
	return taken;
}

unsigned zbud_frame_empty(struct zbud_pool *p, uint32_t id, uint32_t gone[ZBUD_BATCH])
{
	uint32_t batch = zbud_batch(p);
	uint64_t over;

	tmem_assert(I1, !p->desc[id].first && !p->desc[id].last);
	zbud_queue_del(p, id, ZBUD_SPARE);
	zbud_list_push(p, &p->spare, id, ZBUD_SPARE);
	p->nr_spare++;
	if (p->nr_spare <= batch)
		return 0;
	over = p->nr_spare - (batch + 1) / 2;
	return zbud_spares_take(p, gone, over < ZBUD_BATCH ? over : ZBUD_BATCH);
}

/* So few that this is the fastest way. */
static void zbud_sort(uint32_t *id, unsigned n)
{
	for (unsigned i = 1; i < n; i++) {
		uint32_t this = id[i];
		unsigned at = i;

		for (; at && id[at - 1] > this; at--)
			id[at] = id[at - 1];
		id[at] = this;
	}
}

void zbud_release(struct zbud_pool *p, uint32_t *id, unsigned n)
{
	if (!n)
		return;
	zbud_sort(id, n);
	for (unsigned i = 0, end; i < n; i = end) {
		for (end = i + 1; end < n && id[end] == id[i] + (end - i); end++)
			;
		os_frames_return(p->base + ((size_t)id[i] << OS_FRAME_SHIFT),
				 (size_t)(end - i) << OS_FRAME_SHIFT);
	}
	frames_uncharge(p->frames, (uint64_t)n << OS_FRAME_SHIFT);
	os_mutex_lock(&p->lock);
	p->freed += n;
	/* From the end, so that the lowest is used first, and its neighbours with it. */
	for (unsigned i = n; i-- > 0;)
		zbud_list_push(p, &p->free_ids, id[i], ZBUD_FREE);
	os_mutex_unlock(&p->lock);
}

uint64_t zbud_spares_return(struct zbud_pool *p, uint64_t want)
{
	uint32_t id[ZBUD_BATCH] = {0};
	uint64_t frames = 0;
	unsigned n;

	do {
		os_mutex_lock(&p->lock);
		n = zbud_spares_take(p, id,
				     want - frames < ZBUD_BATCH ? want - frames : ZBUD_BATCH);
		os_mutex_unlock(&p->lock);
		zbud_release(p, id, n);
		frames += n;
	} while (n == ZBUD_BATCH);
	return frames;
}
