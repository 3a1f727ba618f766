/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem bench store: a large store from its first page to its last.
 *
 *   fill -> read back -> drop half at random, compact -> read back -> destroy
 *
 * Every page that comes back is compared byte for byte with what was put; the
 * dropped ones must be gone. Pages are made when they are needed, from their
 * number, so that the bench itself takes next to no memory and all of the
 * growth is the store's. After each step: the store's own account and the
 * process's resident bytes, which must tell the same story.
 *
 * What dropping a random half gives back is measured after one second of
 * compaction, and when there is no more to gain, in percent of what the dropped
 * pages' compressed bytes took: half of the frames, if the halves were equal.
 */
#include "cli/bench_pages.h"
#include "cli/cli.h"
#include "codec/codec.h"
#include "os/clock.h"
#include "os/file.h"
#include "os/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tmem/tmem.h>

#define COMMAND	   "bench store"
#define OBJECT	   65536u /* pages of an object */
#define RETURN_NS  1000000000ull
#define COMPACTION (16ull << 20) /* bytes a call */
/* A page, compressed, with metadata, for the check before: the made-up ones take 2.2 KB. */
#define PAGE_NEEDS 2400u
#define BATCH	   64u /* pages made, or compared, between two looks at the clock */

enum step { EMPTY, FILLED, READ, DROPPED, SECOND, COMPACTED, READ_AGAIN, DESTROYED, STEPS };
static const char *const step_name[STEPS] = {"empty",	  "filled",    "read back",  "half dropped",
					     "after 1 s", "compacted", "read again", "destroyed"};
static const char *const step_key[STEPS] = {"empty",	"filled",    "read",	   "dropped",
					    "after_1s", "compacted", "read_again", "destroyed"};

struct point {
	double seconds; /* of the step */
	double store_s; /* of them, inside the store */
	uint64_t ops, account, resident, pages, compressed;
};

struct bench {
	uint64_t pages, data;
	const char *codec;
	bool json, bytes;
	tmem_host *host;
	tmem_client *client;
	tmem_pool pool;
	struct bench_maker *maker;
	struct point at[STEPS];
	uint64_t resident_before, dropped;
	double second_cpu_s, compact_cpu_s, density;
	struct progress bar;
};

static tmem_oid oid_of(uint64_t page)
{
	return (tmem_oid){{page / OBJECT, 0, 0}};
}

/* Half of the pages, at random, and the same half whenever it is asked. */
static bool is_dropped(uint64_t page)
{
	uint64_t seed = page ^ 0x5bd1e995u;

	return bench_random(&seed) & 1;
}

static int mark(struct bench *b, enum step step, uint64_t start_ns, uint64_t ops, uint64_t store_ns)
{
	struct point *p = &b->at[step];
	tmem_stats st = {.size = sizeof(st)};

	p->seconds = (double)(os_clock_ns() - start_ns) / 1e9;
	p->store_s = (double)store_ns / 1e9;
	p->ops = ops;
	p->resident = os_resident_bytes() - b->resident_before;
	if (!b->host)
		return CLI_OK;
	if (tmem_host_stats(b->host, &st))
		return cli_fail(COMMAND, "the store has no statistics");
	p->account = st.store_bytes;
	p->pages = st.pages;
	p->compressed = st.compressed_bytes;
	return CLI_OK;
}

/* ---- steps -------------------------------------------------------------------- */

/* Pages made or read at once, so that the clock is asked seldom. */
static _Alignas(64) uint8_t batch[BATCH * TMEM_PAGE_SIZE];

static unsigned batch_size(const struct bench *b, uint64_t first)
{
	return b->pages - first < BATCH ? (unsigned)(b->pages - first) : BATCH;
}

static int fill(struct bench *b)
{
	uint64_t start = os_clock_ns(), inside = 0, before;

	progress_label(&b->bar, "filling");
	for (uint64_t i = 0; i < b->pages; i += BATCH) {
		unsigned n = batch_size(b, i), k;
		int rc = 0;

		for (k = 0; k < n; k++)
			bench_maker_page(b->maker, i + k, batch + k * TMEM_PAGE_SIZE);
		before = os_clock_ns();
		for (k = 0; k < n && rc == 0; k++) {
			tmem_oid oid = oid_of(i + k);

			rc = tmem_put(b->client, b->pool, &oid, (i + k) % OBJECT,
				      batch + k * TMEM_PAGE_SIZE);
		}
		inside += os_clock_ns() - before;
		if (rc)
			return cli_fail(COMMAND, "page %" PRIu64 " cannot be put: %s", i + k - 1,
					tmem_strerror(rc));
		progress_add(&b->bar, n);
	}
	return mark(b, FILLED, start, b->pages, inside);
}

/* What came of a batch: pages that must be there, compared; the others are not there. */
static int check_batch(struct bench *b, enum step step, uint64_t first, const int *rc)
{
	_Alignas(64) uint8_t want[TMEM_PAGE_SIZE];

	for (unsigned k = 0; k < batch_size(b, first); k++) {
		bool gone = step == READ_AGAIN && is_dropped(first + k);

		if (rc[k] != gone)
			return cli_fail(COMMAND, "page %" PRIu64 ": %s", first + k,
					rc[k] ? tmem_strerror(rc[k]) : "was dropped and is there");
		if (gone)
			continue;
		bench_maker_page(b->maker, first + k, want);
		if (memcmp(batch + k * TMEM_PAGE_SIZE, want, sizeof(want)) != 0)
			return cli_fail(COMMAND, "page %" PRIu64 " is not what was put", first + k);
	}
	return CLI_OK;
}

static int read_back(struct bench *b, enum step step)
{
	uint64_t start = os_clock_ns(), inside = 0, before;
	int rc[BATCH], code = CLI_OK;

	progress_label(&b->bar, step_name[step]);
	for (uint64_t i = 0; i < b->pages && code == CLI_OK; i += BATCH) {
		unsigned n = batch_size(b, i);

		before = os_clock_ns();
		for (unsigned k = 0; k < n; k++) {
			tmem_oid oid = oid_of(i + k);

			rc[k] = tmem_get(b->client, b->pool, &oid, (i + k) % OBJECT,
					 batch + k * TMEM_PAGE_SIZE);
		}
		inside += os_clock_ns() - before;
		code = check_batch(b, step, i, rc);
		progress_add(&b->bar, n);
	}
	return code == CLI_OK ? mark(b, step, start, b->pages, inside) : code;
}

static int drop_half(struct bench *b)
{
	uint64_t start = os_clock_ns();

	progress_label(&b->bar, "dropping half");
	for (uint64_t i = 0; i < b->pages; i++) {
		tmem_oid oid = oid_of(i);

		progress_add(&b->bar, 1);
		if (!is_dropped(i))
			continue;
		b->dropped++;
		if (tmem_invalidate_page(b->client, b->pool, &oid, i % OBJECT) != 1)
			return cli_fail(COMMAND, "page %" PRIu64 " was not there to be dropped", i);
	}
	return mark(b, DROPPED, start, b->dropped, os_clock_ns() - start);
}

/* In percent of what the dropped pages held: their part, by compressed bytes, of all memory. */
static double returned_percent(const struct bench *b, uint64_t resident)
{
	const struct point *full = &b->at[READ];
	double part =
		(double)(full->compressed - b->at[DROPPED].compressed) / (double)full->compressed;

	return resident < full->resident ? 100.0 * (double)(full->resident - resident) /
						   ((double)full->resident * part)
					 : 0;
}

/* Compaction as a host's maintenance does it: one second, and then until there is no more to gain.
 */
static int give_back(struct bench *b)
{
	uint64_t start = os_clock_ns(), cpu = os_clock_thread_cpu_ns(), got = 1;
	int code = CLI_OK;

	progress_label(&b->bar, "compacting");
	while (got && code == CLI_OK) {
		got = tmem_host_compact(b->host, COMPACTION);
		if (b->at[SECOND].seconds > 0 || (got && os_clock_ns() - start < RETURN_NS))
			continue;
		code = mark(b, SECOND, start, 0, os_clock_ns() - start);
		b->second_cpu_s = (double)(os_clock_thread_cpu_ns() - cpu) / 1e9;
	}
	if (code == CLI_OK)
		code = mark(b, COMPACTED, start, 0, os_clock_ns() - start);
	b->compact_cpu_s = (double)(os_clock_thread_cpu_ns() - cpu) / 1e9;
	return code;
}

static int destroy(struct bench *b)
{
	uint64_t start = os_clock_ns();

	progress_label(&b->bar, "destroying");
	tmem_host_destroy(b->host);
	b->host = NULL;
	return mark(b, DESTROYED, start, b->pages - b->dropped, os_clock_ns() - start);
}

/* ---- the whole ------------------------------------------------------------------ */

static int open_store(struct bench *b)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	uint64_t start = os_clock_ns();
	char err[200];

	o.codec = b->codec;
	o.store_raw = 1;
	b->resident_before = os_resident_bytes();
	if (tmem_host_create(&o, &b->host, err, sizeof(err)))
		return cli_fail(COMMAND, "%s", err);
	if (tmem_client_create(b->host, "bench", &b->client))
		return cli_fail(COMMAND, "out of memory");
	b->pool = tmem_pool_create(b->client, TMEM_POOL_PERSIST, 0);
	if (b->pool < 0)
		return cli_fail(COMMAND, "out of memory");
	return mark(b, EMPTY, start, 0, os_clock_ns() - start);
}

static int run(struct bench *b)
{
	int code = open_store(b);

	progress_start(&b->bar, "filling", b->pages * 4);
	if (code == CLI_OK)
		code = fill(b);
	if (code == CLI_OK)
		code = read_back(b, READ);
	if (code == CLI_OK)
		code = drop_half(b);
	if (code == CLI_OK)
		code = give_back(b);
	if (code == CLI_OK)
		code = read_back(b, READ_AGAIN);
	if (code == CLI_OK && tmem_host_verify(b->host, 1))
		code = cli_fail(COMMAND, "the store fails its own verification");
	if (code == CLI_OK)
		code = destroy(b);
	progress_end(&b->bar);
	b->density = b->at[READ].compressed
			     ? (double)b->at[READ].resident / (double)b->at[READ].compressed
			     : 0;
	tmem_host_destroy(b->host);
	return code;
}

/* Memory that the machine could give now; 0: unknown. */
static uint64_t available(void)
{
	char *text = os_file_slurp("/proc/meminfo", 16384, NULL);
	const char *at = text ? strstr(text, "MemAvailable:") : NULL;
	uint64_t kib = at ? strtoull(at + 13, NULL, 10) : 0;

	os_free(text);
	return kib << 10;
}

static void print_table(const struct bench *b)
{
	char d[CLI_TEXT_MAX], a[CLI_TEXT_MAX], r[CLI_TEXT_MAX], c[CLI_TEXT_MAX];

	printf("%" PRIu64 " pages, %s\n\n%-13s %9s %9s %12s %14s %14s %14s\n", b->pages,
	       cli_bytes(d, b->data, b->bytes), "step", "seconds", "ns/page", "pages", "compressed",
	       "account", "resident");
	for (unsigned i = 0; i < STEPS; i++) {
		const struct point *p = &b->at[i];

		printf("%-13s %9.2f ", step_name[i], p->seconds);
		if (p->ops)
			printf("%9.0f", p->store_s * 1e9 / (double)p->ops);
		else
			printf("%9s", "-");
		printf(" %12" PRIu64 " %14s %14s %14s\n", p->pages,
		       cli_bytes(c, p->compressed, b->bytes), cli_bytes(a, p->account, b->bytes),
		       cli_bytes(r, p->resident, b->bytes));
	}
	printf("\nresident over compressed bytes, full: %.4f\n", b->density);
	printf("returned of what the dropped pages held: %.1f %% within %.2f s (%.2f s of CPU), "
	       "%.1f %% within %.2f s (%.2f s)\n",
	       returned_percent(b, b->at[SECOND].resident), b->at[SECOND].seconds, b->second_cpu_s,
	       returned_percent(b, b->at[COMPACTED].resident), b->at[COMPACTED].seconds,
	       b->compact_cpu_s);
	printf("every page was compared; ns/page is of the store alone, seconds include making "
	       "pages\n");
}

static int print_json(const struct bench *b)
{
	json_t *o = cli_json(COMMAND), *steps = json_object();

	cli_json_u64(o, "pages", b->pages);
	cli_json_u64(o, "data_bytes", b->data);
	for (unsigned i = 0; i < STEPS; i++) {
		json_t *s = json_object();

		cli_json_real(s, "seconds", b->at[i].seconds);
		cli_json_real(s, "store_seconds", b->at[i].store_s);
		cli_json_u64(s, "operations", b->at[i].ops);
		cli_json_u64(s, "pages", b->at[i].pages);
		cli_json_u64(s, "compressed_bytes", b->at[i].compressed);
		cli_json_u64(s, "account_bytes", b->at[i].account);
		cli_json_u64(s, "resident_bytes", b->at[i].resident);
		json_object_set_new(steps, step_key[i], s);
	}
	json_object_set_new(o, "steps", steps);
	cli_json_u64(o, "dropped_pages", b->dropped);
	cli_json_real(o, "returned_percent", returned_percent(b, b->at[SECOND].resident));
	cli_json_real(o, "second_cpu_s", b->second_cpu_s);
	cli_json_real(o, "compacted_percent", returned_percent(b, b->at[COMPACTED].resident));
	cli_json_real(o, "compact_cpu_s", b->compact_cpu_s);
	cli_json_real(o, "density", b->density);
	return cli_json_print(o);
}

int cmd_bench_store(int argc, char **argv)
{
	static struct bench b;
	unsigned pages = 0;
	const struct cli_option options[] = {
		{"pages", 'p', CLI_COUNT, &pages, "N", "how many; default: 4194304", 1000,
		 1u << 30},
		{"data", 'd', CLI_SIZE, &b.data, "SIZE", "so many bytes of pages instead", 0, 0},
		{"codec", 'c', CLI_TEXT, &b.codec, "NAME[:LEVEL]", "default: lz4", 0, 0},
		{"json", 'J', CLI_FLAG, &b.json, NULL, "print JSON", 0, 0},
		{"bytes", 'b', CLI_FLAG, &b.bytes, NULL, "exact bytes in the table", 0, 0},
		{0},
	};
	const struct cli_syntax syntax = {
		COMMAND, "",
		"Fills a store, reads every byte back, drops half of the pages at random, reads "
		"the\n"
		"rest back, and destroys it: time and memory of each step, and how much of what "
		"the\n"
		"dropped pages held is returned to the system within a second.",
		options, false};
	char err[200], need[CLI_TEXT_MAX], have[CLI_TEXT_MAX];
	struct codec_spec spec;
	uint64_t free_bytes = available();
	int code = cli_parse(&syntax, argc, argv, NULL);

	if (code >= 0)
		return code;
	if (pages && b.data)
		return cli_usage(COMMAND, "--pages or --data, not both");
	if (b.codec && codec_parse(b.codec, &spec, err, sizeof(err)))
		return cli_usage(COMMAND, "--codec: %s", err);
	b.pages = pages ? pages : b.data ? b.data / TMEM_PAGE_SIZE : 4u << 20;
	if (b.pages < 1000)
		return cli_usage(COMMAND, "--data: at least 1000 pages of 4096 bytes");
	b.data = b.pages * TMEM_PAGE_SIZE;
	if (free_bytes && b.pages * PAGE_NEEDS + BENCH_PAGES_BYTES > free_bytes)
		return cli_fail(COMMAND,
				"%" PRIu64
				" pages take about %s, and the machine has %s: fewer with "
				"--pages",
				b.pages, cli_bytes(need, b.pages * PAGE_NEEDS, false),
				cli_bytes(have, free_bytes, false));
	b.maker = bench_maker_open();
	if (!b.maker)
		return cli_fail(COMMAND, "out of memory");
	code = run(&b);
	bench_maker_close(b.maker);
	if (code != CLI_OK)
		return code;
	if (b.json)
		return print_json(&b);
	print_table(&b);
	return cli_flush(COMMAND);
}
