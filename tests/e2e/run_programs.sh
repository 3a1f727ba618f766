#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The short ones of tools/programs.sh: what real programs do that is hard on a pager, each in a pure
# form. The long version runs them all, at half and at a third of what they take bare.
. "$(dirname "$0")/lib.sh"
need_run
names=(hard-uffd clean-env)
shares=(50)
if [ -n "$LONG" ]; then
	names=() shares=(50 33)
else
	export TMEM_NO_INSTALL=1
fi
for share in "${shares[@]}"; do
	while read -r line; do
		name=${line%% *}
		note "$line"
		case $line in
		program*) ;;
		*skipped:*) skip "$name.$share" "${line#*skipped: }" ;;
		*WRONG:*) not_ok "$name.$share" "${line#*WRONG: }" ;;
		*" right"* | *" refused:"*) ok "$name.$share" ;;
		*) not_ok "$name.$share" "$line" ;;
		esac
	done < <(TMEM_BUILD=$BUILD "$ROOT/tools/programs.sh" -l "$share" "${names[@]}" 2>"$T/err")
	sed 's/^/# /' "$T/err"
done
# What the host knew of a thousand children goes when they have: the sum in the quiet after them, of
# the sh and the host, is small. (The store's own is a few MiB.)
"$TMEM" run --limit 64M --report "$T/after.json" -- \
	sh -c '"$1" rawclone 8 && sleep 3' sh "$BUILD/tests/e2e/programs/e2e-hard" >"$T/after.out" 2>"$T/after.err"
left=$(sed -n '/"series"/,$s/^.*"total_bytes": *\[\(.*\)\].*/\1/p' "$T/after.json" | tr -d ' ' | tr ',' '\n' |
	awk '{ at[NR] = $1 } END { for (i = int(NR * 0.8); i <= NR; i++) if (!least || at[i] < least) least = at[i]; print least + 0 }')
note "after a thousand children: $(mib "$left")"
check host.forgets "$(mib "$left") a moment after them; $(tail -n 1 "$T/after.err")" \
	test "${left:-0}" -gt 0 -a "${left:-0}" -lt $((16 << 20))
# A child's agent asks to die with the host: not by the last word of its own greeting.
for _ in 1 2 3; do
	"$TMEM" run --evict discard --limit 64M -- "$BUILD/tests/e2e/programs/e2e-hard" children 8
done >"$T/greeted" 2>&1
check discard.children "$(grep -v '^1000' "$T/greeted" | tail -n 1)" test "$(grep -c '^children right' "$T/greeted")" = 3
finish
