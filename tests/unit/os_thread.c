/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads: their names and signals; one that detaches itself and is gone at once. */
#include "os/thread.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define BRIEF 4000

struct seen {
	char name[16];
	sigset_t mask;
	_Atomic int n;
};

static void *look(void *arg)
{
	struct seen *s = arg;

	pthread_getname_np(pthread_self(), s->name, sizeof(s->name));
	pthread_sigmask(SIG_BLOCK, NULL, &s->mask);
	return NULL;
}

/* A thread has its name from its first instruction on, and no signal but a fault's reaches it. */
static void test_begin(void **state)
{
	struct seen s = {0};
	sigset_t before, after;
	os_thread t;

	(void)state;
	pthread_sigmask(SIG_BLOCK, NULL, &before);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(os_thread_create(&t, "tmem-test", look, &s), 0);
		os_thread_join(t);
		assert_string_equal(s.name, "tmem-test");
		assert_true(sigismember(&s.mask, SIGTERM));
		assert_false(sigismember(&s.mask, SIGSEGV));
		memset(s.name, 0, sizeof(s.name));
	}
	pthread_sigmask(SIG_BLOCK, NULL, &after);
	assert_int_equal(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
}

static void *vanish(void *arg)
{
	struct seen *s = arg;

	pthread_detach(pthread_self());
	atomic_fetch_add(&s->n, 1);
	return NULL;
}

/* Whoever made it must not look at it any more: its stack may be unmapped by then. */
static void test_detached(void **state)
{
	struct seen s = {0};
	os_thread t;

	(void)state;
	for (int i = 0; i < BRIEF; i++)
		if (os_thread_create(&t, "tmem-brief", vanish, &s) < 0) {
			usleep(1000);
			i--;
		}
	for (int i = 0; i < 5000 && atomic_load(&s.n) < BRIEF; i++)
		usleep(1000);
	assert_int_equal(atomic_load(&s.n), BRIEF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_begin),
		cmocka_unit_test(test_detached),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
