#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What the limit means to programs of different kinds (docs/limits.md): one that thrashes is told
# what limit would be enough, and that is true; the others are told nothing.
. "$(dirname "$0")/lib.sh"
need_run
LIMITS=$BUILD/tests/e2e/e2e-limits
[ -x "$LIMITS" ] || LIMITS=$BUILD/e2e-limits
mib=$([ -n "$LONG" ] && echo 320 || echo 80)
seconds=$([ -n "$LONG" ] && echo 40 || echo 12)

# used NAME LIMIT_MIB MODE [SECONDS]: pages used a second in USED, lines for the user in SAID.
used() {
	local name=$1
	limited "$name" $(($2 << 20)) "$LIMITS" "$3" "$mib" "${4:-$seconds}"
	USED=$(head -n 1 "$T/$name.tmem.out")
	SAID=$(grep -c 'would be enough' "$T/$name.tmem.err")
	sed 's/^/# /' "$T/$name.tmem.err"
	note "$name: ${USED:-no} pages a second"
	check "$name" "exit code $CODE" test "$CODE" = 0
}
# quiet NAME: nothing at all on standard error.
quiet() { check "$1.quiet" "$(head -n 1 "$T/$1.tmem.err")" test ! -s "$T/$1.tmem.err"; }

# ---- thrashing: told once; the limit that is named ends it, one well below does not
for mode in random ${LONG:+cycle}; do
	limit=$((mib * 5 / 8))
	used "$mode" $limit "$mode"
	slow=$USED
	check "$mode.told" "told $SAID times, not once" test "$SAID" = 1
	enough=$(number_of "$T/$mode.report.json" enough_limit_bytes)
	[ -n "$enough" ] || continue
	# All of it, and no more than the pager itself needs.
	check "$mode.sane" "$(mib "$enough") for $mib MiB" \
		test "$(calc "($enough > $mib * 1048576) * ($enough < ($mib * 1.1 + 12) * 1048576)")" = 1
	used "$mode-enough" $((enough >> 20)) "$mode" $((seconds - 4))
	quiet "$mode-enough"
	check "$mode-enough.faster" "$USED pages a second, $slow before" test "$(calc "($USED > $slow * 4)")" = 1
	[ -n "$LONG" ] || continue
	used "$mode-below" $((limit + ((enough >> 20) - limit) / 2)) "$mode"
	check "$mode-below.told" "told $SAID times, not once" test "$SAID" = 1
done

# ---- what is used fits, though not all of it does
used hot $((mib * 5 / 8)) hot $((seconds - 5))
quiet hot
check_limit hot
# ---- each page comes back once: that takes as long as it takes
if [ -n "$LONG" ]; then
	mib=$((mib * 5))
	used once $((mib * 5 / 8)) once
	quiet once
	check_limit once
	mib=$((mib / 5))
fi
# ---- memory that grows faster than it can be compressed: over the limit, for a moment
used grow $((mib * 5 / 8)) grow
quiet grow
check_over grow
# ---- pages that nothing compresses: they stay, and that is said; a file takes them
used noise $((mib * 5 / 8)) noise 2
over=$(number_of "$T/noise.report.json" over_limit_s)
wall=$(number_of "$T/noise.report.json" wall_s)
check noise.told "$(head -n 1 "$T/noise.tmem.err")" \
	test "$(grep -c 'was over the limit for .* it does not compress$' "$T/noise.tmem.err")" = "$(wc -l <"$T/noise.tmem.err")"
check noise.told_once "$(wc -l <"$T/noise.tmem.err") lines" test "$(wc -l <"$T/noise.tmem.err")" = 1
check noise.over "over the limit for $over of $wall s" test "$(calc "($over > 1) * ($over < $wall)")" = 1
check noise.refused "no page was refused" test "$(number_of "$T/noise.report.json" refused_pages)" -gt 1000
# No more than the program has, and what the pager needs for itself.
check noise.peak "$(mib "$PEAK") for $mib MiB" test "$(calc "($PEAK < ($mib + 16) * 1048576)")" = 1
busy_from
"$TMEM" run --limit $((mib * 5 / 8))M --overflow "$T/overflow" --report "$T/file.json" -- \
	"$LIMITS" noise "$mib" 2 >"$T/out" 2>"$T/file.err"
CODE=$?
busy_to
check noise-file "exit code $CODE, $(head -n 1 "$T/file.err")" test "$CODE" = 0
over=$(number_of "$T/file.json" over_limit_s)
short noise-file "$over" 3
check noise-file.moved "nothing is in the file" test "$(number_of "$T/file.json" overflow_moved_pages)" -gt 1000

# ---- a file that takes nothing for a time, of a program that gives nothing back: it is tried again
if [ -n "$LONG" ] && mkdir "$T/full" && mount -t tmpfs -o size=8m none "$T/full" 2>/dev/null; then
	trap 'umount -l "$T/full" 2>/dev/null; cleanup' EXIT
	"$TMEM" run --limit 1G --overflow "$T/full/overflow" --report "$T/again.json" -- \
		"$LIMITS" rest 1300 12 >"$T/out" 2>"$T/again.err" &
	PIDS=($!)
	while ! grep -qs filled "$T/out" && kill -0 "${PIDS[0]}"; do
		sleep 0.2
	done
	sleep 2
	mount -o remount,size=2g "$T/full"
	wait "${PIDS[0]}"
	CODE=$?
	PIDS=()
	umount "$T/full"
	moved=$(number_of "$T/again.json" overflow_moved_pages)
	check file-again "exit code $CODE, $moved pages are in the file" test "$CODE" = 0 -a "$moved" -gt 20000
fi

# ---- more than the limit even compressed: what is over stays, and few pages are tried in vain
PAGES=$BUILD/tests/e2e/e2e-pages
[ -x "$PAGES" ] || PAGES=$BUILD/e2e-pages
limited full $((32 << 20)) timeout 120 "$PAGES" touch 160 2 1
check full "exit code $CODE: $(tail -n 1 "$T/full.tmem.err")" test "$CODE.$(cat "$T/full.tmem.out")" = "0.all pages right"
check full.told "$(tail -n 1 "$T/full.tmem.err")" \
	grep -q 'was over the limit for .* what it holds is more than that even compressed$' "$T/full.tmem.err"
refused=$(number_of "$T/full.report.json" refused_pages)
check full.refused "$refused pages were refused" \
	test "$refused" -lt "$(number_of "$T/full.report.json" evicted_pages)"
finish
