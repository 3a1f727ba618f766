/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Traces: operations on pages, in the order in which they happened, in a file.
 *
 * Why a format of our own: a trace has tens of millions of records, most of
 * which differ from the one before in little (the next page of the same
 * object, a microsecond later). Said as differences they take 5 to 9 bytes
 * instead of the 64 of a plain struct. Why blocks: each decodes by itself, so
 * several threads write one file, a recorder that was killed leaves all whole
 * blocks readable, and damage is found where it is.
 *
 *   file    head, block*, end block
 *   head    "TMEMTRC\n", u32 version, u32 page size, u64 zero, u64 check
 *   block   u32 magic, u32 kind, u32 bytes, u32 records, u64 base_ns, u64 lost, u64 check
 *           and `bytes` of records; or, in the end block, two varints: all records, all lost
 *   record  u8 what: op (4 bits) | SAME_POOL | SAME_OBJECT | NEXT_INDEX | OK
 *           varint   nanoseconds since the record before (or base_ns)
 *           varint 2 client, pool              unless SAME_POOL
 *           varint 3 object id                 unless SAME_OBJECT
 *           zigzag   index - expected index    unless NEXT_INDEX; expected: old index + old n
 *           varint   n                         pages
 *           PUT:     varint zsize              bytes that were stored for all n; 0: same-filled
 *           READ:    varint k, k varints       compressed sizes of the pages; k is 0 or n
 *
 * Integers in heads are little-endian. check is XXH3 over the head's bytes
 * before it, which seeds XXH3 over the block's records. Differences start at
 * zero in each block.
 *
 *   I1  trace_block.used <= TRACE_BLOCK_BYTES
 *   I2  records of a block are in order of time; blocks of several threads overlap
 *   I3  end block: records == sum of the blocks' records
 *
 * A file without its end block is cut short (the recorder was killed): a
 * reader gives what is whole and says so. Anything else that does not fit is
 * damage, and refused with its offset.
 */
#ifndef TMEM_TRACE_FORMAT_H
#define TMEM_TRACE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_VERSION	  1
#define TRACE_HEAD_BYTES  32u
#define TRACE_BLOCK_HEAD  40u
#define TRACE_BLOCK_BYTES 32768u /* of records, at most */
#define TRACE_SIZES_MAX	  64u	 /* compressed sizes in one record */
/* No record is larger: what, time, names, index, n, count and sizes. */
#define TRACE_RECORD_MAX  (1 + 10 + 10 + 30 + 10 + 10 + 2 + TRACE_SIZES_MAX * 3)

enum trace_opcode {
	TRACE_PUT = 1,	    /* ok: it was kept */
	TRACE_GET,	    /* ok: it was there; n pages came */
	TRACE_GET_AND_DROP, /* the same, and they are gone */
	TRACE_DROP,	    /* n pages from index on were invalidated; ok: some were there */
	TRACE_DROP_OBJECT,
	TRACE_FLUSH_POOL,
	TRACE_POOL_NEW, /* n: the pool's flags */
	TRACE_POOL_END,
	TRACE_POOL_CLONE, /* pool: the source; index: the new pool */
	TRACE_READ,	  /* a program read n pages of a file: what a page cache is asked for */
	TRACE_WRITE,	  /* a program changed n pages of a file */
	TRACE_MAP,	  /* a program mapped n pages of a file; which it touched is not known */
	TRACE_OPCODES
};
/* "put"; "?" for what is none. Static. */
const char *trace_opcode_name(unsigned op);

struct trace_op {
	uint64_t time_ns; /* of a clock that starts anywhere */
	enum trace_opcode op;
	bool ok;
	uint32_t client;
	int32_t pool;
	uint64_t oid[3];
	uint64_t index, n;
	uint32_t zsize;	 /* PUT */
	unsigned nsizes; /* READ: 0 or n, at most TRACE_SIZES_MAX */
	uint16_t size[TRACE_SIZES_MAX];
};

/* ---- writing --------------------------------------------------------------- */

struct trace_block {
	uint32_t used, records;
	uint64_t base_ns, last_ns;
	uint32_t client; /* of the record before */
	int32_t pool;
	uint64_t oid[3], next_index;
	uint8_t bytes[TRACE_BLOCK_HEAD + TRACE_BLOCK_BYTES];
};

/* Fill the file's head. */
void trace_head(uint8_t head[TRACE_HEAD_BYTES]);
/* Empty it. */
void trace_block_reset(struct trace_block *b);
/* Add a record; false: it may not fit, write the block first. Times that go back count as equal. */
bool trace_block_add(struct trace_block *b, const struct trace_op *op)
	__attribute__((warn_unused_result));
/* Finish the head: b->bytes is ready to be written. Returns how many bytes of it. */
size_t trace_block_close(struct trace_block *b, uint64_t lost);
/* The same for the end block. */
size_t trace_block_end(struct trace_block *b, uint64_t records, uint64_t lost);

/* ---- reading --------------------------------------------------------------- */

struct trace_reader {
	int fd;
	uint64_t offset;  /* of the block at hand */
	uint64_t size;	  /* of the file up to which we read */
	uint64_t records; /* given so far */
	uint64_t lost;	  /* by the recorder, as far as is known */
	uint64_t blocks;
	bool ended; /* the end block was seen */
	bool cut;   /* the file has no end block */
	uint32_t at, bytes, left;
	struct trace_op last;
	uint64_t next_index;
	uint8_t head[TRACE_BLOCK_HEAD];
	uint8_t data[TRACE_BLOCK_BYTES];
	char err[160];
};

/*
 * Start reading a file that is open for reading and stays the caller's. Memory
 * is bounded by the struct. 0, or -EBADMSG, or what reading failed with, with
 * a line in r->err.
 */
int trace_reader_start(struct trace_reader *r, int fd) __attribute__((warn_unused_result));
/*
 * The next operation in file order. 1: *op is it; 0: there is none (see
 * ended, cut); -EBADMSG: damage, r->err says where; or the error of reading.
 * After an error the reader stays where it is and fails again.
 */
int trace_reader_next(struct trace_reader *r, struct trace_op *op)
	__attribute__((warn_unused_result));

/* XXH3 over bytes, seeded. For heads: seed 0. */
uint64_t trace_check(const void *bytes, size_t n, uint64_t seed);

#endif
