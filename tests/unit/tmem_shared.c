/* SPDX-License-Identifier: BSD-2-Clause */
/* Pools that several clients share by UUID: who may join, what each sees, how they end. */
#include "tmem_test.h"

#include "os/thread.h"
#include "zcache/zcache.h"

static struct test_page page, back;
static const uint8_t uuid[16] = {1, 2, 3}, uuid2[16] = {1, 2, 4};

static int put(tmem_client *c, tmem_pool pool, uint64_t index, uint64_t seed)
{
	tmem_oid oid = test_oid(1);

	test_fill(&page, seed, 150);
	return tmem_put(c, pool, &oid, index, &page);
}

static int get(tmem_client *c, tmem_pool pool, uint64_t index, uint64_t seed)
{
	tmem_oid oid = test_oid(1);
	int rc = tmem_get(c, pool, &oid, index, &back);

	if (rc == 0)
		test_check(&back, seed, 150);
	return rc;
}

static void all_see_the_same_pages(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_oid oid = test_oid(1);
	tmem_pool a, b, other;
	tmem_client *second;

	assert_int_equal(tmem_client_create(t.host, "second", &second), 0);
	a = tmem_pool_create_shared(t.client, uuid, 0, 4);
	assert_true(a >= 0);
	assert_int_equal(tmem_pool_allow(t.client, a, second, 1), 0);
	b = tmem_pool_create_shared(second, uuid, TMEM_POOL_SHARED, 0);
	assert_true(b >= 0);
	other = tmem_pool_create_shared(second, uuid2, 0, 0);
	assert_true(other >= 0);
	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(put(t.client, a, i, i), 0);
	/* A get keeps, for both. */
	for (unsigned n = 0; n < 2; n++) {
		for (uint64_t i = 0; i < 100; i++) {
			assert_int_equal(get(second, b, i, i), 0);
			assert_int_equal(get(t.client, a, i, i), 0);
			assert_int_equal(get(second, other, i, i), 1);
		}
	}
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_int_equal(put(second, b, 5, 77), 0);
	assert_int_equal(get(t.client, a, 5, 77), 0);
	assert_int_equal(tmem_invalidate_page(t.client, a, &oid, 6), 1);
	assert_int_equal(get(second, b, 6, 6), 1);
	assert_int_equal(tmem_pool_pages(second, b), 99);
	assert_int_equal(tmem_pool_clone(second, b), -EOPNOTSUPP);
	/* The maker goes; the pages stay with those who are left. */
	assert_int_equal(tmem_pool_destroy(t.client, a), 0);
	assert_int_equal(get(t.client, a, 7, 7), -ENOENT);
	assert_int_equal(get(second, b, 7, 7), 0);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	tmem_client_destroy(t.client);
	assert_int_equal(get(second, b, 7, 7), 0);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	tmem_client_destroy(second);
	assert_int_equal(test_stats(t.host).pages, 0);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	tmem_host_destroy(t.host);
}

static void only_those_allowed_may_join(void **state)
{
	struct test_host t = test_open(NULL), u = test_open(NULL);
	tmem_client *second, *third;
	tmem_pool a, b;

	assert_int_equal(tmem_client_create(t.host, "second", &second), 0);
	assert_int_equal(tmem_client_create(t.host, "third", &third), 0);
	a = tmem_pool_create_shared(t.client, uuid, 0, 0);
	assert_true(a >= 0);
	assert_int_equal(tmem_pool_create_shared(second, uuid, 0, 0), -EACCES);
	assert_int_equal(tmem_pool_allow(t.client, a, second, 1), 0);
	assert_int_equal(tmem_pool_allow(t.client, a, second, 1), 0);
	b = tmem_pool_create_shared(second, uuid, 0, 0);
	assert_true(b >= 0);
	assert_int_equal(tmem_pool_create_shared(third, uuid, 0, 0), -EACCES);
	/* Only the maker decides, over a shared pool, among clients of this host. */
	assert_int_equal(tmem_pool_allow(second, b, third, 1), -EPERM);
	assert_int_equal(tmem_pool_allow(t.client, t.pool, third, 1), -EINVAL);
	assert_int_equal(tmem_pool_allow(t.client, a, u.client, 1), -EINVAL);
	assert_int_equal(tmem_pool_allow(t.client, 12345, third, 1), -ENOENT);
	/* Who is inside stays; who left needs to be allowed again. */
	assert_int_equal(tmem_pool_allow(t.client, a, second, 0), 0);
	assert_int_equal(put(second, b, 1, 1), 0);
	assert_int_equal(tmem_pool_destroy(second, b), 0);
	assert_int_equal(tmem_pool_create_shared(second, uuid, 0, 0), -EACCES);
	assert_int_equal(tmem_pool_allow(t.client, a, NULL, 1), 0);
	assert_true(tmem_pool_create_shared(third, uuid, 0, 0) >= 0);
	assert_int_equal(tmem_pool_allow(t.client, a, NULL, 0), 0);
	assert_int_equal(tmem_pool_create_shared(second, uuid, 0, 0), -EACCES);
	/* Another host has another pool of that name. */
	assert_true(tmem_pool_create_shared(u.client, uuid, 0, 0) >= 0);
	/* A right ends with its client. */
	assert_int_equal(tmem_pool_allow(t.client, a, second, 1), 0);
	tmem_client_destroy(second);
	tmem_client_destroy(third);
	test_close(&u);
	test_close(&t);
}

static void flags_that_are_refused(void **state)
{
	struct test_host t = test_open(NULL);

	assert_int_equal(tmem_pool_create_shared(t.client, uuid, TMEM_POOL_PERSIST, 0),
			 -EOPNOTSUPP);
	assert_int_equal(tmem_pool_create_shared(t.client, uuid, 1u << 4, 0), -EOPNOTSUPP);
	assert_int_equal(tmem_pool_create_shared(t.client, uuid, 1u << 9, 0), -EINVAL);
	assert_int_equal(tmem_pool_create_shared(t.client, uuid, 0, 3), -EINVAL);
	test_close(&t);
}

/* A get makes a page stay: what is asked for outlives what is not. */
static void a_get_promotes(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_pool a = tmem_pool_create_shared(t.client, uuid, 0, 0);

	for (uint64_t i = 0; i < 2000; i++)
		assert_int_equal(put(t.client, a, i, i), 0);
	for (uint64_t i = 0; i < 50; i++)
		assert_int_equal(get(t.client, a, i, i), 0);
	assert_int_equal(tmem_host_shrink(t.host, 60, NULL), 0);
	for (uint64_t i = 0; i < 50; i++)
		assert_int_equal(get(t.client, a, i, i), 0);
	assert_int_equal(get(t.client, a, 60, 60), 1);
	test_close(&t);
}

/* Clients come, use, leave, all at once; every page that comes back is right. */
static tmem_host *host;

static void *come_and_go(void *arg)
{
	static const uint8_t *const ids[] = {uuid, uuid2};
	uint64_t n = (uint64_t)(uintptr_t)arg;
	struct test_page mine, got;
	tmem_oid oid = test_oid(1);

	for (uint64_t i = 0; i < 60; i++) {
		tmem_client *c;
		tmem_pool p;

		assert_int_equal(tmem_client_create(host, "come and go", &c), 0);
		p = tmem_pool_create_shared(c, ids[test_mix(n * 1000 + i) % 2], 0, 2);
		assert_true(p >= 0 || p == -EACCES);
		if (p >= 0)
			assert_in_range(-tmem_pool_allow(c, p, NULL, 1), 0, EPERM);
		for (uint64_t k = 0; p >= 0 && k < 60; k++) {
			uint64_t index = test_mix(n + i + k) % 128;

			test_fill(&mine, index, 100);
			assert_int_equal(tmem_put(c, p, &oid, index, &mine), 0);
			if (tmem_get(c, p, &oid, index ^ 1, &got) == 0)
				test_check(&got, index ^ 1, 100);
			if (k % 16 == 0)
				(void)tmem_host_shrink(host, 2, NULL);
			if (k % 31 == 0)
				(void)tmem_host_compact(host, 1 << 16);
		}
		if (i % 3)
			assert_int_equal(p >= 0 ? tmem_pool_destroy(c, p) : 0, 0);
		tmem_client_destroy(c);
	}
	return NULL;
}

static void clients_come_and_go(void **state)
{
	os_thread th[6];

	assert_int_equal(tmem_host_create(NULL, &host, NULL, 0), 0);
	for (uintptr_t i = 0; i < 6; i++)
		assert_int_equal(os_thread_create(&th[i], "come", come_and_go, (void *)i), 0);
	for (unsigned i = 0; i < 6; i++)
		os_thread_join(th[i]);
	assert_int_equal(tmem_host_verify(host, 1), 0);
	assert_int_equal(test_stats(host).pages, 0);
	assert_int_equal(test_stats(host).clients, 0);
	assert_int_equal(test_stats(host).pools, 0);
	tmem_host_destroy(host);
}

/* It has nothing of the pool that had its place: here, a codec that keeps all as it is. */
static void it_begins_with_the_hosts_codec(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_pool p = tmem_pool_create(t.client, 0, 0), q;
	uint64_t was;

	assert_int_equal(tmem_pool_set_codec(t.client, p, "none"), 0);
	assert_int_equal(tmem_pool_destroy(t.client, p), 0);
	q = tmem_pool_create_shared(t.client, uuid, 0, 0);
	assert_true(q >= 0);
	was = test_stats(t.host).compressed_bytes;
	assert_int_equal(put(t.client, q, 1, 1), 0);
	assert_in_range(test_stats(t.host).compressed_bytes - was, 1, 2000);
	test_close(&t);
}

static _Atomic bool over;

/* Shared pools with something that they counted begin and end. */
static void *count_and_end(void *arg)
{
	tmem_client *c = arg;

	for (unsigned i = 0; i < 300; i++) {
		tmem_pool p = tmem_pool_create_shared(c, uuid, 0, 0);

		assert_true(p >= 0);
		for (uint64_t k = 0; k < 20; k++)
			assert_int_equal(put(c, p, k, k), 0);
		assert_int_equal(tmem_pool_destroy(c, p), 0);
	}
	atomic_store(&over, true);
	return NULL;
}

/* What was counted never disappears, nor is it there twice: also while a pool ends. */
static void counters_never_fall(void **state)
{
	struct test_host t = test_open(NULL);
	uint64_t last = 0;
	os_thread th;

	atomic_store(&over, false);
	assert_int_equal(os_thread_create(&th, "end", count_and_end, t.client), 0);
	while (!atomic_load(&over)) {
		uint64_t now = test_stats(t.host).puts_ok;

		assert_true(now >= last);
		last = now;
	}
	os_thread_join(th);
	assert_int_equal(test_stats(t.host).puts_ok, 300 * 20);
	test_close(&t);
}

static void *end_at_once(void *arg)
{
	unsigned rounds = *(const unsigned *)arg;

	for (unsigned i = 0; i < rounds; i++) {
		tmem_client *c[2];

		assert_int_equal(tmem_client_create(host, "one", &c[0]), 0);
		assert_int_equal(tmem_client_create(host, "two", &c[1]), 0);
		tmem_client_destroy(c[i % 2]);
		tmem_client_destroy(c[!(i % 2)]);
	}
	return NULL;
}

static void *shrink(void *arg)
{
	while (!atomic_load(&over))
		(void)tmem_host_shrink(host, 0, NULL);
	return arg;
}

/* The queues of clients are gone through while their clients end, neighbours in the list, too. */
static void clients_end_while_it_shrinks(void **state)
{
	unsigned rounds = 1000;
	os_thread th[4];

	assert_int_equal(tmem_host_create(NULL, &host, NULL, 0), 0);
	atomic_store(&over, false);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(
			os_thread_create(&th[i], "end", i < 2 ? end_at_once : shrink, &rounds), 0);
	for (unsigned i = 0; i < 4; i++) {
		os_thread_join(th[i]);
		atomic_store(&over, i >= 1);
	}
	assert_int_equal(test_stats(host).clients, 0);
	tmem_host_destroy(host);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_see_the_same_pages),
		cmocka_unit_test(only_those_allowed_may_join),
		cmocka_unit_test(flags_that_are_refused),
		cmocka_unit_test(a_get_promotes),
		cmocka_unit_test(clients_come_and_go),
		cmocka_unit_test(it_begins_with_the_hosts_codec),
		cmocka_unit_test(counters_never_fall),
		cmocka_unit_test(clients_end_while_it_shrinks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
