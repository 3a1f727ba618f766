# SPDX-License-Identifier: BSD-2-Clause
"""tmem run --live on a terminal: live.py TMEM. Prints a verdict a line; see terminal.py."""
import os, signal, subprocess, sys, tempfile, time

from terminal import Session, clean, panel

TMEM = sys.argv[1]
LIVE = [TMEM, "run", "--live", "--limit", "64M", "--"]
failures = 0


def verdict(name, why=None):
    global failures
    print("ok %s" % name if not why else "not ok %s: %s" % (name, why), flush=True)
    failures += bool(why)


def script(text):
    return LIVE + ["sh", "-c", text]


def wait_panel(s, seconds=15, word=""):
    """Until the panel is there, and the program has said a word: it runs."""
    s.read(seconds, lambda t: panel(t) and word in "".join(t.text()))
    return panel(s.screen)


def ends(s, name, code, seconds=20):
    news = s.read(seconds)
    why = None if news == "ended %d" % code else "%r, not the end with %d" % (news, code)
    verdict(name + ".end", why)
    verdict(name + ".clean", clean(s))


def numbered(s, n):
    """Lines 'line 1' to 'line n' are all there, once, in order, and nothing else."""
    got = [l for l in s.screen.all() if l]
    return None if got == ["line %d" % i for i in range(1, n + 1)] else "%d lines: %r ..." % (len(got), got[-5:])


def output():
    """A program that writes a lot, in pieces: all of it is there, in order, and the panel as well."""
    s = Session()
    s.order("run", *script('i=1; while [ $i -le 60 ]; do printf "li"; sleep 0.02; printf "ne %s\\n" $i; i=$((i + 1)); done; sleep 0.7'))
    verdict("output.panel", None if wait_panel(s) else "no panel: %r" % s.screen.text()[-2:])
    s.read(20, lambda t: "line 60" in t.text())
    s.read(0.5)
    a, b = panel(s.screen) or ("", "")
    verdict("output.panel_stays", None if "% of 64.0 MiB" in a and "faults" in b else "no panel: %r" % s.screen.text()[-3:])
    verdict("output.frames", None if s.screen.frames >= 6 else "drawn %d times" % (s.screen.frames // 2))
    ends(s, "output", 0)
    verdict("output.text", numbered(s, 60))
    verdict("output.cursor", None if (s.screen.x, s.screen.text()[s.screen.y - 1]) == (0, "line 60") else "the cursor is elsewhere")
    s.close()


def prompt():
    """A line that is begun, and goes on long after: the panel was drawn many times in between, on
    a screen that is full."""
    s = Session()
    old = ["old %d" % i for i in range(40)]
    s.order("run", "sh", "-c", "i=0; while [ $i -lt 40 ]; do echo old $i; i=$((i + 1)); done")
    s.read(10)
    verdict("prompt.full", None if s.screen.y == 23 else "the cursor is in line %d" % (s.screen.y + 1))
    s.order("run", *script('printf "name? "; read n; echo "hello $n"'))
    wait_panel(s)
    s.read(1)
    s.type(b"Ada")
    s.read(0.6)
    s.type(b"\n")
    ends(s, "prompt", 0)
    verdict("prompt.text", None if [l for l in s.screen.all() if l] == old + ["name? Ada", "hello Ada"] else repr(s.screen.all()[-6:]))
    s.close()


def keys():
    """Ctrl-C ends the program, Ctrl-Z stops it and fg goes on; each time the terminal is left as it was."""
    s = Session()
    s.order("run", *script('trap "echo caught; exit 3" INT; echo up; while :; do sleep 0.05; done'))
    wait_panel(s, word="up")
    s.type(b"\x1a")
    news = s.read(10)
    verdict("stop", None if news and news.startswith("stopped") else "Ctrl-Z: %r" % news)
    verdict("stop.clean", clean(s))
    s.read(0.6)
    verdict("stop.quiet", clean(s))
    s.order("fg")
    verdict("stop.goes_on", None if wait_panel(s) else "no panel after fg")
    s.type(b"\x03")
    ends(s, "interrupt", 3)
    verdict("interrupt.text", None if "caught" in "".join(s.screen.text()) else repr(s.screen.text()))
    s.order("run", *script('echo again; sleep 20'))
    wait_panel(s, word="again")
    s.type(b"\x03")
    ends(s, "interrupt_dies", 130)
    s.close()


def sizes():
    """Lower, higher, narrower, too small and back: the panel is at the bottom, and no text is lost."""
    s = Session(24, 100)
    s.order("run", *script('i=1; while [ $i -le 150 ]; do echo "line $i"; i=$((i + 1)); sleep 0.03; done; sleep 0.5'))
    wait_panel(s)
    for rows, cols in ((12, 100), (30, 60), (40, 35), (5, 100), (24, 100)):
        s.size(rows, cols)
        if rows < 6:
            s.read(0.7)
            verdict("size_%d.none" % rows, None if not panel(s.screen) else "a panel on %d lines" % rows)
        else:
            verdict("size_%dx%d" % (rows, cols), None if wait_panel(s, 4) else "no panel: %r" % s.screen.text())
    ends(s, "sizes", 0)
    verdict("sizes.text", numbered(s, 150))
    s.close()


def deaths():
    """The program, or we, are killed."""
    s = Session()
    s.order("run", *script('echo up; sleep 0.6; kill -KILL $$'))
    wait_panel(s)
    ends(s, "program_killed", 137)
    s.order("run", *script('echo once more; sleep 30'))
    wait_panel(s, word="once more")
    launcher = os.tcgetpgrp(s.master)
    os.kill(launcher, signal.SIGKILL)
    news = s.read(10)
    s.read(3, lambda t: t.bottom == t.rows - 1)
    s.read(0.5)
    verdict("launcher_killed.end", None if news == "ended 137" else repr(news))
    why = clean(s)
    verdict("launcher_killed.clean", why)
    s.close()


def elsewhere():
    """Standard error is no terminal, or one that can do nothing: plain lines, and no escapes."""
    with tempfile.NamedTemporaryFile() as f:
        s = Session()
        s.order("err", f.name, *script('echo line 1; sleep 0.7'))
        news = s.read(15)
        text = open(f.name).read()
        verdict("to_file.end", None if news == "ended 0" else repr(news))
        good = text.startswith("tmem: ") and "\x1b" not in text and text.count("\n") == 1 and "of 64.0 MiB" in text
        verdict("to_file.lines", None if good else repr(text))
        verdict("to_file.terminal", clean(s) or numbered(s, 1))
        s.close()
    s = Session(env={"TERM": "dumb"})
    s.order("run", *script('echo line 1; sleep 6'))
    news = s.read(20)
    said = [l for l in s.screen.all() if l.startswith("tmem: ")]
    verdict("dumb", None if news == "ended 0" and len(said) == 2 and not s.screen.frames else repr((news, s.screen.all())))
    s.close()
    p = subprocess.run(script("echo out; sleep 0.7; exit 4"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
    verdict("no_terminal", None if p.returncode == 4 and p.stdout == b"out\n" and p.stderr.startswith(b"tmem: ") and b"\x1b" not in p.stderr else repr(p))


def background():
    """A shell under it that gives the terminal to its own jobs: the panel goes on."""
    s = Session()
    s.order("run", *LIVE, "bash", "--norc", "-i", "-c", 'set -m; sh -c "sleep 1.5; echo line 1"; echo line 2')
    wait_panel(s)
    before = s.screen.frames
    s.read(1)
    verdict("job.panel", None if s.screen.frames > before + 2 else "it stands still")
    ends(s, "job", 0)
    s.close()


for test in (output, prompt, keys, sizes, deaths, elsewhere, background):
    try:
        test()
    except Exception as e:  # the rest is tried all the same
        verdict(test.__name__, "%s: %s" % (type(e).__name__, e))
sys.exit(failures > 0)
