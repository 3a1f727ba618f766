/* SPDX-License-Identifier: BSD-2-Clause */
/* What the panel of tmem run --live says: it fits any width, whatever the figures are. */
#include "frontswap/pager/live.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint64_t usual[LIVE_FIGURES] = {
	[LIVE_AT_NS] = 12000000000,   [LIVE_LIMIT] = 512 << 20, [LIVE_TOTAL] = 410 << 20,
	[LIVE_RESIDENT] = 312 << 20,  [LIVE_STORE] = 98 << 20,	[LIVE_STORED_PAGES] = 402 << 8,
	[LIVE_COMPRESSED] = 96 << 20, [LIVE_FAULTS] = 12345,	[LIVE_P99_NS] = 45000,
	[LIVE_WAITING] = 340,
};

/* Columns of a text of printable characters; fails on anything else. */
static unsigned width(const char *s)
{
	unsigned n = 0;

	for (const unsigned char *p = (const unsigned char *)s; *p; p++, n++) {
		if (*p >= 0xe0) { /* the blocks have three bytes */
			assert_int_equal(p[0], 0xe2);
			assert_int_equal(p[1], 0x96);
			assert_in_range(p[2], 0x80, 0xbf);
			p += 2;
		} else {
			assert_in_range(*p, 32, 126);
		}
	}
	return n;
}

static void the_usual_is_said(void **state)
{
	char line[LIVE_LINES][LIVE_LINE_MAX];
	uint64_t history[5] = {0, 25, 50, 75, 100};

	live_panel(line, usual, history, 5, 100, false);
	assert_string_equal(line[0],
			    "tmem [################----]  80 % of 512 MiB  resident 312 MiB"
			    "  store 98.0 MiB");
	assert_string_equal(line[1], "stored 402 MiB  ratio 4.2  faults 12.3k/s  p99 45 us"
				     "  waits 34 %   :=+#");
	live_plain(line[0], usual);
	assert_string_equal(
		line[0], "tmem: 12 s: total 410 MiB of 512 MiB, resident 312 MiB, store 98.0 "
			 "MiB, stored 402 MiB at ratio 4.2, 12345 faults/s, p99 45 us, waits 34 %");
}

static void over_the_limit_is_said(void **state)
{
	char line[LIVE_LINES][LIVE_LINE_MAX];
	uint64_t figure[LIVE_FIGURES];

	memcpy(figure, usual, sizeof(figure));
	figure[LIVE_TOTAL] = 600 << 20;
	figure[LIVE_OVER] = 1;
	live_panel(line, figure, NULL, 0, 100, true);
	assert_non_null(strstr(line[0], "117 % of 512 MiB, OVER"));
	live_plain(line[0], figure);
	assert_non_null(strstr(line[0], "of 512 MiB, OVER, resident"));
}

/* What does not fit is left out as a whole; nothing is cut. */
static void every_width_is_kept(void **state)
{
	static const uint64_t odd[] = {0, 1, 999, 4096, 1ull << 31, 1ull << 53, UINT64_MAX};
	char line[LIVE_LINES][LIVE_LINE_MAX], wide[LIVE_LINES][LIVE_LINE_MAX];
	uint64_t figure[LIVE_FIGURES], history[LIVE_HISTORY];

	for (unsigned i = 0; i < 20000; i++) {
		unsigned cols = i < 400 ? i : (unsigned)rand() % 70000;
		unsigned n = (unsigned)rand() % (LIVE_HISTORY + 1);
		bool utf8 = rand() % 2;

		for (unsigned f = 0; f < LIVE_FIGURES; f++)
			figure[f] = i < 400 ? usual[f] : odd[(unsigned)rand() % 7] >> rand() % 3;
		for (unsigned h = 0; h < LIVE_HISTORY; h++)
			history[h] = odd[(unsigned)rand() % 7];
		live_panel(line, figure, history, n, cols, utf8);
		live_panel(wide, figure, history, 0, 1000, utf8);
		for (unsigned l = 0; l < LIVE_LINES; l++) {
			assert_true(width(line[l]) <= cols);
			assert_true(width(wide[l]) < 200);
		}
		live_plain(line[0], figure);
		assert_true(width(line[0]) < LIVE_LINE_MAX - 1);
	}
	live_panel(line, usual, NULL, 0, 40, false);
	assert_string_equal(line[0], "tmem [################----]");
	assert_string_equal(line[1], "stored 402 MiB  ratio 4.2  p99 45 us");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_usual_is_said),
		cmocka_unit_test(over_the_limit_is_said),
		cmocka_unit_test(every_width_is_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
