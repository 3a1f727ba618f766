/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Areas, and the states of their pages. See space.h.
 *
 * What is written down of a page goes when nothing can come to name it again: its chunk
 * when its last page is unmapped (I11), its area when its last chunk has gone. Entries of
 * queues that named it stay, and are dead; when there are as many of them as of others the
 * queues are swept, and the areas' numbers are used again (I12).
 */
#include "frontswap/pager/run.h"
#include "frontswap/pager/space_internal.h"

#include "os/check.h"
#include "os/mem.h"

#include <errno.h>
#include <string.h>

#define SWEEP_LEAST 4096u /* entries and areas */

struct chunk *space_chunk_create(const struct run *r, struct area *a, uint64_t i)
{
	/* Whole clusters: their last pages are looked at, too. */
	uint64_t left =
		(a->end - i * CHUNK_PAGES + TMEM_CLUSTER_MAX - 1) & -(uint64_t)TMEM_CLUSTER_MAX;
	uint32_t pages = left < CHUNK_PAGES ? (uint32_t)left : CHUNK_PAGES;
	uint32_t windows = (pages + r->opts.cluster - 1) / r->opts.cluster;
	struct chunk *c = os_zalloc(sizeof(*c) + windows * sizeof(c->window[0]) +
				    pages * (sizeof(c->place[0]) + sizeof(c->page[0])));

	if (c) {
		c->pages = pages;
		c->place = (struct place *)&c->window[windows];
		c->page = (uint8_t *)&c->place[pages];
		for (uint32_t k = 0; a->emptied && k < pages; k++)
			c->place[k].emptied = 1;
		a->live++;
	}
	return c;
}

/* I10, by the segments: most areas have one, and it is where it was. */
static uint32_t count_mapped(const struct space *sp, uint32_t area, uint64_t i)
{
	const struct area *a = &sp->areas[area];
	uint64_t left = a->mapped, n = 0;

	for (uint32_t k = 0, at = a->seg; k < sp->nsegs && left; k++, at++) {
		const struct segment *s = &sp->segs[at < sp->nsegs ? at : (at = 0)];

		if (s->area == area) {
			left -= seg_pages(s);
			n += seg_in_chunk(s, i);
		}
	}
	return (uint32_t)n;
}

struct chunk *space_chunk(struct space *sp, uint32_t area, uint64_t page, bool create)
{
	struct area *a = &sp->areas[area];
	uint64_t i = page / CHUNK_PAGES;

	if (i >= a->nchunks) {
		/* For all of a sparse terabyte that is four megabytes, of which what is
		 * not written to takes no memory. */
		uint32_t n = (uint32_t)((a->end - 1) / CHUNK_PAGES + 1);

		if (!create)
			return NULL;
		tmem_assert(area, page < a->end && !a->nchunks);
		a->chunks = os_zalloc(n * sizeof(*a->chunks));
		if (!a->chunks)
			return NULL;
		a->nchunks = n;
	}
	if (!a->chunks[i] && create) {
		a->chunks[i] = space_chunk_create(sp->run, a, i);
		if (a->chunks[i])
			a->chunks[i]->mapped = count_mapped(sp, area, i);
	}
	return a->chunks[i];
}

void space_set_page(struct chunk *c, uint64_t page, uint8_t state)
{
	uint8_t *p = &c->page[page % CHUNK_PAGES];

	c->out += (uint32_t)page_counted(state) - (uint32_t)page_counted(*p);
	c->away += (uint16_t)(page_away(state) - page_away(*p));
	*p = state;
}

void space_chunk_free(struct chunk *c)
{
	if (c)
		os_free(c->print);
	os_free(c);
}

/* An area without a segment and a chunk. Its number is used again when no entry has it. */
static void area_ended(struct space *sp, struct area *a)
{
	os_free(a->chunks);
	a->chunks = NULL;
	a->nchunks = 0;
	sp->ended_areas++;
}

/* I11 for chunk i of an area. */
static void chunk_let_go(struct space *sp, struct area *a, uint64_t i)
{
	struct chunk *c = a->chunks[i];

	if (c->mapped || c->out)
		return;
	for (uint32_t p = 0; p < c->pages; p++) {
		sp->queued_pages -= c->place[p].queued & 1;
		sp->dead_entries += c->place[p].queued != QUEUED_NOT;
	}
	space_chunk_free(c);
	a->chunks[i] = NULL;
	if (!--a->live && !a->mapped)
		area_ended(sp, a);
}

void space_slot_over(struct space *sp, uint32_t area, uint64_t page)
{
	struct chunk *c = space_chunk(sp, area, page, false);

	space_set_page(c, page, c->page[page % CHUNK_PAGES] & (uint8_t) ~(PAGE_BUSY | PAGE_KEPT));
	chunk_let_go(sp, &sp->areas[area], page / CHUNK_PAGES);
}

static bool entry_alive(void *space, uint64_t v)
{
	return space_chunk(space, entry_area(v), entry_page(v), false);
}

/*
 * The queues are rid of entries that are dead, and so areas that have ended may be used
 * again (I12). Takes as long as there are entries and areas.
 */
static void books_sweep(struct space *sp)
{
	queue_filter(&sp->probation, entry_alive, sp);
	queue_filter(&sp->main, entry_alive, sp);
	sp->dead_entries = 0;
	for (uint32_t i = 0; i < sp->nareas && sp->ended_areas; i++) {
		struct area *a = &sp->areas[i];

		if (a->free || a->mapped || a->live)
			continue;
		a->free = true;
		a->seg = sp->free_area;
		sp->free_area = i + 1;
		sp->ended_areas--;
	}
}

int64_t space_area_number(struct space *sp)
{
	if (!sp->free_area && sp->nareas == AREAS_MAX)
		books_sweep(sp);
	if (sp->free_area)
		return sp->free_area - 1;
	if (sp->nareas == AREAS_MAX)
		return -ENOMEM;
	if (sp->nareas == sp->areas_size) {
		uint32_t size = sp->areas_size ? sp->areas_size * 2 : 64;
		struct area *areas = os_zalloc(size * sizeof(*areas));

		if (!areas)
			return -ENOMEM;
		if (sp->nareas)
			memcpy(areas, sp->areas, sp->nareas * sizeof(*areas));
		os_free(sp->areas);
		sp->areas = areas;
		sp->areas_size = size;
	}
	return sp->nareas;
}

void space_area_begin(struct space *sp, uint32_t area, uint64_t first, uint64_t end)
{
	if (area == sp->nareas)
		sp->nareas++;
	else
		sp->free_area = sp->areas[area].seg;
	sp->areas[area] = (struct area){.first = first, .end = end, .mapped = end - first};
}

void space_tidy(struct space *sp)
{
	/* Mapping a piece of memory costs as much as a look at some dozens of entries. */
	uint64_t all = (uint64_t)sp->probation.count + sp->main.count + sp->nareas;

	if (sp->dead_entries * 2 + sp->ended_areas * 64ull > all + SWEEP_LEAST)
		books_sweep(sp);
}

uint8_t *space_page(struct space *sp, uint32_t area, uint64_t page)
{
	struct chunk *c = space_chunk(sp, area, page, false);

	return c ? &c->page[page % CHUNK_PAGES] : NULL;
}

void space_oid(uint32_t area, uint64_t page, tmem_oid *oid, uint64_t *index)
{
	oid->w[0] = area;
	oid->w[1] = page >> 12;
	oid->w[2] = 0;
	*index = page & 4095;
}

uint64_t space_address(struct space *sp, uint32_t area, uint64_t page)
{
	struct area *a = &sp->areas[area];

	/* Mappings come and go seldom, and most areas are one: it is where it was. */
	for (uint32_t i = 0, at = a->seg; i < sp->nsegs; i++, at++) {
		const struct segment *s = &sp->segs[at < sp->nsegs ? at : (at = 0)];

		if (s->area == area && page >= s->page && page < s->page + seg_pages(s)) {
			a->seg = at;
			return s->start + (page - s->page) * AGENT_PAGE;
		}
	}
	return 0;
}

void space_mark_resident(struct space *sp, const struct segment *seg, uint64_t addr, uint64_t n,
			 enum arrival how)
{
	uint64_t page = seg->page + (addr - seg->start) / AGENT_PAGE;
	bool early = how == ARRIVAL_FOUND && space_removed_early(sp, addr, addr + n * AGENT_PAGE);
	bool emptied = early || (how == ARRIVAL_FOUND && space_frees(sp));

	sp->arrivals += (uint32_t)n;
	sp->areas[seg->area].seg = (uint32_t)(seg - sp->segs);
	for (uint64_t end = page + n; page < end; page++) {
		struct chunk *c = space_chunk(sp, seg->area, page, true);
		struct place *at;

		if (!c) /* no memory for its state: it stays resident, unmanaged */
			continue;
		at = &c->place[page % CHUNK_PAGES];
		space_set_page(c, page,
			       (uint8_t)((c->page[page % CHUNK_PAGES] &
					  ~(PAGE_STATE | PAGE_REMOVED | PAGE_ZERO)) |
					 PAGE_RESIDENT | (early ? PAGE_REMOVED : 0))); /* I5 */
		at->emptied |= emptied;						       /* I9 */
		if (how != ARRIVAL_STORED)
			at->with = WITH_UNKNOWN;
		if (at->queued == QUEUED || at->queued == QUEUED_AGAIN)
			continue;
		if (how == ARRIVAL_FOUND || (how == ARRIVAL_STORED && at->stamp &&
					     sp->evict_clock - at->stamp <= sp->queued_pages))
			at->main = !(sp->run->opts.without & MAIN_QUEUE);
		/* Found when its mapping has been idle: old. */
		at->stamp = how == ARRIVAL_FOUND && sp->run->opts.automatic ? sp->cold.old
									    : sp->arrivals;
		space_enqueue(sp, at, seg->area, page);
	}
}

void space_back_from_slot(struct space *sp, const struct segment *seg, uint64_t page,
			  struct slot *sl)
{
	struct chunk *c = space_chunk(sp, seg->area, page, false);

	sl->dropped |= 1u << (page - sl->first);
	space_mark_resident(sp, seg, seg->start + (page - seg->page) * AGENT_PAGE, 1,
			    ARRIVAL_STORED);
	space_set_page(c, page, c->page[page % CHUNK_PAGES] | PAGE_BUSY);
}

void space_mark_zero(struct space *sp, const struct segment *seg, uint64_t addr, uint64_t n)
{
	uint64_t page = seg->page + (addr - seg->start) / AGENT_PAGE;

	for (uint64_t end = page + n; page < end; page++) {
		uint8_t *p = space_page(sp, seg->area, page);

		if (p)
			*p |= PAGE_ZERO;
	}
}
void space_enqueue(struct space *sp, struct place *at, uint32_t area, uint64_t page)
{
	uint64_t v = entry_of(area, page);

	if (at->queued == QUEUED_STALE)
		at->queued = QUEUED_AGAIN;
	else if (queue_push(at->main ? &sp->main : &sp->probation, v))
		at->queued = QUEUED;
	else
		return;
	sp->queued_pages++;
}
/* Pages [page, page + n) of an area lost their contents. */
static void drop_states(struct space *sp, uint32_t area, uint64_t page, uint64_t n, bool unmapped)
{
	uint64_t end = page + n;

	while (page < end) {
		struct chunk *c = space_chunk(sp, area, page, false);
		uint64_t stop = (page / CHUNK_PAGES + 1) * CHUNK_PAGES;
		uint64_t first = page;

		if (stop > end)
			stop = end;
		if (!c) {
			sp->areas[area].emptied |= !unmapped;
			if (page / CHUNK_PAGES >= sp->areas[area].nchunks)
				return;
			page = stop;
			continue;
		}
		if (c->out) {
			uint64_t index;
			tmem_oid oid;

			space_oid(area, first, &oid, &index);
			tmem_invalidate_range(sp->run->client, sp->pool, &oid, index, stop - first);
		}
		for (; page < stop; page++) {
			uint8_t *p = &c->page[page % CHUNK_PAGES];

			c->place[page % CHUNK_PAGES].emptied |= !unmapped;
			switch (*p & PAGE_STATE) {
			case PAGE_OUT:
				space_set_page(c, page, PAGE_ABSENT);
				break;
			case PAGE_TRANSIT: /* its slot is still to come: drop it then */
				for (unsigned i = 0; i < AGENT_SLOTS; i++) {
					struct slot *sl = &sp->slots[i];

					if (atomic_load(&sl->state) != SLOT_FREE &&
					    sl->area == area && page >= sl->first &&
					    page < sl->first + sl->pages)
						sl->dropped |= 1u << (page - sl->first);
				}
				space_set_page(c, page,
					       PAGE_ABSENT | PAGE_BUSY |
						       (unmapped ? 0 : PAGE_REMOVED));
				break;
			case PAGE_RESIDENT:
				/* Not zapped yet, perhaps: see I5. */
				space_set_page(c, page,
					       unmapped ? *p & PAGE_BUSY
							: (*p & (PAGE_STATE | PAGE_BUSY)) |
								  PAGE_REMOVED);
				break;
			default:
				break;
			}
		}
		tmem_assert(I7, c->out <= c->pages);
		if (unmapped) {
			c->mapped -= (uint32_t)(stop - first);
			chunk_let_go(sp, &sp->areas[area], first / CHUNK_PAGES);
		}
	}
}

void space_drop_pages(struct space *sp, uint32_t area, uint64_t page, uint64_t n, bool unmapped)
{
	struct area *a = &sp->areas[area];

	drop_states(sp, area, page, n, unmapped);
	if (!unmapped)
		return;
	a->mapped -= n;
	if (!a->mapped && !a->live)
		area_ended(sp, a);
}
