"""Arrays in the store of dictionaries: the calls of items as they came, and what has ended of them.

It answers as ``jobd.store.arrays``, each answer put together item by item.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jobd.model.item import FIRST_ITEM, array_of, index_of, item_of
from jobd.model.job import NO_ARGS, ArraySpec, Job
from jobd.model.messages import Piece
from jobd.model.states import ENDED, State
from jobd.model.stretch import Stretch, calls_in, count_in, pack, unpack
from jobd.scheduler.batch import Range

PIECE_BYTES = 20


class Corrupt(AssertionError):
    """A statement that breaks a constraint, or changes what must not change."""


class Written(NamedTuple):
    """What a batch has of arrays."""

    chunks: list[tuple[int, int, bytes]]
    unranged: list[int]
    ranges: list[Range]
    specs: dict[int, ArraySpec]


class FakeArrays:
    """Chunks and ranges; ``jobs`` are the rows of the store, those of items too."""

    def __init__(self, jobs: dict[int, Job]) -> None:
        self._jobs = jobs
        self.chunks: dict[int, tuple[int, bytes]] = {}
        self.ended_in: dict[int, Range] = {}
        """By the first item of each."""

    # -- writing --

    def put(self, written: Written) -> list[Range]:
        """Take in what is committed; return the ranges that count no longer."""
        gone = []
        for first, count, blob in written.chunks:
            if first in self.chunks or count_in(blob) != count or count < 1:
                raise Corrupt(f"a chunk of {count} items from {first} on")
            self.chunks[first] = count, blob
        for first in written.unranged:
            if first not in self.ended_in:
                raise Corrupt(f"there is no range {first}")
            gone.append(self.ended_in.pop(first))
        for range_ in written.ranges:
            first, behind = range_.first, range_.first + range_.count
            if range_.count < 1 or range_.state < ENDED or range_.ended_at <= 0:
                raise Corrupt(f"{range_} is none")
            if self.ranges(first, behind):
                raise Corrupt(f"{range_} is beside {self.ranges(first, behind)}")
            self.ended_in[first] = _copy(range_)
        for number, spec in written.specs.items():
            self._jobs[number].array = spec
        return gone

    # -- as the real one --

    def unended(self) -> list[int]:
        """Return the arrays that have not ended."""
        jobs = self._jobs.values()
        return sorted(j.id for j in jobs if j.array is not None and j.state < ENDED)

    def rows(self, first: int, behind: int) -> list[tuple[int, State]]:
        """Return the items between these numbers that have rows, and their states."""
        return [(job.id, job.state) for job in self._rows(first, behind)]

    def _rows(self, first: int, behind: int) -> list[Job]:
        numbers = range(first, behind) if behind - first < len(self._jobs) else sorted(self._jobs)
        return [self._jobs[n] for n in numbers if first <= n < behind and n in self._jobs]

    def ranges(
        self, first: int, behind: int, limit: int = -1, *, values: bool = False
    ) -> list[Range]:
        """Return the ranges that have items between these numbers, in order."""
        found = [r for r in self.ended_in.values() if r.first < behind and first < _behind(r)]
        found.sort(key=lambda range_: range_.first)
        return [_copy(r, values=values) for r in (found if limit < 0 else found[:limit])]

    def stretches(self, first: int, behind: int) -> Iterator[Stretch]:
        """Yield the calls of items between these numbers, chunk by chunk."""
        for at, (count, blob) in sorted(self.chunks.items()):
            low, high = max(at, first), min(at + count, behind)
            if low < high:
                yield Stretch(at, count, blob).part(low, high)

    def ended(self, first: int, behind: int, most_bytes: int, *, ordered: bool) -> list[Piece]:
        """Return what has ended of these items, in order; ``ordered``: before the first that has not."""
        pieces: list[tuple[int, Piece]] = []
        for range_ in self.ranges(first, behind, values=True):
            piece = Piece(index_of(range_.first), range_.count, range_.state)
            piece.values, piece.cause = range_.values, range_.cause
            pieces.append((range_.first, piece))
        for job in self._rows(first, behind):
            if job.state >= ENDED:
                piece = Piece(index_of(job.id), 1, job.state, error=job.error, cause=job.cause)
                piece.values = b"" if job.value is None else pack([job.value])
                pieces.append((job.id, piece))
        pieces.sort(key=lambda entry: entry[0])
        found: list[Piece] = []
        size, at = 0, first
        for number, piece in pieces:
            if size >= most_bytes or (ordered and number > at):
                break
            found.append(piece)
            size += len(piece.values) + PIECE_BYTES
            at = number + piece.count
        return found

    def counts(self, first: int, behind: int) -> dict[State, int]:
        """Return how many of the items between these numbers have ended, by state."""
        counts: Counter[State] = Counter()
        for range_ in self.ranges(first, behind):
            counts[range_.state] += range_.count
        counts.update(job.state for job in self._rows(first, behind) if job.state >= ENDED)
        return dict(counts)

    def first_failure(self, first: int, behind: int) -> int:
        """Return the first of these items that has ended without success; 0: none has."""
        found = [r.first for r in self.ranges(first, behind) if r.state > State.SUCCEEDED]
        found += [job.id for job in self._rows(first, behind) if job.state > State.SUCCEEDED]
        return min(found, default=0)

    def page(
        self, own: Job, first: int, behind: int, states: Sequence[State], limit: int
    ) -> tuple[list[Job], int]:
        """Return items in these states (none: in any), the highest number first, and where to go on."""
        low = max(first, behind - limit)
        jobs = [as_read(row) for row in self._rows(low, behind)] + self.between(own, low, behind)
        jobs = [job for job in jobs if not states or job.state in states]
        for job in jobs:
            job.value = None
        return sorted(jobs, key=lambda job: -job.id), low

    def item(self, own: Job, number: int) -> Job | None:
        """Return an item without a row, with its value; ``own`` is its array's job."""
        if own.array is None or index_of(number) >= own.array.items:
            return None
        (stretch,) = self.stretches(number, number + 1)
        args = own.args[: -len(NO_ARGS)] + stretch.call()
        job = Job(number, own.uid, 0, own.function, args, own.created_at, own.policy)
        job.lane = own.lane
        if own.state < State.QUEUED:
            job.state = job.stored = own.state
        for range_ in self.ranges(number, number + 1, values=True):
            job.state = job.stored = range_.state
            job.started_at, job.ended_at = range_.started_at, range_.ended_at
            job.pid, job.cause = range_.pid, range_.cause
            if range_.state is State.SUCCEEDED:
                job.attempt = 1
                if range_.values:
                    job.value = unpack(range_.values)[number - range_.first]
        return job

    def between(self, own: Job, first: int, behind: int) -> list[Job]:
        """Return the items between these numbers that have no rows, without their values, in order."""
        numbers = [n for n in range(first, behind) if n not in self._jobs]
        found = [job for number in numbers if (job := self.item(own, number)) is not None]
        for job in found:
            job.value = None
        return found

    # -- for those who check --

    def all_args(self) -> set[bytes]:
        """Return the arguments of all items."""
        return {args for number in self._jobs for args in self.args_in(number)}

    def args_in(self, array: int) -> list[bytes]:
        """Return the arguments of the items of this array, if it is one."""
        own = self._jobs[array]
        if own.array is None:
            return []
        code = own.args[: -len(NO_ARGS)]
        span = item_of(array, 0), item_of(array, own.array.items)
        return [
            code + call
            for stretch in self.stretches(*span)
            for call in calls_in(stretch.chunk)[stretch.at : stretch.at + stretch.count]
        ]

    def find(self, number: int) -> Job | None:
        """Return an item without a row, if there is one."""
        own = self._jobs.get(array_of(number)) if number >= FIRST_ITEM else None
        return self.item(own, number) if own is not None else None

    def are_open(self, array: int) -> list[int]:
        """Return the items of an array that have not ended."""
        spec = self._jobs[array].array
        assert spec is not None
        first, behind = item_of(array, 0), item_of(array, spec.items)
        over = {job.id for job in self._rows(first, behind) if job.state >= ENDED}
        for range_ in self.ranges(first, behind):
            over.update(range(range_.first, _behind(range_)))
        return [number for number in range(first, behind) if number not in over]


def _behind(range_: Range) -> int:
    return range_.first + range_.count


def _copy(range_: Range, *, values: bool = True) -> Range:
    first, count, state = range_.first, range_.count, range_.state
    times = range_.started_at, range_.ended_at
    kept = range_.values if values else b""
    return Range(first, count, state, *times, range_.pid, range_.cause, kept)


def as_read(row: Job) -> Job:
    """Return a row as a job that was read."""
    job = copy.copy(row)
    job.row, job.stored = True, job.state
    return job
