# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# 1000 short-lived children, each with its look at what they share.
PEAK_OF=peak_one_bytes # it is shared
workload() { "${RUN[@]}" "$HARD" children 96; }
