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
 */
#include "frontswap/pager/discard.h"
#include "frontswap/pager/run.h"
#include "frontswap/uffd.h"

#include "os/check.h"
#include "os/clock.h"
#include "os/log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESSAGES   32
#define PSS_NS	   100000000ull
#define A_LITTLE   65536u
#define AT_WORK_NS 20000000ull

void pager_fail(struct space *sp, const char *why)
{
	os_log(OS_LOG_ERROR, "process %d is ended: %s", (int)sp->pid, why);
	sp->gone = true;
	if (!peer_kill(sp))
		run_abandon(sp->run); /* a child not known by number */
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

/* ---- events --------------------------------------------------------------------------- */

void pager_read_what_is_there(struct space *sp)
{
	struct pollfd p = {.fd = sp->uffd, .events = POLLIN};

	if (poll(&p, 1, 0) > 0)
		pager_read_ready(sp, p.revents);
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
			child_begins(sp, (int)msgs[i].arg.fork.ufd);
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
			serve_later(sp, m->arg.pagefault.address & ~(uint64_t)(AGENT_PAGE - 1),
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
	if (revents & POLLERR) {
		pager_fail(sp, "its userfaultfd was made to block");
	} else if (revents & POLLIN) {
		discard_reads(sp, true);
		read_events(sp);
		discard_reads(sp, false);
	}
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
	if (sp->managed && maps_due(sp, now, size, data)) {
		sp->maps_size = size;
		sp->maps_data = data;
		sp->next_scan_ns = 0;
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
				pager_read_what_is_there(
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
	serve_identity(sp);
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
				      {.fd = agent ? sp->wake : sp->come, .events = POLLIN},
				      {.fd = agent ? sp->sock : -1, .events = POLLIN},
				      {.fd = agent ? sp->told : -1, .events = POLLIN}};
		struct timespec wait = agent ? idle(sp) : (struct timespec){0, 5000000};
		int n = ppoll(p, 4, &wait, NULL);

		if (n > 0) {
			pager_read_ready(sp, p[0].revents);
			pager_woken(sp, agent ? p[1].revents : 0, p[3].revents);
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
