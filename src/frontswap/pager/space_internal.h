/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of space.h share, and nobody else sees. */
#ifndef TMEM_PAGER_SPACE_INTERNAL_H
#define TMEM_PAGER_SPACE_INTERNAL_H

#include "frontswap/pager/run.h"

static inline uint64_t seg_pages(const struct segment *s)
{
	return (s->end - s->start) / AGENT_PAGE;
}

/* Pages of a segment that are in chunk i of its area. */
static inline uint64_t seg_in_chunk(const struct segment *s, uint64_t i)
{
	uint64_t first = i * CHUNK_PAGES, end = first + CHUNK_PAGES;

	first = s->page > first ? s->page : first;
	end = s->page + seg_pages(s) < end ? s->page + seg_pages(s) : end;
	return first < end ? end - first : 0;
}

/* Whether a page in that state counts in chunk->away (I8), and in chunk->out (I7). */
static inline bool page_away(uint8_t state)
{
	return (state & PAGE_STATE) == PAGE_OUT || (state & PAGE_STATE) == PAGE_TRANSIT;
}

static inline bool page_counted(uint8_t state)
{
	return page_away(state) || state & (PAGE_BUSY | PAGE_KEPT);
}

/* space.c */
/* Whether some of [start, end) was to be emptied when there was no segment. */
bool space_removed_early(const struct space *sp, uint64_t start, uint64_t end);

/* space_pages.c */

/* Chunk i of an area, all of its pages ABSENT, not yet in its table; NULL: no memory. */
struct chunk *space_chunk_create(const struct run *r, struct area *a, uint64_t i);
void space_chunk_free(struct chunk *c);
/* A number for a new area, which it is from space_area_begin() on; or a negative errno. */
int64_t space_area_number(struct space *sp);
void space_area_begin(struct space *sp, uint32_t area, uint64_t first, uint64_t end);
/* n pages of an area are emptied; or unmapped, as their segment is about to be. */
void space_drop_pages(struct space *sp, uint32_t area, uint64_t page, uint64_t n, bool unmapped);
/* After memory was unmapped: when as much is gone as there is to be looked at, a sweep. */
void space_tidy(struct space *sp);

#endif
