/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Changes of a local source, told by the kernel as they happen (inotify), so that even who has a
 * file open, or within --ttl, sees them soon. A source on a network tells of what this machine
 * does only, so nothing rests on it: a look at each open is what coherence is made of.
 *
 * A file is watched from its first open for as long as its node lives, in one watch of its
 * inode, which several nodes may share (node.c): it goes with the last of them. Who replaces a file
 * by renaming another over it, or moves it away, changes what its name means; the kernel is then
 * told to look that up again. Our own writes are told, too, and say nothing while somebody writes
 * the file (F6 in file.c). When there are more files than watches (fs.inotify.max_user_watches),
 * the rest goes unwatched. When the kernel's queue overflows, something is lost: then every file is
 * looked at anew.
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
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define WHAT	(IN_MODIFY | IN_ATTRIB | IN_MOVE_SELF) /* IN_ATTRIB: of how many names, too */
#define SHARE	8u /* nodes of a watch; what one more does not hear of its next open finds */
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

/* The next one of a watch; NULL: there is none. Under the lock. */
static struct cc_node *watched(struct cc_node *n, int wd)
{
	while (n && n->watch != wd)
		n = n->watch_next;
	return n;
}

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
	if (!watched(*bucket_of(w, n->watch), n->watch))
		(void)inotify_rm_watch(w->fd, n->watch);
	os_mutex_unlock(&w->lock);
}

/* ---- what is told ----------------------------------------------------------------------- */

/* Looks again, as an open would. */
static void look_at_data(struct cc_mount *m, struct cc_node *n)
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

/* Whether its name is another file's by now, or nobody's. Where names are asked for each time it
 * does not matter. */
static bool has_moved(struct cc_mount *m, struct cc_node *n)
{
	char name[NAME_MAX + 1];
	struct cc_node *parent;
	struct cc_look look;
	bool moved;

	if (m->entry_s <= 0 || !cc_node_name(m, n, name, sizeof(name), &parent) || !parent)
		return false;
	moved = cc_look_at(parent->fd, name, &look) || look.st.st_ino != n->ino ||
		look.st.st_dev != n->dev;
	cc_node_unref(m, parent);
	return moved;
}

static void changed(struct cc_mount *m, struct cc_node *n, bool names)
{
	look_at_data(m, n);
	if (names && has_moved(m, n))
		cc_notify_name(m, n);
}

static int look_again(void *arg, struct cc_node *n)
{
	if (cc_node_data(n)) /* only what was opened is watched */
		changed(arg, n, true);
	return 0;
}

static void told(struct cc_watch *w, const struct inotify_event *e)
{
	struct cc_node *some[SHARE], *n;
	unsigned k = 0;

	if (e->mask & IN_Q_OVERFLOW) {
		(void)cc_nodes_each(w->m, look_again, w->m);
		return;
	}
	os_mutex_lock(&w->lock);
	n = e->wd >= 0 ? watched(*bucket_of(w, e->wd), e->wd) : NULL;
	/* It is alive: its last ref goes past cc_unwatch_node(), and so this lock. */
	for (; n && k < SHARE; n = watched(n->watch_next, e->wd))
		if (cc_node_try_ref(w->m, n))
			some[k++] = n;
	os_mutex_unlock(&w->lock);
	while (k--) {
		changed(w->m, some[k], e->mask & (IN_ATTRIB | IN_MOVE_SELF));
		cc_node_unref(w->m, some[k]);
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
