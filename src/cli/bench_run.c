/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem bench run: one program, one amount of memory, three ways to live in it.
 *
 *   bare   no limit: how much it wants, and how fast it can be
 *   zram   a memory cgroup over swap on zram (lz4), the kernel's way
 *   tmem   tmem run --limit
 *
 * Equal means equal in *total*: what is resident plus what holds the
 * compressed pages. tmem run limits just that. A cgroup limits only what is
 * resident, so its limit is searched: total(limit) is measured with the
 * program itself, and grows with the limit,
 *
 *   total = limit + (peak - limit) / r       r: how well it compresses
 *
 * which gives the first guess with r = 3, and after each run a better r. The
 * search ends within 3 % of the total that was asked for, or after 5 runs.
 *
 * Then rounds: all ways once each, the first one changing; ratios are medians
 * of the rounds' own ratios.
 */
#include "cli/bench_box.h"
#include "cli/cli.h"
#include "codec/codec.h"
#include "os/file.h"
#include "os/mem.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#pragma weak cmd_run

#define COMMAND	       "bench run"
#define SEARCH_RUNS    5
#define SEARCH_WITHIN  0.03
#define FIRST_RATIO    3.0
#define MAX_ROUNDS     100
#define LEAST_TIMEOUT  60.0
#define TIMEOUT_FACTOR 60.0

enum way { BARE, TMEM, ZRAM, WAYS };
static const char *const way_name[WAYS] = {"bare", "tmem", "zram"};

struct column {
	struct box_run run[MAX_ROUNDS];
	unsigned runs;
	char why_not[300]; /* "": it was measured */
};

struct bench {
	/* given */
	char **argv; /* the program, NULL at the end */
	uint64_t limit_bytes;
	double fraction, timeout_s;
	unsigned rounds, timeout_given;
	const char *codec, *zram_codec;
	bool no_zram, no_tmem, json, bytes;
	/* found */
	struct box box;
	struct column column[WAYS];
	uint64_t zram_limit; /* of the cgroup, that gives the total */
	uint64_t zram_total; /* that it gave */
	unsigned search_runs;
	bool search_missed;	/* not within SEARCH_WITHIN */
	char report[64];	/* path of tmem run's report */
	uint64_t tmem_reported; /* the largest peak_total_bytes it told */
	bool output_differs;
};

/* ---- one run of one way -------------------------------------------------------------------- */

static void read_report(struct bench *b)
{
	json_t *o = json_load_file(b->report, 0, NULL);
	uint64_t peak = (uint64_t)json_integer_value(json_object_get(o, "peak_total_bytes"));

	if (peak > b->tmem_reported)
		b->tmem_reported = peak;
	json_decref(o);
	unlink(b->report);
}

/* The command line that runs the program under this tmem. Freed by the caller; the texts in
 * `text` must outlive it. */
static char **tmem_argv(struct bench *b, char text[2][64])
{
	unsigned n = 0, k = 0;
	char **a;

	while (b->argv[n])
		n++;
	a = os_zalloc((n + 10) * sizeof(*a));
	if (!a)
		return NULL;
	snprintf(text[0], 64, "/proc/self/exe");
	snprintf(text[1], 64, "%llu", (unsigned long long)b->limit_bytes);
	a[k++] = text[0];
	a[k++] = (char *)"run";
	a[k++] = (char *)"--limit";
	a[k++] = text[1];
	if (b->codec) {
		a[k++] = (char *)"--codec";
		a[k++] = (char *)b->codec;
	}
	a[k++] = (char *)"--report";
	a[k++] = b->report;
	a[k++] = (char *)"--";
	memcpy(a + k, b->argv, n * sizeof(*a));
	return a;
}

/* Fails (CLI_FAILED) only for what concerns all ways; how the program ended is in *r. */
static int run_way(struct bench *b, enum way way, uint64_t cgroup_limit, struct box_run *r)
{
	char err[512], text[2][64];
	char **a = NULL;
	int code;

	*r = (struct box_run){
		.argv = b->argv, .limit_bytes = cgroup_limit, .timeout_s = b->timeout_s};
	if (way == TMEM) {
		a = tmem_argv(b, text);
		if (!a)
			return cli_fail(COMMAND, "out of memory");
		r->argv = a;
	}
	code = box_run(&b->box, r, err, sizeof(err));
	os_free(a);
	r->argv = NULL;
	if (way == TMEM)
		read_report(b);
	if (code == -EINTR)
		return cli_fail(COMMAND, "stopped");
	return code ? cli_fail(COMMAND, "%s", err) : CLI_OK;
}

/* Whether the run counts; if not, the way's column says why. */
static bool accept(struct bench *b, enum way way, const struct box_run *r)
{
	struct column *c = &b->column[way];
	const struct box_run *first = &b->column[BARE].run[0];

	if (r->timed_out)
		snprintf(c->why_not, sizeof(c->why_not), "did not end within %.0f s", b->timeout_s);
	else if (r->out_of_memory)
		snprintf(c->why_not, sizeof(c->why_not), "killed for lack of memory");
	else if (way != BARE && r->exit_code != first->exit_code)
		snprintf(c->why_not, sizeof(c->why_not), "exit code %d, bare %d", r->exit_code,
			 first->exit_code);
	else if (way != BARE && r->output_hash != first->output_hash)
		b->output_differs = true;
	return !c->why_not[0];
}

static int add_run(struct bench *b, enum way way, uint64_t cgroup_limit)
{
	struct column *c = &b->column[way];
	struct box_run r;
	int code;

	if (c->why_not[0])
		return CLI_OK;
	code = run_way(b, way, cgroup_limit, &r);
	if (code == CLI_OK && accept(b, way, &r))
		c->run[c->runs++] = r;
	return code;
}

/* ---- the search for the cgroup's limit ------------------------------------------------------- */

static uint64_t first_guess(uint64_t total, uint64_t peak)
{
	double guess = ((double)total - (double)peak / FIRST_RATIO) / (1 - 1 / FIRST_RATIO);

	if (guess < (double)total / 20)
		guess = (double)total / 20;
	return (uint64_t)guess & ~4095ull;
}

/* A limit between the ones known to give too little and too much, by what the last run told. */
static uint64_t next_guess(uint64_t limit, const struct box_run *r, uint64_t total, double low,
			   double high)
{
	double ratio = r->zram_bytes && r->zram_pages
			       ? (double)r->zram_pages * 4096 / (double)r->zram_bytes
			       : FIRST_RATIO;
	double guess;

	if (ratio < 1.2)
		ratio = 1.2;
	guess = (double)limit + ((double)total - (double)r->peak_total) / (1 - 1 / ratio);
	if (guess <= low || guess >= high)
		guess = (low + high) / 2;
	return (uint64_t)guess & ~4095ull;
}

static int search(struct bench *b, uint64_t peak)
{
	struct column *c = &b->column[ZRAM];
	double low = 0, high = (double)b->limit_bytes, best = INFINITY, off;
	uint64_t limit = first_guess(b->limit_bytes, peak);
	struct box_run r;
	int code;

	if (peak <= b->limit_bytes) { /* it fits as it is: the same limit, and no swap */
		b->zram_limit = b->limit_bytes;
		return CLI_OK;
	}
	while (b->search_runs < SEARCH_RUNS && best > SEARCH_WITHIN) {
		code = run_way(b, ZRAM, limit, &r);
		if (code != CLI_OK)
			return code;
		b->search_runs++;
		if (r.timed_out || r.out_of_memory) { /* far too little */
			low = (double)limit;
			limit = (uint64_t)((low + high) / 2) & ~4095ull;
			continue;
		}
		off = fabs((double)r.peak_total / (double)b->limit_bytes - 1);
		if (off < best) {
			best = off;
			b->zram_limit = limit;
			b->zram_total = r.peak_total;
		}
		if (r.peak_total < b->limit_bytes)
			low = (double)limit;
		else
			high = (double)limit;
		limit = next_guess(limit, &r, b->limit_bytes, low, high);
	}
	b->search_missed = best > SEARCH_WITHIN;
	if (isinf(best))
		snprintf(c->why_not, sizeof(c->why_not),
			 "killed for lack of memory, or too slow, at every limit tried");
	return CLI_OK;
}

/* ---- the whole ----------------------------------------------------------------------------------
 */

/* The bare run that says how much memory and time it takes at all. */
static int first_run(struct bench *b)
{
	struct column *bare = &b->column[BARE];
	struct box_run r;
	int code = run_way(b, BARE, 0, &r);

	if (code != CLI_OK)
		return code;
	bare->run[0] = r; /* what others are compared with; replaced by the first round */
	if (r.timed_out)
		return cli_fail(COMMAND, "the bare program did not end within %.0f s",
				b->timeout_s);
	if (r.out_of_memory || r.exit_code > 128)
		return cli_fail(COMMAND, "the bare program was killed: exit code %d", r.exit_code);
	if (b->limit_bytes == 0)
		b->limit_bytes = (uint64_t)((double)r.peak_total * b->fraction) & ~4095ull;
	if (b->limit_bytes == 0)
		return cli_fail(COMMAND,
				"the program ended too soon to see its memory: give --limit");
	if (!b->timeout_given)
		b->timeout_s = r.wall_s * TIMEOUT_FACTOR > LEAST_TIMEOUT ? r.wall_s * TIMEOUT_FACTOR
									 : LEAST_TIMEOUT;
	return CLI_OK;
}

static void prepare(struct bench *b)
{
	struct column *zram = &b->column[ZRAM], *tmem = &b->column[TMEM];
	uint64_t peak = b->column[BARE].run[0].peak_total;

	if (b->no_tmem)
		snprintf(tmem->why_not, sizeof(tmem->why_not), "left out by --no-tmem");
	else if (!cmd_run)
		snprintf(tmem->why_not, sizeof(tmem->why_not), "this build has no `tmem run`");
	if (b->no_zram)
		snprintf(zram->why_not, sizeof(zram->why_not), "left out by --no-zram");
	else if (!b->box.has_cgroup)
		snprintf(zram->why_not, sizeof(zram->why_not), "%s", b->box.cgroup_why);
	if (zram->why_not[0])
		return;
	/* Room for all of it and more; unused room costs nothing that is counted. */
	box_want_zram(&b->box, b->zram_codec, (peak * 2 + (64ull << 20)) & ~4095ull);
	if (!b->box.has_zram)
		snprintf(zram->why_not, sizeof(zram->why_not), "%s", b->box.zram_why);
}

static int measure(struct bench *b)
{
	struct progress bar;
	unsigned round, k;
	int code = first_run(b);

	if (code != CLI_OK)
		return code;
	prepare(b);
	progress_start(&bar, "searching zram's limit", 1 + b->rounds * WAYS);
	if (!b->column[ZRAM].why_not[0])
		code = search(b, b->column[BARE].run[0].peak_total);
	progress_add(&bar, 1);
	for (round = 0; round < b->rounds && code == CLI_OK; round++)
		for (k = 0; k < WAYS && code == CLI_OK; k++) {
			enum way way = (enum way)((round + k) % WAYS);

			progress_label(&bar, way_name[way]);
			code = add_run(b, way, way == ZRAM ? b->zram_limit : 0);
			progress_add(&bar, 1);
		}
	progress_end(&bar);
	if (code == CLI_OK && b->column[BARE].runs == 0)
		code = cli_fail(COMMAND, "the bare program: %s", b->column[BARE].why_not);
	return code;
}

/* ---- printing ----------------------------------------------------------------------------------
 */

static double median_wall(const struct column *c)
{
	double wall[MAX_ROUNDS];
	unsigned i;

	for (i = 0; i < c->runs; i++)
		wall[i] = c->run[i].wall_s;
	return c->runs ? cli_median(wall, c->runs) : NAN;
}

/* Median over rounds of this way's time over that way's; NAN when one is missing. */
static double ratio(const struct bench *b, enum way a, enum way over)
{
	const struct column *x = &b->column[a], *y = &b->column[over];
	unsigned n = x->runs < y->runs ? x->runs : y->runs, i;
	double r[MAX_ROUNDS];

	if (x->why_not[0] || y->why_not[0] || n == 0)
		return NAN;
	for (i = 0; i < n; i++)
		r[i] = x->run[i].wall_s / y->run[i].wall_s;
	return cli_median(r, n);
}

static uint64_t largest(const struct column *c, size_t offset)
{
	uint64_t most = 0, value;
	unsigned i;

	for (i = 0; i < c->runs; i++) {
		memcpy(&value, (const char *)&c->run[i] + offset, sizeof(value));
		if (value > most)
			most = value;
	}
	return most;
}
#define LARGEST(c, field) largest(c, offsetof(struct box_run, field))

static bool swap_unused(const struct bench *b)
{
	const struct column *c = &b->column[ZRAM];

	return !c->why_not[0] && c->runs && LARGEST(c, peak_swapped) == 0 &&
	       LARGEST(&b->column[BARE], peak_total) > b->limit_bytes;
}

static void print_ratio(const char *what, double r)
{
	if (isfinite(r))
		printf("  %-12s %.2f\n", what, r);
}

static void print_table(const struct bench *b)
{
	char a[CLI_TEXT_MAX], d[CLI_TEXT_MAX], s[CLI_TEXT_MAX];
	int w;

	printf("total memory: %s (bare peak %s)\n\n", cli_bytes(a, b->limit_bytes, b->bytes),
	       cli_bytes(d, LARGEST(&b->column[BARE], peak_total), b->bytes));
	printf("%-5s %5s %9s %14s %14s %14s\n", "way", "runs", "wall s", "peak total", "resident",
	       "swapped");
	for (w = 0; w < WAYS; w++) {
		const struct column *c = &b->column[w];

		if (c->why_not[0])
			printf("%-5s not measured: %s\n", way_name[w], c->why_not);
		else
			printf("%-5s %5u %9.2f %14s %14s %14s\n", way_name[w], c->runs,
			       median_wall(c), cli_bytes(a, LARGEST(c, peak_total), b->bytes),
			       cli_bytes(d, LARGEST(c, peak_resident), b->bytes),
			       w == ZRAM ? cli_bytes(s, LARGEST(c, peak_swapped), b->bytes) : "-");
	}
	printf("\ntime over time, medians of rounds:\n");
	print_ratio("zram / bare", ratio(b, ZRAM, BARE));
	print_ratio("tmem / bare", ratio(b, TMEM, BARE));
	print_ratio("tmem / zram", ratio(b, TMEM, ZRAM));
	if (b->search_missed)
		printf("note: no cgroup limit gave zram this total within 3 %%; the nearest was "
		       "used\n");
	if (swap_unused(b))
		printf("note: the program was over the limit and yet nothing was swapped\n");
	if (b->output_differs)
		printf("note: what the program wrote differs from run to run\n");
	if (!b->box.has_cgroup)
		printf("note: %s: peaks are of the largest process, files included\n",
		       b->box.cgroup_why);
}

static json_t *column_json(const struct column *c)
{
	json_t *o = json_object(), *all = json_array();
	unsigned i;

	for (i = 0; i < c->runs; i++)
		json_array_append_new(all, json_real(c->run[i].wall_s));
	cli_json_text(o, "not_measured", c->why_not[0] ? c->why_not : NULL);
	if (c->runs == 0) {
		json_decref(all);
		return o;
	}
	cli_json_real(o, "wall_s", median_wall(c));
	json_object_set_new(o, "wall_s_all", all);
	cli_json_u64(o, "peak_total_bytes", LARGEST(c, peak_total));
	cli_json_u64(o, "peak_resident_bytes", LARGEST(c, peak_resident));
	return o;
}

static void zram_json(const struct bench *b, json_t *o)
{
	const struct column *c = &b->column[ZRAM];

	cli_json_text(o, "codec", b->zram_codec);
	cli_json_u64(o, "cgroup_limit_bytes", b->zram_limit);
	cli_json_u64(o, "search_runs", b->search_runs);
	json_object_set_new(o, "search_missed", json_boolean(b->search_missed));
	cli_json_u64(o, "peak_swapped_bytes", LARGEST(c, peak_swapped));
	cli_json_u64(o, "zram_bytes_at_peak", LARGEST(c, zram_bytes));
}

static int print_json(const struct bench *b)
{
	json_t *o = cli_json(COMMAND), *way[WAYS], *argv = json_array();
	const struct column *zram = &b->column[ZRAM];
	char **a;
	int w;

	for (a = b->argv; *a; a++)
		json_array_append_new(argv, json_stringn_nocheck(*a, strlen(*a)));
	json_object_set_new(o, "program", argv);
	cli_json_u64(o, "limit_bytes", b->limit_bytes);
	cli_json_u64(o, "rounds", b->rounds);
	for (w = 0; w < WAYS; w++) {
		way[w] = column_json(&b->column[w]);
		json_object_set_new(o, way_name[w], way[w]);
	}
	if (b->column[TMEM].runs)
		cli_json_u64(way[TMEM], "reported_peak_total_bytes", b->tmem_reported);
	if (zram->runs)
		zram_json(b, way[ZRAM]);
	cli_json_real(o, "zram_over_bare", ratio(b, ZRAM, BARE));
	cli_json_real(o, "tmem_over_bare", ratio(b, TMEM, BARE));
	cli_json_real(o, "tmem_over_zram", ratio(b, TMEM, ZRAM));
	json_object_set_new(o, "output_differs", json_boolean(b->output_differs));
	cli_json_text(o, "no_cgroup", b->box.has_cgroup ? NULL : b->box.cgroup_why);
	return cli_json_print(o);
}

/* ---- the command -------------------------------------------------------------------------------
 */

static int in_box(struct bench *b)
{
	char err[512];
	int code, stop;

	snprintf(b->report, sizeof(b->report), "/tmp/tmem-bench-%d.json", (int)getpid());
	if (box_open(&b->box, err, sizeof(err)))
		code = cli_fail(COMMAND, "%s", err);
	else
		code = measure(b);
	if (box_close(&b->box, err, sizeof(err)))
		code = cli_fail(COMMAND, "%s", err);
	unlink(b->report);
	stop = box_stopped();
	return stop ? 128 + stop : code;
}

int cmd_bench_run(int argc, char **argv)
{
	static struct bench b; /* large */
	unsigned timeout = 0;
	const struct cli_option options[] = {
		{"limit", 'l', CLI_SIZE, &b.limit_bytes, "SIZE",
		 "total memory, store or zram included", 0, 0},
		{"fraction", 'f', CLI_FRACTION, &b.fraction, "PART",
		 "of what the bare program takes, instead (default: 0.5)", 0, 0},
		{"rounds", 'r', CLI_COUNT, &b.rounds, "N", "default: 3", 1, MAX_ROUNDS},
		{"codec", 'c', CLI_TEXT, &b.codec, "NAME[:LEVEL]", "for tmem run", 0, 0},
		{"zram-codec", 0, CLI_TEXT, &b.zram_codec, "NAME", "default: lz4", 0, 0},
		{"timeout", 0, CLI_COUNT, &timeout, "SECONDS",
		 "end a run after this (default: 60 times the bare time)", 1, 1000000},
		{"no-zram", 0, CLI_FLAG, &b.no_zram, NULL, "leave zram out", 0, 0},
		{"no-tmem", 0, CLI_FLAG, &b.no_tmem, NULL, "leave tmem run out", 0, 0},
		{"json", 'J', CLI_FLAG, &b.json, NULL, "print JSON", 0, 0},
		{"bytes", 'b', CLI_FLAG, &b.bytes, NULL, "exact bytes in the table", 0, 0},
		{0},
	};
	const struct cli_syntax syntax = {
		COMMAND, "-- PROGRAM [ARG...]",
		"Runs a program bare, under tmem run, and in a memory cgroup over swap on zram, "
		"with the\n"
		"same total memory, and compares the times. zram needs root; the swap, the device "
		"and\n"
		"the cgroup are its own and are removed at the end, also when interrupted. The "
		"program\n"
		"reads from /dev/null and its standard output is not shown.",
		options, true};
	struct codec_spec spec;
	char err[256];
	int operands, code;

	b.rounds = 3;
	b.zram_codec = "lz4";
	code = cli_parse(&syntax, argc, argv, &operands);
	if (code >= 0)
		return code;
	if (operands == 0)
		return cli_usage(COMMAND, "which program?");
	if (b.limit_bytes && b.fraction > 0)
		return cli_usage(COMMAND, "--limit or --fraction, not both");
	if (b.codec && codec_parse(b.codec, &spec, err, sizeof(err)))
		return cli_usage(COMMAND, "--codec: %s", err);
	b.fraction = b.fraction > 0 ? b.fraction : 0.5;
	b.timeout_given = timeout;
	b.timeout_s = timeout ? timeout : 3600;
	argv[1 + operands] = NULL;
	b.argv = argv + 1;
	code = in_box(&b);
	if (code != CLI_OK)
		return code;
	if (b.json)
		return print_json(&b);
	print_table(&b);
	return cli_flush(COMMAND);
}
