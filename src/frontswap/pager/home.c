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
 *   AWAY ----- one thread causes most faults, many of them ---> HOME, on its processor;
 *                                                              YIELDING, if it was before
 *   HOME ----- looked in vain more often than not -----------> YIELDING
 *        ----- calm for a while, or faults of many threads --> AWAY
 *   YIELDING - the same -------------------------------------> AWAY
 *        ----- looked in vain, or starved -------------------> AWAY, for a pause that doubles
 *                                                              while this goes on
 *
 * At home and yielding it is looked, every LOOK_NS, whether the thread is on another
 * processor, and then the pager goes there, too.
 *
 * In vain: the scheduler carries a thread that is woken to a processor with nothing to do,
 * and its own has the pager. So where processors are idle, the pager *yields*: under
 * SCHED_IDLE it does not count, a processor that has only such threads passes for idle, and
 * the thread stays. Under SCHED_IDLE it would also wait for any other thread of that
 * processor, for milliseconds a fault. Processors were idle, or it would not have been looked
 * in vain; but that may change. *Starved*: hardly a fault came while we waited for the
 * processor, and it was not the thread itself that had it.
 *
 * Away, the pager runs wherever the host was allowed to at first. Back from SCHED_IDLE the
 * kernel lets only those who may be less nice, too; others do not yield.
 */
#include "frontswap/pager/run.h"

#include "os/log.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define LOOK_NS	    1000000ull
#define MANY	    8u	/* faults between two looks: a third of the time, at 45 us each */
#define CALM_LOOKS  16u /* with fewer */
#define VOTES_MOST  64u
#define VOTES_MANY  32u
#define LOOKS	    8u /* after which hits are counted */
#define PAUSE_LEAST 50000000ull
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

static bool set_policy(int policy)
{
	struct sched_param none = {0};

	return sched_setscheduler(0, policy, &none) == 0; /* niceness stays */
}

/*
 * A processor whose threads are all under SCHED_IDLE draws whoever is woken: workers, too,
 * who would have it for a round of pages. They stay off it (-1: off none). Where pagers of
 * several processes yield, the last word counts.
 */
static void workers_keep_off(struct run *r, int cpu)
{
	cpu_set_t set = r->allowed;

	if (cpu >= 0)
		CPU_CLR((unsigned)cpu, &set);
	for (unsigned i = 0; i < r->nworkers; i++)
		if (pthread_setaffinity_np(r->workers[i], sizeof(set), &set))
			os_log(OS_LOG_DEBUG, "a worker stays where it may run");
}

static bool begin_to_yield(struct space *sp)
{
	struct home *h = &sp->home;

	if (!h->may_yield || !set_policy(SCHED_IDLE))
		return false;
	h->state = HOME_YIELDING;
	h->queued_ns = 0;
	workers_keep_off(sp->run, h->cpu);
	return true;
}

static bool bind_to(struct space *sp, int cpu)
{
	struct home *h = &sp->home;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((unsigned)cpu, &set);
	if (!CPU_ISSET((unsigned)cpu, &sp->run->allowed) ||
	    sched_setaffinity(0, sizeof(set), &set) < 0)
		return false;
	h->cpu = cpu;
	if (h->state == HOME_YIELDING)
		workers_keep_off(sp->run, cpu);
	else if (h->state == HOME_AWAY && !(h->yields && begin_to_yield(sp)))
		h->state = HOME_HERE;
	return true;
}

static void go_away(struct space *sp)
{
	const cpu_set_t *all = &sp->run->allowed;

	if (sp->home.state == HOME_YIELDING)
		workers_keep_off(sp->run, -1);
	/* Should one fail, we are bound where we were: slower, and right. */
	if (sp->home.state == HOME_YIELDING && !set_policy(SCHED_OTHER))
		os_log(OS_LOG_ERROR, "a pager has to stay under SCHED_IDLE");
	else if (sched_setaffinity(0, sizeof(*all), all) == 0)
		sp->home.state = HOME_AWAY;
	sp->home.calm = sp->home.looks = sp->home.hits = 0;
}

/* Yielding does not go well. */
static void pause_for(struct space *sp, uint64_t now)
{
	struct home *h = &sp->home;

	go_away(sp);
	h->yields = false;
	h->next_ns = now + h->pause_ns;
	h->pause_ns = h->pause_ns * 2 < PAUSE_MOST ? h->pause_ns * 2 : PAUSE_MOST;
}

/* Processor time of a thread, and its time in the queue for one, ns; both 0: not known. */
static void times_of(pid_t pid, pid_t tid, uint64_t *ran, uint64_t *queued)
{
	char path[64], text[128];
	ssize_t n = 0;
	int fd;

	*ran = *queued = 0;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", (int)pid, (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	text[n > 0 ? n : 0] = 0;
	if (sscanf(text, "%" SCNu64 " %" SCNu64, ran, queued) != 2)
		*ran = *queued = 0;
}

/* Since the last look, most of which somebody else had our processor, not the thread. */
static bool starved(struct space *sp, uint64_t now)
{
	struct home *h = &sp->home;
	uint64_t mine, queued, ran, none, since = now - h->looked_ns;
	uint64_t was_queued = h->queued_ns, was_ran = h->ran_ns;

	times_of(getpid(), gettid(), &mine, &queued);
	times_of(sp->pid, h->tid, &ran, &none);
	h->looked_ns = now;
	h->queued_ns = queued;
	h->ran_ns = ran;
	return was_queued && queued - was_queued > since / 2 && ran - was_ran < since / 2;
}

static void calm(struct space *sp)
{
	struct home *h = &sp->home;

	if (h->state != HOME_AWAY && ++h->calm >= CALM_LOOKS)
		go_away(sp);
}

/* The thread was where we are, or not. */
static void count_look(struct space *sp, bool hit, uint64_t now)
{
	struct home *h = &sp->home;
	bool vain;

	h->calm = 0;
	h->hits += hit;
	if (++h->looks < LOOKS)
		return;
	vain = h->hits * 2 <= h->looks;
	h->looks = h->hits = 0;
	if (!vain) {
		if (h->state == HOME_YIELDING)
			h->pause_ns = PAUSE_LEAST;
	} else if (h->state == HOME_HERE && begin_to_yield(sp)) {
		h->yields = true;
	} else {
		pause_for(sp, now);
	}
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
	if (h->state == HOME_YIELDING && starved(sp, now) && faults < MANY) {
		pause_for(sp, now);
		return;
	}
	if (faults < MANY || h->votes < VOTES_MANY) {
		calm(sp);
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

void home_end(struct space *sp)
{
	if (sp->home.state != HOME_AWAY)
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
