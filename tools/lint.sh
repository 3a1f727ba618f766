#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Style and static checks. Prints findings, then one line; exit code 1 when there are any.
#
#   tools/lint.sh               everything
#   tools/lint.sh CHECK...      of: includes calls spdx format tidy cppcheck
#   tools/lint.sh -h
#
# Findings that were looked at and are wrong are listed, with the reason, in tools/lint-known.
#
# Needs clang-format, clang-tidy (14) and cppcheck; a check whose tool is missing is skipped and
# the last line says so. TMEM_LINT_JOBS: how many at once (default: the processors).
set -u
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
cd "$ROOT" || exit 1

case ${1:-} in
-h | --help)
	sed -n '3,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
	exit 0
	;;
esac
CHECKS=("$@")
[ $# -gt 0 ] || CHECKS=(includes calls spdx format cppcheck tidy)
JOBS=${TMEM_LINT_JOBS:-$(nproc)}
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
FAILED=() SKIPPED=()

# The first of several names of one tool.
tool() {
	local t
	for t; do
		command -v "$t" && return 0
	done
	return 1
}

# Files of the tree: what git knows, and what is new.
files() {
	git ls-files --cached --others --exclude-standard -- "$@" | sort -u | while read -r f; do
		[ -e "$f" ] && echo "$f"
	done
}

# Findings less those of tools/lint-known: lines of "PATH CHECK  # why".
unknown_findings() {
	awk 'NR == FNR { if ($1 !~ /^#/ && NF >= 2) { path[++n] = $1; check[n] = "[" $2 "]" } next }
		{ for (i = 1; i <= n; i++)
			if (index($0, path[i] ":") == 1 && index($0, check[i])) next
		  print }' tools/lint-known "$1"
}

check_includes() { tools/check-includes.sh; }
check_calls() { tools/check-calls.sh; }

# Every source says its licence in its first lines.
check_spdx() {
	local f bad=0
	while read -r f; do
		if ! head -n 3 "$f" | grep -q 'SPDX-License-Identifier: BSD-2-Clause'; then
			echo "$f: no SPDX line"
			bad=1
		fi
	done < <(files '*.c' '*.h' '*.sh' '*.py' 'meson.build')
	return $bad
}

check_format() {
	local t
	t=$(tool clang-format-14 clang-format) || return 77
	files 'src/*.[ch]' 'include/*.h' 'tests/*.[ch]' 'bench/*.[ch]' >"$WORK/format"
	xargs -r -P "$JOBS" -n 20 "$t" --dry-run -Werror <"$WORK/format" >"$WORK/format.log" 2>&1
	# One line a file is enough: clang-format -i mends them all.
	sed -n 's/^\([^:]*\):[0-9].*code should be clang-formatted.*/\1: not formatted/p' \
		"$WORK/format.log" | sort | uniq -c
	[ ! -s "$WORK/format.log" ]
}

# How the sources are compiled: of an existing build, or of one configured for this.
compile_commands() {
	local dir
	for dir in "${TMEM_BUILD:-build}" "$WORK/build"; do
		[ -e "$dir/compile_commands.json" ] && break
	done
	if [ ! -e "$dir/compile_commands.json" ]; then
		meson setup "$dir" . >"$WORK/meson.log" 2>&1 || {
			tail -n 5 "$WORK/meson.log" >&2
			return 1
		}
	fi
	echo "$dir"
}

check_tidy() {
	local t dir
	t=$(tool clang-tidy-14 clang-tidy) || return 77
	dir=$(compile_commands) || return 1
	python3 - "$dir/compile_commands.json" "$ROOT" >"$WORK/tidy" <<'PY'
import json, os, sys
root = sys.argv[2]
seen = set()
for c in json.load(open(sys.argv[1])):
    path = os.path.relpath(os.path.join(c["directory"], c["file"]), root)
    if path.startswith("src/") and os.path.exists(os.path.join(root, path)):
        seen.add(path)
print("\n".join(sorted(seen)))
PY
	# gcc's options that clang does not have are no finding.
	xargs -r -P "$JOBS" -n 1 "$t" -p "$dir" --quiet --extra-arg=-Wno-unknown-warning-option \
		--extra-arg=-Wno-unused-command-line-argument <"$WORK/tidy" >"$WORK/tidy.log" 2>"$WORK/tidy.err"
	grep -E ': (warning|error): ' "$WORK/tidy.log" |
		sed -E "s|^([^: ]*/)?${ROOT##*/}/||; s|^([^: ]*/)?\.\./(src\|include)/|\2/|" | sort -u >"$WORK/tidy.all"
	unknown_findings "$WORK/tidy.all" >"$WORK/tidy.found"
	cat "$WORK/tidy.found"
	[ ! -s "$WORK/tidy.found" ]
}

check_cppcheck() {
	tool cppcheck >/dev/null || return 77
	cppcheck --quiet --std=c11 --language=c -j "$JOBS" --inline-suppr \
		--enable=warning,performance,portability --suppressions-list=tools/cppcheck.suppress \
		--library=posix --template='{file}:{line}: {severity}: {message} [{id}]' \
		-D_GNU_SOURCE -DTMEM_CHECKS=1 -D__x86_64__ '-DTMEM_VERSION="0"' -I src -I include src \
		>"$WORK/cppcheck.all" 2>&1
	unknown_findings "$WORK/cppcheck.all" >"$WORK/cppcheck.found"
	cat "$WORK/cppcheck.found"
	[ ! -s "$WORK/cppcheck.found" ]
}

for c in "${CHECKS[@]}"; do
	if ! declare -F "check_$c" >/dev/null; then
		echo "lint: no check '$c'; known: includes calls spdx format cppcheck tidy" >&2
		exit 2
	fi
	started=$SECONDS
	"check_$c" >"$WORK/out" 2>&1
	status=$?
	case $status in
	0) echo "ok     $c ($((SECONDS - started)) s)" ;;
	77)
		echo "skip   $c: its tool is not installed"
		SKIPPED+=("$c")
		;;
	*)
		echo "not ok $c"
		sed 's/^/  /' "$WORK/out"
		FAILED+=("$c")
		;;
	esac
done
echo "lint: ${#CHECKS[@]} checks; failed: ${FAILED[*]:-none}; skipped: ${SKIPPED[*]:-none}"
[ ${#FAILED[@]} = 0 ]
