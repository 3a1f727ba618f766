/* SPDX-License-Identifier: BSD-2-Clause */
/* e2e-hard: a huge address space; a userfaultfd of the program's own; I/O from and to its pages. */
#include "hard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- 1 TiB, barely used ---------------------------------------------------------- */

#define TIB	   (1ul << 40)
#define SPARSE_ONE 4096 /* lone pages, spread over all of it */

void hard_sparse(size_t mib)
{
	char *at = mmap(NULL, TIB, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t pages = mib * 256, first = TIB / 3 / PAGE;
	uint64_t state = 1;

	if (at == MAP_FAILED)
		fail("no address space of 1 TiB: %s", strerror(errno));
	madvise(at, TIB, MADV_NOHUGEPAGE);
	for (int round = 0; round < 3; round++) {
		ballast_fill(at, first, pages, (uint64_t)round);
		state = 1;
		for (size_t i = 0; i < SPARSE_ONE; i++) {
			size_t n = next_random(&state) % (first - 1);

			page_fill(at + n * PAGE, n, (uint64_t)round);
		}
		if (ballast_wrong(at, first, pages, (uint64_t)round))
			fail("wrong pages in the middle");
		state = 1;
		for (size_t i = 0; i < SPARSE_ONE; i++)
			if (ballast_wrong(at, next_random(&state) % (first - 1), 1,
					  (uint64_t)round))
				fail("a lone page is wrong");
		/* Pages given back are zeros again. */
		if (madvise(at + (first + pages / 2) * PAGE, pages / 4 * PAGE, MADV_DONTNEED))
			fail("MADV_DONTNEED: %s", strerror(errno));
		for (size_t i = 0; i < pages / 4; i++)
			if (at[(first + pages / 2 + i) * PAGE + i % PAGE])
				fail("page %zu was given back and is not zero", i);
	}
	printf("1 TiB mapped, %zu pages used\n", pages + SPARSE_ONE);
}

/* ---- a userfaultfd of the program's own --------------------------------------------- */

static int own_uffd(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = dev >= 0 ? ioctl(dev, _IO(0xAA, 0x00), O_CLOEXEC | O_NONBLOCK)
			  : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = {.api = UFFD_API};

	if (dev >= 0)
		close(dev);
	if (fd < 0)
		fail("no userfaultfd: %s", strerror(errno));
	if (ioctl(fd, UFFDIO_API, &api))
		fail("UFFDIO_API: %s", strerror(errno));
	return fd;
}

struct server {
	int fd;
	char *at;
	uint64_t salt;
	_Atomic size_t served;
	_Atomic bool stop;
};

/* Pages come from us when they are touched for the first time: what a program like this is for. */
static void *serve_main(void *arg)
{
	struct server *s = arg;
	_Alignas(4096) char page[PAGE];

	while (!atomic_load(&s->stop)) {
		struct pollfd p = {.fd = s->fd, .events = POLLIN};
		struct uffd_msg m;

		if (poll(&p, 1, 20) <= 0 || read(s->fd, &m, sizeof(m)) != sizeof(m))
			continue;
		if (m.event != UFFD_EVENT_PAGEFAULT)
			continue;
		uint64_t addr = m.arg.pagefault.address & -PAGE;
		struct uffdio_copy c = {.dst = addr, .src = (uintptr_t)page, .len = PAGE};

		page_fill(page, (addr - (uintptr_t)s->at) / PAGE, s->salt);
		if (ioctl(s->fd, UFFDIO_COPY, &c) == 0)
			atomic_fetch_add(&s->served, 1);
	}
	return NULL;
}

static void claim(int fd, char *at, size_t pages)
{
	struct uffdio_register r = {.range = {(uintptr_t)at, pages * PAGE},
				    .mode = UFFDIO_REGISTER_MODE_MISSING};

	if (ioctl(fd, UFFDIO_REGISTER, &r))
		fail("UFFDIO_REGISTER: %s", strerror(errno));
}

/*
 * Three regions of the program's own: a fresh one; one that it has used before and emptied; and a
 * part of one that it goes on using (the rest of it keeps its contents).
 */
void hard_uffd(size_t mib)
{
	size_t pages = mib * 256, own = 1024;
	char *ballast = ballast_map(pages), *fresh, *used, *part;
	struct server s[3];
	pthread_t t[3];

	ballast_fill(ballast, 0, pages, 0);
	used = ballast_map(own);
	ballast_fill(used, 0, own, 5);
	part = ballast_map(4 * own);
	ballast_fill(part, 0, 4 * own, 6);
	/* Long enough ago that all of it has been looked at, and some is out. */
	for (int round = 0; round < 3; round++)
		if (ballast_wrong(ballast, 0, pages, 0))
			fail("wrong pages before");
	fresh = ballast_map(own);
	for (int i = 0; i < 3; i++)
		s[i] = (struct server){.fd = own_uffd(), .salt = 10 + (uint64_t)i};
	s[0].at = fresh;
	s[1].at = used;
	s[2].at = part + own * PAGE;
	for (int i = 0; i < 3; i++) {
		claim(s[i].fd, s[i].at, own);
		/* What is there stays; what is given back comes from the server. */
		if (i && ballast_wrong(s[i].at - (i == 2 ? own * PAGE : 0), i == 2 ? own : 0, own,
				       i == 1 ? 5 : 6))
			fail("region %d lost its contents", i);
		if (i && madvise(s[i].at, own * PAGE, MADV_DONTNEED))
			fail("MADV_DONTNEED: %s", strerror(errno));
		pthread_create(&t[i], NULL, serve_main, &s[i]);
	}
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 3; i++)
			if (ballast_wrong(s[i].at, 0, own, s[i].salt))
				fail("region %d is not what its server gave", i);
		if (ballast_wrong(ballast, 0, pages, (uint64_t)round))
			fail("wrong pages beside them");
		ballast_fill(ballast, 0, pages, (uint64_t)round + 1);
	}
	if (ballast_wrong(part, 0, own, 6) || ballast_wrong(part, 2 * own, 2 * own, 6))
		fail("wrong pages around a region");
	for (int i = 0; i < 3; i++) {
		atomic_store(&s[i].stop, true);
		pthread_join(t[i], NULL);
		printf("region %d: %zu served\n", i, atomic_load(&s[i].served));
		close(s[i].fd);
		if (ballast_wrong(s[i].at, 0, own, s[i].salt))
			fail("region %d after its server", i);
	}
}

/* ---- what does not compress ----------------------------------------------------------- */

/* Noise that no limit can hold, and a little that is worked on all the time beside it. */
void hard_noise(size_t mib)
{
	size_t words = mib * 1048576 / 8, small = 512;
	uint64_t *noise = (uint64_t *)(void *)ballast_map(mib * 256), state = 7;
	char *work = ballast_map(small);

	for (size_t i = 0; i < words; i++)
		noise[i] = next_random(&state);
	for (uint64_t round = 0; round < 300; round++) {
		for (size_t at = 0; at < small; at += 32) {
			if (round && ballast_wrong(work, at, 32, round - 1))
				fail("wrong pages in round %d", (int)round);
			ballast_fill(work, at, 32, round);
		}
	}
	state = 7;
	for (size_t i = 0; i < words; i++)
		if (noise[i] != next_random(&state))
			fail("wrong word %zu of the noise", i);
	printf("%zu MiB of noise, %zu pages worked on\n", mib, small);
}

/* ---- O_DIRECT ------------------------------------------------------------------------- */

static int scratch_file(int flags)
{
	const char *dir = getenv("TMPDIR");
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/e2e-hard.XXXXXX", dir ? dir : "/var/tmp");
	fd = mkostemp(path, O_CLOEXEC | flags);
	if (fd < 0)
		fail("%s: %s", path, strerror(errno));
	unlink(path);
	return fd;
}

struct churn {
	char *at;
	size_t pages;
	_Atomic bool stop;
	_Atomic size_t wrong;
};

/* Keeps memory moving while the I/O runs. */
static void *churn_main(void *arg)
{
	struct churn *c = arg;

	for (uint64_t round = 0; !atomic_load(&c->stop); round++) {
		atomic_fetch_add(&c->wrong, ballast_wrong(c->at, 0, c->pages, 0));
	}
	return NULL;
}

/* Writes all of memory to a file past the page cache, and reads it back to other pages. */
void hard_direct(size_t mib)
{
	size_t pages = mib * 128, chunk = 61;
	char *from = ballast_map(pages), *to = ballast_map(pages);
	int fd = scratch_file(O_DIRECT);
	struct churn c = {.at = ballast_map(pages / 4), .pages = pages / 4};
	pthread_t t;

	ballast_fill(c.at, 0, c.pages, 0);
	pthread_create(&t, NULL, churn_main, &c);
	for (uint64_t round = 0; round < 2; round++) {
		ballast_fill(from, 0, pages, round);
		for (size_t i = 0; i < pages; i += chunk) {
			size_t n = pages - i < chunk ? pages - i : chunk;

			if (pwrite(fd, from + i * PAGE, n * PAGE, (off_t)(i * PAGE)) !=
			    (ssize_t)(n * PAGE))
				fail("write: %s", strerror(errno));
		}
		for (size_t i = 0; i < pages; i += chunk) {
			size_t n = pages - i < chunk ? pages - i : chunk;

			if (pread(fd, to + i * PAGE, n * PAGE, (off_t)(i * PAGE)) !=
			    (ssize_t)(n * PAGE))
				fail("read: %s", strerror(errno));
		}
		if (ballast_wrong(to, 0, pages, round) || ballast_wrong(from, 0, pages, round))
			fail("wrong pages in round %d", (int)round);
	}
	atomic_store(&c.stop, true);
	pthread_join(t, NULL);
	if (atomic_load(&c.wrong))
		fail("wrong pages beside the I/O");
	close(fd);
	printf("%zu pages written and read, O_DIRECT\n", 2 * pages);
}

/* ---- io_uring, fixed buffers -------------------------------------------------------------- */

struct ring {
	int fd;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	unsigned *sq_tail, *sq_array, *cq_head, *cq_tail, sq_mask, cq_mask;
};

static void ring_open(struct ring *r)
{
	struct io_uring_params p = {0};
	char *sq, *cq;

	r->fd = (int)syscall(SYS_io_uring_setup, 32, &p);
	if (r->fd < 0) {
		printf("no io_uring here: %s\n", strerror(errno));
		exit(77);
	}
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED,
		  r->fd, IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(*r->cqes), PROT_READ | PROT_WRITE,
		  MAP_SHARED, r->fd, IORING_OFF_CQ_RING);
	r->sqes = mmap(NULL, p.sq_entries * sizeof(*r->sqes), PROT_READ | PROT_WRITE, MAP_SHARED,
		       r->fd, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || r->sqes == MAP_FAILED)
		fail("io_uring: %s", strerror(errno));
	r->sq_tail = (unsigned *)(void *)(sq + p.sq_off.tail);
	r->sq_array = (unsigned *)(void *)(sq + p.sq_off.array);
	r->sq_mask = *(unsigned *)(void *)(sq + p.sq_off.ring_mask);
	r->cq_head = (unsigned *)(void *)(cq + p.cq_off.head);
	r->cq_tail = (unsigned *)(void *)(cq + p.cq_off.tail);
	r->cq_mask = *(unsigned *)(void *)(cq + p.cq_off.ring_mask);
	r->cqes = (struct io_uring_cqe *)(void *)(cq + p.cq_off.cqes);
}

/* One transfer and its end. */
static void ring_do(struct ring *r, struct io_uring_sqe sqe, size_t want)
{
	unsigned tail = *r->sq_tail, head = *r->cq_head;

	r->sqes[tail & r->sq_mask] = sqe;
	r->sq_array[tail & r->sq_mask] = tail & r->sq_mask;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		fail("io_uring_enter: %s", strerror(errno));
	while (__atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE) == head)
		;
	if (r->cqes[head & r->cq_mask].res != (int)want)
		fail("io_uring: result %d, not %zu", r->cqes[head & r->cq_mask].res, want);
	__atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
}

/*
 * Buffers are registered once, after most of memory has left, and used by the kernel ever after
 * by their frames, not their addresses: a page that were moved meanwhile would get nothing.
 */
void hard_fixed(size_t mib)
{
	size_t pages = mib * 256, each = 64, buffers = 16;
	char *ballast = ballast_map(pages), *fixed = ballast_map(each * buffers);
	struct iovec iov[16];
	int fd = scratch_file(O_DIRECT);
	struct ring r;

	ring_open(&r);
	ballast_fill(fixed, 0, each * buffers, 0);
	ballast_fill(ballast, 0, pages, 0);
	for (size_t i = 0; i < buffers; i++)
		iov[i] = (struct iovec){fixed + i * each * PAGE, each * PAGE};
	if (syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_BUFFERS, iov, (unsigned)buffers))
		fail("IORING_REGISTER_BUFFERS: %s", strerror(errno));
	if (ballast_wrong(fixed, 0, each * buffers, 0))
		fail("a buffer changed while it was registered");
	for (uint64_t round = 1; round < 5; round++) {
		for (size_t i = 0; i < buffers; i++) {
			struct io_uring_sqe sqe = {.opcode = IORING_OP_WRITE_FIXED,
						   .fd = fd,
						   .off = i * each * PAGE,
						   .addr = (uintptr_t)iov[i].iov_base,
						   .len = (unsigned)(each * PAGE),
						   .buf_index = (uint16_t)i};

			ballast_fill(fixed, i * each, each, round);
			ring_do(&r, sqe, each * PAGE);
		}
		if (ballast_wrong(ballast, 0, pages, round - 1)) /* time for buffers to leave */
			fail("wrong pages beside the buffers");
		ballast_fill(ballast, 0, pages, round);
		for (size_t i = 0; i < buffers; i++) {
			size_t k = (i + round) % buffers; /* into another one */
			struct io_uring_sqe sqe = {.opcode = IORING_OP_READ_FIXED,
						   .fd = fd,
						   .off = k * each * PAGE,
						   .addr = (uintptr_t)iov[i].iov_base,
						   .len = (unsigned)(each * PAGE),
						   .buf_index = (uint16_t)i};

			ring_do(&r, sqe, each * PAGE);
			for (size_t p = 0; p < each; p++)
				if (!page_right(fixed + (i * each + p) * PAGE, k * each + p, round))
					fail("round %d: buffer %zu page %zu", (int)round, i, p);
		}
	}
	close(r.fd);
	close(fd);
	printf("%zu fixed buffers of %zu pages\n", buffers, each);
}
