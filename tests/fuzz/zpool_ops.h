/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A sequence of operations on one zpool, decoded from bytes; FUZZ_ZPOOL is the
 * driver's name, set by the file that includes this.
 *
 * 48 slots hold objects whose bytes follow from {slot, version}; up to 24 pins
 * are held over other operations, and what they show must not change, whatever
 * becomes of their object. The owner moves, refuses to move, or lets a reader pin
 * the old place in between; evicts or refuses to. The frame source has a limit
 * that changes. At the end everything is given back and nothing may be left.
 */
#include "alloc/zpool.h"
#include "fuzz.h"
#include "os/mem.h"

#include <errno.h>

#define SLOTS 48
#define PINS  24

struct slot {
	zpool_handle h;
	uint32_t size, version;
	bool movable;
};

struct pin {
	zpool_handle h;
	unsigned slot;
	uint32_t size, version;
};

struct fuzz_world {
	struct frames f;
	struct zpool *zp;
	struct slot slot[SLOTS];
	struct pin pin[PINS];
	uint32_t version;
	uint8_t move_mode, evict_mode;
	uint64_t moves, evictions;
};

static uint8_t content(unsigned slot, uint32_t version, uint32_t i)
{
	return (uint8_t)((slot * 131 + version * 40503u + i * 193u) >> 3);
}

/* Objects of four bytes and more say whose they are: only those can be movable. */
static void content_write(uint8_t *p, unsigned slot, uint32_t version, uint32_t size)
{
	for (uint32_t i = 0; i < size; i++)
		p[i] = content(slot, version, i);
	if (size >= 4)
		memcpy(p, &(uint32_t){slot}, 4);
}

static void content_check(const uint8_t *p, unsigned slot, uint32_t version, uint32_t size)
{
	uint32_t i = 0, is;

	if (size >= 4) {
		memcpy(&is, p, 4);
		fuzz_check(is == slot);
		i = 4;
	}
	for (; i < size; i++)
		fuzz_check(p[i] == content(slot, version, i));
}

static struct pin *pin_free(struct fuzz_world *w)
{
	for (unsigned i = 0; i < PINS; i++)
		if (!w->pin[i].h)
			return &w->pin[i];
	return NULL;
}

static bool pin_held(const struct fuzz_world *w, zpool_handle h)
{
	for (unsigned i = 0; i < PINS; i++)
		if (w->pin[i].h == h)
			return true;
	return false;
}

static void pin_take(struct fuzz_world *w, unsigned slot)
{
	struct slot *s = &w->slot[slot];
	struct pin *pin = pin_free(w);

	if (!pin || !s->h)
		return;
	*pin = (struct pin){s->h, slot, s->size, s->version};
	content_check(zpool_map_mode(w->zp, s->h, ZPOOL_RO), slot, s->version, s->size);
	fuzz_check(zpool_pinned(w->zp, s->h));
}

static void pin_drop(struct fuzz_world *w, struct pin *pin)
{
	if (!pin->h)
		return;
	content_check(zpool_peek(w->zp, pin->h), pin->slot, pin->version, pin->size);
	zpool_unmap(w->zp, pin->h);
	pin->h = 0;
}

/* ---- the owner ------------------------------------------------------------------------------ */

static struct slot *owner_find(struct fuzz_world *w, zpool_handle h, const void *bytes)
{
	uint32_t slot;

	memcpy(&slot, bytes, sizeof(slot));
	fuzz_check(slot < SLOTS && w->slot[slot].h == h && w->slot[slot].movable);
	return &w->slot[slot];
}

static bool owner_move(void *ctx, zpool_handle from, void *src, zpool_handle to, void *dst,
		       size_t size)
{
	struct fuzz_world *w = ctx;
	struct slot *s = owner_find(w, from, src);

	fuzz_check(size >= s->size && from != to && !zpool_pinned(w->zp, from));
	if (w->move_mode == 1)
		return false;
	if (w->move_mode == 2)
		pin_take(w, (unsigned)(s - w->slot));
	memcpy(dst, src, s->size);
	s->h = to;
	w->moves++;
	return true;
}

static bool owner_evict(void *ctx, zpool_handle h, void *ptr, size_t size)
{
	struct fuzz_world *w = ctx;
	struct slot *s = owner_find(w, h, ptr);
	zpool_handle other;

	fuzz_check(size >= s->size && zpool_pinned(w->zp, h));
	content_check(ptr, (unsigned)(s - w->slot), s->version, s->size);
	if (w->evict_mode & 2 && zpool_malloc(w->zp, s->size, &other) == 0) {
		/* What comes meanwhile gets room of its own. */
		memset(zpool_peek(w->zp, other), 0xff, s->size);
		zpool_free(w->zp, other);
	}
	if (w->evict_mode & 1 && s->version % 2)
		return false;
	content_check(ptr, (unsigned)(s - w->slot), s->version, s->size);
	zpool_free(w->zp, h);
	s->h = 0;
	w->evictions++;
	return true;
}

static const struct zpool_owner fuzz_owner = {.move = owner_move, .evict = owner_evict};

/* ---- operations ---------------------------------------------------------------------------------
 */

static void op_malloc(struct fuzz_world *w, struct fuzz_in *in)
{
	unsigned slot = fuzz_u8(in) % SLOTS;
	uint32_t size = fuzz_u16(in);
	size_t max = w->zp->ops->max_size;
	struct slot *s = &w->slot[slot];
	uint64_t used = frames_used(&w->f), limit = w->f.limit_bytes;
	zpool_handle h = 1;
	int ret;

	/* Mostly of a few sizes, so that objects meet. */
	if (size & 0x8000)
		size = 8 + (size & 3) * (uint32_t)(max / 5);
	ret = zpool_malloc_flags(w->zp, size, size & 1 ? ZPOOL_EPHEMERAL : 0, &h);
	if (size == 0 || size > max) {
		fuzz_check(ret == -EINVAL && h == 0);
		return;
	}
	fuzz_check(ret == 0 || (ret == -ENOMEM && h == 0 && limit));
	fuzz_check(!limit || frames_used(&w->f) <= (used > limit ? used : limit));
	if (ret)
		return;
	fuzz_check(h && h >> ZPOOL_HANDLE_BITS == 0);
	if (s->h)
		zpool_free(w->zp, s->h);
	*s = (struct slot){.h = h, .size = size, .version = ++w->version, .movable = size >= 4};
	content_write(zpool_peek(w->zp, h), slot, s->version, size);
	zpool_set_movable(w->zp, h, s->movable);
}

static void op_free(struct fuzz_world *w, struct slot *s)
{
	if (s->h)
		zpool_free(w->zp, s->h);
	s->h = 0;
}

static void op_write(struct fuzz_world *w, unsigned slot, enum zpool_mode mode)
{
	struct slot *s = &w->slot[slot];
	uint8_t *p;

	/* A reader's bytes must not change under him; and WO wants to be alone. */
	if (!s->h || pin_held(w, s->h))
		return;
	p = zpool_map_mode(w->zp, s->h, mode);
	if (mode == ZPOOL_RW)
		content_check(p, slot, s->version, s->size);
	s->version = ++w->version;
	content_write(p, slot, s->version, s->size);
	zpool_unmap(w->zp, s->h);
}

static void op_movable(struct fuzz_world *w, struct slot *s)
{
	if (!s->h || s->size < 4)
		return;
	s->movable = !s->movable;
	zpool_set_movable(w->zp, s->h, s->movable);
}

static void op_shrink(struct fuzz_world *w, uint8_t pages)
{
	uint64_t got = 77, used = frames_used(&w->f);

	fuzz_check(zpool_shrink(w->zp, pages, &got) == 0);
	/* evict() may have put something in between. */
	if (!(w->evict_mode & 2))
		fuzz_check(frames_used(&w->f) + got * OS_FRAME_SIZE <= used);
}

static void op_compact(struct fuzz_world *w, uint8_t frames)
{
	uint64_t used = frames_used(&w->f);
	uint64_t got = zpool_compact(w->zp, frames == 255 ? UINT64_MAX : frames);

	fuzz_check(frames_used(&w->f) + got * OS_FRAME_SIZE == used);
}

static void op_limit(struct fuzz_world *w, uint8_t how)
{
	uint64_t used = frames_used(&w->f);

	frames_set_limit(&w->f, how < 64 ? 0 : used + (uint64_t)(how & 31) * 2048);
}

static void op_check(struct fuzz_world *w)
{
	struct zpool_stats st;
	uint64_t objects = 0, dying = 0;

	fuzz_check(zpool_verify(w->zp) == 0);
	zpool_stats(w->zp, &st);
	fuzz_check(frames_used(&w->f) == st.frame_bytes + st.meta_bytes);
	for (unsigned i = 0; i < SLOTS; i++)
		objects += w->slot[i].h != 0;
	for (unsigned i = 0; i < PINS; i++)
		dying += w->pin[i].h != 0;
	fuzz_check(st.objects >= objects && st.objects <= objects + dying);
	fuzz_check(st.moved_objects == w->moves && st.evicted_objects == w->evictions);
}

static void step(struct fuzz_world *w, struct fuzz_in *in)
{
	uint8_t op = fuzz_u8(in);
	unsigned slot;

	switch (op % 16) {
	case 8:
	case 9:
		slot = fuzz_u8(in) % SLOTS;
		op_free(w, &w->slot[slot]);
		break;
	case 10:
		pin_take(w, fuzz_u8(in) % SLOTS);
		break;
	case 11:
		pin_drop(w, &w->pin[fuzz_u8(in) % PINS]);
		break;
	case 12:
		slot = fuzz_u8(in);
		op_write(w, slot % SLOTS, slot & 0x80 ? ZPOOL_WO : ZPOOL_RW);
		break;
	case 13:
		op_compact(w, fuzz_u8(in));
		break;
	case 14:
		op_shrink(w, fuzz_u8(in) % 32);
		break;
	case 15:
		slot = fuzz_u8(in);
		if (slot % 8 == 0)
			op_limit(w, fuzz_u8(in));
		else if (slot % 8 == 1)
			op_movable(w, &w->slot[fuzz_u8(in) % SLOTS]);
		else if (slot % 8 == 2)
			w->move_mode = fuzz_u8(in) % 3;
		else if (slot % 8 == 3)
			w->evict_mode = fuzz_u8(in) % 4;
		else
			op_check(w);
		break;
	default:
		op_malloc(w, in);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz_world w;
	struct fuzz_in in = {data, size};
	struct zpool_stats st;

	memset(&w, 0, sizeof(w));
	frames_init(&w.f, 0);
	fuzz_check(zpool_create(FUZZ_ZPOOL, &w.f, &fuzz_owner, &w, &w.zp) == 0);
	while (in.n)
		step(&w, &in);
	op_check(&w);
	for (unsigned i = 0; i < SLOTS; i++) {
		if (w.slot[i].h)
			content_check(zpool_peek(w.zp, w.slot[i].h), i, w.slot[i].version,
				      w.slot[i].size);
		op_free(&w, &w.slot[i]);
	}
	for (unsigned i = 0; i < PINS; i++)
		pin_drop(&w, &w.pin[i]);
	zpool_compact(w.zp, UINT64_MAX);
	op_check(&w);
	zpool_stats(w.zp, &st);
	fuzz_check(st.objects == 0 && st.frame_bytes == 0);
	zpool_destroy(w.zp);
	fuzz_check(frames_used(&w.f) == 0);
	return 0;
}
