/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether the books of an address space are true. See space.h.
 */
#include "frontswap/pager/run.h"
#include "frontswap/pager/space_internal.h"

#include <errno.h>

/* Slots that name a page and are not over; what did not move they name no longer. */
static unsigned slots_of(const struct space *sp, uint32_t area, uint64_t page)
{
	unsigned n = 0;

	for (unsigned i = 0; i < AGENT_SLOTS; i++) {
		const struct slot *sl = &sp->slots[i];

		n += atomic_load(&sl->state) != SLOT_FREE && sl->area == area &&
		     page >= sl->first && page < sl->first + sl->pages &&
		     (atomic_load(&sl->state) == SLOT_MOVING ||
		      sl->moved >> (page - sl->first) & 1);
	}
	return n;
}

static bool chunk_verify(const struct space *sp, uint32_t area, uint64_t first,
			 const struct chunk *c, uint64_t *queued)
{
	uint32_t out = 0, gone = 0;

	for (uint32_t i = 0; i < c->pages; i++) {
		uint8_t p = c->page[i];

		out += page_counted(p);
		gone += page_away(p);
		*queued += c->place[i].queued & 1;
		if ((p & PAGE_STATE) == PAGE_TRANSIT && slots_of(sp, area, first + i) != 1)
			return false; /* I2 */
		if (p & PAGE_BUSY && slots_of(sp, area, first + i) == 0)
			return false; /* I3 */
	}
	return out == c->out && gone == c->away && (c->mapped || c->out); /* I7, I8, I11 */
}

/* What segments name of areas and chunks is taken off their counts; or, with -1, put back. */
static void take_mapped(struct space *sp, int32_t sign)
{
	for (uint32_t k = 0; k < sp->nsegs; k++) {
		const struct segment *s = &sp->segs[k];
		struct area *a = &sp->areas[s->area];

		a->mapped -= (uint64_t)sign * seg_pages(s);
		for (uint64_t i = s->page / CHUNK_PAGES;
		     i < a->nchunks && i * CHUNK_PAGES < s->page + seg_pages(s); i++)
			if (a->chunks[i])
				a->chunks[i]->mapped -=
					(uint32_t)sign * (uint32_t)seg_in_chunk(s, i);
	}
}

static bool mapped_verify(struct space *sp)
{
	bool right = true;

	take_mapped(sp, 1);
	for (uint32_t a = 0; a < sp->nareas; a++) {
		right &= !sp->areas[a].mapped;
		for (uint32_t i = 0; i < sp->areas[a].nchunks; i++)
			right &= !sp->areas[a].chunks[i] || !sp->areas[a].chunks[i]->mapped;
	}
	take_mapped(sp, -1);
	return right;
}

/* Dead entries of a queue; or UINT64_MAX where I12, or one of its own, does not hold. */
static uint64_t count_dead(struct space *sp, const struct queue *q)
{
	uint64_t dead = 0;

	if (queue_verify(q) < 0)
		return UINT64_MAX;
	for (const struct queue_block *b = q->first; b; b = b->next) {
		for (uint32_t i = b->head; i < b->end; i++) {
			uint32_t area = entry_area(b->at[i]);

			if (area >= sp->nareas || sp->areas[area].free)
				return UINT64_MAX;
			dead += !space_chunk(sp, area, entry_page(b->at[i]), false);
		}
	}
	return dead;
}

int space_verify(struct space *sp)
{
	uint64_t queued = 0, dead, more;
	uint32_t ended = 0;

	for (uint32_t i = 0; i < sp->nsegs; i++)
		if (sp->segs[i].start >= sp->segs[i].end ||
		    (i && sp->segs[i].start < sp->segs[i - 1].end))
			return -EINVAL;
	for (uint32_t a = 0; a < sp->nareas; a++) {
		const struct area *area = &sp->areas[a];
		uint32_t live = 0;

		for (uint32_t i = 0; i < area->nchunks; i++) {
			live += area->chunks[i] != NULL;
			if (area->chunks[i] && !chunk_verify(sp, a, (uint64_t)i * CHUNK_PAGES,
							     area->chunks[i], &queued))
				return -EINVAL;
		}
		if (live != area->live || (area->free && (live || area->mapped)))
			return -EINVAL; /* I12 */
		ended += !live && !area->mapped && !area->free;
	}
	dead = count_dead(sp, &sp->probation);
	more = count_dead(sp, &sp->main);
	return mapped_verify(sp) && dead != UINT64_MAX && more != UINT64_MAX &&
			       dead + more == sp->dead_entries && queued == sp->queued_pages &&
			       ended == sp->ended_areas
		       ? 0
		       : -EINVAL;
}
