"""Jobs with large arrays; imported by workers only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np


def make(size: int) -> Any:
    """Return an array of so many bytes."""
    return np.arange(size // 8, dtype=np.int64)


def total(array: Any) -> int:
    """Add it all up."""
    return int(array.sum())


def echo(array: Any) -> Any:
    """Return what was passed."""
    return array


def scribble(array: Any) -> tuple[int, int]:
    """Change all of it in place; return what its first number was, and the sum of what is there now."""
    first = int(array[0])
    np.negative(array, out=array)
    return first, int(array.sum())


def more(array: Any, size: int) -> int:
    """Use so many bytes beside what was passed."""
    own = np.ones(size, np.uint8)
    return int(own[0]) * int(array[0]) * len(own)


def doubled(array: Any) -> Any:
    """Work on a copy."""
    own = array.copy()
    own *= 2
    return own


def fail_unless(array: Any, gate: str) -> int:
    """Fail until a file exists."""
    if not Path(gate).exists():
        raise ValueError("not yet")
    return len(array)


def make_and_wait(size: int, gate: str) -> Any:
    """Wait until a file exists, and return an array."""
    while not Path(gate).exists():
        time.sleep(0.01)
    return make(size)
