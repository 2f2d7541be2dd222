"""What the database is asked of arrays: their calls, and what has ended of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from jobd.model.item import index_of
from jobd.model.job import NO_ARGS, Job
from jobd.model.messages import Piece
from jobd.model.states import State
from jobd.model.stretch import Stretch, calls_in
from jobd.model.stretch import pack as pack_values
from jobd.scheduler.batch import Range
from jobd.store.rows import COLUMNS, NO_DETAIL, job_of, unpack_detail, unpacker

_unpack = unpacker(list[bytes])

_LAST_BEFORE = "SELECT {} FROM {} WHERE first <= ? ORDER BY first DESC LIMIT 1"

_RANGE = "first, count, state, started_at, ended_at, pid, cause, vals"
_WITHOUT_VALUES = _RANGE.replace("vals", "x''")

_ENDED_ROWS = (
    "SELECT id, state, value, detail FROM jobs WHERE id >= ? AND id < ? AND state >= 10 "
    "ORDER BY id LIMIT ?"
)

_WITHOUT_VALUE = COLUMNS.replace("value", "NULL")

SCAN = 2_000
"""Items that are looked at together."""

PIECES = 200
"""Ranges, and rows, that are read at once."""

PIECE_BYTES = 20
"""What a piece has beside its values, about."""

CHUNKS_BYTES = 1024 * 1024
"""What is loaded of calls at a time; more by a chunk at most."""


class ArrayQuestions:
    """Answers about arrays; ``ask`` executes a question and returns all rows.

    Raises (from every method):
        StoreFailed: an I/O error.
    """

    def __init__(self, ask: Callable[[str, Iterable[object]], list[Any]]) -> None:
        self._ask = ask

    def unended(self) -> list[int]:
        """Return the arrays that have not ended."""
        sql = "SELECT id FROM jobs WHERE array IS NOT NULL AND state < 10 ORDER BY id"
        return [row[0] for row in self._ask(sql, ())]

    def rows(self, first: int, behind: int) -> list[tuple[int, State]]:
        """Return the items between these numbers that have rows, and their states."""
        sql = "SELECT id, state FROM jobs WHERE id >= ? AND id < ? ORDER BY id"
        return [(number, State(state)) for number, state in self._ask(sql, (first, behind))]

    def ranges(
        self, first: int, behind: int, limit: int = -1, *, values: bool = False
    ) -> list[Range]:
        """Return the ranges that have items between these numbers, in order, ``limit`` of them (-1: all)."""
        columns = _RANGE if values else _WITHOUT_VALUES
        low = self._ask(_LAST_BEFORE.format("first, count", "ranges"), (first,))
        if low and low[0][0] + low[0][1] > first:
            first = low[0][0]
        sql = f"SELECT {columns} FROM ranges WHERE first >= ? AND first < ? ORDER BY first LIMIT ?"
        return [_range(row) for row in self._ask(sql, (first, behind, limit))]

    def stretches(self, first: int, behind: int) -> Iterator[Stretch]:
        """Yield the calls of items between these numbers, chunk by chunk, about ``CHUNKS_BYTES`` in all."""
        low = self._ask(_LAST_BEFORE.format("first, count", "chunks"), (first,))
        start = low[0][0] if low and sum(low[0]) > first else first
        size = 0
        while start < behind and size < CHUNKS_BYTES:
            sql = "SELECT first, count, calls FROM chunks WHERE first >= ? AND first < ? ORDER BY first LIMIT 1"
            found = self._ask(sql, (start, behind))
            if not found:
                return
            at, count, blob = found[0]
            stretch = Stretch(at, count, blob)
            yield stretch.part(max(at, first), min(at + count, behind))
            start, size = at + count, size + len(blob)

    def ended(self, first: int, behind: int, most_bytes: int, *, ordered: bool) -> list[Piece]:
        """Return what has ended of the items between these numbers, in order, about so many bytes of values.

        ``ordered``: only those before the first that has not ended.
        """
        found: list[Piece] = []
        size, at = 0, first
        while at < behind and size < most_bytes:
            ranges = iter(self.ranges(at, behind, PIECES, values=True))
            rows = iter(self._ask(_ENDED_ROWS, (at, behind, PIECES)))
            before = at
            for piece, number in _in_order(ranges, rows):
                if ordered and number > at:
                    return found
                at = max(at, number + piece.count)
                found.append(piece)
                size += len(piece.values) + PIECE_BYTES
                if size >= most_bytes:
                    return found
            if at == before:
                return found
        return found

    def counts(self, first: int, behind: int) -> dict[State, int]:
        """Return how many of the items between these numbers have ended, by state."""
        counts: dict[State, int] = {}
        for sql in (
            "SELECT state, sum(count) FROM ranges WHERE first >= ? AND first < ? GROUP BY state",
            "SELECT state, count(*) FROM jobs WHERE id >= ? AND id < ? AND state >= 10 GROUP BY state",
        ):
            for state, count in self._ask(sql, (first, behind)):
                counts[State(state)] = counts.get(State(state), 0) + count
        return counts

    def first_failure(self, first: int, behind: int) -> int:
        """Return the first of the items between these numbers that has ended without success; 0: none has."""
        found = []
        for sql in (
            "SELECT min(first) FROM ranges WHERE first >= ? AND first < ? AND state > 10",
            "SELECT min(id) FROM jobs WHERE id >= ? AND id < ? AND state > 10",
        ):
            found += [row[0] for row in self._ask(sql, (first, behind)) if row[0]]
        return min(found, default=0)

    def page(
        self, own: Job, first: int, behind: int, states: Sequence[State], limit: int
    ) -> tuple[list[Job], int]:
        """Return items between these numbers in these states (none: in any), the highest number first.

        Looks at a part of them only; returns also behind which number to go on, ``first`` if that is all.
        Their values are left out.
        """
        if states and min(states) > State.SUCCEEDED:
            return self._failures(own, first, behind, states, limit)
        low = max(first, behind - min(limit, SCAN))
        test = f" AND state IN ({_written(states)})" if states else ""
        sql = f"SELECT {_WITHOUT_VALUE} FROM jobs WHERE id >= ? AND id < ?{test}"
        jobs = [job_of(row) for row in self._ask(sql, (low, behind))]
        jobs += [job for job in self.between(own, low, behind) if not states or job.state in states]
        jobs.sort(key=_by_id, reverse=True)
        return jobs, low

    def _failures(
        self, own: Job, first: int, behind: int, states: Sequence[State], limit: int
    ) -> tuple[list[Job], int]:
        """As ``page``, of items that have not succeeded, which are few as a rule."""
        test = f"state IN ({_written(states)})"
        sql = (
            f"SELECT {_WITHOUT_VALUE} FROM jobs WHERE state > 10 AND {test} "
            "AND id >= ? AND id < ? ORDER BY id DESC LIMIT ?"
        )
        jobs = [job_of(row) for row in self._ask(sql, (first, behind, limit))]
        low = jobs[-1].id if len(jobs) == limit else first
        sql = (
            f"SELECT {_WITHOUT_VALUES} FROM ranges WHERE {test} AND first < ? AND first + count > ? "
            "AND first >= ? ORDER BY first DESC LIMIT ?"
        )
        start = own.id << 32
        for row in self._ask(sql, (behind, low, start, limit)):
            range_ = _range(row)
            top = min(behind, range_.first + range_.count)
            bottom = max(low, range_.first, top - limit)
            jobs += self.between(own, bottom, top)
            if top - bottom == limit or len(jobs) >= 2 * limit:
                low = max(low, bottom)
                break
        jobs = sorted((job for job in jobs if job.id >= low), key=_by_id, reverse=True)
        return jobs, low

    def item(self, own: Job, number: int) -> Job | None:
        """Return an item without a row, with its value; ``own`` is its array's job."""
        if own.array is None or index_of(number) >= own.array.items:
            return None
        (stretch,) = self.stretches(number, number + 1)
        found = self.ranges(number, number + 1, 1, values=True)
        return item_job(own, number, stretch.call(), found[0] if found else None)

    def between(self, own: Job, first: int, behind: int) -> list[Job]:
        """Return the items between these numbers that have no rows, without their values, in order."""
        rows = {number for number, _ in self.rows(first, behind)}
        jobs: list[Job] = []
        ranges = self.ranges(first, behind)
        at = first
        while at < behind:
            before = at
            for stretch in self.stretches(at, behind):
                calls = calls_in(stretch.chunk)[stretch.at : stretch.at + stretch.count]
                for place, call in enumerate(calls, stretch.first):
                    while ranges and ranges[0].first + ranges[0].count <= place:
                        ranges.pop(0)
                    range_ = ranges[0] if ranges and ranges[0].first <= place else None
                    if place not in rows:
                        jobs.append(item_job(own, place, call, range_))
                at = stretch.first + stretch.count
            if at == before:
                break
        return jobs


def _written(states: Sequence[State]) -> str:
    return ", ".join(str(int(state)) for state in states)


def _by_id(job: Job) -> int:
    return job.id


def _in_order(ranges: Iterator[Range], rows: Iterator[Any]) -> Iterator[tuple[Piece, int]]:
    """Merge what was read, by the numbers of the first items; nothing beyond what was read of both."""
    range_, row = next(ranges, None), next(rows, None)
    read = [0, 0]
    while range_ is not None or row is not None:
        if row is None or (range_ is not None and range_.first < row[0]):
            assert range_ is not None
            if row is None and read[1] >= PIECES:
                return
            read[0] += 1
            piece = Piece(index_of(range_.first), range_.count, range_.state)
            piece.values, piece.cause = range_.values, range_.cause
            yield piece, range_.first
            range_ = next(ranges, None)
        else:
            if range_ is None and read[0] >= PIECES:
                return
            read[1] += 1
            yield _piece_of(row), row[0]
            row = next(rows, None)


def _piece_of(row: tuple[Any, ...]) -> Piece:
    """Return an item with a row as it is told."""
    number, state, value, data = row
    detail = NO_DETAIL if data is None else unpack_detail(data)
    piece = Piece(index_of(number), 1, State(state), error=detail.error, cause=detail.cause)
    if value is not None:
        piece.values = pack_values([value])
    return piece


def item_job(own: Job, number: int, call: bytes, range_: Range | None) -> Job:
    """Return an item without a row as a job; ``range_`` is where its end is recorded, if it has ended."""
    args = own.args[: -len(NO_ARGS)] + call
    job = Job(number, own.uid, 0, own.function, args, own.created_at, own.policy)
    job.lane, job.inputs = own.lane, own.inputs
    if range_ is None:
        if own.state < State.QUEUED:
            job.state = job.stored = own.state
        return job
    job.state = job.stored = range_.state
    job.started_at, job.ended_at = range_.started_at, range_.ended_at
    job.pid, job.cause = range_.pid, range_.cause
    if range_.state is State.SUCCEEDED:
        job.attempt = 1
        if range_.values:
            job.value = _unpack(range_.values)[number - range_.first]
    return job


def _range(row: tuple[Any, ...]) -> Range:
    return Range(row[0], row[1], State(row[2]), *row[3:])
