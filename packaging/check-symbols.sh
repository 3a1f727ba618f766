#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# check-symbols.sh LIBRARY HEADER: the library exports what the header declares, and no more.
set -eu
exported=$(nm -D --defined-only "$1" | awk '$2 == "T" { sub("@.*", "", $3); print $3 }' | sort)
declared=$(grep '^TMEM_API' "$2" | grep -o 'tmem_[a-z_]*(' | tr -d '(' | sort)
[ "$exported" = "$declared" ] && exit 0
echo "exported and declared differ:"
printf '%s\n' "$exported" >"${TMPDIR:-/tmp}/exported.$$"
printf '%s\n' "$declared" | diff "${TMPDIR:-/tmp}/exported.$$" - || true
rm -f "${TMPDIR:-/tmp}/exported.$$"
exit 1
