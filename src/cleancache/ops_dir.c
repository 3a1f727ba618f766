/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Folders: what the source lists, in its order; with readdirplus each name is looked up, too.
 *
 * The place in a folder is the source's own cookie (d_off), so a listing goes on where it was
 * whatever changed meanwhile, as well as the source can. One at a time for each open folder.
 *
 * The root is opened at the source when it is listed, not before: figures are asked for by it, also
 * of a mount whose source is gone or does not answer.
 */
#include "cleancache/cleancache.h"

#include "os/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct folder {
	struct os_mutex lock;
	DIR *dir;	 /* NULL: not open yet */
	off_t at;	 /* the cookie that dir stands at */
	uint64_t buffer; /* of the C library, charged; bytes */
};

#define COST	   sizeof(struct folder)
#define BUFFER_MIN ((uint64_t)32 << 10)
#define BUFFER_MAX ((uint64_t)1 << 20)

static struct folder *folder_of(struct fuse_file_info *fi)
{
	return (struct folder *)(uintptr_t)fi->fh;
}

static void folder_free(struct cc_mount *m, struct folder *d)
{
	if (d->dir)
		closedir(d->dir);
	os_mutex_destroy(&d->lock);
	cc_uncharge(m, d->buffer);
	os_free(d);
	cc_uncharge(m, COST);
	atomic_fetch_sub(&m->handles, 1);
}

/* The C library reads by what the source calls a block, within bounds. */
static uint64_t buffer_of(int fd)
{
	struct statx x;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &x) || x.stx_blksize < BUFFER_MIN)
		return BUFFER_MIN + 64;
	return (x.stx_blksize < BUFFER_MAX ? x.stx_blksize : BUFFER_MAX) + 64;
}

/* With its lock held, or nobody else there yet. 0, or the source's error. */
static int open_source(fuse_req_t req, struct folder *d, const struct cc_node *n)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_caller c = CC_CALLER;
	uint64_t buffer;
	int fd;

	if (d->dir)
		return 0;
	do {
		fd = openat(n->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		fd = fd < 0 ? -errno : fd;
	} while (cc_caller_again(m, req, fd, &c));
	if (fd < 0)
		return -fd;
	buffer = buffer_of(fd);
	if (cc_charge(m, buffer)) {
		d->dir = fdopendir(fd);
		if (d->dir) {
			d->buffer = buffer;
			return 0;
		}
		cc_uncharge(m, buffer);
	}
	close(fd);
	return ENOMEM;
}

void cc_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cc_mount *m = cc_mount_of(req);
	struct folder *d = NULL;
	int rc = -cc_node_automount(m, cc_node_of(m, ino));
	bool charged;

	if (rc) {
		fuse_reply_err(req, rc);
		return;
	}
	charged = cc_charge(m, COST);
	rc = charged ? 0 : ENOMEM;

	if (rc == 0 && !(d = os_zalloc(sizeof(*d))))
		rc = ENOMEM;
	if (rc == 0 && ino != FUSE_ROOT_ID)
		rc = open_source(req, d, cc_node_of(m, ino));
	if (rc == ESTALE)
		cc_node_stale(m, cc_node_of(m, ino));
	if (rc == 0) {
		os_mutex_init(&d->lock, OS_RANK_CC_FOLDER, "folder");
		fi->fh = (uintptr_t)d;
		fi->cache_readdir = fi->keep_cache = m->o->coherence != CC_CLOSE_TO_OPEN;
		atomic_fetch_add(&m->handles, 1);
		if (fuse_reply_open(req, fi))
			folder_free(m, d);
		return;
	}
	os_free(d);
	if (charged)
		cc_uncharge(m, COST);
	fuse_reply_err(req, rc);
}

void cc_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	folder_free(cc_mount_of(req), folder_of(fi));
	fuse_reply_err(req, 0);
}

void cc_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct folder *d = folder_of(fi);
	int rc;

	os_mutex_lock(&d->lock);
	rc = open_source(req, d, cc_node_of(cc_mount_of(req), ino));
	os_mutex_unlock(&d->lock);
	if (rc == 0 && (datasync ? fdatasync(dirfd(d->dir)) : fsync(dirfd(d->dir))))
		rc = errno;
	fuse_reply_err(req, rc);
}

enum how {
	NAMES,	       /* readdir */
	LOOKED_UP,     /* readdirplus */
	NOT_LOOKED_UP, /* its form, without the lookups: the kernel is to make them */
};

/* One entry into the buffer: its bytes, more than `room` if it does not fit; or -errno. */
static ssize_t add(fuse_req_t req, struct cc_node *dir, const struct dirent *e, char *at,
		   size_t room, enum how how)
{
	struct cc_mount *m = cc_mount_of(req);
	struct fuse_entry_param p = {.attr = {.st_mode = (mode_t)e->d_type << 12}};
	bool dots = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
	struct cc_node *n = NULL;
	struct cc_look look;
	size_t bytes;

	p.attr.st_ino = cc_shown_ino(m, &(struct stat){.st_dev = dir->dev, .st_ino = e->d_ino});
	if (how == NAMES)
		return (ssize_t)fuse_add_direntry(req, at, room, e->d_name, &p.attr, e->d_off);
	/* How large it would be, before there is a lookup to give back. */
	bytes = fuse_add_direntry_plus(req, NULL, 0, e->d_name, NULL, 0);
	if (bytes > room)
		return (ssize_t)bytes;
	/* The kernel locks a folder while it is listed, and can forget no name in it meanwhile. */
	if (!dots && how == LOOKED_UP && !cc_nodes_many(m)) {
		int rc = cc_node_lookup(m, dir, e->d_name, &n, &look);

		if (rc == 0 && cc_notify_tells_look(n, &look)) {
			cc_node_forget(m, n, 1);
			rc = -ENOENT;
		}
		/* Gone meanwhile, or no room for it: a name, which is to be looked up. */
		if (rc == 0)
			cc_entry(m, n, &look, &p);
	}
	return (ssize_t)fuse_add_direntry_plus(req, at, room, e->d_name, &p, e->d_off);
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi,
		 enum how how)
{
	struct cc_node *dir = cc_node_of(cc_mount_of(req), ino);
	struct folder *d = folder_of(fi);
	char *buf = os_alloc(size);
	size_t used = 0;
	int rc = 0;

	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	os_mutex_lock(&d->lock);
	rc = open_source(req, d, dir);
	if (rc == 0 && off != d->at) {
		seekdir(d->dir, off);
		d->at = off;
	}
	while (rc == 0) {
		const struct dirent *e;
		ssize_t n;

		errno = 0;
		e = readdir(d->dir);
		if (!e) {
			rc = errno;
			break;
		}
		n = add(req, dir, e, buf + used, size - used, how);
		if ((size_t)n > size - used) {
			seekdir(d->dir, d->at); /* it is the next call's first */
			break;
		}
		used += (size_t)n;
		d->at = e->d_off;
	}
	os_mutex_unlock(&d->lock);
	/* What is in the buffer has been looked up. */
	if (rc && !used)
		fuse_reply_err(req, rc);
	else
		fuse_reply_buf(req, buf, used);
	os_free(buf);
}

void cc_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	list(req, ino, size, off, fi, NAMES);
}

void cc_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	list(req, ino, size, off, fi, LOOKED_UP);
}

void cc_readdirplus_names(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			  struct fuse_file_info *fi)
{
	list(req, ino, size, off, fi, NOT_LOOKED_UP);
}
