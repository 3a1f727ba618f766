/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent: the part of `tmem run` that lives in the target program.
 *
 * It is loaded by LD_PRELOAD and does only what must happen inside the
 * program's address space: it makes the userfaultfd, and it moves pages out
 * with UFFDIO_MOVE when the host says which. All policy is the host's.
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
 *
 * Rules
 *   R1  The thread touches no memory that could be managed: its stack, control
 *       page, stagings are in one mapping of its own, whose range the host
 *       knows; slots are shared memory. No libc, no TLS, no malloc.
 *   R2  The thread has a descriptor table of its own, empty but for its own
 *       descriptors, so close_range(3, ~0) in the program does not reach them,
 *       and it keeps no pipe end of the program's open.
 *   R3  All signals are blocked in the thread.
 *   R4  When the host is gone the process is killed: a page that is out can
 *       never be had again, and must not read as zeros. The thread's
 *       descriptor keeps every fault waiting until then.
 */
#include "proto/agent.h"
#include "frontswap/agent/discard.h"
#include "frontswap/agent/inside.h"
#include "frontswap/agent/sys.h"
#include "frontswap/uffd.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define GUARD_INSTALL 102 /* MADV_, Linux 6.13 */
#define STACK_BYTES   65536u
#define STAGING_BYTES (AGENT_ROUND * AGENT_PAGE)
#define HOST_CHECK_NS 200000000L
#define WIPED_MOST    256u /* ranges that children find empty; more are joined */

/* The agent's control page; at the start of its own mapping, after the stack. */
struct agent {
	_Atomic uint32_t state; /* futex: 0 starting, 1 running, 2 failed */
	int32_t error;
	uint32_t kind, flags;
	int32_t pid;
	int sock, uffd, uffd_b, eventfd;
	uint64_t token, space;
	struct sockaddr_un addr;
	socklen_t addrlen;
	char *own, *own_end; /* the whole mapping */
	char *identity, *staging_a, *staging_b;
	struct agent_shm *shm;
	bool no_move; /* no UFFDIO_MOVE here, or none is wanted */
	struct discard discard;
};

/* Of the program's memory, used by its own threads only. */
static struct agent *agent;
static struct agent_shm *agent_threads_shm;
/*
 * What this process, or one before it, has said that a child is to find empty (MADV_WIPEONFORK).
 * A child has not said so, but its mappings have it from its parent: its own children find them
 * empty, too. Ranges stay in the list for good, as they do in the host's. They only ever grow;
 * `end` is written last.
 */
static struct {
	_Atomic uint64_t start, end;
} wiped[WIPED_MOST];
static _Atomic uint32_t nwiped;

/* ---- thread: connection ------------------------------------------------------ */

static long send_message(struct agent *a, const void *msg, size_t n, int fd)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {(void *)(uintptr_t)msg, n};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		control.h.cmsg_len = CMSG_LEN(sizeof(int));
		control.h.cmsg_level = SOL_SOCKET;
		control.h.cmsg_type = SCM_RIGHTS;
		*(int *)(void *)CMSG_DATA(&control.h) = fd;
		m.msg_control = &control;
		m.msg_controllen = sizeof(control.space);
	}
	return sys3(SYS_sendmsg, a->sock, &m, MSG_NOSIGNAL);
}

/* Receives one message and up to `max` descriptors; the number of them in *nfds. */
static long recv_message(struct agent *a, void *msg, size_t n, int *fds, unsigned max,
			 unsigned *nfds)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(4 * sizeof(int))];
	} control;
	struct iovec iov = {msg, n};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control.space)};
	long got;

	do {
		got = sys3(SYS_recvmsg, a->sock, &m, MSG_CMSG_CLOEXEC);
	} while (got == -EINTR);
	*nfds = 0;
	if (got > 0 && m.msg_controllen >= CMSG_LEN(sizeof(int)) &&
	    control.h.cmsg_type == SCM_RIGHTS) {
		unsigned k = (unsigned)((control.h.cmsg_len - CMSG_LEN(0)) / sizeof(int));
		const int *sent = (const int *)(const void *)CMSG_DATA(&control.h);

		for (unsigned i = 0; i < k && i < max; i++)
			fds[(*nfds)++] = sent[i];
	}
	return got;
}

static long open_userfaultfd(void)
{
	static const char device[] = "/dev/userfaultfd";
	long dev = sys4(SYS_openat, AT_FDCWD, device, O_RDWR | O_CLOEXEC, 0);
	long fd;

	if (dev >= 0) {
		fd = sys3(SYS_ioctl, dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		sys3(SYS_close, dev, 0, 0);
		if (fd >= 0)
			return fd;
	}
	return sys3(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK, 0, 0);
}

static long uffd_enable(int fd, uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};

	return sys3(SYS_ioctl, fd, UFFDIO_API, &api);
}

static long uffd_register(int fd, const void *addr, size_t n)
{
	struct uffdio_register r = {.range = {(uintptr_t)addr, n},
				    .mode = UFFDIO_REGISTER_MODE_MISSING};

	return sys3(SYS_ioctl, fd, UFFDIO_REGISTER, &r);
}

static long connect_host(struct agent *a)
{
	struct agent_hello hello = {.magic = AGENT_MAGIC,
				    .version = AGENT_VERSION,
				    .kind = a->kind,
				    .token = a->token,
				    .space = a->space,
				    .staging_a = (uintptr_t)a->staging_a,
				    .identity = (uintptr_t)a->identity,
				    .own_start = (uintptr_t)a->own,
				    .own_end = (uintptr_t)a->own_end};
	struct agent_welcome welcome = {0};
	int fds[3];
	unsigned nfds;
	long r;

	a->uffd = -1;
	r = sys3(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (r < 0)
		return r;
	a->sock = (int)r;
	r = sys3(SYS_connect, a->sock, &a->addr, a->addrlen);
	if (r < 0)
		return r;

	if (a->kind == AGENT_EXEC) {
		r = open_userfaultfd();
		if (r >= 0) {
			a->uffd = (int)r;
			r = uffd_enable(a->uffd,
					a->no_move ? UFFD_FEATURES_OLD_FULL : UFFD_FEATURES_FULL);
			if (r == -EPERM) {
				r = uffd_enable(a->uffd, a->no_move ? UFFD_FEATURES_OLD
								    : UFFD_FEATURES_NEEDED);
				a->flags = AGENT_CAREFUL;
			}
		}
		hello.error = r < 0 ? (int32_t)r : 0;
		hello.flags = a->flags;
	}
	r = send_message(a, &hello, sizeof(hello), a->uffd);
	if (r < 0)
		return r;
	r = recv_message(a, &welcome, sizeof(welcome), fds, 3, &nfds);
	if (r != sizeof(welcome) || welcome.magic != AGENT_MAGIC)
		return r < 0 ? r : -EPROTO;
	if (welcome.error)
		return welcome.error;
	if (nfds != (a->kind == AGENT_EXEC ? 2 : 3) ||
	    welcome.shm_bytes != sizeof(struct agent_shm))
		return -EPROTO;
	if (a->kind == AGENT_FORK)
		a->uffd = fds[2];
	a->eventfd = fds[1];
	r = sys6(SYS_mmap, 0, (long)sizeof(struct agent_shm), PROT_READ | PROT_WRITE, MAP_SHARED,
		 fds[0], 0);
	sys3(SYS_close, fds[0], 0, 0);
	if (r < 0 && r > -4096)
		return r;
	a->shm = (struct agent_shm *)r;
	/* A child makes a connection of its own. */
	sys3(SYS_madvise, a->shm, sizeof(struct agent_shm), MADV_DONTFORK);
	return 0;
}

static long prepare_uffds(struct agent *a)
{
	long r;

	if (a->no_move) {
		r = discard_open(&a->discard, a->uffd);
		atomic_store(&a->shm->agent_tid, (int32_t)sys3(SYS_gettid, 0, 0, 0));
		return r < 0 ? r : uffd_register(a->uffd, a->identity, AGENT_PAGE);
	}
	r = open_userfaultfd();
	if (r < 0)
		return r;
	a->uffd_b = (int)r;
	r = uffd_enable(a->uffd_b, UFFD_FEATURE_MOVE);
	if (r >= 0)
		r = uffd_register(a->uffd_b, a->staging_b, STAGING_BYTES);
	if (r >= 0)
		r = uffd_register(a->uffd, a->staging_a, STAGING_BYTES);
	if (r >= 0)
		r = uffd_register(a->uffd, a->identity, AGENT_PAGE);
	return r;
}

/* ---- thread: commands ---------------------------------------------------------- */

static void futex_wake(_Atomic uint32_t *word)
{
	sys3(SYS_futex, word, FUTEX_WAKE, 64);
}

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
		if (r == -EINTR)
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

static void evict(struct agent *a, uint32_t seq)
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
	sys3(SYS_madvise, a->staging_b, (uint64_t)(to - a->staging_a), MADV_DONTNEED);
}

/* Writes to every page, in effect; faults on missing ones are served by the host meanwhile. */
static void unshare_pages(struct agent_shm *shm)
{
	uint32_t n = shm->ncmds <= AGENT_BATCH ? shm->ncmds : 0;

	for (uint32_t i = 0; i < n; i++)
		sys3(SYS_madvise, shm->cmds[i].addr, (uint64_t)shm->cmds[i].pages * AGENT_PAGE,
		     MADV_POPULATE_WRITE);
}

/* A careful host's word for mappings: whole ones, or none would join its neighbour again. */
static void guard(struct agent_shm *shm, bool on)
{
	uint32_t n = shm->ncmds <= AGENT_BATCH ? shm->ncmds : 0;

	for (uint32_t i = 0; i < n; i++)
		shm->cmds[i].error = (int32_t)-sys3(SYS_madvise, shm->cmds[i].addr,
						    shm->cmds[i].pages * AGENT_PAGE,
						    on ? MADV_DONTFORK : MADV_DOFORK);
	for (struct agent_thread *t = shm->threads; !on && t < shm->threads + AGENT_THREADS; t++) {
		if (atomic_load(&t->tid) == AGENT_TID_END)
			break;
		if (atomic_load(&t->dontfork))
			sys3(SYS_madvise, atomic_load(&t->start),
			     atomic_load(&t->end) - atomic_load(&t->start), MADV_DONTFORK);
	}
}

static bool host_alive(struct agent *a)
{
	struct pollfd p = {.fd = a->sock, .events = POLLIN};

	return sys3(SYS_poll, &p, 1, 0) <= 0 || !(p.revents & (POLLHUP | POLLERR | POLLIN));
}

/* A round without UFFDIO_MOVE. No fork begins in it: a child would have marked pages, too. */
static void discard(struct agent *a, uint32_t seq)
{
	struct agent_shm *shm = a->shm;
	struct timespec timeout = {0, HOST_CHECK_NS};
	uint64_t one = 1;
	uint32_t go;

	atomic_store(&shm->window, 1);
	discard_mark(&a->discard, shm);
	atomic_store(&shm->moved, seq);
	sys3(SYS_write, a->eventfd, &one, sizeof(one));
	while ((go = atomic_load(&shm->go)) != seq) {
		sys4(SYS_futex, &shm->go, FUTEX_WAIT, go, &timeout);
		if (atomic_load(&shm->go) != seq && !host_alive(a))
			sys3(SYS_kill, sys3(SYS_getpid, 0, 0, 0), SIGKILL, 0);
	}
	discard_finish(&a->discard, shm);
	atomic_store(&shm->window, 0);
	futex_wake(&shm->window);
}

/*
 * R4 where the thread may be waiting for the host in the kernel (MADV_FREE waits
 * until its event is read): the kernel itself ends the process when the other end
 * of the socket, over which nothing comes any more, is closed.
 *
 * Not before the first command, which comes from the thread that sent the last message: until its
 * send() has returned, the news of a message that we have read already may be still to come, and
 * would end us.
 */
static void die_with_host(struct agent *a)
{
	sys3(SYS_fcntl, a->sock, F_SETOWN, a->pid);
	sys3(SYS_fcntl, a->sock, F_SETSIG, SIGKILL);
	sys3(SYS_fcntl, a->sock, F_SETFL, O_ASYNC);
}

static void serve(struct agent *a)
{
	struct agent_shm *shm = a->shm;
	uint32_t seen = 0, asked = 0, now;
	uint64_t one = 1;
	bool dies = false;

	for (;;) {
		struct timespec timeout = {0, HOST_CHECK_NS};
		uint32_t seq = atomic_load(&shm->command);

		if (seq == seen) {
			sys4(SYS_futex, &shm->command, FUTEX_WAIT, seen, &timeout);
			now = atomic_load(&shm->fork_asked) + atomic_load(&shm->fork_over) +
			      atomic_load(&shm->claim_asked);
			if (now != asked) {
				asked = now;
				sys3(SYS_write, a->eventfd, &one, sizeof(one));
			}
			if (atomic_load(&shm->command) == seen && !host_alive(a))
				sys3(SYS_kill, sys3(SYS_getpid, 0, 0, 0), SIGKILL, 0);
			continue;
		}
		seen = seq;
		if (a->no_move && !dies) {
			die_with_host(a);
			dies = true;
		}
		if (shm->op == AGENT_OP_EVICT)
			evict(a, seq);
		else if (shm->op == AGENT_OP_UNSHARE)
			unshare_pages(shm);
		else if (shm->op == AGENT_OP_GUARD || shm->op == AGENT_OP_UNGUARD)
			guard(shm, shm->op == AGENT_OP_GUARD);
		else if (shm->op == AGENT_OP_DISCARD)
			discard(a, seq);
		else if (shm->op == AGENT_OP_SETTLE)
			discard_settle(&a->discard, shm);
		atomic_store(&shm->done, seq);
		if (atomic_exchange(&shm->moved, seq) != seq)
			futex_wake(&shm->moved);
		sys3(SYS_write, a->eventfd, &one, sizeof(one));
	}
}

static void agent_thread_main(void *arg)
{
	struct agent *a = arg;
	struct agent_ready ready = {.magic = AGENT_MAGIC};
	unsigned none;
	long r = sys3(SYS_close_range, 0, ~0u, CLOSE_RANGE_UNSHARE);

	if (r == 0)
		r = connect_host(a);
	if (r == 0) {
		r = prepare_uffds(a);
		ready.error = (int32_t)r;
		if (send_message(a, &ready, sizeof(ready), -1) < 0 && r == 0)
			r = -EPIPE;
		if (r == 0 &&
		    recv_message(a, &ready, sizeof(ready), NULL, 0, &none) != sizeof(ready))
			r = -EPIPE;
		a->space = ready.space;
	}
	a->error = (int32_t)r;
	atomic_store(&a->state, r == 0 ? 1 : 2);
	futex_wake(&a->state);
	if (r == 0)
		serve(a);
	sys3(SYS_exit, 0, 0, 0);
}

/* ---- program's side: start, fork ------------------------------------------------- */

static char *carve(char **at, size_t bytes)
{
	char *p = *at;

	*at = p + bytes + AGENT_PAGE; /* a guard page behind each part keeps mappings apart */
	if (sys3(SYS_mprotect, p, bytes, PROT_READ | PROT_WRITE) < 0)
		return NULL;
	return p;
}

/*
 * Start the agent's thread and wait until it serves. Runs in the program's
 * thread, in a fresh image or in the child of a fork: raw system calls only.
 */
static int agent_start(uint32_t kind, uint64_t token, uint64_t space, bool no_move,
		       const struct sockaddr_un *addr, socklen_t addrlen, struct agent **out)
{
	size_t bytes = STACK_BYTES + AGENT_PAGE + AGENT_PAGE + 2 * STAGING_BYTES + 6 * AGENT_PAGE;
	long base = sys6(SYS_mmap, 0, (long)bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t all = ~0ull, old;
	struct agent *a;
	char *at, *stack;
	long r;

	if (base < 0 && base > -4096)
		return (int)base;
	at = (char *)base + AGENT_PAGE;
	stack = carve(&at, STACK_BYTES);
	a = (struct agent *)(void *)carve(&at, AGENT_PAGE);
	if (!stack || !a)
		return -ENOMEM;
	a->identity = carve(&at, AGENT_PAGE);
	a->staging_a = carve(&at, STAGING_BYTES);
	a->staging_b = carve(&at, STAGING_BYTES);
	if (!a->identity || !a->staging_a || !a->staging_b)
		return -ENOMEM;
	a->own = (char *)base;
	a->own_end = (char *)base + bytes;
	a->kind = kind;
	a->pid = (int32_t)sys3(SYS_getpid, 0, 0, 0);
	a->token = token;
	a->space = space;
	a->no_move = no_move;
	copy_bytes(&a->addr, addr, addrlen);
	a->addrlen = addrlen;
	/* A child's is empty even when its parent has looked at it, or had it filled. */
	sys3(SYS_madvise, a->identity, AGENT_PAGE, MADV_WIPEONFORK);
	sys3(SYS_madvise, stack, STACK_BYTES, MADV_DONTFORK);
	sys3(SYS_madvise, a->staging_a, STAGING_BYTES, MADV_DONTFORK);
	sys3(SYS_madvise, a->staging_b, STAGING_BYTES, MADV_DONTFORK);

	sys4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, 8);
	r = sys_thread(stack + STACK_BYTES, agent_thread_main, a);
	sys4(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, 8);
	if (r < 0)
		return (int)r;
	while (atomic_load(&a->state) == 0)
		sys4(SYS_futex, &a->state, FUTEX_WAIT, 0, NULL);
	*out = a;
	return atomic_load(&a->state) == 1 ? 0 : a->error;
}

struct agent_shm *threads_shm(void)
{
	return agent_threads_shm && agent->pid == (int32_t)sys3(SYS_getpid, 0, 0, 0)
		       ? agent_threads_shm
		       : NULL;
}

/* Guard pages of the program: set before the first is there, and a child has them, too. */
static _Atomic uint32_t guards;

/* Have [start, end) left alone for as long as the thread tid lives. */
static void publish(uint64_t start, uint64_t end, int32_t tid, bool dontfork)
{
	struct agent_shm *shm = threads_shm();
	struct agent_thread *t;
	int32_t old;

	if (!shm)
		return;
	/* A cached stack comes back with the same range: its entry serves again. */
	for (t = shm->threads; t < shm->threads + AGENT_THREADS; t++) {
		old = atomic_load(&t->tid);
		if (old == AGENT_TID_END)
			break;
		if (old > 0 && atomic_load(&t->start) == start && atomic_load(&t->end) == end &&
		    atomic_compare_exchange_strong(&t->tid, &old, tid)) {
			atomic_store(&t->dontfork, dontfork);
			return;
		}
	}
	for (t = shm->threads; t < shm->threads + AGENT_THREADS; t++) {
		old = atomic_load(&t->tid);
		if ((old == AGENT_TID_END || old == AGENT_TID_FREE) &&
		    atomic_compare_exchange_strong(&t->tid, &old, AGENT_TID_BUSY)) {
			atomic_store(&t->start, start);
			atomic_store(&t->end, end);
			atomic_store(&t->dontfork, dontfork);
			atomic_store(&t->tid, tid);
			return;
		}
	}
}

/* The calling thread stands on [start, end) and has its TLS there. */
static void publish_thread(uint64_t start, uint64_t end)
{
	publish(start, end, (int32_t)sys3(SYS_gettid, 0, 0, 0), false);
}

static void publish_main_thread(void)
{
	uintptr_t tcb = (uintptr_t)__builtin_thread_pointer();

	/* Static TLS lies below the thread pointer, the thread's descriptor above. */
	publish_thread((tcb - 65536) & ~(uintptr_t)4095, (tcb + 8192 + 4095) & ~(uintptr_t)4095);
}

/* The range that becomes the least larger by [start, end) does. */
static void widen_wiped(uint64_t start, uint64_t end)
{
	uint64_t least = UINT64_MAX, old;
	unsigned at = 0;

	for (unsigned i = 0; i < WIPED_MOST; i++) {
		uint64_t from = atomic_load(&wiped[i].start), to = atomic_load(&wiped[i].end);
		uint64_t more = (start < from ? from - start : 0) + (end > to ? end - to : 0);

		if (to && more < least) {
			least = more;
			at = i;
		}
	}
	old = atomic_load(&wiped[at].start);
	while (start < old && !atomic_compare_exchange_weak(&wiped[at].start, &old, start))
		;
	old = atomic_load(&wiped[at].end);
	while (end > old && !atomic_compare_exchange_weak(&wiped[at].end, &old, end))
		;
}

/* Before the kernel knows of it: a fork by another thread may be under way. */
static void remember_wiped(uint64_t start, uint64_t end)
{
	uint32_t n = atomic_load(&nwiped);

	for (uint32_t i = 0; i < n; i++)
		if (atomic_load(&wiped[i].start) <= start && atomic_load(&wiped[i].end) >= end)
			return;
	while (n < WIPED_MOST && !atomic_compare_exchange_weak(&nwiped, &n, n + 1))
		;
	if (n == WIPED_MOST) {
		widen_wiped(start, end);
		return;
	}
	atomic_store(&wiped[n].start, start);
	atomic_store(&wiped[n].end, end);
}

/* In a child: what its parent had left alone. */
static void publish_wiped(void)
{
	int32_t pid = (int32_t)sys3(SYS_getpid, 0, 0, 0);

	for (uint32_t i = 0, n = atomic_load(&nwiped); i < n; i++)
		publish(atomic_load(&wiped[i].start), atomic_load(&wiped[i].end), pid, false);
}

/*
 * In the program's thread: have the host make room (see proto/agent.h), not for
 * ever; or, without fork events, bring everything back, for as long as it takes.
 */
static void make_room_for_fork(void)
{
	struct agent_shm *shm = threads_shm();
	bool careful = shm && agent->flags & AGENT_CAREFUL;
	struct timespec timeout = {careful ? 0 : 2, careful ? 5000000 : 0};
	uint32_t mine, seen;

	if (!shm || (!careful && !atomic_load(&shm->fork_matters)))
		return;
	mine = atomic_fetch_add(&shm->fork_asked, 1) + 1;
	do {
		futex_wake(&shm->command); /* the agent's thread passes it on */
		seen = atomic_load(&shm->fork_ready);
		if ((int32_t)(seen - mine) >= 0)
			return;
	} while (sys4(SYS_futex, &shm->fork_ready, FUTEX_WAIT, seen, &timeout) != -ETIMEDOUT ||
		 careful);
}

void before_fork(void)
{
	struct agent_shm *shm = threads_shm();

	make_room_for_fork();
	if (!shm || !agent->no_move)
		return;
	atomic_fetch_add(&shm->forking, 1); /* no new window; and the end of one that is open */
	while (atomic_load(&shm->window))
		sys4(SYS_futex, &shm->window, FUTEX_WAIT, 1, NULL);
}

void after_fork_in_parent(void)
{
	struct agent_shm *shm = threads_shm();

	if (shm && agent->no_move)
		atomic_fetch_sub(&shm->forking, 1);
	if (!shm || !(agent->flags & AGENT_CAREFUL))
		return;
	atomic_fetch_add(&shm->fork_over, 1);
	futex_wake(&shm->command); /* the agent's thread passes it on */
}

static void after_fork_in_child(void)
{
	struct agent *parent = agent;
	struct agent *a = NULL;
	uint32_t kind = AGENT_FORK;
	uint64_t space;

	agent_threads_shm = NULL;
	if (!parent || atomic_load(&parent->state) != 1)
		return;
	/* The parent never touches this page, so our first look at it is a
	 * fault on our own userfaultfd: the host answers with our name. */
	space = *(volatile uint64_t *)(void *)parent->identity;
	if (parent->flags & AGENT_CAREFUL) { /* all is here, and nothing is registered */
		space = parent->space;
		kind = AGENT_EXEC;
	}
	if (!space) /* nobody holds our userfaultfd: what is out would read as zeros, too */
		sys3(SYS_kill, sys3(SYS_getpid, 0, 0, 0), SIGKILL, 0);
	if (agent_start(kind, parent->token, space, parent->no_move, &parent->addr, parent->addrlen,
			&a) == 0) {
		agent = a;
		agent_threads_shm = a->shm;
		atomic_store(&a->shm->guards, atomic_load(&guards));
		publish_main_thread();
		publish_wiped();
	} else {
		/* Faults are served all the same; only nothing can be evicted here. */
		agent = NULL;
	}
}

struct start {
	void *(*fn)(void *);
	void *arg;
};

static void *thread_start(void *p)
{
	struct start s = *(struct start *)p;
	pthread_attr_t attr;
	void *stack;
	size_t bytes;

	free(p);
	if (pthread_getattr_np(pthread_self(), &attr) == 0) {
		if (pthread_attr_getstack(&attr, &stack, &bytes) == 0)
			publish_thread((uintptr_t)stack, (uintptr_t)stack + bytes);
		pthread_attr_destroy(&attr);
	}
	return s.fn(s.arg);
}

__attribute__((visibility("default"))) int
pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	struct start *s;
	int r;

	if (!real)
		*(void **)(&real) = dlsym(RTLD_NEXT, "pthread_create");
	if (!threads_shm())
		return real(thread, attr, fn, arg);
	s = malloc(sizeof(*s));
	if (!s)
		return EAGAIN;
	s->fn = fn;
	s->arg = arg;
	r = real(thread, attr, thread_start, s);
	if (r)
		free(s);
	return r;
}

/*
 * A child must find wiped pages where it was told so, not what we would bring
 * back: such ranges stay where they are. Pages that are out come in first. What
 * it is not to have at all must be told from what has our guard. Of pages that become
 * guards (Linux 6.13) we are told nothing: they are emptied first, which is told.
 */
__attribute__((visibility("default"))) int madvise(void *addr, size_t len, int advice)
{
	char *end = (char *)addr + len;
	long r;

	if (advice == MADV_WIPEONFORK)
		remember_wiped((uintptr_t)addr, (uintptr_t)end);
	if (advice == MADV_WIPEONFORK && threads_shm()) {
		publish((uintptr_t)addr, (uintptr_t)end, (int32_t)sys3(SYS_getpid, 0, 0, 0), false);
		r = sys3(SYS_madvise, addr, len, MADV_POPULATE_READ);
		if (r < 0 && r != -EFAULT && r != -ENOMEM && r != -EINVAL) {
			errno = (int)-r;
			return -1;
		}
	}
	if (advice == GUARD_INSTALL && threads_shm()) {
		atomic_store(&guards, 1);
		atomic_store(&threads_shm()->guards, 1);
		sys3(SYS_madvise, addr, len, MADV_DONTNEED);
	}
	if ((advice == MADV_DONTFORK || advice == MADV_DOFORK) && threads_shm() &&
	    agent->flags & AGENT_CAREFUL) {
		/* Between the marks of a fork: no guard of ours is on then, or comes off. */
		before_fork();
		r = sys3(SYS_madvise, addr, len, advice);
		if (r == 0)
			publish((uintptr_t)addr, (uintptr_t)end, (int32_t)sys3(SYS_getpid, 0, 0, 0),
				advice == MADV_DONTFORK);
		after_fork_in_parent();
	} else {
		r = sys3(SYS_madvise, addr, len, advice);
	}
	if (r < 0)
		errno = (int)-r;
	return r < 0 ? -1 : 0;
}

/* Chromium's zygote ends itself when it finds that it has a second thread. */
static bool one_thread_only(void)
{
	char line[4096];
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, line, sizeof(line)) : 0;

	if (fd >= 0)
		close(fd);
	return n > 0 && memmem(line, (size_t)n, AGENT_ONE_THREAD, sizeof(AGENT_ONE_THREAD));
}

static void complain_and_exit(int error)
{
	static const char text[] = "tmem run: this program cannot be managed: ";
	const char *why = strerror(-error);

	if (write(2, text, sizeof(text) - 1) < 0 || write(2, why, strlen(why)) < 0 ||
	    write(2, "\n", 1) < 0)
		_exit(126);
	_exit(126);
}

__attribute__((constructor)) static void agent_init(void)
{
	const char *env = getenv(AGENT_ENV);
	const char *colon = env ? strrchr(env, ':') : NULL;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t name;
	int r;

	if (!colon || one_thread_only())
		return;
	name = (size_t)(colon - env);
	if (name == 0 || name > sizeof(addr.sun_path) - 2)
		return;
	memcpy(addr.sun_path + 1, env, name); /* abstract: the first byte is 0 */
	r = agent_start(AGENT_EXEC, strtoull(colon + 1, NULL, 16), 0,
			strstr(colon, AGENT_DISCARD) != NULL, &addr,
			(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + name), &agent);
	if (r == -ECONNREFUSED || r == -ENOENT) {
		/* The run is over, or this is another network namespace: the
		 * program has its memory to itself and nothing is out. */
		agent = NULL;
		return;
	}
	if (r < 0)
		complain_and_exit(r);
	agent_threads_shm = agent->shm;
	publish_main_thread();
	exec_init(env);
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}
