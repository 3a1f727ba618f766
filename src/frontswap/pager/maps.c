/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What /proc says about a process: its mappings, what is resident, its size.
 *
 * Managed are whole mappings that are anonymous, private, writable and at
 * least MANAGED_MIN: smaller ones are not worth a registration, and programs
 * keep their wipe-on-fork pages in such. Never stacks, file pages, special
 * mappings. Threads' stacks may lie inside a managed mapping (neighbours
 * merge); their pages are left alone one by one (victims.c).
 */
#include "frontswap/pager/run.h"
#include "frontswap/uffd.h"

#include "os/clock.h"
#include "os/file.h"
#include "os/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MANAGED_MIN (16u * AGENT_PAGE)
#define REGIONS	    512
#define LEARN_MAX   (64ull << 30) /* of one mapping, where every page has to be asked for */
#define FILLED_NS   1u		  /* bytes of fresh memory that a program fills in a nanosecond */

bool maps_statm(int *fd, pid_t pid, uint64_t *size, uint64_t *resident, uint64_t *shared,
		uint64_t *data)
{
	char text[128];
	ssize_t n;

	if (*fd < 0) {
		char path[40] = "/proc/self/statm";

		if (pid)
			snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
		*fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	n = *fd >= 0 ? pread(*fd, text, sizeof(text) - 1, 0) : 0;
	if (n <= 0)
		return false;
	text[n] = 0;
	return sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %*u %*u %" SCNu64, size, resident,
		      shared, data) == 4;
}

/* A sum over all mappings, in bytes; the kernel walks all of their pages. */
static uint64_t rollup(pid_t pid, const char *what)
{
	char path[40], *text, *at;
	uint64_t kib = 0;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	text = os_file_slurp(path, 65536, NULL);
	if (!text)
		return 0;
	at = strstr(text, what);
	if (at)
		kib = strtoull(at + strlen(what), NULL, 10);
	os_free(text);
	return kib << 10;
}

uint64_t maps_pss_anon(pid_t pid)
{
	return rollup(pid, "Pss_Anon:");
}

bool maps_wiped_on_fork(pid_t pid, uint64_t addr)
{
	char path[40], line[512];
	uint64_t start, end;
	bool here = false, wiped = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2)
			here = addr >= start && addr < end;
		else if (here && !strncmp(line, "VmFlags:", 8))
			wiped = strstr(line, " wf") != NULL;
	}
	if (f)
		fclose(f);
	return wiped;
}

/*
 * A task's number as itself has it, the last of NSpid: one for each PID namespace down to its own.
 * 0: it is gone; -1: that cannot be read now.
 */
static int32_t own_number(const char *status, bool *nested)
{
	char *text = os_file_slurp(status, 65536, NULL), *at, *end;
	int32_t number = -1;

	if (!text)
		return errno == ENOENT || errno == ESRCH ? 0 : -1;
	*nested = false;
	at = strstr(text, "\nNSpid:");
	for (at = at ? at + 7 : NULL; at; at = end) {
		long n = strtol(at, &end, 10);

		if (end == at || *at == '\n')
			break;
		*nested = number > 0;
		number = (int32_t)n;
		if (*end == '\n')
			break;
	}
	os_free(text);
	return number;
}

static void free_entry(struct agent_thread *t, int32_t tid)
{
	if (atomic_compare_exchange_strong(&t->tid, &tid, AGENT_TID_BUSY)) {
		atomic_store(&t->start, 0);
		atomic_store(&t->end, 0);
		atomic_store(&t->tid, AGENT_TID_FREE);
	}
}

/* What of tid[] is a task of the process, or may be, becomes 0. */
static bool strike_alive(const struct space *sp, int32_t *tid, unsigned n)
{
	char path[300];
	struct dirent *task;
	bool known = true, nested;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)sp->pid);
	tasks = opendir(path);
	while (known && tasks && (task = readdir(tasks))) {
		int32_t number;

		if (task->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)sp->pid, task->d_name);
		number = own_number(path, &nested);
		known = number >= 0;
		for (unsigned i = 0; i < n; i++)
			if (tid[i] == number)
				tid[i] = 0;
	}
	if (tasks)
		closedir(tasks);
	return known && tasks;
}

/* The same in a PID namespace of its own, where its numbers are others than those in our /proc. */
static void prune_nested(struct space *sp)
{
	int32_t *tid = os_alloc(AGENT_THREADS * sizeof(*tid));
	unsigned n = 0;

	/* The entries first: who comes after has a task that is seen, or no entry here. */
	while (tid && n < AGENT_THREADS &&
	       (tid[n] = atomic_load(&sp->shm->threads[n].tid)) != AGENT_TID_END)
		n++;
	if (tid && strike_alive(sp, tid, n))
		for (unsigned i = 0; i < n; i++)
			if (tid[i] > 0)
				free_entry(&sp->shm->threads[i], tid[i]);
	os_free(tid);
}

/* Entries of threads whose task is gone are free again. */
void maps_prune_threads(struct space *sp)
{
	if (sp->nested == NESTED_UNKNOWN) {
		char path[40];
		bool nested;

		snprintf(path, sizeof(path), "/proc/%d/status", (int)sp->pid);
		if (own_number(path, &nested) <= 0)
			return;
		sp->nested = nested ? NESTED : NESTED_NOT;
	}
	if (sp->nested == NESTED) {
		prune_nested(sp);
		return;
	}
	for (unsigned i = 0; i < AGENT_THREADS; i++) {
		struct agent_thread *t = &sp->shm->threads[i];
		int32_t tid = atomic_load(&t->tid);
		char path[48];

		if (tid == AGENT_TID_END)
			return;
		if (tid < 0 || tid == sp->pid)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)sp->pid, (int)tid);
		if (access(path, F_OK) < 0)
			free_entry(t, tid);
	}
}

/* The same before Linux 6.7. What is not found stays where it is, and is not evicted. */
static void learn_by_page(struct space *sp, struct segment *seg, uint64_t start, uint64_t end)
{
	uint64_t e[REGIONS];

	if (end - start > LEARN_MAX)
		end = start + LEARN_MAX;
	while (start < end) {
		uint64_t n =
			(end - start) / AGENT_PAGE < REGIONS ? (end - start) / AGENT_PAGE : REGIONS;
		ssize_t got = pread(sp->pagemap, e, n * sizeof(e[0]),
				    (off_t)(start / AGENT_PAGE * sizeof(e[0])));

		if (got < (ssize_t)sizeof(e[0]))
			return;
		n = (uint64_t)got / sizeof(e[0]);
		for (uint64_t i = 0, k; i < n; i = k + 1) {
			for (k = i; k < n && e[k] & PAGEMAP_PRESENT; k++)
				;
			if (k > i)
				space_mark_resident(sp, seg, start + i * AGENT_PAGE, k - i,
						    ARRIVAL_FOUND);
			for (; k > i; i++)
				if (!(e[i] & (PAGEMAP_EXCLUSIVE | PAGEMAP_FILE)))
					space_mark_zero(sp, seg, start + i * AGENT_PAGE, 1);
		}
		start += n * AGENT_PAGE;
	}
}

/* Learn which pages of [start, end) are there, by the kernel's own word. */
static void learn_resident(struct space *sp, struct segment *seg, uint64_t start, uint64_t end)
{
	struct page_region *regions = os_alloc(REGIONS * sizeof(*regions));

	while (regions && start < end) {
		struct pm_scan_arg a = {.size = sizeof(a),
					.start = start,
					.end = end,
					.vec = (uintptr_t)regions,
					.vec_len = REGIONS,
					.category_mask = PAGE_IS_PRESENT,
					.return_mask = PAGE_IS_PRESENT | PAGE_IS_PFNZERO};
		int n = ioctl(sp->pagemap, PAGEMAP_SCAN, &a);

		if (n < 0) {
			if (errno == ENOTTY)
				learn_by_page(sp, seg, start, end);
			break;
		}
		for (int i = 0; i < n; i++) {
			uint64_t pages = (regions[i].end - regions[i].start) / AGENT_PAGE;

			space_mark_resident(sp, seg, regions[i].start, pages, ARRIVAL_FOUND);
			if (regions[i].categories & PAGE_IS_PFNZERO)
				space_mark_zero(sp, seg, regions[i].start, pages);
		}
		if (a.walk_end <= start)
			break;
		start = a.walk_end;
	}
	os_free(regions);
}

/*
 * A line of maps is old when it is read. A range that is a part of a mapping by
 * now must not be registered: the mapping would be cut, and a mremap of all of
 * it fail. Kernels that cannot be asked leave a window of microseconds more.
 */
static bool still_a_mapping(int maps, uint64_t start, uint64_t end)
{
	struct procmap_query q = {.size = sizeof(q), .query_addr = start};

	if (ioctl(maps, PROCMAP_QUERY, &q) < 0)
		return errno != ENOENT;
	return q.vma_start == start && q.vma_end == end;
}

bool maps_whole(pid_t pid, uint64_t start, uint64_t end)
{
	struct procmap_query first = {.size = sizeof(first), .query_addr = start};
	struct procmap_query last = {.size = sizeof(last), .query_addr = end - 1};
	char path[40];
	bool whole;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (ioctl(fd, PROCMAP_QUERY, &first) < 0 || ioctl(fd, PROCMAP_QUERY, &last) < 0)
		whole = errno != ENOENT; /* a kernel that cannot be asked */
	else
		whole = first.vma_start == start && last.vma_end == end;
	close(fd);
	return whole;
}

/*
 * Whether one mapping that is registered covers the range. It may be another than the one that
 * was registered a moment before: while nothing of a mapping is registered yet no event tells
 * that a part of it went, and what comes there next is not registered either. As a segment its
 * pages would leave, and no fault would bring them back. For the call see drop_unregistered();
 * before Linux 5.13 it does not tell.
 */
static bool is_registered(const struct space *sp, uint64_t start, uint64_t end)
{
	struct uffdio_continue c = {.range = {start, end - start}};

	return ioctl(sp->uffd, UFFDIO_CONTINUE, &c) == 0 || (errno != ENOENT && errno != EAGAIN);
}

/* Register a whole mapping; segments for the parts of it that are new. */
static void manage(struct space *sp, int maps, uint64_t start, uint64_t end)
{
	struct uffdio_register reg = {.range = {start, end - start},
				      .mode = UFFDIO_REGISTER_MODE_MISSING};
	uint64_t at = start;
	bool registered = false;

	while (at < end) {
		struct segment *s = space_find(sp, at);
		uint64_t stop = end;

		if (s) {
			at = s->end;
			continue;
		}
		for (uint32_t i = 0; i < sp->nsegs; i++) {
			if (sp->segs[i].start > at) {
				if (sp->segs[i].start < stop)
					stop = sp->segs[i].start;
				break;
			}
		}
		if (!registered) {
			/* EBUSY: the program's own userfaultfd has it. EINVAL: it changed since. */
			if (!still_a_mapping(maps, start, end)) {
				sp->maps_dirty = true;
				return;
			}
			if (ioctl(sp->uffd, UFFDIO_REGISTER, &reg) < 0)
				return;
			/* Cut after all: the other part joins it at the next scan. */
			if (!still_a_mapping(maps, start, end))
				sp->maps_dirty = true;
			registered = true;
			/* Without it the segments here may be of the past, or be
			 * about to come by an event; this is tried again. */
			if (!events_quiet_soon(sp)) {
				sp->maps_dirty = true;
				return;
			}
			at = start; /* and what was deferred may have moved some */
			continue;
		}
		if (!is_registered(sp, at, stop)) { /* what is will be found at the next scan */
			sp->maps_dirty = true;
			return;
		}
		if (space_add_segment(sp, at, stop) < 0)
			return;
		learn_resident(sp, space_find(sp, at), at, stop);
		space_early_over(sp, at, stop);
		at = stop;
	}
}

static bool manageable(struct space *sp, uint64_t start, uint64_t end, const char *perms,
		       uint64_t inode, const char *name)
{
	if (inode || perms[0] != 'r' || perms[1] != 'w' || perms[3] != 'p')
		return false;
	/* A small one that touches a managed one may be a part of the same. */
	if ((end - start < MANAGED_MIN && !space_find(sp, start - 1) && !space_find(sp, end)) ||
	    (start < sp->own_end && end > sp->own_start) || claim_covers(sp, start, end))
		return false;
	return !*name || !strcmp(name, "[heap]") || !strncmp(name, "[anon:", 6);
}

/*
 * With thousands of mappings a scan takes milliseconds, and faults wait for it: a tenth of the
 * time at most. But what is not registered grows past the limit with nobody in its way; so it is
 * not put off when more was mapped since the last than is filled while one takes.
 */
bool maps_due(const struct space *sp, uint64_t now, uint64_t size, uint64_t data)
{
	uint64_t grown = data > sp->maps_data ? (data - sp->maps_data) * AGENT_PAGE : 0;

	if (now < sp->next_scan_ns)
		return grown > sp->scan_ns * FILLED_NS;
	return sp->maps_dirty || size != sp->maps_size || data != sp->maps_data;
}

void maps_scan(struct space *sp)
{
	uint64_t begun = os_clock_ns();
	char path[40], line[512];
	FILE *f;

	if (!sp->pid || !atomic_load(&sp->agent_ready) || begun < sp->next_scan_ns)
		return;
	if (sp->ndeferred && !events_quiet(sp)) {
		sp->maps_dirty = true;
		return;
	}
	sp->maps_dirty = false;
	maps_prune_threads(sp);
	if (sp->pagemap < 0) {
		snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)sp->pid);
		sp->pagemap = open(path, O_RDONLY | O_CLOEXEC);
		if (sp->pagemap < 0)
			return;
	}
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)sp->pid);
	f = fopen(path, "re");
	if (!f)
		return;
	if (!sp->nsegs && rollup(sp->pid, "LazyFree:")) /* by a system call past libc, perhaps */
		sp->frees = true;
	while (fgets(line, sizeof(line), f)) {
		uint64_t start, end, inode;
		char perms[8], name[256] = "";

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %*x %*s %" SCNu64 " %255s", &start,
			   &end, perms, &inode, name) >= 4 &&
		    manageable(sp, start, end, perms, inode, name) &&
		    (!sp->run->opts.automatic || auto_wants(sp, start, end)))
			manage(sp, fileno(f), start, end);
	}
	fclose(f);
	sp->scan_ns = os_clock_ns() - begun;
	sp->next_scan_ns = begun + 10 * sp->scan_ns;
}

pid_t maps_parent(pid_t pid, char *state)
{
	char path[40], text[512];
	const char *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	at = strrchr(text, ')'); /* the name may hold anything */
	if (!at || strlen(at) <= 4)
		return 0;
	*state = at[2];
	return (pid_t)strtol(at + 4, NULL, 10);
}

bool maps_environ_holds(pid_t pid, const char *what)
{
	char path[40], *text;
	size_t len = 0;
	bool holds;

	snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
	text = os_file_slurp(path, 1 << 20, &len);
	holds = text && memmem(text, len, what, strlen(what));
	os_free(text);
	return holds;
}

/* A parent that ends while we look up breaks the chain: look again. */
bool maps_descends(pid_t pid, pid_t above)
{
	for (int attempt = 0; attempt < 5; attempt++) {
		pid_t up = pid;
		char state;

		for (int depth = 0; up > 1 && up != above && depth < 1000; depth++)
			up = maps_parent(up, &state);
		if (up != 0)
			return up == above;
	}
	return false;
}
