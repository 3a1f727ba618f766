/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages from files, and what both collectors share. See pages.h. */
#include "cli/pages.h"

#include "cli/cli.h"
#include "os/check.h"
#include "os/file.h"
#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE OS_FRAME_SIZE

static const struct {
	const char *name, *key;
} left_names[LEFT_KINDS] = {
	[LEFT_FILE] = {"file mappings", "file"},
	[LEFT_SHARED] = {"shared mappings", "shared"},
	[LEFT_STACK] = {"stacks", "stacks"},
	[LEFT_LOCKED] = {"locked", "locked"},
	[LEFT_HUGETLB] = {"huge TLB pages", "huge_tlb"},
	[LEFT_SPECIAL] = {"kernel and device mappings", "special"},
	[LEFT_COPY] = {"shared after fork, or never written", "copy_on_write"},
	[LEFT_SWAPPED] = {"already swapped out", "swapped"},
	[LEFT_UNREADABLE] = {"gone while being read", "unreadable"},
};

const char *pages_left_name(enum pages_left_out kind)
{
	return left_names[kind].name;
}

const char *pages_left_key(enum pages_left_out kind)
{
	return left_names[kind].key;
}

bool pages_is_pid(const char *text)
{
	return *text && strspn(text, "0123456789") == strlen(text);
}

/* ---- room and sampling ------------------------------------------------------- */

int pages_reserve(struct pages *p, uint64_t count)
{
	p->room = count;
	p->data = os_reserve(count * PAGE);
	p->number = os_reserve((count * sizeof(uint64_t) + PAGE - 1) / PAGE * PAGE);
	if (!p->data || !p->number)
		return -ENOMEM;
	return os_frames_populate(p->data, count * PAGE);
}

void pages_free(struct pages *p)
{
	if (p->data)
		os_unreserve(p->data, p->room * PAGE);
	if (p->number)
		os_unreserve(p->number, (p->room * sizeof(uint64_t) + PAGE - 1) / PAGE * PAGE);
	*p = (struct pages){0};
}

/* Bytes the machine could give us now; 0 if it does not say. */
static uint64_t memory_available(void)
{
	char *text = os_file_slurp("/proc/meminfo", 65536, NULL);
	const char *at = text ? strstr(text, "MemAvailable:") : NULL;
	uint64_t bytes = at ? strtoull(at + 13, NULL, 10) * 1024 : 0;

	os_free(text);
	return bytes;
}

double pages_fraction(const struct pages *p, const struct pages_want *want)
{
	double fraction = want->percent > 0 ? want->percent / 100 : 1;
	uint64_t max = want->max_bytes ? want->max_bytes : PAGES_MAX_DEFAULT;
	uint64_t memory = memory_available();

	/* A store of the same pages is built beside them: never take what the machine lacks. */
	if (memory && max > memory / 3)
		max = memory / 3;
	if ((double)p->eligible * PAGE * fraction > (double)max)
		fraction = (double)max / ((double)p->eligible * PAGE);
	return fraction;
}

unsigned pages_cluster(const struct pages *p, uint64_t i, unsigned size)
{
	uint64_t first = p->number[i];
	unsigned n = 1;

	while (i + n < p->count && p->number[i + n] == first + n && (first + n) % size != 0)
		n++;
	return n;
}

/* ---- files ------------------------------------------------------------------- */

struct file {
	const char *path;
	int fd;
	uint64_t bytes;
	uint64_t first; /* number of its first page */
};

static int open_one(struct file *f, char *err, size_t errlen)
{
	struct stat st;
	off_t end;
	int code;

	f->fd = os_file_open(f->path, O_RDONLY | O_NONBLOCK, 0);
	if (f->fd < 0) {
		snprintf(err, errlen, "cannot open '%s': %s", f->path, strerror(-f->fd));
		return f->fd;
	}
	code = -EINVAL;
	if (fstat(f->fd, &st)) {
		code = -errno;
		snprintf(err, errlen, "cannot read '%s': %s", f->path, strerror(errno));
	} else if (S_ISDIR(st.st_mode)) {
		snprintf(err, errlen, "'%s' is a directory", f->path);
	} else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		snprintf(err, errlen, "'%s' is neither a file nor a block device", f->path);
	} else if ((end = lseek(f->fd, 0, SEEK_END)) < 0) {
		snprintf(err, errlen, "cannot find the size of '%s': %s", f->path, strerror(errno));
	} else {
		f->bytes = (uint64_t)end;
		code = 0;
	}
	return code;
}

/* Read the sampled groups of all files. A group may span files: pages are numbered through. */
static int read_files(struct file *f, unsigned n, double fraction, struct pages *out, char *err,
		      size_t errlen)
{
	struct progress bar;
	unsigned k;
	int code = 0;

	progress_start(&bar, "reading", (uint64_t)((double)out->eligible * fraction));
	for (k = 0; k < n && !code; k++) {
		uint64_t pages = (f[k].bytes + PAGE - 1) / PAGE, i;

		for (i = 0; i < pages && out->count < out->room && !code; i++) {
			uint8_t *to = out->data + out->count * PAGE;
			ssize_t got;

			if (!pages_sampled((f[k].first + i) / PAGES_GROUP, fraction))
				continue;
			got = os_file_pread(f[k].fd, to, PAGE, i * PAGE);
			if (got < 0) {
				code = (int)got;
				snprintf(err, errlen, "cannot read '%s': %s", f[k].path,
					 strerror(-code));
				break;
			}
			if (got == 0)
				break; /* it became shorter: what there was, was read */
			memset(to + got, 0, PAGE - (size_t)got);
			out->number[out->count++] = f[k].first + i;
			progress_add(&bar, 1);
		}
	}
	progress_end(&bar);
	return code;
}

int pages_from_files(char *const *paths, unsigned n, const struct pages_want *want,
		     struct pages *out, char *err, size_t errlen)
{
	struct file *f = os_zalloc(n * sizeof(*f));
	double fraction;
	unsigned k, opened = 0;
	int code = f ? 0 : -ENOMEM;

	*out = (struct pages){0};
	if (code)
		snprintf(err, errlen, "out of memory");
	for (k = 0; k < n && !code; k++) {
		f[k].path = paths[k];
		f[k].first = out->eligible;
		code = open_one(&f[k], err, errlen);
		opened += f[k].fd >= 0;
		out->eligible += (f[k].bytes + PAGE - 1) / PAGE;
	}
	if (code)
		goto out;
	code = -ENODATA;
	if (out->eligible == 0) {
		snprintf(err, errlen, n == 1 ? "'%s' is empty" : "'%s' and the others are empty",
			 paths[0]);
		goto out;
	}
	fraction = pages_fraction(out, want);
	/* Even sampling may be off by one group. */
	code = pages_reserve(out, (uint64_t)((double)out->eligible * fraction) + PAGES_GROUP);
	if (code) {
		snprintf(err, errlen, "out of memory");
		goto out;
	}
	code = read_files(f, n, fraction, out, err, errlen);
	if (!code && out->count == 0) {
		code = -ENODATA;
		snprintf(err, errlen, "the sample of '%s' holds no page: sample more", paths[0]);
	}
	if (n == 1)
		snprintf(out->name, sizeof(out->name), "%s", paths[0]);
	else
		snprintf(out->name, sizeof(out->name), "%u files", n);
out:
	for (k = 0; k < opened; k++)
		os_file_close(f[k].fd);
	os_free(f);
	if (code)
		pages_free(out);
	return code;
}

int pages_save(const struct pages *p, const char *path)
{
	int fd = os_file_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	int code = fd;

	if (fd >= 0) {
		code = os_file_write(fd, p->data, p->count * PAGE);
		os_file_close(fd);
		if (code < 0)
			os_file_discard(path);
	}
	return code < 0 ? code : 0;
}
