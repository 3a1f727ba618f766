/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Recompression: idle zpages get a denser codec, and the frames that this
 * makes superfluous go back to the OS.
 *
 * What is idle. Persistent pages are in no queue, and a time stamp for each
 * would cost memory and a write for each get. So the clock algorithm: a pass
 * goes over all leaves and marks each zpage OLD; a get takes the mark off (a
 * store to a line that its pin has just written, and only where the mark is
 * set); a zpage that is still OLD when the next pass comes by was not got in
 * between. The next pass begins idle_ms after the end of the last one, so no
 * zpage is touched that was got, or put, less than idle_ms ago.
 *
 *   leaves by number:  1 2 3 ... 4711 ............ end
 *                           at ──►                     one step: a few leaves
 *
 * A pass needs no list: a leaf's id leads to its shard (index_lock_leaf), and
 * ids are dense. Its whole state is the next id.
 *
 * One leaf:
 *
 *   lock shard of leaf L
 *     for each zpage all of whose references are words here (M):
 *       not OLD: mark it, go on
 *       else: note word and handle, pin it, hold its dictionary     [pick]
 *     settle which of them are packed together                      [group]
 *     enter the pool, so that neither it nor its client ends  (pool.c, slots)
 *   unlock
 *     check the checksums, unpack, pack                    no lock held
 *     dense enough: a new zpage, not movable, nobody's     [charged like any other]
 *   lock shard of leaf L                                   [exchange]
 *     (X) the words that were noted still name the old zpages, and are still
 *         all references there are: set them to the new one, place it
 *         else: leave them, the new one was made in vain
 *   unlock; drop the old words; let go of pins
 *
 * Who is packed together. A zpage by itself; or, where a cluster size is asked for,
 * all idle ones of a block of so many slots, if there are several, or if of one some
 * pages have gone: the new zpage reaches from the first live page to the last, and what
 * lies between and is not theirs is zeros in it, and nobody's. Pages that came and left
 * one by one lie alone, and what is left of their clusters holds room for those that
 * went; as long as they are in use that is the price of taking one and not eight. When
 * they are idle, it is not (docs/figures.md, "Idle pages"). Ephemeral pools' zpages keep
 * their shape: the eviction queues know clusters.
 *
 * Why that is sound. While the old zpage is pinned its handle is not given to
 * another object, even if it is freed meanwhile; so a word that names it now
 * named it all along, and is about the same contents, for those never change
 * (I4 in pam_local.c). A put or an invalidate that came between has taken its
 * word out, and (X) fails. A clone that came between has taken references, and
 * (X) fails. A move by compaction has set the words to another handle, and (X)
 * fails. A get that came between has the old zpage pinned and reads on; later
 * ones find the new one. Words keep the bits for the eviction queues: place and
 * handle are exchanged.
 *
 *   X1  after an exchange refs(new) = words in L that name it
 *                                    = the sum of refs(old)
 *                                    = words taken out = what is dropped
 *
 * What is left alone. A zpage that a clone shares: its words lie in leaves that no
 * one lock covers and that it does not know, so they cannot all be exchanged; to
 * exchange those of one leaf would keep the old zpage beside the new one, and take
 * memory for it. It is recompressed when one of the two has let go of it and the
 * other has adopted it (share.c). And pages in the overflow file, which are no
 * memory. Pools that clients share are pools like any other here.
 *
 * What comes back with the old codec's checksum right but cannot be unpacked,
 * or whose checksum is wrong, is left as it is for a get to report.
 *
 * What pays. Shrinking objects where they lie makes holes, not frames. The new
 * zpage goes into the class of its size, and the old class is compacted once
 * some frames' worth of slots is free. A page counts as worth it when its
 * *slot* is at least min_gain_percent smaller, asked of the allocator
 * (zpool_slot_bytes). Pages are alike in what they gain by how large they are
 * now: where, among those of a size, fewer than one in eight was worth it, only
 * one in sixteen is tried from then on. What was packed here, and what was not
 * worth it, is marked TRIED and left alone until another codec is asked for, but for
 * clusters most of whose pages have gone since, and for company of one that is not marked.
 * A codec's own level is in no header: a zpage that is not marked was put with its
 * pool's, and is tried where that is lower.
 *
 * Rates. A bucket of pages and one of CPU time fill with time and hold one
 * second's and a tenth of a second's worth; a step ends when either is empty.
 *
 * At the limit. A new zpage is made before the old one goes, and the first one
 * of its class takes a frame. So while there is room, a little of it is charged
 * for nothing (BALLAST); at the limit that is given up, with it the exchanges
 * begin, and what compaction returns pays it back.
 *
 * Locks: none over a step but a flag, so that there is one step at a time.
 * Failure: where memory for a new zpage or a context is short, the step ends
 * early; nothing is lost or changed by it.
 */
#include "os/clock.h"
#include "os/lock.h"
#include "zcache/zcache.h"

#define CODEC_DEFAULT  "zstd:3"
#define GAIN_DEFAULT   10u
#define PICKS_MAX      INDEX_FANOUT
#define SIZES	       32u /* kinds of zpages by slot size, for giving up */
#define TRIES_ENOUGH   64u
#define TRIES_KEEP     1024u
#define COMPACT_FRAMES 16u
#define BALLAST	       ((uint64_t)64 * OS_FRAME_SIZE)
#define TRAIN_PAGES    2048u /* a pool that is worth a dictionary */
#define TRAIN_BYTES    32768u
#define MICRO	       1000000

/* A zpage that was found idle. */
struct pick {
	uint64_t word; /* one of its words, at slot `at` */
	struct zpage *z;
	struct zc_stored s; /* dict held */
	unsigned at, refs;
	uint32_t mask;	/* places of its words */
	unsigned group; /* what it is packed with */
	bool marked;	/* TRIED, and not to be tried again */
	bool alone;	/* is worth a trial by itself */
	bool joins;	/* may be packed with others */
};

/* What becomes one zpage. */
struct group {
	unsigned n, refs;      /* zpages, words */
	unsigned first, pages; /* slots of the new one */
	bool shaped;	       /* not the shape that it had */
	zpool_handle to;       /* what takes their place; 0: nothing */
	size_t won;
	bool tried;
};

struct zc_recompress {
	_Atomic bool busy;  /* a step is running; the rest is its */
	uint64_t at;	    /* the next leaf */
	uint64_t ended_ns;  /* of the last pass; 0: none yet */
	_Atomic bool retry; /* the next pass tries all again */
	bool running;	    /* in the middle of a pass */
	bool again;	    /* this pass tries what was TRIED, too */
	uint32_t target;    /* codec that TRIED is about */
	uint64_t filled_ns;
	int64_t pages;	  /* that may be tried, in millionths */
	int64_t cpu_ns;	  /* that may be used */
	uint64_t ballast; /* bytes charged for nothing, to be let go at the limit */
	uint64_t freed;	  /* bytes of slots since the last compaction */
	uint64_t packed_bytes, packed_pages; /* what was packed here, lately */
	uint32_t tried[SIZES], worth[SIZES], skipped[SIZES];
	struct pick pick[PICKS_MAX];
	struct group group[PICKS_MAX];
};

/* What one step works with. */
struct step {
	struct tmem_host *h;
	struct zc_recompress *r;
	struct zc_slot *s; /* of the leaf's pool, entered */
	struct zc_thread *t;
	struct codec_spec spec;
	const tmem_recompress *o;
	tmem_recompress_result *out;
	arena_id leaf;
	unsigned picks, groups;
	unsigned block;	  /* slots that are packed together; 0: as they are */
	bool level_gains; /* the pool's codec is the target, at a lower level */
	uint64_t max_pages, cpu_began;
	bool short_of_memory;
};

/* ---- what is denser than what ------------------------------------------------------- */

static unsigned density(unsigned codec)
{
	static const uint8_t rank[CODEC_MAX] = {
		[CODEC_ID_RAW] = 0,	  [CODEC_ID_LZ4] = 1,	   [CODEC_ID_LZO] = 1,
		[CODEC_ID_LZ4HC] = 2,	  [CODEC_ID_DEFLATE] = 3,  [CODEC_ID_ZSTD] = 4,
		[CODEC_ID_ZSTD_DICT] = 5, [CODEC_ID_OPAQUE] = 255,
	};

	/* Of modules nothing is known: as the least dense, when stored, and the trial decides. */
	return codec >= CODEC_ID_MODULE && codec < CODEC_ID_OPAQUE ? 1 : rank[codec];
}

/* Whether it may become smaller: a pool's dictionary counts only for pages alone. */
static bool may_gain(const struct step *p, unsigned codec, unsigned pages)
{
	unsigned target = p->spec.codec->id;

	if (target == CODEC_ID_ZSTD && pages == 1 &&
	    atomic_load_explicit(&p->s->dict, memory_order_relaxed))
		target = CODEC_ID_ZSTD_DICT;
	return density(codec) < density(target) || (codec == target && p->level_gains) ||
	       (codec == CODEC_ID_LZ4 && target >= CODEC_ID_MODULE && target < CODEC_ID_OPAQUE);
}

/* Sizes are as the allocator's classes: by 128 bytes up to 3 KiB, then coarser. */
static unsigned size_kind(size_t slot)
{
	return slot < 3072   ? (unsigned)(slot / 128)
	       : slot < 6144 ? 24 + (unsigned)(slot / 4096)
			     : 31;
}

/* Pages of this size seldom gained: try one in sixteen. */
static bool given_up(struct zc_recompress *r, unsigned kind)
{
	if (r->tried[kind] < TRIES_ENOUGH || r->worth[kind] * 8 >= r->tried[kind])
		return false;
	return r->skipped[kind]++ % 16 != 0;
}

static void learn(struct zc_recompress *r, unsigned kind, bool worth)
{
	r->tried[kind]++;
	r->worth[kind] += worth;
	if (r->tried[kind] >= TRIES_KEEP) { /* what was long ago counts less */
		r->tried[kind] /= 2;
		r->worth[kind] /= 2;
	}
}

static void learn_mean(struct zc_recompress *r, size_t bytes, unsigned pages)
{
	r->packed_bytes += bytes;
	r->packed_pages += pages;
	if (r->packed_pages >= TRIES_KEEP) {
		r->packed_bytes /= 2;
		r->packed_pages /= 2;
	}
}

/* ---- picking: under the shard's lock ----------------------------------------------------- */

/* Noise beside them makes others larger: they have one table of symbols together. */
static bool may_join(unsigned codec)
{
	return codec != CODEC_ID_OPAQUE && codec != CODEC_ID_RAW;
}

/* Notes the zpage, pinned. False: it cannot be. */
static bool take(struct step *p, struct pick *k)
{
	k->z = zpool_map(p->h->zpool, zc_word_handle(k->word));
	if (!k->z)
		return false;
	zc_stored_of(k->z, &k->s);
	if (k->s.codec == CODEC_ID_ZSTD_DICT)
		zc_stored_hold(p->h, &k->s);
	return true;
}

static void let_go(struct step *p, struct pick *k)
{
	zc_stored_release(p->h, &k->s);
	zpool_unmap(p->h->zpool, zc_word_handle(k->word));
}

/* Whether all words of a zpage lie in the block of the one that was met. */
static bool within(const struct step *p, unsigned first, uint32_t mask, unsigned slot)
{
	unsigned block = slot / p->block * p->block;

	return first + (unsigned)__builtin_ctz(mask) >= block &&
	       first + 31u - (unsigned)__builtin_clz(mask) < block + p->block;
}

/* Look at the zpage of the word at `slot`, and pick it if it is idle and may be of use. */
static void look_at(struct step *p, const struct index_cursor *c, unsigned slot)
{
	uint64_t word = c->words[slot];
	struct pick k = {.word = word, .at = slot};
	zpool_handle handle = zc_word_handle(word);
	struct zpage *z = zpool_peek(p->h->zpool, handle);
	uint16_t info = zpage_info(z, __ATOMIC_ACQUIRE);
	unsigned pages = zpage_pages(info);
	uint32_t marks = zpage_marks(z);
	bool old = marks & ZPAGE_OLD || !p->o->idle_ms;

	/* A cluster is met at the first of its words only. */
	k.refs = zc_words_of(c, slot, pages, &k.mask);
	if (!k.refs || (unsigned)__builtin_ctz(k.mask) != zc_word_place(word))
		return;
	p->out->looked_at++;
	if (!old)
		zpage_set_marks(z, ZPAGE_OLD);
	if (!old || p->picks == PICKS_MAX || k.refs != zpage_refs(z, info))
		return;
	k.marked = marks & ZPAGE_TRIED && !p->r->again;
	k.joins = p->block && may_join(zpage_codec(info)) &&
		  within(p, slot - zc_word_place(word), k.mask, slot);
	k.alone = !k.marked && may_gain(p, zpage_codec(info), pages) &&
		  !given_up(p->r,
			    size_kind(zpool_slot_bytes(p->h->zpool, zpage_head(info) + z->zsize)));
	if ((k.joins || k.alone) && take(p, &k))
		p->r->pick[p->picks++] = k;
}

/*
 * A cluster that was packed before, and lost so much since that it is worth it again. It
 * may have had gaps from the beginning: so not only words count, but bytes for each.
 */
static bool hollow(const struct zc_recompress *r, const struct pick *k)
{
	return 2 * k->refs <= k->s.pages &&
	       2 * k->s.zsize * r->packed_pages >= 3 * k->refs * r->packed_bytes;
}

static void by_itself(struct step *p, struct pick *k)
{
	struct group *g = &p->r->group[p->groups];

	*g = (struct group){.n = 1, .refs = k->refs, .pages = k->s.pages};
	g->first = k->at - zc_word_place(k->word);
	k->group = p->groups++;
}

/* Whether the picks from `from` on that may join are to: they are several, or there are gaps. */
static bool join(struct step *p, unsigned from)
{
	unsigned n = 0, refs = 0, pages = 0, last = 0, first = INDEX_FANOUT;
	bool fresh = false;
	struct group *g;

	for (unsigned i = from; i < p->picks; i++) {
		struct pick *k = &p->r->pick[i];
		unsigned slot = k->at - zc_word_place(k->word);

		if (!k->joins)
			continue;
		n++;
		refs += k->refs;
		pages += k->s.pages;
		fresh |= !k->marked || hollow(p->r, k);
		if (k->at < first)
			first = k->at;
		if (slot + 31u - (unsigned)__builtin_clz(k->mask) > last)
			last = slot + 31u - (unsigned)__builtin_clz(k->mask);
	}
	if (!fresh || (n < 2 && refs == pages))
		return false;
	g = &p->r->group[p->groups];
	*g = (struct group){.n = n, .refs = refs, .first = first, .shaped = true};
	g->pages = last - first + 1;
	for (unsigned i = from; i < p->picks; i++)
		if (p->r->pick[i].joins)
			p->r->pick[i].group = p->groups;
	p->groups++;
	return true;
}

/*
 * A block has been looked at: what becomes of the picks from `from` on. To let go of one here,
 * under the lock that its words are under, frees nothing: nobody can have dropped it.
 */
static void settle_block(struct step *p, unsigned from)
{
	bool joined = p->block && join(p, from);
	unsigned kept = from;

	for (unsigned i = from; i < p->picks; i++) {
		struct pick *k = &p->r->pick[i];

		if (!(joined && k->joins)) {
			if (!k->alone) {
				let_go(p, k);
				continue;
			}
			by_itself(p, k);
		}
		if (kept != i)
			p->r->pick[kept] = *k;
		kept++;
	}
	p->picks = kept;
}

static void pick_words(struct step *p, const struct index_cursor *c)
{
	struct codec_spec pool = zc_pool_codec(p->s);
	unsigned from = 0;

	p->block = p->s->flags & TMEM_POOL_PERSIST ? p->o->cluster : 0;
	p->level_gains = pool.codec == p->spec.codec && pool.level < p->spec.level &&
			 density(pool.codec->id) > 1;
	for (unsigned slot = 0; slot < INDEX_FANOUT; slot++) {
		if (p->block && slot % p->block == 0) {
			settle_block(p, from);
			from = p->picks;
		}
		if (c->words[slot] && !(*c->immediate >> slot & 1) &&
		    zc_word_kind(c->words[slot]) == ZC_LOCAL)
			look_at(p, c, slot);
	}
	settle_block(p, from);
}

/* Marks the leaf's zpages, notes those that are idle, enters the pool. False: nothing to do. */
static bool pick_leaf(struct step *p)
{
	struct index_cursor c;

	p->picks = p->groups = 0;
	if (!index_maybe_leaf(p->h->index, p->leaf) || !index_lock_leaf(p->h->index, p->leaf, &c))
		return false;
	p->s = index_pool_owner(c.pool);
	if (zc_pool_enter_slot(p->s)) {
		pick_words(p, &c);
		if (!p->picks)
			zc_pool_leave_slot(p->s);
	}
	index_unlock(&c);
	return p->picks != 0;
}

/* ---- packing: no lock held ------------------------------------------------------------------ */

/* Into big[0], at most cap bytes. 0: it does not fit. */
static int pack(struct step *p, const char *plain, struct zc_stored *s, size_t cap)
{
	uint16_t dict =
		s->pages == 1 && p->spec.codec->id == CODEC_ID_ZSTD ? zc_pool_dict(p->s) : 0;
	void *ctx;
	int rc = 0;

	s->bytes = p->t->big[0];
	s->zsize = 0;
	s->dict = dict;
	s->codec = CODEC_ID_ZSTD_DICT;
	if (dict)
		return zc_dict_compress(p->t, dict, plain, p->t->big[0], cap, &s->zsize);
	s->codec = p->spec.codec->id;
	ctx = zc_thread_cctx(p->t, &p->spec);
	if (ctx)
		s->zsize = p->spec.codec->compress(ctx, plain, (size_t)s->pages * ZC_PAGE,
						   p->t->big[0], cap);
	else
		rc = -ENOMEM;
	return rc;
}

/* The bytes that a zpage may have at most to be worth it. */
static size_t worth_it(const struct step *p, size_t slot)
{
	unsigned percent = p->o->min_gain_percent ? p->o->min_gain_percent : GAIN_DEFAULT;

	return slot * (100 - percent) / 100;
}

/* Room for one more zpage at the limit: what was freed, or the ballast. */
static bool find_room(struct step *p)
{
	struct zc_recompress *r = p->r;

	if (r->freed >= OS_FRAME_SIZE && zpool_compact(p->h->zpool, r->freed / OS_FRAME_SIZE)) {
		r->freed = 0;
		return true;
	}
	if (!r->ballast)
		return false;
	frames_uncharge(&p->h->frames, r->ballast);
	r->ballast = 0;
	return true;
}

static void keep_ballast(struct step *p)
{
	uint64_t limit = atomic_load_explicit(&p->h->frames.limit_bytes, memory_order_relaxed);
	uint64_t want = limit / 64 < BALLAST ? limit / 64 : BALLAST;

	if (!p->r->ballast && want && frames_charge(&p->h->frames, want))
		p->r->ballast = want;
}

static size_t head_of(unsigned pages)
{
	return pages > 1 ? ZPAGE_CLUSTER_HEAD : ZPAGE_SINGLE_HEAD;
}

/* The live pages of one where they belong in big[1]. False: it is left as it is. */
static bool unpack(struct step *p, const struct group *g, const struct pick *k)
{
	void *ctx = zc_stored_dctx(p->t, &k->s);
	char *all = p->t->big[0], *to = p->t->big[1];
	unsigned first = k->at - zc_word_place(k->word);

	if (!ctx) {
		p->short_of_memory = true;
		return false;
	}
	/* Damage is for a get to find and report; here it is only left alone. */
	if (zc_checksum(k->s.bytes, k->s.zsize) != k->s.checksum ||
	    zc_stored_unpack(p->h, ctx, &k->s, all, k->s.pages))
		return false;
	for (uint32_t m = k->mask; m; m &= m - 1) {
		unsigned place = (unsigned)__builtin_ctz(m);

		memcpy(to + (size_t)(first + place - g->first) * ZC_PAGE,
		       all + (size_t)place * ZC_PAGE, ZC_PAGE);
	}
	return true;
}

/* A zpage to take the place of those of group number n, if that is worth it. */
static void repack(struct step *p, unsigned n)
{
	struct group *g = &p->r->group[n];
	struct zc_stored s = {
		.pages = g->pages, .fresh = true, .ephemeral = !(p->s->flags & TMEM_POOL_PERSIST)};
	size_t head = head_of(s.pages), slots = 0, now, most;
	int rc = 0;

	p->out->tried += g->n;
	zc_count(p->t, ZC_RECOMPRESS_TRIED, g->n);
	memset(p->t->big[1], 0, (size_t)g->pages * ZC_PAGE);
	for (unsigned i = 0; i < p->picks; i++) {
		struct pick *k = &p->r->pick[i];

		if (k->group != n)
			continue;
		if (!unpack(p, g, k)) {
			g->tried = !p->short_of_memory;
			return;
		}
		slots += zpool_slot_bytes(p->h->zpool, head_of(k->s.pages) + k->s.zsize);
	}
	g->tried = true;
	/* What the old ones took may be more than the pages that are left would plain. */
	most = worth_it(p, slots);
	if (most > head + (size_t)g->pages * p->h->max_zsize)
		most = head + (size_t)g->pages * p->h->max_zsize;
	if (most > head)
		rc = pack(p, p->t->big[1], &s, most - head);
	now = zpool_slot_bytes(p->h->zpool, head + s.zsize);
	if (rc == 0 && s.zsize && now <= most) {
		rc = zpage_make(p->h, p->t, &s, g->refs, &g->to);
		if (rc == -ENOMEM && find_room(p))
			rc = zpage_make(p->h, p->t, &s, g->refs, &g->to);
		g->won = rc ? 0 : slots - now;
		learn_mean(p->r, s.zsize, g->refs);
	}
	zc_stored_release(p->h, &s);
	if (rc) {
		g->to = 0;
		g->tried = rc == -E2BIG; /* else not its fault */
		/* A client's own limit is no reason to leave the others' pages as they are. */
		p->short_of_memory |= rc != -E2BIG && rc != -EDQUOT;
	} else if (!g->shaped) {
		learn(p->r, size_kind(slots), g->to != 0);
	}
}

/* ---- exchanging: under the shard's lock again -------------------------------------------------
 */

/* (X) for one of a group. */
static bool still_ours(const struct step *p, const struct index_cursor *c, const struct pick *k)
{
	uint32_t mask = 0;

	return c->pool == p->s->pool && c->words[k->at] && !(*c->immediate >> k->at & 1) &&
	       zc_word_same(c->words[k->at], k->word) &&
	       zc_words_of(c, k->at, k->s.pages, &mask) == k->refs && mask == k->mask &&
	       zpage_refs(k->z, zpage_info(k->z, __ATOMIC_ACQUIRE)) == k->refs;
}

/* One zpage's words name the new one; what they were is added to old[]. */
static unsigned exchange_words(const struct group *g, struct index_cursor *c, const struct pick *k,
			       struct pampd *old)
{
	unsigned first = k->at - zc_word_place(k->word), n = 0;

	for (uint32_t m = k->mask; m; m &= m - 1) {
		unsigned slot = first + (unsigned)__builtin_ctz(m);
		uint64_t bits = c->words[slot] & ~ZC_NAME_MASK;
		struct pampd is = {bits | zc_word(ZC_LOCAL, slot - g->first, g->to), false};

		old[n++] = index_cursor_get(c, slot);
		index_cursor_set(c, slot, is);
	}
	return n;
}

/* Words that old[] has got: 0: the group stays as it is. */
static unsigned exchange(struct step *p, struct index_cursor *c, unsigned group, struct pampd *old)
{
	struct group *g = &p->r->group[group];
	unsigned n = 0;

	for (unsigned i = 0; i < p->picks; i++)
		if (p->r->pick[i].group == group && !still_ours(p, c, &p->r->pick[i]))
			return 0;
	for (unsigned i = 0; i < p->picks; i++) {
		struct pick *k = &p->r->pick[i];

		if (k->group != group)
			continue;
		if (g->to)
			n += exchange_words(g, c, k, old + n);
		else if (g->tried)
			zpage_set_marks(k->z, ZPAGE_TRIED);
	}
	if (!g->to)
		return 0;
	tmem_assert(X1, n == g->refs);
	zpage_place(p->h, g->to, c->leaf, g->first);
	/* It is as old as it was, and as dense as can be. */
	zpage_set_marks(zpool_peek(p->h->zpool, g->to), ZPAGE_OLD | ZPAGE_TRIED);
	return n;
}

/* All of the leaf's in one lock hold; what they replace goes afterwards. */
static void exchange_leaf(struct step *p)
{
	uint64_t done = 0;
	struct pampd old[PICKS_MAX];
	struct index_cursor c;
	unsigned n = 0, words;

	if (index_lock_leaf(p->h->index, p->leaf, &c)) {
		for (unsigned i = 0; i < p->groups; i++) {
			words = exchange(p, &c, i, &old[n]);
			done |= (uint64_t)(words != 0) << i;
			n += words;
		}
		index_unlock(&c);
	}
	if (n)
		zc_drop(p->h, p->t, old, n);
	for (unsigned i = 0; i < p->picks; i++)
		let_go(p, &p->r->pick[i]);
	for (unsigned i = 0; i < p->groups; i++) {
		struct group *g = &p->r->group[i];

		if (g->to && !(done >> i & 1))
			zpage_free(p->h, p->t, g->to);
		if (!(done >> i & 1))
			continue;
		p->out->recompressed += g->n;
		p->out->saved_bytes += g->won;
		p->r->freed += g->won;
		zc_count(p->t, ZC_RECOMPRESSED, g->n);
		zc_count(p->t, ZC_RECOMPRESS_SAVED, g->won);
	}
}

/* ---- steps
 * --------------------------------------------------------------------------------------- */

static void refill(struct step *p, uint64_t now)
{
	struct zc_recompress *r = p->r;
	uint64_t ns = r->filled_ns ? now - r->filled_ns : 100000000;
	const tmem_recompress *o = p->o;

	ns = ns < 1000000000 ? ns : 1000000000;
	r->pages += (int64_t)(ns / 1000 * o->pages_per_s);
	if (r->pages > (int64_t)o->pages_per_s * MICRO)
		r->pages = (int64_t)o->pages_per_s * MICRO;
	r->cpu_ns += (int64_t)(ns / 100 * o->cpu_percent);
	if (r->cpu_ns > (int64_t)o->cpu_percent * 1000000)
		r->cpu_ns = (int64_t)o->cpu_percent * 1000000;
	r->filled_ns = now;
}

/* Whether the rates and the caller allow for more. */
static bool may_go_on(struct step *p)
{
	uint64_t now = os_clock_thread_cpu_ns();

	p->r->cpu_ns -= (int64_t)(now - p->cpu_began);
	p->cpu_began = now;
	if (p->short_of_memory || (p->max_pages && p->out->tried >= p->max_pages))
		return false;
	if (p->o->pages_per_s && p->r->pages <= 0)
		return false;
	return !p->o->cpu_percent || p->r->cpu_ns > 0;
}

/* Entered by its slot, which goes with its client: that takes host->lock before. */
static void leave_pool(struct tmem_host *h, struct zc_slot *s)
{
	os_mutex_lock(&h->lock);
	zc_pool_leave(s);
	os_mutex_unlock(&h->lock);
}

static void recompress_leaf(struct step *p)
{
	if (!pick_leaf(p))
		return;
	p->t = zc_thread_enter(p->h, p->s);
	zc_thread_need_big(&p->t);
	for (unsigned i = 0; i < p->groups && !p->short_of_memory; i++) {
		if (p->t == p->h->emergency)
			p->short_of_memory = true;
		else
			repack(p, i);
		p->r->pages -= (int64_t)p->r->group[i].n * MICRO;
	}
	exchange_leaf(p);
	zc_thread_leave(p->t);
	leave_pool(p->h, p->s);
	if (p->r->freed / OS_FRAME_SIZE >= COMPACT_FRAMES) {
		(void)zpool_compact(p->h->zpool, p->r->freed / OS_FRAME_SIZE);
		p->r->freed = 0;
	}
}

/* Begin a pass when it is time; false: it is not. */
static bool pass_begin(struct step *p, uint64_t now)
{
	struct zc_recompress *r = p->r;
	uint32_t target = (uint32_t)p->spec.level << 8 | p->spec.codec->id;

	if (r->running)
		return true;
	if (r->ended_ns && now - r->ended_ns < (uint64_t)p->o->idle_ms * 1000000)
		return false;
	r->again = atomic_exchange(&r->retry, false) || target != r->target;
	r->target = target;
	if (r->again) {
		memset(r->tried, 0, sizeof(r->tried));
		memset(r->worth, 0, sizeof(r->worth));
	}
	r->at = 1;
	r->running = true;
	return true;
}

static void run(struct step *p)
{
	struct zc_recompress *r = p->r;
	uint64_t end = (uint64_t)index_leaf_top(p->h->index) + 1, before, after;
	struct zpool_stats st;
	unsigned unchecked = 15; /* the rates may allow nothing at all */

	zpool_stats(p->h->zpool, &st);
	before = st.frame_bytes;
	while (r->at < end && (++unchecked % 16 || may_go_on(p))) {
		p->leaf = (arena_id)r->at++;
		recompress_leaf(p);
		if (p->picks)
			unchecked = 15;
	}
	if (r->at >= end) {
		r->running = false;
		r->ended_ns = os_clock_ns();
		p->out->passes = 1;
	}
	if (r->freed >= OS_FRAME_SIZE && r->at >= end) {
		(void)zpool_compact(p->h->zpool, r->freed / OS_FRAME_SIZE);
		r->freed = 0;
	}
	zpool_stats(p->h->zpool, &st);
	after = st.frame_bytes;
	p->out->frames_returned = after < before ? (before - after) / OS_FRAME_SIZE : 0;
}

static struct zc_recompress *state(struct tmem_host *h)
{
	struct zc_recompress *r = atomic_load(&h->recompress), *none = NULL;

	if (r)
		return r;
	r = zc_alloc(h, sizeof(*r));
	if (r && !atomic_compare_exchange_strong(&h->recompress, &none, r)) {
		zc_free(h, r, sizeof(*r));
		r = none;
	}
	return r;
}

/*
 * Buffers and contexts of this thread, also where there is nothing to do yet:
 * while there is room for them, not when it is needed. False: no memory; the
 * emergency state is for those who must go on, not for this.
 */
static bool warm_up(struct step *p)
{
	struct zc_thread *t = zc_thread_enter_host(p->h);

	zc_thread_need_big(&t);
	p->short_of_memory = t == p->h->emergency || !zc_thread_cctx(t, &p->spec);
	zc_thread_leave(t);
	return !p->short_of_memory;
}

/* A pool that has no dictionary, and many more pages than when one was tried last. */
static int wants_training(void *arg, struct zc_slot *s)
{
	struct zc_slot **found = arg;
	uint64_t pages = index_pool_pages(s->pool);

	if (pages < TRAIN_PAGES || pages < 2 * atomic_load(&s->trained_at) ||
	    atomic_load(&s->dict) || s->shared || !zc_pool_enter_slot(s))
		return 0;
	*found = s;
	return 1;
}

/* At most one pool a step: it takes long. What comes of it is no concern of the step. */
static void train_one(struct step *p)
{
	tmem_train_result out = {.size = sizeof(out)};
	struct zc_slot *s = NULL;

	if (p->spec.codec->id != CODEC_ID_ZSTD || !zc_each_pool(p->h, wants_training, &s) || !s)
		return;
	atomic_store(&s->trained_at, index_pool_pages(s->pool));
	if (zc_train(s, TRAIN_BYTES, p->spec.level, &out) == 0)
		p->out->trained = out.kept;
	leave_pool(p->h, s);
}

int tmem_host_recompress(tmem_host *h, const tmem_recompress *options,
			 tmem_recompress_result *result)
{
	tmem_recompress o = TMEM_RECOMPRESS;
	tmem_recompress_result out = {.size = sizeof(out)};
	struct step p = {.h = h, .o = &o, .out = &out};
	char err[160];
	int rc = 0;

	if (options && (options->size > sizeof(o) || options->size < sizeof(o.size)))
		return -EINVAL;
	if (options)
		memcpy(&o, options, options->size);
	if (result && result->size > sizeof(out))
		return -EINVAL;
	if (o.cpu_percent > 100 || o.min_gain_percent > 90 || o.cluster > TMEM_CLUSTER_MAX)
		return -EINVAL;
	rc = codec_parse(o.codec ? o.codec : CODEC_DEFAULT, &p.spec, err, sizeof(err));
	if (rc == 0)
		rc = zc_emergency_ready(h, p.spec.codec);
	p.r = rc ? NULL : state(h);
	if (rc || !p.r)
		return rc ? rc : -ENOMEM;
	if (atomic_exchange(&p.r->busy, true))
		return -EBUSY;
	atomic_store_explicit(&h->marking, true, memory_order_relaxed);
	p.max_pages = o.max_pages;
	p.cpu_began = os_clock_thread_cpu_ns();
	refill(&p, os_clock_ns());
	if (o.train)
		train_one(&p);
	keep_ballast(&p);
	if (warm_up(&p) && pass_begin(&p, os_clock_ns()))
		run(&p);
	keep_ballast(&p);
	rc = p.short_of_memory ? -ENOMEM : 0;
	atomic_store(&p.r->busy, false);
	if (result) {
		out.size = result->size;
		memcpy(result, &out, result->size);
	}
	return rc;
}

void zc_recompress_again(struct tmem_host *h)
{
	struct zc_recompress *r = atomic_load(&h->recompress);

	if (r)
		atomic_store(&r->retry, true);
}

void zc_recompress_destroy(struct tmem_host *h)
{
	struct zc_recompress *r = atomic_load(&h->recompress);

	if (r && r->ballast)
		frames_uncharge(&h->frames, r->ballast);
	zc_free(h, r, sizeof(*r));
}
