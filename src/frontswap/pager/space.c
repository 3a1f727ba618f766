/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is known of one address space. See run.h for states and invariants.
 * Everything here is called by the space's own pager thread.
 */
#include "frontswap/pager/run.h"

#include "os/check.h"
#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CLONE_RAISES 8u	   /* by a half each */
#define SWEEP_LEAST  4096u /* entries and areas */

/* ---- queues ------------------------------------------------------------------ */

/* A block for q's front (its entries begin at its end) or back. */
static struct queue_block *block_new(struct queue *q, uint32_t at)
{
	struct queue_block *b = q->spare ? q->spare : os_alloc(sizeof(*b));

	q->spare = NULL;
	if (b) {
		b->next = NULL;
		b->head = b->end = at;
	}
	return b;
}

bool queue_push(struct queue *q, uint64_t v)
{
	if (!q->last || q->last->end == QUEUE_BLOCK) {
		struct queue_block *b = block_new(q, 0);

		if (!b)
			return false;
		if (q->last)
			q->last->next = b;
		else
			q->first = b;
		q->last = b;
	}
	q->last->at[q->last->end++] = v;
	q->count++;
	return true;
}

bool queue_push_front(struct queue *q, uint64_t v)
{
	if (!q->first || !q->first->head) {
		struct queue_block *b = block_new(q, QUEUE_BLOCK);

		if (!b)
			return false;
		b->next = q->first;
		q->first = b;
		if (!q->last)
			q->last = b;
	}
	q->first->at[--q->first->head] = v;
	q->count++;
	return true;
}

bool queue_pop(struct queue *q, uint64_t *v)
{
	struct queue_block *b = q->first;

	if (!b)
		return false;
	*v = b->at[b->head++];
	q->count--;
	if (b->head == b->end) {
		q->first = b->next;
		if (!q->first)
			q->last = NULL;
		os_free(q->spare);
		q->spare = b;
	}
	return true;
}

static void queue_free(struct queue *q)
{
	uint64_t v;

	while (queue_pop(q, &v))
		;
	os_free(q->spare);
	q->spare = NULL;
}

/* ---- areas and pages -------------------------------------------------------------- */

static struct chunk *chunk_create(const struct run *r, struct area *a, uint64_t i)
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

static uint64_t seg_pages(const struct segment *s)
{
	return (s->end - s->start) / AGENT_PAGE;
}

/* Pages of a segment that are in chunk i of its area. */
static uint64_t in_chunk(const struct segment *s, uint64_t i)
{
	uint64_t first = i * CHUNK_PAGES, end = first + CHUNK_PAGES;

	first = s->page > first ? s->page : first;
	end = s->page + seg_pages(s) < end ? s->page + seg_pages(s) : end;
	return first < end ? end - first : 0;
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
			n += in_chunk(s, i);
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
		a->chunks[i] = chunk_create(sp->run, a, i);
		if (a->chunks[i])
			a->chunks[i]->mapped = count_mapped(sp, area, i);
	}
	return a->chunks[i];
}

static bool counted(uint8_t p)
{
	return (p & PAGE_STATE) == PAGE_OUT || (p & PAGE_STATE) == PAGE_TRANSIT ||
	       p & (PAGE_BUSY | PAGE_KEPT);
}

static int away(uint8_t p)
{
	return (p & PAGE_STATE) == PAGE_OUT || (p & PAGE_STATE) == PAGE_TRANSIT;
}

void space_set_page(struct chunk *c, uint64_t page, uint8_t state)
{
	uint8_t *p = &c->page[page % CHUNK_PAGES];

	c->out += (uint32_t)counted(state) - (uint32_t)counted(*p);
	c->away += (uint16_t)(away(state) - away(*p));
	*p = state;
}

static void chunk_free(struct chunk *c)
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
	chunk_free(c);
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

/*
 * Entries of q whose chunk is there close up; the others are left out. Only the first
 * block begins, and only the last one ends, with a gap.
 */
static void queue_sweep(struct space *sp, struct queue *q)
{
	struct queue_block *to = q->first, *b;
	uint32_t n = to ? to->head : 0;

	for (b = q->first; b; b = b->next) {
		for (uint32_t i = b->head; i < b->end; i++) {
			uint64_t v = b->at[i];

			if (!space_chunk(sp, (uint32_t)(v >> 40), v & ((1ull << 40) - 1), false)) {
				q->count--;
				continue;
			}
			if (n == QUEUE_BLOCK) { /* full: `to` is behind b, which is read */
				to = to->next;
				n = 0;
			}
			to->at[n++] = v;
		}
	}
	if (!to)
		return;
	b = q->count ? to->next : to;
	q->last = q->count ? to : NULL;
	if (q->count) {
		to->end = n;
		to->next = NULL;
	} else {
		q->first = NULL;
	}
	while (b) {
		struct queue_block *next = b->next;

		os_free(b);
		b = next;
	}
}

/*
 * The queues are rid of entries that are dead, and so areas that have ended may be used
 * again (I12). Takes as long as there are entries and areas.
 */
static void books_sweep(struct space *sp)
{
	queue_sweep(sp, &sp->probation);
	queue_sweep(sp, &sp->main);
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

/* When as much is gone as there is to be looked at; mapping a piece of memory costs as much
 * as a look at some dozens of entries. */
static void books_tidy(struct space *sp)
{
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
					 PAGE_RESIDENT));
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

bool space_guards(struct space *sp)
{
	if (sp->shm && atomic_load_explicit(&sp->shm->guards, memory_order_relaxed))
		sp->guards = true;
	return sp->guards;
}

void space_enqueue(struct space *sp, struct place *at, uint32_t area, uint64_t page)
{
	uint64_t v = (uint64_t)area << 40 | page;

	if (at->queued == QUEUED_STALE)
		at->queued = QUEUED_AGAIN;
	else if (queue_push(at->main ? &sp->main : &sp->probation, v))
		at->queued = QUEUED;
	else
		return;
	sp->queued_pages++;
}

/* ---- segments ------------------------------------------------------------------------ */

/* Index of the first segment that ends behind addr. */
static uint32_t seg_index(const struct space *sp, uint64_t addr)
{
	uint32_t lo = 0, hi = sp->nsegs;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (sp->segs[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct segment *space_find(struct space *sp, uint64_t addr)
{
	uint32_t i = seg_index(sp, addr);

	return i < sp->nsegs && sp->segs[i].start <= addr ? &sp->segs[i] : NULL;
}

bool space_any(struct space *sp, uint64_t start, uint64_t end)
{
	uint32_t i = seg_index(sp, start);

	return i < sp->nsegs && sp->segs[i].start < end;
}

struct segment *space_from(struct space *sp, uint64_t addr)
{
	uint32_t i = seg_index(sp, addr);

	return i < sp->nsegs ? &sp->segs[i] : NULL;
}

static int seg_insert(struct space *sp, const struct segment *s)
{
	uint32_t i = seg_index(sp, s->start);

	if (sp->nsegs == sp->segs_size) {
		uint32_t size = sp->segs_size ? sp->segs_size * 2 : 64;
		struct segment *segs = os_alloc(size * sizeof(*segs));

		if (!segs)
			return -ENOMEM;
		if (sp->nsegs)
			memcpy(segs, sp->segs, sp->nsegs * sizeof(*segs));
		os_free(sp->segs);
		sp->segs = segs;
		sp->segs_size = size;
	}
	memmove(&sp->segs[i + 1], &sp->segs[i], (sp->nsegs - i) * sizeof(*s));
	sp->segs[i] = *s;
	sp->nsegs++;
	return 0;
}

/* A new area's number, or a negative errno. */
static int64_t area_new(struct space *sp)
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

int space_add_segment(struct space *sp, uint64_t start, uint64_t end)
{
	struct segment s = {.start = start, .end = end};
	int64_t area = area_new(sp);

	if (area < 0)
		return (int)area;
	/* Aligned as the addresses are, so that groups do not straddle huge pages. */
	s.area = (uint32_t)area;
	s.page = start / AGENT_PAGE % TMEM_CLUSTER_MAX;
	s.settled = sp->epoch + 1;
	if (sp->careful && space_find(sp, start - 1)) /* it grows */
		s.since_ns = os_clock_ns();
	if (seg_insert(sp, &s) < 0)
		return -ENOMEM;
	if (s.area == sp->nareas)
		sp->nareas++;
	else
		sp->free_area = sp->areas[s.area].seg;
	sp->areas[s.area] = (struct area){
		.first = s.page, .end = s.page + seg_pages(&s), .mapped = seg_pages(&s)};
	return 0;
}

/* Cut so that no segment straddles addr. */
static int seg_split(struct space *sp, uint64_t addr)
{
	struct segment *s = space_find(sp, addr);
	struct segment tail;

	if (!s || s->start == addr)
		return 0;
	tail = *s;
	tail.start = addr;
	tail.page += (addr - s->start) / AGENT_PAGE;
	s->end = addr;
	return seg_insert(sp, &tail);
}

/* Pages [page, page + n) of an area lost their contents. */
static void drop_pages(struct space *sp, uint32_t area, uint64_t page, uint64_t n, bool unmapped)
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

void space_drop_range(struct space *sp, uint64_t start, uint64_t end, bool unmapped)
{
	uint32_t i;

	if (unmapped && (seg_split(sp, start) < 0 || seg_split(sp, end) < 0)) {
		pager_fail(sp, "out of memory for segments");
		return;
	}
	i = seg_index(sp, start);
	while (i < sp->nsegs && sp->segs[i].start < end) {
		struct segment *s = &sp->segs[i];
		uint64_t from = start > s->start ? start : s->start;
		uint64_t to = end < s->end ? end : s->end;

		drop_pages(sp, s->area, s->page + (from - s->start) / AGENT_PAGE,
			   (to - from) / AGENT_PAGE, unmapped);
		if (unmapped) {
			struct area *a = &sp->areas[s->area];

			a->mapped -= (to - from) / AGENT_PAGE;
			if (!a->mapped && !a->live)
				area_ended(sp, a);
			memmove(s, s + 1, (sp->nsegs - i - 1) * sizeof(*s));
			sp->nsegs--;
		} else {
			i++;
		}
	}
	if (unmapped)
		books_tidy(sp);
}

int space_remap(struct space *sp, uint64_t from, uint64_t to, uint64_t len)
{
	uint32_t i;

	/* What was at the new place is gone: by events.c there is nothing. */
	space_drop_range(sp, to, to + len, true);
	if (seg_split(sp, from) < 0 || seg_split(sp, from + len) < 0)
		return -ENOMEM;
	i = seg_index(sp, from);
	while (i < sp->nsegs && sp->segs[i].start < from + len) {
		struct segment s = sp->segs[i];

		memmove(&sp->segs[i], &sp->segs[i + 1], (sp->nsegs - i - 1) * sizeof(s));
		sp->nsegs--;
		s.start = s.start - from + to;
		s.end = s.end - from + to;
		s.settled = sp->epoch + 1;
		s.since_ns = sp->careful ? os_clock_ns() : 0;
		if (seg_insert(sp, &s) < 0)
			return -ENOMEM;
		i = seg_index(sp, from);
	}
	return 0;
}

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

		out += counted(p);
		gone += (uint32_t)away(p);
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
				a->chunks[i]->mapped -= (uint32_t)sign * (uint32_t)in_chunk(s, i);
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

/* Dead entries of a queue; or UINT64_MAX where I12 does not hold. */
static uint64_t count_dead(struct space *sp, const struct queue *q)
{
	uint64_t dead = 0;

	for (const struct queue_block *b = q->first; b; b = b->next) {
		for (uint32_t i = b->head; i < b->end; i++) {
			uint64_t page = b->at[i] & ((1ull << 40) - 1);
			uint32_t area = (uint32_t)(b->at[i] >> 40);

			if (area >= sp->nareas || sp->areas[area].free)
				return UINT64_MAX;
			dead += !space_chunk(sp, area, page, false);
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

/* ---- life -------------------------------------------------------------------------------- */

struct space *space_create(struct run *r, int uffd, tmem_pool pool)
{
	struct space *sp = os_zalloc_aligned(sizeof(*sp));

	if (!sp)
		return NULL;
	sp->run = r;
	sp->uffd = uffd;
	sp->pool = pool;
	sp->sock = sp->wake = sp->told = sp->pidfd = sp->pagemap = sp->statm = -1;
	sp->fresh_window = 1;
	sp->together = UINT8_MAX; /* until it shows */
	sp->maps_dirty = true;
	sp->buf = os_alloc(TMEM_CLUSTER_MAX * AGENT_PAGE);
	if (!sp->buf) {
		os_free(sp);
		return NULL;
	}
	return sp;
}

void space_free(struct space *sp)
{
	ages_free(atomic_exchange(&sp->cold.told, NULL));
	ages_free(sp->cold.ages);
	for (uint32_t a = 0; a < sp->nareas; a++) {
		for (uint32_t c = 0; c < sp->areas[a].nchunks; c++)
			chunk_free(sp->areas[a].chunks[c]);
		os_free(sp->areas[a].chunks);
	}
	os_free(sp->areas);
	os_free(sp->segs);
	queue_free(&sp->probation);
	queue_free(&sp->main);
	os_free(sp->pending);
	os_free(sp->expected);
	os_free(sp->deferred);
	os_free(sp->buf);
	if (sp->shm)
		munmap(sp->shm, sizeof(*sp->shm));
	if (sp->uffd >= 0)
		close(sp->uffd);
	if (sp->sock >= 0)
		close(sp->sock);
	if (sp->wake >= 0)
		close(sp->wake);
	if (sp->told >= 0)
		close(sp->told);
	if (sp->pidfd >= 0)
		close(sp->pidfd);
	if (sp->pagemap >= 0)
		close(sp->pagemap);
	if (sp->statm >= 0)
		close(sp->statm);
	os_free(sp);
}

static int copy_areas(struct space *to, const struct space *from)
{
	to->areas = os_zalloc((from->nareas + 1) * sizeof(*to->areas));
	if (!to->areas)
		return -ENOMEM;
	to->areas_size = from->nareas + 1;
	to->nareas = from->nareas;
	for (uint32_t a = 0; a < from->nareas; a++) {
		struct area *src = &from->areas[a], *dst = &to->areas[a];

		*dst = (struct area){.first = src->first,
				     .end = src->end,
				     .mapped = src->mapped,
				     .emptied = src->emptied};
		if (!src->mapped) { /* slots of the parent's, or its queues, may name it still */
			to->ended_areas++;
			continue;
		}
		if (!src->nchunks)
			continue;
		dst->chunks = os_zalloc(src->nchunks * sizeof(*dst->chunks));
		if (!dst->chunks)
			return -ENOMEM;
		dst->nchunks = src->nchunks;
		for (uint32_t i = 0; i < src->nchunks; i++) {
			struct chunk *c;

			if (!src->chunks[i] || !src->chunks[i]->mapped)
				continue;
			c = dst->chunks[i] = chunk_create(to->run, dst, i);
			if (!c)
				return -ENOMEM;
			c->mapped = src->chunks[i]->mapped;
			memcpy(c->page, src->chunks[i]->page, c->pages * sizeof(c->page[0]));
			for (unsigned p = 0; p < c->pages; p++) {
				/* What is TRANSIT yet the store refused; the caller
				 * copies it into the child. */
				if ((c->page[p] & PAGE_STATE) == PAGE_TRANSIT)
					c->page[p] = PAGE_ABSENT;
				/* A mapping in which nothing was ever written a fork
				 * does not copy. Of a page that was, this is no harm:
				 * it is there, and faults no more. */
				if (c->page[p] & PAGE_ZERO)
					c->page[p] = PAGE_ABSENT;
				c->page[p] &= PAGE_STATE | PAGE_POOR | PAGE_REMOVED | PAGE_KEPT;
				c->out += counted(c->page[p]);
				c->away += (uint16_t)away(c->page[p]);
				/* I9, page by page: what left since the area was emptied,
				 * and is in no store, the child is given as well. */
				c->place[p].emptied = src->chunks[i]->place[p].emptied;
			}
			c->together = src->chunks[i]->together;
			c->verdicts = src->chunks[i]->verdicts;
			if (!src->chunks[i]->print)
				continue;
			c->print = os_alloc(c->pages * sizeof(*c->print));
			if (!c->print)
				return -ENOMEM;
			memcpy(c->print, src->chunks[i]->print, c->pages * sizeof(*c->print));
		}
	}
	return 0;
}

/*
 * A clone takes 24 bytes a page, and is not to be refused: the child is there
 * already. So the store may have more than its limit for it; what is over is
 * reported as any excess is, and taken back when clones have gone (host.c).
 */
static tmem_pool clone_pool(struct run *r, tmem_pool pool)
{
	tmem_pool clone;

	for (unsigned i = 0;; i++) {
		tmem_stats st = {.size = sizeof(st)};

		clone = tmem_pool_clone(r->client, pool);
		if (clone != -ENOMEM || i == CLONE_RAISES || tmem_host_stats(r->host, &st) < 0 ||
		    tmem_host_set_limit(r->host, st.limit_bytes + st.limit_bytes / 2) < 0)
			return clone;
	}
}

struct space *space_fork(struct space *parent, int uffd)
{
	tmem_pool pool = clone_pool(parent->run, parent->pool);
	struct space *sp = pool >= 0 ? space_create(parent->run, uffd, pool) : NULL;

	if (!sp)
		goto fail;
	sp->segs = os_alloc((parent->nsegs + 1) * sizeof(*sp->segs));
	if (!sp->segs || copy_areas(sp, parent) < 0)
		goto fail;
	sp->segs_size = parent->nsegs + 1;
	sp->nsegs = parent->nsegs;
	if (sp->nsegs)
		memcpy(sp->segs, parent->segs, sp->nsegs * sizeof(*sp->segs));
	for (uint32_t i = 0; i < sp->nsegs; i++)
		sp->segs[i].settled = 0;
	sp->identity = parent->identity;
	sp->own_start = parent->own_start;
	sp->own_end = parent->own_end;
	sp->family = parent->family;
	sp->guards = space_guards(parent);
	sp->together = parent->together;
	atomic_store(&sp->managed, atomic_load(&parent->managed));
	for (uint32_t a = 0; a < sp->nareas; a++)
		for (uint32_t c = 0; c < sp->areas[a].nchunks; c++)
			if (sp->areas[a].chunks[c])
				sp->cold.inherited += sp->areas[a].chunks[c]->away;
	sp->forked = true;
	parent->forked = true;
	return sp;
fail:
	if (sp) {
		sp->uffd = -1;
		space_free(sp);
	}
	if (pool >= 0)
		tmem_pool_destroy(parent->run->client, pool);
	return NULL;
}
