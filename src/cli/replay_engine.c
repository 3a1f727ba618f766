/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Events against a real host: one client, one ephemeral pool, a limit, a
 * policy. Every page that is found is compared with what was put last, so a
 * replay is a test of the store too.
 *
 * Contents are made from the page's number and version, when they are needed,
 * and never kept: so many random bytes that lz4 makes about the recorded size
 * of them, and zeros; or a page of a file of pages with number and version in
 * its first bytes. Pages that do not compress are stored as they are
 * (store_raw), so that policies are compared on the same pages.
 *
 * A get keeps the page (tmem_get_keep) where the trace says so, and for asks of
 * a cache; the pool is private, and a plain get would take it out.
 */
#include "cli/replay.h"

#include "cli/bench_pages.h"
#include "os/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tmem/tmem.h>

struct world {
	const struct replay_trace *t;
	const uint8_t *pages;
	uint64_t npages;
	tmem_host *host;
	tmem_client *client;
	tmem_pool pool;
	uint32_t *version; /* of each page, counted by its puts */
	uint64_t put_ns, gets, get_ns, dropped;
	struct replay_result *out;
	char *err;
	size_t errlen;
};

static int fail(struct world *w, int rc, const char *what)
{
	if (!w->err[0])
		snprintf(w->err, w->errlen, "%s", what);
	return rc;
}

/* What page p holds in its present version. */
static void contents(const struct world *w, uint32_t p, uint8_t to[TMEM_PAGE_SIZE])
{
	uint64_t name[2] = {p, w->version[p]}, seed = (uint64_t)p << 32 | w->version[p];
	unsigned zsize = w->t->page[p].zsize;
	uint64_t *word = (uint64_t *)(void *)to;
	unsigned noise;

	if (w->pages) {
		memcpy(to, w->pages + (uint64_t)p % w->npages * TMEM_PAGE_SIZE, TMEM_PAGE_SIZE);
		memcpy(to, name, sizeof(name));
		return;
	}
	if (zsize == 0) {
		for (unsigned i = 0; i < TMEM_PAGE_SIZE / 8; i++)
			word[i] = seed;
		return;
	}
	/* Beside the random bytes lz4 writes some 34 for their length and for the zeros. */
	noise = zsize >= TMEM_PAGE_SIZE ? TMEM_PAGE_SIZE : zsize > 58 ? (zsize - 34) / 8 * 8 : 24;
	memset(to + noise, 0, TMEM_PAGE_SIZE - noise);
	memcpy(to, name, sizeof(name));
	for (unsigned i = 2; i < noise / 8; i++)
		word[i] = bench_random(&seed);
}

static tmem_oid oid_of(const struct replay_page *p)
{
	return (tmem_oid){{p->object, 0, 0}};
}

static int put(struct world *w, uint32_t p)
{
	_Alignas(64) uint8_t page[TMEM_PAGE_SIZE];
	const struct replay_page *rp = &w->t->page[p];
	tmem_oid oid = oid_of(rp);
	uint64_t start;
	int rc;

	w->version[p]++;
	contents(w, p, page);
	start = os_clock_ns();
	rc = tmem_put(w->client, w->pool, &oid, rp->index, page);
	w->put_ns += os_clock_ns() - start;
	w->out->puts++;
	if (rc == -ENOMEM || rc == -E2BIG) {
		w->out->refused++;
		return 0;
	}
	w->out->stored_bytes += rc == 0 ? rp->zsize : 0;
	return rc ? fail(w, rc, tmem_strerror(rc)) : 0;
}

static int ask(struct world *w, uint32_t p, enum replay_kind kind)
{
	_Alignas(64) uint8_t page[TMEM_PAGE_SIZE], want[TMEM_PAGE_SIZE];
	const struct replay_page *rp = &w->t->page[p];
	tmem_oid oid = oid_of(rp);
	uint64_t start = os_clock_ns();
	int rc;

	if (kind == REPLAY_TAKE)
		rc = tmem_get_and_invalidate(w->client, w->pool, &oid, rp->index, page);
	else
		rc = tmem_get_keep(w->client, w->pool, &oid, rp->index, page);
	w->out->asks++;
	if (rc == 1) {
		w->out->fetched_bytes += TMEM_PAGE_SIZE;
		return kind == REPLAY_ASK ? put(w, p) : 0;
	}
	if (rc)
		return fail(w, rc, tmem_strerror(rc));
	w->get_ns += os_clock_ns() - start;
	w->gets++;
	w->out->hits++;
	if (rp->zsize)
		w->out->unpacked_bytes += TMEM_PAGE_SIZE;
	contents(w, p, want);
	if (memcmp(page, want, sizeof(page)) != 0)
		return fail(w, -EIO, "the store gave a page that is not what was put");
	return 0;
}

static int drop(struct world *w, uint32_t p)
{
	const struct replay_page *rp = &w->t->page[p];
	tmem_oid oid = oid_of(rp);
	int rc = tmem_invalidate_page(w->client, w->pool, &oid, rp->index);

	return rc < 0 ? fail(w, rc, tmem_strerror(rc)) : 0;
}

static int sample(struct world *w, uint64_t done, uint64_t *asks, uint64_t *hits)
{
	struct replay_result *o = w->out;
	tmem_stats st = {.size = sizeof(st)};
	struct replay_sample *s;
	int rc = tmem_host_stats(w->host, &st);

	if (rc)
		return fail(w, rc, tmem_strerror(rc));
	o->evicted_pages = st.evicted_pages;
	o->peak_bytes = st.store_peak_bytes;
	if (st.store_peak_bytes > o->size_bytes)
		return fail(w, -EIO, "the store was above its limit");
	if (o->samples == REPLAY_SAMPLES)
		return 0;
	s = &o->sample[o->samples++];
	s->part = (double)done / (double)w->t->nevents;
	s->memory_bytes = st.store_bytes;
	s->hit_ratio =
		o->asks > *asks ? (double)(o->hits - *hits) / (double)(o->asks - *asks) : NAN;
	*asks = o->asks;
	*hits = o->hits;
	return 0;
}

static int run(struct world *w, void (*step)(uint64_t events))
{
	uint64_t asks = 0, hits = 0, n = w->t->nevents, every = n / REPLAY_SAMPLES + 1;
	int rc = 0;

	for (uint64_t i = 0; i < n && rc == 0; i++) {
		const struct replay_event *e = &w->t->event[i];

		if (e->kind <= REPLAY_TAKE)
			rc = ask(w, e->page, e->kind);
		else
			rc = e->kind == REPLAY_PUT ? put(w, e->page) : drop(w, e->page);
		if (rc == 0 && ((i + 1) % every == 0 || i + 1 == n)) {
			rc = sample(w, i + 1, &asks, &hits);
			if (step)
				step(every);
		}
	}
	if (w->out->puts)
		w->out->put_ns = (double)w->put_ns / (double)w->out->puts;
	if (w->gets)
		w->out->get_ns = (double)w->get_ns / (double)w->gets;
	return rc;
}

int replay_engine_run(const char *policy, const char *codec, const struct replay_trace *t,
		      const uint8_t *pages, uint64_t npages, uint64_t size,
		      struct replay_result *out, void (*step)(uint64_t events), char *err,
		      size_t errlen)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct world w = {
		.t = t, .pages = pages, .npages = npages, .out = out, .err = err, .errlen = errlen};
	int rc;

	memset(out, 0, sizeof(*out));
	snprintf(out->policy, sizeof(out->policy), "%s", policy);
	out->size_bytes = size;
	out->put_ns = out->get_ns = NAN;
	err[0] = '\0';
	o.limit_bytes = size;
	o.codec = codec;
	o.policy = policy;
	o.store_raw = 1;
	rc = tmem_host_create(&o, &w.host, err, errlen);
	if (rc)
		return rc;
	w.version = calloc(t->npages + 1, sizeof(*w.version));
	rc = w.version ? tmem_client_create(w.host, "replay", &w.client) : -ENOMEM;
	if (rc == 0) {
		w.pool = tmem_pool_create(w.client, 0, 0);
		rc = w.pool < 0 ? w.pool : 0;
	}
	if (rc)
		fail(&w, rc, "the size is too small for an empty store");
	if (rc == 0)
		rc = run(&w, step);
	if (rc == 0 && tmem_host_verify(w.host, 1))
		rc = fail(&w, -EIO, "the store fails its own verification");
	tmem_client_destroy(w.client);
	tmem_host_destroy(w.host);
	free(w.version);
	return rc;
}
