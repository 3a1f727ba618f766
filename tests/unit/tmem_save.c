/* SPDX-License-Identifier: BSD-2-Clause */
/* Save and restore: everything comes back, damage does not, and failures leave nothing. */
#include "tmem_test.h"

#include "os/file.h"
#include "os/mem.h"
#include "os/thread.h"
#include "zcache/save.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Every byte; the race detector, which makes it ten times as long, has no use for all. */
#ifdef __SANITIZE_THREAD__
#define EACH 11
#else
#define EACH 1
#endif

static char path[64], part[80];

static void new_path(void)
{
	int fd;

	strcpy(path, "/tmp/tmem-save-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(unlink(path), 0);
	snprintf(part, sizeof(part), "%s.part", path);
}

static bool there(const char *name)
{
	struct stat st;

	return lstat(name, &st) == 0;
}

static void put(tmem_client *c, tmem_pool pool, uint64_t oid, uint64_t i, uint64_t seed)
{
	struct test_page page;
	tmem_oid o = test_oid(oid);

	test_fill(&page, seed, 100);
	assert_int_equal(tmem_put(c, pool, &o, i, &page), 0);
}

static void expect(tmem_client *c, tmem_pool pool, uint64_t oid, uint64_t i, uint64_t seed)
{
	struct test_page page;
	tmem_oid o = test_oid(oid);

	assert_int_equal(tmem_get(c, pool, &o, i, &page), 0);
	test_check(&page, seed, 100);
}

static void put_same(tmem_client *c, tmem_pool pool, uint64_t oid, uint64_t i, uint64_t word)
{
	struct test_page page;
	tmem_oid o = test_oid(oid);

	for (unsigned k = 0; k < 512; k++)
		page.word[k] = word;
	assert_int_equal(tmem_put(c, pool, &o, i, &page), 0);
}

static void expect_same(tmem_client *c, tmem_pool pool, uint64_t oid, uint64_t i, uint64_t word)
{
	struct test_page page;
	tmem_oid o = test_oid(oid);

	assert_int_equal(tmem_get(c, pool, &o, i, &page), 0);
	for (unsigned k = 0; k < 512; k++)
		assert_true(page.word[k] == word);
}

/* Eight pages together from index i on; the fourth is same-filled. */
static void put_cluster(tmem_client *c, tmem_pool pool, uint64_t oid, uint64_t i)
{
	static struct test_page group[8];
	tmem_oid o = test_oid(oid);

	for (unsigned k = 0; k < 8; k++)
		test_fill(&group[k], i + k, 100);
	memset(&group[3], 0, sizeof(group[3]));
	assert_int_equal(tmem_put_cluster(c, pool, &o, i, 8, group), 0);
}

static tmem_client *restore(tmem_host *h, tmem_save *io)
{
	tmem_client *c = NULL;
	int rc = tmem_client_restore(h, path, io, &c);

	if (rc)
		fail_msg("restore: %d, %s", rc, io->error);
	assert_non_null(c);
	return c;
}

static void everything_comes_back(void **state)
{
	static const char *const codec[] = {"lz4", "zstd:3", "zstd:-1", "none"};
	struct test_host a = test_open(NULL), b = test_open(NULL);
	tmem_pool_pair pair[4];
	tmem_save io = TMEM_SAVE;
	tmem_pool second, clone, eph;
	struct test_page page;
	tmem_oid o = test_oid(9);
	tmem_client *c;

	new_path();
	second = tmem_pool_create(a.client, TMEM_POOL_PERSIST, 4);
	eph = tmem_pool_create(a.client, 0, 4);
	for (uint64_t i = 0; i < 400; i++) {
		assert_int_equal(tmem_host_set_codec(a.host, codec[i % 4]), 0);
		put(a.client, a.pool, i % 7, i * 3, i);
	}
	assert_int_equal(tmem_host_set_codec(a.host, "lz4"), 0);
	for (uint64_t i = 0; i < 40; i++)
		put_cluster(a.client, second, 9, i * 16 + i % 8);
	/* Clusters with holes, and one of which a single page is left. */
	assert_int_equal(tmem_invalidate_page(a.client, second, &o, 2), 1);
	assert_int_equal(tmem_invalidate_range(a.client, second, &o, 17, 5), 5);
	assert_int_equal(tmem_invalidate_range(a.client, second, &o, 22, 2), 2);
	for (uint64_t i = 0; i < 100; i++)
		put_same(a.client, second, 11, i * 5, i * i);
	clone = tmem_pool_clone(a.client, second);
	assert_true(clone >= 0);
	put(a.client, eph, 1, 1, 1);
	put(a.client, second, 12, UINT64_MAX, 77);

	assert_int_equal(tmem_client_save(a.client, path, &io), 0);
	assert_false(there(part));
	assert_int_equal(io.pools, 3);
	assert_int_equal(io.pages, 400 + 2 * (320 - 8 + 100) + 1);
	assert_int_equal(test_stats(a.host).saved_pages, io.pages);
	assert_int_equal(tmem_host_verify(a.host, 1), 0);

	io.pool = pair;
	io.pool_room = 4;
	c = restore(b.host, &io);
	assert_int_equal(io.pages, 400 + 2 * (320 - 8 + 100) + 1);
	assert_int_equal(io.pools, 3);
	assert_int_equal(pair[0].was, a.pool);
	assert_int_equal(pair[1].was, second);
	assert_int_equal(pair[2].was, clone);
	assert_int_equal(tmem_host_verify(b.host, 1), 0);
	assert_int_equal(test_stats(b.host).pages, io.pages);
	assert_int_equal(test_stats(b.host).restored_pages, io.pages);
	for (uint64_t i = 0; i < 400; i++)
		expect(c, pair[0].is, i % 7, i * 3, i);
	for (unsigned p = 1; p < 3; p++) {
		for (uint64_t i = 0; i < 100; i++)
			expect_same(c, pair[p].is, 11, i * 5, i * i);
		for (uint64_t i = 2; i < 40; i++)
			for (unsigned k = 0; k < 8; k++) {
				if (k == 3)
					expect_same(c, pair[p].is, 9, i * 16 + i % 8 + k, 0);
				else
					expect(c, pair[p].is, 9, i * 16 + i % 8 + k,
					       i * 16 + i % 8 + k);
			}
		assert_int_equal(tmem_get(c, pair[p].is, &o, 2, &page), 1);
		assert_int_equal(tmem_get(c, pair[p].is, &o, 18, &page), 1);
		expect(c, pair[p].is, 9, 24, 24);
	}
	expect(c, pair[1].is, 12, UINT64_MAX, 77);
	/* Clusters are still clusters: the pages are in no more zpages than before. */
	assert_int_equal(test_stats(b.host).zpages, test_stats(a.host).zpages - 1 + 40);
	/* It is a client like any other. */
	for (uint64_t i = 0; i < 100; i++)
		put(c, pair[0].is, 3, i, i + 5000);
	(void)tmem_host_compact(b.host, 1 << 20);
	assert_int_equal(tmem_host_verify(b.host, 1), 0);
	tmem_client_destroy(c);
	assert_int_equal(unlink(path), 0);
	test_close(&a);
	test_close(&b);
}

/* Where it is asked for; and what a smaller host has no room for is evicted, oldest first. */
static void ephemeral_pools(void **state)
{
	tmem_host_options small = TMEM_HOST_OPTIONS;
	struct test_host a = test_open(NULL), b = test_open(NULL), c;
	tmem_pool_pair pair[2];
	tmem_save io = TMEM_SAVE;
	struct test_page page;
	tmem_oid o = test_oid(3);
	tmem_client *client;
	tmem_pool eph;
	unsigned found = 0;

	new_path();
	eph = tmem_pool_create(a.client, 0, 4);
	put(a.client, a.pool, 1, 1, 1);
	for (uint64_t i = 0; i < 3000; i++)
		put(a.client, eph, 3, i, i);
	io.ephemeral = 1;
	assert_int_equal(tmem_client_save(a.client, path, &io), 0);
	assert_int_equal(io.pools, 2);
	assert_int_equal(io.pages, 3001);
	io.pool = pair;
	io.pool_room = 2;
	client = restore(b.host, &io);
	assert_int_equal(io.pages, 3001);
	for (uint64_t i = 0; i < 3000; i++)
		expect(client, pair[1].is, 3, i, i);
	assert_int_equal(tmem_host_shrink(b.host, UINT64_MAX, NULL), 0);
	assert_int_equal(tmem_pool_pages(client, pair[1].is), 0);
	expect(client, pair[0].is, 1, 1, 1);
	assert_int_equal(tmem_host_verify(b.host, 1), 0);
	tmem_client_destroy(client);

	small.limit_bytes = 2 << 20;
	c = test_open(&small);
	client = restore(c.host, &io);
	for (uint64_t i = 0; i < 3000; i++)
		if (tmem_get(client, pair[1].is, &o, i, &page) == 0) {
			test_check(&page, i, 100);
			found++;
		}
	assert_in_range(found, 100, 2999);
	expect(client, pair[0].is, 1, 1, 1);
	assert_int_equal(tmem_host_verify(c.host, 1), 0);
	tmem_client_destroy(client);
	assert_int_equal(unlink(path), 0);
	test_close(&a);
	test_close(&b);
	test_close(&c);
}

static void through_the_overflow_file(void **state)
{
	char over[2][80];
	struct test_host t[2];
	tmem_save io = TMEM_SAVE;
	tmem_client *c;

	new_path();
	for (unsigned i = 0; i < 2; i++) {
		tmem_host_options o = TMEM_HOST_OPTIONS;

		snprintf(over[i], sizeof(over[i]), "%s.over%u", path, i);
		o.limit_bytes = 3u << 20;
		o.overflow_path = over[i];
		t[i] = test_open(&o);
	}
	for (uint64_t i = 0; i < 4000; i++)
		put(t[0].client, t[0].pool, 1, i, i);
	assert_true(test_stats(t[0].host).overflow_pages > 200);
	assert_int_equal(tmem_client_save(t[0].client, path, &io), 0);
	assert_int_equal(io.pages, 4000);
	assert_int_equal(tmem_host_verify(t[0].host, 1), 0);
	c = restore(t[1].host, &io);
	assert_true(test_stats(t[1].host).overflow_pages > 200);
	assert_true(test_stats(t[1].host).store_peak_bytes <= 3u << 20);
	assert_int_equal(tmem_host_verify(t[1].host, 1), 0);
	for (uint64_t i = 0; i < 4000; i++)
		expect(c, 0, 1, i, i);
	tmem_client_destroy(c);
	assert_int_equal(unlink(path), 0);
	test_close(&t[0]);
	test_close(&t[1]);
}

/* From the file nothing is evicted: ephemeral pages do not get there, by a restore neither. */
static void ephemeral_pages_stay_out_of_the_file(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct test_host a = test_open(NULL), b;
	tmem_pool_pair pair[2];
	tmem_save io = TMEM_SAVE;
	tmem_client *client;
	char over[80];
	tmem_pool eph;

	new_path();
	eph = tmem_pool_create(a.client, 0, 4);
	for (uint64_t i = 0; i < 4000; i++)
		put(a.client, eph, 3, i, i);
	put(a.client, a.pool, 1, 1, 1);
	io.ephemeral = 1;
	assert_int_equal(tmem_client_save(a.client, path, &io), 0);

	snprintf(over, sizeof(over), "%s.over", path);
	o.limit_bytes = 3u << 20;
	o.overflow_path = over;
	b = test_open(&o);
	io.pool = pair;
	io.pool_room = 2;
	client = restore(b.host, &io);
	assert_int_equal(test_stats(b.host).overflow_pages, 0);
	assert_in_range(tmem_pool_pages(client, pair[1].is), 500, 3999);
	expect(client, pair[0].is, 1, 1, 1);
	assert_int_equal(tmem_host_shrink(b.host, UINT64_MAX, NULL), 0);
	assert_int_equal(tmem_pool_pages(client, pair[1].is), 0);
	tmem_client_destroy(client);
	assert_int_equal(unlink(path), 0);
	test_close(&a);
	test_close(&b);
}

/* Pages that need a dictionary of this host come back without it. */
static void dictionaries_stay_at_home(void **state)
{
	struct test_host a = test_open(NULL), b = test_open(NULL);
	tmem_train_result r = {.size = sizeof(r)};
	struct test_page page, want;
	tmem_oid oid = test_oid(3);
	tmem_save io = TMEM_SAVE;
	tmem_client *c;

	new_path();
	assert_int_equal(tmem_host_set_codec(a.host, "zstd:3"), 0);
	for (uint64_t i = 0; i < 1600; i++) {
		if (i == 1200)
			assert_int_equal(tmem_pool_train(a.client, a.pool, 16384, &r), 0);
		test_record(&page, i, 0);
		assert_int_equal(tmem_put(a.client, a.pool, &oid, i, &page), 0);
	}
	assert_int_equal(r.kept, 1);
	assert_int_equal(tmem_client_save(a.client, path, &io), 0);
	assert_int_equal(tmem_host_verify(a.host, 1), 0);
	c = restore(b.host, &io);
	for (uint64_t i = 0; i < 1600; i++) {
		test_record(&want, i, 0);
		assert_int_equal(tmem_get(c, 0, &oid, i, &page), 0);
		assert_memory_equal(&page, &want, sizeof(page));
	}
	assert_int_equal(test_stats(b.host).dictionaries, 0);
	assert_int_equal(tmem_host_verify(b.host, 1), 0);
	tmem_client_destroy(c);
	assert_int_equal(unlink(path), 0);
	test_close(&a);
	test_close(&b);
}

/* ---- damage ----------------------------------------------------------------------------- */

static uint8_t *small_file(size_t *len)
{
	struct test_host t = test_open(NULL);
	uint8_t *bytes;

	new_path();
	put(t.client, t.pool, 1, 5, 1);
	put_cluster(t.client, t.pool, 2, 8);
	put_same(t.client, t.pool, 1, 7, 42);
	assert_int_equal(tmem_client_save(t.client, path, NULL), 0);
	test_close(&t);
	bytes = (uint8_t *)os_file_slurp(path, 1 << 20, len);
	assert_non_null(bytes);
	assert_true(*len > 1000 && *len < 30000);
	return bytes;
}

/* In place: some file systems write a file to the disk that was emptied and written anew. */
static void write_bytes(const uint8_t *bytes, size_t n)
{
	int fd = os_file_open(path, O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	assert_int_equal(os_file_pwrite(fd, bytes, n, 0), 0);
	assert_int_equal(os_file_truncate(fd, n), 0);
	os_file_close(fd);
}

/* Refused, with the place; and nothing of it is left. */
static int refused(struct test_host *t, tmem_save *io)
{
	uint64_t before = test_stats(t->host).clients;
	tmem_client *c = (tmem_client *)t;
	int rc = tmem_client_restore(t->host, path, io, &c);

	assert_true(rc < 0);
	assert_null(c);
	assert_true(io->error[0]);
	assert_int_equal(test_stats(t->host).clients, before);
	assert_int_equal(test_stats(t->host).pages, 0);
	assert_int_equal(test_stats(t->host).zpages, 0);
	return rc;
}

static void every_byte_counts(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_save io = TMEM_SAVE;
	size_t len;
	uint8_t *bytes = small_file(&len);

	for (size_t i = 0; i < len; i += EACH) {
		int rc;

		bytes[i] ^= (uint8_t)(1u << i % 8);
		write_bytes(bytes, len);
		rc = refused(&t, &io);
		if (i >= 8 && i < 12 && rc != -EBADMSG)
			assert_int_equal(rc, -EOPNOTSUPP);
		else
			assert_int_equal(rc, i < 8 ? -EINVAL : -EBADMSG);
		/* The place is that of the record in which the byte lies, or before it. */
		assert_true(io.offset <= i);
		assert_true(i - io.offset <= SAVE_RECORD + SAVE_PAYLOAD_MAX);
		bytes[i] ^= (uint8_t)(1u << i % 8);
	}
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	os_free(bytes);
	assert_int_equal(unlink(path), 0);
	test_close(&t);
}

static void every_length_but_one_is_refused(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_save io = TMEM_SAVE;
	size_t len;
	uint8_t *bytes = small_file(&len);
	tmem_client *c;

	for (size_t n = 0; n < len; n += EACH) {
		write_bytes(bytes, n);
		assert_int_equal(refused(&t, &io), -EBADMSG);
		assert_true(io.offset <= n);
	}
	bytes = realloc(bytes, len + 1);
	bytes[len] = 0;
	write_bytes(bytes, len + 1);
	assert_int_equal(refused(&t, &io), -EBADMSG);
	assert_int_equal(io.offset, len);
	write_bytes(bytes, len);
	c = restore(t.host, &io);
	assert_int_equal(io.bytes, len);
	tmem_client_destroy(c);
	os_free(bytes);
	assert_int_equal(unlink(path), 0);
	test_close(&t);
}

/* Make all checksums right again, so that what is judged is the fields. */
static void mend(uint8_t *b, size_t len)
{
	uint32_t whole = 0;
	size_t at = SAVE_HEADER;

	save_put32(b + 124, zc_checksum(b, 124));
	while (at + SAVE_RECORD <= len) {
		uint32_t n = save_get32(b + at + 4);

		if (n > len - at - SAVE_RECORD)
			break;
		if (save_get32(b + at) == SAVE_T_END && n == SAVE_END)
			save_put32(b + at + SAVE_RECORD + 24, whole);
		if (save_get32(b + at) == SAVE_T_ZPAGE && n > SAVE_ZPAGE)
			save_put32(b + at + SAVE_RECORD + 52,
				   zc_checksum(b + at + SAVE_RECORD + SAVE_ZPAGE, n - SAVE_ZPAGE));
		save_put32(b + at + 16, zc_checksum(b + at + SAVE_RECORD, n));
		save_put32(b + at + 20, zc_checksum(b + at, 20));
		whole = save_chain(whole, b + at);
		at += SAVE_RECORD + n;
	}
}

/* With right checksums: refused, or sound. Most bytes of a zpage are data, and may change. */
static void forged_files(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_save io = TMEM_SAVE;
	unsigned taken = 0, not = 0;
	size_t len;
	uint8_t *bytes = small_file(&len), *copy = malloc(len);

	for (size_t i = 0; i < 2 * len; i += EACH) {
		uint64_t r = test_mix(i);
		tmem_client *c;

		memcpy(copy, bytes, len);
		copy[i % len] = i < len ? (uint8_t)(copy[i] + 1) : (uint8_t)r;
		if (i >= len)
			copy[r % 400 % len] ^= (uint8_t)(r >> 20);
		mend(copy, len);
		write_bytes(copy, len);
		if (tmem_client_restore(t.host, path, &io, &c) == 0) {
			taken++;
			assert_int_equal(tmem_host_verify(t.host, 1), 0);
			tmem_client_destroy(c);
		} else {
			not ++;
			assert_null(c);
		}
		assert_int_equal(test_stats(t.host).pages, 0);
	}
	assert_true(taken > 100 / EACH && not > 500 / EACH);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	free(copy);
	os_free(bytes);
	assert_int_equal(unlink(path), 0);
	test_close(&t);
}

static size_t find_record(const uint8_t *b, size_t len, uint32_t type)
{
	size_t at = SAVE_HEADER;

	while (at < len && save_get32(b + at) != type)
		at += SAVE_RECORD + save_get32(b + at + 4);
	assert_true(at < len);
	return at;
}

static void what_is_wrong_is_said(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_save io = TMEM_SAVE;
	size_t len, at;
	uint8_t *bytes = small_file(&len), *copy = malloc(len);

	memcpy(copy, bytes, len);
	copy[8] = 2;
	mend(copy, len);
	write_bytes(copy, len);
	assert_int_equal(refused(&t, &io), -EOPNOTSUPP);
	assert_non_null(strstr(io.error, "newer version"));

	memcpy(copy, bytes, len);
	at = find_record(copy, len, SAVE_T_CODEC);
	memcpy(copy + at + SAVE_RECORD + 1,
	       "l\x1b"
	       "4",
	       3);
	mend(copy, len);
	write_bytes(copy, len);
	assert_int_equal(refused(&t, &io), -EOPNOTSUPP);
	assert_non_null(strstr(io.error, "codec 'l?4'"));
	assert_int_equal(io.offset, at);

	/* Two zpages of one handle. */
	memcpy(copy, bytes, len);
	at = find_record(copy, len, SAVE_T_ZPAGE);
	save_put64(copy + at + SAVE_RECORD + 32, 7);
	mend(copy, len);
	write_bytes(copy, len);
	assert_int_equal(refused(&t, &io), -EBADMSG);
	assert_non_null(strstr(io.error, "twice"));
	assert_int_equal(io.offset, at);

	memcpy(copy, bytes, len);
	copy[at + SAVE_RECORD + SAVE_ZPAGE] ^= 0xff;
	mend(copy, len);
	write_bytes(copy, len);
	assert_int_equal(refused(&t, &io), -EBADMSG);
	assert_non_null(strstr(io.error, "decompressed"));

	write_bytes((const uint8_t *)"hello", 5);
	assert_int_equal(refused(&t, &io), -EINVAL);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(refused(&t, &io), -ENOENT);
	free(copy);
	os_free(bytes);
	test_close(&t);
}

/* ---- failures ------------------------------------------------------------------------------ */

static int stop(void *arg, uint64_t pages, uint64_t total)
{
	unsigned *calls = arg;

	return ++*calls == 3;
}

static void failures_leave_nothing(void **state)
{
	struct test_host t = test_open(NULL);
	struct rlimit was, small = {.rlim_cur = 100000};
	tmem_save io = TMEM_SAVE;
	unsigned calls = 0;
	tmem_client *c;
	struct stat st;

	new_path();
	for (uint64_t i = 0; i < 20000; i++)
		put(t.client, t.pool, 1, i, i);
	write_bytes((const uint8_t *)"precious", 8);
	/* No room for it (here: by the size limit). */
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	small.rlim_max = was.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(tmem_client_save(t.client, path, &io), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_non_null(strstr(io.error, path));
	assert_false(there(part));
	/* Stopped by its caller. */
	io.progress = stop;
	io.arg = &calls;
	assert_int_equal(tmem_client_save(t.client, path, &io), -ECANCELED);
	assert_int_equal(calls, 3);
	assert_false(there(part));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 8);
	assert_int_equal(tmem_client_save(t.client, "/nonexistent/x", NULL), -ENOENT);
	/* What a crash left is no obstacle; a link is. */
	assert_int_equal(rename(path, part), 0);
	io.progress = NULL;
	assert_int_equal(tmem_client_save(t.client, path, &io), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(st.st_size, io.bytes);
	assert_int_equal(symlink("/etc/hostname", part), 0);
	assert_int_equal(tmem_client_save(t.client, path, NULL), -ELOOP);
	assert_int_equal(unlink(part), 0);
	/* And into a host that has no room for it. */
	calls = 0;
	io.progress = stop;
	assert_int_equal(tmem_client_restore(t.host, path, &io, &c), -ECANCELED);
	assert_null(c);
	assert_int_equal(tmem_host_set_limit(t.host, test_stats(t.host).store_bytes + (2u << 20)),
			 0);
	io.progress = NULL;
	assert_int_equal(tmem_client_restore(t.host, path, &io, &c), -ENOMEM);
	assert_null(c);
	assert_int_equal(test_stats(t.host).pages, 20000);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	io.size = 4;
	assert_int_equal(tmem_client_save(t.client, path, &io), -EINVAL);
	assert_int_equal(tmem_client_restore(t.host, path, &io, &c), -EINVAL);
	assert_int_equal(unlink(path), 0);
	test_close(&t);
}

/* Who writes a file decides what its pages hold. */
static void others_files_are_refused(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_save io = TMEM_SAVE;
	tmem_client *c;
	size_t len;
	uint8_t *bytes = small_file(&len);

	io.own = 1;
	write_bytes(bytes, len);
	tmem_client_destroy(restore(t.host, &io));
	assert_int_equal(chmod(path, 0620), 0);
	assert_int_equal(refused(&t, &io), -EPERM);
	io.own = 0;
	tmem_client_destroy(restore(t.host, &io));
	io.own = 1;
	if (geteuid() == 0) {
		assert_int_equal(chmod(path, 0600), 0);
		assert_int_equal(chown(path, 1, (gid_t)-1), 0);
		assert_int_equal(refused(&t, &io), -EPERM);
		assert_int_equal(rename(path, part), 0);
		assert_int_equal(tmem_client_save(t.client, path, &io), -EPERM);
		assert_true(there(part));
		assert_int_equal(rename(part, path), 0);
		assert_int_equal(chown(path, geteuid(), (gid_t)-1), 0);
	}
	assert_int_equal(chmod(path, 0602), 0);
	assert_int_equal(rename(path, part), 0);
	assert_int_equal(tmem_client_save(t.client, path, &io), -EPERM);
	assert_int_equal(chmod(part, 0600), 0);
	assert_int_equal(tmem_client_save(t.client, path, &io), 0);
	/* What is no file of pages is told from a damaged one; and a pipe is not waited for. */
	write_bytes((const uint8_t *)"precious", 8);
	assert_int_equal(refused(&t, &io), -EINVAL);
	write_bytes((const uint8_t *)"a", 1);
	assert_int_equal(refused(&t, &io), -EINVAL);
	write_bytes((const uint8_t *)SAVE_MAGIC, 8);
	assert_int_equal(refused(&t, &io), -EBADMSG);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(refused(&t, &io), -EINVAL);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(tmem_client_restore(t.host, "/", &io, &c), -EINVAL);
	os_free(bytes);
	test_close(&t);
}

/* A damaged zpage is not saved as if it were none. */
static void damage_in_the_store_is_not_saved(void **state)
{
	struct test_host t = test_open(NULL);
	struct zc_slot *s = zc_pool_enter(t.client, t.pool);
	tmem_oid oid = test_oid(1);
	struct index_cursor c;
	struct zpage *z;

	new_path();
	for (uint64_t i = 0; i < 50; i++)
		put(t.client, t.pool, 1, i, i);
	index_lock(s->pool, zc_oid(&oid), 3, &c);
	z = zpool_peek(t.host->zpool, zc_word_handle(c.words[3]));
	index_unlock(&c);
	((uint8_t *)zpage_bytes(z, z->info))[5] ^= 1;
	assert_int_equal(tmem_client_save(t.client, path, NULL), -EIO);
	assert_false(there(path));
	assert_false(there(part));
	((uint8_t *)zpage_bytes(z, z->info))[5] ^= 1;
	zc_pool_leave(s);
	test_close(&t);
}

/* ---- while others work ------------------------------------------------------------------------
 */

#define LIVE 3000
static _Atomic bool done;

static void *change(void *arg)
{
	struct test_host *t = arg;
	tmem_oid oid = test_oid(1);

	for (uint64_t n = 0; !atomic_load(&done); n++) {
		uint64_t i = LIVE + test_mix(n) % LIVE;

		if (n % 5 == 0)
			(void)tmem_invalidate_page(t->client, t->pool, &oid, i);
		else
			put(t->client, t->pool, 1, i, i << 32 | n);
		if (n % 500 == 0)
			(void)tmem_host_compact(t->host, 1 << 18);
	}
	return NULL;
}

/* What stays is there; what changes is as it was at some moment, whole. */
static void a_live_copy(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_save io = TMEM_SAVE;
	os_thread th;

	new_path();
	for (uint64_t i = 0; i < LIVE; i++)
		put(t.client, t.pool, 1, i, i);
	atomic_store(&done, false);
	assert_int_equal(os_thread_create(&th, "change", change, &t), 0);
	for (unsigned round = 0; round < 5; round++) {
		tmem_oid oid = test_oid(1);
		tmem_client *c;

		assert_int_equal(tmem_client_save(t.client, path, &io), 0);
		assert_in_range(io.pages, LIVE, 2 * LIVE);
		c = restore(t.host, &io);
		for (uint64_t i = 0; i < LIVE; i++)
			expect(c, 0, 1, i, i);
		for (uint64_t i = LIVE; i < 2 * LIVE; i++) {
			struct test_page page;

			if (tmem_get(c, 0, &oid, i, &page))
				continue;
			assert_int_equal(page.word[0] >> 32, i);
			test_check(&page, page.word[0], 100);
		}
		tmem_client_destroy(c);
	}
	atomic_store(&done, true);
	os_thread_join(th);
	assert_int_equal(unlink(path), 0);
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_comes_back),
		cmocka_unit_test(ephemeral_pools),
		cmocka_unit_test(through_the_overflow_file),
		cmocka_unit_test(ephemeral_pages_stay_out_of_the_file),
		cmocka_unit_test(dictionaries_stay_at_home),
		cmocka_unit_test(every_byte_counts),
		cmocka_unit_test(every_length_but_one_is_refused),
		cmocka_unit_test(forged_files),
		cmocka_unit_test(what_is_wrong_is_said),
		cmocka_unit_test(failures_leave_nothing),
		cmocka_unit_test(others_files_are_refused),
		cmocka_unit_test(damage_in_the_store_is_not_saved),
		cmocka_unit_test(a_live_copy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
