/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The recorder against the model.
 *
 * Some rounds are recorded from before the threads begin until they have ended. Then the
 * file must hold every operation of every thread and nothing else: each thread adds up a
 * checksum of what it did, and the sum over the file's records must be the same (sums
 * commute: in which order the threads' records lie does not matter).
 *
 * In other rounds recordings begin and end while the threads work; of those the file must
 * be whole, and say how many records it holds.
 */
#include "engine_model.h"

#include "os/file.h"

#include <fcntl.h>

bool tracing;
static bool toggled; /* by trace_toggle() */

static uint64_t record_sum(enum trace_opcode op, tmem_pool pool, const uint64_t oid[3],
			   uint64_t index, uint64_t n, bool ok)
{
	uint64_t names = mix(oid[0] ^ mix(oid[1] ^ mix(oid[2] ^ mix((uint64_t)pool))));

	return mix(names ^ mix(index ^ mix(n << 8 ^ (uint64_t)op << 1 ^ ok)));
}

void note(struct worker *w, enum trace_opcode op, tmem_pool pool, const tmem_oid *oid,
	  uint64_t index, uint64_t n, bool ok)
{
	static const tmem_oid none;

	if (!tracing || w->elsewhere)
		return;
	w->traced_records++;
	w->traced_sum += record_sum(op, pool, oid ? oid->w : none.w, index, n, ok);
}

static void trace_path(char path[PATH + 8])
{
	snprintf(path, PATH + 8, "%s.trace", base_path);
}

/* How many records, and their sum. */
static void read_file(uint64_t *records, uint64_t *sum)
{
	struct trace_reader *r = malloc(sizeof(*r));
	char path[PATH + 8];
	struct trace_op op;
	int fd, rc;

	trace_path(path);
	fd = os_file_open(path, O_RDONLY, 0);
	if (!r || fd < 0)
		fail(NULL, "the trace cannot be opened: %d", fd);
	*records = *sum = 0;
	rc = trace_reader_start(r, fd);
	while (rc >= 0 && (rc = trace_reader_next(r, &op)) == 1) {
		(*records)++;
		*sum += record_sum(op.op, op.pool, op.oid, op.index, op.n, op.ok);
	}
	if (rc < 0 || !r->ended || r->cut || r->lost)
		fail(NULL, "the trace: %d, %s, %llu lost", rc, r->err, ULL(r->lost));
	os_file_close(fd);
	free(r);
}

/* 0; -ENOMEM: the host has no room for buffers now. */
static int start(void)
{
	char path[PATH + 8];
	int rc;

	trace_path(path);
	rc = tmem_host_trace_start(host, path);
	if (rc && rc != -ENOMEM)
		fail(NULL, "trace_start: %d", rc);
	if (rc == 0 && tmem_host_trace_start(host, path) != -EBUSY)
		fail(NULL, "it records twice");
	return rc;
}

static uint64_t finish(void)
{
	uint64_t records, lost;
	int rc = tmem_host_trace_stop(host, &records, &lost);

	if (rc || lost)
		fail(NULL, "trace_stop: %d, %llu lost", rc, ULL(lost));
	return records;
}

void trace_begin(void)
{
	for (unsigned i = 0; i < nthreads; i++)
		workers[i]->traced_records = workers[i]->traced_sum = 0;
	tracing = start() == 0;
}

void trace_end(void)
{
	uint64_t said, records, sum, want = 0, want_sum = 0;

	if (!tracing)
		return;
	tracing = false;
	said = finish();
	read_file(&records, &sum);
	for (unsigned i = 0; i < nthreads; i++) {
		want += workers[i]->traced_records;
		want_sum += workers[i]->traced_sum;
	}
	if (records != want || said != want || sum != want_sum)
		fail(NULL, "%llu operations, %llu records, %llu said; sums %s", ULL(want),
		     ULL(records), ULL(said), sum == want_sum ? "agree" : "differ");
	workers[0]->event[TRACED]++;
}

void trace_toggle(void)
{
	uint64_t said, records, sum;

	if (tracing)
		return;
	if (!toggled) {
		toggled = start() == 0;
		return;
	}
	toggled = false;
	said = finish();
	read_file(&records, &sum);
	if (said != records)
		fail(NULL, "the trace says %llu records and has %llu", ULL(said), ULL(records));
	if (tmem_host_trace_stop(host, NULL, NULL) != -EINVAL)
		fail(NULL, "it still records");
}

void trace_toggle_end(void)
{
	if (toggled)
		trace_toggle();
}
