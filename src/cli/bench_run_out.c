/* SPDX-License-Identifier: BSD-2-Clause */
/* What `tmem bench run` prints of one program. */
#include "cli/bench_run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define COMMAND "bench run"

static bool swap_unused(const struct bench *b)
{
	const struct column *c = &b->column[ZRAM];

	return !c->why_not[0] && c->runs && BENCH_LARGEST(c, box.peak_swapped) == 0 &&
	       b->first.box.peak_total > b->limit_bytes;
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
	       cli_bytes(d, b->first.box.peak_total, b->bytes));
	printf("%-5s %5s %9s %14s %14s %14s %9s\n", "way", "runs", "wall s", "peak total",
	       "resident", "swapped", "B a page");
	for (w = 0; w < WAYS; w++) {
		const struct column *c = &b->column[w];

		if (w == ZSWAP && b->leave_out[w])
			continue;
		if (c->why_not[0]) {
			printf("%-5s not measured: %s\n", way_name[w], c->why_not);
			continue;
		}
		printf("%-5s %5u %9.2f %14s %14s %14s", way_name[w], c->runs, bench_wall(c),
		       cli_bytes(a, BENCH_LARGEST(c, box.peak_total), b->bytes),
		       cli_bytes(d, BENCH_LARGEST(c, box.peak_resident), b->bytes),
		       w >= ZRAM ? cli_bytes(s, BENCH_LARGEST(c, box.peak_swapped), b->bytes)
				 : "-");
		if (isfinite(bench_page_bytes(c)))
			printf(" %9.0f\n", bench_page_bytes(c));
		else
			printf(" %9s\n", "-");
	}
	printf("\ntime over time, medians of rounds:\n");
	print_ratio("zram / bare", bench_ratio(b, ZRAM, BARE));
	print_ratio("tmem / bare", bench_ratio(b, TMEM, BARE));
	print_ratio("tmem / zram", bench_ratio(b, TMEM, ZRAM));
	print_ratio("tmem / zswap", bench_ratio(b, TMEM, ZSWAP));
	for (w = ZRAM; w < WAYS; w++)
		if (b->column[w].search_missed)
			printf("note: no cgroup limit gave %s this total within 3 %%; the nearest "
			       "was used\n",
			       way_name[w]);
	if (swap_unused(b))
		printf("note: the program was over the limit and yet nothing was swapped\n");
	if (b->first.box.exit_code)
		printf("note: the program itself failed: exit code %d\n", b->first.box.exit_code);
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
		json_array_append_new(all, json_real(c->run[i].box.wall_s));
	cli_json_text(o, "not_measured", c->why_not[0] ? c->why_not : NULL);
	if (c->runs == 0) {
		json_decref(all);
		return o;
	}
	cli_json_real(o, "wall_s", bench_wall(c));
	json_object_set_new(o, "wall_s_all", all);
	cli_json_u64(o, "peak_total_bytes", BENCH_LARGEST(c, box.peak_total));
	cli_json_u64(o, "peak_resident_bytes", BENCH_LARGEST(c, box.peak_resident));
	cli_json_real(o, "page_bytes", bench_page_bytes(c));
	cli_json_u64(o, "faults", BENCH_LARGEST(c, faults));
	return o;
}

static void swap_json(const struct bench *b, const struct column *c, json_t *o)
{
	cli_json_text(o, "codec", b->swap_codec);
	cli_json_u64(o, "cgroup_limit_bytes", c->cgroup_limit);
	cli_json_u64(o, "search_runs", c->search_runs);
	json_object_set_new(o, "search_missed", json_boolean(c->search_missed));
	cli_json_u64(o, "peak_swapped_bytes", BENCH_LARGEST(c, box.peak_swapped));
	cli_json_u64(o, "zram_bytes_at_peak", BENCH_LARGEST(c, box.zram_bytes));
}

static int print_json(const struct bench *b)
{
	json_t *o = cli_json(COMMAND), *way[WAYS], *argv = json_array();
	char **a;
	int w;

	for (a = b->argv; *a; a++)
		json_array_append_new(argv, json_stringn_nocheck(*a, strlen(*a)));
	json_object_set_new(o, "program", argv);
	cli_json_u64(o, "limit_bytes", b->limit_bytes);
	cli_json_u64(o, "rounds", b->rounds);
	cli_json_u64(o, "exit_code", (uint64_t)b->first.box.exit_code);
	for (w = 0; w < WAYS; w++) {
		way[w] = column_json(&b->column[w]);
		json_object_set_new(o, way_name[w], way[w]);
		if (w >= ZRAM && b->column[w].runs)
			swap_json(b, &b->column[w], way[w]);
	}
	if (b->column[TMEM].runs)
		cli_json_u64(way[TMEM], "reported_peak_total_bytes",
			     BENCH_LARGEST(&b->column[TMEM], reported_peak));
	cli_json_real(o, "zram_over_bare", bench_ratio(b, ZRAM, BARE));
	cli_json_real(o, "tmem_over_bare", bench_ratio(b, TMEM, BARE));
	cli_json_real(o, "tmem_over_zram", bench_ratio(b, TMEM, ZRAM));
	cli_json_real(o, "tmem_over_zswap", bench_ratio(b, TMEM, ZSWAP));
	json_object_set_new(o, "output_differs", json_boolean(b->output_differs));
	cli_json_text(o, "no_cgroup", b->box.has_cgroup ? NULL : b->box.cgroup_why);
	return cli_json_print(o);
}

int bench_run_print(const struct bench *b)
{
	if (b->json)
		return print_json(b);
	print_table(b);
	return cli_flush(COMMAND);
}
