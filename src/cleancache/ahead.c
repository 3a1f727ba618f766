/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading ahead: who reads in order, and misses, gets what comes next before it is asked for.
 *
 *             next     ahead of
 *   ──────────┼┬───────┼──────────────> pages of the file
 *      read   ││ asked │
 *             │└ window ┘   doubles each time that more is asked for, up to --readahead
 *
 * More is asked for by a read that missed; and by one that did not, goes on in order, and has less
 * than half of the window before it: who waited for the window's end would miss there each time.
 *
 * The window is read by a crew, in pieces, several at once: a source that is slow because it is
 * far away is fast only when it is asked for many things at a time. It goes into the store, where
 * the kernel finds it when it gets there, or waits for the piece that is on its way (file.c).
 *
 * When it stops: at the first miss that is not in order, at the end of the file, and where a piece
 * was there already before its reader came: then only a read that misses asks for more. A queue
 * that is full asks for nothing: the source cannot keep up, and asking more would make it wait for
 * nothing.
 */
#include "cleancache/cleancache.h"

#include "os/mem.h"

#include <errno.h>

#define CREW_MOST  16u
#define QUEUE_MOST 64u			      /* pieces */
#define MOST	   (QUEUE_MOST * CC_IO_PAGES) /* more would not be asked for */
/* The kernel's own reads of one reader come by several threads, and overtake each other. */
#define NEAR	   (2 * CC_IO_PAGES)

struct piece {
	struct cc_handle *h; /* a ref */
	uint64_t first;
	unsigned n;
};

struct cc_crew {
	struct cc_mount *m;
	os_thread thread[CREW_MOST];
	unsigned threads;
	struct os_mutex lock;
	struct os_cond work;
	struct piece queue[QUEUE_MOST]; /* a ring */
	unsigned at, n;
	_Atomic bool stop; /* written under the lock */
};

static bool take(struct cc_crew *c, struct piece *p)
{
	bool any;

	os_mutex_lock(&c->lock);
	while (!c->n && !c->stop)
		os_cond_wait(&c->work, &c->lock);
	any = c->n > 0;
	if (any) {
		*p = c->queue[c->at];
		c->at = (c->at + 1) % QUEUE_MOST;
		c->n--;
	}
	os_mutex_unlock(&c->lock);
	return any;
}

static void *run(void *arg)
{
	struct cc_crew *c = arg;
	struct piece p;

	while (take(c, &p)) {
		/* Who has read it meanwhile needs it no more, and it may have had to make room. */
		bool passed = atomic_load(&p.h->next) >= p.first + p.n;

		if (!c->stop && !passed && !cc_read_ahead(c->m, p.h, p.first, p.n) &&
		    atomic_load(&p.h->next) <= p.first)
			atomic_store(&p.h->window, 0);
		cc_handle_put(c->m, p.h);
	}
	return NULL;
}

static bool submit(struct cc_crew *c, struct cc_handle *h, uint64_t first, unsigned n)
{
	bool room;

	os_mutex_lock(&c->lock);
	room = c->n < QUEUE_MOST && !c->stop;
	if (room) {
		h->refs++;
		c->queue[(c->at + c->n++) % QUEUE_MOST] = (struct piece){h, first, n};
		os_cond_signal(&c->work);
	}
	os_mutex_unlock(&c->lock);
	return room;
}

/* Pieces from `ahead` on until `last`, none past the end of the file. How far it got. */
static uint64_t submit_all(struct cc_crew *c, struct cc_handle *h, uint64_t ahead, uint64_t last,
			   uint64_t pages)
{
	while (ahead < last) {
		unsigned k = CC_IO_PAGES - (unsigned)(ahead % CC_IO_PAGES);

		if (k > pages - ahead)
			k = (unsigned)(pages - ahead);
		if (!submit(c, h, ahead, k))
			break;
		ahead += k;
	}
	return ahead;
}

void cc_ahead(struct cc_mount *m, struct cc_handle *h, uint64_t first, unsigned n, uint64_t size,
	      unsigned missed)
{
	uint64_t next = atomic_load(&h->next), end = first + n, last,
		 ahead = atomic_load(&h->ahead), pages = (size + CC_PAGE - 1) / CC_PAGE,
		 most = m->o->readahead_bytes / CC_PAGE;
	unsigned window = atomic_load(&h->window);
	bool in_order = first + NEAR >= next && first <= next + NEAR;

	if (!m->crew || !most)
		return;
	most = most < MOST ? most : MOST;
	if (!missed && (!window || !in_order || end <= next))
		return;
	if (!in_order) { /* somewhere else */
		atomic_store(&h->next, end);
		atomic_store(&h->ahead, end);
		atomic_store(&h->window, first == 0 ? CC_IO_PAGES : 0);
		return;
	}
	if (end > next)
		atomic_store(&h->next, end);
	if (!missed && ahead > end + window / 2)
		return;
	window = window ? window * 2 : CC_IO_PAGES;
	window = window < most ? window : (unsigned)most;
	atomic_store(&h->window, window);
	ahead = ahead > end ? ahead : end;
	last = end + window < pages ? end + window : pages;
	atomic_store(&h->ahead, submit_all(m->crew, h, ahead, last, pages));
}

int cc_crew_open(struct cc_mount *m, unsigned threads)
{
	struct cc_crew *c = os_zalloc(sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->m = m;
	os_mutex_init(&c->lock, OS_RANK_LEAF, "read-ahead");
	os_cond_init(&c->work);
	m->crew = c;
	while (c->threads < threads && c->threads < CREW_MOST) {
		int rc = os_thread_create(&c->thread[c->threads], "tmem-ahead", run, c);

		if (rc)
			return rc;
		c->threads++;
	}
	return 0;
}

void cc_crew_close(struct cc_mount *m)
{
	struct cc_crew *c = m->crew;

	if (!c)
		return;
	os_mutex_lock(&c->lock);
	c->stop = true;
	os_cond_broadcast(&c->work);
	os_mutex_unlock(&c->lock);
	for (unsigned i = 0; i < c->threads; i++)
		os_thread_join(c->thread[i]);
	os_cond_destroy(&c->work);
	os_mutex_destroy(&c->lock);
	m->crew = NULL;
	os_free(c);
}
