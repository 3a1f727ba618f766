/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Dictionaries: what the pages of a pool have in common, so that a page
 * compressed alone need not say it.
 *
 * zstd's. A dictionary is made for one level; both its tables, for compressing
 * and for decompressing, are made with it in memory that the caller gives, and
 * nothing is allocated afterwards. It does not change: any number of threads
 * use it at once, each with contexts of its own. Streams are of codec
 * CODEC_ID_ZSTD_DICT and only come back with the same dictionary; which one
 * that is, is for the caller to remember.
 */
#ifndef TMEM_CODEC_DICT_H
#define TMEM_CODEC_DICT_H

#include "codec/codec.h"

#define CODEC_DICT_MIN 1024u /* bytes of content */
#define CODEC_DICT_MAX 65536u

struct codec_dict;

/* What codec_dict_init() needs for this much content. */
size_t codec_dict_bytes(size_t content_bytes, int level);
/*
 * Make a dictionary in `mem` (64-aligned, codec_dict_bytes() of it) from
 * content, which is copied. NULL: the content is no dictionary. There is
 * nothing to give back but mem.
 */
struct codec_dict *codec_dict_init(void *mem, const void *content, size_t content_bytes, int level);
/* What it was made from; for keeping it elsewhere. */
const void *codec_dict_content(const struct codec_dict *d, size_t *bytes);
int codec_dict_level(const struct codec_dict *d);

/*
 * As struct codec's functions, for 1 to 4096 bytes. cctx: of codec_zstd_dict at
 * the dictionary's level; dctx: of codec "zstd".
 */
size_t codec_dict_compress(void *cctx, const struct codec_dict *d, const void *src, size_t n,
			   void *dst, size_t cap);
int codec_dict_decompress(void *dctx, const struct codec_dict *d, const void *src, size_t size,
			  void *dst, size_t n);

/*
 * Train: content of at most cap bytes in dst from n samples that lie end to
 * end. Its size, or 0: the samples are too few or too alike. Takes up to
 * CODEC_TRAIN_BYTES of the C library's memory meanwhile, and some 10 ms a MiB.
 */
#define CODEC_TRAIN_BYTES ((size_t)3 << 20)
size_t codec_dict_train(const void *samples, const size_t *sizes, unsigned n, void *dst, size_t cap,
			int level);

#endif
