/* SPDX-License-Identifier: BSD-2-Clause */
/* How much of each mapping is idle; see ages.h. */
#include "frontswap/pager/ages.h"

#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AGES_FIRST 64u
#define KIB_PAGE   4u

int ages_begin(pid_t pid)
{
	char path[40];
	int fd, rc = 0;

	snprintf(path, sizeof(path), "/proc/%d/clear_refs", (int)pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, "1", 1) != 1)
		rc = -errno;
	close(fd);
	return rc;
}

/* Anonymous, private, writable: as maps.c has it. */
static bool begins_mapping(const char *line, struct age *a, bool *wanted)
{
	char perms[8], name[64] = "";
	uint64_t inode;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %*x %*s %" SCNu64 " %63s", &a->start, &a->end,
		   perms, &inode, name) < 4)
		return false;
	a->resident = a->referenced = a->left = 0;
	*wanted = !inode && perms[0] == 'r' && perms[1] == 'w' && perms[3] == 'p' &&
		  (!*name || !strcmp(name, "[heap]") || !strncmp(name, "[anon:", 6));
	return true;
}

static int add(struct ages **all, const struct age *a)
{
	struct ages *old = *all, *new;

	if (!a->resident)
		return 0;
	if (old->n == old->size) {
		uint32_t size = old->size * 2;

		new = os_alloc(sizeof(*new) + size * sizeof(new->at[0]));
		if (!new)
			return -ENOMEM;
		memcpy(new, old, sizeof(*old) + old->n * sizeof(old->at[0]));
		new->size = size;
		os_free(old);
		*all = new;
	}
	(*all)->at[(*all)->n] = *a;
	if ((*all)->at[(*all)->n].referenced > a->resident)
		(*all)->at[(*all)->n].referenced = a->resident;
	(*all)->resident += a->resident;
	(*all)->referenced += (*all)->at[(*all)->n++].referenced;
	return 0;
}

int ages_parse(FILE *f, struct ages **out)
{
	struct ages *all = os_zalloc(sizeof(*all) + AGES_FIRST * sizeof(all->at[0]));
	struct age now = {0};
	bool wanted = false;
	char line[512];
	int rc = all ? 0 : -ENOMEM;

	if (all)
		all->size = AGES_FIRST;
	while (rc == 0 && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "Rss:", 4)) {
			now.resident = strtoull(line + 4, NULL, 10) / KIB_PAGE;
		} else if (!strncmp(line, "Referenced:", 11)) {
			now.referenced = strtoull(line + 11, NULL, 10) / KIB_PAGE;
			if (wanted)
				rc = add(&all, &now);
			wanted = false;
		} else if (*line < 'A' || *line > 'Z') { /* not a field */
			begins_mapping(line, &now, &wanted);
		}
	}
	if (rc < 0) {
		ages_free(all);
		return rc;
	}
	*out = all;
	return 0;
}

int ages_read(pid_t pid, struct ages **out)
{
	char path[40];
	FILE *f;
	int rc;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	rc = ages_parse(f, out);
	fclose(f);
	return rc;
}

void ages_free(struct ages *a)
{
	os_free(a);
}

struct age *ages_find(struct ages *a, uint64_t addr)
{
	uint32_t lo = 0, hi = a ? a->n : 0;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (a->at[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return a && lo < a->n && a->at[lo].start <= addr ? &a->at[lo] : NULL;
}
