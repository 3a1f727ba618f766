/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem bench mount: a slow source as it is, through rclone, and through tmem mount.
 *
 * Each way runs in a memory cgroup of its own with the same limit: the kernel's pages of the files,
 * and all memory of whoever serves the mount, are in it, so "how much memory" has one answer for
 * all. (rclone keeps files on the disk of --cache-dir, too, which costs no memory and is its own
 * advantage; that is how it is used.) Before each, the kernel's caches are dropped, as far as we
 * may. Ways take turns; figures are medians of the rounds.
 */
#include "cli/bench_mount.h"
#include "cleancache/mount.h"
#include "cli/bench_box.h"
#include "cli/cli.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define COMMAND	   "bench mount"
#define ROUNDS_MAX 20
#define DRIVE	   "--drive" /* not for users: the part inside the box */

struct mount_bench {
	struct mount_job job;
	uint64_t limit_bytes;
	unsigned rounds;
	bool leave_out[MOUNT_WAYS], json;
	struct box box;
	char point[80], cache[80], result[80];
	struct mount_result all[MOUNT_WAYS][ROUNDS_MAX];
	uint64_t peak[MOUNT_WAYS]; /* anonymous and shared memory in the group */
	char why_not[MOUNT_WAYS][200];
};

/* ---- one run ---------------------------------------------------------------------------- */

/* --drive WAY SOURCE POINT CACHE SIZE READS SEED RESULT [OPTIONS] */
static int drive(int argc, char **argv)
{
	struct mount_job job = {0};
	struct mount_result *r;
	int fd;

	if (argc < 10)
		return CLI_USAGE;
	job.way = (enum mount_way)atoi(argv[2]);
	job.source = argv[3];
	job.point = argv[4];
	job.cache = argv[5];
	job.size_bytes = strtoull(argv[6], NULL, 10);
	job.reads = (unsigned)strtoul(argv[7], NULL, 10);
	job.seed = strtoull(argv[8], NULL, 10);
	job.options = argc > 10 ? argv[10] : NULL;
	fd = os_file_open(argv[9], O_RDWR, 0);
	if (fd < 0)
		return CLI_FAILED;
	r = mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	os_file_close(fd);
	return r == MAP_FAILED ? CLI_FAILED : mount_drive(&job, r);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void empty(const char *dir)
{
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	(void)mkdir(dir, 0700);
}

static int one_run(struct mount_bench *b, enum mount_way way, unsigned round)
{
	char way_text[8], size[32], reads[16], seed[32], self[] = "/proc/self/exe", err[256];
	char bench[] = "bench", mount_[] = "mount", drive_[] = DRIVE;
	char *argv[] = {self,
			bench,
			mount_,
			drive_,
			way_text,
			(char *)(uintptr_t)b->job.source,
			b->point,
			b->cache,
			size,
			reads,
			seed,
			b->result,
			(char *)(uintptr_t)b->job.options,
			NULL};
	struct box_run run = {.argv = argv, .limit_bytes = b->limit_bytes, .timeout_s = 3600};
	struct mount_result *r = &b->all[way][round];
	int fd, rc;

	snprintf(way_text, sizeof(way_text), "%d", (int)way);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)b->job.size_bytes);
	snprintf(reads, sizeof(reads), "%u", b->job.reads);
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)b->job.seed);
	fd = os_file_open(b->result, O_RDWR | O_CREAT | O_TRUNC, 0600);
	rc = fd < 0 ? fd : os_file_truncate(fd, sizeof(*r));
	if (rc < 0)
		return cli_fail(COMMAND, "%s: %s", b->result, strerror(-rc));
	empty(b->cache);
	(void)os_file_write_text("/proc/sys/vm/drop_caches", "3");
	rc = box_run(&b->box, &run, err, sizeof(err));
	(void)umount2(b->point, MNT_DETACH); /* whatever became of it */
	if (rc == 0 && os_file_pread(fd, r, sizeof(*r), 0) != (ssize_t)sizeof(*r))
		rc = -EIO;
	os_file_close(fd);
	if (rc == -EINTR)
		return 128 + box_stopped();
	if (rc)
		return cli_fail(COMMAND, "%s: %s", mount_way_name[way], err);
	if (run.peak_resident > b->peak[way])
		b->peak[way] = run.peak_resident;
	if (run.out_of_memory)
		snprintf(b->why_not[way], sizeof(b->why_not[way]), "killed for lack of memory");
	else if (r->why_not[0])
		memcpy(b->why_not[way], r->why_not, sizeof(b->why_not[way]));
	else if (run.exit_code)
		snprintf(b->why_not[way], sizeof(b->why_not[way]), "exit code %d", run.exit_code);
	b->leave_out[way] |= b->why_not[way][0] != 0;
	return CLI_OK;
}

/* ---- figures ---------------------------------------------------------------------------- */

static double median(const struct mount_bench *b, enum mount_way way, unsigned pass, unsigned work,
		     size_t field)
{
	double v[ROUNDS_MAX];

	for (unsigned i = 0; i < b->rounds; i++)
		memcpy(&v[i], (const char *)&b->all[way][i].cell[pass][work] + field, sizeof(v[i]));
	return cli_median(v, b->rounds);
}
#define MEDIAN(b, way, pass, work, f) median(b, way, pass, work, offsetof(struct mount_cell, f))

static void print_row(const struct mount_bench *b, unsigned pass, unsigned work)
{
	bool any = false;

	for (int w = 0; w < MOUNT_WAYS; w++)
		any |= !b->leave_out[w] && b->all[w][0].cell[pass][work].wall_s > 0;
	if (!any)
		return;
	printf("%-12s %-6s", mount_work_name[work], mount_pass_name[pass]);
	for (int w = 0; w < MOUNT_WAYS; w++) {
		const struct mount_cell *c = &b->all[w][0].cell[pass][work];
		double wall = MEDIAN(b, (enum mount_way)w, pass, work, wall_s);

		if (b->leave_out[w])
			printf(" | %8s %8s %9s %9s", "-", "-", "-", "-");
		else if (c->operations)
			printf(" | %8.2f%c%8.1f %9.1f %9.1f", wall, c->cut ? '+' : ' ',
			       (double)c->bytes / wall / (1 << 20),
			       MEDIAN(b, (enum mount_way)w, pass, work, p50_us),
			       MEDIAN(b, (enum mount_way)w, pass, work, p99_us));
		else
			printf(" | %8.2f%c%8s %9s %9s", wall, c->cut ? '+' : ' ', "", "", "");
	}
	putchar('\n');
}

static bool any_cut(const struct mount_bench *b)
{
	bool any = false;

	for (int w = 0; w < MOUNT_WAYS; w++)
		for (unsigned i = 0; i < MOUNT_PASSES * WORKS; i++)
			any |= b->all[w][0].cell[i / WORKS][i % WORKS].cut;
	return any;
}

static int print_table(const struct mount_bench *b)
{
	char t[2][CLI_TEXT_MAX];

	printf("all memory of each: %s; tmem mount --size %s; %u round%s\n\n",
	       cli_bytes(t[0], b->limit_bytes, false), cli_bytes(t[1], b->job.size_bytes, false),
	       b->rounds, b->rounds > 1 ? "s" : "");
	printf("%-19s", "");
	for (int w = 0; w < MOUNT_WAYS; w++)
		printf(" | %-37s", mount_way_name[w]);
	printf("\n%-19s", "");
	for (int w = 0; w < MOUNT_WAYS; w++)
		printf(" | %8s %8s %9s %9s", "s", "MiB/s", "p50 us", "p99 us");
	putchar('\n');
	for (unsigned work = 0; work < WORKS; work++)
		for (unsigned pass = 0; pass < MOUNT_PASSES; pass++)
			print_row(b, pass, work);
	if (any_cut(b))
		printf("+: ended after %u s, before it was through\n", MOUNT_WORK_MOST_S);
	putchar('\n');
	for (int w = 0; w < MOUNT_WAYS; w++)
		if (b->why_not[w][0])
			printf("%s: %s\n", mount_way_name[w], b->why_not[w]);
		else if (!b->leave_out[w])
			printf("%s: anonymous memory at most %s\n", mount_way_name[w],
			       cli_bytes(t[0], b->peak[w], false));
	if (!b->leave_out[MOUNT_TMEM]) {
		const struct mount_result *r = &b->all[MOUNT_TMEM][b->rounds - 1];

		printf("tmem holds %s of files in %s: %.2f bytes of data for one of memory\n",
		       cli_bytes(t[0], r->store_pages * 4096, false),
		       cli_bytes(t[1], r->store_bytes, false),
		       (double)r->store_pages * 4096 / (double)r->store_bytes);
	}
	return cli_flush(COMMAND);
}

static json_t *cell_json(const struct mount_bench *b, enum mount_way way, unsigned pass,
			 unsigned work)
{
	json_t *o = json_object();

	cli_json_text(o, "work", mount_work_name[work]);
	cli_json_text(o, "pass", mount_pass_name[pass]);
	cli_json_real(o, "wall_s", MEDIAN(b, way, pass, work, wall_s));
	json_object_set_new(o, "ended", json_boolean(b->all[way][0].cell[pass][work].cut));
	cli_json_real(o, "p50_us", MEDIAN(b, way, pass, work, p50_us));
	cli_json_real(o, "p99_us", MEDIAN(b, way, pass, work, p99_us));
	cli_json_u64(o, "bytes", b->all[way][0].cell[pass][work].bytes);
	cli_json_u64(o, "operations", b->all[way][0].cell[pass][work].operations);
	return o;
}

static int print_json(const struct mount_bench *b)
{
	const struct mount_result *r = &b->all[MOUNT_TMEM][b->rounds - 1];
	json_t *o = cli_json(COMMAND);

	cli_json_u64(o, "limit_bytes", b->limit_bytes);
	cli_json_u64(o, "size_bytes", b->job.size_bytes);
	cli_json_u64(o, "rounds", b->rounds);
	for (int w = 0; w < MOUNT_WAYS; w++) {
		json_t *way = json_object(), *cells = json_array();

		for (unsigned pass = 0; !b->leave_out[w] && pass < MOUNT_PASSES; pass++)
			for (unsigned work = 0; work < WORKS; work++)
				json_array_append_new(cells,
						      cell_json(b, (enum mount_way)w, pass, work));
		json_object_set_new(way, "cells", cells);
		cli_json_u64(way, "peak_anonymous_bytes", b->peak[w]);
		cli_json_text(way, "not_measured", b->why_not[w][0] ? b->why_not[w] : NULL);
		json_object_set_new(o, mount_way_name[w], way);
	}
	cli_json_u64(o, "store_pages", r->store_pages);
	cli_json_u64(o, "store_bytes", r->store_bytes);
	return cli_json_print(o);
}

/* ---- the whole -------------------------------------------------------------------------- */

static uint64_t source_bytes;

static int add_bytes(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)path;
	(void)ftw;
	if (type == FTW_F)
		source_bytes += (uint64_t)st->st_size;
	return 0;
}

static int measure(struct mount_bench *b)
{
	int code = CLI_OK;

	for (unsigned round = 0; round < b->rounds && code == CLI_OK; round++)
		for (int w = 0; w < MOUNT_WAYS && code == CLI_OK; w++)
			if (!b->leave_out[w])
				code = one_run(b, (enum mount_way)w, round);
	return code;
}

static int in_folder(struct mount_bench *b)
{
	const char *tmp = getenv("TMPDIR");
	char err[256], work[64];
	int code, rc;

	snprintf(work, sizeof(work), "%.30s/tmem-mount-XXXXXX", tmp ? tmp : "/var/tmp");
	if (!mkdtemp(work))
		return cli_fail(COMMAND, "cannot make a folder: %s", strerror(errno));
	snprintf(b->point, sizeof(b->point), "%s/mount", work);
	snprintf(b->cache, sizeof(b->cache), "%s/cache", work);
	snprintf(b->result, sizeof(b->result), "%s/result", work);
	(void)mkdir(b->point, 0700);
	rc = box_open(&b->box, err, sizeof(err));
	code = rc ? cli_fail(COMMAND, "%s", err) : measure(b);
	if (rc == 0 && box_close(&b->box, err, sizeof(err)))
		code = cli_fail(COMMAND, "%s", err);
	nftw(work, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	if (code != CLI_OK)
		return code;
	return b->json ? print_json(b) : print_table(b);
}

#define ABOUT                                                                                      \
	"Reads the folder SRC as it is, through rclone mount --vfs-cache-mode full where there "   \
	"is\n"                                                                                     \
	"one, and through tmem mount, each in a memory cgroup with the same limit, three times\n"  \
	"over: big/ in order and at random, small/, and tree/ with git status and grep -r.\n"      \
	"Then kept/, which fits: once from SRC, and twice from what is kept of it.\n"              \
	"bench/mount/source.sh makes such a folder on a slow file system."

int cmd_bench_mount(int argc, char **argv)
{
	static struct mount_bench b = {.rounds = 1, .job = {.reads = 4000, .seed = 1}};
	bool no_rclone = false, no_bare = false;
	const struct cli_option options[] = {
		{"limit", 'l', CLI_SIZE, &b.limit_bytes, "SIZE",
		 "of each cgroup; default: a quarter of what is in SRC", 0, 0},
		{"size", 's', CLI_SIZE, &b.job.size_bytes, "SIZE",
		 "tmem mount's; default: three quarters of that", 0, 0},
		{"reads", 0, CLI_COUNT, &b.job.reads, "N", "at random, in a pass; default: 4000", 1,
		 1000000},
		{"rounds", 'r', CLI_COUNT, &b.rounds, "N", "default: 1", 1, ROUNDS_MAX},
		{"options", 'o', CLI_TEXT, &b.job.options, "TEXT", "more options for tmem mount", 0,
		 0},
		{"no-rclone", 0, CLI_FLAG, &no_rclone, NULL, "leave rclone out", 0, 0},
		{"no-bare", 0, CLI_FLAG, &no_bare, NULL, "leave the bare source out", 0, 0},
		{"json", 'J', CLI_FLAG, &b.json, NULL, "print JSON", 0, 0},
		{NULL, 0, CLI_FLAG, NULL, NULL, NULL, 0, 0},
	};
	const struct cli_syntax syntax = {COMMAND, "SRC", ABOUT, options, false};
	int n, rc;

	if (argc > 1 && !strcmp(argv[1], DRIVE))
		return drive(argc, argv);
	rc = cli_parse(&syntax, argc, argv, &n);
	if (rc >= 0)
		return rc;
	if (n != 1)
		return cli_usage(COMMAND, "which folder?");
	b.job.source = argv[1];
	if (nftw(b.job.source, add_bytes, 32, FTW_PHYS) || !source_bytes)
		return cli_fail(COMMAND, "%s: nothing to read there", b.job.source);
	if (!b.limit_bytes)
		b.limit_bytes = source_bytes / 4;
	if (!b.job.size_bytes)
		b.job.size_bytes = b.limit_bytes / 4 * 3;
	if (b.job.size_bytes < CC_SIZE_MIN)
		return cli_usage(COMMAND,
				 "tmem mount needs at least %uM, so --limit or SRC must be larger",
				 (unsigned)(CC_SIZE_MIN >> 20));
	b.leave_out[MOUNT_RCLONE] = no_rclone;
	b.leave_out[MOUNT_BARE] = no_bare;
	return in_folder(&b);
}
