/* SPDX-License-Identifier: BSD-2-Clause */
/* tmem replay: a trace against eviction policies, at several sizes of the store. */
#include "cli/replay.h"
#include "cli/cli.h"
#include "cli/pages.h"
#include "cli/replay_report.h"
#include "codec/codec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tmem/tmem.h>

#define COMMAND "replay"
#define ABOUT                                                                                      \
	"Run the operations of a trace (see 'tmem trace') through a store of each size with "      \
	"each\n"                                                                                   \
	"eviction policy, and say how often pages were found. Policies of the store: lru, "        \
	"s3fifo.\n"                                                                                \
	"model:NAME is a policy over page numbers with no store behind it: fifo, lru, s3fifo, "    \
	"and\n"                                                                                    \
	"opt (also without model:), which knows the future: the bound. Every page that the "       \
	"store\n"                                                                                  \
	"gives back is compared with what was put."

#define POLICIES "lru,s3fifo,opt"
#define LEAST	 (1ull << 20) /* of the sizes that are chosen here */

struct replay {
	const char *policies, *sizes, *svg, *pages_file, *codec;
	bool json, bytes, maps, info, model;
	struct replay_trace trace;
	struct pages pages;
	uint32_t *next_use;
	struct replay_report report;
};

static struct progress bar;

static void step(uint64_t events)
{
	progress_add(&bar, events);
}

/* ---- lists ------------------------------------------------------------------- */

/* Cut text at commas; how many, or -1: too many, or an empty one. */
static int split(char *text, char *part[], unsigned most)
{
	unsigned n = 0;

	for (char *p = text; p; n++) {
		char *end = strchr(p, ',');

		if (n == most || *p == ',' || !*p)
			return -1;
		part[n] = p;
		if (end)
			*end++ = '\0';
		p = end;
	}
	return (int)n;
}

/* The model that a policy's name stands for, or NULL: it is the store's. */
static const struct replay_model *model_of(const struct replay *r, const char *name)
{
	if (!strncmp(name, "model:", 6))
		return replay_model_find(name + 6);
	return r->model || !strcmp(name, "opt") ? replay_model_find(name) : NULL;
}

static int choose_sizes(struct replay *r, char *list)
{
	static const unsigned sixteenths[] = {1, 2, 4, 6, 8, 12};
	struct replay_report *o = &r->report;
	char *part[REPORT_SIZES];
	int n = list ? split(list, part, REPORT_SIZES) : 0;

	if (n < 0)
		return cli_usage(COMMAND, "--size: 1 to %u sizes, with commas between",
				 REPORT_SIZES);
	for (int i = 0; i < n; i++)
		if (cli_parse_size(part[i], &o->size[i]) || o->size[i] == 0)
			return cli_usage(COMMAND, "--size: '%s' is not a size such as 64M",
					 part[i]);
	o->nsizes = (unsigned)n;
	if (list)
		return CLI_OK;
	for (unsigned i = 0; i < sizeof(sixteenths) / sizeof(sixteenths[0]); i++) {
		uint64_t size = r->trace.footprint / 16 * sixteenths[i] & ~4095ull;

		if (size >= LEAST)
			o->size[o->nsizes++] = size;
	}
	if (o->nsizes == 0)
		o->size[o->nsizes++] = LEAST;
	return CLI_OK;
}

/* Before anything runs, so that a wrong name is not found after an hour. */
static int check_policies(struct replay *r, char *const *policy, int n)
{
	for (int i = 0; i < n; i++) {
		tmem_host_options o = TMEM_HOST_OPTIONS;
		tmem_host *h;
		char err[160];
		int rc;

		if (model_of(r, policy[i]))
			continue;
		if (r->model || !strncmp(policy[i], "model:", 6))
			return cli_usage(COMMAND, "the model has no policy '%s'; known: %s",
					 policy[i], replay_model_names());
		o.policy = policy[i];
		rc = tmem_host_create(&o, &h, err, sizeof(err));
		tmem_host_destroy(h);
		if (rc)
			return cli_usage(COMMAND, "%s, opt, model:NAME", err);
	}
	return CLI_OK;
}

/* ---- running ----------------------------------------------------------------- */

static int run_one(struct replay *r, const char *policy, uint64_t size, struct replay_result *out)
{
	const struct replay_model *m = model_of(r, policy);
	char err[200] = "";
	int rc;

	if (m) {
		rc = replay_model_run(m, &r->trace, r->next_use, size, out, step);
		snprintf(err, sizeof(err), "out of memory");
	} else {
		rc = replay_engine_run(policy, r->codec, &r->trace,
				       r->pages.count ? r->pages.data : NULL, r->pages.count, size,
				       out, step, err, sizeof(err));
	}
	snprintf(out->policy, sizeof(out->policy), "%s", policy);
	return rc ? cli_fail(COMMAND, "%s at %llu bytes: %s", policy, (unsigned long long)size, err)
		  : CLI_OK;
}

static int run_all(struct replay *r, char *const *policy, unsigned n)
{
	struct replay_report *o = &r->report;
	int code = CLI_OK;

	o->result = calloc((size_t)n * o->nsizes, sizeof(*o->result));
	r->next_use = replay_next_use(&r->trace);
	if (!o->result || !r->next_use)
		return cli_fail(COMMAND, "out of memory");
	o->npolicies = n;
	progress_start(&bar, policy[0], r->trace.nevents * n * o->nsizes);
	for (unsigned i = 0; i < n && code == CLI_OK; i++) {
		progress_label(&bar, policy[i]);
		for (unsigned k = 0; k < o->nsizes && code == CLI_OK; k++)
			code = run_one(r, policy[i], o->size[k], report_at(o, i, k));
	}
	progress_end(&bar);
	return code;
}

static int read_pages(struct replay *r)
{
	char *path[] = {(char *)(uintptr_t)r->pages_file};
	struct pages_want want = {0};
	char err[256];

	if (!r->pages_file)
		return CLI_OK;
	if (pages_from_files(path, 1, &want, &r->pages, err, sizeof(err)))
		return cli_fail(COMMAND, "%s", err);
	return CLI_OK;
}

static int print(struct replay *r, const char *path)
{
	int rc = CLI_OK;

	r->report.trace = &r->trace;
	r->report.path = path;
	r->report.exact_bytes = r->bytes;
	if (r->json)
		rc = report_json(&r->report);
	else
		rc = report_table(&r->report);
	if (rc == CLI_OK && r->svg) {
		int err = report_svg(&r->report, r->svg);

		if (err)
			rc = cli_fail(COMMAND, "cannot write %s: %s", r->svg, strerror(-err));
	}
	return rc;
}

static int replay(struct replay *r, const char *path)
{
	char *policy[REPORT_POLICIES], *policies = strdup(r->policies);
	char *sizes = r->sizes ? strdup(r->sizes) : NULL, err[200];
	int n = -1, code = CLI_FAILED;

	if (!policies || (r->sizes && !sizes))
		goto out;
	n = split(policies, policy, REPORT_POLICIES);
	code = n > 0 ? check_policies(r, policy, n)
		     : cli_usage(COMMAND, "--policy: 1 to %u names, with commas between",
				 REPORT_POLICIES);
	if (code != CLI_OK)
		goto out;
	if (replay_load(path, r->maps, &r->trace, err, sizeof(err)))
		code = cli_fail(COMMAND, "%s %s", path, err);
	else if (r->trace.asks == 0)
		code = cli_fail(COMMAND, "%s asks for no page: there is nothing to replay", path);
	else
		code = choose_sizes(r, sizes);
	if (code == CLI_OK)
		code = read_pages(r);
	if (code == CLI_OK)
		code = run_all(r, policy, (unsigned)n);
	if (code == CLI_OK)
		code = print(r, path);
out:
	free(r->next_use);
	free(r->report.result);
	if (r->pages.data)
		pages_free(&r->pages);
	replay_free(&r->trace);
	free(policies);
	free(sizes);
	return code;
}

int cmd_replay(int argc, char **argv)
{
	static struct replay r = {.policies = POLICIES};
	const struct cli_option options[] = {
		{"policy", 'p', CLI_TEXT, &r.policies, "P,...", "default: " POLICIES, 0, 0},
		{"size", 's', CLI_TEXT, &r.sizes, "SIZE,...",
		 "of the store; default: parts of what all pages would take", 0, 0},
		{"model", 'm', CLI_FLAG, &r.model, NULL, "all policies by the model", 0, 0},
		{"maps", 0, CLI_FLAG, &r.maps, NULL, "a mapping counts as one reading of it", 0, 0},
		{"codec", 'c', CLI_TEXT, &r.codec, "NAME[:LEVEL]", "default: lz4", 0, 0},
		{"pages", 0, CLI_TEXT, &r.pages_file, "FILE",
		 "contents from a file of pages; default: made to the recorded sizes", 0, 0},
		{"svg", 0, CLI_TEXT, &r.svg, "FILE", "draw hit ratio and memory", 0, 0},
		{"info", 'i', CLI_FLAG, &r.info, NULL, "only say what is in the trace", 0, 0},
		{"json", 'J', CLI_FLAG, &r.json, NULL, "print JSON", 0, 0},
		{"bytes", 'b', CLI_FLAG, &r.bytes, NULL, "exact bytes in the table", 0, 0},
		{0},
	};
	const struct cli_syntax syntax = {COMMAND, "FILE", ABOUT, options, false};
	struct codec_spec spec;
	char err[200];
	int operands, code = cli_parse(&syntax, argc, argv, &operands);

	if (code >= 0)
		return code;
	if (operands != 1)
		return cli_usage(COMMAND, "which trace? One of them");
	if (r.codec && codec_parse(r.codec, &spec, err, sizeof(err)))
		return cli_usage(COMMAND, "--codec: %s", err);
	if (r.svg &&
	    (cli_same_file(r.svg, argv[1]) || (r.pages_file && cli_same_file(r.svg, r.pages_file))))
		return cli_usage(COMMAND, "--svg: '%s' is a file that is to be read", r.svg);
	if (r.info)
		return replay_info(COMMAND, argv[1], r.json);
	return replay(&r, argv[1]);
}
