/* SPDX-License-Identifier: BSD-2-Clause */
/* SVG line charts; see plot.h. */
#include "cli/plot.h"

#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* In pixels. A panel: title above, chart, axis labels below, legend to the right. */
#define WIDTH	       900
#define LEFT	       96
#define CHART_W	       560
#define CHART_H	       250
#define TOP	       64 /* of the whole: title of the plot */
#define PANEL_H	       370
#define LEGEND_X       (LEFT + CHART_W + 28)
#define NAME_MAX_CHARS 22

/*
 * Colours of lines, on white and on nearly black. Classes that start with tp, so that a page may
 * have its own; the sheet is the same in every plot of a page.
 */
static const char *const colours[][2] = {{"#0072b2", "#4ba3e3"}, {"#d55e00", "#ff8a3c"},
					 {"#009e73", "#2fc59b"}, {"#cc79a7", "#e29cc4"},
					 {"#56b4e9", "#8fd0f5"}, {"#a06a00", "#d2a24a"},
					 {"#000000", "#f0f0f0"}, {"#7a52c7", "#b196ec"}};
static const char *const dashes[] = {"", "7 3", "2 3", "10 3 2 3", "", "7 3", "2 3", "10 3 2 3"};
#define N_COLOURS (sizeof(colours) / sizeof(colours[0]))

static void style_sheet(FILE *f)
{
	static const char *const surface[2] = {
		".tpb{fill:#fff}.tpt{fill:#222}.tpg{stroke:#ddd}.tpa{stroke:#444}"
		".tpl{stroke:#b00020}",
		".tpb{fill:#14161a}.tpt{fill:#ddd}.tpg{stroke:#3a3d44}.tpa{stroke:#9aa0a8}"
		".tpl{stroke:#ff6b6b}"};

	fputs("<style>", f);
	for (unsigned dark = 0; dark < 2; dark++) {
		fprintf(f, "%s%s", dark ? "@media (prefers-color-scheme:dark){" : "",
			surface[dark]);
		for (unsigned i = 0; i < N_COLOURS; i++)
			fprintf(f, ".tp%u{stroke:%s}.tpf%u{fill:%s}", i, colours[i][dark], i,
				colours[i][dark]);
	}
	fputs("}</style>\n", f);
}

struct axis {
	double low, high, step;
	bool log; /* low and high are powers of ten */
};

/* Where a value lies on it, 0..1. */
static double place(const struct axis *a, double v)
{
	return a->log ? (log10(v) - log10(a->low)) / (log10(a->high) - log10(a->low))
		      : (v - a->low) / (a->high - a->low);
}

/* Names come from the user: nothing of them may be markup. */
static void text(FILE *f, double x, double y, const char *anchor, const char *style, const char *s,
		 size_t most)
{
	fprintf(f, "<text class=\"tpt\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>", x, y, anchor,
		style);
	for (size_t i = 0; s[i] && i < most; i++) {
		if (s[i] == '<')
			fputs("&lt;", f);
		else if (s[i] == '>')
			fputs("&gt;", f);
		else if (s[i] == '&')
			fputs("&amp;", f);
		else if ((unsigned char)s[i] >= 32 && (unsigned char)s[i] < 127)
			fputc(s[i], f);
		else
			fputc('?', f);
	}
	fputs("</text>\n", f);
}

/* Round steps, at most six of them; bytes in powers of two of a unit. */
static struct axis make_axis(double low, double high, bool bytes)
{
	static const double nice[] = {1, 2, 5, 10};
	static const double nice_bytes[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
	struct axis a = {.low = low, .high = high, .step = 1};
	double unit = 1;

	if (!(high > low))
		a.high = low + 1;
	if (bytes) {
		while (unit * 1024 * 6 <= a.high - a.low)
			unit *= 1024;
		for (size_t i = 0; i < sizeof(nice_bytes) / sizeof(nice_bytes[0]); i++) {
			a.step = unit * nice_bytes[i];
			if ((a.high - a.low) / a.step <= 6)
				break;
		}
	} else {
		unit = pow(10, floor(log10((a.high - a.low) / 6)));
		for (size_t i = 0; i < sizeof(nice) / sizeof(nice[0]); i++) {
			a.step = unit * nice[i];
			if ((a.high - a.low) / a.step <= 6)
				break;
		}
	}
	a.high = ceil(a.high / a.step - 1e-9) * a.step;
	return a;
}

/* Seconds, exactly as far as they go: half a plot of nothing would follow a minute and a bit. */
static struct axis make_time_axis(double high)
{
	static const double nice[] = {0.1, 0.2, 0.5, 1,	  2,   5,    10,   15,	  30,
				      60,  120, 300, 600, 900, 1800, 3600, 10800, 21600};
	struct axis a = {.high = high > 0 ? high : 1, .step = nice[0]};

	for (size_t i = 1; i < sizeof(nice) / sizeof(nice[0]) && a.high / a.step > 8; i++)
		a.step = nice[i];
	while (a.high / a.step > 8)
		a.step *= 2;
	return a;
}

static struct axis make_log_axis(double low, double high)
{
	struct axis a = {.log = true};

	a.low = low > 0 && isfinite(low) ? pow(10, floor(log10(low) + 1e-9)) : 1;
	a.high = high > a.low ? pow(10, ceil(log10(high) - 1e-9)) : a.low;
	if (a.high < a.low * 10)
		a.high = a.low * 10;
	return a;
}

static void number_text(char *to, size_t n, double v)
{
	if (fabs(v) >= 1e6)
		snprintf(to, n, "%gM", v / 1e6);
	else if (fabs(v) >= 1e4)
		snprintf(to, n, "%gk", v / 1e3);
	else
		snprintf(to, n, "%g", v);
}

/* In the unit of the axis' steps, so that all its ticks have the same. */
static void seconds_text(char *to, size_t n, double v, double step)
{
	if (step >= 3600)
		snprintf(to, n, "%g h", v / 3600);
	else if (step >= 60)
		snprintf(to, n, "%g min", v / 60);
	else
		snprintf(to, n, "%.*f s", step < 1, v);
}

/* "128 MiB", and "1.5 GiB". */
static void bytes_text(char *to, size_t n, double v)
{
	char size[CLI_TEXT_MAX], *zero;

	snprintf(to, n, "%s", v < 1 ? "0" : cli_bytes(size, (unsigned long long)v, false));
	zero = strstr(to, ".0 ");
	if (zero)
		memmove(zero, zero + 2, strlen(zero + 2) + 1);
}

static void y_text(char *to, size_t n, const struct plot_panel *p, double v)
{
	if (p->y_bytes)
		bytes_text(to, n, v);
	else if (p->percent)
		snprintf(to, n, "%.0f %%", v * 100);
	else if (p->y_log_us && v >= 1e6)
		snprintf(to, n, "%g s", v / 1e6);
	else if (p->y_log_us)
		snprintf(to, n, v >= 1e3 ? "%g ms" : "%g us", v >= 1e3 ? v / 1e3 : v);
	else
		number_text(to, n, v);
}

static void x_text(char *to, size_t n, const struct plot_panel *p, const struct axis *x, double v)
{
	if (p->x_bytes)
		bytes_text(to, n, v);
	else if (p->x_seconds)
		seconds_text(to, n, v, x->step);
	else
		number_text(to, n, v);
}

static void extent(const struct plot_panel *p, bool y, double *low, double *high)
{
	*high = 0;
	*low = INFINITY;
	for (unsigned i = 0; i < p->nlines; i++)
		for (size_t k = 0; k < p->line[i].n; k++) {
			double v = y ? p->line[i].y[k] : p->line[i].x[k];

			if (!isfinite(v) || !isfinite(p->line[i].y[k]))
				continue;
			if (v > *high)
				*high = v;
			if (v > 0 && v < *low)
				*low = v;
		}
}

static double next_tick(const struct axis *a, unsigned i)
{
	return a->log ? a->low * pow(10, i) : a->low + i * a->step;
}

static void draw_axes(FILE *f, const struct plot_panel *p, const struct axis *x,
		      const struct axis *y, double top)
{
	char tick[48];
	double v;

	for (unsigned i = 0; (v = next_tick(y, i)) <= y->high * (1 + 1e-9); i++) {
		double at = top + CHART_H * (1 - place(y, v));

		fprintf(f, "<path class=\"tpg\" d=\"M%d %.1fh%d\"/>\n", LEFT, at, CHART_W);
		y_text(tick, sizeof(tick), p, v);
		text(f, LEFT - 8, at + 4, "end", "", tick, 40);
	}
	for (unsigned i = 0; (v = next_tick(x, i)) <= x->high * (1 + 1e-9); i++) {
		double at = LEFT + CHART_W * place(x, v);

		fprintf(f, "<path class=\"tpa\" d=\"M%.1f %.1fv6\"/>\n", at, top + CHART_H);
		x_text(tick, sizeof(tick), p, x, v);
		text(f, at, top + CHART_H + 20, "middle", "", tick, 40);
	}
	fprintf(f, "<path class=\"tpa\" d=\"M%d %.1fv%dh%d\" fill=\"none\"/>\n", LEFT, top, CHART_H,
		CHART_W);
	text(f, LEFT, top - 14, "start", " font-weight=\"bold\"", p->title, 90);
	text(f, LEFT + CHART_W / 2.0, top + CHART_H + 42, "middle", "", p->x_label, 80);
	fprintf(f, "<g transform=\"translate(18 %.1f) rotate(-90)\">", top + CHART_H / 2.0);
	text(f, 0, 0, "middle", "", p->y_label, 40);
	fputs("</g>\n", f);
}

static bool drawn(const struct plot_line *l, size_t k)
{
	return k < l->n && isfinite(l->y[k]) && isfinite(l->x[k]);
}

/* Class, width and dashes of the i-th line. */
static void stroke(FILE *f, const struct plot_line *l, unsigned i, double width)
{
	bool solid = l->style == PLOT_SOLID || l->style == PLOT_FILLED;

	if (l->style == PLOT_LIMIT)
		fprintf(f, " class=\"tpl\" stroke-width=\"%.1f\" stroke-dasharray=\"9 4\"/>\n",
			width);
	else
		fprintf(f, " class=\"tp%u\" stroke-width=\"%.1f\" stroke-dasharray=\"%s\"/>\n",
			i % (unsigned)N_COLOURS, width, solid ? "" : dashes[i % N_COLOURS]);
}

static void draw_line(FILE *f, const struct plot_line *l, unsigned i, const struct axis *x,
		      const struct axis *y, double top)
{
	for (unsigned fill = l->style != PLOT_FILLED; fill < 2; fill++) {
		double first = 0, last = 0;

		fputs("<path d=\"", f);
		for (size_t k = 0; k < l->n; k++) {
			if (!drawn(l, k))
				continue;
			last = LEFT + CHART_W * place(x, l->x[k]);
			if (!k || !drawn(l, k - 1))
				first = last;
			fprintf(f, "%c%.1f %.1f", k && drawn(l, k - 1) ? 'L' : 'M', last,
				top + CHART_H * (1 - place(y, l->y[k])));
			if (!fill && !drawn(l, k + 1))
				fprintf(f, "V%.1fH%.1fZ", top + CHART_H, first);
		}
		if (fill) {
			fputs("\" fill=\"none\" stroke-linejoin=\"round\"", f);
			stroke(f, l, i, l->n > 100 ? 1.5 : 2);
		} else {
			fprintf(f, "\" class=\"tpf%u\" stroke=\"none\" fill-opacity=\"0.15\"/>\n",
				i % (unsigned)N_COLOURS);
		}
	}
	/* Points that no line would show, and few points anyway. */
	for (size_t k = 0; k < l->n; k++)
		if (drawn(l, k) && (l->n <= 12 || (!(k && drawn(l, k - 1)) && !drawn(l, k + 1))))
			fprintf(f, "<circle class=\"tpf%u\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"/>\n",
				i % (unsigned)N_COLOURS, LEFT + CHART_W * place(x, l->x[k]),
				top + CHART_H * (1 - place(y, l->y[k])), l->n <= 12 ? "3" : "1.5");
}

static void draw_panel(FILE *f, const struct plot_panel *p, double top)
{
	struct axis x, y;
	double low, high;

	extent(p, false, &low, &high);
	x = p->x_seconds ? make_time_axis(high) : make_axis(0, high, p->x_bytes);
	extent(p, true, &low, &high);
	y = p->y_log_us ? make_log_axis(low, high)
			: make_axis(0, p->percent && high > 0.5 ? 1 : high, p->y_bytes);
	draw_axes(f, p, &x, &y, top);
	for (unsigned i = 0; i < p->nlines; i++) {
		double at = top + 10 + i * 22;

		draw_line(f, &p->line[i], i, &x, &y, top);
		fprintf(f, "<path d=\"M%d %.1fh28\"", LEGEND_X, at);
		stroke(f, &p->line[i], i, 3);
		text(f, LEGEND_X + 36, at + 4, "start", "", p->line[i].name, NAME_MAX_CHARS);
	}
}

void plot_svg(FILE *f, const char *title, const struct plot_panel *panel, unsigned npanels)
{
	int top = title ? TOP : TOP - 30;
	int height = top + PANEL_H * (int)npanels;

	fprintf(f,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
		"viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"13\" "
		"role=\"img\">\n",
		WIDTH, height, WIDTH, height);
	style_sheet(f);
	fputs("<rect class=\"tpb\" width=\"100%\" height=\"100%\"/>\n", f);
	if (title)
		text(f, LEFT, 26, "start", " font-size=\"16\"", title, 90);
	for (unsigned i = 0; i < npanels; i++)
		draw_panel(f, &panel[i], top + 10 + (double)PANEL_H * i);
	fputs("</svg>\n", f);
}

int plot_write(const char *path, const char *title, const struct plot_panel *panel,
	       unsigned npanels)
{
	FILE *f = fopen(path, "we");

	if (!f)
		return -errno;
	errno = 0;
	plot_svg(f, title, panel, npanels);
	return cli_close(f, path);
}
