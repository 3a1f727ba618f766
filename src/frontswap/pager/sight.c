/* SPDX-License-Identifier: BSD-2-Clause */
/* The figures of a run while it goes on; see sight.h. */
#include "frontswap/pager/sight.h"

#include "frontswap/pager/live.h"

#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define CPU_NS		 100000000ull /* how often many processes are asked for their time */
#define FEW_SPACES	 16u
#define DECIMALS(x)	 ((double)(int64_t)((x)*1e6 + 0.5) / 1e6)
#define REAL_SECONDS(ns) DECIMALS((double)(ns) / 1e9)

/* ---- gathering --------------------------------------------------------------------------- */

static uint64_t clock_of(clockid_t clock)
{
	struct timespec t;

	return clock_gettime(clock, &t) == 0 ? (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec
					     : 0;
}

/* Processor time of all processes, those that have ended included (but for their last moment). */
static void program_time(struct run *r, struct sight *s, uint64_t now)
{
	if (atomic_load(&r->nspaces) > FEW_SPACES && now - s->cpu_at_ns < CPU_NS)
		return;
	s->cpu_at_ns = now;
	os_mutex_lock(&r->lock);
	for (struct space *sp = r->spaces; sp; sp = sp->next) {
		pid_t pid = atomic_load(&sp->pid);
		clockid_t clock;
		uint64_t ns;

		if (pid <= 0 || clock_getcpuclockid(pid, &clock))
			continue;
		ns = clock_of(clock);
		if (ns > sp->cpu_ns) {
			s->program_ns += ns - sp->cpu_ns;
			sp->cpu_ns = ns;
		}
	}
	os_mutex_unlock(&r->lock);
}

static void gather(struct run *r, struct sight *s, uint64_t now)
{
	struct figures *f = &s->now;
	struct run_counters *n = &r->n;
	tmem_stats st = {.size = sizeof(st)};
	uint64_t own = atomic_load(&r->host_bytes);

	program_time(r, s, now);
	f->at_ns = now - r->start_ns;
	f->level[LEVEL_TOTAL] = run_total(r);
	f->level[LEVEL_RESIDENT] = f->level[LEVEL_TOTAL] > own ? f->level[LEVEL_TOTAL] - own : 0;
	f->level[LEVEL_LIMIT] = r->opts.limit_bytes;
	if (tmem_host_stats(r->host, &st) == 0) {
		f->level[LEVEL_STORE] = st.store_bytes;
		f->level[LEVEL_COMPRESSED] = st.compressed_bytes;
		f->level[LEVEL_STORED_PAGES] = st.pages;
	}
	if (r->opts.automatic) {
		f->level[LEVEL_BARE] = auto_bare(r);
		f->level[LEVEL_WORKING_SET] = atomic_load(&r->automatic.working_set) * AGENT_PAGE;
		f->count[COUNT_PROMOTIONS] = atomic_load(&r->automatic.promotions);
	}
	f->count[COUNT_FAULTS] = atomic_load(&n->faults);
	f->count[COUNT_FAULTS_STORED] = atomic_load(&n->faults_stored);
	f->count[COUNT_FAULTS_FRESH] = atomic_load(&n->faults_fresh);
	f->count[COUNT_EVICTED] = atomic_load(&n->evicted_pages);
	f->count[COUNT_PAGES_IN] = atomic_load(&n->pages_in);
	f->count[COUNT_REFUSED] = atomic_load(&n->refused_pages);
	f->count[COUNT_OVER_NS] = atomic_load(&r->over_ns);
	for (unsigned b = 0; b < HIST_BUCKETS; b++)
		f->hist[b] = atomic_load_explicit(&n->fault_hist[b], memory_order_relaxed);
	f->count[COUNT_WAIT_NS] = hist_sum_ns(f->hist);
	f->count[COUNT_PROGRAM_NS] = s->program_ns;
	f->count[COUNT_OWN_NS] = clock_of(CLOCK_PROCESS_CPUTIME_ID);
}

/* The total now; and a peak between our looks, which the pagers' accounts have seen. */
static void look_at_total(struct run *r, struct sight *s)
{
	uint64_t peak = atomic_load(&r->peak_total);

	series_total(&s->series, peak > s->peak_seen ? peak : run_total(r));
	s->peak_seen = peak;
}

/* The panel's figures: levels as they are, the others since it was told last. */
static void tell(struct run *r, struct sight *s, struct live_board *b)
{
	const struct figures *f = &s->now, *last = &s->told;
	uint64_t ns = f->at_ns - last->at_ns, hist[HIST_BUCKETS];
	uint64_t v[LIVE_FIGURES] = {
		[LIVE_AT_NS] = f->at_ns,
		[LIVE_LIMIT] = f->level[LEVEL_LIMIT],
		[LIVE_TOTAL] = f->level[LEVEL_TOTAL],
		[LIVE_RESIDENT] = f->level[LEVEL_RESIDENT],
		[LIVE_STORE] = f->level[LEVEL_STORE],
		[LIVE_STORED_PAGES] = f->level[LEVEL_STORED_PAGES],
		[LIVE_COMPRESSED] = f->level[LEVEL_COMPRESSED],
		[LIVE_BARE] = f->level[LEVEL_BARE],
		[LIVE_OVER] = f->count[COUNT_OVER_NS] > last->count[COUNT_OVER_NS],
	};

	if (!ns)
		return;
	if (r->opts.automatic) {
		double rate = auto_promotion_rate(r);

		v[LIVE_COLD_MS] = atomic_load(&r->automatic.cold_ms);
		v[LIVE_PROMOTIONS_PPM] = rate < 0 ? LIVE_UNKNOWN : (uint64_t)(rate * 10000);
	}
	v[LIVE_FAULTS] = (f->count[COUNT_FAULTS] - last->count[COUNT_FAULTS]) * 1000000000 / ns;
	v[LIVE_WAITING] = (f->count[COUNT_WAIT_NS] - last->count[COUNT_WAIT_NS]) * 1000 / ns;
	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		hist[i] = f->hist[i] - last->hist[i];
	v[LIVE_P99_NS] = (uint64_t)(hist_percentile_us(hist, 0.99) * 1000);
	for (unsigned i = 0; i < LIVE_FIGURES; i++)
		atomic_store(&b->figure[i], v[i]);
	s->told = *f;
}

/* ---- life --------------------------------------------------------------------------------- */

int sight_start(struct run *r)
{
	struct sight *s = os_zalloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->keeps_series = r->opts.report && strcmp(r->opts.report, "-");
	if (s->keeps_series && series_start(&s->series) < 0) {
		os_free(s);
		return -ENOMEM;
	}
	s->slice_at_ns = s->thrash.last.at_ns = r->start_ns;
	r->sight = s;
	return 0;
}

void sight_sample(struct run *r, uint64_t now_ns)
{
	struct sight *s = r->sight;
	uint64_t at = now_ns - r->start_ns;
	bool slice = now_ns - s->slice_at_ns >= THRASH_SLICE_NS, sample = false;
	/* Not of a program that has ended: it has nothing. */
	bool panel = r->opts.board && at - s->told.at_ns >= LIVE_MS * 1000000ull &&
		     !atomic_load(&r->program_over);

	if (s->keeps_series) {
		look_at_total(r, s);
		sample = series_due(&s->series, at);
	}
	if (slice || sample || panel)
		gather(r, s, now_ns);
	if (panel)
		tell(r, s, r->opts.board);
	if (sample)
		series_add(&s->series, &s->now);
	if (slice) {
		s->slice_at_ns = now_ns;
		watch_slice(r, s, now_ns);
	}
}

void sight_last(struct run *r)
{
	struct sight *s = r->sight;

	gather(r, s, os_clock_ns());
	watch_over(r, s);
	auto_say(r);
	if (!s->keeps_series)
		return;
	look_at_total(r, s);
	series_add(&s->series, &s->now);
}

void sight_end(struct run *r)
{
	if (!r->sight)
		return;
	series_free(&r->sight->series);
	os_free(r->sight);
	r->sight = NULL;
}

/* ---- the report ---------------------------------------------------------------------------- */

static json_t *integer(uint64_t v)
{
	return json_integer((json_int_t)v);
}

static json_t *percentile(const struct series_sample *p, double part)
{
	double us = series_percentile_us(p, part);

	return us < 0 ? json_null() : json_real(us);
}

json_t *sight_series(const struct run *r)
{
	const struct sight *s = r->sight;
	json_t *all, *t, *peak, *p50, *p99;

	if (!s || !s->keeps_series || !(all = json_object()))
		return NULL;
	json_object_set_new(all, "t_s", t = json_array());
	json_object_set_new(all, "peak_total_bytes", peak = json_array());
	for (unsigned l = 0; l < FIGURE_LEVELS; l++)
		json_object_set_new(all, figure_level_name[l], json_array());
	for (unsigned c = 0; c < FIGURE_COUNTS; c++)
		json_object_set_new(all, figure_count_name[c], json_array());
	json_object_set_new(all, "fault_us_p50", p50 = json_array());
	json_object_set_new(all, "fault_us_p99", p99 = json_array());
	for (unsigned i = 0; i < s->series.n; i++) {
		const struct series_sample *p = &s->series.at[i];

		json_array_append_new(t, json_real(REAL_SECONDS(p->end_ns)));
		json_array_append_new(peak, integer(p->peak_total));
		for (unsigned l = 0; l < FIGURE_LEVELS; l++)
			json_array_append_new(json_object_get(all, figure_level_name[l]),
					      integer(p->level[l]));
		for (unsigned c = 0; c < FIGURE_COUNTS; c++)
			json_array_append_new(json_object_get(all, figure_count_name[c]),
					      figure_count_is_time(c)
						      ? json_real(REAL_SECONDS(p->count[c]))
						      : integer(p->count[c]));
		json_array_append_new(p50, percentile(p, 0.50));
		json_array_append_new(p99, percentile(p, 0.99));
	}
	if (!r->opts.automatic) {
		json_object_del(all, figure_level_name[LEVEL_BARE]);
		json_object_del(all, figure_level_name[LEVEL_WORKING_SET]);
		json_object_del(all, figure_count_name[COUNT_PROMOTIONS]);
	}
	return all;
}
