/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Restore: a new client from a save file (save.h), all of it or nothing.
 *
 *   header ── record ── record ── ... ── END ── end of the file
 *      │         │
 *      │         └─ checksums, number in turn ─ type ─ each field ─ decompress ─ link
 *      └─ version first, then its checksum
 *
 * The file is not believed. Every length is bounded by a constant before anything of
 * that length is read or allocated; every field is judged; a zpage must decompress to
 * exactly its pages before it is taken; a handle may come once. What the END record
 * says must be what was found, and nothing may follow. The first thing that is wrong
 * ends it, with the offset of its record (or of the header) and what is wrong.
 *
 * Until the end nobody can name the client, so on failure it is destroyed, with
 * its pools, and nothing has been seen of it.
 *
 * Memory: one buffer of SAVE_BUFFER bytes and the table of pools, whatever the file
 * says. Pages are charged to the host like puts, and make room like puts.
 */
#include "zcache/save.h"

#include "os/file.h"

#include <fcntl.h>
#include <stdio.h>

struct restorer {
	struct tmem_host *h;
	struct tmem_client *c;
	struct zc_thread *t;
	tmem_save *io;
	int fd;
	uint8_t *buf;
	size_t at, have;    /* buf[at .. have) is unread */
	uint64_t offset;    /* in the file, of buf[0] */
	uint64_t record_at; /* of the record that is being looked at */
	uint64_t records, pages, zpages, next_progress;
	uint32_t whole, pools, announced;
	struct zc_slot **pool; /* made so far, entered */
	const struct codec *codec[256];
};

/* ---- reading ---------------------------------------------------------------------- */

static int damaged(struct restorer *r, const char *what)
{
	r->io->offset = r->record_at;
	snprintf(r->io->error, sizeof(r->io->error), "damaged at byte %llu: %s",
		 (unsigned long long)r->record_at, what);
	return -EBADMSG;
}

/* Not for what is in it. */
static int refused(struct restorer *r, int rc, const char *why)
{
	snprintf(r->io->error, sizeof(r->io->error), "%s", why);
	return rc;
}

/* n bytes in a row at buf + at. 1, if end_ok, where the file ends; elsewhere that is damage. */
static int need(struct restorer *r, size_t n, bool end_ok)
{
	ssize_t got;

	if (r->have - r->at >= n)
		return 0;
	memmove(r->buf, r->buf + r->at, r->have - r->at);
	r->offset += r->at;
	r->have -= r->at;
	r->at = 0;
	got = os_file_pread(r->fd, r->buf + r->have, SAVE_BUFFER - r->have, r->offset + r->have);
	if (got < 0)
		return (int)got;
	r->have += (size_t)got;
	if (r->have >= n)
		return 0;
	if (end_ok && r->have == 0)
		return 1;
	return damaged(r, "the file ends here");
}

static int read_header(struct restorer *r)
{
	const uint8_t *p = r->buf;
	int rc = need(r, SAVE_HEADER, false);

	if ((rc == 0 || rc == -EBADMSG) && memcmp(p, SAVE_MAGIC, r->have < 8 ? r->have : 8) != 0)
		return refused(r, -EINVAL, "not a save file");
	if (rc)
		return rc;
	/* Before its checksum: what comes after the version may be elsewhere then. */
	if (save_get32(p + 8) > SAVE_VERSION) {
		snprintf(r->io->error, sizeof(r->io->error),
			 "made by a newer version: format %u, known up to %u", save_get32(p + 8),
			 SAVE_VERSION);
		r->io->offset = 8;
		return -EOPNOTSUPP;
	}
	if (save_get32(p + 124) != zc_checksum(p, 124))
		return damaged(r, "checksum of the header");
	if (save_get32(p + 8) != SAVE_VERSION || save_get32(p + 12) != SAVE_HEADER)
		return damaged(r, "version or size of the header");
	r->announced = save_get32(p + 16);
	if (r->announced > ZC_SLOTS)
		return damaged(r, "more pools than a client can have");
	if (!memchr(p + 24, 0, 64))
		return damaged(r, "name of the client");
	r->at = SAVE_HEADER;
	return 0;
}

/* The next record's payload at buf + at; its size and type. */
static int read_record(struct restorer *r, uint32_t *type, uint32_t *n)
{
	const uint8_t *p;
	int rc;

	r->record_at = r->offset + r->at;
	rc = need(r, SAVE_RECORD, false);
	if (rc)
		return rc;
	p = r->buf + r->at;
	if (save_get32(p + 20) != zc_checksum(p, 20))
		return damaged(r, "checksum of a record's head");
	*type = save_get32(p);
	*n = save_get32(p + 4);
	if (*n > SAVE_PAYLOAD_MAX)
		return damaged(r, "size of a record");
	if (save_get64(p + 8) != r->records)
		return damaged(r, "a record is missing, or comes twice");
	rc = need(r, SAVE_RECORD + *n, false);
	if (rc)
		return rc;
	p = r->buf + r->at;
	if (save_get32(p + 16) != zc_checksum(p + SAVE_RECORD, *n))
		return damaged(r, "checksum of a record");
	if (*type != SAVE_T_END)
		r->whole = save_chain(r->whole, p);
	r->records++;
	r->at += SAVE_RECORD;
	return 0;
}

/* ---- pools and codecs --------------------------------------------------------------- */

static int take_pool(struct restorer *r, const uint8_t *p, uint32_t n)
{
	uint32_t shards, flags;
	struct zc_slot *s;
	tmem_pool id;

	if (n != SAVE_POOL || save_get32(p) != r->pools || r->pools >= r->announced)
		return damaged(r, "number of a pool");
	flags = save_get32(p + 4);
	if (flags != TMEM_POOL_PERSIST && flags != TMEM_POOL_COSTLY && flags != 0)
		return damaged(r, "kind of a pool");
	shards = save_get32(p + 12);
	if (!shards || shards > 4096 || shards & (shards - 1))
		return damaged(r, "shards of a pool");
	id = tmem_pool_create(r->c, flags, shards);
	if (id < 0)
		return id;
	s = zc_pool_enter(r->c, id);
	tmem_must(s);
	r->pool[r->pools] = s;
	if (r->io->pool && r->pools < r->io->pool_room)
		r->io->pool[r->pools] = (tmem_pool_pair){(int32_t)save_get32(p + 8), id};
	r->pools++;
	return 0;
}

/* It goes to a terminal, perhaps. */
static void printable(char *text)
{
	for (; *text; text++)
		*text = *text < ' ' || *text > '~' ? '?' : *text;
}

static int take_codec(struct restorer *r, const uint8_t *p, uint32_t n)
{
	char name[SAVE_CODEC_MAX];
	const struct codec *codec;
	int rc;

	if (n < 2 || n > SAVE_CODEC_MAX || memchr(p + 1, 0, n - 1))
		return damaged(r, "name of a codec");
	memcpy(name, p + 1, n - 1);
	name[n - 1] = '\0';
	if (r->codec[p[0]])
		return damaged(r, "a codec comes twice");
	codec = codec_find(name);
	/* Those that mean something in one host only have no place in a file. */
	if (codec && (codec->id == CODEC_ID_ZSTD_DICT || codec->id == CODEC_ID_OPAQUE))
		codec = NULL;
	if (!codec) {
		printable(name);
		snprintf(r->io->error, sizeof(r->io->error), "needs the codec '%s'", name);
		r->io->offset = r->record_at;
		return -EOPNOTSUPP;
	}
	rc = zc_emergency_ready(r->h, codec);
	if (rc == 0)
		r->codec[p[0]] = codec;
	return rc;
}

/* The pool of a record of pages, or NULL. */
static struct zc_slot *pool_of(struct restorer *r, const uint8_t *p)
{
	uint32_t pool = save_get32(p);

	return pool < r->pools && save_get32(p + 4) == 0 ? r->pool[pool] : NULL;
}

static void oid_of(const uint8_t *p, struct index_oid *oid)
{
	for (unsigned i = 0; i < 3; i++)
		oid->w[i] = save_get64(p + 8 + 8 * i);
}

/* ---- pages ---------------------------------------------------------------------------- */

/* What a put does where memory is short. */
static bool make_room(struct restorer *r, const struct zc_slot *s, size_t need, unsigned round)
{
	return zc_evict_for_put(r->h, r->t, NULL, s->flags & TMEM_POOL_PERSIST, need, round) ||
	       (round < 4 && zc_make_room(r->h));
}

/* Under the shard's lock: what is there already, or set. False: something is there. */
static bool set_words(struct restorer *r, struct index_cursor *c, unsigned slot, unsigned n,
		      struct pampd *p, uint64_t stamp)
{
	bool placed = false;

	for (unsigned i = 0; i < n; i++)
		if ((p[i].word || p[i].immediate) && index_cursor_present(c, slot + i))
			return false;
	for (unsigned i = 0; i < n; i++) {
		if (!p[i].word && !p[i].immediate)
			continue;
		if (!p[i].immediate) {
			uint64_t word = p[i].word;

			/* All words that are not immediate are one zpage's. */
			if (!placed && zc_word_kind(word) == ZC_LOCAL)
				zpage_place(r->h, zc_word_handle(word), c->leaf,
					    slot + i - zc_word_place(word));
			placed = true;
			p[i].word |= stamp;
		}
		index_cursor_set(c, slot + i, p[i]);
	}
	return true;
}

static unsigned count_words(const struct pampd *p, unsigned n)
{
	unsigned words = 0;

	for (unsigned i = 0; i < n; i++)
		words += p[i].word || p[i].immediate;
	return words;
}

/*
 * Words p[0..n-1] to index, index + 1, ... of one leaf; p[i].word 0 and not immediate:
 * none. They are the pool's when *linked, whatever is returned. 1: there is one already.
 */
static int link_words(struct restorer *r, struct zc_slot *s, const struct index_oid *oid,
		      uint64_t index, unsigned n, struct pampd *p, bool *linked)
{
	uint64_t stamp = s->ev ? zc_stamp_draw(r->t) : 0;
	unsigned slot = zc_slot(index), round = 0;
	struct index_cursor c;
	arena_id leaf;
	int rc;

	*linked = false;
	do
		rc = index_lock_create(s->pool, oid, index, &c);
	while (rc == -ENOMEM && make_room(r, s, ZC_PAGE, round++));
	if (rc)
		return rc;
	leaf = c.leaf;
	*linked = set_words(r, &c, slot, n, p, stamp);
	if (*linked && s->ev)
		atomic_fetch_add_explicit(&s->ev->pages, count_words(p, n), memory_order_relaxed);
	index_unlock(&c);
	if (!*linked)
		return 1;
	if (!s->ev)
		return 0;
	round = 0;
	do
		rc = zc_enqueue(s, leaf, oid, index & ~(uint64_t)(INDEX_FANOUT - 1), slot, n, p);
	while (rc == -ENOMEM && make_room(r, s, ZC_PAGE, round++));
	return rc;
}

/* Words that did not get in. */
static void drop_words(struct restorer *r, const struct pampd *p, unsigned n)
{
	struct pampd there[INDEX_FANOUT];
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++)
		if (p[i].word || p[i].immediate)
			there[k++] = p[i];
	zc_drop(r->h, r->t, there, k);
}

/* Compressed bytes of a pool's pages into the store, with so many references. */
static int store(struct restorer *r, const struct zc_slot *s, const struct zc_stored *z,
		 unsigned refs, uint64_t *word)
{
	/* Only persistent pages: nothing is evicted from the file. */
	bool to_file = r->h->overflow && s->flags & TMEM_POOL_PERSIST;
	uint64_t handle = 0;
	unsigned round = 0;
	int rc = -ENOMEM;

	/* Like a put: when memory is nearly full, what is left is for metadata. */
	if (!to_file || zc_overflow_fill(r->h) < ZC_FILL_FULL) {
		do
			rc = zpage_make(r->h, r->t, z, refs, &handle);
		while (rc == -ENOMEM && make_room(r, s, z->zsize, round++));
	}
	if (rc == 0) {
		*word = zc_word(ZC_LOCAL, 0, handle);
	} else if (rc == -ENOMEM && to_file) {
		rc = zc_overflow_put(r->h, r->t, z, refs, &handle) ? rc : 0;
		*word = zc_word(ZC_OVERFLOW, 0, handle);
	}
	return rc;
}

/* Whether it says of itself what is true: it decompresses to its pages. */
static bool is_whole(struct restorer *r, const struct zc_stored *z, const struct codec *codec)
{
	struct zc_thread *t;
	bool whole;
	void *ctx;

	zc_thread_need_big(&r->t);
	ctx = zc_thread_dctx(r->t, codec);
	t = ctx ? r->t : zc_thread_emergency(r->h, NULL);
	if (!ctx)
		ctx = zc_thread_dctx(t, codec);
	whole = ctx && codec->decompress(ctx, z->bytes, z->zsize, t->big[1],
					 z->pages * (size_t)ZC_PAGE) == 0;
	if (t != r->t)
		zc_thread_leave(t);
	return whole;
}

/* What a ZPAGE record says. */
struct zpage_record {
	struct zc_slot *pool;
	struct index_oid oid;
	uint64_t index;
	uint32_t mask;
	struct zc_stored z;
	const struct codec *codec;
};

static int judge_zpage(struct restorer *r, const uint8_t *p, uint32_t n, struct zpage_record *k)
{
	if (n <= SAVE_ZPAGE)
		return damaged(r, "size of a zpage's record");
	k->pool = pool_of(r, p);
	oid_of(p, &k->oid);
	k->index = save_get64(p + 32);
	k->mask = save_get32(p + 40);
	k->codec = r->codec[p[44]];
	k->z = (struct zc_stored){.bytes = p + SAVE_ZPAGE,
				  .pages = p[45],
				  .zsize = save_get32(p + 48),
				  .checksum = save_get32(p + 52)};
	if (!k->pool)
		return damaged(r, "pool of a zpage");
	if (!k->codec || p[46] || p[47])
		return damaged(r, "codec of a zpage");
	if (k->z.pages < 1 || k->z.pages > TMEM_CLUSTER_MAX ||
	    zc_slot(k->index) + k->z.pages > INDEX_FANOUT)
		return damaged(r, "pages of a zpage");
	if (!k->mask || k->mask >> k->z.pages)
		return damaged(r, "places of a zpage");
	if (k->z.zsize != n - SAVE_ZPAGE || k->z.zsize > k->z.pages * (size_t)ZC_PAGE ||
	    k->z.zsize > UINT16_MAX)
		return damaged(r, "size of a zpage");
	if (k->z.checksum != zc_checksum(k->z.bytes, k->z.zsize))
		return damaged(r, "checksum of a zpage");
	k->z.codec = k->codec->id;
	k->z.ephemeral = !(k->pool->flags & TMEM_POOL_PERSIST);
	return 0;
}

/* 0; 1: one of its pages is there already; -EBADMSG: cannot be decompressed; -ENOMEM. */
static int add_zpage(struct restorer *r, const struct zpage_record *k)
{
	unsigned n = (unsigned)__builtin_popcount(k->mask);
	struct pampd words[TMEM_CLUSTER_MAX] = {{0}};
	bool linked;
	uint64_t word;
	int rc;

	if (!is_whole(r, &k->z, k->codec))
		return -EBADMSG;
	rc = store(r, k->pool, &k->z, n, &word);
	if (rc)
		return rc;
	for (uint32_t m = k->mask; m; m &= m - 1) {
		unsigned i = (unsigned)__builtin_ctz(m);

		words[i].word = word | (uint64_t)i << ZC_PLACE_SHIFT;
	}
	rc = link_words(r, k->pool, &k->oid, k->index, k->z.pages, words, &linked);
	if (!linked) {
		drop_words(r, words, k->z.pages);
		return rc;
	}
	zc_count(r->t, ZC_RESTORED_PAGES, n);
	r->pages += n;
	r->zpages++;
	return rc;
}

static int take_zpage(struct restorer *r, const uint8_t *p, uint32_t n)
{
	struct zpage_record k;
	int rc = judge_zpage(r, p, n, &k);

	if (rc)
		return rc;
	r->t = zc_thread_enter(r->h, k.pool);
	rc = add_zpage(r, &k);
	zc_thread_leave(r->t);
	if (rc == -EBADMSG)
		return damaged(r, "a zpage cannot be decompressed");
	if (rc == -E2BIG) {
		r->io->offset = r->record_at;
		snprintf(r->io->error, sizeof(r->io->error),
			 "the allocator '%s' has no room for a zpage of %zu bytes",
			 zpool_type(r->h->zpool), k.z.zsize);
	}
	return rc == 1 ? damaged(r, "a page comes twice") : rc;
}

static int take_same(struct restorer *r, const uint8_t *p, uint32_t n)
{
	struct pampd words[INDEX_FANOUT] = {{0}};
	struct zc_slot *s;
	struct index_oid oid;
	uint64_t base, mask;
	unsigned pages, k = 0;
	bool linked;
	int rc;

	if (n < SAVE_SAME)
		return damaged(r, "size of a record of same-filled pages");
	s = pool_of(r, p);
	oid_of(p, &oid);
	base = save_get64(p + 32);
	mask = save_get64(p + 40);
	pages = (unsigned)__builtin_popcountll(mask);
	if (!s || base % INDEX_FANOUT || !mask || n != SAVE_SAME + 8 * pages)
		return damaged(r, "same-filled pages");
	for (uint64_t m = mask; m; m &= m - 1)
		words[__builtin_ctzll(m)] =
			(struct pampd){save_get64(p + SAVE_SAME + 8 * (size_t)k++), true};
	r->t = zc_thread_enter(r->h, s);
	zc_count(r->t, ZC_SAME_NOW, pages);
	rc = link_words(r, s, &oid, base, INDEX_FANOUT, words, &linked);
	if (linked)
		zc_count(r->t, ZC_RESTORED_PAGES, pages);
	else
		drop_words(r, words, INDEX_FANOUT);
	zc_thread_leave(r->t);
	r->pages += pages;
	return rc == 1 ? damaged(r, "a page comes twice") : rc;
}

/* ---- the whole ------------------------------------------------------------------------- */

static int take_end(struct restorer *r, const uint8_t *p, uint32_t n)
{
	int rc;

	if (n != SAVE_END || r->pools != r->announced || save_get64(p) != r->pages ||
	    save_get64(p + 8) != r->zpages || save_get64(p + 16) != r->records - 1 ||
	    save_get32(p + 24) != r->whole || save_get32(p + 28))
		return damaged(r, "the sums at the end");
	r->at += n;
	r->record_at = r->offset + r->at;
	rc = need(r, 1, true);
	return rc == 0 ? damaged(r, "something follows the end") : rc;
}

static int tell(struct restorer *r)
{
	if (!r->io->progress || r->pages < r->next_progress)
		return 0;
	r->next_progress = r->pages + 4096;
	return r->io->progress(r->io->arg, r->pages, 0) ? -ECANCELED : 0;
}

/* 1: that was the end. */
static int take_record(struct restorer *r)
{
	const uint8_t *p;
	uint32_t type, n;
	int rc = read_record(r, &type, &n);

	if (rc)
		return rc;
	p = r->buf + r->at;
	switch (type) {
	case SAVE_T_POOL:
		rc = take_pool(r, p, n);
		break;
	case SAVE_T_CODEC:
		rc = take_codec(r, p, n);
		break;
	case SAVE_T_ZPAGE:
		rc = take_zpage(r, p, n);
		break;
	case SAVE_T_SAME:
		rc = take_same(r, p, n);
		break;
	case SAVE_T_END:
		return take_end(r, p, n);
	default:
		return damaged(r, "unknown kind of record");
	}
	if (rc)
		return rc;
	r->at += n;
	return tell(r);
}

static int read_file(struct restorer *r)
{
	char name[64];
	int rc = read_header(r);

	if (rc)
		return rc;
	memcpy(name, r->buf + 24, sizeof(name));
	printable(name);
	rc = tmem_client_create(r->h, name, &r->c);
	if (rc)
		return rc;
	do
		rc = take_record(r);
	while (rc == 0);
	for (uint32_t i = 0; i < r->pools; i++)
		zc_pool_leave(r->pool[i]);
	return rc == 1 ? 0 : rc;
}

/* By what is known of it without reading it. */
static int judge_file(struct restorer *r)
{
	struct os_file_about about;
	int rc = os_file_about(r->fd, &about);

	if (rc)
		return rc;
	if (!about.regular)
		return refused(r, -EINVAL, "not an ordinary file");
	if (r->io->own && (!about.mine || about.open_to_others))
		return refused(r, -EPERM, "another user's, or others may write to it");
	return 0;
}

int tmem_client_restore(tmem_host *h, const char *path, tmem_save *io, tmem_client **out)
{
	tmem_save none = TMEM_SAVE;
	struct restorer *r;
	int rc = -ENOMEM;

	*out = NULL;
	io = io ? io : &none;
	if (io->size != sizeof(*io))
		return -EINVAL;
	io->error[0] = '\0';
	io->offset = io->bytes = io->pages = io->zpages = 0;
	io->pools = 0;
	r = os_zalloc(sizeof(*r));
	if (!r)
		goto out;
	r->h = h;
	r->io = io;
	r->buf = os_alloc(SAVE_BUFFER);
	r->pool = os_alloc(ZC_SLOTS * sizeof(struct zc_slot *));
	if (!r->buf || !r->pool)
		goto out;
	/* Whatever has that name: opening it does nothing yet, and waits for nobody. */
	r->fd = os_file_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	rc = r->fd;
	if (r->fd < 0)
		goto out;
	rc = judge_file(r);
	if (rc == 0)
		rc = read_file(r);
	os_file_close(r->fd);
	if (rc) {
		tmem_client_destroy(r->c);
	} else {
		*out = r->c;
		io->pages = r->pages;
		io->zpages = r->zpages;
		io->pools = r->pools;
		io->bytes = r->offset + r->at;
	}
out:
	if (rc && !io->error[0])
		snprintf(io->error, sizeof(io->error), "cannot restore from %.100s: %s", path,
			 rc == -ECANCELED ? "stopped" : strerror(-rc));
	if (r) {
		os_free(r->buf);
		os_free(r->pool);
	}
	os_free(r);
	return rc;
}
