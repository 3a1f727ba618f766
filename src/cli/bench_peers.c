/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem bench peers: the engine beside other stores that keep pages compressed
 * in memory, on the same pages. What each is asked to do is printed, because
 * they do not do the same: see docs/peers.md.
 *
 *   file -> pages that are not same-filled, in a mapping shared with children
 *        -> for each round, number of threads, store: bench_peers_measure.c
 *        -> medians
 */
#include "cli/bench_peers.h"

#include "cli/bench_pages.h"
#include "cli/cli.h"
#include "cli/pages.h"
#include "codec/codec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define COMMAND	    "bench peers"
#define MAX_DEFAULT (256ull << 20)
#define ROUNDS_MAX  99
#define STORES	    7
#define WAYS	    2 /* one thread, several */

struct store {
	const struct peer_ops *ops;
	unsigned against; /* the row that it is held against */
	bool left_out, measured[WAYS];
	char why[256];
	double put_per_s[WAYS], get_per_s[WAYS], put_cpu_ns[WAYS], get_cpu_ns[WAYS], memory[WAYS];
};

struct peers {
	struct peer_setup setup;
	unsigned threads[WAYS], ways, rounds;
	struct store store[STORES];
	uint64_t same_filled;
	char source[64];
	struct box box;
};

/* ---- pages ----------------------------------------------------------------------------------- */

/* Same-filled pages cost the engine nothing and would flatter it. */
static int share_pages(struct peers *p, const struct pages *from)
{
	uint8_t *to = mmap(NULL, from->count * PEER_PAGE + PEER_PAGE, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t word;

	if (to == MAP_FAILED)
		return -errno;
	for (uint64_t i = 0; i < from->count; i++) {
		const uint8_t *page = from->data + i * PEER_PAGE;

		if (codec_same_filled(page, PEER_PAGE, &word))
			p->same_filled++;
		else
			memcpy(to + p->setup.count++ * PEER_PAGE, page, PEER_PAGE);
	}
	p->setup.pages = to;
	return 0;
}

static int load(struct peers *p, const char *path, uint64_t max_bytes)
{
	struct pages pages;
	char err[512];
	int code;

	if (bench_pages_load(path, max_bytes, &pages, err, sizeof(err)))
		return cli_fail(COMMAND, "%s", err);
	snprintf(p->source, sizeof(p->source), "%s", pages.name);
	code = share_pages(p, &pages);
	pages_free(&pages);
	if (code)
		return cli_fail(COMMAND, "no memory for the pages: %s", strerror(-code));
	if (p->setup.count < 64)
		return cli_fail(COMMAND,
				"'%s' has only %" PRIu64 " pages that are not same-filled; "
				"64 is the least",
				p->source, p->setup.count);
	return CLI_OK;
}

/* ---- measuring ------------------------------------------------------------------------------- */

enum { FIGURES = 5 };

static void note(struct store *s, unsigned way, double figure[FIGURES][ROUNDS_MAX], unsigned n)
{
	double *to[FIGURES] = {&s->put_per_s[way], &s->get_per_s[way], &s->put_cpu_ns[way],
			       &s->get_cpu_ns[way], &s->memory[way]};

	for (unsigned k = 0; k < FIGURES && n; k++)
		*to[k] = cli_median(figure[k], n);
	s->measured[way] = n > 0;
}

/* One store with so many threads, all rounds. */
static int measure_store(struct peers *p, struct store *s, unsigned way, struct progress *bar)
{
	static double figure[FIGURES][ROUNDS_MAX];
	struct peer_result r;
	unsigned n = 0;
	int code = 0;

	p->setup.threads = p->threads[way];
	for (unsigned round = 0; round < p->rounds && !code && !s->left_out; round++) {
		code = peers_measure(&p->box, s->ops, &p->setup, &r);
		progress_add(bar, 1);
		if (code)
			snprintf(s->why, sizeof(s->why), "%s", r.why);
		if (code || !r.measured)
			break;
		figure[0][n] = r.put_per_s;
		figure[1][n] = r.get_per_s;
		figure[2][n] = r.put_cpu_ns;
		figure[3][n] = r.get_cpu_ns;
		figure[4][n++] = (double)r.memory_bytes;
	}
	if (!code && !n) {
		s->left_out = true;
		if (!s->why[0])
			snprintf(s->why, sizeof(s->why), "%s", r.why);
	}
	note(s, way, figure, n);
	return code;
}

static int failed(const struct store *s, int code)
{
	if (code == -EBADMSG)
		return cli_fail(COMMAND,
				"%s: a page came back with other bytes than it was put with",
				s->ops->name);
	if (code == -EINTR)
		return cli_fail(COMMAND, "stopped");
	return cli_fail(COMMAND, "%s: %s%s%s", s->ops->name, strerror(-code), s->why[0] ? ": " : "",
			s->why);
}

static int measure(struct peers *p)
{
	char err[512];
	struct progress bar;
	struct store *s = NULL;
	int code, closed;

	code = box_open(&p->box, err, sizeof(err));
	if (code)
		return cli_fail(COMMAND, "%s", err);
	p->setup.zram = &p->box.state->zram;
	progress_start(&bar, "", (uint64_t)STORES * p->ways * p->rounds);
	for (unsigned way = 0; way < p->ways && !code; way++)
		for (unsigned i = 0; i < STORES && !code; i++) {
			s = &p->store[i];
			progress_label(&bar, s->ops->name);
			code = measure_store(p, s, way, &bar);
		}
	progress_end(&bar);
	closed = box_close(&p->box, err, sizeof(err));
	if (code)
		return failed(s, code);
	return closed ? cli_fail(COMMAND, "%s", err) : CLI_OK;
}

/* ---- printing ---------------------------------------------------------------------------------
 */

static double over(double a, double b)
{
	return b > 0 ? a / b : 0;
}

static void print_row(const struct peers *p, const struct store *s, unsigned way, bool exact)
{
	const struct store *own = &p->store[s->against];
	char text[CLI_TEXT_MAX];

	printf("%-18s %7u %10.0f %10.0f %8.2f %8.2f %11s", s->ops->name, p->threads[way],
	       s->put_per_s[way], s->get_per_s[way], s->put_cpu_ns[way] / 1000,
	       s->get_cpu_ns[way] / 1000, cli_bytes(text, (uint64_t)s->memory[way], exact));
	if (own == s || !own->measured[way])
		printf("\n");
	else
		printf("  %6.2f %6.2f %7.2f\n", over(own->put_per_s[way], s->put_per_s[way]),
		       over(own->get_per_s[way], s->get_per_s[way]),
		       over(own->memory[way], s->memory[way]));
}

static void print_table(const struct peers *p, bool exact)
{
	char text[CLI_TEXT_MAX];

	printf("pages     %" PRIu64 ", %s (%s); %" PRIu64 " same-filled ones left out\n"
	       "rounds    %u; medians\n\n",
	       p->setup.count, cli_bytes(text, p->setup.count * PEER_PAGE, exact), p->source,
	       p->same_filled, p->rounds);
	printf("%-18s %7s %10s %10s %8s %8s %11s  %s\n", "", "", "pages", "a second", "CPU us",
	       "a page", "", "engine over it");
	printf("%-18s %7s %10s %10s %8s %8s %11s  %6s %6s %7s\n", "store", "threads", "put", "get",
	       "put", "get", "memory", "put", "get", "memory");
	for (unsigned way = 0; way < p->ways; way++)
		for (unsigned i = 0; i < STORES; i++)
			if (p->store[i].measured[way])
				print_row(p, &p->store[i], way, exact);
	printf("\n");
	for (unsigned i = 0; i < STORES; i++) {
		const struct store *s = &p->store[i];

		if (!s->left_out)
			printf("%-18s %s%s%s\n", s->ops->name, s->ops->asked,
			       s->against != i ? "; held against " : "",
			       s->against != i ? p->store[s->against].ops->name : "");
	}
	for (unsigned i = 0; i < STORES; i++) {
		const struct store *s = &p->store[i];

		if (s->left_out)
			printf("%-18s not measured: %s%s%s%s\n", s->ops->name, s->why,
			       s->ops->package ? " (package " : "",
			       s->ops->package ? s->ops->package : "", s->ops->package ? ")" : "");
	}
	printf("checked            every page read back and compared\n");
}

static json_t *json_row(const struct peers *p, unsigned i, unsigned way)
{
	const struct store *s = &p->store[i], *own = &p->store[s->against];
	json_t *o = json_object();

	cli_json_text(o, "store", s->ops->name);
	cli_json_text(o, "asked", s->ops->asked);
	cli_json_u64(o, "threads", p->threads[way]);
	if (!s->measured[way]) {
		cli_json_text(o, "not_measured", s->why);
		cli_json_text(o, "package", s->ops->package);
		return o;
	}
	cli_json_real(o, "put_per_s", s->put_per_s[way]);
	cli_json_real(o, "get_per_s", s->get_per_s[way]);
	cli_json_real(o, "put_cpu_ns", s->put_cpu_ns[way]);
	cli_json_real(o, "get_cpu_ns", s->get_cpu_ns[way]);
	cli_json_u64(o, "memory_bytes", (uint64_t)s->memory[way]);
	if (own != s && own->measured[way]) {
		cli_json_text(o, "against", own->ops->name);
		cli_json_real(o, "engine_over_put", over(own->put_per_s[way], s->put_per_s[way]));
		cli_json_real(o, "engine_over_get", over(own->get_per_s[way], s->get_per_s[way]));
		cli_json_real(o, "engine_over_memory", over(own->memory[way], s->memory[way]));
	}
	return o;
}

static int print_json(const struct peers *p)
{
	json_t *o = cli_json(COMMAND), *rows = json_array();

	cli_json_text(o, "source", p->source);
	cli_json_u64(o, "pages", p->setup.count);
	cli_json_u64(o, "original_bytes", p->setup.count * PEER_PAGE);
	cli_json_u64(o, "same_filled_left_out", p->same_filled);
	cli_json_u64(o, "rounds", p->rounds);
	for (unsigned way = 0; way < p->ways; way++)
		for (unsigned i = 0; i < STORES; i++)
			json_array_append_new(rows, json_row(p, i, way));
	json_object_set_new(o, "stores", rows);
	return cli_json_print(o);
}

/* ---- the command
 * --------------------------------------------------------------------------------- */

int cmd_bench_peers(int argc, char **argv)
{
	static struct peers p = {
		.store = {{.ops = &peer_engine_lz4, .against = 0},
			  {.ops = &peer_engine_zstd, .against = 1},
			  {.against = 0},
			  {.ops = &peer_memcached, .against = 0},
			  {.ops = &peer_nbdkit, .against = 1},
			  {.ops = &peer_nbdkit_blocks, .against = 1},
			  {.ops = &peer_zram, .against = 0}},
		.threads = {1, 2},
		.rounds = 3,
	};
	const char *path = NULL;
	uint64_t max_bytes = MAX_DEFAULT;
	bool json = false, bytes = false;
	const struct cli_option options[] = {
		{"pages", 'p', CLI_TEXT, &path, "FILE",
		 "pages to use (tmem estimate --save); default: made up", 0, 0},
		{"threads", 't', CLI_COUNT, &p.threads[1], "N", "besides one; default: 2", 1,
		 SERVER_MEMBERS_MAX},
		{"rounds", 'r', CLI_COUNT, &p.rounds, "N", "default: 3", 1, ROUNDS_MAX},
		{"max", 'm', CLI_SIZE, &max_bytes, "SIZE",
		 "use at most so much of FILE (default: 256M)", 0, 0},
		{"json", 'J', CLI_FLAG, &json, NULL, "print JSON", 0, 0},
		{"bytes", 'b', CLI_FLAG, &bytes, NULL, "exact bytes in the table", 0, 0},
		{0},
	};
	const struct cli_syntax syntax = {
		COMMAND, "",
		"Puts the same pages into the engine, RocksDB's compressed secondary cache,\n"
		"memcached, nbdkit's zstd memory and zram, gets all of them back and compares.\n"
		"What is not installed is left out. zram needs root.",
		options, false};
	int code;

	code = cli_parse(&syntax, argc, argv, NULL);
	if (code >= 0)
		return code;
	p.ways = p.threads[1] > 1 ? 2 : 1;
	p.store[2].ops = peer_rocksdb();
	code = load(&p, path, max_bytes);
	if (code == CLI_OK)
		code = measure(&p);
	if (code == CLI_OK && json) {
		code = print_json(&p);
	} else if (code == CLI_OK) {
		print_table(&p, bytes);
		code = cli_flush(COMMAND);
	}
	return code;
}
