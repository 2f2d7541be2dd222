"""Children that a job has left: how many there are, and how they are ended."""

from __future__ import annotations

import subprocess
import sys

import pytest

PRELUDE = """
import os, signal, subprocess, sys, time
from jobd.pool import children, linux
linux.become_subreaper()
def say(*words): print(*words, flush=True)
"""


def run(program: str) -> str:
    """Run a program in a process of its own, whose children we are not."""
    command = [sys.executable, "-c", PRELUDE + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_who_has_ended_is_reaped_and_does_not_count() -> None:
    """Neither does one that is about to end, as it is at work on it."""
    program = """
for _ in range(50):
    if os.fork() == 0: os._exit(0)
say(children.left_running(), linux.has_children())
child = subprocess.Popen(["sleep", "60"])
child.kill()
say(children.left_running(), linux.has_children())
"""
    assert run(program).split() == ["0", "False", "0", "False"]


def test_children_and_theirs_are_counted() -> None:
    """All that live, whoever has started them."""
    program = """
child = subprocess.Popen(["sh", "-c", "sleep 60 & echo; wait"], stdout=subprocess.PIPE)
child.stdout.readline()
say(children.left_running())
children.end(set())
say(children.left_running(), linux.has_children())
"""
    assert run(program).split() == ["2", "0", "False"]


def test_who_waits_for_our_end_sees_it() -> None:
    """The pipe to it is let go of, and nothing else takes its number; SIGTERM it ignores."""
    program = """
read, write = os.pipe()
is_deaf, tell = os.pipe()
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.close(write)
    os.write(tell, b"x")
    os.read(read, 1)
    say("cleared away")
    os._exit(0)
os.read(is_deaf, 1)
kept, _ = os.pipe()
inode = os.fstat(kept).st_ino
began = time.monotonic()
children.end({kept})
say(time.monotonic() - began < children.GRACE_S, linux.has_children())
say(os.fstat(kept).st_ino == inode, os.read(read, 1) == b"", os.write(write, b"x"))
"""
    assert run(program).splitlines() == ["cleared away", "True False", "True True 1"]


@pytest.mark.parametrize("detached", [False, True])
def test_who_does_not_end_in_time_is_killed(*, detached: bool) -> None:
    """Also one that has a session of its own, and no parent."""
    program = f"""
children.GRACE_S = 0.2
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if {detached}:
        os.setsid()
        if os.fork(): os._exit(0)
    signal.pause()
if {detached}: os.wait()
children.end(set())
say(linux.has_children())
"""
    assert run(program).split() == ["False"]


def test_those_of_a_stopped_job_have_their_time() -> None:
    """They were told, and are not told again; who takes longer than the grace is waited for."""
    program = """
children.GRACE_S = 0.05
read, write = os.pipe()
if os.fork() == 0:
    def end(*_):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
        time.sleep(0.3)
        say("in its own time")
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
    os.write(write, b"x")
    while True: signal.pause()
os.read(read, 1)
os.kill(linux.children(os.getpid())[0], signal.SIGTERM)
children.end(set(), are_told=True, are_awaited=True)
say(linux.has_children())
"""
    assert run(program).splitlines() == ["in its own time", "False"]
