/* SPDX-License-Identifier: BSD-2-Clause */
/* e2e-hard: many threads, many children. */
#include "hard.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS	 512
#define CROWD	 3000
#define CHILDREN 1000
#define LIVING	 200

/* ---- 512 threads ------------------------------------------------------------- */

static __thread uint64_t of_thread[512];
static char *ballast;
static size_t share;
static pthread_barrier_t together;

static void *thread_main(void *arg)
{
	size_t me = (size_t)(uintptr_t)arg, wrong = 0;
	uint64_t on_stack[1024];

	for (size_t i = 0; i < 1024; i++)
		on_stack[i] = me * i;
	for (size_t i = 0; i < 512; i++)
		of_thread[i] = me + i;
	ballast_fill(ballast, me * share, share, 1);
	pthread_barrier_wait(&together);
	for (uint64_t round = 1; round < 4; round++) {
		wrong += ballast_wrong(ballast, me * share, share, round);
		ballast_fill(ballast, me * share, share, round + 1);
	}
	for (size_t i = 0; i < 1024; i++)
		wrong += on_stack[i] != me * i;
	for (size_t i = 0; i < 512; i++)
		wrong += of_thread[i] != me + i;
	return (void *)(uintptr_t)wrong;
}

/* n of them alive at once, twice, so that stacks are used again. */
static void threads(size_t mib, size_t n)
{
	static pthread_t thread[CROWD];
	pthread_attr_t attr;

	share = mib * 256 / n;
	ballast = ballast_map(share * n);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 << 10);
	for (int round = 0; round < 2; round++) {
		pthread_barrier_init(&together, NULL, (unsigned)n);
		for (size_t i = 0; i < n; i++)
			if (pthread_create(&thread[i], &attr, thread_main, (void *)(uintptr_t)i))
				fail("no thread %zu", i);
		for (size_t i = 0; i < n; i++) {
			void *wrong;

			pthread_join(thread[i], &wrong);
			if (wrong)
				fail("thread %zu: %zu wrong", i, (size_t)(uintptr_t)wrong);
		}
		pthread_barrier_destroy(&together);
		if (ballast_wrong(ballast, 0, share * n, 4))
			fail("wrong pages after round %d", round);
	}
	printf("%zu threads, %zu pages each\n", n, share);
}

void hard_threads(size_t mib)
{
	threads(mib, THREADS);
}

void hard_crowd(size_t mib)
{
	threads(mib, CROWD);
}

/* ---- children ------------------------------------------------------------------ */

/* A child looks at some pages, writes to some of them, and looks again. */
static int child_main(char *at, size_t pages, size_t k)
{
	size_t n = 32, first = k * 7919 % (pages - n);

	if (ballast_wrong(at, first, n, 0))
		return 1;
	ballast_fill(at, first, n / 2, k + 1);
	return ballast_wrong(at, first, n / 2, k + 1) || ballast_wrong(at, first + n / 2, n / 2, 0);
}

static void reap_one(void)
{
	int status;
	pid_t pid = wait(&status);

	if (pid < 0)
		fail("a child is missing: %s", strerror(errno));
	if (status)
		fail("child %d ended with status %#x", (int)pid, (unsigned)status);
}

static void children(size_t mib, pid_t (*make)(void))
{
	size_t pages = mib * 256, alive = 0;
	char *at = ballast_map(pages);

	ballast_fill(at, 0, pages, 0);
	for (size_t k = 0; k < CHILDREN; k++) {
		pid_t pid;

		if (alive == 4) {
			reap_one();
			alive--;
		}
		pid = make();
		if (pid == 0)
			_exit(child_main(at, pages, k));
		if (pid < 0)
			fail("fork %zu: %s", k, strerror(errno));
		alive++;
		/* The parent goes on working. */
		if (ballast_wrong(at, k * 4099 % (pages - 16), 16, 0))
			fail("wrong pages in the parent");
	}
	while (alive--)
		reap_one();
	if (ballast_wrong(at, 0, pages, 0))
		fail("wrong pages in the end");
	printf("%d children\n", CHILDREN);
}

void hard_children(size_t mib)
{
	children(mib, fork);
}

/* As programs do that bring their own libc, or none: no atfork handler runs. */
static pid_t raw_clone(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

void hard_rawclone(size_t mib)
{
	children(mib, raw_clone);
}

/* Many that live at once, each with a little memory of its own. */
void hard_living(size_t mib)
{
	size_t pages = mib * 256, own = 64;
	char *at = ballast_map(pages);
	int go[2];
	char byte;

	ballast_fill(at, 0, pages, 0);
	if (pipe(go))
		fail("no pipe");
	for (size_t k = 0; k < LIVING; k++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork %zu: %s", k, strerror(errno));
		if (pid)
			continue;
		close(go[1]);
		char *mine = ballast_map(own);

		ballast_fill(mine, 0, own, k);
		if (read(go[0], &byte, 1) != 0)
			_exit(2);
		_exit(ballast_wrong(mine, 0, own, k) || child_main(at, pages, k));
	}
	close(go[0]);
	if (ballast_wrong(at, 0, pages, 0))
		fail("wrong pages while children live");
	ballast_fill(at, 0, pages, 1);
	close(go[1]);
	for (size_t k = 0; k < LIVING; k++)
		reap_one();
	if (ballast_wrong(at, 0, pages, 1))
		fail("wrong pages in the end");
	printf("%d children at once\n", LIVING);
}
