# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# gdb: a program started under it, stopped and looked at; and one that runs already, attached to and
# let go again. What gdb reads by ptrace of memory that is out it cannot have; the program must not
# notice any of it.
PACKAGES=(gdb)
workload() {
	# Started by gdb, with breakpoints hit many times.
	"${RUN[@]}" gdb -q -batch -ex 'set debuginfod enabled off' -ex 'set breakpoint pending on' -ex 'break hard_direct' \
		-ex run -ex 'print mib' -ex 'backtrace 1' -ex 'info threads' -ex continue --args "$HARD" direct 96 >"$W/gdb.log" 2>&1
	grep -E '^(\$1 = |direct right|[0-9]+ pages)' "$W/gdb.log"
	grep -q 'exited normally' "$W/gdb.log" || return
}
