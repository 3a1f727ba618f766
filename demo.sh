#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The demonstration: an in-memory full-text index, once as it is and once in half the memory.
#
#   ./demo.sh [DIR...]    index the text under DIR (default: this machine's documentation,
#                         manual pages, headers and Python sources)
#
# Installs what is missing (Debian 12, as root), builds into build/, runs. Environment:
# TMEM_DEMO_MIB (database size, default 300), TMEM_DEMO_QUERIES (default 2000), TMEM_CODEC
# (passed to tmem run), TMEM_BUILD (build folder), TMEM_NO_INSTALL=1 (never install).
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
. "$ROOT/tools/lib.sh"

case ${1:-} in
-h | --help)
	sed -n '3,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
	exit 0
	;;
-*) die "unknown option $1; see --help" ;;
esac

BUILD=${TMEM_BUILD:-$ROOT/build}
SIZE=${TMEM_DEMO_MIB:-300}
QUERIES=${TMEM_DEMO_QUERIES:-2000}
FTS=$BUILD/demo/tmem-demo-fts
MEASURE=$BUILD/demo/tmem-measure
TMP=
JOB=

cleanup() {
	trap - EXIT INT TERM HUP
	if [ -n "$JOB" ]; then
		kill -TERM "$JOB" 2>/dev/null
		wait "$JOB" 2>/dev/null
	fi
	[ -z "$TMP" ] || rm -rf "$TMP"
}
trap cleanup EXIT
trap 'cleanup; echo; say stopped; exit 130' INT
trap 'cleanup; exit 143' TERM HUP

# In the background, so that a signal is acted on at once and not when the program ends.
job() {
	local status
	"$@" <&0 &
	JOB=$!
	wait "$JOB"
	status=$?
	JOB=
	return $status
}

prepare() {
	need_packages "the build" "${PKGS_BUILD[@]}" || exit 1
	need_packages "the demonstration" "${PKGS_DEMO[@]}" || exit 1
	local opts=()
	# The tests need one library more; a tree that has them keeps them.
	[ -f "$BUILD/build.ninja" ] || opts=(-Dtests=false)
	build_tree "$BUILD" "" "${opts[@]}" || die "the build failed; log: $BUILD/build.log"
	[ -x "$BUILD/tmem" ] || die "the build made no tmem"
	[ -x "$FTS" ] || die "the build made no demo program: is libsqlite3-dev there?"
	TMP=$(mktemp -d) || exit 1
}

sources() {
	local d
	DIRS=()
	if [ $# -gt 0 ]; then
		for d; do
			[ -e "$d" ] || die "$d: no such folder"
			DIRS+=("$d")
		done
		return
	fi
	for d in /usr/share/doc /usr/include /usr/share/man /usr/lib/python3 /usr/lib/python3.11 \
		/usr/share/perl; do
		[ -d "$d" ] && DIRS+=("$d")
	done
	[ ${#DIRS[@]} -gt 0 ] || die "no text found on this machine: give a folder"
}

workload() { printf '%s\n' "$FTS" --size "$SIZE" --queries "$QUERIES" "${DIRS[@]}"; }

# One run under tmem-measure: NAME and a prefix of the command line.
measured() {
	local name=$1
	shift
	mapfile -t WORK < <(workload)
	job "$MEASURE" --report "$TMP/$name.json" -- "$@" "${WORK[@]}" >"$TMP/$name.out" ||
		die "the $name run failed (exit code $?)"
}

bare() {
	say "1. As it is: $SIZE MiB of full-text index in memory, $QUERIES queries, a full check"
	measured bare
	BARE=$(number_of "$TMP/bare.json" peak_anon_bytes)
	LIMIT=$((BARE / 2 / 4096 * 4096))
	say "   $(number_of "$TMP/bare.out" documents) documents," \
		"$(mib "$(number_of "$TMP/bare.out" text_bytes)") of text," \
		"$(number_of "$TMP/bare.json" wall_s) s, peak $(mib "$BARE")"
}

row() { printf '  %-34s %16s %16s\n' "$@"; }

value_of() { sed -n "s/^$2 //p" "$TMP/$1.out"; }

# limited: the same under `tmem run` at half of the peak, and the table.
limited() {
	local codec=() j=$TMP/report.json ok=0 f
	[ -z "${TMEM_CODEC:-}" ] || codec=(--codec "$TMEM_CODEC")
	say "2. The same program in half of that: tmem run --limit $((LIMIT / 1024))K"
	measured tmem "$BUILD/tmem" run --limit "$((LIMIT / 1024))K" "${codec[@]}" --report "$j" --
	[ -s "$j" ] || die "tmem run wrote no report"
	say
	row "" "as it is" "tmem run"
	row "wall time, s" "$(number_of "$TMP/bare.json" wall_s)" "$(number_of "$j" wall_s)"
	for f in index_s query_s check_s; do
		row "  of that: ${f%_s}, s" "$(value_of bare $f)" "$(value_of tmem $f)"
	done
	row "limit" "-" "$(mib "$LIMIT")"
	row "peak, program and store together" "$(mib "$BARE")" "$(mib "$(number_of "$j" peak_total_bytes)")"
	row "  sampled from outside" "" "$(mib "$(number_of "$TMP/tmem.json" peak_anon_bytes)")"
	row "pages stored at the end" "-" "$(number_of "$j" stored_pages)"
	row "pages evicted in all" "-" "$(number_of "$j" evicted_pages)"
	row "faults served" "-" "$(number_of "$j" faults)"
	row "bytes of pages / bytes of store" "-" "$(number_of "$j" ratio)"
	row "digest of all results" "$(value_of bare digest | cut -c-12).." "$(value_of tmem digest | cut -c-12).."
	say
	say "time ratio: $(calc "$(number_of "$j" wall_s) / $(number_of "$TMP/bare.json" wall_s)" %.2f)"
	if [ "$(value_of bare input)" != "$(value_of tmem input)" ]; then
		say "the files under ${DIRS[*]} changed between the runs: not comparable"
	elif [ "$(value_of bare digest)" = "$(value_of tmem digest)" ] && [ -n "$(value_of bare digest)" ]; then
		say "the digests agree: $(value_of bare digest)"
		ok=1
	else
		say "THE DIGESTS DIFFER: $(value_of bare digest) and $(value_of tmem digest)"
	fi
	[ $ok = 1 ]
}

# Where there is no userfaultfd: the same process's pages through the engine.
engine_only() {
	local pid i
	say "2. tmem run cannot be had here: $RUN_REASON"
	if [ "$RUN_STATUS" = 126 ]; then
		say "   To permit it, one of: chmod 666 /dev/userfaultfd (in a container: --device /dev/userfaultfd);"
		say "   sysctl vm.unprivileged_userfaultfd=1; CAP_SYS_PTRACE. The kernel must be 6.8 or later."
	fi
	say "   Instead: the pages of the same process through the engine."
	say
	mapfile -t WORK < <(workload)
	mkfifo "$TMP/hold"
	"${WORK[@]:0:1}" --hold "${WORK[@]:1}" <"$TMP/hold" >"$TMP/held.out" &
	JOB=$! pid=$!
	exec 9>"$TMP/hold"
	for ((i = 0; i < 6000; i++)); do
		grep -q '^digest' "$TMP/held.out" && break
		kill -0 "$pid" 2>/dev/null || die "the program ended early"
		sleep 0.1
	done
	"$BUILD/tmem" estimate "$pid" || die "tmem estimate failed"
	say
	if "$BUILD/tmem" estimate "$pid" --save "$TMP/pages" >/dev/null && [ -s "$TMP/pages" ]; then
		say "every one of those pages put into the store, read back and compared (zstd, 4 together):"
		"$BUILD/demo/tmem-demo-readback" "$TMP/pages" zstd 4 | sed 's/^/  /'
		[ "${PIPESTATUS[0]}" = 0 ] || die "PAGES DIFFER"
		say "every page came back as it was"
	fi
	exec 9>&-
	wait "$pid"
	JOB=
}

prepare
sources "$@"
bare
if run_works "$BUILD"; then
	limited
else
	engine_only
fi
