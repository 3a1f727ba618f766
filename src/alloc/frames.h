/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The frame source: one account for all memory of a host.
 *
 * Allocators and metadata take address space from os_reserve() once; every
 * frame they make resident, and every block from os_alloc(), is charged here
 * *before* it is touched. So
 *
 *   I1  used_bytes <= limit_bytes at every instant (limit 0: none)
 *   I2  used_bytes = sum of what the owners hold
 *
 * The account is one atomic word. Lowering the limit below what is used
 * refuses further charges until enough was returned.
 * Thread-safe; takes no lock; never blocks.
 */
#ifndef TMEM_ALLOC_FRAMES_H
#define TMEM_ALLOC_FRAMES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frames {
	_Alignas(64) _Atomic uint64_t used_bytes;
	_Atomic uint64_t peak_bytes;
	_Atomic uint64_t limit_bytes;
	_Atomic uint64_t refused; /* charges that the limit refused */
};

void frames_init(struct frames *f, uint64_t limit_bytes);
/* Account for bytes; false, and nothing changed, when the limit forbids it. */
bool frames_charge(struct frames *f, uint64_t bytes) __attribute__((warn_unused_result));
void frames_uncharge(struct frames *f, uint64_t bytes);
static inline uint64_t frames_used(const struct frames *f)
{
	return atomic_load_explicit(&f->used_bytes, memory_order_relaxed);
}
void frames_set_limit(struct frames *f, uint64_t limit_bytes);

#endif
