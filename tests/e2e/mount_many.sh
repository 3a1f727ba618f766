#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# tmem mount: very many small files, and folders with very many names, in little memory. 20,000 files;
# with TMEM_LONG=1 a million. All are listed and read, twice; changed at random, listed while names come
# and go; the mount stays within its size, and forgets what the kernel forgets.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_mount
FILES=${TMEM_FILES:-${LONG:+1000000}}
FILES=${FILES:-20000}
figure() { "$TMEM" stat "$M" | sed -n "s/^$1 //p"; }

# A file's contents follow from its name. A fifth of them are in one folder, the others by thousands.
cat >"$T/many.py" <<'PY'
import os, random, sys
do, root, n, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
def name(i): return ("one/file %d" if i % 5 == 0 else "by/%d/file %%d" % (i // 1000)) % i
def text(i, version): return ("%d of version %d\n" % (i, version)).encode() * (i % 7)
def chosen():
    r = random.Random(seed)
    return {r.randrange(n) for _ in range(n // 50)}
if do == "make":
    os.mkdir(root + "/one"); os.mkdir(root + "/by")
    for d in range((n + 999) // 1000): os.mkdir("%s/by/%d" % (root, d))
    for i in range(n):
        with open(root + "/" + name(i), "wb") as f: f.write(text(i, 0))
elif do == "change":
    for i in chosen():
        with open(root + "/" + name(i), "wb") as f: f.write(text(i, 1))
elif do in ("read", "read-changed"):
    late = chosen() if do == "read-changed" else ()
    for i in range(n):
        with open(root + "/" + name(i), "rb") as f: got = f.read()
        if got != text(i, i in late): sys.exit("%s is %r" % (name(i), got[:60]))
    print("right")
elif do == "names":
    found = set()
    for top, dirs, files in os.walk(root):
        at = os.path.relpath(top, root)
        for f in files:
            p = at + "/" + f
            if p in found: sys.exit("%s is there twice" % p)
            found.add(p)
    print("right" if found == {name(i) for i in range(n)} else "%d names of %d" % (len(found), n))
elif do == "come-and-go":          # what stays is listed, once; what comes and goes may be
    stays = {os.path.basename(name(i)) for i in range(0, n, 5)}
    seen, k = [], 0
    with os.scandir(root + "/one") as d:
        for e in d:
            seen.append(e.name)
            if len(seen) % 50 == 0:
                k += 1
                open("%s/one/new %d" % (seed, k), "w").close()
                if k > 3: os.unlink("%s/one/new %d" % (seed, k - 3))
    for i in range(max(1, k - 2), k + 1): os.unlink("%s/one/new %d" % (seed, i))
    old = [x for x in seen if x in stays]
    print("right" if len(old) == len(stays) == len(set(old)) else "%d of %d, %d once" % (len(old), len(stays), len(set(old))))
PY
many() { # NAME DO FOLDER [SEED]
	local t=$EPOCHREALTIME
	check "$1" "$(python3 "$T/many.py" "$2" "$3" "$FILES" "${4:-1}" 2>&1 | tee "$T/out" | tail -n 1)" grep -qx right "$T/out"
	note "$1: $(calc "$EPOCHREALTIME - $t" %.1f) s, nodes $(figure nodes)"
}
python3 "$T/many.py" make "$S" "$FILES" 1
sleep 0.1
check mount "tmem mount failed" "$TMEM" mount --size 48M "$S" "$M"
pid=$(figure pid)
many names names "$M"
many cold read "$M"
many warm read "$M"
python3 "$T/many.py" change "$S" "$FILES" 7
many changed read-changed "$M" 7
many come_and_go come-and-go "$M" "$S"
many come_and_go_through come-and-go "$M" "$M"
note "nodes at most $(figure nodes_max)"
check_peak size "$pid" 49152
# Through the mount: all of it goes.
check removed "$(rm -rf "$M/one" "$M/by" 2>&1 | tail -n 1) $(find "$S" | wc -l) left" test "$(find "$S" | wc -l)" = 1
check umount "tmem umount failed" "$TMEM" umount "$M"
finish
