/* SPDX-License-Identifier: BSD-2-Clause */
/* tmem bench mount: what the part inside the box measures, and the part outside prints. */
#ifndef TMEM_CLI_BENCH_MOUNT_H
#define TMEM_CLI_BENCH_MOUNT_H

#include <stdbool.h>
#include <stdint.h>

enum mount_way { MOUNT_BARE, MOUNT_RCLONE, MOUNT_TMEM, MOUNT_WAYS };
enum mount_work {
	WORK_SEQUENTIAL,
	WORK_RANDOM,
	WORK_SMALL,
	WORK_GIT,
	WORK_GREP,
	WORK_KEPT_RANDOM,
	WORK_KEPT_SEQUENTIAL,
	WORKS
};
#define MOUNT_WORK_MOST_S 120u /* a pass of one work that takes longer is ended */
#define MOUNT_PASSES	  3u   /* the first is cold */
extern const char *const mount_way_name[MOUNT_WAYS], *const mount_work_name[WORKS];
extern const char *const mount_pass_name[MOUNT_PASSES];

/* One pass of one work; wall_s 0: not done, there is nothing of the kind in the source. */
struct mount_cell {
	double wall_s, p50_us, p99_us; /* of a read, a file; 0 where only the whole is timed */
	bool cut;		       /* it was ended */
	uint64_t bytes, operations;
};

struct mount_result {
	struct mount_cell cell[MOUNT_PASSES][WORKS];
	char why_not[200];				     /* "": measured */
	uint64_t store_pages, store_bytes, compressed_bytes; /* tmem: at the end */
};

struct mount_job {
	enum mount_way way;
	const char *source, *point, *cache; /* cache: a folder for rclone */
	uint64_t size_bytes;		    /* tmem's --size */
	unsigned reads;			    /* random ones in a pass */
	uint64_t seed;
	const char *options; /* more for tmem mount, with blanks; NULL: none */
};

/* Mounts, measures, unmounts; in a process of its own, which shows its progress. An exit code. */
int mount_drive(const struct mount_job *job, struct mount_result *result);

#endif
