/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What fuzz targets share. A target is one function that decodes operations
 * from bytes and stops the process on the first wrong result. libFuzzer calls it
 * (tools/fuzz.sh); smoke.c calls it with random bytes in the ordinary tests.
 */
#ifndef TMEM_TESTS_FUZZ_H
#define TMEM_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 0. Any bytes are an input. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define fuzz_check(cond)                                                                           \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                 \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* The input, read from its start; zeros after its end. */
struct fuzz_in {
	const uint8_t *p;
	size_t n;
};

static inline uint8_t fuzz_u8(struct fuzz_in *in)
{
	if (!in->n)
		return 0;
	in->n--;
	return *in->p++;
}

static inline uint16_t fuzz_u16(struct fuzz_in *in)
{
	uint8_t low = fuzz_u8(in);

	return (uint16_t)(low | fuzz_u8(in) << 8);
}

static inline uint64_t fuzz_u64(struct fuzz_in *in)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < 64; i += 8)
		v |= (uint64_t)fuzz_u8(in) << i;
	return v;
}

#endif
