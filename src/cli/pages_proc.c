/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages of a live process: what `tmem run` could evict, copied while it runs.
 *
 *   /proc/PID/smaps ----> mappings, each eligible or left out with its Rss
 *   /proc/PID/task/N/syscall -> stack pointers: the mappings that are stacks
 *   /proc/PID/pagemap --> of eligible mappings: which pages are resident
 *   process_vm_readv ---> the pages of the sampled groups
 *
 * The pagemap is walked twice, once to count and once to read, instead of
 * keeping a list: a list for a process of 1 TB would take 2 GB. The process
 * goes on meanwhile, so the second walk may find other pages: what is over the
 * room that the first count gave is not taken, what went away is counted.
 *
 * Failure: a process that ends in the middle is an error (-ESRCH), because a
 * part of its memory says nothing about the whole.
 */
#include "cli/pages.h"

#include "cli/cli.h"
#include "os/file.h"
#include "os/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define PAGE OS_FRAME_SIZE

/* Bits of a pagemap entry. */
#define PM_EXCLUSIVE (1ull << 56)
#define PM_FILE	     (1ull << 61)
#define PM_SWAP	     (1ull << 62)
#define PM_PRESENT   (1ull << 63)

/* A stack in a larger mapping than this has been merged with something else: then leave it in. */
#define STACK_MAX (64ull << 20)

struct mapping {
	uint64_t start, end; /* addresses */
	uint64_t resident;   /* bytes */
	int left;	     /* enum pages_left_out, or -1: eligible */
};

struct target {
	int pid, pagemap;
	struct mapping *map;
	unsigned n, room;
};

/* ---- mappings ------------------------------------------------------------------ */

static struct mapping *new_mapping(struct target *t)
{
	if (t->n == t->room) {
		unsigned room = t->room ? t->room * 2 : 256;
		struct mapping *m = os_alloc(room * sizeof(*m));

		if (!m)
			return NULL;
		if (t->n)
			memcpy(m, t->map, t->n * sizeof(*m));
		os_free(t->map);
		t->map = m;
		t->room = room;
	}
	t->map[t->n] = (struct mapping){.left = -1};
	return &t->map[t->n++];
}

/* By the first line of a mapping in smaps. */
static int kind_by_line(const char *perms, uint64_t inode, const char *name)
{
	if (perms[3] == 's')
		return LEFT_SHARED;
	if (!strncmp(name, "[v", 2) || !strncmp(name, "[uprobes", 8))
		return LEFT_SPECIAL;
	if (!strncmp(name, "[stack", 6))
		return LEFT_STACK;
	return inode || name[0] == '/' ? LEFT_FILE : -1;
}

/* By its VmFlags, which outrank the first line. */
static int kind_by_flags(const char *flags, int kind)
{
	if (strstr(flags, " ht"))
		return LEFT_HUGETLB;
	if (strstr(flags, " io") || strstr(flags, " pf"))
		return LEFT_SPECIAL;
	if (kind == -1 && strstr(flags, " lo"))
		return LEFT_LOCKED;
	if (kind == -1 && strstr(flags, " gd"))
		return LEFT_STACK;
	return kind;
}

static int read_mappings(struct target *t)
{
	char path[64], *line = NULL;
	struct mapping *m = NULL;
	size_t size = 0;
	ssize_t len;
	FILE *f;
	int code = 0;

	snprintf(path, sizeof(path), "/proc/%d/smaps", t->pid);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	errno = 0;
	while ((len = getline(&line, &size, f)) > 0) {
		uint64_t start, end, inode, kb;
		char perms[5];
		int name = 0;

		line[len - 1] = 0;
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*x %*s %" SCNu64 " %n", &start, &end,
			   perms, &inode, &name) == 4) {
			m = new_mapping(t);
			if (!m) {
				code = -ENOMEM;
				break;
			}
			m->start = start;
			m->end = end;
			m->left = kind_by_line(perms, inode, line + name);
		} else if (!m) {
			continue;
		} else if (sscanf(line, "Rss: %" SCNu64, &kb) == 1 ||
			   sscanf(line, "Private_Hugetlb: %" SCNu64, &kb) == 1 ||
			   sscanf(line, "Shared_Hugetlb: %" SCNu64, &kb) == 1) {
			m->resident += kb * 1024;
		} else if (!strncmp(line, "VmFlags:", 8)) {
			m->left = kind_by_flags(line + 8, m->left);
		}
	}
	if (!code && ferror(f))
		code = errno ? -errno : -EIO;
	free(line);
	fclose(f);
	return code;
}

/* ---- stacks of threads ----------------------------------------------------------- */

/* The stack pointer of a thread that sleeps; 0 when it runs or nothing is told. */
static uint64_t stack_pointer(int pid, const char *tid)
{
	char path[288], *text;
	uint64_t sp = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%s/syscall", pid, tid);
	text = os_file_slurp(path, 512, NULL);
	if (text) {
		/* "NR A0 .. A5 SP PC", "-1 SP PC", or "running" */
		char *pc = strrchr(text, ' ');

		if (pc) {
			*pc = 0;
			pc = strrchr(text, ' ');
			sp = pc ? strtoull(pc, NULL, 16) : 0;
		}
		os_free(text);
	}
	return sp;
}

static void mark_stacks(struct target *t, struct pages *out)
{
	char path[64];
	struct dirent *e;
	unsigned i;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", t->pid);
	d = opendir(path);
	if (!d)
		return;
	while ((e = readdir(d))) {
		uint64_t sp;

		if (e->d_name[0] == '.')
			continue;
		sp = stack_pointer(t->pid, e->d_name);
		for (i = 0; i < t->n; i++)
			if (sp >= t->map[i].start && sp < t->map[i].end)
				break;
		if (sp && i < t->n && t->map[i].left == -1 &&
		    t->map[i].end - t->map[i].start <= STACK_MAX)
			t->map[i].left = LEFT_STACK;
		else if (atoi(e->d_name) != t->pid && (!sp || i == t->n || t->map[i].left == -1))
			out->stacks_unknown++;
	}
	closedir(d);
}

/* ---- pages ------------------------------------------------------------------------- */

/* Call fn for each pagemap entry of each eligible mapping, in order. */
static int walk(struct target *t, int (*fn)(void *arg, uint64_t number, uint64_t entry), void *arg)
{
	uint64_t entry[512];
	unsigned i, k;
	int code = 0;

	for (i = 0; i < t->n; i++) {
		uint64_t at = t->map[i].start / PAGE, end = t->map[i].end / PAGE;

		while (t->map[i].left == -1 && at < end) {
			size_t n = end - at < 512 ? (size_t)(end - at) : 512;
			ssize_t got = os_file_pread(t->pagemap, entry, n * 8, at * 8);

			if (got < 0)
				return (int)got;
			if (got < 8)
				return -ESRCH; /* the address space is gone */
			for (k = 0; k < (size_t)got / 8; k++) {
				code = fn(arg, at + k, entry[k]);
				if (code)
					return code;
			}
			at += (size_t)got / 8;
		}
	}
	return code;
}

static bool eligible(uint64_t entry)
{
	return (entry & (PM_PRESENT | PM_FILE | PM_EXCLUSIVE)) == (PM_PRESENT | PM_EXCLUSIVE);
}

static int count_page(void *arg, uint64_t number, uint64_t entry)
{
	struct pages *out = arg;

	if (eligible(entry))
		out->eligible++;
	else if (entry & PM_SWAP)
		out->left_out[LEFT_SWAPPED]++;
	else if (entry & PM_PRESENT)
		out->left_out[LEFT_COPY]++;
	return 0;
}

/* What the reading walk carries along: the pages of one group, not yet read. */
struct reader {
	struct target *target;
	struct pages *out;
	struct progress bar;
	double fraction;
	uint64_t group, groups; /* the present one; how many were met */
	bool sampled;		/* the present one is in the sample */
	unsigned n;
	uint64_t pending[PAGES_GROUP];
};

/* Read the pending pages; those that went away are counted, not taken. */
static int read_group(struct reader *r)
{
	struct pages *out = r->out;
	struct iovec from[PAGES_GROUP], to;
	unsigned i, k;
	ssize_t got;

	for (i = 0; i < r->n;) {
		unsigned n = r->n - i;
		uint64_t whole;

		if (n > out->room - out->count)
			n = (unsigned)(out->room - out->count);
		if (n == 0)
			break;
		for (k = 0; k < n; k++)
			from[k] =
				(struct iovec){(void *)(uintptr_t)(r->pending[i + k] * PAGE), PAGE};
		to = (struct iovec){out->data + out->count * PAGE, n * PAGE};
		got = process_vm_readv(r->target->pid, &to, 1, from, n, 0);
		if (got < 0 && errno != EFAULT)
			return -errno;
		whole = got > 0 ? (uint64_t)got / PAGE : 0;
		for (k = 0; k < whole; k++)
			out->number[out->count++] = r->pending[i + k];
		i += (unsigned)whole;
		if (whole < n) {
			out->left_out[LEFT_UNREADABLE]++;
			i++;
		}
	}
	progress_add(&r->bar, r->n);
	r->n = 0;
	return 0;
}

static int read_page(void *arg, uint64_t number, uint64_t entry)
{
	struct reader *r = arg;
	int code = 0;

	if (!eligible(entry))
		return 0;
	if (number / PAGES_GROUP != r->group || r->groups == 0) {
		code = read_group(r);
		r->group = number / PAGES_GROUP;
		r->sampled = pages_sampled(r->groups++, r->fraction);
	}
	if (r->sampled)
		r->pending[r->n++] = number;
	return code;
}

/* ---- the whole ----------------------------------------------------------------------- */

/* Kernel threads and zombies have no address space; statm gives zeros for them. */
static bool has_no_memory(int pid)
{
	char path[64], *text;
	bool none;

	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	text = os_file_slurp(path, 256, NULL);
	none = text && !strncmp(text, "0 ", 2);
	os_free(text);
	return none;
}

static void say(int code, int pid, char *err, size_t errlen)
{
	if (code == -ESRCH && has_no_memory(pid))
		code = -ENODATA;
	switch (code) {
	case -ENOENT:
	case -ESRCH:
		if (kill(pid, 0) && errno == ESRCH)
			snprintf(err, errlen, "there is no process %d, or it has ended", pid);
		else
			snprintf(err, errlen,
				 "process %d ended, or became another program, while "
				 "it was read",
				 pid);
		break;
	case -EACCES:
	case -EPERM:
		snprintf(err, errlen, "process %d is not ours to read: run as its user, or as root",
			 pid);
		break;
	case -ENODATA:
		snprintf(err, errlen,
			 "process %d has no private anonymous memory to read "
			 "(a kernel thread, or it has ended)",
			 pid);
		break;
	default:
		snprintf(err, errlen, "cannot read process %d: %s", pid, strerror(-code));
	}
}

static void read_name(struct pages *out)
{
	char path[64], *name;

	snprintf(path, sizeof(path), "/proc/%d/comm", out->pid);
	name = os_file_slurp(path, 256, NULL);
	snprintf(out->name, sizeof(out->name), "%s", name ? name : "?");
	out->name[strcspn(out->name, "\n")] = 0;
	os_free(name);
}

static int collect(struct target *t, const struct pages_want *want, struct pages *out)
{
	struct reader r = {.target = t, .out = out};
	uint64_t room;
	unsigned i;
	int code = read_mappings(t);

	if (code)
		return code;
	mark_stacks(t, out);
	for (i = 0; i < t->n; i++)
		if (t->map[i].left >= 0)
			out->left_out[t->map[i].left] += t->map[i].resident / PAGE;
	code = walk(t, count_page, out);
	if (code)
		return code;
	if (out->eligible == 0)
		return -ENODATA;
	r.fraction = pages_fraction(out, want);
	/* One group more than the part, because an even sample may be off by one. */
	room = (uint64_t)((double)out->eligible * r.fraction) + PAGES_GROUP;
	code = pages_reserve(out, room < out->eligible ? room : out->eligible);
	if (code)
		return code;
	progress_start(&r.bar, "reading", out->room);
	code = walk(t, read_page, &r);
	if (!code)
		code = read_group(&r);
	progress_end(&r.bar);
	return !code && out->count == 0 ? -ENODATA : code;
}

int pages_from_process(int pid, const struct pages_want *want, struct pages *out, char *err,
		       size_t errlen)
{
	struct target t = {.pid = pid};
	char path[64];
	int code;

	*out = (struct pages){.process = true, .pid = pid};
	read_name(out);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	t.pagemap = os_file_open(path, O_RDONLY, 0);
	code = t.pagemap;
	if (t.pagemap >= 0) {
		code = collect(&t, want, out);
		os_file_close(t.pagemap);
	}
	os_free(t.map);
	if (code) {
		say(code, pid, err, errlen);
		pages_free(out);
	}
	return code;
}
