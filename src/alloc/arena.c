/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Arena: type-stable metadata items. The interface and its promise are in arena.h.
 *
 *   base                                                   (one reservation)
 *   | slab 0                | slab 1                | slab 2 ...
 *   | item 1 .. item n | waste | item n+1 .. 2n | waste |
 *
 *   tables (another reservation): one struct slab each
 *   | next prev used | bit per item: 1 = free |
 *
 * Why the free list is not in the items: a stale id may be read at any time
 * and must show zeros or an item, never a list link. A bit for each item in
 * the slab's own table costs less than a link and keeps a free item all zero.
 * Finding a bit takes one or a few words, since a slab holds about a hundred
 * items.
 *
 * One empty slab is kept, so that an arena whose population goes up and down
 * by one at a slab's edge does not call the OS each time. All other empty
 * slabs go back at once.
 *
 * Invariants
 *   I1  slab.used = per_slab - set bits of slab.free, for slabs < nr_slabs
 *   I2  items = sum of slab.used
 *   I3  a slab is on the partial list if and only if it is resident and
 *       used < per_slab
 *   I4  charged = resident_slabs * slab_bytes + table frames + sizeof(arena)
 *   I5  every byte of a free item is zero
 *   I6  the slabs that hold nothing and are resident are at most one: `spare`
 *
 * Locking: one mutex (OS_RANK_ARENA) guards everything but arena_ptr(), which
 * reads only what never changes, and the two counters, which are atomic.
 *
 * Failure: a refused charge or populate leaves the arena as it was.
 */
#include "alloc/arena.h"
#include "os/check.h"
#include "os/log.h"
#include "os/mem.h"

#include <errno.h>
#include <string.h>

#define ARENA_SLAB_FRAMES_MAX 16
#define ARENA_NO_SLAB	      UINT32_MAX

struct slab {
	uint32_t next, prev; /* partial list: slab numbers, ARENA_NO_SLAB ends it */
	uint32_t used;
	uint32_t resident;
	uint64_t free[]; /* free_words of them */
};

struct arena {
	struct arena_geometry g; /* first: arena_geometry() */
	struct os_mutex lock;
	struct frames *frames;
	const char *name;
	char *tables;
	size_t table_bytes; /* of one slab's table */
	size_t tables_reserved, tables_charged, items_reserved;
	uint32_t free_words, max_slabs;
	uint32_t nr_slabs; /* slabs ever used: those below have a table */
	uint32_t vacant;   /* lowest slab that may be not resident: where to look first */
	uint32_t partial;  /* head of the list */
	uint32_t spare;	   /* the empty slab that is kept, or ARENA_NO_SLAB */
	uint32_t resident_slabs;
	_Atomic uint64_t items, charged;
};

static struct slab *arena_slab(const struct arena *a, uint32_t i)
{
	return (struct slab *)(a->tables + (size_t)i * a->table_bytes);
}

static size_t arena_round_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

/*
 * The run of frames with the least waste an item; a longer one only when it
 * saves more than half a percent, for long runs are harder to empty.
 */
static uint32_t arena_slab_frames(size_t item_bytes)
{
	uint32_t best = 0;
	double best_loss = 2.0;

	for (uint32_t n = 1; n <= ARENA_SLAB_FRAMES_MAX; n++) {
		size_t bytes = n * OS_FRAME_SIZE;
		size_t per = bytes / item_bytes;
		double loss = (double)(bytes - per * item_bytes) / (double)bytes;

		/* Two at least: the reciprocal of one does not fit 64 bits. */
		if (per >= 2 && loss < best_loss - 0.005) {
			best_loss = loss;
			best = n;
		}
	}
	return best;
}

static void arena_charge_add(struct arena *a, int64_t bytes)
{
	atomic_fetch_add_explicit(&a->charged, (uint64_t)bytes, memory_order_relaxed);
}

int arena_create(struct frames *f, const char *name, size_t item_bytes, uint32_t max_items,
		 struct arena **out)
{
	struct arena *a = NULL;
	int ret = -ENOMEM;

	*out = NULL;
	tmem_assert(item, item_bytes && item_bytes % 8 == 0 && item_bytes <= 16384 && max_items);
	if (!frames_charge(f, sizeof(*a)))
		return -ENOMEM;
	a = os_zalloc_aligned(sizeof(*a));
	if (!a)
		goto fail;
	a->frames = f;
	a->name = name;
	a->g.item_bytes = (uint32_t)item_bytes;
	a->g.slab_bytes = arena_slab_frames(item_bytes) * (uint32_t)OS_FRAME_SIZE;
	a->g.per_slab = a->g.slab_bytes / a->g.item_bytes;
	a->g.reciprocal = UINT64_MAX / a->g.per_slab + 1;
	a->g.max_items = max_items;
	a->max_slabs = (max_items - 1) / a->g.per_slab + 1;
	a->free_words = (a->g.per_slab + 63) / 64;
	a->table_bytes = sizeof(struct slab) + a->free_words * sizeof(uint64_t);
	a->tables_reserved = arena_round_up(a->max_slabs * a->table_bytes, OS_FRAME_SIZE);
	a->items_reserved = (size_t)a->max_slabs * a->g.slab_bytes;
	a->partial = a->spare = ARENA_NO_SLAB;
	a->tables = os_reserve(a->tables_reserved);
	a->g.base = os_reserve(a->items_reserved);
	if (!a->tables || !a->g.base)
		goto fail;
	os_mutex_init(&a->lock, OS_RANK_ARENA, name);
	atomic_init(&a->charged, sizeof(*a));
	*out = a;
	return 0;
fail:
	if (a && a->tables)
		os_unreserve(a->tables, a->tables_reserved);
	if (a && a->g.base)
		os_unreserve(a->g.base, a->items_reserved);
	os_free(a);
	frames_uncharge(f, sizeof(*a));
	return ret;
}

void arena_destroy(struct arena *a)
{
	if (!a)
		return;
	tmem_assert(I2, arena_items(a) == 0);
	os_unreserve(a->g.base, a->items_reserved);
	os_unreserve(a->tables, a->tables_reserved);
	frames_uncharge(a->frames, atomic_load(&a->charged));
	os_mutex_destroy(&a->lock);
	os_free(a);
}

static void arena_list_add(struct arena *a, uint32_t i)
{
	struct slab *s = arena_slab(a, i);

	s->prev = ARENA_NO_SLAB;
	s->next = a->partial;
	if (s->next != ARENA_NO_SLAB)
		arena_slab(a, s->next)->prev = i;
	a->partial = i;
}

static void arena_list_del(struct arena *a, uint32_t i)
{
	struct slab *s = arena_slab(a, i);

	if (s->next != ARENA_NO_SLAB)
		arena_slab(a, s->next)->prev = s->prev;
	if (s->prev != ARENA_NO_SLAB)
		arena_slab(a, s->prev)->next = s->next;
	else
		a->partial = s->next;
}

/* All per_slab bits set: every item free. */
static void arena_slab_clear(const struct arena *a, struct slab *s)
{
	uint32_t rest = a->g.per_slab % 64;

	for (uint32_t w = 0; w < a->free_words; w++)
		s->free[w] = ~0ull;
	if (rest)
		s->free[a->free_words - 1] = (1ull << rest) - 1;
	s->used = 0;
}

/* Charge the frames of the table that slab number nr_slabs needs. */
static bool arena_table_grow(struct arena *a)
{
	size_t need = arena_round_up((size_t)(a->nr_slabs + 1) * a->table_bytes, OS_FRAME_SIZE);

	if (need > a->tables_charged) {
		if (!frames_charge(a->frames, need - a->tables_charged))
			return false;
		arena_charge_add(a, (int64_t)(need - a->tables_charged));
		a->tables_charged = need;
	}
	return true;
}

/* The lowest slab that is not resident; ARENA_NO_SLAB when there is none. */
static uint32_t arena_vacant(struct arena *a)
{
	while (a->vacant < a->nr_slabs && arena_slab(a, a->vacant)->resident)
		a->vacant++;
	if (a->vacant < a->nr_slabs)
		return a->vacant;
	if (a->nr_slabs == a->max_slabs || !arena_table_grow(a))
		return ARENA_NO_SLAB;
	return a->nr_slabs++;
}

/* A resident, empty slab on the partial list. */
static bool arena_slab_new(struct arena *a)
{
	struct slab *s;
	uint32_t i;

	if (!frames_charge(a->frames, a->g.slab_bytes))
		return false;
	i = arena_vacant(a);
	if (i == ARENA_NO_SLAB ||
	    os_frames_populate(a->g.base + (size_t)i * a->g.slab_bytes, a->g.slab_bytes)) {
		frames_uncharge(a->frames, a->g.slab_bytes);
		return false;
	}
	s = arena_slab(a, i);
	arena_slab_clear(a, s);
	s->resident = 1;
	a->resident_slabs++;
	arena_charge_add(a, a->g.slab_bytes);
	arena_list_add(a, i);
	return true;
}

static void arena_slab_return(struct arena *a, uint32_t i)
{
	struct slab *s = arena_slab(a, i);

	arena_list_del(a, i);
	s->resident = 0;
	a->resident_slabs--;
	if (i < a->vacant)
		a->vacant = i;
	os_frames_return(a->g.base + (size_t)i * a->g.slab_bytes, a->g.slab_bytes);
	arena_charge_add(a, -(int64_t)a->g.slab_bytes);
	frames_uncharge(a->frames, a->g.slab_bytes);
}

/* Take the lowest free item of the head of the partial list; 0 if past max_items. */
static arena_id arena_take(struct arena *a)
{
	uint32_t i = a->partial, w = 0, bit;
	struct slab *s = arena_slab(a, i);
	arena_id id;

	while (!s->free[w])
		w++;
	tmem_assert(I1, w < a->free_words);
	bit = w * 64 + (uint32_t)__builtin_ctzll(s->free[w]);
	id = i * a->g.per_slab + bit + 1;
	if (id > a->g.max_items)
		return 0;
	s->free[w] &= s->free[w] - 1;
	if (a->spare == i)
		a->spare = ARENA_NO_SLAB;
	if (++s->used == a->g.per_slab)
		arena_list_del(a, i);
	return id;
}

arena_id arena_alloc(struct arena *a)
{
	arena_id id = 0;

	os_mutex_lock(&a->lock);
	if (a->partial != ARENA_NO_SLAB || arena_slab_new(a))
		id = arena_take(a);
	if (id)
		atomic_fetch_add_explicit(&a->items, 1, memory_order_relaxed);
	os_mutex_unlock(&a->lock);
	return id;
}

void arena_free(struct arena *a, arena_id id)
{
	uint32_t i = (id - 1) / a->g.per_slab, bit = (id - 1) % a->g.per_slab;
	struct slab *s = arena_slab(a, i);

	tmem_assert(id, arena_id_plausible(a, id));
	memset(arena_ptr(a, id), 0, a->g.item_bytes); /* I5, before the item can be handed out */
	os_mutex_lock(&a->lock);
	tmem_assert(I1, s->used > 0 && !(s->free[bit / 64] >> (bit % 64) & 1));
	s->free[bit / 64] |= 1ull << (bit % 64);
	if (s->used-- == a->g.per_slab)
		arena_list_add(a, i);
	if (s->used == 0) {
		if (a->spare != ARENA_NO_SLAB)
			arena_slab_return(a, a->spare);
		a->spare = i;
	}
	atomic_fetch_sub_explicit(&a->items, 1, memory_order_relaxed);
	os_mutex_unlock(&a->lock);
}

arena_id arena_top(struct arena *a)
{
	arena_id top;

	os_mutex_lock(&a->lock);
	top = a->nr_slabs * a->g.per_slab;
	os_mutex_unlock(&a->lock);
	return top;
}

uint64_t arena_items(const struct arena *a)
{
	return atomic_load_explicit(&a->items, memory_order_relaxed);
}

uint64_t arena_bytes(const struct arena *a)
{
	return atomic_load_explicit(&a->charged, memory_order_relaxed);
}

static bool arena_is_zero(const char *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* I1 and I5 for one slab; -EINVAL when either is broken. */
static int arena_verify_slab(struct arena *a, uint32_t i)
{
	struct slab *s = arena_slab(a, i);
	uint32_t free_items = 0;

	for (uint32_t b = 0; b < a->g.per_slab; b++) {
		const char *item =
			a->g.base + (size_t)i * a->g.slab_bytes + (size_t)b * a->g.item_bytes;

		if (!(s->free[b / 64] >> (b % 64) & 1))
			continue;
		free_items++;
		if (!arena_is_zero(item, a->g.item_bytes)) {
			os_log(OS_LOG_ERROR, "arena %s: I5: free item %u is not zero", a->name,
			       i * a->g.per_slab + b + 1);
			return -EINVAL;
		}
	}
	if (free_items + s->used != a->g.per_slab) {
		os_log(OS_LOG_ERROR, "arena %s: I1: slab %u has %u free and %u used", a->name, i,
		       free_items, s->used);
		return -EINVAL;
	}
	return 0;
}

int arena_verify(struct arena *a)
{
	uint64_t used = 0, resident = 0, partial = 0, listed = 0, empty = 0;
	const char *broken = NULL;
	int ret = 0;

	os_mutex_lock(&a->lock);
	for (uint32_t i = 0; i < a->nr_slabs && !ret; i++) {
		struct slab *s = arena_slab(a, i);

		if (!s->resident)
			continue;
		resident++;
		used += s->used;
		partial += s->used < a->g.per_slab;
		empty += s->used == 0;
		if (s->used == 0 && i != a->spare)
			broken = "I6: an empty slab was not returned";
		ret = arena_verify_slab(a, i);
	}
	for (uint32_t i = a->partial; i != ARENA_NO_SLAB && listed <= partial;
	     i = arena_slab(a, i)->next)
		listed++;
	if (used != arena_items(a))
		broken = "I2: items";
	else if (listed != partial)
		broken = "I3: partial list";
	else if (resident != a->resident_slabs ||
		 resident * a->g.slab_bytes + a->tables_charged + sizeof(*a) != arena_bytes(a))
		broken = "I4: charged";
	else if (empty > 1)
		broken = "I6: more than one empty slab";
	if (!ret && broken) {
		os_log(OS_LOG_ERROR, "arena %s: %s", a->name, broken);
		ret = -EINVAL;
	}
	os_mutex_unlock(&a->lock);
	return ret;
}
