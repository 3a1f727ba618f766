#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# tmem run --limit auto: what is in use stays, the rest leaves, nothing is lost, and a program that
# uses all it has is left alone. Programs run side by side, for it is time that they wait for.
. "$(dirname "$0")/lib.sh"
need_program python3
need_run
AUTO=$BUILD/tests/e2e/e2e-auto
[ -x "$AUTO" ] || AUTO=$BUILD/e2e-auto
seconds=$([ -n "$LONG" ] && echo 60 || echo 17)
mib=$([ -n "$LONG" ] && echo 500 || echo 120)
# The cold age: short, as the test has to be. The time for all stages is two and a quarter of it.
cold=3

# start NAME [OPTION...] -- PROGRAM...: in the background.
start() {
	local name=$1
	shift
	"$TMEM" run --limit auto --cold $cold --report "$T/$name.json" "$@" >"$T/$name.out" 2>"$T/$name.err" &
	PIDS+=($!)
	declare -g "PID_$name=$!"
}
# ended NAME: its exit code was 0.
ended() {
	local pid=PID_$1 code
	wait "${!pid}"
	code=$?
	sed 's/^/# /' "$T/$1.err"
	check "$1" "exit code $code: $(grep -m 1 -v '^tmem run' "$T/$1.err")" test $code = 0
}
# fields NAME CHECK EXPRESSION: over the report d, its series s, and MiB. level(k, part): a column after
# that part of the run.
fields() {
	if python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
s = d["series"]
M = 1048576
def level(k, part): return next(v for t, v in zip(s["t_s"], s[k]) if t >= part * d["wall_s"]) / M
sys.exit(not eval("(" + sys.argv[2] + ")"))' "$T/$1.json" "$3" 2>"$T/err"; then
		ok "$1.$2"
	else
		not_ok "$1.$2" "not so: $3 $(tail -n 1 "$T/err")"
		[ -e "$T/$1.dumped" ] || dump "$1"
	fi
}

# dump NAME: its report, for the log.
dump() {
	: >"$T/$1.dumped"
	python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
s = d.pop("series")
print("#", {k: v for k, v in d.items() if v})
for i in range(0, len(s["t_s"]), max(1, len(s["t_s"]) // 12)):
    print("# t_s", s["t_s"][i], *(f"{k} {s[k][i] >> 20} MiB" for k in ("total_bytes", "bare_bytes", "working_set_bytes")))' "$T/$1.json"
}

hot=$((mib / 8))
start part -- "$AUTO" part $mib $hot "$seconds"
start phase -- "$AUTO" phase $((mib / 2)) $((hot / 2)) "$seconds"
start fork -- "$AUTO" fork $((mib / 2)) $((hot / 2)) "$seconds"
start threads -- "$AUTO" threads $((mib / 2)) $((hot / 2)) "$seconds"
# All in use: a process that is looked at, and no more.
start all -- "$AUTO" part $((mib / 2)) $((mib / 2)) "$seconds"
# Never more than this, with everything in use.
start max --max 48M -- "$AUTO" part 64 64 8
# Without the kernel's word of forks: all comes back before each of them.
bare_tmem=$TMEM
CAREFUL=
if careful; then
	CAREFUL=1
	start careful -- "$AUTO" fork $((mib / 4)) $((hot / 4)) "$seconds"
fi
TMEM=$bare_tmem

ended part
# Within the run: a busy machine is slower, but this is no figure.
fields part shrinks "level('total_bytes', 0.95) < $hot + ($mib - $hot) * 0.6 + 12"
fields part bare "$mib <= level('bare_bytes', 0.95) < $mib + 16"
fields part saved "d['saved_bytes_max'] > ($mib - $hot) * 0.4 * M and d['saved_bytes_mean'] < d['saved_bytes_max']"
fields part working_set "$hot * 0.9 < level('working_set_bytes', 0.8) < $hot * 2 + 8 and d['working_set_bytes'] > 0"
# While it goes on: at its end all pages are looked at. For learning two minutes' worth of all that
# was in use when it was filled.
fields part few_promotions "sum(v for t, v in zip(s['t_s'], s['promotions']) if t < 0.8 * d['wall_s']) <= $mib * 1.1 + 10"
fields part columns "len(s['bare_bytes']) == len(s['t_s']) and sum(s['promotions']) == d['promotions']"
# Of a few seconds there is no rate a minute.
if [ -z "$LONG" ]; then
	fields part no_rate "d['promotions_percent'] is None"
	check part.no_rate.said "$(cat "$T/part.err")" grep -q 'too short a time for a rate' "$T/part.err"
fi
check part.said "no line at the end" grep -q 'would have held' "$T/part.err"
ended phase
fields phase left "d['evicted_pages'] > $mib * 32"
fields phase breach "d['breaches'] >= 1 and d['cold_s'] > $cold"
ended fork
fields fork left "d['evicted_pages'] > $mib * 32 and d['forks'] >= 1"
ended threads
fields threads left "d['evicted_pages'] > $mib * 32"
ended all
fields all alone "d['evicted_pages'] <= $mib and d['faults'] <= $mib"
ended max
fields max held "d['evicted_pages'] > 2000 and d['limit_bytes'] == 48 * M and d['over_limit_s'] < 2"

if [ -n "$CAREFUL" ]; then
	ended careful
	fields careful left "d['evicted_pages'] > $mib * 16"
	fields careful came_back "d['promotions'] > $mib and d['breaches'] >= 1"
else
	skip careful "no CAP_SYS_PTRACE to do without"
fi
finish
