"""How long results are kept: older ones are replaced by a tombstone, a slice in each turn of the loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jobd.model.job import EXPIRED

if TYPE_CHECKING:
    from jobd.daemon.loop import Daemon

SLICE = 2_000
"""Ids that are looked at in one turn of the loop."""

LEAST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
"""Between two passes through all jobs lies a tenth of the time for which results are kept."""


class Retention:
    """Removes the values of jobs that ended long ago; the jobs themselves stay."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._keep_s = daemon.settings.results.keep_s
        self._next_s = 0.0

    def look(self, now_s: float) -> Iterator[None] | None:
        """Return the steps of a pass if it is time for one."""
        if not self._keep_s or now_s < self._next_s:
            return None
        self._next_s = float("inf")
        return self._pass()

    def _pass(self) -> Iterator[None]:
        daemon = self._daemon
        before_us = time.time_ns() // 1000 - int(self._keep_s * 1e6)
        for low in range(0, daemon.scheduler.ledger.stored_high, SLICE):
            for number in daemon.store.old_values(low, low + SLICE, before_us):
                self._expire(number)
            yield
        self._next_s = daemon.now_s + min(LONGEST_PAUSE_S, max(LEAST_PAUSE_S, self._keep_s / 10))

    def _expire(self, number: int) -> None:
        scheduler = self._daemon.scheduler
        job = None if number in scheduler.window.jobs else self._daemon.store.job(number)
        if job is not None:  # else somebody takes it at this moment
            self._daemon.payloads.release(job.value)
            scheduler.consume(scheduler.window.load(job), EXPIRED)
