"""Reading and writing the database.

One connection writes, in the whole system: the loop executes the statements of
a batch on it and leaves only the COMMIT, one call that releases the GIL, to a
thread.  A second, read-only connection answers questions; it sees what is
committed and nothing else, so nothing can be shown before it is durable.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from jobd.model.errors import ConfigError, DiskFull, JobdError, StoreFailed
from jobd.model.job import Attempt, ErrorInfo, Job, Lease, LogSpan
from jobd.model.selector import MAX_ID, Selector
from jobd.model.states import ENDED, Event, State
from jobd.scheduler.batch import Batch
from jobd.store import files

_pack = msgspec.msgpack.encode
_unpack_error = msgspec.msgpack.Decoder(ErrorInfo).decode
_unpack_log = msgspec.msgpack.Decoder(LogSpan).decode
_unpack_attempt = msgspec.msgpack.Decoder(Attempt).decode
_unpack_attempts = msgspec.msgpack.Decoder(list[tuple[int, int]]).decode
_unpack_counts = msgspec.msgpack.Decoder(dict[State, int]).decode

_COLUMNS = (
    "id, uid, batch, state, function, args, created_at, attempt, crashes, started_at, ended_at, "
    "pid, cause, stop, error, value, log"
)
_WITHOUT_VALUE = _COLUMNS.replace("value", "NULL")
_INSERT = f"INSERT INTO jobs ({_COLUMNS}) VALUES ({', '.join('?' * 17)})"
_UPDATE = (
    "UPDATE jobs SET state = ?, attempt = ?, crashes = ?, started_at = ?, ended_at = ?, pid = ?, "
    "cause = ?, stop = ?, error = ?, value = ?, log = ? WHERE id = ?"
)

_SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL", "off": "OFF"}

SCAN = 20_000
"""Ids that one question looks at, at most, so that no turn of the loop is long."""


class Store:
    """The database of one daemon.

    Raises (from every method):
        DiskFull: nothing was written; it may heal.
        StoreFailed: an I/O error; what the disk holds is not known until it is opened again.
    """

    def __init__(self, path: Path, durability: str = "full") -> None:
        """Open or make the database; raises ConfigError if the file must not be used."""
        self.path = path
        try:
            files.prepare(path)
            self._writer = files.connect(path)
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._writer.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
            self._writer.execute("PRAGMA journal_size_limit = 67108864")
            self._reader = files.connect(path)
            self._reader.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise ConfigError(f"cannot open {path}: {error}", "is its directory writable?") from error
        stat = os.stat(path)
        self._identity = (stat.st_dev, stat.st_ino)

    def close(self) -> None:
        """Close both connections; the write-ahead log is folded in by the last."""
        self._reader.close()
        self._writer.close()

    def check_identity(self) -> None:
        """Raise StoreFailed if the files were deleted or replaced under us: SQLite would not notice."""
        try:
            stat = os.stat(self.path)
            os.stat(f"{self.path}-wal")
        except OSError as error:
            raise StoreFailed(f"{error.filename} is gone: somebody deleted it", "start jobd again") from error
        if (stat.st_dev, stat.st_ino) != self._identity:
            raise StoreFailed(f"{self.path} was replaced while in use", "start jobd again")

    # -- writing --

    def write(self, batch: Batch) -> None:
        """Execute a batch in a transaction that is left open for ``commit``."""
        execute, many = self._writer.execute, self._writer.executemany
        try:
            execute("BEGIN IMMEDIATE")
            new = [_row(job) for job, stored in batch.before if stored is None]
            if new:
                many(_INSERT, new)
            if len(new) < len(batch.before):
                many(_UPDATE, [_changes(job) for job, stored in batch.before if stored is not None])
            earlier = [a for job, _ in batch.before if job.earlier for a in job.earlier]
            if earlier:
                rows = [(a.job, a.number, _pack(a)) for a in earlier]
                many("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?)", rows)
            if batch.leases:
                rows = [(x.id, x.worker, _pack(x.attempts)) for x in batch.leases.values()]
                many("INSERT INTO leases VALUES (?, ?, ?)", rows)
            if batch.ended_leases:
                many("DELETE FROM leases WHERE id = ?", [(number,) for number in batch.ended_leases])
            state = [("counts", _pack(batch.counts)), ("low", _pack(batch.low))]
            many("INSERT OR REPLACE INTO meta VALUES (?, ?)", state)
        except sqlite3.Error as error:
            self.rollback()
            raise _translate(error) from error

    def commit(self) -> None:
        """Make the open transaction durable; blocks on the disk, without the GIL."""
        try:
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            raise _translate(error) from error

    def rollback(self) -> None:
        """Undo the open transaction, if SQLite has not done so already."""
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise _translate(error) from error

    # -- reading --

    def counts(self) -> dict[State, int]:
        """Return how many jobs are in each state."""
        row = self._one("SELECT value FROM meta WHERE key = 'counts'")
        return _unpack_counts(row[0]) if row else {}

    def low(self) -> int:
        """Return an id below which every job has ended."""
        row = self._one("SELECT value FROM meta WHERE key = 'low'")
        return int(msgspec.msgpack.decode(row[0])) if row else 1

    def last_id(self) -> int:
        """Return the highest id in use, or 0."""
        row = self._one("SELECT max(id) FROM jobs")
        return row[0] or 0 if row else 0

    def leases(self) -> list[Lease]:
        """Return the leases on record, the newest first."""
        rows = self._all("SELECT id, worker, attempts FROM leases ORDER BY id DESC")
        return [_lease(number, worker, _unpack_attempts(blob)) for number, worker, blob in rows]

    def submit_of(self, uid: bytes) -> tuple[int, int] | None:
        """Return first id and count of the submit with this key."""
        return self._one("SELECT id, batch FROM jobs WHERE uid = ? AND batch > 0", (uid,))

    def session_high(self, session: bytes) -> int:
        """Return the highest number that a client's session has used in its keys, or -1."""
        row = self._one(
            "SELECT max(uid) FROM jobs WHERE uid BETWEEN ? AND ? AND batch > 0",
            (session + bytes(8), session + b"\xff" * 8),
        )
        return int.from_bytes(row[0][8:], "big") if row and row[0] else -1

    def job(self, number: int) -> Job | None:
        """Return one job, its result included."""
        row = self._one(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (number,))
        return _job(row) if row else None

    def attempts(self, number: int) -> list[Attempt]:
        """Return the earlier attempts of a job, the first one first."""
        rows = self._all("SELECT record FROM attempts WHERE job = ? ORDER BY number", (number,))
        return [_unpack_attempt(row[0]) for row in rows]

    def queued(self, cursor: int, high: int, limit: int) -> tuple[list[Job], int]:
        """Return queued jobs with ids over ``cursor``, and the id up to which they are complete."""
        end = min(cursor + SCAN, high)
        rows = self._all(
            f"SELECT {_COLUMNS} FROM jobs WHERE id > ? AND id <= ? AND state = {int(State.QUEUED)} "
            "ORDER BY id LIMIT ?",
            (cursor, end, limit),
        )
        jobs = [_job(row) for row in rows]
        return jobs, jobs[-1].id if len(jobs) == limit else end

    def page(self, selector: Selector, before: int, limit: int) -> tuple[list[Job], int]:
        """Return matching jobs with ids under ``before``, the newest first, without their values.

        Looks at ``SCAN`` ids at most.  Returns also the id under which to go on; 0: that is all.
        """
        top = min(before - 1, self.last_id())
        if selector.last:
            limit = min(limit, selector.last)
        ranges = [(1, MAX_ID)] if selector.all or selector.last else selector.ranges
        failures = bool(selector.states) and min(selector.states) > State.SUCCEEDED
        for low, high in sorted(ranges, reverse=True):
            end = min(high, top)
            if end < low:
                continue
            start = low if failures else max(low, end - SCAN + 1)
            jobs = [_job(row) for row in self._slice(selector.states, start, end, limit)]
            if len(jobs) == limit:
                return jobs, jobs[-1].id
            return jobs, start if start > 1 and start > min(r[0] for r in ranges) else 0
        return [], 0

    def _slice(self, states: list[State], start: int, end: int, limit: int) -> list[tuple]:  # type: ignore[type-arg]
        test = f"AND state IN ({', '.join(str(int(s)) for s in states)})" if states else ""
        if states and min(states) > State.SUCCEEDED:
            test += f" AND state > {int(ENDED)}"  # lets SQLite use the index of failures
        return self._all(
            f"SELECT {_WITHOUT_VALUE} FROM jobs WHERE id BETWEEN ? AND ? {test} ORDER BY id DESC LIMIT ?",
            (start, end, limit),
        )

    def _one(self, sql: str, parameters: Iterable[object] = ()) -> tuple | None:  # type: ignore[type-arg]
        rows = self._all(sql, parameters)
        return rows[0] if rows else None

    def _all(self, sql: str, parameters: Iterable[object] = ()) -> list[tuple]:  # type: ignore[type-arg]
        try:
            return self._reader.execute(sql, tuple(parameters)).fetchall()
        except sqlite3.Error as error:
            raise _translate(error) from error


def walk(store: Store, selector: Selector, page: int = 500) -> Iterator[list[Job]]:
    """Yield all matching jobs, newest first, a page for each turn of the loop."""
    before, left = MAX_ID, selector.last or MAX_ID
    while before and left > 0:
        jobs, before = store.page(selector, before, min(page, left))
        left -= len(jobs)
        yield jobs


def _lease(number: int, worker: str, attempts: list[tuple[int, int]]) -> Lease:
    return Lease(number, worker, attempts, len(attempts), stored=True)


def _row(job: Job) -> tuple[object, ...]:
    return (
        job.id,
        job.uid,
        job.batch,
        int(job.stored),  # type: ignore[arg-type]  # set when the batch was taken
        job.function,
        job.args,
        job.created_at,
        job.attempt,
        job.crashes,
        job.started_at,
        job.ended_at,
        job.pid,
        job.cause,
        int(job.stop or 0),
        _pack(job.error) if job.error else None,
        job.value,
        _pack(job.log) if job.log else None,
    )


def _changes(job: Job) -> tuple[object, ...]:
    return (
        int(job.stored),  # type: ignore[arg-type]  # set when the batch was taken
        job.attempt,
        job.crashes,
        job.started_at,
        job.ended_at,
        job.pid,
        job.cause,
        int(job.stop or 0),
        _pack(job.error) if job.error else None,
        job.value,
        _pack(job.log) if job.log else None,
        job.id,
    )


def _job(row: tuple) -> Job:  # type: ignore[type-arg]  # as SQLite gives it
    (number, uid, batch, state, function, args, created, attempt, crashes, started, ended) = row[:11]
    (pid, cause, stop, error, value, log) = row[11:]
    known = State(state)
    return Job(
        number,
        uid,
        batch,
        function,
        args,
        created,
        known,
        attempt,
        crashes,
        started,
        ended,
        pid,
        cause,
        _unpack_error(error) if error else None,
        value,
        _unpack_log(log) if log else None,
        known,
        stop=Event(stop) if stop else None,
    )


def _translate(error: sqlite3.Error) -> JobdError:
    """Tell a full disk, which heals, from an I/O error, after which nothing is certain."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE):
        return DiskFull(f"disk full: the job store could not write ({error})", "free some space and try again")
    name = getattr(error, "sqlite_errorname", "")
    return StoreFailed(f"the job store failed: {error} {name}".rstrip(), "jobd has to be started again")
