/* SPDX-License-Identifier: BSD-2-Clause */
/* Counts of times, by their size; see hist.h. */
#include "frontswap/pager/hist.h"

#define LEAST_NS 250u

unsigned hist_bucket(uint64_t ns)
{
	uint64_t v = ns / LEAST_NS;
	unsigned octave, quarter;

	if (v == 0)
		return 0;
	octave = 63 - (unsigned)__builtin_clzll(v);
	quarter =
		octave >= 2 ? (unsigned)(v >> (octave - 2)) & 3 : (unsigned)(v << (2 - octave)) & 3;
	octave = octave * 4 + quarter + 1;
	return octave < HIST_BUCKETS ? octave : HIST_BUCKETS - 1;
}

uint64_t hist_low_ns(unsigned b)
{
	unsigned quarters = b ? b - 1 : 0;

	return b == 0 ? 0 : (LEAST_NS * (4ull + quarters % 4) << (quarters / 4)) / 4;
}

double hist_percentile_us(const uint64_t count[HIST_BUCKETS], double part)
{
	uint64_t all = 0, seen = 0;

	for (unsigned b = 0; b < HIST_BUCKETS; b++)
		all += count[b];
	for (unsigned b = 0; b < HIST_BUCKETS; b++) {
		seen += count[b];
		if (all && (double)seen >= part * (double)all)
			return (double)hist_low_ns(b + 1) / 1000;
	}
	return 0;
}

uint64_t hist_sum_ns(const uint64_t count[HIST_BUCKETS])
{
	uint64_t sum = 0;

	for (unsigned b = 0; b < HIST_BUCKETS; b++)
		sum += count[b] * ((hist_low_ns(b) + hist_low_ns(b + 1)) / 2);
	return sum;
}
