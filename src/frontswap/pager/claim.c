/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A range that the program wants for a userfaultfd of its own (agent/claim.c), or of which
 * all is to be in (then it is only that: who asks has said already that it stays).
 *
 *   asked --> nothing of it is a victim --> all of it is in --> unregistered,
 *             (sp->foreign)                                     forgotten, answered
 *
 *   I1  what is unregistered holds no page that is OUT or TRANSIT, by books that are
 *       true (a quiet point): the program would read zeros there
 *   I2  for FOREIGN_NS after the answer no scan registers it again: the program's
 *       thread is on its way to do so
 *
 * Both sides of the range stay managed: the kernel cuts the mapping for us where it
 * would have done so for the program.
 */
#include "frontswap/pager/run.h"
#include "frontswap/uffd.h"

#include "os/check.h"
#include "os/clock.h"

#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FOREIGN_NS    200000000ull
#define STEP_CLUSTERS 64u /* brought in between two looks at events and faults */

bool claim_covers(const struct space *sp, uint64_t start, uint64_t end)
{
	return sp->foreign_until && start < sp->foreign.end && end > sp->foreign.start;
}

/* The part of a segment that is claimed; false: none. */
static bool overlap(const struct space *sp, const struct segment *s, struct range *part)
{
	part->start = s->start > sp->foreign.start ? s->start : sp->foreign.start;
	part->end = s->end < sp->foreign.end ? s->end : sp->foreign.end;
	return part->start < part->end;
}

/* Bring in what is out of it. False: not all is, yet. */
static bool all_in(struct space *sp)
{
	unsigned some = 0;

	evict_drain(sp, true);
	if (sp->slots_busy) /* refused by the store, and now by the kernel: soon */
		return false;
	for (uint32_t i = 0; i < sp->nsegs && !sp->gone; i++) {
		struct segment *s = &sp->segs[i];
		struct range part;
		uint64_t page, end;

		if (!overlap(sp, s, &part))
			continue;
		page = s->page + (part.start - s->start) / AGENT_PAGE;
		end = s->page + (part.end - s->start) / AGENT_PAGE;
		while (page < end) {
			const uint8_t *p = space_page(sp, s->area, page);

			if (!p) {
				page = (page / CHUNK_PAGES + 1) * CHUNK_PAGES;
				continue;
			}
			if ((*p & PAGE_STATE) == PAGE_OUT &&
			    (some++ == STEP_CLUSTERS || !bring_in(sp, s, page, true) || sp->gone))
				return false;
			page++;
		}
	}
	return true;
}

/* Faults there are the program's own business from now on; the kernel has woken who waits. */
static void forget_faults(struct space *sp)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < sp->npending; i++)
		if (sp->pending[i].addr < sp->foreign.start ||
		    sp->pending[i].addr >= sp->foreign.end)
			sp->pending[kept++] = sp->pending[i];
	sp->npending = kept;
}

static void let_go(struct space *sp)
{
	struct range part;

	for (uint32_t i = 0; i < sp->nsegs;) {
		struct uffdio_range r;

		if (!overlap(sp, &sp->segs[i], &part)) {
			i++;
			continue;
		}
		r = (struct uffdio_range){part.start, part.end - part.start};
		if (ioctl(sp->uffd, UFFDIO_UNREGISTER, &r) < 0) {
			i++; /* gone meanwhile: its event is to come; or the program gets EBUSY */
			continue;
		}
		space_drop_range(sp, part.start, part.end, true);
		i = 0;
	}
	forget_faults(sp);
	sp->maps_dirty = true;
}

bool claim_step(struct space *sp)
{
	struct agent_shm *shm = sp->shm;
	uint32_t asked = atomic_load(&shm->claim_asked);

	if (asked == atomic_load(&shm->claim_done)) {
		if (sp->foreign_until && os_clock_ns() > sp->foreign_until)
			sp->foreign_until = 0;
		return false;
	}
	sp->foreign.start = atomic_load(&shm->claim_start) & -(uint64_t)AGENT_PAGE;
	sp->foreign.end = atomic_load(&shm->claim_end) & -(uint64_t)AGENT_PAGE;
	sp->foreign_until = UINT64_MAX;
	/* Books that are behind are put right first: I1. */
	if ((sp->ndeferred && !events_quiet(sp)) || !all_in(sp) || !events_quiet(sp))
		return !sp->gone;
	tmem_assert(I1, !sp->slots_busy);
	if (atomic_load(&shm->claim_stays)) {
		sp->foreign_until = 0;
	} else {
		let_go(sp);
		sp->foreign_until = os_clock_ns() + FOREIGN_NS;
	}
	atomic_store(&shm->claim_done, asked);
	syscall(SYS_futex, &shm->claim_done, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	return !sp->gone;
}
