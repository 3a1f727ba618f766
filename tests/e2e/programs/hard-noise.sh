# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Data that does not compress, more than the limit; beside it a little that is worked on all the time
# must not leave and come back for ever.
MOST_FAULTS=40000
workload() { "${RUN[@]}" "$HARD" noise 96; }
