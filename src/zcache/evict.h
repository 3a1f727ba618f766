/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eviction: which page goes next.
 *
 * Every evictable zpage has an *entry* of 8 bytes in a queue of its client:
 *
 *    63       50  49  48     38 37  32 31                 0
 *   +-----------+---+---------+------+---------------------+
 *   |   time    |imm|  stamp  | slot |        leaf         |
 *   +-----------+---+---------+------+---------------------+
 *
 * An entry must outlive what it names: zpages move and go, leaves go and come
 * back as others. So it names a place in the index, and the words there carry
 * the same stamp: 11 bits drawn when they were linked. A word that does not
 * carry it is another page's, and the entry is *stale*: skipped when its turn
 * comes, or swept out before. One in 2048 stale entries fits a word that it
 * was not made for; then a page goes early that may go at any time.
 * A same-filled page has no room for a stamp, so its entry (imm) fits any
 * same-filled page at its place.
 *
 * `slot` is where place 0 of the zpage is; one entry stands for the whole zpage.
 *
 * A set of queues (struct zc_evict) belongs to a client, or to a pool that
 * several clients share. What happens in it is a *policy's* business: a table
 * of functions, chosen for the host by name.
 *
 *   lru      one queue, oldest first. A page that was got and stayed has
 *            another turn (second chance). Where a get removes, which is the
 *            rule for private ephemeral pools, this is exactly least recently
 *            used: what was used is not there.
 *   s3fifo   small, main and ghost queue: a page that is not asked for again
 *            soon leaves by the small queue and does not push out what is; and
 *            of a loop that is too large a part stays (evict_s3fifo.c).
 *
 * Worth. What a page costs to have again is known to who puts it, and not to the
 * queues: so pages of unlike cost are in sets of their own, and which set the next
 * victims of a client come from is decided as GreedyDual does (Young, "On-line
 * caching as cache size varies", SODA 1991; Cao and Irani, USITS 1997). There a page
 * comes with a credit of its worth above that of the last victim, and the one with
 * the least goes. In a queue credits stand in order, from the head's to that of who
 * comes now; so one number for a set, the head's credit, is enough, and each victim
 * raises it by worth / entries: among sets that are all used, pages go at rates that
 * are as 1 / worth, and what is never asked for goes in the end, whatever its worth.
 *
 * Invariants
 *   E1  every word linked in a pool with a set, and not being linked or
 *       evicted at this moment, is named by an entry of that set
 *   E2  set.pages = words in the pools of the set
 *   E3  fifo.entries = sum of (n - first) over its chunks
 *   E4  a push of a new entry leaves policy.fifos spare chunks, so that a turn
 *       of the queues, which pops before it pushes, needs no memory
 *
 * Locks: set.lock is a leaf: no other is taken inside. Chunks are allocated and
 * freed outside of it.
 */
#ifndef TMEM_ZCACHE_EVICT_H
#define TMEM_ZCACHE_EVICT_H

#include "alloc/arena.h"
#include "index/index.h"
#include "os/lock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct tmem_host;
struct tmem_client;
struct zc_slot;
struct zc_thread;
struct zc_evict;

/* ---- entries -------------------------------------------------------------- */

struct zc_entry {
	arena_id leaf;
	uint8_t slot;	/* of place 0 */
	bool immediate; /* a same-filled page: no stamp */
	uint16_t stamp;
	uint64_t ms; /* came in, not before this; exact to ZC_TIME_UNIT_MS */
};

#define ZC_STAMP_BITS	 11
#define ZC_STAMP_MASK	 ((1u << ZC_STAMP_BITS) - 1)
#define ZC_TIME_UNIT_MS	 64u
#define ZC_CHUNK_ENTRIES 508u

/* One item of host->chunks. Guarded by the lock of its set. */
struct zc_chunk {
	arena_id next;	   /* towards the newer end; in a list of spares: the next spare */
	uint16_t first, n; /* entries first .. n-1 are there */
	uint64_t base_ms;  /* the entries' times count from here */
	uint64_t newest_ms;
	uint64_t spare;
	uint64_t entry[ZC_CHUNK_ENTRIES];
};
_Static_assert(sizeof(struct zc_chunk) == 4096, "a frame");

struct zc_fifo {
	arena_id head, tail;
	uint64_t entries;
};

/* ---- policies ------------------------------------------------------------- */

#define ZC_FIFOS_MAX 2
#define ZC_EVICT     (-1)

struct zc_policy {
	const char *name;
	unsigned fifos; /* used: 1..ZC_FIFOS_MAX */
	bool by_name;	/* it looks at names; else they are not worked out, and are 0 */
	/* Which queue a new entry joins. name: hash of the handle. Under set.lock. */
	unsigned (*admit)(struct zc_evict *ev, uint32_t name);
	/* Which queue the next victim comes from; one at least has entries. Under set.lock. */
	unsigned (*choose)(struct zc_evict *ev);
	/*
	 * A victim from queue `from` that was seen *seen times: ZC_EVICT, or the
	 * queue that it joins again, with *seen set to what it shall show then.
	 * No lock.
	 */
	int (*judge)(unsigned from, unsigned *seen);
	/*
	 * It was evicted from `from`, or (from = ZC_EVICT) taken out by a get. May take
	 * set.lock. NULL: no interest.
	 */
	void (*gone)(struct zc_evict *ev, int from, uint32_t name);
	/* The queues have grown by a chunk. May allocate. NULL: no interest. */
	void (*grow)(struct zc_evict *ev);
	/* Free what an empty set does without. Takes set.lock. NULL: nothing. */
	void (*trim)(struct zc_evict *ev);
};

/* NULL: unknown. zc_policy_names(): those known, comma separated. */
const struct zc_policy *zc_policy_find(const char *name);
const char *zc_policy_names(void);
extern const struct zc_policy zc_policy_lru, zc_policy_s3fifo;

/* ---- sets ------------------------------------------------------------------ */

struct zc_ghosts;

/* What a set is for. */
enum zc_class {
	ZC_EPHEMERAL,  /* evicted: the page goes */
	ZC_PERSISTENT, /* candidates for the overflow file; only kept while that is on */
};

/* The sets of a client. */
enum zc_set {
	ZC_SET_EPHEMERAL,
	ZC_SET_COSTLY, /* ephemeral as well, of pools with TMEM_POOL_COSTLY */
	ZC_SET_PERSISTENT,
	ZC_SETS,
};

/* What a page of the set is worth: one of worth 16 goes a sixteenth as readily as one of 1. */
#define ZC_WORTH_PLAIN	1u
#define ZC_WORTH_COSTLY 16u

struct zc_evict {
	struct os_mutex lock;
	struct tmem_host *host;
	struct tmem_client *client; /* whose pages these are */
	const struct zc_policy *policy;
	enum zc_class cls;
	unsigned worth;
	/* Guarded by lock. */
	struct zc_fifo fifo[ZC_FIFOS_MAX];
	arena_id spare; /* list of empty chunks */
	unsigned spares;
	unsigned sweep_fifo; /* where sweeping goes on: behind chunk sweep_at (0: at the head) */
	arena_id sweep_at;
	uint32_t pushes;
	uint32_t turns;		  /* s3fifo */
	struct zc_ghosts *ghosts; /* s3fifo, or NULL */
	/* Without it. */
	_Atomic uint64_t pages;	    /* E2 */
	_Atomic uint64_t entries;   /* over all queues */
	_Atomic uint64_t oldest_ms; /* when the oldest entry came, about */
	/* host->sets, under host->sets_lock. */
	struct zc_evict *next, *prev;
	uint64_t credit; /* of the next victim, in 2^-32; 0: it was empty when last looked at */
	unsigned users;
	bool listed;
};

/* A set that nobody uses yet. No failure. */
void zc_evict_init(struct zc_evict *ev, struct tmem_host *h, struct tmem_client *c,
		   enum zc_class cls, unsigned worth);
/* Frees the entries, after waiting for those who evict from it. Its pools must be empty. */
void zc_evict_exit(struct zc_evict *ev);

/* A new stamp, already in its place in a word. */
uint64_t zc_stamp_draw(struct zc_thread *t);
/* A hash of the handle, for policies that remember names. */
uint32_t zc_name_hash(const struct zc_slot *s, const struct index_oid *oid, uint64_t index);
/* The same where the set's policy wants it; else 0. */
static inline uint32_t zc_policy_name(const struct zc_evict *ev, const struct zc_slot *s,
				      const struct index_oid *oid, uint64_t index)
{
	return ev->policy->by_name ? zc_name_hash(s, oid, index) : 0;
}
/* Tell the policy that a page has gone; see there. */
static inline void zc_policy_gone(struct zc_evict *ev, int from, uint32_t name)
{
	if (ev->policy->gone)
		ev->policy->gone(ev, from, name);
}

/*
 * Queue the words p[0..n-1] that were linked at slot, slot+1, ... of a leaf; one
 * entry for each zpage and each same-filled page. p[i].word == 0 and not
 * immediate: nothing there. oid and base (index of slot 0) are for the policy.
 * 0; -ENOMEM: some may be queued, the caller takes the words out again.
 * Takes set.lock and the arena's; no shard may be held.
 */
int zc_enqueue(struct zc_slot *s, arena_id leaf, const struct index_oid *oid, uint64_t base,
	       unsigned slot, unsigned n, const struct pampd *p)
	__attribute__((warn_unused_result));
/*
 * The next candidate, taken out of its queue. young_ms: not one that may have
 * come in at or after it (UINT64_MAX: any). False: none. It may be stale.
 */
bool zc_dequeue(struct zc_evict *ev, uint64_t young_ms, struct zc_entry *e, unsigned *from);
/* Put back what zc_dequeue() gave, as the newest of queue `to`. False: no room (E4: seldom). */
bool zc_requeue(struct zc_evict *ev, const struct zc_entry *e, unsigned to);
/* Which words of a locked leaf an entry stands for: bit i, slot e->slot + i. 0: it is stale. */
uint32_t zc_entry_words(const struct index_cursor *c, const struct zc_entry *e);
/* The same by index_peek(): 0 is certain. */
bool zc_entry_stale(const struct tmem_host *h, const struct zc_entry *e);
/* What an empty set keeps for later goes back: chunks, and the policy's; of all sets. */
void zc_evict_trim(struct zc_evict *ev);
void zc_evict_trim_all(struct tmem_host *h);

/* Walk the entries (set.lock is held meanwhile): the sums, and how many words they name. */
int zc_evict_verify(struct zc_evict *ev, uint64_t *named) __attribute__((warn_unused_result));

/* n words left a pool's leaves by anybody's hand (E2). */
void zc_words_left(struct zc_slot *s, unsigned n);

/* ---- the host's list of sets ------------------------------------------------ */

/*
 * The set to take the next victims from: of the client furthest above its weighted share
 * (zc_client_pays_before()) the one with the least credit, or, when only what came in before
 * young_ms is wanted, the one whose next victim is the oldest. Of one client alone, unless it is
 * NULL. Kept from ending until zc_sets_put(); NULL: there is none.
 */
struct zc_evict *zc_sets_pick(struct tmem_host *h, enum zc_class cls,
			      const struct tmem_client *client, uint64_t young_ms);
void zc_sets_put(struct zc_evict *ev);
/* So many zpages of it were evicted: the next one has more credit. */
void zc_sets_took(struct zc_evict *ev, unsigned victims);
/* Keep a set from ending that has a pool which cannot end now. Takes a leaf lock. */
void zc_sets_get(struct zc_evict *ev);

/* ---- reclaim.c ---------------------------------------------------------------- */

/*
 * For the allocator's shrink (zpool.h, evict): give up the zpage at z if all its
 * words are ephemeral and in one leaf, and nobody asked for it lately.
 */
bool zc_evict_zpage(void *ctx, uint64_t handle, void *z, size_t size);

/* Why pages were evicted; one counter each, ZC_EVICTED + why. */
enum zc_why {
	ZC_WHY_EPHEMERAL,  /* a put into an ephemeral pool: eph_ate_tail */
	ZC_WHY_PERSISTENT, /* into a persistent one: pers_ate_eph */
	ZC_WHY_SHRINK,	   /* tmem_host_shrink() */
	ZC_WHY_TARGET,	   /* the soft target */
	ZC_WHY_IDLE,	   /* tmem_host_age() */
	ZC_WHY_PRESSURE,   /* the machine is short of memory */
	ZC_WHY_DRIVER,	   /* the allocator's own shrink */
	ZC_WHY_QUOTA,	   /* a put of a client at its own limit */
	ZC_WHYS,
};
struct zc_want {
	enum zc_why why;
	uint64_t pages, bytes;	    /* stop when either is reached; bytes: compressed, freed */
	uint64_t young_ms;	    /* only what came in before; UINT64_MAX: anything */
	struct tmem_client *client; /* only his; NULL: anybody's */
};
struct zc_got {
	uint64_t pages, bytes;
};
/* Evict ephemeral pages, oldest first over all clients. No lock above the emergency's. */
void zc_evict(struct tmem_host *h, struct zc_thread *t, const struct zc_want *w,
	      struct zc_got *got);
/* Evict and compact until `frames` fewer are in use, or it does no good. Frames given back. */
int zc_shrink(struct tmem_host *h, uint64_t frames, enum zc_why why, uint64_t *reclaimed);
/* A put of n pages comes while more than the soft target is in use: evict more than it brings. */
void zc_evict_to_target(struct tmem_host *h, struct zc_thread *t, unsigned n);
/*
 * Room for a put that was refused memory: evict, a little more each round, and
 * move together what is left; of the client alone, if it is its own limit that
 * refused (NULL: of anybody). False: there is nothing more to evict.
 */
bool zc_evict_for_put(struct tmem_host *h, struct zc_thread *t, struct tmem_client *client,
		      bool persistent, size_t need, unsigned round);

#endif
