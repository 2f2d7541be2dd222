"""A store in dictionaries, with the rules of jobd's own: what is written shows when it is committed.

It keeps to the statements of ``jobd.store.sqlite`` and to the constraints of the
schema, and raises `Corrupt` where SQLite would refuse a row.  ``landed`` tells
whoever watches what each commit has changed.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from fake_arrays import Corrupt, FakeArrays, Written, as_read

from jobd.model.edges import When, success_of
from jobd.model.errors import DiskFull, StoreBusy
from jobd.model.item import FIRST_ITEM
from jobd.model.job import Attempt, Job, Lease, Parcel, Record
from jobd.model.lane import lane_of
from jobd.model.options import Policy
from jobd.model.queues import DEFAULT, Override
from jobd.model.selector import MAX_ID, Selector
from jobd.model.states import ENDED, WIDTH, State
from jobd.scheduler.batch import Backlog, Batch, Range

SCAN = 5
"""Ids that one question looks at."""

_LIVE = tuple(state for state in State if state < ENDED)

Packed = tuple[int, bytes, int, str, int, list[bytes], Policy | None]


class ParcelRow(NamedTuple):
    """A row of the table of parcels."""

    first: int
    last: int
    records: list[Packed]
    lane: str


class Place(NamedTuple):
    """Where in the parcels a job is."""

    record: Packed
    offset: int
    lane: str


class Pending(NamedTuple):
    """A transaction that was written and is not committed."""

    rows: list[tuple[Job, bool]]
    attempts: list[Attempt]
    parcels: list[ParcelRow]
    ended_parcels: list[int]
    leases: list[Lease]
    ended_leases: list[int]
    items: list[tuple[int, int, bytes]]
    cleared: list[int]
    dropped: dict[int, int]
    sessions: dict[bytes, bytes]
    counts: list[int]
    next_id: int
    edges: list[tuple[int, int, When, bool]]
    settled: list[int]
    queues: dict[str, Override | None]
    queued: dict[str, int]
    arrays: Written


class Commit(NamedTuple):
    """What a commit has changed: each row as it was and as it is, and attempts put on record."""

    rows: list[tuple[Job | None, Job]]
    replaced: list[tuple[Attempt | None, Attempt]]
    parcels: list[ParcelRow]
    ended_parcels: list[ParcelRow]
    ranges: list[Range]
    unranged: list[Range]
    """Those that count no longer."""
    chunks: list[tuple[int, int, bytes]]


class NoLog:
    """A write-ahead log that is always folded in."""

    def size(self) -> int:
        """Be empty."""
        return 0


class FakeStore:
    """The durable state; it outlives the daemons."""

    def __init__(self) -> None:
        self.ahead = NoLog()
        self.rows: dict[int, Job] = {}
        self.arrays = FakeArrays(self.rows)
        self.live: dict[int, Job] = {}
        """Those of the rows that have not ended."""
        self._firsts: dict[bytes, int] = {}
        self.packed: dict[int, Place] = {}
        """Every job that a parcel holds, whether it has a row of its own or not."""
        self.parcels: dict[int, ParcelRow] = {}
        self.records: dict[tuple[int, int], Attempt] = {}
        self.leased: dict[int, Lease] = {}
        self.produced: dict[int, dict[int, bytes]] = {}
        """The items of each stream, by job and number."""
        self.sessions: dict[bytes, bytes] = {}
        self.edges: dict[tuple[int, int], tuple[When, bool]] = {}
        """Who comes after whom: when, and whether that is open, by (source, job)."""
        self.tally = [0] * WIDTH
        self.unended: dict[str, int] = {}
        """Jobs that have not ended, by queue, as the last batch said."""
        self.said: dict[str, Override] = {}
        """What was said of queues."""
        self.next = 1
        self.is_full = False
        """The disk: whether the next write, or the commit under way, fails."""
        self.was_full = False
        self.is_locked = False
        """Somebody else writes, and takes his time."""
        self.was_locked = False
        self.pending: Pending | None = None
        self.landed: Callable[[Commit], None] = lambda _: None

    # -- writing --

    def begin(self) -> None:
        """Begin a transaction, if nobody else is in one."""
        if self.is_locked:
            raise StoreBusy("locked: so the simulation wants it")

    def write(self, batch: Batch) -> None:
        """Take in a batch; nothing shows until ``commit``."""
        if self.is_full:
            raise DiskFull("disk full: so the simulation wants it")
        if self.pending is not None:
            raise Corrupt("a transaction within a transaction")
        jobs = [change.job for change in batch.changes]
        self.pending = Pending(
            [(_as_row(change.job), change.had_row) for change in batch.changes],
            [attempt for job in jobs for attempt in job.earlier or ()],
            [_packed(parcel) for parcel in batch.parcels if parcel.open],
            list(batch.ended_parcels),
            [Lease(x.id, x.worker, list(x.attempts), 0) for x in batch.leases.values()],
            list(batch.ended_leases),
            list(batch.items),
            list(batch.cleared),
            dict(batch.dropped),
            batch.sessions() if any(parcel.open for parcel in batch.parcels) else {},
            list(batch.counts),
            batch.next_id,
            edges=list(batch.edges),
            settled=list(batch.settled),
            queues=dict(batch.queues),
            queued=dict(batch.queued),
            arrays=Written(
                list(batch.chunks),
                list(batch.unranged),
                [copy.copy(range_) for range_ in batch.ranges.values()],
                dict(batch.specs),
            ),
        )

    def commit(self) -> None:
        """Make durable what was written."""
        pending = self.pending
        if pending is None:
            raise Corrupt("a commit of nothing")
        if self.is_full:
            raise DiskFull("disk full: so the simulation wants it")
        self.pending = None
        changed = [(self._put_row(job, had_row=had_row), job) for job, had_row in pending.rows]
        replaced = [(self.records.get((a.job, a.number)), a) for a in pending.attempts]
        unranged = self.arrays.put(pending.arrays)
        self.records.update(((a.job, a.number), a) for a in pending.attempts)
        for parcel in pending.parcels:
            self._put_parcel(parcel)
        ended = [self._drop_parcel(first) for first in pending.ended_parcels]
        self._put_leases(pending)
        self._put_items(pending)
        self._put_edges(pending)
        for session, high in pending.sessions.items():
            self.sessions[session] = max(high, self.sessions.get(session, high))
        for name, said in pending.queues.items():
            self.said.pop(name, None)
            if said is not None:
                self.said[name] = said
        self.tally, self.next = pending.counts, pending.next_id
        self.unended = pending.queued
        commit = Commit(
            changed,
            replaced,
            pending.parcels,
            [p for p in ended if p],
            pending.arrays.ranges,
            unranged,
            pending.arrays.chunks,
        )
        self.landed(commit)

    def rollback(self) -> None:
        """Forget what was written."""
        self.pending = None

    def close(self) -> None:
        """End the connection, and with it what was not committed."""
        self.pending = None

    def check_identity(self) -> None:
        """Nobody has replaced these dictionaries."""

    def _put_edges(self, pending: Pending) -> None:
        for source, job, when, is_open in pending.edges:
            if (source, job) in self.edges:
                raise Corrupt(f"there is an edge from {source} to {job} already")
            self.edges[source, job] = when, is_open
        for (source, job), (when, _) in self.edges.items():
            if source in pending.settled and when is not When.FAILED:
                self.edges[source, job] = when, False

    def _put_row(self, job: Job, *, had_row: bool) -> Job | None:
        old = self.rows.get(job.id)
        if (old is not None) is not had_row:
            raise Corrupt(f"job {job.id}: {'no row' if had_row else 'a row'} was there")
        if (job.state >= State.SUCCEEDED) is not (job.ended_at > 0):
            raise Corrupt(f"job {job.id} is {job.state.name} and ended at {job.ended_at}")
        if job.due_at and job.state >= State.SUCCEEDED:
            raise Corrupt(f"job {job.id} is {job.state.name} and due at {job.due_at}")
        if job.state is State.SCHEDULED and job.due_at <= 0:
            raise Corrupt(f"job {job.id} is scheduled for no time")
        if job.value is not None and job.state is not State.SUCCEEDED:
            raise Corrupt(f"job {job.id} is {job.state.name} and has a value")
        if old is not None and _fixed(old) != _fixed(job):
            raise Corrupt(f"job {job.id} was {_fixed(old)}, is {_fixed(job)}")
        if job.batch and self._firsts.setdefault(job.uid, job.id) != job.id:
            raise Corrupt(
                f"the jobs {self._firsts[job.uid]} and {job.id} are the first of one submit"
            )
        self.rows[job.id] = job
        if job.state < ENDED:
            self.live[job.id] = job
        else:
            self.live.pop(job.id, None)
        return old

    def _put_parcel(self, parcel: ParcelRow) -> None:
        if parcel.first in self.parcels:
            raise Corrupt(f"there is a parcel {parcel.first} already")
        self.parcels[parcel.first] = parcel
        for record in parcel.records:
            if lane_of(record[6]) != parcel.lane:
                raise Corrupt(f"{record} is in a parcel of the lane {parcel.lane!r}")
            for index in range(len(record[5])):
                self.packed[record[0] + index] = Place(record, index, parcel.lane)

    def _drop_parcel(self, first: int) -> ParcelRow | None:
        parcel = self.parcels.pop(first, None)
        for record in parcel.records if parcel else ():
            for index in range(len(record[5])):
                del self.packed[record[0] + index]
        return parcel

    def _put_leases(self, pending: Pending) -> None:
        for lease in pending.leases:
            if lease.id in self.leased:
                raise Corrupt(f"there is a lease {lease.id} already")
            self.leased[lease.id] = lease
        for number in pending.ended_leases:
            self.leased.pop(number, None)

    def _put_items(self, pending: Pending) -> None:
        for number in pending.cleared:
            self.produced.pop(number, None)
        for number, seq, value in pending.items:
            self.produced.setdefault(number, {})[seq] = value
        for number, upto in pending.dropped.items():
            for seq in [seq for seq in self.produced[number] if 1 <= seq <= upto]:
                del self.produced[number][seq]

    # -- reading --

    def kept_items(self, job: int) -> tuple[int, int] | None:
        """Return the numbers of the first and the last kept item of a stream."""
        kept = self.produced.get(job)
        return (min((n for n in kept if n), default=1), max(kept)) if kept else None

    def items(self, job: int, first: int, last: int) -> list[bytes]:
        """Return these items of a stream, or the first of them."""
        kept = self.produced.get(job, {})
        return [kept[n] for n in range(first, last + 1) if n in kept][:SCAN]

    def counts(self) -> dict[State, int]:
        """Return how many jobs are in each state, as the last batch said."""
        return {state: self.tally[state] for state in State}

    def next_id(self) -> int:
        """Return the lowest id that was never used."""
        return self.next

    def queued(self) -> dict[str, int]:
        """Return how many jobs of each queue have not ended, as the last batch said."""
        return dict(self.unended)

    def queues(self) -> dict[str, Override]:
        """Return what was said of queues."""
        return dict(self.said)

    def leases(self) -> list[Lease]:
        """Return the leases on record, the newest first."""
        newest = sorted(self.leased.values(), key=lambda x: -x.id)
        return [Lease(x.id, x.worker, x.attempts, len(x.attempts), stored=True) for x in newest]

    def submit_of(self, uid: bytes) -> tuple[int, int] | None:
        """Return first id and count of the submit with this key."""
        for job in self.rows.values():
            if job.uid == uid and job.batch:
                return job.id, job.batch
        for parcel in self.parcels.values():
            for first, key, batch, *_ in parcel.records:
                if key == uid and batch:
                    return first, batch
        return None

    def session_high(self, session: bytes) -> bytes:
        """Return the highest 8 bytes that a session has used in its keys."""
        in_jobs = [j.uid[8:] for j in self.rows.values() if j.batch and j.uid[:8] == session]
        return max([self.sessions.get(session, b""), *in_jobs])

    def job(self, number: int) -> Job | None:
        """Return one job as a reader sees it."""
        row = self.rows.get(number)
        if row is not None:
            return as_read(row)
        place = self.packed.get(number)
        if place is None:
            return self.arrays.find(number)
        first, uid, batch, function, created_at, args, policy = place.record
        own = batch if number == first else 0
        job = Job(number, uid, own, function, args[place.offset], created_at, policy)
        job.lane = lane_of(policy)
        return job

    def attempts(self, number: int) -> list[Attempt]:
        """Return the earlier attempts of a job, the first one first."""
        return [self.records[key] for key in sorted(self.records) if key[0] == number]

    def backlog(self, cursor: int, high: int, wanted: int, lane: str = "") -> Backlog:
        """Return what lies beyond ``cursor``."""
        own = [n for n, row in self.live.items() if cursor < n <= high and _waits_in(row, lane)]
        own.sort()
        high = own[wanted - 1] if len(own) >= wanted else high
        parcels: list[Parcel] = []
        reached, found = cursor, 0
        while found < wanted and reached < high:
            in_lane = (p for p in self.parcels.values() if p.lane == lane)
            row = min((p for p in in_lane if reached < p.last), default=None)
            if row is None or row.first > high:
                reached = high
                break
            parcels.append(_unpacked(row))
            found += row.last - row.first + 1
            reached = row.last
        rows: dict[int, Job | None] = {}
        for number in sorted(self.rows):
            job = self.rows[number]
            if cursor < number <= reached and _waits_in(job, lane):
                rows[number] = as_read(job)
            elif any(p.first <= number <= p.last for p in parcels):
                rows[number] = None
        return Backlog(parcels, rows, reached)

    def lanes(self, after: str, before: str, limit: int) -> list[str]:
        """Return the first lanes between these two texts in which jobs wait."""
        found = {row.lane for row in self.live.values() if row.state is State.QUEUED}
        found |= {parcel.lane for parcel in self.parcels.values()}
        return sorted(lane for lane in found if lane and after < lane < before)[:limit]

    def due(self, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
        """Return (due_at, id) of the jobs to which the clock does something after this one."""
        found = sorted((j.due_at, j.id) for j in self.live.values() if j.due_at)
        return [entry for entry in found if entry > after][:limit]

    def keyed(self, key: str, limit: int) -> list[int]:
        """Return jobs with this key that have not ended, the oldest first."""
        live = self.live.values()
        return sorted(j.id for j in live if j.policy and j.policy.key == key)[:limit]

    def states(self, numbers: list[int]) -> dict[int, State]:
        """Return the states of those of these jobs that exist."""
        found = {number: self.state_of(number) for number in numbers}
        return {number: state for number, state in found.items() if state is not None}

    def own_rows(self, numbers: list[int]) -> dict[int, Job]:
        """Return those of these jobs that have a row of their own."""
        return {number: as_read(self.rows[number]) for number in numbers if number in self.rows}

    def values(self, numbers: list[int]) -> dict[int, bytes | None]:
        """Return what these jobs have returned."""
        return {number: self.rows[number].value for number in numbers if number in self.rows}

    def dependants(self, number: int, after: int, limit: int) -> list[tuple[int, When]]:
        """Return jobs with ids above ``after`` that come after this one, and when."""
        found = [(b, when) for (a, b), (when, _) in self.edges.items() if a == number and b > after]
        return sorted(found)[:limit]

    def unmet(self, number: int, limit: int) -> list[int]:
        """Return sources of this job that have not ended."""
        sources = self._sources(number, _LIVE, When)
        return sorted(sources)[:limit]

    def never(self, number: int, limit: int) -> list[int]:
        """Return sources of this job that keep it from ever starting."""
        failures = [state for state in State if state > State.SUCCEEDED]
        sources = self._sources(number, failures, (When.SUCCEEDED,))
        sources += self._sources(number, (State.SUCCEEDED,), (When.FAILED,))
        return sorted(sources)[:limit]

    def _sources(
        self, number: int, states: Collection[State | None], kinds: Iterable[When]
    ) -> list[int]:
        edges = [
            (a, when) for (a, b), (when, is_open) in self.edges.items() if is_open and b == number
        ]
        return [a for a, when in edges if when in kinds and self.state_of(a) in states]

    def blocked(self, after: int, limit: int) -> list[int]:
        """Return blocked jobs with ids above ``after``."""
        rows = self.live.values()
        return sorted(j.id for j in rows if j.state is State.BLOCKED and j.id > after)[:limit]

    def aborted(self, after: int, limit: int) -> list[tuple[int, int]]:
        """Return aborted jobs with ids above ``after``, each with the job that is to blame, or 0."""
        rows = [j for j in self.rows.values() if j.state is State.ABORTED and j.id > after]
        found = [(j.id, 0 if j.cause == success_of(j.root) else j.root) for j in rows]
        return sorted(found)[:limit]

    def page(self, selector: Selector, before: int, limit: int) -> tuple[list[Job], int]:
        """Return matching jobs under ``before``, the newest first, and where to go on, or 0."""
        limit = min(limit, selector.last) if selector.last else limit
        ranges = [(1, MAX_ID)] if selector.all or selector.last else selector.ranges
        found: list[Job] = []
        looked = 0
        for number in range(min(before, self.next) - 1, 0, -1):
            if not any(low <= number <= high for low, high in ranges):
                continue
            looked += 1
            job = self.job(number)
            if job is not None and (not selector.states or job.state in selector.states):
                job.value = None
                found.append(job)
            if len(found) == limit or looked == SCAN:
                return found, number
        return found, 0

    # -- for those who check --

    def state_of(self, number: int) -> State | None:
        """Return the durable state of a job, or None."""
        row = self.rows.get(number)
        if row is not None:
            return row.state
        if number in self.packed:
            return State.QUEUED
        item = self.arrays.find(number)
        return item.state if item is not None else None

    def args_of(self, number: int) -> bytes | None:
        """Return the arguments of a durable job, or None."""
        row = self.rows.get(number)
        if row is not None:
            return row.args
        place = self.packed.get(number)
        if place is not None:
            return place.record[5][place.offset]
        item = self.arrays.find(number)
        return item.args if item is not None else None

    def waiting(self) -> Iterator[tuple[int, str]]:
        """Yield the id and the lane of every job that is queued, in rows and in parcels; no items."""
        for number, row in self.live.items():
            if row.state is State.QUEUED and number < FIRST_ITEM:
                yield number, row.lane
        for number, place in self.packed.items():
            if number not in self.rows:
                yield number, place.lane

    def recount(self) -> list[int]:
        """Count all jobs by their states; items are not counted."""
        tally = [0] * WIDTH
        for number, row in self.rows.items():
            tally[row.state] += number < FIRST_ITEM
        tally[State.QUEUED] += len(self.packed.keys() - self.rows.keys())
        return tally

    def recount_queues(self) -> dict[str, int]:
        """Count the jobs that have not ended by their queues, all but the default one."""
        policies = [row.policy for number, row in self.live.items() if number < FIRST_ITEM]
        packed = self.packed.keys() - self.rows.keys()
        policies += [self.packed[number].record[6] for number in packed]
        found = Counter(map(_queue_of, policies))
        del found[DEFAULT]
        return dict(found)


def _waits_in(row: Job, lane: str) -> bool:
    return row.state is State.QUEUED and row.lane == lane


def _queue_of(policy: Policy | None) -> str:
    return DEFAULT if policy is None else policy.queue


def _as_row(job: Job) -> Job:
    """Return what a row keeps of a job."""
    row = copy.copy(job)
    row.attempt -= job.state is State.RUNNING
    row.state = job.stored
    row.record = row.lease = row.watchers = row.earlier = row.stretch = row.doomed = None
    row.cost_us, row.void, row.is_heir = 0.0, False, False
    return row


def _fixed(job: Job) -> tuple[object, ...]:
    call = job.function, job.args, job.policy, job.inputs, job.after, job.lane
    return job.uid, job.batch, job.created_at, *call


def _packed(parcel: Parcel) -> ParcelRow:
    records = [r for r in parcel.records if r.open]
    packed = [
        (r.first, r.uid, r.batch, r.function, r.created_at, r.args, r.policy) for r in records
    ]
    return ParcelRow(parcel.first, parcel.last, packed, parcel.lane)


def _unpacked(row: ParcelRow) -> Parcel:
    parcel = Parcel(row.first, row.last, [], stored=True, lane=row.lane)
    parcel.records = [Record(*packed, parcel) for packed in row.records]
    return parcel
