# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# A JVM with G1: regions, several collecting threads, concurrent marking.
. "$DIR/jvm.sh"
JVM_FLAGS=(-XX:+UseG1GC -XX:ParallelGCThreads=2 -Xmx256m)
