/* SPDX-License-Identifier: BSD-2-Clause */
/* The agent's part of eviction on kernels without UFFDIO_MOVE; see pager/discard.c. */
#ifndef TMEM_AGENT_DISCARD_H
#define TMEM_AGENT_DISCARD_H

#include "proto/agent.h"

/* In the agent's own memory; the descriptors are in its thread's own table. */
struct discard {
	int uffd;    /* the program's, not ours to close */
	int in, out; /* a pipe: what lies in it the kernel does not drop */
	int pagemap;
	uint32_t futex; /* nobody waits for it */
};

/* All of these are for the agent's thread, and enter no library. */

/* 0 or a negative errno. */
long discard_open(struct discard *d, int uffd);

/* First half of a round: take hold of the pages, and allow the kernel to drop them. Waits, for
 * each command, until the host has read an event. */
void discard_mark(struct discard *d, struct agent_shm *shm);

/* Before it, any number of times: pages that stay are written to where they are now; while the pipe
 * holds them, so that what is missing there the program has emptied. Waits for nobody. */
void discard_again(struct discard *d, struct agent_shm *shm);

/* Second half, after the host's answer: pages to their slots; those that go are dropped. Waits
 * for nobody. */
void discard_finish(struct discard *d, struct agent_shm *shm);

/* AGENT_OP_SETTLE. Waits for nobody. */
void discard_settle(struct discard *d, struct agent_shm *shm);

#endif
