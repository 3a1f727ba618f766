/* SPDX-License-Identifier: BSD-2-Clause */
/* tmem bench WHAT: finds the bench and hands over. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

/* A build without libfuse has no mount. */
#pragma weak cmd_bench_mount

static const struct bench {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *about;
} benches[] = {
	{"engine", cmd_bench_engine, "the store against the bare codec on the same pages"},
	{"codecs", cmd_bench_codecs, "codecs, dictionaries, recompression: frames and time"},
	{"alloc", cmd_bench_alloc, "the allocators: density, speed, frames given back"},
	{"index", cmd_bench_index, "the index: speed, spread, metadata a page"},
	{"peers", cmd_bench_peers, "the store beside RocksDB, memcached, nbdkit and zram"},
	{"store", cmd_bench_store, "a store of 4 million pages, from its first page to its last"},
	{"run", cmd_bench_run, "a program bare, under tmem run, and over zram, in one memory"},
	{"mount", cmd_bench_mount, "a slow folder bare, through rclone, and through tmem mount"},
};
#define N_BENCHES (sizeof(benches) / sizeof(benches[0]))

int cmd_bench(int argc, char **argv)
{
	size_t i;

	if (argc < 2)
		return cli_usage("bench", "which bench?");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		printf("usage: tmem bench WHAT [OPTIONS] ...\n\nMeasures on this "
		       "machine.\n\nwhat:\n");
		for (i = 0; i < N_BENCHES; i++)
			if (benches[i].run)
				printf("  %-8s  %s\n", benches[i].name, benches[i].about);
		printf("\n'tmem bench WHAT --help' tells more; so does tmem-bench(1).\n");
		return cli_flush("bench");
	}
	if (argv[1][0] == '-')
		return cli_usage("bench", "unknown option '%s'", argv[1]);
	for (i = 0; i < N_BENCHES; i++)
		if (benches[i].run && !strcmp(argv[1], benches[i].name))
			return benches[i].run(argc - 1, argv + 1);
	return cli_usage("bench", "there is no bench '%s'", argv[1]);
}
