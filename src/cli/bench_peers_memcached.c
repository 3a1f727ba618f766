/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memcached as a store of compressed pages: the client compresses with lz4 and
 * speaks memcached's text protocol over a Unix socket.
 *
 *   put  64 "set ... noreply" and one "mn" in one write; the answer to "mn"
 *        says that all have been looked at
 *   get  one "get" of 64 keys, one answer
 *
 * This is the fastest way to use it that the protocol has: one round trip, and
 * no answers to sets. A set that failed shows when the page is read back.
 */
#include "cli/bench_peers.h"
#include "codec/codec.h"
#include "os/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ITEM_MAX (PEER_PAGE + 128) /* a page with the words around it */
#define BUF	 (PEER_BATCH * ITEM_MAX + 64)
#define PACKED	 1u /* flags of an item: compressed */

struct member {
	struct codec_set set;
	char *buf;
	size_t have, at; /* received, and read of it */
};

struct memcached {
	struct server server;
	const struct peer_setup *setup;
	const struct codec *codec;
	struct member member[SERVER_MEMBERS_MAX];
};

static void mc_close(void *peer)
{
	struct memcached *m = peer;

	server_stop(&m->server);
	for (unsigned i = 0; i < SERVER_MEMBERS_MAX; i++) {
		codec_set_clear(&m->member[i].set);
		os_free(m->member[i].buf);
	}
	os_free(m);
}

static void *mc_open(const struct peer_setup *s, char *why, size_t size)
{
	struct memcached *m = os_zalloc(sizeof(*m));
	char threads[16], megabytes[24];
	const char *argv[] = {"memcached", "-s", NULL, "-a", "0700", "-t", threads, "-m",
			      megabytes,   "-M", "-c", "64", NULL,   NULL, NULL};
	int code = m ? server_prepare(&m->server) : -ENOMEM;

	if (code) {
		snprintf(why, size, "cannot make a socket: %s", strerror(-code));
		os_free(m);
		return NULL;
	}
	m->setup = s;
	m->codec = codec_find("lz4");
	snprintf(threads, sizeof(threads), "%u", s->threads);
	/* More than it can need, so that nothing is thrown out. */
	snprintf(megabytes, sizeof(megabytes), "%" PRIu64, (s->count * PEER_PAGE >> 19) + 64);
	argv[2] = m->server.path;
	if (geteuid() == 0) {
		argv[12] = "-u"; /* as root it wants to be told so */
		argv[13] = "root";
	}
	for (unsigned i = 0; i < s->threads && i < SERVER_MEMBERS_MAX; i++) {
		m->member[i].buf = os_alloc(BUF);
		if (!m->member[i].buf) {
			snprintf(why, size, "out of memory");
			mc_close(m);
			return NULL;
		}
	}
	code = server_start(&m->server, argv, s->threads, why, size);
	if (code) {
		mc_close(m);
		return NULL;
	}
	return m;
}

static int mc_put(void *peer, unsigned member, uint64_t first, unsigned n)
{
	struct memcached *m = peer;
	struct member *b = &m->member[member];
	const struct codec_spec spec = {m->codec, 1};
	void *ctx = codec_set_cctx(&b->set, &spec);
	int fd = m->server.fd[member], code;
	char packed[PEER_PAGE], answer[4];
	size_t used = 0;

	if (!ctx)
		return -ENOMEM;
	for (uint64_t i = first; i < first + n; i++) {
		const uint8_t *page = m->setup->pages + i * PEER_PAGE;
		size_t z = m->codec->compress(ctx, page, PEER_PAGE, packed, PEER_PAGE - 1);
		const void *bytes = z ? packed : (const void *)page;

		used += (size_t)sprintf(b->buf + used, "set p%" PRIu64 " %u 0 %zu noreply\r\n", i,
					z ? PACKED : 0, z ? z : PEER_PAGE);
		memcpy(b->buf + used, bytes, z ? z : PEER_PAGE);
		used += z ? z : PEER_PAGE;
		memcpy(b->buf + used, "\r\n", 2);
		used += 2;
	}
	memcpy(b->buf + used, "mn\r\n", 4);
	code = server_send(fd, b->buf, used + 4);
	if (!code)
		code = server_receive(fd, answer, sizeof(answer));
	return code ? code : memcmp(answer, "MN\r\n", 4) ? -ENOSPC : 0;
}

/* At least n bytes of the answer that were not read yet; NULL when they cannot be had. */
static char *need(struct member *b, int fd, size_t n)
{
	if (b->at + n > BUF)
		return NULL;
	while (b->have - b->at < n) {
		ssize_t got = read(fd, b->buf + b->have, BUF - b->have);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return NULL;
		b->have += (size_t)got;
	}
	return b->buf + b->at;
}

/* A line of the answer, its end cut off. */
static char *need_line(struct member *b, int fd)
{
	for (size_t n = 2; n < 128; n++) {
		char *line = need(b, fd, n);

		if (!line)
			return NULL;
		if (line[n - 2] == '\r' && line[n - 1] == '\n') {
			line[n - 2] = '\0';
			b->at += n;
			return line;
		}
	}
	return NULL;
}

static int take_item(struct memcached *m, unsigned member, uint64_t i, uint8_t *to)
{
	struct member *b = &m->member[member];
	char *line = need_line(b, m->server.fd[member]), *bytes, *end;
	unsigned long flags, size;
	void *ctx;

	if (!line)
		return -ECONNRESET;
	if (strncmp(line, "VALUE p", 7) != 0 || strtoull(line + 7, &end, 10) != i)
		return -ENODATA;
	flags = strtoul(end, &end, 10);
	size = strtoul(end, NULL, 10);
	if (size > PEER_PAGE)
		return -EBADMSG;
	bytes = need(b, m->server.fd[member], size + 2);
	if (!bytes)
		return -ECONNRESET;
	b->at += size + 2;
	if (flags != PACKED) {
		memcpy(to, bytes, PEER_PAGE);
		return size == PEER_PAGE ? 0 : -EBADMSG;
	}
	ctx = codec_set_dctx(&b->set, m->codec);
	return ctx ? m->codec->decompress(ctx, bytes, size, to, PEER_PAGE) : -ENOMEM;
}

static int mc_get(void *peer, unsigned member, uint64_t first, unsigned n, uint8_t *to)
{
	struct memcached *m = peer;
	struct member *b = &m->member[member];
	int fd = m->server.fd[member], code;
	size_t used = 3;
	char *line;

	memcpy(b->buf, "get", 3);
	for (uint64_t i = first; i < first + n; i++)
		used += (size_t)sprintf(b->buf + used, " p%" PRIu64, i);
	memcpy(b->buf + used, "\r\n", 2);
	code = server_send(fd, b->buf, used + 2);
	b->have = b->at = 0;
	for (unsigned i = 0; i < n && !code; i++)
		code = take_item(m, member, first + i, to + (size_t)i * PEER_PAGE);
	if (!code) {
		line = need_line(b, fd);
		code = line && !strcmp(line, "END") ? 0 : -EPROTO;
	}
	return code;
}

static uint64_t mc_memory(void *peer)
{
	return server_memory(&((struct memcached *)peer)->server);
}

static uint64_t mc_cpu(void *peer)
{
	return server_cpu_ns(&((struct memcached *)peer)->server);
}

const struct peer_ops peer_memcached = {
	.name = "memcached lz4",
	.package = "memcached",
	.asked = "client compresses; Unix socket; 64 sets (noreply) or a get of 64 keys a round "
		 "trip; a server thread for each client thread",
	.open = mc_open,
	.put = mc_put,
	.get = mc_get,
	.memory = mc_memory,
	.cpu_ns = mc_cpu,
	.close = mc_close,
};
