/* SPDX-License-Identifier: BSD-2-Clause */
/* What a worker makes of a slot: which of its pages are compressed together. */
#include "run_test.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define START 0x10000000ull
#define PAGES 64u

static struct run run;

/* ---- what worker.c calls of the pager ------------------------------------------------------ */

bool home_hurry(const struct run *r, int by)
{
	(void)r;
	(void)by;
	return true;
}

void pager_fail(struct space *sp, const char *why)
{
	(void)sp;
	fail_msg("%s", why);
}

void keep_compare(struct slot *sl, const uint8_t *data)
{
	(void)sl;
	(void)data;
	fail();
}

/* ---- tests -------------------------------------------------------------------------------- */

static uint64_t word_of(uint64_t page, uint32_t i)
{
	return page * 1000 + i / 7;
}

/* Pages [first, first + n) leave by slot 0; bits of those that stay behind, and of those apart. */
static void leave(struct space *sp, uint64_t first, uint32_t n, uint32_t stay, uint32_t apart)
{
	struct slot *sl = &sp->slots[0];
	unsigned index = 0;

	*sl = (struct slot){.area = space_find(sp, START)->area,
			    .pages = n,
			    .moved = ((1u << n) - 1) & ~stay,
			    .first = first,
			    .apart = apart};
	atomic_store(&sl->state, SLOT_QUEUED);
	for (uint32_t k = 0; k < n; k++)
		for (uint32_t i = 0; i < AGENT_PAGE / 8; i++)
			((uint64_t *)(void *)(sp->shm->slots[0] + (size_t)k * AGENT_PAGE))[i] =
				word_of(first + k, i);
	worker_submit(sp, &index, 1);
	while (atomic_load(&sl->state) != SLOT_STORED)
		usleep(100);
}

/* with[k]: of page first + k, how many others it was compressed with; -1: it is not stored. */
static void is_stored(struct space *sp, uint64_t first, uint32_t n, const int *with)
{
	const struct slot *sl = &sp->slots[0];
	static uint64_t page[AGENT_PAGE / 8];

	for (uint32_t k = 0; k < n; k++) {
		uint64_t index;
		tmem_oid oid;
		int rc;

		space_oid(sl->area, first + k, &oid, &index);
		rc = tmem_get(run.client, sp->pool, &oid, index, page);
		if (with[k] < 0) {
			assert_int_equal(rc, 1);
			continue;
		}
		/* With checks the store refuses, now and then. */
		if (!(sl->stored >> k & 1))
			continue;
		assert_int_equal(rc, 0);
		assert_int_equal(sl->with[k], with[k]);
		for (uint32_t i = 0; i < AGENT_PAGE / 8; i++)
			assert_int_equal(page[i], word_of(first + k, i));
	}
}

static void test_together(void **state)
{
	struct space *sp = *state;

	/* Blocks of eight, as they lie. */
	leave(sp, 5, 8, 0, 0);
	is_stored(sp, 5, 8, (int[]){2, 2, 2, 4, 4, 4, 4, 4});
	/* What has stayed is a gap. */
	leave(sp, 16, 8, 1u << 2, 0);
	is_stored(sp, 16, 8, (int[]){1, 1, -1, 4, 4, 4, 4, 4});
}

static void test_apart(void **state)
{
	struct space *sp = *state;

	leave(sp, 24, 8, 0, 3u << 3);
	is_stored(sp, 24, 8, (int[]){2, 2, 2, 0, 0, 2, 2, 2});
	leave(sp, 32, 8, 0, 0xff);
	is_stored(sp, 32, 8, (int[]){0, 0, 0, 0, 0, 0, 0, 0});
	leave(sp, 40, 8, 0, 0x81);
	is_stored(sp, 40, 8, (int[]){0, 5, 5, 5, 5, 5, 5, 0});
}

static int make(void **state)
{
	struct space *sp = test_space(&run, RUN_EVICT_MOVE, START, PAGES);

	sp->shm = mmap(NULL, sizeof(*sp->shm), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);
	assert_true(sp->shm != MAP_FAILED);
	sp->told = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(workers_start(&run), 0);
	*state = sp;
	return 0;
}

static int unmake(void **state)
{
	workers_stop(&run);
	test_space_end(&run, *state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_together, make, unmake),
		cmocka_unit_test_setup_teardown(test_apart, make, unmake),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
