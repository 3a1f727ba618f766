/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An owner for tests of zpool drivers: objects are records in a table, the first four
 * bytes of each object are its record's number (smaller ones have what fits of it), the rest
 * follows from it.
 */
#ifndef ZPOOL_STORE_H
#define ZPOOL_STORE_H

#include "alloc/zbud.h"
#include "os/lock.h"
#include "os/mem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The driver under test. */
#ifndef STORE_ZPOOL
#define STORE_ZPOOL "zbud"
#endif

/* Sanitizers keep shadow memory: what is resident says little then. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define RESIDENT_IS_TRUE 0
#else
#define RESIDENT_IS_TRUE 1
#endif

struct record {
	zpool_handle h;
	uint32_t size;
	bool refuse; /* to move */
	bool keep;   /* from eviction */
};

struct store {
	struct frames f;
	struct zpool *zp;
	struct record *rec;
	uint32_t n;
	uint64_t moves, evictions;
	bool scribble;	     /* the old place is overwritten after a move */
	bool pin_next;	     /* a reader comes in between at the next move */
	zpool_handle pinned; /* and this is what it has */
	uint32_t pinned_n;
};

static inline bool store_move(void *ctx, zpool_handle from, void *src, zpool_handle to, void *dst,
			      size_t size)
{
	struct store *s = ctx;
	uint32_t n;

	memcpy(&n, src, sizeof(n));
	assert_true(n < s->n);
	assert_int_equal(s->rec[n].h, from);
	assert_true(size >= s->rec[n].size);
	if (s->rec[n].refuse)
		return false;
	if (s->pin_next) {
		assert_ptr_equal(zpool_map(s->zp, from), src);
		s->pinned = from;
		s->pinned_n = n;
		s->pin_next = false;
	}
	memcpy(dst, src, size);
	if (s->scribble)
		memset(src, 0xee, size);
	s->rec[n].h = to;
	s->moves++;
	return true;
}

static inline bool store_evict(void *ctx, zpool_handle h, void *ptr, size_t size)
{
	struct store *s = ctx;
	uint32_t n;

	memcpy(&n, ptr, sizeof(n));
	assert_true(n < s->n && s->rec[n].h == h && size >= s->rec[n].size);
	assert_true(zpool_pinned(s->zp, h));
	if (s->rec[n].keep)
		return false;
	s->rec[n].h = 0;
	s->evictions++;
	zpool_free(s->zp, h);
	/* Still readable: the driver has it pinned. */
	assert_memory_equal(ptr, &n, sizeof(n));
	return true;
}

static const struct zpool_owner store_owner = {.move = store_move, .evict = store_evict};

/* With functions of the test's own, which are given ctx. */
static inline void store_open_owned(struct store *s, uint32_t n, uint64_t limit,
				    const struct zpool_owner *owner, void *ctx)
{
	memset(s, 0, sizeof(*s));
	frames_init(&s->f, limit);
	s->n = n;
	s->rec = calloc(n, sizeof(*s->rec));
	assert_int_equal(zpool_create(STORE_ZPOOL, &s->f, owner, ctx, &s->zp), 0);
}

static inline void store_open(struct store *s, uint32_t n, uint64_t limit)
{
	store_open_owned(s, n, limit, &store_owner, s);
}

/* The account holds what the statistics say. */
static inline void store_check(struct store *s)
{
	struct zpool_stats st;

	assert_int_equal(zpool_verify(s->zp), 0);
	zpool_stats(s->zp, &st);
	assert_int_equal(frames_used(&s->f), st.frame_bytes + st.meta_bytes);
	assert_int_equal(zpool_total_bytes(s->zp), st.frame_bytes + st.meta_bytes);
}

/* And all of it comes back. */
static inline void store_close(struct store *s)
{
	store_check(s);
	zpool_destroy(s->zp);
	assert_int_equal(frames_used(&s->f), 0);
	free(s->rec);
}

static inline unsigned char store_byte(uint32_t n, uint32_t i)
{
	return (unsigned char)(n * 31 + i * 7 + 1);
}

static inline int store_put(struct store *s, uint32_t n, uint32_t size, unsigned flags)
{
	int ret = zpool_malloc_flags(s->zp, size, flags, &s->rec[n].h);
	unsigned char *p;

	if (ret)
		return ret;
	s->rec[n].size = size;
	p = zpool_peek(s->zp, s->rec[n].h);
	for (uint32_t i = 4; i < size; i++)
		p[i] = store_byte(n, i);
	memcpy(p, &n, size < sizeof(n) ? size : sizeof(n));
	zpool_set_movable(s->zp, s->rec[n].h, true);
	return 0;
}

static inline void store_expect_at(const unsigned char *p, uint32_t n, uint32_t size)
{
	assert_non_null(p);
	assert_memory_equal(p, &n, size < sizeof(n) ? size : sizeof(n));
	for (uint32_t i = 4; i < size; i++)
		if (p[i] != store_byte(n, i))
			fail_msg("record %u of %u bytes differs at %u", n, size, i);
}

static inline void store_expect(struct store *s, uint32_t n)
{
	store_expect_at(zpool_map(s->zp, s->rec[n].h), n, s->rec[n].size);
	zpool_unmap(s->zp, s->rec[n].h);
}

static inline void store_drop(struct store *s, uint32_t n)
{
	if (s->rec[n].h)
		zpool_free(s->zp, s->rec[n].h);
	s->rec[n].h = 0;
}

static inline void store_drop_all(struct store *s)
{
	for (uint32_t n = 0; n < s->n; n++)
		store_drop(s, n);
}

static inline uint64_t frames_of(const struct store *s)
{
	struct zpool_stats st;

	zpool_stats(s->zp, &st);
	return st.frame_bytes >> OS_FRAME_SHIFT;
}

/* Of zbud. */
static inline uint32_t frame_of(const struct store *s, uint32_t n)
{
	return (uint32_t)(s->rec[n].h >> 6);
}

/*
 * An object of zbud in a frame of its own: objects that leave no room for it fill up
 * whatever has room now.
 */
static inline int store_put_alone(struct store *s, uint32_t n, uint32_t size)
{
	zpool_handle fill[256];
	unsigned nr = 0;
	int ret;

	for (;;) {
		struct zbud_info info;
		bool room = false;

		zbud_info(s->zp, &info);
		for (unsigned f = (size + 2 + 63) / 64; f < ZBUD_CHUNKS; f++)
			room |= info.unbuddied[f] != 0;
		if (!room || nr == 256)
			break;
		assert_int_equal(zpool_malloc(s->zp, size, &fill[nr++]), 0);
	}
	ret = store_put(s, n, size, 0);
	while (nr)
		zpool_free(s->zp, fill[--nr]);
	return ret;
}

static uint64_t rnd_state = 42;
static inline uint32_t rnd(uint32_t below)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return (uint32_t)((rnd_state >> 32) * below >> 32);
}

#endif
