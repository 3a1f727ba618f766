/* SPDX-License-Identifier: BSD-2-Clause */
/* Whether a program thrashes; see thrash.h. */
#include "frontswap/pager/thrash.h"

#include <math.h>

#define PAGE 4096u
#define MIB  (1ull << 20)

/*
 * A fault is timed from when the pager has read it to its answer. The kernel's part, and two
 * switches from thread to thread, are not in that: of the 12 to 27 us that a fault across
 * processes takes on an idle machine, about this much. And of the program's processor time so
 * much was spent in its faults, and in the agent, for the pages that had to leave for it.
 */
#define UNSEEN_WAIT_NS 10000u
#define PAGING_NS      5000u

/* How far below the limit the pager stays; 2 % more because all of it is an estimate. */
#define MARGIN	     (1.75 * (double)MIB)
#define MARGIN_PARTS (128.0 / 127)

static uint64_t waited(const struct thrash_figures *from, const struct thrash_figures *to)
{
	return to->wait_ns - from->wait_ns + (to->faults - from->faults) * UNSEEN_WAIT_NS;
}

static uint64_t computed(const struct thrash_figures *from, const struct thrash_figures *to)
{
	uint64_t all = to->program_ns - from->program_ns;
	uint64_t paging = (to->refaults - from->refaults) * PAGING_NS;

	return all > paging ? all - paging : 0;
}

/* T1, T2, T3 */
static bool slice_stalled(const struct thrash_figures *from, const struct thrash_figures *to)
{
	uint64_t wall = to->at_ns - from->at_ns, wait = waited(from, to);
	uint64_t refaults = to->refaults - from->refaults;

	return wait >= computed(from, to) && wait >= wall / 4 &&
	       refaults >= (to->faults - from->faults) / 2 &&
	       refaults * 1000000000 >= wall * THRASH_MANY;
}

/* T4, T5 */
static bool thrashes(const struct thrash *t, const struct thrash_figures *from,
		     const struct thrash_figures *to)
{
	uint64_t lasted = to->at_ns - t->began.at_ns, refaults = to->refaults - from->refaults;
	uint64_t recent = to->recent - from->recent;

	return lasted >= THRASH_LONG_NS &&
	       (recent >= refaults / 10 * 9 ||
		(lasted >= THRASH_VERY_LONG_NS && recent >= refaults / 4 * 3));
}

enum thrash_verdict thrash_slice(struct thrash *t, const struct thrash_figures *now)
{
	struct thrash_figures from = t->last;

	t->last = *now;
	if (!slice_stalled(&from, now)) {
		if (t->stalled && ++t->calm == 2)
			t->stalled = false;
		return t->stalled ? THRASH_GOES_ON : THRASH_NO;
	}
	t->calm = 0;
	if (!t->stalled) {
		t->stalled = true;
		t->began = from;
		return THRASH_BEGINS;
	}
	return thrashes(t, &from, now) ? THRASH_YES : THRASH_GOES_ON;
}

double thrash_waiting(const struct thrash *t)
{
	double wait = (double)waited(&t->began, &t->last);
	double program = (double)computed(&t->began, &t->last);

	return wait > 0 ? wait / (wait + program) : 0;
}

uint32_t thrash_left_ppm(const struct thrash *t)
{
	double waiting = thrash_waiting(t);
	double left = waiting > 0 ? (1 - waiting) / (3 * waiting) : 1;

	/* One in two hundred cannot be told from chance; more than half would not be worth it. */
	return left < 0.005 ? 5000 : left > 0.5 ? 500000 : (uint32_t)(left * 1000000);
}

uint64_t thrash_enough(const struct thrash_memory *m)
{
	uint64_t extra = m->extra_pages < m->out_pages ? m->extra_pages : m->out_pages;
	uint64_t total = m->total > m->limit ? m->total : m->limit;
	uint64_t least = m->limit + m->limit / 32, enough;
	double store = (double)(m->store < total ? m->store : total);
	double gone = 1, back = (double)extra * PAGE, all = (double)m->out_pages * PAGE;

	/* A cluster stays in the store for as long as one page of it is out. */
	if (m->stored_pages > m->out_pages - extra)
		gone -= (double)(m->out_pages - extra) / (double)m->stored_pages;
	else
		gone = 0;
	back += store * (1 - pow(gone, m->cluster));
	/* With all of them back nothing of it stays. */
	enough = (uint64_t)(((double)total - store + (back < all ? back : all) + MARGIN) *
			    MARGIN_PARTS * 1.02);
	if (enough < least)
		enough = least;
	return (enough + MIB - 1) / MIB * MIB;
}
