#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# tmem mount: what names take is given back, and no more files are held than may be.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_mount
mkdir "$S/many"
figure() { "$TMEM" stat "$M" | sed -n "s/^$1 //p"; }

# ---- files come and go, but for a few; then the store takes what they had
head -c 40000000 /dev/urandom >"$S/big"
LONG_NAME=$(printf 'x%.0s' {1..240})
(cd "$S/many" && seq -f "$LONG_NAME%g" 1 7000 | xargs touch)
sleep 0.1
"$TMEM" mount --size 32M "$S" "$M"
pid=$(figure pid)
cat "$M/big" >/dev/null
find "$M/many" -type f -exec cat {} +
check few "$(python3 - "$M" 2>&1 <<'PY'
import os, sys
m = sys.argv[1]
names = sorted(os.listdir(m + "/many"))
held = [os.open(m + "/many/" + n, os.O_RDONLY) for n in names[::20]]
for n in names: os.unlink(m + "/many/" + n)
f = os.open(m + "/big", os.O_RDONLY)
os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
while os.read(f, 1 << 20): pass
PY
)" test "$(figure nodes)" -lt 1000
check_peak size "$pid" 32768
"$TMEM" umount "$M"

# ---- a source that has our folder's name as well
mkdir "$S/.tmem" "$S/d"
"$TMEM" mount --size 32M --ttl 60 "$S" "$M"
check control.unlisted "$(ls -A "$M" | tr '\n' ' ')" test "$(ls -lA "$M" | grep -c '\.tmem')" = 0
check control.ours "$(ls "$M/.tmem" | tr '\n' ' ')" test "$(ls "$M/.tmem" | tr '\n' ' ')" = "files stats "
rmdir "$M/.tmem" 2>"$T/err"
check control.rmdir "$(cat "$T/err")" grep -q 'Permission denied' "$T/err"
python3 -c 'import os, sys; os.rename(sys.argv[1] + "/d", sys.argv[1] + "/.tmem")' "$M" 2>"$T/err"
check control.rename "$(tail -n 1 "$T/err")" grep -q PermissionError "$T/err"
check control.there "the source has $(ls -A "$S" | tr '\n' ' ')" test -d "$S/.tmem" -a -d "$S/d"
"$TMEM" umount "$M"
"$TMEM" mount --size 32M --no-control "$S" "$M"
check control.not_ours "$(ls -A "$M" | tr '\n' ' ')" test "$(ls -A "$M" | grep -cx '\.tmem')" = 1
check control.not_ours_goes "is refused" rmdir "$M/.tmem"
"$TMEM" umount "$M"

# ---- a mount is at one place, which has several names
ln -s mount "$T/link"
"$TMEM" mount --size 32M "$S" "$T/link"
"$TMEM" mount --size 32M "$S" "$M" 2>"$T/err"
code=$?
check second "$(cat "$T/err")" test "$code" = 1 -a "$(grep -c 'a mount of tmem is there already' "$T/err")" = 1
mkfifo "$S/fifo"
for i in fifo .tmem/stats .tmem/stats/pid; do
	"$TMEM" stat "$M/$i" 2>"$T/err"
	check "no_figures.$i" "$(cat "$T/err")" grep -q 'neither a file nor a folder of the source' "$T/err"
done
"$TMEM" umount "$M/d" 2>"$T/err"
check umount_within "$(cat "$T/err")" grep -q 'not where it is mounted' "$T/err"
"$TMEM" umount "$T/link" 2>"$T/err"
check umount_link "$(cat "$T/err")" test ! -e "$M/fifo"
rm "$S/fifo"
mkdir "$M/below"
if mount -t tmpfs tmem-e2e "$M/below" 2>/dev/null; then
	check over_other "tmem mount failed" "$TMEM" mount --size 32M "$S" "$M/below"
	check over_other_serves "the other is seen" test -e "$M/below/many"
	"$TMEM" umount "$M/below"
	umount "$M/below"
else
	skip over_other "no tmpfs may be mounted here"
fi
rmdir "$M/below"

# ---- limits and the folder of who mounts are not everybody's
(
	ulimit -S -f 100
	cd "$S/d" || exit
	"$TMEM" mount --size 32M --save "../../kept" "$S" "$M"
)
pid=$(figure pid)
check cwd "it is in $(readlink "/proc/$pid/cwd")" test "$(readlink "/proc/$pid/cwd")" = /
for child in $(pgrep -P "$pid"); do
	check cwd.guard "it is in $(readlink "/proc/$child/cwd")" test "$(readlink "/proc/$child/cwd")" = /
done
head -c 1000000 /dev/zero >"$M/d/large" 2>"$T/err"
check fsize "$(cat "$T/err")" test "$(stat -c %s "$S/d/large")" = 1000000
check fsize.lives "the mount has ended" test "$(figure pid)" = "$pid"
"$TMEM" umount "$M"
check save.relative "$(ls "$T")" test -s "$T/kept"
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	(
		ulimit -f 100
		setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource "$TMEM" mount --size 32M "$S" "$M"
	)
	pid=$(figure pid)
	python3 -c 'import sys; open(sys.argv[1], "wb").write(bytes(1000000))' "$M/d/large" 2>"$T/err"
	check fsize.hard "$(tail -n 1 "$T/err")" grep -q 'Errno 27' "$T/err"
	check fsize.hard_lives "the mount has ended" test "$(figure pid)" = "$pid"
	"$TMEM" umount "$M"
fi

# ---- the largest file that there can be, where the file system has such
large=$(mktemp -d /dev/shm/tmem-XXXXXX 2>/dev/null)
ELSEWHERE+=("$large")
if [ -n "$large" ] && truncate -s 9223372036854775807 "$large/large" 2>/dev/null; then
	"$TMEM" mount --size 32M "$large" "$M"
	tail -c 3 "$M/large" 2>"$T/err" | od -An -tx1 >"$T/out"
	check largest "$(cat "$T/err" "$T/out")" grep -qx ' 00 00 00' "$T/out"
	"$TMEM" umount "$M"
else
	skip largest "no file system for it"
fi

# ---- more files than it may have open, looked up by their figures' names alone
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	(cd "$S/many" && seq 1 1500 | xargs touch)
	(
		ulimit -n 1200
		setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource "$TMEM" mount --size 32M "$S" "$M"
	)
	for _ in 1 2; do
		timeout 30 find "$M/.tmem/files/many" -type f -printf '%s\n' 2>"$T/err" | wc -l >"$T/out"
	done
	check many_figures "$(cat "$T/out") of 1500, $(tail -n 1 "$T/err")" test "$(cat "$T/out")" = 1500
	note "nodes at most $(figure nodes_max)"
	"$TMEM" umount "$M"
	# None is left: whatever needs one says so in one way, and it is not the caller's own that are out.
	mkdir "$S/many/folder"
	(
		ulimit -n 200
		setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource "$TMEM" mount --size 32M "$S" "$M"
	)
	timeout 60 python3 - "$M/many" >"$T/out" 2>&1 <<'PY'
import errno, os, sys
m = sys.argv[1]
met, held = set(), []
def meets(call):
    try: met.add(0); return call()
    except OSError as e: met.add(e.errno)
for i in range(1, 1501):
    f = meets(lambda: os.open(f"{m}/{i}", os.O_RDONLY))
    if f is None: break
    held.append(f)
for i in range(1, 31):
    meets(lambda: os.stat(f"{m}/{1500 - i}"))
    meets(lambda: os.close(os.open(f"{m}/made{i}", os.O_CREAT | os.O_EXCL)))
    meets(lambda: os.listdir(m + "/folder"))
    if i % 10 == 0: held.append(meets(lambda: os.open(f"{m}/{1000 + i}", os.O_RDONLY)))
assert met - {0} == {errno.ENFILE}, met
print("right")
PY
	check no_descriptors "$(tail -n 1 "$T/out")" grep -qx right "$T/out"
	"$TMEM" umount "$M"
else
	skip many_figures "not root"
fi
finish
