/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * zstd: the dense one, levels -7 (fast) to 19.
 *
 * Blocks, not frames. A frame's header and its block's header are 5 bytes in
 * the leanest form the library writes (magicless, without size and checksum)
 * and 10 in what ZSTD_compressCCtx writes. All of them are known beforehand
 * here: the size is kept beside the data, the checksum is the host's, and up to
 * 64 KiB are always one block. On pages of a Python process (mean 485 bytes at
 * level 1) leaving them out makes the store 1.0 % smaller than magicless
 * frames and 2.1 % smaller than the default ones, at the same speed.
 *
 *   context:  [ struct zstd_cctx | the library's workspace, of a size known before ]
 *
 * The workspace is the library's "static" kind: its size is the greatest need
 * of the three tiers, so it is fixed by the level, can be charged in advance,
 * and no later call allocates. Changing between inputs of 4 KiB and 64 KiB
 * does not resize anything, as an ordinary context would. It is not zeroed: what
 * inputs of the size that comes do not need of it takes no memory.
 *
 * Parameters are chosen once per context for three sizes of input. Departures
 * from the library's tables, measured on memory of real processes: a minimum
 * match of 5 instead of 6 for 64 KiB at level 1 (0.3 to 2.3 % denser, as fast),
 * and of 4 for negative levels (0.4 to 5 % denser, 0 to 11 % slower).
 *
 * The block calls and the static contexts are outside the library's stable
 * interface, but exported by its shared library since 1.3 and in 1.5.x.
 *
 * Failure: whatever the library reports on decompression is -EBADMSG.
 */
#define ZSTD_STATIC_LINKING_ONLY
#define ZSTD_DISABLE_DEPRECATE_WARNINGS

#include "codec/builtin.h"
#include "codec/zstd_parameters.h"
#include "os/check.h"
#include "os/mem.h"

#include <errno.h>

/* Sizes of input that have parameters of their own: up to and including. */
static const size_t tier_bytes[] = {4096, 16384, 65536};
#define TIERS (sizeof(tier_bytes) / sizeof(tier_bytes[0]))

struct zstd_cctx {
	ZSTD_CCtx *z; /* in workspace[] */
	ZSTD_parameters tier[TIERS];
	_Alignas(64) char workspace[];
};

static ZSTD_parameters tier_parameters(int level, size_t bytes)
{
	/* noDictIDFlag and no size, no checksum: without a frame they would not be written. */
	return (ZSTD_parameters){.cParams = zstd_parameters(level, bytes, 0),
				 .fParams.noDictIDFlag = 1};
}

static size_t workspace_bytes(int level)
{
	size_t most = 0;

	for (unsigned i = 0; i < TIERS; i++) {
		ZSTD_parameters p = tier_parameters(level, tier_bytes[i]);
		size_t need = ZSTD_estimateCCtxSize_usingCParams(p.cParams);

		if (need > most)
			most = need;
	}
	return most;
}

static size_t zstd_cctx_size(int level)
{
	return sizeof(struct zstd_cctx) + workspace_bytes(level);
}

static void *zstd_cctx_create(int level)
{
	size_t bytes = workspace_bytes(level);
	struct zstd_cctx *c = os_alloc_aligned(sizeof(*c) + bytes);

	if (!c)
		return NULL;
	c->z = ZSTD_initStaticCCtx(c->workspace, bytes);
	if (!c->z) {
		os_free(c);
		return NULL;
	}
	for (unsigned i = 0; i < TIERS; i++)
		c->tier[i] = tier_parameters(level, tier_bytes[i]);
	return c;
}

static void zstd_cctx_destroy(void *cctx)
{
	os_free(cctx);
}

static size_t zstd_compress(void *cctx, const void *src, size_t n, void *dst, size_t cap)
{
	struct zstd_cctx *c = cctx;
	unsigned t = 0;
	size_t size;

	tmem_assert(size, n > 0 && n <= tier_bytes[TIERS - 1]);
	while (t < TIERS - 1 && n > tier_bytes[t])
		t++;
	size = ZSTD_compressBegin_advanced(c->z, NULL, 0, c->tier[t], n);
	/* Parameters and workspace were made for each other. */
	tmem_must(!ZSTD_isError(size));
	/* 0: does not shrink; an error: does not fit in cap. */
	size = ZSTD_compressBlock(c->z, dst, cap, src, n);
	return ZSTD_isError(size) ? 0 : size;
}

static void *zstd_dctx_create(void)
{
	size_t bytes = ZSTD_estimateDCtxSize();
	void *workspace = os_alloc_aligned(bytes);

	/* The context is the beginning of its workspace. */
	if (workspace && !ZSTD_initStaticDCtx(workspace, bytes)) {
		os_free(workspace);
		workspace = NULL;
	}
	return workspace;
}

static void zstd_dctx_destroy(void *dctx)
{
	os_free(dctx);
}

static int zstd_decompress(void *dctx, const void *src, size_t size, void *dst, size_t n)
{
	size_t got;

	if (size == 0 || n > tier_bytes[TIERS - 1])
		return -EBADMSG;
	tmem_must(!ZSTD_isError(ZSTD_decompressBegin(dctx)));
	got = ZSTD_decompressBlock(dctx, dst, n, src, size);
	return got == n ? 0 : -EBADMSG;
}

const struct codec codec_zstd = {
	.name = "zstd",
	.id = CODEC_ID_ZSTD,
	.level_min = -7,
	.level_max = 19,
	.level_default = 1,
	.cctx_create = zstd_cctx_create,
	.cctx_destroy = zstd_cctx_destroy,
	.dctx_create = zstd_dctx_create,
	.dctx_destroy = zstd_dctx_destroy,
	.cctx_bytes = 304 << 10,
	.dctx_bytes = 96 << 10,
	.compress = zstd_compress,
	.decompress = zstd_decompress,
	.cctx_size = zstd_cctx_size,
};
