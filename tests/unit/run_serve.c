/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem run's answers to faults: what the books say of a page after one of a moment before. The
 * kernel is played here.
 */
#include "run_test.h"

#include "frontswap/pager/discard.h"
#include "frontswap/uffd.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include <cmocka.h>

#define START 0x10000000ull
#define PAGES 64u
#define AT    (START + 3 * AGENT_PAGE)

static struct run run;

/* ---- the kernel --------------------------------------------------------------------------- */

static bool there[PAGES];
static unsigned filled, woken;

static int fill(uint64_t addr, uint64_t len, __s64 *done)
{
	for (*done = 0; *done < (int64_t)len; *done += AGENT_PAGE) {
		bool *page = &there[(addr + (uint64_t)*done - START) / AGENT_PAGE];

		if (*page) {
			*done = *done ? *done : -EEXIST;
			errno = EEXIST;
			return -1;
		}
		*page = true;
		filled++;
	}
	return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	struct uffdio_zeropage *z;
	struct uffdio_copy *c;
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	(void)fd;
	switch (request) {
	case UFFDIO_COPY:
		c = arg;
		return fill(c->dst, c->len, &c->copy);
	case UFFDIO_ZEROPAGE:
		z = arg;
		return fill(z->range.start, z->range.len, &z->zeropage);
	case UFFDIO_WAKE:
		woken++;
		return 0;
	default:
		fail_msg("an ioctl that nobody expects: %lx", request);
		return -1;
	}
}

/* ---- what serve.c calls of the pager --------------------------------------------------------- */

void pager_fail(struct space *sp, const char *why)
{
	(void)sp;
	fail_msg("%s", why);
}

uint64_t pager_total(struct space *sp)
{
	(void)sp;
	return 0;
}

uint64_t run_goal_high(const struct run *r)
{
	(void)r;
	return UINT64_MAX;
}

bool maps_wiped_on_fork(pid_t pid, uint64_t addr)
{
	(void)pid;
	(void)addr;
	return false;
}

void report_fault(struct run *r, uint64_t ns)
{
	(void)r;
	(void)ns;
}

/* Of these nothing is asked here. */
void auto_back(struct space *sp, uint32_t area, uint64_t page)
{
	fail();
}

int discard_hold(struct space *sp, uint64_t addr)
{
	fail();
	return -1;
}

bool events_quiet(struct space *sp)
{
	fail();
	return false;
}

void evict_to(struct space *sp, uint64_t goal)
{
	fail();
}

bool bring_in(struct space *sp, struct segment *seg, uint64_t page, bool all)
{
	fail();
	return false;
}

void bring_ahead(struct space *sp, struct segment *seg, uint64_t page)
{
	fail();
}

uint32_t watch_age(struct space *sp, uint32_t area, uint64_t page)
{
	fail();
	return 0;
}

void watch_refault(struct space *sp, uint32_t age)
{
	fail();
}

void maps_scan(struct space *sp)
{
	fail();
}

/* ---- tests ----------------------------------------------------------------------------------- */

static struct space *make(void)
{
	struct space *sp = test_space(&run, RUN_EVICT_MOVE, START, PAGES);

	memset(there, 0, sizeof(there));
	filled = woken = 0;
	return sp;
}

static void unmake(struct space *sp)
{
	assert_int_equal(space_verify(sp), 0);
	test_space_end(&run, sp);
}

static uint8_t state(struct space *sp)
{
	const struct segment *seg = space_find(sp, AT);

	return *space_page(sp, seg->area, seg->page + (AT - seg->start) / AGENT_PAGE) &
	       (PAGE_STATE | PAGE_REMOVED);
}

/* A fault from before the program emptied the page, which the kernel has still to do (I5). */
static void test_before_it_is_emptied(void **unused)
{
	struct space *sp = make();

	(void)unused;
	for (unsigned write = 0; write < 2; write++) {
		there[3] = true;
		space_mark_resident(sp, space_find(sp, AT), AT, 1, ARRIVAL_FRESH);
		space_drop_range(sp, AT, AT + AGENT_PAGE, false);
		assert_int_equal(state(sp), PAGE_RESIDENT | PAGE_REMOVED);
		filled = woken = 0;
		serve_later(sp, AT, write, 0);
		serve_pending(sp);
		assert_int_equal(sp->npending, 0);
		assert_int_equal(woken, 1);
		assert_int_equal(filled, 0);
		assert_int_equal(state(sp), PAGE_RESIDENT | PAGE_REMOVED);
		/* It has: what is touched now is another page. */
		there[3] = false;
		serve_later(sp, AT, write, 0);
		serve_pending(sp);
		assert_int_equal(filled, 1);
		assert_int_equal(state(sp), PAGE_RESIDENT);
	}
	unmake(sp);
}

/* Somebody else was served the same page before. */
static void test_served_before(void **unused)
{
	struct space *sp = make();

	(void)unused;
	serve_later(sp, AT, true, 0);
	serve_later(sp, AT, true, 0);
	serve_pending(sp);
	assert_int_equal(sp->npending, 0);
	assert_int_equal(filled, 1);
	assert_int_equal(woken, 1);
	assert_int_equal(state(sp), PAGE_RESIDENT);
	unmake(sp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_before_it_is_emptied),
		cmocka_unit_test(test_served_before),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
