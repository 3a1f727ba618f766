/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is known of one address space: its books.
 *
 *   space.c         segments, where in memory its areas are; its beginning and end
 *   space_pages.c   areas, and the states of their pages
 *   space_fork.c    a child's books
 *   space_verify.c  whether all of this is true
 *
 *     address -- segment --> <area, page> -- chunk --> state, place in a queue
 *                              |
 *                              +-- object, index --> the store
 *
 * All of it is called by the space's own pager thread, and takes no lock; space_fork() by
 * the parent's, before the child has one.
 *
 * A page of a space is in one of these states (enum page_state):
 *
 *              first touch, or found present
 *     ABSENT ------------------------------> RESIDENT
 *       ^  ^                                  |    ^ fault: from the store,
 *       |  | REMOVE, UNMAP           victim   |    | or from the slot
 *       |  +---------------------+            v    |
 *       +------------- OUT <---- | ------- TRANSIT-+ refused by the store
 *        REMOVE, UNMAP     stored
 *
 *   I1  OUT       => the pool holds the page, and the program does not
 *   I2  TRANSIT   => exactly one slot names the page
 *   I3  BUSY      => a slot that names the page is not over; it is not a victim
 *   I4  a page is TRANSIT before the agent is told to move it
 *   I5  REMOVED   => it is not a victim (the kernel may be about to zap it)
 *   I6  KEPT      => the pool holds what the page was when it came in last, and
 *                    chunk->print has that content's print. It may have been
 *                    written to since: a kept copy becomes the page again only
 *                    when the page, leaving, was found to have the same print.
 *   I7  chunk->out = pages of it that are OUT, TRANSIT, BUSY or KEPT
 *   I8  chunk->away = pages of it that are OUT or TRANSIT
 *   I9  the program empties a page (REMOVE) => place->emptied, until it leaves.
 *       The kernel does it some time after we are told: what was filled in
 *       meanwhile goes again, and then a page that is RESIDENT may be missing.
 *       If we were told before there was a segment (sp->early), or not at all
 *       (MADV_FREE before it was registered), all that is found has the mark, and in
 *       the first case REMOVED, too: the kernel may be about it.
 *   I10 chunk->mapped = pages of it that segments name, area->mapped likewise
 *   I11 a chunk is there => mapped or out. Without either nothing can come to name
 *       its pages again but entries in queues, which are *dead* then: sp->dead_entries
 *       counts them, and who meets one skips it.
 *   I12 an area is free, to be used again => it has no segment and no chunk, and no
 *       entry in a queue names it (books_sweep() has looked)
 */
#ifndef TMEM_PAGER_SPACE_H
#define TMEM_PAGER_SPACE_H

#include "frontswap/pager/auto.h"

#include <stdbool.h>
#include <stdint.h>
#include <tmem/tmem.h>

struct run;
struct slot;
struct space;

enum page_state {
	PAGE_ABSENT = 0, /* or never looked at */
	PAGE_RESIDENT = 1,
	PAGE_OUT = 2,
	PAGE_TRANSIT = 3,
	PAGE_STATE = 3,	  /* mask */
	PAGE_BUSY = 4,	  /* I3 */
	PAGE_REMOVED = 8, /* I5 */
	PAGE_POOR = 16,	  /* did not compress: leave it alone */
	PAGE_PINNED = 32, /* could not be moved: shared after a fork, or in use by the kernel */
	PAGE_KEPT = 64,	  /* I6 */
	PAGE_ZERO = 128,  /* perhaps the zero page, which a child may not get: see space_fork.c */
};

/* What tells whether a page has changed: XXH3, 128 bits, of its content. See keep.c. */
struct print {
	uint64_t lo, hi;
};

/*
 * Unit of allocation of states. The chunks of an area are as long as it is: V8 maps
 * 256 KiB at a time, and with chunks for eight times as much the books of a Node.js
 * program were an eighteenth of its limit.
 */
#define CHUNK_PAGES 512u

/*
 * A page's place in the queues. A page that leaves takes its neighbours along that
 * came with it; their entries stay in the queue until they come up.
 */
enum queued {
	QUEUED_NOT = 0,
	QUEUED = 1,	  /* one entry */
	QUEUED_STALE = 2, /* one entry, and the page left otherwise */
	QUEUED_AGAIN = 3, /* and came back since: it goes to the end when it comes up */
};
/* How a page that is resident is to be stored, see bring.c. */
enum with {
	WITH_UNKNOWN = 0, /* it was never out */
	WITH_NONE = 1,	  /* by itself */
	WITH_COMPANY = 2, /* with those that came with it */
};
struct place {		/* five bytes: of the books of a page these are most */
	uint32_t stamp; /* resident: sp->arrivals when it came; out: sp->evict_clock; 0: never */
	uint8_t queued : 2;  /* enum queued */
	uint8_t main : 1;    /* came back soon after it had left: to the main queue */
	uint8_t emptied : 1; /* I9 */
	uint8_t with : 4;    /* out, or kept: pages that it was compressed with; else: enum with */
} __attribute__((packed));

/* Of a cluster, see bring.c. */
struct window {
	uint8_t asked : 3; /* mates that were asked for in it */
	uint8_t again : 1; /* not the cluster's first */
	uint8_t mates : 4; /* that were out when it began */
	uint16_t alone;	   /* sp->brought when it began; 0: none */
};

struct chunk {
	uint32_t pages;	     /* that it has: as far as the area goes */
	uint32_t out;	     /* I7: pages that the store holds, or may come to hold */
	uint32_t mapped;     /* I10 */
	struct print *print; /* of KEPT pages; NULL before the first */
	uint8_t together;    /* what part of neighbours is wanted, too, of 255; see bring.c */
	uint8_t verdicts;    /* how many it stands on, up to a few */
	uint16_t away;	     /* pages that are OUT or TRANSIT */
	struct auto_chunk cold;
	/* Of page i of the chunk, i < pages; all three in one block. */
	uint8_t *page;		/* its state */
	struct place *place;	/* where it is in the queues */
	struct window window[]; /* of cluster i / run.opts.cluster */
};

/*
 * An area is a run of pages with names that never change, <area, page>; the
 * store knows pages by these. Segments say at which address it is now: an
 * mremap changes a segment and nothing else.
 */
struct area {
	uint64_t first, end;   /* pages */
	uint64_t mapped;       /* I10 */
	struct chunk **chunks; /* by page / CHUNK_PAGES; NULL until there is one */
	uint32_t nchunks;      /* 0 until then, and from then on all it can have */
	uint32_t live;	       /* chunks that are there */
	uint32_t seg;	       /* segment of it that was found last; free: the next free, + 1 */
	bool emptied;	       /* I9, of chunks that are not there yet */
	bool free;	       /* I12 */
};
#define AREAS_MAX (1u << 24)

/* What is in a queue: <area, page>. */
static inline uint64_t entry_of(uint32_t area, uint64_t page)
{
	return (uint64_t)area << 40 | page;
}

static inline uint32_t entry_area(uint64_t entry)
{
	return (uint32_t)(entry >> 40);
}

static inline uint64_t entry_page(uint64_t entry)
{
	return entry & ((1ull << 40) - 1);
}

struct segment {
	uint64_t start, end; /* bytes */
	uint32_t area;
	uint64_t page;	   /* of the area, at start */
	uint64_t settled;  /* event epoch from which pages of it may be evicted, see pager.c */
	bool guarded;	   /* careful: pages of it may leave, see fork.c */
	uint64_t since_ns; /* careful: moved or grown then */
};

struct space *space_create(struct run *r, int uffd, tmem_pool pool);
void space_free(struct space *sp);
struct segment *space_find(struct space *sp, uint64_t addr);
int space_add_segment(struct space *sp, uint64_t start, uint64_t end);
/* What was emptied too early for a segment is known, for one that holds it has been made (I9). */
void space_early_over(struct space *sp, uint64_t start, uint64_t end);
/* Whether some segment has a part of [start, end). */
bool space_any(struct space *sp, uint64_t start, uint64_t end);
/* The first segment that ends behind addr, or NULL. */
struct segment *space_from(struct space *sp, uint64_t addr);
/* State of a page; NULL when nothing was ever known (then it is ABSENT). */
uint8_t *space_page(struct space *sp, uint32_t area, uint64_t page);
struct chunk *space_chunk(struct space *sp, uint32_t area, uint64_t page, bool create);
/* Change a page's state and keep I7. */
void space_set_page(struct chunk *c, uint64_t page, uint8_t state);
/* Address of a page, 0 when it is mapped nowhere. */
uint64_t space_address(struct space *sp, uint32_t area, uint64_t page);
void space_oid(uint32_t area, uint64_t page, tmem_oid *oid, uint64_t *index);
/* Pages of an address range are gone for good (unmapped) or emptied (still mapped). */
void space_drop_range(struct space *sp, uint64_t start, uint64_t end, bool unmapped);
int space_remap(struct space *sp, uint64_t from, uint64_t to, uint64_t len);
/* The child's copy of everything; its pool is a clone. NULL: no memory. */
struct space *space_fork(struct space *parent, int uffd);
/* Mark n pages from addr resident and queue them. */
enum arrival { ARRIVAL_FRESH, ARRIVAL_STORED, ARRIVAL_FOUND };
void space_mark_resident(struct space *sp, const struct segment *seg, uint64_t addr, uint64_t n,
			 enum arrival how);
/* A page in transit has come back to the program from its slot, which is not over. */
void space_back_from_slot(struct space *sp, const struct segment *seg, uint64_t page,
			  struct slot *sl);
/* A slot is over for a page that was dropped from it: not BUSY any more; its chunk may go. */
void space_slot_over(struct space *sp, uint32_t area, uint64_t page);
/* -EINVAL: I2, I3, I7, I8 or I10 to I12 does not hold, or segments overlap. Of a space that nobody
 * changes. */
int space_verify(struct space *sp);
/* Of pages that are resident: they are, or may be, the kernel's page of zeros. */
void space_mark_zero(struct space *sp, const struct segment *seg, uint64_t addr, uint64_t n);
/* Whether there are MADV_GUARD_INSTALL pages in it, as far as the agent, or a parent's, told. */
bool space_guards(struct space *sp);
/*
 * Whether the program has used MADV_FREE, likewise: what it did so with before there was a segment
 * looks as before, and the kernel may take it without a word (I9).
 */
bool space_frees(struct space *sp);
void space_enqueue(struct space *sp, struct place *at, uint32_t area, uint64_t page);

#endif
