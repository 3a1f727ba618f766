# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# A JVM with the Z collector: its heap is shared memory, mapped three times, and stays as it is.
. "$DIR/jvm.sh"
JVM_FLAGS=(-XX:+UseZGC -Xmx384m)
