/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem bench codecs: what each codec, a dictionary, and recompression make of
 * the same pages, in a store.
 *
 * Each row is a host of its own, one thread, CPU time: put every page, get
 * every page, compare every page. "dictionary" puts the pages, trains on a
 * sample of them, and puts all of them again. The recompression rows put with
 * lz4 and recompress, everything taken for idle; frames are those of the
 * allocator, before and after, so what does not come back to the system does
 * not count.
 */
#include "cli/cli.h"

#include "cli/bench_pages.h"
#include "os/clock.h"
#include "tmem/tmem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define COMMAND	  "bench codecs"
#define PAGE	  4096u
#define MAX_BYTES (256ull << 20)

struct row {
	const char *put, *to;		/* codec of puts; of recompression, or NULL */
	bool dict, kept;		/* train; and it was worth it */
	double put_us, get_us, work_us; /* CPU, a page; work: training or recompression */
	uint64_t pages, bytes, frames, frames_before, dictionary;
};

struct run {
	const struct pages *pages;
	struct row *r;
	tmem_host *host;
	tmem_client *client;
	tmem_pool pool;
};

static tmem_oid place(uint64_t i, uint64_t *index)
{
	*index = i % 65536;
	return (tmem_oid){{1, i / 65536, 0}};
}

static int put_all(struct run *x)
{
	uint64_t began = os_clock_thread_cpu_ns(), index;

	x->r->pages = 0;
	for (uint64_t i = 0; i < x->pages->count; i++) {
		tmem_oid oid = place(i, &index);
		int rc = tmem_put(x->client, x->pool, &oid, index, x->pages->data + i * PAGE);

		if (rc && rc != -E2BIG)
			return rc;
		x->r->pages += rc == 0;
	}
	x->r->put_us = (double)(os_clock_thread_cpu_ns() - began) / 1e3 / (double)x->pages->count;
	return 0;
}

static int get_all(struct run *x)
{
	uint64_t began = os_clock_thread_cpu_ns(), index, found = 0;
	uint8_t page[PAGE];

	for (uint64_t i = 0; i < x->pages->count; i++) {
		tmem_oid oid = place(i, &index);
		int rc = tmem_get(x->client, x->pool, &oid, index, page);

		if (rc < 0 || (rc == 0 && memcmp(page, x->pages->data + i * PAGE, PAGE) != 0))
			return rc < 0 ? rc : -EIO;
		found += rc == 0;
	}
	x->r->get_us = (double)(os_clock_thread_cpu_ns() - began) / 1e3 / (double)x->pages->count;
	return found == x->r->pages ? 0 : -EIO;
}

static void look(struct run *x, uint64_t *frames)
{
	tmem_stats s = {.size = sizeof(s)};

	(void)tmem_host_stats(x->host, &s);
	*frames = s.frame_bytes / PAGE;
	x->r->bytes = s.compressed_bytes;
	x->r->dictionary = s.dictionary_bytes;
}

static int work(struct run *x)
{
	tmem_train_result t = {.size = sizeof(t)};
	uint64_t began = os_clock_thread_cpu_ns();
	tmem_recompress o = TMEM_RECOMPRESS;
	int rc = 0;

	if (x->r->dict) {
		rc = tmem_pool_train(x->client, x->pool, 0, &t);
		rc = rc == -ENODATA ? 0 : rc;
		x->r->kept = t.kept;
	}
	o.codec = x->r->to;
	if (rc == 0 && x->r->to)
		rc = tmem_host_recompress(x->host, &o, NULL);
	x->r->work_us = (double)(os_clock_thread_cpu_ns() - began) / 1e3 / (double)x->pages->count;
	if (rc == 0 && x->r->kept && !x->r->to)
		rc = put_all(x);
	return rc;
}

static int run_row(const struct pages *pages, struct row *r)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct run x = {.pages = pages, .r = r};
	int rc;

	o.codec = r->put;
	o.store_raw = 1;
	rc = tmem_host_create(&o, &x.host, NULL, 0);
	if (rc)
		return rc;
	rc = tmem_client_create(x.host, "bench", &x.client);
	x.pool = rc ? rc : tmem_pool_create(x.client, TMEM_POOL_PERSIST, 0);
	rc = x.pool < 0 ? x.pool : put_all(&x);
	look(&x, &r->frames_before);
	if (rc == 0 && (r->dict || r->to))
		rc = work(&x);
	(void)tmem_host_compact(x.host, UINT64_MAX);
	look(&x, &r->frames);
	if (rc == 0)
		rc = get_all(&x);
	tmem_host_destroy(x.host);
	return rc;
}

/* ---- printing -------------------------------------------------------------------- */

static void name_of(const struct row *r, char *to, size_t size)
{
	snprintf(to, size, "%s%s%s%s", r->put, r->to ? " -> " : "", r->to ? r->to : "",
		 !r->dict  ? ""
		 : r->kept ? " + dictionary"
			   : " (dictionary not kept)");
}

static json_t *row_json(const struct row *r)
{
	json_t *j = json_object();
	char name[80];

	name_of(r, name, sizeof(name));
	cli_json_text(j, "what", name);
	cli_json_u64(j, "pages", r->pages);
	cli_json_u64(j, "compressed_bytes", r->bytes);
	cli_json_u64(j, "frames", r->frames);
	cli_json_u64(j, "frames_before", r->frames_before);
	cli_json_u64(j, "dictionary_bytes", r->dictionary);
	cli_json_real(j, "put_us", r->put_us);
	cli_json_real(j, "get_us", r->get_us);
	cli_json_real(j, "work_us", r->work_us);
	return j;
}

static void print_head(const struct pages *p)
{
	printf("%" PRIu64 " pages of %s; one page at a time; us of CPU time a page\n\n", p->count,
	       p->name);
	printf("%-34s %10s %9s %9s %8s %8s %8s\n", "codec", "compressed", "frames", "returned",
	       "put us", "get us", "work us");
}

static void print_row(const struct row *r)
{
	char name[80], bytes[CLI_TEXT_MAX];

	name_of(r, name, sizeof(name));
	printf("%-34s %10s %9" PRIu64, name, cli_bytes(bytes, r->bytes, false), r->frames);
	if (r->to)
		printf(" %9" PRId64, (int64_t)(r->frames_before - r->frames));
	else
		printf(" %9s", "");
	printf(" %8.2f %8.2f", r->put_us, r->get_us);
	if (r->to || r->dict)
		printf(" %8.2f", r->work_us);
	printf("\n");
}

static int bench(const struct pages *pages, bool json)
{
	static struct row rows[] = {
		{.put = "lz4"},
		{.put = "lz4hc"},
		{.put = "lzo"},
		{.put = "zstd:1"},
		{.put = "zstd:3"},
		{.put = "deflate:1"},
		{.put = "deflate:6"},
		{.put = "zstd:1", .dict = true},
		{.put = "zstd:3", .dict = true},
		{.put = "lz4", .to = "zstd:3"},
		{.put = "lz4", .to = "zstd:3", .dict = true},
	};
	json_t *all = cli_json(COMMAND), *list = json_array();

	if (!json)
		print_head(pages);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int rc = run_row(pages, &rows[i]);

		if (rc == -EINVAL && !strcmp(rows[i].put, "lzo"))
			continue; /* its module was not built */
		if (rc) {
			json_decref(list);
			json_decref(all);
			return cli_fail(COMMAND, "%s: %s", rows[i].put, tmem_strerror(rc));
		}
		if (json)
			(void)json_array_append_new(list, row_json(&rows[i]));
		else
			print_row(&rows[i]);
		fflush(stdout);
	}
	(void)json_object_set_new(all, "rows", list);
	if (json)
		return cli_json_print(all);
	json_decref(all);
	return cli_flush(COMMAND);
}

int cmd_bench_codecs(int argc, char **argv)
{
	uint64_t max_bytes = MAX_BYTES;
	const char *path = NULL;
	bool json = false;
	const struct cli_option options[] = {
		{"pages", 'p', CLI_TEXT, &path, "FILE", "pages, end to end; without: made here", 0,
		 0},
		{"max", 'm', CLI_SIZE, &max_bytes, "SIZE", "read at most this much (256M)", 0, 0},
		{"json", 'J', CLI_FLAG, &json, NULL, "print JSON", 0, 0},
		{0},
	};
	const struct cli_syntax syntax = {COMMAND, "",
					  "What each codec, dictionaries and recompression make of "
					  "the same pages.",
					  options, false};
	struct pages pages = {0};
	char err[512];
	int code = cli_parse(&syntax, argc, argv, NULL);

	if (code >= 0)
		return code;
	if (bench_pages_load(path, max_bytes, &pages, err, sizeof(err)))
		return cli_fail(COMMAND, "%s", err);
	code = bench(&pages, json);
	pages_free(&pages);
	return code;
}
