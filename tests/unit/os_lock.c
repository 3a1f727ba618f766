/* SPDX-License-Identifier: BSD-2-Clause */
/* Mutexes, their ranks, condition variables. A violation ends a child process with SIGABRT. */
#include "os/check.h"
#include "os/clock.h"
#include "os/lock.h"
#include "os/thread.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct os_mutex host, pool, shard, unranked, unranked2;

static int setup(void **state)
{
	(void)state;
	os_mutex_init(&host, OS_RANK_HOST, "host");
	os_mutex_init(&pool, OS_RANK_POOL, "pool");
	os_mutex_init(&shard, OS_RANK_SHARD, "shard");
	os_mutex_init(&unranked, OS_RANK_NONE, "unranked");
	os_mutex_init(&unranked2, OS_RANK_NONE, "unranked2");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	os_mutex_destroy(&unranked2);
	os_mutex_destroy(&unranked);
	os_mutex_destroy(&shard);
	os_mutex_destroy(&pool);
	os_mutex_destroy(&host);
	return 0;
}

static void in_order(void **state)
{
	(void)state;
	os_mutex_lock(&host);
	os_mutex_lock(&pool);
	os_mutex_lock(&shard);
	os_mutex_assert_held(&pool);
	/* Released in another order than the reverse one, then taken again. */
	os_mutex_unlock(&pool);
	os_mutex_assert_held(&host);
	os_mutex_assert_held(&shard);
	os_mutex_unlock(&shard);
	os_mutex_lock(&pool);
	os_mutex_unlock(&pool);
	os_mutex_unlock(&host);
}

static void no_rank_no_order(void **state)
{
	(void)state;
	os_mutex_lock(&shard);
	os_mutex_lock(&unranked);
	os_mutex_unlock(&unranked);
	os_mutex_unlock(&shard);
	os_mutex_lock(&unranked2);
	os_mutex_lock(&host);
	os_mutex_unlock(&host);
	os_mutex_unlock(&unranked2);
}

static void trylock_against_order(void **state)
{
	(void)state;
	os_mutex_lock(&shard);
	assert_true(os_mutex_trylock(&host));
	os_mutex_unlock(&host);
	os_mutex_unlock(&shard);
}

static void *hold_pool(void *arg)
{
	int *pipe_fds = arg;
	char c = 0;

	os_mutex_lock(&pool);
	if (write(pipe_fds[1], &c, 1) != 1 || read(pipe_fds[2], &c, 1) != 1)
		c = 1;
	os_mutex_unlock(&pool);
	return NULL;
}

static void trylock_busy(void **state)
{
	int fds[4]; /* 0, 1: to us; 2, 3: to the thread */
	os_thread t;
	char c = 0;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(pipe(fds + 2), 0);
	assert_int_equal(os_thread_create(&t, "hold", hold_pool, fds), 0);
	assert_int_equal(read(fds[0], &c, 1), 1);
	assert_false(os_mutex_trylock(&pool));
	assert_int_equal(write(fds[3], &c, 1), 1);
	os_thread_join(t);
	assert_true(os_mutex_trylock(&pool));
	os_mutex_unlock(&pool);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

/* Run fn in a child; it must abort, having said each of the words on stderr. */
static void expect_abort(void (*fn)(void), const char *word1, const char *word2)
{
	char text[1024];
	size_t used = 0;
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		/* cmocka catches SIGABRT; the child is to die of it. */
		signal(SIGABRT, SIG_DFL);
		dup2(fds[1], STDERR_FILENO);
		fn();
		_exit(0);
	}
	close(fds[1]);
	while (used < sizeof(text) - 1 &&
	       (n = read(fds[0], text + used, sizeof(text) - 1 - used)) > 0)
		used += (size_t)n;
	text[used] = '\0';
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_non_null(strstr(text, word1));
	assert_non_null(strstr(text, word2));
}

static void do_must(void)
{
	volatile int zero = 0;

	tmem_must(zero == 1);
}

static void must_aborts(void **state)
{
	(void)state;
	expect_abort(do_must, "zero == 1", "os_lock.c");
}

#if TMEM_CHECKS >= 1
static void do_inversion(void)
{
	os_mutex_lock(&shard);
	os_mutex_lock(&pool);
}

static void do_same_rank(void)
{
	static struct os_mutex other;

	os_mutex_init(&other, OS_RANK_SHARD, "other shard");
	os_mutex_lock(&shard);
	os_mutex_lock(&other);
}

static void do_twice(void)
{
	os_mutex_lock(&pool);
	os_mutex_lock(&pool);
}

static void do_try_twice(void)
{
	os_mutex_lock(&pool);
	if (os_mutex_trylock(&pool))
		os_mutex_unlock(&pool);
}

static void do_unlock_unheld(void)
{
	os_mutex_unlock(&pool);
}

static void do_assert_held(void)
{
	os_mutex_lock(&host);
	os_mutex_assert_held(&pool);
}

/* What a trylock took against the order counts for what comes after it. */
static void do_after_trylock(void)
{
	os_mutex_lock(&shard);
	if (os_mutex_trylock(&host))
		os_mutex_lock(&pool);
}

static void violations_abort(void **state)
{
	(void)state;
	expect_abort(do_inversion, "taking pool (rank 50)", "holding shard (rank 80)");
	expect_abort(do_same_rank, "taking other shard", "holding shard (rank 80)");
	expect_abort(do_twice, "taken twice", "pool");
	expect_abort(do_try_twice, "taken twice", "pool");
	expect_abort(do_unlock_unheld, "not held", "pool");
	expect_abort(do_assert_held, "must be held", "pool");
	expect_abort(do_after_trylock, "taking pool", "holding shard");
}
#endif

static struct os_cond changed;
static int turn;

static void *take_turns(void *arg)
{
	int me = *(int *)arg;

	for (int i = 0; i < 1000; i++) {
		os_mutex_lock(&pool);
		while (turn != me)
			os_cond_wait(&changed, &pool);
		turn = !me;
		os_cond_broadcast(&changed);
		os_mutex_unlock(&pool);
	}
	return NULL;
}

static void cond_turns(void **state)
{
	int numbers[2] = {0, 1};
	os_thread t[2];

	(void)state;
	os_cond_init(&changed);
	for (int i = 0; i < 2; i++)
		assert_int_equal(os_thread_create(&t[i], "turns", take_turns, &numbers[i]), 0);
	for (int i = 0; i < 2; i++)
		os_thread_join(t[i]);
	assert_int_equal(turn, 0);
	os_cond_destroy(&changed);
}

static void cond_timeout(void **state)
{
	uint64_t start = os_clock_ns();

	(void)state;
	os_cond_init(&changed);
	os_mutex_lock(&pool);
	assert_false(os_cond_timedwait(&changed, &pool, 20 * 1000 * 1000));
	os_mutex_unlock(&pool);
	assert_true(os_clock_ns() - start >= 20 * 1000 * 1000);
	os_cond_destroy(&changed);
}

static void *count(void *arg)
{
	uint64_t *n = arg;

	for (int i = 0; i < 50000; i++) {
		os_mutex_lock(&shard);
		++*n;
		os_mutex_unlock(&shard);
	}
	return NULL;
}

static void excludes(void **state)
{
	os_thread t[4];
	uint64_t n = 0;

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(os_thread_create(&t[i], "count", count, &n), 0);
	for (int i = 0; i < 4; i++)
		os_thread_join(t[i]);
	assert_int_equal(n, 200000);
}

static void *number(void *arg)
{
	unsigned *n = arg;

	*n = os_thread_number();
	return *n == os_thread_number() ? arg : NULL;
}

static void thread_numbers(void **state)
{
	unsigned mine = os_thread_number();
	unsigned n[4];
	os_thread t[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(os_thread_create(&t[i], "number", number, &n[i]), 0);
	for (int i = 0; i < 4; i++)
		os_thread_join(t[i]);
	assert_int_equal(os_thread_number(), mine);
	for (int i = 0; i < 4; i++) {
		assert_int_not_equal(n[i], mine);
		for (int j = 0; j < i; j++)
			assert_int_not_equal(n[i], n[j]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order),
		cmocka_unit_test(no_rank_no_order),
		cmocka_unit_test(trylock_against_order),
		cmocka_unit_test(trylock_busy),
		cmocka_unit_test(must_aborts),
#if TMEM_CHECKS >= 1
		cmocka_unit_test(violations_abort),
#endif
		cmocka_unit_test(cond_turns),
		cmocka_unit_test(cond_timeout),
		cmocka_unit_test(excludes),
		cmocka_unit_test(thread_numbers),
	};

	return cmocka_run_group_tests_name("os_lock", tests, setup, teardown);
}
