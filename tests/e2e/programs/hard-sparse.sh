# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# 1 TiB of address space, barely used.
workload() { "${RUN[@]}" "$HARD" sparse 96; }
