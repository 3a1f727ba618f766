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

static pthread_t idler; /* a worker that has nothing to do */

static void *idle(void *arg)
{
	(void)arg;
	while (!atomic_load(&sitter.over))
		usleep(1000); /* it is there to be bound, not to run */
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
			atomic_store(&sitter.tid, gettid());
			atomic_store(&sitter.at, to); /* last: it is waited for */
		}
		usleep(100); /* asleep: yielding must not starve because of it */
	}
	return NULL;
}

static void sit_on(int cpu)
{
	atomic_store(&sitter.to, cpu);
	while (atomic_load(&sitter.at) != cpu)
		usleep(100); /* until it has gone there: its own turn of its loop */
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
	if (pthread_create(&idler, NULL, idle, NULL))
		return -1;
	return pthread_create(&sitter.thread, NULL, sit, NULL);
}

static int teardown(void **state)
{
	(void)state;
	atomic_store(&sitter.over, true);
	pthread_join(sitter.thread, NULL);
	pthread_join(idler, NULL);
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
		skip(); /* an ordinary user: the kernel would not let us back, so it is never done
			 */
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

/*
 * A thread that hardly sleeps. It is a real-time one: an ordinary one does not make one under
 * SCHED_IDLE wait each time, the kernel lets in who has waited long.
 */
static struct {
	pthread_t thread;
	_Atomic pid_t tid;
	_Atomic bool over, allowed;
} hog;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void *run_on(void *cpu)
{
	struct sched_param first = {.sched_priority = 1};
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((unsigned)*(const int *)cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
	atomic_store(&hog.allowed, sched_setscheduler(0, SCHED_FIFO, &first) == 0);
	atomic_store(&hog.tid, gettid());
	while (hog.allowed && !atomic_load(&hog.over)) {
		uint64_t until = now_ns() + 2000000;

		while (now_ns() < until && !atomic_load(&hog.over))
			;
		usleep(100);
	}
	return NULL;
}

/* Looks, at most n and as long as we yield, while a hog has our processor; how many there were. */
static unsigned looks_beside_hog(const int *cpu, unsigned n)
{
	unsigned i = 0;

	atomic_store(&hog.tid, 0);
	atomic_store(&hog.over, false);
	assert_int_equal(pthread_create(&hog.thread, NULL, run_on, (void *)(uintptr_t)cpu), 0);
	while (!atomic_load(&hog.tid))
		usleep(100); /* until it runs */
	while (i < n && policy() == SCHED_IDLE) {
		uint64_t due = sp.home.next_ns;

		usleep(100); /* to be woken is to wait; little else is in the time between two looks
			      */
		sp.last_tick_ns = now_ns();
		home_fault(&sp, sp.home.tid);
		home_tick(&sp);
		sp.home.faults = 0;
		i += sp.home.next_ns != due;
	}
	atomic_store(&hog.over, true);
	pthread_join(hog.thread, NULL);
	return i;
}

/* Somebody else has the processor, while the thread sleeps: yielding ends, for a pause. */
static void starves(void **state)
{
	unsigned looks;
	int cpu[2];

	(void)state;
	two(cpu);
	yield_on(cpu);
	looks = looks_beside_hog(cpu, 40);
	if (!hog.allowed)
		skip();
	assert_in_range(looks, 1, 15); /* by calm it takes 16 */
	assert_int_equal(policy(), SCHED_OTHER);
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
	run.workers[0] = idler;
	yield_on(cpu);
	assert_int_equal(pthread_getaffinity_np(idler, sizeof(set), &set), 0);
	assert_int_equal(CPU_COUNT(&set), CPU_COUNT(&run.allowed) - 1);
	assert_false(CPU_ISSET((unsigned)cpu[0], &set));
	home_end(&sp);
	assert_int_equal(pthread_getaffinity_np(idler, sizeof(set), &set), 0);
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
