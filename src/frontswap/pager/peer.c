/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who it is that connects to us, and what it sent.
 *
 * Anybody on the machine may connect to an abstract socket; a program may send what it
 * likes over it, and hand what we gave it to others. So nothing is believed that the
 * kernel does not say itself:
 *
 *   a message       has exactly its length, and brings one descriptor or none. The others
 *                   are closed: they would stay with us for ever.
 *   a descriptor    is a userfaultfd if it is called so in /proc/self/fd: only the kernel
 *                   gives names that begin with no slash. Out of a pipe we would read
 *                   events that the other side wrote, with descriptors' numbers in them.
 *   a process       is who connected (SO_PEERCRED), never a number in a message. A number
 *                   may be another's by the time we send a signal; a pidfd is not.
 *   who may speak   our own user, and whatever descends from the program, for that may
 *                   have changed its user. Somebody else does not even get a thread. It is
 *                   not for secrecy, the token is; but they could keep us busy.
 *   never wait      flags belong to the open file, and so to both sides: who has the
 *                   descriptor can make a read of ours block. So a userfaultfd is read only
 *                   when poll says that it does not block, an eventfd with RWF_NOWAIT.
 */
#include "frontswap/pager/run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

#define DESCRIPTORS_MOST 253 /* of one message: the kernel's own bound */

/* The first of a message's descriptors; the others are closed. -1: there is none. */
static int first_descriptor(struct msghdr *m)
{
	int first = -1, fd;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (first < 0)
				first = fd;
			else
				close(fd);
		}
	}
	return first;
}

int peer_recv(int sock, void *buf, size_t n, int *fd)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(DESCRIPTORS_MOST * sizeof(int))];
	} control;
	struct iovec iov = {buf, n};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control.space)};
	ssize_t got = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);

	*fd = got >= 0 ? first_descriptor(&m) : -1;
	if (got == (ssize_t)n && !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return 0;
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	return -EPROTO;
}

bool peer_userfaultfd(int fd)
{
	static const char name[] = "anon_inode:[userfaultfd]";
	char path[40], is[sizeof(name) + 1];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, is, sizeof(is));
	return n == sizeof(name) - 1 && !memcmp(is, name, sizeof(name) - 1) &&
	       fcntl(fd, F_SETFL, O_NONBLOCK) == 0;
}

static bool credentials(int sock, struct ucred *c)
{
	socklen_t n = sizeof(*c);

	return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, c, &n) == 0;
}

pid_t peer_process(int sock, int *pidfd)
{
	socklen_t n = sizeof(*pidfd);
	struct ucred c;

	*pidfd = -1;
	if (!credentials(sock, &c) || c.pid <= 0) /* in a PID namespace that is not below ours */
		return 0;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, pidfd, &n) < 0) {
		*pidfd = errno == ENOPROTOOPT ? (int)syscall(SYS_pidfd_open, c.pid, 0) : -1;
		if (*pidfd < 0)
			*pidfd = -1;
	}
	return c.pid;
}

bool peer_allowed(const struct run *r, int sock)
{
	struct ucred c;

	if (!credentials(sock, &c))
		return false;
	return c.uid == geteuid() || (c.pid > 0 && maps_descends(c.pid, r->supervisor));
}

void peer_take(int eventfd)
{
	uint64_t count;
	struct iovec iov = {&count, sizeof(count)};

	/* Whatever comes of it: nothing was there, or the other side has taken it. */
	if (preadv2(eventfd, &iov, 1, -1, RWF_NOWAIT) < 0)
		count = 0;
}

bool peer_kill(struct space *sp)
{
	pid_t pid = atomic_load(&sp->pid);

	if (pid <= 0)
		return false;
	/* Without a pidfd it had ended when it came to us, and its number may be another's. */
	if (sp->pidfd >= 0)
		syscall(SYS_pidfd_send_signal, sp->pidfd, SIGKILL, NULL, 0);
	return true;
}
