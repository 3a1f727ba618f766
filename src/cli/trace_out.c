/* SPDX-License-Identifier: BSD-2-Clause */
/* A trace file that one thread writes, block by block. */
#include "cli/trace.h"

#include "os/file.h"

#include <errno.h>
#include <fcntl.h>

static int write_head(struct trace_out *o)
{
	uint8_t head[TRACE_HEAD_BYTES];

	trace_head(head);
	return os_file_pwrite(o->fd, head, sizeof(head), 0);
}

int trace_out_open(struct trace_out *o, const char *path)
{
	struct os_file_about about;
	int rc = os_file_open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);

	o->made = rc >= 0;
	if (rc == -EEXIST)
		rc = os_file_open(path, O_WRONLY | O_CREAT, 0666);
	if (rc < 0)
		return rc;
	o->fd = rc;
	o->begun = false;
	o->offset = TRACE_HEAD_BYTES;
	o->records = o->lost = 0;
	o->error = 0;
	trace_block_reset(&o->block);
	rc = os_file_about(o->fd, &about);
	o->regular = rc == 0 && about.regular;
	/* Where nothing can be lost: whether it can be written at all. */
	if (rc == 0 && (!about.regular || about.bytes == 0))
		rc = write_head(o);
	if (rc)
		trace_out_abandon(o, path);
	return rc;
}

void trace_out_abandon(struct trace_out *o, const char *path)
{
	os_file_close(o->fd);
	if (o->made)
		os_file_discard(path);
}

void trace_out_begin(struct trace_out *o)
{
	int rc;

	if (o->begun)
		return;
	o->begun = true;
	rc = o->regular ? os_file_truncate(o->fd, 0) : 0;
	if (rc == 0)
		rc = write_head(o);
	o->error = o->error ? o->error : rc;
}

static void flush(struct trace_out *o)
{
	size_t bytes;
	int rc;

	trace_out_begin(o);
	bytes = trace_block_close(&o->block, o->lost);
	rc = os_file_pwrite(o->fd, o->block.bytes, bytes, o->offset);
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

	trace_out_begin(o);
	if (o->block.records)
		flush(o);
	bytes = trace_block_end(&o->block, o->records, o->lost);
	rc = o->error ? os_file_truncate(o->fd, o->offset) : 0;
	if (rc == 0)
		rc = os_file_pwrite(o->fd, o->block.bytes, bytes, o->offset);
	os_file_close(o->fd);
	return o->error ? o->error : rc;
}
