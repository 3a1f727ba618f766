/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Names: looking them up, making, renaming and removing what they name.
 *
 * What is made belongs to who asked (caller.c).
 */
#include "cleancache/cleancache.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- entries ---------------------------------------------------------------------------- */

void cc_entry(struct cc_mount *m, struct cc_node *n, const struct cc_look *look,
	      struct fuse_entry_param *e)
{
	struct cc_file *f = cc_node_data(n);

	*e = (struct fuse_entry_param){.ino = cc_ino_of(m, n),
				       .attr = look->st,
				       .attr_timeout = m->attr_s,
				       .entry_timeout = cc_way_trust(m, n)};
	e->attr.st_ino = cc_shown_ino(m, &look->st);
	if (f)
		(void)cc_file_seen(m, f, look, CC_ASKED);
}

/* A lookup that nobody will forget. */
static void give_back(struct cc_mount *m, struct cc_node *n)
{
	cc_node_forget(m, n, 1);
}

static int look_up(struct cc_mount *m, struct cc_node *dir, const char *name,
		   struct fuse_entry_param *e, struct cc_node **n)
{
	struct cc_look look;
	int rc = cc_node_lookup(m, dir, name, n, &look);

	if (rc)
		return rc;
	rc = cc_notify_tells_look(*n, &look);
	if (rc) {
		give_back(m, *n);
		*n = NULL;
		return rc;
	}
	cc_entry(m, *n, &look, e);
	return 0;
}

/* The same, if need be by who asks. */
static int look_up_for(fuse_req_t req, struct cc_node *dir, const char *name,
		       struct fuse_entry_param *e, struct cc_node **n)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_caller c = CC_CALLER;
	unsigned tries = 0;
	int rc;

	do {
		rc = look_up(m, dir, name, e, n);
		tries++;
	} while (cc_caller_again(m, req, rc, &c));
	if (rc == 0 && tries > 1)
		cc_way_distrust(m, *n, e);
	return rc;
}

static void reply_entry(fuse_req_t req, struct cc_node *dir, const char *name, int rc)
{
	struct cc_mount *m = cc_mount_of(req);
	struct fuse_entry_param e;
	struct cc_node *n;

	if (rc == 0)
		rc = look_up_for(req, dir, name, &e, &n);
	if (rc)
		fuse_reply_err(req, -rc);
	else if (fuse_reply_entry(req, &e))
		give_back(m, n);
}

void cc_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct cc_mount *m = cc_mount_of(req);
	struct fuse_entry_param none = {.entry_timeout = m->entry_s}, e;
	struct cc_node *dir = cc_node_of(m, parent), *n;
	int rc = cc_way_check(req, dir, name);

	cc_count(m, CC_LOOKUPS, 1);
	if (rc == 0)
		rc = look_up_for(req, dir, name, &e, &n);
	if (rc == -ENOENT && m->entry_s > 0)
		fuse_reply_entry(req, &none); /* that there is none may be remembered */
	else if (rc)
		fuse_reply_err(req, -rc);
	else if (fuse_reply_entry(req, &e))
		give_back(m, n);
}

/* ---- making ----------------------------------------------------------------------------- */

void cc_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_node *dir = cc_node_of(m, parent);
	struct cc_caller c;
	int rc = cc_caller_begin(m, req, &c);

	if (rc == 0) {
		rc = mknodat(dir->fd, name, mode, rdev) ? -errno : 0;
		cc_caller_end(&c);
	}
	reply_entry(req, dir, name, rc);
}

void cc_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_node *dir = cc_node_of(m, parent);
	struct cc_caller c;
	int rc = cc_caller_begin(m, req, &c);

	if (rc == 0) {
		rc = mkdirat(dir->fd, name, mode) ? -errno : 0;
		cc_caller_end(&c);
	}
	reply_entry(req, dir, name, rc);
}

void cc_symlink(fuse_req_t req, const char *to, fuse_ino_t parent, const char *name)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_node *dir = cc_node_of(m, parent);
	struct cc_caller c;
	int rc = cc_caller_begin(m, req, &c);

	if (rc == 0) {
		rc = symlinkat(to, dir->fd, name) ? -errno : 0;
		cc_caller_end(&c);
	}
	reply_entry(req, dir, name, rc);
}

void cc_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_node *n = cc_node_of(m, ino), *dir = cc_node_of(m, parent);
	struct cc_caller c = CC_CALLER;
	char path[CC_FD_PATH];
	int rc;

	cc_fd_path(path, n->fd);
	do /* by its descriptor's name: AT_EMPTY_PATH wants a capability */
		rc = linkat(AT_FDCWD, path, dir->fd, name, AT_SYMLINK_FOLLOW) ? -errno : 0;
	while (cc_caller_again(m, req, rc, &c));
	reply_entry(req, dir, name, rc);
}

static bool is_open_file(const struct cc_node *n, int fd)
{
	struct cc_look look;

	return cc_look_fd(fd, &look) == 0 && S_ISREG(look.st.st_mode) && n->type == S_IFREG &&
	       n->dev == look.st.st_dev && n->ino == look.st.st_ino;
}

/*
 * Opens what it makes, or the file that another has made meanwhile; see ops_open.c for what an open
 * is. The kernel took the name to be free: if it is by now a link, or something else, or changes
 * under our hands, the answer is ESTALE, and the kernel looks again before it decides.
 */
void cc_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_node *dir = cc_node_of(m, parent), *n = NULL;
	struct fuse_entry_param e;
	struct cc_caller c;
	int fd = -1, rc = cc_caller_begin(m, req, &c);

	if (rc == 0) {
		fd = openat(dir->fd, name,
			    cc_open_flags(fi->flags) | O_CREAT | O_NOFOLLOW | O_NONBLOCK |
				    (fi->flags & O_EXCL),
			    mode);
		rc = fd >= 0 ? 0 : errno == ELOOP || errno == ENXIO ? -ESTALE : -errno;
		cc_caller_end(&c);
		rc = cc_opened(m, rc);
	}
	if (rc == 0)
		rc = look_up_for(req, dir, name, &e, &n);
	if (rc == 0)
		rc = is_open_file(n, fd) ? 0 : -ESTALE;
	if (rc == 0)
		rc = cc_handle_make(m, n, fd, fi);
	if (rc == 0) {
		bool kept;

		rc = cc_handle_look(m, cc_handle_of(fi), &kept);
		fi->keep_cache = kept;
		if (rc == 0 && fuse_reply_create(req, &e, fi) == 0)
			return;
		cc_handle_put(m, cc_handle_of(fi));
		fd = -1;
	}
	if (n)
		give_back(m, n);
	if (fd >= 0)
		close(fd);
	if (rc) /* else it was answered, and nobody was there */
		fuse_reply_err(req, -rc);
}

/* ---- removing and renaming -------------------------------------------------------------- */

/*
 * The data of a file whose last name goes is of no use, unless somebody has it open, and then
 * it is dropped with the node, too late to matter. The number may be another file's soon.
 */
static void removed(struct cc_mount *m, struct cc_node *n)
{
	struct cc_look look;
	struct cc_file *f;

	if (!n)
		return;
	f = cc_node_data(n);
	if (f && !cc_look_fd(n->fd, &look) && !look.st.st_nlink) {
		cc_change_begin(m, f);
		cc_change_end(m, f);
	}
	cc_node_unref(m, n);
}

static int unlink_at(fuse_req_t req, struct cc_node *dir, const char *name, int flags)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_caller c = CC_CALLER;
	int rc;

	do
		rc = unlinkat(dir->fd, name, flags) ? -errno : 0;
	while (cc_caller_again(m, req, rc, &c));
	return rc;
}

void cc_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_node *dir = cc_node_of(m, parent), *n = cc_node_find(m, dir, name);
	int rc = unlink_at(req, dir, name, 0);

	removed(m, n);
	fuse_reply_err(req, -rc);
}

void cc_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct cc_node *dir = cc_node_of(cc_mount_of(req), parent);
	int rc = cc_way_check(req, dir, NULL);

	if (rc == 0)
		rc = unlink_at(req, dir, name, AT_REMOVEDIR);
	fuse_reply_err(req, -rc);
}

void cc_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
	       const char *newname, unsigned flags)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_node *from = cc_node_of(m, parent), *to = cc_node_of(m, newparent);
	struct cc_node *n, *over;
	struct cc_caller c = CC_CALLER;
	int rc = cc_way_check(req, from, NULL);

	if (rc == 0)
		rc = cc_way_check(req, to, NULL);
	if (rc) {
		fuse_reply_err(req, -rc);
		return;
	}
	n = cc_node_find(m, from, name);
	over = cc_node_find(m, to, newname);
	do
		rc = renameat2(from->fd, name, to->fd, newname, flags) ? -errno : 0;
	while (cc_caller_again(m, req, rc, &c));
	if (rc == 0 && n)
		cc_node_renamed(m, n, to, newname);
	if (rc == 0 && over && flags & RENAME_EXCHANGE)
		cc_node_renamed(m, over, from, name);
	removed(m, over);
	if (n)
		cc_node_unref(m, n);
	fuse_reply_err(req, -rc);
}
