/* SPDX-License-Identifier: BSD-2-Clause */
/* Dictionaries in the store: training, who keeps one alive, several at once, readers beside it. */
#include "os/thread.h"
#include "tmem_test.h"

#include <stdatomic.h>
#include <unistd.h>

#define N 1200u

static void put_records(struct test_host *t, uint64_t from, uint64_t to, unsigned style)
{
	tmem_oid oid = test_oid(3);
	struct test_page p;

	for (uint64_t i = from; i < to; i++) {
		test_record(&p, i, style);
		assert_int_equal(tmem_put(t->client, t->pool, &oid, i, &p), 0);
	}
}

static void check_records(struct test_host *t, tmem_pool pool, uint64_t from, uint64_t to,
			  unsigned style)
{
	tmem_oid oid = test_oid(3);
	struct test_page p, want;

	for (uint64_t i = from; i < to; i++) {
		test_record(&want, i, style);
		assert_int_equal(tmem_get(t->client, pool, &oid, i, &p), 0);
		assert_memory_equal(&p, &want, sizeof(p));
	}
}

static tmem_train_result train(struct test_host *t)
{
	tmem_train_result r = {.size = sizeof(r)};

	assert_int_equal(tmem_pool_train(t->client, t->pool, 16384, &r), 0);
	return r;
}

static struct test_host open_zstd(void)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;

	o.codec = "zstd:3";
	return test_open(&o);
}

static void refuses(void **state)
{
	struct test_host t = open_zstd();
	tmem_train_result r = {.size = sizeof(r) + 1};

	(void)state;
	assert_int_equal(tmem_pool_train(t.client, 999, 0, NULL), -ENOENT);
	assert_int_equal(tmem_pool_train(t.client, t.pool, 1, NULL), -EINVAL);
	assert_int_equal(tmem_pool_train(t.client, t.pool, 65537, NULL), -EINVAL);
	assert_int_equal(tmem_pool_train(t.client, t.pool, 0, &r), -EINVAL);
	assert_int_equal(tmem_pool_train(t.client, t.pool, 0, NULL), -ENODATA);
	put_records(&t, 0, 50, 0);
	assert_int_equal(tmem_pool_train(t.client, t.pool, 0, NULL), -ENODATA);
	assert_int_equal(tmem_pool_drop_dictionary(t.client, 999), -ENOENT);
	assert_int_equal(tmem_pool_drop_dictionary(t.client, t.pool), 0);
	assert_int_equal(test_stats(t.host).dictionaries, 0);
	test_close(&t);
}

static void later_puts_use_it(void **state)
{
	struct test_host t = open_zstd();
	uint64_t before, with, without;
	tmem_train_result r;
	tmem_stats s;

	(void)state;
	put_records(&t, 0, N, 0);
	before = test_stats(t.host).compressed_bytes;
	r = train(&t);
	assert_int_equal(r.kept, 1);
	assert_int_equal(r.sampled_pages, N);
	assert_int_equal(r.judged_pages, N / 3);
	assert_true(r.frames_after < r.frames_before);
	s = test_stats(t.host);
	assert_int_equal(s.dictionaries, 1);
	assert_true(s.dictionary_bytes > 16384);
	assert_int_equal(s.compressed_bytes, before); /* what is stored stays as it is */
	put_records(&t, N, 2 * N, 0);
	with = test_stats(t.host).compressed_bytes - before;
	assert_true(with < before * 8 / 10);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	/* As it was foretold, about. */
	without = r.frames_before * 4096;
	assert_true(with < without);
	/* Recompression brings the older ones to it. */
	assert_int_equal(tmem_host_recompress(t.host, NULL, NULL), 0);
	assert_true(test_stats(t.host).compressed_bytes < 2 * before * 8 / 10);
	check_records(&t, t.pool, 0, 2 * N, 0);
	test_close(&t);
}

/* With nothing in common there is nothing to win: noise, and a dictionary that is not kept. */
static void keeps_only_what_wins(void **state)
{
	struct test_host t = open_zstd();
	tmem_train_result r = {.size = sizeof(r)};
	tmem_oid oid = test_oid(3);
	struct test_page p;
	uint64_t charged;
	int rc;

	(void)state;
	for (uint64_t i = 0; i < N; i++) {
		test_fill(&p, test_mix(i), 250);
		assert_int_equal(tmem_put(t.client, t.pool, &oid, i, &p), 0);
	}
	(void)tmem_pool_train(t.client, t.pool, 65536, &r);
	charged = test_stats(t.host).store_bytes;
	rc = tmem_pool_train(t.client, t.pool, 65536, &r);
	assert_true(rc == 0 || rc == -ENODATA);
	assert_int_equal(r.kept, 0);
	assert_int_equal(test_stats(t.host).dictionaries, 0);
	assert_int_equal(test_stats(t.host).dictionary_bytes, 0);
	assert_int_equal(test_stats(t.host).store_bytes, charged);
	test_close(&t);
}

/* A dictionary lives as long as a page needs it, and no longer. */
static void generations(void **state)
{
	struct test_host t = open_zstd();
	tmem_oid oid = test_oid(3);
	tmem_pool clone;

	(void)state;
	put_records(&t, 0, N, 0);
	assert_int_equal(train(&t).kept, 1);
	put_records(&t, 0, N, 0); /* all with the first one */
	assert_int_equal(tmem_invalidate_range(t.client, t.pool, &oid, 100, N - 100), N - 100);
	assert_int_equal(tmem_pool_drop_dictionary(t.client, t.pool), 0);
	put_records(&t, 5000, 5000 + 4 * N, 1); /* another kind of pages, without */
	assert_int_equal(test_stats(t.host).dictionaries, 1);
	assert_int_equal(train(&t).kept, 1);
	assert_int_equal(test_stats(t.host).dictionaries, 2);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	clone = tmem_pool_clone(t.client, t.pool);
	assert_true(clone >= 0);
	put_records(&t, 5000, 5100, 1);
	/* The pool has none any more; its pages have. */
	assert_int_equal(tmem_pool_drop_dictionary(t.client, t.pool), 0);
	put_records(&t, 9000 + 4 * N, 9100 + 4 * N, 1);
	assert_int_equal(test_stats(t.host).dictionaries, 2);
	check_records(&t, t.pool, 0, 100, 0);
	check_records(&t, clone, 5000, 5100, 1);
	/* The last pages of the first one go, also from the clone: then it goes. */
	assert_int_equal(tmem_invalidate_range(t.client, t.pool, &oid, 0, 100), 100);
	assert_int_equal(test_stats(t.host).dictionaries, 2);
	assert_int_equal(tmem_invalidate_range(t.client, clone, &oid, 0, 100), 100);
	assert_int_equal(test_stats(t.host).dictionaries, 1);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_int_equal(tmem_pool_destroy(t.client, clone), 0);
	/* 5000..5100 were put with the second one. */
	assert_int_equal(test_stats(t.host).dictionaries, 1);
	check_records(&t, t.pool, 5000, 5100, 1);
	assert_int_equal(tmem_pool_flush(t.client, t.pool), 4 * (int64_t)N + 100);
	assert_int_equal(test_stats(t.host).dictionaries, 0);
	test_close(&t);
}

/* More than 32 clones: their zpage is copied, and the copy needs the dictionary, too. */
static void copies(void **state)
{
	struct test_host t = open_zstd();
	tmem_pool clone[40];

	(void)state;
	put_records(&t, 0, N, 0);
	assert_int_equal(train(&t).kept, 1);
	put_records(&t, 0, 70, 0);
	for (unsigned i = 0; i < 40; i++) {
		clone[i] = tmem_pool_clone(t.client, t.pool);
		assert_true(clone[i] >= 0);
	}
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_int_equal(tmem_pool_flush(t.client, t.pool), N);
	for (unsigned i = 0; i < 40; i++) {
		check_records(&t, clone[i], 0, 70, 0);
		assert_int_equal(tmem_pool_destroy(t.client, clone[i]), 0);
		if (i % 8 == 7) /* it looks at every page of every clone */
			assert_int_equal(tmem_host_verify(t.host, 1), 0);
	}
	assert_int_equal(test_stats(t.host).dictionaries, 1); /* the pool's */
	test_close(&t);
}

/* In the overflow file and back. */
static void overflow(void **state)
{
	char path[] = "/tmp/tmem-dict-XXXXXX";
	tmem_host_options o = TMEM_HOST_OPTIONS;
	int fd = mkstemp(path);
	struct test_host t;
	tmem_stats s;

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	o.codec = "zstd:1";
	o.overflow_path = path;
	t = test_open(&o);
	put_records(&t, 0, N, 0);
	assert_int_equal(train(&t).kept, 1);
	assert_int_equal(tmem_host_set_limit(t.host, test_stats(t.host).store_bytes + (1u << 20)),
			 0);
	put_records(&t, 0, 4 * N, 0);
	s = test_stats(t.host);
	assert_true(s.overflow_pages > 100);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	check_records(&t, t.pool, 0, 4 * N, 0);
	assert_int_equal(tmem_pool_drop_dictionary(t.client, t.pool), 0);
	check_records(&t, t.pool, 0, 4 * N, 0);
	assert_int_equal(test_stats(t.host).dictionaries, 1);
	assert_int_equal(tmem_pool_flush(t.client, t.pool), 4 * (int64_t)N);
	assert_int_equal(test_stats(t.host).dictionaries, 0);
	test_close(&t);
	(void)unlink(path);
}

/* Maintenance trains by itself, once, where there is enough to gain. */
static void maintenance(void **state)
{
	struct test_host t = test_open(NULL); /* lz4: the dictionary is for recompression */
	tmem_recompress o = TMEM_RECOMPRESS;
	tmem_recompress_result r = {.size = sizeof(r)};

	(void)state;
	o.train = 1;
	put_records(&t, 0, 2000, 0);
	assert_int_equal(tmem_host_recompress(t.host, &o, &r), 0);
	assert_int_equal(r.trained, 0);
	put_records(&t, 0, 2100, 0);
	assert_int_equal(tmem_host_recompress(t.host, &o, &r), 0);
	assert_int_equal(r.trained, 1);
	assert_int_equal(r.recompressed, 2100);
	assert_int_equal(tmem_host_recompress(t.host, &o, &r), 0);
	assert_int_equal(r.trained, 0);
	assert_int_equal(test_stats(t.host).dictionaries, 1);
	check_records(&t, t.pool, 0, 2100, 0);
	test_close(&t);
}

/* ---- readers, writers, and dictionaries that come and go ---------------------------------- */

static struct test_host race;
static _Atomic bool stop;
static _Atomic uint64_t trained;

static void *trainer(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		tmem_train_result r = {.size = sizeof(r)};

		(void)tmem_pool_drop_dictionary(race.client, race.pool);
		if (tmem_pool_train(race.client, race.pool, 4096, &r) == 0 && r.kept)
			atomic_fetch_add(&trained, 1);
		(void)tmem_host_recompress(race.host, NULL, NULL);
		(void)tmem_host_compact(race.host, 1u << 20);
	}
	return NULL;
}

static void *worker(void *arg)
{
	uintptr_t me = (uintptr_t)arg, bad = 0;
	tmem_oid oid = test_oid(50 + me);
	struct test_page p, want;
	uint64_t version[200] = {0}, next = 0, r = me;

	while (!atomic_load(&stop)) {
		uint64_t i = (r = test_mix(r)) % 200;
		int rc;

		if (r >> 40 & 1) {
			test_record(&p, me << 48 | i << 32 | ++next, 0);
			rc = tmem_put(race.client, race.pool, &oid, i, &p);
			version[i] = rc ? 0 : next;
			bad += rc != 0;
			continue;
		}
		rc = tmem_get(race.client, race.pool, &oid, i, &p);
		test_record(&want, me << 48 | i << 32 | version[i], 0);
		bad += rc != !version[i] || (!rc && memcmp(&p, &want, sizeof(p)) != 0);
	}
	return (void *)bad;
}

static void races(void **state)
{
	os_thread w[3], tr;
	void *bad;

	(void)state;
	race = open_zstd();
	put_records(&race, 0, 300, 0);
	atomic_store(&stop, false);
	assert_int_equal(os_thread_create(&tr, "train", trainer, NULL), 0);
	for (uintptr_t i = 0; i < 3; i++)
		assert_int_equal(os_thread_create(&w[i], "worker", worker, (void *)i), 0);
	for (unsigned i = 0; i < 600 && atomic_load(&trained) < 12; i++)
		usleep(50000);
	atomic_store(&stop, true);
	os_thread_join(tr);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(pthread_join(w[i], &bad), 0);
		assert_int_equal((uintptr_t)bad, 0);
	}
	assert_true(atomic_load(&trained) >= 2);
	test_close(&race);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses),
		cmocka_unit_test(later_puts_use_it),
		cmocka_unit_test(keeps_only_what_wins),
		cmocka_unit_test(generations),
		cmocka_unit_test(copies),
		cmocka_unit_test(overflow),
		cmocka_unit_test(maintenance),
		cmocka_unit_test(races),
	};

	return cmocka_run_group_tests_name("tmem_dict", tests, NULL, NULL);
}
