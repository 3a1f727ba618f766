/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Programs that use a userfaultfd of their own.
 *
 * A mapping can be registered with one userfaultfd only, and who comes second
 * gets EBUSY. We register what the program has had for some time; a program that
 * then registers a range of it must not fail because of us. So a UFFDIO_REGISTER
 * that is refused is a claim: the host brings in what is out of the range, lets
 * go of it, and leaves it alone (pager/claim.c); then it is tried again.
 *
 * One claim at a time. Programs that make the system call past libc are not
 * seen here: they get EBUSY, which is an error they can tell.
 */
#include "frontswap/agent/inside.h"
#include "frontswap/agent/sys.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <time.h>

#define CLAIMS 3 /* the host may be quicker to take it again than we to register it */

void claim(struct agent_shm *shm, uint64_t start, uint64_t end, bool stays)
{
	static _Atomic int32_t taken; /* by this process; 0: by nobody */
	struct timespec pause = {0, 1000000}, patience = {0, 20000000};
	int32_t us = (int32_t)sys3(SYS_getpid, 0, 0, 0), by = 0;
	uint32_t mine;

	/* A parent's is not ours: its thread that took it is not here. */
	while (!atomic_compare_exchange_strong(&taken, &by, us)) {
		if (by != us)
			continue;
		sys3(SYS_nanosleep, &pause, NULL, 0);
		by = 0;
	}
	atomic_store(&shm->claim_start, start);
	atomic_store(&shm->claim_end, end);
	atomic_store(&shm->claim_stays, stays);
	mine = atomic_fetch_add(&shm->claim_asked, 1) + 1;
	while (atomic_load(&shm->claim_done) != mine) {
		/* The agent's thread passes it on; it ends us when the host is gone. */
		sys3(SYS_futex, &shm->command, FUTEX_WAKE, 64);
		sys4(SYS_futex, &shm->claim_done, FUTEX_WAIT, mine - 1, &patience);
	}
	atomic_store(&taken, 0);
}

__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
	struct agent_shm *shm;
	va_list args;
	const struct uffdio_register *reg;
	void *arg;
	long r;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	r = sys3(SYS_ioctl, fd, request, arg);
	if (r == -EBUSY && request == UFFDIO_REGISTER && (shm = threads_shm())) {
		reg = arg;
		before_fork();
		for (int i = 0; i < CLAIMS && r == -EBUSY; i++) {
			claim(shm, reg->range.start, reg->range.start + reg->range.len, false);
			r = sys3(SYS_ioctl, fd, request, arg);
		}
		after_fork_in_parent();
	}
	if (r < 0 && r > -4096) {
		errno = (int)-r;
		return -1;
	}
	return (int)r;
}
