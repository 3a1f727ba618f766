/* SPDX-License-Identifier: BSD-2-Clause */
/* System calls that read or write memory which is out. */
#include "corrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

/* Pages lie in a pipe by reference; the reader gets what they held. */
static void splice_pages(unsigned rounds)
{
	struct mem m = mem_make(8 * MIB);
	int fd[2];

	if (pipe(fd) < 0 || fcntl(fd[1], F_SETPIPE_SZ, 64 * PAGE) < 0)
		die("pipe");
	press_start();
	for (unsigned k = 0; k < rounds; k++) {
		size_t from = rnd() % (m.pages - 64), n = 1 + rnd() % 48, got = 0;
		struct iovec iov = {m.base + from * WORDS, n * PAGE};
		static char buf[64 * PAGE];
		ssize_t sent = vmsplice(fd[1], &iov, 1, 0);

		if (sent <= 0)
			die("vmsplice");
		if (k % 4 == 0)
			sleep_ms(2); /* they leave in the meantime */
		while (got < (size_t)sent) {
			ssize_t r = read(fd[0], buf + got, (size_t)sent - got);

			if (r <= 0)
				die("read");
			got += (size_t)r;
		}
		for (size_t i = 0; i < got / PAGE; i++)
			check_page((uint64_t *)(void *)(buf + i * PAGE), m.place + from + i,
				   m.version, "vmsplice, reader");
		if (k % 64 == 0)
			mem_check(&m, "vmsplice");
	}
	press_stop();
	mem_check(&m, "vmsplice, end");
	close(fd[0]);
	close(fd[1]);
}

/* A file, a socket, another process: out of pages that are out, into pages that are out. */
static void calls(unsigned rounds)
{
	struct mem m = mem_make(8 * MIB), to = mem_make(8 * MIB);
	char name[] = "/tmp/e2e-corrupt.XXXXXX";
	int fd = mkstemp(name), pair[2];

	unlink(name);
	if (fd < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		die("a file and a socket");
	for (unsigned k = 0; k < rounds; k++) {
		uint64_t *from = m.base + (k % 4) * 2 * MIB * WORDS;
		struct mem copy = {to.base, 2 * MIB, m.place + (k % 4) * 2 * MIB, m.version};
		struct iovec a = {from, 2 * MIB * PAGE}, b = {to.base, 2 * MIB * PAGE};
		pid_t pid;

		press();
		if (pwrite(fd, from, 2 * MIB * PAGE, 0) != 2 * MIB * PAGE)
			die("pwrite");
		press();
		if (pread(fd, to.base, 2 * MIB * PAGE, 0) != 2 * MIB * PAGE)
			die("pread");
		mem_check(&copy, "through a file");
		memset(to.base, 0, 2 * MIB * PAGE);
		press();
		if (process_vm_readv(getpid(), &b, 1, &a, 1, 0) != 2 * MIB * PAGE)
			die("process_vm_readv");
		mem_check(&copy, "process_vm_readv");
		memset(to.base, 0, 2 * MIB * PAGE);
		press();
		pid = fork();
		if (pid == 0) { /* writes into the parent's */
			if (process_vm_writev(getppid(), &a, 1, &b, 1, 0) != 2 * MIB * PAGE)
				die("process_vm_writev");
			_exit(0);
		}
		wait_child(pid, "process_vm_writev");
		mem_check(&copy, "process_vm_writev");
		press();
		for (size_t i = 0; i < 2 * MIB; i += 16) {
			if (send(pair[0], from + i * WORDS, 16 * PAGE, 0) != 16 * PAGE ||
			    recv(pair[1], to.base + i * WORDS, 16 * PAGE, MSG_WAITALL) != 16 * PAGE)
				die("socket");
		}
		mem_check(&copy, "through a socket");
		mem_check(&m, "calls");
	}
	close(fd);
}

/* Locked, and asked for without a touch; odd ranges, which cut mappings in pieces. */
static void lock_pages(unsigned rounds)
{
	struct mem m = mem_make(8 * MIB);

	for (unsigned k = 0; k < rounds; k++) {
		size_t from = rnd() % (m.pages / 2), n = 1 + rnd() % 200;
		uint64_t *p = m.base + from * WORDS;

		press();
		if (mlock(p, n * PAGE) < 0)
			die("mlock");
		mem_check(&m, "lock");
		press();
		for (size_t i = 0; i < n; i++)
			check_page(p + i * WORDS, m.place + from + i, m.version, "locked");
		if (munlock(p, n * PAGE) < 0)
			die("munlock");
		press();
		if (madvise(p, n * PAGE, MADV_POPULATE_READ) < 0 ||
		    madvise(p + n * WORDS, n * PAGE, MADV_POPULATE_WRITE) < 0)
			die("MADV_POPULATE");
		if (madvise(p, n * PAGE, k % 2 ? MADV_NOHUGEPAGE : MADV_DONTDUMP) < 0)
			die("madvise");
		press();
		mem_check(&m, "lock, end");
		mem_fill(&m);
	}
}

/* How many of m's pages are here. */
static size_t here(const struct mem *m)
{
	unsigned char vec[8 * MIB];
	size_t n = 0;

	if (mincore(m->base, m->pages * PAGE, vec) < 0)
		die("mincore");
	for (size_t i = 0; i < m->pages; i++)
		n += vec[i] & 1;
	return n;
}

/* What could not leave is tried again, but not at once. */
static void leave(const struct mem *m)
{
	for (unsigned i = 0; i < 100; i++) {
		press();
		if (here(m) < m->pages)
			return;
		sleep_ms(10);
	}
	die("nothing leaves");
}

/* All of it locked: by libc it stays; past libc nothing stands still, and nothing is wrong. */
static void lock_all(unsigned rounds)
{
	struct mem m = mem_make(8 * MIB);

	for (unsigned k = 0; k < rounds; k++) {
		bool raw = k % 2;
		int flags = k % 4 < 2 ? MCL_CURRENT | MCL_FUTURE : MCL_CURRENT | MCL_ONFAULT;

		leave(&m);
		if ((raw ? syscall(SYS_mlockall, flags) : mlockall(flags)) < 0)
			die("mlockall");
		if (flags & MCL_FUTURE && !raw && here(&m) < m.pages)
			die("locked, and not here");
		mem_check(&m, "lock-all");
		press();
		if (!raw && here(&m) < m.pages)
			die("locked, and has left");
		mem_check(&m, "lock-all, locked");
		if (munlockall() < 0)
			die("munlockall");
		mem_fill(&m);
	}
	leave(&m);
	mem_check(&m, "lock-all, end");
}

/* ---- a device writes ------------------------------------------------------------------------ */

struct direct {
	int fd;
	unsigned rounds;
	struct mem from; /* what the file holds */
	uint64_t *to;
};

/* Reads past the page cache: the device writes into pages while they are to leave. */
static void *direct_main(void *arg)
{
	const struct direct *d = arg;

	for (unsigned k = 0; k < d->rounds; k++) {
		size_t from = rnd() % (d->from.pages - 64), n = 1 + rnd() % 64;
		uint64_t *to = d->to + rnd() % (4 * MIB - 64) * WORDS;

		if (pread(d->fd, to, n * PAGE, (off_t)(from * PAGE)) != (ssize_t)(n * PAGE))
			die("pread past the cache");
		for (size_t i = 0; i < n; i++)
			check_page(to + i * WORDS, d->from.place + from + i, d->from.version,
				   "O_DIRECT");
	}
	return NULL;
}

static void direct(unsigned rounds)
{
	struct mem m = mem_make(4 * MIB);
	char name[] = "/tmp/e2e-corrupt.XXXXXX";
	struct direct d[3];
	pthread_t t[3];
	int fd = mkstemp(name), raw = open(name, O_RDONLY | O_DIRECT);

	unlink(name);
	if (fd < 0 || pwrite(fd, m.base, m.pages * PAGE, 0) != (ssize_t)(m.pages * PAGE) ||
	    fsync(fd) < 0)
		die("a file");
	if (raw < 0) { /* not on every file system */
		fprintf(stderr, "no O_DIRECT in /tmp\n");
		raw = fd;
	}
	press_start();
	for (unsigned i = 0; i < 3; i++) {
		d[i] = (struct direct){raw, rounds, m, map_pages(4 * MIB)};
		if (pthread_create(&t[i], NULL, direct_main, &d[i]) != 0)
			die("pthread_create");
	}
	for (unsigned i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	press_stop();
	mem_check(&m, "O_DIRECT, source");
	close(raw);
}

/* A kernel that does not make guard pages, as before 6.13, has not emptied them either. */
static void guard_refused(unsigned rounds)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 102 /* MADV_GUARD_INSTALL */, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(f) / sizeof(f[0]), f};
	struct mem m = mem_make(40 * MIB);

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		die("seccomp");
	for (size_t i = 0; i + 16 <= m.pages; i += 512)
		if (madvise(m.base + i * WORDS, 16 * PAGE, 102) == 0 || errno != EINVAL)
			die("MADV_GUARD_INSTALL was not refused");
	mem_check(&m, "guard-refused");
	munmap(m.base, m.pages * PAGE);
}

const struct mode call_modes[] = {{"splice", splice_pages, 1000},
				  {"calls", calls, 1},
				  {"lock", lock_pages, 1},
				  {"lock-all", lock_all, 8},
				  {"direct", direct, 300},
				  {"guard-refused", guard_refused, 1},
				  {NULL, NULL, 0}};
