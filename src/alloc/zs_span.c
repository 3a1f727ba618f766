/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Spans of zsmalloc: zspage ids, their descriptors, their frames.
 *
 *   base                        base + half
 *   | unused | id 1 | id 2 | ...  | id L | id L+1 | ...
 *     64 KiB   64 KiB               256 KiB
 *   small region                  large region, L = half / 64 KiB
 *
 *   meta: | descriptors by id | fine, coarse bits small | fine, coarse large |
 *
 * An id is also an address, by a shift, so a handle needs no table.
 * The lowest free id is handed out first: what lives stays at low addresses,
 * where page tables and descriptors are dense. Finding it takes two levels of
 * bits and a hint, about four instructions a level.
 *
 * Invariants
 *   I1  nr_free = set bits of fine = ids below next that are free
 *   I2  coarse has bit w exactly where fine[w] != 0
 *   I3  meta_bytes = frames of descriptors and bits that ids below next reach
 *   I4  the descriptor of a free id is all zero
 *
 * Locking: the region's mutex (OS_RANK_SPAN) for ids. Frames of a span belong
 * to whoever holds the class lock of its zspage, or to whoever took it off.
 *
 * Failure: a refused charge or populate leaves everything as it was.
 */
#include "alloc/zs_internal.h"

#include <errno.h>
#include <string.h>

static size_t zs_frame_round(size_t bytes)
{
	return (bytes + OS_FRAME_SIZE - 1) & ~(OS_FRAME_SIZE - 1);
}

static char *zs_span_address(const struct zs_pool *p, uint32_t id)
{
	return zs_address(p, zs_handle(p, id, 0));
}

/*
 * I3: bytes of meta that the ids below `next` reach. The first descriptor of
 * the small region is at 1, that of the large region at a frame's edge.
 */
static uint64_t zs_region_meta(const struct zs_region *r, uint32_t next)
{
	uint64_t words = ((uint64_t)next + 63) / 64, coarse = (words + 63) / 64;
	uint64_t bytes = zs_frame_round(((uint64_t)next + r->first % 2) * sizeof(struct zs_page));

	return bytes + zs_frame_round(words * 8) + zs_frame_round(coarse * 8);
}

static size_t zs_bits_bytes(uint32_t max, size_t *coarse)
{
	size_t words = ((size_t)max + 63) / 64;

	*coarse = zs_frame_round((words + 63) / 64 * 8);
	return zs_frame_round(words * 8);
}

int zs_spans_create(struct zs_pool *p)
{
	size_t half, fine[2], coarse[2], pages_bytes;
	char *at;

	for (half = ZS_REGION_MAX; half >= ZS_REGION_MIN; half /= 2) {
		uint64_t units = half >> ZS_UNIT_SHIFT;
		uint32_t small = (uint32_t)(units >> ZS_SMALL_SHIFT);
		uint32_t large = (uint32_t)(units >> ZS_LARGE_SHIFT);

		p->region[0] = (struct zs_region){.first = 1, .max = small - 1};
		p->region[1] = (struct zs_region){.first = small, .max = large};
		pages_bytes = zs_frame_round(((size_t)small + large) * sizeof(struct zs_page));
		for (int i = 0; i < 2; i++)
			fine[i] = zs_bits_bytes(p->region[i].max, &coarse[i]);
		p->large_units = units;
		p->large_first = small;
		p->large_bias = small - large;
		p->object_bytes = 2 * half;
		p->meta_bytes = pages_bytes + fine[0] + coarse[0] + fine[1] + coarse[1];
		p->base = os_reserve(p->object_bytes);
		p->meta = p->base ? os_reserve(p->meta_bytes) : NULL;
		if (p->meta)
			break;
		os_unreserve(p->base, p->object_bytes);
		p->base = NULL;
	}
	if (!p->base)
		return -ENOMEM;
	p->pages = (struct zs_page *)p->meta;
	at = p->meta + pages_bytes;
	for (int i = 0; i < 2; i++) {
		p->region[i].fine = (uint64_t *)at;
		p->region[i].coarse = (uint64_t *)(at + fine[i]);
		at += fine[i] + coarse[i];
		os_mutex_init(&p->region[i].lock, OS_RANK_SPAN, "zs region");
	}
	return 0;
}

void zs_spans_destroy(struct zs_pool *p)
{
	if (!p->base)
		return;
	for (int i = 0; i < 2; i++) {
		frames_uncharge(p->frames, p->region[i].meta_bytes);
		os_mutex_destroy(&p->region[i].lock);
	}
	os_unreserve(p->meta, p->meta_bytes);
	os_unreserve(p->base, p->object_bytes);
}

/* The lowest id that was used before and is free. nr_free > 0. */
static uint32_t zs_region_take(struct zs_region *r)
{
	uint32_t c = r->hint, w, k;

	while (!r->coarse[c])
		c++;
	r->hint = c;
	w = c * 64 + (uint32_t)__builtin_ctzll(r->coarse[c]);
	k = w * 64 + (uint32_t)__builtin_ctzll(r->fine[w]);
	r->fine[w] &= r->fine[w] - 1;
	if (!r->fine[w])
		r->coarse[c] &= r->coarse[c] - 1;
	r->nr_free--;
	tmem_assert(I1, k < r->next);
	return k;
}

/* A fresh id; UINT32_MAX when the region or the account is exhausted. */
static uint32_t zs_region_grow(struct zs_pool *p, struct zs_region *r)
{
	uint64_t need;

	if (r->next == r->max)
		return UINT32_MAX;
	need = zs_region_meta(r, r->next + 1);
	if (need > r->meta_bytes) {
		if (!frames_charge(p->frames, need - r->meta_bytes))
			return UINT32_MAX;
		r->meta_bytes = need;
	}
	return r->next++;
}

uint32_t zs_span_alloc(struct zs_pool *p, bool large)
{
	struct zs_region *r = &p->region[large];
	uint32_t k;

	os_mutex_lock(&r->lock);
	k = r->nr_free ? zs_region_take(r) : zs_region_grow(p, r);
	os_mutex_unlock(&r->lock);
	return k == UINT32_MAX ? 0 : r->first + k;
}

void zs_span_release(struct zs_pool *p, uint32_t id, uint32_t frames)
{
	struct zs_region *r = &p->region[id >= p->large_first];
	uint32_t k = id - r->first, w = k / 64;

	zs_span_return(p, id, 0, frames);
	os_mutex_lock(&r->lock);
	memset(&p->pages[id], 0, sizeof(p->pages[id])); /* I4 */
	tmem_assert(I1, k < r->next && !(r->fine[w] >> (k % 64) & 1));
	r->fine[w] |= 1ull << (k % 64);
	r->coarse[w / 64] |= 1ull << (w % 64);
	if (w / 64 < r->hint)
		r->hint = w / 64;
	r->nr_free++;
	os_mutex_unlock(&r->lock);
}

bool zs_span_populate(struct zs_pool *p, uint32_t id, uint32_t from, uint32_t to)
{
	size_t bytes = (size_t)(to - from) << OS_FRAME_SHIFT;

	if (!frames_charge(p->frames, bytes))
		return false;
	if (os_frames_populate(zs_span_address(p, id) + ((size_t)from << OS_FRAME_SHIFT), bytes)) {
		/* Part of it may be there: it must not stay behind uncharged. */
		os_frames_return(zs_span_address(p, id) + ((size_t)from << OS_FRAME_SHIFT), bytes);
		frames_uncharge(p->frames, bytes);
		return false;
	}
	return true;
}

void zs_span_return(struct zs_pool *p, uint32_t id, uint32_t from, uint32_t to)
{
	size_t bytes = (size_t)(to - from) << OS_FRAME_SHIFT;

	if (!bytes)
		return;
	os_frames_return(zs_span_address(p, id) + ((size_t)from << OS_FRAME_SHIFT), bytes);
	frames_uncharge(p->frames, bytes);
	atomic_fetch_add_explicit(&p->freed_frames, to - from, memory_order_relaxed);
}

uint64_t zs_spans_meta_bytes(struct zs_pool *p)
{
	uint64_t bytes = 0;

	for (int i = 0; i < 2; i++) {
		os_mutex_lock(&p->region[i].lock);
		bytes += p->region[i].meta_bytes;
		os_mutex_unlock(&p->region[i].lock);
	}
	return bytes;
}
