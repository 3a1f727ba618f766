/* SPDX-License-Identifier: BSD-2-Clause */
/* Counts of times, by their size: four buckets an octave. Pure; the counts are the caller's. */
#ifndef TMEM_PAGER_HIST_H
#define TMEM_PAGER_HIST_H

#include <stdint.h>

/* Bucket b holds times from hist_low_ns(b) to just below hist_low_ns(b + 1); from 1/4 us on. */
#define HIST_BUCKETS 128

/* The bucket of a time, below HIST_BUCKETS. */
unsigned hist_bucket(uint64_t ns);
/* The least time of a bucket, b <= HIST_BUCKETS. */
uint64_t hist_low_ns(unsigned b);
/*
 * The time, in microseconds, that the part `part` (0..1) of what was counted did not exceed:
 * the upper bound of its bucket. 0 when nothing was counted.
 */
double hist_percentile_us(const uint64_t count[HIST_BUCKETS], double part);
/* All of what was counted together, about: each as the middle of its bucket. Nanoseconds. */
uint64_t hist_sum_ns(const uint64_t count[HIST_BUCKETS]);

#endif
