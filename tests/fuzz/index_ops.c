/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: operations on the index, against a plain list.
 *
 * Four objects; indexes from a few bits shifted anywhere into 64, so that trees
 * of every height come and go. Words are numbers that are given out once, so
 * the double that backs the pool sees a word dropped twice, never, or too early.
 * The frame source has a limit that changes: what is refused changes nothing.
 */
#include "fuzz.h"
#include "index/index.h"

#include <errno.h>

#define OIDS  4
#define MAX   2048 /* entries of the model */
#define WORDS (1u << 16)

struct entry {
	unsigned oid;
	uint64_t index;
	struct pampd p;
};

struct fuzz_world {
	struct frames f;
	struct index *ix;
	struct index_pool *ip;
	struct entry entry[MAX];
	unsigned n;
	uint32_t next; /* word */
	uint8_t live[WORDS];
	uint64_t nr_live, immediate, drops;
};

static struct index_oid oid_of(unsigned i)
{
	/* They differ in a few bits of one word. */
	return (struct index_oid){{i & 1, 7, i >> 1}};
}

static int world_take(void *ctx, struct pampd p, void *taken)
{
	struct fuzz_world *w = ctx;

	fuzz_check(p.immediate || (p.word < WORDS && w->live[p.word]));
	*(struct pampd *)taken = p;
	return 0;
}

static void world_drop(void *ctx, const struct pampd *p, unsigned n)
{
	struct fuzz_world *w = ctx;

	fuzz_check(n >= 1 && n <= INDEX_BATCH);
	for (unsigned i = 0; i < n; i++) {
		w->drops++;
		if (p[i].immediate) {
			fuzz_check(w->immediate-- > 0);
			continue;
		}
		fuzz_check(p[i].word < WORDS && w->live[p[i].word]);
		w->live[p[i].word] = 0;
		w->nr_live--;
	}
}

static const struct pam_ops world_pam = {.take = world_take, .drop = world_drop};

static struct pampd word_new(struct fuzz_world *w, uint8_t how)
{
	if (how % 4 == 0) {
		w->immediate++;
		return (struct pampd){how & 16 ? 0 : how, true};
	}
	w->live[++w->next] = 1;
	w->nr_live++;
	return (struct pampd){w->next, false};
}

/* ---- the model ---------------------------------------------------------------------------- */

static struct entry *model_find(struct fuzz_world *w, unsigned oid, uint64_t index)
{
	for (unsigned i = 0; i < w->n; i++)
		if (w->entry[i].oid == oid && w->entry[i].index == index)
			return &w->entry[i];
	return NULL;
}

static void model_set(struct fuzz_world *w, unsigned oid, uint64_t index, struct pampd p)
{
	struct entry *e = model_find(w, oid, index);

	if (!e)
		e = &w->entry[w->n++];
	*e = (struct entry){oid, index, p};
}

/* Take out what lies in index .. last of an object (OIDS: of all). */
static uint64_t model_remove(struct fuzz_world *w, unsigned oid, uint64_t index, uint64_t last)
{
	uint64_t removed = 0;

	for (unsigned i = 0; i < w->n;) {
		struct entry *e = &w->entry[i];

		if ((oid == OIDS || e->oid == oid) && e->index >= index && e->index <= last) {
			*e = w->entry[--w->n];
			removed++;
		} else {
			i++;
		}
	}
	return removed;
}

/* ---- operations ---------------------------------------------------------------------------- */

static uint64_t pick_index(struct fuzz_in *in)
{
	uint8_t shift = fuzz_u8(in);
	uint64_t bits = fuzz_u8(in);

	if (shift >= 250)
		return UINT64_MAX - bits;
	return bits << (shift % 64) | (shift & 64 ? 1 : 0);
}

static void op_put(struct fuzz_world *w, struct fuzz_in *in)
{
	unsigned oid = fuzz_u8(in) % OIDS, n;
	uint64_t index = pick_index(in);
	struct index_oid o = oid_of(oid);
	uint8_t how = fuzz_u8(in);
	struct pampd p[16];
	int ret;

	n = how % 3 == 0 ? 1 + how % 16 : 1;
	if (n > INDEX_FANOUT - index % INDEX_FANOUT)
		n = INDEX_FANOUT - (unsigned)(index % INDEX_FANOUT);
	if (w->n + n > MAX || w->next + n >= WORDS)
		return;
	for (unsigned i = 0; i < n; i++)
		p[i] = word_new(w, (uint8_t)(how + i * 5));
	ret = index_put(w->ip, &o, index, n, p);
	fuzz_check(ret == 0 || (ret == -ENOMEM && w->f.limit_bytes));
	for (unsigned i = 0; i < n; i++) {
		if (ret)
			world_drop(w, &p[i], 1);
		else
			model_set(w, oid, index + i, p[i]);
	}
}

static void op_get(struct fuzz_world *w, unsigned oid, uint64_t index)
{
	struct entry *e = model_find(w, oid, index);
	struct pampd p = {0}, taken = {0};
	struct index_oid o = oid_of(oid);
	int ret = index_get(w->ip, &o, index, &p, &taken);

	fuzz_check(ret == (e ? 0 : 1));
	if (e)
		fuzz_check(p.word == e->p.word && p.immediate == e->p.immediate &&
			   taken.word == p.word);
}

static void op_range(struct fuzz_world *w, struct fuzz_in *in)
{
	unsigned oid = fuzz_u8(in) % OIDS;
	uint64_t index = pick_index(in), n = pick_index(in), last, removed;
	struct index_oid o = oid_of(oid);

	removed = index_invalidate_range(w->ip, &o, index, n);
	last = n && n - 1 > UINT64_MAX - index ? UINT64_MAX : index + n - 1;
	fuzz_check(removed == (n ? model_remove(w, oid, index, last) : 0));
}

/* Words of one leaf, through a cursor: look at all, change some. */
static void op_cursor(struct fuzz_world *w, struct fuzz_in *in)
{
	unsigned oid = fuzz_u8(in) % OIDS, slot;
	uint64_t index = pick_index(in);
	uint8_t how = fuzz_u8(in);
	struct index_oid o = oid_of(oid), is;
	struct index_cursor c;
	struct pampd old[2];
	unsigned dropped = 0;

	if (w->n + 2 > MAX || w->next + 2 >= WORDS)
		return;
	if (how & 1) {
		if (index_lock_create(w->ip, &o, index, &c))
			return;
	} else {
		index_lock(w->ip, &o, index, &c);
	}
	for (unsigned i = 0; c.leaf && i < INDEX_FANOUT; i++) {
		struct entry *e = model_find(w, oid, c.base + i);

		fuzz_check(index_cursor_present(&c, i) == (e != NULL));
		if (e)
			fuzz_check(index_cursor_get(&c, i).word == e->p.word);
	}
	if (c.leaf) {
		index_cursor_oid(&c, &is);
		fuzz_check(memcmp(&is, &o, sizeof(o)) == 0);
		slot = (unsigned)(index % INDEX_FANOUT);
		if (index_cursor_present(&c, slot))
			old[dropped++] = index_cursor_get(&c, slot);
		if (how & 2 && dropped) {
			index_cursor_clear(&c, slot);
			model_remove(w, oid, index, index);
		} else if (how & 1) {
			struct pampd p = word_new(w, how >> 2);

			index_cursor_set(&c, slot, p);
			model_set(w, oid, index, p);
		} else {
			dropped = 0;
		}
	} else {
		for (unsigned i = 0; i < INDEX_FANOUT; i++)
			fuzz_check(!model_find(w, oid, (index & ~63ull) + i));
	}
	index_unlock(&c);
	if (dropped)
		world_drop(w, old, dropped);
}

static void op_leaf(struct fuzz_world *w, uint16_t leaf)
{
	struct index_cursor c;
	struct index_oid o;

	/* Any number: a leaf, an inner node, or nothing. */
	if (!index_lock_leaf(w->ix, leaf, &c))
		return;
	fuzz_check(c.leaf == leaf && c.pool == w->ip);
	index_cursor_oid(&c, &o);
	fuzz_check(o.w[1] == 7);
	index_unlock(&c);
}

static int count_leaf(void *arg, struct index_cursor *c)
{
	uint64_t *n = arg;

	for (unsigned i = 0; i < INDEX_FANOUT; i++)
		*n += index_cursor_present(c, i);
	return 0;
}

static void op_check(struct fuzz_world *w)
{
	uint64_t n = 0;

	fuzz_check(index_verify(w->ip) == 0);
	fuzz_check(index_pool_pages(w->ip) == w->n);
	fuzz_check(index_walk(w->ip, count_leaf, &n) == 0 && n == w->n);
	fuzz_check(w->nr_live + w->immediate == w->n);
}

static void step(struct fuzz_world *w, struct fuzz_in *in)
{
	uint8_t op = fuzz_u8(in);
	unsigned oid;
	struct index_oid o;
	uint64_t index;

	switch (op % 16) {
	case 6:
	case 7:
		oid = fuzz_u8(in) % OIDS;
		op_get(w, oid, pick_index(in));
		break;
	case 8:
	case 9:
		oid = fuzz_u8(in) % OIDS;
		index = pick_index(in);
		o = oid_of(oid);
		fuzz_check(index_invalidate(w->ip, &o, index) ==
			   (model_remove(w, oid, index, index) == 1));
		break;
	case 10:
		op_range(w, in);
		break;
	case 11:
	case 12:
		op_cursor(w, in);
		break;
	case 13:
		op_leaf(w, fuzz_u16(in) % 512);
		break;
	case 14:
		oid = fuzz_u8(in);
		o = oid_of(oid % OIDS);
		if (oid < 16)
			fuzz_check(index_flush(w->ip) == model_remove(w, OIDS, 0, UINT64_MAX));
		else if (oid < 64)
			fuzz_check(index_invalidate_object(w->ip, &o) ==
				   model_remove(w, oid % OIDS, 0, UINT64_MAX));
		else
			op_check(w);
		break;
	case 15:
		oid = fuzz_u8(in);
		frames_set_limit(&w->f, oid < 128 ? 0 : frames_used(&w->f) + (oid & 7) * 4096ull);
		break;
	default:
		op_put(w, in);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz_world w;
	struct fuzz_in in = {data, size};

	memset(&w, 0, sizeof(w));
	frames_init(&w.f, 0);
	fuzz_check(index_create(&w.f, &w.ix) == 0);
	fuzz_check(index_pool_create(w.ix, 1u << (fuzz_u8(&in) % 4), &world_pam, &w, &w, &w.ip) ==
		   0);
	while (in.n)
		step(&w, &in);
	op_check(&w);
	for (unsigned i = 0; i < w.n; i++)
		op_get(&w, w.entry[i].oid, w.entry[i].index);
	index_pool_destroy(w.ip);
	fuzz_check(w.nr_live == 0 && w.immediate == 0);
	index_destroy(w.ix);
	fuzz_check(frames_used(&w.f) == 0);
	return 0;
}
