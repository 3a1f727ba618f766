/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem: the command line. One file a subcommand; what they share is here.
 *
 * Exit codes: 0 done; 1 the work failed (one line on stderr says why); 2 the
 * command line was wrong (one line says what). `tmem run` is the exception:
 * it exits as the program did.
 *
 * Everything here runs on the main thread unless a comment says otherwise.
 */
#ifndef TMEM_CLI_CLI_H
#define TMEM_CLI_CLI_H

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* What `tmem run` does when it is not told otherwise; estimate speaks of it. */
#define CLI_RUN_CODEC	"zstd:1"
#define CLI_RUN_CLUSTER 8

/* Subcommands: argv[0] is the subcommand's name. They return the exit code. */
int cmd_run(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_mount(int argc, char **argv);
int cmd_umount(int argc, char **argv);
int cmd_invalidate(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_estimate(int argc, char **argv);
int cmd_trace(int argc, char **argv);
int cmd_replay(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_bench_engine(int argc, char **argv);
int cmd_bench_alloc(int argc, char **argv);
int cmd_bench_index(int argc, char **argv);
int cmd_bench_run(int argc, char **argv);
int cmd_bench_codecs(int argc, char **argv);
int cmd_bench_store(int argc, char **argv);
int cmd_bench_mount(int argc, char **argv);
int cmd_bench_peers(int argc, char **argv);

/* ---- messages -------------------------------------------------------------- */

/* "tmem COMMAND: text" on stderr. Returns CLI_FAILED. */
int cli_fail(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same, with a pointer to --help. Returns CLI_USAGE. */
int cli_usage(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- options --------------------------------------------------------------- */

enum cli_kind {
	CLI_FLAG,      /* bool *: set to true */
	CLI_SIZE,      /* uint64_t *: bytes, 1 or more: "2G", "512MiB", "4096" */
	CLI_SIZE_AUTO, /* the same; or "auto", which is CLI_AUTO */
	CLI_COUNT,     /* unsigned *: min..max */
	CLI_FRACTION,  /* double *: above 0, at most 1: "0.5", "50%" */
	CLI_PERCENT,   /* double *: above 0, at most 100: "25", "25%" */
	CLI_TEXT,      /* const char **: not empty; points into argv */
};

#define CLI_AUTO UINT64_MAX

struct cli_option {
	const char *name; /* without the dashes */
	char letter;	  /* 0: none */
	enum cli_kind kind;
	void *value;
	const char *arg; /* what help calls the argument; NULL for flags */
	const char *help;
	unsigned min, max; /* of CLI_COUNT */
};

struct cli_syntax {
	const char *command;  /* "estimate", "bench engine" */
	const char *operands; /* as in the usage line; "" for none: refused */
	const char *about;    /* what help says under the usage line; several lines allowed */
	const struct cli_option *options; /* ends with name NULL */
	bool stop_at_operand;		  /* what follows the first operand is not ours */
};

/*
 * Parse argv[1..]. --help and -h are known by themselves: help goes to stdout.
 * Operands are moved to the front: argv[1 .. *operands] (operands may be NULL
 * where there are none). A "--" ends the options and is dropped. Returns -1 to
 * go on, or the exit code to leave with.
 */
int cli_parse(const struct cli_syntax *syntax, int argc, char **argv, int *operands)
	__attribute__((warn_unused_result));

/* Plain sizes: digits, a fraction allowed before a unit; K M G T with or without iB or B, all
 * powers of 1024. 0, -EINVAL, or -ERANGE when it does not fit. */
int cli_parse_size(const char *text, uint64_t *bytes) __attribute__((warn_unused_result));
/* A whole number in min..max, decimal. 0, -EINVAL or -ERANGE. */
int cli_parse_count(const char *text, unsigned min, unsigned max, unsigned *out)
	__attribute__((warn_unused_result));
/* A number with an optional %; 0, -EINVAL, or -ERANGE unless 0 < value <= max. */
int cli_parse_number(const char *text, double max, bool percent, double *out)
	__attribute__((warn_unused_result));

/* ---- printing -------------------------------------------------------------- */

#define CLI_TEXT_MAX 32
/* "1.5 GiB", or with exact "1610612736 bytes" is never used: digits alone. Returns buf. */
const char *cli_bytes(char buf[CLI_TEXT_MAX], uint64_t bytes, bool exact);
/* {"version": 1, "command": ...}; the caller's. Never NULL: the process ends when memory does. */
json_t *cli_json(const char *command);
/* Print to stdout with a newline and drop the reference. CLI_OK, or CLI_FAILED when stdout is
 * broken. */
int cli_json_print(json_t *object);
/* Shorthands; a value that is not finite becomes null. */
void cli_json_u64(json_t *object, const char *key, uint64_t value);
void cli_json_real(json_t *object, const char *key, double value);
void cli_json_text(json_t *object, const char *key, const char *value);
/* Flush stdout; CLI_OK, or CLI_FAILED with a line on stderr. */
int cli_flush(const char *command);

/*
 * Close f, which was written to path since errno was set to 0. 0 or -errno: then what is there of
 * an ordinary file is removed.
 */
int cli_close(FILE *f, const char *path) __attribute__((warn_unused_result));
/* Whether both paths lead to the same file, which is there. */
bool cli_same_file(const char *a, const char *b);

/* Median of n > 0 values; reorders them. */
double cli_median(double *values, size_t n);
/* The least number from `from` on (not 0) by which steps round n things come to each of them. */
uint64_t cli_stride(uint64_t n, uint64_t from);

/* ---- progress -------------------------------------------------------------- */

/* A bar on stderr, only when that is a terminal; otherwise all of it does nothing. */
struct progress {
	const char *label;
	uint64_t total, done;
	uint64_t drawn_ns; /* when it was last drawn; 0: never */
	bool on;
};
void progress_start(struct progress *p, const char *label, uint64_t total);
void progress_add(struct progress *p, uint64_t n);
/* Change the label and go on. */
void progress_label(struct progress *p, const char *label);
/* Wipes the bar. Also on every way out. */
void progress_end(struct progress *p);

#endif
