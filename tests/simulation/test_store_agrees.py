"""The real store and the one of the simulation are told the same, and must say the same.

What the simulation proves, it proves with a store in dictionaries.  Here each batch
of some histories is also written to SQLite, and each question is put to both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import fake_store
import msgspec
import pytest
from fake_arrays import FakeArrays
from fake_store import FakeStore
from simulation import Simulation

from jobd.model.edges import When
from jobd.model.item import item_of
from jobd.model.job import Attempt, Job, Lease
from jobd.model.messages import Piece
from jobd.model.queues import Override
from jobd.model.selector import Selector
from jobd.model.states import State
from jobd.model.stretch import Stretch
from jobd.scheduler.batch import Backlog, Batch, Range
from jobd.store import Store, questions
from jobd.store.arrays import ArrayQuestions

T = TypeVar("T")

HISTORIES = 70


class BothArrays(FakeArrays):
    """As ``BothStores``, for what is asked of arrays."""

    def __init__(self, jobs: dict[int, Job], real: ArrayQuestions) -> None:
        super().__init__(jobs)
        self._real = real
        self.is_ahead = False
        """The real store has not committed yet what this one has."""
        self.asked = 0

    def _same(self, ours: T, theirs: Callable[[], T]) -> T:
        if self.is_ahead:
            return ours
        self.asked += 1
        answer = theirs()
        assert ours == answer
        return answer

    def unended(self) -> list[int]:
        """Compare the arrays that have not ended."""
        return self._same(super().unended(), self._real.unended)

    def rows(self, first: int, behind: int) -> list[tuple[int, State]]:
        """Compare the items with rows."""
        return self._same(super().rows(first, behind), lambda: self._real.rows(first, behind))

    def ranges(
        self, first: int, behind: int, limit: int = -1, *, values: bool = False
    ) -> list[Range]:
        """Compare the ranges."""
        ours = super().ranges(first, behind, limit, values=values)
        return self._same(ours, lambda: self._real.ranges(first, behind, limit, values=values))

    def stretches(self, first: int, behind: int) -> Iterator[Stretch]:
        """Compare the calls."""
        ours = [*super().stretches(first, behind)]
        return iter(self._same(ours, lambda: [*self._real.stretches(first, behind)]))

    def ended(self, first: int, behind: int, most_bytes: int, *, ordered: bool) -> list[Piece]:
        """Compare what has ended."""
        ours = super().ended(first, behind, most_bytes, ordered=ordered)
        ask = partial(self._real.ended, first, behind, most_bytes, ordered=ordered)
        return self._same(ours, ask)

    def counts(self, first: int, behind: int) -> dict[State, int]:
        """Compare the counts."""
        return self._same(super().counts(first, behind), lambda: self._real.counts(first, behind))

    def first_failure(self, first: int, behind: int) -> int:
        """Compare the first failures."""
        ours = super().first_failure(first, behind)
        return self._same(ours, lambda: self._real.first_failure(first, behind))

    def item(self, own: Job, number: int) -> Job | None:
        """Compare an item without a row."""
        return self._same(super().item(own, number), lambda: self._real.item(own, number))

    def between(self, own: Job, first: int, behind: int) -> list[Job]:
        """Compare the items without rows."""
        ours = super().between(own, first, behind)
        return self._same(ours, lambda: self._real.between(own, first, behind))

    def page(
        self, own: Job, first: int, behind: int, states: Sequence[State], limit: int
    ) -> tuple[list[Job], int]:
        """Compare what a page shows; where it ends is the store's own affair."""
        jobs, low = self._real.page(own, first, behind, states, limit)
        assert first <= low < behind
        ours, _ = super().page(own, low, behind, states, behind - low)
        self._same(ours, lambda: jobs)
        return jobs, low


class BothStores(FakeStore):
    """Passes everything on to a real store, and compares the answers."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.real = Store(path, "off")
        self.asked = 0
        self.arrays: BothArrays = BothArrays(self.rows, self.real.arrays)

    def write(self, batch: Batch) -> None:
        """Write to both."""
        super().write(batch)
        self.real.begin()
        self.real.write(batch)

    def commit(self) -> None:
        """Commit both, or neither; compare what was written."""
        written = self.pending
        self.arrays.is_ahead = True
        super().commit()
        self.real.commit()
        self.arrays.is_ahead = False
        assert written is not None
        packed = [n for p in written.parcels for n in range(p.first, p.last + 1)]
        items = [n for r in written.arrays.ranges for n in range(r.first, r.first + r.count)]
        items += [first for first, _, _ in written.arrays.chunks]
        for number in [*packed, *items, *(job.id for job, _ in written.rows)]:
            self.job(number)
        for job, _ in written.rows:
            if job.array is not None and job.array.items:
                self._look_at_array(job)

    def _look_at_array(self, own: Job) -> None:
        """Compare all that can be asked of an array, and of a part of it."""
        assert own.array is not None
        arrays, first, items = self.arrays, item_of(own.id, 0), own.array.items
        arrays.first_failure(first, first + items)
        arrays.counts(first, first + items)
        for low, high in ((0, items), (items // 3, items // 3 + 2)):
            span = first + low, first + min(high, items)
            arrays.between(own, *span)
            for ordered in (False, True):
                arrays.ended(*span, 100, ordered=ordered)
            for states in ([], [State.QUEUED], [State.SUCCEEDED], [State.FAILED, State.CANCELLED]):
                behind = span[1]
                while behind > span[0]:
                    _, behind = arrays.page(own, span[0], behind, states, 3)

    def rollback(self) -> None:
        """Roll both back."""
        super().rollback()
        self.real.rollback()

    def counts(self) -> dict[State, int]:
        """Compare the counts."""
        return self._same(super().counts(), self.real.counts() or dict.fromkeys(State, 0))

    def queued(self) -> dict[str, int]:
        """Compare the counts by queue."""
        return self._same(super().queued(), self.real.queued())

    def queues(self) -> dict[str, Override]:
        """Compare what was said of queues."""
        return self._same(super().queues(), self.real.queues())

    def next_id(self) -> int:
        """Compare the next id."""
        return self._same(super().next_id(), self.real.next_id())

    def leases(self) -> list[Lease]:
        """Compare the leases."""
        return self._same(super().leases(), self.real.leases())

    def submit_of(self, uid: bytes) -> tuple[int, int] | None:
        """Compare where a submit is found."""
        return self._same(super().submit_of(uid), self.real.submit_of(uid))

    def session_high(self, session: bytes) -> bytes:
        """Compare the highest keys."""
        return self._same(super().session_high(session), self.real.session_high(session))

    def job(self, number: int) -> Job | None:
        """Compare a job."""
        return self._same(super().job(number), self.real.job(number))

    def attempts(self, number: int) -> list[Attempt]:
        """Compare the earlier attempts of a job."""
        return self._same(super().attempts(number), self.real.attempts(number))

    def backlog(self, cursor: int, high: int, wanted: int, lane: str = "") -> Backlog:
        """Compare what is loaded of the queue."""
        ours = super().backlog(cursor, high, wanted, lane)
        theirs = self.real.backlog(cursor, high, wanted, lane)
        self._same(_plain(ours), _plain(theirs))
        return theirs

    def lanes(self, after: str, before: str, limit: int) -> list[str]:
        """Compare the lanes in which jobs wait."""
        return self._same(
            super().lanes(after, before, limit), self.real.lanes(after, before, limit)
        )

    def due(self, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
        """Compare what the clock does something to."""
        return self._same(super().due(after, limit), self.real.due(after, limit))

    def keyed(self, key: str, limit: int) -> list[int]:
        """Compare who has a key."""
        return self._same(super().keyed(key, limit), self.real.keyed(key, limit))

    def states(self, numbers: list[int]) -> dict[int, State]:
        """Compare the states of some jobs."""
        return self._same(super().states(numbers), self.real.states(numbers))

    def own_rows(self, numbers: list[int]) -> dict[int, Job]:
        """Compare some jobs."""
        return self._same(super().own_rows(numbers), self.real.own_rows(numbers))

    def values(self, numbers: list[int]) -> dict[int, bytes | None]:
        """Compare what some jobs have returned."""
        return self._same(super().values(numbers), self.real.values(numbers))

    def dependants(self, number: int, after: int, limit: int) -> list[tuple[int, When]]:
        """Compare who waits for a job."""
        theirs = self.real.dependants(number, after, limit)
        return self._same(super().dependants(number, after, limit), theirs)

    def unmet(self, number: int, limit: int) -> list[int]:
        """Compare for what a job waits; of more than is asked for, any will do."""
        self._same(super().unmet(number, 1000), sorted(self.real.unmet(number, 1000)))
        return self._some(super().unmet(number, limit), self.real.unmet(number, limit))

    def never(self, number: int, limit: int) -> list[int]:
        """Compare what keeps it from ever starting."""
        self._same(super().never(number, 1000), sorted(self.real.never(number, 1000)))
        return self._some(super().never(number, limit), self.real.never(number, limit))

    def _some(self, ours: list[int], theirs: list[int]) -> list[int]:
        assert len(ours) == len(theirs)
        return theirs

    def blocked(self, after: int, limit: int) -> list[int]:
        """Compare who is blocked."""
        return self._same(super().blocked(after, limit), self.real.blocked(after, limit))

    def aborted(self, after: int, limit: int) -> list[tuple[int, int]]:
        """Compare who was aborted, and because of whom."""
        return self._same(super().aborted(after, limit), self.real.aborted(after, limit))

    def page(self, selector: Selector, before: int, limit: int) -> tuple[list[Job], int]:
        """Compare what a page shows; where it ends is the store's own affair."""
        jobs, after = self.real.page(selector, before, limit)
        assert len(jobs) <= limit
        numbers = [job.id for job in jobs]
        low = max(after, 1)
        assert numbers == list(self._matching(selector, low, before))[: len(numbers)]
        if after == 0:
            assert len(numbers) == len(list(self._matching(selector, low, before))) or selector.last
        for job in jobs:
            known = super().job(job.id)
            assert known is not None
            known.value = None
            self._same(known, job)
        return jobs, after

    def _matching(self, selector: Selector, low: int, before: int) -> Iterator[int]:
        every = selector.all or selector.last
        for number in range(min(before, self.next) - 1, low - 1, -1):
            state = self.state_of(number)
            chosen = every or any(a <= number <= b for a, b in selector.ranges)
            if chosen and state is not None and (not selector.states or state in selector.states):
                yield number

    def _same(self, ours: T, theirs: T) -> T:
        self.asked += 1
        assert ours == theirs
        return theirs


def _plain(answer: Backlog) -> object:
    """Return a backlog without the links between its parts, which lead round in circles."""
    parcels, rows, reached = answer
    return (
        [
            (p.first, p.last, [(r.first, r.uid, r.batch, r.function, r.args) for r in p.records])
            for p in parcels
        ],
        {number: job and msgspec.structs.asdict(job) for number, job in rows.items()},
        reached,
    )


def test_both_stores_give_the_same_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens, SQLite holds what the dictionaries hold."""
    asked = of_arrays = 0
    for seed in range(HISTORIES):
        monkeypatch.setattr(fake_store, "SCAN", 5)
        monkeypatch.setattr(questions, "SCAN", 2 + seed % 9)
        store = BothStores(tmp_path / f"{seed}.db")
        try:
            Simulation(seed, store=store).run()
        finally:
            store.real.close()
        asked += store.asked
        of_arrays += store.arrays.asked
    assert asked > HISTORIES * 50
    assert of_arrays > HISTORIES * 50
