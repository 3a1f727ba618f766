/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What nodes are called: each has the name and the folder that it was last seen by. Renames through
 * the mount say so, and lookups, which find what others have moved in the source. The names are for
 * telling the kernel which to forget, and for finding what is in a folder.
 *
 * A node has a ref of its folder, so above a node all are alive; and no folder is above itself,
 * however the source has moved folders about.
 */
#include "cleancache/cleancache.h"

#include "os/mem.h"

#include <string.h>

bool cc_node_name(struct cc_mount *m, struct cc_node *n, char *name, size_t room,
		  struct cc_node **parent)
{
	bool fits;

	os_mutex_lock(&m->names);
	fits = strlen(n->name) < room;
	*parent = fits ? n->parent : NULL;
	if (fits)
		memcpy(name, n->name, strlen(n->name) + 1);
	if (*parent)
		cc_node_ref(m, *parent); /* the node has one: it is alive */
	os_mutex_unlock(&m->names);
	return fits;
}

bool cc_node_is_under(struct cc_mount *m, struct cc_node *n, struct cc_node *dir)
{
	if (atomic_load(&n->linked))
		return true;
	os_mutex_lock(&m->names);
	while (n && n != dir)
		n = n->parent;
	os_mutex_unlock(&m->names);
	return n != NULL;
}

void cc_node_renamed(struct cc_mount *m, struct cc_node *n, struct cc_node *dir, const char *name)
{
	size_t len = strlen(name) + 1;
	const struct cc_node *up;
	struct cc_node *was;
	char *copy, *old;

	/* Names are for trimming: an old one that is left costs a descriptor. */
	if (!cc_charge(m, len))
		return;
	copy = os_alloc(len);
	if (!copy) {
		cc_uncharge(m, len);
		return;
	}
	memcpy(copy, name, len);
	cc_node_ref(m, dir);
	os_mutex_lock(&m->names);
	/* The source may have moved folders about without us: not into a ring. */
	for (up = dir; up && up != n; up = up->parent)
		;
	if (up) {
		os_mutex_unlock(&m->names);
		cc_uncharge(m, len);
		os_free(copy);
		cc_node_unref(m, dir);
		return;
	}
	was = n->parent;
	old = n->name;
	n->parent = dir;
	n->name = copy;
	os_mutex_unlock(&m->names);
	cc_uncharge(m, strlen(old) + 1);
	os_free(old);
	if (was)
		cc_node_unref(m, was);
}

void cc_node_called(struct cc_mount *m, struct cc_node *n, struct cc_node *dir, const char *name)
{
	bool is;

	os_mutex_lock(&m->names);
	is = n == m->root || (n->parent == dir && !strcmp(n->name, name));
	os_mutex_unlock(&m->names);
	if (!is)
		cc_node_renamed(m, n, dir, name);
}
