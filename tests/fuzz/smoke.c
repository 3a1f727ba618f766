/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A fuzz target with random bytes in place of a fuzzer: short, the same bytes
 * each time, no special compiler.
 *
 *   TARGET [RUNS [MAX_BYTES [SEED]]]     random inputs
 *   TARGET FILE...                       those inputs, e.g. of a finding
 */
#include "fuzz.h"

#define FILE_MAX (1u << 20)

static uint64_t state;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * 0x2545f4914f6cdd1dull >> 16;
}

static int run_file(const char *path)
{
	uint8_t *data = malloc(FILE_MAX);
	FILE *f = fopen(path, "rb");
	size_t n;

	if (!f || !data) {
		fprintf(stderr, "cannot read %s\n", path);
		return 1;
	}
	n = fread(data, 1, FILE_MAX, f);
	fclose(f);
	LLVMFuzzerTestOneInput(data, n);
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 0) : 300;
	unsigned long max = argc > 2 ? strtoul(argv[2], NULL, 0) : 4096;
	uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
	uint8_t *data;

	if (argc > 1 && !runs) {
		for (int i = 1; i < argc; i++)
			if (run_file(argv[i]))
				return 1;
		return 0;
	}
	for (unsigned long i = 0; i < runs; i++) {
		size_t n;

		state = (seed + 1) * 0x9e3779b97f4a7c15ull + i * 0xda942042e4dd58b5ull;
		n = rnd() % max + 1;
		/* Its own block, of its size: reading past the end shows. */
		data = malloc(n);
		if (!data)
			return 1;
		for (size_t k = 0; k < n; k++)
			data[k] = (uint8_t)rnd();
		fprintf(stderr, "\rseed %llu run %lu", (unsigned long long)seed, i);
		LLVMFuzzerTestOneInput(data, n);
		free(data);
	}
	fputc('\n', stderr);
	return 0;
}
