/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Local page-addressable memory: zpages in the zpool, their references, and
 * how they move under readers and writers (T11).
 *
 * Two directions meet here. Gets and puts come top-down: shard lock, word,
 * zpage. The allocator's compaction comes bottom-up: its class lock, a zpage,
 * and from that zpage's header to the leaf that names it. The protocol:
 *
 *   top-down                               bottom-up (zc_move)
 *     lock shard                             class lock held, zpage allocated
 *     find word -> handle                    and movable: its memory stays
 *     zpool_map(handle)      [pin]           L = header.leaf   (may be stale)
 *     unlock shard                           lock the shard of leaf L
 *     ... read compressed bytes ...          count the words in L that name us
 *     zpool_unmap(handle)    [unpin]         (M) words == refs?  else refuse
 *                                            copy, words := new handle, unlock
 *                                            driver frees the old place
 *
 * What makes it sound is one equation. Every way to know a handle is counted:
 *
 *   I1  refs(z) = words in leaves that name z
 *               + words taken out of leaves and not yet dropped
 *               + references that a clone took and has not yet linked
 *
 * so (M) says that under this one shard lock lie all references there are:
 * nobody can be about to free, clone or overwrite z, and nobody can find it
 * but through this lock. No state says "shared" or "being moved"; a zpage that
 * a clone shares is refused because its words are in two leaves, and may move
 * again as soon as one of the two has gone.
 *
 *   I2  a thread that reads z's bytes outside the shard lock has z pinned, and
 *       took the pin under the lock of a shard that held one of z's words
 *
 * A pin can therefore not appear while zc_move holds the lock, and a pin that
 * was taken before it (the driver looked at the pins before we locked) is a
 * reader of bytes that never change: it reads on in the old place, which the
 * driver, freeing it, keeps as dying until the last unpin. The driver also
 * looks at the pins first, so that this is rare.
 *
 *   I3  header.leaf is only a hint: of a movable zpage it names a leaf where
 *       its words are or once were. A stale hint costs a move, never more,
 *       since (M) is checked in the leaf found. It is written before the zpage
 *       is movable, by zc_move, and by adoption (share.c), each time with all
 *       references in hand.
 *   I4  zsize, checksum, codec, slot and pages never change once linked
 *
 * A zpage that is freed cannot be seen by zc_move at all: freeing takes the
 * class lock.
 *
 * References of a page alone live in five bits of info (up to 32 words: a
 * process and 31 forks of it; share.c copies when there are more), so that the
 * ordinary zpage has no counter at all. A cluster's are in refs.
 *
 * Locks: class (held by the driver) < bottom-up < shard. Nothing is allocated
 * or freed here under a shard.
 */
#include "zcache/zcache.h"

/* ---- references ------------------------------------------------------------ */

bool zpage_ref(struct zpage *z, unsigned n)
{
	uint16_t *info = ZPAGE_FIELD(z, uint16_t, info), *refs = ZPAGE_FIELD(z, uint16_t, refs);
	uint16_t old = zpage_info(z, __ATOMIC_RELAXED), new;

	if (old & ZPAGE_CLUSTER) {
		old = __atomic_load_n(refs, __ATOMIC_RELAXED);
		do {
			if (old + n > ZPAGE_REFS_MAX)
				return false;
			new = (uint16_t)(old + n);
		} while (!__atomic_compare_exchange_n(refs, &old, new, true, __ATOMIC_ACQ_REL,
						      __ATOMIC_RELAXED));
		return true;
	}
	do {
		if ((unsigned)(old >> ZPAGE_COUNT_SHIFT) + n > ZPAGE_COUNT_MAX)
			return false;
		new = (uint16_t)(old + n * ZPAGE_COUNT_ONE);
	} while (!__atomic_compare_exchange_n(info, &old, new, true, __ATOMIC_ACQ_REL,
					      __ATOMIC_RELAXED));
	return true;
}

bool zpage_unref(struct zpage *z, unsigned n)
{
	uint16_t info = zpage_info(z, __ATOMIC_ACQUIRE), old;

	if (info & ZPAGE_CLUSTER) {
		old = __atomic_fetch_sub(ZPAGE_FIELD(z, uint16_t, refs), (uint16_t)n,
					 __ATOMIC_ACQ_REL);
		tmem_assert(I1, old >= n);
		return old == n;
	}
	tmem_assert(I1, n == 1);
	/* The only reference is ours: nobody can add one, so no atomic is needed. */
	if (tmem_likely(info >> ZPAGE_COUNT_SHIFT == 0))
		return true;
	/* Of several that get here at once, the last finds 0; the count wraps, and is freed. */
	old = __atomic_fetch_sub(ZPAGE_FIELD(z, uint16_t, info), ZPAGE_COUNT_ONE, __ATOMIC_ACQ_REL);
	return old >> ZPAGE_COUNT_SHIFT == 0;
}

unsigned zc_words_of(const struct index_cursor *c, unsigned slot, unsigned pages, uint32_t *mask)
{
	uint64_t place0 = c->words[slot] & ~((uint64_t)15 << ZC_PLACE_SHIFT);
	unsigned first = slot - zc_word_place(c->words[slot]), found = 0;

	*mask = 0;
	for (unsigned i = 0; i < pages && first + i < INDEX_FANOUT; i++) {
		if (!zc_word_same(c->words[first + i], place0 | (uint64_t)i << ZC_PLACE_SHIFT) ||
		    *c->immediate >> (first + i) & 1)
			continue;
		*mask |= 1u << i;
		found++;
	}
	return found;
}

/* ---- making and freeing ------------------------------------------------------ */

static void count_zpage(struct zc_thread *t, uint16_t info, size_t zsize, bool made)
{
	unsigned bucket = zc_zsize_bucket(zsize, zpage_pages(info));
	struct zc_counts *k = t->counts;

	zc_count(t, ZC_ZPAGES_NOW, made ? 1 : -1ull);
	zc_count(t, ZC_ZBYTES_NOW, made ? zsize : -(uint64_t)zsize);
	zc_count(t, ZC_ZALLOC_NOW, (made ? 1 : -1ull) * (zpage_head(info) + zsize));
	zc_add(k, made ? &k->made[bucket] : &k->freed[bucket], 1);
	if (made) {
		zc_count(t, ZC_ZPAGES_EVER, 1);
		zc_count(t, ZC_ZBYTES_EVER, zsize);
	}
}

int zpage_make(struct tmem_host *h, struct zc_thread *t, const struct zc_stored *s, unsigned refs,
	       zpool_handle *out)
{
	uint16_t info = (uint16_t)(s->codec << ZPAGE_CODEC_SHIFT);
	struct zpage *z;
	int rc;

	if (s->pages > 1)
		info |= (uint16_t)(ZPAGE_CLUSTER | (s->pages - 1) << ZPAGE_COUNT_SHIFT);
	else
		info |= (uint16_t)((refs - 1) << ZPAGE_COUNT_SHIFT);
	if (tmem_unlikely(!zc_charge(t, zpage_head(info) + s->zsize)))
		return -EDQUOT;
	rc = zpool_malloc_flags(h->zpool, zpage_head(info) + s->zsize,
				s->ephemeral ? ZPOOL_EPHEMERAL : 0, out);
	if (tmem_unlikely(rc)) { /* larger than the allocator can hold: too poor for it */
		zc_uncharge(t, zpage_head(info) + s->zsize);
		return rc == -EINVAL ? -E2BIG : rc;
	}
	z = zpool_peek(h->zpool, *out);
	tmem_assert(zpage.layout, ((uintptr_t)z & 3) == 2);
	/* The place is cold: let its lines come while the checksum is made. */
	for (size_t i = 0; i < zpage_head(info) + s->zsize; i += 64)
		__builtin_prefetch((char *)z + i, 1);
	if (tmem_unlikely(s->codec == CODEC_ID_ZSTD_DICT))
		zc_dict_ref(h, zc_dict_of(s->bytes));
	z->checksum = s->fresh ? zc_checksum(s->bytes, s->zsize) : s->checksum;
	z->zsize = (uint16_t)s->zsize;
	z->leaf = 0;
	z->info = info;
	if (s->pages > 1)
		z->refs = (uint16_t)refs;
	memcpy(zpage_bytes(z, info), s->bytes, s->zsize);
	count_zpage(t, info, s->zsize, true);
	return 0;
}

void zpage_place(struct tmem_host *h, zpool_handle handle, uint32_t leaf, unsigned slot)
{
	struct zpage *z = zpool_peek(h->zpool, handle);

	z->info |= (uint16_t)slot;
	zpage_set_leaf(z, leaf);
	zpool_set_movable(h->zpool, handle, true);
}

/* Nobody refers to it any more, so what it says of itself cannot change. */
void zpage_free(struct tmem_host *h, struct zc_thread *t, zpool_handle handle)
{
	struct zpage *z = zpool_peek(h->zpool, handle);
	uint16_t info = zpage_info(z, __ATOMIC_RELAXED);
	size_t zsize = z->zsize;

	count_zpage(t, info, zsize, false);
	if (tmem_unlikely(zpage_codec(info) == CODEC_ID_ZSTD_DICT))
		zc_dict_unref(h, zc_dict_of(zpage_bytes(z, info)));
	zpool_free(h->zpool, handle);
	zc_uncharge(t, zpage_head(info) + zsize);
}

/* ---- words that left the index -------------------------------------------------- */

/*
 * Reading the zpage without pin or lock is right: the references that are
 * given up here keep it where it is (M).
 */
static void drop_local(struct tmem_host *h, struct zc_thread *t, zpool_handle handle, unsigned n)
{
	if (zpage_unref(zpool_peek(h->zpool, handle), n))
		zpage_free(h, t, handle);
}

void zc_drop(struct tmem_host *h, struct zc_thread *t, const struct pampd *p, unsigned n)
{
	unsigned i, run;

	for (i = 0; i < n; i += run) {
		uint64_t handle = zc_word_handle(p[i].word);
		unsigned kind = zc_word_kind(p[i].word);

		run = 1;
		if (p[i].immediate) {
			zc_count(t, ZC_SAME_NOW, -1ull);
			continue;
		}
		/* Neighbours of one cluster give up their references together. */
		while (i + run < n && !p[i + run].immediate &&
		       zc_word_handle(p[i + run].word) == handle &&
		       zc_word_kind(p[i + run].word) == kind &&
		       zc_word_place(p[i + run].word) != zc_word_place(p[i].word))
			run++;
		if (kind == ZC_LOCAL) {
			drop_local(h, t, handle, run);
		} else {
			zc_count(t, ZC_OVER_WORDS_NOW, -(uint64_t)run);
			zc_overflow_unref(h, t, handle, run);
		}
	}
}

static void pam_drop(void *ctx, const struct pampd *p, unsigned n)
{
	struct zc_slot *s = ctx;
	struct zc_was was;
	struct zc_thread *t = zc_thread_enter_other(s->host, s, &was);

	zc_words_left(s, n);
	zc_drop(s->host, t, p, n);
	zc_thread_leave_other(t, &was);
}

/*
 * Metadata that the index takes for a pool. Leaves and objects come and go once in
 * many pages, through an arena's lock: two atomics beside it are nothing. And this
 * may be called under a shard, so no thread state can be looked for.
 */
static bool pam_charge(void *ctx, uint64_t bytes)
{
	struct zc_slot *s = ctx;

	if (!zc_client_charge(s->client, bytes))
		return false;
	zc_add(&s->spare, &s->spare.count[ZC_META_NOW], bytes);
	return true;
}

static void pam_uncharge(void *ctx, uint64_t bytes)
{
	struct zc_slot *s = ctx;

	zc_add(&s->spare, &s->spare.count[ZC_META_NOW], -bytes);
	zc_client_uncharge(s->client, bytes);
}

/* Pins a local zpage; for users of index_get(). The host itself uses cursors. */
static int pam_take(void *ctx, struct pampd p, void *taken)
{
	struct zc_slot *s = ctx;
	struct zpage **z = taken;

	*z = NULL;
	if (p.immediate)
		return 0;
	if (zc_word_kind(p.word) != ZC_LOCAL)
		return -ENOTSUP;
	*z = zpool_map(s->host->zpool, zc_word_handle(p.word));
	return *z ? 0 : -EBUSY;
}

const struct pam_ops zc_pam = {
	.take = pam_take,
	.drop = pam_drop,
	.charge = pam_charge,
	.uncharge = pam_uncharge,
};

/* ---- bottom-up -------------------------------------------------------------------- */

static bool zc_move(void *ctx, zpool_handle from, void *src, zpool_handle to, void *dst,
		    size_t size)
{
	struct tmem_host *h = ctx;
	struct zpage *z = src;
	uint16_t info = zpage_info(z, __ATOMIC_ACQUIRE);
	unsigned slot = zpage_slot(info), pages = zpage_pages(info), words = 0;
	uint64_t was = zc_word(ZC_LOCAL, 0, from);
	struct index_cursor c;
	uint32_t mask = 0;
	bool moved = false;

	if (!index_lock_leaf(h->index, zpage_leaf(z), &c))
		return false;
	for (unsigned i = 0; i < pages && slot + i < INDEX_FANOUT; i++) {
		uint64_t place = (uint64_t)i << ZC_PLACE_SHIFT;

		if (!zc_word_same(c.words[slot + i], was | place) || *c.immediate >> (slot + i) & 1)
			continue;
		mask |= 1u << i;
		words++;
	}
	/* (M); refs is read under the lock, with info again for a page alone. */
	if (words && words == zpage_refs(z, zpage_info(z, __ATOMIC_ACQUIRE))) {
		tmem_assert(I4, zpage_head(info) + z->zsize <= size);
		(void)size;
		memcpy(dst, src, zpage_head(info) + z->zsize);
		for (; mask; mask &= mask - 1) {
			unsigned i = (unsigned)__builtin_ctz(mask);
			struct pampd p = {(c.words[slot + i] & ~ZC_HANDLE_MASK) | to, false};

			index_cursor_set(&c, slot + i, p);
		}
		moved = true;
	}
	index_unlock(&c);
	return moved;
}

const struct zpool_owner zc_owner = {.move = zc_move, .evict = zc_evict_zpage};
