# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# memcached: slabs, threads, and values that are written anew; each is compared.
PACKAGES=(memcached python3)
prepare() {
	cat >client.py <<'PY'
import hashlib, socket, sys
n, path = int(sys.argv[1]), sys.argv[2]
s = socket.socket(socket.AF_UNIX); s.connect(path); f = s.makefile("rb")
def value(i, v): return (hashlib.sha256(b"%d %d" % (i, v)).hexdigest() + "x%d" % i * (i % 97)).encode()
def put(keys, v):
    for a in range(0, len(keys), 100):
        for i in keys[a:a+100]:
            d = value(i, v); s.sendall(b"set k%d 0 0 %d\r\n%s\r\n" % (i, len(d), d))
        for i in keys[a:a+100]:
            assert f.readline() == b"STORED\r\n"
def check(version):
    wrong = 0
    for a in range(0, n, 100):
        s.sendall(b"".join(b"get k%d\r\n" % i for i in range(a, min(a+100, n))))
        for i in range(a, min(a+100, n)):
            head = f.readline().split()
            if head[0] == b"END": wrong += 1; continue
            got = f.read(int(head[3]) + 2)[:-2]; f.readline()
            wrong += got != value(i, version(i))
    print("wrong", wrong); assert not wrong
put(range(n), 0); check(lambda i: 0)
put(range(0, n, 3), 1); check(lambda i: i % 3 == 0)
for i in range(0, n, 1000):
    s.sendall(b"append k%d 0 0 1\r\n!\r\n" % i); assert f.readline() == b"STORED\r\n"
    s.sendall(b"get k%d\r\n" % i); h = f.readline().split(); assert f.read(int(h[3]) + 2)[:-3] == value(i, i % 3 == 0); f.readline()
print("right")
PY
}
workload() {
	SERVER_CODES="0 143"
	server_start memcached -u root -m 400 -t 4 -s "$W/s"
	until_up 20 test -S "$W/s" && python3 "$P/client.py" 200000 "$W/s" || return
	pkill -TERM -P "$SERVER" 2>/dev/null || kill -TERM "$SERVER"
	server_wait
}
