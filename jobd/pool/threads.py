"""The threads of Python that a job has left running in its worker.

They go on with the job's work, and would print into the logs of others: where one is left, nothing
else runs.  Three kinds do no harm.  Those that were there before, as the initializer's or those
that a module starts when it is imported; those of a ``ThreadPoolExecutor`` that wait for work;
and those of which it is known how they are told to end.  Native threads, as those of OpenBLAS,
are not Python's.
"""

from __future__ import annotations

import _thread
import ctypes
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from jobd.pool.failure import safe_repr

GRACE_S = 0.005
"""How long a thread that is about to end may take: less than a new worker."""

BEGINS_S = 0.1
"""How long one may take to begin that has been started, on a machine that is busy."""

MOST_NAMED = 5

_ENDED_BY: dict[tuple[str, str], Callable[[Any], object]] = {
    ("tqdm._monitor", "TMonitor"): lambda thread: thread.exit(),  # the next bar starts another
}
"""By module and class of a thread: how it is told to end, and comes to its end."""


class Threads:
    """Which threads there are, and which there were."""

    def __init__(self) -> None:
        self.count = 0
        """How many there are when all is well; -1: nobody can tell without a look at each."""
        self._known: set[int] = set()
        self._uncounted = 1
        """Of the interpreter's: the main one, and native ones that run Python code now and then."""
        self.adopt()

    def adopt(self) -> None:
        """Those that there are now are no job's."""
        self._let_begin()
        self._known = set(sys._current_frames())
        self.count = self._base = _thread._count()

    def left(self) -> list[str]:
        """Return the names of those that a job has left running, after a moment in which they may end."""
        self._let_begin()
        if _thread._count() == self.count and self._known.issuperset(sys._current_frames()):
            return []
        deadline = time.monotonic() + GRACE_S
        while (found := self._strays())[0] and time.monotonic() < deadline:
            time.sleep(0.0002)
        strays, idle = found
        self._known &= set(sys._current_frames())  # a number may be used again
        self.count = -1 if idle else _thread._count()
        return strays

    def _let_begin(self) -> None:
        """Wait for those that have just been started: they do not count before they have begun."""
        if _states() - _thread._count() <= self._uncounted:
            return
        deadline = time.monotonic() + BEGINS_S
        while _states() - _thread._count() > self._uncounted and time.monotonic() < deadline:
            time.sleep(0.0002)
        self._uncounted = _states() - _thread._count()

    def _strays(self) -> tuple[list[str], int]:
        """Return the names of a job's threads, and how many more are idle."""
        strays: list[str] = []
        idle: dict[Any, list[str]] = {}
        named = threading._active  # type: ignore[attr-defined]  # enumerate() has no idents of others
        for ident, frame in sys._current_frames().items():
            if ident not in self._known:
                thread = named.get(ident)
                pool = _waits_for(thread, frame)
                if pool is not None:
                    idle.setdefault(pool, []).append(_name(ident, thread))
                elif not _ends(thread):
                    strays.append(_name(ident, thread))
        for pool, names in idle.items():
            # Less than there are: one was handed work, and has not come to take it.
            free = min(pool._idle_semaphore._value, len(names))
            strays += names[free:]
            idle[pool] = names[:free]
        count = sum(map(len, idle.values()))
        # Threads that run C code only have no frame.
        unseen = _thread._count() - self._base - len(strays) - count
        return strays + ["a thread without a name"] * unseen, count


def _states() -> int:
    """Return how many threads the interpreter knows, with those that are only about to begin."""
    found, state = 0, _first(_interpreter())
    while state:
        found += 1
        state = _next(state)
    return found


_interpreter = ctypes.pythonapi.PyInterpreterState_Get
_first, _next = ctypes.pythonapi.PyInterpreterState_ThreadHead, ctypes.pythonapi.PyThreadState_Next
_first.argtypes = _next.argtypes = (ctypes.c_void_p,)
_interpreter.restype = _first.restype = _next.restype = ctypes.c_void_p


def _waits_for(thread: threading.Thread | None, frame: FrameType) -> Any:
    """Return the pool from which a thread waits for work, and does nothing until it gets some; or None."""
    pools: Any = sys.modules.get("concurrent.futures.thread")
    if thread is None or pools is None or frame.f_code is not pools._worker.__code__:
        return None
    queue, here = pools._threads_queues.get(thread), frame.f_locals
    if queue is None or not queue.empty() or "work_item" in here:
        return None
    return here["executor_reference"]()


def _ends(thread: threading.Thread | None) -> bool:
    """Whether a thread can be told to end, and has ended."""
    end = _ENDED_BY.get((type(thread).__module__, type(thread).__qualname__))
    if thread is None or end is None:
        return False
    try:
        end(thread)
    except Exception:  # noqa: BLE001  # then it counts as one that goes on
        return False
    return not thread.is_alive()


def _name(ident: int, thread: threading.Thread | None) -> str:
    return safe_repr(thread.name).strip("'\"") if thread is not None else f"thread {ident}"


def sentence(names: list[str]) -> str:
    """Say that these were left."""
    shown = [*names[:MOST_NAMED], *(["…"] if len(names) > MOST_NAMED else [])]
    noun = "thread" if len(names) == 1 else "threads"
    return f"it left {len(names)} {noun} running ({', '.join(shown)})"
