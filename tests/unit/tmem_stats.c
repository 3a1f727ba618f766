/* SPDX-License-Identifier: BSD-2-Clause */
/* Statistics: by name, by client and pool; identities; distributions; the manual. */
#include "tmem_test.h"

#include "os/clock.h"
#include "os/file.h"
#include "os/mem.h"
#include "os/thread.h"
#include "zcache/zcache.h"

#define MANY 200

static uint64_t value(const tmem_stat *s, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (strcmp(s[i].name, name) == 0)
			return s[i].value;
	fail_msg("no statistic %s", name);
	return 0;
}

static uint64_t host_value(struct test_host *t, const char *name)
{
	tmem_stat s[MANY];
	int n = tmem_host_stat_list(t->host, s, MANY);

	assert_in_range(n, 40, MANY);
	return value(s, n, name);
}

static uint64_t client_value(tmem_client *c, const char *name)
{
	tmem_stat s[MANY];

	return value(s, tmem_client_stat_list(c, s, MANY), name);
}

static uint64_t pool_value(tmem_client *c, tmem_pool pool, const char *name)
{
	tmem_stat s[MANY];

	return value(s, tmem_pool_stat_list(c, pool, s, MANY), name);
}

static void put_n(tmem_client *c, tmem_pool pool, uint64_t from, uint64_t n)
{
	struct test_page page;
	tmem_oid oid = test_oid(1);

	for (uint64_t i = from; i < from + n; i++) {
		test_fill(&page, i, 100);
		assert_int_equal(tmem_put(c, pool, &oid, i, &page), 0);
	}
}

static struct test_host racing;
static _Atomic bool raced;

static void *evict(void *unused)
{
	while (!atomic_load(&raced))
		(void)tmem_host_shrink(racing.host, 4, NULL);
	return unused;
}

/*
 * A pool of which others still take pages ends, and another one gets its place: what was
 * taken from the first is not told of the second.
 */
static void a_pool_begins_with_nothing(void **state)
{
	os_thread th[2];

	(void)state;
	racing = test_open(NULL);
	atomic_store(&raced, false);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(os_thread_create(&th[i], "evict", evict, NULL), 0);
	for (unsigned i = 0; i < 2000; i++) {
		tmem_pool p = tmem_pool_create(racing.client, 0, 1);
		tmem_pool_stats s = {.size = sizeof(s)};

		assert_true(p >= 0);
		put_n(racing.client, p, 0, 16);
		assert_int_equal(tmem_pool_destroy(racing.client, p), 0);
		p = tmem_pool_create(racing.client, TMEM_POOL_PERSIST, 1);
		assert_true(p >= 0);
		os_sleep_ns(20000); /* what was under way ends */
		assert_int_equal(tmem_pool_stats_get(racing.client, p, &s), 0);
		assert_int_equal(s.evicted_pages, 0);
		assert_int_equal(tmem_pool_destroy(racing.client, p), 0);
	}
	atomic_store(&raced, true);
	for (unsigned i = 0; i < 2; i++)
		os_thread_join(th[i]);
	test_close(&racing);
}

static void names_are_listed_once(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_stat s[MANY], few[3];
	int n = tmem_host_stat_list(t.host, s, MANY);

	for (int i = 0; i < n; i++) {
		assert_true(s[i].name[0] && s[i].unit[0] && s[i].meaning[0]);
		for (int k = 0; k < i; k++)
			assert_string_not_equal(s[i].name, s[k].name);
	}
	assert_int_equal(tmem_host_stat_list(t.host, NULL, 0), n);
	assert_int_equal(tmem_host_stat_list(t.host, few, 3), n);
	assert_string_equal(few[2].name, s[2].name);
	assert_in_range(tmem_client_stat_list(t.client, NULL, 0), 30, n - 5);
	assert_int_equal(tmem_pool_stat_list(t.client, t.pool + 1, NULL, 0), -ENOENT);
	test_close(&t);
}

/* Two clients, three pools: each sees its own, the host the sum. */
static void each_sees_its_own(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_client_stats cs = {.size = sizeof(cs)};
	tmem_pool_stats ps = {.size = sizeof(ps)};
	tmem_pool p2, q;
	tmem_client *other;
	struct test_page page;
	tmem_oid oid = test_oid(1);

	assert_int_equal(tmem_client_create(t.host, "other", &other), 0);
	p2 = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 4);
	q = tmem_pool_create(other, TMEM_POOL_PERSIST, 4);
	put_n(t.client, t.pool, 0, 100);
	put_n(t.client, p2, 0, 30);
	put_n(other, q, 0, 7);
	assert_int_equal(tmem_get(other, q, &oid, 3, &page), 0);
	assert_int_equal(tmem_get(other, q, &oid, 99, &page), 1);
	memset(&page, 0, sizeof(page));
	assert_int_equal(tmem_put(t.client, p2, &oid, 500, &page), 0);

	assert_int_equal(pool_value(t.client, t.pool, "puts_ok"), 100);
	assert_int_equal(pool_value(t.client, p2, "puts_ok"), 31);
	assert_int_equal(pool_value(t.client, p2, "same_filled_pages"), 1);
	assert_int_equal(pool_value(other, q, "gets_found"), 1);
	assert_int_equal(client_value(t.client, "puts_ok"), 131);
	assert_int_equal(client_value(t.client, "gets"), 0);
	assert_int_equal(client_value(t.client, "pages"), 131);
	assert_int_equal(client_value(t.client, "zpages"), 130);
	assert_int_equal(client_value(other, "gets_missed"), 1);
	assert_int_equal(client_value(other, "zpages"), 7);
	assert_int_equal(host_value(&t, "puts_ok"), 138);
	assert_int_equal(host_value(&t, "zpages"), 137);
	assert_int_equal(host_value(&t, "objects"), 3);
	assert_int_equal(client_value(t.client, "compressed_bytes") +
				 client_value(other, "compressed_bytes"),
			 host_value(&t, "compressed_bytes"));
	assert_int_equal(client_value(t.client, "store_bytes") + client_value(other, "store_bytes"),
			 host_value(&t, "client_bytes"));
	assert_int_equal(client_value(t.client, "index_bytes") + client_value(other, "index_bytes"),
			 host_value(&t, "index_bytes"));

	assert_int_equal(tmem_client_stats_get(other, &cs), 0);
	assert_string_equal(cs.name, "other");
	assert_int_equal(cs.puts_ok, 7);
	assert_int_equal(cs.pools, 1);
	assert_int_equal(cs.weight, 100);
	assert_int_equal(tmem_pool_stats_get(other, q, &ps), 0);
	assert_int_equal(ps.pages, 7);
	assert_int_equal(ps.objects, 1);
	ps.size = 3;
	assert_int_equal(tmem_pool_stats_get(other, q, &ps), -EINVAL);

	/* What has gone stays counted. */
	assert_int_equal(tmem_pool_destroy(t.client, p2), 0);
	assert_int_equal(client_value(t.client, "puts_ok"), 131);
	assert_int_equal(client_value(t.client, "zpages"), 100);
	tmem_client_destroy(other);
	assert_int_equal(host_value(&t, "puts_ok"), 138);
	assert_int_equal(host_value(&t, "gets_missed"), 1);
	assert_int_equal(host_value(&t, "zpages"), 100);
	test_close(&t);
}

static void *one_thread(void *arg)
{
	struct test_host *t = arg;

	put_n(t->client, t->pool, (uint64_t)os_thread_number() * 1000, 50);
	return NULL;
}

/* Threads that end hand on what they counted; what they put in, others take out. */
static void threads_come_and_go(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_oid oid = test_oid(1);
	os_thread th[4];

	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < 4; i++)
			assert_int_equal(os_thread_create(&th[i], "stat", one_thread, &t), 0);
		for (unsigned i = 0; i < 4; i++)
			os_thread_join(th[i]);
		assert_int_equal(pool_value(t.client, t.pool, "puts_ok"), (round + 1) * 200);
		assert_int_equal(tmem_host_verify(t.host, 1), 0);
		assert_true(tmem_invalidate_object(t.client, t.pool, &oid) > 0);
		assert_int_equal(pool_value(t.client, t.pool, "pages"), 0);
		assert_int_equal(client_value(t.client, "zpages"), 0);
	}
	test_close(&t);
}

/* Each identity notices a number that is off by one. */
static void identities_are_checked(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_stats s, bad;
	char err[200];

	put_n(t.client, t.pool, 0, 100);
	s = test_stats(t.host);
	assert_int_equal(tmem_stats_verify(&s, err, sizeof(err)), 0);
#define OFF(field, by, name)                                                                       \
	do {                                                                                       \
		bad = s;                                                                           \
		bad.field += (uint64_t)(by);                                                       \
		assert_int_equal(tmem_stats_verify(&bad, err, sizeof(err)), -EINVAL);              \
		assert_non_null(strstr(err, name ":"));                                            \
	} while (0)
	OFF(puts, 1, "S1");
	OFF(puts_quota, 1, "S1");
	OFF(gets_missed, 1, "S2");
	OFF(meta_bytes, -1, "S3");
	OFF(own_bytes, 1, "S4");
	OFF(evicted_pages, 1, "S5");
	OFF(same_filled_pages, 101, "S6");
	OFF(zpage_bytes, -1, "S7");
	OFF(zpage_bytes, 201, "S8");
	OFF(store_peak_bytes, -(int64_t)s.store_peak_bytes, "S12");
	OFF(objects_max, -(int64_t)s.objects_max, "S13");
	OFF(nodes_max, -(int64_t)s.nodes_max, "S14");
	OFF(zpages_made, -1, "S15");
	OFF(invalidates_found, 1, "S16");
	OFF(pages, 1, "S17");
	bad = s;
	bad.size = 8;
	assert_int_equal(tmem_stats_verify(&bad, NULL, 0), -EINVAL);
	test_close(&t);
}

static void distributions(void **state)
{
	struct test_host t = test_open(NULL);
	struct test_page page;
	tmem_oid oid = test_oid(1);
	tmem_histogram hist;
	unsigned filled = 0;

	for (uint64_t i = 0; i < 640; i++) {
		test_fill(&page, i, (unsigned)i % 400);
		assert_int_equal(tmem_put(t.client, t.pool, &oid, i, &page), 0);
	}
	assert_int_equal(tmem_host_histogram(t.host, NULL, TMEM_PUT_NS, &hist), 0);
	assert_int_equal(hist.total, 10);
	assert_int_equal(tmem_host_histogram(t.host, NULL, TMEM_ZSIZE_NOW, &hist), 0);
	assert_int_equal(hist.total, host_value(&t, "zpages"));
	for (unsigned i = 0; i < hist.buckets; i++)
		filled += hist.count[i] != 0;
	assert_true(filled > 20);
	assert_int_equal(hist.most[0], 64);
	assert_int_equal(tmem_invalidate_range(t.client, t.pool, &oid, 0, 40), 40);
	assert_int_equal(tmem_host_histogram(t.host, t.client, TMEM_ZSIZE_NOW, &hist), 0);
	assert_int_equal(hist.total, 600);
	assert_int_equal(tmem_host_histogram(t.host, t.client, TMEM_ZSIZE_EVER, &hist), 0);
	assert_int_equal(hist.total, 640);
	assert_int_equal(tmem_host_histogram(t.host, t.client, TMEM_GET_NS, &hist), -EINVAL);
	assert_int_equal(tmem_host_histogram(t.host, NULL, (tmem_histogram_kind)9, &hist), -EINVAL);
	test_close(&t);
}

/* One row for each statistic, with its unit and kind. */
static void the_manual_names_each(void **state)
{
	char *text = os_file_slurp(TMEM_DOCS "/statistics.md", 1 << 20, NULL);
	struct test_host t = test_open(NULL);
	tmem_stat s[MANY];
	int n[2] = {tmem_host_stat_list(t.host, s, MANY), 0};

	assert_non_null(text);
	n[1] = n[0] + tmem_client_stat_list(t.client, s + n[0], MANY - (unsigned)n[0]);
	for (int i = 0; i < n[1]; i++) {
		char row[160];

		snprintf(row, sizeof(row), "\n| `%s` | %s | %s |", s[i].name, s[i].unit, s[i].kind);
		if (!strstr(text, row))
			fail_msg("docs/statistics.md has no row \"%s ...\"", row + 1);
	}
	for (unsigned i = 1; i <= 18; i++) {
		char row[20];

		snprintf(row, sizeof(row), "\n| S%u |", i);
		assert_non_null(strstr(text, row));
	}
	os_free(text);
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_listed_once),      cmocka_unit_test(each_sees_its_own),
		cmocka_unit_test(a_pool_begins_with_nothing), cmocka_unit_test(threads_come_and_go),
		cmocka_unit_test(identities_are_checked),     cmocka_unit_test(distributions),
		cmocka_unit_test(the_manual_names_each),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
