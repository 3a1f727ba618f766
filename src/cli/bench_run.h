/* SPDX-License-Identifier: BSD-2-Clause */
/* One program measured in several ways: what bench_run.c finds, for those who print it. */
#ifndef TMEM_CLI_BENCH_RUN_H
#define TMEM_CLI_BENCH_RUN_H

#include "cli/bench_box.h"
#include "cli/cli.h"

#define BENCH_ROUNDS_MAX 100

enum way { BARE, TMEM, ZRAM, ZSWAP, WAYS };
extern const char *const way_name[WAYS];

struct trip { /* one run of one way */
	struct box_run box;
	double service_us; /* 99th percentile that the program told of itself; 0: none */
	/* tmem, from its report; zram and zswap when the total peaked */
	uint64_t reported_peak, held_bytes, held_pages, faults;
	double fault_us; /* tmem: 99th percentile */
};

struct column {
	struct trip run[BENCH_ROUNDS_MAX];
	unsigned runs;
	bool left_out;	   /* by the command line, or for another reason: */
	char why_not[300]; /* "": it was measured */
	bool failed;	   /* it ended otherwise than the bare program did */
	/* zram, zswap */
	uint64_t cgroup_limit; /* that gives the total */
	unsigned search_runs;
	bool search_missed; /* by more than 3 % */
};

struct bench {
	/* given */
	char **argv; /* the program, NULL at the end */
	uint64_t limit_bytes;
	double fraction, timeout_s;
	unsigned rounds, timeout_given;
	const char *codec, *swap_codec, *without;
	bool leave_out[WAYS], json, bytes;
	/* found */
	struct box box;
	struct trip first; /* the bare run that said how much it wants */
	struct column column[WAYS];
	char report[64], figures[64]; /* paths of what tmem run and the program tell */
	bool output_differs;
};

/* The files and the box; CLI_OK, or CLI_FAILED after a line on stderr. bench_close() anyway. */
int bench_open(struct bench *b);
/* Everything away. The exit code: `code`, or what went wrong here, or 128 + a signal. */
int bench_close(struct bench *b, int code);
/* The first bare run; sets limit_bytes by the fraction when it is 0, and the timeout. */
int bench_first(struct bench *b);
/* The searches and rounds for limit_bytes. CLI_OK, or CLI_FAILED after a line on stderr. */
int bench_measure(struct bench *b);

/* Medians of rounds; of a/over for ratios. NAN where nothing was measured. */
double bench_wall(const struct column *c);
double bench_ratio(const struct bench *b, enum way a, enum way over);
double bench_service(const struct column *c);
/* Bytes that hold a page which is out, everything included; NAN. */
double bench_page_bytes(const struct column *c);
uint64_t bench_largest(const struct column *c, size_t offset);
#define BENCH_LARGEST(c, field) bench_largest(c, offsetof(struct trip, field))

/* The table or the JSON of one program; the exit code. */
int bench_run_print(const struct bench *b);
/* bench_suite.c: all programs of a folder. */
int bench_suite(struct bench *b, const char *dir, const char *names, const char *fractions);

#endif
