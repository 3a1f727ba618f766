/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * After a fork: pages that were shared become the program's own again, so that they can leave.
 */
#include "frontswap/pager/run.h"

#include "os/lock.h"

/* Whether no process is left that this one may share pages with. */
bool unshare_can(struct space *sp)
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
void unshare_step(struct space *sp)
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
