#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What happens once in ten thousand times, or on a busy machine only, in a build that brings it
# about (-Dchecks=1, no sanitizer, which programs as strange as these do not go with): every 29th
# put is refused, every other round begins at the last moment, a page moves and is not counted.
# The rows of e2e-corrupt that meet forks with such pages on their way.
#
#   run_rare.sh [EVICT.MODE...]    default: all
#
# TMEM_RARE: that build's folder, default the build's with "-rare" behind it.
. "$(dirname "$0")/lib.sh"
BUILD=${TMEM_RARE:-$BUILD-rare}
TMEM=$BUILD/tmem
CORRUPT=$BUILD/tests/e2e/e2e-corrupt
TIMES=$([ -n "$LONG" ] && echo 10 || echo 1)
[ -x "$TMEM" ] && [ -x "$CORRUPT" ] || {
	skip rare "$BUILD is not built: meson setup $BUILD -Dtests=true -Dchecks=1"
	exit 0
}
run_works "$BUILD" || {
	skip rare "tmem run cannot be had: $RUN_REASON"
	exit 0
}
seed=${TMEM_SEED:-$(date +%s)}
note "seed $seed"
WANTED=" $* "

rare() { # EVICT MODE ROUNDS
	local name=$1.$2 t=$EPOCHREALTIME code
	[ "$WANTED" = "  " ] || [[ $WANTED == *" $name "* ]] || return
	timeout -k 2 $((60 * TIMES)) "$TMEM" run --evict "$1" --limit 32M --report "$T/$name.json" -- \
		"$CORRUPT" "$2" $(($3 * TIMES)) "$seed" >"$T/$name.out" 2>"$T/$name.err" </dev/null
	code=$?
	note "$name: $(calc "$EPOCHREALTIME - $t" %.2f) s, $(number_of "$T/$name.json" refused_pages) pages refused"
	if [ $code != 0 ] || ! grep -qx 'all pages right' "$T/$name.out"; then
		not_ok "$name" "exit code $code: $(grep -m 1 -a WRONG "$T/$name.err" || tail -n 1 "$T/$name.err")"
	else
		check "$name" "nothing was evicted: the test is too small" evicted "$T/$name.json"
	fi
}

rare move row-hasty 60
rare move row-twice 20
rare move row-guard 60
rare move row-fork 150
rare move life 100
rare discard row-hasty 60
rare discard row-without 200
rare discard row-fork 150
# Without CAP_SYS_PTRACE all is shared at a fork, and leaves again while it is.
if careful; then
	rare discard row-wipe-again 40
else
	skip discard.row-wipe-again "a fork is told of, or userfaultfd is not permitted"
fi
finish
