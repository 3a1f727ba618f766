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
	uint64_t offset, records, lost;
	int error; /* of the first write that failed; then what is added is lost, and counted */
	struct trace_block block;
};
/* Make or empty the file. 0 or -errno. */
int trace_out_open(struct trace_out *o, const char *path) __attribute__((warn_unused_result));
void trace_out_add(struct trace_out *o, const struct trace_op *op);
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

/* A made-up trace: "zipf", "loop", "scan", each with :PAGES:OPERATIONS. 0 or -EINVAL. */
int trace_make(struct trace_out *o, const char *what) __attribute__((warn_unused_result));

#endif
