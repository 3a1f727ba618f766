/* SPDX-License-Identifier: BSD-2-Clause */
/* A read and the store: what is hit, what is fetched, and a file that changes in the middle of it.
 */
#include "cleancache/cleancache.h"

#include "tmem_test.h"

#include "os/mem.h"
#include "os/thread.h"
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct cc_options options = {.cluster = 4};
static struct test_host t;
static struct cc_mount mount;
static struct cc_file file;
static struct cc_node node;
static struct cc_handle handle;

/* ---- the source, which is asked by pread() alone ------------------------------------------ */

static void (*meanwhile)(void); /* done once, before the source answers */
static int error;		/* what it answers, if not 0 */

ssize_t pread(int fd, void *buf, size_t n, off_t at)
{
	void (*fn)(void) = meanwhile;

	meanwhile = NULL;
	if (fn)
		fn();
	if (error) {
		errno = error;
		return -1;
	}
	return syscall(SYS_pread64, fd, buf, n, at);
}

void cc_ahead(struct cc_mount *m, struct cc_handle *h, uint64_t first, unsigned n, uint64_t size,
	      unsigned missed)
{
}

/* ---- the kernel, which takes a short answer for the end ------------------------------------- */

static void (*opens)(void); /* done once, before it is told: somebody opens the file */
static uint64_t told;	    /* the size, last */

bool cc_notify_tells(struct cc_node *n, uint64_t order, uint64_t size)
{
	void (*fn)(void) = opens;

	opens = NULL;
	if (fn)
		fn();
	told = size;
	return !fn;
}

/* So many bytes of a letter. */
static void source_is(char letter, size_t bytes)
{
	static char buf[32 * CC_PAGE];

	memset(buf, letter, sizeof(buf));
	assert_int_equal(ftruncate(handle.fd, 0), 0);
	assert_int_equal(pwrite(handle.fd, buf, bytes, 0), (ssize_t)bytes);
}

static void look(void)
{
	struct cc_look l;

	assert_int_equal(cc_look_fd(handle.fd, &l), 0);
	(void)cc_file_seen(&mount, &file, &l, CC_OPENED);
}

static void begin(char letter, size_t bytes)
{
	char path[] = "/tmp/tmem-read-XXXXXX";

	t = test_open(NULL);
	memset(&mount, 0, sizeof(mount));
	mount.client = t.client;
	mount.o = &options;
	assert_int_equal(cc_store_open(&mount), 0);
	mount.grain_ns = 1;
	atomic_store(&mount.no_dontcache, true);
	assert_int_equal(os_tls_create(&mount.scratch, os_free), 0);
	cc_file_init(&file, &(tmem_oid){{1}});
	memset(&node, 0, sizeof(node));
	atomic_store(&node.file, &file);
	memset(&handle, 0, sizeof(handle));
	handle.node = &node;
	handle.fd = mkstemp(path);
	assert_true(handle.fd >= 0);
	assert_int_equal(unlink(path), 0);
	source_is(letter, bytes);
	usleep(20000);
	look();
	error = 0;
}

static void end(void)
{
	os_free(os_tls_get(mount.scratch));
	assert_int_equal(os_tls_set(mount.scratch, NULL), 0);
	os_tls_delete(mount.scratch);
	cc_file_destroy(&file);
	close(handle.fd);
	test_close(&t);
}

static bool unanswered; /* reads are not ended */

/* Bytes got, all of them this letter; or -errno. */
static ssize_t read_all(char letter, uint64_t offset, size_t bytes)
{
	const char *data = NULL;
	ssize_t n = cc_read(&mount, &handle, offset, bytes, &data);

	for (ssize_t i = 0; i < n; i++)
		assert_int_equal(data[i], letter);
	if (!unanswered)
		cc_read_end(&mount);
	return n;
}

/* How often the source was read. */
static unsigned asked(void)
{
	return (unsigned)atomic_load(&mount.counter[CC_SOURCE_READS]);
}

/* Another reader, who has looked since, puts what he read. */
static void put(char letter, uint64_t index)
{
	static char page[CC_PAGE];

	memset(page, letter, sizeof(page));
	page[0] = letter;
	assert_true(cc_put_begin(&file, cc_view(&file).changes));
	assert_int_equal(tmem_put(t.client, mount.pool[CC_STREAMED], &file.oid, index, page), 0);
	cc_put_end(&file);
}

/* ---- tests ------------------------------------------------------------------------------- */

static void what_was_read_is_kept(void **state)
{
	begin('a', 6 * CC_PAGE);
	assert_int_equal(read_all('a', CC_PAGE, 2 * CC_PAGE), 2 * CC_PAGE);
	assert_int_equal(asked(), 1);
	assert_int_equal(read_all('a', CC_PAGE + 5, 2 * CC_PAGE - 5), 2 * CC_PAGE - 5);
	assert_int_equal(asked(), 1);
	/* What is missing around it, by two calls, and nothing of it twice. */
	assert_int_equal(read_all('a', 0, 6 * CC_PAGE), 6 * CC_PAGE);
	assert_int_equal(asked(), 3);
	assert_int_equal(read_all('a', 0, 6 * CC_PAGE), 6 * CC_PAGE);
	assert_int_equal(asked(), 3);
	end();
}

static uint64_t pages_in(enum cc_pool pool)
{
	return (uint64_t)tmem_pool_pages(t.client, mount.pool[pool]);
}

/* What was all of a request is worth more than what came with many others; found are both. */
static void pages_have_their_worth(void **state)
{
	begin('a', 32 * CC_PAGE);
	assert_int_equal(read_all('a', 0, 3 * CC_PAGE), 3 * CC_PAGE);
	assert_int_equal(read_all('a', 12 * CC_PAGE, 20 * CC_PAGE), 20 * CC_PAGE);
	assert_int_equal(pages_in(CC_COSTLY), 3);
	assert_int_equal(pages_in(CC_STREAMED), 20);
	assert_int_equal(asked(), 2);
	assert_int_equal(read_all('a', 0, 3 * CC_PAGE), 3 * CC_PAGE);
	assert_int_equal(read_all('a', 12 * CC_PAGE, 20 * CC_PAGE), 20 * CC_PAGE);
	assert_int_equal(asked(), 2);
	/* Another identity: all of both. */
	source_is('b', 31 * CC_PAGE);
	look();
	assert_int_equal(pages_in(CC_COSTLY) + pages_in(CC_STREAMED), 0);
	end();
}

static void the_end_is_where_it_is(void **state)
{
	begin('a', 2 * CC_PAGE + 100);
	assert_int_equal(read_all('a', 0, 4 * CC_PAGE), 2 * CC_PAGE + 100);
	assert_int_equal(asked(), 1);
	assert_int_equal(read_all('a', 0, 4 * CC_PAGE), 2 * CC_PAGE + 100);
	assert_int_equal(read_all('a', 2 * CC_PAGE + 100, 10), 0);
	assert_int_equal(asked(), 1);
	/* Behind it nothing is believed but the source. */
	assert_int_equal(read_all('a', 3 * CC_PAGE, 10), 0);
	assert_int_equal(asked(), 2);
	end();
}

static void an_error_is_told_and_not_kept(void **state)
{
	begin('a', 3 * CC_PAGE);
	error = EIO;
	assert_int_equal(read_all('a', 0, CC_PAGE), -EIO);
	error = 0;
	assert_int_equal(read_all('a', 0, CC_PAGE), CC_PAGE);
	error = EIO; /* what is there is there */
	assert_int_equal(read_all('a', 0, CC_PAGE), CC_PAGE);
	assert_int_equal(read_all('a', 0, 2 * CC_PAGE), -EIO);
	end();
}

static void changes_unseen(void)
{
	source_is('b', 4 * CC_PAGE);
	usleep(20000);
	look();
}

/* It is read from before and after a change: none of that is kept. */
static void changed_while_read(void **state)
{
	begin('a', 4 * CC_PAGE);
	meanwhile = changes_unseen;
	assert_int_equal(read_all('b', 0, 4 * CC_PAGE), 4 * CC_PAGE);
	assert_int_equal(atomic_load(&mount.counter[CC_STALE]), 4);
	assert_int_equal(read_all('b', 0, 4 * CC_PAGE), 4 * CC_PAGE);
	assert_int_equal(asked(), 2);
	end();
}

static void grows_and_is_put(void)
{
	changes_unseen();
	put('b', 2);
}

/*
 * Page 1 is from before the change, page 2 from after it: and its end was, when the read began, in
 * the middle of page 2.
 */
static void a_page_younger_than_the_read(void **state)
{
	begin('a', 2 * CC_PAGE + 100);
	assert_int_equal(read_all('a', CC_PAGE, CC_PAGE), CC_PAGE);
	meanwhile = grows_and_is_put;
	assert_int_equal(read_all('b', 0, 4 * CC_PAGE), 4 * CC_PAGE);
	end();
}

static void ends_early(void)
{
	assert_int_equal(ftruncate(handle.fd, CC_PAGE + 100), 0);
}

/* What comes short, of a file that is longer by all we know, has no last page. */
static void a_part_of_a_page(void **state)
{
	begin('a', 4 * CC_PAGE);
	meanwhile = ends_early;
	assert_int_equal(read_all('a', 0, 4 * CC_PAGE), CC_PAGE + 100);
	source_is('a', 4 * CC_PAGE);
	assert_int_equal(read_all('a', 0, 4 * CC_PAGE), 4 * CC_PAGE);
	end();
}

static void grows(void)
{
	source_is('b', 4 * CC_PAGE);
}

/* Whoever has opened the file since is not told where it ended before. */
static void an_end_of_before(void **state)
{
	begin('a', CC_PAGE);
	told = 0;
	assert_int_equal(read_all('a', 0, CC_PAGE), CC_PAGE);
	assert_int_equal(told, 0);
	assert_int_equal(read_all('a', 0, 2 * CC_PAGE), CC_PAGE);
	assert_int_equal(told, CC_PAGE);
	assert_int_equal(read_all('a', 3 * CC_PAGE, CC_PAGE), 0);
	assert_int_equal(told, 3 * CC_PAGE);
	handle.direct = true;
	opens = grows;
	assert_int_equal(read_all('b', CC_PAGE, 2 * CC_PAGE), 2 * CC_PAGE);
	assert_null(opens);
	end();
}

/* Somebody has it open, writes a byte of it, and it grows and changes behind our back. */
static void changed_by_us_and_others(void **state)
{
	begin('a', 2 * CC_PAGE + 1000);
	assert_int_equal(read_all('a', 0, 4 * CC_PAGE), 2 * CC_PAGE + 1000);
	cc_change_begin(&mount, &file);
	assert_int_equal(pwrite(handle.fd, "a", 1, 0), 1);
	cc_change_end(&mount, &file);
	source_is('b', 3 * CC_PAGE);
	assert_int_equal(read_all('b', 0, 4 * CC_PAGE), 3 * CC_PAGE);
	assert_int_equal(read_all('b', CC_PAGE, CC_PAGE), CC_PAGE);
	end();
}

static void past_the_store(void **state)
{
	begin('a', 3 * CC_PAGE);
	assert_int_equal(read_all('a', 0, 3 * CC_PAGE), 3 * CC_PAGE);
	handle.direct = true;
	source_is('b', 3 * CC_PAGE);
	assert_int_equal(read_all('b', 0, 3 * CC_PAGE), 3 * CC_PAGE);
	end();
}

static uint64_t figure(enum cc_counter k)
{
	return atomic_load(&mount.counter[k]);
}

/* Of each request, whatever way it takes, and however often the source is asked for it. */
static void requests_are_counted_once(void **state)
{
	begin('a', 2 * CC_PAGE + 100);
	opens = look;
	assert_int_equal(read_all('a', 0, 4 * CC_PAGE), 2 * CC_PAGE + 100);
	assert_null(opens);
	assert_int_equal(figure(CC_READS), 1);
	assert_int_equal(figure(CC_READ_BYTES), 2 * CC_PAGE + 100);
	assert_int_equal(figure(CC_MISSES), 3);
	assert_int_equal(figure(CC_HITS), 0);
	handle.direct = true;
	assert_int_equal(read_all('a', 0, 2 * CC_PAGE), 2 * CC_PAGE);
	handle.direct = false;
	assert_int_equal(figure(CC_READS), 2);
	assert_int_equal(figure(CC_READ_BYTES), 4 * CC_PAGE + 100);
	assert_int_equal(figure(CC_HITS) + figure(CC_MISSES), 3);
	end();
}

/* The store changes under a read, which is then given what the source has. */
static void a_read_past_a_change_is_counted(void **state)
{
	begin('a', 2 * CC_PAGE + 100);
	assert_int_equal(read_all('a', CC_PAGE, CC_PAGE), CC_PAGE);
	meanwhile = grows_and_is_put;
	assert_int_equal(read_all('b', 0, 4 * CC_PAGE), 4 * CC_PAGE);
	assert_int_equal(figure(CC_READ_BYTES), 5 * CC_PAGE);
	end();
}

/* A piece that goes past the end: pages that are none are not counted. */
static void the_end_is_no_page(void **state)
{
	begin('a', 5 * CC_PAGE + 1);
	assert_true(cc_read_ahead(&mount, &handle, 2, 64));
	assert_int_equal(figure(CC_AHEAD), 4);
	assert_int_equal(atomic_load(&file.ahead), 4);
	assert_false(cc_read_ahead(&mount, &handle, 2, 4));
	assert_int_equal(read_all('a', 2 * CC_PAGE, 10 * CC_PAGE), 3 * CC_PAGE + 1);
	assert_int_equal(figure(CC_HITS), 4);
	assert_int_equal(figure(CC_MISSES), 0);
	end();
}

static unsigned kept(void)
{
	tmem_stats s = {.size = sizeof(s)};

	assert_int_equal(tmem_host_stats(t.host, &s), 0);
	return (unsigned)s.pages;
}

/* Who asks does not wait for it; of two runs the first is put before the second is read. */
static void put_when_it_is_answered(void **state)
{
	begin('a', 8 * CC_PAGE);
	unanswered = true;
	assert_int_equal(read_all('a', 0, CC_PAGE), CC_PAGE);
	assert_int_equal(kept(), 0);
	cc_read_end(&mount);
	assert_int_equal(kept(), 1);
	cc_read_end(&mount);
	assert_int_equal(kept(), 1);

	put('a', 4);
	assert_int_equal(read_all('a', CC_PAGE, 7 * CC_PAGE), 7 * CC_PAGE);
	assert_int_equal(kept(), 2 + 3);
	assert_non_null(file.fetches);
	assert_null(file.fetches->next);
	cc_read_end(&mount);
	assert_null(file.fetches);
	assert_int_equal(kept(), 8);

	/* What changed after the answer is not put. */
	cc_file_forget(&mount, &file);
	look();
	assert_int_equal(read_all('a', 0, CC_PAGE), CC_PAGE);
	cc_change_begin(&mount, &file);
	cc_change_end(&mount, &file);
	cc_read_end(&mount);
	assert_int_equal(kept(), 0);
	unanswered = false;
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_read_is_kept),
		cmocka_unit_test(pages_have_their_worth),
		cmocka_unit_test(the_end_is_where_it_is),
		cmocka_unit_test(an_error_is_told_and_not_kept),
		cmocka_unit_test(changed_while_read),
		cmocka_unit_test(a_page_younger_than_the_read),
		cmocka_unit_test(a_part_of_a_page),
		cmocka_unit_test(an_end_of_before),
		cmocka_unit_test(changed_by_us_and_others),
		cmocka_unit_test(past_the_store),
		cmocka_unit_test(requests_are_counted_once),
		cmocka_unit_test(a_read_past_a_change_is_counted),
		cmocka_unit_test(the_end_is_no_page),
		cmocka_unit_test(put_when_it_is_answered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
