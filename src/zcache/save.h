/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The save file: a client's pages, as they are stored.
 *
 *   header (128 bytes)
 *   record, record, ...          numbered from 0
 *   END record                   counts, and a checksum over all records
 *   nothing
 *
 *   header  0 "tmemsave"  8 version  12 header bytes  16 pools  20 zero
 *          24 client's name, 64 bytes  88 zero  124 checksum of bytes 0..123
 *   record  0 type  4 payload bytes  8 number (64 bits)
 *          16 checksum of the payload  20 checksum of bytes 0..19   24 payload
 *
 *   POOL    0 number, from 0  4 flags (1: persistent, 256: costly)  8 id that it had  12 shards
 *   CODEC   0 id  1 its name, to the end
 *   ZPAGE   0 pool  4 zero  8 oid  32 index of place 0  40 mask of places  44 codec
 *          45 pages  46 zero  48 compressed bytes  52 their checksum  56 the bytes
 *   SAME    0 pool  4 zero  8 oid  32 index of slot 0  40 mask of slots (64 bits)
 *          48 one word for each
 *   END     0 pages  8 zpages  16 records before this  24 whole checksum  28 zero
 *
 * All numbers little endian. Pools come before their pages, a codec before its
 * first zpage; the name is what counts, ids may be others where it is restored.
 *
 * Checksums find accidents, not forgery: a reader therefore believes none of the
 * numbers. He bounds what he allocates by constants, judges each field, and
 * decompresses each zpage before he takes it.
 */
#ifndef TMEM_ZCACHE_SAVE_H
#define TMEM_ZCACHE_SAVE_H

#include "zcache/zcache.h"

#define SAVE_MAGIC	 "tmemsave"
#define SAVE_VERSION	 1u
#define SAVE_HEADER	 128u
#define SAVE_RECORD	 24u /* in front of the payload */
#define SAVE_ZPAGE	 56u /* in front of the compressed bytes */
#define SAVE_SAME	 48u
#define SAVE_POOL	 16u
#define SAVE_END	 32u
#define SAVE_CODEC_MAX	 64u
#define SAVE_PAYLOAD_MAX (SAVE_ZPAGE + ZC_CLUSTER_BYTES)
#define SAVE_BUFFER	 (256u << 10)
_Static_assert(SAVE_BUFFER >= SAVE_RECORD + SAVE_PAYLOAD_MAX, "a record fits");

enum save_type { SAVE_T_POOL = 1, SAVE_T_CODEC, SAVE_T_ZPAGE, SAVE_T_SAME, SAVE_T_END };

static inline void save_put32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}
static inline void save_put64(uint8_t *p, uint64_t v)
{
	save_put32(p, (uint32_t)v);
	save_put32(p + 4, (uint32_t)(v >> 32));
}
static inline uint32_t save_get32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t save_get64(const uint8_t *p)
{
	return save_get32(p) | (uint64_t)save_get32(p + 4) << 32;
}

/* The checksum over all records so far, with one more; head: its 24 bytes. */
static inline uint32_t save_chain(uint32_t whole, const uint8_t *head)
{
	uint8_t both[4 + SAVE_RECORD];

	save_put32(both, whole);
	memcpy(both + 4, head, SAVE_RECORD);
	return zc_checksum(both, sizeof(both));
}

#endif
