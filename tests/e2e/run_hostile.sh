#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Hostile programs beside an honest one in the same run: they speak to the host with the right token
# and lie (tests/fuzz/hostile.c plays what it is told in bytes). The honest one reads what it wrote;
# the run ends with its exit code; a stranger gets nowhere.
. "$(dirname "$0")/lib.sh"
need_run
PAGES=$BUILD/tests/e2e/e2e-pages
HOSTILE=$BUILD/tests/fuzz/fuzz-hostile
[ -x "$HOSTILE" ] || {
	skip "$TEST" "$HOSTILE is not built"
	exit 0
}
seed=${TMEM_SEED:-$(date +%s)}
note "seed $seed"
RANDOM=$((seed % 32768))
plays=()
for ((i = 0; i < ${LONG:+10 *} 30; i++)); do
	text=01
	for ((k = 0; k < 60; k++)); do printf -v text '%s%02x' "$text" $((RANDOM % 256)); done
	plays+=("$text")
done
# A line each, so that a test that fails can be played again.
printf '%s\n' "${plays[@]}" >"$T/plays"

# shellcheck disable=SC2016 # for the inner shell
limited beside $((40 << 20)) sh -c '
	while read -r play; do
		timeout -s KILL 2 env -u LD_PRELOAD "$1" - "$play" >/dev/null 2>&1
	done <"$2" &
	"$3" touch 64 4 "$4"
	code=$?
	wait
	exit $code' sh "$HOSTILE" "$T/plays" "$PAGES" "$seed"
check beside "exit code $CODE: $(tail -n 1 "$T/beside.tmem.err")" \
	test "$CODE.$(cat "$T/beside.tmem.out")" = "0.all pages right"
check beside.evicted "nothing was evicted" evicted "$T/beside.report.json"

# Somebody else on this machine: the socket is there for all, a handshake is not.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && [ -x /usr/bin/python3 ]; then
	"$TMEM" run --limit 64M -- sh -c 'echo "$TMEM_RUN_SOCKET"; sleep 2' >"$T/stranger.out" 2>"$T/stranger.err" &
	PIDS=($!)
	for ((i = 0; i < 100; i++)); do
		[ -s "$T/stranger.out" ] && break
		sleep 0.05
	done
	# With the token even: hello, and what comes back. Our own user is told that it is wrong.
	cat >"$T/hello.py" <<'PY'
import socket, struct, sys
name, token = sys.argv[1].split(",")[0].rsplit(":", 1)
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.settimeout(5)
try:
    s.connect("\0" + name)
    s.send(struct.pack("<QIIQQiIQQQQ", 0x746d656d61676e74, 4, 1, int(token, 16), 0, -1, 0, 0, 0, 0, 0))
    print(len(s.recv(1000)))
except OSError as e:
    print(0)
PY
	address=$(cat "$T/stranger.out")
	said=$(setpriv --reuid 65534 --regid 65534 --clear-groups /usr/bin/python3 - "$address" <"$T/hello.py")
	check stranger "it was answered with ${said:-?} bytes" test "$said" = 0
	said=$(/usr/bin/python3 - "$address" <"$T/hello.py")
	check ourselves "we were answered with ${said:-?} bytes" test "$said" = 24
	wait "${PIDS[0]}"
	check stranger.code "exit code $?" test $? = 0
	PIDS=()
else
	skip stranger "not root, or no setpriv, or no /usr/bin/python3"
fi
finish
