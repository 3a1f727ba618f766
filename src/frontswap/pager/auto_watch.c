/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The watcher of `--limit auto`: windows, the law, and the sums for the report.
 *
 * A thread of its own, for clear_refs and smaps walk all of a process's page
 * tables: milliseconds for each GiB, in which a pager must serve faults, and the main thread
 * account. It takes no lock while it looks. A process with nothing cold is looked at
 * less often, up to GAP_MOST cold ages apart, since the accessed bits that are
 * taken away cost the program a little; and no process for more than a hundredth of
 * the time.
 */
#include "frontswap/pager/auto.h"
#include "frontswap/pager/run.h"

#include "os/clock.h"
#include "os/pressure.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TICK_US	   200000
#define STEP_NS	   1000000000ull
#define SETTLE_NS  1000000000ull /* what has just begun is not looked at */
#define GAP_MOST   16u
#define GAP_WORTH  64u /* less than this part of all idle: nothing is cold */
#define COST_RATIO 99u
#define DUE_MOST   64u
#define BETWEEN_NS 10000000000ull

/* ---- windows -----------------------------------------------------------------------------------
 */

struct due {
	uint64_t id;
	pid_t pid;
	bool ends;
};

static bool may_begin(const struct auto_space *a, uint64_t now)
{
	return !atomic_load(&a->between) || now - a->read_ns > BETWEEN_NS;
}

/* What is to be begun or to be ended now. */
static unsigned list_due(struct run *r, uint64_t now, struct due *due)
{
	uint64_t cold_ns = (uint64_t)atomic_load(&r->automatic.cold_ms) * 1000000;
	unsigned n = 0;

	os_mutex_lock(&r->lock);
	for (struct space *sp = r->spaces; sp && n < DUE_MOST; sp = sp->next) {
		struct auto_space *a = &sp->cold;
		pid_t pid = atomic_load(&sp->pid);

		if (pid <= 0 || a->refused || !atomic_load(&sp->agent_ready))
			continue;
		if (!a->seen_ns)
			a->seen_ns = now;
		if (a->begun_ns ? now - a->begun_ns >= cold_ns
				: now >= a->next_ns && may_begin(a, now) &&
					  now - a->seen_ns >= (cold_ns / 8 < SETTLE_NS ? cold_ns / 8
										       : SETTLE_NS))
			due[n++] = (struct due){sp->id, pid, a->begun_ns != 0};
	}
	os_mutex_unlock(&r->lock);
	return n;
}

static struct space *find(struct run *r, uint64_t id)
{
	struct space *sp = r->spaces;

	while (sp && sp->id != id)
		sp = sp->next;
	return sp;
}

static bool nothing_cold(const struct ages *ages)
{
	return ages->resident - ages->referenced < ages->resident / GAP_WORTH;
}

static void refused(struct run *r, const struct due *d, int rc)
{
	if (rc == -ESRCH || rc == -ENOENT || r->automatic.told_refusal)
		return;
	r->automatic.told_refusal = true;
	run_say(r, "process %d does not let its memory be looked at (%s): nothing of it leaves",
		(int)d->pid, strerror(-rc));
}

/* A window ends, and the next one begins, at once or later. */
static void look(struct run *r, const struct due *d)
{
	uint64_t cold_ns = (uint64_t)atomic_load(&r->automatic.cold_ms) * 1000000;
	uint64_t begun = os_clock_ns(), now;
	struct ages *ages = NULL;
	int rc = d->ends ? ages_read(d->pid, &ages) : 0;
	bool idle = rc == 0 && ages && nothing_cold(ages);
	struct space *sp;

	if (!d->ends)
		rc = ages_begin(d->pid);
	now = os_clock_ns();
	os_mutex_lock(&r->lock);
	sp = find(r, d->id);
	if (sp) {
		struct auto_space *a = &sp->cold;
		uint64_t pause = (now - begun) * 2 * COST_RATIO; /* clear_refs as well */

		if (d->ends)
			a->gap = !idle ? 0 : a->gap ? a->gap * 2 : 1;
		a->gap = a->gap < GAP_MOST ? a->gap : GAP_MOST;
		/* The first one may have seen it being filled: the second follows at once. */
		pause = pause > a->gap / 2 * cold_ns ? pause : a->gap / 2 * cold_ns;
		a->begun_ns = !d->ends && rc == 0 ? now : 0;
		if (d->ends)
			a->next_ns = now + pause;
		a->read_ns = now;
		a->refused = rc == -EACCES || rc == -EPERM;
		if (ages) {
			atomic_store(&a->working_set, ages->referenced);
			atomic_store(&a->between, true);
			ages = atomic_exchange(&a->told, ages);
		}
	}
	os_mutex_unlock(&r->lock);
	ages_free(ages);
	if (rc < 0)
		refused(r, d, rc);
}

/* ---- sums
 * ---------------------------------------------------------------------------------------- */

static void sum_up(struct run *r, uint64_t now)
{
	struct auto_run *a = &r->automatic;
	double seconds = (double)(now - a->sum_ns) / 1e9;
	uint64_t set = 0, away = 0, bare, total;
	int64_t saved, low;

	os_mutex_lock(&r->lock);
	for (struct space *sp = r->spaces; sp; sp = sp->next) {
		set += atomic_load(&sp->cold.working_set);
		away += atomic_load(&sp->cold.away);
	}
	os_mutex_unlock(&r->lock);
	/* One that had ended is not in it any more, and the rate is of what ran. */
	if (set || atomic_load(&r->nspaces))
		atomic_store(&a->working_set, set);
	atomic_store(&a->away, away);
	a->sum_ns = now;
	if (!atomic_load(&r->nspaces))
		return;
	total = run_total(r);
	bare = auto_bare(r);
	a->seconds += seconds;
	a->bare_sum += (double)bare * seconds;
	a->total_sum += (double)total * seconds;
	/* What comes back is counted as out for another moment: one look is none. */
	saved = (int64_t)(bare - total);
	low = saved < a->saved_last ? saved : a->saved_last;
	a->saved_last = saved;
	a->saved_max = low > a->saved_max ? low : a->saved_max;
	if (set) {
		a->set_sum += (double)set * AGENT_PAGE * seconds;
		a->set_seconds += seconds;
	}
}

uint64_t auto_bare(struct run *r)
{
	uint64_t total = run_total(r), own = atomic_load(&r->host_bytes);

	return (total > own ? total - own : 0) + atomic_load(&r->automatic.away) * AGENT_PAGE;
}

double auto_promotion_rate(const struct run *r)
{
	const struct auto_run *a = &r->automatic;

	/* What came back in seconds is no rate a minute. */
	if (a->set_sum <= 0 || a->set_seconds < AUTO_RATE_S)
		return -1;
	/* promotions / (set_seconds / 60) / (set_sum / set_seconds) */
	return (double)atomic_load(&a->promotions) * AGENT_PAGE * 60 / a->set_sum * 100;
}

/* ---- the law
 * ------------------------------------------------------------------------------------- */

/* Of the time that threads waited, the promotions' part. */
static uint64_t wait_us(struct run *r)
{
	uint64_t hist[HIST_BUCKETS], faults = 0;

	for (unsigned b = 0; b < HIST_BUCKETS; b++) {
		hist[b] = atomic_load_explicit(&r->n.fault_hist[b], memory_order_relaxed);
		faults += hist[b];
	}
	if (!faults)
		return 0;
	return (uint64_t)((double)hist_sum_ns(hist) / 1000 *
			  fmin(1, (double)atomic_load(&r->automatic.promotions) / (double)faults));
}

static void step(struct run *r, uint64_t now)
{
	struct auto_run *a = &r->automatic;
	struct auto_in in = {
		.now_ms = now / 1000000,
		.working_set = atomic_load(&a->working_set),
		.promotions = atomic_load(&a->promotions),
		.offloaded = atomic_load(&a->offloaded),
		.returned = atomic_load(&a->returned),
		.wait_us = wait_us(r),
	};

	if (in.wait_us < a->law.last.wait_us) /* a share of a sum: it may fall */
		in.wait_us = a->law.last.wait_us;
	if (a->pressure[0] && os_pressure_read(a->pressure, &in.stall_us) < 0)
		in.stall_us = 0;
	auto_law_spend(&a->law, (double)atomic_exchange(&a->spent_milli, 0) / 1000);
	auto_law_step(&a->law, &in);
	atomic_store(&a->plan_milli, (int64_t)(a->law.plan * 1000));
	atomic_store(&a->cold_ms, auto_law_cold_ms(&a->law));
	atomic_store(&a->chance_ppm, (uint32_t)(auto_law_chance(&a->law) * 1e6));
	atomic_store(&a->wary, a->law.wary);
	atomic_store(&a->stopped, a->law.stopped);
}

static void *watcher(void *arg)
{
	struct run *r = arg;
	struct auto_run *a = &r->automatic;
	struct due due[DUE_MOST];

	while (!atomic_load(&a->stop)) {
		uint64_t now = os_clock_ns();
		unsigned n = list_due(r, now, due);

		for (unsigned i = 0; i < n && !atomic_load(&a->stop); i++)
			look(r, &due[i]);
		now = os_clock_ns();
		sum_up(r, now);
		if (now - a->step_ns >= STEP_NS) {
			a->step_ns = now;
			step(r, now);
		}
		usleep(TICK_US);
	}
	return NULL;
}

int auto_start(struct run *r)
{
	struct auto_run *a = &r->automatic;
	int rc;

	if (!r->opts.automatic)
		return 0;
	rc = ages_begin(getpid()); /* of no use but to see whether it can be had */
	if (rc == -ENOENT)
		return rc;
	auto_law_start(&a->law, r->opts.cold_ms, r->opts.promotions_ppm);
	atomic_store(&a->cold_ms, r->opts.cold_ms);
	a->sum_ns = a->step_ns = os_clock_ns();
	if (os_pressure_find(a->pressure, sizeof(a->pressure)) < 0)
		a->pressure[0] = 0;
	rc = os_thread_create(&a->thread, "tmem-auto", watcher, r);
	a->running = rc == 0;
	return rc;
}

void auto_stop(struct run *r)
{
	struct auto_run *a = &r->automatic;

	if (!a->running)
		return;
	atomic_store(&a->stop, true);
	os_thread_join(a->thread);
	a->running = false;
}

void auto_say(struct run *r)
{
	struct auto_run *a = &r->automatic;
	double rate = auto_promotion_rate(r), mib = 1 << 20;
	char came_back[64];

	if (!r->opts.automatic || a->seconds <= 0 || !atomic_load(&r->n.evicted_pages))
		return;
	if (rate >= 0)
		snprintf(came_back, sizeof(came_back), "promotions %.3f %% a minute", rate);
	else
		snprintf(came_back, sizeof(came_back),
			 "promotions %llu, in too short a time for a rate",
			 (unsigned long long)atomic_load(&a->promotions));
	run_say(r,
		"%.80s held %.0f MiB where it would have held %.0f MiB, on the average of %.0f s; "
		"%s, cold after %.0f s",
		r->opts.argv[0], a->total_sum / a->seconds / mib, a->bare_sum / a->seconds / mib,
		a->seconds, came_back, atomic_load(&a->cold_ms) / 1e3);
}
