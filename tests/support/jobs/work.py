"""Jobs for the tests; imported by workers only."""

from __future__ import annotations

import time


def nothing() -> None:
    """Do nothing."""


def echo(*args: object, **kwargs: object) -> object:
    """Return what was passed."""
    return [list(args), kwargs]


def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


def sleep(seconds: float) -> float:
    """Sleep, and return how long."""
    time.sleep(seconds)
    return seconds


def fail(text: str = "no") -> None:
    """Raise ValueError."""
    raise ValueError(text)


def append(path: str, text: str) -> None:
    """Append a line to a file: the mark of having run."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(text + "\n")


def mark_and_wait(path: str, gate: str) -> str:
    """Append a line to ``path``, then wait until the file ``gate`` exists."""
    import os  # noqa: PLC0415  # as users do

    append(path, str(os.getpid()))
    while not os.path.exists(gate):
        time.sleep(0.01)
    return "through"
