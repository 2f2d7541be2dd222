"""Items of arrays; imported by workers only."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from pathlib import Path

from jobd import current_job


def note(path: str, number: int) -> int:
    """Append the number to a file, in one write, and return it."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, b"%d\n" % number)
    os.close(file)
    return number


def touchy(path: str, number: int) -> int:
    """As ``note``; of a hundred one ends its worker, and one raises."""
    note(path, number)
    if number % 100 == 50:
        os._exit(3)
    if number % 100 == 70:
        raise ValueError(number)
    return number


def second_time(path: str, number: int) -> int:
    """Raise when the number is noted for the first time, if it is a tenth one."""
    before = Path(path).read_text(encoding="ascii").split() if os.path.exists(path) else []
    note(path, number)
    if number % 10 == 5 and str(number) not in before:
        raise ValueError(number)
    return number


def odd(number: int) -> object:
    """Return, print, raise, yield or wait, each in its turn: not all is a small value."""
    match number % 8:
        case 0:
            print(f"item {number}")
        case 1:
            return "x" * 100_000
        case 2:
            raise KeyError(number)
        case 3:
            return {number}
        case 4:
            time.sleep(0.002)
        case 5:
            return _one(number)
        case 6:
            return _later(number)
    return number


async def _later(number: int) -> int:
    return number


def _one(number: int) -> Generator[int, None, int]:
    yield number
    return number  # the value of a stream


def who(number: int) -> list[int]:
    """Return the number, and that of the item itself."""
    job = current_job()
    assert job is not None
    return [number, job.id]


def wait_at(path: str, gate: str, number: int) -> int:
    """Note the number, and wait for a file, if the number is 0."""
    note(path, number)
    while number == 0 and not os.path.exists(gate):
        time.sleep(0.001)
    return number


def end_later(number: int) -> int:
    """Take a moment; the 30th one kills its worker."""
    time.sleep(0.0002)
    if number == 30:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
