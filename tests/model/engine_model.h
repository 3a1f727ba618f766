/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine against a model: what the parts of the test share. engine_model.c has the
 * theory.
 *
 *   engine_model.c           worlds, rounds, what is checked while nothing runs
 *   engine_model_pages.c     what is in a page; failing
 *   engine_model_ops.c       operations on handles that a thread knows
 *   engine_model_pools.c     operations on whole pools; which operation is next
 *   engine_model_shared.c    pages with many readers
 *   engine_model_clients.c   clients that come and go: limits, save, restore, guests
 *   engine_model_trace.c     what the recorder must have written
 *   engine_model_disturb.c   what another thread does meanwhile
 *   engine_model_limits.c    what hard limits promise, sampled
 *
 * All state of a thread is its struct worker; what is global is written at quiet points
 * only, or atomic.
 */
#ifndef TMEM_TESTS_MODEL_ENGINE_MODEL_H
#define TMEM_TESTS_MODEL_ENGINE_MODEL_H

#include "tmem/tmem.h"
#include "trace/format.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 16
#define POOLS	    2 /* of a thread */
#define OBJECTS	    3
#define PAGES	    192 /* of an object */
#define SHARED	    256 /* pages of the object with many readers */
#define PAGE	    TMEM_PAGE_SIZE
#define PATH	    64
#define TIGHT_BYTES (6u << 20) /* of a host whose limit bites */
#define ULL(x)	    ((unsigned long long)(x))

struct model_pool {
	tmem_client *client; /* everybody's, or the thread's own */
	tmem_pool id;	     /* < 0: none */
	bool ephemeral;	     /* pages may be gone; once missed, a page stays so until it is put */
	bool uuid;	     /* a shared one: a get keeps */
	bool bytes;	     /* precompressed */
	bool of_all;	     /* the thread's object in the pool of all */
	uint64_t tag;	     /* pages carry the tag of the pool that they were put into */
	uint64_t version[OBJECTS][PAGES];
	uint64_t tags[OBJECTS][PAGES];
};

/* Of what is rare: how often it happened, so that a run in which it did not is noticed. */
enum model_event {
	SAVED_OWN,
	SAVED_ALL,
	CLONED_ALL,
	RESTORED,
	REPLACED,
	GUESTS,
	CLIENTS,
	TRACED,
	EVENTS
};

struct worker {
	unsigned number;
	uint64_t rng, ops;
	_Atomic uint64_t op;		   /* operations done; written by the thread */
	_Atomic bool idle;		   /* no thread is at work for it */
	struct model_pool pool[POOLS + 1]; /* the last: the shared pool, own object */
	struct model_pool copy;		   /* of one that was restored elsewhere */
	uint64_t next_version, next_tag;
	tmem_client *own; /* a client that nobody else uses; NULL: none now */
	uint64_t own_limit;
	bool elsewhere;			     /* at work on a host that is not traced */
	uint64_t traced_records, traced_sum; /* what the recorder was given */
	uint64_t event[EVENTS];
	char path[PATH];
	char buf[TMEM_CLUSTER_MAX * PAGE], want[PAGE];
};

extern tmem_host *host;
extern tmem_client *client, *client2;
extern uint64_t seed0;
extern unsigned nthreads;
extern tmem_pool shared, shared2; /* one pool, as client and client2 name it */
extern struct worker *workers[THREADS_MAX];
extern bool eph;	  /* the shared pool is ephemeral */
extern bool tight;	  /* the limit bites */
extern bool has_overflow; /* there is an overflow file */
extern bool zbud;	  /* an allocator that has no room for a whole page */
extern char base_path[PATH];

/* ---- engine_model_pages.c ------------------------------------------------------------ */

uint64_t mix(uint64_t x);
uint64_t rnd(struct worker *w, uint64_t below);
/* Says the seed, and ends the program. w may be NULL. */
__attribute__((noreturn, format(printf, 2, 3))) void fail(const struct worker *w, const char *fmt,
							  ...);
/* The page of a handle. `named` ones say in their first words what they are. */
void fill(void *to, uint64_t pool, uint64_t object, uint64_t index, uint64_t version, bool named);
/* How many bytes of it a precompressed pool gets. */
size_t bytes_of(uint64_t pool, uint64_t object, uint64_t index, uint64_t version);
/* The page is the one that the model has there. */
void check(struct worker *w, const struct model_pool *m, unsigned o, uint64_t i, const void *page,
	   size_t size, const char *what);
/* A named page: its version, after judging all the rest. */
uint64_t named_version(const struct worker *w, const void *page, uint64_t object, uint64_t index);
/* A put may fail so. */
void put_failed(const struct worker *w, const struct model_pool *m, int rc);

/* ---- engine_model_ops.c ---------------------------------------------------------------- */

tmem_oid oid_of(const struct worker *w, const struct model_pool *m, unsigned o);
void op_put(struct worker *w, struct model_pool *m, unsigned o, uint64_t i);
void op_put_cluster(struct worker *w, struct model_pool *m, unsigned o, uint64_t i);
enum get_how { GET_ANY, GET_KEEP, GET_TAKE };
void op_get(struct worker *w, struct model_pool *m, unsigned o, uint64_t i, enum get_how how);
void op_get_cluster(struct worker *w, struct model_pool *m, unsigned o, uint64_t i, bool take);
void op_invalidate(struct worker *w, struct model_pool *m, unsigned o, uint64_t i);
void op_range(struct worker *w, struct model_pool *m, unsigned o, uint64_t i);
/* A number of pages that a call says it found, and how many there can be. */
bool agrees(const struct model_pool *m, int64_t said, uint64_t known);
uint64_t count_pages(const struct model_pool *m);
/* Every handle of the pool. */
void check_pool(struct worker *w, struct model_pool *m);

/* ---- engine_model_pools.c ---------------------------------------------------------------- */

void pool_open(struct worker *w, struct model_pool *m);
void pool_close(struct worker *w, struct model_pool *m);
/* It has gone with its client. */
void pool_forget(struct model_pool *m);
void one_operation(struct worker *w);

/* ---- engine_model_shared.c --------------------------------------------------------------- */

void open_shared(void);
void op_shared(struct worker *w);
/* The many readers' object in a file that was saved between two moments. */
struct shared_before {
	uint64_t done[SHARED];
};
void shared_before(struct shared_before *b);
void shared_check_saved(struct worker *w, const struct shared_before *b, tmem_client *c,
			tmem_pool pool);

/* ---- engine_model_clients.c ---------------------------------------------------------------- */

void op_client(struct worker *w, uint64_t what);
#define CLIENT_OPS 60u /* `what` is below it */
/* The thread's own client, made when it is first wanted; NULL: no memory. */
tmem_client *own_client(struct worker *w);
void check_own_limit(struct worker *w);
void clients_close(struct worker *w);

/* ---- engine_model_trace.c ---------------------------------------------------------------- */

/* An operation of this thread that a recorder must have seen. */
void note(struct worker *w, enum trace_opcode op, tmem_pool pool, const tmem_oid *oid,
	  uint64_t index, uint64_t n, bool ok);
/* Around a round; nothing runs. */
void trace_begin(void);
void trace_end(void);
/* Start or stop one whose records nobody counts: it must be a whole file. */
void trace_toggle(void);
void trace_toggle_end(void);
extern bool tracing; /* all of this round is recorded */

/* ---- engine_model_limits.c ------------------------------------------------------------- */

void host_limit_set(struct worker *w, uint64_t bytes);
void client_limit_set(struct worker *w, uint64_t bytes);
void limits_begin(uint64_t bytes);
void limits_sample(void);
/* At the end of a world: the peak was never above what was ever allowed. */
void limits_end(void);

/* ---- engine_model_disturb.c ------------------------------------------------------------ */

void *disturb(void *arg);
extern _Atomic bool stop;

#endif
