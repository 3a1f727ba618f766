# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# tcmalloc preloaded beside us, under CPython: threads that allocate and free each other's memory, and
# children. The user's own LD_PRELOAD stays in force.
. "$DIR/malloc.sh.in"
PACKAGES+=(libtcmalloc-minimal4)
LIBRARY=libtcmalloc_minimal.so.4
