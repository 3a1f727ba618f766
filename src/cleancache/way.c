/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ways: folders that the kernel goes through without asking.
 *
 * Under close-to-open a name is asked for each time that it is used, and a path is mostly folders:
 * for each file that `git status` looks at there were four more lookups, of the same few folders,
 * each a request of its own. So the kernel may go by a folder's name for FOLDER_S. That it still is
 * that folder's we see ourselves, when it has got to where it was going: what is on the way up from
 * there is looked at in the source, which is a small part of what a request costs.
 *
 *   W1  a lookup is answered only if every folder above it, up to the root, had the name then that
 *       the kernel may have come by, or the kernel could not have come by it
 *
 * Who has been led astray is answered ESTALE, on which the kernel goes the whole way again and
 * asks for each name (LOOKUP_REVAL), from the root on, where nobody is astray. Two things in this
 * cannot be seen from here. A name that the kernel knows it asks for twice, and the first answer
 * does not count: an error only makes it forget what it knew. And who stands in a folder, or has it
 * open, comes without its name, asks just the same, and is not astray wherever the folder has gone;
 * to be told so twice would be an error to him. So ESTALE is said once or twice on end to a thread,
 * as the name is known or not; whoever is still astray then stands below that folder, and is let
 * go on there for STANDS_NS. In a folder that was removed nothing is found, and it is always twice.
 *
 * What is asked of a folder itself (its attributes, whether it is there) is up to FOLDER_S old.
 */
#include "cleancache/cleancache.h"

#include "os/clock.h"

#include <errno.h>
#include <limits.h>

#define FOLDER_S  0.1
/* Its time begins when the kernel has read our answer, which may be long after we gave it. */
#define WAY_NS	  2000000000ull
#define STANDS_NS 20000000ull

static struct os_mutex turned = OS_MUTEX_INIT(OS_RANK_LEAF, "who was sent back");

/*
 * What mounts itself when it is used is to be asked for. A FUSE source may give a folder another
 * number each time that it is asked for, and then nobody would ever be on his way.
 */
double cc_way_trust(struct cc_mount *m, struct cc_node *n)
{
	if (m->o->coherence != CC_CLOSE_TO_OPEN || n->type != S_IFDIR || n->automount || n->fuse)
		return m->entry_s;
	atomic_store_explicit(&n->way_ns, os_clock_ns() + WAY_NS, memory_order_relaxed);
	return FOLDER_S;
}

void cc_way_distrust(struct cc_mount *m, struct cc_node *n, struct fuse_entry_param *e)
{
	e->entry_timeout = m->entry_s;
	atomic_store_explicit(&n->way_ns, 0, memory_order_relaxed);
}

/* n: not the root. False: its name is another's by now, nobody's, or not for us to see. */
static bool has_its_name(struct cc_mount *m, struct cc_node *n)
{
	struct cc_node *parent = NULL, *has;
	char name[NAME_MAX + 1];

	if (!cc_node_name(m, n, name, sizeof(name), &parent) || !parent)
		return false;
	has = cc_node_find(m, parent, name);
	if (has)
		cc_node_unref(m, has);
	cc_node_unref(m, parent);
	return has == n;
}

/* Its folder, with a ref; NULL: it is the root. */
static struct cc_node *folder_of(struct cc_mount *m, struct cc_node *n)
{
	struct cc_node *up;

	os_mutex_lock(&m->names);
	up = n->parent;
	if (up)
		cc_node_ref(m, up); /* n has one */
	os_mutex_unlock(&m->names);
	return up;
}

/* From n up the first that has not its name any more, only to be compared; NULL: all have it. */
static const struct cc_node *astray_at(struct cc_mount *m, struct cc_node *n)
{
	uint64_t now = os_clock_ns();
	const struct cc_node *astray = NULL;

	cc_node_ref(m, n); /* the kernel knows it, or has it open */
	while (n && !astray) {
		struct cc_node *up = folder_of(m, n);

		if (up && atomic_load_explicit(&n->way_ns, memory_order_relaxed) > now &&
		    !has_its_name(m, n))
			astray = n;
		cc_node_unref(m, n);
		n = up;
	}
	if (n)
		cc_node_unref(m, n);
	return astray;
}

/* So often on end is who asks for this sent back. */
static unsigned times(struct cc_mount *m, struct cc_node *dir, const char *name)
{
	struct cc_node *known;
	struct cc_look look;

	if (!name)
		return 1;
	if (cc_look_fd(dir->fd, &look) || !look.st.st_nlink)
		return 2;
	known = cc_node_find(m, dir, name);
	if (known)
		cc_node_unref(m, known);
	return known ? 2 : 1;
}

/* Under the lock. */
static bool goes_back(struct cc_turned *t, pid_t who, const struct cc_node *at, unsigned most)
{
	uint64_t now = os_clock_ns();

	if (atomic_load(&t->who) != who || t->at != at) {
		t->at = at;
		t->times = 0;
		t->stands_ns = 0;
		atomic_store(&t->who, who);
	}
	if (now < t->stands_ns)
		return false;
	/* A name that was known is forgotten by the first answer. */
	if (!t->times || t->most < most)
		t->most = most;
	if (t->times >= t->most) {
		t->times = 0;
		t->stands_ns = now + STANDS_NS;
		return false;
	}
	t->times++;
	return true;
}

int cc_way_check(fuse_req_t req, struct cc_node *dir, const char *name)
{
	struct cc_mount *m = cc_mount_of(req);
	pid_t who = fuse_req_ctx(req)->pid;
	struct cc_turned *t = &m->turned[(unsigned)who % CC_TURNED];
	const struct cc_node *at;
	unsigned most;
	bool back;

	if (m->o->coherence != CC_CLOSE_TO_OPEN)
		return 0;
	at = astray_at(m, dir);
	if (!at) {
		if (atomic_load(&t->who) != who)
			return 0;
		os_mutex_lock(&turned);
		t->times = 0; /* on its way again */
		os_mutex_unlock(&turned);
		return 0;
	}
	most = times(m, dir, name);
	os_mutex_lock(&turned);
	back = goes_back(t, who, at, most);
	os_mutex_unlock(&turned);
	cc_count(m, CC_ASTRAY, back);
	return back ? -ESTALE : 0;
}
