/* SPDX-License-Identifier: BSD-2-Clause */
/* Time. A test may put its own clock in place of the monotonic one. */
#ifndef TMEM_OS_CLOCK_H
#define TMEM_OS_CLOCK_H

#include <stdint.h>

/* Nanoseconds of a clock that never goes back. */
uint64_t os_clock_ns(void);
/* CPU time of the calling thread, nanoseconds. */
uint64_t os_clock_thread_cpu_ns(void);
/* Sleep; shorter only when the process is told to stop. */
void os_sleep_ns(uint64_t ns);
/* Replace os_clock_ns's source (NULL: the real one). For tests; not thread-safe. */
void os_clock_replace(uint64_t (*now)(void *ctx), void *ctx);

#endif
