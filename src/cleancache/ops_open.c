/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Opening: where the source is asked whether a file is still what it was (C2, C3), and where the
 * kernel is told whether it may keep the pages it has.
 *
 *   close-to-open   each open asks
 *   --ttl           an open asks when nobody has asked for so long
 *   --immutable     the first open asks (and the kernel, for attributes, when it has read; its
 *                   answer is looked at as in the others)
 *
 * The source's file is opened once for each open here, with the caller's flags; so what the source
 * knows of open files (permissions, locks, leases, removal while open) goes on as without us.
 */
#include "cleancache/cleancache.h"

#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/*
 * O_DIRECT would bind our buffers to the source's alignment; O_APPEND would move what is written
 * back for a mapping, and fcntl() can take it away later; links were followed by the kernel.
 */
int cc_open_flags(int flags)
{
	return (flags & ~(O_DIRECT | O_APPEND | O_NOFOLLOW | O_NOCTTY | O_CREAT | O_EXCL)) |
	       O_CLOEXEC;
}

void cc_drop_privileges(struct cc_mount *m, fuse_req_t req, int fd)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	mode_t bits = S_ISUID;
	struct stat st;

	if (!m->as_root || !ctx->uid || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return;
	if (st.st_mode & S_IXGRP)
		bits |= S_ISGID;
	if (st.st_mode & bits)
		(void)fchmod(fd, st.st_mode & 07777 & ~bits);
	(void)fremovexattr(fd, "security.capability");
}

/* ---- handles ---------------------------------------------------------------------------- */

#define COST (sizeof(struct cc_handle) + 16)

int cc_handle_make(struct cc_mount *m, struct cc_node *n, int fd, struct fuse_file_info *fi)
{
	struct cc_handle *h;

	if (n->type == S_IFREG && !cc_node_file(m, n))
		return -ENOMEM;
	if (!cc_charge(m, COST))
		return -ENOMEM;
	h = os_zalloc(sizeof(*h));
	if (!h) {
		cc_uncharge(m, COST);
		return -ENOMEM;
	}
	atomic_fetch_add(&m->handles, 1);
	cc_node_ref(m, n);
	atomic_fetch_add(&n->opens, 1);
	h->node = n;
	h->fd = fd;
	h->direct = fi->flags & O_DIRECT;
	/*
	 * We read ahead; the source's kernel is not to, too. What it has read ahead in one large
	 * folio goes as soon as we have read half of that (RWF_DONTCACHE), and was read for
	 * nothing.
	 */
	if (!h->direct && m->o->readahead_bytes)
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	h->refs = 1;
	fi->fh = (uintptr_t)h;
	fi->direct_io = h->direct;
	h->writes = (fi->flags & O_ACCMODE) != O_RDONLY;
	if (h->writes && n->type == S_IFREG)
		cc_writer_comes(cc_node_data(n));
	cc_watch_node(m, n);
	return 0;
}

/*
 * Nobody writes it any more: who has it open still has its pages kept again from now on, not only
 * when the kernel asks for attributes.
 */
static void look_after_writers(struct cc_mount *m, struct cc_node *n)
{
	struct cc_look look;

	if (atomic_load(&n->opens) && !cc_look_fd(n->fd, &look))
		(void)cc_file_seen(m, cc_node_data(n), &look, CC_ASKED);
}

void cc_handle_put(struct cc_mount *m, struct cc_handle *h)
{
	if (atomic_fetch_sub(&h->refs, 1) != 1)
		return;
	close(h->fd);
	atomic_fetch_sub(&h->node->opens, 1);
	if (h->writes && h->node->type == S_IFREG && cc_writer_goes(cc_node_data(h->node)))
		look_after_writers(m, h->node);
	cc_node_unref(m, h->node);
	os_free(h);
	cc_uncharge(m, COST);
	atomic_fetch_sub(&m->handles, 1);
}

/* ---- open ------------------------------------------------------------------------------- */

static bool must_look(struct cc_mount *m, struct cc_file *f)
{
	bool known;
	uint64_t looked;

	os_mutex_lock(&f->lock);
	known = f->known;
	looked = f->looked_ns;
	os_mutex_unlock(&f->lock);
	switch (m->o->coherence) {
	case CC_IMMUTABLE:
		return !known || !looked;
	case CC_TTL:
		return !known || !looked || os_clock_ns() - looked > m->o->ttl_ns;
	default:
		return true;
	}
}

int cc_handle_look(struct cc_mount *m, struct cc_handle *h, bool *kept)
{
	struct cc_file *f = cc_node_data(h->node);
	struct cc_look l;
	int rc;

	*kept = false;
	if (must_look(m, f)) {
		rc = cc_look_open(h->fd, h->node->fuse, &l);
		if (rc)
			return rc;
		cc_node_check(m, h->node, &l, 1);
		(void)cc_file_seen(m, f, &l, CC_OPENED);
	}
	if (h->writes)
		atomic_store(&h->node->writable, true);
	*kept = cc_kernel_is_fresh(f, &h->version);
	atomic_store(&h->confirms, !*kept);
	return 0;
}

static int open_source(struct cc_mount *m, fuse_req_t req, const char *path, int flags)
{
	struct cc_caller c = CC_CALLER;
	int fd;

	do {
		fd = open(path, flags);
		fd = fd < 0 ? -errno : fd;
	} while (cc_caller_again(m, req, fd, &c));
	return fd;
}

/* Emptied by being opened. */
static int open_truncated(struct cc_mount *m, fuse_req_t req, struct cc_node *n, const char *path,
			  int flags)
{
	struct cc_file *f = cc_node_file(m, n);
	int fd;

	if (!f)
		return -ENOMEM;
	cc_change_begin(m, f);
	fd = open_source(m, req, path, flags);
	cc_change_end(m, f);
	return fd;
}

/*
 * Once: the kernel looks the name up again, and finds the other node. Who comes to this one again
 * has not come by a name (/proc/self/fd).
 */
static bool is_sent_back(fuse_req_t req, struct cc_node *n)
{
	pid_t who = fuse_req_ctx(req)->pid;

	if (!atomic_load(&n->replaced))
		return false;
	if (atomic_exchange(&n->sent_back, who) != who)
		return true;
	atomic_store(&n->sent_back, -1);
	return false;
}

void cc_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_node *n = cc_node_of(m, ino);
	int fd, rc, flags = cc_open_flags(fi->flags);
	char path[CC_FD_PATH];
	bool kept;

	cc_fd_path(path, n->fd);
	if (flags & O_TRUNC && n->type == S_IFREG) {
		fd = open_truncated(m, req, n, path, flags);
	} else {
		fd = open_source(m, req, path, flags);
		/* It may be a file that can only be appended to. */
		if (fd == -EPERM && fi->flags & O_APPEND)
			fd = open_source(m, req, path, flags | O_APPEND);
	}
	fd = cc_opened(m, fd);
	if (fd == -ESTALE)
		cc_node_stale(m, n);
	if (fd >= 0 && flags & O_TRUNC)
		cc_drop_privileges(m, req, fd);
	rc = fd < 0 ? fd : cc_handle_make(m, n, fd, fi);
	if (rc) {
		if (fd >= 0)
			close(fd);
		fuse_reply_err(req, -rc);
		return;
	}
	rc = cc_handle_look(m, cc_handle_of(fi), &kept);
	if (rc == 0 && is_sent_back(req, n))
		rc = -ESTALE;
	if (rc) {
		cc_handle_put(m, cc_handle_of(fi));
		fuse_reply_err(req, -rc);
		return;
	}
	fi->keep_cache = kept;
	if (!kept) {
		cc_notify_forget(m, n);
		cc_notify_promise(m, cc_handle_of(fi));
	}
	cc_count(m, CC_OPENS, 1);
	cc_count(m, CC_OPENS_KEPT, kept);
	if (fuse_reply_open(req, fi))
		cc_handle_put(m, cc_handle_of(fi));
}

/* Each close() of a descriptor: the source may have an error to tell, of what was written. */
void cc_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cc_mount *m = cc_mount_of(req);
	int fd = dup(cc_handle_of(fi)->fd), rc;

	fd = cc_opened(m, fd < 0 ? -errno : fd);
	rc = fd < 0 ? -fd : 0;
	cc_handle_used(cc_handle_of(fi));
	cc_locks_closed(m, cc_node_of(m, ino), fi->lock_owner);
	if (fd >= 0 && close(fd))
		rc = errno;
	fuse_reply_err(req, rc);
}

void cc_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_handle *h = cc_handle_of(fi);

	/* Reads ahead may keep the handle for a while: its locks go now. */
	if (fi->flock_release)
		(void)flock(h->fd, LOCK_UN);
	cc_locks_released(m, h);
	cc_notify_closed(m, h);
	cc_handle_put(m, h);
	fuse_reply_err(req, 0);
}

void cc_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	int fd;

	(void)cc_mount_of(req);
	fd = cc_handle_of(fi)->fd;
	fuse_reply_err(req, (datasync ? fdatasync(fd) : fsync(fd)) ? errno : 0);
}
