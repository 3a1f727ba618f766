/* SPDX-License-Identifier: BSD-2-Clause */
/* How far back refaults reach; see refault.h. */
#include "frontswap/pager/refault.h"

/* Ages below 8 have a bucket each; from there on eight an octave. */
unsigned refault_bucket(uint32_t age)
{
	unsigned octave;

	if (age < 8)
		return age;
	octave = 31 - (unsigned)__builtin_clz(age);
	return (octave - 2) * 8 + (age >> (octave - 3) & 7);
}

void refaults_note(struct refaults *rf, uint32_t age)
{
	uint32_t *count = &rf->count[refault_bucket(age)];

	if (*count < UINT32_MAX - REFAULT_WEIGHT)
		*count += REFAULT_WEIGHT;
}

void refaults_fade(struct refaults *rf, uint32_t slices)
{
	for (unsigned b = 0; b < REFAULT_BUCKETS; b++)
		for (uint32_t i = 0; i < slices && i < 64 && rf->count[b]; i++)
			rf->count[b] -= (rf->count[b] + 3) / 4;
}

/* Of the buckets below `end`. */
static uint64_t weight(const struct refaults *rf, unsigned end)
{
	uint64_t sum = 0;

	for (unsigned b = 0; b < end; b++)
		sum += rf->count[b];
	return sum;
}

uint64_t refaults_weight(const struct refaults *rf)
{
	return weight(rf, REFAULT_BUCKETS);
}

/* The rank below which all but left_ppm of the refaults in buckets below `end` are. */
static uint64_t reach(const struct refaults *rf, const uint64_t out[REFAULT_BUCKETS],
		      uint32_t left_ppm, unsigned end)
{
	uint64_t all = weight(rf, end), left = 0, pages = 0;
	unsigned b = end;

	/* From the oldest down: those that may go on happening. */
	while (b > 0 && (left + rf->count[b - 1]) * 1000000 <= all * left_ppm)
		left += rf->count[--b];
	/* The bucket of the next one, and all that left after it. */
	for (unsigned i = 0; i < b; i++)
		pages += out[i];
	return pages;
}

uint64_t refaults_extra(const struct refaults *rf, const uint64_t out[REFAULT_BUCKETS],
			uint32_t left_ppm, uint32_t recent)
{
	unsigned end = refault_bucket(recent);
	uint64_t most = reach(rf, out, left_ppm, REFAULT_BUCKETS);
	uint64_t all = refaults_weight(rf), seen = weight(rf, end);
	double pages;

	/* In the bucket of `recent` are others, too: without it, unless nearly all is there. */
	if (seen < all / 4)
		seen = weight(rf, ++end);
	if (!seen)
		return most;
	pages = (double)reach(rf, out, left_ppm, end) * (double)all / (double)seen;
	return pages < (double)most ? (uint64_t)pages : most;
}
