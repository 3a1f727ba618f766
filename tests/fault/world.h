/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A host, and beside it what it must hold.
 *
 * Every w_ call does something to the host and to the model, judges what came
 * back, and ends the program with a description when that is wrong. Calls may
 * fail as tmem.h allows; then the model says "absent". Calls that may not fail
 * for lack of memory (T8: gets and invalidates) are never forgiven.
 *
 * Pages name themselves: kind, pool's content, object, index and version are in
 * the first words, the rest follows from them.
 */
#ifndef TMEM_TESTS_FAULT_WORLD_H
#define TMEM_TESTS_FAULT_WORLD_H

#include "tmem/tmem.h"

#include <stdbool.h>
#include <stdint.h>

#define W_POOLS	  3
#define W_OBJECTS 3
#define W_PAGES	  192

/* What a page is like. */
enum w_kind { W_TEXT, W_SAME, W_ZERO, W_NOISE, W_KINDS };

/* The page of a handle: 0 is absent; else its version, with the kind in the low two bits. */
struct w_pool {
	tmem_pool id; /* < 0: none */
	uint32_t want[W_OBJECTS][W_PAGES];
};

struct world {
	tmem_host *host;
	tmem_client *client;
	struct w_pool pool[W_POOLS];
	uint32_t version[W_OBJECTS]; /* the last one; an object belongs to one thread */
	bool may_refuse;	     /* puts may fail without a failure made by the shim */
	bool quota;		     /* the client has a limit */
	bool raw;		     /* poor pages are kept */
	bool damaged;		     /* reads failed: failures are counted in the statistics */
	/* When w_start() is done the n-th call fails, once or from then on; 0: nothing is armed. */
	uint64_t arm_at;
	bool arm_on;
};

extern const char *w_scenario; /* for messages */

__attribute__((noreturn, format(printf, 3, 4))) void w_fail(const char *file, int line,
							    const char *fmt, ...);
#define W_CHECK(cond, ...)                                                                         \
	do {                                                                                       \
		if (!(cond))                                                                       \
			w_fail(__FILE__, __LINE__, __VA_ARGS__);                                   \
	} while (0)

void w_init(struct world *w);
/* False when it failed, which it may. */
bool w_host(struct world *w, const tmem_host_options *opts);
bool w_client(struct world *w);
bool w_pool(struct world *w, unsigned pool, uint32_t shards);
/* Host with opts, client, pool 0; then what is to fail is armed. */
bool w_start(struct world *w, const tmem_host_options *opts);

void w_put(struct world *w, unsigned pool, unsigned object, unsigned page, enum w_kind kind);
/* kinds: of page i, kinds >> 2 i & 3. */
void w_put_cluster(struct world *w, unsigned pool, unsigned object, unsigned page, unsigned n,
		   uint32_t kinds);
void w_get(struct world *w, unsigned pool, unsigned object, unsigned page);
void w_get_invalidate(struct world *w, unsigned pool, unsigned object, unsigned page);
void w_get_cluster(struct world *w, unsigned pool, unsigned object, unsigned page, bool invalidate);
void w_invalidate(struct world *w, unsigned pool, unsigned object, unsigned page);
void w_invalidate_range(struct world *w, unsigned pool, unsigned object, unsigned page, unsigned n);
void w_invalidate_object(struct world *w, unsigned pool, unsigned object);
void w_flush(struct world *w, unsigned pool);
void w_clone(struct world *w, unsigned from, unsigned to);
void w_pool_destroy(struct world *w, unsigned pool);
void w_codec(struct world *w, const char *codec);
/*
 * Get without the model's judgement of success: 0 with the right bytes, 1 for
 * absent as it must be, or -EIO with the buffer untouched. The model is not changed.
 */
int w_try(struct world *w, unsigned pool, unsigned object, unsigned page, bool invalidate);
/* What a page is called in the store, for calls of one's own. */
tmem_oid w_handle(unsigned object, unsigned page, uint64_t *index);
/* How many pages the model has. */
uint64_t w_pages(const struct world *w);
/* Get every page of the pool's model, present and absent. */
void w_get_all(struct world *w, unsigned pool);

/* Everything reads back, the host finds itself sound, counts agree. Nothing else may run. */
void w_verify(struct world *w);
/* Destroys everything. */
void w_end(struct world *w);

/* Bytes of an empty host with a client, a pool and this thread's state. */
uint64_t w_baseline(const tmem_host_options *opts);

#endif
