/* SPDX-License-Identifier: BSD-2-Clause */
/* tmem run: a program in less memory than it wants. */
#include "frontswap/pager/run.h"
#include "cli/cli.h"
#include "codec/codec.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ABOUT                                                                                      \
	"Run PROGRAM with at most SIZE of memory in all: its anonymous memory, and what of it\n"   \
	"is kept compressed, with all that this takes. Pages that do not fit are compressed\n"     \
	"and come back when they are touched. Children are covered by the same limit.\n"           \
	"With --limit auto there is no budget: what was not touched for --cold seconds is\n"       \
	"compressed, and no more of it than comes back seldom.\n"                                  \
	"\n"                                                                                       \
	"The exit code is PROGRAM's; 128+n when signal n ended it; 126 when it cannot be run,\n"   \
	"127 when it is not found, 125 when tmem itself failed. It returns when PROGRAM and\n"     \
	"all processes it left behind have ended."

static uint64_t machine_memory(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int failed(const char *what)
{
	fprintf(stderr, "tmem run: %s\n", what);
	return 126;
}

/* Better now than after an hour. Whether it was made here. */
static int report_open(const char *path, bool *made)
{
	int fd = os_file_open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);

	*made = fd >= 0;
	if (fd == -EEXIST)
		fd = os_file_open(path, O_WRONLY | O_CREAT, 0666);
	os_file_close(fd);
	return fd < 0 ? fd : 0;
}

/* Nothing was written to it: the program was not started, or the store has died. */
static void report_remove_empty(const char *path)
{
	struct stat st;

	if (lstat(path, &st) == 0 && st.st_size == 0)
		os_file_discard(path);
}

int cmd_run(int argc, char **argv)
{
	struct run_options o = {.codec = CLI_RUN_CODEC, .cluster = CLI_RUN_CLUSTER};
	const char *store = NULL, *without = NULL, *evict = "auto";
	unsigned cold = 0, idle = 0;
	double promotions = 0;
	uint64_t most = 0;
	bool made = false;
	const struct cli_option options[] = {
		{"limit", 'l', CLI_SIZE_AUTO, &o.limit_bytes, "SIZE|auto",
		 "all memory; auto: what is in use; default: half of the machine's", 0, 0},
		{"max", 0, CLI_SIZE, &most, "SIZE", "with auto: never more than this", 0, 0},
		{"cold", 0, CLI_COUNT, &cold, "SECONDS",
		 "with auto: what was not touched for so long leaves; default: 120", 1, 86400},
		{"promotions", 0, CLI_PERCENT, &promotions, "PERCENT",
		 "with auto: of the memory in use so much a minute may have left; default: 0.2", 0,
		 0},
		{"codec", 'c', CLI_TEXT, &o.codec, "NAME[:LEVEL]",
		 "lz4, lz4hc, zstd, deflate; default: " CLI_RUN_CODEC, 0, 0},
		{"cluster", 0, CLI_COUNT, &o.cluster, "PAGES",
		 "neighbours compressed together: 1, 2, 4, 8, 16", 1, TMEM_CLUSTER_MAX},
		{"idle", 0, CLI_COUNT, &idle, "SECONDS",
		 "what the store was not asked for so long is packed denser; default: 30", 1,
		 86400},
		{"overflow", 'o', CLI_TEXT, &o.overflow, "FILE",
		 "where the oldest compressed pages go when memory is full", 0, 0},
		{"overflow-rate", 0, CLI_SIZE, &o.overflow_rate, "SIZE",
		 "write at most so much a second there", 0, 0},
		{"overflow-encrypt", 0, CLI_FLAG, &o.overflow_encrypt, NULL,
		 "encrypt it, with a key that is in memory only", 0, 0},
		{"report", 'r', CLI_TEXT, &o.report, "FILE",
		 "write numbers as JSON at the end; -: to stderr", 0, 0},
		{"live", 0, CLI_FLAG, &o.live, NULL,
		 "show what happens, at the bottom of the terminal", 0, 0},
		{"trace", 't', CLI_TEXT, &o.trace, "FILE",
		 "record what the store is asked for, see tmem-trace(1)", 0, 0},
		{"without", 0, CLI_TEXT, &without, "NAMES",
		 "leave techniques out, to see what they bring: " TECHNIQUES, 0, 0},
		{"evict", 0, CLI_TEXT, &evict, "HOW",
		 "move, discard; default: what the kernel can do, see tmem-run(1)", 0, 0},
		{"store", 's', CLI_TEXT, &store, "SOCKET",
		 "use the store of a tmemd (this version has none)", 0, 0},
		{NULL, 0, CLI_FLAG, NULL, NULL, NULL, 0, 0},
	};
	const struct cli_syntax syntax = {"run", "[--] PROGRAM [ARG...]", ABOUT, options, true};
	struct codec_spec spec;
	char err[600];
	int operands, rc = cli_parse(&syntax, argc, argv, &operands);

	if (rc >= 0)
		return rc;
	if (operands < 1)
		return cli_usage("run", "which program?");
	if (codec_parse(o.codec, &spec, err, sizeof(err)) < 0)
		return cli_usage("run", "--codec: %s", err);
	if (o.cluster & (o.cluster - 1))
		return cli_usage("run", "--cluster takes 1, 2, 4, 8 or 16");
	if (technique_parse(without, &o.without) < 0)
		return cli_usage("run", "--without takes some of " TECHNIQUES);
	if (!strcmp(evict, "move"))
		o.evict = RUN_EVICT_MOVE;
	else if (!strcmp(evict, "discard"))
		o.evict = RUN_EVICT_DISCARD;
	else if (strcmp(evict, "auto") != 0)
		return cli_usage("run", "--evict takes auto, move or discard");
	if (store)
		return failed("--store: this version runs with a store of its own only");
	o.automatic = o.limit_bytes == CLI_AUTO;
	if (!o.automatic && (most || cold || promotions > 0))
		return cli_usage("run", "--%s is for --limit auto",
				 most	? "max"
				 : cold ? "cold"
					: "promotions");
	if (!o.overflow && (o.overflow_rate || o.overflow_encrypt))
		return cli_usage("run", "--overflow-%s is for --overflow",
				 o.overflow_rate ? "rate" : "encrypt");
	o.idle_ms = idle ? idle * 1000 : RUN_IDLE_MS;
	o.cold_ms = cold ? cold * 1000 : AUTO_COLD_MS;
	o.promotions_ppm = promotions > 0 ? (uint32_t)(promotions * 10000 + 0.5) : AUTO_TARGET_PPM;
	if (o.automatic)
		o.limit_bytes = most ? most : machine_memory();
	/* A limit that means something where none was given. */
	if (!o.limit_bytes)
		o.limit_bytes = machine_memory() / 2;
	if (o.limit_bytes < RUN_LIMIT_MIN)
		return cli_usage("run", "--%s is too low to work with; it takes at least %uM",
				 o.automatic ? "max" : "limit", (unsigned)(RUN_LIMIT_MIN >> 20));
	if (o.report && strcmp(o.report, "-")) {
		rc = report_open(o.report, &made);
		if (rc) {
			snprintf(err, sizeof(err), "cannot write the report %s: %s", o.report,
				 strerror(-rc));
			return failed(err);
		}
	}
	o.argv = argv + 1;
	o.argv[operands] = NULL;
	rc = run_program(&o);
	if (made)
		report_remove_empty(o.report);
	return rc;
}
