/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Kinds of check.
 *
 *   tmem_assert(c)   provable from the code; compiled in with -Dchecks=1 and
 *                    above. Cite the invariant: tmem_assert(I3, a == b).
 *   TMEM_VERIFY      a whole-component walk after each operation, -Dchecks=2.
 *   tmem_must(c)     stays in release: where going on would mean wrong data,
 *                    the process stops.
 *
 * Bytes from a client, a peer or a file never reach any of them.
 */
#ifndef TMEM_OS_CHECK_H
#define TMEM_OS_CHECK_H

#ifndef TMEM_CHECKS
#define TMEM_CHECKS 0
#endif

__attribute__((noreturn, cold)) void os_check_failed(const char *what, const char *file, int line);

#define tmem_must(cond)                                                                            \
	do {                                                                                       \
		if (__builtin_expect(!(cond), 0))                                                  \
			os_check_failed(#cond, __FILE__, __LINE__);                                \
	} while (0)

#if TMEM_CHECKS >= 1
#define tmem_assert(inv, cond)                                                                     \
	do {                                                                                       \
		if (__builtin_expect(!(cond), 0))                                                  \
			os_check_failed(#inv ": " #cond, __FILE__, __LINE__);                      \
	} while (0)
#else
#define tmem_assert(inv, cond) ((void)0)
#endif

#define tmem_likely(x)	 __builtin_expect(!!(x), 1)
#define tmem_unlikely(x) __builtin_expect(!!(x), 0)

#endif
