/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shared ephemeral pools: one pool of pages, named by several clients of a host
 * by a 128-bit UUID (for example one file system that several programs read).
 *
 *   client A  slot 3 ──┐
 *   client B  slot 0 ──┼──> struct zc_shared { home, set of queues, who may join }
 *   client B  slot 7 ──┘          │
 *                                 └──> index pool (its owner and context is `home`)
 *
 * Each member has a slot of its own in its own table, entered and ended like
 * any other (pool.c); only what the slot points to is shared. `home` is a slot
 * in nobody's table: the index pool needs an owner that outlives each member. It
 * is entered by who comes from a leaf (recompression), and waited for at the end.
 *
 * A UUID is a name, not a key: it may be on the disk for all to read. So who
 * may join is said by the maker, client by client.
 *
 *   I1  shared.members = slots that point to it
 *   I2  shared.lead is one of them; walks over all pools look at the pool there
 *   I3  shared.passes name live clients only
 *
 * Who pays. Several clients put pages in, take them out, replace each other's: no
 * one of them can be charged in a way that stays true. So a shared pool has an
 * account and counters of its own (`own`, a client that is in no list); under
 * pressure it is weighed against the clients like one of them.
 *
 * Locks: host->lock guards all of it.
 */
#include "zcache/trace.h"
#include "zcache/zcache.h"

struct zc_pass {
	struct zc_pass *next;
	struct tmem_client *client;
};

struct zc_shared {
	struct zc_slot home;
	struct tmem_client own; /* who is charged; in no list */
	struct zc_evict ev;
	struct zc_shared *next; /* host->shared */
	uint8_t uuid[16];
	struct tmem_client *maker; /* NULL: has gone */
	struct zc_slot *lead;	   /* the members, by shared_next */
	uint32_t members;
	bool open; /* to every client of the host */
	struct zc_pass *passes;
};

/* host->lock is held. */
static struct zc_shared *find(struct tmem_host *h, const uint8_t uuid[16])
{
	for (struct zc_shared *sh = h->shared; sh; sh = sh->next)
		if (sh->members && memcmp(sh->uuid, uuid, sizeof(sh->uuid)) == 0)
			return sh;
	return NULL;
}

/* host->lock is held. One that nobody joined was never listed. */
static void unlist(struct tmem_host *h, struct zc_shared *sh)
{
	struct zc_shared **at = &h->shared;

	while (*at && *at != sh)
		at = &(*at)->next;
	if (*at)
		*at = sh->next;
}

static bool may_join(const struct zc_shared *sh, const struct tmem_client *c)
{
	if (sh->open || sh->maker == c)
		return true;
	for (const struct zc_pass *pass = sh->passes; pass; pass = pass->next)
		if (pass->client == c)
			return true;
	return false;
}

/* The slot becomes a member's; host->lock is held. */
static void join(struct zc_shared *sh, struct tmem_client *c, struct zc_slot *s)
{
	s->client = c;
	s->shared = sh;
	s->account = &sh->home;
	s->serial = sh->home.serial;
	s->flags = TMEM_POOL_SHARED;
	s->exclusive = false;
	s->ev = &sh->ev;
	s->name_seed = sh->home.name_seed;
	s->pool = sh->home.pool;
	/* Of the pool that was here before. */
	atomic_store(&s->codec, 0);
	atomic_store(&s->dict, 0);
	s->shared_next = sh->lead;
	sh->lead = s;
	sh->members++;
}

static void home_free(struct tmem_host *h, struct zc_shared *sh)
{
	os_cond_destroy(&sh->home.gone);
	os_mutex_destroy(&sh->home.lock);
	zc_free(h, sh, sizeof(*sh));
}

static int make(struct tmem_client *c, const uint8_t uuid[16], uint32_t shards,
		struct zc_shared **out)
{
	struct tmem_host *h = c->host;
	struct zc_shared *sh = zc_alloc(h, sizeof(*sh));
	int rc;

	*out = NULL;
	if (!sh)
		return -ENOMEM;
	memcpy(sh->uuid, uuid, sizeof(sh->uuid));
	memcpy(&sh->home.name_seed, uuid, sizeof(sh->home.name_seed));
	sh->maker = c;
	sh->own.host = h;
	atomic_init(&sh->own.weight, ZC_WEIGHT_DEFAULT);
	sh->home.host = h;
	sh->home.client = &sh->own;
	sh->home.account = &sh->home;
	zc_counts_init(&sh->home.spare, &sh->own, &sh->home);
	os_mutex_lock(&h->lock);
	sh->home.serial = ++h->serials;
	os_mutex_unlock(&h->lock);
	sh->home.flags = TMEM_POOL_SHARED;
	sh->home.ev = &sh->ev;
	/* Nobody's id, but it says that home may be entered (zc_pool_enter_slot()). */
	atomic_init(&sh->home.id, 0);
	os_mutex_init(&sh->home.lock, OS_RANK_POOL, "zcache shared pool");
	os_cond_init(&sh->home.gone);
	rc = index_pool_create(h->index, shards, &zc_pam, &sh->home, &sh->home, &sh->home.pool);
	if (rc) {
		home_free(h, sh);
		return rc;
	}
	zc_evict_init(&sh->ev, h, &sh->own, ZC_EPHEMERAL, ZC_WORTH_PLAIN);
	*out = sh;
	return 0;
}

/* It has no members any more, or never had any: nobody finds it. It counts until it has gone. */
static void end(struct tmem_host *h, struct zc_shared *sh)
{
	struct zc_pass *pass, *next;

	atomic_store(&sh->home.id, -1);
	zc_pool_wait(&sh->home);
	/* Who was inside may still be on his way out (pool.c, slots). */
	os_mutex_lock(&h->lock);
	os_mutex_unlock(&h->lock);
	index_pool_destroy(sh->home.pool);
	zc_pool_wait(&sh->home);
	zc_evict_exit(&sh->ev);
	os_mutex_lock(&h->lock);
	unlist(h, sh);
	zc_counts_end_pool(&sh->home);
	zc_counts_end_client(&sh->own);
	os_mutex_unlock(&h->lock);
	tmem_assert(I1, zc_client_used(&sh->own) == 0);
	for (pass = sh->passes; pass; pass = next) {
		next = pass->next;
		zc_free(h, pass, sizeof(*pass));
	}
	home_free(h, sh);
}

tmem_pool tmem_pool_create_shared(tmem_client *c, const uint8_t uuid[16], uint32_t flags,
				  uint32_t shards)
{
	struct tmem_host *h = c->host;
	struct zc_shared *sh, *made = NULL;
	struct zc_slot *s;
	tmem_pool id = 0;

	if (flags & (TMEM_POOL_PERSIST | TMEM_POOL_PRECOMPRESSED | TMEM_POOL_PAGE_SIZE_MASK))
		return -EOPNOTSUPP;
	if (flags & ~TMEM_POOL_SHARED || shards & (shards - 1) || shards > 4096)
		return -EINVAL;
	s = zc_slot_take(c);
	if (!s)
		return -ENOMEM;
	for (;;) {
		os_mutex_lock(&h->lock);
		sh = find(h, uuid);
		if (!sh && made) {
			made->next = h->shared;
			h->shared = sh = made;
			made = NULL;
		}
		if (sh) {
			id = may_join(sh, c) ? 0 : -EACCES;
			if (id == 0)
				join(sh, c, s);
		}
		os_mutex_unlock(&h->lock);
		if (sh)
			break;
		/* Memory is got without the lock; somebody may have made it meanwhile. */
		id = make(c, uuid, shards, &made);
		if (id)
			break;
	}
	if (made)
		end(h, made);
	if (id == 0) {
		id = zc_pool_publish(s);
		zc_trace(c, id, TRACE_POOL_NEW, NULL, 0, TMEM_POOL_SHARED, true, 0);
	} else {
		zc_slot_give_back(c, s);
	}
	return id;
}

/* Take one client's pass out of the list; host->lock is held. */
static struct zc_pass *take_pass(struct zc_shared *sh, const struct tmem_client *c)
{
	for (struct zc_pass **link = &sh->passes; *link; link = &(*link)->next) {
		struct zc_pass *pass = *link;

		if (pass->client == c) {
			*link = pass->next;
			return pass;
		}
	}
	return NULL;
}

int tmem_pool_allow(tmem_client *c, tmem_pool pool, tmem_client *other, int allow)
{
	struct zc_slot *s = zc_pool_enter(c, pool);
	struct tmem_host *h = c->host;
	struct zc_pass *pass = NULL;
	int rc = -ENOMEM;

	if (!s)
		return -ENOENT;
	if (other && allow) {
		pass = zc_alloc(h, sizeof(*pass));
		if (!pass)
			goto out;
	}
	os_mutex_lock(&h->lock);
	rc = !s->shared || (other && other->host != h) ? -EINVAL
	     : s->shared->maker != c		       ? -EPERM
						       : 0;
	if (rc == 0 && !other) {
		s->shared->open = allow != 0;
	} else if (rc == 0) {
		struct zc_pass *had = take_pass(s->shared, other);

		if (allow) {
			pass->client = other;
			pass->next = s->shared->passes;
			s->shared->passes = pass;
		}
		pass = had;
	}
	os_mutex_unlock(&h->lock);
	zc_free(h, pass, sizeof(*pass));
out:
	zc_pool_leave(s);
	return rc;
}

void zc_shared_leave(struct tmem_client *c, struct zc_slot *s)
{
	struct tmem_host *h = c->host;
	struct zc_shared *sh = s->shared;
	struct zc_slot **link = &sh->lead;
	bool last;

	os_mutex_lock(&h->lock);
	while (*link != s)
		link = &(*link)->shared_next;
	*link = s->shared_next;
	last = --sh->members == 0;
	tmem_assert(I2, last == (sh->lead == NULL));
	os_mutex_unlock(&h->lock);
	s->shared = NULL;
	s->ev = NULL;
	zc_slot_give_back(c, s);
	if (last)
		end(h, sh);
}

void zc_shared_forget(struct tmem_client *c)
{
	struct tmem_host *h = c->host;
	struct zc_pass *gone = NULL;

	os_mutex_lock(&h->lock);
	for (struct zc_shared *sh = h->shared; sh; sh = sh->next) {
		struct zc_pass *pass = take_pass(sh, c);

		if (sh->maker == c)
			sh->maker = NULL;
		if (pass) {
			pass->next = gone;
			gone = pass;
		}
	}
	os_mutex_unlock(&h->lock);
	while (gone) {
		struct zc_pass *pass = gone;

		gone = pass->next;
		zc_free(h, pass, sizeof(*pass));
	}
}

bool zc_shared_leads(const struct zc_slot *s)
{
	return s->shared->lead == s;
}

void zc_shared_each(struct tmem_host *h, void (*fn)(void *arg, struct zc_slot *home), void *arg)
{
	for (struct zc_shared *sh = h->shared; sh; sh = sh->next)
		fn(arg, &sh->home);
}
