/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem bench run: one program, one amount of memory, several ways to live in it.
 *
 *   bare   no limit: how much it wants, and how fast it can be
 *   tmem   tmem run --limit
 *   zram   a memory cgroup over swap on zram, the kernel's way
 *   zswap  the same over zswap and a file: the kernel's other way
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
#include "cli/bench_run.h"
#include "codec/codec.h"
#include "frontswap/pager/run.h"
#include "os/file.h"
#include "os/mem.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#pragma weak cmd_run
#pragma weak technique_parse

#define COMMAND	       "bench run"
#define SEARCH_RUNS    5
#define SEARCH_WITHIN  0.03
#define FIRST_RATIO    3.0
#define LEAST_TIMEOUT  60.0
#define TIMEOUT_FACTOR 60.0
#define FIGURES_ENV    "TMEM_BENCH_FIGURES"

const char *const way_name[WAYS] = {"bare", "tmem", "zram", "zswap"};

/* ---- one run of one way -------------------------------------------------------------------- */

static void read_report(struct bench *b, struct trip *t)
{
	json_t *o = json_load_file(b->report, 0, NULL);

	t->reported_peak = (uint64_t)json_integer_value(json_object_get(o, "peak_total_bytes"));
	t->held_bytes = (uint64_t)json_integer_value(json_object_get(o, "held_bytes"));
	t->held_pages = (uint64_t)json_integer_value(json_object_get(o, "stored_pages"));
	t->faults = (uint64_t)json_integer_value(json_object_get(o, "faults_stored"));
	t->fault_us = json_number_value(json_object_get(o, "fault_us_p99"));
	json_decref(o);
	unlink(b->report);
}

/* What the program told of itself: lines of a name and a number. */
static void read_figures(struct bench *b, struct trip *t)
{
	char *text = os_file_slurp(b->figures, 4096, NULL);
	const char *at = text ? strstr(text, "p99_us ") : NULL;

	if (at)
		t->service_us = strtod(at + 7, NULL);
	os_free(text);
	unlink(b->figures);
}

/* The command line that runs the program under this tmem. Freed by the caller; the texts in
 * `text` must outlive it. */
static char **tmem_argv(struct bench *b, char text[2][64])
{
	unsigned n = 0, k = 0;
	char **a;

	while (b->argv[n])
		n++;
	a = os_zalloc((n + 12) * sizeof(*a));
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
	if (b->without) {
		a[k++] = (char *)"--without";
		a[k++] = (char *)b->without;
	}
	a[k++] = (char *)"--report";
	a[k++] = b->report;
	a[k++] = (char *)"--";
	memcpy(a + k, b->argv, n * sizeof(*a));
	return a;
}

/* Fails (CLI_FAILED) only for what concerns all ways; how the program ended is in *t. */
static int run_way(struct bench *b, enum way way, uint64_t cgroup_limit, struct trip *t)
{
	char err[512], text[2][64];
	char **a = NULL;
	int code;

	*t = (struct trip){.box = {.argv = b->argv,
				   .swap = way == ZSWAP ? BOX_ZSWAP : BOX_ZRAM,
				   .limit_bytes = cgroup_limit,
				   .timeout_s = b->timeout_s}};
	if (way == TMEM) {
		a = tmem_argv(b, text);
		if (!a)
			return cli_fail(COMMAND, "out of memory");
		t->box.argv = a;
	}
	code = box_run(&b->box, &t->box, err, sizeof(err));
	os_free(a);
	t->box.argv = NULL;
	read_figures(b, t);
	if (way == TMEM) {
		read_report(b, t);
	} else {
		t->held_bytes = t->box.zram_bytes;
		t->held_pages = t->box.zram_pages;
		t->faults = t->box.major_faults;
	}
	if (code == -EINTR)
		return cli_fail(COMMAND, "stopped");
	return code ? cli_fail(COMMAND, "%s", err) : CLI_OK;
}

/* Whether the run counts; if not, the way's column says why. */
static bool accept(struct bench *b, enum way way, const struct box_run *r)
{
	struct column *c = &b->column[way];
	const struct box_run *first = &b->first.box;

	if (r->timed_out) {
		snprintf(c->why_not, sizeof(c->why_not), "did not end within %.0f s", b->timeout_s);
	} else if (r->out_of_memory) {
		snprintf(c->why_not, sizeof(c->why_not), "killed for lack of memory");
	} else if (way != BARE && r->exit_code != first->exit_code) {
		c->failed = true;
		snprintf(c->why_not, sizeof(c->why_not), "exit code %d, bare %d", r->exit_code,
			 first->exit_code);
	} else if (way != BARE && r->output_hash != first->output_hash) {
		b->output_differs = true;
	}
	return !c->why_not[0];
}

static int add_run(struct bench *b, enum way way)
{
	struct column *c = &b->column[way];
	struct trip t;
	int code;

	if (c->why_not[0])
		return CLI_OK;
	code = run_way(b, way, c->cgroup_limit, &t);
	if (code == CLI_OK && accept(b, way, &t.box))
		c->run[c->runs++] = t;
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

static int search(struct bench *b, enum way way, uint64_t peak, uint64_t limit)
{
	struct column *c = &b->column[way];
	double low = 0, high = (double)b->limit_bytes, best = INFINITY, off;
	struct trip t;
	int code;

	if (peak <= b->limit_bytes) { /* it fits as it is: the same limit, and no swap */
		c->cgroup_limit = b->limit_bytes;
		return CLI_OK;
	}
	while (c->search_runs < SEARCH_RUNS && best > SEARCH_WITHIN) {
		code = run_way(b, way, limit, &t);
		if (code != CLI_OK)
			return code;
		c->search_runs++;
		if (t.box.timed_out || t.box.out_of_memory) { /* far too little */
			low = (double)limit;
			limit = (uint64_t)((low + high) / 2) & ~4095ull;
			continue;
		}
		off = fabs((double)t.box.peak_total / (double)b->limit_bytes - 1);
		if (off < best) {
			best = off;
			c->cgroup_limit = limit;
		}
		if (t.box.peak_total < b->limit_bytes)
			low = (double)limit;
		else
			high = (double)limit;
		limit = next_guess(limit, &t.box, b->limit_bytes, low, high);
	}
	c->search_missed = best > SEARCH_WITHIN;
	if (isinf(best))
		snprintf(c->why_not, sizeof(c->why_not),
			 "killed for lack of memory, or too slow, at every limit tried");
	return CLI_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

int bench_first(struct bench *b)
{
	const struct box_run *r = &b->first.box;
	int code = run_way(b, BARE, 0, &b->first);

	if (code != CLI_OK)
		return code;
	if (r->timed_out)
		return cli_fail(COMMAND, "the bare program did not end within %.0f s",
				b->timeout_s);
	if (r->out_of_memory || r->exit_code > 128)
		return cli_fail(COMMAND, "the bare program was killed: exit code %d", r->exit_code);
	if (b->limit_bytes == 0)
		b->limit_bytes = (uint64_t)((double)r->peak_total * b->fraction) & ~4095ull;
	if (b->limit_bytes == 0)
		return cli_fail(COMMAND,
				"the program ended too soon to see its memory: give --limit");
	if (!b->timeout_given)
		b->timeout_s = r->wall_s * TIMEOUT_FACTOR > LEAST_TIMEOUT
				       ? r->wall_s * TIMEOUT_FACTOR
				       : LEAST_TIMEOUT;
	return CLI_OK;
}

static void want_swap(struct bench *b, enum way way)
{
	struct column *c = &b->column[way];
	struct box *box = &b->box;
	/* Room for all of it and more; unused room costs nothing that is counted. */
	uint64_t room = (b->first.box.peak_total * 2 + (64ull << 20)) & ~4095ull;

	if (b->leave_out[way])
		snprintf(c->why_not, sizeof(c->why_not), "left out");
	else if (!box->has_cgroup)
		snprintf(c->why_not, sizeof(c->why_not), "%s", box->cgroup_why);
	if (c->why_not[0])
		return;
	if (way == ZRAM && !box->has_zram)
		box_want_zram(box, b->swap_codec, room);
	if (way == ZRAM && !box->has_zram)
		snprintf(c->why_not, sizeof(c->why_not), "%s", box->zram_why);
	if (way == ZSWAP && !box->has_zswap)
		box_want_zswap(box, b->swap_codec, room);
	if (way == ZSWAP && !box->has_zswap)
		snprintf(c->why_not, sizeof(c->why_not), "%s", box->zswap_why);
}

int bench_measure(struct bench *b)
{
	struct column *tmem = &b->column[TMEM];
	uint64_t peak = b->first.box.peak_total;
	struct progress bar;
	unsigned round, k;
	int code = CLI_OK;

	memset(b->column, 0, sizeof(b->column));
	if (b->leave_out[BARE])
		snprintf(b->column[BARE].why_not, sizeof(tmem->why_not), "left out");
	if (b->leave_out[TMEM])
		snprintf(tmem->why_not, sizeof(tmem->why_not), "left out");
	else if (!cmd_run)
		snprintf(tmem->why_not, sizeof(tmem->why_not), "this build has no `tmem run`");
	want_swap(b, ZRAM);
	want_swap(b, ZSWAP);
	progress_start(&bar, "searching zram's limit", 2 + b->rounds * WAYS);
	for (k = ZRAM; k <= ZSWAP && code == CLI_OK; k++) {
		uint64_t guess = k == ZSWAP ? b->column[ZRAM].cgroup_limit : 0;

		if (!b->column[k].why_not[0])
			code = search(b, (enum way)k, peak,
				      guess ? guess : first_guess(b->limit_bytes, peak));
		progress_add(&bar, 1);
	}
	for (round = 0; round < b->rounds && code == CLI_OK; round++)
		for (k = 0; k < WAYS && code == CLI_OK; k++) {
			enum way way = (enum way)((round + k) % WAYS);

			progress_label(&bar, way_name[way]);
			code = add_run(b, way);
			progress_add(&bar, 1);
		}
	progress_end(&bar);
	if (code == CLI_OK && b->column[BARE].runs == 0 && !b->leave_out[BARE])
		code = cli_fail(COMMAND, "the bare program: %s", b->column[BARE].why_not);
	return code;
}

/* ---- what was found ----------------------------------------------------------------------------
 */

static double median_of(const struct column *c, double (*value)(const struct trip *))
{
	double all[BENCH_ROUNDS_MAX];
	unsigned i;

	for (i = 0; i < c->runs; i++)
		all[i] = value(&c->run[i]);
	return c->runs && !c->why_not[0] ? cli_median(all, c->runs) : NAN;
}

static double wall_of(const struct trip *t)
{
	return t->box.wall_s;
}

static double service_of(const struct trip *t)
{
	return t->service_us > 0 ? t->service_us : NAN;
}

static double page_bytes_of(const struct trip *t)
{
	return t->held_pages ? (double)t->held_bytes / (double)t->held_pages : NAN;
}

double bench_wall(const struct column *c)
{
	return median_of(c, wall_of);
}

double bench_service(const struct column *c)
{
	return median_of(c, service_of);
}

double bench_page_bytes(const struct column *c)
{
	return median_of(c, page_bytes_of);
}

double bench_ratio(const struct bench *b, enum way a, enum way over)
{
	const struct column *x = &b->column[a], *y = &b->column[over];
	unsigned n = x->runs < y->runs ? x->runs : y->runs, i;
	double r[BENCH_ROUNDS_MAX];

	if (x->why_not[0] || y->why_not[0] || n == 0)
		return NAN;
	for (i = 0; i < n; i++)
		r[i] = x->run[i].box.wall_s / y->run[i].box.wall_s;
	return cli_median(r, n);
}

uint64_t bench_largest(const struct column *c, size_t offset)
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

/* ---- the command -------------------------------------------------------------------------------
 */

int bench_open(struct bench *b)
{
	char err[512];

	snprintf(b->report, sizeof(b->report), "/tmp/tmem-bench-%d.json", (int)getpid());
	snprintf(b->figures, sizeof(b->figures), "/tmp/tmem-bench-%d.figures", (int)getpid());
	setenv(FIGURES_ENV, b->figures, 1);
	return box_open(&b->box, err, sizeof(err)) ? cli_fail(COMMAND, "%s", err) : CLI_OK;
}

int bench_close(struct bench *b, int code)
{
	char err[512];
	int stop;

	if (box_close(&b->box, err, sizeof(err)))
		code = cli_fail(COMMAND, "%s", err);
	unlink(b->report);
	unlink(b->figures);
	stop = box_stopped();
	return stop ? 128 + stop : code;
}

/* A part of what the bare program takes may be less than tmem run works with. */
static int check_total(const struct bench *b)
{
	char total[CLI_TEXT_MAX];

	if (b->leave_out[TMEM] || !cmd_run || b->limit_bytes >= RUN_LIMIT_MIN)
		return CLI_OK;
	return cli_fail(COMMAND,
			"a total of %s is less than the %uM that tmem run takes; --limit gives "
			"another, --no-tmem leaves it out",
			cli_bytes(total, b->limit_bytes, b->bytes),
			(unsigned)(RUN_LIMIT_MIN >> 20));
}

static int one_program(struct bench *b)
{
	const struct column *tmem = &b->column[TMEM];
	int code = bench_open(b);

	if (code == CLI_OK)
		code = bench_first(b);
	if (code == CLI_OK)
		code = check_total(b);
	if (code == CLI_OK)
		code = bench_measure(b);
	code = bench_close(b, code);
	if (code == CLI_OK)
		code = bench_run_print(b);
	if (code == CLI_OK && tmem->failed)
		code = cli_fail(COMMAND, "tmem could not be measured: %s", tmem->why_not);
	return code;
}

/* What tmem run would refuse, before anything runs. */
static int check_tmem(const struct bench *b)
{
	uint32_t bits;

	if (b->leave_out[TMEM] || !cmd_run)
		return CLI_OK;
	if (b->limit_bytes && b->limit_bytes < RUN_LIMIT_MIN)
		return cli_usage(COMMAND, "--limit takes at least %uM, or --no-tmem",
				 (unsigned)(RUN_LIMIT_MIN >> 20));
	if (technique_parse(b->without, &bits) < 0)
		return cli_usage(COMMAND, "--without takes some of " TECHNIQUES);
	return CLI_OK;
}

int cmd_bench_run(int argc, char **argv)
{
	static struct bench b; /* large */
	const char *suite = NULL, *programs = NULL, *at = NULL;
	bool zswap = false, is_suite = false;
	unsigned timeout = 0;
	const struct cli_option options[] = {
		{"limit", 'l', CLI_SIZE, &b.limit_bytes, "SIZE",
		 "total memory, store or zram included", 0, 0},
		{"fraction", 'f', CLI_FRACTION, &b.fraction, "PART",
		 "of what the bare program takes, instead (default: 0.5)", 0, 0},
		{"rounds", 'r', CLI_COUNT, &b.rounds, "N", "default: 3; of a suite 5", 1,
		 BENCH_ROUNDS_MAX},
		{"codec", 'c', CLI_TEXT, &b.codec, "NAME[:LEVEL]", "for tmem run", 0, 0},
		{"without", 0, CLI_TEXT, &b.without, "NAMES", "for tmem run", 0, 0},
		{"zram-codec", 0, CLI_TEXT, &b.swap_codec, "NAME", "and zswap's; default: lz4", 0,
		 0},
		{"timeout", 0, CLI_COUNT, &timeout, "SECONDS",
		 "end a run after this (default: 60 times the bare time)", 1, 1000000},
		{"no-zram", 0, CLI_FLAG, &b.leave_out[ZRAM], NULL, "leave zram out", 0, 0},
		{"no-tmem", 0, CLI_FLAG, &b.leave_out[TMEM], NULL, "leave tmem run out", 0, 0},
		{"zswap", 0, CLI_FLAG, &zswap, NULL, "measure zswap, too", 0, 0},
		{"suite", 0, CLI_FLAG, &is_suite, NULL, "a set of programs, see below", 0, 0},
		{"programs", 0, CLI_TEXT, &programs, "NAMES", "of the suite, with commas", 0, 0},
		{"suite-dir", 0, CLI_TEXT, &suite, "DIR", "where the suite's programs are", 0, 0},
		{"at", 0, CLI_TEXT, &at, "PARTS",
		 "of the suite: parts of what each takes bare; default: 0.75,0.5,0.33", 0, 0},
		{"json", 'J', CLI_FLAG, &b.json, NULL, "print JSON", 0, 0},
		{"bytes", 'b', CLI_FLAG, &b.bytes, NULL, "exact bytes in the table", 0, 0},
		{0},
	};
	const struct cli_syntax syntax = {
		COMMAND, "[-- PROGRAM [ARG...]]",
		"Runs a program bare, under tmem run, and in a memory cgroup over swap on zram, "
		"with the\n"
		"same total memory, and compares the times. zram needs root; the swap, the device "
		"and\n"
		"the cgroup are its own and are removed at the end, also when interrupted. The "
		"program\n"
		"reads from /dev/null and its standard output is not shown.\n"
		"\n"
		"--suite does this with a set of real programs, at several limits, without the "
		"bare "
		"rounds,\n"
		"and gives the geometric mean of tmem's time over zram's.",
		options, true};
	struct codec_spec spec;
	char err[256];
	int operands, code;

	b.swap_codec = "lz4";
	code = cli_parse(&syntax, argc, argv, &operands);
	if (code >= 0)
		return code;
	if (operands == 0 && !is_suite)
		return cli_usage(COMMAND, "which program?");
	if (is_suite && (operands || b.limit_bytes || b.fraction > 0))
		return cli_usage(COMMAND, "--suite has its own programs; their limits are --at");
	if (!is_suite && (programs || suite || at))
		return cli_usage(COMMAND, "--programs, --suite-dir and --at go with --suite");
	if (b.limit_bytes && b.fraction > 0)
		return cli_usage(COMMAND, "--limit or --fraction, not both");
	if (b.codec && codec_parse(b.codec, &spec, err, sizeof(err)))
		return cli_usage(COMMAND, "--codec: %s", err);
	code = check_tmem(&b);
	if (code != CLI_OK)
		return code;
	b.rounds = b.rounds ? b.rounds : is_suite ? 5 : 3;
	b.fraction = b.fraction > 0 ? b.fraction : 0.5;
	b.leave_out[ZSWAP] = !zswap;
	b.timeout_given = timeout;
	b.timeout_s = timeout ? timeout : 3600;
	if (is_suite)
		return bench_suite(&b, suite, programs, at ? at : "0.75,0.5,0.33");
	argv[1 + operands] = NULL;
	b.argv = argv + 1;
	return one_program(&b);
}
