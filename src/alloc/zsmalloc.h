/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * zsmalloc: the dense zpool driver. Choose it by default: it stores objects
 * at more than 98.5 % density and returns frames by compaction. See the top of
 * zsmalloc.c for the theory, zpool.h for the interface.
 */
#ifndef TMEM_ALLOC_ZSMALLOC_H
#define TMEM_ALLOC_ZSMALLOC_H

#include "alloc/zpool.h"

extern const struct zpool_ops zsmalloc_ops;

/* Bytes the driver keeps in front of each object (its state word). */
#define ZS_OBJECT_OVERHEAD 2
/* Largest object: sixteen raw pages and a header. */
#define ZS_MAX_SIZE	   65534

/* One size class, for reports and tests. i counts from 0; false past the last. */
struct zs_class_info {
	uint32_t size;	 /* bytes of a slot, overhead included */
	uint32_t frames; /* of a zspage */
	uint32_t slots;	 /* of a zspage */
	uint64_t zspages, objects, resident_frames;
	uint64_t fullness[4]; /* zspages: almost empty (<= 1/4), half, almost full, full */
};
bool zs_class_info(struct zpool *zp, unsigned i, struct zs_class_info *info);
/* Full walk: every zspage, slot, list and counter. 0 or -EINVAL with a line logged. */
int zs_verify(struct zpool *zp);

#endif
