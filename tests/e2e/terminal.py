# SPDX-License-Identifier: BSD-2-Clause
"""A terminal of our own, and a shell with job control in it, to see what a user would see.

The screen knows what a line-oriented program and a panel need: text, the cursor, a scroll region,
saving and restoring, erasing. Anything else on the line is an error of the test's.
"""
import fcntl, os, re, select, signal, struct, sys, termios, time

CSI = re.compile(rb"\x1b\[([?]?[0-9;]*)([A-Za-z])")


class Screen:
    def __init__(self, rows, cols):
        self.rows, self.cols = rows, cols
        self.lines = [[" "] * cols for _ in range(rows)]
        self.scrolled = []  # what left at the top
        self.y = self.x = 0
        self.top, self.bottom = 0, rows - 1
        self.saved = (0, 0)
        self.rest = b""
        self.frames = 0  # how often something was drawn below the region

    def text(self):
        return ["".join(l).rstrip() for l in self.lines]

    def all(self):
        return self.scrolled + self.text()

    def resize(self, rows, cols):
        """As xterm does: a taller one gets lines at the bottom, a lower one loses those below
        the cursor first and then those at the top."""
        while len(self.lines) > rows:
            if self.y < len(self.lines) - 1:
                self.lines.pop()
            else:
                self.scrolled.append("".join(self.lines.pop(0)).rstrip())
                self.y -= 1
                self.saved = (max(0, self.saved[0] - 1), self.saved[1])
        while len(self.lines) < rows:
            self.lines.append([" "] * cols)
        self.lines = [(l + [" "] * cols)[:cols] for l in self.lines]
        self.rows, self.cols, self.top, self.bottom = rows, cols, 0, rows - 1
        self.y, self.x = min(self.y, rows - 1), min(self.x, cols - 1)

    def down(self):
        if self.y == self.bottom:
            if self.top == 0:
                self.scrolled.append("".join(self.lines[0]).rstrip())
            self.lines.pop(self.top)
            self.lines.insert(self.bottom, [" "] * self.cols)
        elif self.y < self.rows - 1:
            self.y += 1

    def control(self, args, what):
        n = [int(a or 0) for a in args.split(";")] if args else []
        first = n[0] if n else 0
        if what == "r":
            self.top, self.bottom = 0, self.rows - 1
            if len(n) == 2:
                assert 1 <= n[0] < n[1] <= self.rows, n
                self.top, self.bottom = n[0] - 1, n[1] - 1
            self.y = self.x = 0
        elif what == "H":
            self.y = min(max(1, first), self.rows) - 1
            self.x = min(max(1, n[1] if len(n) > 1 else 1), self.cols) - 1
            self.frames += self.y > self.bottom
        elif what == "A":
            self.y = max(0 if self.y < self.top else self.top, self.y - max(1, first))
        elif what == "B":
            self.y = min(self.rows - 1 if self.y > self.bottom else self.bottom, self.y + max(1, first))
        elif what == "G":
            self.x = max(1, first) - 1
        elif what == "K":
            self.lines[self.y][self.x:] = [" "] * (self.cols - self.x)
        elif what == "J":
            self.lines[self.y][self.x:] = [" "] * (self.cols - self.x)
            for y in range(self.y + 1, self.rows):
                self.lines[y] = [" "] * self.cols
        else:
            assert what == "m", "unknown control %r" % (args + what)

    def feed(self, data):
        data = self.rest + data
        i = 0
        while i < len(data):
            c = data[i]
            if c == 0x1b:
                m = CSI.match(data, i)
                if m:
                    self.control(m.group(1).decode(), m.group(2).decode())
                    i = m.end()
                    continue
                if i + 1 >= len(data) or (data[i + 1:i + 2] == b"[" and len(data) - i < 20):
                    break
                two = data[i + 1:i + 2]
                if two == b"7":
                    self.saved = (self.y, self.x)
                elif two == b"8":
                    self.y, self.x = self.saved
                elif two == b"D":
                    self.down()
                else:
                    raise AssertionError("unknown escape %r" % data[i:i + 10])
                i += 2
                continue
            if c == 13:
                self.x = 0
            elif c == 10:
                self.down()
            elif c == 8:
                self.x = max(0, self.x - 1)
            elif c >= 32:
                n = 1 if c < 0x80 else 2 if c < 0xe0 else 3 if c < 0xf0 else 4
                if i + n > len(data):
                    break
                if self.x == self.cols:
                    self.x = 0
                    self.down()
                self.lines[self.y][self.x] = data[i:i + n].decode()
                self.x += 1
                i += n
                continue
            i += 1
        self.rest = data[i:]


class Session:
    """A shell that has the terminal; jobs are started in process groups of their own."""

    def __init__(self, rows=24, cols=100, env=None):
        self.screen = Screen(rows, cols)
        self.master, self.slave = os.openpty()
        self.size(rows, cols, tell=False)
        self.attributes = termios.tcgetattr(self.slave)
        self.env = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", **(env or {})}
        self.env.pop("LD_PRELOAD", None)
        # The shell: it speaks by a pipe, and never on the terminal.
        self.orders_r, self.orders = os.pipe()
        self.news, self.news_w = os.pipe()
        self.shell = os.fork()
        if self.shell == 0:
            try:
                self.be_shell()
            finally:
                os._exit(99)
        os.close(self.orders_r)
        os.close(self.news_w)

    def be_shell(self):
        os.setsid()
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
        os.close(self.master)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        for fd in (0, 1, 2):
            os.dup2(self.slave, fd)
        job = 0
        for line in os.fdopen(self.orders_r, "r"):
            order, _, rest = line.rstrip("\n").partition("\t")
            if order in ("run", "err"):  # err: standard error goes elsewhere
                job = os.fork()
                if job == 0:
                    os.setpgid(0, 0)
                    os.tcsetpgrp(0, os.getpid())
                    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
                    argv = rest.split("\t")
                    if order == "err":
                        fd = os.open(argv.pop(0), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                        os.dup2(fd, 2)
                    os.execvpe(argv[0], argv, self.env)
                try:
                    os.setpgid(job, job)
                except OSError:
                    pass
                os.tcsetpgrp(0, job)
            elif order == "fg":
                os.tcsetpgrp(0, job)
                os.killpg(job, signal.SIGCONT)
            _, status = os.waitpid(job, os.WUNTRACED)
            os.tcsetpgrp(0, os.getpgrp())
            if os.WIFSTOPPED(status):
                news = "stopped %d" % job
            else:
                news = "ended %d" % (128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
            os.write(self.news_w, (news + "\n").encode())

    def order(self, *words):
        os.write(self.orders, ("\t".join(words) + "\n").encode())

    def read(self, seconds, until=lambda s: False):
        """Show what comes, for so long or until the screen fulfils something. What the shell
        says, or None."""
        end = time.time() + seconds
        while time.time() < end and not until(self.screen):
            r, _, _ = select.select([self.master, self.news], [], [], max(0, min(0.1, end - time.time())))
            if self.master in r:
                self.screen.feed(os.read(self.master, 65536))
            elif self.news in r:  # when the terminal is quiet: it is all there
                return os.read(self.news, 100).decode().strip()
        return None

    def type(self, keys):
        os.write(self.master, keys)

    def size(self, rows, cols, tell=True):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        if tell:
            self.screen.resize(rows, cols)

    def close(self):
        os.close(self.orders)
        os.kill(self.shell, signal.SIGKILL)
        os.waitpid(self.shell, 0)
        for fd in (self.master, self.slave, self.news):
            os.close(fd)


def panel(screen):
    """The panel's lines, or None when it is not there, whole, at the bottom."""
    a, b = screen.text()[-2:]
    if a.startswith("tmem [") and b.startswith("stored ") and screen.bottom == screen.rows - 3:
        return a, b
    return None


def clean(session):
    """What is wrong with a terminal that should be as if nothing had been, or None."""
    s = session.screen
    debris = [l for l in s.all() if "tmem [" in l or "stored " in l]
    if debris:
        return "something of the panel stayed: %r" % debris[0]
    if (s.top, s.bottom) != (0, s.rows - 1):
        return "the scroll region is %d to %d" % (s.top + 1, s.bottom + 1)
    if any(s.text()[s.y + 1:]):
        return "below the cursor: %r" % s.text()[s.y + 1:]
    if termios.tcgetattr(session.slave) != session.attributes:
        return "the terminal's settings are others"
    return None
