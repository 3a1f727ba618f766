/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The keeper: a third process that holds every userfaultfd, and does nothing else.
 *
 * The last descriptor of a userfaultfd gone, what is out reads as zeros. The supervisor,
 * the host and the agents hold them; but a child made by a bare fork system call has no
 * agent, and one `pkill -9 tmem` ends the other two. So there is one that it does not
 * find: its name and its command line say nothing of tmem.
 *
 *      supervisor --+-- host ---------+
 *                   |                 +-- socket --> keeper
 *                   +-----------------+
 *
 *   K1  the keeper acts only when both have gone: it reads the end of the socket, whose
 *       other end nobody else has. When all is well the supervisor ends it before.
 *   K2  a descriptor it has got it holds until told to let go, or until its memory is
 *       gone: so a fault on what is out waits, whoever looks at it, until it is killed
 *
 * Then it kills what it can find, by the run's socket in their environment: who has
 * overwritten his environment waits at his next fault, as under K2. Three SIGKILLs at
 * one moment are one too many for this; so is a machine on which the keeper is stopped.
 *
 * It is forked before the host, when this process is small and has one thread. It costs
 * some hundred kilobytes.
 */
#include "frontswap/pager/run.h"
#include "frontswap/uffd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME	 "run-keeper"
#define PAUSE_US 2000

struct kept {
	uint64_t space;
	int fd;
};

/* The keeper's own, in its own process. */
static struct kept *kept;
static unsigned nkept, kept_size;
static char socket_name[64];

static void take(uint64_t space, int fd)
{
	if (nkept == kept_size) {
		unsigned size = kept_size ? kept_size * 2 : 64;
		struct kept *more = realloc(kept, size * sizeof(*more));

		if (!more) {
			close(fd);
			return;
		}
		kept = more;
		kept_size = size;
	}
	kept[nkept++] = (struct kept){space, fd};
}

static void let_go(unsigned i)
{
	close(kept[i].fd);
	kept[i] = kept[--nkept];
}

/* Whether there is a memory behind it still. UFFDIO_CONTINUE changes nothing of ours. */
static bool lives(int fd)
{
	struct uffdio_continue c = {.range = {65536, AGENT_PAGE}};

	return ioctl(fd, UFFDIO_CONTINUE, &c) == 0 || errno != ESRCH;
}

/* One message. False: the other end is closed. */
static bool listen_on(int line)
{
	struct control_message m;
	unsigned i;
	ssize_t n;
	int fd;

	/* No message at all, and not one of another length: those do not exist. */
	if (peer_recv(line, &m, sizeof(m), &fd) < 0)
		return recv(line, &m, 1, MSG_PEEK | MSG_DONTWAIT) != 0;
	m.text[sizeof(m.text) - 1] = 0;
	n = fd;
	if (m.kind == CONTROL_HOLD && fd >= 0) {
		take(m.space, fd);
		n = -1;
	} else if (m.kind == CONTROL_RELEASE) {
		for (i = 0; i < nkept; i++)
			if (kept[i].space == m.space)
				let_go(i--);
	} else if (m.kind == CONTROL_READY) {
		snprintf(socket_name, sizeof(socket_name), "%.*s", (int)strcspn(m.text, ":"),
			 m.text);
	}
	if (n >= 0)
		close((int)n);
	return true;
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

/* K2. */
static void hold_on(void)
{
	do {
		while (keeper_sweep(socket_name) > 0)
			usleep(PAUSE_US);
		for (unsigned i = 0; i < nkept; i++)
			if (!lives(kept[i].fd))
				let_go(i--);
		usleep(50 * PAUSE_US);
	} while (nkept);
}

/* Nothing of what we inherited: whoever waits for the end of a pipe waits for us, too. */
static void close_all_but(int line)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; fd < 3 && null >= 0; fd++)
		dup2(null, fd);
	if (line > 3)
		close_range(3, (unsigned)line - 1, 0);
	close_range((unsigned)line + 1, ~0u, 0);
}

/* Our own name for those who look for names. */
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

static void keeper_main(int line)
{
	sigset_t all;

	setsid();
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	close_all_but(line);
	hide_name();
	while (listen_on(line))
		;
	hold_on();
	_exit(0);
}

int keeper_start(struct keeper *k)
{
	int pair[2];

	*k = (struct keeper){0, -1};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	k->pid = fork();
	if (k->pid == 0) {
		close(pair[0]);
		keeper_main(pair[1]);
	}
	close(pair[1]);
	k->line = pair[0];
	return k->pid < 0 ? -errno : 0;
}

/* It must never hold us up: what it does not take in this moment it does not get. */
int keeper_send(const struct keeper *k, const struct control_message *m, int fd)
{
	return k->line >= 0 ? control_send(k->line, m, fd, MSG_DONTWAIT) : -EPIPE;
}

void keeper_end(const struct keeper *k)
{
	if (k->pid > 0 && kill(k->pid, SIGKILL) == 0)
		waitpid(k->pid, NULL, 0);
}
