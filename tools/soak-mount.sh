#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The long checks of `tmem mount`, with the checker of tests/e2e/fsx.
#
#   tools/soak-mount.sh [OPERATIONS [SEEDS [KILL_MINUTES]]]      default 10000000 10 60
#
# OPERATIONS with each of SEEDS seeds: three quarters under close-to-open, of those some unwatched,
# some in clusters, some with a second of --ttl, half of them in a small store through which a large
# file is read again and again, so that all pages soon leave; then for KILL_MINUTES with the mount's
# process killed about once a second. TMEM_BUILD: the build (default build/); one with sanitizers will do.
# TMEM_SEED: the first seed (default by the clock). TMEM_SOURCE: a folder on the file system to be
# shown (default in $TMPDIR). Says each run's operations; exit code 1 at the first failure.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
. "$ROOT/tools/lib.sh"
case ${1:-} in
-h | --help)
	sed -n '3,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
	exit 0
	;;
esac
OPERATIONS=${1:-10000000} SEEDS=${2:-10} MINUTES=${3:-60}
BUILD=$(cd "${TMEM_BUILD:-$ROOT/build}" && pwd) || exit 1
TMEM=$BUILD/tmem FSX=$BUILD/tests/e2e/e2e-fsx SEED=${TMEM_SEED:-$(date +%s)}
T=$(mktemp -d) || exit 1
S=${TMEM_SOURCE:-$T}/tmem-fsx M=$T/mount SMALL=40M
[ -x "$FSX" ] || die "no $FSX: build with -Dtests=true"

clean() {
	trap - EXIT
	kill ${RUN:+"$RUN"} ${CROWD:+"$CROWD"} 2>/dev/null
	umount -l "$M" 2>/dev/null
	rm -rf "$T" "$S"
}
trap clean EXIT
trap 'clean; exit 130' INT TERM HUP

# Reads what does not fit, until it is enough. (Killed, it would leave a reader in the mount.)
crowd() {
	until [ -e "$T/enough" ]; do
		cat "$M/crowd/noise" >"$T/noise" && cmp "$T/noise" "$S/crowd/noise" && continue
		touch "$T/wrong"
		return
	done
}

# one NAME SIZE ARGUMENTS-OF-E2E-FSX [-- OPTIONS...]
one() {
	local name=$1 size=$2 arguments=() code
	shift 2
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		arguments+=("$1")
		shift
	done
	shift
	rm -rf "$S"
	mkdir -p "$S/crowd" "$M"
	head -c 60000000 /dev/urandom >"$S/crowd/noise"
	"$TMEM" mount --size "$size" "$@" "$S" "$M" || exit 1
	CROWD=
	if [ "$size" = "$SMALL" ]; then
		crowd &
		CROWD=$!
	fi
	"$FSX" "$M" "$S" "${arguments[@]}" &
	RUN=$!
	wait "$RUN"
	code=$?
	RUN=
	if [ -n "$CROWD" ]; then
		touch "$T/enough"
		wait "$CROWD"
		rm "$T/enough"
		CROWD=
		[ ! -e "$T/wrong" ] || die "$name: what is read again and again was wrong"
	fi
	"$TMEM" stat "$M" | grep -E '^(hits|misses|evicted|changed_meanwhile|files_|invalidations|damaged)' | tr '\n' ' '
	say
	"$TMEM" umount "$M" || exit 1
	[ $code = 0 ] || die "$name failed, exit code $code"
}

for ((i = 0; i < SEEDS; i++)); do
	case $((i % 4)) in
	0) one "seed $((SEED + i)), small" "$SMALL" "$OPERATIONS" $((SEED + i)) 4 -- ;;
	1) one "seed $((SEED + i)), unwatched" 256M "$OPERATIONS" $((SEED + i)) 8 -- --no-watch ;;
	2) one "seed $((SEED + i)), ttl" 256M "$OPERATIONS" $((SEED + i)) 4 1100 -- --ttl 1 ;;
	3) one "seed $((SEED + i)), clusters" "$SMALL" "$OPERATIONS" $((SEED + i)) 2 -- --cluster 16 --codec zstd --no-watch --policy lru ;;
	esac
done
if [ "$MINUTES" -gt 0 ]; then
	printf '#!/bin/sh\nkill -9 "$(%q stat %q | sed -n "s/^pid //p")"; sleep 0.1\nexec %q mount --size 256M %q %q\n' \
		"$TMEM" "$M" "$TMEM" "$S" "$M" >"$T/kill"
	chmod +x "$T/kill"
	end=$((SECONDS + MINUTES * 60))
	for ((i = 100; SECONDS < end; i++)); do
		one "seed $((SEED + i)), killed" 256M 200000 $((SEED + i)) 4 0 "$T/kill" --
	done
fi
say "no failure"
