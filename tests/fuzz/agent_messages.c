/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: the host of `tmem run`, before a hostile agent (hostile.c, in processes of its own).
 *
 *   input --> hostile program: connections, messages, descriptors, shared memory, its own memory
 *                  |  ^
 *                  v  |
 *             host: all of it, in a thread of this process, over and over the same run
 *
 * After each input the host lives; all of its spaces, handshakes and descriptors of that input
 * are gone soon; it has killed nobody but the program: this process, and one that it started
 * and that has nothing to do with the run, live.
 *
 * TMEM_EVICT=discard: pages leave that way, and not by UFFDIO_MOVE.
 */
#include "frontswap/pager/run.h"
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SOON_MS	  50000 /* less than what ends a run of libFuzzer; the fuzzer is nice to others */
#define INPUT_MAX 8192u

void __wrap_run_abandon(struct run *r);

static int to_hostile = -1, from_hostile, control;
static pid_t hostile, bystander;
static char address[232];
static unsigned descriptors, threads; /* when nobody is connected */
static unsigned long inputs;
static _Atomic unsigned long spaces;

/* A child that nobody knows by number must end: the program does, and not this process. */
void __wrap_run_abandon(struct run *r)
{
	for (DIR *d = opendir("/proc"); d;) {
		const struct dirent *e = readdir(d);
		pid_t pid, up;
		char state;

		if (!e) {
			closedir(d);
			break;
		}
		pid = (pid_t)strtol(e->d_name, NULL, 10);
		up = pid > 0 ? pid : 0;
		for (unsigned i = 0; i < 8 && up > 1 && up != hostile; i++)
			up = maps_parent(up, &state);
		if (up == hostile && pid != hostile)
			kill(pid, SIGKILL);
	}
}

static unsigned count_in(const char *dir)
{
	DIR *d = opendir(dir);
	unsigned n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static void *host_main(void *arg)
{
	static char name[] = "hostile";
	static char *argv[] = {name, NULL};
	const struct keeper none = {0};
	const struct run_options o = {
		.limit_bytes = 64 << 20,
		.codec = "lz4",
		.cluster = 8,
		.argv = argv,
		.evict = *(const bool *)arg ? RUN_EVICT_DISCARD : RUN_EVICT_MOVE,
	};

	run_host(&o, control, &none);
	fuzz_check(!"the host has ended");
	return NULL;
}

/* The supervisor: it holds nothing here, so that what the host has can be counted. */
static void *supervisor_main(void *arg)
{
	int sock = *(int *)arg;
	struct control_message m;

	for (;;) {
		int fd;

		if (peer_recv(sock, &m, sizeof(m), &fd) < 0)
			return NULL;
		if (fd >= 0)
			close(fd);
		if (m.kind == CONTROL_READY)
			memcpy(address, m.text, sizeof(address));
		if (m.kind == CONTROL_HOLD)
			atomic_fetch_add(&spaces, 1);
		fuzz_check(m.kind != CONTROL_FAILED);
	}
}

static void start_hostile(void)
{
	char path[PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 16);
	int in[2], out[2];

	fuzz_check(n > 0);
	path[n] = 0;
	slash = strrchr(path, '/');
	strcpy(slash + 1, "fuzz-hostile");
	fuzz_check(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
	hostile = fork();
	fuzz_check(hostile >= 0);
	if (hostile == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		execl(path, path, address, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	to_hostile = in[1];
	from_hostile = out[0];
}

static void start(bool discard)
{
	static bool way;
	static int pair[2];
	pthread_t t;

	way = discard;
	signal(SIGPIPE, SIG_IGN);
	bystander = fork();
	if (bystander == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	fuzz_check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	control = pair[1];
	fuzz_check(pthread_create(&t, NULL, supervisor_main, &pair[0]) == 0);
	fuzz_check(pthread_create(&t, NULL, host_main, &way) == 0);
	for (unsigned i = 0; i < 1000 && !address[0]; i++)
		usleep(10000);
	fuzz_check(address[0]);
	start_hostile();
	usleep(100000);
	/* The fuzzer has some of its own now and then; what leaks is more than that soon. */
	descriptors = count_in("/proc/self/fd") + 8;
	threads = count_in("/proc/self/task") + 1;
}

/* All that an input has made is gone, or will be in a moment. */
static void nothing_left(void)
{
	struct timespec begun, now;
	unsigned fds, tasks;
	char command[100];

	clock_gettime(CLOCK_MONOTONIC, &begun);
	do {
		usleep(500);
		fds = count_in("/proc/self/fd");
		tasks = count_in("/proc/self/task");
		if (fds <= descriptors && tasks <= threads)
			return;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - begun.tv_sec) * 1000 < SOON_MS);
	fprintf(stderr, "%u descriptors of %u, %u threads of %u\n", fds, descriptors, tasks,
		threads);
	snprintf(command, sizeof(command),
		 "ls -l /proc/%d/fd >&2; grep -H . /proc/%d/task/*/comm >&2", (int)getpid(),
		 (int)getpid());
	if (system(command))
		fprintf(stderr, "ls fails\n");
	fuzz_check(!"descriptors or threads are left");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pollfd p = {.events = POLLIN};
	uint32_t n = (uint32_t)size;
	int ready;
	char done;

	if (size < 2 || size > INPUT_MAX)
		return 0;
	if (to_hostile < 0)
		start(getenv("TMEM_EVICT") && !strcmp(getenv("TMEM_EVICT"), "discard"));
	fuzz_check(write(to_hostile, &n, sizeof(n)) == sizeof(n));
	fuzz_check(write(to_hostile, data, size) == (ssize_t)size);
	p.fd = from_hostile;
	do
		ready = poll(&p, 1, SOON_MS);
	while (ready < 0 && errno == EINTR); /* libFuzzer's alarm */
	if (ready != 1 || read(from_hostile, &done, 1) != 1) {
		int status = 0;
		pid_t ended = waitpid(hostile, &status, WNOHANG);

		fprintf(stderr, "process %d: poll %x, waitpid %d, status %x\n", (int)hostile,
			(unsigned)p.revents, (int)ended, (unsigned)status);
		/* Who it is that does not end, and where. */
		if (system("ps -eLo pid,tid,ppid,pgid,stat,wchan:30,args | grep fuzz-hostil[e] "
			   ">&2"))
			fprintf(stderr, "ps fails\n");
		fuzz_check(!"the hostile program does not answer");
	}
	nothing_left();
	fuzz_check(waitpid(bystander, NULL, WNOHANG) == 0);
	fuzz_check(waitpid(hostile, NULL, WNOHANG) == 0);
	/* The inputs must get somewhere. */
	fuzz_check(++inputs < 2000 || atomic_load(&spaces) > 0);
	return 0;
}
