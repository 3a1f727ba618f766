/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Training: a dictionary for a pool from the pool's own pages.
 *
 *   walk the leaves, pin every n-th page that is stored alone      [sample]
 *   unpack; two thirds to learn from, one third to judge by
 *   train; compress the judged ones without and with it
 *   kept if the whole pool would take at least 1 % fewer frames,
 *   the dictionary's own memory counted
 *
 * A dictionary always wins on what it learned, so it is judged on pages that
 * it has not seen; and in slots of the allocator, not in bytes: 20 bytes less in
 * the same class give nothing back. Where the pool has one already, the new one
 * must win against that.
 *
 * A kept one serves later puts of single pages, if the pool's codec is zstd, and
 * recompression. Zpages that were made with an older one keep that alive.
 *
 * Costs some 0.1 s of CPU time and 8 MiB, charged, while it lasts; so it is called
 * by whoever owns the host or by its maintenance, never by a put. Pins are held
 * while the sample is unpacked, some ms.
 *
 * Failure: the pool keeps what it had.
 */
#include "codec/dict.h"
#include "zcache/zcache.h"

#define SAMPLES	      1536u
#define SAMPLES_LEAST 96u
#define DICT_DEFAULT  (32u << 10)
#define LEVEL_DEFAULT 3 /* of "zstd:3", what recompression does */

struct sample {
	zpool_handle handle;
	struct zc_stored s; /* pinned, dictionary held */
};

struct training {
	struct tmem_host *h;
	struct zc_slot *s;
	struct zc_thread *t;
	uint64_t seen, stride; /* pages stored alone */
	unsigned n, max;
	struct sample *sample;
	char *pages;   /* the sample, unpacked; then those to learn from, then the others */
	size_t *sizes; /* for the trainer */
	unsigned learn, judge;
	size_t bytes; /* allocated for all of it */
};

/* ---- sampling -------------------------------------------------------------------- */

static int sample_leaf(void *arg, struct index_cursor *c)
{
	struct training *y = arg;

	for (unsigned slot = 0; slot < INDEX_FANOUT; slot++) {
		struct sample *k = &y->sample[y->n];
		struct zpage *z;

		if (!c->words[slot] || *c->immediate >> slot & 1 ||
		    zc_word_kind(c->words[slot]) != ZC_LOCAL)
			continue;
		k->handle = zc_word_handle(c->words[slot]);
		zc_stored_of(zpool_peek(y->h->zpool, k->handle), &k->s);
		if (k->s.pages > 1 || k->s.codec == CODEC_ID_OPAQUE)
			continue;
		if (y->seen++ % y->stride || y->n == y->max)
			continue;
		z = zpool_map(y->h->zpool, k->handle);
		if (!z)
			continue;
		zc_stored_of(z, &k->s);
		if (k->s.codec == CODEC_ID_ZSTD_DICT)
			zc_stored_hold(y->h, &k->s);
		y->n++;
	}
	return 0;
}

/* Unpack, let go; what cannot be unpacked is not learned from. */
static int unpack_samples(struct training *y)
{
	unsigned good = 0;
	int rc = 0;

	for (unsigned i = 0; i < y->n; i++) {
		struct zc_stored *s = &y->sample[i].s;
		void *ctx = zc_stored_dctx(y->t, s);

		if (!ctx)
			rc = -ENOMEM;
		else if (rc == 0 && zc_checksum(s->bytes, s->zsize) == s->checksum &&
			 zc_stored_unpack(y->h, ctx, s, y->pages + (size_t)good * ZC_PAGE, 1) == 0)
			good++;
		zc_stored_release(y->h, s);
		zpool_unmap(y->h->zpool, y->sample[i].handle);
	}
	y->n = good;
	return rc;
}

/* Every third to the end: what lies beside each other is alike, and is spread over both. */
static void split(struct training *y)
{
	char page[ZC_PAGE];
	unsigned at = 0;

	for (unsigned i = 0; i < y->n; i++) {
		char *a = y->pages + (size_t)at * ZC_PAGE, *b = y->pages + (size_t)i * ZC_PAGE;

		if (i % 3 == 2)
			continue;
		memcpy(page, a, ZC_PAGE);
		memmove(a, b, ZC_PAGE);
		if (a != b)
			memcpy(b, page, ZC_PAGE);
		y->sizes[at++] = ZC_PAGE;
	}
	y->learn = at;
	y->judge = y->n - at;
}

static int take_samples(struct training *y)
{
	uint64_t pages = index_pool_pages(y->s->pool);
	int rc;

	y->max = pages < SAMPLES ? (unsigned)pages : SAMPLES;
	if (y->max < SAMPLES_LEAST)
		return -ENODATA;
	y->stride = (pages + SAMPLES - 1) / SAMPLES;
	y->bytes = (size_t)y->max * (ZC_PAGE + sizeof(struct sample) + sizeof(size_t)) +
		   sizeof(struct sample);
	y->pages = zc_alloc(y->h, y->bytes);
	if (!y->pages)
		return -ENOMEM;
	y->sample = (struct sample *)(void *)(y->pages + (size_t)y->max * ZC_PAGE);
	y->sizes = (size_t *)(void *)(y->sample + y->max + 1);
	(void)index_walk(y->s->pool, sample_leaf, y);
	rc = unpack_samples(y);
	if (rc == 0 && y->n < SAMPLES_LEAST)
		rc = -ENODATA;
	if (rc == 0)
		split(y);
	return rc;
}

/* ---- judging ------------------------------------------------------------------------ */

/* What a page costs with dictionary id, or, 0, without: bytes of its slot. */
static int cost(struct training *y, uint16_t id, int level, const char *page, uint64_t *sum)
{
	struct codec_spec spec = {codec_by_id(CODEC_ID_ZSTD), level};
	size_t cap = y->h->max_zsize, size = 0;
	void *ctx;
	int rc = 0;

	if (id) {
		rc = zc_dict_compress(y->t, id, page, y->t->small, cap, &size);
	} else {
		ctx = zc_thread_cctx(y->t, &spec);
		if (!ctx)
			return -ENOMEM;
		size = spec.codec->compress(ctx, page, ZC_PAGE, y->t->small, cap);
	}
	*sum += zpool_slot_bytes(y->h->zpool, ZPAGE_SINGLE_HEAD + (size ? size : ZC_PAGE));
	return rc;
}

/* Bytes that the whole pool would take with the one and the other. */
static int judge(struct training *y, uint16_t was, uint16_t now, int level, uint64_t *before,
		 uint64_t *after)
{
	const char *page = y->pages + (size_t)y->learn * ZC_PAGE;
	uint64_t sum[2] = {0, 0};
	int rc = 0;

	if (!y->judge)
		return -ENODATA;
	for (unsigned i = 0; i < y->judge && rc == 0; i++, page += ZC_PAGE) {
		rc = cost(y, was, level, page, &sum[0]);
		if (rc == 0)
			rc = cost(y, now, level, page, &sum[1]);
	}
	if (rc)
		return rc;
	*before = sum[0] * y->seen / y->judge;
	*after = sum[1] * y->seen / y->judge;
	return 0;
}

static int train(struct training *y, size_t bytes, int level, uint16_t *id)
{
	char *content = zc_alloc(y->h, bytes);
	size_t size = 0;
	int rc = -ENOMEM;

	*id = 0;
	if (!content)
		return rc;
	/* The library's own memory is not taken from us, so charged for the while. */
	if (frames_charge(&y->h->frames, CODEC_TRAIN_BYTES)) {
		size = codec_dict_train(y->pages, y->sizes, y->learn, content, bytes, level);
		frames_uncharge(&y->h->frames, CODEC_TRAIN_BYTES);
		rc = size ? zc_dict_make(y->h, content, size, level, id) : -ENODATA;
		if (rc == -EINVAL)
			rc = -ENODATA;
	}
	zc_free(y->h, content, bytes);
	return rc;
}

/* Train, and keep it if it wins. */
static int train_and_judge(struct training *y, size_t bytes, int level, tmem_train_result *out)
{
	uint16_t was = zc_pool_dict(y->s), id;
	uint64_t before = 0, after = 0, own;
	int rc = train(y, bytes, level, &id);

	if (rc == 0)
		rc = judge(y, was, id, level, &before, &after);
	if (rc == 0) {
		own = codec_dict_bytes(bytes, level);
		out->sampled_pages = y->n;
		out->judged_pages = y->judge;
		out->frames_before = before / OS_FRAME_SIZE;
		out->frames_after = (after + own) / OS_FRAME_SIZE;
		out->kept = after + own < before - before / 100;
	}
	if (rc == 0 && out->kept) {
		zc_pool_set_dict(y->s, id);
		zc_recompress_again(y->h);
	} else if (id) {
		zc_dict_unref(y->h, id);
	}
	if (was)
		zc_dict_unref(y->h, was);
	return rc;
}

int zc_train(struct zc_slot *s, size_t bytes, int level, tmem_train_result *out)
{
	struct training y = {.h = s->host, .s = s};
	int rc;

	/* Gets of what is made with it must be able to rely on the emergency state. */
	rc = zc_emergency_ready(y.h, codec_by_id(CODEC_ID_ZSTD));
	if (rc)
		return rc;
	y.t = zc_thread_enter(y.h, s);
	rc = y.t == y.h->emergency ? -ENOMEM : take_samples(&y);
	if (rc == 0)
		rc = train_and_judge(&y, bytes, level, out);
	zc_free(y.h, y.pages, y.bytes);
	zc_thread_leave(y.t);
	return rc;
}

int tmem_pool_train(tmem_client *c, tmem_pool pool, uint32_t dict_bytes, tmem_train_result *result)
{
	tmem_train_result out = {.size = sizeof(out)};
	struct codec_spec spec;
	struct zc_slot *s;
	int rc;

	dict_bytes = dict_bytes ? dict_bytes : DICT_DEFAULT;
	if (dict_bytes < 4 * CODEC_DICT_MIN || dict_bytes > CODEC_DICT_MAX ||
	    (result && result->size > sizeof(out)))
		return -EINVAL;
	s = zc_pool_enter(c, pool);
	if (!s)
		return -ENOENT;
	spec = zc_pool_codec(s);
	rc = s->shared
		     ? -EOPNOTSUPP
		     : zc_train(s, dict_bytes,
				spec.codec->id == CODEC_ID_ZSTD ? spec.level : LEVEL_DEFAULT, &out);
	zc_pool_leave(s);
	if (result) {
		out.size = result->size;
		memcpy(result, &out, result->size);
	}
	return rc;
}

int tmem_pool_drop_dictionary(tmem_client *c, tmem_pool pool)
{
	struct zc_slot *s = zc_pool_enter(c, pool);

	if (!s)
		return -ENOENT;
	zc_pool_set_dict(s, 0);
	zc_pool_leave(s);
	return 0;
}
