/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * e2e-fsx MOUNT SOURCE OPERATIONS SEED [THREADS [TTL_MS [KILL_COMMAND]]]
 *
 * The checker's frame: threads, the process that changes the source, and, with KILL_COMMAND, one
 * that runs it again and again: it ends the mount's process, and mounts anew. A failure names the
 * seed; it replays the same operations of each thread, not their interleaving. Exit code 1.
 */
#include "fsx.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct world *world;
const char *mount_dir, *source_dir;
uint64_t seed, ttl_ns;
bool kills;
static const char *kill_command;
static uint64_t operations;
static unsigned nthreads = 4;

static const char *const kind[C_KINDS] = {
	[C_READ] = "read",
	[C_WRITE] = "write",
	[C_TRUNCATE] = "truncate",
	[C_MAP_READ] = "read mapped",
	[C_MAP_WRITE] = "write mapped",
	[C_PUNCH] = "punch",
	[C_COPY] = "copy",
	[C_RENAME] = "rename",
	[C_UNLINK] = "unlink",
	[C_REOPEN] = "open",
	[C_SOURCE] = "compare source",
	[C_APPEND] = "append",
	[C_FOREIGN_OPEN] = "open foreign",
	[C_FOREIGN_READ] = "read foreign",
	[C_FOREIGN_NEWER] = "blocks newer than the open",
	[C_FOREIGN_TORN] = "blocks under change",
	[C_DEATHS] = "deaths met",
};

uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

uint64_t rnd(struct worker *w, uint64_t n)
{
	w->rng += 0x9e3779b97f4a7c15ull;
	return mix(w->rng) % n;
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void fail(const struct worker *w, const char *fmt, ...)
{
	va_list ap;

	/* The first one counts. */
	if (!atomic_exchange(&world->failed, true)) {
		fprintf(stderr,
			"FAILED: seed %llu, thread %u, operation %llu: ", (unsigned long long)seed,
			w ? w->number : 999u, (unsigned long long)(w ? w->op : 0));
		va_start(ap, fmt);
		vfprintf(stderr, fmt, ap);
		va_end(ap);
		fputc('\n', stderr);
	}
	_exit(1);
}

bool is_death(struct worker *w, int err)
{
	return kills && (err == ENOTCONN || err == ECONNABORTED || err == EIO || err == ENXIO ||
			 err == ENOENT || err == ESTALE || err == EINTR || err == ENODEV);
}

void must(struct worker *w, const char *what)
{
	int err = errno;

	if (!is_death(w, err))
		fail(w, "%s: %s", what, strerror(err));
	w->count[C_DEATHS]++;
	foreign_close(w);
	/* Until it is there again, and this file system's: the mark is only in the source. */
	for (;;) {
		char path[600];
		struct stat st;

		if (atomic_load(&world->stop))
			break;
		snprintf(path, sizeof(path), "%s/mark", mount_dir);
		if (!(atomic_load(&world->deaths) & 1) && stat(path, &st) == 0)
			break;
		usleep(2000);
	}
	own_reopen(w);
}

void forget(struct worker *w, int fd)
{
	if (rnd(w, 3) == 0)
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

int path_open(const char *dir, const char *name, int flags)
{
	char path[600];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return open(path, flags | O_CLOEXEC, 0644);
}

/* A death in the middle of a read ends it early, and only the next one is told. */
ssize_t read_all(int fd, void *buf, size_t n, off_t offset)
{
	size_t got = 0;

	while (got < n) {
		ssize_t k = pread(fd, (char *)buf + got, n - got, offset + (off_t)got);

		if (k < 0)
			return -1;
		if (!k)
			break;
		got += (size_t)k;
	}
	return (ssize_t)got;
}

ssize_t write_all(int fd, const void *buf, size_t n, off_t offset)
{
	size_t done = 0;

	while (done < n) {
		ssize_t k = pwrite(fd, (const char *)buf + done, n - done, offset + (off_t)done);

		if (k <= 0)
			return -1;
		done += (size_t)k;
	}
	return (ssize_t)done;
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (; w->op < operations / nthreads; w->op++) {
		if (rnd(w, 2))
			own_operation(w);
		else
			foreign_operation(w);
	}
	foreign_close(w);
	return NULL;
}

/* ---- deaths ----------------------------------------------------------------------------- */

static void *kill_all(void *arg)
{
	struct worker w = {.rng = mix(seed ^ 77)};

	while (!atomic_load(&world->stop)) {
		/* Time for reads and writes between two deaths, at moments that nothing chooses. */
		usleep(100000 + (useconds_t)rnd(&w, 900000));
		atomic_fetch_add(&world->deaths, 1);
		if (system(kill_command)) {
			fprintf(stderr, "the mount cannot be made again\n");
			_exit(1);
		}
		atomic_fetch_add(&world->deaths, 1);
	}
	return arg;
}

/* ---- the whole -------------------------------------------------------------------------- */

static pid_t start_changer(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		foreign_change_all();
		_exit(0);
	}
	return pid;
}

static void say(struct worker *all)
{
	uint64_t n[C_KINDS] = {0};

	for (unsigned i = 0; i < nthreads; i++)
		for (unsigned k = 0; k < C_KINDS; k++)
			n[k] += all[i].count[k];
	printf("seed %llu, %llu operations, %u threads:", (unsigned long long)seed,
	       (unsigned long long)operations, nthreads);
	for (unsigned k = 0; k < C_KINDS; k++)
		printf("%s %llu %s", k ? "," : "", (unsigned long long)n[k], kind[k]);
	printf("; changes of the source %llu; deaths %llu\n",
	       (unsigned long long)atomic_load(&world->changes),
	       (unsigned long long)atomic_load(&world->deaths) / 2);
}

int main(int argc, char **argv)
{
	static struct worker all[THREADS_MAX];
	pthread_t thread[THREADS_MAX], killer;
	int status, mark;
	pid_t changer;

	if (argc < 5) {
		fprintf(stderr,
			"usage: %s MOUNT SOURCE OPERATIONS SEED [THREADS [TTL_MS "
			"[KILL_COMMAND]]]\n",
			argv[0]);
		return 2;
	}
	mount_dir = argv[1];
	source_dir = argv[2];
	operations = strtoull(argv[3], NULL, 10);
	seed = strtoull(argv[4], NULL, 10);
	if (argc > 5)
		nthreads = (unsigned)strtoul(argv[5], NULL, 10);
	if (argc > 6)
		ttl_ns = strtoull(argv[6], NULL, 10) * 1000000u;
	if (argc > 7)
		kill_command = argv[7];
	kills = kill_command != NULL;
	if (!nthreads || nthreads > THREADS_MAX)
		return 2;
	world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	mark = path_open(source_dir, "mark", O_RDWR | O_CREAT);
	if (world == MAP_FAILED || mark < 0)
		return 2;
	close(mark);
	foreign_make();
	changer = start_changer();
	for (unsigned i = 0; i < nthreads; i++) {
		struct worker *w = &all[i];

		w->number = i;
		w->rng = mix(seed * 1000 + i);
		w->buf = aligned_alloc(BLOCK, OWN_BYTES);
		for (unsigned k = 0; k < HANDLES; k++)
			w->handle[k].fd = -1;
		own_begin(w);
		if (pthread_create(&thread[i], NULL, work, w))
			return 2;
	}
	if (kills && pthread_create(&killer, NULL, kill_all, NULL))
		return 2;
	for (unsigned i = 0; i < nthreads; i++)
		pthread_join(thread[i], NULL);
	atomic_store(&world->stop, true);
	if (kills)
		pthread_join(killer, NULL);
	waitpid(changer, &status, 0);
	for (unsigned i = 0; i < nthreads; i++) {
		own_end(&all[i]);
		free(all[i].buf);
	}
	say(all);
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : 1;
}
