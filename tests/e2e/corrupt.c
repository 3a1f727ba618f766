/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * e2e-corrupt MODE [ROUNDS [SEED]]     e2e-corrupt rounds MODE: how many by default
 *
 * The ways in which a pager corrupts memory silently, one mode each (see the
 * tables at the ends of the other files). To be run in a limit of 32 MiB: the
 * pressure alone is more than that. It knows nothing of tmem and must print
 * the same without it. The last line is "all pages right".
 */
#include "corrupt.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PRESSURE (40 * MIB)

const char *self;
static uint64_t seed = 1;
static _Atomic uint64_t places = 1, streams;
static struct mem pressure;
static pthread_t presser;
static _Atomic bool pressing;

void die(const char *fmt, ...)
{
	int error = errno;
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "e2e-corrupt: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, " (%s)\n", strerror(error));
	va_end(ap);
	_exit(2);
}

void sleep_ms(unsigned ms)
{
	struct timespec ts = {ms / 1000, (long)(ms % 1000) * 1000000};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

uint64_t rnd(void)
{
	static __thread uint64_t state;

	if (!state)
		state = mix(seed + 0x1234567 * atomic_fetch_add(&streams, 1)) | 1;
	return mix(state += 0x9e3779b97f4a7c15u);
}

/* ---- pages ------------------------------------------------------------------------- */

uint64_t *map_pages(size_t pages)
{
	void *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

struct mem mem_at(uint64_t *base, size_t pages)
{
	return (struct mem){base, pages, atomic_fetch_add(&places, pages + 1), 0};
}

struct mem mem_make(size_t pages)
{
	struct mem m = mem_at(map_pages(pages), pages);

	mem_fill(&m);
	return m;
}

void mem_fill(struct mem *m)
{
	m->version++;
	for (size_t i = 0; i < m->pages; i++)
		fill_page(m->base + i * WORDS, m->place + i, m->version);
}

void mem_check(const struct mem *m, const char *where)
{
	for (size_t i = 0; i < m->pages; i++)
		check_page(m->base + i * WORDS, m->place + i, m->version, where);
}

/* ---- pressure ------------------------------------------------------------------------- */

static void press_make(void)
{
	if (!pressure.base)
		pressure = mem_make(PRESSURE);
}

void press(void)
{
	press_make();
	/* Twice: what came in once only would leave again before the rest does. */
	for (unsigned k = 0; k < 2; k++)
		for (size_t i = 0; i < pressure.pages; i++)
			((volatile uint64_t *)pressure.base)[i * WORDS + 8] += 0;
	check_page(pressure.base, pressure.place, pressure.version, "pressure");
}

static void *press_main(void *arg)
{
	for (size_t i = 0; atomic_load(&pressing); i = (i + 1) % pressure.pages)
		check_page(pressure.base + i * WORDS, pressure.place + i, pressure.version,
			   "presser");
	return arg;
}

void press_start(void)
{
	press_make();
	atomic_store(&pressing, true);
	if (pthread_create(&presser, NULL, press_main, NULL) != 0)
		die("pthread_create");
}

void press_stop(void)
{
	atomic_store(&pressing, false);
	pthread_join(presser, NULL);
}

void wait_child(pid_t pid, const char *where)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			die("%s: waitpid", where);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return;
	fprintf(stderr, "e2e-corrupt: %s: the child ended with status %x\n", where,
		(unsigned)status);
	_exit(WIFEXITED(status) && WEXITSTATUS(status) == 1 ? 1 : 2);
}

int main(int argc, char **argv)
{
	const struct mode *const tables[] = {map_modes, process_modes, thread_modes, call_modes,
					     row_modes};
	unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 0;

	bool ask = argc > 2 && !strcmp(argv[1], "rounds");

	self = argv[0];
	seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
		for (const struct mode *m = tables[t]; m->name; m++) {
			if (ask && !strcmp(m->name, argv[2])) {
				printf("%u\n", m->rounds);
				return 0;
			}
			if (argc > 1 && !strcmp(m->name, argv[1])) {
				double start = now_s();

				m->run(rounds ? rounds : m->rounds);
				fprintf(stderr, "%s: %.2f s\n", m->name, now_s() - start);
				printf("all pages right\n");
				return 0;
			}
			if (argc < 2)
				printf("%s\n", m->name);
		}
	}
	if (argc >= 2)
		fprintf(stderr,
			"usage: e2e-corrupt MODE [ROUNDS [SEED]]; without MODE: their names\n");
	return argc < 2 ? 0 : 2;
}
