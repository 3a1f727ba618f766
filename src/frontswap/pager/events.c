/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The order of events: what happened, told out of order.
 *
 * The kernel changes mappings under its lock and queues the event after it has
 * let go of it. So two threads that free and move mappings at once have their
 * events read in any order, and the addresses that one gives up the other gets
 * within the same microsecond:
 *
 *      thread 1   munmap(A)               -> UNMAP(A)             read second
 *      thread 2   mremap(Y), gets A       -> REMAP(Y to A)        read first
 *
 * Taken as they come, Y's pages would be dropped by the UNMAP; and a mremap
 * alone has two events, REMAP(A to D) and, after its caller was woken from that
 * one, UNMAP(A), which by then may speak of addresses that hold Y.
 *
 * What the kernel did can be told from the books, because mappings do not
 * overlap: the place a mapping moved to was free then.
 *
 *   I1  A segment at the new place of a REMAP: the event that frees the place
 *       is still to be read. The REMAP is deferred until then.
 *   I2  A REMAP from A is followed by one UNMAP of just that range, which tells
 *       nothing new (with MREMAP_DONTUNMAP by none; at the next quiet point it
 *       is no longer expected).
 *   I3  Deferred, or expected => some event is unread or its caller not yet
 *       awake: the kernel answers EAGAIN to COPY, ZEROPAGE and MOVE. So no page
 *       comes or goes by books that are behind. But for two REMAPs, the second
 *       read first, of which that one waits for a place that the other gives up:
 *       they are told from two in a row (Y to A, and from there to D) by nothing
 *       but that all has been read. So a fault is served when nothing is deferred.
 *       Nor is anything else done that asks at which address a page is.
 *   I4  quiet => nothing is deferred, nothing is expected.
 *   I5  A segment is added at a quiet point only (maps.c): it is true then.
 *
 * FORK goes first of a batch: what another thread did to its mappings before
 * the fork, the child cannot know the result of; what it did after, it did not
 * do to the child.
 */
#include "frontswap/pager/run.h"
#include "frontswap/uffd.h"

#include "os/mem.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>

/* Room for one more element of an array. */
static bool grow(struct space *sp, void **at, uint32_t n, uint32_t *size, size_t each)
{
	uint32_t more = *size ? *size * 2 : 16;
	void *p;

	if (n < *size)
		return true;
	p = more <= RUN_WAITING_MAX ? os_alloc(more * each) : NULL;
	if (!p) {
		pager_fail(sp, "out of memory for events");
		return false;
	}
	if (n)
		memcpy(p, *at, n * each);
	os_free(*at);
	*at = p;
	*size = more;
	return true;
}

static void expect_unmap(struct space *sp, uint64_t start, uint64_t end)
{
	if (grow(sp, (void **)&sp->expected, sp->nexpected, &sp->expected_size,
		 sizeof(*sp->expected)))
		sp->expected[sp->nexpected++] = (struct range){start, end};
}

static bool was_expected(struct space *sp, uint64_t start, uint64_t end)
{
	for (uint32_t i = 0; i < sp->nexpected; i++) {
		if (sp->expected[i].start == start && sp->expected[i].end == end) {
			sp->expected[i] = sp->expected[--sp->nexpected];
			return true;
		}
	}
	return false;
}

/* Whether an event is of what one of those deferred before it has moved there. */
static bool follows(const struct space *sp, const struct moved *m, uint32_t before)
{
	for (uint32_t i = 0; i < before; i++) {
		const struct moved *d = &sp->deferred[i];

		if (d->len && m->from < d->to + d->len && d->to < m->end)
			return true;
	}
	return false;
}

/* Whether an event must wait: for its new place to be free, or for one deferred before it. */
static bool must_wait(struct space *sp, const struct moved *m, uint32_t before)
{
	return follows(sp, m, before) || (m->len && space_any(sp, m->to, m->to + m->len));
}

static void apply(struct space *sp, const struct moved *m)
{
	sp->changes++;
	if (!m->len)
		space_drop_range(sp, m->from, m->end, false);
	else if (space_remap(sp, m->from, m->to, m->len) < 0)
		pager_fail(sp, "out of memory for segments");
}

static void apply_deferred(struct space *sp, uint32_t i)
{
	struct moved m = sp->deferred[i];

	sp->ndeferred--;
	memmove(&sp->deferred[i], &sp->deferred[i + 1], (sp->ndeferred - i) * sizeof(m));
	apply(sp, &m);
}

/* Deferred events whose time has come. */
static void retry(struct space *sp)
{
	for (uint32_t i = 0; i < sp->ndeferred;) {
		if (must_wait(sp, &sp->deferred[i], i)) {
			i++;
		} else {
			apply_deferred(sp, i);
			i = 0;
		}
	}
}

static bool overlap(const struct moved *a, const struct moved *b)
{
	return a->from < b->end && b->from < a->end;
}

/* The first of the deferred REMAPs, from i on, that could have happened: its new place is free. */
static uint32_t next_settled(struct space *sp, uint32_t i)
{
	for (; i < sp->ndeferred; i++) {
		const struct moved *d = &sp->deferred[i];

		if (d->len && !space_any(sp, d->to, d->to + d->len))
			break;
	}
	return i;
}

/*
 * All has been read, and some still wait. Then it is not an UNMAP that frees the place which the
 * first is to have, but a REMAP that was read after it, and taken for one of what comes there: the
 * place that one goes to is free. Where two of the same range could be it, one of them is of what
 * came there later, and nothing tells which: then the process ends, for either choice may give one
 * mapping's pages to the other.
 */
static void settle(struct space *sp)
{
	while (sp->ndeferred && !sp->gone) {
		uint32_t n = sp->ndeferred, i = next_settled(sp, 0), k = i;

		while (i < n && (k = next_settled(sp, k + 1)) < n)
			if (overlap(&sp->deferred[i], &sp->deferred[k])) {
				pager_fail(sp, "it moved several mappings at once, and which went "
					       "where cannot be told");
				return;
			}
		/* None: not by I3; the kernel's word, then, against our books. */
		apply_deferred(sp, i < n ? i : 0);
		retry(sp);
	}
}

static void take(struct space *sp, const struct moved *m)
{
	if (!must_wait(sp, m, sp->ndeferred)) {
		apply(sp, m);
		retry(sp);
	} else if (grow(sp, (void **)&sp->deferred, sp->ndeferred, &sp->deferred_size,
			sizeof(*sp->deferred))) {
		sp->deferred[sp->ndeferred++] = *m;
	}
}

void events_remap(struct space *sp, uint64_t from, uint64_t to, uint64_t len)
{
	expect_unmap(sp, from, from + len);
	take(sp, &(struct moved){.from = from, .end = from + len, .to = to, .len = len});
	sp->maps_dirty = true;
}

void events_remove(struct space *sp, uint64_t start, uint64_t end)
{
	take(sp, &(struct moved){.from = start, .end = end});
}

/*
 * What is unmapped, but for what our books still have there and a REMAP that is deferred has moved
 * away: that was mapped, all of it, when it moved, so this speaks of what came there later.
 */
static void unmap(struct space *sp, uint64_t start, uint64_t end, uint32_t i)
{
	for (; i < sp->ndeferred; i++) {
		const struct moved *m = &sp->deferred[i];

		if (m->len && m->from < end && start < m->end && !follows(sp, m, i)) {
			uint64_t from = m->from, to = m->end;

			if (start < from)
				unmap(sp, start, from, i + 1);
			if (to < end)
				unmap(sp, to, end, i + 1);
			return;
		}
	}
	space_drop_range(sp, start, end, true);
}

void events_unmap(struct space *sp, uint64_t start, uint64_t end)
{
	if (!was_expected(sp, start, end))
		unmap(sp, start, end, 0);
	retry(sp);
	sp->maps_dirty = true;
}

bool events_quiet(struct space *sp)
{
	struct uffdio_zeropage z = {.range = {0, 0}};

	/* EAGAIN comes before the range is looked at. */
	if (ioctl(sp->uffd, UFFDIO_ZEROPAGE, &z) == 0 || errno == EAGAIN)
		return false;
	sp->nexpected = 0;
	settle(sp);
	return !sp->gone;
}

/* Callers of events that were read need a moment to go on. */
bool events_quiet_soon(struct space *sp)
{
	for (unsigned i = 0; i < 20; i++) {
		if (events_quiet(sp))
			return true;
		sched_yield();
	}
	return false;
}

bool events_inherit(struct space *child, const struct space *parent)
{
	uint32_t n = parent->ndeferred;

	if (!n)
		return true;
	child->deferred = os_alloc(n * sizeof(*child->deferred));
	if (!child->deferred)
		return false;
	memcpy(child->deferred, parent->deferred, n * sizeof(*child->deferred));
	child->ndeferred = child->deferred_size = n;
	settle(child);
	return true;
}
