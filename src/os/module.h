/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loadable modules: shared objects that add a driver to one of the registries.
 *
 * A module is DIR/KIND-NAME.so and exports one data symbol. DIR is set when
 * the project is built; the environment variable TMEM_MODULE_DIR replaces it,
 * except in a program that runs with more rights than its caller. What is not
 * there, and was not told by the variable where to be, may lie beside the
 * program's file, as in a tree that was built and not installed.
 */
#ifndef TMEM_OS_MODULE_H
#define TMEM_OS_MODULE_H

#include <stdbool.h>
#include <stddef.h>

/* Where modules are. Static, or the environment's. */
const char *os_module_dir(void);
/* Whether a name may be part of a module's file name: 1 to 31 of a-z 0-9 _ - */
bool os_module_name_ok(const char *name);
/*
 * Load DIR/kind-name.so and look its symbol up. 0 with *handle for
 * os_module_close() and *data, the symbol's address; -EINVAL: bad name;
 * -ENOENT: no such file; -ENOEXEC: it is there but cannot be loaded, or does
 * not have the symbol (the reason is logged). Runs the module's constructors.
 */
int os_module_open(const char *kind, const char *name, const char *symbol, void **handle,
		   void **data) __attribute__((warn_unused_result));
void os_module_close(void *handle);

#endif
