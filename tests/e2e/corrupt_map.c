/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mappings that change while pages of them are out: discarded, unmapped,
 * moved, grown, protected; and mappings that are none of the pager's business.
 */
#include "corrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- discard ---------------------------------------------------------------------------- */

#define RACE_PAGES 16u

struct race {
	_Atomic uint64_t *at;
	_Atomic uint64_t gone; /* versions up to this one must not be seen any more */
	_Atomic bool over;
};

/* Every word is 0 or of a version that no finished madvise has thrown away. */
static void race_look(struct race *r, size_t i, uint64_t least, const char *where)
{
	uint64_t v = atomic_load(&r->at[i * WORDS + 7]);

	if (v == 0 || v > least)
		return;
	fprintf(stderr,
		"WRONG PAGE (stale) in %s: page %zu, version %llu after %llu was discarded\n",
		where, i, (unsigned long long)v, (unsigned long long)least);
	_exit(1);
}

static void *race_toucher(void *arg)
{
	struct race *r = arg;

	for (size_t i = 0; !atomic_load(&r->over); i = (i + 7) % RACE_PAGES) {
		uint64_t least = atomic_load(&r->gone);

		race_look(r, i, least, "discard-race, toucher");
	}
	return NULL;
}

static void discard_race(unsigned rounds)
{
	struct race r = {.at = (_Atomic uint64_t *)map_pages(RACE_PAGES)};
	pthread_t t;

	press_start();
	if (pthread_create(&t, NULL, race_toucher, &r) != 0)
		die("pthread_create");
	for (uint64_t v = 1; v <= rounds; v++) {
		for (size_t i = 0; i < RACE_PAGES; i++)
			atomic_store(&r.at[i * WORDS + 7], v);
		if (v % 4 == 0)
			sleep_ms(1);
		if (madvise((void *)r.at, RACE_PAGES * PAGE, MADV_DONTNEED) < 0)
			die("madvise");
		atomic_store(&r.gone, v);
		for (size_t i = 0; i < RACE_PAGES; i++)
			race_look(&r, i, v, "discard-race");
	}
	atomic_store(&r.over, true);
	pthread_join(t, NULL);
	press_stop();
}

/* Memory that is cold, and so on its way out, is emptied by three threads all over the place. */
static void *cold_main(void *arg)
{
	struct mem m = mem_make(10 * MIB);
	unsigned rounds = *(unsigned *)arg;
	uint64_t version[10 * MIB];

	for (size_t i = 0; i < m.pages; i++)
		version[i] = m.version;
	for (unsigned k = 0; k < rounds; k++) {
		size_t from = rnd() % (m.pages / 16) * 16, n = k % 2 ? 16 : 1 + rnd() % 16;

		if (madvise(m.base + from * WORDS, n * PAGE, MADV_DONTNEED) < 0)
			die("madvise");
		for (size_t i = from; i < from + n; i++) {
			check_page(m.base + i * WORDS, 0, 0, "discard-cold, emptied");
			fill_page(m.base + i * WORDS, m.place + i, ++version[i]);
		}
		from = rnd() % m.pages;
		check_page(m.base + from * WORDS, m.place + from, version[from], "discard-cold");
	}
	for (size_t i = 0; i < m.pages; i++)
		check_page(m.base + i * WORDS, m.place + i, version[i], "discard-cold, end");
	return NULL;
}

static void discard_cold(unsigned rounds)
{
	pthread_t t[3];

	for (unsigned i = 0; i < 3; i++)
		if (pthread_create(&t[i], NULL, cold_main, &rounds) != 0)
			die("pthread_create");
	for (unsigned i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
}

/*
 * Memory that was never touched is emptied while the next thread walks into it: what is
 * filled in ahead of that one's faults goes again, and is empty and not lost.
 */
#define AHEAD_PAGES 512u

struct walk {
	uint64_t *base;
	_Atomic size_t at;
	_Atomic bool over;
};

static void *empty_ahead(void *arg)
{
	struct walk *w = arg;
	size_t last = 0;

	while (!atomic_load(&w->over)) {
		size_t at = atomic_load(&w->at), i = at + 1 + rnd() % 48;

		if (at == last) {
			sched_yield();
			continue;
		}
		last = at;

		if (i + 8 <= AHEAD_PAGES &&
		    madvise(w->base + i * WORDS, 8 * PAGE, MADV_DONTNEED) < 0)
			die("madvise");
	}
	return NULL;
}

/* Changes of mappings that nobody is told of: who empties has to wait for them, between telling
 * of it and doing it. */
static void *change_others(void *arg)
{
	struct walk *w = arg;
	uint64_t *other = map_pages(64);

	while (!atomic_load(&w->over))
		for (size_t i = 0; i < 64; i += 2)
			if (mprotect(other + i * WORDS, PAGE, PROT_READ) < 0 ||
			    mprotect(other + i * WORDS, PAGE, PROT_READ | PROT_WRITE) < 0)
				die("mprotect");
	return NULL;
}

static void discard_ahead(unsigned rounds)
{
	struct walk w = {.base = map_pages(AHEAD_PAGES)};
	pthread_t t[3];

	press_start();
	for (unsigned i = 0; i < 3; i++)
		if (pthread_create(&t[i], NULL, i < 2 ? empty_ahead : change_others, &w) != 0)
			die("pthread_create");
	for (unsigned k = 1; k <= rounds; k++) {
		atomic_store(&w.at, 0);
		if (madvise(w.base, AHEAD_PAGES * PAGE, MADV_DONTNEED) < 0)
			die("madvise");
		for (size_t i = 0; i < AHEAD_PAGES; i++) {
			volatile uint64_t *word = w.base + i * WORDS;

			atomic_store(&w.at, i);
			if (word[1] >= k) {
				fprintf(stderr, "WRONG PAGE in discard-ahead: page %zu\n", i);
				_exit(1);
			}
			word[1] = k;
		}
	}
	atomic_store(&w.over, true);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	press_stop();
}

/* After MADV_FREE a page is old or empty, until it is written: from then on it stays. */
static void free_race(unsigned rounds)
{
	struct mem m = mem_make(8 * MIB);

	press_start();
	for (unsigned k = 0; k < rounds; k++) {
		size_t from = rnd() % (m.pages - 64);
		uint64_t *p = m.base + from * WORDS;

		if (madvise(p, 64 * PAGE, MADV_FREE) < 0)
			die("madvise");
		for (size_t i = 0; i < 64; i++) {
			volatile uint64_t *w = p + i * WORDS;

			if (i % 3 == 0 && w[1] != 0)
				check_page(p + i * WORDS, m.place + from + i, m.version,
					   "MADV_FREE");
			fill_page(p + i * WORDS, m.place + from + i, m.version);
		}
		if (k % 16 == 0)
			mem_check(&m, "free-race");
	}
	press_stop();
	mem_check(&m, "free-race, end");
}

/* All of it freed lazily and used again at once: it must still be able to leave. */
static void free_reuse(unsigned rounds)
{
	struct mem m = mem_make(24 * MIB);

	for (unsigned k = 0; k < rounds; k++) {
		press();
		if (madvise(m.base, m.pages * PAGE, MADV_FREE) < 0)
			die("madvise");
		mem_fill(&m);
		press();
		mem_check(&m, "free-reuse");
	}
}

/* ---- map and unmap ----------------------------------------------------------------------- */

struct mapper {
	pthread_t thread;
	unsigned rounds;
	uint64_t *window; /* for MAP_FIXED; NULL: where the kernel likes */
};

/* New memory is empty, and then keeps what is written while the same addresses go round. */
static void *mapper_main(void *arg)
{
	struct mapper *w = arg;
	struct mem held[4] = {{0}};

	for (unsigned k = 0; k < w->rounds; k++) {
		struct mem *m = &held[rnd() % 4];
		size_t pages = 16 + rnd() % 64;
		uint64_t *at = w->window ? w->window + (size_t)(m - held) * 128 * WORDS : NULL;

		if (m->base) {
			mem_check(m, "map-race, before munmap");
			if (!w->window && munmap(m->base, m->pages * PAGE) < 0)
				die("munmap");
		}
		at = mmap(at, pages * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);
		if (at == MAP_FAILED)
			die("mmap");
		*m = mem_at(at, pages);
		mem_check(m, "map-race, new mapping");
		mem_fill(m);
		if (k % 8 == 0)
			sleep_ms(1);
		for (size_t i = 0; i < 4; i++)
			if (held[i].base)
				mem_check(&held[i], "map-race");
	}
	return NULL;
}

static void mappers(unsigned rounds, bool fixed)
{
	struct mapper w[3];

	press_start();
	for (unsigned i = 0; i < 3; i++) {
		w[i] = (struct mapper){.rounds = rounds / 3 + 1,
				       .window = fixed ? map_pages(512) : NULL};
		if (pthread_create(&w[i].thread, NULL, mapper_main, &w[i]) != 0)
			die("pthread_create");
	}
	for (unsigned i = 0; i < 3; i++)
		pthread_join(w[i].thread, NULL);
	press_stop();
}

static void map_race(unsigned rounds)
{
	mappers(rounds, false);
}
static void map_fixed(unsigned rounds)
{
	mappers(rounds, true);
}

/* ---- moved mappings ------------------------------------------------------------------------ */

/*
 * realloc and free of large blocks in several threads. Addresses go from one
 * block to another within a microsecond, so events of different threads are
 * under way at once, and their order is not that in which things happened.
 */
static pthread_barrier_t calm;

static void *mover_main(void *arg)
{
	struct mem held[6] = {{0}};
	unsigned rounds = *(unsigned *)arg;

	for (unsigned k = 0; k < rounds; k++) {
		struct mem *m = &held[rnd() % 6];
		size_t pages = 16 + rnd() % 112, had = m->pages;

		if (!m->base) {
			*m = mem_at(map_pages(pages), pages);
			mem_fill(m);
		} else if (rnd() % 3 == 0) {
			mem_check(m, "move-race, before munmap");
			if (munmap(m->base, m->pages * PAGE) < 0)
				die("munmap");
			*m = (struct mem){0};
		} else {
			void *p = mremap(m->base, had * PAGE, pages * PAGE, MREMAP_MAYMOVE);

			if (p == MAP_FAILED)
				die("mremap");
			m->base = p;
			m->pages = pages < had ? pages : had;
			mem_check(m, "move-race, moved");
			m->pages = pages;
			m->place = mem_at(NULL, pages).place;
			mem_fill(m);
		}
		if (k % 24 == 0) { /* a calm moment of all, in which blocks are found and leave */
			pthread_barrier_wait(&calm);
			sleep_ms(6);
		}
	}
	for (size_t i = 0; i < 6; i++)
		mem_check(&held[i], "move-race, end");
	return NULL;
}

static void move_race(unsigned rounds)
{
	unsigned part = rounds / 4 + 1;
	pthread_t t[4];

	pthread_barrier_init(&calm, NULL, 4);
	press_start();
	for (unsigned i = 0; i < 4; i++)
		if (pthread_create(&t[i], NULL, mover_main, &part) != 0)
			die("pthread_create");
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	press_stop();
}

/* One block that grows by odd steps, as realloc makes it, and is out each time. */
static void move_grow(unsigned rounds)
{
	press_start();
	for (unsigned k = 0; k < rounds; k++) {
		struct mem m = mem_make(17);

		while (m.pages < 3000) {
			size_t pages = m.pages * 3 / 2 + 1;
			void *p = mremap(m.base, m.pages * PAGE, pages * PAGE, MREMAP_MAYMOVE);

			if (p == MAP_FAILED)
				die("mremap");
			m.base = p;
			mem_check(&m, "move-grow");
			for (size_t i = m.pages; i < pages; i++) {
				check_page(m.base + i * WORDS, 0, 0, "move-grow, new");
				fill_page(m.base + i * WORDS, m.place + i, m.version);
			}
			m.pages = pages;
		}
		mem_check(&m, "move-grow, end");
		munmap(m.base, m.pages * PAGE);
	}
	press_stop();
}

/* ---- parts of mappings ------------------------------------------------------------------------
 */

/* Other protections, from and to odd pages: clusters end up in several mappings. */
static void protect(unsigned rounds)
{
	struct mem m = mem_make(8 * MIB);

	for (unsigned k = 0; k < rounds; k++) {
		press();
		for (unsigned j = 0; j < 60; j++) {
			size_t from = rnd() % (m.pages - 64), n = 1 + rnd() % 40;
			int how = j % 3 == 0   ? PROT_NONE
				  : j % 3 == 1 ? PROT_READ
					       : PROT_READ | PROT_WRITE;

			if (mprotect(m.base + from * WORDS, n * PAGE, how) < 0)
				die("mprotect");
			if (how != PROT_NONE)
				check_page(m.base + from * WORDS, m.place + from, m.version,
					   "protect");
			if (mprotect(m.base + (from + n) * WORDS, 20 * PAGE, PROT_READ) < 0)
				die("mprotect");
			if (j % 8 == 0) /* the other side of the boundary */
				check_page(m.base + (from + n) * WORDS, m.place + from + n,
					   m.version, "protect, behind");
		}
		press();
		if (mprotect(m.base, m.pages * PAGE, k % 2 ? PROT_READ : PROT_READ | PROT_WRITE) <
		    0)
			die("mprotect");
		mem_check(&m, "protect, whole");
		if (mprotect(m.base, m.pages * PAGE, PROT_READ | PROT_WRITE) < 0)
			die("mprotect");
		mem_fill(&m);
	}
}

/* First touches around a boundary within a mapping. */
static void protect_fresh(unsigned rounds)
{
	for (unsigned k = 0; k < rounds; k++) {
		struct mem m = mem_at(map_pages(4 * MIB), 4 * MIB);

		press();
		for (size_t i = 5; i < m.pages; i += 37)
			if (mprotect(m.base + i * WORDS, PAGE * (1 + i % 5), PROT_READ) < 0)
				die("mprotect");
		for (size_t i = 0; i < m.pages; i++)
			check_page(m.base + i * WORDS, 0, 0, "protect-fresh");
		if (mprotect(m.base, m.pages * PAGE, PROT_READ | PROT_WRITE) < 0)
			die("mprotect");
		mem_fill(&m);
		press();
		mem_check(&m, "protect-fresh");
		munmap(m.base, m.pages * PAGE);
	}
}

static void brk_heap(unsigned rounds)
{
	for (unsigned k = 0; k < rounds; k++) {
		size_t pages = 4 * MIB, less = pages / 2 + 3;
		char *was = sbrk(0), *at;
		struct mem m;

		if (sbrk((intptr_t)((PAGE - (uintptr_t)was % PAGE) % PAGE)) == (void *)-1)
			die("sbrk");
		at = sbrk((intptr_t)(pages * PAGE));
		if (at == (void *)-1)
			die("sbrk");
		m = mem_at((uint64_t *)(void *)at, pages);
		mem_check(&m, "brk, new");
		mem_fill(&m);
		press();
		if (sbrk(-(intptr_t)(less * PAGE)) == (void *)-1)
			die("sbrk");
		m.pages -= less;
		mem_check(&m, "brk, the rest");
		if (sbrk((intptr_t)(less * PAGE)) == (void *)-1)
			die("sbrk");
		for (size_t i = pages - less; i < pages; i++)
			check_page(m.base + i * WORDS, 0, 0, "brk, grown again");
		press();
		mem_check(&m, "brk, end");
		if (brk(was) < 0)
			die("brk");
	}
}

/* ---- mappings of other kinds
 * --------------------------------------------------------------------- */

static void shared(unsigned rounds)
{
	char name[] = "/tmp/e2e-corrupt.XXXXXX";
	int fd = mkstemp(name), how = PROT_READ | PROT_WRITE;
	size_t pages = 4 * MIB;
	struct mem m[3];

	unlink(name);
	if (fd < 0 || ftruncate(fd, (off_t)(2 * pages * PAGE)) < 0)
		die("a file");
	m[0] = mem_at(mmap(NULL, pages * PAGE, how, MAP_SHARED | MAP_ANONYMOUS, -1, 0), pages);
	m[1] = mem_at(mmap(NULL, pages * PAGE, how, MAP_SHARED, fd, 0), pages);
	m[2] = mem_at(mmap(NULL, pages * PAGE, how, MAP_PRIVATE, fd, (off_t)(pages * PAGE)), pages);
	for (unsigned k = 0; k < rounds; k++) {
		for (unsigned i = 0; i < 3; i++)
			mem_fill(&m[i]);
		press();
		for (unsigned i = 0; i < 3; i++)
			mem_check(&m[i], "shared");
		for (size_t i = 0; i < pages; i += 7) {
			uint64_t buf[WORDS];

			if (pread(fd, buf, PAGE, (off_t)(i * PAGE)) != PAGE)
				die("pread");
			check_page(buf, m[1].place + i, m[1].version,
				   "the file of a shared mapping");
			if (pread(fd, buf, PAGE, (off_t)((pages + i) * PAGE)) != PAGE)
				die("pread");
			check_page(buf, 0, 0, "the file of a private mapping");
		}
	}
	close(fd);
}

/* As many mappings as may be: pages alone, so that neighbours do not merge, and small runs. */
static void small_maps(unsigned rounds)
{
	size_t n = 6000;
	uint64_t *all = map_pages(2 * n);
	struct mem m[400];

	for (size_t i = 0; i < n; i++) {
		fill_page(all + 2 * i * WORDS, i, 7);
		if (mprotect(all + (2 * i + 1) * WORDS, PAGE, PROT_NONE) < 0)
			die("mprotect");
	}
	for (size_t i = 0; i < 400; i++) {
		m[i] = mem_make(16 + i % 7);
		mmap(m[i].base + m[i].pages * WORDS, PAGE, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	}
	for (unsigned k = 0; k < rounds; k++) {
		press();
		for (size_t i = 0; i < 400; i++)
			mem_check(&m[i], "small-maps");
		for (size_t i = 0; i < n; i++)
			check_page(all + 2 * i * WORDS, i, 7, "small-maps, single pages");
	}
}

/* Mapping and unmapping for long: what the pager knows of the past must not pile up. */
static void churn(unsigned rounds)
{
	press();
	for (unsigned k = 0; k < rounds; k++) {
		struct mem m = mem_make(24);

		if (k % 64 == 0)
			sleep_ms(2);
		mem_check(&m, "churn");
		munmap(m.base, m.pages * PAGE);
	}
	press();
}

static void huge_space(unsigned rounds)
{
	size_t pages = (1ull << 40) / PAGE;
	uint64_t *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t where[4000];

	if (p == MAP_FAILED)
		die("mmap of a terabyte");
	for (unsigned k = 1; k <= rounds; k++) {
		for (unsigned i = 0; i < 4000; i++) {
			where[i] = i % 2 ? where[i - 1] + 1
					 : rnd() % (pages / 4000) + i * (pages / 4001);
			fill_page(p + where[i] * WORDS, where[i], k);
		}
		press();
		for (unsigned i = 0; i < 4000; i++)
			check_page(p + where[i] * WORDS, where[i], k, "huge-space");
		if (madvise(p, pages * PAGE, MADV_DONTNEED) < 0)
			die("madvise");
		for (unsigned i = 0; i < 4000; i += 5)
			check_page(p + where[i] * WORDS, 0, 0, "huge-space, discarded");
	}
}

/* Data that does not compress; with `noise` also data that changes between both kinds. */
static void random_data(unsigned rounds)
{
	struct mem m;

	noise = true;
	m = mem_make(64 * MIB);
	for (unsigned k = 0; k < rounds; k++) {
		mem_check(&m, "random");
		mem_fill(&m);
		mem_check(&m, "random, filled again");
		mem_fill(&m);
	}
	mem_check(&m, "random, end");
}

/* ---- a program with a userfaultfd of its own
 * --------------------------------------------------------- */

struct own {
	int fd;
	uint64_t *base;
	uint64_t place;
};

static void *own_handler(void *arg)
{
	struct own *o = arg;
	static uint64_t page[WORDS];
	struct uffd_msg msg;

	while (read(o->fd, &msg, sizeof(msg)) == sizeof(msg)) {
		uint64_t at = msg.arg.pagefault.address & ~(uint64_t)(PAGE - 1);
		struct uffdio_copy c = {.dst = at, .src = (uintptr_t)page, .len = PAGE};

		fill_page(page, o->place + (at - (uintptr_t)o->base) / PAGE, 5);
		if (ioctl(o->fd, UFFDIO_COPY, &c) < 0 && errno != EEXIST)
			die("UFFDIO_COPY");
	}
	return NULL;
}

static void own_uffd(unsigned rounds)
{
	size_t pages = 4 * MIB;

	press();
	for (unsigned k = 0; k < rounds; k++) {
		struct uffdio_api api = {.api = UFFD_API};
		struct own o = {(int)syscall(SYS_userfaultfd, O_CLOEXEC), NULL, 1000 * k};
		struct uffdio_register r = {.mode = UFFDIO_REGISTER_MODE_MISSING};
		pthread_t t;

		if (o.fd < 0 || ioctl(o.fd, UFFDIO_API, &api) < 0)
			die("userfaultfd");
		/* The pager may have been quicker with one; never with all. */
		for (unsigned try = 0;; try++) {
			o.base = map_pages(pages);
			r.range.start = (uintptr_t)o.base;
			r.range.len = pages * PAGE;
			if (ioctl(o.fd, UFFDIO_REGISTER, &r) == 0)
				break;
			if (try == 20)
				die("UFFDIO_REGISTER");
		}
		if (pthread_create(&t, NULL, own_handler, &o) != 0)
			die("pthread_create");
		for (unsigned j = 0; j < 2; j++) {
			for (size_t i = 0; i < pages; i++)
				check_page(o.base + i * WORDS, o.place + i, 5, "own-uffd");
			press();
		}
		pthread_cancel(t);
		pthread_join(t, NULL);
		munmap(o.base, pages * PAGE);
		close(o.fd);
	}
}

/* ---- unmapped while it is waited for -------------------------------------------------------- */

#define WANTED 64u /* mappings at a time, so that the pager has them before they are wanted */

static struct {
	uint64_t *at;
	int file;
	_Atomic unsigned turn, over;
} wanted;

/* A system call that writes to memory which goes just then: it fails, or was quicker. */
static void *wanted_main(void *arg)
{
	unsigned rounds = *(unsigned *)arg;

	for (unsigned k = 1; k <= rounds; k++) {
		ssize_t n;

		while (atomic_load(&wanted.turn) != k)
			;
		n = pread(wanted.file, wanted.at, PAGE, 0);
		if (n != PAGE && !(n < 0 && errno == EFAULT))
			die("pread: %zd", n);
		atomic_store(&wanted.over, k);
	}
	return arg;
}

/* Nobody waits for such a page any more, and the pager is to forget it: run_corrupt.sh looks. */
static void unmap_wanted(unsigned rounds)
{
	struct mem m = mem_make(40 * MIB);
	uint64_t *place[WANTED], page[WORDS];
	size_t bytes = 16 * PAGE;
	pthread_t t;

	fill_page(page, 1, 1);
	wanted.file = memfd_create("unmap-wanted", MFD_CLOEXEC);
	if (wanted.file < 0 || write(wanted.file, page, PAGE) != PAGE ||
	    pthread_create(&t, NULL, wanted_main, &rounds) != 0)
		die("a file, or a thread");
	for (unsigned k = 1; k <= rounds; k++) {
		unsigned i = k % WANTED;

		for (unsigned j = 0; (i == 0 || k == 1) && j < WANTED; j++) {
			if (k > 1 && munmap(place[j], bytes + 2 * PAGE) < 0)
				die("munmap");
			place[j] = mmap(NULL, bytes + 2 * PAGE, PROT_NONE,
					MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (place[j] == MAP_FAILED ||
			    mprotect(place[j] + WORDS, bytes, PROT_READ | PROT_WRITE) < 0)
				die("mmap, or mprotect");
		}
		if (i == 0 || k == 1)
			sleep_ms(10);
		wanted.at = place[i] + (1 + rnd() % 16) * WORDS;
		atomic_store(&wanted.turn, k);
		for (volatile unsigned spin = (unsigned)(rnd() % 4000); spin; spin--)
			;
		if (munmap(place[i] + WORDS, bytes) < 0)
			die("munmap");
		while (atomic_load(&wanted.over) != k)
			sched_yield();
	}
	pthread_join(t, NULL);
	mem_check(&m, "unmap-wanted");
	munmap(m.base, m.pages * PAGE);
	printf("quiet\n");
	sleep_ms(2500);
}

/*
 * What was freed when nobody looked yet (MADV_FREE) goes in its own time, when the kernel wants
 * memory; here when it is told to. Zeros then, or what was there.
 */
static void free_before(unsigned rounds)
{
	struct mem freed = mem_make(8 * MIB), m;

	if ((rounds % 2 ? madvise(freed.base, freed.pages * PAGE, MADV_FREE)
			: (int)syscall(SYS_madvise, freed.base, freed.pages * PAGE, MADV_FREE)) < 0)
		die("MADV_FREE");
	m = mem_make(40 * MIB); /* far over the limit */
	if (madvise(freed.base, freed.pages * PAGE, MADV_PAGEOUT) < 0)
		die("MADV_PAGEOUT");
	for (size_t i = 0; i < freed.pages; i++)
		if (freed.base[i * WORDS] == 0)
			check_page(freed.base + i * WORDS, 0, 0, "free-before");
		else
			check_page(freed.base + i * WORDS, freed.place + i, freed.version,
				   "free-before");
	mem_fill(&freed);
	mem_check(&m, "free-before, the rest");
	mem_check(&freed, "free-before, filled again");
	munmap(freed.base, freed.pages * PAGE);
	munmap(m.base, m.pages * PAGE);
}

const struct mode map_modes[] = {{"discard-race", discard_race, 200},
				 {"discard-cold", discard_cold, 2000},
				 {"discard-ahead", discard_ahead, 20},
				 {"free-race", free_race, 1000},
				 {"free-reuse", free_reuse, 1},
				 {"free-before", free_before, 1},
				 {"map-race", map_race, 1000},
				 {"map-fixed", map_fixed, 1000},
				 {"move-race", move_race, 2500},
				 {"move-grow", move_grow, 1},
				 {"protect", protect, 1},
				 {"protect-fresh", protect_fresh, 1},
				 {"brk", brk_heap, 1},
				 {"shared", shared, 1},
				 {"small-maps", small_maps, 4},
				 {"churn", churn, 1500},
				 {"huge-space", huge_space, 1},
				 {"random", random_data, 1},
				 {"own-uffd", own_uffd, 1},
				 {"unmap-wanted", unmap_wanted, 4000},
				 {NULL, NULL, 0}};
