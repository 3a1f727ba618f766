#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# tmem report: a page and plots of reports, and what it says of files that are none.
. "$(dirname "$0")/lib.sh"
need_program python3

# A report of 300 samples, as tmem run writes them; its program came and went.
python3 - "$T" <<'PY'
import json, math, sys
n = 300
t = [(i + 1) / 32 for i in range(n)]
wave = [abs(math.sin(i / 20)) for i in range(n)]
series = {
    "t_s": t, "peak_total_bytes": [90 << 20] * n,
    "resident_bytes": [int((30 + 30 * w) * 2**20) for w in wave],
    "total_bytes": [int((50 + 40 * w) * 2**20) for w in wave],
    "limit_bytes": [96 << 20] * n,
    "store_bytes": [int(20 * w * 2**20) for w in wave],
    "compressed_bytes": [int(19 * w * 2**20) for w in wave],
    "stored_pages": [int(16000 * w) for w in wave],
    "faults": [300] * n, "faults_stored": [200] * n, "faults_fresh": [100] * n,
    "evicted_pages": [50] * n, "pages_in": [60] * n, "refused_pages": [0] * n,
    "over_limit_s": [0.0] * n, "fault_wait_s": [0.01] * n, "program_cpu_s": [0.02] * n,
    "tmem_cpu_s": [0.005] * n,
    "fault_us_p50": [None if i % 50 == 0 else 12.5 for i in range(n)],
    "fault_us_p99": [None if i % 50 == 0 else 1000 * w + 20 for i, w in enumerate(wave)],
}
report = {"version": 1, "wall_s": 9.4, "limit_bytes": 96 << 20, "peak_total_bytes": 90 << 20,
          "peak_resident_bytes": 60 << 20, "store_bytes": 20 << 20, "stored_pages": 16000,
          "compressed_bytes": 19 << 20, "same_filled_pages": 12, "ratio": 3.2, "evicted_pages": 15000,
          "faults": 90000, "fault_us_p50": 12.5, "fault_us_p99": 980.0, "over_limit_s": 0.0,
          "codec": "zstd:1<b>", "cluster_pages": 8, "series": series}
def put(name, change=lambda r: None):
    r = json.loads(json.dumps(report))
    change(r)
    json.dump(r, open("%s/%s.json" % (sys.argv[1], name), "w"), indent=1)
put("good")
put("other", lambda r: r.update(enough_limit_bytes=200 << 20, thrash_s=6.0, over_limit_s=8.0))
put("flat", lambda r: r.pop("series"))
put("empty", lambda r: [r["series"].update({k: []}) for k in series])
put("one", lambda r: [r["series"].update({k: v[:1]}) for k, v in series.items()])
put("text", lambda r: r["series"]["faults_stored"].__setitem__(17, "many"))
put("short", lambda r: r["series"]["store_bytes"].pop())
put("back", lambda r: r["series"]["t_s"].__setitem__(5, 0.01))
put("negative", lambda r: r["series"]["limit_bytes"].__setitem__(3, -1))
put("null", lambda r: r["series"]["total_bytes"].__setitem__(0, None))
put("nocolumn", lambda r: r["series"].pop("pages_in"))
put("nolimit", lambda r: r.pop("limit_bytes"))
put("word", lambda r: r.update(ratio="good"))
put("later", lambda r: r.update(version=2))
put("array", lambda r: r.update(series=[1, 2]))
json.dump({"version": 1, "command": "replay", "results": []}, open(sys.argv[1] + "/foreign.json", "w"))
json.dump([1, 2], open(sys.argv[1] + "/list.json", "w"))
text = open(sys.argv[1] + "/good.json").read()
open(sys.argv[1] + "/cut.json", "w").write(text[:len(text) // 2])
PY

# wrong NAME CODE WORDS ARGS...: the exit code, one line on stderr that holds WORDS, no output.
wrong() {
	local name=$1 want=$2 words=$3 got
	shift 3
	rm -f "$T/page.html"
	timeout 20 "$TMEM" report "$@" >"$T/out" 2>"$T/err" </dev/null
	got=$?
	if [ "$got" != "$want" ] || [ -s "$T/out" ] || [ -e "$T/page.html" ]; then
		not_ok "$name" "exit code $got, not $want, or an output: $(head -n 1 "$T/err")"
	elif [ "$(wc -l <"$T/err")" != 1 ] || ! grep -qF -- "$words" "$T/err"; then
		not_ok "$name" "'$words' is not in: $(head -n 2 "$T/err")"
	else
		ok "$name"
	fi
}
for case in "text:series.faults_stored[17]: not a number" "short:series.store_bytes: 299 values where t_s has 300" \
	"back:series.t_s[5]: not later" "negative:series.limit_bytes[3]: below 0" \
	"null:series.total_bytes[0]: not a number" "nocolumn:series.pages_in: not there" \
	"nolimit:no field limit_bytes: not a report of tmem run" "word:ratio: not a number" \
	"later:version: 2, and this tmem knows 1" "array:series: not an object" \
	"foreign:not a report of tmem run" "list:not a report of tmem run" "cut:line "; do
	wrong "${case%%:*}" 1 "${case#*:}" -o "$T/page.html" "$T/${case%%:*}.json"
	grep -qF "${case%%:*}.json" "$T/err" || not_ok "${case%%:*}.named" "the file is not named"
done
wrong missing 1 "/nonexistent.json" /nonexistent.json
wrong no_file 2 "which report"
wrong svg_of_two 2 "of one file" -o "$T/x.svg" "$T/good.json" "$T/other.json"
wrong svg_of_flat 1 "no figures over time" -o "$T/x.svg" "$T/flat.json"
wrong unwritable 1 "/nonexistent/page.html" -o /nonexistent/page.html "$T/good.json"
wrong second_bad 1 "cut.json" -o "$T/page.html" "$T/good.json" "$T/cut.json"
# What is to be read is not written over; what could not be written whole does not stay.
wrong over_input 2 "is to be read" -o "$T/flat.json" "$T/good.json" "$T/flat.json"
check over_input.kept "the report is gone" python3 -m json.tool "$T/flat.json" "$T/null"
cp "$T/good.json" "$T/copy.json"
ln "$T/copy.json" "$T/same.svg" # by another name
wrong svg_over_input 2 "is to be read" -o "$T/same.svg" "$T/copy.json"
check svg_over_input.kept "the report is gone" python3 -m json.tool "$T/copy.json" "$T/null"
: >"$T/void.json"
wrong void 1 "void.json: it is empty" "$T/void.json"
wrong folder 1 ": Is a directory" "$T"
if [ -w /dev/full ]; then
	wrong full_device_html 1 "/dev/full: No space left on device" -o /dev/full "$T/good.json"
	ln -s /dev/full "$T/full.svg"
	wrong full_device_svg 1 "full.svg: No space left on device" -o "$T/full.svg" "$T/good.json"
	check full_device "it was removed" test -c /dev/full -a -L "$T/full.svg"
fi
if mkdir "$T/small" && mount -t tmpfs -o size=4k none "$T/small" 2>/dev/null; then
	for end in html svg; do
		wrong "full_$end" 1 "No space left on device" -o "$T/small/x.$end" "$T/good.json"
		check "full_$end.gone" "a part of it stays" test ! -e "$T/small/x.$end"
	done
	umount "$T/small"
else
	skip full_disk_removes "no tmpfs can be mounted here"
fi
check full_disk "no word of it" sh -c '"$1" report "$2" >/dev/full 2>"$3"; test $? = 1 && test -s "$3"' \
	sh "$TMEM" "$T/good.json" "$T/err"

# ---- what it draws
"$TMEM" report -o "$T/plot.svg" "$T/good.json" && "$TMEM" report -o "$T/page.html" "$T/good.json" "$T/other.json" "$T/flat.json" &&
	"$TMEM" report "$T/good.json" >"$T/stdout.html" && "$TMEM" report -o "$T/one.svg" "$T/one.json" &&
	"$TMEM" report -o "$T/empty.html" "$T/empty.json"
check written "exit code $?" test $? = 0
# svg WORDS: plots are XML, nothing of them is not a number, everything lies inside.
svg() {
	python3 - "$1" <<'PY' 2>"$T/err"
import re, sys, xml.dom.minidom
d = xml.dom.minidom.parse(sys.argv[1])
w, h = (float(d.documentElement.getAttribute(k)) for k in ("width", "height"))
for p in d.getElementsByTagName("path"):
    at = p.getAttribute("d")
    assert not re.search("nan|inf", at, re.I), at
    for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", at):
        assert 0 <= float(x) <= w and 0 <= float(y) <= h, (x, y)
for t in d.getElementsByTagName("text"):
    assert t.getAttribute("text-anchor") and 0 <= float(t.getAttribute("x")) <= w
texts = [t.firstChild.data if t.firstChild else "" for t in d.getElementsByTagName("text")]
for want in ["Memory", "limit", "faults a second", "p99", "time since the start"]:
    assert want in texts, want
PY
}
check svg "$(tail -n 1 "$T/err" 2>/dev/null)" svg "$T/plot.svg"
check svg_of_one_sample "$(tail -n 1 "$T/err" 2>/dev/null)" svg "$T/one.svg"
check same_by_stdout "stdout is not the file" \
	sh -c '"$1" report -o "$2/again.html" "$2/good.json" && cmp -s "$2/again.html" "$2/stdout.html"' sh "$TMEM" "$T"
page() {
	python3 - "$T/page.html" <<'PY' 2>"$T/err"
import html.parser, sys
text = open(sys.argv[1]).read()
class Page(html.parser.HTMLParser):
    stack, seen, void = [], [], {"meta", "path", "rect", "circle"}
    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        for k, v in attrs:
            assert k not in ("src", "href") and not k.startswith("on"), (tag, k, v)
        if tag not in ("meta", "path", "rect", "circle"):
            self.stack.append(tag)
    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop() == tag, tag
p = Page()
p.feed(text)
assert not p.stack, p.stack
assert p.seen.count("svg") == 12, p.seen.count("svg")    # two of the three have a series
assert "script" not in p.seen and "link" not in p.seen
assert "zstd:1&lt;b&gt;" in text and "<b>" not in text
assert "prefers-color-scheme:dark" in text
for want in ["largest total", "peak_total_bytes", "90.0 MiB", "93.8 %", "no figures over time",
             "what would be enough: 200.0 MiB", "over the limit for 8.0 of 9.4 s"]:
    assert want in text, want
PY
}
check page "$(tail -n 1 "$T/err" 2>/dev/null)" page

# ---- damage anywhere: a page or one line, never a crash
damage() {
	python3 - "$TMEM" "$T/good.json" "$T/damaged.json" <<'PY' 2>"$T/err"
import random, subprocess, sys
tmem, good, bad = sys.argv[1:]
data = open(good, "rb").read()
random.seed(5)
codes = {0: 0, 1: 0}
for i in range(120):
    b = bytearray(data)
    where = random.randrange(len(b))
    if i % 3 == 0:
        del b[where:]
    elif i % 3 == 1:
        b[where] = random.randrange(256)
    else:
        b[where:where + 1] = random.choice([b"9" * 30, b"-", b"1e400", b"null", b"[", b"}", b"\0", b"\xff"])
    open(bad, "wb").write(b)
    p = subprocess.run([tmem, "report", bad], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
    assert p.returncode in codes, (i, p.returncode, p.stderr)
    codes[p.returncode] += 1
    assert (p.returncode == 0) == (p.stderr == b""), (i, p.stderr)
    assert p.returncode == 0 or p.stderr.count(b"\n") == 1, (i, p.stderr)
    assert b"nan" not in p.stdout.lower().replace(b"nanos", b"") and b'"inf' not in p.stdout, i
assert min(codes.values()) > 3, codes
PY
}
check damage "$(tail -n 1 "$T/err" 2>/dev/null)" damage
finish
