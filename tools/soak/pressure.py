# SPDX-License-Identifier: BSD-2-Clause
"""What disturbs the runs of tools/soak-programs.sh from outside: memory that is taken, processors
that are busy, pages of files and of code that the kernel takes back, a file system that is nearly full."""
import os, random, subprocess, sys, threading, time

import proc

CGROUPS = "/sys/fs/cgroup/memory"  # version 1
HOG = """import sys, time
b = bytearray(int(sys.argv[1]))
b[::4096] = b"x" * len(b[::4096])
time.sleep(float(sys.argv[2]))"""
SPIN = """import sys, time
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until: pass"""


class Group:
    """A memory control group for one run; None where there are none.

    Its limit is left alone. One that leaves no room has system calls of the program fail, each with
    ENOMEM (a fork, or the write of its answer), and the kernel refuse a page to the host, which then
    ends the process: the program's failure and no finding, with or without tmem."""
    count = 0

    def __init__(self):
        Group.count += 1
        self.path = f"{CGROUPS}/tmem-soak-{os.getpid()}-{Group.count}"
        os.mkdir(self.path)
        if not os.access(self.path + "/memory.force_empty", os.W_OK):
            os.rmdir(self.path)
            raise OSError("version 2")

    @staticmethod
    def make():
        try:
            return Group()
        except OSError:
            return None

    def squeeze(self, seconds, stop):
        """Over and over takes from the run all that the kernel can have back: files, its own code."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not stop.wait(0.1):
            try:
                with open(self.path + "/memory.force_empty", "w") as f:
                    f.write("0")
            except OSError:
                if not os.path.exists(self.path):
                    return False
        return True

    def remove(self):
        for _ in range(100):
            try:
                os.rmdir(self.path)
                return
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.05)
        print(f"left behind: {self.path}", flush=True)


class Full:
    """A small file system, nearly full, for --overflow; where is None if it cannot be had."""
    SIZE = 24 << 20

    def __init__(self, where):
        self.where = where
        os.mkdir(where)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.SIZE},mode=777", "tmem-soak", where],
                              capture_output=True, check=False)
        if done.returncode:
            self.where = None

    def fill(self, rnd):
        """Leaves 1 to 20 MiB free. The overflow file's name: who is killed leaves one, which the next user may not open."""
        if os.path.exists(self.where + "/overflow"):
            os.unlink(self.where + "/overflow")
        with open(self.where + "/filler", "wb") as f:
            f.write(b"x" * (self.SIZE - (rnd.randrange(1, 20) << 20)))
        return self.where + "/overflow"

    def remove(self):
        if self.where:
            for how in ([], ["-l"]):
                if subprocess.run(["umount", *how, self.where], capture_output=True, check=False).returncode == 0:
                    break
            self.where = None


class Pressure(threading.Thread):
    """Now and then one of them, for some seconds."""

    def __init__(self, seed, groups, stop):
        super().__init__(daemon=True)
        self.rnd, self.groups, self.stop = random.Random(f"{seed}.pressure"), groups, stop
        self.done = {"memory": 0, "processors": 0, "squeeze": 0}

    def run(self):
        while not self.stop.wait(self.rnd.uniform(5, 40)):
            what, seconds = self.rnd.choice(list(self.done)), self.rnd.uniform(2, 8)
            if what == "squeeze":
                here = self.groups()
                done = bool(here) and self.rnd.choice(here).squeeze(seconds, self.stop)
            elif what == "memory":
                done = self.hogs([[HOG, str(self.free() // 3), str(seconds)]])
            else:
                done = self.hogs([[SPIN, str(seconds)]] * 2)
            self.done[what] += bool(done)

    def hogs(self, commands):
        running = [subprocess.Popen([sys.executable, "-c", *c]) for c in commands]
        for p in running:
            p.wait()
        return all(p.returncode == 0 for p in running)

    @staticmethod
    def free():
        for line in proc.read("/proc/meminfo").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return 0
