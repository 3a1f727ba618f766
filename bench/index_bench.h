/* SPDX-License-Identifier: BSD-2-Clause */
/* What the index alone costs, without pages, codecs and allocators. */
#ifndef TMEM_BENCH_INDEX_BENCH_H
#define TMEM_BENCH_INDEX_BENCH_H

#include <stdint.h>

struct json_t;

/*
 * Nanoseconds an operation at 4096 pages and at max_pages (0: 4 Mi; at most
 * 2^31), their ratio, metadata a page, spread over shards, and `threads` (1 to
 * 64) against one. About 12 seconds at 4 Mi pages. The caller owns the object;
 * NULL when there is no memory.
 */
struct json_t *bench_index(unsigned threads, uint64_t max_pages);

#endif
