/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory from the operating system: small blocks, and reserved address space
 * whose frames come and go. Nothing else in the project calls malloc or mmap.
 */
#ifndef TMEM_OS_MEM_H
#define TMEM_OS_MEM_H

#include <stddef.h>
#include <stdint.h>

#define OS_FRAME_SHIFT 12
#define OS_FRAME_SIZE  ((size_t)1 << OS_FRAME_SHIFT)

/* A block of size > 0 bytes; NULL when there is none. os_zalloc zeroes it. */
void *os_alloc(size_t size) __attribute__((malloc, warn_unused_result));
void *os_zalloc(size_t size) __attribute__((malloc, warn_unused_result));
/* Blocks aligned to 64 bytes, the latter zeroed. What of a large one is not written to may take no
 * memory. */
void *os_alloc_aligned(size_t size) __attribute__((malloc, warn_unused_result));
void *os_zalloc_aligned(size_t size) __attribute__((malloc, warn_unused_result));
/* Frees any of the above; NULL is allowed. */
void os_free(void *p);
/*
 * Returns the frames of freed blocks to the OS. The allocator does so by itself only from a heap's
 * end on: one block that lives there keeps all below it. Takes the allocator's locks, one
 * after the other, each for milliseconds where much was freed (36 MiB: 3 ms).
 */
void os_blocks_return(void);
/*
 * Blocks come from that many heaps at most, which threads share. To be called before there are
 * threads. The default is eight a processor: where threads come and go each keeps pages of its own
 * for good.
 */
void os_blocks_heaps(unsigned most);

/*
 * Reserve `bytes` (a multiple of the frame size) of address space, readable
 * and writable, aligned to 2 MiB, holding no frames: reading it gives zeros, writing takes a
 * frame from the OS. Excluded from core dumps. NULL when refused.
 */
void *os_reserve(size_t bytes) __attribute__((warn_unused_result));
/* Give a whole reservation back. */
void os_unreserve(void *base, size_t bytes);
/*
 * Make frames resident now, in one call, so that no fault is taken later.
 * 0, or -ENOMEM. A kernel without MADV_POPULATE_WRITE is no error: then the
 * frames come by faults.
 */
int os_frames_populate(void *addr, size_t bytes);
/* Return frames to the OS for real; the range reads as zeros afterwards. */
void os_frames_return(void *addr, size_t bytes);

/* Resident bytes of this process by /proc/self/smaps_rollup; 0 if unreadable. */
uint64_t os_resident_bytes(void);

#endif
