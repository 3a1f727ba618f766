/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A box to run programs in: a memory cgroup and, for some, swap on zram. See
 * bench_box.c for how nothing of it is ever left behind.
 */
#ifndef TMEM_CLI_BENCH_BOX_H
#define TMEM_CLI_BENCH_BOX_H

#include "cli/cgroup.h"
#include "cli/zram.h"
#include "cli/zswap.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What exists now and must go; in memory shared with the watcher. */
struct box_state {
	volatile int zram; /* device number, -1: none */
	struct zswap zswap;
	volatile pid_t child;	      /* process group of the program, 0: none */
	char cgroup[CGROUP_PATH_MAX]; /* "": none */
};

struct box {
	struct box_state *state;
	struct cgroup cgroup;
	bool has_cgroup; /* else: why not is in cgroup_why */
	bool has_zram;	 /* else: zram_why */
	bool zram_on;	 /* swap is on it now */
	bool has_zswap;	 /* else: zswap_why */
	char cgroup_why[256], zram_why[256], zswap_why[256];
	pid_t watcher;
	int alive; /* the watcher acts when this is closed */
	int lock;
};

/* 0, or a negative errno with a line in err (-EBUSY: another one is at work). */
int box_open(struct box *b, char *err, size_t errlen) __attribute__((warn_unused_result));
/* Removes everything. 0, or a negative errno with a line in err saying what is left. */
int box_close(struct box *b, char *err, size_t errlen) __attribute__((warn_unused_result));
/* Swap on a new zram device; sets has_zram or zram_why. */
void box_want_zram(struct box *b, const char *codec, uint64_t disk_bytes);
/* Remove it again. */
int box_drop_zram(struct box *b) __attribute__((warn_unused_result));
/* The same for zswap, over a new file. */
void box_want_zswap(struct box *b, const char *codec, uint64_t disk_bytes);

enum box_swap { BOX_ZRAM, BOX_ZSWAP };

struct box_run {
	/* given */
	char *const *argv;
	enum box_swap swap;   /* which of what there is; the other is off meanwhile */
	uint64_t limit_bytes; /* of the cgroup; 0: none */
	double timeout_s;
	/* found */
	double wall_s;
	uint64_t peak_total; /* resident and zram's (or zswap's) own memory at the same instant */
	uint64_t peak_resident; /* anonymous and shared, of the group; without one: of the largest
				   process, files included */
	uint64_t peak_swapped, zram_bytes, zram_pages; /* the latter two when the total peaked */
	uint64_t major_faults;
	int exit_code; /* as a shell gives it */
	bool out_of_memory, timed_out;
	uint64_t output_hash; /* of what it wrote to standard output */
};

/*
 * Run a program to its end. 0 however it ended; -EINTR: we were told to stop
 * (box_stopped()); otherwise a negative errno with a line in err.
 */
int box_run(struct box *b, struct box_run *r, char *err, size_t errlen)
	__attribute__((warn_unused_result));
/* The signal that told us to stop, or 0. */
int box_stopped(void);

#endif
