/* SPDX-License-Identifier: BSD-2-Clause */
/* Time. A test may put its own clock in place of the monotonic one. */
#ifndef TMEM_OS_CLOCK_H
#define TMEM_OS_CLOCK_H

#include <stdint.h>

/* Nanoseconds of a clock that never goes back. */
uint64_t os_clock_ns(void);
/*
 * The same, rounded up to the kernel's tick: as a rule not before now, and at most
 * OS_CLOCK_TICK_NS later. For stamps by the million: it takes a fifth of the time.
 */
#define OS_CLOCK_TICK_NS 10000000u
uint64_t os_clock_tick_ns(void);
/* CPU time of the calling thread, nanoseconds. */
uint64_t os_clock_thread_cpu_ns(void);
/* Sleep; shorter only when the process is told to stop. */
void os_sleep_ns(uint64_t ns);
/*
 * Replace the source of os_clock_ns() and os_clock_tick_ns(), which then give the same
 * (NULL: the real one). For tests; not thread-safe.
 */
void os_clock_replace(uint64_t (*now)(void *ctx), void *ctx);

#endif
