/* SPDX-License-Identifier: BSD-2-Clause */
/* zsmalloc gives frames back by evicting the oldest zspages. */
#define STORE_ZPOOL "zsmalloc"
#include "zpool_store.h"

#include "alloc/zsmalloc.h"

static uint64_t present(const struct store *s, uint32_t from, uint32_t to)
{
	uint64_t n = 0;

	for (uint32_t i = from; i < to; i++)
		n += s->rec[i].h != 0;
	return n;
}

/* Zspages were begun in the order of the objects: the first objects go, and frames with them. */
static void test_oldest_first(void **state)
{
	enum { N = 5000 };
	uint64_t got, before, charged;
	struct zpool_stats st;
	struct store s;
	uint32_t gone;

	(void)state;
	store_open(&s, N, 0);
	for (uint32_t n = 0; n < N; n++)
		assert_int_equal(store_put(&s, n, 2000, 0), 0);
	for (unsigned i = 0; i < 5; i++) {
		before = frames_of(&s);
		charged = frames_used(&s.f);
		assert_int_equal(zpool_shrink(s.zp, 100, &got), 0);
		assert_in_range(got, 100, 163);
		assert_int_equal(frames_of(&s), before - got);
		assert_int_equal(frames_used(&s.f), charged - got * OS_FRAME_SIZE);
		/* All before one place have gone, none after it. */
		gone = (uint32_t)present(&s, 0, N);
		gone = N - gone;
		assert_int_equal(present(&s, 0, gone), 0);
		assert_int_equal(present(&s, gone, N), N - gone);
		store_check(&s);
	}
	zpool_stats(s.zp, &st);
	assert_int_equal(st.evicted_objects, s.evictions);
	assert_int_equal(st.evict_refused, 0);
	assert_true(st.shrunk_frames >= 500 && st.freed_frames >= st.shrunk_frames);
	for (uint32_t n = 0; n < N; n++)
		if (s.rec[n].h)
			store_expect(&s, n);
	assert_int_equal(zpool_shrink(s.zp, UINT64_MAX, &got), 0);
	assert_int_equal(present(&s, 0, N), 0);
	assert_int_equal(frames_of(&s), 0);
	store_close(&s);
}

/* Of several classes the one whose zspage was begun first pays. */
static void test_across_classes(void **state)
{
	uint64_t got;
	struct store s;

	(void)state;
	store_open(&s, 3000, 0);
	for (uint32_t n = 0; n < 1000; n++)
		assert_int_equal(store_put(&s, n, 3000, 0), 0);
	for (uint32_t n = 1000; n < 2000; n++)
		assert_int_equal(store_put(&s, n, 100, 0), 0);
	for (uint32_t n = 2000; n < 3000; n++)
		assert_int_equal(store_put(&s, n, 1500, 0), 0);
	assert_int_equal(zpool_shrink(s.zp, 600, &got), 0);
	assert_true(present(&s, 0, 1000) < 300);
	assert_int_equal(present(&s, 1000, 3000), 2000);
	assert_int_equal(zpool_shrink(s.zp, 170, &got), 0);
	assert_true(present(&s, 1000, 2000) < 1000);
	store_drop_all(&s);
	store_close(&s);
}

/* What stays keeps its zspage, once a shrink; its room can be used again. */
static void test_refused(void **state)
{
	enum { N = 2000 };
	struct zpool_stats st;
	struct store s;
	uint64_t got, kept;

	(void)state;
	store_open(&s, N, 0);
	for (uint32_t n = 0; n < N; n++) {
		assert_int_equal(store_put(&s, n, 1000, 0), 0);
		s.rec[n].keep = n % 2 == 0;
	}
	assert_int_equal(zpool_shrink(s.zp, UINT64_MAX, &got), 0);
	assert_int_equal(got, 0);
	store_check(&s);
	assert_int_equal(present(&s, 0, N), N / 2);
	zpool_stats(s.zp, &st);
	assert_int_equal(st.evict_refused, N / 2);
	assert_true(zpool_compact(s.zp, UINT64_MAX) > 0);
	kept = frames_of(&s);
	for (uint32_t n = 1; n < N; n += 2)
		assert_int_equal(store_put(&s, n, 1000, 0), 0);
	assert_true(frames_of(&s) <= 2 * kept + 64);
	for (uint32_t n = 0; n < N; n++)
		store_expect(&s, n);
	store_drop_all(&s);
	store_close(&s);
}

/* A reader of an evicted object reads on; the zspage goes when he has done. */
static void test_pinned(void **state)
{
	struct store s;
	zpool_handle h;
	unsigned char *p;
	uint64_t got;

	(void)state;
	store_open(&s, 100, 0);
	for (uint32_t n = 0; n < 100; n++)
		assert_int_equal(store_put(&s, n, 500, 0), 0);
	h = s.rec[50].h;
	p = zpool_map(s.zp, h);
	assert_int_equal(zpool_shrink(s.zp, UINT64_MAX, &got), 0);
	assert_int_equal(s.evictions, 100);
	store_check(&s);
	store_expect_at(p, 50, 500);
	assert_true(frames_of(&s) > 0);
	zpool_unmap(s.zp, h);
	zpool_compact(s.zp, UINT64_MAX);
	assert_int_equal(frames_of(&s), 0);
	store_close(&s);
}

/* Nobody can find what is not movable. */
static void test_not_movable(void **state)
{
	struct store s;
	uint64_t got;

	(void)state;
	store_open(&s, 10, 0);
	for (uint32_t n = 0; n < 10; n++) {
		assert_int_equal(store_put(&s, n, 500, 0), 0);
		zpool_set_movable(s.zp, s.rec[n].h, n != 3);
	}
	assert_int_equal(zpool_shrink(s.zp, UINT64_MAX, &got), 0);
	assert_int_equal(s.evictions, 9);
	store_expect(&s, 3);
	store_drop_all(&s);
	store_close(&s);
}

/* While a zspage is being evicted nothing is put into it. */
struct meddler {
	struct store s;
	uint32_t next;
};

static bool meddler_evict(void *ctx, zpool_handle h, void *ptr, size_t size)
{
	struct meddler *m = ctx;
	bool ok = store_evict(&m->s, h, ptr, size);

	/* A new object of the same class for each that goes. */
	if (m->next < m->s.n) {
		assert_int_equal(store_put(&m->s, m->next, 2000, 0), 0);
		assert_true(m->s.rec[m->next].h != h);
		m->next++;
	}
	return ok;
}

static void test_put_meanwhile(void **state)
{
	static const struct zpool_owner owner = {.move = store_move, .evict = meddler_evict};
	struct meddler m = {.next = 200};
	uint64_t got;

	(void)state;
	store_open_owned(&m.s, 600, 0, &owner, &m);
	for (uint32_t n = 0; n < 200; n++)
		assert_int_equal(store_put(&m.s, n, 2000, 0), 0);
	assert_int_equal(zpool_shrink(m.s.zp, UINT64_MAX, &got), 0);
	/*
	 * What was there then has gone, all of it, and something of what was put
	 * into zspages that were there; what was begun meanwhile has not.
	 */
	assert_int_equal(present(&m.s, 0, 200), 0);
	assert_true(m.next > 300 && present(&m.s, 200, m.next) >= 100);
	assert_true(got >= 90);
	for (uint32_t n = 200; n < m.next; n++)
		if (m.s.rec[n].h)
			store_expect(&m.s, n);
	store_drop_all(&m.s);
	store_close(&m.s);
}

static void test_resident(void **state)
{
	enum { N = 8000 };
	uint64_t before, full, got;
	struct store s;

	(void)state;
	store_open(&s, N, 0);
	before = os_resident_bytes();
	for (uint32_t n = 0; n < N; n++)
		assert_int_equal(store_put(&s, n, 2000, 0), 0);
	full = os_resident_bytes();
	assert_int_equal(zpool_shrink(s.zp, 2000, &got), 0);
	if (RESIDENT_IS_TRUE) {
		assert_true(full - before >= 3900 * OS_FRAME_SIZE);
		assert_true(os_resident_bytes() + 1990 * OS_FRAME_SIZE <= full);
	}
	store_drop_all(&s);
	store_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_oldest_first), cmocka_unit_test(test_across_classes),
		cmocka_unit_test(test_refused),	     cmocka_unit_test(test_pinned),
		cmocka_unit_test(test_not_movable),  cmocka_unit_test(test_put_meanwhile),
		cmocka_unit_test(test_resident),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
