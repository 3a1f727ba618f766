/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The recorder: a host's operations into a trace file.
 *
 *   operation ends -> buffer of this thread's stripe -> (full) -> file
 *
 * Sixteen buffers of one block, chosen by thread number as a pool's stripes
 * are, each with its mutex: up to that many threads record without waiting for
 * one another, and a thread that ends leaves nothing behind. The thread that
 * finds its buffer full writes it. That is slow now and then, and no record is
 * dropped for it: a trace that leaves out what happened while the disk was
 * busy would be worth little. Lost are only records whose write failed; later
 * blocks and the end block say how many.
 *
 * Time is taken under the buffer's mutex, after the operation: records of one
 * buffer are in order (format.h, I2), those of two threads in the order in
 * which their operations ended, as near as a clock can tell.
 *
 *   I1  on == true  =>  fd >= 0, and the file is whole blocks up to `offset`
 *   I2  host->trace != NULL  =>  it stays allocated until the host goes
 *   I3  records written + lost + in buffers = records given
 *
 * I2 is what lets the hooks read host->trace with no lock: who has loaded it
 * while the recording stops finds the buffer's `on` false, under its mutex.
 *
 * Locks: host->lock to start and stop; then a buffer's (TRACE); then the
 * file's (LEAF). A failed write (disk full) is not repeated, and the next one
 * goes to the same place, so the file stays whole blocks.
 */
#include "zcache/trace.h"

#include "os/clock.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>

#define STRIPES 16

struct stripe {
	_Alignas(64) struct os_mutex lock;
	bool on;
	struct trace_block block;
};

struct zc_trace {
	struct os_mutex file_lock;
	int fd;
	bool on;
	uint64_t offset, records, lost;
	int error; /* of the first write that failed */
	struct stripe stripe[STRIPES];
};

static void note_write(struct zc_trace *t, int rc, size_t bytes, uint32_t records)
{
	if (rc == 0) {
		t->offset += bytes;
		t->records += records;
	} else {
		t->lost += records;
		if (!t->error)
			t->error = rc;
	}
}

/* The stripe's block into the file; its lock is held. */
static void flush(struct zc_trace *t, struct stripe *s)
{
	size_t bytes;

	if (s->block.records == 0)
		return;
	os_mutex_lock(&t->file_lock);
	bytes = trace_block_close(&s->block, t->lost);
	note_write(t, os_file_pwrite(t->fd, s->block.bytes, bytes, t->offset), bytes,
		   s->block.records);
	os_mutex_unlock(&t->file_lock);
	trace_block_reset(&s->block);
}

void zc_trace_write(struct tmem_client *c, struct trace_op *op)
{
	struct zc_trace *t = atomic_load_explicit(&c->host->trace, memory_order_acquire);
	struct stripe *s;

	if (!t)
		return;
	s = &t->stripe[os_thread_number() % STRIPES];
	op->client = c->number;
	os_mutex_lock(&s->lock);
	if (s->on) {
		op->time_ns = os_clock_ns();
		if (!trace_block_add(&s->block, op)) {
			flush(t, s);
			tmem_must(trace_block_add(&s->block, op));
		}
	}
	os_mutex_unlock(&s->lock);
}

/* ---- starting and stopping; host->lock is held -------------------------------- */

static struct zc_trace *trace_make(struct tmem_host *h)
{
	struct zc_trace *t = zc_alloc(h, sizeof(*t));

	if (!t)
		return NULL;
	t->fd = -1;
	os_mutex_init(&t->file_lock, OS_RANK_LEAF, "trace file");
	for (unsigned i = 0; i < STRIPES; i++) {
		os_mutex_init(&t->stripe[i].lock, OS_RANK_TRACE, "trace buffer");
		trace_block_reset(&t->stripe[i].block);
	}
	return t;
}

static int start(struct zc_trace *t, const char *path)
{
	uint8_t head[TRACE_HEAD_BYTES];
	int rc = os_file_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);

	if (rc < 0)
		return rc;
	t->fd = rc;
	trace_head(head);
	rc = os_file_pwrite(t->fd, head, sizeof(head), 0);
	if (rc) {
		os_file_close(t->fd);
		return rc;
	}
	t->offset = sizeof(head);
	t->records = t->lost = 0;
	t->error = 0;
	t->on = true;
	for (unsigned i = 0; i < STRIPES; i++) {
		os_mutex_lock(&t->stripe[i].lock);
		t->stripe[i].on = true;
		os_mutex_unlock(&t->stripe[i].lock);
	}
	return 0;
}

static int stop(struct zc_trace *t)
{
	struct trace_block *b = &t->stripe[0].block;
	size_t bytes;
	int rc;

	for (unsigned i = 0; i < STRIPES; i++) {
		struct stripe *s = &t->stripe[i];

		os_mutex_lock(&s->lock);
		s->on = false;
		flush(t, s);
		os_mutex_unlock(&s->lock);
	}
	/* Nobody adds to it any more. A write that failed may have left a part of a block. */
	bytes = trace_block_end(b, t->records, t->lost);
	rc = t->error ? os_file_truncate(t->fd, t->offset) : 0;
	if (rc == 0)
		rc = os_file_pwrite(t->fd, b->bytes, bytes, t->offset);
	trace_block_reset(b);
	os_file_close(t->fd);
	t->fd = -1;
	t->on = false;
	return t->error ? t->error : rc;
}

int tmem_host_trace_start(tmem_host *h, const char *path)
{
	struct zc_trace *t;
	int rc = -ENOMEM;

	os_mutex_lock(&h->lock);
	t = atomic_load_explicit(&h->trace, memory_order_relaxed);
	if (!t) {
		t = trace_make(h);
		if (!t)
			goto out;
		/* From here on the hooks see it (I2); it is not on yet. */
		atomic_store_explicit(&h->trace, t, memory_order_release);
	}
	rc = t->on ? -EBUSY : start(t, path);
out:
	os_mutex_unlock(&h->lock);
	return rc;
}

int tmem_host_trace_stop(tmem_host *h, uint64_t *records, uint64_t *lost)
{
	struct zc_trace *t;
	int rc = -EINVAL;

	os_mutex_lock(&h->lock);
	t = atomic_load_explicit(&h->trace, memory_order_relaxed);
	if (t && t->on) {
		rc = stop(t);
		if (records)
			*records = t->records;
		if (lost)
			*lost = t->lost;
	}
	os_mutex_unlock(&h->lock);
	return rc;
}

void zc_trace_destroy(struct tmem_host *h)
{
	struct zc_trace *t = atomic_load_explicit(&h->trace, memory_order_relaxed);

	if (!t)
		return;
	if (t->on)
		(void)stop(t);
	for (unsigned i = 0; i < STRIPES; i++)
		os_mutex_destroy(&t->stripe[i].lock);
	os_mutex_destroy(&t->file_lock);
	zc_free(h, t, sizeof(*t));
}
