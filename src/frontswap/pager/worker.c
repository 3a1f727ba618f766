/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Workers: compress what was evicted and put it into the store, off the fault
 * path. A job names a slot; the slot is the worker's from SLOT_QUEUED until it
 * sets SLOT_STORED, and the worker touches nothing else of the space.
 *
 * The program can write to its slots at any moment. So a slot is copied first, and
 * looked at there: no codec, and no checksum, meets bytes that change under it. What is
 * copied was in another processor's cache and is in ours then: the codec does not wait
 * for it a second time.
 */
#include "frontswap/pager/run.h"

#include "os/mem.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define WORKER_HURRY 5
#define TELL_SLOTS   8u

/* With checks a put is refused every now and then, as by a store that is full. */
static int put_rarely(struct run *r, tmem_pool pool, const tmem_oid *oid, uint64_t index,
		      uint32_t n, const uint8_t *data)
{
#if TMEM_CHECKS >= 1
	static _Atomic uint32_t puts;

	if (atomic_fetch_add(&puts, 1) % 29 == 28) {
		tmem_invalidate_range(r->client, pool, oid, index, n);
		return -ENOMEM;
	}
#endif
	return tmem_put_cluster(r->client, pool, oid, index, n, data);
}

/* Pages [i, i + n) of a slot as one cluster. */
static void store_cluster(struct space *sp, struct slot *sl, const uint8_t *data, uint32_t i,
			  uint32_t n)
{
	uint32_t bits = ((1u << n) - 1) << i;
	struct run *r = sp->run;
	uint64_t index;
	tmem_oid oid;
	int rc;

	space_oid(sl->area, sl->first + i, &oid, &index);
	rc = put_rarely(r, sp->pool, &oid, index, n, data + (size_t)i * AGENT_PAGE);
	for (uint32_t k = i; k < i + n; k++)
		sl->with[k] = (uint8_t)(n - 1);
	if (rc == 0)
		sl->stored |= bits;
	else if (rc == -E2BIG)
		sl->poor |= bits;
	else
		atomic_store(&r->store_full, true);
}

/* Pages [i, i + n), neighbours in one block: those of which the store has no copy that is right. */
static void store_block(struct space *sp, struct slot *sl, const uint8_t *data, uint32_t i,
			uint32_t n)
{
	uint32_t same = sl->unchanged & ((1u << n) - 1) << i;

	sl->stored |= same;
	for (uint32_t end = i + n; i < end; i += n) {
		n = 1;
		if (same >> i & 1)
			continue;
		while (i + n < end && !(same >> (i + n) & 1))
			n++;
		store_cluster(sp, sl, data, i, n);
	}
}

static void store(const struct job *j)
{
	struct space *sp = j->sp;
	struct slot *sl = j->slot;
	_Alignas(64) uint8_t data[AGENT_SLOT_BYTES];
	uint32_t size = sp->run->opts.cluster;
	uint64_t one = 1;

	for (uint32_t m = sl->moved; m; m &= m - 1) {
		size_t at = (size_t)__builtin_ctz(m) * AGENT_PAGE;

		memcpy(data + at, sp->shm->slots[j->index] + at, AGENT_PAGE);
	}
	if (sl->kept)
		keep_compare(sl, data);
	for (uint32_t i = 0; i < sl->pages;) {
		uint32_t n = 0;

		/* Blocks aligned in the area keep together what was together before. */
		while (i + n < sl->pages && sl->moved >> (i + n) & 1 &&
		       (n == 0 || ((sl->first + i + n) % size && !(sl->apart >> (i + n - 1) & 3))))
			n++;
		if (n)
			store_block(sp, sl, data, i, n);
		i += n ? n : 1;
	}
	atomic_store(&sl->state, SLOT_STORED);
	if (j->tell && write(sp->told, &one, sizeof(one)) < 0)
		one = 0;		/* the counter is full: it is awake */
	atomic_fetch_sub(&sp->jobs, 1); /* from here on the space may be gone */
}

static void *worker_main(void *arg)
{
	struct run *r = arg;
	struct job j;

	/* What it compresses, the program's next fault waits for. */
	home_hurry(r, WORKER_HURRY);
	os_mutex_lock(&r->jobs_lock);
	for (;;) {
		while (!r->jobs_count && !r->jobs_stop)
			os_cond_wait(&r->jobs_cond, &r->jobs_lock);
		if (!r->jobs_count)
			break;
		j = r->jobs[r->jobs_head++ % r->jobs_size];
		r->jobs_count--;
		os_mutex_unlock(&r->jobs_lock);
		store(&j);
		os_mutex_lock(&r->jobs_lock);
	}
	os_mutex_unlock(&r->jobs_lock);
	return NULL;
}

/* Room for n more; false: no memory. The lock is held. */
static bool jobs_grow(struct run *r, unsigned n)
{
	uint32_t size = r->jobs_size;
	struct job *jobs;

	while (r->jobs_count + n > size)
		size *= 2;
	if (size == r->jobs_size)
		return true;
	jobs = os_alloc(size * sizeof(*jobs));
	if (!jobs)
		return false;
	for (uint32_t i = 0; i < r->jobs_count; i++)
		jobs[i] = r->jobs[(r->jobs_head + i) % r->jobs_size];
	os_free(r->jobs);
	r->jobs = jobs;
	r->jobs_head = 0;
	r->jobs_size = size;
	return true;
}

void worker_submit(struct space *sp, const unsigned *slots, unsigned n)
{
	struct run *r = sp->run;
	bool room;

	if (!n)
		return;
	atomic_fetch_add(&sp->jobs, n);
	os_mutex_lock(&r->jobs_lock);
	room = jobs_grow(r, n);
	for (unsigned i = 0; i < n; i++) {
		struct job j = {sp, &sp->slots[slots[i]], slots[i], false};

		/* Wake-ups cost as much as compressing a page or two. Of several workers
		 * none knows which slot is the last. */
		j.tell = r->nworkers > 1 || i % TELL_SLOTS == TELL_SLOTS - 1 || i == n - 1;
		if (room) {
			r->jobs[(r->jobs_head + r->jobs_count++) % r->jobs_size] = j;
			continue;
		}
		os_mutex_unlock(&r->jobs_lock); /* then here, by ourselves */
		store(&j);
		os_mutex_lock(&r->jobs_lock);
	}
	if (n > 1 && r->nworkers > 1)
		os_cond_broadcast(&r->jobs_cond);
	else
		os_cond_signal(&r->jobs_cond);
	os_mutex_unlock(&r->jobs_lock);
}

int workers_start(struct run *r)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int rc = 0;

	os_mutex_init(&r->jobs_lock, OS_RANK_LEAF, "run.jobs");
	os_cond_init(&r->jobs_cond);
	r->jobs_size = 64;
	r->jobs = os_alloc(r->jobs_size * sizeof(*r->jobs));
	if (!r->jobs)
		return -ENOMEM;
	for (r->nworkers = 0; r->nworkers < 16 && (long)r->nworkers < (cpus > 1 ? cpus / 2 : 1);
	     r->nworkers++) {
		rc = os_thread_create(&r->workers[r->nworkers], "tmem-worker", worker_main, r);
		if (rc < 0)
			break;
	}
	return r->nworkers ? 0 : rc;
}

void workers_stop(struct run *r)
{
	os_mutex_lock(&r->jobs_lock);
	r->jobs_stop = true;
	os_cond_broadcast(&r->jobs_cond);
	os_mutex_unlock(&r->jobs_lock);
	while (r->nworkers)
		os_thread_join(r->workers[--r->nworkers]);
	os_free(r->jobs);
	os_cond_destroy(&r->jobs_cond);
	os_mutex_destroy(&r->jobs_lock);
}
