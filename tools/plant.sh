#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Are the tests any good? Plants bugs, one at a time, in a copy of the tree (tests/plant/*.patch),
# and runs the tests: each must make one fail. Prints a table "bug, caught by".
#
#   tools/plant.sh [NAME...]    default: all
#
# A patch starts with two lines, "what: ..." and "where: ..."; where it shows first:
#   checks  unit, model and fault tests with all checks, ASan and UBSan
#   tsan    the same under the race detector
#   run     whole programs under tmem run, release build
# What fails without any bug is left out of the judgement, and said. Exit code 1 when a bug was not
# caught, or a patch no longer applies.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
. "$ROOT/tools/lib.sh"
need_packages "planting" "${PKGS_BUILD[@]}" libcmocka-dev patch || exit 1
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
trap 'exit 130' INT TERM
export TMEM_SEED=1 ASAN_OPTIONS=allocator_may_return_null=1 TSAN_OPTIONS=halt_on_error=1
export UBSAN_OPTIONS=halt_on_error=1
WRAP=()
setarch -R true 2>/dev/null && WRAP=("--wrapper=setarch -R")

mkdir "$T/tree"
tar -C "$ROOT" --exclude='./build*' --exclude=./.git -cf - . | tar -C "$T/tree" -xf -

configure() {
	local opts=(-Dwerror=false)
	[ -d "$T/$1" ] && return
	case $1 in
	checks) opts+=(-Dchecks=2 -Dbuildtype=debugoptimized -Db_sanitize=address,undefined) ;;
	tsan) opts+=(-Dchecks=1 -Dbuildtype=debugoptimized -Db_sanitize=thread) ;;
	esac
	meson setup "$T/$1" "$T/tree" "${opts[@]}" >"$T/log" 2>&1 </dev/null
}

# failing BUILD: names of tests that fail now, one a line; stops after the first unless ALL=1.
failing() {
	local stop=(--maxfail 1)
	[ -z "${ALL:-}" ] || stop=()
	if [ "$1" = run ]; then
		TMEM_BUILD=$T/run timeout -k 5 240 bash "$T/tree/tests/e2e/run_pages.sh" 2>&1 </dev/null |
			sed -nE 's/^not ok ([^:]*):.*/run_pages.\1/p' | grep -v '[.]limit$'
		return
	fi
	local names=()
	# The shortest first; the fault tests take long and find the least of these.
	mapfile -t names < <(meson introspect --tests "$T/$1" | python3 -c '
import json, sys
order = {"unit": 0, "model": 1, "fault": 2}
suite = lambda t: t["suite"][0].split(":")[-1] if t["suite"] else "other"
for t in sorted(json.load(sys.stdin), key=lambda t: order.get(suite(t), 9)):
    if suite(t) in order and (suite(t) != "fault" or sys.argv[1] != "tsan"):
        print(t["name"])' "$1")
	rm -f "$T/$1"/meson-logs/testlog*.json
	timeout -k 5 600 meson test -C "$T/$1" --no-rebuild --num-processes 2 "${stop[@]}" "${WRAP[@]}" \
		"${names[@]}" >"$T/log" 2>&1 </dev/null
	python3 - "$T/$1"/meson-logs/testlog*.json <<'PY'
import json, sys
for path in sys.argv[1:]:
    for line in open(path, errors="replace"):
        t = json.loads(line)
        if t["result"] in ("FAIL", "ERROR", "TIMEOUT"):
            print(t["name"].split(" ")[-1].split(":")[-1])
PY
}

build() {
	configure "$1"
	ninja -C "$T/$1" >"$T/log" 2>&1 </dev/null && link_products "$T/$1"
}

declare -A KNOWN
# What fails already cannot catch anything.
baseline() {
	[ -z "${KNOWN[$1]+x}" ] || return 0
	build "$1" || {
		tail -n 20 "$T/log" >&2
		die "the tree does not build ($1)"
	}
	KNOWN[$1]=$(ALL=1 failing "$1" | tr '\n' ' ')
	[ -z "${KNOWN[$1]}" ] || say "failing without any bug ($1): ${KNOWN[$1]}"
}

missed=0 caught=0
printf '%-32s %-7s %s\n' bug where "caught by"
for patch in "$ROOT"/tests/plant/*.patch; do
	name=$(basename "$patch" .patch)
	if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then
		continue
	fi
	where=$(sed -n 's/^where: //p' "$patch")
	if [ "$where" = run ]; then
		build run >/dev/null || die "the tree does not build"
		if ! run_works "$T/run"; then
			printf '%-32s %-7s %s\n' "$name" "$where" "not tried: tmem run cannot be had"
			continue
		fi
	fi
	baseline "$where"
	if ! patch -d "$T/tree" -p1 -s -F3 -N --dry-run <"$patch" >/dev/null; then
		printf '%-32s %-7s %s\n' "$name" "$where" "THE PATCH NO LONGER APPLIES"
		missed=$((missed + 1))
		continue
	fi
	patch -d "$T/tree" -p1 -s -F3 -N --no-backup-if-mismatch <"$patch"
	if ! build "$where"; then
		by="DOES NOT BUILD: $(grep -m1 error: "$T/log")"
		missed=$((missed + 1))
	else
		by=
		for t in $(ALL=${KNOWN[$where]} failing "$where"); do
			[[ " ${KNOWN[$where]} " == *" $t "* ]] || by="$by $t"
		done
		if [ -n "$by" ]; then
			caught=$((caught + 1))
		else
			by="NOT CAUGHT ($(sed -n 's/^what: //p' "$patch"))"
			missed=$((missed + 1))
		fi
	fi
	printf '%-32s %-7s %s\n' "$name" "$where" "${by# }"
	patch -d "$T/tree" -p1 -s -R -F3 --no-backup-if-mismatch <"$patch" || die "cannot take $name out again"
done
say "$caught caught, $missed not"
[ $missed = 0 ]
