"""Jobs that are told to stop, and take it in their own way."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def tidy_up(mark: str, gate: str) -> None:
    """Sleep; told to stop, tidy up until there is a file."""
    try:
        _note(mark, "began")
        time.sleep(600)
    finally:
        _note(mark, "tidying")
        while not os.path.exists(gate):
            time.sleep(0.001)
        _note(mark, "tidied")


def survive(mark: str) -> str:
    """Handle SIGTERM, and return."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    _note(mark, "began")
    while not told:
        time.sleep(0.001)
    return "went on"


def _note(mark: str, word: str) -> None:
    with Path(mark).open("a", encoding="utf-8") as file:
        file.write(word + "\n")
