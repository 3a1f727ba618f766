/* SPDX-License-Identifier: BSD-2-Clause */
/* The stores that need no server: the engine, zram, and what a shared object brings. */
#include "cli/bench_engine.h"
#include "cli/bench_peers.h"
#include "os/file.h"
#include "os/mem.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- the engine ------------------------------------------------------------------------ */

struct own {
	const struct peer_setup *setup;
	tmem_host *host;
	tmem_client *client;
	tmem_pool pool;
};

static void own_close(void *peer)
{
	struct own *o = peer;

	tmem_client_destroy(o->client);
	tmem_host_destroy(o->host);
	os_free(o);
}

static void *own_open(const struct peer_setup *s, const char *codec, char *why, size_t size)
{
	tmem_host_options options = TMEM_HOST_OPTIONS;
	struct own *o = os_zalloc(sizeof(*o));
	int code = -ENOMEM;

	options.codec = codec;
	options.store_raw = 1;
	if (o) {
		o->setup = s;
		code = tmem_host_create(&options, &o->host, why, size);
	}
	if (!code)
		code = tmem_client_create(o->host, "bench", &o->client);
	if (!code) {
		o->pool = tmem_pool_create(o->client, TMEM_POOL_PERSIST, 0);
		code = o->pool < 0 ? o->pool : 0;
	}
	if (code && o) {
		own_close(o);
		o = NULL;
	}
	return o;
}

static void *lz4_open(const struct peer_setup *s, char *why, size_t size)
{
	return own_open(s, "lz4", why, size);
}

static void *zstd_open(const struct peer_setup *s, char *why, size_t size)
{
	return own_open(s, CLI_RUN_CODEC, why, size);
}

static int pages_put(void *peer, unsigned member, uint64_t first, unsigned n)
{
	struct own *o = peer;
	int code = 0;

	for (uint64_t i = first; i < first + n && !code; i++) {
		uint64_t index;
		tmem_oid oid;

		engine_handle(i, &oid, &index);
		code = tmem_put(o->client, o->pool, &oid, index, o->setup->pages + i * PEER_PAGE);
	}
	return code;
}

static int pages_get(void *peer, unsigned member, uint64_t first, unsigned n, uint8_t *to)
{
	struct own *o = peer;
	int code = 0;

	for (uint64_t i = first; i < first + n && !code; i++, to += PEER_PAGE) {
		uint64_t index;
		tmem_oid oid;

		engine_handle(i, &oid, &index);
		code = tmem_get(o->client, o->pool, &oid, index, to);
	}
	return code > 0 ? -ENODATA : code;
}

static int clusters_put(void *peer, unsigned member, uint64_t first, unsigned n)
{
	struct own *o = peer;
	int code = 0;

	for (uint64_t i = first; i < first + n && !code; i += PEER_CLUSTER) {
		uint64_t left = first + n - i, index;
		tmem_oid oid;

		engine_handle(i, &oid, &index);
		code = tmem_put_cluster(o->client, o->pool, &oid, index,
					left < PEER_CLUSTER ? (unsigned)left : PEER_CLUSTER,
					o->setup->pages + i * PEER_PAGE);
	}
	return code;
}

/* A cluster comes whole; pages that were stored alone, one by one. */
static int clusters_get(void *peer, unsigned member, uint64_t first, unsigned n, uint8_t *to)
{
	struct own *o = peer;
	unsigned got = 0;

	while (got < n) {
		uint64_t index, at;
		uint32_t mask;
		tmem_oid oid;
		int code;

		engine_handle(first + got, &oid, &index);
		code = tmem_get_cluster(o->client, o->pool, &oid, index, 0,
					to + (size_t)got * PEER_PAGE, &at, &mask);
		if (code)
			return code > 0 ? -ENODATA : code;
		if (at != index || !(mask & 1))
			return -EPROTO;
		got += (unsigned)__builtin_ctz(~mask);
	}
	return 0;
}

const struct peer_ops peer_engine_lz4 = {
	.name = "engine lz4",
	.asked = "tmem_put and tmem_get of each page, checksums checked",
	.open = lz4_open,
	.put = pages_put,
	.get = pages_get,
	.close = own_close,
};

const struct peer_ops peer_engine_zstd = {
	.name = "engine " CLI_RUN_CODEC " x8",
	.asked = "tmem_put_cluster and tmem_get_cluster of 8 pages (32 KiB), as tmem run does",
	.open = zstd_open,
	.put = clusters_put,
	.get = clusters_get,
	.close = own_close,
};

/* ---- zram -------------------------------------------------------------------------------- */

struct zram_peer {
	const struct peer_setup *setup;
	int fd;
};

static void zram_peer_close(void *peer)
{
	struct zram_peer *z = peer;

	if (z->fd >= 0)
		os_file_close(z->fd);
	if (*z->setup->zram >= 0 && !zram_remove(*z->setup->zram))
		*z->setup->zram = -1;
	os_free(z);
}

static void *zram_peer_open(const struct peer_setup *s, char *why, size_t size)
{
	struct zram_peer *z = os_zalloc(sizeof(*z));
	int code;

	if (!z) {
		snprintf(why, size, "out of memory");
		return NULL;
	}
	z->setup = s;
	z->fd = -1;
	code = zram_add("lz4", s->count * PEER_PAGE, s->zram, why, size);
	if (!code) {
		z->fd = zram_open(*s->zram, O_RDWR | O_DIRECT);
		code = z->fd < 0 ? z->fd : 0;
		if (code)
			snprintf(why, size, "cannot open it: %s", strerror(-code));
	}
	if (code) {
		zram_peer_close(z);
		z = NULL;
	}
	return z;
}

static int zram_put(void *peer, unsigned member, uint64_t first, unsigned n)
{
	struct zram_peer *z = peer;

	return os_file_pwrite(z->fd, z->setup->pages + first * PEER_PAGE, (size_t)n * PEER_PAGE,
			      first * PEER_PAGE);
}

static int zram_get(void *peer, unsigned member, uint64_t first, unsigned n, uint8_t *to)
{
	struct zram_peer *z = peer;
	ssize_t got = os_file_pread(z->fd, to, (size_t)n * PEER_PAGE, first * PEER_PAGE);

	return got < 0 ? (int)got : got == (ssize_t)n * PEER_PAGE ? 0 : -ENODATA;
}

static uint64_t zram_memory(void *peer)
{
	struct zram_peer *z = peer;
	struct zram_use use;

	zram_usage(*z->setup->zram, &use);
	return use.used_bytes;
}

const struct peer_ops peer_zram = {
	.name = "zram lz4",
	.asked = "O_DIRECT reads and writes of 256 KiB on a device of its own",
	.open = zram_peer_open,
	.put = zram_put,
	.get = zram_get,
	.memory = zram_memory,
	.close = zram_peer_close,
};

/* ---- RocksDB: C++, so in a shared object, made where librocksdb is there ------------------ */

#define ROCKSDB_FILE "tmem-peer-rocksdb.so"

static void *rocksdb_missing(const struct peer_setup *s, char *why, size_t size)
{
	snprintf(why, size,
		 "tmem was built without it: install librocksdb-dev and g++, build again");
	return NULL;
}

static const struct peer_ops missing = {
	.name = "rocksdb lz4",
	.package = "librocksdb-dev",
	.asked = "CompressedSecondaryCache",
	.open = rocksdb_missing,
};

/* Beside the program, as a build has it, or where it is installed. */
const struct peer_ops *peer_rocksdb(void)
{
	char self[PATH_MAX], path[PATH_MAX + 64];
	const struct peer_export *e = NULL;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	static void *object; /* stays for as long as its table is used */

	if (n > 0) {
		self[n] = '\0';
		snprintf(path, sizeof(path), "%s/" ROCKSDB_FILE, dirname(self));
		object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	}
	if (!object)
		object = dlopen(TMEM_PEER_DIR "/" ROCKSDB_FILE, RTLD_NOW | RTLD_LOCAL);
	if (object)
		e = dlsym(object, PEER_SYMBOL);
	return e && e->abi == PEER_ABI ? e->ops : &missing;
}
