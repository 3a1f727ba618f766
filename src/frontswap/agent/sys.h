/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Raw system calls for the agent's thread.
 *
 * That thread has no TLS of its own, so it may not enter libc: no errno, no
 * malloc, no stack protector. Results are the kernel's: a value or a negative
 * errno.
 */
#ifndef TMEM_AGENT_SYS_H
#define TMEM_AGENT_SYS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#ifndef __x86_64__
#error "the agent is written for x86-64"
#endif

static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}
#define sys3(n, a, b, c)    sys6((n), (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define sys4(n, a, b, c, d) sys6((n), (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

/* gcc would make a call to memcpy out of a loop; this it leaves alone. */
static inline void copy_bytes(void *dst, const void *src, size_t n)
{
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

/*
 * Start fn(arg) on `stack_top` as a thread of this process that libc does not
 * know. fn must not return. Thread id or a negative errno.
 */
long sys_thread(void *stack_top, void (*fn)(void *), void *arg);

#endif
