/* SPDX-License-Identifier: BSD-2-Clause */
/* What a mount is told and asked by ioctl() on any of its files; see mount.h. */
#include "cleancache/cleancache.h"

#include "os/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const counter_name[CC_COUNTERS] = {
	[CC_READS] = "reads",
	[CC_READ_BYTES] = "read_bytes",
	[CC_HITS] = "hits",
	[CC_MISSES] = "misses",
	[CC_AHEAD] = "read_ahead",
	[CC_SOURCE_READS] = "source_reads",
	[CC_SOURCE_BYTES] = "source_bytes",
	[CC_SOURCE_ERRORS] = "source_errors",
	[CC_REFUSED] = "refused",
	[CC_STALE] = "changed_meanwhile",
	[CC_DROPS] = "files_changed",
	[CC_YOUNG_DROPS] = "files_young",
	[CC_LOOKUPS] = "lookups",
	[CC_ASTRAY] = "astray",
	[CC_OPENS] = "opens",
	[CC_OPENS_KEPT] = "opens_kept",
	[CC_WRITES] = "writes",
	[CC_WRITE_BYTES] = "write_bytes",
	[CC_INVALIDATIONS] = "invalidations",
	[CC_TRIMMED] = "trimmed",
	[CC_DAMAGED] = "damaged",
};

struct text {
	char *at;
	size_t room;
};

static void say(struct text *t, const char *name, uint64_t value)
{
	int n = snprintf(t->at, t->room, "%s %" PRIu64 "\n", name, value);

	if (n > 0 && (size_t)n < t->room) {
		t->at += n;
		t->room -= (size_t)n;
	}
}

void cc_text_mount(struct cc_mount *m, char *buf, size_t room)
{
	struct text t = {buf, room};
	tmem_stats s = {.size = sizeof(s)};

	*buf = 0;
	(void)tmem_host_stats(m->host, &s);
	say(&t, "pid", (uint64_t)getpid());
	say(&t, "size", m->account.size);
	say(&t, "fixed", m->account.fixed);
	say(&t, "nodes_bytes", atomic_load(&m->account.used));
	say(&t, "store_limit", s.limit_bytes);
	say(&t, "store_bytes", s.store_bytes);
	say(&t, "store_peak", s.store_peak_bytes);
	say(&t, "pages", s.pages);
	say(&t, "compressed_bytes", s.compressed_bytes);
	say(&t, "same_filled", s.same_filled_pages);
	say(&t, "evicted", s.evicted_pages);
	say(&t, "nodes", atomic_load(&m->nodes));
	say(&t, "nodes_max", atomic_load(&m->nodes_max));
	for (unsigned k = 0; k < CC_COUNTERS; k++)
		say(&t, counter_name[k], atomic_load(&m->counter[k]));
}

void cc_text_file(struct cc_mount *m, struct cc_node *n, char *buf, size_t room)
{
	struct cc_file *f = cc_node_data(n);
	struct text t = {buf, room};

	*buf = 0;
	if (!f) {
		say(&t, "opened", 0);
		return;
	}
	os_mutex_lock(&f->lock);
	say(&t, "opened", 1);
	say(&t, "known", f->known);
	say(&t, "young", f->young);
	say(&t, "size", f->id.size);
	os_mutex_unlock(&f->lock);
	say(&t, "hits", atomic_load(&f->hits));
	say(&t, "misses", atomic_load(&f->misses));
	say(&t, "read_ahead", atomic_load(&f->ahead));
	say(&t, "refused", atomic_load(&f->refused));
	say(&t, "dropped", atomic_load(&f->drops));
}

void cc_verify(struct cc_mount *m)
{
	tmem_stats s = {.size = sizeof(s)};

	cc_nodes_verify(m);
	cc_known_verify(m);
	(void)tmem_host_stats(m->host, &s);
	tmem_assert(M1, m->account.fixed + atomic_load(&m->account.used) + s.limit_bytes <=
				m->account.size);
	/* Without memory it says nothing. */
	tmem_assert(T, tmem_host_verify(m->host, 0) != -EINVAL);
}

/* ---- invalidation ----------------------------------------------------------------------- */

struct under {
	struct cc_mount *m;
	struct cc_node *dir;
	int files;
};

/* What was never opened has attributes, links and listings that the kernel keeps, and a name. */
static int invalidate(struct cc_mount *m, struct cc_node *n)
{
	struct cc_file *f = cc_node_data(n);

	if (f) {
		cc_file_forget(m, f);
		cc_count(m, CC_INVALIDATIONS, 1);
	}
	if (n->type != S_IFDIR)
		cc_notify_changed(m, n);
	cc_notify_name(m, n);
	return f != NULL;
}

static int invalidate_under(void *arg, struct cc_node *n)
{
	struct under *u = arg;

	if (cc_node_is_under(u->m, n, u->dir))
		u->files += invalidate(u->m, n);
	return 0;
}

static int invalidate_path(struct cc_mount *m, struct cc_node *n)
{
	struct under u = {.m = m, .dir = n};

	if (n->type == S_IFDIR) {
		cc_known_drop_begin(m);
		(void)cc_nodes_each(m, invalidate_under, &u);
		cc_known_drop_end(m);
	} else {
		u.files = invalidate(m, n);
	}
	cc_notify_names_wait(m);
	return u.files;
}

/* A name that nobody has, as far as the kernel knows. 0 or -errno. */
static int forget_name(struct cc_mount *m, struct cc_node *dir, const struct cc_name *name)
{
	struct cc_node *n;

	if (dir->type != S_IFDIR)
		return -ENOTDIR;
	if (!*name->name || !memchr(name->name, 0, sizeof(name->name)) || strchr(name->name, '/'))
		return -EINVAL;
	n = cc_node_of_name(m, dir, name->name);
	if (!n)
		return -ENOMEM;
	cc_notify_name(m, n);
	cc_node_unref(m, n);
	cc_notify_names_wait(m);
	return 0;
}

static void reply_done(fuse_req_t req, int rc)
{
	if (rc)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
}

/* For others .tmem is not either. */
static void reply_text(fuse_req_t req, struct cc_node *n, bool saves, bool maker)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_text text = {""};

	if (!maker) {
		fuse_reply_err(req, EPERM);
		return;
	}
	if (saves)
		snprintf(text.text, sizeof(text.text), "%s", m->o->save ? m->o->save : "");
	else if (n->type == S_IFDIR)
		cc_text_mount(m, text.text, sizeof(text.text));
	else
		cc_text_file(m, n, text.text, sizeof(text.text));
	fuse_reply_ioctl(req, 0, &text, sizeof(text));
}

void cc_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
	      unsigned flags, const void *in, size_t in_bytes, size_t out_bytes)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_node *n = cc_node_of(m, ino);
	uid_t who = fuse_req_ctx(req)->uid;
	bool maker = !who || who == geteuid();

	if (cmd == (unsigned)CC_IOC_INVALIDATE && (maker || n->type != S_IFDIR))
		fuse_reply_ioctl(req, invalidate_path(m, n), NULL, 0);
	else if (cmd == (unsigned)CC_IOC_INVALIDATE)
		fuse_reply_err(req, EPERM); /* of files that he may not even see */
	else if (cmd == (unsigned)CC_IOC_FORGET && in_bytes == sizeof(struct cc_name))
		reply_done(req, forget_name(m, n, in));
	else if ((cmd == (unsigned)CC_IOC_STAT || cmd == (unsigned)CC_IOC_SAVES) &&
		 out_bytes == sizeof(struct cc_text))
		reply_text(req, n, cmd == (unsigned)CC_IOC_SAVES, maker);
	else
		fuse_reply_err(req, ENOTTY);
}
