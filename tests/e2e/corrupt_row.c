/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The same ways once more, each as one short act on a few pages that are out: a thousand rounds
 * take seconds. A thread walks through more memory than the limit allows all the while, so what
 * is not in use leaves; each round looks for pages that have (/proc/self/pagemap), does the one
 * thing that could lose them, and reads them. How many rounds found such pages is printed.
 * tools/regress.sh runs all of them.
 */
#include "corrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define CHUNK  16u	  /* pages of a round */
#define BLOCK  32u	  /* pages of a mapping of its own */
#define BLOCKS 64u	  /* of these */
#define COLD   (16 * MIB) /* pages */

extern char **environ;

static struct mem cold, block[BLOCKS];
static int pagemap = -1;
static uint64_t hits; /* rounds that found pages which were out */

/* ---- pages that are out ------------------------------------------------------------------ */

/* How many of n pages are not here. */
static unsigned absent(const uint64_t *at, size_t n)
{
	uint64_t e[512];
	unsigned out = 0;

	if (pagemap < 0)
		pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (pread(pagemap, e, n * 8, (off_t)((uintptr_t)at / PAGE * 8)) != (ssize_t)(n * 8))
		die("pagemap");
	for (size_t i = 0; i < n; i++)
		out += !(e[i] >> 62);
	return out;
}

/* A chunk of the cold memory of which some is out, if one is soon found. */
static size_t pick(void)
{
	size_t from = 0;

	for (unsigned try = 0; try < 400; try++) {
		from = rnd() % (COLD / CHUNK) * CHUNK;
		if (absent(cold.base + from * WORDS, CHUNK)) {
			hits++;
			break;
		}
		if (try % 8 == 7)
			sleep_ms(1);
	}
	return from;
}

static struct mem *pick_block(void)
{
	struct mem *m = block;

	for (unsigned try = 0; try < 400; try++) {
		m = &block[rnd() % BLOCKS];
		if (absent(m->base, BLOCK)) {
			hits++;
			break;
		}
		if (try % 8 == 7)
			sleep_ms(1);
	}
	return m;
}

static void look(size_t from, const char *where)
{
	for (size_t i = from; i < from + CHUNK; i++)
		check_page(cold.base + i * WORDS, cold.place + i, cold.version, where);
}

static void write_again(size_t from)
{
	for (size_t i = from; i < from + CHUNK; i++)
		fill_page(cold.base + i * WORDS, cold.place + i, cold.version);
}

static void *chunk_at(size_t from)
{
	return cold.base + from * WORDS;
}

/* A mapping that joins no other. */
static struct mem block_make(void)
{
	uint64_t *p = mmap(NULL, (BLOCK + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct mem m;

	if (p == MAP_FAILED || mmap(p + WORDS, BLOCK * PAGE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		die("mmap");
	m = mem_at(p + WORDS, BLOCK);
	mem_fill(&m);
	return m;
}

/* Where a block was there is an empty one with the guards still on both sides. */
static void block_again(struct mem *m)
{
	if (mmap(m->base, BLOCK * PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		die("mmap");
	*m = mem_at(m->base, BLOCK);
	mem_check(m, "a new mapping");
	mem_fill(m);
}

static void run(void (*round)(unsigned), unsigned rounds)
{
	cold = mem_make(COLD);
	for (unsigned i = 0; i < BLOCKS; i++)
		block[i] = block_make();
	press_start();
	for (unsigned k = 0; k < rounds; k++)
		round(k);
	press_stop();
	mem_check(&cold, "at the end");
	for (unsigned i = 0; i < BLOCKS; i++)
		mem_check(&block[i], "a block at the end");
	printf("%u rounds, %llu on pages that were out\n", rounds, (unsigned long long)hits);
}

/* ---- children ------------------------------------------------------------------------------ */

static void child_looks(size_t from, const char *where)
{
	look(from, where);
	for (size_t i = from; i < from + CHUNK; i++)
		fill_page(cold.base + i * WORDS, cold.place + i,
			  99); /* of no concern to the parent */
	_exit(0);
}

static void row_fork(unsigned k)
{
	size_t from = pick();
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0)
		child_looks(from, "row-fork, child");
	if (k % 2)
		write_again(from);
	look(from, "row-fork, parent");
	wait_child(pid, "row-fork");
	look(from, "row-fork, after the child");
}

static void row_fork_raw(unsigned k)
{
	size_t from = pick();
	long pid = k % 2 ? syscall(SYS_clone, (long)SIGCHLD, 0, 0, 0, 0) : syscall(SYS_fork);

	if (pid < 0)
		die("raw fork");
	if (pid == 0)
		child_looks(from, "row-fork-raw, child");
	wait_child((pid_t)pid, "row-fork-raw");
	look(from, "row-fork-raw, parent");
}

/*
 * A child that libc knows nothing of changes its mappings at once, before anybody has made books
 * for it; one of the parent's it does not have at all.
 */
static void hasty_child(struct mem *without, struct mem *gone, struct mem *moved,
			struct mem *emptied)
{
	size_t bytes = BLOCK * PAGE;
	uint64_t *to;

	if (munmap(gone->base, bytes) < 0)
		die("munmap");
	to = mremap(moved->base, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, gone->base);
	if (to == MAP_FAILED || madvise(emptied->base, bytes, MADV_DONTNEED) < 0)
		die("mremap, or MADV_DONTNEED");
	moved->base = to;
	mem_check(moved, "row-hasty, child, moved");
	for (size_t i = 0; i < BLOCK; i++)
		check_page(emptied->base + i * WORDS, 0, 0, "row-hasty, child, emptied");
	if (mmap(without->base, bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != without->base)
		_exit(errno == EEXIST ? 0 : 2); /* something else came first */
	for (size_t i = 0; i < BLOCK; i++)
		check_page(without->base + i * WORDS, 0, 0, "row-hasty, child, without");
}

static void row_hasty(unsigned k)
{
	struct mem *m = &block[rnd() % (BLOCKS - 3)];
	size_t from = pick();
	long pid;

	if (madvise(m->base, BLOCK * PAGE, MADV_DONTFORK) < 0)
		die("MADV_DONTFORK");
	pid = syscall(SYS_clone, (long)SIGCHLD, 0, 0, 0, 0);
	if (pid < 0)
		die("raw fork");
	if (pid == 0) {
		hasty_child(m, m + 1, m + 2, m + 3);
		child_looks(from, "row-hasty, child");
	}
	wait_child((pid_t)pid, "row-hasty");
	for (unsigned i = 0; i < 4; i++)
		mem_check(m + i, "row-hasty, parent");
	look(from, "row-hasty, parent");
	if (madvise(m->base, BLOCK * PAGE, MADV_DOFORK) < 0)
		die("MADV_DOFORK");
	if (k % 4 == 0)
		sleep_ms(2);
}

/* Two forks past libc at once: the grandchild is there before the child has all of its pages. */
static void row_twice(unsigned k)
{
	size_t from = pick();
	long pid = syscall(SYS_clone, (long)SIGCHLD, 0, 0, 0, 0), below;

	if (pid < 0)
		die("raw fork");
	if (pid == 0) {
		below = syscall(SYS_clone, (long)SIGCHLD, 0, 0, 0, 0);
		if (below < 0)
			_exit(2);
		for (size_t i = 0; below == 0 && i < COLD; i += CHUNK)
			look(i, "row-twice, grandchild");
		if (below == 0)
			_exit(0);
		wait_child((pid_t)below, "row-twice, grandchild");
		child_looks(from, "row-twice, child");
	}
	wait_child((pid_t)pid, "row-twice");
	look(from, "row-twice, parent");
}

/*
 * After a fork, and the child's end, a page is copied when it is first written to. What is written
 * just as it leaves must not be lost; what was written is in memory that nobody manages, too.
 */
static void row_written(unsigned k)
{
	enum { PAGES = 2 * MIB };
	static uint64_t *page, *shadow;
	pid_t pid;

	if (!page) {
		page = map_pages(PAGES);
		shadow = mmap(NULL, PAGES * 8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			      -1, 0);
		if (shadow == MAP_FAILED)
			die("mmap");
	}
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0)
		_exit(0);
	wait_child(pid, "row-written");
	look(pick(), "row-written");
	for (unsigned n = 0; n < 1000; n++) {
		size_t i = rnd() % PAGES;
		uint64_t *at = page + i * WORDS + i % WORDS;

		if (*at != shadow[i]) {
			fprintf(stderr, "WRONG PAGE (stale) in row-written: %llu is %llu\n",
				(unsigned long long)shadow[i], (unsigned long long)*at);
			_exit(1);
		}
		shadow[i] = ++*at;
	}
}

static void row_vfork(unsigned k)
{
	size_t from = pick();
	pid_t pid = vfork();

	if (pid < 0)
		die("vfork");
	if (pid == 0) { /* in our memory */
		look(from, "row-vfork, child");
		_exit(0);
	}
	wait_child(pid, "row-vfork");
	look(pick(), "row-vfork, parent");
}

static void row_spawn(unsigned k)
{
	char *argv[] = {(char[]){"true"}, NULL};
	size_t from = pick();
	pid_t pid;
	int rc = posix_spawnp(&pid, "true", NULL, NULL, argv, environ);

	if (rc)
		die("posix_spawn: %s", strerror(rc));
	look(from, "row-spawn");
	wait_child(pid, "row-spawn");
}

/* A child finds these pages empty, whether they were out or not. */
static void row_wipe(unsigned k)
{
	struct mem *m = pick_block();
	pid_t pid;

	if (madvise(m->base, BLOCK * PAGE, MADV_WIPEONFORK) < 0)
		die("MADV_WIPEONFORK");
	if (k % 4 == 0)
		sleep_ms(3);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		for (size_t i = 0; i < BLOCK; i++)
			check_page(m->base + i * WORDS, 0, 0, "row-wipe, child");
		_exit(0);
	}
	wait_child(pid, "row-wipe");
	mem_check(m, "row-wipe, parent");
	munmap(m->base - WORDS, (BLOCK + 2) * PAGE);
	*m = block_make(); /* what was wiped once the pager leaves alone */
}

/* The same in a child that libc knows nothing of, and no agent is in. */
static void row_wipe_raw(unsigned k)
{
	struct mem *m = pick_block();
	long pid;

	if (madvise(m->base, BLOCK * PAGE, MADV_WIPEONFORK) < 0)
		die("MADV_WIPEONFORK");
	pid = syscall(SYS_clone, (long)SIGCHLD, 0, 0, 0, 0);
	if (pid < 0)
		die("raw fork");
	for (size_t i = 0; pid == 0 && i < BLOCK; i++)
		check_page(m->base + i * WORDS, 0, 0, "row-wipe-raw, child");
	if (pid == 0)
		_exit(0);
	wait_child((pid_t)pid, "row-wipe-raw");
	mem_check(m, "row-wipe-raw, parent");
	munmap(m->base - WORDS, (BLOCK + 2) * PAGE);
	*m = block_make();
}

/*
 * A child writes to what it found empty, and its own child finds that empty again. The first one
 * has said nothing of it: it has the mapping's mark from its parent.
 */
static void row_wipe_again(unsigned k)
{
	struct mem *m = pick_block();
	pid_t pid, below;

	if (madvise(m->base, BLOCK * PAGE, MADV_WIPEONFORK) < 0)
		die("MADV_WIPEONFORK");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		pagemap = -1; /* the parent's */
		mem_fill(m);
		mem_make(MIB); /* it is the first to leave: all else the parent has, too */
		for (unsigned i = 0; i < 20 && !absent(m->base, BLOCK); i++)
			sleep_ms(1);
		below = fork();
		if (below < 0)
			die("fork");
		for (size_t i = 0; below == 0 && i < BLOCK; i++)
			check_page(m->base + i * WORDS, 0, 0, "row-wipe-again, grandchild");
		if (below == 0)
			_exit(0);
		wait_child(below, "row-wipe-again, grandchild");
		mem_check(m, "row-wipe-again, child");
		_exit(0);
	}
	wait_child(pid, "row-wipe-again");
	mem_check(m, "row-wipe-again, parent");
	munmap(m->base - WORDS, (BLOCK + 2) * PAGE);
	*m = block_make();
}

#define GUARD_INSTALL 102 /* Linux 6.13 */
#define GUARD_REMOVE  103

static sigjmp_buf at_guard;

static void on_guard(int sig)
{
	(void)sig;
	siglongjmp(at_guard, 1);
}

/* Guard pages are empty when they come off; a page that comes in beside one leaves it there. */
static void row_guard(unsigned k)
{
	struct sigaction act = {.sa_handler = on_guard}, old;
	struct mem *m = pick_block();
	size_t from = k % (BLOCK / 2), n = 1 + k % (BLOCK / 4);
	volatile uint64_t *p = m->base + from * WORDS;

	if (k % 2)
		sleep_ms(3);
	if (madvise(m->base + from * WORDS, n * PAGE, GUARD_INSTALL) < 0) {
		if (errno == EINVAL)
			return; /* an older kernel */
		die("MADV_GUARD_INSTALL");
	}
	if (k % 3 == 0)
		sleep_ms(3);
	if (madvise(m->base + from * WORDS, n * PAGE, GUARD_REMOVE) < 0)
		die("MADV_GUARD_REMOVE");
	for (size_t i = 0; i < n; i++)
		check_page(m->base + (from + i) * WORDS, 0, 0, "row-guard");
	/* Upwards, as the kernel or we would fill ahead, and to the guard. */
	if (madvise(m->base, BLOCK * PAGE, MADV_DONTNEED) < 0 ||
	    madvise(m->base + (BLOCK - 1) * WORDS, PAGE, GUARD_INSTALL) < 0)
		die("a guard at the end");
	for (size_t i = 0; i < BLOCK - 1; i++)
		m->base[i * WORDS] = i;
	sigaction(SIGSEGV, &act, &old);
	if (sigsetjmp(at_guard, 1) == 0) {
		p = m->base + (BLOCK - 1) * WORDS;
		*p = 1;
		sigaction(SIGSEGV, &old, NULL);
		die("WRONG PAGE: where a guard was, row-guard");
	}
	sigaction(SIGSEGV, &old, NULL);
	munmap(m->base - WORDS, (BLOCK + 2) * PAGE);
	*m = block_make();
}

/* A child does not have them at all: what it maps there is its own. */
static void row_without(unsigned k)
{
	struct mem *m = pick_block();
	pid_t pid;

	if (madvise(m->base, BLOCK * PAGE, MADV_DONTFORK) < 0)
		die("MADV_DONTFORK");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		if (mmap(m->base, BLOCK * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != m->base)
			_exit(errno == EEXIST ? 0 : 2); /* something else came first */
		for (size_t i = 0; i < BLOCK; i++)
			check_page(m->base + i * WORDS, 0, 0, "row-without, child");
		_exit(0);
	}
	wait_child(pid, "row-without");
	mem_check(m, "row-without, parent");
	if (madvise(m->base, BLOCK * PAGE, MADV_DOFORK) < 0)
		die("MADV_DOFORK");
}

/* ---- mappings ------------------------------------------------------------------------------ */

/* Moved to another place; every fourth leaves its old mapping behind, empty. */
static void row_remap(unsigned k)
{
	struct mem *m = pick_block();
	size_t bytes = BLOCK * PAGE;
	uint64_t *to = mmap(NULL, bytes + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int how = MREMAP_MAYMOVE | MREMAP_FIXED | (k % 4 == 3 ? MREMAP_DONTUNMAP : 0);
	uint64_t *was = m->base;

	if (to == MAP_FAILED || mremap(was, bytes, bytes, how, to + WORDS) != to + WORDS)
		die("mremap");
	m->base = to + WORDS;
	mem_check(m, "row-remap");
	for (size_t i = 0; k % 4 == 3 && i < BLOCK; i++)
		check_page(was + i * WORDS, 0, 0, "row-remap, left behind");
	if (munmap(was - WORDS, bytes + 2 * PAGE) < 0)
		die("munmap");
}

/* A block that grows by odd steps must always be one mapping, or the call fails. */
static void row_grow(unsigned k)
{
	static struct mem m;
	size_t pages;
	void *p;

	if (m.pages > 1500) {
		munmap(m.base, m.pages * PAGE);
		m.base = NULL;
	}
	if (!m.base)
		m = mem_make(17);
	if (absent(m.base, m.pages < 512 ? m.pages : 512))
		hits++;
	pages = m.pages * 9 / 8 + 1;
	p = mremap(m.base, m.pages * PAGE, pages * PAGE, MREMAP_MAYMOVE);
	if (p == MAP_FAILED)
		die("mremap");
	m.base = p;
	mem_check(&m, "row-grow");
	for (size_t i = m.pages; i < pages; i++) {
		check_page(m.base + i * WORDS, 0, 0, "row-grow, new");
		fill_page(m.base + i * WORDS, m.place + i, m.version);
	}
	m.pages = pages;
	sleep_ms(k % 4);
}

/* Emptied while it leaves, and read by another thread at once: discard-race has that part. */
static void row_discard(unsigned k)
{
	size_t from = pick();

	if (madvise(chunk_at(from), CHUNK * PAGE, MADV_DONTNEED) < 0)
		die("MADV_DONTNEED");
	for (size_t i = from; i < from + CHUNK; i++)
		check_page(cold.base + i * WORDS, 0, 0, "row-discard");
	write_again(from);
}

/* Somebody faults while mappings come and go: who serves must read the events, or all stand still.
 */
static void row_munmap(unsigned k)
{
	struct mem m = mem_make(24);

	if (k % 8 == 0)
		sleep_ms(2);
	look(pick(), "row-munmap, beside it");
	mem_check(&m, "row-munmap");
	if (munmap(m.base, m.pages * PAGE) < 0)
		die("munmap");
}

/* The place of a block that is out, mapped anew. */
static void row_map_over(unsigned k)
{
	block_again(pick_block());
}

static void row_protect(unsigned k)
{
	size_t from = pick();
	int how = k % 2 ? PROT_READ : PROT_NONE;

	if (mprotect(chunk_at(from), CHUNK * PAGE, how) < 0)
		die("mprotect");
	if (how == PROT_READ)
		look(from, "row-protect, read only");
	if (mprotect(cold.base, COLD * PAGE, PROT_READ | PROT_WRITE) < 0)
		die("mprotect");
	look(from, "row-protect");
}

static void row_brk(unsigned k)
{
	static struct mem m;
	size_t less = 1 + rnd() % 60, bytes = 4 * MIB * PAGE, some = rnd() % (3 * MIB);

	if (!m.base) {
		char *was = sbrk(0);

		bytes += (PAGE - (uintptr_t)was % PAGE) % PAGE;
		if (sbrk((intptr_t)bytes) == (void *)-1)
			die("sbrk");
		m = mem_at((uint64_t *)(void *)((char *)sbrk(0) - 4 * MIB * PAGE), 4 * MIB);
		mem_fill(&m);
	}
	if (k % 100 == 0) /* so small a heap stays, else, for it is in use */
		press();
	hits += absent(m.base + some * WORDS, CHUNK) > 0;
	bytes = less * PAGE;
	if (sbrk(-(intptr_t)bytes) == (void *)-1 || sbrk((intptr_t)bytes) == (void *)-1)
		die("sbrk");
	for (size_t i = m.pages - less; i < m.pages; i++) {
		check_page(m.base + i * WORDS, 0, 0, "row-brk, grown again");
		fill_page(m.base + i * WORDS, m.place + i, m.version);
	}
	for (size_t i = some; i < some + CHUNK; i++)
		check_page(m.base + i * WORDS, m.place + i, m.version, "row-brk");
	sleep_ms(k % 4);
}

/* ---- threads ------------------------------------------------------------------------------- */

static void *row_thread_main(void *arg)
{
	look((size_t)arg, "row-thread");
	return arg;
}

/* Stack and all of a thread that has ended; the kernel's last word to it must arrive. */
static void row_thread(unsigned k)
{
	size_t from = pick();
	pthread_attr_t a;
	pthread_t t[4];
	void *result;

	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 65536);
	for (unsigned i = 0; i < 4; i++)
		if (pthread_create(&t[i], &a, row_thread_main, (void *)from) != 0)
			die("pthread_create");
	for (unsigned i = 0; i < 4; i++)
		if (pthread_join(t[i], &result) != 0 || result != (void *)from)
			die("pthread_join");
	pthread_attr_destroy(&a);
}

static volatile size_t signalled_at;
static volatile unsigned signalled;

static void on_signal(int sig)
{
	look(signalled_at, "row-signal, handler");
	signalled++;
}

/* To the process, whichever of its threads that is; on a stack that may be out itself. */
static void row_signal(unsigned k)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_RESTART};
	unsigned before = signalled;

	if (k == 0) {
		stack_t other = {.ss_sp = map_pages(64), .ss_size = 64 * PAGE};

		if (sigaltstack(&other, NULL) < 0 || sigaction(SIGUSR1, &sa, NULL) < 0)
			die("sigaction");
	}
	signalled_at = pick();
	if (kill(getpid(), SIGUSR1) < 0)
		die("kill");
	while (signalled == before)
		sched_yield();
}

/* ---- in the middle of it ----------------------------------------------------------------------
 */

/*
 * Pages touched in the moment in which they have left, and nobody has stored them yet. What is
 * out comes back a little at a time, so that there is always something to leave.
 */
static void row_transit(unsigned k)
{
	static bool here[512];
	double until = now_s() + 0.05;
	bool any = false;
	uint64_t e[512];

	absent(cold.base, 1);
	while (!any && now_s() < until) {
		if (pread(pagemap, e, sizeof(e), (off_t)((uintptr_t)cold.base / PAGE * 8)) !=
		    sizeof(e))
			die("pagemap");
		for (size_t i = 0; i < 512; i++) {
			bool left = here[i] && !(e[i] >> 62);

			here[i] = e[i] >> 62;
			if (!left && rnd() % 32)
				continue;
			any |= left;
			check_page(cold.base + i * WORDS, cold.place + i, cold.version,
				   "row-transit");
			if (k % 2)
				fill_page(cold.base + i * WORDS, cold.place + i, cold.version);
			here[i] = true;
		}
	}
	hits += any;
}

static void row_close(unsigned k)
{
	size_t from = pick();

	if (k % 3 == 0 && syscall(SYS_close_range, 3u, ~0u, 0u) < 0)
		die("close_range");
	if (k % 3 == 1)
		closefrom(3);
	for (int fd = 3; k % 3 == 2 && fd < 300; fd++)
		close(fd);
	pagemap = -1;
	look(from, "row-close");
	look(pick(), "row-close, elsewhere");
}

/* Memory that is registered with a userfaultfd of the program's own while it is out. */
static void row_own_uffd(unsigned k)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct mem *m = pick_block();
	struct uffdio_register r = {.range = {(uintptr_t)m->base, BLOCK * PAGE},
				    .mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &r) < 0)
		die("a userfaultfd of its own");
	mem_check(m, "row-own-uffd"); /* nobody serves it: all must be here */
	if (ioctl(fd, UFFDIO_UNREGISTER, &r.range) < 0)
		die("UFFDIO_UNREGISTER");
	mem_check(m, "row-own-uffd, given back");
	close(fd);
}

/* ---- who reads it
 * -------------------------------------------------------------------------------- */

static uint64_t copy[CHUNK * WORDS];

static void copy_right(size_t from, const char *where)
{
	for (size_t i = 0; i < CHUNK; i++)
		check_page(copy + i * WORDS, cold.place + from + i, cold.version, where);
	memset(copy, 0, sizeof(copy));
}

static void row_calls(unsigned k)
{
	static int file = -1, pair[2], pipes[2];
	size_t from = pick(), n = CHUNK * PAGE;
	struct iovec a = {chunk_at(from), n}, b = {copy, n};

	if (file < 0) {
		file = memfd_create("row-calls", MFD_CLOEXEC);
		if (file < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || pipe(pipes) < 0)
			die("descriptors");
	}
	switch (k % 6) {
	case 0:
		if (pwrite(file, a.iov_base, n, 0) != (ssize_t)n ||
		    pread(file, copy, n, 0) != (ssize_t)n)
			die("a file");
		break;
	case 1:
		if (process_vm_readv(getpid(), &b, 1, &a, 1, 0) != (ssize_t)n)
			die("process_vm_readv");
		break;
	case 2:
		if (send(pair[0], a.iov_base, n, 0) != (ssize_t)n ||
		    recv(pair[1], copy, n, MSG_WAITALL) != (ssize_t)n)
			die("a socket");
		break;
	case 3:
		if (mlock(a.iov_base, n) < 0 || absent(a.iov_base, CHUNK) ||
		    munlock(a.iov_base, n) < 0)
			die("mlock");
		memcpy(copy, a.iov_base, n);
		break;
	case 4:
		if (madvise(a.iov_base, n, MADV_POPULATE_READ) < 0)
			die("MADV_POPULATE_READ");
		memcpy(copy, a.iov_base, n);
		break;
	case 5: /* into pages that are out */
		look(from, "row-calls, before");
		memcpy(copy, a.iov_base, n);
		if (pwrite(file, copy, n, 0) != (ssize_t)n)
			die("pwrite");
		sleep_ms(3);
		if (pread(file, a.iov_base, n, 0) != (ssize_t)n)
			die("pread");
		break;
	}
	copy_right(from, "row-calls");
	look(from, "row-calls, afterwards");
}

/* A debugger's way: an error, or what is there; never zeros. */
static void row_peek(unsigned k)
{
	static int mem = -1;
	size_t from = pick();

	if (mem < 0)
		mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	for (size_t i = from; i < from + CHUNK; i++) {
		ssize_t n = pread(mem, copy, PAGE, (off_t)(uintptr_t)(cold.base + i * WORDS));

		if (n == PAGE)
			check_page(copy, cold.place + i, cold.version, "row-peek");
		else if (n >= 0 || errno != EIO)
			die("row-peek: %zd", n);
	}
	look(from, "row-peek, afterwards");
}

/* A heap of small and large pieces, as libc keeps it. */
static void row_heap(unsigned k)
{
	static struct {
		uint64_t *at;
		size_t words;
	} held[256];
	size_t i = rnd() % 256;

	look(pick(), "row-heap, before"); /* so that pieces have to leave */
	hits += held[i].words > 512 &&
		absent((uint64_t *)((uintptr_t)(held[i].at + 511) & ~(uintptr_t)(PAGE - 1)), 1);
	for (size_t w = 0; w < held[i].words; w++)
		if (held[i].at[w] != mix(i + w)) {
			fprintf(stderr, "WRONG PAGE in a piece of %zu words\n", held[i].words);
			_exit(1);
		}
	free(held[i].at);
	held[i].words = k % 4 ? 1024 + rnd() % 8192 : 1 + rnd() % 100;
	held[i].at = malloc(held[i].words * 8);
	if (!held[i].at)
		die("malloc");
	for (size_t w = 0; w < held[i].words; w++)
		held[i].at[w] = mix(i + w);
}

#define ROWS(X)                                                                                    \
	X("row-fork", row_fork)                                                                    \
	X("row-fork-raw", row_fork_raw)                                                            \
	X("row-hasty", row_hasty)                                                                  \
	X("row-twice", row_twice)                                                                  \
	X("row-written", row_written)                                                              \
	X("row-vfork", row_vfork)                                                                  \
	X("row-spawn", row_spawn)                                                                  \
	X("row-guard", row_guard)                                                                  \
	X("row-wipe", row_wipe)                                                                    \
	X("row-wipe-raw", row_wipe_raw)                                                            \
	X("row-wipe-again", row_wipe_again)                                                        \
	X("row-without", row_without)                                                              \
	X("row-remap", row_remap)                                                                  \
	X("row-grow", row_grow)                                                                    \
	X("row-discard", row_discard)                                                              \
	X("row-munmap", row_munmap)                                                                \
	X("row-map-over", row_map_over)                                                            \
	X("row-protect", row_protect)                                                              \
	X("row-brk", row_brk)                                                                      \
	X("row-thread", row_thread)                                                                \
	X("row-signal", row_signal)                                                                \
	X("row-transit", row_transit)                                                              \
	X("row-close", row_close)                                                                  \
	X("row-own-uffd", row_own_uffd)                                                            \
	X("row-calls", row_calls)                                                                  \
	X("row-peek", row_peek)                                                                    \
	X("row-heap", row_heap)

#define RUN(name, fn)                                                                              \
	static void fn##_run(unsigned rounds)                                                      \
	{                                                                                          \
		run(fn, rounds);                                                                   \
	}
ROWS(RUN)

#define MODE(name, fn) {name, fn##_run, 100},
const struct mode row_modes[] = {ROWS(MODE){NULL, NULL, 0}};
