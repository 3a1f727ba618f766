/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Thrashing: who is told and who is not, and whether the memory that is named would do. A memory
 * that evicts what was used last, simulated exactly, is the judge of the estimate.
 */
#include "frontswap/pager/refault.h"
#include "frontswap/pager/thrash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS  1000000ull
#define MIB (1ull << 20)

static uint64_t rng = 1;

static uint64_t rnd(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

/* ---- a memory ----------------------------------------------------------------------------- */

#define PAGES 16384u
#define NONE  PAGES

static struct memory {
	uint32_t newer[PAGES + 1], older[PAGES + 1]; /* a ring; NONE is both its ends */
	bool in[PAGES], known[PAGES];
	uint32_t stamp[PAGES]; /* of a page that left */
	uint32_t used, size, clock;
	uint64_t touches, refaults;
	struct refaults rf;
} m;

static void memory_of(uint32_t size)
{
	memset(&m, 0, sizeof(m));
	m.size = size;
	m.newer[NONE] = m.older[NONE] = NONE;
}

static void take_out(uint32_t p)
{
	m.older[m.newer[p]] = m.older[p];
	m.newer[m.older[p]] = m.newer[p];
	m.in[p] = false;
	m.used--;
}

static void touch(uint32_t p)
{
	m.touches++;
	if (m.in[p]) {
		take_out(p);
	} else if (m.known[p]) {
		m.refaults++;
		refaults_note(&m.rf, m.clock - m.stamp[p]);
	}
	if (m.used == m.size) {
		uint32_t oldest = m.newer[NONE];

		take_out(oldest);
		m.stamp[oldest] = ++m.clock;
	}
	m.newer[p] = NONE;
	m.older[p] = m.older[NONE];
	m.newer[m.older[NONE]] = p;
	m.older[NONE] = p;
	m.in[p] = m.known[p] = true;
	m.used++;
}

static uint64_t extra(uint32_t left_ppm)
{
	uint64_t out[REFAULT_BUCKETS] = {0};

	for (uint32_t p = 0; p < PAGES; p++)
		if (m.known[p] && !m.in[p])
			out[refault_bucket(m.clock - m.stamp[p])]++;
	return refaults_extra(&m.rf, out, left_ppm, m.clock - m.rf.since);
}

/* ---- programs ------------------------------------------------------------------------------- */

enum pattern { CYCLE, UNIFORM, SKEWED, CYCLE_IN_COLD, TWO_SETS };

static uint32_t next_page(enum pattern how, uint32_t i, uint32_t set)
{
	uint64_t r = rnd(set);

	switch (how) {
	case CYCLE:
	case CYCLE_IN_COLD:
		return i % set;
	case SKEWED: /* half of the touches go to a tenth, and so on */
		return (uint32_t)(r * rnd(set) / set * rnd(set) / set);
	case TWO_SETS:
		return i % 2 ? i / 2 % (set / 4) : set / 4 + (uint32_t)rnd(set / 4 * 3);
	default:
		return (uint32_t)r;
	}
}

/* Refaults a touch in the second half of a run with that much memory. */
static double run(enum pattern how, uint32_t set, uint32_t size)
{
	uint64_t touches = 40ull * set, before;

	memory_of(size);
	rng = 7;
	if (how == CYCLE_IN_COLD)
		for (uint32_t p = set; p < PAGES; p++)
			touch(p);
	for (uint32_t i = 0; i < touches / 2; i++) {
		touch(next_page(how, i, set));
		if (i % 500 == 0)
			refaults_fade(&m.rf, 1);
	}
	before = m.refaults;
	for (uint32_t i = 0; i < touches / 2; i++) {
		touch(next_page(how, i, set));
		if (i % 5000 == 0)
			refaults_fade(&m.rf, 1);
	}
	return (double)(m.refaults - before) / (double)touches * 2;
}

/* What is named does, and four fifths of it would not. */
static void judge(enum pattern how, uint32_t set, uint32_t size, uint32_t left_ppm)
{
	double now = run(how, set, size), then, less;
	uint64_t more = extra(left_ppm);
	double allowed = now * left_ppm / 1e6;

	assert_true(now > 0.1);
	assert_in_range(more, 1, PAGES - size);
	then = run(how, set, size + (uint32_t)more);
	less = run(how, set, size + (uint32_t)more * 4 / 5);
	if (then > allowed * 1.15 || less < allowed * 1.3)
		fail_msg("pattern %d: %.4f refaults a touch with %u pages, %.4f with %u, %.4f with "
			 "%u; allowed %.4f",
			 how, now, size, then, size + (unsigned)more, less,
			 size + (unsigned)more * 4 / 5, allowed);
}

static void the_memory_named_is_enough(void **state)
{
	judge(CYCLE, 2000, 1000, 20000);
	judge(CYCLE, 2000, 1990, 20000);
	judge(CYCLE, 8000, 1000, 20000);
	judge(UNIFORM, 2000, 1000, 100000);
	judge(UNIFORM, 2000, 400, 100000);
	judge(SKEWED, 8000, 400, 100000);
	judge(TWO_SETS, 4000, 2000, 100000);
}

/* Much has left that nobody asks for: it is not asked for either. */
static void cold_pages_are_not_counted(void **state)
{
	judge(CYCLE_IN_COLD, 2000, 1000, 20000);
	run(CYCLE_IN_COLD, 2000, 1000);
	assert_in_range(extra(20000), 950, 1200);
}

/*
 * A program that has built something large and now works on a part of it, the oldest: asked as
 * soon as nine of ten refaults are of pages that left since. Uniform, and in turn.
 */
static void a_set_that_was_just_turned_to(void **state)
{
	static const enum pattern patterns[] = {UNIFORM, CYCLE};

	for (unsigned i = 0; i < 2; i++) {
		const uint32_t set = 4000, size = 1000;
		uint64_t recent = 0, all = 0, more;

		memory_of(size);
		rng = 3;
		for (uint32_t p = 0; p < PAGES; p++)
			touch(p);
		m.rf.since = m.clock;
		for (uint32_t k = 0; all < 500 || recent * 10 < all * 9; k++) {
			uint32_t p = next_page(patterns[i], k, set);

			if (!m.in[p]) {
				all++;
				recent += m.stamp[p] > m.rf.since;
			}
			touch(p);
			if (k % 500 == 499) {
				refaults_fade(&m.rf, 1);
				all -= all / 4;
				recent -= recent / 4;
			}
			assert_true(k < 20 * set);
		}
		more = extra(50000);
		/* 3000 are wanted, and 15384 are out. */
		assert_in_range(more, 2700, 3450);
	}
}

static void old_refaults_fade(void **state)
{
	struct refaults rf = {0};
	uint64_t out[REFAULT_BUCKETS] = {0};

	assert_int_equal(refaults_extra(&rf, out, 10000, UINT32_MAX), 0);
	for (unsigned b = 0; b < REFAULT_BUCKETS; b++)
		out[b] = 1;
	for (unsigned i = 0; i < 1000; i++)
		refaults_note(&rf, 1u << 30);
	refaults_fade(&rf, 16);
	for (unsigned i = 0; i < 1000; i++)
		refaults_note(&rf, 100);
	assert_int_equal(refaults_extra(&rf, out, 20000, UINT32_MAX), refault_bucket(100) + 1);
	assert_int_equal(refaults_extra(&rf, out, 5000, UINT32_MAX), refault_bucket(1u << 30) + 1);
	refaults_fade(&rf, UINT32_MAX);
	assert_int_equal(refaults_weight(&rf), 0);
	for (uint64_t i = 0; i < 1ull << 27; i++) /* no overflow */
		refaults_note(&rf, 5);
	assert_true(refaults_weight(&rf) > 1u << 31);
}

static void buckets_are_in_order(void **state)
{
	for (uint32_t age = 1; age < 1u << 20; age++)
		assert_true(refault_bucket(age) - refault_bucket(age - 1) <= 1);
	assert_true(refault_bucket(UINT32_MAX) < REFAULT_BUCKETS);
	for (unsigned i = 0; i < 100000; i++) {
		uint32_t a = (uint32_t)rnd(1ull << 32), b = (uint32_t)rnd(1ull << 32);

		assert_true(a > b || refault_bucket(a) <= refault_bucket(b));
	}
}

/* ---- who is told ------------------------------------------------------------------------------
 */

/* A second of a program, in parts of it: waits, computes; refaults a second, of them recent. */
struct second {
	double wait, compute;
	unsigned fresh, refaults, recent;
};

static const struct second idle = {0.01, 0.01, 2, 5, 5};
static const struct second busy = {0.05, 0.95, 100, 2000, 2000};
static const struct second thrashing = {0.70, 0.10, 10, 8000, 7900};
static const struct second reading_once = {0.70, 0.10, 10, 8000, 0};
static const struct second growing = {0.80, 0.10, 8000, 1000, 1000};
static const struct second sleeping = {0.02, 0.01, 0, 100, 100};
static const struct second half_recent = {0.70, 0.10, 10, 8000, 4800};
static const struct second most_recent = {0.70, 0.10, 10, 8000, 6100};

static struct thrash t;
static struct thrash_figures f;

static void begin(void)
{
	memset(&t, 0, sizeof(t));
	memset(&f, 0, sizeof(f));
}

/* So many slices of it; the last verdict that was not NO, and how many were YES. */
static unsigned live(const struct second *s, unsigned slices)
{
	unsigned yes = 0;

	for (unsigned i = 0; i < slices; i++) {
		f.at_ns += THRASH_SLICE_NS;
		f.wait_ns += (uint64_t)(s->wait * (double)THRASH_SLICE_NS);
		f.program_ns += (uint64_t)(s->compute * (double)THRASH_SLICE_NS);
		f.faults += (s->fresh + s->refaults) / 2;
		f.refaults += s->refaults / 2;
		f.recent += s->recent / 2;
		yes += thrash_slice(&t, &f) == THRASH_YES;
	}
	return yes;
}

static void healthy_programs_are_not_told(void **state)
{
	const struct second *const healthy[] = {&idle, &busy, &reading_once, &growing, &sleeping};

	for (unsigned i = 0; i < sizeof(healthy) / sizeof(healthy[0]); i++) {
		begin();
		assert_int_equal(live(healthy[i], 500), 0);
	}
}

static void a_thrashing_one_is_told_soon(void **state)
{
	begin();
	live(&busy, 20);
	assert_int_equal(live(&thrashing, 9), 0);
	assert_true(live(&thrashing, 2) > 0);
	assert_true(thrash_waiting(&t) > 0.8);
	assert_in_range(thrash_left_ppm(&t), 5000, 80000);
}

static void moments_of_it_are_no_matter(void **state)
{
	begin();
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(live(&thrashing, 8), 0);
		assert_int_equal(live(&busy, 2), 0);
	}
	/* One better slice is no end of it. */
	begin();
	live(&thrashing, 5);
	live(&busy, 1);
	live(&thrashing, 3);
	assert_true(live(&thrashing, 3) > 0);
}

static void a_large_set_takes_longer_to_see(void **state)
{
	begin();
	assert_int_equal(live(&half_recent, 200), 0);
	begin();
	assert_int_equal(live(&most_recent, 29), 0);
	assert_true(live(&most_recent, 2) > 0);
}

static void the_limit_named_is_sane(void **state)
{
	struct thrash_memory a = {.limit = 100 * MIB,
				  .total = 99 * MIB,
				  .store = 20 * MIB,
				  .out_pages = 20 << 8,
				  .extra_pages = 20 << 8,
				  .cluster = 8};
	uint64_t all = thrash_enough(&a);

	/* All back: 79 resident and 20 that were out, and a few for the margins. */
	assert_in_range(all, 101 * MIB, 105 * MIB);
	assert_int_equal(all % MIB, 0);
	a.extra_pages = 1; /* hardly any: still more than now */
	assert_in_range(thrash_enough(&a), 101 * MIB, 106 * MIB);
	a.extra_pages =
		10 << 8; /* as if all came back: of a third out, one cluster in 26 is whole */
	assert_int_equal(thrash_enough(&a), all);
	a.stored_pages = 200 << 8; /* copies of resident pages: 2/3 of the clusters can go */
	assert_in_range(thrash_enough(&a), 98 * MIB, all);
	a.extra_pages = UINT64_MAX / 2; /* no more than there is */
	a.out_pages = 2000 << 8;
	a.store = 0;
	assert_in_range(thrash_enough(&a), 2099 * MIB, 2170 * MIB);
	a.out_pages = a.extra_pages = 0;
	assert_true(thrash_enough(&a) > a.limit);
	a.total = 300 * MIB; /* over the limit already */
	assert_true(thrash_enough(&a) > a.total);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buckets_are_in_order),
		cmocka_unit_test(the_memory_named_is_enough),
		cmocka_unit_test(cold_pages_are_not_counted),
		cmocka_unit_test(a_set_that_was_just_turned_to),
		cmocka_unit_test(old_refaults_fade),
		cmocka_unit_test(healthy_programs_are_not_told),
		cmocka_unit_test(a_thrashing_one_is_told_soon),
		cmocka_unit_test(moments_of_it_are_no_matter),
		cmocka_unit_test(a_large_set_takes_longer_to_see),
		cmocka_unit_test(the_limit_named_is_sane),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
