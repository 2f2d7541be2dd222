"""Processes that a job has left running: are there any, and how they are ended.

Libraries keep processes across calls (pools, fork servers, resource trackers), and believe in
them as long as the process lives that has started them.  So a worker that has such children
runs no other job: it hands in the outcome, and ends with them.

They are ended as politely as can be.  SIGTERM ends those who are not told otherwise.  A
resource tracker ignores it, and waits for the end of the pipe from us: then it clears away
what it knows of (semaphores, shared memory, folders).  Who is still there after
``GRACE_S`` is killed.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import threading
import time
from collections.abc import Container

from jobd.pool import linux

GRACE_S = 3.0
"""How long children may take to end once they were told to."""

SETTLES_S = 0.1
LOOK_S = 0.0005
"""Children that are at work may be about to end, as one just killed: so often we look, until none has ended
for so long."""

LONGEST_S = 2.0
"""No longer in all."""

LOOK_AGAIN_S = 0.05
"""Between two looks for those who have come down to us: nothing tells of that."""

_AT_WORK = (b"R", b"D")


def left_running() -> int:
    """Reap what has ended; return how many processes that we or our children have started go on."""
    if not linux.has_children():
        return 0
    began = time.monotonic()
    until, fewest = began + SETTLES_S, None
    while linux.reap_all():
        states = [linux.state(pid) for pid in linux.descendants(os.getpid())]
        alive = [state for state in states if state not in (b"Z", b"X", b"")]
        now = time.monotonic()
        if fewest is None or len(alive) < fewest:  # hundreds may have to wait for a processor
            fewest, until = len(alive), min(now + SETTLES_S, began + LONGEST_S)
        at_rest = alive and not any(state in _AT_WORK for state in alive)
        if at_rest or now > until:
            return max(1, len(alive))
        time.sleep(LOOK_S)
    return 0


def end(keep: Container[int], *, are_told: bool = False, are_awaited: bool = False) -> None:
    """End all children, and theirs, and take note of their ends; nothing of the job may run here any more.

    Args:
        keep: file descriptors that stay open; other pipes and sockets are let go of, as
            their other ends may wait for our end.
        are_told: they were sent SIGTERM already.
        are_awaited: those who do not ignore that may take as long as they like.
    """
    told = set(linux.descendants(os.getpid())) if are_told else set()
    _hang_up(keep)
    until = time.monotonic() + GRACE_S
    while linux.reap_all():
        for pid in linux.descendants(os.getpid()):
            if pid not in told:
                linux.signal_quietly(pid, signal.SIGTERM)
                told.add(pid)
        children = linux.children(os.getpid())
        if time.monotonic() > until:
            spared = {p for p in children if are_awaited and not linux.ignores(p, signal.SIGTERM)}
            linux.kill_children(spared)
        _await_any(children)


def _hang_up(keep: Container[int]) -> None:
    """Let go of our ends of what may lead to children.

    Something takes the place of each: threads of a library may go on to use it, and must not hit
    upon another file of that number.
    """
    threading.excepthook = _ignore  # what they have to say of it is no use to anybody
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd <= 2 or fd in keep:
            continue
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
                os.dup2(nothing, fd, inheritable=False)
        except OSError:
            pass  # that of this listing, or one that somebody else has just closed
    os.close(nothing)


def _ignore(_: threading.ExceptHookArgs) -> None:
    pass


def _await_any(pids: list[int]) -> None:
    """Wait until one of these children ends, but not for long."""
    poll = select.poll()
    fds = []
    try:
        for pid in pids:
            fd = os.pidfd_open(pid)
            fds.append(fd)
            poll.register(fd, select.POLLIN)
        poll.poll(LOOK_AGAIN_S * 1000)
    except OSError:
        time.sleep(LOOK_S)  # it is gone, or there are too many of them
    finally:
        for fd in fds:
            os.close(fd)
