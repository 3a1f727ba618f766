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
 * For codecs without working memory: their context is a pointer that is not
 * NULL and that nobody follows.
 */
void *codec_no_dctx_create(void);
void codec_no_destroy(void *ctx);
/* Of a codec that nobody decompresses with in this way: -EBADMSG. */
int codec_no_decompress(void *dctx, const void *src, size_t size, void *dst, size_t n);

#endif
