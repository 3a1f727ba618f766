/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Get: pages out.
 *
 *   lock shard -> word -> make the zpage safe -> (unlink) -> unlock
 *     -> check the checksum -> decompress -> let go
 *
 * Safe means: a local zpage is pinned, or, when its pin count is full, copied
 * under the lock; in the overflow file it gets one more reference. Everything
 * after the unlock runs on bytes that cannot change.
 *
 * Nothing is written to the caller's page before the checksum of the
 * compressed bytes was found right. Nothing is allocated that a get depends
 * on: where the thread's own state lacks a context or a buffer, the emergency
 * state has it (T8).
 *
 * get_and_invalidate of a page in memory unlinks under the same lock hold in
 * which it found the word, so that of several callers one gets the page. A
 * page in the overflow file may fail to be read this time and be well the next:
 * it is read first and unlinked then, if its word is still what it was. The
 * reference held meanwhile keeps the item from being another zpage's by then.
 */
#include "codec/dict.h"
#include "os/log.h"
#include "zcache/trace.h"
#include "zcache/zcache.h"

struct get {
	struct tmem_host *h;
	struct zc_slot *s;
	struct zc_thread *t;
	const struct index_oid *oid;
	uint64_t index;
	bool invalidate;
	bool remembered; /* the pool's pages are queued: note that this one was wanted */
	bool cluster;	 /* the caller takes all of the zpage's pages */
	bool as_it_is;	 /* not pages but what was put by tmem_put_bytes() */
	bool later;	 /* to be unlinked when its bytes have been read */
	/* Found under the lock. */
	struct pampd word;
	struct zpage *pinned; /* to unmap, or NULL */
	struct zc_stored z;   /* bytes NULL: in the overflow file */
	uint32_t mask;	      /* places that the caller gets; 0: the page alone */
	uint32_t same;	      /* of those, immediate */
	uint64_t fill[TMEM_CLUSTER_MAX];
	/* Taken out of the index. */
	unsigned ntaken;
	struct pampd taken[TMEM_CLUSTER_MAX];
};

void zc_bad_checksum(struct tmem_host *h, struct zc_thread *t, const char *where, uint64_t handle)
{
	zc_count(t, ZC_BAD_CHECKSUMS, 1);
	if (!atomic_exchange(&h->complained, true))
		os_log(OS_LOG_ERROR, "stored data is damaged: %s %#llx (further ones are counted)",
		       where, (unsigned long long)handle);
}

/* ---- under the shard's lock -------------------------------------------------------- */

void zc_stored_of(struct zpage *z, struct zc_stored *s)
{
	uint16_t info = zpage_info(z, __ATOMIC_RELAXED);

	s->bytes = zpage_bytes(z, info);
	s->zsize = z->zsize;
	s->checksum = z->checksum;
	s->codec = zpage_codec(info);
	s->pages = zpage_pages(info);
	s->dict = 0;
}

/*
 * The zpage is cold, as a rule. Its first lines are asked for before the pin,
 * which waits for one of them, and the rest as soon as its size is known: they
 * come while the lock is let go.
 */
#define FIRST_LINES 512u

static inline void prefetch_lines(const char *p, size_t from, size_t to)
{
	for (size_t i = from; i < to; i += 64)
		__builtin_prefetch(p + i);
}

/* -EBUSY: cannot be pinned, and there is no buffer to copy it to. */
static int take_local(struct get *g, uint64_t handle)
{
	struct zpage *z = zpool_peek(g->h->zpool, handle);

	prefetch_lines((const char *)z, 0, FIRST_LINES);
	z = zpool_map(g->h->zpool, handle);
	g->pinned = z;
	if (tmem_likely(z != NULL)) {
		if (tmem_unlikely(atomic_load_explicit(&g->h->marking, memory_order_relaxed)) &&
		    zpage_marks(z) & ZPAGE_OLD)
			zpage_unmark_old(z);
		zc_stored_of(z, &g->z);
		prefetch_lines((const char *)z, FIRST_LINES, ZPAGE_CLUSTER_HEAD + g->z.zsize);
		return 0;
	}
	if (!g->t->big[0])
		return -EBUSY;
	zc_stored_of(zpool_peek(g->h->zpool, handle), &g->z);
	memcpy(g->t->big[0], g->z.bytes, g->z.zsize);
	g->z.bytes = g->t->big[0];
	return 0;
}

static int take(struct get *g)
{
	uint64_t handle = zc_word_handle(g->word.word);

	g->pinned = NULL;
	if (tmem_likely(zc_word_kind(g->word.word) == ZC_LOCAL))
		return take_local(g, handle);
	zc_overflow_ref(g->h, handle);
	zc_overflow_info(g->h, handle, &g->z);
	return 0;
}

/* The neighbours that come along. */
static void take_cluster(struct get *g, const struct index_cursor *c, unsigned slot)
{
	unsigned first = slot - zc_word_place(g->word.word);
	bool with_same = true;

	zc_words_of(c, slot, g->z.pages, &g->mask);
	/*
	 * Same-filled pages among them come too. When all are to be removed, a
	 * damaged zpage must not take these, which are fine, along: so first
	 * look, here under the lock (some µs, and rare).
	 */
	for (unsigned i = 0; i < g->z.pages && with_same; i++) {
		if (g->mask >> i & 1 || !(*c->immediate >> (first + i) & 1))
			continue;
		if (g->invalidate && !g->same)
			with_same =
				g->z.bytes && zc_checksum(g->z.bytes, g->z.zsize) == g->z.checksum;
		if (!with_same)
			break;
		g->same |= 1u << i;
		g->fill[i] = c->words[first + i];
	}
	g->mask |= g->same;
}

static void untie(struct get *g, struct index_cursor *c, unsigned slot)
{
	unsigned first = slot - zc_word_place(g->word.word);

	if (!g->mask) {
		g->taken[g->ntaken++] = g->word;
		index_cursor_clear(c, slot);
		return;
	}
	for (unsigned i = 0; i < TMEM_CLUSTER_MAX; i++) {
		if (!(g->mask >> i & 1))
			continue;
		g->taken[g->ntaken++] = index_cursor_get(c, first + i);
		index_cursor_clear(c, first + i);
	}
}

/* 0 with everything of the page safe; 1: absent. */
static int lookup(struct get *g)
{
	unsigned slot = zc_slot(g->index);
	struct index_cursor c;
	int rc;

again:
	rc = 0;
	g->mask = g->same = 0;
	g->ntaken = 0;
	g->later = false;
	g->pinned = NULL;
	index_lock(g->s->pool, g->oid, g->index, &c);
	if (!index_cursor_present(&c, slot)) {
		rc = 1;
		goto out;
	}
	g->word = index_cursor_get(&c, slot);
	if (!g->word.immediate) {
		if (tmem_unlikely(g->h->overflow != NULL))
			zc_overflow_touch(g->h, c.leaf, slot);
		rc = take(g);
		if (tmem_unlikely(rc))
			goto out;
		if (tmem_unlikely(g->z.codec == CODEC_ID_ZSTD_DICT))
			zc_stored_hold(g->h, &g->z);
		if (g->cluster && g->z.pages > 1)
			take_cluster(g, &c, slot);
	} else if (g->invalidate) {
		g->taken[g->ntaken++] = g->word;
		index_cursor_clear(&c, slot);
		goto out;
	}
	if (g->remembered && !g->invalidate && !g->word.immediate &&
	    zc_word_seen(g->word.word) < ZC_SEEN_MAX)
		c.words[slot] += ZC_SEEN_ONE;
	g->later = g->invalidate && tmem_unlikely(!g->z.bytes);
	if (g->invalidate && !g->later)
		untie(g, &c, slot);
out:
	index_unlock(&c);
	if (tmem_unlikely(rc == -EBUSY)) {
		zc_thread_need_big(&g->t);
		goto again;
	}
	return rc;
}

/* ---- after it ------------------------------------------------------------------------ */

void *zc_stored_dctx(struct zc_thread *t, const struct zc_stored *s)
{
	/* With a dictionary or without, it is the same library's. */
	return zc_thread_dctx(
		t, codec_by_id(s->codec == CODEC_ID_ZSTD_DICT ? CODEC_ID_ZSTD : s->codec));
}

int zc_stored_unpack(struct tmem_host *h, void *dctx, const struct zc_stored *s, void *buf,
		     unsigned n)
{
	if (tmem_unlikely(s->dict))
		return codec_dict_decompress(dctx, zc_dict(h, s->dict),
					     (const char *)s->bytes + ZC_DICT_PREFIX,
					     s->zsize - ZC_DICT_PREFIX, buf, (size_t)n * ZC_PAGE);
	return codec_by_id(s->codec)->decompress(dctx, s->bytes, s->zsize, buf,
						 (size_t)n * ZC_PAGE);
}

/* The state that has the context for it. */
static void *context(struct get *g)
{
	void *ctx = zc_stored_dctx(g->t, &g->z);

	if (tmem_unlikely(!ctx)) {
		struct tmem_host *h = g->h;
		struct zc_thread *t = zc_thread_emergency(h, g->s);

		/* Bytes that were copied to the old state's buffer stay there: it is this thread's.
		 */
		zc_thread_leave(g->t);
		g->t = t;
		ctx = zc_stored_dctx(t, &g->z);
		tmem_must(ctx);
	}
	return ctx;
}

/* The compressed bytes, checked. */
static int fetch(struct get *g)
{
	uint64_t handle = zc_word_handle(g->word.word);
	int rc = 0;

	if (tmem_unlikely(!g->z.bytes)) {
		zc_thread_need_big(&g->t);
		rc = zc_overflow_read(g->h, handle, g->t->big[0]);
		g->z.bytes = g->t->big[0];
		if (rc)
			zc_count(g->t, ZC_OVER_READ_ERRORS, 1);
	}
	if (tmem_unlikely(rc || zc_checksum(g->z.bytes, g->z.zsize) != g->z.checksum)) {
		zc_bad_checksum(g->h, g->t,
				zc_word_kind(g->word.word) == ZC_LOCAL ? "zpage" : "overflow file",
				handle);
		rc = -EIO;
	}
	return rc;
}

/* The bytes are here: unlink. False: the word has changed meanwhile, look again. */
static bool untie_later(struct get *g)
{
	unsigned slot = zc_slot(g->index);
	struct index_cursor c;
	bool same = false;

	index_lock(g->s->pool, g->oid, g->index, &c);
	if (index_cursor_present(&c, slot)) {
		struct pampd p = index_cursor_get(&c, slot);

		same = !p.immediate && zc_word_same(p.word, g->word.word);
	}
	if (same) {
		/* Its neighbours may have come or gone. */
		g->mask = g->same = 0;
		if (g->cluster && g->z.pages > 1)
			take_cluster(g, &c, slot);
		untie(g, &c, slot);
	}
	index_unlock(&c);
	return same;
}

/* Pages 0 .. n-1 of the zpage into buf. */
static int decompress(struct get *g, void *buf, unsigned n)
{
	if (tmem_likely(zc_stored_unpack(g->h, context(g), &g->z, buf, n) == 0))
		return 0;
	zc_bad_checksum(g->h, g->t, "cannot be decompressed, zpage", zc_word_handle(g->word.word));
	return -EIO;
}

static int unpack(struct get *g, char *buf)
{
	unsigned place = zc_word_place(g->word.word);
	int rc;

	if (tmem_unlikely(g->as_it_is)) {
		memcpy(buf, g->z.bytes, g->z.zsize);
		rc = 0;
	} else if (tmem_likely(g->z.pages == 1 || g->cluster)) {
		rc = decompress(g, buf, g->z.pages);
		for (uint32_t m = rc ? 0 : g->same; m; m &= m - 1) {
			unsigned i = (unsigned)__builtin_ctz(m);

			codec_fill(buf + (size_t)i * ZC_PAGE, ZC_PAGE, g->fill[i]);
		}
	} else {
		char *all;

		/* One page of several: by way of a buffer, which g->t may leave behind. */
		zc_thread_need_big(&g->t);
		all = g->t->big[1];
		rc = decompress(g, all, g->z.pages);
		if (rc == 0)
			memcpy(buf, all + (size_t)place * ZC_PAGE, ZC_PAGE);
	}
	return rc;
}

static void let_go(struct get *g)
{
	uint64_t handle = zc_word_handle(g->word.word);

	if (!g->word.immediate && tmem_unlikely(g->z.dict))
		zc_stored_release(g->h, &g->z);
	if (tmem_likely(g->pinned != NULL))
		zpool_unmap(g->h->zpool, handle);
	if (!g->word.immediate && tmem_unlikely(zc_word_kind(g->word.word) == ZC_OVERFLOW))
		zc_overflow_unref(g->h, g->t, handle, 1);
	if (g->ntaken) {
		zc_words_left(g->s, g->ntaken);
		zc_drop(g->h, g->t, g->taken, g->ntaken);
		if (g->remembered)
			zc_policy_gone(g->s->ev, ZC_EVICT,
				       zc_policy_name(g->s->ev, g->s, g->oid, g->index));
	}
}

/* 0: found, everything of it safe, its bytes checked. After -EIO, too, let_go() is due. */
static int find(struct get *g, bool *found)
{
	int rc;

	for (;;) {
		rc = lookup(g);
		*found = rc == 0;
		if (rc || g->word.immediate)
			break;
		rc = fetch(g);
		if (rc || tmem_likely(!g->later) || untie_later(g))
			break;
		let_go(g);
	}
	return rc;
}

/* A page that stays, read from the file. */
static void bring_back(struct get *g)
{
	const struct over_back b = {
		.pool = g->s->pool, .oid = g->oid, .index = g->index, .word = g->word.word};

	zc_overflow_back(g->h, g->t, &b, &g->z);
}

static int get_pages(struct get *g, void *buf)
{
	unsigned n = 1;
	uint64_t began;
	bool found;
	int rc;

	g->t = zc_thread_enter(g->h, g->s);
	began = zc_sample(g->t);
	rc = find(g, &found);
	if (tmem_likely(found)) {
		if (g->word.immediate)
			codec_fill(buf, ZC_PAGE, g->word.word);
		else if (tmem_likely(rc == 0))
			rc = unpack(g, buf);
		if (rc == 0 && !g->word.immediate && !g->invalidate &&
		    tmem_unlikely(zc_word_kind(g->word.word) == ZC_OVERFLOW))
			bring_back(g);
		let_go(g);
		if (rc == 0 && g->mask) /* one that failed is one get, whatever it was to bring */
			n = (unsigned)__builtin_popcount(g->mask);
	}
	zc_count(g->t, ZC_GETS, n);
	if (g->ntaken)
		zc_count(g->t, ZC_GETS_REMOVED, n);
	zc_count(g->t, rc < 0 ? ZC_GETS_FAILED : rc ? ZC_GETS_MISSED : ZC_GETS_FOUND, n);
	if (tmem_unlikely(began))
		zc_sample_end(g->t, ZC_GET_NS, began);
	zc_thread_leave(g->t);
	return rc;
}

/* What becomes of a page that was got. */
enum fate { FATE_OF_POOL, FATE_KEEP, FATE_REMOVE };

static int get_one(tmem_client *c, tmem_pool pool, const tmem_oid *oid, uint64_t index, void *page,
		   size_t *size, enum fate fate)
{
	struct get g;
	int rc;

	g.s = zc_pool_enter(c, pool);
	if (tmem_unlikely(!g.s))
		return -ENOENT;
	g.as_it_is = size != NULL;
	if (tmem_unlikely(!(g.s->flags & TMEM_POOL_PRECOMPRESSED) == g.as_it_is)) {
		zc_pool_leave(g.s);
		return -EINVAL;
	}
	g.h = c->host;
	g.oid = zc_oid(oid);
	g.index = index;
	g.invalidate = fate == FATE_REMOVE || (fate == FATE_OF_POOL && g.s->exclusive);
	g.remembered = g.s->ev != NULL;
	g.cluster = false;
	rc = get_pages(&g, page);
	if (size && rc == 0)
		*size = g.z.zsize;
	zc_trace(c, pool, g.invalidate ? TRACE_GET_AND_DROP : TRACE_GET, oid, index, 1, rc == 0, 0);
	zc_pool_leave(g.s);
	return rc;
}

int tmem_get(tmem_client *c, tmem_pool pool, const tmem_oid *oid, uint64_t index, void *page)
{
	return get_one(c, pool, oid, index, page, NULL, FATE_OF_POOL);
}

int tmem_get_bytes(tmem_client *c, tmem_pool pool, const tmem_oid *oid, uint64_t index, void *bytes,
		   size_t *size)
{
	return get_one(c, pool, oid, index, bytes, size, FATE_OF_POOL);
}

int tmem_get_keep(tmem_client *c, tmem_pool pool, const tmem_oid *oid, uint64_t index, void *page)
{
	return get_one(c, pool, oid, index, page, NULL, FATE_KEEP);
}

int tmem_get_and_invalidate(tmem_client *c, tmem_pool pool, const tmem_oid *oid, uint64_t index,
			    void *page)
{
	return get_one(c, pool, oid, index, page, NULL, FATE_REMOVE);
}

/* The page asked for; neighbours that came along and left the store are drops, not gets. */
static void trace_cluster(tmem_client *c, tmem_pool pool, const struct get *g, bool ok)
{
	enum trace_opcode code = g->invalidate ? TRACE_GET_AND_DROP : TRACE_GET;
	tmem_oid oid;

	if (!zc_traced(c->host))
		return;
	memcpy(&oid, g->oid, sizeof(oid));
	zc_trace(c, pool, code, &oid, g->index, 1, ok, 0);
	for (uint32_t m = ok ? g->mask : 0; m; m &= m - 1) {
		uint64_t index =
			g->index - zc_word_place(g->word.word) + (unsigned)__builtin_ctz(m);

		if (index != g->index && g->invalidate)
			zc_trace(c, pool, TRACE_DROP, &oid, index, 1, true, 0);
	}
}

int tmem_get_cluster(tmem_client *c, tmem_pool pool, const tmem_oid *oid, uint64_t index,
		     int invalidate, void *buf, uint64_t *first, uint32_t *mask)
{
	struct get g;
	int rc;

	g.s = zc_pool_enter(c, pool);
	if (tmem_unlikely(!g.s))
		return -ENOENT;
	g.as_it_is = false;
	if (tmem_unlikely(g.s->flags & TMEM_POOL_PRECOMPRESSED)) {
		zc_pool_leave(g.s);
		return -EINVAL;
	}
	g.h = c->host;
	g.oid = zc_oid(oid);
	g.index = index;
	g.invalidate = invalidate != 0;
	g.remembered = g.s->ev != NULL;
	g.cluster = true;
	rc = get_pages(&g, buf);
	if (rc == 0) {
		*first = g.mask ? index - zc_word_place(g.word.word) : index;
		*mask = g.mask ? g.mask : 1;
	}
	trace_cluster(c, pool, &g, rc == 0);
	zc_pool_leave(g.s);
	return rc;
}
