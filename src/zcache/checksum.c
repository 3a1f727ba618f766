/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The checksum over compressed bytes: low half of XXH3_64bits. Inlined here and
 * nowhere else, because the whole of xxhash comes with it.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "zcache/zcache.h"

uint32_t zc_checksum(const void *bytes, size_t n)
{
	return (uint32_t)XXH3_64bits(bytes, n);
}
