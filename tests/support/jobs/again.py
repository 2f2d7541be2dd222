"""Jobs that fail, and are run again."""

from __future__ import annotations

import os
import time
from typing import NoReturn

import jobd


class Flaky(ConnectionError):
    """What goes away by itself."""


def _times(path: str) -> int:
    """Count one run more, and return how many there were."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{time.time()}\n")
    with open(path, encoding="utf-8") as file:
        return len(file.readlines())


def fail_until(path: str, times: int) -> int:
    """Fail so many times, then return the number of the run."""
    run = _times(path)
    print("run", run)
    if run <= times:
        raise Flaky(f"run {run}")
    return run


def ask_until(path: str, times: int, in_s: float) -> int:
    """Ask for a retry so many times."""
    run = _times(path)
    if run <= times:
        raise jobd.Retry(in_s=in_s)
    return run


def snooze_until(path: str, times: int) -> int:
    """Snooze so many times."""
    run = _times(path)
    if run <= times:
        jobd.snooze("10ms", "too early")
    return run


def cancel(why: str) -> NoReturn:
    """Be of no use."""
    raise jobd.Cancel(why)


def crash_until(path: str, times: int) -> int:
    """Kill the worker so many times."""
    run = _times(path)
    if run <= times:
        os.abort()
    return run


def start_time() -> float:
    """Return when this ran."""
    return time.time()
