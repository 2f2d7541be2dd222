"""What the database is asked: each answer shows what is committed, and nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from operator import itemgetter

import msgspec

from jobd.model.edges import When, success_of
from jobd.model.item import FIRST_ITEM, array_of
from jobd.model.job import Attempt, Job, Lease, Parcel
from jobd.model.queues import Override
from jobd.model.selector import MAX_ID, Selector
from jobd.model.states import State
from jobd.scheduler.batch import Backlog
from jobd.store.arrays import ArrayQuestions
from jobd.store.rows import (
    COLUMNS,
    job_of,
    jobs_of,
    lane_in,
    parcel_of,
    translate,
    unpack_detail,
    unpack_inputs,
    unpack_records,
    unpacker,
)

_to_json = msgspec.json.Encoder().encode

_unpack_attempt = unpacker(Attempt)

_unpack_attempts = unpacker(list[tuple[int, ...]])

_unpack_counts = unpacker(list[int])

_unpack_queued = unpacker(dict[str, int])

_WITHOUT_VALUE = COLUMNS.replace("value", "NULL")

# Two texts, so that each finds its index.
_IN_LANE = ("lane IS NULL", "lane = ?")

_NEXT_LANE = (
    "SELECT lane FROM jobs WHERE state = 3 AND lane > ? AND lane < ? ORDER BY lane LIMIT 1",
    "SELECT lane FROM parcels WHERE lane > ? AND lane < ? ORDER BY lane LIMIT 1",
)

_STATES_OF = "SELECT id, state FROM jobs WHERE id IN (SELECT value FROM json_each(?))"

_ROWS_OF = f"SELECT {COLUMNS} FROM jobs WHERE id IN (SELECT json_each.value FROM json_each(?))"

_VALUES_OF = "SELECT id, value FROM jobs WHERE id IN (SELECT json_each.value FROM json_each(?))"

# A job without a row of its own waits in a parcel: it has not ended.
_EDGES_TO = "SELECT source FROM edges LEFT JOIN jobs ON jobs.id = source WHERE job = ? AND open = 1"

_UNMET = f"{_EDGES_TO} AND (state IS NULL OR state < 10) LIMIT ?"

_NEVER = f"{_EDGES_TO} AND ((kind = 1 AND state > 10) OR (kind = 3 AND state = 10)) LIMIT ?"

BACKLOG_BYTES = 16 * 1024 * 1024
"""What is loaded of the queue at a time; more by one parcel at most."""

ITEMS_BYTES = 1024 * 1024
"""What is read of a stream at a time; more by one item at most."""

SCAN = 20_000
"""Ids that one question looks at, at most, so that no turn of the loop is long."""


class Questions:
    """What is committed in the database of one daemon.

    Raises (from every method):
        StoreFailed: an I/O error.
    """

    def __init__(self, reader: sqlite3.Connection) -> None:
        """``reader`` is a connection that only reads."""
        self._reader = reader
        self.arrays = ArrayQuestions(self._all)

    def counts(self) -> dict[State, int]:
        """Return how many jobs are in each state."""
        row = self._one("SELECT counts FROM meta")
        counts = _unpack_counts(row[0]) if row else []
        return {state: counts[state] for state in State if state < len(counts)}

    def next_id(self) -> int:
        """Return the lowest id that was never used."""
        row = self._one("SELECT next_id FROM meta")
        return int(row[0]) if row else 1

    def queued(self) -> dict[str, int]:
        """Return how many jobs of each queue but the default one have not ended."""
        row = self._one("SELECT queued FROM meta")
        return _unpack_queued(row[0]) if row else {}

    def queues(self) -> dict[str, Override]:
        """Return what was said of queues."""
        rows = self._all("SELECT name, slots, rate, paused FROM queues")
        return {
            name: Override(slots, rate, None if paused is None else bool(paused))
            for name, slots, rate, paused in rows
        }

    def leases(self) -> list[Lease]:
        """Return the leases on record, the newest first."""
        rows = self._all("SELECT id, worker, attempts FROM leases ORDER BY id DESC")
        return [_lease(number, worker, _unpack_attempts(blob)) for number, worker, blob in rows]

    def submit_of(self, uid: bytes) -> tuple[int, int] | None:
        """Return first id and count of the submit with this key."""
        with self._snapshot():
            found = self._one("SELECT id, batch FROM jobs WHERE uid = ? AND batch > 0", (uid,))
            if found is not None:
                return found[0], found[1]
            blobs = self._all("SELECT records FROM parcels WHERE instr(keys, ?) > 0", (uid,))
        for (blob,) in blobs:
            for first, key, batch, *_ in unpack_records(blob):
                if key == uid and batch:
                    return first, batch
        return None

    def session_high(self, session: bytes) -> bytes:
        """Return the highest 8 bytes that a client's session has used in its keys; empty if none."""
        in_parcels = self._one("SELECT high FROM sessions WHERE session = ?", (session,))
        in_jobs = self._one(
            "SELECT max(uid) FROM jobs WHERE batch > 0 AND uid BETWEEN ? AND ?",
            (session + bytes(8), session + b"\xff" * 8),
        )
        highs = [bytes(in_parcels[0])] if in_parcels else []
        if in_jobs and in_jobs[0]:
            highs.append(bytes(in_jobs[0][8:]))
        return max(highs, default=b"")

    def job(self, number: int) -> Job | None:
        """Return one job, or item of an array, its result included."""
        with self._snapshot():
            row = self._one(f"SELECT {COLUMNS} FROM jobs WHERE id = ?", (number,))
            if row is not None:
                return job_of(row)
            if number >= FIRST_ITEM:
                own = self._one(f"SELECT {COLUMNS} FROM jobs WHERE id = ?", (array_of(number),))
                return self.arrays.item(job_of(own), number) if own is not None else None
            row = self._one(
                "SELECT records FROM parcels WHERE first <= ? AND last >= ? ORDER BY first DESC LIMIT 1",
                (number, number),
            )
        return next(jobs_of(row[0], number, number), None) if row else None

    def attempts(self, number: int) -> list[Attempt]:
        """Return the earlier attempts of a job, the first one first."""
        rows = self._all("SELECT record FROM attempts WHERE job = ? ORDER BY number", (number,))
        return [_unpack_attempt(row[0]) for row in rows]

    def kept_items(self, job: int) -> tuple[int, int] | None:
        """Return the numbers of the first and the last kept item of a stream; None if it is none."""
        seqs = "SELECT seq FROM items WHERE job = ?"
        last = self._one(f"{seqs} ORDER BY seq DESC LIMIT 1", (job,))
        first = self._one(f"{seqs} AND seq > 0 ORDER BY seq LIMIT 1", (job,))
        return (first[0] if first else 1, last[0]) if last else None

    def items(self, job: int, first: int, last: int) -> list[bytes]:
        """Return these items of a stream, or the first of them: about ``ITEMS_BYTES``."""
        found: list[bytes] = []
        size = 0
        sql = "SELECT value FROM items WHERE job = ? AND seq BETWEEN ? AND ? ORDER BY seq"
        try:
            with closing(self._reader.execute(sql, (job, first, last))) as rows:
                for (value,) in rows:
                    found.append(value)
                    size += len(value)
                    if size >= ITEMS_BYTES:
                        break
        except sqlite3.Error as error:
            raise translate(error) from error
        return found

    def backlog(self, cursor: int, high: int, wanted: int, lane: str = "") -> Backlog:
        """Return what lies between ``cursor`` and the id ``high`` in a lane, for about ``wanted`` jobs."""
        own, high = self._own_rows(cursor, high, wanted, lane)
        parcels: list[Parcel] = []
        reached, found, size = cursor, 0, 0
        while found < wanted and size < BACKLOG_BYTES and reached < high:
            row = self._one(
                f"SELECT first, last, records FROM parcels WHERE {_IN_LANE[bool(lane)]} "
                "AND last > ? AND first <= ? ORDER BY first LIMIT 1",
                (*lane_in(lane), reached, high),
            )
            if row is None:
                reached = high
                break
            parcels.append(parcel_of(row[0], row[1], row[2], lane))
            found += row[1] - row[0] + 1
            size += len(row[2])
            reached = row[1]
        if reached > high:  # the last parcel goes on beyond the rows
            own += self._own_rows(high, reached, found, lane)[0]
        rows: dict[int, Job | None] = {}
        for parcel in parcels:
            in_parcel = "SELECT id FROM jobs WHERE id BETWEEN ? AND ?"
            rows.update((r[0], None) for r in self._all(in_parcel, (parcel.first, parcel.last)))
        rows.update((job.id, job) for job in own if job.id <= reached)
        return Backlog(parcels, rows, reached)

    def _own_rows(self, cursor: int, high: int, most: int, lane: str) -> tuple[list[Job], int]:
        """Return queued jobs of a lane with rows of their own, and the id up to which these are all."""
        jobs: list[Job] = []
        size = 0
        sql = (
            f"SELECT {COLUMNS} FROM jobs WHERE state = 3 AND {_IN_LANE[bool(lane)]} "
            "AND id > ? AND id <= ? ORDER BY id LIMIT ?"
        )
        parameters = (*lane_in(lane), cursor, high, most)
        try:
            with closing(self._reader.execute(sql, parameters)) as rows:
                for row in rows:
                    jobs.append(job_of(row))
                    size += len(row[5])
                    if len(jobs) == most or size >= BACKLOG_BYTES:
                        return jobs, jobs[-1].id
        except sqlite3.Error as error:
            raise translate(error) from error
        return jobs, high

    def lanes(self, after: str, before: str, limit: int) -> list[str]:
        """Return the first lanes between these two texts in which jobs wait, in order."""
        found: list[str] = []
        with self._snapshot():
            while len(found) < limit:
                firsts = [self._one(sql, (after, before)) for sql in _NEXT_LANE]
                lanes = [row[0] for row in firsts if row is not None]
                if not lanes:
                    break
                after = min(lanes)
                found.append(after)
        return found

    def due(self, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
        """Return (due_at, id) of the jobs to which the clock does something after this one, in order."""
        return self._all(
            "SELECT due_at, id FROM jobs WHERE due_at IS NOT NULL AND (due_at, id) > (?, ?) "
            "ORDER BY due_at, id LIMIT ?",
            (*after, limit),
        )

    def keyed(self, key: str, limit: int) -> list[int]:
        """Return jobs with this key that have not ended, the oldest first."""
        sql = "SELECT id FROM jobs WHERE key = ? AND state < 10 ORDER BY id LIMIT ?"
        return [row[0] for row in self._all(sql, (key, limit))]

    def states(self, numbers: list[int]) -> dict[int, State]:
        """Return the states of those of these jobs that exist, which are given in ascending order."""
        with self._snapshot():
            rows = self._all(_STATES_OF, (_to_json(numbers),))
            found = {number: State(state) for number, state in rows}
            last, packed = 0, set[int]()
            for number in numbers:
                if number not in found and number > last:
                    last, packed = self._parcel_of(number)
                if number not in found and number in packed:
                    found[number] = State.QUEUED
        return found

    def _parcel_of(self, number: int) -> tuple[int, set[int]]:
        """Return the jobs of the parcel that may hold this one, and the last id that it covers."""
        row = self._one(
            "SELECT last, records FROM parcels WHERE first <= ? AND last >= ? ORDER BY first DESC LIMIT 1",
            (number, number),
        )
        if row is None:
            return number, set()
        jobs = {
            n
            for first, *_, args, _ in unpack_records(row[1])
            for n in range(first, first + len(args))
        }
        return row[0], jobs

    def own_rows(self, numbers: list[int]) -> dict[int, Job]:
        """Return those of these jobs that have a row of their own, as all have for which a clock runs."""
        return {row[0]: job_of(row) for row in self._all(_ROWS_OF, (_to_json(numbers),))}

    def values(self, numbers: list[int]) -> dict[int, bytes | None]:
        """Return what these jobs have returned."""
        return dict(self._all(_VALUES_OF, (_to_json(numbers),)))

    def environment(self, digest: bytes) -> bytes | None:
        """Return variables of jobs, by their digest."""
        row = self._one("SELECT data FROM environments WHERE digest = ?", (digest,))
        return bytes(row[0]) if row else None

    def dependants(self, number: int, after: int, limit: int) -> list[tuple[int, When]]:
        """Return jobs with ids above ``after`` that come after this one, in order, and when."""
        sql = "SELECT job, kind FROM edges WHERE source = ? AND job > ? ORDER BY job LIMIT ?"
        return [(row[0], When(row[1])) for row in self._all(sql, (number, after, limit))]

    def unmet(self, number: int, limit: int) -> list[int]:
        """Return sources of this job that have not ended."""
        return [row[0] for row in self._all(_UNMET, (number, limit))]

    def never(self, number: int, limit: int) -> list[int]:
        """Return sources of this job that keep it from ever starting, unless they are retried."""
        return [row[0] for row in self._all(_NEVER, (number, limit))]

    def blocked(self, after: int, limit: int) -> list[int]:
        """Return blocked jobs with ids above ``after``."""
        sql = "SELECT id FROM jobs WHERE state = 2 AND id > ? ORDER BY id LIMIT ?"
        return [row[0] for row in self._all(sql, (after, limit))]

    def aborted(self, after: int, limit: int) -> list[tuple[int, int]]:
        """Return aborted jobs with ids above ``after``, each with the job that is to blame.

        That is 0 where it is for good: the job would have had to fail.
        """
        sql = "SELECT id, detail FROM jobs WHERE state = 15 AND id > ? ORDER BY id LIMIT ?"
        details = [(row[0], unpack_detail(row[1])) for row in self._all(sql, (after, limit))]
        return [(n, 0 if d.cause == success_of(d.root) else d.root) for n, d in details]

    def old_values(self, low: int, high: int, before_us: int) -> list[int]:
        """Return jobs above the id ``low``, up to ``high``, that ended before then and have a value."""
        sql = (
            "SELECT id FROM jobs WHERE id > ? AND id <= ? AND state = 10 AND ended_at < ? "
            "AND value IS NOT NULL AND substr(value, 1, 1) != x'21'"  # "!" begins a tombstone
        )
        return [row[0] for row in self._all(sql, (low, high, before_us))]

    def inputs_in_use(self, after: int, limit: int) -> list[tuple[int, list[int]]]:
        """Return jobs above the id ``after`` that have not ended and have inputs, with these."""
        sql = (
            "SELECT id, inputs FROM jobs WHERE inputs IS NOT NULL AND state < 10 AND id > ? "
            "ORDER BY id LIMIT ?"
        )
        return [(number, unpack_inputs(blob)) for number, blob in self._all(sql, (after, limit))]

    def page(self, selector: Selector, before: int, limit: int) -> tuple[list[Job], int]:
        """Return matching jobs with ids under ``before``, the newest first, without their values.

        Looks at ``SCAN`` ids at most.  Returns also the id under which to go on; 0: that is all.
        """
        top = min(before, self.next_id()) - 1
        if selector.last:
            limit = min(limit, selector.last)
        ranges = [(1, MAX_ID)] if selector.all or selector.last else selector.ranges
        states = selector.states
        failures = bool(states) and min(states) > State.SUCCEEDED
        lowest = min((low for low, _ in ranges), default=1)
        for low, high in sorted(ranges, key=itemgetter(1), reverse=True):  # they may overlap
            end = min(high, top)
            if end < low:
                continue
            start = low if failures else max(low, end - SCAN + 1)
            with self._snapshot():
                jobs = self._rows_of(states, start, end, limit)
                if not states or State.QUEUED in states:
                    floor = jobs[-1].id if len(jobs) == limit else start
                    jobs = self._with_parcels(jobs, floor, end, limit)
            if len(jobs) == limit:
                return jobs, jobs[-1].id
            return jobs, start if start > lowest else 0
        return [], 0

    def _rows_of(self, states: list[State], start: int, end: int, limit: int) -> list[Job]:
        test = f"AND state IN ({', '.join(str(int(s)) for s in states)})" if states else ""
        if states and min(states) > State.SUCCEEDED:
            test += " AND state > 10"  # lets SQLite use the index of failures
        rows = self._all(
            f"SELECT {_WITHOUT_VALUE} FROM jobs WHERE id BETWEEN ? AND ? {test} ORDER BY id DESC LIMIT ?",
            (start, end, limit),
        )
        return [job_of(row) for row in rows]

    def _with_parcels(self, jobs: list[Job], start: int, end: int, limit: int) -> list[Job]:
        """Merge in the jobs between ``start`` and ``end`` that have no row of their own."""
        has_row = {
            row[0]
            for row in self._all("SELECT id FROM jobs WHERE id BETWEEN ? AND ?", (start, end))
        }
        found: list[Job] = []
        top = end
        while top >= start and len(found) < limit:
            row = self._one(
                "SELECT first, records FROM parcels WHERE first <= ? AND last >= ? "
                "ORDER BY first DESC LIMIT 1",
                (top, start),
            )
            if row is None:
                break
            without = (job for job in jobs_of(row[1], start, top) if job.id not in has_row)
            found += islice(without, limit - len(found))
            top = row[0] - 1
        merged = sorted(jobs + found, key=lambda job: job.id, reverse=True)
        return merged[:limit]

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Answer several questions from one state: a commit may come to its end between two of them."""
        self._all("BEGIN")
        try:
            yield
        finally:
            self._reader.rollback()

    def _one(self, sql: str, parameters: Iterable[object] = ()) -> tuple | None:  # type: ignore[type-arg]
        rows = self._all(sql, parameters)
        return rows[0] if rows else None

    def _all(self, sql: str, parameters: Iterable[object] = ()) -> list[tuple]:  # type: ignore[type-arg]
        try:
            return self._reader.execute(sql, tuple(parameters)).fetchall()
        except sqlite3.Error as error:
            raise translate(error) from error


def walk(store: Questions, selector: Selector, page: int = 500) -> Iterator[list[Job]]:
    """Yield all matching jobs, newest first, a page for each turn of the loop."""
    before, left = MAX_ID, selector.last or MAX_ID
    while before and left > 0:
        jobs, before = store.page(selector, before, min(page, left))
        left -= len(jobs)
        yield jobs


def _lease(number: int, worker: str, attempts: list[tuple[int, ...]]) -> Lease:
    return Lease(number, worker, attempts, len(attempts), stored=True)
