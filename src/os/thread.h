/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads and thread-local slots with destructors. */
#ifndef TMEM_OS_THREAD_H
#define TMEM_OS_THREAD_H

#include <pthread.h>

typedef pthread_t os_thread;

/*
 * Start fn(arg) on a new thread with all signals blocked. `name` (at most 15
 * characters; it must live on) shows in ps. 0 or -errno. The thread may detach itself: `t` is
 * not looked at after it has begun.
 */
int os_thread_create(os_thread *t, const char *name, void *(*fn)(void *), void *arg)
	__attribute__((warn_unused_result));
void os_thread_join(os_thread t);

/* A per-thread slot; `destroy` runs at thread exit for non-NULL values. 0 or -errno. */
typedef pthread_key_t os_tls;
int os_tls_create(os_tls *k, void (*destroy)(void *)) __attribute__((warn_unused_result));
void os_tls_delete(os_tls k);
static inline void *os_tls_get(os_tls k)
{
	return pthread_getspecific(k);
}
/* 0 or -ENOMEM. */
int os_tls_set(os_tls k, void *value) __attribute__((warn_unused_result));

/* A small number, dense from 0, that stays with the calling thread; for striping. */
unsigned os_thread_number(void);

#endif
