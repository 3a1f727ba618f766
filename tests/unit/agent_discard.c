/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent's part of eviction without UFFDIO_MOVE, on memory of this test: what the kernel may
 * drop afterwards it says itself (LazyFree in smaps). The host, whose answers are written by hand,
 * knows whether mappings have changed.
 */
#include "frontswap/agent/discard.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define N   8u /* pages of the command */
#define ALL ((1u << N) - 1)

static struct agent_shm memory, *const shm = &memory;
static struct discard d;
static char *mem; /* N pages, and as many where nothing is */

static char *page(uint32_t k)
{
	return mem + (size_t)k * AGENT_PAGE;
}

/* Pages of `mem` that the kernel may drop. */
static long lazy_pages(void)
{
	char line[256];
	FILE *f = fopen("/proc/self/smaps", "r");
	long kib = 0, more;
	bool ours = false;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long start, end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			ours = start < (uintptr_t)page(2 * N) && (uintptr_t)mem < end;
		else if (ours && sscanf(line, "LazyFree: %ld kB", &more) == 1)
			kib += more;
	}
	fclose(f);
	return kib * 1024 / (long)AGENT_PAGE;
}

static int set_up(void **state)
{
	(void)state;
	mem = mmap(NULL, (size_t)2 * N * AGENT_PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(mem, MAP_FAILED);
	madvise(mem, (size_t)2 * N * AGENT_PAGE, MADV_NOHUGEPAGE);
	for (uint32_t k = 0; k < N; k++)
		memset(page(k), 'a' + (int)k, AGENT_PAGE);
	memset(shm->cmds, 0, sizeof(shm->cmds));
	memset(shm->slots[0], 0, AGENT_SLOT_BYTES);
	shm->ncmds = 1;
	shm->cmds[0] = (struct agent_cmd){.addr = (uintptr_t)mem, .pages = N};
	atomic_store(&shm->reading, 0);
	atomic_store(&shm->disturbed, 0);
	memset(&d, 0, sizeof(d));
	assert_int_equal(discard_open(&d, -1), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	close(d.in);
	close(d.out);
	close(d.pagemap);
	munmap(mem, (size_t)2 * N * AGENT_PAGE);
	return 0;
}

/* The host's answer: they stay, and are there. */
static void stay_at(const char *at)
{
	shm->cmds[0].again = (uintptr_t)at;
	shm->cmds[0].go = 0;
}

static void expect_slots(uint32_t pages)
{
	for (uint32_t k = 0; k < N; k++)
		if (pages >> k & 1)
			assert_int_equal(shm->slots[0][(size_t)k * AGENT_PAGE], 'a' + (int)k);
}

static void expect_taken_back(int error)
{
	discard_mark(&d, shm);
	assert_int_equal(shm->cmds[0].error, error);
	assert_int_equal(lazy_pages(), 0);
}

static void test_marks_and_stays(void **state)
{
	const struct agent_cmd *cmd = &shm->cmds[0];

	(void)state;
	discard_mark(&d, shm);
	assert_int_equal(cmd->error, 0);
	assert_int_equal(cmd->marked, ALL);
	assert_int_equal(lazy_pages(), N);
	stay_at(mem);
	discard_finish(&d, shm);
	assert_int_equal(cmd->stays, ALL);
	assert_int_equal(cmd->left, 0);
	expect_slots(ALL);
}

/* What the host has seen change the agent's marks are taken from at once: what has come there since
 * nobody holds, and who knows where it goes next. */
static void test_changed_before_the_mark(void **state)
{
	(void)state;
	atomic_store(&shm->disturbed, 1);
	expect_taken_back(ESTALE);
}

/* Another command's mapping is none of its business. */
static void test_changed_elsewhere(void **state)
{
	(void)state;
	atomic_store(&shm->disturbed, 2);
	discard_mark(&d, shm);
	assert_int_equal(shm->cmds[0].error, 0);
	assert_int_equal(shm->cmds[0].marked, ALL);
}

/* What the host is about to read may be such a change. */
static void test_host_still_reads(void **state)
{
	(void)state;
	atomic_store(&shm->reading, 1);
	expect_taken_back(EAGAIN);
}

/* Looked for again: at an address where nothing is, where they have gone, and what is empty there.
 */
static void test_looks_again(void **state)
{
	const struct agent_cmd *cmd = &shm->cmds[0];

	(void)state;
	discard_mark(&d, shm);
	stay_at(NULL);
	discard_again(&d, shm);
	assert_int_equal(cmd->stays, 0);
	assert_int_equal(cmd->left, ALL); /* nobody has looked */
	stay_at(page(N));
	discard_again(&d, shm);
	assert_int_equal(cmd->stays, 0);
	assert_int_equal(cmd->left, 0);
	assert_ptr_equal(mremap(mem, (size_t)N * AGENT_PAGE, (size_t)N * AGENT_PAGE,
				MREMAP_MAYMOVE | MREMAP_FIXED, page(N)),
			 page(N));
	madvise(page(N + 2), AGENT_PAGE, MADV_DONTNEED);
	discard_again(&d, shm);
	assert_int_equal(cmd->stays, ALL & ~4u);
	assert_int_equal(cmd->left, 0);
	assert_int_equal(cmd->moved, ALL); /* the pipe has them */
	discard_finish(&d, shm);
	assert_int_equal(cmd->stays, ALL & ~4u);
	expect_slots(ALL);
	mem = mmap(mem, (size_t)N * AGENT_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		   -1, 0);
	assert_ptr_not_equal(mem, MAP_FAILED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_marks_and_stays, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_changed_before_the_mark, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_changed_elsewhere, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_host_still_reads, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_looks_again, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
