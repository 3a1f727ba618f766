/* SPDX-License-Identifier: BSD-2-Clause */
/* tmem run: what comes over the socket is what it must be, or nothing of it stays with us. */
#include "frontswap/pager/run.h"
#include "frontswap/uffd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t asked_for;
static bool descends;

/* What peer.c calls of maps.c. */
bool maps_descends(pid_t pid, pid_t above)
{
	asked_for = pid;
	assert_int_equal(above, 4711);
	return descends;
}

/* Lowest descriptor that is free: all below it are open. */
static int lowest(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	close(fd);
	return fd;
}

static void send_some(int sock, size_t bytes, unsigned nfds, int fd)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(253 * sizeof(int))];
	} control;
	char text[128] = "message";
	struct iovec iov = {text, bytes};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfds) {
		memset(&control, 0, sizeof(control));
		control.h.cmsg_len = CMSG_LEN(nfds * sizeof(int));
		control.h.cmsg_level = SOL_SOCKET;
		control.h.cmsg_type = SCM_RIGHTS;
		for (unsigned i = 0; i < nfds; i++)
			memcpy(CMSG_DATA(&control.h) + i * sizeof(int), &fd, sizeof(int));
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
	}
	assert_int_equal(sendmsg(sock, &m, 0), bytes);
}

static void test_messages(void **state)
{
	static const struct {
		size_t sent, wanted;
		unsigned nfds;
		int rc;
	} t[] = {
		{64, 64, 0, 0},	       {64, 64, 1, 0},		{64, 64, 2, 0},
		{64, 64, 253, 0},      {63, 64, 0, -EPROTO},	{65, 64, 0, -EPROTO},
		{63, 64, 1, -EPROTO},  {65, 64, 3, -EPROTO},	{0, 64, 0, -EPROTO},
		{1, 64, 253, -EPROTO}, {128, 64, 253, -EPROTO},
	};
	int pair[2], before, fd;
	char buf[64];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	before = lowest();
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		fd = 4711;
		send_some(pair[0], t[i].sent, t[i].nfds, pair[0]);
		assert_int_equal(peer_recv(pair[1], buf, t[i].wanted, &fd), t[i].rc);
		/* One at most stays, and is told. */
		if (t[i].rc == 0 && t[i].nfds) {
			assert_int_equal(fd, before);
			assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
			close(fd);
		} else {
			assert_int_equal(fd, -1);
		}
		assert_int_equal(lowest(), before);
	}
	close(pair[0]); /* the end of the line */
	assert_int_equal(peer_recv(pair[1], buf, sizeof(buf), &fd), -EPROTO);
	assert_int_equal(fd, -1);
	close(pair[1]);
}

static void test_kinds(void **state)
{
	int pair[2], pipes[2], fd = memfd_create("anon_inode:[userfaultfd]", MFD_CLOEXEC);
	char dir[] = "/tmp/run_peer.XXXXXX", name[64];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_int_equal(pipe(pipes), 0);
	assert_true(fd >= 0);
	assert_false(peer_userfaultfd(fd));
	close(fd);
	assert_false(peer_userfaultfd(fd)); /* nothing at all */
	assert_false(peer_userfaultfd(-1));
	assert_false(peer_userfaultfd(pair[0]));
	assert_false(peer_userfaultfd(pipes[0]));
	fd = eventfd(0, 0);
	assert_false(peer_userfaultfd(fd));
	close(fd);
	/* A file may have the very name, but not without its folder. */
	assert_non_null(mkdtemp(dir));
	snprintf(name, sizeof(name), "%s/anon_inode:[userfaultfd]", dir);
	fd = open(name, O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_false(peer_userfaultfd(fd));
	unlink(name);
	assert_false(peer_userfaultfd(fd));
	close(fd);
	rmdir(dir);
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC); /* blocks, so far */
	if (fd < 0) {
		print_message("no userfaultfd here: %s\n", strerror(errno));
	} else {
		assert_true(peer_userfaultfd(fd));
		assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
		close(fd);
	}
	close(pair[0]);
	close(pair[1]);
	close(pipes[0]);
	close(pipes[1]);
}

static void test_take_does_not_wait(void **state)
{
	int fd = eventfd(3, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t count;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_SETFL, 0), 0); /* by the other side, on the same open file */
	alarm(5);
	peer_take(fd);
	peer_take(fd); /* nothing is there: a read would wait now */
	alarm(0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(read(fd, &count, sizeof(count)), -1);
	close(fd);
}

static void test_process(void **state)
{
	static struct space sp;
	int pair[2], status, pidfd;
	pid_t child, pid;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	pid = peer_process(pair[0], &pidfd);
	assert_int_equal(pid, getpid());
	assert_true(pidfd >= 0);
	close(pidfd);
	close(pair[0]);
	close(pair[1]);
	/* One that has ended, and handed its end on. */
	child = fork();
	if (child == 0)
		for (;;)
			pause();
	assert_true(child > 0);
	sp.pidfd = -1;
	atomic_store(&sp.pid, 0);
	assert_false(peer_kill(&sp));
	atomic_store(&sp.pid, child);
	assert_true(peer_kill(&sp)); /* by its number alone nobody is killed */
	usleep(20000);
	assert_int_equal(waitpid(child, &status, WNOHANG), 0);
	sp.pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	assert_true(sp.pidfd >= 0);
	assert_true(peer_kill(&sp));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_true(peer_kill(&sp)); /* gone: nobody else has it */
	close(sp.pidfd);
}

static void test_allowed(void **state)
{
	static struct run r = {.supervisor = 4711};
	int pair[2], status;
	pid_t child;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_true(peer_allowed(&r, pair[0])); /* our own user: the token decides */
	assert_int_equal(asked_for, 0);
	close(pair[0]);
	close(pair[1]);
	if (geteuid() != 0) {
		print_message("not root: another user cannot be tried\n");
		return;
	}
	child = fork();
	if (child == 0) { /* a socket of root's, asked about by somebody else */
		int rc = socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair);

		if (rc < 0 || setresuid(1234, 1234, 1234) < 0)
			_exit(2);
		rc = peer_allowed(&r, pair[0]) || asked_for != getpid();
		descends = true;
		_exit(rc || !peer_allowed(&r, pair[0]));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_take_does_not_wait),
		cmocka_unit_test(test_process),
		cmocka_unit_test(test_allowed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
