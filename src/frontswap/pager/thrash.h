/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether a program thrashes: waits for its own pages more than it computes,
 * pages that left only moments before.
 *
 * The run is cut into slices of half a second. A slice is *stalled* when
 *
 *   T1  the threads waited for faults at least as long as they computed,
 *   T2  and for a quarter of the time at least (all threads' waits together):
 *       a program that sleeps is not told that it waits for memory,
 *   T3  and half of the faults or more, and MANY a second, were refaults.
 *
 * A stall is a run of stalled slices, two others in a row end it. That alone is
 * no thrashing: who reads through what he built an hour ago waits as well, once.
 * It is when it lasts, and what comes back is what left since it began:
 *
 *   T4  the stall is LONG,
 *   T5  and of the last slice's refaults nine in ten were of pages that left
 *       during the stall; or three in four, when the stall is VERY_LONG.
 *
 * The larger the set in use, the longer until T5 can be seen; it is not
 * guessed. Not told apart from thrashing is a program that works through its
 * memory again and again, and would in any order: it is told as well, rightly.
 *
 * Pure: no clock, no calls.
 */
#ifndef TMEM_PAGER_THRASH_H
#define TMEM_PAGER_THRASH_H

#include <stdbool.h>
#include <stdint.h>

#define THRASH_SLICE_NS	    500000000ull
#define THRASH_MANY	    50u /* refaults a second */
#define THRASH_LONG_NS	    5000000000ull
#define THRASH_VERY_LONG_NS 15000000000ull

/* All since the start of the run. */
struct thrash_figures {
	uint64_t at_ns, wait_ns, program_ns;
	uint64_t faults, refaults;
	uint64_t recent; /* refaults of pages that left since the stall began */
};

struct thrash {
	struct thrash_figures last, began; /* `began`: at the start of the stall */
	bool stalled;
	unsigned calm; /* slices that were not, since the last that was */
};

enum thrash_verdict {
	THRASH_NO,
	THRASH_BEGINS, /* a stall: from now on refaults are recent or not */
	THRASH_GOES_ON,
	THRASH_YES,
};

/* The slice up to `now`. At least THRASH_SLICE_NS after the one before. */
enum thrash_verdict thrash_slice(struct thrash *t, const struct thrash_figures *now);
/* Of the stall so far: which part of the time that they waited or computed threads waited. */
double thrash_waiting(const struct thrash *t);
/*
 * How many millionths of the refaults may stay so that, with all else as it is, waiting is a
 * quarter of the time that they wait or compute: a program that was told is not told again.
 */
uint32_t thrash_left_ppm(const struct thrash *t);

/* What is known when somebody asks for a limit that would be enough. */
struct thrash_memory {
	uint64_t limit, total, store; /* bytes */
	uint64_t stored_pages;	      /* in the store; those that are out, and copies of others */
	uint64_t out_pages, extra_pages;
	unsigned cluster; /* pages stored together */
};
/*
 * The limit, in bytes, a multiple of 1 MiB: the total now, the extra pages, without what then goes
 * from the store, and the pager's own margins. Above the limit now.
 */
uint64_t thrash_enough(const struct thrash_memory *m);

#endif
