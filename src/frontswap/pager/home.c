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
 *   AWAY ----- one thread causes most faults, many of them ---> HOME, on its processor
 *   HOME ----- looked in vain more often than not -----------> YIELDING
 *        ----- calm for a while, or faults of many threads --> AWAY
 *   YIELDING - looked in vain still, or no faults at once ---> AWAY, for a pause that
 *                                                              doubles while this goes on
 *
 * At home and yielding it is looked, every LOOK_NS, whether the thread is on another
 * processor, and then the pager goes there, too.
 *
 * In vain: the scheduler carries a thread that is woken to a processor with nothing to do,
 * and its own has the pager. So where processors are idle, the pager *yields*: under
 * SCHED_IDLE it does not count, a processor that has only such threads passes for idle, and
 * the thread stays. Under SCHED_IDLE it would also wait for any other thread of that
 * processor, for milliseconds a fault. But processors are idle, which is why it was looked
 * in vain; and when this is over, it shows as a look without faults, and the pager goes away.
 *
 * Away, the pager runs wherever the host was allowed to at first. Back from SCHED_IDLE the
 * kernel lets only those who may be less nice, too; others do not yield.
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
#define LOOKS	    8u	/* after which hits are counted */
#define STINT_SHORT 64u /* looks: less than that was not worth it */
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
	if (sp->home.state == HOME_AWAY)
		sp->home.state = HOME_HERE;
	return true;
}

static bool set_policy(int policy)
{
	struct sched_param none = {0};

	return sched_setscheduler(0, policy, &none) == 0; /* niceness stays */
}

static void go_away(struct space *sp)
{
	const cpu_set_t *all = &sp->run->allowed;

	/* Should one fail, we are bound where we were: slower, and right. */
	if (sp->home.state == HOME_YIELDING && !set_policy(SCHED_OTHER))
		os_log(OS_LOG_ERROR, "a pager has to stay under SCHED_IDLE");
	else if (sched_setaffinity(0, sizeof(*all), all) == 0)
		sp->home.state = HOME_AWAY;
	sp->home.calm = sp->home.looks = sp->home.hits = sp->home.stint = 0;
}

/* Yielding was not worth it. */
static void pause_for(struct home *h, uint64_t now)
{
	h->next_ns = now + h->pause_ns;
	h->pause_ns = h->pause_ns * 2 < PAUSE_MOST ? h->pause_ns * 2 : PAUSE_MOST;
}

static void calm(struct space *sp, uint64_t now)
{
	struct home *h = &sp->home;
	bool yielding = h->state == HOME_YIELDING, briefly = h->stint < STINT_SHORT;

	if (h->state == HOME_AWAY || (!yielding && ++h->calm < CALM_LOOKS))
		return;
	go_away(sp);
	if (yielding && briefly)
		pause_for(h, now);
	else if (yielding)
		h->pause_ns = PAUSE_LEAST;
}

/* The thread was where we are, or not. */
static void count_look(struct space *sp, bool hit, uint64_t now)
{
	struct home *h = &sp->home;
	bool vain;

	h->calm = 0;
	h->stint++;
	h->hits += hit;
	if (++h->looks < LOOKS)
		return;
	vain = h->hits * 2 <= h->looks;
	h->looks = h->hits = 0;
	if (!vain)
		return;
	if (h->state == HOME_HERE && h->may_yield && set_policy(SCHED_IDLE)) {
		h->state = HOME_YIELDING;
		h->stint = 0;
		return;
	}
	go_away(sp);
	pause_for(h, now);
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
		calm(sp, now);
		return;
	}
	cpu = cpu_of(sp->pid, h->tid);
	if (h->state != HOME_AWAY) {
		count_look(sp, cpu == h->cpu, now);
		if (h->state == HOME_AWAY || cpu == h->cpu)
			return;
	}
	if (cpu < 0 || !bind_to(sp, cpu))
		go_away(sp);
}

void home_note(struct run *r)
{
	if (sched_getaffinity(0, sizeof(r->allowed), &r->allowed) < 0)
		CPU_ZERO(&r->allowed); /* more processors than fit: the pagers stay away */
	r->nice = getpriority(PRIO_PROCESS, 0);
}

bool home_hurry(const struct run *r, int by)
{
	return setpriority(PRIO_PROCESS, (id_t)gettid(), r->nice - by) == 0;
}

void home_init(struct space *sp)
{
	struct home *h = &sp->home;

	*h = (struct home){.state = HOME_AWAY, .pause_ns = PAUSE_LEAST};
	h->alone = CPU_COUNT(&sp->run->allowed) < 2 || sp->run->opts.without & FOLLOW_FAULTS;
	/* A child's pager is begun by its parent's, as that is bound. */
	set_policy(SCHED_OTHER);
	h->may_yield = home_hurry(sp->run, PAGER_HURRY);
	if (!h->alone)
		go_away(sp);
}
