/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Locks of files, passed on to the source, so that they hold against those who do not come through
 * the mount.
 *
 * flock() belongs to an open file, of which the source has one for each of ours: it is passed on as
 * it is. fcntl() locks belong to a process, and the source would take all of ours for one. So each
 * owner that the kernel names gets an open file of its own on the source, and the lock there is one
 * of that open file (F_OFD_SETLK). As POSIX wants it, all of an owner's locks on a file go when it
 * closes any descriptor of it. A lock that belongs to an open file already (F_OFD_SETLK) has that
 * one for its owner, and goes when it is released.
 *
 * Waiting for a lock must not take a thread that serves requests, perhaps the very one that would
 * let it go: who has to wait is tried again by a thread of its own, ever less often, until it
 * has the lock or is interrupted.
 *
 * Who has a lock is to see what was written under it before, by whom ever: so the source is looked
 * at as by an open, in each mode but --immutable, once it has given the lock. If the kernel may
 * have pages from before, it is told to drop them before the lock is answered for, by those
 * who tell it things (notify.c).
 */
#include "cleancache/cleancache.h"

#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define TRY_FIRST_NS 1000000ull
#define TRY_LAST_NS  50000000ull
#define TABLE	     64u

struct owner {
	struct owner *next;
	struct cc_node *node; /* a ref */
	uint64_t owner;
	const struct cc_handle *by; /* it was named first through this one, and has locks by it */
	int fd;
	uint32_t users; /* calls that are in it now */
	uint32_t turns; /* times that one came or went */
	bool closed;	/* out of the table; goes with its last user */
};

struct waiter {
	struct waiter *next;
	fuse_req_t req;
	struct cc_handle *h;  /* a ref; flock */
	struct owner *o;      /* a use; fcntl */
	struct cc_told *told; /* to be used when it has the lock; NULL: not needed */
	struct flock lock;
	int op;
	_Atomic bool interrupted;
};

struct cc_lockers {
	struct cc_mount *m;
	os_thread thread;
	bool started;
	struct os_mutex lock;
	struct os_cond work;
	struct owner *owner[TABLE];
	struct waiter *waiting;
	bool stop;
};

/* ---- owners ----------------------------------------------------------------------------- */

static struct owner **bucket_of(struct cc_lockers *l, const struct cc_node *n, uint64_t owner)
{
	return &l->owner[((uintptr_t)n / sizeof(*n) ^ owner ^ owner >> 17) % TABLE];
}

static void owner_free(struct cc_mount *m, struct owner *o)
{
	close(o->fd);
	cc_node_unref(m, o->node);
	os_free(o);
	cc_uncharge(m, sizeof(*o));
}

static void owner_leave(struct cc_mount *m, struct owner *o)
{
	struct cc_lockers *l = m->lockers;
	bool last;

	os_mutex_lock(&l->lock);
	o->turns++;
	last = !--o->users && o->closed;
	os_mutex_unlock(&l->lock);
	if (last)
		owner_free(m, o);
}

/* Under the lock: where the owner is in the table, or would be. */
static struct owner **place_of(struct cc_lockers *l, const struct cc_node *n, uint64_t owner)
{
	struct owner **at = bucket_of(l, n, owner);

	while (*at && ((*at)->node != n || (*at)->owner != owner))
		at = &(*at)->next;
	return at;
}

/*
 * A lock for writing wants a file open for writing; the owner may have another handle later. A
 * source that fails says so itself. All else is -ENOLCK: it is not about the lock, or the caller.
 * (Who may not open the file any more, as its mode has changed, has none: a descriptor of the
 * handle's own open file would be good for one owner only.)
 */
static int owner_make(struct cc_mount *m, struct cc_handle *h, uint64_t owner, struct owner **out)
{
	int flags = fcntl(h->fd, F_GETFL);
	char path[CC_FD_PATH];
	struct owner *o = NULL;
	bool charged;
	int fd;

	fd = open(cc_fd_path(path, h->fd), O_RDWR | O_CLOEXEC);
	if (fd < 0)
		fd = open(path, (flags & O_ACCMODE) | O_CLOEXEC);
	fd = cc_opened(m, fd < 0 ? -errno : fd);
	if (fd < 0)
		return fd == -EIO || fd == -ESTALE ? fd : -ENOLCK;
	charged = cc_charge(m, sizeof(*o));
	if (charged)
		o = os_zalloc(sizeof(*o));
	if (!o) {
		if (charged)
			cc_uncharge(m, sizeof(*o));
		close(fd);
		return -ENOLCK;
	}
	o->fd = fd;
	cc_node_ref(m, h->node);
	o->node = h->node;
	o->owner = owner;
	o->by = h;
	atomic_store(&h->locks, true);
	*out = o;
	return 0;
}

/* The owner's open file, to be left again; NULL with *rc 0: it has none, and none is made. */
static struct owner *owner_enter(struct cc_mount *m, struct cc_handle *h, uint64_t owner, bool make,
				 int *rc)
{
	struct cc_lockers *l = m->lockers;
	struct owner *o, *mine = NULL;

	*rc = 0;
	os_mutex_lock(&l->lock);
	o = *place_of(l, h->node, owner);
	if (!o && make) {
		os_mutex_unlock(&l->lock);
		*rc = owner_make(m, h, owner, &mine);
		if (*rc)
			return NULL;
		os_mutex_lock(&l->lock);
		o = *place_of(l, h->node, owner);
		if (!o) {
			*place_of(l, h->node, owner) = o = mine; /* at the end */
			mine = NULL;
		}
	}
	if (o) {
		o->users++;
		o->turns++;
	}
	os_mutex_unlock(&l->lock);
	if (mine)
		owner_free(m, mine);
	return o;
}

/* Under the lock: out of the table. True: nobody is in it, it is to be freed, and its locks go. */
static bool owner_close(struct owner **at)
{
	struct owner *o = *at;

	*at = o->next;
	o->closed = true;
	return !o->users;
}

/*
 * What it has goes; what it waits for, or gets from now on by another descriptor, is no part of
 * that. Who came or went meanwhile may have a lock: then it stays until its next close.
 */
void cc_locks_closed(struct cc_mount *m, struct cc_node *n, uint64_t owner)
{
	struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
	struct cc_lockers *l = m->lockers;
	struct owner *o;
	uint32_t turns = 0;
	bool last;

	os_mutex_lock(&l->lock);
	o = *place_of(l, n, owner);
	if (o) {
		o->users++;
		turns = o->turns;
		o->by = NULL; /* it is a process */
	}
	os_mutex_unlock(&l->lock);
	if (!o)
		return;
	(void)fcntl(o->fd, F_OFD_SETLK, &all);
	os_mutex_lock(&l->lock);
	last = !--o->users && o->turns == turns;
	if (last)
		last = owner_close(place_of(l, n, owner));
	os_mutex_unlock(&l->lock);
	if (last)
		owner_free(m, o);
}

void cc_locks_released(struct cc_mount *m, struct cc_handle *h)
{
	struct cc_lockers *l = m->lockers;
	struct owner *gone = NULL;

	if (!atomic_load(&h->locks))
		return;
	os_mutex_lock(&l->lock);
	for (unsigned i = 0; i < TABLE; i++)
		for (struct owner **at = &l->owner[i], *o; (o = *at);) {
			if (o->by != h) {
				at = &o->next;
			} else if (owner_close(at)) {
				o->next = gone;
				gone = o;
			}
		}
	os_mutex_unlock(&l->lock);
	for (struct owner *next; gone; gone = next) {
		next = gone->next;
		owner_free(m, gone);
	}
}

/* ---- waiting ---------------------------------------------------------------------------- */

/* It has the lock. True: the kernel is to drop what it has of the file first, which told says. */
static bool sees_another(struct cc_mount *m, const struct waiter *w)
{
	struct cc_node *n = w->o ? w->o->node : w->h->node;
	struct cc_file *f = cc_node_data(n);
	struct cc_look look;

	/*
	 * Nobody tells the kernel of the same change once more, later: it would then take no answer
	 * that it is waiting for, and keep the size that it had.
	 */
	cc_watch_catch_up(m);
	/* Where the source does not say, reading will: it has given a lock a moment ago. */
	if (!f || cc_look_open(w->o ? w->o->fd : w->h->fd, n->fuse, &look))
		return false;
	cc_node_check(m, n, &look, 0);
	(void)cc_file_seen(m, f, &look, CC_OPENED);
	if (cc_kernel_is_fresh(f, &w->told->version))
		return false;
	atomic_store(&n->opened, cc_order()); /* S2: nobody tells a size from before any more */
	cc_node_ref(m, n);
	w->told->node = n;
	w->told->req = w->req;
	return true;
}

/* Who is answered may close at once: by then we are not in its way. */
static void finish(struct cc_mount *m, const struct waiter *w, int rc)
{
	bool tell = rc == 0 && w->told && sees_another(m, w);

	if (w->o)
		owner_leave(m, w->o);
	if (w->h)
		cc_handle_put(m, w->h);
	if (tell) {
		cc_notify_then_answer(m, w->told);
		return;
	}
	cc_told_free(m, w->told);
	fuse_reply_err(w->req, -rc);
}

/* 0; -EAGAIN: somebody else has it; or another error. */
static int try_lock(const struct waiter *w)
{
	int rc = w->o ? fcntl(w->o->fd, F_OFD_SETLK, &w->lock) : flock(w->h->fd, w->op | LOCK_NB);

	if (rc == 0)
		return 0;
	return errno == EACCES || errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

/* Tries all once; those that are done leave the list, *end is its end then. */
static struct waiter *try_all(struct waiter **list, struct waiter ***end)
{
	struct waiter *done = NULL, **at, *w;

	for (at = list; (w = *at);) {
		int rc = atomic_load(&w->interrupted) ? -EINTR : try_lock(w);

		if (rc == -EAGAIN) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		w->next = done;
		w->op = -rc;
		done = w;
	}
	*end = at;
	return done;
}

static void answer(struct cc_mount *m, struct waiter *done)
{
	for (struct waiter *next; done; done = next) {
		next = done->next;
		fuse_req_interrupt_func(done->req, NULL, NULL);
		finish(m, done, -done->op);
		os_free(done);
		cc_uncharge(m, sizeof(*done));
	}
}

static void *run(void *arg)
{
	struct cc_lockers *l = arg;
	uint64_t pause = TRY_FIRST_NS;

	os_mutex_lock(&l->lock);
	while (!l->stop) {
		struct waiter *mine, *done, **end;

		if (!l->waiting) {
			os_cond_wait(&l->work, &l->lock);
			pause = TRY_FIRST_NS;
			continue;
		}
		if (os_cond_timedwait(&l->work, &l->lock, pause))
			pause = TRY_FIRST_NS; /* somebody new, or interrupted */
		mine = l->waiting;
		l->waiting = NULL;
		pause = pause * 2 < TRY_LAST_NS ? pause * 2 : TRY_LAST_NS;
		/* The source may take its time; who closes a file does not wait for that. */
		os_mutex_unlock(&l->lock);
		done = try_all(&mine, &end);
		answer(l->m, done);
		os_mutex_lock(&l->lock);
		*end = l->waiting;
		l->waiting = mine;
	}
	for (struct waiter *w = l->waiting; w; w = w->next)
		w->op = EINTR;
	os_mutex_unlock(&l->lock);
	answer(l->m, l->waiting);
	return NULL;
}

static void interrupt(fuse_req_t req, void *arg)
{
	struct waiter *w = arg;

	atomic_store(&w->interrupted, true); /* seen at the next try */
}

/* Answers the request, now or later. o: a use of it, h: a ref; one of them, and given up. */
static void lock_or_wait(fuse_req_t req, struct cc_handle *h, struct owner *o,
			 const struct flock *lock, int op, bool sleep)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_lockers *l = m->lockers;
	struct waiter now = {.req = req, .h = h, .o = o, .op = op}, *w;
	bool looks = m->o->coherence != CC_IMMUTABLE &&
		     (lock ? lock->l_type != F_UNLCK : !(op & LOCK_UN));
	int rc;

	if (lock)
		now.lock = *lock;
	/* Not when it has the lock, and could not be given what it had before. */
	now.told = looks ? cc_told_make(m) : NULL;
	rc = looks && !now.told ? -ENOLCK : try_lock(&now);
	w = rc == -EAGAIN && sleep && cc_charge(m, sizeof(*w)) ? os_zalloc(sizeof(*w)) : NULL;
	if (!w) {
		finish(m, &now, rc == -EAGAIN && sleep ? -ENOLCK : rc);
		return;
	}
	w->req = req;
	w->h = h;
	w->o = o;
	w->told = now.told;
	w->lock = now.lock;
	w->op = op;
	fuse_req_interrupt_func(req, interrupt, w);
	os_mutex_lock(&l->lock);
	w->next = l->waiting;
	l->waiting = w;
	os_cond_signal(&l->work);
	os_mutex_unlock(&l->lock);
}

/* ---- what FUSE calls -------------------------------------------------------------------- */

void cc_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	struct cc_mount *m = cc_mount_of(req);
	struct flock asked = *lock;
	struct owner *o;
	int rc;

	o = owner_enter(m, cc_handle_of(fi), fi->lock_owner, true, &rc);
	if (o) {
		asked.l_pid = 0;
		rc = fcntl(o->fd, F_OFD_GETLK, &asked) ? -errno : 0;
		owner_leave(m, o);
	}
	if (rc) {
		fuse_reply_err(req, -rc);
		return;
	}
	if (asked.l_pid < 0)
		asked.l_pid = 0; /* an open file's: nobody's in particular */
	fuse_reply_lock(req, &asked);
}

void cc_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock,
	      int sleep)
{
	struct cc_mount *m = cc_mount_of(req);
	struct owner *o;
	int rc;

	lock->l_pid = 0;
	o = owner_enter(m, cc_handle_of(fi), fi->lock_owner, lock->l_type != F_UNLCK, &rc);
	if (o)
		lock_or_wait(req, NULL, o, lock, 0, sleep);
	else
		fuse_reply_err(req, -rc); /* 0: nothing to unlock */
}

void cc_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	struct cc_handle *h = cc_handle_of(fi);

	h->refs++;
	lock_or_wait(req, h, NULL, NULL, op & ~LOCK_NB, !(op & LOCK_NB));
}

int cc_locks_open(struct cc_mount *m)
{
	struct cc_lockers *l = os_zalloc(sizeof(*l));
	int rc;

	if (!l)
		return -ENOMEM;
	l->m = m;
	os_mutex_init(&l->lock, OS_RANK_LEAF, "locks");
	os_cond_init(&l->work);
	m->lockers = l;
	rc = os_thread_create(&l->thread, "tmem-locks", run, l);
	l->started = rc == 0;
	return rc;
}

void cc_locks_close(struct cc_mount *m)
{
	struct cc_lockers *l = m->lockers;

	if (!l)
		return;
	os_mutex_lock(&l->lock);
	l->stop = true;
	os_cond_signal(&l->work);
	os_mutex_unlock(&l->lock);
	if (l->started)
		os_thread_join(l->thread);
	for (unsigned i = 0; i < TABLE; i++)
		for (struct owner *o = l->owner[i], *next; o; o = next) {
			next = o->next;
			owner_free(m, o);
		}
	os_cond_destroy(&l->work);
	os_mutex_destroy(&l->lock);
	m->lockers = NULL;
	os_free(l);
}
