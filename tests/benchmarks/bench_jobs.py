"""The jobs that are measured; also imported by the workers."""

from __future__ import annotations

import os
import time
from typing import Any


def noop() -> None:
    """Do nothing."""


def take(item: int) -> None:
    """Do nothing with an argument: what ``map`` can call."""


def echo(value: Any) -> Any:
    """Return what was passed."""
    return value


def negative(array: Any) -> Any:
    """Return a new array of the same size."""
    return -array


def add_one(number: int) -> int:
    """Return the next number: a link of a chain."""
    return number + 1


def spin(turns: int) -> int:
    """Keep one core busy with pure Python; return a number that depends on all of it."""
    total = 0
    for turn in range(turns):
        total = (total * 31 + turn) & 0xFFFF_FFFF
    return total


def nap(seconds: float) -> None:
    """Take a short while, and no processor."""
    time.sleep(seconds)


def sleep(seconds: float) -> None:
    """Take a long while; a function of its own, as a job that takes so much longer has."""
    time.sleep(seconds)


def gate(path: str) -> None:
    """Keep a worker until the file exists."""
    while not os.path.exists(path):
        time.sleep(0.005)
