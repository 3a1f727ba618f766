/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Forks that the kernel does not tell about.
 *
 * With CAP_SYS_PTRACE a fork is an event, and the child's pages are served from
 * a clone of the pool (child.c). Without it a child would read zeros where pages
 * are out, and nobody would know. So, in a *careful* space (proto/agent.h):
 *
 *   I1  a page that is out => its mapping is guarded (MADV_DONTFORK): a child
 *       that was made behind our backs does not have the mapping at all, and
 *       gets SIGSEGV. Fail-stop instead of zeros.
 *   I2  OPEN => no page is out or on its way, no mapping is guarded
 *
 *            fork_asked                all pages in         guards off: fork_ready
 *     NONE ------------> RESTORE -----------------> UNGUARD ----------------> OPEN
 *       ^                                                                       |
 *       +------------- fork_over == fork_asked: new guards before pages leave --+
 *
 * Only the pager thread changes the state; nothing leaves but in NONE, so what a
 * walk has found to be in stays in. An mremap can carry pages past the walk: it
 * is repeated until one finds nothing, with no event read in between.
 *
 * The price: everything is resident at a fork, whatever the limit says, and stays
 * so while the child shares it. That is reported as time over the limit.
 *
 * A guard is set on whole runs of neighbouring segments, since a mapping of which
 * a part is marked is two mappings, and mremap refuses to move two. Nothing keeps
 * a mapping from growing or moving between our look and the mark; so one is only
 * marked when it has been where it is for some time, and the kernel says at the
 * last moment that it is as we know it. What moves all the time stays in.
 */
#include "frontswap/pager/run.h"

#include "os/clock.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STEP_CLUSTERS 64 /* brought in between two looks at events and faults */
#define UNGUARD_TRIES 100
#define SETTLE_NS     20000000ull /* a mapping that has not moved for so long is marked */

static bool forks_pending(struct space *sp)
{
	return atomic_load(&sp->shm->fork_asked) != atomic_load(&sp->shm->fork_over);
}

/*
 * Runs of neighbouring segments from fork_addr on into commands; with `unguarded`
 * only those that hold one without a guard. The number of commands.
 */
static uint32_t name_runs(struct space *sp, bool unguarded)
{
	uint64_t now = os_clock_ns();
	uint32_t n = 0, i = 0, k;

	while (i < sp->nsegs && n < AGENT_BATCH) {
		bool wanted = !unguarded, young = false;

		for (k = i; k < sp->nsegs && (k == i || sp->segs[k].start == sp->segs[k - 1].end);
		     k++) {
			wanted |= !sp->segs[k].guarded;
			young |= unguarded && now - sp->segs[k].since_ns < SETTLE_NS;
		}
		if (wanted && !young && sp->segs[i].start >= sp->fork_addr &&
		    (!unguarded || maps_whole(sp->pid, sp->segs[i].start, sp->segs[k - 1].end))) {
			sp->cmds[n++] = (struct agent_cmd){
				.addr = sp->segs[i].start,
				.pages = (sp->segs[k - 1].end - sp->segs[i].start) / AGENT_PAGE};
			sp->fork_addr = sp->segs[k - 1].end;
		}
		i = k;
	}
	return n;
}

/* Send them and wait: some microseconds a mapping. False: the process ended. */
static bool command(struct space *sp, uint32_t op, uint32_t n)
{
	evict_send(sp, op, n);
	return evict_wait(sp);
}

static void note_guards(struct space *sp, uint32_t n)
{
	for (uint32_t c = 0; c < n; c++) {
		const struct agent_cmd *cmd = &sp->cmds[c];
		int32_t error = agent_answer(sp->shm->cmds[c].error);

		for (uint32_t i = 0; i < sp->nsegs && !error; i++)
			if (sp->segs[i].start >= cmd->addr &&
			    sp->segs[i].end <= cmd->addr + cmd->pages * AGENT_PAGE)
				sp->segs[i].guarded = true;
	}
}

bool fork_allows(struct space *sp)
{
	uint32_t n;

	if (sp->fork_state != FORK_NONE || forks_pending(sp) ||
	    (sp->ndeferred && !events_quiet(sp)))
		return false;
	sp->fork_addr = 0;
	/* What is marked must be what the books say: see events.c. */
	while ((n = name_runs(sp, true)) > 0) {
		if (!events_quiet(sp) || !command(sp, AGENT_OP_GUARD, n))
			return false;
		note_guards(sp, n);
	}
	return true;
}

/* Bring pages in. False: not all are, yet. */
static bool restore(struct space *sp)
{
	unsigned some = 0;

	evict_drain(sp, true);
	if (sp->slots_busy) /* refused by the store, and now by the kernel: soon */
		return false;
	for (uint32_t i = 0; i < sp->nsegs && !sp->gone; i++) {
		uint64_t page, end;

		if (sp->segs[i].end <= sp->fork_addr)
			continue;
		page = sp->segs[i].page;
		end = page + (sp->segs[i].end - sp->segs[i].start) / AGENT_PAGE;
		if (sp->fork_addr > sp->segs[i].start)
			page += (sp->fork_addr - sp->segs[i].start) / AGENT_PAGE;
		while (page < end) {
			struct segment *s = &sp->segs[i];
			const uint8_t *p = space_page(sp, s->area, page);

			if (!p) {
				page = (page / CHUNK_PAGES + 1) * CHUNK_PAGES;
				continue;
			}
			if ((*p & PAGE_STATE) == PAGE_OUT) {
				sp->fork_addr = s->start + (page - s->page) * AGENT_PAGE;
				if (some++ == STEP_CLUSTERS || !bring_in(sp, s, page, true) ||
				    sp->gone)
					return false;
				sp->fork_brought++;
				if (sp->run->opts.automatic) /* in vain, if it forks often */
					atomic_fetch_add(&sp->run->automatic.promotions, 1);
			}
			page++;
		}
	}
	if (!sp->fork_brought)
		return true;
	sp->fork_brought = 0; /* once more: see the top */
	sp->fork_addr = 0;
	return false;
}

/*
 * What has moved and is not read yet has taken its guard with it, and the agent finds nothing, or
 * something else, where we say that it is. So all is done again until it is sure that nothing did;
 * not for ever, for a program that does nothing but move mappings is never sure: then its child
 * does not have what moved in the very moment (I1).
 */
static bool unguard(struct space *sp)
{
	uint64_t changes = sp->changes;
	bool met = true;
	uint32_t n;

	if (atomic_load(&sp->shm->done) != sp->command)
		return false;
	sp->fork_addr = 0;
	while ((n = name_runs(sp, false)) > 0) {
		if (!command(sp, AGENT_OP_UNGUARD, n))
			return false;
		for (uint32_t i = 0; i < n; i++)
			met &= !agent_answer(sp->shm->cmds[i].error);
	}
	if ((!met || !events_quiet(sp) || sp->changes != changes) &&
	    sp->fork_tries++ < UNGUARD_TRIES)
		return false;
	for (uint32_t i = 0; i < sp->nsegs; i++)
		sp->segs[i].guarded = false;
	return true;
}

static void answer(struct space *sp)
{
	uint32_t asked = atomic_load(&sp->shm->fork_asked);

	if (atomic_exchange(&sp->shm->fork_ready, asked) != asked)
		syscall(SYS_futex, &sp->shm->fork_ready, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

bool fork_step(struct space *sp)
{
	/* By books that are behind, what is out could not be told. */
	if ((sp->fork_state == FORK_RESTORE || sp->fork_state == FORK_UNGUARD) && sp->ndeferred &&
	    !events_quiet(sp))
		return !sp->gone;
	switch (sp->fork_state) {
	case FORK_NONE:
		if (!forks_pending(sp))
			return false;
		sp->fork_state = FORK_RESTORE;
		sp->fork_addr = sp->fork_brought = sp->fork_tries = 0;
		break;
	case FORK_RESTORE:
		if (!restore(sp))
			break;
		sp->fork_state = FORK_UNGUARD;
		/* fallthrough */
	case FORK_UNGUARD:
		if (!unguard(sp))
			break;
		sp->fork_state = FORK_OPEN;
		/* fallthrough */
	case FORK_OPEN:
		answer(sp);
		if (forks_pending(sp))
			break;
		/* What was shared may still be: see unshare_more(). */
		sp->forked = true;
		sp->fork_state = FORK_NONE;
		return false;
	}
	return !sp->gone;
}
