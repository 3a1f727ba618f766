/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages leave the program: UFFDIO_MOVE, and then a copy.
 *
 *   program's pages --MOVE--> staging A --MOVE--> staging B --copy--> shared
 *    (main uffd)              (main uffd)         (second uffd)        slots
 *
 * Why two stagings. The first move must be made on the userfaultfd that the
 * program's mappings are registered with: only then does the kernel refuse it
 * while an munmap, mremap, madvise or fork is under way in the program (see
 * proto/agent.h). But giving a page of staging A back with MADV_DONTNEED would
 * send a REMOVE event on that same descriptor and block on it; staging B has a
 * descriptor without events. The second move costs a tenth of a microsecond a
 * page. A staged page is freed, never reused: a pipe or a socket may still
 * hold a reference to it. (Kernels without UFFDIO_MOVE: discard.c.)
 */
#include "frontswap/agent/agent.h"
#include "frontswap/uffd.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#ifndef MADV_DONTNEED_LOCKED
/* Linux 5.18; also where a call of the program's has locked everything. */
#define MADV_DONTNEED_LOCKED 24
#endif

/*
 * A call that moves. With checks it fails every now and then in the ways that the kernel's own
 * reclaim brings about, which are so rare that tests would not see what becomes of it.
 */
static long move_rarely(int uffd, struct uffdio_move *mv)
{
#if TMEM_CHECKS >= 1
	static uint32_t moves;
	uint64_t all = mv->len;

	moves++;
	if (moves % 61 == 0)
		return -EAGAIN;
	if (moves % 67 ==
	    0) { /* two of them go, and are not counted: by one call, see move_pages() */
		long r;

		mv->len = all < 2 * AGENT_PAGE ? all : 2 * AGENT_PAGE;
		r = sys3(SYS_ioctl, uffd, UFFDIO_MOVE, mv);
		mv->len = all;
		if (r < 0 && mv->move <= 0)
			return r;
		mv->move = -EEXIST;
		return -EEXIST;
	}
#endif
	return sys3(SYS_ioctl, uffd, UFFDIO_MOVE, mv);
}

/*
 * The first of n pages that are at the one place now, and not at the other. What is no
 * mapping any more has none.
 */
static long moved_already(const char *to, uint64_t from, uint64_t n)
{
	uint8_t here[AGENT_ROUND] = {0}, there[AGENT_ROUND] = {0};
	long k = 0;

	if (n > AGENT_ROUND)
		n = AGENT_ROUND;
	sys3(SYS_mincore, to, n * AGENT_PAGE, here);
	sys3(SYS_mincore, from, n * AGENT_PAGE, there);
	while (k < (long)n && here[k] & 1 && !(there[k] & 1))
		k++;
	return k;
}

/*
 * UFFDIO_MOVE of n pages to where nothing is. Pages that went, or a negative errno.
 *
 * EEXIST: some went, and were not counted. Linux 6.18, which moves pages in batches, meets a page
 * that somebody else has locked (its own reclaim, say), tries again, succeeds, takes the first
 * result for the second's, and tries once more. What it finds in the way then is what it has just
 * brought there.
 */
static long move_pages(int uffd, const char *to, uint64_t from, uint64_t n)
{
	struct uffdio_move mv = {
		.dst = (uintptr_t)to,
		.src = from,
		.len = n * AGENT_PAGE,
		.mode = UFFDIO_COPY_MODE_DONTWAKE,
	};
	long r = move_rarely(uffd, &mv), went;

	if (r == 0)
		return (long)n;
	if (mv.move > 0)
		return (long)(mv.move / AGENT_PAGE); /* the next call tells what stopped it */
	went = r == -EEXIST ? moved_already(to, from, n) : 0;
	return went ? went : r;
}

/*
 * Pages in staging A from `from` on go, by way of staging B: mlockall(), made past libc, has had
 * them filled. False: there were none.
 */
static bool sweep(struct agent *a, const char *from)
{
	uint64_t at = (uint64_t)(from - a->staging_a), n = (STAGING_BYTES - at) / AGENT_PAGE;
	uint8_t here[AGENT_ROUND] = {0};
	bool some = false;

	sys3(SYS_mincore, from, n * AGENT_PAGE, here);
	for (uint64_t k = 0; k < n; k++)
		some |= here[k] & 1 && move_pages(a->uffd_b, a->staging_b + at + k * AGENT_PAGE,
						  (uintptr_t)from + k * AGENT_PAGE, 1) == 1;
	sys3(SYS_madvise, a->staging_b + at, n * AGENT_PAGE, MADV_DONTNEED_LOCKED);
	return some;
}

/*
 * Phase 1 of one command: its pages to *to and behind, without gaps. False: something
 * is under way in the program; stop the round.
 */
static bool move_out(struct agent *a, struct agent_cmd *cmd, char **to, const char *end)
{
	uint32_t i = 0;

	cmd->moved = 0;
	cmd->absent = 0;
	cmd->error = 0;
	while (i < cmd->pages && i < AGENT_SLOT_PAGES && *to < end) {
		long r = move_pages(a->uffd, *to, cmd->addr + (uint64_t)i * AGENT_PAGE,
				    cmd->pages - i);

		if (r > 0) {
			*to += r * AGENT_PAGE;
			for (; r > 0; r--)
				cmd->moved |= 1u << i++;
			continue;
		}
		if (r == -EINTR || (r == -EEXIST && sweep(a, *to)))
			continue;
		if (r == -ENOENT)
			cmd->absent |= 1u << i;
		else
			cmd->error = (int32_t)-r;
		if (r == -EAGAIN || r == -ESRCH)
			return false;
		i++;
	}
	return true;
}

/* Phase 2: all that was moved, from staging A to staging B, by one call where that can be. */
static void move_on(struct agent *a, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes;) {
		long r = move_pages(a->uffd_b, a->staging_b + at, (uintptr_t)a->staging_a + at,
				    (bytes - at) / AGENT_PAGE);

		if (r > 0)
			at += (uint64_t)r * AGENT_PAGE;
		else if (r != -EAGAIN && r != -EINTR)
			/* The page is in staging A and cannot be had: no other way. */
			sys3(SYS_kill, sys3(SYS_getpid, 0, 0, 0), SIGKILL, 0);
	}
}

void move_evict(struct agent *a, uint32_t seq)
{
	struct agent_shm *shm = a->shm;
	uint32_t n = shm->ncmds <= AGENT_BATCH ? shm->ncmds : 0;
	char *to = a->staging_a;
	const char *from = a->staging_b;
	uint32_t i;

	for (i = 0; i < n; i++) {
		if (!move_out(a, &shm->cmds[i], &to, a->staging_a + STAGING_BYTES)) {
			for (uint32_t k = i + 1; k < n; k++) {
				shm->cmds[k].moved = shm->cmds[k].absent = 0;
				shm->cmds[k].error = EAGAIN;
			}
			break;
		}
	}
	atomic_store(&shm->moved, seq);
	futex_wake(&shm->moved);
	if (to == a->staging_a)
		return;
	move_on(a, (uint64_t)(to - a->staging_a));
	for (i = 0; i < n; i++) {
		for (uint32_t m = shm->cmds[i].moved; m; m &= m - 1, from += AGENT_PAGE)
			copy_bytes(shm->slots[shm->cmds[i].slot] +
					   (size_t)__builtin_ctz(m) * AGENT_PAGE,
				   from, AGENT_PAGE);
	}
	sys3(SYS_madvise, a->staging_b, (uint64_t)(to - a->staging_a), MADV_DONTNEED_LOCKED);
}
