/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent's side in the program's own threads: its start, forks, and what the program
 * tells the kernel that the host has to know as well.
 */
#include "frontswap/agent/agent.h"
#include "frontswap/agent/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUARD_INSTALL 102 /* MADV_, Linux 6.13 */

/* Of the program's memory, used by its own threads only. */
static struct agent *agent;
static struct agent_shm *agent_threads_shm;
/* What the program has, or has done: set before the first is there, and a child has it, too. */
static _Atomic uint32_t guards, frees;

struct agent_shm *threads_shm(void)
{
	return agent_threads_shm && agent->pid == (int32_t)sys3(SYS_getpid, 0, 0, 0)
		       ? agent_threads_shm
		       : NULL;
}

const struct agent *agent_here(void)
{
	return threads_shm() ? agent : NULL;
}

/*
 * In the program's thread: have the host make room (see proto/agent.h), not for
 * ever; or, without fork events, bring everything back, for as long as it takes.
 */
static void make_room_for_fork(void)
{
	struct agent_shm *shm = threads_shm();
	bool careful = shm && agent->flags & AGENT_CAREFUL;
	struct timespec timeout = {careful ? 0 : 2, careful ? 5000000 : 0};
	uint32_t mine, seen;

	if (!shm || (!careful && !atomic_load(&shm->fork_matters)))
		return;
	mine = atomic_fetch_add(&shm->fork_asked, 1) + 1;
	do {
		futex_wake(&shm->command); /* the agent's thread passes it on */
		seen = atomic_load(&shm->fork_ready);
		if ((int32_t)(seen - mine) >= 0)
			return;
	} while (sys4(SYS_futex, &shm->fork_ready, FUTEX_WAIT, seen, &timeout) != -ETIMEDOUT ||
		 careful);
}

void before_fork(void)
{
	struct agent_shm *shm = threads_shm();

	make_room_for_fork();
	if (!shm || !agent->no_move)
		return;
	atomic_fetch_add(&shm->forking, 1); /* no new window; and the end of one that is open */
	while (atomic_load(&shm->window))
		sys4(SYS_futex, &shm->window, FUTEX_WAIT, 1, NULL);
}

void after_fork_in_parent(void)
{
	struct agent_shm *shm = threads_shm();

	if (shm && agent->no_move)
		atomic_fetch_sub(&shm->forking, 1);
	if (!shm || !(agent->flags & AGENT_CAREFUL))
		return;
	atomic_fetch_add(&shm->fork_over, 1);
	futex_wake(&shm->command); /* the agent's thread passes it on */
}

static void after_fork_in_child(void)
{
	struct agent *parent = agent;
	struct agent *a = NULL;
	uint32_t kind = AGENT_FORK;
	uint64_t space;

	agent_threads_shm = NULL;
	if (!parent || atomic_load(&parent->state) != 1)
		return;
	/* The parent never touches this page, so our first look at it is a
	 * fault on our own userfaultfd: the host answers with our name. */
	space = *(volatile uint64_t *)(void *)parent->identity;
	if (parent->flags & AGENT_CAREFUL) { /* all is here, and nothing is registered */
		space = parent->space;
		kind = AGENT_EXEC;
	}
	if (!space) /* nobody holds our userfaultfd: what is out would read as zeros, too */
		sys3(SYS_kill, sys3(SYS_getpid, 0, 0, 0), SIGKILL, 0);
	if (agent_start(kind, parent->token, space, parent->no_move, &parent->addr, parent->addrlen,
			&a) == 0) {
		agent = a;
		agent_threads_shm = a->shm;
		atomic_store(&a->shm->guards, atomic_load(&guards));
		atomic_store(&a->shm->frees, atomic_load(&frees));
		publish_main_thread();
		publish_wiped();
	} else {
		/* Faults are served all the same; only nothing can be evicted here. */
		agent = NULL;
	}
}

/*
 * Of pages that become guards (Linux 6.13) the host is told nothing. So they are emptied then, of
 * which it is; and made guards once more, for it may have brought some back in between. Where the
 * kernel refuses, all is as it was.
 */
static int guard_install(void *addr, size_t len)
{
	long r = sys3(SYS_madvise, addr, 0, GUARD_INSTALL); /* whether it knows of them */

	if (r == 0) {
		atomic_store(&guards, 1);
		atomic_store(&threads_shm()->guards, 1);
		r = sys3(SYS_madvise, addr, len, GUARD_INSTALL);
	}
	if (r == 0) {
		sys3(SYS_madvise, addr, len, MADV_DONTNEED);
		r = sys3(SYS_madvise, addr, len, GUARD_INSTALL);
	}
	if (r < 0)
		errno = (int)-r;
	return r < 0 ? -1 : 0;
}

/*
 * A child must find wiped pages where it was told so, not what we would bring
 * back: such ranges stay where they are. Pages that are out come in first, by the
 * host's books: what is on its way out is still there, and what came back may not
 * be known to. What it is not to have at all must be told from what has our guard.
 */
__attribute__((visibility("default"))) int madvise(void *addr, size_t len, int advice)
{
	char *end = (char *)addr + len;
	long r;

	if (advice == MADV_WIPEONFORK)
		remember_wiped((uintptr_t)addr, (uintptr_t)end);
	if (advice == MADV_WIPEONFORK && threads_shm()) {
		publish((uintptr_t)addr, (uintptr_t)end, (int32_t)sys3(SYS_getpid, 0, 0, 0), false);
		claim(threads_shm(), (uintptr_t)addr, (uintptr_t)end, true);
	}
	if (advice == MADV_FREE && threads_shm()) {
		atomic_store(&frees, 1);
		atomic_store(&threads_shm()->frees, 1);
	}
	if (advice == GUARD_INSTALL && threads_shm())
		return guard_install(addr, len);
	if ((advice == MADV_DONTFORK || advice == MADV_DOFORK) && threads_shm() &&
	    agent->flags & AGENT_CAREFUL) {
		/* Between the marks of a fork: no guard of ours is on then, or comes off. */
		before_fork();
		r = sys3(SYS_madvise, addr, len, advice);
		if (r == 0)
			publish((uintptr_t)addr, (uintptr_t)end, (int32_t)sys3(SYS_getpid, 0, 0, 0),
				advice == MADV_DONTFORK);
		after_fork_in_parent();
	} else {
		r = sys3(SYS_madvise, addr, len, advice);
	}
	if (r < 0)
		errno = (int)-r;
	return r < 0 ? -1 : 0;
}

/* Chromium's zygote ends itself when it finds that it has a second thread. */
static bool one_thread_only(void)
{
	char line[4096];
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, line, sizeof(line)) : 0;

	if (fd >= 0)
		close(fd);
	return n > 0 && memmem(line, (size_t)n, AGENT_ONE_THREAD, sizeof(AGENT_ONE_THREAD));
}

static void complain_and_exit(int error)
{
	static const char text[] = "tmem run: this program cannot be managed: ";
	const char *why = strerror(-error);

	if (write(2, text, sizeof(text) - 1) < 0 || write(2, why, strlen(why)) < 0 ||
	    write(2, "\n", 1) < 0)
		_exit(126);
	_exit(126);
}

__attribute__((constructor)) static void agent_init(void)
{
	const char *env = getenv(AGENT_ENV);
	const char *colon = env ? strrchr(env, ':') : NULL;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t name;
	int r;

	if (!colon || one_thread_only())
		return;
	name = (size_t)(colon - env);
	if (name == 0 || name > sizeof(addr.sun_path) - 2)
		return;
	memcpy(addr.sun_path + 1, env, name); /* abstract: the first byte is 0 */
	r = agent_start(AGENT_EXEC, strtoull(colon + 1, NULL, 16), 0,
			strstr(colon, AGENT_DISCARD) != NULL, &addr,
			(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + name), &agent);
	if (r == -ECONNREFUSED || r == -ENOENT) {
		/* The run is over, or this is another network namespace, or it may not make a
		 * userfaultfd, as the first could: the program has its memory to itself and
		 * nothing is out. */
		agent = NULL;
		return;
	}
	if (r < 0)
		complain_and_exit(r);
	agent_threads_shm = agent->shm;
	publish_main_thread();
	exec_init(env);
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}
