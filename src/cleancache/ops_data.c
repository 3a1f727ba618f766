/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A file's data: read through the store; changed in the source, after its pages have gone.
 *
 * Every change is bracketed by cc_change_begin() and cc_change_end() (file.c). Nothing that is
 * written is put: the kernel has it, and a write is no sign that it will be read here again.
 */
#include "cleancache/cleancache.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static struct cc_mount *mount_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

void cc_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct cc_mount *m = mount_of(req);
	struct cc_handle *h = cc_handle_enter(fi);
	const char *data = NULL;
	ssize_t n;

	cc_handle_used(h);
	n = cc_read(m, h, (uint64_t)off, size < CC_IO_BYTES ? size : CC_IO_BYTES, &data);
	cc_handle_put(m, h);
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_buf(req, data, (size_t)n);
}

void cc_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
		  struct fuse_file_info *fi)
{
	struct cc_mount *m = mount_of(req);
	struct cc_handle *h = cc_handle_enter(fi);
	struct cc_file *f = cc_node_data(cc_node_of(m, ino));
	size_t size = fuse_buf_size(in);
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(size);
	ssize_t done;

	out.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	out.buf[0].fd = h->fd;
	out.buf[0].pos = off;
	/* Appended where the source's end is, not where the kernel takes it to be. */
	if (fi->flags & O_APPEND)
		cc_change_begin(m, f, 0, UINT64_MAX);
	else
		cc_change_begin(m, f, (uint64_t)off, size);
	done = fuse_buf_copy(&out, in, 0);
	cc_change_end(m, f);
	cc_handle_put(m, h);
	cc_count(m, CC_WRITES, 1);
	if (done < 0) {
		fuse_reply_err(req, (int)-done);
		return;
	}
	cc_count(m, CC_WRITE_BYTES, (uint64_t)done);
	fuse_reply_write(req, (size_t)done);
}

void cc_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
		  struct fuse_file_info *fi)
{
	struct cc_mount *m = mount_of(req);
	struct cc_handle *h = cc_handle_enter(fi);
	struct cc_file *f = cc_node_data(cc_node_of(m, ino));
	/* Ranges that are taken out or put in move what is behind them. */
	bool moves = mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE);
	int rc;

	cc_change_begin(m, f, (uint64_t)off, moves ? UINT64_MAX : (uint64_t)len);
	rc = fallocate(h->fd, mode, off, len) ? errno : 0;
	cc_change_end(m, f);
	cc_handle_put(m, h);
	fuse_reply_err(req, rc);
}

void cc_copy_file_range(fuse_req_t req, fuse_ino_t in, off_t off_in, struct fuse_file_info *fi_in,
			fuse_ino_t out, off_t off_out, struct fuse_file_info *fi_out, size_t len,
			int flags)
{
	struct cc_mount *m = mount_of(req);
	struct cc_handle *from = cc_handle_enter(fi_in), *to = cc_handle_enter(fi_out);
	struct cc_file *f = cc_node_data(cc_node_of(m, out));
	ssize_t n;

	cc_change_begin(m, f, (uint64_t)off_out, len);
	n = copy_file_range(from->fd, &off_in, to->fd, &off_out, len, (unsigned)flags);
	n = n < 0 ? -errno : n;
	cc_change_end(m, f);
	cc_handle_put(m, from);
	cc_handle_put(m, to);
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_write(req, (size_t)n);
}

/* Holes and data are the source's: they can change without a byte changing. */
void cc_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct cc_handle *h = cc_handle_enter(fi);
	off_t at = lseek(h->fd, off, whence);
	int rc = at < 0 ? errno : 0;

	cc_handle_put(mount_of(req), h);
	if (rc)
		fuse_reply_err(req, rc);
	else
		fuse_reply_lseek(req, at);
}
