/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Told to end, by SIGTERM, SIGINT or SIGHUP. The mount point goes first, and at once:
 *
 *   signal ─▶ the thread here ─▶ mount point detached ─▶ mappings ─▶ session ─▶ main thread woken
 *                                                        written     told       joins the others,
 *                                                                               saves
 *
 * What was written through a mapping only the kernel has until it writes it back, to us. So while
 * there are still threads that serve, it is told that what was open for writing has changed: then
 * it writes, and waits for it. (syncfs() would need a request to open something to call it on, and
 * does not wait in each kernel.)
 *
 * Threads that wait for a source which does not answer are waited for, however long it takes; who
 * comes by at the mount point meanwhile should not have to wait with them.
 *
 * Signals stay blocked to the end: what comes later must not end it before it has saved.
 *
 * While somebody has a file open, the kernel keeps a detached mount. Unmounting it once more by its
 * path, as libfuse would, might meet another one that was made there since: hence sever().
 */
#include "cleancache/cleancache.h"

#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OVER SIGUSR1 /* to the thread here, with `over`: it is not needed any more */
#define WAKE SIGUSR2 /* to the main thread, which sleeps in libfuse's loop */

struct cc_end {
	struct cc_mount *m;
	const char *point;
	os_thread thread;
	pthread_t main;
	sigset_t waits;
	_Atomic bool detached, over;
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

/* Whether what is mounted there is still this one. It is not asked for it. */
static bool is_there(const struct cc_end *e)
{
	return cc_device_of(AT_FDCWD, e->point) == atomic_load(&e->m->own_dev);
}

/* Waits for pages that are being read, too: the end is up to the source's answers as it is. */
static int write_back(void *arg, struct cc_node *n)
{
	struct cc_mount *m = arg;

	if (atomic_load(&n->writable))
		(void)fuse_lowlevel_notify_inval_inode(m->se, cc_ino_of(m, n), 0, 0);
	return 0;
}

static void *wait_for_end(void *arg)
{
	const struct timespec soon = {0, 100000000};
	struct cc_end *e = arg;
	sigset_t over;
	int which = 0;

	do
		while (sigwait(&e->waits, &which))
			;
	while (which == OVER && !atomic_load(&e->over));
	if (which == OVER)
		return NULL;
	if (atomic_load(&e->m->own_dev)) /* else it is not mounted yet */
		atomic_store(&e->detached, !is_there(e) || cc_detach(e->point) == 0);
	cc_notify_quiet(e->m); /* it may wait for what only a thread that serves can give */
	(void)cc_nodes_each(e->m, write_back, e->m);
	fuse_session_exit(e->m->se);
	sigemptyset(&over);
	sigaddset(&over, OVER);
	do /* once could be the moment between its look and its sleep */
		pthread_kill(e->main, WAKE);
	while (sigtimedwait(&over, NULL, &soon) < 0 || !atomic_load(&e->over));
	return NULL;
}

int cc_end_open(struct cc_mount *m, const char *point)
{
	struct cc_end *e = os_zalloc(sizeof(*e));
	struct sigaction wake = {.sa_handler = nothing}; /* and what sleeps is not begun again */
	sigset_t woken;
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
	signal(SIGXFSZ, SIG_IGN); /* EFBIG, to who wrote too much; as in the source */
	pthread_sigmask(SIG_BLOCK, &e->waits, NULL);
	sigemptyset(&woken);
	sigaddset(&woken, WAKE);
	pthread_sigmask(SIG_UNBLOCK, &woken, NULL);
	rc = os_thread_create(&e->thread, "tmem-end", wait_for_end, e);
	if (rc) {
		os_free(e);
		return rc;
	}
	m->end = e;
	return 0;
}

/* libfuse leaves the path alone when its descriptor says that the connection is over (POLLERR). A
 * pipe that nobody reads says so; and the connection, whose descriptor this was, is over. */
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
	atomic_store(&e->over, true);
	pthread_kill(e->thread, OVER);
	os_thread_join(e->thread);
	if (atomic_load(&e->detached))
		sever(m);
	m->end = NULL;
	os_free(e);
}
