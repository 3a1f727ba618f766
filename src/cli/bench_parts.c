/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem bench alloc, tmem bench index: parts of the engine alone. What they
 * measure is in bench/; here are the pages, the options and the printing.
 */
#include "../bench/alloc_bench.h"
#include "../bench/index_bench.h"
#include "alloc/zsmalloc.h"
#include "cli/bench_pages.h"
#include "cli/cli.h"
#include "codec/codec.h"
#include "os/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PAGE OS_FRAME_SIZE

/* ---- printing an object of numbers, whatever its keys are ------------------------------------ */

static void print_value(const char *key, json_t *v, int depth)
{
	const char *inner;
	json_t *item, *field;
	size_t i;

	printf("%*s%-*s", 2 * depth, "", 34 - 2 * depth, key);
	if (json_is_integer(v))
		printf(" %14" JSON_INTEGER_FORMAT "\n", json_integer_value(v));
	else if (json_is_real(v))
		printf(" %14.3f\n", json_real_value(v));
	else if (json_is_string(v))
		printf(" %14s\n", json_string_value(v));
	else
		putchar('\n');
	json_object_foreach(v, inner, item) print_value(inner, item, depth + 1);
	json_array_foreach(v, i, item)
	{
		const char *separator = "";

		if (!json_is_object(item))
			continue;
		printf("%*s", 2 * depth + 2, "");
		json_object_foreach(item, inner, field)
		{
			printf("%s%s ", separator, inner);
			if (json_is_string(field))
				printf("%s", json_string_value(field));
			else
				printf("%.6g", json_number_value(field));
			separator = ", ";
		}
		putchar('\n');
	}
}

/* Prints what a bench found after what it was given; takes both. */
static int finish(const char *command, json_t *given, json_t *found, bool json)
{
	const char *key;
	json_t *v;

	json_object_update_missing(given, found);
	json_decref(found);
	if (json)
		return cli_json_print(given);
	json_object_foreach(given, key, v)
	{
		if (strcmp(key, "version") && strcmp(key, "command") && strcmp(key, "tmem_version"))
			print_value(key, v, 0);
	}
	json_decref(given);
	return cli_flush(command);
}

/* ---- alloc
 * --------------------------------------------------------------------------------------- */

/* The sizes that the pages compress to, same-filled ones left out. NULL: out of memory. */
static uint32_t *zsizes(const struct pages *p, const struct codec_spec *spec, unsigned cluster,
			uint64_t *count)
{
	static uint8_t out[16 * 4096];
	uint32_t *sizes = os_alloc(p->count * sizeof(*sizes));
	struct codec_set set = {0};
	void *cctx = codec_set_cctx(&set, spec);
	uint64_t i, n = 0, word;
	unsigned k;

	for (i = 0; i < p->count && sizes && cctx; i += k) {
		size_t bytes, z;

		k = pages_cluster(p, i, cluster);
		bytes = k * PAGE;
		if (codec_same_filled(p->data + i * PAGE, bytes, &word))
			continue;
		z = spec->codec->compress(cctx, p->data + i * PAGE, bytes, out, bytes * 7 / 8);
		if (z == 0) /* too poor: kept as it is; sixteen whole pages just do not fit */
			z = bytes < ZS_MAX_SIZE ? bytes : ZS_MAX_SIZE;
		sizes[n++] = (uint32_t)z;
	}
	codec_set_clear(&set);
	if (!cctx) {
		os_free(sizes);
		sizes = NULL;
	}
	*count = n;
	return sizes;
}

int cmd_bench_alloc(int argc, char **argv)
{
	const char *command = "bench alloc", *path = NULL, *codec = "lz4";
	unsigned threads = 2, cluster = 1;
	uint64_t max_bytes = 0, n = 0;
	bool json = false;
	const struct cli_option options[] = {
		{"pages", 'p', CLI_TEXT, &path, "FILE",
		 "pages to take the sizes of (tmem estimate --save); default: made up", 0, 0},
		{"codec", 'c', CLI_TEXT, &codec, "NAME[:LEVEL]", "default: lz4", 0, 0},
		{"cluster", 0, CLI_COUNT, &cluster, "PAGES",
		 "pages compressed together: 1, 2, 4, 8, 16 (default: 1)", 1, 16},
		{"threads", 't', CLI_COUNT, &threads, "N", "for scaling; default: 2", 1, 64},
		{"max", 'm', CLI_SIZE, &max_bytes, "SIZE",
		 "use at most so much of FILE (default: 1G)", 0, 0},
		{"json", 'J', CLI_FLAG, &json, NULL, "print JSON", 0, 0},
		{0},
	};
	const struct cli_syntax syntax = {
		command, "",
		"Stores objects of the sizes that real pages compress to in the allocator: speed,\n"
		"density, and what comes back when half of them go; then zsmalloc and zbud side "
		"by\n"
		"side: density, put, get, and what it costs to get a frame back.",
		options, false};
	struct codec_spec spec;
	struct pages pages;
	json_t *given, *found, *drivers;
	uint32_t *sizes;
	char err[512];
	int code;

	code = cli_parse(&syntax, argc, argv, NULL);
	if (code >= 0)
		return code;
	if (codec_parse(codec, &spec, err, sizeof(err)))
		return cli_usage(command, "--codec: %s", err);
	if (cluster & (cluster - 1))
		return cli_usage(command, "--cluster takes 1, 2, 4, 8 or 16");
	if (bench_pages_load(path, max_bytes, &pages, err, sizeof(err)))
		return cli_fail(command, "%s", err);
	sizes = zsizes(&pages, &spec, cluster, &n);
	given = cli_json(command);
	cli_json_text(given, "source", pages.name);
	cli_json_text(given, "codec", codec);
	cli_json_u64(given, "cluster_pages", cluster);
	pages_free(&pages);
	found = sizes && n ? bench_alloc(sizes, n, threads) : NULL;
	drivers = found ? bench_alloc_drivers(sizes, n) : NULL;
	if (drivers) {
		json_object_update_missing(found, drivers);
		json_decref(drivers);
	}
	os_free(sizes);
	if (found)
		return finish(command, given, found, json);
	json_decref(given);
	return cli_fail(command, "no page that is not same-filled, or out of memory");
}

/* ---- index
 * --------------------------------------------------------------------------------------- */

int cmd_bench_index(int argc, char **argv)
{
	const char *command = "bench index";
	unsigned threads = 2, pages = 0;
	bool json = false;
	const struct cli_option options[] = {
		{"pages", 'p', CLI_COUNT, &pages, "N", "the large index (default: 4194304)", 8192,
		 1u << 31},
		{"threads", 't', CLI_COUNT, &threads, "N", "for scaling; default: 2", 1, 64},
		{"json", 'J', CLI_FLAG, &json, NULL, "print JSON", 0, 0},
		{0},
	};
	const struct cli_syntax syntax = {
		command, "",
		"The index alone, without pages, codecs and allocators: nanoseconds an operation "
		"with\n"
		"4096 pages and with many, metadata a page, the spread over locks, threads.",
		options, false};
	json_t *found;
	bool failed;
	int code;

	code = cli_parse(&syntax, argc, argv, NULL);
	if (code >= 0)
		return code;
	found = bench_index(threads, pages);
	if (!found)
		return cli_fail(command, "out of memory");
	failed = json_integer_value(json_object_get(found, "failed")) != 0;
	code = finish(command, cli_json(command), found, json);
	return failed ? cli_fail(command, "operations failed, see 'failed'") : code;
}
