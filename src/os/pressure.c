/* SPDX-License-Identifier: BSD-2-Clause */
/* Pressure stall information: where it is, and the one number of it that is used. */
#include "os/pressure.h"

#include "os/file.h"
#include "os/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 65536

/* The path of our group in the unified hierarchy: the line "0::PATH". */
static int own_group(char *buf, size_t len)
{
	char *text = os_file_slurp("/proc/self/cgroup", TEXT_MAX, NULL), *line, *end;
	int rc = -ENOENT, n;

	if (!text)
		return rc;
	line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
	if (line) {
		line += *line == '\n' ? 4 : 3;
		end = strchr(line, '\n');
		if (end)
			*end = '\0';
		n = snprintf(buf, len, "/sys/fs/cgroup%s/memory.pressure", line);
		/* The root has no file of its own; what it would say is the machine's. */
		rc = strcmp(line, "/") != 0 && n > 0 && (size_t)n < len ? 0 : -ENOENT;
	}
	os_free(text);
	return rc;
}

int os_pressure_find(char *buf, size_t len)
{
	uint64_t us;
	int n;

	if (own_group(buf, len) == 0 && os_pressure_read(buf, &us) == 0)
		return 0;
	n = snprintf(buf, len, "/proc/pressure/memory");
	if (n < 0 || (size_t)n >= len || os_pressure_read(buf, &us))
		return -ENOENT;
	return 0;
}

int os_pressure_read(const char *path, uint64_t *some_us)
{
	char *text = os_file_slurp(path, 4096, NULL), *total, *end;
	int rc = -EINVAL;

	if (!text)
		return -errno;
	/* "some avg10=0.00 avg60=0.00 avg300=0.00 total=12345" is the first line. */
	total = strstr(text, "total=");
	if (strncmp(text, "some ", 5) == 0 && total) {
		errno = 0;
		*some_us = strtoull(total + 6, &end, 10);
		rc = errno || end == total + 6 ? -EINVAL : 0;
	}
	os_free(text);
	return rc;
}
