"""Orders to stop that a worker may be unable to hear, and what is done instead.

Its control thread cannot run while C code in the main thread keeps the GIL, so it cannot send the
SIGTERM that an order to stop asks for; but much of that code looks at signals.  So the daemon
sends it itself, to a worker that has not taken notice within ``HEARS_WITHIN_S``: it is halted
and looked at, as before it is killed, for the signal must not hit the next attempt.  Who
has sent it stands on the scoreboard, so that nobody is told twice.
"""

from __future__ import annotations

import time

from jobd.pool import linux
from jobd.pool.scoreboard import Scoreboard

HEARS_WITHIN_S = 0.1


class Unheard:
    """The orders whose time to be heard is not over."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, int, int], float] = {}

    def ordered(self, uid: str, job: int, attempt: int) -> None:
        """Take note of an order that leaves now."""
        self._until[uid, job, attempt] = time.monotonic() + HEARS_WITHIN_S

    def wake_at_s(self) -> float | None:
        """Return when ``take`` should be called next, on the monotonic clock; None: never."""
        return min(self._until.values(), default=None)

    def take(self) -> list[tuple[str, int, int]]:
        """Return the orders, as (worker, job, attempt), that should have been heard by now; once."""
        if not self._until:
            return []
        now_s = time.monotonic()
        due = [key for key, at in self._until.items() if at <= now_s]
        for key in due:
            del self._until[key]
        return due


def insist(pid: int, pidfd: int, board: Scoreboard, attempt: tuple[int, int]) -> bool:
    """Send SIGTERM for an attempt's sake, unless it is over or was sent one; return whether it was sent."""

    def is_deaf() -> bool:
        return board.now[:2] == attempt != board.to_stop

    if not is_deaf():
        return False
    is_ours = linux.halt(pid, pidfd)
    try:
        if not is_deaf():
            return False
        board.order_stop(*attempt)
        linux.end_processes(pid)
        return True
    finally:
        if is_ours:
            linux.go_on(pidfd)
