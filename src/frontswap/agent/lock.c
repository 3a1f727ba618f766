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
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif

/* A number in hexadecimal and the character behind it. */
static uint64_t hex(const char **at)
{
	uint64_t v = 0;

	for (;; (*at)++) {
		char c = **at;

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint64_t)(c - 'a' + 10);
		else
			return v;
	}
}

/* What cannot be had stays away, as with the kernel's own mlockall(). */
static void lock_line(const struct agent *a, const char *line)
{
	uint64_t start = hex(&line), end, own = (uintptr_t)a->own, shm = (uintptr_t)a->shm;

	line++;
	end = hex(&line);
	if ((start < (uintptr_t)a->own_end && end > own) ||
	    (start < shm + sizeof(*a->shm) && end > shm))
		return;
	sys3(SYS_mlock, start, end - start, 0);
}

/* Each mapping; which of them there are is looked at as they are locked. */
static void lock_each(const struct agent *a)
{
	char text[2048];
	long fd = sys4(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0), n;
	size_t have = 0;

	while (fd >= 0 && (n = sys3(SYS_read, fd, text + have, sizeof(text) - 1 - have)) > 0) {
		char *at = text, *end;

		have += (size_t)n;
		text[have] = 0;
		while ((end = strchr(at, '\n'))) {
			lock_line(a, at);
			at = end + 1;
		}
		have -= (size_t)(at - text);
		if (have == sizeof(text) - 1) /* a path that long: its beginning is enough */
			have = 64;
		memmove(text, at, have);
	}
	if (fd >= 0)
		sys3(SYS_close, fd, 0, 0);
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
