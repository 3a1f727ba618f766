# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Programs started with an environment that has none of our variables, or another LD_PRELOAD: they
# are under the limit all the same.
PACKAGES=(libjemalloc2 python3)
LEAVES=20000 # pages, at least, of both
workload() {
	"${RUN[@]}" sh -c '
		env -i PATH="$PATH" "$1" direct 96 &&
		LD_PRELOAD=libjemalloc.so.2 exec python3 -c "
import os, subprocess, sys
print(subprocess.run([sys.argv[1], \"fixed\", \"96\"], env={}, stdout=subprocess.PIPE).stdout)
print(\"jemalloc\" in open(\"/proc/self/maps\").read())
pid = os.posix_spawn(sys.argv[1], [sys.argv[1], \"direct\", \"96\"], {\"A\": \"b\"})
print(os.waitpid(pid, 0)[1])
sys.stdout.flush()
os.execve(\"/usr/bin/env\", [\"env\"], {\"ONLY\": \"this\"})" "$1"' sh "$HARD" | grep -v -e ^LD_PRELOAD -e ^TMEM_RUN
	[ "${PIPESTATUS[0]}" = 0 ]
}
