/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * .tmem: a folder of figures in the mount's root, read like those of /sys.
 *
 *   .tmem/stats/NAME     one figure of the mount: a number and a newline
 *   .tmem/files/PATH     the figures of the file PATH, "name value" lines
 *
 * It is found by its name and not listed, so that who copies the mount does not copy it; with
 * --no-control it is not there.
 *
 * Its numbers are ones that no node has: nodes are addresses, so even. Small ones are .tmem, its
 * two folders, and the figures; the twin of a node below files/ is the node's own with the lowest
 * bit set (the root's is files/ itself), and lives as long, by the same lookups.
 *
 * What FUSE calls comes here first (cc_ops): a number of ours is answered here, as something that
 * can be read and not changed; everything else goes on to where it is done.
 */
#include "cleancache/cleancache.h"

#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NAME	    ".tmem"
#define INO_CONTROL 2u
#define INO_STATS   4u
#define INO_FIGURE  16u /* and two more for each */
#define INO_MOST    4096u
#define FILE_BYTES  4096 /* what /sys says of its files */

static bool is_ours(fuse_ino_t ino)
{
	return ino != FUSE_ROOT_ID && (ino < INO_MOST || ino & 1);
}

bool cc_is_control(fuse_req_t req, fuse_ino_t in, const char *name)
{
	return in == FUSE_ROOT_ID && !cc_mount_of(req)->o->no_control && !strcmp(name, NAME);
}

static bool is_twin(fuse_ino_t ino)
{
	return ino >= INO_MOST;
}

static struct cc_node *node_of(fuse_ino_t twin)
{
	return (struct cc_node *)(uintptr_t)(twin & ~(fuse_ino_t)1);
}

static bool is_folder(fuse_ino_t ino)
{
	return is_twin(ino) ? node_of(ino)->type == S_IFDIR : ino < INO_FIGURE;
}

static struct fuse_entry_param entry_of(struct cc_mount *m, fuse_ino_t ino)
{
	struct fuse_entry_param e = {.ino = ino};

	e.attr = m->root_attr; /* its times, and whose it is */
	/* No address of ours, and not the number of the file that it tells of. */
	e.attr.st_ino = is_twin(ino) ? node_of(ino)->ino ^ 1ull << 63 : ino;
	e.attr.st_mode = is_folder(ino) ? S_IFDIR | 0555 : S_IFREG | 0444;
	/* Names and sizes are told here without asking who may know: for others they are not. */
	if (m->o->allow_other) {
		e.attr.st_mode &= ~(mode_t)0077;
		e.attr.st_uid = geteuid();
	}
	e.attr.st_nlink = 1;
	e.attr.st_size = is_folder(ino) ? 0 : FILE_BYTES;
	e.attr.st_blocks = 0;
	return e;
}

/* ---- figures ---------------------------------------------------------------------------- */

/* The k-th line of a text: its name, and where its value is; false: it has no more. */
static bool line_of(const char *text, unsigned k, char name[64], const char **value)
{
	for (; *text; text = strchr(text, '\n') + 1) {
		if (k--)
			continue;
		snprintf(name, 64, "%.*s", (int)strcspn(text, " "), text);
		*value = text + strcspn(text, " ") + 1;
		return true;
	}
	return false;
}

static fuse_ino_t figure_of(struct cc_mount *m, const char *name)
{
	char text[CC_TEXT_MAX], is[64];
	const char *value;

	cc_text_mount(m, text, sizeof(text));
	for (unsigned k = 0; line_of(text, k, is, &value); k++)
		if (!strcmp(is, name))
			return INO_FIGURE + 2 * k;
	return 0;
}

/* What a file of ours says now. Bytes. */
static size_t content_of(struct cc_mount *m, fuse_ino_t ino, char text[CC_TEXT_MAX])
{
	char all[CC_TEXT_MAX], name[64];
	const char *value;

	*text = 0;
	if (is_twin(ino)) {
		cc_text_file(m, node_of(ino), text, CC_TEXT_MAX);
	} else {
		cc_text_mount(m, all, sizeof(all));
		if (line_of(all, (unsigned)(ino - INO_FIGURE) / 2, name, &value))
			snprintf(text, CC_TEXT_MAX, "%.*s\n", (int)strcspn(value, "\n"), value);
	}
	return strlen(text);
}

/* ---- names ------------------------------------------------------------------------------ */

static void our_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct cc_mount *m = cc_mount_of(req);
	struct fuse_entry_param e;
	struct cc_node *n = NULL;
	struct cc_look look;
	fuse_ino_t ino = 0;
	int rc = 0;

	if (is_twin(parent)) {
		atomic_store(&m->twins, true);
		rc = cc_node_lookup(m, node_of(parent), name, &n, &look);
		ino = rc ? 0 : cc_twin_of(n);
	} else if (parent == INO_CONTROL) {
		ino = !strcmp(name, "stats")   ? INO_STATS
		      : !strcmp(name, "files") ? cc_twin_of(m->root)
					       : 0;
	} else {
		ino = figure_of(m, name);
	}
	if (!ino) {
		fuse_reply_err(req, rc ? -rc : ENOENT);
		return;
	}
	e = entry_of(m, ino);
	if (fuse_reply_entry(req, &e) && n)
		cc_node_forget(m, n, 1);
}

static void lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct cc_mount *m = cc_mount_of(req);

	if (is_ours(parent)) {
		our_lookup(req, parent, name);
	} else if (cc_is_control(req, parent, name)) {
		struct fuse_entry_param e = entry_of(m, INO_CONTROL);

		fuse_reply_entry(req, &e);
	} else {
		cc_lookup(req, parent, name);
	}
}

/* Of ours only twins of nodes are counted, and the root is never forgotten. */
static void forget_one(struct cc_mount *m, fuse_ino_t ino, uint64_t n)
{
	if (!is_ours(ino))
		cc_node_forget(m, cc_node_of(m, ino), n);
	else if (is_twin(ino) && node_of(ino) != m->root)
		cc_node_forget(m, node_of(ino), n);
}

static void forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	forget_one(cc_mount_of(req), ino, n);
	fuse_reply_none(req);
}

static void forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *f)
{
	for (size_t i = 0; i < count; i++)
		forget_one(cc_mount_of(req), f[i].ino, f[i].nlookup);
	fuse_reply_none(req);
}

static void getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_entry_param e;

	if (!is_ours(ino)) {
		cc_getattr(req, ino, fi);
		return;
	}
	e = entry_of(cc_mount_of(req), ino);
	fuse_reply_attr(req, &e.attr, 0);
}

/* ---- files of ours: what they say is drawn when they are opened ------------------------- */

static void close_ours(struct cc_mount *m, char *text)
{
	os_free(text);
	cc_uncharge(m, CC_TEXT_MAX);
	atomic_fetch_sub(&m->handles, 1);
}

static void open_ours(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cc_mount *m = cc_mount_of(req);
	bool charged = cc_charge(m, CC_TEXT_MAX);
	char *text = charged ? os_alloc(CC_TEXT_MAX) : NULL;

	if (!text) {
		if (charged)
			cc_uncharge(m, CC_TEXT_MAX);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	atomic_fetch_add(&m->handles, 1);
	(void)content_of(m, ino, text);
	fi->fh = (uintptr_t)text;
	fi->direct_io = 1;
	if (fuse_reply_open(req, fi))
		close_ours(m, text);
}

static void open_any(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (!is_ours(ino))
		cc_open(req, ino, fi);
	else if ((fi->flags & O_ACCMODE) != O_RDONLY)
		fuse_reply_err(req, EACCES);
	else
		open_ours(req, ino, fi);
}

static void read_any(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	const char *text = (const char *)(uintptr_t)fi->fh;
	size_t n;

	if (!is_ours(ino)) {
		cc_op_read(req, ino, size, off, fi);
		return;
	}
	n = strlen(text);
	if ((size_t)off >= n)
		size = 0;
	else if (size > n - (size_t)off)
		size = n - (size_t)off;
	fuse_reply_buf(req, size ? text + off : NULL, size);
}

static void release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (!is_ours(ino)) {
		cc_release(req, ino, fi);
		return;
	}
	close_ours(cc_mount_of(req), (char *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

static void flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (is_ours(ino))
		fuse_reply_err(req, 0);
	else
		cc_flush(req, ino, fi);
}

/* ---- folders of ours -------------------------------------------------------------------- */

/* files/ lists what the source lists: there a folder's handle is the source's. */
static void opendir_any(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (!is_ours(ino))
		cc_opendir(req, ino, fi);
	else if (is_twin(ino))
		cc_opendir_names(req, cc_ino_of(cc_mount_of(req), node_of(ino)), fi);
	else
		fuse_reply_open(req, fi);
}

static void releasedir_any(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (!is_ours(ino) || is_twin(ino))
		cc_releasedir(req, ino, fi);
	else
		fuse_reply_err(req, 0);
}

/* The k-th name in .tmem, or in stats/; false: there are no more. */
static bool name_in(struct cc_mount *m, fuse_ino_t ino, const char *text, unsigned k, char name[64],
		    fuse_ino_t *is)
{
	static const char *const control[] = {"stats", "files"};
	const char *value;

	if (ino == INO_CONTROL) {
		*is = k ? cc_twin_of(m->root) : INO_STATS;
		if (k < 2)
			snprintf(name, 64, "%s", control[k]);
		return k < 2;
	}
	*is = INO_FIGURE + 2 * k;
	return line_of(text, k, name, &value);
}

/* plus: in the form of readdirplus, without lookups: the kernel makes them by name. */
static void list_ours(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	struct cc_mount *m = cc_mount_of(req);
	char text[CC_TEXT_MAX], name[64], *buf = os_alloc(size);
	size_t used = 0;
	fuse_ino_t is;

	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	cc_text_mount(m, text, sizeof(text));
	for (unsigned k = (unsigned)off; name_in(m, ino, text, k, name, &is); k++) {
		struct fuse_entry_param e = entry_of(m, is);
		size_t n;

		e.ino = 0;
		n = plus ? fuse_add_direntry_plus(req, buf + used, size - used, name, &e,
						  (off_t)k + 1)
			 : fuse_add_direntry(req, buf + used, size - used, name, &e.attr,
					     (off_t)k + 1);
		if (n > size - used)
			break;
		used += n;
	}
	fuse_reply_buf(req, buf, used);
	os_free(buf);
}

static void readdir_any(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			struct fuse_file_info *fi)
{
	if (!is_ours(ino))
		cc_readdir(req, ino, size, off, fi);
	else if (is_twin(ino))
		cc_readdir(req, cc_ino_of(cc_mount_of(req), node_of(ino)), size, off, fi);
	else
		list_ours(req, ino, size, off, false);
}

static void readdirplus_any(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			    struct fuse_file_info *fi)
{
	if (!is_ours(ino))
		cc_readdirplus(req, ino, size, off, fi);
	else if (is_twin(ino))
		cc_readdirplus_names(req, cc_ino_of(cc_mount_of(req), node_of(ino)), size, off, fi);
	else
		list_ours(req, ino, size, off, true);
}

/* ---- everything else cannot be done to ours --------------------------------------------- */

#define REFUSED(name, test, error, params, args)                                                   \
	static void name##_any params                                                              \
	{                                                                                          \
		if (test)                                                                          \
			fuse_reply_err(req, error);                                                \
		else                                                                               \
			cc_##name args;                                                            \
	}

REFUSED(setattr, is_ours(ino), EACCES,
	(fuse_req_t req, fuse_ino_t ino, struct stat *a, int set, struct fuse_file_info *fi),
	(req, ino, a, set, fi))
REFUSED(readlink, is_ours(ino), EINVAL, (fuse_req_t req, fuse_ino_t ino), (req, ino))
REFUSED(mknod, is_ours(in) || cc_is_control(req, in, name), EACCES,
	(fuse_req_t req, fuse_ino_t in, const char *name, mode_t mode, dev_t dev),
	(req, in, name, mode, dev))
REFUSED(mkdir, is_ours(in) || cc_is_control(req, in, name), EACCES,
	(fuse_req_t req, fuse_ino_t in, const char *name, mode_t mode), (req, in, name, mode))
REFUSED(symlink, is_ours(in) || cc_is_control(req, in, name), EACCES,
	(fuse_req_t req, const char *to, fuse_ino_t in, const char *name), (req, to, in, name))
REFUSED(link, is_ours(ino) || is_ours(in) || cc_is_control(req, in, name), EACCES,
	(fuse_req_t req, fuse_ino_t ino, fuse_ino_t in, const char *name), (req, ino, in, name))
REFUSED(unlink, is_ours(in) || cc_is_control(req, in, name), EACCES,
	(fuse_req_t req, fuse_ino_t in, const char *name), (req, in, name))
REFUSED(rmdir, is_ours(in) || cc_is_control(req, in, name), EACCES,
	(fuse_req_t req, fuse_ino_t in, const char *name), (req, in, name))
REFUSED(rename,
	is_ours(in) || is_ours(to) || cc_is_control(req, in, name) ||
		cc_is_control(req, to, newname),
	EACCES,
	(fuse_req_t req, fuse_ino_t in, const char *name, fuse_ino_t to, const char *newname,
	 unsigned flags),
	(req, in, name, to, newname, flags))
REFUSED(create, is_ours(in) || cc_is_control(req, in, name), EACCES,
	(fuse_req_t req, fuse_ino_t in, const char *name, mode_t mode, struct fuse_file_info *fi),
	(req, in, name, mode, fi))
REFUSED(setxattr, is_ours(ino), EACCES,
	(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
	 int flags),
	(req, ino, name, value, size, flags))
REFUSED(getxattr, is_ours(ino), ENODATA,
	(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size), (req, ino, name, size))
REFUSED(removexattr, is_ours(ino), EACCES, (fuse_req_t req, fuse_ino_t ino, const char *name),
	(req, ino, name))
REFUSED(access, is_ours(ino), mask &W_OK ? EACCES : 0, (fuse_req_t req, fuse_ino_t ino, int mask),
	(req, ino, mask))
REFUSED(fsync, is_ours(ino), 0,
	(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi),
	(req, ino, datasync, fi))
REFUSED(fsyncdir, is_ours(ino), 0,
	(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi),
	(req, ino, datasync, fi))
REFUSED(write_buf, is_ours(ino), EACCES,
	(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
	 struct fuse_file_info *fi),
	(req, ino, in, off, fi))
REFUSED(fallocate, is_ours(ino), EACCES,
	(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi),
	(req, ino, mode, off, len, fi))
REFUSED(copy_file_range, is_ours(in) || is_ours(out), EXDEV,
	(fuse_req_t req, fuse_ino_t in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t out,
	 off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags),
	(req, in, off_in, fi_in, out, off_out, fi_out, len, flags))
REFUSED(lseek, is_ours(ino), EINVAL,
	(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi),
	(req, ino, off, whence, fi))
REFUSED(getlk, is_ours(ino), ENOLCK,
	(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock),
	(req, ino, fi, lock))
REFUSED(setlk, is_ours(ino), ENOLCK,
	(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep),
	(req, ino, fi, lock, sleep))
REFUSED(flock, is_ours(ino), ENOLCK,
	(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op), (req, ino, fi, op))
REFUSED(ioctl, is_ours(ino), ENOTTY,
	(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
	 unsigned flags, const void *in, size_t in_bytes, size_t out_bytes),
	(req, ino, cmd, arg, fi, flags, in, in_bytes, out_bytes))

/* There are none; how much room they take, or all of them. */
static void listxattr_any(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	if (!is_ours(ino))
		cc_listxattr(req, ino, size);
	else if (size)
		fuse_reply_buf(req, NULL, 0);
	else
		fuse_reply_xattr(req, 0);
}

static void statfs_any(fuse_req_t req, fuse_ino_t ino)
{
	cc_statfs(req, is_ours(ino) ? FUSE_ROOT_ID : ino);
}

const struct fuse_lowlevel_ops cc_ops = {
	.init = cc_init,
	.lookup = lookup,
	.forget = forget,
	.forget_multi = forget_multi,
	.getattr = getattr,
	.setattr = setattr_any,
	.readlink = readlink_any,
	.mknod = mknod_any,
	.mkdir = mkdir_any,
	.symlink = symlink_any,
	.link = link_any,
	.unlink = unlink_any,
	.rmdir = rmdir_any,
	.rename = rename_any,
	.create = create_any,
	.open = open_any,
	.read = read_any,
	.write_buf = write_buf_any,
	.flush = flush,
	.release = release,
	.fsync = fsync_any,
	.opendir = opendir_any,
	.readdir = readdir_any,
	.readdirplus = readdirplus_any,
	.releasedir = releasedir_any,
	.fsyncdir = fsyncdir_any,
	.statfs = statfs_any,
	.setxattr = setxattr_any,
	.getxattr = getxattr_any,
	.listxattr = listxattr_any,
	.removexattr = removexattr_any,
	.access = access_any,
	.getlk = getlk_any,
	.setlk = setlk_any,
	.flock = flock_any,
	.fallocate = fallocate_any,
	.copy_file_range = copy_file_range_any,
	.lseek = lseek_any,
	.ioctl = ioctl_any,
};
