/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * "none": a copy. Used for pages that no codec makes smaller, and to measure
 * what the rest of the engine costs.
 *
 * "precompressed": bytes that a caller handed over as compressed already. They
 * are given back as they are and never looked into, so there is nothing to
 * decompress: who asks for a page of them gets -EBADMSG.
 */
#include "codec/builtin.h"

#include <errno.h>
#include <string.h>

static char no_context;

static void *raw_cctx_create(int level)
{
	(void)level;
	return &no_context;
}

void *codec_no_dctx_create(void)
{
	return &no_context;
}

void codec_no_destroy(void *ctx)
{
	(void)ctx;
}

static size_t raw_compress(void *cctx, const void *src, size_t n, void *dst, size_t cap)
{
	(void)cctx;
	if (n > cap)
		return 0;
	memcpy(dst, src, n);
	return n;
}

static int raw_decompress(void *dctx, const void *src, size_t size, void *dst, size_t n)
{
	(void)dctx;
	if (size != n)
		return -EBADMSG;
	memcpy(dst, src, n);
	return 0;
}

const struct codec codec_raw = {
	.name = "none",
	.id = CODEC_ID_RAW,
	.cctx_create = raw_cctx_create,
	.cctx_destroy = codec_no_destroy,
	.dctx_create = codec_no_dctx_create,
	.dctx_destroy = codec_no_destroy,
	.compress = raw_compress,
	.decompress = raw_decompress,
};

int codec_no_decompress(void *dctx, const void *src, size_t size, void *dst, size_t n)
{
	(void)dctx;
	(void)src;
	(void)size;
	(void)dst;
	(void)n;
	return -EBADMSG;
}

const struct codec codec_opaque = {
	.name = "precompressed",
	.id = CODEC_ID_OPAQUE,
	.cctx_create = raw_cctx_create,
	.cctx_destroy = codec_no_destroy,
	.dctx_create = codec_no_dctx_create,
	.dctx_destroy = codec_no_destroy,
	.compress = raw_compress,
	.decompress = codec_no_decompress,
};
