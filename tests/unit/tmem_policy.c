/* SPDX-License-Identifier: BSD-2-Clause */
/* Which pages a policy gives up: lru and s3fifo on the same patterns. */
#include "tmem_test.h"

#include "os/clock.h"
#include "zcache/zcache.h"

static struct test_page page, back;
static tmem_oid oid;

static struct test_host open_policy(const char *policy)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct test_host t;

	o.policy = policy;
	o.limit_bytes = 4u << 20;
	t = test_open(&o);
	assert_int_equal(tmem_pool_destroy(t.client, t.pool), 0);
	t.pool = tmem_pool_create(t.client, 0, 0);
	assert_true(t.pool >= 0);
	oid = test_oid(1);
	return t;
}

static void put(struct test_host *t, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++) {
		test_fill(&page, i, 150);
		assert_int_equal(tmem_put(t->client, t->pool, &oid, i, &page), 0);
	}
}

/* Gets that keep: how many of the pages are there. */
static unsigned got(struct test_host *t, uint64_t from, uint64_t to)
{
	unsigned found = 0;

	for (uint64_t i = from; i < to; i++) {
		int rc = tmem_get_keep(t->client, t->pool, &oid, i, &back);

		assert_in_range(rc, 0, 1);
		if (rc == 0)
			test_check(&back, i, 150);
		found += rc == 0;
	}
	return found;
}

/* 300 pages that were wanted, then 20000 that nobody wants. */
static unsigned left_after_a_scan(const char *policy)
{
	struct test_host t = open_policy(policy);
	unsigned left;

	put(&t, 0, 300);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(got(&t, 0, 300), 300);
	put(&t, 1000, 21000);
	left = got(&t, 0, 300);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	test_close(&t);
	return left;
}

static void a_scan_pushes_out_what_was_wanted_or_not(void **state)
{
	assert_int_equal(left_after_a_scan("lru"), 0);
	assert_int_equal(left_after_a_scan("s3fifo"), 300);
}

#define FULL	  12000u /* puts after which the main queue has its share */
#define BY_CHANCE 50u	 /* of 100 pages: found because the main queue had room, see MAIN_TURN */

/* What comes back soon after it was evicted was wanted: the next scan leaves it alone. */
static void ghosts_remember(void **state)
{
	struct test_host t = open_policy("s3fifo");
	uint64_t newest = 100000 + FULL - 1, gone[100];
	unsigned left = 0;

	put(&t, 100000, 100000 + FULL);
	for (unsigned n = 0; n < 100; newest--) {
		if (tmem_get_keep(t.client, t.pool, &oid, newest, &back) == 1)
			gone[n++] = newest;
	}
	for (unsigned n = 0; n < 100; n++)
		put(&t, gone[n], gone[n] + 1);
	put(&t, 100000, 100100); /* these left too long ago */
	put(&t, 200000, 210000);
	for (unsigned n = 0; n < 100; n++)
		left += got(&t, gone[n], gone[n] + 1);
	assert_true(left >= 97); /* a set of the table may be full */
	assert_true(got(&t, 100000, 100100) <= BY_CHANCE);
	test_close(&t);
}

/* Where gets remove, a page that was got and put again has proved itself. */
static void an_exclusive_get_counts(void **state)
{
	struct test_host t = open_policy("s3fifo");

	put(&t, 100000, 100000 + FULL);
	put(&t, 0, 500);
	for (uint64_t i = 400; i < 500; i++)
		assert_int_equal(tmem_get(t.client, t.pool, &oid, i, &back), 0);
	put(&t, 400, 500);
	put(&t, 200000, 210000);
	assert_true(got(&t, 400, 500) >= 97);
	assert_true(got(&t, 300, 400) <= BY_CHANCE);
	test_close(&t);
}

/* Pages of [from, from + n) that are found in a round over all of them, put where they are not. */
static unsigned round_of(struct test_host *t, uint64_t from, unsigned n)
{
	unsigned found = 0;

	for (uint64_t i = from; i < from + n; i++) {
		unsigned here = got(t, i, i + 1);

		if (!here)
			put(t, i, i + 1);
		found += here;
	}
	return found;
}

/* What is read round and round and does not fit: a part of it stays, whatever was there before. */
static void of_a_loop_a_part_stays(void **state)
{
	struct test_host t = open_policy("s3fifo"), u = open_policy("lru");
	unsigned fits, found = 0;

	put(&t, 0, 12000);
	fits = (unsigned)test_stats(t.host).pages;
	assert_in_range(fits, 2000, 6000);
	assert_int_equal(tmem_host_shrink(t.host, UINT64_MAX, NULL), 0);

	for (unsigned i = 0; i < 4; i++) {
		found = round_of(&t, 20000, 2 * fits);
		assert_int_equal(round_of(&u, 20000, 2 * fits), 0);
	}
	assert_true(found > fits * 6 / 10);

	/* Another one comes: not at once, but in time it is found as well. */
	found = round_of(&t, 40000, 2 * fits);
	assert_true(found == 0);
	for (unsigned i = 0; i < 20; i++)
		found = round_of(&t, 40000, 2 * fits);
	assert_true(found > fits / 2);

	/* One that nearly fits: its pages are ghosts when they come again, and change places with
	 * none. */
	for (unsigned i = 0; i < 30; i++)
		found = round_of(&t, 60000, fits * 4 / 3);
	assert_true(found > fits * 65 / 100);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	test_close(&t);
	test_close(&u);
}

/* What is old goes by its age, in whichever queue it is. */
static void age_knows_both_queues(void **state)
{
	struct test_host t = open_policy("s3fifo");
	uint64_t kept;

	put(&t, 0, FULL);
	kept = test_stats(t.host).pages;
	os_sleep_ns(400000000); /* so old are these */
	put(&t, 20000, 22000);
	assert_true(tmem_host_age(t.host, 300) > kept / 2);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	test_close(&t);
}

static uint64_t second_chances(const struct test_host *t)
{
	uint64_t sum[ZC_COUNTERS];

	zc_threads_sum(t->host, sum);
	return sum[ZC_SECOND_CHANCES];
}

/* What was got, once only, is idle from then on, not from when it came. */
static void what_was_got_is_not_idle(void **state)
{
	const char *const policy[] = {"lru", "s3fifo"};

	for (unsigned k = 0; k < 2; k++) {
		struct test_host t = open_policy(policy[k]);

		put(&t, 0, 100);
		assert_int_equal(got(&t, 0, 50), 50);
		os_sleep_ns(400000000); /* so old are all of them */
		assert_int_equal(tmem_host_age(t.host, 200), 50);
		assert_int_equal(tmem_pool_pages(t.client, t.pool), 50);
		assert_int_equal(tmem_host_age(t.host, 200), 0);
		assert_int_equal(second_chances(&t), 50);
		os_sleep_ns(400000000);
		assert_int_equal(tmem_host_age(t.host, 200), 50);
		test_close(&t);
	}
}

/* Entries of pages that went are no reason to leave what is old elsewhere. */
static void age_goes_through_all_clients(void **state)
{
	struct test_host t = open_policy("lru");
	tmem_client *other;
	tmem_pool q;

	assert_int_equal(tmem_client_create(t.host, "other", &other), 0);
	q = tmem_pool_create(other, 0, 0);
	for (uint64_t i = 0; i < 100; i++) {
		test_fill(&page, i, 150);
		assert_int_equal(tmem_put(other, q, &oid, i, &page), 0);
	}
	assert_int_equal(tmem_invalidate_object(other, q, &oid), 100);
	put(&t, 0, 100);
	os_sleep_ns(400000000); /* so old are all of them */
	assert_int_equal(tmem_host_age(t.host, 200), 100);
	tmem_client_destroy(other);
	test_close(&t);
}

/* Pages i of [from, to) of a pool, or how many of them are there. */
static void put_into(struct test_host *t, tmem_pool pool, uint64_t from, uint64_t to)
{
	tmem_pool was = t->pool;

	t->pool = pool;
	put(t, from, to);
	t->pool = was;
}

static unsigned got_of(struct test_host *t, tmem_pool pool, uint64_t from, uint64_t to)
{
	tmem_pool was = t->pool;
	unsigned found;

	t->pool = pool;
	found = got(t, from, to);
	t->pool = was;
	return found;
}

/*
 * A stream of pages that are had again for little leaves those alone that are not, though
 * nobody asks for them meanwhile; a stream of the like does not.
 */
static void what_is_costly_stays(void **state)
{
	const char *const policy[] = {"lru", "s3fifo"};

	for (unsigned k = 0; k < 2; k++) {
		struct test_host t = open_policy(policy[k]);
		tmem_pool costly = tmem_pool_create(t.client, TMEM_POOL_COSTLY, 0);
		unsigned fits, after, end;

		assert_true(costly >= 0);
		put_into(&t, t.pool, 0, FULL);
		fits = (unsigned)test_stats(t.host).pages;
		/* They take the room of the others, whoever came first. */
		put_into(&t, costly, 0, fits / 2);
		assert_int_equal(got_of(&t, costly, 0, fits / 2), fits / 2);
		/* As much as fits takes little of it, and what never ends all of it in time. */
		put_into(&t, t.pool, 20000, 20000 + fits);
		after = tmem_pool_pages(t.client, costly);
		assert_in_range(after, fits * 25 / 100, fits / 2);
		for (uint64_t i = 2; i < 100; i++) {
			put_into(&t, t.pool, i * 20000, i * 20000 + fits);
			if (i == 20)
				assert_true(tmem_pool_pages(t.client, costly) > fits / 20);
		}
		end = tmem_pool_pages(t.client, costly);
		assert_true(end < fits / 20);
		assert_int_equal(tmem_host_verify(t.host, 1), 0);
		/* And all that is there, once it is the only kind. */
		put_into(&t, costly, 50000, 50000 + 4 * fits);
		assert_true(tmem_pool_pages(t.client, costly) > fits * 95 / 100);
		assert_true(tmem_pool_pages(t.client, t.pool) < fits / 50);
		assert_int_equal(tmem_host_verify(t.host, 1), 0);
		test_close(&t);
	}
}

static void only_ephemeral_pools_are_costly(void **state)
{
	struct test_host t = open_policy("lru");

	assert_int_equal(tmem_pool_create(t.client, TMEM_POOL_COSTLY | TMEM_POOL_PERSIST, 0),
			 -EINVAL);
	test_close(&t);
}

/* What the policy remembers goes with the last page, when memory is given back. */
static void nothing_is_remembered_of_nothing(void **state)
{
	struct test_host t = open_policy("s3fifo");
	uint64_t was = test_stats(t.host).store_bytes;

	put(&t, 0, FULL);
	assert_non_null(t.client->ev[ZC_SET_EPHEMERAL].ghosts);
	assert_int_equal(tmem_host_shrink(t.host, UINT64_MAX, NULL), 0);
	assert_null(t.client->ev[ZC_SET_EPHEMERAL].ghosts);
	assert_true(test_stats(t.host).store_bytes < was + (1u << 20));
	put(&t, 0, FULL);
	test_close(&t);
}

/* The main queue is no place to stay for ever: what was wanted once makes room in the end. */
static void what_is_no_longer_wanted_goes(void **state)
{
	struct test_host t = open_policy("s3fifo");

	put(&t, 0, 300);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(got(&t, 0, 300), 300);
	/* New ones that are wanted too, again and again. */
	for (uint64_t i = 1000; i < 30000; i += 200) {
		put(&t, i, i + 200);
		(void)got(&t, i, i + 200);
		(void)got(&t, i, i + 200);
	}
	assert_true(got(&t, 0, 300) < 30);
	assert_int_equal(tmem_host_shrink(t.host, UINT64_MAX, NULL), 0);
	assert_int_equal(test_stats(t.host).pages, 0);
	test_close(&t);
}

static void an_unknown_policy(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	char err[200];
	tmem_host *h;

	o.policy = "clairvoyant";
	assert_int_equal(tmem_host_create(&o, &h, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "lru, s3fifo"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_scan_pushes_out_what_was_wanted_or_not),
		cmocka_unit_test(ghosts_remember),
		cmocka_unit_test(an_exclusive_get_counts),
		cmocka_unit_test(of_a_loop_a_part_stays),
		cmocka_unit_test(age_knows_both_queues),
		cmocka_unit_test(what_was_got_is_not_idle),
		cmocka_unit_test(age_goes_through_all_clients),
		cmocka_unit_test(what_is_costly_stays),
		cmocka_unit_test(only_ephemeral_pools_are_costly),
		cmocka_unit_test(nothing_is_remembered_of_nothing),
		cmocka_unit_test(what_is_no_longer_wanted_goes),
		cmocka_unit_test(an_unknown_policy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
