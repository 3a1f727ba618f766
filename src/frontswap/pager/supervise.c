/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The process the user started. It starts the host and the program, forwards
 * signals, and answers with the program's exit code.
 *
 * It is also the guard: it holds a copy of every userfaultfd. Should the host
 * die, faults on pages that are out go on waiting (the last descriptor of a
 * userfaultfd gone, they would read zeros), and the guard kills every process
 * that descends from the program. Fail-stop, never wrong data.
 *
 *      supervisor --+-- host      (own session; ends everything when we die)
 *                   |     +-- keeper    (should both be killed)
 *                   +-- program --+-- ...   (orphans come back to us: subreaper)
 */
#include "frontswap/pager/live.h"
#include "frontswap/pager/run.h"

#include "os/clock.h"
#include "os/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define AGENT_WAIT_MS 10000

struct held {
	uint64_t space;
	int fd;
};

struct supervisor {
	const struct run_options *opts;
	pid_t host, program;
	pid_t keeper; /* a child of the host's, and ours when that has gone */
	int control, signals, status;
	bool host_done, program_over, all_over, failed;
	bool refused;	 /* ended by us: it could not be managed */
	bool agent_seen; /* some agent has connected */
	bool lacking;	 /* the report or the trace is not what was asked for */
	struct held *held;
	unsigned nheld, held_size;
	sigset_t old_mask;
	struct sigaction old_chld;
	struct rlimit old_files;
	struct live live;
	uint64_t started_ns; /* the program */
};

/* ---- descriptors -------------------------------------------------------------------- */

static void hold(struct supervisor *s, uint64_t space, int fd)
{
	if (s->nheld == s->held_size) {
		unsigned size = s->held_size ? s->held_size * 2 : 16;
		struct held *h = realloc(s->held, size * sizeof(*h));

		if (!h) {
			close(fd);
			return;
		}
		s->held = h;
		s->held_size = size;
	}
	s->held[s->nheld++] = (struct held){space, fd};
}

static void release(struct supervisor *s, uint64_t space)
{
	for (unsigned i = 0; i < s->nheld; i++) {
		if (s->held[i].space == space) {
			close(s->held[i].fd);
			s->held[i] = s->held[--s->nheld];
			return;
		}
	}
}

/* One message of the host. False: the host is gone. */
static bool control_message(struct supervisor *s, struct control_message *m)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {m, sizeof(*m)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control.space)};
	struct cmsghdr *c;
	ssize_t n;
	int fd = -1;

	do {
		n = recvmsg(s->control, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n != sizeof(*m))
		return false;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(c), sizeof(int));
	if (m->kind == CONTROL_HOLD && fd >= 0) {
		s->agent_seen = true;
		hold(s, m->space, fd);
	} else if (m->kind == CONTROL_RELEASE) {
		release(s, m->space);
	}
	return true;
}

/* ---- the program's processes ------------------------------------------------------------ */

static bool descends_from_us(pid_t pid)
{
	return maps_descends(pid, getpid());
}

/* Send every descendant but the host a signal (0: none); how many there are. */
static unsigned signal_descendants(struct supervisor *s, int sig)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	unsigned n = 0;

	while (d && (e = readdir(d))) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);

		if (pid <= 0 || pid == s->host || pid == s->keeper || pid == getpid())
			continue;
		if (descends_from_us(pid) && (kill(pid, sig) == 0 || (!sig && errno == EPERM)))
			n++;
	}
	if (d)
		closedir(d);
	return n;
}

static void fail_stop(struct supervisor *s)
{
	s->failed = true;
	live_close(&s->live);
	os_log(OS_LOG_ERROR, "the store has died: the program is ended, "
			     "for its memory cannot be had any more");
	while (signal_descendants(s, SIGKILL) > 0) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		usleep(1000);
	}
}

static void reap(struct supervisor *s)
{
	struct control_message over = {.kind = CONTROL_OVER};
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == s->keeper)
			s->keeper = 0;
		if (pid == s->program) {
			s->program_over = true;
			s->status = status;
		}
	}
	/* What it left behind belongs to the run, even while it has no agent: in
	 * the middle of an exec, say. */
	if (s->program_over && !s->all_over && signal_descendants(s, 0) == 0) {
		s->all_over = true;
		if (send(s->control, &over, sizeof(over), MSG_NOSIGNAL) < 0)
			os_log(OS_LOG_DEBUG, "host does not answer");
	}
}

/* ---- start ------------------------------------------------------------------------------- */

static int start_host(struct supervisor *s, struct control_message *ready)
{
	struct keeper keeper;
	int pair[2];
	pid_t self = getpid();

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	s->host = fork();
	if (s->host < 0)
		return -errno;
	if (s->host == 0) {
		close(pair[0]);
		if (getppid() != self)
			_exit(1);
		if (keeper_start(&keeper) < 0)
			os_log(OS_LOG_DEBUG, "there is no keeper");
		_exit(run_host(s->opts, pair[1], &keeper));
	}
	close(pair[1]);
	s->control = pair[0];
	if (!control_message(s, ready))
		return -EPIPE;
	return 0;
}

/* libtmem-agent.so beside this executable, or where it is installed. */
static int find_agent(char *path, size_t n)
{
	static const char *const places[] = {"", "../lib/", "../lib/x86_64-linux-gnu/",
					     "../lib64/"};
	char exe[PATH_MAX], *slash;
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	if (len <= 0)
		return -ENOENT;
	exe[len] = 0;
	slash = strrchr(exe, '/');
	slash[1] = 0;
	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if ((size_t)snprintf(path, n, "%s%slibtmem-agent.so", exe, places[i]) < n &&
		    access(path, R_OK) == 0)
			return 0;
	}
	return -ENOENT;
}

static void child_exec(const struct supervisor *s, const char *file, int report)
{
	int error;

	sigaction(SIGCHLD, &s->old_chld, NULL);
	sigprocmask(SIG_SETMASK, &s->old_mask, NULL);
	setrlimit(RLIMIT_NOFILE, &s->old_files);
	execv(file, s->opts->argv);
	error = errno;
	if (write(report, &error, sizeof(error)) < 0)
		_exit(126);
	_exit(127);
}

static int start_program(struct supervisor *s, const char *file, const char *address)
{
	char agent[PATH_MAX], preload[PATH_MAX * 2];
	const char *old = getenv("LD_PRELOAD");
	int pipe_fds[2], error = 0;

	if (find_agent(agent, sizeof(agent)) < 0) {
		fprintf(stderr, "tmem run: libtmem-agent.so is not beside the tmem executable\n");
		return 126;
	}
	snprintf(preload, sizeof(preload), "%s%s%s", agent, old && *old ? ":" : "", old ? old : "");
	if (setenv("LD_PRELOAD", preload, 1) < 0 || setenv(AGENT_ENV, address, 1) < 0 ||
	    pipe2(pipe_fds, O_CLOEXEC) < 0) {
		fprintf(stderr, "tmem run: %s\n", strerror(errno));
		return 126;
	}
	s->program = fork();
	if (s->program == 0)
		child_exec(s, file, pipe_fds[1]);
	close(pipe_fds[1]);
	if (s->program < 0)
		error = errno;
	else if (read(pipe_fds[0], &error, sizeof(error)) != sizeof(error))
		error = 0;
	close(pipe_fds[0]);
	if (error) {
		fprintf(stderr, "tmem run: cannot start %s: %s\n", file, strerror(error));
		return error == ENOENT ? 127 : 126;
	}
	return 0;
}

/*
 * A signal for us is for the program, but for one that it has had itself: from the terminal, to the
 * group that both are in (the end of the terminal is told to a session's leader alone), or from one
 * of its own processes, to the same.
 */
static bool has_had(const struct supervisor *s, const struct signalfd_siginfo *si)
{
	int n = (int)si->ssi_signo;

	if (si->ssi_code == SI_USER)
		return descends_from_us((pid_t)si->ssi_pid);
	return si->ssi_code == SI_KERNEL && getpgid(s->program) == getpgrp() &&
	       (n == SIGINT || n == SIGQUIT || n == SIGWINCH ||
		(n == SIGHUP && getsid(0) != getpid()));
}

static void pass_on(struct supervisor *s, const struct signalfd_siginfo *si)
{
	if (si->ssi_signo == SIGWINCH)
		live_resized(&s->live);
	if (si->ssi_signo == SIGCHLD)
		reap(s);
	else if (si->ssi_signo == SIGTSTP)
		live_pause(&s->live);
	else if (s->program > 0 && !s->program_over && si->ssi_signo != SIGTTOU && !has_had(s, si))
		kill(s->program, (int)si->ssi_signo);
}

/* The loader goes on without a library that it cannot load; we do not. */
static void no_agent(struct supervisor *s)
{
	fprintf(stderr, "tmem run: the agent could not be loaded into %s\n", s->opts->argv[0]);
	s->refused = true;
	kill(s->program, SIGKILL);
}

static void supervise(struct supervisor *s)
{
	struct signalfd_siginfo si;
	struct control_message m;

	while (!s->host_done) {
		struct pollfd p[2] = {{.fd = s->control, .events = POLLIN},
				      {.fd = s->signals, .events = POLLIN}};

		int n = poll(p, 2, live_wait_ms(&s->live, s->agent_seen ? -1 : AGENT_WAIT_MS));

		live_tick(&s->live);
		if (!s->agent_seen && !s->program_over && !s->refused &&
		    os_clock_ns() - s->started_ns > AGENT_WAIT_MS * 1000000ull)
			no_agent(s);
		if (n <= 0)
			continue;
		if (p[1].revents && read(s->signals, &si, sizeof(si)) == sizeof(si))
			pass_on(s, &si);
		if (!p[0].revents)
			continue;
		if (!control_message(s, &m)) {
			fail_stop(s);
			return;
		}
		s->host_done = m.kind == CONTROL_DONE;
		if (m.kind == CONTROL_SAY)
			fprintf(stderr, "tmem run: %.231s\n", m.text);
		if (!s->host_done)
			continue;
		s->lacking = m.value;
		if (s->opts->traced)
			*s->opts->traced = m.space;
	}
}

/* A process of the program costs the host five descriptors, and us one. */
static void raise_file_limit(struct supervisor *s)
{
	struct rlimit most;

	getrlimit(RLIMIT_NOFILE, &s->old_files);
	most = s->old_files;
	most.rlim_cur = most.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &most) < 0)
		os_log(OS_LOG_DEBUG, "the limit of open files is as it was");
}

static int exit_code(const struct supervisor *s)
{
	if (s->failed)
		return 125;
	if (s->refused)
		return 126;
	if (!s->agent_seen)
		fprintf(stderr, "tmem run: warning: the agent was not loaded: %s ran unmanaged\n",
			s->opts->argv[0]);
	if (!WIFSIGNALED(s->status))
		return WEXITSTATUS(s->status) || !s->lacking ? WEXITSTATUS(s->status) : 125;
	/* The kernel asks nobody for pages when it writes one. */
	if (WCOREDUMP(s->status) && s->agent_seen)
		fprintf(stderr, "tmem run: the core of %s has zeros where pages were out\n",
			s->opts->argv[0]);
	return 128 + WTERMSIG(s->status);
}

int run_program(const struct run_options *opts)
{
	static const int caught[] = {SIGHUP,  SIGINT,  SIGQUIT,	 SIGTERM, SIGUSR1,
				     SIGUSR2, SIGCHLD, SIGWINCH, SIGALRM};
	struct run_options with = *opts;
	struct supervisor s = {.opts = &with, .control = -1};
	struct control_message ready = {0};
	char file[PATH_MAX];
	sigset_t mask;
	int rc;

	rc = probe_program(opts->argv[0], file, sizeof(file));
	if (rc == 0)
		rc = probe_kernel(&with.evict);
	if (rc)
		return rc;
	sigemptyset(&mask);
	for (unsigned i = 0; i < sizeof(caught) / sizeof(caught[0]); i++)
		sigaddset(&mask, caught[i]);
	with.board = opts->live ? live_board() : NULL;
	live_start(&s.live, with.board, descends_from_us);
	live_signals(&s.live, &mask);
	s.signals = signalfd(-1, &mask, SFD_CLOEXEC);
	/* Who has gone from the other end of stderr is not worth a program's end. */
	sigaddset(&mask, SIGPIPE);
	sigprocmask(SIG_BLOCK, &mask, &s.old_mask);
	/* Whoever started us may have ignored it, and then no child's end would be told. */
	sigaction(SIGCHLD, &(struct sigaction){.sa_handler = SIG_DFL}, &s.old_chld);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	raise_file_limit(&s);
	rc = start_host(&s, &ready);
	if (rc < 0 || ready.kind != CONTROL_READY) {
		fprintf(stderr, "tmem run: %s\n", rc < 0 ? strerror(-rc) : ready.text);
		return 126;
	}
	s.keeper = ready.value;
	rc = start_program(&s, file, ready.text);
	if (rc) {
		close(s.control); /* the host has nothing to keep and ends */
		waitpid(s.host, NULL, 0);
		return rc;
	}
	s.started_ns = os_clock_ns();
	supervise(&s);
	live_end(&s.live);
	reap(&s);
	free(s.held);
	return exit_code(&s);
}
