"""Plain jobs: those that run soon are in memory, the backlog is in the store only.

They run in the order of their ids, but for those that other jobs wait for.
``cursor`` parts the two: every queued job up to it is in memory; ``spilled`` counts
those beyond.  When the window runs low it is filled from the store, whole parcels at
a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush

from jobd.model.job import Job, Record
from jobd.model.states import QUEUED
from jobd.scheduler.batch import Backlog
from jobd.scheduler.watchers import Watchers

JOBS = 65_536
"""Jobs in memory; the rest of the queue is in the store only."""

BYTES = 64 * 1024 * 1024
"""What the arguments of the jobs in memory may take."""

LOW_WATER = 4_096
"""With fewer jobs than this in memory, the window is filled from the store."""


class PlainQueue:
    """All jobs in memory, the plain ones of them that are ready to run, and who watches the others."""

    def __init__(self, spilled: int, is_awaited: Callable[[int], bool] = lambda _: False) -> None:
        """``spilled`` as below; ``is_awaited`` tells for which jobs others wait."""
        self.is_awaited = is_awaited
        self.jobs: dict[int, Job] = {}
        """Ready jobs, assigned ones, and ends that are not durable yet."""
        self.cursor = 0
        self.spilled = spilled
        """Queued jobs beyond the cursor; an upper bound until all that is stored is in memory."""
        self.watchers = Watchers()
        """Of the jobs that are in the store only, or on their way there, whatever they wait for."""
        self._fresh: deque[Job] = deque()
        """Ready jobs that came in the order of their ids, as nearly all do."""
        self._back: list[int] = []
        """A heap of the ids of those that came back: put back, retried, loaded to be changed."""
        self._first: deque[int] = deque()
        """Ids of those for which others wait; they have their usual places too."""
        self._bytes = 0

    def __len__(self) -> int:
        """How many jobs are ready; some may have been cancelled since."""
        return len(self._fresh) + len(self._back) + len(self._first)

    @property
    def has_first(self) -> bool:
        """Whether there may be ready jobs for which others wait."""
        return bool(self._first)

    @property
    def is_full(self) -> bool:
        """Whether new jobs must spill: no room, or others wait in the store before them."""
        ready = len(self._fresh) + len(self._back) + len(self._first)
        return self.spilled > 0 or ready >= JOBS or self._bytes >= BYTES

    def push(self, job: Job) -> None:
        """Make a job ready to run, in its place among the others."""
        self.jobs[job.id] = job
        self._bytes += len(job.args)
        heappush(self._back, job.id)
        if self.is_awaited(job.id):
            self._first.append(job.id)

    def head(self) -> Job | None:
        """Return what ``pop`` would take; what was cancelled meanwhile is dropped."""
        first, fresh, back, jobs = self._first, self._fresh, self._back, self.jobs
        while first or fresh or back:
            is_fresh = bool(not first and fresh and not (back and back[0] < fresh[0].id))
            number = first[0] if first else fresh[0].id if is_fresh else back[0]
            job = jobs.get(number)
            is_ready = job is not None and job.state is QUEUED and not job.void
            if is_ready and not (is_fresh and fresh[0] is not job):
                return job
            if first:
                first.popleft()
            elif is_fresh:
                fresh.popleft()
            else:
                heappop(back)
        self._bytes = 0
        return None

    def pop(self) -> Job | None:
        """Take the next job; what was cancelled meanwhile is passed over."""
        first, fresh, back, jobs = self._first, self._fresh, self._back, self.jobs
        while first or fresh or back:
            if first:
                job = jobs.get(first.popleft())
            elif fresh and not (back and back[0] < fresh[0].id):
                job = fresh.popleft()
                if jobs.get(job.id) is not job:
                    job = None  # it went first, and has been stored and loaded since
            else:
                job = jobs.get(heappop(back))
            if job is not None and job.state is QUEUED and not job.void:
                # An empty window forgets also what was cancelled: else it might seem full for ever.
                self._bytes = self._bytes - len(job.args) if fresh or back else 0
                return job
        self._bytes = 0
        return None

    def append(self, job: Job) -> None:
        """Take in a new job, for which there is room."""
        self.cursor = job.id
        self._append(job)

    def admit(self, record: Record, peer: bytes | None) -> None:
        """Take in the jobs of a new record, or leave them to the store; ``peer`` watches them."""
        first, count = record.first, len(record.args)
        last = first + count - 1
        if self.is_full:
            self.spilled += count
            if peer is not None:
                self.watchers.add(peer, first, last)
            return
        self.cursor = last
        jobs, ready = self.jobs, self._fresh.append
        uid, function, created_at = record.uid, record.function, record.created_at
        batch, policy = record.batch, record.policy
        watchers = None if peer is None else (peer,)
        for number, args in enumerate(record.args, first):
            job = jobs[number] = Job(number, uid, batch, function, args, created_at, policy)
            batch = 0
            job.record = record
            job.watchers = watchers
            ready(job)
        self._bytes += sum(map(len, record.args))

    def wants_refill(self, stored_high: int) -> bool:
        """Whether parcels should be loaded, from ``cursor`` on."""
        return (
            self.spilled > 0
            and len(self) < LOW_WATER
            and self._bytes < BYTES
            and self.cursor < stored_high
        )

    def refill(self, backlog: Backlog) -> list[int]:
        """Take in what the store has from ``cursor`` on.

        Returns the parcels (by first id) that hold nothing any more.
        """
        before = len(self.jobs)
        ended = self.unpack(backlog, self._append)
        _, rows, reached = backlog
        for number, row in rows.items():
            if row is not None and number not in self.jobs:
                self.push(row)
        for peer, first, last in self.watchers.take(self.cursor + 1, reached):
            for number in range(first, last + 1):
                self.watch(peer, number)
        self.unspill(len(self.jobs) - before)
        self.cursor = max(self.cursor, reached)
        return ended

    def unpack(self, backlog: Backlog, append: Callable[[Job], None]) -> list[int]:
        """Make jobs of parcels that are not in memory and have no rows, for ``append`` to take in.

        Returns the parcels (by first id) that hold nothing any more.
        """
        parcels = backlog.parcels
        for parcel in parcels:
            for record in parcel.records:
                self._unpack(record, backlog.rows, append)
                parcel.open += record.open > 0
            parcel.records = []
        return [parcel.first for parcel in parcels if not parcel.open]

    def _unpack(
        self, record: Record, rows: dict[int, Job | None], append: Callable[[Job], None]
    ) -> None:
        jobs, batch, uid, policy = self.jobs, record.batch, record.uid, record.policy
        for number, args in enumerate(record.args, record.first):
            if number not in rows:
                job = jobs.get(number)
                if job is None:
                    job = Job(number, uid, batch, record.function, args, record.created_at, policy)
                    append(job)
                if not job.row:
                    job.record = record
                    record.open += 1
            batch = 0
        record.args = []

    def _append(self, job: Job) -> None:
        """Make a job ready, new or loaded; the backlog may begin anew below what is in memory (``spill``)."""
        if self._fresh and job.id < self._fresh[-1].id:
            self.push(job)
        else:
            self.jobs[job.id] = job
            self._bytes += len(job.args)
            self._fresh.append(job)

    def recover(self, job: Job) -> None:
        """Take in a job that is not ready, or will not be by the usual way; it may still count as spilled."""
        self.jobs[job.id] = job
        for peer, _, _ in self.watchers.take(job.id, job.id):
            self._watch(job, peer)

    def unspill(self, count: int) -> None:
        """Take note that so many jobs fewer are in the store only."""
        self.spilled = max(0, self.spilled - count)

    def spill(self, job: Job) -> None:
        """Leave a job that is queued again to the store: there is no room for it."""
        self.unload(job)
        self.cursor = min(self.cursor, job.id - 1)
        self.spilled += 1

    def unload(self, job: Job) -> None:
        """Leave a job to the store, where it is as it is."""
        self.jobs.pop(job.id, None)
        for peer in job.watchers or ():
            self.watchers.add(peer, job.id, job.id)

    def watch(self, peer: bytes, number: int) -> None:
        """Tell this peer of the end of a job that has not ended."""
        job = self.jobs.get(number)
        if job is not None:
            self._watch(job, peer)
        else:
            self.watchers.add(peer, number, number)

    def _watch(self, job: Job, peer: bytes) -> None:
        if job.watchers is None:
            job.watchers = (peer,)
        elif peer not in job.watchers:
            job.watchers = (*job.watchers, peer)

    def forget_peer(self, peer: bytes) -> None:
        """Nobody is there to be told any more."""
        self.watchers.forget(peer)
        for job in self.jobs.values():
            if job.watchers and peer in job.watchers:
                job.watchers = tuple(other for other in job.watchers if other != peer)

    def drop(self, first: int, count: int, *, in_backlog: bool) -> None:
        """Forget jobs whose submit has failed; those that are not in memory may count as spilled."""
        self.watchers.take(first, first + count - 1)
        for number in range(first, first + count):
            job = self.jobs.pop(number, None)
            if job is not None:
                job.void = True
            elif in_backlog:
                self.unspill(1)
