/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lz4hc: lz4's format, packed with more care. Compresses several times slower
 * than lz4 and comes back as fast: for pages that are written once and read
 * often, and for recompression where a fault must stay cheap.
 *
 * Streams are lz4's, but the id is its own: it says how dense a stored page is
 * already, so that recompression does not try the same page again.
 */
#include "codec/builtin.h"
#include "os/check.h"
#include "os/mem.h"

#include <lz4.h>
#include <lz4hc.h>

struct lz4hc_cctx {
	LZ4_streamHC_t state;
	int level;
};

static void *lz4hc_cctx_create(int level)
{
	struct lz4hc_cctx *c = os_zalloc_aligned(sizeof(*c));

	if (c)
		c->level = level;
	return c;
}

static void lz4hc_cctx_destroy(void *cctx)
{
	os_free(cctx);
}

static size_t lz4hc_compress(void *cctx, const void *src, size_t n, void *dst, size_t cap)
{
	struct lz4hc_cctx *c = cctx;
	int size;

	tmem_assert(size, n > 0 && n <= LZ4_MAX_INPUT_SIZE);
	if (cap > (size_t)LZ4_COMPRESSBOUND(n))
		cap = (size_t)LZ4_COMPRESSBOUND(n);
	size = LZ4_compress_HC_extStateHC(&c->state, src, dst, (int)n, (int)cap, c->level);
	return size > 0 ? (size_t)size : 0;
}

static int lz4hc_decompress(void *dctx, const void *src, size_t size, void *dst, size_t n)
{
	return codec_lz4.decompress(dctx, src, size, dst, n);
}

const struct codec codec_lz4hc = {
	.name = "lz4hc",
	.id = CODEC_ID_LZ4HC,
	.level_min = LZ4HC_CLEVEL_MIN,
	.level_max = LZ4HC_CLEVEL_MAX,
	.level_default = LZ4HC_CLEVEL_DEFAULT,
	.cctx_create = lz4hc_cctx_create,
	.cctx_destroy = lz4hc_cctx_destroy,
	.dctx_create = codec_no_dctx_create,
	.dctx_destroy = codec_no_destroy,
	.cctx_bytes = sizeof(struct lz4hc_cctx),
	.compress = lz4hc_compress,
	.decompress = lz4hc_decompress,
};
