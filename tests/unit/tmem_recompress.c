/* SPDX-License-Identifier: BSD-2-Clause */
/* Codecs of pools, and recompression: what it exchanges, what it leaves alone, and how fast. */
#include "os/clock.h"
#include "os/thread.h"
#include "tmem_test.h"

#include <stdatomic.h>

#define N 2000u

static uint64_t fake_ns;

static uint64_t fake_now(void *ctx)
{
	(void)ctx;
	return fake_ns;
}

/* Text-like: lz4 leaves much for zstd. */
static void words_page(struct test_page *p, uint64_t seed)
{
	static const char *const w[] = {"page ",  "store ", "frame ", "index ",
					"zpage ", "class ", "shard ", "word "};
	char *at = (char *)p->word, *end = at + sizeof(p->word);
	uint64_t r = test_mix(seed);

	memset(p, ' ', sizeof(*p));
	while (end - at > 24) {
		r = test_mix(r);
		at += sprintf(at, "%s%x", w[r % 8], (unsigned)(r >> 8) & 0xff);
	}
	p->word[511] = seed;
}

static void put_words(struct test_host *t, uint64_t o, uint64_t from, uint64_t to)
{
	tmem_oid oid = test_oid(o);
	struct test_page p;

	for (uint64_t i = from; i < to; i++) {
		words_page(&p, o << 32 | i);
		assert_int_equal(tmem_put(t->client, t->pool, &oid, i, &p), 0);
	}
}

static void check_words(struct test_host *t, tmem_pool pool, uint64_t o, uint64_t from, uint64_t to)
{
	tmem_oid oid = test_oid(o);
	struct test_page p, want;

	for (uint64_t i = from; i < to; i++) {
		words_page(&want, o << 32 | i);
		memset(&p, 0x55, sizeof(p));
		assert_int_equal(tmem_get(t->client, pool, &oid, i, &p), 0);
		assert_memory_equal(&p, &want, sizeof(p));
	}
}

static tmem_recompress_result run(tmem_host *h, const tmem_recompress *o)
{
	tmem_recompress_result r = {.size = sizeof(r)};

	assert_int_equal(tmem_host_recompress(h, o, &r), 0);
	return r;
}

static void pool_codec(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_pool a = t.pool, b = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 0), c;
	uint64_t was, lz4, zstd;

	(void)state;
	assert_int_equal(tmem_pool_set_codec(t.client, a, "nosuch"), -EINVAL);
	assert_int_equal(tmem_pool_set_codec(t.client, a, "zstd:99"), -ERANGE);
	assert_int_equal(tmem_pool_set_codec(t.client, 9999, "zstd"), -ENOENT);
	put_words(&t, 1, 0, 100);
	lz4 = test_stats(t.host).compressed_bytes;
	assert_int_equal(tmem_pool_set_codec(t.client, b, "zstd:3"), 0);
	t.pool = b;
	put_words(&t, 1, 0, 100);
	zstd = test_stats(t.host).compressed_bytes - lz4;
	assert_true(zstd < lz4 * 3 / 4);
	/* Refused: the old one is kept. */
	assert_int_equal(tmem_pool_set_codec(t.client, b, "lz4:0"), -ERANGE);
	was = test_stats(t.host).compressed_bytes;
	put_words(&t, 2, 0, 100);
	assert_true(test_stats(t.host).compressed_bytes - was < lz4 * 3 / 4);
	/* A clone goes on with it; and back to the host's. */
	c = tmem_pool_clone(t.client, b);
	assert_true(c >= 0);
	t.pool = c;
	was = test_stats(t.host).compressed_bytes;
	put_words(&t, 3, 0, 100);
	assert_true(test_stats(t.host).compressed_bytes - was < lz4 * 3 / 4);
	assert_int_equal(tmem_pool_set_codec(t.client, c, NULL), 0);
	was = test_stats(t.host).compressed_bytes;
	put_words(&t, 4, 0, 100);
	assert_true(test_stats(t.host).compressed_bytes - was > lz4 * 7 / 8);
	assert_int_equal(tmem_host_set_codec(t.host, "lz4hc"), 0);
	check_words(&t, a, 1, 0, 100);
	check_words(&t, b, 2, 0, 100);
	check_words(&t, c, 1, 0, 100);
	check_words(&t, c, 4, 0, 100);
	/* The next pool in the place of this one begins with the host's. */
	assert_int_equal(tmem_pool_destroy(t.client, b), 0);
	t.pool = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 0);
	assert_int_equal(tmem_host_set_codec(t.host, "lz4"), 0);
	was = test_stats(t.host).compressed_bytes;
	put_words(&t, 1, 0, 100);
	assert_true(test_stats(t.host).compressed_bytes - was > lz4 * 7 / 8);
	test_close(&t);
}

static void bad_options(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_recompress o = TMEM_RECOMPRESS;
	tmem_recompress_result r = {.size = sizeof(r) + 1};

	(void)state;
	assert_int_equal(tmem_host_recompress(t.host, &o, &r), -EINVAL);
	o.size++;
	assert_int_equal(tmem_host_recompress(t.host, &o, NULL), -EINVAL);
	o = TMEM_RECOMPRESS;
	o.codec = "nosuch";
	assert_int_equal(tmem_host_recompress(t.host, &o, NULL), -ENOENT);
	o.codec = "zstd:77";
	assert_int_equal(tmem_host_recompress(t.host, &o, NULL), -ERANGE);
	o.codec = NULL;
	o.cpu_percent = 101;
	assert_int_equal(tmem_host_recompress(t.host, &o, NULL), -EINVAL);
	assert_int_equal(tmem_host_recompress(t.host, NULL, NULL), 0);
	test_close(&t);
}

static void gains_frames(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_stats before, after;
	tmem_recompress o = TMEM_RECOMPRESS;
	tmem_recompress_result r;

	(void)state;
	put_words(&t, 1, 0, N);
	before = test_stats(t.host);
	r = run(t.host, NULL);
	after = test_stats(t.host);
	assert_int_equal(r.looked_at, N);
	assert_int_equal(r.tried, N);
	assert_int_equal(r.recompressed, N);
	assert_int_equal(r.passes, 1);
	assert_int_equal(after.pages, N);
	assert_int_equal(after.zpages, N);
	assert_true(after.compressed_bytes < before.compressed_bytes * 3 / 4);
	/* In frames, which is what it is for, nearly what was saved in slots. */
	assert_true(after.frame_bytes < before.frame_bytes);
	assert_int_equal(r.frames_returned, (before.frame_bytes - after.frame_bytes) / 4096);
	assert_true(r.frames_returned * 4096 > r.saved_bytes * 8 / 10);
	assert_true(after.store_bytes < before.store_bytes);
	check_words(&t, t.pool, 1, 0, N);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	/* All are as dense as can be: nothing to try. */
	r = run(t.host, NULL);
	assert_int_equal(r.looked_at, N);
	assert_int_equal(r.tried, 0);
	/* A codec that is no denser is not tried either. */
	o.codec = "lz4hc";
	assert_int_equal(run(t.host, &o).tried, 0);
	test_close(&t);
}

/* What does not gain is tried once, and again when another codec is asked for. */
static void poor_pages(void **state)
{
	tmem_host_options ho = TMEM_HOST_OPTIONS;
	tmem_recompress o = TMEM_RECOMPRESS;
	struct test_host t;
	struct test_page p;
	tmem_oid oid = test_oid(5);
	uint64_t bytes;
	tmem_recompress_result r;

	(void)state;
	ho.store_raw = 1;
	t = test_open(&ho);
	for (uint64_t i = 0; i < 50; i++) {
		test_fill(&p, i, 512); /* noise: stored raw */
		assert_int_equal(tmem_put(t.client, t.pool, &oid, i, &p), 0);
	}
	bytes = test_stats(t.host).compressed_bytes;
	r = run(t.host, &o);
	assert_int_equal(r.tried, 50);
	assert_int_equal(r.recompressed, 0);
	assert_int_equal(run(t.host, &o).tried, 0);
	assert_int_equal(test_stats(t.host).compressed_bytes, bytes);
	o.codec = "deflate:6";
	assert_int_equal(run(t.host, &o).tried, 50);
	assert_int_equal(run(t.host, &o).tried, 0);
	for (uint64_t i = 0; i < 50; i++) {
		assert_int_equal(tmem_get(t.client, t.pool, &oid, i, &p), 0);
		test_check(&p, i, 512);
	}
	test_close(&t);
}

/* Where pages seldom gain, most are not even tried. */
static void gives_up(void **state)
{
	tmem_host_options ho = TMEM_HOST_OPTIONS;
	struct test_host t;
	struct test_page p;
	tmem_oid oid = test_oid(5);
	tmem_recompress_result r;

	(void)state;
	ho.store_raw = 1;
	t = test_open(&ho);
	for (uint64_t i = 0; i < N; i++) {
		test_fill(&p, i, 512);
		assert_int_equal(tmem_put(t.client, t.pool, &oid, i, &p), 0);
	}
	r = run(t.host, NULL);
	assert_int_equal(r.looked_at, N);
	assert_in_range(r.tried, 64 + (N - 128) / 16 - 8, 128 + N / 16);
	test_close(&t);
}

static void idle_only(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_recompress o = TMEM_RECOMPRESS;
	tmem_recompress_result r;

	(void)state;
	fake_ns = 1000000000;
	os_clock_replace(fake_now, NULL);
	o.idle_ms = 1000;
	put_words(&t, 1, 0, 500);
	r = run(t.host, &o); /* the first pass only marks */
	assert_int_equal(r.looked_at, 500);
	assert_int_equal(r.tried, 0);
	fake_ns += 999000000;
	r = run(t.host, &o); /* too soon for another */
	assert_int_equal(r.looked_at, 0);
	put_words(&t, 1, 500, 600);	    /* new */
	put_words(&t, 1, 400, 410);	    /* replaced */
	check_words(&t, t.pool, 1, 0, 100); /* got */
	fake_ns += 1000000;
	r = run(t.host, &o);
	assert_int_equal(r.looked_at, 600);
	assert_int_equal(r.recompressed, 500 - 100 - 10);
	fake_ns += 1000000000;
	r = run(t.host, &o);
	assert_int_equal(r.recompressed, 210);
	fake_ns += 1000000000;
	assert_int_equal(run(t.host, &o).tried, 0);
	check_words(&t, t.pool, 1, 0, 600);
	os_clock_replace(NULL, NULL);
	test_close(&t);
}

static void rates(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_recompress o = TMEM_RECOMPRESS;
	uint64_t tried = 0;
	tmem_recompress_result r;

	(void)state;
	fake_ns = 1000000000;
	os_clock_replace(fake_now, NULL);
	put_words(&t, 1, 0, N);
	o.pages_per_s = 100;
	for (unsigned i = 0; i < 1000; i++) { /* 10 s in steps of 10 ms */
		r = run(t.host, &o);
		assert_true(r.tried <= 64);
		tried += r.tried;
		fake_ns += 10000000;
	}
	assert_in_range(tried, 900, 1100);
	/* By number. */
	o.pages_per_s = 0;
	o.max_pages = 70;
	assert_in_range(run(t.host, &o).tried, 70, 133);
	/* CPU time does not go by while the clock stands still: at most what a tenth gives. */
	o.max_pages = 0;
	o.cpu_percent = 1;
	for (unsigned i = 0; i < 20; i++)
		assert_true(run(t.host, &o).tried <= 64 + N / 4);
	os_clock_replace(NULL, NULL);
	test_close(&t);
}

static void clusters(void **state)
{
	struct test_host t = test_open(NULL);
	static struct test_page buf[TMEM_CLUSTER_MAX], want;
	tmem_oid oid = test_oid(9);
	uint64_t before;
	uint64_t first;
	uint32_t mask;

	(void)state;
	for (unsigned c = 0; c < 64; c++) {
		for (unsigned i = 0; i < 8; i++)
			words_page(&buf[i], c * 8 + i);
		memset(&buf[3], 0, sizeof(buf[3])); /* same-filled, in the middle */
		assert_int_equal(tmem_put_cluster(t.client, t.pool, &oid, c * 8, 8, buf), 0);
	}
	/* Some lose their first page, some all but one. */
	for (unsigned c = 0; c < 64; c += 4) {
		assert_int_equal(tmem_invalidate_page(t.client, t.pool, &oid, c * 8), 1);
		assert_int_equal(tmem_invalidate_range(t.client, t.pool, &oid, c * 8 + 8, 7), 7);
	}
	before = test_stats(t.host).compressed_bytes;
	assert_int_equal(run(t.host, NULL).recompressed, 64);
	assert_true(test_stats(t.host).compressed_bytes < before * 3 / 4);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	for (unsigned c = 0; c < 64; c++) {
		uint32_t there = c % 4 == 0 ? 0xfe : c % 4 == 1 ? 0x80 : 0xff;

		assert_int_equal(
			tmem_get_cluster(t.client, t.pool, &oid, c * 8 + 7, 0, buf, &first, &mask),
			0);
		assert_int_equal(first, c * 8);
		assert_int_equal(mask, there);
		for (unsigned i = 0; i < 8; i++) {
			words_page(&want, c * 8 + i);
			if (i == 3)
				memset(&want, 0, sizeof(want));
			if (there >> i & 1)
				assert_memory_equal(&buf[i], &want, sizeof(want));
		}
	}
	test_close(&t);
}

/* ---- neighbours ------------------------------------------------------------------------ */

#define BLOCKS 64u

/* A page of a block of 16, by how the block was put: words, noise, all of one word. */
static void block_page(struct test_page *p, uint64_t i)
{
	words_page(p, i);
	if (i % 16 == 5)
		memset(p, 0, sizeof(*p));
	if (i % 16 == 9)
		test_fill(p, i, 512);
}

static void check_blocks(struct test_host *t, tmem_pool pool, const bool *there)
{
	tmem_oid oid = test_oid(9);
	struct test_page p, want;

	for (uint64_t i = 0; i < (uint64_t)BLOCKS * 16; i++) {
		block_page(&want, i);
		assert_int_equal(tmem_get(t->client, pool, &oid, i, &p), there[i] ? 0 : 1);
		if (there[i])
			assert_memory_equal(&p, &want, sizeof(p));
	}
}

/* Blocks put as programs leave them: page by page, or by eights of which most have gone. */
static void put_blocks(struct test_host *t, bool *there)
{
	static struct test_page buf[8];
	tmem_oid oid = test_oid(9);

	for (uint64_t b = 0; b < BLOCKS * 2ull; b++) {
		for (unsigned i = 0; i < 8; i++)
			block_page(&buf[i], b * 8 + i);
		for (unsigned i = 0; b % 4 < 2 && i < 8; i++)
			assert_int_equal(tmem_put(t->client, t->pool, &oid, b * 8 + i, &buf[i]), 0);
		if (b % 4 >= 2)
			assert_int_equal(tmem_put_cluster(t->client, t->pool, &oid, b * 8, 8, buf),
					 0);
		for (unsigned i = 0; i < 8; i++) {
			there[b * 8 + i] = b % 4 < 2 ? i != 2 : i % 4 == b % 3;
			if (!there[b * 8 + i])
				assert_int_equal(
					tmem_invalidate_page(t->client, t->pool, &oid, b * 8 + i),
					1);
		}
	}
}

static void neighbours(void **state)
{
	tmem_host_options ho = TMEM_HOST_OPTIONS;
	static bool there[BLOCKS * 16];
	static struct test_page buf[TMEM_CLUSTER_MAX];
	tmem_recompress o = TMEM_RECOMPRESS;
	tmem_oid oid = test_oid(9);
	struct test_host t;
	struct test_page p;
	tmem_recompress_result r;
	tmem_stats before, after;
	uint64_t first;
	uint32_t mask;

	(void)state;
	ho.codec = "zstd:1";
	ho.store_raw = 1;
	t = test_open(&ho);
	put_blocks(&t, there);
	before = test_stats(t.host);
	/* The same codec, each as it was put: nothing to gain. */
	o.codec = "zstd:1";
	assert_int_equal(run(t.host, &o).recompressed, 0);
	o.cluster = TMEM_CLUSTER_MAX + 1;
	assert_int_equal(tmem_host_recompress(t.host, &o, NULL), -EINVAL);
	o.cluster = 16;
	o.min_gain_percent = 1; /* words at random: little is common to pages */
	assert_int_equal(run(t.host, &o).recompressed, before.zpages - BLOCKS / 2);
	after = test_stats(t.host);
	assert_int_equal(after.zpages, BLOCKS + BLOCKS / 2); /* noise stays by itself */
	assert_int_equal(after.pages, before.pages);
	assert_int_equal(after.recompress_saved_bytes > before.compressed_bytes / 4, 1);
	assert_true(after.compressed_bytes < before.compressed_bytes * 3 / 4);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	check_blocks(&t, t.pool, there);
	/* All come with one, and only what is there. */
	for (uint64_t b = 0; b < BLOCKS; b++) {
		uint32_t want = 0;
		unsigned at = 16;

		for (unsigned i = 16; i-- > 0;)
			if (there[b * 16 + i] && i != 5)
				at = i;
		for (unsigned i = at; i < 16; i++)
			if (b % 2 || i != 9)
				want |= (uint32_t)there[b * 16 + i] << (i - at);
		assert_int_equal(tmem_get_cluster(t.client, t.pool, &oid, b * 16 + at, 0, buf,
						  &first, &mask),
				 0);
		assert_int_equal(first, b * 16 + at);
		assert_int_equal(mask, want);
	}
	/* As dense as can be, which those with gaps from the beginning may have to show twice;
	 * but one more page, and a block that lost most of its pages, change that. */
	r = run(t.host, &o);
	assert_int_equal(r.recompressed, 0);
	assert_in_range(r.tried, 0, BLOCKS / 4);
	block_page(&p, 2);
	assert_int_equal(tmem_put(t.client, t.pool, &oid, 2, &p), 0);
	there[2] = true;
	for (unsigned i = 33; i < 45; i++)
		there[i] = tmem_invalidate_page(t.client, t.pool, &oid, i) < 0;
	assert_int_equal(run(t.host, &o).recompressed, 3);
	assert_int_equal(run(t.host, &o).recompressed, 0);
	assert_int_equal(test_stats(t.host).zpages, BLOCKS + BLOCKS / 2 - 1);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	check_blocks(&t, t.pool, there);
	/* A denser level of the same codec. */
	o.codec = "zstd:9";
	assert_true(run(t.host, &o).recompressed > BLOCKS / 2);
	check_blocks(&t, t.pool, there);
	test_close(&t);
}

/* One page of a block that is in use stays where it is, and the others go together round it. */
static void neighbours_of_one_in_use(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_recompress o = TMEM_RECOMPRESS;

	(void)state;
	fake_ns = 1000000000;
	os_clock_replace(fake_now, NULL);
	o.idle_ms = 1000;
	o.cluster = 8;
	put_words(&t, 1, 0, 64);
	(void)run(t.host, &o);
	check_words(&t, t.pool, 1, 19, 20);
	fake_ns += 1000000000;
	assert_int_equal(run(t.host, &o).recompressed, 63);
	assert_int_equal(test_stats(t.host).zpages, 8 + 1);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	check_words(&t, t.pool, 1, 0, 64);
	os_clock_replace(NULL, NULL);
	test_close(&t);
}

/* Nothing of an ephemeral pool, or of two pools, changes its shape. */
static void neighbours_left_alone(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_recompress o = TMEM_RECOMPRESS;
	tmem_pool keep = t.pool, clone;

	(void)state;
	o.cluster = 16;
	t.pool = tmem_pool_create(t.client, 0, 0);
	put_words(&t, 1, 0, 64);
	assert_int_equal(run(t.host, &o).recompressed, 64);
	assert_int_equal(test_stats(t.host).zpages, 64);
	t.pool = keep;
	put_words(&t, 2, 0, 64);
	clone = tmem_pool_clone(t.client, keep);
	assert_true(clone >= 0);
	assert_int_equal(run(t.host, &o).recompressed, 0);
	put_words(&t, 2, 0, 32);
	/* 32 new ones here, and 32 that only the clone has any more. */
	assert_in_range(run(t.host, &o).recompressed, 32, 64);
	check_words(&t, keep, 2, 0, 64);
	check_words(&t, clone, 2, 0, 64);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	test_close(&t);
}

/* What two pools share stays as it is until only one of them has it. */
static void shared_is_left_alone(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_pool clone;
	tmem_recompress_result r;

	(void)state;
	put_words(&t, 1, 0, 300);
	clone = tmem_pool_clone(t.client, t.pool);
	assert_true(clone >= 0);
	put_words(&t, 1, 0, 100);
	r = run(t.host, NULL);
	/* The new ones of the source, and what of the clone is no longer shared. */
	assert_in_range(r.recompressed, 100, 200);
	check_words(&t, t.pool, 1, 0, 300);
	check_words(&t, clone, 1, 0, 300);
	assert_int_equal(tmem_pool_destroy(t.client, t.pool), 0);
	t.pool = clone;
	(void)run(t.host, NULL);
	assert_int_equal(run(t.host, NULL).tried, 0);
	assert_int_equal(test_stats(t.host).recompressed,
			 r.recompressed + 300 - (r.recompressed - 100));
	check_words(&t, clone, 1, 0, 300);
	test_close(&t);
}

/* Words of ephemeral pools keep what the eviction queues know them by. */
static void ephemeral(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_pool e = tmem_pool_create(t.client, 0, 0), keep = t.pool;
	uint64_t got;

	(void)state;
	t.pool = e;
	put_words(&t, 1, 0, 500);
	t.pool = keep;
	assert_int_equal(run(t.host, NULL).recompressed, 500);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	assert_int_equal(tmem_host_shrink(t.host, 1u << 20, &got), 0);
	assert_int_equal(test_stats(t.host).pages, 0);
	assert_int_equal(test_stats(t.host).evicted_pages, 500);
	test_close(&t);
}

/* At the limit: never above it, nothing lost, and there is room afterwards. */
static void at_the_limit(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct test_host t;
	struct test_page p;
	tmem_oid oid = test_oid(1);
	uint64_t n = 0, used;
	tmem_recompress_result r = {.size = sizeof(r)};
	tmem_stats s;
	int rc;

	(void)state;
	o.limit_bytes = 8u << 20;
	t = test_open(&o);
	(void)run(t.host, NULL); /* contexts and the like, while there is room */
	for (words_page(&p, 1ull << 32); tmem_put(t.client, t.pool, &oid, n, &p) == 0;
	     words_page(&p, 1ull << 32 | n))
		n++;
	assert_true(n > 1000);
	used = test_stats(t.host).store_bytes;
	for (unsigned i = 0; i < 50; i++) {
		rc = tmem_host_recompress(t.host, NULL, &r);
		assert_true(rc == 0 || rc == -ENOMEM);
		if (r.passes && !r.tried)
			break;
	}
	s = test_stats(t.host);
	assert_true(s.store_peak_bytes <= o.limit_bytes);
	assert_int_equal(s.pages, n);
	assert_true(s.recompressed > n / 2);
	assert_true(s.store_bytes < used);
	check_words(&t, t.pool, 1, 0, n);
	put_words(&t, 1, n, n + n / 8);
	test_close(&t);
}

/* A client that has no room of its own for a copy stays as it is, and stops nobody else's. */
static void at_a_clients_limit(void **state)
{
	struct test_host t = test_open(NULL), u = {.host = t.host};
	tmem_recompress_result r = {.size = sizeof(r)};
	uint64_t recompressed = 0;

	(void)state;
	put_words(&t, 1, 0, 500);
	assert_int_equal(tmem_client_create(t.host, "other", &u.client), 0);
	u.pool = tmem_pool_create(u.client, TMEM_POOL_PERSIST, 0);
	put_words(&u, 1, 0, 500);
	assert_int_equal(tmem_client_set_limit(t.client, 1), 0);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(tmem_host_recompress(t.host, NULL, &r), 0);
		recompressed += r.recompressed;
		if (r.passes && i > 4)
			break;
	}
	assert_true(recompressed > 250);
	assert_true(recompressed <= 500);
	check_words(&t, t.pool, 1, 0, 500);
	check_words(&u, u.pool, 1, 0, 500);
	tmem_client_destroy(u.client);
	test_close(&t);
}

/* ---- beside everything else -------------------------------------------------------- */

#define THREADS 4u
#define PAGES	256u
#ifdef __SANITIZE_THREAD__
#define OPS   2000u /* which sees a race that did no harm */
#define SHORT 40u
#else
#define OPS   6000u
#define SHORT 100u
#endif

static struct test_host race;
static _Atomic bool stop;

static void *recompressor(void *arg)
{
	static const char *const codec[] = {"zstd:1", "lz4hc:3", "deflate:1", "zstd:3"};
	tmem_recompress o = TMEM_RECOMPRESS;

	(void)arg;
	for (unsigned i = 0; !atomic_load(&stop); i++) {
		o.codec = codec[i % 4];
		o.idle_ms = i % 3 == 0;
		o.cluster = i % 5 * 4;
		(void)tmem_host_recompress(race.host, &o, NULL);
		if (i % 4 == 0)
			(void)tmem_host_compact(race.host, 1u << 20);
	}
	return NULL;
}

/* Its own object: it knows what is there. Returns the operations that went wrong. */
static void *worker(void *arg)
{
	uintptr_t me = (uintptr_t)arg, bad = 0;
	uint64_t version[PAGES] = {0}, next = 0, r = me;
	tmem_oid oid = test_oid(100 + me);
	struct test_page p, want;

	for (unsigned k = 0; k < OPS; k++) {
		uint64_t i = (r = test_mix(r)) % PAGES, what = r >> 32 & 15;
		int rc;

		if (what < 5) {
			words_page(&p, me << 48 | i << 24 | ++next);
			rc = tmem_put(race.client, race.pool, &oid, i, &p);
			version[i] = rc ? 0 : next;
			bad += rc != 0;
			continue;
		}
		if (what == 5) {
			tmem_pool c = tmem_pool_clone(race.client, race.pool);

			if (k % 4 == 0 && c >= 0) {
				rc = tmem_get(race.client, c, &oid, i, &p);
				words_page(&want, me << 48 | i << 24 | version[i]);
				bad += rc != !version[i] ||
				       (!rc && memcmp(&p, &want, sizeof(p)) != 0);
			}
			bad += c >= 0 && tmem_pool_destroy(race.client, c) != 0;
			continue;
		}
		if (what == 6) {
			rc = tmem_invalidate_page(race.client, race.pool, &oid, i);
			bad += rc != (version[i] != 0);
			version[i] = 0;
			continue;
		}
		rc = what == 7 ? tmem_get_and_invalidate(race.client, race.pool, &oid, i, &p)
			       : tmem_get(race.client, race.pool, &oid, i, &p);
		words_page(&want, me << 48 | i << 24 | version[i]);
		bad += rc != !version[i] || (!rc && memcmp(&p, &want, sizeof(p)) != 0);
		if (what == 7)
			version[i] = 0;
	}
	return (void *)bad;
}

static void races(void **state)
{
	os_thread t[THREADS], r;

	(void)state;
	race = test_open(NULL);
	atomic_store(&stop, false);
	assert_int_equal(os_thread_create(&r, "recompress", recompressor, NULL), 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(os_thread_create(&t[i], "worker", worker, (void *)i), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		void *bad;

		assert_int_equal(pthread_join(t[i], &bad), 0);
		assert_int_equal((uintptr_t)bad, 0);
	}
	atomic_store(&stop, true);
	os_thread_join(r);
	assert_true(test_stats(race.host).recompressed > 100);
	test_close(&race);
}

/* ---- shared pools ------------------------------------------------------------------ */

static const uint8_t uuid[16] = "recompressed";

static void shared_pools(void **state)
{
	struct test_host t = test_open(NULL);
	tmem_client *other;
	tmem_pool one = t.pool, theirs;
	uint64_t before;
	tmem_recompress_result r;

	(void)state;
	assert_int_equal(tmem_client_create(t.host, "other", &other), 0);
	t.pool = tmem_pool_create_shared(t.client, uuid, 0, 4);
	assert_int_equal(tmem_pool_allow(t.client, t.pool, other, 1), 0);
	theirs = tmem_pool_create_shared(other, uuid, 0, 0);
	assert_true(t.pool >= 0 && theirs >= 0);
	put_words(&t, 1, 0, 500);
	before = test_stats(t.host).compressed_bytes;
	r = run(t.host, NULL);
	assert_int_equal(r.recompressed, 500);
	assert_true(test_stats(t.host).compressed_bytes < before * 3 / 4);
	check_words(&t, t.pool, 1, 0, 500);
	/* What one replaces, the other has recompressed; also when its maker has gone. */
	put_words(&t, 1, 100, 150);
	assert_int_equal(tmem_pool_destroy(t.client, t.pool), 0);
	assert_int_equal(run(t.host, NULL).recompressed, 50);
	assert_int_equal(tmem_host_verify(t.host, 1), 0);
	t.pool = one;
	for (uint64_t i = 0; i < 500; i++) {
		struct test_page p, want;
		tmem_oid oid = test_oid(1);

		words_page(&want, 1ull << 32 | i);
		assert_int_equal(tmem_get(other, theirs, &oid, i, &p), 0);
		assert_memory_equal(&p, &want, sizeof(p));
	}
	tmem_client_destroy(other);
	assert_int_equal(test_stats(t.host).pages, 0);
	test_close(&t);
}

/* Whoever is being recompressed may end at any moment: private pools, shared ones, clients. */
static void ends_meanwhile(void **state)
{
	struct test_host here;
	os_thread r;

	(void)state;
	race = here = test_open(NULL);
	atomic_store(&stop, false);
	assert_int_equal(os_thread_create(&r, "recompress", recompressor, NULL), 0);
	for (unsigned i = 0; i < SHORT; i++) {
		assert_int_equal(tmem_client_create(race.host, "short", &here.client), 0);
		here.pool = i % 2 ? tmem_pool_create(here.client, TMEM_POOL_PERSIST, 1)
				  : tmem_pool_create_shared(here.client, uuid, 0, 1);
		assert_true(here.pool >= 0);
		put_words(&here, i, 0, 60);
		check_words(&here, here.pool, i, 0, 60);
		if (i % 4 < 2)
			assert_int_equal(tmem_pool_destroy(here.client, here.pool), 0);
		tmem_client_destroy(here.client);
	}
	atomic_store(&stop, true);
	os_thread_join(r);
	assert_true(test_stats(race.host).recompressed > 100);
	test_close(&race);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pool_codec),
		cmocka_unit_test(bad_options),
		cmocka_unit_test(gains_frames),
		cmocka_unit_test(poor_pages),
		cmocka_unit_test(gives_up),
		cmocka_unit_test(idle_only),
		cmocka_unit_test(rates),
		cmocka_unit_test(clusters),
		cmocka_unit_test(neighbours),
		cmocka_unit_test(neighbours_of_one_in_use),
		cmocka_unit_test(neighbours_left_alone),
		cmocka_unit_test(shared_is_left_alone),
		cmocka_unit_test(ephemeral),
		cmocka_unit_test(at_the_limit),
		cmocka_unit_test(at_a_clients_limit),
		cmocka_unit_test(races),
		cmocka_unit_test(shared_pools),
		cmocka_unit_test(ends_meanwhile),
	};

	return cmocka_run_group_tests_name("tmem_recompress", tests, NULL, NULL);
}
