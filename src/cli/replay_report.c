/* SPDX-License-Identifier: BSD-2-Clause */
/* What `tmem replay` and `tmem trace --info` print. */
#include "cli/replay_report.h"
#include "cli/cli.h"
#include "cli/plot.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMES 10u /* columns of what is said over time */

static double hit_ratio(const struct replay_result *o)
{
	return o->asks ? (double)o->hits / (double)o->asks : NAN;
}

/* The sample nearest to a part of the run; NULL: there is none. */
static const struct replay_sample *sample_at(const struct replay_result *o, double part)
{
	const struct replay_sample *best = NULL;

	for (unsigned i = 0; i < o->samples; i++)
		if (!best || fabs(o->sample[i].part - part) < fabs(best->part - part))
			best = &o->sample[i];
	return best;
}

/* ---- the trace itself --------------------------------------------------------- */

static void print_trace(const char *path, const struct replay_trace *t)
{
	char a[CLI_TEXT_MAX], b[CLI_TEXT_MAX];

	printf("%s: %" PRIu64 " operations in %.1f s, %s\n", path, t->records,
	       (double)t->duration_ns / 1e9, cli_bytes(a, t->bytes, false));
	printf("pages: %" PRIu64 " different ones of %" PRIu64
	       " objects, %s, compressed about %s\n",
	       t->npages, t->nobjects, cli_bytes(a, t->npages * 4096, false),
	       cli_bytes(b, t->footprint, false));
	printf("asked for: %" PRIu64 " times; put: %" PRIu64 "; invalidated: %" PRIu64 "\n",
	       t->asks, t->puts, t->drops);
	if (t->unknown_sizes)
		printf("note: the compressed size of %" PRIu64 " pages is not in the trace; %u "
		       "bytes are assumed\n",
		       t->unknown_sizes, REPLAY_ZSIZE);
	if (t->lost)
		printf("note: the recorder lost %" PRIu64 " operations\n", t->lost);
	if (t->cut)
		printf("note: the trace has no end: its recorder was killed, or runs still\n");
}

static json_t *trace_json(const char *path, const struct replay_trace *t)
{
	json_t *o = json_object(), *ops = json_object();

	cli_json_text(o, "file", path);
	cli_json_u64(o, "operations", t->records);
	cli_json_u64(o, "bytes", t->bytes);
	cli_json_real(o, "duration_s", (double)t->duration_ns / 1e9);
	cli_json_u64(o, "pages", t->npages);
	cli_json_u64(o, "objects", t->nobjects);
	cli_json_u64(o, "footprint_bytes", t->footprint);
	cli_json_u64(o, "asks", t->asks);
	cli_json_u64(o, "puts", t->puts);
	cli_json_u64(o, "invalidated", t->drops);
	cli_json_u64(o, "unknown_sizes", t->unknown_sizes);
	cli_json_u64(o, "lost", t->lost);
	json_object_set_new(o, "cut", json_boolean(t->cut));
	for (unsigned i = 1; i < TRACE_OPCODES; i++)
		cli_json_u64(ops, trace_opcode_name(i), t->ops[i]);
	json_object_set_new(o, "by_operation", ops);
	return o;
}

int replay_info(const char *command, const char *path, bool json)
{
	struct replay_trace t;
	char err[200];
	json_t *o;

	if (replay_load(path, false, &t, err, sizeof(err)))
		return cli_fail(command, "%s %s", path, err);
	if (json) {
		o = cli_json(command);
		json_object_set_new(o, "trace", trace_json(path, &t));
		replay_free(&t);
		return cli_json_print(o);
	}
	print_trace(path, &t);
	printf("\n%-14s %12s %12s\n", "operation", "times", "pages");
	for (unsigned i = 1; i < TRACE_OPCODES; i++) {
		if (!t.ops[i])
			continue;
		printf("%-14s %12" PRIu64, trace_opcode_name(i), t.ops[i]);
		if (t.pages[i])
			printf(" %12" PRIu64, t.pages[i]);
		printf("\n");
	}
	replay_free(&t);
	return cli_flush(command);
}

/* ---- the table ---------------------------------------------------------------- */

static void print_number(double v, int width)
{
	if (isfinite(v))
		printf(" %*.0f", width, v);
	else
		printf(" %*s", width, "-");
}

static void print_over_time(const struct replay_report *r)
{
	char a[CLI_TEXT_MAX];

	printf("\nmemory and hit ratio over time, by parts of the trace:\n%-14s %10s", "policy",
	       "size");
	for (unsigned i = 1; i <= TIMES; i++)
		printf(" %13u %%", i * 100 / TIMES);
	printf("\n");
	for (unsigned p = 0; p < r->npolicies; p++)
		for (unsigned s = 0; s < r->nsizes; s++) {
			const struct replay_result *o = report_at(r, p, s);

			printf("%-14s %10s", o->policy, cli_bytes(a, o->size_bytes, false));
			for (unsigned i = 1; i <= TIMES; i++) {
				const struct replay_sample *x = sample_at(o, (double)i / TIMES);

				printf(" %10s", x ? cli_bytes(a, x->memory_bytes, false) : "-");
				if (x && isfinite(x->hit_ratio))
					printf(" %3.0f%%", x->hit_ratio * 100);
				else
					printf("   - ");
			}
			printf("\n");
		}
}

int report_table(const struct replay_report *r)
{
	char a[CLI_TEXT_MAX], b[CLI_TEXT_MAX], c[CLI_TEXT_MAX], d[CLI_TEXT_MAX], e[CLI_TEXT_MAX];
	bool x = r->exact_bytes;

	print_trace(r->path, r->trace);
	printf("\n%-14s %12s %9s %11s %9s %12s %12s %12s %12s %7s %7s\n", "policy", "size", "found",
	       "evicted", "refused", "written", "unpacked", "fetched", "peak", "put ns", "get ns");
	for (unsigned s = 0; s < r->nsizes; s++) {
		for (unsigned p = 0; p < r->npolicies; p++) {
			const struct replay_result *o = report_at(r, p, s);

			printf("%-14s %12s %7.2f %% %11" PRIu64 " %9" PRIu64 " %12s %12s %12s %12s",
			       o->policy, cli_bytes(a, o->size_bytes, x), hit_ratio(o) * 100,
			       o->evicted_pages, o->refused, cli_bytes(b, o->stored_bytes, x),
			       cli_bytes(c, o->unpacked_bytes, x),
			       cli_bytes(d, o->fetched_bytes, x), cli_bytes(e, o->peak_bytes, x));
			print_number(o->put_ns, 7);
			print_number(o->get_ns, 7);
			printf("\n");
		}
	}
	print_over_time(r);
	return cli_flush("replay");
}

/* ---- JSON --------------------------------------------------------------------- */

static json_t *result_json(const struct replay_result *o)
{
	json_t *j = json_object(), *time = json_array();

	cli_json_text(j, "policy", o->policy);
	json_object_set_new(j, "model", json_boolean(o->model));
	cli_json_u64(j, "size_bytes", o->size_bytes);
	cli_json_u64(j, "asks", o->asks);
	cli_json_u64(j, "hits", o->hits);
	cli_json_real(j, "hit_ratio", hit_ratio(o));
	cli_json_u64(j, "puts", o->puts);
	cli_json_u64(j, "refused", o->refused);
	cli_json_u64(j, "evicted_pages", o->evicted_pages);
	cli_json_u64(j, "written_bytes", o->stored_bytes);
	cli_json_u64(j, "unpacked_bytes", o->unpacked_bytes);
	cli_json_u64(j, "fetched_bytes", o->fetched_bytes);
	cli_json_u64(j, "peak_bytes", o->peak_bytes);
	cli_json_real(j, "put_ns", o->put_ns);
	cli_json_real(j, "get_ns", o->get_ns);
	for (unsigned i = 0; i < o->samples; i++) {
		json_t *s = json_object();

		cli_json_real(s, "part", o->sample[i].part);
		cli_json_u64(s, "memory_bytes", o->sample[i].memory_bytes);
		cli_json_real(s, "hit_ratio", o->sample[i].hit_ratio);
		json_array_append_new(time, s);
	}
	json_object_set_new(j, "over_time", time);
	return j;
}

int report_json(const struct replay_report *r)
{
	json_t *o = cli_json("replay"), *all = json_array();

	json_object_set_new(o, "trace", trace_json(r->path, r->trace));
	for (unsigned p = 0; p < r->npolicies; p++)
		for (unsigned s = 0; s < r->nsizes; s++)
			json_array_append_new(all, result_json(report_at(r, p, s)));
	json_object_set_new(o, "results", all);
	return cli_json_print(o);
}

/* ---- the plot ----------------------------------------------------------------- */

/* Hit ratio by size; then, at the middle size, memory and hit ratio over time. */
int report_svg(const struct replay_report *r, const char *path)
{
	struct plot_panel panel[3] = {
		{.title = "Pages found, by size of the store",
		 .x_label = "size of the store",
		 .y_label = "found",
		 .x_bytes = true,
		 .percent = true},
		{.title = "Memory over time",
		 .x_label = "operations, % of the trace",
		 .y_label = "memory of the store",
		 .y_bytes = true},
		{.title = "Pages found over time",
		 .x_label = "operations, % of the trace",
		 .y_label = "found",
		 .percent = true},
	};
	unsigned middle = r->nsizes / 2, runs = r->npolicies;
	char size[CLI_TEXT_MAX], title[2][80];
	double *v = calloc((size_t)runs * (REPORT_SIZES * 2 + REPLAY_SAMPLES * 3), sizeof(*v));
	double *next = v;
	int rc;

	if (!v)
		return -ENOMEM;
	cli_bytes(size, r->size[middle], false);
	snprintf(title[0], sizeof(title[0]), "Memory over time, store of %s", size);
	snprintf(title[1], sizeof(title[1]), "Pages found over time, store of %s", size);
	panel[1].title = title[0];
	panel[2].title = title[1];
	for (unsigned p = 0; p < runs; p++) {
		const struct replay_result *m = report_at(r, p, middle);
		double *x = next, *y = x + r->nsizes, *part = y + r->nsizes;
		double *memory = part + m->samples, *found = memory + m->samples;

		next = found + m->samples;
		for (unsigned s = 0; s < r->nsizes; s++) {
			x[s] = (double)r->size[s];
			y[s] = hit_ratio(report_at(r, p, s));
		}
		for (unsigned i = 0; i < m->samples; i++) {
			part[i] = m->sample[i].part * 100;
			memory[i] = (double)m->sample[i].memory_bytes;
			found[i] = m->sample[i].hit_ratio;
		}
		panel[0].line[p] = (struct plot_line){m->policy, x, y, r->nsizes, PLOT_BY_PLACE};
		panel[1].line[p] =
			(struct plot_line){m->policy, part, memory, m->samples, PLOT_BY_PLACE};
		panel[2].line[p] =
			(struct plot_line){m->policy, part, found, m->samples, PLOT_BY_PLACE};
	}
	for (unsigned i = 0; i < 3; i++)
		panel[i].nlines = runs;
	rc = plot_write(path, r->path, panel, 3);
	free(v);
	return rc;
}
