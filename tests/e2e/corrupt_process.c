/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processes: forks of every kind, exec, daemons, and what a child inherits.
 */
#include "corrupt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static pid_t raw_fork(unsigned k)
{
	long r = k % 2 ? syscall(SYS_clone, (long)SIGCHLD, 0, 0, 0, 0) : syscall(SYS_fork);

	if (r < 0)
		die("raw fork");
	return (pid_t)r;
}

/* Children that libc knows nothing of: no handler of anybody's runs in them. */
static void fork_raw(unsigned rounds)
{
	struct mem m = mem_make(16 * MIB);

	for (unsigned k = 0; k < rounds; k++) {
		pid_t pid;

		press();
		pid = raw_fork(k);
		if (pid == 0) {
			mem_check(&m, "raw fork, child");
			mem_fill(&m);
			press();
			mem_check(&m, "raw fork, child, own");
			_exit(0);
		}
		mem_fill(&m);
		mem_check(&m, "raw fork, parent");
		wait_child(pid, "raw fork");
	}
}

/* A child of such a child, by libc's own fork; when it has ended nothing has changed for its
 * parent. */
static void fork_raw_fork(unsigned rounds)
{
	struct mem m = mem_make(16 * MIB);

	for (unsigned k = 0; k < rounds; k++) {
		pid_t pid;

		press();
		pid = raw_fork(k);
		if (pid == 0) {
			pid_t grandchild;

			sleep_ms(300);
			press_start(); /* a thread of libc's, where libc does not know of the fork
					*/
			press_stop();
			grandchild = fork();
			if (grandchild < 0)
				die("fork");
			if (grandchild == 0) {
				mem_check(&m, "raw fork and fork, grandchild");
				mem_fill(&m);
				mem_check(&m, "raw fork and fork, grandchild, own");
				_exit(0);
			}
			wait_child(grandchild, "raw fork, fork");
			sleep_ms(50);
			mem_check(&m, "raw fork and fork, between");
			_exit(0);
		}
		wait_child(pid, "raw fork and fork");
	}
}

static void fork_short(unsigned rounds)
{
	struct mem m = mem_make(8 * MIB);

	press();
	for (unsigned k = 0; k < rounds; k++) {
		size_t from = rnd() % (m.pages - 64);
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid == 0) {
			for (size_t i = from; i < from + 64; i++) {
				check_page(m.base + i * WORDS, m.place + i, m.version,
					   "short child");
				fill_page(m.base + i * WORDS, m.place + i, 99);
			}
			_exit(0);
		}
		if (k % 10 == 0)
			mem_fill(&m);
		wait_child(pid, "short child");
	}
	mem_check(&m, "short children, parent");
}

#define CHILDREN 60

/* Many at once, each with memory to ask for. */
static void fork_many(unsigned rounds)
{
	struct mem m = mem_make(4 * MIB);
	pid_t pids[CHILDREN];
	int gate[2];

	for (unsigned k = 0; k < rounds; k++) {
		char c;

		press();
		if (pipe(gate) < 0)
			die("pipe");
		for (unsigned i = 0; i < CHILDREN; i++) {
			pids[i] = fork();
			if (pids[i] < 0)
				die("fork %u", i);
			if (pids[i] == 0) {
				close(gate[1]);
				if (read(gate[0], &c, 1) != 0)
					_exit(2);
				for (size_t j = i; j < m.pages; j += 41)
					check_page(m.base + j * WORDS, m.place + j, m.version,
						   "many children");
				_exit(0);
			}
		}
		close(gate[0]);
		close(gate[1]);
		for (unsigned i = 0; i < CHILDREN; i++)
			wait_child(pids[i], "many children");
		mem_check(&m, "many children, parent");
	}
}

/* Pages that compress and pages that do not, side by side, while a child is made. */
static void fork_mixed(unsigned rounds)
{
	struct mem m = mem_at(map_pages(16 * MIB), 16 * MIB);

	noise = true;
	press_start();
	for (unsigned k = 0; k < rounds; k++) {
		pid_t pid;

		for (size_t i = 0; i < m.pages; i++)
			fill_page(m.base + i * WORDS, m.place + i, 2 * k + 2 + (i / 4) % 2);
		pid = fork();
		if (pid < 0)
			die("fork");
		if (pid == 0) {
			for (size_t i = 0; i < m.pages; i++)
				check_page(m.base + i * WORDS, m.place + i, 2 * k + 2 + (i / 4) % 2,
					   "mixed, child");
			_exit(0);
		}
		wait_child(pid, "mixed");
	}
	press_stop();
}

static void spawn(unsigned rounds)
{
	struct mem m = mem_make(8 * MIB);
	char *argv[] = {(char[]){"true"}, NULL};

	for (unsigned k = 0; k < rounds; k++) {
		pid_t pid;
		int rc;

		press();
		pid = vfork();
		if (pid < 0)
			die("vfork");
		if (pid == 0) { /* in our memory: reads what is out */
			mem_check(&m, "vfork");
			_exit(0);
		}
		wait_child(pid, "vfork");
		rc = posix_spawnp(&pid, "true", NULL, NULL, argv, environ);
		if (rc)
			die("posix_spawn: %s", strerror(rc));
		wait_child(pid, "posix_spawn");
		rc = system("exit 3");
		if (!WIFEXITED(rc) || WEXITSTATUS(rc) != 3)
			die("system: %x", (unsigned)rc);
		mem_check(&m, "spawn");
	}
}

/* Itself again, through shells: `rounds` more times. The last one works in little memory. */
static void exec_chain(unsigned rounds)
{
	char left[16];
	struct mem m = mem_make(4 * MIB);

	press();
	mem_check(&m, "exec");
	if (rounds <= 1)
		return;
	snprintf(left, sizeof(left), "%u", rounds - 1);
	execl("/bin/sh", "sh", "-c",
	      "exec env CHAIN=1 sh -c 'exec \"$0\" \"$@\"' \"$0\" exec \"$1\"", self, left,
	      (char *)NULL);
	die("exec");
}

/* The first process ends with 7; what it left goes on. */
static void daemonise(unsigned rounds)
{
	struct mem m = mem_make(16 * MIB);
	pid_t pid;

	press();
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid > 0) {
		wait_child(pid, "daemon");
		_exit(7);
	}
	setsid();
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid > 0)
		_exit(0);
	for (unsigned k = 0; k < rounds; k++) {
		sleep_ms(100);
		mem_check(&m, "daemon");
		mem_fill(&m);
		press();
	}
	mem_check(&m, "daemon, end");
}

/* ---- what a child does not get -------------------------------------------------------- */

/*
 * New memory somewhere in a range that is free but for what a child has mapped before us: it
 * goes to the highest place that is large enough, and that may be this one, and more below it.
 */
static struct mem mem_inside(uint64_t *base, size_t bytes, size_t pages)
{
	for (size_t at = 0; at + pages * PAGE <= bytes; at += pages * PAGE) {
		void *p = mmap((char *)base + at, pages * PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		if (p == (char *)base + at)
			return mem_at(p, pages);
	}
	die("the place of a MADV_DONTFORK mapping is not free");
}

static void fork_without(unsigned rounds)
{
	size_t pages = 4 * MIB, more = 12 * MIB;

	for (unsigned k = 0; k < rounds; k++) {
		struct mem kept = mem_make(pages), gone = mem_make(more);
		pid_t pid;

		if (madvise(gone.base, more * PAGE, MADV_DONTFORK) < 0)
			die("madvise");
		if (k % 2 == 0)
			press();
		mem_check(&gone, "without, parent"); /* some of it is there, and would leave next */
		pid = fork();
		if (pid < 0)
			die("fork");
		if (pid == 0) {
			struct mem again = mem_inside(gone.base, more * PAGE, 2 * MIB);

			mem_check(&again, "new, where a MADV_DONTFORK mapping was");
			mem_fill(&again);
			mem_check(&kept, "without, child");
			press();
			press();
			mem_check(&again, "kept where a MADV_DONTFORK mapping was");
			_exit(0);
		}
		wait_child(pid, "without");
		mem_check(&gone, "MADV_DONTFORK, parent");
		mem_check(&kept, "without, parent");
		munmap(kept.base, pages * PAGE);
		munmap(gone.base, more * PAGE);
	}
}

#define MOVING	     96u
#define MOVING_PAGES 64u

static struct {
	_Atomic unsigned seq; /* odd: on its way */
	struct mem m;
} moving[MOVING];
static uint64_t *moving_spare; /* a place for one of them */
static _Atomic bool moving_over;

/* One after the other to the place that the one before has left. */
static void *mover(void *arg)
{
	size_t bytes = MOVING_PAGES * PAGE;

	for (unsigned i = 0; !atomic_load(&moving_over); i = (i + 1) % MOVING) {
		uint64_t *was = moving[i].m.base;

		atomic_fetch_add(&moving[i].seq, 1);
		if (mremap(was, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, moving_spare) !=
		    moving_spare)
			die("mremap");
		moving[i].m.base = moving_spare;
		moving_spare = was;
		atomic_fetch_add(&moving[i].seq, 1);
		if (mmap(was, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		    MAP_FAILED)
			die("mmap");
		usleep(300); /* each rests long enough to be guarded again */
	}
	return arg;
}

/* A child has what another thread has moved just before. */
static void fork_moving(unsigned rounds)
{
	size_t each = (MOVING_PAGES + 1) * PAGE, bytes = MOVING_PAGES * PAGE;
	char *at = mmap(NULL, (MOVING + 1) * each, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t thread;

	if (at == MAP_FAILED)
		die("mmap");
	for (unsigned i = 0; i < MOVING; i++, at += each) {
		if (mprotect(at, bytes, PROT_READ | PROT_WRITE) < 0)
			die("mprotect");
		moving[i].m = mem_at((uint64_t *)(void *)at, MOVING_PAGES);
		mem_fill(&moving[i].m);
	}
	moving_spare = (uint64_t *)(void *)at;
	press_start();
	if (pthread_create(&thread, NULL, mover, NULL) != 0)
		die("pthread_create");
	for (unsigned k = 0; k < rounds; k++) {
		pid_t pid;

		sleep_ms(rnd() % 20);
		pid = fork();
		if (pid < 0)
			die("fork");
		if (pid == 0) {
			for (unsigned i = 0; i < MOVING; i++)
				if (atomic_load(&moving[i].seq) % 2 == 0)
					mem_check(&moving[i].m, "moved, child");
			_exit(0);
		}
		wait_child(pid, "moved");
	}
	atomic_store(&moving_over, true);
	pthread_join(thread, NULL);
	press_stop();
	for (unsigned i = 0; i < MOVING; i++)
		mem_check(&moving[i].m, "moved, parent");
}

static void fork_wipe(unsigned rounds)
{
	size_t pages = 8 * MIB;

	for (unsigned k = 0; k < rounds; k++) {
		struct mem wiped = mem_make(pages);
		pid_t pid;

		if (madvise(wiped.base, pages * PAGE, MADV_WIPEONFORK) < 0)
			die("madvise");
		if (k % 2 == 0)
			press();
		pid = fork();
		if (pid < 0)
			die("fork");
		if (pid == 0) {
			for (size_t i = 0; i < pages; i++)
				check_page(wiped.base + i * WORDS, 0, 0, "MADV_WIPEONFORK, child");
			_exit(0);
		}
		wait_child(pid, "wipe");
		mem_check(&wiped, "MADV_WIPEONFORK, parent");
		munmap(wiped.base, pages * PAGE);
	}
}

/* A process that shares the memory and outlives the one that was started first. */
static struct mem shared_vm;

static int vm_main(void *arg)
{
	const int *gate = arg;
	char c;

	close(gate[1]); /* our copy: the first process's own closes when that ends */
	if (read(gate[0], &c, 1) != 0)
		_exit(2);
	sleep_ms(300);
	mem_check(&shared_vm, "CLONE_VM, after the first process has ended");
	if (write(1, "survivor: all pages right\n", 26) != 26)
		_exit(2);
	_exit(0);
}

static void clone_vm(unsigned rounds)
{
	static int gate[2];
	char *stack = (char *)map_pages(64) + 64 * PAGE;

	shared_vm = mem_make(8 * MIB);
	for (unsigned k = 0; k < rounds; k++)
		press();
	if (pipe2(gate, O_CLOEXEC) < 0)
		die("pipe");
	if (clone(vm_main, stack, CLONE_VM | SIGCHLD, gate) < 0)
		die("clone");
	sleep_ms(20); /* its descriptors are its own now */
}

/* ---- descriptors, and being killed --------------------------------------------------------- */

static void close_all(unsigned rounds)
{
	struct mem m = mem_make(8 * MIB);

	for (unsigned k = 0; k < rounds; k++) {
		pid_t pid;

		press();
		if (k % 3 == 0 && syscall(SYS_close_range, 3u, ~0u, 0u) < 0)
			die("close_range");
		if (k % 3 == 1)
			closefrom(3);
		for (int fd = 3; k % 3 == 2 && fd < 4096; fd++)
			close(fd);
		mem_check(&m, "close-all");
		mem_fill(&m);
		pid = fork();
		if (pid == 0) {
			syscall(SYS_close_range, 3u, ~0u, 0u);
			mem_check(&m, "close-all, child");
			_exit(0);
		}
		wait_child(pid, "close-all");
	}
}

/* Looks at everything until it is killed; so do a child and a child that libc does not know. */
static void hold(unsigned rounds)
{
	struct mem m = mem_make(16 * MIB);
	double until;

	press();
	if (rounds > 1 && fork() == 0) {
		press();
		rounds = 1;
	}
	if (rounds > 2)
		raw_fork(rounds);
	printf("ready\n");
	until = now_s() + 20;
	while (now_s() < until) {
		mem_check(&m, "hold");
		press();
	}
	die("nobody killed us");
}

/* Forks past libc, and the host cannot have one more thread: all of us ends. */
static void fork_refused(unsigned rounds)
{
	struct mem m = mem_make(16 * MIB), part = m;

	part.pages = 256;
	press();
	printf("ready\n");
	sleep_ms(1000);
	for (unsigned k = 0; k < rounds; k++) {
		if (raw_fork(k) == 0) {
			mem_check(&part, "fork-refused, child");
			sleep_ms(20000);
			_exit(0);
		}
		sleep_ms(20);
	}
	sleep_ms(5000);
	die("nobody ended us");
}

/* The same for a while, for others to stop and continue it. */
static void walk(unsigned rounds)
{
	struct mem m = mem_make(16 * MIB);
	double until = now_s() + rounds;

	printf("ready\n");
	while (now_s() < until) {
		mem_check(&m, "walk");
		mem_fill(&m);
		press();
	}
	mem_check(&m, "walk, end");
}

/* ---- all of it at once, for somebody to kill it or those who serve it ----------------------- */

static struct mem living;
static _Atomic bool lived;

static void *life_looks(void *arg)
{
	while (!atomic_load(&lived)) {
		size_t i = rnd() % living.pages;

		check_page(living.base + i * WORDS, living.place + i, living.version,
			   "life, thread");
	}
	return arg;
}

/* Looks at all it inherited, again and again, for a while. */
static void life_child(unsigned ms)
{
	double until = now_s() + ms / 1000.0;

	do
		for (unsigned k = 0; k < 16; k++) {
			size_t i = rnd() % living.pages;

			check_page(living.base + i * WORDS, living.place + i, living.version,
				   "life, child");
		}
	while (now_s() < until);
	_exit(0);
}

static void life_step(unsigned k)
{
	char *argv[] = {(char *)self, (char[]){"life"}, (char[]){"3"}, NULL};
	struct mem m;
	pid_t pid;

	switch (rnd() % 6) {
	case 0:
		if (fork() == 0)
			life_child(rnd() % 20);
		break;
	case 1: /* no agent in it, and longer than its parent sometimes */
		if (raw_fork(k) == 0)
			life_child(rnd() % 400);
		break;
	case 2: /* a daemon */
		if (fork() == 0) {
			if (fork() == 0)
				life_child(rnd() % 200);
			_exit(0);
		}
		break;
	case 3:
		if (k % 4 == 0 && posix_spawn(&pid, self, NULL, NULL, argv, environ) != 0)
			die("posix_spawn");
		break;
	default:
		m = mem_make(16 + rnd() % 64);
		sleep_ms(1);
		mem_check(&m, "life, new mapping");
		munmap(m.base, m.pages * PAGE);
	}
}

/* `rounds` times ten milliseconds. A child that found a wrong page ends all with its code. */
static void life(unsigned rounds)
{
	double until;
	pthread_t t;

	living = mem_make(36 * MIB);
	if (pthread_create(&t, NULL, life_looks, NULL) != 0)
		die("pthread_create");
	until = now_s() + rounds * 0.01;
	for (unsigned k = 0; now_s() < until; k++) {
		int status;

		life_step(k);
		sleep_ms(3);
		while (waitpid(-1, &status, WNOHANG) > 0)
			if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
				_exit(1);
	}
	atomic_store(&lived, true);
	pthread_join(t, NULL);
}

const struct mode process_modes[] = {{"fork-raw", fork_raw, 2},
				     {"fork-raw-fork", fork_raw_fork, 1},
				     {"fork-short", fork_short, 200},
				     {"fork-many", fork_many, 1},
				     {"fork-mixed", fork_mixed, 1},
				     {"fork-without", fork_without, 2},
				     {"fork-moving", fork_moving, 160},
				     {"fork-wipe", fork_wipe, 2},
				     {"spawn", spawn, 2},
				     {"exec", exec_chain, 3},
				     {"daemon", daemonise, 2},
				     {"clone-vm", clone_vm, 1},
				     {"close-all", close_all, 3},
				     {"hold", hold, 1},
				     {"fork-refused", fork_refused, 60},
				     {"walk", walk, 2},
				     {"life", life, 30},
				     {NULL, NULL, 0}};
