/* SPDX-License-Identifier: BSD-2-Clause */
/* A trace file that one thread writes, block by block. */
#include "cli/trace.h"

#include "os/file.h"

#include <fcntl.h>

int trace_out_open(struct trace_out *o, const char *path)
{
	uint8_t head[TRACE_HEAD_BYTES];
	int rc = os_file_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);

	if (rc < 0)
		return rc;
	o->fd = rc;
	o->offset = sizeof(head);
	o->records = o->lost = 0;
	o->error = 0;
	trace_block_reset(&o->block);
	trace_head(head);
	rc = os_file_pwrite(o->fd, head, sizeof(head), 0);
	if (rc)
		os_file_close(o->fd);
	return rc;
}

static void flush(struct trace_out *o)
{
	size_t bytes = trace_block_close(&o->block, o->lost);
	int rc = os_file_pwrite(o->fd, o->block.bytes, bytes, o->offset);

	if (rc == 0) {
		o->offset += bytes;
		o->records += o->block.records;
	} else {
		o->lost += o->block.records;
		o->error = o->error ? o->error : rc;
	}
	trace_block_reset(&o->block);
}

void trace_out_add(struct trace_out *o, const struct trace_op *op)
{
	if (trace_block_add(&o->block, op))
		return;
	flush(o);
	(void)!trace_block_add(&o->block, op); /* into an empty block it fits */
}

int trace_out_close(struct trace_out *o)
{
	size_t bytes;
	int rc;

	if (o->block.records)
		flush(o);
	bytes = trace_block_end(&o->block, o->records, o->lost);
	rc = o->error ? os_file_truncate(o->fd, o->offset) : 0;
	if (rc == 0)
		rc = os_file_pwrite(o->fd, o->block.bytes, bytes, o->offset);
	os_file_close(o->fd);
	return o->error ? o->error : rc;
}
