/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem estimate: what a process or files would take when stored, measured on
 * their own pages: each codec, and pages alone or with their neighbours.
 *
 * "Stored" is not computed: the pages are put into a store and its whole
 * memory is read off, slack of the allocator and index included.
 */
#include "cli/cli.h"
#include "cli/trial.h"
#include "codec/codec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tmem/tmem.h>

#define COMMAND	    "estimate"
#define PAGE	    TMEM_PAGE_SIZE
/* The rows together take about a tenth of a millisecond a page: each row sees at most this much. */
#define TRIAL_BYTES (256ull << 20)

static const unsigned clusters[] = {1, 4, 16};
#define N_CLUSTERS 3
#define MAX_SPECS  (CODEC_MAX + 2)
#define SPEC_TEXT  32

struct estimate {
	bool json, bytes, full;
	double percent;
	uint64_t max_bytes;
	const char *codec, *save;

	struct pages pages;
	uint64_t same_filled; /* of all pages that were read */
	char spec[MAX_SPECS][SPEC_TEXT];
	unsigned n_specs;
	struct trial row[MAX_SPECS * N_CLUSTERS + 1];
	unsigned n_rows;
	const struct trial *run; /* the row of `tmem run`'s default; NULL: not measured */
};

/* ---- measuring ----------------------------------------------------------------------- */

static bool same_spec(const char *a, const char *b)
{
	struct codec_spec x, y;
	char err[256];

	return !codec_parse(a, &x, err, sizeof(err)) && !codec_parse(b, &y, err, sizeof(err)) &&
	       x.codec == y.codec && x.level == y.level;
}

static void add_spec(struct estimate *e, const char *text)
{
	unsigned i;

	if (!same_spec(text, text))
		return; /* a codec this build does not have */
	for (i = 0; i < e->n_specs; i++)
		if (same_spec(e->spec[i], text))
			return;
	snprintf(e->spec[e->n_specs++], SPEC_TEXT, "%s", text);
}

static void list_specs(struct estimate *e)
{
	const struct codec *c;
	unsigned i;

	if (e->codec) {
		add_spec(e, e->codec);
		return;
	}
	for (i = 0; (c = codec_at(i)); i++) {
		char text[SPEC_TEXT];

		if (!strcmp(c->name, "none"))
			continue;
		/* Names without their level read badly once there are several of a codec. */
		if (c->level_min != c->level_max && strcmp(c->name, "lz4"))
			snprintf(text, sizeof(text), "%.20s:%d", c->name, c->level_default);
		else
			snprintf(text, sizeof(text), "%.20s", c->name);
		if (!strcmp(c->name, "zstd"))
			add_spec(e, "zstd:-1");
		add_spec(e, text);
		if (!strcmp(c->name, "zstd"))
			add_spec(e, "zstd:3");
	}
}

/* One more row; remembers it if it is what `tmem run` would do. */
static int add_row(struct estimate *e, const char *spec, unsigned cluster, double fraction,
		   struct progress *bar, char *err, size_t errlen)
{
	struct trial *t = &e->row[e->n_rows];
	int code;

	*t = (struct trial){.codec = spec, .cluster = cluster, .fraction = fraction, .bar = bar};
	code = trial_run(&e->pages, t, err, errlen);
	if (code)
		return code;
	e->n_rows++;
	if (cluster == CLI_RUN_CLUSTER && same_spec(spec, CLI_RUN_CODEC))
		e->run = t;
	return 0;
}

static int measure(struct estimate *e)
{
	uint64_t i, all = e->pages.count * PAGE, word, pages;
	double fraction = e->full || all <= TRIAL_BYTES ? 1 : (double)TRIAL_BYTES / (double)all;
	struct progress bar;
	unsigned s, k;
	char err[256];
	int code = 0;

	for (i = 0; i < e->pages.count; i++)
		e->same_filled += codec_same_filled(e->pages.data + i * PAGE, PAGE, &word);
	pages = trial_pages(&e->pages, fraction);
	if (pages == 0) { /* less than one group in a great many: take them all */
		fraction = 1;
		pages = e->pages.count;
	}
	progress_start(&bar, "measuring", pages * 2 * e->n_specs * N_CLUSTERS);
	for (s = 0; s < e->n_specs && !code; s++) {
		progress_label(&bar, e->spec[s]);
		for (k = 0; k < N_CLUSTERS && !code; k++)
			code = add_row(e, e->spec[s], clusters[k], fraction, &bar, err,
				       sizeof(err));
	}
	/* A default that is not among the rows yet gets one of its own. */
	if (!code && !e->run && !e->codec && e->pages.process)
		code = add_row(e, CLI_RUN_CODEC, CLI_RUN_CLUSTER, fraction, &bar, err, sizeof(err));
	progress_end(&bar);
	return code ? cli_fail(COMMAND, "%s", err) : CLI_OK;
}

/* ---- printing ------------------------------------------------------------------------- */

static double share(uint64_t part, uint64_t whole)
{
	return whole ? (double)part / (double)whole : 0;
}

/* What an empty store takes does not grow with the pages; the rest does. */
static uint64_t run_would_store(const struct estimate *e)
{
	const struct trial *t = e->run;
	double growth = (double)(t->store_bytes - t->empty_bytes);

	return t->empty_bytes + (uint64_t)(growth * share(e->pages.eligible, t->pages));
}

static void print_source(const struct estimate *e)
{
	const struct pages *p = &e->pages;
	char a[CLI_TEXT_MAX], b[CLI_TEXT_MAX];
	int k;

	if (p->process)
		printf("process %d (%s): ", p->pid, p->name);
	else
		printf("%s: ", p->name);
	printf("%s in %" PRIu64 " page%s%s\n", cli_bytes(a, p->eligible * PAGE, e->bytes),
	       p->eligible, p->eligible == 1 ? "" : "s",
	       p->process ? " that could be evicted" : "");
	for (k = 0; k < LEFT_KINDS && p->process; k++)
		if (p->left_out[k])
			printf("  left out: %-36s %12s\n", pages_left_name(k),
			       cli_bytes(a, p->left_out[k] * PAGE, e->bytes));
	if (p->stacks_unknown)
		printf("  the stacks of %u threads could not be told from other memory and are "
		       "in\n",
		       p->stacks_unknown);
	if (p->count < p->eligible)
		printf("  read: %s, an even sample of %.3g %%\n",
		       cli_bytes(a, p->count * PAGE, e->bytes), 100 * share(p->count, p->eligible));
	if (e->n_rows && e->row[0].pages < p->count)
		printf("  measured: %s of what was read, evenly (--full: all)\n",
		       cli_bytes(b, e->row[0].pages * PAGE, e->bytes));
	printf("  same-filled pages: %.1f %% (a word each, in every row)\n\n",
	       100 * share(e->same_filled, p->count));
}

static void print_table(const struct estimate *e)
{
	char a[CLI_TEXT_MAX], b[CLI_TEXT_MAX], c[CLI_TEXT_MAX];
	unsigned i;

	print_source(e);
	printf("%-10s %8s %12s %12s %12s %6s %9s %9s\n", "codec", "together", "original",
	       "compressed", "stored", "ratio", "in us/pg", "out us/pg");
	for (i = 0; i < e->n_rows; i++) {
		const struct trial *t = &e->row[i];

		printf("%-10s %8u %12s %12s %12s %6.2f %9.1f %9.1f\n", t->codec, t->cluster,
		       cli_bytes(a, t->pages * PAGE, e->bytes),
		       cli_bytes(b, t->compressed_bytes, e->bytes),
		       cli_bytes(c, t->store_bytes, e->bytes),
		       share(t->pages * PAGE, t->store_bytes), t->put_ns / 1000, t->get_ns / 1000);
	}
	if (e->run && e->pages.process)
		printf("\ntmem run, at its default (%s, %u pages together), would keep the %s in "
		       "%s if all of it\nwere evicted: it saves %.0f %% of what it evicts.\n",
		       CLI_RUN_CODEC, CLI_RUN_CLUSTER,
		       cli_bytes(a, e->pages.eligible * PAGE, e->bytes),
		       cli_bytes(b, run_would_store(e), e->bytes),
		       100 - 100 * share(run_would_store(e), e->pages.eligible * PAGE));
}

static json_t *row_json(const struct trial *t)
{
	json_t *o = json_object();

	cli_json_text(o, "codec", t->codec);
	cli_json_u64(o, "cluster_pages", t->cluster);
	cli_json_u64(o, "pages", t->pages);
	cli_json_u64(o, "original_bytes", t->pages * PAGE);
	cli_json_u64(o, "same_filled_pages", t->same_filled);
	cli_json_u64(o, "raw_pages", t->raw_pages);
	cli_json_u64(o, "compressed_bytes", t->compressed_bytes);
	cli_json_u64(o, "store_bytes", t->store_bytes);
	cli_json_u64(o, "empty_store_bytes", t->empty_bytes);
	cli_json_real(o, "ratio", share(t->pages * PAGE, t->store_bytes));
	cli_json_real(o, "put_ns", t->put_ns);
	cli_json_real(o, "get_ns", t->get_ns);
	return o;
}

static int print_json(const struct estimate *e)
{
	const struct pages *p = &e->pages;
	json_t *o = cli_json(COMMAND), *rows = json_array(), *left = json_object(), *run;
	unsigned i;
	int k;

	cli_json_text(o, "source", p->process ? "process" : "files");
	cli_json_text(o, "name", p->name);
	if (p->process)
		cli_json_u64(o, "pid", (uint64_t)p->pid);
	cli_json_u64(o, "eligible_pages", p->eligible);
	cli_json_u64(o, "eligible_bytes", p->eligible * PAGE);
	cli_json_u64(o, "read_pages", p->count);
	cli_json_u64(o, "same_filled_pages", e->same_filled);
	for (k = 0; k < LEFT_KINDS; k++)
		cli_json_u64(left, pages_left_key(k), p->left_out[k] * PAGE);
	if (p->process) {
		json_object_set(o, "left_out_bytes", left);
		cli_json_u64(o, "threads_with_unknown_stack", p->stacks_unknown);
	}
	json_decref(left);
	for (i = 0; i < e->n_rows; i++)
		json_array_append_new(rows, row_json(&e->row[i]));
	json_object_set_new(o, "rows", rows);
	if (e->run && p->process) {
		run = json_object();
		cli_json_text(run, "codec", CLI_RUN_CODEC);
		cli_json_u64(run, "cluster_pages", CLI_RUN_CLUSTER);
		cli_json_u64(run, "store_bytes", run_would_store(e));
		cli_json_u64(run, "saved_bytes",
			     run_would_store(e) < p->eligible * PAGE
				     ? p->eligible * PAGE - run_would_store(e)
				     : 0);
		json_object_set_new(o, "tmem_run_default", run);
	}
	return cli_json_print(o);
}

/* ---- the command ------------------------------------------------------------------------ */

static int collect(struct estimate *e, char **operand, int n)
{
	struct pages_want want = {.percent = e->percent, .max_bytes = e->max_bytes};
	char err[512];
	unsigned pid;
	int i, code;

	for (i = 1; i < n && n > 1; i++)
		if (pages_is_pid(operand[i]) || pages_is_pid(operand[0]))
			return cli_usage(COMMAND,
					 "one PID, or files; a file of such a name is ./%s",
					 pages_is_pid(operand[0]) ? operand[0] : operand[i]);
	for (i = 0; e->save && i < n; i++)
		if (!pages_is_pid(operand[i]) && cli_same_file(e->save, operand[i]))
			return cli_usage(COMMAND, "--save: '%s' is a file that is to be read",
					 e->save);
	if (pages_is_pid(operand[0])) {
		if (cli_parse_count(operand[0], 1, 1u << 30, &pid))
			return cli_usage(COMMAND, "'%s' is no process id", operand[0]);
		code = pages_from_process((int)pid, &want, &e->pages, err, sizeof(err));
	} else {
		code = pages_from_files(operand, (unsigned)n, &want, &e->pages, err, sizeof(err));
	}
	if (code)
		return cli_fail(COMMAND, "%s", err);
	if (e->save && (code = pages_save(&e->pages, e->save)))
		return cli_fail(COMMAND, "cannot write '%s': %s", e->save, strerror(-code));
	return CLI_OK;
}

int cmd_estimate(int argc, char **argv)
{
	static struct estimate e; /* large */
	const struct cli_option options[] = {
		{"codec", 'c', CLI_TEXT, &e.codec, "NAME[:LEVEL]", "only this codec; default: all",
		 0, 0},
		{"sample", 's', CLI_PERCENT, &e.percent, "PERCENT", "read an even sample", 0, 0},
		{"max", 'm', CLI_SIZE, &e.max_bytes, "SIZE",
		 "read at most so much, evenly (default: 1G)", 0, 0},
		{"full", 0, CLI_FLAG, &e.full, NULL,
		 "measure all that was read (default: 256M of it)", 0, 0},
		{"save", 0, CLI_TEXT, &e.save, "FILE",
		 "write the pages that were read to FILE, for tmem bench", 0, 0},
		{"json", 'J', CLI_FLAG, &e.json, NULL, "print JSON", 0, 0},
		{"bytes", 'b', CLI_FLAG, &e.bytes, NULL, "exact bytes in the table", 0, 0},
		{0},
	};
	const struct cli_syntax syntax = {
		COMMAND, "PID|FILE...",
		"Says what a process's memory, or files, would take in the store: by codec, and "
		"with 1,\n"
		"4 or 16 neighbouring pages compressed together. The process goes on running.",
		options, false};
	struct codec_spec spec;
	char err[256];
	int operands, code;

	code = cli_parse(&syntax, argc, argv, &operands);
	if (code >= 0)
		return code;
	if (operands == 0)
		return cli_usage(COMMAND, "which process or files?");
	if (e.codec && codec_parse(e.codec, &spec, err, sizeof(err)))
		return cli_usage(COMMAND, "--codec: %s", err);
	if (e.codec && strlen(e.codec) >= SPEC_TEXT)
		return cli_usage(COMMAND, "--codec: '%.40s...' is too long", e.codec);
	code = collect(&e, argv + 1, operands);
	if (code == CLI_OK) {
		list_specs(&e);
		code = measure(&e);
	}
	if (code == CLI_OK) {
		if (e.json) {
			code = print_json(&e);
		} else {
			print_table(&e);
			code = cli_flush(COMMAND);
		}
	}
	pages_free(&e.pages);
	return code;
}
