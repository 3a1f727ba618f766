/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files that only this thread changes, and only through the mount: after each operation it knows
 * every byte. What it reads through the mount, by read() or from a mapping, must be that; and so
 * must be what lies in the source, once nothing is waiting to be written.
 */
#include "fsx.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void path_of(char path[600], const char *dir, const char *name)
{
	snprintf(path, 600, "%s/%s", dir, name);
}

/* No two of them: an operation makes one at most. */
static void new_name(struct worker *w, struct own_file *f)
{
	snprintf(f->name, sizeof(f->name), "own%u.%llu", w->number, (unsigned long long)w->op);
}

static void open_it(struct worker *w, struct own_file *f, int more)
{
	if (f->fd >= 0)
		close(f->fd);
	f->append = !more && rnd(w, 8) == 0;
	f->fd = path_open(mount_dir, f->name, O_RDWR | more | (f->append ? O_APPEND : 0));
	if (f->fd < 0)
		must(w, "open");
	else if (more & O_TRUNC)
		f->bytes = 0;
	w->count[C_REOPEN]++;
}

static void compare(struct worker *w, const struct own_file *f, const uint8_t *got, size_t n,
		    uint32_t offset, const char *how)
{
	if (!memcmp(got, f->want + offset, n))
		return;
	for (size_t i = 0; i < n; i++)
		if (got[i] != f->want[offset + i])
			fail(w, "%s: %s: byte %zu of %u is %02x, not %02x", f->name, how,
			     offset + i, f->bytes, got[i], f->want[offset + i]);
}

static void range(struct worker *w, uint32_t most, uint32_t *offset, uint32_t *n)
{
	*offset = (uint32_t)rnd(w, most);
	*n = 1 + (uint32_t)rnd(w, rnd(w, 4) ? 9000 : 150000);
	if (rnd(w, 3) == 0)
		*offset &= ~(BLOCK - 1);
	if (*n > most - *offset)
		*n = most - *offset;
}

/* ---- operations ------------------------------------------------------------------------- */

static void do_read(struct worker *w, struct own_file *f)
{
	uint32_t offset, n, want;
	ssize_t got;

	range(w, OWN_BYTES, &offset, &n);
	want = offset >= f->bytes ? 0 : f->bytes - offset < n ? f->bytes - offset : n;
	forget(w, f->fd);
	got = read_all(f->fd, w->buf, n, offset);
	if (got < 0) {
		must(w, "read");
		return;
	}
	if ((uint32_t)got != want)
		fail(w, "%s: read %zd bytes at %u, not %u of %u", f->name, got, offset, want,
		     f->bytes);
	compare(w, f, w->buf, want, offset, "read");
	w->count[C_READ]++;
}

static void set(struct own_file *f, const uint8_t *data, uint32_t offset, uint32_t n)
{
	if (offset > f->bytes)
		memset(f->want + f->bytes, 0, offset - f->bytes);
	if (data)
		memcpy(f->want + offset, data, n);
	else
		memset(f->want + offset, 0, n);
	if (offset + n > f->bytes)
		f->bytes = offset + n;
}

static void do_write(struct worker *w, struct own_file *f)
{
	uint32_t offset, n;
	ssize_t done;

	range(w, OWN_BYTES, &offset, &n);
	if (f->append) {
		offset = f->bytes;
		n = n < OWN_BYTES - offset ? n : OWN_BYTES - offset;
		w->count[C_APPEND]++;
	}
	if (!n)
		return;
	for (uint32_t i = 0; i < n; i++)
		w->buf[i] = (uint8_t)(mix(w->op + i / 8) >> i % 8 * 8);
	done = write_all(f->fd, w->buf, n, offset);
	if (done < 0) {
		must(w, "write");
		return;
	}
	set(f, w->buf, offset, n);
	w->count[C_WRITE]++;
}

static void do_truncate(struct worker *w, struct own_file *f)
{
	uint32_t bytes = (uint32_t)rnd(w, OWN_BYTES);

	if (ftruncate(f->fd, bytes)) {
		must(w, "truncate");
		return;
	}
	if (bytes > f->bytes)
		memset(f->want + f->bytes, 0, bytes - f->bytes);
	f->bytes = bytes;
	w->count[C_TRUNCATE]++;
}

/* Not while processes die: a page that cannot be had is a signal. */
static void do_map(struct worker *w, struct own_file *f, bool writes)
{
	uint32_t offset, n;
	uint8_t *at;

	if (kills || !f->bytes || f->append)
		return;
	range(w, f->bytes, &offset, &n);
	at = mmap(NULL, f->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	if (at == MAP_FAILED)
		fail(w, "%s: mmap: %s", f->name, strerror(errno));
	if (writes) {
		for (uint32_t i = 0; i < n; i++)
			at[offset + i] = f->want[offset + i] = (uint8_t)mix(w->op + i);
		if (msync(at, f->bytes, MS_SYNC))
			fail(w, "%s: msync: %s", f->name, strerror(errno));
		w->count[C_MAP_WRITE]++;
	} else {
		compare(w, f, at + offset, n, offset, "mapping");
		w->count[C_MAP_READ]++;
	}
	munmap(at, f->bytes);
}

static void do_punch(struct worker *w, struct own_file *f)
{
	static const int mode[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
				   0};
	unsigned k = (unsigned)rnd(w, 3);
	uint32_t offset, n;

	range(w, OWN_BYTES, &offset, &n);
	if (fallocate(f->fd, mode[k], offset, n)) {
		if (errno != EOPNOTSUPP)
			must(w, "fallocate");
		return;
	}
	w->count[C_PUNCH]++;
	if (k == 2) { /* what is there stays */
		if (offset + n > f->bytes)
			set(f, NULL, f->bytes, offset + n - f->bytes);
		return;
	}
	if (k == 0) {
		if (offset >= f->bytes)
			return;
		n = n < f->bytes - offset ? n : f->bytes - offset;
	}
	set(f, NULL, offset, n);
}

static void do_copy(struct worker *w, struct own_file *from, struct own_file *to)
{
	uint32_t offset, n, at = (uint32_t)rnd(w, OWN_BYTES / 2);
	off_t in, out = at;
	ssize_t done;

	if (from == to || !from->exists || from->fd < 0 || !from->bytes || to->append)
		return;
	range(w, from->bytes, &offset, &n);
	n = n < OWN_BYTES - at ? n : OWN_BYTES - at;
	in = offset;
	done = copy_file_range(from->fd, &in, to->fd, &out, n, 0);
	if (done < 0) {
		must(w, "copy_file_range");
		return;
	}
	set(to, from->want + offset, at, (uint32_t)done);
	w->count[C_COPY]++;
}

static void do_rename(struct worker *w, struct own_file *f)
{
	char from[600], to[600];

	path_of(from, mount_dir, f->name);
	new_name(w, f);
	path_of(to, mount_dir, f->name);
	if (rename(from, to))
		must(w, "rename");
	w->count[C_RENAME]++;
}

/* Also while it is open, and sometimes read once more then. */
static void do_unlink(struct worker *w, struct own_file *f)
{
	char path[600];

	path_of(path, mount_dir, f->name);
	if (unlink(path)) {
		must(w, "unlink");
		return;
	}
	if (f->fd >= 0) {
		do_read(w, f);
		close(f->fd);
	}
	f->fd = -1;
	f->exists = false;
	f->bytes = 0;
	w->count[C_UNLINK]++;
}

/* What others see who do not come through the mount. */
static void check_source(struct worker *w, struct own_file *f)
{
	int fd = path_open(source_dir, f->name, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : pread(fd, w->buf, OWN_BYTES, 0);

	if (n != (ssize_t)f->bytes)
		fail(w, "%s: %zd bytes in the source, not %u", f->name, n, f->bytes);
	compare(w, f, w->buf, f->bytes, 0, "source");
	close(fd);
	w->count[C_SOURCE]++;
}

/* ---- a thread's files ------------------------------------------------------------------- */

static void create(struct worker *w, struct own_file *f)
{
	new_name(w, f);
	f->fd = path_open(mount_dir, f->name, O_RDWR | O_CREAT | O_TRUNC);
	if (f->fd < 0) {
		must(w, "create");
		return;
	}
	f->exists = true;
	f->append = false;
	f->bytes = 0;
}

void own_operation(struct worker *w)
{
	struct own_file *f = &w->own[rnd(w, OWN)];
	uint64_t what = rnd(w, 100);

	if (!f->exists) {
		create(w, f);
		return;
	}
	if (f->fd < 0) {
		open_it(w, f, 0);
		return;
	}
	if (what < 40)
		do_read(w, f);
	else if (what < 62)
		do_write(w, f);
	else if (what < 68)
		do_truncate(w, f);
	else if (what < 76)
		do_map(w, f, false);
	else if (what < 80)
		do_map(w, f, true);
	else if (what < 84)
		do_punch(w, f);
	else if (what < 88)
		do_copy(w, &w->own[rnd(w, OWN)], f);
	else if (what < 90)
		do_rename(w, f);
	else if (what < 91)
		do_unlink(w, f);
	else if (what < 97)
		open_it(w, f, rnd(w, 20) ? 0 : O_TRUNC);
	else
		check_source(w, f);
}

void own_begin(struct worker *w)
{
	for (unsigned i = 0; i < OWN; i++) {
		w->own[i] = (struct own_file){.fd = -1, .want = calloc(1, OWN_BYTES)};
		if (!w->own[i].want)
			fail(w, "memory");
	}
}

/*
 * An operation that a death cut off was made, or was not, or half of it: what the source has is
 * what is true. What was acknowledged before is compared all the same, by the next death's reader:
 * here only the file of the last operation may differ.
 */
void own_reopen(struct worker *w)
{
	unsigned differ = 0;

	for (unsigned i = 0; i < OWN; i++) {
		struct own_file *f = &w->own[i];
		int fd = path_open(source_dir, f->name, O_RDONLY);
		ssize_t n = fd < 0 ? 0 : pread(fd, w->buf, OWN_BYTES, 0);

		if (f->fd >= 0)
			close(f->fd);
		f->fd = -1;
		if (f->exists != (fd >= 0) || (uint32_t)n != f->bytes ||
		    memcmp(f->want, w->buf, f->bytes))
			differ++;
		f->exists = fd >= 0;
		f->bytes = (uint32_t)n;
		memcpy(f->want, w->buf, f->bytes);
		if (fd >= 0)
			close(fd);
	}
	if (differ > 1)
		fail(w, "after a death %u files are not what was acknowledged", differ);
}

void own_end(struct worker *w)
{
	for (unsigned i = 0; i < OWN; i++) {
		struct own_file *f = &w->own[i];

		if (f->fd >= 0)
			close(f->fd);
		f->fd = -1;
		if (f->exists)
			check_source(w, f);
		free(f->want);
	}
}
