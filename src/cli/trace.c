/* SPDX-License-Identifier: BSD-2-Clause */
/* tmem trace: record what a program asks of memory or of files; look at a trace. */
#include "cli/trace.h"
#include "cli/cli.h"
#include "cli/replay.h"
#include "codec/codec.h"
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

static int unwritable(const char *path, int rc)
{
	return cli_fail(COMMAND, "cannot write %s: %s", path, strerror(-rc));
}

static void say_complete(uint64_t records, const char *path)
{
	fprintf(stderr, "tmem trace: %" PRIu64 " operations in %s\n", records, path);
}

static int record_memory(const struct trace_options *t, char **argv)
{
	static struct trace_out out; /* large */
	uint64_t records = UINT64_MAX;
	struct run_options o = {.codec = t->codec ? t->codec : CLI_RUN_CODEC,
				.cluster = CLI_RUN_CLUSTER,
				.limit_bytes = t->limit,
				.trace = t->out,
				.traced = &records,
				.argv = argv};
	int rc, code;

	/* Whether it can be written: the run opens it anew. */
	rc = trace_out_open(&out, t->out);
	if (rc) {
		unwritable(t->out, rc);
		return 125;
	}
	code = run_program(&o);
	/* 126, 127: the program was not started. What the store left when it died can be read. */
	out.made = out.made && records == UINT64_MAX && code != 125;
	trace_out_abandon(&out, t->out);
	if (records != UINT64_MAX && code != 125)
		say_complete(records, t->out);
	return code;
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

	if (rc) {
		unwritable(t->out, rc);
		return 125;
	}
	code = trace_files(&out, argv, err, sizeof(err));
	if (err[0])
		cli_fail(COMMAND, "%s", err);
	if (!out.begun) { /* nothing ran */
		trace_out_abandon(&out, t->out);
		return code;
	}
	rc = complete(&out, t->out);
	if (rc == CLI_OK && !err[0])
		say_complete(out.records, t->out);
	return code ? code : rc ? 125 : 0;
}

static int make(const struct trace_options *t)
{
	static struct trace_out out;
	struct trace_recipe recipe;
	int rc;

	if (trace_recipe_parse(t->make, &recipe))
		return cli_usage(COMMAND,
				 "--make: '%s' is not zipf, loop or scan with :PAGES:OPERATIONS",
				 t->make);
	rc = trace_out_open(&out, t->out);
	if (rc)
		return unwritable(t->out, rc);
	if (trace_make(&out, &recipe)) {
		trace_out_abandon(&out, t->out);
		return cli_fail(COMMAND, "out of memory");
	}
	return complete(&out, t->out);
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
	struct codec_spec spec;
	char err[600];
	int operands, code = cli_parse(&syntax, argc, argv, &operands);

	if (code >= 0)
		return code;
	if ((t.info != NULL) + (t.make != NULL) + (operands > 0) != 1)
		return cli_usage(COMMAND, "a program, --info or --make: one of them");
	if (!t.memory && (t.limit || t.codec))
		return cli_usage(COMMAND, "--limit and --codec go with --memory");
	if (t.json && !t.info)
		return cli_usage(COMMAND, "--json goes with --info");
	if (t.info)
		return replay_info(COMMAND, t.info, t.json);
	if (t.make)
		return make(&t);
	argv[1 + operands] = NULL;
	if (!t.memory)
		return record_files(&t, argv + 1);
	if (!t.limit)
		return cli_usage(COMMAND, "--memory needs --limit: above it pages leave");
	if (!run_program)
		return cli_fail(COMMAND, "--memory: this build has no 'tmem run'");
	if (t.limit < RUN_LIMIT_MIN)
		return cli_usage(COMMAND, "--limit takes at least %uM",
				 (unsigned)(RUN_LIMIT_MIN >> 20));
	if (t.codec && codec_parse(t.codec, &spec, err, sizeof(err)))
		return cli_usage(COMMAND, "--codec: %s", err);
	return record_memory(&t, argv + 1);
}
