/* SPDX-License-Identifier: BSD-2-Clause */
/* What a file is, but for its data: attributes, extended ones, access, the file system's figures.
 */
#include "cleancache/cleancache.h"

#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

/* ours: after a change of them through the mount. */
static void reply_attr(fuse_req_t req, struct cc_node *n, int fd, bool ours)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_file *f = cc_node_data(n);
	struct cc_look look;
	int rc = cc_look_fd(fd >= 0 ? fd : n->fd, &look);

	if (rc == 0)
		rc = cc_notify_tells_look(n, &look);
	if (rc) {
		if (rc == -ESTALE)
			cc_node_stale(m, n);
		fuse_reply_err(req, -rc);
		return;
	}
	if (!ours)
		cc_node_check(m, n, &look, 0);
	if (f)
		(void)cc_file_seen(m, f, &look, CC_ASKED);
	look.st.st_ino = cc_shown_ino(m, &look.st);
	fuse_reply_attr(req, &look.st, m->attr_s);
}

void cc_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cc_mount *m = cc_mount_of(req);

	reply_attr(req, cc_node_of(m, ino), fi ? cc_handle_of(fi)->fd : -1, false);
}

/* ---- changing them ---------------------------------------------------------------------- */

/* A file was looked up to be changed; a folder perhaps not, and is not to be another's place. */
static int come_to(fuse_req_t req, struct cc_node *n)
{
	return n->type == S_IFDIR ? cc_way_check(req, n, NULL) : 0;
}

static int set_owner(struct cc_node *n, const struct stat *a, int to_set)
{
	uid_t uid = to_set & FUSE_SET_ATTR_UID ? a->st_uid : (uid_t)-1;
	gid_t gid = to_set & FUSE_SET_ATTR_GID ? a->st_gid : (gid_t)-1;

	return fchownat(n->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int set_size(struct cc_mount *m, struct cc_node *n, int fd, uint64_t size)
{
	struct cc_file *f = cc_node_data(n);
	char path[CC_FD_PATH];
	int rc;

	if (f)
		cc_change_begin(m, f);
	rc = fd >= 0 ? ftruncate(fd, (off_t)size) : truncate(cc_fd_path(path, n->fd), (off_t)size);
	rc = rc ? -errno : 0;
	if (f)
		cc_change_end(m, f);
	return rc;
}

static struct timespec time_of(int to_set, int set, int now, struct timespec t)
{
	if (to_set & now)
		return (struct timespec){.tv_nsec = UTIME_NOW};
	return to_set & set ? t : (struct timespec){.tv_nsec = UTIME_OMIT};
}

/*
 * A time of modification set by hand is the one way to make two states of a file look alike on
 * purpose; the time of change cannot be set, so the identity differs all the same.
 */
static int set_times(struct cc_node *n, const struct stat *a, int to_set)
{
	struct timespec t[2] = {
		time_of(to_set, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, a->st_atim),
		time_of(to_set, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, a->st_mtim),
	};

	return utimensat(n->fd, "", t, AT_EMPTY_PATH) ? -errno : 0;
}

static int set(struct cc_mount *m, struct cc_node *n, int fd, const struct stat *a, int to_set)
{
	char path[CC_FD_PATH];
	int rc = 0;

	if (to_set & FUSE_SET_ATTR_MODE && chmod(cc_fd_path(path, n->fd), a->st_mode))
		rc = -errno;
	if (rc == 0 && to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		rc = set_owner(n, a, to_set);
	if (rc == 0 && to_set & FUSE_SET_ATTR_SIZE)
		rc = set_size(m, n, fd, (uint64_t)a->st_size);
	if (rc == 0 && to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME |
				 FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW))
		rc = set_times(n, a, to_set);
	return rc;
}

void cc_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *a, int to_set,
		struct fuse_file_info *fi)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_node *n = cc_node_of(m, ino);
	int fd = fi ? cc_handle_of(fi)->fd : -1, rc = come_to(req, n);
	struct cc_caller c = CC_CALLER;

	if (rc) {
		fuse_reply_err(req, -rc);
		return;
	}
	do
		rc = set(m, n, fd, a, to_set);
	while (cc_caller_again(m, req, rc, &c));
	if (rc)
		fuse_reply_err(req, -rc);
	else
		reply_attr(req, n, fd, true);
}

/* ---- the rest --------------------------------------------------------------------------- */

void cc_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char to[PATH_MAX + 1];
	ssize_t n = readlinkat(cc_node_of(cc_mount_of(req), ino)->fd, "", to, sizeof(to));

	if (n < 0 || n == (ssize_t)sizeof(to)) {
		fuse_reply_err(req, n < 0 ? errno : ENAMETOOLONG);
		return;
	}
	to[n] = 0;
	fuse_reply_readlink(req, to);
}

/* Asked only where the kernel does not judge by mode bits itself: without other callers. */
void cc_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	char path[CC_FD_PATH];
	struct cc_node *n = cc_node_of(cc_mount_of(req), ino);

	fuse_reply_err(req, access(cc_fd_path(path, n->fd), mask) ? errno : 0);
}

void cc_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct cc_mount *m = cc_mount_of(req);
	struct statvfs s;

	if (fstatvfs(cc_node_of(m, ino ? ino : FUSE_ROOT_ID)->fd, &s))
		fuse_reply_err(req, errno);
	else
		fuse_reply_statfs(req, &s);
}

/* A link itself has no path to it but its descriptor's, and most file systems no attributes for it.
 */
static bool has_none(const struct cc_node *n)
{
	return n->type == S_IFLNK;
}

/*
 * The kernel asks for an owner's rights, or an administrator's, before it passes on most
 * attributes. Those in system.* it leaves to the file system to judge, but for POSIX ACLs: NFSv4
 * ACLs are there. So the source is asked by who asks us. A POSIX ACL is changed by who asks, too:
 * it sets mode bits, and from one who is not in the file's group the source then takes the
 * set-group-id bit. Where we cannot be who asks, what he may do is not ours to say: he may not.
 */
static int begin(fuse_req_t req, const char *name, bool changes, struct cc_caller *c)
{
	struct cc_mount *m = cc_mount_of(req);
	uid_t uid = fuse_req_ctx(req)->uid;
	bool judged = !strncmp(name, "system.posix_acl_", 17);

	*c = (struct cc_caller){.became = false};
	if (strncmp(name, "system.", 7) != 0 || (judged && !changes))
		return 0;
	if (!judged && !m->as_root && uid && uid != geteuid())
		return changes ? -EPERM : -EOPNOTSUPP;
	return cc_caller_begin(m, req, c);
}

void cc_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags)
{
	struct cc_node *n = cc_node_of(cc_mount_of(req), ino);
	char path[CC_FD_PATH];
	struct cc_caller c;
	int rc = has_none(n) ? -EPERM : come_to(req, n);

	if (rc == 0)
		rc = begin(req, name, true, &c);
	if (rc == 0) {
		rc = setxattr(cc_fd_path(path, n->fd), name, value, size, flags) ? -errno : 0;
		cc_caller_end(&c);
	}
	fuse_reply_err(req, -rc);
}

void cc_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct cc_node *n = cc_node_of(cc_mount_of(req), ino);
	char path[CC_FD_PATH];
	struct cc_caller c;
	int rc = has_none(n) ? -EPERM : come_to(req, n);

	if (rc == 0)
		rc = begin(req, name, true, &c);
	if (rc == 0) {
		rc = removexattr(cc_fd_path(path, n->fd), name) ? -errno : 0;
		cc_caller_end(&c);
	}
	fuse_reply_err(req, -rc);
}

/* name NULL: the list of names. size 0: how much it would be. */
static void reply_xattr(fuse_req_t req, struct cc_node *n, const char *name, size_t size)
{
	char path[CC_FD_PATH], *buf = NULL;
	struct cc_caller c;
	ssize_t got;

	if (has_none(n)) {
		if (name)
			fuse_reply_err(req, ENODATA);
		else if (size)
			fuse_reply_buf(req, NULL, 0);
		else
			fuse_reply_xattr(req, 0);
		return;
	}
	if (size && !(buf = os_alloc(size))) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	cc_fd_path(path, n->fd);
	got = begin(req, name ? name : "", false, &c);
	if (got == 0) {
		got = name ? getxattr(path, name, buf, size) : listxattr(path, buf, size);
		got = got < 0 ? -errno : got;
		cc_caller_end(&c);
	}
	if (got < 0)
		fuse_reply_err(req, (int)-got);
	else if (size)
		fuse_reply_buf(req, buf, (size_t)got);
	else
		fuse_reply_xattr(req, (size_t)got);
	os_free(buf);
}

void cc_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	reply_xattr(req, cc_node_of(cc_mount_of(req), ino), name, size);
}

void cc_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	reply_xattr(req, cc_node_of(cc_mount_of(req), ino), NULL, size);
}
