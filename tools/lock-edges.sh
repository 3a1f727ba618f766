#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Prints every pair of locks that the tests really nest, "held -> taken", each with one call path:
# the source of the table in docs/architecture.md. Works on a copy of the tree whose lock.c writes
# down each new pair; the tree itself is not touched. Locks that are a test's own are left out.
#
#   tools/lock-edges.sh [TEST...]     default: all unit, model and fault tests
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
. "$ROOT/tools/lib.sh"
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
trap 'exit 130' INT TERM

mkdir "$T/tree"
tar -C "$ROOT" --exclude='./build*' --exclude=./.git -cf - . | tar -C "$T/tree" -xf -
awk '/^static void held_push/ {
	print "#include <execinfo.h>"
	print "#include <fcntl.h>"
	print "#include <stdlib.h>"
	print "#include <unistd.h>"
	print "static void edge_note(const struct os_mutex *m)"
	print "{"
	print "\tstatic _Atomic(const char *) seen[4096][2];"
	print "\tstatic _Atomic unsigned n;"
	print "\tconst char *h = held[nr_held - 1]->name, *path = getenv(\"TMEM_LOCK_EDGES\");"
	print "\tvoid *at[24];"
	print "\tint depth, fd;"
	print "\tunsigned i;"
	print "\tfor (i = 0; i < n && i < 4096; i++)"
	print "\t\tif (seen[i][0] == h && seen[i][1] == m->name)"
	print "\t\t\treturn;"
	print "\ti = n++;"
	print "\tif (i >= 4096 || !path)"
	print "\t\treturn;"
	print "\tseen[i][0] = h;"
	print "\tseen[i][1] = m->name;"
	print "\tfd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);"
	print "\tif (fd < 0)"
	print "\t\treturn;"
	print "\tdprintf(fd, \"EDGE\\t%s %d\\t%s %d\\n\", h, (int)held[nr_held - 1]->rank, m->name, (int)m->rank);"
	print "\tdepth = backtrace(at, 24);"
	print "\tbacktrace_symbols_fd(at, depth, fd);"
	print "\tclose(fd);"
	print "}"
}
{ print }
/too many locks/ { print "\tif (nr_held > 0)\n\t\tedge_note(m);" }' "$ROOT/src/os/lock.c" >"$T/tree/src/os/lock.c"
meson setup "$T/build" "$T/tree" -Dchecks=1 -Dwerror=false -Dbuildtype=debug >"$T/log" 2>&1 &&
	ninja -k 0 -C "$T/build" >"$T/log" 2>&1 || say "some targets did not build" >&2
export TMEM_LOCK_EDGES=$T/edges
meson test -C "$T/build" --no-rebuild --num-processes 2 "$@" >/dev/null 2>&1 </dev/null
# addr2line by program; frames of the checker itself left out, and locks that are a test's own.
python3 - "$T/edges" "$ROOT/src" <<'PY'
import pathlib, re, subprocess, sys
edges, cur = {}, None
text = "".join(p.read_text() for p in pathlib.Path(sys.argv[2]).rglob("*.c"))
ours = lambda lock: '"%s"' % lock.rsplit(" ", 1)[0] in text
for line in open(sys.argv[1]):
    if line.startswith("EDGE"):
        cur = tuple(line.rstrip("\n").split("\t")[1:])
        keep = cur not in edges and all(map(ours, cur))
        if keep:
            edges[cur] = []
    elif keep:
        m = re.match(r"(.*?)\((.*?)\)\s*\[", line)
        if not m:
            continue
        prog, off = m.groups()
        if off.startswith("+"):
            out = subprocess.run(["addr2line", "-fe", prog, off[1:]], capture_output=True, text=True).stdout
            name = out.split("\n")[0]
        else:
            name = off.split("+")[0]
        if name and name not in ("edge_note", "held_push", "os_mutex_lock", "os_mutex_trylock", "??"):
            edges[cur].append(name)
for (held, taken), path in sorted(edges.items()):
    print("%-28s -> %-28s %s" % (held, taken, " < ".join(path[:8])))
PY
