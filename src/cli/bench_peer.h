/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A store as `tmem bench peers` sees it: one table of functions. Plain enough
 * for C++, because a store may come from a shared object built from it.
 *
 * Pages are known by their number. One store is open at a time, in a process
 * of its own, so what it takes can be told from what others took.
 */
#ifndef TMEM_CLI_BENCH_PEER_H
#define TMEM_CLI_BENCH_PEER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PEER_PAGE    4096
#define PEER_BATCH   64 /* pages that one call of put or get is given */
#define PEER_CLUSTER 8	/* of those, compressed together where a store can */
/* Pages that a get's buffer has room for: a cluster may be handed out beyond the last one. */
#define PEER_ROOM    (PEER_BATCH + 16)
#define PEER_ABI     1

struct peer_setup {
	const uint8_t *pages; /* count pages, end to end, 4096-aligned; read only */
	uint64_t count;
	unsigned threads;   /* members 0 .. threads-1 call put and get at the same time */
	volatile int *zram; /* where the number of a zram device is noted, for who cleans up */
};

struct peer_ops {
	const char *name;
	const char *package; /* Debian's, without which there is no such store; NULL: ours */
	const char *asked;   /* what it is asked to do, in a line */
	/* NULL, with the reason in why, when it cannot be had here. */
	void *(*open)(const struct peer_setup *s, char *why, size_t size);
	/*
	 * Store, or bring into `to`, the pages first .. first+n-1, 1 <= n <=
	 * PEER_BATCH, first a multiple of PEER_BATCH. 0; -ENODATA: a page was not
	 * there; or another negative errno.
	 */
	int (*put)(void *peer, unsigned member, uint64_t first, unsigned n);
	int (*get)(void *peer, unsigned member, uint64_t first, unsigned n, uint8_t *to);
	/* Bytes it takes now; NULL: it lives in the calling process, and all of that counts. */
	uint64_t (*memory)(void *peer);
	/* Processor time that others spent for it; NULL: none but the callers. */
	uint64_t (*cpu_ns)(void *peer);
	void (*close)(void *peer);
};

/* What a shared object of a store exports: PEER_ABI, and the table. */
#define PEER_SYMBOL "tmem_peer"
struct peer_export {
	unsigned abi;
	const struct peer_ops *ops;
};

#ifdef __cplusplus
}
#endif
#endif
