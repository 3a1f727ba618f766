/* SPDX-License-Identifier: BSD-2-Clause */
/* A team of threads that all do the same job on their own part, again and again. */
#ifndef TMEM_CLI_TEAM_H
#define TMEM_CLI_TEAM_H

#include "os/lock.h"
#include "os/thread.h"

#include <stdbool.h>
#include <stdint.h>

#define TEAM_MAX 256

typedef void team_job(void *arg, unsigned member);

struct team {
	os_thread thread[TEAM_MAX]; /* member 0 is the caller and has none */
	unsigned members;	    /* started, the caller included */
	struct os_mutex lock;
	struct os_cond go, done;
	/* under the lock */
	uint64_t round;	     /* raised to start one */
	unsigned active;     /* members of this round: 0 .. active-1 */
	unsigned unfinished; /* of the active ones but the caller */
	bool stop;
	team_job *job;
	void *arg;
};

/* 0 or -errno; on failure there is no team. */
int team_start(struct team *t, unsigned members) __attribute__((warn_unused_result));
/* Run the job on the first `active` members at once; nanoseconds until the last is done. */
uint64_t team_run(struct team *t, unsigned active, team_job *job, void *arg);
void team_stop(struct team *t);

#endif
