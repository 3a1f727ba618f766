#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A folder on a slow file system made of real parts, for `tmem bench mount`: an ext4 image, which
# nbdkit serves with a delay and a rate, through nbdfuse and a loop device that reads past the
# kernel's cache, so that what is cached is the file system's pages and nothing below them.
#
#   bench/mount/source.sh up DIR [MEGABYTES [DELAY [RATE]]]     default 400 2ms 400M (bits a second)
#   bench/mount/source.sh down DIR
#
# DIR gets big/ (archives of this machine's /usr, MEGABYTES in all), small/ (its documentation),
# tree/ (a git repository of its headers and scripts) and kept/ (two times 24 MB of the archives).
# Needs root, and nbdkit, libnbd-bin, git, e2fsprogs; installs them. What it made is below DIR.parts;
# "down" takes all of it away.
set -u
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd) || exit 1
. "$ROOT/tools/lib.sh"

WHAT=${1:-} DIR=${2:-}
[ -n "$DIR" ] || die "up DIR or down DIR; see its first lines"
PARTS=$DIR.parts

down() {
	local loop
	mountpoint -q "$DIR" && umount -l "$DIR"
	if [ -s "$PARTS/loop" ]; then
		loop=$(cat "$PARTS/loop")
		losetup -d "$loop" 2>/dev/null
	fi
	mountpoint -q "$PARTS/nbd" && umount -l "$PARTS/nbd"
	mountpoint -q "$PARTS/fast" && umount -l "$PARTS/fast"
	[ ! -s "$PARTS/nbdfuse.pid" ] || kill "$(cat "$PARTS/nbdfuse.pid")" 2>/dev/null
	[ ! -s "$PARTS/nbdkit.pid" ] || kill "$(cat "$PARTS/nbdkit.pid")" 2>/dev/null
	rm -rf "$PARTS"
	rmdir "$DIR" 2>/dev/null
	return 0
}

# archive MEGABYTES SKIP: so much of /usr, from there on.
archive() {
	tar -C /usr -cf - lib share bin 2>/dev/null | tail -c +$(($2 * 1000000)) | head -c $(($1 * 1000000))
}

# What is in it, on the fast disk.
fill() {
	local to=$1 megabytes=$2 part
	mkdir -p "$to/big" "$to/small" "$to/tree" "$to/kept"
	for part in 1 2 3 4; do
		archive $((megabytes / 4)) $((part * 300)) >"$to/big/$part"
	done
	for part in 5 6; do # from before those
		archive 24 $((part * 50)) >"$to/kept/$part"
	done
	cp -r /usr/share/doc "$to/small/" 2>/dev/null
	cp -r /usr/include /usr/lib/python3* "$to/tree/" 2>/dev/null
	find "$to/tree" "$to/small" -type l -delete
	git -C "$to/tree" init -q
	git -C "$to/tree" config gc.auto 0 # nothing of it goes on behind us
	git -C "$to/tree" -c user.name=t -c user.email=t@localhost add -A
	git -C "$to/tree" -c user.name=t -c user.email=t@localhost commit -qm all
}

up() {
	local megabytes=$1 delay=$2 rate=$3 loop i
	need_packages "a slow source" nbdkit libnbd-bin git e2fsprogs || exit 1
	mkdir -p "$DIR" "$PARTS/nbd" "$PARTS/fast" || exit 1
	truncate -s $((megabytes * 3 + 1500))M "$PARTS/image"
	mkfs.ext4 -q -F "$PARTS/image" || exit 1
	mount -o loop "$PARTS/image" "$PARTS/fast" || exit 1
	fill "$PARTS/fast" "$megabytes"
	umount "$PARTS/fast" || exit 1 # never mounted twice
	nbdkit -P "$PARTS/nbdkit.pid" -U "$PARTS/socket" --filter=delay --filter=rate file \
		"$PARTS/image" rdelay="$delay" rate="$rate" burstiness=0.1 || exit 1
	nbdfuse -P "$PARTS/nbdfuse.pid" "$PARTS/nbd" --unix "$PARTS/socket" >/dev/null 2>&1 &
	for i in {1..100}; do
		[ -s "$PARTS/nbd/nbd" ] && break
		sleep 0.1
	done
	loop=$(losetup --direct-io=on --show -f "$PARTS/nbd/nbd") || exit 1
	echo "$loop" >"$PARTS/loop"
	mount -o noatime "$loop" "$DIR" || exit 1
	say "$DIR: $(du -sm "$DIR" | cut -f 1) MiB, $(find "$DIR" -type f | wc -l) files; each read $delay late, $rate bits a second"
}

case $WHAT in
up) trap 'down; exit 130' INT TERM && up "${3:-400}" "${4:-2ms}" "${5:-400M}" ;;
down) down ;;
*) die "up DIR or down DIR; see its first lines" ;;
esac
