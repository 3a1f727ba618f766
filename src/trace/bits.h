/* SPDX-License-Identifier: BSD-2-Clause */
/* What block.c and reader.c must agree on beyond format.h; for them alone. */
#ifndef TMEM_TRACE_BITS_H
#define TMEM_TRACE_BITS_H

#include <stdint.h>

#define TRACE_MAGIC	   "TMEMTRC\n" /* eight bytes, no end */
#define TRACE_BLOCK_MAGIC  0x4b4c4254u /* "TBLK" */
#define TRACE_KIND_RECORDS 1u
#define TRACE_KIND_END	   2u

enum {
	TRACE_OP_MASK = 0x0f,
	TRACE_SAME_POOL = 0x10,
	TRACE_SAME_OBJECT = 0x20,
	TRACE_NEXT_INDEX = 0x40,
	TRACE_OK = 0x80,
};

static inline void trace_set32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}
static inline void trace_set64(uint8_t *p, uint64_t v)
{
	for (unsigned i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}
static inline uint32_t trace_get32(const uint8_t *p)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < 4; i++)
		v |= (uint32_t)p[i] << 8 * i;
	return v;
}
static inline uint64_t trace_get64(const uint8_t *p)
{
	return trace_get32(p) | (uint64_t)trace_get32(p + 4) << 32;
}

#endif
