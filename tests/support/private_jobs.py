"""What the workers of private daemons are given to do; imported by tests and workers alike."""

from __future__ import annotations

import decimal
import os
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future, as_completed, wait
from pathlib import Path

import jobd.context

REMEMBERED: list[object] = []


def remember(*values: object) -> None:
    """Keep the values in this process: an initializer."""
    REMEMBERED.extend(values)


def remembered() -> tuple[int, list[object]]:
    """Return this process's pid and what it was told to remember."""
    return os.getpid(), REMEMBERED


def settle() -> None:
    """Set what jobs are to find: an initializer."""
    os.environ["SETTLED"] = "1"
    decimal.getcontext().prec = 5
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def unsettle() -> tuple[int, str | None, int, int]:
    """Return the pid and what is set, and set something else."""
    found = os.getpid(), os.environ.get("SETTLED"), decimal.getcontext().prec
    os.environ["SETTLED"] = "2"
    decimal.getcontext().prec = 9
    return *found, threading.active_count()


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


def nothing() -> None:
    """Do nothing."""


def take(_item: object) -> None:
    """Do nothing with an argument."""


def hold(started: str, gate: str, value: object = None) -> object:
    """Say in a file that this has begun, wait until the other file is there, and return the value."""
    Path(started).touch()
    while not Path(gate).exists():
        time.sleep(0.002)
    return value


def raise_it(error: BaseException) -> None:
    """Raise it."""
    raise error


def named(fn: object, self: object, /, **kwargs: object) -> tuple[object, object, object]:
    """Return what it was given."""
    return fn, self, kwargs


def square(number: int) -> int:
    """Return the square."""
    return number * number


def blob(size: int) -> str:
    """Return a text that is too large to be pushed."""
    return "x" * size


def countdown(number: int) -> list[int]:
    """Return the numbers down to 0, each found out by a job of its own."""
    if number == 0:
        return [0]
    with jobd.Executor(socket=os.environ["JOBD_SOCKET"]) as executor:
        return [number, *executor.submit(countdown, number - 1).result(20)]


def wait_in_turns(how: str, depth: int) -> int:
    """Wait for two jobs that wait for two jobs …, by one of the functions of ``concurrent.futures``."""
    if not depth:
        return 1
    with jobd.Executor(socket=os.environ["JOBD_SOCKET"]) as executor:
        futures = [executor.submit(wait_in_turns, how, depth - 1) for _ in range(2)]
        if how == "wait":
            done: Iterable[Future[int]] = wait(futures, 20).done
        else:
            done = as_completed(futures, 20)
        return sum(future.result(0) for future in done)


class NeedsTwoError(Exception):
    """Pickles well, and cannot be made again: its class wants more than it hands on."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)
        self.two = two


def raise_odd() -> None:
    """Raise what cannot be unpickled."""
    raise NeedsTwoError(1, 2)


async def later(value: object) -> object:
    """Return the value: a coroutine function."""
    return value


def raise_if(error: BaseException | None, after_s: float) -> None:
    """Raise the error at once if there is one, or take some time."""
    if error is not None:
        raise error
    time.sleep(after_s)  # it is what the job does: nobody waits for it


def count(number: int) -> Iterator[int]:
    """Produce numbers: a stream."""
    yield from range(number)


async def count_async(number: int) -> AsyncIterator[int]:
    """Produce the same in an event loop."""
    for item in range(number):
        yield item


def count_and_fail(number: int) -> Iterator[int]:
    """Produce numbers, then fail."""
    yield from range(number)
    raise ValueError("enough")


def threads() -> tuple[str, int]:
    """Return how many threads OpenBLAS is told to take, and takes; it may be loaded by this."""
    import numpy as np  # noqa: PLC0415  # few of these jobs need it
    from threadpoolctl import threadpool_info  # noqa: PLC0415  # as above

    assert np.__version__
    (taken,) = {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}
    return os.environ["OPENBLAS_NUM_THREADS"], taken
