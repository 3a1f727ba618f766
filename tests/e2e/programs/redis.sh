# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# redis: BGSAVE and AOF rewriting while it is written to (fork, copy on write), replication to a
# second server; every value is compared, on both, and after the files were loaded again.
PACKAGES=(redis-server redis-tools python3)
PEAK_OF=peak_one_bytes # a save shares all of it
KEYS=60000
WHO=primary # which of the two is limited
prepare() {
	cat >keys.py <<'PY'
import hashlib, socket, sys
mode, n, version, path = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def value(i, v):
    return ('{"id":%d,"name":"user %d","v":%d,"tags":["%s","t%d"],"key":"%s","seen":[%s]}'
            % (i, i * 7919 % n, v, "abcdefgh"[i % 8] * (i % 13), i % 97,
               hashlib.sha512(b"%d" % (i + v)).hexdigest(), ("[%d,%d]," % (i * 31, i * 17)) * 40)).encode()
s = socket.socket(socket.AF_UNIX); s.connect(path)
f = s.makefile("rb")
def version_of(i): return version if i % 3 == 0 else 0
wrong = 0
keys = [i for i in range(n) if mode != "update" or i % 3 == 0]
for a in range(0, len(keys), 200):
    part = keys[a:a + 200]
    for i in part:
        k, v = b"k%d" % i, value(i, version_of(i))
        if mode == "check": s.sendall(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(k), k))
        else: s.sendall(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(k), k, len(v), v))
    for i in part:
        line = f.readline()
        if mode == "check":
            got = f.read(int(line[1:]) + 2)[:-2] if line[:1] == b"$" and line != b"$-1\r\n" else line
            if got != value(i, version_of(i)):
                wrong += 1
                if wrong < 4: print("key", i, "is", got[:100], file=sys.stderr)
        elif line != b"+OK\r\n":
            print(line, file=sys.stderr); wrong += 1
print(mode, n, version, "wrong", wrong)
sys.exit(wrong != 0)
PY
}
cli() { redis-cli -s "$W/$1.sock" "${@:2}" 2>/dev/null; }
field() { cli "$1" info | tr -d '\r' | sed -n "s/^$2://p"; }
pong() { [ "$(cli "$1" ping)" = PONG ]; }
no_save() { [ "$(field "$1" rdb_bgsave_in_progress)$(field "$1" aof_rewrite_in_progress)" = 00 ]; }
in_step() { # same offset, and the link is up
	[ "$(field replica master_link_status)" = up ] &&
		[ "$(field primary master_repl_offset)" = "$(field replica master_repl_offset)" ]
}
keys() { python3 "$P/keys.py" "$2" "$KEYS" "$3" "$W/$1.sock"; }
conf() { # NAME DIR
	mkdir -p "$W/$2"
	echo "--port 0 --unixsocket $W/$1.sock --dir $W/$2 --save '' --daemonize no --loglevel warning"
}
workload() {
	local port=$((20000 + RANDOM % 20000)) one=() two=()
	if [ $WHO = primary ]; then one=("${RUN[@]}"); else two=("${RUN[@]}"); fi
	RUN=("${one[@]}")
	server_start redis-server $(conf primary data) --port $port --bind 127.0.0.1 --appendonly yes --appendfsync no
	A=$SERVER
	until_up 30 pong primary && keys primary load 0 || return
	cli primary bgsave >/dev/null && keys primary update 1 && keys primary check 1 || return
	until_up 120 no_save primary || return
	[ "$(field primary rdb_last_bgsave_status)" = ok ] || return
	cli primary bgrewriteaof >/dev/null && keys primary update 2 || return
	until_up 120 no_save primary || return
	[ "$(field primary aof_last_bgrewrite_status)" = ok ] || return
	RUN=("${two[@]}")
	server_start redis-server $(conf replica replica) --replicaof 127.0.0.1 $port
	B=$SERVER
	until_up 30 pong replica && keys primary update 3 && until_up 120 in_step || return
	keys primary check 3 && keys replica check 3 || return
	cli replica shutdown nosave
	cli primary shutdown nosave
	SERVER=$A server_wait && SERVER=$B server_wait || return
	# The log, loaded by a fresh server.
	RUN=()
	server_start redis-server $(conf primary data) --appendonly yes
	until_up 60 pong primary && until_up 60 keys primary check 3 && keys primary check 3 || return
	cli primary shutdown nosave
	server_wait
}
