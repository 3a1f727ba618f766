/* SPDX-License-Identifier: BSD-2-Clause */
/* tmem.h, one page at a time: what each call promises, and what it refuses. */
#include "tmem_test.h"

#include "os/log.h"
#include "zcache/zcache.h"

static void put_get_replace_invalidate(void **state)
{
	struct test_host t = test_open(NULL);
	struct test_page page, back;
	tmem_oid oid = test_oid(1);

	for (uint64_t i = 0; i < 1000; i++) {
		test_fill(&page, i, 100);
		assert_int_equal(tmem_put(t.client, t.pool, &oid, i * 37, &page), 0);
	}
	assert_int_equal(tmem_pool_pages(t.client, t.pool), 1000);
	for (uint64_t i = 0; i < 1000; i++) {
		assert_int_equal(tmem_get(t.client, t.pool, &oid, i * 37, &back), 0);
		test_check(&back, i, 100);
	}
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 1, &back), 1);
	for (uint64_t i = 0; i < 1000; i++) {
		test_fill(&page, i + 5000, 250);
		assert_int_equal(tmem_put(t.client, t.pool, &oid, i * 37, &page), 0);
	}
	for (uint64_t i = 0; i < 1000; i += 2) {
		assert_int_equal(tmem_get_and_invalidate(t.client, t.pool, &oid, i * 37, &back), 0);
		test_check(&back, i + 5000, 250);
		assert_int_equal(tmem_get_and_invalidate(t.client, t.pool, &oid, i * 37, &back), 1);
	}
	for (uint64_t i = 1; i < 1000; i += 2) {
		assert_int_equal(tmem_invalidate_page(t.client, t.pool, &oid, i * 37), 1);
		assert_int_equal(tmem_invalidate_page(t.client, t.pool, &oid, i * 37), 0);
	}
	assert_int_equal(test_stats(t.host).puts_replaced, 1000);
	assert_int_equal(test_stats(t.host).zpages, 0);
	test_close(&t);
}

static void same_filled_pages_cost_no_page(void **state)
{
	struct test_host t = test_open(NULL);
	struct test_page page, back;
	tmem_oid oid = test_oid(2);

	for (uint64_t i = 0; i < 128; i++) {
		for (unsigned w = 0; w < 512; w++)
			page.word[w] = i % 3 ? i * 0x0101010101010101u : 0;
		assert_int_equal(tmem_put(t.client, t.pool, &oid, i, &page), 0);
	}
	assert_int_equal(test_stats(t.host).same_filled_pages, 128);
	assert_int_equal(test_stats(t.host).zpages, 0);
	for (uint64_t i = 0; i < 128; i++) {
		assert_int_equal(tmem_get(t.client, t.pool, &oid, i, &back), 0);
		assert_true(back.word[0] == (i % 3 ? i * 0x0101010101010101u : 0));
		assert_true(back.word[511] == back.word[0]);
	}
	assert_int_equal(tmem_get_and_invalidate(t.client, t.pool, &oid, 0, &back), 0);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 0, &back), 1);
	test_close(&t);
}

static void a_failed_put_leaves_nothing(void **state)
{
	struct test_host t = test_open(NULL);
	struct test_page page, noise, back;
	tmem_oid oid = test_oid(3);

	test_fill(&page, 1, 10);
	test_fill(&noise, 2, 512);
	assert_int_equal(tmem_put(t.client, t.pool, &oid, 5, &page), 0);
	assert_int_equal(tmem_put(t.client, t.pool, &oid, 5, &noise), -E2BIG);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 5, &back), 1);

	assert_int_equal(tmem_put(t.client, t.pool, &oid, 5, &page), 0);
	tmem_host_freeze(t.host, 1);
	assert_int_equal(tmem_put(t.client, t.pool, &oid, 5, &page), -EAGAIN);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 5, &back), 1);
	tmem_host_freeze(t.host, 0);
	assert_int_equal(tmem_put(t.client, t.pool, &oid, 5, &page), 0);
	assert_int_equal(test_stats(t.host).puts_poor, 1);
	assert_int_equal(test_stats(t.host).puts_frozen, 1);
	test_close(&t);
}

static void poor_pages_are_kept_raw_on_request(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct test_page page, back;
	struct test_host t;
	tmem_oid oid = test_oid(4);

	o.store_raw = 1;
	t = test_open(&o);
	for (uint64_t i = 0; i < 50; i++) {
		test_fill(&page, i, 512);
		assert_int_equal(tmem_put(t.client, t.pool, &oid, i, &page), 0);
	}
	for (uint64_t i = 0; i < 50; i++) {
		assert_int_equal(tmem_get(t.client, t.pool, &oid, i, &back), 0);
		test_check(&back, i, 512);
	}
	assert_int_equal(test_stats(t.host).puts_raw, 50);
	test_close(&t);
}

static void ranges_objects_and_pools_are_emptied(void **state)
{
	struct test_host t = test_open(NULL);
	struct test_page page, back;

	for (uint64_t o = 0; o < 10; o++)
		for (uint64_t i = 0; i < 200; i++) {
			tmem_oid oid = test_oid(o);

			test_fill(&page, o << 20 | i, 20);
			assert_int_equal(tmem_put(t.client, t.pool, &oid, i, &page), 0);
		}
	tmem_oid oid = test_oid(4);
	assert_int_equal(tmem_invalidate_range(t.client, t.pool, &oid, 10, 100), 100);
	assert_int_equal(tmem_invalidate_range(t.client, t.pool, &oid, 0, 0), 0);
	assert_int_equal(tmem_invalidate_range(t.client, t.pool, &oid, 150, UINT64_MAX), 50);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 9, &back), 0);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 10, &back), 1);
	assert_int_equal(tmem_invalidate_object(t.client, t.pool, &oid), 50);
	assert_int_equal(tmem_invalidate_object(t.client, t.pool, &oid), 0);
	assert_int_equal(tmem_pool_flush(t.client, t.pool), 1800);
	assert_int_equal(tmem_pool_pages(t.client, t.pool), 0);
	assert_int_equal(tmem_put(t.client, t.pool, &oid, UINT64_MAX, &page), 0);
	assert_int_equal(tmem_invalidate_range(t.client, t.pool, &oid, UINT64_MAX, 1), 1);
	test_close(&t);
}

static void pool_ids_do_not_come_back(void **state)
{
	struct test_host t = test_open(NULL);
	struct test_page page, back;
	tmem_pool first, second;
	tmem_client *other;
	tmem_oid oid = test_oid(5);

	test_fill(&page, 1, 10);
	first = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 4);
	assert_int_equal(tmem_put(t.client, first, &oid, 0, &page), 0);
	assert_int_equal(tmem_pool_destroy(t.client, first), 0);
	assert_int_equal(tmem_pool_destroy(t.client, first), -ENOENT);
	second = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 4);
	assert_true(second >= 0 && second != first);
	assert_int_equal(tmem_get(t.client, first, &oid, 0, &back), -ENOENT);
	assert_int_equal(tmem_put(t.client, first, &oid, 0, &page), -ENOENT);
	assert_int_equal(tmem_get(t.client, second, &oid, 0, &back), 1);
	/* Another client's pools cannot be named: same numbers, other pools. */
	assert_int_equal(tmem_client_create(t.host, NULL, &other), 0);
	assert_int_equal(tmem_get(other, second, &oid, 0, &back), -ENOENT);
	assert_int_equal(tmem_pool_create(t.client, 8, 0), -EINVAL);
	assert_int_equal(tmem_pool_create(t.client, 0, 3), -EINVAL);
	assert_int_equal(tmem_get(t.client, -1, &oid, 0, &back), -ENOENT);
	assert_int_equal(tmem_get(t.client, INT32_MAX, &oid, 0, &back), -ENOENT);
	tmem_client_destroy(other);
	test_close(&t);
}

static void options_are_judged(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	char err[200];
	tmem_host *h;

	o.codec = "lz5";
	assert_int_equal(tmem_host_create(&o, &h, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "lz4"));
	assert_null(h);
	o.codec = "zstd:77";
	assert_int_equal(tmem_host_create(&o, &h, NULL, 0), -EINVAL);
	o.codec = NULL;
	o.zpool = "slab";
	assert_int_equal(tmem_host_create(&o, &h, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "zsmalloc"));
	o.zpool = NULL;
	o.max_zsize = 5000;
	assert_int_equal(tmem_host_create(&o, &h, err, sizeof(err)), -EINVAL);
	o.max_zsize = 0;
	o.size = 3;
	assert_int_equal(tmem_host_create(&o, &h, err, sizeof(err)), -EINVAL);
	o.size = sizeof(o);
	o.limit_bytes = 4096;
	assert_int_equal(tmem_host_create(&o, &h, err, sizeof(err)), -ENOMEM);
	assert_true(err[0]);
	assert_null(h);
}

static void codecs_mix_in_one_pool(void **state)
{
	static const char *const codec[] = {"lz4", "zstd:-1", "zstd:3", "none"};
	struct test_host t = test_open(NULL);
	struct test_page page, back;
	tmem_oid oid = test_oid(6);

	for (uint64_t i = 0; i < 64; i++) {
		test_fill(&page, i, 60);
		assert_int_equal(tmem_host_set_codec(t.host, codec[i % 4]), 0);
		assert_int_equal(tmem_put(t.client, t.pool, &oid, i, &page), 0);
	}
	assert_int_equal(tmem_host_set_codec(t.host, "lz77"), -ENOENT);
	assert_int_equal(tmem_host_set_codec(t.host, "zstd:1000"), -ERANGE);
	for (uint64_t i = 0; i < 64; i++) {
		assert_int_equal(tmem_get(t.client, t.pool, &oid, i, &back), 0);
		test_check(&back, i, 60);
	}
	test_close(&t);
}

static unsigned complaints;
static void count_line(void *ctx, enum os_log_level level, const char *text)
{
	complaints++;
}

/* Flip one bit in what is stored: never wrong bytes, and the caller's page untouched. */
static void damage_is_found(void **state)
{
	struct test_host t = test_open(NULL);
	struct test_page page, back, untouched;
	struct index_cursor c;
	tmem_oid oid = test_oid(7);
	struct zc_slot *s = zc_pool_enter(t.client, t.pool);
	struct zpage *z;

	os_log_set_sink(count_line, NULL);
	test_fill(&page, 9, 200);
	memset(&untouched, 0x5a, sizeof(untouched));
	assert_int_equal(tmem_put(t.client, t.pool, &oid, 3, &page), 0);
	index_lock(s->pool, zc_oid(&oid), 3, &c);
	z = zpool_peek(t.host->zpool, zc_word_handle(c.words[3]));
	index_unlock(&c);
	for (unsigned bit = 0; bit < 8u * z->zsize; bit += 97) {
		uint8_t *b = (uint8_t *)zpage_bytes(z, z->info) + bit / 8;

		*b ^= (uint8_t)(1u << bit % 8);
		back = untouched;
		assert_int_equal(tmem_get(t.client, t.pool, &oid, 3, &back), -EIO);
		assert_memory_equal(&back, &untouched, sizeof(back));
		assert_int_equal(tmem_host_verify(t.host, 0), -EINVAL);
		*b ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(tmem_get(t.client, t.pool, &oid, 3, &back), 0);
	}
	assert_true(complaints > 0);
	((uint8_t *)zpage_bytes(z, z->info))[5] ^= 1;
	assert_int_equal(tmem_get_and_invalidate(t.client, t.pool, &oid, 3, &back), -EIO);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 3, &back), 1);
	os_log_set_sink(NULL, NULL);
	zc_pool_leave(s);
	test_close(&t);
}

/* A zpage with all the pins there can be is copied out under the lock. */
static void gets_beyond_the_pins(void **state)
{
	static struct test_page group[8], all[TMEM_CLUSTER_MAX];
	struct test_host t = test_open(NULL);
	struct zc_slot *s = zc_pool_enter(t.client, t.pool);
	struct test_page page, back;
	tmem_oid oid = test_oid(9);
	struct index_cursor c;
	zpool_handle h[2];
	uint64_t first;
	uint32_t mask;

	test_fill(&page, 3, 200);
	for (unsigned i = 0; i < 8; i++)
		test_fill(&group[i], 40 + i, 100);
	assert_int_equal(tmem_put(t.client, t.pool, &oid, 0, &page), 0);
	assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, 8, 8, group), 0);
	index_lock(s->pool, zc_oid(&oid), 0, &c);
	h[0] = zc_word_handle(c.words[0]);
	h[1] = zc_word_handle(c.words[8]);
	for (unsigned i = 0; i < 2 * ZPOOL_PINS_MAX; i++)
		assert_non_null(zpool_map(t.host->zpool, h[i % 2]));
	index_unlock(&c);
	assert_null(zpool_map(t.host->zpool, h[0]));
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 0, &back), 0);
	test_check(&back, 3, 200);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 10, &back), 0);
	test_check(&back, 42, 100);
	assert_int_equal(tmem_get_cluster(t.client, t.pool, &oid, 9, 1, all, &first, &mask), 0);
	assert_int_equal(mask, 0xff);
	assert_memory_equal(all, group, sizeof(group));
	assert_int_equal(tmem_get_and_invalidate(t.client, t.pool, &oid, 0, &back), 0);
	test_check(&back, 3, 200);
	for (unsigned i = 0; i < 2 * ZPOOL_PINS_MAX; i++)
		zpool_unmap(t.host->zpool, h[i % 2]);
	zc_pool_leave(s);
	test_close(&t);
}

static void two_hosts_do_not_meet(void **state)
{
	struct test_host a = test_open(NULL), b = test_open(NULL);
	struct test_page page, back;
	tmem_oid oid = test_oid(8);

	test_fill(&page, 1, 10);
	assert_int_equal(tmem_put(a.client, a.pool, &oid, 0, &page), 0);
	assert_int_equal(tmem_get(b.client, b.pool, &oid, 0, &back), 1);
	assert_int_equal(test_stats(b.host).pages, 0);
	test_close(&a);
	test_close(&b);
}

static void sizes_and_words(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_stats s = {.size = 7};

	assert_int_equal(tmem_host_stats(t.host, &s), -EINVAL);
	s.size = offsetof(tmem_stats, zpages);
	assert_int_equal(tmem_host_stats(t.host, &s), 0);
	assert_string_equal(tmem_strerror(-E2BIG), "the page compresses too poorly");
	assert_non_null(tmem_strerror(-12345));
	assert_true(strlen(tmem_version()) >= 5);
	tmem_host_destroy(NULL);
	tmem_client_destroy(NULL);
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(put_get_replace_invalidate),
		cmocka_unit_test(same_filled_pages_cost_no_page),
		cmocka_unit_test(a_failed_put_leaves_nothing),
		cmocka_unit_test(poor_pages_are_kept_raw_on_request),
		cmocka_unit_test(ranges_objects_and_pools_are_emptied),
		cmocka_unit_test(pool_ids_do_not_come_back),
		cmocka_unit_test(options_are_judged),
		cmocka_unit_test(codecs_mix_in_one_pool),
		cmocka_unit_test(damage_is_found),
		cmocka_unit_test(gets_beyond_the_pins),
		cmocka_unit_test(two_hosts_do_not_meet),
		cmocka_unit_test(sizes_and_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
