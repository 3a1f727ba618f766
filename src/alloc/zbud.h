/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * zbud: the zpool driver with predictable reclaim. At most two objects a
 * frame, frames in queues by age: evicting one frame frees one frame, at the
 * cost of at most two objects. See the top of zbud.c for the theory, zpool.h
 * for the interface.
 *
 * When to choose it: when frames have to come back one at a time, at once, and
 * from what is old, and memory is not what is short: a bounded cache of pages
 * that may be lost, a lender of memory who has to give it back on demand. In
 * all other cases zsmalloc: it is denser, by far where pages compress well,
 * and an owner that knows the age of its pages gets frames back from it for as
 * few objects by freeing the oldest and compacting.
 *
 * Measured with `tmem bench alloc` on memory of real processes, lz4, a page an
 * object, one thread; put and get with the copy; eviction after half of the
 * objects were replaced at random (definitions: bench/alloc_drivers.c):
 *
 *                                   mean of 759 bytes     mean of 1910 bytes
 *                                   zsmalloc    zbud      zsmalloc    zbud
 *   stored bytes / all memory         0.975    0.368         0.986    0.865
 *   put                              730 ns  1442 ns       2008 ns  1748 ns
 *   get                              234 ns   283 ns        746 ns   769 ns
 *   frames for shrink(1)               20.0     1.0           31.1     1.0
 *   evicted objects a frame            2.31    2.00           2.18    2.00
 *   of them not among the oldest       79 %    39 %           72 %    39 %
 *   the oldest freed, compacted:
 *     objects a frame                  1.62    2.00           2.31    2.00
 */
#ifndef TMEM_ALLOC_ZBUD_H
#define TMEM_ALLOC_ZBUD_H

#include "alloc/zpool.h"

extern const struct zpool_ops zbud_ops;

/* The unit that a frame is divided into. */
#define ZBUD_CHUNK	 64
#define ZBUD_CHUNKS	 64
/* Bytes the driver keeps in front of each object (its state word). */
#define ZBUD_OBJECT_HEAD 2
/* Largest object: a frame less that head. A raw page with a header does not fit. */
#define ZBUD_MAX_SIZE	 4094

/* What a pool holds now, for reports and tests. */
struct zbud_info {
	uint64_t queued[2];		 /* frames by age; [1]: ephemeral */
	uint64_t spare;			 /* resident, empty */
	uint64_t evicting;		 /* a shrink has them */
	uint64_t buddied;		 /* frames with two objects */
	uint64_t unbuddied[ZBUD_CHUNKS]; /* frames with one, by free chunks */
	uint64_t ids;			 /* frame descriptors ever used */
};
void zbud_info(struct zpool *zp, struct zbud_info *info);
/* Full walk: every frame, queue, list and counter. 0 or -EINVAL with a line logged. */
int zbud_verify(struct zpool *zp);

#endif
