/* SPDX-License-Identifier: BSD-2-Clause */
/* zsmalloc: one behaviour a test. Random sequences are in tests/model/zpool_model.c. */
#define STORE_ZPOOL "zsmalloc"
#include "zpool_store.h"

#include "alloc/zsmalloc.h"

static void test_every_size(void **state)
{
	enum { LAST = ZS_MAX_SIZE };
	struct store s;
	zpool_handle h;

	(void)state;
	store_open(&s, LAST + 1, 0);
	assert_int_equal(zpool_malloc(s.zp, 0, &h), -EINVAL);
	assert_int_equal(zpool_malloc(s.zp, LAST + 1, &h), -EINVAL);
	assert_int_equal(zpool_malloc(s.zp, SIZE_MAX, &h), -EINVAL);
	for (uint32_t n = 1; n <= LAST; n += n < 4200 ? 1 : 61) {
		assert_int_equal(store_put(&s, n, n, 0), 0);
		assert_true(s.rec[n].h != 0 && s.rec[n].h >> ZPOOL_HANDLE_BITS == 0);
		assert_int_equal((uintptr_t)zpool_peek(s.zp, s.rec[n].h) % 16, 2);
	}
	assert_int_equal(store_put(&s, LAST, LAST, 0), 0);
	store_check(&s);
	for (uint32_t n = 1; n <= LAST; n++)
		if (s.rec[n].h)
			store_expect(&s, n);
	for (uint32_t n = 1; n <= LAST; n++)
		store_drop(&s, n);
	store_close(&s);
}

static uint64_t objects(struct store *s)
{
	struct zpool_stats st;

	zpool_stats(s->zp, &st);
	return st.objects;
}

static void test_pins(void **state)
{
	struct store s;
	zpool_handle h;

	(void)state;
	store_open(&s, 2, 0);
	assert_int_equal(store_put(&s, 0, 100, 0), 0);
	assert_int_equal(store_put(&s, 1, 100, 0), 0);
	h = s.rec[0].h;
	assert_false(zpool_pinned(s.zp, h));
	for (int i = 0; i < ZPOOL_PINS_MAX; i++)
		assert_non_null(zpool_map(s.zp, h));
	assert_true(zpool_pinned(s.zp, h));
	assert_null(zpool_map(s.zp, h));
	assert_null(zpool_map(s.zp, h));
	zpool_unmap(s.zp, h);
	assert_non_null(zpool_map(s.zp, h));
	zpool_free(s.zp, h);
	for (int i = 0; i < ZPOOL_PINS_MAX; i++) {
		assert_int_equal(objects(&s), 2);
		assert_true(zpool_pinned(s.zp, h));
		zpool_unmap(s.zp, h);
	}
	assert_int_equal(objects(&s), 1);
	store_drop(&s, 1);
	assert_int_equal(objects(&s), 0);
	store_close(&s);
}

/* A put succeeds as long as any resident slot of the class is free. */
static void test_full(void **state)
{
	enum { N = 20000, SIZE = 1500 };
	struct store s;
	uint64_t limit;
	uint32_t n = 0, more;

	(void)state;
	store_open(&s, N, 8 << 20);
	while (store_put(&s, n, SIZE, 0) == 0)
		n++;
	assert_true(frames_used(&s.f) <= 8 << 20);
	assert_true(frames_used(&s.f) > (8 << 20) - 8192); /* the last frame was tried too */
	assert_true((uint64_t)n * SIZE > (8ull << 20) * 94 / 100);
	store_check(&s);
	for (uint32_t i = 0; i < 1000; i++) {
		store_drop(&s, i * 3);
		assert_int_equal(store_put(&s, i * 3, SIZE - i % 10, 0), 0);
	}
	for (uint32_t i = 0; i < n; i++)
		store_expect(&s, i);
	for (uint32_t i = 0; i < n; i++)
		store_drop(&s, i);
	/* The account is stopped at once: chunks that are resident must serve to their end. */
	for (n = 0; n < 4000; n++)
		assert_int_equal(store_put(&s, n, SIZE, 0), 0);
	limit = frames_used(&s.f);
	frames_set_limit(&s.f, limit);
	for (more = n; store_put(&s, more, SIZE, 0) == 0; more++)
		assert_int_equal(frames_used(&s.f), limit);
	store_check(&s);
	for (uint32_t i = 0; i < more; i += 2)
		store_drop(&s, i);
	frames_set_limit(&s.f, 1); /* less than is used */
	for (uint32_t i = 0; i < more; i += 2)
		assert_int_equal(store_put(&s, i, SIZE, 0), 0);
	assert_int_equal(store_put(&s, more, SIZE, 0), -ENOMEM);
	frames_set_limit(&s.f, 0);
	for (uint32_t i = 0; i < more; i++) {
		store_expect(&s, i);
		store_drop(&s, i);
	}
	store_close(&s);
}

/* The class that objects of this size go to. */
static struct zs_class_info class_of(struct store *s, uint32_t size)
{
	struct zs_class_info info = {0};

	for (unsigned i = 0; zs_class_info(s->zp, i, &info); i++)
		if (info.size >= size + ZS_OBJECT_OVERHEAD)
			return info;
	fail_msg("no class for %u", size);
	return info;
}

/* Packing leaves two zspages with room: both must serve when no frame is to be had. */
static void test_full_room(void **state)
{
	struct zs_class_info c;
	struct store s;
	uint32_t n, gone = 7;

	(void)state;
	store_open(&s, 1000, 0);
	c = class_of(&s, 1100);
	n = c.slots + c.slots / 2;
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(store_put(&s, i, 1100, 0), 0);
	for (uint32_t i = 1; i <= gone; i++)
		store_drop(&s, i * 3);
	zpool_compact(s.zp, UINT64_MAX);
	c = class_of(&s, 1100);
	assert_int_equal(c.zspages, 2);
	frames_set_limit(&s.f, 1);
	while (store_put(&s, n, 1100, 0) == 0)
		n++;
	c = class_of(&s, 1100);
	assert_true(c.resident_frames * 4096 - c.objects * c.size < 2ull * c.size);
	frames_set_limit(&s.f, 0);
	store_check(&s);
	for (uint32_t i = 0; i < n; i++)
		if (s.rec[i].h) {
			store_expect(&s, i);
			store_drop(&s, i);
		}
	store_close(&s);
}

/* A zspage that comes empty may be kept, but not its frames. */
static void test_empty_is_small(void **state)
{
	struct zs_class_info c;
	struct store s;

	(void)state;
	store_open(&s, 4096, 0);
	for (uint32_t size = 40; size < 5000; size += 311) {
		uint32_t slots = class_of(&s, size).slots;

		for (uint32_t i = 0; i < slots; i++)
			assert_int_equal(store_put(&s, i, size, 0), 0);
		for (uint32_t i = 0; i < slots; i++)
			store_drop(&s, i);
		c = class_of(&s, size);
		assert_true(c.zspages <= 1);
		assert_true(c.resident_frames <= c.size / 4096 + 1);
	}
	store_close(&s);
}

/* An object that comes and goes alone does not call the OS each time. */
static void test_no_thrash(void **state)
{
	static const uint32_t sizes[] = {30, 1000, 3000, 4110, 20000, 65534};
	struct zpool_stats a, b;
	struct store s;

	(void)state;
	store_open(&s, 1, 0);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		assert_int_equal(store_put(&s, 0, sizes[i], 0), 0);
		store_drop(&s, 0);
		zpool_stats(s.zp, &a);
		for (int k = 0; k < 100; k++) {
			assert_int_equal(store_put(&s, 0, sizes[i], 0), 0);
			store_drop(&s, 0);
		}
		zpool_stats(s.zp, &b);
		assert_int_equal(a.freed_frames, b.freed_frames);
		assert_int_equal(a.frame_bytes, b.frame_bytes);
	}
	assert_true(zpool_compact(s.zp, UINT64_MAX) > 0);
	zpool_stats(s.zp, &b);
	assert_int_equal(b.frame_bytes, 0);
	store_close(&s);
}

static uint32_t zpage_size(void)
{
	/* Sizes like those of compressed pages: most of them in the middle. */
	return 60 + rnd(1200) + rnd(1200) + rnd(1200);
}

/* Half of the objects go, at random: their frames come back, by the process's own account too. */
static void half_returns(uint32_t n)
{
	struct zpool_stats full, after;
	uint64_t resident, sum = 0, freed = 0, back;
	struct store s;

	store_open(&s, n, 0);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t size = zpage_size();

		assert_int_equal(store_put(&s, i, size, 0), 0);
		sum += size;
	}
	store_check(&s);
	zpool_stats(s.zp, &full);
	resident = os_resident_bytes();
	for (uint32_t i = 0; i < n; i++)
		if (rnd(2)) {
			freed += s.rec[i].size;
			store_drop(&s, i);
		}
	zpool_compact(s.zp, UINT64_MAX);
	store_check(&s);
	zpool_stats(s.zp, &after);
	back = full.frame_bytes - after.frame_bytes;
	print_message(
		"%u objects: density %.4f, after half went %.1f %% of their bytes came back\n", n,
		(double)sum / (double)full.frame_bytes, 100.0 * (double)back / (double)freed);
	assert_true(back >= freed * 9 / 10);
	if (RESIDENT_IS_TRUE)
		assert_true(resident - os_resident_bytes() >= freed * 9 / 10);
	assert_int_equal(after.moved_objects, s.moves);
	assert_true(after.compacted_frames > 0 && after.compacted_frames <= after.freed_frames);
	for (uint32_t i = 0; i < n; i++)
		if (s.rec[i].h) {
			store_expect(&s, i);
			store_drop(&s, i);
		}
	store_close(&s);
}

static void test_compact_half(void **state)
{
	(void)state;
	half_returns(3000);
	half_returns(20000);
	half_returns(100000);
}

static void test_compact_some(void **state)
{
	struct zpool_stats before, after;
	struct store s;
	uint64_t got;

	(void)state;
	store_open(&s, 20000, 0);
	for (uint32_t i = 0; i < s.n; i++)
		assert_int_equal(store_put(&s, i, zpage_size(), 0), 0);
	for (uint32_t i = 0; i < s.n; i++)
		if (rnd(4))
			store_drop(&s, i);
	zpool_stats(s.zp, &before);
	got = zpool_compact(s.zp, 100);
	zpool_stats(s.zp, &after);
	assert_true(got >= 100 && got < 100 + 64);
	assert_int_equal(before.frame_bytes - after.frame_bytes, got * OS_FRAME_SIZE);
	assert_int_equal(zpool_compact(s.zp, 0), 0);
	store_check(&s);
	for (uint32_t i = 0; i < s.n; i++)
		store_drop(&s, i);
	store_close(&s);
}

/* What is pinned, not movable, or refused by the owner stays where it is; the rest still moves. */
static void test_compact_unmovable(void **state)
{
	struct store s;
	zpool_handle *was;

	(void)state;
	store_open(&s, 10000, 0);
	was = calloc(s.n, sizeof(*was));
	for (uint32_t i = 0; i < s.n; i++) {
		assert_int_equal(store_put(&s, i, 900 + i % 200, 0), 0);
		switch (i % 40) {
		case 0:
			assert_non_null(zpool_map(s.zp, s.rec[i].h));
			break;
		case 13:
			zpool_set_movable(s.zp, s.rec[i].h, false);
			break;
		case 26:
			s.rec[i].refuse = true;
			break;
		default:
			continue;
		}
		was[i] = s.rec[i].h;
	}
	for (uint32_t i = 0; i < s.n; i++)
		if (!was[i] && rnd(3))
			store_drop(&s, i);
	zpool_compact(s.zp, UINT64_MAX);
	store_check(&s);
	assert_true(s.moves > 100);
	for (uint32_t i = 0; i < s.n; i++) {
		if (was[i])
			assert_int_equal(s.rec[i].h, was[i]);
		if (s.rec[i].h)
			store_expect(&s, i);
		store_drop(&s, i);
	}
	for (uint32_t i = 0; i < s.n; i += 40)
		zpool_unmap(s.zp, was[i]);
	assert_int_equal(objects(&s), 0);
	free(was);
	store_close(&s);
}

/* A reader pins the old place while the object moves: it keeps the bytes until it unmaps. */
static void test_pin_while_moving(void **state)
{
	struct store s;

	(void)state;
	store_open(&s, 2000, 0);
	for (uint32_t i = 0; i < s.n; i++)
		assert_int_equal(store_put(&s, i, 2000, 0), 0);
	for (uint32_t i = 0; i < s.n; i++)
		if (i % 8)
			store_drop(&s, i);
	s.pin_next = true;
	zpool_compact(s.zp, UINT64_MAX);
	assert_false(s.pin_next);
	assert_int_equal(objects(&s), s.n / 8 + 1);
	store_expect_at(zpool_peek(s.zp, s.pinned), s.pinned_n, 2000);
	store_check(&s);
	zpool_unmap(s.zp, s.pinned);
	assert_int_equal(objects(&s), s.n / 8);
	for (uint32_t i = 0; i < s.n; i += 8) {
		store_expect(&s, i);
		store_drop(&s, i);
	}
	store_close(&s);
}

/* Without an owner nothing moves, but empty memory still goes back. */
static void test_no_owner(void **state)
{
	zpool_handle h[3000];
	struct zpool_stats st;
	struct zpool *zp;
	struct frames f;

	(void)state;
	frames_init(&f, 0);
	assert_int_equal(zpool_create("zsmalloc", &f, NULL, NULL, &zp), 0);
	for (int i = 0; i < 3000; i++) {
		assert_int_equal(zpool_malloc(zp, 700, &h[i]), 0);
		zpool_set_movable(zp, h[i], true);
	}
	for (int i = 0; i < 3000; i++)
		if (i % 100)
			zpool_free(zp, h[i]);
	zpool_compact(zp, UINT64_MAX);
	assert_int_equal(zpool_verify(zp), 0);
	for (int i = 0; i < 3000; i += 100)
		zpool_free(zp, h[i]);
	zpool_compact(zp, UINT64_MAX);
	zpool_stats(zp, &st);
	assert_int_equal(st.frame_bytes, 0);
	assert_int_equal(st.moved_objects, 0);
	zpool_destroy(zp);
	assert_int_equal(frames_used(&f), 0);
}

static void test_stats(void **state)
{
	static const struct zpool_owner owner = {.move = store_move}; /* evicts nothing */
	struct zpool_stats st;
	uint64_t reclaimed = 7;
	struct store s;

	(void)state;
	store_open_owned(&s, 100, 0, &owner, &s);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(store_put(&s, i, i < 50 ? 1000 : 3800, 0), 0);
	zpool_stats(s.zp, &st);
	assert_int_equal(st.objects, 100);
	assert_int_equal(st.huge_objects, 50);
	assert_true(st.object_bytes >= 50 * 1002 + 50 * 3802 && st.object_bytes < 245000);
	assert_true(st.frame_bytes >= st.object_bytes);
	assert_int_equal(zpool_shrink(s.zp, 1, &reclaimed), -EOPNOTSUPP);
	assert_int_equal(reclaimed, 0);
	for (uint32_t i = 0; i < 100; i++)
		store_drop(&s, i);
	store_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_size),
		cmocka_unit_test(test_pins),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_no_thrash),
		cmocka_unit_test(test_compact_half),
		cmocka_unit_test(test_compact_some),
		cmocka_unit_test(test_compact_unmovable),
		cmocka_unit_test(test_pin_while_moving),
		cmocka_unit_test(test_no_owner),
		cmocka_unit_test(test_stats),
		cmocka_unit_test(test_full_room),
		cmocka_unit_test(test_empty_is_small),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
