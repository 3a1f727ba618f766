/* SPDX-License-Identifier: BSD-2-Clause */
/* Clients: limits, weights and who pays first, accounts under threads. */
#include "tmem_test.h"

#include "os/thread.h"
#include "zcache/zcache.h"

static uint64_t used(tmem_client *c)
{
	tmem_client_stats s = {.size = sizeof(s)};

	assert_int_equal(tmem_client_stats_get(c, &s), 0);
	return s.store_bytes;
}

static uint64_t pages(tmem_client *c)
{
	tmem_client_stats s = {.size = sizeof(s)};

	assert_int_equal(tmem_client_stats_get(c, &s), 0);
	return s.pages;
}

static int put(tmem_client *c, tmem_pool pool, uint64_t i)
{
	struct test_page page;
	tmem_oid oid = test_oid(1);

	test_fill(&page, i, 150);
	return tmem_put(c, pool, &oid, i, &page);
}

/* At its limit a client is refused, and nobody else. */
static void a_limit_is_the_clients_own(void **state)
{
	struct test_host t = test_open(NULL);
	uint64_t limit = used(t.client) + (1u << 20), kept = 0;
	struct test_page page;
	tmem_oid oid = test_oid(1);
	tmem_client *other;
	tmem_pool q;

	assert_int_equal(tmem_client_create(t.host, "other", &other), 0);
	q = tmem_pool_create(other, TMEM_POOL_PERSIST, 4);
	assert_int_equal(tmem_client_set_limit(t.client, limit), 0);
	for (uint64_t i = 0; i < 2000; i++) {
		int rc = put(t.client, t.pool, i);

		assert_true(rc == 0 || rc == -EDQUOT);
		assert_true(zc_client_used(t.client) <= limit);
		assert_int_equal(tmem_get(t.client, t.pool, &oid, i, &page), rc ? 1 : 0);
		kept += rc == 0;
	}
	assert_in_range(kept, 600, 850);
	assert_true(used(t.client) > limit - 4096);
	assert_int_equal(test_stats(t.host).puts_quota, 2000 - kept);
	assert_string_equal(tmem_strerror(-EDQUOT), "the client is at its own limit");
	for (uint64_t i = 0; i < 2000; i++)
		assert_int_equal(put(other, q, i), 0);
	/* A page of the same size takes the old one's place. */
	assert_int_equal(put(t.client, t.pool, 5), 0);
	/* A limit below what is in use: nothing new, all old is there. */
	assert_int_equal(tmem_client_set_limit(t.client, 1), 0);
	assert_int_equal(put(t.client, t.pool, 5000), -EDQUOT);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 7, &page), 0);
	test_check(&page, 7, 150);
	assert_int_equal(tmem_pool_create(t.client, TMEM_POOL_PERSIST, 0) < 0, 1);
	assert_int_equal(tmem_client_set_limit(t.client, 0), 0);
	assert_int_equal(put(t.client, t.pool, 5000), 0);
	tmem_client_destroy(other);
	test_close(&t);
}

/* Memory charged ahead counts against a limit, so with one it is told, and without is not. */
static void under_a_limit_credit_is_told(void **state)
{
	struct test_host t = test_open(NULL);
	uint64_t bare;

	assert_int_equal(put(t.client, t.pool, 0), 0);
	bare = used(t.client);
	assert_in_range(zc_client_used(t.client), bare + 4096, bare + ZC_CREDIT);
	assert_int_equal(tmem_client_set_limit(t.client, 1), 0);
	assert_int_equal(used(t.client), zc_client_used(t.client));
	/* What gives it back: used only falls. */
	assert_int_equal(put(t.client, t.pool, 1), -EDQUOT);
	assert_int_equal(zc_credits(t.client), 0);
	assert_int_equal(used(t.client), bare);
	test_close(&t);
}

/* With ephemeral pages of its own it pays with the oldest of them, in whichever frames those are.
 */
static void pays_with_its_own(const char *zpool)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct test_host t = (o.zpool = zpool, test_open(&o));
	tmem_pool eph = tmem_pool_create(t.client, 0, 4), q;
	struct test_page page;
	tmem_oid oid = test_oid(1);
	tmem_client *other;
	uint64_t evicted;

	assert_int_equal(tmem_client_create(t.host, "other", &other), 0);
	q = tmem_pool_create(other, 0, 4);
	for (uint64_t i = 0; i < 300; i++)
		assert_int_equal(put(other, q, i), 0);
	assert_int_equal(put(t.client, eph, 0), 0);
	assert_int_equal(tmem_client_set_limit(t.client, used(t.client) + (1u << 20)), 0);
	for (uint64_t i = 0; i < 3000; i++)
		assert_int_equal(put(t.client, eph, i), 0);
	evicted = test_stats(t.host).evicted_quota;
	assert_in_range(evicted, 2000, 2990);
	assert_int_equal(tmem_get_keep(t.client, eph, &oid, 2999, &page), 0);
	assert_int_equal(tmem_get_keep(t.client, eph, &oid, 10, &page), 1);
	assert_int_equal(pages(other), 300);
	/* Persistent pages outrank them. */
	for (uint64_t i = 0; i < 200; i++)
		assert_int_equal(put(t.client, t.pool, i), 0);
	assert_true(test_stats(t.host).evicted_quota > evicted);
	assert_int_equal(pages(other), 300);
	/* Far above a limit that was lowered, in many rounds. */
	assert_int_equal(tmem_client_set_limit(t.client, used(t.client) / 2), 0);
	(void)put(t.client, eph, 0);
	assert_int_equal(pages(other), 300);
	tmem_client_destroy(other);
	test_close(&t);
}

static void a_client_at_its_limit_pays_with_its_own(void **state)
{
	pays_with_its_own("zsmalloc");
	pays_with_its_own("zbud");
}

struct pair {
	tmem_host *host;
	tmem_client *c[2];
	tmem_pool pool[2];
};

static struct pair pair_open(uint64_t limit)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct pair p;

	o.limit_bytes = limit;
	assert_int_equal(tmem_host_create(&o, &p.host, NULL, 0), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(tmem_client_create(p.host, i ? "b" : "a", &p.c[i]), 0);
		p.pool[i] = tmem_pool_create(p.c[i], 0, 16);
		assert_true(p.pool[i] >= 0);
	}
	return p;
}

static void pair_close(struct pair *p)
{
	assert_int_equal(tmem_host_verify(p->host, 1), 0);
	for (unsigned i = 0; i < 2; i++)
		tmem_client_destroy(p->c[i]);
	tmem_host_destroy(p->host);
}

/*
 * Direction: of two clients with equal use the lighter pays, whichever was there first;
 * and in the long run what they keep is as their weights.
 */
static void the_lighter_client_pays(void **state)
{
	for (unsigned heavy = 0; heavy < 2; heavy++) {
		struct pair p = pair_open(0);
		uint64_t reclaimed, before;

		for (uint64_t i = 0; i < 2000; i++)
			for (unsigned k = 0; k < 2; k++)
				assert_int_equal(put(p.c[k], p.pool[k], i), 0);
		assert_int_equal(tmem_client_set_weight(p.c[heavy], 300), 0);
		before = pages(p.c[heavy]);
		assert_int_equal(tmem_host_shrink(p.host, 200, &reclaimed), 0);
		assert_true(reclaimed >= 150);
		assert_int_equal(pages(p.c[heavy]), before);
		assert_true(pages(p.c[!heavy]) < 2000 - 300);
		pair_close(&p);
	}
}

static void shares_follow_weights(void **state)
{
	struct pair p = pair_open(6u << 20);
	double ratio;

	assert_int_equal(tmem_client_set_weight(p.c[0], 100), 0);
	assert_int_equal(tmem_client_set_weight(p.c[1], 400), 0);
	/* The light one puts ten times as much. */
	for (uint64_t i = 0; i < 20000; i++) {
		(void)put(p.c[0], p.pool[0], i);
		if (i % 2 == 0)
			(void)put(p.c[1], p.pool[1], i);
	}
	ratio = (double)used(p.c[1]) / (double)used(p.c[0]);
	if (ratio < 2.5 || ratio > 6)
		fail_msg("use of heavy over light: %.2f, weights 4", ratio);
	pair_close(&p);
}

static void weights_are_judged(void **state)
{
	struct pair p = pair_open(0);
	tmem_client_stats s = {.size = sizeof(s)};

	assert_int_equal(tmem_client_set_weight(p.c[0], 7), 0);
	assert_int_equal(tmem_client_set_weight(p.c[0], 0), -EINVAL);
	assert_int_equal(tmem_client_set_weight(p.c[0], TMEM_WEIGHT_MAX + 1), -EINVAL);
	assert_int_equal(tmem_client_stats_get(p.c[0], &s), 0);
	assert_int_equal(s.weight, 7);
	pair_close(&p);
}

/* Many threads against one limit: never above it, and the account ends where it began. */
struct crowd {
	tmem_client *c;
	tmem_pool pool;
	uint64_t limit;
	_Atomic unsigned number;
};

static void *push(void *arg)
{
	struct crowd *k = arg;
	uint64_t base = (uint64_t)atomic_fetch_add(&k->number, 1) << 20;

	for (uint64_t i = 0; i < 3000; i++) {
		(void)put(k->c, k->pool, base + i % 500);
		assert_true(zc_client_used(k->c) <= k->limit);
	}
	return NULL;
}

static void threads_at_a_limit(void **state)
{
	struct test_host t = test_open(NULL);
	struct crowd k = {.c = t.client, .pool = t.pool};
	uint64_t empty = used(t.client);
	os_thread th[4];

	k.limit = empty + (1u << 20);
	assert_int_equal(tmem_client_set_limit(t.client, k.limit), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(os_thread_create(&th[i], "push", push, &k), 0);
	for (unsigned i = 0; i < 4; i++)
		os_thread_join(th[i]);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_true(used(t.client) > k.limit - (256u << 10));
	assert_true(tmem_pool_flush(t.client, t.pool) > 0);
	/* But for tables of the index that stay with the pool. */
	assert_in_range(used(t.client), empty, empty + 16384);
	test_close(&t);
}

/* There is no least or greatest number of clients. */
static void a_thousand_clients(void **state)
{
	static tmem_client *c[1000];
	struct test_host t = test_open(NULL);

	for (unsigned i = 0; i < 1000; i++) {
		tmem_pool pool;

		assert_int_equal(tmem_client_create(t.host, "one of many", &c[i]), 0);
		pool = tmem_pool_create(c[i], TMEM_POOL_PERSIST, 1);
		assert_true(pool >= 0);
		assert_int_equal(put(c[i], pool, i), 0);
	}
	assert_int_equal(test_stats(t.host).clients, 1001);
	assert_int_equal(test_stats(t.host).puts_ok, 1000);
	for (unsigned i = 0; i < 1000; i += 2)
		tmem_client_destroy(c[i]);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_int_equal(test_stats(t.host).pages, 500);
	for (unsigned i = 1; i < 1000; i += 2)
		tmem_client_destroy(c[i]);
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_limit_is_the_clients_own),
		cmocka_unit_test(under_a_limit_credit_is_told),
		cmocka_unit_test(a_client_at_its_limit_pays_with_its_own),
		cmocka_unit_test(the_lighter_client_pays),
		cmocka_unit_test(shares_follow_weights),
		cmocka_unit_test(weights_are_judged),
		cmocka_unit_test(threads_at_a_limit),
		cmocka_unit_test(a_thousand_clients),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
