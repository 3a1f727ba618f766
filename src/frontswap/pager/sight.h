/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a run looks like while it goes on: its figures, gathered by the host's
 * main thread between its samples, for the report, the panel and the watch for
 * thrashing. Everything here is that thread's; what others write are atomics.
 */
#ifndef TMEM_PAGER_SIGHT_H
#define TMEM_PAGER_SIGHT_H

#include "frontswap/pager/run.h"
#include "frontswap/pager/series.h"
#include "frontswap/pager/thrash.h"

#include <jansson.h>

struct sight {
	bool keeps_series;
	struct series series;
	struct figures now; /* as last gathered */
	uint64_t cpu_at_ns, program_ns, peak_seen;
	struct figures told;  /* to the panel */
	uint64_t slice_at_ns; /* when the last one was looked at */
	struct thrash thrash;
	double waiting;	       /* part of the time, when thrashing was found */
	uint64_t known_at_ns;  /* that it thrashes */
	uint64_t asked_at_ns;  /* what would be enough, last; 0: not yet */
	uint64_t enough_bytes; /* the answer so far */
	uint64_t thrash_at_ns; /* since the start: when it was said; 0: not yet */
};

/* Begin; 0 or -ENOMEM. Afterwards r->sight is there until sight_end(). */
int sight_start(struct run *r) __attribute__((warn_unused_result));
/* A moment has passed: look at what is due. */
void sight_sample(struct run *r, uint64_t now_ns);
/* The last sample. Before the report, when all processes have ended. */
void sight_last(struct run *r);
void sight_end(struct run *r);
/* watch.c: the slice up to now, by s->now. */
void watch_slice(struct run *r, struct sight *s, uint64_t now_ns);
/* At the end: a line for the user when the limit was not held for a tenth of the time. */
void watch_over(struct run *r, const struct sight *s);
/* The series as the report's object of columns; NULL: none is kept, or no memory. */
json_t *sight_series(const struct run *r);

#endif
