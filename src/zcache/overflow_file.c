/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The overflow file as a file: opening, writing so that it is there, bandwidth.
 *
 * Opening. What is in an old file is never used: the map of what is where is in
 * memory only. So it is made anew, but only when that destroys nothing of
 * anybody: the path names nothing, an empty file, or one that begins with our
 * header; an ordinary file with one name, of this user; nobody else has it
 * locked. Everything else is refused and left as it was. The lock is taken on
 * the open file, and then the path must still name that file: a host that just
 * ends removes it.
 *
 * Writing. The copy in memory is dropped when a write has succeeded, so
 * succeeded must mean that the bytes are there. write() alone says that the
 * system has them: a disk that is full (delayed allocation, thin volumes) or
 * broken shows later, when nobody can be told any more. So a batch is written,
 * waited for until the device has it, dropped from the system's cache and read
 * back, and compared. That finds full and failing disks, short and torn writes,
 * and a file that somebody else cuts or writes to at that moment. It costs
 * reading each byte once; see os_file_settle() for times. What happens to the
 * file later is found by the checksum at the get. A crash need not be survived:
 * then the host is gone too.
 *
 * Bandwidth. A token bucket: `rate` bytes a second come in, at most a quarter of
 * a second's worth or one batch is kept.
 *
 *   F1  tokens <= max(rate / 4, batch_bytes)
 */
#include "os/clock.h"
#include "os/file.h"
#include "os/log.h"
#include "zcache/overflow.h"

#include <fcntl.h>

#define RETRY_NS   1000000000ull
#define OPEN_TRIES 100

static const char header[OVER_UNIT] =
	"tmem overflow file 1\n"
	"Belongs to a running program that keeps pages here; of no use to any other.\n"
	"It can be removed when no program has it open.\n";

const char *over_file_refusal(int rc)
{
	switch (rc) {
	case -EEXIST:
		return "it is there and holds something else (remove it, or name another)";
	case -EBUSY:
		return "another store uses it";
	case -ELOOP:
		return "it is a symbolic link";
	case -EINVAL:
		return "it is not an ordinary file with one name";
	case -EPERM:
		return "it belongs to another user";
	default:
		return strerror(-rc);
	}
}

/* Whether making it anew destroys nothing. */
static int judge(int fd, const struct os_file_about *about)
{
	char old[OVER_UNIT];
	ssize_t got;

	if (!about->regular || about->links > 1)
		return -EINVAL;
	if (!about->mine)
		return -EPERM;
	if (about->bytes == 0)
		return 0;
	got = os_file_pread(fd, old, sizeof(old), 0);
	if (got < 0)
		return (int)got;
	return got == sizeof(old) && memcmp(old, header, sizeof(old)) == 0 ? 0 : -EEXIST;
}

/* -EAGAIN: it was taken away meanwhile. */
static int try_open(struct zc_overflow *o)
{
	struct os_file_about about;
	int rc;

	/* Not blocking: a fifo would wait for its other end. */
	o->fd = os_file_open(o->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (o->fd < 0)
		return o->fd;
	rc = os_file_about(o->fd, &about);
	if (rc == 0 && !about.regular)
		rc = -EINVAL;
	if (rc == 0)
		rc = os_file_lock(o->fd);
	/* Again: what was read before the lock may be old. */
	if (rc == 0)
		rc = os_file_about(o->fd, &about);
	if (rc == 0 && !os_file_named(o->path, &about))
		rc = -EAGAIN;
	if (rc == 0)
		rc = judge(o->fd, &about);
	if (rc == 0)
		rc = os_file_truncate(o->fd, 0);
	if (rc == 0)
		rc = os_file_pwrite(o->fd, header, sizeof(header), 0);
	if (rc) {
		os_file_close(o->fd);
		o->fd = -1;
	}
	return rc;
}

int over_file_open(struct zc_overflow *o)
{
	int rc = -EAGAIN;

	for (unsigned i = 0; i < OPEN_TRIES && rc == -EAGAIN; i++)
		rc = try_open(o);
	return rc;
}

/* The name goes first, while the lock is held: what another host finds then is its own. */
void over_file_close(struct zc_overflow *o)
{
	struct os_file_about about;

	if (os_file_about(o->fd, &about) == 0 && os_file_named(o->path, &about))
		(void)os_file_unlink(o->path);
	os_file_close(o->fd);
}

/* ---- writing ------------------------------------------------------------------------ */

/* With `moving` held: the buffer is the mover's. */
static int read_back(struct zc_overflow *o, const char *buf, size_t bytes, uint64_t offset)
{
	char *piece = o->batch + o->batch_bytes;
	ssize_t got;

	for (size_t at = 0; at < bytes; at += (size_t)got) {
		size_t n = bytes - at < OVER_CHECK ? bytes - at : OVER_CHECK;

		got = os_file_pread(o->fd, piece, n, offset + at);
		if (got < 0)
			return (int)got;
		if ((size_t)got != n || memcmp(piece, buf + at, n) != 0)
			return -EIO;
	}
	return 0;
}

bool over_failing(const struct zc_overflow *o)
{
	uint64_t after = atomic_load_explicit(&o->retry_after_ns, memory_order_relaxed);

	return after && os_clock_ns() < after;
}

int over_write(struct zc_overflow *o, struct zc_thread *t, const void *buf, size_t bytes,
	       uint64_t unit)
{
	uint64_t offset = unit * OVER_UNIT;
	int rc = os_file_pwrite(o->fd, buf, bytes, offset);

	if (rc == 0)
		rc = os_file_settle(o->fd, offset, bytes);
	if (rc == 0)
		rc = read_back(o, buf, bytes, offset);
	atomic_store_explicit(&o->retry_after_ns, rc ? os_clock_ns() + RETRY_NS : 0,
			      memory_order_relaxed);
	if (rc == 0)
		return 0;
	zc_count(t, ZC_OVER_WRITE_ERRORS, 1);
	if (!atomic_exchange(&o->complained, true))
		os_log(OS_LOG_WARNING,
		       "overflow file %s: %s; pages stay in memory (further failures are counted)",
		       o->path, strerror(-rc));
	return rc;
}

/* ---- bandwidth ------------------------------------------------------------------------ */

static uint64_t most_tokens(const struct zc_overflow *o, uint64_t rate)
{
	return rate / 4 > o->batch_bytes ? rate / 4 : o->batch_bytes;
}

size_t over_tokens_take(struct zc_overflow *o, size_t least, size_t want)
{
	uint64_t rate = atomic_load_explicit(&o->rate, memory_order_relaxed), now, most, add;

	if (!rate)
		return want;
	now = os_clock_ns();
	os_mutex_lock(&o->lock);
	most = most_tokens(o, rate);
	add = now - o->tokens_at_ns >= 1000000000
		      ? rate
		      : (uint64_t)((double)(now - o->tokens_at_ns) * 1e-9 * (double)rate);
	if (add) { /* less than one byte's time is kept for the next call */
		o->tokens += add;
		o->tokens_at_ns = now;
	}
	if (o->tokens > most)
		o->tokens = most;
	if (want > o->tokens)
		want = o->tokens >= least ? (size_t)o->tokens : 0;
	o->tokens -= want;
	tmem_assert(F1, o->tokens <= most);
	os_mutex_unlock(&o->lock);
	return want;
}

void over_tokens_return(struct zc_overflow *o, size_t bytes)
{
	os_mutex_lock(&o->lock);
	if (atomic_load_explicit(&o->rate, memory_order_relaxed))
		o->tokens += bytes;
	os_mutex_unlock(&o->lock);
}

int tmem_host_set_overflow_rate(tmem_host *h, uint64_t bytes_per_s)
{
	if (!h->overflow)
		return -EINVAL;
	atomic_store_explicit(&h->overflow->rate, bytes_per_s, memory_order_relaxed);
	return 0;
}
