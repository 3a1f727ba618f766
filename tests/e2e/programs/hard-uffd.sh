# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# A program that has a userfaultfd of its own, for memory that it used before as well.
workload() { "${RUN[@]}" "$HARD" uffd 96; }
