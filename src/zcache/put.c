/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Put: pages in.
 *
 *   enter pool -> frozen? over the limit? -> build words -> link them -> drop
 *   what they replaced
 *
 * build: a same-filled page becomes an immediate word. The others are
 * compressed into the thread's scratch, with no lock held, judged, and copied
 * into a zpage of exactly their size; or, where the limit refuses that, into
 * the overflow file. Same-filled members of a cluster are compressed with it
 * (a few bytes) so that place and index go in step, but hold no reference.
 *
 * link: one lock hold for all pages of the put, in which the words are set and
 * the zpages learn where they are, so that compaction finds complete clusters
 * or nothing.
 *
 * Failure (T2): whatever goes wrong, the handles are invalidated last, so that
 * after a failed put they hold nothing, and never what they held before. That
 * is also a resource: a put that finds no memory gives up the old page first
 * and tries again.
 */
#include "zcache/trace.h"
#include "zcache/zcache.h"

struct put {
	struct tmem_host *h;
	struct zc_slot *s;
	struct zc_thread *t;
	const struct index_oid *oid;
	uint64_t index;
	unsigned n;
	const char *pages;
	size_t size;	 /* of what was compressed before; 0: these are pages */
	size_t zsize;	 /* compressed bytes of what was built */
	unsigned built;	 /* words so far */
	unsigned rounds; /* of eviction for it */
	bool inactive;	 /* never used since it was read in */
	bool emptied;	 /* the handles were invalidated */
	uint64_t stamp;	 /* in its place in a word; 0 where nothing is queued */
	arena_id leaf;	 /* where they were linked */
	struct pampd word[TMEM_CLUSTER_MAX];
};

static const char *put_page(const struct put *p, unsigned i)
{
	return p->pages + (size_t)i * ZC_PAGE;
}

/* Nothing of these handles stays. */
static void put_empty(struct put *p)
{
	if (p->n == 1)
		(void)index_invalidate(p->s->pool, p->oid, p->index);
	else
		(void)index_invalidate_range(p->s->pool, p->oid, p->index, p->n);
}

/* Something was given up that may let a second attempt succeed; rc: why the first did not. */
static bool put_make_room(struct put *p, int rc)
{
	if (rc != -ENOMEM && rc != -EDQUOT)
		return false;
	if (!p->emptied) {
		p->emptied = true;
		put_empty(p);
		return true;
	}
	if (zc_evict_for_put(p->h, p->t, rc == -EDQUOT ? p->s->client : NULL,
			     p->s->flags & TMEM_POOL_PERSIST, p->zsize, p->rounds++))
		return true;
	return rc == -ENOMEM && zc_make_room(p->h);
}

static bool over_limit(const struct tmem_host *h)
{
	uint64_t limit = atomic_load_explicit(&h->frames.limit_bytes, memory_order_relaxed);

	return limit && frames_used(&h->frames) > limit;
}

/* Whether there are ephemeral pages: then who found no room may find some the next time. */
static bool evictable(struct tmem_host *h)
{
	struct zc_evict *ev = zc_sets_pick(h, ZC_EPHEMERAL, NULL, UINT64_MAX);

	if (ev)
		zc_sets_put(ev);
	return ev != NULL;
}

/* Above the limit, which was lowered, or the target; or an ephemeral put while the host is full. */
static int put_squeezed(struct put *p)
{
	bool ephemeral = !(p->s->flags & TMEM_POOL_PERSIST);

	if (ephemeral && zc_full(p->h)) {
		zc_count(p->t, ZC_PUTS_FULL, p->n);
		return -ENOMEM;
	}
	if (p->h->overflow && !ephemeral)
		return 0;
	while (over_limit(p->h) && put_make_room(p, -ENOMEM))
		;
	if (over_limit(p->h))
		return -ENOMEM;
	zc_evict_to_target(p->h, p->t, p->n);
	return 0;
}

/* ---- building -------------------------------------------------------------------- */

/* Keep compressed bytes: in the zpool, or in the file. */
static int put_store(struct put *p, const struct zc_stored *s, unsigned refs, uint64_t *word)
{
	struct tmem_host *h = p->h;
	uint64_t handle = 0;
	int rc = -ENOMEM;

	p->zsize += s->zsize;
	if (!h->overflow || zc_overflow_fill(h) < ZC_FILL_FULL ||
	    !(p->s->flags & TMEM_POOL_PERSIST)) {
		do
			rc = zpage_make(h, p->t, s, refs, &handle);
		while (tmem_unlikely(rc) && put_make_room(p, rc));
	}
	if (tmem_likely(rc == 0)) {
		*word = zc_word(ZC_LOCAL, 0, handle);
	} else if ((rc == -ENOMEM || rc == -EDQUOT) && h->overflow &&
		   (p->s->flags & TMEM_POOL_PERSIST)) {
		/* Whatever keeps the file from taking it, to the caller there is no room. */
		rc = zc_overflow_put(h, p->t, s, refs, &handle) ? rc : 0;
		*word = zc_word(ZC_OVERFLOW, 0, handle);
	}
	return rc;
}

/* With the pool's dictionary, if that fits; it is held then, as s->dict. */
static bool put_with_dict(struct put *p, unsigned i, size_t cap, struct zc_stored *s)
{
	s->dict = zc_pool_dict(p->s);
	if (!s->dict)
		return false;
	if (zc_dict_compress(p->t, s->dict, put_page(p, i), p->t->small, cap, &s->zsize) ||
	    !s->zsize)
		zc_stored_release(p->h, s);
	else
		s->codec = CODEC_ID_ZSTD_DICT;
	return s->dict != 0;
}

/* Bytes that were compressed before, or that no codec is for. -E2BIG: not together. */
static int put_as_it_is(struct put *p, unsigned first, unsigned n, struct zc_stored *s)
{
	s->codec = p->size ? CODEC_ID_OPAQUE : CODEC_ID_RAW;
	s->bytes = put_page(p, first);
	s->zsize = p->size ? p->size : (size_t)n * ZC_PAGE;
	return n == 1 ? 0 : -E2BIG;
}

/* Compress pages [first, first + n) into scratch. -E2BIG when that does not pay. */
static int put_compress(struct put *p, unsigned first, unsigned n, struct zc_stored *s)
{
	struct codec_spec spec = zc_pool_codec(p->s);
	size_t cap = (size_t)p->h->max_zsize * n;
	char *scratch = n == 1 ? p->t->small : p->t->big[0];
	void *ctx;

	s->pages = n;
	s->codec = spec.codec->id;
	s->dict = 0;
	if (tmem_unlikely(spec.codec->id == CODEC_ID_RAW || p->size))
		return put_as_it_is(p, first, n, s);
	s->bytes = scratch;
	if (n > 1 || spec.codec->id != CODEC_ID_ZSTD ||
	    !atomic_load_explicit(&p->s->dict, memory_order_relaxed) ||
	    !put_with_dict(p, first, cap, s)) {
		/* A thread's first: other pages make room for it, as they do for this one. */
		do
			ctx = zc_thread_cctx(p->t, &spec);
		while (tmem_unlikely(!ctx) && put_make_room(p, -ENOMEM));
		if (tmem_unlikely(!ctx))
			return -ENOMEM;
		s->zsize = spec.codec->compress(ctx, put_page(p, first), (size_t)n * ZC_PAGE,
						scratch, cap);
		if (tmem_unlikely(!s->zsize))
			return -E2BIG;
	}
	zc_count(p->t, ZC_PUTS_PACKED, n);
	if (tmem_unlikely(s->zsize > (size_t)n * atomic_load_explicit(&p->h->max_mean_zsize,
								      memory_order_relaxed)) &&
	    !p->h->store_raw) {
		bool poor = zc_mean_is_poor(p->h, p->t);

		zc_count(p->t, poor ? ZC_PUTS_MEAN_POOR : ZC_PUTS_MEAN_PASSED, n);
		if (poor && s->dict)
			zc_stored_release(p->h, s);
		return poor ? -E2BIG : 0;
	}
	return 0;
}

static int build_page(struct put *p, unsigned i, bool same_checked)
{
	struct zc_stored s;
	uint64_t word;
	int rc;

	if (!same_checked && codec_same_filled(put_page(p, i), ZC_PAGE, &word)) {
		p->word[i] = (struct pampd){word, true};
		zc_count(p->t, ZC_SAME_NOW, 1);
		zc_count(p->t, ZC_PUTS_SAME, 1);
		return 0;
	}
	rc = put_compress(p, i, 1, &s);
	if (tmem_unlikely(rc == -E2BIG) && p->h->store_raw) {
		s = (struct zc_stored){.bytes = put_page(p, i), .zsize = ZC_PAGE, .pages = 1};
		zc_count(p->t, ZC_PUTS_RAW, 1);
		rc = 0;
	}
	if (tmem_unlikely(rc))
		return rc;
	s.fresh = true;
	s.ephemeral = !(p->s->flags & TMEM_POOL_PERSIST);
	rc = put_store(p, &s, 1, &word);
	if (tmem_unlikely(s.dict))
		zc_stored_release(p->h, &s);
	p->word[i] = (struct pampd){word, false};
	return rc;
}

/* One page after the other; p->built counts. */
static int build_singles(struct put *p, uint32_t same)
{
	int rc = 0;

	for (unsigned i = p->built; i < p->n && rc == 0; i++) {
		if (!(same >> i & 1))
			rc = build_page(p, i, true);
		if (rc == 0)
			p->built = i + 1;
	}
	return rc;
}

/* Pages first..last together; those in `same` are immediate words already. */
static int build_cluster(struct put *p, unsigned first, unsigned last, uint32_t same)
{
	unsigned n = last - first + 1, refs = n;
	struct zc_stored s;
	uint64_t word = 0;
	int rc;

	for (unsigned i = first; i <= last; i++)
		refs -= same >> i & 1;
	zc_thread_need_big(&p->t);
	rc = put_compress(p, first, n, &s);
	if (rc)
		return rc;
	s.fresh = true;
	s.ephemeral = !(p->s->flags & TMEM_POOL_PERSIST);
	rc = put_store(p, &s, refs, &word);
	if (rc)
		return rc;
	for (unsigned i = first; i <= last; i++)
		if (!(same >> i & 1))
			p->word[i].word = word | (uint64_t)(i - first) << ZC_PLACE_SHIFT;
	return 0;
}

static int build(struct put *p)
{
	unsigned first = 0, last = p->n - 1;
	uint32_t same = 0, all = (1u << p->n) - 1;
	int rc;

	if (p->n == 1) {
		rc = build_page(p, 0, p->size != 0);
		p->built = rc == 0;
		return rc;
	}
	for (unsigned i = 0; i < p->n; i++) {
		p->word[i] = (struct pampd){0, false};
		if (!codec_same_filled(put_page(p, i), ZC_PAGE, &p->word[i].word))
			continue;
		p->word[i].immediate = true;
		same |= 1u << i;
		zc_count(p->t, ZC_SAME_NOW, 1);
		zc_count(p->t, ZC_PUTS_SAME, 1);
	}
	if (same == all) {
		p->built = p->n;
		return 0;
	}
	while (same >> first & 1)
		first++;
	while (same >> last & 1)
		last--;
	rc = -E2BIG;
	if (first < last)
		rc = build_cluster(p, first, last, same);
	if (rc == 0)
		p->built = p->n;
	else if (rc == -E2BIG &&
		 (first == last || p->h->store_raw || zc_pool_codec(p->s).codec->id == 0 ||
		  (size_t)p->h->max_zsize * (last - first + 1) > p->h->zpool->ops->max_size))
		rc = build_singles(p, same);
	return rc;
}

/* ---- linking --------------------------------------------------------------------- */

/* New zpages learn their place; the shard is locked. */
static void place_zpages(struct put *p, const struct index_cursor *c, unsigned slot)
{
	uint64_t last = 0;

	for (unsigned i = 0; i < p->n; i++) {
		uint64_t word = p->word[i].word, handle = zc_word_handle(word);

		if (p->word[i].immediate || zc_word_kind(word) != ZC_LOCAL || handle == last)
			continue;
		zpage_place(p->h, handle, c->leaf, slot + i - zc_word_place(word));
		last = handle;
	}
}

static int put_link(struct put *p)
{
	struct pampd old[TMEM_CLUSTER_MAX];
	unsigned slot = zc_slot(p->index), replaced = 0;
	struct index_cursor c;
	int rc;

	do
		rc = index_lock_create(p->s->pool, p->oid, p->index, &c);
	while (tmem_unlikely(rc) && put_make_room(p, rc));
	if (rc)
		return rc;
	p->leaf = c.leaf;
	for (unsigned i = 0; i < p->n; i++) {
		if (index_cursor_present(&c, slot + i))
			old[replaced++] = index_cursor_get(&c, slot + i);
		if (!p->word[i].immediate)
			p->word[i].word |= p->stamp;
		index_cursor_set(&c, slot + i, p->word[i]);
	}
	place_zpages(p, &c, slot);
	if (p->s->ev)
		atomic_fetch_add_explicit(&p->s->ev->pages, p->n, memory_order_relaxed);
	if (tmem_unlikely(p->h->overflow != NULL)) {
		zc_overflow_fresh(p->h, c.leaf, slot);
		if (p->n > 8)
			zc_overflow_fresh(p->h, c.leaf, slot + p->n - 1);
	}
	index_unlock(&c);
	if (replaced) {
		zc_words_left(p->s, replaced);
		zc_drop(p->h, p->t, old, replaced);
		zc_count(p->t, ZC_PUTS_REPLACED, replaced);
	}
	return 0;
}

/*
 * Linked: now they can be found, so now they may be queued for eviction. A
 * queue that finds no memory makes the put fail, like everything else; what
 * was linked is taken out again with the handles (T2).
 */
static int put_queue(struct put *p)
{
	int rc;

	p->emptied = true; /* the page itself is no room to be made */
	do
		rc = zc_enqueue(p->s, p->leaf, p->oid, p->index & ~(uint64_t)(INDEX_FANOUT - 1),
				zc_slot(p->index), p->n, p->word);
	while (tmem_unlikely(rc) && put_make_room(p, rc));
	return rc;
}

/* Words that were built and not linked. Of a failed cluster only the immediate ones exist. */
static void unbuild(struct put *p)
{
	for (unsigned i = 0; i < p->n; i++)
		if (i < p->built || (p->n > 1 && p->word[i].immediate))
			zc_drop(p->h, p->t, &p->word[i], 1);
}

static enum zc_counter reason(int rc)
{
	switch (rc) {
	case -EAGAIN:
		return ZC_PUTS_FROZEN;
	case -E2BIG:
		return ZC_PUTS_POOR;
	case -ECANCELED:
		return ZC_PUTS_INACTIVE;
	case -EDQUOT:
		return ZC_PUTS_QUOTA;
	default:
		return ZC_PUTS_NOMEM;
	}
}

static int put_pages(struct put *p)
{
	uint64_t began;
	int rc = 0;

	p->t = zc_thread_enter(p->h, p->s);
	began = zc_sample(p->t);
	p->built = p->rounds = 0;
	p->emptied = false;
	p->zsize = 0;
	p->stamp = p->s->ev ? zc_stamp_draw(p->t) : 0;
	if (tmem_unlikely(atomic_load_explicit(&p->h->frozen, memory_order_relaxed) |
			  atomic_load_explicit(&p->s->client->frozen, memory_order_relaxed)))
		rc = -EAGAIN;
	else if (tmem_unlikely(p->inactive) && p->s->ev && zc_short_of_memory(p->h))
		rc = -ECANCELED;
	else if (tmem_unlikely(frames_used(&p->h->frames) >
			       atomic_load_explicit(&p->h->mark_bytes, memory_order_relaxed)) ||
		 (p->s->ev && atomic_load_explicit(&p->h->full, memory_order_relaxed)))
		rc = put_squeezed(p);
	if (tmem_unlikely(p->h->overflow != NULL) && rc == 0 &&
	    tmem_unlikely(zc_overflow_fill(p->h) >= ZC_FILL_HIGH) &&
	    /* Ephemeral pages go before any persistent one has to leave memory. */
	    !zc_evict_for_put(p->h, p->t, NULL, p->s->flags & TMEM_POOL_PERSIST, 0, 1))
		zc_overflow_make_room(p->h, p->t);
	if (tmem_likely(rc == 0)) {
		rc = build(p);
		if (tmem_likely(rc == 0))
			rc = put_link(p);
		if (tmem_unlikely(rc))
			unbuild(p);
		else if (p->s->ev)
			rc = put_queue(p);
	}
	if (tmem_unlikely(rc == -ENOMEM) && !(p->s->flags & TMEM_POOL_PERSIST) && !evictable(p->h))
		zc_set_full(p->h);
	zc_count(p->t, ZC_PUTS, p->n);
	if (tmem_unlikely(p->inactive) && rc == 0)
		zc_count(p->t, ZC_PUTS_INACTIVE_OK, p->n);
	zc_count(p->t, tmem_likely(rc == 0) ? ZC_PUTS_OK : reason(rc), p->n);
	if (tmem_unlikely(began))
		zc_sample_end(p->t, ZC_PUT_NS, began);
	zc_thread_leave(p->t);
	if (tmem_unlikely(rc))
		put_empty(p);
	return rc;
}

static inline int put_one(tmem_client *c, tmem_pool pool, const tmem_oid *oid, uint64_t index,
			  const void *page, size_t size, bool inactive)
{
	struct put p;
	int rc;

	p.s = zc_pool_enter(c, pool);
	if (tmem_unlikely(!p.s))
		return -ENOENT;
	if (tmem_unlikely(!(p.s->flags & TMEM_POOL_PRECOMPRESSED) != !size)) {
		zc_pool_leave(p.s);
		return -EINVAL;
	}
	p.size = size;
	p.h = c->host;
	p.oid = zc_oid(oid);
	p.index = index;
	p.n = 1;
	p.inactive = inactive;
	p.pages = page;
	rc = put_pages(&p);
	zc_trace(c, pool, TRACE_PUT, oid, index, 1, rc == 0, p.zsize);
	zc_pool_leave(p.s);
	return rc;
}

int tmem_put(tmem_client *c, tmem_pool pool, const tmem_oid *oid, uint64_t index, const void *page)
{
	return put_one(c, pool, oid, index, page, 0, false);
}

int tmem_put_flags(tmem_client *c, tmem_pool pool, const tmem_oid *oid, uint64_t index,
		   const void *page, uint32_t flags)
{
	if (flags & ~TMEM_PUT_INACTIVE)
		return -EINVAL;
	return put_one(c, pool, oid, index, page, 0, flags & TMEM_PUT_INACTIVE);
}

int tmem_put_bytes(tmem_client *c, tmem_pool pool, const tmem_oid *oid, uint64_t index,
		   const void *bytes, size_t size)
{
	if (size < 1 || size > ZC_PAGE)
		return -EINVAL;
	return put_one(c, pool, oid, index, bytes, size, false);
}

int tmem_put_cluster(tmem_client *c, tmem_pool pool, const tmem_oid *oid, uint64_t index,
		     unsigned n, const void *pages)
{
	struct put p;
	int rc;

	if (n < 1 || n > TMEM_CLUSTER_MAX || zc_slot(index) + n > INDEX_FANOUT)
		return -EINVAL;
	p.s = zc_pool_enter(c, pool);
	if (!p.s)
		return -ENOENT;
	if (p.s->flags & TMEM_POOL_PRECOMPRESSED) {
		zc_pool_leave(p.s);
		return -EINVAL;
	}
	p.h = c->host;
	p.oid = zc_oid(oid);
	p.index = index;
	p.n = n;
	p.inactive = false;
	p.size = 0;
	p.pages = pages;
	rc = put_pages(&p);
	zc_trace(c, pool, TRACE_PUT, oid, index, n, rc == 0, p.zsize);
	zc_pool_leave(p.s);
	return rc;
}
