/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clients: a name, a table of pools, an account with a limit, a weight.
 *
 * The account. A client is charged for what exists because of it: its zpages
 * with their headers, the index nodes, objects and tables of its pools, its slots
 * and blocks of counters. What its pages share with others' in the allocators
 * (rounding to a size class, partly filled frames and slabs) is the host's, as
 * are threads' buffers and contexts. A zpage that clones share is charged once;
 * clones never leave their client, so there is no question to whom.
 *
 *   I1  used = zpage_bytes + index_bytes + block_bytes + credits
 *   I2  used <= limit, if there is one, at every instant (but after it was lowered)
 *   I3  credit of a block <= ZC_CREDIT
 *
 * One atomic word a client would be a line that all its threads write at each
 * put. So a thread charges ahead, and keeps the rest as credit in its block for
 * the pool: I2 holds because credits count as used. The price is that a client
 * may be refused that much early. With a limit nothing is charged ahead, and a
 * thread gives back what it had at its next put or drop in that pool.
 *
 * Weights. Under pressure the client with the greatest used / weight pays first:
 * the one most above its weighted share, whatever the shares add up to. A heavier
 * client is one that pays *later*: the comparison is in one place, below, and a
 * test has two clients of equal use and unequal weight. evict.c asks it when it
 * chooses a set of queues.
 *
 * Locks: host->lock for the list; the account takes none.
 */
#include "zcache/zcache.h"

#include <stdio.h>

/* ---- the account -------------------------------------------------------------------- */

bool zc_client_charge(struct tmem_client *c, uint64_t bytes)
{
	uint64_t limit = atomic_load_explicit(&c->limit, memory_order_relaxed);
	uint64_t used = atomic_load_explicit(&c->used, memory_order_relaxed);

	do {
		if (limit && (bytes > limit || used > limit - bytes))
			return false;
	} while (!atomic_compare_exchange_weak_explicit(
		&c->used, &used, used + bytes, memory_order_relaxed, memory_order_relaxed));
	return true;
}

void zc_client_uncharge(struct tmem_client *c, uint64_t bytes)
{
	uint64_t was = atomic_fetch_sub_explicit(&c->used, bytes, memory_order_relaxed);

	tmem_assert(I1, was >= bytes);
	(void)was;
}

bool zc_charge_slow(struct zc_counts *k, uint64_t bytes)
{
	struct tmem_client *c = k->client;
	uint64_t credit, limit, want = bytes;

	if (!c) /* the host's own: in its account already */
		return true;
	if (k->shared)
		return zc_client_charge(c, bytes);
	credit = atomic_load_explicit(&k->credit, memory_order_relaxed);
	limit = atomic_load_explicit(&c->limit, memory_order_relaxed);
	if (!limit) {
		want += ZC_CREDIT / 2;
	} else if (credit) {
		atomic_store_explicit(&k->credit, 0, memory_order_relaxed);
		zc_client_uncharge(c, credit);
		credit = 0;
	}
	want -= credit < want ? credit : want;
	if (!zc_client_charge(c, want))
		return false;
	atomic_store_explicit(&k->credit, credit + want - bytes, memory_order_relaxed);
	return true;
}

void zc_uncharge_slow(struct zc_counts *k)
{
	uint64_t limit = atomic_load_explicit(&k->client->limit, memory_order_relaxed);
	uint64_t keep = limit ? 0 : ZC_CREDIT / 2;
	uint64_t credit = atomic_load_explicit(&k->credit, memory_order_relaxed);

	if (credit <= keep)
		return;
	atomic_store_explicit(&k->credit, keep, memory_order_relaxed);
	zc_client_uncharge(k->client, credit - keep);
}

void *zc_client_alloc(struct tmem_client *c, size_t bytes)
{
	uint64_t cost = zc_block_cost(bytes);
	void *p;

	if (!zc_client_charge(c, cost))
		return NULL;
	p = zc_alloc(c->host, bytes);
	if (p)
		atomic_fetch_add_explicit(&c->block_bytes, cost, memory_order_relaxed);
	else
		zc_client_uncharge(c, cost);
	return p;
}

void zc_client_free(struct tmem_client *c, void *p, size_t bytes)
{
	uint64_t cost = zc_block_cost(bytes);

	if (!p)
		return;
	atomic_fetch_sub_explicit(&c->block_bytes, cost, memory_order_relaxed);
	zc_client_uncharge(c, cost);
	zc_free(c->host, p, bytes);
}

uint64_t zc_client_used(const struct tmem_client *c)
{
	return atomic_load_explicit(&c->used, memory_order_relaxed);
}

uint64_t zc_client_bytes(const struct tmem_client *c, uint64_t credits)
{
	uint64_t used = zc_client_used(c);

	if (atomic_load_explicit(&c->limit, memory_order_relaxed))
		return used;
	return used > credits ? used - credits : 0;
}

/* ---- limits and weights --------------------------------------------------------------- */

int tmem_client_set_limit(tmem_client *c, uint64_t limit_bytes)
{
	atomic_store_explicit(&c->limit, limit_bytes, memory_order_relaxed);
	return 0;
}

int tmem_client_set_weight(tmem_client *c, uint32_t weight)
{
	if (weight < 1 || weight > TMEM_WEIGHT_MAX)
		return -EINVAL;
	atomic_store_explicit(&c->weight, weight, memory_order_relaxed);
	return 0;
}

bool zc_client_pays_before(const struct tmem_client *a, const struct tmem_client *b)
{
	uint64_t wa = atomic_load_explicit(&a->weight, memory_order_relaxed);
	uint64_t wb = atomic_load_explicit(&b->weight, memory_order_relaxed);

	return (unsigned __int128)zc_client_used(a) * wb >
	       (unsigned __int128)zc_client_used(b) * wa;
}

/* ---- life -------------------------------------------------------------------------------- */

int tmem_client_create(tmem_host *h, const char *name, tmem_client **out)
{
	struct tmem_client *c = zc_alloc(h, sizeof(*c));

	*out = NULL;
	if (!c)
		return -ENOMEM;
	c->host = h;
	c->number = atomic_fetch_add(&h->clients_ever, 1);
	zc_evict_init(&c->ev[ZC_SET_EPHEMERAL], h, c, ZC_EPHEMERAL, ZC_WORTH_PLAIN);
	zc_evict_init(&c->ev[ZC_SET_COSTLY], h, c, ZC_EPHEMERAL, ZC_WORTH_COSTLY);
	zc_evict_init(&c->ev[ZC_SET_PERSISTENT], h, c, ZC_PERSISTENT, ZC_WORTH_PLAIN);
	snprintf(c->name, sizeof(c->name), "%s", name ? name : "");
	atomic_init(&c->weight, ZC_WEIGHT_DEFAULT);
	atomic_init(&c->used, zc_block_cost(sizeof(*c)));
	atomic_init(&c->block_bytes, zc_block_cost(sizeof(*c)));
	os_mutex_lock(&h->lock);
	c->next = h->clients;
	if (c->next)
		c->next->prev = c;
	h->clients = c;
	os_mutex_unlock(&h->lock);
	atomic_fetch_add(&h->nclients, 1);
	*out = c;
	return 0;
}

void tmem_client_destroy(tmem_client *c)
{
	struct tmem_host *h;

	if (!c)
		return;
	h = c->host;
	zc_client_end_pools(c);
	zc_overflow_wait(h);
	/* Counts what is being evicted from the client at this moment, too. */
	for (unsigned i = 0; i < ZC_SETS; i++)
		zc_evict_exit(&c->ev[i]);
	os_mutex_lock(&h->lock);
	if (c->next)
		c->next->prev = c->prev;
	if (c->prev)
		c->prev->next = c->next;
	else
		h->clients = c->next;
	zc_counts_end_client(c);
	os_mutex_unlock(&h->lock);
	atomic_fetch_sub(&h->nclients, 1);
	zc_shared_forget(c);
	zc_client_free_slots(c);
	tmem_assert(I1, zc_client_used(c) == zc_block_cost(sizeof(*c)));
	zc_free(h, c, sizeof(*c));
}

void tmem_client_freeze(tmem_client *c, int frozen)
{
	atomic_store(&c->frozen, frozen != 0);
}
