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

static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
				      "#56b4e9", "#a06a00", "#000000", "#7a52c7"};
static const char *const dashes[] = {"", "7 3", "2 3", "10 3 2 3", "", "7 3", "2 3", "10 3 2 3"};
#define N_COLOURS (sizeof(colours) / sizeof(colours[0]))

struct axis {
	double low, high, step;
};

/* Names come from the user: nothing of them may be markup. */
static void text(FILE *f, double x, double y, const char *anchor, const char *style, const char *s,
		 size_t most)
{
	fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>", x, y, anchor, style);
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
	struct axis a = {low, high, 1};
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

static void tick_text(char *to, size_t n, double v, bool bytes, bool percent)
{
	char size[CLI_TEXT_MAX];

	if (bytes)
		snprintf(to, n, "%s", v < 1 ? "0" : cli_bytes(size, (unsigned long long)v, false));
	else if (percent)
		snprintf(to, n, "%.0f %%", v * 100);
	else
		snprintf(to, n, "%g", v);
}

static void extent(const struct plot_panel *p, bool y, double *high)
{
	*high = 0;
	for (unsigned i = 0; i < p->nlines; i++)
		for (size_t k = 0; k < p->line[i].n; k++) {
			double v = y ? p->line[i].y[k] : p->line[i].x[k];

			if (isfinite(v) && isfinite(p->line[i].y[k]) && v > *high)
				*high = v;
		}
}

static void draw_axes(FILE *f, const struct plot_panel *p, const struct axis *x,
		      const struct axis *y, double top)
{
	char tick[48];

	for (unsigned i = 0; y->low + i * y->step <= y->high + y->step / 2; i++) {
		double v = y->low + i * y->step;
		double at = top + CHART_H * (1 - (v - y->low) / (y->high - y->low));

		fprintf(f, "<path d=\"M%d %.1fh%d\" stroke=\"#ddd\"/>\n", LEFT, at, CHART_W);
		tick_text(tick, sizeof(tick), v, p->y_bytes, p->percent);
		text(f, LEFT - 8, at + 4, "end", "", tick, 40);
	}
	for (unsigned i = 0; x->low + i * x->step <= x->high + x->step / 2; i++) {
		double v = x->low + i * x->step;
		double at = LEFT + CHART_W * (v - x->low) / (x->high - x->low);

		fprintf(f, "<path d=\"M%.1f %.1fv6\" stroke=\"#444\"/>\n", at, top + CHART_H);
		tick_text(tick, sizeof(tick), v, p->x_bytes, false);
		text(f, at, top + CHART_H + 20, "middle", "", tick, 40);
	}
	fprintf(f, "<path d=\"M%d %.1fv%dh%d\" fill=\"none\" stroke=\"#444\"/>\n", LEFT, top,
		CHART_H, CHART_W);
	text(f, LEFT, top - 14, "start", " font-weight=\"bold\"", p->title, 90);
	text(f, LEFT + CHART_W / 2.0, top + CHART_H + 42, "middle", "", p->x_label, 80);
	fprintf(f, "<g transform=\"translate(18 %.1f) rotate(-90)\">", top + CHART_H / 2.0);
	text(f, 0, 0, "middle", "", p->y_label, 40);
	fputs("</g>\n", f);
}

static void draw_line(FILE *f, const struct plot_line *l, unsigned i, const struct axis *x,
		      const struct axis *y, double top)
{
	bool pen = false;

	fputs("<path d=\"", f);
	for (size_t k = 0; k < l->n; k++) {
		if (!isfinite(l->y[k]) || !isfinite(l->x[k])) {
			pen = false;
			continue;
		}
		fprintf(f, "%c%.1f %.1f", pen ? 'L' : 'M',
			LEFT + CHART_W * (l->x[k] - x->low) / (x->high - x->low),
			top + CHART_H * (1 - (l->y[k] - y->low) / (y->high - y->low)));
		pen = true;
	}
	fprintf(f, "\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\"/>\n",
		colours[i % N_COLOURS], dashes[i % N_COLOURS]);
	if (l->n <= 12)
		for (size_t k = 0; k < l->n; k++)
			if (isfinite(l->y[k]) && isfinite(l->x[k]))
				fprintf(f,
					"<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n",
					LEFT + CHART_W * (l->x[k] - x->low) / (x->high - x->low),
					top + CHART_H * (1 -
							 (l->y[k] - y->low) / (y->high - y->low)),
					colours[i % N_COLOURS]);
}

static void draw_panel(FILE *f, const struct plot_panel *p, double top)
{
	struct axis x, y;
	double high;

	extent(p, false, &high);
	x = make_axis(0, high, p->x_bytes);
	extent(p, true, &high);
	y = make_axis(0, p->percent && high > 0.5 ? 1 : high, p->y_bytes);
	draw_axes(f, p, &x, &y, top);
	for (unsigned i = 0; i < p->nlines; i++) {
		double at = top + 10 + i * 22;

		draw_line(f, &p->line[i], i, &x, &y, top);
		fprintf(f,
			"<path d=\"M%d %.1fh28\" stroke=\"%s\" stroke-width=\"3\" "
			"stroke-dasharray=\"%s\"/>\n",
			LEGEND_X, at, colours[i % N_COLOURS], dashes[i % N_COLOURS]);
		text(f, LEGEND_X + 36, at + 4, "start", "", p->line[i].name, NAME_MAX_CHARS);
	}
}

int plot_write(const char *path, const char *title, const struct plot_panel *panel,
	       unsigned npanels)
{
	int height = TOP + PANEL_H * (int)npanels;
	FILE *f = fopen(path, "we");
	int rc;

	if (!f)
		return -errno;
	fprintf(f,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
		"viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"13\" "
		"fill=\"#222\">\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
		WIDTH, height, WIDTH, height);
	text(f, LEFT, 26, "start", " font-size=\"16\"", title, 90);
	for (unsigned i = 0; i < npanels; i++)
		draw_panel(f, &panel[i], TOP + 10 + (double)PANEL_H * i);
	fputs("</svg>\n", f);
	errno = 0;
	rc = ferror(f) ? -EIO : 0;
	if (fclose(f) && rc == 0)
		rc = errno ? -errno : -EIO;
	return rc;
}
