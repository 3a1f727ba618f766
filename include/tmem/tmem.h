/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libtmem: transcendent memory in userspace.
 *
 * A *host* is one store with one memory limit. *Clients* own *pools*; a pool
 * holds pages (4096 bytes) by <object id, index>. put copies a page in,
 * compressed; get copies it out; invalidate drops it. There may be any number
 * of hosts in a process; there is no global state.
 *
 * Contract of every call, unless it says otherwise: callable from any thread
 * at any time, together with all others; does not block but for short mutexes;
 * returns 0 (or a count) or a negative errno; after a failure the store is as
 * the call's comment says and valid. Pointers passed in are only used during
 * the call.
 *
 *   T1  a put may fail at any time
 *   T2  after a put on a handle, successful or not, older data of that handle
 *       is never returned: it holds the new page, or nothing
 *   T5  a page of an ephemeral pool may be gone at any time; what is found is
 *       never older than the last put
 *   T6  an acknowledged page of a persistent pool is there, byte for byte,
 *       until it is invalidated, replaced, or its pool destroyed
 *   T7  when an invalidate has returned, no get that starts later sees the data
 *   T8  a get allocates nothing that could fail
 */
#ifndef TMEM_TMEM_H
#define TMEM_TMEM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TMEM_API   __attribute__((visibility("default")))
#define TMEM_CHECK __attribute__((warn_unused_result))

#define TMEM_PAGE_SIZE	 4096
#define TMEM_CLUSTER_MAX 16 /* pages compressed together at most */

/* Object id: 192 bits, e.g. a file. */
typedef struct tmem_oid {
	uint64_t w[3];
} tmem_oid;

typedef struct tmem_host tmem_host;
typedef struct tmem_client tmem_client;
typedef int32_t tmem_pool; /* >= 0; belongs to one client; not reused while it can be named */

/* Library version, "MAJOR.MINOR.PATCH". Static. */
TMEM_API const char *tmem_version(void);
/* One line for a code that a tmem call returned. Static. */
TMEM_API const char *tmem_strerror(int err);

/* ---- hosts ---------------------------------------------------------------- */

typedef struct tmem_host_options {
	size_t size;	      /* sizeof(tmem_host_options): set by TMEM_HOST_OPTIONS */
	uint64_t limit_bytes; /* hard limit on all memory of the host, metadata included; 0: none */
	const char *codec;    /* NAME or NAME:LEVEL; NULL: "lz4" */
	const char *zpool;    /* allocator, "zsmalloc" or "zbud"; NULL: "zsmalloc" */
	uint32_t max_zsize;   /* per page: what compresses to more is refused; 0: 7/8 page (3584) */
	uint32_t store_raw;   /* 1: keep such pages uncompressed instead of refusing them */
	/*
	 * File for zpages that do not fit; NULL: none. When memory is short, the
	 * oldest pages go there, still compressed, and pages read often come back.
	 * It is made anew and removed with the host: refused, and left as it is,
	 * is one that holds something else (-EEXIST), is not an ordinary file with
	 * one name (-EINVAL) or a symbolic link (-ELOOP), another user's (-EPERM),
	 * or another host's (-EBUSY). It must not be changed by others: what they
	 * change is found, and lost.
	 */
	const char *overflow_path;
	const char *policy;	 /* which ephemeral pages go first: "lru" (NULL: this), "s3fifo" */
	uint32_t accept_percent; /* see tmem_host_set_limit(); 0: 90 */
	uint64_t target_bytes;	 /* see tmem_host_set_target(); 0: none */
	uint32_t max_mean_zsize; /* per page: while the mean of what is stored is above it, pages
				    above it are refused, without store_raw; 4096: off;
				    0: 5/8 page (2560), or off with a max_zsize of 4096 */
	uint64_t overflow_rate;	 /* write at most so many bytes a second there; 0: any */
	uint32_t overflow_encrypt; /* 1: seal it with a key that is in memory only; -ENOTSUP */
	uint32_t maintain;	   /* 1: a thread of the host calls tmem_host_maintain() */
	uint32_t pressure_ppm;	   /* see there; 0: 1000; TMEM_PRESSURE_OFF: does not matter */
	uint64_t idle_ms; /* maintenance evicts ephemeral pages idle for so long; 0: none */
} tmem_host_options;
#define TMEM_PRESSURE_OFF UINT32_MAX
#define TMEM_HOST_OPTIONS ((tmem_host_options){.size = sizeof(tmem_host_options)})

/*
 * Make a host. opts may be NULL. -EINVAL (unknown codec, level, allocator or
 * option size), -ENOMEM, or the error of opening the overflow file; err, if
 * not NULL, then receives one line of errlen bytes saying what and what is known.
 */
TMEM_API int tmem_host_create(const tmem_host_options *opts, tmem_host **out, char *err,
			      size_t errlen) TMEM_CHECK;
/* Destroys clients and pools too. No other call on the host may be running. NULL is allowed. */
TMEM_API void tmem_host_destroy(tmem_host *host);
/*
 * Change the hard limit. What is in use never exceeds it; when it is set below
 * that, nothing is added until less is.
 *
 * A put that finds no room evicts the oldest ephemeral pages of the host, so
 * only persistent pages can fill it up. When they have, an ephemeral put fails
 * with -ENOMEM, and from then on all of them do at once, until one finds less
 * than accept_percent of the limit in use.
 */
TMEM_API int tmem_host_set_limit(tmem_host *host, uint64_t limit_bytes);
/*
 * A soft limit for ephemeral pages: while more than this is in use, puts evict
 * more pages than they bring, and so does maintenance. 0: none.
 */
TMEM_API int tmem_host_set_target(tmem_host *host, uint64_t target_bytes);
/*
 * Give about `frames` frames (4096 bytes each) back to the OS: evicts ephemeral
 * pages, oldest first, and compacts. *reclaimed (may be NULL): how many fewer
 * are in use now, also when that is less; puts that run meanwhile count
 * against it. 0. Takes as long as it takes, in short lock holds.
 */
TMEM_API int tmem_host_shrink(tmem_host *host, uint64_t frames, uint64_t *reclaimed);
/*
 * Evict ephemeral pages that were not put or got in the last idle_ms (exact to
 * 64 ms; one that was got since it came counts as used now). Pages evicted.
 */
TMEM_API uint64_t tmem_host_age(tmem_host *host, uint64_t idle_ms);
/* Change overflow_rate. -EINVAL: the host has no overflow file. */
TMEM_API int tmem_host_set_overflow_rate(tmem_host *host, uint64_t bytes_per_s);
/*
 * One step of maintenance, for owners that have a thread to call it about once a
 * second (or see `maintain` in the options): shrink to the soft target; evict
 * idle pages; and yield to others who are short of memory: while tasks of this
 * control group (or machine) wait for memory for more than pressure_ppm
 * millionths of the time, ephemeral pages go, 1 to 10 % of the store a step, and
 * the store may not grow back at once. Where the kernel does not tell (PSI),
 * that is left out. With the tunable recompress_rate, idle pages are compressed
 * anew, as by tmem_host_recompress(), which should not be called beside it; that
 * takes up to 0.1 s of a step, and may be worth ten steps a second. Returns at
 * once while another step is at work.
 */
TMEM_API void tmem_host_maintain(tmem_host *host);
/* Change the codec of later puts. -ENOENT, -ERANGE: refused, the old one kept. */
TMEM_API int tmem_host_set_codec(tmem_host *host, const char *codec) TMEM_CHECK;

/* What tmem_host_recompress() is to do. */
typedef struct tmem_recompress {
	size_t size;		   /* sizeof(tmem_recompress): set by TMEM_RECOMPRESS */
	const char *codec;	   /* NAME or NAME:LEVEL; NULL: "zstd:3" */
	uint32_t idle_ms;	   /* pages not got or put for this long; 0: all */
	uint32_t pages_per_s;	   /* zpages tried a second, over all calls; 0: no limit */
	uint32_t cpu_percent;	   /* of one processor, over all calls; at most 100; 0: no limit */
	uint32_t min_gain_percent; /* what a zpage must get smaller by; at most 90; 0: 10 */
	uint64_t max_pages;	   /* zpages tried in this call, about; 0: to the end of the pass */
	/* 1, and codec is zstd: pools of 2048 pages and more get a dictionary if it pays, one a
	 * call */
	uint32_t train;
	/* Idle pages of persistent pools that lie in a block of so many are stored together, as
	 * tmem_put_cluster() does, and without those that have gone; at most TMEM_CLUSTER_MAX; 0:
	 * each as it was put */
	uint32_t cluster;
} tmem_recompress;
#define TMEM_RECOMPRESS ((tmem_recompress){.size = sizeof(tmem_recompress)})

typedef struct tmem_recompress_result {
	size_t size;	       /* sizeof(tmem_recompress_result), set by the caller */
	uint64_t looked_at;    /* zpages */
	uint64_t tried;	       /* of those, idle, and compressed anew */
	uint64_t recompressed; /* of those, exchanged */
	uint64_t saved_bytes;  /* what the exchanged ones took in the allocator, less what they take
				*/
	uint64_t frames_returned; /* fewer frames in use than before; puts meanwhile count against
				     it */
	uint64_t passes;	  /* 1: came to the end of a pass over the store */
	uint64_t trained;	  /* 1: a pool got a dictionary */
} tmem_recompress_result;

/*
 * A step of recompression: goes on where the last call stopped, compresses
 * idle pages with a denser codec, compacts, and returns when the pass is over
 * or the rates allow no more. For a thread that calls it every 100 ms or so;
 * safe beside all other calls. A pass begins idle_ms after the last one ended,
 * and before that a call does nothing. Pages in the overflow file and what
 * another pool shares (clones) are left alone.
 *
 * opts, result may be NULL. 0; -EBUSY: another thread is in a step; -ENOMEM:
 * ended early for lack of memory; -EINVAL, -ENOENT, -ERANGE: opts. Whatever is
 * returned, the pages read as before.
 */
TMEM_API int tmem_host_recompress(tmem_host *host, const tmem_recompress *opts,
				  tmem_recompress_result *result);
/* While frozen, puts fail with -EAGAIN and act as invalidates (T9). */
TMEM_API void tmem_host_freeze(tmem_host *host, int frozen);
/* Move zpages together so that frames go back to the OS, about max_bytes. Bytes returned. */
TMEM_API uint64_t tmem_host_compact(tmem_host *host, uint64_t max_bytes);

/* ---- clients and pools ---------------------------------------------------- */

/* name: for reports, copied, at most 63 bytes. */
TMEM_API int tmem_client_create(tmem_host *host, const char *name, tmem_client **out) TMEM_CHECK;
/* Destroys its pools. No other call on the client may be running. NULL is allowed. */
TMEM_API void tmem_client_destroy(tmem_client *client);
/* tmem_host_freeze() for the puts of this client only. */
TMEM_API void tmem_client_freeze(tmem_client *client, int frozen);

/*
 * Hard limit on the memory charged to the client: its pages and the metadata they
 * need (0: none). A put that would exceed it is refused with -EDQUOT; a page that it
 * replaces is given up first, and where there is an overflow file the page goes there.
 * When more is in use, puts fail until it is not. Always 0.
 */
TMEM_API int tmem_client_set_limit(tmem_client *client, uint64_t limit_bytes);
/*
 * When the host is short of memory, the client with the most memory for its weight
 * pays first: of two with equal use, the lighter one. 1 .. TMEM_WEIGHT_MAX, 100 at
 * first. -EINVAL: refused, the old one kept.
 */
#define TMEM_WEIGHT_MAX 10000u
TMEM_API int tmem_client_set_weight(tmem_client *client, uint32_t weight);

/* The original ABI's flags. */
#define TMEM_POOL_PERSIST	 1u /* pages stay until invalidated (T6) */
#define TMEM_POOL_SHARED	 2u /* set by tmem_pool_create_shared() only */
#define TMEM_POOL_PRECOMPRESSED	 4u /* holds bytes that the caller compressed: tmem_put_bytes() */
#define TMEM_POOL_PAGE_SIZE_MASK 0xf0u /* shift above 4096; only 0 is supported */
/* Ours: an ephemeral pool whose pages take long to have again. */
#define TMEM_POOL_COSTLY	 0x100u

/*
 * A new empty pool. shards: how many locks, 2^n; 0: 256. Without
 * TMEM_POOL_PERSIST it is *ephemeral*: its pages may be gone at any time, and
 * a get removes the page that it finds. Pool id; -ENOMEM; -EDQUOT: the client's
 * limit; -EINVAL: shards, or flags that are unknown or do not go together;
 * -EOPNOTSUPP: another page size.
 *
 * TMEM_POOL_COSTLY, with an ephemeral pool: of two pages of one client, one in such
 * a pool and one in another, the other goes sixteen times as readily. For a client
 * that knows what its pages cost to have again: one at a time from a slow disk, or
 * many in one request. Between clients it makes no difference.
 */
TMEM_API tmem_pool tmem_pool_create(tmem_client *client, uint32_t flags,
				    uint32_t shards) TMEM_CHECK;
/*
 * A shared ephemeral pool: clients of one host that give the same UUID see the
 * same pages. The first to name it makes it; it goes when the last has
 * destroyed its id. A get keeps the page, and an invalidation or flush by one
 * is for all. Others may only join what its maker allowed them to
 * (tmem_pool_allow()); when the maker has gone, that stays as it was. flags: 0;
 * shards count for the maker. Pool id; -EACCES: not allowed to join;
 * -EOPNOTSUPP: TMEM_POOL_PERSIST or another page size; -EINVAL; -ENOMEM.
 */
TMEM_API tmem_pool tmem_pool_create_shared(tmem_client *client, const uint8_t uuid[16],
					   uint32_t flags, uint32_t shards) TMEM_CHECK;
/*
 * Who may join a shared pool that this client made: `other`, a client of the
 * same host, or everybody (NULL). allow = 0 takes it back; who is inside stays.
 * 0; -ENOENT; -EINVAL: not a shared pool; -EPERM: not its maker; -ENOMEM.
 */
TMEM_API int tmem_pool_allow(tmem_client *client, tmem_pool pool, tmem_client *other,
			     int allow) TMEM_CHECK;
/* Empties and removes the pool; sleeps until calls that are inside it have left. -ENOENT. */
TMEM_API int tmem_pool_destroy(tmem_client *client, tmem_pool pool);
/*
 * The codec of later puts into the pool, NAME or NAME:LEVEL; NULL: the host's
 * again. 0; -ENOENT: no such pool; -EINVAL: unknown codec; -ERANGE: no such
 * level; -ENOMEM. After a failure the old one is kept. A clone inherits it.
 */
TMEM_API int tmem_pool_set_codec(tmem_client *client, tmem_pool pool, const char *codec) TMEM_CHECK;

/* What became of a training. */
typedef struct tmem_train_result {
	size_t size; /* sizeof(tmem_train_result), set by the caller */
	uint64_t sampled_pages, judged_pages;
	uint64_t kept;			      /* 1: it is the pool's now */
	uint64_t frames_before, frames_after; /* the pool's, as estimated from the judged pages */
} tmem_train_result;
/*
 * Train a dictionary of about dict_bytes (4096..65536; 0: 32 KiB) from a sample
 * of the pool's pages, at the pool's level if its codec is zstd, else at 3. It
 * is kept if the pool would take at least 1 % fewer frames, judged by pages that
 * it was not trained on. From then on puts of single pages use it while the
 * pool's codec is zstd, and recompression to zstd does; stored pages keep the
 * dictionary that they were made with alive. A clone inherits it.
 *
 * 0, also when it was not kept; -ENODATA: fewer than 96 pages stored alone, or
 * nothing in common; -ENOMEM (takes some 8 MiB while it runs); -ENOSPC: 256
 * dictionaries live; -EOPNOTSUPP: a shared pool; -ENOENT; -EINVAL. After a
 * failure the pool has what it had. Takes 0.1 s and more.
 */
TMEM_API int tmem_pool_train(tmem_client *client, tmem_pool pool, uint32_t dict_bytes,
			     tmem_train_result *result);
/* Later puts do without a dictionary. 0 or -ENOENT. */
TMEM_API int tmem_pool_drop_dictionary(tmem_client *client, tmem_pool pool);
/* Drop all pages, keep the pool. Pages dropped, or -ENOENT. In bounded batches. */
TMEM_API int64_t tmem_pool_flush(tmem_client *client, tmem_pool pool);
/*
 * A new pool of the same client that holds the same pages. The stored data is
 * shared and counted once; each pool then changes by itself. Puts into the
 * source that run at the same time may or may not be in the copy. Pool id; on
 * failure (-ENOENT, -ENOMEM, -EDQUOT; -EOPNOTSUPP: a shared pool) there is no new pool.
 */
TMEM_API tmem_pool tmem_pool_clone(tmem_client *client, tmem_pool pool) TMEM_CHECK;
/*
 * Whether what is stored for a page is shared with another pool now, so that
 * dropping it here would free nothing. 1, 0 or -ENOENT: no such page or pool.
 */
TMEM_API int tmem_page_shared(tmem_client *client, tmem_pool pool, const tmem_oid *oid,
			      uint64_t index);

/* ---- tunables ------------------------------------------------------------------ */

/* What can be changed while the store runs; see docs/tunables.md. The strings are static. */
typedef struct tmem_tunable {
	const char *name;
	const char *of;	   /* "host" or "client" */
	const char *unit;  /* "bytes", "percent", ... */
	const char *range; /* what is allowed, in words */
	const char *meaning;
} tmem_tunable;
/* All of them, in a fixed order; at most `max` are written to out. How many there are. */
TMEM_API int tmem_tunable_list(tmem_tunable *out, unsigned max);
/*
 * Set one, in effect at once: of the host, with client NULL, or of that client. Numbers are
 * decimal; bytes may have K, M, G or T after them (1024). 0; -ENOENT: no such tunable;
 * -EINVAL: not allowed; -ENOMEM. After any failure the old value is kept, and err (of
 * errlen bytes, may be NULL) has one line that says what is allowed.
 */
TMEM_API int tmem_tunable_set(tmem_host *host, tmem_client *client, const char *name,
			      const char *value, char *err, size_t errlen) TMEM_CHECK;
/* Its value as text that tmem_tunable_set() takes. 0, -ENOENT, -ENOSPC (len too small). */
TMEM_API int tmem_tunable_get(tmem_host *host, tmem_client *client, const char *name, char *text,
			      size_t len) TMEM_CHECK;

/* ---- save and restore --------------------------------------------------------- */

/* An id that a pool had when it was saved, and the one that it has now. */
typedef struct tmem_pool_pair {
	tmem_pool was, is;
} tmem_pool_pair;

/* What goes into a save or restore, and what comes out of it. Fields are only ever added. */
typedef struct tmem_save {
	size_t size; /* sizeof(tmem_save): set by TMEM_SAVE */
	/* Called every some thousand pages; total is 0 if unknown. Not 0: stop (-ECANCELED). */
	int (*progress)(void *arg, uint64_t pages, uint64_t total);
	void *arg;
	tmem_pool_pair *pool; /* restore: room for the pools' ids, pool_room of them; or NULL */
	uint32_t pool_room;
	/* Out. */
	uint32_t pools;
	uint64_t pages, zpages, bytes; /* bytes: of the file */
	uint64_t offset;	       /* where in the file the damage was found */
	char error[160];	       /* one line, if it failed */
	/* In. */
	uint32_t ephemeral; /* save: 1: pools that are ephemeral, too */
	uint32_t own;	    /* restore: 1: only a file of this user that nobody else may write to */
} tmem_save;
#define TMEM_SAVE ((tmem_save){.size = sizeof(tmem_save)})

/*
 * Write the client's persistent pages to a file, compressed as they are. Pools that are
 * shared are left out, and so are ephemeral ones unless io->ephemeral is set. Nothing is stopped
 * meanwhile: each page is as it was at some moment of the call, and pages that came or went may or
 * may not be in it (pools that came are not); freeze the client to save one instant. Pools cannot
 * be destroyed before it ends. The file has its name when it is complete and on the disk. io may be
 * NULL. May take long; allocates some 300 KiB and 40 bytes for 64 pages, not charged to the host.
 * 0; -ENOMEM; -EIO: a stored page is damaged; -EOPNOTSUPP: a precompressed pool; -EBUSY: a pool was
 * destroyed meanwhile, or somebody is saving to that name; -EINVAL; -ECANCELED; or the error of the
 * file. After any failure there is no new file, an older one of that name is as it was, and the
 * store is, too; but if all that failed was to make the file's name last, the file is there, and
 * io->error says so.
 */
TMEM_API int tmem_client_save(tmem_client *client, const char *path, tmem_save *io) TMEM_CHECK;
/*
 * Make a client from such a file: all of it, or nothing (but ephemeral pages, for which the
 * host has no room, are evicted as always). Its pools have new ids, see
 * io->pool (in the order of the file; io->pools says how many there are). io may be NULL.
 * May take long; allocates some 300 KiB, not charged. 0; -EINVAL: not such a file at all; -EBADMSG:
 * cut short, or damaged: io->offset and io->error say where and how; -EPERM: another user could
 * have written it, and io->own is set (who forges one decides what its pages hold); -EOPNOTSUPP:
 * from a newer version, or needs a codec that is not here; -E2BIG: holds a zpage that is too large
 * for the host's allocator (zbud takes less than a page, zsmalloc clusters of 16); -ENOMEM,
 * -ECANCELED; or the error of the file. After any failure there is no new client,
 * and *out is NULL.
 */
TMEM_API int tmem_client_restore(tmem_host *host, const char *path, tmem_save *io,
				 tmem_client **out) TMEM_CHECK;

/* ---- pages ---------------------------------------------------------------- */

/*
 * Copy a page (TMEM_PAGE_SIZE bytes) in. -ENOENT no such pool; -ENOMEM limit
 * or memory; -EDQUOT the client's limit; -E2BIG compresses too poorly; -EAGAIN frozen. After any
 * failure the handle holds nothing.
 */
TMEM_API int tmem_put(tmem_client *client, tmem_pool pool, const tmem_oid *oid, uint64_t index,
		      const void *page) TMEM_CHECK;
/* The page was never used since it was read in: an ephemeral pool keeps it if memory is plenty. */
#define TMEM_PUT_INACTIVE 1u
/*
 * The same with flags. An inactive page is refused (-ECANCELED) when more than
 * accept_percent of the limit or of the target is in use, or the machine is
 * short of memory. -EINVAL: unknown flags; then nothing was changed.
 */
TMEM_API int tmem_put_flags(tmem_client *client, tmem_pool pool, const tmem_oid *oid,
			    uint64_t index, const void *page, uint32_t flags) TMEM_CHECK;
/*
 * Copy a page out. From a persistent pool or a shared one it stays; from a
 * private ephemeral one it is removed, as by tmem_get_and_invalidate(). 0; 1:
 * absent; -EIO: what is stored fails its checksum (page is untouched; what
 * stays stays for inspection); -ENOENT.
 */
TMEM_API int tmem_get(tmem_client *client, tmem_pool pool, const tmem_oid *oid, uint64_t index,
		      void *page) TMEM_CHECK;
/* The same, and the page stays whatever the pool. An ephemeral one will be evicted later for it. */
TMEM_API int tmem_get_keep(tmem_client *client, tmem_pool pool, const tmem_oid *oid, uint64_t index,
			   void *page) TMEM_CHECK;
/*
 * The same, and the handle is empty afterwards. Of concurrent callers exactly
 * one gets the page. After -EIO a damaged page that was in memory is gone; one
 * in the overflow file is still there, for the next read may be well.
 */
TMEM_API int tmem_get_and_invalidate(tmem_client *client, tmem_pool pool, const tmem_oid *oid,
				     uint64_t index, void *page) TMEM_CHECK;
/*
 * Pools with TMEM_POOL_PRECOMPRESSED hold bytes, 1 to 4096 of them for each
 * handle, that the caller compressed: they are kept as they are, with a
 * checksum, and given back as they are. Calls that put or get pages return
 * -EINVAL there, and these two do in other pools; all else is as for pages.
 *
 * put: as tmem_put(); -EINVAL: size. get: as tmem_get(); `bytes` has room for
 * 4096, *size (never NULL) becomes how many they are.
 */
TMEM_API int tmem_put_bytes(tmem_client *client, tmem_pool pool, const tmem_oid *oid,
			    uint64_t index, const void *bytes, size_t size) TMEM_CHECK;
TMEM_API int tmem_get_bytes(tmem_client *client, tmem_pool pool, const tmem_oid *oid,
			    uint64_t index, void *bytes, size_t *size) TMEM_CHECK;
/* 1: a page was dropped; 0: there was none; -ENOENT. */
TMEM_API int tmem_invalidate_page(tmem_client *client, tmem_pool pool, const tmem_oid *oid,
				  uint64_t index);
/* Pages dropped, or -ENOENT. In bounded batches. n pages from index on / the whole object. */
TMEM_API int64_t tmem_invalidate_range(tmem_client *client, tmem_pool pool, const tmem_oid *oid,
				       uint64_t index, uint64_t n);
TMEM_API int64_t tmem_invalidate_object(tmem_client *client, tmem_pool pool, const tmem_oid *oid);

/*
 * Clusters: neighbours compressed together, denser than one by one.
 *
 * put: n (1..TMEM_CLUSTER_MAX) pages, contiguous at `pages`, for index ..
 * index+n-1, all in one 64-aligned group of indexes. All or none, as tmem_put.
 */
TMEM_API int tmem_put_cluster(tmem_client *client, tmem_pool pool, const tmem_oid *oid,
			      uint64_t index, unsigned n, const void *pages) TMEM_CHECK;
/*
 * get: the page at index and whatever lives with it. `buf` has room for
 * TMEM_CLUSTER_MAX pages; *first is the index of the page at buf, and bit i of
 * *mask says that page first+i is valid at buf + i*4096. A page stored alone
 * comes alone. With invalidate != 0 all pages of the mask are removed. Returns as tmem_get.
 */
TMEM_API int tmem_get_cluster(tmem_client *client, tmem_pool pool, const tmem_oid *oid,
			      uint64_t index, int invalidate, void *buf, uint64_t *first,
			      uint32_t *mask) TMEM_CHECK;

/* ---- sight ---------------------------------------------------------------- */

/*
 * All counters since the host was made, summed over threads. Not a snapshot of
 * one instant while others run. Fields are only ever added, at the end.
 */
typedef struct tmem_stats {
	size_t size; /* sizeof(tmem_stats), set by the caller */
	/* now */
	uint64_t pages;		    /* readable pages */
	uint64_t same_filled_pages; /* of those, kept in the index word */
	uint64_t zpages;	    /* stored compressed objects (a cluster is one) */
	uint64_t compressed_bytes;  /* sum of their compressed sizes */
	uint64_t store_bytes;	    /* all memory charged to the host: frames, index, everything */
	uint64_t store_peak_bytes;
	uint64_t limit_bytes;
	uint64_t frame_bytes; /* of store_bytes: frames of the allocator */
	uint64_t meta_bytes;  /* of store_bytes: all the rest */
	uint64_t objects, nodes, pools, clients;
	uint64_t overflow_pages; /* pages in the overflow file */
	uint64_t overflow_bytes;
	/* ever */
	uint64_t puts, puts_ok, puts_same_filled, puts_replaced;
	uint64_t puts_poor, puts_nomem, puts_frozen; /* refused, by reason */
	uint64_t puts_raw;			     /* poor ones kept raw */
	uint64_t gets, gets_found, gets_missed;
	uint64_t checksum_failures;
	uint64_t invalidates, invalidates_found; /* pages */
	uint64_t object_invalidates, pool_flushes;
	uint64_t shared_pages;	  /* pages that a clone shared */
	uint64_t compacted_bytes; /* returned to the OS by compaction */
	uint64_t moved_zpages;
	uint64_t puts_full;    /* of puts_nomem: refused by the accept threshold, unlooked */
	uint64_t gets_removed; /* pages that gets took out */
	uint64_t evicted_pages, evicted_zpages, evicted_bytes; /* ephemeral; bytes: compressed */
	/* evicted_pages by reason */
	uint64_t eph_ate_tail; /* for a put into an ephemeral pool */
	uint64_t pers_ate_eph; /* for a put into a persistent pool */
	uint64_t evicted_shrink, evicted_target, evicted_idle, evicted_pressure;
	uint64_t evicted_driver;      /* by the allocator's own shrink */
	uint64_t puts_packed;	      /* pages that compressed to max_zsize or less */
	uint64_t puts_mean_poor;      /* of puts_poor: above max_mean_zsize, and the mean was too */
	uint64_t puts_mean_passed;    /* above max_mean_zsize, but the mean was not */
	uint64_t puts_inactive;	      /* refused: TMEM_PUT_INACTIVE while memory was short */
	uint64_t puts_inactive_ok;    /* TMEM_PUT_INACTIVE, kept */
	uint64_t overflow_file_bytes; /* now: of the file, in use */
	uint64_t overflow_moved_pages, overflow_direct_pages; /* from memory; as they came */
	uint64_t overflow_returned_pages;		      /* back to memory */
	uint64_t overflow_second_chances;		      /* groups of 8, passed over */
	uint64_t overflow_throttled; /* times that overflow_rate held something up */
	uint64_t overflow_write_errors, overflow_read_errors;
	uint64_t puts_quota;	/* refused: the client's own limit */
	uint64_t evicted_quota; /* evicted for a put of a client at its limit */
	uint64_t gets_failed;	/* present and damaged */
	uint64_t saved_pages, restored_pages;
	uint64_t zpage_bytes;		  /* compressed_bytes and headers: asked of the allocator */
	uint64_t index_bytes;		  /* of meta_bytes: nodes, objects, tables of pools */
	uint64_t client_bytes, own_bytes; /* store_bytes: of clients, and of the host itself */
	uint64_t objects_max, nodes_max;
	uint64_t overflow_zpages;
	uint64_t zpages_made;	 /* ever */
	uint64_t failed_charges; /* frames and metadata that the limit refused */
	/* Recompression: zpages, ever; bytes of the allocator. */
	uint64_t recompress_tried, recompressed, recompress_saved_bytes;
	uint64_t dictionaries, dictionary_bytes; /* now; of store_bytes */
} tmem_stats;
TMEM_API int tmem_host_stats(tmem_host *host, tmem_stats *stats);
/*
 * Whether the identities of docs/statistics.md hold between the values. They do when
 * the statistics were taken while nothing ran. 0; -EINVAL, with one line in err (of
 * errlen bytes; may be NULL) saying which does not.
 */
TMEM_API int tmem_stats_verify(const tmem_stats *stats, char *err, size_t errlen);

/* One statistic of docs/statistics.md. The strings are static. */
typedef struct tmem_stat {
	const char *name;
	const char *unit;    /* "pages", "bytes", ... */
	const char *kind;    /* "now", "ever" (only grows), "max" */
	const char *meaning; /* one line */
	uint64_t value;
} tmem_stat;
/*
 * All statistics of a host, of a client, of a pool, in a fixed order; at most `max` are
 * written to out (may be NULL if max is 0). How many there are, or -ENOENT (no such
 * pool). What a shared pool does counts for the pool, for no client.
 */
TMEM_API int tmem_host_stat_list(tmem_host *host, tmem_stat *out, unsigned max);
TMEM_API int tmem_client_stat_list(tmem_client *client, tmem_stat *out, unsigned max);
TMEM_API int tmem_pool_stat_list(tmem_client *client, tmem_pool pool, tmem_stat *out, unsigned max);

/* The same of a client for programs. Fields are only ever added, at the end. */
typedef struct tmem_client_stats {
	size_t size; /* sizeof(tmem_client_stats), set by the caller */
	char name[64];
	uint64_t pages, same_filled_pages, zpages, compressed_bytes, overflow_pages;
	uint64_t store_bytes, limit_bytes, weight, pools;
	uint64_t puts, puts_ok, gets, gets_found, gets_missed, invalidates_found, evicted_pages;
} tmem_client_stats;
TMEM_API int tmem_client_stats_get(tmem_client *client, tmem_client_stats *stats);
typedef struct tmem_pool_stats {
	size_t size; /* sizeof(tmem_pool_stats), set by the caller */
	uint64_t pages, same_filled_pages, overflow_pages, objects, index_bytes;
	uint64_t puts, puts_ok, gets, gets_found, gets_missed, invalidates_found, evicted_pages;
} tmem_pool_stats;
/* 0, -ENOENT, -EINVAL (size). */
TMEM_API int tmem_pool_stats_get(tmem_client *client, tmem_pool pool, tmem_pool_stats *stats);

/* Distributions. */
typedef enum tmem_histogram_kind {
	TMEM_PUT_NS,	/* time of a put, one in 64 is taken: powers of two */
	TMEM_GET_NS,	/* time of a get */
	TMEM_ZSIZE_NOW, /* zpages in memory by compressed bytes a page, in 64-byte chunks */
	TMEM_ZSIZE_EVER /* zpages ever made */
} tmem_histogram_kind;
typedef struct tmem_histogram {
	const char *unit;
	uint64_t total; /* sum of count[] */
	uint32_t buckets;
	uint64_t most[64]; /* the greatest value that bucket i counts; the last: no end */
	uint64_t count[64];
} tmem_histogram;
/* 0, or -EINVAL for an unknown kind. client: NULL, or of this client alone (sizes only). */
TMEM_API int tmem_host_histogram(tmem_host *host, tmem_client *client, tmem_histogram_kind kind,
				 tmem_histogram *out);
/* Pages in a pool, or -ENOENT. */
TMEM_API int64_t tmem_pool_pages(tmem_client *client, tmem_pool pool);
/*
 * Record all operations on the host in a file (made, or emptied first): what
 * was asked for by which client on which handle, when, and with what result; no
 * contents. See `tmem replay`. Takes some 600 KiB, charged to the host, until
 * the host goes. Puts and gets then take about 0.1 us more, and the thread that
 * fills a buffer writes it. -EBUSY: it is recording already; -ENOMEM; or the
 * error of opening or writing the file.
 */
TMEM_API int tmem_host_trace_start(tmem_host *host, const char *path) TMEM_CHECK;
/*
 * Stop, and complete the file. *records, *lost (NULL is allowed): written, and
 * lost because a write failed. 0; -EINVAL: it was not recording; or the error
 * of the first write that failed. Operations that end meanwhile may be left out.
 */
TMEM_API int tmem_host_trace_stop(tmem_host *host, uint64_t *records, uint64_t *lost);
/*
 * Walk everything and check every invariant. For tests and for `tmem ctl`;
 * takes each lock for as long as its part lasts. 0, or -EINVAL with a line
 * logged for the first damage; -ENOMEM: not looked. Counters are compared only when the caller
 * says that nothing else runs (quiet != 0); maintenance, which nobody calls,
 * then waits until it returns.
 */
TMEM_API int tmem_host_verify(tmem_host *host, int quiet);

#ifdef __cplusplus
}
#endif
#endif
