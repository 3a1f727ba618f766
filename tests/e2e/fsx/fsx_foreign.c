/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files that another process changes in the source, while we read them through the mount.
 *
 *   changer   begun = v; the source is changed; done = v, at a time
 *   reader    d = done; open; read; b = begun:     what is read has a version in d..b
 *
 * That is close-to-open: never older than what was there when the file was opened. With a time to
 * live, d is what was done so long before the open. A block that is torn, or zeros, or missing, is
 * right only if something was under way: b is not d, or the file's shape changed.
 */
#include "fsx.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0x666f726569676e21ull

struct block {
	uint64_t magic, file, index, version, sum;
	uint64_t rest[BLOCK / 8 - 5];
};

static void fill(struct block *b, unsigned file, unsigned index, uint64_t version)
{
	uint64_t x = mix(seed ^ version << 20 ^ file << 10 ^ index);

	*b = (struct block){.magic = MAGIC, .file = file, .index = index, .version = version};
	for (unsigned i = 0; i < BLOCK / 8 - 5; i++)
		b->rest[i] = i % 8 ? version + i : (x = mix(x)); /* compresses to a quarter or so */
	for (unsigned i = 0; i < BLOCK / 8 - 5; i++)
		b->sum = mix(b->sum ^ b->rest[i]);
}

static bool is_whole(const struct block *b, unsigned file, unsigned index)
{
	uint64_t sum = 0;

	if (b->magic != MAGIC || b->file != file || b->index != index)
		return false;
	for (unsigned i = 0; i < BLOCK / 8 - 5; i++)
		sum = mix(sum ^ b->rest[i]);
	return sum == b->sum;
}

static void name_of(char name[32], unsigned file)
{
	snprintf(name, 32, "foreign%u", file);
}

/* ---- the other process ------------------------------------------------------------------ */

static void begin(struct foreign_state *f, unsigned i)
{
	atomic_fetch_add(&f->block[i].begun, 1);
}

static void done(struct foreign_state *f, unsigned i)
{
	struct block_state *b = &f->block[i];
	uint64_t v = atomic_load(&b->begun);

	atomic_store(&b->done_at[v % AGES], now_ns());
	atomic_store(&b->done, v);
}

static void write_block(int fd, unsigned file, unsigned i)
{
	struct block b;

	fill(&b, file, i, atomic_load(&world->foreign[file].block[i].begun));
	if (pwrite(fd, &b, BLOCK, (off_t)i * BLOCK) != BLOCK)
		fail(NULL, "the source cannot be written: %s", strerror(errno));
}

static void change_some(struct worker *w, unsigned file, int fd)
{
	struct foreign_state *f = &world->foreign[file];
	unsigned blocks = atomic_load(&f->blocks), first, n;

	if (!blocks)
		return;
	first = (unsigned)rnd(w, blocks);
	n = 1 + (unsigned)rnd(w, 4);
	n = n < blocks - first ? n : blocks - first;
	/* Twice at once: two changes within one tick of the source's clock. */
	for (unsigned again = 0; again <= rnd(w, 2); again++)
		for (unsigned i = first; i < first + n; i++) {
			begin(f, i);
			write_block(fd, file, i);
			done(f, i);
		}
}

/* All of it, in place or by a new file of that name; of another length, or not. */
static void change_shape(struct worker *w, unsigned file, bool replace)
{
	struct foreign_state *f = &world->foreign[file];
	unsigned blocks = rnd(w, 2) ? atomic_load(&f->blocks) : 1 + (unsigned)rnd(w, BLOCKS);
	char name[32], path[600], to[600];
	int fd;

	name_of(name, file);
	snprintf(to, sizeof(to), "%s/%s", source_dir, name);
	snprintf(path, sizeof(path), "%s/%s%s", source_dir, name, replace ? ".new" : "");
	atomic_fetch_add(&f->shape_begun, 1);
	for (unsigned i = 0; i < BLOCKS; i++)
		begin(f, i);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0)
		fail(NULL, "%s: %s", path, strerror(errno));
	for (unsigned i = 0; i < blocks; i++)
		write_block(fd, file, i);
	close(fd);
	if (replace && rename(path, to))
		fail(NULL, "%s: %s", to, strerror(errno));
	atomic_store(&f->blocks, blocks);
	for (unsigned i = 0; i < BLOCKS; i++)
		done(f, i);
	atomic_fetch_add(&f->shape_done, 1);
}

static void change(struct worker *w)
{
	unsigned file = (unsigned)rnd(w, FOREIGN);
	uint64_t what = rnd(w, 20);
	char name[32];
	struct stat st;
	int fd;

	if (what < 2) {
		change_shape(w, file, what);
		return;
	}
	name_of(name, file);
	fd = path_open(source_dir, name, O_WRONLY);
	if (fd < 0 || fstat(fd, &st))
		fail(NULL, "%s: %s", name, strerror(errno));
	change_some(w, file, fd);
	/* As if it had not been touched. */
	if (what < 6) {
		struct timespec t[2] = {st.st_atim, st.st_mtim};

		(void)futimens(fd, t);
	}
	close(fd);
}

void foreign_change_all(void)
{
	struct worker w = {.number = 1000, .rng = mix(seed ^ 0xf0f0)};

	while (!atomic_load(&world->stop)) {
		change(&w);
		atomic_fetch_add(&world->changes, 1);
		/* Bursts, and long enough pauses for pages to be believed in. */
		if (rnd(&w, 3))
			usleep((useconds_t)rnd(&w, rnd(&w, 10) ? 2000 : 120000));
	}
}

void foreign_make(void)
{
	struct worker w = {.rng = seed};

	for (unsigned i = 0; i < FOREIGN; i++) {
		atomic_store(&world->foreign[i].blocks, BLOCKS / 2);
		change_shape(&w, i, true);
	}
}

/* ---- reading ---------------------------------------------------------------------------- */

static int stat_in(const char *dir, const char *name, struct stat *st)
{
	char path[600];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return stat(path, st);
}

/* The version that must have been there at `then`. */
static uint64_t at_least(struct block_state *b, uint64_t then)
{
	uint64_t v = atomic_load(&b->done), least = v;

	if (!ttl_ns)
		return v;
	/* Back to the last one that was done before; as far as is remembered. */
	while (least && v - least < AGES / 2 && atomic_load(&b->done_at[least % AGES]) > then)
		least--;
	return v - least < AGES / 2 ? least : 0;
}

static void open_handle(struct worker *w, struct foreign_handle *h)
{
	struct foreign_state *f;
	uint64_t then;
	char name[32];

	if (h->fd >= 0)
		close(h->fd);
	h->file = (unsigned)rnd(w, FOREIGN);
	f = &world->foreign[h->file];
	then = now_ns() - ttl_ns;
	h->shape = atomic_load(&f->shape_done);
	h->blocks = atomic_load(&f->blocks);
	/* Within the time to live its length may be an old one. */
	if (ttl_ns)
		h->shape = UINT64_MAX;
	for (unsigned i = 0; i < BLOCKS; i++)
		h->done[i] = at_least(&f->block[i], then);
	name_of(name, h->file);
	h->fd = path_open(mount_dir, name, O_RDONLY);
	if (h->fd < 0)
		must(w, name);
	w->count[C_FOREIGN_OPEN]++;
}

/* With what may tell whose mistake it is: whether it lasts, and who takes the file to end where. */
static void fail_short(struct worker *w, struct foreign_handle *h, unsigned i, size_t got)
{
	uint8_t again[BLOCK];
	char name[32];
	struct stat open, named, source;
	ssize_t n = pread(h->fd, again, BLOCK, (off_t)i * BLOCK);

	name_of(name, h->file);
	if (fstat(h->fd, &open) || stat_in(mount_dir, name, &named) ||
	    stat_in(source_dir, name, &source))
		fail(w, "foreign%u: %s", h->file, strerror(errno));
	fail(w,
	     "foreign%u: block %u of %u: %zu bytes of it; again: %zd; inode %llu of %lld bytes is "
	     "open, %llu of %lld named, %llu of %lld in the source",
	     h->file, i, h->blocks, got, n, (unsigned long long)open.st_ino,
	     (long long)open.st_size, (unsigned long long)named.st_ino, (long long)named.st_size,
	     (unsigned long long)source.st_ino, (long long)source.st_size);
}

/* got: bytes of it that were read. */
static void judge(struct worker *w, struct foreign_handle *h, unsigned i, const uint8_t *at,
		  size_t got)
{
	struct foreign_state *f = &world->foreign[h->file];
	uint64_t begun = atomic_load(&f->block[i].begun);
	bool same_shape = atomic_load(&f->shape_begun) == h->shape;
	const struct block *b = (const struct block *)at;

	if (same_shape && got != (i < h->blocks ? BLOCK : 0))
		fail_short(w, h, i, got);
	if (got < BLOCK)
		return; /* its shape changed */
	if (!is_whole(b, h->file, i)) {
		if (begun == h->done[i])
			fail(w,
			     "foreign%u: block %u: torn, zeros or another one's (magic %llx, file "
			     "%llu, index %llu, version %llu); nothing has changed since version "
			     "%llu",
			     h->file, i, (unsigned long long)b->magic, (unsigned long long)b->file,
			     (unsigned long long)b->index, (unsigned long long)b->version,
			     (unsigned long long)begun);
		w->count[C_FOREIGN_TORN]++;
		return;
	}
	if (b->version < h->done[i] || b->version > begun)
		fail(w, "foreign%u: block %u: version %llu, not %llu to %llu", h->file, i,
		     (unsigned long long)b->version, (unsigned long long)h->done[i],
		     (unsigned long long)begun);
	w->count[C_FOREIGN_NEWER] += b->version > h->done[i];
}

static void read_handle(struct worker *w, struct foreign_handle *h)
{
	unsigned first = (unsigned)rnd(w, BLOCKS), n = 1 + (unsigned)rnd(w, rnd(w, 3) ? 4 : BLOCKS);
	ssize_t got;

	n = n < BLOCKS - first ? n : BLOCKS - first;
	forget(w, h->fd);
	got = read_all(h->fd, w->buf, (size_t)n * BLOCK, (off_t)first * BLOCK);
	if (got < 0) {
		/* A file that was replaced and is gone: its pages are, too. */
		if (errno != ESTALE)
			must(w, "read of a foreign file");
		close(h->fd);
		h->fd = -1;
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		size_t have = (size_t)got > (size_t)i * BLOCK ? (size_t)got - (size_t)i * BLOCK : 0;

		judge(w, h, first + i, w->buf + (size_t)i * BLOCK, have < BLOCK ? have : BLOCK);
	}
	w->count[C_FOREIGN_READ]++;
}

void foreign_operation(struct worker *w)
{
	struct foreign_handle *h = &w->handle[rnd(w, HANDLES)];

	if (h->fd < 0 || rnd(w, 4) == 0)
		open_handle(w, h);
	if (h->fd >= 0)
		read_handle(w, h);
}

void foreign_close(struct worker *w)
{
	for (unsigned i = 0; i < HANDLES; i++) {
		if (w->handle[i].fd >= 0)
			close(w->handle[i].fd);
		w->handle[i].fd = -1;
	}
}
