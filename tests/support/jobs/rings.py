"""Jobs in which what ends them is swallowed, cannot be heard, or is caught on purpose."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import importlib
import logging
import re
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jobd
from jobd import TimeLimitExceeded as Late

TOO_LATE = (OSError, Late)


def note(mark: str, word: str) -> None:
    """Append a word to a file."""
    if mark:
        with Path(mark).open("a", encoding="utf-8") as file:
            file.write(f"{word}\n")


def until_told(what: Callable[[], object], mark: str) -> None:
    """Do something that takes for ever, and leave a mark before and after."""
    note(mark, "began")
    try:
        what()
    finally:
        note(mark, "tidied")


def backtrack(mark: str = "") -> None:
    """Match a regular expression in more steps than the universe has seconds; C code that keeps the GIL."""
    until_told(lambda: re.match(r"(a+)+$", "a" * 64 + "b"), mark)


def power(mark: str = "") -> None:
    """Compute a power of many digits, without the GIL for anybody else."""
    until_told(lambda: pow(3, 400_000_000), mark)


def power_for(seconds: float) -> None:
    """Compute powers in C code for about so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pow(3, 200_000)


def count_deaf(mark: str = "") -> None:
    """Add numbers up in C code that keeps the GIL and does not look at signals."""
    until_told(lambda: sum(range(10**13)), mark)


# -- swallowed ----------------------------------------------------------------


class Slow(logging.Handler):
    """Takes a long time, and forgives everything, as handlers do."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            time.sleep(600)
        except Exception:  # noqa: BLE001  # as those of logging do
            self.handleError(record)


def in_a_log_handler() -> None:
    """Sleep in a handler, and then as a job."""
    logger = logging.getLogger("slow")
    logger.addHandler(Slow())
    logger.warning("once")
    time.sleep(600)


class Clinging:
    """Takes a long time to go."""

    def __del__(self) -> None:
        """Do so."""
        time.sleep(600)


def in_a_finalizer() -> None:
    """Sleep while something is taken down, and then as a job."""
    Clinging()
    time.sleep(600)


def _compare(_one: int, _other: int) -> int:
    time.sleep(600)
    return 0


def in_a_callback() -> None:
    """Sleep in a function that C code calls, and then as a job."""
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(_compare)
    numbers = (ctypes.c_int * 2)(2, 1)
    ctypes.CDLL(None).qsort(numbers, 2, ctypes.sizeof(ctypes.c_int), compare)
    time.sleep(600)


def again(times: int) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Return a decorator that tries so many times; 0: for ever."""

    def decorate(function: Callable[[], object]) -> Callable[[], object]:
        @functools.wraps(function)
        def trying() -> object:
            attempt = 0
            while True:
                attempt += 1
                try:
                    return function()
                except Exception:  # noqa: BLE001  # as such decorators do
                    if attempt == times:
                        return "gave up"

        return trying

    return decorate


@again(2)
def tried_twice() -> None:
    """Sleep, and sleep again when that fails."""
    time.sleep(600)


def tried_again() -> None:
    """Sleep under a decorator, and then as a job."""
    tried_twice()
    time.sleep(600)


@again(0)
def tried_for_ever() -> None:
    """Sleep for ever, whatever comes."""
    time.sleep(600)


async def in_another_task() -> None:
    """Have another task take all of the event loop's time."""

    async def busy() -> None:
        time.sleep(600)  # noqa: ASYNC251  # this is what it is about

    await asyncio.gather(busy())


async def deaf_in_its_own_step() -> None:
    """Swallow what is raised in a step of a coroutine, and wait."""
    with suppress(Exception):
        time.sleep(600)  # noqa: ASYNC251  # as above
    await asyncio.sleep(600)


def in_a_loop_of_its_own() -> None:
    """Run an event loop that survives what is raised in it, as loops that are written in C do."""

    class Forgiving(asyncio.SelectorEventLoop):
        def run_forever(self) -> None:
            while not self.is_closed():
                try:
                    super().run_forever()
                except Exception:  # noqa: BLE001, S112  # it goes on, whatever that was
                    continue
                return

    with asyncio.Runner(loop_factory=Forgiving) as runner:
        runner.run(asyncio.sleep(600))


def in_a_loop_of_c() -> None:
    """Run one of those loops."""
    importlib.import_module("uvloop").run(asyncio.sleep(600))


# -- what came of it ----------------------------------------------------------


def in_a_query() -> None:
    """Sleep in a function of SQL, which makes an error of its own of whatever that raises."""
    with sqlite3.connect(":memory:") as base:
        base.create_function("slow", 0, lambda: time.sleep(600))
        base.execute("SELECT slow()")


def answer_by_an_error() -> None:
    """Catch the limit, and fail in its own words."""
    try:
        time.sleep(600)
    except jobd.TimeLimitExceeded:
        raise ValueError("too slow for me") from None


def swallow_and_return() -> str:
    """End before it is rung again."""
    with suppress(Exception):
        time.sleep(600)
    return "done"


# -- notice taken -------------------------------------------------------------


def work(seconds: float) -> str:
    """Go on for a while that is longer than all pauses between two rings, and say how that ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)
    return "undisturbed"


def by_its_name(seconds: float) -> str:
    """Catch it as people do."""
    try:
        time.sleep(600)
    except jobd.TimeLimitExceeded:
        pass
    return work(seconds)


def by_another_name(seconds: float) -> str:
    """Catch it under the name that it was imported by."""
    try:
        time.sleep(600)
    except Late:
        pass
    return work(seconds)


def among_others(seconds: float) -> str:
    """Catch it as one of several."""
    try:
        time.sleep(600)
    except TOO_LATE:
        pass
    return work(seconds)


def suppressed(seconds: float) -> str:
    """Catch it without an except clause."""
    with suppress(jobd.TimeLimitExceeded):
        time.sleep(600)
    return work(seconds)


@contextmanager
def limited() -> Iterator[None]:
    """Catch it in a context manager."""
    try:
        yield
    except jobd.TimeLimitExceeded:
        pass


def in_a_context(seconds: float) -> str:
    """Catch it by way of that."""
    with limited():
        time.sleep(600)
    return work(seconds)


def looked_at(seconds: float) -> str:
    """Catch every exception, and look which it is."""
    try:
        time.sleep(600)
    except Exception as error:
        if not isinstance(error, jobd.TimeLimitExceeded):
            raise
    return work(seconds)


def while_tidying_up(seconds: float, mark: str) -> None:
    """Take time for what is done at the end."""
    try:
        time.sleep(600)
    finally:
        note(mark, work(seconds))


def _fail() -> None:
    raise KeyError


def tidy_up_after_an_error(seconds: float, mark: str) -> None:
    """Take time for it, with another exception at hand."""
    try:
        time.sleep(600)
    finally:
        try:
            _fail()
        except KeyError:
            note(mark, work(seconds))


# -- stops, and the job's own signals -----------------------------------------


def stopped_in_a_finalizer(mark: str) -> None:
    """Be told to stop where nobody hears it."""
    note(mark, "began")
    Clinging()
    until_told(lambda: time.sleep(600), mark)


def stopped_while_tidying_up(seconds: float, mark: str) -> None:
    """Take time at the end of a stop."""
    note(mark, "began")
    while_tidying_up(seconds, mark)


def with_its_own_timer(limit_s: float) -> str:
    """Use the timer that there is for programs, and its signal."""
    came = []
    signal.signal(signal.SIGALRM, lambda *_: came.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        time.sleep(600)
    except jobd.TimeLimitExceeded:
        return "both" if came else "only the limit"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return f"no limit after {limit_s}"


def with_an_impatient_switch() -> None:
    """Let no other thread have the GIL but after a long time."""
    sys.setswitchinterval(600)
    try:
        while True:
            pass
    finally:
        sys.setswitchinterval(0.005)


def count_threads() -> int:
    """Return how many threads there are: a limit needs none."""
    return threading.active_count()
