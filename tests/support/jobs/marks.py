"""Jobs that leave a mark each time they run; what they return, no other run returns."""

from __future__ import annotations

import os
import signal
import time


def mark(path: str, tag: str) -> str:
    """Append ``tag`` and a value that is new each time; return that value."""
    value = os.urandom(8).hex()
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{tag} {value}\n")
    return value


def mark_slowly(path: str, tag: str, seconds: float) -> str:
    """Mark, then take a while."""
    value = mark(path, tag)
    time.sleep(seconds)
    return value


def mark_and_wait(path: str, tag: str, gate: str) -> str:
    """Mark, then wait until the file ``gate`` exists."""
    value = mark(path, tag)
    while not os.path.exists(gate):
        time.sleep(0.005)
    return value


def mark_and_ignore_stop(path: str, tag: str) -> str:
    """Mark, and go on for ever whatever is raised in it."""
    mark(path, tag)
    while True:
        try:
            time.sleep(60)
        except BaseException as error:  # noqa: BLE001  # this is the job that cannot be asked to stop
            mark(path, f"{tag}-{type(error).__name__}")


def mark_and_die(path: str, tag: str) -> None:
    """Mark, and kill the process that runs this."""
    mark(path, tag)
    os.kill(os.getpid(), signal.SIGKILL)
