/* SPDX-License-Identifier: BSD-2-Clause */
/* Failing calls: hosts, clients, pools; codecs, dictionaries, recompression. */
#include "alloc_scenarios.h"

#include "os/clock.h"

/* ---- hosts, clients, pools --------------------------------------------------------- */

static void host_lz4(struct world *w)
{
	(void)w_host(w, NULL);
}

static void host_zstd(struct world *w)
{
	tmem_host_options o = options("zstd:3");

	(void)w_host(w, &o);
}

static void host_overflow(struct world *w)
{
	tmem_host_options o = options("lz4");

	o.overflow_path = overflow_path;
	(void)w_host(w, &o);
}

static void host_sealed(struct world *w)
{
	tmem_host_options o = options("lz4");

	o.overflow_path = overflow_path;
	o.policy = "s3fifo";
	o.maintain = 1;
#ifdef TMEM_HAVE_CRYPTO
	o.overflow_encrypt = 1;
#endif
	(void)w_start(w, &o);
}

static void host_zbud(struct world *w)
{
	tmem_host_options o = options("deflate");

	o.zpool = "zbud";
	(void)w_start(w, &o);
}

static void clients(struct world *w)
{
	tmem_client *second = NULL;
	tmem_pool pool;

	if (!w_start(w, NULL) || tmem_client_create(w->host, "second", &second))
		return;
	fill(w, 0, 0, 0, 4);
	pool = tmem_pool_create(second, TMEM_POOL_PERSIST, 1);
	W_CHECK(pool >= 0 || pool == -ENOMEM, "pool of a second client: %d", pool);
	tmem_client_destroy(second);
	fill(w, 0, 0, 4, 6);
}

static void pools(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	(void)w_pool(w, 1, 1);
	(void)w_pool(w, 2, 256);
	fill(w, 1, 0, 0, 3);
	w_pool_destroy(w, 1);
	(void)w_pool(w, 1, 0);
	fill(w, 1, 0, 0, 3);
}

static void pool_destroy_full(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 20);
	w_put_cluster(w, 0, 1, 64, 8, 0);
	w_pool_destroy(w, 0);
	(void)w_pool(w, 0, 4);
	fill(w, 0, 0, 0, 3);
}

static void flush(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 20);
	fill(w, 0, 2, 0, 5);
	w_put_cluster(w, 0, 1, 0, 16, 0x40);
	w_flush(w, 0);
	fill(w, 0, 0, 0, 5);
}

static void two_hosts(struct world *w)
{
	struct world second;

	w_init(&second);
	if (w_start(w, NULL))
		fill(w, 0, 0, 0, 5);
	if (w_start(&second, NULL))
		fill(&second, 0, 0, 0, 5);
	w_get_all(&second, 0);
	w_end(&second);
}

/* ---- codecs ---------------------------------------------------------- */

static void recompress(struct world *w)
{
	tmem_recompress o = TMEM_RECOMPRESS;
	int rc;

	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 30);
	w_put_cluster(w, 0, 1, 64, 8, 0);
	w_clone(w, 0, 1);
	fill(w, 0, 0, 0, 10);
	rc = tmem_host_recompress(w->host, NULL, NULL);
	W_CHECK(rc == 0 || rc == -ENOMEM, "recompress: %d", rc);
	w_get_all(w, 0);
	o.codec = "deflate:1";
	o.cluster = 16;
	rc = tmem_host_recompress(w->host, &o, NULL);
	W_CHECK(rc == 0 || rc == -ENOMEM, "recompress: %d", rc);
	fill(w, 0, 0, 5, 15);
}

/* Upkeep with a rate: the first step marks, the second, a second later by its clock, packs. */
static uint64_t maintain_ns;

static uint64_t maintain_now(void *ctx)
{
	(void)ctx;
	return maintain_ns;
}

static void maintain(struct world *w)
{
	int rc;

	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 30);
	rc = tmem_tunable_set(w->host, NULL, "recompress_codec", "deflate:1", NULL, 0);
	W_CHECK(rc == 0 || rc == -ENOMEM, "recompress_codec: %d", rc);
	rc = tmem_tunable_set(w->host, NULL, "recompress_rate", "1000", NULL, 0);
	W_CHECK(rc == 0, "recompress_rate: %d", rc);
	rc = tmem_tunable_set(w->host, NULL, "recompress_idle_ms", "1000", NULL, 0);
	W_CHECK(rc == 0, "recompress_idle_ms: %d", rc);
	maintain_ns = 1000000000;
	os_clock_replace(maintain_now, NULL);
	for (unsigned i = 0; i < 3; i++) {
		tmem_host_maintain(w->host);
		maintain_ns += 1000000000;
	}
	os_clock_replace(NULL, NULL);
	w_get_all(w, 0);
	fill(w, 0, 0, 5, 15);
}

/* Train, put with it, train again; what needs the first one keeps it. */
static void train(struct world *w)
{
	tmem_host_options o = options("zstd:1");
	int rc;

	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 110);
	for (unsigned i = 0; i < 2; i++) {
		rc = tmem_pool_train(w->client, w->pool[0].id, 4096, NULL);
		W_CHECK(rc == 0 || rc == -ENOMEM || rc == -ENODATA, "train: %d", rc);
		fill(w, 0, 0, 40 * i, 40 * i + 20);
	}
	w_clone(w, 0, 1);
	rc = tmem_host_recompress(w->host, NULL, NULL);
	W_CHECK(rc == 0 || rc == -ENOMEM, "recompress: %d", rc);
	(void)tmem_pool_drop_dictionary(w->client, w->pool[0].id);
	w_get_all(w, 0);
	w_flush(w, 0);
}

static void pool_codec(struct world *w)
{
	static const char *const codec[] = {"zstd:3", "lz4hc", "deflate", NULL};

	if (!w_start(w, NULL))
		return;
	for (unsigned i = 0; i < 4; i++) {
		int rc = tmem_pool_set_codec(w->client, w->pool[0].id, codec[i]);

		W_CHECK(rc == 0 || rc == -ENOMEM, "pool_set_codec: %d", rc);
		fill(w, 0, 0, i * 5, i * 5 + 5);
	}
}

static void bytes(struct world *w)
{
	char in[300] = "bytes", out[4096];
	tmem_oid oid = {{1, 2, 3}};
	size_t size = 0;
	tmem_pool p;

	if (!w_start(w, NULL))
		return;
	p = tmem_pool_create(w->client, TMEM_POOL_PERSIST | TMEM_POOL_PRECOMPRESSED, 1);
	W_CHECK(p >= 0 || p == -ENOMEM, "pool of bytes: %d", p);
	for (uint64_t i = 0; p >= 0 && i < 5; i++) {
		int rc = tmem_put_bytes(w->client, p, &oid, i, in, sizeof(in));

		W_CHECK(rc == 0 || rc == -ENOMEM, "put_bytes: %d", rc);
		W_CHECK(tmem_get_bytes(w->client, p, &oid, i, out, &size) == (rc ? 1 : 0),
			"get_bytes after a put that returned %d", rc);
		W_CHECK(rc || (size == sizeof(in) && memcmp(in, out, size) == 0), "other bytes");
	}
	if (p >= 0)
		W_CHECK(tmem_pool_destroy(w->client, p) == 0, "destroy of a pool of bytes");
}

const struct scenario alloc_pools[] = {
	{"host_lz4", host_lz4, true},
	{"host_zstd", host_zstd, true},
	{"host_overflow", host_overflow, true},
	{"host_sealed", host_sealed, true},
	{"host_zbud", host_zbud, true},
	{"clients", clients, true},
	{"pools", pools, false},
	{"pool_destroy_full", pool_destroy_full, false},
	{"flush", flush, false},
	{"two_hosts", two_hosts, true},
	{"recompress", recompress, false},
	{"maintain", maintain, false},
	{"train", train, false},
	{"pool_codec", pool_codec, false},
	{"bytes", bytes, false},
	{NULL, NULL, false},
};
