/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nbdkit's memory plugin with its zstd allocator: a disk in memory, compressed
 * in blocks of 32 KiB. A small client of the NBD protocol ("fixed newstyle",
 * then plain requests) over a Unix socket, all requests of a batch in flight at
 * once.
 *
 * Asked twice: with requests of a page, which is what a swap or a file system
 * sends, and of 32 KiB, which is what the allocator likes best, since then it
 * need not keep the rest of a block.
 */
#include "cli/bench_peers.h"
#include "os/mem.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NBD_MAGIC     0x4e42444d41474943ull /* "NBDMAGIC" */
#define NBD_OPTIONS   0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_FIXED     1u
#define NBD_NO_ZEROES 2u
#define NBD_EXPORT    1u /* option: take this export and go on */
#define NBD_REQUEST   0x25609513u
#define NBD_REPLY     0x67446698u
#define NBD_READ      0
#define NBD_WRITE     1

struct nbd_request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t length;
} __attribute__((packed));

struct nbd_reply {
	uint32_t magic, error;
	uint64_t cookie;
} __attribute__((packed));

struct nbd {
	struct server server;
	const struct peer_setup *setup;
	unsigned request_pages;
	char *buf[SERVER_MEMBERS_MAX]; /* requests of a batch, written at once */
};

#define BUF (PEER_BATCH * (PEER_PAGE + sizeof(struct nbd_request)))

static int greet(int fd)
{
	struct {
		uint64_t magic, options;
		uint16_t flags;
	} __attribute__((packed)) hello;
	struct {
		uint32_t flags;
		uint64_t magic;
		uint32_t option, length;
	} __attribute__((packed))
	answer = {htobe32(NBD_FIXED | NBD_NO_ZEROES), htobe64(NBD_OPTIONS), htobe32(NBD_EXPORT), 0};
	char size_flags[10];
	int code = server_receive(fd, &hello, sizeof(hello));

	if (code)
		return code;
	if (be64toh(hello.magic) != NBD_MAGIC || be64toh(hello.options) != NBD_OPTIONS ||
	    !(be16toh(hello.flags) & NBD_NO_ZEROES))
		return -EPROTO;
	code = server_send(fd, &answer, sizeof(answer));
	return code ? code : server_receive(fd, size_flags, sizeof(size_flags));
}

static void nbd_close(void *peer)
{
	struct nbd *d = peer;

	server_stop(&d->server);
	for (unsigned i = 0; i < SERVER_MEMBERS_MAX; i++)
		os_free(d->buf[i]);
	os_free(d);
}

static int nbd_start(struct nbd *d, char *why, size_t size)
{
	const struct peer_setup *s = d->setup;
	char bytes[48];
	const char *argv[] = {"nbdkit", "--foreground", "--exit-with-parent", "--unix", NULL,
			      "memory", bytes,		"allocator=zstd",     NULL};
	int code = server_prepare(&d->server);

	if (code) {
		snprintf(why, size, "cannot make a socket: %s", strerror(-code));
		return code;
	}
	argv[4] = d->server.path;
	snprintf(bytes, sizeof(bytes), "size=%" PRIu64, (s->count + PEER_BATCH) * PEER_PAGE);
	code = server_start(&d->server, argv, s->threads, why, size);
	for (unsigned i = 0; i < s->threads && !code; i++) {
		code = greet(d->server.fd[i]);
		d->buf[i] = os_alloc(BUF);
		if (!code && !d->buf[i])
			code = -ENOMEM;
		if (code)
			snprintf(why, size, "it cannot be spoken with: %s", strerror(-code));
	}
	if (!code)
		d->server.memory_before = peers_rollup(d->server.pid, "Rss:");
	return code;
}

static void *nbd_open_as(const struct peer_setup *s, unsigned pages, char *why, size_t size)
{
	struct nbd *d = os_zalloc(sizeof(*d));

	if (!d) {
		snprintf(why, size, "out of memory");
		return NULL;
	}
	d->setup = s;
	d->request_pages = pages;
	if (nbd_start(d, why, size)) {
		nbd_close(d);
		return NULL;
	}
	return d;
}

static void *nbd_open(const struct peer_setup *s, char *why, size_t size)
{
	return nbd_open_as(s, 1, why, size);
}

static void *nbd_open_blocks(const struct peer_setup *s, char *why, size_t size)
{
	return nbd_open_as(s, 8, why, size);
}

/* All requests of a batch into the buffer; how many there are. */
static unsigned build(struct nbd *d, unsigned member, uint64_t first, unsigned n, uint16_t type,
		      size_t *used)
{
	char *to = d->buf[member];
	unsigned requests = 0;

	for (unsigned at = 0; at < n; at += d->request_pages, requests++) {
		unsigned pages = n - at < d->request_pages ? n - at : d->request_pages;
		size_t bytes = (size_t)pages * PEER_PAGE;
		struct nbd_request r = {
			.magic = htobe32(NBD_REQUEST),
			.type = htobe16(type),
			.cookie = htobe64(at),
			.offset = htobe64((first + at) * PEER_PAGE),
			.length = htobe32((uint32_t)bytes),
		};

		memcpy(to, &r, sizeof(r));
		to += sizeof(r);
		if (type == NBD_WRITE) {
			memcpy(to, d->setup->pages + (first + at) * PEER_PAGE, bytes);
			to += bytes;
		}
	}
	*used = (size_t)(to - d->buf[member]);
	return requests;
}

/* Answers come in any order; the cookie is the place in the batch. */
static int batch(struct nbd *d, unsigned member, uint64_t first, unsigned n, uint8_t *to)
{
	int fd = d->server.fd[member], code;
	unsigned left;
	size_t used;

	left = build(d, member, first, n, to ? NBD_READ : NBD_WRITE, &used);
	code = server_send(fd, d->buf[member], used);
	for (; left && !code; left--) {
		struct nbd_reply r;
		uint64_t at;

		code = server_receive(fd, &r, sizeof(r));
		if (code)
			break;
		at = be64toh(r.cookie);
		if (be32toh(r.magic) != NBD_REPLY || at >= n || at % d->request_pages)
			return -EPROTO;
		if (r.error)
			return -EIO;
		if (to) {
			uint64_t pages = n - at < d->request_pages ? n - at : d->request_pages;

			code = server_receive(fd, to + at * PEER_PAGE, pages * PEER_PAGE);
		}
	}
	return code;
}

static int nbd_put(void *peer, unsigned member, uint64_t first, unsigned n)
{
	return batch(peer, member, first, n, NULL);
}

static int nbd_get(void *peer, unsigned member, uint64_t first, unsigned n, uint8_t *to)
{
	return batch(peer, member, first, n, to);
}

static uint64_t nbd_memory(void *peer)
{
	return server_memory(&((struct nbd *)peer)->server);
}

static uint64_t nbd_cpu(void *peer)
{
	return server_cpu_ns(&((struct nbd *)peer)->server);
}

const struct peer_ops peer_nbdkit = {
	.name = "nbdkit zstd",
	.package = "nbdkit",
	.asked = "memory plugin, allocator=zstd; Unix socket; requests of 4 KiB, 64 in flight",
	.open = nbd_open,
	.put = nbd_put,
	.get = nbd_get,
	.memory = nbd_memory,
	.cpu_ns = nbd_cpu,
	.close = nbd_close,
};

const struct peer_ops peer_nbdkit_blocks = {
	.name = "nbdkit zstd 32K",
	.package = "nbdkit",
	.asked = "the same; requests of 32 KiB (its own block), 8 in flight",
	.open = nbd_open_blocks,
	.put = nbd_put,
	.get = nbd_get,
	.memory = nbd_memory,
	.cpu_ns = nbd_cpu,
	.close = nbd_close,
};
