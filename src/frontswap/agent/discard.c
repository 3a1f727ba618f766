/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eviction without UFFDIO_MOVE, in the target. pager/discard.c has the protocol
 * and why it holds; here are its steps:
 *
 *   mark     they are written to                                 (the kernel copies them now)
 *            vmsplice: the pages lie in a pipe, by reference     (kernel keeps them)
 *            MADV_FREE: they are clean now, the kernel may drop them
 *   finish   read the pipe into the slots                        (kernel may drop them)
 *            MADV_PAGEOUT: it does, if nobody has written and nobody holds them
 *            what is still there is written to, so that it never does
 *
 *   D1  marked => in the pipe since before; in the pipe until it was copied
 *   D2  a page that stays was written to after it was marked
 *   D3  finish touches no page that is missing: it cannot wait for the host
 *   D4  in the pipe => the program's own: it was written to before. After a fork a page is
 *       copied when it is first written to, and is so too when nobody else has it any more,
 *       for the pipe holds it. Then the mark would be on the copy, which no pipe holds.
 */
#include "frontswap/agent/discard.h"
#include "frontswap/agent/sys.h"
#include "frontswap/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define PATIENCE 10000u /* looks whether the host still reads */

#ifndef SPLICE_F_NONBLOCK
#define SPLICE_F_NONBLOCK 2
#endif
#ifndef F_SETPIPE_SZ
#define F_SETPIPE_SZ 1031
#endif

static uint32_t bits(uint32_t first, uint32_t n)
{
	return ((1u << n) - 1) << first;
}

/* Pages up to the last one of a mask. */
static uint32_t span(uint32_t mask)
{
	return mask ? 32 - (uint32_t)__builtin_clz(mask) : 0;
}

static uint32_t bounded(uint64_t pages)
{
	return pages <= AGENT_SLOT_PAGES ? (uint32_t)pages : AGENT_SLOT_PAGES;
}

long discard_open(struct discard *d, int uffd)
{
	static const char pagemap[] = "/proc/self/pagemap";
	int fds[2] = {-1, -1};
	long r = sys3(SYS_pipe2, fds, O_CLOEXEC | O_NONBLOCK, 0);

	if (r < 0)
		return r;
	d->uffd = uffd;
	d->out = fds[0];
	d->in = fds[1];
	/* Refused to a user with many pipes: then a round has fewer pages. */
	sys3(SYS_fcntl, d->in, F_SETPIPE_SZ, AGENT_ROUND * AGENT_PAGE);
	r = sys4(SYS_openat, AT_FDCWD, pagemap, O_RDONLY | O_CLOEXEC, 0);
	d->pagemap = (int)r;
	return r < 0 ? r : 0;
}

/* Whether some thread of the program is changing its mappings. */
static bool changing(const struct discard *d)
{
	struct uffdio_zeropage z = {.range = {0, 0}};

	return sys3(SYS_ioctl, d->uffd, UFFDIO_ZEROPAGE, &z) == -EAGAIN;
}

/*
 * EAGAIN while mappings change, ESTALE when they have changed where command i is since the host
 * drew its address, else 0. Who changes one goes on as soon as the host reads his event, and the
 * host says before that it reads.
 */
static int32_t changed(const struct discard *d, struct agent_shm *shm, uint32_t i)
{
	if (changing(d))
		return EAGAIN;
	for (unsigned k = 0; atomic_load(&shm->reading); k++) {
		if (k == PATIENCE)
			return EAGAIN;
		sys3(SYS_sched_yield, 0, 0, 0); /* it may want this processor */
	}
	return atomic_load(&shm->disturbed) >> i & 1 ? ESTALE : 0;
}

/* Bit i: page i has some of these marks, and none of those. */
static uint32_t look(const struct discard *d, uint64_t addr, uint32_t pages, uint64_t marks,
		     uint64_t none)
{
	uint64_t e[AGENT_SLOT_PAGES] = {0};
	uint32_t mask = 0;

	if (sys4(SYS_pread64, d->pagemap, e, pages * 8, addr / AGENT_PAGE * 8) != (long)pages * 8)
		return 0;
	for (uint32_t i = 0; i < pages; i++)
		if ((e[i] & marks) == marks && !(e[i] & none))
			mask |= 1u << i;
	return mask;
}

/*
 * Write to a page what is in it, as one atomic operation, and without waiting
 * where it is missing: the kernel does that for FUTEX_WAKE_OP, which fails where
 * a thread would sleep in its fault (fault_in_user_writeable() does not retry).
 * Nobody is woken: nobody waits for our word, and the second is not looked at,
 * but for one value of it, and then by who must expect to be woken for nothing.
 */
static bool dirty_page(struct discard *d, uint64_t addr)
{
	uint32_t op = FUTEX_OP(FUTEX_OP_OR, 0, FUTEX_OP_CMP_LT, -2048);

	return sys6(SYS_futex, (long)&d->futex, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0,
		    (long)(addr + AGENT_PAGE - 64), op) >= 0;
}

/* D2 for the pages of `mask` that are there. Returns those. */
static uint32_t dirty(struct discard *d, uint64_t addr, uint32_t mask)
{
	uint32_t stays = 0;

	if (!addr || !mask)
		return 0;
	for (uint32_t m = mask & look(d, addr, span(mask), PAGEMAP_PRESENT, 0); m; m &= m - 1) {
		uint32_t i = (uint32_t)__builtin_ctz(m);

		if (dirty_page(d, addr + (uint64_t)i * AGENT_PAGE))
			stays |= 1u << i;
	}
	return stays;
}

/* ---- first half ------------------------------------------------------------------ */

/* With checks the agent is, now and then, off its processor between the two halves of a mark. */
static void mark_rarely(void)
{
#if TMEM_CHECKS >= 1
	static uint32_t marks;
	struct timespec pause = {0, 300000};

	if (++marks % 4 == 0)
		sys3(SYS_nanosleep, &pause, NULL, 0);
#endif
}

/* A run of pages that are there and nobody else's. How many were looked at. */
static uint32_t mark_run(struct discard *d, struct agent_shm *shm, uint32_t c, uint32_t i,
			 uint32_t n)
{
	struct agent_cmd *cmd = &shm->cmds[c];
	int32_t why;
	uint64_t addr = cmd->addr + (uint64_t)i * AGENT_PAGE;
	struct iovec iov = {(void *)(uintptr_t)addr, (size_t)n * AGENT_PAGE};
	long r = sys4(SYS_vmsplice, d->in, &iov, 1, SPLICE_F_NONBLOCK);
	uint32_t held = r > 0 ? (uint32_t)(r / AGENT_PAGE) : 0;

	if (!held) {
		cmd->error = r == -EAGAIN ? EBUSY : r ? (int32_t)-r : EIO;
		return n;
	}
	cmd->moved |= bits(i, held);
	atomic_fetch_or(&cmd->tried, bits(i, held));
	mark_rarely();
	r = sys3(SYS_madvise, addr, (uint64_t)held * AGENT_PAGE, MADV_FREE);
	/* The kernel puts marks off until this processor has a batch of them, or until
	 * advice like this, whatever it is for; and we may be on another one later. */
	sys3(SYS_madvise, (uintptr_t)d & ~(uintptr_t)(AGENT_PAGE - 1), AGENT_PAGE, MADV_COLD);
	if (r == 0)
		cmd->marked |= bits(i, held);
	else
		cmd->error = (int32_t)-r;
	why = changed(d, shm, c);
	if (why) {
		/* Perhaps these addresses held something else by then, which nobody
		 * holds in a pipe, or knows: it must not be free to go for a moment longer. */
		dirty(d, addr, bits(0, held));
		cmd->error = why;
	}
	return held;
}

static void clear(struct agent_cmd *cmd)
{
	cmd->moved = cmd->absent = cmd->marked = cmd->stays = cmd->left = 0;
	cmd->error = 0;
}

static void mark(struct discard *d, struct agent_shm *shm, uint32_t c)
{
	struct agent_cmd *cmd = &shm->cmds[c];
	uint32_t pages = bounded(cmd->pages), ok;
	long r;

	clear(cmd);
	/* Splits huge pages, which could not be split once they are held. */
	r = sys3(SYS_madvise, cmd->addr, (uint64_t)pages * AGENT_PAGE, MADV_COLD);
	if (r < 0) { /* locked, or gone */
		cmd->error = (int32_t)-r;
		return;
	}
	cmd->absent = look(d, cmd->addr, pages, 0, PAGEMAP_PRESENT | PAGEMAP_SWAPPED);
	ok = look(d, cmd->addr, pages, PAGEMAP_PRESENT | PAGEMAP_EXCLUSIVE, PAGEMAP_FILE);
	ok = dirty(d, cmd->addr, ok); /* D4 */
	if ((ok | cmd->absent) != bits(0, pages))
		cmd->error = EBUSY;
	for (uint32_t i = 0; ok >> i;) {
		uint32_t n = 0;

		while (ok >> (i + n) & 1)
			n++;
		i += n ? mark_run(d, shm, c, i, n) : 1;
		if (cmd->error == EAGAIN || cmd->error == ESTALE)
			break;
	}
}

void discard_mark(struct discard *d, struct agent_shm *shm)
{
	uint32_t n = shm->ncmds <= AGENT_BATCH ? shm->ncmds : 0;
	bool forking = atomic_load(&shm->forking);

	for (uint32_t i = 0; i < n; i++) {
		struct agent_cmd *cmd = &shm->cmds[i];

		if (!forking && !(i && shm->cmds[i - 1].error == EAGAIN)) {
			mark(d, shm, i);
			continue;
		}
		clear(cmd);
		cmd->error = EAGAIN;
	}
}

/* ---- second half ----------------------------------------------------------------- */

/* The pipe holds a round's pages in the order of its commands. */
static void copy_out(struct discard *d, struct agent_shm *shm, const struct agent_cmd *cmd)
{
	for (uint32_t m = cmd->moved; m; m &= m - 1) {
		uint32_t i = (uint32_t)__builtin_ctz(m), got = 0;

		while (got < AGENT_PAGE) {
			long r = sys3(SYS_read, d->out,
				      shm->slots[cmd->slot] + (size_t)i * AGENT_PAGE + got,
				      AGENT_PAGE - got);

			if (r <= 0) /* it may be dropped, and cannot be had: no other way */
				sys3(SYS_kill, sys3(SYS_getpid, 0, 0, 0), SIGKILL, 0);
			else
				got += (uint32_t)r;
		}
	}
}

static void drop(const struct agent_cmd *cmd, uint32_t mask)
{
	for (uint32_t i = 0, n; mask >> i; i += n + !n) {
		for (n = 0; mask >> (i + n) & 1; n++)
			;
		if (n)
			sys3(SYS_madvise, cmd->addr + (uint64_t)i * AGENT_PAGE,
			     (uint64_t)n * AGENT_PAGE, MADV_PAGEOUT);
	}
}

/* D2 where the pages are now. What was taken away to swap meanwhile is there, too. */
static void stay(struct discard *d, struct agent_cmd *cmd)
{
	uint32_t gone;

	cmd->stays = dirty(d, cmd->again, cmd->moved);
	gone = cmd->again
		       ? look(d, cmd->again, span(cmd->moved), 0, PAGEMAP_PRESENT | PAGEMAP_SWAPPED)
		       : 0;
	cmd->left = cmd->moved & ~cmd->stays & ~gone;
}

void discard_again(struct discard *d, struct agent_shm *shm)
{
	uint32_t n = shm->ncmds <= AGENT_BATCH ? shm->ncmds : 0;

	for (uint32_t i = 0; i < n; i++)
		if (!shm->cmds[i].go)
			stay(d, &shm->cmds[i]);
}

static void finish_one(struct discard *d, struct agent_shm *shm, struct agent_cmd *cmd)
{
	uint32_t here;

	cmd->left = 0;
	if (!cmd->go) { /* while they are in the pipe still: what is missing now, the program
			   dropped */
		stay(d, cmd);
	}
	copy_out(d, shm, cmd);
	if (!cmd->go)
		return;
	drop(cmd, cmd->marked);
	here = cmd->moved & look(d, cmd->addr, span(cmd->moved), PAGEMAP_PRESENT, 0);
	cmd->stays = dirty(d, cmd->addr, here);
	cmd->left = here & ~cmd->stays;
}

void discard_finish(struct discard *d, struct agent_shm *shm)
{
	uint32_t n = shm->ncmds <= AGENT_BATCH ? shm->ncmds : 0;

	for (uint32_t i = 0; i < n; i++)
		finish_one(d, shm, &shm->cmds[i]);
}

void discard_settle(struct discard *d, struct agent_shm *shm)
{
	uint32_t n = shm->ncmds <= AGENT_BATCH ? shm->ncmds : 0;

	for (uint32_t i = 0; i < n; i++) {
		struct agent_cmd *cmd = &shm->cmds[i];
		uint32_t mask = bits(0, bounded(cmd->pages));

		cmd->stays = dirty(d, cmd->addr, mask);
		drop(cmd, mask & ~cmd->stays); /* what cannot be written to */
		cmd->left = mask & ~cmd->stays & look(d, cmd->addr, span(mask), PAGEMAP_PRESENT, 0);
	}
}
