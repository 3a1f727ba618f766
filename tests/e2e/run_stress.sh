#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# stress-ng's memory stressors with verification, and memtester: every page is written with a
# pattern and read back by a program whose only aim is to find a wrong bit.
. "$(dirname "$0")/lib.sh"
need_run
seconds=$([ -n "$LONG" ] && echo 300 || echo 6)
mb=$([ -n "$LONG" ] && echo 256 || echo 48)

# stress NAME LIMIT_BYTES STRESSOR...: its output names no figures we could compare, so the verdict
# is its own: exit code 0 and no line of failure.
stress() {
	local name=$1 limit=$2
	shift 2
	limited "$name" "$limit" stress-ng --temp-path "$T" --verify --timeout "${seconds}s" "$@"
	# 3: a stressor is not to be had on this machine.
	if [ "$CODE" = 3 ]; then
		skip "$name" "stress-ng: no such stressor here"
	elif [ "$CODE" != 0 ] || grep -qE 'fail:|aborted|verif.*fail' "$T/$name.tmem.err" "$T/$name.tmem.out"; then
		not_ok "$name" "exit code $CODE: $(grep -hE 'fail|abort|error' "$T/$name.tmem.err" "$T/$name.tmem.out" | head -n 2 | tr '\n' ' ')"
	else
		ok "$name"
	fi
}

if command -v stress-ng >/dev/null; then
	# Some methods fill all memory with random bits, which nothing compresses: the limit cannot hold
	# then, and the figures are only printed. --vm-bytes is for all workers together.
	stress vm $((mb * 1048576)) --vm 2 --vm-bytes "$((mb * 2))m" --vm-keep --vm-method all
	stress vm_zero $((mb * 1048576)) --vm 2 --vm-bytes "$((mb * 2))m" --vm-keep --vm-method zero-one
	# Writes nothing but zeros and ones, as fast as it can.
	check_over vm_zero
	for s in vm vm_zero; do
		check $s.evicted "nothing was evicted: the test is too small" evicted "$T/$s.report.json"
	done
	seconds=$([ -n "$LONG" ] && echo 60 || echo 2)
	for s in mremap madvise fork brk munmap ${LONG:+mmapfork}; do
		stress "$s" $((mb * 1048576)) "--$s" 1
	done
else
	skip stress "stress-ng is not installed"
fi

if command -v memtester >/dev/null; then
	# memtester locks its memory if it may, and what is locked cannot be evicted: without the right it
	# goes on unlocked. Its output holds backspaces and a page address. Bits 0 to 6 fill memory with
	# random bits, which nothing compresses, or build on that; the short version has one of the others
	# beside that of addresses: each of the rest goes over all of memory 64 times and more.
	cat >"$T/unlocked" <<-'SH'
		#!/bin/sh
		ulimit -l 0
		exec setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock memtester "$@"
	SH
	chmod +x "$T/unlocked"
	filter() { tr -d '\b' | grep -oE '^ *[A-Z][A-Za-z ]+: .*(ok|FAILURE)' | sed 's/setting.*//'; }
	FILTER=filter
	MEMTESTER_TEST_MASK=$([ -n "$LONG" ] && echo 0x1ff80 || echo 0x0080)
	export MEMTESTER_TEST_MASK
	half memtester "$T/unlocked" "$([ -n "$LONG" ] && echo 256 || echo 80)M" 1
	check memtester.verdict "it found wrong bits" test -z "$(grep -a FAILURE "$T/memtester.tmem.out")"
else
	skip memtester "memtester is not installed"
fi
finish
