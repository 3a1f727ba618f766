/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Radix trees: the paths that the inline lookup in radix.h does not take.
 *
 * A tree grows at its root: the old root becomes slot 0 of a new one, as often
 * as the index asks for. It shrinks the same way as soon as only slot 0 of its
 * root is left (I4), so an object that was once large and sparse is as cheap
 * as a fresh one.
 */
#include "index/radix.h"

#define SLOT_MASK (INDEX_FANOUT - 1)

/* The first index after those that a node at `base` with `shift` covers; 0 when there is none. */
static uint64_t node_end(uint64_t base, unsigned shift)
{
	return shift + INDEX_FANOUT_SHIFT >= 64 ? 0 : base + ((uint64_t)INDEX_FANOUT << shift);
}

arena_id radix_next(const struct index *ix, const struct index_object *o, uint64_t index)
{
	arena_id id = o->root;

	if (!id || radix_height_for(index) > o->height)
		return 0;
	/* Descend; where nothing is left to the right, start again behind that node. */
	for (;;) {
		const struct index_node *n = index_node(ix, id);
		unsigned slot = index >> n->shift & SLOT_MASK;
		uint64_t right;

		if (!n->shift)
			return id;
		right = n->bits >> slot << slot;
		if (!right) {
			index = node_end(n->base, n->shift);
			id = o->root;
			if (!index || radix_height_for(index) > o->height)
				return 0;
			continue;
		}
		if (!(right >> slot & 1)) {
			slot = (unsigned)__builtin_ctzll(right);
			index = n->base + ((uint64_t)slot << n->shift);
		}
		id = (arena_id)n->word[slot];
	}
}

unsigned radix_missing(const struct index *ix, const struct index_object *o, uint64_t index)
{
	unsigned height = radix_height_for(index);
	unsigned shift;
	arena_id id;

	if (!o || !o->height)
		return height;
	/* A new path from the new root down, and the new roots above the old one. */
	if (height > o->height)
		return (height - o->height) + (height - 1);
	/* Walk down as far as the path goes; shift is that of the node named by id. */
	id = o->root;
	shift = (o->height - 1u) * INDEX_FANOUT_SHIFT;
	while (id && shift) {
		id = (arena_id)index_node(ix, id)->word[index >> shift & SLOT_MASK];
		shift -= INDEX_FANOUT_SHIFT;
	}
	return id ? 0 : shift / INDEX_FANOUT_SHIFT + 1;
}

static struct index_node *node_make(const struct index *ix, struct index_reserve *r,
				    arena_id object, uint64_t index, unsigned shift, arena_id *id)
{
	struct index_node *n;

	*id = index_reserve_take_node(ix, r);
	n = index_node(ix, *id);
	n->bits = 0;
	n->base = shift + INDEX_FANOUT_SHIFT >= 64
			  ? 0
			  : index >> (shift + INDEX_FANOUT_SHIFT) << (shift + INDEX_FANOUT_SHIFT);
	n->parent = 0;
	n->count = 0;
	n->shift = (uint8_t)shift;
	n->slot = 0;
	__atomic_store_n(&n->object, object, __ATOMIC_RELAXED);
	return n;
}

static void node_join(struct index_node *parent, arena_id parent_id, unsigned slot,
		      struct index_node *child, arena_id child_id)
{
	tmem_assert(I3, !parent->word[slot] && parent->shift == child->shift + INDEX_FANOUT_SHIFT);
	parent->word[slot] = child_id;
	parent->bits |= 1ull << slot;
	parent->count++;
	child->parent = parent_id;
	child->slot = (uint8_t)slot;
}

static void tree_grow(const struct index *ix, struct index_object *o, arena_id object,
		      struct index_reserve *r)
{
	struct index_node *root;
	arena_id id;

	root = node_make(ix, r, object, 0, o->height * INDEX_FANOUT_SHIFT, &id);
	node_join(root, id, 0, index_node(ix, o->root), o->root);
	o->root = id;
	o->height++;
}

arena_id radix_link(const struct index *ix, arena_id object, uint64_t index,
		    struct index_reserve *r)
{
	struct index_object *o = index_object(ix, object);
	unsigned height = radix_height_for(index);
	struct index_node *n;
	arena_id id;

	if (!o->height) {
		node_make(ix, r, object, index, (height - 1) * INDEX_FANOUT_SHIFT, &o->root);
		o->height = (uint8_t)height;
	}
	while (o->height < height)
		tree_grow(ix, o, object, r);

	id = o->root;
	n = index_node(ix, id);
	while (n->shift) {
		unsigned slot = index >> n->shift & SLOT_MASK;
		arena_id child = (arena_id)n->word[slot];
		struct index_node *c;

		if (child) {
			c = index_node(ix, child);
		} else {
			c = node_make(ix, r, object, index, n->shift - INDEX_FANOUT_SHIFT, &child);
			node_join(n, id, slot, c, child);
		}
		id = child;
		n = c;
	}
	return id;
}

/* Only slot 0 of the root is left: its child becomes the root. */
static void tree_shrink(const struct index *ix, struct index_object *o, struct index_reserve *r)
{
	while (o->height > 1) {
		arena_id old = o->root;
		struct index_node *root = index_node(ix, old);

		if (root->bits != 1)
			break;
		o->root = (arena_id)root->word[0];
		o->height--;
		index_node(ix, o->root)->parent = 0;
		root->word[0] = 0;
		index_reserve_add_node(ix, r, old);
	}
}

void radix_unlink(const struct index *ix, struct index_object *o, arena_id leaf,
		  struct index_reserve *r)
{
	arena_id id = leaf;

	while (id) {
		struct index_node *n = index_node(ix, id);
		arena_id parent = n->parent;
		unsigned slot = n->slot;

		if (n->count)
			break;
		tmem_assert(I1, !n->bits);
		index_reserve_add_node(ix, r, id);
		if (parent) {
			struct index_node *p = index_node(ix, parent);

			tmem_assert(I3, p->word[slot] == id);
			p->word[slot] = 0;
			p->bits &= ~(1ull << slot);
			p->count--;
		} else {
			tmem_assert(I3, o->root == id);
			o->root = 0;
			o->height = 0;
		}
		id = parent;
	}
	tree_shrink(ix, o, r);
}
