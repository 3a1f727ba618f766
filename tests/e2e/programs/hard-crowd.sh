# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# 3000 threads at once, twice.
LEAST=180 # stacks of threads stay: what is left is little
workload() { "${RUN[@]}" "$HARD" crowd 96; }
