/* SPDX-License-Identifier: BSD-2-Clause */
/* A progress bar on a terminal's stderr; nothing anywhere else. */
#include "cli/cli.h"
#include "os/clock.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WIDTH	    30
#define INTERVAL_NS 100000000ull /* ten times a second is smooth enough and costs nothing */

static void draw(struct progress *p, uint64_t now)
{
	unsigned full = p->total ? (unsigned)(p->done * WIDTH / p->total) : 0;
	unsigned percent = p->total ? (unsigned)(p->done * 100 / p->total) : 0;

	if (full > WIDTH)
		full = WIDTH;
	if (percent > 100)
		percent = 100;
	fprintf(stderr, "\r%-24.24s [%.*s%*s] %3u %%", p->label, (int)full,
		"##############################", (int)(WIDTH - full), "", percent);
	fflush(stderr);
	p->drawn_ns = now;
}

void progress_start(struct progress *p, const char *label, uint64_t total)
{
	*p = (struct progress){.label = label, .total = total, .on = isatty(STDERR_FILENO) == 1};
	if (p->on)
		draw(p, os_clock_ns());
}

void progress_add(struct progress *p, uint64_t n)
{
	uint64_t now;

	p->done += n;
	if (!p->on)
		return;
	now = os_clock_ns();
	if (now - p->drawn_ns >= INTERVAL_NS)
		draw(p, now);
}

void progress_label(struct progress *p, const char *label)
{
	p->label = label;
	if (p->on)
		draw(p, os_clock_ns());
}

void progress_end(struct progress *p)
{
	if (p->on)
		fprintf(stderr, "\r%*s\r", WIDTH + 34, "");
	p->on = false;
}
