#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Fuzzes: builds tests/fuzz with clang, libFuzzer, ASan and UBSan, all checks on, and runs each target.
#
#   tools/fuzz.sh [-t SECONDS] [-j JOBS] [-b DIR] [-c DIR] [TARGET...]
#
#   -t  of each target, default 3600        -j  targets at once, default 1
#   -b  build tree, default build-fuzz      -c  corpus, default ~/.cache/tmem-fuzz: kept from run
#   TARGET: default all of tests/fuzz           to run, one folder a target; never in the tree
#
# A finding is written to the corpus folder as TARGET-crash-..., and
#   build/tests/fuzz/fuzz-TARGET FILE     (any build) or    build-fuzz/tests/fuzz/fuzz-TARGET FILE
# replays it. The last lines are a table: executions, inputs in the corpus, findings. Exit code 1
# when something was found.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
. "$ROOT/tools/lib.sh"
SECONDS_EACH=3600 JOBS=1 BUILD=$ROOT/build-fuzz CORPUS=${XDG_CACHE_HOME:-$HOME/.cache}/tmem-fuzz
while getopts t:j:b:c:h o; do
	case $o in
	t) SECONDS_EACH=$OPTARG ;;
	j) JOBS=$OPTARG ;;
	b) BUILD=$OPTARG ;;
	c) CORPUS=$OPTARG ;;
	h)
		sed -n '3,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
		exit 0
		;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
need_packages "fuzzing" "${PKGS_BUILD[@]}" libcmocka-dev clang-14 libclang-rt-14-dev || exit 1
mapfile -t ALL < <(grep -lE 'LLVMFuzzerTestOneInput|_ops\.h' "$ROOT"/tests/fuzz/*.c |
	xargs -n 1 basename -s .c | grep -vx -e smoke -e hostile)
[ $# -gt 0 ] || set -- "${ALL[@]}"

BUILT=()
for t; do
	[ -e "$ROOT/tests/fuzz/$t.c" ] || die "no target '$t'; known: ${ALL[*]}"
	BUILT+=("tests/fuzz/fuzz-$t")
	[ "$t" != agent_messages ] || BUILT+=(tests/fuzz/fuzz-hostile)
done
# Only the targets are built: other parts have flags of their own.
if [ ! -e "$BUILD/build.ninja" ]; then
	CC=clang-14 meson setup "$BUILD" "$ROOT" -Dfuzz=true -Dchecks=2 -Dbuildtype=debugoptimized \
		-Dwerror=false -Db_sanitize=address,undefined -Db_lundef=false \
		-Dc_args=-fsanitize=fuzzer-no-link >"$BUILD.log" 2>&1 || die "configuring: see $BUILD.log"
fi
ninja -C "$BUILD" "${BUILT[@]}" >"$BUILD.log" 2>&1 || die "building: see $BUILD.log"

export ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
run() {
	local t=$1
	mkdir -p "$CORPUS/$t"
	nice -n 19 "$BUILD/tests/fuzz/fuzz-$t" -max_total_time="$SECONDS_EACH" -timeout=60 -rss_limit_mb=0 -len_control=0 -max_len=8192 \
		-print_final_stats=1 -artifact_prefix="$CORPUS/$t-" "$CORPUS/$t" >"$CORPUS/$t.log" 2>&1
	echo $? >"$CORPUS/$t.status"
}
for t; do
	while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n; done
	run "$t" &
done
wait

FOUND=0
printf '%-16s %12s %8s  %s\n' target executions corpus finding
for t; do
	status=$(cat "$CORPUS/$t.status")
	n=$(sed -n 's/^stat::number_of_executed_units: *//p' "$CORPUS/$t.log")
	what=none
	if [ "$status" != 0 ]; then
		FOUND=1
		what=$(grep -m 1 -E 'ERROR|check failed|runtime error|^[^ ]*\.[ch]:[0-9]+:' "$CORPUS/$t.log")
		what="${what:-exit code $status}; log $CORPUS/$t.log"
	fi
	printf '%-16s %12s %8s  %s\n' "$t" "${n:-?}" "$(find "$CORPUS/$t" -type f | wc -l)" "$what"
done
exit $FOUND
