"""What the workers of private daemons are given to do; imported by tests and workers alike."""

from __future__ import annotations

import decimal
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future, as_completed, wait
from pathlib import Path
from typing import Any

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


def open_mouth(kind: type[BaseException], *args: object) -> None:
    """Raise such an error: how a ``Trap`` is unpickled."""
    raise kind(*args)


class Trap:
    """Pickles well, and raises when it is unpickled."""

    def __init__(self, kind: type[BaseException], *args: object) -> None:
        self._raised = (kind, *args)

    def __reduce__(self) -> tuple[object, ...]:
        return open_mouth, self._raised


def make_trap(kind: type[BaseException], *args: object) -> Trap:
    """Return a result that cannot be read."""
    return Trap(kind, *args)


class Unwilling:
    """Raises when it is pickled."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[object, ...]:
        raise self._error


def make_unwilling(error: BaseException) -> Unwilling:
    """Return a result that cannot travel."""
    return Unwilling(error)


def identity(value: object) -> object:
    """Return it."""
    return value


def say(text: str, error: str) -> None:
    """Write to both outputs."""
    print(text)
    print(error, file=sys.stderr)


def use_shared(number: int) -> int:
    """Use what ``remember`` was given: of each kind that ``multiprocessing`` has one."""
    event, lock, again, queue, value, pipe = REMEMBERED
    with lock:  # type: ignore[attr-defined]
        value.value += 1  # type: ignore[attr-defined]
    with again, again:  # type: ignore[attr-defined]
        queue.put(number)  # type: ignore[attr-defined]
    if number == 0:
        pipe.send("here")  # type: ignore[attr-defined]
    assert event.wait(20)  # type: ignore[attr-defined]
    return number


def set_event(event: Any) -> bool:
    """Set it, and return whether it is."""
    event.set()
    return bool(event.is_set())


class Thing:
    """May be referred to weakly."""

    def __init__(self, name: object) -> None:
        self.name = name
        self.lock: object = None


def make_thing() -> Thing:
    """Return one."""
    return Thing("made")


def make_thing_of(name: object) -> Thing:
    """Return one of this name."""
    return Thing(name)


def take_lock(lock: Any, timeout_s: float) -> bool:
    """Take it within this time, and give it back; return whether that was possible."""
    taken = bool(lock.acquire(timeout=timeout_s))
    if taken:
        lock.release()
    return taken


def authkey() -> bytes:
    """Return the key by which this process is known to others of ``multiprocessing``."""
    from multiprocessing.process import current_process  # noqa: PLC0415  # one job needs it

    return bytes(current_process().authkey)
