#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Each test that docs/review.md names is there.
. "$(dirname "$0")/lib.sh"
missing=() n=0
while IFS=: read -r file name; do
	n=$((n + 1))
	found=("$ROOT"/tests/*/"$file".c)
	grep -Eqs "(void|int) $name\(" "${found[@]}" || missing+=("$file:$name")
done < <(grep -o '`[a-z_0-9]*:[a-z_0-9]*`' "$ROOT/docs/review.md" | grep -v '^`file:test`$' | tr -d '`' | sort -u)
check review "not there: ${missing[*]}" test ${#missing[@]} = 0
check review.read "only $n tests are named" test "$n" -ge 20
finish
