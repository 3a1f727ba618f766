/* SPDX-License-Identifier: BSD-2-Clause */
/* What the agent's parts in the program's own threads share; they are in libc's world. */
#ifndef TMEM_AGENT_INSIDE_H
#define TMEM_AGENT_INSIDE_H

#include "frontswap/agent/agent.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The memory shared with the host; NULL in a child that libc does not know of
 * (a fork by system call): it has no agent, and the mapping is not there.
 */
struct agent_shm *threads_shm(void);
/* The same of the agent itself. */
const struct agent *agent_here(void);

/*
 * The marks of a fork, see proto/agent.h. Between the two a careful host has
 * everything in the program and no guard on a mapping.
 */
void before_fork(void);
void after_fork_in_parent(void);

/* claim.c: have all of [start, end) come in; without `stays` the host lets go of it, too. */
void claim(struct agent_shm *shm, uint64_t start, uint64_t end, bool stays);

/* threads.c */
/* Have [start, end) left alone for as long as the thread tid lives. */
void publish(uint64_t start, uint64_t end, int32_t tid, bool dontfork);
/* Where the calling thread stands that pthread_create() has not made. */
void publish_main_thread(void);
/* A child is to find [start, end) empty. Before the kernel knows of it: a fork by another
 * thread may be under way. */
void remember_wiped(uint64_t start, uint64_t end);
/* In a child: what its parent had left alone for that. */
void publish_wiped(void);

/* Once, when the agent serves: what programs are started with is completed from now on. */
void exec_init(const char *socket);

#endif
