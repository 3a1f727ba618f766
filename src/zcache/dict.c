/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of dictionaries (dict.h).
 *
 *   serial & 255 ──► entry { id, refs, codec_dict }      refs 0: nobody's
 *
 * Made with the first dictionary, so that a host without pays nothing.
 *
 * A put takes the pool's dictionary without a lock, while somebody may be
 * giving the pool another one:
 *
 *   put                                       change
 *     d = slot.dict                  (a)        slot.dict = new        (x)
 *     add 1 to refs, if not 0        (b)        drop the pool's ref    (y)
 *     slot.dict still d?             (c)
 *       no: drop it, look again
 *
 * If (c) finds d, then the pool had its reference on d at that moment, so (b)
 * was on this dictionary and not on one that took its entry since.
 *
 * An entry is written under the lock and only while refs is 0; refs is set
 * last, with release, so who adds to it sees the rest.
 *
 * Failure: making one fails with nothing changed. Nothing else fails.
 */
#include "zcache/dict.h"

#include "codec/dict.h"
#include "os/log.h"
#include "zcache/zcache.h"

struct dict_entry {
	_Atomic uint32_t refs;
	_Atomic uint32_t id;
	struct codec_dict *dict;
	size_t bytes; /* 0: the entry is free */
};

struct zc_dicts {
	struct os_mutex lock;
	uint16_t last; /* serial number given last; under lock */
	struct dict_entry entry[ZC_DICTS];
};

static struct zc_dicts *table(struct tmem_host *h)
{
	return atomic_load_explicit(&h->dicts, memory_order_acquire);
}

static struct zc_dicts *table_make(struct tmem_host *h)
{
	struct zc_dicts *d = table(h), *none = NULL;

	if (d)
		return d;
	d = zc_alloc(h, sizeof(*d));
	if (!d)
		return NULL;
	os_mutex_init(&d->lock, OS_RANK_LEAF, "dictionaries");
	if (!atomic_compare_exchange_strong(&h->dicts, &none, d)) {
		os_mutex_destroy(&d->lock);
		zc_free(h, d, sizeof(*d));
		d = none;
	}
	return d;
}

static struct dict_entry *entry_of(struct tmem_host *h, uint16_t id)
{
	return &table(h)->entry[id % ZC_DICTS];
}

/* ---- life ------------------------------------------------------------------------ */

int zc_dict_make(struct tmem_host *h, const void *content, size_t n, int level, uint16_t *id)
{
	struct zc_dicts *d = table_make(h);
	size_t bytes = codec_dict_bytes(n, level);
	struct dict_entry *e = NULL;
	struct codec_dict *dict;
	void *mem;

	*id = 0;
	mem = d ? zc_alloc(h, bytes) : NULL;
	if (!mem)
		return -ENOMEM;
	dict = codec_dict_init(mem, content, n, level);
	if (!dict) {
		zc_free(h, mem, bytes);
		return -EINVAL;
	}
	os_mutex_lock(&d->lock);
	for (unsigned tries = 0; tries < 2 * ZC_DICTS && !e; tries++) {
		if (++d->last && !d->entry[d->last % ZC_DICTS].bytes)
			e = &d->entry[d->last % ZC_DICTS];
	}
	if (e) {
		e->dict = dict;
		e->bytes = bytes;
		atomic_store_explicit(&e->id, d->last, memory_order_relaxed);
		atomic_store_explicit(&e->refs, 1, memory_order_release);
		*id = d->last;
	}
	os_mutex_unlock(&d->lock);
	if (!e)
		zc_free(h, mem, bytes);
	return e ? 0 : -ENOSPC;
}

/* False: it has gone, or is another one. */
static bool try_ref(struct tmem_host *h, uint16_t id)
{
	struct dict_entry *e = entry_of(h, id);
	uint32_t refs = atomic_load_explicit(&e->refs, memory_order_relaxed);

	do {
		if (refs == 0)
			return false;
	} while (!atomic_compare_exchange_weak(&e->refs, &refs, refs + 1));
	if (atomic_load_explicit(&e->id, memory_order_relaxed) == id)
		return true;
	zc_dict_unref(h, (uint16_t)atomic_load(&e->id));
	return false;
}

void zc_dict_ref(struct tmem_host *h, uint16_t id)
{
	struct dict_entry *e = entry_of(h, id);
	uint32_t old = atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);

	/* D2 broken would mean another dictionary's bytes: stop rather than go on. */
	tmem_must(old > 0 && atomic_load_explicit(&e->id, memory_order_relaxed) == id);
}

void zc_dict_unref(struct tmem_host *h, uint16_t id)
{
	struct zc_dicts *d = table(h);
	struct dict_entry *e = entry_of(h, id);
	uint32_t old = atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel);
	size_t bytes;
	void *mem;

	tmem_assert(D1, old > 0);
	if (old != 1)
		return;
	/* Nobody can find it, and the entry is not free before bytes is 0. */
	os_mutex_lock(&d->lock);
	mem = e->dict;
	bytes = e->bytes;
	e->dict = NULL;
	e->bytes = 0;
	os_mutex_unlock(&d->lock);
	zc_free(h, mem, bytes);
}

const struct codec_dict *zc_dict(struct tmem_host *h, uint16_t id)
{
	tmem_assert(D2, atomic_load(&entry_of(h, id)->id) == id);
	return entry_of(h, id)->dict;
}

/* ---- pools ----------------------------------------------------------------------- */

uint16_t zc_pool_dict(struct zc_slot *s)
{
	for (;;) {
		uint16_t id = atomic_load(&s->dict);

		if (!id)
			return 0;
		if (!try_ref(s->host, id))
			continue;
		if (tmem_likely(atomic_load(&s->dict) == id))
			return id;
		zc_dict_unref(s->host, id);
	}
}

void zc_pool_set_dict(struct zc_slot *s, uint16_t id)
{
	uint16_t was = atomic_exchange(&s->dict, id);

	if (was)
		zc_dict_unref(s->host, was);
}

/* ---- zpages ---------------------------------------------------------------------- */

void zc_stored_hold(struct tmem_host *h, struct zc_stored *s)
{
	/* Of one in the overflow file the caller was told. */
	if (s->bytes)
		s->dict = zc_dict_of(s->bytes);
	zc_dict_ref(h, s->dict);
}

void zc_stored_release(struct tmem_host *h, struct zc_stored *s)
{
	if (s->dict)
		zc_dict_unref(h, s->dict);
	s->dict = 0;
}

int zc_dict_compress(struct zc_thread *t, uint16_t id, const void *page, void *dst, size_t cap,
		     size_t *size)
{
	const struct codec_dict *d = zc_dict(t->host, id);
	struct codec_spec spec = {codec_by_id(CODEC_ID_ZSTD_DICT), codec_dict_level(d)};
	void *ctx = zc_thread_cctx(t, &spec);
	unsigned char *p = dst;

	*size = 0;
	if (!ctx)
		return -ENOMEM;
	if (cap > ZC_DICT_PREFIX)
		*size = codec_dict_compress(ctx, d, page, ZC_PAGE, p + ZC_DICT_PREFIX,
					    cap - ZC_DICT_PREFIX);
	if (!*size)
		return 0;
	p[0] = (unsigned char)id;
	p[1] = (unsigned char)(id >> 8);
	*size += ZC_DICT_PREFIX;
	return 0;
}

/* ---- all of them ----------------------------------------------------------------- */

void zc_dicts_destroy(struct tmem_host *h)
{
	struct zc_dicts *d = table(h);

	if (!d)
		return;
	for (unsigned i = 0; i < ZC_DICTS; i++)
		tmem_assert(D1, d->entry[i].bytes == 0);
	os_mutex_destroy(&d->lock);
	zc_free(h, d, sizeof(*d));
}

uint64_t zc_dicts_bytes(struct tmem_host *h, uint64_t *count)
{
	struct zc_dicts *d = table(h);
	uint64_t bytes = 0;

	*count = 0;
	if (!d)
		return 0;
	os_mutex_lock(&d->lock);
	for (unsigned i = 0; i < ZC_DICTS; i++) {
		bytes += d->entry[i].bytes;
		*count += d->entry[i].bytes != 0;
	}
	os_mutex_unlock(&d->lock);
	return bytes;
}

static int count_pool(void *arg, struct zc_slot *s)
{
	double *refs = arg;
	uint16_t id = atomic_load(&s->dict);

	if (id)
		refs[id % ZC_DICTS] += 1.0;
	return 0;
}

int zc_dicts_verify(struct tmem_host *h, const double zpages[ZC_DICTS])
{
	struct zc_dicts *d = table(h);
	double refs[ZC_DICTS];
	int rc = 0;

	if (!d)
		return 0;
	memcpy(refs, zpages, sizeof(refs));
	(void)zc_each_pool(h, count_pool, refs);
	for (unsigned i = 0; i < ZC_DICTS; i++) {
		uint32_t is = atomic_load(&d->entry[i].refs);

		if (refs[i] - is < 0.01 && is - refs[i] < 0.01 &&
		    (is != 0) == (d->entry[i].bytes != 0))
			continue;
		os_log(OS_LOG_ERROR, "verify: D1: dictionary %u: %u references, should be %.3f",
		       (unsigned)atomic_load(&d->entry[i].id), is, refs[i]);
		rc = -EINVAL;
	}
	return rc;
}
