/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * deflate, by libdeflate: raw streams without zlib's header and checksum,
 * which the host has its own of.
 *
 * Levels 1 to 9. Those from 10 on need 9 MiB a context and gain 1 to 2 %;
 * zstd's upper levels are denser and cheaper.
 *
 * Contexts are the library's, in memory that it takes from os/mem.h: it is
 * told so for the whole process, always the same two functions, so it does not
 * matter who comes first. Sizes below are what version 1.14 takes, with a
 * little more; they only serve accounts.
 *
 * Decompression asks the library where the stream ended: bytes behind it would
 * otherwise pass unseen.
 */
#include "codec/builtin.h"
#include "os/check.h"
#include "os/mem.h"

#include <errno.h>
#include <libdeflate.h>

#define DEFLATE_MAX_BYTES 65536u

static void deflate_memory(void)
{
	libdeflate_set_memory_allocator(os_alloc, os_free);
}

static size_t deflate_cctx_size(int level)
{
	return level == 1 ? 208u << 10 : 664u << 10;
}

static void *deflate_cctx_create(int level)
{
	deflate_memory();
	return libdeflate_alloc_compressor(level);
}

static void deflate_cctx_destroy(void *cctx)
{
	libdeflate_free_compressor(cctx);
}

static size_t deflate_compress(void *cctx, const void *src, size_t n, void *dst, size_t cap)
{
	tmem_assert(size, n > 0 && n <= DEFLATE_MAX_BYTES);
	return libdeflate_deflate_compress(cctx, src, n, dst, cap < n ? cap : n);
}

static void *deflate_dctx_create(void)
{
	deflate_memory();
	return libdeflate_alloc_decompressor();
}

static void deflate_dctx_destroy(void *dctx)
{
	libdeflate_free_decompressor(dctx);
}

static int deflate_decompress(void *dctx, const void *src, size_t size, void *dst, size_t n)
{
	size_t read = 0;

	if (size == 0 || n > DEFLATE_MAX_BYTES)
		return -EBADMSG;
	if (libdeflate_deflate_decompress_ex(dctx, src, size, dst, n, &read, NULL) !=
		    LIBDEFLATE_SUCCESS ||
	    read != size)
		return -EBADMSG;
	return 0;
}

const struct codec codec_deflate = {
	.name = "deflate",
	.id = CODEC_ID_DEFLATE,
	.level_min = 1,
	.level_max = 9,
	.level_default = 1,
	.cctx_create = deflate_cctx_create,
	.cctx_destroy = deflate_cctx_destroy,
	.dctx_create = deflate_dctx_create,
	.dctx_destroy = deflate_dctx_destroy,
	.cctx_bytes = 208 << 10,
	.dctx_bytes = 12 << 10,
	.compress = deflate_compress,
	.decompress = deflate_decompress,
	.cctx_size = deflate_cctx_size,
};
