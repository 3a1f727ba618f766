/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lz4: the fast one. A level is LZ4's acceleration: 1 is the densest, larger
 * ones skip more of what looks incompressible.
 *
 * Which of the library's calls: LZ4_compress_fast_extState with our own state,
 * 3.2 us a page of a Python process. The "fastReset" variant is not exported
 * by the shared library, and measures the same, because it clears the table
 * too from inputs of 4096 bytes on. A stream that is reset in the fast way and
 * never cleared takes 3.7 us (12 to 60 % more, by page), and packs worse: its
 * hash table has half as many entries.
 */
#include "codec/builtin.h"
#include "os/check.h"
#include "os/mem.h"

#include <errno.h>
#include <lz4.h>

/* The state and the level that it is used with. */
struct lz4_cctx {
	LZ4_stream_t state;
	int acceleration;
};

static void *lz4_cctx_create(int level)
{
	struct lz4_cctx *c = os_zalloc_aligned(sizeof(*c));

	if (c)
		c->acceleration = level;
	return c;
}

static void lz4_cctx_destroy(void *cctx)
{
	os_free(cctx);
}

static size_t lz4_compress(void *cctx, const void *src, size_t n, void *dst, size_t cap)
{
	struct lz4_cctx *c = cctx;
	int size;

	tmem_assert(size, n > 0 && n <= LZ4_MAX_INPUT_SIZE);
	/* More room than the worst case is of no use, and the library counts in int. */
	if (cap > (size_t)LZ4_COMPRESSBOUND(n))
		cap = (size_t)LZ4_COMPRESSBOUND(n);
	size = LZ4_compress_fast_extState(&c->state, src, dst, (int)n, (int)cap, c->acceleration);
	return size > 0 ? (size_t)size : 0;
}

static int lz4_decompress(void *dctx, const void *src, size_t size, void *dst, size_t n)
{
	(void)dctx;
	if (n > LZ4_MAX_INPUT_SIZE || size > (size_t)LZ4_COMPRESSBOUND(n))
		return -EBADMSG;
	if (LZ4_decompress_safe(src, dst, (int)size, (int)n) != (int)n)
		return -EBADMSG;
	return 0;
}

const struct codec codec_lz4 = {
	.name = "lz4",
	.id = CODEC_ID_LZ4,
	.level_min = 1,
	.level_max = 64,
	.level_default = 1,
	.cctx_create = lz4_cctx_create,
	.cctx_destroy = lz4_cctx_destroy,
	.dctx_create = codec_no_dctx_create,
	.dctx_destroy = codec_no_destroy,
	.cctx_bytes = sizeof(struct lz4_cctx),
	.compress = lz4_compress,
	.decompress = lz4_decompress,
};
