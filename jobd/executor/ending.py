"""The end of the program, for which executors do what they still have to.

As the standard library's: before the threads that are no daemons are waited for, and so
before any ``atexit`` function, every executor takes no more and has its jobs done.  A program
whose daemon is dead does not wait: then they are broken.
"""

from __future__ import annotations

import threading
import weakref
from typing import Protocol


class Endable(Protocol):
    """What has to end with the program."""

    def shutdown(self, *, wait: bool = True) -> None:
        """Take no more; with ``wait`` return once nothing is left to be done."""


_all: weakref.WeakSet[Endable] = weakref.WeakSet()
_begun = threading.Event()


def end_with_program(engine: Endable) -> None:
    """Have an engine shut down at the end, unless it is dropped before."""
    _all.add(engine)


def refuse_late() -> None:
    """Raise if the program has begun to end.

    Raises:
        RuntimeError: it has.
    """
    if _begun.is_set():
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")


def _end_all() -> None:
    _begun.set()
    engines = list(_all)
    for engine in engines:
        engine.shutdown(wait=False)  # so that they end side by side
    for engine in engines:
        engine.shutdown()


# Private, but what concurrent.futures uses; ``atexit`` would be too late for threads that wait for us.
threading._register_atexit(_end_all)  # type: ignore[attr-defined]  # noqa: SLF001
