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
#include "zcache/dict.h"
#include "zcache/evict.h"
#include "zcache/pressure.h"

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
#define ZC_BIG_BYTES		  (ZC_CLUSTER_BYTES + 64) /* a cluster, and what sealing adds */

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
/*
 * Two bits of leaf, for recompression (recompress.c). Written under the lock of
 * a shard that holds one of the zpage's words; of a zpage with words in two
 * leaves a mark may get lost, which only delays.
 */
#define ZPAGE_OLD	   0x80000000u /* seen by a pass, and not got since */
#define ZPAGE_TRIED	   0x40000000u /* was not worth recompressing */
#define ZPAGE_MARKS	   (ZPAGE_OLD | ZPAGE_TRIED)

#define ZPAGE_FIELD(z, type, field)                                                                \
	((type *)(void *)((char *)(z) + __builtin_offsetof(struct zpage, field)))

static inline uint16_t zpage_info(const struct zpage *z, int order)
{
	return __atomic_load_n(ZPAGE_FIELD(z, const uint16_t, info), order);
}
static inline uint32_t zpage_leaf(const struct zpage *z)
{
	return __atomic_load_n(ZPAGE_FIELD(z, const uint32_t, leaf), __ATOMIC_RELAXED) &
	       ~ZPAGE_MARKS;
}
static inline void zpage_set_leaf(struct zpage *z, uint32_t leaf)
{
	uint32_t *p = ZPAGE_FIELD(z, uint32_t, leaf);
	uint32_t marks = __atomic_load_n(p, __ATOMIC_RELAXED) & ZPAGE_MARKS;

	__atomic_store_n(p, leaf | marks, __ATOMIC_RELAXED);
}
static inline uint32_t zpage_marks(const struct zpage *z)
{
	return __atomic_load_n(ZPAGE_FIELD(z, const uint32_t, leaf), __ATOMIC_RELAXED) &
	       ZPAGE_MARKS;
}
static inline void zpage_unmark_old(struct zpage *z)
{
	uint32_t *p = ZPAGE_FIELD(z, uint32_t, leaf);

	__atomic_store_n(p, __atomic_load_n(p, __ATOMIC_RELAXED) & ~ZPAGE_OLD, __ATOMIC_RELAXED);
}
static inline void zpage_set_marks(struct zpage *z, uint32_t marks)
{
	__atomic_store_n(ZPAGE_FIELD(z, uint32_t, leaf), (zpage_leaf(z) | zpage_marks(z) | marks),
			 __ATOMIC_RELAXED);
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
/* Whether an allocator has room for a page as it is (store_raw). */
static inline bool zpage_fits_raw(const struct zpool_ops *ops)
{
	return ops->max_size >= ZPAGE_SINGLE_HEAD + ZC_PAGE;
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

/* Defined one by one in stats.def; "in" less "out" make the gauges, summed over threads. */
enum zc_counter {
#define C(id, name, unit, kind, scope, meaning) ZC_##id,
#define G(name, unit, kind, scope, value, meaning)
#include "zcache/stats.def"
#undef C
#undef G
	ZC_COUNTERS,
};

#define ZC_ZSIZE_CHUNK	 64u
#define ZC_ZSIZE_BUCKETS (ZC_PAGE / ZC_ZSIZE_CHUNK)

/*
 * What one thread counts for one pool (counters.c). Written by its thread only,
 * but for those marked shared, which are for whoever has no block of his own.
 */
struct zc_counts {
	_Alignas(64) struct tmem_client *client; /* NULL: the host's own */
	struct zc_slot *slot;
	bool shared;
	/* Bytes that the client was charged for and that are not in use yet (client.c). */
	_Atomic uint64_t credit;
	struct zc_thread *owner;
	struct zc_counts *slot_next, *slot_prev;     /* under threads_lock */
	struct zc_counts *thread_next, *thread_prev; /* under threads_lock */
	_Alignas(64) _Atomic uint64_t count[ZC_COUNTERS];
	/* Zpages by compressed bytes a page, in chunks: ever made, and freed. */
	_Atomic uint64_t made[ZC_ZSIZE_BUCKETS], freed[ZC_ZSIZE_BUCKETS];
};

/* Sums of those. */
struct zc_sum {
	uint64_t n[ZC_COUNTERS];
	uint64_t made[ZC_ZSIZE_BUCKETS], freed[ZC_ZSIZE_BUCKETS];
};

/* One operation in so many is timed. Bucket i counts 2^i .. 2^(i+1) - 1 ns, the last all above. */
#define ZC_LATENCY_EVERY   64u
#define ZC_LATENCY_BUCKETS 40u
enum zc_latency { ZC_PUT_NS, ZC_GET_NS, ZC_LATENCIES };

#define ZC_COUNTS_CACHE 16u

/* What one thread keeps for one host. */
struct zc_thread {
	_Alignas(64) struct zc_counts *counts; /* of the pool it works on; never NULL */
	uint64_t serial;		       /* of that pool; 0: none */
	struct tmem_host *host;
	uint32_t tick;		  /* operations, for sampling */
	struct zc_counts *blocks; /* all its own, under threads_lock */
	struct {
		uint64_t serial;
		struct zc_counts *counts;
	} cache[ZC_COUNTS_CACHE];      /* serials never come back, so entries are right or unused */
	struct zc_thread *next, *prev; /* host->threads, under threads_lock */
	struct codec_set codecs;
	uint64_t codec_bytes; /* charged for the contexts */
	uint64_t stamp_state; /* zc_stamp_draw() */
	uint32_t poor_seen;   /* zc_mean_is_poor() */
	char *big[2];	      /* ZC_BIG_BYTES each: compressed, plain; or NULL */
	_Atomic uint64_t latency[ZC_LATENCIES][ZC_LATENCY_BUCKETS];
	_Alignas(64) char small[ZC_PAGE + 64]; /* compressed bytes of one page */
};

static inline void zc_add(const struct zc_counts *k, _Atomic uint64_t *to, uint64_t n)
{
	if (tmem_unlikely(k->shared))
		atomic_fetch_add_explicit(to, n, memory_order_relaxed);
	else
		atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n,
				      memory_order_relaxed);
}

/* Count for the pool that the thread entered with. */
static inline void zc_count(struct zc_thread *t, enum zc_counter c, uint64_t n)
{
	zc_add(t->counts, &t->counts->count[c], n);
}

static inline unsigned zc_zsize_bucket(size_t zsize, unsigned pages)
{
	size_t each = pages > 1 ? zsize / pages : zsize;

	each = each ? (each - 1) / ZC_ZSIZE_CHUNK : 0;
	return each < ZC_ZSIZE_BUCKETS ? (unsigned)each : ZC_ZSIZE_BUCKETS - 1;
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
	uint64_t serial;    /* of the pool; never used again in this host */
	struct tmem_host *host;
	struct tmem_client *client;
	struct zc_slot *account; /* who counts: the slot itself, or the shared pool's home */
	struct index_pool *pool;
	struct zc_shared *shared;    /* NULL: the client's own pool */
	struct zc_slot *shared_next; /* members of a shared pool, under host->lock */
	uint32_t name_seed;	     /* of zc_name_hash() */
	struct zc_evict *ev;	     /* where its words are queued; NULL: nowhere */
	uint32_t flags;		     /* TMEM_POOL_ */
	_Atomic uint32_t codec;	     /* zc_pool_codec(); 0: the host's */
	_Atomic uint16_t dict;	     /* zc_pool_dict(); 0: none */
	_Atomic uint64_t trained_at; /* pages that it had when maintenance trained last */
	bool exclusive;		     /* a get removes, if its caller does not say otherwise */
	bool cloned;		     /* has shared zpages with another pool; under host->lock */
	uint32_t number, generation, next_free; /* under host->lock */
	struct os_mutex lock;
	struct os_cond gone;
	struct zc_counts *blocks; /* of the threads that have one, under threads_lock */
	struct zc_counts spare;	  /* for those that have none */
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
	_Atomic uint32_t npools;
	_Atomic uint64_t limit; /* bytes; 0: none */
	_Atomic uint32_t weight;
	struct zc_slot_chunk *_Atomic chunk[ZC_SLOTS / ZC_SLOT_CHUNK];
	struct zc_evict ev[ZC_SETS];
	uint64_t credit; /* of the last victim (evict.h); under host->sets_lock */
	char name[64];
	uint32_t number; /* of the host's clients, in order of creation; traces say it */
	_Alignas(64) _Atomic uint64_t used; /* charged, credits included */
	_Atomic uint64_t block_bytes;	    /* of that: tables, slots, counters */
	struct zc_sum gone; /* of pools and threads that ended; under threads_lock */
};

struct zc_overflow;
struct zc_recompress;
struct zc_trace;

/* maintain.c */
struct zc_maintain {
	struct zc_pressure law; /* by whoever set busy */
	char path[256];		/* of the pressure; "": there is none */
	bool looked;		/* for it */
	_Atomic bool busy;
	_Atomic uint32_t pressure_ppm;
	_Atomic uint64_t idle_ms;	     /* 0: pages do not age */
	_Atomic uint32_t recompress_rate;    /* zpages tried a second; 0: none */
	_Atomic uint32_t recompress_idle_ms; /* of those that are */
	_Atomic uint32_t recompress_codec;   /* zc_codec_pack() */
	_Atomic uint32_t recompress_cluster; /* neighbours stored together; 0: as they were put */
	os_thread thread;
	bool started;
	struct os_mutex lock; /* of the thread's sleep */
	struct os_cond wake;
	bool stop; /* under lock */
};

struct tmem_host {
	struct frames frames;

	/* Read by every operation. */
	_Alignas(64) struct zpool *zpool;
	struct index *index;
	os_tls tls;
	_Atomic uint32_t codec; /* zc_codec_pack() */
	_Atomic int frozen;
	_Atomic uint64_t mark_bytes; /* above it a put has to look closer: limit and target */
	_Atomic uint32_t max_zsize;
	_Atomic bool store_raw;
	bool by_frames;			/* the allocator's own shrink frees what it evicts (zbud) */
	bool queue_persistent;		/* persistent zpages are queued too (evict.h) */
	struct zc_overflow *overflow;	/* NULL: none */
	_Atomic bool marking;		/* gets clear ZPAGE_OLD */
	struct zc_trace *_Atomic trace; /* NULL: never recorded; see trace.c */

	/* Seldom. */
	_Alignas(64) struct os_mutex lock; /* clients, slots */
	uint64_t serials;		   /* given to pools so far; under lock */
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
	_Atomic uint64_t ceiling_bytes; /* soft too, set by pressure.c; 0: none */
	struct zc_maintain maintain;
	_Atomic uint32_t accept_percent;
	_Atomic uint32_t max_mean_zsize;
	_Atomic uint32_t mean_zsize; /* of a stored page, as it was a while ago */
	_Atomic bool pressed;	     /* the machine is short of memory (pressure.c) */

	/* Codecs. */
	struct zc_dicts *_Atomic dicts; /* NULL: none was ever made */
	struct zc_recompress *_Atomic recompress;

	struct os_mutex threads_lock;
	struct zc_thread *threads;
	struct zc_sum gone;   /* of clients that ended; under threads_lock */
	struct zc_counts own; /* what belongs to no client */
	uint64_t latency_gone[ZC_LATENCIES][ZC_LATENCY_BUCKETS]; /* under threads_lock */

	/* For threads that cannot have a state of their own (T8). */
	struct os_mutex emergency_lock;
	_Atomic unsigned emergency_owner; /* os_thread_number() + 1 */
	unsigned emergency_depth;	  /* by the owner */
	struct zc_thread *emergency;
};

/* ---- host.c --------------------------------------------------------------- */

/* Zeroed, 64-aligned, charged to the host; NULL when memory or the limit forbids. */
void *zc_alloc(struct tmem_host *h, size_t bytes) __attribute__((warn_unused_result));
/* Not zeroed: what is never written to takes no memory, though it is charged. */
void *zc_alloc_scratch(struct tmem_host *h, size_t bytes) __attribute__((warn_unused_result));
void zc_free(struct tmem_host *h, void *p, size_t bytes);
/* What a block of so many bytes is charged. */
uint64_t zc_block_cost(size_t bytes);
struct codec_spec zc_codec(const struct tmem_host *h);
/* The codec of puts into a pool: its own, or the host's. */
#define ZC_CODEC_SET 0x80u /* marks a codec word that is not the host's */
struct codec_spec zc_codec_unpack(uint32_t word);
uint32_t zc_codec_pack(const struct codec_spec *spec);
/* NAME, or NAME:LEVEL where it has levels, as codec_parse() takes it; len >= ZC_CODEC_TEXT. */
#define ZC_CODEC_TEXT 64
void zc_codec_text(const struct codec_spec *spec, char *text, size_t len);
static inline struct codec_spec zc_pool_codec(const struct zc_slot *s)
{
	uint32_t word = atomic_load_explicit(&s->codec, memory_order_relaxed);

	return tmem_likely(!word) ? zc_codec(s->host) : zc_codec_unpack(word & ~ZC_CODEC_SET);
}
/* Work mark_bytes out again: after the limit, the target or `full` changed. */
void zc_marks_update(struct tmem_host *h);
/* One compaction for a put that the limit refused; false when it is too soon for another. */
bool zc_make_room(struct tmem_host *h);

/* ---- maintain.c ------------------------------------------------------------- */

/* Last in a host's creation. 0; -EAGAIN or the like: no thread could be had. */
int zc_maintain_start(struct tmem_host *h, const tmem_host_options *o)
	__attribute__((warn_unused_result));
void zc_maintain_stop(struct tmem_host *h);
/* Waits for the step under way; none is made until the release. Not from within a step. */
void zc_maintain_hold(struct tmem_host *h);
void zc_maintain_release(struct tmem_host *h);
/* The lower of target and ceiling; 0: neither. */
uint64_t zc_soft_bytes(const struct tmem_host *h);

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
 * The calling thread's state, or the emergency state, held: never NULL; it counts for
 * the pool s. Give it back with zc_thread_leave(). Nests for one pool; an operation that
 * works on another pool in between uses zc_thread_enter_other(). No lock above
 * OS_RANK_HOST may be held.
 */
struct zc_thread *zc_thread_enter_slow(struct tmem_host *h, struct zc_slot *s);
void zc_thread_leave_slow(struct tmem_host *h);
static inline struct zc_thread *zc_thread_enter(struct tmem_host *h, struct zc_slot *s)
{
	struct zc_thread *t = os_tls_get(h->tls);

	return tmem_likely(t && t->serial == s->serial) ? t : zc_thread_enter_slow(h, s);
}
/* For work that is no pool's: it counts for the host. Not inside an operation on a pool. */
struct zc_thread *zc_thread_enter_host(struct tmem_host *h);
static inline void zc_thread_leave(struct zc_thread *t)
{
	if (tmem_unlikely(t == t->host->emergency))
		zc_thread_leave_slow(t->host);
}
/*
 * For the pool s, whatever pool an operation further up this stack works on: what it
 * counted for is in *was, and zc_thread_leave_other() goes back to it.
 */
struct zc_was {
	struct zc_thread *thread; /* NULL: had none */
	struct zc_counts *counts;
	uint64_t serial;
};
struct zc_thread *zc_thread_enter_other(struct tmem_host *h, struct zc_slot *s, struct zc_was *was);
void zc_thread_leave_other(struct zc_thread *t, const struct zc_was *was);
/*
 * The same state with both big buffers, or the emergency state in its place
 * (then *t was given back).
 */
void zc_thread_need_big(struct zc_thread **t);
/* The emergency state, held; it counts for s (NULL: for the host). */
struct zc_thread *zc_thread_emergency(struct tmem_host *h, struct zc_slot *s);
/* Contexts; NULL when memory is short. Charged. */
void *zc_thread_cctx(struct zc_thread *t, const struct codec_spec *spec);
void *zc_thread_dctx(struct zc_thread *t, const struct codec *codec);
/* Make sure the emergency state can decompress this codec. */
int zc_emergency_ready(struct tmem_host *h, const struct codec *codec)
	__attribute__((warn_unused_result));
/* Time one operation in ZC_LATENCY_EVERY: 0, or when it began. */
uint64_t zc_clock(void);
static inline uint64_t zc_sample(struct zc_thread *t)
{
	return tmem_likely(++t->tick % ZC_LATENCY_EVERY) ? 0 : zc_clock();
}
void zc_sample_end(struct zc_thread *t, enum zc_latency what, uint64_t began);

/* ---- counters.c ----------------------------------------------------------- */

void zc_counts_init(struct zc_counts *k, struct tmem_client *c, struct zc_slot *s);
/* From now on t counts for s. Never fails: without memory for a block it takes the spare one. */
void zc_counts_use(struct zc_thread *t, struct zc_slot *s);
/* The thread, the pool or the client ends: what was counted goes to who remains. */
void zc_counts_end_thread(struct zc_thread *t);
void zc_counts_end_pool(struct zc_slot *s);
void zc_counts_end_client(struct tmem_client *c);
/* Sums. That of a pool, entered; of a client; of the host. Take host->lock and threads_lock. */
void zc_sum_pool(struct zc_slot *s, struct zc_sum *sum);
void zc_sum_client(struct tmem_client *c, struct zc_sum *sum);
void zc_sum_host(struct tmem_host *h, struct zc_sum *sum);
void zc_sum_latency(struct tmem_host *h, uint64_t sum[ZC_LATENCIES][ZC_LATENCY_BUCKETS]);
/* Pages that were evicted, over all reasons. */
uint64_t zc_evicted(const struct zc_sum *sum);
/* The counters of the host alone. */
void zc_threads_sum(struct tmem_host *h, uint64_t sum[ZC_COUNTERS]);
/* Credits that a client's blocks hold; exact when nothing runs. */
uint64_t zc_credits(struct tmem_client *c);
uint64_t zc_credits_locked(struct tmem_client *c); /* host->lock is held */
uint64_t zc_pool_credits(struct zc_slot *s);

/* ---- client.c ------------------------------------------------------------- */

#define ZC_WEIGHT_DEFAULT 100u
#define ZC_CREDIT	  (32u << 10)

/* The client's own account; lock-free. False, and nothing changed, when its limit forbids it. */
bool zc_client_charge(struct tmem_client *c, uint64_t bytes) __attribute__((warn_unused_result));
void zc_client_uncharge(struct tmem_client *c, uint64_t bytes);
/* The same for the pool that t works on, out of the thread's credit as a rule. */
bool zc_charge_slow(struct zc_counts *k, uint64_t bytes) __attribute__((warn_unused_result));
void zc_uncharge_slow(struct zc_counts *k);
__attribute__((warn_unused_result)) static inline bool zc_charge(struct zc_thread *t,
								 uint64_t bytes)
{
	struct zc_counts *k = t->counts;
	uint64_t credit = atomic_load_explicit(&k->credit, memory_order_relaxed);

	/* A shared block never has credit; and with a limit none is used, nor kept. */
	if (tmem_unlikely(credit < bytes ||
			  atomic_load_explicit(&k->client->limit, memory_order_relaxed)))
		return zc_charge_slow(k, bytes);
	atomic_store_explicit(&k->credit, credit - bytes, memory_order_relaxed);
	return true;
}
static inline void zc_uncharge(struct zc_thread *t, uint64_t bytes)
{
	struct zc_counts *k = t->counts;
	uint64_t credit = atomic_load_explicit(&k->credit, memory_order_relaxed) + bytes;

	if (tmem_unlikely(k->shared)) {
		if (k->client)
			zc_client_uncharge(k->client, bytes);
		return;
	}
	atomic_store_explicit(&k->credit, credit, memory_order_relaxed);
	if (tmem_unlikely(credit > ZC_CREDIT ||
			  atomic_load_explicit(&k->client->limit, memory_order_relaxed)))
		zc_uncharge_slow(k);
}
/* Blocks charged to the client as well as to the host. */
void *zc_client_alloc(struct tmem_client *c, size_t bytes) __attribute__((warn_unused_result));
void zc_client_free(struct tmem_client *c, void *p, size_t bytes);
/* Bytes in use by the client, by its account: at most ZC_CREDIT a thread and pool too many. */
uint64_t zc_client_used(const struct tmem_client *c);
/*
 * What statistics tell of it. Without a limit the credits, summed up before the call, are
 * left out. With a limit they are not: it is what the limit counts, and I2 can be seen from
 * outside. A thread gives credit back in two steps, and between them the difference of two
 * sums would be above what it was before, and after.
 */
uint64_t zc_client_bytes(const struct tmem_client *c, uint64_t credits);
/*
 * Who pays first under pressure: a, if it has more bytes for its weight than b.
 * Lock-free; both must stay meanwhile.
 */
bool zc_client_pays_before(const struct tmem_client *a, const struct tmem_client *b);

/* ---- pool.c --------------------------------------------------------------- */

/* The slot of that number, or NULL. Lock-free. */
struct zc_slot *zc_slot_of(struct tmem_client *c, uint32_t number);
/* NULL: no such pool. Keeps the pool from ending until zc_pool_leave(). Lock-free. */
struct zc_slot *zc_pool_enter(struct tmem_client *c, tmem_pool pool);
void zc_pool_leave(struct zc_slot *s);
/*
 * The same for who is no user of the client and found the pool by itself: under the
 * lock of one of its leaves, or host->lock. The client may end meanwhile, so it is
 * left under host->lock, by zc_pool_leave(), or under the same lock of a leaf, by
 * zc_pool_leave_slot(). False: it is ending, or in the making.
 */
bool zc_pool_enter_slot(struct zc_slot *s);
void zc_pool_leave_slot(struct zc_slot *s);
/*
 * From here on t counts for the slot s, although it has not entered the pool: for who
 * comes bottom-up, and holds the lock of a leaf of it. He may let go of that: the pool may
 * end then, but no other one comes into the slot before zc_count_back(). That the client
 * stays is his own care. What he counts is in the slot's own block. Returns what to give
 * to zc_count_back().
 */
struct zc_counts *zc_count_slot(struct zc_thread *t, struct zc_slot *s);
void zc_count_back(struct zc_thread *t, struct zc_counts *was);
/* The slot's id is -1 by the caller's hand: sleep until nobody is inside. */
void zc_pool_wait(struct zc_slot *s);
/* A place in the client's table; NULL: no memory, or no place. */
struct zc_slot *zc_slot_take(struct tmem_client *c);
void zc_slot_give_back(struct tmem_client *c, struct zc_slot *s);
/* A pool that nobody can name yet; zc_pool_publish() makes its id valid. 0 or -errno. */
int zc_pool_make(struct tmem_client *c, uint32_t flags, uint32_t shards, struct zc_slot **out)
	__attribute__((warn_unused_result));
tmem_pool zc_pool_publish(struct zc_slot *s);
void zc_pool_discard(struct tmem_client *c, struct zc_slot *s);
/* Two steps: pools, while others may still look into the client; then their slots. */
void zc_client_end_pools(struct tmem_client *c);
void zc_client_free_slots(struct tmem_client *c);
/* Call fn for every pool of the host, entered. Takes and holds host->lock. Stops at non-zero. */
int zc_each_pool(struct tmem_host *h, int (*fn)(void *arg, struct zc_slot *s), void *arg);

/* ---- pool_shared.c ---------------------------------------------------------- */

/* A member's slot is given up; the pool goes with the last one. */
void zc_shared_leave(struct tmem_client *c, struct zc_slot *s);
/* The client ends: its rights in pools with a UUID go. Its own slots have gone. */
void zc_shared_forget(struct tmem_client *c);
/* Whether this member stands for the pool in walks over all pools; host->lock is held. */
/* Every shared pool's home; host->lock is held. */
void zc_shared_each(struct tmem_host *h, void (*fn)(void *arg, struct zc_slot *home), void *arg);
bool zc_shared_leads(const struct zc_slot *s);

/* ---- pam_local.c ---------------------------------------------------------- */

extern const struct pam_ops zc_pam;
extern const struct zpool_owner zc_owner;

/* Compressed bytes on their way into a store. */
struct zc_stored {
	const void *bytes;
	size_t zsize;
	uint32_t checksum;
	bool fresh;	/* the checksum is still to be made, from these bytes */
	uint16_t dict;	/* held for the bytes' reader (zc_stored_hold), or 0 */
	bool ephemeral; /* of an ephemeral pool; a hint for the allocator */
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
 * linked. 0; -ENOMEM; -EDQUOT: the client's limit; -E2BIG: larger than the allocator's
 * largest object. Header fields but leaf and slot are set.
 */
int zpage_make(struct tmem_host *h, struct zc_thread *t, const struct zc_stored *s, unsigned refs,
	       zpool_handle *out) __attribute__((warn_unused_result));
/* Write where it is; under the shard's lock, before it is movable. */
void zpage_place(struct tmem_host *h, zpool_handle handle, uint32_t leaf, unsigned slot);
void zpage_free(struct tmem_host *h, struct zc_thread *t, zpool_handle handle);

/* ---- get.c ---------------------------------------------------------------- */

void zc_bad_checksum(struct tmem_host *h, struct zc_thread *t, const char *where, uint64_t handle);
/* What a zpage's header says; under a lock or a pin that keeps it. s->dict is 0. */
void zc_stored_of(struct zpage *z, struct zc_stored *s);
/* A context that decompresses what `s` is; NULL when memory is short. */
void *zc_stored_dctx(struct zc_thread *t, const struct zc_stored *s);
/* Pages 0 .. n-1 of checked bytes into buf. 0 or -EBADMSG. */
int zc_stored_unpack(struct tmem_host *h, void *dctx, const struct zc_stored *s, void *buf,
		     unsigned n) __attribute__((warn_unused_result));

/* ---- overflow*.c ----------------------------------------------------------- */

/* How full memory is, against the marks below the limit; see overflow.c. No limit: low. */
enum zc_fill { ZC_FILL_LOW, ZC_FILL_MIDDLE, ZC_FILL_HIGH, ZC_FILL_FULL };
enum zc_fill zc_overflow_fill(const struct tmem_host *h);
/* opts->overflow_path is set. On failure *why, if it is set, says more than the code. */
int zc_overflow_create(struct tmem_host *h, const tmem_host_options *opts, struct zc_overflow **out,
		       const char **why) __attribute__((warn_unused_result));
void zc_overflow_destroy(struct tmem_host *h, struct zc_overflow *o);
/*
 * Move some of the oldest zpages to the file. For a put that has built nothing
 * yet, with memory at ZC_FILL_HIGH or above; no lock held. Waits for the file.
 */
void zc_overflow_make_room(struct tmem_host *h, struct zc_thread *t);
/*
 * Pools have ended, and their slots are about to go: wait until the mover does
 * not count for them any more. No lock above OS_RANK_HOST.
 */
void zc_overflow_wait(struct tmem_host *h);
/* A page of this leaf was read; was put. Cheap, any thread. */
void zc_overflow_touch(struct tmem_host *h, uint32_t leaf, unsigned slot);
void zc_overflow_fresh(struct tmem_host *h, uint32_t leaf, unsigned slot);
/*
 * Write a new zpage with `refs` references; waits until it is there. 0;
 * -ENOMEM, -ENOSPC, -EIO...: nothing was kept.
 */
int zc_overflow_put(struct tmem_host *h, struct zc_thread *t, const struct zc_stored *s,
		    unsigned refs, uint64_t *item) __attribute__((warn_unused_result));
/* With a reference, or under the shard's lock with a word in the leaf: what is there (no bytes). */
void zc_overflow_info(struct tmem_host *h, uint64_t item, struct zc_stored *s);
unsigned zc_overflow_refs(struct tmem_host *h, uint64_t item);
void zc_overflow_ref(struct tmem_host *h, uint64_t item);
void zc_overflow_unref(struct tmem_host *h, struct zc_thread *t, uint64_t item, unsigned n);
/*
 * Read the compressed bytes; the caller holds a reference. `buf` has ZC_BIG_BYTES.
 * 0 or -EIO; 0 does not mean that the checksum is right.
 */
int zc_overflow_read(struct tmem_host *h, uint64_t item, void *buf);
/* A page was read from the file, its bytes are in *s: perhaps it comes back to memory. The
 * caller holds a reference on the item, and no lock. */
struct over_back {
	struct index_pool *pool;
	const struct index_oid *oid;
	uint64_t index, word;
};
void zc_overflow_back(struct tmem_host *h, struct zc_thread *t, const struct over_back *b,
		      const struct zc_stored *s);
/* Of the file, in use. */
uint64_t zc_overflow_file_bytes(struct tmem_host *h);
int zc_overflow_verify(struct tmem_host *h);

/* ---- recompress.c --------------------------------------------------------- */

void zc_recompress_destroy(struct tmem_host *h);
/* The next pass tries again what was not worth it: there is a new dictionary. */
void zc_recompress_again(struct tmem_host *h);

/* ---- train.c --------------------------------------------------------------- */

/* Train a dictionary for the pool, entered, and keep it if it wins; see tmem_pool_train(). */
int zc_train(struct zc_slot *s, size_t bytes, int level, tmem_train_result *out)
	__attribute__((warn_unused_result));

/* ---- share.c -------------------------------------------------------------- */

/* Let the zpages of cloned pools be moved again where that has become possible. */
void zc_adopt(struct tmem_host *h);

#endif
