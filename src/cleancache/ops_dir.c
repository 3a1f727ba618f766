/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Folders: what the source lists, in its order; with readdirplus each name is looked up, too.
 *
 * The place in a folder is the source's own cookie (d_off), so a listing goes on where it was
 * whatever changed meanwhile, as well as the source can. One at a time for each open folder.
 *
 * What the kernel may keep. It takes a listing for right as long as the folder's mtime is what it
 * was, so the trap of identity.c is there for folders, too. Under --ttl it is told to keep one only
 * where the folder is what it was when that listing was begun, and a change since would show:
 *
 *   D1  is_listed  =>  the listing that the kernel has, or is getting, was read
 *       after a settled look that saw `listed`
 *   D2  listing handles were all opened under one `listed`, or is_listed is false
 *       until they close: pages of two listings are never mixed
 *
 * The root's is not kept then: it is not looked at when it is opened, for what comes next.
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
	DIR *dir;		/* NULL: not open yet */
	off_t at;		/* the cookie that dir stands at */
	uint64_t buffer;	/* of the C library, charged; bytes */
	struct cc_node *caches; /* counted in its `listing` */
};

/* For what nodes know of listings. */
static struct os_mutex listings = OS_MUTEX_INIT(OS_RANK_LEAF, "listings");

#define COST	   sizeof(struct folder)
#define BUFFER_MIN ((uint64_t)32 << 10)
#define BUFFER_MAX ((uint64_t)1 << 20)

static struct folder *folder_of(struct fuse_file_info *fi)
{
	return (struct folder *)(uintptr_t)fi->fh;
}

static void folder_free(struct cc_mount *m, struct folder *d)
{
	if (d->caches) {
		os_mutex_lock(&listings);
		d->caches->listing--;
		os_mutex_unlock(&listings);
	}
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
	fd = cc_opened(m, fd);
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

/* Says in fi what the kernel may keep of a folder that was just opened at the source. */
static void say_what_to_keep(struct cc_mount *m, struct cc_node *n, struct folder *d,
			     struct fuse_file_info *fi)
{
	bool settled, same;
	struct cc_look look;

	fi->cache_readdir = fi->keep_cache = m->o->coherence == CC_IMMUTABLE;
	if (m->o->coherence != CC_TTL || !d->dir)
		return;
	settled = !cc_look_open(dirfd(d->dir), n->fuse, &look) &&
		  cc_look_is_settled(&look, cc_grain_of(m, &look));
	os_mutex_lock(&listings);
	same = settled && n->is_listed && cc_identity_same(&n->listed, &look.id);
	n->is_listed = same || (settled && !n->listing); /* D2 */
	if (n->is_listed) {
		n->listed = look.id;
		n->listing++;
		d->caches = n;
	}
	fi->cache_readdir = n->is_listed;
	fi->keep_cache = same; /* else it drops what it has */
	os_mutex_unlock(&listings);
}

static void open_folder(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, bool keeps)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_node *n = cc_node_of(m, ino);
	struct folder *d = NULL;
	int rc = -cc_way_check(req, n, NULL);
	bool charged;

	if (rc == 0)
		rc = -cc_node_automount(m, n);
	if (rc) {
		fuse_reply_err(req, rc);
		return;
	}
	charged = cc_charge(m, COST);
	rc = charged ? 0 : ENOMEM;

	if (rc == 0 && !(d = os_zalloc(sizeof(*d))))
		rc = ENOMEM;
	if (rc == 0 && ino != FUSE_ROOT_ID)
		rc = open_source(req, d, n);
	if (rc == ESTALE)
		cc_node_stale(m, n);
	if (rc == 0) {
		os_mutex_init(&d->lock, OS_RANK_CC_FOLDER, "folder");
		fi->fh = (uintptr_t)d;
		if (keeps)
			say_what_to_keep(m, n, d, fi);
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

void cc_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	open_folder(req, ino, fi, true);
}

/* By another number, of whose listing nothing is known. */
void cc_opendir_names(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	open_folder(req, ino, fi, false);
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
		if (cc_is_control(req, ino, e->d_name)) { /* ours is there, and not listed */
			d->at = e->d_off;
			continue;
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
