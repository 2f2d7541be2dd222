"""A batch: what one commit stores, and what may be told and done once it has.

Everything that happens in one or more turns of the loop, up to the moment the
disk is free again, goes into the open batch.  A job is in it once, with its
latest state: a job that ends before its submit was stored costs one INSERT.

A ``Backlog`` goes the other way: what was stored, and comes back into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from jobd.model.edges import When
from jobd.model.job import ArraySpec, Job, Lease, Parcel, Record
from jobd.model.messages import Refused, Reply, Submitted
from jobd.model.options import Policy
from jobd.model.orders import Run
from jobd.model.queues import DEFAULT, Override
from jobd.model.states import State

PARCEL_JOBS = 1_000
PARCEL_BYTES = 256 * 1024


class Keyed(msgspec.Struct):
    """What belongs to the submit of a job with a key."""

    key: str
    replaces: list[int] = []
    """Jobs that are cancelled with the commit that stores this, for its sake."""
    answers: list[tuple[bytes, Submitted | Refused]] = []
    """To other submits, which are about its job: told when this is, or refused as this is."""


class Submission(msgspec.Struct):
    """One submit that is not durable yet, and who wants to be told: (peer, rid)."""

    uid: bytes
    first: int
    count: int
    tell: list[tuple[bytes, int]]
    queues: Sequence[tuple[str, int]] = ()
    """How many of its jobs are in which queue, but for those in the default one."""
    has_rows: bool = False
    """Its jobs are in memory until they are stored, each in a row of its own: never in the backlog."""
    lane: str = ""
    """The lane of its jobs, if they are in parcels; else ""."""
    is_unseen: bool = False
    """That lane was not known, nor was there room for it, when they came."""
    keyed: Keyed | None = None
    """What there is to it if its one job has a key."""

    @property
    def in_backlog(self) -> bool:
        """Whether its jobs are plain, and may be in the store only."""
        return not (self.has_rows or self.lane)

    def count_in(self, queue: str) -> int:
        """Return how many of its jobs are in this queue."""
        if queue == DEFAULT:
            return self.count - sum(count for _, count in self.queues)
        return sum(count for name, count in self.queues if name == queue)


class Backlog(NamedTuple):
    """A piece of what waits in the store, of one lane: complete up to the id ``reached``."""

    parcels: list[Parcel]
    rows: dict[int, Job | None]
    """Jobs that have rows of their own, whatever parcels say: the job if it is queued, else None."""
    reached: int


class Change(msgspec.Struct, gc=False):
    """A job's row to be written, and what was so before, should the commit fail."""

    job: Job
    had_row: bool
    was_stored: State
    record: Record | None


class Range(msgspec.Struct, gc=False):
    """Items of an array that follow on each other and have ended alike, none of which has a row."""

    first: int
    count: int
    state: State
    started_at: int = 0
    ended_at: int = 0
    pid: int = 0
    cause: str = ""
    values: bytes = b""
    """What they have returned (``jobd.model.stretch``), if they have succeeded."""


@dataclass
class Batch:
    """What is stored together, and what waits for it."""

    submissions: list[Submission] = field(default_factory=list)
    submitted: int = 0
    """How many jobs they have."""
    parcels: list[Parcel] = field(default_factory=list)
    """The jobs of these submissions, packed."""
    loose: list[Job] = field(default_factory=list)
    """Plain jobs that came alone and are in memory: packed only if they have not ended by then."""
    jobs: dict[int, Job] = field(default_factory=dict)
    """Jobs that have something of their own to store, as they are when the batch is taken."""
    changes: list[Change] = field(default_factory=list)
    """Made of ``jobs`` when the batch is taken."""
    retold: list[Job] = field(default_factory=list)
    """Those of them with ends of superseded attempts."""
    edited: dict[int, bytes] = field(default_factory=dict)
    """Calls that somebody has changed, of jobs that have rows."""
    spill: set[int] = field(default_factory=set)
    """Those of these jobs for which there is no room in memory once they are stored."""
    ended_parcels: list[int] = field(default_factory=list)
    leases: dict[int, Lease] = field(default_factory=dict)
    ended_leases: list[int] = field(default_factory=list)
    orders: list[tuple[str, Run]] = field(default_factory=list)
    """Jobs to start once it is on record that they may have."""
    replies: list[tuple[bytes, Reply]] = field(default_factory=list)
    early_replies: list[tuple[bytes, Reply]] = field(default_factory=list)
    """Those that must be told before the ends of jobs."""
    keyed: dict[str, set[int]] = field(default_factory=dict)
    """Of the jobs with something to store, those that have a key."""
    recorded: list[tuple[str, int]] = field(default_factory=list)
    """Outcome frames, (worker, seq), that the worker may forget once this is stored."""
    edges: list[tuple[int, int, When, bool]] = field(default_factory=list)
    """New ones: (source, job that comes after it, when, whether that is open)."""
    settled: list[int] = field(default_factory=list)
    """Sources that have succeeded: what leads from them and is met so is closed."""
    items: list[tuple[int, int, bytes]] = field(default_factory=list)
    """What streams have produced: (job, number, value)."""
    cleared: list[int] = field(default_factory=list)
    """Jobs whose items are deleted, before these are added: they begin anew."""
    dropped: dict[int, int] = field(default_factory=dict)
    """Items that nobody needs any more: up to which number, by job."""
    released: list[bytes] = field(default_factory=list)
    """The references to files among these; told once, whatever becomes of this batch."""
    chunks: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Calls of new arrays: the first item, how many, the calls (``jobd.model.stretch``)."""
    unranged: list[int] = field(default_factory=list)
    """Ranges, by their first items, that count no longer; removed before these are added."""
    ranges: dict[int, Range] = field(default_factory=dict)
    """Items of arrays that have ended, by the first of each."""
    specs: dict[int, ArraySpec] = field(default_factory=dict)
    """Arrays that have rows, and are to be others from now on."""
    queues: dict[str, Override | None] = field(default_factory=dict)
    """What has been said of queues, all of it; None: nothing any more."""
    environments: dict[bytes, bytes] = field(default_factory=dict)
    """The variables of these jobs, by their digests; some may be stored already."""
    urgent: bool = False
    patient_until: int = 0
    """µs; until then an unurgent batch waits for the outcomes of jobs that are about to end."""
    counts: list[int] = field(default_factory=list)
    queued: dict[str, int] = field(default_factory=dict)
    next_id: int = 0
    _room_jobs: int = 0
    _room_bytes: int = 0

    def sessions(self) -> dict[bytes, bytes]:
        """Return the highest key of each client's session: its last 8 bytes, by its first 8."""
        highest: dict[bytes, bytes] = {}
        for submission in self.submissions:
            session, number = submission.uid[:8], submission.uid[8:]
            highest[session] = max(number, highest.get(session, b""))
        return highest

    def __bool__(self) -> bool:
        return bool(
            self.submissions
            or self.jobs
            or self.ended_parcels
            or self.leases
            or self.ended_leases
            or self.replies
            or self.early_replies
            or self.orders
            or self.recorded
            or self.items
            or self.settled
            or self.ranges
            or self.unranged
            or self.specs
            or self.queues
        )

    def pack(  # noqa: PLR0913, PLR0917  # all that a record is made of
        self,
        first: int,
        uid: bytes,
        total: int,
        function: str,
        created_at: int,
        args: list[bytes],
        policy: Policy | None = None,
        lane: str = "",
    ) -> Record:
        """Add jobs to the parcel at hand, or to a new one when that is full, or of another lane."""
        if self.loose:
            self.pack_loose()  # a parcel's ids rise
        count = len(args)
        if self._room_jobs <= 0 or self._room_bytes <= 0 or self.parcels[-1].lane != lane:
            self._room_jobs, self._room_bytes = PARCEL_JOBS, PARCEL_BYTES
            self.parcels.append(Parcel(first, first, [], lane=lane))
        parcel = self.parcels[-1]
        record = Record(first, uid, total, function, created_at, args, policy, parcel, count)
        parcel.records.append(record)
        parcel.last = first + count - 1
        parcel.open += 1
        self._room_jobs -= count
        self._room_bytes -= len(args[0]) if count == 1 else sum(map(len, args))
        return record

    def pack_loose(self) -> None:
        """Pack the jobs that came alone, but for those that have something of their own to store."""
        loose, self.loose = self.loose, []
        for job in loose:
            if job.id not in self.jobs:
                job.record = self.pack(
                    job.id, job.uid, 1, job.function, job.created_at, [job.args], job.policy
                )
