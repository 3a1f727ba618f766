/* SPDX-License-Identifier: BSD-2-Clause */
/* tmem run's order of events: what is read in another order than it happened comes to the same. */
#include "frontswap/pager/run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define PAGES 4u
#define BYTES (PAGES * AGENT_PAGE)
#define A     0x10000000ull
#define Y     0x20000000ull
#define Z     0x30000000ull
#define D     0x40000000ull
#define E     0x50000000ull

static struct run run;
static struct space *sp;
static uint32_t area_a, area_y, area_z;

static bool may_fail;

/* What events.c and space.c call of the pager. */
void pager_fail(struct space *s, const char *why)
{
	if (!may_fail)
		fail_msg("%s", why);
	s->gone = true;
}

static uint32_t area_at(uint64_t addr)
{
	const struct segment *s = space_find(sp, addr);

	return s ? s->area : UINT32_MAX;
}

static void begin(void)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;

	o.limit_bytes = 64 << 20;
	o.codec = "lz4";
	memset(&run, 0, sizeof(run));
	run.opts.cluster = 8;
	assert_int_equal(tmem_host_create(&o, &run.host, NULL, 0), 0);
	assert_int_equal(tmem_client_create(run.host, "run", &run.client), 0);
	/* Without a descriptor the kernel never says EAGAIN: all has been read whenever it is
	 * asked. */
	sp = space_create(&run, -1, tmem_pool_create(run.client, TMEM_POOL_PERSIST, 64));
	assert_non_null(sp);
	assert_int_equal(space_add_segment(sp, A, A + BYTES), 0);
	assert_int_equal(space_add_segment(sp, Y, Y + BYTES), 0);
	assert_int_equal(space_add_segment(sp, Z, Z + BYTES), 0);
	area_a = area_at(A);
	area_y = area_at(Y);
	area_z = area_at(Z);
}

static void free_all(void)
{
	space_free(sp);
	tmem_client_destroy(run.client);
	tmem_host_destroy(run.host);
}

static void end(void)
{
	assert_true(events_quiet(sp));
	assert_int_equal(sp->ndeferred, 0);
	assert_int_equal(space_verify(sp), 0);
	free_all();
}

/* One frees A, another gets it; read the other way round. */
static void test_unmap_after_remap(void **state)
{
	(void)state;
	begin();
	events_remap(sp, Y, A, BYTES);
	assert_int_equal(area_at(A), area_a);
	events_unmap(sp, A, A + BYTES);
	assert_int_equal(area_at(A), area_y);
	events_unmap(sp, Y, Y + BYTES);
	assert_int_equal(area_at(Y), UINT32_MAX);
	assert_int_equal(area_at(A), area_y);
	end();
}

/* A moves to D, Y to where A was; the second is read first. */
static void test_two_remaps(void **state)
{
	uint64_t changes;

	(void)state;
	begin();
	events_remap(sp, Y, A, BYTES);
	events_remap(sp, A, D, BYTES);
	events_unmap(sp, A, A + BYTES);
	events_unmap(sp, Y, Y + BYTES);
	changes = sp->changes;
	assert_true(events_quiet(sp));
	assert_true(sp->changes > changes); /* who holds a segment has to find it again */
	assert_int_equal(area_at(D), area_a);
	assert_int_equal(area_at(A), area_y);
	assert_int_equal(area_at(Y), UINT32_MAX);
	end();
}

/* A is unmapped, Y moves there and on to D: to be told from the above by an UNMAP more. */
static void test_two_in_a_row(void **state)
{
	(void)state;
	begin();
	events_remap(sp, Y, A, BYTES);
	events_remap(sp, A, D, BYTES);
	events_unmap(sp, A, A + BYTES);
	events_unmap(sp, Y, Y + BYTES);
	events_unmap(sp, A, A + BYTES);
	assert_true(events_quiet(sp));
	assert_int_equal(area_at(D), area_y);
	assert_int_equal(area_at(A), UINT32_MAX);
	assert_int_equal(area_at(Y), UINT32_MAX);
	end();
}

/* Each gets the place that the one before it gave up; all of it read backwards. */
static void test_three_remaps(void **state)
{
	(void)state;
	begin();
	events_remap(sp, Z, Y, BYTES);
	events_remap(sp, Y, A, BYTES);
	events_remap(sp, A, D, BYTES);
	events_unmap(sp, Z, Z + BYTES);
	events_unmap(sp, Y, Y + BYTES);
	events_unmap(sp, A, A + BYTES);
	assert_true(events_quiet(sp));
	assert_int_equal(area_at(D), area_a);
	assert_int_equal(area_at(A), area_y);
	assert_int_equal(area_at(Y), area_z);
	assert_int_equal(area_at(Z), UINT32_MAX);
	end();
}

/* Y moves to A, which is late to be told free; what comes to Y then is no part of it. */
static void test_unmap_where_it_was(void **state)
{
	(void)state;
	begin();
	events_remap(sp, Y, A, BYTES);
	events_unmap(sp, Y, Y + BYTES);
	events_unmap(sp, Y + AGENT_PAGE, Y + BYTES);
	events_unmap(sp, Y - BYTES, Y + AGENT_PAGE);
	events_unmap(sp, A, A + BYTES);
	assert_int_equal(area_at(A), area_y);
	assert_int_equal(area_at(A + BYTES - AGENT_PAGE), area_y);
	assert_int_equal(area_at(Y), UINT32_MAX);
	end();
}

/* A moves to D, late to be told of; Y to A, and on to E. Or is it Y that is at D? */
static void test_not_to_be_told(void **state)
{
	(void)state;
	begin();
	events_remap(sp, Y, A, BYTES);
	events_unmap(sp, Y, Y + BYTES);
	events_remap(sp, A, E, BYTES);
	events_unmap(sp, A, A + BYTES);
	events_remap(sp, A, D, BYTES);
	events_unmap(sp, A, A + BYTES);
	may_fail = true;
	assert_false(events_quiet(sp));
	assert_true(sp->gone);
	may_fail = false;
	free_all();
}

/* A third thread forks when both have moved: so they have in the child. */
static void test_fork_with_deferred(void **state)
{
	struct space *child, *parent;

	(void)state;
	begin();
	events_remap(sp, Y, A, BYTES);
	events_remap(sp, A, D, BYTES);
	child = space_fork(sp, -1);
	assert_non_null(child);
	assert_true(events_inherit(child, sp));
	assert_int_equal(child->ndeferred, 0);
	parent = sp;
	sp = child;
	assert_int_equal(area_at(D), area_a);
	assert_int_equal(area_at(A), area_y);
	assert_int_equal(area_at(Y), UINT32_MAX);
	assert_int_equal(space_verify(child), 0);
	sp = parent;
	space_free(child);
	assert_int_equal(area_at(A), area_a);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unmap_after_remap),  cmocka_unit_test(test_two_remaps),
		cmocka_unit_test(test_two_in_a_row),	   cmocka_unit_test(test_three_remaps),
		cmocka_unit_test(test_unmap_where_it_was), cmocka_unit_test(test_not_to_be_told),
		cmocka_unit_test(test_fork_with_deferred),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
