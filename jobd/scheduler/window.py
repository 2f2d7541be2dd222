"""The window: the jobs in memory, and the place of each that is ready, among the plain ones or in its lane."""

from __future__ import annotations

from collections.abc import Callable

from jobd.model.item import FIRST_ITEM
from jobd.model.job import Job
from jobd.model.states import QUEUED
from jobd.scheduler.lanes import Lanes
from jobd.scheduler.plain import PlainQueue
from jobd.scheduler.queues import Queues


class Window(PlainQueue):
    """All jobs in memory; those that are not plain wait in ``lanes``."""

    def __init__(
        self,
        queues: Queues,
        spilled: int,
        is_awaited: Callable[[int], bool] = lambda _: False,
        *,
        has_stored: bool = False,
    ) -> None:
        """``has_stored``: there may be lanes in the store already; for the others see ``PlainQueue``."""
        super().__init__(spilled, is_awaited)
        self.take_item: Callable[[Job], None]
        """Told of items of arrays that are to wait again, and of arrays: these stand in line for them."""
        self.lanes = Lanes(queues, self, has_stored=has_stored)

    def push(self, job: Job) -> None:
        """Make a job ready to run, in its place among the others."""
        if job.id >= FIRST_ITEM or job.array is not None:
            self.take_item(job)
        else:
            self.line_up(job)

    def line_up(self, job: Job) -> None:
        """Let a job, or an array, stand in line."""
        if not job.lane:
            super().push(job)
            return
        self.jobs[job.id] = job
        self.lanes.push(job)
        if self.is_awaited(job.id):
            self.lanes.hasten(job)

    def hasten(self, number: int) -> None:
        """Let a job go before all others, if it is ready."""
        job = self.jobs.get(number)
        if job is None or job.state is not QUEUED:
            return
        if job.lane:
            self.lanes.hasten(job)
        else:
            self._first.append(number)

    def has_room(self, job: Job) -> bool:
        """Whether a job that is ready may be in memory; else it is left to the store."""
        if job.array is not None or job.id >= FIRST_ITEM:
            return True
        return self.lanes.has_room(job) if job.lane else not self.is_full

    def load(self, job: Job) -> Job:
        """Bring one stored job into memory, to change it; returns the one that is there, if any.

        It still counts as spilled, so that its parcel is loaded some time too, and can end.
        """
        present = self.jobs.get(job.id)
        if present is not None:
            return present
        self.recover(job)
        if job.state is QUEUED:
            self.push(job)
        return job

    def spill(self, job: Job) -> None:
        """Leave a job that is queued again to the store: there is no room for it."""
        if job.lane:
            self.unload(job)
            self.lanes.stock.spill(job)
        else:
            super().spill(job)
