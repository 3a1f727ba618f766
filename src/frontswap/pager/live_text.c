/* SPDX-License-Identifier: BSD-2-Clause */
/* What the panel of `tmem run --live` says; see live.h. */
#include "frontswap/pager/live.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PAGE  4096.0
#define BAR   20u
#define SHORT 24

/* "7.5 GiB", and from 100 on without a fraction. */
static const char *bytes(char to[SHORT], double v)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	unsigned u = 0;

	for (; v >= 1000 && u + 1 < sizeof(units) / sizeof(units[0]); u++)
		v /= 1024;
	snprintf(to, SHORT, "%.*f %s", u && v < 99.95, v, units[u]);
	return to;
}

static const char *count(char to[SHORT], uint64_t v)
{
	if (v < 10000)
		snprintf(to, SHORT, "%llu", (unsigned long long)v);
	else if (v < 10000000)
		snprintf(to, SHORT, "%.1fk", (double)v / 1e3);
	else
		snprintf(to, SHORT, "%.1fM", (double)v / 1e6);
	return to;
}

/* What came back a minute, in percent. */
static const char *back(char to[SHORT], const uint64_t figure[LIVE_FIGURES], int digits)
{
	if (figure[LIVE_PROMOTIONS_PPM] == LIVE_UNKNOWN)
		return "-";
	snprintf(to, SHORT, "%.*f", digits, (double)figure[LIVE_PROMOTIONS_PPM] / 1e4);
	return to;
}

static const char *span(char to[SHORT], uint64_t ns)
{
	if (ns < 1000000)
		snprintf(to, SHORT, "%.0f us", (double)ns / 1e3);
	else if (ns < 1000000000)
		snprintf(to, SHORT, "%.1f ms", (double)ns / 1e6);
	else
		snprintf(to, SHORT, "%.1f s", (double)ns / 1e9);
	return to;
}

/* A line under way: what does not fit any more is left out, as a whole. */
struct line {
	char *to;
	size_t bytes;
	unsigned width, cols;
};

/* Text of `width` columns. */
static bool put(struct line *l, const char *text, unsigned width)
{
	size_t n = strlen(text);

	if (l->width + width > l->cols || l->bytes + n >= LIVE_LINE_MAX)
		return false;
	memcpy(l->to + l->bytes, text, n + 1);
	l->bytes += n;
	l->width += width;
	return true;
}

static __attribute__((format(printf, 2, 3))) bool say(struct line *l, const char *fmt, ...)
{
	char text[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return put(l, text, (unsigned)strlen(text));
}

static void bar(struct line *l, uint64_t part, uint64_t all, bool utf8)
{
	char text[BAR * 3 + 3] = "[";
	unsigned full = all ? (unsigned)((double)part / (double)all * BAR + 0.5) : 0;
	size_t n = 1;

	for (unsigned i = 0; i < BAR; i++) {
		const char *cell =
			i < full ? (utf8 ? "\xe2\x96\x88" : "#") : (utf8 ? "\xe2\x96\x91" : "-");

		memcpy(text + n, cell, strlen(cell));
		n += strlen(cell);
	}
	text[n] = ']';
	text[n + 1] = 0;
	put(l, text, BAR + 2);
}

/* As many of the latest as fit, each against the largest that is shown. */
static void sparkline(struct line *l, const uint64_t *v, unsigned n, bool utf8)
{
	static const char *const blocks[] = {"\xe2\x96\x81", "\xe2\x96\x82", "\xe2\x96\x83",
					     "\xe2\x96\x84", "\xe2\x96\x85", "\xe2\x96\x86",
					     "\xe2\x96\x87", "\xe2\x96\x88"};
	static const char *const plain[] = {" ", ".", ":", "-", "=", "+", "*", "#"};
	unsigned room = l->cols - l->width;
	uint64_t most = 1;

	if (room < 10)
		return;
	put(l, "  ", 2);
	room -= 2;
	if (n > room) {
		v += n - room;
		n = room;
	}
	for (unsigned i = 0; i < n; i++)
		most = v[i] > most ? v[i] : most;
	for (unsigned i = 0; i < n; i++) {
		unsigned level = (unsigned)((double)v[i] / (double)most * 7 + 0.5);

		put(l, utf8 ? blocks[level] : plain[level], 1);
	}
}

static double ratio(const uint64_t figure[LIVE_FIGURES])
{
	return figure[LIVE_COMPRESSED]
		       ? (double)figure[LIVE_STORED_PAGES] * PAGE / (double)figure[LIVE_COMPRESSED]
		       : 0;
}

void live_panel(char line[LIVE_LINES][LIVE_LINE_MAX], const uint64_t figure[LIVE_FIGURES],
		const uint64_t *history, unsigned n, unsigned cols, bool utf8)
{
	struct line a = {.to = line[0], .cols = cols}, b = {.to = line[1], .cols = cols};
	/* With --limit auto: of what the program would take by itself. */
	uint64_t whole = figure[LIVE_COLD_MS] ? figure[LIVE_BARE] : figure[LIVE_LIMIT];
	double part = whole ? (double)figure[LIVE_TOTAL] / (double)whole * 100 : 0;
	char s[SHORT];

	line[0][0] = line[1][0] = 0;
	if (!figure[LIVE_AT_NS]) {
		put(&a, "tmem", 4);
		return;
	}
	say(&a, "tmem ");
	bar(&a, figure[LIVE_TOTAL], whole, utf8);
	say(&a, " %3.0f %% of %s%s", part < 999 ? part : 999, bytes(s, (double)whole),
	    figure[LIVE_COLD_MS] ? " by itself" : "");
	if (figure[LIVE_OVER])
		say(&a, ", OVER");
	say(&a, "  resident %s", bytes(s, (double)figure[LIVE_RESIDENT]));
	say(&a, "  store %s", bytes(s, (double)figure[LIVE_STORE]));
	if (figure[LIVE_COLD_MS])
		say(&b, "cold %llu s, %s %%/min back  ",
		    (unsigned long long)figure[LIVE_COLD_MS] / 1000, back(s, figure, 2));
	say(&b, "stored %s", bytes(s, (double)figure[LIVE_STORED_PAGES] * PAGE));
	say(&b, "  ratio %.1f", ratio(figure));
	say(&b, "  faults %s/s", count(s, figure[LIVE_FAULTS]));
	say(&b, "  p99 %s", figure[LIVE_P99_NS] ? span(s, figure[LIVE_P99_NS]) : "-");
	say(&b, "  waits %.0f %%", (double)figure[LIVE_WAITING] / 10);
	sparkline(&b, history, n, utf8);
}

void live_plain(char line[LIVE_LINE_MAX], const uint64_t figure[LIVE_FIGURES])
{
	char total[SHORT], limit[SHORT], resident[SHORT], store[SHORT], stored[SHORT], p99[SHORT];
	bool sized = figure[LIVE_COLD_MS] != 0;
	char cold[64] = "", rate[SHORT];

	if (sized)
		snprintf(cold, sizeof(cold), ", cold %llu s, back %s %%/min",
			 (unsigned long long)figure[LIVE_COLD_MS] / 1000, back(rate, figure, 3));
	snprintf(
		line, LIVE_LINE_MAX,
		"tmem: %.0f s: total %s of %s%s%s, resident %s, store %s, stored %s at ratio %.1f, "
		"%llu faults/s, p99 %s, waits %.0f %%%s",
		(double)figure[LIVE_AT_NS] / 1e9, bytes(total, (double)figure[LIVE_TOTAL]),
		bytes(limit, (double)figure[sized ? LIVE_BARE : LIVE_LIMIT]),
		sized ? " by itself" : "", figure[LIVE_OVER] ? ", OVER" : "",
		bytes(resident, (double)figure[LIVE_RESIDENT]),
		bytes(store, (double)figure[LIVE_STORE]),
		bytes(stored, (double)figure[LIVE_STORED_PAGES] * PAGE), ratio(figure),
		(unsigned long long)figure[LIVE_FAULTS],
		figure[LIVE_P99_NS] ? span(p99, figure[LIVE_P99_NS]) : "-",
		(double)figure[LIVE_WAITING] / 10, cold);
}
