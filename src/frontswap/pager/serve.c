/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Faults: what becomes of each. Whoever reads them puts them on a list; they are answered
 * from there, and one that cannot be answered yet (EAGAIN) stays on it.
 *
 *   its page is    answer
 *   OUT            copied in, with its neighbours (bring.c)
 *   TRANSIT        copied in from its slot
 *   RESIDENT       it is there, and the thread goes on
 *   ABSENT         zeros, and more of them where the program walks forward
 *
 * A stored page is copied in first and taken out of the store after that:
 * whatever happens in between, the page is somewhere.
 */
#include "frontswap/pager/discard.h"
#include "frontswap/pager/run.h"
#include "frontswap/uffd.h"

#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define FRESH_WINDOW_MAX 64u

static const char zeros[FRESH_WINDOW_MAX * AGENT_PAGE];

static void wake(struct space *sp, uint64_t addr, uint64_t n)
{
	struct uffdio_range r = {addr, n * AGENT_PAGE};

	ioctl(sp->uffd, UFFDIO_WAKE, &r);
}

/*
 * A page that comes in is there already. Where that may be one that was to leave
 * (E3 in discard.c), it must not be free to go any more, for now the store's copy
 * does. False: come back later.
 */
static bool stays_there(struct space *sp, uint64_t addr, const void *src)
{
	return sp->run->opts.evict != RUN_EVICT_DISCARD || src == zeros ||
	       discard_hold(sp, addr) >= 0;
}

/*
 * Copy n pages to addr; *done pages are there afterwards (copied or found
 * there: then *found). 0, or -EAGAIN: come back later; -ENOENT: there is no mapping of ours, and
 * who waited was woken; -ESRCH: it has ended.
 */
static int copy_in(struct space *sp, uint64_t addr, const void *src, uint64_t n, uint64_t *done,
		   bool *found)
{
	uint64_t most = n; /* pages of one call */

	*done = 0;
	*found = false;
	while (*done < n) {
		struct uffdio_copy c = {
			.dst = addr + *done * AGENT_PAGE,
			.src = (uintptr_t)src + *done * AGENT_PAGE,
			.len = (n - *done < most ? n - *done : most) * AGENT_PAGE,
		};

		if (ioctl(sp->uffd, UFFDIO_COPY, &c) == 0) {
			*done += c.len / AGENT_PAGE;
			continue;
		}
		if (c.copy > 0) {
			*done += (uint64_t)c.copy / AGENT_PAGE;
			continue;
		}
		switch (errno) {
		case EEXIST: /* somebody was served before */
			if (!stays_there(sp, c.dst, src))
				return -EAGAIN;
			wake(sp, c.dst, 1);
			(*done)++;
			*found = true;
			break;
		case EAGAIN:
			return -EAGAIN;
		case ENOENT:
			/* An mprotect or mlock has cut the mapping, and a call must
			 * keep within one: page by page. Or it is gone, and its
			 * event is to come. */
			if (c.len > AGENT_PAGE) {
				most = 1;
				break;
			}
			wake(sp, c.dst, n - *done);
			return -ENOENT;
		case ESRCH:
			sp->gone = true;
			return -ESRCH;
		case ENOMEM:
			pager_fail(sp, "the kernel has no memory to give its page back");
			return -ESRCH;
		default:
			pager_fail(sp, strerror(errno));
			return -ESRCH;
		}
	}
	return 0;
}

/* The same; false: not all are there, come back later, unless the process has ended. */
bool pager_copy_in(struct space *sp, uint64_t addr, const void *src, uint64_t n, uint64_t *done)
{
	bool found;

	return copy_in(sp, addr, src, n, done, &found) == 0;
}

void serve_later(struct space *sp, uint64_t addr, bool write, uint64_t since)
{
	if (sp->npending == sp->pending_size) {
		uint32_t size = sp->pending_size ? sp->pending_size * 2 : 64;
		struct pending *p = size <= RUN_WAITING_MAX ? os_alloc(size * sizeof(*p)) : NULL;

		if (!p) {
			pager_fail(sp, "out of memory for a list of faults");
			return;
		}
		if (sp->npending)
			memcpy(p, sp->pending, sp->npending * sizeof(*p));
		os_free(sp->pending);
		sp->pending = p;
		sp->pending_size = size;
	}
	sp->pending[sp->npending++] = (struct pending){addr, since, write};
}

/*
 * Keep the memory in its limits before n pages come in. False: what the caller
 * knew of segments and pages is of the past, for events were read (discard.c).
 */
static bool make_room(struct space *sp, uint64_t n)
{
	struct run *r = sp->run;
	uint64_t changes = sp->changes;

	if (pager_total(sp) + n * AGENT_PAGE > run_goal_high(r))
		evict_to(sp, run_goal_high(r) - n * AGENT_PAGE);
	return sp->changes == changes;
}

void pager_added(struct space *sp, uint64_t n)
{
	atomic_fetch_add(&sp->resident, n * AGENT_PAGE);
	atomic_fetch_add(&sp->run->total_bytes, n * AGENT_PAGE);
}

/* A page in a slot: from there, when it has been copied out; else later. */
static bool serve_transit(struct space *sp, struct segment *seg, uint64_t addr, uint64_t page)
{
	for (unsigned i = 0; i < AGENT_SLOTS; i++) {
		struct slot *sl = &sp->slots[i];
		uint32_t state = atomic_load(&sl->state), bit;
		uint64_t done;

		if (state == SLOT_FREE || sl->area != seg->area || page < sl->first ||
		    page >= sl->first + sl->pages)
			continue;
		bit = 1u << (page - sl->first);
		if (state != SLOT_MOVING && !(sl->moved & bit))
			continue; /* it did not move then, and is in another slot now */
		if (state == SLOT_MOVING || state == SLOT_COPYING || sl->dropped & bit ||
		    sp->run->opts.without & SECOND_CHANCE)
			return false;
		if (!pager_copy_in(sp, addr, sp->shm->slots[i] + (page - sl->first) * AGENT_PAGE, 1,
				   &done))
			return sp->gone;
		/* The worker may still store it; that is taken back when it is done. */
		space_back_from_slot(sp, seg, page, sl);
		atomic_fetch_add_explicit(&sp->run->n.second_chances, 1, memory_order_relaxed);
		pager_added(sp, 1);
		return true;
	}
	pager_fail(sp, "a page in transit is in no slot");
	return true;
}

/* Consecutive pages from addr that were never there, at most max. */
static uint64_t fresh_run(struct space *sp, const struct segment *seg, uint64_t addr, uint64_t max)
{
	uint64_t page = seg->page + (addr - seg->start) / AGENT_PAGE;
	uint64_t room = (seg->end - addr) / AGENT_PAGE, n = 1;

	/* A copy takes the place of a guard (MADV_GUARD_INSTALL), too. */
	if (space_guards(sp))
		return 1;
	for (; n < max && n < room; n++) {
		const uint8_t *p = space_page(sp, seg->area, page + n);

		if (p && *p != PAGE_ABSENT)
			break;
	}
	return n;
}

/*
 * First touch. Filling around pays: a fault served here costs several times
 * one that the kernel serves, so a program that walks forward gets a window
 * that doubles while it is used up.
 */
static bool serve_fresh(struct space *sp, struct segment *seg, uint64_t addr, bool write,
			bool removed)
{
	uint64_t n = 1, done = 0;
	bool found = false;
	int rc = 0;

	if (seg && !removed && !(sp->run->opts.without & FILL_AROUND)) {
		if (addr == sp->last_fresh_addr)
			sp->fresh_window = sp->fresh_window < FRESH_WINDOW_MAX
						   ? sp->fresh_window * 2
						   : FRESH_WINDOW_MAX;
		else if (sp->fresh_window > 1)
			sp->fresh_window /= 2;
		n = fresh_run(sp, seg, addr, sp->fresh_window);
	}
	if (!make_room(sp, n))
		return sp->gone;
	if (sp->gone)
		return true;
	if (write) {
		rc = copy_in(sp, addr, zeros, n, &done, &found);
		if (rc == -ENOENT && !seg)
			return true; /* unmapped meanwhile: no event is to come, see below */
		if (found && removed)
			return true; /* still to be emptied: the fault was of before that (I5) */
	} else {
		struct uffdio_zeropage z = {.range = {addr, n * AGENT_PAGE}};

		rc = ioctl(sp->uffd, UFFDIO_ZEROPAGE, &z);
		if (rc < 0 && errno == ENOENT && n > 1) { /* a cut in the mapping, see above */
			z = (struct uffdio_zeropage){.range = {addr, AGENT_PAGE}};
			rc = ioctl(sp->uffd, UFFDIO_ZEROPAGE, &z);
			n = 1;
		}
		if (rc == 0) {
			done = n;
		} else if (z.zeropage > 0) {
			done = (uint64_t)z.zeropage / AGENT_PAGE;
		} else if (errno == EEXIST) {
			wake(sp, addr, 1);
			return true;
		} else if (errno == ESRCH) {
			sp->gone = true;
			return true;
		} else if (errno == EAGAIN) {
			return false;
		} else {
			wake(sp, addr, 1); /* unmapped meanwhile: the thread finds out by itself */
			return true;
		}
	}
	if (seg && done) {
		space_mark_resident(sp, seg, addr, done, ARRIVAL_FRESH);
		if (!write)
			space_mark_zero(sp, seg, addr, done);
		sp->last_fresh_addr = addr + done * AGENT_PAGE;
		atomic_fetch_add_explicit(&sp->run->n.pages_fresh, done, memory_order_relaxed);
		pager_added(sp, write ? done : 0);
	}
	return rc == 0 || done > 0 || sp->gone;
}

/*
 * A fault on a page that is there by our books: two threads on one page, most
 * often, and then the kernel finds it. If it does not, the program has emptied
 * it (I9), or our books are wrong and what it had is lost: it must not read zeros.
 */
static bool serve_resident(struct space *sp, struct segment *seg, uint64_t addr)
{
	uint64_t page = seg->page + (addr - seg->start) / AGENT_PAGE;
	const struct chunk *c = space_chunk(sp, seg->area, page, false);
	struct uffdio_zeropage z = {.range = {addr, AGENT_PAGE},
				    .mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE};

	if (ioctl(sp->uffd, UFFDIO_ZEROPAGE, &z) == 0) {
		if (c->place[page % CHUNK_PAGES].emptied) {
			space_mark_zero(sp, seg, addr, 1);
		} else {
			atomic_fetch_add_explicit(&sp->run->n.anomalies, 1, memory_order_relaxed);
			/* A child that is not known by number yet has its parent's marks. */
			if (!maps_wiped_on_fork(sp->pid ? sp->pid : sp->parent_pid, addr)) {
				pager_fail(sp, "a resident page is missing");
				return true;
			}
		}
	} else if (errno == EAGAIN) {
		return false;
	} else if (errno == ESRCH) {
		sp->gone = true;
	}
	wake(sp, addr, 1);
	return true;
}

bool serve_identity(struct space *sp)
{
	uint64_t page[AGENT_PAGE / 8] = {sp->id};
	uint64_t done;
	bool found;

	return copy_in(sp, sp->identity, page, 1, &done, &found) != -EAGAIN;
}

/* False: not yet; the fault is to be put aside. */
static bool serve(struct space *sp, uint64_t addr, bool write)
{
	struct run_counters *n = &sp->run->n;
	struct segment *seg;
	uint8_t *p;

	if (addr == sp->identity)
		return serve_identity(sp);
	if (sp->ndeferred && !events_quiet(sp))
		return false;
	seg = space_find(sp, addr);
	if (!seg) { /* learnt too early, and forgotten at the UNMAP of an older mapping */
		sp->cold.fault_addr = addr;
		maps_scan(sp);
		seg = space_find(sp, addr);
		return serve_fresh(sp, seg, addr, write, false);
	}
	p = space_page(sp, seg->area, seg->page + (addr - seg->start) / AGENT_PAGE);
	switch (p ? *p & PAGE_STATE : PAGE_ABSENT) {
	case PAGE_OUT: {
		uint64_t page = seg->page + (addr - seg->start) / AGENT_PAGE;
		uint32_t age;

		if (!make_room(sp, sp->run->opts.cluster))
			return sp->gone;
		/* Making room completes slots and evicts, but no event was read:
		 * the segment is where it was, the page is still out. */
		if (sp->gone)
			return true;
		age = watch_age(sp, seg->area, page);
		if (!bring_in(sp, seg, page, false))
			return false;
		watch_refault(sp, age);
		if (sp->run->opts.automatic)
			auto_back(sp, seg->area, page);
		atomic_fetch_add_explicit(&n->faults_stored, 1, memory_order_relaxed);
		bring_ahead(sp, seg, page);
		return true;
	}
	case PAGE_TRANSIT:
		if (!serve_transit(sp, seg, addr, seg->page + (addr - seg->start) / AGENT_PAGE))
			return false;
		watch_refault(sp, 0);
		if (sp->run->opts.automatic)
			auto_back(sp, seg->area, seg->page + (addr - seg->start) / AGENT_PAGE);
		atomic_fetch_add_explicit(&n->faults_transit, 1, memory_order_relaxed);
		return true;
	case PAGE_RESIDENT:
		if (!(*p & PAGE_REMOVED))
			return serve_resident(sp, seg, addr);
		/* fallthrough */
	default:
		if (!serve_fresh(sp, seg, addr, write, p && *p & PAGE_REMOVED))
			return false;
		atomic_fetch_add_explicit(&n->faults_fresh, 1, memory_order_relaxed);
		return true;
	}
}

void serve_pending(struct space *sp)
{
	uint32_t n = sp->npending, kept = 0;

	if (!n)
		return;
	for (uint32_t i = 0; i < n && !sp->gone; i++) {
		struct pending p = sp->pending[i];

		if (serve(sp, p.addr, p.write))
			report_fault(sp->run, os_clock_ns() - p.since_ns);
		else
			sp->pending[kept++] = p;
	}
	/* Those that were read meanwhile, by an eviction. */
	memmove(&sp->pending[kept], &sp->pending[n], (sp->npending - n) * sizeof(sp->pending[0]));
	sp->npending = kept + (sp->npending - n);
}
