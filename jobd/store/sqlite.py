"""Reading and writing the database.

One connection writes, in the whole system: the loop executes the statements of
a batch on it and leaves only the COMMIT, one call that releases the GIL, to a
thread.  A second, read-only connection answers questions; it sees what is
committed and nothing else, so nothing can be shown before it is durable.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path

from msgspec.structs import astuple

from jobd.model.errors import (
    ConfigError,
    StoreBusy,
    StoreFailed,
    StoreLost,
)
from jobd.model.job import Job
from jobd.model.queues import Override
from jobd.scheduler.batch import Batch, Change
from jobd.store import files
from jobd.store.ahead import WriteAheadLog
from jobd.store.questions import Questions
from jobd.store.rows import (
    COLUMNS,
    changes_of,
    is_plain,
    pack,
    packed,
    plain_row,
    row_of,
    translate,
    values_of_one,
)

_PLACES = f"({', '.join('?' * len(COLUMNS.split(',')))})"

_INSERT = f"INSERT INTO jobs ({COLUMNS}) VALUES {_PLACES}"

ROWS = 50
"""Rows that one INSERT takes; a quarter faster than one by one."""

_INSERT_ROWS = _INSERT + f", {_PLACES}" * (ROWS - 1)

# Plain jobs (``is_plain``): nothing is bound that is NULL or the same for all, which takes half the time.
_PLAIN = (
    "INSERT INTO jobs (id, uid, batch, state, function, args, created_at, attempt, crashes, "
    "started_at, ended_at, pid, value) VALUES "
)

_INSERT_PLAIN = _PLAIN + "(?, ?, ?, 10, ?, ?, ?, 1, 0, ?, ?, ?, ?)"

_INSERT_PLAINS = _INSERT_PLAIN + ", (?, ?, ?, 10, ?, ?, ?, 1, 0, ?, ?, ?, ?)" * (ROWS - 1)

# As many of one submit: what they share is bound once.
_OF_ONE = "(?{}, ?1, 0, 10, ?2, ?{}, ?3, 1, 0, ?{}, ?{}, ?{}, ?{})"

_INSERT_OF_ONE = _PLAIN + ", ".join(
    _OF_ONE.format(*range(n, n + 6)) for n in range(4, 4 + 6 * ROWS, 6)
)

_UPDATE = (
    "UPDATE jobs SET state = ?, attempt = ?, crashes = ?, started_at = ?, ended_at = ?, pid = ?, "
    "detail = ?, value = ?, due_at = ? WHERE id = ?"
)

# A submit that had to wait for its check, or was refused at first, may come after a higher key.
_SESSION = (
    "INSERT INTO sessions VALUES (?, ?) "
    "ON CONFLICT (session) DO UPDATE SET high = max(high, excluded.high)"
)

_DROP_ITEMS = "DELETE FROM items WHERE job = ? AND seq BETWEEN 1 AND ?"

_CLOSE = "UPDATE edges SET open = 0 WHERE source = ? AND kind != 3 AND open = 1"
"""A success closes all but the edges of those who wait for a failure: they never start."""

_DISK_ERRORS = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)

_SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL", "off": "OFF"}


class Store(Questions):
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
            self._writer.execute("PRAGMA busy_timeout = 0")  # the loop waits for nobody
            reader = files.connect(path)
            reader.execute("PRAGMA query_only = ON")
            for connection in (reader, self._writer):
                # Makes the log, and opens all files: none has to be found by its name later.
                connection.execute("SELECT one FROM meta").fetchone()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DISK_ERRORS:
                raise translate(error) from error
            raise ConfigError(
                f"cannot open {path}: {error}", "is its directory writable?"
            ) from error
        super().__init__(reader)
        self.ahead = WriteAheadLog(path, self._writer)
        self._identities = [_identity(path), _identity(f"{path}-wal")]

    def close(self) -> None:
        """Close both connections; the write-ahead log is folded in by the last."""
        self._reader.close()
        self._writer.close()

    def check_identity(self) -> None:
        """Raise StoreLost if the files were deleted or replaced under us: SQLite would not notice."""
        for path, known in zip((str(self.path), f"{self.path}-wal"), self._identities, strict=True):
            try:
                found = _identity(path)
            except OSError as error:
                raise StoreLost(
                    f"{path} is gone: somebody deleted it", "start jobd again"
                ) from error
            if found != known:
                raise StoreLost(f"{path} was replaced while in use", "start jobd again")

    def save(self) -> str:
        """Save what the files hold that were deleted or replaced under us; nothing else may follow.

        Returns a sentence about it.

        Raises:
            StoreFailed: it cannot be done.
        """
        try:
            log_only = _identity(self.path) == self._identities[0]
        except OSError:
            log_only = False
        try:
            self.rollback()
            told = files.save(self._writer, self.path, log_only=log_only)
            self.close()
            self._remove_log()
        except (sqlite3.Error, OSError) as error:
            raise StoreFailed(f"it could not be saved either: {error}", "") from error
        return told

    def _remove_log(self) -> None:
        """Remove our log if SQLite has not: it would be played into whatever gets our name next."""
        log = f"{self.path}-wal"
        try:
            if _identity(log) == self._identities[1]:
                os.unlink(log)
                os.unlink(f"{self.path}-shm")
        except FileNotFoundError:
            pass  # it is gone already

    # -- writing --

    def begin(self) -> None:
        """Open the transaction that ``write`` fills, if it is not open yet; waits for nobody.

        Raises:
            StoreBusy: another process has locked the database: a shell, a backup.
        """
        if self._writer.in_transaction:
            return
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise StoreBusy(
                    "another process has locked the job store",
                    f"see which one with 'fuser {self.path}', and end what it does there",
                ) from error
            raise translate(error) from error

    def write(self, batch: Batch) -> None:
        """Execute a batch in the transaction, which is left open for ``commit``."""
        execute, many = self._writer.execute, self._many
        try:
            self._write_jobs(batch.changes)
            earlier = chain.from_iterable(job.earlier or () for job in batch.retold)
            attempts = [(a.job, a.number, pack(a)) for a in earlier]
            many("REPLACE INTO attempts VALUES (?, ?, ?)", attempts)
            edited = [(args, number) for number, args in batch.edited.items()]
            many("UPDATE jobs SET args = ? WHERE id = ?", edited)
            many("INSERT INTO chunks VALUES (?, ?, ?)", batch.chunks)
            many("DELETE FROM ranges WHERE first = ?", [(n,) for n in batch.unranged])
            ranges = [astuple(range_) for range_ in batch.ranges.values()]
            many("REPLACE INTO ranges VALUES (?, ?, ?, ?, ?, ?, ?, ?)", ranges)
            specs = [(pack(spec), number) for number, spec in batch.specs.items()]
            many("UPDATE jobs SET array = ? WHERE id = ?", specs)
            for parcel in batch.parcels:
                if parcel.open:
                    execute("INSERT INTO parcels VALUES (?, ?, ?, ?, ?)", packed(parcel))
            many("INSERT OR IGNORE INTO environments VALUES (?, ?)", [*batch.environments.items()])
            many("INSERT INTO edges VALUES (?, ?, ?, ?)", batch.edges)
            many(_CLOSE, [(n,) for n in batch.settled])
            many("DELETE FROM parcels WHERE first = ?", [(n,) for n in batch.ended_parcels])
            leases = [(x.id, x.worker, pack(x.attempts)) for x in batch.leases.values()]
            many("INSERT INTO leases VALUES (?, ?, ?)", leases)
            many("DELETE FROM leases WHERE id = ?", [(n,) for n in batch.ended_leases])
            many("DELETE FROM items WHERE job = ?", [(n,) for n in batch.cleared])
            many("REPLACE INTO items VALUES (?, ?, ?)", batch.items)
            many(_DROP_ITEMS, list(batch.dropped.items()))
            self._write_queues(batch.queues)
            if any(
                parcel.open for parcel in batch.parcels
            ):  # else the index of submits has them all
                many(_SESSION, list(batch.sessions().items()))
            meta = bytearray(pack(batch.counts)), batch.next_id, bytearray(pack(batch.queued))
            execute("REPLACE INTO meta VALUES (1, ?, ?, ?)", meta)
        except sqlite3.Error as error:
            self.rollback()
            raise translate(error) from error

    def _write_queues(self, queues: dict[str, Override | None]) -> None:
        for name, said in queues.items():
            if said is None:
                self._writer.execute("DELETE FROM queues WHERE name = ?", (name,))
            else:
                row = name, said.slots, said.rate, said.paused
                self._writer.execute("REPLACE INTO queues VALUES (?, ?, ?, ?)", row)

    def _write_jobs(self, changes: list[Change]) -> None:
        firsts, rest, others = list[Job](), list[Job](), list[Job]()
        again = []
        for change in changes:
            job = change.job
            if change.had_row:
                again.append(changes_of(job))
            elif not is_plain(job):
                others.append(job)
            elif job.batch:
                firsts.append(job)
            else:
                rest.append(job)
        self._insert(_INSERT_PLAIN, _INSERT_PLAINS, plain_row, firsts + self._write_alike(rest))
        self._insert(_INSERT, _INSERT_ROWS, row_of, others)
        self._many(_UPDATE, again)

    def _write_alike(self, jobs: list[Job]) -> list[Job]:
        """Add rows of plain jobs, none the first of its submit: ``ROWS`` of one with one statement.

        Returns those that are left.
        """
        left: list[Job] = []
        for _, group in groupby(jobs, attrgetter("uid")):
            alike = list(group)
            whole = len(alike) - len(alike) % ROWS
            for start in range(0, whole, ROWS):
                self._writer.execute(_INSERT_OF_ONE, values_of_one(alike[start : start + ROWS]))
            left += alike[whole:]
        return left

    def _insert(
        self, one: str, many: str, row_of: Callable[[Job], tuple[object, ...]], jobs: list[Job]
    ) -> None:
        """Add rows: as many as can be with statements that take ``ROWS`` of them."""
        whole = len(jobs) - len(jobs) % ROWS
        for start in range(0, whole, ROWS):
            values: list[object] = []
            for job in jobs[start : start + ROWS]:
                values += row_of(job)
            self._writer.execute(many, values)
        self._many(one, [row_of(job) for job in jobs[whole:]])

    def _many(self, sql: str, rows: Collection[Sequence[object]]) -> None:
        if rows:
            self._writer.executemany(sql, rows)

    def commit(self) -> None:
        """Make the open transaction durable; blocks on the disk, without the GIL."""
        try:
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            raise translate(error) from error

    def rollback(self) -> None:
        """Undo the open transaction, if SQLite has not done so already."""
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translate(error) from error


def _identity(path: Path | str) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino
