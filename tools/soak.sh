#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs the page oracle under `tmem run` for hours and watches for drift: the sum of the anonymous
# memory of the whole tree, each minute. After the first tenth of the time it may not grow by 1 %.
#
#   tools/soak.sh [MINUTES [MIB]]     default 1440 256
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
. "$ROOT/tools/lib.sh"
BUILD=${TMEM_BUILD:-$ROOT/build}
MINUTES=${1:-1440} MIB=${2:-256}
SEED=$(date +%s)
T=$(mktemp -d) || exit 1
PID=
cleanup() {
	trap - EXIT INT TERM
	[ -z "$PID" ] || kill -TERM "$PID" 2>/dev/null
	rm -rf "$T"
}
trap cleanup EXIT
trap 'cleanup; exit 130' INT TERM
run_works "$BUILD" || die "tmem run cannot be had: $RUN_REASON"
say "seed $SEED, $MINUTES minutes, $MIB MiB in half of that"

# Bytes of anonymous memory of a process and all below it.
tree_anon() {
	local pid sum=0 kb
	for pid in $(tree_of "$1"); do
		kb=$(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status" 2>/dev/null)
		sum=$((sum + ${kb:-0}))
	done
	say $((sum * 1024))
}
tree_of() {
	local p
	say "$1"
	for p in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
		tree_of "$p"
	done
}

"$BUILD/tmem" run --limit $((MIB / 2))M --report "$T/report.json" -- \
	"$BUILD/tests/e2e/e2e-pages" all "$MIB" $((MINUTES * 60)) "$SEED" >"$T/out" 2>"$T/err" &
PID=$!
base=0 worst=0
for ((m = 1; m <= MINUTES; m++)); do
	for ((s = 0; s < 60; s++)); do
		kill -0 "$PID" 2>/dev/null || break 2
		sleep 1
	done
	now=$(tree_anon "$PID")
	if [ "$m" -le $((MINUTES / 10 + 1)) ]; then
		[ "$now" -le "$base" ] || base=$now
	else
		[ "$now" -le "$worst" ] || worst=$now
	fi
	say "minute $m: $(mib "$now")"
done
wait "$PID"
status=$?
PID=
cat "$T/out" "$T/err"
say "exit code $status; first part at most $(mib "$base"), later at most $(mib "$worst")"
[ "$status" = 0 ] || die "the program failed under tmem run"
[ "$worst" = 0 ] || [ "$(calc "$worst <= $base * 1.01")" = 1 ] || die "memory drifts"
say "no drift"
