/* SPDX-License-Identifier: BSD-2-Clause */
/* When a program's mappings are looked at again: seldom where it takes long, but not when it grows.
 */
#include "frontswap/pager/run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

static struct run run;
static struct agent_shm shm; /* of a program without threads that the agent knows */

/* What is not asked here: nothing is registered, for sp->uffd is no descriptor. */
bool events_quiet(struct space *sp)
{
	(void)sp;
	return true;
}

bool events_quiet_soon(struct space *sp)
{
	return events_quiet(sp);
}

bool auto_wants(struct space *sp, uint64_t start, uint64_t end)
{
	(void)sp;
	return end > start;
}

bool claim_covers(const struct space *sp, uint64_t start, uint64_t end)
{
	(void)sp;
	return end < start;
}

void pager_fail(struct space *sp, const char *why)
{
	(void)sp;
	fail_msg("%s", why);
}

static void make(struct space *sp)
{
	*sp = (struct space){.run = &run,
			     .shm = &shm,
			     .pid = getpid(),
			     .uffd = -1,
			     .pagemap = -1,
			     .maps_size = 100000,
			     .maps_data = 50000};
	sp->agent_ready = true;
}

/* Of a scan of a millisecond, which began at 10 s. */
static void test_when(void **state)
{
	const uint64_t at = 10000000000, mb = 1000000 / AGENT_PAGE + 1;
	struct space sp;

	(void)state;
	make(&sp);
	sp.scan_ns = 1000000;
	sp.next_scan_ns = at + 10 * sp.scan_ns;

	/* Nine times as long as it took nothing is looked at, whatever changes ... */
	sp.maps_dirty = true;
	assert_false(maps_due(&sp, at + 5000000, 100001, 50001));
	assert_false(maps_due(&sp, at + 9999999, 90000, 40000));
	assert_true(maps_due(&sp, at + 10000000, 100000, 50000));
	sp.maps_dirty = false;
	assert_false(maps_due(&sp, at + 10000000, 100000, 50000));
	assert_true(maps_due(&sp, at + 10000000, 100001, 50000));
	assert_true(maps_due(&sp, at + 10000000, 100000, 49999));

	/* ... but for a megabyte of memory more: that is filled in as long as a scan takes. */
	assert_false(maps_due(&sp, at + 2000000, 100000 + mb, 50000 + mb / 2));
	assert_true(maps_due(&sp, at + 2000000, 100000 + mb, 50000 + mb));
	assert_false(maps_due(&sp, at + 2000000, 100000 + 100 * mb, 50000)); /* address space */
	sp.scan_ns *= 2;
	assert_false(maps_due(&sp, at + 2000000, 100000 + mb, 50000 + mb));
	assert_true(maps_due(&sp, at + 2000000, 100000 + 2 * mb, 50000 + 2 * mb));
}

/* A scan sets its own pause, and none is made in it. */
static void test_pause(void **state)
{
	struct space sp;
	uint64_t next, took;

	(void)state;
	make(&sp);
	maps_scan(&sp);
	next = sp.next_scan_ns;
	took = sp.scan_ns;
	assert_true(took > 0);
	assert_true(sp.pagemap >= 0);
	assert_false(maps_due(&sp, next - 9 * took, sp.maps_size + 1, sp.maps_data));
	sp.next_scan_ns = UINT64_MAX;
	maps_scan(&sp);
	assert_int_equal(sp.next_scan_ns, UINT64_MAX);
	assert_int_equal(sp.scan_ns, took);
	close(sp.pagemap);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_when),
		cmocka_unit_test(test_pause),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
