/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * e2e-hard: what real programs do that is hard on a pager, each in a pure form.
 *
 *   e2e-hard MODE MIB
 *
 * Each mode holds MIB of memory whose every byte is known, does its one thing over and over, and
 * compares. Standard output is the same from run to run; exit code 1 and a line on standard error
 * when a byte is wrong. It knows nothing of tmem.
 */
#include "hard.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fflush(stdout);
	fprintf(stderr, "e2e-hard: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(1);
}

uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

void page_fill(void *page, uint64_t number, uint64_t salt)
{
	uint64_t state = number * 0x10001 + salt, *w = page;

	for (size_t i = 0; i < PAGE / 8; i++)
		w[i] = i % 3 ? number << 20 | i : next_random(&state) & 0xffff;
	w[0] = number;
	w[1] = salt;
}

bool page_right(const void *page, uint64_t number, uint64_t salt)
{
	char want[PAGE];

	page_fill(want, number, salt);
	return !memcmp(page, want, PAGE);
}

char *ballast_map(size_t n)
{
	char *p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		fail("no memory for %zu pages", n);
	return p;
}

void ballast_fill(char *at, size_t first, size_t n, uint64_t salt)
{
	for (size_t i = first; i < first + n; i++)
		page_fill(at + i * PAGE, i, salt);
}

size_t ballast_wrong(const char *at, size_t first, size_t n, uint64_t salt)
{
	size_t wrong = 0;

	for (size_t i = first; i < first + n; i++) {
		const uint64_t *w = (const uint64_t *)(const void *)(at + i * PAGE);

		if (page_right(w, i, salt))
			continue;
		if (wrong++ < 4)
			fprintf(stderr, "e2e-hard: page %zu, salt %llu, begins %llx %llx\n", i,
				(unsigned long long)salt, (unsigned long long)w[0],
				(unsigned long long)w[1]);
	}
	return wrong;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(size_t mib);
	} modes[] = {
		{"threads", hard_threads}, {"crowd", hard_crowd},	{"children", hard_children},
		{"living", hard_living},   {"rawclone", hard_rawclone}, {"sparse", hard_sparse},
		{"uffd", hard_uffd},	   {"direct", hard_direct},	{"fixed", hard_fixed},
		{"noise", hard_noise},
	};

	for (size_t i = 0; argc == 3 && i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (!strcmp(argv[1], modes[i].name)) {
			modes[i].run(strtoul(argv[2], NULL, 10));
			printf("%s right\n", argv[1]);
			/* An answer that could not be written is not to look like a wrong one. */
			if (fflush(stdout))
				fail("standard output: %s", strerror(errno));
			return 0;
		}
	}
	fprintf(stderr, "usage: e2e-hard MODE MIB; MODE is one of:");
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		fprintf(stderr, " %s", modes[i].name);
	fprintf(stderr, "\n");
	return 2;
}
