/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The overflow file from inside; zcache.h has what the other files call. The
 * theory is at the top of overflow.c, the protocol of moving at the top of
 * overflow_move.c.
 */
#ifndef TMEM_ZCACHE_OVERFLOW_H
#define TMEM_ZCACHE_OVERFLOW_H

#include "zcache/zcache.h"

#define OVER_UNIT	 ((size_t)512)
#define OVER_CHUNK_UNITS 4096u
#define OVER_CHUNK_WORDS (OVER_CHUNK_UNITS / 64)

#define OVER_HEAD_UNITS 8u /* at the start of the file: what it is */
#define OVER_TAG	16 /* bytes that sealing adds */
#define OVER_BATCH_MAX	(256u << 10)
#define OVER_BATCH_MIN	(68u << 10) /* the largest zpage fits, sealed and rounded */
#define OVER_CHECK	(16u << 10) /* read back at once */
#define OVER_ITEMS_MAX	(1u << 26)

struct over_item {
	uint64_t unit;
	uint16_t zsize;
	uint16_t dict;	   /* that it needs (dict.h), or 0 */
	uint32_t checksum; /* of the zpage, not of what is in the file if it is sealed */
	_Atomic uint32_t refs;
	uint16_t units;
	uint8_t codec, pages;
	uint32_t seal_low; /* number of the sealing, 56 bits */
	uint16_t seal_mid;
	uint8_t seal_high;
	_Atomic uint8_t reads; /* since it came here; stops at 255 */
};

static inline uint64_t over_seal_number(const struct over_item *it)
{
	return (uint64_t)it->seal_high << 48 | (uint64_t)it->seal_mid << 32 | it->seal_low;
}

struct over_chunk {
	uint32_t free, longest;
	uint64_t used[OVER_CHUNK_WORDS]; /* one bit a unit */
};

/* One zpage on its way into the file. */
struct over_move {
	zpool_handle handle;
	struct zpage *z; /* pinned */
	uint64_t unit;
	arena_id leaf, item; /* item 0: it does not go after all */
	uint32_t at;	     /* in the batch */
	uint16_t units;
	uint8_t slot; /* of its place 0; a word that is there now is at slot + lowest bit of mask */
	uint32_t mask; /* places that have a word */
};

struct over_seal;

struct zc_overflow {
	/* space (overflow_space.c) */
	struct os_mutex lock;
	struct over_chunk **chunk;
	uint32_t chunks, room, hint;
	uint64_t units_used;
	/* bandwidth, under lock */
	_Atomic uint64_t rate; /* bytes a second, 0: any */
	uint64_t tokens, tokens_at_ns;

	struct arena *items;
	int fd;
	char *path;
	size_t path_bytes;
	_Atomic bool complained;	 /* a failed write was logged */
	_Atomic uint64_t retry_after_ns; /* nothing is written before: it failed lately */

	struct over_seal *seal; /* NULL: not sealed */
	_Atomic uint64_t seals; /* numbers given out */

	/* the mover (overflow_move.c) */
	struct os_mutex moving;
	char *batch; /* batch_bytes, and OVER_CHECK for reading back */
	size_t batch_bytes;
	struct over_move *move;
	unsigned moves_max;
	uint64_t freed; /* bytes since the last compaction */
	arena_id hand;	/* overflow_victims.c */

	_Atomic uint8_t *touched; /* 0..3 for each place in the table */
	uint32_t touched_mask;
};

/* ---- overflow_space.c ------------------------------------------------------ */

/* A run of n units, 1 <= n <= OVER_CHUNK_UNITS. `grow`: make the file larger if need be.
 * 0; -ENOSPC: no run, and not to grow; -ENOMEM. */
int over_units_alloc(struct tmem_host *h, struct zc_overflow *o, unsigned n, bool grow,
		     uint64_t *unit) __attribute__((warn_unused_result));
void over_units_free(struct zc_overflow *o, uint64_t unit, unsigned n);
/* Units in chunks that are free. */
uint64_t over_units_free_now(struct zc_overflow *o);
int over_space_verify(struct zc_overflow *o);

/* ---- overflow_file.c -------------------------------------------------------- */

/* Open and make anew; see tmem.h for what is refused. 0 or -errno. */
int over_file_open(struct zc_overflow *o) __attribute__((warn_unused_result));
void over_file_close(struct zc_overflow *o);
const char *over_file_refusal(int rc);
/*
 * Write, wait until the device has it, read it back and compare. 0: it is
 * there. -EIO (it is not what was written), -ENOSPC, ...: counted, logged once,
 * and nothing is written for a second. `moving` is held.
 */
int over_write(struct zc_overflow *o, struct zc_thread *t, const void *buf, size_t bytes,
	       uint64_t unit) __attribute__((warn_unused_result));
/* Whether a write failed lately. */
bool over_failing(const struct zc_overflow *o);
/* How many bytes of `want` may be written now (0 or at least `least`); takes them. */
size_t over_tokens_take(struct zc_overflow *o, size_t least, size_t want);
void over_tokens_return(struct zc_overflow *o, size_t bytes);

/* ---- overflow_seal.c --------------------------------------------------------- */

/* A new key, in memory only. 0; -ENOTSUP: built without libcrypto; -ENOMEM; -EIO: no random. */
int over_seal_create(struct tmem_host *h, struct over_seal **out)
	__attribute__((warn_unused_result));
void over_seal_destroy(struct tmem_host *h, struct over_seal *s);
/* n bytes from src to n + OVER_TAG bytes at dst. The number must not be used twice. 0 or -EIO. */
int over_seal(struct over_seal *s, uint64_t number, const void *src, size_t n, void *dst)
	__attribute__((warn_unused_result));
/* The inverse, in place: n + OVER_TAG bytes become n. Allocates nothing. 0; -EIO: not ours. */
int over_unseal(struct over_seal *s, uint64_t number, void *buf, size_t n)
	__attribute__((warn_unused_result));

/* ---- overflow.c -------------------------------------------------------------- */

static inline struct over_item *over_item(const struct zc_overflow *o, uint64_t item)
{
	return arena_ptr(o->items, (arena_id)item);
}
/* What a zpage of zsize bytes takes in the file. */
static inline size_t over_bytes(const struct zc_overflow *o, size_t zsize)
{
	return zsize + (o->seal ? OVER_TAG : 0);
}
static inline unsigned over_units(const struct zc_overflow *o, size_t zsize)
{
	return (unsigned)((over_bytes(o, zsize) + OVER_UNIT - 1) / OVER_UNIT);
}
/* Bring the bytes of a zpage into the form that the file has, at dst, units long. 0 or -EIO. */
int over_pack(struct zc_overflow *o, struct over_item *it, const void *bytes, char *dst)
	__attribute__((warn_unused_result));

/* ---- overflow_victims.c --------------------------------------------------------- */

int over_victims_create(struct tmem_host *h, struct zc_overflow *o)
	__attribute__((warn_unused_result));
void over_victims_destroy(struct tmem_host *h, struct zc_overflow *o);
/*
 * The mover's source: zpages in memory whose references are all in one leaf and
 * that were not touched lately, oldest first as far as is known, pinned, their
 * sizes in the file `room` bytes at most in all. o->move[0 ..]; how many.
 */
unsigned over_victims(struct tmem_host *h, struct zc_thread *t, size_t room);
/*
 * Whether the words of this locked leaf that name the zpage, as the one at slot
 * does, are all of its references; bit i of mask: place i is among them.
 */
bool over_whole(const struct index_cursor *c, unsigned slot, const struct zpage *z, uint32_t *mask);

#endif
