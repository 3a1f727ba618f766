/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A file's data: what was read before a change is never put after it; what another identity was
 * read under goes; of several who miss the same pages one reads them.
 */
#include "cleancache/cleancache.h"
#include "os/clock.h"

#include "tmem_test.h"

#include <unistd.h>

#define SECOND 1000000000ll

static struct test_host t;
static const struct cc_options options = {.cluster = 4};
static struct cc_mount mount;
static struct cc_file file;
static const tmem_oid oid = {{1, 2, 3}};

static struct cc_look look_of(uint64_t size, int64_t age_ns)
{
	struct cc_look l = {
		.taken_ns = 1800000000ll * SECOND + 1, .at_ns = os_clock_ns(), .order = cc_order()};

	l.id = (struct cc_identity){size, l.taken_ns - age_ns, l.taken_ns - age_ns};
	return l;
}

static void begin(void)
{
	t = test_open(NULL);
	memset(&mount, 0, sizeof(mount));
	mount.client = t.client;
	mount.o = &options;
	assert_int_equal(cc_store_open(&mount), 0);
	mount.grain_ns = 20000000;
	cc_file_init(&file, &oid);
}

static void end(void)
{
	cc_file_destroy(&file);
	test_close(&t);
}

/* Pages of both kinds. */
static void put(uint64_t index)
{
	struct test_page page;

	test_fill(&page, index, 100);
	assert_true(cc_put_begin(&file, cc_view(&file).changes));
	assert_int_equal(tmem_put(t.client, mount.pool[index % CC_POOLS], &oid, index, &page), 0);
	cc_put_end(&file);
}

static bool there(uint64_t index)
{
	struct test_page page;
	int rc = tmem_get_keep(t.client, mount.pool[index % CC_POOLS], &oid, index, &page);

	assert_in_range(rc, 0, 1);
	return rc == 0;
}

static bool opened(uint64_t size, int64_t age_ns)
{
	struct cc_look l = look_of(size, age_ns);

	return !cc_file_seen(&mount, &file, &l, CC_OPENED);
}

static bool kept(uint64_t *version)
{
	return cc_kernel_is_fresh(&file, version);
}

static bool seen(uint64_t size, int64_t age_ns)
{
	struct cc_look l = look_of(size, age_ns);

	return !cc_file_seen(&mount, &file, &l, CC_ASKED);
}

static void the_same(void **state)
{
	begin();
	assert_false(cc_put_begin(&file, cc_view(&file).changes)); /* nothing is known of it */
	assert_false(opened(8192, SECOND));
	put(0);
	assert_true(opened(8192, SECOND));
	assert_true(seen(8192, SECOND));
	assert_true(there(0));
	end();
}

static void another(void **state)
{
	begin();
	(void)opened(8192, SECOND);
	put(0);
	assert_false(opened(8193, SECOND));
	assert_false(there(0));
	put(1);
	/* Between opens, too: attributes were asked for. */
	assert_false(seen(8193, 5 * SECOND));
	assert_false(there(1));
	assert_true(opened(8193, 5 * SECOND));
	end();
}

/* What was read while stamps could not tell serves until the next open. */
static void young(void **state)
{
	begin();
	(void)opened(8192, 1000);
	put(0);
	assert_true(seen(8192, 1000));
	assert_true(there(0));
	assert_false(opened(8192, 1000));
	assert_false(there(0));
	put(0);
	assert_false(opened(8192, 1000));
	assert_false(there(0));
	/* Another machine's clock, in a source of our own. */
	assert_false(opened(4096, SECOND));
	put(0);
	assert_true(opened(4096, SECOND));
	mount.root_attr.st_dev = 7;
	assert_false(opened(4095, SECOND));
	put(0);
	assert_false(opened(4095, SECOND));
	assert_false(there(0));
	end();
}

/* Nor does a look in between make it any newer; and who is told of a change need not see one. */
static void young_between_opens(void **state)
{
	struct cc_look told;
	uint64_t looked;

	begin();
	(void)opened(8192, 1000);
	put(0);
	looked = file.looked_ns;
	assert_true(seen(8192, 1000));
	assert_int_equal(file.looked_ns, looked);
	told = look_of(8192, 1000);
	assert_true(cc_file_seen(&mount, &file, &told, CC_TOLD));
	assert_false(there(0));
	assert_true(file.looked_ns > looked);
	/* What is settled is the same, whoever looks. */
	(void)opened(4096, SECOND);
	put(0);
	looked = file.looked_ns;
	assert_true(seen(4096, SECOND));
	assert_true(file.looked_ns > looked);
	told = look_of(4096, SECOND);
	assert_false(cc_file_seen(&mount, &file, &told, CC_TOLD));
	assert_true(there(0));
	end();
}

static void a_change_of_ours(void **state)
{
	uint64_t changes;

	begin();
	(void)opened(10 * 4096, SECOND);
	for (uint64_t i = 0; i < 10; i++)
		put(i);
	changes = cc_view(&file).changes;
	cc_writer_comes(&file);
	cc_change_begin(&mount, &file);
	for (uint64_t i = 0; i < 10; i++)
		assert_false(there(i));
	assert_int_equal(cc_view(&file).size, 0);
	assert_false(cc_put_begin(&file, changes));
	assert_false(cc_put_begin(&file, cc_view(&file).changes)); /* read during it */
	cc_change_end(&mount, &file);
	assert_false(cc_put_begin(&file, changes));
	/* Known again with the next open, not before. */
	assert_true(seen(10 * 4096, SECOND / 2));
	assert_false(cc_put_begin(&file, cc_view(&file).changes));
	assert_false(opened(10 * 4096, SECOND / 2));
	assert_false(there(1));
	put(1);
	/* No change is under way any more; what was read before this one may still not be put. */
	assert_false(cc_put_begin(&file, changes));
	end();
}

/* Nobody writes it any more: who has it open need not open it again. */
static void after_the_last_writer(void **state)
{
	struct cc_look look;

	begin();
	(void)opened(8192, SECOND);
	put(0);
	cc_writer_comes(&file);
	cc_writer_comes(&file);
	assert_false(cc_writer_goes(&file));
	cc_change_begin(&mount, &file);
	look = look_of(8192, SECOND); /* of which nobody knows when in the change it was taken */
	cc_change_end(&mount, &file);
	assert_true(seen(8192, SECOND / 2)); /* it is still written */
	assert_false(cc_put_begin(&file, cc_view(&file).changes));
	assert_true(cc_writer_goes(&file));
	assert_true(cc_file_seen(&mount, &file, &look, CC_TOLD));
	assert_false(cc_put_begin(&file, cc_view(&file).changes));
	assert_false(seen(8192, SECOND / 2));
	put(0);
	assert_true(seen(8192, SECOND / 2));
	assert_true(there(0));
	/* Not written between: nothing to be said. */
	cc_writer_comes(&file);
	assert_false(cc_writer_goes(&file));
	/* Cut by its name, without a handle. */
	cc_change_begin(&mount, &file);
	cc_change_end(&mount, &file);
	assert_false(seen(4096, SECOND / 2));
	put(0);
	end();
}

/* `tmem invalidate`, of a file that somebody may write, and does not. */
static void forgotten(void **state)
{
	struct cc_look told;

	begin();
	cc_writer_comes(&file);
	(void)opened(8192, SECOND);
	put(0);
	cc_file_forget(&mount, &file);
	assert_false(there(0));
	assert_false(cc_put_begin(&file, cc_view(&file).changes));
	/* Changed by others before anybody has looked: the kernel is told of it. */
	told = look_of(8192, SECOND / 2);
	assert_true(cc_file_seen(&mount, &file, &told, CC_TOLD));
	put(0);
	assert_true(seen(8192, SECOND / 2));
	assert_true(there(0));
	end();
}

/* A look that was taken before a newer one, or before a change of ours, and comes after it. */
static void late_looks(void **state)
{
	struct cc_look late, later;

	begin();
	(void)opened(10000, SECOND);
	late = look_of(10000, SECOND);
	later = look_of(10000, SECOND);
	assert_false(opened(20000, SECOND / 2));
	put(2);
	assert_true(cc_file_seen(&mount, &file, &late, CC_OPENED));
	assert_false(there(2));
	/* Nothing is believed now: least of all that it ends at 10000. */
	assert_false(cc_put_begin(&file, cc_view(&file).changes));
	assert_false(seen(20000, SECOND / 2)); /* the next look tells, whoever asks */
	put(2);
	assert_true(opened(20000, SECOND / 2));
	/* Late and the same is no news. */
	later.id = file.id;
	assert_false(cc_file_seen(&mount, &file, &later, CC_OPENED));
	assert_true(there(2));
	late = look_of(20000, SECOND / 2);
	cc_change_begin(&mount, &file);
	cc_change_end(&mount, &file);
	(void)cc_file_seen(&mount, &file, &late, CC_OPENED);
	assert_false(cc_put_begin(&file, cc_view(&file).changes));
	end();
}

/* An open that finds nothing changed says "keep" only once the kernel has dropped what it had. */
static void the_kernels_pages(void **state)
{
	uint64_t first, second;

	begin();
	(void)opened(8192, SECOND);
	assert_false(kept(&first));
	assert_true(opened(8192, SECOND));
	assert_false(kept(&second)); /* nobody has said that it did */
	assert_int_equal(first, second);
	cc_kernel_has_dropped(&file, first);
	assert_true(kept(&second));
	/* Dropped between opens, because attributes were asked for. */
	assert_false(seen(8192, SECOND / 2));
	assert_true(opened(8192, SECOND / 2));
	assert_false(kept(&second));
	cc_kernel_has_dropped(&file, first); /* late, and of the time before */
	assert_false(kept(&second));
	cc_kernel_has_dropped(&file, second);
	assert_true(kept(&second));
	end();
}

/* ---- threads ---------------------------------------------------------------------------- */

static _Atomic bool ended;

static void *change(void *arg)
{
	cc_change_begin(&mount, &file);
	atomic_store(&ended, true);
	cc_change_end(&mount, &file);
	return arg;
}

static void a_change_waits_for_puts(void **state)
{
	os_thread thread;

	begin();
	(void)opened(8192, SECOND);
	assert_true(cc_put_begin(&file, cc_view(&file).changes));
	atomic_store(&ended, false);
	assert_int_equal(os_thread_create(&thread, "change", change, NULL), 0);
	usleep(50000); /* long enough for it to get there; too short cannot make this fail */
	assert_false(atomic_load(&ended));
	cc_put_end(&file);
	os_thread_join(thread);
	assert_true(atomic_load(&ended));
	end();
}

static _Atomic unsigned opens;

static void *open_changed(void *arg)
{
	(void)opened(1234, SECOND);
	atomic_fetch_add(&opens, 1);
	return arg;
}

/* Two opens that find another file: neither goes on before the pages have gone. */
static void drops_are_waited_for(void **state)
{
	os_thread thread[2];

	begin();
	(void)opened(8192, SECOND);
	put(0);
	assert_true(cc_put_begin(&file, cc_view(&file).changes)); /* holds drops up */
	atomic_store(&opens, 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(os_thread_create(&thread[i], "open", open_changed, NULL), 0);
		usleep(50000); /* as above */
		assert_int_equal(atomic_load(&opens), 0);
	}
	cc_put_end(&file);
	for (unsigned i = 0; i < 2; i++)
		os_thread_join(thread[i]);
	assert_false(there(0));
	end();
}

static struct cc_fetch first;
static _Atomic uint64_t got;

static void *fetch(void *arg)
{
	struct cc_fetch f;
	uint64_t n = cc_fetch_begin(&file, &f, 12, 8);

	atomic_store(&got, n + 1);
	if (n)
		cc_fetch_end(&file, &f);
	return arg;
}

static void one_reader(void **state)
{
	struct cc_fetch before, behind;
	os_thread thread;

	begin();
	assert_int_equal(cc_fetch_begin(&file, &first, 10, 10), 10);
	/* Up to where another one reads, and beside it. */
	assert_int_equal(cc_fetch_begin(&file, &before, 5, 10), 5);
	assert_int_equal(cc_fetch_begin(&file, &behind, 20, 10), 10);
	cc_fetch_end(&file, &before);
	cc_fetch_end(&file, &behind);
	atomic_store(&got, 0);
	assert_int_equal(os_thread_create(&thread, "fetch", fetch, NULL), 0);
	usleep(50000); /* as above */
	assert_int_equal(atomic_load(&got), 0);
	cc_fetch_end(&file, &first);
	os_thread_join(thread);
	assert_int_equal(atomic_load(&got), 1); /* it waited: 0, look again */
	assert_null(file.fetches);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same),
		cmocka_unit_test(another),
		cmocka_unit_test(young),
		cmocka_unit_test(young_between_opens),
		cmocka_unit_test(a_change_of_ours),
		cmocka_unit_test(after_the_last_writer),
		cmocka_unit_test(forgotten),
		cmocka_unit_test(late_looks),
		cmocka_unit_test(the_kernels_pages),
		cmocka_unit_test(a_change_waits_for_puts),
		cmocka_unit_test(one_reader),
		cmocka_unit_test(drops_are_waited_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
