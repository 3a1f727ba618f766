/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The figures of a run over time, in bounded memory.
 *
 * A sample is what happened since the sample before it (counts, a histogram of
 * fault times) and how things were at its end (levels). When SERIES_MAX samples
 * are there, each two neighbours become one and the interval is twice as long
 * from then on: a run of any length has SERIES_MAX / 2 to SERIES_MAX samples
 * (a very short one has fewer), and each of its moments is in exactly one.
 * Nothing is averaged: counts and histograms are added, so that percentiles of
 * a merged sample are those of all its faults.
 *
 *   S1  n <= SERIES_MAX
 *   S2  at[i].end_ns < at[i + 1].end_ns
 *   S3  for each count c:  sum of at[i].count[c] == last.count[c]
 *   S4  for each bucket b: sum of at[i].hist[b]  == last.hist[b], the last bucket's with all above
 *   S5  max of at[i].peak_total == the largest total that was ever told
 *
 * Not thread-safe: it is the sampling thread's. No system calls.
 */
#ifndef TMEM_PAGER_SERIES_H
#define TMEM_PAGER_SERIES_H

#include "frontswap/pager/hist.h"

#include <stdbool.h>
#include <stdint.h>

#define SERIES_MAX	600u
#define SERIES_FIRST_NS (1000000000ull / 64) /* the first interval; doubling makes it 1 s */
#define SERIES_BUCKETS	96u		     /* up to 4 s; in the last what is above */

enum figure_level {
	LEVEL_RESIDENT,
	LEVEL_TOTAL,
	LEVEL_LIMIT,
	LEVEL_STORE,
	LEVEL_COMPRESSED,
	LEVEL_STORED_PAGES,
	/* with --limit auto only; zero else */
	LEVEL_BARE, /* what the program would take by itself */
	LEVEL_WORKING_SET,
	FIGURE_LEVELS
};

enum figure_count {
	COUNT_FAULTS,
	COUNT_FAULTS_STORED,
	COUNT_FAULTS_FRESH,
	COUNT_EVICTED,
	COUNT_PAGES_IN,
	COUNT_REFUSED,
	COUNT_PROMOTIONS, /* with --limit auto only */
	COUNT_OVER_NS,	  /* the total was above the limit */
	COUNT_WAIT_NS,	  /* faults waited, all threads' together */
	COUNT_PROGRAM_NS, /* processor time of the program */
	COUNT_OWN_NS,	  /* processor time of the host process */
	FIGURE_COUNTS
};

/* What each is called in the report. Those of counts in nanoseconds end in _s: divide. */
extern const char *const figure_level_name[FIGURE_LEVELS];
extern const char *const figure_count_name[FIGURE_COUNTS];
bool figure_count_is_time(enum figure_count c);

/* How things are at a moment: levels now, counts since the start. */
struct figures {
	uint64_t at_ns; /* since the start */
	uint64_t level[FIGURE_LEVELS];
	uint64_t count[FIGURE_COUNTS];
	uint64_t hist[HIST_BUCKETS]; /* answered faults by time waited */
};

struct series_sample {
	uint64_t end_ns;
	uint64_t peak_total; /* bytes */
	uint64_t level[FIGURE_LEVELS];
	uint64_t count[FIGURE_COUNTS];
	uint32_t hist[SERIES_BUCKETS];
};

struct series {
	struct series_sample *at;
	unsigned n;
	uint64_t interval_ns, peak_total;
	struct figures last;
};

/* Memory for the samples, taken from the system as it is used; 0 or -ENOMEM. */
int series_start(struct series *s) __attribute__((warn_unused_result));
void series_free(struct series *s);
/* The total at some moment, for the peak of the sample that is being taken. */
void series_total(struct series *s, uint64_t bytes);
/* Whether a sample is due. */
bool series_due(const struct series *s, uint64_t at_ns);
/* Take a sample. Not later than the last one (same at_ns): nothing happens. */
void series_add(struct series *s, const struct figures *now);
/* A percentile of a sample's fault times in microseconds; negative: there were none. */
double series_percentile_us(const struct series_sample *s, double part);
/* Check S1 to S5 (S5 against peak_total); stops the process when one is broken. */
void series_verify(const struct series *s, uint64_t peak_total);

#endif
