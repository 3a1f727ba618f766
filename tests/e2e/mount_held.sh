#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# tmem mount: what who has a file open sees of it, for as long as nobody opens it again.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_mount
mounted() { "$TMEM" mount --size 32M "$@" "$S" "$M"; }
ended() { "$TMEM" umount "$M"; }
cat >"$T/lib.py" <<'PY'
import os, subprocess, sys, time
s, m, tmem = sys.argv[1:4]
def read(f, n=1 << 20):                             # past the kernel's own pages
    os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
    return os.pread(f, n, 0)
def figures():                                      # the mount's: a file's would open it
    text = subprocess.run([tmem, "stat", os.path.dirname(m)], stdout=subprocess.PIPE, check=True).stdout.decode()
    return {k: int(v) for k, v in (line.split() for line in text.splitlines())}
def within(seconds, what, why):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, why()
        time.sleep(0.05)                                # and is asked again
PY
held() { # NAME FILE: a program of its own, with lib.py before it
	local code
	cat "$T/lib.py" - >"$T/$1.py"
	timeout 60 python3 "$T/$1.py" "$S/$2" "$M/$2" "$TMEM" >"$T/out" 2>&1
	code=$?
	check "$1" "$(tail -n 1 "$T/out")" test "$code" = 0
}

# ---- a byte is written through the mount, and more of it behind its back
for how in "--ttl 1" "--no-watch"; do
	head -c 9192 /dev/zero | tr '\0' a >"$S/grown"
	sleep 0.1 # younger than the stamps' grain it would not be kept
	mounted $how
	held "written$(tr -d ' ' <<<"$how")" grown <<'PY'
for _ in range(2): assert open(m, "rb").read() == b"a" * 9192
a = os.open(m, os.O_RDONLY)
w = os.open(m, os.O_WRONLY)
assert read(a) == b"a" * 9192
os.pwrite(w, b"w", 0)
with open(s, "r+b") as f:
    f.seek(0, 2); f.write(b"b" * 1000)
    f.seek(5000); f.write(b"CCCC")
right = b"w" + b"a" * 4999 + b"CCCC" + b"a" * 4188 + b"b" * 1000
# Its attributes may be a second old, and with them the end and the pages that the kernel keeps.
within(10, lambda: os.fstat(a).st_size == 10192 and os.pread(a, 20000, 0) == right,
       lambda: f"fstat {os.fstat(a).st_size}, read {len(os.pread(a, 20000, 0))}, {os.pread(a, 4, 5000)}")
PY
	ended
done

# ---- it is to be forgotten, or was written: it is kept again, and changes are told
cat >"$T/before.py" <<'PY'
a = os.open(m, os.O_RDONLY)
assert read(a) == b"a" * 400000
before = figures()["hits"]; read(a); assert figures()["hits"] == before + 98
PY
cat >"$T/after.py" <<'PY'
def kept():
    before = figures(); read(a); now = figures()
    return now["hits"] == before["hits"] + 98 and now["misses"] == before["misses"]
within(5, kept, lambda: f"not kept: {figures()}")
for what in (b"CCCC", b"DDDD"):                     # of the same size, and only told
    f = os.open(s, os.O_WRONLY); os.pwrite(f, what, 200000); os.close(f)
    within(10, lambda: os.pread(a, 4, 200000) == what, lambda: f"{os.pread(a, 4, 200000)}, not {what}")
    time.sleep(0.1); os.pread(a, 1 << 20, 0)        # the stamps' grain: now it may be kept
within(5, kept, lambda: f"not kept after a change: {figures()}")
PY
after() { # NAME, and on stdin what happens to it
	head -c 400000 /dev/zero | tr '\0' a >"$S/$1"
	sleep 0.1 # as above
	mounted --ttl 600
	cat "$T/before.py" - "$T/after.py" | held "$1" "$1"
	ended
}
after invalidated <<'PY'
subprocess.run([tmem, "invalidate", m], check=True)
PY
after invalidated_for_writing <<'PY'
w = os.open(m, os.O_RDWR)
subprocess.run([tmem, "invalidate", m], check=True)
PY
after writer_closed <<'PY'
w = os.open(m, os.O_WRONLY); os.pwrite(w, b"a", 0); os.close(w)
PY
after cut_by_name <<'PY'
os.truncate(m, 390000); os.truncate(m, 400000)
PY
after told_at_once <<'PY'
subprocess.run([tmem, "invalidate", m], check=True)
f = os.open(s, os.O_WRONLY); os.pwrite(f, b"B", 0); os.close(f)
within(10, lambda: os.pread(a, 1, 0) == b"B", lambda: "what it was ten seconds ago")
PY

# ---- replaced as editors do it: who comes by its name is given the new one, long before --ttl ends
for how in over aside gone; do
	echo old >"$S/$how"
	sleep 0.1 # as above
	mounted --ttl 600
	held "replaced_$how" "$how" <<'PY'
how = os.path.basename(m)
cat = lambda: open(m).read()
assert cat() == cat() == "old\n"
a = os.open(m, os.O_RDONLY)
if how == "aside": os.rename(s, s + "~")
if how == "gone": os.unlink(s)
else:
    open(s + ".new", "w").write("new\n")
    os.rename(s + ".new", s)
if how == "gone": within(10, lambda: not os.path.exists(m), lambda: "it is still there")
else: within(10, lambda: cat() == "new\n", lambda: repr(cat()))
assert read(a) == b"old\n"                         # who has it open has that one
PY
	ended
done

# ---- written through a mapping that is not written back: no hole for who copies it
truncate -s 1M "$S/mapped"
truncate -s 1M "$S/hole"
sleep 0.1 # as above
mounted
held mapped mapped <<'PY'
import errno, mmap
SIZE = 1 << 20
for _ in range(3): open(m, "rb").read()
# It is there before the file is open: one made then closes what it inherits, and all is written back.
cp = subprocess.Popen(["sh", "-c", 'read go; exec cp "$0" "$0.copy"', m], stdin=subprocess.PIPE)
f = os.open(m, os.O_RDWR)
p = mmap.mmap(f, SIZE); os.close(f)
p[500000:500005] = b"HELLO"
cp.communicate(b"go\n"); assert cp.returncode == 0
got = open(s + ".copy", "rb").read()
assert got == bytes(500000) + b"HELLO" + bytes(SIZE - 500005), f"{len(got)} bytes, {got[500000:500005]}"
r = os.open(m, os.O_RDONLY)
def seek(at, whence):
    try: return os.lseek(r, at, whence)
    except OSError as e: return -e.errno
assert (seek(7, os.SEEK_DATA), seek(7, os.SEEK_HOLE)) == (7, SIZE)
assert (seek(SIZE, os.SEEK_DATA), seek(SIZE, os.SEEK_HOLE)) == (-errno.ENXIO, -errno.ENXIO)
p.close()                                           # the kernel says so a little later
within(10, lambda: seek(0, os.SEEK_DATA) > 0, lambda: "its holes are not found again")
assert 0 < seek(0, os.SEEK_DATA) <= 500000 < seek(500000, os.SEEK_HOLE) < SIZE
PY
held hole hole <<'PY'
f = os.open(m, os.O_RDONLY)
assert os.lseek(f, 0, os.SEEK_HOLE) == 0
try: at = os.lseek(f, 0, os.SEEK_DATA)
except OSError: at = None
assert at is None, at
PY
ended
finish
