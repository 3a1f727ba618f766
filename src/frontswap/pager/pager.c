/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pager thread of one address space: faults and events in, pages out.
 *
 * One thread reads one userfaultfd and does everything that concerns the
 * space, so what it knows of the space needs no lock and has one order: the
 * order in which the kernel delivered. Two rules make that enough.
 *
 *   Faults come before events in a read, and whoever causes an event sleeps
 *   until it was read. So a state that we hold is true, or an event that will
 *   change it is unread, and then the kernel answers EAGAIN to COPY, ZEROPAGE
 *   and MOVE. EAGAIN is never retried on the spot: the fault is put aside and
 *   reading goes on.
 *
 *   Segments are learnt at a *quiet point*, a moment when no event is under
 *   way, and become evictable at the next: until then an UNMAP may speak of an
 *   older mapping at the same addresses. Events of several threads come in any
 *   order; events.c puts them right.
 *
 * A stored page is copied in first and taken out of the store after that:
 * whatever happens in between, the page is somewhere.
 */
#include "frontswap/pager/discard.h"
#include "frontswap/pager/run.h"
#include "frontswap/uffd.h"

#include "os/check.h"
#include "os/clock.h"
#include "os/log.h"
#include "os/mem.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRESH_WINDOW_MAX 64u
#define MESSAGES	 32
#define PSS_NS		 100000000ull
#define A_LITTLE	 65536u
#define AT_WORK_NS	 20000000ull

static const char zeros[FRESH_WINDOW_MAX * AGENT_PAGE];

void pager_fail(struct space *sp, const char *why)
{
	os_log(OS_LOG_ERROR, "process %d is ended: %s", (int)sp->pid, why);
	sp->gone = true;
	if (!peer_kill(sp))
		run_abandon(sp->run); /* a child not known by number */
}

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
 * there). 0, or -EAGAIN: come back later; -ENOENT: there is no mapping of ours, and who
 * waited was woken; -ESRCH: it has ended.
 */
static int copy_in(struct space *sp, uint64_t addr, const void *src, uint64_t n, uint64_t *done)
{
	uint64_t most = n; /* pages of one call */

	*done = 0;
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
	return copy_in(sp, addr, src, n, done) == 0;
}

/* The total; between the kernel's own figures, which are asked for twice a millisecond, an
 * estimate. */
uint64_t pager_total(struct space *sp)
{
	uint64_t size, data;

	if (os_clock_ns() - sp->last_account_ns > 500000)
		pager_account(sp, &size, &data);
	return run_total(sp->run);
}

/* ---- faults ------------------------------------------------------------------------ */

static void pend(struct space *sp, uint64_t addr, bool write, uint64_t since)
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
		if (state == SLOT_MOVING || state == SLOT_COPYING || sl->dropped & bit)
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
static bool serve_fresh(struct space *sp, struct segment *seg, uint64_t addr, bool write)
{
	uint64_t n = 1, done = 0;
	int rc = 0;

	if (seg && !(sp->run->opts.without & FILL_AROUND)) {
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
		rc = copy_in(sp, addr, zeros, n, &done);
		if (rc == -ENOENT && !seg)
			return true; /* unmapped meanwhile: no event is to come, see below */
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
			if (!sp->pid || !maps_wiped_on_fork(sp->pid, addr)) {
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

/* False: EAGAIN. */
static bool tell_identity(struct space *sp)
{
	uint64_t page[AGENT_PAGE / 8] = {sp->id};
	uint64_t done;

	return copy_in(sp, sp->identity, page, 1, &done) != -EAGAIN;
}

/* False: not yet; the fault is to be put aside. */
static bool serve(struct space *sp, uint64_t addr, bool write)
{
	struct run_counters *n = &sp->run->n;
	struct segment *seg;
	uint8_t *p;

	if (addr == sp->identity)
		return tell_identity(sp);
	if (sp->ndeferred && !events_quiet(sp))
		return false;
	seg = space_find(sp, addr);
	if (!seg) { /* learnt too early, and forgotten at the UNMAP of an older mapping */
		sp->cold.fault_addr = addr;
		maps_scan(sp);
		seg = space_find(sp, addr);
		return serve_fresh(sp, seg, addr, write);
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
		if (!serve_fresh(sp, seg, addr, write))
			return false;
		atomic_fetch_add_explicit(&n->faults_fresh, 1, memory_order_relaxed);
		return true;
	}
}

static void serve_pending(struct space *sp)
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

/* ---- events --------------------------------------------------------------------------- */

/* Without waiting, even when the program has made its userfaultfd block: then that is the end. */
static void read_what_is_there(struct space *sp)
{
	struct pollfd p = {.fd = sp->uffd, .events = POLLIN};

	if (poll(&p, 1, 0) > 0)
		pager_read_ready(sp, p.revents);
}

/*
 * What a child did not get: mappings with MADV_DONTFORK, and those whose UNMAP
 * we have yet to read. A segment without our registration must not be: there
 * pages could leave that no fault would bring back. UFFDIO_CONTINUE changes
 * nothing and tells: EINVAL where one registered mapping, which is not shared
 * memory, covers the range; ENOENT else. False: EAGAIN.
 */
static bool drop_unregistered(struct space *sp, uint64_t start, uint64_t end)
{
	struct uffdio_continue c = {.range = {start, end - start}};
	uint64_t half = start + (end - start) / 2 / AGENT_PAGE * AGENT_PAGE;

	if (ioctl(sp->uffd, UFFDIO_CONTINUE, &c) == 0)
		return true;
	if (errno != ENOENT)
		return errno != EAGAIN;
	if (end - start > AGENT_PAGE)
		return drop_unregistered(sp, start, half) && drop_unregistered(sp, half, end);
	space_drop_range(sp, start, end, true);
	return true;
}

static bool drop_all_unregistered(struct space *sp)
{
	for (uint32_t i = sp->nsegs; i-- > 0;) {
		struct segment seg = sp->segs[i]; /* dropping changes what lies behind it only */

		if (!drop_unregistered(sp, seg.start, seg.end))
			return false;
	}
	return true;
}

/* A page that the parent has in a slot, and the child nowhere: by our books it was never there. */
static void give_child(struct space *child, uint32_t area, uint64_t page, const void *from)
{
	const struct chunk *c;
	uint64_t addr, done;

	while (!child->gone && (addr = space_address(child, area, page)) &&
	       (c = space_chunk(child, area, page, false)) &&
	       !c->place[page % CHUNK_PAGES].emptied) {
		if (pager_copy_in(child, addr, from, 1, &done)) {
			space_mark_resident(child, space_find(child, addr), addr, 1, ARRIVAL_FRESH);
			return;
		}
		read_what_is_there(child);
	}
}

/*
 * The child could never have its pages. It is not known by number yet, and to end its parent
 * alone would have it wait for ever; so the whole program ends.
 */
static void abandon_child(const struct space *sp, const char *why)
{
	os_log(OS_LOG_ERROR, "the program is ended: %s for a child of process %d", why,
	       (int)sp->pid);
	run_abandon(sp->run);
}

/*
 * The kernel lets the child go as soon as we have read of it. By libc's fork() it waits at once
 * for its name; one that was forked past libc may change its mappings, and then waits until
 * somebody reads that. Here it is us: all that says EAGAIN reads the child's events.
 */
static void forked(struct space *sp, int uffd)
{
	struct run *r = sp->run;
	uint64_t name = listen_name();
	struct space *child;
	os_thread t;

	discard_changed(sp, 0, UINT64_MAX);
	evict_drain(sp, false);
	sp->unsharing =
		false; /* what was its own again is shared anew, and all of it to be walked */
	child = space_fork(sp, uffd);
	if (!child) {
		run_hold(r, name, 0, uffd); /* until it is killed it must not read zeros */
		abandon_child(sp, "out of memory");
		close(uffd);
		return;
	}
	while (!drop_all_unregistered(child) && !child->gone)
		read_what_is_there(child);
	/* What the store refused is in slots still, on its way back to the parent. */
	for (unsigned i = 0; i < AGENT_SLOTS; i++) {
		struct slot *sl = &sp->slots[i];

		if (atomic_load(&sl->state) == SLOT_FREE)
			continue;
		for (uint32_t k = 0; k < sl->pages; k++) {
			uint64_t addr = space_address(child, sl->area, sl->first + k);

			if (sp->discard.marking && atomic_load(&sl->state) == SLOT_MOVING && addr &&
			    !(sl->dropped & 1u << k)) /* it is there still, in both */
				space_mark_resident(child, space_find(child, addr), addr, 1,
						    ARRIVAL_FOUND);
			/* All else has been settled: of what is stored the child has a clone. */
			tmem_assert(I2, atomic_load(&sl->state) != SLOT_STORED ||
						!(sl->moved & sl->stored));
			if (sl->moved & ~sl->dropped & ~sl->stored & 1u << k)
				give_child(child, sl->area, sl->first + k,
					   sp->shm->slots[i] + (size_t)k * AGENT_PAGE);
		}
	}
	os_mutex_lock(&r->lock);
	child->id = name;
	child->next = r->spaces;
	r->spaces = child;
	atomic_fetch_add(&r->nspaces, 1);
	os_mutex_unlock(&r->lock);
	atomic_fetch_add(&r->n.spaces, 1);
	atomic_fetch_add(&r->n.forks, 1);
	run_hold(r, child->id, 0, uffd);
	evict_resync(child);
	if (os_thread_create(&t, "tmem-pager", pager_thread, child) < 0)
		abandon_child(sp, "no thread");
}

/*
 * One read. Events first: whoever caused one goes on as soon as it was read,
 * so nothing may be evicted between the read and the change of our books.
 * Faults wait on the list until then.
 */
static void read_events(struct space *sp)
{
	struct uffd_msg msgs[MESSAGES];
	ssize_t got = read(sp->uffd, msgs, sizeof(msgs));
	uint64_t now;

	if (got < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
		pager_fail(sp, "no descriptor for a child of it"); /* it waits in fork() for that */
	if (got <= 0)
		return;
	now = os_clock_ns();
	for (ssize_t i = 0; i < got / (ssize_t)sizeof(msgs[0]); i++)
		if (msgs[i].event == UFFD_EVENT_FORK) /* first, see events.c */
			forked(sp, (int)msgs[i].arg.fork.ufd);
	for (ssize_t i = 0; i < got / (ssize_t)sizeof(msgs[0]); i++) {
		struct uffd_msg *m = &msgs[i];

		sp->changes += m->event != UFFD_EVENT_PAGEFAULT && m->event != UFFD_EVENT_REMOVE;
		switch (m->event) {
		case UFFD_EVENT_PAGEFAULT:
			atomic_fetch_add_explicit(&sp->run->n.faults, 1, memory_order_relaxed);
			sp->last_fault_ns = now;
			home_fault(sp, (pid_t)m->arg.pagefault.feat.ptid);
			if (discard_fault(sp,
					  m->arg.pagefault.address & ~(uint64_t)(AGENT_PAGE - 1),
					  m->arg.pagefault.feat.ptid))
				break;
			pend(sp, m->arg.pagefault.address & ~(uint64_t)(AGENT_PAGE - 1),
			     m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE, now);
			break;
		case UFFD_EVENT_REMAP:
			discard_changed(sp, m->arg.remap.from,
					m->arg.remap.from + m->arg.remap.len);
			discard_changed(sp, m->arg.remap.to, m->arg.remap.to + m->arg.remap.len);
			events_remap(sp, m->arg.remap.from, m->arg.remap.to, m->arg.remap.len);
			break;
		case UFFD_EVENT_REMOVE:
			if (discard_removed(sp, m->arg.remove.start, m->arg.remove.end))
				break;
			sp->changes++;
			events_remove(sp, m->arg.remove.start, m->arg.remove.end);
			break;
		case UFFD_EVENT_UNMAP:
			discard_changed(sp, m->arg.remove.start, m->arg.remove.end);
			events_unmap(sp, m->arg.remove.start, m->arg.remove.end);
			break;
		default:
			break;
		}
	}
}

void pager_read_ready(struct space *sp, short revents)
{
	if (revents & POLLERR)
		pager_fail(sp, "its userfaultfd was made to block");
	else if (revents & POLLIN)
		read_events(sp);
}

void pager_woken(struct space *sp, short wake, short told)
{
	uint64_t count;

	if (wake & POLLIN)
		peer_take(sp->wake);
	if (told & POLLIN && read(sp->told, &count, sizeof(count)) < 0)
		tmem_assert(eventfd, errno == EAGAIN);
}

/* ---- the loop ------------------------------------------------------------------------- */

/* Read the space's size from the kernel; what was counted since is only an estimate. */
bool pager_account(struct space *sp, uint64_t *size, uint64_t *data)
{
	struct run *r = sp->run;
	uint64_t now = os_clock_ns(), resident, shared, anon, off, old;
	uint64_t pause = PSS_NS * (1 + atomic_load(&r->nspaces) / 8); /* it walks all its pages */

	sp->last_account_ns = now;
	if (!sp->pid || !maps_statm(&sp->statm, sp->pid, size, &resident, &shared, data))
		return false;
	anon = (resident > shared ? resident - shared : 0) * AGENT_PAGE;
	atomic_store(&sp->raw_resident, anon);
	if (sp->forked && now - sp->last_pss_ns > pause) {
		uint64_t pss = maps_pss_anon(sp->pid);

		sp->last_pss_ns = now;
		atomic_store(&sp->shared_off, pss && pss < anon ? anon - pss : 0);
	}
	off = atomic_load(&sp->shared_off);
	anon = anon > off ? anon - off : 0;
	old = atomic_exchange(&sp->resident, anon);
	if (anon > old + A_LITTLE || old > anon + A_LITTLE)
		sp->last_change_ns = now;
	atomic_fetch_add(&r->total_bytes, anon - old);
	run_account(r);
	return true;
}

/* A few times a millisecond at most: accounts, new mappings, the limit. */
static void tick(struct space *sp)
{
	struct run *r = sp->run;
	uint64_t now = os_clock_ns(), size, data;

	if (now - sp->last_tick_ns < 400000)
		return;
	sp->last_tick_ns = now;
	watch_tick(sp);
	home_tick(sp);
	evict_slots_return(sp);
	if (!pager_account(sp, &size, &data))
		return;
	if (atomic_load(&r->total_bytes) > run_goal_managed(r))
		sp->managed = true;
	if (sp->managed && now >= sp->next_scan_ns &&
	    (sp->maps_dirty || size != sp->maps_size || data != sp->maps_data)) {
		sp->maps_size = size;
		sp->maps_data = data;
		maps_scan(sp);
	}
	if (sp->managed && run_total(r) > run_goal_high(r))
		evict_to(sp, run_goal_high(r));
	if (r->opts.automatic && !sp->gone)
		auto_tick(sp);
}

/* How long nothing need be looked at: a program fills fresh memory at up to 4 GB/s. */
static struct timespec idle(const struct space *sp)
{
	uint64_t total = run_total(sp->run), limit = run_goal_managed(sp->run);
	uint64_t ns = total < limit ? (limit - total) / 4 : 0;

	if (sp->fork_state == FORK_RESTORE || sp->fork_state == FORK_UNGUARD)
		return (struct timespec){0, 0};
	if (ns < 500000 || sp->npending || sp->slots_busy || sp->unsharing || sp->cold.passing)
		ns = 500000;
	/* Of hundreds of processes those that do nothing are looked at less often. */
	if (sp->last_account_ns - sp->last_fault_ns > AT_WORK_NS &&
	    sp->last_account_ns - sp->last_change_ns > AT_WORK_NS && !sp->slots_busy)
		ns *= 1 + atomic_load(&sp->run->nspaces) / 4;
	if (ns > 100000000)
		ns = 100000000;
	return (struct timespec){0, (long)ns};
}

/* The program's memory: ESRCH is the kernel's word that it is no more. */
static bool memory_lives(const struct space *sp)
{
	struct uffdio_zeropage z = {
		.range = {sp->own_start, AGENT_PAGE}}; /* a guard page: ENOENT */

	return ioctl(sp->uffd, UFFDIO_ZEROPAGE, &z) == 0 || errno != ESRCH;
}

/* False: something is under way in the program. */
static bool poison_page(struct space *sp, uint32_t area, uint64_t page, uint64_t addr)
{
	struct uffdio_poison p = {.range = {addr, AGENT_PAGE}};

	if (sp->run->opts.evict == RUN_EVICT_DISCARD)
		return discard_put_back(sp, area, page, addr);
	return ioctl(sp->uffd, UFFDIO_POISON, &p) == 0 || errno != EAGAIN;
}

/*
 * Before our descriptor goes. When the agent ends, its process has ended or
 * become another program, and its memory goes at once; but threads that die
 * after the agent, or processes that share the memory (CLONE_VM), or a child
 * that could not be served, may look at it still. What is out is poisoned
 * then: they get SIGBUS, and not zeros. Where that cannot be, they get the pages.
 */
static void leave_nothing_to_read(struct space *sp)
{
	uint64_t until = os_clock_ns() + 50000000;

	while (memory_lives(sp) && os_clock_ns() < until)
		usleep(200);
	until = os_clock_ns() + 1000000000;
	for (uint32_t i = 0; i < sp->nsegs && memory_lives(sp); i++) {
		const struct segment *s = &sp->segs[i];
		uint64_t page = s->page, end = s->page + (s->end - s->start) / AGENT_PAGE;

		while (page < end) {
			const uint8_t *p = space_page(sp, s->area, page);

			if (!p) {
				page = (page / CHUNK_PAGES + 1) * CHUNK_PAGES;
				continue;
			}
			if (((*p & PAGE_STATE) == PAGE_OUT || (*p & PAGE_STATE) == PAGE_TRANSIT) &&
			    !poison_page(sp, s->area, page,
					 s->start + (page - s->page) * AGENT_PAGE) &&
			    os_clock_ns() < until) {
				read_what_is_there(
					sp); /* segments may be others now: begin again */
				i = UINT32_MAX;
				break;
			}
			page++;
		}
	}
}

static bool adopt_agent(struct space *sp)
{
	const struct offer *o = &sp->offer;
	struct agent_ready go = {.magic = AGENT_MAGIC, .space = sp->id};

	if (atomic_load(&sp->agent_ready))
		return true;
	if (!atomic_load(&sp->offered))
		return false;
	sp->shm = o->shm;
	sp->sock = o->sock;
	sp->wake = o->wake;
	sp->told = o->told;
	sp->pidfd = o->pidfd;
	sp->identity = o->identity;
	sp->own_start = o->own_start;
	sp->own_end = o->own_end;
	atomic_store(&sp->pid, o->pid);
	/* Not before: a program that runs while nobody looks outgrows its limit. */
	if (send(sp->sock, &go, sizeof(go), MSG_NOSIGNAL) < 0)
		sp->gone = true;
	atomic_store(&sp->agent_ready, true); /* and commands: see die_with_host() */
	return true;
}

void pager_finish(struct space *sp)
{
	struct run *r = sp->run;

	evict_drain(sp, true);
	leave_nothing_to_read(sp);
	while (atomic_load(&sp->jobs))
		sched_yield(); /* a worker has said so, and is about to let go of the space */
	tmem_pool_destroy(r->client, sp->pool);
	os_mutex_lock(&r->lock);
	for (struct space **at = &r->spaces; *at; at = &(*at)->next) {
		if (*at == sp) {
			*at = sp->next;
			break;
		}
	}
	os_mutex_unlock(&r->lock);
	adopt_agent(sp); /* nobody can offer one now; what was offered is ours to free */
	run_hold(r, sp->id, 0, -1);
	os_mutex_lock(&r->lock);
	sp->next = r->ended;
	r->ended = sp;
	os_mutex_unlock(&r->lock);
}

/* Whether the process is still there, where no agent's socket would tell. */
static bool alive_without_agent(struct space *sp)
{
	tell_identity(sp);
	return !sp->gone;
}

void *pager_thread(void *arg)
{
	struct space *sp = arg;
	unsigned quiet = 0;

	sp->thread = pthread_self();
	sp->has_thread = true;
	home_init(sp);
	while (!sp->gone && !atomic_load(&sp->stop)) {
		bool agent = adopt_agent(sp);
		struct pollfd p[4] = {{.fd = sp->uffd, .events = POLLIN},
				      {.fd = agent ? sp->wake : -1, .events = POLLIN},
				      {.fd = agent ? sp->sock : -1, .events = POLLIN},
				      {.fd = agent ? sp->told : -1, .events = POLLIN}};
		struct timespec wait = agent ? idle(sp) : (struct timespec){0, 5000000};
		int n = ppoll(p, 4, &wait, NULL);

		if (n > 0) {
			pager_read_ready(sp, p[0].revents);
			pager_woken(sp, p[1].revents, p[3].revents);
		}
		if (n > 0 && p[2].revents)
			break; /* the process ended, or became another program */
		evict_complete(sp);
		serve_pending(sp);
		if (agent && sp->careful)
			fork_step(sp);
		if (agent)
			claim_step(sp);
		if (agent && sp->managed) {
			evict_before_fork(sp);
			evict_ahead(sp);
		}
		if (agent)
			tick(sp);
		else if (n == 0 && ++quiet % 20 == 0 && !alive_without_agent(sp))
			break;
	}
	home_end(sp);
	pager_finish(sp);
	return NULL;
}
