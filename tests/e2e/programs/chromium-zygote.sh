# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# The same with its zygote and all of its sandbox (user namespaces, seccomp), as an ordinary user. The
# zygote may have one thread only, so it has no agent, nor what it forks: that is said, and counted.
. "$DIR/chromium.sh"
FLAGS=()
PLAIN_USER=nobody
as_plain nobody
LEAST=32
SHOULD=unmanaged
WORD="may have one thread only"
