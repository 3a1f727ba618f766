/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The overflow file: zpages that the memory limit has no room for, still
 * compressed, in a file that nobody else can use.
 *
 *   index word --item id--> item { unit, units, refs, zsize, checksum, seal }
 *                                   |
 *                                   +--> units of the file (overflow_space.c)
 *
 *   put: memory above `high`?  --> the mover takes the oldest zpages there
 *   |                              (overflow_move.c), the newcomer stays in memory
 *   +--- above `full` all the same: the newcomer goes there itself
 *   get: read, open, checksum, decompress; read often: back to memory
 *                                                  (overflow_back.c)
 *
 *        low           high      full     limit
 *   ------|--------------|---------|--------|
 *   pages read twice     |         +-- the rest is for metadata: items (32 bytes
 *   come back            |             a zpage), index, threads
 *          pages read    +-- from here on each put first moves a batch
 *          4 times do
 *
 * Between low and high lies the hysteresis: what comes back does not push
 * something else out at once. A put never fills the last part, so that there is
 * always room to describe what is moved.
 *
 *   I1  item.refs = words that name it + readers
 *   I2  units_used = sum of units over all items and those being moved
 *   I3  a word of kind overflow names an item whose bytes were read back from
 *       the file, right, after they were written (over_write)
 *
 * Reading and writing run outside the space's mutex: a zpage's units are its
 * own from before the write until its last reference has gone.
 *
 * Locks: moving < the zpool's < the index's < lock (a leaf) and the seal's.
 * Failure: what cannot be written stays in memory; a put that finds no room in
 * memory nor in the file leaves nothing. A read that fails is -EIO, counted, and
 * the word stays: it may be well the next time.
 */
#include "zcache/overflow.h"

#include "os/file.h"
#include "os/log.h"

#define RESERVE_MAX (8u << 20) /* between high and the limit */

/* ---- how full memory is --------------------------------------------------------------- */

static uint64_t reserve(uint64_t limit)
{
	return limit / 16 < RESERVE_MAX ? limit / 16 : RESERVE_MAX;
}

enum zc_fill zc_overflow_fill(const struct tmem_host *h)
{
	uint64_t limit = atomic_load_explicit(&h->frames.limit_bytes, memory_order_relaxed);
	uint64_t used = frames_used(&h->frames), keep;

	if (!limit)
		return ZC_FILL_LOW;
	keep = reserve(limit);
	if (used > limit - keep / 2)
		return ZC_FILL_FULL;
	if (used > limit - keep)
		return ZC_FILL_HIGH;
	return used > limit - 2 * keep ? ZC_FILL_MIDDLE : ZC_FILL_LOW;
}

/* ---- zpages ------------------------------------------------------------------------- */

int over_pack(struct zc_overflow *o, struct over_item *it, const void *bytes, char *dst)
{
	size_t used = over_bytes(o, it->zsize), units = it->units * OVER_UNIT;
	int rc = 0;

	if (o->seal) {
		uint64_t number = atomic_fetch_add(&o->seals, 1);

		it->seal_low = (uint32_t)number;
		it->seal_mid = (uint16_t)(number >> 32);
		it->seal_high = (uint8_t)(number >> 48);
		rc = over_seal(o->seal, number, bytes, it->zsize, dst);
	} else {
		memcpy(dst, bytes, it->zsize);
	}
	memset(dst + used, 0, units - used);
	return rc;
}

static int put_item(struct tmem_host *h, struct zc_thread *t, const struct zc_stored *s,
		    struct over_item *it)
{
	struct zc_overflow *o = h->overflow;
	int rc;

	it->units = (uint16_t)over_units(o, s->zsize);
	it->zsize = (uint16_t)s->zsize;
	it->dict = s->codec == CODEC_ID_ZSTD_DICT ? zc_dict_of(s->bytes) : 0;
	it->checksum = s->fresh ? zc_checksum(s->bytes, s->zsize) : s->checksum;
	it->codec = (uint8_t)s->codec;
	it->pages = (uint8_t)s->pages;
	if (over_tokens_take(o, it->units * OVER_UNIT, it->units * OVER_UNIT) == 0) {
		zc_count(t, ZC_OVER_THROTTLED, 1);
		return -ENOSPC;
	}
	rc = over_units_alloc(h, o, it->units, true, &it->unit);
	if (rc)
		return rc;
	/* The mover's batch is the only buffer of this size. */
	os_mutex_lock(&o->moving);
	rc = over_pack(o, it, s->bytes, o->batch);
	if (rc == 0)
		rc = over_write(o, t, o->batch, it->units * OVER_UNIT, it->unit);
	os_mutex_unlock(&o->moving);
	if (rc)
		over_units_free(o, it->unit, it->units);
	return rc;
}

int zc_overflow_put(struct tmem_host *h, struct zc_thread *t, const struct zc_stored *s,
		    unsigned refs, uint64_t *item)
{
	struct zc_overflow *o = h->overflow;
	arena_id id;
	int rc;

	if (over_failing(o))
		return -EIO;
	id = arena_alloc(o->items);
	if (!id)
		return -ENOMEM;
	rc = put_item(h, t, s, over_item(o, id));
	if (rc) {
		arena_free(o->items, id);
		return rc;
	}
	atomic_store(&over_item(o, id)->refs, refs);
	if (over_item(o, id)->dict)
		zc_dict_ref(h, over_item(o, id)->dict);
	*item = id;
	zc_count(t, ZC_OVER_WORDS_NOW, refs);
	zc_count(t, ZC_OVER_ZPAGES_NOW, 1);
	zc_count(t, ZC_OVER_BYTES_NOW, s->zsize);
	zc_count(t, ZC_OVER_DIRECT, refs);
	return 0;
}

void zc_overflow_info(struct tmem_host *h, uint64_t item, struct zc_stored *s)
{
	const struct over_item *it = over_item(h->overflow, item);

	*s = (struct zc_stored){.zsize = it->zsize,
				.checksum = it->checksum,
				.codec = it->codec,
				.dict = it->dict,
				.pages = it->pages};
}

unsigned zc_overflow_refs(struct tmem_host *h, uint64_t item)
{
	return atomic_load(&over_item(h->overflow, item)->refs);
}

void zc_overflow_ref(struct tmem_host *h, uint64_t item)
{
	atomic_fetch_add(&over_item(h->overflow, item)->refs, 1);
}

void zc_overflow_unref(struct tmem_host *h, struct zc_thread *t, uint64_t item, unsigned n)
{
	struct over_item *it = over_item(h->overflow, item);
	uint32_t zsize = it->zsize, old;
	uint64_t unit = it->unit;
	unsigned units = it->units;

	old = atomic_fetch_sub(&it->refs, n);
	tmem_assert(I1, old >= n);
	if (old != n)
		return;
	if (it->dict)
		zc_dict_unref(h, it->dict);
	over_units_free(h->overflow, unit, units);
	arena_free(h->overflow->items, (arena_id)item);
	zc_count(t, ZC_OVER_ZPAGES_NOW, -1ull);
	zc_count(t, ZC_OVER_BYTES_NOW, -(uint64_t)zsize);
}

int zc_overflow_read(struct tmem_host *h, uint64_t item, void *buf)
{
	struct zc_overflow *o = h->overflow;
	const struct over_item *it = over_item(o, item);
	size_t bytes = over_bytes(o, it->zsize);
	ssize_t got = os_file_pread(o->fd, buf, bytes, it->unit * OVER_UNIT);

	if (got != (ssize_t)bytes)
		return -EIO;
	return o->seal ? over_unseal(o->seal, over_seal_number(it), buf, it->zsize) : 0;
}

/* ---- the whole ------------------------------------------------------------------------- */

/* Small hosts get small batches. */
static size_t batch_bytes(const struct tmem_host *h)
{
	uint64_t limit = atomic_load_explicit(&h->frames.limit_bytes, memory_order_relaxed);
	uint64_t n = limit ? limit / 64 / OS_FRAME_SIZE * OS_FRAME_SIZE : OVER_BATCH_MAX;

	return n < OVER_BATCH_MIN ? OVER_BATCH_MIN : n > OVER_BATCH_MAX ? OVER_BATCH_MAX : n;
}

static void free_parts(struct tmem_host *h, struct zc_overflow *o)
{
	over_seal_destroy(h, o->seal);
	over_victims_destroy(h, o);
	zc_free(h, o->move, o->moves_max * sizeof(*o->move));
	zc_free(h, o->batch, o->batch_bytes + OVER_CHECK);
	if (o->items)
		arena_destroy(o->items);
	zc_free(h, o->path, o->path_bytes);
	os_mutex_destroy(&o->moving);
	os_mutex_destroy(&o->lock);
	zc_free(h, o, sizeof(*o));
}

int zc_overflow_create(struct tmem_host *h, const tmem_host_options *opts, struct zc_overflow **out,
		       const char **why)
{
	struct zc_overflow *o = zc_alloc(h, sizeof(*o));
	int rc = -ENOMEM;

	*out = NULL;
	*why = NULL;
	if (!o)
		return rc;
	os_mutex_init(&o->lock, OS_RANK_LEAF, "overflow file");
	os_mutex_init(&o->moving, OS_RANK_MOVER, "overflow mover");
	o->fd = -1;
	o->path_bytes = strlen(opts->overflow_path) + 1;
	o->batch_bytes = batch_bytes(h);
	o->moves_max = (unsigned)(o->batch_bytes / OVER_UNIT);
	atomic_store(&o->rate, opts->overflow_rate);
	o->path = zc_alloc(h, o->path_bytes);
	o->batch = zc_alloc(h, o->batch_bytes + OVER_CHECK);
	o->move = zc_alloc(h, o->moves_max * sizeof(*o->move));
	if (!o->path || !o->batch || !o->move)
		goto fail;
	memcpy(o->path, opts->overflow_path, o->path_bytes);
	rc = arena_create(&h->frames, "overflow items", sizeof(struct over_item), OVER_ITEMS_MAX,
			  &o->items);
	if (rc == 0)
		rc = over_victims_create(h, o);
	if (rc == 0 && opts->overflow_encrypt) {
		rc = over_seal_create(h, &o->seal);
		if (rc == -ENOTSUP)
			*why = "there is no libcrypto to encrypt it with";
	}
	if (rc == 0) {
		rc = over_file_open(o);
		if (rc && rc != -ENOMEM)
			*why = over_file_refusal(rc);
	}
	if (rc == 0) {
		*out = o;
		return 0;
	}
fail:
	free_parts(h, o);
	return rc;
}

void zc_overflow_destroy(struct tmem_host *h, struct zc_overflow *o)
{
	tmem_assert(I2, o->units_used == 0);
	over_file_close(o);
	for (uint32_t i = 0; i < o->chunks; i++)
		zc_free(h, o->chunk[i], sizeof(*o->chunk[i]));
	zc_free(h, o->chunk, o->room * sizeof(struct over_chunk *));
	free_parts(h, o);
}

uint64_t zc_overflow_file_bytes(struct tmem_host *h)
{
	struct zc_overflow *o = h->overflow;
	uint64_t bytes;

	os_mutex_lock(&o->lock);
	bytes = o->units_used * OVER_UNIT;
	os_mutex_unlock(&o->lock);
	return bytes;
}

int zc_overflow_verify(struct tmem_host *h)
{
	int rc = over_space_verify(h->overflow);

	if (rc)
		os_log(OS_LOG_ERROR, "overflow file: the map of used space does not add up");
	return rc ? rc : arena_verify(h->overflow->items);
}
