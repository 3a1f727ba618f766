#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# tmem mount: what names take is given back, and no more files are held than may be.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
S=$T/source M=$T/mount
mkdir -p "$S/many" "$M"

clean_up() {
	umount -l "$M" 2>/dev/null
	cleanup
}
trap clean_up EXIT
trap 'clean_up; exit 130' INT
trap 'clean_up; exit 143' TERM HUP
if ! [ -w /dev/fuse ] || ! "$TMEM" --help | grep -qw mount; then
	skip mount_names "no /dev/fuse here, or built without libfuse"
	finish
fi
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
else
	skip many_figures "not root"
fi
finish
