/* SPDX-License-Identifier: BSD-2-Clause */
/* `tmem trace`: what its sources of operations share. */
#ifndef TMEM_CLI_TRACE_H
#define TMEM_CLI_TRACE_H

#include "trace/format.h"

#include <stdbool.h>
#include <stdint.h>

/* A trace file that one thread writes. */
struct trace_out {
	int fd;
	bool made;    /* the file was not there before */
	bool regular; /* an ordinary file */
	bool begun;   /* what was there before is gone */
	uint64_t offset, records, lost;
	int error; /* of the first write that failed; then what is added is lost, and counted */
	struct trace_block block;
};
/* Open the file, or make it; what is in it stays until trace_out_begin(). 0 or -errno. */
int trace_out_open(struct trace_out *o, const char *path) __attribute__((warn_unused_result));
/* From here on the file is the new trace. Called by itself before the first block is written. */
void trace_out_begin(struct trace_out *o);
void trace_out_add(struct trace_out *o, const struct trace_op *op);
/* Instead of trace_out_close(), before it has begun: what was there stays, what was not is gone. */
void trace_out_abandon(struct trace_out *o, const char *path);
/* Complete the file and close it. 0, or the first error. */
int trace_out_close(struct trace_out *o) __attribute__((warn_unused_result));

/*
 * Run argv and record which pages of files it and all its children read,
 * write and map. Returns the exit code of the program as a shell gives it;
 * 126, 127 when it cannot be run or found, 125 when it cannot be traced, with
 * a line in err. SIGINT and SIGQUIT are the program's, not ours.
 */
int trace_files(struct trace_out *o, char **argv, char *err, size_t errlen)
	__attribute__((warn_unused_result));

/* A made-up trace. */
struct trace_recipe {
	enum trace_kind { TRACE_ZIPF, TRACE_LOOP, TRACE_SCAN } kind;
	uint64_t pages, ops;
};
/* "zipf", "loop", "scan", each with :PAGES:OPERATIONS. 0 or -EINVAL. */
int trace_recipe_parse(const char *what, struct trace_recipe *r)
	__attribute__((warn_unused_result));
/* 0; or -ENOMEM, and then nothing was added. */
int trace_make(struct trace_out *o, const struct trace_recipe *r)
	__attribute__((warn_unused_result));

#endif
