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
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

void cc_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_handle *h = cc_handle_of(fi);
	const char *data = NULL;
	ssize_t n;

	cc_handle_used(h);
	cc_handle_reads(m, h);
	/* More than max_read is never asked for: less would pass for the end of the file. */
	n = size <= CC_IO_BYTES ? cc_read(m, h, (uint64_t)off, size, &data) : -EINVAL;
	atomic_fetch_add(&h->refs, 1); /* once it is answered it may be closed */
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_buf(req, data, (size_t)n);
	cc_read_end(m);
	cc_handle_put(m, h);
}

static ssize_t write_at(int fd, struct fuse_bufvec *in, size_t size, off_t off)
{
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(size);

	out.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	out.buf[0].fd = fd;
	out.buf[0].pos = off;
	return fuse_buf_copy(&out, in, 0);
}

/* All of it in a buffer of this thread. Bytes, or -errno. */
static ssize_t collect(struct cc_mount *m, struct fuse_bufvec *in, size_t size, char **at)
{
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(size);

	*at = size <= CC_IO_BYTES ? cc_scratch(m) : NULL;
	out.buf[0].mem = *at;
	return *at ? fuse_buf_copy(&out, in, 0) : -ENOMEM;
}

/*
 * What is written back of a mapping. The kernel looks for an error, and not at how much was
 * written: fewer bytes than all are none that anybody would hear of.
 */
static ssize_t write_back(struct cc_mount *m, int fd, struct fuse_bufvec *in, size_t size,
			  off_t off)
{
	ssize_t n, got, done = 0;
	char *at;

	got = collect(m, in, size, &at);
	for (; done < got; done += n) {
		n = pwrite(fd, at + done, (size_t)(got - done), off + done);
		if (n <= 0)
			return n ? -errno : -EIO;
	}
	return got < 0 || got == (ssize_t)size ? got : -EIO;
}

/* Where the source's end is, not where the kernel takes it to be. */
static ssize_t append_to(struct cc_mount *m, int fd, struct fuse_bufvec *in, size_t size)
{
	struct iovec v;
	char *at;
	ssize_t n = collect(m, in, size, &at);

	if (n <= 0)
		return n;
	v = (struct iovec){at, (size_t)n};
	n = pwritev2(fd, &v, 1, 0, RWF_APPEND);
	return n < 0 ? -errno : n;
}

static off_t end_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? -1 : st.st_size;
}

void cc_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
		  struct fuse_file_info *fi)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_node *n = cc_node_of(m, ino);
	struct cc_file *f = cc_node_data(n);
	size_t size = fuse_buf_size(in);
	struct cc_handle *h = cc_handle_of(fi);
	/* What is written back of a mapping goes where it is from. */
	bool append = fi->flags & O_APPEND && !fi->writepage;
	ssize_t done;

	if (h->direct)
		cc_drop_privileges(m, req, h->fd);
	cc_change_begin(m, f);
	done = append	       ? append_to(m, h->fd, in, size)
	       : fi->writepage ? write_back(m, h->fd, in, size, off)
			       : write_at(h->fd, in, size, off);
	cc_change_end(m, f);
	/* The kernel has the bytes where it took the end to be. */
	if (append && done > 0 && end_of(h->fd) != off + done)
		cc_notify_changed(m, n);
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
	struct cc_mount *m = cc_mount_of(req);
	struct cc_file *f = cc_node_data(cc_node_of(m, ino));
	int rc;

	/* Those that move what is behind them FUSE does not pass on. */
	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	cc_change_begin(m, f);
	rc = fallocate(cc_handle_of(fi)->fd, mode, off, len) ? errno : 0;
	cc_change_end(m, f);
	fuse_reply_err(req, rc);
}

void cc_copy_file_range(fuse_req_t req, fuse_ino_t in, off_t off_in, struct fuse_file_info *fi_in,
			fuse_ino_t out, off_t off_out, struct fuse_file_info *fi_out, size_t len,
			int flags)
{
	struct cc_mount *m = cc_mount_of(req);
	struct cc_file *f = cc_node_data(cc_node_of(m, out));
	ssize_t n;

	cc_change_begin(m, f);
	n = copy_file_range(cc_handle_of(fi_in)->fd, &off_in, cc_handle_of(fi_out)->fd, &off_out,
			    len, (unsigned)flags);
	n = n < 0 ? -errno : n;
	cc_change_end(m, f);
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_write(req, (size_t)n);
}

/*
 * A file without holes: all of it is data, up to the end that the source has now. -1 and errno as
 * lseek() has them.
 */
static off_t seek_no_holes(int fd, off_t off, int whence)
{
	off_t end = end_of(fd);

	if (end >= 0 && off >= 0 && off < end)
		return whence == SEEK_DATA ? off : end;
	if (end >= 0)
		errno = ENXIO;
	return -1;
}

/*
 * Holes and data are the source's: they can change without a byte changing. But what was written
 * through a mapping, and is not written back, is a hole there: so a file that is open for writing
 * has none. A mapping keeps its handle open until all of it is written back.
 */
void cc_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct cc_file *f;
	int fd;
	off_t at;

	f = cc_node_data(cc_node_of(cc_mount_of(req), ino));
	fd = cc_handle_of(fi)->fd;
	if ((whence == SEEK_DATA || whence == SEEK_HOLE) && f && cc_has_writers(f))
		at = seek_no_holes(fd, off, whence);
	else
		at = lseek(fd, off, whence);
	if (at < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lseek(req, at);
}
