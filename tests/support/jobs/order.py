"""Jobs that tell in what order they run, and how many of them at a time."""

from __future__ import annotations

import fcntl
import os
import time

import jobd


def turn(path: str, tag: str) -> None:
    """Write down that it is this one's turn."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(tag + "\n")


def wait(gate: str) -> None:
    """Wait until the file ``gate`` exists."""
    while not os.path.exists(gate):
        time.sleep(0.005)


def turn_and_wait(path: str, tag: str, gate: str) -> None:
    """Do both."""
    turn(path, tag)
    wait(gate)


def count(path: str) -> int:
    """Return how many jobs are in here at the same time, with this one."""
    with open(path, "a+", encoding="ascii") as file:
        inside = _add(file.fileno(), 1)
        time.sleep(0.002)
        _add(file.fileno(), -1)
    return inside


def _add(fd: int, change: int) -> int:
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        number = int(os.pread(fd, 20, 0) or b"0") + change
        os.ftruncate(fd, 0)
        os.write(fd, b"%d" % number)
        return number
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def wait_for_one_like_me(key: str) -> str:
    """Wait for a job that needs the same concurrency key; return what came of it."""
    with jobd.Client() as client:
        child = client.options(concurrency_key=key).submit("order:turn", os.devnull, "child")
        try:
            child.result(30)
        except jobd.Deadlock as error:
            return str(error)
    return "it ran"
