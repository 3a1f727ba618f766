/* SPDX-License-Identifier: BSD-2-Clause */
/* tmem report: what `tmem run --report FILE` wrote, for people to look at. */
#include "cli/run_report.h"

#include "cli/cli.h"

#include "os/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ABOUT                                                                                      \
	"Draw what `tmem run --report FILE` has written: one page of HTML that needs nothing\n"    \
	"else, with the memory, faults, times and ratio over time, and a table of all figures.\n"  \
	"Several files make one page. With -o FILE.svg the plots alone, of one file."

#define FILES_MAX 64

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

static int write_svg(const struct run_report *r, const char *path)
{
	struct run_plots p = {.values = NULL};
	int rc;

	if (!r->n)
		return cli_fail("report", "%s: no figures over time in it", r->path);
	rc = run_plots_make(r, &p);
	if (rc == 0)
		rc = plot_write(path, r->path, p.panel, RUN_REPORT_PANELS);
	run_plots_free(&p);
	return rc < 0 ? cli_fail("report", "%s: %s", path, strerror(-rc)) : CLI_OK;
}

/* To a file, or to stdout. */
static int write_page(const struct run_report *r, size_t n, const char *path)
{
	FILE *f = path ? fopen(path, "we") : stdout;
	int rc, err;

	if (!f)
		return cli_fail("report", "%s: %s", path, strerror(errno));
	errno = 0;
	rc = run_page_write(f, r, n);
	if (!path)
		return rc < 0 ? cli_fail("report", "%s", strerror(-rc)) : cli_flush("report");
	err = cli_close(f, path);
	if (rc < 0 && !err)
		os_file_discard(path);
	if (rc == 0)
		rc = err;
	return rc < 0 ? cli_fail("report", "%s: %s", path, strerror(-rc)) : CLI_OK;
}

int cmd_report(int argc, char **argv)
{
	const char *out = NULL;
	const struct cli_option options[] = {
		{"output", 'o', CLI_TEXT, &out, "FILE",
		 "write there; FILE.svg: the plots alone; default: to stdout", 0, 0},
		{NULL, 0, CLI_FLAG, NULL, NULL, NULL, 0, 0},
	};
	const struct cli_syntax syntax = {"report", "FILE...", ABOUT, options, false};
	struct run_report *r;
	int files, rc = cli_parse(&syntax, argc, argv, &files), loaded;
	bool svg;

	if (rc >= 0)
		return rc;
	svg = out && ends_with(out, ".svg");
	if (files < 1)
		return cli_usage("report", "which report?");
	if (files > FILES_MAX)
		return cli_usage("report", "at most %d files at once", FILES_MAX);
	if (svg && files > 1)
		return cli_usage("report", "plots alone are of one file");
	if (!out && isatty(STDOUT_FILENO))
		return cli_usage("report", "a page is nothing for a terminal: -o FILE.html");
	for (int i = 0; out && i < files; i++)
		if (cli_same_file(out, argv[1 + i]))
			return cli_usage("report", "--output: '%s' is a report that is to be read",
					 out);
	r = calloc((size_t)files, sizeof(*r));
	if (!r)
		return cli_fail("report", "no memory");
	rc = CLI_OK;
	for (loaded = 0; loaded < files && rc == CLI_OK; loaded++)
		rc = run_report_load(argv[1 + loaded], &r[loaded]);
	if (rc == CLI_OK)
		rc = svg ? write_svg(r, out) : write_page(r, (size_t)files, out);
	while (loaded)
		run_report_free(&r[--loaded]);
	free(r);
	return rc;
}
