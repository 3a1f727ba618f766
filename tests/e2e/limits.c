/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * e2e-limits: programs for which a limit means different things.
 *
 *   e2e-limits MODE MIB SECONDS
 *
 * MIB megabytes are filled with pages that say what they must hold, then used for SECONDS:
 *
 *   random  any of them, all alike: everything is wanted all the time
 *   cycle   all in order, again and again
 *   hot     the first quarter, at random: the rest may leave
 *   once    each is read once more, in an order that nobody foresees; then it ends
 *   grow    nothing: only the filling counts, as fast as the machine copies
 *   noise   as random, but nothing compresses the pages
 *   rest    nothing, and nothing compresses the pages
 *
 * Every page is compared whenever it is used. Prints how many were used a second.
 */
#include "named_page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t *memory;
static size_t pages;
static uint64_t rng = 1;
static size_t next(const char *mode, size_t step)
{
	uint64_t r = mix(rng += 0x9e3779b97f4a7c15u);

	if (!strcmp(mode, "cycle"))
		return step % pages;
	if (!strcmp(mode, "hot"))
		return r % (pages / 4);
	if (!strcmp(mode, "once"))
		return (step * 7919 + 13) % pages;
	return r % pages;
}

/* A page that differs from its neighbours in one word: as quick to make as can be. */
static void grow(bool filling)
{
	uint64_t *like = memory;

	fill_page(like, 0, 1);
	for (size_t i = 1; i < pages; i++) {
		uint64_t *p = memory + i * WORDS;

		if (filling) {
			memcpy(p, like, PAGE);
			p[0] = i;
		} else if (p[0] != i || memcmp(p + 1, like + 1, PAGE - 8)) {
			fprintf(stderr, "e2e-limits: page %zu is not what it was\n", i);
			exit(1);
		}
	}
}

int main(int argc, char **argv)
{
	const char *mode = argc == 4 ? argv[1] : "";
	double seconds = argc == 4 ? strtod(argv[3], NULL) : 0, start;
	size_t used = 0, most = SIZE_MAX;

	if (argc != 4) {
		fprintf(stderr, "usage: e2e-limits MODE MIB SECONDS\n");
		return 2;
	}
	noise = !strcmp(mode, "noise") || !strcmp(mode, "rest");
	pages = strtoul(argv[2], NULL, 10) << 8;
	if (!strcmp(mode, "once")) {
		while (pages % 7919 == 0)
			pages--;
		most = pages;
	} else if (!strcmp(mode, "grow")) {
		most = 0;
	}
	memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		      0);
	if (memory == MAP_FAILED)
		return 2;
	if (most == 0)
		grow(true);
	for (size_t i = 0; i < pages && most; i++)
		fill_page(memory + i * WORDS, i, 1);
	if (!strcmp(mode, "rest")) {
		printf("filled\n");
		fflush(stdout);
		usleep((useconds_t)(seconds * 1e6)); /* as the mode says */
		return 0;
	}
	start = now_s();
	for (; used < most && (used % 16 || now_s() - start < seconds); used++) {
		size_t i = next(mode, used);

		check_page(memory + i * WORDS, i, 1, mode);
	}
	printf("%.0f\n", used ? (double)used / (now_s() - start) : 0);
	if (most == 0)
		grow(false);
	return 0;
}
