/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading ahead: what a reader still waits for, who asks for nothing, and where it ends. */
#include "cleancache/cleancache.h"

#include "tmem_test.h"

#include "os/thread.h"
#include <unistd.h>

#define PAGES  4096u
#define A_READ 32u /* pages of a request */

static struct cc_options options;
static struct cc_mount mount;
static struct cc_handle handle;
static _Atomic bool there[PAGES]; /* in the store */
static _Atomic unsigned brought;  /* pages that were read ahead */
static _Atomic unsigned looked;	  /* pages that a piece asked for */
static _Atomic uint64_t farthest; /* the end of the last piece */
static bool hurries;		  /* the reader is at the end before the second piece is */
static uint64_t size = PAGES * CC_PAGE;

bool cc_read_ahead(struct cc_mount *m, struct cc_handle *h, uint64_t first, unsigned n)
{
	unsigned missed = 0;

	for (uint64_t i = first; i < first + n; i++)
		missed += !atomic_exchange(&there[i], true);
	if (hurries)
		atomic_store(&h->next, PAGES);
	atomic_fetch_add(&brought, missed);
	atomic_fetch_add(&looked, n);
	if (atomic_load(&farthest) < first + n)
		atomic_store(&farthest, first + n);
	return missed > 0;
}

void cc_handle_put(struct cc_mount *m, struct cc_handle *h)
{
	atomic_fetch_sub(&h->refs, 1);
}

static void begin(uint64_t readahead)
{
	memset(&mount, 0, sizeof(mount));
	memset(&handle, 0, sizeof(handle));
	memset(there, 0, sizeof(there));
	brought = looked = 0;
	farthest = 0;
	size = PAGES * CC_PAGE;
	handle.refs = 1;
	options.readahead_bytes = readahead;
	mount.o = &options;
	assert_int_equal(cc_crew_open(&mount, 2), 0);
}

static void end(void)
{
	cc_crew_close(&mount);
}

/* Pages that its reader had to wait for. Then what is asked for ahead comes, however long it takes.
 */
static unsigned reads(uint64_t first, unsigned n)
{
	unsigned missed = 0;

	for (uint64_t i = first; i < first + n && i < size / CC_PAGE; i++)
		missed += !atomic_exchange(&there[i], true);
	cc_ahead(&mount, &handle, first, n, size, missed);
	while (atomic_load(&handle.refs) > 1)
		usleep(100); /* another thread has it */
	return missed;
}

/* ---- tests ------------------------------------------------------------------------------- */

static void in_order_only_the_beginning_is_waited_for(void **state)
{
	unsigned waits = 0;

	begin(1 << 20);
	for (uint64_t at = 0; at < PAGES; at += A_READ)
		waits += reads(at, A_READ) > 0;
	assert_int_equal(waits, 1);
	assert_int_equal(brought, PAGES - A_READ);
	assert_int_equal(looked, PAGES - A_READ); /* and nothing twice */
	end();
}

static void no_farther_than_it_may(void **state)
{
	begin(1 << 20);
	for (uint64_t at = 0; at < PAGES; at += A_READ) {
		(void)reads(at, A_READ);
		/* In whole pieces. */
		assert_true(farthest < at + A_READ + 256 + CC_IO_PAGES);
	}
	end();
}

static void at_random_nothing_is_asked_for(void **state)
{
	uint64_t at = 1;

	begin(4 << 20);
	for (unsigned i = 0; i < 1000; i++) {
		at = at * 6364136223846793005ull + 1442695040888963407ull;
		(void)reads(300 * ((at >> 33) % (PAGES / 300)) + 150, 1);
	}
	assert_int_equal(looked, 0);
	/* A page that is read again and again is not read on from. */
	atomic_store(&there[0], true);
	for (unsigned i = 0; i < 10; i++)
		(void)reads(0, 1);
	assert_int_equal(looked, 0);
	end();
}

static void what_is_there_is_not_asked_for(void **state)
{
	begin(4 << 20);
	for (uint64_t i = A_READ; i < PAGES; i++)
		atomic_store(&there[i], true);
	for (uint64_t at = 0; at < PAGES; at += A_READ)
		(void)reads(at, A_READ);
	/* One look at what comes next says so. */
	assert_int_equal(brought, 0);
	assert_true(looked <= 2 * CC_IO_PAGES);
	end();
}

static void not_past_the_end(void **state)
{
	begin(4 << 20);
	size = 75 * CC_PAGE - 5;
	(void)reads(0, A_READ);
	(void)reads(A_READ, A_READ);
	(void)reads(2 * A_READ, 11);
	assert_int_equal(farthest, 75);
	assert_int_equal(brought, 75 - A_READ);
	end();
}

static void not_at_all(void **state)
{
	begin(0);
	for (uint64_t at = 0; at < PAGES; at += A_READ)
		assert_int_equal(reads(at, A_READ), A_READ);
	assert_int_equal(looked, 0);
	end();
}

static void not_what_was_passed(void **state)
{
	begin(4 << 20);
	handle.window = 512;
	hurries = true;
	assert_int_equal(reads(0, A_READ), A_READ);
	hurries = false;
	assert_true(handle.ahead >= 1024); /* asked for; by two threads, one piece each */
	assert_true(looked <= 2 * CC_IO_PAGES);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order_only_the_beginning_is_waited_for),
		cmocka_unit_test(no_farther_than_it_may),
		cmocka_unit_test(at_random_nothing_is_asked_for),
		cmocka_unit_test(what_is_there_is_not_asked_for),
		cmocka_unit_test(not_past_the_end),
		cmocka_unit_test(not_at_all),
		cmocka_unit_test(not_what_was_passed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
