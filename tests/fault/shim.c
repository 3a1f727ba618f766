/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Failures on demand: see shim.h.
 *
 *   engine object --malloc--> __wrap_malloc --shim_may_fail()--+--> __real_malloc
 *                                                         +--> NULL, ENOMEM
 *
 * Only calls from objects of this program are wrapped: what libraries do inside
 * themselves is theirs. frames_charge is wrapped too, because the limit may
 * refuse at any of its calls just as the system may.
 */
#include "shim.h"

#include "alloc/frames.h"

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define DEPTH	  5    /* frames that tell call sites apart */
#define SKIP	  2    /* our own */
#define STACK_MAX 24   /* frames that are shown */
#define SITES	  8192 /* a power of two */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic bool armed;
static uint64_t calls, failed, fail_at;
static bool fail_on;
static uint64_t failed_of[SHIM_KINDS];
static struct {
	uint64_t hash;
	bool failed;
} site[SITES];
static uint64_t sites_reached, sites_failed;
static void *first_stack[STACK_MAX];
static int first_depth;
static enum shim_kind first_kind;
static _Atomic int64_t blocks, block_bytes, mapped_bytes, threads, keys, files;

/* ---- the decision ----------------------------------------------------------- */

static void note_site(void *const *stack, int depth, bool fails)
{
	uint64_t h = 1469598103934665603u;
	size_t i;

	for (int d = SKIP; d < depth && d < SKIP + DEPTH; d++)
		h = (h ^ (uintptr_t)stack[d]) * 1099511628211u;
	for (i = (h >> 20) % SITES; site[i].hash && site[i].hash != h; i = (i + 1) % SITES)
		;
	if (!site[i].hash) {
		site[i].hash = h;
		/* A full table would make the search endless. */
		if (++sites_reached > SITES / 2)
			abort();
	}
	if (fails && !site[i].failed) {
		site[i].failed = true;
		sites_failed++;
	}
}

/* Out of line, so that SKIP is right. */
__attribute__((noinline)) bool shim_may_fail(enum shim_kind kind)
{
	void *stack[STACK_MAX];
	bool fails;
	int depth;

	if (!atomic_load(&armed))
		return false;
	depth = backtrace(stack, STACK_MAX);
	pthread_mutex_lock(&lock);
	calls++;
	fails = fail_at && (calls == fail_at || (fail_on && calls > fail_at));
	if (fail_at)
		note_site(stack, depth, fails);
	if (fails) {
		if (failed++ == 0) {
			for (int i = 0; i < depth; i++)
				first_stack[i] = stack[i];
			first_depth = depth;
			first_kind = kind;
		}
		failed_of[kind]++;
	}
	pthread_mutex_unlock(&lock);
	return fails;
}

void shim_arm(uint64_t n, bool from_then_on)
{
	void *stack[2];

	/* The first one loads the unwinder, which allocates. */
	(void)backtrace(stack, 2);
	pthread_mutex_lock(&lock);
	calls = failed = 0;
	fail_at = n;
	fail_on = from_then_on;
	pthread_mutex_unlock(&lock);
	atomic_store(&armed, true);
}

void shim_disarm(void)
{
	atomic_store(&armed, false);
}

static uint64_t read_locked(const uint64_t *p)
{
	uint64_t v;

	pthread_mutex_lock(&lock);
	v = *p;
	pthread_mutex_unlock(&lock);
	return v;
}

uint64_t shim_calls(void)
{
	return read_locked(&calls);
}

uint64_t shim_failed(void)
{
	return read_locked(&failed);
}

void shim_sites(uint64_t *reached, uint64_t *failed_sites)
{
	*reached = read_locked(&sites_reached);
	*failed_sites = read_locked(&sites_failed);
}

uint64_t shim_failed_of(unsigned kind)
{
	return kind < SHIM_KINDS ? read_locked(&failed_of[kind]) : 0;
}

const char *shim_kind_name(unsigned kind)
{
	static const char *const names[SHIM_KINDS] = {"malloc",	     "mmap",   "populate", "thread",
						      "thread slot", "charge", "file"};

	return kind < SHIM_KINDS ? names[kind] : "?";
}

void shim_describe(void)
{
	if (shim_failed() == 0) {
		fprintf(stderr, "  no call was made to fail\n");
		return;
	}
	fprintf(stderr, "  first call that was made to fail: %s, from\n",
		shim_kind_name(first_kind));
	backtrace_symbols_fd(first_stack + SKIP, first_depth - SKIP, STDERR_FILENO);
}

void shim_alive(struct shim_alive *a)
{
	a->blocks = atomic_load(&blocks);
	a->block_bytes = atomic_load(&block_bytes);
	a->mapped_bytes = atomic_load(&mapped_bytes);
	a->threads = atomic_load(&threads);
	a->keys = atomic_load(&keys);
	a->files = atomic_load(&files);
}

/* ---- blocks ------------------------------------------------------------------ */

/* Names that the linker makes: there is no header for them. */
#define WRAP(type, name, ...)                                                                      \
	type __real_##name(__VA_ARGS__);                                                           \
	type __wrap_##name(__VA_ARGS__);                                                           \
	type __wrap_##name(__VA_ARGS__)

static void *count_block(void *p)
{
	if (p) {
		atomic_fetch_add(&blocks, 1);
		atomic_fetch_add(&block_bytes, (int64_t)malloc_usable_size(p));
	}
	return p;
}

static bool fail_block(void)
{
	if (!shim_may_fail(SHIM_MALLOC))
		return false;
	errno = ENOMEM;
	return true;
}

WRAP(void *, malloc, size_t size)
{
	return fail_block() ? NULL : count_block(__real_malloc(size));
}

WRAP(void *, calloc, size_t n, size_t size)
{
	return fail_block() ? NULL : count_block(__real_calloc(n, size));
}

WRAP(void *, realloc, void *old, size_t size)
{
	void *p;

	if (fail_block())
		return NULL;
	if (old)
		atomic_fetch_sub(&block_bytes, (int64_t)malloc_usable_size(old));
	p = __real_realloc(old, size);
	if (old)
		atomic_fetch_add(&block_bytes, (int64_t)malloc_usable_size(p ? p : old));
	return old ? p : count_block(p);
}

WRAP(void *, aligned_alloc, size_t align, size_t size)
{
	return fail_block() ? NULL : count_block(__real_aligned_alloc(align, size));
}

WRAP(int, posix_memalign, void **out, size_t align, size_t size)
{
	int rc = fail_block() ? ENOMEM : __real_posix_memalign(out, align, size);

	if (rc == 0)
		(void)count_block(*out);
	return rc;
}

WRAP(void, free, void *p)
{
	if (p) {
		atomic_fetch_sub(&blocks, 1);
		atomic_fetch_sub(&block_bytes, (int64_t)malloc_usable_size(p));
	}
	__real_free(p);
}

/* ---- address space ------------------------------------------------------------ */

static void *count_map(void *p, size_t bytes)
{
	if (p != MAP_FAILED)
		atomic_fetch_add(&mapped_bytes, (int64_t)bytes);
	return p;
}

static bool fail_map(void)
{
	if (!shim_may_fail(SHIM_MMAP))
		return false;
	errno = ENOMEM;
	return true;
}

/* The same by its two names: which one is called depends on _FILE_OFFSET_BITS. */
WRAP(void *, mmap, void *addr, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	if (fail_map())
		return MAP_FAILED;
	return count_map(__real_mmap(addr, bytes, prot, flags, fd, offset), bytes);
}

WRAP(void *, mmap64, void *addr, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	if (fail_map())
		return MAP_FAILED;
	return count_map(__real_mmap64(addr, bytes, prot, flags, fd, offset), bytes);
}

WRAP(int, munmap, void *addr, size_t bytes)
{
	int rc = __real_munmap(addr, bytes);

	if (rc == 0)
		atomic_fetch_sub(&mapped_bytes, (int64_t)bytes);
	return rc;
}

WRAP(int, madvise, void *addr, size_t bytes, int advice)
{
	/* Nothing else that the engine asks of it may fail. */
	if (advice == MADV_POPULATE_WRITE && shim_may_fail(SHIM_POPULATE)) {
		errno = ENOMEM;
		return -1;
	}
	return __real_madvise(addr, bytes, advice);
}

WRAP(bool, frames_charge, struct frames *f, uint64_t bytes)
{
	if (shim_may_fail(SHIM_CHARGE)) {
		atomic_fetch_add(&f->refused, 1);
		return false;
	}
	return __real_frames_charge(f, bytes);
}

/* ---- threads ------------------------------------------------------------------- */

WRAP(int, pthread_create, pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	int rc = shim_may_fail(SHIM_THREAD) ? EAGAIN : __real_pthread_create(t, attr, fn, arg);

	if (rc == 0)
		atomic_fetch_add(&threads, 1);
	return rc;
}

WRAP(int, pthread_join, pthread_t t, void **result)
{
	int rc = __real_pthread_join(t, result);

	if (rc == 0)
		atomic_fetch_sub(&threads, 1);
	return rc;
}

WRAP(int, pthread_key_create, pthread_key_t *key, void (*destroy)(void *))
{
	int rc = shim_may_fail(SHIM_TLS) ? EAGAIN : __real_pthread_key_create(key, destroy);

	if (rc == 0)
		atomic_fetch_add(&keys, 1);
	return rc;
}

WRAP(int, pthread_key_delete, pthread_key_t key)
{
	int rc = __real_pthread_key_delete(key);

	if (rc == 0)
		atomic_fetch_sub(&keys, 1);
	return rc;
}

WRAP(int, pthread_setspecific, pthread_key_t key, const void *value)
{
	return value && shim_may_fail(SHIM_TLS) ? ENOMEM : __real_pthread_setspecific(key, value);
}

/* ---- files --------------------------------------------------------------------- */

static bool fail_file(int error)
{
	if (!shim_may_fail(SHIM_FILE))
		return false;
	errno = error;
	return true;
}

static int count_file(int fd)
{
	if (fd >= 0)
		atomic_fetch_add(&files, 1);
	return fd;
}

#define WRAP_OPEN(name)                                                                            \
	int __real_##name(const char *path, int flags, ...);                                       \
	int __wrap_##name(const char *path, int flags, ...);                                       \
	int __wrap_##name(const char *path, int flags, ...)                                        \
	{                                                                                          \
		va_list ap;                                                                        \
		unsigned mode;                                                                     \
                                                                                                   \
		va_start(ap, flags);                                                               \
		mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(ap, unsigned) : 0;                 \
		va_end(ap);                                                                        \
		if (fail_file(EMFILE))                                                             \
			return -1;                                                                 \
		return count_file(__real_##name(path, flags, mode));                               \
	}
WRAP_OPEN(open)
WRAP_OPEN(open64)

WRAP(int, close, int fd)
{
	int rc = __real_close(fd);

	if (rc == 0)
		atomic_fetch_sub(&files, 1);
	return rc;
}

static struct shim_io io;
static uint64_t io_calls, reads, reads_failed, site_calls, pwrites, site_failed;

void shim_io(const struct shim_io *new)
{
	static const struct shim_io usual;

	pthread_mutex_lock(&lock);
	io = new ? *new : usual;
	io_calls = reads = reads_failed = site_calls = pwrites = site_failed = 0;
	pthread_mutex_unlock(&lock);
}

uint64_t shim_reads_failed(void)
{
	return read_locked(&reads_failed);
}

uint64_t shim_io_failed(void)
{
	return read_locked(&site_failed);
}

/* Whether this call of a site is the one to fail; errno is set. */
static bool fail_site(enum shim_site here)
{
	int error = 0;

	pthread_mutex_lock(&lock);
	if (io.fail_site_at && io.site == here && ++site_calls >= io.fail_site_at &&
	    (io.from_then_on || site_calls == io.fail_site_at)) {
		error = io.error;
		site_failed++;
	}
	pthread_mutex_unlock(&lock);
	if (error)
		errno = error;
	return error;
}

/* Whether this write is to be torn. */
static bool tear(void)
{
	bool torn;

	pthread_mutex_lock(&lock);
	torn = io.torn_at && ++pwrites >= io.torn_at && (io.from_then_on || pwrites == io.torn_at);
	site_failed += torn;
	pthread_mutex_unlock(&lock);
	return torn;
}

/* An errno to fail with, or 0, and perhaps fewer bytes. */
static int disturb_io(bool is_pread, size_t *n)
{
	int error = 0;

	pthread_mutex_lock(&lock);
	io_calls++;
	if (io.interrupt && io_calls % 2)
		error = EINTR;
	else if (is_pread && io.fail_read_at && ++reads >= io.fail_read_at &&
		 (io.from_then_on || reads == io.fail_read_at)) {
		error = EIO;
		reads_failed++;
	}
	if (io.few_bytes && *n > 1)
		*n = *n > 64 ? *n / 3 : io_calls % (*n - 1) + 1;
	pthread_mutex_unlock(&lock);
	if (error)
		errno = error;
	return error;
}

WRAP(ssize_t, read, int fd, void *buf, size_t n)
{
	return disturb_io(false, &n) ? -1 : __real_read(fd, buf, n);
}

WRAP(ssize_t, write, int fd, const void *buf, size_t n)
{
	/* Messages of the test itself go their way. */
	if (fd > 2 && (fail_file(ENOSPC) || fail_site(SHIM_PWRITE) || disturb_io(false, &n)))
		return -1;
	return __real_write(fd, buf, n);
}

WRAP(ssize_t, pread, int fd, void *buf, size_t n, off_t offset)
{
	if (fail_site(SHIM_PREAD) || disturb_io(true, &n))
		return -1;
	return __real_pread(fd, buf, n, offset);
}

WRAP(ssize_t, pread64, int fd, void *buf, size_t n, off_t offset)
{
	if (fail_site(SHIM_PREAD) || disturb_io(true, &n))
		return -1;
	return __real_pread64(fd, buf, n, offset);
}

WRAP(ssize_t, pwrite, int fd, const void *buf, size_t n, off_t offset)
{
	if (fail_file(ENOSPC) || fail_site(SHIM_PWRITE) || disturb_io(false, &n))
		return -1;
	if (tear())
		return __real_pwrite(fd, buf, n / 2, offset) < 0 ? -1 : (ssize_t)n;
	return __real_pwrite(fd, buf, n, offset);
}

WRAP(ssize_t, pwrite64, int fd, const void *buf, size_t n, off_t offset)
{
	if (fail_file(ENOSPC) || fail_site(SHIM_PWRITE) || disturb_io(false, &n))
		return -1;
	if (tear())
		return __real_pwrite64(fd, buf, n / 2, offset) < 0 ? -1 : (ssize_t)n;
	return __real_pwrite64(fd, buf, n, offset);
}

WRAP(int, fallocate, int fd, int mode, off_t offset, off_t bytes)
{
	if (fail_file(ENOSPC) || fail_site(SHIM_PUNCH))
		return -1;
	return __real_fallocate(fd, mode, offset, bytes);
}

WRAP(int, fallocate64, int fd, int mode, off_t offset, off_t bytes)
{
	if (fail_file(ENOSPC) || fail_site(SHIM_PUNCH))
		return -1;
	return __real_fallocate64(fd, mode, offset, bytes);
}

WRAP(int, ftruncate, int fd, off_t bytes)
{
	return fail_file(ENOSPC) ? -1 : __real_ftruncate(fd, bytes);
}

WRAP(int, ftruncate64, int fd, off_t bytes)
{
	return fail_file(ENOSPC) ? -1 : __real_ftruncate64(fd, bytes);
}

WRAP(int, sync_file_range, int fd, off_t offset, off_t bytes, unsigned flags)
{
	if (fail_file(EIO) || fail_site(SHIM_SETTLE))
		return -1;
	return __real_sync_file_range(fd, offset, bytes, flags);
}

WRAP(int, fdatasync, int fd)
{
	if (fail_file(EIO) || fail_site(SHIM_SETTLE))
		return -1;
	return __real_fdatasync(fd);
}

WRAP(int, flock, int fd, int operation)
{
	return fail_file(ENOLCK) ? -1 : __real_flock(fd, operation);
}

WRAP(int, fsync, int fd)
{
	return fail_file(EIO) || fail_site(SHIM_SETTLE) ? -1 : __real_fsync(fd);
}

WRAP(int, rename, const char *from, const char *to)
{
	return fail_file(EIO) ? -1 : __real_rename(from, to);
}

/* The same by its two names. */
WRAP(int, fstat, int fd, struct stat *st)
{
	return fail_file(EIO) ? -1 : __real_fstat(fd, st);
}

WRAP(int, fstat64, int fd, struct stat64 *st)
{
	return fail_file(EIO) ? -1 : __real_fstat64(fd, st);
}
