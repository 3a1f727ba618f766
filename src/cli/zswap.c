/* SPDX-License-Identifier: BSD-2-Clause */
/* See zswap.h. */
#include "cli/zswap.h"
#include "cli/zram.h"

#include "os/file.h"
#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <unistd.h>

#define PARAMETERS "/sys/module/zswap/parameters"

static int set(const char *name, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), PARAMETERS "/%s", name);
	return os_file_write_text(path, value);
}

/* The first word of a parameter; false: unreadable. */
static bool get(const char *name, char *value, size_t len)
{
	char path[128], *text;

	snprintf(path, sizeof(path), PARAMETERS "/%s", name);
	text = os_file_slurp(path, 4096, NULL);
	if (text)
		snprintf(value, len, "%.*s", (int)strcspn(text, "\n "), text);
	os_free(text);
	return text != NULL;
}

int zswap_prepare(struct zswap *z, const char *codec, uint64_t bytes, char *err, size_t errlen)
{
	char now[32], path[sizeof(z->file)];
	int fd, code;

	if (!get("enabled", now, sizeof(now))) {
		snprintf(err, errlen, "this kernel has no zswap");
		return -ENOENT;
	}
	if (now[0] == 'Y') {
		snprintf(err, errlen, "zswap is in use");
		return -EBUSY;
	}
	if (!get("compressor", now, sizeof(now)))
		return -EIO;
	memcpy(z->compressor, now, sizeof(now));
	code = set("compressor", codec);
	if (code) {
		snprintf(err, errlen, "zswap does not take the codec %s: %s", codec,
			 strerror(-code));
		return code;
	}
	snprintf(path, sizeof(path), "/var/tmp/tmem-bench-%d.swap", (int)getpid());
	fd = os_file_open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0) {
		snprintf(err, errlen, "cannot make %s: %s", path, strerror(-fd));
		return fd;
	}
	memcpy(z->file, path, sizeof(path));
	code = -posix_fallocate(fd, 0, (off_t)bytes); /* swap wants no holes */
	if (!code)
		code = swap_format(fd, bytes);
	if (!code && fsync(fd))
		code = -errno;
	os_file_close(fd);
	if (code)
		snprintf(err, errlen, "cannot make a swap file: %s", strerror(-code));
	return code;
}

int zswap_switch(struct zswap *z, bool on, char *err, size_t errlen)
{
	int code = 0;

	if (z->on == on)
		return 0;
	if (on) {
		z->on = true;
		code = set("enabled", "Y");
		if (!code && swapon(z->file, SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK))
			code = -errno;
		if (code)
			snprintf(err, errlen, "cannot swap on %s: %s", z->file, strerror(-code));
		return code;
	}
	if (swapoff(z->file) && errno != EINVAL && errno != ENOENT)
		code = -errno;
	if (!code)
		code = set("enabled", "N");
	if (code)
		snprintf(err, errlen, "cannot end the swap on %s: %s", z->file, strerror(-code));
	else
		z->on = false;
	return code;
}

void zswap_usage(struct zswap_use *use)
{
	char *text = os_file_slurp("/proc/meminfo", 65536, NULL), *at;

	*use = (struct zswap_use){0};
	at = text ? strstr(text, "\nZswap:") : NULL;
	if (at)
		use->used_bytes = strtoull(at + 7, NULL, 10) * 1024;
	at = text ? strstr(text, "\nZswapped:") : NULL;
	if (at)
		use->stored_pages = strtoull(at + 10, NULL, 10) / 4;
	os_free(text);
}

int zswap_remove(struct zswap *z)
{
	char err[200];
	int code = zswap_switch(z, false, err, sizeof(err)), rc;

	if (code)
		return code; /* still in use: taking it away would lose pages */
	if (z->file[0] && unlink(z->file) && errno != ENOENT)
		code = -errno;
	z->file[0] = 0;
	rc = z->compressor[0] ? set("compressor", z->compressor) : 0;
	z->compressor[0] = 0;
	return code ? code : rc;
}
