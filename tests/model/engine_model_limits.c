/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What hard limits promise, sampled by the one thread that sets them.
 *
 *   What is in use is never above the limit; where it was when the limit was lowered,
 *   nothing is added until it is not.
 *
 * So of two samples under one limit:  second <= max(first, limit).  An operation that was
 * on its way when the limit changed may still go by the old one, so samples count once
 * every thread has begun an operation after it (two steps of its counter).
 *
 * The peak that the host remembers needs no samples: it is never above the highest limit
 * that there ever was.
 */
#include "engine_model.h"

struct cap {
	uint64_t limit, last; /* last: sample; 0: not sampled yet */
	bool since_change;    /* every thread has begun an operation under this limit */
	uint64_t op[THREADS_MAX];
};

static struct cap of_host, of_client;
static uint64_t host_highest; /* UINT64_MAX: there was none for a time */

static void changed(struct cap *cap, uint64_t bytes)
{
	cap->limit = bytes;
	cap->last = 0;
	cap->since_change = false;
	for (unsigned i = 0; i < nthreads; i++)
		cap->op[i] = atomic_load(&workers[i]->op);
}

/* Through either door. */
void host_limit_set(struct worker *w, uint64_t bytes)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", ULL(bytes));
	if (rnd(w, 2) ? tmem_host_set_limit(host, bytes)
		      : tmem_tunable_set(host, NULL, "limit", text, NULL, 0))
		fail(w, "the limit is not taken");
	if (!bytes || bytes > host_highest)
		host_highest = bytes ? bytes : UINT64_MAX;
	changed(&of_host, bytes);
}

void client_limit_set(struct worker *w, uint64_t bytes)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", ULL(bytes));
	if (rnd(w, 2) ? tmem_client_set_limit(client, bytes)
		      : tmem_tunable_set(host, client, "client_limit", text, NULL, 0))
		fail(w, "the client's limit is not taken");
	changed(&of_client, bytes);
}

void limits_begin(uint64_t bytes)
{
	host_highest = bytes ? bytes : UINT64_MAX;
	changed(&of_host, bytes);
	changed(&of_client, 0);
}

static bool all_moved(struct cap *cap)
{
	for (unsigned i = 0; i < nthreads && !cap->since_change; i++)
		if (atomic_load(&workers[i]->op) < cap->op[i] + 2 &&
		    !atomic_load(&workers[i]->idle))
			return false;
	cap->since_change = true;
	return true;
}

static void sample(struct cap *cap, uint64_t used, const char *of)
{
	if (cap->last && used > cap->limit && used > cap->last)
		fail(NULL, "%s uses %llu, its limit is %llu; it used %llu before", of, ULL(used),
		     ULL(cap->limit), ULL(cap->last));
	cap->last = used;
}

void limits_sample(void)
{
	tmem_client_stats c = {.size = sizeof(c)};
	tmem_stats s = {.size = sizeof(s)};

	if (of_host.limit && all_moved(&of_host)) {
		if (tmem_host_stats(host, &s))
			fail(NULL, "statistics");
		sample(&of_host, s.store_bytes, "the host");
	}
	if (of_client.limit && all_moved(&of_client)) {
		if (tmem_client_stats_get(client, &c))
			fail(NULL, "statistics of the client");
		sample(&of_client, c.store_bytes, "the client");
	}
}

void limits_end(void)
{
	tmem_stats s = {.size = sizeof(s)};

	if (tmem_host_stats(host, &s) || s.store_peak_bytes > host_highest)
		fail(NULL, "the peak was %llu, the limit at most %llu", ULL(s.store_peak_bytes),
		     ULL(host_highest));
}
