/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem report: what `tmem run --report` wrote, as a page or a plot.
 *
 *   run_report_load.c   the file: read, and every field checked before it is used
 *   run_report_plot.c   panels of plots
 *   run_report_page.c   the page
 *   run_report.c        the command
 */
#ifndef TMEM_CLI_RUN_REPORT_H
#define TMEM_CLI_RUN_REPORT_H

#include "cli/plot.h"

#include <jansson.h>

#define RUN_REPORT_SAMPLES_MAX 100000u
#define RUN_REPORT_PANELS      6u

/* Columns of the series that are drawn. */
enum run_column {
	COL_T,
	COL_RESIDENT,
	COL_TOTAL,
	COL_LIMIT,
	COL_STORE,
	COL_COMPRESSED,
	COL_STORED_PAGES,
	COL_FAULTS_STORED,
	COL_FAULTS_FRESH,
	COL_EVICTED,
	COL_PAGES_IN,
	COL_OVER,
	COL_WAIT,
	COL_PROGRAM_CPU,
	COL_OWN_CPU,
	COL_P50,
	COL_P99,
	/* of --limit auto: not in every report, NULL then */
	COL_BARE,
	COL_WORKING_SET,
	RUN_COLUMNS
};

struct run_report {
	const char *path;
	json_t *json; /* an object with the figures that every report has */
	size_t n;     /* samples; 0: it has no series */
	double *column[RUN_COLUMNS];
};

/*
 * Read a report and check it. 0; or CLI_FAILED, with one line on stderr that says where the file is
 * wrong. Afterwards run_report_free() in both cases.
 */
int run_report_load(const char *path, struct run_report *r) __attribute__((warn_unused_result));
void run_report_free(struct run_report *r);
/* A figure by its key; NAN when the report does not have it. */
double run_report_figure(const struct run_report *r, const char *key);

/* The panels of a report with a series, and the numbers they show. */
struct run_plots {
	struct plot_panel panel[RUN_REPORT_PANELS];
	double *values;
};
/* 0 or -ENOMEM. Its lines point into the report and into itself. */
int run_plots_make(const struct run_report *r, struct run_plots *p)
	__attribute__((warn_unused_result));
void run_plots_free(struct run_plots *p);

/* The page, of n reports, to f. 0 or -ENOMEM; errors of f are the caller's. */
int run_page_write(FILE *f, const struct run_report *r, size_t n)
	__attribute__((warn_unused_result));

#endif
