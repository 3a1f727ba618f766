/* SPDX-License-Identifier: BSD-2-Clause */
/* The hard limit, what a put does at it, gets beyond it, and the overflow file. */
#include "tmem_test.h"

#include "zcache/zcache.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct test_page page, back;
static char path[64];

static int put(struct test_host *t, uint64_t index, uint64_t seed)
{
	tmem_oid oid = test_oid(1);

	test_fill(&page, seed, 150);
	return tmem_put(t->client, t->pool, &oid, index, &page);
}

static void expect(struct test_host *t, uint64_t index, uint64_t seed)
{
	tmem_oid oid = test_oid(1);

	assert_int_equal(tmem_get(t->client, t->pool, &oid, index, &back), 0);
	test_check(&back, seed, 150);
}

static void never_above_the_limit(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	static bool kept[8000];
	struct test_host t;
	unsigned refused = 0;

	o.limit_bytes = 4u << 20;
	t = test_open(&o);
	for (uint64_t i = 0; i < 8000; i++) {
		int rc = put(&t, i, i);

		kept[i] = rc == 0;
		refused += rc != 0;
		assert_true(rc == 0 || rc == -ENOMEM);
		assert_true(test_stats(t.host).store_bytes <= o.limit_bytes);
	}
	assert_true(refused > 3000);
	assert_int_equal(test_stats(t.host).puts_nomem, refused);
	assert_true(test_stats(t.host).store_peak_bytes <= o.limit_bytes);
	assert_true(test_stats(t.host).store_peak_bytes > o.limit_bytes * 9 / 10);
	for (uint64_t i = 0; i < 8000; i++)
		if (kept[i])
			expect(&t, i, i);
	/* At the limit a page can still be replaced by one of its size. */
	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(put(&t, i, i), 0);
	test_close(&t);
}

static void a_lower_limit_refuses_until_there_is_room(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_oid oid = test_oid(1);

	for (uint64_t i = 0; i < 2000; i++)
		assert_int_equal(put(&t, i, i), 0);
	assert_int_equal(tmem_host_set_limit(t.host, 1u << 20), 0);
	assert_int_equal(put(&t, 5000, 1), -ENOMEM);
	/* The failed put emptied its handle, nothing else. */
	assert_int_equal(put(&t, 3, 1), -ENOMEM);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 3, &back), 1);
	expect(&t, 4, 4);
	assert_true(tmem_invalidate_range(t.client, t.pool, &oid, 100, 3000) > 0);
	assert_int_equal(put(&t, 3, 1), 0);
	assert_int_equal(tmem_host_set_limit(t.host, 0), 0);
	for (uint64_t i = 0; i < 2000; i++)
		assert_int_equal(put(&t, i + 7000, i), 0);
	test_close(&t);
}

/* A thread that never used the host gets pages when there is no byte left for its state (T8). */
static void *get_all(void *arg)
{
	struct test_host *t = arg;
	tmem_oid oid = test_oid(1);
	uint64_t first;
	uint32_t mask;
	static struct test_page all[TMEM_CLUSTER_MAX];

	for (uint64_t i = 0; i < 200; i++)
		expect(t, i, i);
	for (uint64_t i = 1024; i < 1024 + 8; i++) {
		assert_int_equal(tmem_get(t->client, t->pool, &oid, i, &back), 0);
		test_check(&back, i, 50);
	}
	assert_int_equal(tmem_get_cluster(t->client, t->pool, &oid, 1030, 1, all, &first, &mask),
			 0);
	assert_int_equal(mask, 0xff);
	test_check(&all[7], 1031, 50);
	assert_int_equal(tmem_invalidate_page(t->client, t->pool, &oid, 3), 1);
	return NULL;
}

static void gets_need_no_memory(void **state)
{
	static const char *const codec[] = {"lz4", "zstd:1"};

	for (unsigned k = 0; k < 2; k++) {
		static struct test_page group[8];
		tmem_host_options o = TMEM_HOST_OPTIONS;
		tmem_oid oid = test_oid(1);
		struct test_host t;
		os_thread th;

		o.codec = codec[k];
		t = test_open(&o);
		for (uint64_t i = 0; i < 200; i++)
			assert_int_equal(put(&t, i, i), 0);
		for (unsigned i = 0; i < 8; i++)
			test_fill(&group[i], 1024 + i, 50);
		assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, 1024, 8, group), 0);
		assert_int_equal(tmem_host_set_limit(t.host, 1), 0);
		assert_int_equal(os_thread_create(&th, "getter", get_all, &t), 0);
		os_thread_join(th);
		assert_int_equal(test_stats(t.host).gets_found, 200 + 8 + 8);
		test_close(&t);
	}
}

/* ---- the overflow file -------------------------------------------------------------- */

static struct test_host open_with_file(uint64_t limit)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	int fd;

	strcpy(path, "/tmp/tmem-overflow-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	o.limit_bytes = limit;
	o.overflow_path = path;
	return test_open(&o);
}

static void what_does_not_fit_goes_to_the_file(void **state)
{
	struct test_host t = open_with_file(4u << 20);
	struct test_page group[8], all[TMEM_CLUSTER_MAX];
	tmem_oid oid = test_oid(1);
	struct stat st;
	uint64_t first;
	uint32_t mask;

	/* This thread's buffers for clusters: the limit may refuse them later (T1). */
	for (unsigned i = 0; i < 8; i++)
		test_fill(&group[i], i, 50);
	assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, 9024, 8, group), 0);
	assert_int_equal(tmem_invalidate_range(t.client, t.pool, &oid, 9024, 8), 8);
	for (uint64_t i = 0; i < 8000; i++)
		assert_int_equal(put(&t, i, i), 0);
	assert_true(test_stats(t.host).overflow_pages > 3000);
	assert_true(test_stats(t.host).store_bytes <= 4u << 20);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	for (uint64_t i = 0; i < 8000; i++)
		expect(&t, i, i);
	assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, 9024, 8, group), 0);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 9027, &back), 0);
	test_check(&back, 3, 50);
	assert_int_equal(tmem_get_cluster(t.client, t.pool, &oid, 9027, 1, all, &first, &mask), 0);
	assert_int_equal(mask, 0xff);
	assert_memory_equal(all, group, sizeof(group));
	/* Space that was freed is used again, and given back. */
	for (unsigned round = 0; round < 3; round++)
		for (uint64_t i = 4000; i < 8000; i++)
			assert_int_equal(put(&t, i, i + round), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size < 20 << 20);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_true(tmem_pool_flush(t.client, t.pool) == 8000);
	assert_int_equal(test_stats(t.host).overflow_pages, 0);
	assert_int_equal(test_stats(t.host).overflow_bytes, 0);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_blocks <= 64);
	test_close(&t);
	assert_int_equal(access(path, F_OK), -1);
}

static void a_clone_shares_the_file(void **state)
{
	struct test_host t = open_with_file(4u << 20);
	tmem_oid oid = test_oid(1);
	uint64_t bytes;
	tmem_pool b;

	for (uint64_t i = 0; i < 5000; i++)
		assert_int_equal(put(&t, i, i), 0);
	bytes = test_stats(t.host).overflow_bytes;
	assert_true(bytes > 0);
	b = tmem_pool_clone(t.client, t.pool);
	assert_true(b >= 0);
	assert_int_equal(test_stats(t.host).overflow_bytes, bytes);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_int_equal(tmem_pool_destroy(t.client, t.pool), 0);
	for (uint64_t i = 0; i < 5000; i++) {
		assert_int_equal(tmem_get(t.client, b, &oid, i, &back), 0);
		test_check(&back, i, 150);
	}
	test_close(&t);
}

/* Bits flipped in the file are found, and nothing wrong is handed out. */
static void damage_in_the_file_is_found(void **state)
{
	struct test_host t = open_with_file(4u << 20);
	tmem_oid oid = test_oid(1);
	unsigned bad = 0;
	char zero[65536];
	int fd;

	for (uint64_t i = 0; i < 5000; i++)
		assert_int_equal(put(&t, i, i), 0);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	memset(zero, 0x55, sizeof(zero));
	assert_int_equal(pwrite(fd, zero, sizeof(zero), 32768), sizeof(zero));
	close(fd);
	for (uint64_t i = 0; i < 5000; i++) {
		int rc = tmem_get(t.client, t.pool, &oid, i, &back);

		if (rc == 0)
			test_check(&back, i, 150);
		else
			assert_int_equal(rc, -EIO);
		bad += rc != 0;
	}
	assert_in_range(bad, 20, 70);
	assert_int_equal(test_stats(t.host).checksum_failures, bad);
	(void)tmem_pool_flush(t.client, t.pool);
	test_close(&t);
}

static void a_file_that_cannot_be_opened(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	char err[200];
	tmem_host *h;

	o.overflow_path = "/nonexistent/dir/file";
	assert_int_equal(tmem_host_create(&o, &h, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "/nonexistent/dir/file"));
}

/* No more room in the file (here: by the size limit): the put fails, what was there stays. */
static void a_full_file(void **state)
{
	struct test_host t = open_with_file(4u << 20);
	struct rlimit was, small = {.rlim_cur = 1u << 20, .rlim_max = RLIM_INFINITY};
	tmem_oid oid = test_oid(1);
	uint64_t kept = 0;

	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	small.rlim_max = was.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	while (kept < 20000 && put(&t, kept, kept) == 0)
		kept++;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_in_range(kept, 1000, 19999);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, kept, &back), 1);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	for (uint64_t i = 0; i < kept; i++)
		expect(&t, i, i);
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(never_above_the_limit),
		cmocka_unit_test(a_lower_limit_refuses_until_there_is_room),
		cmocka_unit_test(gets_need_no_memory),
		cmocka_unit_test(what_does_not_fit_goes_to_the_file),
		cmocka_unit_test(a_clone_shares_the_file),
		cmocka_unit_test(damage_in_the_file_is_found),
		cmocka_unit_test(a_file_that_cannot_be_opened),
		cmocka_unit_test(a_full_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
