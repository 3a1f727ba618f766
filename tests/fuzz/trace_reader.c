/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: the reader of traces, on any bytes.
 *
 *   byte 0, bit 0: the bytes are the file as it is
 *   else: they are records of blocks, and heads and checksums are made to fit,
 *   so that what is fuzzed is what lies behind them; byte 1: records of each,
 *   byte 2: bytes of each; bit 1 of byte 0: with an end block that counts right
 *
 * The reader ends, with 0 or -EBADMSG and a line, and gives no operation that
 * is out of its bounds; each that it gives comes back the same when it is
 * written and read again.
 */
#include "fuzz.h"
#include "trace/format.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

static struct trace_block block;
static struct trace_reader reader, again;

static void write_all(int fd, const void *p, size_t n)
{
	fuzz_check(write(fd, p, n) == (ssize_t)n);
}

static void write_blocks(int fd, const uint8_t *p, size_t size, unsigned records, unsigned bytes)
{
	while (size) {
		size_t n = bytes + 1u < size ? bytes + 1u : size;

		trace_block_reset(&block);
		memcpy(block.bytes + TRACE_BLOCK_HEAD, p, n);
		block.used = (uint32_t)n;
		block.records = records + 1;
		write_all(fd, block.bytes, trace_block_close(&block, 0));
		p += n;
		size -= n;
	}
}

/* One operation, there and back. */
static void round_trip(const struct trace_op *op)
{
	int fd = memfd_create("again", MFD_CLOEXEC);
	uint8_t head[TRACE_HEAD_BYTES];
	struct trace_op back;

	fuzz_check(fd >= 0);
	trace_head(head);
	write_all(fd, head, sizeof(head));
	trace_block_reset(&block);
	fuzz_check(trace_block_add(&block, op));
	write_all(fd, block.bytes, trace_block_close(&block, 0));
	write_all(fd, block.bytes, trace_block_end(&block, 1, 0));
	fuzz_check(trace_reader_start(&again, fd) == 0);
	fuzz_check(trace_reader_next(&again, &back) == 1);
	fuzz_check(back.op == op->op && back.ok == op->ok && back.time_ns == op->time_ns);
	fuzz_check(back.client == op->client && back.pool == op->pool);
	fuzz_check(back.index == op->index && back.n == op->n && back.zsize == op->zsize);
	fuzz_check(!memcmp(back.oid, op->oid, sizeof(op->oid)));
	fuzz_check(back.nsizes == op->nsizes);
	fuzz_check(!memcmp(back.size, op->size, op->nsizes * sizeof(op->size[0])));
	fuzz_check(trace_reader_next(&again, &back) == 0 && again.ended);
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t head[TRACE_HEAD_BYTES];
	uint64_t given = 0;
	struct trace_op op;
	int fd, rc;

	if (size < 4 || size > 1 << 16)
		return 0;
	fd = memfd_create("trace", MFD_CLOEXEC);
	fuzz_check(fd >= 0);
	trace_head(head);
	if (data[0] & 1) {
		write_all(fd, data + 1, size - 1);
	} else {
		write_all(fd, head, sizeof(head));
		write_blocks(fd, data + 3, size - 3, data[1], data[2]);
		if (data[0] & 2)
			write_all(fd, block.bytes, trace_block_end(&block, data[1] + 1u, 0));
	}
	rc = trace_reader_start(&reader, fd);
	while (rc >= 0 && (rc = trace_reader_next(&reader, &op)) == 1) {
		fuzz_check(op.op > 0 && op.op < TRACE_OPCODES && op.pool >= 0);
		fuzz_check(op.nsizes <= TRACE_SIZES_MAX);
		fuzz_check(op.nsizes == 0 || op.nsizes == op.n);
		for (unsigned i = 0; i < op.nsizes; i++)
			fuzz_check(op.size[i] <= 4096);
		if (given++ < 20)
			round_trip(&op);
	}
	fuzz_check(rc == 0 || rc == -EBADMSG);
	fuzz_check(rc == 0 ? reader.ended || reader.cut : reader.err[0] != 0);
	close(fd);
	return 0;
}
