# SPDX-License-Identifier: BSD-2-Clause
"""The turns of tools/soak-programs.sh, which says what it is about.

       this, a subreaper --+-- lane 1 -- noted.py -- the workload's shell -- noted.py -- tmem run
                           +-- lane 2 -- ...                                  |              |
                           +-- the launcher (launcher.py)                clients, bare       the program
                           +-- what presses (pressure.py)

Turn N of lane L is a function of (seed, L, N) alone, but for programs that the other lane has just
then, or that had no end. The inner noted.py says what each `tmem run` left and its exit code; the
outer one collects what the workload left of its own, which is no finding.
"""
import os, random, shutil, signal, subprocess, sys, tempfile, threading, time

import proc
from launcher import Launcher
from pressure import Full, Group, Pressure

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPT = os.path.dirname(HERE) + "/soak-programs.sh"
BUILD = os.environ["BUILD"]
LANES = 2
GONE_S = 30  # after a kill, until nothing is left
TURN_S = 240  # of one that is not killed; then it is slow, or stands still
# Those who stop and kill processes themselves: a signal of ours changes the answer.
DELICATE = {"gdb", "gdb-attach"}
WITHOUT = ["ahead", "apart", "company", "fill", "follow", "idle", "keep", "learn", "main", "read-ahead"]
WHO = ["process", "host", "supervisor", "all"]
FATAL = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM}


class Run:
    """One `tmem run` of a turn, as noted.py has it."""

    def __init__(self, pid, began):
        self.pid, self.began, self.status, self.took, self.left = pid, began, None, 0.0, "-"

    def supervisor(self):
        p = proc.look(self.pid)
        return p if p and p.began == self.began and p.state != "Z" else None


def runs_of(record):
    found = {}
    for line in proc.read(record).splitlines():
        w = line.split(" ")
        if w[0] == "start":
            found[int(w[1])] = Run(int(w[1]), int(w[2]))
        elif w[0] == "end":
            r = found[int(w[1])]
            r.status, r.took, r.left = int(w[2]), float(w[3]), w[4]
    return list(found.values())


class Plan:
    def __init__(self, rnd, name, facts, overflow):
        self.name, self.facts = name, facts
        self.percent = rnd.randrange(40, 121)
        self.limit = max(facts["peak"] * self.percent // 100, facts["least"] << 20, 32 << 20)
        self.evict = "discard" if rnd.random() < 0.2 else "move"
        self.codec = rnd.choice(["lz4", "zstd"])
        self.idle = str(rnd.choice([1, 2])) if rnd.random() < 0.5 else None
        self.without = rnd.choice(WITHOUT) if rnd.random() < 0.1 else None
        self.overflow = overflow
        self.blow = None
        if rnd.random() < 1 / 3:
            # Of when it would be over; some of them before it has begun.
            at = rnd.uniform(0, 0.4) if rnd.random() < 0.15 else rnd.uniform(0.1, 1.0) * facts["wall"]
            self.blow = (rnd.choice(["KILL", "TERM", "STOP"]), rnd.choice(WHO), at, rnd.uniform(0.05, 3))
        self.rnd = rnd

    def options(self):
        words = ["--limit", f"{self.limit >> 10}K", "--evict", self.evict, "--codec", self.codec]
        for name in ("idle", "without", "overflow"):
            if getattr(self, name):
                words += ["--" + name, getattr(self, name)]
        return words

    def text(self):
        words = " ".join(self.options())
        if not self.blow:
            return f"{self.name} {words}"
        return f"{self.name} {words}, SIG{self.blow[0]} to {self.blow[1]} after {self.blow[2]:.2f} s"


class Turn:
    """One run of a program, from its start to the verdict."""

    def __init__(self, soak, plan, folder):
        self.soak, self.plan, self.w = soak, plan, folder
        self.record, self.group = folder + ".runs", Group.make()
        self.hosts, self.met, self.struck = set(), None, None
        # killed: by a signal of the plan, or (finished) by us; cut: for its time alone.
        self.killed = self.stopped = self.slow = self.finished = self.cut = False
        self.findings, self.wrong = [], False
        with open(folder + ".options", "w") as f:
            f.writelines(w + "\n" for w in plan.options() + ["--report", folder + "/tmem.json"])

    def go(self):
        group = self.group.path if self.group else "-"
        noted = [sys.executable, HERE + "/noted.py"]
        self.began = time.monotonic()
        p = subprocess.Popen(
            [*noted, self.w + ".stage", "1", "-", SCRIPT, "--stage", "run", self.plan.name, self.w,
             *noted, self.record, str(GONE_S), group],
            stdin=subprocess.DEVNULL, start_new_session=True, env={**os.environ, "T": self.soak.folder})
        try:
            self.watch(p)
        finally:
            proc.end_all(p.pid)
            if p.poll() is None:
                p.kill()
            self.code = p.wait()
        self.took = time.monotonic() - self.began
        if self.group:
            self.group.remove()

    # ---- while it runs ----

    def running(self):
        """The last `tmem run` that has not ended: (supervisor, host, [processes of the program])."""
        for r in reversed(runs_of(self.record)):
            if r.status is None and (p := r.supervisor()):
                under = proc.below(p.pid)
                host = next((u for u in under if u.ppid == p.pid and u.comm == "tmem-host"), None)
                if host:
                    self.hosts.add(host.pid)
                of_host = {u.pid for u in proc.below(host.pid)} | {host.pid} if host else set()
                return p, host, [u for u in under if u.pid not in of_host and u.comm not in ("tmem", "run-keeper")]
        return None

    def watch(self, p):
        blow, deadline = self.plan.blow, self.began + TURN_S
        while p.poll() is None:
            now = time.monotonic() - self.began
            if blow and now >= blow[2] and self.strike(*blow):
                blow = None
                # A program that lost a process, or shrugs at SIGTERM, may go on; then all of it goes.
                if self.killed:
                    deadline = min(deadline, time.monotonic() + GONE_S + 5)
            self.running()
            if self.soak.stop.is_set() or time.monotonic() > min(deadline, self.soak.end + 20):
                if time.monotonic() > deadline:
                    self.stands_still() if not self.killed else self.outlives()
                self.finish(p)
                return
            self.soak.stop.wait(0.1 if blow else 0.4)

    def strike(self, sig, who, _, pause):
        """False: nobody is there yet."""
        here = self.running()
        if not here:
            return False
        supervisor, host, program = here
        # Without a host it is not `tmem run` yet, but what a wrapper of the workload does before.
        if who in ("process", "all") and not program or who != "supervisor" and not host:
            return False
        victims = {"process": [self.plan.rnd.choice(program)] if program else [], "host": [host], "supervisor": [supervisor],
                   "all": [supervisor, host, *program]}[who]
        self.plan.rnd.shuffle(victims)
        self.met = [f"{v.comm}({v.pid})" for v in victims]
        self.struck = (sig, who, supervisor.pid, who == "process" and victims[0].ppid == supervisor.pid)
        if sig in FATAL:
            # The host blocks SIGTERM: who ends a service sends it to all there is, and the program comes first.
            self.killed = any([proc.send(v, FATAL[sig]) for v in victims]) and (sig, who) != ("TERM", "host")
            return True
        self.stopped = True
        try:
            for v in victims:
                proc.send(v, signal.SIGSTOP)
            self.soak.stop.wait(pause)
        finally:
            for v in victims:
                proc.send(v, signal.SIGCONT)
        return True

    def stands_still(self):
        """It is over its time: whether it works."""
        self.slow = True
        here = self.running()
        if not here:
            return
        cpu = [sum(p.cpu for p in here[2])]
        self.soak.stop.wait(15)
        again = self.running()
        if not again or again[0].pid != here[0].pid or {p.pid for p in again[2]} != {p.pid for p in here[2]}:
            return
        cpu.append(sum(p.cpu for p in again[2]))
        if cpu[1] - cpu[0] < proc.TICK // 20:
            self.finding(f"stands still, {TURN_S} s after its start", "\n".join(proc.where(p) for p in [*again[:2], *again[2]] if p))

    def outlives(self):
        """Time is over for what was killed."""
        sig, who, pid, _ = self.struck
        here = self.running()
        if sig == "KILL" and who != "process" and here and here[0].pid == pid:
            left = [p for p in [*here[:2], *here[2]] if p]
            self.finding(f"{GONE_S} s after the kill there are {' '.join(f'{p.comm}({p.pid})' for p in left)}",
                         "\n".join(proc.where(p) for p in left))

    def finish(self, p):
        """Kills what runs, by its supervisor, which must do; then the workload."""
        self.cut, self.killed = not self.killed, True
        self.finished = True
        until = time.monotonic() + GONE_S
        if here := self.running():
            proc.send(here[0], signal.SIGKILL)
            while time.monotonic() < until and any(r.pid == here[0].pid and r.status is None for r in runs_of(self.record)):
                time.sleep(0.1)
        if p.poll() is None:
            p.terminate()
            try:
                p.wait(5)
            except subprocess.TimeoutExpired:
                pass

    # ---- afterwards ----

    def finding(self, what, more=""):
        self.findings.append(what)
        if more:
            with open(self.w + ".more", "a") as f:
                f.write(f"{what}\n{more}\n")

    def codes(self, run):
        """Whether tmem-run(1) has this exit code for what happened."""
        if self.finished and run.status == -9:
            return True
        if self.cut or not self.killed or run.pid != self.struck[2]:
            return 0 <= run.status and run.status not in (125, 126, 127) or \
                run.status == 126 and self.plan.facts["should"] == "refused"
        sig, who, _, first = self.struck
        ended = 128 + FATAL[sig]
        if who == "process" and first and sig == "KILL":
            return run.status in (ended, 0)  # 0: it was over already
        if who == "process":  # of a child's end, and of SIGTERM, the program says what it likes
            return 0 <= run.status and run.status not in (125, 126)
        if who == "host":
            return run.status in (125, 126, 0)
        if sig == "KILL":
            return run.status in (-9, 0) or who == "all" and run.status in (125, 126, ended)
        # SIGTERM is passed on to the program, which ends by it or with a code of its own; or came before all that.
        return run.status == -signal.SIGTERM or 0 <= run.status and run.status not in (125, 126)

    def judge(self):
        runs = runs_of(self.record)
        for r in runs:
            if r.status is None:
                self.finding(f"tmem run ({r.pid}) did not end")
            elif r.left != "-":
                self.finding(f"left {GONE_S} s after the end of tmem run: {r.left}")
            elif not self.codes(r):
                self.finding(f"tmem run's exit code is {r.status}")
        sockets = proc.read("/proc/net/unix")
        if mine := [h for h in self.hosts if f"@tmem-run-{h}-" in sockets]:
            self.finding(f"sockets of {mine} are left")
        if left := {f for f in os.listdir("/dev/shm") if "tmem" in f} - self.soak.shm:
            self.finding(f"left in /dev/shm: {left}")
        out, bare = self.output(".out"), self.soak.answer(self.plan.name)
        if not self.killed:
            if self.plan.overflow and os.path.exists(self.plan.overflow):
                self.finding("the overflow file is left")
            if self.plan.name in DELICATE and self.stopped:
                pass
            elif not runs:
                self.finding("nothing was started: " + self.output(".err")[-200:])
            elif self.plan.facts["should"] == "refused":
                if [r.status for r in runs] != [126]:
                    self.finding("it should be refused")
            elif self.code:
                self.finding(f"the workload says {self.code}: {self.output('.err')[-300:]!r}")
            elif out != bare:
                self.wrong = True
                self.finding("WRONG ANSWER")
        # Nobody may read a wrong byte because somebody dies. All killed at one moment: docs/safety.md.
        if self.says_wrong() and not (self.killed and self.struck and self.struck[1] == "all"):
            self.wrong = True
            self.finding("A WRONG BYTE: " + self.says_wrong())

    def output(self, what):
        return proc.read(self.w + what)

    def says_wrong(self):
        """The line in which a workload that knows its data says so."""
        for line in (self.output(".out") + self.output(".err") + proc.read(self.w + "/server.log")).splitlines():
            if "WRONG" in line or line.startswith("e2e-hard:") and ("wrong" in line or "lost its contents" in line or "is not" in line):
                return line[:200]
        return ""

    def late(self):
        """A workload that gave up waiting for a server: on a busy machine that is no finding at once."""
        return bool(self.code) and not self.killed and not self.wrong and "not up:" in self.output(".err")


class Soak:
    def __init__(self, minutes, seed, names):
        self.seed, self.names = seed, names
        self.folder = tempfile.mkdtemp(prefix="tmem-soak.", dir=os.environ.get("TMPDIR", "/var/tmp"))
        os.chmod(self.folder, 0o755)
        self.evidence = self.folder + "/evidence"
        os.mkdir(self.evidence)
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.begin = time.monotonic()
        self.end = self.begin + minutes * 60
        self.facts, self.busy, self.turns, self.full = {}, set(), [None] * LANES, []
        self.count = dict.fromkeys(("passed", "failed", "killed", "stopped", "wrong", "slow", "late", "cut"), 0)
        self.left_pages, self.launcher, self.interrupted = 0, None, 0
        self.shm = {f for f in os.listdir("/dev/shm") if "tmem" in f}

    def say(self, text):
        print(text, flush=True)

    def failed(self, text):
        with self.lock:
            self.count["failed"] += 1
        self.say("not ok " + text)

    def answer(self, name):
        return proc.read(f"{self.folder}/{name}.bare.out")

    # ---- lanes ----

    def take(self, rnd):
        """A program that the other lane has not; None when there is none."""
        with self.lock:
            free = [n for n in self.names if n not in self.busy]
            if not free:
                return None
            name = rnd.choice(free)
            self.busy.add(name)
            return name

    def learn(self, name):
        """The bare answer, once. False: it cannot be run here."""
        if name not in self.facts:
            done = subprocess.run([sys.executable, HERE + "/noted.py", self.folder + "/bare.record", "1", "-",
                                   SCRIPT, "--stage", "bare", name],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  start_new_session=True, env={**os.environ, "T": self.folder}, check=False)
            if self.stop.is_set():
                return False
            words = done.stdout.split()
            if words[:1] != ["facts"] or len(words) != 5:
                self.say(f"{name}: skipped: {done.stdout.strip()[5:] or done.stderr.strip()[-200:]}")
                with self.lock:
                    self.names = [n for n in self.names if n != name]
                return False
            self.facts[name] = {"peak": int(words[1]), "wall": float(words[2]), "least": int(words[3]), "should": words[4]}
        return True

    def lane(self, lane):
        n = 0
        try:
            while not self.stop.is_set() and time.monotonic() < self.end - 2:
                n += 1
                rnd = random.Random(f"{self.seed}.{lane}.{n}")
                name = self.take(rnd)
                if not name:
                    self.stop.wait(1)
                    continue
                try:
                    if self.learn(name):
                        self.turn(lane, n, name, rnd)
                finally:
                    with self.lock:
                        self.busy.discard(name)
                if rnd.random() < 0.2:
                    self.stop.wait(rnd.uniform(0, 10))
        except Exception as e:  # a lane that dies unheard of would pass
            self.failed(f"lane {lane} died: {e!r}")
            raise

    def turn(self, lane, n, name, rnd):
        folder = f"{self.folder}/{name}.{lane}.{n}"
        choice, overflow = rnd.random(), None
        if choice < 0.08 and self.full[lane]:
            overflow = self.full[lane].fill(rnd)
        elif choice < 0.25:
            overflow = folder + "/overflow"
        plan = Plan(rnd, name, self.facts[name], overflow)
        t = self.one(plan, folder, lane)
        if t.late():
            with self.lock:
                self.count["late"] += 1
            self.clear(folder)
            plan.blow = None
            t = self.one(plan, folder, lane)
        with self.lock:
            self.count["killed"] += t.killed and not t.cut
            self.count["stopped"] += t.stopped
            self.count["slow"] += t.slow
            self.count["wrong"] += t.wrong
            self.count["cut"] += t.cut and not t.slow
            self.facts[name]["wall"] = max(self.facts[name]["wall"], t.took) if not t.killed else self.facts[name]["wall"]
            if t.slow:  # it is not worth the time again
                self.names = [x for x in self.names if x != name]
        report = proc.read(folder + "/tmem.json")
        if '"evicted_pages":' in report:
            self.left_pages += int(report.split('"evicted_pages":')[1].split(",")[0])
        if t.findings:
            if not self.stop.is_set():
                self.keep(folder, t)
                self.failed(f"turn {lane}.{n}: {plan.text()}{', it met ' + ' '.join(t.met[:8]) if t.met else ''}: "
                            f"{'; '.join(t.findings)}; kept in {self.evidence}")
        elif not t.cut:
            with self.lock:
                self.count["passed"] += 1
        self.clear(folder)

    def one(self, plan, folder, lane):
        if plan.overflow and not plan.overflow.startswith(folder):
            os.makedirs(folder, exist_ok=True)
        t = Turn(self, plan, folder)
        self.turns[lane] = t
        try:
            t.go()
        finally:
            self.turns[lane] = None
        t.judge()
        return t

    def keep(self, folder, t):
        with open(folder + ".plan", "w") as f:
            f.write(f"seed {self.seed}: {t.plan.text()}\nmet {t.met}\nafter {t.took:.1f} s: " + "\n".join(t.findings) + "\n")
        for end in (".plan", ".out", ".err", ".runs", ".options", ".more"):
            if os.path.exists(folder + end):
                shutil.copy(folder + end, self.evidence)
        for name in ("server.log", "tmem.json", "hard.out"):
            if os.path.exists(f"{folder}/{name}"):
                shutil.copy(f"{folder}/{name}", f"{self.evidence}/{os.path.basename(folder)}.{name}")
        bare = f"{self.folder}/{t.plan.name}.bare.out"
        if os.path.exists(bare):
            shutil.copy(bare, self.evidence)

    @staticmethod
    def clear(folder):
        shutil.rmtree(folder, ignore_errors=True)
        for end in (".out", ".err", ".runs", ".stage", ".options", ".more", ".plan"):
            if os.path.exists(folder + end):
                os.unlink(folder + end)

    # ---- all of it ----

    def run(self):
        proc.subreaper()
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, self.interrupt)
        self.launcher = Launcher(self.folder + "/launcher", BUILD + "/tmem", BUILD + "/tests/e2e/programs/e2e-hard", self.seed, self.stop)
        self.full = [Full(f"{self.folder}/full.{i}") for i in range(LANES)]
        if not all(f.where for f in self.full):
            self.say("no file system can be mounted: --overflow never meets a full one")
            self.full = [None] * LANES
        pressure = Pressure(self.seed, lambda: [t.group for t in self.turns if t and t.group], self.stop)
        lanes = [threading.Thread(target=self.lane, args=(i,)) for i in range(LANES)]
        for t in [pressure, *lanes]:
            t.start()
        self.progress()
        for t in lanes:
            while t.is_alive():
                if self.stop.is_set():
                    proc.end_all(os.getpid(), 1)
                t.join(0.5)
        if self.stop.is_set():
            return
        for line in self.launcher.end():
            self.failed(line)
        self.stop.set()
        pressure.join(20)
        self.say(f"pressure: {', '.join(f'{k} {v} times' for k, v in pressure.done.items())}; "
                 f"pages that left: {self.left_pages}; {self.launcher.text()}")
        if not self.left_pages:
            self.failed("no page left any program: nothing was tested")

    def progress(self):
        total = self.end - self.begin
        every, minute = min(60.0, max(10.0, total / 20)), 0
        grown = False
        at = self.begin + 2
        while time.monotonic() < self.end and not self.stop.is_set():
            self.stop.wait(max(0.0, min(at, self.end) - time.monotonic()))
            if self.stop.is_set() or time.monotonic() >= self.end:
                break
            at = time.monotonic() + every
            found = self.launcher.sample(time.monotonic() < self.begin + total / 10)
            # A growth is said when it is seen twice in a row, and once.
            grows = [f for f in found if f.startswith("the launcher grows")]
            for f in [f for f in found if f not in grows] + (grows if grown is True else []):
                self.failed(f)
            grown = "said" if grown == "said" or grown and grows else bool(grows)
            if self.launcher.process.poll() is not None:
                break
            if int((time.monotonic() - self.begin) / 60) > minute:
                minute = int((time.monotonic() - self.begin) / 60)
                self.say(f"minute {minute}: {self.numbers()}; {self.launcher.text()}")

    def numbers(self):
        c = self.count
        return (f"{c['passed'] + c['failed']} turns, {c['killed']} killed, {c['stopped']} stopped, {c['wrong']} wrong, {c['slow']} slow, "
                f"{c['late']} late")

    def interrupt(self, *_):
        self.interrupted += 1
        self.stop.set()
        if self.interrupted > 2:
            os._exit(130)

    def clean(self):
        """Whatever happened: nothing of ours is left."""
        self.stop.set()
        if left := proc.end_all(os.getpid()):
            self.say(f"left behind: {[f'{p.comm}({p.pid})' for p in left]}")
        for f in self.full:
            if f:
                f.remove()
        for t in self.turns:
            if t and t.group:
                t.group.remove()
        if os.listdir(self.evidence):
            for name in os.listdir(self.folder):
                if name != "evidence":
                    path = f"{self.folder}/{name}"
                    shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.unlink(path)
            self.say(f"evidence: {self.evidence}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def main():
    minutes, seed = int(sys.argv[1]), int(sys.argv[2])
    soak = Soak(minutes, seed, sys.argv[3:])
    soak.say(f"seed {seed}, {minutes} minutes, {len(soak.names)} programs")
    try:
        soak.run()
    except BaseException as e:
        soak.failed(f"the soak itself: {e!r}")
        raise
    finally:
        soak.clean()
    c = soak.count
    if soak.interrupted:
        soak.say(f"interrupted: {soak.numbers()}")
        return 130
    soak.say(f"{soak.numbers()}, {c['cut']} cut short by the end")
    soak.say(f"{c['passed']} passed, {c['failed']} failed")
    return int(c["failed"] > 0)


sys.exit(main())
