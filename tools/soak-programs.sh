#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# shellcheck disable=SC2034 # DIR, P: programs-lib.sh and the scripts read them
# A soak of `tmem run` over the programs of tests/e2e/programs: two at once, each with a limit and
# options at random, killed and stopped at random, under pressure at random; beside them a launcher
# that lives through it all.
#
#   tools/soak-programs.sh [MINUTES [SEED [NAME...]]]     default 120, the clock's, all
#
# A turn: a program, --limit 40 to 120 % of its bare peak, --codec, --evict discard in one of five,
# --idle of a second or two in half, now and then --overflow (some to a file system that is nearly
# full), one of ten --without a technique. In a third the program, the host, the supervisor or all
# get SIGKILL, SIGTERM, or SIGSTOP and SIGCONT at a random moment. Fails:
#
#   an answer that differs from the bare run's (of a run that was not killed), said at once
#   a process of the run that is left 30 s after a kill; a socket, a file of it that is left
#   an exit code that tmem-run(1) does not name
#   a program that stands still: minutes over its time, and no processor time used
#   a launcher that grows after the first tenth of the time by more than 5 % and a little: memory,
#   descriptors, threads and mappings of its host (the rule: tools/soak/launcher.py)
#
# Each minute a line of progress; the seed tells which turns are taken, lane by lane (the moments are
# the machine's). Evidence of findings is kept, and where is said. Exit code 1 when there was one.
# TMEM_BUILD: the build (default build/). Nothing is installed: what is missing is skipped.
# tools/soak/ has the parts.
case ${1:-} in
-h | --help)
	sed -n '4,29s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
	exit 0
	;;
esac
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
. "$ROOT/tools/lib.sh"
. "$ROOT/tools/programs-lib.sh"

BUILD=$(cd "${TMEM_BUILD:-$ROOT/build}" && pwd) || exit 1
DIR=$ROOT/tests/e2e/programs
TMEM=$BUILD/tmem HARD=$BUILD/tests/e2e/programs/e2e-hard
export LC_ALL=C RUNLEVEL=1 TMEM_NO_INSTALL=1 PYTHONDONTWRITEBYTECODE=1

# For soak/programs.py, with T set. bare NAME: its answer is NAME.bare.out, and facts on standard
# output, or "skip" and a reason. run NAME W RUN...: the workload in W, begun by RUN.
stage() {
	local name=$2 code
	export W T ROOT BUILD HARD TMEM
	program_load "$name" || exit 1
	P=$T/$name.data
	if [ "$1" = bare ]; then
		# Not in a subshell: it sets P.
		program_prepare "$name" >"$T/$name.why" || {
			say "skip $(cat "$T/$name.why")"
			exit 0
		}
		W=$T/$name.bare
		RUN=("$BUILD/demo/tmem-measure" --report "$W.json" -- "${WRAP[@]}")
	else
		W=$3
		RUN=("${@:4}" "${WRAP[@]}" "$TMEM" run)
		mapfile -t -O ${#RUN[@]} RUN <"$W.options"
		RUN+=(--)
	fi
	mkdir -p "$W" && chmod 777 "$W" && cd "$W" || exit 1
	workload >"$W.out" 2>"$W.err" </dev/null
	code=$?
	# What a workload that failed has not ended.
	mapfile -t jobs < <(jobs -p)
	[ ${#jobs[@]} = 0 ] || kill -TERM "${jobs[@]}" 2>/dev/null
	wait
	[ "$1" = bare ] || exit $code
	[ $code = 0 ] || say "skip the bare run fails ($code): $(tail -n 1 "$W.err" | cut -c-100)"
	say "facts $(number_of "$W.json" "${PEAK_OF:-peak_anon_bytes}") $(number_of "$W.json" wall_s) $LEAST $SHOULD"
}

case ${1:-} in
--stage)
	shift
	stage "$@"
	exit
	;;
esac
[[ ${1:-120} =~ ^[0-9]+$ && ${2:-0} =~ ^[0-9]+$ ]] || die "minutes and a seed are numbers"
run_works "$BUILD" || die "tmem run cannot be had: $RUN_REASON"
MINUTES=${1:-120} SEED=${2:-$(date +%s)}
shift $(($# < 2 ? $# : 2))
names=("$@")
# Only by name: those that take two minutes and more under a limit, and signals, which kills by itself,
# in time or not.
[ ${#names[@]} -gt 0 ] ||
	mapfile -t names < <(program_names | grep -vxE 'gcc|clang|redis|hard-living|hard-crowd|hard-threads|signals')
export BUILD
exec python3 "$ROOT/tools/soak/programs.py" "$MINUTES" "$SEED" "${names[@]}"
