/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * zcache: inside of the host. include/tmem/tmem.h is the way in; this header
 * is for the files of this folder and for front ends in the same process that
 * want a host's codec or thread state.
 *
 * Glossary
 *   zpage     one stored object: a header and compressed bytes. Holds one page,
 *             or a *cluster* of 2..16 neighbours.
 *   word      what an index leaf holds for a page (struct pampd): a same-filled
 *             value (immediate), or kind + place + handle.
 *   place     which page of its zpage a word means, from 0.
 *   reference one for each word that names a zpage: words in leaves, words that
 *             were taken out and not yet dropped, words that a clone carries.
 *
 *    63      53 52 51 50  48 47   44 43                                  0
 *   +----------+-----+------+-------+-------------------------------------+
 *   |  stamp   | seen| kind | place | handle (zpool) or item (overflow)   |
 *   +----------+-----+------+-------+-------------------------------------+
 *               \__ for the eviction queues (evict.h); 0 in pools without __/
 *
 *   The name of what a word means is its low 51 bits: compare words with
 *   zc_word_same(), never as wholes, and keep the high bits when you exchange
 *   the handle.
 *
 * Lock order (os/lock.h): host->lock < {slot->lock, emergency, threads_lock}
 * < zpool's < index's < overflow's.
 */
#ifndef TMEM_ZCACHE_ZCACHE_H
#define TMEM_ZCACHE_ZCACHE_H

#include "alloc/arena.h"
#include "alloc/frames.h"
#include "alloc/zpool.h"
#include "codec/codec.h"
#include "index/index.h"
#include "os/check.h"
#include "os/lock.h"
#include "os/mem.h"
#include "os/thread.h"
#include "tmem/tmem.h"
#include "zcache/evict.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define ZC_PAGE			  TMEM_PAGE_SIZE
#define ZC_CLUSTER_BYTES	  ((size_t)TMEM_CLUSTER_MAX * ZC_PAGE)
#define ZC_MAX_ZSIZE_DEFAULT	  (ZC_PAGE / 8 * 7)
#define ZC_MEAN_ZSIZE_DEFAULT	  (ZC_PAGE / 8 * 5)
#define ZC_ACCEPT_PERCENT_DEFAULT 90
#define ZC_CHUNKS_MAX		  (1u << 20) /* of eviction entries; reserves address space only */

/* ---- words ---------------------------------------------------------------- */

enum zc_kind { ZC_LOCAL = 1, ZC_OVERFLOW = 2 };

#define ZC_PLACE_SHIFT ZPOOL_HANDLE_BITS
#define ZC_KIND_SHIFT  (ZC_PLACE_SHIFT + 4)
#define ZC_HANDLE_MASK (((uint64_t)1 << ZPOOL_HANDLE_BITS) - 1)
#define ZC_NAME_MASK   (((uint64_t)1 << (ZC_KIND_SHIFT + 3)) - 1)
#define ZC_SEEN_SHIFT  (ZC_KIND_SHIFT + 3)
#define ZC_SEEN_ONE    ((uint64_t)1 << ZC_SEEN_SHIFT)
#define ZC_SEEN_MAX    3u
#define ZC_STAMP_SHIFT (ZC_SEEN_SHIFT + 2)

static inline uint64_t zc_word(enum zc_kind kind, unsigned place, uint64_t handle)
{
	return (uint64_t)kind << ZC_KIND_SHIFT | (uint64_t)place << ZC_PLACE_SHIFT | handle;
}
static inline unsigned zc_word_kind(uint64_t word)
{
	return word >> ZC_KIND_SHIFT & 7;
}
static inline unsigned zc_word_place(uint64_t word)
{
	return word >> ZC_PLACE_SHIFT & 15;
}
/* How often the page was got while it stayed, up to ZC_SEEN_MAX. */
static inline unsigned zc_word_seen(uint64_t word)
{
	return word >> ZC_SEEN_SHIFT & ZC_SEEN_MAX;
}
static inline unsigned zc_word_stamp(uint64_t word)
{
	return (unsigned)(word >> ZC_STAMP_SHIFT);
}
static inline uint64_t zc_word_handle(uint64_t word)
{
	return word & ZC_HANDLE_MASK;
}
/* Whether two words name the same page of the same zpage, however often it was looked at. */
static inline bool zc_word_same(uint64_t a, uint64_t b)
{
	return !((a ^ b) & ZC_NAME_MASK);
}
static inline unsigned zc_slot(uint64_t index)
{
	return index & (INDEX_FANOUT - 1);
}
static inline const struct index_oid *zc_oid(const tmem_oid *oid)
{
	_Static_assert(sizeof(tmem_oid) == sizeof(struct index_oid), "one layout");
	return (const struct index_oid *)(const void *)oid;
}

/* ---- zpages --------------------------------------------------------------- */

/*
 * In front of the compressed bytes. The allocator's addresses are 2 more than
 * a multiple of 4, so that leaf, info and refs lie naturally aligned and can be
 * accessed atomically; the rest never changes once the zpage is linked.
 *
 *   info:  slot of place 0 in its leaf (6) | codec (4) | CLUSTER | count (5)
 *   count: of a page alone: references - 1. Of a cluster: pages - 1
 *   refs:  of a cluster only, references. A page alone keeps its bytes there.
 */
struct zpage {
	uint16_t zsize;	   /* compressed bytes */
	uint32_t checksum; /* of those, low half of XXH3 */
	uint32_t leaf;	   /* where the words are, if all references are in one leaf */
	uint16_t info;
	uint16_t refs;
} __attribute__((packed, aligned(2)));

#define ZPAGE_SINGLE_HEAD  12
#define ZPAGE_CLUSTER_HEAD 14
#define ZPAGE_CODEC_SHIFT  6
#define ZPAGE_CLUSTER	   0x0400u
#define ZPAGE_COUNT_SHIFT  11
#define ZPAGE_COUNT_ONE	   (1u << ZPAGE_COUNT_SHIFT)
#define ZPAGE_COUNT_MAX	   31u
/* Clusters stop short of the end so that additions of 16 cannot wrap. */
#define ZPAGE_REFS_MAX	   65000u

#define ZPAGE_FIELD(z, type, field)                                                                \
	((type *)(void *)((char *)(z) + __builtin_offsetof(struct zpage, field)))

static inline uint16_t zpage_info(const struct zpage *z, int order)
{
	return __atomic_load_n(ZPAGE_FIELD(z, const uint16_t, info), order);
}
static inline uint32_t zpage_leaf(const struct zpage *z)
{
	return __atomic_load_n(ZPAGE_FIELD(z, const uint32_t, leaf), __ATOMIC_RELAXED);
}
static inline void zpage_set_leaf(struct zpage *z, uint32_t leaf)
{
	__atomic_store_n(ZPAGE_FIELD(z, uint32_t, leaf), leaf, __ATOMIC_RELAXED);
}
static inline unsigned zpage_slot(uint16_t info)
{
	return info & (INDEX_FANOUT - 1);
}
static inline unsigned zpage_codec(uint16_t info)
{
	return info >> ZPAGE_CODEC_SHIFT & 15;
}
static inline unsigned zpage_pages(uint16_t info)
{
	return info & ZPAGE_CLUSTER ? (info >> ZPAGE_COUNT_SHIFT & 15) + 1 : 1;
}
static inline size_t zpage_head(uint16_t info)
{
	return info & ZPAGE_CLUSTER ? ZPAGE_CLUSTER_HEAD : ZPAGE_SINGLE_HEAD;
}
static inline void *zpage_bytes(struct zpage *z, uint16_t info)
{
	return (char *)z + zpage_head(info);
}
static inline unsigned zpage_refs(const struct zpage *z, uint16_t info)
{
	if (info & ZPAGE_CLUSTER)
		return __atomic_load_n(ZPAGE_FIELD(z, const uint16_t, refs), __ATOMIC_ACQUIRE);
	return (unsigned)(info >> ZPAGE_COUNT_SHIFT) + 1;
}

/* Low half of XXH3_64bits. */
uint32_t zc_checksum(const void *bytes, size_t n);

/* ---- counters ------------------------------------------------------------- */

/* One of these a thread; "in" and "out" make the gauges, summed over threads. */
enum zc_counter {
	ZC_PUTS,
	ZC_PUTS_OK,
	ZC_PUTS_SAME,
	ZC_PUTS_REPLACED,
	ZC_PUTS_POOR,
	ZC_PUTS_NOMEM,
	ZC_PUTS_FROZEN,
	ZC_PUTS_RAW,
	ZC_GETS,
	ZC_GETS_FOUND,
	ZC_GETS_MISSED,
	ZC_BAD_CHECKSUMS,
	ZC_INVALIDATES,
	ZC_INVALIDATES_FOUND,
	ZC_OBJECT_INVALIDATES,
	ZC_FLUSHES,
	ZC_SHARED_PAGES,
	ZC_SAME_NOW,	   /* words, in less out */
	ZC_ZPAGES_NOW,	   /* zpages in the zpool */
	ZC_ZBYTES_NOW,	   /* their compressed bytes */
	ZC_OVER_WORDS_NOW, /* words that name the overflow file */
	ZC_OVER_ZPAGES_NOW,
	ZC_OVER_BYTES_NOW, /* compressed */
	ZC_PUTS_FULL,	   /* refused by the accept threshold */
	ZC_PUTS_PACKED,	   /* compressed well enough */
	ZC_PUTS_MEAN_POOR,
	ZC_PUTS_MEAN_PASSED,
	ZC_PUTS_INACTIVE,
	ZC_PUTS_INACTIVE_OK,
	ZC_GETS_REMOVED, /* of those found, taken out */
	ZC_EVICTED,	 /* pages, by reason: + enum zc_why */
	ZC_EVICTED_LAST = ZC_EVICTED + ZC_WHYS - 1,
	ZC_EVICTED_ZPAGES,
	ZC_EVICTED_BYTES, /* compressed bytes that went */
	ZC_SECOND_CHANCES,
	ZC_COUNTERS,
};

/* What one thread keeps for one host. */
struct zc_thread {
	_Alignas(64) _Atomic uint64_t count[ZC_COUNTERS]; /* written by the owner only */
	struct tmem_host *host;
	struct zc_thread *next, *prev; /* host->threads, under threads_lock */
	struct codec_set codecs;
	uint64_t codec_bytes; /* charged for the contexts */
	uint64_t stamp_state; /* zc_stamp_draw() */
	uint32_t poor_seen;   /* zc_mean_is_poor() */
	char *big[2];	      /* ZC_CLUSTER_BYTES each: compressed, plain; or NULL */
	_Alignas(64) char small[ZC_PAGE + 64]; /* compressed bytes of one page */
};

static inline void zc_count(struct zc_thread *t, enum zc_counter c, uint64_t n)
{
	uint64_t v = atomic_load_explicit(&t->count[c], memory_order_relaxed);

	atomic_store_explicit(&t->count[c], v + n, memory_order_relaxed);
}

/* ---- clients and pools ---------------------------------------------------- */

#define ZC_STRIPES     16
#define ZC_SLOT_BITS   12
#define ZC_SLOTS       (1u << ZC_SLOT_BITS)
#define ZC_SLOT_CHUNK  64
#define ZC_GENERATIONS (1u << (31 - ZC_SLOT_BITS))

struct zc_stripe {
	_Alignas(64) _Atomic uint32_t users;
};

/*
 * A place for a pool in its client's table. It stays where it is until the
 * client goes, so a stale id can be looked up at any time (see pool.c).
 */
struct zc_slot {
	struct zc_stripe stripe[ZC_STRIPES];
	_Atomic int32_t id; /* of the pool that lives here, or -1 */
	_Atomic bool dying; /* a destroyer waits for the stripes to become 0 */
	struct tmem_host *host;
	struct index_pool *pool;
	struct tmem_client *client;
	struct zc_shared *shared;    /* NULL: the client's own pool */
	struct zc_slot *shared_next; /* members of a shared pool, under host->lock */
	uint32_t name_seed;	     /* of zc_name_hash() */
	struct zc_evict *ev;	     /* where its words are queued; NULL: nowhere */
	uint32_t flags;		     /* TMEM_POOL_ */
	bool exclusive;		     /* a get removes, if its caller does not say otherwise */
	bool cloned;		     /* has shared zpages with another pool; under host->lock */
	uint32_t number, generation, next_free; /* under host->lock */
	struct os_mutex lock;
	struct os_cond gone;
};

struct zc_slot_chunk {
	struct zc_slot *_Atomic slot[ZC_SLOT_CHUNK];
};

struct tmem_client {
	struct tmem_host *host;
	_Atomic int frozen;
	struct tmem_client *next, *prev; /* host->clients, under host->lock */
	uint32_t slots;			 /* used so far; under host->lock */
	uint32_t free_slot;		 /* number + 1, or 0; under host->lock */
	struct zc_slot_chunk *_Atomic chunk[ZC_SLOTS / ZC_SLOT_CHUNK];
	struct zc_evict ev[ZC_CLASSES];
	char name[64];
	uint32_t number; /* of the host's clients, in order of creation; traces say it */
};

struct zc_overflow;
struct zc_trace;

struct tmem_host {
	struct frames frames;

	/* Read by every operation. */
	_Alignas(64) struct zpool *zpool;
	struct index *index;
	os_tls tls;
	_Atomic uint32_t codec; /* zc_codec_pack() */
	_Atomic int frozen;
	_Atomic uint64_t mark_bytes; /* above it a put has to look closer: limit and target */
	uint32_t max_zsize;
	bool store_raw;
	bool queue_persistent;		/* persistent zpages are queued too (evict.h) */
	struct zc_overflow *overflow;	/* NULL: none */
	struct zc_trace *_Atomic trace; /* NULL: never recorded; see trace.c */

	/* Seldom. */
	_Alignas(64) struct os_mutex lock; /* clients, slots */
	struct tmem_client *clients;
	_Atomic uint32_t nclients, npools;
	_Atomic uint32_t clients_ever;
	_Atomic uint64_t adopt_after_ns;   /* no adoption before; UINT64_MAX: nothing is shared */
	_Atomic uint64_t compact_after_ns; /* no compaction for a refused put before */
	_Atomic bool complained;	   /* a bad checksum was logged */
	/* Eviction. */
	const struct zc_policy *policy;
	struct arena *chunks; /* of the queues */
	struct os_mutex sets_lock;
	struct os_cond sets_unused;
	struct zc_evict *sets;		/* under sets_lock */
	struct zc_shared *shared;	/* pools with a UUID, under host->lock */
	_Atomic uint64_t evicted_bytes; /* since frames were last moved together for a put */
	_Atomic bool full;		/* see reclaim.c, limits */
	_Atomic uint64_t target_bytes;	/* soft; 0: none */
	_Atomic uint32_t accept_percent;
	_Atomic uint32_t max_mean_zsize;
	_Atomic uint32_t mean_zsize; /* of a stored page, as it was a while ago */
	_Atomic bool pressed;	     /* the machine is short of memory (pressure.c) */

	struct os_mutex threads_lock;
	struct zc_thread *threads;
	uint64_t gone[ZC_COUNTERS]; /* of threads that ended; under threads_lock */

	/* For threads that cannot have a state of their own (T8). */
	struct os_mutex emergency_lock;
	_Atomic unsigned emergency_owner; /* os_thread_number() + 1 */
	unsigned emergency_depth;	  /* by the owner */
	struct zc_thread *emergency;
};

/* ---- host.c --------------------------------------------------------------- */

/* Zeroed, 64-aligned, charged to the host; NULL when memory or the limit forbids. */
void *zc_alloc(struct tmem_host *h, size_t bytes) __attribute__((warn_unused_result));
void zc_free(struct tmem_host *h, void *p, size_t bytes);
struct codec_spec zc_codec(const struct tmem_host *h);
/* Work mark_bytes out again: after the limit, the target or `full` changed. */
void zc_marks_update(struct tmem_host *h);
/* One compaction for a put that the limit refused; false when it is too soon for another. */
bool zc_make_room(struct tmem_host *h);

/* ---- reclaim.c: the accept threshold ---------------------------------------- */

/* An ephemeral put found no memory and nothing to evict. */
void zc_set_full(struct tmem_host *h);
/* Whether ephemeral puts are still refused for it. */
bool zc_full(struct tmem_host *h);
/* Whether what need not be kept should not be. */
bool zc_short_of_memory(struct tmem_host *h);
/* A page above max_mean_zsize comes: whether the mean of what is stored is above it too. */
bool zc_mean_is_poor(struct tmem_host *h, struct zc_thread *t);

/* ---- thread.c ------------------------------------------------------------- */

int zc_threads_init(struct tmem_host *h) __attribute__((warn_unused_result));
void zc_threads_exit(struct tmem_host *h);
/*
 * The calling thread's state, or the emergency state, held: never NULL. Give
 * it back with zc_thread_leave(). Nests. No lock above OS_RANK_HOST may be held.
 */
struct zc_thread *zc_thread_enter_slow(struct tmem_host *h);
void zc_thread_leave_slow(struct tmem_host *h);
static inline struct zc_thread *zc_thread_enter(struct tmem_host *h)
{
	struct zc_thread *t = os_tls_get(h->tls);

	return tmem_likely(t != NULL) ? t : zc_thread_enter_slow(h);
}
static inline void zc_thread_leave(struct zc_thread *t)
{
	if (tmem_unlikely(t == t->host->emergency))
		zc_thread_leave_slow(t->host);
}
/*
 * The same state with both big buffers, or the emergency state in its place
 * (then *t was given back).
 */
void zc_thread_need_big(struct zc_thread **t);
/* The emergency state, held. */
struct zc_thread *zc_thread_emergency(struct tmem_host *h);
/* Contexts; NULL when memory is short. Charged. */
void *zc_thread_cctx(struct zc_thread *t, const struct codec_spec *spec);
void *zc_thread_dctx(struct zc_thread *t, const struct codec *codec);
/* Make sure the emergency state can decompress this codec. */
int zc_emergency_ready(struct tmem_host *h, const struct codec *codec)
	__attribute__((warn_unused_result));
void zc_threads_sum(struct tmem_host *h, uint64_t sum[ZC_COUNTERS]);

/* ---- pool.c --------------------------------------------------------------- */

/* NULL: no such pool. Keeps the pool from ending until zc_pool_leave(). Lock-free. */
struct zc_slot *zc_pool_enter(struct tmem_client *c, tmem_pool pool);
void zc_pool_leave(struct zc_slot *s);
/* A place in the client's table; NULL: no memory, or no place. */
struct zc_slot *zc_slot_take(struct tmem_client *c);
void zc_slot_give_back(struct tmem_client *c, struct zc_slot *s);
/* A pool that nobody can name yet; zc_pool_publish() makes its id valid. 0 or -errno. */
int zc_pool_make(struct tmem_client *c, uint32_t flags, uint32_t shards, struct zc_slot **out)
	__attribute__((warn_unused_result));
tmem_pool zc_pool_publish(struct zc_slot *s);
void zc_pool_discard(struct tmem_client *c, struct zc_slot *s);
void zc_client_destroy_pools(struct tmem_client *c);
/* Call fn for every pool of the host, entered. Takes and holds host->lock. Stops at non-zero. */
int zc_each_pool(struct tmem_host *h, int (*fn)(void *arg, struct zc_slot *s), void *arg);

/* ---- pool_shared.c ---------------------------------------------------------- */

/* A member's slot is given up; the pool goes with the last one. */
void zc_shared_leave(struct tmem_client *c, struct zc_slot *s);
/* The client ends: its rights in pools with a UUID go. Its own slots have gone. */
void zc_shared_forget(struct tmem_client *c);
/* Whether this member stands for the pool in walks over all pools; host->lock is held. */
bool zc_shared_leads(const struct zc_slot *s);

/* ---- pam_local.c ---------------------------------------------------------- */

extern const struct pam_ops zc_pam;
extern const struct zpool_owner zc_owner;

/* Compressed bytes on their way into a store. */
struct zc_stored {
	const void *bytes;
	size_t zsize;
	uint32_t checksum;
	bool fresh; /* the checksum is still to be made, from these bytes */
	unsigned codec, pages;
};
/* Let go of words that have left the index, at most INDEX_BATCH. No lock above the emergency's. */
void zc_drop(struct tmem_host *h, struct zc_thread *t, const struct pampd *p, unsigned n);
/*
 * How many words of a locked leaf name the zpage (of `pages` pages) that the
 * word at `slot` names; bit i of mask: place i is among them.
 */
unsigned zc_words_of(const struct index_cursor *c, unsigned slot, unsigned pages, uint32_t *mask);
/* Take n more references on a zpage whose word is in a locked leaf; false: too many already. */
bool zpage_ref(struct zpage *z, unsigned n);
/* Give n references up; true when they were the last ones: the caller frees. */
bool zpage_unref(struct zpage *z, unsigned n);
/*
 * A new zpage, not movable, referenced by nobody: `refs` words of it will be
 * linked. 0; -ENOMEM; -E2BIG: larger than the allocator's largest object. Header
 * fields but leaf and slot are set.
 */
int zpage_make(struct tmem_host *h, struct zc_thread *t, const struct zc_stored *s, unsigned refs,
	       zpool_handle *out) __attribute__((warn_unused_result));
/* Write where it is; under the shard's lock, before it is movable. */
void zpage_place(struct tmem_host *h, zpool_handle handle, uint32_t leaf, unsigned slot);
void zpage_free(struct tmem_host *h, struct zc_thread *t, zpool_handle handle, size_t zsize);

/* ---- get.c ---------------------------------------------------------------- */

void zc_bad_checksum(struct tmem_host *h, struct zc_thread *t, const char *where, uint64_t handle);

/* ---- overflow.c ----------------------------------------------------------- */

int zc_overflow_create(struct tmem_host *h, const char *path, struct zc_overflow **out)
	__attribute__((warn_unused_result));
void zc_overflow_destroy(struct tmem_host *h, struct zc_overflow *o);
/* Whether the memory store is too full for zpages, so that room for metadata stays. */
bool zc_overflow_wanted(const struct tmem_host *h);
/* Write a new zpage with `refs` references. 0; -ENOMEM, -ENOSPC, -EIO: nothing was kept. */
int zc_overflow_put(struct tmem_host *h, struct zc_thread *t, const struct zc_stored *s,
		    unsigned refs, uint64_t *item) __attribute__((warn_unused_result));
/* With a reference, or under the shard's lock with a word in the leaf: what is there (no bytes). */
void zc_overflow_info(struct tmem_host *h, uint64_t item, struct zc_stored *s);
unsigned zc_overflow_refs(struct tmem_host *h, uint64_t item);
void zc_overflow_ref(struct tmem_host *h, uint64_t item);
void zc_overflow_unref(struct tmem_host *h, struct zc_thread *t, uint64_t item, unsigned n);
/* Read the compressed bytes; the caller holds a reference. 0 or -EIO. */
int zc_overflow_read(struct tmem_host *h, uint64_t item, void *buf);
uint64_t zc_overflow_file_bytes(struct tmem_host *h);
int zc_overflow_verify(struct tmem_host *h);

/* ---- share.c -------------------------------------------------------------- */

/* Let the zpages of cloned pools be moved again where that has become possible. */
void zc_adopt(struct tmem_host *h);

#endif
