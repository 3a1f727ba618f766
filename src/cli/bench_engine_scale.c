/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * 4 million pages over 4096: what an operation costs as the store grows, without a
 * codec (same-filled pages, whose word lives in the index).
 *
 * In order, an operation costs the same in both. At random it is memory that is
 * measured: the leaves of the large store take 34 MiB, so nearly every operation
 * fetches two lines of one from beyond the second cache, and their addresses
 * from the page tables first. With the same frames in huge pages 570 ns become
 * 320 to 380; but a huge page is 512 frames made resident at once, which the
 * account of frames and their return one slab at a time do not allow.
 *
 * From a persistent pool any page is got, any is put. From an ephemeral one a get
 * takes the page out, and a miss would be measured instead of it. So some pages are
 * always out (`ring`): a get is of one that is in, a put brings the one back that has
 * been out the longest, so that its leaf has left the caches meanwhile.
 *
 *   pages in + pages out = all;   out: the ring, and the bits that are set
 */
#include "cli/bench_engine.h"
#include "cli/bench_pages.h"
#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>

#define PAGE   ENGINE_PAGE
#define SMALL  4096ull
#define LARGE  (4ull << 20)
#define OUT    32768ull /* pages of the large store; a smaller one: half of it */
#define OPS    8192	/* of a round: half gets, half puts */
#define ROUNDS 31

struct store {
	struct engine e; /* only its store is used */
	uint64_t all, run;
	uint64_t *ring, *out; /* out: a bit each page. Of ephemeral ones, else NULL */
	uint64_t ring_size, oldest;
	uint64_t at[OPS]; /* handles of a round: get, put, get, put ... */
};

static bool is_out(const struct store *s, uint64_t i)
{
	return s->out && s->out[i / 64] >> i % 64 & 1;
}

static int get(struct store *s, uint64_t i, uint8_t *to)
{
	uint64_t index;
	tmem_oid oid;

	engine_handle(i, &oid, &index);
	return tmem_get(s->e.client, s->e.pool, &oid, index, to);
}

static int put(struct store *s, uint64_t i, const uint8_t *page)
{
	uint64_t index;
	tmem_oid oid;

	engine_handle(i, &oid, &index);
	return tmem_put(s->e.client, s->e.pool, &oid, index, page);
}

static int fill(struct store *s, const struct engine *e, uint64_t all, const uint8_t *page)
{
	int code;

	s->e.zpool = e->zpool;
	s->e.ephemeral = e->ephemeral;
	s->e.keeps_raw = e->keeps_raw;
	s->all = all;
	code = engine_open(&s->e, "none");
	if (e->ephemeral) {
		s->ring_size = all / 2 < OUT ? all / 2 : OUT;
		s->ring = os_zalloc(s->ring_size * sizeof(*s->ring));
		s->out = os_zalloc(all / 8);
		code = !code && (!s->ring || !s->out) ? -ENOMEM : code;
	}
	for (uint64_t i = 0; i < all && !code; i++)
		code = put(s, i, page);
	return code;
}

static uint64_t pick(struct store *s, bool random, uint64_t *seed)
{
	uint64_t i;

	do
		i = (random ? bench_random(seed) : s->run++) % s->all;
	while (is_out(s, i));
	return i;
}

/* Page i goes out, its place in the ring is that of the one which comes in. */
static uint64_t swap_out(struct store *s, uint64_t i)
{
	uint64_t in = s->ring[s->oldest];

	s->out[in / 64] &= ~(1ull << in % 64);
	s->out[i / 64] |= 1ull << i % 64;
	s->ring[s->oldest] = i;
	s->oldest = (s->oldest + 1) % s->ring_size;
	return in;
}

/* Which pages are out when the rounds begin: none yet, or those of the rounds before. */
static int begin(struct store *s, bool random, uint64_t *seed, const uint8_t *page, uint8_t *to)
{
	int code = 0;

	s->run = 0;
	for (uint64_t k = 0; k < s->ring_size && !code; k++) {
		if (is_out(s, s->ring[k]))
			code = put(s, s->ring[k], page);
		s->out[s->ring[k] / 64] &= ~(1ull << s->ring[k] % 64);
	}
	for (uint64_t k = 0; k < s->ring_size && !code; k++) {
		s->ring[k] = pick(s, random, seed);
		s->out[s->ring[k] / 64] |= 1ull << s->ring[k] % 64;
		code = get(s, s->ring[k], to);
	}
	s->oldest = 0;
	return code > 0 ? -EIO : code;
}

static void choose(struct store *s, bool random, uint64_t *seed)
{
	for (unsigned k = 0; k < OPS; k += 2) {
		s->at[k] = pick(s, random, seed);
		s->at[k + 1] = s->ring_size ? swap_out(s, s->at[k]) : pick(s, random, seed);
	}
}

static int run(struct store *s, const uint8_t *page, uint8_t *to, double *ns)
{
	uint64_t start = os_clock_thread_cpu_ns();
	int code = 0;

	for (unsigned k = 0; k < OPS && !code; k += 2) {
		code = get(s, s->at[k], to);
		if (!code)
			code = put(s, s->at[k + 1], page);
	}
	*ns = (double)(os_clock_thread_cpu_ns() - start) / OPS;
	return code > 0 ? -EIO : code;
}

/* Median ratio of rounds that take turns on the two stores; at random or in order. */
static int rounds(struct store *small, struct store *large, bool random, uint8_t *pages,
		  struct engine_result *r)
{
	double a[ROUNDS], b[ROUNDS], ratio[ROUNDS];
	uint64_t seed = 7;
	int code = begin(small, random, &seed, pages, pages + PAGE);

	if (!code)
		code = begin(large, random, &seed, pages, pages + PAGE);
	for (unsigned k = 0; k < ROUNDS && !code; k++) {
		choose(small, random, &seed);
		choose(large, random, &seed);
		code = run(small, pages, pages + PAGE, &a[k]);
		if (!code)
			code = run(large, pages, pages + PAGE, &b[k]);
		if (!code)
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
	return 0;
}

static void empty(struct store *s)
{
	engine_close(&s->e);
	os_free(s->ring);
	os_free(s->out);
}

int engine_measure_scale(struct engine *e)
{
	struct store *two = os_zalloc(2 * sizeof(*two));
	uint8_t *pages = os_zalloc_aligned(2 * PAGE);
	int code = two && pages ? 0 : -ENOMEM;

	if (!code)
		code = fill(&two[0], e, SMALL, pages);
	if (!code)
		code = fill(&two[1], e, LARGE, pages);
	if (!code)
		code = rounds(&two[0], &two[1], true, pages, &e->r);
	if (!code)
		code = rounds(&two[0], &two[1], false, pages, &e->r);
	if (two) {
		empty(&two[0]);
		empty(&two[1]);
	}
	os_free(two);
	os_free(pages);
	return code;
}
