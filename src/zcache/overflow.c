/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The overflow file: zpages that the memory limit refused, still compressed.
 *
 *   index word --item id--> item { unit, units, refs, zsize, checksum }
 *                                   │
 *   file:  |  2 MiB chunk   |  2 MiB chunk   | ...   4096 units of 512 bytes;
 *          [ bitmap 512 B   ]                        a zpage takes 1..128 units
 *                                                    in a row in one chunk
 *
 * Why a bitmap: it costs 0.02 % of the file, neighbours join by themselves, and
 * freeing needs no memory. Writing and reading run outside the mutex: a zpage's
 * units are its own from before the write until its last reference has gone.
 *
 * The limit counts metadata too, and a zpage in the file needs an item (32
 * bytes) and its share of the index. So zpages go to the file when the last
 * sixteenth of the limit is reached, which leaves that part for metadata.
 *
 *   I1  item.refs = words that name it + readers
 *   I2  bits set = sum of units over all items
 *   I3  chunk.free = zero bits of its bitmap;
 *       chunk.longest >= the longest run of zero bits
 *
 * Locks: overflow->lock, a leaf. Failure: a put that cannot be written leaves
 * nothing; the file of a host that died is overwritten by the next one that is
 * given its name. A file serves one host at a time.
 */
#include "os/file.h"
#include "os/log.h"
#include "zcache/zcache.h"

#include <fcntl.h>

#define UNIT	    ((size_t)512)
#define CHUNK_UNITS 4096u
#define CHUNK_WORDS (CHUNK_UNITS / 64)
#define BLOCK_UNITS (4096u / 512u) /* what a file system gives back */
#define ITEMS_MAX   (1u << 26)

struct over_item {
	uint64_t unit;
	uint32_t zsize, checksum;
	_Atomic uint32_t refs;
	uint16_t units;
	uint8_t codec, pages;
	uint64_t spare;
};

struct over_chunk {
	uint32_t free, longest;
	uint64_t used[CHUNK_WORDS]; /* one bit a unit */
};

struct zc_overflow {
	struct os_mutex lock;
	struct arena *items;
	int fd;
	char *path;
	size_t path_bytes;
	struct over_chunk **chunk;
	uint32_t chunks, room, hint;
	uint64_t units_used;
	_Atomic bool complained; /* a failed write was logged */
};

/* ---- space ------------------------------------------------------------------------ */

static bool unit_used(const struct over_chunk *k, unsigned u)
{
	return k->used[u / 64] >> (u % 64) & 1;
}

static void set_units(struct over_chunk *k, unsigned first, unsigned n, bool used)
{
	for (unsigned u = first; u < first + n; u++) {
		uint64_t bit = (uint64_t)1 << (u % 64);

		if (used)
			k->used[u / 64] |= bit;
		else
			k->used[u / 64] &= ~bit;
	}
}

/* First run of n free units, or CHUNK_UNITS; then `longest` is what was seen. */
static unsigned find_run(struct over_chunk *k, unsigned n)
{
	unsigned run = 0, longest = 0;

	for (unsigned u = 0; u < CHUNK_UNITS; u++) {
		if (u % 64 == 0 && k->used[u / 64] == UINT64_MAX) {
			run = 0;
			u += 63;
			continue;
		}
		run = unit_used(k, u) ? 0 : run + 1;
		if (run == n)
			return u + 1 - n;
		longest = run > longest ? run : longest;
	}
	k->longest = longest;
	return CHUNK_UNITS;
}

static int add_chunk(struct tmem_host *h, struct zc_overflow *o)
{
	struct over_chunk *k, **table;
	uint32_t room = o->room ? o->room * 2 : 64;

	if (o->chunks == o->room) {
		table = zc_alloc(h, room * sizeof(struct over_chunk *));
		if (!table)
			return -ENOMEM;
		if (o->chunks)
			memcpy(table, o->chunk, o->chunks * sizeof(struct over_chunk *));
		zc_free(h, o->chunk, o->room * sizeof(struct over_chunk *));
		o->chunk = table;
		o->room = room;
	}
	k = zc_alloc(h, sizeof(*k));
	if (!k)
		return -ENOMEM;
	k->free = k->longest = CHUNK_UNITS;
	o->chunk[o->chunks++] = k;
	return 0;
}

static int units_alloc(struct tmem_host *h, struct zc_overflow *o, unsigned n, uint64_t *unit)
{
	unsigned first = CHUNK_UNITS;
	uint32_t i = 0;
	int rc = 0;

	os_mutex_lock(&o->lock);
	for (uint32_t tried = 0; tried < o->chunks && first == CHUNK_UNITS; tried++) {
		i = (o->hint + tried) % o->chunks;
		if (o->chunk[i]->free >= n && o->chunk[i]->longest >= n)
			first = find_run(o->chunk[i], n);
	}
	if (first == CHUNK_UNITS) {
		rc = add_chunk(h, o);
		if (rc)
			goto out;
		i = o->chunks - 1;
		first = 0;
	}
	set_units(o->chunk[i], first, n, true);
	o->chunk[i]->free -= n;
	o->units_used += n;
	o->hint = i;
	*unit = (uint64_t)i * CHUNK_UNITS + first;
out:
	os_mutex_unlock(&o->lock);
	return rc;
}

/* Blocks of which no unit is in use any more go back to the file system. */
static void punch(struct zc_overflow *o, uint32_t i, unsigned first, unsigned n)
{
	const struct over_chunk *k = o->chunk[i];
	unsigned from = first / BLOCK_UNITS, to = (first + n - 1) / BLOCK_UNITS + 1;
	uint64_t base = (uint64_t)i * CHUNK_UNITS;

	for (; from < to; from++)
		if ((k->used[from * BLOCK_UNITS / 64] >> (from * BLOCK_UNITS % 64) & 0xff) == 0)
			break;
	for (; to > from; to--)
		if ((k->used[(to - 1) * BLOCK_UNITS / 64] >> ((to - 1) * BLOCK_UNITS % 64) &
		     0xff) == 0)
			break;
	if (from < to) /* not every file system can; the space is then reused only */
		(void)os_file_punch(o->fd, (base + (uint64_t)from * BLOCK_UNITS) * UNIT,
				    (uint64_t)(to - from) * BLOCK_UNITS * UNIT);
}

/* Under the lock to the end, so that nobody writes where a hole is being made. */
static void units_free(struct zc_overflow *o, uint64_t unit, unsigned n)
{
	uint32_t i = (uint32_t)(unit / CHUNK_UNITS);
	unsigned first = (unsigned)(unit % CHUNK_UNITS);

	os_mutex_lock(&o->lock);
	set_units(o->chunk[i], first, n, false);
	o->chunk[i]->free += n;
	o->chunk[i]->longest = CHUNK_UNITS;
	o->units_used -= n;
	punch(o, i, first, n);
	os_mutex_unlock(&o->lock);
}

/* ---- zpages ------------------------------------------------------------------------- */

static struct over_item *item_of(struct tmem_host *h, uint64_t item)
{
	return arena_ptr(h->overflow->items, (arena_id)item);
}

bool zc_overflow_wanted(const struct tmem_host *h)
{
	uint64_t limit = atomic_load_explicit(&h->frames.limit_bytes, memory_order_relaxed);

	return limit && frames_used(&h->frames) > limit - limit / 16;
}

int zc_overflow_put(struct tmem_host *h, struct zc_thread *t, const struct zc_stored *s,
		    unsigned refs, uint64_t *item)
{
	struct zc_overflow *o = h->overflow;
	unsigned units = (unsigned)((s->zsize + UNIT - 1) / UNIT);
	arena_id id = arena_alloc(o->items);
	struct over_item *it;
	uint64_t unit;
	int rc = -ENOMEM;

	if (!id)
		goto out;
	rc = units_alloc(h, o, units, &unit);
	if (rc)
		goto no_units;
	rc = os_file_pwrite(o->fd, s->bytes, s->zsize, unit * UNIT);
	if (rc) {
		if (!atomic_exchange(&o->complained, true))
			os_log(OS_LOG_WARNING,
			       "overflow file %s: %s (further failures are not logged)", o->path,
			       strerror(-rc));
		goto no_write;
	}
	it = arena_ptr(o->items, id);
	it->unit = unit;
	it->units = (uint16_t)units;
	it->zsize = (uint32_t)s->zsize;
	it->checksum = s->fresh ? zc_checksum(s->bytes, s->zsize) : s->checksum;
	it->codec = (uint8_t)s->codec;
	it->pages = (uint8_t)s->pages;
	atomic_store(&it->refs, refs);
	*item = id;
	zc_count(t, ZC_OVER_WORDS_NOW, refs);
	zc_count(t, ZC_OVER_ZPAGES_NOW, 1);
	zc_count(t, ZC_OVER_BYTES_NOW, s->zsize);
	return 0;
no_write:
	units_free(o, unit, units);
no_units:
	arena_free(o->items, id);
out:
	return rc;
}

void zc_overflow_info(struct tmem_host *h, uint64_t item, struct zc_stored *s)
{
	const struct over_item *it = item_of(h, item);

	*s = (struct zc_stored){.zsize = it->zsize,
				.checksum = it->checksum,
				.codec = it->codec,
				.pages = it->pages};
}

unsigned zc_overflow_refs(struct tmem_host *h, uint64_t item)
{
	return atomic_load(&item_of(h, item)->refs);
}

void zc_overflow_ref(struct tmem_host *h, uint64_t item)
{
	atomic_fetch_add(&item_of(h, item)->refs, 1);
}

void zc_overflow_unref(struct tmem_host *h, struct zc_thread *t, uint64_t item, unsigned n)
{
	struct over_item *it = item_of(h, item);
	uint32_t zsize = it->zsize, old;
	uint64_t unit = it->unit;
	unsigned units = it->units;

	old = atomic_fetch_sub(&it->refs, n);
	tmem_assert(I1, old >= n);
	if (old != n)
		return;
	units_free(h->overflow, unit, units);
	arena_free(h->overflow->items, (arena_id)item);
	zc_count(t, ZC_OVER_ZPAGES_NOW, -1ull);
	zc_count(t, ZC_OVER_BYTES_NOW, -(uint64_t)zsize);
}

int zc_overflow_read(struct tmem_host *h, uint64_t item, void *buf)
{
	const struct over_item *it = item_of(h, item);
	ssize_t got = os_file_pread(h->overflow->fd, buf, it->zsize, it->unit * UNIT);

	return got == (ssize_t)it->zsize ? 0 : -EIO;
}

/* ---- the file ------------------------------------------------------------------------- */

int zc_overflow_create(struct tmem_host *h, const char *path, struct zc_overflow **out)
{
	struct zc_overflow *o = zc_alloc(h, sizeof(*o));
	size_t len = strlen(path) + 1;
	int rc = -ENOMEM;

	*out = NULL;
	if (!o)
		return rc;
	o->path = zc_alloc(h, len);
	if (!o->path)
		goto no_path;
	memcpy(o->path, path, len);
	o->path_bytes = len;
	rc = arena_create(&h->frames, "overflow items", sizeof(struct over_item), ITEMS_MAX,
			  &o->items);
	if (rc)
		goto no_items;
	o->fd = os_file_open(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
	if (o->fd < 0) {
		rc = o->fd;
		goto no_file;
	}
	os_mutex_init(&o->lock, OS_RANK_LEAF, "overflow file");
	*out = o;
	return 0;
no_file:
	arena_destroy(o->items);
no_items:
	zc_free(h, o->path, len);
no_path:
	zc_free(h, o, sizeof(*o));
	return rc;
}

void zc_overflow_destroy(struct tmem_host *h, struct zc_overflow *o)
{
	tmem_assert(I2, o->units_used == 0);
	os_file_close(o->fd);
	(void)os_file_unlink(o->path);
	for (uint32_t i = 0; i < o->chunks; i++)
		zc_free(h, o->chunk[i], sizeof(*o->chunk[i]));
	zc_free(h, o->chunk, o->room * sizeof(struct over_chunk *));
	arena_destroy(o->items);
	os_mutex_destroy(&o->lock);
	zc_free(h, o->path, o->path_bytes);
	zc_free(h, o, sizeof(*o));
}

int zc_overflow_verify(struct tmem_host *h)
{
	struct zc_overflow *o = h->overflow;
	uint64_t used = 0;
	int rc = 0;

	os_mutex_lock(&o->lock);
	for (uint32_t i = 0; i < o->chunks; i++) {
		unsigned n = 0;

		for (unsigned w = 0; w < CHUNK_WORDS; w++)
			n += (unsigned)__builtin_popcountll(o->chunk[i]->used[w]);
		if (n + o->chunk[i]->free != CHUNK_UNITS)
			rc = -EINVAL;
		used += n;
	}
	if (used != o->units_used)
		rc = -EINVAL;
	os_mutex_unlock(&o->lock);
	if (rc)
		os_log(OS_LOG_ERROR, "overflow file: the map of used space does not add up");
	return rc ? rc : arena_verify(o->items);
}
