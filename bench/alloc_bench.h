/* SPDX-License-Identifier: BSD-2-Clause */
/* What the allocator costs and loses, on the sizes of real compressed pages. */
#ifndef TMEM_BENCH_ALLOC_BENCH_H
#define TMEM_BENCH_ALLOC_BENCH_H

#include <stdint.h>

struct json_t;

/*
 * Store n objects of sizes[i] bytes (1 to 65534; others are left out), measure
 * speed, density and what comes back after half of them went, with one thread
 * and with `threads` (1 to 64). Times are medians over rounds, in nanoseconds.
 * Needs about the sum of the sizes in memory. The caller owns the object;
 * NULL when there is no memory, or no size is fit.
 */
struct json_t *bench_alloc(const uint32_t *sizes, uint64_t n, unsigned threads);

/*
 * Zsmalloc and zbud on the same objects, those that fit both: density, put,
 * get, what an eviction costs and whom it hits. The caller owns the object; NULL
 * when there is no memory, or no size is fit.
 */
struct json_t *bench_alloc_drivers(const uint32_t *sizes, uint64_t n);

#endif
