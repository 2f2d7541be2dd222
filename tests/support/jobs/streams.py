"""Generators that leave a trace: a byte in ``trace`` for each item, and a file beside it at their end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Generator, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import jobd


def _leave(trace: str, item: int) -> int:
    """Note that an item is about to be produced."""
    with open(trace, "ab") as file:
        file.write(b".")
    return item


def _close(trace: str) -> None:
    Path(f"{trace}.closed").touch()


def count(items: int, trace: str) -> Generator[int, None, int]:
    """Produce numbers; return how many they were."""
    try:
        for item in range(items):
            yield _leave(trace, item)
    finally:
        _close(trace)
    return items


async def count_async(items: int, trace: str) -> AsyncIterator[int]:
    """Produce numbers."""
    try:
        for item in range(items):
            yield _leave(trace, item)
    finally:
        _close(trace)


def step(items: int, gates: str) -> Iterator[int]:
    """Produce each number once there is a file of that name."""
    for item in range(items):
        while not os.path.exists(f"{gates}{item}"):
            time.sleep(0.002)
        yield item


def fail_after(items: int) -> Iterator[int]:
    """Produce some, then fail."""
    yield from range(items)
    raise ValueError("enough")


def die_after(items: int) -> Iterator[int]:
    """Produce some, then be killed."""
    yield from range(items)
    os.kill(os.getpid(), signal.SIGKILL)


def hang_after(items: int, trace: str) -> Iterator[int]:
    """Produce some, then be busy with something else for ever."""
    try:
        yield from range(items)
        Path(trace).touch()
        while True:
            time.sleep(60)
    finally:
        _close(trace)


def odd() -> Iterator[Any]:
    """Produce what JSON cannot say, then what cannot travel at all."""
    yield 1j
    yield (_ for _ in ())


def dated() -> Generator[Any, None, Any]:
    """Produce, and return, what JSON says in its own way."""
    yield date(2026, 12, 24), 1
    yield bytes(1)
    return {timedelta(minutes=1)}


def pad(items: int, size: int) -> Iterator[str]:
    """Produce long texts."""
    for item in range(items):
        yield f"{item}".ljust(size)


def blocks(items: int, size: int) -> Iterator[bytes]:
    """Produce what is too large for a row."""
    for item in range(items):
        yield bytes([item]) * size


def one_value() -> int:
    """Be no generator."""
    return 1


def add_up(number: int) -> int:
    """Consume the stream of another job."""
    with jobd.Client() as client:
        return sum(client.attach(number))
