/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Made-up traces, the field's usual three, the same on every machine:
 *
 *   zipf   page k is read in proportion to 1 / k^0.9: popular pages, a long tail
 *   loop   all pages in order, over and over: what least-recently-used handles worst
 *   scan   zipf, and one read in two belongs to a scan over as many other pages, a
 *          thousand at a time
 */
#include "cli/bench_pages.h"
#include "cli/trace.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCAN_RUN 1000u

struct maker {
	struct trace_out *out;
	uint64_t seed, time_ns;
	double *sum; /* sum[k]: weight of pages 0 .. k */
	uint64_t pages;
};

static void add_read(struct maker *m, uint64_t object, uint64_t page)
{
	struct trace_op op = {.op = TRACE_READ, .ok = true, .n = 1, .nsizes = 1};
	uint64_t hash = object << 40 | page;

	op.time_ns = m->time_ns += 10000;
	op.oid[0] = object;
	op.index = page;
	/* From 400 to 3000 bytes, by page: as compressed pages of programs are. */
	op.size[0] = (uint16_t)(400 + bench_random(&hash) % 2600);
	trace_out_add(m->out, &op);
}

static int prepare_zipf(struct maker *m)
{
	double all = 0;

	m->sum = malloc(m->pages * sizeof(*m->sum));
	if (!m->sum)
		return -ENOMEM;
	for (uint64_t k = 0; k < m->pages; k++)
		m->sum[k] = all += pow((double)(k + 1), -0.9);
	return 0;
}

static uint64_t zipf(struct maker *m)
{
	double at = (double)(bench_random(&m->seed) >> 11) / 9007199254740992.0;
	uint64_t low = 0, high = m->pages - 1;

	at *= m->sum[high];
	while (low < high) {
		uint64_t mid = (low + high) / 2;

		if (m->sum[mid] < at)
			low = mid + 1;
		else
			high = mid;
	}
	/* Popular pages are not neighbours; a prime above the number of pages misses none. */
	return low * 2654435761u % m->pages;
}

int trace_make(struct trace_out *o, const char *what)
{
	struct maker m = {.out = o, .seed = 1};
	unsigned long long pages, ops;
	char kind[8], end;
	uint64_t scanned = 0;
	int rc = 0;

	if (sscanf(what, "%7[a-z]:%llu:%llu%c", kind, &pages, &ops, &end) != 3 || pages < 1 ||
	    pages > 1u << 26 || ops < 1 || ops > 1ull << 32)
		return -EINVAL;
	if (strcmp(kind, "zipf") && strcmp(kind, "loop") && strcmp(kind, "scan"))
		return -EINVAL;
	m.pages = pages;
	if (kind[0] != 'l')
		rc = prepare_zipf(&m);
	for (uint64_t i = 0; i < ops && rc == 0; i++) {
		if (kind[0] == 'l')
			add_read(&m, 1, i % m.pages);
		else if (kind[0] == 's' && i / SCAN_RUN % 2)
			add_read(&m, 2, scanned++ % m.pages);
		else
			add_read(&m, 1, zipf(&m));
	}
	free(m.sum);
	return rc;
}
