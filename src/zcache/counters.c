/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Counters: one block for each thread and pool.
 *
 * Statistics are wanted by pool, by client and by host, and the hot path may not
 * write a line that another thread writes. One block a (thread, pool) gives all
 * three by summing. (Measured against the alternatives: striped atomics cost a
 * locked instruction for each of about five counters of an operation; a block a
 * thread has no answer to "which client".)
 *
 *   thread T1 ──┬── [T1,P1] ── [T1,P2]          by thread: zc_thread.blocks
 *   thread T2 ──┼── [T2,P1]                     by pool:   zc_slot.blocks
 *               │
 *   pool P1: blocks + spare ──► client: gone + its pools ──► host: gone + own + its clients
 *
 * A thread finds its block in a small cache by the pool's serial, which is never
 * used again, so no entry has to be taken back when a pool ends. A thread
 * without memory for a block counts in the pool's spare one, by atomics.
 *
 *   I1  a block is in its pool's list and in its thread's, or in none
 *   I2  count of a client = gone + sum over its pools of (spare + sum of blocks);
 *       count of a host = own + gone + sum over its clients and its shared pools
 *   I3  a gauge may be "negative" (wrapped) in one block, never in a sum taken
 *       while nothing runs: who takes out need not be who put in
 *
 * What ends hands on what it counted, under one hold of threads_lock, so a sum
 * never misses a block nor has it twice: a thread to the pool's spare block, a
 * pool to its client, a client to the host.
 *
 * Locks: host->lock (tables of pools), then threads_lock (lists of blocks, gone).
 */
#include "zcache/zcache.h"

static uint64_t get(const _Atomic uint64_t *p)
{
	return atomic_load_explicit(p, memory_order_relaxed);
}

void zc_counts_init(struct zc_counts *k, struct tmem_client *c, struct zc_slot *s)
{
	memset(k, 0, sizeof(*k));
	k->client = c;
	k->slot = s;
	k->shared = true;
}

/* ---- a thread's block for a pool ------------------------------------------------- */

static void unlink_block(struct zc_counts *k)
{
	if (k->slot_next)
		k->slot_next->slot_prev = k->slot_prev;
	if (k->slot_prev)
		k->slot_prev->slot_next = k->slot_next;
	else
		k->slot->blocks = k->slot_next;
	if (k->thread_next)
		k->thread_next->thread_prev = k->thread_prev;
	if (k->thread_prev)
		k->thread_prev->thread_next = k->thread_next;
	else
		k->owner->blocks = k->thread_next;
}

static void link_block(struct zc_counts *k)
{
	k->slot_next = k->slot->blocks;
	if (k->slot_next)
		k->slot_next->slot_prev = k;
	k->slot->blocks = k;
	k->thread_next = k->owner->blocks;
	if (k->thread_next)
		k->thread_next->thread_prev = k;
	k->owner->blocks = k;
}

static struct zc_counts *find_block(struct zc_thread *t, struct zc_slot *s)
{
	struct zc_counts *k;

	os_mutex_lock(&t->host->threads_lock);
	for (k = s->blocks; k && k->owner != t; k = k->slot_next)
		;
	os_mutex_unlock(&t->host->threads_lock);
	return k;
}

static struct zc_counts *make_block(struct zc_thread *t, struct zc_slot *s)
{
	struct zc_counts *k = zc_client_alloc(s->client, sizeof(*k));

	if (!k)
		return NULL;
	k->client = s->client;
	k->slot = s;
	k->owner = t;
	os_mutex_lock(&t->host->threads_lock);
	link_block(k);
	os_mutex_unlock(&t->host->threads_lock);
	return k;
}

void zc_counts_use(struct zc_thread *t, struct zc_slot *s)
{
	unsigned i = s->serial % ZC_COUNTS_CACHE;
	struct zc_counts *k = NULL;

	s = s->account;
	if (t->cache[i].serial == s->serial)
		k = t->cache[i].counts;
	if (!k)
		k = find_block(t, s);
	if (!k)
		k = make_block(t, s);
	if (k) {
		t->cache[i].serial = s->serial;
		t->cache[i].counts = k;
	}
	/* The spare one is not remembered: the next time there may be memory. */
	t->counts = k ? k : &s->spare;
	t->serial = s->serial;
}

/* ---- sums ------------------------------------------------------------------------ */

static void sum_block(const struct zc_counts *k, struct zc_sum *sum)
{
	for (unsigned i = 0; i < ZC_COUNTERS; i++)
		sum->n[i] += get(&k->count[i]);
	for (unsigned i = 0; i < ZC_ZSIZE_BUCKETS; i++) {
		sum->made[i] += get(&k->made[i]);
		sum->freed[i] += get(&k->freed[i]);
	}
}

static void sum_sum(const struct zc_sum *from, struct zc_sum *sum)
{
	for (unsigned i = 0; i < ZC_COUNTERS; i++)
		sum->n[i] += from->n[i];
	for (unsigned i = 0; i < ZC_ZSIZE_BUCKETS; i++) {
		sum->made[i] += from->made[i];
		sum->freed[i] += from->freed[i];
	}
}

static void sum_slot(const struct zc_slot *s, struct zc_sum *sum)
{
	sum_block(&s->spare, sum);
	for (const struct zc_counts *k = s->blocks; k; k = k->slot_next)
		sum_block(k, sum);
}

static void sum_client(struct tmem_client *c, struct zc_sum *sum)
{
	sum_sum(&c->gone, sum);
	for (uint32_t i = 0; i < c->slots; i++)
		sum_slot(zc_slot_of(c, i), sum);
}

/* A shared pool is a client of its own, with one pool that is in nobody's table. */
static void sum_shared(void *arg, struct zc_slot *home)
{
	sum_sum(&home->client->gone, arg);
	sum_slot(home, arg);
}

void zc_sum_pool(struct zc_slot *s, struct zc_sum *sum)
{
	memset(sum, 0, sizeof(*sum));
	os_mutex_lock(&s->host->threads_lock);
	sum_slot(s->account, sum);
	os_mutex_unlock(&s->host->threads_lock);
}

void zc_sum_client(struct tmem_client *c, struct zc_sum *sum)
{
	memset(sum, 0, sizeof(*sum));
	os_mutex_lock(&c->host->lock);
	os_mutex_lock(&c->host->threads_lock);
	sum_client(c, sum);
	os_mutex_unlock(&c->host->threads_lock);
	os_mutex_unlock(&c->host->lock);
}

void zc_sum_host(struct tmem_host *h, struct zc_sum *sum)
{
	memset(sum, 0, sizeof(*sum));
	os_mutex_lock(&h->lock);
	os_mutex_lock(&h->threads_lock);
	sum_block(&h->own, sum);
	sum_sum(&h->gone, sum);
	for (struct tmem_client *c = h->clients; c; c = c->next)
		sum_client(c, sum);
	zc_shared_each(h, sum_shared, sum);
	os_mutex_unlock(&h->threads_lock);
	os_mutex_unlock(&h->lock);
}

void zc_threads_sum(struct tmem_host *h, uint64_t sum[ZC_COUNTERS])
{
	struct zc_sum all;

	zc_sum_host(h, &all);
	memcpy(sum, all.n, sizeof(all.n));
}

void zc_sum_latency(struct tmem_host *h, uint64_t sum[ZC_LATENCIES][ZC_LATENCY_BUCKETS])
{
	os_mutex_lock(&h->threads_lock);
	for (unsigned k = 0; k < ZC_LATENCIES; k++) {
		for (unsigned i = 0; i < ZC_LATENCY_BUCKETS; i++) {
			sum[k][i] = h->latency_gone[k][i] + get(&h->emergency->latency[k][i]);
			for (struct zc_thread *t = h->threads; t; t = t->next)
				sum[k][i] += get(&t->latency[k][i]);
		}
	}
	os_mutex_unlock(&h->threads_lock);
}

static uint64_t slot_credits(const struct zc_slot *s)
{
	uint64_t sum = 0;

	for (const struct zc_counts *k = s->blocks; k; k = k->slot_next)
		sum += get(&k->credit);
	return sum;
}

uint64_t zc_credits_locked(struct tmem_client *c)
{
	uint64_t sum = 0;

	os_mutex_lock(&c->host->threads_lock);
	for (uint32_t i = 0; i < c->slots; i++)
		sum += slot_credits(zc_slot_of(c, i));
	os_mutex_unlock(&c->host->threads_lock);
	return sum;
}

uint64_t zc_credits(struct tmem_client *c)
{
	uint64_t sum;

	os_mutex_lock(&c->host->lock);
	sum = zc_credits_locked(c);
	os_mutex_unlock(&c->host->lock);
	return sum;
}

uint64_t zc_pool_credits(struct zc_slot *s)
{
	uint64_t sum;

	os_mutex_lock(&s->host->threads_lock);
	sum = slot_credits(s->account);
	os_mutex_unlock(&s->host->threads_lock);
	return sum;
}

/* ---- ends ------------------------------------------------------------------------- */

static void free_block(struct zc_counts *k)
{
	zc_client_uncharge(k->client, get(&k->credit));
	zc_client_free(k->client, k, sizeof(*k));
}

/* What the block counted is the pool's from now on. */
void zc_counts_end_thread(struct zc_thread *t)
{
	struct tmem_host *h = t->host;
	struct zc_counts *k;

	/* Freed under the lock: without it the pool, and then its client, might end meanwhile. */
	os_mutex_lock(&h->threads_lock);
	while ((k = t->blocks)) {
		struct zc_counts *to = &k->slot->spare;

		for (unsigned i = 0; i < ZC_COUNTERS; i++)
			zc_add(to, &to->count[i], get(&k->count[i]));
		for (unsigned i = 0; i < ZC_ZSIZE_BUCKETS; i++) {
			zc_add(to, &to->made[i], get(&k->made[i]));
			zc_add(to, &to->freed[i], get(&k->freed[i]));
		}
		unlink_block(k);
		free_block(k);
	}
	os_mutex_unlock(&h->threads_lock);
}

void zc_counts_end_pool(struct zc_slot *s)
{
	struct tmem_client *c = s->client;
	struct zc_counts *k;

	os_mutex_lock(&s->host->threads_lock);
	sum_block(&s->spare, &c->gone);
	zc_counts_init(&s->spare, c, s);
	while ((k = s->blocks)) {
		sum_block(k, &c->gone);
		unlink_block(k);
		free_block(k);
	}
	os_mutex_unlock(&s->host->threads_lock);
}

void zc_counts_end_client(struct tmem_client *c)
{
	os_mutex_lock(&c->host->threads_lock);
	sum_client(c, &c->host->gone);
	os_mutex_unlock(&c->host->threads_lock);
}
