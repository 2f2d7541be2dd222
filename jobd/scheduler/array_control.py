"""What is done to arrays: they end, are cancelled, cut short and retried, as a whole or in part."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from jobd.model.item import array_of, items_of, shown
from jobd.model.job import ITEMS, ErrorInfo, Job
from jobd.model.states import ENDED, Event, State, transition
from jobd.scheduler.aftermath import Aftermath
from jobd.scheduler.arrays import Array, Arrays, is_over, is_well
from jobd.scheduler.batch import Range
from jobd.scheduler.control import Control
from jobd.scheduler.keepers import Keepers
from jobd.scheduler.roster import Worker

TOO_MANY = "too many others have failed"
"""Why items are aborted that have not started."""


class ArrayControl:
    """Ends arrays, and changes them."""

    def __init__(
        self, keepers: Keepers, workers: dict[str, Worker], aftermath: Aftermath, control: Control
    ) -> None:
        self._arrays: Arrays = keepers.arrays
        self._ledger = keepers.ledger
        self._window = keepers.window
        self._blocked = keepers.blocked
        self._workers = workers
        self._aftermath = aftermath
        self._control = control
        self.recalled: dict[str, None] = {}
        """Workers that are to give back what they have not come to: some of it is not to run."""

    def take_recalled(self) -> list[str]:
        """Return, once, workers that are to give back what they have not come to."""
        recalled, self.recalled = self.recalled, {}
        return [*recalled]

    def settle(self) -> None:
        """Look whether arrays are over of which something has ended, or have failed too often."""
        arrays = self._arrays
        while arrays.touched:
            touched, arrays.touched = arrays.touched, {}
            for number in touched:
                array = arrays.live.get(number)
                if array is None or array.job.void:
                    continue
                most = array.spec.max_fails
                if most is not None and array.failed > most:
                    self._abort(array)
                if is_over(array) and _may_end(array):
                    self._end(array)

    def _abort(self, array: Array) -> None:
        """What has not started does not start any more."""
        first, behind = items_of(array.job.id, array.spec.items)
        for low, count in self._arrays.take_out(array, first, behind):
            self._arrays.record(Range(low, count, State.ABORTED, cause=TOO_MANY))
        for job in self._waiting(array, first, behind):
            job.cause = TOO_MANY
            self._aftermath.finish(job, Event.ABORT)
        self._doom(array, first, behind, State.ABORTED, TOO_MANY)

    def _end(self, array: Array) -> None:
        """Record its end; who comes after it is told once that is durable: then all values can be read."""
        job = array.job
        if job.stop is Event.CANCEL:
            self._aftermath.record(job, Event.CANCEL)
        elif is_well(array):
            job.value = ITEMS
            self._aftermath.record(job, Event.COMPLETE)
        else:
            lost = array.spec.items - array.ended[State.SUCCEEDED]
            what = f"{lost} of {array.spec.items} items have not succeeded"
            if array.first_failure:
                what = f"{what}, the first is {shown(array.first_failure)}"
            job.error = ErrorInfo("jobd.ItemsFailed", what, "")
            self._aftermath.record(job, Event.FALL_SHORT)

    def _waiting(self, array: Array, first: int, behind: int) -> list[Job]:
        """Return the items with rows between these numbers that have not ended and do not run."""
        jobs = self._window.jobs.values()
        return [
            job
            for job in list(jobs)
            if first <= job.id < behind
            and job.state <= State.QUEUED
            and array_of(job.id) == array.job.id
        ]

    def _in_hands(self, array: Array) -> list[tuple[str, Job]]:
        number = array.job.id
        return [
            (worker.uid, job)
            for worker in self._workers.values()
            for job in worker.assigned.values()
            if array_of(job.id) == number
        ]

    def _doom(self, array: Array, first: int, behind: int, state: State, why: str) -> int:
        """Have stretches come back that are in workers' hands: of these items what has not run is not to.

        Returns how many stretches these are.
        """
        count = 0
        for uid, job in self._in_hands(array):
            if job.stretch is None or job.id in self._window.jobs:
                continue  # it is by itself
            if first < job.id + job.stretch.count and job.id < behind:
                job.doomed = [*(job.doomed or ()), (first, behind, state, why)]
                self.recalled[uid] = None
                count += 1
        return count

    def cancel(
        self,
        array: Array,
        span: tuple[int, int],
        reason: str,
        *,
        states: Collection[State] = (),
        only_waiting: bool = False,
        grace_us: int | None = None,
    ) -> str:
        """Cancel items that have not ended, with ``states`` those in one of them; return the answer."""
        first, behind = span
        only_waiting = only_waiting or (bool(states) and State.RUNNING not in states)
        cancelled = stopping = 0
        if not states or min(states) <= State.QUEUED:
            cancelled = self._cancel_waiting(array, first, behind, reason)
        if not only_waiting:
            stopping = self._cancel_running(array, first, behind, reason, grace_us)
        is_whole = span == items_of(array.job.id, array.spec.items)
        if is_whole and not states and (cancelled or stopping or not array.open):
            array.job.stop = Event.CANCEL
            array.job.cause = reason
            self._ledger.store(array.job)
            self._arrays.touched[array.job.id] = None
            self.settle()  # at once: else it might expire before
        if not (cancelled or stopping):
            return "is running" if only_waiting and array.hands else "already finished"
        if not cancelled:
            return "stopping"
        items = "1 item" if cancelled == 1 else f"{cancelled} items"
        return f"cancelled {items}" + (", stopping those that run" if stopping else "")

    def _cancel_waiting(self, array: Array, first: int, behind: int, reason: str) -> int:
        """Cancel what is in nobody's hands; return how many items."""
        cancelled = 0
        for low, count in self._arrays.take_out(array, first, behind):
            self._arrays.record(Range(low, count, State.CANCELLED, cause=reason))
            cancelled += count
        for job in self._waiting(array, first, behind):
            self._control.cancel(job, reason)
            cancelled += 1
        return cancelled

    def _cancel_running(
        self, array: Array, first: int, behind: int, reason: str, grace_us: int | None
    ) -> int:
        """Have stopped, or given back, what is in workers' hands; return how many items, or stretches."""
        stopping = 0
        for _, job in self._in_hands(array):
            if job.id in self._window.jobs and first <= job.id < behind:
                self._control.cancel(job, reason, grace_us=grace_us)
                stopping += 1
        return stopping + self._doom(array, first, behind, State.CANCELLED, reason)

    def retry(self, array: Array, ranges: Iterable[Range], rows: Iterable[Job]) -> int:
        """Give items that have ended without success another round; return how many.

        ``ranges`` are as stored, or parts of those; ``rows`` are items as they are stored.
        """
        count = 0
        for range_ in ranges:
            self._reopen(array)
            array.open += range_.count
            array.ended[range_.state] -= range_.count
            self._arrays.bring_back(array, range_.first, range_.count)
            count += range_.count
        for row in rows:
            if self._control.is_unsettled(row.id) or row.id in self._window.jobs:
                continue
            if row.state <= State.SUCCEEDED:
                continue  # it was retried meanwhile
            self._reopen(array)
            self._arrays.reopened(row.id, row.state)
            self._control.retry(self._window.load(row))
            count += 1
        if count:
            array.first_failure = 0
        return count

    def _reopen(self, array: Array) -> None:
        """An array that had ended gets another round."""
        job = array.job
        job.stop = None
        if job.state < ENDED:
            return
        self._blocked.restarted(job.id)
        job.state = transition(job.state, Event.RETRY)
        job.error, job.value, job.cause, job.ended_at = None, None, "", 0
        self._window.recover(job)
        self._ledger.store(job)

    def split(self, range_: Range, parts: Iterable[tuple[int, int]]) -> None:
        """Have parts of a stored range (first, count) count no longer; what is left of it is stored anew."""
        batch = self._ledger.batch
        batch.unranged.append(range_.first)
        at = range_.first
        for first, count in [*sorted(parts), (range_.first + range_.count, 0)]:
            if at < first:
                left = Range(
                    at,
                    first - at,
                    range_.state,
                    range_.started_at,
                    range_.ended_at,
                    range_.pid,
                    range_.cause,
                )
                batch.ranges[at] = left
            at = first + count
        batch.urgent = True


def _may_end(array: Array) -> bool:
    """Whether an array of which nothing is left ends now; one that is held may come after others."""
    job = array.job
    if job.state is not State.HELD:
        return job.state is State.QUEUED
    has_run = array.ended[State.SUCCEEDED] + array.failed > 0
    return has_run or job.stop is Event.CANCEL
