/* SPDX-License-Identifier: BSD-2-Clause */
/* Clusters: pages that live together, leave one by one, and move together. */
#include "tmem_test.h"

#define N TMEM_CLUSTER_MAX

static struct test_page in[N], out[N];

static void fill_group(uint64_t seed, unsigned n, unsigned noise)
{
	for (unsigned i = 0; i < n; i++)
		test_fill(&in[i], seed + i, noise);
}

static void put_and_get_whole(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_oid oid = test_oid(1);
	uint64_t first;
	uint32_t mask;

	for (unsigned n = 1; n <= N; n++) {
		uint64_t at = 64 * n + n;

		fill_group(1000 * n, n, 120);
		assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, at, n, in), 0);
		for (unsigned i = 0; i < n; i++) {
			assert_int_equal(tmem_get_cluster(t.client, t.pool, &oid, at + i, 0, out,
							  &first, &mask),
					 0);
			assert_int_equal(first, at);
			assert_int_equal(mask, (1u << n) - 1);
			assert_memory_equal(in, out, n * sizeof(in[0]));
			assert_int_equal(tmem_get(t.client, t.pool, &oid, at + i, out), 0);
			assert_memory_equal(&in[i], out, sizeof(in[0]));
		}
	}
	assert_int_equal(test_stats(t.host).zpages, N);
	test_close(&t);
}

static void members_leave_one_by_one(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_oid oid = test_oid(2);
	uint64_t first;
	uint32_t mask;

	fill_group(1, 8, 100);
	assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, 8, 8, in), 0);
	assert_int_equal(tmem_invalidate_page(t.client, t.pool, &oid, 8), 1);
	assert_int_equal(tmem_invalidate_range(t.client, t.pool, &oid, 10, 2), 2);
	/* Put again alone: it leaves the cluster. */
	test_fill(&in[7], 99, 100);
	assert_int_equal(tmem_put(t.client, t.pool, &oid, 15, &in[7]), 0);
	assert_int_equal(test_stats(t.host).zpages, 2);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_int_equal(tmem_get_cluster(t.client, t.pool, &oid, 12, 0, out, &first, &mask), 0);
	assert_int_equal(first, 8);
	assert_int_equal(mask, 0x72);
	assert_int_equal(tmem_get_cluster(t.client, t.pool, &oid, 15, 0, out, &first, &mask), 0);
	assert_int_equal(first, 15);
	assert_int_equal(mask, 1);
	assert_memory_equal(&in[7], out, sizeof(in[0]));
	/* The rest goes together. */
	assert_int_equal(tmem_get_cluster(t.client, t.pool, &oid, 9, 1, out, &first, &mask), 0);
	assert_int_equal(mask, 0x72);
	for (unsigned i = 0; i < 8; i++)
		if (mask >> i & 1)
			assert_memory_equal(&in[i], &out[i], sizeof(in[0]));
	assert_int_equal(tmem_pool_pages(t.client, t.pool), 1);
	assert_int_equal(test_stats(t.host).zpages, 1);
	test_close(&t);
}

static void same_filled_members(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_oid oid = test_oid(3);
	uint64_t first;
	uint32_t mask;

	fill_group(1, 6, 100);
	memset(&in[0], 0, sizeof(in[0]));
	memset(&in[3], 7, sizeof(in[0]));
	memset(&in[5], 0, sizeof(in[0]));
	assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, 0, 6, in), 0);
	assert_int_equal(test_stats(t.host).same_filled_pages, 3);
	assert_int_equal(test_stats(t.host).zpages, 1);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(tmem_get(t.client, t.pool, &oid, i, out), 0);
		assert_memory_equal(&in[i], out, sizeof(in[0]));
	}
	/* Those in the middle come along, with what they hold now. */
	memset(&in[3], 9, sizeof(in[0]));
	assert_int_equal(tmem_put(t.client, t.pool, &oid, 3, &in[3]), 0);
	assert_int_equal(tmem_get_cluster(t.client, t.pool, &oid, 2, 1, out, &first, &mask), 0);
	assert_int_equal(first, 1);
	assert_int_equal(mask, 0xf);
	assert_memory_equal(&in[1], out, 4 * sizeof(in[0]));
	assert_int_equal(tmem_pool_pages(t.client, t.pool), 2);
	/* All alike: no zpage. */
	memset(in, 0x11, sizeof(in));
	assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, 0, N, in), 0);
	assert_int_equal(test_stats(t.host).zpages, 0);
	test_close(&t);
}

static void bad_arguments(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_oid oid = test_oid(4);
	uint64_t first;
	uint32_t mask;

	assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, 0, 0, in), -EINVAL);
	assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, 0, N + 1, in), -EINVAL);
	assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, 50, 15, in), -EINVAL);
	assert_int_equal(tmem_put_cluster(t.client, 999, &oid, 0, 4, in), -ENOENT);
	assert_int_equal(tmem_get_cluster(t.client, t.pool, &oid, 0, 0, out, &first, &mask), 1);
	assert_int_equal(tmem_get_cluster(t.client, 999, &oid, 0, 0, out, &first, &mask), -ENOENT);
	test_close(&t);
}

static void poor_clusters(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct test_host t = test_open(NULL);
	tmem_oid oid = test_oid(5);

	fill_group(1, N, 512);
	test_fill(&out[0], 1, 9);
	assert_int_equal(tmem_put(t.client, t.pool, &oid, 3, &out[0]), 0);
	assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, 0, N, in), -E2BIG);
	assert_int_equal(tmem_pool_pages(t.client, t.pool), 0);
	test_close(&t);

	/* Raw: each for itself, also the largest, and the same with the codec "none". */
	for (unsigned k = 0; k < 2; k++) {
		o.store_raw = k == 0;
		o.codec = k ? "none" : "lz4";
		t = test_open(&o);
		assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, 0, N, in), 0);
		assert_int_equal(test_stats(t.host).zpages, N);
		for (unsigned i = 0; i < N; i++) {
			assert_int_equal(tmem_get(t.client, t.pool, &oid, i, out), 0);
			assert_memory_equal(&in[i], out, sizeof(in[0]));
		}
		test_close(&t);
	}
}

/* Holes everywhere, then compaction: all is still there and frames came back. */
static void compaction_moves_clusters(void **state)
{
	struct test_host t = test_open(NULL);
	uint64_t before;

	for (uint64_t g = 0; g < 600; g++) {
		tmem_oid oid = test_oid(g % 3);
		unsigned n = 2 + g % 7;

		fill_group(g * 100, n, 40 + g % 200);
		assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, g * 16, n, in), 0);
		test_fill(&in[0], g, 150);
		assert_int_equal(tmem_put(t.client, t.pool, &oid, g * 16 + 12, &in[0]), 0);
	}
	for (uint64_t g = 0; g < 600; g++) {
		tmem_oid oid = test_oid(g % 3);

		if (g % 4)
			assert_true(tmem_invalidate_range(t.client, t.pool, &oid, g * 16, 16) > 0);
	}
	before = test_stats(t.host).frame_bytes;
	assert_true(tmem_host_compact(t.host, UINT64_MAX / 2) > 0);
	assert_true(test_stats(t.host).frame_bytes < before);
	assert_true(test_stats(t.host).moved_zpages > 0);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	for (uint64_t g = 0; g < 600; g += 4) {
		tmem_oid oid = test_oid(g % 3);
		unsigned n = 2 + g % 7;

		for (unsigned i = 0; i < n; i++) {
			assert_int_equal(tmem_get(t.client, t.pool, &oid, g * 16 + i, out), 0);
			test_check(out, g * 100 + i, 40 + g % 200);
		}
	}
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(put_and_get_whole),   cmocka_unit_test(members_leave_one_by_one),
		cmocka_unit_test(same_filled_members), cmocka_unit_test(bad_arguments),
		cmocka_unit_test(poor_clusters),       cmocka_unit_test(compaction_moves_clusters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
