/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When two looks at a file saw the same data: the same size, mtime and ctime, to the nanosecond.
 * (Device, inode number and incarnation are the object's name in the store, so another file never
 * finds its pages.)
 *
 * The trap. A file system gives time stamps from a clock that ticks every few milliseconds, or
 * seconds. Two changes within one tick leave the same stamps, and may leave the same size:
 *
 *        tick                         tick
 *   ──────┼────write A──look──write B──┼────look──>      both looks see the same identity
 *
 * So a look is *settled* only when it was made after the tick of the last change was over: then
 * any later change shows. What was read under a look that was not settled is not believed by the
 * next one (C3 of cleancache.h). NFS clients and git's index have the same trap, and this answer.
 *
 * How long a tick is, is not told by anybody. A file system whose stamps are all whole seconds
 * has ticks of one or two; local ones tick with the kernel (10 ms at most; since Linux 6.13 a
 * stamp that was looked at is never given again); for those on a network the other machine's
 * clock counts, and two seconds are reckoned with. A stamp that lies in our future is not settled
 * until we get there. A server whose clock goes behind ours by more than the grain is beyond what
 * this can see.
 */
#include "cleancache/cleancache.h"

#include "os/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define GRAIN_LOCAL_NS	 20000000ull
#define GRAIN_NETWORK_NS CC_GRAIN_FAR_NS
#define GRAIN_COARSE_NS	 2000000000ull
#define SECOND_NS	 1000000000ll
#define HANDLE_BYTES	 128

/* Not in every header. */
#define MAGIC_SMB2   0xfe534d42u
#define MAGIC_CEPH   0x00c36400u
#define MAGIC_GFS2   0x01161970u
#define MAGIC_LUSTRE 0x0bd00bd0u

uint64_t cc_order(void)
{
	static _Atomic uint64_t last;

	return atomic_fetch_add(&last, 1) + 1;
}

static int64_t wall_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * SECOND_NS + t.tv_nsec;
}

static int64_t stamp_ns(const struct statx_timestamp *t)
{
	return t->tv_sec * SECOND_NS + t->tv_nsec;
}

static struct timespec stamp(const struct statx_timestamp *t)
{
	return (struct timespec){.tv_sec = t->tv_sec, .tv_nsec = t->tv_nsec};
}

static void take(struct cc_look *look, const struct statx *x)
{
	look->st = (struct stat){
		.st_dev = makedev(x->stx_dev_major, x->stx_dev_minor),
		.st_ino = x->stx_ino,
		.st_mode = x->stx_mode,
		.st_nlink = x->stx_nlink,
		.st_uid = x->stx_uid,
		.st_gid = x->stx_gid,
		.st_rdev = makedev(x->stx_rdev_major, x->stx_rdev_minor),
		.st_size = (off_t)x->stx_size,
		.st_blksize = (blksize_t)x->stx_blksize,
		.st_blocks = (blkcnt_t)x->stx_blocks,
		.st_atim = stamp(&x->stx_atime),
		.st_mtim = stamp(&x->stx_mtime),
		.st_ctim = stamp(&x->stx_ctime),
	};
	look->id = (struct cc_identity){.size = x->stx_size,
					.mtime_ns = stamp_ns(&x->stx_mtime),
					.ctime_ns = stamp_ns(&x->stx_ctime)};
	look->born_ns = x->stx_mask & STATX_BTIME ? stamp_ns(&x->stx_btime) : 0;
	look->automount = x->stx_attributes & STATX_ATTR_AUTOMOUNT;
}

static int look_at(int dir, const char *name, int flags, struct cc_look *look)
{
	struct statx x;

	look->order = cc_order();
	look->at_ns = os_clock_ns();
	look->taken_ns = wall_ns();
	if (statx(dir, name, flags | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
		  STATX_BASIC_STATS | STATX_BTIME, &x))
		return -errno;
	take(look, &x);
	return 0;
}

int cc_look_fd(int fd, struct cc_look *look)
{
	return look_at(fd, "", AT_EMPTY_PATH, look);
}

int cc_look_open(int fd, bool fuse, struct cc_look *look)
{
	return look_at(fd, "", AT_EMPTY_PATH | (fuse ? AT_STATX_FORCE_SYNC : 0), look);
}

int cc_look_at(int dir, const char *name, struct cc_look *look)
{
	return look_at(dir, name, 0, look);
}

uint64_t cc_device_of(int dir, const char *name)
{
	struct statx x;

	return statx(dir, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW, 0, &x)
		       ? 0
		       : makedev(x.stx_dev_major, x.stx_dev_minor);
}

bool cc_identity_same(const struct cc_identity *a, const struct cc_identity *b)
{
	return a->size == b->size && a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

bool cc_look_is_settled(const struct cc_look *look, uint64_t grain_ns)
{
	int64_t last =
		look->id.mtime_ns > look->id.ctime_ns ? look->id.mtime_ns : look->id.ctime_ns;

	/* An mtime in the future was set by hand, and says nothing of when. */
	if (look->id.mtime_ns > look->taken_ns)
		last = look->id.ctime_ns;
	if (last % SECOND_NS == 0 && grain_ns < GRAIN_COARSE_NS)
		grain_ns = GRAIN_COARSE_NS;
	return look->taken_ns - last > (int64_t)grain_ns;
}

uint64_t cc_grain_ns(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return GRAIN_NETWORK_NS;
	switch ((uint32_t)fs.f_type) {
	case NFS_SUPER_MAGIC:
	case SMB_SUPER_MAGIC:
	case CIFS_SUPER_MAGIC:
	case MAGIC_SMB2:
	case MAGIC_CEPH:
	case MAGIC_GFS2:
	case MAGIC_LUSTRE:
	case V9FS_MAGIC:
	case AFS_SUPER_MAGIC:
	case AFS_FS_MAGIC:
	case CODA_SUPER_MAGIC:
	case FUSE_SUPER_MAGIC: /* sshfs, object stores */
		return GRAIN_NETWORK_NS;
	case MSDOS_SUPER_MAGIC:
	case EXFAT_SUPER_MAGIC:
		return GRAIN_COARSE_NS;
	default:
		return GRAIN_LOCAL_NS;
	}
}

/* What is mounted in the source may be another machine's. */
uint64_t cc_grain_of(const struct cc_mount *m, const struct cc_look *look)
{
	return look->st.st_dev == m->root_attr.st_dev || m->grain_ns > CC_GRAIN_FAR_NS
		       ? m->grain_ns
		       : CC_GRAIN_FAR_NS;
}

bool cc_is_fuse(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && (uint32_t)fs.f_type == FUSE_SUPER_MAGIC;
}

/* File systems number their files alike, and tar or find take equal numbers for one file. */
ino_t cc_shown_ino(const struct cc_mount *m, const struct stat *st)
{
	if (st->st_dev == m->root_attr.st_dev)
		return st->st_ino;
	return st->st_ino ^ ((st->st_dev * 0x9e3779b97f4a7c15ull) >> 2 | 1ull << 62);
}

/*
 * A file handle has the generation in it, where there is one; the time of birth says the same where
 * there is no handle.
 */
uint64_t cc_incarnation(int fd, const struct cc_look *look)
{
	struct {
		struct file_handle h;
		char bytes[HANDLE_BYTES];
	} handle = {.h.handle_bytes = HANDLE_BYTES};
	uint64_t seed = (uint64_t)look->born_ns;
	int mount;

	if (name_to_handle_at(fd, "", &handle.h, &mount, AT_EMPTY_PATH))
		return XXH3_64bits_withSeed("", 0, seed);
	return XXH3_64bits_withSeed(handle.h.f_handle, handle.h.handle_bytes, seed);
}
