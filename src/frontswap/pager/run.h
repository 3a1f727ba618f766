/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pager of `tmem run`: what its parts share.
 *
 *   supervise.c  the process the user started: starts the program and the
 *                host, holds a copy of every userfaultfd, reports exit codes
 *   keeper.c     a third process that holds them, should both of these be killed
 *   host.c       the host process: the store, accounts, limit, compaction
 *   listen.c     agents connect; a connection becomes a space
 *   peer.c       who it is that connects, and what it sent
 *   space.h      what is known of one address space: segments, pages' states
 *   queue.c      which of its pages came first
 *   pager.c      one thread a space: faults and events in, pages out
 *   serve.c      what becomes of a fault
 *   events.c     the order in which things happened
 *   evict.c      when pages leave, and how
 *   victims.c    which pages leave
 *   child.c      forks
 *   fork.c       forks of a process that the kernel does not tell about
 *   unshare.c    what a fork has shared, when the other side has gone
 *   bring.c      which pages come in with the one that is wanted
 *   claim.c      ranges that the program wants for a userfaultfd of its own
 *   discard.c    eviction on kernels without UFFDIO_MOVE
 *   keep.c       stored copies of pages that came back
 *   home.c       on which processor a pager runs
 *   idle.c       stored pages that are not asked for: stored anew, denser
 *   worker.c     compression, off the fault path
 *   maps.c       what /proc says about a process
 *   strays.c     processes of the program that no agent speaks for
 *   report.c     numbers
 *   sight.c      the same while it goes on: series.c, hist.c
 *   live.c       the panel of --live
 *   watch.c      whether the program thrashes: thrash.c, refault.c
 *   auto.h       --limit auto: what is cold leaves, and only that
 *
 * Threads and locks. A space belongs to its pager thread alone; no lock guards
 * it. Others reach it only through atomics (marked A below) and its eventfd.
 * Workers get a slot by a queue and give it back by an atomic state. The list
 * of spaces is guarded by run.lock (OS_RANK_RUN).
 *
 * What an agent can write to is hostile: the shared memory at any moment, and the
 * flags of descriptors it has, too. So the host reads each answer once
 * (agent_answer()), finds what it has asked in its own copy (sp->cmds), and never
 * makes a call that the other side's flags could make wait. docs/threats.md.
 */
#ifndef TMEM_PAGER_RUN_H
#define TMEM_PAGER_RUN_H

#include "frontswap/pager/auto.h"
#include "frontswap/pager/hist.h"
#include "frontswap/pager/queue.h"
#include "frontswap/pager/refault.h"
#include "frontswap/pager/space.h"
#include "os/lock.h"
#include "os/thread.h"
#include "proto/agent.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <tmem/tmem.h>

struct live_board;

/* How pages leave. */
enum run_evict {
	RUN_EVICT_AUTO,
	RUN_EVICT_MOVE,	   /* UFFDIO_MOVE, Linux 6.8 */
	RUN_EVICT_DISCARD, /* see discard.c */
};

struct run_options {
	uint64_t limit_bytes;
	const char *codec;	/* NAME[:LEVEL] */
	const char *overflow;	/* file or NULL */
	uint64_t overflow_rate; /* bytes a second written there; 0: any */
	bool overflow_encrypt;
	const char *report; /* file or NULL */
	const char *trace;  /* file or NULL: record what the store is asked for */
	uint64_t *traced;   /* run_program() sets it: operations in the trace, once complete */
	unsigned cluster;   /* pages compressed together: 1, 2, 4, 8 or 16 */
	char **argv;	    /* the program and its arguments, NULL at the end */
	bool live;	    /* a panel on the terminal */
	struct live_board *board; /* run_program() sets it; NULL: none */
	uint32_t without;	  /* bits of enum technique: left out, to see what it brings */
	enum run_evict evict;
	bool automatic;		 /* --limit auto; limit_bytes: --max, or all of the machine */
	uint32_t cold_ms;	 /* so long untouched: cold */
	uint32_t promotions_ppm; /* of the working set, a minute */
	uint32_t idle_ms;	 /* so long not asked for: stored anew, idle.c */
};

enum technique {
	EVICT_AHEAD = 1,       /* eviction ahead of need, off the fault path */
	COMPANY_LEAVES = 2,    /* with a victim leave those that came with it */
	FILL_AROUND = 4,       /* first touches in windows that grow */
	KEEP_COPIES = 8,       /* stored copies of pages that came back, keep.c */
	LEARN_NEIGHBOURS = 16, /* which neighbours come in is learnt, bring.c; else all do */
	MAIN_QUEUE = 32,       /* a queue of its own for what came back soon */
	READ_AHEAD = 64,       /* further clusters where faults follow each other */
	FOLLOW_FAULTS = 128,   /* served on the processor that they come from, home.c */
	IDLE_PAGES = 256,      /* stored pages that are not asked for get denser, idle.c */
	BATCHES = 512,	       /* several victims leave in one round */
	SECOND_CHANCE = 1024,  /* what is asked for while in its slot comes back from there */
	STORED_APART = 2048,   /* what was not wanted together is not stored so again, bring.c */
};
#define TECHNIQUES                                                                                 \
	"ahead, apart, batch, chance, company, fill, follow, idle, keep, learn, main, read-ahead"
/* Names with commas; 0 or -EINVAL. */
int technique_parse(const char *names, uint32_t *bits);

/* Runs the program to its end; the exit code for the shell. */
int run_program(const struct run_options *opts);

/* Least limit that leaves the program something to work with. */
#define RUN_LIMIT_MIN (32ull << 20)

#define RUN_IDLE_MS    30000u
#define RUN_IDLE_CODEC "zstd:7"

/* Of a space's faults and events that wait: no program has so many threads. */
#define RUN_WAITING_MAX (1u << 20)

/* ---- numbers ---------------------------------------------------------------- */

struct run_counters {
	_Atomic uint64_t faults, faults_stored, faults_fresh, faults_transit;
	_Atomic uint64_t pages_in, pages_fresh, evicted_pages, refused_pages, busy_pages;
	_Atomic uint64_t rounds, rounds_disturbed, second_chances, anomalies;
	_Atomic uint64_t unchanged_pages; /* of evicted_pages: the kept copy was still right */
	_Atomic uint64_t spaces, forks;
	_Atomic uint64_t
		recent_refaults; /* of pages that left since the stall began, see watch.c */
	_Atomic uint64_t fault_hist[HIST_BUCKETS];
};

/* ---- one address space ---------------------------------------------------------- */

enum slot_state { SLOT_FREE, SLOT_MOVING, SLOT_COPYING, SLOT_QUEUED, SLOT_STORED };

struct slot {
	_Atomic uint32_t state;		      /* A: the worker sets SLOT_STORED */
	uint32_t area, pages, moved, dropped; /* bit i: page first + i */
	uint32_t touched;		      /* pages of its memory that were ever used */
	uint64_t first;
	uint32_t kept;	    /* pages that have a kept copy, with its print */
	uint32_t apart;	    /* pages that are to be stored by themselves */
	uint32_t stored;    /* A by state: pages the store has */
	uint32_t unchanged; /* A by state: of those, the kept ones that are as they were */
	uint32_t poor;	    /* A by state: pages that do not compress */
	uint8_t with[AGENT_SLOT_PAGES];	      /* A by state: see struct place */
	struct print print[AGENT_SLOT_PAGES]; /* of kept ones */
};

struct range {
	uint64_t start, end;
};

#define EARLY_REMOVES 16u

struct moved { /* a REMAP, or with len 0 a REMOVE, that has to wait for other events */
	uint64_t from, end, to, len;
};

struct pending { /* a fault that cannot be answered yet */
	uint64_t addr, since_ns;
	bool write;
};

/* A round without UFFDIO_MOVE, see discard.c; ncmds 0: none. Masks are of a command's pages. */
struct discard_cmd {
	uint64_t addr, again;
	uint32_t pages, slot;
	uint32_t seen, twice; /* emptied, by the events: once, and more than once */
	uint32_t unsure;      /* perhaps by the program; */
	uint32_t here, gone;  /* as it turned out since: it was not, it was */
	bool go;
};
struct discard_round {
	uint32_t ncmds;
	uint32_t disturbed; /* bit i: what command i speaks of has changed */
	bool marking;	    /* first half */
	bool looking;	    /* the marks are made, and what is unsure is looked for */
	uint64_t fault;	    /* the agent waits for this page, or 0 */
	struct discard_cmd cmd[AGENT_BATCH];
};

/* Where a pager runs, see home.c. */
enum home_state { HOME_AWAY, HOME_HERE, HOME_YIELDING };
struct home {
	bool alone; /* there is nothing to choose */
	bool may_yield;
	enum home_state state;
	int cpu;   /* bound to it, unless away */
	pid_t tid; /* most faults are this thread's, if votes are many */
	uint32_t votes, faults, calm, looks, hits;
	bool yields;			       /* it has to, to be at home */
	uint64_t looked_ns, queued_ns, ran_ns; /* yielding: at the last look, see starved() */
	uint64_t next_ns, pause_ns;
};

struct run;

/* What a handshake with an agent gives a space. */
struct offer {
	struct agent_shm *shm;
	int sock, wake, told, pidfd;
	pid_t pid;
	uint64_t identity, own_start, own_end;
};

/* Whether a process numbers its threads as our /proc does. */
enum nested { NESTED_UNKNOWN, NESTED_NOT, NESTED };

enum fork_state { FORK_NONE, FORK_RESTORE, FORK_UNGUARD, FORK_OPEN };

struct space {
	struct run *run;
	struct space *next;
	uint64_t id, family;
	_Atomic pid_t pid; /* 0: not known yet */
	int uffd, sock;
	int wake;  /* the agent's eventfd, which it may do anything to */
	int told;  /* the workers' eventfd, ours alone */
	int pidfd; /* of its process, or -1: set before pid */
	struct agent_shm *shm;
	struct agent_cmd cmds[AGENT_BATCH]; /* what the agent was asked, see agent_send() */
	uint64_t own_start, own_end, identity, staging_a;
	tmem_pool pool;
	os_thread thread;
	bool has_thread;
	struct offer offer;	  /* the listener's, until it sets `offered` */
	_Atomic bool offered;	  /* A: the pager may adopt the offer */
	int come;		  /* eventfd: one has come; -1: then the pager looks now and then */
	_Atomic bool agent_ready; /* A: it has */
	bool gone, forked;
	bool guards; /* the program has guard pages of its own, see space_guards() */
	bool frees;  /* it has used MADV_FREE, see space_frees() */
	struct range early[EARLY_REMOVES]; /* REMOVEs, the last, where there was no segment: I9 */
	unsigned early_next;
	enum nested nested;
	pid_t parent_pid;	   /* of a fork's child */
	const struct space *giver; /* its parent, while that gives it what it has in slots */
	bool careful;		   /* no fork events, see fork.c */
	enum fork_state fork_state;
	uint64_t fork_addr;	       /* how far it has come */
	uint64_t fork_brought;	       /* clusters that this walk has brought in */
	unsigned fork_tries;	       /* to take the guards off */
	_Atomic bool stop;	       /* A */
	_Atomic uint64_t resident;     /* A: anonymous bytes now, shared ones by share */
	_Atomic uint64_t raw_resident; /* A: before sharing is taken off */
	_Atomic uint64_t shared_off;   /* A: what sharing takes off */

	struct segment *segs;
	uint32_t nsegs, segs_size;
	struct area *areas;
	uint32_t nareas, areas_size;
	uint32_t free_area;    /* I12: the first, + 1; 0: none */
	uint32_t ended_areas;  /* that have no segment and no chunk, and are not free yet */
	uint64_t dead_entries; /* I11 */

	struct queue probation, main;
	uint32_t evict_clock, arrivals; /* pages that left, that came */
	uint8_t together;		/* as in a chunk, of all of them */
	uint16_t apart;			/* part of the clusters that fell apart slowly, of 65535 */
	uint32_t probes, apart_probes;
	uint16_t brought;      /* faults on stored pages, never 0 */
	uint64_t queued_pages; /* resident ones that have a place in a queue */

	struct slot slots[AGENT_SLOTS];
	_Atomic uint32_t jobs;		   /* A: slots that a worker has not let go of */
	uint32_t command;		   /* last command number; 0 before the first */
	uint32_t slots_busy, flight_pages; /* slots that are not free, pages in them */
	_Atomic uint64_t shm_bytes;	   /* A: memory of the slots */

	struct range *expected; /* the UNMAPs that follow REMAPs, see events.c */
	uint32_t nexpected, expected_size;
	struct moved *deferred;
	uint32_t ndeferred, deferred_size;

	struct pending *pending;
	uint32_t npending, pending_size;

	uint64_t epoch;		       /* counts quiet points of the event stream */
	uint64_t maps_size, maps_data; /* statm when maps were last read */
	uint64_t scan_ns;	       /* what that took */
	uint64_t next_scan_ns;	       /* not before, see maps_due() */
	_Atomic bool managed;	       /* A */
	bool maps_dirty;
	bool unsharing; /* pages of [unshare_at, end of all segments) are being made exclusive */
	uint64_t unshare_at, last_poor_ns;
	int statm; /* /proc/PID/statm, kept open */
	uint64_t last_fork_ns, last_account_ns, last_tick_ns, last_resync_ns, last_pss_ns;
	uint64_t last_in_area, last_in_page, run_length; /* sequence detector, stored pages */
	uint64_t last_fresh_addr, fresh_window;
	char *buf; /* scratch: a cluster */
	int pagemap;
	uint64_t last_round_ns;
	uint64_t last_change_ns; /* of what is resident, by more than a little */
	uint64_t last_fault_ns;	 /* read then */
	struct range foreign;	 /* see claim.c; */
	uint64_t foreign_until;	 /* 0: none */
	struct refaults refaults;
	uint64_t cpu_ns; /* the sampling thread's: processor time when it last looked */
	struct discard_round discard;
	uint64_t changes; /* events that changed segments or pages: discard.c reads them in a round
			   */
	struct auto_space cold;
	struct home home;
};

struct job {
	struct space *sp;
	struct slot *slot;
	unsigned index; /* of the slot */
	bool tell;	/* the pager, when it is done */
};

#define KEEPER_NAME 64u

/* keeper.c; pid 0: there is none */
struct keeper {
	pid_t pid;
	char *name; /* of the run's socket, KEEPER_NAME bytes shared with it; or MAP_FAILED */
};

struct run {
	struct run_options opts;
	tmem_host *host;
	tmem_client *client;
	int listener, control; /* control: socket to the supervisor */
	uint64_t token;
	char socket_name[KEEPER_NAME];
	cpu_set_t allowed; /* processors the host was given, and its priority */
	int nice;

	struct os_mutex lock; /* guards spaces, ended */
	struct space *spaces, *ended;
	_Atomic uint32_t visits;  /* A: handshakes under way */
	_Atomic uint32_t nspaces; /* A */
	_Atomic bool program_over, stopping;

	/* accounts */
	int statm;
	_Atomic uint64_t account_ns;  /* when the sum was made last */
	_Atomic uint64_t stray_bytes; /* memory of processes without an agent, see strays.c */
	uint64_t peak_stray_bytes;
	uint32_t peak_strays;
	uint64_t store_limit;	 /* of the host; more while clones need it, see space_fork.c */
	_Atomic bool store_full; /* A: it has refused pages, and there is no room yet: none leave */
	uint64_t full_ns;	 /* for so long, or nearly so */
	uint64_t refusing_ns;	 /* since it has become so, or was tried again */
	pid_t supervisor;
	struct keeper keeper;
	uint32_t last_spaces; /* the main thread's, see stuck() in host.c */
	uint64_t last_end_ns;
	struct idle { /* the main thread's, see idle.c */
		uint64_t step_ns, since_ns, pages_in;
		bool quiet;
	} idle;
	_Atomic uint64_t host_bytes; /* this process: anonymous and shared memory */
	_Atomic uint64_t total_bytes, peak_total, peak_resident, peak_store;
	_Atomic uint64_t over_ns;
	_Atomic uint64_t peak_stored_pages, peak_compressed, peak_same;
	_Atomic uint64_t held_bytes; /* host_bytes when peak_stored_pages was reached */
	uint64_t start_ns;
	struct run_counters n;

	/* workers */
	struct os_mutex jobs_lock;
	struct os_cond jobs_cond;
	struct job *jobs;
	uint32_t jobs_head, jobs_count, jobs_size;
	bool jobs_stop;
	os_thread workers[16];
	unsigned nworkers;

	struct auto_run automatic;
	struct sight *sight; /* sight.h */
	struct watch {
		/* A, of the sampling thread, which raises them */
		_Atomic uint32_t slice, stall, question, left_ppm;
		/* A, of the pagers, which answer the question */
		_Atomic uint32_t answers;
		_Atomic uint64_t extra_pages, out_pages;
	} watch;
};

/* host.c: this process, from fork to the last space's end; the exit code */
int run_host(const struct run_options *opts, int control, const struct keeper *keeper);
/* Some process of the program must not go on, and it is not known which: the guard ends all. */
void run_abandon(struct run *r);
uint64_t run_total(struct run *r); /* all memory that the limit speaks of, now, about */
void run_account(struct run *r);   /* refresh host_bytes, peaks */
/* Tell the supervisor to hold (fd >= 0) or to let go of (fd < 0) a space's userfaultfd. */
void run_hold(struct run *r, uint64_t space, pid_t pid, int fd);
/* Have the supervisor say something to the user: one line, without its end. */
void run_say(struct run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* idle.c: from time to time, one thread. */
void idle_step(struct run *r, uint64_t now);

/* messages on the control socket */
enum control_kind {
	CONTROL_READY = 1,
	CONTROL_FAILED,
	CONTROL_HOLD,
	CONTROL_RELEASE,
	CONTROL_OVER,
	CONTROL_DONE, /* value: not 0 when the report or the trace is not as asked for; space:
			 trace's operations */
	CONTROL_SAY   /* text: a line for the user */
};
struct control_message {
	uint32_t kind;
	int32_t value;
	uint64_t space;
	char text[232];
};

/* keeper.c */
/*
 * For the process that calls, while it has one thread. 0 or a negative errno: then nobody holds
 * what it alone has when it is killed.
 */
int keeper_start(struct keeper *k);
/* The program has ended, and all is well. For who started it. */
void keeper_end(const struct keeper *k);
/* SIGKILL for all processes whose environment holds a name, but our own. How many there were. */
unsigned keeper_sweep(const char *name);

/* listen.c */
int listen_open(struct run *r, char *err, size_t errlen);
void *listen_thread(void *run);
/*
 * A space's name, never 0. Who knows it may speak for the process (AGENT_FORK), so it
 * is a secret: only that process can read it, from its identity page.
 */
uint64_t listen_name(void);

/* peer.c */
/*
 * One message of exactly n bytes, and at most one descriptor (*fd, the caller's; -1:
 * none). -EPROTO: it was anything else; no descriptor stays open then. Blocks as long
 * as the socket does.
 */
int peer_recv(int sock, void *buf, size_t n, int *fd);
/* Whether a descriptor is a userfaultfd, by the kernel's word. Makes it non-blocking. */
bool peer_userfaultfd(int fd);
/*
 * Who connected: its process, and a descriptor that goes on meaning it when its number
 * is another's (*pidfd, the caller's; -1: it is gone, or this kernel has none).
 */
pid_t peer_process(int sock, int *pidfd);
/* Whether somebody who connected may speak to us at all: see peer.c. */
bool peer_allowed(const struct run *r, int sock);
/* What has come on an eventfd that somebody else may have made blocking. Never blocks. */
void peer_take(int eventfd);
/* SIGKILL for the process of a space, if that is known and lives. False: it is not known. */
bool peer_kill(struct space *sp);

/* pager.c */
void *pager_thread(void *space);
/*
 * The end of a space, by its own thread (or before it has one). The main thread
 * joins the thread, which may use the store to its last instruction, and frees.
 */
void pager_finish(struct space *sp);
/* One read of the userfaultfd, after a poll; a descriptor that would block ends the process. */
void pager_read_ready(struct space *sp, short revents);
/* Take what is in sp->wake and sp->told, as a poll has said. */
void pager_woken(struct space *sp, short wake, short told);
/* What is there to be read now, without waiting, even when the program has made its userfaultfd
 * block: then that is the end. */
void pager_read_what_is_there(struct space *sp);
void pager_fail(struct space *sp, const char *why);
bool pager_account(struct space *sp, uint64_t *size, uint64_t *data);
uint64_t pager_total(struct space *sp);

/* serve.c */
/*
 * Copy n pages to addr; *done pages are there afterwards (copied or found there). False: not
 * all are, come back later, unless the process has ended.
 */
bool pager_copy_in(struct space *sp, uint64_t addr, const void *src, uint64_t n, uint64_t *done);
void pager_added(struct space *sp, uint64_t n); /* to the estimate of what is resident */
/* A fault that was read, at time `since`: onto the list. */
void serve_later(struct space *sp, uint64_t addr, bool write, uint64_t since);
/* All on the list that can be answered now. */
void serve_pending(struct space *sp);
/* A fork's child is told its name, or finds it there. False: EAGAIN. */
bool serve_identity(struct space *sp);

/* child.c */
/* A fork was read; the child's userfaultfd is ours from now on. */
void child_begins(struct space *sp, int uffd);

/* events.c */
/* In a fork's child: what the parent has deferred has happened, here as well. False: no memory. */
bool events_inherit(struct space *child, const struct space *parent);
/* Events in the order in which they are read; the books follow in that in which they happened. */
void events_remap(struct space *sp, uint64_t from, uint64_t to, uint64_t len);
void events_remove(struct space *sp, uint64_t start, uint64_t end);
void events_unmap(struct space *sp, uint64_t start, uint64_t end);
/* A quiet point: no event is under way in the program, and the books are true. */
bool events_quiet(struct space *sp);
bool events_quiet_soon(struct space *sp); /* the same, with a little patience */

/* fork.c */
/* The fork that a careful process has announced, a step of it; false: none. */
bool fork_step(struct space *sp);
/* Whether pages may leave now; has new mappings guarded. */
bool fork_allows(struct space *sp);

/* claim.c */
/* What the program claims for a userfaultfd of its own, a step of it; false: nothing. */
bool claim_step(struct space *sp);
/* Whether it claims some of [start, end) just now: not to be registered, nor evicted from. */
bool claim_covers(const struct space *sp, uint64_t start, uint64_t end);

/* evict.c */
/* Start a round when there is something to evict and room for it. Pages that left. */
uint64_t evict_round(struct space *sp, uint64_t want);
/* Take back slots that are over; true when there was one. */
bool evict_complete(struct space *sp);
/*
 * Wait until no slot is under way. Slots remain that hold pages the store
 * refused: those that the kernel does not let us give back now, or all of
 * them without give_back (a fork's child must have them too).
 */
void evict_drain(struct space *sp, bool give_back);
/* Without waiting for it: a round, when the total nears the limit. */
void evict_ahead(struct space *sp);
/* Evict until the total is at most `goal`, as far as that can be done. */
void evict_to(struct space *sp, uint64_t goal);
/* Most of what is resident leaves when a fork is announced; the answer. */
void evict_before_fork(struct space *sp);
/* A command whose cmds are in sp->cmds, and the wait for its first phase; false: the process ended.
 */
void evict_send(struct space *sp, uint32_t op, uint32_t ncmds);
bool evict_wait(struct space *sp);
/*
 * Marks on the total: from `managed` on mappings are registered; above `low`
 * rounds are started ahead of need; nothing comes in above `high` before
 * something has left.
 */
uint64_t run_goal_managed(const struct run *r);
uint64_t run_goal_low(const struct run *r);
uint64_t run_goal_high(const struct run *r);

/* victims.c */
/* Up to about `want` of those whose turn it is, in commands. */
void evict_name_victims(struct space *sp, uint64_t want, uint32_t *ncmds);
/*
 * Name the victims among `goes` of a cluster's block, in commands. False: no room in the
 * round for all of them. *pages counts.
 */
bool evict_name(struct space *sp, uint32_t area, uint64_t first, uint32_t goes, uint32_t *ncmds,
		uint64_t *pages);
/* A slot is over. */
void evict_slot_free(struct space *sp, struct slot *sl);
/* Memory of slots that have been free for some time goes back. */
void evict_slots_return(struct space *sp);
/* What is resident and on no queue is queued. */
void evict_resync(struct space *sp);

/* unshare.c */
/* Whether no process is left that this one may share pages with. */
bool unshare_can(struct space *sp);
/* A command that makes some pages its own, by a resync's word (sp->unsharing). */
void unshare_step(struct space *sp);

/* bring.c */
/*
 * Bring in a stored page, and what is stored with it: all of that, or as far as it
 * is likely to be wanted. False: EAGAIN for the page itself.
 */
bool bring_in(struct space *sp, struct segment *seg, uint64_t page, bool all);
/* After a fault on a stored page: read on when faults follow each other. */
void bring_ahead(struct space *sp, struct segment *seg, uint64_t page);
/* A page of a cluster leaves: its window is over. */
void bring_left(struct space *sp, struct chunk *c, uint64_t page);
/* Whether pages of a block that leave, and were never out, are to be stored by themselves. */
bool bring_apart(struct space *sp);

/* keep.c */
/* The store keeps pages that were copied in from `data` just now. False: it cannot. */
bool keep(struct space *sp, uint32_t area, uint64_t page, uint64_t n, const char *data);
/* The store's copy of a page that is not out goes. */
void keep_forget(struct space *sp, uint32_t area, uint64_t page);
/* All kept copies of resident pages go. */
void keep_end(struct space *sp);
/* Of a slot's pages those that are as their kept copies are: sl->unchanged. A worker's. */
void keep_compare(struct slot *sl, const uint8_t *data);

/* worker.c */
int workers_start(struct run *r);
void workers_stop(struct run *r);
/* Slots that have been copied; the pager is woken when some, and when all of them are stored. */
void worker_submit(struct space *sp, const unsigned *slots, unsigned n);

/* home.c */
/* What the host was started with: at its start. */
void home_note(struct run *r);
/* The calling thread goes before the program's threads. False: that is not allowed. */
bool home_hurry(const struct run *r, int by);
/* The pager's own thread calls these. Its first: */
void home_init(struct space *sp);
/* A fault of that thread was read. */
void home_fault(struct space *sp, pid_t tid);
/* Now and then, in time sp->last_tick_ns. */
void home_tick(struct space *sp);
/* Its last: the workers may go anywhere again. */
void home_end(struct space *sp);

/* watch.c: a pager's side of it */
#define WATCH_UNKNOWN UINT32_MAX
/* How many pages have left since a page that is out did, which must be asked before it comes in. */
uint32_t watch_age(struct space *sp, uint32_t area, uint64_t page);
/* A fault on a page of that age was answered. */
void watch_refault(struct space *sp, uint32_t age);
/* Now and then: what the sampling thread wants to know. */
void watch_tick(struct space *sp);

/* maps.c */
/* Find new mappings worth managing, register them, learn what is resident. */
void maps_scan(struct space *sp);
/* Whether it is time to, now that statm says so: pages. */
bool maps_due(const struct space *sp, uint64_t now, uint64_t size, uint64_t data);
/* /proc/PID/statm (0: our own) by a descriptor in *fd that is opened when it is -1. Pages. */
bool maps_statm(int *fd, pid_t pid, uint64_t *size, uint64_t *resident, uint64_t *shared,
		uint64_t *data);
/* Bytes of a process, shared ones by share. */
uint64_t maps_pss_anon(pid_t pid);
/* Whether some mapping begins at start and some ends at end, now. */
bool maps_whole(pid_t pid, uint64_t start, uint64_t end);
/* Whether a fork's child finds the mapping at addr wiped (MADV_WIPEONFORK). */
bool maps_wiped_on_fork(pid_t pid, uint64_t addr);
void maps_prune_threads(struct space *sp);
/* A process's parent, or 0; its state's letter. One whose first thread has ended is 'Z', too. */
pid_t maps_parent(pid_t pid, char *state);
/* Whether a text is in the environment that a process was started with. */
bool maps_environ_holds(pid_t pid, const char *text);
/* Whether a process is below another. */
bool maps_descends(pid_t pid, pid_t above);

/* report.c */
void report_fault(struct run *r, uint64_t ns);
int report_write(struct run *r, const char *path);

/* probe.c: what must be so before a program is started; 0 or an exit code, a line on stderr */
/* RUN_EVICT_AUTO becomes what this kernel can do. */
int probe_kernel(enum run_evict *evict);
int probe_program(const char *name, char *path, size_t pathlen);
/* Why no agent can be loaded into a program's file, the rest of a sentence; NULL: it can. */
const char *probe_unloadable(const char *path);

/* strays.c */
/* Now and then: processes that no agent speaks for are counted, and told of. The main thread's. */
void strays_look(struct run *r);

#endif
