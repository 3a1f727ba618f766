#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Records traces of real programs, makes three up, replays all of them with every policy, and prints
# the table of docs/policies.md: pages found, in percent.
#
#   bench/trace_policies.sh DIR [TRACE...]     default: all; a trace that is in DIR is not recorded again
#
# TMEM: the program (default: build/tmem beside this folder). Plots are DIR/TRACE.svg.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
TMEM=${TMEM:-$ROOT/build/tmem}
DIR=${1:?which folder for the traces?}
shift
TRACES=("$@")
[ ${#TRACES[@]} -gt 0 ] || TRACES=(zipf loop scan grep git build mixed python sqlite heap sort)
mkdir -p "$DIR" && cd "$DIR" || exit 1
mkdir -p work

files() { "$TMEM" trace -o "$NAME.trace" -- "$@" >/dev/null 2>"$NAME.log"; }
memory() {
	local limit=$1
	shift
	"$TMEM" trace --memory --limit "$limit" -o "$NAME.trace" -- "$@" >/dev/null 2>"$NAME.log"
}

sources() { # C++ that includes much
	local i h
	for i in 1 2 3 4; do
		for h in regex map algorithm thread unordered_map iostream bits/stdc++.h; do
			echo "#include <$h>"
		done >"work/a$i.cc"
	done
}
tree() {
	[ -d work/tree/.git ] && return
	mkdir -p work/tree
	cp -r /usr/include work/tree/include
	cp -r /usr/share/doc work/tree/doc 2>/dev/null
	(cd work/tree && git init -q . && git add -A . && git -c user.name=a -c user.email=a@b commit -qm all) >/dev/null 2>&1
}
database() {
	[ -s work/t.db ] || python3 - <<'P'
import random, sqlite3
random.seed(1)
c = sqlite3.connect('work/t.db')
c.execute('create table t(id integer primary key, name text, body text, n integer)')
c.executemany('insert into t values(?,?,?,?)', ((i, 'name%d' % random.randrange(10**6),
    ''.join(random.choices('abcdefgh ijklm', k=200)), random.randrange(10**6)) for i in range(200000)))
c.commit()
P
	cat >work/query.py <<'P'
import itertools, random, sqlite3
random.seed(1)
c = sqlite3.connect('work/t.db')
c.execute('pragma cache_size=-256')
cum = list(itertools.accumulate((k + 1) ** -0.9 for k in range(200000)))
for i in range(6):
    for row in random.choices(range(200000), cum_weights=cum, k=15000):
        c.execute('select body from t where id=?', (row * 7919 % 200000,)).fetchone()
    c.execute('select sum(n) from t').fetchone()
P
}
heap() {
	cat >work/heap.py <<'P'
import itertools, random
random.seed(1)
n = 40000
a = [bytearray((b'%07d' % i) * 60 + random.randbytes(600) + b'y' * 2500) for i in range(n)]
cum = list(itertools.accumulate((k + 1) ** -0.9 for k in range(n)))
print(sum(a[i * 7919 % n][7] for i in random.choices(range(n), cum_weights=cum, k=200000)))
P
}
lines() {
	[ -s work/lines ] || python3 -c "
import random
random.seed(2)
open('work/lines', 'w').writelines('%012d %s\n' % (random.randrange(10**12), 'abc def ' * 8) for i in range(1000000))"
}

record() {
	case $NAME in
	zipf | loop | scan) "$TMEM" trace --make "$NAME:20000:300000" -o "$NAME.trace" ;;
	grep) files sh -c 'for i in 1 2 3 4 5; do grep -r zebra /usr/share/doc; done' ;;
	git)
		tree
		files sh -c 'cd work/tree; for i in 1 2 3; do git status; git grep -c mutex; git log --stat
			find include -name "*.h" | head -400 | xargs touch; git diff --stat; done'
		;;
	build)
		sources
		files sh -c 'for k in 1 2 3; do for i in 1 2 3 4; do g++ -O0 -c work/a$i.cc -o work/o.o; done; done'
		;;
	mixed)
		sources
		files sh -c '(for k in 1 2 3; do grep -r zebra /usr/share/doc; done) &
			for k in 1 2 3; do for i in 1 2 3 4; do g++ -O0 -c work/a$i.cc -o work/o.o; done; done; wait'
		;;
	python)
		files sh -c 'for i in 1 2 3; do
			python3 -B -c "import asyncio, decimal, email, http.client, json, sqlite3, unittest, xml.dom.minidom"
			find /usr/lib/python3* -name "*.py" | head -1500 | xargs cat; done'
		;;
	sqlite)
		database
		files python3 work/query.py
		;;
	heap)
		heap
		memory 64M python3 work/heap.py
		;;
	sort)
		lines
		memory 48M sort -S 200M --parallel=1 work/lines -o work/sorted
		;;
	*)
		echo "trace_policies.sh: no trace '$NAME'" >&2
		exit 2
		;;
	esac
}

echo '| trace | pages | compressed | size | fifo | lru | s3fifo | opt |'
echo '|---|---|---|---|---|---|---|---|'
for NAME in "${TRACES[@]}"; do
	[ -s "$NAME.trace" ] || record
	if ! "$TMEM" replay "$NAME.trace" --policy model:fifo,lru,s3fifo,opt --svg "$NAME.svg" -J >"$NAME.json" 2>"$NAME.err"; then
		echo "| $NAME | $(head -n 1 "$NAME.err") | | | | | | |"
		continue
	fi
	python3 - "$NAME" <<'P'
import json, sys
d = json.load(open(sys.argv[1] + '.json'))
t, sizes = d['trace'], {}
for r in d['results']:
    sizes.setdefault(r['size_bytes'], {})[r['policy']] = r
for n, (size, by) in enumerate(sorted(sizes.items())):
    first = (sys.argv[1], t['pages'], '%.1f MiB' % (t['footprint_bytes'] / 2**20)) if n == 0 else ('', '', '')
    best = max(by['lru']['hit_ratio'], by['s3fifo']['hit_ratio'])
    def cell(p):
        v = by[p]['hit_ratio']
        return ('**%.1f**' if p in ('lru', 's3fifo') and v == best else '%.1f') % (100 * v)
    print('| %s | %s | %s | %.1f MiB | %s |' % (*first, size / 2**20,
        ' | '.join(cell(p) for p in ('model:fifo', 'lru', 's3fifo', 'opt'))))
P
done
