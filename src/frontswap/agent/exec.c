/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Programs that start others with an environment of their own making.
 *
 * The agent comes into a program by two variables. `env -i`, a server that cleans
 * its environment before it starts a helper, a wrapper that sets LD_PRELOAD for an
 * allocator: what they start would run without an agent, with all its memory, and
 * nobody would notice. So the calls of libc that take an environment get one in
 * which both are again, ours in front; what the program put there stays behind it.
 *
 * Children of vfork() come here too: they share the parent's memory and stand on
 * its stack. So nothing is allocated but on the stack, nothing written but there,
 * and what has to be looked up was when the agent was loaded (look_up).
 *
 * Not seen: execl() and its kind where libc makes them of execve() inside of it,
 * system calls past libc, and what a program exports to `environ` before system().
 * Such processes run unmanaged, are counted and told of (pager/strays.c).
 */
#include "frontswap/agent/inside.h"
#include "frontswap/agent/sys.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PRELOAD	 "LD_PRELOAD="
#define LONGEST	 8192u /* of an LD_PRELOAD; a longer one stays as it is */
#define ENV_MOST 65536u

typedef int spawn_fn(pid_t *, const char *, const posix_spawn_file_actions_t *,
		     const posix_spawnattr_t *, char *const[], char *const[]);

static char our_socket[256];	/* TMEM_RUN_SOCKET=... */
static char our_path[PATH_MAX]; /* of the agent's library */
static int (*real_execvpe)(const char *, char *const[], char *const[]);
static spawn_fn *real_spawn, *real_spawnp;

/* Before any program of ours can call vfork(), where dlsym() might allocate. */
__attribute__((constructor)) static void look_up(void)
{
	*(void **)(&real_execvpe) = dlsym(RTLD_NEXT, "execvpe");
	*(void **)(&real_spawn) = dlsym(RTLD_NEXT, "posix_spawn");
	*(void **)(&real_spawnp) = dlsym(RTLD_NEXT, "posix_spawnp");
}

void exec_init(const char *socket)
{
	const char *preload = getenv("LD_PRELOAD");
	size_t n = preload ? strcspn(preload, ": ") : 0;

	if (!n || n >= sizeof(our_path) ||
	    strlen(AGENT_ENV) + strlen(socket) + 2 > sizeof(our_socket))
		return;
	memcpy(our_path, preload, n);
	strcpy(our_socket, AGENT_ENV "=");
	strcat(our_socket, socket);
}

/* Where a variable is in an environment, or -1; and how many there are, in *n. */
static long find(char *const env[], const char *name, size_t *n)
{
	size_t len = strcspn(name, "=") + 1;
	long at = -1;

	for (*n = 0; env[*n]; ++*n)
		if (at < 0 && !strncmp(env[*n], name, len))
			at = (long)*n;
	return at;
}

/* Whether both variables are there. */
static bool complete(char *const env[])
{
	size_t n;
	long preload = find(env, PRELOAD, &n);

	return preload >= 0 && strstr(env[preload], our_path) && find(env, our_socket, &n) >= 0;
}

/* Room that completed() needs: pointers, and the bytes of a new LD_PRELOAD. 0: leave it alone. */
static size_t room(char *const env[])
{
	size_t n, old = 0;
	long preload;

	if (!our_path[0] || !env || complete(env))
		return 0;
	preload = find(env, PRELOAD, &n);
	if (preload >= 0)
		old = strlen(env[preload]);
	if (n > ENV_MOST || old > LONGEST)
		return 0;
	return (n + 3) * sizeof(char *) + sizeof(PRELOAD) + strlen(our_path) + old + 2;
}

static char **completed(char *const env[], void *at)
{
	char **new = at, *text;
	size_t n, k = 0;
	long preload = find(env, PRELOAD, &n), socket = find(env, our_socket, &n);

	text = (char *)(new + n + 3);
	for (size_t i = 0; i < n; i++)
		if ((long)i != preload && (long)i != socket)
			new[k++] = env[i];
	new[k++] = our_socket;
	new[k++] = text;
	new[k] = NULL;
	strcpy(text, PRELOAD);
	strcat(text, our_path);
	if (preload >= 0 && env[preload][sizeof(PRELOAD) - 1]) {
		strcat(text, ":");
		strcat(text, env[preload] + sizeof(PRELOAD) - 1);
	}
	return new;
}

/* On the caller's stack, for it must last until the call. */
#define COMPLETE(env)                                                                              \
	do {                                                                                       \
		size_t bytes_ = room(env);                                                         \
		if (bytes_)                                                                        \
			(env) = completed(env, __builtin_alloca(bytes_));                          \
	} while (0)

static int result(long r)
{
	if (r >= 0)
		return (int)r;
	errno = (int)-r;
	return -1;
}

#define OURS __attribute__((visibility("default")))

OURS int execve(const char *path, char *const argv[], char *const env[])
{
	COMPLETE(env);
	return result(sys3(SYS_execve, path, argv, env));
}

OURS int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

OURS int execvpe(const char *file, char *const argv[], char *const env[])
{
	if (!real_execvpe)
		look_up();
	COMPLETE(env);
	return real_execvpe(file, argv, env);
}

OURS int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

OURS int fexecve(int fd, char *const argv[], char *const env[])
{
	COMPLETE(env);
	return result(sys6(SYS_execveat, fd, (long)"", (long)argv, (long)env, 0x1000, 0));
}

OURS int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
		     const posix_spawnattr_t *attr, char *const argv[], char *const env[])
{
	if (!real_spawn)
		look_up();
	COMPLETE(env);
	return real_spawn(pid, path, actions, attr, argv, env);
}

OURS int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
		      const posix_spawnattr_t *attr, char *const argv[], char *const env[])
{
	if (!real_spawnp)
		look_up();
	COMPLETE(env);
	return real_spawnp(pid, file, actions, attr, argv, env);
}
