/* SPDX-License-Identifier: BSD-2-Clause */
/* The pager goes where the thread is that faults; the tests' thread plays the pager. */
#include "frontswap/pager/run.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static struct run run;
static struct space sp;

/* A thread that sits on one processor. */
static struct {
	pthread_t thread;
	_Atomic pid_t tid;
	_Atomic int to, at;
	_Atomic bool over;
} sitter;

static struct {
	pthread_t thread;
	_Atomic pid_t tid;
} idler; /* a worker */

static void *idle(void *arg)
{
	(void)arg;
	atomic_store(&idler.tid, gettid());
	while (!atomic_load(&sitter.over))
		usleep(1000);
	return NULL;
}

static void *sit(void *arg)
{
	(void)arg;
	while (!atomic_load(&sitter.over)) {
		int to = atomic_load(&sitter.to);
		cpu_set_t set;

		if (to != atomic_load(&sitter.at)) {
			CPU_ZERO(&set);
			CPU_SET((unsigned)to, &set);
			sched_setaffinity(0, sizeof(set), &set);
			atomic_store(&sitter.at, to);
			atomic_store(&sitter.tid, gettid());
		}
		usleep(100);
	}
	return NULL;
}

static void sit_on(int cpu)
{
	atomic_store(&sitter.to, cpu);
	while (atomic_load(&sitter.at) != cpu)
		usleep(100);
}

/* The two processors that tests use, of those there are; skips with fewer. */
static void two(int cpu[2])
{
	int n = 0;

	for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET((unsigned)i, &run.allowed))
			cpu[n++] = i;
	if (n < 2)
		skip();
}

static int bound_to(void)
{
	cpu_set_t set;

	assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
	if (CPU_EQUAL(&set, &run.allowed))
		return -1;
	assert_int_equal(CPU_COUNT(&set), 1);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET((unsigned)i, &set))
			return i;
	return -2;
}

static void look(unsigned faults, pid_t tid)
{
	for (unsigned i = 0; i < faults; i++)
		home_fault(&sp, tid);
	sp.last_tick_ns += 1000000;
	home_tick(&sp);
}

static int setup(void **state)
{
	(void)state;
	memset(&run, 0, sizeof(run));
	memset(&sp, 0, sizeof(sp));
	setpriority(PRIO_PROCESS, 0, 0);
	home_note(&run);
	sp.run = &run;
	sp.pid = getpid();
	sp.last_tick_ns = 1000000000;
	home_init(&sp);
	atomic_store(&sitter.at, -1);
	atomic_store(&sitter.over, false);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET((unsigned)i, &run.allowed))
			atomic_store(&sitter.to, i);
	atomic_store(&idler.tid, 0);
	if (pthread_create(&idler.thread, NULL, idle, NULL))
		return -1;
	while (!atomic_load(&idler.tid))
		usleep(100);
	return pthread_create(&sitter.thread, NULL, sit, NULL);
}

static int teardown(void **state)
{
	(void)state;
	atomic_store(&sitter.over, true);
	pthread_join(sitter.thread, NULL);
	pthread_join(idler.thread, NULL);
	home_init(&sp);
	return sched_setaffinity(0, sizeof(run.allowed), &run.allowed);
}

static void follows(void **state)
{
	int cpu[2];

	(void)state;
	two(cpu);
	sit_on(cpu[1]);
	look(200, sitter.tid);
	assert_int_equal(bound_to(), cpu[1]);
	sit_on(cpu[0]);
	look(200, sitter.tid);
	assert_int_equal(bound_to(), cpu[0]);
	for (unsigned i = 0; i < 15; i++)
		look(1, sitter.tid);
	assert_int_equal(bound_to(), cpu[0]); /* a short calm */
	look(1, sitter.tid);
	assert_int_equal(bound_to(), -1);
}

/* Faults of two threads in turn have no home; nor has a thread that is no more. */
static void nobody(void **state)
{
	int cpu[2];

	(void)state;
	two(cpu);
	sit_on(cpu[1]);
	for (unsigned i = 0; i < 400; i++)
		home_fault(&sp, i % 2 ? sitter.tid : 1);
	look(0, 0);
	assert_int_equal(bound_to(), -1);
	look(200, 0x3fffffff);
	assert_int_equal(bound_to(), -1);
	look(200, sitter.tid);
	assert_int_equal(bound_to(), cpu[1]);
	look(200, 0x3fffffff);
	assert_int_equal(bound_to(), -1);
}

static int policy(void)
{
	return sched_getscheduler(0);
}

/* A thread that is elsewhere whenever it is looked for: we yield; still: we give it up for a pause.
 */
static void in_vain(void **state)
{
	unsigned looks = sp.home.may_yield ? 17 : 9;
	int cpu[2];

	(void)state;
	two(cpu);
	for (unsigned i = 0; i < looks; i++) {
		sit_on(cpu[i % 2]);
		look(200, sitter.tid);
		assert_int_equal(bound_to(), i < looks - 1 ? cpu[i % 2] : -1);
		assert_int_equal(policy(), i >= 8 && i < looks - 1 ? SCHED_IDLE : SCHED_OTHER);
	}
	for (unsigned i = 0; i < 49; i++)
		look(200, sitter.tid);
	assert_int_equal(bound_to(), -1);
	look(200, sitter.tid);
	assert_int_equal(bound_to(), cpu[0]);
}

static void yield_on(const int cpu[2])
{
	if (!sp.home.may_yield)
		skip();
	for (unsigned i = 0; i < 9; i++) {
		sit_on(cpu[i % 2]);
		look(200, sitter.tid);
	}
	assert_int_equal(policy(), SCHED_IDLE);
}

/* Calm comes and goes: we yield again at once when faults are back. */
static void yields_again(void **state)
{
	int cpu[2];

	(void)state;
	two(cpu);
	yield_on(cpu);
	for (unsigned i = 0; i < 16; i++)
		look(7, sitter.tid);
	assert_int_equal(policy(), SCHED_OTHER);
	assert_int_equal(bound_to(), -1);
	assert_int_equal(getpriority(PRIO_PROCESS, 0), run.nice - 10);
	look(200, sitter.tid);
	assert_int_equal(policy(), SCHED_IDLE);
	assert_int_equal(bound_to(), cpu[0]);
}

/* A thread like any other that never sleeps; who begins it is under SCHED_IDLE. */
static void *hog(void *over)
{
	struct sched_param none = {0};

	sched_setscheduler(0, SCHED_OTHER, &none);
	while (!atomic_load((_Atomic bool *)over))
		;
	return NULL;
}

/* Somebody else has the processor, while the thread sleeps: yielding ends, for a pause. */
static void starves(void **state)
{
	_Atomic bool over = false;
	pthread_t thread;
	int cpu[2], i;
	cpu_set_t set;

	(void)state;
	two(cpu);
	yield_on(cpu);
	CPU_ZERO(&set);
	CPU_SET((unsigned)cpu[0], &set);
	assert_int_equal(pthread_create(&thread, NULL, hog, &over), 0);
	assert_int_equal(pthread_setaffinity_np(thread, sizeof(set), &set), 0);
	for (i = 0; i < 40 && policy() == SCHED_IDLE; i++) {
		struct timespec t;

		usleep(2000); /* to be woken is to wait */
		clock_gettime(CLOCK_MONOTONIC, &t);
		sp.last_tick_ns = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
		home_fault(&sp, sitter.tid);
		home_tick(&sp);
	}
	atomic_store(&over, true);
	pthread_join(thread, NULL);
	assert_int_equal(policy(), SCHED_OTHER);
	assert_true(i < 16); /* not by calm */
	look(200, sitter.tid);
	assert_int_equal(bound_to(), -1);
}

/* While we yield, workers keep off our processor; when we end, they need not any more. */
static void workers_keep_off(void **state)
{
	cpu_set_t set;
	int cpu[2];

	(void)state;
	two(cpu);
	run.nworkers = 1;
	run.worker_tid[0] = idler.tid;
	yield_on(cpu);
	assert_int_equal(sched_getaffinity(run.worker_tid[0], sizeof(set), &set), 0);
	assert_int_equal(CPU_COUNT(&set), CPU_COUNT(&run.allowed) - 1);
	assert_false(CPU_ISSET((unsigned)cpu[0], &set));
	home_end(&sp);
	assert_int_equal(sched_getaffinity(run.worker_tid[0], sizeof(set), &set), 0);
	assert_true(CPU_EQUAL(&set, &run.allowed));
	assert_int_equal(policy(), SCHED_OTHER);
	assert_int_equal(bound_to(), -1);
}

/* A child's pager does not begin as its parent's is bound. */
static void begins_anew(void **state)
{
	int cpu[2];

	(void)state;
	two(cpu);
	yield_on(cpu);
	home_init(&sp);
	assert_int_equal(policy(), SCHED_OTHER);
	assert_int_equal(bound_to(), -1);
}

static void left_out(void **state)
{
	int cpu[2];

	(void)state;
	two(cpu);
	run.opts.without = FOLLOW_FAULTS;
	home_init(&sp);
	look(200, sitter.tid);
	assert_int_equal(bound_to(), -1);
}

/* Who was started to be nice stays nicer than others: the pager goes before its program only. */
static void hurries(void **state)
{
	(void)state;
	run.nice = 15;
	assert_true(home_hurry(&run, 5) || geteuid());
	assert_true(getpriority(PRIO_PROCESS, 0) == 10 || geteuid());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(follows, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(in_vain, setup, teardown),
		cmocka_unit_test_setup_teardown(yields_again, setup, teardown),
		cmocka_unit_test_setup_teardown(starves, setup, teardown),
		cmocka_unit_test_setup_teardown(workers_keep_off, setup, teardown),
		cmocka_unit_test_setup_teardown(begins_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(left_out, setup, teardown),
		cmocka_unit_test_setup_teardown(hurries, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
