/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The end of the process when a check fails.
 *
 * Nothing here may allocate or take a lock: the check that failed can be one
 * inside the allocator or the lock code.
 */
#include "os/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void os_check_failed(const char *what, const char *file, int line)
{
	char text[512];
	int n = snprintf(text, sizeof(text), "tmem: %s:%d: check failed: %s\n", file, line, what);
	size_t len = n < 0 ? 0 : (size_t)n;

	if (len >= sizeof(text)) {
		len = sizeof(text) - 1;
		text[len - 1] = '\n';
	}
	/* The process ends next: there is nobody left to tell that this failed. */
	if (write(STDERR_FILENO, text, len) < 0)
		abort();
	abort();
}
