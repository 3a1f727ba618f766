#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Real programs under `tmem run`: each is run bare, and then with its memory limited to a share of
# what it took; every answer is compared. One line a program:
#
#   program  bare peak and time | limit, peak in all, time, over the limit, faults | verdict
#
#   tools/programs.sh [-l PERCENT] [-c CODEC] [-k] [NAME...]
#
#   -l PERCENT   the limit, of the bare peak (default 50), never below 32 MiB
#   -k           keep the folder of the runs, and say where it is
#   -L           list the names
#   NAME         tests/e2e/programs/NAME.sh (default: all of them)
#
# Peaks are of anonymous memory: bare the sum over all processes (what a fork shares is counted in
# both, so it is too high for servers that fork; then the largest one counts, with what the
# script says), limited what tmem run accounts, store and all. Installs what a program needs
# (Debian 12, as root) or skips it with a word. TMEM_BUILD: the build (default build/).
# Exit code 1 when an answer was wrong, or a program that should run did not.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
. "$ROOT/tools/lib.sh"
. "$ROOT/tools/programs-lib.sh"
PERCENT=50 CODEC="" KEEP="" LIST=""
while getopts l:c:kLh o; do
	case $o in
	l) PERCENT=$OPTARG ;;
	c) CODEC=$OPTARG ;;
	k) KEEP=1 ;;
	L) LIST=1 ;;
	*)
		sed -n '3,22s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
		exit $((o != h))
		;;
	esac
done
shift $((OPTIND - 1))
BUILD=${TMEM_BUILD:-$ROOT/build}
TMEM=$BUILD/tmem MEASURE=$BUILD/demo/tmem-measure HARD=$BUILD/tests/e2e/programs/e2e-hard
DIR=$ROOT/tests/e2e/programs
export LC_ALL=C RUNLEVEL=1 # packages' servers are not to start when they are installed
T=$(mktemp -d "${TMPDIR:-/var/tmp}/tmem-programs.XXXXXX") || exit 1
chmod 755 "$T"
CURRENT=
finish_all() {
	trap - EXIT INT TERM HUP
	[ -z "$CURRENT" ] || kill -TERM -- "-$CURRENT" 2>/dev/null
	[ -n "$KEEP" ] && say "kept: $T" || rm -rf "$T"
	exit "${1:-130}"
}
trap 'finish_all $?' EXIT
trap finish_all INT TERM HUP

names=("$@")
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(program_names)
if [ -n "$LIST" ]; then
	printf '%s\n' "${names[@]}"
	exit 0
fi

# one NAME STAGE: the workload of a script in a process group of its own; its output in $T/NAME.STAGE.
stage() {
	local name=$1 stage=$2
	W=$T/$name.$stage
	mkdir -p "$W"
	chmod 777 "$W"
	REPORT=$W/tmem.json
	RUN=("$MEASURE" --report "$T/$name.$stage.json" -- "${WRAP[@]}")
	[ "$stage" = bare ] ||
		RUN+=("$TMEM" run --limit "$((LIMIT / 1024))K" ${CODEC:+--codec "$CODEC"} --report "$REPORT" --)
	export W T ROOT BUILD HARD TMEM
	set -m
	(
		cd "$W" || exit 1
		workload
	) >"$W.out" 2>"$W.err" </dev/null &
	CURRENT=$!
	set +m
	wait "$CURRENT"
	CODE=$?
	kill -KILL -- "-$CURRENT" 2>/dev/null
	CURRENT=
}

# What the bare run took: servers that fork are told from the others by the script.
bare_peak() {
	number_of "$T/$1.bare.json" "${PEAK_OF:-peak_anon_bytes}"
}

seconds_of() { calc "$(number_of "$1" wall_s)" %.1f; }

line() { # NAME BARE BARE_S LIMIT PEAK S OVER FAULTS VERDICT
	printf '%-14s %8s %7s  %8s %8s %7s %7s %9s  %s\n' "$@"
}

verdict_of() { # NAME: on standard output; 1 when it is a failure
	local name=$1 err faults left
	err=$(grep -h '^tmem' "$T/$name.tmem.err" "$T/$name.tmem"/*.log 2>/dev/null |
		grep -vE 'waits for its own pages|was over the limit for|without CAP_SYS_PTRACE all pages' | grep -- "$WORD" | head -n 1)
	case ${SHOULD:-right} in
	refused)
		if [ "$CODE" != 126 ]; then
			say "WRONG: should be refused, exit code $CODE"
			return 1
		elif ! grep -q -- "$WORD" <<<"$err"; then
			say "WRONG: refused without the word \"$WORD\": $err"
			return 1
		fi
		say "refused: ${err#tmem run: }"
		return
		;;
	esac
	if [ "$CODE" != 0 ]; then
		say "WRONG: exit code $CODE; $(tail -n 1 "$T/$name.tmem.err" | cut -c-120)${err:+; $err}"
		return 1
	fi
	if ! cmp -s "$T/$name.bare.out" "$T/$name.tmem.out"; then
		say "WRONG: the answers differ: $(diff "$T/$name.bare.out" "$T/$name.tmem.out" | sed -n 2p | cut -c-100)"
		return 1
	fi
	if [ "${SHOULD:-right}" = unmanaged ]; then
		if ! grep -q -- "$WORD" <<<"$err"; then
			say "WRONG: the user is not told \"$WORD\": ${err:-nothing}"
			return 1
		fi
		say "right, unmanaged: ${err#tmem run: }"
		return
	fi
	faults=$(number_of "$T/$name.tmem/tmem.json" faults)
	if [ "${faults:-0}" -gt "${MOST_FAULTS:-999999999}" ]; then
		say "WRONG: $faults faults, not $MOST_FAULTS at most"
		return 1
	fi
	left=$(number_of "$T/$name.tmem/tmem.json" evicted_pages)
	if [ "${left:-0}" -lt "${LEAVES:-0}" ]; then
		say "WRONG: $left pages left, not $LEAVES at least"
		return 1
	fi
	[ -z "$err" ] || {
		say "right, but tmem says: $err"
		return
	}
	if [ "$left" = 0 ]; then
		say "right; nothing left"
	else
		say "right"
	fi
}

one() {
	local name=$1 peak text why bare bare_s
	if ! program_load "$name"; then
		line "$name" - - - - - - - "no such script"
		return 1
	fi
	# Not in a subshell: it sets P.
	if ! program_prepare "$name" >"$T/$name.why"; then
		line "$name" - - - - - - - "skipped: $(cat "$T/$name.why")"
		return 0
	fi
	LIMIT=0
	stage "$name" bare
	bare=$(bare_peak "$name")
	bare_s=$(seconds_of "$T/$name.bare.json")
	if [ "$CODE" != 0 ] || [ -z "$bare" ]; then
		line "$name" - - - - - - - "skipped: the bare run fails ($CODE): $(tail -n 1 "$T/$name.bare.err" | cut -c-100)"
		return 1
	fi
	LIMIT=$((bare / 100 * PERCENT))
	[ "$LIMIT" -ge $((LEAST << 20)) ] || LIMIT=$((LEAST << 20))
	stage "$name" tmem
	text=$(verdict_of "$name")
	why=$?
	peak=$(number_of "$T/$name.tmem/tmem.json" peak_total_bytes)
	line "$name" "$(mib "$bare")" "${bare_s}s" "$(mib "$LIMIT")" "$(mib "${peak:-0}")" \
		"$(seconds_of "$T/$name.tmem.json")s" \
		"$(calc "$(number_of "$T/$name.tmem/tmem.json" over_limit_s) + 0" %.2f)s" \
		"$(number_of "$T/$name.tmem/tmem.json" faults)" "$text"
	[ -n "$KEEP" ] || rm -rf "$T/$name".*
	return $why
}

failed=0
line program bare time limit peak time over faults verdict
for n in "${names[@]}"; do
	one "$n" || failed=1
done
finish_all $failed
