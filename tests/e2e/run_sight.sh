#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What the user of tmem run sees of it: the report over time, and its pictures.
. "$(dirname "$0")/lib.sh"
need_program python3
need_run
PAGES=$BUILD/tests/e2e/e2e-pages
[ -x "$PAGES" ] || PAGES=$BUILD/e2e-pages

# fields NAME FILE EXPRESSION: the JSON fulfils a Python expression over d (all of it) and s (its
# series).
fields() {
	if python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
s = d.get("series")
sys.exit(not eval("(" + sys.argv[2] + ")"))' "$2" "$3" 2>"$T/err"; then
		ok "$1"
	else
		not_ok "$1" "not so: $3 $(tail -n 1 "$T/err")"
	fi
}

# ---- the series
limited pages $((24 * 1048576 * 2)) "$PAGES" touch 80 3 1
j=$T/pages.report.json
fields series_columns "$j" "len({len(c) for c in s.values()}) == 1 and 100 < len(s['t_s']) <= 600"
fields series_time "$j" "all(a < b for a, b in zip(s['t_s'], s['t_s'][1:])) and 0 <= d['wall_s'] - s['t_s'][-1] < 0.5"
# What the columns add up to is what the whole report says.
for k in faults faults_stored faults_fresh evicted_pages pages_in refused_pages; do
	fields "series_$k" "$j" "sum(s['$k']) == d['$k']"
done
fields series_evicted "$j" "sum(s['evicted_pages']) > 1000"
fields series_peak "$j" "max(s['peak_total_bytes']) == d['peak_total_bytes']"
fields series_over "$j" "abs(sum(s['over_limit_s']) - d['over_limit_s']) < 0.001"
fields series_limit "$j" "set(s['limit_bytes']) == {d['limit_bytes']}"
fields series_total "$j" "all(r <= t <= p for r, t, p in zip(s['resident_bytes'], s['total_bytes'], s['peak_total_bytes']))"
fields series_percentiles "$j" "all((f == 0) or (a is not None and a <= b) for f, a, b in zip(s['faults_stored'], s['fault_us_p50'], s['fault_us_p99'])) and max(x or 0 for x in s['fault_us_p99']) >= d['fault_us_p99']"
# A busy loop's processor time is the program's, and not waited for.
"$TMEM" run --limit 64M --report "$T/busy.json" -- python3 -c 'import time
while time.process_time() < 1: pass' 2>"$T/err"
fields series_program_cpu "$T/busy.json" "0.8 < sum(s['program_cpu_s']) < 1.6 and sum(s['fault_wait_s']) < 0.2"
"$TMEM" run --limit 64M --report - -- /bin/true 2>"$T/out"
fields report_stderr "$T/out" "s is None and d['limit_bytes'] == 64 << 20"

# ---- drawn
check drawn "it cannot be drawn" sh -c '"$1" report -o "$2.html" "$2" && "$1" report -o "$2.svg" "$2" &&
	python3 -c "import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])" "$2.svg"' sh "$TMEM" "$j"
check drawn_without_series "it cannot be drawn" sh -c '"$1" report "$2" >"$3"' sh "$TMEM" "$T/out" "$T/page.html"

finish
