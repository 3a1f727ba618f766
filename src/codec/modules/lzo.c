/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lzo, as a module: liblzo2 is under the GPL, so nothing else of the project
 * links it, and whoever distributes this file's object distributes it under
 * the GPL's terms. Without liblzo2's headers it is not built.
 *
 * Level 1 is LZO1X-1, levels 2 to 9 are LZO1X-999's. The library's compressors
 * do not know how much room there is, so they write to a buffer of the context
 * that holds the worst case, and what fits is copied out. Decompression is the
 * library's "safe" one, which checks each step against both buffers' ends.
 */
#include "codec/module.h"

#include <errno.h>
#include <lzo/lzo1x.h>
#include <string.h>

#define LZO_INPUT_MAX	 65536u
#define LZO_OUTPUT_MAX	 (LZO_INPUT_MAX + LZO_INPUT_MAX / 16 + 64 + 3)
#define LZO_WORKSPACE(l) ((l) == 1 ? LZO1X_1_MEM_COMPRESS : LZO1X_999_MEM_COMPRESS)

static const struct codec_services *services;
static char no_context;

struct lzo_cctx {
	int level;
	_Alignas(64) unsigned char packed[LZO_OUTPUT_MAX];
	_Alignas(64) unsigned char workspace[];
};

static size_t lzo_cctx_size(int level)
{
	return sizeof(struct lzo_cctx) + LZO_WORKSPACE(level);
}

static void *lzo_cctx_create(int level)
{
	struct lzo_cctx *c = services->zalloc(lzo_cctx_size(level));

	if (c)
		c->level = level;
	return c;
}

static void lzo_cctx_destroy(void *cctx)
{
	services->free(cctx);
}

static size_t lzo_compress(void *cctx, const void *src, size_t n, void *dst, size_t cap)
{
	struct lzo_cctx *c = cctx;
	lzo_uint size = 0;
	int rc;

	if (n == 0 || n > LZO_INPUT_MAX)
		return 0;
	if (c->level == 1)
		rc = lzo1x_1_compress(src, n, c->packed, &size, c->workspace);
	else
		rc = lzo1x_999_compress_level(src, n, c->packed, &size, c->workspace, NULL, 0, NULL,
					      c->level);
	if (rc != LZO_E_OK || size > cap || size > n)
		return 0;
	memcpy(dst, c->packed, size);
	return size;
}

static void *lzo_dctx_create(void)
{
	return &no_context;
}

static void lzo_dctx_destroy(void *dctx)
{
	(void)dctx;
}

static int lzo_decompress(void *dctx, const void *src, size_t size, void *dst, size_t n)
{
	lzo_uint got = n;

	(void)dctx;
	if (size == 0 || n > LZO_INPUT_MAX)
		return -EBADMSG;
	/* Anything but OK, so also bytes left over behind the stream's end. */
	if (lzo1x_decompress_safe(src, size, dst, &got, NULL) != LZO_E_OK || got != n)
		return -EBADMSG;
	return 0;
}

static const struct codec codec_lzo = {
	.name = "lzo",
	.id = CODEC_ID_LZO,
	.level_min = 1,
	.level_max = 9,
	.level_default = 1,
	.cctx_create = lzo_cctx_create,
	.cctx_destroy = lzo_cctx_destroy,
	.dctx_create = lzo_dctx_create,
	.dctx_destroy = lzo_dctx_destroy,
	.cctx_bytes = sizeof(struct lzo_cctx) + LZO1X_1_MEM_COMPRESS,
	.compress = lzo_compress,
	.decompress = lzo_decompress,
	.cctx_size = lzo_cctx_size,
};

static const struct codec *lzo_open(const struct codec_services *s)
{
	__atomic_store_n(&services, s, __ATOMIC_RELEASE);
	return lzo_init() == LZO_E_OK ? &codec_lzo : NULL;
}

__attribute__((visibility("default"))) extern const struct codec_module tmem_codec_module;
const struct codec_module tmem_codec_module = {
	.abi = CODEC_MODULE_ABI,
	.codec_bytes = sizeof(struct codec),
	.open = lzo_open,
};
