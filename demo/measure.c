/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem-measure: run a program and watch the memory of its process tree.
 *
 *   tmem-measure [--interval MS] [--report FILE] -- PROGRAM ARG...
 *
 * Every MS milliseconds (default 10) it sums RssAnon of /proc/PID/status over
 * the program and all its descendants, orphans included (it is their
 * subreaper). It depends on nothing of tmem, so it can be used to check what
 * tmem says of itself. The report is flat JSON:
 *
 *   wall_s, cpu_s         elapsed; user and system time of all that ended
 *   peak_anon_bytes       largest sum of RssAnon at one sample
 *   peak_one_bytes        largest RssAnon of a single process
 *   peak_shmem_bytes      largest RssShmem of a single process
 *   peak_hwm_bytes        largest VmHWM of a single process (file pages too)
 *   samples, max_gap_ms   how often it really looked
 *   processes             most at one time
 *   status                exit code, or 128 + signal
 *
 * Pages that a fork shares are counted in both processes. SIGINT, SIGTERM and
 * SIGHUP are passed to the program, which is killed 10 s later; what is left of the tree when the
 * program has ended is killed. Exit code: the program's; 128+n; 126/127 as a shell's.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TREE_MAX 4096
#define GRACE_S	 10

struct peaks {
	uint64_t anon, one, shmem, hwm; /* bytes */
	uint64_t samples, processes;
	double max_gap_s;
};

static volatile sig_atomic_t passed_signal;
static pid_t child;

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void on_signal(int sig)
{
	passed_signal = sig;
	if (child > 0)
		kill(child, sig);
}

/* A small /proc file as a string; length, or -1. */
static ssize_t slurp(const char *path, char *buf, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, buf, room - 1);
	close(fd);
	if (n >= 0)
		buf[n] = 0;
	return n;
}

static uint64_t status_bytes(const char *status, const char *key)
{
	const char *p = strstr(status, key);

	return p ? strtoull(p + strlen(key), NULL, 10) * 1024 : 0;
}

/* Parent of pid by /proc/PID/stat; 0 when it has gone. The name in it may hold anything. */
static pid_t parent_of(pid_t pid)
{
	char path[64], buf[512], *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (slurp(path, buf, sizeof(buf)) <= 0 || !(p = strrchr(buf, ')')) || strlen(p) < 5)
		return 0;
	return (pid_t)strtol(p + 4, NULL, 10);
}

/* All descendants of this process; count. One pass over /proc, then closure. */
static int tree(pid_t pids[TREE_MAX])
{
	static pid_t all[32768], parent[32768];
	static char in[32768];
	struct dirent *e;
	DIR *d = opendir("/proc");
	int n = 0, found = 0, more = 1;

	if (!d)
		return 0;
	while ((e = readdir(d)) && n < 32768)
		if (isdigit((unsigned char)e->d_name[0])) {
			all[n] = (pid_t)strtol(e->d_name, NULL, 10);
			in[n] = 0;
			parent[n] = parent_of(all[n]);
			n++;
		}
	closedir(d);
	while (more) {
		more = 0;
		for (int i = 0; i < n; i++) {
			int mine = parent[i] == getpid();

			for (int k = 0; k < found && !mine && !in[i]; k++)
				mine = pids[k] == parent[i];
			if (in[i] || !mine || found == TREE_MAX)
				continue;
			in[i] = 1;
			pids[found++] = all[i];
			more = 1;
		}
	}
	return found;
}

/* Looking through all of /proc is dear: the tree is read anew at most every 20 ms. */
static void sample(struct peaks *pk)
{
	static pid_t pids[TREE_MAX];
	static int n;
	static double tree_read;
	char path[64], buf[4096];
	uint64_t anon = 0, v;

	if (!n || now_s() - tree_read > 0.02) {
		n = tree(pids);
		tree_read = now_s();
	}
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "/proc/%d/status", (int)pids[i]);
		if (slurp(path, buf, sizeof(buf)) <= 0)
			continue;
		v = status_bytes(buf, "RssAnon:");
		anon += v;
		pk->one = v > pk->one ? v : pk->one;
		v = status_bytes(buf, "RssShmem:");
		pk->shmem = v > pk->shmem ? v : pk->shmem;
		v = status_bytes(buf, "VmHWM:");
		pk->hwm = v > pk->hwm ? v : pk->hwm;
	}
	pk->anon = anon > pk->anon ? anon : pk->anon;
	pk->processes = (uint64_t)n > pk->processes ? (uint64_t)n : pk->processes;
	pk->samples++;
}

static void start(char **argv)
{
	child = fork();
	if (child < 0) {
		fprintf(stderr, "tmem-measure: fork: %s\n", strerror(errno));
		exit(126);
	}
	if (child)
		return;
	execvp(argv[0], argv);
	fprintf(stderr, "tmem-measure: %s: %s\n", argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* Samples until the program ends; its wait status. */
static int watch(struct peaks *pk, double interval_s)
{
	struct timespec pause = {0, (long)(interval_s * 1e9)};
	double last = now_s(), told = 0, t;
	int status;
	pid_t pid;

	for (;;) {
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			if (pid == child)
				return status;
		sample(pk);
		t = now_s();
		pk->max_gap_s = t - last > pk->max_gap_s ? t - last : pk->max_gap_s;
		last = t;
		/* A program that was told to end has a while for it. */
		if (passed_signal && told == 0)
			told = t;
		if (told > 0 && t - told > GRACE_S)
			kill(child, SIGKILL);
		nanosleep(&pause, NULL);
	}
}

/* The subreaper's duty: nothing that the program left behind stays. */
static void end_rest(void)
{
	static pid_t pids[TREE_MAX];
	int n;

	for (int round = 0; round < 100 && (n = tree(pids)) > 0; round++) {
		for (int i = 0; i < n; i++)
			kill(pids[i], SIGKILL);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		usleep(5000);
	}
}

static int report(const char *path, const struct peaks *pk, double wall_s, int code)
{
	struct rusage ru;
	FILE *f = fopen(path, "w");

	if (!f) {
		fprintf(stderr, "tmem-measure: %s: %s\n", path, strerror(errno));
		return -1;
	}
	getrusage(RUSAGE_CHILDREN, &ru);
	fprintf(f,
		"{\n\"wall_s\": %.3f,\n\"cpu_s\": %.3f,\n\"peak_anon_bytes\": %llu,\n"
		"\"peak_one_bytes\": %llu,\n\"peak_shmem_bytes\": %llu,\n\"peak_hwm_bytes\": "
		"%llu,\n"
		"\"samples\": %llu,\n\"max_gap_ms\": %.1f,\n\"processes\": %llu,\n\"status\": "
		"%d\n}\n",
		wall_s,
		(double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
			(double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6,
		(unsigned long long)pk->anon, (unsigned long long)pk->one,
		(unsigned long long)pk->shmem, (unsigned long long)pk->hwm,
		(unsigned long long)pk->samples, pk->max_gap_s * 1e3,
		(unsigned long long)pk->processes, code);
	return fclose(f);
}

static void usage(void)
{
	fprintf(stderr, "usage: tmem-measure [--interval MS] [--report FILE] -- PROGRAM ARG...\n");
	exit(2);
}

int main(int argc, char **argv)
{
	const char *file = NULL;
	double interval_s = 0.01, t0, wall_s;
	struct peaks pk = {0};
	int i, status, code;

	for (i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		if (!strcmp(argv[i], "--interval") && i + 1 < argc)
			interval_s = atof(argv[++i]) / 1e3;
		else if (!strcmp(argv[i], "--report") && i + 1 < argc)
			file = argv[++i];
		else
			usage();
	}
	if (i + 1 >= argc || interval_s < 0.0005 || interval_s > 0.9)
		usage();
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	t0 = now_s();
	start(argv + i + 1);
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGHUP, on_signal);
	status = watch(&pk, interval_s);
	wall_s = now_s() - t0;
	end_rest();
	code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	if (file && report(file, &pk, wall_s, code) != 0)
		code = code ? code : 1;
	return code;
}
