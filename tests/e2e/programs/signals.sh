# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# SIGSTOP and SIGCONT in the middle of everything, many times; then SIGKILL: the code is 137, nothing
# is left behind, and nobody waits.
workload() {
	local pid i code
	"${RUN[@]}" "$HARD" sparse 128 >"$W/hard.out" 2>>"$W/server.log" &
	SERVER=$!
	until_up 10 pgrep -f "^$HARD sparse 128" || return
	pid=$(pgrep -f "^$HARD sparse 128" | tail -n 1)
	for ((i = 0; i < 40; i++)); do
		kill -STOP "$pid" 2>/dev/null || break
		sleep 0.0$((i % 5))
		kill -CONT "$pid"
		sleep 0.02
	done
	server_wait || return
	cat "$W/hard.out"
	"${RUN[@]}" "$HARD" direct 256 >"$W/hard2.out" 2>>"$W/server.log" &
	SERVER=$!
	until_up 10 pgrep -f "^$HARD direct 256" || return
	sleep 0.3
	kill -KILL "$(pgrep -f "^$HARD direct 256" | tail -n 1)"
	wait "$SERVER"
	code=$?
	echo "killed: exit code $code"
	pgrep -f "^$HARD direct 256" && return 1
	[ $code = 137 ]
}
