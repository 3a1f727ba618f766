/* SPDX-License-Identifier: BSD-2-Clause */
/* Maintenance: each of its tunables does what it says, in its time, and can be taken back. */
#include "tmem_test.h"

#include "os/clock.h"
#include "os/thread.h"
#include "zcache/zcache.h"

#include <fcntl.h>
#include <unistd.h>

#define SECOND_NS 1000000000ull

static struct test_host t;
static uint64_t fake_ns;

static uint64_t fake_now(void *ctx)
{
	return fake_ns;
}

static void set(const char *name, const char *value)
{
	char err[200];

	assert_int_equal(tmem_tunable_set(t.host, NULL, name, value, err, sizeof(err)), 0);
}

static void begin(void)
{
	t = test_open(NULL);
	fake_ns = 1000 * SECOND_NS;
	os_clock_replace(fake_now, NULL);
}

static void end(void)
{
	os_clock_replace(NULL, NULL);
	test_close(&t);
}

/* Text-like: lz4 leaves much for the others. */
static void words_page(struct test_page *p, uint64_t seed)
{
	static const char *const w[] = {"page ", "store ", "frame ", "index ", "zpage ", "shard "};
	char *at = (char *)p->word, *stop = at + sizeof(p->word);
	uint64_t r = test_mix(seed);

	memset(p, ' ', sizeof(*p));
	while (stop - at > 24) {
		r = test_mix(r);
		at += sprintf(at, "%s%x", w[r % 6], (unsigned)(r >> 8) & 0xff);
	}
	p->word[511] = seed;
}

static void put(tmem_pool pool, uint64_t from, uint64_t to)
{
	tmem_oid oid = test_oid(1);
	struct test_page p;

	for (uint64_t i = from; i < to; i++) {
		words_page(&p, i);
		assert_int_equal(tmem_put(t.client, pool, &oid, i, &p), 0);
	}
}

static void check(tmem_pool pool, uint64_t from, uint64_t to)
{
	tmem_oid oid = test_oid(1);
	struct test_page p, want;

	for (uint64_t i = from; i < to; i++) {
		words_page(&want, i);
		memset(&p, 0x55, sizeof(p));
		assert_int_equal(tmem_get_keep(t.client, pool, &oid, i, &p), 0);
		assert_memory_equal(&p, &want, sizeof(p));
	}
}

/* Steps, ten a second; what they recompressed. */
static uint64_t steps(unsigned n)
{
	uint64_t before = test_stats(t.host).recompressed;

	for (unsigned i = 0; i < n; i++) {
		tmem_host_maintain(t.host);
		fake_ns += SECOND_NS / 10;
	}
	return test_stats(t.host).recompressed - before;
}

static void idle_age(void **state)
{
	tmem_pool pool;

	begin();
	pool = tmem_pool_create(t.client, 0, 0);
	put(pool, 0, 100);
	put(t.pool, 0, 100);
	fake_ns += 3600 * SECOND_NS;
	tmem_host_maintain(t.host); /* off at first */
	assert_int_equal(tmem_pool_pages(t.client, pool), 100);
	set("idle_ms", "5000");
	put(pool, 100, 150);
	tmem_host_maintain(t.host);
	assert_int_equal(tmem_pool_pages(t.client, pool), 50);
	fake_ns += 4900 * (SECOND_NS / 1000);
	tmem_host_maintain(t.host);
	assert_int_equal(tmem_pool_pages(t.client, pool), 50);
	set("idle_ms", "0"); /* taken back in time */
	fake_ns += SECOND_NS;
	tmem_host_maintain(t.host);
	assert_int_equal(tmem_pool_pages(t.client, pool), 50);
	set("idle_ms", "5000");
	tmem_host_maintain(t.host);
	assert_int_equal(tmem_pool_pages(t.client, pool), 0);
	assert_int_equal(test_stats(t.host).evicted_idle, 150);
	/* Never persistent ones. */
	check(t.pool, 0, 100);
	end();
}

static void recompression_is_off_at_first(void **state)
{
	begin();
	put(t.pool, 0, 300);
	assert_int_equal(steps(3000), 0);
	assert_int_equal(test_stats(t.host).recompress_tried, 0);
	end();
}

static void only_what_is_idle(void **state)
{
	begin();
	set("recompress_rate", "100000");
	set("recompress_idle_ms", "10000");
	put(t.pool, 0, 300);
	assert_int_equal(steps(95), 0); /* 9.5 s: too young, all of them */
	check(t.pool, 0, 100);
	put(t.pool, 300, 400);
	assert_int_equal(steps(10), 200);
	assert_int_equal(steps(100), 200); /* those that were used meanwhile, later */
	assert_int_equal(steps(300), 0);
	check(t.pool, 0, 400);
	end();
}

static void at_its_rate(void **state)
{
	uint64_t tried, n;

	begin();
	set("recompress_idle_ms", "1000");
	put(t.pool, 0, 3000);
	set("recompress_rate", "1");
	steps(1);
	fake_ns += 2 * SECOND_NS;
	set("recompress_rate", "100");
	tried = test_stats(t.host).recompress_tried;
	n = steps(100); /* 10 s, and what one second saved up; a leaf of 64 is begun or not */
	assert_in_range(test_stats(t.host).recompress_tried - tried, 930, 1170);
	assert_int_equal(n, test_stats(t.host).recompress_tried - tried);
	/* Off, in the middle of a pass; and on again. */
	set("recompress_rate", "0");
	assert_int_equal(steps(100), 0);
	set("recompress_rate", "1000");
	assert_int_equal(steps(50), 3000 - n);
	check(t.pool, 0, 3000);
	end();
}

static unsigned codec_of(uint64_t i)
{
	struct zc_slot *s = zc_pool_enter(t.client, t.pool);
	tmem_oid oid = test_oid(1);
	struct index_cursor c;
	unsigned codec;

	index_lock(s->pool, zc_oid(&oid), i, &c);
	codec = zpage_codec(zpage_info(
		zpool_peek(t.host->zpool, zc_word_handle(c.words[zc_slot(i)])), __ATOMIC_ACQUIRE));
	index_unlock(&c);
	zc_pool_leave(s);
	return codec;
}

static void with_its_codec(void **state)
{
	char err[200];

	begin();
	set("recompress_rate", "100000");
	set("recompress_idle_ms", "1000");
	set("recompress_codec", "deflate:6");
	put(t.pool, 0, 200);
	assert_int_equal(steps(30), 200);
	assert_int_equal(codec_of(7), CODEC_ID_DEFLATE);
	/* A bad one is refused, and the old one goes on. */
	assert_int_equal(tmem_tunable_set(t.host, NULL, "recompress_codec", "zstd:77", err, 200),
			 -EINVAL);
	assert_non_null(strstr(err, "allowed is"));
	put(t.pool, 200, 300);
	assert_int_equal(steps(30), 100);
	assert_int_equal(codec_of(207), CODEC_ID_DEFLATE);
	/* Another one: what is there already becomes its, too. */
	set("recompress_codec", "zstd:9");
	(void)steps(30);
	assert_in_range(test_stats(t.host).recompress_tried, 300 + 64, 600);
	check(t.pool, 0, 300);
	set("recompress_codec", "lz4"); /* what is not denser is no reason to touch anything */
	assert_int_equal(steps(50), 0);
	check(t.pool, 0, 300);
	end();
}

/* Pressure is read from the file; total: what it says, in us. */
static void say_pressure(int fd, unsigned total)
{
	char text[100];
	int n = snprintf(text, sizeof(text), "some avg10=0 total=%010u\n", total);

	assert_int_equal(pwrite(fd, text, (size_t)n, 0), n);
}

static void pressure_target(void **state)
{
	char path[] = "/tmp/tmem-maintain-XXXXXX";
	int fd = mkstemp(path);
	unsigned total = 1000;
	tmem_pool pool;
	uint64_t gone, target;

	begin();
	pool = tmem_pool_create(t.client, 0, 0);
	put(pool, 0, 3000);
	strcpy(t.host->maintain.path, path);
	t.host->maintain.looked = true;
	set("pressure_ppm", "500000");
	for (unsigned i = 0; i < 5; i++) { /* 40 %: below the target */
		say_pressure(fd, total += 400000);
		tmem_host_maintain(t.host);
		fake_ns += SECOND_NS;
	}
	assert_int_equal(test_stats(t.host).evicted_pressure, 0);
	set("pressure_ppm", "100000");
	for (unsigned i = 0; i < 3; i++) {
		say_pressure(fd, total += 400000);
		tmem_host_maintain(t.host);
		fake_ns += SECOND_NS;
	}
	gone = test_stats(t.host).evicted_pressure;
	assert_true(gone > 100);
	assert_true(t.host->pressed && t.host->ceiling_bytes);
	/* Off: no more of it, and what was ordered before is taken back. */
	set("pressure_ppm", "1000000");
	say_pressure(fd, total += 900000);
	tmem_host_maintain(t.host);
	assert_int_equal(test_stats(t.host).evicted_pressure, gone);
	assert_false(t.host->pressed);
	assert_int_equal(t.host->ceiling_bytes, 0);
	target = test_stats(t.host).evicted_target;
	put(pool, 3000, 6000);
	assert_int_equal(test_stats(t.host).evicted_target, target);
	/* On again: the time in between is not held against anybody. */
	set("pressure_ppm", "100000");
	fake_ns += SECOND_NS;
	say_pressure(fd, total += 900000);
	tmem_host_maintain(t.host);
	assert_int_equal(test_stats(t.host).evicted_pressure, gone);
	close(fd);
	unlink(path);
	end();
}

/* The thread of a host does it by itself, and ends with it in the middle of that. */
static void by_a_thread(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;

	o.maintain = 1;
	t = test_open(&o);
	set("recompress_idle_ms", "1000");
	set("recompress_rate", "500");
	put(t.pool, 0, 2000);
	/* It is another thread's work, by the real clock: looked for, for ten seconds. */
	for (unsigned i = 0; i < 200 && test_stats(t.host).recompressed < 200; i++)
		usleep(50000);
	assert_true(test_stats(t.host).recompressed >= 200);
	check(t.pool, 0, 2000);
	tmem_client_destroy(t.client);
	tmem_host_destroy(t.host);
}

static _Atomic bool stop;

static void *maintain_on(void *arg)
{
	while (!atomic_load(&stop)) {
		tmem_host_maintain(t.host);
		os_sleep_ns(SECOND_NS / 500);
	}
	return arg;
}

/* Pages go while sums are taken, unless maintenance is held meanwhile. */
static void quiet_verify(void **state)
{
	tmem_pool goes, stays;
	os_thread thread;

	t = test_open(NULL);
	goes = tmem_pool_create(t.client, 0, 0);
	stays = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 0);
	put(stays, 0, 6000); /* looked at last, for some milliseconds */
	set("target", "1M"); /* each step takes all that may go */
	atomic_store(&stop, false);
	assert_int_equal(os_thread_create(&thread, "maintain", maintain_on, NULL), 0);
	for (unsigned i = 0; i < 20; i++) {
		put(goes, 0, 100);
		assert_int_equal(tmem_host_verify(t.host, 1), 0);
	}
	/* It was only held: they go now, looked for during ten seconds. */
	for (unsigned i = 0; i < 200 && tmem_pool_pages(t.client, goes) > 0; i++)
		usleep(50000);
	assert_int_equal(tmem_pool_pages(t.client, goes), 0);
	atomic_store(&stop, true);
	os_thread_join(thread);
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(idle_age),
		cmocka_unit_test(recompression_is_off_at_first),
		cmocka_unit_test(only_what_is_idle),
		cmocka_unit_test(at_its_rate),
		cmocka_unit_test(with_its_codec),
		cmocka_unit_test(pressure_target),
		cmocka_unit_test(by_a_thread),
		cmocka_unit_test(quiet_verify),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
