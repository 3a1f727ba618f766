# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# A JVM with the parallel collector, all of the heap touched at the start.
. "$DIR/jvm.sh"
JVM_FLAGS=(-XX:+UseParallelGC -XX:+AlwaysPreTouch -Xms192m -Xmx256m)
