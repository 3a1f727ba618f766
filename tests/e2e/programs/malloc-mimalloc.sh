# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# mimalloc preloaded beside us, under CPython: threads that allocate and free each other's memory, and
# children. The user's own LD_PRELOAD stays in force.
. "$DIR/malloc.sh.in"
PACKAGES+=(libmimalloc2.0)
LIBRARY=libmimalloc.so.2
