/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every allocation of the engine fails once, and then all from it on.
 *
 * Each scenario runs with n = 1, 2, 3...: the n-th call that may fail does, until
 * a run is reached in which there is no n-th one. After each run: no crash, the
 * host is sound, every acknowledged page reads back byte for byte and nothing
 * that was not acknowledged does, the host can be used again, and when it is
 * destroyed no block, mapping, thread, slot or descriptor is left.
 *
 *   engine_alloc                        all
 *   engine_alloc -l                     list the scenarios
 *   engine_alloc [-v] NAME [once|on [N]]    one of them; one way; one n
 */
#include "shim.h"
#include "world.h"

#include "os/clock.h"
#include "os/log.h"
#include "os/thread.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char overflow_path[] = "/tmp/tmem-fault-XXXXXX";
static uint64_t lz4_baseline;

static tmem_host_options options(const char *codec)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;

	o.codec = codec;
	return o;
}

static void fill(struct world *w, unsigned pool, unsigned object, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		w_put(w, pool, object, i, i % 11 == 5 ? W_SAME : W_TEXT);
}

/* ---- scenarios: hosts, clients, pools ------------------------------------------- */

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

/* The recorder has memory, or it does not record; the store works either way. */
static void traced(struct world *w)
{
	uint64_t records = 0, lost = 0;
	int rc;

	if (!w_start(w, NULL))
		return;
	rc = tmem_host_trace_start(w->host, "/dev/null");
	W_CHECK(rc <= 0, "trace: %d", rc);
	fill(w, 0, 0, 0, 8);
	w_put_cluster(w, 0, 1, 0, 4, 0);
	w_flush(w, 0);
	if (rc == 0) {
		rc = tmem_host_trace_stop(w->host, &records, &lost);
		W_CHECK(rc <= 0 && (rc || lost == 0), "stopping: %d, %llu lost", rc,
			(unsigned long long)lost);
		W_CHECK(records + lost > 0, "nothing was recorded");
	} else {
		W_CHECK(tmem_host_trace_stop(w->host, NULL, NULL) == -EINVAL, "it records");
	}
	/* Left running: the host's end stops it. */
	if (tmem_host_trace_start(w->host, "/dev/null") == 0)
		fill(w, 0, 1, 0, 3);
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

/* ---- scenarios: codecs ---------------------------------------------------------- */

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

/* ---- scenarios: pages -------------------------------------------------------------- */

static void put_get(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	w_get(w, 0, 0, 7);
	w_put(w, 0, 0, 7, W_TEXT);
	w_get(w, 0, 0, 7);
	w_get(w, 0, 0, 8);
}

static void put_many(struct world *w)
{
	tmem_host_options o = options("zstd");

	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, W_PAGES);
	fill(w, 0, 1, 0, 10);
	w_get_all(w, 0);
}

static void put_sparse(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	for (unsigned i = 0; i < 24; i++) {
		w_put(w, 0, 2, i, W_TEXT);
		w_get(w, 0, 2, i);
	}
	for (unsigned i = 0; i < 24; i += 2)
		w_invalidate(w, 0, 2, i);
	w_put(w, 0, 2, 3, W_SAME);
}

static void same_filled(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	for (unsigned i = 0; i < 70; i++)
		w_put(w, 0, 0, i, i % 2 ? W_ZERO : W_SAME);
	w_get_all(w, 0);
}

static void replace(struct world *w)
{
	static const enum w_kind kinds[] = {W_TEXT, W_SAME, W_TEXT, W_NOISE, W_TEXT, W_ZERO};

	if (!w_start(w, NULL))
		return;
	for (unsigned k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		for (unsigned i = 0; i < 8; i++) {
			w_put(w, 0, 0, i, kinds[k]);
			w_get(w, 0, 0, i);
		}
	}
}

static void poor(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 4);
	for (unsigned i = 0; i < 6; i++)
		w_put(w, 0, 0, i, W_NOISE);
	w_put_cluster(w, 0, 0, 0, 4, 0xff);
}

static void raw(struct world *w)
{
	tmem_host_options o = options("lz4");

	o.store_raw = 1;
	if (!w_start(w, &o))
		return;
	for (unsigned i = 0; i < 12; i++)
		w_put(w, 0, 0, i, i % 3 ? W_NOISE : W_TEXT);
	w_put_cluster(w, 0, 1, 0, 6, 0xf0f);
	w_get_all(w, 0);
}

static void codec_none(struct world *w)
{
	tmem_host_options o = options("none");

	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 8);
	w_get_all(w, 0);
}

static void invalidate(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 100);
	fill(w, 0, 1, 0, 10);
	fill(w, 0, 2, 0, 5);
	w_invalidate(w, 0, 0, 50);
	w_invalidate(w, 0, 0, 50);
	w_invalidate_range(w, 0, 0, 60, 30);
	w_invalidate_object(w, 0, 1);
	w_invalidate_object(w, 0, 1);
	fill(w, 0, 1, 3, 6);
}

static void get_invalidate(struct world *w)
{
	tmem_host_options o = options("zstd:-1");

	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 40);
	for (unsigned i = 0; i < 45; i++)
		w_get_invalidate(w, 0, 0, i);
	fill(w, 0, 0, 10, 20);
}

/* ---- scenarios: clusters ------------------------------------------------------------ */

static void cluster(struct world *w)
{
	tmem_host_options o = options("zstd");

	if (!w_start(w, &o))
		return;
	w_put_cluster(w, 0, 0, 0, 16, 0);
	w_put_cluster(w, 0, 0, 16, 2, 0);
	w_put_cluster(w, 0, 0, 20, 5, 0x111); /* same-filled first, third, last */
	w_put_cluster(w, 0, 0, 32, 4, 0xaa);  /* zeros only */
	w_put_cluster(w, 0, 1, 60, 1, 0);
	w_get(w, 0, 0, 3);
	w_get_cluster(w, 0, 0, 3, false);
	w_invalidate(w, 0, 0, 5);
	w_get_cluster(w, 0, 0, 6, false);
	w_get_cluster(w, 0, 0, 7, true);
	w_get_cluster(w, 0, 0, 22, true);
	w_get_cluster(w, 0, 0, 33, true);
	w_get_cluster(w, 0, 1, 60, true);
}

static void cluster_replace(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	w_put_cluster(w, 0, 0, 0, 8, 0);
	w_put(w, 0, 0, 2, W_TEXT);
	w_get_cluster(w, 0, 0, 0, false);
	w_put_cluster(w, 0, 0, 4, 8, 0);
	w_put_cluster(w, 0, 0, 0, 16, 0xc0);
	w_get_all(w, 0);
	w_put_cluster(w, 0, 0, 0, 16, 0);
	w_invalidate_range(w, 0, 0, 0, 15);
	w_get(w, 0, 0, 15);
}

static void cluster_emptied(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	for (unsigned i = 0; i < 64; i += 16)
		w_put_cluster(w, 0, 0, i, 16, 0);
	for (unsigned i = 0; i < 64; i++) {
		if (i % 16 != 7)
			w_get_invalidate(w, 0, 0, i);
	}
	w_get_all(w, 0);
}

/* ---- scenarios: clones --------------------------------------------------------------- */

static void clone_one(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 70);
	fill(w, 0, 2, 0, 3);
	w_clone(w, 0, 1);
	fill(w, 0, 0, 10, 14);
	fill(w, 1, 0, 12, 16);
	w_invalidate(w, 0, 0, 1);
	w_invalidate(w, 1, 0, 2);
	w_get_all(w, 0);
	w_get_all(w, 1);
	w_pool_destroy(w, 0);
	w_get_all(w, 1);
}

static void clone_cluster(struct world *w)
{
	tmem_host_options o = options("zstd");

	if (!w_start(w, &o))
		return;
	w_put_cluster(w, 0, 0, 0, 16, 0);
	w_put_cluster(w, 0, 0, 16, 8, 0x11);
	w_clone(w, 0, 1);
	w_get_cluster(w, 1, 0, 4, true);
	w_get_cluster(w, 0, 0, 4, false);
	w_put(w, 0, 0, 17, W_TEXT);
	w_get_cluster(w, 1, 0, 18, false);
	w_flush(w, 0);
}

static void clone_chain(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 20);
	w_clone(w, 0, 1);
	w_clone(w, 1, 2);
	w_pool_destroy(w, 1);
	fill(w, 2, 0, 5, 8);
	w_clone(w, 2, 1);
	w_get_all(w, 1);
	w_pool_destroy(w, 0);
	w_pool_destroy(w, 2);
}

/* More forks of one page than a lone zpage has room to count. */
static void clone_many(struct world *w)
{
	tmem_pool more[40];
	unsigned n = 0;

	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 3);
	for (; n < 40; n++) {
		more[n] = tmem_pool_clone(w->client, w->pool[0].id);
		if (more[n] < 0) {
			W_CHECK(more[n] == -ENOMEM && shim_failed(), "clone %u: %d", n, more[n]);
			break;
		}
	}
	w_get_all(w, 0);
	for (unsigned i = 0; i < n; i++)
		W_CHECK(tmem_pool_destroy(w->client, more[i]) == 0, "destroy of clone %u", i);
}

/* ---- scenarios: limits, compaction, overflow ------------------------------------------- */

static void codecs(struct world *w)
{
	static const char *const names[] = {"zstd", "lz4:4", "zstd:9", "none", "zstd:-7", "lz4"};

	if (!w_start(w, NULL))
		return;
	for (unsigned i = 0; i < 6; i++) {
		w_codec(w, names[i]);
		fill(w, 0, 0, i * 6, i * 6 + 6);
		w_put_cluster(w, 0, 1, i * 8, 8, 0);
	}
	w_get_all(w, 0);
}

static void compact(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, W_PAGES);
	fill(w, 0, 1, 0, W_PAGES);
	for (unsigned i = 0; i < W_PAGES; i++) {
		if (i % 4)
			w_invalidate(w, 0, i % 2, i);
	}
	(void)tmem_host_compact(w->host, 1 << 20);
	w_get_all(w, 0);
	fill(w, 0, 1, 0, 20);
	(void)tmem_host_compact(w->host, UINT64_MAX);
}

/* The other allocator: frames one by one, merged, and full before their buddies come. */
static void zbud(struct world *w)
{
	tmem_host_options o = options("lz4");

	o.zpool = "zbud";
	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 100);
	w_put_cluster(w, 0, 1, 64, 16, 0x11);
	for (unsigned i = 0; i < 100; i++)
		if (i % 3)
			w_invalidate(w, 0, 0, i);
	(void)tmem_host_compact(w->host, UINT64_MAX);
	w_get_all(w, 0);
	fill(w, 0, 2, 0, 40);
	w_clone(w, 0, 1);
	fill(w, 1, 0, 0, 30);
	w_put_cluster(w, 1, 1, 0, 16, 0);
}

static void compact_clone(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 100);
	w_put_cluster(w, 0, 1, 0, 16, 0);
	w_clone(w, 0, 1);
	for (unsigned i = 0; i < 100; i++) {
		if (i % 3) {
			w_invalidate(w, 0, 0, i);
			w_invalidate(w, 1, 0, i);
		}
	}
	(void)tmem_host_compact(w->host, 1 << 20);
	w_pool_destroy(w, 0);
	(void)tmem_host_compact(w->host, 1 << 20);
	w_get_all(w, 1);
}

static void limit(struct world *w)
{
	tmem_host_options o = options("lz4");

	o.limit_bytes = lz4_baseline + 200 * 1024;
	w->may_refuse = true;
	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, W_PAGES);
	w_get_all(w, 0);
	for (unsigned i = 0; i < W_PAGES; i += 3)
		w_invalidate(w, 0, 0, i);
	fill(w, 0, 0, 0, 30);
	w_put_cluster(w, 0, 1, 0, 16, 0);
}

static void limit_changes(struct world *w)
{
	w->may_refuse = true;
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 60);
	W_CHECK(tmem_host_set_limit(w->host, 1 << 16) == 0, "limit");
	fill(w, 0, 0, 50, 70);
	w_get_all(w, 0);
	W_CHECK(tmem_host_set_limit(w->host, 0) == 0, "limit");
	fill(w, 0, 0, 50, 70);
}

static void overflow(struct world *w)
{
	tmem_host_options o = options("lz4");

	o.limit_bytes = lz4_baseline + 300 * 1024;
	o.overflow_path = overflow_path;
	w->may_refuse = true;
	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, W_PAGES);
	w_put_cluster(w, 0, 1, 0, 16, 0);
	w_get_all(w, 0);
	for (unsigned i = 0; i < W_PAGES; i += 2)
		w_invalidate(w, 0, 0, i);
	fill(w, 0, 0, 100, 120);
	w_get_cluster(w, 0, 1, 3, true);
}

static void overflow_clone(struct world *w)
{
	tmem_host_options o = options("lz4");

	o.limit_bytes = lz4_baseline + 300 * 1024;
	o.overflow_path = overflow_path;
	w->may_refuse = true;
	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, W_PAGES);
	w_clone(w, 0, 1);
	for (unsigned i = 0; i < W_PAGES; i += 2)
		w_invalidate(w, 0, 0, i);
	w_get_all(w, 1);
	w_pool_destroy(w, 0);
	w_get_all(w, 1);
}

/* ---- scenarios: ephemeral pools ---------------------------------------------------- */

/*
 * Pages may go, so the model's pools are no use: what is found must be the last
 * put, what a put refused must be absent.
 */
struct eph {
	struct world *w;
	tmem_pool id;
	uint64_t version[W_PAGES];
};

static void eph_page(uint64_t *page, unsigned i, uint64_t version)
{
	uint64_t s = version << 16 | i;

	for (unsigned k = 0; k < TMEM_PAGE_SIZE / 8; k++) {
		s = s * UINT64_C(6364136223846793005) + 1442695040888963407u;
		page[k] = i % 11 == 5 ? version : k % 4 ? page[k - 1] : s >> 40;
	}
}

static void eph_put(struct eph *e, unsigned i)
{
	tmem_oid oid = {{7, 0, 0}};
	static uint64_t version;
	uint64_t page[TMEM_PAGE_SIZE / 8], back[TMEM_PAGE_SIZE / 8];
	int rc;

	eph_page(page, i, ++version);
	rc = tmem_put_flags(e->w->client, e->id, &oid, i, page, i % 7 ? 0 : TMEM_PUT_INACTIVE);
	e->version[i] = rc ? 0 : version;
	W_CHECK(rc == 0 || rc == -ENOMEM || rc == -ECANCELED, "ephemeral put: %d", rc);
	W_CHECK(rc != -ENOMEM || shim_failed() || e->w->may_refuse,
		"ephemeral put refused, but there is memory");
	if (rc)
		W_CHECK(tmem_get(e->w->client, e->id, &oid, i, back) == 1, "refused, but there");
}

static void eph_get(struct eph *e, unsigned i, bool keep)
{
	tmem_oid oid = {{7, 0, 0}};
	uint64_t page[TMEM_PAGE_SIZE / 8], back[TMEM_PAGE_SIZE / 8];
	int rc = keep ? tmem_get_keep(e->w->client, e->id, &oid, i, back)
		      : tmem_get(e->w->client, e->id, &oid, i, back);

	W_CHECK(rc == 0 || rc == 1, "ephemeral get: %d", rc);
	if (rc == 0) {
		W_CHECK(e->version[i], "a page that was missed, or refused, is there");
		eph_page(page, i, e->version[i]);
		W_CHECK(memcmp(page, back, sizeof(page)) == 0, "ephemeral page %u: wrong", i);
	}
	if (rc || !keep)
		e->version[i] = 0;
}

/* The model of the world knows nothing of it. */
static void eph_end(struct eph *e)
{
	int rc = tmem_host_verify(e->w->host, 1);

	W_CHECK(rc == 0 || (rc == -ENOMEM && shim_failed()), "the host finds damage: %d", rc);
	W_CHECK(e->id < 0 || tmem_pool_destroy(e->w->client, e->id) == 0, "ephemeral destroy");
}

static void eph_run(struct eph *e)
{
	uint64_t got;

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < W_PAGES; i++)
			eph_put(e, i);
		for (unsigned i = 0; i < W_PAGES; i += 3)
			eph_get(e, i, true);
		for (unsigned i = 0; i < W_PAGES; i += 5)
			eph_get(e, i, false);
		W_CHECK(tmem_host_shrink(e->w->host, 5, &got) == 0, "shrink");
	}
	fill(e->w, 0, 0, 0, 40);
	W_CHECK(tmem_host_shrink(e->w->host, UINT64_MAX, &got) == 0, "shrink");
	W_CHECK(tmem_pool_pages(e->w->client, e->id) == 0, "shrunk to nothing, but pages are left");
	w_get_all(e->w, 0);
	eph_put(e, 3);
	eph_get(e, 3, false);
	eph_end(e);
}

static void ephemeral(struct world *w)
{
	static struct eph e;

	if (!w_start(w, NULL))
		return;
	e = (struct eph){.w = w, .id = tmem_pool_create(w->client, 0, 2)};
	W_CHECK(e.id >= 0 || e.id == -ENOMEM, "ephemeral pool: %d", e.id);
	if (e.id >= 0)
		eph_run(&e);
}

static void ephemeral_limit(struct world *w)
{
	tmem_host_options o = options("lz4");
	static struct eph e;

	o.limit_bytes = lz4_baseline + 300 * 1024;
	o.policy = "s3fifo";
	w->may_refuse = true;
	if (!w_start(w, &o))
		return;
	e = (struct eph){.w = w, .id = tmem_pool_create(w->client, 0, 2)};
	W_CHECK(e.id >= 0 || e.id == -ENOMEM, "ephemeral pool: %d", e.id);
	if (e.id < 0)
		return;
	for (unsigned round = 0; round < 6; round++)
		for (unsigned i = 0; i < W_PAGES; i++)
			eph_put(&e, i);
	for (unsigned i = 0; i < W_PAGES; i++)
		eph_get(&e, i, true);
	/* Persistent pages take the place of ephemeral ones. */
	fill(w, 0, 0, 0, W_PAGES);
	w_get_all(w, 0);
	eph_end(&e);
}

static void ephemeral_clone(struct world *w)
{
	static struct eph e, copy;

	if (!w_start(w, NULL))
		return;
	e = (struct eph){.w = w, .id = tmem_pool_create(w->client, 0, 2)};
	if (e.id < 0)
		return;
	for (unsigned i = 0; i < W_PAGES; i++)
		eph_put(&e, i);
	copy = e;
	copy.id = tmem_pool_clone(w->client, e.id);
	W_CHECK(copy.id >= 0 || copy.id == -ENOMEM, "clone: %d", copy.id);
	for (unsigned i = 0; i < W_PAGES; i += 2)
		eph_get(&e, i, false);
	for (unsigned i = 0; copy.id >= 0 && i < W_PAGES; i++)
		eph_get(&copy, i, i % 2);
	W_CHECK(tmem_host_shrink(w->host, 40, NULL) == 0, "shrink");
	for (unsigned i = 0; i < W_PAGES; i++)
		eph_get(&e, i, true);
	eph_end(&e);
	eph_end(&copy);
}

static void shared_pool(struct world *w)
{
	static const uint8_t uuid[16] = "fault";
	tmem_client *second = NULL;
	static struct eph e;
	tmem_pool other = -1;
	int rc;

	if (!w_start(w, NULL) || tmem_client_create(w->host, "second", &second))
		return;
	e = (struct eph){.w = w, .id = tmem_pool_create_shared(w->client, uuid, 0, 2)};
	W_CHECK(e.id >= 0 || e.id == -ENOMEM, "shared pool: %d", e.id);
	if (e.id < 0)
		goto out;
	rc = tmem_pool_allow(w->client, e.id, second, 1);
	W_CHECK(rc == 0 || rc == -ENOMEM, "allow: %d", rc);
	other = tmem_pool_create_shared(second, uuid, 0, 0);
	W_CHECK(other >= 0 || other == (rc ? -EACCES : -ENOMEM) || shim_failed(), "join: %d",
		other);
	for (unsigned i = 0; i < 60; i++)
		eph_put(&e, i);
	for (unsigned i = 0; i < 60; i++)
		eph_get(&e, i, true);
	eph_end(&e); /* the maker leaves, the other stays */
out:
	tmem_client_destroy(second);
}

static void frozen(struct world *w)
{
	char bytes[TMEM_PAGE_SIZE] = "frozen";
	tmem_oid oid = {{1, 0, ~UINT64_C(0)}}; /* the model's object 0 */
	int rc;

	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 8);
	tmem_host_freeze(w->host, 1);
	rc = tmem_put(w->client, w->pool[0].id, &oid, 3, bytes);
	W_CHECK(rc == -EAGAIN, "put while frozen: %d", rc);
	w->pool[0].want[0][3] = 0;
	w_get_all(w, 0);
	tmem_host_freeze(w->host, 0);
	fill(w, 0, 0, 2, 5);
}

/* ---- scenarios: threads ---------------------------------------------------------------- */

struct job {
	struct world *w;
	unsigned object;
	void (*work)(struct world *w, unsigned object);
};

static void *run_job(void *arg)
{
	struct job *j = arg;

	j->work(j->w, j->object);
	return NULL;
}

/* On threads of their own where they can be had. */
static void run_jobs(struct world *w, unsigned n, void (*work)(struct world *w, unsigned object))
{
	struct job job[W_OBJECTS];
	bool started[W_OBJECTS];
	os_thread t[W_OBJECTS];

	for (unsigned i = 0; i < n; i++) {
		job[i] = (struct job){w, i, work};
		started[i] = os_thread_create(&t[i], "fault", run_job, &job[i]) == 0;
		W_CHECK(started[i] || shim_failed(), "no thread");
	}
	for (unsigned i = 0; i < n; i++) {
		if (started[i])
			os_thread_join(t[i]);
	}
}

static void read_all(struct world *w, unsigned object)
{
	(void)object;
	w_get_all(w, 0);
	w_get_cluster(w, 0, 1, 3, false);
}

static void write_some(struct world *w, unsigned object)
{
	fill(w, 0, object, 0, 40);
	for (unsigned i = 0; i < 40; i += 3)
		w_get_invalidate(w, 0, object, i);
	if (object < 2)
		w_put_cluster(w, 0, object, 64, 16, 0);
	for (unsigned i = 0; i < 40; i++)
		w_get(w, 0, object, i);
}

/* A thread that has never called before gets what is stored, also with no memory at all (T8). */
static void thread_reads(struct world *w)
{
	tmem_host_options o = options("zstd");

	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 10);
	w_put_cluster(w, 0, 1, 0, 8, 0);
	run_jobs(w, 2, read_all);
}

static void threads_write(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	run_jobs(w, 2, write_some);
}

static void thread_idle(struct world *w, unsigned object)
{
	w_get(w, 0, object, 0);
}

static void threads_come_and_go(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	w_put(w, 0, 0, 0, W_TEXT);
	for (unsigned i = 0; i < 3; i++)
		run_jobs(w, 3, thread_idle);
}

/* ---- all sorts ---------------------------------------------------------------------------- */

static void mixed(struct world *w)
{
	uint64_t s = 0x1234567;

	if (!w_start(w, NULL))
		return;
	for (unsigned i = 0; i < 400; i++) {
		unsigned object, page, r;

		s = s * UINT64_C(6364136223846793005) + 1442695040888963407u;
		r = (unsigned)(s >> 33);
		object = r / 16 % 2;
		page = r / 64 % 176;
		switch (r % 16) {
		case 0:
			w_put_cluster(w, 0, object, page / 16 * 16, 1 + r / 4096 % 16, r & 0x10101);
			break;
		case 1:
			w_get_cluster(w, 0, object, page, true);
			break;
		case 2:
			w_invalidate_range(w, 0, object, page, 1 + r / 4096 % 16);
			break;
		case 3:
			w_get_invalidate(w, 0, object, page);
			break;
		case 4:
			if (r / 4096 % 8 == 0)
				(void)tmem_host_compact(w->host, 1 << 16);
			break;
		case 5:
			w_put(w, 0, 2, page, W_TEXT);
			break;
		case 6:
		case 7:
			w_get(w, 0, object, page);
			break;
		case 8:
			w_put(w, 0, object, page, r / 4096 % W_KINDS);
			break;
		default:
			w_put(w, 0, object, page, W_TEXT);
		}
	}
}

static const struct scenario {
	const char *name;
	void (*run)(struct world *w);
} scenarios[] = {
	{"host_lz4", host_lz4},
	{"recompress", recompress},
	{"maintain", maintain},
	{"train", train},
	{"pool_codec", pool_codec},
	{"bytes", bytes},
	{"host_zstd", host_zstd},
	{"host_overflow", host_overflow},
	{"clients", clients},
	{"traced", traced},
	{"pools", pools},
	{"pool_destroy_full", pool_destroy_full},
	{"flush", flush},
	{"two_hosts", two_hosts},
	{"put_get", put_get},
	{"put_many", put_many},
	{"put_sparse", put_sparse},
	{"same_filled", same_filled},
	{"replace", replace},
	{"poor", poor},
	{"raw", raw},
	{"codec_none", codec_none},
	{"invalidate", invalidate},
	{"get_invalidate", get_invalidate},
	{"cluster", cluster},
	{"cluster_replace", cluster_replace},
	{"cluster_emptied", cluster_emptied},
	{"clone", clone_one},
	{"clone_cluster", clone_cluster},
	{"clone_chain", clone_chain},
	{"clone_many", clone_many},
	{"codecs", codecs},
	{"compact", compact},
	{"zbud", zbud},
	{"compact_clone", compact_clone},
	{"limit", limit},
	{"limit_changes", limit_changes},
	{"overflow", overflow},
	{"overflow_clone", overflow_clone},
	{"ephemeral", ephemeral},
	{"ephemeral_limit", ephemeral_limit},
	{"ephemeral_clone", ephemeral_clone},
	{"shared_pool", shared_pool},
	{"frozen", frozen},
	{"thread_reads", thread_reads},
	{"threads_write", threads_write},
	{"threads_come_and_go", threads_come_and_go},
	{"mixed", mixed},
};
#define SCENARIOS (sizeof(scenarios) / sizeof(scenarios[0]))

/* ---- the loop ------------------------------------------------------------------------------- */

/* The host must be of use again when memory is there again. */
static void use_again(struct world *w)
{
	bool refuses = w->may_refuse;

	if (!w->host || (!w->client && !w_client(w)))
		return;
	w->may_refuse = refuses;
	for (unsigned i = 0; i < W_POOLS; i++) {
		if (w->pool[i].id < 0)
			continue;
		fill(w, i, 0, 0, 3);
		w_put_cluster(w, i, 1, 16, 4, 0);
		w_get_all(w, i);
	}
}

/* One run; whether a call failed in it. */
static bool run_once(const struct scenario *s, bool from_then_on, uint64_t n)
{
	struct shim_alive before, after;
	static struct world w;
	char name[100];
	bool failed;

	snprintf(name, sizeof(name), "%s %s %" PRIu64, s->name, from_then_on ? "on" : "once", n);
	w_scenario = name;
	w_init(&w);
	shim_alive(&before);
	shim_arm(n, from_then_on);
	s->run(&w);
	shim_disarm();
	failed = shim_failed() > 0;
	w_verify(&w);
	/* shim_failed() still counts the run above: what is refused now is a fault of its own. */
	shim_arm(0, false);
	use_again(&w);
	w_verify(&w);
	/* The end needs no memory. */
	shim_arm(1, true);
	w_end(&w);
	shim_disarm();
	shim_alive(&after);
	W_CHECK(after.blocks == before.blocks, "%" PRId64 " blocks leaked",
		after.blocks - before.blocks);
	W_CHECK(after.mapped_bytes == before.mapped_bytes, "%" PRId64 " mapped bytes leaked",
		after.mapped_bytes - before.mapped_bytes);
	W_CHECK(after.threads == before.threads, "threads left");
	W_CHECK(after.keys == before.keys, "thread slots left");
	W_CHECK(after.files == before.files, "descriptors left");
	return failed;
}

static uint64_t run_scenario(const struct scenario *s, int mode, uint64_t only)
{
	uint64_t runs = 0;

	for (int m = 0; m < 2; m++) {
		if (mode >= 0 && m != mode)
			continue;
		if (only) {
			(void)run_once(s, m, only);
			runs++;
			continue;
		}
		for (uint64_t n = 1; run_once(s, m, n); n++)
			runs++;
	}
	return runs;
}

static void summary(unsigned n, uint64_t runs)
{
	uint64_t reached, failed;

	shim_sites(&reached, &failed);
	printf("%u scenarios, %" PRIu64 " runs with failures; call sites reached %" PRIu64
	       ", failed %" PRIu64 "; failures",
	       n, runs, reached, failed);
	for (unsigned k = 0; k < SHIM_KINDS; k++)
		printf("%s %s %" PRIu64, k ? "," : ":", shim_kind_name(k), shim_failed_of(k));
	printf("\n");
}

static void drop_line(void *ctx, enum os_log_level level, const char *text)
{
	(void)ctx;
	(void)level;
	(void)text;
}

int main(int argc, char **argv)
{
	bool verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
	char **args = argv + verbose + 1;
	int nargs = argc - verbose - 1, mode = -1, fd;
	uint64_t only = 0, runs = 0;
	unsigned done = 0;

	if (nargs > 0 && strcmp(args[0], "-l") == 0) {
		for (unsigned i = 0; i < SCENARIOS; i++)
			puts(scenarios[i].name);
		return 0;
	}
	if (nargs > 1)
		mode = strcmp(args[1], "on") == 0;
	if (nargs > 2)
		only = strtoull(args[2], NULL, 10);
	fd = mkstemp(overflow_path);
	if (fd < 0) {
		perror(overflow_path);
		return 1;
	}
	close(fd);
	/* Refusals are what is wanted here; damage is reported by the return value. */
	if (!verbose)
		os_log_set_sink(drop_line, NULL);
	lz4_baseline = w_baseline(NULL);
	for (unsigned i = 0; i < SCENARIOS; i++) {
		uint64_t n;

		if (nargs > 0 && strcmp(args[0], scenarios[i].name) != 0)
			continue;
		n = run_scenario(&scenarios[i], mode, only);
		if (verbose)
			printf("%-20s %6" PRIu64 " runs\n", scenarios[i].name, n);
		runs += n;
		done++;
	}
	unlink(overflow_path);
	if (!done) {
		fprintf(stderr, "no scenario %s; -l lists them\n", args[0]);
		return 2;
	}
	summary(done, runs);
	return 0;
}
