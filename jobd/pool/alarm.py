"""The soft time limit: an exception in the job's main thread, also while that sleeps.

The control thread watches the clock and sends a signal to the main thread, whose handler
raises.  A coroutine is cancelled instead, unless its own step is what takes so long; its
end by that is then told as the limit.  Two races, both settled by the handler, which runs
in the main thread: a signal that comes late meets the limit of the next job, which is not
over yet, or none; one that comes while no code of the job runs raises nothing.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

from jobd.context import TimeLimitExceeded

SIGNAL = signal.SIGRTMIN + 5
"""No job has a use for it, most likely; SIGALRM may be a job's own."""


class Alarm:
    """The soft limit of the job that runs."""

    def __init__(self, wake: Callable[[], None], may_raise: Callable[[], bool]) -> None:
        """``wake`` wakes the control thread; ``may_raise`` tells whether code of the job runs."""
        self.has_rung = False
        """The limit of this job was over while it ran."""
        self._wake = wake
        self._may_raise = may_raise
        self._limit_s = 0.0
        self._over_at = self._ring_at = 0.0
        """On the monotonic clock; 0: not to be raised, or not to be signalled (any more)."""
        self._main: asyncio.Task[Any] | None = None

    # -- the main thread --

    def set(self, limit_s: float) -> None:
        """Watch the job that starts now."""
        if not limit_s:
            return
        self._limit_s = limit_s
        signal.signal(SIGNAL, self._on_signal)
        self._over_at = self._ring_at = time.monotonic() + limit_s
        self._wake()

    def clear(self) -> None:
        """The job is over."""
        self._over_at = self._ring_at = 0.0
        self._main = None
        self.has_rung = False

    def check(self) -> None:
        """Raise what could not be raised while no code of the job ran."""
        if self._over_at and self._over_at <= time.monotonic():
            self._raise()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> object:
        """Run a coroutine as ``asyncio.run`` does."""
        if not self._over_at:
            return asyncio.run(coroutine)
        try:
            return asyncio.run(self._run(coroutine))
        except asyncio.CancelledError as error:
            if not self.has_rung:
                raise
            raise self._error() from error

    async def _run(self, coroutine: Coroutine[Any, Any, Any]) -> object:
        self._main = asyncio.current_task()
        return await coroutine

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._may_raise():
            self.check()

    def _raise(self) -> None:
        self._over_at = 0.0
        self.has_rung = True
        main = self._main
        if main is None or asyncio.current_task(main.get_loop()) is main:
            raise self._error()
        main.get_loop().call_soon_threadsafe(main.cancel)  # wakes the loop, whatever it waits for

    def _error(self) -> TimeLimitExceeded:
        return TimeLimitExceeded(f"it took longer than {self._limit_s:g} s")

    # -- the control thread --

    def patience_s(self, now_s: float) -> float | None:
        """Return after how long to ``ring``; None: never."""
        at = self._ring_at
        return max(0.0, at - now_s) if at else None

    def ring(self, now_s: float) -> None:
        """Signal the main thread if it is time."""
        at = self._ring_at
        if at and at <= now_s:
            self._ring_at = 0.0
            signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)
