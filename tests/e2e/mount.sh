#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# tmem mount: what is read through it is what is there; it is never above its size; what it is told
# and what becomes of it when it, or its source, dies. The long checks are tools/soak-mount.sh.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
FSX=$BUILD/tests/e2e/e2e-fsx
S=$T/source M=$T/mount
mkdir -p "$S" "$M"
OPERATIONS=${LONG:+2000000}
OPERATIONS=${OPERATIONS:-40000}

unmount_all() {
	local m
	for m in "$T"/mount* "$T"/small/one "$T"/small/two "$T"/small; do
		[ ! -d "$m" ] || umount -l "$m" 2>/dev/null
	done
	cleanup
}
trap unmount_all EXIT
trap 'unmount_all; exit 130' INT
trap 'unmount_all; exit 143' TERM HUP

if ! [ -w /dev/fuse ] || ! "$TMEM" --help | grep -qw mount; then
	skip mount "no /dev/fuse here, or built without libfuse"
	finish
fi
mounted() { "$TMEM" mount "$@" "$S" "$M"; }
ended() { "$TMEM" umount "$M"; }
figure() { "$TMEM" stat "${2:-$M}" | sed -n "s/^$1 //p"; }
forget() { # the kernel's own pages of a file
	python3 -c 'import os, sys
for p in sys.argv[1:]:
    f = os.open(p, os.O_RDONLY)
    os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)' "$@"
}

# ---- a tree, cold and warm
cp -r "$ROOT/src" "$ROOT/docs" "$S"
head -c 9000001 /dev/urandom >"$S/random"
seq 1 500000 >"$S/numbers"
truncate -s 1T "$S/sparse"
printf end | dd of="$S/sparse" bs=1 seek=$(((1 << 40) - 3)) conv=notrunc status=none
sleep 0.1 # so that time stamps are settled
check mount "tmem mount failed" mounted --size 48M
check tree "differs" diff -r "$S/src" "$M/src"
check large "differs" cmp "$S/random" "$M/random"
check sparse "the end of 1 TiB" test "$(tail -c 3 "$M/sparse")" = end
check sparse_hole "not zeros" cmp -n 1000000 -i $((1 << 39)) "$M/sparse" /dev/zero
cmp "$S/numbers" "$M/numbers"
before=$(figure source_reads)
forget "$M/random" "$M/numbers" "$M"/src/os/*.c
check warm "differs" cmp "$S/random" "$M/random"
check warm_lines "differs" cmp "$S/numbers" "$M/numbers"
check warm_tree "differs" diff -r "$S/src/os" "$M/src/os"
check warm_reads_nothing "the source was read $(($(figure source_reads) - before)) times" \
	test "$(figure source_reads)" = "$before"
check stat_file "no hits" test "$(figure hits "$M/random")" -ge 2197
check stat_json "not JSON" python3 -c 'import json, sys
assert json.load(sys.stdin)["command"] == "stat"' < <("$TMEM" stat -J "$M")
check control "$(cat "$M/.tmem/stats/size")" test "$(cat "$M/.tmem/stats/size")" = 50331648
check control_file "no hits" grep -q '^hits [1-9]' "$M/.tmem/files/random"
check control_list "$(ls "$M/.tmem" | tr '\n' ' ')" test "$(ls "$M/.tmem" | tr '\n' ' ')" = "files stats "
check control_files "not the source's" cmp -s <(cd "$S" && find . | sort) <(cd "$M/.tmem/files" && find . | sort)
check control_all "not as many figures" test "$(cat "$M"/.tmem/stats/* | wc -l)" = "$("$TMEM" stat "$M" | wc -l)"
check control_read_only "written to" bash -c "! echo 1 >'$M/.tmem/stats/size' || ! touch '$M/.tmem/new'" 2>/dev/null
check control_not_listed "listed" bash -c "! ls -a '$M' | grep -q tmem"
"$TMEM" invalidate "$M/random"
check invalidate "differs" cmp "$S/random" "$M/random"
check invalidate_reads "the source was not read" test "$(figure source_reads)" -gt "$before"

# ---- every operation
cat >"$T/operations.py" <<'PY'
import errno, fcntl, mmap, os, signal, stat, struct, sys, threading, time
s, m = sys.argv[1:3]
def both(name): return os.path.join(m, name), os.path.join(s, name)
os.mkdir(both("dir")[0], 0o750)
assert stat.S_IMODE(os.stat(both("dir")[1]).st_mode) == 0o750
f = os.open(both("dir/a")[0], os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
assert os.pwrite(f, b"x" * 5000, 3000) == 5000
assert open(both("dir/a")[1], "rb").read() == bytes(3000) + b"x" * 5000
try: os.open(both("dir/a")[0], os.O_RDWR | os.O_CREAT | os.O_EXCL); assert 0
except FileExistsError: pass
os.link(both("dir/a")[0], both("dir/b")[0]); assert os.stat(both("dir/b")[1]).st_nlink == 2
os.symlink("a", both("dir/l")[0]); assert os.readlink(both("dir/l")[0]) == "a"
assert open(both("dir/l")[0], "rb").read(3001)[-1:] == b"x"
os.rename(both("dir/b")[0], both("dir/c")[0]); assert sorted(os.listdir(both("dir")[0])) == ["a", "c", "l"]
os.mkfifo(both("dir/fifo")[0]); assert stat.S_ISFIFO(os.stat(both("dir/fifo")[1]).st_mode)
os.ftruncate(f, 100); assert os.fstat(f).st_size == 100 and os.stat(both("dir/c")[0]).st_size == 100
os.truncate(both("dir/a")[0], 20000)
os.utime(both("dir/a")[0], ns=(10**18, 2 * 10**18 + 5)); assert os.stat(both("dir/a")[1]).st_mtime_ns == 2 * 10**18 + 5
os.chmod(both("dir/a")[0], 0o604); assert stat.S_IMODE(os.fstat(f).st_mode) == 0o604
try:
    os.setxattr(both("dir/a")[1], "user.source", b"1")
    os.setxattr(both("dir/a")[0], "user.t", b"value"); assert os.getxattr(both("dir/a")[1], "user.t") == b"value"
    assert set(os.listxattr(both("dir/a")[0])) >= {"user.t", "user.source"}
    os.removexattr(both("dir/a")[0], "user.t")
    try: os.getxattr(both("dir/a")[0], "user.t"); assert 0
    except OSError as e: assert e.errno == errno.ENODATA
except OSError as e:
    assert e.errno == errno.ENOTSUP
p = mmap.mmap(f, 20000); p[10000:10003] = b"map"; p.flush()
assert open(both("dir/a")[1], "rb").read()[10000:10003] == b"map"
os.posix_fallocate(f, 0, 30000); assert os.fstat(f).st_size == 30000
assert os.lseek(f, 0, os.SEEK_DATA) >= 0 and os.lseek(f, 0, os.SEEK_HOLE) > 0
assert os.copy_file_range(f, f, 3, 10000, 25000) == 3; assert os.pread(f, 3, 25000) == b"map"
d = os.open(both("dir/a")[0], os.O_RDONLY | os.O_DIRECT)
b = mmap.mmap(-1, 4096); assert os.preadv(d, [b], 8192) == 4096 and b[1808:1811] == b"map"
g = os.open(both("dir/a")[1], os.O_RDWR)
def locked(call, *a):
    try: call(*a); return False
    except OSError as e: assert e.errno in (errno.EAGAIN, errno.EACCES), e; return True
fcntl.flock(f, fcntl.LOCK_EX); assert locked(fcntl.flock, g, fcntl.LOCK_EX | fcntl.LOCK_NB)
fcntl.flock(f, fcntl.LOCK_UN); assert not locked(fcntl.flock, g, fcntl.LOCK_EX | fcntl.LOCK_NB); fcntl.flock(g, fcntl.LOCK_UN)
fcntl.lockf(f, fcntl.LOCK_EX, 10, 5); assert locked(fcntl.lockf, g, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)
assert not locked(fcntl.lockf, g, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 20)
os.close(os.open(both("dir/a")[0], os.O_RDONLY))   # closing any descriptor gives all its locks up
assert not locked(fcntl.lockf, g, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)
fcntl.lockf(g, fcntl.LOCK_UN)
fcntl.lockf(g, fcntl.LOCK_EX, 1, 7)
pid = os.fork()
if pid == 0:                                        # waits for it, and lets others be served
    h = os.open(both("dir/a")[0], os.O_RDWR); fcntl.lockf(h, fcntl.LOCK_EX, 1, 7); os._exit(0)
assert os.pread(f, 3, 25000) == b"map"
fcntl.lockf(g, fcntl.LOCK_UN); assert os.waitpid(pid, 0)[1] == 0
fcntl.lockf(g, fcntl.LOCK_EX, 1, 7)
for call in (lambda h: fcntl.lockf(h, fcntl.LOCK_EX, 1, 7), lambda h: fcntl.flock(h, fcntl.LOCK_EX)):
    fcntl.flock(g, fcntl.LOCK_EX)
    pid = os.fork()
    if pid == 0:                                    # gives up waiting, and has nothing then
        signal.signal(signal.SIGALRM, lambda *a: os._exit(7)); signal.setitimer(signal.ITIMER_REAL, 0.3)
        call(os.open(both("dir/a")[0], os.O_RDWR)); os._exit(0)
    assert os.waitpid(pid, 0)[1] == 7 << 8
    fcntl.flock(g, fcntl.LOCK_UN)
fcntl.lockf(g, fcntl.LOCK_UN)
time.sleep(0.1)                                     # those who gave up, were they still tried every 50 ms, have it now
k = os.open(both("dir/a")[1], os.O_RDWR)
assert not locked(fcntl.flock, k, fcntl.LOCK_EX | fcntl.LOCK_NB) and not locked(fcntl.lockf, k, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)
os.close(k)
w = os.open(both("dir/a")[0], os.O_RDONLY); fcntl.lockf(w, fcntl.LOCK_SH, 1, 7)
h = os.open(both("dir/a")[0], os.O_RDWR); fcntl.lockf(h, fcntl.LOCK_EX, 1, 7)  # the same owner, by a better handle
k = os.open(both("dir/a")[1], os.O_RDWR)
assert locked(fcntl.lockf, k, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)
os.close(w); os.close(h)
assert not locked(fcntl.lockf, k, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7); fcntl.lockf(k, fcntl.LOCK_UN)
h = os.open(both("dir/a")[0], os.O_RDWR)            # a lock of an open file goes with that
fcntl.fcntl(h, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 7, 1, 0))
assert locked(fcntl.lockf, k, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)
os.close(h)
for _ in range(50):                                 # the kernel releases it a little later
    if not locked(fcntl.lockf, k, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7): break
    time.sleep(0.1)
else: assert 0, "a lock that nobody has"
fcntl.lockf(k, fcntl.LOCK_EX, 1, 7)                 # who waits has not got it yet: a close does not give it up
f2 = os.open(both("dir/a")[0], os.O_RDWR)
t = threading.Thread(target=lambda: fcntl.lockf(f2, fcntl.LOCK_EX, 1, 7)); t.start(); time.sleep(0.3)
os.close(os.open(both("dir/a")[0], os.O_RDONLY))
fcntl.lockf(k, fcntl.LOCK_UN); t.join()
assert locked(fcntl.lockf, k, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)
os.close(f2)
assert not locked(fcntl.lockf, k, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)
os.close(k)
a = os.open(both("dir/append")[0], os.O_RDWR | os.O_CREAT | os.O_APPEND)
os.write(a, b"a" * 5000); os.write(a, b"b" * 5000)
p = mmap.mmap(a, 10000); p[3:6] = b"map"; p.flush(); p.close()
assert open(both("dir/append")[1], "rb").read() == b"aaamap" + b"a" * 4994 + b"b" * 5000
with open(both("dir/append")[1], "ab") as o: o.write(b"other")
os.write(a, b"c" * 10)                              # behind what the source has by now
assert open(both("dir/append")[1], "rb").read()[10000:] == b"other" + b"c" * 10
for _ in range(100):                                # the kernel is told of other's by another thread
    if os.pread(a, 20, 10000) == b"other" + b"c" * 10: break
    time.sleep(0.05)
else: assert 0, "the kernel keeps what it had"
fcntl.fcntl(a, fcntl.F_SETFL, 0); os.pwrite(a, b"0", 0)
assert open(both("dir/append")[1], "rb").read() == b"0aamap" + b"a" * 4994 + b"b" * 5000 + b"other" + b"c" * 10
b = os.open(both("dir/append")[0], os.O_WRONLY); fcntl.fcntl(b, fcntl.F_SETFL, os.O_APPEND); os.write(b, b"end")
assert open(both("dir/append")[1], "rb").read()[10015:] == b"end"
os.close(a); os.close(b); os.unlink(both("dir/append")[0])
v = os.statvfs(m); assert v.f_blocks == os.statvfs(s).f_blocks
os.fsync(f); os.fdatasync(f); os.fsync(os.open(both("dir")[0], os.O_RDONLY))
os.unlink(both("dir/c")[0]); assert os.pread(f, 3, 25000) == b"map"
try: os.rmdir(both("dir")[0]); assert 0
except OSError as e: assert e.errno == errno.ENOTEMPTY
for n in ("a", "l", "fifo"): os.unlink(both("dir/" + n)[0])
assert os.pread(f, 3, 25000) == b"map"              # open, and without a name
os.rmdir(both("dir")[0]); assert not os.path.exists(both("dir")[1])
try: os.stat(both("dir")[0]); assert 0
except FileNotFoundError: pass
PY
check operations "$(python3 "$T/operations.py" "$S" "$M" 2>&1 | tail -n 2 | tr '\n' ' ')" \
	test ! -e "$S/dir"
for i in 1 2 3 4 5 6; do # of one length, in quick succession
	echo "$i" >"$S/line"
	cat "$M/line"
done >"$T/lines"
check changed_seen "$(tr '\n' ' ' <"$T/lines")" cmp -s <(seq 6) "$T/lines"
check busy "unmounted under a user" bash -c "cd '$M' && ! '$TMEM' umount '$M' 2>'$T/busy' && grep -q 'in use' '$T/busy'"
check umount "tmem umount failed" ended

# ---- its size
head -c 120000000 /dev/urandom >"$S/big"
mounted --size 32M
pid=$(figure pid)
cat "$M/big" >/dev/null
for _ in 1 2 3; do
	forget "$M/big"
	cmp "$S/big" "$M/big" || not_ok size_reads "differs"
done
mkdir "$S/many"
(cd "$S/many" && seq 1 20000 | xargs touch)
check many "not all are found" test "$(find "$M/many" -type f -size 0 | wc -l)" = 20000
note "nodes at most $(figure nodes_max)"
sum=$(($(figure fixed) + $(figure nodes_bytes) + $(figure store_limit)))
check size_lent "$sum of $(figure size): what names take is not taken from the store" \
	test "$sum" -le "$(figure size)" -a "$(figure nodes_bytes)" -gt 1000000
check_peak size "$pid" 32768
check size_evicts "nothing was evicted" test "$(figure evicted)" -gt 10000
ended
rm -rf "$S/many" "$S/big"

# ---- changes by others, by ourselves, all at once
fsx() { # NAME OPTIONS... -- ARGUMENTS of e2e-fsx...
	local name=$1 options=()
	shift
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	rm -rf "${S:?}"/*
	mounted "${options[@]}" || return
	"$FSX" "$M" "$S" "$OPERATIONS" "$@" 2>&1 | tee -a "$T/fsx"
	check "$name" "$(tail -n 1 "$T/fsx")" test "${PIPESTATUS[0]}" = 0
	ended
}
SEED=${TMEM_SEED:-$(date +%s)}
fsx fsx --size 32M -- "$SEED" 4
fsx fsx_unwatched --size 32M --no-watch --cluster 16 --codec zstd -- "$SEED" 8
fsx fsx_ttl --size 32M --ttl 1 -- "$SEED" 4 1100
printf '#!/bin/sh\nkill -9 "$(%q stat %q | sed -n "s/^pid //p")"; sleep 0.1\nexec %q mount --size 32M %q %q\n' \
	"$TMEM" "$M" "$TMEM" "$S" "$M" >"$T/kill"
chmod +x "$T/kill"
fsx fsx_killed --size 32M -- "$SEED" 4 0 "$T/kill"
rm -rf "${S:?}"/*

# What is held open is looked at nowhere but in the kernel: that a file has changed it must be told.
mounted --size 32M --ttl 60
printf one >"$S/held"
sleep 0.1
timeout 60 python3 - "$S/held" "$M/held" >"$T/held" 2>&1 <<'PY'
import os, sys, time
f = os.open(sys.argv[2], os.O_RDONLY)
assert os.pread(f, 9, 0) == b"one"
with open(sys.argv[1], "r+") as s:
    s.write("two")
end = time.monotonic() + 20
while os.pread(f, 9, 0) != b"two":
    assert time.monotonic() < end, "what it was twenty seconds ago"
    time.sleep(0.05)
PY
code=$?
check held "$(tail -n 1 "$T/held")" test "$code" = 0
ended

# Who has a lock sees what others have written under it.
cat >"$T/locked.py" <<'PY'
import fcntl, os, sys, threading
s, m = sys.argv[1:3]
open(s, "w").write("%08d" % 0 * 2000)
g, f = os.open(s, os.O_RDWR), os.open(m, os.O_RDWR)
def write(i, length):
    os.pwrite(g, b"%08d" % i * length, 0); os.ftruncate(g, 8 * length)
old = 0
for i in range(200):
    take = (lambda d: fcntl.flock(d, fcntl.LOCK_EX), lambda d: fcntl.lockf(d, fcntl.LOCK_SH if d == f else fcntl.LOCK_EX))[i & 1]
    give = (lambda d: fcntl.flock(d, fcntl.LOCK_UN), lambda d: fcntl.lockf(d, fcntl.LOCK_UN))[i & 1]
    length = 2000 + i // 3 % 5
    take(g)
    if i % 4 > 1:                                   # it waits for the lock
        t = threading.Thread(target=take, args=(f,)); t.start()
    write(i, length); give(g)
    if i % 4 > 1: t.join()
    else: take(f)
    old += os.pread(f, 99999, 0) != b"%08d" % i * length
    give(f)
print(old, "old")
PY
for how in "" --no-watch "--no-watch --ttl 60" "--no-watch --threads 1"; do
	mounted --size 32M $how
	timeout 60 python3 "$T/locked.py" "$S/locked" "$M/locked" >"$T/out" 2>&1
	check "locked$(tr -d ' ' <<<"$how")" "$(tail -n 1 "$T/out") of 200" grep -qx "0 old" "$T/out"
	ended
done

# A file that grows while others ask for its attributes: what they were told late is not its size.
mounted --size 32M --no-watch
timeout 120 python3 - "$S/grown" "$M/grown" >"$T/grown" 2>&1 <<'PY'
import os, sys, threading
s, m = sys.argv[1:3]
def ask():
    while True: os.path.exists(m)
threading.Thread(target=ask, daemon=True).start()
for i in range(600):
    data = bytes([i & 255]) * (40960 + i % 7 * 4096 + i % 5)
    with open(s, "wb") as f: f.write(data)          # empty for a moment
    with open(m, "rb", 0) as f: got = f.read(200000)
    assert got == data, f"round {i}: {len(got)} bytes of {len(data)}"
print("right")
PY
check grown "$(tail -n 1 "$T/grown")" grep -qx right "$T/grown"
ended
rm "$S/grown"

# A name that the kernel takes to be free is made, and is by then another one of a file that is kept.
head -c 40960 /dev/zero | tr '\0' x >"$S/first"
sleep 0.1
mounted --size 32M --ttl 60
python3 - "$S" "$M" >"$T/made" 2>&1 <<'PY'
import os, sys
s, m = sys.argv[1:3]
assert open(m + "/first", "rb").read() == b"x" * 40960
f = os.open(m + "/first", os.O_RDWR); os.pwrite(f, b"y", 0); os.close(f)
assert not os.path.exists(m + "/second")
os.link(s + "/first", s + "/second")
f = os.open(m + "/second", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
os.pwrite(f, b"e", 30000)
os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
assert os.pread(f, 30001, 0) == bytes(30000) + b"e"
for kind in ("file", "link", "fifo", "folder"):       # free, as far as the kernel knows
    assert not os.path.exists(m + "/" + kind)
open(s + "/file", "w").write("his")
os.symlink("/dev/null", s + "/link"); os.mkfifo(s + "/fifo"); os.mkdir(s + "/folder")
try: os.open(m + "/file", os.O_WRONLY | os.O_CREAT | os.O_EXCL); assert 0
except FileExistsError: pass
f = os.open(m + "/link", os.O_WRONLY | os.O_CREAT | os.O_TRUNC); os.write(f, b"x"); os.close(f)
assert os.readlink(s + "/link") == "/dev/null" and os.path.exists("/dev/null")
try: os.open(m + "/fifo", os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK); assert 0
except OSError as e: assert e.errno == 6, e         # ENXIO: nobody reads it
try: os.open(m + "/folder", os.O_WRONLY | os.O_CREAT); assert 0
except IsADirectoryError: pass
assert open(m + "/file").read() == "his"
print("right")
PY
check made_over "$(tail -n 1 "$T/made")" grep -qx right "$T/made"
# Folders that change places behind its back are no ring, which would be walked for ever.
mkdir -p "$S/one/two"
ls "$M/one/two"
mv "$S/one/two" "$S/two"
mv "$S/one" "$S/two/one"
stat "$M/two" "$M/two/one" >/dev/null 2>&1
mv "$M/two/one" "$M/two/renamed"
echo x >"$S/two/renamed/file"
cat "$M/two/renamed/file" >/dev/null
check no_ring "tmem invalidate does not return" timeout 20 "$TMEM" invalidate "$M"
kill -USR1 "$(figure pid)" # is nothing to it

# That a name is free is believed, too, until it is told of that name, or of one above it.
check free "found" bash -c "! test -e '$M/free' && ! test -e '$M/free-above/within'"
mkdir "$S/free-above"
echo made | tee "$S/free" >"$S/free-above/within"
check free_believed "looked up again" test ! -e "$M/free"
timeout 20 "$TMEM" invalidate "$M/free" "$M/free-above/within" 2>"$T/err"
check free_told "$(cat "$T/err" "$M/free" "$M/free-above/within" 2>&1 | tr '\n' ' ')" test "$(cat "$M/free" "$M/free-above/within")" = "$(printf 'made\nmade')"
"$TMEM" invalidate "$M/nobody" 2>"$T/err"
check free_still "$(cat "$T/err")" grep -q 'nobody: No such file' "$T/err"
check figures_xattr "not none" python3 -c 'import os, sys; assert os.listxattr(sys.argv[1]) == []' "$M/.tmem/stats/pid"

# What is believed for ever, until it is told: names, too, whether what they name was open or not.
ended
mkdir -p "$S/told/on" "$S/told/folder"
for i in first told/second told/unread told/folder/third; do echo old >"$S/$i"; done
ln -s old "$S/told/link"
# Without -r the kernel asks for attributes again when it has read.
echo one >"$S/once"
sleep 0.1
mounted --size 32M --immutable --no-watch -r
cat "$M/once" >"$T/once"
echo other >"$S/once"
cat "$M/once" >>"$T/once"
check immutable_once "$(tr '\n' ' ' <"$T/once")" test "$(tr '\n' ' ' <"$T/once")" = "one one "
ended
look() { # what is where, in one line
	{ cat "$1/first" "$1/told/second" "$1/told/folder/third" && readlink "$1/told/link" && stat -c %a "$1/told/unread" && ls "$1/told"; } 2>&1 | tr '\n' ' '
}
sleep 0.1
mounted --size 32M --immutable
before=$(look "$M")
mount -t tmpfs tmem-e2e "$M/told/on" 2>/dev/null && on=1
replace() { echo new >"$S/new" && mv "$S/new" "$S/$1"; }
replace first
replace told/second
cp -r "$S/told/folder" "$S/told/new" && echo new >"$S/told/new/third" && mv "$S/told/folder" "$S/told/was" && mv "$S/told/new" "$S/told/folder"
ln -sf new "$S/told/link"
chmod 600 "$S/told/unread"
check told_not "looked up again" test "$(cat "$M/first" "$M/told/second" | sort -u)" = old
timeout 20 "$TMEM" invalidate "$M/first" "$M/told"
check told "$(look "$M")" test "$(look "$M")" = "$(look "$S")" -a "$(look "$S")" != "$before"
[ -z "$on" ] || check told_mounted_on "what was mounted in it has gone" umount "$M/told/on"
rm -r "$S/told" "$S/first"
ended
mounted --size 32M --ttl 60

# It is looked at while it dies.
pid=$(figure pid)
kill -STOP "$pid"
while grep -L '^State:[^A-Za-z]*T' /proc/"$pid"/task/*/status | grep -q .; do sleep 0.02; done # one by one
(sleep 0.3 && kill -KILL "$pid") & # the next one asks what is there meanwhile
check dying "tmem mount failed" mounted
wait "$!"
check dying_again "differs" cmp "$S/two/renamed/file" "$M/two/renamed/file"
ended

# A source whose stamps are whole seconds: what changes within one can be told by nothing but care.
mkdir "$T/small"
truncate -s 300M "$T/image"
if mkfs.ext4 -q -F -I 128 "$T/image" 2>/dev/null && mount -o loop "$T/image" "$T/small" 2>/dev/null; then
	SOURCE=$S S=$T/small
	fsx fsx_seconds --size 32M --no-watch -- "$SEED" 8
	# What was read while the stamp could not tell is served for a --ttl, and no longer.
	check ttl_up "tmem mount failed" mounted --size 32M --no-watch --ttl 1
	while [ "$(date +%N | cut -c 1)" != 0 ]; do sleep 0.02; done # a second has begun
	echo old >"$S/trap"
	cat "$M/trap" >/dev/null
	echo new >"$S/trap"
	for _ in 1 2 3 4; do
		sleep 0.7
		cat "$M/trap" >"$T/trap"
	done
	check ttl_ends "$(cat "$T/trap")" grep -qx new "$T/trap"
	# And so is what was listed.
	while [ "$(date +%N | cut -c 1)" != 0 ]; do sleep 0.02; done
	mkdir "$S/listed"
	touch "$S/listed/one"
	ls "$M/listed" >/dev/null
	ls "$M/listed" >/dev/null
	touch "$S/listed/two"
	for _ in 1 2 3 4 5 6; do
		sleep 0.7
		ls "$M/listed" >"$T/trap"
	done
	check ttl_listed "$(tr '\n' ' ' <"$T/trap")" cmp -s <(ls "$S/listed") "$T/trap"
	ended
	# Two file systems within it, whose files have the same numbers.
	mkdir "$S/one" "$S/two"
	truncate -s 20M "$T/one"
	if mkfs.ext4 -q -F "$T/one" && mount -o loop "$T/one" "$S/one"; then
		mkdir "$S/one/links"
		for i in {1..20}; do
			echo "one $i" >"$S/one/links/$i"
			ln "$S/one/links/$i" "$S/one/links/also-$i"
		done
		umount "$S/one"
		cp "$T/one" "$T/two"
		mount -o loop "$T/one" "$S/one" && mount -o loop "$T/two" "$S/two"
		for i in {1..20}; do echo "two $i" >"$S/two/links/$i"; done
		mounted --size 32M
		check inner_twice "no two files have one number: a test of nothing" \
			test -n "$(cd "$S" && find one/links two/links -name '[0-9]*' -printf '%i\n' | sort | uniq -d)"
		check inner_find "$(find "$M" | wc -l) of $(find "$S" | wc -l)" test "$(find "$M" | wc -l)" = "$(find "$S" | wc -l)"
		mkdir "$T/copy"
		check inner_copy "tar failed" bash -c "tar -C '$M' -cf - one/links two/links | tar -C '$T/copy' -xf -"
		check inner_same "differs" bash -c "diff -r '$S/one/links' '$T/copy/one/links' && diff -r '$S/two/links' '$T/copy/two/links'"
		rm -rf "$T/copy"
		ended
		umount -l "$S/one" "$S/two"
	else
		skip inner "no second ext4 image may be mounted here"
	fi
	# A source that is put back to what it was: what was read in between is of neither.
	rm -rf "$S/trap" "$S/one" "$S/two"
	head -c 40960 /dev/zero | tr '\0' a >"$S/back"
	sync -f "$S"
	sleep 2.1 # more than a grain of its time stamps, so that it is believed
	mounted --size 32M --save "$T/saved"
	cmp -s "$S/back" "$M/back"
	ended
	umount "$S"
	cp --sparse=always "$T/image" "$T/one"
	mount -o loop "$T/image" "$S"
	mounted --size 32M --save "$T/saved"
	head -c 40960 /dev/zero | tr '\0' b | dd of="$M/back" conv=notrunc status=none
	sleep 2.1 # likewise
	cmp -s "$S/back" "$M/back"
	printf x | dd of="$M/back" conv=notrunc status=none
	ended
	umount "$S"
	mount -o loop "$T/one" "$S"
	mounted --size 32M --save "$T/saved"
	check put_back "$(head -c 20480 "$M/back" | tail -c 3), not aaa" cmp -s "$S/back" "$M/back"
	ended
	rm "$T/saved"
	S=$SOURCE
	umount -l "$T/small"
else
	skip fsx_seconds "no ext4 image may be mounted here"
fi
rm -rf "$T/image" "$T/one" "$T/two" "$T/small"

# ---- what streams by leaves alone what takes a request for each page
mkdir "$S/few"
for i in {1..200}; do head -c 6000 /dev/urandom >"$S/few/$i"; done
head -c 100000000 /dev/urandom >"$S/stream"
sleep 0.1
mounted --size 40M
cat "$M/stream" "$M"/few/* >/dev/null
for i in 1 2; do
	forget "$M/stream" "$M"/few/*
	cat "$M/stream" >/dev/null
done
before=$(figure source_reads)
check costly "differs" diff -r "$S/few" "$M/few"
before=$(($(figure source_reads) - before))
check costly_stays "of 200 files $before were read again" test "$before" -lt 20
ended
# So does what comes in pieces, since some of it is there already.
mounted --size 40M
python3 - "$M/stream" <<'PY'
import os, sys
f = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(f, 0, 0, os.POSIX_FADV_RANDOM)
for page in range(0, 100000000 // 4096, 15): os.pread(f, 4096, page * 4096)
PY
cat "$M"/few/* >/dev/null
for i in 1 2; do
	forget "$M/stream" "$M"/few/*
	cat "$M/stream" >/dev/null
done
before=$(figure source_reads)
check pieces "differs" diff -r "$S/few" "$M/few"
before=$(($(figure source_reads) - before))
check costly_stays_pieces "of 200 files $before were read again" test "$before" -lt 20
ended
rm -r "$S/few" "$S/stream"

# ---- what is costly is denser, where there is room for what that needs
cp -r "$ROOT/src" "$S/text"
sleep 0.1 # so that time stamps are settled
bytes=()
for codec in "" lz4; do
	mounted --size 160M ${codec:+--codec "$codec"}
	check "denser_right.${codec:-default}" "differs" diff -r "$S/text" "$M/text"
	forget "$M"/text/*/*.c
	check "denser_kept.${codec:-default}" "differs" diff -r "$S/text" "$M/text"
	bytes+=("$(figure compressed_bytes)")
	ended
done
check denser "${bytes[0]} bytes, ${bytes[1]} with lz4" test "$((bytes[0] * 10))" -lt "$((bytes[1] * 9))"
rm -r "$S/text"

# ---- warm restart
head -c 5000000 /dev/urandom >"$S/a"
head -c 5000000 /dev/urandom >"$S/b"
head -c 5000 /dev/urandom >"$S/c"
sleep 0.1
mounted --size 32M --save "$T/saved"
cat "$M/a" "$M/b" "$M/c" >/dev/null
ended
check saved "no file" test -s "$T/saved"
echo changed >>"$S/b"
mounted --size 32M --save "$T/saved"
check restored "differs" cmp "$S/a" "$M/a"
check restored_small "differs" cmp "$S/c" "$M/c"
check restored_reads_nothing "the source was read" test "$(figure source_reads)" = 0
check restored_changed "an old file" cmp "$S/b" "$M/b"
"$TMEM" invalidate "$M"
check dropped "the source was not read" bash -c "cmp '$S/a' '$M/a' && ! '$TMEM' stat '$M' | grep -qx 'source_reads 0'"
ended
mounted --size 32M --save "$T/saved"
"$TMEM" invalidate "$M"
before=$(figure source_bytes) # of a file that the kernel does not know yet
check dropped_unknown "the source was not read" test "$(cmp "$S/a" "$M/a" && figure source_bytes)" -gt "$before"
mkdir "$S/from" "$S/to"
cp "$S/a" "$S/from/moved"
cat "$M/from/moved" >/dev/null
mv "$S/from/moved" "$S/to/moved"
stat "$M/to/moved" >/dev/null
before=$(figure invalidations)
"$TMEM" invalidate "$M/to"
check dropped_moved "$(figure invalidations) - $before" test "$(figure invalidations)" -gt "$before"
rm -r "$S/from" "$S/to"
kill -TERM "$(figure pid)"
for _ in {1..50}; do
	mountpoint -q "$M" || break
	sleep 0.1
done
check sigterm "still mounted" test ! -e "$M/a"
sleep 0.3
python3 - "$T/saved" <<'PY'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(3000000); c = f.read(1); f.seek(3000000); f.write(bytes([c[0] ^ 1]))
PY
mounted --size 32M --save "$T/saved" 2>"$T/err"
check damaged_word "nothing was said" grep -q "not used" "$T/err"
check damaged_ignored "differs" cmp "$S/a" "$M/a"
check damaged_empty "the source was not read" test "$(figure source_reads)" -gt 0
ended
chmod 622 "$T/saved"
mounted --size 32M --save "$T/saved" 2>"$T/err"
check others_word "nothing was said" grep -q "others may write" "$T/err"
cmp "$S/a" "$M/a"
check others_ignored "the source was not read" test "$(figure source_reads)" -gt 0
ended
check others_replaced "$(stat -c %a "$T/saved")" test "$(stat -c %a "$T/saved")" = 600
echo "a year's work" >"$T/precious"
check slip "mounted" bash -c "! '$TMEM' mount --size 32M --save '$T/precious' '$S' '$M' 2>'$T/err' && ! mountpoint -q '$M'"
check slip_word "$(cat "$T/err")" grep -q "precious would be overwritten" "$T/err"
check slip_kept "$(cat "$T/precious")" test "$(cat "$T/precious")" = "a year's work"

# ---- what cannot be saved is said: before, where it is known, and else by who waits for it
no_save() { # NAME WORD FILE
	"$TMEM" mount --size 32M --save "$3" "$S" "$M" 2>"$T/err"
	code=$?
	check "$1" "$(cat "$T/err")" test "$code" = 1 -a "$(grep -c "^tmem mount: --save: .*$2" "$T/err")" = 1
	mountpoint -q "$M" && not_ok "$1.mounted" "mounted" && ended
}
no_save save_nowhere "No such file" /no/such/saved
no_save save_in_itself "in the mount itself" "$M/saved"
no_save save_folder "not a file" "$S"
mkdir "$T/small"
if mount -t tmpfs -o size=64k tmem-e2e "$T/small" 2>/dev/null; then
	mounted --size 32M --save "$T/small/saved"
	cat "$M/a" >/dev/null
	ended 2>"$T/err"
	code=$?
	check save_full "$(cat "$T/err")" test "$code" = 1 -a "$(grep -c "small/saved was not saved" "$T/err")" = 1
	check save_full_ended "still mounted" test ! -e "$M/a"
	"$TMEM" mount -f --size 32M --save "$T/small/saved" "$S" "$M" 2>"$T/err" &
	pid=$!
	for _ in {1..100}; do
		mountpoint -q "$M" && break
		sleep 0.1
	done
	cat "$M/a" >/dev/null
	kill -TERM "$pid"
	wait "$pid"
	code=$?
	check save_full_foreground "$(cat "$T/err")" test "$code" = 1 -a "$(grep -c "nothing is saved" "$T/err")" = 1
	umount -l "$T/small"
else
	skip save_full "no tmpfs may be mounted here"
fi
rmdir "$T/small"
mounted --size 32M --save "$T/saved"
check save_again "$(ended 2>&1)" test ! -e "$M/a"

# ---- told to end while the kernel has what was written through a mapping
mounted --size 32M
timeout 60 python3 - "$S/mapped" "$M/mapped" "$(figure pid)" >"$T/out" 2>&1 <<'PY'
import mmap, os, signal, sys, time
s, m, pid = sys.argv[1], sys.argv[2], int(sys.argv[3])
n = 32 << 20
f = os.open(m, os.O_RDWR | os.O_CREAT)
os.ftruncate(f, n)
p = mmap.mmap(f, n)
os.close(f)
p[:] = b"x" * n
os.kill(pid, signal.SIGTERM)
end = time.monotonic() + 30
while os.path.exists(f"/proc/{pid}"):
    assert time.monotonic() < end, "it does not end"
    time.sleep(0.05)                                # looked at again until then
lost = n - open(s, "rb").read().count(b"x")
assert not lost, f"{lost} bytes of {n} are lost"
print("right")
PY
check sigterm_mapped "$(tail -n 1 "$T/out")" grep -qx right "$T/out"
umount -l "$M" 2>/dev/null
rm "$S/mapped"

# ---- the benchmark of it
mkdir "$S/big" "$S/small" "$S/kept"
cp "$S/a" "$S/b" "$S/big"
cp "$S/a" "$S/kept/1"
cp "$S/a" "$S/kept/2"
cp -r "$ROOT/src/os" "$S/small"
if [ "$(id -u)" = 0 ]; then
	"$TMEM" bench mount -J --no-rclone --limit 64M --size 32M --reads 200 "$S" >"$T/bench" 2>"$T/err"
	check bench "$(tail -n 1 "$T/err")" python3 - "$T/bench" <<'PY'
import json, sys
b = json.load(open(sys.argv[1]))
c = {(x["work"], x["pass"]): x for x in b["tmem"]["cells"]}
assert c["in order", "cold"]["bytes"] == b["bare"]["cells"][0]["bytes"] > 10000000, b
assert c["at random", "again"]["operations"] == 200 and c["small files", "warm"]["operations"] > 10, b
assert c["kept, random", "cold"]["operations"] and c["kept, order", "warm"]["bytes"] == c["kept, order", "cold"]["bytes"] > 1000000, b
PY
	check bench_leaves_nothing "$(mount | grep tmem-mount)" bash -c "! mount | grep -q tmem-mount"
else
	skip bench "not root"
fi

# ---- in the middle of what it shows
mkdir -p "$S/inside"
if "$TMEM" mount --size 32M "$S" "$S/inside"; then
	check inside "not all of it" cmp "$S/a" "$S/inside/a"
	check inside_itself "it asks itself" bash -c "! timeout 20 ls '$S/inside/inside' 2>'$T/err' && grep -q 'Too many levels' '$T/err'"
	"$TMEM" umount "$S/inside"
else
	not_ok inside "cannot be mounted"
fi
# By one thread, which would wait for itself; who asked could not even be killed.
"$TMEM" mount -f --size 64M --threads 1 "$S" "$S/inside" &
pid=$!
for _ in {1..100}; do
	mountpoint -q "$S/inside" && break
	sleep 0.1
done
(
	ls "$S/inside/inside"
	ls -l "$S/inside"
	rm -d "$S/inside/inside"
	touch "$S/inside/made"
) >/dev/null 2>&1 &
for _ in {1..200}; do
	kill -0 $! 2>/dev/null || break
	sleep 0.1
done
check inside_alone "it waits for itself" test -e "$S/made"
kill -KILL "$pid"
wait
umount -l "$S/inside"

# ---- a source that mounts by itself what is used
cat >"$T/automount.sh" <<'SH'
mount -t debugfs none "$1" && [ -d "$1/tracing" ] || exit 2
ls "$1/tracing/" | grep -q . || exit 2
for how in "ls $2/tracing" "stat $2/tracing/README"; do
	umount "$1/tracing" && "$3" mount --size 32M "$1" "$2" && ! mountpoint -q "$1/tracing" || exit 2
	timeout 20 $how && mountpoint -q "$1/tracing" || exit 1
	"$3" umount "$2" || exit 1
done
SH
unshare -m bash "$T/automount.sh" "$S" "$M" "$TMEM" >"$T/out" 2>"$T/err"
code=$?
if [ "$code" = 2 ]; then
	skip automount "no debugfs with tracefs in it may be mounted here"
else
	check automount "$(tail -n 1 "$T/err")" test "$code" = 0 -a "$(grep -c README "$T/out")" -gt 1
fi

# ---- a source that fails
mkdir "$T/small"
if mount -t tmpfs -o size=1M tmem-e2e "$T/small" 2>/dev/null; then
	S=$T/small mounted --size 32M
	check full "no error" bash -c "! head -c 3000000 /dev/zero >'$M/fill' 2>'$T/err'"
	check full_says "$(cat "$T/err")" grep -q "No space" "$T/err"
	check full_reads "differs" cmp "$T/small/fill" "$M/fill"
	rm "$M/fill"
	for i in {1..200}; do # its room is free when the kernel has forgotten it
		[ "$(stat -f -c %f "$T/small")" = "$(stat -f -c %b "$T/small")" ] && break
		sleep 0.05
	done
	head -c $((960 << 10)) /dev/zero >"$T/small/fill" # 64 KiB are left
	truncate -s 128K "$T/small/mapped"
	check full_mapped "what was lost was not told" python3 - "$M/mapped" <<'PY'
import errno, mmap, os, sys
f = os.open(sys.argv[1], os.O_RDWR)
p = mmap.mmap(f, 131072)
p[:] = b"x" * 131072
try: p.flush(); sys.exit(1)
except OSError as e: assert e.errno in (errno.ENOSPC, errno.EIO), e
PY
	umount -l "$T/small"
	check gone_reads "what was open is not readable" test -r "$M"
	ended
else
	skip full "no tmpfs may be mounted here"
fi

# ---- other users
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	chmod 755 "$T"
	chmod 777 "$S"
	mounted --size 32M --allow-other
	other() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
	other sh -c "umask 027; echo his >'$M/his'"
	# With it what users write would go beyond their quotas.
	may_exceed() { [ $((0x$(sed -n 's/^CapEff:[^0-9a-f]*//p' "$1") >> 24 & 1)) = 1 ]; }
	if may_exceed /proc/self/status; then
		for i in /proc/"$(figure pid)"/task/*/status; do
			! may_exceed "$i" || echo "$i"
		done >"$T/exceed"
		check quotas "$(wc -l <"$T/exceed") threads with CAP_SYS_RESOURCE" test ! -s "$T/exceed"
	else
		skip quotas "root has no CAP_SYS_RESOURCE here"
	fi
	check owner "$(stat -c '%u %g %a' "$S/his")" test "$(stat -c '%u %g %a' "$S/his")" = "65534 65534 640"
	echo one >"$S/log"
	if chattr +a "$S/log" 2>/dev/null; then
		echo two >>"$M/log"
		check append_only "$(tr '\n' ' ' <"$S/log")" test "$(cat "$S/log")" = "$(printf 'one\ntwo')"
		chattr -a "$S/log"
	fi
	echo secret >"$S/secret"
	chmod 600 "$S/secret"
	check not_his "read another's file" bash -c "! setpriv --reuid 65534 --regid 65534 --clear-groups cat '$M/secret' 2>/dev/null"
	check not_his_names "listed" bash -c "mkdir -m 700 '$S/private'; touch '$S/private/secret'; \
		! setpriv --reuid 65534 --clear-groups ls '$M/.tmem/files/private' 2>/dev/null"
	check not_his_figures "shown" bash -c "! setpriv --reuid 65534 --clear-groups '$TMEM' stat '$M' 2>'$T/err' && grep -q 'only for root' '$T/err' && \
		! setpriv --reuid 65534 --clear-groups '$TMEM' stat '$M/his' 2>/dev/null"
	check not_his_mount "$(cat "$T/err")" bash -c "! setpriv --reuid 65534 --clear-groups '$TMEM' umount '$M' 2>'$T/err' && \
		grep -q 'another user has made it' '$T/err'"
	check not_his_to_drop "may drop all" bash -c "! setpriv --reuid 65534 --clear-groups '$TMEM' invalidate '$M' 2>/dev/null"
	cp /bin/true "$S/setuid" && chown root:65534 "$S/setuid"
	for how in direct trunc; do
		chmod 6775 "$S/setuid"
		if [ $how = direct ]; then
			other dd if=/dev/zero of="$M/setuid" bs=4096 count=1 conv=notrunc oflag=direct status=none
		else
			other sh -c ": >'$M/setuid'"
		fi
		check "setuid_$how" "$(stat -c %a "$S/setuid")" test "$(stat -c %a "$S/setuid")" = 775
	done
	other perl -e 'use Fcntl; umask 0; sysopen(F, $ARGV[0], O_WRONLY | O_CREAT | O_TRUNC, 04755) or die' "$M/new-setuid"
	check setuid_new "$(stat -c %a "$S/new-setuid")" test "$(stat -c %a "$S/new-setuid")" = 4755
	mkdir "$S/shared" && chgrp 12345 "$S/shared" && chmod 2777 "$S/shared"
	python3 - "$M/shared/acl" <<'PY' 2>"$T/err"
import os, struct, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534); os.umask(0)
f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o2666)
os.write(f, b"x")
rights = b"".join(struct.pack("<HHI", tag, bits, 0xffffffff) for tag, bits in ((1, 7), (4, 7), (32, 5)))
os.setxattr(f, "system.posix_acl_access", struct.pack("<I", 2) + rights)
PY
	if grep -q 'not supported' "$T/err"; then
		skip setgid_acl "no ACLs where it is tested"
	else
		check setgid_acl "$(stat -c %a "$S/shared/acl") $(tail -n 1 "$T/err")" test "$(stat -c %a "$S/shared/acl")" = 775
	fi
	check not_his_folder "listed" bash -c "mkdir -m 700 '$S/closed'; ! setpriv --reuid 65534 --clear-groups ls '$M/closed' 2>/dev/null"
	ended
	mounted --size 32M
	other "$TMEM" umount "$M" 2>"$T/err"
	code=$?
	check only_root_ends "$(cat "$T/err")" test "$code" = 1 -a "$(grep -c 'another user has made it' "$T/err")" = 1
	check only_root "another user may" bash -c "! setpriv --reuid 65534 --clear-groups ls '$M' 2>/dev/null"
	ended
	# A source that he may not pass through is none; one that he may not list is.
	mkdir -p "$T/his" && chown 65534 "$T/his"
	for mode in 700 711; do
		chmod "$mode" "$S"
		other "$TMEM" mount --size 32M "$S" "$T/his" 2>"$T/err"
		code=$?
		check "source_$mode" "$(cat "$T/err")" test "$code" = 1 -a "$(grep -c 'source: Permission denied' "$T/err")" = "$((mode == 700))"
	done
	check mount_hint "$(cat "$T/err")" grep -q '^tmem mount: .*/his: not mounted: /dev/fuse' "$T/err"
	# A user's own mount, which nobody else may look into, not even root.
	chmod 777 "$S"
	head -c 1000000 /dev/urandom >"$S/many"
	cat >"$T/user.sh" <<'SH'
T=$1 TMEM=$2 S=$3 M=$T/his/mount
his() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
up() { his "$TMEM" mount --size 32M --save "$T/his/saved" "$S" "$M"; }
mknod -m 666 "$T/fuse" c 10 229 && mount --bind "$T/fuse" /dev/fuse && his mkdir "$M" && up || exit 2
his sh -c "echo new >'$M/own' && mv '$M/own' '$M/owned' && cat '$M/owned'"
stat -c '%u %g' "$S/owned"
his cat "$M/secret" 2>/dev/null || echo not his
ls "$M" >/dev/null 2>&1 || echo not for root
for _ in 1 2; do his cmp "$M/many" "$S/many" || echo many differ; done
his "$TMEM" umount "$M" && his test -s "$T/his/saved" && up
his cmp "$M/many" "$S/many" && his "$TMEM" stat "$M" | sed -n 's/^misses //p'
his "$TMEM" umount "$M" || umount -l "$M"
SH
	unshare -m bash "$T/user.sh" "$T" "$TMEM" "$S" >"$T/out" 2>"$T/err"
	if [ $? = 2 ]; then
		skip his_own "no other user may mount here: $(tail -n 1 "$T/err")"
	else
		check his_own "$(tr '\n' ' ' <"$T/out") $(tail -n 1 "$T/err")" \
			test "$(cat "$T/out")" = "$(printf '%s\n' new '65534 65534' 'not his' 'not for root' 0)"
	fi
else
	skip users "not root"
fi
finish
