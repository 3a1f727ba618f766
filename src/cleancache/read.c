/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A read: what the store has, and the rest from the source.
 *
 *   pages   0 1 2 3 4 5 6 7 8 9          asked for
 *           . s s s . . . s . .          found in the store, by clusters
 *           ^       ^ ^ ^   ^ ^          three runs, each one call to the source, and put
 *
 * The buffer is the thread's, and holds the pages in their places; what is missing is read right
 * there. Only what was asked for is read: who wants more than that sees that it reads in order
 * (ahead.c).
 *
 * Who asks need not wait for the compression: the last run is put when the answer has been given
 * (cc_read_end()), from the same buffer. Until then it is still being read for all others. Of two
 * runs the first is put before the second is begun: who has a run waits for nobody's.
 *
 * The end of the file. The store's pages are whole; the last one has zeros past the file's end,
 * and is good for as long as the end is there: so it is put only if the source ended where the
 * file's identity says, and a page beyond is always the source's business.
 *
 * A page may be younger than the read's view of the file, which says where the end is: somebody
 * has looked meanwhile, found the file changed, and its new pages have been put. So what came from
 * the store is the answer only if the file has not changed since the view was drawn; else the
 * source is read. Too early an end is more than a short answer: the kernel takes it for the file's
 * new size.
 *
 * The source's own pages in the kernel's cache would be a third copy. They are read so that they
 * leave it at once, where that is known (RWF_DONTCACHE), which spares those that were there
 * before; else they are thrown out afterwards.
 */
#include "cleancache/cleancache.h"

#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x80
#endif

/* One read of at most 64 pages: a bit for each. */
struct reading {
	struct cc_mount *m;
	struct cc_handle *h;
	struct cc_file *f;
	struct cc_view view;
	uint64_t first;	 /* page */
	unsigned n;	 /* pages */
	uint64_t have;	 /* bits of pages that are in place */
	uint64_t end;	 /* of the file, as far as it was met; bytes */
	unsigned missed; /* pages of the file */
	bool stored;	 /* some are from the store */
	struct scratch *s;
};
_Static_assert(CC_IO_PAGES <= 64, "a bit for each page");

/* A run that was read and is not put yet. */
struct late {
	struct cc_file *f; /* NULL: there is none */
	uint64_t changes;  /* of the view that it was read under */
	uint64_t size;
	const char *at;
	size_t got;	/* bytes */
	unsigned asked; /* pages of the read that it was part of */
	struct cc_fetch fetch;
};

/* A thread's; freed with it. */
struct scratch {
	char page[CC_IO_BYTES], cluster[TMEM_CLUSTER_MAX * CC_PAGE];
	struct late late;
};

static struct scratch *scratch(struct cc_mount *m)
{
	struct scratch *s = os_tls_get(m->scratch);

	if (s)
		return s;
	s = os_zalloc_aligned(sizeof(*s));
	if (s && os_tls_set(m->scratch, s)) {
		os_free(s);
		s = NULL;
	}
	return s;
}

char *cc_scratch(struct cc_mount *m)
{
	struct scratch *s = scratch(m);

	return s ? s->page : NULL;
}

/* ---- the source ------------------------------------------------------------------------- */

/* Bytes, fewer only at the end of the file; or -errno. */
static ssize_t from_source(struct cc_mount *m, int fd, char *buf, size_t n, uint64_t offset)
{
	size_t done = 0;
	ssize_t got = 0;

	while (done < n) {
		uint64_t last = INT64_MAX - (offset + done); /* what ends behind it is refused */
		struct iovec v = {buf + done, n - done < last ? n - done : last};
		bool plain = atomic_load_explicit(&m->no_dontcache, memory_order_relaxed);

		got = plain ? pread(fd, v.iov_base, v.iov_len, (off_t)(offset + done))
			    : preadv2(fd, &v, 1, (off_t)(offset + done), RWF_DONTCACHE);
		if (got < 0 && !plain && (errno == EOPNOTSUPP || errno == ENOSYS)) {
			atomic_store(&m->no_dontcache, true);
			continue;
		}
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		done += (size_t)got;
	}
	cc_count(m, CC_SOURCE_READS, 1);
	cc_count(m, CC_SOURCE_BYTES, done);
	if (got < 0) {
		got = -errno;
		cc_count(m, CC_SOURCE_ERRORS, 1);
	}
	if (done && atomic_load_explicit(&m->no_dontcache, memory_order_relaxed))
		(void)posix_fadvise(fd, (off_t)offset, (off_t)done, POSIX_FADV_DONTNEED);
	/* Fewer bytes than asked for would pass for the end of the file: not after an error. */
	return got < 0 ? got : (ssize_t)done;
}

/* ---- the store -------------------------------------------------------------------------- */

/* Pages in the store of a file of so many bytes. */
static uint64_t pages_of(uint64_t bytes)
{
	return bytes / CC_PAGE + (bytes % CC_PAGE != 0);
}

static void place(struct reading *r, uint64_t index, const char *page)
{
	unsigned i = (unsigned)(index - r->first);

	memcpy(r->s->page + (size_t)i * CC_PAGE, page, CC_PAGE);
	r->have |= 1ull << i;
	r->stored = true;
	/* A page with the end in it; where a page ends there, the source says what comes after. */
	if (index == r->view.size / CC_PAGE)
		r->end = r->view.size;
}

/* The page and those that are stored with it; false: it is not there. */
static bool look_up(struct reading *r, uint64_t index)
{
	uint64_t first;
	uint32_t mask;

	if (index >= pages_of(r->view.size) ||
	    !cc_store_get(r->m, &r->f->oid, index, r->s->cluster, &first, &mask))
		return false;
	for (unsigned k = 0; mask >> k; k++)
		if (mask >> k & 1 && first + k >= r->first && first + k < r->first + r->n &&
		    !(r->have >> (first + k - r->first) & 1))
			place(r, first + k, r->s->cluster + (size_t)k * CC_PAGE);
	return true;
}

static void put(struct cc_mount *m, struct late *l)
{
	uint64_t whole = l->got / CC_PAGE, index = l->fetch.first, end = index * CC_PAGE + l->got;

	if (whole < l->fetch.n && l->got % CC_PAGE && end == l->size)
		whole++; /* the last page, with its zeros */
	if (!whole)
		return;
	if (!cc_put_begin(l->f, l->changes)) {
		cc_count(m, CC_STALE, whole);
		return;
	}
	l->f->refused += cc_store_put(m, &l->f->oid, index, (unsigned)whole, l->at, l->asked);
	cc_put_end(l->f);
}

/* Of this thread, if there is any. */
static void put_late(struct cc_mount *m, struct scratch *s)
{
	if (!s->late.f)
		return;
	put(m, &s->late);
	cc_fetch_end(s->late.f, &s->late.fetch);
	s->late.f = NULL;
}

/* ---- both ------------------------------------------------------------------------------- */

/* The run of missing pages that begins at `i` ends here. */
static unsigned run_end(const struct reading *r, unsigned i)
{
	while (i < r->n && !(r->have >> i & 1))
		i++;
	return i;
}

/* Of n pages that were not there, those before the first that is there now. */
static unsigned still_missing(struct reading *r, uint64_t index, unsigned n)
{
	unsigned k = 0;

	while (k < n && !look_up(r, index + k))
		k++;
	return k;
}

/* A run from page i on, to be put late. 0; 1: somebody else had it, and has ended; or -errno. */
static int fetch_run(struct reading *r, unsigned i)
{
	unsigned n = run_end(r, i) - i;
	uint64_t index = r->first + i;
	char *at = r->s->page + (size_t)i * CC_PAGE;
	struct late *l = &r->s->late;
	ssize_t got;

	put_late(r->m, r->s);
	n = (unsigned)cc_fetch_begin(r->f, &l->fetch, index, n);
	if (!n)
		return 1;
	/* Who had it when we looked may have ended before we asked who has it. */
	n = still_missing(r, index, n);
	if (!n) {
		cc_fetch_end(r->f, &l->fetch);
		return 0;
	}
	got = from_source(r->m, r->h->fd, at, (size_t)n * CC_PAGE, index * CC_PAGE);
	if (got < 0) {
		cc_fetch_end(r->f, &l->fetch);
		return (int)got;
	}
	memset(at + got, 0, (size_t)n * CC_PAGE - (size_t)got);
	l->f = r->f;
	l->changes = r->view.changes;
	l->size = r->view.size;
	l->at = at;
	l->got = (size_t)got;
	l->asked = r->n;
	if ((size_t)got < (size_t)n * CC_PAGE)
		r->end = index * CC_PAGE + (uint64_t)got;
	/* What lies past the end is no page. */
	n = (unsigned)pages_of((uint64_t)got);
	r->missed += n;
	for (unsigned k = 0; k < n; k++)
		r->have |= 1ull << (i + k);
	return 0;
}

/* Every page is in its place, or lies past the end. 0 or -errno. */
static int fill(struct reading *r)
{
	int rc = 0;

	for (unsigned i = 0; i < r->n; i++)
		if (!(r->have >> i & 1))
			(void)look_up(r, r->first + i);
	for (unsigned i = 0; i < r->n && (r->first + i) * CC_PAGE < r->end;) {
		if (r->have >> i & 1) {
			i++;
			continue;
		}
		rc = fetch_run(r, i);
		if (rc < 0)
			return rc;
		if (rc)
			(void)look_up(r, r->first + i);
	}
	return 0;
}

static void count_read(struct reading *r)
{
	unsigned hits = (unsigned)__builtin_popcountll(r->have) - r->missed;

	cc_count(r->m, CC_HITS, hits);
	cc_count(r->m, CC_MISSES, r->missed);
	atomic_fetch_add_explicit(&r->f->hits, hits, memory_order_relaxed);
	atomic_fetch_add_explicit(&r->f->misses, r->missed, memory_order_relaxed);
}

/* False: no memory for it. */
static bool begin(struct reading *r, struct cc_mount *m, struct cc_handle *h, uint64_t first,
		  unsigned n)
{
	*r = (struct reading){.m = m,
			      .h = h,
			      .f = cc_node_data(h->node),
			      .first = first,
			      .n = n,
			      .end = UINT64_MAX,
			      .s = scratch(m)};
	if (!r->s)
		return false;
	put_late(m, r->s);
	if (r->f)
		r->view = cc_view(r->f);
	return true;
}

/* counts: it is the request's first time. */
static ssize_t read_once(struct cc_mount *m, struct cc_handle *h, uint64_t offset, size_t bytes,
			 const char **data, bool counts)
{
	uint64_t first = offset / CC_PAGE, last = (offset + bytes - 1) / CC_PAGE;
	struct reading r;
	int rc;

	if (!begin(&r, m, h, first, (unsigned)(last - first + 1)))
		return -ENOMEM;
	*data = r.s->page;
	if (h->direct || !r.f || r.n > CC_IO_PAGES)
		return from_source(m, h->fd, r.s->page, bytes, offset);
	rc = fill(&r);
	if (counts)
		count_read(&r);
	if (rc)
		return rc;
	if (r.stored && cc_view(r.f).changes != r.view.changes) {
		put_late(m, r.s);
		return from_source(m, h->fd, r.s->page, bytes, offset);
	}
	cc_ahead(m, h, first, r.n, r.view.size, r.missed);
	*data += offset % CC_PAGE;
	if (r.end <= offset)
		return 0;
	return (ssize_t)(r.end - offset < bytes ? r.end - offset : bytes);
}

/* Fewer bytes than were asked for are a size to the kernel (S1, S2 in notify.c). */
ssize_t cc_read(struct cc_mount *m, struct cc_handle *h, uint64_t offset, size_t bytes,
		const char **data)
{
	bool first = true;
	uint64_t order;
	ssize_t got;

	if (!bytes)
		return 0;
	do {
		order = cc_order();
		got = read_once(m, h, offset, bytes, data, first);
		first = false;
	} while (got >= 0 && (size_t)got < bytes &&
		 !cc_notify_tells(h->node, order, offset + (uint64_t)got));
	cc_count(m, CC_READS, 1);
	if (got > 0)
		cc_count(m, CC_READ_BYTES, (uint64_t)got);
	return got;
}

void cc_read_end(struct cc_mount *m)
{
	struct scratch *s = os_tls_get(m->scratch);

	if (s)
		put_late(m, s);
}

bool cc_read_ahead(struct cc_mount *m, struct cc_handle *h, uint64_t first, unsigned n)
{
	struct reading r;
	int rc;

	if (!begin(&r, m, h, first, n) || !r.f)
		return true;
	rc = fill(&r);
	put_late(m, r.s);
	if (rc)
		return true; /* who asks for them will be told why */
	cc_count(m, CC_AHEAD, r.missed);
	atomic_fetch_add_explicit(&r.f->ahead, r.missed, memory_order_relaxed);
	return r.missed > 0;
}
