/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clients that come and go.
 *
 * Each thread has, at most times, a client of its own, in which it has some of its pools.
 * Nobody else puts there, so the thread knows what a limit of it promises, and exactly
 * what a file of it holds:
 *
 *   its own client     saved, and restored beside it, on another host, or in its place:
 *                      what was there is there, what was not is not, and no page more
 *   everybody's        saved while all others work: exact for this thread's pools, between
 *                      two moments for the pages with many readers
 *   a guest            joins a shared pool of the thread when it was allowed to, puts and
 *                      gets there, and goes
 */
#include "engine_model.h"

tmem_client *own_client(struct worker *w)
{
	int rc = 0;

	if (!w->own)
		rc = tmem_client_create(host, "own", &w->own);
	if (rc && rc != -ENOMEM)
		fail(w, "client_create: %d", rc);
	return w->own;
}

static void drop_own(struct worker *w)
{
	tmem_client_destroy(w->own);
	for (unsigned p = 0; p < POOLS; p++)
		if (w->pool[p].client == w->own)
			pool_forget(&w->pool[p]);
	w->own = NULL;
	w->own_limit = 0;
}

void clients_close(struct worker *w)
{
	if (w->own)
		drop_own(w);
}

/* ---- limit and weight --------------------------------------------------------------------- */

static uint64_t own_bytes(struct worker *w)
{
	tmem_client_stats s = {.size = sizeof(s)};

	if (tmem_client_stats_get(w->own, &s) || s.limit_bytes != w->own_limit)
		fail(w, "statistics of a client");
	return s.store_bytes;
}

/* Set below what is used, it is exceeded until less is: so it is set above. */
static void own_limit(struct worker *w)
{
	uint64_t used;

	if (!own_client(w))
		return;
	/* Under a limit what is told is what the limit counts: with what threads hold in advance.
	 */
	w->own_limit = UINT64_MAX / 2;
	if (tmem_client_set_limit(w->own, w->own_limit))
		fail(w, "client_set_limit");
	used = own_bytes(w);
	w->own_limit = rnd(w, 3) ? used + rnd(w, 1u << 20) : 0;
	if (tmem_client_set_limit(w->own, w->own_limit))
		fail(w, "client_set_limit");
	if (tmem_client_set_weight(w->own, 1 + (uint32_t)rnd(w, TMEM_WEIGHT_MAX)) ||
	    tmem_client_set_weight(w->own, 0) != -EINVAL ||
	    tmem_client_set_weight(w->own, TMEM_WEIGHT_MAX + 1) != -EINVAL)
		fail(w, "client_set_weight");
}

void check_own_limit(struct worker *w)
{
	uint64_t used = own_bytes(w);

	if (used > w->own_limit)
		fail(w, "a client uses %llu, its limit is %llu", ULL(used), ULL(w->own_limit));
}

/* ---- save, restore ------------------------------------------------------------------------- */

/* Where the pool is in what was restored, or -1. */
static tmem_pool now_called(const tmem_save *io, tmem_pool was)
{
	for (uint32_t i = 0; i < io->pools && i < io->pool_room; i++)
		if (io->pool[i].was == was)
			return io->pool[i].is;
	return -1;
}

/* The restored one holds what m does, and nothing else. */
static void check_restored(struct worker *w, const struct model_pool *m, const tmem_save *io,
			   tmem_client *c)
{
	w->copy = *m;
	w->copy.client = c;
	w->copy.id = now_called(io, m->id);
	if (w->copy.id < 0)
		fail(w, "pool %d was saved and is not there", m->id);
	check_pool(w, &w->copy);
	if (!m->of_all && tmem_pool_pages(c, w->copy.id) != (int64_t)count_pages(m))
		fail(w, "a restored pool has %lld pages, not %llu",
		     (long long)tmem_pool_pages(c, w->copy.id), ULL(count_pages(m)));
}

static bool is_saved(const struct model_pool *m, const tmem_client *c)
{
	return m->id >= 0 && m->client == c && !m->ephemeral;
}

/* The recorder sees pools being made, also those of a client that is then given up. */
static int restore(struct worker *w, tmem_host *h, tmem_save *io, tmem_client **c)
{
	int rc;

	for (uint32_t i = 0; i < io->pool_room; i++)
		io->pool[i].is = -1;
	rc = tmem_client_restore(h, w->path, io, c);
	if ((rc == 0) != (*c != NULL) || (rc != 0) != (io->error[0] != '\0'))
		fail(w, "restore: %d, %p, \"%s\"", rc, (void *)*c, io->error);
	/* What a dictionary made small, and a file must do without, zbud may not take. */
	if (rc && rc != -ENOMEM && (rc != -E2BIG || !zbud || h != host))
		fail(w, "restore: %d, %s", rc, io->error);
	for (uint32_t i = 0; i < io->pool_room && io->pool[i].is >= 0; i++)
		note(w, TRACE_POOL_NEW, io->pool[i].is, NULL, 0, TMEM_POOL_PERSIST, true);
	w->event[RESTORED] += rc == 0;
	return rc;
}

static tmem_host *other_host(struct worker *w)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	tmem_host *h;

	o.store_raw = seed0 & 1;
	if (tmem_host_create(&o, &h, NULL, 0))
		fail(w, "another host");
	return h;
}

/* On this host or another, and gone again. b: of everybody's client. */
static void restore_beside(struct worker *w, tmem_client *of, tmem_save *io,
			   const struct shared_before *b)
{
	tmem_host *h = rnd(w, 2) ? other_host(w) : host;
	uint64_t saved = io->pages;
	tmem_client *c;

	w->elsewhere = h != host;
	if (restore(w, h, io, &c) == 0) {
		if (io->pages != saved)
			fail(w, "%llu pages were saved, %llu restored", ULL(saved), ULL(io->pages));
		for (unsigned p = 0; p <= POOLS; p++)
			if (is_saved(&w->pool[p], of))
				check_restored(w, &w->pool[p], io, c);
		if (b)
			shared_check_saved(w, b, c, now_called(io, shared));
		tmem_client_destroy(c);
	} else if (h != host) {
		fail(w, "restore: no memory on a host with no limit");
	}
	w->elsewhere = false;
	if (h != host) {
		if (tmem_host_verify(h, 1))
			fail(w, "verify of the other host");
		tmem_host_destroy(h);
	}
}

/* The client ends; another one goes on with its pages. */
static void restore_in_its_place(struct worker *w, tmem_save *io)
{
	tmem_pool was[POOLS];
	tmem_client *old = w->own;
	bool saved[POOLS];

	for (unsigned p = 0; p < POOLS; p++) {
		saved[p] = is_saved(&w->pool[p], old);
		was[p] = w->pool[p].id;
	}
	tmem_client_destroy(old);
	w->own_limit = 0;
	if (restore(w, host, io, &w->own))
		w->own = NULL;
	for (unsigned p = 0; p < POOLS; p++) {
		struct model_pool *m = &w->pool[p];

		if (m->id < 0 || m->client != old)
			continue;
		m->client = w->own;
		m->id = saved[p] && w->own ? now_called(io, was[p]) : -1;
		if (m->id < 0 && saved[p] && w->own)
			fail(w, "pool %d was saved and is not there", was[p]);
		if (m->id < 0)
			pool_forget(m);
		else
			check_pool(w, m);
	}
	w->event[REPLACED]++;
}

static void save_own(struct worker *w)
{
	tmem_pool_pair pair[POOLS];
	tmem_save io = TMEM_SAVE;
	uint64_t pages = 0, pools = 0;
	bool bytes = false;
	int rc;

	if (!w->own)
		return;
	io.pool = pair;
	io.pool_room = POOLS;
	for (unsigned p = 0; p < POOLS; p++) {
		if (!is_saved(&w->pool[p], w->own))
			continue;
		bytes |= w->pool[p].bytes;
		pages += count_pages(&w->pool[p]);
		pools++;
	}
	rc = tmem_client_save(w->own, w->path, &io);
	if (bytes ? rc != -EOPNOTSUPP : rc != 0 && rc != -ENOMEM)
		fail(w, "save: %d, %s", rc, io.error);
	if (rc)
		return;
	if (io.pages != pages || io.pools != pools)
		fail(w, "saved %llu pages in %u pools, not %llu in %llu", ULL(io.pages), io.pools,
		     ULL(pages), ULL(pools));
	w->event[SAVED_OWN]++;
	if (rnd(w, 2))
		restore_beside(w, w->own, &io, NULL);
	else
		restore_in_its_place(w, &io);
}

static void save_all(struct worker *w)
{
	tmem_pool_pair pair[64];
	tmem_save io = TMEM_SAVE;
	struct shared_before b;
	int rc;

	io.pool = pair;
	io.pool_room = 64;
	shared_before(&b);
	rc = tmem_client_save(client, w->path, &io);
	/* Others end pools of this client at any time. */
	if (rc && rc != -EBUSY && rc != -ENOMEM)
		fail(w, "save: %d, %s", rc, io.error);
	if (rc)
		return;
	w->event[SAVED_ALL]++;
	restore_beside(w, client, &io, eph ? NULL : &b);
}

/* A clone of the pool of all, while all write there: like a file of it. */
static void clone_all(struct worker *w)
{
	struct model_pool *m = &w->pool[POOLS];
	struct shared_before b;

	shared_before(&b);
	w->copy = *m;
	w->copy.id = tmem_pool_clone(client, m->id);
	if (w->copy.id < 0) {
		if (eph ? w->copy.id != -EOPNOTSUPP
			: w->copy.id != -ENOMEM && w->copy.id != -EDQUOT)
			fail(w, "clone of the pool of all: %d", w->copy.id);
		return;
	}
	note(w, TRACE_POOL_CLONE, m->id, NULL, (uint64_t)w->copy.id, 0, true);
	check_pool(w, &w->copy);
	shared_check_saved(w, &b, client, w->copy.id);
	if (tmem_pool_destroy(client, w->copy.id))
		fail(w, "pool_destroy");
	note(w, TRACE_POOL_END, w->copy.id, NULL, 0, 0, true);
	w->event[CLONED_ALL]++;
}

/* ---- guests of a shared pool -------------------------------------------------------------- */

/* Through its eyes the pool is what it is through the thread's. */
static void guest_works(struct worker *w, struct model_pool *m, tmem_client *guest, tmem_pool pool)
{
	tmem_client *maker = m->client;
	tmem_pool made = m->id;

	m->client = guest;
	m->id = pool;
	for (unsigned k = 0; k < 30; k++) {
		unsigned o = (unsigned)rnd(w, OBJECTS);
		uint64_t i = rnd(w, PAGES);

		if (rnd(w, 2))
			op_get(w, m, o, i, GET_ANY);
		else
			op_put(w, m, o, i);
	}
	m->client = maker;
	m->id = made;
}

static void guest(struct worker *w, struct model_pool *m)
{
	uint8_t uuid[16] = {1, (uint8_t)w->number, (uint8_t)(m - w->pool)};
	tmem_client *g;
	tmem_pool pool;
	int rc;

	if (m->id < 0 || !m->uuid || tmem_client_create(host, "guest", &g))
		return;
	pool = tmem_pool_create_shared(g, uuid, 0, 0);
	if (pool != -EACCES && pool != -ENOMEM)
		fail(w, "a guest who was not allowed: %d", pool);
	rc = tmem_pool_allow(m->client, m->id, rnd(w, 2) ? g : NULL, 1);
	if (rc && rc != -ENOMEM)
		fail(w, "allow: %d", rc);
	pool = rc ? -1 : tmem_pool_create_shared(g, uuid, 0, 0);
	if (pool < 0 && pool != -ENOMEM && !rc)
		fail(w, "a guest who was allowed: %d", pool);
	if (pool >= 0) {
		note(w, TRACE_POOL_NEW, pool, NULL, 0, TMEM_POOL_SHARED, true);
		rc = tmem_pool_allow(g, pool, g, 1);
		if (rc != -EPERM && rc != -ENOMEM)
			fail(w, "a guest allows: %d", rc);
		guest_works(w, m, g, pool);
		w->event[GUESTS]++;
	}
	if (tmem_pool_allow(m->client, m->id, NULL, 0))
		fail(w, "disallow");
	tmem_client_destroy(g);
}

/* ---- one of them ----------------------------------------------------------------------------- */

void op_client(struct worker *w, uint64_t what)
{
	if (what < 2) {
		save_all(w);
	} else if (what < 14) {
		save_own(w);
	} else if (what < 24) {
		drop_own(w);
		w->event[CLIENTS]++;
	} else if (what < 40) {
		own_limit(w);
	} else if (what < 44) {
		clone_all(w);
	} else {
		guest(w, &w->pool[what % POOLS]);
	}
}
