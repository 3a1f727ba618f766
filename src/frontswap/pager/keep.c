/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stored copies of pages that came back.
 *
 * As a rule a page that comes back leaves the store. Not so where a fork made two
 * pools of one: what is stored is shared then, and dropping one of two names frees
 * nothing. If the page leaves again as it came (a child that saves its parent's
 * data reads all of it and changes none), a copy of its own would be stored beside
 * the shared one, and a fork would double the store. So while another pool has it
 * too, the name stays (KEPT), with a print of what it names. When the page leaves,
 * a worker compares prints: the same, and nothing is compressed or stored.
 *
 * Prints have 128 bits, because a changed page that is taken for unchanged would be
 * a wrong page: of 2^40 pages that did change, one errs with a probability of 2^-88.
 * Comparing bytes instead would cost a decompression for each page that leaves.
 *
 * Kept for all pages, with or without a fork, copies cost more memory than they
 * save compression: docs/figures.md.
 */
#include "frontswap/pager/run.h"

#include "os/mem.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static struct print print_of(const void *page)
{
	XXH128_hash_t h = XXH3_128bits(page, AGENT_PAGE);

	return (struct print){h.low64, h.high64};
}

void keep_or_drop(struct space *sp, uint32_t area, uint64_t page, uint64_t n, const char *data)
{
	struct chunk *c = space_chunk(sp, area, page, false);
	struct run *r = sp->run;
	uint64_t index;
	tmem_oid oid;
	bool keep;

	space_oid(area, page, &oid, &index);
	keep = sp->forked && tmem_page_shared(r->client, sp->pool, &oid, index) > 0;
	if (keep && !c->print)
		c->print = os_alloc(CHUNK_PAGES * sizeof(*c->print));
	keep = keep && c->print;
	for (uint64_t k = 0; k < n; k++) {
		uint8_t state = c->page[(page + k) % CHUNK_PAGES] & (uint8_t)~PAGE_KEPT;

		if (keep)
			c->print[(page + k) % CHUNK_PAGES] = print_of(data + k * AGENT_PAGE);
		space_set_page(c, page + k, state | (keep ? PAGE_KEPT : 0));
	}
	if (!keep)
		tmem_invalidate_range(r->client, sp->pool, &oid, index, n);
}

void keep_forget(struct space *sp, uint32_t area, uint64_t page)
{
	uint64_t index;
	tmem_oid oid;

	space_oid(area, page, &oid, &index);
	tmem_invalidate_page(sp->run->client, sp->pool, &oid, index);
}

void keep_end(struct space *sp)
{
	for (uint32_t a = 0; a < sp->nareas; a++) {
		for (uint32_t i = 0; i < sp->areas[a].nchunks; i++) {
			struct chunk *c = sp->areas[a].chunks[i];
			bool all = true;

			if (!c || !c->print)
				continue;
			for (uint64_t p = 0; p < CHUNK_PAGES; p++) {
				if (!(c->page[p] & PAGE_KEPT))
					continue;
				if ((c->page[p] & (PAGE_STATE | PAGE_BUSY)) != PAGE_RESIDENT) {
					all = false; /* on its way: its slot says what becomes of it */
					continue;
				}
				keep_forget(sp, a, (uint64_t)i * CHUNK_PAGES + p);
				space_set_page(c, p, c->page[p] & (uint8_t)~PAGE_KEPT);
			}
			if (all) {
				os_free(c->print);
				c->print = NULL;
			}
		}
	}
}

void keep_compare(struct slot *sl, const uint8_t *data)
{
	for (uint32_t m = sl->kept & sl->moved; m; m &= m - 1) {
		uint32_t k = (uint32_t)__builtin_ctz(m);
		struct print p = print_of(data + (size_t)k * AGENT_PAGE);

		if (p.lo == sl->print[k].lo && p.hi == sl->print[k].hi)
			sl->unchanged |= 1u << k;
	}
}
