/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which pages leave.
 *
 * The only sight of what a program uses is its faults. Two queues of pages in
 * the manner of S3-FIFO: what comes in for the first time goes to *probation*;
 * what faults back in after fewer evictions than there are resident pages (it
 * would have stayed had memory been twice as large) goes to *main*. Victims
 * come from probation while it holds more than a tenth of all, else from main.
 * A page that is asked for while it is still in its slot comes back from
 * there: a second chance that costs no decompression.
 *
 * With a victim those of its cluster's block leave that came at the same time:
 * stored together, they come back by one fault. Queues of whole blocks would be
 * smaller, but a page in use keeps seven cold ones there, or leaves with them:
 * redis took six times the faults (docs/figures.md).
 */
#include "frontswap/pager/run.h"

#include "os/check.h"
#include "os/clock.h"

#include <sys/mman.h>

#define POOR_NS	      10000000000ull
#define SLOTS_LARGE   8u  /* of AGENT_SLOT_PAGES */
#define SLOT_SMALL    2u  /* pages of the others */
#define COMPANY	      64u /* arrivals: pages of a cluster so close together leave together */
#define SLOTS_IDLE_NS 50000000ull

/* Whether some thread stands on the page (its stack or its TLS). */
static bool excluded(const struct space *sp, uint64_t addr)
{
	if ((addr >= sp->own_start && addr < sp->own_end) ||
	    claim_covers(sp, addr, addr + AGENT_PAGE))
		return true;
	for (unsigned i = 0; i < AGENT_THREADS; i++) {
		const struct agent_thread *t = &sp->shm->threads[i];

		if (atomic_load_explicit(&t->tid, memory_order_relaxed) == AGENT_TID_END)
			return false;
		if (addr >= atomic_load_explicit(&t->start, memory_order_relaxed) &&
		    addr < atomic_load_explicit(&t->end, memory_order_relaxed))
			return true;
	}
	return false;
}

static bool victim(const struct space *sp, uint8_t state, uint64_t addr)
{
	return (state & (PAGE_STATE | PAGE_BUSY | PAGE_REMOVED | PAGE_POOR | PAGE_PINNED)) ==
		       PAGE_RESIDENT &&
	       !excluded(sp, addr);
}

/*
 * Slots are there for a run of pages or for a page that leaves alone; what was touched
 * of their memory counts, so most are only ever used for the latter.
 */
static uint32_t slot_room(unsigned index)
{
	return index < SLOTS_LARGE ? AGENT_SLOT_PAGES : SLOT_SMALL;
}

static struct slot *free_slot(struct space *sp, uint32_t pages, unsigned *index)
{
	for (unsigned k = 0; k < AGENT_SLOTS; k++) {
		unsigned i = (k + (pages <= SLOT_SMALL ? SLOTS_LARGE : 0)) % AGENT_SLOTS;

		if (slot_room(i) >= pages &&
		    atomic_load_explicit(&sp->slots[i].state, memory_order_relaxed) == SLOT_FREE) {
			*index = i;
			return &sp->slots[i];
		}
	}
	return NULL;
}

void evict_slot_free(struct space *sp, struct slot *sl)
{
	sp->flight_pages -= sl->pages;
	sp->slots_busy--;
	atomic_store(&sl->state, SLOT_FREE);
}

/* A slot gets n pages more; its memory counts from when it is first touched. */
static void slot_grow(struct space *sp, struct slot *sl, uint32_t n)
{
	sl->pages += n;
	sp->flight_pages += n;
	if (sl->pages > sl->touched) {
		atomic_fetch_add(&sp->shm_bytes, (uint64_t)(sl->pages - sl->touched) * AGENT_PAGE);
		sl->touched = sl->pages;
	}
}

static bool next_page(struct space *sp, uint64_t *v)
{
	struct queue *first = &sp->probation, *second = &sp->main;

	if (sp->probation.count * 10 < sp->probation.count + sp->main.count) {
		first = &sp->main;
		second = &sp->probation;
	}
	return queue_pop(first, v) || queue_pop(second, v);
}

/* The command that the run at addr can be added to: the last one, when it ends there. */
static struct agent_cmd *last_command(struct space *sp, uint32_t ncmds, uint32_t area,
				      uint64_t page, uint64_t addr, uint32_t n)
{
	struct agent_cmd *cmd = ncmds ? &sp->cmds[ncmds - 1] : NULL;
	const struct slot *sl = cmd ? &sp->slots[cmd->slot] : NULL;

	if (!cmd || sl->area != area || sl->first + sl->pages != page ||
	    sl->pages + n > slot_room(cmd->slot) ||
	    cmd->addr + (uint64_t)sl->pages * AGENT_PAGE != addr)
		return NULL;
	return cmd;
}

static struct agent_cmd *new_command(struct space *sp, uint32_t *ncmds, uint32_t area,
				     uint64_t page, uint64_t addr, uint32_t n)
{
	unsigned index;
	struct slot *sl = *ncmds < AGENT_BATCH ? free_slot(sp, n, &index) : NULL;
	struct agent_cmd *cmd;

	if (!sl)
		return NULL;
	cmd = &sp->cmds[(*ncmds)++];
	*cmd = (struct agent_cmd){.addr = addr, .slot = index};
	sl->area = area;
	sl->first = page;
	sl->pages = sl->moved = sl->dropped = sl->kept = sl->apart = 0;
	sl->stored = sl->unchanged = sl->poor = 0;
	atomic_store(&sl->state, SLOT_MOVING);
	sp->slots_busy++;
	return cmd;
}

/*
 * Slots of a process from which nothing leaves go back to the OS: some megabytes,
 * times the processes of a database server, is more than some of them need.
 */
void evict_slots_return(struct space *sp)
{
	if (!sp->shm_bytes || sp->slots_busy || atomic_load(&sp->shm->done) != sp->command ||
	    os_clock_ns() - sp->last_round_ns < SLOTS_IDLE_NS ||
	    madvise(sp->shm->slots, sizeof(sp->shm->slots), MADV_REMOVE) < 0)
		return;
	for (unsigned i = 0; i < AGENT_SLOTS; i++)
		sp->slots[i].touched = 0;
	atomic_store(&sp->shm_bytes, 0);
}

/* A victim becomes page k of a slot (I4), which learns what a kept copy has. */
static void page_leaves(struct chunk *c, uint64_t page, struct slot *sl, uint32_t k, bool apart)
{
	uint8_t p = c->page[page % CHUNK_PAGES], with = c->place[page % CHUNK_PAGES].with;

	if (p & PAGE_KEPT) {
		sl->kept |= 1u << k;
		sl->print[k] = c->print[page % CHUNK_PAGES];
	} else if (with == WITH_NONE || (with == WITH_UNKNOWN && apart)) {
		sl->apart |= 1u << k;
	}
	space_set_page(c, page, (uint8_t)((p & ~PAGE_STATE) | PAGE_TRANSIT));
}

/*
 * Name pages of a cluster's block in commands, one for each run of neighbours, which
 * blocks that follow each other share. False: no room in the round for all of them.
 */
bool evict_name(struct space *sp, uint32_t area, uint64_t first, uint32_t goes, uint32_t *ncmds,
		uint64_t *pages)
{
	struct chunk *c = space_chunk(sp, area, first, false);
	bool apart = bring_apart(sp);

	for (uint32_t i = 0, n; goes >> i; i += n) {
		uint64_t addr = goes >> i & 1 ? space_address(sp, area, first + i) : 0;
		const struct segment *seg = addr ? space_find(sp, addr) : NULL;
		const uint8_t *p = &c->page[(first + i) % CHUNK_PAGES];
		struct agent_cmd *cmd;

		n = 1;
		if (!seg || seg->area != area || seg->settled > sp->epoch ||
		    (sp->careful && !seg->guarded) || !victim(sp, *p, addr))
			continue;
		while (goes >> (i + n) & 1 && addr + n * AGENT_PAGE < seg->end &&
		       victim(sp, p[n], addr + (uint64_t)n * AGENT_PAGE))
			n++;
		cmd = last_command(sp, *ncmds, area, first + i, addr, n);
		if (!cmd)
			cmd = new_command(sp, ncmds, area, first + i, addr, n);
		if (!cmd)
			return false;
		for (uint32_t k = 0; k < n; k++)
			page_leaves(c, first + i + k, &sp->slots[cmd->slot], cmd->pages + k, apart);
		cmd->pages += n;
		slot_grow(sp, &sp->slots[cmd->slot], n);
		*pages += n;
	}
	return true;
}

/*
 * Who leaves with a page: of its cluster's block those that came when it came, and to
 * the same queue. They were wanted together or not at all, and are stored together.
 */
static uint32_t company(const struct space *sp, const struct chunk *c, uint64_t page)
{
	uint64_t first = page % CHUNK_PAGES & -(uint64_t)sp->run->opts.cluster;
	const struct place *at = &c->place[page % CHUNK_PAGES];
	bool with = !(sp->run->opts.without & COMPANY_LEAVES);
	uint32_t goes = 0;

	for (uint32_t i = 0; i < sp->run->opts.cluster; i++) {
		const struct place *o = &c->place[first + i];

		if (o == at || (with && o->queued == QUEUED && o->main == at->main &&
				o->stamp - at->stamp + COMPANY < 2 * COMPANY))
			goes |= 1u << i;
	}
	return goes;
}

/* Pages leave the queues: the first by its entry, the others' entries are stale. */
static void leave_queues(struct space *sp, struct chunk *c, uint64_t first, uint32_t goes,
			 uint64_t page)
{
	for (uint32_t m = goes; m; m &= m - 1) {
		uint64_t at = first + (uint32_t)__builtin_ctz(m);
		struct place *o = &c->place[at % CHUNK_PAGES];

		/* What of it stays (pinned, poor) comes back by a resync. */
		o->queued = at == page ? QUEUED_NOT : QUEUED_STALE;
		o->main = 0;
		o->stamp = ++sp->evict_clock;
		sp->queued_pages--;
	}
}

void evict_name_victims(struct space *sp, uint64_t want, uint32_t *ncmds)
{
	uint64_t pages = 0, v;
	uint32_t tries = sp->probation.count + sp->main.count;
	uint32_t most = sp->run->opts.without & BATCHES ? 1 : AGENT_BATCH;

	/* The last block may add all of its pages. */
	if (want > AGENT_ROUND + 1 - sp->run->opts.cluster)
		want = AGENT_ROUND + 1 - sp->run->opts.cluster;
	while (pages < want && *ncmds < most && tries-- && next_page(sp, &v)) {
		uint32_t area = entry_area(v), goes;
		uint64_t page = entry_page(v);
		uint64_t first = page & -(uint64_t)sp->run->opts.cluster;
		struct chunk *c = space_chunk(sp, area, page, false);
		struct place *at = c ? &c->place[page % CHUNK_PAGES] : NULL;

		sp->dead_entries -= !c; /* unmapped since */
		if (!at || at->queued == QUEUED_NOT)
			continue;
		if (at->queued != QUEUED) {
			bool again = at->queued == QUEUED_AGAIN;

			at->queued = QUEUED_NOT;
			if (again) {
				sp->queued_pages--;
				space_enqueue(sp, at, area, page);
			}
			continue;
		}
		goes = company(sp, c, page);
		if (!evict_name(sp, area, first, goes, ncmds, &pages)) {
			queue_push_front(at->main ? &sp->main : &sp->probation, v);
			break;
		}
		leave_queues(sp, c, first, goes, page);
		bring_left(sp, c, page);
	}
}

/*
 * Queue every resident page that is on no queue. What could not
 * be moved gets another chance; what did not compress, every ten seconds.
 */
void evict_resync(struct space *sp)
{
	uint64_t now = os_clock_ns();
	uint8_t again = PAGE_PINNED;

	sp->last_resync_ns = now;
#if TMEM_CHECKS >= 2
	tmem_assert(I7, space_verify(sp) == 0);
#endif
	if (now - sp->last_poor_ns > POOR_NS) {
		again |= PAGE_POOR;
		sp->last_poor_ns = now;
	}
	if (sp->forked && !sp->unsharing && unshare_can(sp)) {
		sp->unsharing = true;
		sp->unshare_at = 0;
	}
	for (uint32_t a = 0; a < sp->nareas; a++) {
		for (uint32_t i = 0; i < sp->areas[a].nchunks; i++) {
			struct chunk *c = sp->areas[a].chunks[i];

			for (uint32_t p = 0; c && p < c->pages; p++) {
				struct place *at = &c->place[p];

				c->page[p] &= (uint8_t)~again;
				if ((c->page[p] & (PAGE_STATE | PAGE_REMOVED | PAGE_POOR)) ==
					    PAGE_RESIDENT &&
				    at->queued == QUEUED_NOT)
					space_enqueue(sp, at, a, (uint64_t)i * CHUNK_PAGES + p);
			}
		}
	}
}
