/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The checksum over compressed bytes: low half of XXH3_64bits. Inlined here and
 * nowhere else, because the whole of xxhash comes with it.
 *
 * With the vectors of plain x86-64, on purpose: the library's dispatcher takes
 * the widest there are, and a get, which hashes some 2 KiB between other work,
 * then took 10 % longer, not less (2400 to 2650 ns on a Xeon with AVX-512).
 * AVX2 is no gain either: alone it needs 37 ns for 1215 bytes instead of 51,
 * but beside a codec that uses 16-byte vectors a put takes 100 ns longer.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "zcache/zcache.h"

uint32_t zc_checksum(const void *bytes, size_t n)
{
	return (uint32_t)XXH3_64bits(bytes, n);
}
