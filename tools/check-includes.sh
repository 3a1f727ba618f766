#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The folders are the architecture: fails on an #include that points the wrong way.
#
#   tools/check-includes.sh [DIR]     DIR: the top of the source tree
#
# The table below is design, not description: a new entry is a decision.
set -u
ROOT=${1:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
cd "$ROOT/src" || exit 1

# FOLDER: what its files may include, by the first part of the path. More precise folders first.
allowed() {
	case $1 in
	os/*) echo "os" ;;
	codec/*) echo "os codec" ;;
	alloc/*) echo "os alloc" ;;
	index/*) echo "os alloc index" ;;
	trace/*) echo "os trace" ;;
	zcache/*) echo "os codec alloc index trace zcache tmem" ;;
	proto/*) echo "os proto" ;;
	# In the target, with nothing of ours beside it.
	frontswap/agent/*) echo "proto frontswap" ;;
	frontswap/*) echo "os proto tmem frontswap" ;;
	cleancache/* | tmemd/*) echo "os proto tmem zcache ramster ${1%%/*}" ;;
	ramster/*) echo "os proto tmem zcache ramster" ;;
	# The command line: public interfaces, and the components that it measures.
	cli/*) echo "os codec alloc trace proto tmem frontswap cleancache cli" ;;
	*) echo "" ;;
	esac
}

# May this file include that one although the folders fit?
refused() {
	case $1:$2 in
	# What runs in the target is reached through its protocol alone.
	frontswap/agent/*:frontswap/agent/* | frontswap/agent/*:frontswap/uffd.h) return 1 ;;
	frontswap/agent/*:frontswap/*) return 0 ;;
	*:frontswap/agent/*) return 0 ;;
	# Of the file system the command line sees its front door.
	cli/*:cleancache/mount.h) return 1 ;;
	cli/*:cleancache/*) return 0 ;;
	# A component's inner headers are not for others.
	*:*internal*) [ "${1%%/*}" != "${2%%/*}" ] ;;
	*) return 1 ;;
	esac
}

bad=0
while IFS=: read -r file line text; do
	target=${text#*\"}
	target=${target%%\"*}
	if [ "$target" = "${target#*/}" ]; then
		echo "src/$file:$line: \"$target\": say the folder, \"${file%/*}/$target\""
		bad=$((bad + 1))
		continue
	fi
	# `tmem bench` runs what bench/ measures, through bench/'s own headers.
	[[ $file:$target == cli/bench*.c:../bench/*.h ]] && continue
	if [[ " $(allowed "$file") " != *" ${target%%/*} "* ]] || refused "$file" "$target"; then
		echo "src/$file:$line: ${file%/*} may not include \"$target\""
		bad=$((bad + 1))
	fi
done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]+"' --include='*.[ch]' . | sed 's|^\./||')

# The public header is complete by itself.
if grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]+"' ../include/tmem/*.h; then
	bad=$((bad + 1))
fi
echo "includes: $bad wrong"
[ "$bad" = 0 ]
