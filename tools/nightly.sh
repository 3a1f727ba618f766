#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The long tests, many hours: everything in test.sh, the model tests with many seeds, the
# end-to-end tests in their long versions, and the planted bugs. Prints one line a part; logs in
# build/nightly-logs. Exit code 1 when a part failed.
#
#   tools/nightly.sh [SEEDS]    default 20
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
. "$ROOT/tools/lib.sh"
cd "$ROOT" || exit 1
SEEDS=${1:-20}
LOGS=$ROOT/build/nightly-logs
FAILED=0
trap 'exit 130' INT TERM
mkdir -p "$LOGS"

part() { # NAME SECONDS COMMAND...
	local name=$1 limit=$2 t=$SECONDS
	shift 2
	if timeout -k 30 "$limit" "$@" >"$LOGS/$name.log" 2>&1 </dev/null; then
		printf 'ok      %-28s %5d s\n' "$name" $((SECONDS - t))
	else
		FAILED=$((FAILED + 1))
		printf 'not ok  %-28s %5d s, log %s\n' "$name" $((SECONDS - t)) "$LOGS/$name.log"
	fi
}

part test 1200 ./test.sh
for dir in build-checks build-tsan; do
	for ((seed = 1; seed <= SEEDS; seed++)); do
		part "$dir.engine_model.$seed" 600 "$dir/tests/model/model-engine_model" 300000 4 "$seed"
		part "$dir.index_model.$seed" 120 "$dir/tests/model/model-index_model" "$seed" 20 4
		part "$dir.engine_model_zbud.$seed" 600 "$dir/tests/model/model-engine_model" 300000 4 "$seed" zbud
		part "$dir.zbud_model.$seed" 120 "$dir/tests/model/model-zpool_model" zbud "$seed" 20 4
		part "$dir.zsmalloc_model.$seed" 120 "$dir/tests/model/model-zpool_model" zsmalloc "$seed" 20 4
	done
done
for t in tests/e2e/{run_,mount}*.sh; do
	part "long.$(basename "$t" .sh)" 3600 env TMEM_LONG=1 bash "$t"
done
# What happens once in a million calls (the kernel's reclaim in the way, a store that refuses) is
# brought about by checks; no sanitizer, for these programs are strange enough.
part build-rare 900 ninja -C build-rare
for t in corrupt pages programs; do
	part "rare.run_$t" 1800 env TMEM_BUILD=build-rare bash "tests/e2e/run_$t.sh"
done
part rare.kill-launcher 1800 env TMEM_BUILD=build-rare tools/kill-launcher.sh 300
for t in auto corrupt pages; do
	part "discard.run_$t" 1800 env TMEM_EVICT=discard bash "tests/e2e/run_$t.sh"
done
part regress 5400 tools/regress.sh 1000 both
part kill-launcher 3600 tools/kill-launcher.sh 1000
part soak-programs 2400 tools/soak-programs.sh 30
part soak-mount 3600 tools/soak-mount.sh 1000000 4 10
part soak-mount-asan 3600 env TMEM_BUILD=build-checks tools/soak-mount.sh 300000 4 3
part soak-mount-tsan 3600 env TMEM_BUILD=build-tsan tools/soak-mount.sh 300000 4 0
part old-kernel 3200 tools/old-kernel.sh
part fuzz 3000 tools/fuzz.sh -t 300
part plant 2400 tools/plant.sh
[ $FAILED = 0 ]
