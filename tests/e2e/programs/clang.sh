# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# The same with clang.
. "$DIR/gcc.sh"
PACKAGES+=(clang-14)
COMPILER=clang-14
