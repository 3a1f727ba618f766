# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034
# Shell functions of the scripts: what to install, how to build, where things are.
# Sourced, not run. The caller has set ROOT, the top of the source tree.

# What each job needs, by Debian 12 package name.
PKGS_BUILD=(gcc libc6-dev meson ninja-build pkg-config
	libssl-dev liblz4-dev libzstd-dev libdeflate-dev libxxhash-dev libjansson-dev libfuse3-dev)
PKGS_DEMO=(libsqlite3-dev zlib1g-dev)
# liblzo2-dev: for the module tmem-codec-lzo alone, so that it is tested.
PKGS_TEST=(libcmocka-dev spin liblzo2-dev man-db groff-base
	sqlite3 python3 libpython3.11-testsuite redis-tools stress-ng memtester fuse3)
PKGS_LINT=(clang-format-14 clang-tidy-14 cppcheck)

say() { printf '%s\n' "$*"; }
die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# need_packages WHAT_FOR PACKAGE...: installs those that are missing and says so. Returns 1 when
# something is missing and cannot be installed; the reason has been printed.
need_packages() {
	local what=$1 p have missing=() log
	shift
	if ! command -v dpkg-query >/dev/null; then
		say "not a Debian system: nothing installed; $what needs the equivalents of: $*"
		return 0
	fi
	have=$(dpkg-query -W -f='${Package}:${db:Status-Status}\n' "$@" 2>/dev/null)
	for p; do
		grep -qx "$p:installed" <<<"$have" || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	if [ -n "${TMEM_NO_INSTALL:-}" ] || [ "$(id -u)" != 0 ]; then
		say "missing for $what: ${missing[*]}"
		say "install by root:  apt-get install --no-install-recommends ${missing[*]}"
		return 1
	fi
	say "installing for $what (apt-get, no recommended packages): ${missing[*]}"
	log=$(mktemp)
	if ! { { [ -n "${APT_UPDATED:-}" ] || apt-get -o DPkg::Lock::Timeout=300 update; } &&
		DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y \
			--no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
		tail -n 15 "$log" >&2
		rm -f "$log"
		say "apt-get failed"
		return 1
	fi
	APT_UPDATED=1
	rm -f "$log"
}

# build_tree DIR TARGETS MESON_OPTION...: configures DIR when it is new, builds the targets (a
# list in one word; "" for all), and puts links to the products into DIR. On failure the end of
# the log is printed.
build_tree() {
	local dir=$1 targets=$2 log
	shift 2
	mkdir -p "$dir"
	log=$dir/build.log
	if [ ! -f "$dir/build.ninja" ]; then
		say "configuring ${dir#"$ROOT"/}: meson setup $*"
		# A half-made folder of an interrupted run is no obstacle.
		rm -rf "$dir/meson-private" "$dir/meson-info"
		if ! meson setup "$dir" "$ROOT" "$@" >"$log" 2>&1 </dev/null; then
			tail -n 30 "$log" >&2
			return 1
		fi
	elif [ $# -gt 0 ]; then
		meson configure "$dir" "$@" >"$log" 2>&1 </dev/null || : # refused: as it was made
	fi
	# shellcheck disable=SC2086 # a list
	if [ -t 1 ]; then
		ninja -C "$dir" $targets || return 1
	elif ! ninja -C "$dir" $targets >"$log" 2>&1 </dev/null; then
		grep -A12 -E 'FAILED|error:' "$log" | head -n 60 >&2
		return 1
	fi
	link_products "$dir"
}

# The products have their places in the top of the build folder, wherever meson makes them.
link_products() {
	local dir=$1 name at
	for name in tmem tmemd libtmem.so libtmem-agent.so; do
		[ -e "$dir/$name" ] && continue
		at=$(find "$dir" -mindepth 2 \( -type f -o -type l \) -name "$name" -print -quit)
		[ -z "$at" ] || ln -sfn "${at#"$dir"/}" "$dir/$name"
	done
}

# number_of FILE KEY: a number of a flat JSON report, or of "key value" lines.
number_of() {
	sed -nE 's/^.*"'"$2"'": *(-?[0-9.eE+-]+).*$/\1/p; s/^'"$2"' +(-?[0-9.eE+-]+)$/\1/p' "$1" 2>/dev/null |
		tail -n 1
}
# calc EXPRESSION [FORMAT]
calc() { awk "BEGIN { printf \"${2:-%.0f}\", ($1) }"; }
mib() { calc "${1:-0} / 1048576" '%.0f MiB'; }

# run_works BUILD_DIR: whether `tmem run` can be had here; the reason in RUN_REASON if not.
# shellcheck disable=SC2034 # the callers read RUN_REASON and RUN_STATUS
run_works() {
	RUN_REASON=$("$1/tmem" run -- /bin/true 2>&1 </dev/null)
	RUN_STATUS=$?
	RUN_REASON=$(printf '%s\n' "${RUN_REASON:-exit code $RUN_STATUS}" | head -n 1)
	[ "$RUN_STATUS" = 0 ]
}
