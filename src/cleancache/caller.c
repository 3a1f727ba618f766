/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who asks.
 *
 * Where several users may use the mount, the thread becomes the caller for one call: to make
 * something, which then belongs to who asked (the kernel has checked already that the caller may;
 * so the source checks again, and reckons quotas and set-group-id folders right); and for what the
 * kernel leaves to the file system to judge, as attributes in system.* are. Threads have their own
 * credentials for the kernel, which the C library hides: hence the bare system calls. The umask
 * is the caller's, too, and applied by the source, which knows whether a default ACL replaces it.
 *
 * All else the kernel has judged, and it is done by us. A source may judge once more, and root be
 * nobody to it (NFS, root_squash): what it refuses to us is asked again by who asks.
 */
#include "cleancache/cleancache.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

void cc_caller_quotas(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3], *its;

	if (syscall(SYS_capget, &h, d))
		return;
	its = &d[CAP_TO_INDEX(CAP_SYS_RESOURCE)];
	its->effective &= ~CAP_TO_MASK(CAP_SYS_RESOURCE);
	its->permitted &= ~CAP_TO_MASK(CAP_SYS_RESOURCE);
	(void)syscall(SYS_capset, &h, d); /* less than it has it may always ask for */
}

/* The umask is the thread's own from its first use on. */
static int own_umask(mode_t mask)
{
	static _Thread_local bool own;

	if (!own && unshare(CLONE_FS))
		return -errno;
	own = true;
	(void)umask(mask);
	return 0;
}

void cc_caller_end(struct cc_caller *c)
{
	if (!c->became)
		return;
	/* None of these can fail on the way back; a thread that is somebody else is a disaster. */
	if (syscall(SYS_setresuid, -1, 0, -1) || syscall(SYS_setresgid, -1, 0, -1) ||
	    syscall(SYS_setgroups, c->groups, c->group))
		abort();
}

int cc_caller_begin(struct cc_mount *m, fuse_req_t req, struct cc_caller *c)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	gid_t group[CC_GROUPS_MAX];
	int n, rc = own_umask(ctx->umask);

	c->became = false;
	if (rc || !m->as_root || !ctx->uid)
		return rc;
	n = fuse_req_getgroups(req, CC_GROUPS_MAX, group);
	n = n < 0 ? 0 : n > CC_GROUPS_MAX ? CC_GROUPS_MAX : n;
	c->groups = (int)syscall(SYS_getgroups, CC_GROUPS_MAX, c->group);
	if (c->groups < 0)
		return -errno;
	c->became = true;
	if (syscall(SYS_setgroups, n, group) || syscall(SYS_setresgid, -1, ctx->gid, -1) ||
	    syscall(SYS_setresuid, -1, ctx->uid, -1)) {
		rc = -errno;
		cc_caller_end(c);
	}
	return rc;
}

bool cc_caller_again(struct cc_mount *m, fuse_req_t req, int rc, struct cc_caller *c)
{
	bool was = c->became;

	cc_caller_end(c);
	c->became = false;
	if (was || (rc != -EACCES && rc != -EPERM))
		return false;
	return cc_caller_begin(m, req, c) == 0 && c->became;
}
