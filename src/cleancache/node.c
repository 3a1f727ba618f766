/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nodes: the files of the source that the kernel knows by a number, which is the node's address.
 *
 * A node holds its file by a descriptor (O_PATH), so it is the same file whatever it is called
 * now, and its inode number is not given to another one, except by a server far away: then what is
 * asked of the descriptor is answered by ESTALE, and the node is found no more. It lives as long as
 * the kernel has it looked up more often than forgotten, or one of us has a ref: a handle, a read
 * ahead, a child (for its name). The table finds it again by device and inode number.
 *
 * A FUSE source may number its files by their paths (sshfs, object stores): what replaces a file
 * has its number then, and nothing but its identity tells. Who had it open goes on reading the old
 * one, and that is not what others are to find. So where an identity changes under open handles,
 * they keep the node, and the next lookup makes another. That it was changed in place looks the
 * same: no harm comes of a second node then, as long as nobody writes by the first.
 *
 *   N1  lookups + refs > 0  <=>  in its shard's table; it is freed when it leaves that
 *   N2  one node for a device and inode number, but for stale ones, which are not found
 *
 * Descriptors and memory for nodes are both bounded, so there is a most of nodes. From three
 * quarters of it on the kernel is asked to forget names that were not used for a while
 * (cc_nodes_idle(), notify.c): a clock hand a shard passes over nodes that were used since it
 * came by. Who makes new ones naps meanwhile, so that those who forget keep up; where nothing is
 * forgotten in time, the lookup fails. It cannot wait for that in earnest: the kernel holds the
 * folder for the lookup, and wants it to take a name out of it.
 */
#include "cleancache/cleancache.h"

#include "os/check.h"
#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BUCKETS_FIRST 64u
#define OVERHEAD      32u /* of the C library, for two blocks */
#define NAP_NS	      200000ull
#define LONG_NAP_NS   20000000ull
#define LONG_NAPS     50u

static uint64_t hash_of(uint64_t dev, uint64_t ino)
{
	uint64_t h = ino * 0x9e3779b97f4a7c15ull ^ dev * 0xc2b2ae3d27d4eb4full;

	return h ^ h >> 29;
}

static struct cc_shard *shard_of(struct cc_mount *m, uint64_t dev, uint64_t ino)
{
	return &m->shard[hash_of(dev, ino) % CC_SHARDS];
}

static struct cc_node **bucket_of(struct cc_shard *s, uint64_t dev, uint64_t ino)
{
	return &s->bucket[hash_of(dev, ino) / CC_SHARDS & (s->buckets - 1)];
}

static uint64_t cost(const char *name)
{
	return sizeof(struct cc_node) + strlen(name) + 1 + OVERHEAD;
}

const char *cc_fd_path(char buf[CC_FD_PATH], int fd)
{
	snprintf(buf, CC_FD_PATH, "/proc/self/fd/%d", fd);
	return buf;
}

/* ---- the table -------------------------------------------------------------------------- */

/* Twice the buckets, if memory allows; else chains get longer. */
static void grow(struct cc_mount *m, struct cc_shard *s)
{
	uint32_t n = s->buckets * 2, old = s->buckets;
	struct cc_node **was = s->bucket, **bucket;

	if (!cc_charge(m, (uint64_t)old * sizeof(*bucket)))
		return;
	bucket = os_zalloc(n * sizeof(*bucket));
	if (!bucket) {
		cc_uncharge(m, (uint64_t)old * sizeof(*bucket));
		return;
	}
	s->bucket = bucket;
	s->buckets = n;
	for (uint32_t i = 0; i < old; i++)
		for (struct cc_node *n1 = was[i], *next; n1; n1 = next) {
			struct cc_node **at = bucket_of(s, n1->dev, n1->ino);

			next = n1->hash_next;
			n1->hash_next = *at;
			*at = n1;
		}
	os_free(was);
}

static struct cc_node *find(struct cc_shard *s, uint64_t dev, uint64_t ino)
{
	struct cc_node *n = *bucket_of(s, dev, ino);

	while (n && (n->dev != dev || n->ino != ino || n->stale))
		n = n->hash_next;
	return n;
}

static bool has_stale(struct cc_shard *s, uint64_t dev, uint64_t ino)
{
	const struct cc_node *n = *bucket_of(s, dev, ino);

	while (n && (n->dev != dev || n->ino != ino || !n->stale))
		n = n->hash_next;
	return n != NULL;
}

static void insert(struct cc_mount *m, struct cc_shard *s, struct cc_node *n)
{
	struct cc_node **at;

	if (s->nodes >= s->buckets * 2)
		grow(m, s);
	at = bucket_of(s, n->dev, n->ino);
	n->hash_next = *at;
	*at = n;
	s->nodes++;
}

/* Who comes next by that number finds what is known of its data. */
static void take_out(struct cc_mount *m, struct cc_shard *s, struct cc_node *n)
{
	struct cc_node **at = bucket_of(s, n->dev, n->ino);

	if (cc_node_data(n))
		cc_known_keep(m, cc_node_data(n));
	while (*at != n)
		at = &(*at)->hash_next;
	*at = n->hash_next;
	s->nodes--;
}

/* ---- one node --------------------------------------------------------------------------- */

static void count_node(struct cc_mount *m)
{
	uint64_t now = atomic_fetch_add(&m->nodes, 1) + 1, most = atomic_load(&m->nodes_max);

	while (now > most && !atomic_compare_exchange_weak(&m->nodes_max, &most, now))
		;
}

static struct cc_node *make(struct cc_mount *m, int fd, const char *name,
			    const struct cc_look *look)
{
	struct cc_node *n;

	if (!cc_charge(m, cost(name)))
		return NULL;
	n = os_zalloc(sizeof(*n));
	if (n)
		n->name = os_alloc(strlen(name) + 1);
	if (!n || !n->name) {
		os_free(n);
		cc_uncharge(m, cost(name));
		return NULL;
	}
	memcpy(n->name, name, strlen(name) + 1);
	n->dev = look->st.st_dev;
	n->ino = look->st.st_ino;
	n->born_ns = look->born_ns;
	n->incarnation = cc_incarnation(fd, look);
	n->type = look->st.st_mode & S_IFMT;
	n->fd = fd;
	n->automount = look->automount;
	n->watch = -1;
	atomic_init(&n->told, CC_TOLD_NOTHING);
	count_node(m);
	return n;
}

/* Nobody has it any more, and it is not in the table. */
static void discard(struct cc_mount *m, struct cc_node *n)
{
	struct cc_file *f = cc_node_data(n);
	struct cc_node *parent = n->parent;
	uint64_t bytes = cost(n->name);

	cc_unwatch_node(m, n);
	if (f) {
		cc_file_destroy(f);
		os_free(f);
		cc_uncharge(m, sizeof(*f) + OVERHEAD / 2);
	}
	if (n->fd >= 0)
		close(n->fd);
	os_free(n->name);
	os_free(n);
	cc_uncharge(m, bytes);
	atomic_fetch_sub(&m->nodes, 1);
	if (parent)
		cc_node_unref(m, parent);
}

/* Takes lookups and refs away, and the node with the last of them. */
static void let_go(struct cc_mount *m, struct cc_node *n, uint64_t lookups, uint32_t refs)
{
	struct cc_shard *s = shard_of(m, n->dev, n->ino);
	bool last;

	os_mutex_lock(&s->lock);
	n->lookups -= lookups < n->lookups ? lookups : n->lookups;
	n->refs -= refs;
	last = !n->lookups && !n->refs;
	if (last)
		take_out(m, s, n);
	os_mutex_unlock(&s->lock);
	if (last)
		discard(m, n);
}

void cc_node_forget(struct cc_mount *m, struct cc_node *n, uint64_t lookups)
{
	let_go(m, n, lookups, 0);
}

void cc_node_unref(struct cc_mount *m, struct cc_node *n)
{
	let_go(m, n, 0, 1);
}

void cc_node_ref(struct cc_mount *m, struct cc_node *n)
{
	struct cc_shard *s = shard_of(m, n->dev, n->ino);

	os_mutex_lock(&s->lock);
	n->refs++;
	os_mutex_unlock(&s->lock);
}

bool cc_node_try_ref(struct cc_mount *m, struct cc_node *n)
{
	struct cc_shard *s = shard_of(m, n->dev, n->ino);
	bool alive;

	os_mutex_lock(&s->lock);
	alive = n->lookups || n->refs;
	n->refs += alive;
	os_mutex_unlock(&s->lock);
	return alive;
}

/* ---- names ------------------------------------------------------------------------------ */

/* A number that was given to another file since: the old node is not found any more. */
static bool is_other(const struct cc_node *n, const struct cc_look *look)
{
	return n->type != (look->st.st_mode & S_IFMT) ||
	       (n->born_ns && look->born_ns && n->born_ns != look->born_ns);
}

static bool has_names(const struct cc_look *look)
{
	return S_ISREG(look->st.st_mode) && look->st.st_nlink > 1;
}

bool cc_node_is_replaced(struct cc_node *n, const struct cc_look *look, uint32_t mine)
{
	struct cc_file *f = cc_node_data(n);
	bool is;

	if (!n->fuse || n->born_ns || !f || atomic_load(&n->opens) <= mine ||
	    atomic_load(&n->writable))
		return false;
	os_mutex_lock(&f->lock);
	is = f->known && !cc_identity_same(&f->id, &look->id);
	os_mutex_unlock(&f->lock);
	return is;
}

void cc_node_stale(struct cc_mount *m, struct cc_node *n)
{
	struct cc_shard *s = shard_of(m, n->dev, n->ino);

	if (n == m->root)
		return;
	os_mutex_lock(&s->lock);
	n->stale = true;
	os_mutex_unlock(&s->lock);
}

void cc_node_check(struct cc_mount *m, struct cc_node *n, const struct cc_look *look, uint32_t mine)
{
	if (!cc_node_is_replaced(n, look, mine))
		return;
	atomic_store(&n->replaced, true);
	cc_node_stale(m, n);
}

/* The node that a look found, with so much more; NULL: there is none. */
static struct cc_node *known(struct cc_mount *m, const struct cc_look *look, uint64_t lookups,
			     uint32_t refs)
{
	struct cc_shard *s = shard_of(m, look->st.st_dev, look->st.st_ino);
	struct cc_node *n;

	os_mutex_lock(&s->lock);
	n = find(s, look->st.st_dev, look->st.st_ino);
	if (n && cc_node_is_replaced(n, look, 0)) {
		atomic_store(&n->replaced, true);
		n->stale = true;
		n = NULL;
	}
	if (n && is_other(n, look)) {
		n->stale = true;
		n = NULL;
	}
	if (n) {
		n->lookups += lookups;
		n->refs += refs;
		n->used = true;
		if (has_names(look))
			atomic_store(&n->linked, true);
	}
	os_mutex_unlock(&s->lock);
	return n;
}

/* In the table, unless somebody was faster: then theirs, and ours is not needed. */
static struct cc_node *add(struct cc_mount *m, struct cc_node *n)
{
	struct cc_shard *s = shard_of(m, n->dev, n->ino);
	struct cc_node *other;

	os_mutex_lock(&s->lock);
	other = find(s, n->dev, n->ino);
	if (other) {
		other->lookups++;
	} else {
		/* A stale one may put pages yet: they are another object's. */
		if (has_stale(s, n->dev, n->ino))
			n->incarnation ^= ++s->reborn * 0x9e3779b97f4a7c15ull;
		n->lookups = 1;
		n->used = true;
		insert(m, s, n);
	}
	os_mutex_unlock(&s->lock);
	return other ? other : n;
}

int cc_opened(struct cc_mount *m, int rc)
{
	if (rc != -EMFILE && rc != -ENFILE)
		return rc;
	cc_notify_trim(m);
	return -ENFILE;
}

/* A new node makes room for itself first. False: there is none. */
static bool wait_for_room(struct cc_mount *m)
{
	if (!cc_nodes_many(m))
		return true;
	cc_notify_trim(m);
	os_sleep_ns(NAP_NS);
	for (unsigned i = 0; i < LONG_NAPS && atomic_load(&m->nodes) >= m->nodes_most; i++)
		os_sleep_ns(LONG_NAP_NS);
	return atomic_load(&m->nodes) < m->nodes_most;
}

static int new_node(struct cc_mount *m, struct cc_node *dir, const char *name, struct cc_node **out,
		    struct cc_look *look)
{
	struct cc_node *n, *won;
	int rc, fd;

	if (!wait_for_room(m))
		return -ENFILE;
	fd = openat(dir->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	fd = cc_opened(m, fd < 0 ? -errno : fd);
	if (fd < 0)
		return fd;
	/* What was opened, which is perhaps not what was looked at. */
	rc = cc_look_fd(fd, look);
	if (rc == 0) {
		*out = known(m, look, 1, 0);
		if (*out) {
			close(fd);
			return 0;
		}
		n = make(m, fd, name, look);
		rc = n ? 0 : -ENOMEM;
	}
	if (rc) {
		close(fd);
		return rc;
	}
	n->parent = dir;
	atomic_init(&n->linked, has_names(look));
	n->fuse = n->dev == dir->dev ? dir->fuse : cc_is_fuse(fd);
	cc_node_ref(m, dir);
	won = add(m, n);
	if (won != n)
		discard(m, n);
	*out = won;
	return 0;
}

/* By its name: below a descriptor of it is what was there before. */
int cc_node_automount(struct cc_mount *m, struct cc_node *n)
{
	char name[NAME_MAX + 1];
	struct cc_node *parent;
	struct cc_look look = {0};
	int fd, rc;

	if (!n->automount || !cc_node_name(m, n, name, sizeof(name), &parent) || !parent)
		return 0;
	fd = openat(parent->fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	fd = cc_opened(m, fd < 0 ? -errno : fd);
	rc = fd < 0 ? fd : cc_look_fd(fd, &look);
	if (rc == 0 && !look.automount)
		rc = -ESTALE;
	if (fd >= 0)
		close(fd);
	cc_node_unref(m, parent);
	return rc;
}

/*
 * We are mounted somewhere in our source: what we show there would ask us, perhaps the one thread
 * that serves. So where it may be our mount point, the kernel alone is asked what is there.
 */
static int look_at(struct cc_mount *m, struct cc_node *dir, const char *name, struct cc_look *look)
{
	uint64_t own = atomic_load_explicit(&m->own_dev, memory_order_relaxed);
	int rc;

	if (m->point && own && dir->ino == m->point_ino && dir->dev == m->point_dev &&
	    !strcmp(name, m->point) && cc_device_of(dir->fd, name) == own)
		return -ELOOP;
	rc = cc_look_at(dir->fd, name, look);
	return rc == 0 && look->st.st_dev == own ? -ELOOP : rc;
}

int cc_node_lookup(struct cc_mount *m, struct cc_node *dir, const char *name, struct cc_node **out,
		   struct cc_look *look)
{
	int rc = cc_node_automount(m, dir);

	if (rc == 0)
		rc = look_at(m, dir, name, look);
	if (rc)
		return rc;
	*out = known(m, look, 1, 0);
	rc = *out ? 0 : new_node(m, dir, name, out, look);
	if (rc == 0)
		cc_node_called(m, *out, dir, name);
	return rc;
}

struct cc_node *cc_node_find(struct cc_mount *m, struct cc_node *dir, const char *name)
{
	struct cc_look look;

	return look_at(m, dir, name, &look) ? NULL : known(m, &look, 0, 1);
}

struct cc_node *cc_node_of_name(struct cc_mount *m, struct cc_node *dir, const char *name)
{
	const struct cc_look look = {.st.st_dev = dir->dev}; /* and no inode number */
	struct cc_shard *s = shard_of(m, dir->dev, 0);
	struct cc_node *n = make(m, -1, name, &look);

	if (!n)
		return NULL;
	n->stale = true;
	n->refs = 1;
	cc_node_ref(m, dir);
	n->parent = dir;
	os_mutex_lock(&s->lock);
	insert(m, s, n);
	os_mutex_unlock(&s->lock);
	return n;
}

struct cc_file *cc_node_file(struct cc_mount *m, struct cc_node *n)
{
	struct cc_file *f = cc_node_data(n), *none = NULL;
	tmem_oid oid = {{n->ino, n->incarnation, n->dev == m->root->dev ? 0 : n->dev}};

	if (f)
		return f;
	if (!cc_charge(m, sizeof(*f) + OVERHEAD / 2))
		return NULL;
	f = os_zalloc_aligned(sizeof(*f));
	if (f) {
		bool ours;

		cc_file_init(f, &oid);
		/* Numbers that are given out by a process, in the order of lookups, are other
		 * files' in the next one. Where the time of birth is told it tells them apart. */
		f->passing = n->fuse && !n->born_ns;
		/* Who drops a folder's files finds it, or has emptied the identities before. */
		os_mutex_lock(&f->lock);
		ours = atomic_compare_exchange_strong(&n->file, &none, f);
		if (ours)
			cc_known_adopt(m, f);
		os_mutex_unlock(&f->lock);
		if (ours)
			return f;
		cc_file_destroy(f);
		os_free(f);
	}
	cc_uncharge(m, sizeof(*f) + OVERHEAD / 2);
	return none;
}

/* ---- all of them ------------------------------------------------------------------------ */

#define BATCH 64u

/* Nodes of a shard from a bucket on, with a ref each; *bucket: where to go on. */
static unsigned gather(struct cc_shard *s, uint32_t *bucket, struct cc_node **out, unsigned max)
{
	unsigned n = 0;

	os_mutex_lock(&s->lock);
	for (; *bucket < s->buckets; ++*bucket) {
		unsigned k = n;

		for (struct cc_node *at = s->bucket[*bucket]; at && k < max; at = at->hash_next)
			out[k++] = at;
		if (k == max && n)
			break; /* perhaps not all of this bucket: it is the next time's first */
		for (; n < k; n++)
			out[n]->refs++;
	}
	os_mutex_unlock(&s->lock);
	return n;
}

int cc_nodes_each(struct cc_mount *m, int (*fn)(void *arg, struct cc_node *n), void *arg)
{
	struct cc_node *some[BATCH];
	int rc = 0;

	for (unsigned i = 0; i < CC_SHARDS; i++)
		for (uint32_t bucket = 0; bucket < m->shard[i].buckets;) {
			unsigned n = gather(&m->shard[i], &bucket, some, BATCH);

			for (unsigned k = 0; k < n; k++) {
				if (!rc)
					rc = fn(arg, some[k]);
				cc_node_unref(m, some[k]);
			}
			if (!n)
				break;
		}
	return rc;
}

/* A step of the hand over one shard: what was not used since, with a ref. */
static unsigned idle_of(struct cc_mount *m, struct cc_shard *s, struct cc_node **out, unsigned max,
			bool folders)
{
	unsigned n = 0;

	os_mutex_lock(&s->lock);
	for (uint32_t left = s->buckets; left && n < max; left--) {
		for (struct cc_node *at = s->bucket[s->hand & (s->buckets - 1)]; at && n < max;
		     at = at->hash_next) {
			/* Folders go when nothing in them is known any more. */
			if (!at->used && !at->refs && at != m->root &&
			    (folders || at->type != S_IFDIR)) {
				at->refs++;
				out[n++] = at;
			}
			at->used = false;
		}
		s->hand++;
	}
	os_mutex_unlock(&s->lock);
	return n;
}

unsigned cc_nodes_idle(struct cc_mount *m, struct cc_node **out, unsigned max, bool folders)
{
	unsigned n = 0, each = max / CC_SHARDS + 1;

	for (unsigned i = 0; i < CC_SHARDS && n < max; i++)
		n += idle_of(m, &m->shard[i], out + n, max - n < each ? max - n : each, folders);
	return n;
}

void cc_nodes_verify(struct cc_mount *m)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < CC_SHARDS; i++) {
		struct cc_shard *s = &m->shard[i];
		uint64_t here = 0;

		os_mutex_lock(&s->lock);
		for (uint32_t k = 0; k < s->buckets; k++)
			for (const struct cc_node *n = s->bucket[k]; n; n = n->hash_next, here++) {
				tmem_assert(N1, n->lookups || n->refs);
				tmem_assert(N2, n->stale || find(s, n->dev, n->ino) == n);
			}
		tmem_assert(N1, here == s->nodes);
		all += here;
		os_mutex_unlock(&s->lock);
	}
	tmem_assert(N1, all == atomic_load(&m->nodes));
	(void)all;
}

static bool open_shard(struct cc_mount *m, struct cc_shard *s)
{
	os_mutex_init(&s->lock, OS_RANK_CC_NODES, "nodes");
	if (!cc_charge(m, BUCKETS_FIRST * sizeof(*s->bucket)))
		return false;
	s->buckets = BUCKETS_FIRST;
	s->bucket = os_zalloc(BUCKETS_FIRST * sizeof(*s->bucket));
	return s->bucket;
}

int cc_nodes_open(struct cc_mount *m, int root_fd)
{
	bool room = true;
	struct cc_look look;
	int rc = cc_look_fd(root_fd, &look);

	if (rc)
		return rc;
	os_mutex_init(&m->names, OS_RANK_CC_NAMES, "names");
	for (unsigned i = 0; i < CC_SHARDS; i++)
		room = open_shard(m, &m->shard[i]) && room;
	m->root_attr = look.st;
	if (room)
		m->root = make(m, root_fd, "", &look);
	if (!m->root) {
		cc_nodes_close(m);
		return -ENOMEM;
	}
	m->root->fuse = cc_is_fuse(root_fd);
	m->root->lookups = 1; /* the kernel never forgets it */
	insert(m, shard_of(m, m->root->dev, m->root->ino), m->root);
	return 0;
}

void cc_nodes_close(struct cc_mount *m)
{
	for (unsigned i = 0; i < CC_SHARDS; i++) {
		struct cc_shard *s = &m->shard[i];

		for (uint32_t k = 0; s->bucket && k < s->buckets; k++)
			for (struct cc_node *n = s->bucket[k], *next; n; n = next) {
				next = n->hash_next;
				n->parent = NULL;
				if (cc_node_data(n))
					cc_known_keep(m, cc_node_data(n));
				discard(m, n);
			}
		os_free(s->bucket);
		cc_uncharge(m, s->buckets * sizeof(*s->bucket));
		os_mutex_destroy(&s->lock);
	}
	os_mutex_destroy(&m->names);
}
