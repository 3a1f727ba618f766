/* SPDX-License-Identifier: BSD-2-Clause */
/* The frame source: one atomic word that all owners of memory charge. See frames.h. */
#include "alloc/frames.h"
#include "os/check.h"

void frames_init(struct frames *f, uint64_t limit_bytes)
{
	atomic_init(&f->used_bytes, 0);
	atomic_init(&f->peak_bytes, 0);
	atomic_init(&f->limit_bytes, limit_bytes);
	atomic_init(&f->refused, 0);
}

/* The peak only grows, so a thread that finds a higher one has nothing to do. */
static void frames_note_peak(struct frames *f, uint64_t used)
{
	uint64_t peak = atomic_load_explicit(&f->peak_bytes, memory_order_relaxed);

	while (used > peak &&
	       !atomic_compare_exchange_weak_explicit(&f->peak_bytes, &peak, used,
						      memory_order_relaxed, memory_order_relaxed))
		;
}

bool frames_charge(struct frames *f, uint64_t bytes)
{
	uint64_t used = atomic_load_explicit(&f->used_bytes, memory_order_relaxed);
	uint64_t room;

	/*
	 * A compare and swap, not an add that is taken back: the limit holds
	 * at every instant (I1), and a charge that fits is never refused
	 * because of another one that did not.
	 */
	do {
		uint64_t limit = atomic_load_explicit(&f->limit_bytes, memory_order_relaxed);

		if (!limit)
			limit = UINT64_MAX;
		room = limit > used ? limit - used : 0;
		if (bytes > room) {
			atomic_fetch_add_explicit(&f->refused, 1, memory_order_relaxed);
			return false;
		}
	} while (!atomic_compare_exchange_weak_explicit(
		&f->used_bytes, &used, used + bytes, memory_order_relaxed, memory_order_relaxed));
	frames_note_peak(f, used + bytes);
	return true;
}

void frames_uncharge(struct frames *f, uint64_t bytes)
{
	uint64_t old = atomic_fetch_sub_explicit(&f->used_bytes, bytes, memory_order_relaxed);

	/* I2: an owner gives back only what it charged. */
	tmem_assert(I2, old >= bytes);
	(void)old;
}

void frames_set_limit(struct frames *f, uint64_t limit_bytes)
{
	atomic_store_explicit(&f->limit_bytes, limit_bytes, memory_order_relaxed);
}
