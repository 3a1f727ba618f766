/* SPDX-License-Identifier: BSD-2-Clause */
/* zbud: one behaviour a test. Random sequences are in tests/model/zpool_model.c. */
#include "zpool_store.h"

#include "os/thread.h"

static void test_every_size(void **state)
{
	struct store s;
	zpool_handle h;

	(void)state;
	store_open(&s, ZBUD_MAX_SIZE + 1, 0);
	assert_int_equal(zpool_malloc(s.zp, 0, &h), -EINVAL);
	assert_int_equal(zpool_malloc(s.zp, ZBUD_MAX_SIZE + 1, &h), -EINVAL);
	assert_int_equal(zpool_malloc(s.zp, SIZE_MAX, &h), -EINVAL);
	assert_string_equal(zpool_type(s.zp), "zbud");
	for (uint32_t n = 4; n <= ZBUD_MAX_SIZE; n++) {
		assert_int_equal(store_put(&s, n, n, 0), 0);
		assert_true(s.rec[n].h != 0 && s.rec[n].h >> ZPOOL_HANDLE_BITS == 0);
		/* The host's headers lie 2 after a multiple of 4. */
		assert_int_equal((uintptr_t)zpool_peek(s.zp, s.rec[n].h) % 64, 2);
	}
	store_check(&s);
	for (uint32_t n = 4; n <= ZBUD_MAX_SIZE; n++)
		store_expect(&s, n);
	for (uint32_t n = 4; n <= ZBUD_MAX_SIZE; n++)
		store_drop(&s, n);
	store_close(&s);
}

/* Two at most; both sides; a partner that fits to the chunk, and not one chunk more. */
static void test_two_buddies(void **state)
{
	struct zbud_info info;
	struct store s;

	(void)state;
	store_open(&s, 10, 0);
	assert_int_equal(store_put(&s, 0, 30 * 64 - 2, 0), 0);
	assert_int_equal(store_put(&s, 1, 34 * 64 - 2, 0), 0);
	assert_int_equal(frame_of(&s, 0), frame_of(&s, 1));
	assert_int_equal(s.rec[0].h % 64, 0);
	assert_int_equal(s.rec[1].h % 64, 30);
	zbud_info(s.zp, &info);
	assert_int_equal(info.buddied, 1);
	/* 30 and 35 chunks do not fit together. */
	assert_int_equal(store_put(&s, 2, 30 * 64 - 2, 0), 0);
	assert_int_equal(store_put(&s, 3, 34 * 64 - 1, 0), 0);
	assert_int_not_equal(frame_of(&s, 2), frame_of(&s, 3));
	/* A third one, however small, goes elsewhere. */
	assert_int_equal(store_put(&s, 4, 4, 0), 0);
	assert_int_equal(store_put(&s, 5, 4, 0), 0);
	assert_int_equal(store_put(&s, 6, 4, 0), 0);
	assert_int_not_equal(frame_of(&s, 6), frame_of(&s, 4));
	zbud_info(s.zp, &info);
	assert_int_equal(info.unbuddied[63], 1);
	/* What leaves at the front is replaced at the front, under a last one that stays. */
	store_drop(&s, 0);
	assert_int_equal(store_put(&s, 7, 30 * 64 - 2, 0), 0);
	assert_int_equal(frame_of(&s, 7), frame_of(&s, 1));
	assert_int_equal(s.rec[7].h % 64, 0);
	for (uint32_t n = 1; n < 8; n++)
		store_expect(&s, n);
	for (uint32_t n = 1; n < 8; n++)
		store_drop(&s, n);
	store_close(&s);
}

/* Placement: the fullest partner that still fits. */
static void test_fullest_partner(void **state)
{
	static const uint32_t chunks[] = {10, 20, 30, 40};
	struct store s;

	(void)state;
	store_open(&s, 20, 0);
	/* No two of 33 chunks and more share a frame: four frames with 54 .. 24 free. */
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(store_put(&s, i, 63 * 64, 0), 0);
		assert_int_equal(store_put(&s, i + 4, 63 * 64, 0), 0);
		store_drop(&s, i);
		s.rec[i].h = 0;
	}
	for (uint32_t i = 4; i < 8; i++)
		store_drop(&s, i);
	/* Each alone: made while no other has room for it. */
	for (uint32_t i = 4; i-- > 0;)
		assert_int_equal(store_put_alone(&s, i, chunks[i] * 64 - 2), 0);
	assert_int_equal(store_put(&s, 10, 24 * 64 - 2, 0), 0);
	assert_int_equal(frame_of(&s, 10), frame_of(&s, 3));
	assert_int_equal(store_put(&s, 11, 24 * 64 - 2, 0), 0);
	assert_int_equal(frame_of(&s, 11), frame_of(&s, 2));
	assert_int_equal(store_put(&s, 12, 54 * 64 - 2, 0), 0);
	assert_int_equal(frame_of(&s, 12), frame_of(&s, 0));
	store_drop_all(&s);
	store_close(&s);
}

/* Old bug: the victim was chosen by fullness, not by age. */
static void test_bug_victim_by_age_not_fullness(void **state)
{
	uint64_t got;
	struct store s;

	(void)state;
	store_open(&s, 100, 0);
	/* The oldest is full, the youngest is nearly empty. */
	assert_int_equal(store_put(&s, 0, 2000, 0), 0);
	assert_int_equal(store_put(&s, 1, 2000, 0), 0);
	for (uint32_t n = 2; n < 50; n++)
		assert_int_equal(store_put(&s, n, 3000, 0), 0);
	assert_int_equal(store_put(&s, 50, 4, 0), 0);
	zpool_compact(s.zp, UINT64_MAX); /* spare frames */
	assert_int_equal(zpool_shrink(s.zp, 1, &got), 0);
	assert_int_equal(got, 1);
	assert_int_equal(s.evictions, 2);
	assert_true(!s.rec[0].h && !s.rec[1].h && s.rec[2].h && s.rec[50].h);
	/* 2 waited longest for a partner and got 50 as one: its frame is the youngest now. */
	assert_int_equal(frame_of(&s, 2), frame_of(&s, 50));
	for (uint32_t n = 3; n < 12; n++) {
		assert_int_equal(zpool_shrink(s.zp, 1, &got), 0);
		assert_int_equal(got, 1);
		assert_true(!s.rec[n].h && s.rec[n + 1].h);
	}
	assert_true(s.rec[2].h && s.rec[50].h);
	store_drop_all(&s);
	store_close(&s);
}

/* One frame for at most two objects, each time, whatever the sizes. */
static void test_one_eviction_one_frame(void **state)
{
	struct zpool_stats st;
	struct store s;
	uint64_t got;

	(void)state;
	store_open(&s, 3000, 0);
	for (uint32_t n = 0; n < 3000; n++)
		assert_int_equal(store_put(&s, n, 4 + rnd(ZBUD_MAX_SIZE - 4), 0), 0);
	assert_int_equal(zpool_shrink(s.zp, 16, &got), 0); /* spare ones */
	for (unsigned i = 0; frames_of(&s) > 0; i++) {
		uint64_t before = frames_of(&s), evictions = s.evictions;
		uint64_t charged = frames_used(&s.f);

		assert_int_equal(zpool_shrink(s.zp, 1, &got), 0);
		assert_int_equal(got, 1);
		assert_int_equal(frames_of(&s), before - 1);
		assert_int_equal(frames_used(&s.f), charged - OS_FRAME_SIZE);
		assert_in_range(s.evictions - evictions, 1, 2);
		if (i % 100 == 0)
			store_check(&s);
	}
	zpool_stats(s.zp, &st);
	assert_int_equal(st.objects, 0);
	assert_int_equal(st.evicted_objects, s.evictions);
	assert_int_equal(zpool_shrink(s.zp, 1, &got), 0);
	assert_int_equal(got, 0);
	store_close(&s);
}

/* Ephemeral objects go before persistent ones, however young, and share no frame with them. */
static void test_ephemeral_first(void **state)
{
	struct zbud_info info;
	struct store s;
	uint64_t got;

	(void)state;
	store_open(&s, 400, 0);
	for (uint32_t n = 0; n < 400; n++)
		assert_int_equal(store_put(&s, n, 1000, n % 4 == 3 ? ZPOOL_EPHEMERAL : 0), 0);
	zbud_info(s.zp, &info);
	assert_int_equal(info.queued[0], 150);
	assert_int_equal(info.queued[1], 50);
	assert_int_equal(zpool_shrink(s.zp, info.spare + 50, &got), 0);
	assert_int_equal(got, info.spare + 50);
	for (uint32_t n = 0; n < 400; n++)
		assert_int_equal(s.rec[n].h != 0, n % 4 != 3);
	assert_int_equal(zpool_shrink(s.zp, 1, &got), 0);
	assert_true(!s.rec[0].h && !s.rec[1].h && s.rec[2].h);
	store_drop_all(&s);
	store_close(&s);
}

/* What the owner will not give up stays, grows young, and is asked for once in a shrink. */
static void test_second_chance(void **state)
{
	struct zpool_stats st;
	struct store s;
	uint64_t got;

	(void)state;
	store_open(&s, 40, 0);
	for (uint32_t n = 0; n < 40; n++)
		assert_int_equal(store_put(&s, n, 3000, 0), 0);
	s.rec[0].keep = s.rec[1].keep = true;
	zpool_compact(s.zp, UINT64_MAX); /* spare frames */
	assert_int_equal(zpool_shrink(s.zp, 1, &got), 0);
	assert_int_equal(got, 1);
	assert_true(s.rec[0].h && s.rec[1].h && !s.rec[2].h && s.rec[3].h);
	s.rec[0].keep = false; /* young now: the last to go */
	assert_int_equal(zpool_shrink(s.zp, 37, &got), 0);
	assert_int_equal(got, 37);
	assert_true(s.rec[0].h && s.rec[1].h && !s.rec[39].h);
	for (uint32_t n = 0; n < 40; n++)
		s.rec[n].keep = true;
	assert_int_equal(zpool_shrink(s.zp, UINT64_MAX, &got), 0);
	assert_int_equal(got, 0);
	zpool_stats(s.zp, &st);
	assert_int_equal(st.evict_refused, 4);
	store_expect(&s, 0);
	store_expect(&s, 1);
	store_drop_all(&s);
	store_close(&s);
}

/* Of two buddies one may stay: the frame stays, the room of the other can be used. */
static void test_one_buddy_stays(void **state)
{
	struct store s;
	uint64_t got;

	(void)state;
	for (uint32_t stays = 0; stays < 2; stays++) {
		store_open(&s, 4, 0);
		assert_int_equal(store_put(&s, 0, 1000, 0), 0);
		assert_int_equal(store_put(&s, 1, 1000, 0), 0);
		s.rec[stays].keep = true;
		assert_int_equal(zpool_shrink(s.zp, 1, &got), 0);
		assert_int_equal(got, 0);
		assert_true(s.rec[stays].h && !s.rec[!stays].h);
		store_check(&s);
		assert_int_equal(store_put(&s, 2, 3000, 0), 0);
		assert_int_equal(frame_of(&s, 2), frame_of(&s, stays));
		store_expect(&s, stays);
		store_expect(&s, 2);
		store_drop_all(&s);
		store_close(&s);
	}
}

/* A reader of an evicted object reads on; its frame goes with his unpin. */
static void test_evict_pinned(void **state)
{
	struct store s;
	zpool_handle h;
	unsigned char *p;
	uint64_t got, frames;

	(void)state;
	store_open(&s, 4, 0);
	assert_int_equal(store_put(&s, 0, 1000, 0), 0);
	assert_int_equal(store_put(&s, 1, 1000, 0), 0);
	h = s.rec[0].h;
	p = zpool_map(s.zp, h);
	frames = frames_of(&s);
	assert_int_equal(zpool_shrink(s.zp, 1, &got), 0);
	assert_int_equal(got, 0);
	assert_int_equal(s.evictions, 2);
	assert_int_equal(frames_of(&s), frames);
	store_check(&s);
	store_expect_at(p, 0, 1000);
	zpool_unmap(s.zp, h);
	zpool_compact(s.zp, UINT64_MAX);
	assert_int_equal(frames_of(&s), 0);
	store_close(&s);
}

/* Nobody can find an object that is not movable: it is neither evicted nor moved. */
static void test_not_movable(void **state)
{
	struct store s;
	uint64_t got;

	(void)state;
	store_open(&s, 4, 0);
	for (uint32_t n = 0; n < 2; n++) {
		assert_int_equal(store_put_alone(&s, n, 900), 0);
		zpool_set_movable(s.zp, s.rec[n].h, false);
	}
	assert_int_equal(zpool_shrink(s.zp, UINT64_MAX, &got), 0);
	assert_int_equal(s.evictions, 0);
	zpool_compact(s.zp, UINT64_MAX);
	assert_int_equal(s.moves, 0);
	assert_int_equal(frames_of(&s), 2);
	zpool_set_movable(s.zp, s.rec[0].h, true);
	zpool_set_movable(s.zp, s.rec[1].h, true);
	assert_int_equal(zpool_compact(s.zp, UINT64_MAX), 1);
	assert_int_equal(s.moves, 1);
	store_expect(&s, 0);
	store_expect(&s, 1);
	store_drop_all(&s);
	store_close(&s);
}

/* Half of the objects go, the rest is merged: at most one frame in two stays. */
static void test_compact(void **state)
{
	enum { N = 4000 };
	struct zbud_info info;
	struct store s;
	uint64_t before, left = 0;

	(void)state;
	store_open(&s, N, 0);
	for (uint32_t n = 0; n < N; n++)
		assert_int_equal(store_put(&s, n, 1900, 0), 0);
	zpool_compact(s.zp, UINT64_MAX);
	before = frames_of(&s);
	assert_int_equal(before, N / 2);
	for (uint32_t n = 0; n < N; n++)
		if (rnd(2))
			store_drop(&s, n);
	for (uint32_t n = 0; n < N; n++)
		left += s.rec[n].h != 0;
	s.rec[7].refuse = true;
	zpool_compact(s.zp, UINT64_MAX);
	store_check(&s);
	assert_true(frames_of(&s) <= (left + 1) / 2 + 1);
	assert_true(s.moves > 0);
	zbud_info(s.zp, &info);
	assert_int_equal(info.spare, 0);
	for (uint32_t n = 0; n < N; n++)
		if (s.rec[n].h)
			store_expect(&s, n);
	store_drop_all(&s);
	store_close(&s);
}

/* A frame that cannot move does not keep others from being merged. */
static void test_compact_around_pinned(void **state)
{
	struct store s;

	(void)state;
	store_open(&s, 50, 0);
	for (uint32_t n = 0; n < 50; n++)
		assert_int_equal(store_put_alone(&s, n, n == 0 ? 2000 : 1500), 0);
	assert_non_null(zpool_map(s.zp, s.rec[0].h));
	zpool_compact(s.zp, UINT64_MAX);
	store_check(&s);
	assert_true(frames_of(&s) <= 26);
	for (uint32_t n = 0; n < 50; n++)
		store_expect(&s, n);
	zpool_unmap(s.zp, s.rec[0].h);
	store_drop_all(&s);
	store_close(&s);
}

/* Merging keeps ages: the object moves to the younger frame, and goes when that goes. */
static void test_compact_keeps_age(void **state)
{
	struct store s;
	uint64_t got;

	(void)state;
	store_open(&s, 4, 0);
	assert_int_equal(store_put_alone(&s, 0, 1000), 0);
	assert_int_equal(store_put_alone(&s, 1, 3500), 0);
	assert_int_equal(store_put_alone(&s, 2, 1000), 0);
	assert_int_equal(zpool_compact(s.zp, UINT64_MAX), 1);
	assert_int_equal(frame_of(&s, 0), frame_of(&s, 2));
	assert_int_equal(zpool_shrink(s.zp, 1, &got), 0);
	assert_true(s.rec[0].h && !s.rec[1].h && s.rec[2].h);
	store_drop_all(&s);
	store_close(&s);
}

/* A reader comes in between the look at the pins and the move. */
static void test_move_under_reader(void **state)
{
	struct store s;

	(void)state;
	store_open(&s, 4, 0);
	assert_int_equal(store_put_alone(&s, 0, 1000), 0);
	assert_int_equal(store_put_alone(&s, 1, 1001), 0);
	s.pin_next = true;
	zpool_compact(s.zp, UINT64_MAX);
	assert_int_equal(s.moves, 1);
	assert_true(s.pinned && s.pinned != s.rec[s.pinned_n].h);
	store_expect_at(zpool_peek(s.zp, s.pinned), s.pinned_n, s.rec[s.pinned_n].size);
	store_check(&s);
	/* Its old place is kept until he is done: a new object does not get it. */
	assert_int_equal(store_put(&s, 2, 1000, 0), 0);
	store_expect_at(zpool_peek(s.zp, s.pinned), s.pinned_n, s.rec[s.pinned_n].size);
	zpool_unmap(s.zp, s.pinned);
	for (uint32_t n = 0; n < 3; n++)
		store_expect(&s, n);
	store_drop_all(&s);
	store_close(&s);
}

/* Old bug: a put failed for lack of a frame while partly filled frames had room. */
static void test_bug_room_in_partial_frames(void **state)
{
	struct zpool_stats st;
	struct store s;

	(void)state;
	store_open(&s, 300, 0);
	for (uint32_t n = 0; n < 100; n++)
		assert_int_equal(store_put_alone(&s, n, 2500), 0);
	zpool_compact(s.zp, UINT64_MAX);
	frames_set_limit(&s.f, frames_used(&s.f));
	zpool_stats(s.zp, &st);
	for (uint32_t n = 100; n < 200; n++)
		assert_int_equal(store_put(&s, n, 1400, 0), 0);
	assert_int_equal(store_put(&s, 200, 2500, 0), -ENOMEM);
	assert_int_equal(store_put(&s, 200, 1400, 0), -ENOMEM);
	assert_int_equal(frames_of(&s), st.frame_bytes >> OS_FRAME_SHIFT);
	store_check(&s);
	store_drop(&s, 150);
	assert_int_equal(store_put(&s, 200, 1400, 0), 0);
	for (uint32_t n = 0; n < 201; n++)
		if (s.rec[n].h)
			store_expect(&s, n);
	store_drop_all(&s);
	store_close(&s);
}

/* Old bug: a header was written before the buffer it was given. */
static void test_bug_header_before_buffer(void **state)
{
	struct store s;

	(void)state;
	store_open(&s, 300, 0);
	for (uint32_t round = 0; round < 20; round++) {
		/* Each write fills its object to the last byte; neighbours keep theirs. */
		for (uint32_t n = 0; n < 300; n++) {
			store_drop(&s, n);
			assert_int_equal(store_put(&s, n, 4 + rnd(ZBUD_MAX_SIZE - 4), 0), 0);
		}
		for (uint32_t n = 0; n < 300; n++) {
			char *p = zpool_peek(s.zp, s.rec[n].h);
			uintptr_t frame = (uintptr_t)p & ~(uintptr_t)(OS_FRAME_SIZE - 1);

			store_expect(&s, n);
			assert_true((uintptr_t)p >= frame + ZBUD_OBJECT_HEAD);
			assert_true((uintptr_t)p + s.rec[n].size <= frame + OS_FRAME_SIZE);
		}
	}
	store_drop_all(&s);
	store_close(&s);
}

/* Old bug: the address of a page was derived from data that had moved. */
static void test_bug_address_from_moved_data(void **state)
{
	struct store s;

	(void)state;
	store_open(&s, 200, 0);
	for (uint32_t n = 0; n < 200; n++)
		assert_int_equal(store_put_alone(&s, n, 700 + n), 0);
	s.scribble = true; /* the old place is overwritten as soon as it was copied */
	zpool_compact(s.zp, UINT64_MAX);
	assert_true(s.moves >= 90);
	for (uint32_t n = 0; n < 200; n++) {
		unsigned char *p = zpool_map(s.zp, s.rec[n].h);

		assert_ptr_equal(p, zpool_peek(s.zp, s.rec[n].h));
		store_expect_at(p, n, 700 + n);
		zpool_unmap(s.zp, s.rec[n].h);
	}
	store_drop_all(&s);
	store_close(&s);
}

/*
 * Old bug: list lock and page lock were taken in both orders. The owner's lock
 * is taken inside zbud's by compaction, and outside of everything by readers and
 * by evict(), which calls back into zbud; ranks stop the test on an inversion.
 */
struct crossing {
	struct store s;
	struct os_mutex lock;
	_Atomic bool stop;
};

static bool crossing_move(void *ctx, zpool_handle from, void *src, zpool_handle to, void *dst,
			  size_t size)
{
	struct crossing *c = ctx;
	bool done = false;
	uint32_t n;

	memcpy(&n, src, sizeof(n));
	os_mutex_lock(&c->lock);
	if (c->s.rec[n].h == from) {
		memcpy(dst, src, size);
		c->s.rec[n].h = to;
		done = true;
	}
	os_mutex_unlock(&c->lock);
	return done;
}

static bool crossing_evict(void *ctx, zpool_handle h, void *ptr, size_t size)
{
	struct crossing *c = ctx;
	zpool_handle spare;
	bool named;
	uint32_t n;

	(void)size;
	/* malloc and free inside evict(): no lock of the driver may be held. */
	if (zpool_malloc(c->s.zp, 100, &spare) == 0)
		zpool_free(c->s.zp, spare);
	memcpy(&n, ptr, sizeof(n));
	os_mutex_lock(&c->lock);
	named = n < c->s.n && c->s.rec[n].h == h;
	if (named)
		c->s.rec[n].h = 0;
	os_mutex_unlock(&c->lock);
	if (named)
		zpool_free(c->s.zp, h);
	return named;
}

static const struct zpool_owner crossing_owner = {.move = crossing_move, .evict = crossing_evict};

static void *crossing_bottom_up(void *arg)
{
	struct crossing *c = arg;
	uint64_t got;

	while (!atomic_load(&c->stop)) {
		zpool_compact(c->s.zp, 20);
		if (zpool_shrink(c->s.zp, 5, &got))
			break;
	}
	return NULL;
}

static void test_bug_lock_order(void **state)
{
	static struct crossing c;
	os_thread t[2];

	(void)state;
	os_mutex_init(&c.lock, OS_RANK_SHARD, "owner");
	store_open_owned(&c.s, 64, 0, &crossing_owner, &c);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(os_thread_create(&t[i], "up", crossing_bottom_up, &c), 0);
	for (unsigned i = 0; i < 60000; i++) {
		uint32_t n = rnd(c.s.n), size = 4 + rnd(2000);
		zpool_handle h, old;
		const void *p;

		if (zpool_malloc(c.s.zp, size, &h))
			continue;
		memcpy(zpool_peek(c.s.zp, h), &n, sizeof(n));
		os_mutex_lock(&c.lock);
		old = c.s.rec[n].h;
		c.s.rec[n].h = h;
		zpool_set_movable(c.s.zp, h, true);
		p = zpool_map(c.s.zp, h);
		os_mutex_unlock(&c.lock);
		assert_memory_equal(p, &n, sizeof(n));
		zpool_unmap(c.s.zp, h);
		if (old)
			zpool_free(c.s.zp, old);
	}
	atomic_store(&c.stop, true);
	for (unsigned i = 0; i < 2; i++)
		os_thread_join(t[i]);
	store_drop_all(&c.s);
	store_close(&c.s);
	os_mutex_destroy(&c.lock);
}

/* Frames are returned to the OS for real. */
static void test_resident(void **state)
{
	enum { N = 8000 };
	uint64_t before, full, after;
	struct store s;

	(void)state;
	store_open(&s, N, 0);
	before = os_resident_bytes();
	for (uint32_t n = 0; n < N; n++)
		assert_int_equal(store_put(&s, n, 1900, 0), 0);
	full = os_resident_bytes();
	for (uint32_t n = 0; n < N; n += 2)
		store_drop(&s, n);
	zpool_compact(s.zp, UINT64_MAX);
	after = os_resident_bytes();
	if (RESIDENT_IS_TRUE) {
		uint64_t grown = full - before, half = after - before;

		assert_in_range(grown, N / 2 * OS_FRAME_SIZE, N / 2 * OS_FRAME_SIZE + (2 << 20));
		assert_in_range(half, N / 4 * OS_FRAME_SIZE - (1 << 20),
				N / 4 * OS_FRAME_SIZE + (3 << 20));
	}
	store_drop_all(&s);
	store_close(&s);
}

/*
 * Frames that come empty go back half a batch at a time: few stay, and what is
 * freed and allocated in turn does not go to and fro.
 */
static void test_empty_frames_go_in_batches(void **state)
{
	enum { N = 4000, BATCH = 16 };
	struct zpool_stats st;
	struct zbud_info info;
	struct store s;
	uint64_t freed;

	(void)state;
	store_open(&s, N, 0);
	for (uint32_t n = 0; n < N; n++)
		assert_int_equal(store_put(&s, n, 1900, 0), 0);
	for (uint32_t n = 0; n < N; n++) {
		store_drop(&s, n);
		zbud_info(s.zp, &info);
		assert_true(info.spare <= BATCH);
		if (n != N / 2)
			continue;
		zpool_stats(s.zp, &st);
		freed = st.freed_frames;
		for (uint32_t k = 0; k < 200; k++) { /* 4 frames come and go */
			for (uint32_t i = 0; i < 8; i++)
				assert_int_equal(store_put(&s, i, 1900, 0), 0);
			for (uint32_t i = 0; i < 8; i++)
				store_drop(&s, i);
		}
		zpool_stats(s.zp, &st);
		assert_in_range(st.freed_frames - freed, 0, BATCH);
	}
	/* The less there is, the less is kept. */
	assert_true(frames_of(&s) <= 1);
	assert_int_equal(frames_of(&s), info.spare);
	zpool_stats(s.zp, &st);
	assert_true(st.freed_frames >= N / 2 - 1);
	/* Numbers that came back together are used together. */
	for (uint32_t n = 0; n < N; n++)
		assert_int_equal(store_put(&s, n, 1900, 0), 0);
	zbud_info(s.zp, &info);
	assert_true(info.ids <= N / 2 + 2 * BATCH);
	store_check(&s);
	store_drop_all(&s);
	store_close(&s);
}

/* The account refuses at any moment: nothing changes, nothing is lost. */
static void test_refused(void **state)
{
	struct store s;
	struct frames f;
	struct zpool *zp;

	(void)state;
	frames_init(&f, 100);
	assert_int_equal(zpool_create("zbud", &f, NULL, NULL, &zp), -ENOMEM);
	assert_int_equal(frames_used(&f), 0);
	store_open(&s, 1000, 0);
	frames_set_limit(&s.f, frames_used(&s.f));
	assert_int_equal(store_put(&s, 0, 100, 0), -ENOMEM); /* not even descriptors */
	for (uint32_t n = 0; n < 1000; n++) {
		frames_set_limit(&s.f, frames_used(&s.f) + (n % 5) * 2048);
		if (store_put(&s, n, 2500, 0))
			s.rec[n].h = 0;
		if (n % 50 == 0)
			store_check(&s);
	}
	frames_set_limit(&s.f, 0);
	store_drop_all(&s);
	store_close(&s);
}

/* Map modes and the pin count. */
static void test_map(void **state)
{
	unsigned char *p, first;
	struct store s;
	zpool_handle h;

	(void)state;
	store_open(&s, 2, 0);
	assert_int_equal(store_put(&s, 0, 500, 0), 0);
	h = s.rec[0].h;
	assert_false(zpool_pinned(s.zp, h));
	p = zpool_map_mode(s.zp, h, ZPOOL_WO);
	assert_true(zpool_pinned(s.zp, h));
	memcpy(&first, p, 1);
#if TMEM_CHECKS >= 1
	assert_int_equal(p[0], 0xa5);
	assert_int_equal(p[499], 0xa5);
#endif
	for (uint32_t i = 0; i < 500; i++)
		p[i] = (unsigned char)(i * 3);
	zpool_unmap(s.zp, h);
	for (unsigned k = 0; k < 2; k++) {
		p = zpool_map_mode(s.zp, h, k ? ZPOOL_RW : ZPOOL_RO);
		for (uint32_t i = 0; i < 500; i++)
			assert_int_equal(p[i], (unsigned char)(i * 3));
		zpool_unmap(s.zp, h);
	}
	for (unsigned k = 0; k < ZPOOL_PINS_MAX; k++)
		assert_non_null(zpool_map(s.zp, h));
	assert_null(zpool_map(s.zp, h));
	zpool_free(s.zp, h); /* dying: the last unmap frees it */
	for (unsigned k = 0; k < ZPOOL_PINS_MAX; k++) {
		assert_int_equal(frames_of(&s) > 0, 1);
		zpool_unmap(s.zp, h);
	}
	s.rec[0].h = 0;
	zpool_compact(s.zp, UINT64_MAX);
	assert_int_equal(zpool_total_pages(s.zp), 0);
	store_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_size),
		cmocka_unit_test(test_two_buddies),
		cmocka_unit_test(test_fullest_partner),
		cmocka_unit_test(test_bug_victim_by_age_not_fullness),
		cmocka_unit_test(test_one_eviction_one_frame),
		cmocka_unit_test(test_ephemeral_first),
		cmocka_unit_test(test_second_chance),
		cmocka_unit_test(test_one_buddy_stays),
		cmocka_unit_test(test_evict_pinned),
		cmocka_unit_test(test_not_movable),
		cmocka_unit_test(test_compact),
		cmocka_unit_test(test_compact_around_pinned),
		cmocka_unit_test(test_compact_keeps_age),
		cmocka_unit_test(test_move_under_reader),
		cmocka_unit_test(test_bug_room_in_partial_frames),
		cmocka_unit_test(test_bug_header_before_buffer),
		cmocka_unit_test(test_bug_address_from_moved_data),
		cmocka_unit_test(test_bug_lock_order),
		cmocka_unit_test(test_resident),
		cmocka_unit_test(test_empty_frames_go_in_batches),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_map),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
