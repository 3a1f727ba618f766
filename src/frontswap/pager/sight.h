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

#include <jansson.h>

struct sight {
	bool keeps_series;
	struct series series;
	struct figures now; /* as last gathered */
	uint64_t cpu_at_ns, program_ns, peak_seen;
};

/* Begin; 0 or -ENOMEM. Afterwards r->sight is there until sight_end(). */
int sight_start(struct run *r) __attribute__((warn_unused_result));
/* A moment has passed: look at what is due. */
void sight_sample(struct run *r, uint64_t now_ns);
/* The last sample. Before the report, when all processes have ended. */
void sight_last(struct run *r);
void sight_end(struct run *r);
/* The series as the report's object of columns; NULL: none is kept, or no memory. */
json_t *sight_series(const struct run *r);

#endif
