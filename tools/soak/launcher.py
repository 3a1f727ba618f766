# SPDX-License-Identifier: BSD-2-Clause
"""A `tmem run` that lives through all of tools/soak-programs.sh, and must not grow.

A shell inside starts small programs one after the other, with children, and rests in between. It
is asked to hold still now and then: nothing of the run is there then but the shell, which waits
in a read of its own, so that what the host holds is what it holds for good:

    anon       RssAnon of the host, KiB         fds     descriptors of the host
    threads    of the host                      maps    lines of its /proc/PID/maps
    guard      descriptors of the supervisor, which has one for each process of the program

The rule: with m(x) the largest of the samples of the first tenth of the time (three at least),

    x <= m(x) * 1.05 + LITTLE[x]     for each later sample and each x

LITTLE: pages here and there that the allocator cannot give back, and a process that was just ending.
"""
import json, os, subprocess, time

import proc

LITTLE = {"anon": 4096, "fds": 3, "threads": 2, "maps": 12, "guard": 3}
TURNS = r"""
cd "$1" || exit 1
exec 3<>go 4<>never
RANDOM=$3
turns=(
	"$2 direct 24" "$2 threads 16" "$2 sparse 40" "$2 uffd 24" "$2 children 16" "$2 rawclone 8" "$2 fixed 32"
	"seq 1 150000 | sort -r | sort -n -k1.3 | cksum"
	"for i in 1 2 3 4 5 6 7 8 9; do (echo \$i); /bin/true; done | cksum"
	"perl -e 'my %h; \$h{\$_} = \"v\$_\" x 9 for 1 .. 30000; for my \$k (1, 2) { next if fork; exit(\$h{77} ne \"v77\" x 9) } wait; print \$?; wait; print \$?; my \$s = 0; \$s += length for values %h; print \" \$s\\n\"'"
)
if [ "$4" = bare ]; then
	for i in "${!turns[@]}"; do bash -c "${turns[i]}" >"answer.$i" 2>/dev/null || exit 1; done
	exit 0
fi
n=0
while [ ! -e stop ]; do
	if [ -e still ]; then
		echo >quiet
		read -r -t 60 _ <&3
		continue
	fi
	i=$((RANDOM % ${#turns[@]}))
	bash -c "${turns[i]}" >out 2>err
	code=$?
	[ $code = 0 ] && cmp -s out "answer.$i" || echo "WRONG: turn $n, exit code $code: ${turns[i]}: $(head -c 200 out) $(tail -n 1 err)"
	n=$((n + 1))
	echo $n >turns
	[ $((RANDOM % 4)) != 0 ] || read -r -t "$((RANDOM % 3)).$((RANDOM % 10))" _ <&4
done
exit 0
"""


class Launcher:
    def __init__(self, folder, tmem, hard, seed, stop):
        self.folder, self.report, self.stop = folder, folder + "/report.json", stop
        os.mkdir(folder)
        for name in ("go", "never"):
            os.mkfifo(f"{folder}/{name}")
        with open(folder + "/turns.sh", "w") as f:
            f.write(TURNS)
        script = ["bash", folder + "/turns.sh", folder, hard, str(seed % 30000)]
        subprocess.run([*script, "bare"], check=True, stdin=subprocess.DEVNULL)
        self.log = open(folder + "/log", "wb")
        self.process = subprocess.Popen([tmem, "run", "--limit", "40M", "--report", self.report, "--", *script, "run"],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True)
        self.began, self.base, self.samples, self.last = time.monotonic(), {}, 0, {}
        self.said = 0

    def numbers(self):
        """Of this moment; None when there is no host."""
        guard = self.process.pid
        host = [p.pid for p in proc.below(guard) if p.ppid == guard and p.comm == "tmem-host"]
        if not host:
            return None
        at = f"/proc/{host[0]}"
        status = dict(line.split(":", 1) for line in proc.read(at + "/status").splitlines() if ":" in line)
        try:
            return {"anon": int(status["RssAnon"].split()[0]), "fds": len(os.listdir(at + "/fd")),
                    "threads": int(status["Threads"]), "maps": proc.read(at + "/maps").count("\n"),
                    "guard": len(os.listdir(f"/proc/{guard}/fd"))}
        except (OSError, KeyError):
            return None

    def sample(self, learning):
        """Has the shell hold still and looks. Findings, as lines."""
        if self.process.poll() is not None:
            return self.over()
        still, quiet = self.folder + "/still", self.folder + "/quiet"
        open(still, "w").close()
        until = time.monotonic() + 150
        while not os.path.exists(quiet):
            if self.stop.is_set():
                return []
            if time.monotonic() > until or self.process.poll() is not None:
                os.unlink(still)
                return self.wrong() + self.over() or ["the launcher's shell did not come to rest in 150 s:\n" + "\n".join(
                    proc.where(p) for p in proc.below(self.process.pid))]
            time.sleep(0.05)
        # The least of some looks: who has ended may be in the books for a moment.
        seen = []
        for _ in range(4):
            time.sleep(0.5)
            if now := self.numbers():
                seen.append(now)
        os.unlink(still)
        os.unlink(quiet)
        self.go()
        if not seen:
            return self.wrong() + ["the launcher has no host"]
        self.last = {k: min(s[k] for s in seen) for k in LITTLE}
        self.samples += 1
        return self.wrong() + self.judge(learning)

    def go(self):
        fd = os.open(self.folder + "/go", os.O_RDWR | os.O_NONBLOCK)  # waits for no reader
        os.write(fd, b"\n")
        os.close(fd)

    def judge(self, learning):
        if learning or self.samples <= 3:
            self.base = {k: max(v, self.base.get(k, 0)) for k, v in self.last.items()}
            return []
        return [f"the launcher grows: {k} {v}, at first {self.base[k]} at most, after {self.turns()} turns"
                for k, v in self.last.items() if v > self.base[k] * 1.05 + LITTLE[k]]

    def turns(self):
        return int(proc.read(self.folder + "/turns") or 0)

    def wrong(self):
        lines = [line for line in proc.read(self.folder + "/log").splitlines() if line.startswith("WRONG")]
        self.said, new = len(lines), lines[self.said:]
        return ["the launcher, " + line for line in new]

    def over(self):
        code = self.process.poll()
        return [] if code is None else [f"the launcher ended, {code}: {proc.read(self.folder + '/log')[-500:]}"]

    def text(self):
        if not self.last:
            return "launcher not looked at yet"
        return (f"launcher: {self.turns()} turns, host {self.last['anon'] / 1024:.1f} MiB, {self.last['fds']} fds, "
                f"{self.last['threads']} threads, {self.last['maps']} maps; supervisor {self.last['guard']} fds")

    def end(self):
        """Has it end by itself. Findings."""
        if self.process.poll() is not None:
            return self.wrong() + self.over()
        open(self.folder + "/stop", "w").close()
        self.go()
        try:
            code = self.process.wait(150)
        except subprocess.TimeoutExpired:
            return self.wrong() + ["the launcher does not end:\n" + "\n".join(proc.where(p) for p in proc.below(self.process.pid))]
        found = self.wrong()
        if code:
            found.append(f"the launcher's exit code is {code}: {proc.read(self.folder + '/log')[-500:]}")
        try:
            with open(self.report, encoding="utf-8") as f:
                report = json.load(f)
            longest = max(len(v) for v in report["series"].values())
            if longest > 600:
                found.append(f"the launcher's report has {longest} samples")
            if not report["evicted_pages"]:
                found.append("of the launcher's programs nothing left: it tests nothing")
        except (OSError, ValueError, KeyError) as e:
            found.append(f"the launcher's report: {e!r}")
        return found
