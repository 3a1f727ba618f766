#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A program whose every page names itself, in half of its memory: touched, discarded, moved,
# forked, by several threads, through system calls. A page that is stale, zero or another's is told.
# Arguments: the modes to run; all when there are none.
. "$(dirname "$0")/lib.sh"
need_run
mib=$([ -n "$LONG" ] && echo 256 || echo 80)
seconds=$([ -n "$LONG" ] && echo 120 || echo 3)
seed=${TMEM_SEED:-$(date +%s)}
note "seed $seed"
PAGES=$BUILD/tests/e2e/e2e-pages
[ -x "$PAGES" ] || PAGES=$BUILD/e2e-pages

[ $# -gt 0 ] || set -- touch discard remap fork threads syscall burst rest careful-touch careful-fork
# The careful ones come last: what makes them so is not taken back.
# What is stored and left alone is packed anew, after a second. Two at once: they mostly wait.
rest() { # NAME OPTION...
	local name=$1
	shift
	"$TMEM" run --limit 64M --idle 1 "$@" --report "$T/$name.json" -- "$PAGES" rest 128 9 "$seed" \
		>"$T/$name.out" 2>"$T/$name.err"
	echo "$?.$(cat "$T/$name.out")" >"$T/$name.end"
}
rested() { # NAME
	note "$1: $(number_of "$T/$1.json" recompressed_zpages) of $(number_of "$T/$1.json" recompress_tried)" \
		"zpages packed anew, $(number_of "$T/$1.json" recompress_saved_bytes) bytes saved"
	check "$1" "exit code $(cat "$T/$1.end"): $(tail -n 1 "$T/$1.err")" grep -qx '0.all pages right' "$T/$1.end"
}

for mode; do
	if [ "$mode" = rest ]; then
		rest rest-without --without idle &
		PIDS=("$!")
		rest rest
		wait "${PIDS[0]}"
		PIDS=()
		rested rest
		rested rest-without
		check rest.packed "nothing was" test "$(number_of "$T/rest.json" recompress_saved_bytes)" -gt 100000
		check rest-without.packed "something was" test "$(number_of "$T/rest-without.json" recompress_tried)" = 0
		continue
	fi
	if [ "${mode#careful-}" != "$mode" ] && [ ! -e "$T/careful" ] && ! careful; then
		skip careful "userfaultfd is not permitted without CAP_SYS_PTRACE"
		break
	fi
	limited "$mode" $((mib * 1048576 / 2)) "$PAGES" "${mode#careful-}" "$mib" "$seconds" "$seed"
	tail -n 2 "$T/$mode.tmem.err" | sed 's/^/# /'
	check "$mode" "exit code $CODE: $(tail -n 1 "$T/$mode.tmem.err")" \
		test "$CODE.$(cat "$T/$mode.tmem.out")" = "0.all pages right"
	check "$mode.evicted" "nothing was evicted: the test is too small" evicted "$T/$mode.report.json"
	case $mode in
	# After a fork the parent's and the child's pages are both there; the figures are only printed.
	fork) # Children that only read take no copies of what they read.
		check "$mode.kept" "no page left as it came" \
			test "$(number_of "$T/$mode.report.json" unchanged_pages)" -gt 100
		;;
	careful-fork) ;;
	# Who writes new memory, or asks for old from four threads at once, faster than the pager can
	# compress runs ahead until it has caught up. How far depends on both speeds: the peak says
	# little, so the time is held against it.
	burst | threads) check_over "$mode" ;;
	*) check_limit "$mode" ;;
	esac
done
finish
