/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * zbud: the zpool driver with predictable reclaim. At most two objects a
 * frame, frames in queues by age: evicting one frame frees one frame, at the
 * cost of at most two objects. See the top of zbud.c for the theory, zpool.h
 * for the interface.
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
