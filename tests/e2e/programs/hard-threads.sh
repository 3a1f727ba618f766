# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# 512 threads at once, twice; their stacks, their TLS, their share of memory.
workload() { "${RUN[@]}" "$HARD" threads 96; }
