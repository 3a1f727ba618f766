/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which pages of files an unmodified program reads: what a page cache is asked
 * for.
 *
 * How: the program runs under ptrace with a seccomp filter that stops it at
 * the system calls listed below and at no other, so it runs at its own speed
 * in between; children are followed by the kernel itself. Chosen over
 * LD_PRELOAD, which sees neither static programs nor what libc calls inside
 * itself (all of stdio), and over fanotify, which has no offsets.
 *
 *   filter stops at entry -> arguments kept by thread -> runs on -> stops at exit
 *     -> result > 0: which file (/proc/TID/fd/N), where (argument, or fdinfo) -> records
 *
 * At the first sight of a page it is read and compressed by us, once, so that
 * a replay knows what it would take.
 *
 * Not seen, and said in tmem-trace(1): which pages of a mapping are touched
 * (the mapping itself is recorded), io_uring, 32-bit system calls on 64-bit
 * machines, openat2 with O_TRUNC. Of two threads that share one descriptor's
 * offset and read at once, the place may be taken for each other's.
 */
#include "cli/trace.h"

#include "codec/codec.h"
#include "os/clock.h"
#include "os/file.h"
#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096u

/* ---- the system calls -------------------------------------------------------- */

enum what { READS, WRITES, SENDS, COPIES, OPENS, CREATES, TRUNCATES, MAPS };

static const struct call {
	long nr;
	enum what what;
	int offset; /* which argument says where; -1: the descriptor's own place */
} calls[] = {
	{SYS_read, READS, -1},	       {SYS_readv, READS, -1},	  {SYS_pread64, READS, 3},
	{SYS_preadv, READS, 3},	       {SYS_preadv2, READS, 3},	  {SYS_write, WRITES, -1},
	{SYS_writev, WRITES, -1},      {SYS_pwrite64, WRITES, 3}, {SYS_pwritev, WRITES, 3},
	{SYS_pwritev2, WRITES, 3},     {SYS_sendfile, SENDS, 2},  {SYS_copy_file_range, COPIES, 1},
	{SYS_openat, OPENS, 2},
#ifdef SYS_open
	{SYS_open, OPENS, 1},	       {SYS_creat, CREATES, -1},
#endif
	{SYS_ftruncate, TRUNCATES, 1}, {SYS_mmap, MAPS, 5},
};
#define N_CALLS (sizeof(calls) / sizeof(calls[0]))

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "which AUDIT_ARCH_ is this machine?"
#endif

/* In the child, before exec: stop at these calls and no other. */
static int install_filter(void)
{
	struct sock_filter f[N_CALLS + 5];
	struct sock_fprog prog = {.filter = f};
	size_t n = 0;

	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
					      offsetof(struct seccomp_data, arch));
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 0, N_CALLS + 1);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
					      offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < N_CALLS; i++)
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
						      (uint32_t)calls[i].nr, (uint8_t)(N_CALLS - i),
						      0);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
	prog.len = (unsigned short)n;
	/* Without the privilege to filter set-user-ID programs, those run as who started them. */
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0)
		return 0;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		return -errno;
	return 0;
}

/* ---- what we know -------------------------------------------------------------- */

#define MAX_DEVICES 256u

struct device {
	dev_t dev;
	bool memory; /* of the kernel (/proc, /sys): nothing that a cache would keep */
};

struct thread { /* a thread between entry and exit of a call */
	pid_t tid;
	const struct call *call;
	uint64_t arg[6];
};

struct tracer {
	struct trace_out *out;
	pid_t main;
	int exit_code;
	struct device device[MAX_DEVICES];
	unsigned ndevices;
	struct thread *thread; /* open, unordered; few */
	unsigned nthreads, threads_size;
	uint64_t *seen; /* hashes of pages whose size was recorded; 0: free */
	uint64_t nseen, seen_size;
	void *cctx;
	const struct codec *codec;
};

static struct thread *find_thread(struct tracer *t, pid_t tid)
{
	for (unsigned i = 0; i < t->nthreads; i++)
		if (t->thread[i].tid == tid)
			return &t->thread[i];
	return NULL;
}

static struct thread *add_thread(struct tracer *t, pid_t tid)
{
	struct thread *old = find_thread(t, tid), *more;

	if (old)
		return old;
	if (t->nthreads == t->threads_size) {
		more = realloc(t->thread, (t->threads_size + 64) * sizeof(*more));
		if (!more)
			return NULL;
		t->thread = more;
		t->threads_size += 64;
	}
	t->thread[t->nthreads].tid = tid;
	return &t->thread[t->nthreads++];
}

static void drop_thread(struct tracer *t, pid_t tid)
{
	struct thread *th = find_thread(t, tid);

	if (th)
		*th = t->thread[--t->nthreads];
}

/* The device's number in this trace, or -1 when its files are not to be recorded. */
static int device_number(struct tracer *t, dev_t dev, const char *path)
{
	struct statfs fs;
	unsigned i;

	for (i = 0; i < t->ndevices && t->device[i].dev != dev; i++)
		;
	if (i == t->ndevices) {
		if (i == MAX_DEVICES || statfs(path, &fs))
			return -1;
		t->device[i].dev = dev;
		t->device[i].memory = fs.f_type == 0x9fa0 || fs.f_type == 0x62656572 ||
				      fs.f_type == 0x64626720 || fs.f_type == 0x27e0eb ||
				      fs.f_type == 0x63677270; /* proc, sys, debug, cgroups */
		t->ndevices++;
	}
	return t->device[i].memory ? -1 : (int)i;
}

/* ---- sizes --------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* Whether the page is new to us. Two pages with one hash: the second has no size of its own. */
static bool first_sight(struct tracer *t, uint64_t hash)
{
	uint64_t i;

	hash |= 1;
	if (t->nseen * 2 >= t->seen_size) {
		uint64_t size = t->seen_size ? t->seen_size * 2 : 1 << 16;
		uint64_t *old = t->seen, *more = calloc(size, sizeof(*more));

		if (!more)
			return false;
		for (uint64_t k = 0; k < t->seen_size; k++) {
			if (!old[k])
				continue;
			for (i = mix(old[k]) & (size - 1); more[i]; i = (i + 1) & (size - 1))
				;
			more[i] = old[k];
		}
		free(old);
		t->seen = more;
		t->seen_size = size;
	}
	for (i = mix(hash) & (t->seen_size - 1); t->seen[i]; i = (i + 1) & (t->seen_size - 1))
		if (t->seen[i] == hash)
			return false;
	t->seen[i] = hash;
	t->nseen++;
	return true;
}

static uint16_t compressed_size(struct tracer *t, const uint8_t *page)
{
	uint8_t to[PAGE];
	uint64_t word;
	size_t n;

	if (codec_same_filled(page, PAGE, &word))
		return 0;
	n = t->codec->compress(t->cctx, page, PAGE, to, 3584);
	return n ? (uint16_t)n : PAGE;
}

/* Sizes of the pages of a read, if any of them is new. */
static void add_sizes(struct tracer *t, const char *path, struct trace_op *op)
{
	static uint8_t buf[TRACE_SIZES_MAX * PAGE];
	bool fresh = false;
	ssize_t got;
	int fd;

	for (unsigned i = 0; i < op->n; i++)
		fresh |= first_sight(t, mix(op->oid[0] + mix(op->oid[1] + mix(op->index + i))));
	if (!fresh)
		return;
	fd = os_file_open(path, O_RDONLY | O_NOATIME, 0);
	if (fd < 0)
		fd = os_file_open(path, O_RDONLY, 0);
	if (fd < 0)
		return;
	memset(buf, 0, sizeof(buf));
	got = os_file_pread(fd, buf, (size_t)op->n * PAGE, op->index * PAGE);
	os_file_close(fd);
	if (got <= 0)
		return;
	op->nsizes = (unsigned)op->n;
	for (unsigned i = 0; i < op->n; i++)
		op->size[i] = compressed_size(t, buf + (size_t)i * PAGE);
}

/* ---- records ------------------------------------------------------------------- */

static void record(struct tracer *t, enum trace_opcode code, const char *path, int device,
		   ino_t ino, uint64_t from, uint64_t bytes)
{
	struct trace_op op = {.time_ns = os_clock_ns(), .op = code, .ok = true, .pool = device};
	uint64_t first = from / PAGE, last = bytes ? (from + bytes - 1) / PAGE : first;

	op.oid[0] = ino;
	op.oid[1] = (uint64_t)t->device[device].dev;
	if (last < first || last - first > 1ull << 32)
		return;
	for (op.index = first; op.index <= last; op.index += op.n) {
		op.n = last - op.index + 1;
		if (op.n > TRACE_SIZES_MAX && code != TRACE_MAP)
			op.n = TRACE_SIZES_MAX;
		op.nsizes = 0;
		if (code == TRACE_READ)
			add_sizes(t, path, &op);
		trace_out_add(t->out, &op);
	}
}

/* Where a descriptor's own place is now; false: not to be had. */
static bool descriptor_place(pid_t tid, int fd, uint64_t *pos)
{
	char path[64], *text;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)tid, fd);
	text = os_file_slurp(path, 8192, NULL);
	if (!text)
		return false;
	*pos = !strncmp(text, "pos:", 4) ? strtoull(text + 4, NULL, 10) : 0;
	os_free(text);
	return true;
}

/* An offset in the program's memory. */
static bool remote_word(pid_t tid, uint64_t at, uint64_t *value)
{
	struct iovec to = {value, 8}, from = {(void *)(uintptr_t)at, 8};

	return process_vm_readv(tid, &to, 1, &from, 1, 0) == 8;
}

/* Where a call that moved `done` bytes began. */
static bool place(const struct thread *th, int fd, uint64_t done, uint64_t *from)
{
	const struct call *c = th->call;
	bool found;

	*from = 0;
	if (c->what == SENDS || c->what == COPIES) {
		uint64_t pointer = th->arg[c->offset];

		found = pointer ? remote_word(th->tid, pointer, from)
				: descriptor_place(th->tid, fd, from);
		*from -= done; /* it has been moved on by now */
	} else if (c->offset >= 0 && th->arg[c->offset] != (uint64_t)-1) {
		*from = th->arg[c->offset];
		found = true;
	} else {
		found = descriptor_place(th->tid, fd, from);
		*from -= done;
	}
	return found && *from <= INT64_MAX;
}

static void record_call(struct tracer *t, const struct thread *th, const char *path,
			const struct stat *st, int device, int fd, int64_t result)
{
	enum trace_opcode code = th->call->what == WRITES ? TRACE_WRITE : TRACE_READ;
	uint64_t from;

	switch (th->call->what) {
	case READS:
	case WRITES:
	case SENDS:
	case COPIES:
		if (place(th, fd, (uint64_t)result, &from))
			record(t, code, path, device, st->st_ino, from, (uint64_t)result);
		break;
	case MAPS:
		record(t, TRACE_MAP, path, device, st->st_ino, th->arg[5], th->arg[1]);
		break;
	case OPENS:
	case CREATES:
	case TRUNCATES: {
		struct trace_op op = {.time_ns = os_clock_ns(), .ok = true, .pool = device};

		op.oid[0] = st->st_ino;
		op.oid[1] = (uint64_t)st->st_dev;
		op.op = TRACE_DROP_OBJECT;
		if (th->call->what == TRUNCATES) {
			op.op = TRACE_DROP;
			op.index = th->arg[1] / PAGE;
			op.n = UINT64_MAX - op.index;
		}
		trace_out_add(t->out, &op);
		break;
	}
	}
}

/* A call has ended well: is it about a file that a cache would keep? */
static void call_done(struct tracer *t, const struct thread *th, int64_t result)
{
	enum what what = th->call->what;
	bool moves = what <= COPIES;
	char path[64];
	struct stat st;
	int fd, device;

	if (result < 0 || (moves && result == 0))
		return;
	if (what == OPENS && !(th->arg[th->call->offset] & O_TRUNC))
		return;
	if (what == MAPS && th->arg[3] & MAP_ANONYMOUS)
		return;
	fd = (int)(what == SENDS ? th->arg[1] : what == MAPS ? th->arg[4] : th->arg[0]);
	if (what == OPENS || what == CREATES)
		fd = (int)result;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)th->tid, fd);
	if (fd < 0 || stat(path, &st) || !S_ISREG(st.st_mode))
		return;
	device = device_number(t, st.st_dev, path);
	if (device >= 0)
		record_call(t, th, path, &st, device, fd, result);
}

/* ---- stops --------------------------------------------------------------------- */

/* Entry: keep the arguments. Whether the exit is to be waited for. */
static bool entered(struct tracer *t, pid_t tid)
{
	struct __ptrace_syscall_info info;
	struct thread *th;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) <= 0 ||
	    info.op != PTRACE_SYSCALL_INFO_SECCOMP)
		return false;
	for (size_t i = 0; i < N_CALLS; i++) {
		if ((long)info.seccomp.nr != calls[i].nr)
			continue;
		th = add_thread(t, tid);
		if (!th)
			return false;
		th->call = &calls[i];
		for (unsigned k = 0; k < 6; k++)
			th->arg[k] = info.seccomp.args[k];
		return true;
	}
	return false;
}

static void left(struct tracer *t, pid_t tid)
{
	struct __ptrace_syscall_info info;
	struct thread *th = find_thread(t, tid);

	if (!th)
		return;
	if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) > 0 &&
	    info.op == PTRACE_SYSCALL_INFO_EXIT && !info.exit.is_error)
		call_done(t, th, info.exit.rval);
	drop_thread(t, tid);
}

static void stopped(struct tracer *t, pid_t tid, int status)
{
	int event = status >> 16, sig = WSTOPSIG(status);
	bool to_exit = false;

	if (event == PTRACE_EVENT_SECCOMP) {
		to_exit = entered(t, tid);
		sig = 0;
	} else if (event == PTRACE_EVENT_STOP) {
		if (sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU) {
			ptrace(PTRACE_LISTEN, tid, 0, 0);
			return;
		}
		sig = 0;
	} else if (event) {
		if (event == PTRACE_EVENT_EXEC)
			trace_out_begin(t->out); /* only now is there something to record */
		sig = 0;
	} else if (sig == (SIGTRAP | 0x80)) {
		left(t, tid);
		sig = 0;
	}
	/* It may have been killed since: then its end is reported next. */
	ptrace(to_exit ? PTRACE_SYSCALL : PTRACE_CONT, tid, 0, (void *)(intptr_t)sig);
}

/* Until the program and everything it left behind has ended. */
static void attend(struct tracer *t)
{
	for (;;) {
		int status;
		pid_t tid = waitpid(-1, &status, __WALL);

		if (tid < 0 && errno == EINTR)
			continue;
		if (tid < 0)
			break;
		if (WIFSTOPPED(status)) {
			stopped(t, tid, status);
			continue;
		}
		drop_thread(t, tid);
		if (tid == t->main)
			t->exit_code =
				WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
}

/* ---- starting ------------------------------------------------------------------ */

static pid_t forward_to;

static void forward(int sig)
{
	if (forward_to > 0)
		kill(forward_to, sig);
}

/* The child: waits until it is traced, then becomes the program. */
static void become(char **argv, int go)
{
	char c;
	int rc;

	if (read(go, &c, 1) != 1)
		_exit(125);
	close(go);
	rc = install_filter();
	if (rc == 0) {
		execvp(argv[0], argv);
		rc = -errno;
	}
	fprintf(stderr, "tmem trace: cannot run %s: %s\n", argv[0], strerror(-rc));
	_exit(rc == -ENOENT ? 127 : 126);
}

static int start(struct tracer *t, char **argv, char *err, size_t errlen)
{
	const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
			     PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACESECCOMP |
			     PTRACE_O_EXITKILL;
	int go[2], rc;

	if (pipe2(go, O_CLOEXEC))
		goto failed;
	fflush(NULL);
	t->main = fork();
	if (t->main == 0) {
		close(go[1]);
		become(argv, go[0]);
	}
	rc = errno;
	close(go[0]);
	errno = rc;
	if (t->main < 0 || ptrace(PTRACE_SEIZE, t->main, 0, options)) {
		rc = errno;
		close(go[1]); /* lets the child end */
		if (t->main > 0)
			waitpid(t->main, NULL, 0);
		errno = rc;
		goto failed;
	}
	forward_to = t->main;
	if (write(go[1], "g", 1) != 1)
		kill(t->main, SIGKILL);
	close(go[1]);
	return 0;
failed:
	snprintf(err, errlen, "cannot trace a program here: %s", strerror(errno));
	return -1;
}

int trace_files(struct trace_out *o, char **argv, char *err, size_t errlen)
{
	static struct tracer t;
	struct sigaction ignore = {.sa_handler = SIG_IGN}, pass = {.sa_handler = forward};
	struct codec_set codecs = {0};
	struct codec_spec spec;
	int rc = 125;

	t = (struct tracer){.out = o, .exit_code = 125};
	if (codec_parse("lz4", &spec, err, errlen))
		return rc;
	t.codec = spec.codec;
	t.cctx = codec_set_cctx(&codecs, &spec);
	if (t.cctx && start(&t, argv, err, errlen) == 0) {
		/* After the fork: the program has what the shell gave us. */
		sigaction(SIGINT, &ignore, NULL);
		sigaction(SIGQUIT, &ignore, NULL);
		sigaction(SIGTERM, &pass, NULL);
		sigaction(SIGHUP, &pass, NULL);
		attend(&t);
		rc = t.exit_code;
	} else if (!t.cctx) {
		snprintf(err, errlen, "out of memory");
	}
	codec_set_clear(&codecs);
	free(t.seen);
	free(t.thread);
	return rc;
}
