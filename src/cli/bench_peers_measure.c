/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One store, measured in a process of its own.
 *
 *   parent --fork--> child: open, put all, look at the memory, get all, compare
 *                      \--> a server, in the child's process group
 *
 * Why a process: what a store in the same process takes is told from the growth
 * of that process, and only a fresh one has nothing left over from the store
 * before. And a store that crashes ends one line of the table.
 *
 * Batches of 64 pages; members take them in turn. Puts go in order, gets in a
 * scattered order of batches, so that no store gains from having just seen the
 * neighbours. Only the calls are timed: the comparison of what came back is
 * between them. Pages a second are summed over the members, each by its own
 * time.
 *
 * The pages are in a mapping that all processes share; it does not count as
 * the child's own (anonymous) memory.
 */
#include "cli/bench_peers.h"
#include "cli/cli.h"
#include "cli/team.h"
#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEP_NS 2000000ull

struct member {
	uint8_t *to;
	uint64_t pages, busy_ns, cpu_ns;
	int code;
};

struct measure {
	const struct peer_ops *ops;
	const struct peer_setup *setup;
	void *peer;
	uint64_t batches, stride; /* stride and batches have no common divisor */
	bool get;
	struct member member[SERVER_MEMBERS_MAX];
};

/* ---- in the child -------------------------------------------------------------------------- */

static int run_batch(struct measure *m, unsigned me, uint64_t first, unsigned n)
{
	struct member *mine = &m->member[me];
	uint64_t cpu = os_clock_thread_cpu_ns(), start = os_clock_ns();
	int code;

	code = m->get ? m->ops->get(m->peer, me, first, n, mine->to)
		      : m->ops->put(m->peer, me, first, n);
	mine->busy_ns += os_clock_ns() - start;
	mine->cpu_ns += os_clock_thread_cpu_ns() - cpu;
	mine->pages += n;
	if (!code && m->get &&
	    memcmp(mine->to, m->setup->pages + first * PEER_PAGE, (size_t)n * PEER_PAGE) != 0)
		code = -EBADMSG;
	return code;
}

static void job(void *arg, unsigned me)
{
	struct measure *m = arg;
	struct member *mine = &m->member[me];

	mine->pages = mine->busy_ns = mine->cpu_ns = 0;
	for (uint64_t b = me; b < m->batches && !mine->code; b += m->setup->threads) {
		uint64_t at = m->get ? b * m->stride % m->batches : b, first = at * PEER_BATCH;
		uint64_t left = m->setup->count - first;

		mine->code =
			run_batch(m, me, first, left < PEER_BATCH ? (unsigned)left : PEER_BATCH);
	}
}

/* All pages, put or got. Pages a second and processor time a page. */
static int phase(struct measure *m, struct team *team, bool get, double *per_s, double *cpu_ns)
{
	uint64_t others = m->ops->cpu_ns ? m->ops->cpu_ns(m->peer) : 0, cpu = 0;
	int code = 0;

	m->get = get;
	*per_s = 0;
	team_run(team, m->setup->threads, job, m);
	for (unsigned i = 0; i < m->setup->threads; i++) {
		struct member *mine = &m->member[i];

		code = code ? code : mine->code;
		cpu += mine->cpu_ns;
		if (mine->busy_ns)
			*per_s += (double)mine->pages * 1e9 / (double)mine->busy_ns;
	}
	others = m->ops->cpu_ns ? m->ops->cpu_ns(m->peer) - others : 0;
	*cpu_ns = (double)(cpu + others) / (double)m->setup->count;
	return code;
}

static uint64_t memory(const struct measure *m)
{
	return m->ops->memory ? m->ops->memory(m->peer) : peers_rollup(0, "Anonymous:");
}

static int measure(struct measure *m, struct team *team, struct peer_result *r)
{
	uint64_t before = m->ops->memory ? 0 : memory(m), after;
	int code;

	m->peer = m->ops->open(m->setup, r->why, sizeof(r->why));
	if (!m->peer)
		return 0;
	r->measured = true;
	code = phase(m, team, false, &r->put_per_s, &r->put_cpu_ns);
	after = memory(m);
	r->memory_bytes = after > before ? after - before : 0;
	if (!code)
		code = phase(m, team, true, &r->get_per_s, &r->get_cpu_ns);
	m->ops->close(m->peer);
	return code;
}

static void child_main(const struct peer_ops *ops, const struct peer_setup *s,
		       struct peer_result *r)
{
	static struct measure m; /* large */
	static struct team team;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	m = (struct measure){.ops = ops, .setup = s};
	m.batches = (s->count + PEER_BATCH - 1) / PEER_BATCH;
	/* Near the golden section of all: far jumps. */
	m.stride = cli_stride(m.batches, m.batches * 618 / 1000 + 1);
	r->code = team_start(&team, s->threads);
	for (unsigned i = 0; i < s->threads && !r->code; i++) {
		m.member[i].to = os_reserve((size_t)PEER_ROOM * PEER_PAGE);
		r->code = m.member[i].to ? 0 : -ENOMEM;
		if (!r->code)
			memset(m.member[i].to, 1, (size_t)PEER_ROOM * PEER_PAGE);
	}
	if (!r->code)
		r->code = measure(&m, &team, r);
	_exit(0);
}

/* ---- in the parent --------------------------------------------------------------------------- */

/* Until the child has ended, or we are told to stop. */
static int wait_for(pid_t pid)
{
	int status = 0, code = 0;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (box_stopped() && !code) {
			code = -EINTR;
			kill(-pid, SIGKILL);
		}
		os_sleep_ns(STEP_NS);
	}
	return code ? code : status == 0 ? 0 : -ECHILD;
}

/* A device that a child which was ended has left. */
static int remove_device(struct box *box)
{
	int code = box->state->zram >= 0 ? zram_remove(box->state->zram) : 0;

	if (!code)
		box->state->zram = -1;
	return code;
}

int peers_measure(struct box *box, const struct peer_ops *ops, const struct peer_setup *s,
		  struct peer_result *r)
{
	struct peer_result *shared;
	int code, left;
	pid_t pid;

	*r = (struct peer_result){0};
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		return -errno;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		child_main(ops, s, shared);
	}
	code = pid < 0 ? -errno : 0;
	if (!code) {
		setpgid(pid, pid); /* both sides, so that neither has to wait for the other */
		box->state->child = pid;
		code = wait_for(pid);
		kill(-pid, SIGKILL); /* what it left behind */
		box->state->child = 0;
		left = remove_device(box);
		*r = *shared;
		if (code == -ECHILD)
			snprintf(r->why, sizeof(r->why), "the measuring process died");
		code = code ? code : r->code ? r->code : left;
	}
	munmap(shared, sizeof(*shared));
	return code;
}
