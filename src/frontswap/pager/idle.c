/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages that nobody asked the store for in a while are stored anew: denser, and with
 * their neighbours.
 *
 * What leaves is compressed at once and in a hurry, for a fault may wait for its room, so
 * by a codec that takes 15 us a page. And pages that are used one by one leave one by
 * one: after a while the store holds many of them alone, and clusters of which most pages
 * are elsewhere again. That is the price of not bringing in eight pages for one, as long
 * as they are used. Of those that are not, a step here and there makes clusters of sixteen,
 * with five times the effort (recompress.c in the store does it, and has the rules).
 * What was asked for meanwhile stays as it is: so which codec a page has is up to the
 * faults.
 *
 *   each STEP_MS:  a step of IDLE_CPU percent of a processor, over all steps; a pass over
 *                  the whole store begins when idle_ms are over since the last one
 *
 * A program that works on more than fits comes round to each page again, be it after
 * minutes: what is dense then costs it time twice. So nothing is done unless in the last
 * idle_ms fewer came in than a BUSY_PART of what is stored.
 *
 * The host's main thread does it, as it does compaction; a step holds no lock while it
 * compresses, and a fault never waits for it. Its buffers and context are 1 MiB: below
 * LEAST nothing is done.
 */
#include "frontswap/pager/run.h"

#include "os/log.h"

#define STEP_MS	  100u
#define IDLE_CPU  10u
#define IDLE_GAIN 5u		/* percent that it has to bring */
#define LEAST	  (16ull << 20) /* bytes of the store */
#define BUSY_PART 4

/* Whether what is stored is left alone by the program, as far as the last idle_ms show. */
static bool quiet(struct run *r, uint64_t now, uint64_t stored)
{
	struct idle *w = &r->idle;
	uint64_t in = atomic_load_explicit(&r->n.pages_in, memory_order_relaxed);

	if ((in - w->pages_in) * BUSY_PART >= stored) {
		w->quiet = false;
	} else if (now - w->since_ns < (uint64_t)r->opts.idle_ms * 1000000) {
		return w->quiet;
	} else {
		w->quiet = true;
	}
	w->since_ns = now;
	w->pages_in = in;
	return w->quiet;
}

void idle_step(struct run *r, uint64_t now)
{
	tmem_recompress o = TMEM_RECOMPRESS;
	tmem_stats st = {.size = sizeof(st)};
	int rc;

	if (r->opts.without & IDLE_PAGES || now - r->idle.step_ns < STEP_MS * 1000000ull)
		return;
	r->idle.step_ns = now;
	if (tmem_host_stats(r->host, &st) < 0 || st.store_bytes < LEAST || !quiet(r, now, st.pages))
		return;
	o.codec = RUN_IDLE_CODEC;
	o.idle_ms = r->opts.idle_ms;
	o.cpu_percent = IDLE_CPU;
	o.min_gain_percent = IDLE_GAIN;
	o.cluster = r->opts.cluster > 1 ? TMEM_CLUSTER_MAX : 0;
	rc = tmem_host_recompress(r->host, &o, NULL);
	if (rc)
		os_log(OS_LOG_DEBUG, "idle pages stay as they are: %s", tmem_strerror(rc));
}
