/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the kernel is told, rather than asked: that a file changed, and that it should forget
 * names. By one thread: to tell it, a page's lock may be waited for, which a request that is
 * being served may hold; so nobody who serves requests, or holds a lock of ours, may do it.
 *
 * A node changed: its number goes into a ring, with a ref. When the ring is full, whoever has
 * something to say waits: not saying it would leave old pages.
 *
 * Trimming: nodes cost a descriptor each, and memory. When there are many, names that were not
 * asked for since the last time are taken out of the kernel's cache, until half of what may be is
 * left; the kernel then forgets the nodes. What is open, or somebody's folder, stays.
 */
#include "cleancache/cleancache.h"

#include "os/mem.h"

#include <errno.h>
#include <string.h>

#define RING	   256u
#define TRIM_BATCH 256u
#define NAME_ROOM  256u

struct cc_notify {
	struct cc_mount *m;
	os_thread thread;
	bool started;
	struct os_mutex lock;
	struct os_cond work, room;
	struct cc_node *ring[RING];
	unsigned at, n;
	bool trim, stop;
};

/* A node's name of now, and the number of its folder; false: it has none. */
static bool name_of(struct cc_mount *m, struct cc_node *n, char name[NAME_ROOM],
		    struct cc_node **parent)
{
	return cc_node_name(m, n, name, NAME_ROOM, parent) && *parent;
}

static void trim(struct cc_notify *t)
{
	struct cc_mount *m = t->m;
	struct cc_node *idle[TRIM_BATCH];
	uint64_t now = atomic_load(&m->nodes), most = m->nodes_most / 2, done = 0;
	uint64_t aim = now > most ? now - most : now / 8 + 1;

	/* Twice round is enough: the first one may find all of them used. */
	for (uint64_t looked = 0; looked < 2 * now && done < aim; looked += TRIM_BATCH) {
		unsigned n = cc_nodes_idle(m, idle, TRIM_BATCH);

		for (unsigned i = 0; i < n; i++) {
			struct cc_node *parent;
			char name[NAME_ROOM];

			if (name_of(m, idle[i], name, &parent)) {
				(void)fuse_lowlevel_notify_inval_entry(m->se, cc_ino_of(m, parent),
								       name, strlen(name));
				cc_node_unref(m, parent);
			}
			cc_node_unref(m, idle[i]);
		}
		done += n;
	}
	cc_count(m, CC_TRIMMED, done);
}

static void *run(void *arg)
{
	struct cc_notify *t = arg;

	os_mutex_lock(&t->lock);
	while (!t->stop || t->n) {
		if (t->n) {
			struct cc_node *n = t->ring[t->at];

			t->at = (t->at + 1) % RING;
			t->n--;
			os_cond_broadcast(&t->room);
			os_mutex_unlock(&t->lock);
			if (!t->stop)
				(void)fuse_lowlevel_notify_inval_inode(t->m->se, cc_ino_of(t->m, n),
								       0, 0);
			cc_node_unref(t->m, n);
			os_mutex_lock(&t->lock);
		} else if (t->trim) {
			os_mutex_unlock(&t->lock);
			trim(t);
			os_mutex_lock(&t->lock);
			t->trim = false; /* asked for meanwhile: they will ask again */
		} else {
			os_cond_wait(&t->work, &t->lock);
		}
	}
	os_mutex_unlock(&t->lock);
	return NULL;
}

void cc_notify_changed(struct cc_mount *m, struct cc_node *n)
{
	struct cc_notify *t = m->notify;

	cc_node_ref(m, n);
	os_mutex_lock(&t->lock);
	while (t->n == RING && !t->stop)
		os_cond_wait(&t->room, &t->lock);
	t->ring[(t->at + t->n++) % RING] = n;
	os_cond_signal(&t->work);
	os_mutex_unlock(&t->lock);
}

void cc_notify_trim(struct cc_mount *m)
{
	struct cc_notify *t = m->notify;

	if (!t)
		return;
	os_mutex_lock(&t->lock);
	if (!t->trim) {
		t->trim = true;
		os_cond_signal(&t->work);
	}
	os_mutex_unlock(&t->lock);
}

int cc_notify_open(struct cc_mount *m)
{
	struct cc_notify *t = os_zalloc(sizeof(*t));
	int rc;

	if (!t)
		return -ENOMEM;
	t->m = m;
	os_mutex_init(&t->lock, OS_RANK_LEAF, "notices");
	os_cond_init(&t->work);
	os_cond_init(&t->room);
	m->notify = t;
	rc = os_thread_create(&t->thread, "tmem-notify", run, t);
	t->started = rc == 0;
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
	os_cond_broadcast(&t->room);
	os_mutex_unlock(&t->lock);
	if (t->started)
		os_thread_join(t->thread);
	os_cond_destroy(&t->work);
	os_cond_destroy(&t->room);
	os_mutex_destroy(&t->lock);
	m->notify = NULL;
	os_free(t);
}
