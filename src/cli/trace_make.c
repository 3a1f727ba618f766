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

#include <ctype.h>
#include <errno.h>
#include <math.h>
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

/* A whole number from 1 to most, digits alone; what follows it, or NULL. */
static const char *number(const char *at, uint64_t most, uint64_t *out)
{
	char *end;

	if (!isdigit((unsigned char)*at))
		return NULL;
	errno = 0;
	*out = strtoull(at, &end, 10);
	return errno || *out < 1 || *out > most ? NULL : end;
}

int trace_recipe_parse(const char *what, struct trace_recipe *r)
{
	static const char *const kind[] = {"zipf:", "loop:", "scan:"};
	const char *at = NULL;

	for (unsigned i = 0; i < sizeof(kind) / sizeof(kind[0]); i++) {
		if (strncmp(what, kind[i], 5) == 0) {
			r->kind = (enum trace_kind)i;
			at = what + 5;
		}
	}
	if (at)
		at = number(at, 1u << 26, &r->pages);
	if (!at || *at != ':')
		return -EINVAL;
	at = number(at + 1, 1ull << 32, &r->ops);
	return at && !*at ? 0 : -EINVAL;
}

int trace_make(struct trace_out *o, const struct trace_recipe *r)
{
	struct maker m = {.out = o, .seed = 1, .pages = r->pages};
	uint64_t scanned = 0;

	if (r->kind != TRACE_LOOP && prepare_zipf(&m))
		return -ENOMEM;
	for (uint64_t i = 0; i < r->ops; i++) {
		if (r->kind == TRACE_LOOP)
			add_read(&m, 1, i % m.pages);
		else if (r->kind == TRACE_SCAN && i / SCAN_RUN % 2)
			add_read(&m, 2, scanned++ % m.pages);
		else
			add_read(&m, 1, zipf(&m));
	}
	free(m.sum);
	return 0;
}
