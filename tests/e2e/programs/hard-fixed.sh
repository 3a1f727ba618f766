# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# io_uring with registered buffers: the kernel knows them by their frames.
workload() { "${RUN[@]}" "$HARD" fixed 96; }
