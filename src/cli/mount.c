/* SPDX-License-Identifier: BSD-2-Clause */
/* tmem mount, umount, invalidate, stat: a mount, and what is said to one. */
#include "cleancache/mount.h"
#include "cli/cli.h"
#include "codec/codec.h"

#include <tmem/tmem.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLUSTER	  4
#define READAHEAD ((uint64_t)4 << 20)
#define SECOND_NS 1000000000ull

/* ---- mount ------------------------------------------------------------------------------ */

#define ABOUT_MOUNT                                                                                \
	"Show the folder SRC at DIR, and keep what is read through DIR compressed in memory: "     \
	"never\n"                                                                                  \
	"more than SIZE in all. What changes in SRC is seen when a file is opened, or as told\n"   \
	"by --ttl or --immutable. Returns when DIR can be used; `tmem umount DIR` ends it."

static uint64_t machine_memory(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* It is written when we are in another folder. NULL, and errno. */
static const char *absolute(const char *path)
{
	static char whole[PATH_MAX];
	char here[PATH_MAX];

	if (*path == '/')
		return path;
	if (!getcwd(here, sizeof(here)))
		return NULL;
	errno = ENAMETOOLONG;
	return snprintf(whole, sizeof(whole), "%s/%s", here, path) < PATH_MAX ? whole : NULL;
}

int cmd_mount(int argc, char **argv)
{
	struct cc_options o = {.policy = "s3fifo", .cluster = CLUSTER};
	const char *readahead = NULL;
	unsigned ttl = 0;
	bool immutable = false;
	const struct cli_option options[] = {
		{"size", 's', CLI_SIZE, &o.size_bytes, "SIZE",
		 "all memory of the mount; default: an eighth of the machine's", 0, 0},
		{"ttl", 0, CLI_COUNT, &ttl, "SECONDS", "what was looked at is believed for so long",
		 1, 86400 * 365},
		{"immutable", 0, CLI_FLAG, &immutable, NULL, "SRC does not change", 0, 0},
		{"codec", 'c', CLI_TEXT, &o.codec, "NAME[:LEVEL]",
		 "of all pages: lz4, lz4hc, zstd, deflate; default: " CC_CODEC
		 ", and " CC_CODEC_COSTLY " for what was read in small pieces",
		 0, 0},
		{"cluster", 0, CLI_COUNT, &o.cluster, "PAGES",
		 "neighbours compressed together: 1, 2, 4, 8, 16", 1, TMEM_CLUSTER_MAX},
		{"policy", 0, CLI_TEXT, &o.policy, "NAME",
		 "which pages go first: lru, s3fifo; default: s3fifo", 0, 0},
		{"readahead", 0, CLI_TEXT, &readahead, "SIZE",
		 "read so far ahead of who reads in order; 0: not; default: 4M", 0, 0},
		{"threads", 0, CLI_COUNT, &o.threads, "N", "that serve requests; default: 8", 1,
		 64},
		{"save", 0, CLI_TEXT, &o.save, "FILE",
		 "keep the pages there at the end, and begin with them", 0, 0},
		{"allow-other", 0, CLI_FLAG, &o.allow_other, NULL, "other users may use it, too", 0,
		 0},
		{"read-only", 'r', CLI_FLAG, &o.read_only, NULL,
		 "nothing can be changed through it", 0, 0},
		{"no-watch", 0, CLI_FLAG, &o.no_watch, NULL,
		 "do not have the kernel tell of changes", 0, 0},
		{"no-control", 0, CLI_FLAG, &o.no_control, NULL, "no figures in DIR/.tmem", 0, 0},
		{"foreground", 'f', CLI_FLAG, &o.foreground, NULL, "stay, and end with Ctrl-C", 0,
		 0},
		{NULL, 0, CLI_FLAG, NULL, NULL, NULL, 0, 0},
	};
	const struct cli_syntax syntax = {"mount", "SRC DIR", ABOUT_MOUNT, options, false};
	struct codec_spec spec;
	char err[200];
	int n, rc = cli_parse(&syntax, argc, argv, &n);

	if (rc >= 0)
		return rc;
	if (n != 2)
		return cli_usage("mount", "which folder, and where?");
	if (!*argv[1] || !*argv[2])
		return cli_usage("mount", "the name of %s is empty", *argv[1] ? "DIR" : "SRC");
	if (o.codec && codec_parse(o.codec, &spec, err, sizeof(err)) < 0)
		return cli_usage("mount", "--codec: %s", err);
	if (o.cluster & (o.cluster - 1))
		return cli_usage("mount", "--cluster takes 1, 2, 4, 8 or 16");
	if (strcmp(o.policy, "lru") != 0 && strcmp(o.policy, "s3fifo") != 0)
		return cli_usage("mount", "--policy takes lru or s3fifo");
	if (ttl && immutable)
		return cli_usage("mount", "--ttl and --immutable exclude each other");
	if (o.save && !(o.save = absolute(o.save)))
		return cli_fail("mount", "--save: its folder: %s", strerror(errno));
	if (!o.size_bytes)
		o.size_bytes = machine_memory() / 8;
	if (o.size_bytes < CC_SIZE_MIN)
		return cli_usage("mount",
				 "--size is too low to work with; it takes at least %" PRIu64 "M",
				 (uint64_t)(CC_SIZE_MIN >> 20));
	o.readahead_bytes = READAHEAD;
	if (readahead && cli_parse_size(readahead, &o.readahead_bytes))
		return cli_usage("mount", "--readahead takes a size, as 4M, or 0: '%s'", readahead);
	o.source = argv[1];
	o.mountpoint = argv[2];
	o.coherence = immutable ? CC_IMMUTABLE : ttl ? CC_TTL : CC_CLOSE_TO_OPEN;
	o.ttl_ns = ttl * SECOND_NS;
	return cc_mount_run(&o);
}

/* ---- what is said to a mount ------------------------------------------------------------ */

/* A descriptor that ioctl() can be called on, or -errno. */
static int open_any(const char *path)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return fd;
}

/* What an ioctl() on it has failed for. */
static const char *why_not(int fd, int error)
{
	struct cc_found found;

	if (error == EPERM)
		return "only for root and who made the mount";
	if (error != ENOTTY)
		return strerror(error);
	return cc_find_mount(fd, &found) ? "neither a file nor a folder of the source"
					 : "not in a mount of tmem";
}

static int ask(const char *command, const char *path, unsigned long what, void *arg, int *answer)
{
	int fd = open_any(path), rc;

	if (fd < 0)
		return cli_fail(command, "%s: %s", path, strerror(-fd));
	rc = ioctl(fd, what, arg);
	*answer = rc;
	if (rc < 0)
		cli_fail(command, "%s: %s", path, why_not(fd, errno));
	close(fd);
	return rc < 0 ? CLI_FAILED : CLI_OK;
}

/*
 * A name that is not there, as far as the kernel knows, is looked for again: what stands in its way
 * is the first name of the path that is missing, and the folder that it is in can be asked.
 */
static void forget_missing(const char *path)
{
	struct cc_name name;
	char up[PATH_MAX];
	size_t n = strlen(path);
	int fd = open_any(path);

	if (fd >= 0)
		close(fd);
	if (fd != -ENOENT)
		return;
	do {
		while (n && path[n - 1] == '/')
			n--;
		while (n && path[n - 1] != '/')
			n--;
		snprintf(up, sizeof(up), "%.*s", (int)n, n ? path : "");
		fd = open_any(n ? up : ".");
	} while (fd == -ENOENT && n);
	if (fd < 0)
		return;
	snprintf(name.name, sizeof(name.name), "%.*s", (int)strcspn(path + n, "/"), path + n);
	(void)ioctl(fd, CC_IOC_FORGET, &name); /* what it was for fails by itself */
	close(fd);
}

int cmd_invalidate(int argc, char **argv)
{
	static const struct cli_option options[] = {{NULL, 0, CLI_FLAG, NULL, NULL, NULL, 0, 0}};
	const struct cli_syntax syntax = {
		"invalidate", "PATH...",
		"What a mount keeps of PATH is dropped, and read anew when it is\n"
		"asked for; of a folder, what it keeps of all that is in it.",
		options, false};
	int n, rc = cli_parse(&syntax, argc, argv, &n), files, code = CLI_OK;

	if (rc >= 0)
		return rc;
	if (n < 1)
		return cli_usage("invalidate", "of which file or folder?");
	for (int i = 1; i <= n; i++) {
		forget_missing(argv[i]);
		if (ask("invalidate", argv[i], CC_IOC_INVALIDATE, NULL, &files) != CLI_OK)
			code = CLI_FAILED;
	}
	return code;
}

static int print_json(const char *path, char *text)
{
	json_t *o = cli_json("stat");
	char *name, *save = NULL, *value;

	cli_json_text(o, "path", path);
	for (name = strtok_r(text, " \n", &save); name; name = strtok_r(NULL, " \n", &save)) {
		value = strtok_r(NULL, " \n", &save);
		if (value)
			cli_json_u64(o, name, strtoull(value, NULL, 10));
	}
	return cli_json_print(o);
}

int cmd_stat(int argc, char **argv)
{
	bool json = false;
	const struct cli_option options[] = {
		{"json", 'J', CLI_FLAG, &json, NULL, "print JSON", 0, 0},
		{NULL, 0, CLI_FLAG, NULL, NULL, NULL, 0, 0},
	};
	const struct cli_syntax syntax = {
		"stat", "PATH",
		"Figures of the mount that the folder PATH is in, or of the file PATH\n"
		"in a mount; see tmem-stat(1).",
		options, false};
	int n, rc = cli_parse(&syntax, argc, argv, &n), answer;
	static struct cc_text text;

	if (rc >= 0)
		return rc;
	if (n != 1)
		return cli_usage("stat", "of which file or folder?");
	if (ask("stat", argv[1], CC_IOC_STAT, &text, &answer) != CLI_OK)
		return CLI_FAILED;
	text.text[CC_TEXT_MAX - 1] = 0;
	if (json)
		return print_json(argv[1], text.text);
	fputs(text.text, stdout);
	return cli_flush("stat");
}

/* ---- umount ----------------------------------------------------------------------------- */

/* For who may not unmount by himself. */
static int fusermount(const char *dir, bool lazy)
{
	pid_t pid;
	int status;

	(void)signal(SIGCHLD, SIG_DFL); /* where it is ignored, nobody can be waited for */
	pid = fork();
	if (pid == 0) {
		if (lazy)
			execlp("fusermount3", "fusermount3", "-u", "-z", "--", dir, (char *)NULL);
		else
			execlp("fusermount3", "fusermount3", "-u", "--", dir, (char *)NULL);
		fprintf(stderr, "tmem umount: fusermount3: %s\n", strerror(errno));
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return CLI_FAILED;
	return status ? CLI_FAILED : CLI_OK;
}

/* A mount that is to end, as it was before. */
struct ending {
	char dir[PATH_MAX]; /* no link */
	struct cc_found found;
	int server;	      /* its process, to wait for; -1: not known */
	char saves[PATH_MAX]; /* to this file; empty: to none */
	struct stat saved;    /* there, before; */
	bool was_saved;	      /* or nothing */
};

/*
 * By a descriptor that asks the mount nothing. Where it is: links to a mount point are followed,
 * and the kernel, which is told not to, gets the place itself. 0, or an exit code after a line.
 */
static int find_mount(const char *path, struct ending *e)
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), error = errno;
	char link[64];
	ssize_t n = -1;
	bool found;

	if (fd < 0)
		return cli_fail("umount", "%s: %s", path, strerror(error));
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, e->dir, sizeof(e->dir) - 1);
	if (n < 0)
		n = snprintf(e->dir, sizeof(e->dir), "%s", path);
	e->dir[n] = 0;
	found = cc_find_mount(fd, &e->found);
	close(fd);
	if (found && e->found.root)
		return CLI_OK;
	return cli_fail("umount", "%s: %s", path,
			found ? "in a mount of tmem, and not where it is mounted"
			      : "not a mount of tmem");
}

/* One whose process has died does not answer (ENOTCONN), and is to go all the more. */
static void ask_who_serves(struct ending *e)
{
	static struct cc_text text;
	int fd = open_any(e->dir);

	e->server = -1;
	if (fd < 0)
		return;
	if (ioctl(fd, CC_IOC_STAT, &text) == 0 && !strncmp(text.text, "pid ", 4))
		e->server = (int)syscall(SYS_pidfd_open, (pid_t)strtol(text.text + 4, NULL, 10), 0);
	if (ioctl(fd, CC_IOC_SAVES, &text) == 0)
		snprintf(e->saves, sizeof(e->saves), "%.*s", PATH_MAX - 1, text.text);
	close(fd);
	e->was_saved = *e->saves && stat(e->saves, &e->saved) == 0;
}

static int unmount(const struct ending *e, bool lazy)
{
	if (umount2(e->dir, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return CLI_OK;
	if (errno == EPERM && e->found.user != geteuid())
		return cli_fail("umount", "%s: another user has made it: he and root may end it",
				e->dir);
	if (errno == EPERM)
		return fusermount(e->dir, lazy);
	return cli_fail("umount", "%s: %s", e->dir,
			errno == EINVAL	 ? "nothing is mounted there"
			: errno == EBUSY ? "in use; --lazy ends it with its last user"
					 : strerror(errno));
}

/*
 * What a process has saved has another number than what was there: it is made beside it, and gets
 * its name when it is complete.
 */
static int look_at_saved(const struct ending *e)
{
	struct stat now;

	if (!*e->saves)
		return CLI_OK;
	if (stat(e->saves, &now) == 0 &&
	    (!e->was_saved || now.st_ino != e->saved.st_ino || now.st_dev != e->saved.st_dev ||
	     now.st_ctim.tv_sec != e->saved.st_ctim.tv_sec ||
	     now.st_ctim.tv_nsec != e->saved.st_ctim.tv_nsec))
		return CLI_OK;
	return cli_fail("umount", "%s has ended, but %s was not saved: the system's log says why",
			e->dir, e->saves);
}

int cmd_umount(int argc, char **argv)
{
	bool lazy = false;
	const struct cli_option options[] = {
		{"lazy", 'z', CLI_FLAG, &lazy, NULL,
		 "also where it is in use: it ends with its last user", 0, 0},
		{NULL, 0, CLI_FLAG, NULL, NULL, NULL, 0, 0},
	};
	const struct cli_syntax syntax = {
		"umount", "DIR",
		"End the mount at DIR. Returns when all has been saved that was to be.", options,
		false};
	int n, rc = cli_parse(&syntax, argc, argv, &n);
	static struct ending e;

	if (rc >= 0)
		return rc;
	if (n != 1)
		return cli_usage("umount", "which folder?");
	rc = find_mount(argv[1], &e);
	if (rc != CLI_OK)
		return rc;
	if (lazy) /* its source may not answer */
		return unmount(&e, true);
	ask_who_serves(&e);
	rc = unmount(&e, false);
	if (e.server < 0)
		return rc;
	if (rc == CLI_OK) {
		struct pollfd p = {.fd = e.server, .events = POLLIN};

		while (poll(&p, 1, -1) < 0 && errno == EINTR)
			;
		rc = look_at_saved(&e);
	}
	close(e.server);
	return rc;
}
