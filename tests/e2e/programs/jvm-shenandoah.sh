# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# A JVM with Shenandoah: it moves objects while the program runs, in anonymous memory.
. "$DIR/jvm.sh"
JVM_FLAGS=(-XX:+UseShenandoahGC -Xmx256m)
