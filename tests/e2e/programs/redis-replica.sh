# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# The same with the replica limited: it loads what it is sent, and takes writes meanwhile.
. "$DIR/redis.sh"
WHO=replica
