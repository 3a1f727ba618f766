/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eviction without UFFDIO_MOVE. All of it is called by the space's own pager
 * thread, and does nothing in a space that has UFFDIO_MOVE (but where said).
 */
#ifndef TMEM_PAGER_DISCARD_H
#define TMEM_PAGER_DISCARD_H

#include "frontswap/pager/run.h"

/*
 * First half of a round whose commands are in shm: sends it, reads events until
 * the marks are made, and says what is to go. False: the process ended, or is
 * ended. Afterwards cmds[].moved says what is in the pipe, and so will be in the
 * slots, as it does for AGENT_OP_EVICT.
 */
bool discard_mark(struct space *sp, uint32_t ncmds);

/*
 * After the second half: what is still in the program is RESIDENT again. False:
 * not yet, for the agent is at it, or events are under way; with force that is
 * no reason, and what cannot be told then is taken for gone (E3). True where no
 * round is under way.
 */
bool discard_settled(struct space *sp, bool force);

/* Whether a round waits for nothing but that events are read. */
bool discard_blocked(const struct space *sp);

/* Before and after events are read: the agent, which has made a mark, waits for what they say. */
void discard_reads(struct space *sp, bool on);
/* An event of the program that changed what is at [start, end), or its children. */
void discard_changed(struct space *sp, uint64_t start, uint64_t end);
/* A REMOVE event. True: it may be our own, and is dealt with. */
bool discard_removed(struct space *sp, uint64_t start, uint64_t end);
/* A fault. True: it was the agent's, and is dealt with. */
bool discard_fault(struct space *sp, uint64_t addr, uint32_t tid);

/*
 * A page that the store refused, before it is copied back to addr: 0, it is not
 * there; 1, it is, and the kernel will not drop it; -EAGAIN, not now; -ESRCH.
 */
int discard_hold(struct space *sp, uint64_t addr);

/*
 * A page that is OUT comes back to addr, for whoever still looks at a memory that
 * is given up; the store keeps it. False: EAGAIN. Where there is no UFFDIO_POISON.
 */
bool discard_put_back(struct space *sp, uint32_t area, uint64_t page, uint64_t addr);

/* probe_discard.c: whether the kernel does what this needs; else why not, in *why. */
bool discard_probe(const char **why);

#endif
