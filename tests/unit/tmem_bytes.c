/* SPDX-License-Identifier: BSD-2-Clause */
/* Precompressed pools: bytes in, the same bytes out, whatever they are. */
#include "tmem_test.h"

#include <unistd.h>

static void bytes_of(char *to, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++)
		to[i] = (char)(seed & 1 ? 0 : test_mix(seed << 16 | i)); /* odd: all zero */
}

static void put_get(struct test_host *t, tmem_pool pool, uint64_t from, uint64_t to)
{
	tmem_oid oid = test_oid(1);
	char in[4096], out[4096 + 8];

	for (uint64_t i = from; i < to; i++) {
		size_t n = i % 4096 + 1, got = 0;

		bytes_of(in, n, i);
		assert_int_equal(tmem_put_bytes(t->client, pool, &oid, i, in, n), 0);
		memset(out, 0x5a, sizeof(out));
		assert_int_equal(tmem_get_bytes(t->client, pool, &oid, i, out, &got), 0);
		assert_int_equal(got, n);
		assert_memory_equal(in, out, n);
		assert_int_equal(out[n], 0x5a);
	}
}

static void check(struct test_host *t, tmem_pool pool, uint64_t from, uint64_t to)
{
	tmem_oid oid = test_oid(1);
	char in[4096], out[4096];
	size_t got;

	for (uint64_t i = from; i < to; i++) {
		bytes_of(in, i % 4096 + 1, i);
		assert_int_equal(tmem_get_bytes(t->client, pool, &oid, i, out, &got), 0);
		assert_int_equal(got, i % 4096 + 1);
		assert_memory_equal(in, out, got);
	}
}

static void every_size(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_pool p = tmem_pool_create(t.client, TMEM_POOL_PERSIST | TMEM_POOL_PRECOMPRESSED, 0), c;
	tmem_recompress_result r = {.size = sizeof(r)};
	tmem_oid oid = test_oid(1);
	char buf[4096];
	size_t got;

	(void)state;
	assert_true(p >= 0);
	put_get(&t, p, 0, 4096);
	assert_int_equal(test_stats(t.host).same_filled_pages, 0); /* bytes are not looked into */
	assert_int_equal(test_stats(t.host).compressed_bytes, 4096 * 4097 / 2);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	/* Nobody packs them again, nobody learns from them. */
	assert_int_equal(tmem_host_recompress(t.host, NULL, &r), 0);
	assert_int_equal(r.tried, 0);
	assert_int_equal(tmem_pool_train(t.client, p, 0, NULL), -ENODATA);
	c = tmem_pool_clone(t.client, p);
	assert_true(c >= 0);
	assert_int_equal(tmem_invalidate_range(t.client, p, &oid, 0, 4000), 4000);
	(void)tmem_host_compact(t.host, 64u << 20);
	check(&t, c, 0, 4096);
	assert_int_equal(tmem_get_bytes(t.client, p, &oid, 5, buf, &got), 1);
	assert_int_equal(tmem_invalidate_page(t.client, p, &oid, 4001), 1);
	assert_int_equal(tmem_get_bytes(t.client, p, &oid, 4001, buf, &got), 1);
	test_close(&t);
}

static void wrong_pool(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_pool p = tmem_pool_create(t.client, TMEM_POOL_PERSIST | TMEM_POOL_PRECOMPRESSED, 0);
	static char buf[16 * 4096];
	tmem_oid oid = test_oid(1);
	uint64_t first;
	uint32_t mask;
	size_t got = 77;

	(void)state;
	assert_int_equal(tmem_put_bytes(t.client, p, &oid, 0, buf, 0), -EINVAL);
	assert_int_equal(tmem_put_bytes(t.client, p, &oid, 0, buf, 4097), -EINVAL);
	assert_int_equal(tmem_put_bytes(t.client, t.pool, &oid, 0, buf, 5), -EINVAL);
	assert_int_equal(tmem_put_bytes(t.client, 999, &oid, 0, buf, 5), -ENOENT);
	assert_int_equal(tmem_put(t.client, p, &oid, 0, buf), -EINVAL);
	assert_int_equal(tmem_put_cluster(t.client, p, &oid, 0, 2, buf), -EINVAL);
	assert_int_equal(tmem_put_bytes(t.client, p, &oid, 0, buf, 5), 0);
	assert_int_equal(tmem_get(t.client, p, &oid, 0, buf), -EINVAL);
	assert_int_equal(tmem_get_keep(t.client, p, &oid, 0, buf), -EINVAL);
	assert_int_equal(tmem_get_and_invalidate(t.client, p, &oid, 0, buf), -EINVAL);
	assert_int_equal(tmem_get_cluster(t.client, p, &oid, 0, 0, buf, &first, &mask), -EINVAL);
	assert_int_equal(tmem_get_bytes(t.client, t.pool, &oid, 0, buf, &got), -EINVAL);
	assert_int_equal(got, 77);
	assert_int_equal(tmem_get_bytes(t.client, p, &oid, 0, buf, &got), 0);
	assert_int_equal(got, 5);
	test_close(&t);
}

static void ephemeral_and_overflow(void **state)
{
	char path[] = "/tmp/tmem-bytes-XXXXXX";
	tmem_host_options o = TMEM_HOST_OPTIONS;
	int fd = mkstemp(path);
	struct test_host t;
	tmem_oid oid = test_oid(1);
	char buf[4096];
	tmem_pool e, p;
	size_t got;

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	o.limit_bytes = 8u << 20;
	o.overflow_path = path;
	t = test_open(&o);
	e = tmem_pool_create(t.client, TMEM_POOL_PRECOMPRESSED, 0);
	p = tmem_pool_create(t.client, TMEM_POOL_PERSIST | TMEM_POOL_PRECOMPRESSED, 0);
	assert_true(e >= 0 && p >= 0);
	bytes_of(buf, 100, 2);
	assert_int_equal(tmem_put_bytes(t.client, e, &oid, 7, buf, 100), 0);
	assert_int_equal(tmem_get_bytes(t.client, e, &oid, 7, buf, &got), 0);
	assert_int_equal(tmem_get_bytes(t.client, e, &oid, 7, buf, &got), 1); /* it was removed */
	for (uint64_t i = 0; i < 6000; i++) {
		bytes_of(buf, i % 4096 + 1, i);
		assert_int_equal(tmem_put_bytes(t.client, p, &oid, i, buf, i % 4096 + 1), 0);
	}
	assert_true(test_stats(t.host).overflow_pages > 100);
	check(&t, p, 0, 6000);
	test_close(&t);
	(void)unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_size),
		cmocka_unit_test(wrong_pool),
		cmocka_unit_test(ephemeral_and_overflow),
	};

	return cmocka_run_group_tests_name("tmem_bytes", tests, NULL, NULL);
}
