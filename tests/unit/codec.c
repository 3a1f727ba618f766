/* SPDX-License-Identifier: BSD-2-Clause */
/* Codecs: names, round trips at every level, hostile bytes, buffers' ends, same-filled pages. */
#include "codec/codec.h"
#include "os/mem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define PAGE 4096
#define MOST (16 * PAGE)

static uint64_t seed;

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

enum kind { ZEROS, TEXT, POINTERS, SPARSE, NOISE, HALF_NOISE, RUNS, KINDS };

/* Something like what the memory of programs holds. */
static void fill(enum kind kind, char *p, size_t n)
{
	static const char *const words[] = {"alpha",   "beta",	 "\"name\": ", "0x7f00",
					    "element", "object", "  \n",       "value"};
	size_t i = 0;

	memset(p, 0, n);
	switch (kind) {
	case ZEROS:
	case KINDS:
		break;
	case TEXT:
		while (i < n) {
			const char *w = words[next_random() % 8];
			size_t len = strlen(w) < n - i ? strlen(w) : n - i;

			memcpy(p + i, w, len);
			i += len;
		}
		break;
	case POINTERS:
		for (; i + 8 <= n; i += 8) {
			uint64_t v = 0x00007f0012000000 + next_random() % 65536 * 16;

			memcpy(p + i, &v, 8);
		}
		break;
	case SPARSE:
		for (i = 0; i < n / 64; i++)
			p[next_random() % n] = (char)next_random();
		break;
	case NOISE:
	case HALF_NOISE:
		for (i = 0; i < (kind == NOISE ? n : n / 2); i++)
			p[i] = (char)next_random();
		break;
	case RUNS:
		while (i < n) {
			size_t len = next_random() % 200 + 1;

			len = len < n - i ? len : n - i;
			memset(p + i, (int)next_random(), len);
			i += len;
		}
		break;
	}
}

/* Two frames that cannot be touched, with `bytes` of room that ends, or begins, at one of them. */
struct fence {
	char *base, *begin, *end;
	size_t bytes;
};

static struct fence fence_make(size_t bytes)
{
	struct fence f = {.bytes = bytes + 2 * OS_FRAME_SIZE};

	f.base = mmap(NULL, f.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(f.base, MAP_FAILED);
	f.begin = f.base + OS_FRAME_SIZE;
	f.end = f.begin + bytes;
	assert_int_equal(mprotect(f.begin, bytes, PROT_READ | PROT_WRITE), 0);
	return f;
}

static void fence_free(struct fence *f)
{
	munmap(f->base, f->bytes);
}

static struct fence src, packed, out;
static const struct codec *lzo; /* or NULL */

static int setup(void **state)
{
	(void)state;
	src = fence_make(MOST);
	packed = fence_make(2 * MOST);
	out = fence_make(MOST);
	/* Where its module was built, it takes part in all that follows. */
	lzo = codec_find("lzo");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fence_free(&src);
	fence_free(&packed);
	fence_free(&out);
	return 0;
}

static void registry(void **state)
{
	unsigned n = 0;

	(void)state;
	for (; codec_at(n); n++) {
		const struct codec *c = codec_at(n);

		assert_ptr_equal(codec_find(c->name), c);
		assert_ptr_equal(codec_by_id(c->id), c);
		assert_in_range(c->id, 1, CODEC_MAX - 1);
		assert_true(c->level_min <= c->level_default && c->level_default <= c->level_max);
	}
	assert_int_equal(n, lzo ? 5 : 4);
	/* Kept beside stored data: these must never change. */
	assert_int_equal(codec_find("none")->id, 0);
	assert_int_equal(codec_find("lz4")->id, 1);
	assert_int_equal(codec_find("zstd")->id, 2);
	assert_int_equal(codec_find("lz4hc")->id, 3);
	assert_int_equal(codec_find("deflate")->id, 4);
	if (lzo)
		assert_int_equal(lzo->id, 5);
	assert_int_equal(codec_by_id(15)->id, CODEC_ID_OPAQUE);
	assert_null(codec_find("precompressed"));
	assert_null(codec_find("lz"));
	assert_null(codec_find("lz44"));
	assert_null(codec_find(""));
	assert_null(codec_by_id(7));
	assert_null(codec_by_id(14));
	assert_null(codec_by_id(1u << 20));
	assert_null(codec_at(1000));
}

static void parse_good(void **state)
{
	struct codec_spec s;

	(void)state;
	assert_int_equal(codec_parse("lz4", &s, NULL, 0), 0);
	assert_string_equal(s.codec->name, "lz4");
	assert_int_equal(s.level, 1);
	assert_int_equal(codec_parse("zstd:-1", &s, NULL, 0), 0);
	assert_string_equal(s.codec->name, "zstd");
	assert_int_equal(s.level, -1);
	assert_int_equal(codec_parse("zstd:19", &s, NULL, 0), 0);
	assert_int_equal(s.level, 19);
	assert_int_equal(codec_parse("none", &s, NULL, 0), 0);
	assert_int_equal(s.codec->id, 0);
}

static void parse_bad(void **state)
{
	static const struct {
		const char *text;
		int rc;
	} bad[] = {
		{"lz5", -ENOENT},
		{"LZ4", -ENOENT},
		{"lz4 ", -ENOENT},
		{"raw", -ENOENT},
		{"", -EINVAL},
		{":1", -EINVAL},
		{"zstd:", -EINVAL},
		{"zstd:x", -EINVAL},
		{"zstd:1x", -EINVAL},
		{"zstd: 1", -EINVAL},
		{"zstd:--1", -EINVAL},
		{"zstd:1:2", -EINVAL},
		{"zstd:20", -ERANGE},
		{"zstd:-8", -ERANGE},
		{"lz4:0", -ERANGE},
		{"none:1", -ERANGE},
		{"zstd:99999999999999999999", -ERANGE},
		{"zstd:4294967297", -ERANGE},
	};
	struct codec_spec s = {.level = 12345};
	char err[300], tiny[10];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		memset(err, 'x', sizeof(err));
		assert_int_equal(codec_parse(bad[i].text, &s, err, sizeof(err)), bad[i].rc);
		assert_non_null(memchr(err, '\0', sizeof(err)));
		assert_non_null(strstr(err, "known: lz4"));
		assert_non_null(strstr(err, "zstd (levels -7..19)"));
		assert_null(strchr(err, '\n'));
		assert_int_equal(codec_parse(bad[i].text, &s, NULL, 0), bad[i].rc);
		assert_int_equal(codec_parse(bad[i].text, &s, tiny, sizeof(tiny)), bad[i].rc);
		assert_int_equal(strlen(tiny), sizeof(tiny) - 1);
	}
	assert_int_equal(s.level, 12345);
	assert_int_equal(codec_parse("lz5", &s, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "unknown codec 'lz5'"));
}

/*
 * n bytes of one kind through one codec: exact, within buffers whose ends are
 * fenced, for roomy and exact capacities; refused when one byte is missing.
 */
static void round_trip(const struct codec *c, void *cctx, void *dctx, enum kind kind, size_t n)
{
	char *in = src.end - n, *back = out.end - n;
	size_t size, size2;
	char *z;
	int rc;

	fill(kind, in, n);
	size = c->compress(cctx, in, n, packed.end - n, n);
	assert_true(size <= n);
	if (size == 0)
		return;
	/* The stream alone, its end at the fence, and room of exactly its size. */
	z = packed.begin;
	memmove(z, packed.end - n, size);
	memmove(packed.end - size, z, size);
	z = packed.end - size;
	memset(back, 0xa5, n);
	assert_int_equal(c->decompress(dctx, z, size, back, n), 0);
	assert_memory_equal(back, in, n);
	/* Output that begins behind the fence. */
	assert_int_equal(c->decompress(dctx, z, size, out.begin, n), 0);
	assert_memory_equal(out.begin, in, n);
	/* The same again gives the same: no state is carried from page to page. */
	size2 = c->compress(cctx, in, n, packed.end - n, n);
	assert_int_equal(size2, size);
	/* Less room: fits as well or is refused, never written past. */
	for (size_t cap = size; cap + 3 > size && cap > 0; cap--) {
		size2 = c->compress(cctx, in, n, packed.end - cap, cap);
		assert_true(size2 == 0 || (size2 <= cap && cap == size));
	}
	/* Any other length is an error. */
	z = packed.begin;
	size2 = c->compress(cctx, in, n, z, n);
	assert_int_equal(c->decompress(dctx, z, size2, out.begin, n - 1), -EBADMSG);
	/* zstd reads its bits from the end: without the last byte they may be another n bytes. */
	rc = c->decompress(dctx, z, size2 - 1, out.begin, n);
	assert_true(rc == -EBADMSG || (rc == 0 && c->id == CODEC_ID_ZSTD));
	if (n < MOST)
		assert_int_equal(c->decompress(dctx, z, size2, out.begin, n + 1), -EBADMSG);
	assert_int_equal(c->decompress(dctx, z, 0, out.begin, n), -EBADMSG);
}

static void round_trips(void **state)
{
	static const size_t sizes[] = {PAGE, 2 * PAGE, 4 * PAGE, 5 * PAGE, MOST, PAGE, 64, 1000};

	(void)state;
	seed = 20240607;
	for (unsigned id = 0; id < CODEC_ID_OPAQUE; id++) {
		const struct codec *c = codec_by_id(id);
		void *dctx;

		if (!c || id == CODEC_ID_ZSTD_DICT)
			continue;
		dctx = c->dctx_create();

		assert_non_null(dctx);
		for (int level = c->level_min; level <= c->level_max; level++) {
			void *cctx = c->cctx_create(level);

			assert_non_null(cctx);
			for (int i = 0; i < 8; i++) {
				/* The slow levels on all kinds once, the others on all sizes. */
				if (level > 8 && c->id != CODEC_ID_LZ4 && sizes[i] > PAGE && i != 4)
					continue;
				for (enum kind k = ZEROS; k < KINDS; k++)
					round_trip(c, cctx, dctx, k, sizes[i]);
			}
			c->cctx_destroy(cctx);
		}
		c->dctx_destroy(dctx);
	}
}

static void shrinks(void **state)
{
	static const enum kind kinds[] = {ZEROS, TEXT, POINTERS, SPARSE, RUNS};

	(void)state;
	seed = 5;
	for (unsigned i = 0; codec_at(i); i++) {
		const struct codec *c = codec_at(i);
		void *cctx = c->cctx_create(c->level_default);

		assert_non_null(cctx);
		for (int k = 0; k < 5; k++) {
			size_t size;

			fill(kinds[k], src.begin, PAGE);
			size = c->compress(cctx, src.begin, PAGE, packed.begin, PAGE);
			assert_in_range(size, 1, PAGE * 7 / 8);
		}
		fill(NOISE, src.begin, PAGE);
		assert_int_equal(c->compress(cctx, src.begin, PAGE, packed.begin, PAGE), 0);
		c->cctx_destroy(cctx);
	}
}

/* Streams that were cut, flipped or made up: an error or n bytes, never past a fence. */
static void hostile_bytes(void **state)
{
	(void)state;
	seed = 99;
	for (unsigned i = 0; codec_at(i); i++) {
		const struct codec *c = codec_at(i);
		void *cctx = c->cctx_create(c->level_default);
		void *dctx = c->dctx_create();

		assert_non_null(cctx);
		assert_non_null(dctx);
		for (int round = 0; round < 10000; round++) {
			size_t n = round % 5 == 0 ? 4 * PAGE : PAGE;
			size_t size;
			char *z;
			int rc;

			fill((enum kind)(next_random() % KINDS), src.begin, n);
			size = c->compress(cctx, src.begin, n, packed.begin, n);
			if (size == 0) {
				size = next_random() % n + 1;
				fill(NOISE, packed.begin, size);
			}
			if (round % 3 == 0)
				size = next_random() % size + 1;
			z = packed.end - size;
			memmove(z, packed.begin, size);
			for (unsigned flips = (unsigned)(next_random() % 4); flips; flips--)
				z[next_random() % size] ^= (char)(1 << next_random() % 8);
			rc = c->decompress(dctx, z, size, out.end - n, n);
			assert_true(rc == 0 || rc == -EBADMSG);
		}
		/* And after all that the context still works. */
		round_trip(c, cctx, dctx, TEXT, PAGE);
		c->cctx_destroy(cctx);
		c->dctx_destroy(dctx);
	}
}

static void same_filled(void **state)
{
	static const size_t sizes[] = {64, 128, 256, 320, PAGE, MOST};
	static const uint64_t values[] = {0, 1, UINT64_MAX, UINT64_C(0x123456789abcdef0)};

	(void)state;
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
			size_t n = sizes[s];
			char *p = src.end - n;
			uint64_t word = ~values[v];

			codec_fill(p, n, values[v]);
			for (size_t i = 0; i < n; i += 8)
				assert_memory_equal(p + i, &values[v], 8);
			assert_true(codec_same_filled(p, n, &word));
			assert_int_equal(word, values[v]);
			/* One bit anywhere. */
			for (size_t i = 0; i<n; i += n> PAGE ? 61 : 1) {
				p[i] ^= 0x10;
				assert_false(codec_same_filled(p, n, &word));
				p[i] ^= 0x10;
			}
		}
	}
}

static void same_filled_unaligned(void **state)
{
	uint64_t word = 1;

	(void)state;
	memset(src.begin, 0, 2 * PAGE);
	codec_fill(src.begin + 3, PAGE, UINT64_C(0x0101010101010101));
	assert_true(codec_same_filled(src.begin + 3, PAGE, &word));
	assert_int_equal(word, UINT64_C(0x0101010101010101));
	assert_int_equal(src.begin[2], 0);
	assert_int_equal(src.begin[3 + PAGE], 0);
}

static void sets(void **state)
{
	struct codec_spec zstd = {codec_find("zstd"), 1}, lz4 = {codec_find("lz4"), 1};
	struct codec_set s = {0};
	size_t bytes;
	void *a;

	(void)state;
	assert_int_equal(codec_set_bytes(&s), 0);
	codec_set_clear(&s); /* never used */
	a = codec_set_cctx(&s, &zstd);
	assert_non_null(a);
	assert_ptr_equal(codec_set_cctx(&s, &zstd), a);
	assert_non_null(codec_set_cctx(&s, &lz4));
	assert_ptr_equal(codec_set_cctx(&s, &zstd), a);
	assert_non_null(codec_set_dctx(&s, zstd.codec));
	assert_ptr_equal(codec_set_dctx(&s, zstd.codec), codec_set_dctx(&s, zstd.codec));
	assert_non_null(codec_set_dctx(&s, codec_by_id(0)));
	bytes = codec_set_bytes(&s);
	assert_in_range(bytes, 300 << 10, 600 << 10);
	/* Another level is another context, and the account follows. */
	zstd.level = 19;
	assert_non_null(codec_set_cctx(&s, &zstd));
	assert_int_equal(s.level[2], 19);
	assert_true(codec_set_bytes(&s) > bytes + (1 << 20));
	zstd.level = 1;
	assert_non_null(codec_set_cctx(&s, &zstd));
	assert_int_equal(codec_set_bytes(&s), bytes);
	codec_set_clear(&s);
	assert_int_equal(codec_set_bytes(&s), 0);
	codec_set_clear(&s);
}

/* The constants for accounts are near what is really held. */
static void context_sizes(void **state)
{
	(void)state;
	for (unsigned i = 0; codec_at(i); i++) {
		const struct codec *c = codec_at(i);
		size_t size = c->cctx_size ? c->cctx_size(c->level_default) : c->cctx_bytes;

		assert_in_range(c->cctx_bytes, size - size / 8, size + size / 8);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registry),    cmocka_unit_test(parse_good),
		cmocka_unit_test(parse_bad),   cmocka_unit_test(round_trips),
		cmocka_unit_test(shrinks),     cmocka_unit_test(hostile_bytes),
		cmocka_unit_test(same_filled), cmocka_unit_test(same_filled_unaligned),
		cmocka_unit_test(sets),	       cmocka_unit_test(context_sizes),
	};

	return cmocka_run_group_tests_name("codec", tests, setup, teardown);
}
