/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sharing: a pool that starts as a copy of another (fork).
 *
 * A clone shares zpages by reference counts (I1 in pam_local.c) and nothing
 * else: no state, no transitions. Leaf by leaf, under the source's shard lock,
 * a reference is taken for each word and the word noted; after the unlock the
 * notes are linked into the new pool, which nobody can name yet, at the same
 * object, index and so slot. Two shards are never held at once.
 *
 *   source leaf  [w w . w]      lock, ref each, note, unlock
 *   new leaf     [w w . w]      lock, link the notes, unlock
 *
 * A word that is present in the source from beginning to end is seen: its leaf
 * exists all the while, so the first walk lists it. What changes meanwhile may
 * be in the copy or not. A listed id may be another leaf's by the time it is
 * copied, whose pages came by their own id, or will: the first word at a handle
 * of the copy stays, and what would be the second is let go.
 *
 * Count full. A page alone has room for 32 references. When they are used up,
 * the zpage is copied, and the copy takes the place of the original in the
 * source, so that the next 31 clones of the same source share that.
 *
 * Adoption. A shared zpage names one leaf in its header, usually the source's.
 * When that word has gone and all that is left lies in another leaf, the
 * zpage cannot be moved, because compaction looks in the wrong place. After a
 * cloned pool has ended, and now and then, zc_adopt() walks cloned pools and
 * lets each leaf write itself into the zpages that it alone refers to. That is
 * safe for the reason that moving is: all references are under the lock held.
 *
 * Failure: the new pool is destroyed with what it has got so far.
 */
#include "os/clock.h"
#include "zcache/trace.h"
#include "zcache/zcache.h"

#define ADOPT_PAUSE_NS 10000000000ull

/* ---- one leaf ------------------------------------------------------------------------ */

struct leaf_copy {
	struct tmem_host *h;
	struct zc_thread *t;
	struct zc_slot *from, *to;
	arena_id leaf; /* of the source */
	struct index_oid oid;
	uint64_t base;
	bool linked;	     /* into the new leaf: it goes with its pool */
	uint64_t have, full; /* slots with a word; of those, no reference could be had */
	struct pampd word[INDEX_FANOUT];
	struct zpage *pinned[INDEX_FANOUT]; /* of full ones */
};

/* A zpage that is pinned here may need a dictionary: hold that, too, or let go of it. */
static void hold_dict(struct leaf_copy *k, unsigned slot, bool hold)
{
	struct zc_stored s;

	zc_stored_of(k->pinned[slot], &s);
	if (s.codec != CODEC_ID_ZSTD_DICT)
		return;
	if (hold)
		zc_stored_hold(k->h, &s);
	else
		zc_dict_unref(k->h, zc_dict_of(s.bytes));
}

/* Note one word and take a reference; the source's shard is locked. */
static int note_word(struct leaf_copy *k, unsigned slot, struct pampd p)
{
	uint64_t handle = zc_word_handle(p.word);

	if (p.immediate) {
		zc_count(k->t, ZC_SAME_NOW, 1);
	} else if (zc_word_kind(p.word) == ZC_OVERFLOW) {
		zc_overflow_ref(k->h, handle);
		zc_count(k->t, ZC_OVER_WORDS_NOW, 1);
	} else if (!zpage_ref(zpool_peek(k->h->zpool, handle), 1)) {
		k->pinned[slot] = zpool_map(k->h->zpool, handle);
		if (!k->pinned[slot])
			return -ENOMEM;
		k->full |= (uint64_t)1 << slot;
		hold_dict(k, slot, true);
	}
	k->word[slot] = p;
	k->have |= (uint64_t)1 << slot;
	return 0;
}

/* False: the leaf has gone, or is another pool's now. */
static bool note_leaf(struct leaf_copy *k, int *rc)
{
	struct index_cursor c;
	bool ours;

	k->have = k->full = 0;
	k->linked = false;
	if (!index_lock_leaf(k->h->index, k->leaf, &c))
		return false;
	ours = c.pool == k->from->pool;
	if (ours) {
		index_cursor_oid(&c, &k->oid);
		k->base = c.base;
		for (unsigned slot = 0; slot < INDEX_FANOUT && *rc == 0; slot++)
			if (index_cursor_present(&c, slot))
				*rc = note_word(k, slot, index_cursor_get(&c, slot));
	}
	index_unlock(&c);
	return ours;
}

/* The copy takes the original's place in the source, if that has not changed. */
static void switch_source(struct leaf_copy *k, uint64_t slots, uint64_t from, uint64_t to)
{
	unsigned n = (unsigned)__builtin_popcountll(slots), dropped = 0;
	struct pampd old[TMEM_CLUSTER_MAX];
	struct index_cursor c;
	bool same = true;

	if (!index_lock_leaf(k->h->index, k->leaf, &c))
		return;
	same = c.pool == k->from->pool;
	for (uint64_t m = slots; m && same; m &= m - 1) {
		unsigned slot = (unsigned)__builtin_ctzll(m);

		same = zc_word_same(c.words[slot], k->word[slot].word) &&
		       !(*c.immediate >> slot & 1) && zc_word_handle(c.words[slot]) == from;
	}
	if (same && zpage_ref(zpool_peek(k->h->zpool, to), n)) {
		for (uint64_t m = slots; m; m &= m - 1) {
			unsigned slot = (unsigned)__builtin_ctzll(m);
			uint64_t word = k->word[slot].word;

			old[dropped++] = k->word[slot];
			word = (word & ~ZC_HANDLE_MASK) | to;
			index_cursor_set(&c, slot, (struct pampd){word, false});
		}
	}
	index_unlock(&c);
	if (dropped)
		zc_drop(k->h, k->t, old, dropped);
}

/* A zpage of its own for all noted words that name the one at `slot`. */
static int copy_zpage(struct leaf_copy *k, unsigned slot)
{
	uint64_t from = zc_word_handle(k->word[slot].word), slots = 0;
	struct zpage *z = k->pinned[slot], *new;
	uint16_t info = zpage_info(z, __ATOMIC_RELAXED);
	struct zc_stored s = {.bytes = zpage_bytes(z, info),
			      .zsize = z->zsize,
			      .checksum = z->checksum,
			      .codec = zpage_codec(info),
			      .pages = zpage_pages(info)};
	zpool_handle to;
	int rc;

	for (uint64_t m = k->full; m; m &= m - 1) {
		unsigned i = (unsigned)__builtin_ctzll(m);

		if (zc_word_handle(k->word[i].word) == from)
			slots |= (uint64_t)1 << i;
	}
	rc = zpage_make(k->h, k->t, &s, (unsigned)__builtin_popcountll(slots), &to);
	if (rc)
		return rc;
	new = zpool_peek(k->h->zpool, to);
	new->info |= (uint16_t)zpage_slot(info);
	zpage_set_leaf(new, k->leaf);
	switch_source(k, slots, from, to);
	for (uint64_t m = slots; m; m &= m - 1) {
		unsigned i = (unsigned)__builtin_ctzll(m);

		hold_dict(k, i, false);
		zpool_unmap(k->h->zpool, from);
		k->word[i].word = (k->word[i].word & ~ZC_HANDLE_MASK) | to;
	}
	k->full &= ~slots;
	return 0;
}

/* Entries of their own for the copied words. */
static int queue_leaf(struct leaf_copy *k, arena_id leaf)
{
	struct pampd p[INDEX_FANOUT] = {{0}};

	for (uint64_t m = k->have; m; m &= m - 1)
		p[__builtin_ctzll(m)] = k->word[__builtin_ctzll(m)];
	return zc_enqueue(k->to, leaf, &k->oid, k->base, 0, INDEX_FANOUT, p);
}

/* Give back what was noted and not linked; `copied` were made: the source may have them now. */
static void forget(struct leaf_copy *k, uint64_t copied)
{
	for (uint64_t m = k->have; m; m &= m - 1) {
		unsigned slot = (unsigned)__builtin_ctzll(m);

		if (copied >> slot & 1)
			zpool_set_movable(k->h->zpool, zc_word_handle(k->word[slot].word), true);
	}
	for (uint64_t m = k->have; m; m &= m - 1) {
		unsigned slot = (unsigned)__builtin_ctzll(m);

		if (k->full >> slot & 1) {
			hold_dict(k, slot, false);
			zpool_unmap(k->h->zpool, zc_word_handle(k->word[slot].word));
			continue;
		}
		zc_drop(k->h, k->t, &k->word[slot], 1);
	}
}

static int link_leaf(struct leaf_copy *k, uint64_t copied)
{
	struct index_cursor c;
	int rc = index_lock_create(k->to->pool, &k->oid, k->base, &c);
	uint64_t twice = 0;
	arena_id leaf;

	if (rc)
		return rc;
	leaf = c.leaf;
	for (uint64_t m = k->have; m; m &= m - 1) {
		unsigned slot = (unsigned)__builtin_ctzll(m);
		uint64_t handle = zc_word_handle(k->word[slot].word);
		bool there = index_cursor_present(&c, slot);

		if (there)
			twice |= (uint64_t)1 << slot;
		else
			index_cursor_set(&c, slot, k->word[slot]);
		if (copied >> slot & 1) {
			if (!there)
				zpage_set_leaf(zpool_peek(k->h->zpool, handle), c.leaf);
			zpool_set_movable(k->h->zpool, handle, true);
		}
	}
	k->linked = true;
	k->have &= ~twice;
	if (k->to->ev)
		atomic_fetch_add_explicit(&k->to->ev->pages,
					  (unsigned)__builtin_popcountll(k->have),
					  memory_order_relaxed);
	index_unlock(&c);
	for (uint64_t m = twice; m; m &= m - 1)
		zc_drop(k->h, k->t, &k->word[__builtin_ctzll(m)], 1);
	return k->to->ev ? queue_leaf(k, leaf) : 0;
}

static int copy_leaf(struct leaf_copy *k)
{
	uint64_t copied;
	int rc = 0;

	k->t = zc_thread_enter(k->h, k->to); /* what is noted is the copy's */
	if (!note_leaf(k, &rc) || !k->have)
		goto out;
	copied = k->full;
	while (k->full && rc == 0)
		rc = copy_zpage(k, (unsigned)__builtin_ctzll(k->full));
	if (rc == 0)
		rc = link_leaf(k, copied);
	if (rc && !k->linked)
		forget(k, copied & ~k->full);
	else if (!rc)
		zc_count(k->t, ZC_SHARED_PAGES, (unsigned)__builtin_popcountll(k->have));
out:
	zc_thread_leave(k->t);
	return rc;
}

/* ---- the pool -------------------------------------------------------------------------- */

struct leaf_list {
	arena_id *id;
	uint64_t n, room;
};

static int list_leaf(void *arg, struct index_cursor *c)
{
	struct leaf_list *l = arg;

	if (l->n == l->room)
		return -EAGAIN;
	l->id[l->n++] = c->leaf;
	return 0;
}

/* All leaves of a pool; the list is the caller's to free. */
static int list_leaves(struct tmem_host *h, struct index_pool *pool, struct leaf_list *l)
{
	int rc;

	l->room = index_pool_pages(pool) / 32 + 64;
	do {
		l->n = 0;
		l->id = zc_alloc(h, l->room * sizeof(arena_id));
		if (!l->id)
			return -ENOMEM;
		rc = index_walk(pool, list_leaf, l);
		if (rc) {
			zc_free(h, l->id, l->room * sizeof(arena_id));
			l->room *= 2;
		}
	} while (rc);
	return 0;
}

static int copy_pool(struct tmem_host *h, struct zc_slot *from, struct zc_slot *to)
{
	struct leaf_copy *k = zc_alloc(h, sizeof(*k));
	struct leaf_list l;
	int rc = -ENOMEM;

	if (!k)
		return rc;
	rc = list_leaves(h, from->pool, &l);
	if (rc)
		goto out;
	k->h = h;
	k->from = from;
	k->to = to;
	for (uint64_t i = 0; i < l.n && rc == 0; i++) {
		k->leaf = l.id[i];
		rc = copy_leaf(k);
	}
	zc_free(h, l.id, l.room * sizeof(arena_id));
out:
	zc_free(h, k, sizeof(*k));
	return rc;
}

tmem_pool tmem_pool_clone(tmem_client *c, tmem_pool pool)
{
	struct zc_slot *from = zc_pool_enter(c, pool), *to;
	uint64_t never = UINT64_MAX;
	tmem_pool id;

	if (!from)
		return -ENOENT;
	id = -EOPNOTSUPP; /* it is shared already, and its pages may go at any time */
	if (from->shared)
		goto out;
	id = zc_pool_make(c, from->flags, 0, &to);
	if (id)
		goto out;
	atomic_store(&to->codec, atomic_load(&from->codec));
	zc_pool_set_dict(to, zc_pool_dict(from));
	os_mutex_lock(&c->host->lock);
	from->cloned = to->cloned = true;
	os_mutex_unlock(&c->host->lock);
	(void)atomic_compare_exchange_strong(&c->host->adopt_after_ns, &never, 0);
	id = copy_pool(c->host, from, to);
	if (id)
		zc_pool_discard(c, to);
	else
		id = zc_pool_publish(to);
	if (id >= 0)
		zc_trace(c, pool, TRACE_POOL_CLONE, NULL, (uint64_t)id, 0, true, 0);
out:
	zc_pool_leave(from);
	return id;
}

/* ---- adoption ------------------------------------------------------------------------------ */

static int adopt_leaf(void *arg, struct index_cursor *c)
{
	struct tmem_host *h = arg;

	for (unsigned slot = 0; slot < INDEX_FANOUT; slot++) {
		struct zpage *z;
		uint32_t mask;
		uint16_t info;

		if (!c->words[slot] || *c->immediate >> slot & 1 ||
		    zc_word_kind(c->words[slot]) != ZC_LOCAL)
			continue;
		z = zpool_peek(h->zpool, zc_word_handle(c->words[slot]));
		if (zpage_leaf(z) == c->leaf)
			continue;
		info = zpage_info(z, __ATOMIC_ACQUIRE);
		if (zc_words_of(c, slot, zpage_pages(info), &mask) == zpage_refs(z, info))
			zpage_set_leaf(z, c->leaf);
	}
	return 0;
}

static int adopt_pool(void *arg, struct zc_slot *s)
{
	bool *any = arg;

	if (s->cloned) {
		*any = true;
		(void)index_walk(s->pool, adopt_leaf, s->host);
	}
	return 0;
}

void zc_adopt(struct tmem_host *h)
{
	uint64_t now = os_clock_ns(), after = atomic_load(&h->adopt_after_ns);
	bool any = false;

	if (now < after ||
	    !atomic_compare_exchange_strong(&h->adopt_after_ns, &after, now + ADOPT_PAUSE_NS))
		return;
	(void)zc_each_pool(h, adopt_pool, &any);
	/* A clone made meanwhile is found at the latest when one of the two pools ends. */
	if (!any)
		atomic_store(&h->adopt_after_ns, UINT64_MAX);
}

int tmem_page_shared(tmem_client *c, tmem_pool pool, const tmem_oid *oid, uint64_t index)
{
	struct zc_slot *s = zc_pool_enter(c, pool);
	unsigned slot = zc_slot(index), refs;
	struct index_cursor at;
	struct zc_stored z;
	struct pampd p;
	uint32_t mask;
	int rc = 0;

	if (!s)
		return -ENOENT;
	index_lock(s->pool, zc_oid(oid), index, &at);
	if (!index_cursor_present(&at, slot)) {
		rc = -ENOENT;
		goto out;
	}
	p = index_cursor_get(&at, slot);
	if (p.immediate)
		goto out;
	if (zc_word_kind(p.word) == ZC_LOCAL) {
		struct zpage *zp = zpool_peek(c->host->zpool, zc_word_handle(p.word));

		zc_stored_of(zp, &z);
		refs = zpage_refs(zp, zpage_info(zp, __ATOMIC_ACQUIRE));
	} else {
		zc_overflow_info(c->host, zc_word_handle(p.word), &z);
		refs = zc_overflow_refs(c->host, zc_word_handle(p.word));
	}
	rc = refs > (z.pages > 1 ? zc_words_of(&at, slot, z.pages, &mask) : 1);
out:
	index_unlock(&at);
	zc_pool_leave(s);
	return rc;
}
