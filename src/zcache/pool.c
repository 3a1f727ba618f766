/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pools: how one is named, entered, and ended (T10).
 *
 * A pool id is slot | generation << 12. Slots belong to a client and stay in
 * memory until it goes, so that an id of any age can be looked up with no lock;
 * a slot is used again with the next generation, and never again after the
 * last one. Ids mean nothing to other clients, who look in their own tables.
 *
 * Users are counted in 16 stripes, each on its own cache line, chosen by
 * thread: entering and leaving a pool writes no line that is shared between
 * threads (on up to 16 of them).
 *
 *    enter                               destroy
 *      users[i]++            (a)           id = -1               (b)
 *      id still mine?        (c)           dying = true
 *      yes: inside; no: leave              sleep until users[*] == 0  (d)
 *    leave                                 free what is in the slot
 *      users[i]--            (e)
 *      dying? wake the destroyer (f)
 *
 * All of these are sequentially consistent. Either (a) precedes (d), and the
 * destroyer waits for this user; or (b) < (d) < (a) < (c), and the user sees
 * that the id is gone. Either (e) precedes (d)'s look at the stripe; or the
 * leaver sees dying at (f), takes the slot's lock and signals after the
 * destroyer went to sleep. A stripe may be raised for a moment by users of a
 * stale id; that only delays.
 *
 * Slots. Who comes by a leaf, without having been asked by the client (recompression),
 * enters by the slot. The leaf's lock keeps the slot in memory while he does: its pool
 * cannot end before. Once he has lowered his count nothing does; but he still looks at
 * `dying`. So he leaves under a lock that whoever frees the slot takes in between:
 * the leaf's, or host->lock, by which clients and shared pools leave their lists.
 *
 * Who takes pages out by a leaf counts that, when its lock is gone, for the pool which
 * had them. He is inside for that, be the pool ending or not, and the destroyer waits
 * once more when its leaves have gone: what is counted late is never the next pool's.
 *
 *   I1  slot->id >= 0  =>  slot->pool is that pool and may be used by who entered
 *   I2  slot->id == -1 and no destroyer at work  =>  slot->pool == NULL
 *
 * Locks: host->lock guards the tables; slot->lock only the sleep.
 */
#include "zcache/trace.h"
#include "zcache/zcache.h"

/* ---- entering ----------------------------------------------------------------- */

struct zc_slot *zc_slot_of(struct tmem_client *c, uint32_t number)
{
	struct zc_slot_chunk *chunk;

	chunk = atomic_load_explicit(&c->chunk[number / ZC_SLOT_CHUNK], memory_order_acquire);
	if (!chunk)
		return NULL;
	return atomic_load_explicit(&chunk->slot[number % ZC_SLOT_CHUNK], memory_order_acquire);
}

struct zc_slot *zc_pool_enter(struct tmem_client *c, tmem_pool pool)
{
	struct zc_slot *s;

	if (tmem_unlikely(pool < 0))
		return NULL;
	s = zc_slot_of(c, (uint32_t)pool & (ZC_SLOTS - 1));
	if (tmem_unlikely(!s))
		return NULL;
	atomic_fetch_add(&s->stripe[os_thread_number() % ZC_STRIPES].users, 1);
	if (tmem_likely(atomic_load(&s->id) == pool))
		return s;
	zc_pool_leave(s);
	return NULL;
}

void zc_pool_leave(struct zc_slot *s)
{
	atomic_fetch_sub(&s->stripe[os_thread_number() % ZC_STRIPES].users, 1);
	if (tmem_unlikely(atomic_load(&s->dying))) {
		os_mutex_lock(&s->lock);
		os_cond_broadcast(&s->gone);
		os_mutex_unlock(&s->lock);
	}
}

/*
 * For who may not take the slot's lock in its order, since he holds a shard. Its
 * holder holds it for some instructions and takes no other inside.
 */
static void wake_destroyer(struct zc_slot *s)
{
	while (!os_mutex_trylock(&s->lock))
		;
	os_cond_broadcast(&s->gone);
	os_mutex_unlock(&s->lock);
}

bool zc_pool_enter_slot(struct zc_slot *s)
{
	struct zc_stripe *stripe = &s->stripe[os_thread_number() % ZC_STRIPES];

	if (atomic_load(&s->id) < 0)
		return false;
	atomic_fetch_add(&stripe->users, 1);
	if (tmem_likely(atomic_load(&s->id) >= 0))
		return true;
	zc_pool_leave_slot(s);
	return false;
}

void zc_pool_leave_slot(struct zc_slot *s)
{
	atomic_fetch_sub(&s->stripe[os_thread_number() % ZC_STRIPES].users, 1);
	if (atomic_load(&s->dying))
		wake_destroyer(s);
}

struct zc_counts *zc_count_slot(struct zc_thread *t, struct zc_slot *s)
{
	struct zc_counts *was = t->counts;

	/* Whatever its id is: while the leaf is locked its pool has not gone. */
	atomic_fetch_add(&s->stripe[os_thread_number() % ZC_STRIPES].users, 1);
	t->counts = &s->spare;
	return was;
}

void zc_count_back(struct zc_thread *t, struct zc_counts *was)
{
	struct zc_slot *s = t->counts->slot;

	t->counts = was;
	zc_pool_leave_slot(s);
}

static bool slot_in_use(struct zc_slot *s)
{
	for (unsigned i = 0; i < ZC_STRIPES; i++)
		if (atomic_load(&s->stripe[i].users))
			return true;
	return false;
}

/* ---- tables --------------------------------------------------------------------- */

/* The slot's memory; host->lock is held. */
static struct zc_slot *slot_make(struct tmem_client *c, uint32_t number)
{
	struct zc_slot_chunk *chunk = c->chunk[number / ZC_SLOT_CHUNK];
	struct zc_slot *s;

	if (!chunk) {
		chunk = zc_client_alloc(c, sizeof(*chunk));
		if (!chunk)
			return NULL;
		atomic_store_explicit(&c->chunk[number / ZC_SLOT_CHUNK], chunk,
				      memory_order_release);
	}
	s = zc_client_alloc(c, sizeof(*s));
	if (!s)
		return NULL;
	s->host = c->host;
	s->client = c;
	zc_counts_init(&s->spare, c, s);
	s->number = number;
	atomic_init(&s->id, -1);
	os_mutex_init(&s->lock, OS_RANK_POOL, "zcache pool");
	os_cond_init(&s->gone);
	atomic_store_explicit(&chunk->slot[number % ZC_SLOT_CHUNK], s, memory_order_release);
	return s;
}

struct zc_slot *zc_slot_take(struct tmem_client *c)
{
	struct zc_slot *s = NULL;

	os_mutex_lock(&c->host->lock);
	if (c->free_slot) {
		s = zc_slot_of(c, c->free_slot - 1);
		c->free_slot = s->next_free;
	} else if (c->slots < ZC_SLOTS) {
		s = slot_make(c, c->slots);
		if (s)
			c->slots++;
	}
	if (s) {
		s->serial = ++c->host->serials;
		s->account = s;
	}
	os_mutex_unlock(&c->host->lock);
	return s;
}

void zc_slot_give_back(struct tmem_client *c, struct zc_slot *s)
{
	os_mutex_lock(&c->host->lock);
	zc_counts_end_pool(s);
	s->pool = NULL;
	s->cloned = false;
	/* A slot whose generations are used up stays empty: no id ever comes back. */
	if (++s->generation < ZC_GENERATIONS) {
		s->next_free = c->free_slot;
		c->free_slot = s->number + 1;
	}
	os_mutex_unlock(&c->host->lock);
}

/* ---- life ----------------------------------------------------------------------- */

int zc_pool_make(struct tmem_client *c, uint32_t flags, uint32_t shards, struct zc_slot **out)
{
	struct zc_slot *s = zc_slot_take(c);
	int rc = -ENOMEM;

	*out = NULL;
	if (!s)
		return rc;
	s->client = c;
	s->shared = NULL;
	s->flags = flags;
	atomic_store(&s->codec, 0);
	atomic_store(&s->trained_at, 0);
	s->name_seed = c->number << ZC_SLOT_BITS ^ (s->number | s->generation << ZC_SLOT_BITS);
	s->exclusive = !(flags & TMEM_POOL_PERSIST);
	s->ev = NULL;
	if (!(flags & TMEM_POOL_PERSIST))
		s->ev = &c->ev[flags & TMEM_POOL_COSTLY ? ZC_SET_COSTLY : ZC_SET_EPHEMERAL];
	else if (c->host->queue_persistent)
		s->ev = &c->ev[ZC_SET_PERSISTENT];
	rc = index_pool_create(c->host->index, shards, &zc_pam, s, s, &s->pool);
	if (rc)
		zc_slot_give_back(c, s);
	else
		*out = s;
	return rc;
}

tmem_pool zc_pool_publish(struct zc_slot *s)
{
	int32_t id = (int32_t)(s->number | s->generation << ZC_SLOT_BITS);

	atomic_fetch_add(&s->host->npools, 1);
	atomic_fetch_add(&s->client->npools, 1);
	atomic_store(&s->id, id);
	return id;
}

void zc_pool_discard(struct tmem_client *c, struct zc_slot *s)
{
	index_pool_destroy(s->pool);
	/* For who took pages out by their leaves, and still counts them. */
	zc_pool_wait(s);
	zc_pool_set_dict(s, 0);
	zc_slot_give_back(c, s);
}

tmem_pool tmem_pool_create(tmem_client *c, uint32_t flags, uint32_t shards)
{
	struct zc_slot *s;
	int rc;

	if (flags & TMEM_POOL_PAGE_SIZE_MASK)
		return -EOPNOTSUPP;
	/* A shared pool has a UUID: tmem_pool_create_shared(). */
	if (flags & ~(TMEM_POOL_PERSIST | TMEM_POOL_PRECOMPRESSED | TMEM_POOL_COSTLY) ||
	    (flags & TMEM_POOL_PERSIST && flags & TMEM_POOL_COSTLY) || shards & (shards - 1) ||
	    shards > 4096)
		return -EINVAL;
	rc = zc_pool_make(c, flags, shards, &s);
	if (rc)
		return rc;
	rc = zc_pool_publish(s);
	zc_trace(c, rc, TRACE_POOL_NEW, NULL, 0, flags, true, 0);
	return rc;
}

void zc_pool_wait(struct zc_slot *s)
{
	os_mutex_lock(&s->lock);
	atomic_store(&s->dying, true);
	while (slot_in_use(s))
		os_cond_wait(&s->gone, &s->lock);
	atomic_store(&s->dying, false);
	os_mutex_unlock(&s->lock);
}

/* The slot's id is -1 by our hand: wait for users and end the pool. */
static void pool_end(struct tmem_client *c, struct zc_slot *s)
{
	bool cloned;

	zc_pool_wait(s);
	atomic_fetch_sub(&s->host->npools, 1);
	atomic_fetch_sub(&s->client->npools, 1);
	if (s->shared) {
		zc_shared_leave(c, s);
		return;
	}
	cloned = s->cloned;
	zc_pool_discard(c, s);
	/* What it shared may be movable now, under its remaining owner. */
	if (cloned)
		atomic_store(&c->host->adopt_after_ns, 0);
}

int tmem_pool_destroy(tmem_client *c, tmem_pool pool)
{
	struct zc_slot *s = zc_pool_enter(c, pool);
	int32_t id = pool;
	bool mine;

	if (!s)
		return -ENOENT;
	/* Of two destroyers one wins. */
	mine = atomic_compare_exchange_strong(&s->id, &id, -1);
	zc_pool_leave(s);
	if (!mine)
		return -ENOENT;
	pool_end(c, s);
	zc_trace(c, pool, TRACE_POOL_END, NULL, 0, 0, true, 0);
	return 0;
}

/* ---- all of them ------------------------------------------------------------------ */

void zc_client_end_pools(struct tmem_client *c)
{
	for (uint32_t i = 0; i < c->slots; i++) {
		struct zc_slot *s = zc_slot_of(c, i);

		if (atomic_load(&s->id) >= 0) {
			atomic_store(&s->id, -1);
			pool_end(c, s);
		}
	}
}

void zc_client_free_slots(struct tmem_client *c)
{
	for (uint32_t i = 0; i < c->slots; i++) {
		struct zc_slot *s = zc_slot_of(c, i);

		os_cond_destroy(&s->gone);
		os_mutex_destroy(&s->lock);
		zc_client_free(c, s, sizeof(*s));
	}
	for (uint32_t i = 0; i < ZC_SLOTS / ZC_SLOT_CHUNK; i++)
		zc_client_free(c, c->chunk[i], sizeof(struct zc_slot_chunk));
}

int zc_each_pool(struct tmem_host *h, int (*fn)(void *arg, struct zc_slot *s), void *arg)
{
	int rc = 0;

	os_mutex_lock(&h->lock);
	for (struct tmem_client *c = h->clients; c && !rc; c = c->next) {
		for (uint32_t i = 0; i < c->slots && !rc; i++) {
			int32_t id = atomic_load(&zc_slot_of(c, i)->id);
			struct zc_slot *s = id < 0 ? NULL : zc_pool_enter(c, id);

			if (!s)
				continue;
			if (!s->shared || zc_shared_leads(s))
				rc = fn(arg, s);
			zc_pool_leave(s);
		}
	}
	os_mutex_unlock(&h->lock);
	return rc;
}
