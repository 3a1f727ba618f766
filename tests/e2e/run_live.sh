#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# tmem run --live: the panel on a terminal, and that the terminal is as it was afterwards.
. "$(dirname "$0")/lib.sh"
need_program python3
need_run
PYTHONDONTWRITEBYTECODE=1 python3 "$ROOT/tests/e2e/live.py" "$TMEM" || FAILURES=1
finish
