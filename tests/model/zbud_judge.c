/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What zbud promises of places, judged from outside: a model of its frames (what is in each, of
 * which kind, how old) that follows from the handles alone. Each placement: the fullest partner
 * that fits, no partner only if none fits, one kind a frame. Each eviction: ephemeral before
 * persistent, then the oldest frame, none twice in a shrink, as many frames back as came empty.
 * Each move: of two single ones of a kind, from the older to the younger.
 */
#include "zpool_model.h"

#include "alloc/zbud_internal.h"

#define FRAMES_MAX 16384
#define CHUNKS	   64

struct frame {
	unsigned objects, chunks;
	bool ephemeral;
	uint64_t stamp;
	bool tried; /* in this shrink */
};

static struct frame frame[FRAMES_MAX];
static unsigned top = 1; /* above all frames that were ever used */
static uint64_t now;
/* Of the shrink that runs: when it began, frames that held something and spare ones then. */
static uint64_t limit, before, spare;

static unsigned chunks_of(uint32_t size)
{
	return (size + 2 + 63) / 64;
}

static struct frame *frame_at(zpool_handle h)
{
	check(h >> 6 < FRAMES_MAX);
	if (h >> 6 >= top)
		top = (unsigned)(h >> 6) + 1;
	return &frame[h >> 6];
}

static bool takes(const struct frame *f, uint32_t n, unsigned chunks)
{
	return f->objects == 1 && f->ephemeral == is_ephemeral(n) && CHUNKS - f->chunks >= chunks;
}

static void added(zpool_handle h, uint32_t n, uint32_t size)
{
	struct frame *f = frame_at(h);
	unsigned chunks = chunks_of(size), room = f->objects ? CHUNKS - f->chunks : CHUNKS + 1;

	check(f->objects < 2 && f->chunks + chunks <= CHUNKS);
	check(!f->objects || f->ephemeral == is_ephemeral(n));
	for (unsigned i = 1; i < top; i++)
		check(!takes(&frame[i], n, chunks) || CHUNKS - frame[i].chunks >= room);
	f->objects++;
	f->chunks += chunks;
	f->ephemeral = is_ephemeral(n);
	f->stamp = ++now;
}

static void refused(uint32_t n, uint32_t size)
{
	for (unsigned i = 1; i < top; i++)
		check(!takes(&frame[i], n, chunks_of(size)));
}

static void removed(zpool_handle h, uint32_t size)
{
	struct frame *f = frame_at(h);

	check(f->objects);
	f->objects--;
	f->chunks -= chunks_of(size);
}

static void moved(zpool_handle from, zpool_handle to, uint32_t size)
{
	struct frame *a = frame_at(from), *b = frame_at(to);

	check(b->objects == 1 && a->objects == 1 && a->ephemeral == b->ephemeral);
	check(a->stamp < b->stamp);
	removed(from, size);
	b->objects++;
	b->chunks += chunks_of(size);
	check(b->chunks <= CHUNKS);
}

static void evicting(zpool_handle h)
{
	struct frame *f = frame_at(h);

	check(f->stamp <= limit);
	/* The second object of a frame comes right after the first. */
	if (f->tried)
		return;
	f->tried = true;
	for (unsigned i = 1; i < top; i++) {
		struct frame *g = &frame[i];

		if (!g->objects || g->tried)
			continue;
		check(g->ephemeral == f->ephemeral ? g->stamp > f->stamp : f->ephemeral);
	}
}

static uint64_t frames_with_objects(void)
{
	uint64_t n = 0;

	for (unsigned i = 1; i < top; i++)
		n += frame[i].objects != 0;
	return n;
}

static uint64_t shrink_begins(struct zpool *zp, uint64_t pages)
{
	struct zbud_info info;

	zbud_info(zp, &info);
	limit = now;
	before = frames_with_objects();
	spare = info.spare;
	for (unsigned i = 1; i < top; i++)
		frame[i].tried = false;
	/* Spare frames go first. */
	return pages + spare;
}

static void shrink_ended(uint64_t got)
{
	check(got == before - frames_with_objects() + spare);
	/* What stayed had its second chance, in the order of the queue: young now. */
	for (;;) {
		struct frame *next = NULL;

		for (unsigned i = 1; i < top; i++)
			if (frame[i].objects && frame[i].tried &&
			    (!next || frame[i].stamp < next->stamp))
				next = &frame[i];
		if (!next)
			break;
		next->tried = false;
		next->stamp = ++now;
	}
}

static void ended(void)
{
	check(frames_with_objects() > 100);
}

const struct judge zbud_judge = {
	.added = added,
	.refused = refused,
	.removed = removed,
	.moved = moved,
	.evicting = evicting,
	.shrink_begins = shrink_begins,
	.shrink_ended = shrink_ended,
	.ended = ended,
};
