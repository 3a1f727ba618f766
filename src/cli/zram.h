/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A zram device of our own as swap. Devices that exist already belong to
 * somebody else and are never touched: a new one is added and removed again.
 */
#ifndef TMEM_CLI_ZRAM_H
#define TMEM_CLI_ZRAM_H

#include <stddef.h>
#include <stdint.h>

struct zram_use {
	uint64_t stored_pages;
	uint64_t compressed_bytes;
	uint64_t used_bytes; /* its own memory, plus 16 bytes of table for each stored page */
};

/*
 * Add a device. The id is stored in *id at once, before anything else can
 * fail, so that whoever cleans up knows of it. 0, or a negative errno with a
 * line in err; a device that was added stays until zram_remove().
 */
int zram_add(const char *codec, uint64_t disk_bytes, volatile int *id, char *err, size_t errlen)
	__attribute__((warn_unused_result));
/* Swap on it, before all others. */
int zram_swap_on(int id, char *err, size_t errlen) __attribute__((warn_unused_result));
/* The end of that; the device stays. 0 or a negative errno. */
int zram_swap_off(int id) __attribute__((warn_unused_result));
/* The header that makes a device or file of so many bytes swap space. 0 or a negative errno. */
int swap_format(int fd, uint64_t bytes) __attribute__((warn_unused_result));
/* Open it as open(2) does, once its node is there. A descriptor or -errno. */
int zram_open(int id, int flags) __attribute__((warn_unused_result));
/* Write pages, 4096-aligned, to the start of the device, past the page cache. 0 or -errno. */
int zram_write(int id, const void *pages, uint64_t count) __attribute__((warn_unused_result));
/* Zeros when unreadable. */
void zram_usage(int id, struct zram_use *use);
/* Swap off if it is on, empty it, remove it. 0 or a negative errno. */
int zram_remove(int id);

#endif
