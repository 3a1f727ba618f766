/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory from the operating system.
 *
 * Reservations: one mmap with MAP_NORESERVE, so that address space for the
 * largest store that can ever be wanted costs nothing but page tables where it
 * is used. Transparent huge pages are off in them: a single byte written would
 * make 512 frames resident, and neither the account of frames nor their return
 * one by one would be true any more. They are left out of core dumps: a dump
 * would hold the whole store, and other people's pages.
 */
#include "os/mem.h"

#include "os/check.h"
#include "os/log.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCK_ALIGN   ((size_t)64)
#define RESERVE_ALIGN ((size_t)2 << 20)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif

void *os_alloc(size_t size)
{
	tmem_assert(size, size > 0);
	return malloc(size);
}

void *os_zalloc(size_t size)
{
	tmem_assert(size, size > 0);
	return calloc(1, size);
}

void *os_alloc_aligned(size_t size)
{
	void *p;

	tmem_assert(size, size > 0);
	if (size > SIZE_MAX - BLOCK_ALIGN)
		return NULL;
	/* Whole lines: no other block shares the last one. */
	size = (size + BLOCK_ALIGN - 1) & ~(BLOCK_ALIGN - 1);
	return posix_memalign(&p, BLOCK_ALIGN, size) == 0 ? p : NULL;
}

void *os_zalloc_aligned(size_t size)
{
	void *p = os_alloc_aligned(size);

	return p ? memset(p, 0, size) : NULL;
}

void os_free(void *p)
{
	free(p);
}

void os_blocks_return(void)
{
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}

void os_blocks_heaps(unsigned most)
{
#ifdef __GLIBC__
	mallopt(M_ARENA_MAX, (int)most);
#else
	(void)most;
#endif
}

void *os_reserve(size_t bytes)
{
	size_t span = bytes + RESERVE_ALIGN;
	size_t head, tail;
	char *p;

	tmem_assert(size, bytes > 0 && bytes % OS_FRAME_SIZE == 0);
	if (span < bytes)
		return NULL;
	p = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		 -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	/*
	 * Cut the ends off. Should the kernel refuse (too many mappings), the
	 * surplus stays as address space that nobody touches.
	 */
	head = -(uintptr_t)p & (RESERVE_ALIGN - 1);
	tail = RESERVE_ALIGN - head;
	if (head)
		(void)munmap(p, head);
	p += head;
	(void)munmap(p + bytes, tail);
	/* Each may be unknown to this kernel; then the feature it turns off is unknown too. */
	(void)madvise(p, bytes, MADV_NOHUGEPAGE);
	(void)madvise(p, bytes, MADV_DONTDUMP);
	return p;
}

void os_unreserve(void *base, size_t bytes)
{
	if (!base)
		return;
	if (munmap(base, bytes) != 0) {
		/* Only when the mapping count is exhausted. The frames go at least. */
		os_log(OS_LOG_WARNING, "munmap of %zu bytes: %s", bytes, strerror(errno));
		os_frames_return(base, bytes);
	}
}

int os_frames_populate(void *addr, size_t bytes)
{
	int rc;

	do {
		rc = madvise(addr, bytes, MADV_POPULATE_WRITE);
	} while (rc != 0 && (errno == EINTR || errno == EAGAIN));
	if (rc == 0 || errno == EINVAL)
		return 0;
	return -ENOMEM;
}

void os_frames_return(void *addr, size_t bytes)
{
	int rc;

	do {
		rc = madvise(addr, bytes, MADV_DONTNEED);
	} while (rc != 0 && (errno == EINTR || errno == EAGAIN));
	if (tmem_likely(rc == 0))
		return;
	/* Locked memory (mlockall by the program that we live in). */
	if (madvise(addr, bytes, MADV_DONTNEED_LOCKED) == 0)
		return;
	/* The frames cannot go; what was promised about their contents still holds. */
	memset(addr, 0, bytes);
}

uint64_t os_resident_bytes(void)
{
	char text[4096];
	const char *rss;
	ssize_t n;
	int fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	do {
		n = read(fd, text, sizeof(text) - 1);
	} while (n < 0 && errno == EINTR);
	(void)close(fd);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	rss = strstr(text, "\nRss:");
	return rss ? strtoull(rss + 5, NULL, 10) * 1024 : 0;
}
