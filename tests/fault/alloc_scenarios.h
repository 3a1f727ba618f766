/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Scenarios of engine_alloc: each is run with one call after the other made to fail.
 *
 *   alloc_pools.c    hosts, clients, pools, codecs, dictionaries, recompression
 *   alloc_pages.c    pages, clusters, clones, compaction
 *   alloc_short.c    limits, the overflow file, ephemeral and shared pools
 *   alloc_files.c    save, restore, the recorder
 *   alloc_threads.c  several threads; all sorts
 *
 * The making of hosts, clients and pools is the same everywhere, so it fails in those
 * scenarios only that are about it (`whole`). A scenario uses the world's calls, which judge what
 * comes back, and leaves the world for engine_alloc.c to verify, use again, and end.
 */
#ifndef TMEM_TESTS_FAULT_ALLOC_SCENARIOS_H
#define TMEM_TESTS_FAULT_ALLOC_SCENARIOS_H

#include "shim.h"
#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scenario {
	const char *name; /* NULL: the end of a table */
	void (*run)(struct world *w);
	bool whole; /* calls fail from the first on, not only when the world has been started */
};
extern const struct scenario alloc_pools[], alloc_pages[], alloc_short[], alloc_files[],
	alloc_threads[];

extern char overflow_path[];  /* of a file that is empty and nobody's */
extern char save_path[];      /* a name that files may have */
extern uint64_t lz4_baseline; /* bytes of an empty host */

static inline tmem_host_options options(const char *codec)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;

	o.codec = codec;
	return o;
}

static inline void fill(struct world *w, unsigned pool, unsigned object, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		w_put(w, pool, object, i, i % 11 == 5 ? W_SAME : W_TEXT);
}

#endif
