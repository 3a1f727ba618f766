# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# 1000 children made by a system call that libc does not know of.
PEAK_OF=peak_one_bytes # it is shared
workload() { "${RUN[@]}" "$HARD" rawclone 96; }
