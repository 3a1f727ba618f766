/* SPDX-License-Identifier: BSD-2-Clause */
#include "named_page.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x74726e7363646e74u

bool noise;

double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* Compressible about three times: one random word in eight, the rest small. */
static uint64_t word_of(uint64_t place, uint64_t version, unsigned i)
{
	uint64_t h = mix(place * 0x10001 + version * 0x1000003 + i);

	return h % 8 == 0 || (noise && version % 2) ? mix(h) : h >> 8 & 0xff;
}

void fill_page(uint64_t *p, uint64_t place, uint64_t version)
{
	if (!version) {
		memset(p, 0, PAGE);
		return;
	}
	p[0] = MAGIC;
	p[1] = place;
	p[2] = version;
	p[3] = mix(place ^ version);
	for (unsigned i = 4; i < WORDS; i++)
		p[i] = word_of(place, version, i);
}

static const char *kind_of_wrong(const uint64_t *p, uint64_t place, uint64_t version)
{
	bool zero = true;

	for (unsigned i = 0; i < WORDS; i++)
		zero &= p[i] == 0;
	if (zero)
		return "zero";
	if (p[0] != MAGIC || p[3] != mix(p[1] ^ p[2]))
		return "garbage";
	if (p[1] != place)
		return "another page's";
	return p[2] != version ? "stale" : "torn";
}

void check_page(const uint64_t *p, uint64_t place, uint64_t version, const char *where)
{
	bool good = true;

	if (version == 0) {
		for (unsigned i = 0; i < WORDS; i++)
			good &= p[i] == 0;
	} else {
		good = p[0] == MAGIC && p[1] == place && p[2] == version &&
		       p[3] == mix(place ^ version);
		for (unsigned i = 4; i < WORDS; i++)
			good &= p[i] == word_of(place, version, i);
	}
	if (good)
		return;
	fprintf(stderr,
		"WRONG PAGE (%s) in %s: place %llx, version %llu, found %llx version %llu\n",
		kind_of_wrong(p, place, version), where, (unsigned long long)place,
		(unsigned long long)version, (unsigned long long)p[1], (unsigned long long)p[2]);
	_exit(1);
}
