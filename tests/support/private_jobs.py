"""What the workers of private daemons are given to do; imported by tests and workers alike."""

from __future__ import annotations

import os
import time
from pathlib import Path

REMEMBERED: list[object] = []


def remember(*values: object) -> None:
    """Keep the values in this process: an initializer."""
    REMEMBERED.extend(values)


def remembered() -> tuple[int, list[object]]:
    """Return this process's pid and what it was told to remember."""
    return os.getpid(), REMEMBERED


def fail(text: str) -> None:
    """Raise: an initializer that fails."""
    raise ValueError(text)


def vanish(code: int) -> None:
    """End this process at once."""
    os._exit(code)


def hang(path: str) -> None:
    """Say so in a file, and never return."""
    Path(path).write_text(str(os.getpid()), encoding="ascii")
    while True:
        time.sleep(60)  # what a stuck job does; no test waits for it


def environment(name: str) -> str | None:
    """Return a variable of the worker's environment."""
    return os.environ.get(name)
