/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The overflow file misbehaves.
 *
 *   interrupted   every second call of the system is interrupted, and moves a
 *                 few bytes only: nothing may show
 *   read errors   the n-th read fails, and all from it on: that get says -EIO
 *                 and writes nothing; afterwards every page is still there,
 *                 though the gets were to take it out
 *   flipped bits  in the file, behind the store's back: a get gives the right
 *                 bytes or -EIO, never others
 *   cut           the file gets shorter: the same
 *   saved file    in pieces, interrupted: nothing may show; reads fail: no new
 *                 client; writes or waits fail: no file, the older one is there
 *   write errors  while the store is filled, writing, waiting for it or reading
 *                 it back fails, or writes are torn: every page that was
 *                 acknowledged is there
 */
#include "shim.h"
#include "world.h"

#include "os/file.h"
#include "os/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FLIPS 100000

#ifdef TMEM_HAVE_CRYPTO
#define SEALED true
#else
#define SEALED false
#endif

static char path[] = "/tmp/tmem-fault-XXXXXX";
static uint64_t baseline;

static void fill(struct world *w)
{
	for (unsigned i = 0; i < W_PAGES; i++)
		w_put(w, 0, 0, i, W_TEXT);
	for (unsigned i = 0; i < 128; i += 16)
		w_put_cluster(w, 0, 1, i, 16, 0);
	for (unsigned i = 0; i < W_PAGES; i++)
		w_put(w, 0, 2, i, i % 7 ? W_TEXT : W_SAME);
}

static void open_world(struct world *w, bool sealed)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;

	o.limit_bytes = baseline + 300 * 1024;
	o.overflow_path = path;
	o.overflow_encrypt = sealed;
	w_init(w);
	w->may_refuse = true;
	W_CHECK(w_start(w, &o), "no host");
}

static void start_as(struct world *w, bool sealed)
{
	tmem_stats st = {.size = sizeof(st)};

	open_world(w, sealed);
	fill(w);
	W_CHECK(tmem_host_stats(w->host, &st) == 0, "stats");
	W_CHECK(st.overflow_pages > 50, "the test put nothing into the file");
	W_CHECK(st.store_bytes <= st.limit_bytes, "above the limit");
}

static void start(struct world *w)
{
	start_as(w, false);
}

/* How many gets of all pages failed; the model says absent for pages that may be gone. */
static unsigned try_all(struct world *w)
{
	unsigned bad = 0;

	for (unsigned object = 0; object < W_OBJECTS; object++)
		for (unsigned page = 0; page < W_PAGES; page++)
			bad += w_try(w, 0, object, page, false) < 0;
	return bad;
}

static void interrupted(void)
{
	static const struct shim_io modes[] = {
		{.interrupt = true}, {.few_bytes = true}, {.interrupt = true, .few_bytes = true}};
	struct world w;

	w_scenario = "interrupted";
	for (unsigned i = 0; i < 3; i++) {
		shim_io(&modes[i]);
		start(&w);
		w_verify(&w);
		w_get_cluster(&w, 0, 1, 17, true);
		for (unsigned page = 0; page < W_PAGES; page += 2)
			w_get_invalidate(&w, 0, 0, page);
		w_verify(&w);
		w_end(&w);
		shim_io(NULL);
	}
}

static void read_errors(void)
{
	struct shim_io io = {0};
	struct world w;
	unsigned rounds = 0;
	uint64_t failed;

	w_scenario = "read errors";
	start(&w);
	w.damaged = true;
	for (int on = 0; on < 2; on++) {
		io.from_then_on = on;
		for (io.fail_read_at = 1;; io.fail_read_at += 1 + io.fail_read_at / 8) {
			unsigned bad;

			shim_io(&io);
			bad = try_all(&w);
			failed = shim_reads_failed();
			shim_io(NULL);
			W_CHECK((bad > 0) == (failed > 0), "%u gets failed, %" PRIu64 " reads", bad,
				failed);
			if (!failed)
				break;
			rounds++;
			w_verify(&w);
		}
	}
	W_CHECK(rounds > 10, "only %u rounds with errors", rounds);
	w_end(&w);
}

/* A page whose read failed is not lost, whatever the get was to do with it. */
static void read_errors_taking(void)
{
	struct shim_io io = {.fail_read_at = 1, .from_then_on = true};
	uint64_t bytes[TMEM_CLUSTER_MAX][TMEM_PAGE_SIZE / 8], first, failed = 0;
	unsigned refused = 0;
	struct world w;
	uint32_t mask;

	w_scenario = "read errors, taking";
	start(&w);
	w.damaged = true;
	shim_io(&io);
	for (unsigned page = 0; page < W_PAGES; page++)
		if (w_try(&w, 0, 0, page, false) < 0) {
			W_CHECK(w_try(&w, 0, 0, page, true) == -EIO, "page %u", page);
			refused++;
		}
	for (unsigned page = 0; page < W_PAGES; page++) {
		uint64_t index;
		tmem_oid oid = w_handle(1, page, &index);
		int rc = tmem_get_cluster(w.client, w.pool[0].id, &oid, index, 0, bytes, &first,
					  &mask);

		if (rc != -EIO)
			continue;
		rc = tmem_get_cluster(w.client, w.pool[0].id, &oid, index, 1, bytes, &first, &mask);
		W_CHECK(rc == -EIO, "cluster of page %u: %d", page, rc);
		refused++;
	}
	failed = shim_reads_failed();
	shim_io(NULL);
	W_CHECK(refused > 50 && failed == 2 * refused, "%u refused, %" PRIu64 " reads failed",
		refused, failed);
	w_verify(&w);
	/* And now they can be taken. */
	for (unsigned page = 0; page < W_PAGES; page++) {
		w_get_invalidate(&w, 0, 0, page);
		w_get_cluster(&w, 0, 1, page, true);
		w_get_invalidate(&w, 0, 2, page);
	}
	w_verify(&w);
	w_end(&w);
}

static uint64_t next_random(uint64_t *s)
{
	*s = *s * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return *s >> 17;
}

static void flipped_bits(bool sealed)
{
	uint64_t seed = 4711, size, hit = 0;
	struct world w;
	struct stat st;
	int fd;

	w_scenario = sealed ? "flipped bits, sealed" : "flipped bits";
	start_as(&w, sealed);
	fd = os_file_open(path, O_RDWR, 0);
	W_CHECK(fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0, "%s", path);
	size = (uint64_t)st.st_size;
	for (unsigned i = 0; i < FLIPS / 100; i++) {
		uint64_t at[100];
		unsigned char byte, bit[100];

		for (unsigned k = 0; k < 100; k++) {
			at[k] = next_random(&seed) % size;
			bit[k] = (unsigned char)(1u << next_random(&seed) % 8);
			W_CHECK(os_file_pread(fd, &byte, 1, at[k]) == 1, "read");
			byte ^= bit[k];
			W_CHECK(os_file_pwrite(fd, &byte, 1, at[k]) == 0, "write");
		}
		hit += try_all(&w);
		/* Backwards, since a place may have been hit twice. */
		for (unsigned k = 100; k-- > 0;) {
			W_CHECK(os_file_pread(fd, &byte, 1, at[k]) == 1, "read");
			byte ^= bit[k];
			W_CHECK(os_file_pwrite(fd, &byte, 1, at[k]) == 0, "write");
		}
	}
	W_CHECK(hit > FLIPS / 100, "flips were not noticed: %" PRIu64, hit);
	/* Put right again, everything is there again. */
	w.damaged = true;
	w_verify(&w);
	os_file_close(fd);
	w_end(&w);
	printf("%s: %u flips, %" PRIu64 " gets refused\n", w_scenario, FLIPS, hit);
}

static void cut(void)
{
	struct world w;
	unsigned bad;

	w_scenario = "cut";
	start(&w);
	W_CHECK(truncate(path, 40000) == 0, "truncate");
	bad = try_all(&w);
	W_CHECK(bad > 20, "the cut was not noticed: %u", bad);
	/* What is bad can be dropped and put again. */
	w.damaged = true;
	w_flush(&w, 0);
	for (unsigned i = 0; i < W_PAGES; i++)
		w_put(&w, 0, 0, i, W_TEXT);
	w_verify(&w);
	w_end(&w);
}

/*
 * Writing fails while the store is filled, in each way, at each place, once and
 * for ever. What was acknowledged is there all the same; when it is over, the
 * file is used again or not at all, and nothing is left of the attempts.
 */
static unsigned write_error(const struct shim_io *io)
{
	tmem_stats st = {.size = sizeof(st)};
	unsigned failed;
	struct world w;

	open_world(&w, SEALED);
	shim_io(io);
	fill(&w);
	failed = (unsigned)shim_io_failed();
	shim_io(NULL);
	W_CHECK(tmem_host_stats(w.host, &st) == 0, "stats");
	/* A hole that is not made is no error; everything else is counted, or was tried again. */
	W_CHECK(!failed || io->site == SHIM_PUNCH || st.overflow_write_errors > 0,
		"%u failures, none counted", failed);
	for (unsigned object = 0; object < W_OBJECTS; object++)
		for (unsigned page = 0; page < W_PAGES; page++)
			W_CHECK(w_try(&w, 0, object, page, false) >= 0,
				"an acknowledged page is lost: object %u page %u", object, page);
	w_verify(&w);
	/* Holes are made when what was there goes. */
	if (io->site == SHIM_PUNCH)
		shim_io(io);
	w_flush(&w, 0);
	if (io->site == SHIM_PUNCH)
		failed = (unsigned)shim_io_failed();
	shim_io(NULL);
	fill(&w);
	w_verify(&w);
	w_end(&w);
	return failed;
}

static void write_errors(void)
{
	static const int errors[] = {ENOSPC, EIO, EDQUOT, EFBIG};
	static const uint64_t at[] = {1, 2, 5};
	unsigned failed[SHIM_SITES] = {0}, torn = 0;

	w_scenario = "write errors";
	for (unsigned site = 0; site < SHIM_SITES; site++)
		for (unsigned i = 0; i < 4 * 3 * 2; i++) {
			struct shim_io io = {.site = (enum shim_site)site,
					     .error = errors[i % 4],
					     .fail_site_at = at[i / 4 % 3],
					     .from_then_on = i >= 12};

			failed[site] += write_error(&io);
		}
	for (unsigned i = 0; i < 6; i++) {
		struct shim_io io = {
			.site = SHIM_SITES, .torn_at = at[i % 3], .from_then_on = i >= 3};

		torn += write_error(&io);
	}
	W_CHECK(failed[SHIM_PUNCH] >= 8 && failed[SHIM_PREAD] >= 24 && failed[SHIM_PWRITE] >= 24 &&
			failed[SHIM_SETTLE] >= 24 && torn >= 6,
		"failed: %u preads, %u pwrites, %u waits; %u torn", failed[SHIM_PREAD],
		failed[SHIM_PWRITE], failed[SHIM_SETTLE], torn);
	printf("write errors: %u preads, %u pwrites, %u waits, %u holes, %u torn\n",
	       failed[SHIM_PREAD], failed[SHIM_PWRITE], failed[SHIM_SETTLE], failed[SHIM_PUNCH],
	       torn);
}

/* ---- a saved client ---------------------------------------------------------------- */

static uint64_t pages_of(const struct world *w)
{
	tmem_stats st = {.size = sizeof(st)};

	W_CHECK(tmem_host_stats(w->host, &st) == 0, "stats");
	return st.pages;
}

static int restore(struct world *w, const char *name)
{
	uint64_t pages = pages_of(w);
	tmem_save io = TMEM_SAVE;
	tmem_client *c;
	int rc = tmem_client_restore(w->host, name, &io, &c);

	W_CHECK((rc == 0) == (c != NULL) && (rc == 0) == !io.error[0], "restore: %d, %s", rc,
		io.error);
	W_CHECK(rc || pages_of(w) == 2 * pages, "restored, but not all");
	tmem_client_destroy(c);
	W_CHECK(pages_of(w) == pages, "something of what was restored is left");
	return rc;
}

static void saved_in_pieces(struct world *w, const char *name)
{
	static const struct shim_io modes[] = {
		{.interrupt = true}, {.few_bytes = true}, {.interrupt = true, .few_bytes = true}};

	for (unsigned i = 0; i < 3; i++) {
		int rc;

		shim_io(&modes[i]);
		rc = tmem_client_save(w->client, name, NULL);
		W_CHECK(rc == 0, "save: %d", rc);
		rc = restore(w, name);
		W_CHECK(rc == 0, "restore: %d", rc);
		shim_io(NULL);
	}
}

static void saved_file(void)
{
	struct shim_io io = {.site = SHIM_PREAD, .error = EIO, .fail_site_at = 1};
	char name[sizeof(path) + 8];
	unsigned failed = 0;
	struct world w;
	int rc;

	w_scenario = "saved file";
	w_init(&w);
	W_CHECK(w_start(&w, NULL), "no host");
	fill(&w);
	snprintf(name, sizeof(name), "%s.save", path);
	saved_in_pieces(&w, name);
	for (;; io.fail_site_at++, failed++) {
		shim_io(&io);
		rc = restore(&w, name);
		if (!shim_io_failed())
			break;
		W_CHECK(rc == -EIO, "restore of what cannot be read: %d", rc);
	}
	W_CHECK(rc == 0 && failed >= 2, "restore: %d, %u reads failed", rc, failed);
	/* Writes, then the wait for them; the older file is there. */
	io.error = ENOSPC;
	for (unsigned i = 0; i < 2; i++) {
		io.site = i ? SHIM_SETTLE : SHIM_PWRITE;
		io.fail_site_at = 1;
		shim_io(&io);
		rc = tmem_client_save(w.client, name, NULL);
		W_CHECK(shim_io_failed() == 1 && rc == -ENOSPC, "save on a full disk: %d", rc);
		shim_io(NULL);
		W_CHECK(restore(&w, name) == 0, "the older file cannot be restored");
	}
	w_verify(&w);
	w_end(&w);
	unlink(name);
}

static void drop_line(void *ctx, enum os_log_level level, const char *text)
{
	(void)ctx;
	(void)level;
	(void)text;
}

int main(void)
{
	struct shim_alive before, after;
	int fd = mkstemp(path);

	if (fd < 0) {
		perror(path);
		return 1;
	}
	close(fd);
	os_log_set_sink(drop_line, NULL);
	baseline = w_baseline(NULL);
	shim_alive(&before);
	interrupted();
	read_errors();
	read_errors_taking();
	flipped_bits(false);
	if (SEALED)
		flipped_bits(true);
	write_errors();
	cut();
	saved_file();
	shim_alive(&after);
	W_CHECK(memcmp(&before, &after, sizeof(before)) == 0, "something was left");
	unlink(path);
	return 0;
}
