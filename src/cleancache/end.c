/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Told to end, by SIGTERM, SIGINT or SIGHUP. The mount point goes first, and at once:
 *
 *   signal ─▶ the thread here ─▶ mount point detached ─▶ session told ─▶ main thread woken
 *                                                                        joins the others, saves
 *
 * Threads that wait for a source which does not answer are waited for, however long it takes; who
 * comes by at the mount point meanwhile should not have to wait with them.
 *
 * While somebody has a file open, the kernel keeps a detached mount. Unmounting it once more by its
 * path, as libfuse would, might meet another one that was made there since: hence sever().
 */
#include "cleancache/cleancache.h"

#include "os/mem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OVER SIGUSR1 /* to the thread here: it is not needed any more */
#define WAKE SIGUSR2 /* to the main thread, which sleeps in libfuse's loop */

struct cc_end {
	struct cc_mount *m;
	const char *point;
	os_thread thread;
	pthread_t main;
	sigset_t waits, before;
	_Atomic bool detached;
};

int cc_detach(const char *point)
{
	pid_t pid;
	int status = -1;

	if (umount2(point, MNT_DETACH) == 0)
		return 0;
	pid = fork();
	if (pid == 0) { /* who may not by himself */
		execlp("fusermount3", "fusermount3", "-u", "-z", "--", point, (char *)NULL);
		_exit(127);
	}
	return pid < 0 || waitpid(pid, &status, 0) != pid || status ? -EPERM : 0;
}

static void nothing(int signal)
{
	(void)signal;
}

static void *wait_for_end(void *arg)
{
	const struct timespec soon = {0, 100000000};
	struct cc_end *e = arg;
	sigset_t over;
	int which = 0;

	while (sigwait(&e->waits, &which))
		;
	if (which == OVER)
		return NULL;
	atomic_store(&e->detached, cc_detach(e->point) == 0);
	fuse_session_exit(e->m->se);
	sigemptyset(&over);
	sigaddset(&over, OVER);
	do /* once could be the moment between its look and its sleep */
		pthread_kill(e->main, WAKE);
	while (sigtimedwait(&over, NULL, &soon) < 0);
	return NULL;
}

int cc_end_open(struct cc_mount *m, const char *point)
{
	struct cc_end *e = os_zalloc(sizeof(*e));
	struct sigaction wake = {.sa_handler = nothing}; /* and what sleeps is not begun again */
	int rc;

	if (!e)
		return -ENOMEM;
	*e = (struct cc_end){.m = m, .point = point, .main = pthread_self()};
	sigemptyset(&e->waits);
	sigaddset(&e->waits, SIGTERM);
	sigaddset(&e->waits, SIGINT);
	sigaddset(&e->waits, SIGHUP);
	sigaddset(&e->waits, OVER);
	sigaction(WAKE, &wake, NULL);
	signal(SIGPIPE, SIG_IGN);
	pthread_sigmask(SIG_BLOCK, &e->waits, &e->before);
	rc = os_thread_create(&e->thread, "tmem-end", wait_for_end, e);
	if (rc) {
		pthread_sigmask(SIG_SETMASK, &e->before, NULL);
		os_free(e);
		return rc;
	}
	m->end = e;
	return 0;
}

/* libfuse leaves the path alone when its descriptor says that the connection is over (POLLERR). A pipe
 * that nobody reads says so; and the connection, whose descriptor this was, is over. */
static void sever(struct cc_mount *m)
{
	int fd[2];

	if (pipe(fd))
		return;
	close(fd[0]);
	(void)dup2(fd[1], fuse_session_fd(m->se));
	close(fd[1]);
}

void cc_end_close(struct cc_mount *m)
{
	struct cc_end *e = m->end;

	if (!e)
		return;
	pthread_kill(e->thread, OVER);
	os_thread_join(e->thread);
	if (atomic_load(&e->detached))
		sever(m);
	pthread_sigmask(SIG_SETMASK, &e->before, NULL);
	m->end = NULL;
	os_free(e);
}
