/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The overflow file: who goes there, who stays, who comes back; its rate; what is
 * in it; which files are refused; a disk that is full.
 */
#include "tmem_test.h"

#include "os/clock.h"
#include "os/log.h"
#include "zcache/zcache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIMIT (4u << 20)
#define NOISE 150u /* zpages of some 1300 bytes: 3000 of them fill the memory */

#ifdef TMEM_HAVE_CRYPTO
#define SEALED 1
#else
#define SEALED 0
#endif

static struct test_page page, back;
static char dir[64], path[96];
static uint64_t now_ns;

static uint64_t fake_clock(void *ctx)
{
	return now_ns;
}

static int setup(void **state)
{
	strcpy(dir, "/tmp/tmem-overflow-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/file", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)umount2(dir, MNT_DETACH); /* of a test that failed */
	(void)unlink(path);
	assert_int_equal(rmdir(dir), 0);
	os_clock_replace(NULL, NULL);
	return 0;
}

static struct test_host open_host(bool sealed, uint64_t rate)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;

	o.limit_bytes = LIMIT;
	o.overflow_path = path;
	o.overflow_encrypt = sealed;
	o.overflow_rate = rate;
	return test_open(&o);
}

static int put(struct test_host *t, uint64_t index)
{
	tmem_oid oid = test_oid(1);

	test_fill(&page, index, NOISE);
	return tmem_put(t->client, t->pool, &oid, index, &page);
}

static void expect(struct test_host *t, uint64_t index)
{
	tmem_oid oid = test_oid(1);

	assert_int_equal(tmem_get(t->client, t->pool, &oid, index, &back), 0);
	test_check(&back, index, NOISE);
}

/* Where a page is, without touching it. */
static bool in_file(struct test_host *t, uint64_t index)
{
	tmem_oid oid = test_oid(1);
	struct zc_slot *s = zc_pool_enter(t->client, t->pool);
	struct index_cursor c;
	bool is;

	index_lock(s->pool, zc_oid(&oid), index, &c);
	assert_true(index_cursor_present(&c, zc_slot(index)));
	is = zc_word_kind(index_cursor_get(&c, zc_slot(index)).word) == ZC_OVERFLOW;
	index_unlock(&c);
	zc_pool_leave(s);
	return is;
}

static unsigned count_in_file(struct test_host *t, uint64_t first, uint64_t n)
{
	unsigned found = 0;

	for (uint64_t i = first; i < first + n; i++)
		found += in_file(t, i);
	return found;
}

static void the_oldest_go_the_newest_stay(void **state)
{
	struct test_host t = open_host(false, 0);
	tmem_stats s;

	for (uint64_t i = 0; i < 8000; i++)
		assert_int_equal(put(&t, i), 0);
	s = test_stats(t.host);
	assert_true(s.overflow_moved_pages > 4000);
	assert_int_equal(s.overflow_direct_pages, 0);
	assert_int_equal(s.overflow_pages, s.overflow_moved_pages);
	assert_true(s.store_bytes <= LIMIT);
	/* What is in memory fills it: compressed bytes are most of the limit. */
	assert_true(s.compressed_bytes > LIMIT / 10 * 6);
	assert_true(count_in_file(&t, 0, 1000) > 950);
	assert_int_equal(count_in_file(&t, 7500, 500), 0);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	for (uint64_t i = 0; i < 8000; i++)
		expect(&t, i);
	test_close(&t);
	assert_int_equal(access(path, F_OK), -1);
}

/* Of the same age: those that are read while others come stay. */
static void what_is_used_stays(void **state)
{
	struct test_host t = open_host(false, 0);
	unsigned used = 0, unused = 0;

	for (uint64_t i = 0; i < 2000; i++)
		assert_int_equal(put(&t, i), 0);
	for (uint64_t i = 2000; i < 5000; i++) {
		assert_int_equal(put(&t, i), 0);
		if (i % 16 == 0)
			for (uint64_t k = 512; k < 576; k += 8)
				expect(&t, k);
	}
	used = count_in_file(&t, 512, 64);
	unused = count_in_file(&t, 768, 64);
	assert_int_equal(used, 0);
	assert_true(unused > 48);
	assert_true(test_stats(t.host).overflow_second_chances > 8);
	test_close(&t);
}

/* The first 600 are read, one for each page that is put: what only comes goes before them. */
static void a_flood_does_not_push_out_what_is_read(void **state)
{
	struct test_host t = open_host(false, 0);
	uint64_t reads = 0, missed = 0, r = 1;

	for (uint64_t i = 0; i < 12000; i++) {
		assert_int_equal(put(&t, i), 0);
		r = test_mix(r);
		if (i < 600)
			continue;
		reads++;
		missed += in_file(&t, r % 600);
		expect(&t, r % 600);
	}
	assert_true(test_stats(t.host).overflow_pages > 6000);
	assert_true(missed <= reads / 100);
	assert_true(count_in_file(&t, 600, 3000) > 2900);
	test_close(&t);
}

static void what_is_read_often_comes_back(void **state)
{
	struct test_host t = open_host(false, 0);
	tmem_oid oid = test_oid(1);

	for (uint64_t i = 0; i < 6000; i++)
		assert_int_equal(put(&t, i), 0);
	assert_true(in_file(&t, 5));
	/* No room: it stays, however often. */
	for (uint64_t i = 6000; i < 6050; i++)
		assert_int_equal(put(&t, i), 0);
	/* Room, and the second read. */
	assert_true(tmem_invalidate_range(t.client, t.pool, &oid, 4000, 2050) == 2050);
	(void)tmem_host_compact(t.host, LIMIT);
	expect(&t, 5);
	assert_true(in_file(&t, 5));
	expect(&t, 5);
	assert_false(in_file(&t, 5));
	assert_int_equal(test_stats(t.host).overflow_returned_pages, 1);
	expect(&t, 5);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	/* It was taken out of the file, and nothing else was. */
	assert_true(in_file(&t, 4) && in_file(&t, 6));
	test_close(&t);
}

/* A cluster of which some pages have gone, to the file and back. */
static void clusters_go_and_come_whole(void **state)
{
	static struct test_page group[8], all[TMEM_CLUSTER_MAX];
	struct test_host t = open_host(SEALED, 0);
	tmem_oid oid = test_oid(1);
	uint64_t first;
	uint32_t mask;

	for (unsigned i = 0; i < 8; i++)
		test_fill(&group[i], 64 + i, NOISE);
	assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, 64, 8, group), 0);
	assert_int_equal(tmem_invalidate_page(t.client, t.pool, &oid, 66), 1);
	for (uint64_t i = 128; i < 5000; i++)
		assert_int_equal(put(&t, i), 0);
	assert_true(in_file(&t, 65));
	assert_true(in_file(&t, 71));
	assert_true(tmem_invalidate_range(t.client, t.pool, &oid, 2000, 3000) == 3000);
	(void)tmem_host_compact(t.host, LIMIT);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(
			tmem_get_cluster(t.client, t.pool, &oid, 65, 0, all, &first, &mask), 0);
		assert_int_equal(first, 64);
		assert_int_equal(mask, 0xfb);
		assert_memory_equal(&all[1], &group[1], sizeof(page));
		assert_memory_equal(&all[3], &group[3], 5 * sizeof(page));
	}
	assert_int_equal(count_in_file(&t, 67, 5), 0);
	assert_int_equal(test_stats(t.host).overflow_returned_pages, 7);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	test_close(&t);
}

/* A clone's pages are left alone while two pools have them, and go when one has. */
static void shared_pages_wait(void **state)
{
	struct test_host t = open_host(false, 0);
	tmem_oid oid = test_oid(2);
	tmem_pool first = t.pool, copy;

	for (uint64_t i = 0; i < 1000; i++)
		assert_int_equal(put(&t, i), 0);
	copy = tmem_pool_clone(t.client, first);
	assert_true(copy >= 0);
	for (uint64_t i = 0; i < 3000; i++) {
		test_fill(&page, i, NOISE);
		assert_int_equal(tmem_put(t.client, first, &oid, i, &page), 0);
	}
	assert_int_equal(count_in_file(&t, 0, 1000), 0);
	assert_int_equal(tmem_pool_destroy(t.client, first), 0);
	t.pool = copy;
	for (uint64_t i = 0; i < 6000; i++) {
		test_fill(&page, i, NOISE);
		assert_int_equal(tmem_put(t.client, copy, &oid, i, &page), 0);
	}
	assert_true(count_in_file(&t, 0, 1000) > 900);
	for (uint64_t i = 0; i < 1000; i++)
		expect(&t, i);
	test_close(&t);
}

static void the_rate_holds(void **state)
{
	const uint64_t rate = 1u << 20;
	struct test_host t;
	unsigned refused = 0;
	uint64_t n = 0;
	tmem_stats s;

	now_ns = 1000000000;
	os_clock_replace(fake_clock, NULL);
	t = open_host(false, rate);
	for (; n < 6000; n++)
		refused += put(&t, n) != 0;
	/* Time stands still: what was there at first, a quarter of a second's worth. */
	s = test_stats(t.host);
	assert_true(s.overflow_file_bytes <= rate / 4);
	assert_true(s.overflow_file_bytes > rate / 8);
	assert_true(refused > 1000 && s.overflow_throttled > 0);
	assert_true(s.puts_nomem == refused);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	/* Time goes on: so much more, and no more. */
	for (unsigned i = 0; i < 20; i++) {
		now_ns += 50000000;
		for (unsigned k = 0; k < 100; k++)
			(void)put(&t, n++);
	}
	s = test_stats(t.host);
	assert_in_range(s.overflow_file_bytes, rate / 2, rate + rate / 4);
	/* And without it. */
	refused = 0;
	assert_int_equal(tmem_host_set_overflow_rate(t.host, 0), 0);
	for (unsigned k = 0; k < 2000; k++)
		refused += put(&t, n++) != 0;
	assert_int_equal(refused, 0);
	test_close(&t);
}

static void no_file_no_rate(void **state)
{
	struct test_host t = test_open(NULL);

	assert_int_equal(tmem_host_set_overflow_rate(t.host, 5), -EINVAL);
	test_close(&t);
}

/* Whether the file holds these 64 bytes somewhere. */
static bool file_holds(const char *bytes)
{
	struct stat st;
	int fd = open(path, O_RDONLY);
	char *all;
	bool found;

	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	all = malloc((size_t)st.st_size);
	assert_non_null(all);
	assert_int_equal(pread(fd, all, (size_t)st.st_size, 0), st.st_size);
	found = memmem(all, (size_t)st.st_size, bytes, 64) != NULL;
	free(all);
	close(fd);
	return found;
}

/* Noise is not compressed: its bytes lie in the file as they are, if it is not sealed. */
static void sealed_is_unreadable(void **state)
{
	for (unsigned sealed = 0; sealed <= SEALED; sealed++) {
		struct test_host t = open_host(sealed, 0);

		for (uint64_t i = 0; i < 6000; i++)
			assert_int_equal(put(&t, i), 0);
		assert_true(in_file(&t, 100));
		test_fill(&page, 100, NOISE);
		assert_int_equal(file_holds((const char *)&page + 64), !sealed);
		for (uint64_t i = 0; i < 6000; i++)
			expect(&t, i);
		test_close(&t);
	}
}

/* Blocks of the file exchanged with each other: each is a good one, and none is right. */
static void exchanged_blocks_are_found(void **state)
{
	for (unsigned sealed = 0; sealed <= SEALED; sealed++) {
		struct test_host t = open_host(sealed, 0);
		tmem_oid oid = test_oid(1);
		static char a[131072], b[131072];
		unsigned bad = 0;
		int fd;

		for (uint64_t i = 0; i < 6000; i++)
			assert_int_equal(put(&t, i), 0);
		fd = open(path, O_RDWR);
		assert_true(fd >= 0);
		assert_int_equal(pread(fd, a, sizeof(a), 8192), sizeof(a));
		assert_int_equal(pread(fd, b, sizeof(b), 8192 + sizeof(a)), sizeof(b));
		assert_int_equal(pwrite(fd, b, sizeof(b), 8192), sizeof(b));
		assert_int_equal(pwrite(fd, a, sizeof(a), 8192 + sizeof(a)), sizeof(a));
		close(fd);
		for (uint64_t i = 0; i < 6000; i++) {
			int rc = tmem_get(t.client, t.pool, &oid, i, &back);

			if (rc == 0)
				test_check(&back, i, NOISE);
			else
				assert_int_equal(rc, -EIO);
			bad += rc != 0;
		}
		assert_true(bad > 100);
		assert_int_equal(test_stats(t.host).checksum_failures, bad);
		(void)tmem_pool_flush(t.client, t.pool);
		test_close(&t);
	}
}

/* ---- which files are taken --------------------------------------------------------------- */

static int try_open(char err[200])
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	tmem_host *h;
	int rc;

	o.overflow_path = path;
	rc = tmem_host_create(&o, &h, err, 200);
	if (rc == 0)
		tmem_host_destroy(h);
	else
		assert_non_null(strstr(err, path));
	return rc;
}

static void make(const char *name, const char *text, size_t n)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, n), n);
	close(fd);
}

static void files_of_others_are_refused(void **state)
{
	static const char mine[] = "my diary";
	char other[96], err[200], text[64];
	int fd;

	snprintf(other, sizeof(other), "%s/other", dir);
	make(path, mine, sizeof(mine));
	assert_int_equal(try_open(err), -EEXIST);
	assert_non_null(strstr(err, "something else"));
	fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, text, sizeof(text)), sizeof(mine));
	assert_string_equal(text, mine);
	close(fd);
	/* An empty one with a second name. */
	make(path, "", 0);
	assert_int_equal(link(path, other), 0);
	assert_int_equal(try_open(err), -EINVAL);
	assert_int_equal(unlink(path), 0);
	/* A symbolic link, also to nowhere. */
	assert_int_equal(symlink(other, path), 0);
	assert_int_equal(try_open(err), -ELOOP);
	assert_int_equal(unlink(other), 0);
	assert_int_equal(try_open(err), -ELOOP);
	assert_int_equal(access(other, F_OK), -1);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(try_open(err), -EINVAL);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(try_open(err), -EISDIR);
	assert_int_equal(rmdir(path), 0);
}

static void one_store_one_file(void **state)
{
	struct test_host t = open_host(false, 0);
	char err[200];

	for (uint64_t i = 0; i < 4000; i++)
		assert_int_equal(put(&t, i), 0);
	assert_int_equal(try_open(err), -EBUSY);
	for (uint64_t i = 0; i < 4000; i++)
		expect(&t, i);
	test_close(&t);
}

/* The file of a host that died: begins with our header, nobody has it locked. */
static void an_old_file_is_made_anew(void **state)
{
	struct test_host t = open_host(false, 0);
	static char old[1 << 20];
	struct stat st;
	ssize_t n;
	int fd;

	for (uint64_t i = 0; i < 5000; i++)
		assert_int_equal(put(&t, i), 0);
	fd = open(path, O_RDONLY);
	n = read(fd, old, sizeof(old));
	close(fd);
	assert_int_equal(n, sizeof(old));
	test_close(&t);
	make(path, old, sizeof(old));
	t = open_host(false, 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 512);
	for (uint64_t i = 0; i < 5000; i++)
		assert_int_equal(put(&t, i), 0);
	for (uint64_t i = 0; i < 5000; i++)
		expect(&t, i);
	test_close(&t);
}

/* Whoever removed the name may have put another file there: it is not ours to remove. */
static void a_file_that_lost_its_name(void **state)
{
	struct test_host t = open_host(false, 0);
	char text[8];
	int fd;

	for (uint64_t i = 0; i < 3000; i++)
		assert_int_equal(put(&t, i), 0);
	assert_int_equal(unlink(path), 0);
	make(path, "theirs", 7);
	for (uint64_t i = 3000; i < 5000; i++)
		assert_int_equal(put(&t, i), 0);
	for (uint64_t i = 0; i < 5000; i++)
		expect(&t, i);
	test_close(&t);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(read(fd, text, sizeof(text)), 7);
	close(fd);
}

/* ---- a disk that is full -------------------------------------------------------------------- */

static void drop_line(void *ctx, enum os_log_level level, const char *text)
{
}

/* Pages stay in memory, nothing is lost; when there is room again, it goes on. */
static void a_full_disk(void **state)
{
	struct test_host t;
	char filler[96];
	static bool kept[6000];
	static char bytes[3 << 20];
	unsigned refused = 0;
	tmem_stats s;

	if (mount("none", dir, "tmpfs", 0, "size=4m") != 0)
		skip();
	os_log_set_sink(drop_line, NULL);
	now_ns = 1000000000;
	os_clock_replace(fake_clock, NULL);
	snprintf(filler, sizeof(filler), "%s/filler", dir);
	make(filler, bytes, sizeof(bytes));
	t = open_host(false, 0);
	for (uint64_t i = 0; i < 6000; i++) {
		int rc = put(&t, i);

		kept[i] = rc == 0;
		refused += rc != 0;
		assert_true(rc == 0 || rc == -ENOMEM);
	}
	s = test_stats(t.host);
	assert_true(refused > 500 && s.overflow_pages > 200);
	/* One failure, and for a second it is not tried again. */
	assert_int_equal(s.overflow_write_errors, 1);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	for (uint64_t i = 0; i < 6000; i++)
		if (kept[i])
			expect(&t, i);
	assert_int_equal(unlink(filler), 0);
	now_ns += 1000000001;
	for (uint64_t i = 7000; i < 8000; i++)
		assert_int_equal(put(&t, i), 0);
	for (uint64_t i = 7000; i < 8000; i++)
		expect(&t, i);
	test_close(&t);
	assert_int_equal(umount(dir), 0);
	os_log_set_sink(NULL, NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_oldest_go_the_newest_stay),
		TEST(what_is_used_stays),
		TEST(a_flood_does_not_push_out_what_is_read),
		TEST(what_is_read_often_comes_back),
		TEST(clusters_go_and_come_whole),
		TEST(shared_pages_wait),
		TEST(the_rate_holds),
		TEST(no_file_no_rate),
		TEST(sealed_is_unreadable),
		TEST(exchanged_blocks_are_found),
		TEST(files_of_others_are_refused),
		TEST(one_store_one_file),
		TEST(an_old_file_is_made_anew),
		TEST(a_file_that_lost_its_name),
		TEST(a_full_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
