/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What comes in with a page.
 *
 * Neighbours are stored together, so a page that is wanted has its neighbours
 * decompressed anyway. Bringing all of them in saves their faults when they are
 * wanted soon, and is bad when they are not: they push out eight times as much as
 * was asked for. Programs do both, in different regions: a hash table is asked for
 * single pages, the log beside it is read through. So each chunk of 2 MiB has an
 * estimate of how often neighbours are wanted, too, and learns:
 *
 *    fault on a page that is out
 *      estimate low: it comes alone
 *      estimate high: all of its cluster come, but one time in PROBE, to see
 *    fault on another page of a cluster of which one came alone
 *      SOON after: verdict "together", all come
 *      else: verdict "not", and as above
 *    a page of it leaves, and no such fault was in between: verdict "not"
 *
 * SOON, and not "before it leaves": where pages are wanted at random, all over, a
 * neighbour is wanted before a page leaves more often than not, since a page stays
 * for as long as it takes to bring in all others. But no sooner than any other
 * page, and then nothing is gained by having it here.
 *
 * What comes alone is kept in the store as well (keep.c), for its cluster goes on
 * being there for the others:
 *
 *   B1  a page comes in, and mates of its cluster are out or on their way out
 *         => it is KEPT (if there is memory for its print)
 *   B2  the last one has come, and nobody else has the cluster
 *         => none of it is KEPT, and the cluster is freed
 *
 * A fault costs about what compressing six pages does, so guests that are wanted one
 * time in three pay. That is the THRESHOLD; 150 made little difference.
 */
#include "frontswap/pager/run.h"
#include "frontswap/uffd.h"

#include <errno.h>
#include <sys/ioctl.h>

#define PROBE	       32u
#define SOON	       64u /* faults */
#define VERDICTS_LEAST 4u  /* of a chunk, before its own estimate is used */
#define THRESHOLD      80u /* of 255 */

static uint8_t moved(uint8_t estimate, bool up)
{
	int now = estimate;

	return (uint8_t)(up ? now + (UINT8_MAX - now + 7) / 8 : now - (now + 7) / 8);
}

/* Where a cluster's `alone` is. */
static uint16_t *alone_of(const struct space *sp, struct chunk *c, uint64_t page)
{
	return &c->place[page % CHUNK_PAGES & -(uint64_t)sp->run->opts.cluster].alone;
}

static void verdict(struct space *sp, struct chunk *c, bool together)
{
	if (!c->verdicts)
		c->together = sp->together;
	if (c->verdicts < VERDICTS_LEAST)
		c->verdicts++;
	c->together = moved(c->together, together);
	sp->together = moved(sp->together, together);
}

void bring_left(struct space *sp, struct chunk *c, uint64_t page)
{
	uint16_t *alone = alone_of(sp, c, page);

	if (*alone)
		verdict(sp, c, false);
	*alone = 0;
}

/* Whether mates of a page that is wanted are to come along. */
static bool mates_come(struct space *sp, const struct chunk *c)
{
	if (sp->run_length > 1 || sp->run->opts.without & LEARN_NEIGHBOURS)
		return true;
	if ((c->verdicts < VERDICTS_LEAST ? sp->together : c->together) < THRESHOLD)
		return false;
	return sp->probes++ % PROBE != 0;
}

/*
 * The pages of a cluster that are, or may come to be, in the store only, by our books;
 * *here: those that a run of mapped pages from `first` on has here as OUT.
 */
static uint32_t still_out(struct space *sp, const struct segment *seg, uint64_t first,
			  uint32_t mask, uint32_t *here)
{
	uint64_t end = seg->page + (seg->end - seg->start) / AGENT_PAGE;
	uint32_t out = 0;

	*here = 0;
	for (uint32_t m = mask; m; m &= m - 1) {
		uint32_t i = (uint32_t)__builtin_ctz(m);
		const uint8_t *p = space_page(sp, seg->area, first + i);

		if (!p)
			continue;
		if ((*p & PAGE_STATE) == PAGE_OUT || (*p & PAGE_STATE) == PAGE_TRANSIT ||
		    *p & PAGE_BUSY)
			out |= 1u << i;
		if ((*p & PAGE_STATE) == PAGE_OUT && first + i >= seg->page && first + i < end)
			*here |= 1u << i;
	}
	return out;
}

/* B1, B2 for the pages of `in`, just copied from sp->buf. */
static void keep_or_drop(struct space *sp, const struct segment *seg, uint64_t first, uint32_t mask,
			 uint32_t in)
{
	struct run *r = sp->run;
	uint32_t here, goes = 0;
	uint64_t index;
	tmem_oid oid;

	if (!in)
		return;
	space_oid(seg->area, first + (uint32_t)__builtin_ctz(in), &oid, &index);
	if (!still_out(sp, seg, first, mask, &here) &&
	    !(sp->forked && tmem_page_shared(r->client, sp->pool, &oid, index) > 0))
		goes = mask;
	for (uint32_t m = in & ~goes; m; m &= m - 1) {
		uint32_t i = (uint32_t)__builtin_ctz(m);

		if (!keep(sp, seg->area, first + i, 1, sp->buf + (size_t)i * AGENT_PAGE))
			goes |= 1u << i;
	}
	for (uint32_t i = 0, n; goes >> i; i += n) {
		for (n = 0; goes >> (i + n) & 1; n++) {
			struct chunk *c = space_chunk(sp, seg->area, first + i + n, false);
			uint64_t at = (first + i + n) % CHUNK_PAGES;

			if (c)
				space_set_page(c, at, c->page[at] & (uint8_t)~PAGE_KEPT);
		}
		if (n) {
			space_oid(seg->area, first + i, &oid, &index);
			tmem_invalidate_range(r->client, sp->pool, &oid, index, n);
		}
		n += !n;
	}
}

bool bring_in(struct space *sp, struct segment *seg, uint64_t page, bool all)
{
	struct chunk *c = space_chunk(sp, seg->area, page, false);
	uint16_t *alone = alone_of(sp, c, page);
	struct run *r = sp->run;
	uint32_t mask, here, in = 0;
	uint64_t index, first;
	bool ok = true, soon = false;
	tmem_oid oid;
	int rc;

	space_oid(seg->area, page, &oid, &index);
	rc = tmem_get_cluster(r->client, sp->pool, &oid, index, 0, sp->buf, &first, &mask);
	if (rc) {
		/* A page that is out and not to be had: the program ends here. */
		struct uffdio_poison p = {
			.range = {seg->start + (page - seg->page) * AGENT_PAGE, AGENT_PAGE}};

		ioctl(sp->uffd, UFFDIO_POISON, &p);
		pager_fail(sp, rc == -EIO ? "a stored page fails its checksum"
					  : "a stored page is lost");
		return true;
	}
	first = page - (index - first);
	sp->brought += (uint16_t)(1 + (sp->brought == UINT16_MAX));
	still_out(sp, seg, first, mask, &here);
	if (*alone) {
		soon = (uint16_t)(sp->brought - *alone) <= SOON;
		verdict(sp, c, soon);
		*alone = 0;
	}
	if (__builtin_popcount(here) > 1 && !all && !soon && !mates_come(sp, c)) {
		*alone = sp->brought;
		here = 1u << (page - first);
	}
	for (uint32_t i = 0; here >> i && !sp->gone; i++) {
		uint64_t n = 0, done, at = first + i;

		while (here >> (i + n) & 1)
			n++;
		if (!n)
			continue;
		if (!pager_copy_in(sp, seg->start + (at - seg->page) * AGENT_PAGE,
				   sp->buf + (size_t)i * AGENT_PAGE, n, &done) &&
		    page >= at + done && page < at + n)
			ok = false;
		if (done) {
			space_mark_resident(sp, seg, seg->start + (at - seg->page) * AGENT_PAGE,
					    done, ARRIVAL_STORED);
			in |= ((1u << done) - 1) << i;
			atomic_fetch_add_explicit(&r->n.pages_in, done, memory_order_relaxed);
			pager_added(sp, done);
		}
		i += (uint32_t)n;
	}
	keep_or_drop(sp, seg, first, mask, in);
	return ok || sp->gone;
}

void bring_ahead(struct space *sp, struct segment *seg, uint64_t page)
{
	bool next = !(sp->run->opts.without & READ_AHEAD) && sp->last_in_area == seg->area &&
		    page >= sp->last_in_page && page < sp->last_in_page + 4 * sp->run->opts.cluster;

	sp->run_length = next ? sp->run_length + 1 : 0;
	for (unsigned k = 0; next && k < 2 && sp->run_length > 1 && !sp->gone; k++) {
		const uint8_t *p;

		while (page < seg->page + (seg->end - seg->start) / AGENT_PAGE &&
		       (p = space_page(sp, seg->area, page)) && (*p & PAGE_STATE) == PAGE_RESIDENT)
			page++;
		p = space_page(sp, seg->area, page);
		if (page >= seg->page + (seg->end - seg->start) / AGENT_PAGE || !p ||
		    (*p & PAGE_STATE) != PAGE_OUT ||
		    run_total(sp->run) + sp->run->opts.cluster * AGENT_PAGE >
			    run_goal_high(sp->run))
			break;
		bring_in(sp, seg, page, true);
	}
	sp->last_in_area = seg->area;
	sp->last_in_page = page;
}
