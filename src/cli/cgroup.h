/* SPDX-License-Identifier: BSD-2-Clause */
/* One memory cgroup of ours, on either version of the hierarchy. */
#ifndef TMEM_CLI_CGROUP_H
#define TMEM_CLI_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CGROUP_PATH_MAX 320

struct cgroup {
	char root[CGROUP_PATH_MAX - 64]; /* where groups are made */
	bool v2;
};

/* Find the hierarchy with the memory controller; 0, or a negative errno with a line in err. */
int cgroup_find(struct cgroup *c, char *err, size_t errlen) __attribute__((warn_unused_result));
/* Make the group `path` (CGROUP_PATH_MAX), named for this process. A limit of 0: none. */
int cgroup_make(const struct cgroup *c, uint64_t limit_bytes, char *path, char *err, size_t errlen)
	__attribute__((warn_unused_result));
/* The calling process joins the group. Safe after fork. 0 or a negative errno. */
int cgroup_join(const char *path);
/* Now: anonymous and shared memory that is resident; 0 when unreadable. */
uint64_t cgroup_resident(const struct cgroup *c, const char *path);
/* Now: bytes of the group's memory that are in swap. */
uint64_t cgroup_swapped(const struct cgroup *c, const char *path);
/* So far: faults of it that had to wait for a page, from swap or a file. */
uint64_t cgroup_major_faults(const char *path);
/* Whether the kernel killed for lack of memory in this group. */
bool cgroup_out_of_memory(const struct cgroup *c, const char *path);
/* Kill what is in it and remove it; waits for it up to 5 s. 0 or a negative errno. */
int cgroup_remove(const char *path);

#endif
