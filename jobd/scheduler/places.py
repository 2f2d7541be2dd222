"""The places that jobs in workers' hands take: slots of queues, and places at gates.

A job takes them from the moment it is handed to a worker.  An *heir*, which lies behind one with the same
places in the same hands, takes them over when that one has ended: until then it takes none.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobd.model.job import Job
from jobd.scheduler.lanes import Lanes
from jobd.scheduler.queues import Queues, queue_of
from jobd.scheduler.roster import Worker


@dataclass(frozen=True)
class Places:
    """Counts them."""

    queues: Queues
    lanes: Lanes

    def take(self, job: Job, *, is_start: bool) -> None:
        """A job is handed to a worker; ``is_start``: the rate of its queue counts it."""
        if self.queues.counts:
            if job.is_heir:
                self.queues.follows(queue_of(job))
            elif is_start:
                self.queues.started(queue_of(job))
            else:
                self.queues.goes_on(queue_of(job))
        if job.lane and not job.is_heir:
            self.lanes.started(job.lane)

    def free(self, worker: Worker, job: Job) -> None:
        """A job that a worker has in hand is about to be out of it."""
        passes_on = self._passes_on(worker, job)
        if self.queues.counts and worker.waiting is not job:
            queue = queue_of(job)
            if not passes_on:
                self.queues.ended(queue)
            if is_leaving(worker, job):
                self.queues.withdrawn(queue)
            self.lanes.queue_changed(queue)
        if job.lane and not passes_on:
            self.lanes.ended(job.lane)

    @staticmethod
    def _passes_on(worker: Worker, job: Job) -> bool:
        """Whether the places of this job are its heir's from now on, or were to be its own and never are."""
        if job.is_heir:
            job.is_heir = False
            return True
        if job is not worker.keeper:
            return False
        heir = worker.keeper = worker.heir
        if heir is not None:
            heir.is_heir = False
        return heir is not None

    def lends(self, worker: Worker, job: Job) -> None:
        """A job begins to wait for others, and lends its slot; it keeps its places at gates.

        So its heir has to have a slot and places of its own, and so has the job itself: the one
        before it may not be known to have ended.
        """
        if job.is_heir:
            self._count(job)
        heir = worker.keeper = worker.heir
        if heir is not None:
            self._count(heir)
        if self.queues.counts:
            self.queues.ended(queue_of(job))
            self.lanes.queue_changed(queue_of(job))

    def _count(self, heir: Job) -> None:
        heir.is_heir = False
        if self.queues.counts:
            self.queues.goes_on(queue_of(heir))
        if heir.lane:
            self.lanes.started(heir.lane)


def is_leaving(worker: Worker, job: Job) -> bool:
    """Whether the order to run a job, which the worker has in hand, has not left yet."""
    return job.lease is not None and not (job.lease.run or worker.adopted)
