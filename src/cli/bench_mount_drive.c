/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `tmem bench mount` does inside its box: mounts in one way, and reads.
 *
 * What is read, below the source (each is left out where there is none):
 *
 *   big/      files: in order by 128 KiB, and at random by 4 KiB, at the same places in each pass
 *   small/     all files of all folders in it, opened, read and closed
 *   tree/      a git repository: `git status`, and `grep -r` for something that is not there
 *
 * Each in three passes; everything is cold in the first.
 *
 *   kept/      two files that fit: one at random, one in order, pass after pass, with the kernel's
 * own pages of them thrown out before each. So the first pass is of misses alone, the others of
 * hits alone, where there is something to hit
 */
#include "cleancache/mount.h"
#include "cli/bench_mount.h"
#include "cli/cli.h"

#include "os/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCK	      (128u << 10)
#define RANDOM_BLOCK  4096u
#define BIG_MOST      16u
#define TIMES_MOST    (1u << 20)
#define MOUNT_WAIT_NS 30000000000ull
#define POLL_NS	      20000000ull

const char *const mount_way_name[MOUNT_WAYS] = {"bare", "rclone", "tmem"};
const char *const mount_work_name[WORKS] = {"in order", "at random",	"small files", "git status",
					    "grep -r",	"kept, random", "kept, order"};
const char *const mount_pass_name[MOUNT_PASSES] = {"cold", "warm", "again"};

/* ---- times ------------------------------------------------------------------------------ */

static float *times; /* us */
static size_t ntimes;
static uint64_t work_end_ns;

static bool too_long(struct mount_cell *c)
{
	return c->cut |= os_clock_ns() > work_end_ns;
}

static void timed(uint64_t began_ns)
{
	if (ntimes < TIMES_MOST)
		times[ntimes++] = (float)(os_clock_ns() - began_ns) / 1000.0f;
}

static int compare(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return x < y ? -1 : x > y;
}

static void percentiles(struct mount_cell *c)
{
	if (!ntimes)
		return;
	qsort(times, ntimes, sizeof(*times), compare);
	c->p50_us = times[ntimes / 2];
	c->p99_us = times[ntimes * 99 / 100];
	c->operations = ntimes;
}

/* ---- what is read ----------------------------------------------------------------------- */

static char buf[BLOCK];

static int open_files(const char *dir, const char *which, int fd[BIG_MOST])
{
	char path[4200];
	struct dirent **list;
	int n, k = 0;

	snprintf(path, sizeof(path), "%s/%s", dir, which);
	n = scandir(path, &list, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		if (list[i]->d_name[0] != '.' && k < (int)BIG_MOST) {
			snprintf(path, sizeof(path), "%s/%s/%s", dir, which, list[i]->d_name);
			fd[k] = open(path, O_RDONLY | O_CLOEXEC);
			k += fd[k] >= 0;
		}
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	return k;
}

static void read_file(int fd, struct mount_cell *c)
{
	for (off_t at = 0; !too_long(c);) {
		uint64_t began = os_clock_ns();
		ssize_t got = pread(fd, buf, BLOCK, at);

		if (got <= 0)
			return;
		timed(began);
		c->bytes += (uint64_t)got;
		at += got;
	}
}

static bool read_in_order(const char *dir, struct mount_cell *c)
{
	int fd[BIG_MOST], n = open_files(dir, "big", fd);

	for (int i = 0; i < n; i++) {
		read_file(fd[i], c);
		close(fd[i]);
	}
	return n > 0;
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static bool read_at_random(const char *dir, const struct mount_job *job, struct mount_cell *c)
{
	int fd[BIG_MOST], n = open_files(dir, "big", fd);
	struct stat st;

	for (unsigned i = 0; n && i < job->reads && !too_long(c); i++) {
		uint64_t r = mix(job->seed + i), began;
		int k = (int)(r % (unsigned)n);

		if (fstat(fd[k], &st) || st.st_size < (off_t)RANDOM_BLOCK)
			continue;
		(void)posix_fadvise(fd[k], 0, 0, POSIX_FADV_RANDOM);
		began = os_clock_ns();
		if (pread(fd[k], buf, RANDOM_BLOCK,
			  (off_t)(mix(r) % ((uint64_t)st.st_size / RANDOM_BLOCK)) * RANDOM_BLOCK) ==
		    (ssize_t)RANDOM_BLOCK) {
			timed(began);
			c->bytes += RANDOM_BLOCK;
		}
	}
	for (int i = 0; i < n; i++)
		close(fd[i]);
	return n > 0;
}

/* Each page of it once. */
static void read_pages(int fd, const struct mount_job *job, struct mount_cell *c)
{
	struct stat st;
	uint64_t pages, step;

	if (fstat(fd, &st) || st.st_size < (off_t)RANDOM_BLOCK)
		return;
	pages = (uint64_t)st.st_size / RANDOM_BLOCK;
	step = cli_stride(pages, mix(job->seed) % pages + 1);
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	for (uint64_t i = 0, at = 0; i < pages && !too_long(c); i++, at = (at + step) % pages) {
		uint64_t began = os_clock_ns();

		if (pread(fd, buf, RANDOM_BLOCK, (off_t)(at * RANDOM_BLOCK)) <= 0)
			return;
		timed(began);
		c->bytes += RANDOM_BLOCK;
	}
}

static bool read_kept(const char *dir, const struct mount_job *job, enum mount_work work,
		      struct mount_cell *c)
{
	int fd[BIG_MOST], n = open_files(dir, "kept", fd);
	unsigned which = work == WORK_KEPT_RANDOM ? 0 : 1;

	if (n > (int)which) {
		(void)posix_fadvise(fd[which], 0, 0, POSIX_FADV_DONTNEED);
		if (which == 0)
			read_pages(fd[which], job, c);
		else
			read_file(fd[which], c);
	}
	for (int i = 0; i < n; i++)
		close(fd[i]);
	return n > (int)which;
}

static struct mount_cell *small_cell;

static int read_small(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	uint64_t began = os_clock_ns();
	ssize_t got;
	int fd;

	(void)st;
	(void)ftw;
	if (too_long(small_cell))
		return 1;
	if (type != FTW_F)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	while ((got = read(fd, buf, BLOCK)) > 0)
		small_cell->bytes += (uint64_t)got;
	close(fd);
	timed(began);
	return 0;
}

static bool read_all_small(const char *dir, struct mount_cell *c)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/small", dir);
	small_cell = c;
	return nftw(path, read_small, 32, FTW_PHYS) >= 0 && c->bytes;
}

/* A program, its output thrown away; false: it is not there, or failed in earnest. */
static bool run(char *const argv[], struct mount_cell *c)
{
	int status, null;
	pid_t pid = fork(), ended = 0;

	if (pid == 0) {
		null = open("/dev/null", O_RDWR);
		dup2(null, 1);
		dup2(null, 2);
		execvp(argv[0], argv);
		_exit(127);
	}
	while (pid > 0 && !(ended = waitpid(pid, &status, WNOHANG))) {
		if (!c->cut && too_long(c))
			kill(pid, SIGKILL);
		os_sleep_ns(POLL_NS / 10);
	}
	if (ended != pid)
		return false;
	return c->cut || (WIFEXITED(status) && WEXITSTATUS(status) < 2);
}

static bool run_in_tree(const char *dir, enum mount_work work, struct mount_cell *c)
{
	char tree[4200], git[] = "git", in[] = "-C", status[] = "status", grep[] = "grep",
			 r[] = "-rq", nowhere[] = "what is not in there",
			 locks[] = "--no-optional-locks";
	char *const status_argv[] = {git, locks, in, tree, status, NULL};
	char *const grep_argv[] = {grep, r, nowhere, tree, NULL};

	snprintf(tree, sizeof(tree), "%s/tree", dir);
	if (access(tree, R_OK))
		return false;
	return run(work == WORK_GIT ? status_argv : grep_argv, c);
}

static void one_work(const struct mount_job *job, const char *dir, enum mount_work work,
		     struct mount_cell *c)
{
	uint64_t began = os_clock_ns();
	bool done;

	ntimes = 0;
	work_end_ns = began + MOUNT_WORK_MOST_S * 1000000000ull;
	if (work == WORK_SEQUENTIAL)
		done = read_in_order(dir, c);
	else if (work == WORK_RANDOM)
		done = read_at_random(dir, job, c);
	else if (work == WORK_SMALL)
		done = read_all_small(dir, c);
	else if (work == WORK_KEPT_RANDOM || work == WORK_KEPT_SEQUENTIAL)
		done = read_kept(dir, job, work, c);
	else
		done = run_in_tree(dir, work, c);
	c->wall_s = done ? (double)(os_clock_ns() - began) / 1e9 : 0;
	percentiles(c);
}

/* Pass by pass, and then what is kept work by work. */
static void all_works(const struct mount_job *job, const char *dir, struct mount_result *r)
{
	const unsigned first = MOUNT_PASSES * WORK_KEPT_RANDOM, all = MOUNT_PASSES * WORKS;
	struct progress bar;
	char label[64];

	progress_start(&bar, mount_way_name[job->way], all);
	for (unsigned i = 0; i < all; i++) {
		bool kept = i >= first;
		unsigned pass = kept ? (i - first) % MOUNT_PASSES : i / WORK_KEPT_RANDOM;
		unsigned work =
			kept ? WORK_KEPT_RANDOM + (i - first) / MOUNT_PASSES : i % WORK_KEPT_RANDOM;

		snprintf(label, sizeof(label), "%s %s %s", mount_way_name[job->way],
			 mount_pass_name[pass], mount_work_name[work]);
		progress_label(&bar, label);
		one_work(job, dir, (enum mount_work)work, &r->cell[pass][work]);
		progress_add(&bar, 1);
	}
	progress_end(&bar);
}

/* ---- mounts ----------------------------------------------------------------------------- */

static pid_t start(const struct mount_job *job)
{
	char size[32], self[] = "/proc/self/exe", more[1024], *argv[32], *save = NULL;
	unsigned n = 0;
	pid_t pid;

	snprintf(size, sizeof(size), "%llu", (unsigned long long)job->size_bytes);
	snprintf(more, sizeof(more), "%s", job->options ? job->options : "");
	if (job->way == MOUNT_TMEM) {
		const char *const first[] = {self, "mount", "-f", "--size", size};

		for (; n < 5; n++)
			argv[n] = (char *)(uintptr_t)first[n];
		for (char *at = strtok_r(more, " ", &save); at && n < 28;
		     at = strtok_r(NULL, " ", &save))
			argv[n++] = at;
	} else {
		const char *const first[] = {"rclone",	 "mount",	"--vfs-cache-mode",
					     "full",	 "--cache-dir", job->cache,
					     "--config", "/dev/null"};

		for (; n < 8; n++)
			argv[n] = (char *)(uintptr_t)first[n];
	}
	argv[n++] = (char *)(uintptr_t)job->source;
	argv[n++] = (char *)(uintptr_t)job->point;
	argv[n] = NULL;
	pid = fork();
	if (pid == 0) {
		execvp(argv[0], argv);
		_exit(127);
	}
	return pid;
}

/* Until another file system is there. */
static bool is_mounted(const struct mount_job *job, pid_t pid)
{
	uint64_t end = os_clock_ns() + MOUNT_WAIT_NS;
	struct stat before, now;
	char parent[4200];

	snprintf(parent, sizeof(parent), "%s/..", job->point);
	if (stat(parent, &before))
		return false;
	while (os_clock_ns() < end) {
		if (stat(job->point, &now) == 0 && now.st_dev != before.st_dev)
			return true;
		if (waitpid(pid, NULL, WNOHANG) == pid)
			return false;
		os_sleep_ns(POLL_NS);
	}
	return false;
}

static void ask_store(const char *dir, struct mount_result *r)
{
	static struct cc_text text;
	int fd = open(dir, O_RDONLY | O_CLOEXEC);
	const char *at;

	if (fd < 0 || ioctl(fd, CC_IOC_STAT, &text) < 0) {
		if (fd >= 0)
			close(fd);
		return;
	}
	close(fd);
	if ((at = strstr(text.text, "\npages ")))
		r->store_pages = strtoull(at + 7, NULL, 10);
	if ((at = strstr(text.text, "\nstore_bytes ")))
		r->store_bytes = strtoull(at + 13, NULL, 10);
	if ((at = strstr(text.text, "\ncompressed_bytes ")))
		r->compressed_bytes = strtoull(at + 18, NULL, 10);
}

int mount_drive(const struct mount_job *job, struct mount_result *r)
{
	const char *dir = job->way == MOUNT_BARE ? job->source : job->point;
	pid_t pid = 0;

	times = malloc(TIMES_MOST * sizeof(*times));
	if (!times)
		return CLI_FAILED;
	if (job->way != MOUNT_BARE) {
		pid = start(job);
		if (pid < 0 || !is_mounted(job, pid)) {
			snprintf(r->why_not, sizeof(r->why_not), "it cannot be mounted");
			if (pid > 0)
				kill(pid, SIGKILL);
			return CLI_OK;
		}
	}
	all_works(job, dir, r);
	if (job->way == MOUNT_TMEM)
		ask_store(dir, r);
	if (pid) {
		if (umount2(job->point, 0))
			umount2(job->point, MNT_DETACH);
		kill(pid, SIGTERM);
		waitpid(pid, NULL, 0);
	}
	free(times);
	return CLI_OK;
}
