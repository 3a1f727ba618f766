/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The thread that tells the kernel, and may wait for a page's lock in there.
 *
 *   reader    locks the page, asks us for it     ── waits for our answer
 *   teller    drops the page                     ── waits for its lock, and no signal ends that
 *   SIGKILL   ends all of us but the teller      ── our descriptors stay, as it has them, too; so
 *                                                   nobody tells the reader that we are gone
 *
 * Then the mount would hang for ever, and so would who mounts there again. A request belongs to
 * the device by which it was read, and fails when that is closed. So the teller has a device of
 * its own (a clone of the mount's), by which nothing is read, in a table of descriptors of its own:
 * when all others are dead the mount's device is closed, what was asked by it fails, the page is
 * let go, and the teller ends. (Who may not open /dev/fuse, but was given the mount's by
 * fusermount3, is left with that.)
 *
 * As it has no other descriptors it does nothing else: no node is looked at, or let go of, here.
 * One caller at a time; it waits, where it can be killed.
 */
#include "cleancache/cleancache.h"

#include "os/mem.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct cc_teller {
	struct cc_mount *m;
	os_thread thread;
	struct os_mutex lock;
	struct os_cond asked, told;
	const struct cc_telling *what;
	unsigned n; /* 0: nothing, or all of it is told */
	bool stop;
};

/* Afterwards this thread has one descriptor, with the number of the mount's. */
static void take_device(struct cc_mount *m)
{
	unsigned number = (unsigned)fuse_session_fd(m->se);
	uint32_t from = number;
	int fd;

	if (unshare(CLONE_FILES))
		return; /* the mount's, like everybody */
	fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd >= 0 && ioctl(fd, FUSE_DEV_IOC_CLONE, &from) == 0)
		(void)dup3(fd, (int)number, O_CLOEXEC);
	if (number)
		(void)close_range(0, number - 1, 0);
	(void)close_range(number + 1, ~0u, 0);
}

static void tell(struct fuse_session *se, const struct cc_telling *w)
{
	if (*w->name)
		(void)fuse_lowlevel_notify_inval_entry(se, w->ino, w->name, strlen(w->name));
	else
		(void)fuse_lowlevel_notify_inval_inode(se, w->ino, 0, 0);
}

static void *run(void *arg)
{
	struct cc_teller *t = arg;

	take_device(t->m);
	os_mutex_lock(&t->lock);
	for (;;) {
		while (!t->n && !t->stop)
			os_cond_wait(&t->asked, &t->lock);
		if (!t->n)
			break;
		os_mutex_unlock(&t->lock);
		for (unsigned i = 0; i < t->n; i++)
			tell(t->m->se, &t->what[i]);
		os_mutex_lock(&t->lock);
		t->n = 0;
		os_cond_broadcast(&t->told);
	}
	os_mutex_unlock(&t->lock);
	return NULL;
}

struct cc_teller *cc_teller_open(struct cc_mount *m)
{
	struct cc_teller *t = os_zalloc(sizeof(*t));

	if (!t)
		return NULL;
	t->m = m;
	os_mutex_init(&t->lock, OS_RANK_LEAF, "teller");
	os_cond_init(&t->asked);
	os_cond_init(&t->told);
	if (os_thread_create(&t->thread, "tmem-teller", run, t)) {
		os_free(t);
		return NULL;
	}
	return t;
}

void cc_teller_close(struct cc_teller *t)
{
	if (!t)
		return;
	os_mutex_lock(&t->lock);
	t->stop = true;
	os_cond_broadcast(&t->asked);
	os_mutex_unlock(&t->lock);
	os_thread_join(t->thread);
	os_cond_destroy(&t->asked);
	os_cond_destroy(&t->told);
	os_mutex_destroy(&t->lock);
	os_free(t);
}

void cc_teller_tell(struct cc_teller *t, const struct cc_telling *what, unsigned n)
{
	os_mutex_lock(&t->lock);
	t->what = what;
	t->n = n;
	os_cond_broadcast(&t->asked);
	while (t->n)
		os_cond_wait(&t->told, &t->lock);
	os_mutex_unlock(&t->lock);
}
