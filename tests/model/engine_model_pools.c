/* SPDX-License-Identifier: BSD-2-Clause */
/* The model: operations on whole pools of a thread, and which operation is next. */
#include "engine_model.h"

/* ---- pools come and go ----------------------------------------------------------------- */

void pool_forget(struct model_pool *m)
{
	m->id = -1;
	memset(m->version, 0, sizeof(m->version));
}

/* Of five kinds; bytes only of a client that nobody else saves. */
void pool_open(struct worker *w, struct model_pool *m)
{
	uint64_t kind = rnd(w, 5);
	uint8_t uuid[16] = {1, (uint8_t)w->number, (uint8_t)(m - w->pool)};
	tmem_client *own = rnd(w, 2) || kind == 4 ? own_client(w) : NULL;
	uint32_t flags;

	pool_forget(m);
	m->client = own ? own : client;
	m->bytes = kind == 4 && own;
	m->ephemeral = kind == 2 || kind == 3 || (m->bytes && rnd(w, 2));
	m->uuid = kind == 3;
	flags = (m->ephemeral ? 0 : TMEM_POOL_PERSIST) | (m->bytes ? TMEM_POOL_PRECOMPRESSED : 0);
	if (m->uuid) {
		flags = TMEM_POOL_SHARED;
		m->id = tmem_pool_create_shared(m->client, uuid, 0, 1u << rnd(w, 4));
	} else {
		if (m->ephemeral && rnd(w, 2))
			flags |= TMEM_POOL_COSTLY;
		m->id = tmem_pool_create(m->client, flags, 1u << rnd(w, 4));
	}
	if (m->id < 0 && m->id != -ENOMEM && m->id != -EDQUOT)
		fail(w, "pool_create: %d", m->id);
	if (m->id >= 0)
		note(w, TRACE_POOL_NEW, m->id, NULL, 0, flags, true);
	m->tag = (uint64_t)w->number << 32 | ++w->next_tag;
}

void pool_close(struct worker *w, struct model_pool *m)
{
	int rc = m->id < 0 ? 0 : tmem_pool_destroy(m->client, m->id);

	if (rc)
		fail(w, "pool_destroy: %d", rc);
	if (m->id >= 0)
		note(w, TRACE_POOL_END, m->id, NULL, 0, 0, true);
	m->id = -1;
}

static void op_clone(struct worker *w, struct model_pool *from, struct model_pool *to)
{
	pool_close(w, to);
	to->client = from->client;
	to->id = tmem_pool_clone(from->client, from->id);
	to->ephemeral = from->ephemeral;
	to->bytes = from->bytes;
	to->uuid = false;
	if (to->id < 0 &&
	    (from->uuid ? to->id != -EOPNOTSUPP : to->id != -ENOMEM && to->id != -EDQUOT))
		fail(w, "pool_clone: %d", to->id);
	memcpy(to->version, from->version, sizeof(to->version));
	memcpy(to->tags, from->tags, sizeof(to->tags));
	if (to->id < 0)
		pool_forget(to);
	else
		note(w, TRACE_POOL_CLONE, from->id, NULL, (uint64_t)to->id, 0, true);
	to->tag = (uint64_t)w->number << 32 | ++w->next_tag;
}

/* ---- what they are and hold --------------------------------------------------------------- */

/* The pool's own codec, or a dictionary for it, or neither any more. */
static void pool_codec(struct worker *w, struct model_pool *m)
{
	static const char *const codec[] = {NULL, "zstd:1", "zstd:1", "lz4hc", "deflate", "lz4:4"};
	tmem_train_result r = {.size = sizeof(r)};
	int rc = tmem_pool_set_codec(m->client, m->id, codec[rnd(w, 6)]);

	if (rc && rc != -ENOMEM)
		fail(w, "pool_set_codec: %d", rc);
	if (tmem_pool_set_codec(m->client, m->id, "no such") != -EINVAL ||
	    tmem_pool_set_codec(m->client, m->id, "lz4:99") != -ERANGE)
		fail(w, "pool_set_codec: takes what there is not");
	rc = rnd(w, 3) ? tmem_pool_train(m->client, m->id, 4096, &r)
		       : tmem_pool_drop_dictionary(m->client, m->id);
	if (rc && rc != -ENOMEM && rc != -ENODATA && rc != -ENOSPC && rc != -EOPNOTSUPP)
		fail(w, "dictionary: %d", rc);
	if ((rc == -EOPNOTSUPP) > (m->uuid || m->bytes) || (rc && r.kept))
		fail(w, "training of an ordinary pool: %d, kept %llu", rc, ULL(r.kept));
}

static void pool_flush(struct worker *w, struct model_pool *m)
{
	uint64_t n = count_pages(m);
	int64_t rc = tmem_pool_flush(m->client, m->id);

	note(w, TRACE_FLUSH_POOL, m->id, NULL, 0, 0, rc > 0);
	if (!agrees(m, rc, n))
		fail(w, "flush: %lld of %llu", (long long)rc, ULL(n));
	memset(m->version, 0, sizeof(m->version));
}

/* Only this thread changes the pool, so its numbers are exact while others work. */
static void pool_counts(struct worker *w, const struct model_pool *m)
{
	tmem_pool_stats s = {.size = sizeof(s)};
	uint64_t n = count_pages(m);
	int64_t said = tmem_pool_pages(m->client, m->id);
	tmem_stat list[128];

	if (!agrees(m, said, n))
		fail(w, "pages: %lld of %llu", (long long)said, ULL(n));
	if (tmem_pool_stats_get(m->client, m->id, &s) ||
	    tmem_pool_stat_list(m->client, m->id, list, 128) < 1)
		fail(w, "statistics of a pool");
	if (!m->ephemeral && (s.pages != n || s.evicted_pages))
		fail(w, "statistics of a pool: %llu pages of %llu, %llu evicted", ULL(s.pages),
		     ULL(n), ULL(s.evicted_pages));
}

static void op_pool(struct worker *w, struct model_pool *m)
{
	struct model_pool *other = &w->pool[m == &w->pool[0]];

	switch (rnd(w, 10)) {
	case 0:
		pool_flush(w, m);
		break;
	case 1:
		pool_close(w, m);
		pool_open(w, m);
		break;
	case 2:
		pool_counts(w, m);
		break;
	case 3:
		pool_codec(w, m);
		break;
	default:
		op_clone(w, m, other);
	}
}

/* ---- the next operation --------------------------------------------------------------------- */

static void page_operation(struct worker *w, struct model_pool *m, uint64_t what)
{
	unsigned o = (unsigned)rnd(w, OBJECTS);
	uint64_t i = rnd(w, PAGES);

	if (what < 300)
		op_put(w, m, o, i);
	else if (what < 400)
		op_put_cluster(w, m, o, i);
	else if (what < 600)
		op_get(w, m, o, i, rnd(w, 2) ? GET_ANY : GET_KEEP);
	else if (what < 660)
		op_get(w, m, o, i, GET_TAKE);
	else if (what < 720)
		op_get_cluster(w, m, o, i, false);
	else if (what < 760)
		op_get_cluster(w, m, o, i, true);
	else if (what < 800)
		op_invalidate(w, m, o, i);
	else
		op_range(w, m, o, i);
	if (w->own_limit && m->client == w->own)
		check_own_limit(w);
}

void one_operation(struct worker *w)
{
	struct model_pool *m = &w->pool[rnd(w, POOLS + 1)];
	uint64_t what = rnd(w, 1000), rare = rnd(w, 100000);

	if (rare < CLIENT_OPS)
		op_client(w, rare);
	else if (m->id < 0)
		pool_open(w, m);
	else if (what < 805)
		page_operation(w, m, what);
	else if (what < 808 && !m->of_all)
		op_pool(w, m);
	else
		op_shared(w);
}
