# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC1090,SC2034,SC2154
# How a script of tests/e2e/programs is read and prepared: for tools/programs.sh and
# tools/soak-programs.sh. Sourced after tools/lib.sh. The caller has set
#
#   DIR   tests/e2e/programs        T   where data and outputs of the runs go
#
# and, before workload is called, W (empty, current), RUN, ROOT, BUILD, HARD: see DIR/lib.sh.

# program_names: all there are.
program_names() { (cd "$DIR" && ls ./*.sh | sed 's|.*/||; s|\.sh$||' | grep -v '^lib$'); }

# program_load NAME: what the script says, in the variables and functions that DIR/lib.sh names. 1: there is none.
program_load() {
	PACKAGES=() SHOULD=right WORD="" LEAST=32 PEAK_OF="" SERVER_CODES="" WRAP=() MOST_FAULTS="" LEAVES=""
	prepare() { :; }
	[ -f "$DIR/$1.sh" ] || return 1
	. "$DIR/lib.sh"
	. "$DIR/$1.sh"
}

# program_prepare NAME: packages, and the data in P. 1, and the reason on standard output, when it cannot be run here.
program_prepare() {
	local why
	if [ ${#PACKAGES[@]} -gt 0 ] && ! why=$(need_packages "$1" "${PACKAGES[@]}"); then
		tail -n 1 <<<"$why"
		return 1
	fi
	P=$T/$1.data
	mkdir -p "$P"
	chmod 777 "$P"
	if ! why=$(cd "$P" && prepare 2>"$T/$1.prepare.err"); then
		say "${why:-$(tail -n 1 "$T/$1.prepare.err")}"
		return 1
	fi
}
