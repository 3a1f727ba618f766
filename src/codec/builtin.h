/* SPDX-License-Identifier: BSD-2-Clause */
/* The codecs of this folder, for the registry alone. */
#ifndef TMEM_CODEC_BUILTIN_H
#define TMEM_CODEC_BUILTIN_H

#include "codec/codec.h"

/* Ids are kept beside stored data: never change one, never use one again. */
enum { CODEC_ID_RAW = 0, CODEC_ID_LZ4 = 1, CODEC_ID_ZSTD = 2 };

extern const struct codec codec_raw;
extern const struct codec codec_lz4;
extern const struct codec codec_zstd;

/*
 * What a codec without working memory gives as its context: a pointer that is
 * not NULL and that nobody follows.
 */
extern char codec_no_context;

#endif
