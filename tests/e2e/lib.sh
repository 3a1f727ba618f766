# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034
# What the end-to-end tests share. A test is a script that sources this file, prints
# "ok NAME", "not ok NAME: why" or "skip NAME: reason" for each thing it checks (other lines are
# for its log), and ends with finish. TMEM_BUILD: the build folder; TMEM_LONG=1: the long version.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd) || exit 1
. "$ROOT/tools/lib.sh"
BUILD=${TMEM_BUILD:-$ROOT/build}
TMEM=$BUILD/tmem # with TMEM_EVICT=move|discard: run takes that way, see below
MEASURE=$BUILD/demo/tmem-measure
TEST=$(basename "$0" .sh)
LONG=${TMEM_LONG:-}
export LC_ALL=C
T=$(mktemp -d "${TMPDIR:-/tmp}/tmem-e2e.XXXXXX") || exit 1
FAILURES=0
PIDS=()
ELSEWHERE=() # what is made outside of $T

cleanup() {
	local p
	trap - EXIT INT TERM HUP
	for p in "${PIDS[@]}"; do
		kill -TERM "$p" 2>/dev/null
		wait "$p" 2>/dev/null
	done
	umount -l "$T/mount" 2>/dev/null
	rm -rf "$T" "${ELSEWHERE[@]}"
}
trap cleanup EXIT
trap 'cleanup; exit 130' INT
trap 'cleanup; exit 143' TERM HUP

ok() { printf 'ok %s\n' "$1"; }
not_ok() {
	FAILURES=$((FAILURES + 1))
	printf 'not ok %s: %s\n' "$1" "$2"
}
skip() { printf 'skip %s: %s\n' "$1" "$2"; }
finish() { exit $((FAILURES > 0)); }
# check NAME WHY COMMAND...: ok when the command succeeds.
check() {
	local name=$1 why=$2
	shift 2
	if "$@"; then ok "$name"; else not_ok "$name" "$why"; fi
}
# TMEM_SLOW=1: an emulated machine. Fewer rounds, more time, limits are not looked at.
# The way in which pages leave, whatever the kernel can do.
if [ -n "${TMEM_EVICT:-}" ]; then
	printf '#!/bin/sh\n[ "$1" != run ] || { shift; set -- run --evict %s "$@"; }\nexec %q "$@"\n' \
		"$TMEM_EVICT" "$TMEM" >"$T/tmem"
	chmod +x "$T/tmem"
	TMEM=$T/tmem
fi
note() { printf '# %s\n' "$*"; }

# S, a source, and M, where it is to be mounted; or the end, where nothing can be.
need_mount() {
	S=$T/source M=$T/mount
	mkdir -p "$S" "$M"
	[ -w /dev/fuse ] && "$TMEM" --help | grep -qw mount && return
	skip "$TEST" "no /dev/fuse here, or built without libfuse"
	finish
}

# From here on tmem run has no CAP_SYS_PTRACE, and so hears of no fork.
careful() {
	printf '#!/bin/sh\nexec setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace %q "$@"\n' \
		"$TMEM" >"$T/careful"
	chmod +x "$T/careful"
	TMEM=$T/careful
	"$TMEM" run --limit 64M -- true 2>"$T/careful.err" && grep -q 'without CAP_SYS_PTRACE' "$T/careful.err"
}

# The whole test is skipped when a program is missing or `tmem run` cannot be had.
need_program() {
	local p
	for p; do
		command -v "$p" >/dev/null && continue
		skip "$TEST" "$p is not installed"
		exit 0
	done
}
need_run() {
	[ -x "$MEASURE" ] || {
		not_ok "$TEST" "$MEASURE is not built"
		finish
	}
	run_works "$BUILD" && return
	if [ "$RUN_STATUS" = 126 ] || [ "$RUN_STATUS" = 2 ]; then
		skip "$TEST" "tmem run cannot be had: $RUN_REASON"
		exit 0
	fi
	not_ok "$TEST" "tmem run -- /bin/true: exit code $RUN_STATUS, $RUN_REASON"
	finish
}

# bare NAME COMMAND...: as it is; its output in NAME.bare.out, its peak in BARE, code in CODE.
bare() {
	local name=$1
	shift
	"$MEASURE" --report "$T/$name.bare.json" -- "$@" >"$T/$name.bare.out" 2>"$T/$name.bare.err"
	CODE=$?
	BARE=$(number_of "$T/$name.bare.json" peak_anon_bytes)
	note "$name: bare peak $(mib "$BARE"), $(number_of "$T/$name.bare.json" wall_s) s, exit code $CODE"
}

# BUSY is set when others took more than a quarter of a processor meanwhile: then the pager waited
# for one, and what the program allocated in that time was over the limit. Checks of the limit allow
# for that. busy_from before, busy_to when what was started has been waited for.
cpu_used() { # centiseconds, of everybody and of what this shell has waited for
	read -r _ user nice system _ _ irq softirq steal _ </proc/stat
	times >"$T/times"
	ALL_USED=$(((user + nice + system + irq + softirq + steal) * 100 / $(getconf CLK_TCK)))
	OWN_USED=$(awk -F'[ms ]+' 'NR == 2 { printf "%d", ($1 * 60 + $2 + $3 * 60 + $4) * 100 }' "$T/times")
}
busy_from() {
	local user nice system irq softirq steal
	cpu_used
	BUSY_FROM=$EPOCHREALTIME BUSY_ALL=$ALL_USED BUSY_OWN=$OWN_USED
}
busy_to() {
	local user nice system irq softirq steal others
	cpu_used
	others=$(calc "(($ALL_USED - $BUSY_ALL) - ($OWN_USED - $BUSY_OWN)) / 100 / ($EPOCHREALTIME - $BUSY_FROM)" %.2f)
	BUSY=$([ "$(calc "($others > 0.25)")" = 1 ] && echo "$others")
	note "others used $others processors${BUSY:+: a busy machine}"
}

# limited NAME LIMIT_BYTES COMMAND...: under tmem run, watched from outside as well.
limited() {
	local name=$1 j=$T/$1.report.json
	busy_from
	LIMIT=$(($2 / 4096 * 4096))
	shift 2
	"$MEASURE" --report "$T/$name.tmem.json" -- "$TMEM" run --limit "$((LIMIT / 1024))K" \
		${TMEM_CODEC:+--codec "$TMEM_CODEC"} --report "$j" -- "$@" \
		>"$T/$name.tmem.out" 2>"$T/$name.tmem.err"
	CODE=$?
	busy_to
	PEAK=$(number_of "$j" peak_total_bytes)
	note "$name: limit $(mib "$LIMIT"), peak $(mib "${PEAK:-0}")," \
		"$(number_of "$T/$name.tmem.json" wall_s) s," \
		"sampled from outside $(mib "$(number_of "$T/$name.tmem.json" peak_anon_bytes)")," \
		"evicted $(number_of "$j" evicted_pages), faults $(number_of "$j" faults)," \
		"ratio $(number_of "$j" ratio), over the limit $(number_of "$j" over_limit_s) s, exit code $CODE"
}

# A new mapping is filled at the speed of memory until the pager has seen it: a peak up to a third
# above the limit counts as held when all such moments together took less than a tenth of a second.
brief() {
	[ "$(calc "($(number_of "$T/$1.report.json" over_limit_s) < 0.1) * ($PEAK <= $LIMIT * 1.34)")" = 1 ]
}

# Whether pages really left, by this report.
evicted() {
	local n
	n=$(number_of "$1" evicted_pages)
	[ "${n:-0}" -gt 0 ]
}

# The report of NAME is there, the limit held within 5 %, and something was really evicted. When
# BUSY it is not judged past 25 %: how long the pager waits for a processor is the others' to say.
check_limit() {
	local name=$1 j=$T/$1.report.json seen most=${BUSY:+1.25}
	most=${most:-1.05}
	if [ -n "${TMEM_SLOW:-}" ]; then
		skip "$name.limit" "an emulated machine: peak / limit = $(calc "${PEAK:-0} / $LIMIT" %.3f)"
		return
	fi
	seen=$(number_of "$T/$name.tmem.json" peak_anon_bytes)
	# Supervisor, host, keeper, program: with more processes, what a fork shares would be counted twice.
	[ "$(calc "$(number_of "$T/$name.tmem.json" processes) + 0")" -le 4 ] 2>/dev/null || seen=0
	if [ ! -s "$j" ] || [ -z "$PEAK" ]; then
		not_ok "$name.limit" "no report"
	elif [ -n "$BUSY" ] && [ "$(calc "($PEAK > $LIMIT * $most)")" = 1 ]; then
		skip "$name.limit" "$(calc "$PEAK / $LIMIT" %.3f) of it, beside others that took $BUSY processors"
	elif [ "$(calc "($PEAK <= $LIMIT * $most)")" != 1 ] && ! brief "$name"; then
		not_ok "$name.limit" "peak $(mib "$PEAK") of $(mib "$LIMIT"): $(calc "$PEAK / $LIMIT" %.3f)"
	elif [ "$(calc "(${seen:-0} > $LIMIT * ($most + 0.05) + 8388608)")" = 1 ] && ! brief "$name"; then
		not_ok "$name.limit" "seen from outside $(mib "$seen") of $(mib "$LIMIT"), reported $(mib "$PEAK")"
	elif ! evicted "$j"; then
		not_ok "$name.limit" "nothing was evicted: the test is too small"
	else
		note "$name: peak_total / limit = $(calc "$PEAK / $LIMIT" %.3f)"
		ok "$name.limit"
	fi
}

# check_peak NAME PID KIB: a process has never had more memory resident.
check_peak() {
	local high
	if nm -D "$TMEM" 2>/dev/null | grep -q __asan_init; then
		skip "$1" "a sanitizer's own memory counts"
		return
	fi
	high=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$2/status")
	note "peak $high KiB of $3"
	check "$1" "$high KiB resident, $3 allowed" test "${high:-$(($3 + 1))}" -le "$3"
}

# short NAME SECONDS MOST: that long over the limit at most. How long the pager takes to see what a program
# does is the scheduler's to say where others want the processors: nothing can be told from it there.
short() {
	if [ -n "${TMEM_SLOW:-}" ]; then
		skip "$1.limit" "an emulated machine"
	elif [ -n "$BUSY" ] && [ "$(calc "(${2:-0} > $3)")" = 1 ]; then
		skip "$1.limit" "over the limit for $2 s, beside others that took $BUSY processors"
	else
		check "$1.limit" "over the limit for ${2:-?} s" test "$(calc "(${2:-999} <= $3)")" = 1
	fi
}

# check_over NAME [SECONDS]: over the limit for no longer than that. For programs that outrun the pager for a
# moment: how far says little then.
check_over() { short "$1" "$(number_of "$T/$1.report.json" over_limit_s)" "${2:-1}"; }

# half NAME COMMAND...: the same exit code and standard output (which is not empty) in half of the
# bare peak, within the limit. FILTER, if set, is a command that both outputs go through before they are compared;
# LIMIT_CHECK, if set, what is called instead of check_limit.
half() {
	local name=$1 code
	bare "$@"
	code=$CODE
	shift
	if [ "${BARE:-0}" -lt 8388608 ]; then
		not_ok "$name" "the bare run failed: exit code $code, $(tail -n 1 "$T/$name.bare.err")"
		return 1
	fi
	if [ -z "$(${FILTER:-cat} <"$T/$name.bare.out" | head -c 1)" ]; then
		not_ok "$name" "the bare run says nothing that could be compared"
		return 1
	fi
	limited "$name" $((BARE / 2)) "$@"
	if [ "$CODE" != "$code" ]; then
		not_ok "$name" "exit code $CODE, bare $code: $(tail -n 1 "$T/$name.tmem.err")"
		tail -n 5 "$T/$name.tmem.err" "$T/$name.tmem.out" | sed 's/^/# /'
	elif ! diff <(${FILTER:-cat} <"$T/$name.bare.out") <(${FILTER:-cat} <"$T/$name.tmem.out") >"$T/diff"; then
		not_ok "$name" "the output differs: $(head -n 3 "$T/diff" | cut -c-160 | tr '\n' ' ')"
	else
		ok "$name"
	fi
	${LIMIT_CHECK:-check_limit} "$name"
}
