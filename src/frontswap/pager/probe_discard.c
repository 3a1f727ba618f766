/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether this kernel drops pages as discard.c needs it: tried, not concluded
 * from a version. Kernels before 5.18, and those of the stable series that did not
 * take up "mm: fix race between MADV_FREE reclaim and blkdev direct IO read",
 * unmap a page that somebody holds and lose it; there the program may not run.
 *
 *   page 0   marked, untouched                          must be gone
 *   page 1   marked, written to                         must be there
 *   page 2   held by a pipe, marked                     must be there
 *   page 3   marked, written to by FUTEX_WAKE_OP        must be there
 */
#include "frontswap/pager/discard.h"
#include "frontswap/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGES 4u
#define TRIES 20 /* reclaim may pass a page by */

struct trial {
	unsigned char *at;
	int pipe[2], pagemap;
};

static bool there(const struct trial *t, unsigned page)
{
	uint64_t e = 0;
	off_t at = (off_t)(((uintptr_t)t->at / AGENT_PAGE + page) * sizeof(e));

	return pread(t->pagemap, &e, sizeof(e), at) != sizeof(e) ||
	       e & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED);
}

static bool right(const struct trial *t, unsigned page)
{
	for (unsigned i = 0; i < AGENT_PAGE; i++)
		if (t->at[page * AGENT_PAGE + i] != page + 1)
			return false;
	return true;
}

/* One trial. What is wrong, or NULL; *dropped: page 0 is gone. */
static const char *attempt(const struct trial *t, bool *dropped)
{
	struct iovec held = {t->at + 2 * AGENT_PAGE, AGENT_PAGE};
	static uint32_t nobody;
	char copy[AGENT_PAGE];
	const char *why = NULL;

	for (unsigned i = 0; i < PAGES; i++)
		memset(t->at + i * AGENT_PAGE, (int)i + 1, AGENT_PAGE);
	if (vmsplice(t->pipe[1], &held, 1, 0) != AGENT_PAGE)
		return "vmsplice fails";
	if (madvise(t->at, PAGES * AGENT_PAGE, MADV_FREE) < 0)
		return "MADV_FREE fails";
	*(volatile unsigned char *)(t->at + AGENT_PAGE) = 2;
	if (syscall(SYS_futex, &nobody, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0,
		    t->at + 3 * AGENT_PAGE, FUTEX_OP(FUTEX_OP_OR, 0, FUTEX_OP_CMP_LT, -2048)) < 0)
		return "FUTEX_WAKE_OP fails";
	if (madvise(t->at, PAGES * AGENT_PAGE, MADV_PAGEOUT) < 0)
		return "MADV_PAGEOUT fails";
	*dropped = !there(t, 0);
	if (!there(t, 1) || !there(t, 3))
		why = "it drops a page that was written to";
	else if (!there(t, 2))
		why = "it drops a page that is held (5.18 or a newer update is needed)";
	else if (!right(t, 1) || !right(t, 2) || !right(t, 3))
		why = "a page has changed";
	if (read(t->pipe[0], copy, sizeof(copy)) != sizeof(copy))
		why = "the pipe is empty";
	return why;
}

bool discard_probe(const char **why)
{
	struct trial t = {.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)};
	bool dropped = false;

	*why = strerror(ENOMEM);
	if (t.pagemap < 0 || pipe2(t.pipe, O_CLOEXEC) < 0) {
		*why = strerror(errno);
		if (t.pagemap >= 0)
			close(t.pagemap);
		return false;
	}
	t.at = mmap(NULL, PAGES * AGENT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
	if (t.at != MAP_FAILED) {
		*why = NULL;
		for (unsigned i = 0; i < TRIES && !dropped && !*why; i++)
			*why = attempt(&t, &dropped);
		if (!*why && !dropped)
			*why = "it does not drop pages when it is told to";
		munmap(t.at, PAGES * AGENT_PAGE);
	}
	close(t.pagemap);
	close(t.pipe[0]);
	close(t.pipe[1]);
	return !*why;
}
