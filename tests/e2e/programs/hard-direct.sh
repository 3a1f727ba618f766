# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# O_DIRECT from and to memory that leaves meanwhile.
workload() { "${RUN[@]}" "$HARD" direct 96; }
