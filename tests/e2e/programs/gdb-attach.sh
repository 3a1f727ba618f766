# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# gdb attached to a program that runs, again and again: it stops, is looked at, goes on, and must not
# notice. (What gdb reads by ptrace of memory that is out, it cannot have: an error, never zeros.)
PACKAGES=(gdb)
# The program takes seconds; gdb may need longer than that, where the machine has much to do.
attach() { # counts in n
	local pid
	"${RUN[@]}" "$HARD" fixed 192 >"$W/hard.out" 2>>"$W/server.log" &
	SERVER=$!
	until_up 10 pgrep -f "^$HARD fixed 192" || return
	pid=$(pgrep -f "^$HARD fixed 192" | tail -n 1)
	while kill -0 "$pid" 2>/dev/null && [ $n -lt 8 ]; do
		gdb -q -batch -p "$pid" -ex 'set debuginfod enabled off' -ex 'thread apply all backtrace 3' -ex detach >>"$W/gdb.log" 2>&1 && n=$((n + 1))
	done
	server_wait
}
workload() {
	local n=0
	for _ in 1 2 3; do
		attach || return
		[ $n = 0 ] || break
	done
	cat "$W/hard.out"
	[ $n -gt 0 ] && grep -q 'Thread 1' "$W/gdb.log" && echo "attached"
}
