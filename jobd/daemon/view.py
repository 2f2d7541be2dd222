"""Jobs as they are at this moment: in memory or else in the store, and which of them run."""

from __future__ import annotations

from dataclasses import dataclass

from jobd.model.job import Job
from jobd.model.states import ENDED, State
from jobd.pool.scoreboard import Now
from jobd.pool.supervisor import Pool
from jobd.scheduler import Scheduler
from jobd.store import Store


@dataclass(frozen=True)
class View:
    """Looks, and changes nothing."""

    scheduler: Scheduler
    store: Store
    pool: Pool

    def job(self, number: int) -> Job | None:
        """Return a job as it is in memory, or else as it is stored."""
        return self.scheduler.window.jobs.get(number) or self.store.job(number)

    def state(self, job: Job) -> State:
        """Return the state of a job in memory; one whose end is not for good yet is what it was."""
        if job.array is not None and job.state >= ENDED and job.id in self.scheduler.window.jobs:
            return State.QUEUED  # not all its values can be read before that is durable
        replaced = self.scheduler.succession.pending.get(job.id)
        return job.state if replaced is None else replaced.state

    def running(self) -> dict[int, tuple[str, Now]]:
        """Return the jobs that run at this moment, as (worker, what it is at)."""
        found = {}
        for worker in self.scheduler.workers.values():
            if worker.assigned:
                now = self.pool.now(worker.uid)
                job = worker.assigned.get(now.job) or worker.stretch_of(now.job)
                if job is not None and job.attempt == now.attempt:
                    found[now.job] = (worker.uid, now)
        return found
