/* SPDX-License-Identifier: BSD-2-Clause */
/* Dictionaries: round trips at every level, hostile bytes between fences, bad content. */
#include "codec/dict.h"
#include "os/mem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define PAGE	4096u
#define SAMPLES 300u

static uint64_t seed = 7;

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Records with much in common between pages and little within one. */
static void fill(char *page, unsigned kinds)
{
	size_t at = 0;

	memset(page, 0, PAGE);
	while (at + 80 < PAGE) {
		unsigned k = (unsigned)(next_random() % kinds);

		at += (size_t)sprintf(page + at, "{\"id\":%u,\"field_%u\":\"value-%x\",", k * 7919,
				      k, k * 2654435761u);
		memcpy(page + at, &(uint64_t){next_random()}, 6);
		at += 6;
	}
}

/* Room that ends at a frame that cannot be touched. */
static char *fenced(size_t bytes)
{
	size_t n = (bytes + PAGE - 1) / PAGE * PAGE;
	char *p = mmap(NULL, n + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(mprotect(p + n, PAGE, PROT_NONE), 0);
	return p + n;
}

static char samples[SAMPLES * PAGE];

static struct codec_dict *make(size_t cap, int level, void **mem)
{
	static char content[CODEC_DICT_MAX];
	static size_t sizes[SAMPLES];
	struct codec_dict *d;
	size_t n;

	for (unsigned i = 0; i < SAMPLES; i++) {
		fill(samples + (size_t)i * PAGE, 200);
		sizes[i] = PAGE;
	}
	n = codec_dict_train(samples, sizes, SAMPLES, content, cap, level);
	assert_in_range(n, CODEC_DICT_MIN, cap);
	*mem = os_zalloc_aligned(codec_dict_bytes(n, level));
	assert_non_null(*mem);
	d = codec_dict_init(*mem, content, n, level);
	assert_non_null(d);
	assert_int_equal(codec_dict_level(d), level);
	assert_memory_equal(codec_dict_content(d, &n), content, n);
	return d;
}

static void round_trips(void **state)
{
	static const size_t caps[] = {4096, 32768, 65536};
	const struct codec *zstd = codec_find("zstd"), *z = codec_by_id(CODEC_ID_ZSTD_DICT);
	void *dctx = zstd->dctx_create();
	char *src = fenced(PAGE) - PAGE, *out = fenced(PAGE), *back = fenced(PAGE) - PAGE;
	void *mem;

	(void)state;
	for (int level = z->level_min; level <= z->level_max; level++) {
		struct codec_dict *d = make(caps[(unsigned)level % 3], level, &mem);
		void *cctx = z->cctx_create(level), *plain = zstd->cctx_create(level);
		size_t with = 0, without = 0;

		assert_non_null(cctx);
		for (unsigned i = 0; i < 20; i++) {
			size_t size, n = i == 19 ? 1000 : PAGE;

			fill(src, 200);
			size = codec_dict_compress(cctx, d, src, n, out - PAGE, PAGE);
			assert_in_range(size, 1, n);
			with += size;
			without += zstd->compress(plain, src, n, back, PAGE);
			/* The stream alone, its end at the fence. */
			memmove(out - size, out - PAGE, size);
			memset(back, 0xa5, PAGE);
			assert_int_equal(codec_dict_decompress(dctx, d, out - size, size, back, n),
					 0);
			assert_memory_equal(back, src, n);
			assert_int_equal(
				codec_dict_decompress(dctx, d, out - size, size, back, n - 1),
				-EBADMSG);
			if (n < PAGE)
				assert_int_equal(codec_dict_decompress(dctx, d, out - size, size,
								       back, n + 1),
						 -EBADMSG);
			assert_int_equal(codec_dict_decompress(dctx, d, out, 0, back, n), -EBADMSG);
			/* Without the dictionary it never comes back. */
			assert_true(zstd->decompress(dctx, out - size, size, back, n) != 0 ||
				    memcmp(back, src, n) != 0);
			/* Little room: fits as well or is refused, never written past. */
			for (size_t cap = size; cap + 9 > size && cap > 0; cap--)
				assert_true(codec_dict_compress(cctx, d, src, n, out - cap, cap) <=
					    cap);
		}
		assert_true(with < without * 9 / 10);
		/* The codec alone does nothing. */
		assert_int_equal(z->compress(cctx, src, PAGE, out - PAGE, PAGE), 0);
		assert_int_equal(z->decompress(dctx, src, PAGE, back, PAGE), -EBADMSG);
		z->cctx_destroy(cctx);
		zstd->cctx_destroy(plain);
		os_free(mem);
	}
	zstd->dctx_destroy(dctx);
}

static void hostile_bytes(void **state)
{
	const struct codec *zstd = codec_find("zstd"), *z = codec_by_id(CODEC_ID_ZSTD_DICT);
	void *mem, *dctx = zstd->dctx_create(), *cctx = z->cctx_create(3);
	struct codec_dict *d = make(32768, 3, &mem);
	char *end = fenced(PAGE), *back = fenced(PAGE), page[PAGE];

	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		size_t size, n = PAGE;
		int rc;

		fill(page, 200);
		size = codec_dict_compress(cctx, d, page, PAGE, end - PAGE, PAGE);
		assert_true(size > 0);
		if (round % 3 == 0)
			size = next_random() % size + 1;
		memmove(end - size, end - PAGE, size);
		for (unsigned flips = (unsigned)(next_random() % 4); flips; flips--)
			end[-1 - (ptrdiff_t)(next_random() % size)] ^=
				(char)(1 << next_random() % 8);
		rc = codec_dict_decompress(dctx, d, end - size, size, back - n, n);
		assert_true(rc == 0 || rc == -EBADMSG);
	}
	z->cctx_destroy(cctx);
	zstd->dctx_destroy(dctx);
	os_free(mem);
}

static void bad_content(void **state)
{
	static char content[CODEC_DICT_MAX + 1], dst[CODEC_DICT_MAX];
	void *mem = os_zalloc_aligned(codec_dict_bytes(CODEC_DICT_MAX, 3));
	size_t sizes[4] = {PAGE, PAGE, PAGE, PAGE};

	(void)state;
	assert_non_null(mem);
	assert_null(codec_dict_init(mem, content, CODEC_DICT_MIN - 1, 3));
	assert_null(codec_dict_init(mem, content, sizeof(content), 3));
	/* Bytes that are no dictionary. */
	assert_null(codec_dict_init(mem, content, 4096, 3));
	for (unsigned i = 0; i < 4096; i++)
		content[i] = (char)next_random();
	assert_null(codec_dict_init(mem, content, 4096, 3));
	/* Too little to learn from. */
	memset(samples, 0, 4 * PAGE);
	assert_int_equal(codec_dict_train(samples, sizes, 0, dst, 4096, 3), 0);
	assert_int_equal(codec_dict_train(samples, sizes, 1, dst, 4096, 3), 0);
	os_free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trips),
		cmocka_unit_test(hostile_bytes),
		cmocka_unit_test(bad_content),
	};

	return cmocka_run_group_tests_name("codec_dict", tests, NULL, NULL);
}
