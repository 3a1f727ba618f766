# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# 200 children that live at the same time.
PEAK_OF=peak_one_bytes # it is shared
workload() { "${RUN[@]}" "$HARD" living 96; }
