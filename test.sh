#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# All tests, at most 15 minutes on two cores.
#
#   ./test.sh             everything
#   ./test.sh quick       the unit tests with all checks on, and the command line
#   ./test.sh NAME...     tests whose name holds one of the words, in every build
#   ./test.sh -l          list the tests
#
# Installs what is missing (Debian 12, as root). Builds four trees: build/ (release), build-checks/
# (all checks, ASan, UBSan) and build-tsan/ (asserts, lock ranks, TSan), and for one end-to-end test
# build-rare/ (asserts, and what is rare brought about). Each test has a time limit; its output is
# kept in build/test-logs/. The last line is "N passed, N failed, N skipped"; the exit code is 1 when
# something failed. TMEM_NO_INSTALL=1: never install.
# TMEM_TEST_BUILDS: a subset of "release checks tsan". TMEM_TEST_DEADLINE_S: another time limit.
# TMEM_TEST_TIDY=1: clang-tidy, too, which takes three minutes more; .ci/run has it so.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
. "$ROOT/tools/lib.sh"
cd "$ROOT" || exit 1

case ${1:-} in
-h | --help)
	sed -n '3,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
	exit 0
	;;
esac
QUICK="" LIST="" NAMES=()
for a; do
	case $a in
	quick) QUICK=1 ;;
	-l | --list) LIST=1 ;;
	-*) die "unknown option $a; see --help" ;;
	*) NAMES+=("$a") ;;
	esac
done
BUILDS=${TMEM_TEST_BUILDS:-release checks tsan}
[ -z "$QUICK" ] || BUILDS=${TMEM_TEST_BUILDS:-release checks}
E2E_LIMIT_S=180 # they take 10 to 20 s; a busy machine is no failure
DEADLINE_S=${TMEM_TEST_DEADLINE_S:-900} # for everything; what has not begun by then has failed
export TMEM_BUILD=${TMEM_BUILD:-$ROOT/build}
LOGS=$TMEM_BUILD/test-logs
PASSED=0 FAILED=0 SKIPPED=0 FAILURES=()

# Ctrl-C ends what runs: every test is in a process group of its own.
RUNNING=
finish_all() {
	trap - INT TERM HUP
	[ -z "$RUNNING" ] || kill -TERM -- "-$RUNNING" 2>/dev/null
	say "stopped"
	exit 130
}
trap finish_all INT TERM HUP

# A test's verdict: ok|not ok|skip NAME [WHY]
verdict() {
	case $1 in
	ok) PASSED=$((PASSED + 1)) ;;
	skip) SKIPPED=$((SKIPPED + 1)) ;;
	*)
		FAILED=$((FAILED + 1))
		FAILURES+=("$2${3:+: $3}")
		;;
	esac
	printf '%-6s %s%s\n' "$1" "$2" "${3:+: $3}"
}

# The log that a failure (NAME, or NAME: WHY) can be understood by.
log_of() {
	local name=${1%%:*}
	case $name in
	e2e/*/*) name=${name%/*} ;;
	esac
	say "$LOGS/${name//\//.}.log"
}

# The ends of their logs: where only the output of a run is kept, it must say why.
show_logs() {
	local f log seen=" "
	for f in "${FAILURES[@]}"; do
		log=$(log_of "$f")
		[ -s "$log" ] && [[ $seen != *" $log "* ]] || continue
		seen+="$log "
		say "--- $log"
		tail -n 20 "$log" | cut -c 1-300
	done
}

# Whether NAME is wanted.
wanted() {
	local n
	[ ${#NAMES[@]} -gt 0 ] || return 0
	for n in "${NAMES[@]}"; do
		[[ $1 == *"$n"* ]] && return 0
	done
	return 1
}

# in_group SECONDS LOG COMMAND...: runs it in a process group of its own, with a time limit.
in_group() {
	local seconds=$1 log=$2 status
	shift 2
	setsid timeout -k 10 "$seconds" "$@" >"$log" 2>&1 </dev/null &
	RUNNING=$!
	wait "$RUNNING"
	status=$?
	# What a test left behind would disturb the next.
	kill -KILL -- "-$RUNNING" 2>/dev/null
	RUNNING=
	return $status
}

dir_of() {
	case $1 in
	release) say "$TMEM_BUILD" ;;
	*) say "$TMEM_BUILD-$1" ;;
	esac
}

# Sanitizers make gcc warn of what cannot happen: warnings are errors in the release build only.
# With -O1 these builds take two thirds of the time, and their tests no longer.
build() {
	case $1 in
	release) build_tree "$(dir_of release)" "" -Dtests=true ;;
	checks) build_tree "$(dir_of checks)" "" -Dtests=true -Dchecks=2 -Dbuildtype=debug -Doptimization=1 -Dwerror=false \
		-Db_sanitize=address,undefined ;;
	tsan) build_tree "$(dir_of tsan)" "" -Dtests=true -Dchecks=1 -Dbuildtype=debug -Doptimization=1 -Dwerror=false \
		-Db_sanitize=thread ;;
	rare) build_tree "$(dir_of rare)" "tmem libtmem-agent.so tests/e2e/e2e-corrupt" -Dtests=true -Dchecks=1 ;;
	esac
}

# Old TSan runtimes cannot live with much address randomisation.
tsan_wrapper() {
	setarch -R true 2>/dev/null && say "--wrapper=setarch -R"
}

# The meson tests of one build: names of "suite/test".
meson_names() {
	meson introspect --tests "$(dir_of "$1")" | python3 -c '
import json, sys
for t in json.load(sys.stdin):
    suite = t["suite"][0].split(":")[-1] if t["suite"] else "other"
    print(suite + "/" + t["name"])'
}

# Which tests make sense in a build: memory faults, and tests of one thread, are not TSan'"'"'s
# business; each failing allocation is tried once, where ASan looks at what follows.
suits() {
	local build=$1 test=$2
	[ -z "$QUICK" ] || case $build/$test in
	release/*) return 1 ;;
	checks/unit/*) ;;
	*) return 1 ;;
	esac
	case $build/$test in
	tsan/fault/* | tsan/docs/* | tsan/fuzz/* | release/fault/engine_alloc) return 1 ;;
	tsan/unit/codec | tsan/unit/codec_dict | tsan/unit/index_spread | tsan/unit/replay | tsan/unit/run_queue) return 1 ;;
	tsan/unit/zs_shrink | tsan/unit/cli_options | tsan/model/engine_model_zbud) return 1 ;;
	tsan/unit/run_auto | tsan/unit/tmem_ephemeral | tsan/unit/tmem_policy | tsan/unit/zsmalloc) return 1 ;;
	esac
	return 0
}

run_meson() {
	local build=$1 dir names=() test n wrapper=() log
	dir=$(dir_of "$build")
	for test in $(meson_names "$build"); do
		suits "$build" "$test" && wanted "$build/$test" && names+=("${test#*/}")
	done
	if [ -n "$LIST" ]; then
		for n in "${names[@]}"; do say "$build/$n"; done
		return
	fi
	[ ${#names[@]} -gt 0 ] || return 0
	[ "$build" != tsan ] || mapfile -t wrapper < <(tsan_wrapper)
	log=$LOGS/$build.meson
	rm -f "$dir"/meson-logs/testlog*.json
	export ASAN_OPTIONS=allocator_may_return_null=1:detect_stack_use_after_return=1
	export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 TSAN_OPTIONS=halt_on_error=1
	in_group 600 "$log" meson test -C "$dir" --no-rebuild --num-processes 2 "${wrapper[@]}" "${names[@]}"
	local had=$? results
	results=$(python3 - "$LOGS" "$build" "$dir"/meson-logs/testlog*.json <<'PY'
import json, os, sys
logs, build = sys.argv[1:3]
for path in sys.argv[3:]:
    if not os.path.exists(path):
        continue
    for line in open(path, errors="replace"):
        t = json.loads(line)
        name = t["name"].split(" ")[-1].split(":")[-1]
        with open(os.path.join(logs, "%s.%s.log" % (build, name)), "w") as f:
            f.write(t.get("stdout") or "")
            f.write(t.get("stderr") or "")
        r = t["result"]
        if r in ("OK", "EXPECTEDFAIL"):
            verdict, why = "ok", ""
        elif r == "SKIP":
            verdict, why = "skip", "see its log"
        else:
            verdict, why = "not ok", "%s after %.1f s" % (r.lower(), t["duration"])
        print("%s\t%s/%s\t%s" % (verdict, build, name, why))
PY
	)
	if [ -z "$results" ]; then
		verdict "not ok" "$build/meson" "no results, exit code $had, log $log"
		return
	fi
	while IFS=$'\t' read -r v n why; do
		verdict "$v" "$n" "$why"
	done <<<"$results"
}

# tests/e2e/*.sh print their own verdicts.
run_e2e() {
	local script=$1 name log status any="" line rest
	name=$(basename "$script" .sh)
	[ "$name" != lib ] || return 0
	wanted "e2e/$name" || return 0
	[ -z "$QUICK" ] || [ "$name" = cli ] || return 0
	if [ -n "$LIST" ]; then
		say "e2e/$name"
		return
	fi
	log=$LOGS/e2e.$name.log
	if [ -z "${NAMES[*]}" ] && [ $((SECONDS - started)) -gt $((DEADLINE_S - 40)) ]; then
		verdict "not ok" "e2e/$name" "no time left: the tests before it took $((SECONDS - started)) s"
		return
	fi
	in_group $E2E_LIMIT_S "$log" bash "$script"
	status=$?
	while IFS= read -r line; do
		case $line in
		"ok "*) verdict ok "e2e/$name/${line#ok }" ;;
		"not ok "*)
			rest=${line#not ok }
			verdict "not ok" "e2e/$name/${rest%%: *}" "${rest#*: }"
			any=failed
			;;
		"skip "*)
			rest=${line#skip }
			verdict skip "e2e/$name/${rest%%: *}" "${rest#*: }"
			;;
		*) continue ;;
		esac
		any=${any:-1}
	done <"$log"
	if [ "$status" -ge 124 ]; then
		verdict "not ok" "e2e/$name" "ended by a signal or its time limit of $E2E_LIMIT_S s ($status), log $log"
	elif [ -z "$any" ] || { [ "$status" != 0 ] && [ "$any" != failed ]; }; then
		verdict "not ok" "e2e/$name" "exit code $status, log $log"
	fi
}

run_lint() {
	[ -x tools/lint.sh ] && [ -z "$QUICK" ] && wanted lint || return 0
	if [ -n "$LIST" ]; then
		say lint
		return
	fi
	local checks=(includes calls spdx format cppcheck)
	[ -z "${TMEM_TEST_TIDY:-}" ] || checks+=(tidy)
	if in_group 600 "$LOGS/lint.log" tools/lint.sh "${checks[@]}"; then
		verdict ok lint
	else
		verdict "not ok" lint "$(tail -n 1 "$LOGS/lint.log")"
	fi
}

started=$SECONDS
need_packages "the build" "${PKGS_BUILD[@]}" "${PKGS_DEMO[@]}" || exit 1
need_packages "the tests" "${PKGS_TEST[@]}" || say "tests that need them are skipped"
[ -n "$QUICK" ] || need_packages "the style checks" "${PKGS_LINT[@]}" || say "style checks may be left out"
mkdir -p "$LOGS"
rm -f "$LOGS"/*
for b in $BUILDS; do
	if ! build "$b"; then
		verdict "not ok" "$b/build" "log: $(dir_of "$b")/build.log"
		continue
	fi
	[ -n "$LIST" ] || say "built $b after $((SECONDS - started)) s"
	run_meson "$b"
done
if [ -z "$QUICK$LIST" ] && wanted e2e/run_rare; then
	build rare || verdict "not ok" rare/build "log: $(dir_of rare)/build.log"
fi
for s in tests/e2e/*.sh; do
	run_e2e "$s"
done
run_lint
[ -z "$LIST" ] || exit 0
say
if [ $FAILED -gt 0 ]; then
	show_logs
	say "failed:"
	printf '  %s\n' "${FAILURES[@]}"
fi
say "logs: $LOGS; $((SECONDS - started)) s"
say "$PASSED passed, $FAILED failed, $SKIPPED skipped"
[ $FAILED = 0 ]
