"""The ledger: what is to be stored, what is being stored, and what is counted.

There is one open batch, and at most one in flight.  ``take`` closes the open one
and works out its rows; ``kept`` or ``lost`` tells what became of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from jobd.model.item import FIRST_ITEM, array_of
from jobd.model.job import Job, Lease, Record
from jobd.model.queues import DEFAULT
from jobd.model.states import ENDED, WIDTH, State
from jobd.scheduler.batch import Batch, Change, Submission

_NO_ARGS: list[bytes] = []
_WAITING = slice(State.QUEUED + 1)

RECENT = 1_000
"""Submissions that are durable and are found by their keys without a look into the store, at least."""


class Ledger:
    """Batches, and the number of jobs in each state."""

    def __init__(
        self,
        next_id: int,
        counts: dict[State, int],
        next_lease: int,
        queued: dict[str, int] | None = None,
    ) -> None:
        self.batch = Batch()
        self.in_flight: Batch | None = None
        self.next_id = next_id
        self.stored_high = next_id - 1
        """Jobs up to this id are durable."""
        self.taken_high = next_id - 1
        """Jobs up to this id are durable, or will be with the commit in flight."""
        self.counts = [counts.get(State(n), 0) if n in set(State) else 0 for n in range(WIDTH)]
        """How many jobs are in each state, by its number; running ones count as queued."""
        self.queued = queued or {}
        """How many jobs of each queue but the default one have not ended."""
        self.submissions: dict[bytes, Submission] = {}
        """Those that are not durable yet, by key."""
        self.recent: deque[list[Submission]] = deque()
        """Submissions that have become durable, a list for each commit: clients may not know yet."""
        self._recent_count = 0
        self._next_lease = next_lease
        self.wall = 0
        """The time, µs since 1970."""

    def store(self, job: Job) -> None:
        """Have this job's own row written with the open batch."""
        if not job.void:
            self.batch.jobs[job.id] = job
            self.batch.urgent = True
            if job.policy is not None and job.policy.key:
                self.batch.keyed.setdefault(job.policy.key, set()).add(job.id)

    def lease(self, worker: str, jobs: list[Job]) -> Lease:
        """Put on record that the worker may start these attempts."""
        attempts = [_attempt_of(job) for job in jobs]
        lease = Lease(self._next_lease, worker, attempts, len(jobs))
        self._next_lease += 1
        self.batch.leases[lease.id] = lease
        for job in jobs:
            job.lease = lease
        return lease

    def close_lease(self, lease: Lease) -> None:
        """One of the lease's attempts is over; the last one ends the lease."""
        lease.open -= 1
        if lease.open <= 0 and self.batch.leases.pop(lease.id, None) is None:
            self.batch.ended_leases.append(lease.id)

    def end_parcels(self, firsts: list[int]) -> None:
        """These parcels hold nothing any more: have them deleted."""
        if firsts:
            self.batch.ended_parcels += firsts
            self.batch.urgent = True

    @property
    def waiting(self) -> int:
        """How many jobs have not ended, of those that are stored or will be with the commit in flight."""
        return sum(self.counts[_WAITING])

    @property
    def settled_high(self) -> int:
        """Up to which id every job is in the store, or never will be."""
        return self.stored_high if self.submissions else self.next_id - 1

    def is_unsettled(self, number: int) -> bool:
        """Whether a change of this job is not durable yet."""
        flying = self.in_flight
        return number in self.batch.jobs or (flying is not None and number in flying.jobs)

    def is_retried(self, first: int) -> bool:
        """Whether a range of items that is stored counts no longer, with a commit that is to come."""
        flying = self.in_flight
        return first in self.batch.unranged or (flying is not None and first in flying.unranged)

    def unsettled(self) -> Iterator[Job]:
        """Yield the jobs that have a change which is not durable, some twice."""
        yield from self.batch.jobs.values()
        if self.in_flight is not None:
            yield from self.in_flight.jobs.values()

    def unsettled_with(self, key: str) -> set[int]:
        """Return those of them that have this key; some may have been refused since."""
        found = set(self.batch.keyed.get(key, ()))
        if self.in_flight is not None:
            found |= self.in_flight.keyed.get(key, set())
        return found

    def count_unsettled(self) -> int:
        """Return how many these are."""
        return len(self.batch.jobs) + (0 if self.in_flight is None else len(self.in_flight.jobs))

    def unended_in(self, queue: str) -> int:
        """Return how many durable jobs of a queue have not ended."""
        if queue != DEFAULT:
            return self.queued.get(queue, 0)
        return sum(self.counts[:ENDED]) - sum(self.queued.values())

    def _count(self, queue: str, more: int) -> None:
        """Count the jobs of a queue that have not ended; the default one has what is left of all."""
        if queue != DEFAULT:
            left = self.queued[queue] = self.queued.get(queue, 0) + more
            if not left:
                del self.queued[queue]

    def _count_submission(self, submission: Submission, sign: int) -> None:
        self.counts[State.QUEUED] += sign * submission.count
        for queue, count in submission.queues:
            self._count(queue, sign * count)

    def take(self) -> Batch:
        """Close the open batch, whose commit is in flight from now on."""
        batch, self.batch = self.batch, Batch()
        batch.pack_loose()
        counts = self.counts
        for submission in batch.submissions:
            self._count_submission(submission, 1)
        changes, ended, retold = batch.changes, batch.ended_parcels, batch.retold
        queued, running = State.QUEUED, State.RUNNING
        for job in batch.jobs.values():
            record, stored = job.record, job.stored
            if job.earlier:
                retold.append(job)
            changes.append(Change(job, job.row, stored, record))
            state = queued if job.state is running else job.state
            if state is not stored:
                if job.id < FIRST_ITEM:
                    counts[stored] -= 1
                    counts[state] += 1
                    if job.policy is not None:
                        self._count(job.policy.queue, (state < ENDED) - (stored < ENDED))
                job.stored = state
            job.row = True
            if record is not None:
                job.record = None
                _close(record, ended)
        _take_as_stored(batch)
        batch.counts = counts.copy()
        batch.queued = self.queued.copy()
        batch.next_id = self.next_id
        self.taken_high = self.next_id - 1
        self.in_flight = batch
        return batch

    def kept(self) -> Batch:
        """The batch in flight is durable."""
        batch = self.in_flight
        assert batch is not None
        self.in_flight = None
        if batch.submissions:
            self._remember(batch.submissions)
        for submission in batch.submissions:
            del self.submissions[submission.uid]
        for parcel in batch.parcels:  # what was packed is in the store now
            for record in parcel.records:
                record.args = _NO_ARGS
            parcel.records = []
        for job in batch.retold:
            if job.id not in self.batch.jobs:
                job.earlier = None
        self.stored_high = self.taken_high = batch.next_id - 1
        return batch

    def _remember(self, submissions: list[Submission]) -> None:
        self.recent.append(submissions)
        self._recent_count += len(submissions)
        while self._recent_count - len(self.recent[0]) >= RECENT:
            self._recent_count -= len(self.recent.popleft())

    def lost(self, jobs: dict[int, Job]) -> list[Submission]:
        """The batch in flight was rolled back: keep all but its submissions for the next.

        Returns these, and those of the open batch that come after one of their ``jobs``, or have
        one of their keys.
        """
        failed = self.in_flight
        assert failed is not None
        self.in_flight = None
        counts = self.counts
        for change in failed.changes:
            job = change.job
            if job.id < FIRST_ITEM:
                counts[job.stored] -= 1
                counts[change.was_stored] += 1
                if job.policy is not None:
                    is_open = change.was_stored < ENDED
                    self._count(job.policy.queue, is_open - (job.stored < ENDED))
            job.stored, job.row = change.was_stored, change.had_row
            if change.record is not None:
                _reopen(change.record)
                job.record = change.record
        for submission in failed.submissions:
            self._count_submission(submission, -1)
            del self.submissions[submission.uid]
        for lease in failed.leases.values():
            lease.stored = False
        self._merge_back(failed)
        self.taken_high = self.stored_high
        return failed.submissions + self._withdraw(failed.submissions, jobs)

    def _withdraw(self, failed: list[Submission], jobs: dict[int, Job]) -> list[Submission]:
        """Take submissions out of the open batch that come after jobs which never were, or have their keys.

        The latter were taken in as it was not known that another job would keep the key.
        """
        batch = self.batch
        gone = [(s.first, s.first + s.count) for s in failed]
        keys = {s.keyed.key for s in failed if s.keyed is not None}
        found: list[Submission] = []
        for submission in batch.submissions if gone else ():  # sources are older than who waits
            if submission.has_rows and (
                _has_one_of(submission, keys) or _comes_after(submission, jobs, gone)
            ):
                gone.append((submission.first, submission.first + submission.count))
                keys |= {submission.keyed.key} if submission.keyed is not None else set()
                found.append(submission)
        for submission in found:
            batch.submissions.remove(submission)
            batch.submitted -= submission.count
            del self.submissions[submission.uid]
        return found

    def forget_jobs(self, first: int, count: int) -> None:
        """Drop changes of jobs whose submit has failed."""
        batch = self.batch
        for number in range(first, first + count):
            batch.jobs.pop(number, None)
        if self.batch.edges:
            self.batch.edges = [e for e in self.batch.edges if not first <= e[1] < first + count]

    def forget_items(self, array: int) -> None:
        """Drop changes of the items of an array whose submit has failed, and its calls."""
        batch = self.batch
        batch.chunks = [chunk for chunk in batch.chunks if array_of(chunk[0]) != array]
        batch.ranges = {n: r for n, r in batch.ranges.items() if array_of(n) != array}
        batch.jobs = {n: job for n, job in batch.jobs.items() if array_of(n) != array}
        batch.specs.pop(array, None)

    def _merge_back(self, failed: Batch) -> None:
        batch = self.batch
        batch.jobs = {**failed.jobs, **batch.jobs}
        leases = {**failed.leases, **batch.leases}
        ended = set(failed.ended_leases) | set(batch.ended_leases)
        both = leases.keys() & ended  # never stored, and over already
        batch.leases = {n: lease for n, lease in leases.items() if n not in both}
        batch.ended_leases = sorted(ended - both)
        batch.ended_parcels[:0] = [
            first for first in failed.ended_parcels if first <= self.stored_high
        ]
        batch.spill |= failed.spill
        batch.queues = {**failed.queues, **batch.queues}
        batch.edited = {**failed.edited, **batch.edited}
        batch.environments = {**failed.environments, **batch.environments}
        batch.settled[:0] = failed.settled
        batch.unranged[:0] = failed.unranged
        batch.ranges = {**failed.ranges, **batch.ranges}
        batch.specs = {**failed.specs, **batch.specs}
        batch.orders[:0] = failed.orders
        batch.replies[:0] = failed.replies
        batch.early_replies[:0] = failed.early_replies
        for key, numbers in failed.keyed.items():
            batch.keyed.setdefault(key, set()).update(numbers)
        batch.recorded[:0] = failed.recorded
        if failed.items or failed.dropped or failed.cleared:
            again = set(batch.cleared)
            batch.items[:0] = [item for item in failed.items if item[0] not in again]
            batch.dropped = {**failed.dropped, **batch.dropped}
            batch.cleared[:0] = failed.cleared
        batch.urgent = True


def _attempt_of(job: Job) -> tuple[int, ...]:
    if job.stretch is None:
        return job.id, job.attempt
    return job.id, job.attempt, job.stretch.count


def _comes_after(
    submission: Submission, jobs: dict[int, Job], ranges: list[tuple[int, int]]
) -> bool:
    """Whether a job of the submission, all of which are in memory, comes after one in these ranges."""
    return any(
        low <= number < high
        for job in range(submission.first, submission.first + submission.count)
        for number in jobs[job].edges()
        for low, high in ranges
    )


def _has_one_of(submission: Submission, keys: set[str]) -> bool:
    return submission.keyed is not None and submission.keyed.key in keys


def _take_as_stored(batch: Batch) -> None:
    """Have parcels and leases know that they are in the store: their ends are to be written, too."""
    for parcel in batch.parcels:
        parcel.stored = parcel.open > 0
    for lease in batch.leases.values():
        lease.stored = True


def _close(record: Record, ended: list[int]) -> None:
    """One of a record's jobs gets a row of its own."""
    record.open -= 1
    if not record.open:
        parcel = record.parcel
        parcel.open -= 1
        if not parcel.open and parcel.stored:
            ended.append(parcel.first)


def _reopen(record: Record) -> None:
    """The row was not written after all."""
    if not record.open:
        record.parcel.open += 1
    record.open += 1
