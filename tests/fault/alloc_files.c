/* SPDX-License-Identifier: BSD-2-Clause */
/* Failing calls: what goes to files and comes from them. */
#include "alloc_scenarios.h"

#include <sys/stat.h>
#include <unistd.h>

/* ---- save and restore ----------------------------------------------------------------- */

/* Not through the shim: these are the test's own. */
static const char older[] = "what was there";

static void write_older(void)
{
	FILE *f = fopen(save_path, "w");

	W_CHECK(f && fputs(older, f) >= 0 && fclose(f) == 0, "%s", save_path);
}

/*
 * A save that failed: the file is what it was, and nothing lies beside it, but for an
 * empty file where it could not be told whose that is.
 */
static void check_older(void)
{
	char text[sizeof(older) + 1] = "", part[128];
	FILE *f = fopen(save_path, "r");
	struct stat st;

	W_CHECK(f && fgets(text, sizeof(text), f) && strcmp(text, older) == 0,
		"a save failed, and the older file is not there");
	(void)fclose(f);
	snprintf(part, sizeof(part), "%s.part", save_path);
	W_CHECK(stat(part, &st) || st.st_size == 0, "a save failed, and left its temporary file");
	(void)unlink(part);
}

static uint64_t host_pages(const struct world *w)
{
	tmem_stats st = {.size = sizeof(st)};

	W_CHECK(tmem_host_stats(w->host, &st) == 0, "stats");
	return st.pages;
}

/* Another client takes the place of the world's. */
static void restore_in_place(struct world *w)
{
	uint64_t pages = w_pages(w);
	tmem_pool_pair pair[W_POOLS];
	tmem_save io = TMEM_SAVE;
	tmem_client *c;
	int rc;

	io.pool = pair;
	io.pool_room = W_POOLS;
	rc = tmem_client_restore(w->host, save_path, &io, &c);
	W_CHECK((rc == 0) == (c != NULL) && (rc == 0) == !io.error[0], "restore: %d, \"%s\"", rc,
		io.error);
	W_CHECK(rc == 0 || shim_failed() || (rc == -ENOMEM && w->may_refuse), "restore: %d, %s", rc,
		io.error);
	if (rc) {
		W_CHECK(host_pages(w) == pages, "a restore failed, and left pages");
		return;
	}
	W_CHECK(io.pages == pages && host_pages(w) == 2 * pages, "%llu pages restored of %llu",
		(unsigned long long)io.pages, (unsigned long long)pages);
	tmem_client_destroy(w->client);
	w->client = c;
	for (unsigned i = 0; i < W_POOLS; i++) {
		tmem_pool was = w->pool[i].id;

		w->pool[i].id = -1;
		for (unsigned k = 0; was >= 0 && k < io.pools; k++)
			if (pair[k].was == was)
				w->pool[i].id = pair[k].is;
		W_CHECK(was < 0 || w->pool[i].id >= 0, "a pool was not restored");
	}
}

static void save_and_restore(struct world *w)
{
	tmem_save io = TMEM_SAVE;
	int rc;

	write_older();
	rc = tmem_client_save(w->client, save_path, &io);
	W_CHECK((rc == 0) == !io.error[0], "save: %d, \"%s\"", rc, io.error);
	W_CHECK(rc == 0 || shim_failed() || (rc == -ENOMEM && w->may_refuse), "save: %d, %s", rc,
		io.error);
	W_CHECK(host_pages(w) == w_pages(w), "a save changed the store");
	/* The very last step: the file is there, and whether it will be is not known. */
	if (rc && !strstr(io.error, "saved, but")) {
		check_older();
		return;
	}
	W_CHECK(io.pages == w_pages(w), "%llu pages saved of %llu", (unsigned long long)io.pages,
		(unsigned long long)w_pages(w));
	restore_in_place(w);
}

static void save(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 40);
	w_put_cluster(w, 0, 1, 64, 8, 0x11);
	fill(w, 0, 2, 0, 5);
	w_clone(w, 0, 1);
	w_invalidate(w, 1, 1, 66);
	save_and_restore(w);
}

/* What needs a dictionary is packed anew. */
static void save_dictionary(struct world *w)
{
	tmem_host_options o = options("zstd:1");
	int rc;

	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 110);
	rc = tmem_pool_train(w->client, w->pool[0].id, 4096, NULL);
	W_CHECK(rc == 0 || rc == -ENOMEM || rc == -ENODATA, "train: %d", rc);
	fill(w, 0, 0, 0, 20);
	save_and_restore(w);
}

static void save_overflow(struct world *w)
{
	tmem_host_options o = options("lz4");

	o.limit_bytes = lz4_baseline + 140 * 1024;
	o.overflow_path = overflow_path;
	w->may_refuse = true;
	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 60);
	w_put_cluster(w, 0, 1, 0, 16, 0);
	save_and_restore(w);
}

/* ---- the recorder ------------------------------------------------------------------- */

/* The recorder has memory, or it does not record; the store works either way. */
static void traced(struct world *w)
{
	uint64_t records = 0, lost = 0;
	int rc;

	if (!w_start(w, NULL))
		return;
	rc = tmem_host_trace_start(w->host, "/dev/null");
	W_CHECK(rc <= 0, "trace: %d", rc);
	fill(w, 0, 0, 0, 8);
	w_put_cluster(w, 0, 1, 0, 4, 0);
	w_flush(w, 0);
	if (rc == 0) {
		rc = tmem_host_trace_stop(w->host, &records, &lost);
		W_CHECK(rc <= 0 && (rc || lost == 0), "stopping: %d, %llu lost", rc,
			(unsigned long long)lost);
		W_CHECK(records + lost > 0, "nothing was recorded");
	} else {
		W_CHECK(tmem_host_trace_stop(w->host, NULL, NULL) == -EINVAL, "it records");
	}
	/* Left running: the host's end stops it. */
	if (tmem_host_trace_start(w->host, "/dev/null") == 0)
		fill(w, 0, 1, 0, 3);
}

/* Enough for buffers to fill up while operations run. */
static void traced_long(struct world *w)
{
	uint64_t records = 0, lost = 0;
	int rc;

	if (!w_start(w, NULL))
		return;
	fill(w, 0, 0, 0, 8);
	rc = tmem_host_trace_start(w->host, save_path);
	W_CHECK(rc == 0 || shim_failed(), "trace: %d", rc);
	for (uint64_t i = 0; i < 1500; i++) {
		tmem_oid oid = {{i << 40, ~i, i << 50}};

		W_CHECK(tmem_invalidate_page(w->client, w->pool[0].id, &oid, i << 33) == 0,
			"a page where there is none");
	}
	if (rc)
		return;
	rc = tmem_host_trace_stop(w->host, &records, &lost);
	W_CHECK(rc == 0 || shim_failed(), "stopping: %d", rc);
	W_CHECK(records + lost == 1500 && (rc || lost == 0), "%llu records, %llu lost: %d",
		(unsigned long long)records, (unsigned long long)lost, rc);
}

const struct scenario alloc_files[] = {
	{"save", save, false},
	{"save_dictionary", save_dictionary, false},
	{"save_overflow", save_overflow, false},
	{"traced_long", traced_long, false},
	{"traced", traced, false},
	{NULL, NULL, false},
};
