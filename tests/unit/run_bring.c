/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What comes in with a page, and how it is to leave: clusters of eight in a store, and faults on
 * them in different orders. The kernel is played here.
 */
#include "run_test.h"

#define START	    0x10000000ull
#define PAGES	    8192u
#define EIGHT	    8u
#define APART_PROBE 16u /* as in bring.c: one block in so many is stored as a cluster */

static struct run run;

/* ---- what bring.c calls of the pager ------------------------------------------------------ */

static unsigned came;

bool pager_copy_in(struct space *sp, uint64_t addr, const void *src, uint64_t n, uint64_t *done)
{
	(void)sp;
	for (uint64_t k = 0; k < n; k++)
		assert_int_equal(*(const uint64_t *)((const char *)src + k * AGENT_PAGE),
				 (addr - START) / AGENT_PAGE + k);
	came += (unsigned)n;
	*done = n;
	return true;
}

void pager_added(struct space *sp, uint64_t n)
{
	(void)sp;
	(void)n;
}

void pager_fail(struct space *sp, const char *why)
{
	(void)sp;
	fail_msg("%s", why);
}

uint64_t run_goal_high(const struct run *r)
{
	(void)r;
	return UINT64_MAX;
}

uint64_t run_total(struct run *r)
{
	(void)r;
	return 0;
}

/* Nothing is shared here. */
bool keep(struct space *sp, uint32_t area, uint64_t page, uint64_t n, const char *data)
{
	(void)sp;
	(void)area;
	(void)page;
	(void)n;
	(void)data;
	fail();
	return false;
}

/* ---- a program ---------------------------------------------------------------------------- */

static struct chunk *chunk_of(struct space *sp, uint64_t page)
{
	return space_chunk(sp, space_find(sp, START)->area, page, true);
}

/* Pages [first, first + EIGHT) leave, as one cluster. Each has its number in it. */
static void leave(struct space *sp, uint64_t first)
{
	static uint64_t data[EIGHT][AGENT_PAGE / 8];
	struct segment *seg = space_find(sp, START);
	uint64_t index;
	tmem_oid oid;

	for (uint32_t k = 0; k < EIGHT; k++) {
		for (uint32_t i = 0; i < AGENT_PAGE / 8; i++)
			data[k][i] = first + k + i;
		space_set_page(chunk_of(sp, first), first + k, PAGE_OUT);
		chunk_of(sp, first)->place[(first + k) % CHUNK_PAGES].with = EIGHT - 1;
	}
	space_oid(seg->area, first, &oid, &index);
	assert_int_equal(tmem_put_cluster(run.client, sp->pool, &oid, index, EIGHT, data), 0);
}

/* A fault on it: how many pages came. */
static unsigned asked(struct space *sp, uint64_t page)
{
	came = 0;
	assert_true(bring_in(sp, space_find(sp, START), page, false));
	return came;
}

static enum with leaves_with(struct space *sp, uint64_t page)
{
	return chunk_of(sp, page)->place[page % CHUNK_PAGES].with;
}

/* So many faults on other clusters, of which each is asked for one page only. */
static uint64_t elsewhere(struct space *sp, uint64_t from, unsigned faults)
{
	for (unsigned i = 0; i < faults; i++, from += EIGHT) {
		leave(sp, from);
		assert_true(asked(sp, from) <= EIGHT);
	}
	return from;
}

static struct space *make(void)
{
	struct space *sp = test_space(&run, RUN_EVICT_MOVE, START, PAGES);

	sp->together = 0; /* neighbours are not wanted, so far */
	return sp;
}

static void unmake(struct space *sp)
{
	assert_int_equal(space_verify(sp), 0);
	test_space_end(&run, sp);
}

/* ---- tests -------------------------------------------------------------------------------- */

/* Three of eight are asked for soon: the rest comes, and all leave together. */
static void test_soon(void **unused)
{
	struct space *sp = make();

	(void)unused;
	leave(sp, 0);
	assert_int_equal(asked(sp, 0), 1);
	assert_int_equal(asked(sp, 3), 1);
	assert_int_equal(asked(sp, 5), 6);
	for (uint64_t k = 0; k < EIGHT; k++)
		assert_int_equal(leaves_with(sp, k), WITH_COMPANY);
	unmake(sp);
}

/* Long after the first, or after a second that was late: what comes then leaves by itself. */
static void test_slowly(void **unused)
{
	struct space *sp = make();
	uint64_t from = EIGHT;

	(void)unused;
	for (unsigned late = 1; late <= 2; late++, from += EIGHT) {
		uint64_t first = late == 1 ? 0 : from - EIGHT;

		leave(sp, first);
		assert_int_equal(asked(sp, first), 1);
		if (late == 1)
			from = elsewhere(sp, from, 100);
		assert_int_equal(asked(sp, first + 3), 1);
		if (late == 2)
			from = elsewhere(sp, from, 100);
		assert_int_equal(asked(sp, first + 5), 6);
		assert_int_equal(leaves_with(sp, first), WITH_COMPANY);
		assert_int_equal(leaves_with(sp, first + 3), WITH_COMPANY);
		for (uint64_t k = 0; k < EIGHT; k++)
			if (k != 0 && k != 3)
				assert_int_equal(leaves_with(sp, first + k), WITH_NONE);
	}
	unmake(sp);
}

/* Blocks of so many that would be stored by pages. */
static unsigned apart(struct space *sp, unsigned blocks)
{
	unsigned n = 0;

	for (unsigned i = 0; i < blocks; i++)
		n += bring_apart(sp);
	return n;
}

/* Where nearly all clusters fall apart slowly, new pages are stored by themselves, but for some. */
static void test_all_slowly(void **unused)
{
	struct space *sp = make();
	uint64_t clusters = PAGES / EIGHT, at = 0;

	(void)unused;
	assert_int_equal(apart(sp, 100), 0);
	for (at = 0; at < clusters * EIGHT; at += EIGHT)
		leave(sp, at);
	for (unsigned k = 0; k < 3; k++) /* a page of each, and again */
		for (at = 0; at < clusters * EIGHT; at += EIGHT)
			(void)asked(sp, at + k);
	assert_int_equal(apart(sp, 10 * APART_PROBE), 10 * (APART_PROBE - 1));
	run.opts.without = STORED_APART;
	assert_int_equal(apart(sp, 100), 0);
	unmake(sp);
}

/* Where one in four does not, they are not. */
static void test_most_slowly(void **unused)
{
	struct space *sp = make();
	uint64_t clusters = PAGES / EIGHT, at = 0;

	(void)unused;
	for (at = 0; at < clusters * EIGHT; at += EIGHT)
		leave(sp, at);
	for (unsigned k = 0; k < 3; k++)
		for (at = 0; at < clusters * EIGHT; at += EIGHT) {
			if (at / EIGHT % 4)
				(void)asked(sp, at + k);
			for (unsigned i = 0; k == 1 && at / EIGHT % 4 == 0 && i < 3; i++)
				(void)asked(sp, at + i);
			assert_int_equal(apart(sp, 1), 0);
		}
	unmake(sp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_soon),
		cmocka_unit_test(test_slowly),
		cmocka_unit_test(test_all_slowly),
		cmocka_unit_test(test_most_slowly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
