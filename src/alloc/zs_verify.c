/* SPDX-License-Identifier: BSD-2-Clause */
/* Statistics and the full walk of zsmalloc. Invariants I1 to I6: zs_page.c. */
#include "alloc/zs_internal.h"
#include "os/log.h"

#include <errno.h>

/* Sums over a class that the walk compares with its counters. */
struct zs_sums {
	uint64_t zspages, inuse, touched, frames;
};

static int zs_broken(const struct zs_class *c, uint32_t id, const char *what)
{
	os_log(OS_LOG_ERROR, "zsmalloc: class of %u bytes, zspage %u: %s", c->size, id, what);
	return -EINVAL;
}

static unsigned zs_expected_group(const struct zs_class *c, const struct zs_page *z)
{
	if (z->inuse < z->touched)
		return z->inuse * c->group_mul >> 16;
	return z->touched < c->slots ? ZS_ROOM : ZS_FULL;
}

/* I2 and I5: the slots and the free list of one zspage. */
static int zs_verify_slots(struct zs_pool *p, struct zs_class *c, uint32_t id)
{
	const struct zs_page *z = &p->pages[id];
	uint32_t inuse = 0, freed = 0;

	for (uint32_t s = 0; s < z->touched; s++) {
		zpool_handle h = zs_handle(p, id, s * c->units);
		unsigned state = atomic_load_explicit(zs_state(p, h), memory_order_relaxed);

		if (state && !(state & ZS_ALLOCATED))
			return zs_broken(c, id, "I5: a state word is neither free nor allocated");
		inuse += state != 0;
	}
	if (inuse != z->inuse)
		return zs_broken(c, id, "I2: inuse is not the number of allocated slots");
	for (uint32_t head = z->free_head; head; freed++) {
		uint32_t unit = head - 1;
		zpool_handle h = zs_handle(p, id, unit);

		if (unit % c->units || unit / c->units >= z->touched || freed >= z->touched)
			return zs_broken(c, id, "I2: the free list leaves the zspage or is a ring");
		if (atomic_load_explicit(zs_state(p, h), memory_order_relaxed))
			return zs_broken(c, id, "I5: a slot on the free list is not free");
		head = ((const uint16_t *)zs_address(p, h))[1];
	}
	if (inuse + freed != z->touched || z->touched > c->slots)
		return zs_broken(c, id, "I2: inuse + free list != touched");
	return 0;
}

static int zs_verify_page(struct zs_pool *p, struct zs_class *c, uint32_t id, unsigned group,
			  struct zs_sums *sums)
{
	const struct zs_page *z = &p->pages[id];

	if (z->cls != c->number + 1u)
		return zs_broken(c, id, "is in a ring of a class that is not its own");
	if (z->group != group || (group != ZS_EVICTING && zs_expected_group(c, z) != group))
		return zs_broken(c, id, "I3: is in the wrong group");
	if (p->pages[z->next].prev != id || p->pages[z->prev].next != id)
		return zs_broken(c, id, "I3: the ring is broken");
	if (z->frames > c->frames ||
	    (uint64_t)z->frames << OS_FRAME_SHIFT < (uint64_t)z->touched * c->size)
		return zs_broken(c, id, "I4: frames do not cover the touched slots");
	sums->zspages++;
	sums->inuse += z->inuse;
	sums->touched += z->touched;
	sums->frames += z->frames;
	return zs_verify_slots(p, c, id);
}

int zs_verify_class(struct zs_pool *p, struct zs_class *c)
{
	struct zs_sums sums = {0};
	int ret = 0;

	os_mutex_assert_held(&c->lock);
	for (unsigned g = 0; g < ZS_GROUPS; g++) {
		uint32_t id = c->head[g];

		if (g < ZS_PARTIAL_GROUPS && (c->partial >> g & 1) != (id != 0))
			return zs_broken(c, id, "I6: partial bits");
		while (id && !ret) {
			ret = zs_verify_page(p, c, id, g, &sums);
			if (!ret && sums.zspages > c->zspages)
				ret = zs_broken(c, id, "I1: more zspages in rings than counted");
			id = p->pages[id].next;
			if (id == c->head[g])
				break;
		}
		if (ret)
			return ret;
	}
	if (sums.zspages != c->zspages || sums.inuse != c->objects ||
	    sums.touched != c->touched_slots || sums.frames != c->resident_frames)
		return zs_broken(c, 0, "I1, I4: counters are not the sums over the zspages");
	return 0;
}

/* The bits of a region. zs_span.c: I1, I2, I4. */
static int zs_verify_region(struct zs_pool *p, struct zs_region *r)
{
	uint32_t nr_free = 0;
	int ret = 0;

	os_mutex_lock(&r->lock);
	for (uint32_t w = 0; w * 64 < r->next; w++) {
		uint64_t bits = r->fine[w];

		nr_free += (uint32_t)__builtin_popcountll(bits);
		if ((r->coarse[w / 64] >> (w % 64) & 1) != (bits != 0) ||
		    (bits && w / 64 < r->hint))
			ret = -EINVAL;
		for (; bits; bits &= bits - 1) {
			uint32_t k = w * 64 + (uint32_t)__builtin_ctzll(bits);

			if (k >= r->next || p->pages[r->first + k].cls)
				ret = -EINVAL;
		}
	}
	if (nr_free != r->nr_free)
		ret = -EINVAL;
	if (ret)
		os_log(OS_LOG_ERROR, "zsmalloc: free ids of a region are inconsistent");
	os_mutex_unlock(&r->lock);
	return ret;
}

int zs_verify(struct zpool *zp)
{
	struct zs_pool *p = zs_pool(zp);
	int ret = 0;

	for (unsigned i = 0; i < p->nr_classes && !ret; i++) {
		zs_class_lock(&p->classes[i]);
		ret = zs_verify_class(p, &p->classes[i]);
		zs_class_unlock(&p->classes[i]);
	}
	for (unsigned i = 0; i < 2 && !ret; i++)
		ret = zs_verify_region(p, &p->region[i]);
	return ret;
}

void zs_stats(struct zpool *zp, struct zpool_stats *st)
{
	struct zs_pool *p = zs_pool(zp);

	*st = (struct zpool_stats){0};
	for (unsigned i = 0; i < p->nr_classes; i++) {
		struct zs_class *c = &p->classes[i];

		zs_class_lock(c);
		st->objects += c->objects;
		st->object_bytes += c->objects * c->size;
		st->frame_bytes += c->resident_frames << OS_FRAME_SHIFT;
		st->moved_objects += c->moved;
		if (c->size >= ZS_HUGE_WATERMARK)
			st->huge_objects += c->objects;
		zs_class_unlock(c);
	}
	st->meta_bytes =
		zs_spans_meta_bytes(p) + sizeof(*p) + ZS_CLASSES_MAX * sizeof(struct zs_class);
	st->freed_frames = atomic_load_explicit(&p->freed_frames, memory_order_relaxed);
	st->evicted_objects = atomic_load_explicit(&p->evicted, memory_order_relaxed);
	st->evict_refused = atomic_load_explicit(&p->evict_refused, memory_order_relaxed);
	st->shrunk_frames = atomic_load_explicit(&p->shrunk_frames, memory_order_relaxed);
	st->compacted_frames = atomic_load_explicit(&p->compacted_frames, memory_order_relaxed);
}

/* Count one zspage under the four headings of zs_class_info. */
static void zs_count_fullness(const struct zs_class *c, const struct zs_page *z,
			      struct zs_class_info *info)
{
	if (z->inuse == c->slots)
		info->fullness[3]++;
	else if (z->inuse * 4u <= c->slots)
		info->fullness[0]++;
	else if (z->inuse * 4u <= c->slots * 3)
		info->fullness[1]++;
	else
		info->fullness[2]++;
}

bool zs_class_info(struct zpool *zp, unsigned i, struct zs_class_info *info)
{
	struct zs_pool *p = zs_pool(zp);
	struct zs_class *c;

	if (i >= p->nr_classes)
		return false;
	c = &p->classes[i];
	zs_class_lock(c);
	*info = (struct zs_class_info){
		.size = c->size,
		.frames = c->frames,
		.slots = c->slots,
		.zspages = c->zspages,
		.objects = c->objects,
		.resident_frames = c->resident_frames,
	};
	for (unsigned g = 0; g < ZS_FULL; g++) {
		uint32_t id = c->head[g];

		if (!id)
			continue;
		do {
			zs_count_fullness(c, &p->pages[id], info);
			id = p->pages[id].next;
		} while (id != c->head[g]);
	}
	/* The full ones are the rest: their ring may be long. */
	info->fullness[3] = c->zspages - info->fullness[0] - info->fullness[1] - info->fullness[2];
	zs_class_unlock(c);
	return true;
}
