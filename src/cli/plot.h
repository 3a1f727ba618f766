/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small writer of SVG: line charts in panels, one above the other, with a
 * legend to the right of each, so that no text can lie over a line or over
 * other text. Colours are told apart by people who confuse red and green too,
 * and lines also differ in their dashes. Who prefers a dark page gets dark
 * plots: colours are classes, in a style sheet that each plot brings along.
 */
#ifndef TMEM_CLI_PLOT_H
#define TMEM_CLI_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define PLOT_LINES 12u

enum plot_style {
	PLOT_BY_PLACE, /* colour and dashes differ from line to line */
	PLOT_SOLID,    /* for lines with many points */
	PLOT_FILLED,   /* the same, with the area below it */
	PLOT_LIMIT,    /* not a measurement: a mark to hold others against */
};

struct plot_line {
	const char *name; /* in the legend; at most 22 characters are shown */
	const double *x, *y;
	size_t n; /* points with y not finite are left out, and the line has a gap */
	enum plot_style style;
};

struct plot_panel {
	const char *title, *x_label, *y_label;
	struct plot_line line[PLOT_LINES];
	unsigned nlines;
	bool x_bytes, y_bytes; /* ticks as sizes */
	bool percent;	       /* y is 0..1, ticks as percent */
	bool x_seconds;	       /* ticks as times */
	bool y_log_us;	       /* y is in microseconds, above 0, on a logarithmic axis */
};

/* One svg element, to be written into a page; without its title when that is NULL. */
void plot_svg(FILE *f, const char *title, const struct plot_panel *panel, unsigned npanels);
/* Write the file. 0 or -errno. */
int plot_write(const char *path, const char *title, const struct plot_panel *panel,
	       unsigned npanels) __attribute__((warn_unused_result));

#endif
