/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mutexes with ranks.
 *
 * What it is: pthread mutexes; in builds with TMEM_CHECKS >= 1 each thread
 * also keeps the list of mutexes it holds, and each lock is compared with it.
 * Why: a deadlock needs two threads to meet at the wrong moment, an inversion
 * of ranks shows on the first run of the path that has it.
 *
 *   held[]   SHARD 80 | BOTTOM_UP 75 | ZS_CLASS 70        lock(POOL 50): abort
 *             ^ of all of them the greatest rank counts
 *
 *   I1  0 <= nr_held <= HELD_MAX
 *   I2  a blocking lock of m:  m->rank > max(held[].rank), and m not in held[]
 *   I3  an unlock of m:        m in held[]
 *
 * A trylock never waits, so it cannot close a cycle: it is exempt from the
 * order in I2, but not from "not in held[]". What it took counts for the locks
 * after it. Mutexes of rank OS_RANK_NONE have no order either.
 *
 * A thread that waits on a condition variable keeps the mutex in its list: it
 * runs nothing else meanwhile.
 *
 * Failure: pthread calls fail here only by misuse; the process stops then.
 */
#include "os/lock.h"

#include "os/check.h"

#include <errno.h>
#include <time.h>

#if TMEM_CHECKS >= 1
#include <stdio.h>

#define HELD_MAX 16

static _Thread_local const struct os_mutex *held[HELD_MAX];
static _Thread_local int nr_held;

static int held_find(const struct os_mutex *m)
{
	for (int i = nr_held - 1; i >= 0; i--) {
		if (held[i] == m)
			return i;
	}
	return -1;
}

__attribute__((noreturn, cold)) static void lock_failed(const char *what, const struct os_mutex *m,
							const struct os_mutex *other)
{
	char text[256];

	if (other)
		snprintf(text, sizeof(text), "%s: taking %s (rank %d) while holding %s (rank %d)",
			 what, m->name, (int)m->rank, other->name, (int)other->rank);
	else
		snprintf(text, sizeof(text), "%s: %s (rank %d)", what, m->name, (int)m->rank);
	os_check_failed(text, __FILE__, __LINE__);
}

static void check_order(const struct os_mutex *m)
{
	if (m->rank == OS_RANK_NONE)
		return;
	for (int i = 0; i < nr_held; i++) {
		if (held[i]->rank >= m->rank)
			lock_failed("I2: lock order", m, held[i]);
	}
}

static void check_not_held(const struct os_mutex *m)
{
	if (held_find(m) >= 0)
		lock_failed("I2: taken twice", m, NULL);
}

static void held_push(const struct os_mutex *m)
{
	if (nr_held >= HELD_MAX)
		lock_failed("I1: too many locks", m, held[HELD_MAX - 1]);
	held[nr_held++] = m;
}

void os_mutex_lock(struct os_mutex *m)
{
	check_not_held(m);
	check_order(m);
	tmem_must(pthread_mutex_lock(&m->m) == 0);
	held_push(m);
}

bool os_mutex_trylock(struct os_mutex *m)
{
	check_not_held(m);
	if (pthread_mutex_trylock(&m->m) != 0)
		return false;
	held_push(m);
	return true;
}

void os_mutex_unlock(struct os_mutex *m)
{
	int i = held_find(m);

	if (i < 0)
		lock_failed("I3: unlocked but not held", m, NULL);
	/* Any order of release is fine; keep the rest in order of taking. */
	nr_held--;
	for (; i < nr_held; i++)
		held[i] = held[i + 1];
	tmem_must(pthread_mutex_unlock(&m->m) == 0);
}

void os_mutex_assert_held(const struct os_mutex *m)
{
	if (held_find(m) < 0)
		lock_failed("must be held", m, NULL);
}
#endif

void os_mutex_init(struct os_mutex *m, enum os_rank rank, const char *name)
{
	tmem_must(pthread_mutex_init(&m->m, NULL) == 0);
#if TMEM_CHECKS >= 1
	m->rank = rank;
	m->name = name;
#else
	(void)rank;
	(void)name;
#endif
}

void os_mutex_destroy(struct os_mutex *m)
{
	int rc = pthread_mutex_destroy(&m->m);

	tmem_assert(unlocked, rc == 0);
	(void)rc;
}

void os_cond_init(struct os_cond *c)
{
	pthread_condattr_t attr;

	tmem_must(pthread_condattr_init(&attr) == 0);
	tmem_must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
	tmem_must(pthread_cond_init(&c->c, &attr) == 0);
	(void)pthread_condattr_destroy(&attr);
}

void os_cond_destroy(struct os_cond *c)
{
	(void)pthread_cond_destroy(&c->c);
}

void os_cond_wait(struct os_cond *c, struct os_mutex *m)
{
	os_mutex_assert_held(m);
	tmem_must(pthread_cond_wait(&c->c, &m->m) == 0);
}

bool os_cond_timedwait(struct os_cond *c, struct os_mutex *m, uint64_t timeout_ns)
{
	const uint64_t ns_per_s = UINT64_C(1000000000);
	struct timespec ts;
	int rc;

	os_mutex_assert_held(m);
	/* The real clock, also under os_clock_replace(): the kernel knows no other. */
	tmem_must(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
	timeout_ns += (uint64_t)ts.tv_nsec;
	ts.tv_sec += (time_t)(timeout_ns / ns_per_s);
	ts.tv_nsec = (long)(timeout_ns % ns_per_s);
	rc = pthread_cond_timedwait(&c->c, &m->m, &ts);
	tmem_must(rc == 0 || rc == ETIMEDOUT);
	return rc == 0;
}

void os_cond_signal(struct os_cond *c)
{
	tmem_must(pthread_cond_signal(&c->c) == 0);
}

void os_cond_broadcast(struct os_cond *c)
{
	tmem_must(pthread_cond_broadcast(&c->c) == 0);
}
