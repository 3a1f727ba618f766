/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `tmem run --limit auto`: what is cold leaves, and only that.
 *
 *   auto_law.c    how much, and how cold: pure
 *   ages.c        how much of each mapping is idle, from the kernel
 *   auto_watch.c  a thread of the host: windows, the law, sums for the report
 *   auto.c        a pager's side: which pages
 *
 *     watcher                                            pager of a space
 *     -------                                            ----------------
 *     clear_refs ... a cold age ... smaps --- told --->  mappings worth it: registered,
 *     law, each second ---- cold_ms, stopped, plan --->  pages by the plan, to evict.c
 *        ^------------- spent, promotions, returned ---  a fault on one that was out
 *
 * Both directions are atomics; the table of ages changes hands whole. Nothing is
 * registered, and no page looked at, before some mapping was found to be cold.
 */
#ifndef TMEM_PAGER_AUTO_H
#define TMEM_PAGER_AUTO_H

#include "frontswap/pager/ages.h"
#include "frontswap/pager/auto_law.h"

#include "os/lock.h"
#include "os/thread.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct run;
struct space;
struct segment;

/* Of a space. A: atomic, others may read. W: the watcher's, under run.lock. The rest its pager's.
 */
struct auto_space {
	_Atomic(struct ages *) told;  /* A: the watcher gives, the pager takes */
	_Atomic uint64_t away;	      /* A: pages that the program would hold, and does not */
	_Atomic uint64_t working_set; /* A: pages referenced in the last window */
	/* A: no window begins: a table was told, and what the pager does first (pages that a fork
	 * shared are written to, see unshare.c) would look like the program's use. */
	_Atomic bool between;
	uint64_t seen_ns, begun_ns; /* W: first seen, window begun; 0: not */
	uint64_t read_ns;	    /* W: the last one ended */
	uint64_t next_ns;	    /* W: no window before */
	uint32_t gap;		    /* W: twice the cold ages between windows */
	bool refused;		    /* W: it does not let itself be looked at */

	struct ages *ages; /* of the last window; NULL: nothing is to leave */
	uint64_t cursor;   /* address that the sweep has come to */
	unsigned sweep;	   /* 0: what is surely cold, 1: what is doubtful */
	bool passing;	   /* a pass over all chunks is under way */
	bool turn;	   /* the round that evict.c makes is ours */
	uint64_t pass_ns, counted_ns;
	uint64_t inherited;  /* away, when it was forked */
	uint64_t fault_addr; /* a fault on no known segment: its mapping is wanted */
	uint32_t old;	     /* sp->arrivals a cold age ago: what came since is young */
	uint32_t mark;	     /* at the begin of the last window */
	uint32_t windows, seed;
};

struct auto_run {
	_Atomic uint64_t promotions, offloaded, returned; /* A: see struct auto_in */
	_Atomic uint64_t spent_milli;			  /* A: thousandths of pages, of the plan */
	_Atomic int64_t plan_milli;			  /* A: published each step */
	_Atomic uint32_t cold_ms, chance_ppm;
	_Atomic bool stopped, wary;
	_Atomic uint64_t working_set; /* pages */
	_Atomic uint64_t away;	      /* pages, of all spaces */

	/* the watcher's; for the report when it has ended */
	os_thread thread;
	bool running;
	_Atomic bool stop;
	struct auto_law law;
	char pressure[256]; /* file, or "" */
	uint64_t step_ns, sum_ns;
	double bare_sum, total_sum, set_sum; /* bytes times seconds */
	double seconds, set_seconds;
	int64_t saved_max, saved_last; /* bytes */
	bool told_refusal;
};

/* ---- auto_watch.c ---------------------------------------------------------------------------- */

/* Start the watcher when the run is automatic; 0 or -errno, -ENOENT on kernels that cannot tell. */
int auto_start(struct run *r) __attribute__((warn_unused_result));
void auto_stop(struct run *r);
/* Memory that the program would take by itself, now, about; bytes. */
uint64_t auto_bare(struct run *r);
#define AUTO_RATE_S 60
/*
 * Promotions a minute in percent of the working set, over the run so far; -1: the working set has
 * not been known for AUTO_RATE_S.
 */
double auto_promotion_rate(const struct run *r);
/* At the end: a line for the user, when anything left. */
void auto_say(struct run *r);

/* ---- auto.c: a pager's side; its own thread only ----------------------------------------------
 */

/* Some milliseconds have passed. Blocks for a round at most. */
void auto_tick(struct space *sp);
/* Whether a mapping is to be registered. */
bool auto_wants(struct space *sp, uint64_t start, uint64_t end);
/* The round's commands: as the choice of victims.c. */
void auto_victims(struct space *sp, uint64_t want, uint32_t *ncmds);
/* A page that was out, or on its way, was touched, and is back. */
void auto_back(struct space *sp, uint32_t area, uint64_t page);

#endif
