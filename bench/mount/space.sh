#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# How much of FOLDER a byte of memory holds: in a tmpfs, in a compressed memory file system where
# the machine has one (an ext4 on zram, lz4), and in `tmem mount`.
#
#   bench/mount/space.sh [FOLDER... [-- OPTIONS of tmem mount]]
#
# Default: /usr/include, /usr/share/doc, /usr/lib/python3.11 and /usr/bin, regular files alone.
# What counts: of a tmpfs its blocks; of zram all that the device has (mem_used_total), at its most;
# of tmem mount all anonymous memory of its process, code and tables included, and beside that what
# the store has. The kernel's inodes are left out of each. Needs root, for the two mounts.
# TMEM_BUILD: the build (default build/).
set -u
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd) || exit 1
. "$ROOT/tools/lib.sh"
case ${1:-} in
-h | --help)
	sed -n '3,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
	exit 0
	;;
esac
TMEM=$(cd "${TMEM_BUILD:-$ROOT/build}" && pwd)/tmem || exit 1
FOLDERS=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
	[ -d "$1" ] || die "$1: no folder"
	FOLDERS+=("$(realpath "$1")")
	shift
done
[ $# = 0 ] || shift
[ ${#FOLDERS[@]} -gt 0 ] || FOLDERS=(/usr/include /usr/share/doc /usr/lib/python3.11 /usr/bin)
T=$(mktemp -d) || exit 1
ZRAM=

clean() {
	trap - EXIT
	mountpoint -q "$T/mount" && umount -l "$T/mount"
	mountpoint -q "$T/there" && umount -l "$T/there"
	[ -z "$ZRAM" ] || echo "$ZRAM" >/sys/class/zram-control/hot_remove
	rm -rf "$T"
}
trap clean EXIT
trap 'clean; exit 130' INT TERM HUP
mkdir "$T/there" "$T/mount"

# Regular files alone, so that all three hold the same.
copy() { (cd "$1" && find . -xdev -type f -print0 | tar -cf - --null -T - 2>/dev/null) | tar -xf - -C "$2"; }
bytes_of() { find "$1" -xdev -type f -printf '%i %s\n' | sort -u | awk '{ s += $2 } END { print s + 0 }'; }

in_tmpfs() {
	copy "$1" "$T/there"
	HELD=$(bytes_of "$T/there")
	TMPFS=$(($(stat -f -c '(%b - %f) * %S' "$T/there")))
}

in_zram() {
	local size=$((TMPFS * 2 + (64 << 20))) device
	ZRAM_BYTES=
	[ -w /sys/class/zram-control/hot_add ] || return
	ZRAM=$(cat /sys/class/zram-control/hot_add) || return
	device=/dev/zram$ZRAM
	if echo lz4 >"/sys/block/zram$ZRAM/comp_algorithm" &&
		echo "$size" >"/sys/block/zram$ZRAM/disksize" &&
		mkfs.ext4 -q -O ^has_journal -m 0 -i 4096 "$device" && mkdir -p "$T/zram" && mount "$device" "$T/zram"; then
		copy "$1" "$T/zram"
		sync -f "$T/zram"
		umount "$T/zram"
		ZRAM_BYTES=$(awk '{ print $5 }' "/sys/block/zram$ZRAM/mm_stat")
	fi
	echo "$ZRAM" >/sys/class/zram-control/hot_remove
	ZRAM=
}

in_tmem() { # of what is in the tmpfs
	local pid stat=$T/stat
	"$TMEM" mount --size $((TMPFS + (256 << 20))) "${@:2}" "$T/there" "$T/mount" || exit 1
	(cd "$T/mount" && find . -type f -print0 | xargs -0 cat >/dev/null)
	"$TMEM" stat "$T/mount" >"$stat"
	pid=$(sed -n 's/^pid //p' "$stat")
	STORE=$(sed -n 's/^store_bytes //p' "$stat")
	PAGES=$(sed -n 's/^pages //p' "$stat")
	PROCESS=$(($(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status") * 1024))
	"$TMEM" umount "$T/mount"
}

per() { awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.2f", a / b; else printf "-" }'; }

printf '%-28s %9s | %8s %8s %8s %8s | %s\n' "bytes of files for one of" MiB tmpfs zram "tmem" "(store)" "tmem / tmpfs"
for folder in "${FOLDERS[@]}"; do
	mount -t tmpfs -o size=100% tmem-space "$T/there" || exit 1
	in_tmpfs "$folder"
	in_zram "$folder"
	in_tmem "$folder" "$@"
	umount "$T/there"
	printf '%-28s %9s | %8s %8s %8s %8s | %s\n' "$folder" "$(per "$HELD" 1048576)" \
		"$(per "$HELD" "$TMPFS")" "$(per "$HELD" "${ZRAM_BYTES:-0}")" \
		"$(per "$HELD" "$PROCESS")" "$(per "$HELD" "$STORE")" "$(per "$TMPFS" "$PROCESS")"
	[ "$PAGES" -ge $((HELD / 4096)) ] || say "  (tmem mount has only $PAGES pages of them)"
done
