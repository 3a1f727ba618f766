/* SPDX-License-Identifier: BSD-2-Clause */
/* A trial: pages really put into a store of their own, read back, compared, measured. */
#ifndef TMEM_CLI_TRIAL_H
#define TMEM_CLI_TRIAL_H

#include "cli/cli.h"
#include "cli/pages.h"

struct trial {
	/* given */
	const char *codec;    /* NAME[:LEVEL] */
	unsigned cluster;     /* pages compressed together, 1, 4 or 16 */
	double fraction;      /* the part of the pages to take, in whole groups; 0: 1 */
	struct progress *bar; /* advanced by the pages taken, twice; NULL: none */
	/* found */
	uint64_t pages, same_filled;
	uint64_t compressed_bytes; /* sum of zpages */
	uint64_t store_bytes;	   /* all memory of the store: frames, slack, index */
	uint64_t empty_bytes;	   /* of that, what it took before the first page */
	uint64_t raw_pages;	   /* too poor to compress: kept as they are */
	double put_ns, get_ns;	   /* mean of a page, everything included */
};

/* 0, or a negative errno with a line in err; -EIO: what came back differs. */
int trial_run(const struct pages *p, struct trial *t, char *err, size_t errlen)
	__attribute__((warn_unused_result));
/* Pages that a trial with this fraction would take. */
uint64_t trial_pages(const struct pages *p, double fraction);

#endif
