"""Jobs that wait for others, and lend their slots meanwhile.

Such a job does not count: another worker is started if none is idle, and what its own had
been handed ahead is asked back.  Those that it waits for go before all others: else a
thousand jobs that wait for one each would all begin, and wait, before the first is served.
A job that goes on does so at once, so that more may run than there are slots: then nothing
more is started until there are no more (but for short jobs that were handed ahead before).
"""

from __future__ import annotations

from dataclasses import dataclass

from jobd.model.errors import JobdError
from jobd.model.job import Job
from jobd.model.lane import gates_of
from jobd.model.orders import Lent
from jobd.model.states import State
from jobd.scheduler import lending
from jobd.scheduler.dispatch import Dispatch
from jobd.scheduler.effects import Effects
from jobd.scheduler.keepers import Keepers
from jobd.scheduler.queues import Queues, queue_of
from jobd.scheduler.roster import Worker


@dataclass
class Loans:
    """Who waits, and who gets the slot; ``max_lent`` slots are lent at most."""

    workers: dict[str, Worker]
    max_lent: int
    effects: Effects
    queues: Queues
    keepers: Keepers
    dispatch: Dispatch

    def waits(self, uid: str, number: int, attempt: int, awaited: list[int]) -> None:
        """A job waits for others, which go first now, and lends its slot, if it may."""
        worker = self.workers.get(uid)
        job = worker.assigned.get(number) if worker is not None else None
        # An attempt that is over has no slot to lend: should it wait for ever, nobody could run.
        error: JobdError | None = JobdError("this attempt of the job does not count any more")
        if worker is not None and job is not None and job.attempt == attempt:
            error = self._lend(worker, job, awaited)
        answer = Lent(number, error.error, error.message, error.hint) if error else Lent(number)
        self.effects.orders.append((uid, answer))

    def _lend(self, worker: Worker, job: Job, awaited: list[int]) -> JobdError | None:
        """Lend the slot of a job that waits, or return why not."""
        workers, inputs = list(self.workers.values()), self.keepers.blocked.missing
        # One that counts already waits for others too, or for fewer.
        most = self.max_lent + (worker.waiting is job)
        known = lending.Known(inputs, self.held_up)
        error = lending.refusal(workers, worker, job.id, awaited, known, most)
        if error is not None:
            return error
        if worker.waiting is not job:
            self.dispatch.places.lends(worker, job)
        worker.waiting, worker.awaited = job, lending.with_inputs(awaited, inputs)
        worker.stall_at = self.dispatch.now
        for other in worker.awaited:
            self.keepers.window.hasten(other)
        return None

    def goes_on(self, uid: str, number: int, attempt: int) -> None:
        """A job waits no longer."""
        worker = self.workers.get(uid)
        if worker is None or worker.waiting is None:
            return
        if (worker.waiting.id, worker.waiting.attempt) == (number, attempt):
            if self.queues.counts:
                self.queues.goes_on(queue_of(worker.waiting))
            worker.waiting = None

    def held_up(self, number: int) -> dict[str, list[int]]:
        """Return the closed gates of a job that has not started, with the jobs that run with each."""
        job = self.keepers.window.jobs.get(number)
        if job is None or not job.lane or job.state >= State.RUNNING:
            return {}
        closed = self.keepers.window.lanes.closed_gates(job.lane)
        found: dict[str, list[int]] = {name: [] for name in closed}
        for worker in self.workers.values() if closed else ():
            for other in worker.assigned.values():
                for name, _ in gates_of(other.lane):
                    if name in found:
                        found[name].append(other.id)
        return found
