/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What must be so before a program is started: the kernel has what the pager
 * needs and lets us use it, and the program is one that an agent can be loaded
 * into. One line says what is missing; the program is not started.
 */
#include "frontswap/pager/discard.h"
#include "frontswap/pager/run.h"
#include "frontswap/uffd.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PERMIT                                                                                     \
	"permit it by access to /dev/userfaultfd, by sysctl vm.unprivileged_userfaultfd=1, "       \
	"or by running with CAP_SYS_PTRACE"

static int open_userfaultfd(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd;

	if (dev >= 0) {
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		close(dev);
		if (fd >= 0)
			return fd;
	}
	return (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
}

/* All features this kernel has, or a line that says what is wrong. */
static bool features_of(uint64_t *features)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd = open_userfaultfd();

	if (fd < 0) {
		if (errno == ENOSYS)
			fprintf(stderr, "tmem run: this kernel has no userfaultfd\n");
		else
			fprintf(stderr, "tmem run: userfaultfd is not permitted here (%s); %s\n",
				strerror(errno), PERMIT);
		return false;
	}
	/* Asked for no feature the kernel lists all it has. */
	if (ioctl(fd, UFFDIO_API, &api) < 0) {
		fprintf(stderr, "tmem run: userfaultfd does not work here: %s\n", strerror(errno));
		close(fd);
		return false;
	}
	close(fd);
	*features = api.features;
	return true;
}

/* Processes are looked at by number, which is somebody else's in another PID namespace's /proc. */
static bool proc_is_ours(void)
{
	char link[16] = "";

	return readlink("/proc/self", link, sizeof(link) - 1) > 0 && atoi(link) == getpid();
}

int probe_kernel(enum run_evict *evict)
{
	struct uffdio_api api = {.api = UFFD_API};
	uint64_t features;
	const char *why = "";
	int fd;

	if (!proc_is_ours()) {
		fprintf(stderr, "tmem run: /proc is not mounted, or is another PID namespace's "
				"(unshare has --mount-proc)\n");
		return 126;
	}
	if (!features_of(&features))
		return 126;
	if (*evict == RUN_EVICT_AUTO)
		*evict = (features & UFFD_FEATURES_NEEDED) == UFFD_FEATURES_NEEDED
				 ? RUN_EVICT_MOVE
				 : RUN_EVICT_DISCARD;
	if (*evict == RUN_EVICT_MOVE && UFFD_FEATURES_NEEDED & ~features) {
		fprintf(stderr, "tmem run: --evict move: this kernel has no UFFDIO_MOVE; Linux 6.8 "
				"has\n");
		return 126;
	}
	if (*evict == RUN_EVICT_DISCARD &&
	    (UFFD_FEATURES_OLD & ~features || !discard_probe(&why))) {
		fprintf(stderr, "tmem run: this kernel is too old: %s\n",
			UFFD_FEATURES_OLD & ~features ? "its userfaultfd lacks events" : why);
		return 126;
	}
	fd = open_userfaultfd();
	api.features = *evict == RUN_EVICT_MOVE ? UFFD_FEATURES_FULL : UFFD_FEATURES_OLD_FULL;
	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) < 0 && errno == EPERM)
		fprintf(stderr, "tmem run: without CAP_SYS_PTRACE all pages come back before the "
				"program forks, whatever the limit\n");
	if (fd >= 0)
		close(fd);
	return 0;
}

static int find_program(const char *name, char *path, size_t n)
{
	const char *at = getenv("PATH"), *end;
	int error = ENOENT;

	if (strchr(name, '/')) {
		snprintf(path, n, "%s", name);
		return access(path, F_OK) < 0 ? errno : access(path, X_OK) < 0 ? EACCES : 0;
	}
	if (!at)
		at = "/usr/local/bin:/usr/bin:/bin";
	for (; *at; at = *end ? end + 1 : end) {
		struct stat st;

		end = strchrnul(at, ':');
		if ((size_t)snprintf(path, n, "%.*s/%s", (int)(end - at), at, name) >= n ||
		    stat(path, &st) < 0 || !S_ISREG(st.st_mode))
			continue;
		if (access(path, X_OK) == 0)
			return 0;
		error = EACCES;
	}
	return error;
}

static bool has_interpreter(int fd, const Elf64_Ehdr *e)
{
	for (unsigned i = 0; i < e->e_phnum; i++) {
		Elf64_Phdr p;

		if (pread(fd, &p, sizeof(p), (off_t)(e->e_phoff + (uint64_t)i * sizeof(p))) !=
		    sizeof(p))
			return false;
		if (p.p_type == PT_INTERP)
			return true;
	}
	return false;
}

static int refuse(const char *path, const char *why)
{
	fprintf(stderr, "tmem run: %s %s\n", path, why);
	return 126;
}

union head {
	Elf64_Ehdr elf;
	char text[256];
};

/* Why no library can be loaded into this file's program; NULL: one can, as far as one sees. */
static const char *unloadable(int fd, const struct stat *st, const union head *head, ssize_t n)
{
	char cap[64];

	if (st->st_mode & (S_ISUID | S_ISGID) && st->st_uid != geteuid())
		return "is set-uid or set-gid: nothing can be loaded into it";
	if (st->st_mode & (S_ISUID | S_ISGID))
		return "is set-uid or set-gid: the loader ignores what is to be loaded into it";
	if (fgetxattr(fd, "security.capability", cap, sizeof(cap)) > 0)
		return "has file capabilities: nothing can be loaded into it";
	if (n < (ssize_t)sizeof(head->elf) || memcmp(head->elf.e_ident, ELFMAG, SELFMAG) != 0)
		return NULL;
	if (head->elf.e_ident[EI_CLASS] != ELFCLASS64 || head->elf.e_machine != EM_X86_64)
		return "is not a 64-bit x86 program";
	if (!has_interpreter(fd, &head->elf))
		return "is statically linked: nothing can be loaded into it";
	return NULL;
}

const char *probe_unloadable(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	const char *why = NULL;
	union head head;
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		why = unloadable(fd, &st, &head, pread(fd, &head, sizeof(head), 0));
	if (fd >= 0)
		close(fd);
	return why;
}

static int check_file(const char *path, int depth)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
	const char *why;
	union head head;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fd < 0 && errno == EACCES ? 0 : refuse(path, strerror(errno));
	n = pread(fd, &head, sizeof(head), 0);
	why = S_ISDIR(st.st_mode) ? "is a directory" : unloadable(fd, &st, &head, n);
	if (why) {
		rc = refuse(path, why);
	} else if (n > 2 && head.text[0] == '#' && head.text[1] == '!') {
		char *at, *save = NULL;

		head.text[n < 256 ? n : 255] = 0;
		at = strtok_r(head.text + 2, " \t\n", &save);
		if (at && depth < 4)
			rc = check_file(at, depth + 1);
	}
	close(fd);
	return rc;
}

int probe_program(const char *name, char *path, size_t pathlen)
{
	int error = find_program(name, path, pathlen);

	if (error == ENOENT) {
		fprintf(stderr, "tmem run: %s: not found\n", *name ? name : "''");
		return 127;
	}
	if (error) {
		fprintf(stderr, "tmem run: %s: %s\n", name, strerror(error));
		return 126;
	}
	return check_file(path, 0);
}
