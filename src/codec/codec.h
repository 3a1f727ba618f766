/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Codecs by name.
 *
 * A codec turns n bytes (one page, or up to 16 neighbouring pages end to end)
 * into at most n bytes and back. Contexts hold a codec's working memory; one
 * thread uses one context at a time. Compression happens outside every lock.
 */
#ifndef TMEM_CODEC_CODEC_H
#define TMEM_CODEC_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CODEC_MAX 16 /* codec ids fit four bits */

/* Ids are kept beside stored data: never change one, never use one again. */
enum {
	CODEC_ID_RAW = 0,
	CODEC_ID_LZ4 = 1,
	CODEC_ID_ZSTD = 2,
	CODEC_ID_LZ4HC = 3,
	CODEC_ID_DEFLATE = 4,
	CODEC_ID_LZO = 5,	/* of a module */
	CODEC_ID_ZSTD_DICT = 6, /* with a dictionary, dict.h; not a choice of its own */
	CODEC_ID_MODULE = 8,	/* 8..14: of other modules */
	CODEC_ID_OPAQUE = 15,	/* bytes that a caller compressed; nobody here reads them */
};

struct codec {
	const char *name;
	uint8_t id; /* stable: it is kept beside stored data; 0 is "raw" (a copy) */
	int level_min, level_max, level_default;
	/* Contexts: NULL when memory is short. A compression context serves one level. */
	void *(*cctx_create)(int level);
	void (*cctx_destroy)(void *cctx);
	void *(*dctx_create)(void);
	void (*dctx_destroy)(void *dctx);
	size_t cctx_bytes, dctx_bytes; /* what a context holds, about; for accounts */
	/*
	 * Compress n > 0 bytes into dst. The compressed size, or 0 when it would
	 * be more than cap: then dst holds nothing of use.
	 */
	size_t (*compress)(void *cctx, const void *src, size_t n, void *dst, size_t cap);
	/*
	 * Decompress exactly n bytes. 0, or -EBADMSG when src is not a whole
	 * stream of n bytes; never reads past src + size nor writes past dst + n,
	 * whatever the bytes are. Allocates nothing.
	 */
	int (*decompress)(void *dctx, const void *src, size_t size, void *dst, size_t n);
	/* For codecs whose levels differ (see codec_cctx_bytes); NULL: cctx_bytes for all. */
	size_t (*cctx_size)(int level);
};

/* What a compression context of this level holds. */
static inline size_t codec_cctx_bytes(const struct codec *c, int level)
{
	return c->cctx_size ? c->cctx_size(level) : c->cctx_bytes;
}

/*
 * By name; NULL if there is none. A name that is not known is looked for among
 * the modules (codec/module.h), which may block on the file system; why one
 * that is there cannot be used is logged.
 */
const struct codec *codec_find(const char *name);
/* By id, of a codec that was found by its name before, or is built in. NULL if there is none. */
const struct codec *codec_by_id(unsigned id);
/* The i-th codec, NULL past the end: those built in, then modules as they were found. */
const struct codec *codec_at(unsigned i);

struct codec_spec {
	const struct codec *codec;
	int level;
};
/*
 * Parse NAME or NAME:LEVEL ("zstd:-1"). 0; -ENOENT for an unknown name,
 * -ERANGE for a level the codec does not have, -EINVAL for anything else, each
 * with one line in err (of errlen bytes) that lists what is known. Looks for
 * modules as codec_find() does; one that cannot be used is -ENOENT, too.
 */
int codec_parse(const char *text, struct codec_spec *out, char *err, size_t errlen)
	__attribute__((warn_unused_result));

/* Whether all n/8 words of a buffer (n a multiple of 64) are equal; the word in *word. */
bool codec_same_filled(const void *page, size_t n, uint64_t *word);
/* The inverse. */
void codec_fill(void *page, size_t n, uint64_t word);

/*
 * One thread's contexts for all codecs, made when first used. Zeroed memory is
 * an empty set. Calls return NULL when memory is short; the set stays valid.
 */
struct codec_set {
	void *cctx[CODEC_MAX];
	int level[CODEC_MAX];
	void *dctx[CODEC_MAX];
};
void *codec_set_cctx(struct codec_set *s, const struct codec_spec *spec);
void *codec_set_dctx(struct codec_set *s, const struct codec *codec);
/* Frees all contexts; a set that was never used is fine. */
void codec_set_clear(struct codec_set *s);
/* Bytes held by the contexts of the set, about. */
size_t codec_set_bytes(const struct codec_set *s);

#endif
