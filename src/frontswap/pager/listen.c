/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Agents connect here; each connection becomes a space, or, after a fork, the
 * voice of one that is known. A thread a handshake: a program that is stopped
 * in the middle of it holds nobody up.
 */
#include "frontswap/pager/run.h"

#include "os/log.h"
#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define VISITS_MOST 256u  /* at once */
#define PAUSE_US    2000u /* no descriptor is left, or no place */

int listen_open(struct run *r, char *err, size_t errlen)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	uint64_t nonce[2];
	size_t n;

	if (getrandom(nonce, sizeof(nonce), 0) != sizeof(nonce)) {
		snprintf(err, errlen, "no random numbers: %s", strerror(errno));
		return -EIO;
	}
	r->token = nonce[0];
	n = (size_t)snprintf(r->socket_name, sizeof(r->socket_name), "tmem-run-%d-%016llx",
			     (int)getpid(), (unsigned long long)nonce[1]);
	memcpy(a.sun_path + 1, r->socket_name, n);
	r->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (r->listener < 0 ||
	    bind(r->listener, (struct sockaddr *)&a,
		 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)) < 0 ||
	    listen(r->listener, 128) < 0) {
		snprintf(err, errlen, "cannot listen for the program: %s", strerror(errno));
		return -errno;
	}
	return 0;
}

uint64_t listen_name(void)
{
	uint64_t name = 0;

	while (!name) /* without a flag, and for so few bytes, it does not fail */
		if (getrandom(&name, sizeof(name), 0) != sizeof(name))
			name = 0;
	return name;
}

static int send_with_fds(int sock, const void *buf, size_t n, const int *fds, unsigned nfds)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(3 * sizeof(int))];
	} control;
	struct iovec iov = {(void *)(uintptr_t)buf, n};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfds) {
		memset(&control, 0, sizeof(control));
		control.h.cmsg_len = CMSG_LEN(nfds * sizeof(int));
		control.h.cmsg_level = SOL_SOCKET;
		control.h.cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(&control.h), fds, nfds * sizeof(int));
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
	}
	return sendmsg(sock, &m, MSG_NOSIGNAL) == (ssize_t)n ? 0 : -EPIPE;
}

/* Must be called with run.lock held: a space may end at any time. */
static struct space *find_space(struct run *r, uint64_t id)
{
	struct space *sp;

	for (sp = r->spaces; sp && sp->id != id; sp = sp->next)
		;
	return sp;
}

/* A child's userfaultfd, duplicated; or -1. */
static int child_uffd(struct run *r, uint64_t id)
{
	struct space *sp;
	int fd = -1;

	os_mutex_lock(&r->lock);
	sp = find_space(r, id);
	if (sp && !atomic_load(&sp->offered))
		fd = fcntl(sp->uffd, F_DUPFD_CLOEXEC, 0);
	os_mutex_unlock(&r->lock);
	return fd;
}

static struct space *new_space(struct run *r, int uffd, const struct agent_hello *hello)
{
	tmem_pool pool = tmem_pool_create(r->client, TMEM_POOL_PERSIST, 64);
	uint64_t name;
	struct space *sp = pool >= 0 && uffd >= 0 ? space_create(r, uffd, pool) : NULL, *parent;

	if (!sp) {
		if (pool >= 0)
			tmem_pool_destroy(r->client, pool);
		if (uffd >= 0)
			close(uffd);
		return NULL;
	}
	name = listen_name();
	sp->careful = hello->flags & AGENT_CAREFUL;
	os_mutex_lock(&r->lock);
	sp->id = sp->family = name;
	parent = sp->careful && hello->space ? find_space(r, hello->space) : NULL;
	if (parent) {
		sp->family = parent->family;
		sp->forked = true;
		atomic_fetch_add(&r->n.forks, 1);
	}
	sp->next = r->spaces;
	r->spaces = sp;
	atomic_fetch_add(&r->nspaces, 1);
	os_mutex_unlock(&r->lock);
	atomic_fetch_add(&r->n.spaces, 1);
	run_hold(r, sp->id, 0, uffd);
	return sp;
}

static void refuse(int sock, int error)
{
	struct agent_welcome w = {.magic = AGENT_MAGIC, .error = error};

	if (send_with_fds(sock, &w, sizeof(w), NULL, 0) < 0)
		return; /* it is gone already */
}

/* What a handshake makes, before it belongs to a space. */
struct line {
	struct agent_shm *shm;
	int sock, wake, told;
};

/* Shared memory, eventfd, and for a child its userfaultfd; then READY. */
static int greet(struct line *l, int uffd, enum agent_kind kind)
{
	struct agent_welcome w = {.magic = AGENT_MAGIC, .shm_bytes = sizeof(struct agent_shm)};
	struct agent_ready ready;
	int memfd = memfd_create("tmem-run", MFD_CLOEXEC | MFD_ALLOW_SEALING), none = -1;
	int rc = -ENOMEM;
	void *shm;

	l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->told = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* Were it cut short, our next look at it would end us. */
	if (memfd < 0 || l->wake < 0 || l->told < 0 ||
	    ftruncate(memfd, sizeof(struct agent_shm)) < 0 ||
	    fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		goto out;
	shm = mmap(NULL, sizeof(struct agent_shm), PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (shm == MAP_FAILED)
		goto out;
	l->shm = shm;
	rc = send_with_fds(l->sock, &w, sizeof(w), (int[]){memfd, l->wake, uffd},
			   kind == AGENT_FORK ? 3 : 2);
	if (rc == 0 && (peer_recv(l->sock, &ready, sizeof(ready), &none) < 0 ||
			ready.magic != AGENT_MAGIC || ready.error))
		rc = -EPROTO;
out:
	if (none >= 0)
		close(none);
	if (memfd >= 0)
		close(memfd);
	return rc;
}

static void hand_over(struct space *sp, struct line *l, const struct agent_hello *hello)
{
	int pidfd;
	pid_t pid = peer_process(l->sock, &pidfd);
	uint64_t one = 1;

	sp->offer = (struct offer){.shm = l->shm,
				   .sock = l->sock,
				   .wake = l->wake,
				   .told = l->told,
				   .pidfd = pidfd,
				   .pid = pid,
				   .identity = hello->identity,
				   .own_start = hello->own_start,
				   .own_end = hello->own_end};
	*l = (struct line){NULL, -1, -1, -1};
	atomic_store(&sp->offered, true);
	if (sp->come >= 0) /* and cannot be full */
		(void)!write(sp->come, &one, sizeof(one));
}

static void visit_exec(struct run *r, struct line *l, const struct agent_hello *hello, int uffd)
{
	struct space *sp;
	os_thread t;

	/*
	 * A process after the first that may not make a userfaultfd (it has dropped its privileges,
	 * or is in a sandbox) is as if the run were over: of what was just executed nothing is out.
	 */
	if (hello->error < 0) {
		refuse(l->sock, atomic_load(&r->n.spaces) ? -ENOENT : hello->error);
		return;
	}
	if (hello->error || uffd < 0 || !peer_userfaultfd(uffd)) {
		refuse(l->sock, -EPROTO);
		return;
	}
	/* Nothing is registered before the pager runs, so no fault waits for it. */
	if (greet(l, -1, AGENT_EXEC) < 0)
		return;
	sp = new_space(r, fcntl(uffd, F_DUPFD_CLOEXEC, 0), hello);
	if (!sp) {
		os_log(OS_LOG_ERROR, "no memory, or no descriptor, for one more process");
		return;
	}
	hand_over(sp, l, hello);
	if (os_thread_create(&t, "tmem-pager", pager_thread, sp) < 0)
		pager_finish(sp);
}

static void visit_fork(struct run *r, struct line *l, const struct agent_hello *hello)
{
	int uffd = child_uffd(r, hello->space);
	struct space *sp;

	if (uffd < 0)
		return;
	if (greet(l, uffd, AGENT_FORK) == 0) {
		os_mutex_lock(&r->lock);
		sp = find_space(r, hello->space);
		if (sp && !atomic_load(&sp->offered))
			hand_over(sp, l, hello);
		os_mutex_unlock(&r->lock);
	}
	close(uffd);
}

struct visit {
	struct run *run;
	int sock;
};

static void *visit_main(void *arg)
{
	struct visit v = *(struct visit *)arg;
	struct timeval patience = {30, 0};
	struct line l = {NULL, v.sock, -1, -1};
	struct agent_hello hello;
	int uffd = -1;

	os_free(arg);
	pthread_detach(pthread_self());
	setsockopt(v.sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (peer_recv(v.sock, &hello, sizeof(hello), &uffd) == 0 && hello.magic == AGENT_MAGIC &&
	    hello.version == AGENT_VERSION && hello.token == v.run->token) {
		if (hello.kind == AGENT_EXEC)
			visit_exec(v.run, &l, &hello, uffd);
		else if (hello.kind == AGENT_FORK)
			visit_fork(v.run, &l, &hello);
	}
	if (uffd >= 0)
		close(uffd);
	if (l.shm)
		munmap(l.shm, sizeof(*l.shm));
	if (l.wake >= 0)
		close(l.wake);
	if (l.told >= 0)
		close(l.told);
	if (l.sock >= 0)
		close(l.sock);
	atomic_fetch_sub(&v.run->visits, 1);
	return NULL;
}

/* One connection that waits. False: none could be taken just now. */
static bool take_visitor(struct run *r)
{
	int sock = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC);
	struct visit *v;
	os_thread t;

	if (sock < 0)
		return false;
	v = peer_allowed(r, sock) ? os_alloc(sizeof(*v)) : NULL;
	if (v)
		*v = (struct visit){r, sock};
	atomic_fetch_add(&r->visits, 1);
	if (!v || os_thread_create(&t, "tmem-hello", visit_main, v) < 0) {
		atomic_fetch_sub(&r->visits, 1);
		os_free(v);
		close(sock);
	}
	return true;
}

void *listen_thread(void *arg)
{
	struct run *r = arg;

	while (!atomic_load(&r->stopping)) {
		struct pollfd p = {.fd = r->listener, .events = POLLIN};

		if (poll(&p, 1, 100) <= 0)
			continue;
		/* Who finds no place waits in the socket's queue. */
		if (atomic_load(&r->visits) >= VISITS_MOST || !take_visitor(r))
			usleep(PAUSE_US);
	}
	return NULL;
}
