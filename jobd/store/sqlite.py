"""Reading and writing the database.

One connection writes, in the whole system: the loop executes the statements of
a batch on it and leaves only the COMMIT, one call that releases the GIL, to a
thread.  A second, read-only connection answers questions; it sees what is
committed and nothing else, so nothing can be shown before it is durable.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain, groupby, islice
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import TypeVar

import msgspec

from jobd.model.edges import When, success_of
from jobd.model.errors import (
    ConfigError,
    DiskFull,
    JobdError,
    StoreBusy,
    StoreDamaged,
    StoreFailed,
    StoreLost,
)
from jobd.model.job import Attempt, ErrorInfo, Job, Lease, LogSpan, Notes, Parcel, Record, Usage
from jobd.model.lane import lane_of
from jobd.model.options import Policy
from jobd.model.queues import Override
from jobd.model.selector import MAX_ID, Selector
from jobd.model.states import WIDTH, Event, State
from jobd.scheduler.batch import Backlog, Batch, Change
from jobd.store import files
from jobd.store.ahead import WriteAheadLog


class Detail(msgspec.Struct, frozen=True, array_like=True):
    """What only some jobs have to tell; new fields need a default."""

    cause: str = ""
    stop: int = 0
    error: ErrorInfo | None = None
    log: LogSpan | None = None
    root: int = 0
    usage: Usage | None = None
    failures: int = 0
    grace_us: int | None = None
    notes: Notes = ()


NO_DETAIL = Detail()

T = TypeVar("T")

Packed = tuple[int, bytes, int, str, int, list[bytes], Policy | None]

_pack = msgspec.msgpack.Encoder().encode
_to_json = msgspec.json.Encoder().encode


def _unpacker(kind: type[T]) -> Callable[[bytes], T]:
    """Return what decodes values of this type, and takes anything else for damage."""
    decode = msgspec.msgpack.Decoder(kind).decode

    def unpack(data: bytes) -> T:
        try:
            return decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreDamaged(
                f"the job store is damaged: a record in it makes no sense ({error})",
                "see 'jobd db check'",
            ) from error

    return unpack


_unpack_detail = _unpacker(Detail)
_unpack_inputs = _unpacker(list[int])
_unpack_after = _unpacker(list[tuple[int, When]])
_unpack_policy = _unpacker(Policy)
_unpack_records = _unpacker(list[Packed])
_unpack_attempt = _unpacker(Attempt)
_unpack_attempts = _unpacker(list[tuple[int, int]])
_unpack_counts = _unpacker(list[int])
_unpack_queued = _unpacker(dict[str, int])

_COLUMNS = (
    "id, uid, batch, state, function, args, created_at, attempt, crashes, started_at, ended_at, "
    "pid, detail, value, policy, inputs, after, due_at, lane, key"
)
_WITHOUT_VALUE = _COLUMNS.replace("value", "NULL")
_PLACES = f"({', '.join('?' * len(_COLUMNS.split(',')))})"
_INSERT = f"INSERT INTO jobs ({_COLUMNS}) VALUES {_PLACES}"
ROWS = 50
"""Rows that one INSERT takes; a quarter faster than one by one."""

_INSERT_ROWS = _INSERT + f", {_PLACES}" * (ROWS - 1)

# Plain jobs (``_is_plain``): nothing is bound that is NULL or the same for all, which takes half the time.
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

# Two texts, so that each finds its index.
_IN_LANE = ("lane IS NULL", "lane = ?")

_NEXT_LANE = (
    "SELECT lane FROM jobs WHERE state = 3 AND lane > ? AND lane < ? ORDER BY lane LIMIT 1",
    "SELECT lane FROM parcels WHERE lane > ? AND lane < ? ORDER BY lane LIMIT 1",
)

_STATES_OF = "SELECT id, state FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
_ROWS_OF = f"SELECT {_COLUMNS} FROM jobs WHERE id IN (SELECT json_each.value FROM json_each(?))"
_VALUES_OF = "SELECT id, value FROM jobs WHERE id IN (SELECT json_each.value FROM json_each(?))"

# A job without a row of its own waits in a parcel: it has not ended.
_EDGES_TO = "SELECT source FROM edges LEFT JOIN jobs ON jobs.id = source WHERE job = ? AND open = 1"
_UNMET = f"{_EDGES_TO} AND (state IS NULL OR state < 10) LIMIT ?"
_NEVER = f"{_EDGES_TO} AND ((kind = 1 AND state > 10) OR (kind = 3 AND state = 10)) LIMIT ?"

_CLOSE = "UPDATE edges SET open = 0 WHERE source = ? AND kind != 3 AND open = 1"
"""A success closes all but the edges of those who wait for a failure: they never start."""

_STATES = [State(n) if n in set(State) else None for n in range(WIDTH)]

_DISK_ERRORS = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)

_NO_ROOM = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
)

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NO_TEXT = "Could not decode to UTF-8"
"""How Python's module says that a text is none; it has no code for that."""

_SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL", "off": "OFF"}

BACKLOG_BYTES = 16 * 1024 * 1024
"""What is loaded of the queue at a time; more by one parcel at most."""

ITEMS_BYTES = 1024 * 1024
"""What is read of a stream at a time; more by one item at most."""

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
            self._writer.execute("PRAGMA busy_timeout = 0")  # the loop waits for nobody
            self._reader = files.connect(path)
            self._reader.execute("PRAGMA query_only = ON")
            for connection in (self._reader, self._writer):
                # Makes the log, and opens all files: none has to be found by its name later.
                connection.execute("SELECT one FROM meta").fetchone()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DISK_ERRORS:
                raise _translate(error) from error
            raise ConfigError(
                f"cannot open {path}: {error}", "is its directory writable?"
            ) from error
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
            raise _translate(error) from error

    def write(self, batch: Batch) -> None:
        """Execute a batch in the transaction, which is left open for ``commit``."""
        execute, many = self._writer.execute, self._many
        try:
            self._write_jobs(batch.changes)
            earlier = chain.from_iterable(job.earlier or () for job in batch.retold)
            attempts = [(a.job, a.number, _pack(a)) for a in earlier]
            many("REPLACE INTO attempts VALUES (?, ?, ?)", attempts)
            edited = [(args, number) for number, args in batch.edited.items()]
            many("UPDATE jobs SET args = ? WHERE id = ?", edited)
            for parcel in batch.parcels:
                if parcel.open:
                    execute("INSERT INTO parcels VALUES (?, ?, ?, ?, ?)", _packed(parcel))
            many("INSERT OR IGNORE INTO environments VALUES (?, ?)", [*batch.environments.items()])
            many("INSERT INTO edges VALUES (?, ?, ?, ?)", batch.edges)
            many(_CLOSE, [(n,) for n in batch.settled])
            many("DELETE FROM parcels WHERE first = ?", [(n,) for n in batch.ended_parcels])
            leases = [(x.id, x.worker, _pack(x.attempts)) for x in batch.leases.values()]
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
            meta = bytearray(_pack(batch.counts)), batch.next_id, bytearray(_pack(batch.queued))
            execute("REPLACE INTO meta VALUES (1, ?, ?, ?)", meta)
        except sqlite3.Error as error:
            self.rollback()
            raise _translate(error) from error

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
                again.append(_changes(job))
            elif not _is_plain(job):
                others.append(job)
            elif job.batch:
                firsts.append(job)
            else:
                rest.append(job)
        self._insert(_INSERT_PLAIN, _INSERT_PLAINS, _plain_row, firsts + self._write_alike(rest))
        self._insert(_INSERT, _INSERT_ROWS, _row, others)
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
                self._writer.execute(_INSERT_OF_ONE, _values_of_one(alike[start : start + ROWS]))
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
            for first, key, batch, *_ in _unpack_records(blob):
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
        """Return one job, its result included."""
        with self._snapshot():
            row = self._one(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (number,))
            if row is not None:
                return _job(row)
            row = self._one(
                "SELECT records FROM parcels WHERE first <= ? AND last >= ? ORDER BY first DESC LIMIT 1",
                (number, number),
            )
        return next(_jobs_of(row[0], number, number), None) if row else None

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
            raise _translate(error) from error
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
                (*_lane(lane), reached, high),
            )
            if row is None:
                reached = high
                break
            parcels.append(_parcel(row[0], row[1], row[2], lane))
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
            f"SELECT {_COLUMNS} FROM jobs WHERE state = 3 AND {_IN_LANE[bool(lane)]} "
            "AND id > ? AND id <= ? ORDER BY id LIMIT ?"
        )
        parameters = (*_lane(lane), cursor, high, most)
        try:
            with closing(self._reader.execute(sql, parameters)) as rows:
                for row in rows:
                    jobs.append(_job(row))
                    size += len(row[5])
                    if len(jobs) == most or size >= BACKLOG_BYTES:
                        return jobs, jobs[-1].id
        except sqlite3.Error as error:
            raise _translate(error) from error
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

    # -- who waits for whom --

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
            for first, *_, args, _ in _unpack_records(row[1])
            for n in range(first, first + len(args))
        }
        return row[0], jobs

    def own_rows(self, numbers: list[int]) -> dict[int, Job]:
        """Return those of these jobs that have a row of their own, as all have for which a clock runs."""
        return {row[0]: _job(row) for row in self._all(_ROWS_OF, (_to_json(numbers),))}

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
        details = [(row[0], _unpack_detail(row[1])) for row in self._all(sql, (after, limit))]
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
        return [(number, _unpack_inputs(blob)) for number, blob in self._all(sql, (after, limit))]

    # -- listing --

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
        return [_job(row) for row in rows]

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
            without = (job for job in _jobs_of(row[1], start, top) if job.id not in has_row)
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


def _is_plain(job: Job) -> bool:
    """Whether a job has returned a value at its first attempt, and there is nothing else to tell."""
    return (
        job.value is not None
        and job.attempt == 1
        and not (job.crashes or job.due_at)
        and job.policy is None
        and job.inputs is None
        and job.after is None
        and not _has_detail(job)
    )


# Not bytes: for each of them Python looks for an adapter, three times as long as the copy takes.
def _plain_row(job: Job) -> tuple[object, ...]:
    assert job.value is not None
    return (
        job.id,
        bytearray(job.uid),
        job.batch,
        job.function,
        bytearray(job.args),
        job.created_at,
        job.started_at,
        job.ended_at,
        job.pid,
        bytearray(job.value),
    )


def _values_of_one(jobs: list[Job]) -> list[object]:
    """Return what ``_INSERT_OF_ONE`` binds."""
    first = jobs[0]
    values: list[object] = [bytearray(first.uid), first.function, first.created_at]
    for job in jobs:
        assert job.value is not None
        values += (
            job.id,
            bytearray(job.args),
            job.started_at,
            job.ended_at,
            job.pid,
            bytearray(job.value),
        )
    return values


def _identity(path: Path | str) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino


def _row(job: Job) -> tuple[object, ...]:
    return (
        job.id,
        bytearray(job.uid),
        job.batch,
        int(job.stored),
        job.function,
        bytearray(job.args),
        job.created_at,
        job.attempt - (job.state is State.RUNNING),  # it counts once it is over: it may come back
        job.crashes,
        job.started_at,
        job.ended_at,
        job.pid,
        _detail(job),
        None if job.value is None else bytearray(job.value),
        None if job.policy is None else _pack(job.policy),
        None if job.inputs is None else _pack(job.inputs),
        None if job.after is None else _pack(job.after),
        job.due_at or None,
        job.lane or None,
        None if job.policy is None else job.policy.key or None,
    )


def _changes(job: Job) -> tuple[object, ...]:
    return (
        int(job.stored),
        job.attempt - (job.state is State.RUNNING),
        job.crashes,
        job.started_at,
        job.ended_at,
        job.pid,
        _detail(job),
        job.value,
        job.due_at or None,
        job.id,
    )


def _has_detail(job: Job) -> bool:
    return bool(
        job.log or job.error or job.cause or job.stop or job.usage or job.failures or job.notes
    )


def _detail(job: Job) -> bytes | None:
    if not _has_detail(job):
        return None
    detail = (
        job.cause,
        int(job.stop or 0),
        job.error,
        job.log,
        job.root,
        job.usage,
        job.failures,
        job.grace_us,
    )
    return _pack((*detail, job.notes) if job.notes else detail)


def _job(row: tuple) -> Job:  # type: ignore[type-arg]  # as SQLite gives it
    state = _STATES[row[3]] if 0 <= row[3] < WIDTH else None
    if state is None:
        raise StoreDamaged(f"job {row[0]} is in no state ({row[3]})", "see 'jobd db check'")
    detail = NO_DETAIL if row[12] is None else _unpack_detail(row[12])
    policy = None if row[14] is None else _unpack_policy(row[14])
    job = Job(row[0], row[1], row[2], row[4], row[5], row[6], policy, state)
    job.attempt, job.crashes, job.started_at, job.ended_at, job.pid = row[7:12]
    job.cause, job.error, job.log, job.value = detail.cause, detail.error, detail.log, row[13]
    job.stop = Event(detail.stop) if detail.stop else None
    job.root, job.usage, job.failures = detail.root, detail.usage, detail.failures
    job.grace_us, job.notes = detail.grace_us, detail.notes
    job.inputs = None if row[15] is None else _unpack_inputs(row[15])
    job.after = None if row[16] is None else _unpack_after(row[16])
    job.due_at, job.lane = row[17] or 0, row[18] or ""
    job.row, job.stored = True, state
    return job


def _lane(lane: str) -> tuple[str, ...]:
    """Return the parameters of ``_IN_LANE``."""
    return (lane,) if lane else ()


def _packed(parcel: Parcel) -> tuple[int, int, bytes, bytes, str | None]:
    """Return a parcel's row; submits whose jobs all have rows already are left out."""
    records = [r for r in parcel.records if r.open]
    keys = b"".join(r.uid for r in records if r.batch)
    packed = [
        (r.first, r.uid, r.batch, r.function, r.created_at, r.args, r.policy) for r in records
    ]
    return parcel.first, parcel.last, keys, _pack(packed), parcel.lane or None


def _parcel(first: int, last: int, blob: bytes, lane: str) -> Parcel:
    parcel = Parcel(first, last, [], stored=True, lane=lane)
    parcel.records = [Record(*packed, parcel) for packed in _unpack_records(blob)]
    return parcel


def _jobs_of(blob: bytes, low: int, high: int) -> Iterator[Job]:
    """Yield the jobs of a parcel with ids from ``low`` to ``high``, the newest first."""
    for first, uid, batch, function, created_at, args, policy in reversed(_unpack_records(blob)):
        for number in range(min(first + len(args) - 1, high), max(first, low) - 1, -1):
            own = batch if number == first else 0
            job = Job(number, uid, own, function, args[number - first], created_at, policy)
            job.lane = lane_of(policy)
            yield job


def _translate(error: sqlite3.Error) -> JobdError:
    """Tell a full disk, which heals, from an I/O error, after which nothing is certain."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code in _NO_ROOM:
        return DiskFull(
            f"disk full: the job store could not write ({error})", "free some space and try again"
        )
    if code & 0xFF in _DAMAGE or str(error).startswith(_NO_TEXT):
        return StoreDamaged(f"the job store is damaged: {error}", "see 'jobd db check'")
    name = getattr(error, "sqlite_errorname", "")
    return StoreFailed(
        f"the job store failed: {error} {name}".rstrip(), "jobd has to be started again"
    )
