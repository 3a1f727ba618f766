#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# tmem mount: the kernel goes through folders without asking, and still never to what they were.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_mount
figure() { "$TMEM" stat "$M" | sed -n "s/^$1 //p"; }

# Each way of moving a folder about in the source, at once after the path was used.
ways() { # OPTIONS OF THE MOUNT...
	"$TMEM" mount --size 32M "$@" "$S" "$M"
	timeout 120 python3 - "$S" "$M" <<'PY'
import os, shutil, sys, threading
s, m = sys.argv[1:]
bad = {}
def says(what, is_so):
    if not is_so: bad[what] = bad.get(what, 0) + 1
def make(top, what):
    os.makedirs(f"{top}/b/c")
    for name in ("f", "only" + what): put(f"{top}/b/c/{name}", what)
def put(path, what):
    with open(path, "w") as f: f.write(what)
def get(path):
    try:
        with open(path) as f: return f.read()
    except OSError as e: return e.errno
def there(call):
    try: call(); return 0
    except OSError as e: return e.errno
def use(top):
    for _ in range(2): get(f"{top}/b/c/f"); os.stat(f"{top}/b/c"); os.listdir(f"{top}/b/c")

for i in range(60):
    a, old, new = f"{s}/a{i}", f"{s}/old{i}", f"new{i}"
    at = f"{m}/a{i}"
    make(a, "first")
    use(at)
    kind = i % 6
    if kind < 2:  # another takes its place
        make(f"{s}/next{i}", new)
        if kind: os.rename(a, old); os.rename(f"{s}/next{i}", a)
        else: shutil.rmtree(a); os.rename(f"{s}/next{i}", a)
        order = [lambda: says("known", get(f"{at}/b/c/f") == new),
                 lambda: says("unknown", get(f"{at}/b/c/only{new}") == new),
                 lambda: says("list", sorted(os.listdir(f"{at}/b/c")) == ["f", "only" + new]),
                 lambda: says("gone", get(f"{at}/b/c/onlyfirst") == 2)]
        for k in range(4): order[(k + i // 6) % 4]()
    elif kind == 2:  # it is nowhere
        os.rename(a, old)
        says("no way", get(f"{at}/b/c/f") == 2 and get(f"{at}/b/c/new") == 2)
        says("moved", get(f"{m}/old{i}/b/c/f") == "first")
    elif kind == 3:  # what is made is made in the one that is there now
        os.rename(a, old)
        make(a, new)
        put(f"{at}/b/c/made", "made")
        says("made", get(f"{a}/b/c/made") == "made" and get(f"{old}/b/c/made") == 2)
        os.rename(f"{a}/b", f"{a}/was")
        make(f"{a}/x", new)
        os.rename(f"{a}/x/b", f"{a}/b")
        os.mkdir(f"{a}/b/empty")
        os.mkdir(f"{a}/was/empty")
        says("removed", there(lambda: os.rmdir(f"{at}/b/empty")) == 0 and
             os.path.exists(f"{a}/was/empty") and not os.path.exists(f"{a}/b/empty"))
        os.rename(a, old + "more")
        make(a, new)
        says("renamed", there(lambda: os.rename(f"{at}/b", f"{m}/b{i}")) == 0 and
             not os.path.exists(f"{a}/b") and os.path.exists(f"{old}more/b/c/f"))
        shutil.rmtree(a)
        make(a, new)
        use(at)
        os.rename(a, old + "mode")
        make(a, new)
        says("mode", there(lambda: os.chmod(at, 0o700)) == 0 and
             os.stat(a).st_mode & 0o777 == 0o700 != os.stat(old + "mode").st_mode & 0o777)
    elif kind == 4:  # who stands in it goes along
        os.chdir(f"{at}/b")
        use(at)
        os.rename(a, old)
        if i % 12 < 6: make(a, new)
        says("here", get("c/f") == "first" and get("c/onlyfirst") == "first")
        says("here, none", get("c/none") == 2 and get("c/" + "only" + new) == 2)
        says("here, list", sorted(os.listdir("c")) == ["f", "onlyfirst"] and os.listdir(".") == ["c"])
        says("here, make", there(lambda: put("c/made", "made")) == 0 and get(f"{old}/b/c/made") == "made")
        says("here, again", get("c/f") == "first" and get("../b/c/f") == "first")
        os.chdir("/")
    else:  # deep down, by many at once
        def many(t):
            for k in range(20):
                if k == 10: gate.wait(); gate.wait()
                says("many", get(f"{at}/b/c/f") == ("first" if k < 10 else new))
        gate = threading.Barrier(5)
        all_ = [threading.Thread(target=many, args=(t,)) for t in range(4)]
        for t in all_: t.start()
        gate.wait()
        make(f"{s}/next{i}", new)
        os.rename(f"{a}/b/c", f"{a}/b/was")
        os.rename(f"{s}/next{i}/b/c", f"{a}/b/c")
        gate.wait()
        for t in all_: t.join()
print("wrong:", bad)
PY
	note "lookups $(figure lookups), sent back $(figure astray)"
	"$TMEM" umount "$M"
	rm -rf "${S:?}"/*
}

ways >"$T/out" 2>&1
check folders_moved "$(tail -n 2 "$T/out")" grep -qx 'wrong: {}' "$T/out"
ways --threads 1 --no-watch >"$T/out" 2>&1
check folders_moved_one "$(tail -n 2 "$T/out")" grep -qx 'wrong: {}' "$T/out"

# ---- what it is for: of a path only the file's name is asked for
mkdir -p "$S/a/b/c/d/e"
touch "$S/a/b/c/d/e/"{1..200}
"$TMEM" mount --size 32M "$S" "$M"
python3 -c '
import os, sys
for i in range(2000): os.stat(f"{sys.argv[1]}/a/b/c/d/e/{i % 200 + 1}")' "$M"
lookups=$(figure lookups)
check ways_are_known "$lookups lookups of 2000 files, 5 folders down" test "$lookups" -lt 6000
# A folder by itself is seen to go soon.
stat "$M/a/b" >/dev/null
mv "$S/a/b" "$S/b"
sleep 0.3 # the kernel may go by its name for 0.1
check gone_soon "it is there" test ! -e "$M/a/b"
mkdir "$S/a/b"
check come_soon "it is not there" test -d "$M/a/b"
"$TMEM" umount "$M"

# ---- who may not go through any more is soon stopped
if [ "$(id -u)" = 0 ]; then
	mkdir -p "$S/p/q"
	echo text >"$S/p/q/f"
	chmod -R a+rX "$S" "$T/mount"
	"$TMEM" mount --size 32M --allow-other "$S" "$M"
	nobody() (cd "$M" && setpriv --reuid=65534 --regid=65534 --clear-groups cat p/q/f 2>/dev/null)
	check may_pass "may not" test "$(nobody)" = text
	chmod 700 "$S/p"
	sleep 0.3 # the kernel may go by its mode bits for 0.1
	check may_not_pass "may" test "$(nobody)" = ""
	"$TMEM" umount "$M"
else
	skip may_not_pass "not root"
fi
finish
