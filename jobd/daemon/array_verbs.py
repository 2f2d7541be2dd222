"""What clients want changed of arrays, as far as the store has to be asked for it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import msgspec

from jobd.model.errors import UsageError
from jobd.model.item import array_of, index_of, is_item, item_of, items_of, shown
from jobd.model.job import Job
from jobd.model.messages import Cancel
from jobd.model.selector import Selector
from jobd.model.states import ENDED, State
from jobd.scheduler import Array, Scheduler
from jobd.store import Store

SLICE = 500
"""Items with rows that are retried in one turn of the loop."""

Span = tuple[int, int]
"""Items: the number of the first, and of the first behind them."""


@dataclass(frozen=True)
class ArrayVerbs:
    """Changes arrays, or parts of them."""

    scheduler: Scheduler
    store: Store

    def spans(self, selector: Selector) -> Iterator[tuple[Job, Span]]:
        """Yield the items that are selected, array by array: by their own numbers, or by a state of theirs."""
        for low, high in selector.ranges:
            if is_item(low) and array_of(low) == array_of(high):
                job = self._array(array_of(low))
                if job is not None and job.array is not None and index_of(low) < job.array.items:
                    yield job, (low, min(high, item_of(job.id, job.array.items - 1)) + 1)
            elif low == high and selector.states:
                job = self._array(low)
                if job is not None and job.array is not None:
                    yield job, whole(job)

    def without(self, selector: Selector, spans: list[tuple[Job, Span]]) -> Selector:
        """Return what a selector selects beside these items."""
        arrays = {job.id for job, _ in spans} if selector.states else set()
        ranges = [
            (low, high)
            for low, high in selector.ranges
            if not is_item(low) and not (low == high and low in arrays)
        ]
        missing = [
            (low, high)
            for low, high in selector.ranges
            if is_item(low) and not any(low >= span[0] and low < span[1] for _, span in spans)
        ]
        if spans and not (ranges or missing or selector.all or selector.last):
            ranges = [(0, 0)]
        return msgspec.structs.replace(selector, ranges=ranges + missing)

    def _array(self, number: int) -> Job | None:
        return self.scheduler.window.jobs.get(number) or self.store.job(number)

    def cancel(self, job: Job, span: Span, request: Cancel, states: Collection[State] = ()) -> str:
        """Cancel items that have not ended, with ``states`` those in one of them; return the answer."""
        scheduler = self.scheduler
        array = scheduler.arrays.live.get(job.id)
        if array is None or array.job.state >= ENDED:
            return "already finished"
        for number, state in self.store.arrays.rows(*span):
            if state is State.SCHEDULED and number not in scheduler.window.jobs:
                row = self.store.job(number)
                if row is not None and row.state is State.SCHEDULED:
                    scheduler.window.load(row)
        return scheduler.array_control.cancel(
            array,
            span,
            request.reason,
            states=states,
            only_waiting=request.only_waiting,
            grace_us=None if request.grace_s is None else round(request.grace_s * 1e6),
        )

    def retry(self, job: Job, span: Span, states: Collection[State]) -> Iterator[int]:
        """Give items another round that have ended in one of these states; yield how many, part by part.

        No states: all that have not succeeded.
        """
        array = self._open(job)
        if array is not None:
            yield self._retry_ranges(array, span, states)
        wanted = [
            number
            for number, state in self.store.arrays.rows(*span)
            if state > State.SUCCEEDED and (not states or state in states)
        ]
        for start in range(0, len(wanted), SLICE):
            array = self._open(job)  # turns of the loop lie between: it may have ended
            if array is not None:
                rows = self.store.own_rows(wanted[start : start + SLICE])
                yield self.scheduler.array_control.retry(array, (), rows.values())
        array = self.scheduler.arrays.live.get(job.id)
        is_over = array is not None and array.job.state >= ENDED
        if is_over and not self.scheduler.ledger.is_unsettled(job.id):
            self.scheduler.arrays.forget(job.id)

    def _open(self, job: Job) -> Array | None:
        """Return an array of which items may get another round; None: none of this one now, or ever."""
        array = self.scheduler.arrays.live.get(job.id)
        if array is None:
            stored = self._array(job.id)
            if stored is None or stored.state is State.SUCCEEDED:
                return None
            return self._load(stored)
        is_unsettled = self.scheduler.ledger.is_unsettled(job.id)
        return None if array.job.state >= ENDED and is_unsettled else array

    def has_begun(self, job: Job) -> bool:
        """Whether the items of an array that has ended have ended too: it may have before they could start."""
        first, behind = whole(job)
        return sum(self.store.arrays.counts(first, behind).values()) == behind - first

    def has_run(self, job: Job) -> bool:
        """Whether something of an array has run to its end: it does not wait for others again."""
        states = self.store.arrays.counts(*whole(job)).keys()
        return not states <= {State.CANCELLED, State.ABORTED}

    def _retry_ranges(self, array: Array, span: Span, states: Collection[State]) -> int:
        scheduler = self.scheduler
        count = 0
        for range_ in self.store.arrays.ranges(*span):
            is_wanted = range_.state > State.SUCCEEDED and (not states or range_.state in states)
            if not is_wanted or scheduler.ledger.is_retried(range_.first):
                continue
            low, behind = max(range_.first, span[0]), min(range_.first + range_.count, span[1])
            scheduler.array_control.split(range_, [(low, behind - low)])
            range_.first, range_.count = low, behind - low
            count += scheduler.array_control.retry(array, [range_], ())
        scheduler.arrays.enter(array)
        return count

    def _load(self, job: Job) -> Array:
        """Bring an array into memory that has ended."""
        span = whole(job)
        found = self.store.arrays
        self.scheduler.arrays.restore(job, found.ranges(*span), found.rows(*span))
        return self.scheduler.arrays.live[job.id]


def whole(job: Job) -> Span:
    """Return all items of an array."""
    assert job.array is not None
    return items_of(job.id, job.array.items)


def refuse_items(selector: Selector, verb: str) -> None:
    """Refuse to do to items what is done to whole arrays.

    Raises:
        UsageError: items are selected.
    """
    for low, _ in selector.ranges:
        if is_item(low):
            raise UsageError(
                f"item {shown(low)} cannot be {verb} by itself", f"take the array: {array_of(low)}"
            )
