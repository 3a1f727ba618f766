/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What comes in with a page.
 *
 * Neighbours are stored together, so a page that is wanted has its neighbours
 * decompressed anyway. Bringing all of them in saves their faults when they are
 * wanted soon, and is bad when they are not: they push out eight times as much as
 * was asked for. Programs do both, in different regions: a hash table is asked for
 * single pages, the log beside it is read through. So each chunk of 2 MiB has an
 * estimate of what part of its neighbours is wanted, too, and learns:
 *
 *    fault on a page that is out
 *      estimate high: all of its cluster come, but one time in PROBE, to see
 *      else: it comes alone, and a window opens for its cluster
 *    faults on other pages of a cluster with a window
 *      within SOON: these were asked for; the third has the rest come
 *      later: the window is over, and as above
 *    a page of the cluster leaves: the window is over
 *
 * A window that is over says what part of the mates was asked for in it, or all when
 * the rest came. "Whether any was" is no answer: of a compiler's pages one in eight is
 * wanted, one mate of seven soon follows, and six come and go for it; it took
 * half as long again (docs/figures.md).
 *
 * SOON, and not "before it leaves": where pages are wanted at random, all over, a
 * neighbour is wanted before a page leaves more often than not, since a page stays
 * for as long as it takes to bring in all others. But no sooner than any other
 * page, and then nothing is gained by having it here.
 *
 * What comes leaves the store, but for what another process has there, too (keep.c).
 * A cluster of which some came and others did not is held whole, the dead in vain:
 *
 *   B1  a page comes in => it is KEPT if somebody else has the cluster, and else no
 *       longer in the store
 *   B2  the last one has come, and nobody else has it => the cluster is freed
 *   B3  a quarter of the cluster is dead => all come. They are stored with what they
 *       leave with, and the dead are not held any longer: where a program writes here
 *       and there to more than fits, the store is a fifth smaller (docs/figures.md).
 *   B4  what comes by B3, and not soon after the first of its cluster, leaves by itself
 *
 * A cluster that falls apart slowly was three faults, each of which decompressed half of it, and
 * was denser only meanwhile. Its pages are stored together again when they are asked for together
 * (victims.c). Where nearly all clusters of a program end so (`apart`), pages that were never out
 * leave by themselves, too; but one block in APART_PROBE is stored as a cluster, to see. What is at
 * rest is packed later (idle.c).
 *
 * A fault costs 40 us or so beside the decompression, a guest in vain 20 for coming,
 * leaving and being compressed again, and the room of a page for its time. So guests of
 * which two in five are wanted pay: that is the THRESHOLD; half as much or twice made
 * little difference but for the compiler.
 */
#include "frontswap/pager/run.h"
#include "frontswap/uffd.h"

#include <errno.h>
#include <sys/ioctl.h>

#define PROBE	       64u
#define SOON	       64u    /* faults */
#define ENOUGH	       3u     /* mates asked for */
#define VERDICTS_LEAST 4u     /* of a chunk, before its own estimate is used */
#define THRESHOLD      100u   /* of 255 */
#define APART	       57344u /* seven eighths of 65536 */
#define APART_WEIGHT   64
#define APART_PROBE    16u

static uint8_t moved(int estimate, int to)
{
	return (uint8_t)(to > estimate ? estimate + (to - estimate + 7) / 8
				       : estimate - (estimate - to + 7) / 8);
}

static struct window *window_of(const struct space *sp, struct chunk *c, uint64_t page)
{
	return &c->window[page % CHUNK_PAGES / sp->run->opts.cluster];
}

/* The end of a cluster: its pages were wanted together, or not. */
static void fell(struct space *sp, bool together)
{
	if (together)
		sp->apart -= sp->apart / APART_WEIGHT;
	else
		sp->apart += (UINT16_MAX - sp->apart) / APART_WEIGHT;
}

bool bring_apart(struct space *sp)
{
	/* What has been cold for long is not expected back. */
	return !(sp->run->opts.without & STORED_APART) && !sp->cold.turn && sp->apart >= APART &&
	       sp->apart_probes++ % APART_PROBE != 0;
}

/* A window ends: what part of the mates it has shown to be wanted. */
static void close_window(struct space *sp, struct chunk *c, struct window *w)
{
	/* Those that were on their way out when it began are asked for, too, but not counted. */
	int part = w->asked >= ENOUGH || w->asked >= w->mates ? UINT8_MAX
							      : w->asked * UINT8_MAX / w->mates;

	w->alone = 0;
	if (!w->again)
		fell(sp, part == UINT8_MAX);
	if (!c->verdicts)
		c->together = sp->together;
	if (c->verdicts < VERDICTS_LEAST)
		c->verdicts++;
	c->together = moved(c->together, part);
	sp->together = moved(sp->together, part);
}

void bring_left(struct space *sp, struct chunk *c, uint64_t page)
{
	struct window *w = window_of(sp, c, page);

	if (w->alone)
		close_window(sp, c, w);
}

static bool is_open(const struct space *sp, const struct window *w)
{
	return w->alone && (uint16_t)(sp->brought - w->alone) <= SOON;
}

/* B3: the rest comes, and the window shows nothing more. With whom it is to leave (B4). */
static enum with rest_comes(struct space *sp, struct window *w)
{
	bool soon = is_open(sp, w) && !w->again;

	if (w->alone && !w->again)
		fell(sp, soon);
	w->alone = 0;
	return soon || sp->run->opts.without & STORED_APART ? WITH_COMPANY : WITH_NONE;
}

/*
 * Whether the mates of a page that is wanted, which are out, are to come along; whole: all pages
 * of its cluster are still in it.
 */
static bool mates_come(struct space *sp, struct chunk *c, uint64_t page, uint32_t mates, bool whole)
{
	struct window *w = window_of(sp, c, page);
	bool open = is_open(sp, w);

	if (open && w->asked < ENOUGH)
		w->asked++;
	if (w->alone && (!open || w->asked == ENOUGH || !mates))
		close_window(sp, c, w);
	if (!mates || (open && w->asked == ENOUGH) || sp->run_length > 1 ||
	    sp->run->opts.without & LEARN_NEIGHBOURS)
		return true;
	if (w->alone)
		return false;
	if ((c->verdicts < VERDICTS_LEAST ? sp->together : c->together) >= THRESHOLD &&
	    sp->probes++ % PROBE != 0)
		return true;
	w->alone = sp->brought;
	w->asked = 0;
	w->again = !whole;
	w->mates = (uint8_t)mates;
	return false;
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

/* B1, B2, B4 for the pages of `in`, just copied from sp->buf. */
static void keep_or_drop(struct space *sp, const struct segment *seg, uint64_t first, uint32_t mask,
			 uint32_t in, enum with next)
{
	struct run *r = sp->run;
	uint32_t here, goes = 0;
	uint64_t index;
	tmem_oid oid;

	if (!in)
		return;
	space_oid(seg->area, first + (uint32_t)__builtin_ctz(in), &oid, &index);
	if (!(sp->forked && tmem_page_shared(r->client, sp->pool, &oid, index) > 0))
		goes = still_out(sp, seg, first, mask, &here) ? in : mask;
	for (uint32_t m = in & ~goes; m; m &= m - 1) {
		uint32_t i = (uint32_t)__builtin_ctz(m);

		if (!keep(sp, seg->area, first + i, 1, sp->buf + (size_t)i * AGENT_PAGE))
			goes |= 1u << i;
	}
	for (uint32_t i = 0, n; goes >> i; i += n) {
		for (n = 0; goes >> (i + n) & 1; n++) {
			struct chunk *c = space_chunk(sp, seg->area, first + i + n, false);
			uint64_t at = (first + i + n) % CHUNK_PAGES;

			if (!c)
				continue;
			space_set_page(c, at, c->page[at] & (uint8_t)~PAGE_KEPT);
			c->place[at].with = in >> (i + n) & 1 ? next : WITH_COMPANY;
		}
		if (n) {
			space_oid(seg->area, first + i, &oid, &index);
			tmem_invalidate_range(r->client, sp->pool, &oid, index, n);
		}
		n += !n;
	}
}

/*
 * With how many a page was compressed: as many as it left with, or, where idle pages were
 * packed together since (idle.c), at least as many as to the last of them.
 */
static unsigned was_with(const struct chunk *c, uint64_t page, uint32_t mask)
{
	unsigned left = c->place[page % CHUNK_PAGES].with + 1u;
	unsigned reach = 32u - (unsigned)__builtin_clz(mask);

	return left > reach ? left : reach;
}

bool bring_in(struct space *sp, struct segment *seg, uint64_t page, bool all)
{
	struct chunk *c = space_chunk(sp, seg->area, page, false);
	struct run *r = sp->run;
	uint32_t mask, here, in = 0;
	uint64_t index, first;
	enum with next = WITH_COMPANY;
	unsigned with, left;
	bool ok = true;
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
	with = was_with(c, page, mask);
	left = (unsigned)__builtin_popcount(mask);
	if (all)
		window_of(sp, c, page)->alone = 0; /* it will show nothing */
	else if (left * 4 <= 3 * with)
		next = rest_comes(sp, window_of(sp, c, page));
	else if (!mates_come(sp, c, page, (uint32_t)__builtin_popcount(here) - 1, left == with))
		here = 1u << (page - first);
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
	keep_or_drop(sp, seg, first, mask, in, next);
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
