/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which pages leave under `--limit auto`.
 *
 * The kernel says how many pages of a mapping are cold (ages.c), not which. So it is
 * found by trying, and the faults are the answer: one page of each chunk of 2 MiB leaves;
 * when it has stayed out for a cold age, sixteen others, spread, for a quarter of
 * one; then the rest. A chunk that gives its probe back is hot, and is left alone for
 * longer and longer. All is charged to the plan by the chance that it comes back
 * (auto_law.c): one probe a chunk of hot memory is a five-hundredth of it, which
 * is what the target allows for a minute. A mapping that was not touched at all needs no
 * probe, and one without cold pages gets none. For 500 MiB of which 50 are hot, 25
 * promotions and two and a quarter cold ages.
 *
 * Pages are taken chunk by chunk and in order, so that neighbours are stored together, and
 * do not use the queues of victims.c; these go on for the sake of --max.
 *
 *   A1  in a window no more pages leave a mapping than the kernel saw idle
 *         (age.left <= age.resident - age.referenced)
 *   A2  a page that came since the window before last is no victim
 *   A3  a page that came back is none, until its chunk has cooled
 *   A4  stopped => no round is begun
 *
 * What came when is told by the clock of arrivals (place.stamp), that was noted when a
 * window began; what is found when a mapping is registered counts as old, for its
 * window has passed.
 */
#include "frontswap/pager/auto.h"
#include "frontswap/pager/run.h"

#include "os/check.h"
#include "os/clock.h"

#include <stddef.h>

#define COUNT_NS     100000000ull
#define WORTH_LEAST  16u  /* idle pages: a mapping with fewer is left alone */
#define WORTH_PART   64u  /* and one where they are a smaller part */
#define LOOKS	     512u /* chunks in one round: faults are waiting */
#define POOR_WINDOWS 32u  /* what does not compress is tried again after so many */
#define STRIDE	     31u  /* pages apart, of those that are tried */

static bool worth(const struct age *a)
{
	uint64_t idle = a->resident - a->referenced;

	return idle >= WORTH_LEAST && idle >= a->resident / WORTH_PART;
}

/* ---- a window has ended ------------------------------------------------------------------------
 */

static void take(struct space *sp, struct ages *ages)
{
	struct auto_space *a = &sp->cold;
	uint64_t now = os_clock_ns();
	bool some = false;

	ages_free(a->ages);
	a->ages = ages;
	a->old = a->mark;
	a->mark = sp->arrivals;
	for (uint32_t i = 0; i < ages->n && !some; i++)
		some = worth(&ages->at[i]);
	if (!some) {
		ages_free(a->ages);
		a->ages = NULL;
		a->passing = false;
		return;
	}
	sp->managed = true;
	sp->maps_dirty = true;
	maps_scan(sp);
	/* What was pinned by a fork may move again; what is poor, seldom. */
	if (a->windows++ % POOR_WINDOWS)
		sp->last_poor_ns = now;
	evict_resync(sp);
	a->pass_ns = now;
}

static void count_away(struct space *sp, uint64_t now)
{
	uint64_t away = 0;

	sp->cold.counted_ns = now;
	for (uint32_t i = 0; i < sp->nareas; i++)
		for (uint32_t c = 0; c < sp->areas[i].nchunks; c++)
			if (sp->areas[i].chunks[c])
				away += sp->areas[i].chunks[c]->away;
	/* Stored once for parent and child, by the kernel as by us. */
	atomic_store(&sp->cold.away, away > sp->cold.inherited ? away - sp->cold.inherited : 0);
}

void auto_tick(struct space *sp)
{
	struct auto_space *a = &sp->cold;
	struct auto_run *ar = &sp->run->automatic;
	struct ages *ages = atomic_exchange(&a->told, NULL);
	uint64_t now = os_clock_ns();

	if (ages)
		take(sp, ages);
	if (sp->managed && sp->unsharing)
		evict_round(sp, 0);
	if (!sp->unsharing)
		atomic_store(&a->between, false);
	if (!sp->managed)
		return;
	if (now - a->counted_ns > COUNT_NS)
		count_away(sp, now);
	if (!a->ages || atomic_load(&ar->stopped)) {
		a->passing = false;
		return;
	}
	if (!a->passing) {
		if (now < a->pass_ns)
			return;
		a->passing = true;
		a->cursor = 0;
		a->sweep = 0;
		a->pass_ns = now + (uint64_t)atomic_load(&ar->cold_ms) * 1000000 / 4;
	}
	a->turn = true;
	evict_round(sp, AGENT_ROUND);
	a->turn = false;
}

bool auto_wants(struct space *sp, uint64_t start, uint64_t end)
{
	struct ages *ages = sp->cold.ages;

	/* --max is near; or a part of what is registered: all of a mapping is, or nothing. */
	if (run_total(sp->run) > run_goal_managed(sp->run) ||
	    space_any(sp, start ? start - 1 : 0, end + 1) ||
	    (sp->cold.fault_addr >= start && sp->cold.fault_addr < end))
		return true;
	for (uint32_t i = 0; ages && i < ages->n; i++)
		if (ages->at[i].start < end && ages->at[i].end > start && worth(&ages->at[i]))
			return true;
	return false;
}

/* ---- victims
 * ------------------------------------------------------------------------------------- */

/* A part of a chunk that one mapping has. */
struct part {
	struct segment *seg;
	struct chunk *c;
	struct age *age;
	uint64_t page, end; /* of the area */
};

static bool eligible(const struct space *sp, const struct part *pt, uint64_t page)
{
	uint32_t i = (uint32_t)(page % CHUNK_PAGES);

	return (pt->c->page[i] & (PAGE_STATE | PAGE_BUSY | PAGE_REMOVED | PAGE_POOR |
				  PAGE_PINNED)) == PAGE_RESIDENT &&
	       !auto_chunk_hot(&pt->c->cold, i) &&		     /* A3 */
	       (int32_t)(sp->cold.old - pt->c->place[i].stamp) >= 0; /* A2 */
}

/* From addr on, where something is known of pages: mappings may be huge, and nearly empty. */
static uint64_t skip_holes(struct space *sp, const struct segment *s, uint64_t addr)
{
	const struct area *ar = &sp->areas[s->area];
	uint64_t page = s->page + (addr - s->start) / AGENT_PAGE, i = page / CHUNK_PAGES;

	if (i >= ar->nchunks || ar->chunks[i])
		return i >= ar->nchunks ? s->end : addr;
	while (i < ar->nchunks && !ar->chunks[i])
		i++;
	return i < ar->nchunks ? s->start + (i * CHUNK_PAGES - s->page) * AGENT_PAGE : s->end;
}

/* The next part from the cursor on; the cursor goes behind it. */
static bool next_part(struct space *sp, struct part *pt)
{
	struct auto_space *a = &sp->cold;

	for (;;) {
		struct segment *s = space_from(sp, a->cursor);
		uint64_t addr, stop;

		if (!s)
			return false;
		addr = a->cursor > s->start ? a->cursor : s->start;
		addr = skip_holes(sp, s, addr);
		if (addr >= s->end) {
			a->cursor = s->end;
			continue;
		}
		pt->seg = s;
		pt->page = s->page + (addr - s->start) / AGENT_PAGE;
		pt->end = (pt->page / CHUNK_PAGES + 1) * CHUNK_PAGES;
		pt->c = space_chunk(sp, s->area, pt->page, false);
		pt->age = ages_find(a->ages, addr);
		stop = addr + (pt->end - pt->page) * AGENT_PAGE;
		if (stop > s->end) {
			pt->end -= (stop - s->end) / AGENT_PAGE;
			stop = s->end;
		}
		a->cursor = stop;
		if (pt->c && pt->age && worth(pt->age))
			return true;
	}
}

/* Pages of a block leave. False: the round is full. */
static bool leave(struct space *sp, const struct part *pt, uint64_t first, uint32_t goes,
		  uint32_t *ncmds, uint64_t *pages)
{
	bool room = evict_name(sp, pt->seg->area, first, goes, ncmds, pages);

	for (uint32_t m = goes; m; m &= m - 1) {
		uint64_t page = first + (uint32_t)__builtin_ctz(m);
		struct place *at = &pt->c->place[page % CHUNK_PAGES];

		if ((pt->c->page[page % CHUNK_PAGES] & PAGE_STATE) != PAGE_TRANSIT)
			continue;
		if (at->queued & 1) { /* its entry stays in the ring until it comes up */
			at->queued = QUEUED_STALE;
			sp->queued_pages--;
		}
		at->main = 0;
		at->stamp = ++sp->evict_clock;
		bring_left(sp, pt->c, page);
	}
	return room;
}

/* n pages, here and there. */
static bool leave_apart(struct space *sp, const struct part *pt, uint32_t n, uint32_t *ncmds,
			uint64_t *pages)
{
	uint64_t block = sp->run->opts.cluster, wanted = *pages + n;

	sp->cold.seed = sp->cold.seed * 1664525u + 1013904223u;
	for (uint32_t i = 0, at = sp->cold.seed >> 16; i < CHUNK_PAGES && *pages < wanted;
	     i++, at += STRIDE) {
		uint64_t page = pt->page / CHUNK_PAGES * CHUNK_PAGES + at % CHUNK_PAGES;

		if (page >= pt->page && page < pt->end && eligible(sp, pt, page) &&
		    !leave(sp, pt, page & -block, 1u << page % block, ncmds, pages))
			return false;
	}
	return true;
}

static bool leave_all(struct space *sp, const struct part *pt, uint32_t n, uint32_t *ncmds,
		      uint64_t *pages)
{
	uint64_t block = sp->run->opts.cluster, wanted = *pages + n;

	for (uint64_t page = pt->page; page < pt->end && *pages < wanted;) {
		uint64_t first = page & -block, left = wanted - *pages;
		uint32_t goes = 0;

		for (; page < first + block && page < pt->end; page++)
			if (left && eligible(sp, pt, page)) {
				goes |= 1u << (page - first);
				left--;
			}
		if (goes && !leave(sp, pt, first, goes, ncmds, pages))
			return false;
	}
	return true;
}

/* What may leave of a part. False: the round is full, and there may be more of it. */
static bool visit(struct space *sp, const struct part *pt, const struct auto_view *v, uint64_t want,
		  uint32_t *ncmds, uint64_t *pages)
{
	struct auto_run *ar = &sp->run->automatic;
	uint64_t idle = pt->age->resident - pt->age->referenced - pt->age->left;
	uint64_t before = *pages;
	uint32_t there = 0, n;
	double chance = 0;
	bool room, apart;

	for (uint64_t page = pt->page; page < pt->end; page++)
		there += eligible(sp, pt, page);
	n = auto_chunk_offer(&pt->c->cold, v, there, &chance);
	if (n > idle)
		n = (uint32_t)idle; /* A1 */
	if (!n)
		return true;
	apart = pt->c->cold.stage == AUTO_PROBED || (pt->c->cold.stage == AUTO_UNKNOWN && n == 1);
	if (apart && *pages && *pages + n > want)
		return false;
	if (*pages + n > want)
		n = (uint32_t)(want - *pages);
	room = apart ? leave_apart(sp, pt, n, ncmds, pages) : leave_all(sp, pt, n, ncmds, pages);
	n = (uint32_t)(*pages - before);
	if (n) {
		auto_chunk_left(&pt->c->cold, v, n);
		pt->age->left += n;
		tmem_assert(A1, pt->age->left <= pt->age->resident - pt->age->referenced);
		atomic_fetch_add(&ar->spent_milli, (uint64_t)(n * chance * 1000));
		if (pt->c->cold.stage >= AUTO_SAMPLED)
			atomic_fetch_add(&ar->offloaded, n);
	}
	return room && (apart || *pages < want);
}

void auto_victims(struct space *sp, uint64_t want, uint32_t *ncmds)
{
	struct auto_space *a = &sp->cold;
	struct auto_run *ar = &sp->run->automatic;
	uint64_t pages = 0;
	unsigned looks = 0;

	for (; a->sweep < 2; a->sweep++, a->cursor = 0) {
		struct part pt;

		for (;;) {
			uint64_t from = a->cursor;
			const struct auto_view base = {
				.now_ms = os_clock_ns() / 1000000,
				.cold_ms = atomic_load(&ar->cold_ms),
				.chance = atomic_load(&ar->chance_ppm) / 1e6,
				.plan = (double)(atomic_load(&ar->plan_milli) -
						 (int64_t)atomic_load(&ar->spent_milli)) /
					1000,
				.wary = atomic_load(&ar->wary),
				.doubtful = a->sweep == 1,
			};
			struct auto_view v = base;

			if (++looks > LOOKS)
				return;
			if (!next_part(sp, &pt))
				break;
			v.referenced = (double)pt.age->referenced / (double)(pt.age->resident + 1);
			if (!visit(sp, &pt, &v, want, ncmds, &pages)) {
				a->cursor = from;
				return;
			}
		}
	}
	a->passing = false;
}

/* ---- and back
 * --------------------------------------------------------------------------------------- */

void auto_back(struct space *sp, uint32_t area, uint64_t page)
{
	struct auto_run *ar = &sp->run->automatic;
	struct chunk *c = space_chunk(sp, area, page, false);

	atomic_fetch_add_explicit(&ar->promotions, 1, memory_order_relaxed);
	if (c && auto_chunk_back(&c->cold, os_clock_ns() / 1000000, atomic_load(&ar->cold_ms),
				 (uint32_t)(page % CHUNK_PAGES)))
		atomic_fetch_add_explicit(&ar->returned, 1, memory_order_relaxed);
}
