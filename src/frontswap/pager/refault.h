/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How far back refaults reach, and how much more memory they say is wanted.
 *
 * The idea is that of shadow entries: a page that leaves notes the eviction
 * clock, and when it is wanted again, its *age* is how many pages have left
 * since. Ages count a page as often as it left; what is asked for here is how
 * many different pages were in front of it: its *rank* among the pages that are
 * out now, the one that left last being first. With that many pages more in
 * memory it would still have been there, if those stay that were used last.
 *
 *     ages of refaults              pages that are out, by age
 *     |      #                      |#
 *     |     ###                     |###                     rank of an age:
 *     |    ######                   |########                all to the left of it
 *     +-----------> age             +-----------> age
 *
 * Ranks by order would need a tree that every eviction changes. Both sides are
 * counted in buckets of age instead (an eighth of an octave), the refaults as
 * they come, the pages that are out once, when somebody asks. Old refaults fade:
 * each slice of time takes a quarter of the counts.
 *
 * A program that turns to something it has not used for long refaults, once for
 * each of its pages, from as far back as can be: these ages say nothing of what
 * it works on now. Only refaults of pages that have left since it began to stall
 * do (`recent`); but the others are pages of the same set that were not seen a
 * second time yet. So, as one estimates how many kinds there are from how often
 * new ones are met, the rank that the recent ones reach is divided by their part
 * of all. For a set used at random that is what it should be; for one
 * used in turn it is too much, by a tenth when nine of ten are recent.
 *
 * Pure: no locks, no calls. A space's own thread uses its own.
 */
#ifndef TMEM_PAGER_REFAULT_H
#define TMEM_PAGER_REFAULT_H

#include <stdint.h>

#define REFAULT_BUCKETS 256u /* of ages up to 2^32 */
#define REFAULT_WEIGHT	64u  /* what one refault counts before it fades */

struct refaults {
	uint32_t count[REFAULT_BUCKETS]; /* by age, fading */
	uint32_t slice;			 /* they have faded for */
	uint32_t stall;			 /* of the run, that `since` belongs to */
	uint32_t since;			 /* eviction clock when it began */
	uint32_t answered;		 /* question */
};

/* The bucket of an age, below REFAULT_BUCKETS; larger ages are in no lower bucket. */
unsigned refault_bucket(uint32_t age);
void refaults_note(struct refaults *rf, uint32_t age);
/* `slices` slices of time have passed. */
void refaults_fade(struct refaults *rf, uint32_t slices);
/* Weight of all that is counted: REFAULT_WEIGHT each, as far as it has not faded. */
uint64_t refaults_weight(const struct refaults *rf);
/*
 * How many pages more would have kept all but `left_ppm` millionths of the refaults from
 * happening. out[b]: pages that are out now, by the bucket of their age. recent: the age of a
 * page that left when the stall began. 0 when nothing is counted.
 */
uint64_t refaults_extra(const struct refaults *rf, const uint64_t out[REFAULT_BUCKETS],
			uint32_t left_ppm, uint32_t recent);

#endif
