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
finish
