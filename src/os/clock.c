/* SPDX-License-Identifier: BSD-2-Clause */
/* Clocks and sleep. */
#include "os/clock.h"

#include "os/check.h"

#include <stddef.h>
#include <time.h>

#define NS_PER_S UINT64_C(1000000000)

static uint64_t (*replacement)(void *ctx);
static void *replacement_ctx;

static uint64_t read_clock(clockid_t id)
{
	struct timespec ts;

	tmem_must(clock_gettime(id, &ts) == 0);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t os_clock_ns(void)
{
	if (tmem_unlikely(replacement != NULL))
		return replacement(replacement_ctx);
	return read_clock(CLOCK_MONOTONIC);
}

uint64_t os_clock_tick_ns(void)
{
	if (tmem_unlikely(replacement != NULL))
		return replacement(replacement_ctx);
	return read_clock(CLOCK_MONOTONIC_COARSE) + OS_CLOCK_TICK_NS;
}

uint64_t os_clock_thread_cpu_ns(void)
{
	return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

void os_sleep_ns(uint64_t ns)
{
	struct timespec ts = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};

	/*
	 * Not restarted after EINTR: a handler ran, and whoever sleeps in a
	 * loop wants to look at the flag that the handler may have set.
	 */
	(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
}

void os_clock_replace(uint64_t (*now)(void *ctx), void *ctx)
{
	replacement_ctx = ctx;
	replacement = now;
}
