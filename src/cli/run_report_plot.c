/* SPDX-License-Identifier: BSD-2-Clause */
/* The plots of a run: what each column of the series is drawn as. */
#include "cli/run_report.h"

#include "os/check.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#define PAGE   4096.0
#define VALUES 13u /* computed columns */

static const struct plot_panel heads[RUN_REPORT_PANELS] = {
	{.title = "Memory", .y_label = "memory", .y_bytes = true},
	{.title = "Faults", .y_label = "faults a second"},
	{.title = "Time of a fault", .y_label = "time, logarithmic", .y_log_us = true},
	{.title = "Pages that leave and come back", .y_label = "pages a second"},
	{.title = "What the store makes of its pages", .y_label = "original size / memory"},
	{.title = "Where the time goes (1: one thread, all the time)",
	 .y_label = "seconds a second"},
};

static void add(struct plot_panel *p, const struct run_report *r, const char *name, const double *y,
		enum plot_style style)
{
	p->line[p->nlines++] = (struct plot_line){name, r->column[COL_T], y, r->n, style};
}

/* A column as what it is in a second. */
static const double *rate(const struct run_report *r, enum run_column c, double **next)
{
	double *y = *next;

	for (size_t i = 0; i < r->n; i++)
		y[i] = r->column[c][i] / (r->column[COL_T][i] - (i ? r->column[COL_T][i - 1] : 0));
	*next += r->n;
	return y;
}

/* What the stored pages were over what they take; a gap where nothing is stored. */
static const double *ratio(const struct run_report *r, enum run_column c, double **next)
{
	double *y = *next;

	for (size_t i = 0; i < r->n; i++)
		y[i] = r->column[COL_STORED_PAGES][i] >= 1 && r->column[c][i] > 0
			       ? r->column[COL_STORED_PAGES][i] * PAGE / r->column[c][i]
			       : NAN;
	*next += r->n;
	return y;
}

static const double *original(const struct run_report *r, double **next)
{
	double *y = *next;

	for (size_t i = 0; i < r->n; i++)
		y[i] = r->column[COL_STORED_PAGES][i] * PAGE;
	*next += r->n;
	return y;
}

/* For a logarithmic axis. */
static const double *above_0(const struct run_report *r, enum run_column c, double **next)
{
	double *y = *next;

	for (size_t i = 0; i < r->n; i++)
		y[i] = r->column[c][i] > 0 ? r->column[c][i] : NAN;
	*next += r->n;
	return y;
}

int run_plots_make(const struct run_report *r, struct run_plots *plots)
{
	struct plot_panel *p = plots->panel;
	double *next = calloc(r->n * VALUES, sizeof(*next));

	plots->values = next;
	if (!next)
		return -ENOMEM;
	for (unsigned i = 0; i < RUN_REPORT_PANELS; i++) {
		p[i] = heads[i];
		p[i].x_label = "time since the start";
		p[i].x_seconds = true;
	}
	add(&p[0], r, "total", r->column[COL_TOTAL], PLOT_FILLED);
	add(&p[0], r, "resident", r->column[COL_RESIDENT], PLOT_FILLED);
	add(&p[0], r, "store", r->column[COL_STORE], PLOT_SOLID);
	add(&p[0], r, "stored pages, original", original(r, &next), PLOT_SOLID);
	if (r->column[COL_BARE] && r->column[COL_WORKING_SET]) { /* it has no limit */
		add(&p[0], r, "by itself", r->column[COL_BARE], PLOT_LIMIT);
		add(&p[0], r, "working set", r->column[COL_WORKING_SET], PLOT_SOLID);
	} else {
		add(&p[0], r, "limit", r->column[COL_LIMIT], PLOT_LIMIT);
	}
	add(&p[1], r, "from the store", rate(r, COL_FAULTS_STORED, &next), PLOT_SOLID);
	add(&p[1], r, "first touches", rate(r, COL_FAULTS_FRESH, &next), PLOT_SOLID);
	add(&p[2], r, "p50", above_0(r, COL_P50, &next), PLOT_SOLID);
	add(&p[2], r, "p99", above_0(r, COL_P99, &next), PLOT_SOLID);
	add(&p[3], r, "evicted", rate(r, COL_EVICTED, &next), PLOT_SOLID);
	add(&p[3], r, "brought in", rate(r, COL_PAGES_IN, &next), PLOT_SOLID);
	add(&p[4], r, "compression", ratio(r, COL_COMPRESSED, &next), PLOT_SOLID);
	add(&p[4], r, "all of the store", ratio(r, COL_STORE, &next), PLOT_SOLID);
	add(&p[5], r, "program computes", rate(r, COL_PROGRAM_CPU, &next), PLOT_SOLID);
	add(&p[5], r, "program waits", rate(r, COL_WAIT, &next), PLOT_SOLID);
	add(&p[5], r, "tmem computes", rate(r, COL_OWN_CPU, &next), PLOT_SOLID);
	add(&p[5], r, "over the limit", rate(r, COL_OVER, &next), PLOT_LIMIT);
	tmem_must(next == plots->values + r->n * VALUES);
	return 0;
}

void run_plots_free(struct run_plots *p)
{
	free(p->values);
	p->values = NULL;
}
