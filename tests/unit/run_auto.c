/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The law of `--limit auto` against simulated programs: chunks of pages, each page with
 * a period in which it is touched. What the pager does is done here with arrays: a
 * window per cold age, chunks looked at four times in each.
 */
#include "frontswap/pager/auto_law.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CHUNK  512u
#define NEVER  UINT32_MAX
#define SECOND 1000u

struct page {
	uint32_t period_s; /* touched so often */
	uint32_t phase_s;
	uint32_t seen_s; /* last touched */
	bool there, out;
};

static struct sim {
	struct auto_law law;
	struct auto_in in;
	struct auto_chunk *chunk;
	struct page *page;
	unsigned chunks;
	uint32_t now_s, next_window_s;
	uint32_t *gone; /* pages of a chunk that are out, or not there */
	bool *used;	/* some page of it is touched, ever */
	/* of the last window */
	double referenced;
	uint64_t cold, left, window_s;
	uint64_t out, most_out;
	uint64_t promotions_in_minute[60 * 24 * 2];
	uint64_t stops;
	unsigned raises, eagers; /* changes */
} s;

static uint64_t rng;
static uint32_t roll(uint32_t n)
{
	rng = rng * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((rng >> 33) % n);
}

static void begin(unsigned chunks, uint32_t cold_s)
{
	free(s.page);
	free(s.chunk);
	free(s.gone);
	free(s.used);
	memset(&s, 0, sizeof(s));
	rng = 1;
	s.chunks = chunks;
	s.page = calloc(chunks * CHUNK, sizeof(*s.page));
	s.chunk = calloc(chunks, sizeof(*s.chunk));
	s.gone = calloc(chunks, sizeof(*s.gone));
	s.used = calloc(chunks, sizeof(*s.used));
	for (unsigned c = 0; c < chunks; c++)
		s.gone[c] = CHUNK;
	auto_law_start(&s.law, cold_s * SECOND, AUTO_TARGET_PPM);
}

/* Pages [from, to) of every chunk in [first, first + n) are touched each period_s. */
static void make(unsigned first, unsigned n, unsigned from, unsigned to, uint32_t period_s)
{
	for (unsigned c = first; c < first + n; c++) {
		s.used[c] = period_s != NEVER;
		for (unsigned p = from; p < to; p++) {
			s.gone[c] -= !s.page[c * CHUNK + p].there;
			s.page[c * CHUNK + p] =
				(struct page){.period_s = period_s,
					      .phase_s = period_s == NEVER ? 0 : roll(period_s),
					      .seen_s = s.now_s,
					      .there = true,
					      .out = s.page[c * CHUNK + p].out};
		}
	}
}

static void touch(unsigned i)
{
	struct page *p = &s.page[i];

	p->seen_s = s.now_s;
	if (!p->out)
		return;
	p->out = false;
	s.out--;
	s.gone[i / CHUNK]--;
	s.in.promotions++;
	s.promotions_in_minute[s.now_s / 60]++;
	s.in.returned += auto_chunk_back(&s.chunk[i / CHUNK], s.now_s * (uint64_t)SECOND,
					 auto_law_cold_ms(&s.law), i % CHUNK);
	s.in.wait_us += 40;
}

static void look(unsigned c, bool doubtful)
{
	const struct auto_view v = {.now_ms = s.now_s * (uint64_t)SECOND,
				    .cold_ms = auto_law_cold_ms(&s.law),
				    .referenced = s.referenced,
				    .chance = auto_law_chance(&s.law),
				    .plan = s.law.plan,
				    .wary = s.law.wary,
				    .doubtful = doubtful};
	uint32_t there = 0, n, at = roll(CHUNK), left = 0, before;
	double chance = 0;

	if (s.gone[c] == CHUNK || v.now_ms < s.chunk[c].due_ms)
		return;
	for (unsigned i = 0; i < CHUNK; i++)
		there += s.page[c * CHUNK + i].there && !s.page[c * CHUNK + i].out &&
			 !auto_chunk_hot(&s.chunk[c], i);
	n = auto_chunk_offer(&s.chunk[c], &v, there, &chance);
	if (n > s.cold - s.left)
		n = (uint32_t)(s.cold - s.left);
	before = s.chunk[c].stage;
	for (unsigned i = 0; i < CHUNK && left < n; i++, at += before == AUTO_PROBED ? 31 : 1) {
		struct page *p = &s.page[c * CHUNK + at % CHUNK];

		if (!p->there || p->out || auto_chunk_hot(&s.chunk[c], at % CHUNK))
			continue;
		p->out = true;
		left++;
	}
	if (!left)
		return;
	auto_chunk_left(&s.chunk[c], &v, left);
	s.in.offloaded += s.chunk[c].stage >= AUTO_SAMPLED ? left : 0;
	auto_law_spend(&s.law, left * chance);
	s.left += left;
	s.out += left;
	s.gone[c] += left;
}

static void window(void)
{
	uint64_t there = 0, seen = 0;

	for (unsigned i = 0; i < s.chunks * CHUNK; i++) {
		const struct page *p = &s.page[i];

		there += p->there && !p->out;
		seen += p->there && !p->out && p->seen_s > s.now_s - s.window_s;
	}
	s.referenced = there ? (double)seen / (double)there : 0;
	s.cold = there - seen;
	s.left = 0;
	s.in.working_set = seen;
	s.window_s = auto_law_cold_ms(&s.law) / SECOND;
	if (s.cold < there / 64)
		s.cold = 0;
}

static void run(uint32_t seconds)
{
	if (!s.window_s) {
		s.window_s = auto_law_cold_ms(&s.law) / SECOND;
		s.next_window_s = s.now_s + (uint32_t)s.window_s;
	}
	for (uint32_t end = s.now_s + seconds; s.now_s < end; s.now_s++) {
		bool stopped = s.law.stopped;
		unsigned raise = s.law.raise, eager = s.law.eager;

		for (unsigned i = 0; i < s.chunks * CHUNK; i += s.used[i / CHUNK] ? 1 : CHUNK)
			if (s.used[i / CHUNK] && s.page[i].there && s.page[i].period_s != NEVER &&
			    (s.now_s + s.page[i].phase_s) % s.page[i].period_s == 0)
				touch(i);
		if (s.now_s >= s.next_window_s) {
			window();
			s.next_window_s = s.now_s + auto_law_cold_ms(&s.law) / SECOND;
		}
		s.in.now_ms = s.now_s * (uint64_t)SECOND;
		auto_law_step(&s.law, &s.in);
		auto_law_verify(&s.law);
		s.stops += !stopped && s.law.stopped;
		s.raises += raise != s.law.raise;
		s.eagers += eager != s.law.eager;
		for (unsigned k = 0; k < 2 && !s.law.stopped; k++)
			for (unsigned c = 0; c < s.chunks && s.left < s.cold; c++)
				look(c, k);
		s.most_out = s.out > s.most_out ? s.out : s.most_out;
	}
}

/* Promotions a minute over the last so many minutes, as millionths of a working set. */
static double rate_ppm(unsigned minutes, double working_set)
{
	uint64_t sum = 0;

	for (unsigned m = 0; m < minutes; m++)
		sum += s.promotions_in_minute[s.now_s / 60 - 1 - m];
	return (double)sum / minutes / working_set * 1e6;
}

/* 25 chunks in use, 225 not: nearly all of these leave, and few come back. */
static void test_stable(void **state)
{
	(void)state;
	begin(250, 120);
	make(0, 25, 0, CHUNK, 10);
	make(25, 225, 0, CHUNK, NEVER);
	run(600);
	print_message("stable: out %u of %u pages, %u promotions\n", (unsigned)s.out, 225 * CHUNK,
		      (unsigned)s.in.promotions);
	assert_true(s.out > 225 * CHUNK * 95 / 100);
	run(3600);
	assert_true(s.out >= 225 * CHUNK * 99 / 100);
	assert_true(rate_ppm(60, 25 * CHUNK) <= AUTO_TARGET_PPM);
	assert_int_equal(s.stops, 0);
	assert_int_equal(s.raises, 0);
}

/* One page in ten of each chunk is in use: found by paying for each, at the pace of the target. */
static void test_scattered(void **state)
{
	(void)state;
	begin(40, 120);
	make(0, 40, 0, CHUNK, NEVER);
	memset(s.used, 1, s.chunks);
	for (unsigned c = 0; c < 40; c++)
		for (unsigned p = roll(10); p < CHUNK; p += 10)
			s.page[c * CHUNK + p].period_s = 20;
	run(4 * 3600);
	print_message("scattered: out %u of %u pages after 4 hours, %.0f ppm a minute\n",
		      (unsigned)s.out, 36 * CHUNK, rate_ppm(200, 4 * CHUNK));
	assert_true(s.out > 36 * CHUNK / 20);
	assert_true(rate_ppm(200, 4 * CHUNK) <= AUTO_TARGET_PPM * 1.1);
}

/* Hot everywhere: hardly a page ever leaves. */
static void test_all_hot(void **state)
{
	(void)state;
	begin(100, 120);
	make(0, 100, 0, CHUNK, 60);
	run(3600);
	assert_int_equal(s.most_out, 0);
}

static void test_all_cold(void **state)
{
	(void)state;
	begin(100, 120);
	make(0, 100, 0, CHUNK, NEVER);
	run(130);
	assert_int_equal(s.out, 100 * CHUNK); /* at once, without any probe */
	assert_int_equal(s.in.promotions, 0);
}

/* It turns to other 25 chunks: they come back, then it is as before, with those it left. */
static void test_phase_change(void **state)
{
	(void)state;
	begin(250, 120);
	make(0, 25, 0, CHUNK, 10);
	make(25, 225, 0, CHUNK, NEVER);
	run(1800);
	make(0, 25, 0, CHUNK, NEVER);
	make(100, 25, 0, CHUNK, 10);
	run(300);
	assert_true(s.law.stopped);
	assert_true(auto_law_cold_ms(&s.law) > 120 * SECOND);
	run(3 * 3600);
	print_message("phase change: out %u of %u pages 3 hours after, %u stops, chance %.3f\n",
		      (unsigned)s.out, 225 * CHUNK, (unsigned)s.stops, auto_law_chance(&s.law));
	/* Those that had come back before, too: they have cooled. */
	assert_true(s.out > 225 * CHUNK - 10);
	assert_true(rate_ppm(60, 25 * CHUNK) <= AUTO_TARGET_PPM);
	assert_true(s.stops <= 2);
	assert_int_equal(auto_law_cold_ms(&s.law), 120 * SECOND);
}

/* All of it is read once every five minutes: after a surprise or two it stays. */
static void test_periodic(void **state)
{
	uint64_t first;

	(void)state;
	begin(40, 120);
	make(0, 4, 0, CHUNK, 10);
	make(4, 36, 0, CHUNK, 300);
	for (unsigned i = 4 * CHUNK; i < 40 * CHUNK; i++)
		s.page[i].phase_s = i % 3;
	run(2 * 3600);
	first = s.in.promotions;
	run(10 * 3600);
	print_message("every five minutes: %u promotions in 2 hours, %u in the next 10, %u stops, "
		      "%u changes of age; of %u pages\n",
		      (unsigned)first, (unsigned)(s.in.promotions - first), (unsigned)s.stops,
		      s.raises, 36 * CHUNK);
	/* On the average of a day what was promised, of all that is used each five minutes. */
	assert_true((double)(s.in.promotions - first) / 600 <= 40 * CHUNK * AUTO_TARGET_PPM / 1e6);
	assert_true(s.stops <= 12 && s.raises <= 40);
}

/* A leak: a chunk more each 10 s, never touched again. What is old leaves, as fast as it comes. */
static void test_leak(void **state)
{
	(void)state;
	begin(400, 120);
	make(0, 10, 0, CHUNK, 10);
	for (unsigned c = 10; c < 400; c++) {
		make(c, 1, 0, CHUNK, NEVER);
		run(10);
	}
	print_message("leak: out %u of %u pages\n", (unsigned)s.out, 390 * CHUNK);
	assert_true(s.out > 300 * CHUNK);
	assert_int_equal(s.stops, 0);
}

/* Memory is short: younger pages leave; and with it gone all is as before. No swinging. */
static void test_pressure(void **state)
{
	(void)state;
	begin(20, 120);
	make(0, 20, 0, CHUNK, 10);
	for (unsigned i = 0; i < 1800; i++) {
		s.in.stall_us += 5000; /* 0.5 % */
		run(1);
	}
	assert_int_equal(s.law.eager, AUTO_EAGER);
	assert_int_equal(auto_law_cold_ms(&s.law), 120 * SECOND >> AUTO_EAGER);
	assert_int_equal(s.eagers, AUTO_EAGER);
	run(1800);
	assert_int_equal(s.law.eager, 0);
	assert_int_equal(s.eagers, 2 * AUTO_EAGER);
}

/* Waiting for its pages for more than a hundredth of its time stops it, whatever the credit. */
static void test_waits(void **state)
{
	(void)state;
	begin(20, 120);
	make(0, 20, 0, CHUNK, 10);
	run(300);
	assert_false(s.law.stopped);
	s.in.wait_us += 60000; /* once, on a busy machine */
	run(2);
	assert_false(s.law.stopped);
	for (unsigned i = 0; i < 30 && !s.law.stopped; i++) {
		s.in.wait_us += 20000; /* 2 % of the time */
		run(1);
	}
	assert_true(s.law.stopped);
	assert_int_equal(auto_law_cold_ms(&s.law), 240 * SECOND);
	run(120);
	assert_true(s.law.stopped);
	run(90);
	assert_false(s.law.stopped);
	run(1200);
	assert_int_equal(auto_law_cold_ms(&s.law), 120 * SECOND);
}

/* Each breach costs more time than the one before, up to a day. */
static void test_breaches_cost_more(void **state)
{
	uint32_t took[4];

	(void)state;
	begin(20, 120);
	make(0, 20, 0, CHUNK, 10);
	run(300);
	for (unsigned i = 0; i < 4; i++) {
		uint32_t from = s.now_s;

		s.in.promotions += 1000000;
		run(2);
		assert_true(s.law.stopped);
		while (s.law.stopped)
			run(10);
		took[i] = s.now_s - from;
		assert_true(!i || took[i] > took[i - 1] * 3 / 2);
	}
	print_message("breaches: %u, %u, %u, %u s\n", took[0], took[1], took[2], took[3]);
	assert_in_range(took[0], 600, 700);
}

/* What came back is no victim for a cold age; when it comes back again, for two, four... */
static void test_cools(void **state)
{
	struct auto_chunk c = {.stage = AUTO_OPEN, .tried = 512};
	struct auto_view v = {.now_ms = 1000000, .cold_ms = 1000, .plan = 100};
	uint64_t waited = 0;
	double chance;

	(void)state;
	for (unsigned round = 0; round < 10; round++) {
		uint64_t from = v.now_ms, took;

		assert_true(auto_chunk_back(&c, v.now_ms, v.cold_ms, 77));
		assert_true(auto_chunk_hot(&c, 77));
		assert_false(auto_chunk_hot(&c, 78));
		while (auto_chunk_hot(&c, 77) && v.now_ms < from + 1000000) {
			auto_chunk_offer(&c, &v, 511, &chance);
			v.now_ms += 10;
		}
		took = v.now_ms - from;
		assert_true(took >= 1000 && took < 100000);
		assert_true(round == 0 || round > 6 || took > waited * 3 / 2);
		waited = took;
	}
	/* Left alone for long it is as before. */
	for (unsigned i = 0; i < 3; i++) {
		v.now_ms += 200000;
		auto_chunk_offer(&c, &v, 511, &chance);
	}
	assert_int_equal(c.warm, 0);
}

/* A hot chunk: nothing before it is due, and a probe is charged as a sure promotion. */
static void test_hot_chunk(void **state)
{
	struct auto_chunk c = {0};
	struct auto_view v = {.now_ms = 5000, .cold_ms = 1000, .referenced = 0.5, .plan = 0.9};
	double chance = 0;

	(void)state;
	assert_int_equal(auto_chunk_offer(&c, &v, 512, &chance), 1);
	assert_true(chance > 0.49 && chance < 0.51);
	auto_chunk_left(&c, &v, 1);
	assert_int_equal(auto_chunk_offer(&c, &v, 511, &chance), 0); /* it has to stay out first */
	assert_false(auto_chunk_back(&c, 5100, 1000, 9));
	v.now_ms = 6000;
	assert_int_equal(auto_chunk_offer(&c, &v, 511, &chance), 0);
	v.now_ms = 6100;
	v.doubtful = true;
	assert_int_equal(auto_chunk_offer(&c, &v, 511, &chance),
			 0); /* the plan does not allow it */
	v.plan = 1;
	assert_int_equal(auto_chunk_offer(&c, &v, 511, &chance), 1);
	assert_true(chance == 1);
	v.doubtful = false;
	assert_int_equal(auto_chunk_offer(&c, &v, 511, &chance), 0);
	/* Not touched at all: everything, and nothing is charged. */
	c = (struct auto_chunk){0};
	v.referenced = 0;
	assert_int_equal(auto_chunk_offer(&c, &v, 512, &chance), 512);
	assert_true(chance == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stable),	     cmocka_unit_test(test_scattered),
		cmocka_unit_test(test_all_hot),	     cmocka_unit_test(test_all_cold),
		cmocka_unit_test(test_phase_change), cmocka_unit_test(test_periodic),
		cmocka_unit_test(test_leak),	     cmocka_unit_test(test_pressure),
		cmocka_unit_test(test_waits),	     cmocka_unit_test(test_breaches_cost_more),
		cmocka_unit_test(test_cools),	     cmocka_unit_test(test_hot_chunk),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	free(s.page);
	free(s.chunk);
	free(s.gone);
	free(s.used);
	return failed;
}
