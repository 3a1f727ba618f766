# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# gcc and ninja build this very tree's library, two compilers at a time; the objects are compared.
PACKAGES=("${PKGS_BUILD[@]}")
COMPILER=gcc
prepare() { # a copy: somebody may be working on it
	mkdir tree && tar -C "$ROOT" --exclude-from="$ROOT/.gitignore" --exclude=.git -cf - src include tests/meson.build demo docs bench \
		packaging meson.build meson_options.txt tests | tar -C tree -xf -
}
workload() {
	CC=$COMPILER meson setup "$W/b" "$P/tree" -Dbuildtype=plain -Db_lto=true -Dc_args=-frandom-seed=1 -Doptimization=2 -Dtests=false >"$W/setup.log" 2>&1 || return
	"${RUN[@]}" ninja -j2 -C "$W/b" tmem >"$W/ninja.log" 2>&1 || return
	(cd "$W/b" && find . -name '*.o' | LC_ALL=C sort | xargs sha256sum) | sed "s|$W||"
	"$W/b/tmem" --version
}
