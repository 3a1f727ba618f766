/* SPDX-License-Identifier: BSD-2-Clause */
/* The frame source: the limit holds at every instant, and nothing is lost under threads. */
#include "alloc/frames.h"
#include "os/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_no_limit(void **state)
{
	struct frames f;

	(void)state;
	frames_init(&f, 0);
	assert_true(frames_charge(&f, 1ull << 50));
	assert_int_equal(frames_used(&f), 1ull << 50);
	frames_uncharge(&f, 1ull << 50);
	assert_int_equal(frames_used(&f), 0);
	assert_int_equal(f.peak_bytes, 1ull << 50);
	assert_int_equal(f.refused, 0);
}

static void test_limit(void **state)
{
	struct frames f;

	(void)state;
	frames_init(&f, 8192);
	assert_true(frames_charge(&f, 4096));
	assert_false(frames_charge(&f, 4097));
	assert_int_equal(f.refused, 1);
	assert_int_equal(frames_used(&f), 4096);
	assert_true(frames_charge(&f, 4096)); /* exactly full */
	assert_false(frames_charge(&f, 1));
	assert_true(frames_charge(&f, 0));
	frames_uncharge(&f, 8192);
	assert_false(frames_charge(&f, UINT64_MAX));
}

static void test_limit_lowered(void **state)
{
	struct frames f;

	(void)state;
	frames_init(&f, 0);
	assert_true(frames_charge(&f, 10000));
	frames_set_limit(&f, 5000);
	assert_false(frames_charge(&f, 1));
	frames_uncharge(&f, 6000);
	assert_true(frames_charge(&f, 1000));
	assert_false(frames_charge(&f, 1));
	frames_set_limit(&f, 0);
	assert_true(frames_charge(&f, 1));
}

static struct frames shared;

static void *hammer(void *arg)
{
	uint64_t held = 0, *failures = arg;

	for (unsigned i = 0; i < 200000; i++) {
		if (frames_charge(&shared, 4096))
			held++;
		if (frames_used(&shared) > 64 * 4096)
			++*failures;
		if (i % 3 == 0 && held) {
			frames_uncharge(&shared, 4096);
			held--;
		}
	}
	frames_uncharge(&shared, held * 4096);
	return NULL;
}

static void test_threads(void **state)
{
	uint64_t failures[4] = {0};
	os_thread t[4];

	(void)state;
	frames_init(&shared, 64 * 4096);
	for (int i = 0; i < 4; i++)
		assert_int_equal(os_thread_create(&t[i], "hammer", hammer, &failures[i]), 0);
	for (int i = 0; i < 4; i++) {
		os_thread_join(t[i]);
		assert_int_equal(failures[i], 0);
	}
	assert_int_equal(frames_used(&shared), 0);
	assert_int_equal(shared.peak_bytes, 64 * 4096);
	assert_true(shared.refused > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_limit),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_limit_lowered),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
