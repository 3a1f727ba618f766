/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Dictionaries of a host: which ones live, and who keeps them alive.
 *
 * A zpage of codec CODEC_ID_ZSTD_DICT begins with two bytes that say which
 * dictionary it needs; the rest is the stream. Others have no such prefix. The
 * two bytes are a serial number, never that of another live dictionary and
 * not used again before 65535 others were made; 0 is none.
 *
 *   D1  dict.refs = zpages (in the zpool, in the overflow file) that need it
 *                 + pools whose current one it is + callers that hold it
 *   D2  a dictionary goes with its last reference, and not before: while a
 *       word names a zpage that needs it, whoever holds that word's shard may
 *       take another reference
 *
 * Who reads a zpage after its shard is unlocked holds the dictionary as he
 * holds the pin: the zpage may be freed meanwhile, and its reference with it.
 */
#ifndef TMEM_ZCACHE_DICT_H
#define TMEM_ZCACHE_DICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tmem_host;
struct zc_slot;
struct zc_stored;
struct zc_thread;
struct zc_dicts;
struct codec_dict;

#define ZC_DICTS       256u /* at most, at a time */
#define ZC_DICT_PREFIX 2u   /* bytes of a zpage before its stream */

/*
 * A new dictionary with one reference, the caller's. 0; -ENOMEM (memory or
 * limit); -ENOSPC: ZC_DICTS live already; -EINVAL: the content is none.
 */
int zc_dict_make(struct tmem_host *h, const void *content, size_t bytes, int level, uint16_t *id)
	__attribute__((warn_unused_result));
/* One more reference; the caller has one, or D2. */
void zc_dict_ref(struct tmem_host *h, uint16_t id);
/* One less; with the last it is freed. No lock above the emergency's; never fails. */
void zc_dict_unref(struct tmem_host *h, uint16_t id);
/* With a reference. */
const struct codec_dict *zc_dict(struct tmem_host *h, uint16_t id);
/* The pool's current one, referenced for the caller; 0: it has none. Lock-free. */
uint16_t zc_pool_dict(struct zc_slot *s);
/* Make id (with the caller's reference; 0: none) the pool's. */
void zc_pool_set_dict(struct zc_slot *s, uint16_t id);

/* Which dictionary a zpage's bytes need. */
static inline uint16_t zc_dict_of(const void *bytes)
{
	const unsigned char *p = bytes;

	return (uint16_t)(p[0] | p[1] << 8);
}
/* Under the shard's lock: take what `s` needs beside its bytes; s->dict is set. */
void zc_stored_hold(struct tmem_host *h, struct zc_stored *s);
/* And give it back. */
void zc_stored_release(struct tmem_host *h, struct zc_stored *s);
/*
 * Compress one page with dictionary `id` (held by the caller) into dst, prefix
 * included. The size; 0: not within cap. -ENOMEM: no context.
 */
int zc_dict_compress(struct zc_thread *t, uint16_t id, const void *page, void *dst, size_t cap,
		     size_t *size) __attribute__((warn_unused_result));

void zc_dicts_destroy(struct tmem_host *h);
/* Bytes of all that live, and how many they are. */
uint64_t zc_dicts_bytes(struct tmem_host *h, uint64_t *count);
/* D1, given the references of zpages by entry; only right when nothing else runs. 0 or -EINVAL. */
int zc_dicts_verify(struct tmem_host *h, const double zpages[ZC_DICTS]);

#endif
