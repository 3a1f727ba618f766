/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Space in the overflow file.
 *
 *   file:  |  2 MiB chunk   |  2 MiB chunk   | ...   4096 units of 512 bytes;
 *          [ bitmap 512 B   ]                        a zpage takes 1..129 units
 *                                                    in a row in one chunk
 *
 * Why a bitmap: it costs 0.02 % of the file, neighbours join by themselves, and
 * freeing needs no memory.
 *
 * Space goes back to the file system by regions of 256 KiB of which nothing is
 * in use any more. By blocks of 4 KiB a program that took its pages back spent
 * most of its time there: on ext4 a hole takes about a millisecond, whatever its
 * size, once the blocks are on the disk.
 *
 *   S1  units_used = sum of set bits, less the header's
 *   S2  chunk.free = zero bits of its bitmap;
 *       chunk.longest >= the longest run of zero bits
 *
 * Locks: overflow->lock. Holes are made under it, so that nobody is given units
 * where a hole is just being made.
 */
#include "os/file.h"
#include "zcache/overflow.h"

#define REGION_WORDS 8u
#define REGION_UNITS (REGION_WORDS * 64u)

static bool unit_used(const struct over_chunk *k, unsigned u)
{
	return k->used[u / 64] >> (u % 64) & 1;
}

static void set_units(struct over_chunk *k, unsigned first, unsigned n, bool used)
{
	for (unsigned u = first; u < first + n; u++) {
		uint64_t bit = (uint64_t)1 << (u % 64);

		tmem_assert(S1, unit_used(k, u) != used);
		if (used)
			k->used[u / 64] |= bit;
		else
			k->used[u / 64] &= ~bit;
	}
}

/* First run of n free units, or OVER_CHUNK_UNITS; then `longest` is what was seen. */
static unsigned find_run(struct over_chunk *k, unsigned n)
{
	unsigned run = 0, longest = 0;

	for (unsigned u = 0; u < OVER_CHUNK_UNITS; u++) {
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
	return OVER_CHUNK_UNITS;
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
	k->free = k->longest = OVER_CHUNK_UNITS;
	if (o->chunks == 0) {
		set_units(k, 0, OVER_HEAD_UNITS, true);
		k->free -= OVER_HEAD_UNITS;
	}
	o->chunk[o->chunks++] = k;
	return 0;
}

int over_units_alloc(struct tmem_host *h, struct zc_overflow *o, unsigned n, bool grow,
		     uint64_t *unit)
{
	unsigned first = OVER_CHUNK_UNITS;
	uint32_t i = 0;
	int rc = 0;

	os_mutex_lock(&o->lock);
	for (uint32_t tried = 0; tried < o->chunks && first == OVER_CHUNK_UNITS; tried++) {
		i = (o->hint + tried) % o->chunks;
		if (o->chunk[i]->free >= n && o->chunk[i]->longest >= n)
			first = find_run(o->chunk[i], n);
	}
	if (first == OVER_CHUNK_UNITS) {
		rc = grow ? add_chunk(h, o) : -ENOSPC;
		if (rc)
			goto out;
		i = o->chunks - 1;
		first = find_run(o->chunk[i], n);
	}
	set_units(o->chunk[i], first, n, true);
	o->chunk[i]->free -= n;
	o->units_used += n;
	o->hint = i;
	*unit = (uint64_t)i * OVER_CHUNK_UNITS + first;
out:
	os_mutex_unlock(&o->lock);
	return rc;
}

/* Whether nothing of a region is in use; the file's header does not count. */
static bool region_free(const struct over_chunk *k, unsigned region, bool headed)
{
	unsigned w = region * REGION_WORDS;
	uint64_t used = k->used[w];

	if (headed)
		used &= ~(((uint64_t)1 << OVER_HEAD_UNITS) - 1);
	for (unsigned i = 1; i < REGION_WORDS; i++)
		used |= k->used[w + i];
	return used == 0;
}

/* Give back the regions that these units were the last of. */
static void punch(struct zc_overflow *o, uint32_t i, unsigned first, unsigned n)
{
	uint64_t base = (uint64_t)i * OVER_CHUNK_UNITS;

	for (unsigned r = first / REGION_UNITS; r <= (first + n - 1) / REGION_UNITS; r++) {
		bool headed = i == 0 && r == 0;
		uint64_t from = base + r * REGION_UNITS + (headed ? OVER_HEAD_UNITS : 0);
		uint64_t to = base + (r + 1) * REGION_UNITS;

		if (region_free(o->chunk[i], r, headed))
			/* Not every file system can; the space is then reused only. */
			(void)os_file_punch(o->fd, from * OVER_UNIT, (to - from) * OVER_UNIT);
	}
}

void over_units_free(struct zc_overflow *o, uint64_t unit, unsigned n)
{
	uint32_t i = (uint32_t)(unit / OVER_CHUNK_UNITS);
	unsigned first = (unsigned)(unit % OVER_CHUNK_UNITS);

	os_mutex_lock(&o->lock);
	set_units(o->chunk[i], first, n, false);
	o->chunk[i]->free += n;
	o->chunk[i]->longest = OVER_CHUNK_UNITS;
	o->units_used -= n;
	punch(o, i, first, n);
	os_mutex_unlock(&o->lock);
}

uint64_t over_units_free_now(struct zc_overflow *o)
{
	uint64_t n;

	os_mutex_lock(&o->lock);
	n = (uint64_t)o->chunks * OVER_CHUNK_UNITS - o->units_used;
	os_mutex_unlock(&o->lock);
	return n;
}

int over_space_verify(struct zc_overflow *o)
{
	uint64_t used = 0, head;
	int rc = 0;

	os_mutex_lock(&o->lock);
	head = o->chunks ? OVER_HEAD_UNITS : 0;
	for (uint32_t i = 0; i < o->chunks; i++) {
		unsigned n = 0;

		for (unsigned w = 0; w < OVER_CHUNK_WORDS; w++)
			n += (unsigned)__builtin_popcountll(o->chunk[i]->used[w]);
		if (n + o->chunk[i]->free != OVER_CHUNK_UNITS)
			rc = -EINVAL;
		used += n;
	}
	if (used != o->units_used + head)
		rc = -EINVAL;
	os_mutex_unlock(&o->lock);
	return rc;
}
