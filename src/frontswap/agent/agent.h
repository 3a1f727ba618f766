/* SPDX-License-Identifier: BSD-2-Clause */
/* The agent as its own thread and those who start it see it. */
#ifndef TMEM_AGENT_AGENT_H
#define TMEM_AGENT_AGENT_H

#include "frontswap/agent/discard.h"
#include "frontswap/agent/sys.h"
#include "proto/agent.h"

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define STAGING_BYTES (AGENT_ROUND * AGENT_PAGE)

/* The agent's control page; at the start of its own mapping, after the stack. */
struct agent {
	_Atomic uint32_t state; /* futex: 0 starting, 1 running, 2 failed */
	int32_t error;
	uint32_t kind, flags;
	int32_t pid;
	int sock, uffd, uffd_b, eventfd;
	uint64_t token, space;
	struct sockaddr_un addr;
	socklen_t addrlen;
	char *own, *own_end; /* the whole mapping */
	char *identity, *staging_a, *staging_b;
	struct agent_shm *shm;
	bool no_move; /* no UFFDIO_MOVE here, or none is wanted */
	struct discard discard;
};

static inline void futex_wake(_Atomic uint32_t *word)
{
	sys3(SYS_futex, word, FUTEX_WAKE, 64);
}

/*
 * Start the agent's thread and wait until it serves. Runs in the program's
 * thread, in a fresh image or in the child of a fork: raw system calls only.
 * 0 and *out, or a negative errno.
 */
int agent_start(uint32_t kind, uint64_t token, uint64_t space, bool no_move,
		const struct sockaddr_un *addr, socklen_t addrlen, struct agent **out);

/* move.c: command `seq` of the host, an eviction. The agent's thread alone. */
void move_evict(struct agent *a, uint32_t seq);

#endif
