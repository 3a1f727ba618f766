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
	rm -rf "$P/b" # the same place, for its path is in the objects
	CC=$COMPILER meson setup "$P/b" "$P/tree" -Dbuildtype=plain -Db_lto=true -Dc_args=-frandom-seed=1 -Doptimization=2 -Dtests=false >"$W/setup.log" 2>&1 || return
	"${RUN[@]}" ninja -j2 -C "$P/b" tmem >"$W/ninja.log" 2>&1 || return
	(cd "$P/b" && find . -name '*.o' | sort | xargs sha256sum)
	"$P/b/tmem" --version
}
