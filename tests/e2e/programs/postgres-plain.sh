# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# PostgreSQL without CAP_SYS_PTRACE: every fork is announced, and everything comes in before it.
. "$DIR/postgres.sh"
as_plain postgres
