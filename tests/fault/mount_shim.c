/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Failures on demand of what tmem mount asks the system for, beside what shim.c has. Those calls
 * that are by two names, with and without 64-bit offsets, have both.
 */
#include "shim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static bool fails(int error)
{
	if (!shim_may_fail(SHIM_FILE))
		return false;
	errno = error;
	return true;
}

/* WRAP(what it returns, name, error, what it returns then, parameters, arguments) */
#define WRAP(type, name, error, failed, parameters, arguments)                                     \
	type __real_##name parameters;                                                             \
	type __wrap_##name parameters;                                                             \
	type __wrap_##name parameters                                                              \
	{                                                                                          \
		return fails(error) ? (failed) : __real_##name arguments;                          \
	}
#define WRAP_BOTH(type, name, name64, error, failed, parameters, arguments)                        \
	WRAP(type, name, error, failed, parameters, arguments)                                     \
	WRAP(type, name64, error, failed, parameters, arguments)

#define WRAP_OPENAT(name)                                                                          \
	int __real_##name(int at, const char *path, int flags, ...);                               \
	int __wrap_##name(int at, const char *path, int flags, ...);                               \
	int __wrap_##name(int at, const char *path, int flags, ...)                                \
	{                                                                                          \
		va_list ap;                                                                        \
		unsigned mode;                                                                     \
                                                                                                   \
		va_start(ap, flags);                                                               \
		mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(ap, unsigned) : 0;                 \
		va_end(ap);                                                                        \
		return fails(EMFILE) ? -1 : __real_##name(at, path, flags, mode);                  \
	}
WRAP_OPENAT(openat)
WRAP_OPENAT(openat64)

WRAP_BOTH(int, fstatat, fstatat64, EIO, -1, (int at, const char *path, void *st, int flags),
	  (at, path, st, flags))
WRAP(int, statx, EIO, -1, (int at, const char *path, int flags, unsigned mask, void *st),
     (at, path, flags, mask, st))
WRAP_BOTH(ssize_t, preadv2, preadv64v2, EIO, -1,
	  (int fd, const struct iovec *v, int n, off_t at, int flags), (fd, v, n, at, flags))
WRAP_BOTH(ssize_t, pwritev2, pwritev64v2, ENOSPC, -1,
	  (int fd, const struct iovec *v, int n, off_t at, int flags), (fd, v, n, at, flags))
WRAP_BOTH(off_t, lseek, lseek64, EIO, -1, (int fd, off_t at, int whence), (fd, at, whence))
WRAP_BOTH(int, truncate, truncate64, EIO, -1, (const char *path, off_t size), (path, size))
WRAP(ssize_t, readlinkat, EIO, -1, (int at, const char *path, char *buf, size_t n),
     (at, path, buf, n))
WRAP(int, dup, EMFILE, -1, (int fd), (fd))
WRAP(int, pipe2, EMFILE, -1, (int fd[2], int flags), (fd, flags))
WRAP(pid_t, fork, EAGAIN, -1, (void), ())
WRAP(int, inotify_init1, EMFILE, -1, (int flags), (flags))
WRAP(int, inotify_add_watch, ENOSPC, -1, (int fd, const char *path, uint32_t mask),
     (fd, path, mask))
WRAP(int, unlinkat, EIO, -1, (int at, const char *path, int flags), (at, path, flags))
WRAP(int, mkdirat, ENOSPC, -1, (int at, const char *path, mode_t mode), (at, path, mode))
WRAP(int, renameat2, EIO, -1, (int from, const char *old, int to, const char *new, unsigned flags),
     (from, old, to, new, flags))
WRAP(ssize_t, copy_file_range, EIO, -1,
     (int in, off_t *off_in, int out, off_t *off_out, size_t n, unsigned flags),
     (in, off_in, out, off_out, n, flags))
WRAP(DIR *, fdopendir, ENOMEM, NULL, (int fd), (fd))
WRAP_BOTH(struct dirent *, readdir, readdir64, EIO, NULL, (DIR * dir), (dir))

/* Locks alone: what else is asked for by it does not fail. */
#define WRAP_FCNTL(name)                                                                           \
	int __real_##name(int fd, int what, ...);                                                  \
	int __wrap_##name(int fd, int what, ...);                                                  \
	int __wrap_##name(int fd, int what, ...)                                                   \
	{                                                                                          \
		va_list ap;                                                                        \
		void *arg;                                                                         \
                                                                                                   \
		va_start(ap, what);                                                                \
		arg = va_arg(ap, void *);                                                          \
		va_end(ap);                                                                        \
		if ((what == F_OFD_SETLK || what == F_OFD_GETLK) && fails(ENOLCK))                 \
			return -1;                                                                 \
		return __real_##name(fd, what, arg);                                               \
	}
WRAP_FCNTL(fcntl)
WRAP_FCNTL(fcntl64)
