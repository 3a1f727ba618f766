/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reclaim under way: eight threads push into a small host while pools come and
 * go, are copied, frozen, shrunk, aged and compacted. The limit holds at every
 * look, by the account and by the kernel's; every page that comes back is
 * right. And what is evicted at random comes back as frames soon.
 */
#include "tmem_test.h"

#include "os/clock.h"
#include "os/mem.h"
#include "os/thread.h"
#include "zcache/zcache.h"

#define THREADS 8
#define LIMIT	((uint64_t)12 << 20)
#define RUN_NS	2000000000ull

static struct test_host t;
static _Atomic bool stop;
static _Atomic uint64_t looks, most_used, most_resident;
static const uint8_t uuid[16] = "reclaim";

/* In each pool of each thread, page i is always the same: so any that is found can be judged. */
static void use(tmem_client *c, tmem_pool pool, uint64_t n, uint64_t seed)
{
	struct test_page group[4], back;
	tmem_oid oid = test_oid(seed);
	uint64_t i = n % 1500;
	int rc;

	switch (n >> 40 & 15) {
	case 0 ... 6:
		test_fill(&group[0], seed + i, 50 + i % 250);
		rc = tmem_put_flags(c, pool, &oid, i, &group[0],
				    n >> 44 & 7 ? 0 : TMEM_PUT_INACTIVE);
		assert_true(rc == 0 || rc == -ENOMEM || rc == -EAGAIN || rc == -ECANCELED);
		break;
	case 7:
		i &= ~3ull;
		for (unsigned k = 0; k < 4; k++)
			test_fill(&group[k], seed + i + k, 50 + (i + k) % 250);
		rc = tmem_put_cluster(c, pool, &oid, i, 4, group);
		assert_true(rc == 0 || rc == -ENOMEM || rc == -EAGAIN || rc == -E2BIG);
		break;
	case 8:
		assert_in_range(tmem_invalidate_page(c, pool, &oid, i), 0, 1);
		break;
	case 9:
		assert_true(tmem_invalidate_range(c, pool, &oid, i, 20) >= 0);
		break;
	default:
		rc = n & 1 << 20 ? tmem_get(c, pool, &oid, i, &back)
				 : tmem_get_keep(c, pool, &oid, i, &back);
		assert_in_range(rc, 0, 1);
		if (rc == 0)
			test_check(&back, seed + i, 50 + i % 250);
	}
}

static void *push(void *arg)
{
	uint64_t me = (uint64_t)(uintptr_t)arg, seed = me * 100000, r = me;
	tmem_pool pool[3] = {-1, -1, -1};
	tmem_client *c;

	assert_int_equal(tmem_client_create(t.host, "push", &c), 0);
	pool[1] = tmem_pool_create_shared(c, uuid, 0, 4);
	if (pool[1] >= 0)
		assert_in_range(-tmem_pool_allow(c, pool[1], NULL, 1), 0, EPERM);
	for (uint64_t n = 0; !atomic_load(&stop); n++) {
		r = test_mix(r);
		/* A pool of its own, now ephemeral, now persistent, now a copy; ended again. */
		if (n % 3000 == 0) {
			tmem_pool old = pool[0];

			pool[0] =
				old >= 0 && n % 9000 == 3000
					? tmem_pool_clone(c, old)
					: tmem_pool_create(c, n % 9000 ? 0 : TMEM_POOL_PERSIST, 4);
			if (old >= 0)
				assert_int_equal(tmem_pool_destroy(c, old), 0);
		}
		if (pool[0] >= 0)
			use(c, pool[0], r, seed);
		if (pool[1] >= 0)
			use(c, pool[1], test_mix(r), 7);
		if (n % 500 == 499 && me == 1) {
			tmem_client_freeze(c, 1);
			use(c, pool[1] >= 0 ? pool[1] : pool[0], r, 7);
			tmem_client_freeze(c, 0);
		}
	}
	tmem_client_destroy(c);
	return NULL;
}

static void *disturb(void *arg)
{
	uint64_t r = 1;

	while (!atomic_load(&stop)) {
		r = test_mix(r);
		switch (r % 6) {
		case 0:
			assert_int_equal(tmem_host_shrink(t.host, r >> 8 & 63, NULL), 0);
			break;
		case 1:
			(void)tmem_host_age(t.host, 200);
			break;
		case 2:
			assert_int_equal(tmem_host_set_target(t.host, r & 256 ? LIMIT / 2 : 0), 0);
			break;
		case 3:
			tmem_host_freeze(t.host, 1);
			tmem_host_freeze(t.host, 0);
			break;
		case 4:
			tmem_host_maintain(t.host);
			break;
		default:
			(void)tmem_host_compact(t.host, 1 << 20);
		}
		os_sleep_ns(2000000);
	}
	return NULL;
}

static void *look(void *arg)
{
	while (!atomic_load(&stop)) {
		for (unsigned i = 0; i < 1000; i++) {
			uint64_t used = frames_used(&t.host->frames);

			if (used > atomic_load(&most_used))
				atomic_store(&most_used, used);
			atomic_fetch_add(&looks, 1);
		}
		if (os_resident_bytes() > atomic_load(&most_resident))
			atomic_store(&most_resident, os_resident_bytes());
		os_sleep_ns(1000000);
	}
	return NULL;
}

static void the_limit_holds_while_eight_push(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	os_thread th[THREADS + 2];
	uint64_t before;

	o.limit_bytes = LIMIT;
	o.policy = "s3fifo";
	t = test_open(&o);
	before = os_resident_bytes();
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(os_thread_create(&th[i], "push", push, (void *)(i + 1)), 0);
	assert_int_equal(os_thread_create(&th[THREADS], "disturb", disturb, NULL), 0);
	assert_int_equal(os_thread_create(&th[THREADS + 1], "look", look, NULL), 0);
	os_sleep_ns(RUN_NS);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < THREADS + 2; i++)
		os_thread_join(th[i]);
	assert_true(atomic_load(&looks) > 1000);
	assert_true(atomic_load(&most_used) <= LIMIT);
	assert_true(test_stats(t.host).store_peak_bytes <= LIMIT);
	assert_true(test_stats(t.host).evicted_pages > 100);
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
	/* Ten stacks and what the C library keeps for ten threads come on top. */
	if (before && atomic_load(&most_resident))
		assert_true(atomic_load(&most_resident) < before + LIMIT + (8u << 20));
#endif
	(void)before;
	test_close(&t);
}

/* Half of the pages go at random: nine tenths of what they held is back within a second. */
static void what_goes_at_random_comes_back_as_frames(void **state)
{
	static struct test_page page, back;
	tmem_oid oid = test_oid(1);
	uint64_t held, full, left, began, r = 5;
	unsigned gone = 0;

	t = test_open(NULL);
	for (uint64_t i = 0; i < 20000; i++) {
		test_fill(&page, i, 100 + i % 100);
		assert_int_equal(tmem_put(t.client, t.pool, &oid, i, &page), 0);
	}
	full = test_stats(t.host).frame_bytes;
	for (uint64_t i = 0; i < 20000; i++) {
		r = test_mix(r);
		if (r & 1) {
			assert_int_equal(tmem_invalidate_page(t.client, t.pool, &oid, i), 1);
			gone++;
		}
	}
	held = full / 20000 * gone;
	began = os_clock_thread_cpu_ns();
	(void)tmem_host_compact(t.host, UINT64_MAX);
	left = test_stats(t.host).frame_bytes;
	assert_true(full - left >= held / 10 * 9);
	/* Of this thread's time; loose, for builds with sanitizers on busy machines. */
	assert_true(os_clock_thread_cpu_ns() - began < 10000000000ull);
	for (uint64_t i = 0; i < 20000; i++)
		if (tmem_get(t.client, t.pool, &oid, i, &back) == 0)
			test_check(&back, i, 100 + i % 100);
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_limit_holds_while_eight_push),
		cmocka_unit_test(what_goes_at_random_comes_back_as_frames),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
