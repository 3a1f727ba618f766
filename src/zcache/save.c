/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Save: a client's persistent pages into a file (save.h), while everybody works on; where it is
 * asked for, its ephemeral ones, too.
 *
 *   list the leaves of a pool ── for each leaf, word by word:
 *       lock its shard ─ pin the zpage, or take a reference in the overflow file ─ unlock
 *       check the checksum ─ write the compressed bytes as they are ─ unpin
 *
 * What the copy is. Nothing is stopped: each page in the file is what it was at
 * some moment between begin and end; a page that was there all the time is in it,
 * one that came or went meanwhile may or may not be. Who wants one instant freezes
 * the client first (tmem_client_freeze()), and thaws it, or destroys it, after.
 *
 * A word that is present from beginning to end is seen, for its leaf exists all
 * the while, so the list has it (the same argument as in share.c), and its pool is
 * one of those that were listed first. Pages of a cluster are written once, with
 * the mask of the places that are still named.
 *
 *   I1  a handle is in the file at most once: restore takes no file where it is twice
 *
 * The list names each leaf once, by its handle; one whose id has become another leaf's
 * is passed over. Inside a leaf, slots that were written are not written again, whatever
 * they have become since.
 *
 * The file appears under its name complete and on the disk, or not at all: it is
 * written under another name, synced, and renamed. A failure leaves neither, and
 * the store as it was; but for a folder that cannot be synced: then the file is there,
 * and the caller is told that its name may not last. A damaged zpage makes it fail: a file with
 * holes that nobody notices is worse than none.
 *
 * Memory: one buffer of SAVE_BUFFER bytes, 16 KiB of ids and 40 bytes a leaf of one pool,
 * for the length of the call, and not charged to the host: saving works at the limit.
 *
 * Pools that share zpages (clones) are written one by one, so what they share is
 * in the file twice, and is two zpages when it comes back.
 */
#include "zcache/save.h"

#include "os/clock.h"
#include "os/file.h"

#include <fcntl.h>
#include <stdio.h>

struct saver {
	struct tmem_host *h;
	struct tmem_client *c;
	struct zc_slot *s;
	struct zc_thread *t;
	tmem_save *io;
	int fd;
	uint8_t *buf;
	size_t used;
	int32_t *id; /* of the pools to be saved */
	uint64_t bytes, records, pages, zpages, total, next_progress;
	uint32_t whole, pool, pools;
	uint32_t codecs; /* announced, one bit an id */
};

/* ---- writing --------------------------------------------------------------------- */

static int flush_buffer(struct saver *v)
{
	int rc = v->used ? os_file_write(v->fd, v->buf, v->used) : 0;

	v->bytes += v->used;
	v->used = 0;
	return rc;
}

/* Room for a record of so many payload bytes; where the payload goes. */
static int record_begin(struct saver *v, size_t payload, uint8_t **at)
{
	int rc = 0;

	if (v->used + SAVE_RECORD + payload > SAVE_BUFFER)
		rc = flush_buffer(v);
	*at = v->buf + v->used + SAVE_RECORD;
	return rc;
}

static void record_end(struct saver *v, enum save_type type, size_t payload)
{
	uint8_t *head = v->buf + v->used;

	save_put32(head, type);
	save_put32(head + 4, (uint32_t)payload);
	save_put64(head + 8, v->records++);
	save_put32(head + 16, zc_checksum(head + SAVE_RECORD, payload));
	save_put32(head + 20, zc_checksum(head, 20));
	v->whole = save_chain(v->whole, head);
	v->used += SAVE_RECORD + payload;
}

static void write_header(struct saver *v)
{
	uint8_t *p = v->buf;

	memset(p, 0, SAVE_HEADER);
	memcpy(p, SAVE_MAGIC, 8);
	save_put32(p + 8, SAVE_VERSION);
	save_put32(p + 12, SAVE_HEADER);
	save_put32(p + 16, v->pools);
	memcpy(p + 24, v->c->name, sizeof(v->c->name));
	save_put32(p + 124, zc_checksum(p, 124));
	v->used = SAVE_HEADER;
}

static int write_codec(struct saver *v, unsigned id)
{
	const struct codec *codec = codec_by_id(id);
	size_t len = codec ? strlen(codec->name) : SAVE_CODEC_MAX;
	uint8_t *p;
	int rc;

	if (v->codecs >> id & 1)
		return 0;
	if (len + 1 > SAVE_CODEC_MAX)
		return -EOPNOTSUPP;
	rc = record_begin(v, len + 2, &p);
	if (rc)
		return rc;
	p[0] = (uint8_t)id;
	memcpy(p + 1, codec->name, len + 1); /* its end is left out of the record */
	record_end(v, SAVE_T_CODEC, len + 1);
	v->codecs |= 1u << id;
	return 0;
}

/* ---- one leaf ---------------------------------------------------------------------- */

/* A zpage on its way, safe outside the lock. */
struct item {
	struct index_oid oid;
	uint64_t index; /* of place 0 */
	uint32_t mask;
	struct zc_stored z; /* bytes NULL: in the overflow file */
	zpool_handle pinned;
	uint64_t over;
};

static int write_zpage(struct saver *v, const struct item *k)
{
	uint8_t *p;
	int rc = write_codec(v, k->z.codec);

	if (rc == 0)
		rc = record_begin(v, SAVE_ZPAGE + k->z.zsize, &p);
	if (rc)
		return rc;
	memset(p, 0, SAVE_ZPAGE);
	save_put32(p, v->pool);
	for (unsigned i = 0; i < 3; i++)
		save_put64(p + 8 + 8 * i, k->oid.w[i]);
	save_put64(p + 32, k->index);
	save_put32(p + 40, k->mask);
	p[44] = (uint8_t)k->z.codec;
	p[45] = (uint8_t)k->z.pages;
	save_put32(p + 48, (uint32_t)k->z.zsize);
	save_put32(p + 52, k->z.checksum);
	memcpy(p + SAVE_ZPAGE, k->z.bytes, k->z.zsize);
	record_end(v, SAVE_T_ZPAGE, SAVE_ZPAGE + k->z.zsize);
	v->zpages++;
	v->pages += (unsigned)__builtin_popcount(k->mask);
	return 0;
}

/* The leaf's same-filled pages but those in `done`, into the buffer (there is room). Which. */
static uint64_t note_same(struct saver *v, const struct index_cursor *c, uint64_t done)
{
	uint8_t *p = v->buf + v->used + SAVE_RECORD;
	uint64_t mask = *c->immediate & ~done;
	struct index_oid oid;
	unsigned n = 0;

	if (!mask)
		return 0;
	memset(p, 0, SAVE_SAME);
	index_cursor_oid(c, &oid);
	save_put32(p, v->pool);
	for (unsigned i = 0; i < 3; i++)
		save_put64(p + 8 + 8 * i, oid.w[i]);
	save_put64(p + 32, c->base);
	save_put64(p + 40, mask);
	for (uint64_t m = mask; m; m &= m - 1)
		save_put64(p + SAVE_SAME + 8 * (size_t)n++, c->words[__builtin_ctzll(m)]);
	record_end(v, SAVE_T_SAME, SAVE_SAME + 8 * (size_t)n);
	v->pages += n;
	return mask;
}

/*
 * The zpage of a word made safe; the leaf is locked, `done` are the slots that were saved.
 * -EAGAIN: all its pins are taken, for now.
 */
static int note_zpage(struct saver *v, const struct index_cursor *c, unsigned slot, uint64_t done,
		      struct item *k)
{
	uint64_t word = c->words[slot], handle = zc_word_handle(word);

	*k = (struct item){.index = c->base + slot - zc_word_place(word)};
	index_cursor_oid(c, &k->oid);
	if (zc_word_kind(word) == ZC_OVERFLOW) {
		zc_overflow_ref(v->h, handle);
		zc_overflow_info(v->h, handle, &k->z);
		k->over = handle;
	} else {
		struct zpage *z = zpool_map(v->h->zpool, handle);

		if (!z)
			return -EAGAIN;
		zc_stored_of(z, &k->z);
		k->pinned = handle;
	}
	if (k->z.codec == CODEC_ID_ZSTD_DICT)
		zc_stored_hold(v->h, &k->z);
	k->mask = 1;
	if (k->z.pages > 1)
		zc_words_of(c, slot, k->z.pages, &k->mask);
	/* A cluster may have come over slots that were saved as something else (I1). */
	k->mask &= ~(uint32_t)(done >> k->index % INDEX_FANOUT);
	return 0;
}

/*
 * A dictionary is its host's: what needs one is decompressed, and packed anew without,
 * or not at all. Afterwards k->z is of the thread's buffers.
 */
static int repack(struct saver *v, struct item *k)
{
	struct codec_spec spec = {codec_by_id(CODEC_ID_ZSTD), 3};
	size_t bytes = k->z.pages * (size_t)ZC_PAGE, zsize = 0;
	char *plain, *packed;
	void *ctx;

	zc_thread_need_big(&v->t);
	plain = v->t->big[1];
	packed = v->t->big[0];
	ctx = zc_stored_dctx(v->t, &k->z);
	if (!ctx)
		return -ENOMEM;
	if (zc_stored_unpack(v->h, ctx, &k->z, plain, k->z.pages))
		return -EIO;
	ctx = zc_thread_cctx(v->t, &spec);
	if (ctx)
		zsize = spec.codec->compress(ctx, plain, bytes, packed, bytes);
	if (!zsize && k->z.pages > 1)
		return -ENOMEM;
	k->z.bytes = zsize ? packed : plain;
	k->z.codec = zsize ? (unsigned)CODEC_ID_ZSTD : 0;
	k->z.zsize = zsize ? zsize : bytes;
	k->z.checksum = zc_checksum(k->z.bytes, k->z.zsize);
	return 0;
}

/* Bytes checked, record written, the zpage let go. */
static int finish_item(struct saver *v, struct item *k)
{
	struct zc_stored held;
	int rc = 0;

	if (!k->z.bytes) {
		zc_thread_need_big(&v->t);
		rc = zc_overflow_read(v->h, k->over, v->t->big[0]);
		k->z.bytes = v->t->big[0];
	}
	if (rc == 0 && zc_checksum(k->z.bytes, k->z.zsize) != k->z.checksum)
		rc = -EIO;
	held = k->z;
	if (rc == 0 && k->z.codec == CODEC_ID_ZSTD_DICT)
		rc = repack(v, k);
	if (rc == -EIO) {
		zc_bad_checksum(v->h, v->t, "zpage to be saved", k->pinned ? k->pinned : k->over);
		snprintf(v->io->error, sizeof(v->io->error), "a stored page is damaged");
	}
	if (rc == 0)
		rc = write_zpage(v, k);
	if (held.dict)
		zc_stored_release(v->h, &held);
	if (k->pinned)
		zpool_unmap(v->h->zpool, k->pinned);
	else
		zc_overflow_unref(v->h, v->t, k->over, 1);
	return rc;
}

/* A leaf, by its id and by what it was when it was listed. */
struct listed {
	struct index_oid oid;
	uint64_t base;
	arena_id leaf;
};

/* Its id may be nobody's by now, or another pool's, or of other pages of this pool. */
static bool lock_listed(struct saver *v, const struct listed *l, struct index_cursor *c)
{
	struct index_oid oid;

	if (!index_lock_leaf(v->h->index, l->leaf, c))
		return false;
	index_cursor_oid(c, &oid);
	if (c->pool == v->s->pool && c->base == l->base && memcmp(&oid, &l->oid, sizeof(oid)) == 0)
		return true;
	index_unlock(c);
	return false;
}

/*
 * One zpage a lock hold, and in each all same-filled pages that are not in the file yet:
 * a page may become one, or cease to be one, at any time.
 */
static int save_leaf(struct saver *v, const struct listed *leaf)
{
	uint64_t done = 0;
	uint8_t *room;
	int rc = 0;

	for (unsigned slot = 0; slot < INDEX_FANOUT && rc == 0; slot++) {
		struct index_cursor c;
		struct item k;
		bool found;

		rc = record_begin(v, SAVE_SAME + 8 * INDEX_FANOUT, &room);
		if (rc || !lock_listed(v, leaf, &c))
			break;
		done |= note_same(v, &c, done);
		/* Slots that have nothing to save are skipped under the one lock. */
		while (slot < INDEX_FANOUT && (done >> slot & 1 || !c.words[slot]))
			slot++;
		found = slot < INDEX_FANOUT;
		if (found)
			rc = note_zpage(v, &c, slot, done, &k);
		index_unlock(&c);
		if (!found)
			break;
		if (rc == -EAGAIN) { /* a thousand readers: they will leave */
			os_sleep_ns(100000);
			slot--;
			rc = 0;
			continue;
		}
		done |= (uint64_t)k.mask << (k.index % INDEX_FANOUT);
		rc = finish_item(v, &k);
	}
	return rc;
}

/* ---- pools --------------------------------------------------------------------------- */

struct leaves {
	struct listed *leaf;
	uint64_t n, room;
};

static int list_leaf(void *arg, struct index_cursor *c)
{
	struct leaves *l = arg;

	if (l->n == l->room)
		return -EAGAIN;
	index_cursor_oid(c, &l->leaf[l->n].oid);
	l->leaf[l->n].base = c->base;
	l->leaf[l->n++].leaf = c->leaf;
	return 0;
}

static int list_leaves(struct index_pool *pool, struct leaves *l)
{
	int rc;

	l->room = index_pool_pages(pool) / 32 + 64;
	do {
		l->n = 0;
		l->leaf = os_alloc(l->room * sizeof(*l->leaf));
		if (!l->leaf)
			return -ENOMEM;
		rc = index_walk(pool, list_leaf, l);
		if (rc) {
			os_free(l->leaf);
			l->room *= 2;
		}
	} while (rc);
	return 0;
}

static int tell(struct saver *v)
{
	if (!v->io->progress || v->pages < v->next_progress)
		return 0;
	v->next_progress = v->pages + 4096;
	return v->io->progress(v->io->arg, v->pages, v->total) ? -ECANCELED : 0;
}

static int save_pool(struct saver *v, int32_t id)
{
	struct leaves l;
	uint8_t *p;
	int rc = record_begin(v, SAVE_POOL, &p);

	if (rc)
		return rc;
	if (v->s->flags & TMEM_POOL_PRECOMPRESSED) {
		snprintf(v->io->error, sizeof(v->io->error),
			 "pool %d: precompressed pools cannot be saved", id);
		return -EOPNOTSUPP;
	}
	save_put32(p, v->pool);
	save_put32(p + 4, v->s->flags);
	save_put32(p + 8, (uint32_t)id);
	save_put32(p + 12, index_pool_shards(v->s->pool));
	record_end(v, SAVE_T_POOL, SAVE_POOL);
	rc = list_leaves(v->s->pool, &l);
	if (rc)
		return rc;
	for (uint64_t i = 0; i < l.n && rc == 0; i++) {
		uint64_t before = v->pages;

		v->t = zc_thread_enter(v->h, v->s);
		rc = save_leaf(v, &l.leaf[i]);
		zc_count(v->t, ZC_SAVED_PAGES, v->pages - before);
		zc_thread_leave(v->t);
		if (rc == 0)
			rc = tell(v);
	}
	os_free(l.leaf);
	return rc;
}

/*
 * The pools that are saved: by their ids, for a pool that comes later may get a slot
 * before others.
 */
static void list_pools(struct saver *v)
{
	struct zc_slot *slot;

	for (uint32_t i = 0; i < ZC_SLOTS && (slot = zc_slot_of(v->c, i)); i++) {
		int32_t id = atomic_load(&slot->id);
		struct zc_slot *s = id < 0 ? NULL : zc_pool_enter(v->c, id);

		if (!s)
			continue;
		if ((s->flags & TMEM_POOL_PERSIST || v->io->ephemeral) && !s->shared) {
			v->id[v->pools++] = id;
			v->total += index_pool_pages(s->pool);
		}
		zc_pool_leave(s);
	}
}

static int save_pools(struct saver *v)
{
	int rc = 0;

	for (; v->pool < v->pools && rc == 0; v->pool++) {
		v->s = zc_pool_enter(v->c, v->id[v->pool]);
		if (!v->s) {
			snprintf(v->io->error, sizeof(v->io->error),
				 "pool %d was destroyed meanwhile", v->id[v->pool]);
			return -EBUSY;
		}
		rc = save_pool(v, v->id[v->pool]);
		zc_pool_leave(v->s);
	}
	return rc;
}

static int write_end(struct saver *v)
{
	uint8_t *p;
	int rc = record_begin(v, SAVE_END, &p);

	if (rc)
		return rc;
	memset(p, 0, SAVE_END);
	save_put64(p, v->pages);
	save_put64(p + 8, v->zpages);
	save_put64(p + 16, v->records);
	save_put32(p + 24, v->whole);
	record_end(v, SAVE_T_END, SAVE_END);
	return flush_buffer(v);
}

static int write_file(struct saver *v)
{
	int rc;

	list_pools(v);
	write_header(v);
	rc = save_pools(v);
	if (rc == 0)
		rc = write_end(v);
	return rc ? rc : os_file_sync(v->fd);
}

/*
 * The file under its temporary name, empty and ours alone. One that a crash has left
 * is used again, another user's is not; one that somebody is writing is not (he holds the lock
 * until it has its final name, so whoever gets the lock looks whether it still has this one).
 */
static int open_temporary(const char *name)
{
	int fd = os_file_open(name, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
	struct os_file_about about;
	int rc;

	if (fd < 0)
		return fd;
	rc = os_file_lock(fd);
	if (rc == 0)
		rc = os_file_about(fd, &about);
	if (rc == 0 && (!about.regular || about.links != 1 || !os_file_named(name, &about)))
		rc = -EBUSY;
	if (rc == 0 && (!about.mine || about.open_to_others))
		rc = -EPERM;
	if (rc == 0) {
		rc = os_file_truncate(fd, 0);
		if (rc)
			(void)os_file_unlink(name);
	}
	if (rc) {
		os_file_close(fd);
		return rc;
	}
	return fd;
}

int tmem_client_save(tmem_client *c, const char *path, tmem_save *io)
{
	tmem_save none = TMEM_SAVE;
	struct saver v = {.h = c->host, .c = c, .io = io ? io : &none, .fd = -1};
	size_t len = strlen(path);
	bool renamed = false;
	char *temporary;
	int rc = -ENOMEM;

	if (v.io->size != sizeof(*v.io))
		return -EINVAL;
	v.io->error[0] = '\0';
	v.io->offset = 0;
	temporary = os_alloc(len + sizeof(".part"));
	v.buf = os_alloc(SAVE_BUFFER);
	v.id = os_alloc(ZC_SLOTS * sizeof(*v.id));
	if (!temporary || !v.buf || !v.id)
		goto out;
	snprintf(temporary, len + sizeof(".part"), "%s.part", path);
	v.fd = open_temporary(temporary);
	rc = v.fd;
	if (v.fd < 0)
		goto out;
	rc = write_file(&v);
	if (rc == 0)
		rc = os_file_rename(temporary, path, &renamed);
	if (rc && !renamed)
		(void)os_file_unlink(temporary);
	else if (rc)
		snprintf(v.io->error, sizeof(v.io->error),
			 "saved, but its name may not outlast a power failure: %s", strerror(-rc));
	os_file_close(v.fd);
out:
	v.io->pages = v.pages;
	v.io->zpages = v.zpages;
	v.io->bytes = v.bytes;
	v.io->pools = v.pool;
	if (rc && !v.io->error[0])
		snprintf(v.io->error, sizeof(v.io->error), "cannot save to %.100s: %s", path,
			 rc == -ECANCELED ? "stopped" : strerror(-rc));
	os_free(v.id);
	os_free(v.buf);
	os_free(temporary);
	return rc;
}
