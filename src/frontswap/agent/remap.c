/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A mapping that grows where it is at the moment in which the host registers it is two
 * for a while, one registered and one not, and the kernel moves no two at once: mremap
 * says EFAULT for memory that is all there. The host sees that it has cut a mapping and
 * joins it at its next look, some milliseconds later. So EFAULT is tried again until then;
 * who is really wrong about his memory learns that a little later.
 *
 * libc's realloc makes its own call, and copies when that fails. Who makes the system call
 * past libc sees the error: it is one that he can tell.
 */
#include "frontswap/agent/inside.h"
#include "frontswap/agent/sys.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <time.h>

#define TRIES 40 /* of a millisecond */

__attribute__((visibility("default"))) void *mremap(void *old, size_t old_len, size_t new_len,
						    int flags, ...)
{
	struct timespec pause = {0, 1000000};
	void *to = NULL;
	va_list args;
	long r;

	if (flags & MREMAP_FIXED) {
		va_start(args, flags);
		to = va_arg(args, void *);
		va_end(args);
	}
	for (unsigned i = 0;; i++) {
		r = sys6(SYS_mremap, (long)old, (long)old_len, (long)new_len, flags, (long)to, 0);
		if (r != -EFAULT || i == TRIES || !threads_shm())
			break;
		sys3(SYS_nanosleep, &pause, NULL, 0);
	}
	if (r < 0 && r > -4096) {
		errno = (int)-r;
		return MAP_FAILED;
	}
	return (void *)r;
}
