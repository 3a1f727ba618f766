/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The books of a fork's child: the same segments and areas, and a clone of the pool.
 * See space.h.
 */
#include "frontswap/pager/run.h"
#include "frontswap/pager/space_internal.h"

#include "os/mem.h"

#include <errno.h>
#include <string.h>

#define CLONE_RAISES 8u /* by a half each */

static int copy_areas(struct space *to, const struct space *from)
{
	to->areas = os_zalloc((from->nareas + 1) * sizeof(*to->areas));
	if (!to->areas)
		return -ENOMEM;
	to->areas_size = from->nareas + 1;
	to->nareas = from->nareas;
	for (uint32_t a = 0; a < from->nareas; a++) {
		struct area *src = &from->areas[a], *dst = &to->areas[a];

		*dst = (struct area){.first = src->first,
				     .end = src->end,
				     .mapped = src->mapped,
				     .emptied = src->emptied};
		if (!src->mapped) { /* slots of the parent's, or its queues, may name it still */
			to->ended_areas++;
			continue;
		}
		if (!src->nchunks)
			continue;
		dst->chunks = os_zalloc(src->nchunks * sizeof(*dst->chunks));
		if (!dst->chunks)
			return -ENOMEM;
		dst->nchunks = src->nchunks;
		for (uint32_t i = 0; i < src->nchunks; i++) {
			struct chunk *c;

			if (!src->chunks[i] || !src->chunks[i]->mapped)
				continue;
			c = dst->chunks[i] = space_chunk_create(to->run, dst, i);
			if (!c)
				return -ENOMEM;
			c->mapped = src->chunks[i]->mapped;
			memcpy(c->page, src->chunks[i]->page, c->pages * sizeof(c->page[0]));
			for (unsigned p = 0; p < c->pages; p++) {
				/* What is TRANSIT yet the store refused; the caller
				 * copies it into the child. */
				if ((c->page[p] & PAGE_STATE) == PAGE_TRANSIT)
					c->page[p] = PAGE_ABSENT;
				c->page[p] &= PAGE_STATE | PAGE_POOR | PAGE_REMOVED | PAGE_KEPT;
				c->out += page_counted(c->page[p]);
				c->away += page_away(c->page[p]);
				/* I9, page by page: what left since the area was emptied,
				 * and is in no store, the child is given as well. */
				c->place[p].emptied = src->chunks[i]->place[p].emptied;
				/* A mapping in which nothing was ever written a fork does
				 * not copy: its zeros may be there, or not. */
				if (src->chunks[i]->page[p] & PAGE_ZERO)
					c->place[p].emptied = 1;
			}
			c->together = src->chunks[i]->together;
			c->verdicts = src->chunks[i]->verdicts;
			if (!src->chunks[i]->print)
				continue;
			c->print = os_alloc(c->pages * sizeof(*c->print));
			if (!c->print)
				return -ENOMEM;
			memcpy(c->print, src->chunks[i]->print, c->pages * sizeof(*c->print));
		}
	}
	return 0;
}

/*
 * A clone takes 24 bytes a page, and is not to be refused: the child is there
 * already. So the store may have more than its limit for it; what is over is
 * reported as any excess is, and taken back when clones have gone (host.c).
 */
static tmem_pool clone_pool(struct run *r, tmem_pool pool)
{
	tmem_pool clone;

	for (unsigned i = 0;; i++) {
		tmem_stats st = {.size = sizeof(st)};

		clone = tmem_pool_clone(r->client, pool);
		if (clone != -ENOMEM || i == CLONE_RAISES || tmem_host_stats(r->host, &st) < 0 ||
		    tmem_host_set_limit(r->host, st.limit_bytes + st.limit_bytes / 2) < 0)
			return clone;
	}
}

struct space *space_fork(struct space *parent, int uffd)
{
	tmem_pool pool = clone_pool(parent->run, parent->pool);
	struct space *sp = pool >= 0 ? space_create(parent->run, uffd, pool) : NULL;

	if (!sp)
		goto fail;
	sp->segs = os_alloc((parent->nsegs + 1) * sizeof(*sp->segs));
	if (!sp->segs || copy_areas(sp, parent) < 0)
		goto fail;
	sp->segs_size = parent->nsegs + 1;
	sp->nsegs = parent->nsegs;
	if (sp->nsegs)
		memcpy(sp->segs, parent->segs, sp->nsegs * sizeof(*sp->segs));
	for (uint32_t i = 0; i < sp->nsegs; i++)
		sp->segs[i].settled = 0;
	sp->identity = parent->identity;
	sp->own_start = parent->own_start;
	sp->own_end = parent->own_end;
	sp->family = parent->family;
	sp->guards = space_guards(parent);
	sp->frees = space_frees(parent);
	memcpy(sp->early, parent->early, sizeof(sp->early));
	sp->early_next = parent->early_next;
	sp->parent_pid = parent->pid;
	sp->together = parent->together;
	sp->apart = parent->apart;
	atomic_store(&sp->managed, atomic_load(&parent->managed));
	for (uint32_t a = 0; a < sp->nareas; a++)
		for (uint32_t c = 0; c < sp->areas[a].nchunks; c++)
			if (sp->areas[a].chunks[c])
				sp->cold.inherited += sp->areas[a].chunks[c]->away;
	sp->forked = true;
	parent->forked = true;
	return sp;
fail:
	if (sp) {
		sp->uffd = -1;
		space_free(sp);
	}
	if (pool >= 0)
		tmem_pool_destroy(parent->run->client, pool);
	return NULL;
}
