/* SPDX-License-Identifier: BSD-2-Clause */
/* tmem SUBCOMMAND: finds the subcommand and hands over. */
#include "cli/cli.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <tmem/tmem.h>
#include <unistd.h>

/* A build without frontswap has no `tmem run`; it is then neither listed nor known. */
#pragma weak cmd_run
/* The same, without libfuse. */
#pragma weak cmd_mount
#pragma weak cmd_umount
#pragma weak cmd_invalidate
#pragma weak cmd_stat

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *about;
} commands[] = {
	{"run", cmd_run, "run a program in less memory than it wants"},
	{"report", cmd_report, "draw what `tmem run --report` has written"},
	{"mount", cmd_mount, "a compressed page cache over a slow file system"},
	{"umount", cmd_umount, "end such a mount"},
	{"invalidate", cmd_invalidate, "have a mount forget what it keeps of a file or folder"},
	{"stat", cmd_stat, "figures of a mount, or of a file in it"},
	{"estimate", cmd_estimate, "what a process or files would take when compressed"},
	{"trace", cmd_trace, "record which pages a program asks for"},
	{"replay", cmd_replay, "a trace against eviction policies"},
	{"bench", cmd_bench, "measure the store's parts, or `tmem run`, on this machine"},
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int help(void)
{
	size_t i;

	printf("usage: tmem COMMAND [OPTIONS] ...\n"
	       "\n"
	       "Transcendent memory: pages that do not fit, compressed and kept in RAM.\n"
	       "\n"
	       "commands:\n");
	for (i = 0; i < N_COMMANDS; i++)
		if (commands[i].run)
			printf("  %-10s  %s\n", commands[i].name, commands[i].about);
	printf("\n"
	       "'tmem COMMAND --help' tells more; so do the man pages tmem-COMMAND(1).\n"
	       "  -h, --help  this text\n"
	       "      --version  the version\n");
	return cli_flush("");
}

int main(int argc, char **argv)
{
	size_t i;
	int fd;

	/* Where these were closed, what is opened first would be taken for them. */
	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (fd == STDOUT_FILENO) { /* what is printed is lost: writing is to fail */
			close(fd);
			fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		}
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
	if (argc < 2)
		return cli_usage("", "which command?");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return help();
	if (!strcmp(argv[1], "--version")) {
		printf("tmem %s\n", tmem_version());
		return cli_flush("");
	}
	if (argv[1][0] == '-')
		return cli_usage("", "unknown option '%s'", argv[1]);
	for (i = 0; i < N_COMMANDS; i++)
		if (commands[i].run && !strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	return cli_usage("", "unknown command '%s'", argv[1]);
}
