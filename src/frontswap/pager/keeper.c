/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The keeper: a process that has every descriptor of the host, and does nothing.
 *
 * The last descriptor of a userfaultfd gone, what is out reads as zeros. The supervisor
 * and the agents hold copies; but a child made by a bare fork system call has no agent,
 * one `pkill -9 tmem` ends host and supervisor, and a host that is killed between the
 * read() that gives it a child's userfaultfd and the sendmsg() that hands a copy on has
 * the only one. Measured, with children made all the time: one kill of the host in forty
 * had a child read zeros; with both killed at once one of two.
 *
 * So the keeper shares the host's descriptor table (CLONE_FILES, and nothing else): what
 * the kernel puts into it is the keeper's in the same instant, and no message is needed.
 * The kernel frees the table when both have gone. Its name and its command line say
 * nothing of tmem: who kills by name does not find it.
 *
 *      supervisor --+-- host ----- keeper
 *                   |      \        /
 *                   |     one table of descriptors
 *                   +-- program
 *
 *   K1  while the host lives the keeper waits for its end, and touches no descriptor
 *   K2  then sockets are closed at once: agents and supervisor see the end of the host.
 *       A userfaultfd is closed when its memory is gone, not before: whoever looks at
 *       what is out waits until he is killed
 *
 * It kills what it can find, by the run's socket in the environment: who has overwritten
 * that waits at his next fault, as under K2. Supervisor, host and keeper killed at one
 * moment are one too many. When all is well the host ends it.
 */
#include "frontswap/pager/run.h"
#include "frontswap/uffd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

#define NAME	 "run-keeper"
#define PAUSE_US 2000

/* Whether there is a memory behind a userfaultfd still. UFFDIO_CONTINUE changes nothing of ours. */
static bool lives(int fd)
{
	struct uffdio_continue c = {.range = {65536, AGENT_PAGE}};

	return ioctl(fd, UFFDIO_CONTINUE, &c) == 0 || errno != ESRCH;
}

/* K2 for all descriptors. How many memories live. */
static unsigned close_dead(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	unsigned n = 0;
	struct stat st;

	while (d && (e = readdir(d))) {
		int fd = atoi(e->d_name);

		if (e->d_name[0] == '.' || fd == dirfd(d) || fd < 3)
			continue;
		if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode))
			close(fd);
		else if (!peer_userfaultfd(fd))
			continue;
		else if (lives(fd))
			n++;
		else
			close(fd);
	}
	if (d)
		closedir(d);
	return n;
}

unsigned keeper_sweep(const char *name)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	unsigned n = 0;

	while (d && *name && (e = readdir(d))) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);

		if (pid > 0 && pid != getpid() && maps_environ_holds(pid, name) &&
		    kill(pid, SIGKILL) == 0)
			n++;
	}
	if (d)
		closedir(d);
	return n;
}

/* Our own name, for those who look for names. */
static void hide_name(void)
{
	char text[2048], *at;
	unsigned long start = 0, end = 0;
	FILE *f = fopen("/proc/self/stat", "re");
	size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

	if (f)
		fclose(f);
	text[n] = 0;
	prctl(PR_SET_NAME, NAME);
	at = strrchr(text, ')'); /* field 2; the command line's place is in 48 and 49 */
	for (unsigned field = 2; at && field < 48; field++)
		at = strchr(at + 1, ' ');
	if (at && sscanf(at, " %lu %lu", &start, &end) == 2 && end > start + sizeof(NAME)) {
		memset((void *)start, 0, end - start);
		memcpy((void *)start, NAME, sizeof(NAME));
	}
}

static void keeper_main(const struct keeper *k, int host)
{
	struct pollfd p = {.fd = host, .events = POLLIN};
	sigset_t all;
	int null;

	setsid();
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	while (poll(&p, 1, -1) < 0)
		;
	/* Whoever waits for the end of a pipe waits for us, too. */
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd < 3 && null >= 0; fd++)
		dup2(null, fd);
	while (close_dead() | keeper_sweep(k->name))
		usleep(PAUSE_US);
	_exit(0);
}

int keeper_start(struct keeper *k)
{
	int host = (int)syscall(SYS_pidfd_open, getpid(), 0);
	long pid;

	*k = (struct keeper){.name = MAP_FAILED};
	if (host < 0)
		return -errno;
	k->name =
		mmap(NULL, KEEPER_NAME, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (k->name == MAP_FAILED)
		return -errno;
	/* fork() of libc has no flags; we are alone here, and it is not missed. */
	pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		hide_name();
		keeper_main(k, host);
	}
	k->pid = (pid_t)pid;
	return 0;
}

void keeper_end(const struct keeper *k)
{
	if (k->pid > 0 && kill(k->pid, SIGKILL) == 0)
		waitpid(k->pid, NULL, 0);
}
