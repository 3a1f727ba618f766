#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# redis with a loaded data set that is saved (BGSAVE: fork, and copy on write while pages are out) while
# a fifth of it is written anew, in half of the server's memory: every value before, during and after,
# and the saved file by loading it in a fresh server.
. "$(dirname "$0")/lib.sh"
need_program redis-cli /usr/bin/python3
# The server is the same binary by another name; redis-tools has it, and starts no daemon.
SERVER=$(command -v redis-server || command -v redis-check-rdb) || {
	skip "$TEST" "redis is not installed"
	exit 0
}
ln -s "$(readlink -f "$SERVER")" "$T/redis-server"
need_run
KEYS=$([ -n "$LONG" ] && echo 400000 || echo 70000)
S=$T/redis.sock
cli() { redis-cli -s "$S" "$@" 2>/dev/null; }

# The value of key i, and the protocol stream that sets them all; or reads all and compares.
cat >"$T/keys.py" <<'PY'
import hashlib, socket, sys
mode, n, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def value(i, v=0):
    return ('{"id":%d,"name":"user %d","mail":"u%d@example.org","v":%d,"tags":["%s","t%d"],"score":%d,"key":"%s","seen":[%s]}'
            % (i, i * 7919 % n, i, v, "abcdefgh"[i % 8] * (i % 13), i % 97, i * i % 100003,
               hashlib.sha512(b"%d" % i).hexdigest(), ("[%d,%d]," % (i * 31, i * 17)) * 40)).encode()
# One key in five was written anew while the save ran.
version = (lambda i: 1 if i % 5 == 0 else 0) if mode in ("check1", "update") else (lambda i: 0)
s = socket.socket(socket.AF_UNIX); s.connect(path)
f = s.makefile("rb")
def batch(keys, cmd, expect):
    s.sendall(b"".join(cmd(i) for i in keys))
    for i in keys:
        expect(i)
def set_cmd(i):
    k, v = b"k%d" % i, value(i, version(i))
    return b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(k), k, len(v), v)
def get_cmd(i):
    k = b"k%d" % i
    return b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(k), k)
def set_reply(i):
    line = f.readline()
    assert line == b"+OK\r\n", line
bad = 0
def get_reply(i):
    global bad
    line = f.readline()
    got = f.read(int(line[1:]) + 2)[:-2] if line[:1] == b"$" and line != b"$-1\r\n" else line
    either = mode == "either" and got == value(i, 1 if i % 5 == 0 else 0)
    if got != value(i, version(i)) and not either:
        bad += 1
        if bad < 4:
            print("key", i, "is", got[:120], file=sys.stderr)
if mode == "update":
    s.sendall(b"BGSAVE\r\n")
    line = f.readline()
    assert line.startswith(b"+Background saving started"), line
keys = range(0, n, 5) if mode == "update" else range(n)
for a in range(0, len(keys), 200):
    part = keys[a:a + 200]
    if mode in ("load", "update"):
        batch(part, set_cmd, set_reply)
    else:
        batch(part, get_cmd, get_reply)
print(mode, len(keys), "bad", bad)
sys.exit(bad != 0)
PY
keys() { /usr/bin/python3 "$T/keys.py" "$1" "$KEYS" "$S" >>"$T/keys.log" 2>&1; }

# start NAME LIMIT_BYTES (0: bare)
start() {
	local i
	local server=("$T/redis-server" --port 0 --unixsocket "$S" --dir "$T" --save "" --appendonly no
		--dbfilename dump.rdb --daemonize no --loglevel warning)
	if [ "$2" = 0 ]; then
		"$MEASURE" --report "$T/$1.json" -- "${server[@]}" >"$T/$1.out" 2>&1 &
	else
		"$MEASURE" --report "$T/$1.json" -- "$TMEM" run --limit "$(($2 / 1024))K" \
			--report "$T/$1.report.json" -- "${server[@]}" >"$T/$1.out" 2>&1 &
	fi
	PID=$!
	PIDS=("$PID")
	for ((i = 0; i < 200; i++)); do
		[ "$(cli ping)" = PONG ] && return 0
		kill -0 "$PID" 2>/dev/null || break
		sleep 0.05
	done
	return 1
}
stop() {
	cli shutdown nosave
	wait "$PID"
	CODE=$?
	PIDS=()
	rm -f "$S"
}
save_done() {
	local i
	for ((i = 0; i < 600; i++)); do
		[ "$(cli info persistence | tr -d '\r' | sed -n 's/^rdb_bgsave_in_progress://p')" = 0 ] && break
		sleep 0.1
	done
	[ "$(cli info persistence | tr -d '\r' | sed -n 's/^rdb_last_bgsave_status://p')" = ok ]
}

start bare 0 && keys load && keys check0 && keys update && save_done || {
	not_ok redis "the bare server failed: $(tail -n 1 "$T/bare.out")"
	finish
}
COPIED=$(cli info persistence | tr -d '\r' | sed -n 's/^rdb_last_cow_size://p')
stop
ONE=$(number_of "$T/bare.json" peak_one_bytes)
# Half of what the server alone takes: the copies that writing beside the save makes, bare too, come
# on top of that, and have to fit as well.
LIMIT=$((ONE / 2 / 4096 * 4096))
note "bare peak $(mib "$ONE"), and $(mib "$COPIED") copied during the save; limit $(mib "$LIMIT")"

busy_from
if ! start tmem "$LIMIT"; then
	not_ok redis "the server did not come up under tmem run: $(tail -n 1 "$T/tmem.out")"
	finish
fi
check redis.load "loading failed" keys load
[ -z "$LONG" ] ||
	check redis.values "values are wrong: $(tail -n 3 "$T/keys.log" | tr '\n' ' ')" keys check0
check redis.update "writing during the save failed" keys update
check redis.values_during "values are wrong during the save" keys check1
check redis.bgsave "the save failed: $(cli info persistence | grep last_bgsave)" save_done
[ -z "$LONG" ] || check redis.values_after "values are wrong after the save" keys check1
stop
busy_to
PEAK=$(number_of "$T/tmem.report.json" peak_total_bytes)
note "peak $(mib "${PEAK:-0}"), sampled from outside $(mib "$(number_of "$T/tmem.json" peak_anon_bytes)")"
check redis.exit "exit code $CODE" test "$CODE" = 0
check_limit tmem

# The save saw the data as it was at the fork: version 0, or what was written before it started.
if start reload 0; then
	check redis.reload "the saved file holds wrong values: $(tail -n 3 "$T/keys.log" | tr '\n' ' ')" keys either
	stop
else
	not_ok redis.reload "a fresh server does not load the file: $(tail -n 1 "$T/reload.out")"
fi
sed 's/^/# /' "$T/keys.log"
finish
