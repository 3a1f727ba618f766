/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The box: what `tmem bench run` makes on the machine, and how it goes again.
 *
 *   main process --------- makes cgroup, zram, swap; writes each into `state`
 *     |    |  pipe         (memory shared with the watcher) before or as it is made
 *     |    +------> watcher: own session, deaf to signals, reads the pipe
 *     |                      end of file = main is gone -> removes what state names
 *     +-> the program, in the cgroup and a process group of its own
 *
 * Why a watcher and not just signal handlers: a killed (SIGKILL, or by the
 * kernel for lack of memory) benchmark would leave swap on a device that
 * nobody knows of. The kernel closes the pipe however the process ends.
 *
 *   I1  what exists is in state, or is being made: state is written first
 *   I2  only one box at a time: an flock held by both processes, so that it is
 *       free only after the watcher has cleaned up
 *
 * Failure: removal goes on after an error, and the first error is reported.
 */
#include "cli/bench_box.h"

#include "os/clock.h"
#include "os/file.h"
#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#define SAMPLE_MS 10

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
	stopped = number;
}

int box_stopped(void)
{
	return stopped;
}

/* ---- taking things away ------------------------------------------------------------------ */

static int remove_all(struct box_state *s)
{
	int code = 0, err;

	if (s->child > 0)
		kill(-s->child, SIGKILL);
	if (s->cgroup[0]) {
		code = cgroup_remove(s->cgroup);
		if (!code)
			s->cgroup[0] = 0;
	}
	if (s->zram >= 0) { /* after the group: its pages are in there */
		err = zram_remove(s->zram);
		if (!err)
			s->zram = -1;
		code = code ? code : err;
	}
	err = zswap_remove(&s->zswap);
	return code ? code : err;
}

static void watcher_main(struct box_state *s, int pipe_end)
{
	static const int deaf[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
	char byte;
	size_t i;
	int null;

	setsid();
	for (i = 0; i < sizeof(deaf) / sizeof(deaf[0]); i++)
		signal(deaf[i], SIG_IGN);
	/* Whoever waits for our output to end must not wait for us. */
	null = open("/dev/null", O_RDWR);
	for (i = 0; i < 3 && null >= 0; i++)
		dup2(null, (int)i);
	while (read(pipe_end, &byte, 1) < 0 && errno == EINTR)
		;
	remove_all(s);
	_exit(0);
}

/* ---- opening and closing ------------------------------------------------------------------- */

static int take_lock(struct box *b, char *err, size_t errlen)
{
	const char *path = geteuid() ? "/tmp/tmem-bench-run.lock" : "/run/tmem-bench-run.lock";

	b->lock = os_file_open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
	if (b->lock < 0) {
		snprintf(err, errlen, "cannot open %s: %s", path, strerror(-b->lock));
		return b->lock;
	}
	if (flock(b->lock, LOCK_EX | LOCK_NB)) {
		snprintf(err, errlen, "another 'tmem bench run' is at work (%s)", path);
		return -EBUSY;
	}
	return 0;
}

static int start_watcher(struct box *b)
{
	int ends[2];

	b->state = mmap(NULL, sizeof(*b->state), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (b->state == MAP_FAILED) {
		b->state = NULL;
		return -errno;
	}
	*b->state = (struct box_state){.zram = -1};
	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	b->watcher = fork();
	if (b->watcher == 0) {
		close(ends[1]);
		watcher_main(b->state, ends[0]);
	}
	close(ends[0]);
	b->alive = ends[1];
	return b->watcher < 0 ? -errno : 0;
}

static void set_signals(void (*handler)(int))
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	struct sigaction action = {.sa_handler = handler}; /* no SA_RESTART: waits must end */
	size_t i;

	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		sigaction(numbers[i], &action, NULL);
}

int box_open(struct box *b, char *err, size_t errlen)
{
	int code;

	*b = (struct box){.alive = -1, .lock = -1};
	code = take_lock(b, err, errlen);
	if (code)
		return code;
	fflush(NULL);
	code = start_watcher(b);
	if (code) {
		snprintf(err, errlen, "cannot start: %s", strerror(-code));
		return code;
	}
	set_signals(on_signal);
	b->has_cgroup = !cgroup_find(&b->cgroup, b->cgroup_why, sizeof(b->cgroup_why));
	return 0;
}

int box_close(struct box *b, char *err, size_t errlen)
{
	int code = 0;

	if (b->state) {
		code = remove_all(b->state);
		if (code)
			snprintf(err, errlen, "could not remove %s%s%s: %s", b->state->cgroup,
				 b->state->cgroup[0] && b->state->zram >= 0 ? " and " : "",
				 b->state->zram >= 0 ? "the zram swap" : b->state->zswap.file,
				 strerror(-code));
	}
	if (b->alive >= 0)
		close(b->alive);
	if (b->watcher > 0)
		while (waitpid(b->watcher, NULL, 0) < 0 && errno == EINTR)
			;
	if (b->lock >= 0)
		os_file_close(b->lock);
	set_signals(SIG_DFL);
	if (b->state)
		munmap(b->state, sizeof(*b->state));
	return code;
}

void box_want_zram(struct box *b, const char *codec, uint64_t disk_bytes)
{
	int code;

	if (!b->has_cgroup) {
		snprintf(b->zram_why, sizeof(b->zram_why), "no memory cgroup: %.200s",
			 b->cgroup_why);
		return;
	}
	code = zram_add(codec, disk_bytes, &b->state->zram, b->zram_why, sizeof(b->zram_why));
	if (!code)
		code = zram_swap_on(b->state->zram, b->zram_why, sizeof(b->zram_why));
	b->has_zram = b->zram_on = !code;
	if (code && b->state->zram >= 0 && !zram_remove(b->state->zram))
		b->state->zram = -1;
}

int box_drop_zram(struct box *b)
{
	int code = b->has_zram ? zram_remove(b->state->zram) : 0;

	if (!code)
		b->state->zram = -1;
	b->has_zram = false;
	return code;
}

void box_want_zswap(struct box *b, const char *codec, uint64_t disk_bytes)
{
	int code;

	if (!b->has_cgroup) {
		snprintf(b->zswap_why, sizeof(b->zswap_why), "no memory cgroup: %.200s",
			 b->cgroup_why);
		return;
	}
	code = zswap_prepare(&b->state->zswap, codec, disk_bytes, b->zswap_why,
			     sizeof(b->zswap_why));
	b->has_zswap = !code;
	if (code && zswap_remove(&b->state->zswap))
		snprintf(b->zswap_why, sizeof(b->zswap_why), "it could not be set back");
}

/* Swap on the one, off the other: zswap would take what is meant for zram. */
static int choose_swap(struct box *b, enum box_swap swap, char *err, size_t errlen)
{
	int code = 0;

	if (swap == BOX_ZSWAP && b->zram_on) {
		code = zram_swap_off(b->state->zram);
		if (code)
			snprintf(err, errlen, "cannot end the swap on zram: %s", strerror(-code));
		b->zram_on = code;
	}
	if (!code && b->has_zswap)
		code = zswap_switch(&b->state->zswap, swap == BOX_ZSWAP, err, errlen);
	if (!code && swap == BOX_ZRAM && b->has_zram && !b->zram_on) {
		code = zram_swap_on(b->state->zram, err, errlen);
		b->zram_on = !code;
	}
	return code;
}

/* What holds the pages that are out, now. */
static struct zram_use swap_usage(const struct box *b, enum box_swap swap)
{
	struct zram_use use = {0};
	struct zswap_use z;

	if (swap == BOX_ZRAM && b->has_zram) {
		zram_usage(b->state->zram, &use);
	} else if (swap == BOX_ZSWAP && b->has_zswap) {
		zswap_usage(&z);
		use.stored_pages = z.stored_pages;
		use.used_bytes = z.used_bytes;
	}
	return use;
}

/* ---- one run --------------------------------------------------------------------------------- */

/* In the child: never returns. An error of exec goes to the parent through `report`. */
static void child_main(const struct box *b, const struct box_run *r, int output, int report)
{
	int null, code = 0;

	set_signals(SIG_DFL);
	setpgid(0, 0);
	if (b->has_cgroup)
		code = cgroup_join(b->state->cgroup);
	null = open("/dev/null", O_RDONLY);
	if (null >= 0)
		dup2(null, STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	if (!code) {
		execvp(r->argv[0], r->argv);
		code = -errno;
	}
	if (write(report, &code, sizeof(code)) < 0)
		_exit(126);
	_exit(127);
}

/* The program's standard output, in a file without a name. */
static int open_output(void)
{
	const char *dir = getenv("TMPDIR");
	int fd = os_file_open(dir ? dir : "/tmp", O_RDWR | O_TMPFILE, 0600);

	return fd >= 0 ? fd : os_file_open("/dev/null", O_RDWR, 0);
}

static uint64_t hash_output(int fd)
{
	XXH3_state_t *state = XXH3_createState();
	char buf[16384];
	uint64_t at = 0, hash = 0;
	ssize_t n;

	if (!state)
		return 0;
	XXH3_64bits_reset(state);
	while ((n = os_file_pread(fd, buf, sizeof(buf), at)) > 0) {
		XXH3_64bits_update(state, buf, (size_t)n);
		at += (uint64_t)n;
	}
	hash = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	return hash;
}

static void sample(const struct box *b, struct box_run *r, const struct zram_use *before)
{
	uint64_t resident, swapped = 0, zram = 0;
	struct zram_use use;

	if (!b->has_cgroup)
		return;
	resident = cgroup_resident(&b->cgroup, b->state->cgroup);
	use = swap_usage(b, r->swap);
	if (b->has_zram || b->has_zswap) {
		swapped = cgroup_swapped(&b->cgroup, b->state->cgroup);
		zram = use.used_bytes > before->used_bytes ? use.used_bytes - before->used_bytes
							   : 0;
	}
	if (resident > r->peak_resident)
		r->peak_resident = resident;
	if (swapped > r->peak_swapped)
		r->peak_swapped = swapped;
	if (resident + zram > r->peak_total) {
		r->peak_total = resident + zram;
		r->zram_bytes = zram;
		r->zram_pages = use.stored_pages > before->stored_pages
					? use.stored_pages - before->stored_pages
					: 0;
	}
}

/* Watch the program until it ends. 0 or -EINTR. */
static int watch(struct box *b, struct box_run *r, pid_t pid, uint64_t start)
{
	const struct zram_use before = swap_usage(b, r->swap);
	struct pollfd ended = {.fd = pidfd_open(pid, 0), .events = POLLIN};
	struct rusage usage = {0};
	int status = 0, code = 0;

	/* Without a pidfd poll() sleeps only, and waitpid() asks. */
	while (poll(&ended, 1, SAMPLE_MS) <= 0) {
		double now_s = (double)(os_clock_ns() - start) / 1e9;
		siginfo_t info = {0};

		sample(b, r, &before);
		if (stopped && !code) {
			code = -EINTR;
			kill(-pid, SIGKILL);
		}
		if (now_s > r->timeout_s && !r->timed_out) {
			r->timed_out = true;
			kill(-pid, SIGKILL);
		}
		if (ended.fd < 0 && !waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) &&
		    info.si_pid == pid)
			break;
	}
	r->wall_s = (double)(os_clock_ns() - start) / 1e9;
	while (wait4(pid, &status, 0, &usage) < 0 && errno == EINTR)
		;
	if (ended.fd >= 0)
		close(ended.fd);
	r->exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	if (!b->has_cgroup)
		r->peak_total = r->peak_resident = (uint64_t)usage.ru_maxrss * 1024;
	return code;
}

/* Start the program; its pid, or a negative errno with a line in err. */
static pid_t start_program(struct box *b, struct box_run *r, int output, char *err, size_t errlen)
{
	int ends[2], why = 0;
	ssize_t got;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid == 0)
		child_main(b, r, output, ends[1]);
	close(ends[1]);
	if (pid < 0) {
		why = -errno;
		snprintf(err, errlen, "cannot start a process: %s", strerror(-why));
	} else {
		setpgid(pid, pid); /* both sides, so that neither has to wait for the other */
		b->state->child = pid;
		while ((got = read(ends[0], &why, sizeof(why))) < 0 && errno == EINTR)
			;
		if (got == (ssize_t)sizeof(why)) {
			snprintf(err, errlen, "cannot run '%s': %s", r->argv[0], strerror(-why));
			waitpid(pid, NULL, 0);
		} else {
			why = 0;
		}
	}
	close(ends[0]);
	if (why)
		b->state->child = 0;
	return why ? why : pid;
}

int box_run(struct box *b, struct box_run *r, char *err, size_t errlen)
{
	int output = open_output(), code = 0, left;
	uint64_t start;
	pid_t pid;

	if (output < 0) {
		snprintf(err, errlen, "cannot make a temporary file: %s", strerror(-output));
		return output;
	}
	code = choose_swap(b, r->swap, err, errlen);
	if (!code && b->has_cgroup) /* the path is in state before the group exists (I1) */
		code = cgroup_make(&b->cgroup, r->limit_bytes, b->state->cgroup, err, errlen);
	if (!code) {
		start = os_clock_ns();
		pid = start_program(b, r, output, err, errlen);
		code = pid < 0 ? pid : watch(b, r, pid, start);
	}
	if (!code)
		r->output_hash = hash_output(output);
	if (b->state->child > 0)
		kill(-b->state->child, SIGKILL); /* what it left behind */
	b->state->child = 0;
	if (b->has_cgroup) {
		r->major_faults = cgroup_major_faults(b->state->cgroup);
		r->out_of_memory = cgroup_out_of_memory(&b->cgroup, b->state->cgroup);
		left = cgroup_remove(b->state->cgroup);
		if (!left)
			b->state->cgroup[0] = 0;
		else if (!code)
			snprintf(err, errlen, "cannot remove the cgroup: %s", strerror(-left));
		code = code ? code : left;
	}
	os_file_close(output);
	return code;
}
