/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads come and go while memory is out; signal handlers and their stacks. */
#include "corrupt.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <unistd.h>

#define WAVE 500

static struct mem common;

static void *short_thread(void *arg)
{
	size_t i = (size_t)arg;

	if (i % 4)
		check_page(common.base + i * 3 * WORDS, common.place + i * 3, common.version,
			   "short thread");
	return arg;
}

/* Threads that hardly live: the kernel clears a word in their stack when they end, and says
 * nothing. */
static void storm(unsigned rounds)
{
	pthread_attr_t small;
	pthread_t t[WAVE];

	common = mem_make(8 * MIB);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	press_start();
	for (unsigned k = 0; k < rounds; k++) {
		for (size_t i = 0; i < WAVE; i++)
			if (pthread_create(&t[i], k % 4 == 3 ? NULL : &small, short_thread,
					   (void *)i) != 0)
				die("pthread_create");
		for (size_t i = 0; i < WAVE; i++) {
			void *result;

			if (pthread_join(t[i], &result) != 0 || result != (void *)i)
				die("pthread_join");
		}
		/* One behind the other: each gets the stack of the last. */
		for (size_t i = 0; i < WAVE; i++)
			if (pthread_create(&t[0], &small, short_thread, (void *)i) != 0 ||
			    pthread_join(t[0], NULL) != 0)
				die("pthread_create");
	}
	press_stop();
}

struct stood {
	uint64_t mark;
	pthread_barrier_t *both;
};

/* Stands still on its stack while everything else goes out. */
static void *standing(void *arg)
{
	struct stood *s = arg;
	volatile uint64_t mine[2000];

	for (unsigned i = 0; i < 2000; i++)
		mine[i] = mix(s->mark + i);
	pthread_barrier_wait(s->both);
	pthread_barrier_wait(s->both);
	for (unsigned i = 0; i < 2000; i++)
		if (mine[i] != mix(s->mark + i)) {
			fprintf(stderr, "WRONG PAGE in a thread's stack\n");
			_exit(1);
		}
	return arg;
}

/* Stacks that the program made itself, in the middle of a big mapping. */
static void own_stacks(unsigned rounds)
{
	enum { THREADS = 40, STACK = 16 };
	struct mem m = mem_make(8 * MIB);
	pthread_barrier_t both;
	struct stood s[THREADS];
	pthread_t t[THREADS];

	pthread_barrier_init(&both, NULL, THREADS + 1);
	for (unsigned k = 0; k < rounds; k++) {
		press();
		for (unsigned i = 0; i < THREADS; i++) {
			pthread_attr_t attr;

			s[i] = (struct stood){rnd(), &both};
			pthread_attr_init(&attr);
			/* Every second run of pages is a stack; the others are data. */
			if (pthread_attr_setstack(&attr, m.base + (size_t)i * 2 * STACK * WORDS,
						  STACK * PAGE) ||
			    pthread_create(&t[i], &attr, standing, &s[i]) != 0)
				die("pthread_create");
			pthread_attr_destroy(&attr);
		}
		pthread_barrier_wait(&both);
		press();
		pthread_barrier_wait(&both);
		for (unsigned i = 0; i < THREADS; i++)
			if (pthread_join(t[i], NULL) != 0)
				die("pthread_join");
		for (size_t i = 0; i < m.pages; i++)
			if (i / STACK % 2 || i >= 2ul * STACK * THREADS)
				check_page(m.base + i * WORDS, m.place + i, m.version,
					   "beside the stacks");
	}
	pthread_barrier_destroy(&both);
}

/* Far down its stack it sleeps, and ends by a system call: all that libc keeps of it has left. */
static void *sleeper(void *arg)
{
	volatile char deep[65536];
	struct timespec ts = {0, 400000000};

	deep[0] = 1;
	syscall(SYS_nanosleep, &ts, NULL);
	syscall(SYS_exit, deep[0]);
	return arg;
}

/*
 * The kernel clears a word in the stack of a thread that ends, and takes no for
 * an answer: then pthread_join waits for ever. To be run without rseq, by which
 * the kernel touches that page whenever the thread comes back.
 */
static void sleepers(unsigned rounds)
{
	pthread_t t[20];

	for (unsigned k = 0; k < rounds; k++) {
		press();
		for (unsigned i = 0; i < 20; i++)
			if (pthread_create(&t[i], NULL, sleeper, NULL) != 0)
				die("pthread_create");
		sleep_ms(10);
		for (double end = now_s() + 0.35; now_s() < end;)
			press();
		for (unsigned i = 0; i < 20; i++)
			if (pthread_join(t[i], NULL) != 0)
				die("pthread_join");
	}
}

static int c11_sleeper(void *arg)
{
	sleeper(arg);
	return 0;
}

/* The same, made by C11's call. */
static void sleepers_c11(unsigned rounds)
{
	thrd_t t[20];

	for (unsigned k = 0; k < rounds; k++) {
		press();
		for (unsigned i = 0; i < 20; i++)
			if (thrd_create(&t[i], c11_sleeper, NULL) != thrd_success)
				die("thrd_create");
		sleep_ms(10);
		for (double end = now_s() + 0.35; now_s() < end;)
			press();
		for (unsigned i = 0; i < 20; i++)
			if (thrd_join(t[i], NULL) != thrd_success)
				die("thrd_join");
	}
}

static _Atomic unsigned handled;

static void on_alarm(int sig, siginfo_t *info, void *context)
{
	size_t i = atomic_fetch_add(&handled, 1) * 13 % common.pages;
	volatile uint64_t here[600]; /* more than a page of the other stack */

	for (unsigned k = 0; k < 600; k++)
		here[k] = mix(i + k);
	check_page(common.base + i * WORDS, common.place + i, common.version, "signal handler");
	for (unsigned k = 0; k < 600; k++)
		if (here[k] != mix(i + k))
			_exit(1);
}

/* A handler that reads what is out, on a stack that may be out itself. */
static void signals(unsigned rounds)
{
	stack_t other = {.ss_sp = map_pages(64), .ss_size = 64 * PAGE};
	struct sigaction sa = {.sa_sigaction = on_alarm,
			       .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
	struct itimerval it = {{0, 700}, {0, 700}};

	common = mem_make(8 * MIB);
	if (sigaltstack(&other, NULL) < 0 || sigaction(SIGALRM, &sa, NULL) < 0 ||
	    setitimer(ITIMER_REAL, &it, NULL) < 0)
		die("signals");
	for (unsigned k = 0; k < rounds; k++)
		press();
	it = (struct itimerval){{0, 0}, {0, 0}};
	setitimer(ITIMER_REAL, &it, NULL);
	if (!atomic_load(&handled))
		die("no signal came");
	mem_check(&common, "signals");
}

static _Atomic unsigned caught;

static void on_segv(int sig, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1);

	atomic_fetch_add(&caught, 1);
	if (mprotect((void *)at, PAGE, PROT_READ | PROT_WRITE) < 0)
		_exit(2);
}

/* Barriers of a garbage collector: protected pages that are out, opened one by one by a handler. */
static void barriers(unsigned rounds)
{
	struct sigaction sa = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
	struct mem m = mem_make(8 * MIB);

	sigaction(SIGSEGV, &sa, NULL);
	for (unsigned k = 0; k < rounds; k++) {
		if (mprotect(m.base, m.pages * PAGE, k % 2 ? PROT_NONE : PROT_READ) < 0)
			die("mprotect");
		press();
		for (size_t i = 0; i < m.pages; i += 2 + k) {
			uint64_t *p = m.base + i * WORDS;

			*(volatile uint64_t *)&p[9] += 1; /* opens it */
			*(volatile uint64_t *)&p[9] -= 1;
			check_page(p, m.place + i, m.version, "barriers");
		}
		if (mprotect(m.base, m.pages * PAGE, PROT_READ | PROT_WRITE) < 0)
			die("mprotect");
		mem_check(&m, "barriers, all");
	}
	if (!atomic_load(&caught))
		die("nothing was caught");
}

const struct mode thread_modes[] = {{"storm", storm, 3},
				    {"own-stacks", own_stacks, 1},
				    {"sleepers", sleepers, 1},
				    {"sleepers-c11", sleepers_c11, 1},
				    {"signals", signals, 2},
				    {"barriers", barriers, 2},
				    {NULL, NULL, 0}};
