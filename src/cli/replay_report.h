/* SPDX-License-Identifier: BSD-2-Clause */
/* What `tmem replay` says: a table, JSON, a plot. */
#ifndef TMEM_CLI_REPLAY_REPORT_H
#define TMEM_CLI_REPLAY_REPORT_H

#include "cli/replay.h"

#define REPORT_POLICIES 8u
#define REPORT_SIZES	12u

struct replay_report {
	const char *path;
	const struct replay_trace *trace;
	bool exact_bytes;
	unsigned npolicies, nsizes;
	uint64_t size[REPORT_SIZES];
	struct replay_result *result; /* npolicies rows of nsizes */
};

static inline struct replay_result *report_at(const struct replay_report *r, unsigned policy,
					      unsigned size)
{
	return &r->result[policy * r->nsizes + size];
}

/* To stdout. Exit codes. */
int report_table(const struct replay_report *r);
int report_json(const struct replay_report *r);
/* 0 or -errno. */
int report_svg(const struct replay_report *r, const char *path) __attribute__((warn_unused_result));

#endif
