/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What of the program's memory stays where it is, by the program's own threads: where each
 * of them stands (stack and TLS), and what a child is to find empty.
 */
#include "frontswap/agent/agent.h"
#include "frontswap/agent/inside.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <threads.h>

#define WIPED_MOST 256u /* ranges that children find empty; more are joined */

/*
 * What this process, or one before it, has said that a child is to find empty (MADV_WIPEONFORK).
 * A child has not said so, but its mappings have it from its parent: its own children find them
 * empty, too. Ranges stay in the list for good, as they do in the host's. They only ever grow;
 * `end` is written last.
 */
static struct {
	_Atomic uint64_t start, end;
} wiped[WIPED_MOST];
static _Atomic uint32_t nwiped;

void publish(uint64_t start, uint64_t end, int32_t tid, bool dontfork)
{
	struct agent_shm *shm = threads_shm();
	struct agent_thread *t;
	int32_t old;

	if (!shm)
		return;
	/* A cached stack comes back with the same range: its entry serves again. */
	for (t = shm->threads; t < shm->threads + AGENT_THREADS; t++) {
		old = atomic_load(&t->tid);
		if (old == AGENT_TID_END)
			break;
		if (old > 0 && atomic_load(&t->start) == start && atomic_load(&t->end) == end &&
		    atomic_compare_exchange_strong(&t->tid, &old, tid)) {
			atomic_store(&t->dontfork, dontfork);
			return;
		}
	}
	for (t = shm->threads; t < shm->threads + AGENT_THREADS; t++) {
		old = atomic_load(&t->tid);
		if ((old == AGENT_TID_END || old == AGENT_TID_FREE) &&
		    atomic_compare_exchange_strong(&t->tid, &old, AGENT_TID_BUSY)) {
			atomic_store(&t->start, start);
			atomic_store(&t->end, end);
			atomic_store(&t->dontfork, dontfork);
			atomic_store(&t->tid, tid);
			return;
		}
	}
}

/* The calling thread stands on [start, end) and has its TLS there. */
static void publish_thread(uint64_t start, uint64_t end)
{
	publish(start, end, (int32_t)sys3(SYS_gettid, 0, 0, 0), false);
}

void publish_main_thread(void)
{
	uintptr_t tcb = (uintptr_t)__builtin_thread_pointer();

	/* Static TLS lies below the thread pointer, the thread's descriptor above. */
	publish_thread((tcb - 65536) & ~(uintptr_t)4095, (tcb + 8192 + 4095) & ~(uintptr_t)4095);
}

/* The range that becomes the least larger by [start, end) does. */
static void widen_wiped(uint64_t start, uint64_t end)
{
	uint64_t least = UINT64_MAX, old;
	unsigned at = 0;

	for (unsigned i = 0; i < WIPED_MOST; i++) {
		uint64_t from = atomic_load(&wiped[i].start), to = atomic_load(&wiped[i].end);
		uint64_t more = (start < from ? from - start : 0) + (end > to ? end - to : 0);

		if (to && more < least) {
			least = more;
			at = i;
		}
	}
	old = atomic_load(&wiped[at].start);
	while (start < old && !atomic_compare_exchange_weak(&wiped[at].start, &old, start))
		;
	old = atomic_load(&wiped[at].end);
	while (end > old && !atomic_compare_exchange_weak(&wiped[at].end, &old, end))
		;
}

void remember_wiped(uint64_t start, uint64_t end)
{
	uint32_t n = atomic_load(&nwiped);

	for (uint32_t i = 0; i < n; i++)
		if (atomic_load(&wiped[i].start) <= start && atomic_load(&wiped[i].end) >= end)
			return;
	while (n < WIPED_MOST && !atomic_compare_exchange_weak(&nwiped, &n, n + 1))
		;
	if (n == WIPED_MOST) {
		widen_wiped(start, end);
		return;
	}
	atomic_store(&wiped[n].start, start);
	atomic_store(&wiped[n].end, end);
}

void publish_wiped(void)
{
	int32_t pid = (int32_t)sys3(SYS_getpid, 0, 0, 0);

	for (uint32_t i = 0, n = atomic_load(&nwiped); i < n; i++)
		publish(atomic_load(&wiped[i].start), atomic_load(&wiped[i].end), pid, false);
}

struct start {
	union {
		void *(*posix)(void *);
		int (*c11)(void *);
	} fn;
	void *arg;
};

/* In the new thread: where it stands, and what it is for. */
static struct start begin(void *p)
{
	struct start s = *(struct start *)p;
	pthread_attr_t attr;
	void *stack;
	size_t bytes;

	free(p);
	if (pthread_getattr_np(pthread_self(), &attr) == 0) {
		if (pthread_attr_getstack(&attr, &stack, &bytes) == 0)
			publish_thread((uintptr_t)stack, (uintptr_t)stack + bytes);
		pthread_attr_destroy(&attr);
	}
	return s;
}

static void *posix_start(void *p)
{
	struct start s = begin(p);

	return s.fn.posix(s.arg);
}

static int c11_start(void *p)
{
	struct start s = begin(p);

	return s.fn.c11(s.arg);
}

__attribute__((visibility("default"))) int
pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	struct start *s;
	int r;

	if (!real)
		*(void **)(&real) = dlsym(RTLD_NEXT, "pthread_create");
	if (!threads_shm())
		return real(thread, attr, fn, arg);
	s = malloc(sizeof(*s));
	if (!s)
		return EAGAIN;
	s->fn.posix = fn;
	s->arg = arg;
	r = real(thread, attr, posix_start, s);
	if (r)
		free(s);
	return r;
}

/* libc does not make it by the pthread_create() that is ours. */
__attribute__((visibility("default"))) int thrd_create(thrd_t *thread, thrd_start_t fn, void *arg)
{
	static int (*real)(thrd_t *, thrd_start_t, void *);
	struct start *s;
	int r;

	if (!real)
		*(void **)(&real) = dlsym(RTLD_NEXT, "thrd_create");
	if (!threads_shm())
		return real(thread, fn, arg);
	s = malloc(sizeof(*s));
	if (!s)
		return thrd_nomem;
	s->fn.c11 = fn;
	s->arg = arg;
	r = real(thread, c11_start, s);
	if (r != thrd_success)
		free(s);
	return r;
}
