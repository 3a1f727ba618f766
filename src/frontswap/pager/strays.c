/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processes of the program that no agent speaks for.
 *
 * Some cannot carry one (statically linked, set-uid), some lost it (a cleaned
 * environment), some must not have one (a zygote, which may have one thread
 * only), some were forked past libc. They run untouched, with all their memory;
 * but that memory is the program's, so it counts, and the user is told once for
 * each executable. Nothing else would notice: the limit would seem to hold.
 *
 * Every process on the machine is looked at, twice a second at most and never
 * for more than a hundredth of the time. A process that is just starting has no
 * agent yet, and one between vfork and exec shows its parent's memory: so only
 * those count that two looks in a row have found.
 */
#include "frontswap/pager/run.h"

#include "os/clock.h"
#include "os/file.h"
#include "os/mem.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_NS	   500000000ull
#define MOST	   32768u
#define MOST_TOLD  8u
#define MOST_STRAY 1024u

#define LOOKS_COUNTED 2u
#define LOOKS_TOLD    8u /* on a busy machine a handshake takes its time */

struct process {
	pid_t pid, parent;
	bool ours;
};

struct stray {
	pid_t pid;
	unsigned looks; /* in a row that have found it */
};

static uint32_t all_processes(struct process *p)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	uint32_t n = 0;

	while (d && n < MOST && (e = readdir(d))) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10), parent;
		char state = 0;

		if (pid <= 0)
			continue;
		parent = maps_parent(pid, &state);
		/* A zombie has no memory. */
		p[n++] = (struct process){pid, state != 'Z' ? parent : 0, false};
	}
	if (d)
		closedir(d);
	return n;
}

static int by_pid(const void *a, const void *b)
{
	const struct process *x = a, *y = b;

	return (x->pid > y->pid) - (x->pid < y->pid);
}

/* Those that descend from the supervisor, but us. */
static void mark_ours(struct process *p, uint32_t n, pid_t supervisor)
{
	qsort(p, n, sizeof(*p), by_pid);
	for (bool more = true; more;) {
		more = false;
		for (uint32_t i = 0; i < n; i++) {
			const struct process key = {.pid = p[i].parent}, *up;

			if (p[i].ours || !p[i].parent || p[i].pid == getpid())
				continue;
			up = bsearch(&key, p, n, sizeof(*p), by_pid);
			p[i].ours = p[i].parent == supervisor || (up && up->ours);
			more |= p[i].ours;
		}
	}
}

static bool has_space(struct run *r, pid_t pid)
{
	bool found = false;

	os_mutex_lock(&r->lock);
	for (struct space *sp = r->spaces; sp && !found; sp = sp->next)
		found = atomic_load(&sp->pid) == pid;
	os_mutex_unlock(&r->lock);
	return found;
}

/* A file of /proc/PID holds a text. */
static bool proc_holds(pid_t pid, const char *file, const char *what)
{
	char path[64], *text;
	size_t len = 0;
	bool holds;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	text = os_file_slurp(path, 4 << 20, &len);
	holds = text && memmem(text, len, what, strlen(what));
	os_free(text);
	return holds;
}

/* *sure: it will not have an agent a moment later. NULL: it is about to end. */
static const char *reason(pid_t pid, bool *sure)
{
	static char text[128];
	char path[64];
	const char *why;

	*sure = true;
	if (proc_holds(pid, "cmdline", AGENT_ONE_THREAD))
		return "it is a zygote, which may have one thread only";
	*sure = false;
	if (proc_holds(pid, "maps", "libtmem-agent.so"))
		return "it may not make a userfaultfd, or was forked past libc, or by a process "
		       "that is not managed";
	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	why = probe_unloadable(path);
	*sure = why != NULL;
	if (why) {
		snprintf(text, sizeof(text), "it %s", why);
		return text;
	}
	if (!proc_holds(pid, "environ", "=")) /* it ends just now */
		return NULL;
	if (!proc_holds(pid, "environ", AGENT_ENV))
		return "it was started with an environment without " AGENT_ENV;
	return "LD_PRELOAD was taken from its environment, or is ignored in it";
}

/* Once for each executable. `sure_only`: it may be in the middle of a handshake. */
static void tell(pid_t pid, bool sure_only)
{
	static char told[MOST_TOLD][256];
	static unsigned ntold;
	char path[64], exe[256];
	const char *why;
	ssize_t n;
	bool sure;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	n = readlink(path, exe, sizeof(exe) - 1);
	if (n <= 0 || ntold == MOST_TOLD)
		return;
	exe[n] = 0;
	for (unsigned i = 0; i < ntold; i++)
		if (!strcmp(told[i], exe))
			return;
	why = reason(pid, &sure);
	if (!why || (sure_only && !sure))
		return;
	memcpy(told[ntold++], exe, sizeof(exe));
	fprintf(stderr,
		"tmem run: %s (process %d) is not managed: %s; its memory counts and stays\n", exe,
		(int)pid, why);
}

void strays_look(struct run *r)
{
	static struct process p[MOST];
	static struct stray before[MOST_STRAY], now[MOST_STRAY];
	static uint32_t nbefore;
	static uint64_t next_ns;
	uint64_t begun = os_clock_ns(), bytes = 0;
	uint32_t n, strays = 0, counted = 0;

	if (begun < next_ns)
		return;
	n = all_processes(p);
	mark_ours(p, n, r->supervisor);
	for (uint32_t i = 0; i < n && strays < MOST_STRAY; i++) {
		unsigned looks = 1;

		if (!p[i].ours || has_space(r, p[i].pid))
			continue;
		for (uint32_t k = 0; k < nbefore; k++)
			if (before[k].pid == p[i].pid)
				looks = before[k].looks + 1;
		now[strays++] = (struct stray){p[i].pid, looks};
		if (looks < LOOKS_COUNTED)
			continue;
		counted++;
		bytes += maps_pss_anon(p[i].pid);
		if (looks == LOOKS_COUNTED || looks == LOOKS_TOLD)
			tell(p[i].pid, looks == LOOKS_COUNTED);
	}
	memcpy(before, now, strays * sizeof(*now));
	nbefore = strays;
	atomic_store(&r->stray_bytes, bytes);
	if (counted > r->peak_strays)
		r->peak_strays = counted;
	if (bytes > r->peak_stray_bytes)
		r->peak_stray_bytes = bytes;
	next_ns = os_clock_ns() + 100 * (os_clock_ns() - begun);
	if (next_ns < begun + LOOK_NS)
		next_ns = begun + LOOK_NS;
}
