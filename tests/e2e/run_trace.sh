#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# tmem trace and tmem replay: what a program reads is in the trace, page for page, however it reads;
# the trace is valid however the program ends; the store finds what a replay says.
. "$(dirname "$0")/lib.sh"

# pages OPERATION FILE: pages of that operation in a trace.
pages() {
	"$TMEM" trace --info "$2" | awk -v op="$1" '$1 == op { print $3 }'
}
# traced NAME COMMAND...: its trace is NAME.trace, its exit code CODE.
traced() {
	local name=$1
	shift
	"$TMEM" trace -o "$T/$name.trace" -- "$@" >"$T/$name.out" 2>"$T/$name.err" </dev/null
	CODE=$?
}
# more NAME BASE PAGES COMMAND...: reads so many pages more than the program that made BASE.
more() {
	local name=$1 base=$2 want=$3 got
	shift 3
	traced "$name" "$@"
	got=$(($(pages read "$T/$name.trace") - base))
	check "$name" "read $got pages more, not $want; exit code $CODE: $(tail -n 1 "$T/$name.err")" \
		test "$CODE/$got" = "0/$want"
}

traced probe /bin/true
if [ "$CODE" = 125 ]; then
	skip "$TEST" "programs cannot be traced here: $(head -n 1 "$T/probe.err")"
	finish
fi
head -c 409600 /dev/urandom >"$T/data"

dd if="$T/data" of=/dev/null bs=4096 count=0 2>/dev/null
traced base dd "if=$T/data" of=/dev/null bs=4096 count=0
base=$(pages read "$T/base.trace")
more by_read "$base" 10 dd "if=$T/data" of=/dev/null bs=4096 count=10 skip=5
more twice "$base" 20 dd "if=$T/data" of=/dev/null bs=2048 count=20 skip=4
more large "$base" 100 dd "if=$T/data" of=/dev/null bs=1M count=1
more across "$base" 2 dd "if=$T/data" of=/dev/null bs=4096 count=1 skip=2048 iflag=skip_bytes
traced shell /bin/sh -c 'dd "if=$1" of=/dev/null bs=4096 count=0 2>/dev/null & wait' sh "$T/data"
more children "$(pages read "$T/shell.trace")" 7 \
	/bin/sh -c 'dd "if=$1" of=/dev/null bs=4096 count=7 2>/dev/null & wait' sh "$T/data"

dd "if=$T/data" "of=$T/new" bs=4096 count=9 2>/dev/null
traced write dd "if=$T/data" "of=$T/new" bs=4096 count=9
check writes "wrote $(pages write "$T/write.trace") pages, not 9" test "$(pages write "$T/write.trace")" -ge 9
check truncated "the truncation is not in it" \
	grep -q '^drop object' <("$TMEM" trace --info "$T/write.trace")
check content "the traced program did not do its work" cmp -s -n 36864 "$T/data" "$T/new"

traced code /bin/sh -c 'exit 7'
check exit_code "exit code $CODE" test "$CODE" = 7
traced signal /bin/sh -c 'kill -KILL $$'
check exit_signal "exit code $CODE" test "$CODE" = 137
traced nowhere /no/such/program
check not_found "exit code $CODE" test "$CODE" = 127

# What cannot run leaves the trace that was there, and makes none.
echo keepme >"$T/nowhere.trace"
traced nowhere /no/such/program
check not_found_keeps "exit code $CODE, the trace is gone" test "$CODE.$(cat "$T/nowhere.trace")" = 127.keepme
traced nowhere_new /no/such/program
check not_found_makes_none "a trace of nothing" test ! -e "$T/nowhere_new.trace"
echo other >"$T/again.trace"
traced again /bin/true
check replaces "not a trace: $("$TMEM" trace --info "$T/again.trace" 2>&1 | tail -n 1)" \
	grep -q operations <(head -n 1 "$T/again.err")
"$TMEM" trace -o "$T/no/such" -- /bin/true 2>"$T/err"
CODE=$?
check unwritable "exit code $CODE: $(cat "$T/err")" test "$CODE" = 125
if [ -w /dev/full ]; then
	"$TMEM" trace -o /dev/full -- /bin/sh -c ": >'$T/ran'" 2>"$T/err"
	CODE=$?
	check full "exit code $CODE: $(cat "$T/err")" test "$CODE/$(grep -c 'No space' "$T/err")" = 125/1
	check full.not_started "the program was started" test ! -e "$T/ran"
fi

# However it ends, the file is a trace.
start() {
	"$TMEM" trace -o "$T/$1.trace" -- /bin/sh -c 'while :; do cat "$0" >/dev/null; done' "$T/data" \
		2>"$T/$1.err" &
	PIDS=($!)
	sleep 1
}
start term
kill -TERM "${PIDS[0]}"
wait "${PIDS[0]}"
CODE=$?
PIDS=()
check term "exit code $CODE: $("$TMEM" trace --info "$T/term.trace" 2>&1 | tail -n 1)" \
	test "$CODE/$(pages read "$T/term.trace" | grep -c '[0-9]')" = 143/1
start killed
CHILD=$(pgrep -P "${PIDS[0]}" | head -n 1)
kill -KILL "${PIDS[0]}"
wait "${PIDS[0]}" 2>/dev/null
PIDS=()
for ((i = 0; i < 50; i++)); do
	[ -n "$(grep -s '^State:' "/proc/$CHILD/status" | grep -v Z)" ] || break
	sleep 0.1
done
check killed_readable "not readable" grep -q "has no end" <("$TMEM" trace --info "$T/killed.trace")
# A zombie that nobody has waited for yet is no program.
check killed_alone "the program '$CHILD' lives on without its tracer" \
	test -n "$CHILD" -a -z "$(grep -s '^State:' "/proc/$CHILD/status" | grep -v Z)"

# Damage is refused, with its place.
cp "$T/by_read.trace" "$T/bad.trace"
printf 'X' | dd "of=$T/bad.trace" bs=1 seek=100 conv=notrunc 2>/dev/null
"$TMEM" replay "$T/bad.trace" >"$T/out" 2>"$T/err"
CODE=$?
check damage "exit code $CODE: $(cat "$T/err")" \
	test "$CODE/$(grep -c 'damaged at byte 32: ' "$T/err")" = 1/1

# Two readings of 100 pages: half of them are found, when there is room.
traced twice_over /bin/sh -c 'cat "$0" "$0" >/dev/null' "$T/data"
"$TMEM" replay "$T/twice_over.trace" --policy lru,s3fifo,opt --size 64M --svg "$T/plot.svg" -J >"$T/out" 2>"$T/err"
CODE=$?
check replay "exit code $CODE: $(cat "$T/err")" test "$CODE" = 0
check agree "the store finds something else than the model: $(grep '"hits"' "$T/out" | sort -u | tr '\n' ' ')" \
	test "$(grep '"hits"' "$T/out" | sort -u | wc -l)" = 1
if command -v python3 >/dev/null; then
	check svg "the plot is not XML" python3 -c \
		'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$T/plot.svg"
fi

if run_works "$BUILD"; then
	"$TMEM" trace --memory --limit 48M -o "$T/memory.trace" -- "$BUILD/tests/e2e/e2e-pages" touch 96 2 \
		>"$T/out" 2>"$T/err" </dev/null
	CODE=$?
	note "memory: exit code $CODE, $("$TMEM" trace --info "$T/memory.trace" | head -n 1)"
	check memory "exit code $CODE: $(tail -n 1 "$T/err")" test "$CODE.$(cat "$T/out")" = "0.all pages right"
	check memory.said "not in: $(tail -n 1 "$T/err")" \
		grep -qE "^tmem trace: [1-9][0-9]* operations in $T/memory.trace$" "$T/err"
	echo keepme >"$T/kept.trace"
	"$TMEM" trace -m -l 64M -o "$T/kept.trace" -- /no/such/program 2>"$T/err"
	CODE=$?
	"$TMEM" trace -m -l 64M -o "$T/new.trace" -- /no/such/program 2>"$T/err"
	check memory.not_found "exit code $CODE, or a trace that is gone or of nothing" \
		test "$CODE.$(cat "$T/kept.trace").$(ls "$T/new.trace" 2>/dev/null)" = 127.keepme.
	"$TMEM" trace -m -l 64M -o "$T/no/such" -- /bin/true 2>"$T/err"
	CODE=$?
	check memory.unwritable "exit code $CODE: $(cat "$T/err")" test "$CODE" = 125
	n=$(pages put "$T/memory.trace")
	check memory.pages "${n:-no} pages in the trace" test "${n:-0}" -gt 100
else
	skip memory "tmem run cannot be had: $RUN_REASON"
fi
finish
