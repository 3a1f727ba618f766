#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Checks tests/model/reclaim.pml with spin in every order of its steps; and that each mutant of it
# is found. Exit code 77: spin is not installed.
#
#   tests/model/reclaim.sh [MODEL]
set -u
MODEL=$(readlink -f "${1:-$(dirname "${BASH_SOURCE[0]}")/reclaim.pml}")
command -v spin >/dev/null || {
	echo "spin is not installed: skipped"
	exit 77
}
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
cd "$T" || exit 1

# check MUTANT: prints the checker's verdict, "errors: N"; empty when it could not be built or run.
check() {
	spin -a -DMUTANT="$1" "$MODEL" >spin.log 2>&1 &&
		${CC:-cc} -O1 -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -o pan pan.c >cc.log 2>&1 &&
		./pan -m200000 >pan.log 2>&1
	grep -q 'search depth too small' pan.log 2>/dev/null && return
	sed -n 's/^State-vector.*\(errors: [0-9]*\).*/\1/p; s/^ *\([0-9]*\) states, stored$/states: \1/p' pan.log
}

bad=0
verdict=$(check 0)
echo "the protocol: $(tr '\n' ' ' <<<"$verdict")"
grep -qx 'errors: 0' <<<"$verdict" || {
	bad=1
	cat spin.log cc.log pan.log
}
for m in 1 2 3; do
	verdict=$(check $m)
	echo "mutant $m: $(tr '\n' ' ' <<<"$verdict")"
	grep -qx 'errors: [1-9][0-9]*' <<<"$verdict" || {
		echo "  not found: the model would not notice a broken protocol"
		bad=1
	}
	rm -f pan*
done
exit $bad
