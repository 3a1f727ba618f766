# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2154
# What the programs' scripts share. A script here is sourced by tools/programs.sh and defines
#
#   PACKAGES    what it needs, by Debian 12 package names
#   prepare     once, before any run: data, sources; 0 or a reason on standard output (optional)
#   workload    does its thing with the program started as "${RUN[@]}" PROGRAM ARG..., in the empty
#               folder $W, and prints answers to standard output. These are compared with those of
#               the bare run, byte by byte; what checks itself says so in a line. Exit code 0: all
#               answers are right by what the workload knows itself.
#   LEAST       the smallest limit in MiB (optional; the engine's own is 32)
#   SHOULD      "right" (the default), "refused" or "unmanaged": what is to become of it
#   MOST_FAULTS as many faults at most (optional)
#   LEAVES      as many pages have to leave at least (optional)
#   WORD        for the latter: a word that what tmem says to the user has to hold
#
# RUN is the measuring wrapper, for the second run with tmem run behind it.

# A server that workload starts: it is waited for in the end, its exit code must be 0 or SERVER_CODES.
server_start() { # COMMAND...
	"${RUN[@]}" "$@" >>"$W/server.log" 2>&1 &
	SERVER=$!
}
# until_up SECONDS COMMAND...: until the command succeeds.
until_up() {
	local i n=$(($1 * 10))
	shift
	for ((i = 0; i < n; i++)); do
		"$@" >/dev/null 2>&1 && return 0
		[ -z "${SERVER:-}" ] || kill -0 "$SERVER" 2>/dev/null || break
		sleep 0.1
	done
	echo "not up: $*; $(tail -n 2 "$W/server.log" 2>/dev/null | tr '\n' ' ')" >&2
	return 1
}
# The server was told to end.
server_wait() {
	local code
	wait "$SERVER"
	code=$?
	SERVER=
	case " 0 ${SERVER_CODES:-} " in
	*" $code "*) return 0 ;;
	esac
	echo "the server's exit code: $code; $(tail -n 2 "$W/server.log" | tr '\n' ' ')" >&2
	return 1
}
# as_user USER: RUN starts things as USER, with CAP_SYS_PTRACE, so that forks are told of, and nothing else.
as_user() {
	WRAP=(setpriv --reuid="$1" --regid="$(id -g "$1")" --clear-groups --inh-caps=-all,+sys_ptrace
		--ambient-caps=+sys_ptrace --bounding-set=-all,+sys_ptrace)
}
# as_plain USER: with no capability at all, and a /dev/userfaultfd of its own that it may use.
as_plain() {
	WRAP=(unshare --mount sh -c '
		d=$(mktemp -d) && mount -t tmpfs none "$d" && mknod "$d/u" c $(stat -c "0x%t 0x%T" "$1") &&
		chmod 666 "$d/u" && mount --bind "$d/u" "$1" && umount -l "$d" && rmdir "$d" || exit 126
		shift
		exec "$@"' sh /dev/userfaultfd
		setpriv --reuid="$1" --regid="$(id -g "$1")" --clear-groups --inh-caps=-all --bounding-set=-all)
}
