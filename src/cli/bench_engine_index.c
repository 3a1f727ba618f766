/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the engine costs without a codec: same-filled pages, whose word lives
 * in the index, so that nothing is compressed and nothing allocated.
 */
#include "cli/bench_engine.h"

#include "cli/bench_pages.h"
#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>
#include <string.h>

#define PAGE ENGINE_PAGE

/* Sixteen pages: more than the nearest cache holds, as a page just left by a program is. */
#define SAME_PAGES 16
#define SAME_OPS   4096
#define ROUNDS	   31

static int same_put(struct engine *e, const uint8_t *pages, uint64_t first)
{
	uint64_t i, index;
	tmem_oid oid;
	int code = 0;

	for (i = first; i < first + SAME_OPS && !code; i++) {
		engine_handle(i, &oid, &index);
		code = tmem_put(e->client, e->pool, &oid, index, pages + i % SAME_PAGES * PAGE);
	}
	return code;
}

static int same_get(struct engine *e, uint8_t *to, uint64_t first)
{
	uint64_t i, index;
	tmem_oid oid;
	int code = 0;

	for (i = first; i < first + SAME_OPS && !code; i++) {
		engine_handle(i, &oid, &index);
		code = tmem_get(e->client, e->pool, &oid, index, to + i % SAME_PAGES * PAGE);
	}
	return code > 0 ? -EIO : code;
}

/* Put and get of same-filled pages at fresh handles, beside the bare check and the bare fill. */
int engine_measure_same_filled(struct engine *e)
{
	double put[ROUNDS], get[ROUNDS], check[ROUNDS], fill[ROUNDS];
	uint8_t *pages = os_zalloc_aligned(2 * SAME_PAGES * PAGE);
	uint8_t *to = pages ? pages + SAME_PAGES * PAGE : NULL;
	volatile uint64_t sink;
	uint64_t i, t0, t1, word = 0;
	unsigned r;
	int code = pages ? engine_open(e, e->spec_text) : -ENOMEM;

	for (i = 0; i < SAME_PAGES && !code; i++)
		codec_fill(pages + i * PAGE, PAGE, i * 0x0101010101010101);
	for (r = 0; r < ROUNDS && !code; r++) {
		t0 = os_clock_thread_cpu_ns();
		code = same_put(e, pages, (uint64_t)r * SAME_OPS);
		t1 = os_clock_thread_cpu_ns();
		put[r] = (double)(t1 - t0) / SAME_OPS;
		if (code)
			break;
		t0 = os_clock_thread_cpu_ns();
		code = same_get(e, to, (uint64_t)r * SAME_OPS);
		t1 = os_clock_thread_cpu_ns();
		get[r] = (double)(t1 - t0) / SAME_OPS;
		if (!code && memcmp(pages, to, SAME_PAGES * PAGE))
			code = -EBADMSG;
		t0 = os_clock_thread_cpu_ns();
		for (i = 0; i < SAME_OPS; i++)
			sink = codec_same_filled(pages + i % SAME_PAGES * PAGE, PAGE, &word);
		t1 = os_clock_thread_cpu_ns();
		check[r] = (double)(t1 - t0) / SAME_OPS;
		t0 = os_clock_thread_cpu_ns();
		for (i = 0; i < SAME_OPS; i++)
			codec_fill(to + i % SAME_PAGES * PAGE, PAGE, i);
		t1 = os_clock_thread_cpu_ns();
		fill[r] = (double)(t1 - t0) / SAME_OPS;
	}
	(void)sink;
	engine_close(e);
	os_free(pages);
	if (!code) {
		e->r.same_put_ns = cli_median(put, ROUNDS);
		e->r.same_get_ns = cli_median(get, ROUNDS);
		e->r.same_check_ns = cli_median(check, ROUNDS);
		e->r.same_fill_ns = cli_median(fill, ROUNDS);
	}
	return code;
}
