/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mlockall(): all of the program's memory, but nothing of the agent's.
 *
 * The kernel locks every mapping, and touches each page of them. Of the stagings
 * that must not be: what is in them when a round begins is in its way. So all is
 * locked first with nothing touched, the agent's mappings are let go, and then
 * each of the others is locked once more, which touches its pages: those that are
 * out come back. What is locked stays: UFFDIO_MOVE does not take a page from a
 * mapping that is locked to one that is not.
 *
 * A program that makes the system call past libc has the stagings filled and
 * locked, too; move.c can live with that.
 */
#include "frontswap/agent/agent.h"
#include "frontswap/agent/inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif

static bool is_ours(const struct agent *a, uint64_t start, uint64_t end)
{
	uint64_t shm = (uintptr_t)a->shm;

	return (start < (uintptr_t)a->own_end && end > (uintptr_t)a->own) ||
	       (start < shm + sizeof(*a->shm) && end > shm);
}

/* What cannot be had stays away, as with the kernel's own mlockall(). */
static void lock_each(const struct agent *a)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char *line = NULL, *at;
	size_t room = 0;

	while (maps && getline(&line, &room, maps) > 0) {
		uint64_t start = strtoull(line, &at, 16), end = strtoull(at + 1, NULL, 16);

		if (!is_ours(a, start, end))
			sys3(SYS_mlock, start, end - start, 0);
	}
	free(line);
	if (maps)
		fclose(maps);
}

__attribute__((visibility("default"))) int mlockall(int flags)
{
	const struct agent *a = agent_here();
	long r;

	if (!a || !(flags & MCL_CURRENT)) {
		r = sys3(SYS_mlockall, flags, 0, 0);
	} else {
		r = sys3(SYS_mlockall, flags | MCL_ONFAULT, 0, 0);
		if (r == 0) {
			sys3(SYS_munlock, a->own, a->own_end - a->own, 0);
			sys3(SYS_munlock, a->shm, sizeof(*a->shm), 0);
		}
		if (r == 0 && !(flags & MCL_ONFAULT)) {
			lock_each(a);
			if (flags & MCL_FUTURE) /* not only when they are touched */
				sys3(SYS_mlockall, MCL_FUTURE, 0, 0);
		}
	}
	if (r < 0)
		errno = (int)-r;
	return r < 0 ? -1 : 0;
}
