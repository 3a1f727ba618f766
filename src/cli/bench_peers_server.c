/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A server for the time of one measurement.
 *
 * It is started by the measuring process, in its process group, and told by
 * the kernel to die with it; the socket's directory is removed as soon as all
 * connections are made. So nothing is left, however the measurement ends.
 */
#include "cli/bench_peers.h"

#include "os/clock.h"
#include "os/file.h"
#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_NS 5000000000ull
#define STOP_NS	 5000000000ull
#define STEP_NS	 5000000ull

uint64_t peers_rollup(pid_t pid, const char *field)
{
	char path[64] = "/proc/self/smaps_rollup", *text, *line;
	uint64_t kb = 0;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	text = os_file_slurp(path, 65536, NULL);
	line = text ? strstr(text, field) : NULL;
	if (line)
		kb = strtoull(line + strlen(field), NULL, 10);
	os_free(text);
	return kb * 1024;
}

uint64_t server_memory(const struct server *s)
{
	uint64_t now = peers_rollup(s->pid, "Rss:");

	return now > s->memory_before ? now - s->memory_before : 0;
}

uint64_t server_cpu_ns(const struct server *s)
{
	unsigned long long user = 0, system = 0;
	char path[64], *text, *after;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)s->pid);
	text = os_file_slurp(path, 4096, NULL);
	/* The name in parentheses may hold anything; fields 14 and 15 are counted from its end. */
	after = text ? strrchr(text, ')') : NULL;
	if (after && sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
			    &user, &system) != 2)
		user = system = 0;
	os_free(text);
	return (user + system) * (1000000000ull / (uint64_t)sysconf(_SC_CLK_TCK));
}

/* ---- bytes ------------------------------------------------------------------------------- */

int server_send(int fd, const void *buf, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t rc = send(fd, (const char *)buf + done, n - done, MSG_NOSIGNAL);

		if (rc < 0 && errno != EINTR)
			return -errno;
		done += rc > 0 ? (size_t)rc : 0;
	}
	return 0;
}

int server_receive(int fd, void *buf, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t rc = recv(fd, (char *)buf + done, n - done, 0);

		if (rc < 0 && errno != EINTR)
			return -errno;
		if (rc == 0)
			return -ECONNRESET;
		done += rc > 0 ? (size_t)rc : 0;
	}
	return 0;
}

/* ---- starting and ending ------------------------------------------------------------------- */

int server_prepare(struct server *s)
{
	const char *tmp = getenv("TMPDIR");

	*s = (struct server){.pid = 0};
	for (unsigned i = 0; i < SERVER_MEMBERS_MAX; i++)
		s->fd[i] = -1;
	/* A socket's path is short. */
	if (!tmp || strlen(tmp) > 32)
		tmp = "/tmp";
	snprintf(s->dir, sizeof(s->dir), "%s/tmem-peers-XXXXXX", tmp);
	if (!mkdtemp(s->dir)) {
		s->dir[0] = '\0';
		return -errno;
	}
	snprintf(s->path, sizeof(s->path), "%s/socket", s->dir);
	return 0;
}

static void forget_dir(struct server *s)
{
	if (s->dir[0]) {
		(void)os_file_unlink(s->path);
		(void)rmdir(s->dir);
		s->dir[0] = '\0';
	}
}

static void exec_server(const char *const *argv, int report)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), code;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < 3 && null >= 0; i++)
		dup2(null, i);
	execvp(argv[0], (char *const *)argv);
	code = -errno;
	(void)!write(report, &code, sizeof(code));
	_exit(127);
}

/* 0 once it has been exec'ed. */
static int start(struct server *s, const char *const *argv)
{
	int ends[2], code = 0;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	s->pid = fork();
	if (s->pid == 0)
		exec_server(argv, ends[1]);
	if (s->pid < 0)
		code = -errno;
	close(ends[1]);
	/* Nothing comes when it was exec'ed. */
	while (!code && read(ends[0], &code, sizeof(code)) < 0 && errno == EINTR)
		;
	close(ends[0]);
	return code;
}

static int try_connect(const struct server *s)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), code;

	if (fd < 0)
		return -errno;
	memcpy(to.sun_path, s->path, sizeof(to.sun_path));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
		return fd;
	code = -errno;
	close(fd);
	return code;
}

static int wait_connect(struct server *s, char *why, size_t size)
{
	uint64_t end = os_clock_ns() + START_NS;
	int fd;

	while ((fd = try_connect(s)) < 0) {
		if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
			s->pid = 0;
			snprintf(why, size, "it ended as soon as it was started");
			return -ECHILD;
		}
		if (os_clock_ns() > end) {
			snprintf(why, size, "it does not accept connections");
			return fd;
		}
		os_sleep_ns(STEP_NS);
	}
	return fd;
}

int server_start(struct server *s, const char *const *argv, unsigned connections, char *why,
		 size_t size)
{
	int code = connections > SERVER_MEMBERS_MAX ? -EINVAL : start(s, argv);

	if (code)
		snprintf(why, size, "cannot start %s: %s", argv[0], strerror(-code));
	for (; !code && s->connections < connections; s->connections++) {
		s->fd[s->connections] = wait_connect(s, why, size);
		if (s->fd[s->connections] < 0) {
			code = s->fd[s->connections];
			break;
		}
	}
	forget_dir(s);
	if (code)
		server_stop(s);
	else
		s->memory_before = peers_rollup(s->pid, "Rss:");
	return code;
}

void server_stop(struct server *s)
{
	uint64_t end = os_clock_ns() + STOP_NS;

	forget_dir(s);
	for (unsigned i = 0; i < s->connections; i++)
		if (s->fd[i] >= 0)
			close(s->fd[i]);
	s->connections = 0;
	if (s->pid <= 0)
		return;
	kill(s->pid, SIGTERM);
	while (waitpid(s->pid, NULL, WNOHANG) == 0) {
		if (os_clock_ns() > end) {
			kill(s->pid, SIGKILL);
			waitpid(s->pid, NULL, 0);
			break;
		}
		os_sleep_ns(STEP_NS);
	}
	s->pid = 0;
}
