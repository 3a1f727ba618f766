/* SPDX-License-Identifier: BSD-2-Clause */
/* See team.h. Threads stay between rounds, so that what they keep per thread is made once. */
#include "cli/team.h"

#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>

struct start {
	struct team *team;
	unsigned member;
};

static void *member_main(void *arg)
{
	struct start *start = arg;
	struct team *t = start->team;
	unsigned me = start->member;
	uint64_t seen = 0;

	os_free(start);
	os_mutex_lock(&t->lock);
	for (;;) {
		team_job *job;
		void *job_arg;

		while (!t->stop && t->round == seen)
			os_cond_wait(&t->go, &t->lock);
		if (t->stop)
			break;
		seen = t->round;
		if (me >= t->active)
			continue;
		job = t->job;
		job_arg = t->arg;
		os_mutex_unlock(&t->lock);
		job(job_arg, me);
		os_mutex_lock(&t->lock);
		if (--t->unfinished == 0)
			os_cond_signal(&t->done);
	}
	os_mutex_unlock(&t->lock);
	return NULL;
}

int team_start(struct team *t, unsigned members)
{
	int code = 0;

	*t = (struct team){.members = 1};
	os_mutex_init(&t->lock, OS_RANK_CLI, "team");
	os_cond_init(&t->go);
	os_cond_init(&t->done);
	for (; t->members < members && !code; t->members += !code) {
		struct start *s = os_alloc(sizeof(*s));

		code = -ENOMEM;
		if (!s)
			break;
		*s = (struct start){t, t->members};
		code = os_thread_create(&t->thread[t->members], "tmem-bench", member_main, s);
		if (code)
			os_free(s);
	}
	if (code)
		team_stop(t);
	return code;
}

uint64_t team_run(struct team *t, unsigned active, team_job *job, void *arg)
{
	uint64_t start = os_clock_ns();

	if (active == 1) {
		job(arg, 0);
		return os_clock_ns() - start;
	}
	os_mutex_lock(&t->lock);
	t->active = active;
	t->unfinished = active - 1;
	t->job = job;
	t->arg = arg;
	t->round++;
	os_cond_broadcast(&t->go);
	os_mutex_unlock(&t->lock);
	job(arg, 0);
	os_mutex_lock(&t->lock);
	while (t->unfinished)
		os_cond_wait(&t->done, &t->lock);
	os_mutex_unlock(&t->lock);
	return os_clock_ns() - start;
}

void team_stop(struct team *t)
{
	unsigned i;

	os_mutex_lock(&t->lock);
	t->stop = true;
	os_cond_broadcast(&t->go);
	os_mutex_unlock(&t->lock);
	for (i = 1; i < t->members; i++)
		os_thread_join(t->thread[i]);
	os_cond_destroy(&t->go);
	os_cond_destroy(&t->done);
	os_mutex_destroy(&t->lock);
}
