/* SPDX-License-Identifier: BSD-2-Clause */
/* A host and its model: see world.h. */
#include "world.h"

#include "shim.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC UINT64_C(0x746d656d74657374)

const char *w_scenario = "?";

void w_fail(const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	shim_disarm();
	fprintf(stderr, "%s:%d: %s: ", file, line, w_scenario);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	shim_describe();
	exit(1);
}

/* ---- pages ------------------------------------------------------------------ */

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* What is put for (object, page, version). Same-filled ones have no room to name themselves. */
static void make_page(uint64_t *p, unsigned object, unsigned page, uint32_t version)
{
	uint64_t s = ((uint64_t)object << 48 | (uint64_t)page << 32 | version) *
		     UINT64_C(0x9e3779b97f4a7c15);
	enum w_kind kind = version & 3;
	size_t i = 0;

	if (kind == W_SAME || kind == W_ZERO) {
		for (; i < TMEM_PAGE_SIZE / 8; i++)
			p[i] = kind == W_ZERO ? 0 : s;
		return;
	}
	p[i++] = MAGIC;
	p[i++] = object;
	p[i++] = page;
	p[i++] = version;
	for (; i < TMEM_PAGE_SIZE / 8; i++) {
		uint64_t v = next_random(&s);

		/* Text: of every four words one is new, from a small set. */
		p[i] = kind == W_NOISE ? v : i % 4 ? p[i - 4] : v % 251 * 0x0101;
	}
}

static tmem_oid make_oid(unsigned object)
{
	return (tmem_oid){{object * 7 + 1, object, ~(uint64_t)object}};
}

/* Object 2 is sparse: its radix tree is high, and every page has a leaf of its own. */
static uint64_t make_index(unsigned object, unsigned page)
{
	return object == 2 ? page * UINT64_C(0x0123456789abcd) : page;
}

tmem_oid w_handle(unsigned object, unsigned page, uint64_t *index)
{
	*index = make_index(object, page);
	return make_oid(object);
}

static void judge(unsigned object, unsigned page, uint32_t version, const void *got)
{
	uint64_t right[TMEM_PAGE_SIZE / 8], first[4];

	make_page(right, object, page, version);
	if (memcmp(right, got, TMEM_PAGE_SIZE) == 0)
		return;
	memcpy(first, got, sizeof(first));
	W_CHECK(first[0] == MAGIC, "object %u page %u version %u: wrong bytes, 0x%llx 0x%llx...",
		object, page, version, (unsigned long long)first[0], (unsigned long long)first[1]);
	w_fail(__FILE__, __LINE__, "object %u page %u version %u: got object %u page %u version %u",
	       object, page, version, (unsigned)first[1], (unsigned)first[2], (unsigned)first[3]);
}

/* ---- beginning and end --------------------------------------------------------- */

void w_init(struct world *w)
{
	memset(w, 0, sizeof(*w));
	for (unsigned i = 0; i < W_POOLS; i++)
		w->pool[i].id = -1;
}

/* Nothing failed, so nothing may be reported. */
static bool must_work(const struct world *w)
{
	return !w->may_refuse && shim_failed() == 0;
}

bool w_host(struct world *w, const tmem_host_options *opts)
{
	char err[200] = "";
	int rc = tmem_host_create(opts, &w->host, err, sizeof(err));

	if (rc == 0) {
		W_CHECK(w->host, "host created, but NULL");
		w->raw = opts && opts->store_raw;
		return true;
	}
	W_CHECK(!w->host, "creation failed with %d, but there is a host", rc);
	W_CHECK(shim_failed(), "host not created: %d %s", rc, err);
	W_CHECK(rc == -ENOMEM || (opts && opts->overflow_path && rc < 0), "creation: %d", rc);
	W_CHECK(err[0] && !strchr(err, '\n'), "creation: no line of explanation");
	return false;
}

bool w_client(struct world *w)
{
	int rc;

	if (!w->host)
		return false;
	rc = tmem_client_create(w->host, "fault", &w->client);
	W_CHECK(rc == 0 || rc == -ENOMEM, "client: %d", rc);
	W_CHECK(rc == 0 || !must_work(w), "client refused");
	W_CHECK((rc == 0) == (w->client != NULL), "client: %d, but %p", rc, (void *)w->client);
	return rc == 0;
}

bool w_pool(struct world *w, unsigned pool, uint32_t shards)
{
	struct w_pool *p = &w->pool[pool];

	if (!w->client)
		return false;
	memset(p->want, 0, sizeof(p->want));
	p->id = tmem_pool_create(w->client, TMEM_POOL_PERSIST, shards);
	W_CHECK(p->id >= 0 || p->id == -ENOMEM, "pool: %d", p->id);
	W_CHECK(p->id >= 0 || !must_work(w), "pool refused");
	return p->id >= 0;
}

bool w_start(struct world *w, const tmem_host_options *opts)
{
	if (!w_host(w, opts) || !w_client(w) || !w_pool(w, 0, 4))
		return false;
	if (w->arm_at)
		shim_arm(w->arm_at, w->arm_on);
	return true;
}

void w_end(struct world *w)
{
	tmem_client_destroy(w->client);
	tmem_host_destroy(w->host);
	w_init(w);
}

uint64_t w_baseline(const tmem_host_options *opts)
{
	tmem_stats st = {.size = sizeof(st)};
	struct world w;

	w_init(&w);
	W_CHECK(w_start(&w, opts), "no host at all");
	w_put(&w, 0, 0, 0, W_TEXT);
	W_CHECK(tmem_host_stats(w.host, &st) == 0, "stats");
	w_end(&w);
	return st.store_bytes;
}

/* ---- putting ------------------------------------------------------------------- */

static uint32_t next_version(struct world *w, unsigned object, enum w_kind kind)
{
	return ++w->version[object] << 2 | kind;
}

static void judge_put(const struct world *w, int rc, bool noisy)
{
	W_CHECK(rc == 0 || rc == -ENOMEM || rc == -E2BIG || (rc == -EDQUOT && w->quota), "put: %d",
		rc);
	W_CHECK(rc != -E2BIG || (noisy && !w->raw), "put: too poor, but it is not");
	W_CHECK(rc != -ENOMEM || !must_work(w), "put: no memory, but there is");
}

void w_put(struct world *w, unsigned pool, unsigned object, unsigned page, enum w_kind kind)
{
	struct w_pool *p = &w->pool[pool];
	uint32_t version = next_version(w, object, kind);
	uint64_t bytes[TMEM_PAGE_SIZE / 8];
	tmem_oid oid = make_oid(object);
	int rc;

	if (p->id < 0)
		return;
	make_page(bytes, object, page, version);
	rc = tmem_put(w->client, p->id, &oid, make_index(object, page), bytes);
	judge_put(w, rc, kind == W_NOISE);
	p->want[object][page] = rc ? 0 : version;
}

void w_put_cluster(struct world *w, unsigned pool, unsigned object, unsigned page, unsigned n,
		   uint32_t kinds)
{
	uint64_t bytes[TMEM_CLUSTER_MAX][TMEM_PAGE_SIZE / 8] = {{0}};
	struct w_pool *p = &w->pool[pool];
	uint32_t version[TMEM_CLUSTER_MAX];
	tmem_oid oid = make_oid(object);
	bool noisy = false;
	int rc;

	if (p->id < 0)
		return;
	for (unsigned i = 0; i < n; i++) {
		enum w_kind kind = kinds >> 2 * i & 3;

		noisy |= kind == W_NOISE;
		version[i] = next_version(w, object, kind);
		make_page(bytes[i], object, page + i, version[i]);
	}
	rc = tmem_put_cluster(w->client, p->id, &oid, make_index(object, page), n, bytes);
	judge_put(w, rc, noisy);
	for (unsigned i = 0; i < n; i++)
		p->want[object][page + i] = rc ? 0 : version[i];
}

/* ---- getting ------------------------------------------------------------------- */

static void get_one(struct world *w, unsigned pool, unsigned object, unsigned page, bool invalidate)
{
	struct w_pool *p = &w->pool[pool];
	uint64_t bytes[TMEM_PAGE_SIZE / 8];
	uint64_t index = make_index(object, page);
	uint32_t want;
	tmem_oid oid = make_oid(object);
	int rc;

	if (p->id < 0)
		return;
	want = p->want[object][page];
	if (invalidate)
		rc = tmem_get_and_invalidate(w->client, p->id, &oid, index, bytes);
	else
		rc = tmem_get(w->client, p->id, &oid, index, bytes);
	W_CHECK(rc == (want ? 0 : 1), "get of pool %u object %u page %u version %u: %d", pool,
		object, page, want, rc);
	if (want)
		judge(object, page, want, bytes);
	if (invalidate)
		p->want[object][page] = 0;
}

int w_try(struct world *w, unsigned pool, unsigned object, unsigned page, bool invalidate)
{
	struct w_pool *p = &w->pool[pool];
	uint32_t want = p->want[object][page];
	char bytes[TMEM_PAGE_SIZE];
	uint64_t index = make_index(object, page);
	tmem_oid oid = make_oid(object);
	int rc;

	memset(bytes, 0x5c, sizeof(bytes));
	if (invalidate)
		rc = tmem_get_and_invalidate(w->client, p->id, &oid, index, bytes);
	else
		rc = tmem_get(w->client, p->id, &oid, index, bytes);
	if (rc == 0) {
		W_CHECK(want, "object %u page %u: a page where there is none", object, page);
		judge(object, page, want, bytes);
		return 0;
	}
	W_CHECK(rc == -EIO || (rc == 1 && !want), "get of object %u page %u: %d", object, page, rc);
	for (unsigned i = 0; i < sizeof(bytes); i++)
		W_CHECK(bytes[i] == 0x5c, "get failed with %d and wrote to the page", rc);
	return rc;
}

void w_get(struct world *w, unsigned pool, unsigned object, unsigned page)
{
	get_one(w, pool, object, page, false);
}

void w_get_invalidate(struct world *w, unsigned pool, unsigned object, unsigned page)
{
	get_one(w, pool, object, page, true);
}

void w_get_cluster(struct world *w, unsigned pool, unsigned object, unsigned page, bool invalidate)
{
	uint64_t bytes[TMEM_CLUSTER_MAX][TMEM_PAGE_SIZE / 8];
	uint64_t first = 0, index = make_index(object, page);
	struct w_pool *p = &w->pool[pool];
	tmem_oid oid = make_oid(object);
	uint32_t mask = 0;
	int rc;

	if (p->id < 0)
		return;
	rc = tmem_get_cluster(w->client, p->id, &oid, index, invalidate, bytes, &first, &mask);
	W_CHECK(rc == (p->want[object][page] ? 0 : 1), "cluster get of object %u page %u: %d",
		object, page, rc);
	if (rc)
		return;
	W_CHECK(index >= first && index - first < TMEM_CLUSTER_MAX && mask >> (index - first) & 1,
		"cluster get of %u: from %llu mask 0x%x", page, (unsigned long long)first, mask);
	for (unsigned i = 0; i < TMEM_CLUSTER_MAX; i++) {
		/* The page's number, counted from the one that was asked for: right for object 2
		 * too. */
		unsigned at = page + (unsigned)(first - index) + i;

		if (!(mask >> i & 1))
			continue;
		W_CHECK(at < W_PAGES && p->want[object][at], "cluster get gave page %u", at);
		judge(object, at, p->want[object][at], bytes[i]);
		if (invalidate)
			p->want[object][at] = 0;
	}
}

void w_get_all(struct world *w, unsigned pool)
{
	for (unsigned object = 0; object < W_OBJECTS; object++)
		for (unsigned page = 0; page < W_PAGES; page++)
			w_get(w, pool, object, page);
}

/* ---- dropping ------------------------------------------------------------------- */

void w_invalidate(struct world *w, unsigned pool, unsigned object, unsigned page)
{
	struct w_pool *p = &w->pool[pool];
	tmem_oid oid = make_oid(object);
	int rc;

	if (p->id < 0)
		return;
	rc = tmem_invalidate_page(w->client, p->id, &oid, make_index(object, page));
	W_CHECK(rc == (p->want[object][page] ? 1 : 0), "invalidate of object %u page %u: %d",
		object, page, rc);
	p->want[object][page] = 0;
}

/* Forget pages of the model; how many there were. */
static int64_t forget(uint32_t *want, unsigned n)
{
	int64_t had = 0;

	for (unsigned i = 0; i < n; i++) {
		had += want[i] != 0;
		want[i] = 0;
	}
	return had;
}

/* Not for object 2, whose pages are far apart. */
void w_invalidate_range(struct world *w, unsigned pool, unsigned object, unsigned page, unsigned n)
{
	struct w_pool *p = &w->pool[pool];
	tmem_oid oid = make_oid(object);
	int64_t got, had;

	if (p->id < 0)
		return;
	got = tmem_invalidate_range(w->client, p->id, &oid, page, n);
	had = forget(&p->want[object][page], n);
	W_CHECK(got == had, "invalidate of a range: %lld of %lld", (long long)got, (long long)had);
}

void w_invalidate_object(struct world *w, unsigned pool, unsigned object)
{
	struct w_pool *p = &w->pool[pool];
	tmem_oid oid = make_oid(object);
	int64_t got, had;

	if (p->id < 0)
		return;
	got = tmem_invalidate_object(w->client, p->id, &oid);
	had = forget(p->want[object], W_PAGES);
	W_CHECK(got == had, "invalidate of object %u: %lld of %lld", object, (long long)got,
		(long long)had);
}

void w_flush(struct world *w, unsigned pool)
{
	struct w_pool *p = &w->pool[pool];
	int64_t got, had;

	if (p->id < 0)
		return;
	got = tmem_pool_flush(w->client, p->id);
	had = forget(&p->want[0][0], W_OBJECTS * W_PAGES);
	W_CHECK(got == had, "flush: %lld of %lld", (long long)got, (long long)had);
}

/* ---- pools and codecs --------------------------------------------------------- */

void w_clone(struct world *w, unsigned from, unsigned to)
{
	struct w_pool *p = &w->pool[to];

	if (w->pool[from].id < 0)
		return;
	W_CHECK(p->id < 0, "the scenario clones into a pool that exists");
	p->id = tmem_pool_clone(w->client, w->pool[from].id);
	W_CHECK(p->id >= 0 || p->id == -ENOMEM || (p->id == -EDQUOT && w->quota), "clone: %d",
		p->id);
	W_CHECK(p->id >= 0 || !must_work(w), "clone refused");
	if (p->id >= 0)
		memcpy(p->want, w->pool[from].want, sizeof(p->want));
}

void w_pool_destroy(struct world *w, unsigned pool)
{
	struct w_pool *p = &w->pool[pool];
	tmem_pool id = p->id;
	tmem_oid oid = make_oid(0);
	char bytes[TMEM_PAGE_SIZE];

	if (id < 0)
		return;
	W_CHECK(tmem_pool_destroy(w->client, id) == 0, "destroy of a pool failed");
	W_CHECK(tmem_pool_destroy(w->client, id) == -ENOENT, "destroyed twice");
	W_CHECK(tmem_get(w->client, id, &oid, 0, bytes) == -ENOENT, "get from a pool that is gone");
	p->id = -1;
}

void w_codec(struct world *w, const char *codec)
{
	int rc;

	if (!w->host)
		return;
	rc = tmem_host_set_codec(w->host, codec);
	W_CHECK(rc == 0 || (rc == -ENOMEM && !must_work(w)), "codec %s: %d", codec, rc);
}

uint64_t w_pages(const struct world *w)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < W_POOLS; i++)
		for (unsigned k = 0; w->pool[i].id >= 0 && k < W_OBJECTS * W_PAGES; k++)
			n += w->pool[i].want[k / W_PAGES][k % W_PAGES] != 0;
	return n;
}

/* ---- judging everything ---------------------------------------------------------- */

void w_verify(struct world *w)
{
	tmem_stats st = {.size = sizeof(st)};
	uint64_t all = 0;

	if (!w->host)
		return;
	W_CHECK(tmem_host_verify(w->host, 1) == 0, "the host finds damage");
	for (unsigned i = 0; i < W_POOLS; i++) {
		struct w_pool *p = &w->pool[i];
		int64_t n = 0, got;

		if (p->id < 0)
			continue;
		for (unsigned k = 0; k < W_OBJECTS * W_PAGES; k++)
			n += p->want[k / W_PAGES][k % W_PAGES] != 0;
		got = tmem_pool_pages(w->client, p->id);
		W_CHECK(got == n, "pool %u counts %lld pages, not %lld", i, (long long)got,
			(long long)n);
		all += (uint64_t)n;
		w_get_all(w, i);
	}
	W_CHECK(tmem_host_stats(w->host, &st) == 0, "stats");
	W_CHECK(st.pages == all, "the host counts %llu pages, not %llu",
		(unsigned long long)st.pages, (unsigned long long)all);
	W_CHECK(st.gets == st.gets_found + st.gets_missed + st.checksum_failures,
		"gets do not add up");
	W_CHECK(st.checksum_failures == 0 || w->damaged, "checksum failures");
	W_CHECK(tmem_host_verify(w->host, 1) == 0, "the host finds damage after gets");
}
