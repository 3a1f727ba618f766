/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eviction: which pages leave, and how.
 *
 * The only sight of what a program uses is its faults. Two queues of pages in
 * the manner of S3-FIFO: what comes in for the first time goes to *probation*;
 * what faults back in after fewer evictions than there are resident pages (it
 * would have stayed had memory been twice as large) goes to *main*. Victims
 * come from probation while it holds more than a tenth of all, else from main.
 * A page that is asked for while it is still in its slot comes back from
 * there: a second chance that costs no decompression.
 *
 * With a victim those of its cluster's block leave that came at the same time:
 * stored together, they come back by one fault. Queues of whole blocks would be
 * smaller, but a page in use keeps seven cold ones there, or leaves with them:
 * redis took six times the faults (docs/figures.md).
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
#include "frontswap/uffd.h"

#include "os/check.h"
#include "os/clock.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RESYNC_NS     250000000ull
#define POOR_NS	      10000000000ull
#define AHEAD_BYTES   (192u * AGENT_PAGE) /* evicted ahead of need */
#define ROUND_PAGES   32u
#define FLIGHT_PAGES  128u /* in slots: what is not worth more memory */
#define SLOTS_LARGE   8u   /* of AGENT_SLOT_PAGES */
#define SLOT_SMALL    2u   /* pages of the others */
#define COMPANY	      64u  /* arrivals: pages of a cluster so close together leave together */
#define FORK_ROOM_MAX (256ull << 20)
#define FORK_PAUSE_NS 10000000000ull
#define FLOOR_MOST    256u /* pages that a process at work keeps, see evictable() */
#define FLOOR_LEAST   32u
#define AT_WORK_NS    20000000ull
#define SLOTS_IDLE_NS 50000000ull

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

/* ---- victims --------------------------------------------------------------------------- */

/* Whether some thread stands on the page (its stack or its TLS). */
static bool excluded(const struct space *sp, uint64_t addr)
{
	if ((addr >= sp->own_start && addr < sp->own_end) ||
	    claim_covers(sp, addr, addr + AGENT_PAGE))
		return true;
	for (unsigned i = 0; i < AGENT_THREADS; i++) {
		const struct agent_thread *t = &sp->shm->threads[i];

		if (atomic_load_explicit(&t->tid, memory_order_relaxed) == AGENT_TID_END)
			return false;
		if (addr >= atomic_load_explicit(&t->start, memory_order_relaxed) &&
		    addr < atomic_load_explicit(&t->end, memory_order_relaxed))
			return true;
	}
	return false;
}

static bool victim(const struct space *sp, uint8_t state, uint64_t addr)
{
	return (state & (PAGE_STATE | PAGE_BUSY | PAGE_REMOVED | PAGE_POOR | PAGE_PINNED)) ==
		       PAGE_RESIDENT &&
	       !excluded(sp, addr);
}

/*
 * Slots are there for a run of pages or for a page that leaves alone; what was touched
 * of their memory counts, so most are only ever used for the latter.
 */
static uint32_t slot_room(unsigned index)
{
	return index < SLOTS_LARGE ? AGENT_SLOT_PAGES : SLOT_SMALL;
}

static struct slot *free_slot(struct space *sp, uint32_t pages, unsigned *index)
{
	for (unsigned k = 0; k < AGENT_SLOTS; k++) {
		unsigned i = (k + (pages <= SLOT_SMALL ? SLOTS_LARGE : 0)) % AGENT_SLOTS;

		if (slot_room(i) >= pages &&
		    atomic_load_explicit(&sp->slots[i].state, memory_order_relaxed) == SLOT_FREE) {
			*index = i;
			return &sp->slots[i];
		}
	}
	return NULL;
}

static void slot_free(struct space *sp, struct slot *sl)
{
	sp->flight_pages -= sl->pages;
	sp->slots_busy--;
	atomic_store(&sl->state, SLOT_FREE);
}

/* A slot gets n pages more; its memory counts from when it is first touched. */
static void slot_grow(struct space *sp, struct slot *sl, uint32_t n)
{
	sl->pages += n;
	sp->flight_pages += n;
	if (sl->pages > sl->touched) {
		atomic_fetch_add(&sp->shm_bytes, (uint64_t)(sl->pages - sl->touched) * AGENT_PAGE);
		sl->touched = sl->pages;
	}
}

static bool next_page(struct space *sp, uint64_t *v)
{
	struct queue *first = &sp->probation, *second = &sp->main;

	if (sp->probation.count * 10 < sp->probation.count + sp->main.count) {
		first = &sp->main;
		second = &sp->probation;
	}
	return queue_pop(first, v) || queue_pop(second, v);
}

/* The command that the run at addr can be added to: the last one, when it ends there. */
static struct agent_cmd *last_command(struct space *sp, uint32_t ncmds, uint32_t area,
				      uint64_t page, uint64_t addr, uint32_t n)
{
	struct agent_cmd *cmd = ncmds ? &sp->cmds[ncmds - 1] : NULL;
	const struct slot *sl = cmd ? &sp->slots[cmd->slot] : NULL;

	if (!cmd || sl->area != area || sl->first + sl->pages != page ||
	    sl->pages + n > slot_room(cmd->slot) ||
	    cmd->addr + (uint64_t)sl->pages * AGENT_PAGE != addr)
		return NULL;
	return cmd;
}

static struct agent_cmd *new_command(struct space *sp, uint32_t *ncmds, uint32_t area,
				     uint64_t page, uint64_t addr, uint32_t n)
{
	unsigned index;
	struct slot *sl = *ncmds < AGENT_BATCH ? free_slot(sp, n, &index) : NULL;
	struct agent_cmd *cmd;

	if (!sl)
		return NULL;
	cmd = &sp->cmds[(*ncmds)++];
	*cmd = (struct agent_cmd){.addr = addr, .slot = index};
	sl->area = area;
	sl->first = page;
	sl->pages = sl->moved = sl->dropped = sl->kept = 0;
	sl->stored = sl->unchanged = sl->poor = 0;
	atomic_store(&sl->state, SLOT_MOVING);
	sp->slots_busy++;
	return cmd;
}

/*
 * Slots of a process from which nothing leaves go back to the OS: some megabytes,
 * times the processes of a database server, is more than some of them need.
 */
void evict_slots_return(struct space *sp)
{
	if (!sp->shm_bytes || sp->slots_busy || atomic_load(&sp->shm->done) != sp->command ||
	    os_clock_ns() - sp->last_round_ns < SLOTS_IDLE_NS ||
	    madvise(sp->shm->slots, sizeof(sp->shm->slots), MADV_REMOVE) < 0)
		return;
	for (unsigned i = 0; i < AGENT_SLOTS; i++)
		sp->slots[i].touched = 0;
	atomic_store(&sp->shm_bytes, 0);
}

/* A victim becomes page k of a slot (I4), which learns what a kept copy has. */
static void page_leaves(struct chunk *c, uint64_t page, struct slot *sl, uint32_t k)
{
	uint8_t p = c->page[page % CHUNK_PAGES];

	if (p & PAGE_KEPT) {
		sl->kept |= 1u << k;
		sl->print[k] = c->print[page % CHUNK_PAGES];
	}
	space_set_page(c, page, (uint8_t)((p & ~PAGE_STATE) | PAGE_TRANSIT));
}

/*
 * Name pages of a cluster's block in commands, one for each run of neighbours, which
 * blocks that follow each other share. False: no room in the round for all of them.
 */
bool evict_name(struct space *sp, uint32_t area, uint64_t first, uint32_t goes, uint32_t *ncmds,
		uint64_t *pages)
{
	struct chunk *c = space_chunk(sp, area, first, false);

	for (uint32_t i = 0, n; goes >> i; i += n) {
		uint64_t addr = goes >> i & 1 ? space_address(sp, area, first + i) : 0;
		const struct segment *seg = addr ? space_find(sp, addr) : NULL;
		const uint8_t *p = &c->page[(first + i) % CHUNK_PAGES];
		struct agent_cmd *cmd;

		n = 1;
		if (!seg || seg->area != area || seg->settled > sp->epoch ||
		    (sp->careful && !seg->guarded) || !victim(sp, *p, addr))
			continue;
		while (goes >> (i + n) & 1 && addr + n * AGENT_PAGE < seg->end &&
		       victim(sp, p[n], addr + (uint64_t)n * AGENT_PAGE))
			n++;
		cmd = last_command(sp, *ncmds, area, first + i, addr, n);
		if (!cmd)
			cmd = new_command(sp, ncmds, area, first + i, addr, n);
		if (!cmd)
			return false;
		for (uint32_t k = 0; k < n; k++)
			page_leaves(c, first + i + k, &sp->slots[cmd->slot], cmd->pages + k);
		cmd->pages += n;
		slot_grow(sp, &sp->slots[cmd->slot], n);
		*pages += n;
	}
	return true;
}

/*
 * Who leaves with a page: of its cluster's block those that came when it came, and to
 * the same queue. They were wanted together or not at all, and are stored together.
 */
static uint32_t company(const struct space *sp, const struct chunk *c, uint64_t page)
{
	uint64_t first = page % CHUNK_PAGES & -(uint64_t)sp->run->opts.cluster;
	const struct place *at = &c->place[page % CHUNK_PAGES];
	bool with = !(sp->run->opts.without & COMPANY_LEAVES);
	uint32_t goes = 0;

	for (uint32_t i = 0; i < sp->run->opts.cluster; i++) {
		const struct place *o = &c->place[first + i];

		if (o == at || (with && o->queued == QUEUED && o->main == at->main &&
				o->stamp - at->stamp + COMPANY < 2 * COMPANY))
			goes |= 1u << i;
	}
	return goes;
}

/* Pages leave the queues: the first by its entry, the others' entries are stale. */
static void leave_queues(struct space *sp, struct chunk *c, uint64_t first, uint32_t goes,
			 uint64_t page)
{
	for (uint32_t m = goes; m; m &= m - 1) {
		uint64_t at = first + (uint32_t)__builtin_ctz(m);
		struct place *o = &c->place[at % CHUNK_PAGES];

		/* What of it stays (pinned, poor) comes back by a resync. */
		o->queued = at == page ? QUEUED_NOT : QUEUED_STALE;
		o->main = 0;
		o->stamp = ++sp->evict_clock;
		sp->queued_pages--;
	}
}

static void name_victims(struct space *sp, uint64_t want, uint32_t *ncmds)
{
	uint64_t pages = 0, v;
	uint32_t tries = sp->probation.count + sp->main.count;

	/* The last block may add all of its pages. */
	if (want > AGENT_ROUND + 1 - sp->run->opts.cluster)
		want = AGENT_ROUND + 1 - sp->run->opts.cluster;
	while (pages < want && *ncmds < AGENT_BATCH && tries-- && next_page(sp, &v)) {
		uint32_t area = (uint32_t)(v >> 40), goes;
		uint64_t page = v & ((1ull << 40) - 1);
		uint64_t first = page & -(uint64_t)sp->run->opts.cluster;
		struct chunk *c = space_chunk(sp, area, page, false);
		struct place *at = c ? &c->place[page % CHUNK_PAGES] : NULL;

		sp->dead_entries -= !c; /* unmapped since */
		if (!at || at->queued == QUEUED_NOT)
			continue;
		if (at->queued != QUEUED) {
			bool again = at->queued == QUEUED_AGAIN;

			at->queued = QUEUED_NOT;
			if (again) {
				sp->queued_pages--;
				space_enqueue(sp, at, area, page);
			}
			continue;
		}
		goes = company(sp, c, page);
		if (!evict_name(sp, area, first, goes, ncmds, &pages)) {
			queue_push_front(at->main ? &sp->main : &sp->probation, v);
			break;
		}
		leave_queues(sp, c, first, goes, page);
		bring_left(sp, c, page);
	}
}

/* ---- after a fork ------------------------------------------------------------------------- */

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

/* Whether no process is left that this one may share pages with. */
static bool alone(struct space *sp)
{
	unsigned n = 0;

	os_mutex_lock(&sp->run->lock);
	for (struct space *o = sp->run->spaces; o; o = o->next)
		n += o->family == sp->family;
	os_mutex_unlock(&sp->run->lock);
	return n == 1;
}

/*
 * A page that a fork shared is refused by MOVE even when the other process is
 * long gone, until it is written to. Runs of resident pages are, by the agent,
 * a few a command; faults go on being served. When the last run is done the
 * space is as if it had never forked.
 */
static void unshare_more(struct space *sp)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < sp->nsegs && n < AGENT_BATCH; i++) {
		const struct segment *s = &sp->segs[i];
		uint64_t addr = sp->unshare_at > s->start ? sp->unshare_at : s->start;

		for (; addr < s->end && n < AGENT_BATCH; addr += AGENT_PAGE) {
			const uint8_t *p =
				space_page(sp, s->area, s->page + (addr - s->start) / AGENT_PAGE);
			struct agent_cmd *last = n ? &sp->cmds[n - 1] : NULL;

			sp->unshare_at = addr + AGENT_PAGE;
			if (!p || (*p & (PAGE_STATE | PAGE_REMOVED)) != PAGE_RESIDENT)
				continue;
			if (last && last->addr + (uint64_t)last->pages * AGENT_PAGE == addr)
				last->pages++;
			else
				sp->cmds[n++] = (struct agent_cmd){.addr = addr, .pages = 1};
		}
	}
	if (!n) {
		sp->unsharing = false;
		sp->forked = false;
		keep_end(sp);
		atomic_store(&sp->shared_off, 0);
		evict_resync(sp);
		return;
	}
	evict_send(sp, AGENT_OP_UNSHARE, n);
}

/*
 * Queue every resident page that is on no queue. What could not
 * be moved gets another chance; what did not compress, every ten seconds.
 */
void evict_resync(struct space *sp)
{
	uint64_t now = os_clock_ns();
	uint8_t again = PAGE_PINNED;

	sp->last_resync_ns = now;
#if TMEM_CHECKS >= 2
	tmem_assert(I7, space_verify(sp) == 0);
#endif
	if (now - sp->last_poor_ns > POOR_NS) {
		again |= PAGE_POOR;
		sp->last_poor_ns = now;
	}
	if (sp->forked && !sp->unsharing && alone(sp)) {
		sp->unsharing = true;
		sp->unshare_at = 0;
	}
	for (uint32_t a = 0; a < sp->nareas; a++) {
		for (uint32_t i = 0; i < sp->areas[a].nchunks; i++) {
			struct chunk *c = sp->areas[a].chunks[i];

			for (uint32_t p = 0; c && p < c->pages; p++) {
				struct place *at = &c->place[p];

				c->page[p] &= (uint8_t)~again;
				if ((c->page[p] & (PAGE_STATE | PAGE_REMOVED | PAGE_POOR)) ==
					    PAGE_RESIDENT &&
				    at->queued == QUEUED_NOT)
					space_enqueue(sp, at, a, (uint64_t)i * CHUNK_PAGES + p);
			}
		}
	}
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
						       (error == EAGAIN ? 0 : PAGE_PINNED));
			}
			if (error == EAGAIN) {
				uint64_t addr = space_address(sp, sl->area, sl->first + k);
				struct segment *seg = addr ? space_find(sp, addr) : NULL;

				if (seg)
					space_mark_resident(sp, seg, addr, 1, ARRIVAL_FRESH);
			}
		}
		atomic_fetch_add_explicit(&sp->run->n.rounds_disturbed, error == EAGAIN,
					  memory_order_relaxed);
		atomic_fetch_add_explicit(&sp->run->n.busy_pages, error == EBUSY,
					  memory_order_relaxed);
		if (sl->moved) {
			atomic_store(&sl->state, SLOT_COPYING);
		} else {
			slot_free(sp, sl);
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
		unshare_more(sp);
	if (atomic_load(&shm->done) != sp->command || !events_quiet(sp))
		return 0;
	sp->epoch++;
	want = sp->flight_pages + AGENT_ROUND > FLIGHT_PAGES ? 0 : evictable(sp, want);
	if (want && sp->cold.turn)
		auto_victims(sp, want, &ncmds);
	else if (want)
		name_victims(sp, want, &ncmds);
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
	slot_free(sp, sl);
	return true;
}

static bool complete(struct space *sp, bool give_back, bool force)
{
	bool some = false;

	if (!sp->slots_busy)
		return false;
	copied_out(sp, force, &some);
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
				slot_free(sp, &sp->slots[i]);
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
