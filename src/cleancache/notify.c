/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the kernel is told, rather than asked: that a file changed, and that it should forget
 * names. By threads of its own: to tell it, a page's lock may be waited for, or a folder's, which a
 * request that is being served may hold; so nobody who serves requests, or holds a lock of ours,
 * may do it (but of attributes alone). Where the source does not answer, that takes as long; so
 *
 *   T1  no two of them are in the same file, or the same folder: what hangs keeps one of them, and
 *       what is to be told of anything else waits for the others
 *
 * A node changed: it goes to the end of a list, with a ref, unless it is in there already. So
 * nobody waits to say it. An open that makes the kernel drop its pages meanwhile has said it.
 *
 * What a name means, likewise; names come first, as no page is waited for there that somebody
 * reads. Who asks for that wants to see it done, and waits for it, but not for long: the kernel may
 * hold the folder for a lookup, and that wait for the very thread.
 *
 * The kernel's size. Of two answers about a file that are under way together the kernel believes
 * the one that comes first, and not the other: that may be the one from the middle of a change,
 * and the size in it then ends the reads of who has opened the file after the change. (A read that
 * is answered with fewer bytes than it asked for tells a size, too.) An open that
 * has found a change tells it to forget what it knows, and by that to ignore whatever was asked
 * before. But that makes it ignore the right answers, too, as does whoever tells it that a file has
 * changed; so it is told only where there were others, and not by them once more:
 *
 *   S1  told is the one size that was told since it last forgot; where it is the size of now,
 *       there is nothing to forget
 *   S2  what was asked for before such an open, and is told after its look at told, is asked for
 *       again: who tells writes told and reads opened, who opens writes opened and reads told
 *
 * That goes for opens. Whoever drops pages has no choice: the kernel forgets attributes with them.
 * So who has opened a changed file, or has got a lock and is to see what was written under it, asks
 * for the size, may have the answer ignored, and goes by the old one: a false end, or zeros behind
 * the true one. So
 *
 *   T2  an open that found a change, and a lock that did, are promises: the kernel is told nothing
 *       of that file from before they are answered until somebody has read (by the very handle, for
 *       an open), which the kernel does when it has the size, or has closed it. But not for longer
 *       than PROMISE_NS after the last promise, nor LONGEST_NS on end; and a lock waits for LOCK_NS
 *       at most.
 *
 * Trimming: nodes cost a descriptor each, and memory. When there are many, names that were not
 * asked for since the last time are taken out of the kernel's cache, until half of what may be is
 * left; the kernel then forgets the nodes. It may know a name twice, by the folder and by its twin
 * below .tmem/files (virtual.c). What is open stays. A folder goes only when there is
 * nothing else: who stands in one, or has mounted something there, notices. One thread does it,
 * and one more for each that has not got on for a while.
 */
#include "cleancache/cleancache.h"

#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>
#include <string.h>

#define TRIM_BATCH 256u
#define NAME_ROOM  256u
#define WAIT_NS	   1000000000ull
#define STUCK_NS   500000000ull
#define PROMISE_NS 2000000000ull
#define LONGEST_NS 10000000000ull
#define LOCK_NS	   20000000ull
#define BEGUN_NS   20000000ull /* who tells has by then come to where the kernel forgets */

#ifdef TMEM_FUSE_EXPIRE_FLAGS
#define EXPIRE_FLAGS , FUSE_LL_EXPIRE_ONLY
#else
#define EXPIRE_FLAGS
#endif

/* Guarded by the lock, but for thread and t. */
struct teller {
	struct cc_notify *t;
	os_thread thread;
	struct cc_node *in; /* T1; no ref, it is only compared */
	bool trims;
	uint64_t since_ns; /* it is in there */
};

struct cc_notify {
	struct cc_mount *m;
	struct os_mutex lock;
	struct os_cond work, idle;
	struct cc_node *first, **last;	   /* by notify_next */
	struct cc_node *name, **last_name; /* by name_next */
	struct cc_node *held;		   /* the same: names in a folder that somebody is in */
	uint64_t names_asked, names_told;  /* ever */
	struct cc_told *told, **last_told; /* who waits for an answer */
	bool trim, quiet, stop;
	uint64_t promises; /* ever */
	uint64_t again_ns; /* what waits for a promise is looked at again; 0: nothing does */
	unsigned telling, started;
	struct teller teller[CC_TELLERS];
};

/* A node's name of now, and the number of its folder; false: it has none. */
static bool name_of(struct cc_mount *m, struct cc_node *n, char name[NAME_ROOM],
		    struct cc_node **parent)
{
	return cc_node_name(m, n, name, NAME_ROOM, parent) && *parent;
}

/* False: it is not a name that the kernel knows. */
static bool forget_name(struct cc_mount *m, struct cc_node *parent, const char *name)
{
	size_t n = strlen(name);
	bool known = !fuse_lowlevel_notify_inval_entry(m->se, cc_ino_of(m, parent), name, n);

	if (atomic_load(&m->twins))
		known |= !fuse_lowlevel_notify_inval_entry(m->se, cc_twin_of(parent), name, n);
	return known;
}

/* What is mounted there, or stands in it, stays as it is. */
static int expire_name(struct cc_mount *m, struct cc_node *parent, const char *name)
{
	return fuse_lowlevel_notify_expire_entry(m->se, cc_ino_of(m, parent), name,
						 strlen(name) EXPIRE_FLAGS);
}

/* And a folder is to be listed again: its pages are never locked for as long as we are asked. */
static void look_up_again(struct cc_mount *m, struct cc_node *n, struct cc_node *parent,
			  const char *name)
{
	if (n->type == S_IFDIR)
		(void)fuse_lowlevel_notify_inval_inode(m->se, cc_ino_of(m, n), 0, 0);
	/* A kernel that does not know how would take away what is mounted in a folder. */
	if (parent && expire_name(m, parent, name) == -ENOSYS && n->type != S_IFDIR)
		(void)forget_name(m, parent, name);
}

/* ---- who tells -------------------------------------------------------------------------- */

/* T1, under the lock. */
static bool somebody_in(const struct cc_notify *t, const struct cc_node *n)
{
	for (unsigned i = 0; i < t->started; i++)
		if (t->teller[i].in == n)
			return true;
	return false;
}

/* T2, under the lock: until when; 0: there is none, or nothing is told any more. */
static uint64_t promised_until(const struct cc_notify *t, const struct cc_node *n)
{
	uint64_t last = n->promised_ns + PROMISE_NS, end = n->promised_since_ns + LONGEST_NS;

	if (!n->promise || t->quiet || t->stop)
		return 0;
	return last < end ? last : end;
}

/* T1 and T2, under the lock: it is not to be told of now, but at until_ns or before. */
static bool is_held(struct cc_notify *t, const struct cc_node *n, uint64_t until_ns)
{
	uint64_t promised = promised_until(t, n);

	if (somebody_in(t, n))
		return true;
	until_ns = promised < until_ns ? promised : until_ns;
	if (until_ns <= os_clock_ns())
		return false;
	if (!t->again_ns || until_ns < t->again_ns)
		t->again_ns = until_ns;
	return true;
}

/* The lock is let go of until leave(). */
static void enter(struct teller *w, struct cc_node *n)
{
	w->in = n;
	w->since_ns = os_clock_ns();
	w->t->telling++;
	os_mutex_unlock(&w->t->lock);
}

static void leave(struct teller *w)
{
	struct cc_notify *t = w->t;
	struct cc_node **end = &t->held;

	os_mutex_lock(&t->lock);
	w->in = NULL;
	t->telling--;
	os_cond_broadcast(&t->idle);
	if (!t->held)
		return;
	/* Names that waited for a folder, for this one perhaps, are asked for again. */
	while (*end)
		end = &(*end)->name_next;
	*end = t->name;
	if (!t->name)
		t->last_name = end;
	t->name = t->held;
	t->held = NULL;
	os_cond_signal(&t->work);
}

/* ---- trimming --------------------------------------------------------------------------- */

/* False: it has none, the kernel does not know it, or somebody is in its folder. */
static bool forget_one(struct teller *w, struct cc_node *n)
{
	struct cc_mount *m = w->t->m;
	struct cc_node *parent;
	char name[NAME_ROOM];
	bool done = false;

	if (!name_of(m, n, name, &parent))
		return false;
	os_mutex_lock(&w->t->lock);
	if (!somebody_in(w->t, parent)) {
		enter(w, parent);
		done = forget_name(m, parent, name);
		leave(w);
	}
	os_mutex_unlock(&w->t->lock);
	cc_node_unref(m, parent);
	return done;
}

static uint64_t forget(struct teller *w, uint64_t look_at, uint64_t aim, bool folders)
{
	struct cc_node *idle[TRIM_BATCH];
	uint64_t done = 0;
	unsigned none = 0; /* times in a row that nothing was idle; once says little */

	for (uint64_t looked = 0; looked < look_at && done < aim && none < 2;
	     looked += TRIM_BATCH) {
		unsigned n = cc_nodes_idle(w->t->m, idle, TRIM_BATCH, folders);

		none = n ? 0 : none + 1;
		for (unsigned i = 0; i < n; i++) {
			done += forget_one(w, idle[i]);
			cc_node_unref(w->t->m, idle[i]);
		}
	}
	return done;
}

static void trim(struct teller *w)
{
	struct cc_mount *m = w->t->m;
	uint64_t now = atomic_load(&m->nodes), most = m->nodes_most / 2, done;
	uint64_t aim = now > most ? now - most : now / 8 + 1;

	/* Twice round is enough: the first one may find all of them used. */
	done = forget(w, 2 * now, aim, false);
	/* What was asked to go may be held by another name: nodes that went are what counts. */
	if (cc_nodes_many(m))
		done += forget(w, 2 * now, aim, true);
	cc_count(m, CC_TRIMMED, done);
}

/* Under the lock: somebody trims, and gets on. */
static bool is_trimmed(const struct cc_notify *t)
{
	uint64_t now = os_clock_ns();
	unsigned trims = 0;

	for (unsigned i = 0; i < t->started; i++) {
		const struct teller *w = &t->teller[i];

		trims += w->trims;
		if (w->trims && (!w->in || now < w->since_ns + STUCK_NS))
			return true;
	}
	return trims + 2 >= t->started; /* the others have other things to tell */
}

/* ---- what is told: under the lock, which is let go of meanwhile. False: there is nothing --- */

static bool tell_next(struct teller *w)
{
	struct cc_notify *t = w->t;
	struct cc_node **at = &t->first, *n;
	bool quiet = t->quiet || t->stop;

	while ((n = *at) && is_held(t, n, UINT64_MAX))
		at = &n->notify_next;
	if (!n)
		return false;
	*at = n->notify_next;
	if (!*at)
		t->last = at;
	n->to_tell = false; /* a change from here on is told again */
	quiet |= n->told_by_open;
	enter(w, n);
	if (!quiet)
		(void)fuse_lowlevel_notify_inval_inode(t->m->se, cc_ino_of(t->m, n), 0, 0);
	leave(w);
	os_mutex_unlock(&t->lock);
	cc_node_unref(t->m, n);
	os_mutex_lock(&t->lock);
	return true;
}

static bool tell_next_name(struct teller *w)
{
	struct cc_notify *t = w->t;
	struct cc_node *n = t->name, *parent = NULL;
	char name[NAME_ROOM];
	bool quiet;

	if (!n)
		return false;
	t->name = n->name_next;
	if (!t->name)
		t->last_name = &t->name;
	os_mutex_unlock(&t->lock);
	if (!name_of(t->m, n, name, &parent))
		parent = NULL;
	os_mutex_lock(&t->lock);
	if (parent && somebody_in(t, parent)) {
		n->name_next = t->held;
		t->held = n;
		os_mutex_unlock(&t->lock);
		cc_node_unref(t->m, parent);
		os_mutex_lock(&t->lock);
		return true;
	}
	n->name_to_tell = false;
	quiet = t->quiet || t->stop;
	enter(w, parent);
	if (!quiet)
		look_up_again(t->m, n, parent, name);
	leave(w);
	t->names_told++;
	os_mutex_unlock(&t->lock);
	if (parent)
		cc_node_unref(t->m, parent);
	cc_node_unref(t->m, n);
	os_mutex_lock(&t->lock);
	return true;
}

/* Under the lock. h: who is to read; NULL: anybody. */
static void promise(struct cc_notify *t, struct cc_node *n, struct cc_handle *h)
{
	uint64_t now = os_clock_ns();

	if (promised_until(t, n) <= now)
		n->promised_since_ns = now;
	n->promised_ns = now;
	n->promised_to_any = !h;
	atomic_store(&n->promise, ++t->promises);
	if (h)
		h->promise = t->promises;
}

static bool tell_and_answer(struct teller *w)
{
	struct cc_notify *t = w->t;
	struct cc_told **at = &t->told, *told;
	bool quiet = t->quiet || t->stop;
	struct cc_node *n;
	fuse_req_t req;

	while ((told = *at) && is_held(t, told->node, told->asked_ns + LOCK_NS))
		at = &told->next;
	if (!told)
		return false;
	*at = told->next;
	if (!*at)
		t->last_told = at;
	n = told->node;
	req = told->req;
	n->told_by_open = true; /* what is in the list is from before */
	enter(w, n);
	if (!quiet && !fuse_lowlevel_notify_inval_inode(t->m->se, cc_ino_of(t->m, n), 0, 0))
		cc_kernel_has_dropped(cc_node_data(n), told->version);
	os_mutex_lock(&t->lock);
	promise(t, n, NULL);
	os_mutex_unlock(&t->lock);
	cc_told_free(t->m, told);
	fuse_reply_err(req, 0);
	leave(w);
	return true;
}

static bool trim_some(struct teller *w)
{
	struct cc_notify *t = w->t;

	if (!t->trim || t->quiet || t->stop || is_trimmed(t))
		return false;
	t->trim = false;
	w->trims = true;
	enter(w, NULL);
	trim(w);
	leave(w);
	w->trims = false;
	return true;
}

/* Under the lock. */
static bool has_work(const struct cc_notify *t)
{
	return t->name || t->held || t->told || t->first;
}

/* Under the lock. */
static void wait_for_work(struct cc_notify *t)
{
	uint64_t now = os_clock_ns();

	if (!t->again_ns)
		os_cond_wait(&t->work, &t->lock);
	else if (now < t->again_ns)
		(void)os_cond_timedwait(&t->work, &t->lock, t->again_ns - now);
}

static void *run(void *arg)
{
	struct teller *w = arg;
	struct cc_notify *t = w->t;

	os_mutex_lock(&t->lock);
	/* What is left when there is nothing to be told is where somebody is: he goes on with it.
	 * Or it is promised (T2): each who finds that says when to look again. */
	while (!t->stop || has_work(t)) {
		t->again_ns = 0;
		if (!tell_next_name(w) && !tell_and_answer(w) && !tell_next(w) && !trim_some(w))
			wait_for_work(t);
	}
	os_cond_broadcast(&t->work);
	os_mutex_unlock(&t->lock);
	return NULL;
}

void cc_notify_changed(struct cc_mount *m, struct cc_node *n)
{
	struct cc_notify *t = m->notify;
	bool is_new;

	cc_node_ref(m, n);
	os_mutex_lock(&t->lock);
	is_new = !n->to_tell;
	n->told_by_open = false;
	if (is_new) {
		n->to_tell = true;
		n->notify_next = NULL;
		*t->last = n;
		t->last = &n->notify_next;
		os_cond_signal(&t->work);
	}
	os_mutex_unlock(&t->lock);
	if (!is_new)
		cc_node_unref(m, n);
}

struct cc_told *cc_told_make(struct cc_mount *m)
{
	struct cc_told *told;

	if (!cc_charge(m, sizeof(*told)))
		return NULL;
	told = os_zalloc(sizeof(*told));
	if (!told)
		cc_uncharge(m, sizeof(*told));
	return told;
}

void cc_told_free(struct cc_mount *m, struct cc_told *told)
{
	if (!told)
		return;
	if (told->node)
		cc_node_unref(m, told->node);
	os_free(told);
	cc_uncharge(m, sizeof(*told));
}

void cc_notify_then_answer(struct cc_mount *m, struct cc_told *told)
{
	struct cc_notify *t = m->notify;

	os_mutex_lock(&t->lock);
	told->next = NULL;
	told->asked_ns = os_clock_ns();
	*t->last_told = told;
	t->last_told = &told->next;
	os_cond_signal(&t->work);
	os_mutex_unlock(&t->lock);
}

void cc_notify_name(struct cc_mount *m, struct cc_node *n)
{
	struct cc_notify *t = m->notify;
	bool is_new;

	cc_node_ref(m, n);
	os_mutex_lock(&t->lock);
	is_new = !n->name_to_tell;
	if (is_new) {
		n->name_to_tell = true;
		n->name_next = NULL;
		*t->last_name = n;
		t->last_name = &n->name_next;
		t->names_asked++;
		os_cond_signal(&t->work);
	}
	os_mutex_unlock(&t->lock);
	if (!is_new)
		cc_node_unref(m, n);
}

void cc_notify_names_wait(struct cc_mount *m)
{
	struct cc_notify *t = m->notify;
	uint64_t end = os_clock_ns() + WAIT_NS, now, asked;

	os_mutex_lock(&t->lock);
	asked = t->names_asked;
	while (t->names_told < asked && (now = os_clock_ns()) < end)
		(void)os_cond_timedwait(&t->idle, &t->lock, end - now);
	os_mutex_unlock(&t->lock);
}

bool cc_notify_tells(struct cc_node *n, uint64_t order, uint64_t size)
{
	uint64_t before = CC_TOLD_NOTHING;

	/* What will not be told anyway is none of several: that would have an open tell the kernel
	 * to forget, for nothing, while another one's promise holds. */
	if (atomic_load(&n->opened) >= order)
		return false;
	if (!atomic_compare_exchange_strong(&n->told, &before, size) && before != size)
		atomic_store(&n->told, CC_TOLD_SEVERAL);
	return atomic_load(&n->opened) < order;
}

int cc_notify_tells_look(struct cc_node *n, struct cc_look *look)
{
	int rc = 0;

	while (rc == 0 && !cc_notify_tells(n, look->order, look->id.size))
		rc = cc_look_fd(n->fd, look);
	return rc;
}

void cc_notify_forget(struct cc_mount *m, struct cc_node *n)
{
	struct cc_file *f = cc_node_data(n);
	bool right;

	os_mutex_lock(&m->notify->lock);
	n->told_by_open = true;
	os_mutex_unlock(&m->notify->lock);
	os_mutex_lock(&f->lock);
	while (f->forgetting)
		os_cond_wait(&f->idle, &f->lock);
	atomic_store(&n->opened, cc_order());
	right = f->known && atomic_load(&n->told) == f->id.size;
	f->forgetting = !right;
	if (!right)
		atomic_store(&n->told, f->id.size);
	os_mutex_unlock(&f->lock);
	if (right)
		return;
	/* Attributes alone: pages that are being read would be waited for, perhaps by us. */
	(void)fuse_lowlevel_notify_inval_inode(m->se, cc_ino_of(m, n), -1, 0);
	os_mutex_lock(&f->lock);
	f->forgetting = false;
	os_cond_broadcast(&f->idle);
	os_mutex_unlock(&f->lock);
}

void cc_notify_promise(struct cc_mount *m, struct cc_handle *h)
{
	struct cc_notify *t = m->notify;
	uint64_t begun = os_clock_ns() + BEGUN_NS, now;

	os_mutex_lock(&t->lock);
	promise(t, h->node, h);
	while (somebody_in(t, h->node) && (now = os_clock_ns()) < begun)
		(void)os_cond_timedwait(&t->idle, &t->lock, begun - now);
	os_mutex_unlock(&t->lock);
}

/* Under the lock. */
static void no_promise(struct cc_notify *t, struct cc_node *n)
{
	atomic_store(&n->promise, 0);
	if (t->first || t->told)
		os_cond_signal(&t->work);
}

void cc_notify_kept_promise(struct cc_mount *m, struct cc_handle *h)
{
	struct cc_notify *t = m->notify;
	struct cc_node *n = h->node;

	os_mutex_lock(&t->lock);
	if (n->promised_to_any || h->promise == n->promise)
		no_promise(t, n);
	os_mutex_unlock(&t->lock);
}

void cc_notify_closed(struct cc_mount *m, struct cc_handle *h)
{
	struct cc_notify *t = m->notify;
	struct cc_node *n = h->node;

	if (!h->promise || atomic_load(&n->promise) != h->promise)
		return;
	os_mutex_lock(&t->lock);
	if (n->promise == h->promise)
		no_promise(t, n);
	os_mutex_unlock(&t->lock);
}

void cc_notify_quiet(struct cc_mount *m)
{
	struct cc_notify *t = m->notify;

	if (!t)
		return;
	os_mutex_lock(&t->lock);
	t->quiet = true;
	while (t->telling)
		os_cond_wait(&t->idle, &t->lock);
	os_mutex_unlock(&t->lock);
}

void cc_notify_trim(struct cc_mount *m)
{
	struct cc_notify *t = m->notify;

	if (!t)
		return;
	os_mutex_lock(&t->lock);
	if (!t->trim && !is_trimmed(t)) {
		t->trim = true;
		os_cond_signal(&t->work);
	}
	os_mutex_unlock(&t->lock);
}

int cc_notify_open(struct cc_mount *m)
{
	struct cc_notify *t = os_zalloc(sizeof(*t));
	int rc = 0;

	if (!t)
		return -ENOMEM;
	t->m = m;
	os_mutex_init(&t->lock, OS_RANK_LEAF, "notices");
	os_cond_init(&t->work);
	os_cond_init(&t->idle);
	t->last = &t->first;
	t->last_name = &t->name;
	t->last_told = &t->told;
	m->notify = t;
	for (unsigned i = 0; i < CC_TELLERS && rc == 0; i++) {
		t->teller[i].t = t;
		os_mutex_lock(&t->lock);
		t->started++;
		os_mutex_unlock(&t->lock);
		rc = os_thread_create(&t->teller[i].thread, "tmem-notify", run, &t->teller[i]);
	}
	if (rc) {
		os_mutex_lock(&t->lock);
		t->started--;
		os_mutex_unlock(&t->lock);
	}
	return rc;
}

void cc_notify_close(struct cc_mount *m)
{
	struct cc_notify *t = m->notify;

	if (!t)
		return;
	os_mutex_lock(&t->lock);
	t->stop = true;
	os_cond_broadcast(&t->work);
	os_mutex_unlock(&t->lock);
	for (unsigned i = 0; i < t->started; i++)
		os_thread_join(t->teller[i].thread);
	os_cond_destroy(&t->work);
	os_cond_destroy(&t->idle);
	os_mutex_destroy(&t->lock);
	m->notify = NULL;
	os_free(t);
}
