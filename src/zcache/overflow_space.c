/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Space in the overflow file.
 *
 *   file:  |  2 MiB chunk   |  2 MiB chunk   | ...   4096 units of 512 bytes;
 *          [ bitmap 512 B   ]                        a zpage takes 1..129 units
 *                                                    in a row in one chunk
 *
 * Why a bitmap: it costs 0.02 % of the file, neighbours join by themselves, and
 * freeing needs no memory. Blocks of 4 KiB of which no unit is in use any more
 * go back to the file system.
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

static bool block_free(const struct over_chunk *k, unsigned block)
{
	return (k->used[block * OVER_BLOCK_UNITS / 64] >> (block * OVER_BLOCK_UNITS % 64) & 0xff) ==
	       0;
}

/* Of the blocks that these units touch, those at the ends may still hold others. */
static void punch(struct zc_overflow *o, uint32_t i, unsigned first, unsigned n)
{
	const struct over_chunk *k = o->chunk[i];
	unsigned from = first / OVER_BLOCK_UNITS, to = (first + n - 1) / OVER_BLOCK_UNITS + 1;
	uint64_t base = (uint64_t)i * OVER_CHUNK_UNITS;

	while (from < to && !block_free(k, from))
		from++;
	while (to > from && !block_free(k, to - 1))
		to--;
	if (from < to) /* not every file system can; the space is then reused only */
		(void)os_file_punch(o->fd, (base + (uint64_t)from * OVER_BLOCK_UNITS) * OVER_UNIT,
				    (uint64_t)(to - from) * OVER_BLOCK_UNITS * OVER_UNIT);
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
