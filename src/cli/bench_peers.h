/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of `tmem bench peers` share. */
#ifndef TMEM_CLI_BENCH_PEERS_H
#define TMEM_CLI_BENCH_PEERS_H

#include "cli/bench_box.h"
#include "cli/bench_peer.h"

#include <stdbool.h>
#include <sys/types.h>

extern const struct peer_ops peer_engine_lz4, peer_engine_zstd;
extern const struct peer_ops peer_memcached, peer_nbdkit, peer_nbdkit_blocks, peer_zram;
/* From its shared object; one that says what is missing when that is not there. */
const struct peer_ops *peer_rocksdb(void);

/* ---- one measurement ------------------------------------------------------- */

struct peer_result {
	bool measured;
	char why[256];		       /* not measured: why */
	int code;		       /* failed in the middle: a negative errno */
	double put_per_s, get_per_s;   /* pages */
	double put_cpu_ns, get_cpu_ns; /* a page, callers and servers */
	uint64_t memory_bytes;
};

/*
 * Put all pages into a new store, then get all of them back and compare, in a
 * child process. 0 with *r filled; -EINTR: told to stop; -EBADMSG: a page came
 * back with other bytes; or another negative errno with a word in r->why.
 */
int peers_measure(struct box *box, const struct peer_ops *ops, const struct peer_setup *s,
		  struct peer_result *r) __attribute__((warn_unused_result));

/* ---- servers on a Unix socket ------------------------------------------------ */

#define SERVER_PATH_MAX	   108
#define SERVER_MEMBERS_MAX 16

struct server {
	pid_t pid;
	char dir[64], path[SERVER_PATH_MAX];
	int fd[SERVER_MEMBERS_MAX]; /* one connection a member */
	unsigned connections;
	uint64_t memory_before; /* with the connections made */
};

/* A private directory for the socket, whose path may then be named in argv. 0 or -errno. */
int server_prepare(struct server *s) __attribute__((warn_unused_result));
/*
 * Start argv[0] and connect; the socket's name is gone again afterwards. It
 * dies with this process. 0, or a negative errno with a word in why; then
 * nothing runs. -ENOENT: no such program.
 */
int server_start(struct server *s, const char *const *argv, unsigned connections, char *why,
		 size_t size) __attribute__((warn_unused_result));
void server_stop(struct server *s);
int server_send(int fd, const void *buf, size_t n) __attribute__((warn_unused_result));
int server_receive(int fd, void *buf, size_t n) __attribute__((warn_unused_result));
uint64_t server_memory(const struct server *s); /* growth since it was started */
uint64_t server_cpu_ns(const struct server *s);

/* A line of /proc/PID/smaps_rollup in bytes ("Rss:"); 0 when unreadable. pid 0: our own. */
uint64_t peers_rollup(pid_t pid, const char *field);

#endif
