/* SPDX-License-Identifier: BSD-2-Clause */
/* What the agent's parts in the program's own threads share; they are in libc's world. */
#ifndef TMEM_AGENT_INSIDE_H
#define TMEM_AGENT_INSIDE_H

#include "proto/agent.h"

/*
 * The memory shared with the host; NULL in a child that libc does not know of
 * (a fork by system call): it has no agent, and the mapping is not there.
 */
struct agent_shm *threads_shm(void);

/*
 * The marks of a fork, see proto/agent.h. Between the two a careful host has
 * everything in the program and no guard on a mapping.
 */
void before_fork(void);
void after_fork_in_parent(void);

/* Once, when the agent serves: what programs are started with is completed from now on. */
void exec_init(const char *socket);

#endif
