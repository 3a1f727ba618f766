/* SPDX-License-Identifier: BSD-2-Clause */
/* The codecs of this folder, for the registry alone. */
#ifndef TMEM_CODEC_BUILTIN_H
#define TMEM_CODEC_BUILTIN_H

#include "codec/codec.h"

extern const struct codec codec_raw;
extern const struct codec codec_lz4;
extern const struct codec codec_zstd;
extern const struct codec codec_lz4hc;
extern const struct codec codec_deflate;
extern const struct codec codec_zstd_dict;
extern const struct codec codec_opaque;

/*
 * What a codec without working memory gives as its context: a pointer that is
 * not NULL and that nobody follows.
 */
extern char codec_no_context;

#endif
