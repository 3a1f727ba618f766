/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads and thread-local slots. */
#include "os/thread.h"

#include "os/check.h"
#include "os/mem.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>

struct start {
	void *(*fn)(void *);
	void *arg;
	const char *name;
};

/*
 * A thread names itself: one that detaches itself and ends may be gone, and its
 * handle no more than an address, before who made it could do that.
 */
static void *thread_main(void *at)
{
	struct start s = *(struct start *)at;

	os_free(at);
	/* A thread without a name works as well. */
	(void)pthread_setname_np(pthread_self(), s.name);
	return s.fn(s.arg);
}

int os_thread_create(os_thread *t, const char *name, void *(*fn)(void *), void *arg)
{
	/*
	 * Signals that a thread sends itself by a fault stay open: blocked,
	 * they kill the process with no word from a crash handler or sanitizer.
	 */
	static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
	struct start *s = os_alloc(sizeof(*s));
	sigset_t all, before;
	int rc;

	if (!s)
		return -ENOMEM;
	*s = (struct start){fn, arg, name};
	sigfillset(&all);
	for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sigdelset(&all, faults[i]);
	/* The mask is inherited, so no signal can arrive before it is set. */
	rc = pthread_sigmask(SIG_SETMASK, &all, &before);
	if (rc) {
		os_free(s);
		return -rc;
	}
	rc = pthread_create(t, NULL, thread_main, s);
	tmem_must(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
	if (rc)
		os_free(s);
	return -rc;
}

void os_thread_join(os_thread t)
{
	tmem_must(pthread_join(t, NULL) == 0);
}

int os_tls_create(os_tls *k, void (*destroy)(void *))
{
	return -pthread_key_create(k, destroy);
}

void os_tls_delete(os_tls k)
{
	(void)pthread_key_delete(k);
}

int os_tls_set(os_tls k, void *value)
{
	return -pthread_setspecific(k, value);
}

unsigned os_thread_number(void)
{
	static _Atomic unsigned next;
	static _Thread_local unsigned mine; /* plus one; 0: not yet drawn */

	if (tmem_unlikely(mine == 0))
		mine = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) + 1;
	return mine - 1;
}
