/* SPDX-License-Identifier: BSD-2-Clause */
/* What zstd is told, with a dictionary and without one. */
#ifndef TMEM_CODEC_ZSTD_PARAMETERS_H
#define TMEM_CODEC_ZSTD_PARAMETERS_H

#ifndef ZSTD_STATIC_LINKING_ONLY
#error "before <zstd.h>: ZSTD_STATIC_LINKING_ONLY"
#endif
#include <zstd.h>

/*
 * The library's choice for inputs of `bytes` and a dictionary of `dict_bytes`
 * (0: none), but for the minimum match: why, is at the top of codec_zstd.c.
 */
static inline ZSTD_compressionParameters zstd_parameters(int level, size_t bytes, size_t dict_bytes)
{
	ZSTD_compressionParameters p = ZSTD_getCParams(level, bytes, dict_bytes);
	unsigned match_max = level < 0 ? 4 : 5;

	if (p.strategy == ZSTD_fast && p.minMatch > match_max)
		p.minMatch = match_max;
	return p;
}

#endif
