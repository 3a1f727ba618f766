/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages for a bench whose user has none: text from this machine and made-up program memory. */
#ifndef TMEM_CLI_BENCH_PAGES_H
#define TMEM_CLI_BENCH_PAGES_H

#include "cli/pages.h"

#define BENCH_PAGES_BYTES (64ull << 20)

/* Fills *out; says in out->name what it is. 0 or -ENOMEM. */
int bench_pages_make(struct pages *out) __attribute__((warn_unused_result));
/*
 * The pages of the file at path, at most max_bytes (0: pages.h's limit), or
 * made up where path is NULL. 0, or a negative errno with a sentence in err.
 */
int bench_pages_load(const char *path, uint64_t max_bytes, struct pages *out, char *err,
		     size_t errlen) __attribute__((warn_unused_result));
/*
 * Pages without end, each its own, made from their number when they are
 * needed: the same kinds and the same parts of each as above. NULL: no memory.
 * One thread at a time.
 */
struct bench_maker;
struct bench_maker *bench_maker_open(void);
void bench_maker_close(struct bench_maker *m);
void bench_maker_page(const struct bench_maker *m, uint64_t number, uint8_t page[4096]);

/* A fixed sequence of numbers: the same on every machine and run. */
static inline uint64_t bench_random(uint64_t *state)
{
	/* splitmix64 */
	uint64_t z = (*state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

#endif
