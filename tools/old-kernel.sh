#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# tmem run on an older kernel: boots Debian 12's own (6.1, which has no UFFDIO_MOVE) in qemu,
# by software emulation (TMEM_ACCEL=kvm: not), with a root in memory that holds our binaries, the
# end-to-end tests and what they call; runs a choice of them; prints what they print.
#
#   tools/old-kernel.sh [-b BUILD] [-s SECONDS] [-m MEBIBYTES] [TEST...]
#
# TEST: "run_corrupt MODE..." or "run_pages MODE...", in quotes. Default: most of both.
# BUILD: default build. The kernel is taken by apt-get download, and not installed; it stays in
# build/old-kernel. TMEM_OLD_KERNEL=FILE: this kernel (a vmlinuz) instead. Exit code 1 when a test
# failed or the machine did not come to its end, 77 when qemu or the kernel cannot be had.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
. "$ROOT/tools/lib.sh"
BUILD=$ROOT/build SECONDS_MAX=3000 MEMORY=1536
while getopts b:s:m: o; do
	case $o in
	b) BUILD=$(cd "$OPTARG" && pwd) || exit 1 ;;
	s) SECONDS_MAX=$OPTARG ;;
	m) MEMORY=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- \
	"run_corrupt discard-race free-race free-reuse map-race map-fixed move-race move-grow protect brk churn" \
	"run_corrupt own-uffd fork-raw fork-short fork-without spawn close-all storm barriers splice calls lock" \
	"run_corrupt exec daemon clone-vm random killed careful" \
	"run_pages touch discard remap fork threads syscall"
need_packages "an old kernel" qemu-system-x86 busybox-static cpio || exit 77
[ -x "$BUILD/tmem" ] && [ -x "$BUILD/tests/e2e/e2e-corrupt" ] || die "$BUILD is not built"
W=$ROOT/build/old-kernel
mkdir -p "$W" || exit 1
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
trap 'exit 130' INT TERM

# ---- the kernel
KERNEL=${TMEM_OLD_KERNEL:-}
if [ -z "$KERNEL" ]; then
	package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }')
	if [ -n "$package" ] && ! ls "$W"/"$package"_*.deb >/dev/null 2>&1; then
		(cd "$W" && rm -f ./*.deb && apt-get download "$package") >"$T/apt" 2>&1 || tail -n 3 "$T/apt" >&2
	fi
	deb=$(ls "$W"/linux-image-*.deb 2>/dev/null | head -n 1)
	[ -n "$deb" ] || {
		say "no kernel: apt-get download fails"
		exit 77
	}
	dpkg-deb --fsys-tarfile "$deb" | tar -C "$T" -xf - ./boot || exit 1
	KERNEL=$(ls "$T"/boot/vmlinuz-*)
fi

# ---- a root in memory
R=$T/root
mkdir -p "$R"/{bin,dev,proc,sys,tmp,etc,tmem/build/tests/e2e,tmem/build/demo,tmem/tests,tmem/tools}
cp -a "$ROOT/tests/e2e" "$R/tmem/tests/"
cp -a "$ROOT/tools/lib.sh" "$R/tmem/tools/"
cp -L "$BUILD/tmem" "$BUILD/libtmem-agent.so" "$R/tmem/build/"
find "$BUILD/tests/e2e" -maxdepth 1 -name 'e2e-*' -type f -exec cp -t "$R/tmem/build/tests/e2e/" {} +
cp -L "$BUILD/demo/tmem-measure" "$R/tmem/build/demo/"
# Those that are run under tmem must not be busybox's, which is linked statically.
for p in bash sh setpriv timeout pgrep ps env getconf true cat sleep; do
	cp -L "$(type -P "$p")" "$R/bin/$p" || exit 1
done
cp "$(type -P busybox)" "$R/bin/busybox"
for f in "$R"/bin/* "$R"/tmem/build/tmem "$R"/tmem/build/tests/e2e/* "$R"/tmem/build/demo/*; do
	ldd "$f" 2>/dev/null | grep -o '/[^ ]*' | while read -r lib; do
		[ -e "$R$lib" ] || { mkdir -p "$R$(dirname "$lib")" && cp -L "$lib" "$R$lib"; }
	done
done
echo 'root:x:0:0::/:/bin/sh' >"$R/etc/passwd"
{
	cat <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TMPDIR=/tmp TMEM_BUILD=/tmem/build TMEM_SLOW=1
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
ln -s /proc/self/fd /dev/fd
ip link set lo up 2>/dev/null
echo 1 >/proc/sys/kernel/panic_on_oops
echo "kernel: $(uname -r), $(nproc) processors"
bad=0
INIT
	for t; do
		printf 'echo "== %s"\nbash /tmem/tests/e2e/%s.sh %s || bad=$((bad + 1))\n' "$t" "${t%% *}" "${t#"${t%% *}"}"
	done
	echo 'echo "== the end: $bad scripts failed"; dmesg | grep -E "BUG|WARNING|Oops" | head -5; poweroff -f'
} >"$R/init"
chmod +x "$R/init"
(cd "$R" && find . | cpio -o -H newc --quiet | gzip -1) >"$T/initramfs" || exit 1

# ---- the machine
accel=${TMEM_ACCEL:-tcg,thread=multi} # kvm where it works: a device of that name says little
say "$(basename "$KERNEL"), $accel, $(mib "$(stat -c %s "$T/initramfs")") root, at most $SECONDS_MAX s"
timeout -k 5 "$SECONDS_MAX" qemu-system-x86_64 -accel "$accel" -cpu max -smp 2 -m "$MEMORY" -nographic -no-reboot \
	-nic none -monitor none -serial stdio -display none -kernel "$KERNEL" -initrd "$T/initramfs" \
	-append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr" </dev/null 2>"$T/qemu.err" |
	sed -u 's/\r$//; s/^.*\x1b\[2J//' | tee "$W/log"
! grep -E "^(skip run_|not ok )" "$W/log" && grep -q "^ok " "$W/log" || exit 1
grep -q '^== the end: 0 scripts failed' "$W/log" && exit 0
grep -q '^== the end' "$W/log" || say "it did not come to its end: $(tail -n 1 "$T/qemu.err")"
exit 1
