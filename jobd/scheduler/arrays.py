"""Arrays: jobs of many items, which are given out in stretches.

The array's own job stands in line, with its priority, its queue and its gates, and what is
taken out of the line is an item of it, or a *stretch*: items that follow on each other, which
one worker runs one after the other.  How long a stretch is follows from how long the items take.

Most items are never a job by themselves: they wait in the store as calls, a chunk in each
row, run in a stretch, and are recorded in *ranges*, those that ended alike together.  An item
of which there is more to tell (it has failed, is tried again, has written something, takes long) becomes
a job like others, with the number that ``jobd.model.item`` gives it, and a row of its own.

What is left of an array is *outstanding*: in the store (``ahead``), in memory (``loaded``), in
the hands of workers, or a job of its own.  It ends in the commit in which nothing is.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from heapq import heappop, heappush
from operator import attrgetter

import msgspec

from jobd.model.item import FIRST_ITEM, array_of, item_of, owner_of
from jobd.model.job import NO_ARGS, ArraySpec, Errors, Job, Outcome
from jobd.model.states import ENDED, WIDTH, State
from jobd.model.stretch import Stretch
from jobd.scheduler.batch import Batch, Range
from jobd.scheduler.ledger import Ledger
from jobd.scheduler.window import Window

LOADED = 4_096
"""Items of an array whose calls are in memory, more by a chunk at most; with half as many, more are loaded."""

_by_first = attrgetter("first")


class Array(msgspec.Struct):
    """An array that has not ended."""

    job: Job
    spec: ArraySpec
    open: int
    """Items that have not ended."""
    ahead: list[tuple[int, int]] = []
    """Items in the store only: the numbers of the first of each piece, and of the first behind it."""
    loaded: list[Stretch] = []
    again: list[int] = []
    """A heap of the items with rows that are ready."""
    ended: list[int] = msgspec.field(default_factory=lambda: [0] * WIDTH)
    """How many have ended, by state."""
    hands: int = 0
    """Stretches, and items by themselves, in workers' hands."""
    is_in_line: bool = False
    first_failure: int = 0
    """The lowest number of those that have not succeeded; 0: there is none."""

    @property
    def failed(self) -> int:
        """How many items have ended without success, by themselves."""
        return sum(self.ended[state] for state in (State.FAILED, State.CRASHED, State.TIMED_OUT))

    def counts(self) -> dict[State, int]:
        """Return how many items have ended, by state."""
        return {State(n): count for n, count in enumerate(self.ended) if count}

    @property
    def has_ready(self) -> bool:
        """Whether there is an item that could start."""
        has_slot = not self.spec.slots or self.hands < self.spec.slots
        return has_slot and bool(self.loaded or self.again)


class Arrays:
    """The arrays that have not ended, and what is outstanding of each."""

    def __init__(self, ledger: Ledger, window: Window) -> None:
        self.live: dict[int, Array] = {}
        self.touched: dict[int, None] = {}
        """Arrays of which something has ended: whether they are over is to be seen."""
        self.news: set[int] = set()
        """Arrays of which something that has ended is durable since it was looked here last."""
        self._ledger = ledger
        self._window = window
        self._jobs = window.jobs

    # -- coming --

    def admit(self, job: Job, chunks: list[tuple[int, bytes]]) -> None:
        """Take in a new array, before its job: its calls are stored with it."""
        assert job.array is not None
        array = self.live[job.id] = Array(job, job.array, job.array.items)
        first = item_of(job.id, 0)
        room = LOADED
        for count, blob in chunks:
            self._ledger.batch.chunks.append((first, count, blob))
            if room > 0:
                array.loaded.append(Stretch(first, count, blob))
                room -= count
            else:
                _add(array.ahead, first, first + count)
            first += count
        self.touched[job.id] = None  # it may have no items

    def restore(self, job: Job, ended: Iterable[Range], rows: Iterable[tuple[int, State]]) -> None:
        """Take in a stored array, with what has ended of it; ``rows`` are its items with rows."""
        assert job.array is not None
        array = self.live[job.id] = Array(job, job.array, job.array.items)
        gone = [(range_.first, range_.count, range_.state) for range_ in ended]
        gone += [(number, 1, state) for number, state in rows]
        at = item_of(job.id, 0)
        end = at + job.array.items
        for first, count, state in sorted(gone):
            if at < first:
                array.ahead.append((at, first))
            at = first + count
            if state >= ENDED:
                self._count(array, first, count, state)
        if at < end:
            array.ahead.append((at, end))
        self.touched[job.id] = None

    def change(self, array: Array, spec: ArraySpec) -> None:
        """Let this hold for an array from now on."""
        array.spec = array.job.array = spec
        self._ledger.batch.specs[array.job.id] = spec
        self._ledger.batch.urgent = True
        self.enter(array)

    def committed(self, batch: Batch) -> list[Job]:
        """What this batch says of arrays is durable; return those that have ended for good."""
        ended: list[Job] = []
        if batch.ranges:
            self.news.update(map(array_of, batch.ranges))
        for number, job in batch.jobs.items() if self.live else ():
            if number >= FIRST_ITEM:
                self.news.add(array_of(number))
            elif job.array is not None:
                self.news.add(number)
                if job.state >= ENDED and number not in self._ledger.batch.jobs:
                    self.forget(number)
                    ended.append(job)
        return ended

    def forget(self, number: int) -> None:
        """An array has ended for good, or never was."""
        self.live.pop(number, None)
        self.touched.pop(number, None)

    def thirsty(self) -> list[tuple[int, int]]:
        """Return from which items on calls are to be loaded, and behind which there are none to load."""
        found = []
        for number, array in self.live.items():
            may_run = array.job.state is State.QUEUED and number <= self._ledger.stored_high
            if may_run and array.ahead and self._is_low(array):
                found.append(array.ahead[0])
        return found

    @property
    def wants_more(self) -> bool:
        """Whether calls should be loaded."""
        return bool(self.live) and bool(self.thirsty())

    @staticmethod
    def _is_low(array: Array) -> bool:
        return sum(stretch.count for stretch in array.loaded) < LOADED // 2

    def load(self, stretches: Iterable[Stretch]) -> None:
        """Take in calls from the store, which continue what is in memory."""
        for stretch in stretches:
            array = self.live[array_of(stretch.first)]
            for first, count in _take_out(
                array.ahead, stretch.first, stretch.first + stretch.count
            ):
                array.loaded.append(stretch.part(first, first + count))
            array.loaded.sort(key=_by_first)
            self.enter(array)

    # -- going --

    def enter(self, array: Array) -> None:
        """Let an array's job stand in line, if there is something to take out for it."""
        job = array.job
        if job.state is State.QUEUED and not array.is_in_line and array.has_ready:
            array.is_in_line = True
            self._window.line_up(job)

    @property
    def are_in_line(self) -> bool:
        """Whether some stand in line."""
        return any(array.is_in_line for array in self.live.values())

    def count_open(self) -> int:
        """Return how many items have not ended."""
        return sum(array.open for array in self.live.values())

    def draw(self, job: Job, most: int) -> Job | None:
        """Take out an array's next items, ``most`` of them, as one job; None: none is ready."""
        array = self.live[job.id]
        array.is_in_line = False
        drawn = self._draw(array, most) if array.has_ready else None
        array.hands += drawn is not None
        self.enter(array)
        if drawn is not None and not job.started_at:
            job.started_at, job.due_at = self._ledger.wall, 0  # it does not expire any more
            self._ledger.store(job)
        return drawn

    def _draw(self, array: Array, most: int) -> Job | None:
        while array.again:
            item = self._jobs.get(heappop(array.again))
            if item is not None and item.state is State.QUEUED and not item.void:
                return item
        if not array.loaded:
            return None
        stretch = array.loaded[0]
        if 1 < most < stretch.count <= most * 3 // 2:
            most = stretch.count  # rather than leave a short one
        if most < stretch.count:
            behind = stretch.first + most
            array.loaded[0] = stretch.part(behind, stretch.behind)
            stretch = stretch.part(stretch.first, behind)
        else:
            del array.loaded[0]
        return self.job_of(array, stretch)

    def job_of(self, array: Array, stretch: Stretch) -> Job:
        """Return what stands for these items: one job; of several it is in nobody's window."""
        own = array.job
        job = Job(stretch.first, own.uid, 0, own.function, b"", own.created_at, own.policy)
        job.lane, job.stretch, job.void = own.lane, stretch, own.void
        job.inputs = own.inputs
        if stretch.count == 1:
            self._single(array, job)
        else:
            job.args = code_of(own) + stretch.chunk
        return job

    def _single(self, array: Array, job: Job) -> None:
        """A stretch of one is a job like others."""
        assert job.stretch is not None
        job.args = code_of(array.job) + job.stretch.call()
        self._window.recover(job)

    def push(self, job: Job) -> None:
        """Take back items that are to run some other time, or an array that may go on."""
        array = self.live.get(owner_of(job.id))
        if array is None or job.void:
            self._window.unload(job)
            return
        if job.array is not None:
            array.is_in_line = False  # where it stood it may have been passed over meanwhile
            self.touched[job.id] = None  # nothing of it may be left
        elif job.stretch is None:
            self._jobs[job.id] = job
            heappush(array.again, job.id)
        else:
            self._put_back(array, job, job.stretch)
        self.enter(array)

    def _put_back(self, array: Array, job: Job, stretch: Stretch) -> None:
        if job.id in self._jobs:
            self._window.unload(job)
        left = [(stretch.first, stretch.first + stretch.count)]
        for first, behind, state, why in job.doomed or ():
            for low, count in _take_out(left, first, behind):
                self.record(Range(low, count, state, cause=why))
        for first, behind in left:
            insort(array.loaded, stretch.part(first, behind), key=_by_first)
        job.stretch = None

    # -- in hands --

    def handed(self, job: Job) -> None:
        """These items are in a worker's hands."""
        self.live[array_of(job.id)].hands += 1

    def came_back(self, job: Job) -> None:
        """They are not any more."""
        array = self.live.get(array_of(job.id))
        if array is not None:
            array.hands -= 1
            self.enter(array)

    def advance(self, job: Job, count: int) -> None:
        """So many items of a stretch in a worker's hands are over, and it has more."""
        stretch = job.stretch
        assert stretch is not None
        job.stretch = stretch = stretch.part(stretch.first + count, stretch.behind)
        job.id = stretch.first
        self._shrunk(job, stretch)

    def cut(self, job: Job, first: int) -> Job | None:
        """Part a stretch in a worker's hands that will not come to this item; return what it will not."""
        stretch = job.stretch
        if stretch is None or not job.id <= first < job.id + stretch.count:
            return None
        rest = Job(first, job.uid, 0, job.function, b"", job.created_at, job.policy)
        rest.stretch, rest.lane = stretch.part(first, stretch.behind), job.lane
        rest.void, rest.doomed, rest.inputs = job.void, job.doomed, job.inputs
        job.stretch = stretch = stretch.part(job.id, first)
        self._shrunk(job, stretch)
        return rest

    def _shrunk(self, job: Job, stretch: Stretch) -> None:
        array = self.live.get(array_of(job.id))
        if stretch.count == 1 and array is not None:
            self._single(array, job)

    def part(self, job: Job) -> Job:
        """Return the first item of a stretch in a worker's hands as a job of its own, in the same attempt."""
        stretch, array = job.stretch, self.live.get(array_of(job.id))
        assert stretch is not None
        item = Job(job.id, job.uid, 0, job.function, b"", job.created_at, job.policy, job.state)
        item.lane, item.void, item.attempt, item.pid = job.lane, job.void, job.attempt, job.pid
        if array is not None:
            item.args = code_of(array.job) + stretch.call()
            item.inputs = job.inputs
            self._window.recover(item)
        return item

    # -- ends --

    def returned(self, job: Job, outcome: Outcome) -> None:
        """The first items of a stretch have returned, and there is nothing else to tell of them."""
        ended_at = outcome.started_at + outcome.duration_us
        self.record(
            Range(
                job.id,
                outcome.count,
                State.SUCCEEDED,
                outcome.started_at,
                ended_at,
                job.pid,
                values=outcome.value or b"",
            )
        )

    def record(self, range_: Range) -> None:
        """Record the end of items without rows."""
        array = self.live.get(array_of(range_.first))
        if array is None or array.job.void:
            return
        if not range_.ended_at:
            range_.ended_at = self._ledger.wall
        self._ledger.batch.ranges[range_.first] = range_
        self._ledger.batch.urgent = True
        self._count(array, range_.first, range_.count, range_.state)
        self.touched[array.job.id] = None

    def ended(self, job: Job) -> None:
        """An item with a row has ended."""
        array = self.live.get(array_of(job.id))
        if array is not None:
            self._count(array, job.id, 1, job.state)
            self.touched[array.job.id] = None

    def reopened(self, number: int, state: State) -> None:
        """An item that had ended in this state gets another round."""
        array = self.live[array_of(number)]
        array.open += 1
        array.ended[state] -= 1

    @staticmethod
    def _count(array: Array, first: int, count: int, state: State) -> None:
        array.open -= count
        array.ended[state] += count
        if state is not State.SUCCEEDED:
            array.first_failure = min(array.first_failure or first, first)

    def take_out(self, array: Array, first: int, behind: int) -> list[tuple[int, int]]:
        """Take items between these numbers out of those that have no rows and are in nobody's hands.

        Returns the pieces, as (first, count).
        """
        found = _take_out(array.ahead, first, behind)
        kept: list[Stretch] = []
        for stretch in array.loaded:
            low, high = stretch.first, stretch.first + stretch.count
            left = [(low, high)]
            found += _take_out(left, first, behind)
            kept += [stretch.part(a, b) for a, b in left]
        array.loaded = kept
        return _merged(found)

    def bring_back(self, array: Array, first: int, count: int) -> None:
        """Items that had ended without rows are outstanding again; they are in the store."""
        _add(array.ahead, first, first + count)


def code_of(job: Job) -> bytes:
    """Return what stands before each call of an array: its function, if that travels by value."""
    return job.args[: -len(NO_ARGS)]


def is_over(array: Array) -> bool:
    """Whether nothing of an array is outstanding."""
    return not array.open and array.job.state < ENDED


def is_well(array: Array) -> bool:
    """Whether an array that is over has succeeded."""
    return array.spec.errors is not Errors.FAIL or array.ended[State.SUCCEEDED] == array.spec.items


def _add(pieces: list[tuple[int, int]], first: int, behind: int) -> None:
    """Add a piece, in its place, joined with those beside it."""
    insort(pieces, (first, behind))
    pieces[:] = [(a, a + n) for a, n in _merged([(a, b - a) for a, b in pieces])]


def _merged(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return these pieces, (first, count) each, in order, and those that touch joined."""
    joined: list[tuple[int, int]] = []
    for first, count in sorted(found):
        if joined and sum(joined[-1]) == first:
            joined[-1] = (joined[-1][0], joined[-1][1] + count)
        else:
            joined.append((first, count))
    return joined


def _take_out(pieces: list[tuple[int, int]], first: int, behind: int) -> list[tuple[int, int]]:
    """Take what lies between these numbers out of pieces; return it, as (first, count)."""
    found, kept = list[tuple[int, int]](), list[tuple[int, int]]()
    for low, high in pieces:
        a, b = max(low, first), min(high, behind)
        if a >= b:
            kept.append((low, high))
            continue
        found.append((a, b - a))
        if low < a:
            kept.append((low, a))
        if b < high:
            kept.append((b, high))
    pieces[:] = kept
    return found
