/* SPDX-License-Identifier: BSD-2-Clause */
/* See cgroup.h. Version 1 is preferred where it has the controller: then version 2 cannot. */
#include "cli/cgroup.h"

#include "os/clock.h"
#include "os/file.h"
#include "os/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <mntent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_text(const char *dir, const char *name, const char *text)
{
	char path[CGROUP_PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return os_file_write_text(path, text);
}

static char *read_text(const char *dir, const char *name)
{
	char path[CGROUP_PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return os_file_slurp(path, 1 << 20, NULL);
}

/* The value of a "key value" line; 0 when there is none. */
static uint64_t value_of(const char *text, const char *key)
{
	size_t len = strlen(key);
	const char *at;

	for (at = text; at && *at; at = strchr(at, '\n'), at += at != NULL)
		if (!strncmp(at, key, len) && at[len] == ' ')
			return strtoull(at + len + 1, NULL, 10);
	return 0;
}

static bool has_memory(const char *dir)
{
	char *text = read_text(dir, "cgroup.controllers");
	bool found = text && strstr(text, "memory");

	os_free(text);
	return found;
}

int cgroup_find(struct cgroup *c, char *err, size_t errlen)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	struct mntent *m;
	bool found = false;

	while (f && !found && (m = getmntent(f))) {
		bool v1 = !strcmp(m->mnt_type, "cgroup") && hasmntopt(m, "memory");
		bool v2 = !strcmp(m->mnt_type, "cgroup2") && has_memory(m->mnt_dir);

		if (!v1 && !v2)
			continue;
		found = true;
		c->v2 = v2;
		snprintf(c->root, sizeof(c->root), "%s", m->mnt_dir);
	}
	if (f)
		endmntent(f);
	if (!found) {
		snprintf(err, errlen, "no cgroup hierarchy with the memory controller is mounted");
		return -ENOENT;
	}
	if (access(c->root, W_OK)) {
		snprintf(err, errlen, "%s cannot be written to: root is needed", c->root);
		return -errno;
	}
	return 0;
}

int cgroup_make(const struct cgroup *c, uint64_t limit_bytes, char *path, char *err, size_t errlen)
{
	char text[32];
	int code = 0;

	if (c->v2) /* refused where processes sit in the root's children; then there is no limit */
		code = write_text(c->root, "cgroup.subtree_control", "+memory");
	snprintf(path, CGROUP_PATH_MAX, "%s/tmem-bench-%d", c->root, (int)getpid());
	if (!code && mkdir(path, 0755) && errno != EEXIST)
		code = -errno;
	if (!code && !c->v2) /* swap rather than drop; not there in every kernel */
		write_text(path, "memory.swappiness", "100");
	snprintf(text, sizeof(text), "%" PRIu64, limit_bytes);
	if (!code && limit_bytes)
		code = write_text(path, c->v2 ? "memory.max" : "memory.limit_in_bytes", text);
	if (code)
		snprintf(err, errlen, "cannot make the cgroup %s: %s", path, strerror(-code));
	return code;
}

int cgroup_join(const char *path)
{
	return write_text(path, "cgroup.procs", "0");
}

uint64_t cgroup_resident(const struct cgroup *c, const char *path)
{
	char *text = read_text(path, "memory.stat");
	uint64_t bytes = 0;

	if (text)
		bytes = value_of(text, c->v2 ? "anon" : "rss") + value_of(text, "shmem");
	os_free(text);
	return bytes;
}

uint64_t cgroup_swapped(const struct cgroup *c, const char *path)
{
	char *text = read_text(path, c->v2 ? "memory.swap.current" : "memory.stat");
	uint64_t bytes = 0;

	if (text)
		bytes = c->v2 ? strtoull(text, NULL, 10) : value_of(text, "swap");
	os_free(text);
	return bytes;
}

uint64_t cgroup_major_faults(const char *path)
{
	char *text = read_text(path, "memory.stat");
	uint64_t n = text ? value_of(text, "pgmajfault") : 0;

	os_free(text);
	return n;
}

bool cgroup_out_of_memory(const struct cgroup *c, const char *path)
{
	char *text = read_text(path, c->v2 ? "memory.events" : "memory.oom_control");
	bool killed = text && value_of(text, "oom_kill") > 0;

	os_free(text);
	return killed;
}

static void kill_all(const char *path)
{
	char *text = read_text(path, "cgroup.procs"), *at, *end;

	for (at = text; at && *at; at = end) {
		long pid = strtol(at, &end, 10);

		if (end == at)
			break;
		if (pid > 1 && pid != getpid())
			kill((pid_t)pid, SIGKILL);
		while (*end == '\n')
			end++;
	}
	os_free(text);
}

int cgroup_remove(const char *path)
{
	unsigned tries;

	for (tries = 0; tries < 500; tries++) {
		if (!rmdir(path) || errno == ENOENT)
			return 0;
		if (errno != EBUSY)
			return -errno;
		kill_all(path);
		os_sleep_ns(10000000);
	}
	return -EBUSY;
}
