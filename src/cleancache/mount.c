/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A mount from beginning to end.
 *
 *   parent ── fork ──────────────── waits ──────────────── 0, as soon as it can be used
 *              └─ source, store, session, mount, threads ─┬─ looks at its own root: that is "can"
 *                                                         └─ serves until unmounted, or told to end
 *
 * Everything is made in the child, before it says that it is ready; what goes wrong until then is
 * said on stderr, and is the parent's exit code. After that, stderr is the system's log.
 *
 * The thread that looks at its own root may also tell the kernel how far to read ahead by itself,
 * which it does by 128 KiB at most unless told otherwise by root (read_ahead_kb).
 *
 * A mount whose process was killed leaves a mount point at which everything fails (ENOTCONN; or
 * ECONNABORTED, what was asked while it died). Who mounts there again finds that, and takes it away
 * first.
 */
#include "cleancache/cleancache.h"

#include "os/file.h"
#include "os/log.h"
#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#define THREADS	      8u
#define CREW	      4u
#define STACK_BYTES   (64u << 10) /* of a thread, as far as it is used */
#define CREW_BYTES    ((uint64_t)(CC_IO_BYTES + TMEM_CLUSTER_MAX * CC_PAGE + STACK_BYTES))
#define THREAD_BYTES  (CREW_BYTES + CC_IO_BYTES + 2 * CC_PAGE) /* and the request's own buffer */
#define NODE_BYTES    512u /* with its name, and its file where it was opened */
#define READ_AHEAD_KB "1024"
#define FOREVER_S     (10 * 365 * 86400.0)
#define CLOSE_ATTR_S  1.0
#define DESCRIPTORS   (1u << 20)
#define HEAPS	      2u /* of the C library: one for each thread would keep what others need */

static int failed(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int failed(const char *fmt, ...)
{
	va_list ap;

	fputs("tmem mount: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return 1;
}

/* ---- FUSE ------------------------------------------------------------------------------- */

void cc_init(void *arg, struct fuse_conn_info *conn)
{
	struct cc_mount *m = arg;

	conn->max_write = CC_IO_BYTES;
	conn->max_read = CC_IO_BYTES;
	/* Through a pipe each request is one system call more; most are small. */
	conn->want &= ~(unsigned)FUSE_CAP_SPLICE_READ;
	/* The kernel takes set-user-id bits away by asking for it: as root we would keep them. */
	conn->want &= ~(unsigned)FUSE_CAP_HANDLE_KILLPRIV;
	/* Written data must reach the source before anybody reads it there. */
	conn->want &= ~(unsigned)FUSE_CAP_WRITEBACK_CACHE;
	/* The source applies the umask, or its default ACL. */
	conn->want |= conn->capable & FUSE_CAP_DONT_MASK;
	if (m->o->allow_other)
		conn->want |= conn->capable & FUSE_CAP_POSIX_ACL;
	if (m->o->coherence == CC_IMMUTABLE)
		conn->want |= conn->capable & FUSE_CAP_CACHE_SYMLINKS;
}

/* In a list of mount options a comma ends one. */
static void escape(char *to, size_t room, const char *from)
{
	size_t n = 0;

	for (; *from && n + 3 < room; from++) {
		if (*from == ',' || *from == '\\')
			to[n++] = '\\';
		to[n++] = *from;
	}
	to[n] = 0;
}

static int open_session(struct cc_mount *m)
{
	const struct cc_options *o = m->o;
	char name[PATH_MAX], options[PATH_MAX + 200], self[] = "tmem", option[] = "-o";
	char *argv[] = {self, option, options, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);

	escape(name, sizeof(name), o->source);
	snprintf(options, sizeof(options), "fsname=%s,subtype=tmem,max_read=%u%s%s", name,
		 (unsigned)CC_IO_BYTES, o->allow_other ? ",allow_other,default_permissions" : "",
		 o->read_only ? ",ro" : "");
	m->se = fuse_session_new(&args, &cc_ops, sizeof(cc_ops), m);
	fuse_opt_free_args(&args);
	return m->se ? 0 : failed("libfuse does not take its options");
}

static int serve(struct cc_mount *m)
{
	struct fuse_loop_config *c = fuse_loop_cfg_create();
	int rc;

	if (!c)
		return -ENOMEM;
	fuse_loop_cfg_set_max_threads(c, m->threads);
	fuse_loop_cfg_set_idle_threads(c, m->threads);
	rc = fuse_session_loop_mt(m->se, c);
	fuse_loop_cfg_destroy(c);
	return rc > 0 ? 0 : rc;
}

/* ---- its parts -------------------------------------------------------------------------- */

static int open_store(struct cc_mount *m)
{
	const struct cc_options *o = m->o;
	tmem_host_options h = TMEM_HOST_OPTIONS;
	char err[200];

	h.limit_bytes = o->size_bytes;
	h.codec = o->codec ? o->codec : CC_CODEC;
	h.policy = o->policy;
	h.store_raw = 1; /* what does not compress is as far away as what does */
	/* Pressure is the machine's, and mostly of those who are limited: --size was asked for. */
	h.pressure_ppm = TMEM_PRESSURE_OFF;
	if (tmem_host_create(&h, &m->host, err, sizeof(err)))
		return failed("%s", err);
	if (tmem_client_create(m->host, "mount", &m->client) || cc_store_open(m))
		return failed("no memory for the store");
	return 0;
}

/* As far as we may. */
static void raise_limit(int which, rlim_t wanted)
{
	struct rlimit r;

	if (getrlimit(which, &r))
		return;
	if (r.rlim_max < wanted) {
		struct rlimit more = {wanted, wanted};

		if (!setrlimit(which, &more))
			return;
	}
	r.rlim_cur = r.rlim_max;
	(void)setrlimit(which, &r);
}

/* A quarter of the descriptors is for files that are open; half of the memory for data at least. */
static uint64_t nodes_most(const struct cc_mount *m)
{
	uint64_t by_memory = (m->account.size - m->account.fixed) / 2 / NODE_BYTES;
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur / 4 * 3 > by_memory)
		return by_memory;
	return r.rlim_cur / 4 * 3;
}

static void timeouts(struct cc_mount *m)
{
	switch (m->o->coherence) {
	case CC_IMMUTABLE:
		m->entry_s = m->attr_s = FOREVER_S;
		break;
	case CC_TTL:
		m->entry_s = m->attr_s = (double)m->o->ttl_ns / 1e9;
		break;
	default: /* a name is asked for each time; what it names then comes with it */
		m->entry_s = 0;
		m->attr_s = CLOSE_ATTR_S;
	}
}

static int open_parts(struct cc_mount *m, int root)
{
	uint64_t fixed;
	int rc;

	timeouts(m);
	m->grain_ns = cc_grain_ns(root);
	m->threads = m->o->threads ? m->o->threads : THREADS;
	m->as_root = geteuid() == 0;
	fixed = os_resident_bytes() + m->threads * THREAD_BYTES + CREW * CREW_BYTES;
	if (cc_account_open(m, fixed))
		return failed("--size leaves nothing for the store");
	m->nodes_most = nodes_most(m);
	rc = os_tls_create(&m->scratch, os_free);
	if (rc == 0)
		rc = cc_known_open(m);
	if (rc == 0 && m->o->save && cc_warm_load(m)) /* has said why */
		return failed("%s would be overwritten: name another file", m->o->save);
	if (rc == 0)
		rc = cc_nodes_open(m, root);
	return rc ? failed("no memory") : 0;
}

static int open_threads(struct cc_mount *m)
{
	int rc = cc_notify_open(m);

	if (rc == 0)
		rc = cc_locks_open(m);
	if (rc == 0)
		rc = cc_crew_open(m, CREW);
	if (rc)
		return failed("cannot start threads: %s", strerror(-rc));
	if (!m->o->no_watch && m->o->coherence != CC_IMMUTABLE && cc_watch_open(m))
		os_log(OS_LOG_WARNING, "changes of the source are not watched");
	return 0;
}

/* 0; 1: nothing was saved, and it has been said why. */
static int close_parts(struct cc_mount *m)
{
	int rc = 0;

	cc_locks_close(m); /* who has a lock at last looks at the watch */
	cc_watch_close(m);
	cc_crew_close(m);
	cc_notify_close(m);
	if (m->root)
		cc_verify(m);
	if (m->root)
		cc_nodes_close(m); /* what is known of files goes to the identities */
	if (m->served && m->o->save)
		rc = cc_warm_save(m) != 0;
	cc_known_close(m);
	cc_account_verify(m);
	tmem_host_destroy(m->host);
	if (m->se)
		fuse_session_destroy(m->se);
	return rc;
}

/* ---- the mount point -------------------------------------------------------------------- */

/* A second one over it would hide it, and what it has in memory is of no use to the second. */
static bool is_taken(const char *point)
{
	int fd = open(point, O_PATH | O_CLOEXEC);
	struct cc_found found;
	bool taken = fd >= 0 && cc_find_mount(fd, &found) && found.root;

	if (fd >= 0)
		close(fd);
	return taken;
}

/* A mount there that nobody serves any more is taken away. 0, or 1 after a line. */
static int clear_point(const char *point)
{
	struct statfs fs; /* attributes the kernel may still have; this is always asked for */
	struct stat st;

	if (statfs(point, &fs) == 0 && stat(point, &st) == 0) {
		if (!S_ISDIR(st.st_mode))
			return failed("%s: not a folder", point);
		return is_taken(point) ? failed("%s: a mount of tmem is there already; "
						"tmem umount ends it",
						point)
				       : 0;
	}
	if (errno != ENOTCONN && errno != ECONNABORTED)
		return failed("%s: %s", point, strerror(errno));
	return cc_detach(point)
		       ? failed("%s: a mount that has died is there, and cannot be taken away",
				point)
		       : 0;
}

/*
 * What could not be written at the end is said now, when somebody is there to hear it; what fills
 * up until then is not known. file: from / on; point: resolved. 0, or 1 after a line.
 */
static int check_save(const char *file, const char *point)
{
	size_t n = strlen(point);
	char folder[PATH_MAX], real[PATH_MAX];
	struct stat st;

	snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(file, '/') - file + 1), file);
	if (!realpath(folder, real) || faccessat(AT_FDCWD, real, W_OK | X_OK, AT_EACCESS))
		return failed("--save: %s: %s", folder, strerror(errno));
	if (stat(file, &st) == 0 && !S_ISREG(st.st_mode))
		return failed("--save: %s: not a file", file);
	if (!strncmp(real, point, n) && (!real[n] || real[n] == '/'))
		return failed("--save: %s would be in the mount itself", file);
	return 0;
}

struct ready {
	struct cc_mount *m;
	os_thread thread;
	int fd; /* the parent waits here */
	char point[PATH_MAX];
};

static void to_background(void)
{
	int null = open("/dev/null", O_RDWR);

	(void)setsid();
	if (chdir("/")) /* the file system of our folder could not be unmounted */
		os_log(OS_LOG_WARNING, "stays in the folder where it was begun: %s",
		       strerror(errno));
	if (null < 0)
		return;
	for (int fd = 0; fd <= 2; fd++)
		(void)dup2(null, fd);
	if (null > 2)
		close(null);
}

static void to_syslog(void *arg, enum os_log_level level, const char *text)
{
	(void)arg;
	syslog(level == OS_LOG_ERROR ? LOG_ERR : LOG_WARNING, "%s", text);
}

/* The mount can be used when its root can be looked at. */
static void *look_at_root(void *arg)
{
	struct ready *r = arg;
	char path[64];
	struct stat st;

	if (stat(r->point, &st))
		return NULL;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(st.st_dev),
		 minor(st.st_dev));
	(void)os_file_write_text(path, READ_AHEAD_KB);
	if (!r->m->o->foreground) {
		openlog("tmem-mount", LOG_PID, LOG_DAEMON);
		os_log_set_sink(to_syslog, NULL);
		to_background();
	}
	if (write(r->fd, "", 1) == 1)
		close(r->fd);
	return NULL;
}

/* ---- the whole -------------------------------------------------------------------------- */

/* Before it is mounted on. realpath() has left no more slashes than there are names. */
static void remember_point(struct cc_mount *m, const char *point)
{
	const char *name = strrchr(point, '/') + 1;
	char folder[PATH_MAX];
	struct stat st;

	snprintf(folder, sizeof(folder), "%.*s", (int)(name - point), point);
	if (stat(folder, &st))
		return;
	m->point = name;
	m->point_dev = st.st_dev;
	m->point_ino = st.st_ino;
}

/* What libfuse says of a mount that fails names neither us nor the way out. */
static const char *hint(void)
{
	if (access("/dev/fuse", F_OK))
		return ": there is no /dev/fuse (the kernel's module fuse; --device /dev/fuse of a "
		       "container)";
	if (access("/dev/fuse", R_OK | W_OK))
		return ": /dev/fuse is not for this user";
	return geteuid() ? ": a user other than root needs fusermount3, a folder that is his, and "
			   "for --allow-other a line in /etc/fuse.conf, see fusermount3(1)"
			 : ": root needs CAP_SYS_ADMIN for it, which a container may lack";
}

static int mount_and_serve(struct cc_mount *m, struct ready *r)
{
	bool started;
	int rc;

	remember_point(m, r->point);
	if (cc_end_open(m, r->point))
		return failed("cannot start threads");
	if (fuse_session_mount(m->se, r->point)) { /* has said what failed */
		cc_end_close(m);
		return failed("%s: not mounted%s", r->point, hint());
	}
	/* Its number, without being asked: nobody serves yet. */
	atomic_store(&m->own_dev, cc_device_of(AT_FDCWD, r->point));
	cc_guard_watch(m, minor((dev_t)atomic_load(&m->own_dev)));
	rc = open_threads(m);
	if (rc == 0 && os_thread_create(&r->thread, "tmem-ready", look_at_root, r))
		rc = failed("cannot start threads");
	started = rc == 0;
	if (started) {
		m->served = true;
		rc = serve(m) < 0;
	}
	cc_end_close(m);
	fuse_session_unmount(m->se); /* closes the connection: who waits for an answer has one */
	if (started)
		os_thread_join(r->thread);
	return rc;
}

/*
 * The source was opened as a name only. Who may not list it can use what names he knows; who may
 * not pass through it can do nothing. Root may where others may for whom he asks (--allow-other).
 */
static bool is_closed(const struct cc_options *o, int root)
{
	return !(o->allow_other && geteuid() == 0) && faccessat(root, ".", X_OK, AT_EACCESS) &&
	       errno == EACCES;
}

/* In the child, or, in the foreground, at once. */
static int run(const struct cc_options *o, int ready_fd)
{
	struct cc_mount *m = os_zalloc_aligned(sizeof(*m));
	struct ready r = {.m = m, .fd = ready_fd};
	int root, rc;

	if (!m)
		return failed("no memory");
	m->o = o;
	(void)prctl(PR_SET_NAME, CC_NAME);
	os_blocks_heaps(HEAPS);
	cc_guard_open(m);
	/* Each file that the kernel knows takes a descriptor. Root may not do this afterwards. */
	raise_limit(RLIMIT_NOFILE, DESCRIPTORS);
	/* That of who writes through us the kernel has looked at; ours is not everybody's. */
	raise_limit(RLIMIT_FSIZE, RLIM_INFINITY);
	if (o->allow_other)
		cc_caller_quotas();
	root = open(o->source, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		rc = failed("%s: %s", o->source, strerror(errno));
	else if (is_closed(o, root))
		rc = failed("%s: %s", o->source, strerror(EACCES));
	else if (clear_point(o->mountpoint))
		rc = 1;
	else if (!realpath(o->mountpoint, r.point))
		rc = failed("%s: %s", o->mountpoint, strerror(errno));
	else if (o->save && check_save(o->save, r.point))
		rc = 1;
	else
		rc = open_store(m) || open_session(m) || open_parts(m, root) ||
		     mount_and_serve(m, &r);
	rc |= close_parts(m);
	cc_guard_close(m);
	os_free(m);
	return rc;
}

int cc_mount_run(const struct cc_options *o)
{
	int fd[2], status;
	char byte;
	pid_t pid;

	(void)signal(SIGCHLD, SIG_DFL); /* where it is ignored, nobody can be waited for */
	if (pipe2(fd, O_CLOEXEC))
		return failed("%s", strerror(errno));
	if (o->foreground) {
		close(fd[0]);
		return run(o, fd[1]);
	}
	pid = fork();
	if (pid < 0)
		return failed("%s", strerror(errno));
	if (pid == 0) {
		close(fd[0]);
		_exit(run(o, fd[1]));
	}
	close(fd[1]);
	if (read(fd[0], &byte, 1) == 1)
		return 0;
	if (waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status))
		return WEXITSTATUS(status);
	return failed("the process that serves it has ended");
}
