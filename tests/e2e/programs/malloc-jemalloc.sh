# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# jemalloc preloaded beside us, under CPython: threads that allocate and free each other's memory, and
# children. The user's own LD_PRELOAD stays in force.
. "$DIR/malloc.sh.in"
PACKAGES+=(libjemalloc2)
LIBRARY=libjemalloc.so.2
