/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Size classes of zsmalloc: which slot sizes, and how many frames a zspage has.
 *
 * A zspage of F frames holds floor(F * 4096 / size) slots; the rest of its
 * last frame is lost. Other costs of a zspage do not depend on how much of its
 * span it uses: 32 bytes of descriptor, and 8 bytes of page table for each
 * frame of address space. The plan takes
 *
 *   loss(F) = (tail + descriptor + page table of the span) / (F * 4096)
 *
 * and the shortest F whose loss is within 0.3 % of the least: shorter zspages
 * come empty sooner.
 *
 * Runs may be long here, because a zspage is contiguous in virtual addresses
 * and nothing is copied to map an object. Mean tail loss over the slot sizes
 * from 320 to 3616, by span limit: 4 frames 4.9 %, 16 frames 0.40 %, 64 frames
 * 0.08 %; so slots above 1024 bytes use spans of 64 frames (0.10 % for all,
 * at most 0.66 %), and the small ones, which pack well anyway, keep page
 * tables and partly filled zspages short.
 *
 * Huge objects. With zspages of 4 frames nothing above 3264 bytes packs better
 * than one object a frame, so the rule was to keep those as raw pages. With 64
 * frames objects a frame are 1.125 at 3632, 1.067 at 3840, 1.032 at 3968,
 * 1.016 at 4032 and 1.000 from 4048. Packing gains up to 4032: huge objects
 * are packed like all others, and ZS_HUGE_WATERMARK only counts them. A raw
 * page with its state word and header (up to 62 bytes) takes a slot of 4160, 54
 * of them in 55 frames.
 *
 * Invariants
 *   I1  sizes ascend; class_of[u] is the first class with size >= u * 16
 *   I2  slots = floor(frames * 4096 / size), 1 <= slots <= 4095
 *   I3  size is the largest multiple of 16 for which I2 holds (or 65536): so no
 *       two classes have the same frames and slots, what packs alike is merged
 */
#include "alloc/zs_internal.h"

#define ZS_LOSS_TOLERANCE 0.003

static double zs_loss(uint32_t size, uint32_t frames, uint32_t span_frames)
{
	uint32_t bytes = frames * (uint32_t)OS_FRAME_SIZE;
	uint32_t overhead = sizeof(struct zs_page) + span_frames * 8;

	return (double)(bytes % size + overhead) / (double)bytes;
}

/* The shortest zspage whose loss is near the least. */
static uint32_t zs_plan_frames(uint32_t size, uint32_t span_frames)
{
	uint32_t first = (size + (uint32_t)OS_FRAME_SIZE - 1) >> OS_FRAME_SHIFT;
	double least = 1.0;

	for (uint32_t f = first; f <= span_frames; f++) {
		double loss = zs_loss(size, f, span_frames);

		if (loss < least)
			least = loss;
	}
	for (uint32_t f = first; f < span_frames; f++)
		if (zs_loss(size, f, span_frames) <= least + ZS_LOSS_TOLERANCE)
			return f;
	return span_frames;
}

static void zs_class_set(struct zs_class *c, uint32_t size)
{
	uint32_t bytes;

	c->large = size > ZS_SMALL_SPAN_MAX;
	c->frames = zs_plan_frames(size, c->large ? ZS_LARGE_FRAMES : ZS_SMALL_FRAMES);
	bytes = c->frames * (uint32_t)OS_FRAME_SIZE;
	c->slots = bytes / size;
	/*
	 * The slots may grow into the tail: larger objects fit at no cost, and
	 * the next class begins later.
	 */
	size = bytes / c->slots & ~(ZS_UNIT - 1);
	c->size = size < ZS_SLOT_MAX ? size : ZS_SLOT_MAX;
	c->units = c->size >> ZS_UNIT_SHIFT;
	/*
	 * inuse * group_mul >> 16 is 0..15 for inuse < slots: rounded down, so
	 * that it never reaches 16.
	 */
	c->group_mul = (ZS_PARTIAL_GROUPS << 16) / c->slots;
}

static uint32_t zs_size_next(uint32_t size)
{
	uint32_t step = ZS_UNIT;

	if (size >= ZS_LINEAR_MAX) {
		step = (size >> ZS_STEP_SHIFT) & ~(ZS_UNIT - 1);
		if (step < ZS_UNIT)
			step = ZS_UNIT;
	}
	return size + step > ZS_SLOT_MAX && size < ZS_SLOT_MAX ? ZS_SLOT_MAX : size + step;
}

unsigned zs_classes_plan(struct zs_class *classes, uint16_t *class_of)
{
	unsigned n = 0, k = 0;

	for (uint32_t size = ZS_SLOT_MIN; size <= ZS_SLOT_MAX; size = zs_size_next(size)) {
		tmem_must(n < ZS_CLASSES_MAX);
		zs_class_set(&classes[n], size);
		size = classes[n++].size;
	}
	for (uint32_t u = 0; u <= ZS_SLOT_MAX / ZS_UNIT; u++) {
		while (classes[k].units < u)
			k++;
		class_of[u] = (uint16_t)k;
	}
	for (unsigned i = 0; i < n; i++) {
		classes[i].number = (uint16_t)i;
		tmem_assert(I2, classes[i].slots >= 1 && classes[i].slots <= 4095);
	}
	return n;
}
