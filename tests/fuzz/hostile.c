/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A hostile program: it speaks to the host of `tmem run` as an agent does, with the right token,
 * and lies. What it does is told by bytes: each picks an act, and the act takes the bytes it needs.
 *
 *   hostile ADDRESS           reads inputs from fd 0 (u32 length, bytes), plays each in a process
 * of its own for a tenth of a second at most, answers with one byte on fd 1. hostile ADDRESS HEX...
 * plays these, one after the other, in this process, and ends
 *
 * ADDRESS as in TMEM_RUN_SOCKET; "-": from there. It links nothing of tmem and no sanitizer, so
 * that its memory is small and all its own.
 */
#include "frontswap/uffd.h"
#include "fuzz.h"
#include "proto/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REGION	(2048u * AGENT_PAGE)
#define PLAY_MS 200
#define INPUT	8192u
#define LINES	4u
#define STEPS	64u

/* What it has of the host. */
struct line {
	int sock, memfd, event;
	struct agent_shm *shm;
};

static struct sockaddr_un address = {.sun_family = AF_UNIX};
static socklen_t address_len;
static uint64_t token;
static struct line lines[LINES];
static struct line *now = lines;
static char *region, *own;
static int uffd = -1;
static uint64_t name_told; /* of a space */

static void pause_ms(unsigned ms)
{
	struct timespec t = {0, ms * 1000000l};

	nanosleep(&t, NULL);
}

static int parse_address(const char *text)
{
	const char *colon = strrchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : 0;

	if (!n || n > sizeof(address.sun_path) - 2)
		return -1;
	memcpy(address.sun_path + 1, text, n);
	address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
	token = strtoull(colon + 1, NULL, 16);
	return 0;
}

/* ---- descriptors and messages -------------------------------------------------------------- */

static int new_uffd(bool api, int flags)
{
	struct uffdio_api a = {.api = UFFD_API, .features = UFFD_FEATURES_FULL};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | flags);

	if (fd >= 0 && api && ioctl(fd, UFFDIO_API, &a) < 0) {
		close(fd);
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | flags);
		a = (struct uffdio_api){.api = UFFD_API, .features = UFFD_FEATURES_NEEDED};
		if (fd >= 0 && ioctl(fd, UFFDIO_API, &a) < 0)
			return fd;
	}
	return fd;
}

/* A pipe in which events wait that no kernel sent. */
static int false_events(void)
{
	struct uffd_msg m[4] = {{.event = UFFD_EVENT_FORK},
				{.event = UFFD_EVENT_REMAP},
				{.event = UFFD_EVENT_UNMAP},
				{.event = UFFD_EVENT_PAGEFAULT}};
	int p[2];

	m[0].arg.fork.ufd = 5;
	m[1].arg.remap.len = 1ull << 60;
	m[2].arg.remove.end = ~0ull;
	if (pipe2(p, O_NONBLOCK) < 0 || write(p[1], m, sizeof(m)) < 0)
		return -1;
	return p[0];
}

static int descriptor(unsigned kind)
{
	int p[2];

	switch (kind % 10) {
	case 0:
		return uffd;
	case 1:
		return open("/dev/null", O_RDWR);
	case 2:
		return false_events();
	case 3:
		return socketpair(AF_UNIX, SOCK_SEQPACKET, 0, p) < 0 ? -1 : p[0];
	case 4:
		return eventfd(7, 0);
	case 5:
		return new_uffd(false, O_NONBLOCK); /* never made ready */
	case 6:
		return memfd_create("anon_inode:[userfaultfd]", 0);
	case 7:
		return new_uffd(true, 0); /* blocks */
	case 8:
		return now->sock;
	default:
		return new_uffd(true, O_NONBLOCK);
	}
}

static void send_it(const void *p, size_t n, const int *fds, unsigned nfds)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(8 * sizeof(int))];
	} control;
	struct iovec iov = {(void *)(uintptr_t)p, n};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	for (unsigned i = 0; i < nfds; i++)
		if (fds[i] < 0)
			nfds = 0;
	if (nfds) {
		memset(&control, 0, sizeof(control));
		control.h.cmsg_len = CMSG_LEN(nfds * sizeof(int));
		control.h.cmsg_level = SOL_SOCKET;
		control.h.cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(&control.h), fds, nfds * sizeof(int));
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
	}
	if (sendmsg(now->sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		errno = 0; /* the host has had enough of us */
}

static int connect_it(void)
{
	int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (s >= 0 && connect(s, (struct sockaddr *)&address, address_len) < 0) {
		close(s);
		s = -1;
	}
	return s;
}

/* The answer to a hello, if one comes: memory, eventfd, and what else there is. */
static void welcome(void)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(8 * sizeof(int))];
	} control;
	struct agent_welcome w;
	struct iovec iov = {&w, sizeof(w)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control.space)};
	struct pollfd p = {.fd = now->sock, .events = POLLIN};
	struct cmsghdr *c;
	int fds[2];
	void *at;

	if (poll(&p, 1, 50) <= 0 || recvmsg(now->sock, &m, MSG_DONTWAIT) != sizeof(w))
		return;
	c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_len < CMSG_LEN(2 * sizeof(int)))
		return;
	memcpy(fds, CMSG_DATA(c), sizeof(fds));
	now->memfd = fds[0];
	now->event = fds[1];
	at = mmap(NULL, sizeof(*now->shm), PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
	now->shm = at == MAP_FAILED ? NULL : at;
}

static struct agent_hello true_hello(void)
{
	return (struct agent_hello){.magic = AGENT_MAGIC,
				    .version = AGENT_VERSION,
				    .kind = AGENT_EXEC,
				    .token = token,
				    .staging_a = (uintptr_t)own,
				    .identity = (uintptr_t)own + 4 * AGENT_PAGE,
				    .own_start = (uintptr_t)own,
				    .own_end = (uintptr_t)own + 16 * AGENT_PAGE};
}

static void ready(struct fuzz_in *in, bool mutate)
{
	struct agent_ready r = {.magic = AGENT_MAGIC};
	struct pollfd p = {.fd = now->sock, .events = POLLIN};

	if (mutate && fuzz_u8(in) & 1)
		((uint8_t *)&r)[fuzz_u8(in) % sizeof(r)] = fuzz_u8(in);
	send_it(&r, mutate ? fuzz_u8(in) % (2 * sizeof(r)) : sizeof(r), &now->sock,
		mutate ? fuzz_u8(in) % 3 : 0);
	if (poll(&p, 1, 50) > 0 && recv(now->sock, &r, sizeof(r), MSG_DONTWAIT) == sizeof(r))
		name_told = r.space;
}

static void hello(struct fuzz_in *in, bool mutate)
{
	struct agent_hello h = true_hello();
	int fds[4] = {uffd, -1, -1, -1};
	unsigned nfds = 1;

	now->sock = connect_it();
	if (now->sock < 0)
		return;
	if (mutate) {
		h.kind = 1 + fuzz_u8(in) % 3;
		h.flags = fuzz_u8(in) % 2;
		h.space = fuzz_u8(in) % 2 ? name_told : fuzz_u8(in);
		nfds = fuzz_u8(in) % 4;
		for (unsigned i = 0; i < nfds; i++)
			fds[i] = descriptor(fuzz_u8(in));
		for (unsigned i = fuzz_u8(in) % 4; i > 0; i--)
			((uint8_t *)&h)[fuzz_u8(in) % sizeof(h)] = fuzz_u8(in);
	}
	send_it(&h, mutate && fuzz_u8(in) % 8 == 0 ? fuzz_u8(in) : sizeof(h), fds, nfds);
	welcome();
}

/* ---- the shared memory ---------------------------------------------------------------------- */

static const uint64_t numbers[] = {
	0,	    1,		2,	    15,		16,	    17,	  31,	  32,
	33,	    63,		64,	    95,		96,	    97,	  0xffff, 0x10000,
	0x7fffffff, 0x80000000, 0xffffffff, 1ull << 47, 1ull << 63, ~0ull};

static uint64_t number(struct fuzz_in *in)
{
	uint8_t k = fuzz_u8(in);

	if (k < sizeof(numbers) / sizeof(numbers[0]))
		return numbers[k];
	return k & 1 ? (uintptr_t)region + fuzz_u16(in) * 1024ull : fuzz_u64(in);
}

static void scribble(struct fuzz_in *in)
{
	size_t head = offsetof(struct agent_shm, threads) + 16 * sizeof(struct agent_thread);
	uint64_t v = number(in);
	size_t at = fuzz_u16(in) % (head / 4) * 4;

	if (now->shm)
		memcpy((char *)now->shm + at, &v, fuzz_u8(in) & 1 ? 4 : 8);
}

/* An answer to whatever was asked, as far as that is not waited for by an honest thread. */
static void answer(struct fuzz_in *in)
{
	struct agent_shm *shm = now->shm;
	uint64_t one = 1;

	if (!shm)
		return;
	for (unsigned i = 0; i < 6 && atomic_load(&shm->done) == atomic_load(&shm->command); i++)
		pause_ms(1);
	for (uint32_t i = 0; i < AGENT_BATCH; i++) {
		struct agent_cmd *c = &shm->cmds[i];
		uint8_t how = fuzz_u8(in);

		c->moved = how & 1 ? ~0u : fuzz_u16(in);
		c->absent = how & 2 ? ~0u : 0;
		c->error = how & 4 ? EAGAIN : how & 8 ? EBUSY : 0;
		c->slot = how & 16 ? (uint32_t)number(in) : c->slot;
		c->pages = how & 32 ? number(in) : c->pages;
		c->marked = c->stays = how & 64 ? ~0u : 0;
		c->left = how & 128 ? ~0u : 0;
	}
	atomic_store(&shm->moved, atomic_load(&shm->command) + fuzz_u8(in) % 3 / 2);
	syscall(SYS_futex, &shm->moved, 1, 64);
	atomic_store(&shm->done, atomic_load(&shm->command));
	if (now->event >= 0 && write(now->event, &one, sizeof(one)) < 0)
		errno = 0;
}

/* All that the host reads changes all the time. */
static void *storm(void *arg)
{
	struct agent_shm *shm = arg;
	uint64_t x = 88172645463325252ull;

	for (;;) {
		struct agent_cmd *c;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		c = &shm->cmds[x % AGENT_BATCH];
		c->slot = (uint32_t)(x >> 8);
		c->pages = x >> 16;
		c->addr = (uintptr_t)region + (x >> 20) % REGION;
		c->moved = (uint32_t)(x >> 3);
		c->absent = (uint32_t)(x >> 30);
		c->stays = (uint32_t)(x >> 11);
		shm->ncmds = (uint32_t)(x >> 9);
		atomic_store(&shm->threads[x % 8].tid, (int32_t)(x >> 32) % 3);
		atomic_store(&shm->threads[x % 8].start, (uintptr_t)region + x % REGION);
		atomic_store(&shm->threads[x % 8].end, (uintptr_t)region + x % REGION + 8192);
		atomic_store(&shm->moved, atomic_load(&shm->command));
		atomic_store(&shm->done, atomic_load(&shm->command));
	}
	return NULL;
}

static void in_a_thread(void *(*fn)(void *), void *arg)
{
	pthread_attr_t a;
	pthread_t t;

	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 65536);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&t, &a, fn, arg))
		errno = 0;
	pthread_attr_destroy(&a);
}

/* ---- its own memory -----------------------------------------------------------------------------
 */

static void *touch_main(void *arg)
{
	uint64_t how = (uintptr_t)arg;
	volatile char *p = region + how % REGION;

	for (unsigned i = 0; i < 64 && p + i * 4096ul < region + REGION; i++) {
		if (how & 1 << 30)
			p[i * 4096ul] = 1;
		else
			(void)p[i * 4096ul];
	}
	return NULL;
}

static void change_memory(struct fuzz_in *in)
{
	char *at = region + fuzz_u16(in) % 2048 * 4096ul;
	size_t n = (1 + fuzz_u8(in) % 64) * 4096ul;

	if (at + n > region + REGION)
		n = (size_t)(region + REGION - at);
	switch (fuzz_u8(in) % 6) {
	case 0:
		madvise(at, n, MADV_DONTNEED);
		break;
	case 1:
		madvise(at, n, MADV_FREE);
		break;
	case 2:
		munmap(at, n);
		break;
	case 3:
		if (mremap(at, n, n + 4096, MREMAP_MAYMOVE) == MAP_FAILED)
			errno = 0;
		break;
	case 4:
		mprotect(at, n, PROT_READ);
		break;
	case 5:
		if (mmap(at, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			 0) == MAP_FAILED)
			errno = 0;
		break;
	}
}

/* What the host has of us, in our own hands as well. */
static void meddle(struct fuzz_in *in)
{
	uint64_t at = (uintptr_t)region + fuzz_u16(in) % 2048 * 4096ul;
	struct uffdio_range range = {at, (1 + fuzz_u8(in) % 16) * 4096ul};
	struct uffdio_register r = {.range = range, .mode = UFFDIO_REGISTER_MODE_MISSING};
	struct uffdio_zeropage z = {.range = range};
	uint64_t count = 0xfffffffffffffffeull;
	struct uffd_msg m[8];

	switch (fuzz_u8(in) % 12) {
	case 0:
		ioctl(uffd, UFFDIO_UNREGISTER, &range);
		break;
	case 1:
		ioctl(uffd, UFFDIO_REGISTER, &r);
		break;
	case 2:
		ioctl(uffd, UFFDIO_WAKE, &range);
		break;
	case 3:
		ioctl(uffd, UFFDIO_ZEROPAGE, &z);
		break;
	case 4:
		if (read(uffd, m, sizeof(m)) < 0) /* events that are the host's */
			errno = 0;
		break;
	case 5:
		fcntl(uffd, F_SETFL, 0);
		break;
	case 6:
		fcntl(now->event, F_SETFL, 0);
		break;
	case 7:
		if (write(now->event, &count, 8) < 0 || read(now->event, &count, 8) < 0)
			errno = 0;
		break;
	case 8:
		if (ftruncate(now->memfd, fuzz_u16(in)) < 0)
			errno = 0;
		break;
	case 9:
		fallocate(now->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			  (off_t)sizeof(struct agent_shm));
		break;
	case 10:
		shutdown(now->sock, fuzz_u8(in) % 3);
		break;
	case 11:
		close(uffd);
		uffd = new_uffd(true, O_NONBLOCK);
		break;
	}
}

static void make_child(struct fuzz_in *in)
{
	uint8_t how = fuzz_u8(in);
	struct agent_hello h = true_hello();
	pid_t pid = fork();

	if (pid)
		return;
	now = &lines[LINES - 1];
	*now = (struct line){-1, -1, -1, NULL};
	if (how & 1)
		touch_main((void *)(uintptr_t)(how * 65536ul));
	h.kind = AGENT_FORK;
	h.space = how & 2 ? *(volatile uint64_t *)(uintptr_t)h.identity : name_told + (how >> 4);
	if (how & 4 && (now->sock = connect_it()) >= 0) {
		send_it(&h, sizeof(h), NULL, 0);
		welcome();
		if (how & 8)
			ready(in, true);
	}
	pause_ms(how % 16);
	_exit(0);
}

static void claim_or_fork(struct fuzz_in *in)
{
	struct agent_shm *shm = now->shm;

	if (!shm)
		return;
	switch (fuzz_u8(in) % 4) {
	case 0:
		atomic_store(&shm->claim_start, number(in));
		atomic_store(&shm->claim_end, number(in));
		atomic_fetch_add(&shm->claim_asked, 1);
		break;
	case 1:
		atomic_fetch_add(&shm->fork_asked, fuzz_u8(in) % 3);
		break;
	case 2:
		atomic_fetch_add(&shm->fork_over, 1);
		break;
	case 3:
		atomic_fetch_add(&shm->forking, 1);
		atomic_store(&shm->agent_tid, (int32_t)gettid());
		break;
	}
}

static void connections(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int s = connect_it();

		if (s >= 0 && i % 2)
			close(s);
	}
}

/* ---- the play -------------------------------------------------------------------------------- */

static void act(struct fuzz_in *in)
{
	char garbage[300];

	switch (fuzz_u8(in) % 18) {
	case 0:
		hello(in, false);
		ready(in, false);
		break;
	case 1:
		hello(in, true);
		break;
	case 2:
		ready(in, true);
		break;
	case 3:
		memset(garbage, fuzz_u8(in), sizeof(garbage));
		send_it(garbage, fuzz_u16(in) % sizeof(garbage), &uffd, fuzz_u8(in) % 2);
		break;
	case 4:
	case 5:
		scribble(in);
		break;
	case 6:
	case 7:
	case 8:
		answer(in);
		break;
	case 9:
		if (now->shm)
			in_a_thread(storm, now->shm);
		break;
	case 10:
	case 11:
		in_a_thread(touch_main, (void *)(uintptr_t)((uint64_t)fuzz_u16(in) << 15));
		break;
	case 12:
		change_memory(in);
		break;
	case 13:
		meddle(in);
		break;
	case 14:
		make_child(in);
		break;
	case 15:
		claim_or_fork(in);
		break;
	case 16:
		now = &lines[fuzz_u8(in) % LINES];
		if (fuzz_u8(in) % 4 == 0 && now->sock >= 0) {
			close(now->sock);
			now->sock = -1;
		}
		break;
	case 17:
		if (fuzz_u8(in) % 8 == 0)
			connections(fuzz_u8(in));
		else
			pause_ms(fuzz_u8(in) % 8);
		break;
	}
}

static void play(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};

	for (unsigned i = 0; i < LINES; i++)
		lines[i] = (struct line){-1, -1, -1, NULL};
	region = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	own = mmap(NULL, 16 * AGENT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		   0);
	if (region == MAP_FAILED || own == MAP_FAILED)
		_exit(3);
	memset(region, 1, REGION / 2);
	uffd = new_uffd(true, O_NONBLOCK);
	if (fuzz_u8(&in) % 4) { /* most get as far as the shared memory */
		hello(&in, false);
		ready(&in, false);
	}
	for (unsigned i = 0; i < STEPS && in.n; i++)
		act(&in);
}

static bool all(int fd, void *p, size_t n)
{
	for (char *at = p; n;) {
		ssize_t got = read(fd, at, n);

		if (got <= 0)
			return false;
		at += got;
		n -= (size_t)got;
	}
	return true;
}

static void play_one(uint8_t *data, uint32_t size)
{
	struct timespec end, t;
	pid_t pid = fork();

	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		setpgid(0, 0);
		dup2(null, 0); /* the pipes are not a part of the play */
		dup2(null, 1);
		play(data, size);
		_exit(0);
	}
	if (pid < 0)
		return;
	setpgid(pid, pid);
	clock_gettime(CLOCK_MONOTONIC, &end);
	do {
		siginfo_t si = {0};

		pause_ms(1);
		/* Not reaped before its group is killed: the number stays its own. */
		if (waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid)
			break;
		clock_gettime(CLOCK_MONOTONIC, &t);
	} while ((t.tv_sec - end.tv_sec) * 1000 + (t.tv_nsec - end.tv_nsec) / 1000000 < PLAY_MS);
	kill(-pid, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

static int serve_inputs(void)
{
	static uint8_t data[INPUT];
	uint32_t n;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (all(0, &n, sizeof(n)) && n <= sizeof(data) && all(0, data, n)) {
		play_one(data, n);
		if (write(1, "", 1) != 1)
			break;
	}
	return 0;
}

static int play_text(const char *hex)
{
	uint8_t data[INPUT];
	size_t n = 0;

	for (; n < sizeof(data) && sscanf(hex + 2 * n, "%2hhx", &data[n]) == 1; n++)
		;
	play(data, n);
	pause_ms(100);
	return 0;
}

int main(int argc, char **argv)
{
	const char *at = argc > 1 && strcmp(argv[1], "-") ? argv[1] : getenv(AGENT_ENV);

	signal(SIGPIPE, SIG_IGN);
	if (!at || parse_address(at) < 0) {
		fprintf(stderr, "usage: hostile ADDRESS|- [HEX...]\n");
		return 2;
	}
	if (argc < 3)
		return serve_inputs();
	for (int i = 2; i < argc; i++)
		play_text(argv[i]);
	return 0;
}
