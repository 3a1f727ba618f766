/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eviction policies over page numbers, with no store behind them: a check of
 * the engine's from outside, quick enough to size with, and a bound.
 *
 *   fifo    the oldest goes; being found changes nothing
 *   lru     the least recently asked for goes
 *   s3fifo  new pages into a small queue (a tenth of the bytes), or the main
 *           queue while that has less than its share. What was asked for in the
 *           small one again goes on to the main queue when its turn comes, the
 *           rest leaves and is remembered as a ghost; a page that comes back
 *           while it is a ghost, as long as a quarter of all pages have not
 *           become ghosts since, starts in the main queue. There, what was asked
 *           for (counted up to 3) goes round again. One of 12 victims is the
 *           main queue's.
 *   opt     what is asked for last of all goes first (Belady): no policy that
 *           does not know the future does better, as long as pages are of one
 *           size; with sizes that differ it is near the bound
 *
 * S3-FIFO is Yang and others, "FIFO queues are all you need for cache
 * eviction", SOSP 2023; why ours departs from it says src/zcache/evict_s3fifo.c.
 *
 * A page takes its compressed bytes and REPLAY_OVERHEAD.
 *
 *   I1  used == sum of cost over pages with where != OUT  <=  size, after each event
 *   I2  queue[q].bytes == sum of cost over pages with where == q
 *   I3  a page is in exactly the list that where says; ghosts are in none
 */
#include "cli/replay.h"

#include "os/check.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
#define OUT  2u

struct queue {
	uint32_t head, tail; /* pages; in at the head, out at the tail */
	uint64_t bytes, count;
};

struct mpage {
	uint32_t prev, next;
	uint32_t ghost; /* number of its ghost entry, from 1; 0: none */
	uint32_t heap;	/* opt: place in the heap */
	uint32_t due;	/* opt: event that asks for it next */
	uint8_t where;	/* queue, or OUT */
	uint8_t freq;
};

struct world {
	const struct replay_trace *t;
	const uint32_t *next_use;
	uint64_t size, used, event;
	struct mpage *page;
	struct queue queue[2]; /* 0: small, or the only one; 1: main */
	uint32_t *heap;	       /* opt: latest due at the top */
	uint64_t nheap;
	uint32_t ghost_number, ghosts; /* entries given so far; how many of them count */
	uint32_t turns;		       /* s3fifo: of evictions */
	struct replay_result *out;
};

struct replay_model {
	const char *name;
	void (*found)(struct world *w, uint32_t p);
	void (*insert)(struct world *w, uint32_t p);
	void (*remove)(struct world *w, uint32_t p); /* for good, not evicted */
	void (*evict)(struct world *w);		     /* one page at least leaves, or moves on */
};

static uint32_t cost(const struct world *w, uint32_t p)
{
	return replay_cost(&w->t->page[p]);
}

/* ---- lists ------------------------------------------------------------------- */

static void push(struct world *w, unsigned q, uint32_t p)
{
	struct queue *l = &w->queue[q];
	struct mpage *m = &w->page[p];

	tmem_assert(I3, m->where == OUT);
	m->where = (uint8_t)q;
	m->prev = NONE;
	m->next = l->head;
	if (l->head != NONE)
		w->page[l->head].prev = p;
	else
		l->tail = p;
	l->head = p;
	l->bytes += cost(w, p);
	l->count++;
	w->used += cost(w, p);
}

static void unlist(struct world *w, uint32_t p)
{
	struct mpage *m = &w->page[p];
	struct queue *l = &w->queue[m->where];

	if (m->prev != NONE)
		w->page[m->prev].next = m->next;
	else
		l->head = m->next;
	if (m->next != NONE)
		w->page[m->next].prev = m->prev;
	else
		l->tail = m->prev;
	l->bytes -= cost(w, p);
	l->count--;
	w->used -= cost(w, p);
	m->where = OUT;
}

static void evicted(struct world *w, uint32_t p)
{
	(void)p;
	w->out->evicted_pages++;
}

/* ---- fifo, lru ---------------------------------------------------------------- */

static void fifo_found(struct world *w, uint32_t p)
{
	(void)w, (void)p;
}

static void lru_found(struct world *w, uint32_t p)
{
	unlist(w, p);
	push(w, 0, p);
}

static void fifo_insert(struct world *w, uint32_t p)
{
	push(w, 0, p);
}

static void fifo_evict(struct world *w)
{
	uint32_t p = w->queue[0].tail;

	unlist(w, p);
	evicted(w, p);
}

/* ---- s3fifo ------------------------------------------------------------------- */

static void s3_found(struct world *w, uint32_t p)
{
	if (w->page[p].freq < 3)
		w->page[p].freq++;
}

static void s3_insert(struct world *w, uint32_t p)
{
	struct mpage *m = &w->page[p];
	bool ghost = m->ghost && w->ghost_number - m->ghost < w->ghosts;

	m->freq = 0;
	m->ghost = 0;
	push(w, ghost || w->queue[1].bytes < 8 * w->queue[0].bytes ? 1 : 0, p);
}

static void s3_evict_small(struct world *w)
{
	uint32_t p = w->queue[0].tail;
	struct mpage *m = &w->page[p];

	unlist(w, p);
	if (m->freq > 1) {
		m->freq = 0;
		push(w, 1, p);
		return;
	}
	evicted(w, p);
	m->ghost = ++w->ghost_number;
	w->ghosts = (uint32_t)((w->queue[0].count + w->queue[1].count) / 4);
}

static void s3_evict(struct world *w)
{
	uint32_t p;

	if (!w->queue[1].count ||
	    (w->queue[0].count && ++w->turns % 12 && w->queue[0].bytes >= w->size / 10)) {
		s3_evict_small(w);
		return;
	}
	p = w->queue[1].tail;
	unlist(w, p);
	if (w->page[p].freq) {
		w->page[p].freq--;
		push(w, 1, p);
	} else {
		evicted(w, p);
	}
}

/* ---- opt ---------------------------------------------------------------------- */

static void heap_set(struct world *w, uint64_t i, uint32_t p)
{
	w->heap[i] = p;
	w->page[p].heap = (uint32_t)i;
}

static void heap_up(struct world *w, uint64_t i)
{
	uint32_t p = w->heap[i];

	for (; i && w->page[w->heap[(i - 1) / 2]].due < w->page[p].due; i = (i - 1) / 2)
		heap_set(w, i, w->heap[(i - 1) / 2]);
	heap_set(w, i, p);
}

static void heap_down(struct world *w, uint64_t i)
{
	uint32_t p = w->heap[i];
	uint64_t child;

	while ((child = 2 * i + 1) < w->nheap) {
		if (child + 1 < w->nheap &&
		    w->page[w->heap[child + 1]].due > w->page[w->heap[child]].due)
			child++;
		if (w->page[w->heap[child]].due <= w->page[p].due)
			break;
		heap_set(w, i, w->heap[child]);
		i = child;
	}
	heap_set(w, i, p);
}

static void opt_found(struct world *w, uint32_t p)
{
	w->page[p].due = w->next_use[w->event];
	heap_up(w, w->page[p].heap);
	heap_down(w, w->page[p].heap);
}

static void opt_insert(struct world *w, uint32_t p)
{
	w->page[p].due = w->next_use[w->event];
	w->page[p].where = 0;
	w->used += cost(w, p);
	heap_set(w, w->nheap, p);
	heap_up(w, w->nheap++);
}

static void opt_remove(struct world *w, uint32_t p)
{
	uint64_t i = w->page[p].heap;
	uint32_t last = w->heap[--w->nheap];

	w->page[p].where = OUT;
	w->used -= cost(w, p);
	if (last == p)
		return;
	heap_set(w, i, last);
	heap_up(w, i);
	heap_down(w, w->page[last].heap);
}

static void opt_evict(struct world *w)
{
	uint32_t p = w->heap[0];

	opt_remove(w, p);
	evicted(w, p);
}

/* ---- the run ------------------------------------------------------------------ */

static const struct replay_model models[] = {
	{"fifo", fifo_found, fifo_insert, unlist, fifo_evict},
	{"lru", lru_found, fifo_insert, unlist, fifo_evict},
	{"s3fifo", s3_found, s3_insert, unlist, s3_evict},
	{"opt", opt_found, opt_insert, opt_remove, opt_evict},
};

const char *replay_model_names(void)
{
	return "fifo, lru, s3fifo, opt";
}

const struct replay_model *replay_model_find(const char *name)
{
	for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++)
		if (!strcmp(models[i].name, name))
			return &models[i];
	return NULL;
}

uint32_t *replay_next_use(const struct replay_trace *t)
{
	uint32_t *next = malloc((t->nevents + 1) * sizeof(*next));
	uint32_t *of = malloc((t->npages + 1) * sizeof(*of));

	if (!next || !of) {
		free(next);
		free(of);
		return NULL;
	}
	memset(of, 0xff, (t->npages + 1) * sizeof(*of));
	for (uint64_t i = t->nevents; i-- > 0;) {
		uint32_t p = t->event[i].page;

		next[i] = of[p];
		/* What is put or dropped later cannot serve an ask that comes after that. */
		of[p] = t->event[i].kind <= REPLAY_TAKE ? (uint32_t)i : NONE;
	}
	free(of);
	return next;
}

static void put(struct world *w, const struct replay_model *m, uint32_t p)
{
	const struct replay_page *page = &w->t->page[p];

	if (w->page[p].where != OUT)
		m->remove(w, p);
	w->out->puts++;
	if (cost(w, p) > w->size) {
		w->out->refused++;
		return;
	}
	w->out->stored_bytes += page->zsize;
	m->insert(w, p);
	while (w->used > w->size)
		m->evict(w);
	tmem_assert(I1, w->used <= w->size);
}

static void ask(struct world *w, const struct replay_model *m, uint32_t p, enum replay_kind kind)
{
	bool hit = w->page[p].where != OUT;

	w->out->asks++;
	if (!hit) {
		w->out->fetched_bytes += 4096;
		if (kind == REPLAY_ASK)
			put(w, m, p);
		return;
	}
	w->out->hits++;
	if (w->t->page[p].zsize)
		w->out->unpacked_bytes += 4096;
	if (kind == REPLAY_TAKE)
		m->remove(w, p);
	else
		m->found(w, p);
}

static void sample(struct world *w, uint64_t *asks, uint64_t *hits)
{
	struct replay_result *o = w->out;
	struct replay_sample *s = &o->sample[o->samples++];

	s->part = w->t->nevents ? (double)(w->event + 1) / (double)w->t->nevents : 1;
	s->memory_bytes = w->used;
	s->hit_ratio =
		o->asks > *asks ? (double)(o->hits - *hits) / (double)(o->asks - *asks) : NAN;
	*asks = o->asks;
	*hits = o->hits;
}

static void run(struct world *w, const struct replay_model *m, void (*step)(uint64_t events))
{
	uint64_t asks = 0, hits = 0, every = w->t->nevents / REPLAY_SAMPLES + 1;

	for (w->event = 0; w->event < w->t->nevents; w->event++) {
		const struct replay_event *e = &w->t->event[w->event];

		if (e->kind <= REPLAY_TAKE)
			ask(w, m, e->page, e->kind);
		else if (e->kind == REPLAY_PUT)
			put(w, m, e->page);
		else if (w->page[e->page].where != OUT)
			m->remove(w, e->page);
		if (w->used > w->out->peak_bytes)
			w->out->peak_bytes = w->used;
		if ((w->event + 1) % every == 0 || w->event + 1 == w->t->nevents) {
			if (w->out->samples < REPLAY_SAMPLES)
				sample(w, &asks, &hits);
			if (step)
				step(every);
		}
	}
}

int replay_model_run(const struct replay_model *m, const struct replay_trace *t,
		     const uint32_t *next_use, uint64_t size, struct replay_result *out,
		     void (*step)(uint64_t events))
{
	struct world w = {.t = t, .next_use = next_use, .size = size, .out = out};

	memset(out, 0, sizeof(*out));
	snprintf(out->policy, sizeof(out->policy), "%s", m->name);
	out->model = true;
	out->size_bytes = size;
	out->put_ns = out->get_ns = NAN;
	for (unsigned q = 0; q < 2; q++)
		w.queue[q].head = w.queue[q].tail = NONE;
	w.page = malloc((t->npages + 1) * sizeof(*w.page));
	w.heap = malloc((t->npages + 1) * sizeof(*w.heap));
	if (!w.page || !w.heap) {
		free(w.page);
		free(w.heap);
		return -ENOMEM;
	}
	for (uint64_t i = 0; i < t->npages; i++)
		w.page[i] = (struct mpage){.where = OUT};
	run(&w, m, step);
	free(w.page);
	free(w.heap);
	return 0;
}
