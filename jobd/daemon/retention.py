"""How long results are kept: older ones are replaced by a tombstone, a slice in each turn of the loop.

A value is spared while a job that has not ended has it as an input.  Who has which is read from the
store when there is something to expire; what a submit names meanwhile may not be stored yet,
so it is remembered until the pass after that is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from jobd.daemon.payloads import Payloads
from jobd.model.job import EXPIRED
from jobd.scheduler import Scheduler
from jobd.store import Store

SLICE = 2_000
"""Ids that are looked at in one turn of the loop."""

MOST = 50_000
"""Values that are expired together: for these one look goes through all jobs with inputs."""

LEAST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
"""Between two passes through all jobs lies a tenth of the time for which results are kept."""


class Retention:
    """Removes the values of jobs that ended long ago; the jobs themselves stay."""

    def __init__(
        self, scheduler: Scheduler, store: Store, payloads: Payloads, keep_s: float
    ) -> None:
        """Keep results for ``keep_s`` seconds; 0: for ever."""
        self._scheduler = scheduler
        self._store = store
        self._payloads = payloads
        self._keep_s = keep_s
        self._next_s = 0.0
        self._named: set[int] = set()
        """Jobs that submits have named as inputs since the last pass began."""

    def names(self, inputs: Iterable[int]) -> None:
        """A submit has these as inputs."""
        if self._keep_s:
            self._named.update(inputs)

    def look(self, now_s: float) -> Iterator[None] | None:
        """Return the steps of a pass if it is time for one."""
        if not self._keep_s or now_s < self._next_s:
            return None
        self._next_s = float("inf")
        return self._pass()

    def _pass(self) -> Iterator[None]:
        before_us = time.time_ns() // 1000 - int(self._keep_s * 1e6)
        named, self._named = self._named, set()
        old: set[int] = set()
        for low in range(0, self._scheduler.ledger.stored_high, SLICE):
            old.update(self._store.old_values(low, low + SLICE, before_us))
            if len(old) >= MOST:
                yield from self._expire_all(old - named)
                old = set()
            yield
        yield from self._expire_all(old - named)
        self._next_s = time.monotonic() + min(
            LONGEST_PAUSE_S, max(LEAST_PAUSE_S, self._keep_s / 10)
        )

    def _expire_all(self, old: set[int]) -> Iterator[None]:
        """Expire those of these values that nobody needs."""
        after = 0
        while old and (found := self._store.inputs_in_use(after, SLICE)):
            for after, inputs in found:  # noqa: B007  # the last one is where it goes on
                old.difference_update(inputs)
            yield
        for index, number in enumerate(sorted(old), 1):
            if number not in self._named:
                self._expire(number)
            if index % SLICE == 0:
                yield

    def _expire(self, number: int) -> None:
        scheduler = self._scheduler
        job = None if number in scheduler.window.jobs else self._store.job(number)
        if job is not None:  # else somebody takes it at this moment
            self._payloads.release(job.value)
            scheduler.control.consume(scheduler.window.load(job), EXPIRED)
