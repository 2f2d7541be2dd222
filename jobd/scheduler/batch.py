"""A batch: what one commit stores, and what may be told and done once it has.

Everything that happens in one or more turns of the loop, up to the moment the
disk is free again, goes into the open batch.  A job is in it once, with its
latest state: a job that ends before its submit was stored costs one INSERT.
"""

from __future__ import annotations

import msgspec

from jobd.model.job import Job, Lease
from jobd.model.messages import Reply
from jobd.model.orders import Order
from jobd.model.states import State


class Submission(msgspec.Struct):
    """One submit that is not durable yet, and who wants to be told: (peer, rid)."""

    uid: bytes
    first: int
    count: int
    tell: list[tuple[bytes, int]]


class Batch:
    """What is stored together, and what waits for it."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        """New and changed jobs; each row is taken from the job when the batch is taken."""
        self.submissions: list[Submission] = []
        self.leases: dict[int, Lease] = {}
        self.ended_leases: list[int] = []
        self.orders: list[tuple[str, Order]] = []
        self.replies: list[tuple[bytes, Reply]] = []
        self.recorded: list[tuple[str, int]] = []
        """Outcome frames, (worker, seq), that the worker may forget once this is stored."""
        self.urgent = False
        self.patient_until = 0
        """µs; until then an unurgent batch waits for the outcomes of jobs that are about to end."""
        self.before: list[tuple[Job, State | None]] = []
        """What ``stored`` was for each job, should the commit fail."""
        self.counts: dict[State, int] = {}
        self.low = 0

    def __bool__(self) -> bool:
        return bool(
            self.jobs or self.leases or self.ended_leases or self.replies or self.orders or self.recorded
        )
