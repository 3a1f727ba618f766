#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Are the tests any good? Plants bugs, one at a time, in a copy of the tree (tests/plant/*.patch),
# and runs the tests: each must make one fail. Prints a table "bug, caught by".
#
#   tools/plant.sh [NAME...]    default: all
#   tools/plant.sh -n           only says whether each patch still applies, and how well
#
# A patch starts with lines "what: ..." and "where: ...", where it shows first:
#   checks  unit, model and fault tests with all checks, ASan and UBSan
#   tsan    the same under the race detector
#   run     whole programs under tmem run, release build
#   rare    the same in a build that brings about what is rare
#   corrupt, mount  other programs under tmem run, files through tmem mount: the same build as run
# and "test: NAME...", the tests that ought to catch it (of where: run, the modes of run_pages.sh; of
# where: corrupt, those of run_corrupt.sh; of where: rare, those of run_rare.sh; of where: mount,
# scripts of tests/e2e).
# Those alone are built and run at first; what they let through goes through all tests at the end.
# What fails without any bug is left out of the judgement, and said. Exit code 1 when a bug was not
# caught, or a patch no longer applies.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
. "$ROOT/tools/lib.sh"

field() { sed -n "s/^$2: //p;/^---/q" "$1"; }
apply() { # PATCH OPTION...
	local patch=$1
	shift
	patch -d "$T/tree" -p1 -s -N -F3 --no-backup-if-mismatch "$@" <"$patch"
}
row() { printf '%-32s %-7s %s\n' "$@"; }

T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
trap 'exit 130' INT TERM
mkdir "$T/tree"
tar -C "$ROOT" --exclude='./build*' --exclude='./b' --exclude='./b-*' --exclude=./.git -cf - . |
	tar -C "$T/tree" -xf -

if [ "${1:-}" = -n ]; then
	bad=0
	for patch in "$ROOT"/tests/plant/*.patch; do
		said=$(apply "$patch" --dry-run --verbose) || bad=1
		grep -E 'fuzz|FAILED' <<<"$said" | sed "s/^/$(basename "$patch" .patch): /"
	done
	exit $bad
fi

need_packages "planting" "${PKGS_BUILD[@]}" libcmocka-dev patch || exit 1
export TMEM_SEED=1 ASAN_OPTIONS=allocator_may_return_null=1 TSAN_OPTIONS=halt_on_error=1
export UBSAN_OPTIONS=halt_on_error=1
WRAP=()
setarch -R true 2>/dev/null && WRAP=("--wrapper=setarch -R")

# configure BUILD: and writes BUILD.tests, lines "suite name program", the shortest first: the fault
# tests take long and find the least of these.
configure() {
	local opts=(-Dwerror=false)
	[ -d "$T/$1" ] && return
	case $1 in
	checks) opts+=(-Dchecks=2 -Dbuildtype=debug -Doptimization=1 -Db_sanitize=address,undefined) ;;
	tsan) opts+=(-Dchecks=1 -Dbuildtype=debug -Doptimization=1 -Db_sanitize=thread) ;;
	rare) opts+=(-Dchecks=1) ;;
	esac
	meson setup "$T/$1" "$T/tree" "${opts[@]}" >"$T/log" 2>&1 </dev/null || return
	meson introspect --tests "$T/$1" | python3 -c '
import json, os, sys
order = {"unit": 0, "model": 1, "fault": 2}
suite = lambda t: t["suite"][0].split(":")[-1] if t["suite"] else "other"
for t in sorted(json.load(sys.stdin), key=lambda t: order.get(suite(t), 9)):
    if suite(t) in order and (suite(t) != "fault" or sys.argv[1] != "tsan"):
        print(suite(t), t["name"], os.path.relpath(t["cmd"][0], sys.argv[2]))' "$1" "$T/$1" >"$T/$1.tests"
	meson introspect --targets "$T/$1" | python3 -c '
import json, os, sys
for t in json.load(sys.stdin):
    if t["type"] == "shared module" or "lzo" in t["name"]:
        files = t["filename"] if isinstance(t["filename"], list) else [t["filename"]]
        for f in files:
            print(os.path.relpath(f, sys.argv[1]))' "$T/$1" >"$T/$1.modules"
}

tree_of() {
	case $1 in
	corrupt | mount) echo run ;;
	*) echo "$1" ;;
	esac
}

# build BUILD [TEST...]: these tests with the modules they load; everything when none is named.
build() {
	local dir t targets=()
	dir=$(tree_of "$1")
	shift
	configure "$dir" || return
	if [ "$dir" = rare ]; then
		targets=(tmem libtmem-agent.so tests/e2e/e2e-corrupt)
	elif [ "$dir" != run ] && [ $# -gt 0 ]; then
		mapfile -t targets <"$T/$dir.modules"
		for t; do
			targets+=("$(awk -v t="$t" '$2 == t { print $3 }' "$T/$dir.tests")")
		done
	fi
	ninja -C "$T/$dir" "${targets[@]}" >"$T/log" 2>&1 </dev/null && link_products "$T/$dir"
}

# failing BUILD [TEST...]: names of tests that fail now, one a line; of all tests when none is named.
# Stops after the first unless ALL=1.
failing() {
	local dir=$1 stop=(--maxfail 1) names=() t
	shift
	[ -z "${ALL:-}" ] || stop=()
	if [ "$dir" = mount ]; then
		for t in "${@:-mount}"; do
			TMEM_BUILD=$T/run timeout -k 5 240 bash "$T/tree/tests/e2e/$t.sh" 2>&1 </dev/null
		done | sed -nE 's/^not ok ([^:]*):.*/\1/p'
		return
	fi
	if [ "$dir" = corrupt ]; then
		TMEM_BUILD=$T/run timeout -k 5 240 bash "$T/tree/tests/e2e/run_corrupt.sh" "$@" 2>&1 </dev/null |
			sed -nE 's/^not ok ([^:]*):.*/\1/p'
		return
	fi
	if [ "$dir" = run ]; then
		TMEM_BUILD=$T/run timeout -k 5 240 bash "$T/tree/tests/e2e/run_pages.sh" "$@" 2>&1 </dev/null |
			sed -nE 's/^not ok ([^:]*):.*/\1/p' | grep -v '[.]limit$'
		return
	fi
	if [ "$dir" = rare ]; then
		TMEM_RARE=$T/rare timeout -k 5 400 bash "$T/tree/tests/e2e/run_rare.sh" "$@" 2>&1 </dev/null |
			sed -nE 's/^not ok ([^:]*):.*/\1/p'
		return
	fi
	names=("$@")
	[ $# -gt 0 ] || mapfile -t names < <(awk '{ print $2 }' "$T/$dir.tests")
	rm -f "$T/$dir"/meson-logs/testlog*.json
	timeout -k 5 900 meson test -C "$T/$dir" --no-rebuild --num-processes 2 "${stop[@]}" "${WRAP[@]}" \
		"${names[@]}" >"$T/log" 2>&1 </dev/null
	python3 - "$T/$dir"/meson-logs/testlog*.json <<'PY'
import json, sys
for path in sys.argv[1:]:
    for line in open(path, errors="replace"):
        t = json.loads(line)
        if t["result"] in ("FAIL", "ERROR", "TIMEOUT"):
            print(t["name"].split(" ")[-1].split(":")[-1])
PY
}

declare -A KNOWN
# baseline WHERE [TEST...]: what fails already cannot catch anything.
baseline() {
	local where=$1
	shift
	build "$where" "$@" || {
		tail -n 20 "$T/log" >&2
		die "the tree does not build ($where)"
	}
	KNOWN[$where]=$(ALL=1 failing "$where" "$@" | tr '\n' ' ')
	[ -z "${KNOWN[$where]}" ] || say "failing without any bug ($where): ${KNOWN[$where]}"
}

# try PATCH [TEST...]: plants the bug, runs the tests, takes it out. BY: what caught it.
try() {
	local patch=$1 where t
	where=$(field "$patch" where)
	shift
	apply "$patch"
	BY=
	if build "$where" "$@"; then
		for t in $(ALL=${KNOWN[$where]} failing "$where" "$@"); do
			[[ " ${KNOWN[$where]} " == *" $t "* ]] || BY="$BY $t"
		done
	else
		BY=" DOES NOT BUILD: $(grep -m1 error: "$T/log")"
	fi
	patch -d "$T/tree" -p1 -s -R -F3 --no-backup-if-mismatch <"$patch" ||
		die "cannot take $(basename "$patch") out again"
	BY=${BY# }
}

caught=0 missed=0 later=()
# judge PATCH: the row of one that has been tried.
judge() {
	local by=$BY
	case $by in
	"")
		by="NOT CAUGHT ($(field "$1" what))"
		missed=$((missed + 1))
		;;
	DOES*) missed=$((missed + 1)) ;;
	*) caught=$((caught + 1)) ;;
	esac
	row "$(basename "$1" .patch)" "$(field "$1" where)" "$by"
}

row bug where "caught by"
for where in checks tsan run corrupt rare mount; do
	patches=() named=()
	for patch in "$ROOT"/tests/plant/*.patch; do
		name=$(basename "$patch" .patch)
		[ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
		[ "$(field "$patch" where)" = "$where" ] || continue
		if ! apply "$patch" --dry-run >/dev/null; then
			row "$name" "$where" "THE PATCH NO LONGER APPLIES"
			missed=$((missed + 1))
			continue
		fi
		patches+=("$patch")
		mapfile -t -O ${#named[@]} named < <(field "$patch" test | tr ' ' '\n')
	done
	[ ${#patches[@]} -gt 0 ] || continue
	if [[ $where = @(run|corrupt|rare) ]]; then
		build "$where" || die "the tree does not build ($where): $(tail -n 5 "$T/log")"
		if ! run_works "$T/$(tree_of "$where")"; then
			row "${#patches[@]} bugs" "$where" "not tried: tmem run cannot be had: $RUN_REASON"
			continue
		fi
	fi
	mapfile -t named < <(printf '%s\n' "${named[@]}" | sort -u | grep .)
	configure "$(tree_of "$where")" || die "the tree cannot be configured ($where): $(tail -n 3 "$T/log")"
	[[ $where = @(run|corrupt|rare|mount) ]] || for t in "${named[@]}"; do
		grep -q "^[a-z]* $t " "$T/$where.tests" || die "no test is called $t"
	done
	[ ${#named[@]} = 0 ] || baseline "$where" "${named[@]}"
	later=()
	for patch in "${patches[@]}"; do
		read -ra tests < <(field "$patch" test)
		BY=
		[ ${#tests[@]} = 0 ] || try "$patch" "${tests[@]}"
		if [ -n "$BY" ]; then judge "$patch"; else later+=("$patch"); fi
	done
	[ ${#later[@]} = 0 ] || baseline "$where"
	for patch in "${later[@]}"; do
		try "$patch"
		[ -z "$BY" ] || BY="$BY, not by $(field "$patch" test)"
		judge "$patch"
	done
done
say "$caught caught, $missed not"
[ $missed = 0 ]
