/* SPDX-License-Identifier: BSD-2-Clause */
/* Ephemeral pools: gets that remove, eviction oldest first, second chances, queues that stay small.
 */
#include "tmem_test.h"

#include "os/clock.h"
#include "zcache/zcache.h"

#include <pthread.h>
#include <unistd.h>

static struct test_page page, back;
static uint64_t clock_ms;

static uint64_t test_clock(void *ctx)
{
	return clock_ms * 1000000;
}

/* A host with one ephemeral pool. */
static struct test_host open_ephemeral(const tmem_host_options *o)
{
	struct test_host t = test_open(o);

	assert_int_equal(tmem_pool_destroy(t.client, t.pool), 0);
	t.pool = tmem_pool_create(t.client, 0, 0);
	assert_true(t.pool >= 0);
	return t;
}

static int put(struct test_host *t, uint64_t index)
{
	tmem_oid oid = test_oid(1);

	test_fill(&page, index, 150);
	return tmem_put(t->client, t->pool, &oid, index, &page);
}

/* Whether the page is there; it stays. */
static bool has(struct test_host *t, uint64_t index)
{
	tmem_oid oid = test_oid(1);
	int rc = tmem_get_keep(t->client, t->pool, &oid, index, &back);

	assert_in_range(rc, 0, 1);
	if (rc == 0)
		test_check(&back, index, 150);
	return rc == 0;
}

static void a_get_removes_unless_told_otherwise(void **state)
{
	struct test_host t = open_ephemeral(NULL);
	tmem_oid oid = test_oid(1);

	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(put(&t, i), 0);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	for (uint64_t i = 0; i < 100; i++) {
		assert_true(has(&t, i));
		assert_int_equal(tmem_get(t.client, t.pool, &oid, i, &back), 0);
		test_check(&back, i, 150);
		assert_int_equal(tmem_get(t.client, t.pool, &oid, i, &back), 1);
		assert_false(has(&t, i));
	}
	assert_int_equal(test_stats(t.host).gets_removed, 100);
	assert_int_equal(test_stats(t.host).pages, 0);
	test_close(&t);
}

static void flags_that_are_refused(void **state)
{
	struct test_host t = open_ephemeral(NULL);

	assert_int_equal(tmem_pool_create(t.client, TMEM_POOL_SHARED, 0), -EINVAL);
	assert_int_equal(tmem_pool_create(t.client, TMEM_POOL_PERSIST | 1u << 4, 0), -EOPNOTSUPP);
	assert_int_equal(tmem_pool_create(t.client, 0xf0, 0), -EOPNOTSUPP);
	assert_int_equal(tmem_pool_create(t.client, 1u << 9, 0), -EINVAL);
	test_close(&t);
}

/* At the limit a put takes the place of the oldest pages, and of nothing else. */
static void the_oldest_go_first(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct test_host t;
	uint64_t i, oldest = 0, pages;
	tmem_stats s;

	o.limit_bytes = 4u << 20;
	t = open_ephemeral(&o);
	for (i = 0; i < 12000; i++) {
		assert_int_equal(put(&t, i), 0);
		assert_true(test_stats(t.host).store_bytes <= o.limit_bytes);
	}
	s = test_stats(t.host);
	assert_true(s.eph_ate_tail > 8000);
	assert_int_equal(s.eph_ate_tail, s.evicted_pages);
	assert_int_equal(s.puts_nomem, 0);
	while (!has(&t, oldest))
		oldest++;
	pages = 12000 - oldest;
	assert_int_equal(pages, s.pages);
	for (i = oldest; i < 12000; i++)
		assert_true(has(&t, i));
	/* What is there is most of what can be: 1.2 KiB of noise a page. */
	assert_true(s.compressed_bytes > o.limit_bytes / 2);
	test_close(&t);
}

/*
 * Entries outlive their pages, and the entry of a same-filled page names any
 * that is in its place: but only of a pool of its own set.
 */
static void entries_of_gone_pages_evict_nothing_persistent(void **state)
{
	struct test_host t = open_ephemeral(NULL);
	tmem_oid oid = test_oid(1);
	tmem_pool keep = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 0);

	memset(&page, 0x5a, sizeof(page));
	for (uint64_t i = 0; i < 2000; i++)
		assert_int_equal(tmem_put(t.client, t.pool, &oid, i, &page), 0);
	assert_int_equal(tmem_invalidate_object(t.client, t.pool, &oid), 2000);
	/* The leaves of those are the leaves of these. */
	for (uint64_t i = 0; i < 2000; i++)
		assert_int_equal(tmem_put(t.client, keep, &oid, i, &page), 0);
	for (uint64_t i = 0; i < 10; i++)
		assert_int_equal(put(&t, i), 0);
	assert_int_equal(tmem_host_shrink(t.host, UINT64_MAX, NULL), 0);
	assert_int_equal(tmem_pool_pages(t.client, t.pool), 0);
	assert_int_equal(tmem_pool_pages(t.client, keep), 2000);
	test_close(&t);
}

static void persistent_pages_outrank(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct test_host t;
	tmem_oid oid = test_oid(1);
	tmem_pool keep;
	unsigned kept = 0;
	tmem_stats s;

	o.limit_bytes = 4u << 20;
	t = open_ephemeral(&o);
	keep = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 0);
	for (uint64_t i = 0; i < 5000; i++)
		assert_int_equal(put(&t, i), 0);
	for (; kept < 8000; kept++) {
		test_fill(&page, kept, 150);
		if (tmem_put(t.client, keep, &oid, kept, &page))
			break;
	}
	s = test_stats(t.host);
	assert_int_equal(tmem_pool_pages(t.client, t.pool), 0);
	assert_int_equal(tmem_pool_pages(t.client, keep), kept);
	assert_true(s.pers_ate_eph > 2000);
	/* Full of persistent pages: ephemeral ones are refused, and then not even looked at. */
	for (uint64_t i = 9000; put(&t, i) == 0; i++) /* room in frames that others began */
		assert_true(i < 9300);
	assert_int_equal(put(&t, 9001), -ENOMEM);
	assert_int_equal(test_stats(t.host).puts_full, 1);
	/* Until there is less than 90 % in use. */
	assert_true(tmem_invalidate_range(t.client, keep, &oid, 0, 100) == 100);
	(void)tmem_host_compact(t.host, UINT64_MAX);
	assert_int_equal(put(&t, 9001), -ENOMEM);
	assert_int_equal(test_stats(t.host).puts_full, 2);
	assert_true(tmem_invalidate_range(t.client, keep, &oid, 100, kept / 5) == kept / 5);
	(void)tmem_host_compact(t.host, UINT64_MAX);
	assert_int_equal(put(&t, 9001), 0);
	for (unsigned i = 100 + kept / 5; i < kept; i++) {
		assert_int_equal(tmem_get(t.client, keep, &oid, i, &back), 0);
		test_check(&back, i, 150);
	}
	test_close(&t);
}

/* Nothing persistent goes to the file while there is something that may simply go. */
static void ephemeral_pages_go_before_the_file(void **state)
{
	char path[] = "/tmp/tmem-ephemeral-XXXXXX";
	tmem_host_options o = TMEM_HOST_OPTIONS;
	tmem_oid oid = test_oid(2);
	int fd = mkstemp(path);
	struct test_host t;
	tmem_pool keep;
	uint64_t i;

	assert_true(fd >= 0);
	close(fd);
	o.limit_bytes = 6u << 20;
	o.overflow_path = path;
	t = open_ephemeral(&o);
	keep = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 0);
	for (i = 0; i < 3000; i++)
		assert_int_equal(put(&t, i), 0);
	for (i = 0; i < 1500; i++) {
		test_fill(&page, i, 150);
		assert_int_equal(tmem_put(t.client, keep, &oid, i, &page), 0);
	}
	assert_true(test_stats(t.host).pers_ate_eph > 300);
	assert_true(tmem_pool_pages(t.client, t.pool) > 0);
	assert_int_equal(test_stats(t.host).overflow_pages, 0);
	for (; i < 8000; i++) {
		test_fill(&page, i, 150);
		assert_int_equal(tmem_put(t.client, keep, &oid, i, &page), 0);
	}
	assert_int_equal(tmem_pool_pages(t.client, t.pool), 0);
	assert_true(test_stats(t.host).overflow_pages > 1000);
	for (i = 0; i < 8000; i++) {
		assert_int_equal(tmem_get(t.client, keep, &oid, i, &back), 0);
		test_check(&back, i, 150);
	}
	test_close(&t);
}

static void what_was_wanted_has_another_turn(void **state)
{
	struct test_host t = open_ephemeral(NULL);

	for (uint64_t i = 0; i < 2000; i++)
		assert_int_equal(put(&t, i), 0);
	for (uint64_t i = 0; i < 100; i++)
		assert_true(has(&t, i));
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(tmem_host_shrink(t.host, 30, NULL), 0);
		if (test_stats(t.host).pages < 1500)
			break;
	}
	assert_true(test_stats(t.host).pages < 1950);
	for (uint64_t i = 0; i < 100; i++)
		assert_true(has(&t, i));
	assert_false(has(&t, 100));
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	test_close(&t);
}

static void shrink_gives_frames_back(void **state)
{
	struct test_host t = open_ephemeral(NULL);
	uint64_t before, got;

	for (uint64_t i = 0; i < 4000; i++)
		assert_int_equal(put(&t, i), 0);
	before = test_stats(t.host).store_bytes;
	assert_int_equal(tmem_host_shrink(t.host, 200, &got), 0);
	assert_true(got >= 200 && got < 400);
	assert_int_equal(before - test_stats(t.host).store_bytes, got * 4096);
	assert_int_equal(test_stats(t.host).evicted_shrink, 4000 - test_stats(t.host).pages);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	/* More than there is: everything goes, no more is claimed than went. */
	assert_int_equal(tmem_host_shrink(t.host, UINT64_MAX, &got), 0);
	assert_int_equal(test_stats(t.host).pages, 0);
	assert_true(got <= before / 4096);
	assert_true(test_stats(t.host).frame_bytes < 64 * 4096);
	test_close(&t);
}

static void a_target_is_kept_by_puts(void **state)
{
	struct test_host t = open_ephemeral(NULL);
	uint64_t target = 3u << 20;

	assert_int_equal(tmem_host_set_target(t.host, target), 0);
	for (uint64_t i = 0; i < 10000; i++)
		assert_int_equal(put(&t, i), 0);
	assert_true(test_stats(t.host).evicted_target > 5000);
	assert_true(test_stats(t.host).store_bytes < target + target / 4);
	assert_true(test_stats(t.host).store_bytes > target / 2);
	test_close(&t);
}

static void idle_pages_go(void **state)
{
	struct test_host t;

	os_clock_replace(test_clock, NULL);
	clock_ms = 1000000;
	t = open_ephemeral(NULL);
	for (uint64_t i = 0; i < 2000; i++) {
		assert_int_equal(put(&t, i), 0);
		clock_ms += 10;
	}
	/* 20 s have gone by; the last 1000 pages came in the last 10. */
	assert_in_range(tmem_host_age(t.host, 10000), 980, 1000);
	assert_false(has(&t, 980));
	for (uint64_t i = 1000; i < 2000; i++)
		assert_true(has(&t, i));
	/* Now all are wanted: they count as used at their turn. */
	clock_ms += 20000;
	assert_in_range(tmem_host_age(t.host, 10000), 0, 20);
	clock_ms += 5000;
	assert_int_equal(tmem_host_age(t.host, 10000), 0);
	clock_ms += 6000;
	assert_in_range(tmem_host_age(t.host, 10000), 1000, 1020);
	assert_int_equal(test_stats(t.host).pages, 0);
	assert_int_equal(tmem_host_age(t.host, 0), 0);
	test_close(&t);
	os_clock_replace(NULL, NULL);
}

/* Pages that come and go leave stale entries behind: they are swept. */
static void queues_stay_small(void **state)
{
	struct test_host t = open_ephemeral(NULL);
	const struct zc_evict *ev = &t.client->ev[ZC_SET_EPHEMERAL];
	tmem_oid oid = test_oid(1);
	uint64_t most = 0, entries;

	for (uint64_t i = 0; i < 3000; i++)
		assert_int_equal(put(&t, i), 0);
	for (uint64_t i = 3000; i < 60000; i++) {
		uint64_t gone = test_mix(i) % 3000;

		assert_in_range(tmem_get(t.client, t.pool, &oid, gone, &back), 0, 1);
		assert_int_equal(put(&t, gone), 0);
		assert_int_equal(put(&t, i % 3000), 0);
		entries = atomic_load(&ev->entries);
		most = entries > most ? entries : most;
	}
	assert_int_equal(test_stats(t.host).pages, 3000);
	assert_true(most < 3000 * 3 / 2 + 4 * ZC_CHUNK_ENTRIES);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	/* And nothing was swept that was not stale: all of it can be evicted. */
	assert_int_equal(tmem_host_shrink(t.host, UINT64_MAX, NULL), 0);
	assert_int_equal(test_stats(t.host).pages, 0);
	assert_int_equal(atomic_load(&ev->entries), 0);
	assert_int_equal(arena_items(t.host->chunks), 0);
	test_close(&t);
}

/* Same-filled pages have no stamp and no zpage, but they are evicted all the same. */
static void same_filled_pages_go_too(void **state)
{
	struct test_host t = open_ephemeral(NULL);
	tmem_oid oid = test_oid(1);

	for (uint64_t i = 0; i < 20000; i++) {
		for (unsigned k = 0; k < 512; k++)
			page.word[k] = i;
		assert_int_equal(tmem_put(t.client, t.pool, &oid, i, &page), 0);
	}
	assert_int_equal(test_stats(t.host).same_filled_pages, 20000);
	assert_int_equal(tmem_host_shrink(t.host, 30, NULL), 0);
	assert_true(test_stats(t.host).pages < 19000);
	assert_true(test_stats(t.host).pages > 0);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 0, &back), 1);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 19999, &back), 0);
	assert_int_equal(back.word[7], 19999);
	test_close(&t);
}

/* With zbud a shrink takes the oldest frames: the allocator calls back, nobody compacts. */
static void the_allocator_chooses(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct test_host t;
	tmem_oid oid = test_oid(2);
	tmem_pool keep;
	uint64_t got;

	o.zpool = "zbud";
	t = open_ephemeral(&o);
	keep = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 0);
	for (uint64_t i = 0; i < 500; i++) {
		test_fill(&page, i, 150);
		assert_int_equal(tmem_put(t.client, keep, &oid, i, &page), 0);
		assert_int_equal(put(&t, i), 0);
		assert_int_equal(put(&t, 1000 + i), 0);
	}
	assert_true(has(&t, 0));
	assert_int_equal(tmem_host_shrink(t.host, 100, &got), 0);
	assert_in_range(got, 95, 120);
	assert_true(test_stats(t.host).evicted_driver >= 150);
	assert_true(has(&t, 0)); /* it was wanted */
	assert_false(has(&t, 2));
	assert_true(has(&t, 499));
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_int_equal(tmem_host_shrink(t.host, UINT64_MAX, NULL), 0);
	assert_int_equal(tmem_pool_pages(t.client, t.pool), 0);
	for (uint64_t i = 0; i < 500; i++) {
		assert_int_equal(tmem_get(t.client, keep, &oid, i, &back), 0);
		test_check(&back, i, 150);
	}
	test_close(&t);
}

/* A cluster has one entry and goes as a whole; what was replaced in it does not matter. */
static void clusters_go_whole(void **state)
{
	struct test_host t = open_ephemeral(NULL);
	static struct test_page group[8];
	tmem_oid oid = test_oid(1);
	uint64_t first;
	uint32_t mask;

	for (uint64_t i = 0; i < 800; i += 8) {
		for (unsigned k = 0; k < 8; k++)
			test_fill(&group[k], i + k, 150);
		assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, i, 8, group), 0);
	}
	assert_int_equal(test_stats(t.host).zpages, 100);
	/* The first page of each leaves its cluster: by a get, and by a younger put. */
	for (uint64_t i = 0; i < 800; i += 8)
		assert_int_equal(tmem_get(t.client, t.pool, &oid, i, &back), 0);
	for (uint64_t i = 1; i < 800; i += 8)
		assert_int_equal(put(&t, i), 0);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_int_equal(tmem_get_cluster(t.client, t.pool, &oid, 2, 0, group, &first, &mask), 0);
	assert_int_equal(first, 0);
	assert_int_equal(mask, 0xfc);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(tmem_host_shrink(t.host, 4, NULL), 0);
	assert_int_equal(tmem_get_cluster(t.client, t.pool, &oid, 12, 0, group, &first, &mask), 1);
	assert_true(has(&t, 1));
	assert_true(has(&t, 2));
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_int_equal(tmem_host_shrink(t.host, UINT64_MAX, NULL), 0);
	assert_int_equal(test_stats(t.host).pages, 0);
	test_close(&t);
}

static void a_copy_has_entries_of_its_own(void **state)
{
	struct test_host t = open_ephemeral(NULL);
	tmem_oid oid = test_oid(1);
	tmem_pool b;

	for (uint64_t i = 0; i < 500; i++)
		assert_int_equal(put(&t, i), 0);
	b = tmem_pool_clone(t.client, t.pool);
	assert_true(b >= 0);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_int_equal(tmem_get(t.client, b, &oid, 3, &back), 0);
	assert_true(has(&t, 3));
	assert_int_equal(tmem_pool_destroy(t.client, t.pool), 0);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_int_equal(tmem_host_shrink(t.host, UINT64_MAX, NULL), 0);
	assert_int_equal(test_stats(t.host).pages, 0);
	test_close(&t);
}

static int put_noise(struct test_host *t, uint64_t index, unsigned noise)
{
	tmem_oid oid = test_oid(2);

	test_fill(&page, index, noise);
	return tmem_put(t->client, t->pool, &oid, index, &page);
}

/* While what is stored compresses poorly on the whole, what is poor is refused; not before. */
static void a_poor_mean_refuses_poor_pages(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct test_host t = open_ephemeral(NULL);
	unsigned refused = 0;
	tmem_stats s;

	for (uint64_t i = 0; i < 300; i++)
		assert_int_equal(put_noise(&t, i, 50), 0);
	for (uint64_t i = 300; i < 400; i++)
		assert_int_equal(put_noise(&t, i, 400), 0);
	s = test_stats(t.host);
	assert_int_equal(s.puts_mean_passed, 100);
	assert_int_equal(s.puts_mean_poor, 0);
	for (uint64_t i = 400; i < 2000; i++) {
		int rc = put_noise(&t, i, 400);

		assert_true(rc == 0 || rc == -E2BIG);
		refused += rc != 0;
	}
	s = test_stats(t.host);
	assert_true(refused > 800 && refused < 1500);
	assert_int_equal(s.puts_mean_poor, refused);
	assert_int_equal(s.puts_poor, refused);
	assert_true(s.compressed_bytes / s.pages < 2700);
	/* Good ones are welcome all the while. */
	assert_int_equal(put_noise(&t, 3000, 50), 0);
	test_close(&t);

	o.max_mean_zsize = TMEM_PAGE_SIZE;
	t = open_ephemeral(&o);
	for (uint64_t i = 0; i < 500; i++)
		assert_int_equal(put_noise(&t, i, 400), 0);
	test_close(&t);

	/* Nothing is refused where all is kept, and compressed is still better than raw. */
	o.max_mean_zsize = 0;
	t = open_ephemeral(&o);
	assert_int_equal(tmem_tunable_set(t.host, NULL, "store_raw", "1", NULL, 0), 0);
	for (uint64_t i = 0; i < 500; i++)
		assert_int_equal(put_noise(&t, i, 400), 0);
	assert_int_equal(test_stats(t.host).puts_raw, 0);
	test_close(&t);
}

static void inactive_pages_are_kept_while_there_is_room(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct test_host t;
	tmem_oid oid = test_oid(3);
	unsigned kept = 0;
	tmem_stats s;

	o.limit_bytes = 4u << 20;
	t = open_ephemeral(&o);
	assert_int_equal(tmem_put_flags(t.client, t.pool, &oid, 0, &page, 1u << 5), -EINVAL);
	for (uint64_t i = 0; i < 8000; i++) {
		test_fill(&page, i, 150);
		if (tmem_put_flags(t.client, t.pool, &oid, i, &page, TMEM_PUT_INACTIVE) == 0)
			kept++;
	}
	s = test_stats(t.host);
	assert_true(kept > 500 && kept < 4000);
	assert_int_equal(s.puts_inactive_ok, kept);
	assert_int_equal(s.puts_inactive, 8000 - kept);
	assert_int_equal(s.eph_ate_tail, 0);
	assert_true(s.store_bytes < o.limit_bytes / 100 * 91);
	/* The refused put of a page that was there leaves nothing (T2). */
	test_fill(&page, 9, 150);
	assert_int_equal(tmem_put_flags(t.client, t.pool, &oid, 9, &page, TMEM_PUT_INACTIVE),
			 -ECANCELED);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 9, &back), 1);
	assert_int_equal(tmem_put_flags(t.client, t.pool, &oid, 9, &page, 0), 0);
	test_close(&t);
}

static void one_client_is_frozen(void **state)
{
	struct test_host t = open_ephemeral(NULL);
	tmem_oid oid = test_oid(1);
	tmem_client *other;
	tmem_pool theirs;

	assert_int_equal(tmem_client_create(t.host, "other", &other), 0);
	theirs = tmem_pool_create(other, TMEM_POOL_PERSIST, 0);
	assert_int_equal(put(&t, 1), 0);
	assert_int_equal(put(&t, 2), 0);
	tmem_client_freeze(t.client, 1);
	assert_int_equal(put(&t, 1), -EAGAIN);
	assert_int_equal(tmem_get(t.client, t.pool, &oid, 1, &back), 1);
	assert_true(has(&t, 2));
	assert_int_equal(tmem_put(other, theirs, &oid, 1, &page), 0);
	tmem_client_freeze(t.client, 0);
	assert_int_equal(put(&t, 1), 0);
	assert_int_equal(test_stats(t.host).puts_frozen, 1);
	tmem_client_destroy(other);
	test_close(&t);
}

/* Puts of a thread that has put nothing before. */
struct newcomer {
	struct test_host *t;
	tmem_pool pool;
	unsigned refused;
};

static void *puts_its_first(void *arg)
{
	struct newcomer *n = arg;
	tmem_oid oid = test_oid(7);
	struct test_page mine;

	for (uint64_t i = 0; i < 50; i++) {
		test_fill(&mine, i, 150);
		n->refused += tmem_put(n->t->client, n->pool, &oid, i, &mine) != 0;
	}
	return NULL;
}

/* What a thread needs for itself is made room for like a page; and nobody is shut out for it. */
static void a_new_thread_at_the_limit(void **state)
{
	static const char *const codecs[] = {"lz4", "zstd", "deflate"};

	for (unsigned i = 0; i < 3; i++) {
		tmem_host_options o = TMEM_HOST_OPTIONS;
		struct test_host t;
		tmem_pool kept;

		o.codec = codecs[i];
		o.limit_bytes = 8u << 20;
		t = open_ephemeral(&o);
		kept = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 0);
		for (uint64_t k = 0; test_stats(t.host).evicted_pages < 100; k++)
			assert_int_equal(put(&t, k), 0);
		for (unsigned persistent = 0; persistent < 2; persistent++) {
			struct newcomer n = {&t, persistent ? kept : t.pool, 0};
			pthread_t thread;

			assert_int_equal(pthread_create(&thread, NULL, puts_its_first, &n), 0);
			assert_int_equal(pthread_join(thread, NULL), 0);
			assert_int_equal(n.refused, 0);
		}
		for (uint64_t k = 0; k < 100; k++)
			assert_int_equal(put(&t, 1000000 + k), 0);
		assert_int_equal(test_stats(t.host).puts_full, 0);
		assert_int_equal(tmem_host_verify(t.host, 1), 0);
		test_close(&t);
	}
}

/* Far above a limit that was lowered a put may find no room; the next ones go on making it. */
static void a_lowered_limit_shuts_nobody_out(void **state)
{
	struct test_host t = open_ephemeral(NULL);
	uint64_t limit = test_stats(t.host).store_bytes + (1u << 20);
	unsigned refused = 0;

	for (uint64_t k = 0; k < 30000; k++)
		assert_int_equal(put(&t, k), 0);
	assert_int_equal(tmem_host_set_limit(t.host, limit), 0);
	while (put(&t, 30000 + refused) && ++refused < 100)
		;
	assert_in_range(refused, 1, 50);
	assert_int_equal(test_stats(t.host).puts_full, 0);
	assert_true(test_stats(t.host).store_bytes <= limit);
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_get_removes_unless_told_otherwise),
		cmocka_unit_test(flags_that_are_refused),
		cmocka_unit_test(the_oldest_go_first),
		cmocka_unit_test(entries_of_gone_pages_evict_nothing_persistent),
		cmocka_unit_test(persistent_pages_outrank),
		cmocka_unit_test(ephemeral_pages_go_before_the_file),
		cmocka_unit_test(what_was_wanted_has_another_turn),
		cmocka_unit_test(shrink_gives_frames_back),
		cmocka_unit_test(a_target_is_kept_by_puts),
		cmocka_unit_test(idle_pages_go),
		cmocka_unit_test(queues_stay_small),
		cmocka_unit_test(same_filled_pages_go_too),
		cmocka_unit_test(the_allocator_chooses),
		cmocka_unit_test(clusters_go_whole),
		cmocka_unit_test(a_copy_has_entries_of_its_own),
		cmocka_unit_test(a_poor_mean_refuses_poor_pages),
		cmocka_unit_test(inactive_pages_are_kept_while_there_is_room),
		cmocka_unit_test(one_client_is_frozen),
		cmocka_unit_test(a_new_thread_at_the_limit),
		cmocka_unit_test(a_lowered_limit_shuts_nobody_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
