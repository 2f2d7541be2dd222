"""How jobs and parcels become rows, and rows jobs and parcels again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from jobd.model.edges import When
from jobd.model.errors import (
    DiskFull,
    JobdError,
    StoreDamaged,
    StoreFailed,
)
from jobd.model.job import ArraySpec, ErrorInfo, Job, LogSpan, Notes, Parcel, Record, Usage
from jobd.model.lane import lane_of
from jobd.model.options import Policy
from jobd.model.states import WIDTH, Event, State


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

COLUMNS = (
    "id, uid, batch, state, function, args, created_at, attempt, crashes, started_at, ended_at, "
    "pid, detail, value, policy, inputs, after, due_at, lane, key, array"
)

T = TypeVar("T")

Packed = tuple[int, bytes, int, str, int, list[bytes], Policy | None]

pack = msgspec.msgpack.Encoder().encode


def unpacker(kind: type[T]) -> Callable[[bytes], T]:
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


unpack_detail = unpacker(Detail)
unpack_inputs = unpacker(list[int])
_unpack_after = unpacker(list[tuple[int, When]])
_unpack_policy = unpacker(Policy)
_unpack_array = unpacker(ArraySpec)
unpack_records = unpacker(list[Packed])

_STATES = [State(n) if n in set(State) else None for n in range(WIDTH)]

_NO_ROOM = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
)

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_NO_TEXT = "Could not decode to UTF-8"
"""How Python's module says that a text is none; it has no code for that."""


def is_plain(job: Job) -> bool:
    """Whether a job has returned a value at its first attempt, and there is nothing else to tell."""
    return (
        job.value is not None
        and job.attempt == 1
        and not (job.crashes or job.due_at)
        and job.policy is None
        and job.inputs is None
        and job.after is None
        and job.array is None
        and not _has_detail(job)
    )


def plain_row(job: Job) -> tuple[object, ...]:
    """Return what is bound for a plain job."""
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


def values_of_one(jobs: list[Job]) -> list[object]:
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


def row_of(job: Job) -> tuple[object, ...]:
    """Return all columns of a job."""
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
        None if job.policy is None else pack(job.policy),
        None if job.inputs is None else pack(job.inputs),
        None if job.after is None else pack(job.after),
        job.due_at or None,
        job.lane or None,
        None if job.policy is None else job.policy.key or None,
        None if job.array is None else pack(job.array),
    )


def changes_of(job: Job) -> tuple[object, ...]:
    """Return what is bound when a job that has a row changes."""
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
    return pack((*detail, job.notes) if job.notes else detail)


def job_of(row: tuple) -> Job:  # type: ignore[type-arg]  # as SQLite gives it
    """Return the job of a row; raises StoreDamaged if it makes no sense."""
    state = _STATES[row[3]] if 0 <= row[3] < WIDTH else None
    if state is None:
        raise StoreDamaged(f"job {row[0]} is in no state ({row[3]})", "see 'jobd db check'")
    detail = NO_DETAIL if row[12] is None else unpack_detail(row[12])
    policy = None if row[14] is None else _unpack_policy(row[14])
    job = Job(row[0], row[1], row[2], row[4], row[5], row[6], policy, state)
    job.attempt, job.crashes, job.started_at, job.ended_at, job.pid = row[7:12]
    job.cause, job.error, job.log, job.value = detail.cause, detail.error, detail.log, row[13]
    job.stop = Event(detail.stop) if detail.stop else None
    job.root, job.usage, job.failures = detail.root, detail.usage, detail.failures
    job.grace_us, job.notes = detail.grace_us, detail.notes
    job.inputs = None if row[15] is None else unpack_inputs(row[15])
    job.after = None if row[16] is None else _unpack_after(row[16])
    job.due_at, job.lane = row[17] or 0, row[18] or ""
    job.array = None if row[20] is None else _unpack_array(row[20])
    job.row, job.stored = True, state
    return job


def lane_in(lane: str) -> tuple[str, ...]:
    """Return the parameters of ``_IN_LANE``."""
    return (lane,) if lane else ()


def packed(parcel: Parcel) -> tuple[int, int, bytes, bytes, str | None]:
    """Return a parcel's row; submits whose jobs all have rows already are left out."""
    records = [r for r in parcel.records if r.open]
    keys = b"".join(r.uid for r in records if r.batch)
    packed = [
        (r.first, r.uid, r.batch, r.function, r.created_at, r.args, r.policy) for r in records
    ]
    return parcel.first, parcel.last, keys, pack(packed), parcel.lane or None


def parcel_of(first: int, last: int, blob: bytes, lane: str) -> Parcel:
    """Return the parcel of a row; raises StoreDamaged as above."""
    parcel = Parcel(first, last, [], stored=True, lane=lane)
    parcel.records = [Record(*each, parcel) for each in unpack_records(blob)]
    return parcel


def jobs_of(blob: bytes, low: int, high: int) -> Iterator[Job]:
    """Yield the jobs of a parcel with ids from ``low`` to ``high``, the newest first."""
    for first, uid, batch, function, created_at, args, policy in reversed(unpack_records(blob)):
        for number in range(min(first + len(args) - 1, high), max(first, low) - 1, -1):
            own = batch if number == first else 0
            job = Job(number, uid, own, function, args[number - first], created_at, policy)
            job.lane = lane_of(policy)
            yield job


def translate(error: sqlite3.Error) -> JobdError:
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
