/* SPDX-License-Identifier: BSD-2-Clause */
/* tmem trace: record what a program asks of memory or of files; look at a trace. */
#include "cli/trace.h"
#include "cli/cli.h"
#include "cli/replay.h"
#include "frontswap/pager/run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define COMMAND "trace"
#define ABOUT                                                                                      \
	"Run PROGRAM and record which pages of files it and its children read, write and map;\n"   \
	"or with --memory which pages of its memory leave and come back under 'tmem run'.\n"       \
	"'tmem replay' says how each eviction policy would have done.\n"                           \
	"\n"                                                                                       \
	"The exit code is PROGRAM's, as 'tmem run' has it."

#pragma weak run_program

struct trace_options {
	const char *out, *info, *make, *codec;
	bool memory, json;
	uint64_t limit;
};

static int record_memory(const struct trace_options *t, char **argv)
{
	struct run_options o = {.codec = t->codec ? t->codec : CLI_RUN_CODEC,
				.cluster = CLI_RUN_CLUSTER,
				.limit_bytes = t->limit,
				.trace = t->out,
				.argv = argv};

	if (!run_program)
		return cli_fail(COMMAND, "--memory: this build has no 'tmem run'");
	if (o.limit_bytes < RUN_LIMIT_MIN)
		return cli_usage(COMMAND, "--limit takes at least %uM",
				 (unsigned)(RUN_LIMIT_MIN >> 20));
	return run_program(&o);
}

/* The file is complete: say so, or what is wrong with it. */
static int complete(struct trace_out *o, const char *path)
{
	int rc = trace_out_close(o);

	if (rc)
		return cli_fail(COMMAND, "%s lacks %" PRIu64 " operations: %s", path, o->lost,
				strerror(-rc));
	return CLI_OK;
}

static int record_files(const struct trace_options *t, char **argv)
{
	static struct trace_out out; /* large */
	char err[200] = "";
	int rc = trace_out_open(&out, t->out), code;

	if (rc)
		return cli_fail(COMMAND, "cannot write %s: %s", t->out, strerror(-rc));
	code = trace_files(&out, argv, err, sizeof(err));
	if (err[0])
		cli_fail(COMMAND, "%s", err);
	rc = complete(&out, t->out);
	if (rc == CLI_OK && !err[0])
		fprintf(stderr, "tmem trace: %" PRIu64 " operations in %s\n", out.records, t->out);
	return code ? code : rc ? 125 : 0;
}

static int make(const struct trace_options *t)
{
	static struct trace_out out;
	int rc = trace_out_open(&out, t->out), made;

	if (rc)
		return cli_fail(COMMAND, "cannot write %s: %s", t->out, strerror(-rc));
	made = trace_make(&out, t->make);
	rc = complete(&out, t->out);
	if (made == -EINVAL)
		return cli_usage(COMMAND,
				 "--make: '%s' is not zipf, loop or scan with :PAGES:OPERATIONS",
				 t->make);
	return made ? cli_fail(COMMAND, "out of memory") : rc;
}

int cmd_trace(int argc, char **argv)
{
	struct trace_options t = {.out = "tmem.trace"};
	const struct cli_option options[] = {
		{"output", 'o', CLI_TEXT, &t.out, "FILE", "default: tmem.trace", 0, 0},
		{"memory", 'm', CLI_FLAG, &t.memory, NULL, "memory under 'tmem run', not files", 0,
		 0},
		{"limit", 'l', CLI_SIZE, &t.limit, "SIZE", "of 'tmem run', with --memory", 0, 0},
		{"codec", 'c', CLI_TEXT, &t.codec, "NAME[:LEVEL]", "of 'tmem run'", 0, 0},
		{"info", 'i', CLI_TEXT, &t.info, "FILE", "say what is in a trace", 0, 0},
		{"make", 0, CLI_TEXT, &t.make, "WHAT",
		 "make a trace up: zipf, loop or scan:PAGES:OPERATIONS", 0, 0},
		{"json", 'J', CLI_FLAG, &t.json, NULL, "print JSON, with --info", 0, 0},
		{0},
	};
	const struct cli_syntax syntax = {COMMAND, "[--] PROGRAM [ARG...]", ABOUT, options, true};
	int operands, code = cli_parse(&syntax, argc, argv, &operands);

	if (code >= 0)
		return code;
	if ((t.info != NULL) + (t.make != NULL) + (operands > 0) != 1)
		return cli_usage(COMMAND, "a program, --info or --make: one of them");
	if (!t.memory && (t.limit || t.codec))
		return cli_usage(COMMAND, "--limit and --codec go with --memory");
	if (t.info)
		return replay_info(COMMAND, t.info, t.json);
	if (t.make)
		return make(&t);
	argv[1 + operands] = NULL;
	if (t.memory && !t.limit)
		return cli_usage(COMMAND, "--memory needs --limit: above it pages leave");
	return t.memory ? record_memory(&t, argv + 1) : record_files(&t, argv + 1);
}
