/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A file back into operations; see format.h. Every byte is a stranger's: each
 * length is compared with what is left before it is used, and a block's bytes
 * are looked at only after its checksum was right. A right checksum proves
 * that the bytes are those of some writer, not that the writer was sound, so
 * records are bounded all the same.
 */
#include "trace/format.h"

#include "os/file.h"
#include "trace/bits.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int damaged(struct trace_reader *r, uint64_t at, const char *what)
{
	snprintf(r->err, sizeof(r->err), "damaged at byte %" PRIu64 ": %s", at, what);
	return -EBADMSG;
}

/* Exactly n bytes: 1. Fewer, the file ends here: 0. Or an error. */
static int read_part(struct trace_reader *r, void *to, size_t n, uint64_t at)
{
	ssize_t got = os_file_pread(r->fd, to, n, at);

	if (got < 0)
		snprintf(r->err, sizeof(r->err), "cannot be read at byte %" PRIu64 ": %s", at,
			 strerror((int)-got));
	return got < 0 ? (int)got : (size_t)got == n;
}

int trace_reader_start(struct trace_reader *r, int fd)
{
	uint8_t head[TRACE_HEAD_BYTES];
	int rc;

	memset(r, 0, offsetof(struct trace_reader, data));
	r->err[0] = 0;
	r->fd = fd;
	rc = read_part(r, head, sizeof(head), 0);
	if (rc < 0)
		return rc;
	if (rc == 0 || memcmp(head, TRACE_MAGIC, 8) != 0) {
		snprintf(r->err, sizeof(r->err), "is not a trace");
		return -EBADMSG;
	}
	if (trace_get64(head + 24) != trace_check(head, 24, 0))
		return damaged(r, 0, "the head's checksum is wrong");
	if (trace_get32(head + 8) != TRACE_VERSION) {
		snprintf(r->err, sizeof(r->err), "has version %u of the format; this reads %u",
			 trace_get32(head + 8), TRACE_VERSION);
		return -EBADMSG;
	}
	if (trace_get32(head + 12) != 4096)
		return damaged(r, 12, "pages are not of 4096 bytes");
	r->offset = r->size = TRACE_HEAD_BYTES;
	return 0;
}

/* ---- records --------------------------------------------------------------- */

static bool get_varint(struct trace_reader *r, uint64_t *v)
{
	unsigned shift = 0;

	*v = 0;
	while (r->at < r->bytes && shift < 64) {
		uint8_t b = r->data[r->at++];

		if (shift == 63 && b > 1)
			return false;
		*v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return true;
		shift += 7;
	}
	return false;
}

static bool get_below(struct trace_reader *r, uint64_t max, uint64_t *v)
{
	return get_varint(r, v) && *v <= max;
}

static bool get_names(struct trace_reader *r, uint8_t what, struct trace_op *op)
{
	uint64_t v;

	if (!(what & TRACE_SAME_POOL)) {
		if (!get_below(r, UINT32_MAX, &v))
			return false;
		op->client = (uint32_t)v;
		if (!get_below(r, INT32_MAX, &v))
			return false;
		op->pool = (int32_t)v;
	}
	if (!(what & TRACE_SAME_OBJECT))
		for (unsigned i = 0; i < 3; i++)
			if (!get_varint(r, &op->oid[i]))
				return false;
	op->index = r->next_index;
	if (!(what & TRACE_NEXT_INDEX)) {
		if (!get_varint(r, &v))
			return false;
		op->index += v >> 1 ^ -(v & 1);
	}
	return true;
}

static bool get_sizes(struct trace_reader *r, struct trace_op *op)
{
	uint64_t v;

	op->zsize = 0;
	op->nsizes = 0;
	if (op->op == TRACE_PUT) {
		if (!get_below(r, UINT32_MAX, &v))
			return false;
		op->zsize = (uint32_t)v;
	} else if (op->op == TRACE_READ) {
		if (!get_below(r, TRACE_SIZES_MAX, &v) || (v && v != op->n))
			return false;
		op->nsizes = (unsigned)v;
		for (unsigned i = 0; i < op->nsizes; i++) {
			if (!get_below(r, 4096, &v))
				return false;
			op->size[i] = (uint16_t)v;
		}
	}
	return true;
}

/* One record of the block at hand, into r->last. */
static int get_record(struct trace_reader *r)
{
	uint64_t start = r->offset + TRACE_BLOCK_HEAD + r->at, v;
	struct trace_op *op = &r->last;
	uint8_t what;

	if (r->at >= r->bytes)
		return damaged(r, start, "the block has fewer records than it says");
	what = r->data[r->at++];
	op->op = what & TRACE_OP_MASK;
	op->ok = what & TRACE_OK;
	if (op->op == 0 || op->op >= TRACE_OPCODES)
		return damaged(r, start, "there is no such operation");
	if (!get_varint(r, &v) || op->time_ns + v < v)
		return damaged(r, start, "a time is out of range");
	op->time_ns += v;
	if (!get_names(r, what, op))
		return damaged(r, start, "a name is out of range");
	if (!get_varint(r, &op->n) || !get_sizes(r, op))
		return damaged(r, start, "a size is out of range");
	r->next_index = op->index + op->n;
	r->left--;
	r->records++;
	if (r->left == 0 && r->at != r->bytes)
		return damaged(r, r->offset + TRACE_BLOCK_HEAD + r->at,
			       "the block has more bytes than its records");
	return 1;
}

/* ---- blocks ---------------------------------------------------------------- */

static int end_block(struct trace_reader *r, uint32_t records)
{
	uint64_t all, lost;

	r->at = 0;
	if (records || !get_varint(r, &all) || !get_varint(r, &lost) || r->at != r->bytes)
		return damaged(r, r->offset, "the end block makes no sense");
	if (all != r->records)
		return damaged(r, r->offset, "records are missing before the end");
	r->lost = lost;
	r->offset += TRACE_BLOCK_HEAD + r->bytes;
	r->size = r->offset;
	r->ended = true;
	if (os_file_pread(r->fd, r->head, 1, r->offset) != 0)
		return damaged(r, r->offset, "something follows the end");
	return 0;
}

/* The file ends before the block does. */
static int cut_short(struct trace_reader *r)
{
	r->cut = true;
	r->bytes = 0;
	return 0;
}

/* Load the next block: 1; the end: 0; or an error. */
static int next_block(struct trace_reader *r)
{
	uint64_t at = r->offset + (r->blocks ? TRACE_BLOCK_HEAD + r->bytes : 0);
	uint32_t kind, bytes, records;
	int rc = read_part(r, r->head, TRACE_BLOCK_HEAD, at);

	if (rc <= 0)
		return rc ? rc : cut_short(r);
	kind = trace_get32(r->head + 4);
	bytes = trace_get32(r->head + 8);
	records = trace_get32(r->head + 12);
	if (trace_get32(r->head) != TRACE_BLOCK_MAGIC)
		return damaged(r, at, "no block starts here");
	if (bytes > TRACE_BLOCK_BYTES ||
	    (kind != TRACE_KIND_END && (kind != TRACE_KIND_RECORDS || records == 0)))
		return damaged(r, at, "a block's head makes no sense");
	rc = read_part(r, r->data, bytes, at + TRACE_BLOCK_HEAD);
	if (rc <= 0)
		return rc ? rc : cut_short(r);
	if (trace_get64(r->head + 32) != trace_check(r->data, bytes, trace_check(r->head, 32, 0)))
		return damaged(r, at, "a block's checksum is wrong");
	r->offset = at;
	r->bytes = bytes;
	if (kind == TRACE_KIND_END)
		return end_block(r, records);
	r->blocks++;
	r->at = 0;
	r->left = records;
	r->size = at + TRACE_BLOCK_HEAD + bytes;
	if (trace_get64(r->head + 24) > r->lost)
		r->lost = trace_get64(r->head + 24);
	memset(&r->last, 0, sizeof(r->last));
	r->last.time_ns = trace_get64(r->head + 16);
	r->next_index = 0;
	return 1;
}

int trace_reader_next(struct trace_reader *r, struct trace_op *op)
{
	int rc = 1;

	if (r->err[0])
		return -EBADMSG;
	if (r->ended || r->cut)
		return 0;
	if (r->left == 0)
		rc = next_block(r);
	if (rc == 1)
		rc = get_record(r);
	if (rc == 1)
		*op = r->last;
	return rc;
}
