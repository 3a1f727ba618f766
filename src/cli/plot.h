/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small writer of SVG: line charts in panels, one above the other, with a
 * legend to the right of each, so that no text can lie over a line or over
 * other text. Colours are told apart by people who confuse red and green too,
 * and lines also differ in their dashes.
 */
#ifndef TMEM_CLI_PLOT_H
#define TMEM_CLI_PLOT_H

#include <stdbool.h>
#include <stddef.h>

#define PLOT_LINES 12u

struct plot_line {
	const char *name; /* in the legend; at most 22 characters are shown */
	const double *x, *y;
	size_t n; /* points with y not finite are left out, and the line has a gap */
};

struct plot_panel {
	const char *title, *x_label, *y_label;
	struct plot_line line[PLOT_LINES];
	unsigned nlines;
	bool x_bytes, y_bytes; /* ticks as sizes */
	bool percent;	       /* y is 0..1, ticks as percent */
};

/* Write the file. 0 or -errno. */
int plot_write(const char *path, const char *title, const struct plot_panel *panel,
	       unsigned npanels) __attribute__((warn_unused_result));

#endif
