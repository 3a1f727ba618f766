/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages between the agent (in the target program) and the pager (in the
 * host), and the memory they share.
 *
 * Life of a connection (Unix SOCK_SEQPACKET, one a process image):
 *
 *   agent                                  host
 *   connect
 *   AGENT_HELLO, uffd (exec) ------------>  make a space, or, after a fork,
 *                                          find it by its token
 *   <------------------------------------  AGENT_WELCOME, memfd, eventfd
 *                                          (and the uffd, after a fork)
 *   AGENT_READY ------------------------->  the pager of the space adopts it
 *   <------------------------------------  AGENT_READY: the program may run on
 *
 * Afterwards the socket carries nothing; its end says that the other side is
 * gone. Commands go through struct agent_shm.
 *
 * An evict command has two phases. In phase 1 the host reads nothing from the
 * userfaultfd, so an munmap, mremap, madvise or fork that has begun in the
 * program cannot be over, and the kernel refuses (EAGAIN) to move pages under
 * it: a command can never hit a mapping that is newer than the host's
 * knowledge. Phase 2 (copying out) may overlap with anything.
 *
 * Forks without CAP_SYS_PTRACE. The kernel tells of a fork, and gives the
 * child's userfaultfd, only to who has that capability; a child it does not
 * tell of reads zeros where pages are out. So, for a process that said
 * AGENT_CAREFUL:
 *
 *   - nothing leaves a mapping that is not *guarded*: marked MADV_DONTFORK by
 *     the agent. A child made behind our backs lacks it, and dies of SIGSEGV at
 *     the first touch, instead of reading zeros;
 *   - a fork by libc announces itself (fork_asked), always: the host takes every
 *     page back in, has the guards taken off, and answers; and nothing leaves
 *     until the parent has said that the fork is over (fork_over);
 *   - the child begins anew, as if it had just been executed, and names its
 *     parent.
 *
 * Kernels without UFFDIO_MOVE. The address in AGENT_ENV ends in ",discard" then,
 * and pages leave by another protocol, which is described at the top of
 * pager/discard.c: AGENT_OP_DISCARD and the fields from `go` on are its own.
 *
 * The host believes nothing it reads here: it reads each number once, by
 * agent_answer(), and bounds it; and it reads no number that it wrote itself.
 */
#ifndef TMEM_PROTO_AGENT_H
#define TMEM_PROTO_AGENT_H

#include <stdatomic.h>
#include <stdint.h>

#define AGENT_MAGIC   0x746d656d61676e74ull /* "tmemagnt" */
#define AGENT_VERSION 4u
#define AGENT_ENV     "TMEM_RUN_SOCKET" /* abstract socket name, ':', token in hex */

/* In a command line: a process that may have one thread only (Chromium's); no agent is started. */
#define AGENT_ONE_THREAD "--type=zygote"

#define AGENT_PAGE	 4096u
#define AGENT_SLOT_PAGES 16u /* pages of one command: a cluster at most */
#define AGENT_SLOT_BYTES (AGENT_SLOT_PAGES * AGENT_PAGE)
#define AGENT_BATCH	 32u /* commands in one round */
#define AGENT_ROUND	 64u /* pages of all commands of a round, at most */
#define AGENT_SLOTS	 52u /* slots of shared memory, touched as far as used */
#define AGENT_THREADS	 16384u

enum agent_kind { AGENT_EXEC = 1, AGENT_FORK = 2 };
enum agent_flags { AGENT_CAREFUL = 1 /* no fork events: see above */ };
#define AGENT_DISCARD ",discard" /* behind the token in AGENT_ENV: no UFFDIO_MOVE here */

struct agent_hello {
	uint64_t magic;
	uint32_t version;
	uint32_t kind;
	uint64_t token; /* of the run, from the environment */
	uint64_t space; /* AGENT_FORK: what the identity page said; careful: the parent's, or 0 */
	int32_t error;	/* negative errno: no userfaultfd could be had */
	uint32_t flags; /* enum agent_flags */
	uint64_t staging_a;	     /* where pages are moved first; on the main uffd */
	uint64_t identity;	     /* a page that is never touched but after a fork */
	uint64_t own_start, own_end; /* all of the agent's memory; never managed */
};

struct agent_welcome {
	uint64_t magic;
	int32_t error; /* not 0: the program must not start */
	uint32_t pad;
	uint64_t shm_bytes;
};

struct agent_ready {
	uint64_t magic;
	int32_t error;
	uint32_t pad;
	uint64_t space; /* from the host: what it calls the agent's process */
};

enum agent_op {
	AGENT_OP_NONE,
	AGENT_OP_EVICT,
	/* Make pages that a fork shared the program's own again; cmds say which. */
	AGENT_OP_UNSHARE,
	/* Put the guard on mappings, or take it off (see above); cmds say which. */
	AGENT_OP_GUARD,
	AGENT_OP_UNGUARD,
	/* What EVICT does, without UFFDIO_MOVE. */
	AGENT_OP_DISCARD,
	/* Pages that the kernel may drop are dropped, or written to so that it may not. */
	AGENT_OP_SETTLE,
};

struct agent_cmd {
	uint64_t addr;
	uint64_t pages; /* evict: 1..AGENT_SLOT_PAGES; else any number */
	uint32_t slot;	/* < AGENT_SLOTS */
	/* answers */
	uint32_t moved;	 /* bit i: page i is out of the program now */
	uint32_t absent; /* bit i: there was no page */
	int32_t error;	 /* errno of the last page that could not be moved */
	/* discard, settle: see pager/discard.c */
	uint64_t again; /* host: where the pages are now; 0: nowhere, or in several places */
	uint32_t go;	/* host: drop them; else have them stay */
	_Atomic uint32_t tried; /* bit i: page i is being marked, or was */
	uint32_t marked;	/* bit i: the kernel may drop page i */
	uint32_t stays;		/* bit i: it is there, and may not be dropped any more */
	uint32_t left;		/* bit i: it is there, and may be dropped still */
};

enum agent_tid {
	AGENT_TID_END = 0,   /* never used; so are all behind it */
	AGENT_TID_BUSY = -1, /* somebody is writing the entry */
	AGENT_TID_FREE = -2, /* its thread is gone; the range is empty */
};

/*
 * A range of addresses that is left alone: some thread stands on it (its stack
 * and its TLS), or the program has said what a child is to find there.
 */
struct agent_thread {
	_Atomic uint64_t start, end;
	_Atomic int32_t tid;	  /* or one of enum agent_tid */
	_Atomic int32_t dontfork; /* the program's own MADV_DONTFORK: no guard of ours */
};

struct agent_shm {
	_Atomic uint32_t command; /* host adds 1: a command is there (futex) */
	_Atomic uint32_t moved;	  /* agent: phase 1 of command number n is over (futex) */
	_Atomic uint32_t done;	  /* agent: phase 2 is over (also told by the eventfd) */
	uint32_t op;
	uint32_t ncmds;
	/*
	 * Before a fork: what is resident then is shared and cannot be evicted
	 * while both processes live, so the host makes room first. The program's
	 * thread adds 1 to `fork_asked` and waits until `fork_ready` has followed
	 * (both futexes); not while the host says that it does not matter.
	 */
	_Atomic uint32_t fork_matters, fork_asked, fork_ready;
	_Atomic uint32_t fork_over; /* careful: forks that were asked for and are over */
	/*
	 * A range that the program wants for a userfaultfd of its own, or (`claim_stays`) of
	 * which all is to be in: it adds 1 to `claim_asked` and waits until `claim_done` has
	 * followed (futex). One at a time.
	 */
	_Atomic uint32_t claim_asked, claim_done, claim_stays;
	_Atomic uint64_t claim_start, claim_end;
	/* discard: commands are marked or undone while `window` is 1, and no fork begins; */
	_Atomic uint32_t go;	/* host: the second half of command number n may begin (futex), */
#define AGENT_AGAIN 0x40000000u /* or is to be tried for the k-th time: n + AGENT_AGAIN + k, */
#define AGENT_TRIES 0x10000u	/* k < AGENT_TRIES */
	_Atomic uint32_t again; /* agent: the `go` that it has tried for last */
	/* host: 1 while it reads events; bit i: mappings have changed where command i is */
	_Atomic uint32_t reading, disturbed;
	_Atomic uint32_t window;  /* agent (futex) */
	_Atomic uint32_t forking; /* threads that are about to fork, or do: no window opens */
	_Atomic int32_t agent_tid;
	_Atomic uint32_t guards; /* agent: the program has guard pages; none is to be filled */
	_Atomic uint32_t frees;	 /* agent: it has used MADV_FREE; see space_frees() */
	struct agent_cmd cmds[AGENT_BATCH];
	struct agent_thread threads[AGENT_THREADS];
	_Alignas(4096) uint8_t slots[AGENT_SLOTS][AGENT_SLOT_BYTES];
};

/* The host's one look at a number that the other side may change at any moment. */
#define agent_answer(x) (*(const volatile __typeof__(x) *)&(x))

#endif
