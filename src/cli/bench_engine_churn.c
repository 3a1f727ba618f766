/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What compaction costs, and what it is good for, while pages come and go.
 *
 * Half of the pages are in the store, in clusters of four, zstd:1, as `tmem
 * run` keeps them. An operation takes a random cluster out (get_cluster with
 * invalidate) and puts a random one of the others in. Every 5 ms the store is
 * compacted if its frames hold 5 % and 1 MiB more than compressed bytes, at
 * most 4 MiB at a time: the rule of `tmem run`'s host. Here one thread does
 * both in turn, and CPU time is counted, so that nothing else shows.
 */
#include "cli/bench_engine.h"

#include "cli/bench_pages.h"
#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>

#define CLUSTER	    4
#define CLUSTERS    32768 /* at most */
#define TURNS	    4	  /* each cluster is replaced so often, on average */
#define PAUSE_NS    5000000u
#define STEP_BYTES  ((uint64_t)4 << 20)
#define SLACK_BYTES ((uint64_t)1 << 20)

struct churn {
	struct engine *e;
	uint32_t *in, *out; /* numbers of clusters in the store, and not */
	uint64_t n;	    /* of each */
	uint64_t seed;
	uint8_t *buf;
	bool compact;
	struct engine_churn r;
	uint64_t spent_ns, compact_ns;
};

static void place(uint32_t cluster, tmem_oid *oid, uint64_t *index)
{
	engine_handle((uint64_t)cluster * CLUSTER, oid, index);
}

static int churn_put(struct churn *c, uint32_t cluster)
{
	uint64_t index;
	tmem_oid oid;

	place(cluster, &oid, &index);
	return tmem_put_cluster(c->e->client, c->e->pool, &oid, index, CLUSTER,
				c->e->pages.data + (uint64_t)cluster * CLUSTER * ENGINE_PAGE);
}

static int churn_take(struct churn *c, uint32_t cluster)
{
	uint64_t index, first;
	uint32_t mask;
	tmem_oid oid;
	int code;

	place(cluster, &oid, &index);
	code = tmem_get_cluster(c->e->client, c->e->pool, &oid,
				index + bench_random(&c->seed) % CLUSTER, 1, c->buf, &first, &mask);
	return code > 0 ? -EIO : code;
}

static int churn_stats(struct churn *c, tmem_stats *st, uint64_t *slack)
{
	int code;

	*st = (tmem_stats){.size = sizeof(*st)};
	code = tmem_host_stats(c->e->host, st);
	*slack =
		st->frame_bytes > st->compressed_bytes ? st->frame_bytes - st->compressed_bytes : 0;
	return code;
}

/* What `tmem run` does every 5 ms. */
static int churn_compact(struct churn *c)
{
	uint64_t start = os_clock_thread_cpu_ns(), slack, got, ns;
	tmem_stats st;
	int code = churn_stats(c, &st, &slack);

	if (!code && c->compact && slack > st.frame_bytes / 20 && slack > SLACK_BYTES) {
		got = tmem_host_compact(c->e->host,
					slack / 2 < STEP_BYTES ? slack / 2 : STEP_BYTES);
		c->r.calls++;
		c->r.empty_calls += got == 0;
		c->r.returned_bytes += got;
	}
	ns = os_clock_thread_cpu_ns() - start;
	c->compact_ns += ns;
	if ((double)ns / 1000 > c->r.longest_us)
		c->r.longest_us = (double)ns / 1000;
	return code;
}

static int churn_run(struct churn *c)
{
	uint64_t start = os_clock_thread_cpu_ns(), next = start + PAUSE_NS, now;
	int code = 0;

	for (uint64_t i = 0; i < c->n * TURNS && !code; i++) {
		uint64_t a = bench_random(&c->seed) % c->n, b = bench_random(&c->seed) % c->n;
		uint32_t goes = c->in[a];

		code = churn_take(c, goes);
		if (!code)
			code = churn_put(c, c->out[b]);
		c->in[a] = c->out[b];
		c->out[b] = goes;
		c->r.operations++;
		now = i % 8 ? 0 : os_clock_thread_cpu_ns();
		if (!code && now > next) {
			code = churn_compact(c);
			next = os_clock_thread_cpu_ns() + PAUSE_NS;
		}
	}
	c->spent_ns = os_clock_thread_cpu_ns() - start;
	return code;
}

/* Compact all there is, then once more. */
static void churn_idle(struct churn *c)
{
	uint64_t start;

	while (tmem_host_compact(c->e->host, UINT64_MAX))
		;
	start = os_clock_thread_cpu_ns();
	(void)tmem_host_compact(c->e->host, STEP_BYTES);
	c->r.idle_us = (double)(os_clock_thread_cpu_ns() - start) / 1000;
}

static int churn_once(struct churn *c)
{
	tmem_stats st;
	uint64_t slack;
	int code = engine_open(c->e, "zstd:1");

	c->seed = 11;
	for (uint64_t i = 0; i < c->n && !code; i++) {
		c->in[i] = (uint32_t)(2 * i);
		c->out[i] = (uint32_t)(2 * i + 1);
		code = churn_put(c, c->in[i]);
	}
	if (!code)
		code = churn_run(c);
	if (!code)
		code = churn_stats(c, &st, &slack);
	if (!code) {
		c->r.moves = st.moved_zpages;
		c->r.frames_over_compressed =
			(double)st.frame_bytes / (double)(st.compressed_bytes + 1);
		churn_idle(c);
	}
	engine_close(c->e);
	return code;
}

int engine_measure_churn(struct engine *e)
{
	struct churn c = {.e = e, .n = e->pages.count / CLUSTER / 2}, bare;
	int code = -ENOMEM;

	if (c.n > CLUSTERS / 2)
		c.n = CLUSTERS / 2;
	c.in = os_alloc(2 * c.n * sizeof(*c.in));
	c.buf = os_alloc(TMEM_CLUSTER_MAX * ENGINE_PAGE);
	if (!c.in || !c.buf)
		goto out;
	c.out = c.in + c.n;
	bare = c;
	code = churn_once(&bare);
	c.compact = true;
	if (!code)
		code = churn_once(&c);
	e->r.churn = c.r;
	e->r.churn.frames_without = bare.r.frames_over_compressed;
	e->r.churn.cpu_share = (double)c.compact_ns / (double)(c.spent_ns + 1);
out:
	os_free(c.in);
	os_free(c.buf);
	return code;
}
