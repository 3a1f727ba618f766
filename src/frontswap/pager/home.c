/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the pager runs: on the processor that its faults come from.
 *
 * A fault takes two wake-ups, the pager's and then that of the thread that waits for it.
 * Between two processors each is an interrupt to one that has just gone to sleep; in a
 * virtual machine the hypervisor takes part in both, and of 56 us from fault to fault 43
 * were this (docs/figures.md). On one processor it is two switches, and the two never
 * want it at the same time: one waits for the other. Compression goes on beside them.
 *
 * The program's threads are not bound to anything: a program may ask what it is bound to,
 * and its children inherit it. The pager follows them instead:
 *
 *   away --- one thread causes most faults, many of them ---> home, on its processor
 *   home --- every LOOK_NS: the thread is on another processor ---> home there
 *        --- faults are few, or of many threads            ---> away
 *        --- looked in vain more often than not            ---> away, and not again for
 *            a pause, which doubles each time: where processors are idle, the scheduler
 *            carries the thread to one whenever it is woken beside us
 *
 * Away, the pager runs wherever it was allowed to at first.
 */
#include "frontswap/pager/run.h"

#include "os/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define LOOK_NS	    1000000ull
#define MANY	    8u	/* faults between two looks: a third of the time is theirs */
#define CALM_LOOKS  16u /* with fewer */
#define VOTES_MOST  64u
#define VOTES_MANY  32u
#define LOOKS	    32u /* after which hits are counted */
#define PAUSE_LEAST 250000000ull
#define PAUSE_MOST  16000000000ull
#define PAGER_HURRY 10	/* the program waits for it: it goes first where that is allowed */
#define STAT_CPU    36u /* fields of /proc/PID/task/TID/stat behind the state, see proc(5) */

/* The majority, if there is one, of the threads whose faults were read last. */
void home_fault(struct space *sp, pid_t tid)
{
	struct home *h = &sp->home;

	h->faults++;
	if (h->tid == tid)
		h->votes += h->votes < VOTES_MOST;
	else if (h->votes)
		h->votes--;
	else
		h->tid = tid;
}

/* The processor that a thread runs on, or will; -1: it is not to be found. */
static int cpu_of(pid_t pid, pid_t tid)
{
	char path[64], text[512], *at;
	int fd, cpu = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", (int)pid, (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	at = strrchr(text, ')'); /* a name may have any bytes */
	at = at ? strchr(at, ' ') : NULL;
	for (unsigned i = 0; at && i < STAT_CPU; i++)
		at = strchr(at + 1, ' ');
	if (at)
		cpu = atoi(at);
	return cpu < CPU_SETSIZE ? cpu : -1;
}

static bool bind_to(struct space *sp, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((unsigned)cpu, &set);
	if (!CPU_ISSET((unsigned)cpu, &sp->run->allowed) ||
	    sched_setaffinity(0, sizeof(set), &set) < 0)
		return false;
	sp->home.cpu = cpu;
	return true;
}

static void go_away(struct space *sp)
{
	const cpu_set_t *all = &sp->run->allowed;

	/* Should it fail, we are bound where we were: slower, and right. */
	if (sched_setaffinity(0, sizeof(*all), all) == 0)
		sp->home.cpu = -1;
}

/* Counts the look; true: it goes well, or nothing is known yet. */
static bool worth_it(struct home *h, bool hit, uint64_t now)
{
	h->looks++;
	h->hits += hit;
	if (h->looks < LOOKS)
		return true;
	hit = h->hits * 2 > h->looks;
	h->looks = h->hits = 0;
	if (hit) {
		h->pause_ns = PAUSE_LEAST;
		return true;
	}
	h->next_ns = now + h->pause_ns;
	h->pause_ns = h->pause_ns * 2 < PAUSE_MOST ? h->pause_ns * 2 : PAUSE_MOST;
	return false;
}

void home_tick(struct space *sp)
{
	struct home *h = &sp->home;
	uint64_t now = sp->last_tick_ns;
	uint32_t faults = h->faults;
	int cpu;

	if (now < h->next_ns || h->alone)
		return;
	h->next_ns = now + LOOK_NS;
	h->faults = 0;
	if (faults < MANY || h->votes < VOTES_MANY) {
		if (h->cpu >= 0 && ++h->calm >= CALM_LOOKS)
			go_away(sp);
		return;
	}
	h->calm = 0;
	cpu = cpu_of(sp->pid, h->tid);
	if (h->cpu >= 0 && !worth_it(h, cpu == h->cpu, now))
		cpu = -1;
	if (cpu < 0 ? h->cpu >= 0 : cpu != h->cpu && !bind_to(sp, cpu))
		go_away(sp);
}

void home_note(struct run *r)
{
	if (sched_getaffinity(0, sizeof(r->allowed), &r->allowed) < 0)
		CPU_ZERO(&r->allowed); /* more processors than fit: the pagers stay away */
	r->nice = getpriority(PRIO_PROCESS, 0);
}

void home_hurry(const struct run *r, int by)
{
	if (setpriority(PRIO_PROCESS, (id_t)gettid(), r->nice - by) < 0)
		os_log(OS_LOG_DEBUG, "priority is as it was");
}

void home_init(struct space *sp)
{
	struct home *h = &sp->home;

	*h = (struct home){.cpu = -1, .pause_ns = PAUSE_LEAST};
	h->alone = CPU_COUNT(&sp->run->allowed) < 2 || sp->run->opts.without & FOLLOW_FAULTS;
	/* A child's pager is begun by its parent's, wherever that is bound. */
	if (!h->alone)
		go_away(sp);
	home_hurry(sp->run, PAGER_HURRY);
}
