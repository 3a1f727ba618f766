# SPDX-License-Identifier: BSD-2-Clause
"""Runs a command and notes how it ended, for tools/soak-programs.sh.

    noted.py RECORD SECONDS CGROUP|- COMMAND...

All that descends from the command stays below this process, a subreaper. When the command has
ended, the rest has SECONDS to do so; then it is named, and killed. Signals are passed on. RECORD
gets a line at the start, and one at the end:

    start PID BEGAN
    end PID STATUS TOOK NAMES     STATUS: exit code, or less the signal; NAMES: of those left, or -
"""
import os, signal, subprocess, sys, time

import proc


def main(record, seconds, cgroup, command):
    command_pid, early = 0, []

    def pass_on(sig, _):
        if command_pid:
            os.kill(command_pid, sig)
        else:
            early.append(sig)

    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(sig) != signal.SIG_IGN:
            signal.signal(sig, pass_on)
    proc.subreaper()

    def join():
        with open(cgroup + "/cgroup.procs", "w") as f:
            f.write("0")

    try:
        p = subprocess.Popen(command, preexec_fn=None if cgroup == "-" else join)
    except (OSError, subprocess.SubprocessError) as e:
        print("noted:", e, file=sys.stderr)
        return 127
    command_pid = p.pid
    began = proc.look(p.pid).began
    note(record, f"start {p.pid} {began}")
    for sig in early:
        pass_on(sig, None)
    status, ended, left = None, 0.0, "-"
    while True:
        try:
            pid, s = os.waitpid(-1, 0 if status is None else os.WNOHANG)
        except ChildProcessError:
            break
        if pid == command_pid:
            status, ended, command_pid = os.waitstatus_to_exitcode(s), time.monotonic(), 0
        elif pid == 0:
            if time.monotonic() - ended > seconds:
                left = ",".join(f"{p.comm}({p.pid})".replace(" ", "_") for p in proc.below(os.getpid())) or "-"
                proc.end_all(os.getpid())
                break
            time.sleep(0.01)
    note(record, f"end {p.pid} {status} {time.monotonic() - ended:.2f} {left}")
    return 128 - status if status < 0 else status


def note(record, line):
    with open(record, "a") as f:
        f.write(line + "\n")


sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4:]))
