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

/* ---- 4 million pages over 4096 -------------------------------------------------------------- */

/*
 * In order, an operation costs the same in both. At random it is memory that is
 * measured: the leaves of the large store take 34 MiB, so nearly every operation
 * fetches two lines of one from beyond the second cache, and their addresses
 * from the page tables first. With the same frames in huge pages 570 ns become
 * 320 to 380; but a huge page is 512 frames made resident at once, which the
 * account of frames and their return one slab at a time do not allow.
 */

#define SMALL 4096ull
#define LARGE (4ull << 20)
#define OPS   8192 /* of a round: half puts, half gets */

/* Put and get at these handles. */
static int scale_ops(struct engine *e, const uint64_t *at, const uint8_t *page, uint8_t *to,
		     double *ns)
{
	uint64_t start = os_clock_thread_cpu_ns(), index;
	tmem_oid oid;
	unsigned k;
	int code = 0;

	for (k = 0; k < OPS && !code; k += 2) {
		engine_handle(at[k], &oid, &index);
		code = tmem_get(e->client, e->pool, &oid, index, to);
		if (code)
			break;
		engine_handle(at[k + 1], &oid, &index);
		code = tmem_put(e->client, e->pool, &oid, index, page);
	}
	*ns = (double)(os_clock_thread_cpu_ns() - start) / OPS;
	return code > 0 ? -EIO : code;
}

static int scale_fill(struct engine *e, uint64_t pages, const uint8_t *page)
{
	uint64_t i, index;
	tmem_oid oid;
	int code = engine_open(e, "none");

	for (i = 0; i < pages && !code; i++) {
		engine_handle(i, &oid, &index);
		code = tmem_put(e->client, e->pool, &oid, index, page);
	}
	return code;
}

/* Median ratio of rounds that take turns on the two stores; at random or in order. */
static int scale_rounds(struct engine *small, struct engine *large, bool random, uint8_t *pages,
			struct engine_result *r)
{
	static uint64_t at_small[OPS], at_large[OPS];
	double a[ROUNDS], b[ROUNDS], ratio[ROUNDS];
	uint64_t seed = 7, run = 0;
	unsigned k, i;
	int code = 0;

	for (k = 0; k < ROUNDS && !code; k++) {
		for (i = 0; i < OPS; i++, run++) {
			uint64_t n = random ? bench_random(&seed) : run;

			at_small[i] = n % SMALL;
			at_large[i] = n % LARGE;
		}
		code = scale_ops(small, at_small, pages, pages + PAGE, &a[k]);
		if (!code)
			code = scale_ops(large, at_large, pages, pages + PAGE, &b[k]);
		ratio[k] = b[k] / a[k];
	}
	if (code)
		return code;
	if (random) {
		r->scale_4m = cli_median(ratio, ROUNDS);
		r->scale_small_ns = cli_median(a, ROUNDS);
		r->scale_large_ns = cli_median(b, ROUNDS);
	} else {
		r->scale_4m_sequential = cli_median(ratio, ROUNDS);
	}
	return code;
}

int engine_measure_scale(struct engine *e)
{
	struct engine *two = os_zalloc(2 * sizeof(*two)); /* only their stores are used */
	uint8_t *pages = os_zalloc_aligned(2 * PAGE);
	int code = two && pages ? 0 : -ENOMEM;

	if (!code)
		code = scale_fill(&two[0], SMALL, pages);
	if (!code)
		code = scale_fill(&two[1], LARGE, pages);
	if (!code)
		code = scale_rounds(&two[0], &two[1], true, pages, &e->r);
	if (!code)
		code = scale_rounds(&two[0], &two[1], false, pages, &e->r);
	if (two) {
		engine_close(&two[0]);
		engine_close(&two[1]);
	}
	os_free(two);
	os_free(pages);
	return code;
}
