/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eviction on kernels without UFFDIO_MOVE (before 6.8), or by --evict discard.
 *
 * UFFDIO_MOVE does four things at once: it takes a page away from the program,
 * tells nobody, refuses while mappings change, and refuses pages that the kernel
 * is about to write to (O_DIRECT, io_uring buffers). Older kernels have nothing
 * like it. The obvious way is to write-protect the page, copy it, and drop it with
 * MADV_DONTNEED. It is wrong twice. A read that was begun with O_DIRECT goes on
 * writing to the frame that was dropped, and what it writes is lost: protection
 * does not stop a device, and no file in /proc tells of such a page (kpagecount
 * counts mappings, not references). And MADV_DONTNEED takes an address and asks no
 * questions: when one thread has unmapped it and another got it again, meanwhile,
 * it empties memory that has nothing to do with us.
 *
 * The kernel has one way to drop a page that does ask: reclaim of what is marked
 * MADV_FREE. It drops a page if and only if it was not written to since the mark,
 * by a processor or by a device, and nobody else holds a reference. So:
 *
 *    agent                                       kernel             host
 *    write to it  - - - - - - - - - - - - - - -> it is nobody else's, since a fork
 *    vmsplice page into a pipe  - - - - - - - -> a reference: the page cannot go
 *    MADV_FREE                  - REMOVE event - - - - - - - - - -> reads it
 *                                 clean: may go, but for the reference
 *    MARKED - - - - - - - - - - - - - - - - - - - - - - - - - - - > has anything
 *                                                                   changed here?
 *    go:    read the pipe into the slot    <- - - - - - - - - - - - no
 *           MADV_PAGEOUT  - - - - - - - - - - -> drops what is unchanged and unheld
 *           what is there still: write to it     dirty: never dropped
 *    stay:  write to it, then read the pipe <- - - - - - - - - - -  perhaps
 *    DONE - - - - - - - - - - - - - - - - - - - - - - - - - - - - > books
 *
 * Writers never wait: who writes between the mark and the end keeps his page. A
 * page that the kernel drops by itself at any time after the mark is as good as
 * one that we had dropped: its content is in the pipe or in the slot.
 *
 *   E1  the kernel may drop a page  =>  its content, as it would be dropped, is in
 *       the pipe, or in its slot, or in the store. (Copied after the mark. Dropped
 *       means: not written to since the mark. And what is in the pipe is what the
 *       mark is on: D4 in agent/discard.c.)
 *   E2  RESIDENT  =>  the kernel may not drop it (unless the program said so)
 *   E3  OUT  =>  the store's copy is right, or the page is there. A page that is
 *       there never faults, and UFFDIO_COPY does not write over it. So what we
 *       cannot tell is OUT, and comes into no danger by that.
 *   E4  MADV_PAGEOUT changes nothing that a program could see, whatever memory it
 *       meets. MADV_FREE does; so what it met is looked into before anything that
 *       follows: `go` => between two quiet points, around all marks of a command,
 *       no event but our own had to do with its addresses.
 *
 * Events are read while marks are made, or the agent would wait for ever. Our own
 * REMOVE cannot be told from a program's of the same pages at the same time; but
 * once the agent has begun with a page (`tried`) there will be one of ours. So they
 * are counted (`seen`, `twice`): what was seen twice the program has emptied, too.
 * What was seen once it has not, if its mapping is what it was. If not, the mark may
 * have met another mapping and sent no event. That shows when the agent, at the end,
 * writes to the pages where they are now: while the pipe holds them only the program
 * can have made them go, so what is missing it has emptied. Where a mark failed
 * halfway a page is *unsure*: it is taken for one that may be empty soon (REMOVED).
 * Whether it is there has to be found out while the pipe holds it. Mappings may move
 * on meanwhile; so before the second half the agent looks again and again, until no
 * event falls between what the host knows and what the agent has found. Who moves
 * them all the time and never comes to rest for these microseconds, or has pages
 * that cannot be written to, is ended: fail-stop.
 *
 * Faults wait until the marks are made: what a program empties would otherwise be
 * filled again under a mark, and the pipe not hold it. But the agent's own, which
 * can only be for a page that the program has just emptied: it gets the zero page.
 *
 * What is left open. A mapping that took the place of another between the look and
 * the mark (a munmap by one thread, an mmap by the next, and its pages written, in
 * some ten microseconds, or while the agent was off its processor) is marked without
 * being held. The agent sees that mappings change, or hears from here that they did
 * (`disturbed`), and unmarks it at once; would the kernel, short of memory, reclaim
 * just that page between these two calls, a page of zeros would be read. Pages in swap
 * go with the mark itself; so where a process has such, a command that met a
 * changed mapping ends it. UFFDIO_MOVE has neither gap: prefer a newer kernel.
 *
 * A fork that libc does not know of, in a round, gives the child pages that may be
 * dropped and are RESIDENT in its books: if they are, it is ended, and reads no
 * zeros. Forks by libc wait for the end of the round (`window`).
 */
#include "frontswap/pager/discard.h"
#include "frontswap/uffd.h"

#include "os/clock.h"
#include "os/file.h"
#include "os/mem.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define QUIET_NS 20000000ull   /* how long a quiet point is waited for */
#define SURE_NS	 2000000000ull /* how long what is unsure is looked for */
#define POLL_MS	 5

static bool meets(const struct discard_cmd *c, uint64_t start, uint64_t end)
{
	return start < c->addr + (uint64_t)c->pages * AGENT_PAGE && c->addr < end;
}

/* ---- events of a round ------------------------------------------------------------------ */

void discard_changed(struct space *sp, uint64_t start, uint64_t end)
{
	struct discard_round *d = &sp->discard;

	for (uint32_t i = 0; i < d->ncmds; i++)
		if (meets(&d->cmd[i], start, end))
			d->disturbed |= 1u << i;
	if (d->marking)
		atomic_store(&sp->shm->disturbed, d->disturbed);
}

void discard_reads(struct space *sp, bool on)
{
	if (sp->discard.marking)
		atomic_store(&sp->shm->reading, on);
}

bool discard_removed(struct space *sp, uint64_t start, uint64_t end)
{
	struct discard_round *d = &sp->discard;

	for (uint32_t i = 0; d->marking && i < d->ncmds; i++) {
		struct discard_cmd *c = &d->cmd[i];
		uint32_t first, n, mask;

		if (start < c->addr || end > c->addr + (uint64_t)c->pages * AGENT_PAGE)
			continue;
		first = (uint32_t)((start - c->addr) / AGENT_PAGE);
		n = (uint32_t)((end - start) / AGENT_PAGE);
		mask = ((1u << n) - 1) << first;
		if (mask & ~atomic_load(&sp->shm->cmds[i].tried))
			continue; /* not ours: the agent has not come to these pages */
		c->twice |= c->seen & mask;
		c->seen |= mask;
		return true;
	}
	discard_changed(sp, start, end);
	return false;
}

bool discard_fault(struct space *sp, uint64_t addr, uint32_t tid)
{
	if (!sp->discard.marking || (int32_t)tid != atomic_load(&sp->shm->agent_tid))
		return false;
	sp->discard.fault = addr;
	return true;
}

/* The agent wants a page that the program has emptied, and nothing else. */
static void serve_agent(struct space *sp)
{
	struct discard_round *d = &sp->discard;
	struct uffdio_zeropage z = {.range = {d->fault, AGENT_PAGE}};
	const struct segment *seg = space_find(sp, d->fault);
	const uint8_t *p =
		seg ? space_page(sp, seg->area, seg->page + (d->fault - seg->start) / AGENT_PAGE)
		    : NULL;
	bool emptied = false;

	for (uint32_t i = 0; i < d->ncmds; i++)
		if (meets(&d->cmd[i], d->fault, d->fault + 1))
			emptied |= d->cmd[i].seen >> ((d->fault - d->cmd[i].addr) / AGENT_PAGE) & 1;
	if (!emptied && p && (*p & PAGE_STATE) == PAGE_TRANSIT) {
		pager_fail(sp, "a resident page is missing");
		return;
	}
	if (ioctl(sp->uffd, UFFDIO_ZEROPAGE, &z) < 0) {
		if (errno == EAGAIN)
			return;
		ioctl(sp->uffd, UFFDIO_WAKE, &z.range); /* it finds out by itself */
	}
	d->fault = 0;
}

/* ---- first half --------------------------------------------------------------------------- */

static void begin(struct space *sp, uint32_t ncmds)
{
	struct discard_round *d = &sp->discard;

	*d = (struct discard_round){.ncmds = ncmds, .marking = true};
	atomic_store(&sp->shm->reading, 0);
	atomic_store(&sp->shm->disturbed, 0);
	for (uint32_t i = 0; i < ncmds; i++) {
		const struct agent_cmd *cmd = &sp->cmds[i];
		const struct slot *sl = &sp->slots[cmd->slot];

		d->cmd[i] = (struct discard_cmd){
			.addr = cmd->addr, .pages = sl->pages, .slot = cmd->slot};
	}
}

/* Read events until the agent has made its marks. False: the process ended. */
static bool wait_marked(struct space *sp)
{
	struct pollfd p[3] = {{.fd = sp->uffd, .events = POLLIN},
			      {.fd = sp->wake, .events = POLLIN},
			      {.fd = sp->sock, .events = POLLIN}};

	while (!sp->gone && atomic_load(&sp->shm->moved) != sp->command) {
		if (poll(p, 3, sp->discard.fault ? 0 : POLL_MS) < 0)
			continue;
		if (p[0].revents)
			pager_read_ready(sp, p[0].revents);
		pager_woken(sp, p[1].revents, 0);
		if (p[2].revents)
			sp->gone = true;
		if (sp->discard.fault && !sp->gone)
			serve_agent(sp);
	}
	return !sp->gone;
}

/* A quiet point, or all commands count as disturbed. */
static void wait_quiet(struct space *sp)
{
	uint64_t until = os_clock_ns() + QUIET_NS;
	struct pollfd p = {.fd = sp->uffd, .events = POLLIN};

	while (!events_quiet(sp)) {
		if (os_clock_ns() > until) {
			sp->discard.disturbed = ~0u;
			return;
		}
		if (poll(&p, 1, 0) > 0)
			pager_read_ready(sp, p.revents);
		else
			sched_yield();
		if (sp->gone)
			return;
	}
}

/* Where the pages of a slot are now, when they are side by side as they were; else 0. */
static uint64_t address_of(struct space *sp, const struct slot *sl)
{
	uint64_t addr = space_address(sp, sl->area, sl->first);

	for (uint32_t k = 1; addr && k < sl->pages; k++)
		if (space_address(sp, sl->area, sl->first + k) != addr + (uint64_t)k * AGENT_PAGE)
			return 0;
	return addr;
}

static bool has_swapped(const struct space *sp)
{
	char path[40], *text, *at;
	bool has = true;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)sp->pid);
	text = os_file_slurp(path, 65536, NULL);
	at = text ? strstr(text, "VmSwap:") : NULL;
	if (at)
		has = strtoull(at + 7, NULL, 10) > 0;
	os_free(text);
	return has;
}

static void draw_address(struct space *sp, uint32_t i)
{
	struct discard_cmd *c = &sp->discard.cmd[i];

	/* By books that are behind it would be another's. */
	c->again = sp->ndeferred ? 0 : address_of(sp, &sp->slots[c->slot]);
	sp->shm->cmds[i].again = c->again;
	if (c->again)
		c->addr = c->again;
}

/* What becomes of a command: see the top. */
static void judge(struct space *sp, uint32_t i)
{
	struct discard_cmd *c = &sp->discard.cmd[i];
	struct agent_cmd *cmd = &sp->shm->cmds[i];
	struct slot *sl = &sp->slots[c->slot];
	uint32_t all = (1u << c->pages) - 1, moved = agent_answer(cmd->moved) & all;
	uint32_t marked = agent_answer(cmd->marked) & all, gone;
	bool disturbed = sp->discard.disturbed >> i & 1;
	int32_t error = agent_answer(cmd->error);

	c->go = !disturbed && marked == moved && !(moved & ~c->seen) && !(moved & c->twice) &&
		(error == 0 || error == EBUSY);
	cmd->go = c->go;
	draw_address(sp, i);
	/* Whether it was the program that emptied them, too; or by itself, where we did not. */
	gone = c->twice | (c->seen & ~moved);
	c->unsure = moved & ~marked & c->seen & ~c->twice;
	for (uint32_t m = gone & all; m; m &= m - 1) {
		uint32_t k = (uint32_t)__builtin_ctz(m);
		uint64_t addr = space_address(sp, sl->area, sl->first + k);

		if (addr)
			space_drop_range(sp, addr, addr + AGENT_PAGE, false);
		sp->changes++;
	}
	c->unsure &= all & ~sl->dropped;
	if (disturbed && marked && has_swapped(sp))
		pager_fail(sp, "memory was mapped anew where a page was to leave, and some of it "
			       "may have been in swap");
}

static void say_go(struct space *sp, uint32_t go)
{
	atomic_store(&sp->shm->go, go);
	syscall(SYS_futex, &sp->shm->go, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* The agent has tried for this `go`. Its own work waits for nobody, so events can. */
static bool wait_again(struct space *sp, uint32_t go)
{
	struct pollfd p = {.fd = sp->sock, .events = POLLIN};

	for (unsigned i = 1; atomic_load(&sp->shm->again) != go; i++) {
		sched_yield();
		if (i % 64 == 0 && poll(&p, 1, i < 1u << 14 ? 0 : POLL_MS) > 0)
			sp->gone = true;
		if (sp->gone)
			return false;
	}
	return true;
}

/* What the agent has found, if nothing has moved since the addresses were drawn. */
static uint32_t learn(struct space *sp, uint32_t i)
{
	struct discard_cmd *c = &sp->discard.cmd[i];
	uint32_t there = agent_answer(sp->shm->cmds[i].stays);
	uint32_t left = agent_answer(sp->shm->cmds[i].left);

	c->unsure &= ~sp->slots[c->slot].dropped;
	if (!c->again || sp->discard.disturbed >> i & 1)
		return c->unsure;
	c->here |= c->unsure & there;
	c->gone |= c->unsure & ~there & ~left;
	return c->unsure &= ~(c->here | c->gone);
}

/* What stays is looked for where it is now, and changes are counted anew from here on. */
static void look_anew(struct space *sp)
{
	struct discard_round *d = &sp->discard;

	for (uint32_t i = 0; i < d->ncmds; i++)
		if (!d->cmd[i].go) {
			draw_address(sp, i);
			d->disturbed &= ~(1u << i);
		}
}

/* Pages of which it is not known whether the program has emptied them, until it is. */
static void make_sure(struct space *sp)
{
	struct discard_round *d = &sp->discard;
	uint64_t until = os_clock_ns() + SURE_NS;
	uint32_t unsure = 0;

	for (uint32_t i = 0; i < d->ncmds; i++)
		unsure |= d->cmd[i].unsure;
	for (uint32_t k = 0; unsure && k < AGENT_TRIES && os_clock_ns() < until; k++) {
		look_anew(sp);
		say_go(sp, sp->command + AGENT_AGAIN + k);
		if (!wait_again(sp, sp->command + AGENT_AGAIN + k))
			return;
		wait_quiet(sp);
		unsure = 0;
		for (uint32_t i = 0; i < d->ncmds && !sp->gone; i++)
			unsure |= learn(sp, i);
	}
}

bool discard_mark(struct space *sp, uint32_t ncmds)
{
	begin(sp, ncmds);
	evict_send(sp, AGENT_OP_DISCARD, ncmds);
	if (!wait_marked(sp))
		return false;
	wait_quiet(sp);
	for (uint32_t i = 0; i < ncmds && !sp->gone; i++)
		judge(sp, i);
	sp->discard.marking = false;
	sp->discard.disturbed = 0;
	sp->discard.looking = true;
	make_sure(sp);
	sp->discard.looking = false;
	look_anew(sp);
	say_go(sp, sp->command);
	return !sp->gone;
}

/* ---- second half -------------------------------------------------------------------------- */

/* A page is there, and the kernel may not drop it. */
static void stays(struct space *sp, struct slot *sl, uint32_t k, bool unsure)
{
	struct chunk *c = space_chunk(sp, sl->area, sl->first + k, false);
	uint8_t *p = &c->page[(sl->first + k) % CHUNK_PAGES];

	sl->moved &= ~(1u << k);
	if (unsure && *p & PAGE_KEPT)
		keep_forget(sp, sl->area, sl->first + k);
	space_set_page(c, sl->first + k,
		       unsure ? PAGE_RESIDENT | PAGE_REMOVED
			      : PAGE_RESIDENT | PAGE_PINNED | (*p & PAGE_KEPT));
}

/* The program has emptied it. */
static void emptied(struct space *sp, struct slot *sl, uint32_t k)
{
	struct chunk *c = space_chunk(sp, sl->area, sl->first + k, false);

	sl->moved &= ~(1u << k);
	keep_forget(sp, sl->area, sl->first + k);
	space_set_page(c, sl->first + k, PAGE_ABSENT | PAGE_REMOVED);
}

/* A page of which it is not known whether the program has emptied it. */
static void settle_unsure(struct space *sp, struct slot *sl, uint32_t k, bool here, bool left)
{
	if (here) /* it may be empty soon */
		stays(sp, sl, k, true);
	else if (left)
		pager_fail(sp, "a page may have been emptied or not");
	else
		emptied(sp, sl, k);
}

static void settle(struct space *sp, uint32_t i, bool valid)
{
	const struct discard_cmd *c = &sp->discard.cmd[i];
	uint32_t there = agent_answer(sp->shm->cmds[i].stays);
	uint32_t left = agent_answer(sp->shm->cmds[i].left);
	struct slot *sl = &sp->slots[c->slot];

	for (uint32_t m = sl->moved & ~sl->dropped; m && !sp->gone; m &= m - 1) {
		uint32_t k = (uint32_t)__builtin_ctz(m);
		bool here = valid && there >> k & 1;

		if ((c->here | c->gone) >> k & 1)
			settle_unsure(sp, sl, k, c->here >> k & 1, false);
		else if (c->unsure >> k & 1)
			settle_unsure(sp, sl, k, here, !valid || !c->again || left >> k & 1);
		else if (here)
			stays(sp, sl, k, false);
		else if (valid && !c->go && c->again && !(left >> k & 1))
			emptied(sp, sl, k);
		/* else it has gone, or we cannot tell: E3 */
	}
}

bool discard_settled(struct space *sp, bool force)
{
	struct discard_round *d = &sp->discard;
	bool quiet;

	if (!d->ncmds || atomic_load(&sp->shm->done) != sp->command)
		return !d->ncmds;
	quiet = events_quiet(sp);
	if (!quiet && !force)
		return false;
	for (uint32_t i = 0; i < d->ncmds && !sp->gone; i++)
		if (atomic_load(&sp->slots[d->cmd[i].slot].state) == SLOT_COPYING)
			settle(sp, i, quiet && !(d->disturbed >> i & 1));
	d->ncmds = 0;
	return true;
}

bool discard_blocked(const struct space *sp)
{
	return sp->discard.ncmds && atomic_load(&sp->shm->done) == sp->command;
}

/* ---- single pages ------------------------------------------------------------------------- */

static bool present(const struct space *sp, uint64_t addr)
{
	uint64_t e = 0;

	return sp->pagemap >= 0 &&
	       pread(sp->pagemap, &e, sizeof(e), (off_t)(addr / AGENT_PAGE * sizeof(e))) ==
		       sizeof(e) &&
	       e & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED);
}

int discard_hold(struct space *sp, uint64_t addr)
{
	const struct agent_cmd *cmd = &sp->shm->cmds[0];
	uint32_t left, there;

	if (!present(sp, addr))
		return 0;
	if (!atomic_load(&sp->agent_ready))
		return 1;
	if (sp->discard.ncmds || atomic_load(&sp->shm->done) != sp->command || !events_quiet(sp))
		return -EAGAIN;
	sp->cmds[0] = (struct agent_cmd){.addr = addr, .pages = 1};
	evict_send(sp, AGENT_OP_SETTLE, 1);
	if (!evict_wait(sp))
		return -ESRCH;
	left = agent_answer(cmd->left);
	there = agent_answer(cmd->stays);
	return left & 1 ? -EAGAIN : (int)(there & 1);
}

bool discard_put_back(struct space *sp, uint32_t area, uint64_t page, uint64_t addr)
{
	struct uffdio_copy c = {.dst = addr, .src = (uintptr_t)sp->buf, .len = AGENT_PAGE};
	uint64_t index;
	tmem_oid oid;

	space_oid(area, page, &oid, &index);
	if (tmem_get(sp->run->client, sp->pool, &oid, index, sp->buf) != 0)
		return true; /* not to be had; who wants it waits until it is killed */
	return ioctl(sp->uffd, UFFDIO_COPY, &c) == 0 || errno != EAGAIN;
}
