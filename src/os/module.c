/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loadable modules. RTLD_LOCAL: what a module links itself does not take the
 * place of ours; RTLD_NOW: a module that lacks something fails here and not in
 * the middle of an operation.
 */
#include "os/module.h"

#include "os/log.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef TMEM_MODULE_DIR
#define TMEM_MODULE_DIR "/usr/local/lib/tmem"
#endif

#define NAME_MAX_CHARS 31

const char *os_module_dir(void)
{
	const char *dir = secure_getenv("TMEM_MODULE_DIR");

	return dir && dir[0] ? dir : TMEM_MODULE_DIR;
}

bool os_module_name_ok(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");

	return n >= 1 && n <= NAME_MAX_CHARS && name[n] == '\0';
}

/* What was built and not installed has its modules beside it. */
static bool beside_program(char *path, size_t size, const char *kind, const char *name)
{
	char exe[512];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *slash;
	int n;

	if (len <= 0 || secure_getenv("TMEM_MODULE_DIR"))
		return false;
	exe[len] = '\0';
	slash = strrchr(exe, '/');
	if (!slash)
		return false;
	*slash = '\0';
	n = snprintf(path, size, "%s/%s-%s.so", exe, kind, name);
	return n > 0 && (size_t)n < size && access(path, F_OK) == 0;
}

int os_module_open(const char *kind, const char *name, const char *symbol, void **handle,
		   void **data)
{
	char path[1024];
	int n;

	*handle = *data = NULL;
	if (!os_module_name_ok(kind) || !os_module_name_ok(name))
		return -EINVAL;
	n = snprintf(path, sizeof(path), "%s/%s-%s.so", os_module_dir(), kind, name);
	if (n < 0 || (size_t)n >= sizeof(path))
		return -EINVAL;
	if (access(path, F_OK) != 0 && !beside_program(path, sizeof(path), kind, name))
		return -ENOENT;
	*handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (*handle)
		*data = dlsym(*handle, symbol);
	if (*data)
		return 0;
	os_log(OS_LOG_ERROR, "module %s: %s", path, dlerror());
	os_module_close(*handle);
	*handle = NULL;
	return -ENOEXEC;
}

void os_module_close(void *handle)
{
	if (handle)
		(void)dlclose(handle);
}
