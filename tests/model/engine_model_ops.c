/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Operations on handles that a thread knows: it is the only one that changes them, so it
 * can say exactly what each must return (of an ephemeral pool: what it may).
 */
#include "engine_model.h"

tmem_oid oid_of(const struct worker *w, const struct model_pool *m, unsigned o)
{
	/* In the shared pool the objects of threads differ in a few bits only. */
	return (tmem_oid){{(uint64_t)w->number << 8 | o, m->of_all, 0}};
}

/* ---- bytes that the caller compressed -------------------------------------------------- */

/* What is for pages is refused there, and changes nothing. */
static void refused_there(struct worker *w, struct model_pool *m, const tmem_oid *oid, uint64_t i)
{
	uint64_t first;
	uint32_t mask;
	int rc[5] = {tmem_put(m->client, m->id, oid, i, w->buf),
		     tmem_get(m->client, m->id, oid, i, w->buf),
		     tmem_get_keep(m->client, m->id, oid, i, w->buf),
		     tmem_get_and_invalidate(m->client, m->id, oid, i, w->buf),
		     tmem_get_cluster(m->client, m->id, oid, i, 0, w->buf, &first, &mask)};

	for (unsigned k = 0; k < 5; k++)
		if (rc[k] != -EINVAL)
			fail(w, "call %u for pages on a precompressed pool: %d", k, rc[k]);
}

static int put_bytes(struct worker *w, struct model_pool *m, const tmem_oid *oid, unsigned o,
		     uint64_t i, uint64_t version)
{
	size_t size = bytes_of(m->tag, o, i, version);

	if (rnd(w, 16) == 0)
		refused_there(w, m, oid, i);
	fill(w->buf, m->tag, o, i, version, false);
	return tmem_put_bytes(m->client, m->id, oid, i, w->buf, size);
}

static void get_bytes(struct worker *w, struct model_pool *m, unsigned o, uint64_t i)
{
	tmem_oid oid = oid_of(w, m, o);
	size_t size = 0;
	int rc = tmem_get_bytes(m->client, m->id, &oid, i, w->buf, &size);

	note(w, m->ephemeral ? TRACE_GET_AND_DROP : TRACE_GET, m->id, &oid, i, 1, rc == 0);
	if (rc == 1 && m->ephemeral)
		m->version[o][i] = 0;
	if (rc != (m->version[o][i] ? 0 : 1))
		fail(w, "get_bytes: %d, version %llu", rc, ULL(m->version[o][i]));
	if (rc)
		return;
	if (size != bytes_of(m->tags[o][i], o, i, m->version[o][i]))
		fail(w, "get_bytes: %zu bytes", size);
	check(w, m, o, i, w->buf, size, "get_bytes");
	if (m->ephemeral)
		m->version[o][i] = 0;
}

/* ---- pages -------------------------------------------------------------------------------- */

void op_put(struct worker *w, struct model_pool *m, unsigned o, uint64_t i)
{
	tmem_oid oid = oid_of(w, m, o);
	uint64_t version = ++w->next_version;
	size_t size = 0;
	int rc;

	if (m->bytes) {
		rc = put_bytes(w, m, &oid, o, i, version);
	} else {
		fill(w->buf, m->tag, o, i, version, false);
		if (rnd(w, 512) == 0 &&
		    (tmem_put_bytes(m->client, m->id, &oid, i, w->buf, 100) != -EINVAL ||
		     tmem_get_bytes(m->client, m->id, &oid, i, w->buf, &size) != -EINVAL))
			fail(w, "bytes are taken, or given, by a pool of pages");
		rc = tmem_put_flags(m->client, m->id, &oid, i, w->buf,
				    rnd(w, 8) ? 0 : TMEM_PUT_INACTIVE);
	}
	note(w, TRACE_PUT, m->id, &oid, i, 1, rc == 0);
	if (rc)
		put_failed(w, m, rc);
	m->version[o][i] = rc ? 0 : version;
	m->tags[o][i] = m->tag;
}

void op_put_cluster(struct worker *w, struct model_pool *m, unsigned o, uint64_t i)
{
	unsigned n = 1 + (unsigned)rnd(w, TMEM_CLUSTER_MAX), room = 64 - (unsigned)(i % 64);
	tmem_oid oid = oid_of(w, m, o);
	uint64_t version = w->next_version + 1;
	int rc;

	n = n > room ? room : n;
	if (m->bytes) {
		if (tmem_put_cluster(m->client, m->id, &oid, i, n, w->buf) != -EINVAL)
			fail(w, "a cluster is taken by a precompressed pool");
		return;
	}
	w->next_version += n;
	for (unsigned k = 0; k < n; k++)
		fill(w->buf + (size_t)k * PAGE, m->tag, o, i + k, version + k, false);
	rc = tmem_put_cluster(m->client, m->id, &oid, i, n, w->buf);
	note(w, TRACE_PUT, m->id, &oid, i, n, rc == 0);
	if (rc)
		put_failed(w, m, rc);
	for (unsigned k = 0; k < n; k++) {
		m->version[o][i + k] = rc ? 0 : version + k;
		m->tags[o][i + k] = m->tag;
	}
}

void op_get(struct worker *w, struct model_pool *m, unsigned o, uint64_t i, enum get_how how)
{
	tmem_oid oid = oid_of(w, m, o);
	bool removes = how == GET_TAKE || (how == GET_ANY && m->ephemeral && !m->uuid);
	int rc;

	if (m->bytes) {
		get_bytes(w, m, o, i);
		return;
	}
	rc = how == GET_TAKE   ? tmem_get_and_invalidate(m->client, m->id, &oid, i, w->buf)
	     : how == GET_KEEP ? tmem_get_keep(m->client, m->id, &oid, i, w->buf)
			       : tmem_get(m->client, m->id, &oid, i, w->buf);
	note(w, removes ? TRACE_GET_AND_DROP : TRACE_GET, m->id, &oid, i, 1, rc == 0);
	if (rc == 1 && m->ephemeral)
		m->version[o][i] = 0;
	if (rc != (m->version[o][i] ? 0 : 1))
		fail(w, "get: %d, version %llu", rc, ULL(m->version[o][i]));
	if (rc == 0)
		check(w, m, o, i, w->buf, PAGE, "get");
	if (removes)
		m->version[o][i] = 0;
}

void op_get_cluster(struct worker *w, struct model_pool *m, unsigned o, uint64_t i, bool take)
{
	tmem_oid oid = oid_of(w, m, o);
	uint64_t first = 0;
	uint32_t mask = 0;
	int rc;

	if (m->bytes) {
		get_bytes(w, m, o, i);
		return;
	}
	rc = tmem_get_cluster(m->client, m->id, &oid, i, take, w->buf, &first, &mask);
	note(w, take ? TRACE_GET_AND_DROP : TRACE_GET, m->id, &oid, i, 1, rc == 0);
	if (rc == 1 && m->ephemeral)
		m->version[o][i] = 0;
	if (rc != (m->version[o][i] ? 0 : 1))
		fail(w, "get_cluster: %d, version %llu", rc, ULL(m->version[o][i]));
	if (rc)
		return;
	if (first > i || i - first >= TMEM_CLUSTER_MAX || !(mask >> (i - first) & 1))
		fail(w, "get_cluster: the page asked for is not among those returned");
	for (unsigned k = 0; k < TMEM_CLUSTER_MAX; k++) {
		if (!(mask >> k & 1))
			continue;
		if (first + k >= PAGES || !m->version[o][first + k])
			fail(w, "get_cluster: a page that was never put, or invalidated");
		check(w, m, o, first + k, w->buf + (size_t)k * PAGE, PAGE, "get_cluster");
		if (take) {
			m->version[o][first + k] = 0;
			if (first + k != i)
				note(w, TRACE_DROP, m->id, &oid, first + k, 1, true);
		}
	}
}

/* ---- invalidations ---------------------------------------------------------------------- */

bool agrees(const struct model_pool *m, int64_t said, uint64_t known)
{
	return m->ephemeral ? said >= 0 && (uint64_t)said <= known : said == (int64_t)known;
}

void op_invalidate(struct worker *w, struct model_pool *m, unsigned o, uint64_t i)
{
	tmem_oid oid = oid_of(w, m, o);
	int rc = tmem_invalidate_page(m->client, m->id, &oid, i);

	note(w, TRACE_DROP, m->id, &oid, i, 1, rc > 0);
	if (!agrees(m, rc, m->version[o][i] != 0))
		fail(w, "invalidate_page: %d", rc);
	m->version[o][i] = 0;
}

void op_range(struct worker *w, struct model_pool *m, unsigned o, uint64_t i)
{
	uint64_t n = rnd(w, PAGES - i) + 1, found = 0;
	tmem_oid oid = oid_of(w, m, o);
	int64_t rc;

	if (rnd(w, 4)) {
		n = n % 20 + 1;
		n = i + n > PAGES ? PAGES - i : n;
		rc = tmem_invalidate_range(m->client, m->id, &oid, i, n);
		note(w, TRACE_DROP, m->id, &oid, i, n, rc > 0);
	} else {
		i = 0;
		n = PAGES;
		rc = tmem_invalidate_object(m->client, m->id, &oid);
		note(w, TRACE_DROP_OBJECT, m->id, &oid, 0, 0, rc > 0);
	}
	for (uint64_t k = i; k < i + n; k++) {
		found += m->version[o][k] != 0;
		m->version[o][k] = 0;
	}
	if (!agrees(m, rc, found))
		fail(w, "invalidated %lld of %llu", (long long)rc, ULL(found));
}

/* ---- all of a pool ------------------------------------------------------------------------ */

uint64_t count_pages(const struct model_pool *m)
{
	uint64_t n = 0;

	for (unsigned o = 0; o < OBJECTS; o++)
		for (unsigned i = 0; i < PAGES; i++)
			n += m->version[o][i] != 0;
	return n;
}

void check_pool(struct worker *w, struct model_pool *m)
{
	for (unsigned o = 0; o < OBJECTS; o++)
		for (unsigned i = 0; i < PAGES; i++)
			op_get(w, m, o, i, rnd(w, 2) ? GET_ANY : GET_KEEP);
}
