/* SPDX-License-Identifier: BSD-2-Clause */
/* The figures of a run over time; see series.h. */
#include "frontswap/pager/series.h"

#include "os/check.h"
#include "os/mem.h"

#include <errno.h>
#include <string.h>

#define FRAMES_OF(bytes) (((bytes) + OS_FRAME_SIZE - 1) & ~(OS_FRAME_SIZE - 1))
#define SAMPLES_BYTES	 FRAMES_OF(SERIES_MAX * sizeof(struct series_sample))

const char *const figure_level_name[FIGURE_LEVELS] = {
	[LEVEL_RESIDENT] = "resident_bytes",
	[LEVEL_TOTAL] = "total_bytes",
	[LEVEL_LIMIT] = "limit_bytes",
	[LEVEL_STORE] = "store_bytes",
	[LEVEL_COMPRESSED] = "compressed_bytes",
	[LEVEL_STORED_PAGES] = "stored_pages",
	[LEVEL_BARE] = "bare_bytes",
	[LEVEL_WORKING_SET] = "working_set_bytes",
};

const char *const figure_count_name[FIGURE_COUNTS] = {
	[COUNT_FAULTS] = "faults",
	[COUNT_FAULTS_STORED] = "faults_stored",
	[COUNT_FAULTS_FRESH] = "faults_fresh",
	[COUNT_EVICTED] = "evicted_pages",
	[COUNT_PAGES_IN] = "pages_in",
	[COUNT_REFUSED] = "refused_pages",
	[COUNT_PROMOTIONS] = "promotions",
	[COUNT_OVER_NS] = "over_limit_s",
	[COUNT_WAIT_NS] = "fault_wait_s",
	[COUNT_PROGRAM_NS] = "program_cpu_s",
	[COUNT_OWN_NS] = "tmem_cpu_s",
};

bool figure_count_is_time(enum figure_count c)
{
	return c >= COUNT_OVER_NS;
}

int series_start(struct series *s)
{
	memset(s, 0, sizeof(*s));
	s->interval_ns = SERIES_FIRST_NS;
	s->at = os_reserve(SAMPLES_BYTES);
	return s->at ? 0 : -ENOMEM;
}

void series_free(struct series *s)
{
	if (s->at)
		os_unreserve(s->at, SAMPLES_BYTES);
	s->at = NULL;
	s->n = 0;
}

void series_total(struct series *s, uint64_t bytes)
{
	if (bytes > s->peak_total)
		s->peak_total = bytes;
}

bool series_due(const struct series *s, uint64_t at_ns)
{
	return at_ns - s->last.at_ns >= s->interval_ns;
}

/* What `b` says, the later one, joins `a`. */
static void join(struct series_sample *a, const struct series_sample *b)
{
	a->end_ns = b->end_ns;
	if (b->peak_total > a->peak_total)
		a->peak_total = b->peak_total;
	memcpy(a->level, b->level, sizeof(a->level));
	for (unsigned c = 0; c < FIGURE_COUNTS; c++)
		a->count[c] += b->count[c];
	for (unsigned h = 0; h < SERIES_BUCKETS; h++)
		a->hist[h] += b->hist[h];
}

/* Half as many samples, each twice as long. */
static void thin(struct series *s)
{
	for (unsigned i = 0; i < SERIES_MAX / 2; i++) {
		s->at[i] = s->at[2 * i];
		join(&s->at[i], &s->at[2 * i + 1]);
	}
	s->n = SERIES_MAX / 2;
	s->interval_ns *= 2;
}

void series_add(struct series *s, const struct figures *now)
{
	struct series_sample *to;

	if (now->at_ns <= s->last.at_ns)
		return;
	if (s->n == SERIES_MAX)
		thin(s);
	tmem_assert(S1, s->n < SERIES_MAX);
	to = &s->at[s->n++];
	memset(to, 0, sizeof(*to));
	to->end_ns = now->at_ns;
	series_total(s, now->level[LEVEL_TOTAL]);
	to->peak_total = s->peak_total;
	s->peak_total = 0;
	memcpy(to->level, now->level, sizeof(to->level));
	for (unsigned c = 0; c < FIGURE_COUNTS; c++)
		to->count[c] = now->count[c] - s->last.count[c];
	for (unsigned h = 0; h < HIST_BUCKETS; h++)
		to->hist[h < SERIES_BUCKETS ? h : SERIES_BUCKETS - 1] +=
			(uint32_t)(now->hist[h] - s->last.hist[h]);
	s->last = *now;
}

double series_percentile_us(const struct series_sample *s, double part)
{
	uint64_t wide[HIST_BUCKETS] = {0}, all = 0;

	for (unsigned h = 0; h < SERIES_BUCKETS; h++)
		all += wide[h] = s->hist[h];
	return all ? hist_percentile_us(wide, part) : -1;
}

void series_verify(const struct series *s, uint64_t peak_total)
{
	uint64_t peak = s->peak_total, above = 0;

	tmem_must(s->n <= SERIES_MAX); /* S1 */
	for (unsigned i = 0; i < s->n; i++) {
		tmem_must(i == 0 || s->at[i - 1].end_ns < s->at[i].end_ns); /* S2 */
		if (s->at[i].peak_total > peak)
			peak = s->at[i].peak_total;
	}
	tmem_must(peak == peak_total); /* S5 */
	for (unsigned c = 0; c < FIGURE_COUNTS; c++) {
		uint64_t sum = 0;

		for (unsigned i = 0; i < s->n; i++)
			sum += s->at[i].count[c];
		tmem_must(sum == s->last.count[c]); /* S3 */
	}
	for (unsigned h = 0; h < HIST_BUCKETS; h++) {
		uint64_t sum = 0;

		if (h >= SERIES_BUCKETS - 1)
			above += s->last.hist[h];
		for (unsigned i = 0; h < SERIES_BUCKETS && i < s->n; i++)
			sum += s->at[i].hist[h];
		if (h < SERIES_BUCKETS - 1)
			tmem_must(sum == s->last.hist[h]); /* S4 */
		else if (h == SERIES_BUCKETS - 1)
			above -= sum; /* wraps back when the rest comes */
	}
	tmem_must(above == 0); /* S4 */
}
