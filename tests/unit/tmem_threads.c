/* SPDX-License-Identifier: BSD-2-Clause */
/* What concurrent callers are promised. The races at large: tests/model/engine_model.c. */
#include "tmem_test.h"

#include "os/thread.h"

#include <stdatomic.h>

#define THREADS 4
#define PAGES	400

static struct test_host t;
static _Atomic unsigned got[PAGES], go;

static void start(os_thread *th, void *(*fn)(void *))
{
	atomic_store(&go, 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(os_thread_create(&th[i], "test", fn, (void *)i), 0);
	atomic_store(&go, 1);
}

static void join(os_thread *th)
{
	for (unsigned i = 0; i < THREADS; i++)
		os_thread_join(th[i]);
}

static void *take_all(void *arg)
{
	tmem_oid oid = test_oid(1);
	struct test_page back;

	while (!atomic_load(&go))
		;
	for (uint64_t i = 0; i < PAGES; i++)
		if (tmem_get_and_invalidate(t.client, t.pool, &oid, i, &back) == 0) {
			test_check(&back, i, 80);
			atomic_fetch_add(&got[i], 1);
		}
	return NULL;
}

static void one_of_many_gets_the_page(void **state)
{
	static struct test_page group[16];
	tmem_oid oid = test_oid(1);
	os_thread th[THREADS];

	t = test_open(NULL);
	for (unsigned round = 0; round < 10; round++) {
		for (uint64_t i = 0; i < PAGES; i += 16) {
			for (unsigned k = 0; k < 16; k++)
				test_fill(&group[k], i + k, 80);
			if (round % 2) {
				assert_int_equal(
					tmem_put_cluster(t.client, t.pool, &oid, i, 16, group), 0);
				continue;
			}
			for (unsigned k = 0; k < 16; k++)
				assert_int_equal(tmem_put(t.client, t.pool, &oid, i + k, &group[k]),
						 0);
		}
		start(th, take_all);
		join(th);
		for (unsigned i = 0; i < PAGES; i++)
			assert_int_equal(atomic_exchange(&got[i], 0), 1);
	}
	test_close(&t);
}

/* Many readers of one page: more than can pin it find it all the same. */
static void *read_one(void *arg)
{
	tmem_oid oid = test_oid(2);
	struct test_page back;

	for (unsigned i = 0; i < 3000; i++) {
		assert_int_equal(tmem_get(t.client, t.pool, &oid, 0, &back), 0);
		test_check(&back, 5, 200);
	}
	return NULL;
}

static void many_readers_of_one_page(void **state)
{
	tmem_oid oid = test_oid(2);
	struct test_page page;
	os_thread th[THREADS];

	t = test_open(NULL);
	test_fill(&page, 5, 200);
	assert_int_equal(tmem_put(t.client, t.pool, &oid, 0, &page), 0);
	start(th, read_one);
	for (unsigned i = 0; i < 50; i++)
		(void)tmem_host_compact(t.host, 1 << 20);
	join(th);
	assert_int_equal(test_stats(t.host).gets_found, THREADS * 3000);
	test_close(&t);
}

/* Pools end under those who use them: they see -ENOENT, nothing else. */
static _Atomic tmem_pool current;

static void *use_pool(void *arg)
{
	struct test_page page, back;
	tmem_oid oid = test_oid((uintptr_t)arg);

	test_fill(&page, 1, 100);
	for (unsigned i = 0; i < 4000; i++) {
		tmem_pool p = atomic_load(&current);
		int rc = tmem_put(t.client, p, &oid, i % 50, &page);

		assert_true(rc == 0 || rc == -ENOENT);
		rc = tmem_get(t.client, p, &oid, i % 50, &back);
		assert_true(rc == 0 || rc == 1 || rc == -ENOENT);
		if (rc == 0)
			test_check(&back, 1, 100);
		assert_true(tmem_pool_pages(t.client, p) >= -ENOENT);
	}
	return NULL;
}

static void pools_end_under_load(void **state)
{
	os_thread th[THREADS];

	t = test_open(NULL);
	atomic_store(&current, t.pool);
	start(th, use_pool);
	for (unsigned i = 0; i < 200; i++) {
		tmem_pool old = atomic_load(&current), new;

		new = i % 3 ? tmem_pool_create(t.client, TMEM_POOL_PERSIST, 2)
			    : tmem_pool_clone(t.client, old);
		assert_true(new >= 0);
		atomic_store(&current, new);
		assert_int_equal(tmem_pool_destroy(t.client, old), 0);
	}
	join(th);
	assert_int_equal(test_stats(t.host).pools, 1);
	test_close(&t);
}

/* Clones taken while the source changes: each page is one that was there. */
static void *change_source(void *arg)
{
	tmem_oid oid = test_oid(9);
	struct test_page page;

	for (unsigned i = 0; i < 3000; i++) {
		uint64_t index = (i * 7 + (uintptr_t)arg) % 64 * THREADS + (uintptr_t)arg;

		test_fill(&page, index << 32 | i, 60);
		assert_int_equal(tmem_put(t.client, t.pool, &oid, index, &page), 0);
	}
	return NULL;
}

static void clones_under_load(void **state)
{
	tmem_oid oid = test_oid(9);
	struct test_page back;
	os_thread th[THREADS];

	t = test_open(NULL);
	start(th, change_source);
	for (unsigned k = 0; k < 60; k++) {
		tmem_pool c = tmem_pool_clone(t.client, t.pool);

		assert_true(c >= 0);
		for (uint64_t i = 0; i < 64 * THREADS; i++)
			if (tmem_get(t.client, c, &oid, i, &back) == 0) {
				assert_int_equal(back.word[0] >> 32, i);
				test_check(&back, back.word[0], 60);
			}
		(void)tmem_host_compact(t.host, 1 << 20);
		assert_int_equal(tmem_pool_destroy(t.client, c), 0);
	}
	join(th);
	assert_int_equal(tmem_pool_pages(t.client, t.pool), 64 * THREADS);
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_of_many_gets_the_page),
		cmocka_unit_test(many_readers_of_one_page),
		cmocka_unit_test(pools_end_under_load),
		cmocka_unit_test(clones_under_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
