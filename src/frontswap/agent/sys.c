/* SPDX-License-Identifier: BSD-2-Clause */
#include "frontswap/agent/sys.h"

#include <sched.h>

long sys_thread(void *stack_top, void (*fn)(void *), void *arg)
{
	/* A thread in all respects but that it shares no list with libc: exec
	 * and exit_group end it, a stop signal stops it, /proc shows it. A folder
	 * of its own: who shares his may not enter a mount namespace. */
	long flags = CLONE_VM | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
	uint64_t *sp = (uint64_t *)((uintptr_t)stack_top & ~(uintptr_t)15);
	long ret;

	*--sp = (uint64_t)arg;
	*--sp = (uint64_t)fn;
	__asm__ volatile("xor %%r10d, %%r10d\n\t"
			 "xor %%r8d, %%r8d\n\t"
			 "syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "pop %%rax\n\t"
			 "pop %%rdi\n\t"
			 "call *%%rax\n\t"
			 "ud2\n\t"
			 "1:"
			 : "=a"(ret)
			 : "a"((long)SYS_clone), "D"(flags), "S"(sp), "d"(0L)
			 : "rcx", "r8", "r10", "r11", "memory");
	return ret;
}
