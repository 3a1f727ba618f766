/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eviction: when pages leave, and how. Which: victims.c.
 *
 * A round: victims are marked TRANSIT (I4) and named in the command; the agent
 * moves them out (phase 1, during which no event is read, see proto/agent.h)
 * and copies them to their slots (phase 2, while faults are served); workers
 * compress and store; evict_complete() settles the states.
 *
 *      victim --- phase 1 ---> MOVING --- phase 2 ---> COPYING --> QUEUED --> STORED --> FREE
 *                 waited for             eventfd                  worker     eventfd
 *
 * A store that is full refuses: what the program holds is larger than the limit even
 * compressed. Then nothing leaves until there is room again, the limit is not held, and
 * the user is told. To go on would be to compress all that is resident at each fault, in
 * vain: nine processes of 36 MiB in 32 had made 9,000 faults after a minute.
 */
#include "frontswap/pager/discard.h"
#include "frontswap/pager/run.h"

#include "os/clock.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RESYNC_NS     250000000ull
#define AHEAD_BYTES   (192u * AGENT_PAGE) /* evicted ahead of need */
#define ROUND_PAGES   32u
#define FLIGHT_PAGES  128u /* in slots: what is not worth more memory */
#define FORK_ROOM_MAX (256ull << 20)
#define FORK_PAUSE_NS 10000000000ull
#define FLOOR_MOST    256u /* pages that a process at work keeps, see evictable() */
#define FLOOR_LEAST   32u
#define AT_WORK_NS    20000000ull

/*
 * Processes without an agent keep all they have (strays.c). Those that are managed make
 * room for it, but not more than half of the limit: the rest would be worked with in vain.
 */
static uint64_t managed_limit(const struct run *r)
{
	uint64_t limit = r->opts.limit_bytes, stray = atomic_load(&r->stray_bytes);

	return stray > limit / 2 ? limit + stray - limit / 2 : limit;
}

uint64_t run_goal_high(const struct run *r)
{
	uint64_t limit = managed_limit(r);
	uint64_t margin = limit / 128 > (1u << 20) ? limit / 128 : 1u << 20;

	return limit - margin;
}

uint64_t run_goal_managed(const struct run *r)
{
	uint64_t limit = managed_limit(r);
	uint64_t headroom = limit / 4 < (16u << 20) ? limit / 4 : 16u << 20;

	return limit - (headroom > limit / 8 ? headroom : limit / 8);
}

uint64_t run_goal_low(const struct run *r)
{
	return run_goal_high(r) - AHEAD_BYTES;
}

static long futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

void evict_send(struct space *sp, uint32_t op, uint32_t ncmds)
{
	struct agent_shm *shm = sp->shm;

	memcpy(shm->cmds, sp->cmds, ncmds * sizeof(sp->cmds[0]));
	shm->op = op;
	shm->ncmds = ncmds;
	sp->command++;
	atomic_store(&shm->command, sp->command);
	futex(&shm->command, FUTEX_WAKE, 1, NULL);
}

/* ---- a round ------------------------------------------------------------------------------ */

static bool agent_gone(struct space *sp)
{
	struct pollfd p = {.fd = sp->sock, .events = POLLIN};

	return poll(&p, 1, 0) > 0 && p.revents;
}

/* Phase 1: nothing is read from the userfaultfd here. False: the process ended. */
bool evict_wait(struct space *sp)
{
	struct agent_shm *shm = sp->shm;
	struct timespec tick = {0, 5000000};
	uint32_t seen;

	for (unsigned spin = 0; spin < 200; spin++) {
		if (atomic_load(&shm->moved) == sp->command)
			return true;
		__builtin_ia32_pause();
	}
	while ((seen = atomic_load(&shm->moved)) != sp->command) {
		futex(&shm->moved, FUTEX_WAIT, seen, &tick);
		if (atomic_load(&shm->moved) != sp->command && agent_gone(sp)) {
			sp->gone = true;
			return false;
		}
	}
	return true;
}

/*
 * What a page is that the agent did not find. Emptied by the program (I9), or in a mapping that
 * goes or moves just now, whose event is to come: the books follow that. Should neither be true,
 * it was lost, and RESIDENT has who touches it end (serve_resident()) instead of reading zeros.
 */
static uint8_t missing(const struct space *sp, const struct chunk *c, uint64_t page)
{
	return c->place[page % CHUNK_PAGES].emptied || sp->run->opts.evict == RUN_EVICT_DISCARD
		       ? PAGE_ABSENT
		       : PAGE_RESIDENT | PAGE_PINNED;
}

/* The books after phase 1: what did not move is where it was. */
static uint64_t settle_moved(struct space *sp, uint32_t ncmds)
{
	uint64_t moved = 0;

	for (uint32_t i = 0; i < ncmds; i++) {
		const struct agent_cmd *told = &sp->shm->cmds[i];
		struct slot *sl = &sp->slots[sp->cmds[i].slot];
		uint32_t all = (1u << sl->pages) - 1, absent = agent_answer(told->absent);
		int32_t error = agent_answer(told->error);
		bool again = error == EAGAIN || error == ESTALE;

		sl->moved = agent_answer(told->moved) & all;
		for (uint32_t k = 0; k < sl->pages; k++) {
			struct chunk *c = space_chunk(sp, sl->area, sl->first + k, false);
			uint8_t *p = &c->page[(sl->first + k) % CHUNK_PAGES];

			if (sl->moved >> k & 1) {
				c->place[(sl->first + k) % CHUNK_PAGES].emptied = 0; /* I9 */
				moved++;
				continue;
			}
			if (sl->dropped >> k & 1) { /* while it was being marked: discard.c */
				keep_forget(sp, sl->area, sl->first + k);
				space_slot_over(sp, sl->area, sl->first + k);
				continue;
			}
			if (absent >> k & 1) {
				if (*p & PAGE_KEPT)
					keep_forget(sp, sl->area, sl->first + k);
				space_set_page(c, sl->first + k, missing(sp, c, sl->first + k));
			} else {
				space_set_page(c, sl->first + k,
					       PAGE_RESIDENT | (*p & (PAGE_KEPT | PAGE_ZERO)) |
						       (again ? 0 : PAGE_PINNED));
			}
			if (again) {
				uint64_t addr = space_address(sp, sl->area, sl->first + k);
				struct segment *seg = addr ? space_find(sp, addr) : NULL;
				bool zero = *p & PAGE_ZERO;

				if (seg)
					space_mark_resident(sp, seg, addr, 1, ARRIVAL_FRESH);
				if (seg && zero)
					space_mark_zero(sp, seg, addr, 1);
			}
		}
		atomic_fetch_add_explicit(&sp->run->n.rounds_disturbed, again,
					  memory_order_relaxed);
		atomic_fetch_add_explicit(&sp->run->n.busy_pages, error == EBUSY,
					  memory_order_relaxed);
		if (sl->moved) {
			atomic_store(&sl->state, SLOT_COPYING);
		} else {
			evict_slot_free(sp, sl);
		}
	}
	return moved;
}

/*
 * Pages of `want` that may leave. Where the goal cannot be reached (data that does not
 * compress, buffers that the kernel has pinned, tables larger than the limit) all else
 * would leave at every fault, and come back one by one: fio took a million faults for
 * what is two thousand so. What a process works with just now stays, a little of it,
 * and the excess is reported.
 */
static uint64_t evictable(const struct space *sp, uint64_t want)
{
	uint64_t share = sp->run->opts.limit_bytes / AGENT_PAGE / 32;
	uint64_t floor = share / (atomic_load(&sp->run->nspaces) + 1);

	if (os_clock_ns() - sp->last_fault_ns > AT_WORK_NS)
		return want;
	if (floor > FLOOR_MOST)
		floor = FLOOR_MOST;
	if (floor < FLOOR_LEAST)
		floor = FLOOR_LEAST;
	if (sp->queued_pages <= floor)
		return 0;
	return want < sp->queued_pages - floor ? want : sp->queued_pages - floor;
}

/*
 * Slots that have been copied out go to the workers; *some: one did. False: it is still to be
 * settled what the last round without UFFDIO_MOVE has brought.
 *
 * All of them, before the next round begins: while its marks are made a fork may be read, which
 * waits for everything that was copied, and the agent, meanwhile, for us.
 */
static bool copied_out(struct space *sp, bool force, bool *some)
{
	unsigned copied[AGENT_SLOTS], n = 0;
	bool settled = discard_settled(sp, force);

	for (unsigned i = 0; i < AGENT_SLOTS && settled; i++) {
		struct slot *sl = &sp->slots[i];
		uint64_t bytes = (uint64_t)__builtin_popcount(sl->moved) * AGENT_PAGE;

		if (atomic_load(&sl->state) != SLOT_COPYING ||
		    atomic_load(&sp->shm->done) != sp->command)
			continue;
		atomic_fetch_sub(&sp->resident, bytes);
		atomic_fetch_sub(&sp->run->total_bytes, bytes);
		atomic_store(&sl->state, SLOT_QUEUED);
		copied[n++] = i;
	}
	worker_submit(sp, copied, n);
	*some = n > 0;
	return settled;
}

/*
 * With checks, every other round begins just when the one before has been copied out: else the
 * main loop has seen that first, all but always.
 */
static void begin_rarely(struct space *sp)
{
#if TMEM_CHECKS >= 1
	static _Atomic unsigned rounds;

	if (atomic_fetch_add(&rounds, 1) % 2 || !atomic_load(&sp->agent_ready))
		return;
	for (unsigned i = 0; i < 100 && atomic_load(&sp->shm->done) != sp->command; i++)
		usleep(50);
#else
	(void)sp;
#endif
}

uint64_t evict_round(struct space *sp, uint64_t want)
{
	struct agent_shm *shm = sp->shm;
	uint32_t ncmds = 0;
	uint64_t moved;
	bool some;

	begin_rarely(sp);
	if (!atomic_load(&sp->agent_ready) || sp->gone || atomic_load(&shm->done) != sp->command ||
	    atomic_load(&sp->run->store_full) || !copied_out(sp, false, &some))
		return 0;
	if (sp->careful && !fork_allows(sp))
		return 0;
	if (sp->unsharing)
		unshare_step(sp);
	if (atomic_load(&shm->done) != sp->command || !events_quiet(sp))
		return 0;
	sp->epoch++;
	want = sp->flight_pages + AGENT_ROUND > FLIGHT_PAGES ? 0 : evictable(sp, want);
	if (want && sp->cold.turn)
		auto_victims(sp, want, &ncmds);
	else if (want)
		evict_name_victims(sp, want, &ncmds);
	if (!ncmds)
		return 0;
	sp->last_round_ns = os_clock_ns();
	if (sp->run->opts.evict == RUN_EVICT_DISCARD) {
		if (!discard_mark(sp, ncmds))
			return 0;
	} else {
		evict_send(sp, AGENT_OP_EVICT, ncmds);
		if (!evict_wait(sp))
			return 0;
	}
	moved = settle_moved(sp, ncmds);
	atomic_fetch_add_explicit(&sp->run->n.rounds, 1, memory_order_relaxed);
	return moved;
}

/* ---- completion ---------------------------------------------------------------------------- */

/*
 * A slot whose pages the worker has seen. False: pages that the store refused
 * must wait, for the kernel says EAGAIN or because !give_back; then they are all
 * that waits.
 */
static bool settle_stored(struct space *sp, unsigned index, bool give_back)
{
	struct slot *sl = &sp->slots[index];
	uint32_t out = 0, unchanged = 0;
	bool settled = true;

	for (uint32_t k = 0; k < sl->pages; k++) {
		struct chunk *c;
		uint64_t addr, done;

		if (!(sl->moved >> k & 1))
			continue;
		c = space_chunk(sp, sl->area, sl->first + k, false);
		if (sl->dropped >> k & 1) {
			keep_forget(sp, sl->area, sl->first + k);
			space_slot_over(sp, sl->area, sl->first + k);
		} else if (sl->stored >> k & 1) {
			space_set_page(c, sl->first + k, PAGE_OUT);
			if (!(sl->unchanged >> k & 1))
				c->place[(sl->first + k) % CHUNK_PAGES].with = sl->with[k] & 15;
			unchanged += sl->unchanged >> k & 1;
			out++;
		} else {
			addr = space_address(sp, sl->area, sl->first + k);
			if (!give_back ||
			    (addr && sp->run->opts.evict == RUN_EVICT_DISCARD &&
			     discard_hold(sp, addr) < 0) ||
			    (addr && !pager_copy_in(sp, addr,
						    sp->shm->slots[index] + (size_t)k * AGENT_PAGE,
						    1, &done))) {
				settled = false;
				continue;
			}
			space_set_page(c, sl->first + k,
				       PAGE_RESIDENT |
					       (sl->poor >> k & 1 ? PAGE_POOR : PAGE_PINNED));
			atomic_fetch_add_explicit(&sp->run->n.refused_pages, 1,
						  memory_order_relaxed);
		}
		sl->moved &= ~(1u << k);
	}
	atomic_fetch_add_explicit(&sp->run->n.evicted_pages, out, memory_order_relaxed);
	atomic_fetch_add_explicit(&sp->run->n.unchanged_pages, unchanged, memory_order_relaxed);
	if (!settled && !sp->gone)
		return false;
	evict_slot_free(sp, sl);
	return true;
}

static bool complete(struct space *sp, bool give_back, bool force)
{
	bool some = false;

	if (!sp->slots_busy)
		return false;
	copied_out(sp, force, &some);
	if (sp->ndeferred && !events_quiet(sp)) /* by books that are behind nothing comes in */
		give_back = false;
	for (unsigned i = 0; i < AGENT_SLOTS; i++)
		if (atomic_load(&sp->slots[i].state) == SLOT_STORED)
			some |= settle_stored(sp, i, give_back);
	return some;
}

bool evict_complete(struct space *sp)
{
	return complete(sp, true, false);
}

static void wait_wake(struct space *sp)
{
	struct pollfd p[3] = {{.fd = sp->wake, .events = POLLIN},
			      {.fd = sp->sock, .events = POLLIN},
			      {.fd = sp->told, .events = POLLIN}};

	poll(p, 3, 2);
	pager_woken(sp, p[0].revents, p[2].revents);
	if (p[1].revents)
		sp->gone = true;
}

void evict_drain(struct space *sp, bool give_back)
{
	for (;;) {
		bool waiting = false;

		for (unsigned i = 0; i < AGENT_SLOTS; i++) {
			uint32_t state = atomic_load(&sp->slots[i].state);

			if (sp->gone && (state == SLOT_MOVING || state == SLOT_COPYING)) {
				evict_slot_free(sp, &sp->slots[i]);
				state = SLOT_FREE;
			}
			waiting |= (state == SLOT_MOVING && !sp->discard.marking) ||
				   state == SLOT_COPYING || state == SLOT_QUEUED;
		}
		complete(sp, give_back, true);
		if (!waiting)
			return;
		wait_wake(sp);
	}
}

/* Whether some slot will change its state without our reading events. */
static bool under_way(const struct space *sp)
{
	for (unsigned i = 0; i < AGENT_SLOTS; i++) {
		uint32_t state = atomic_load(&sp->slots[i].state);

		if (state == SLOT_MOVING || state == SLOT_COPYING || state == SLOT_QUEUED)
			return true;
	}
	return false;
}

void evict_ahead(struct space *sp)
{
	uint64_t total = pager_total(sp), goal = run_goal_low(sp->run);

	evict_complete(sp);
	if (sp->run->opts.without & EVICT_AHEAD)
		return;
	for (unsigned i = 0; i < AGENT_SLOTS; i++)
		if (atomic_load(&sp->slots[i].state) == SLOT_COPYING)
			goal += (uint64_t)__builtin_popcount(sp->slots[i].moved) * AGENT_PAGE;
	/* A round costs two thread switches: it must be worth them. */
	if (total > goal + ROUND_PAGES * AGENT_PAGE)
		evict_round(sp, (total - goal) / AGENT_PAGE);
}

void evict_to(struct space *sp, uint64_t goal)
{
	uint64_t total, size, data;

	while (!sp->gone && (total = pager_total(sp)) > goal) {
		uint64_t want = (total - goal) / AGENT_PAGE + 1;

		if (atomic_load(&sp->run->store_full)) /* what leaves now would only come back */
			return;
		if (evict_complete(sp) | (evict_round(sp, want) > 0))
			continue;
		if (discard_blocked(sp)) /* until events are read, which is not for us to do here */
			return;
		if (under_way(sp)) {
			wait_wake(sp);
			continue;
		}
		/* Nothing can leave now. Perhaps our estimate is too high; or
		 * pages that could not be moved before can be now. Else we are
		 * over the limit, and that is reported. */
		pager_account(sp, &size, &data);
		if (sp->unsharing)
			return; /* it needs its faults served */
		if (os_clock_ns() - sp->last_resync_ns < RESYNC_NS)
			return;
		evict_resync(sp);
	}
}

void evict_before_fork(struct space *sp)
{
	struct agent_shm *shm = sp->shm;
	uint32_t asked = atomic_load(&shm->fork_asked);
	uint64_t total = pager_total(sp), room = atomic_load(&sp->resident) / 2;
	uint64_t limit = sp->run->opts.limit_bytes, floor = limit / 2, now = os_clock_ns();

	if (sp->careful)
		return;
	/* Small forks (a shell's) are not worth it. */
	atomic_store(&shm->fork_matters, sp->managed && total > limit / 2 && room > limit / 8);
	if (asked == atomic_load(&shm->fork_ready))
		return;
	/* What stays is pinned by the sharing until the child ends, and what both need has
	 * to fit beside it: so little, unless forks come one behind the other. */
	if (now - sp->last_fork_ns > FORK_PAUSE_NS) {
		room = room / 4 * 7;
		floor = 0;
	}
	sp->last_fork_ns = now;
	if (room > FORK_ROOM_MAX)
		room = FORK_ROOM_MAX;
	evict_to(sp, total - room > floor ? total - room : floor);
	atomic_store(&shm->fork_ready, asked);
	futex(&shm->fork_ready, FUTEX_WAKE, INT32_MAX, NULL);
}
