/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * e2e-faulty FAULTS SOURCE MOUNTPOINT
 *
 * The folder SOURCE, with faults: a source for `tmem mount` as network file systems are on bad
 * days. The file FAULTS is read at each operation; each of its lines is a fault, the first that
 * fits counts:
 *
 *   OPERATION NAME FROM TO WHAT [N]
 *
 *   OPERATION  open, read, write, getattr, readdir, lock
 *   NAME       the end of the path, or *
 *   FROM TO    bytes of the file, for read and write: what touches them
 *   WHAT       an error's number; "short": no more than N bytes at once; "delay": N ms late;
 *              "hang": until no line says so any more
 *
 * In the foreground until it is unmounted. Nothing is kept by the kernel, so that each look reaches
 * it; FAULTY_KEEPS=N in the environment: attributes are, for N seconds. FAULTY_NUMBERS=1: files are
 * numbered as they are looked up, and their ctime is their mtime, as sshfs has it. FAULTY_BLOCK=N:
 * so many bytes are best read at once. FAULTY_SQUASH=1: root is nobody, as NFS has it. Who asks for
 * extended attributes is written to FAULTS.xattr: UID NAME.
 */
#define FUSE_USE_VERSION 35
#include <fuse.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *faults, *source;

/* ---- the faults ------------------------------------------------------------------------- */

struct fault {
	char what[16];
	unsigned long n;
};

static int ends_with(const char *path, const char *end)
{
	size_t a = strlen(path), b = strlen(end);

	return !strcmp(end, "*") || (a >= b && !strcmp(path + a - b, end));
}

static int find(const char *op, const char *path, uint64_t from, uint64_t to, struct fault *out)
{
	FILE *f = fopen(faults, "r");
	char line[512], o[16], name[256];
	unsigned long a, b;
	int found = 0;

	while (f && !found && fgets(line, sizeof(line), f)) {
		out->n = 0;
		if (sscanf(line, "%15s %255s %lu %lu %15s %lu", o, name, &a, &b, out->what,
			   &out->n) >= 5 &&
		    !strcmp(o, op) && ends_with(path, name) && from <= b && a <= to)
			found = 1;
	}
	if (f)
		fclose(f);
	return found;
}

/* 0, or the error to be met; *most: bytes at once. */
static int fault(const char *op, const char *path, uint64_t from, uint64_t to, size_t *most)
{
	struct fault f;

	while (find(op, path, from, to, &f)) {
		if (!strcmp(f.what, "hang")) {
			usleep(20000); /* until the line is gone from the file */
			continue;
		}
		if (!strcmp(f.what, "delay")) {
			usleep((useconds_t)f.n * 1000); /* the fault itself */
			return 0;
		}
		if (!strcmp(f.what, "short")) {
			if (most && *most > f.n)
				*most = f.n;
			return 0;
		}
		return -atoi(f.what);
	}
	return 0;
}

static char *under(char *to, const char *path)
{
	snprintf(to, PATH_MAX, "%s%s", source, path);
	return to;
}

static int result(int rc)
{
	return rc < 0 ? -errno : 0;
}

/* What is not for others (4: to read, 2: to change) is not for root. */
static int squashed(const char *path, mode_t bits)
{
	char real[PATH_MAX];
	struct stat st;

	if (!getenv("FAULTY_SQUASH") || fuse_get_context()->uid || lstat(under(real, path), &st))
		return 0;
	return (st.st_mode & bits) == bits ? 0 : -EACCES;
}

/* The same of the folder that it is in. */
static int squashed_in(const char *path)
{
	char dir[PATH_MAX];

	snprintf(dir, sizeof(dir), "%.*s", (int)(strrchr(path, '/') - path), path);
	return squashed(dir, 02);
}

/* ---- the operations --------------------------------------------------------------------- */

static void *f_init(struct fuse_conn_info *conn, struct fuse_config *c)
{
	(void)conn;
	c->use_ino = !getenv("FAULTY_NUMBERS");
	c->entry_timeout = c->negative_timeout = 0;
	c->attr_timeout = getenv("FAULTY_KEEPS") ? atoi(getenv("FAULTY_KEEPS")) : 0;
	c->hard_remove = 1;
	return NULL;
}

static int f_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	char real[PATH_MAX];
	int rc = fault("getattr", path, 0, 0, NULL);

	if (rc)
		return rc;
	rc = result(fi ? fstat((int)fi->fh, st) : lstat(under(real, path), st));
	if (getenv("FAULTY_NUMBERS"))
		st->st_ctim = st->st_mtim;
	if (getenv("FAULTY_BLOCK"))
		st->st_blksize = atoi(getenv("FAULTY_BLOCK"));
	return rc;
}

static int f_readdir(const char *path, void *buf, fuse_fill_dir_t filler, off_t offset,
		     struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	char real[PATH_MAX];
	int rc = fault("readdir", path, 0, 0, NULL);
	struct dirent *e;
	DIR *d;

	(void)offset, (void)fi, (void)flags;
	if (rc)
		return rc;
	d = opendir(under(real, path));
	if (!d)
		return -errno;
	while ((e = readdir(d)))
		filler(buf, e->d_name, NULL, 0, (enum fuse_fill_dir_flags)0);
	closedir(d);
	return 0;
}

static int f_opendir(const char *path, struct fuse_file_info *fi)
{
	(void)fi;
	return squashed(path, 04);
}

static int f_open(const char *path, struct fuse_file_info *fi)
{
	char real[PATH_MAX];
	int rc = fault("open", path, 0, 0, NULL), fd;

	if (rc == 0)
		rc = squashed(path, (fi->flags & O_ACCMODE) == O_RDONLY ? 04 : 06);
	if (rc)
		return rc;
	fd = open(under(real, path), fi->flags & ~(O_CREAT | O_EXCL | O_NOFOLLOW));
	fi->fh = (uint64_t)fd;
	fi->direct_io = 1;
	return fd < 0 ? -errno : 0;
}

static int f_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	char real[PATH_MAX];
	int fd = open(under(real, path), fi->flags, mode);

	fi->fh = (uint64_t)fd;
	fi->direct_io = 1;
	return fd < 0 ? -errno : 0;
}

static int f_read(const char *path, char *buf, size_t n, off_t at, struct fuse_file_info *fi)
{
	int rc = fault("read", path, (uint64_t)at, (uint64_t)at + n - 1, &n);
	ssize_t got;

	if (rc)
		return rc;
	got = pread((int)fi->fh, buf, n, at);
	return got < 0 ? -errno : (int)got;
}

static int f_write(const char *path, const char *buf, size_t n, off_t at, struct fuse_file_info *fi)
{
	int rc = fault("write", path, (uint64_t)at, (uint64_t)at + n - 1, &n);
	ssize_t got;

	if (rc)
		return rc;
	got = pwrite((int)fi->fh, buf, n, at);
	return got < 0 ? -errno : (int)got;
}

static int f_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	char real[PATH_MAX];

	return result(fi ? ftruncate((int)fi->fh, size) : truncate(under(real, path), size));
}

static int f_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	return result(close((int)fi->fh));
}

static int f_mkdir(const char *path, mode_t mode)
{
	char real[PATH_MAX];

	return result(mkdir(under(real, path), mode));
}

static int f_unlink(const char *path)
{
	char real[PATH_MAX];
	int rc = squashed_in(path);

	return rc ? rc : result(unlink(under(real, path)));
}

static int f_rename(const char *from, const char *to, unsigned flags)
{
	char a[PATH_MAX], b[PATH_MAX];
	int rc = flags ? -EINVAL : squashed_in(from);

	return rc ? rc : result(rename(under(a, from), under(b, to)));
}

static int f_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	char real[PATH_MAX];

	(void)fi;
	if (getenv("FAULTY_SQUASH") && !fuse_get_context()->uid)
		return -EPERM;
	return result(chmod(under(real, path), mode));
}

static int f_lock(const char *path, struct fuse_file_info *fi, int cmd, struct flock *lock)
{
	int rc = fault("lock", path, 0, 0, NULL);

	if (rc)
		return rc;
	lock->l_pid = 0;
	return result(fcntl((int)fi->fh, cmd == F_GETLK ? F_OFD_GETLK : F_OFD_SETLK, lock));
}

static int asked(const char *name)
{
	char log[PATH_MAX];
	FILE *f;

	snprintf(log, sizeof(log), "%s.xattr", faults);
	f = fopen(log, "a");
	if (f) {
		fprintf(f, "%u %s\n", (unsigned)fuse_get_context()->uid, name);
		fclose(f);
	}
	return -EPERM;
}

static int f_setxattr(const char *path, const char *name, const char *value, size_t n, int flags)
{
	(void)path, (void)value, (void)n, (void)flags;
	return asked(name);
}

static int f_getxattr(const char *path, const char *name, char *value, size_t n)
{
	(void)path, (void)value, (void)n;
	(void)asked(name);
	return -ENODATA;
}

static int f_removexattr(const char *path, const char *name)
{
	(void)path;
	return asked(name);
}

int main(int argc, char **argv)
{
	static const struct fuse_operations ops = {
		.init = f_init,
		.getattr = f_getattr,
		.readdir = f_readdir,
		.opendir = f_opendir,
		.open = f_open,
		.create = f_create,
		.read = f_read,
		.write = f_write,
		.truncate = f_truncate,
		.release = f_release,
		.mkdir = f_mkdir,
		.unlink = f_unlink,
		.rename = f_rename,
		.chmod = f_chmod,
		.lock = f_lock,
		.setxattr = f_setxattr,
		.getxattr = f_getxattr,
		.removexattr = f_removexattr,
	};
	char self[] = "e2e-faulty", foreground[] = "-f", others[] = "-oallow_other";

	if (argc != 4) {
		fputs("usage: e2e-faulty FAULTS SOURCE MOUNTPOINT\n", stderr);
		return 2;
	}
	faults = argv[1];
	source = argv[2];
	/* As root, so that tmem mount can be somebody else here. */
	return fuse_main(geteuid() ? 3 : 4, ((char *[]){self, foreground, argv[3], others, NULL}),
			 &ops, NULL);
}
