#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The ways in which a pager corrupts memory without a word, each tried many times under `tmem run`.
# A row is one of them: one line each, with the rounds done and how many of them met pages that were
# out; then "N passed, N failed". e2e-corrupt does the rounds and names a page that is wrong.
#
#   tools/regress.sh [ROUNDS [EVICT [ROW...]]]
#
# ROUNDS of each row, default 1000. EVICT: move, discard, or both (default: discard then has a tenth
# of the rounds). ROW: default all; rows begun with "careful-" run without CAP_SYS_PTRACE, so that
# no fork is told. TMEM_BUILD: the build folder, default build. TMEM_SEED: default by the clock.
# A row that does not end leaves where each of its threads stood in build/regress-hangs (stacks, too,
# where gdb is installed). The case in which somebody dies meanwhile is tools/kill-launcher.sh.
ROUNDS=${1:-1000} EVICT=${2:-both}
shift $(($# < 2 ? $# : 2))
ROWS=("$@")
[[ $ROUNDS =~ ^[1-9][0-9]*$ && $EVICT =~ ^(move|discard|both)$ ]] || {
	echo "usage: tools/regress.sh [ROUNDS [move|discard|both [ROW...]]]" >&2
	exit 2
}
. "$(dirname "${BASH_SOURCE[0]}")/../tests/e2e/lib.sh"
need_run
CORRUPT=$BUILD/tests/e2e/e2e-corrupt
[ -x "$CORRUPT" ] || CORRUPT=$BUILD/e2e-corrupt
PLAIN=$TMEM SEED=${TMEM_SEED:-$(date +%s)} PASSED=0 FAILED=0
say "seed $SEED, $CORRUPT"

# Rows with rounds that are short, as many as are asked for.
mapfile -t SHORT < <("$CORRUPT" | grep '^row-')
# Rows of which a round does more than one try: tries of a round.
declare -A TRIES=([discard-race]=1 [discard-cold]=1 [discard-ahead]=10 [free-race]=1 [map-race]=1 [map-fixed]=1
	[move-race]=1 [splice]=1 [direct]=3 [churn]=1 [storm]=1000 [sleepers]=20 [fork-many]=60
	[fork-mixed]=100 [own-stacks]=40 [fork-moving]=1)
# Of how many rounds one must have met pages that were out; in transit they are a millisecond.
declare -A ONE_OF=([row-transit]=500)
LONGER=(discard-race discard-cold discard-ahead free-race map-race map-fixed move-race splice direct churn storm
	sleepers fork-many fork-mixed fork-moving own-stacks exec)
CAREFUL=(row-fork row-vfork row-wipe row-wipe-again row-without row-remap row-discard row-thread fork-moving)

line() { printf '%-8s %-8s %-22s %8s rounds %8s  %7.1f s  %s\n' "$@"; }

ROW_S=900
mkfifo "$T/never"

# where_they_stand FILE: all threads of the row that runs, shortly before its time is over.
where_they_stand() {
	local row pid task
	read -rt $((ROW_S - 30)) _ <>"$T/never"
	row=$(pgrep -P $$ -x timeout) && mkdir -p "${1%/*}" || return
	# The host is in a group of its own.
	for pid in $({ pgrep -g "$row" && pgrep -P "$(pgrep -d , -g "$row")"; } | sort -un); do
		for task in /proc/"$pid"/task/*; do
			say "$task $(cat "$task/comm") state $(sed 's/.*) //; s/ .*//' "$task/stat")" \
				"in $(cat "$task/wchan"), call $(cat "$task/syscall")"
		done
		timeout 20 gdb -p "$pid" -batch -ex 'thread apply all bt 12'
	done >"$1" 2>&1
}

# row EVICT NAME MODE ROUNDS
row() {
	local evict=$1 name=$2 mode=$3 rounds=$4 t=$EPOCHREALTIME code out why='' watch
	[ ${#ROWS[@]} = 0 ] || [[ " ${ROWS[*]} " == *" $name "* ]] || return
	where_they_stand "$BUILD/regress-hangs/$evict.$name.$SEED" &
	watch=$!
	GLIBC_TUNABLES=$([ "$mode" != sleepers ] || echo glibc.pthread.rseq=0) \
		timeout -k 5 $ROW_S "$TMEM" run --evict "$evict" --limit 32M --report "$T/row.json" -- \
		"$CORRUPT" "$mode" "$rounds" "$SEED" >"$T/row.out" 2>"$T/row.err" </dev/null
	code=$?
	kill "$watch" 2>/dev/null
	wait "$watch" 2>/dev/null
	out=$(sed -n 's/^[0-9]* rounds, \([0-9]*\) on pages that were out$/\1/p' "$T/row.out")
	if [ $code != 0 ] || grep -qa WRONG "$T/row.err" "$T/row.out"; then
		why="exit code $code: $(grep -m 1 -a WRONG "$T/row.err" || tail -n 1 "$T/row.err")"
	elif ! grep -qx 'all pages right' "$T/row.out"; then
		why="no last line"
	elif ! evicted "$T/row.json"; then
		why="nothing was evicted"
	elif [ -n "$out" ] && [ "$rounds" -ge 100 ] && [ "$((out * ${ONE_OF[$mode]:-50}))" -lt "$rounds" ]; then
		why="only $out rounds met pages that were out"
	fi
	if [ -z "$why" ]; then PASSED=$((PASSED + 1)); else FAILED=$((FAILED + 1)); fi
	line "$([ -n "$why" ] && echo "not ok" || echo ok)" "$evict" "$name" \
		"$((rounds * ${TRIES[$mode]:-1}))" "${out:+$out out}" "$(calc "$EPOCHREALTIME - $t" %.1f)" "$why"
}

all() { # EVICT ROUNDS
	local evict=$1 n=$2 mode tries
	TMEM=$PLAIN
	for mode in "${SHORT[@]}"; do row "$evict" "$mode" "$mode" "$n"; done
	for mode in "${LONGER[@]}"; do
		tries=${TRIES[$mode]:-1}
		# Each link of the chain fills its memory anew: a tenth of them.
		[ "$mode" != exec ] || tries=10
		row "$evict" "$mode" "$mode" $(((n + tries - 1) / tries))
	done
	if [ -x "$T/careful" ] || careful; then
		TMEM=$T/careful
		for mode in "${CAREFUL[@]}"; do row "$evict" "careful-$mode" "$mode" "$n"; done
	else
		say "the careful rows were left out: userfaultfd is not permitted without CAP_SYS_PTRACE"
	fi
}

[ "$EVICT" = discard ] || all move "$ROUNDS"
case $EVICT in
discard) all discard "$ROUNDS" ;;
both) all discard $(((ROUNDS + 9) / 10)) ;;
esac
say "$PASSED passed, $FAILED failed"
[ $FAILED = 0 ] && [ $PASSED -gt 0 ]
