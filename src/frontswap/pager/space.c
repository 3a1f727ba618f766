/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Segments, and an address space's beginning and end. See space.h.
 */
#include "frontswap/pager/run.h"
#include "frontswap/pager/space_internal.h"

#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

/* Index of the first segment that ends behind addr. */
static uint32_t seg_index(const struct space *sp, uint64_t addr)
{
	uint32_t lo = 0, hi = sp->nsegs;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (sp->segs[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct segment *space_find(struct space *sp, uint64_t addr)
{
	uint32_t i = seg_index(sp, addr);

	return i < sp->nsegs && sp->segs[i].start <= addr ? &sp->segs[i] : NULL;
}

bool space_any(struct space *sp, uint64_t start, uint64_t end)
{
	uint32_t i = seg_index(sp, start);

	return i < sp->nsegs && sp->segs[i].start < end;
}

struct segment *space_from(struct space *sp, uint64_t addr)
{
	uint32_t i = seg_index(sp, addr);

	return i < sp->nsegs ? &sp->segs[i] : NULL;
}

static int seg_insert(struct space *sp, const struct segment *s)
{
	uint32_t i = seg_index(sp, s->start);

	if (sp->nsegs == sp->segs_size) {
		uint32_t size = sp->segs_size ? sp->segs_size * 2 : 64;
		struct segment *segs = os_alloc(size * sizeof(*segs));

		if (!segs)
			return -ENOMEM;
		if (sp->nsegs)
			memcpy(segs, sp->segs, sp->nsegs * sizeof(*segs));
		os_free(sp->segs);
		sp->segs = segs;
		sp->segs_size = size;
	}
	memmove(&sp->segs[i + 1], &sp->segs[i], (sp->nsegs - i) * sizeof(*s));
	sp->segs[i] = *s;
	sp->nsegs++;
	return 0;
}

/* What was to be emptied where there was no segment: some of it may be there still. */
static void note_early(struct space *sp, uint64_t start, uint64_t end)
{
	sp->early[sp->early_next++ % EARLY_REMOVES] = (struct range){start, end};
}

bool space_removed_early(const struct space *sp, uint64_t start, uint64_t end)
{
	for (unsigned i = 0; i < EARLY_REMOVES; i++)
		if (sp->early[i].start < end && start < sp->early[i].end)
			return true;
	return false;
}

void space_early_over(struct space *sp, uint64_t start, uint64_t end)
{
	for (unsigned i = 0; i < EARLY_REMOVES; i++)
		if (sp->early[i].start >= start && sp->early[i].end <= end)
			sp->early[i] = (struct range){0, 0};
}

int space_add_segment(struct space *sp, uint64_t start, uint64_t end)
{
	struct segment s = {.start = start, .end = end};
	int64_t area = space_area_number(sp);

	if (area < 0)
		return (int)area;
	/* Aligned as the addresses are, so that groups do not straddle huge pages. */
	s.area = (uint32_t)area;
	s.page = start / AGENT_PAGE % TMEM_CLUSTER_MAX;
	s.settled = sp->epoch + 1;
	if (sp->careful && space_find(sp, start - 1)) /* it grows */
		s.since_ns = os_clock_ns();
	if (seg_insert(sp, &s) < 0)
		return -ENOMEM;
	space_area_begin(sp, s.area, s.page, s.page + seg_pages(&s));
	return 0;
}

/* Cut so that no segment straddles addr. */
static int seg_split(struct space *sp, uint64_t addr)
{
	struct segment *s = space_find(sp, addr);
	struct segment tail;

	if (!s || s->start == addr)
		return 0;
	tail = *s;
	tail.start = addr;
	tail.page += (addr - s->start) / AGENT_PAGE;
	s->end = addr;
	return seg_insert(sp, &tail);
}
void space_drop_range(struct space *sp, uint64_t start, uint64_t end, bool unmapped)
{
	uint64_t known = 0;
	uint32_t i;

	if (unmapped && (seg_split(sp, start) < 0 || seg_split(sp, end) < 0)) {
		pager_fail(sp, "out of memory for segments");
		return;
	}
	i = seg_index(sp, start);
	while (i < sp->nsegs && sp->segs[i].start < end) {
		struct segment *s = &sp->segs[i];
		uint64_t from = start > s->start ? start : s->start;
		uint64_t to = end < s->end ? end : s->end;

		known += to - from;
		space_drop_pages(sp, s->area, s->page + (from - s->start) / AGENT_PAGE,
				 (to - from) / AGENT_PAGE, unmapped);
		if (unmapped) {
			memmove(s, s + 1, (sp->nsegs - i - 1) * sizeof(*s));
			sp->nsegs--;
		} else {
			i++;
		}
	}
	if (unmapped)
		space_tidy(sp);
	else if (known < end - start)
		note_early(sp, start, end);
}

int space_remap(struct space *sp, uint64_t from, uint64_t to, uint64_t len)
{
	uint32_t i;

	/* What was at the new place is gone: by events.c there is nothing. */
	space_drop_range(sp, to, to + len, true);
	if (seg_split(sp, from) < 0 || seg_split(sp, from + len) < 0)
		return -ENOMEM;
	i = seg_index(sp, from);
	while (i < sp->nsegs && sp->segs[i].start < from + len) {
		struct segment s = sp->segs[i];

		memmove(&sp->segs[i], &sp->segs[i + 1], (sp->nsegs - i - 1) * sizeof(s));
		sp->nsegs--;
		s.start = s.start - from + to;
		s.end = s.end - from + to;
		s.settled = sp->epoch + 1;
		s.since_ns = sp->careful ? os_clock_ns() : 0;
		if (seg_insert(sp, &s) < 0)
			return -ENOMEM;
		i = seg_index(sp, from);
	}
	return 0;
}

bool space_guards(struct space *sp)
{
	if (sp->shm && atomic_load_explicit(&sp->shm->guards, memory_order_relaxed))
		sp->guards = true;
	return sp->guards;
}

bool space_frees(struct space *sp)
{
	if (sp->shm && atomic_load_explicit(&sp->shm->frees, memory_order_relaxed))
		sp->frees = true;
	return sp->frees;
}

struct space *space_create(struct run *r, int uffd, tmem_pool pool)
{
	struct space *sp = os_zalloc_aligned(sizeof(*sp));

	if (!sp)
		return NULL;
	sp->run = r;
	sp->uffd = uffd;
	sp->pool = pool;
	sp->sock = sp->wake = sp->told = sp->pidfd = sp->pagemap = sp->statm = -1;
	sp->come = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	sp->fresh_window = 1;
	sp->together = UINT8_MAX; /* until it shows */
	sp->maps_dirty = true;
	sp->buf = os_alloc(TMEM_CLUSTER_MAX * AGENT_PAGE);
	if (!sp->buf) {
		os_free(sp);
		return NULL;
	}
	return sp;
}

void space_free(struct space *sp)
{
	ages_free(atomic_exchange(&sp->cold.told, NULL));
	ages_free(sp->cold.ages);
	for (uint32_t a = 0; a < sp->nareas; a++) {
		for (uint32_t c = 0; c < sp->areas[a].nchunks; c++)
			space_chunk_free(sp->areas[a].chunks[c]);
		os_free(sp->areas[a].chunks);
	}
	os_free(sp->areas);
	os_free(sp->segs);
	queue_free(&sp->probation);
	queue_free(&sp->main);
	os_free(sp->pending);
	os_free(sp->expected);
	os_free(sp->deferred);
	os_free(sp->buf);
	if (sp->shm)
		munmap(sp->shm, sizeof(*sp->shm));
	if (sp->uffd >= 0)
		close(sp->uffd);
	if (sp->sock >= 0)
		close(sp->sock);
	if (sp->wake >= 0)
		close(sp->wake);
	if (sp->told >= 0)
		close(sp->told);
	if (sp->come >= 0)
		close(sp->come);
	if (sp->pidfd >= 0)
		close(sp->pidfd);
	if (sp->pagemap >= 0)
		close(sp->pagemap);
	if (sp->statm >= 0)
		close(sp->statm);
	os_free(sp);
}
