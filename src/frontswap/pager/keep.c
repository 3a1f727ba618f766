/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stored copies of pages that came back.
 *
 * As a rule a page that comes back leaves the store. Not so where that would free
 * nothing, because after a fork another process has the stored bytes, too. There
 * the name stays (KEPT), with a print of what it names. When the page leaves, a worker
 * compares prints: the same, and nothing is compressed or stored. Else a child that saves
 * its parent's data, reading all of it and changing none, would store everything a
 * second time.
 *
 * Prints have 128 bits, because a changed page that is taken for unchanged would be
 * a wrong page: of 2^40 pages that did change, one errs with a probability of 2^-88.
 * Comparing bytes instead would cost a decompression for each page that leaves.
 *
 * Kept for pages that have the stored bytes to themselves, copies cost more memory
 * than they save compression, also where a page came alone of a cluster that is held
 * for its neighbours anyway: docs/figures.md.
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

bool keep(struct space *sp, uint32_t area, uint64_t page, uint64_t n, const char *data)
{
	struct chunk *c = space_chunk(sp, area, page, false);

	if (!c->print && !(sp->run->opts.without & KEEP_COPIES))
		c->print = os_alloc(c->pages * sizeof(*c->print));
	if (!c->print)
		return false;
	for (uint64_t k = 0; k < n; k++) {
		c->print[(page + k) % CHUNK_PAGES] = print_of(data + k * AGENT_PAGE);
		space_set_page(c, page + k, c->page[(page + k) % CHUNK_PAGES] | PAGE_KEPT);
	}
	return true;
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
			for (uint64_t p = 0; p < c->pages; p++) {
				if (!(c->page[p] & PAGE_KEPT))
					continue;
				if ((c->page[p] & (PAGE_STATE | PAGE_BUSY)) != PAGE_RESIDENT) {
					all = false; /* on its way: its slot says what becomes of it
						      */
					continue;
				}
				keep_forget(sp, a, (uint64_t)i * CHUNK_PAGES + p);
				space_set_page(c, p, c->page[p] & (uint8_t)~PAGE_KEPT);
				c->place[p].with = WITH_COMPANY;
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
