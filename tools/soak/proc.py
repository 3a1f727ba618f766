# SPDX-License-Identifier: BSD-2-Clause
"""Processes by descent, for tools/soak-programs.sh.

A process is ours when it descends from one that we started. Orphans come back to the nearest
subreaper above them, and each run has one of its own (noted.py), so descent holds whatever the
program does: setsid, daemons, killed parents. Nothing is ever looked up by name.
"""
import ctypes, os, signal, time
from collections import namedtuple

Proc = namedtuple("Proc", "pid ppid comm state cpu began")  # cpu, began: ticks
TICK = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read().decode(errors="replace")
    except OSError:
        return ""


def subreaper():
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def look(pid):
    """One process, or None."""
    text = read(f"/proc/{pid}/stat")
    if not text:
        return None
    comm, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
    return Proc(int(pid), int(rest[1]), comm, rest[0], int(rest[11]) + int(rest[12]), int(rest[19]))


def below(*roots):
    """All that descend from roots and have not ended, without roots, parents first."""
    children = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if p := look(pid):
            children.setdefault(p.ppid, []).append(p)
    found, todo = [], list(roots)
    while todo:
        some = children.pop(todo.pop(0), [])
        found += some
        todo += [p.pid for p in some]
    return [p for p in found if p.state not in "ZX"]


def send(p, sig):
    """A signal to that very process, not to one that has its number now."""
    try:
        fd = os.pidfd_open(p.pid)
    except OSError:
        return False
    try:
        now = look(p.pid)
        if not now or now.began != p.began:
            return False
        signal.pidfd_send_signal(fd, sig)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def end_all(root, seconds=20, but=()):
    """Kills what descends from root until nothing does. What was left in the end."""
    until = time.monotonic() + seconds
    while left := [p for p in below(root) if p.pid not in but]:
        for p in left:
            send(p, signal.SIGKILL)
        if time.monotonic() > until:
            break
        time.sleep(0.02)
    return left


def where(p):
    """What each thread of a process waits for, a line a thread."""
    lines = []
    try:
        tasks = os.listdir(f"/proc/{p.pid}/task")
    except OSError:
        tasks = []
    for t in tasks:
        at = f"/proc/{p.pid}/task/{t}/"
        status = read(at + "stat")
        lines.append(f"{p.pid}/{t} {read(at + 'comm').strip()} {status[status.rfind(')') + 2:][:1]}"
                     f" wchan {read(at + 'wchan')} syscall {read(at + 'syscall').strip()[:60]}")
        lines += ["    " + line for line in read(at + "stack").splitlines()]
    return "\n".join(lines)
