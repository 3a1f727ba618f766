/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * e2e-auto: a program of which a part is in use.
 *
 *   e2e-auto MODE MIB HOT_MIB SECONDS
 *
 * MIB megabytes in one mapping are filled with pages that say what they must hold; then for SECONDS
 * the first HOT_MIB are used, all of them five times a second:
 *
 *   part     that; at the end all pages are compared
 *   phase    after five eighths of the time the last HOT_MIB are used instead, and written to
 *   fork     from 11 s on, each 5 s, a child looks at some of the cold pages, and changes some
 *   threads  four threads use the hot part, and each now and then maps and unmaps memory
 *   speed    no rest in between, and cold pages are not looked at: prints how many were used a
 * second
 *
 * Every page is compared whenever it is used.
 */
#include "named_page.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 4u
#define STEP	97u /* of a child's pages */

static uint64_t *memory, *version;
static size_t pages, hot, first; /* [first, first + hot) is in use */
static double end_s;

static void use(const char *where)
{
	for (size_t i = first; i < first + hot; i++)
		check_page(memory + i * WORDS, i, version[i], where);
}

static void child(void)
{
	for (size_t i = 3; i < pages; i += STEP)
		check_page(memory + i * WORDS, i, version[i], "child");
	for (size_t i = 5; i < pages; i += STEP) {
		fill_page(memory + i * WORDS, i, version[i] + 1);
		check_page(memory + i * WORDS, i, version[i] + 1, "child, written");
	}
	_exit(0);
}

static void fork_one(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		child();
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status) {
		fprintf(stderr, "e2e-auto: a child failed\n");
		exit(1);
	}
}

static void *thread(void *arg)
{
	uint64_t place = 1000000 + (uintptr_t)arg * 1000;

	while (now_s() < end_s) {
		uint64_t *own = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (own == MAP_FAILED)
			exit(2);
		for (unsigned i = 0; i < 64; i++)
			fill_page(own + i * WORDS, place + i, 1);
		use("thread");
		for (unsigned i = 0; i < 64; i++)
			check_page(own + i * WORDS, place + i, 1, "own");
		munmap(own, 64 * PAGE);
		usleep(100000);
	}
	return NULL;
}

static void with_threads(void)
{
	pthread_t t[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&t[i], NULL, thread, (void *)i))
			exit(2);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
}

static void turn(void)
{
	first = pages - hot;
	for (size_t i = first; i < pages; i++) {
		check_page(memory + i * WORDS, i, version[i], "phase");
		fill_page(memory + i * WORDS, i, ++version[i]);
	}
}

static uint64_t run(const char *mode, double seconds)
{
	double start = now_s(), next_fork = start + 11;
	uint64_t used = 0;

	end_s = start + seconds;
	if (!strcmp(mode, "threads"))
		with_threads();
	while (now_s() < end_s) {
		use(mode);
		used += hot;
		if (!strcmp(mode, "phase") && !first && now_s() > start + seconds * 5 / 8)
			turn();
		if (!strcmp(mode, "fork") && now_s() > next_fork) {
			fork_one();
			next_fork = now_s() + 5;
		}
		if (strcmp(mode, "speed") != 0)
			usleep(200000);
	}
	return (uint64_t)((double)used / (now_s() - start));
}

int main(int argc, char **argv)
{
	const char *mode = argc == 5 ? argv[1] : "";

	if (argc != 5) {
		fprintf(stderr, "usage: e2e-auto MODE MIB HOT_MIB SECONDS\n");
		return 2;
	}
	pages = strtoul(argv[2], NULL, 10) << 8;
	hot = strtoul(argv[3], NULL, 10) << 8;
	version = calloc(pages, sizeof(*version));
	memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		      0);
	if (memory == MAP_FAILED || !version || hot > pages)
		return 2;
	for (size_t i = 0; i < pages; i++)
		fill_page(memory + i * WORDS, i, version[i] = 1);
	printf("%llu\n", (unsigned long long)run(mode, strtod(argv[4], NULL)));
	for (size_t i = 0; i < pages && strcmp(mode, "speed") != 0; i++)
		check_page(memory + i * WORDS, i, version[i], "end");
	return 0;
}
