/* SPDX-License-Identifier: BSD-2-Clause */
/* cleancache for the command line: a mount from beginning to end, and how to speak to one. */
#ifndef TMEM_CLEANCACHE_MOUNT_H
#define TMEM_CLEANCACHE_MOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* What of the source is believed, and for how long. */
enum cc_coherence {
	CC_CLOSE_TO_OPEN, /* each open asks; names are asked for each time (way.c) */
	CC_TTL,		  /* what was asked is believed for ttl_ns */
	CC_IMMUTABLE,	  /* the source does not change */
};

struct cc_options {
	const char *source, *mountpoint;
	uint64_t size_bytes; /* all memory of the mount */
	const char *codec;   /* of all pages; NULL: CC_CODEC, and CC_CODEC_COSTLY (store.c) */
	const char *policy;
	enum cc_coherence coherence;
	uint64_t ttl_ns;
	const char *save; /* where pages go at the end, and come from; NULL: nowhere */
	uint64_t readahead_bytes;
	unsigned threads; /* that serve requests; 0: chosen */
	unsigned cluster; /* pages compressed together: 1 .. 16 */
	bool allow_other, read_only, no_control, foreground, no_watch;
};

#define CC_CODEC	   "lz4"
#define CC_CODEC_COSTLY	   "zstd:1"
#define CC_COSTLY_SIZE_MIN ((uint64_t)128 << 20) /* for the second */
#define CC_SIZE_MIN	   ((uint64_t)32 << 20)

/*
 * Mounts, and serves until somebody unmounts it or the process is told to end (SIGTERM, SIGINT,
 * SIGHUP). In the background, unless asked otherwise: then it returns in the parent as soon as
 * the mount can be used. An exit code: 0, or 1 after a line on stderr.
 */
int cc_mount_run(const struct cc_options *o);

/* A mount of tmem, as the kernel has it. */
struct cc_found {
	bool root;     /* what was asked about is its root */
	unsigned user; /* who made it */
};
/* Whether a file (O_PATH will do) is in one, which may be dead. It is not asked. */
bool cc_find_mount(int fd, struct cc_found *out);

/*
 * What can be said to a mount through any of its files: ioctl() on it.
 *
 * CC_IOC_INVALIDATE: pages of this file go; of a folder, of all in it. Returns files.
 * CC_IOC_STAT: figures of this file as text, "name value" lines; of a folder, of the mount.
 * CC_IOC_FORGET: of a folder: that there was no such name in it is not believed any more.
 * CC_IOC_SAVES: the path that the mount saves to at its end; nothing: it does not.
 *
 * STAT and SAVES are for who made the mount, and root.
 */
#define CC_TEXT_MAX 8192
struct cc_text {
	char text[CC_TEXT_MAX]; /* ends with a zero */
};
struct cc_name {
	char name[256]; /* ends with a zero */
};
#define CC_IOC_INVALIDATE _IO('T', 0x61)
#define CC_IOC_STAT	  _IOR('T', 0x62, struct cc_text)
#define CC_IOC_SAVES	  _IOR('T', 0x63, struct cc_text)
#define CC_IOC_FORGET	  _IOW('T', 0x64, struct cc_name)

#endif
