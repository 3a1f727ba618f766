/* SPDX-License-Identifier: BSD-2-Clause */
/* The page of tmem report: one file that needs nothing else, with a table and plots. */
#include "cli/cli.h"
#include "cli/run_report.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum unit { COUNT, BYTES, SECONDS, MICROSECONDS, RATIO };

/* What the table says, and in which order. */
static const struct row {
	const char *key, *what;
	enum unit unit;
	const char *part_of; /* a key; the value is also shown as a part of it */
} rows[] = {
	{"wall_s", "time from start to end", SECONDS, NULL},
	{"limit_bytes", "limit", BYTES, NULL},
	{"peak_total_bytes", "largest total: program and store", BYTES, "limit_bytes"},
	{"peak_resident_bytes", "largest resident memory of the program", BYTES, "limit_bytes"},
	{"over_limit_s", "time over the limit", SECONDS, "wall_s"},
	{"store_bytes", "largest store, with all it needs", BYTES, "limit_bytes"},
	{"stored_pages", "most pages stored at once", COUNT, NULL},
	{"compressed_bytes", "their compressed size", BYTES, NULL},
	{"same_filled_pages", "of them, filled with one byte", COUNT, "stored_pages"},
	{"ratio", "compression: original over compressed", RATIO, NULL},
	{"evicted_pages", "pages that left", COUNT, NULL},
	{"unchanged_pages", "of them, as they had come", COUNT, "evicted_pages"},
	{"refused_pages", "pages that did not compress, or had no room", COUNT, NULL},
	{"pages_in", "pages brought back", COUNT, NULL},
	{"faults", "faults", COUNT, NULL},
	{"faults_stored", "of them, on stored pages", COUNT, "faults"},
	{"faults_fresh", "of them, first touches", COUNT, "faults"},
	{"fault_us_p50", "half of the faults took at most", MICROSECONDS, NULL},
	{"fault_us_p99", "99 % of the faults took at most", MICROSECONDS, NULL},
	{"overflow_moved_pages", "pages moved to the overflow file", COUNT, NULL},
	{"processes", "processes", COUNT, NULL},
	{"forks", "forks", COUNT, NULL},
	{"saved_bytes_mean", "saved, on the average", BYTES, "bare_bytes_mean"},
	{"bare_bytes_mean", "what the program would have held, on the average", BYTES, NULL},
	{"working_set_bytes", "memory in use, on the average", BYTES, "bare_bytes_mean"},
	{"cold_s", "untouched for so long: cold", SECONDS, NULL},
	{"promotions", "pages that came back when they were touched", COUNT, NULL},
	{"promotions_percent", "of the memory in use, a minute: percent", RATIO, NULL},
	{"breaches", "times that it was more than wanted", COUNT, NULL},
	{"thrash_s", "thrashing was found after", SECONDS, NULL},
	{"enough_limit_bytes", "limit that would have been enough, estimated", BYTES, NULL},
};
#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static const char head[] =
	"<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
	"<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
	"<meta name=\"color-scheme\" content=\"light dark\">\n<title>tmem run: report</title>\n"
	"<style>\n"
	"body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1240px;padding:1.2rem;"
	"background:#f6f7f9;color:#222}\n"
	"h1{font-size:1.5rem;margin:.2rem 0 1rem}h2{font-size:1.15rem;margin:2rem 0 .6rem}\n"
	".card{background:#fff;border:1px solid #dcdfe4;border-radius:8px;padding:.4rem 1rem;"
	"overflow-x:auto}\n"
	".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(34rem,100%),1fr));"
	"gap:.8rem}\n"
	".plots svg{display:block;width:100%;height:auto}\n"
	"table{border-collapse:collapse;width:100%}\n"
	"th,td{padding:.28rem .7rem;border-bottom:1px solid #e6e8ec;text-align:right;"
	"white-space:nowrap;font-variant-numeric:tabular-nums}\n"
	"th:first-child,td:first-child,td:nth-child(2){text-align:left}\n"
	"tr:last-child td{border-bottom:0}\n"
	"small,code{color:#667;font-size:.85em}\n"
	".note{border-left:4px solid #b00020;padding:.3rem .8rem;margin:.6rem 0;"
	"background:#fff}\n"
	"@media (prefers-color-scheme:dark){body{background:#0d0f12;color:#ddd}"
	".card,.note{background:#14161a;border-color:#2b2f36}th,td{border-color:#262a30}"
	"small,code{color:#9aa0a8}.note{border-left-color:#ff6b6b}}\n"
	"</style></head><body>\n<h1>tmem run: report</h1>\n";

static void escaped(FILE *f, const char *s)
{
	for (; *s; s++) {
		if (*s == '<')
			fputs("&lt;", f);
		else if (*s == '>')
			fputs("&gt;", f);
		else if (*s == '&')
			fputs("&amp;", f);
		else if (*s == '"')
			fputs("&quot;", f);
		else
			fputc((unsigned char)*s < 32 ? '?' : *s, f);
	}
}

static void value_cell(FILE *f, const struct run_report *r, const struct row *row)
{
	double v = run_report_figure(r, row->key);
	double all = row->part_of ? run_report_figure(r, row->part_of) : NAN;
	char size[CLI_TEXT_MAX];

	if (!isfinite(v)) {
		fputs("<td>&ndash;</td>", f);
		return;
	}
	fprintf(f, "<td title=\"%.15g\">", v);
	switch (row->unit) {
	case BYTES:
		/* What was saved may be below 0. */
		fprintf(f, "%s%s", v < 0 ? "-" : "",
			fabs(v) < 9e18 ? cli_bytes(size, (uint64_t)fabs(v), false) : "?");
		break;
	case SECONDS:
		fprintf(f, "%.*f s", v < 10 ? 3 : 1, v);
		break;
	case MICROSECONDS:
		fprintf(f, v < 10000 ? "%.1f us" : "%.1f ms", v < 10000 ? v : v / 1000);
		break;
	case RATIO:
		fprintf(f, "%.2f", v);
		break;
	case COUNT:
		fprintf(f, "%.0f", v);
		break;
	}
	if (isfinite(all) && all > 0)
		fprintf(f, " <small>%.1f %%</small>", v / all * 100);
	fputs("</td>", f);
}

static void table(FILE *f, const struct run_report *r, size_t n)
{
	const char *codec;

	fputs("<div class=\"card\"><table>\n<tr><th>figure</th><th></th>", f);
	for (size_t i = 0; i < n; i++) {
		fputs("<th>", f);
		escaped(f, r[i].path);
		fputs("</th>", f);
	}
	fputs("</tr>\n<tr><td>codec, pages stored together</td><td><code>codec</code></td>", f);
	for (size_t i = 0; i < n; i++) {
		codec = json_string_value(json_object_get(r[i].json, "codec"));
		fputs("<td>", f);
		escaped(f, codec ? codec : "?");
		fprintf(f, ", %.0f</td>", fmax(0, run_report_figure(&r[i], "cluster_pages")));
	}
	fputs("</tr>\n", f);
	for (size_t k = 0; k < N_ROWS; k++) {
		bool known = false;

		for (size_t i = 0; i < n; i++)
			known |= isfinite(run_report_figure(&r[i], rows[k].key));
		if (!known)
			continue;
		fprintf(f, "<tr><td>%s</td><td><code>%s</code></td>", rows[k].what, rows[k].key);
		for (size_t i = 0; i < n; i++)
			value_cell(f, &r[i], &rows[k]);
		fputs("</tr>\n", f);
	}
	fputs("</table></div>\n", f);
}

/* What a reader should not have to find by himself. */
static void notes(FILE *f, const struct run_report *r)
{
	double enough = run_report_figure(r, "enough_limit_bytes");
	double over = run_report_figure(r, "over_limit_s"), wall = run_report_figure(r, "wall_s");
	char size[CLI_TEXT_MAX];

	if (enough > 0 && enough < 9e18)
		fprintf(f,
			"<p class=\"note\">The program waited for its own pages most of the time: "
			"the limit is too low for what it works on. An estimate of what would be "
			"enough: %s.</p>\n",
			cli_bytes(size, (uint64_t)enough, false));
	if (over > wall / 20 && over > 0.25)
		fprintf(f,
			"<p class=\"note\">The total was over the limit for %.1f of %.1f s: there "
			"was memory that could not leave (it does not compress, or is locked or "
			"shared), or that came faster than any could.</p>\n",
			over, wall);
}

static int plots(FILE *f, const struct run_report *r)
{
	struct run_plots p = {.values = NULL};
	int rc = run_plots_make(r, &p);

	if (rc < 0)
		return rc;
	fputs("<div class=\"plots\">\n", f);
	for (unsigned i = 0; i < RUN_REPORT_PANELS; i++) {
		fputs("<div class=\"card\">", f);
		plot_svg(f, NULL, &p.panel[i], 1);
		fputs("</div>\n", f);
	}
	fputs("</div>\n", f);
	run_plots_free(&p);
	return 0;
}

int run_page_write(FILE *f, const struct run_report *r, size_t n)
{
	int rc = 0;

	fputs(head, f);
	for (size_t i = 0; i < n && rc == 0; i++) {
		fputs("<h2>", f);
		escaped(f, r[i].path);
		fputs("</h2>\n", f);
		notes(f, &r[i]);
		if (r[i].n)
			rc = plots(f, &r[i]);
		else
			fputs("<p>This report has no figures over time.</p>\n", f);
	}
	fputs("<h2>Figures</h2>\n", f);
	table(f, r, n);
	fputs("</body></html>\n", f);
	return rc;
}
