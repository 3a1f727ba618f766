/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem mount with failing calls: each call of the system that it makes, from its beginning to its
 * end, fails in one run, and in another from then on.
 *
 *   parent (this test)                       child: the mount, calls go through the shims
 *     makes the source, begins the child  ->   arms: call n fails
 *     uses the mount: each answer is right,    ...
 *       or an error that could be expected
 *     says so                             ->   disarms
 *     uses it again: all of it is right
 *     SIGTERM                             ->   ends: nothing is left that was not there before
 *
 * What counts as right: no byte that is not the source's, no file that is shorter, no name that is
 * not there; what was acknowledged is in the source; a change of the source is seen by the next
 * open. A run that hangs is ended, and is a failure.
 *
 *   fault-mount_calls [-v] [once|on N]     one run; without arguments a sample of them all,
 *                                          or all, with TMEM_LONG=1 in the environment
 * 77: there is no FUSE here.
 */
#include "shim.h"

#include "cleancache/mount.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FUSE_MAGIC 0x65735546
#define HANGS_S	   40
#define SAMPLE	   300
#define SMALL	   5000
#define LARGE	   300000
#define WRITTEN	   10000
#define BYTES_MOST 300000

/* What both sides see. */
struct shared {
	_Atomic uint64_t calls, failed;
	_Atomic int64_t blocks, mapped; /* more at the end than at the beginning */
	_Atomic bool ended;
};
static struct shared *shared;

static char top[64], source[80], point[80], errors[80];
static pid_t child;
static int to_child;
static volatile sig_atomic_t hung;
static bool strict, verbose;
static unsigned long run_n;
static bool run_on;
static unsigned bad;
static const char *doing = "";

static __attribute__((format(printf, 1, 2))) void wrong(const char *fmt, ...)
{
	va_list ap;

	bad++;
	fprintf(stderr, "%s %lu, %s, %s: ", run_on ? "on" : "once", run_n,
		strict ? "after" : "with", doing);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* An error of an operation of the mount: one that a call failed with, and none without faults. */
static void judge(int error)
{
	static const int may[] = {ENOMEM, EIO,	  EMFILE,   ENFILE,	  ENOSPC,
				  ENOLCK, EAGAIN, ENOTCONN, ECONNABORTED, EDQUOT};
	bool expected = false;

	for (unsigned i = 0; i < sizeof(may) / sizeof(may[0]); i++)
		expected |= error == may[i];
	if (strict || !expected)
		wrong("%s", strerror(error));
}

static const char *in(const char *folder, const char *name)
{
	static char path[4][256];
	static unsigned k;

	snprintf(path[++k % 4], sizeof(path[0]), "%s/%s", folder, name);
	return path[k % 4];
}

static void fill(char *buf, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = (char)((i * 2654435761u >> 13) + seed + (i >> 12));
}

/* ---- the source -------------------------------------------------------------------------- */

static void make(const char *name, size_t n, unsigned seed)
{
	static char buf[BYTES_MOST];
	FILE *f = fopen(in(source, name), "w");

	fill(buf, n, seed);
	if (!f || fwrite(buf, 1, n, f) != n || fclose(f)) {
		perror(name);
		exit(1);
	}
}

static void make_source(void)
{
	make("small", SMALL, 1);
	make("large", LARGE, 2);
	(void)mkdir(in(source, "folder"), 0755);
	for (unsigned i = 0; i < 20; i++) {
		char name[32];

		snprintf(name, sizeof(name), "folder/%u", i);
		make(name, 100 + i, i);
	}
	(void)symlink("small", in(source, "link"));
	(void)unlink(in(source, "written"));
	(void)unlink(in(source, "renamed"));
	(void)rmdir(in(source, "made"));
}

/* ---- what is asked of the mount ------------------------------------------------------------ */

static void read_file(const char *name, size_t n, unsigned seed)
{
	static char buf[BYTES_MOST + 1], want[BYTES_MOST];
	int fd = open(in(point, name), O_RDONLY);
	size_t got = 0;
	ssize_t k = 0;

	doing = name;
	if (fd < 0) {
		judge(errno);
		return;
	}
	(void)posix_fadvise(fd, 0, 0,
			    POSIX_FADV_DONTNEED); /* from the mount, not from the kernel */
	fill(want, n, seed);
	while (got <= n && (k = pread(fd, buf + got, sizeof(buf) - got, (off_t)got)) > 0)
		got += (size_t)k;
	if (k < 0)
		judge(errno);
	else if (got != n)
		wrong("%zu bytes of %zu", got, n);
	if (memcmp(buf, want, got < n ? got : n) != 0)
		wrong("a wrong byte");
	close(fd);
}

static void read_mapped(const char *name, size_t n, unsigned seed)
{
	static char want[BYTES_MOST];
	int fd = open(in(point, name), O_RDONLY);
	struct stat st;
	char *p;

	doing = "mapped";
	if (fd < 0 || fstat(fd, &st)) {
		judge(errno);
	} else if ((size_t)st.st_size != n) {
		wrong("%lld bytes", (long long)st.st_size);
	} else if (strict) { /* an error would be a signal */
		p = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
		fill(want, n, seed);
		if (p == MAP_FAILED || memcmp(p, want, n) != 0)
			wrong("a wrong byte");
		if (p != MAP_FAILED)
			munmap(p, n);
	}
	if (fd >= 0)
		close(fd);
}

static void list(const char *name, unsigned want)
{
	DIR *d = opendir(in(point, name));
	unsigned n = 0;

	doing = "listing";
	if (!d) {
		judge(errno);
		return;
	}
	errno = 0;
	while (readdir(d))
		n++;
	if (errno)
		judge(errno);
	else if (n != want)
		wrong("%u names of %u", n, want);
	closedir(d);
}

/* What the source has is what was acknowledged. */
static void write_file(void)
{
	static char buf[WRITTEN], back[WRITTEN + 1];
	int fd = open(in(point, "written"), O_RDWR | O_CREAT | O_TRUNC, 0644);
	ssize_t n;
	int there;

	doing = "writing";
	if (fd < 0) {
		judge(errno);
		return;
	}
	fill(buf, sizeof(buf), strict + 7);
	n = write(fd, buf, sizeof(buf));
	if (n < 0)
		judge(errno);
	there = open(in(source, "written"), O_RDONLY);
	if (n >= 0 &&
	    (there < 0 || read(there, back, sizeof(back)) < n || memcmp(buf, back, (size_t)n) != 0))
		wrong("it is not in the source");
	if (n >= 0) {
		ssize_t k = pread(fd, back, (size_t)n, 0);

		if (k < 0)
			judge(errno);
		else if (memcmp(buf, back, (size_t)k) != 0 || k < n)
			wrong("it is read back otherwise");
	}
	if (strict && n != (ssize_t)sizeof(buf))
		wrong("%zd bytes", n);
	if (there >= 0)
		close(there);
	if (ftruncate(fd, 100))
		judge(errno);
	if (close(fd))
		judge(errno);
}

static void lock_file(void)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
	int fd = open(in(point, "small"), O_RDWR);

	doing = "locking";
	if (fd < 0 || fcntl(fd, F_SETLK, &l))
		judge(errno);
	if (fd >= 0)
		close(fd);
}

static void names(void)
{
	char text[64] = "";
	struct stat st;

	doing = "names";
	if (rename(in(point, "written"), in(point, "renamed")) && !(errno == ENOENT && !strict))
		judge(errno);
	if (readlink(in(point, "link"), text, sizeof(text) - 1) < 0)
		judge(errno);
	else if (strcmp(text, "small") != 0)
		wrong("the link leads to %s", text);
	if (mkdir(in(point, "made"), 0755))
		judge(errno);
	else if (rmdir(in(point, "made")))
		judge(errno);
	if (stat(in(point, "none"), &st) == 0)
		wrong("there is what is not there");
	else if (errno != ENOENT)
		judge(errno);
	if (stat(in(point, "small"), &st))
		judge(errno);
	else if (st.st_size != SMALL)
		wrong("%lld bytes", (long long)st.st_size);
	if (unlink(in(point, "renamed")) && !(errno == ENOENT && !strict))
		judge(errno);
}

static void figures(void)
{
	static struct cc_text text;
	int fd = open(point, O_RDONLY | O_DIRECTORY);

	doing = "figures";
	if (fd < 0 || ioctl(fd, CC_IOC_STAT, &text))
		judge(errno);
	else if (strncmp(text.text, "pid ", 4) != 0)
		wrong("\"%.20s\"", text.text);
	if (fd >= 0 && ioctl(fd, CC_IOC_INVALIDATE) < 0)
		judge(errno);
	if (fd >= 0)
		close(fd);
	fd = open(in(point, ".tmem/stats/hits"), O_RDONLY);
	if (fd < 0)
		judge(errno);
	else
		close(fd);
}

static void use(unsigned large_seed)
{
	read_file("small", SMALL, 1);
	read_file("large", LARGE, large_seed);
	read_file("large", LARGE, large_seed);
	list("folder", 22);
	read_file("folder/7", 107, 7);
	read_mapped("small", SMALL, 1);
	write_file();
	names();
	lock_file();
	figures();
	read_file("large", LARGE, large_seed);
}

/* ---- the child ----------------------------------------------------------------------------- */

static void *control(void *arg)
{
	int fd = *(int *)arg;
	char byte;

	while (read(fd, &byte, 1) == 1) {
		atomic_store(&shared->calls, shim_calls());
		atomic_store(&shared->failed, shim_failed());
		if (verbose)
			shim_describe();
		shim_disarm();
		atomic_store(&shared->ended, true);
	}
	return NULL;
}

static void serve(int from)
{
	struct cc_options o = {.source = source,
			       .mountpoint = point,
			       .size_bytes = CC_SIZE_MIN,
			       .policy = "s3fifo",
			       .readahead_bytes = 1 << 20,
			       .threads = 2,
			       .cluster = 4,
			       .foreground = true};
	int fd = open(errors, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600), rc;
	struct shim_alive before, after;
	sigset_t all, was;
	pthread_t thread;

	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	dup2(fd, STDERR_FILENO);
	close(fd);
	/* Signals are the mount's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	if (pthread_create(&thread, NULL, control, &from))
		_exit(1);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	shim_alive(&before);
	shim_arm(run_n, run_on);
	rc = cc_mount_run(&o);
	if (!atomic_load(&shared->ended)) {
		atomic_store(&shared->calls, shim_calls());
		atomic_store(&shared->failed, shim_failed());
	}
	shim_disarm();
	shim_alive(&after);
	atomic_store(&shared->blocks, after.blocks - before.blocks);
	atomic_store(&shared->mapped, after.mapped_bytes - before.mapped_bytes);
	_exit(rc);
}

/* ---- one run ------------------------------------------------------------------------------- */

static void on_alarm(int sig)
{
	(void)sig;
	hung = 1;
	if (child > 0)
		kill(child, SIGKILL); /* the connection goes with it: nobody waits any longer */
}

static bool has_ended(int *status)
{
	if (!child || waitpid(child, status, WNOHANG) != child)
		return false;
	child = 0;
	return true;
}

/* True: it can be used. */
static bool wait_mounted(int *status)
{
	struct statfs fs;

	for (unsigned i = 0; i < 4000 && !has_ended(status); i++) {
		if (statfs(point, &fs) == 0 && fs.f_type == FUSE_MAGIC)
			return true;
		usleep(2000); /* nobody tells when it is mounted */
	}
	return false;
}

static void ask_for_disarm(void)
{
	(void)!write(to_child, "d", 1);
	for (unsigned i = 0; i < 5000 && !atomic_load(&shared->ended); i++)
		usleep(1000); /* until its thread has done so */
}

static void show_errors(void)
{
	char line[400];
	FILE *f = fopen(errors, "r");

	while (f && fgets(line, sizeof(line), f))
		fprintf(stderr, "  %s", line);
	if (f)
		fclose(f);
}

static void end_child(int status)
{
	struct stat st;

	doing = "its end";
	if (child) {
		kill(child, SIGTERM);
		if (waitpid(child, &status, 0) == child)
			child = 0;
	}
	alarm(0);
	if (hung)
		wrong("hangs");
	else if (!WIFEXITED(status))
		wrong("ended by signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status) > 1)
		wrong("exit code %d", WEXITSTATUS(status));
	else if (WEXITSTATUS(status) == 1 && !strict && (stat(errors, &st) || !st.st_size))
		wrong("it failed, and did not say why");
	else if (atomic_load(&shared->blocks) > 0 || atomic_load(&shared->mapped) > 0)
		wrong("%lld blocks and %lld bytes mapped are left",
		      (long long)atomic_load(&shared->blocks),
		      (long long)atomic_load(&shared->mapped));
	if (umount2(point, MNT_DETACH) == 0 && !hung)
		wrong("still mounted");
}

/* Calls that were made until it was disarmed. */
static uint64_t one_run(uint64_t n, bool on)
{
	unsigned bad_before = bad;
	int status = 0, pipe_of[2];

	run_n = n;
	run_on = on;
	memset(shared, 0, sizeof(*shared));
	hung = 0;
	strict = false;
	make_source();
	if (pipe2(pipe_of, O_CLOEXEC)) {
		perror("pipe2");
		exit(1);
	}
	to_child = pipe_of[1];
	child = fork();
	if (child == 0) {
		close(pipe_of[1]);
		serve(pipe_of[0]);
	}
	close(pipe_of[0]);
	alarm(HANGS_S);
	if (wait_mounted(&status)) {
		use(2);
		ask_for_disarm();
		if (!has_ended(&status)) {
			strict = true;
			make("large", LARGE, 3);	 /* somebody else */
			(void)rmdir(in(source, "made")); /* what failed may have been done */
			usleep(30000); /* older than a tick of time stamps: believed from now on */
			use(3);
		}
	}
	end_child(status);
	close(to_child);
	if (bad != bad_before)
		show_errors();
	return atomic_load(&shared->calls);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static void clean(void)
{
	char command[160];

	(void)umount2(point, MNT_DETACH);
	snprintf(command, sizeof(command), "rm -rf '%s'", top);
	if (system(command))
		fprintf(stderr, "%s is left\n", top);
}

static void on_end(int sig)
{
	if (child > 0)
		kill(child, SIGKILL);
	clean();
	_exit(128 + sig);
}

static void open_test(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(top, sizeof(top), "%.40s/tmem-fault-XXXXXX", tmp ? tmp : "/tmp");
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED || !mkdtemp(top)) {
		perror("mount_calls");
		exit(1);
	}
	snprintf(source, sizeof(source), "%s/source", top);
	snprintf(point, sizeof(point), "%s/mount", top);
	snprintf(errors, sizeof(errors), "%s/errors", top);
	(void)mkdir(source, 0755);
	(void)mkdir(point, 0755);
	signal(SIGALRM, on_alarm);
	signal(SIGINT, on_end);
	signal(SIGTERM, on_end);
	signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
	unsigned runs = 0;
	uint64_t calls, step, at;

	if (access("/dev/fuse", R_OK | W_OK) || geteuid() != 0) {
		printf("skipped: needs root, and /dev/fuse\n");
		return 77;
	}
	verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
	argc -= verbose;
	argv += verbose;
	open_test();
	if (argc == 3) {
		calls = one_run(strtoull(argv[2], NULL, 10), strcmp(argv[1], "on") == 0);
		printf("%llu calls, %llu failed, %u findings\n", (unsigned long long)calls,
		       (unsigned long long)atomic_load(&shared->failed), bad);
		clean();
		return bad > 0;
	}
	calls = one_run(0, false);
	step = getenv("TMEM_LONG") ? 1 : calls * 2 / SAMPLE + 1;
	at = (uint64_t)time(NULL) % step + 1;
	printf("%llu calls, each %lluth from the %lluth on\n", (unsigned long long)calls,
	       (unsigned long long)step, (unsigned long long)at);
	fflush(stdout);
	for (; at <= calls; at += step, runs++) {
		(void)one_run(at, false);
		(void)one_run(at, true);
	}
	clean();
	printf("%u runs, %u findings\n", 2 * runs + 1, bad);
	return bad > 0;
}
