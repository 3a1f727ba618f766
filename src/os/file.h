/* SPDX-License-Identifier: BSD-2-Clause */
/* Files: whole reads and writes, EINTR and short transfers handled. */
#ifndef TMEM_OS_FILE_H
#define TMEM_OS_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A descriptor (close-on-exec), or -errno. flags and mode as open(2)'s. */
int os_file_open(const char *path, int flags, mode_t mode) __attribute__((warn_unused_result));
void os_file_close(int fd);
/* Bytes read (fewer than n only at the end of the file), or -errno. */
ssize_t os_file_pread(int fd, void *buf, size_t n, uint64_t offset)
	__attribute__((warn_unused_result));
/* 0 when all n bytes are written, else -errno. */
int os_file_pwrite(int fd, const void *buf, size_t n, uint64_t offset)
	__attribute__((warn_unused_result));
int os_file_write(int fd, const void *buf, size_t n) __attribute__((warn_unused_result));
/* All of text to a file that is there, as those of /proc and /sys are. 0 or -errno. */
int os_file_write_text(const char *path, const char *text);
/* A whole small file (at most max bytes) as a NUL-terminated os_alloc'd string; NULL with errno. */
char *os_file_slurp(const char *path, size_t max, size_t *len) __attribute__((warn_unused_result));
/* All of the file is on the disk when 0 is returned; else -errno. */
int os_file_sync(int fd) __attribute__((warn_unused_result));
/*
 * Give a file another name, in place of what had it, and make that last; 0 or -errno.
 * After a failure *renamed says whether it has the name, though it may not last.
 */
int os_file_rename(const char *from, const char *to, bool *renamed)
	__attribute__((warn_unused_result));
/* Remove a file's name; 0 or -errno. */
int os_file_unlink(const char *path);
/* What was written there is of no use: remove an ordinary file; a link or a device stays. */
void os_file_discard(const char *path);
/* Make the file so many bytes long; 0 or -errno. */
int os_file_truncate(int fd, uint64_t bytes) __attribute__((warn_unused_result));
/*
 * See to it that what was written to a range has been taken by the device, and
 * that reading it again asks the device. 0, or the error of writing that the
 * system had not told yet. What the device keeps in a cache of its own may
 * still be lost when the power is.
 */
int os_file_settle(int fd, uint64_t offset, uint64_t bytes) __attribute__((warn_unused_result));
/* Lock the whole file against others that ask for it so. 0; -EBUSY: somebody has it; or -errno. */
int os_file_lock(int fd) __attribute__((warn_unused_result));
struct os_file_about {
	bool regular, mine;  /* an ordinary file; of this user */
	bool open_to_others; /* by its mode they may write to it */
	uint64_t bytes, links, device, inode;
};
int os_file_about(int fd, struct os_file_about *about) __attribute__((warn_unused_result));
/* Whether this path names that file now; a link to it does not count. */
bool os_file_named(const char *path, const struct os_file_about *about);
/* Give the blocks of a range back to the file system; 0 or -errno. */
int os_file_punch(int fd, uint64_t offset, uint64_t bytes);

#endif
