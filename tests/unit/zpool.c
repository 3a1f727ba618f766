/* SPDX-License-Identifier: BSD-2-Clause */
/* The registry of zpool drivers, and what zsmalloc is built on: its classes and its ids. */
#include "zpool_store.h"

#include "alloc/zs_internal.h"

static void test_registry(void **state)
{
	struct zpool *zp;
	struct frames f;
	char names[64];

	(void)state;
	frames_init(&f, 0);
	assert_ptr_equal(zpool_find("zsmalloc"), &zsmalloc_ops);
	assert_null(zpool_find("zsmallo"));
	assert_null(zpool_find(""));
	assert_string_equal(zpool_names(names, sizeof(names)), "zsmalloc, zbud");
	assert_string_equal(zpool_names(names, 5), "zsma");
	assert_int_equal(zpool_create("slab", &f, NULL, NULL, &zp), -ENOENT);
	assert_null(zp);
	zpool_destroy(NULL);
	frames_init(&f, 1000);
	assert_int_equal(zpool_create("zsmalloc", &f, NULL, NULL, &zp), -ENOMEM);
	assert_int_equal(frames_used(&f), 0);
}

static void test_classes(void **state)
{
	struct zs_class_info info;
	uint32_t before = 0;
	double loss = 0;
	unsigned n = 0, counted = 0;
	struct frames f;
	struct zpool *zp;

	(void)state;
	frames_init(&f, 0);
	assert_int_equal(zpool_create("zsmalloc", &f, NULL, NULL, &zp), 0);
	for (; zs_class_info(zp, n, &info); n++) {
		assert_true(info.size > before && info.size % 16 == 0);
		assert_true(info.slots >= 1 && info.slots <= 4095);
		assert_true(info.frames <= 64);
		assert_true((uint64_t)info.size * info.slots <= info.frames * 4096ull);
		assert_true((uint64_t)info.size * (info.slots + 1) > info.frames * 4096ull);
		if (before >= 32) /* where a step is coarser than 1/64, it is for free */
			assert_true(info.size - before <= 16 || info.size - before <= before / 28);
		if (info.size >= 320 && info.size <= 4032) {
			loss += 1 - (double)info.size * info.slots / (info.frames * 4096.0);
			counted++;
		}
		if (info.size >= 3632 && info.size <= 4032) /* huge, and still worth packing */
			assert_true(info.slots > info.frames);
		before = info.size;
	}
	assert_int_equal(before, 65536);
	assert_true(loss / counted < 0.0025);
	print_message("%u classes, mean loss at the end of a zspage %.3f %%\n", n,
		      loss / counted * 100);
	zpool_destroy(zp);
	assert_int_equal(frames_used(&f), 0);
}

/* The lowest free id first, in both regions, over more than one word of each level. */
static void test_spans(void **state)
{
	enum { N = 9000 };
	uint32_t *id = calloc(N, sizeof(*id));
	bool *out = calloc(N, sizeof(*out));
	struct zs_pool *p;
	struct frames f;
	struct zpool *zp;

	(void)state;
	frames_init(&f, 0);
	assert_int_equal(zpool_create("zsmalloc", &f, NULL, NULL, &zp), 0);
	p = zs_pool(zp);
	for (int large = 0; large < 2; large++) {
		for (uint32_t i = 0; i < N; i++) {
			id[i] = zs_span_alloc(p, large);
			assert_int_equal(id[i], id[0] + i);
			assert_int_equal(zs_id(p, zs_handle(p, id[i], 0)), id[i]);
			assert_int_equal(zs_id(p, zs_handle(p, id[i], 4095)), id[i]);
			out[i] = true;
		}
		for (uint32_t k = 0; k < 4 * N; k++) {
			uint32_t i = rnd(N), low = 0;

			if (out[i]) {
				zs_span_release(p, id[i], 0);
				out[i] = false;
			}
			if (k % 7)
				continue;
			while (low < N && out[low])
				low++;
			assert_int_equal(zs_span_alloc(p, large), id[0] + low);
			out[low] = true;
			if (k % 500 == 0)
				assert_int_equal(zpool_verify(zp), 0);
		}
		for (uint32_t i = 0; i < N; i++)
			if (out[i])
				zs_span_release(p, id[i], 0);
		assert_int_equal(zpool_verify(zp), 0);
	}
	free(id);
	free(out);
	zpool_destroy(zp);
	assert_int_equal(frames_used(&f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registry),
		cmocka_unit_test(test_classes),
		cmocka_unit_test(test_spans),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
