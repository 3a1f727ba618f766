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

# More files than it may have open, looked up by their figures' names alone.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	mkdir "$S/many"
	(cd "$S/many" && seq 1 6000 | xargs touch)
	(
		ulimit -n 4000
		setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource "$TMEM" mount --size 32M "$S" "$M"
	)
	for _ in 1 2; do
		timeout 60 find "$M/.tmem/files/many" -type f -printf '%s\n' 2>"$T/err" | wc -l >"$T/out"
	done
	check many_figures "$(cat "$T/out") of 6000, $(tail -n 1 "$T/err")" test "$(cat "$T/out")" = 6000
	note "nodes at most $(figure nodes_max)"
	ended
	rm -rf "$S/many"
fi

finish
