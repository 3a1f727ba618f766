/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's zswap over a swap file of our own. What was set before is set again at the
 * end. Where somebody uses zswap already it is left alone, and cannot be measured.
 */
#ifndef TMEM_CLI_ZSWAP_H
#define TMEM_CLI_ZSWAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What must be undone; may lie in shared memory, and is written before each step. */
struct zswap {
	char file[128];	     /* "": none */
	char compressor[32]; /* as it was; "": not changed */
	volatile bool on;    /* swap is on the file, and zswap enabled */
};

struct zswap_use {
	uint64_t stored_pages, used_bytes; /* of the whole machine */
};

/* Make the file and choose the codec; 0, or a negative errno with a line in err. */
int zswap_prepare(struct zswap *z, const char *codec, uint64_t bytes, char *err, size_t errlen)
	__attribute__((warn_unused_result));
/* Enable it and swap on the file, before all others; or end both. */
int zswap_switch(struct zswap *z, bool on, char *err, size_t errlen)
	__attribute__((warn_unused_result));
void zswap_usage(struct zswap_use *use);
/* Undo all of it. 0 or a negative errno. */
int zswap_remove(struct zswap *z);

#endif
