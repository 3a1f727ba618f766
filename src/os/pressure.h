/* SPDX-License-Identifier: BSD-2-Clause */
/* How short of memory the machine, or our control group, is (Linux PSI). */
#ifndef TMEM_OS_PRESSURE_H
#define TMEM_OS_PRESSURE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Which file says it for this process: memory.pressure of its own control group
 * (version 2, not the root), else /proc/pressure/memory. 0 with the path in
 * buf; -ENOENT: this kernel has none, or it may not be read.
 */
int os_pressure_find(char *buf, size_t len) __attribute__((warn_unused_result));
/*
 * Microseconds, ever, in which some task waited for memory. 0, or -errno (what
 * is not such a file: -EINVAL).
 */
int os_pressure_read(const char *path, uint64_t *some_us) __attribute__((warn_unused_result));

#endif
