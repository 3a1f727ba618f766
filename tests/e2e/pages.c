/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * e2e-pages: a program whose every page says what it must hold.
 *
 *   e2e-pages MODE MIB SECONDS [SEED]
 *
 * It keeps MIB megabytes of anonymous memory in a few mappings, in pages that
 * say what they must hold (named_page.h); a table of the versions, one word a
 * page, is the model.
 * MODE chooses what is done besides writing and reading pages at random:
 *
 *   touch    nothing
 *   discard  MADV_DONTNEED of ranges: they must read as zeros, at once and
 *            later, whatever was evicted at that moment
 *   remap    mremap to another address and back, mapping and unmapping
 *   fork     children that check everything they inherited while the parent
 *            goes on writing, and the other way round
 *   threads  four threads, each with its own part, and pages handed over
 *   syscall  read(2) and write(2) straight into and out of the pages
 *   burst    nothing, but the memory is filled as fast as the machine writes;
 *            the others fill at 100 MiB a second, as programs that compute do
 *   all      everything, one after the other
 *
 * A wrong page is named: stale, zero, torn, or another's. Exit code 1 then.
 * Prints one line of counts; the same MODE, MIB and SEED do the same things.
 */
#include "named_page.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REGIONS 8
#define THREADS 4
#define PACE	(100.0 * (1 << 20)) /* bytes a second */

struct region {
	uint64_t *base;
	uint64_t *version; /* of each page; 0: never written or discarded, reads as zeros */
	size_t pages;
	unsigned id;
};

struct work {
	struct region *regions;
	unsigned n;
	uint64_t rng;
	uint64_t writes, reads, others;
	double until_s;
};

static struct region regions[REGIONS];

static uint64_t rnd(struct work *w)
{
	return mix(w->rng += 0x9e3779b97f4a7c15u);
}

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "e2e-pages: %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint64_t place_of(const struct region *r, size_t page)
{
	return (uint64_t)r->id << 40 | page;
}

static void check_in(const struct region *r, size_t page, const char *where)
{
	check_page(r->base + page * WORDS, place_of(r, page), r->version[page], where);
}

static void write_in(struct region *r, size_t page)
{
	fill_page(r->base + page * WORDS, place_of(r, page), ++r->version[page]);
}

static void check_all(struct work *w, const char *where)
{
	for (unsigned k = 0; k < w->n; k++)
		for (size_t i = 0; i < w->regions[k].pages; i++)
			check_in(&w->regions[k], i, where);
}

static uint64_t *map_pages(size_t pages)
{
	void *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

/* A page, near the last one three times in four: programs have neighbourhoods. */
static size_t pick(struct work *w, const struct region *r)
{
	static __thread size_t last;
	uint64_t x = rnd(w);

	last = x % 4 ? (last + (x >> 8) % 32) % r->pages : (x >> 8) % r->pages;
	return last;
}

static void touch(struct work *w, unsigned times, const char *where)
{
	for (unsigned i = 0; i < times; i++) {
		struct region *r = &w->regions[rnd(w) % w->n];
		size_t page = pick(w, r);

		check_in(r, page, where);
		w->reads++;
		if (rnd(w) % 3 == 0) {
			write_in(r, page);
			w->writes++;
		}
	}
}

static void discard(struct work *w)
{
	struct region *r = &w->regions[rnd(w) % w->n];
	size_t from = rnd(w) % r->pages, n = rnd(w) % 64 + 1;
	uint64_t was[64];

	n = from + n > r->pages ? r->pages - from : n;
	if (madvise(r->base + from * WORDS, n * PAGE, MADV_DONTNEED) != 0)
		die("madvise");
	memcpy(was, r->version + from, n * sizeof(*was));
	memset(r->version + from, 0, n * sizeof(*r->version));
	/* Half of them are read at once, the others by chance, later. */
	for (size_t i = 0; i < n; i += 2)
		check_in(r, from + i, "discard");
	for (size_t i = 0; i < n; i += 3) {
		/* A version once used would not tell stale from right. */
		r->version[from + i] = w->others * 1000000 + 1;
		write_in(r, from + i);
	}
	/* Now and then with what was there: a stored copy must not be taken for still being there.
	 */
	for (size_t i = 0; w->others % 4 == 3 && i < n; i++) {
		if (!was[i])
			continue;
		r->version[from + i] = was[i] - 1;
		write_in(r, from + i);
	}
	w->others++;
}

static void remap(struct work *w)
{
	struct region *r = &w->regions[rnd(w) % w->n];
	uint64_t *there = map_pages(r->pages);
	size_t sample = pick(w, r);
	void *p;

	p = mremap(r->base, r->pages * PAGE, r->pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, there);
	if (p == MAP_FAILED)
		die("mremap");
	/* The old place, mapped anew, must be empty. */
	p = mmap(r->base, r->pages * PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (p == MAP_FAILED)
		die("mmap");
	check_page(r->base + sample * WORDS, 0, 0, "the old place of a mremap");
	munmap(r->base, r->pages * PAGE);
	r->base = there;
	check_in(r, sample, "mremap");
	w->others++;
}

static void wait_child(pid_t pid, const char *where)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			die("waitpid");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "e2e-pages: %s: the child ended with status %x\n", where, status);
		_exit(1);
	}
}

static void do_fork(struct work *w)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		/* All of it one time in four: that is what a save does. */
		if (w->others % 4 == 0) {
			check_all(w, "fork, child, all");
			/* What it has come in is kept in the store for the parent. */
			for (unsigned k = 0; k < 16; k++) {
				w->others = 4 * k + 3;
				discard(w);
			}
			check_all(w, "fork, child, discarded");
		}
		touch(w, 300, "fork, child");
		_exit(0);
	}
	touch(w, 300, "fork, parent");
	wait_child(pid, "fork");
	touch(w, 100, "after fork");
	w->others++;
}

/* Pages go out through a pipe by write(2) and into other pages by read(2). */
static void through_pipe(struct work *w)
{
	struct region *a = &w->regions[rnd(w) % w->n], *b = &w->regions[rnd(w) % w->n];
	size_t from = pick(w, a), to = pick(w, b);
	int fd[2];

	if (pipe(fd) != 0)
		die("pipe");
	if (write(fd[1], a->base + from * WORDS, PAGE) != PAGE)
		die("write from a page");
	if (read(fd[0], b->base + to * WORDS, PAGE) != PAGE)
		die("read into a page");
	check_page(b->base + to * WORDS, place_of(a, from), a->version[from], "pipe");
	write_in(b, to);
	close(fd[0]);
	close(fd[1]);
	w->others++;
}

static void *thread_main(void *arg)
{
	struct work *w = arg;

	while (now_s() < w->until_s) {
		touch(w, 200, "thread");
		if (rnd(w) % 8 == 0)
			discard(w);
	}
	check_all(w, "thread, end");
	return NULL;
}

/* Each thread has regions of its own; afterwards the caller finds all of it as they left it. */
static void threads(struct work *w)
{
	struct work part[THREADS];
	pthread_t t[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		part[i] = (struct work){.regions = w->regions + i * (REGIONS / THREADS),
					.n = REGIONS / THREADS,
					.rng = rnd(w),
					.others = w->others + 1000 * (i + 1),
					.until_s = w->until_s};
		if (pthread_create(&t[i], NULL, thread_main, &part[i]) != 0)
			die("pthread_create");
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		w->reads += part[i].reads;
		w->writes += part[i].writes;
	}
	w->others += 1000 * (THREADS + 1);
}

/* Pages that are used one by one, and then left alone: the store packs them anew. */
static void rest(struct work *w, double seconds)
{
	struct timespec ts = {0, 50000000};

	while (now_s() < w->until_s - seconds * 2 / 3)
		touch(w, 200, "rest");
	while (now_s() < w->until_s)
		nanosleep(&ts, NULL);
	touch(w, 2000, "after rest");
	discard(w);
	touch(w, 2000, "after rest");
}

static void run(struct work *w, const char *mode, double seconds)
{
	w->until_s = now_s() + seconds;
	if (!strcmp(mode, "threads"))
		threads(w);
	if (!strcmp(mode, "rest"))
		rest(w, seconds);
	while (now_s() < w->until_s) {
		touch(w, 200, mode);
		if (!strcmp(mode, "discard"))
			discard(w);
		else if (!strcmp(mode, "remap"))
			remap(w);
		else if (!strcmp(mode, "fork"))
			do_fork(w);
		else if (!strcmp(mode, "syscall"))
			through_pipe(w);
	}
	check_all(w, mode);
	fprintf(stderr, "%s: %llu reads, %llu writes, %llu others\n", mode,
		(unsigned long long)w->reads, (unsigned long long)w->writes,
		(unsigned long long)w->others);
}

/* Sleeps until `bytes` may have been written since start_s. */
static void keep_pace(double start_s, double bytes)
{
	double ahead = bytes / PACE - (now_s() - start_s);
	struct timespec ts = {0, (long)(ahead * 1e9)};

	if (ahead > 0 && ahead < 1)
		nanosleep(&ts, NULL);
}

static void fill_region(struct region *r, bool burst)
{
	double start_s = now_s();

	for (size_t k = 0; k < r->pages; k++) {
		if (!burst && k % 32 == 0)
			keep_pace(start_s, (double)k * PAGE);
		write_in(r, k);
	}
}

int main(int argc, char **argv)
{
	static const char *const modes[] = {"touch",   "discard", "remap", "fork",
					    "threads", "syscall", "burst", "rest"};
	const size_t nmodes = sizeof(modes) / sizeof(modes[0]);
	size_t pages = argc > 2 ? (size_t)atol(argv[2]) * 256 / REGIONS : 0;
	double seconds = argc > 3 ? atof(argv[3]) : 0;
	struct work w = {
		.regions = regions, .n = REGIONS, .rng = argc > 4 ? (uint64_t)atoll(argv[4]) : 1};
	bool known = false;

	if (!pages || seconds <= 0) {
		fprintf(stderr, "usage: e2e-pages MODE MIB SECONDS [SEED]\n");
		return 2;
	}
	for (unsigned i = 0; i < REGIONS; i++) {
		regions[i] = (struct region){map_pages(pages), map_pages(pages / WORDS + 1), pages,
					     i + 1};
		fill_region(&regions[i], !strcmp(argv[1], "burst"));
	}
	for (size_t i = 0; i < nmodes; i++) {
		bool all = !strcmp(argv[1], "all");

		if (all || !strcmp(argv[1], modes[i])) {
			run(&w, modes[i], all ? seconds / (double)nmodes : seconds);
			known = true;
		}
	}
	if (!known) {
		fprintf(stderr, "e2e-pages: unknown mode %s\n", argv[1]);
		return 2;
	}
	printf("all pages right\n");
	return 0;
}
