/* SPDX-License-Identifier: BSD-2-Clause */
/* Which mounts of tmem there are, as the kernel has it: the mounts themselves are not asked, as
 * their sources may not answer. */
#include "cleancache/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Of a line of mountinfo; 0: it does not say. */
static unsigned user_of(const char *line)
{
	const char *at = strstr(line, "user_id=");

	return at ? (unsigned)strtoul(at + strlen("user_id="), NULL, 10) : 0;
}

bool cc_find_mount(int fd, struct cc_found *out)
{
	char *line = NULL, *tail;
	bool found = false;
	struct statx x;
	size_t room = 0;
	FILE *f = NULL;

	/* Nothing is asked for: what comes all the same is for users that FUSE keeps out, too. */
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &x) == 0 &&
	    x.stx_mask & STATX_MNT_ID)
		f = fopen("/proc/self/mountinfo", "re");
	while (f && !found && getline(&line, &room, f) > 0) {
		tail = strstr(line, " - fuse.tmem ");
		found = tail && strtoull(line, NULL, 10) == x.stx_mnt_id;
		if (found)
			*out = (struct cc_found){
				.root = x.stx_attributes & STATX_ATTR_MOUNT_ROOT,
				.user = user_of(tail),
			};
	}
	if (f)
		fclose(f);
	free(line);
	return found;
}
