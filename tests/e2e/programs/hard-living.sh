# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# 200 children that live at the same time.
workload() { "${RUN[@]}" "$HARD" living 96; }
