/* SPDX-License-Identifier: BSD-2-Clause */
/* The series of a run's figures: nothing is lost when it is thinned, and it stays bounded. */
#include "frontswap/pager/series.h"

#include "os/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t rng = 1;

static uint64_t rnd(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

static void buckets_hold_what_they_say(void **state)
{
	assert_int_equal(hist_low_ns(0), 0);
	assert_int_equal(hist_low_ns(1), 250);
	for (unsigned b = 1; b < HIST_BUCKETS; b++) {
		assert_true(hist_low_ns(b) < hist_low_ns(b + 1));
		/* Octaves 0 and 1 have fewer whole units of 250 ns than buckets. */
		if (b > 9) {
			assert_int_equal(hist_bucket(hist_low_ns(b)), b);
			assert_int_equal(hist_bucket(hist_low_ns(b) - 1), b - 1);
		}
	}
	assert_int_equal(hist_bucket(0), 0);
	assert_int_equal(hist_bucket(UINT64_MAX), HIST_BUCKETS - 1);
	for (unsigned i = 0; i < 100000; i++) {
		uint64_t ns = rnd(1ull << rnd(40));

		assert_true(hist_low_ns(hist_bucket(ns)) <= ns);
		assert_true(ns < hist_low_ns(hist_bucket(ns) + 1) || ns < 1000);
	}
}

static void sums_and_percentiles_are_near(void **state)
{
	uint64_t count[HIST_BUCKETS] = {0}, sum = 0;

	assert_true(hist_percentile_us(count, 0.5) == 0);
	for (unsigned i = 1; i <= 1000; i++) {
		count[hist_bucket(i * 1000)]++;
		sum += i * 1000;
	}
	/* A bucket is a quarter of an octave: 19 %. */
	assert_true(hist_percentile_us(count, 0.50) >= 500);
	assert_true(hist_percentile_us(count, 0.50) <= 500 * 1.26);
	assert_true(hist_percentile_us(count, 0.99) >= 990);
	assert_true(hist_percentile_us(count, 0.99) <= 990 * 1.26);
	assert_true(llabs((long long)(hist_sum_ns(count) - sum)) < (long long)sum / 20);
}

/* Figures that go on as a run's do. */
static void go_on(struct figures *f, uint64_t ns)
{
	f->at_ns += ns;
	for (unsigned l = 0; l < FIGURE_LEVELS; l++)
		f->level[l] = rnd(1u << 30);
	for (unsigned c = 0; c < FIGURE_COUNTS; c++)
		f->count[c] += rnd(1000);
	for (unsigned i = 0; i < 20; i++)
		f->hist[rnd(HIST_BUCKETS)] += rnd(5);
}

static void nothing_is_lost(void **state)
{
	struct series s;
	struct figures f = {0};
	uint64_t peak = 0;

	assert_int_equal(series_start(&s), 0);
	for (unsigned i = 0; i < 5000; i++) {
		uint64_t total = rnd(1ull << 40);

		go_on(&f, 1 + rnd(50000000));
		if (f.level[LEVEL_TOTAL] > peak)
			peak = f.level[LEVEL_TOTAL];
		if (total > peak)
			peak = total;
		series_total(&s, total);
		series_add(&s, &f);
		if (i % 97 == 0 || i > 4990)
			series_verify(&s, peak);
		assert_true(s.n <= SERIES_MAX);
		assert_int_equal(s.at[s.n - 1].end_ns, f.at_ns);
		assert_memory_equal(s.at[s.n - 1].level, f.level, sizeof(f.level));
	}
	series_free(&s);
}

static void samples_come_as_often_as_they_fit(void **state)
{
	struct series s;
	struct figures f = {0};
	unsigned at_10_s = 0, at_400_s = 0;
	uint64_t taken = 0;

	assert_int_equal(series_start(&s), 0);
	/* An hour, looked at every 5 ms as the host does. */
	for (uint64_t ns = 0; ns < 3600 * 1000000000ull; ns += 5000000) {
		if (!series_due(&s, ns))
			continue;
		go_on(&f, ns - f.at_ns);
		f.level[LEVEL_TOTAL] = 7;
		series_add(&s, &f);
		taken++;
		if (ns < 10 * 1000000000ull)
			at_10_s = s.n;
		if (ns < 400 * 1000000000ull)
			at_400_s = s.n;
	}
	series_verify(&s, 7);
	assert_in_range(at_10_s, 250, SERIES_MAX);
	assert_in_range(at_400_s, SERIES_MAX / 2, SERIES_MAX);
	assert_in_range(s.n, SERIES_MAX / 2, SERIES_MAX);
	/* One a second for five to ten minutes. */
	assert_int_equal(s.interval_ns % 1000000000, 0);
	assert_true(taken < 6000);
	/* Alike, but for the last: no gaps, no crowds. */
	for (unsigned i = 1; i + 1 < s.n; i++)
		assert_true(s.at[i].end_ns - s.at[i - 1].end_ns <= 2 * s.interval_ns);
	series_free(&s);
}

static void percentiles_are_of_all_faults(void **state)
{
	struct series s;
	struct figures f = {0};

	assert_int_equal(series_start(&s), 0);
	/* One sample of a hundred slow faults beside one of a thousand quick ones, again and again.
	 */
	for (unsigned i = 0; i < SERIES_MAX + 1; i++) {
		f.at_ns += 1000;
		f.hist[i % 2 ? 60 : 20] += i % 2 ? 100 : 1000;
		series_add(&s, &f);
	}
	assert_int_equal(s.n, SERIES_MAX / 2 + 1);
	assert_true(series_percentile_us(&s.at[0], 0.50) == (double)hist_low_ns(21) / 1000);
	assert_true(series_percentile_us(&s.at[0], 0.90) == (double)hist_low_ns(21) / 1000);
	assert_true(series_percentile_us(&s.at[0], 0.92) == (double)hist_low_ns(61) / 1000);
	f.at_ns++;
	series_add(&s, &f);
	assert_true(series_percentile_us(&s.at[s.n - 1], 0.5) < 0); /* none */
	series_free(&s);
}

static void the_same_moment_twice_is_one_sample(void **state)
{
	struct series s;
	struct figures f = {0};

	assert_int_equal(series_start(&s), 0);
	series_add(&s, &f); /* the start itself */
	assert_int_equal(s.n, 0);
	go_on(&f, 5);
	series_add(&s, &f);
	series_add(&s, &f);
	assert_int_equal(s.n, 1);
	series_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buckets_hold_what_they_say),
		cmocka_unit_test(sums_and_percentiles_are_near),
		cmocka_unit_test(nothing_is_lost),
		cmocka_unit_test(samples_come_as_often_as_they_fit),
		cmocka_unit_test(percentiles_are_of_all_faults),
		cmocka_unit_test(the_same_moment_twice_is_one_sample),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
