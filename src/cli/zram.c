/* SPDX-License-Identifier: BSD-2-Clause */
/* See zram.h. */
#include "cli/zram.h"

#include "os/clock.h"
#include "os/file.h"
#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/swap.h>
#include <unistd.h>

#define CONTROL	    "/sys/class/zram-control"
#define PRIORITY    SWAP_FLAG_PRIO_MASK /* the highest there is */
#define TABLE_BYTES 16			/* of zram's own table, a page */

static int write_text(int id, const char *name, const char *text)
{
	char path[128];

	if (id < 0)
		snprintf(path, sizeof(path), CONTROL "/%s", name);
	else
		snprintf(path, sizeof(path), "/sys/block/zram%d/%s", id, name);
	return os_file_write_text(path, text);
}

/* Other swap of the highest priority would take a share of our pages. */
static int check_other_swap(char *err, size_t errlen)
{
	char *text = os_file_slurp("/proc/swaps", 65536, NULL), *line, *next, name[256];
	int priority, code = 0;

	for (line = text; line && (next = strchr(line, '\n')); line = next + 1) {
		*next = 0;
		if (sscanf(line, "%255s %*s %*s %*s %d", name, &priority) == 2 &&
		    priority >= PRIORITY) {
			snprintf(err, errlen, "the swap on %s has the highest priority already",
				 name);
			code = -EBUSY;
		}
	}
	os_free(text);
	return code;
}

int zram_add(const char *codec, uint64_t disk_bytes, volatile int *id, char *err, size_t errlen)
{
	char number[32], *text;
	int code;

	text = os_file_slurp(CONTROL "/hot_add", 64, NULL); /* reading it is what adds */
	if (!text) {
		code = -errno;
		snprintf(err, errlen,
			 code == -ENOENT ? "this kernel has no zram (%s: %s)"
					 : "no zram device can be added (%s: %s)",
			 CONTROL, strerror(-code));
		return code;
	}
	*id = atoi(text);
	os_free(text);
	code = write_text(*id, "comp_algorithm", codec);
	if (code) {
		snprintf(err, errlen, "zram does not know the codec %s: %s", codec,
			 strerror(-code));
		return code;
	}
	snprintf(number, sizeof(number), "%" PRIu64, disk_bytes);
	code = write_text(*id, "disksize", number);
	if (code)
		snprintf(err, errlen, "zram refuses a size of %s bytes: %s", number,
			 strerror(-code));
	return code;
}

int zram_open(int id, int flags)
{
	char path[32];
	int fd, tries;

	snprintf(path, sizeof(path), "/dev/zram%d", id);
	/* The device node is made by others and may take a moment. */
	for (tries = 0; (fd = os_file_open(path, flags, 0)) == -ENOENT && tries < 200; tries++)
		os_sleep_ns(10000000);
	return fd;
}

int zram_write(int id, const void *pages, uint64_t count)
{
	uint64_t at, bytes = count * 4096, step = 1 << 20;
	int fd = zram_open(id, O_WRONLY | O_DIRECT), code = fd < 0 ? fd : 0;

	for (at = 0; at < bytes && !code; at += step)
		code = os_file_pwrite(fd, (const char *)pages + at,
				      bytes - at < step ? bytes - at : step, at);
	if (fd >= 0)
		os_file_close(fd);
	return code;
}

int swap_format(int fd, uint64_t bytes)
{
	uint8_t page[4096] = {0};
	uint32_t version = 1, last = (uint32_t)(bytes / sizeof(page) - 1);

	memcpy(page + 1024, &version, 4);
	memcpy(page + 1028, &last, 4);
	memcpy(page + sizeof(page) - 10, "SWAPSPACE2", 10);
	return os_file_pwrite(fd, page, sizeof(page), 0);
}

int zram_swap_on(int id, char *err, size_t errlen)
{
	char path[32];
	int fd, code;
	off_t end;

	code = check_other_swap(err, errlen);
	if (code)
		return code;
	snprintf(path, sizeof(path), "/dev/zram%d", id);
	fd = zram_open(id, O_RDWR);
	code = fd;
	if (fd >= 0) {
		end = lseek(fd, 0, SEEK_END);
		code = end > 0 ? swap_format(fd, (uint64_t)end) : -EIO;
		if (!code && fsync(fd))
			code = -errno;
		os_file_close(fd);
	}
	if (!code && swapon(path, SWAP_FLAG_PREFER | PRIORITY))
		code = -errno;
	if (code)
		snprintf(err, errlen, "cannot swap on %s: %s", path, strerror(-code));
	return code;
}

void zram_usage(int id, struct zram_use *use)
{
	char path[64], *text;
	uint64_t original, compressed, memory;

	*use = (struct zram_use){0};
	snprintf(path, sizeof(path), "/sys/block/zram%d/mm_stat", id);
	text = os_file_slurp(path, 4096, NULL);
	if (text && sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64, &original, &compressed,
			   &memory) == 3) {
		use->stored_pages = original / 4096;
		use->compressed_bytes = compressed;
		use->used_bytes = memory + TABLE_BYTES * use->stored_pages;
	}
	os_free(text);
}

int zram_swap_off(int id)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/zram%d", id);
	return swapoff(path) && errno != EINVAL && errno != ENOENT ? -errno : 0;
}

int zram_remove(int id)
{
	char number[16];
	int code = zram_swap_off(id), tries;

	if (code)
		return code; /* still in use: removing it would lose pages */
	snprintf(number, sizeof(number), "%d", id);
	for (tries = 0; tries < 200; tries++) {
		write_text(id, "reset", "1");
		code = write_text(-1, "hot_remove", number);
		if (code != -EBUSY)
			break;
		os_sleep_ns(10000000); /* somebody looks at the new device: udev, blkid */
	}
	return code == -ENODEV ? 0 : code;
}
