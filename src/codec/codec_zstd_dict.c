/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * zstd with a dictionary: single pages that look alike.
 *
 *   memory:  [ struct codec_dict | content | CDict | DDict ]
 *
 * Blocks without frames, as in codec_zstd.c, and the library's static objects,
 * whose sizes are known before. The dictionary is attached, not copied, for
 * each page: at 4 KiB the library searches the CDict's tables in place.
 *
 * Training is by the library's fast cover algorithm with one set of
 * parameters. Searching for the best of several gains 0.3 % and takes 8 times
 * as long.
 *
 * The codec of this file has an id, so that stored data can say that it needs
 * a dictionary, and contexts; without a dictionary it can do nothing.
 */
#define ZSTD_STATIC_LINKING_ONLY
#define ZDICT_STATIC_LINKING_ONLY
#define ZSTD_DISABLE_DEPRECATE_WARNINGS

#include "codec/dict.h"

#include "codec/builtin.h"
#include "codec/zstd_parameters.h"
#include "os/check.h"
#include "os/mem.h"

#include <errno.h>
#include <string.h>
#include <zdict.h>

#define INPUT_MAX 4096u

struct codec_dict {
	const ZSTD_CDict *c;
	const ZSTD_DDict *d;
	size_t content_bytes;
	int level;
	_Alignas(64) char content[];
};

static size_t round_up(size_t n)
{
	return (n + 63) / 64 * 64;
}

static ZSTD_compressionParameters parameters(int level, size_t content_bytes)
{
	return zstd_parameters(level, INPUT_MAX, content_bytes);
}

static size_t cdict_bytes(size_t content_bytes, int level)
{
	return round_up(ZSTD_estimateCDictSize_advanced(
		content_bytes, parameters(level, content_bytes), ZSTD_dlm_byRef));
}

static size_t ddict_bytes(size_t content_bytes)
{
	return round_up(ZSTD_estimateDDictSize(content_bytes, ZSTD_dlm_byRef));
}

size_t codec_dict_bytes(size_t content_bytes, int level)
{
	return sizeof(struct codec_dict) + round_up(content_bytes) +
	       cdict_bytes(content_bytes, level) + ddict_bytes(content_bytes);
}

struct codec_dict *codec_dict_init(void *mem, const void *content, size_t n, int level)
{
	struct codec_dict *d = mem;
	char *at = d->content + round_up(n);

	if (n < CODEC_DICT_MIN || n > CODEC_DICT_MAX)
		return NULL;
	memcpy(d->content, content, n);
	d->content_bytes = n;
	d->level = level;
	d->c = ZSTD_initStaticCDict(at, cdict_bytes(n, level), d->content, n, ZSTD_dlm_byRef,
				    ZSTD_dct_fullDict, parameters(level, n));
	at += cdict_bytes(n, level);
	d->d = ZSTD_initStaticDDict(at, ddict_bytes(n), d->content, n, ZSTD_dlm_byRef,
				    ZSTD_dct_fullDict);
	return d->c && d->d ? d : NULL;
}

const void *codec_dict_content(const struct codec_dict *d, size_t *bytes)
{
	*bytes = d->content_bytes;
	return d->content;
}

int codec_dict_level(const struct codec_dict *d)
{
	return d->level;
}

/* ---- contexts ------------------------------------------------------------------------ */

/* For any dictionary of the level. */
static size_t dict_cctx_size(int level)
{
	size_t most = 0;

	for (size_t n = CODEC_DICT_MIN; n <= CODEC_DICT_MAX; n *= 2) {
		size_t need = ZSTD_estimateCCtxSize_usingCParams(parameters(level, n));

		most = need > most ? need : most;
	}
	return most;
}

static void *dict_cctx_create(int level)
{
	size_t bytes = dict_cctx_size(level);
	void *workspace = os_alloc_aligned(bytes);

	/* The context is the beginning of its workspace. */
	if (workspace && !ZSTD_initStaticCCtx(workspace, bytes)) {
		os_free(workspace);
		workspace = NULL;
	}
	return workspace;
}

static void dict_cctx_destroy(void *cctx)
{
	os_free(cctx);
}

static size_t no_compress(void *cctx, const void *src, size_t n, void *dst, size_t cap)
{
	(void)cctx;
	(void)src;
	(void)n;
	(void)dst;
	(void)cap;
	return 0;
}

const struct codec codec_zstd_dict = {
	.name = "zstd-dictionary",
	.id = CODEC_ID_ZSTD_DICT,
	.level_min = -7,
	.level_max = 19,
	.level_default = 1,
	.cctx_create = dict_cctx_create,
	.cctx_destroy = dict_cctx_destroy,
	.dctx_create = codec_no_dctx_create,
	.dctx_destroy = codec_no_destroy,
	.cctx_bytes = 304 << 10,
	.compress = no_compress,
	.decompress = codec_no_decompress,
	.cctx_size = dict_cctx_size,
};

/* ---- pages --------------------------------------------------------------------------- */

size_t codec_dict_compress(void *cctx, const struct codec_dict *d, const void *src, size_t n,
			   void *dst, size_t cap)
{
	ZSTD_frameParameters none = {.noDictIDFlag = 1};
	size_t size;

	tmem_assert(size, n > 0 && n <= INPUT_MAX);
	size = ZSTD_compressBegin_usingCDict_advanced(cctx, d->c, none, n);
	/* The workspace was made for any dictionary of this level. */
	tmem_must(!ZSTD_isError(size));
	size = ZSTD_compressBlock(cctx, dst, cap, src, n);
	return ZSTD_isError(size) ? 0 : size;
}

int codec_dict_decompress(void *dctx, const struct codec_dict *d, const void *src, size_t size,
			  void *dst, size_t n)
{
	size_t got;

	if (size == 0 || n > INPUT_MAX)
		return -EBADMSG;
	tmem_must(!ZSTD_isError(ZSTD_decompressBegin_usingDDict(dctx, d->d)));
	got = ZSTD_decompressBlock(dctx, dst, n, src, size);
	return got == n ? 0 : -EBADMSG;
}

/* ---- training ------------------------------------------------------------------------ */

size_t codec_dict_train(const void *samples, const size_t *sizes, unsigned n, void *dst, size_t cap,
			int level)
{
	ZDICT_fastCover_params_t p = {.k = 256,
				      .d = 8,
				      .f = 18,
				      .steps = 1,
				      .nbThreads = 1,
				      .splitPoint = 1.0,
				      .accel = 1};
	size_t size;

	p.zParams.compressionLevel = level;
	size = ZDICT_trainFromBuffer_fastCover(dst, cap, samples, sizes, n, p);
	return ZDICT_isError(size) || size < CODEC_DICT_MIN ? 0 : size;
}
