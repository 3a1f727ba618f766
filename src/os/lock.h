/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mutexes with ranks, and condition variables.
 *
 * Every mutex has a rank from enum os_rank. A thread may only take a mutex
 * whose rank is greater than that of every mutex it holds; builds with
 * -Dchecks=1 or more abort on the first violation and name both locks
 * (the idea is jemalloc's witness). A rank marked "leaf" nests inside all. A
 * trylock never waits, so it may go against the order; what it took counts.
 * docs/architecture.md holds the same table with the call path of each edge.
 */
#ifndef TMEM_OS_LOCK_H
#define TMEM_OS_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum os_rank {
	OS_RANK_NONE = 0,
	OS_RANK_CLI = 10,	 /* command line front ends */
	OS_RANK_RUN = 20,	 /* frontswap: the table of address spaces */
	OS_RANK_SPACE = 25,	 /* frontswap: one address space */
	OS_RANK_CC_FOLDER = 30,	 /* cleancache: one open folder */
	OS_RANK_CC_WATCH = 31,	 /* cleancache: who is watched */
	OS_RANK_CC_NAMES = 32,	 /* cleancache: nodes' names and folders */
	OS_RANK_CC_NODES = 33,	 /* cleancache: a shard of the nodes' table */
	OS_RANK_CC_FILE = 34,	 /* cleancache: one file's data */
	OS_RANK_CC_KNOWN = 35,	 /* cleancache: identities of files without a node */
	OS_RANK_CC_ACCOUNT = 36, /* cleancache: memory, and the store's limit */
	OS_RANK_HOST = 40,	 /* zcache: tables of clients, pools, threads */
	OS_RANK_REGISTRY = 45,	 /* alloc: the drivers; modules are loaded inside */
	OS_RANK_POOL = 50,	 /* zcache: one pool's life cycle */
	OS_RANK_THREADS = 55,	 /* zcache: the list of threads' counters */
	OS_RANK_MOVER = 57,	 /* zcache: one move to the overflow file at a time */
	OS_RANK_ZS_POOL = 60,	 /* zsmalloc: one compaction at a time */
	OS_RANK_ZS_CLASS = 70,	 /* zsmalloc: one size class */
	OS_RANK_ZBUD = 72,	 /* zbud: lists and frames of one pool */
	OS_RANK_BOTTOM_UP = 75,	 /* index: bottom-up walks against the end of a pool */
	OS_RANK_SHARD = 80,	 /* index: one shard of a pool */
	OS_RANK_ARENA = 90,	 /* alloc: one metadata arena */
	OS_RANK_SPAN = 95,	 /* zsmalloc: free spans */
	OS_RANK_TRACE = 97,	 /* zcache: one buffer of the recorder */
	OS_RANK_LEAF = 100,	 /* nothing is taken inside */
};

struct os_mutex {
	pthread_mutex_t m;
#if TMEM_CHECKS >= 1
	enum os_rank rank;
	const char *name; /* static string */
#endif
};

/* For one that is static. */
#if TMEM_CHECKS >= 1
#define OS_MUTEX_INIT(r, n)                                                                        \
	{                                                                                          \
		.m = PTHREAD_MUTEX_INITIALIZER, .rank = (r), .name = (n)                           \
	}
#else
#define OS_MUTEX_INIT(r, n)                                                                        \
	{                                                                                          \
		.m = PTHREAD_MUTEX_INITIALIZER                                                     \
	}
#endif
/* Never fails. `name` must be a static string. */
void os_mutex_init(struct os_mutex *m, enum os_rank rank, const char *name);
/* The mutex must be unlocked. */
void os_mutex_destroy(struct os_mutex *m);

#if TMEM_CHECKS >= 1
void os_mutex_lock(struct os_mutex *m);
bool os_mutex_trylock(struct os_mutex *m) __attribute__((warn_unused_result));
void os_mutex_unlock(struct os_mutex *m);
/* Aborts unless the calling thread holds m. */
void os_mutex_assert_held(const struct os_mutex *m);
#else
static inline void os_mutex_lock(struct os_mutex *m)
{
	pthread_mutex_lock(&m->m);
}
__attribute__((warn_unused_result)) static inline bool os_mutex_trylock(struct os_mutex *m)
{
	return pthread_mutex_trylock(&m->m) == 0;
}
static inline void os_mutex_unlock(struct os_mutex *m)
{
	pthread_mutex_unlock(&m->m);
}
static inline void os_mutex_assert_held(const struct os_mutex *m)
{
	(void)m;
}
#endif

/* Condition variable on the monotonic clock. */
struct os_cond {
	pthread_cond_t c;
};
void os_cond_init(struct os_cond *c);
void os_cond_destroy(struct os_cond *c);
void os_cond_wait(struct os_cond *c, struct os_mutex *m);
/* Waits at most timeout_ns; false when the time ran out. */
bool os_cond_timedwait(struct os_cond *c, struct os_mutex *m, uint64_t timeout_ns);
void os_cond_signal(struct os_cond *c);
void os_cond_broadcast(struct os_cond *c);

#endif
