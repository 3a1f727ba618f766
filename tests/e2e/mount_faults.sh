#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# tmem mount over a source that has bad days (faulty/): errors come through and are not kept, what is
# right stays right, and who does not need the source does not wait for it.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
FAULTY=$BUILD/tests/e2e/e2e-faulty
R=$T/real S=$T/source M=$T/mount
mkdir -p "$R" "$S" "$M"
: >"$T/faults"

clean_up() {
	: >"$T/faults" # whoever hangs goes on
	umount -l "$M" 2>/dev/null
	umount -l "$S" 2>/dev/null
	[ -z "${SOURCE_PID:-}" ] || kill -KILL "$SOURCE_PID" 2>/dev/null
	[ -z "${GROUP:-}" ] || rmdir "$GROUP" 2>/dev/null
	cleanup
}
trap clean_up EXIT
trap 'clean_up; exit 130' INT
trap 'clean_up; exit 143' TERM HUP
if ! [ -w /dev/fuse ] || ! [ -x "$FAULTY" ] || ! "$TMEM" --help | grep -qw mount; then
	skip mount_faults "no /dev/fuse here, or built without libfuse"
	finish
fi
source_up() {
	"$FAULTY" "$T/faults" "$R" "$S" >"$T/faulty" 2>&1 </dev/null &
	SOURCE_PID=$!
	disown
	for _ in {1..100}; do
		mountpoint -q "$S" && return
		sleep 0.05
	done
	not_ok source "$(tail -n 1 "$T/faulty")"
	finish
}
mounted() { "$TMEM" mount --size 32M "$S" "$M"; }
ended() { "$TMEM" umount "$M"; }
figure() { "$TMEM" stat "$M" | sed -n "s/^$1 //p"; }
faults() { printf '%s\n' "$@" >"$T/faults.new" && mv "$T/faults.new" "$T/faults"; }
healed() { faults ""; }
# pages FILE: the numbers of the pages that cannot be read, each asked for alone, and the error.
pages() {
	python3 - "$1" <<'PY'
import errno, os, sys
f = os.open(sys.argv[1], os.O_RDONLY)
for n in range((os.fstat(f).st_size + 4095) // 4096):
    try:
        if not os.pread(f, 4096, n * 4096): print(n, "nothing")
    except OSError as e: print(n, errno.errorcode[e.errno])
PY
}
EIO=5 ESTALE=116 ENOMEM=12 ENOSPC=28

head -c 1000001 /dev/urandom >"$R/a"
seq 1 100000 >"$R/b"
mkdir "$R/dir"
seq 1 1000 | (cd "$R/dir" && xargs touch)
sleep 2.1 # the stamps of a source that nobody knows may be of two seconds' grain
source_up
check up "tmem mount failed" mounted
check right "differs" cmp "$R/b" "$M/b"

# ---- some pages cannot be read
faults "read a 409600 413695 $EIO" "read a 819200 819201 $EIO"
check eio "all of it was read" bash -c "! cat '$M/a' >'$T/a' 2>'$T/err' && grep -q 'Input/output' '$T/err'"
check eio_pages "$(pages "$M/a" | tr '\n' ' ')" test "$(pages "$M/a" | tr '\n' ' ')" = "100 EIO 200 EIO "
check eio_again "it is not EIO any more" test "$(pages "$M/a" | wc -l)" = 2
check eio_counted "no source_errors" test "$(figure source_errors)" -gt 0
healed
check eio_healed "differs" cmp "$R/a" "$M/a"
# ---- what is kept is there for who has it open already
exec 7<"$M/a"
faults "read a 0 2000000 $EIO" "open 1 0 0 $EIO" "readdir dir 0 0 $EIO"
check kept "differs" cmp "$R/a" - <&7
exec 7<&-
check open_fails "opened" bash -c "! head -c 1 '$M/dir/1' 2>/dev/null"
check list_fails "listed" bash -c "! ls '$M/dir' >/dev/null 2>&1"
healed
check list_healed "$(ls "$M/dir" | wc -l) of 1000" test "$(ls "$M/dir" | wc -l)" = 1000

# ---- a lock for which the source fails
for i in $EIO $ESTALE $ENOSPC; do
	faults ""
	python3 - "$M/b" "$T/faults" "$i" >"$T/out" 2>&1 <<'PY'
import errno, fcntl, os, sys
f = os.open(sys.argv[1], os.O_RDWR)
open(sys.argv[2], "w").write("open b 0 0 %s\n" % sys.argv[3])
try: fcntl.lockf(f, fcntl.LOCK_EX); print("a lock")
except OSError as e: print(e.errno)
PY
	healed
	want=$i
	[ "$i" != "$ENOSPC" ] || want=37 # ENOLCK: it is not about a lock
	check "lock_fails.$i" "$(tail -n 1 "$T/out")" grep -qx "$want" "$T/out"
done

# ---- a file handle that has become stale
"$TMEM" invalidate "$M/a"
exec 7<"$M/a"
faults "read a 0 2000000 $ESTALE"
check stale "$(cat <&7 2>&1 >/dev/null)" bash -c "! cat <&7 >/dev/null 2>'$T/err' && grep -qi stale '$T/err'"
exec 7<&-
faults "getattr a 0 0 $ESTALE" "open a 0 0 $ESTALE"
check stale_open "opened" bash -c "! head -c 1 '$M/a' 2>'$T/err' && grep -qi stale '$T/err'"
healed
check stale_healed "differs" cmp "$R/a" "$M/a"
# ---- not enough memory there
"$TMEM" invalidate "$M/a"
faults "read a 200000 300000 $ENOMEM"
check enomem "all of it was read" bash -c "! cat '$M/a' >/dev/null 2>&1"
healed
check enomem_healed "differs" cmp "$R/a" "$M/a"

# ---- few bytes at a time, and late
"$TMEM" invalidate "$M/a"
faults "read a 0 2000000 short 1000"
check short "differs" cmp "$R/a" "$M/a"
"$TMEM" invalidate "$M/a"
faults "read a 500000 2000000 delay 50"
check late "differs" cmp "$R/a" "$M/a"
healed
check short_kept "differs" cmp "$R/a" "$M/a"

# ---- writes: what the source took is what is there, by both ways
faults "write w 40960 45055 $ENOSPC"
head -c 100000 /dev/urandom >"$T/w"
check full "no error" bash -c "! cat '$T/w' >'$M/w' 2>'$T/err' && grep -q 'No space' '$T/err'"
check full_same "differs" cmp "$R/w" "$M/w"
healed
check full_again "differs" bash -c "cat '$T/w' >'$M/w' && cmp '$T/w' '$M/w' && cmp '$T/w' '$R/w'"
# Some bytes of a write may be there when the rest fails: what is kept of the file must not be older.
python3 - "$M/w" "$T/faults" "$R/w" >"$T/out" 2>&1 <<'PY'
import os, sys
m, faults, r = sys.argv[1:]
f = os.open(m, os.O_RDWR)
old = os.pread(f, 100000, 0)
open(faults, "w").write("write w 50000 50010 5\n")
for at in range(0, 98304, 4096):
    try: os.pwrite(f, b"n" * 4096, at)
    except OSError as e: assert e.errno == 5, e
open(faults, "w").close()
os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
assert os.pread(f, 100000, 0) == open(r, "rb").read()
assert os.pread(f, 4096, 49152) == old[49152:53248] and os.pread(f, 3, 0) == b"nnn"
print("right")
PY
check write_fails "$(tail -n 1 "$T/out")" grep -qx right "$T/out"

# ---- a file of another size now, for who opens it or gets a lock while its pages are dropped again
# and again: what the kernel asks for the size is answered late, and it must not ignore the answer
: >"$R/size"
for how in opened locked; do
	timeout 60 python3 - "$M/size" "$R/size" "$T/faults" $how >"$T/out" 2>&1 <<'PY'
import fcntl, os, sys, threading
mount, real, faults, how = sys.argv[1:]
INVALIDATE = ord("T") << 8 | 0x61
PAGE = b"x" * 4096
def say(what):
    with open(faults + ".new", "w") as f: f.write(what)
    os.rename(faults + ".new", faults)
def size_is(pages):
    with open(real, "r+b") as f:
        f.truncate(0)
        f.write(PAGE * pages)
size_is(33)
for pages in 38, 30, 41, 12:
    old = os.open(mount, os.O_RDWR)
    was = len(os.pread(old, 64 * 4096, 0)) // 4096
    stop = threading.Event()
    def drop():
        while not stop.wait(.02): fcntl.ioctl(old, INVALIDATE)
    dropping = threading.Thread(target=drop)
    new = os.open(mount, os.O_RDWR)
    size_is(pages)
    say("getattr size 0 0 delay 200\n") # the fault itself
    dropping.start()
    if how == "locked":
        fcntl.lockf(new, fcntl.LOCK_EX)
    else:
        os.close(new)
        new = os.open(mount, os.O_RDONLY)
    got = os.pread(new, 64 * 4096, min(was, pages) * 4096)
    stop.set()
    dropping.join()
    say("")
    assert got == PAGE * (pages - was), "%d pages, then %d: %d bytes of what is new" % (was, pages, len(got))
    os.close(new)
    os.close(old)
print("right")
PY
	check "size_$how" "$(tail -n 1 "$T/out")" grep -qx right "$T/out"
	healed
done

# ---- one file hangs
"$TMEM" invalidate "$M/a"
faults "read a 0 2000000 hang" "getattr dir 0 0 delay 10"
for _ in 1 2 3; do
	cat "$M/a" >"$T/hung" 2>/dev/null &
	HUNG+=($!)
done
sleep 0.3 # they have come to where it hangs
check hang_others "waits, too, or differs" timeout 20 cmp "$R/b" "$M/b"
check hang_list "waits, too" test "$(timeout 20 ls "$M/dir" | wc -l)" = 1000
check hang_stat "waits, too" test -n "$(timeout 20 "$TMEM" stat "$M")"
# Who tells the kernel of a change of it comes to hang there, too; a lock of another file wants that.
timeout 20 "$TMEM" invalidate "$M/a"
sleep 0.3 # he has come to it
{ flock -x "$M/dir/7" true && : >"$T/locked"; } &
HUNG+=($!)
for _ in {1..200}; do
	[ ! -e "$T/locked" ] || break
	sleep 0.1
done
check hang_locks_others "waits, too" test -e "$T/locked"
check hang_hangs "it did not" kill -0 "${HUNG[0]}"
healed
wait "${HUNG[@]}"
check hang_healed "differs" cmp "$R/a" "$T/hung"

# ---- killed while the kernel waits, to be told of a change, for a page that is being read
faults "read a 0 2000000 hang"
timeout 20 "$TMEM" invalidate "$M/a"
cat "$M/a" >"$T/hung" 2>/dev/null &
HUNG=($!)
sleep 0.3 # it has come to where it hangs
timeout 20 "$TMEM" invalidate "$M/a"
sleep 0.3 # and who tells the kernel, to its page
kill -KILL "$(figure pid)"
healed # who reads for it would be waited for
if timeout 20 "$TMEM" mount --size 32M "$S" "$M"; then
	ok killed
else
	not_ok killed "the mount hangs"
	umount -f "$M"
	mounted
fi
wait "${HUNG[@]}"
check killed_right "differs" cmp "$R/a" "$M/a"

# ---- killed while the source is being changed: who is told so does not meet the change later
faults "write b 0 2000000 delay 1500"
timeout 60 python3 - "$M/b" "$R/b" "$(figure pid)" >"$T/out" 2>&1 <<'PY'
import os, signal, sys, threading, time
path, real, pid = sys.argv[1:]
f = os.open(path, os.O_RDWR)
t = time.time()
threading.Timer(0.4, lambda: os.kill(int(pid), signal.SIGKILL)).start()
try: os.pwrite(f, b"x" * 4096, 0)
except OSError as e: print("told", e, time.time() - t)
then = open(real, "rb").read()
time.sleep(3) # longer than the fault
print("right" if open(real, "rb").read() == then else "it came later")
PY
healed
mounted
check killed_changing "$(tail -n 1 "$T/out")" grep -qx right "$T/out"
check killed_changing_told "$(head -n 1 "$T/out")" grep -q told "$T/out"

# ---- locks: one that the source does not answer for holds up nobody else
python3 - "$M/b" "$S/b" "$T/faults" "$M/a" "$R/a" >"$T/out" 2>&1 <<'PY'
import fcntl, os, sys, threading, time
m, s, faults, other, real = sys.argv[1:]
def told(line):
    open(faults + ".new", "w").write(line + "\n"); os.rename(faults + ".new", faults)
cat = lambda p: open(p, "rb").read()
assert cat(other) == cat(real)                       # kept from here on
g = os.open(s, os.O_RDWR); fcntl.lockf(g, fcntl.LOCK_EX)
f = os.open(m, os.O_RDWR)
t = threading.Thread(target=lambda: fcntl.lockf(f, fcntl.LOCK_EX), daemon=True); t.start()
time.sleep(0.3)                                      # it waits
told("lock b 0 0 hang")
time.sleep(0.3)                                      # and who tries for it hangs
def others():
    for _ in range(20): os.close(os.open(other, os.O_RDONLY))
    assert cat(other) == cat(real)
    done.set()
done = threading.Event(); u = threading.Thread(target=others); u.start()
in_time = done.wait(20)
told(""); u.join()
assert in_time, "who closes a file waits for another's lock"
fcntl.lockf(g, fcntl.LOCK_UN); t.join(20)
assert not t.is_alive(), "no lock"
try: fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB); assert 0, "two have it"
except OSError: pass
print("right")
PY
check hang_locks "$(tail -n 1 "$T/out")" grep -qx right "$T/out"

# ---- the source is gone, and comes back
kill -KILL "$SOURCE_PID"
while kill -0 "$SOURCE_PID" 2>/dev/null; do sleep 0.05; done
check gone "read" bash -c "! cat '$M/b' >/dev/null 2>'$T/err' && grep -q 'not connected' '$T/err'"
check gone_serves "$("$TMEM" stat "$M" 2>&1 | head -n 1)" test -n "$(figure pid)"
check gone_ends "tmem umount failed" ended
umount -l "$S"
source_up
check back "tmem mount failed" mounted
check back_right "differs" cmp "$R/a" "$M/a"

# ---- told to end while the source hangs
gives_up() { # NAME COMMAND...
	local name=$1 pid
	shift
	faults "read b 0 2000000 hang"
	pid=$(figure pid)
	"$TMEM" invalidate "$M/b"
	cat "$M/b" >/dev/null 2>&1 &
	HUNG=($!)
	sleep 0.3 # it has come to where it hangs
	"$@" "$pid"
	for _ in {1..50}; do
		mountpoint -q "$M" || break
		sleep 0.1
	done
	check "$name.detached" "still mounted" bash -c "! mountpoint -q '$M'"
	check "$name.again" "tmem mount failed" mounted
	healed
	wait "${HUNG[@]}"
	for _ in {1..100}; do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	check "$name.ends" "process $pid is still there" bash -c "! kill -0 $pid 2>/dev/null"
	if [ "$name" = lazy ]; then # told to end as well, when another one is there already
		exec 7<"$M/a"
		pid=$(figure pid)
		lazily
		mounted
		kill -TERM "$pid"
		exec 7<&-
		sleep 0.5 # for the end to do what it must not
	fi
	check "$name.not_the_next" "the next mount went with it" cmp "$R/b" "$M/b"
}
lazily() { timeout 20 "$TMEM" umount -z "$M"; }
gives_up term kill -TERM
gives_up lazy lazily
ended

# ---- what the kernel leaves to the source to judge is asked for by who asks
if [ "$(id -u)" = 0 ]; then
	chmod 755 "$T" "$R"
	check other_up "tmem mount failed" "$TMEM" mount --size 32M --allow-other "$S" "$M"
	cat >"$T/ask.py" <<'PY'
import os, sys
path, uid, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.setgroups([]); os.setgid(uid); os.setuid(uid)
for call in (lambda: os.setxattr(path, name, b"x"), lambda: os.getxattr(path, name), lambda: os.removexattr(path, name)):
    try: call(); sys.exit("not refused")
    except OSError: pass
PY
	rm -f "$T/faults.xattr"
	python3 "$T/ask.py" "$M/b" 65534 system.nfs4_acl 2>"$T/err"
	check other_asks "$(cat "$T/err" "$T/faults.xattr" | tr '\n' ' ')" \
		test "$(grep -c '^65534 system.nfs4_acl' "$T/faults.xattr")" = 3 -a "$(grep -c '^0 system.nfs4' "$T/faults.xattr")" = 0
	ended
	# Of a mount that another user has made, which cannot become who asks.
	cat >"$T/users.sh" <<'SH'
T=$1 TMEM=$2 M=$3
echo user_allow_other >"$T/fuse.conf"
mknod -m 666 "$T/fuse" c 10 229
mount --bind "$T/fuse.conf" /etc/fuse.conf && mount --bind "$T/fuse" /dev/fuse && chown 65534 "$M" &&
	setpriv --reuid 65534 --regid 65534 --clear-groups "$TMEM" mount --size 32M --allow-other "$T/source" "$M" || exit 2
rm -f "$T/faults.xattr"
python3 "$T/ask.py" "$M/b" 65534 system.nfs4_acl
python3 "$T/ask.py" "$M/b" 65533 system.his
# By who ignores that his children end: they are waited for all the same.
setpriv --reuid 65534 --regid 65534 --clear-groups env --ignore-signal=CHLD "$TMEM" umount "$M" && : >"$T/unmounted"
umount -q "$M"
SH
	unshare -m bash "$T/users.sh" "$T" "$TMEM" "$M" 2>"$T/err"
	if [ $? = 2 ]; then
		skip no_other_asks "no other user may mount here: $(tail -n 1 "$T/err")"
	else
		check no_other_asks "$(cat "$T/err" "$T/faults.xattr" | tr '\n' ' ')" \
			test "$(grep -c '^65534 system.nfs4_acl' "$T/faults.xattr")" = 3 -a "$(grep -c system.his "$T/faults.xattr")" = 0
		check no_sigchld "tmem umount failed" test -e "$T/unmounted"
	fi
	chown 0 "$M"
fi

# ---- a source whose numbers begin anew with it, and whose kernel keeps attributes
source_again() {
	umount "$S" || umount -l "$S"
	while kill -0 "$SOURCE_PID" 2>/dev/null; do sleep 0.05; done
	source_up
}
export FAULTY_NUMBERS=1
head -c 100000 /dev/urandom >"$R/x"
head -c 100000 /dev/urandom >"$R/y"
touch -d 2020-01-01 "$R/x" "$R/y"
source_again
"$TMEM" mount --size 32M --save "$T/saved" "$S" "$M"
check numbers "differ" bash -c "cmp '$R/x' '$M/x' && cmp '$R/y' '$M/y'"
ended
source_again
"$TMEM" mount --size 32M --save "$T/saved" "$S" "$M"
check numbers_anew "another file's bytes" bash -c "cmp '$R/y' '$M/y' && cmp '$R/x' '$M/x'"
ended
# A file that is replaced has its number there: who has the old one open is not read for others.
head -c 8000000 /dev/zero | tr '\0' a >"$R/one"
head -c 8000000 /dev/zero | tr '\0' b >"$R/two"
touch -d 2020-01-01 "$R/one"
touch -d 2021-01-01 "$R/two"
for how in "" "--ttl 1"; do
	"$TMEM" mount --size 32M $how "$S" "$M"
	cp -p "$R/one" "$R/named"
	python3 - "$M/named" "$R/two" "$R/named" >"$T/out" 2>&1 <<'PY'
import os, shutil, sys, time
m, two, named = sys.argv[1:]
p = os.open(m, os.O_RDONLY)
assert os.pread(p, 4096, 0) == b"a" * 4096
shutil.copy2(two, named + ".new"); os.rename(named + ".new", named)
time.sleep(1.2)                                       # the kernel believes attributes for a second
os.stat(m); os.fstat(p)
q = os.open(m, os.O_RDONLY)
assert os.pread(q, 4096, 0) == b"b" * 4096
os.pread(p, 200000, 6000000)                          # the one that it has open
assert os.pread(q, 8000000, 0) == b"b" * 8000000, "the old file's bytes"
r = os.open(m, os.O_RDONLY)
assert os.pread(r, 8000000, 0) == b"b" * 8000000, "the old file's bytes at an open"
os.close(os.open(f"/proc/self/fd/{p}", os.O_RDONLY))   # without a name
os.close(p)
assert open(m, "rb").read() == b"b" * 8000000
print("right")
PY
	check "numbers_replaced$(tr -d ' ' <<<"$how")" "$(tail -n 1 "$T/out")" grep -qx right "$T/out"
	ended
done
# It was watched by both nodes: when the old one goes, who has the new one open is told all the same.
"$TMEM" mount --size 32M --ttl 5 "$S" "$M"
cp -p "$R/one" "$R/named"
python3 - "$M/named" "$R/two" "$R/named" "$S/named" >"$T/out" 2>&1 <<'PY'
import os, shutil, sys, time
m, two, named, s = sys.argv[1:]
p = os.open(m, os.O_RDONLY)
assert os.pread(p, 4096, 0) == b"a" * 4096
shutil.copy2(two, named + ".new"); os.rename(named + ".new", named)
time.sleep(5.2)                                       # longer than --ttl: it asks for the name again
os.stat(m)
q = os.open(m, os.O_RDONLY)
begun = time.monotonic()
assert os.pread(q, 4096, 0) == b"b" * 4096
os.close(p)
time.sleep(0.5)                                       # it forgets the file that was closed, in its time
f = os.open(s, os.O_WRONLY); os.pwrite(f, b"c" * 4096, 0); os.close(f)
while os.pread(q, 4096, 0) != b"c" * 4096:
    assert time.monotonic() < begun + 4.5, "it was not told"
    time.sleep(0.05)                                  # and looks again
print("right" if time.monotonic() < begun + 4.8 else "late")
PY
check numbers_watched "$(tail -n 1 "$T/out")" grep -qx right "$T/out"
ended
unset FAULTY_NUMBERS
export FAULTY_KEEPS=60
source_again
mounted
echo old >"$R/changes"
sleep 2.1 # as above
check keeps "differs" cmp "$R/changes" "$M/changes"
echo newer >"$R/changes"
check keeps_looked "an open saw what was before" cmp "$R/changes" "$M/changes"
ended
unset FAULTY_KEEPS
export FAULTY_SQUASH=1
source_again
if [ "$(id -u)" = 0 ]; then
	mkdir -m 700 "$R/his"
	echo his >"$R/his/file"
	echo his >"$R/mine"
	chmod 600 "$R/mine" "$R/his/file"
	chown -R 65534:65534 "$R/his" "$R/mine"
	"$TMEM" mount --size 32M --allow-other "$S" "$M"
	check squashed "opened by root" bash -c "! cat '$S/mine' 2>'$T/err'"
	python3 - "$M" >"$T/out" 2>&1 <<'PY'
import os, sys
os.chdir(sys.argv[1])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
assert open("mine").read() == "his\n" and os.listdir("his") == ["file"]
with open("his/file", "r+") as f: assert f.read() == "his\n"; f.write("more")
with open("his/file", "w") as f: f.write("anew")
os.chmod("his/file", 0o640); os.rename("his/file", "his/name")
assert open("his/name").read() == "anew"
os.unlink("his/name")
print("right")
PY
	check squashed_his "$(tail -n 1 "$T/out")" grep -qx right "$T/out"
	ended
fi
unset FAULTY_SQUASH
export FAULTY_BLOCK=1048576
source_again
mounted
exec 7<"$M/dir"
check large_folder "its buffer is not in $(figure nodes_bytes)" test "$(figure nodes_bytes)" -gt 1048576
exec 7<&-
ended
unset FAULTY_BLOCK
source_again

# ---- not enough memory here: it is ended, and there again by one command
GROUP=/sys/fs/cgroup/memory/tmem-e2e-mount.$$ MOST=memory.limit_in_bytes OOM=memory.oom_control
[ -d "${GROUP%/*}" ] || GROUP=/sys/fs/cgroup/tmem-e2e-mount.$$ MOST=memory.max OOM=memory.events
if mkdir "$GROUP" 2>/dev/null && [ -w "$GROUP/$MOST" ] && echo 24M >"$GROUP/$MOST"; then
	head -c 60000000 /dev/urandom >"$R/big"
	sleep 2.1 # as above
	sh -c "echo \$\$ >'$GROUP/cgroup.procs'; exec '$TMEM' mount --size 200M '$S' '$M'"
	for _ in 1 2 3 4; do
		cat "$M/big" >/dev/null 2>"$T/err" || break
	done
	check oom_met "it had room" grep -Eq '^oom_kill [1-9]' "$GROUP/$OOM"
	check oom_again "tmem mount failed" mounted
	check oom_right "differs" cmp "$R/big" "$M/big"
	ended
	rmdir "$GROUP"
else
	rmdir "$GROUP" 2>/dev/null
	skip oom "no cgroup with a memory limit may be made here"
fi
finish
