/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A process beside the mount's, for when that is killed.
 *
 *   reader     locks a page, asks us for it     ── waits for our answer
 *   notify.c   has the kernel drop the page     ── waits for its lock, and no signal ends that
 *   SIGKILL    ends all threads but that one    ── our descriptors stay, as it has them, too; so
 *                                                  nobody tells the reader that we are gone
 *
 * Then the mount would hang for ever, and so would who mounts there again. The guard waits for the
 * end of our main thread (not of the process, or of a pipe: they wait for the last one), and ends
 * the connection (fusectl's "abort", held open from the beginning: its number may be another
 * mount's by then), so that all who wait have an error. It is made before there is anything to
 * share, and has no other descriptors.
 *
 * But not before the threads that serve have ended, which may be in the middle of a change of the
 * source: who is told that it failed, or finds the mount made anew, is not to meet it later. They
 * end when the source has answered, and with the last thread the kernel ends the connection itself;
 * our other threads, which have names of their own, change nothing. One that the source does not
 * answer is waited for SERVING_MS and no longer.
 *
 * Who kills both at once, or has no fusectl and may not mount one, is without it.
 */
#include "cleancache/cleancache.h"

#include "os/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONNECTIONS "/sys/fs/fuse/connections"
#define SERVING_MS  5000u
#define SURE	    20u

/* fusectl may not be mounted: then for a moment, where nobody sees it. */
static int open_abort(uint32_t number)
{
	char path[sizeof(CONNECTIONS) + 32];
	int fd, here;

	snprintf(path, sizeof(path), CONNECTIONS "/%u/abort", number);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	here = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	if (here < 0 || unshare(CLONE_NEWNS))
		return -1;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	    mount("fusectl", CONNECTIONS, "fusectl", 0, NULL) == 0)
		fd = open(path, O_WRONLY | O_CLOEXEC);
	/* What is mounted would stay so for as long as we are in there. */
	if (setns(here, CLONE_NEWNS))
		_exit(1);
	close(here);
	return fd;
}

/* One of libfuse's threads, which have the main thread's name. */
static bool serves(const char *tasks, const char *tid)
{
	char path[340], name[16] = "";
	int fd;

	snprintf(path, sizeof(path), "%s/%s/comm", tasks, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, name, sizeof(name) - 1) < 0)
		name[0] = 0;
	close(fd);
	return !strcmp(name, CC_NAME "\n");
}

static bool is_served(pid_t pid)
{
	const struct dirent *e;
	char tasks[64];
	bool any = false;
	DIR *d;

	snprintf(tasks, sizeof(tasks), "/proc/%d/task", (int)pid);
	d = opendir(tasks);
	while (d && !any && (e = readdir(d)))
		any = atoi(e->d_name) > 0 && atoi(e->d_name) != pid && serves(tasks, e->d_name);
	if (d)
		closedir(d);
	return any;
}

/* A list of threads that end meanwhile may end early: it is to say so several times. */
static void wait_for_servers(pid_t pid)
{
	unsigned none = 0;

	for (unsigned ms = 0; ms < SERVING_MS && none < SURE; ms++) {
		none = is_served(pid) ? 0 : none + 1;
		os_sleep_ns(1000000);
	}
}

static void guard(int pipe)
{
	struct pollfd p[2] = {{.fd = pipe, .events = POLLIN}, {.events = POLLIN}};
	pid_t mount = getppid();
	uint32_t number;
	sigset_t all;
	int fd = -1;

	(void)setsid();
	if (chdir("/"))
		return;
	(void)prctl(PR_SET_NAME, "tmem-guard");
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	if (pipe)
		(void)close_range(0, (unsigned)pipe - 1, 0);
	(void)close_range((unsigned)pipe + 1, ~0u, 0);
	sigemptyset(&all);
	sigaddset(&all, SIGUSR1);
	p[1].fd = signalfd(-1, &all, SFD_CLOEXEC);
	(void)prctl(PR_SET_PDEATHSIG, SIGUSR1); /* when the thread that forked has ended */
	while (poll(p, 2, -1) > 0 && !p[1].revents &&
	       read(pipe, &number, sizeof(number)) == (ssize_t)sizeof(number)) {
		if (!number)
			return; /* it ends by itself */
		fd = open_abort(number);
	}
	wait_for_servers(mount);
	if (fd >= 0 && write(fd, "1", 1) < 0)
		return; /* there is no connection any more */
}

void cc_guard_open(struct cc_mount *m)
{
	int fd[2];

	m->guard_fd = -1;
	if (pipe2(fd, O_CLOEXEC))
		return;
	m->guard = fork();
	if (m->guard == 0) {
		guard(fd[0]);
		_exit(0);
	}
	close(fd[0]);
	if (m->guard > 0)
		m->guard_fd = fd[1];
	else
		close(fd[1]);
}

void cc_guard_watch(struct cc_mount *m, uint32_t number)
{
	if (m->guard_fd >= 0 && write(m->guard_fd, &number, sizeof(number)) < 0)
		return; /* it is gone: as if there had been none */
}

void cc_guard_close(struct cc_mount *m)
{
	if (m->guard_fd < 0)
		return;
	cc_guard_watch(m, 0);
	close(m->guard_fd);
	m->guard_fd = -1;
	(void)waitpid(m->guard, NULL, 0);
}
