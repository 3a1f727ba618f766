#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Kills, many times and at random moments, those who serve a program under `tmem run`, or one of the
# program's own processes; also while it starts, forks, executes itself and ends. Each time:
#
#   no process of it has read a wrong byte      nothing of it lives on
#   no socket, mount, or file of it is left     the exit code is a documented one
#
#   tools/kill-launcher.sh [TIMES [WHO]]
#
# TIMES: default 1000, about half a second each. WHO: host, supervisor, both (at nearly the same
# moment) or process; default: any, of ten runs one is both. Prints a line for each finding, then a
# table. TMEM_BUILD: the build folder, default build. TMEM_SEED: default by the clock.
# TMEM_EVICT=move|discard: pages leave that way.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
exec python3 - "${1:-1000}" "${2:-}" <<'PY'
import glob, os, random, shutil, signal, subprocess, sys, tempfile, time

TIMES, ONLY = int(sys.argv[1]), sys.argv[2]
BUILD = os.environ.get("TMEM_BUILD", "build")
CORRUPT = BUILD + "/tests/e2e/e2e-corrupt"
if not os.path.exists(CORRUPT):
    CORRUPT = BUILD + "/e2e-corrupt"
EVICT = ["--evict", os.environ["TMEM_EVICT"]] if os.environ.get("TMEM_EVICT") else []
SEED = int(os.environ.get("TMEM_SEED", time.time()))
# What docs/man/tmem-run.1 says: 125 the store died, 126 not started; 0 it was over already. Of a
# launcher that is killed the shell sees the signal.
CODES = {"host": {125, 126, 0}, "supervisor": {-9, 125, 126, 0}, "both": {-9, 125, 126, 0},
         "process": {137, 0}}
T = tempfile.mkdtemp(prefix="tmem-kill.")
rnd = random.Random(SEED)


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError:
        return b""


def ours(mark):  # {pid: name} of all processes of a run
    found = {}
    for d in os.listdir("/proc"):
        if d.isdigit() and mark in read(f"/proc/{d}/environ"):
            found[int(d)] = read(f"/proc/{d}/comm").decode(errors="replace").strip()
    return found


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def state():  # what a run might leave
    return set(glob.glob("/dev/shm/*tmem*")) | set(glob.glob("/tmp/tmem-run*"))


def host_of(supervisor):
    for child in read(f"/proc/{supervisor}/task/{supervisor}/children").split():
        if read(f"/proc/{child.decode()}/comm").strip() == b"tmem-host":
            return int(child)
    return 0


def one(n):
    mark = f"TMEM_KILLED={SEED}.{n}.".encode()
    name, value = mark.decode().split("=")
    who = ONLY or ("both" if n % 10 == 0 else rnd.choice(["host", "supervisor", "process"]))
    # Half of them end by themselves at about the time; some die before they have begun.
    life = rnd.choice([100, rnd.randrange(1, 40)])
    after = rnd.uniform(0, 0.04) if rnd.random() < 0.2 else rnd.uniform(0.04, 0.5)
    out, err = open(T + "/out", "wb"), open(T + "/err", "wb")
    p = subprocess.Popen([BUILD + "/tmem", "run", *EVICT, "--limit", "32M", "--", CORRUPT, "life", str(life), str(SEED + n)],
                         env={**os.environ, name: value}, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
    time.sleep(after)
    host = host_of(p.pid)
    if who == "process":
        victims = [pid for pid, comm in ours(mark).items() if pid not in (p.pid, host) and not comm.startswith("tmem")]
        victims = [rnd.choice(victims)] if victims else []
    else:
        victims = {"host": [host], "supervisor": [p.pid], "both": rnd.sample([p.pid, host], 2)}[who]
    dead = p.poll() is not None
    for pid in victims:
        if pid and not (dead and pid == p.pid):
            kill(pid)
    began, why = time.monotonic(), []
    try:
        code = p.wait(30)
    except subprocess.TimeoutExpired:
        code, why = None, ["it does not end"]
        for pid in ours(mark):
            for task in glob.glob(f"/proc/{pid}/task/*"):
                print(task, read(task + "/comm"), read(task + "/wchan"), read(task + "/syscall")[:60], flush=True)
    while (left := ours(mark)) and time.monotonic() - began < 10:
        time.sleep(0.01)
    took = time.monotonic() - began
    if left:
        why.append(f"still there: {left}")
        for pid in left:
            kill(pid)
    if code is not None and code not in CODES[who]:
        why.append(f"exit code {code}")
    if b"WRONG" in read(T + "/err") + read(T + "/out"):
        why.append("WRONG PAGE")
    # The last process's memory goes before its descriptors do.
    while host and (mine := f"@tmem-run-{host}-".encode() in read("/proc/net/unix")) and time.monotonic() - began < 12:
        time.sleep(0.01)
    if host and mine:
        why.append("its socket is left")
    if why:
        print(f"run {n}, {who}, after {after:.3f} s of {life}: {'; '.join(why)}; {read(T + '/err')[:400]!r}", flush=True)
    return who, bool(victims and victims[0]), code, took, why


before, table, findings = (state(), read("/proc/mounts")), {}, 0
print(f"seed {SEED}, {TIMES} times", flush=True)
try:
    for n in range(TIMES):
        who, hit, code, took, why = one(n)
        t = table.setdefault(who, {"times": 0, "killed": 0, "codes": {}, "longest": 0.0, "findings": 0})
        t["times"] += 1
        t["killed"] += hit
        t["codes"][code] = t["codes"].get(code, 0) + 1
        t["longest"] = max(t["longest"], took)
        t["findings"] += bool(why)
        findings += bool(why)
finally:
    shutil.rmtree(T, ignore_errors=True)
for who, t in sorted(table.items()):
    codes = ", ".join(f"{c}: {k}" for c, k in sorted(t["codes"].items(), key=str))
    print(f"{who:10} {t['times']:5} times, {t['killed']:5} met somebody; all gone after {t['longest']:.2f} s at most; "
          f"exit codes {codes}; {t['findings']} findings")
for what, now in (("files", state() - before[0]), ("mounts", set(read("/proc/mounts").splitlines()) - set(before[1].splitlines()))):
    if now:
        print(f"left behind: {what} {now}")  # of others, perhaps
print(f"{TIMES} times, {findings} findings")
sys.exit(findings > 0)
PY
