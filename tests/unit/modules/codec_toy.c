/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Codec modules for tests: one that works (a copy with each byte inverted), and
 * with TOY_* defined at build time some that must be refused.
 */
#include "codec/module.h"

#include <errno.h>
#include <string.h>

#ifndef TOY_NAME
#define TOY_NAME "toy"
#endif
#ifndef TOY_ID
#define TOY_ID CODEC_ID_MODULE
#endif
#ifndef TOY_ABI
#define TOY_ABI CODEC_MODULE_ABI
#endif
#ifdef TOY_INCOMPLETE
#define TOY_COMPLETE 0
#else
#define TOY_COMPLETE 1
#endif

static const struct codec_services *toy_services;

static void *toy_cctx_create(int level)
{
	(void)level;
	return toy_services->zalloc(64);
}

static void *toy_dctx_create(void)
{
	return toy_services->zalloc(64);
}

static void toy_ctx_destroy(void *ctx)
{
	toy_services->free(ctx);
}

static size_t toy_compress(void *cctx, const void *src, size_t n, void *dst, size_t cap)
{
	(void)cctx;
	if (n > cap)
		return 0;
	for (size_t i = 0; i < n; i++)
		((unsigned char *)dst)[i] = (unsigned char)~((const unsigned char *)src)[i];
	return n;
}

static int toy_decompress(void *dctx, const void *src, size_t size, void *dst, size_t n)
{
	return size == n && toy_compress(dctx, src, n, dst, n) == n ? 0 : -EBADMSG;
}

static const struct codec toy = {
	.name = TOY_NAME,
	.id = TOY_ID,
	.level_max = 3,
	.cctx_create = toy_cctx_create,
	.cctx_destroy = toy_ctx_destroy,
	.dctx_create = toy_dctx_create,
	.dctx_destroy = toy_ctx_destroy,
	.cctx_bytes = 64,
	.dctx_bytes = 64,
	.compress = toy_compress,
	.decompress = TOY_COMPLETE ? toy_decompress : NULL,
};

static const struct codec *toy_open(const struct codec_services *s)
{
	toy_services = s;
	return &toy;
}

#ifdef TOY_NO_SYMBOL
#define tmem_codec_module something_else
#endif
__attribute__((visibility("default"))) extern const struct codec_module tmem_codec_module;
const struct codec_module tmem_codec_module = {
	.abi = TOY_ABI,
	.codec_bytes = sizeof(struct codec),
	.open = toy_open,
};
