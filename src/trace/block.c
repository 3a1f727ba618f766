/* SPDX-License-Identifier: BSD-2-Clause */
/* Operations into blocks; see format.h. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "os/check.h"
#include "trace/bits.h"
#include "trace/format.h"

#include <string.h>

uint64_t trace_check(const void *bytes, size_t n, uint64_t seed)
{
	return XXH3_64bits_withSeed(bytes, n, seed);
}

const char *trace_opcode_name(unsigned op)
{
	static const char *const name[TRACE_OPCODES] = {
		"?",	       "put",	     "get",	 "get and drop", "drop",
		"drop object", "flush pool", "new pool", "end pool",	 "clone pool",
		"read",	       "write",	     "map"};

	return op < TRACE_OPCODES ? name[op] : "?";
}

void trace_head(uint8_t head[TRACE_HEAD_BYTES])
{
	memset(head, 0, TRACE_HEAD_BYTES);
	memcpy(head, TRACE_MAGIC, 8);
	trace_set32(head + 8, TRACE_VERSION);
	trace_set32(head + 12, 4096);
	trace_set64(head + 24, trace_check(head, 24, 0));
}

void trace_block_reset(struct trace_block *b)
{
	b->used = b->records = 0;
	b->base_ns = b->last_ns = 0;
	b->client = 0;
	b->pool = 0;
	memset(b->oid, 0, sizeof(b->oid));
	b->next_index = 0;
}

static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		*p++ = (uint8_t)(v | 0x80);
	*p++ = (uint8_t)v;
	return p;
}

static uint8_t *put_names(const struct trace_block *b, const struct trace_op *op, uint8_t what,
			  uint8_t *p)
{
	if (!(what & TRACE_SAME_POOL)) {
		p = put_varint(p, op->client);
		p = put_varint(p, (uint32_t)op->pool);
	}
	if (!(what & TRACE_SAME_OBJECT))
		for (unsigned i = 0; i < 3; i++)
			p = put_varint(p, op->oid[i]);
	if (!(what & TRACE_NEXT_INDEX)) {
		uint64_t d = op->index - b->next_index;

		p = put_varint(p, d << 1 ^ -(d >> 63)); /* zigzag: small either way */
	}
	return p;
}

bool trace_block_add(struct trace_block *b, const struct trace_op *op)
{
	uint8_t *start = b->bytes + TRACE_BLOCK_HEAD + b->used, *p = start;
	uint8_t what = (uint8_t)op->op;
	uint64_t now = op->time_ns;

	if (b->used + TRACE_RECORD_MAX > TRACE_BLOCK_BYTES)
		return false;
	if (b->records == 0)
		b->base_ns = b->last_ns = now;
	if (now < b->last_ns)
		now = b->last_ns;
	if (op->client == b->client && op->pool == b->pool)
		what |= TRACE_SAME_POOL;
	if (!memcmp(op->oid, b->oid, sizeof(b->oid)))
		what |= TRACE_SAME_OBJECT;
	if (op->index == b->next_index)
		what |= TRACE_NEXT_INDEX;
	if (op->ok)
		what |= TRACE_OK;
	*p++ = what;
	p = put_varint(p, now - b->last_ns);
	p = put_names(b, op, what, p);
	p = put_varint(p, op->n);
	if (op->op == TRACE_PUT)
		p = put_varint(p, op->zsize);
	if (op->op == TRACE_READ) {
		p = put_varint(p, op->nsizes);
		for (unsigned i = 0; i < op->nsizes; i++)
			p = put_varint(p, op->size[i]);
	}
	b->last_ns = now;
	b->client = op->client;
	b->pool = op->pool;
	memcpy(b->oid, op->oid, sizeof(b->oid));
	b->next_index = op->index + op->n;
	b->records++;
	b->used += (uint32_t)(p - start);
	tmem_assert(I1, b->used <= TRACE_BLOCK_BYTES);
	return true;
}

static size_t close_block(struct trace_block *b, uint32_t kind, uint64_t lost)
{
	uint8_t *h = b->bytes;

	trace_set32(h, TRACE_BLOCK_MAGIC);
	trace_set32(h + 4, kind);
	trace_set32(h + 8, b->used);
	trace_set32(h + 12, b->records);
	trace_set64(h + 16, b->base_ns);
	trace_set64(h + 24, lost);
	trace_set64(h + 32, trace_check(h + TRACE_BLOCK_HEAD, b->used, trace_check(h, 32, 0)));
	return TRACE_BLOCK_HEAD + b->used;
}

size_t trace_block_close(struct trace_block *b, uint64_t lost)
{
	return close_block(b, TRACE_KIND_RECORDS, lost);
}

size_t trace_block_end(struct trace_block *b, uint64_t records, uint64_t lost)
{
	uint8_t *p = b->bytes + TRACE_BLOCK_HEAD;

	trace_block_reset(b);
	p = put_varint(p, records);
	p = put_varint(p, lost);
	b->used = (uint32_t)(p - (b->bytes + TRACE_BLOCK_HEAD));
	return close_block(b, TRACE_KIND_END, lost);
}
