/* SPDX-License-Identifier: BSD-2-Clause */
/* Clones: counted once, changed apart, movable again when they are alone. */
#include "tmem_test.h"

#define PAGES 300

static struct test_page page, back;

static void put(struct test_host *t, tmem_pool pool, uint64_t index, uint64_t seed)
{
	tmem_oid oid = test_oid(index % 3);

	test_fill(&page, seed, 100);
	assert_int_equal(tmem_put(t->client, pool, &oid, index, &page), 0);
}

static void expect(struct test_host *t, tmem_pool pool, uint64_t index, uint64_t seed)
{
	tmem_oid oid = test_oid(index % 3);

	assert_int_equal(tmem_get(t->client, pool, &oid, index, &back), 0);
	test_check(&back, seed, 100);
}

static void put_group(struct test_host *t, tmem_pool pool, uint64_t index, uint64_t seed)
{
	static struct test_page group[8];
	tmem_oid oid = test_oid(77);

	for (unsigned i = 0; i < 8; i++)
		test_fill(&group[i], seed + i, 100);
	assert_int_equal(tmem_put_cluster(t->client, pool, &oid, index, 8, group), 0);
}

/* A page alone, one of a cluster, a same-filled one, one that is not there. */
static void expect_shared(struct test_host *t, tmem_pool pool, bool shared)
{
	tmem_oid alone = test_oid(1), group = test_oid(77), same = test_oid(88);

	assert_int_equal(tmem_page_shared(t->client, pool, &alone, 1), shared);
	assert_int_equal(tmem_page_shared(t->client, pool, &group, 19), shared);
	assert_int_equal(tmem_page_shared(t->client, pool, &same, 0), 0);
	assert_int_equal(tmem_page_shared(t->client, pool, &alone, 0), -ENOENT);
	assert_int_equal(tmem_page_shared(t->client, pool + 1000, &alone, 1), -ENOENT);
}

static void copies_are_counted_once_and_change_apart(void **state)
{
	struct test_host t = test_open(NULL);
	uint64_t zpages, bytes;
	tmem_pool b;

	for (uint64_t i = 0; i < PAGES; i++)
		put(&t, t.pool, i, i);
	put_group(&t, t.pool, 16, 7000);
	memset(&page, 3, sizeof(page));
	tmem_oid oid = test_oid(88);
	assert_int_equal(tmem_put(t.client, t.pool, &oid, 0, &page), 0);
	zpages = test_stats(t.host).zpages;
	bytes = test_stats(t.host).compressed_bytes;
	expect_shared(&t, t.pool, false);
	b = tmem_pool_clone(t.client, t.pool);
	assert_true(b >= 0);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_int_equal(test_stats(t.host).zpages, zpages);
	assert_int_equal(test_stats(t.host).compressed_bytes, bytes);
	assert_int_equal(tmem_pool_pages(t.client, b), PAGES + 9);
	for (uint64_t i = 0; i < PAGES; i++)
		expect(&t, b, i, i);
	expect_shared(&t, t.pool, true);
	expect_shared(&t, b, true);
	/* Each changes by itself. */
	for (uint64_t i = 0; i < PAGES; i += 2)
		put(&t, b, i, i + 5000);
	for (uint64_t i = 0; i < PAGES; i += 3)
		put(&t, t.pool, i, i + 9000);
	for (uint64_t i = 0; i < PAGES; i++) {
		expect(&t, b, i, i % 2 ? i : i + 5000);
		expect(&t, t.pool, i, i % 3 ? i : i + 9000);
	}
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_int_equal(tmem_pool_destroy(t.client, b), 0);
	expect_shared(&t, t.pool, false);
	for (uint64_t i = 0; i < PAGES; i++)
		expect(&t, t.pool, i, i % 3 ? i : i + 9000);
	assert_int_equal(test_stats(t.host).zpages, zpages);
	test_close(&t);
}

/* Holes in what remains of a shared pool close when the other owner has gone. */
static void movable_again(bool source_goes)
{
	struct test_host t = test_open(NULL);
	uint64_t moved;
	tmem_pool b;

	for (uint64_t i = 0; i < 3000; i++)
		put(&t, t.pool, i, i);
	for (uint64_t g = 0; g < 40; g++)
		put_group(&t, t.pool, g * 64, g * 100);
	b = tmem_pool_clone(t.client, t.pool);
	for (uint64_t i = 0; i < 3000; i++) {
		tmem_oid oid = test_oid(i % 3);

		if (i % 4) {
			assert_int_equal(tmem_invalidate_page(t.client, t.pool, &oid, i), 1);
			assert_int_equal(tmem_invalidate_page(t.client, b, &oid, i), 1);
		}
	}
	/* All that is left is in two pools: nothing moves. */
	moved = test_stats(t.host).moved_zpages;
	(void)tmem_host_compact(t.host, UINT64_MAX / 2);
	assert_int_equal(test_stats(t.host).moved_zpages, moved);
	assert_int_equal(tmem_pool_destroy(t.client, source_goes ? t.pool : b), 0);
	assert_true(tmem_host_compact(t.host, UINT64_MAX / 2) > 0);
	assert_true(test_stats(t.host).moved_zpages > moved + 300);
	for (uint64_t i = 0; i < 3000; i += 4)
		expect(&t, source_goes ? b : t.pool, i, i);
	test_close(&t);
}

static void movable_when_the_clone_has_gone(void **state)
{
	movable_again(false);
}

static void movable_when_the_source_has_gone(void **state)
{
	movable_again(true);
}

/* More pools than a page's count has room for. */
static void many_clones(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_pool clone[100];

	for (uint64_t i = 0; i < 20; i++)
		put(&t, t.pool, i, i);
	put_group(&t, t.pool, 0, 500);
	for (unsigned k = 0; k < 100; k++) {
		clone[k] = tmem_pool_clone(t.client, t.pool);
		assert_true(clone[k] >= 0);
	}
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	/* 32 share a page alone; a cluster has room for all. */
	assert_in_range(test_stats(t.host).zpages, 21, 20 * 4 + 1);
	for (unsigned k = 0; k < 100; k++)
		for (uint64_t i = 0; i < 20; i++)
			expect(&t, clone[k], i, i);
	for (unsigned k = 0; k < 100; k += 2)
		assert_int_equal(tmem_pool_destroy(t.client, clone[k]), 0);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	/* Clones of clones, and the first owner goes first. */
	clone[0] = tmem_pool_clone(t.client, clone[1]);
	clone[2] = tmem_pool_clone(t.client, clone[0]);
	assert_int_equal(tmem_pool_destroy(t.client, t.pool), 0);
	for (uint64_t i = 0; i < 20; i++)
		expect(&t, clone[2], i, i);
	test_close(&t);
}

static void no_such_pool(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_pool b;

	assert_int_equal(tmem_pool_clone(t.client, 4000), -ENOENT);
	/* An empty one. */
	b = tmem_pool_clone(t.client, t.pool);
	assert_true(b >= 0);
	assert_int_equal(tmem_pool_pages(t.client, b), 0);
	test_close(&t);
}

/* What is counted of the copy's pages is the copy's, and goes with it. */
static void a_copy_counts_its_own(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_pool_stats s = {.size = sizeof(s)};
	struct test_page zeros = {{0}};
	tmem_oid oid = test_oid(1);
	tmem_pool b;

	for (uint64_t i = 0; i < 20; i++)
		assert_int_equal(tmem_put(t.client, t.pool, &oid, i, &zeros), 0);
	b = tmem_pool_clone(t.client, t.pool);
	assert_true(b >= 0);
	for (unsigned k = 0; k < 2; k++) {
		assert_int_equal(tmem_pool_stats_get(t.client, k ? b : t.pool, &s), 0);
		assert_int_equal(s.same_filled_pages, 20);
	}
	assert_int_equal(tmem_pool_destroy(t.client, t.pool), 0);
	assert_int_equal(tmem_pool_stats_get(t.client, b, &s), 0);
	assert_int_equal(s.same_filled_pages, 20);
	test_close(&t);
}

/* Too little memory for the copy's index: no new pool, nothing leaked. */
static void no_memory(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_pool b;

	for (uint64_t i = 0; i < PAGES; i++)
		put(&t, t.pool, i * 64, i);
	assert_int_equal(tmem_host_set_limit(t.host, test_stats(t.host).store_bytes + 100000), 0);
	b = tmem_pool_clone(t.client, t.pool);
	assert_int_equal(b, -ENOMEM);
	assert_int_equal(test_stats(t.host).pools, 1);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	for (uint64_t i = 0; i < PAGES; i++)
		expect(&t, t.pool, i * 64, i);
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(copies_are_counted_once_and_change_apart),
		cmocka_unit_test(movable_when_the_clone_has_gone),
		cmocka_unit_test(movable_when_the_source_has_gone),
		cmocka_unit_test(many_clones),
		cmocka_unit_test(no_such_pool),
		cmocka_unit_test(a_copy_counts_its_own),
		cmocka_unit_test(no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
