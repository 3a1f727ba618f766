#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# CPython: a word index of dictionaries and lists, and the interpreter's own tests of what is hard
# for a pager (fork, exec, threads, mmap, the collector), run inside a process that has most of
# its memory out, and whose ballast is compared in the end.
. "$(dirname "$0")/lib.sh"
need_program /usr/bin/python3
need_run
PY=/usr/bin/python3
export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1

cat >"$T/index.py" <<'PY'
import gc, os, sys, zlib
if len(sys.argv) < 3:  # full collections sweep all of memory again and again: the long version
    gc.disable()
x = 12345
def words(n):  # few are frequent, most are rare, as in text
    global x
    for _ in range(n):
        x = (x * 1103515245 + 12345) & 0x7fffffff
        u = x / 0x80000000
        yield int(6000 * u ** 4)
index, docs = {}, []
for d in range(int(sys.argv[1])):
    doc = ["w%d" % w for w in words(16)]
    docs.append({"id": d, "title": "document %d of the collection, with a title of some length" % d, "len": len(doc), "tags": doc[:4]})
    for pos, w in enumerate(doc):
        index.setdefault(w, []).append((d, pos))
crc = 0
for w in sorted(index)[::7]:
    crc = zlib.crc32(repr((w, index[w][:3], len(index[w]))).encode(), crc)
for d in range(0, len(docs), 3):
    crc = zlib.crc32(repr(docs[d]).encode(), crc)
for i in range(6000):
    w = "w%d" % (i * i % 3001)
    for d, pos in index.get(w, ())[-3:]:
        crc = zlib.crc32(docs[d]["title"].encode(), crc + pos)
print(len(index), len(docs), crc, flush=True)
os._exit(0)  # freeing it all, object by object in the order of a hash table, is not the test
PY
half index $PY "$T/index.py" $([ -n "$LONG" ] && echo 250000 collect || echo 50000)

if ! $PY -c 'import test.support' 2>/dev/null; then
	skip "selftest" "the interpreter's tests (libpython3-testsuite) are not installed"
	finish
fi

# Runs test modules in this very process, over ballast that is checked after all of them.
cat >"$T/selftest.py" <<'PY'
import os, random, sys, unittest, zlib
def ballast(mib):
    r = random.Random(7)
    pool = [b"%d %s" % (i, b"abcdefgh"[: i % 8]) for i in range(400)]
    return [b"".join(r.choices(pool, k=4096 * 28)) for _ in range(mib)]
def crc(b):
    c = 0
    for x in b:
        c = zlib.crc32(x, c)
    return c
held = ballast(int(sys.argv[1]))
before = crc(held)
me = os.getpid()
skip = set(os.environ.get("TEST_SKIP", "").split())
def cases(suite):
    for t in suite:
        if isinstance(t, unittest.TestSuite):
            yield from cases(t)
        elif not any(s in t.id() for s in skip):
            yield t
names = sys.argv[2:]
suite = unittest.TestSuite(cases(unittest.defaultTestLoader.loadTestsFromNames(names)))
result = unittest.TextTestRunner(verbosity=2, stream=sys.stderr).run(suite)
for what, t in [("failed", result.failures), ("error", result.errors)]:
    for case, _ in t:
        print(what, case.id() if hasattr(case, "id") else case)
print("ballast", "same" if crc(held) == before else "DIFFERENT", before)
print("tests", result.testsRun, "ok" if result.wasSuccessful() else "bad")
PY
selftest() {
	local name=$1
	shift
	half "$name" $PY -W ignore "$T/selftest.py" 64 "$@"
	check "$name.ballast" "the ballast is not what it was" grep -q '^ballast same' "$T/$name.tmem.out"
}
cd "$T" || exit 1
# Tests that say how long something took, or what the terminal is, are not ours.
export TEST_SKIP="test_terminal timeout Timeout"
if [ -n "$LONG" ]; then
	selftest subprocess test.test_subprocess
	selftest mmap test.test_mmap
	selftest gc test.test_gc
	selftest fork1 test.test_fork1 test.test_wait4 test.test_posix
	selftest thread test.test_threading test.test_thread
	# This one loads its cases through a helper that the loader understands by load_tests only.
	bare multiprocessing $PY -W ignore -m test -q test_multiprocessing_fork
	code=$CODE
	limited multiprocessing 134217728 $PY -W ignore -m test -q test_multiprocessing_fork
	check multiprocessing "exit code $CODE, bare $code" test "$CODE" = "$code"
else
	selftest subprocess test.test_subprocess.ProcessTestCase
	LIMIT_CHECK=check_over selftest memory test.test_mmap test.test_gc
	# A child writes reference counts all over what it shares with its parent: copies, as fast as the
	# machine makes them.
	LIMIT_CHECK=check_over selftest fork1 test.test_fork1
fi
finish
