/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Changes of a local source, told by the kernel as they happen (inotify), so that even who has a
 * file open, or within --ttl, sees them soon. A source on a network tells of what this machine
 * does only, so nothing rests on it: a look at each open is what coherence is made of.
 *
 * A file is watched from its first open for as long as its node lives, in one watch of its
 * inode. Our own writes are told, too, and say nothing while somebody writes the file (F6 in
 * file.c). When there are more files than watches (fs.inotify.max_user_watches), the rest goes
 * unwatched. When the kernel's queue overflows, something is lost: then every file is looked at
 * anew.
 *
 * fanotify(7) would need one mark for all files, but root for it, and it tells of every change on
 * the whole file system by handles to be looked up. What a full table of watches leaves out is
 * found at the next open all the same.
 */
#include "cleancache/cleancache.h"

#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define WHAT	(IN_MODIFY | IN_ATTRIB)
#define ROOM	16384
#define BUCKETS 4096u

#define CATCH_UP    200u
#define CATCH_UP_NS 500000ull

struct cc_watch {
	struct cc_mount *m;
	os_thread thread;
	bool started;
	_Atomic bool busy; /* from before it reads events until it has looked */
	int fd, stop;
	struct os_mutex lock;
	struct cc_node *bucket[BUCKETS]; /* by watch descriptor */
};

/* ---- who is watched --------------------------------------------------------------------- */

/* Descriptors are given out in order and not again, so a table of them would grow for ever. */
static struct cc_node **bucket_of(struct cc_watch *w, int wd)
{
	return &w->bucket[(unsigned)wd % BUCKETS];
}

void cc_watch_node(struct cc_mount *m, struct cc_node *n)
{
	struct cc_watch *w = m->watch;
	char path[CC_FD_PATH];

	if (!w || n->type != S_IFREG)
		return;
	os_mutex_lock(&w->lock);
	if (n->watch < 0) {
		int wd = inotify_add_watch(w->fd, cc_fd_path(path, n->fd), WHAT);

		if (wd >= 0) {
			n->watch = wd;
			n->watch_next = *bucket_of(w, wd);
			*bucket_of(w, wd) = n;
		}
	}
	os_mutex_unlock(&w->lock);
}

void cc_unwatch_node(struct cc_mount *m, struct cc_node *n)
{
	struct cc_watch *w = m->watch;
	struct cc_node **at;

	if (!w || n->watch < 0)
		return;
	os_mutex_lock(&w->lock);
	for (at = bucket_of(w, n->watch); *at != n; at = &(*at)->watch_next)
		;
	*at = n->watch_next;
	(void)inotify_rm_watch(w->fd, n->watch);
	os_mutex_unlock(&w->lock);
}

/* ---- what is told ----------------------------------------------------------------------- */

/* Looks again, as an open would. */
static void changed(struct cc_mount *m, struct cc_node *n)
{
	struct cc_file *f = cc_node_data(n);
	struct cc_look look;

	if (!f || cc_look_fd(n->fd, &look))
		return;
	if (!cc_file_seen(m, f, &look, CC_TOLD))
		return;
	cc_count(m, CC_INVALIDATIONS, 1);
	cc_notify_changed(m, n);
}

static int look_again(void *arg, struct cc_node *n)
{
	changed(arg, n);
	return 0;
}

static void told(struct cc_watch *w, const struct inotify_event *e)
{
	struct cc_node *n = NULL;

	if (e->mask & IN_Q_OVERFLOW) {
		(void)cc_nodes_each(w->m, look_again, w->m);
		return;
	}
	os_mutex_lock(&w->lock);
	if (e->wd >= 0)
		for (n = *bucket_of(w, e->wd); n && n->watch != e->wd; n = n->watch_next)
			;
	/* It is alive: its last ref goes past cc_unwatch_node(), and so this lock. */
	if (n && !cc_node_try_ref(w->m, n))
		n = NULL;
	os_mutex_unlock(&w->lock);
	if (n) {
		changed(w->m, n);
		cc_node_unref(w->m, n);
	}
}

static void *run(void *arg)
{
	struct cc_watch *w = arg;
	struct pollfd p[2] = {{.fd = w->fd, .events = POLLIN}, {.fd = w->stop, .events = POLLIN}};
	_Alignas(struct inotify_event) char buf[ROOM];

	while (poll(p, 2, -1) < 0 || !p[1].revents) {
		const struct inotify_event *e;
		ssize_t n;

		atomic_store(&w->busy, true);
		n = read(w->fd, buf, sizeof(buf));
		for (const char *at = buf; n > 0 && at < buf + n; at += sizeof(*e) + e->len) {
			e = (const struct inotify_event *)at;
			told(w, e);
		}
		atomic_store(&w->busy, false);
	}
	return NULL;
}

void cc_watch_catch_up(struct cc_mount *m)
{
	struct cc_watch *w = m->watch;
	int bytes;

	/* Events are there when the change that they tell of has been made. */
	for (unsigned i = 0; w && i < CATCH_UP; i++) {
		if (ioctl(w->fd, FIONREAD, &bytes) || (!bytes && !atomic_load(&w->busy)))
			return;
		os_sleep_ns(CATCH_UP_NS);
	}
}

int cc_watch_open(struct cc_mount *m)
{
	struct cc_watch *w;
	int rc;

	if (!cc_charge(m, sizeof(*w)))
		return -ENOMEM;
	w = os_zalloc(sizeof(*w));
	if (!w) {
		cc_uncharge(m, sizeof(*w));
		return -ENOMEM;
	}
	w->m = m;
	w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	w->stop = eventfd(0, EFD_CLOEXEC);
	os_mutex_init(&w->lock, OS_RANK_CC_WATCH, "watches");
	rc = w->fd < 0 || w->stop < 0 ? -errno : os_thread_create(&w->thread, "tmem-watch", run, w);
	w->started = rc == 0;
	m->watch = w;
	if (rc)
		cc_watch_close(m);
	return rc;
}

void cc_watch_close(struct cc_mount *m)
{
	struct cc_watch *w = m->watch;
	uint64_t one = 1;

	if (!w)
		return;
	if (w->started && write(w->stop, &one, sizeof(one)) == sizeof(one))
		os_thread_join(w->thread);
	if (w->fd >= 0)
		close(w->fd);
	if (w->stop >= 0)
		close(w->stop);
	cc_uncharge(m, sizeof(*w));
	os_mutex_destroy(&w->lock);
	m->watch = NULL;
	os_free(w);
}
