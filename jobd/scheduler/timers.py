"""Jobs for which the clock does something: they become ready, or are of no use any more.

``Job.due_at`` is the next such instant (0: there is none), of a scheduled job the one at
which it becomes ready, or expires if that is earlier; of one that is blocked or queued the
one at which it expires.  It is the wall clock's, in UTC, as a job may wait for longer than
the machine runs.  A job that is held keeps the instant that it had, of which only its expiry
is of effect before it is released.  Whatever happens then changes ``due_at``, so that a clock which is put
back makes nothing happen twice.

The store has an index of all of them; here is a heap of the soonest ones, ids only.  An
entry is a hint: whoever takes it looks at the job itself, which may have moved on.
``_horizon`` parts the heap from what is in the store only.  Jobs whose change is not stored
yet are looked at when the horizon moves, so that none falls between the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from jobd.model.job import Job
from jobd.model.options import BUILT_IN, Policy
from jobd.model.states import Event, transition

ENTRIES = 65_536
"""Entries in memory; a larger heap is cut by half."""

LOW_WATER = 1_000
"""With fewer entries than this in memory, the heap is filled from the store."""

REFILL = 4_000
"""Entries that are loaded at a time."""

SLICE = 500
"""Jobs that become due in one turn of the loop."""

Entry = tuple[int, int]
"""(due_at, job)."""


class Timers:
    """The soonest instants at which something happens to a job."""

    def __init__(self, *, has_more: bool) -> None:
        self.has_more = has_more
        """There may be entries beyond the horizon, in the store only."""
        self.horizon: Entry = (0, 0)
        self.wall = 0
        self._heap: list[Entry] = []

    def next_at(self) -> int | None:
        """Return the soonest instant, or None."""
        return self._heap[0][0] if self._heap else None

    def add(self, job: Job) -> None:
        """Take note of a job's ``due_at``, which is stored or will be."""
        entry = (job.due_at, job.id)
        if self.has_more and entry > self.horizon:
            return
        heappush(self._heap, entry)
        if len(self._heap) > ENTRIES:
            self._heap.sort()
            del self._heap[ENTRIES // 2 :]
            self.horizon, self.has_more = self._heap[-1], True

    def due(self) -> list[int]:
        """Take out the jobs whose time has come, a slice of them; some may have moved on."""
        heap, found = self._heap, list[int]()
        while heap and heap[0][0] <= self.wall and len(found) < SLICE:
            found.append(heappop(heap)[1])
        return found

    def is_due(self) -> bool:
        """Whether the time of any job has come, as it seems."""
        return bool(self._heap) and self._heap[0][0] <= self.wall

    def wants_refill(self) -> bool:
        """Whether entries beyond the horizon should be loaded, ``REFILL`` of them."""
        return self.has_more and len(self._heap) < LOW_WATER

    def refill(self, stored: list[Entry], unsettled: Iterable[Job]) -> None:
        """Take in the next stored entries beyond the horizon, and jobs that are not stored as they are."""
        before = self.horizon
        self.has_more = len(stored) == REFILL
        after = stored[-1] if self.has_more else None
        self._heap += stored
        for job in unsettled:
            entry = (job.due_at, job.id)
            if job.due_at and entry > before and (after is None or entry <= after):
                self._heap.append(entry)
        heapify(self._heap)
        if after is not None:
            self.horizon = after

    # -- what a policy says --

    def watch(self, job: Job) -> None:
        """Take note of when a new job expires, if ever."""
        job.due_at = expires_at(job)
        if job.due_at:
            self.add(job)

    def postpone(self, job: Job) -> bool:
        """Let a queued job wait that may not start yet; return whether it does."""
        # With an attempt behind it, it was held while it waited for the next one, or waits for nothing.
        start = job.due_at if job.attempt else starts_at(job, job.policy or BUILT_IN)
        if start <= self.wall:
            return False
        job.state = transition(job.state, Event.POSTPONE)
        job.due_at = min(start, job.due_at or start)
        self.add(job)
        return True


def is_timed(policy: Policy) -> bool:
    """Whether the clock has a say in the life of a new job."""
    return bool(policy.at or policy.delay or policy.expires)


def starts_at(job: Job, policy: Policy) -> int:
    """Return before which instant a job must not start; 0: at once."""
    return policy.at or (job.created_at + round(policy.delay * 1e6) if policy.delay else 0)


def expires_at(job: Job) -> int:
    """Return from which instant on a job is of no use if it has not started; 0: never, or it has."""
    policy = job.policy or BUILT_IN
    if job.attempt:
        return 0
    return job.created_at + round(policy.expires * 1e6) if policy.expires else 0
