/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent: the part of `tmem run` that lives in the target program.
 *
 * It is loaded by LD_PRELOAD and does only what must happen inside the
 * program's address space: it makes the userfaultfd, and it moves pages out
 * when the host says which. All policy is the host's.
 *
 *   agent.c    its thread: connection, commands
 *   move.c     pages leave, by UFFDIO_MOVE
 *   discard.c  the same on kernels without that
 *   program.c  what it does in the program's own threads: start, forks, madvise()
 *   threads.c  what they say of where they stand
 *   remap.c, claim.c, exec.c, lock.c   other calls of the program that concern us
 *
 * Rules
 *   R1  The thread touches no memory that could be managed: its stack, control
 *       page, stagings are in one mapping of its own, whose range the host
 *       knows; slots are shared memory. No libc, no TLS, no malloc.
 *   R2  The thread has a descriptor table of its own, empty but for its own
 *       descriptors, so close_range(3, ~0) in the program does not reach them,
 *       and it keeps no pipe end of the program's open. It has a current folder
 *       of its own, which is the root.
 *   R3  All signals are blocked in the thread.
 *   R4  When the host is gone the process is killed: a page that is out can
 *       never be had again, and must not read as zeros. The thread's
 *       descriptor keeps every fault waiting until then.
 */
#include "frontswap/agent/agent.h"
#include "frontswap/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define STACK_BYTES   65536u
#define HOST_CHECK_NS 200000000L
#define SPIN	      1000u /* looks for the host's next word: some hundred microseconds */

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
	/* Nobody reads it: who touches staging B (mlockall() does) must not wait. */
	r = uffd_enable(a->uffd_b, UFFD_FEATURE_MOVE | UFFD_FEATURE_SIGBUS);
	if (r >= 0)
		r = uffd_register(a->uffd_b, a->staging_b, STAGING_BYTES);
	if (r >= 0)
		r = uffd_register(a->uffd, a->staging_a, STAGING_BYTES);
	if (r >= 0)
		r = uffd_register(a->uffd, a->identity, AGENT_PAGE);
	return r;
}

/* ---- thread: commands ---------------------------------------------------------- */

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
	uint32_t go, tried = 0;
	unsigned spin = SPIN;

	atomic_store(&shm->window, 1);
	discard_mark(&a->discard, shm);
	atomic_store(&shm->moved, seq);
	sys3(SYS_write, a->eventfd, &one, sizeof(one));
	while ((go = atomic_load(&shm->go)) != seq) {
		if (go - seq - AGENT_AGAIN < AGENT_TRIES && go != tried) {
			discard_again(&a->discard, shm);
			tried = go;
			atomic_store(&shm->again, go);
			spin = 0; /* the next one may be a matter of microseconds */
		}
		if (spin++ < SPIN) {
			sys3(SYS_sched_yield, 0, 0, 0);
			continue;
		}
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
			move_evict(a, seq);
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

	sys3(SYS_chdir, "/", 0, 0); /* so that it keeps no file system busy */
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

/* ---- start, by one of the program's threads -------------------------------------- */

static char *carve(char **at, size_t bytes)
{
	char *p = *at;

	*at = p + bytes + AGENT_PAGE; /* a guard page behind each part keeps mappings apart */
	if (sys3(SYS_mprotect, p, bytes, PROT_READ | PROT_WRITE) < 0)
		return NULL;
	return p;
}

int agent_start(uint32_t kind, uint64_t token, uint64_t space, bool no_move,
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
