"""What workers report, and what becomes of them: those of this daemon, and those of a dead one."""

from __future__ import annotations

from dataclasses import dataclass

from jobd.model.item import FIRST_ITEM
from jobd.model.job import Job, Lease, Outcome
from jobd.model.orders import GiveBack, Outcomes, Produced, Recorded, Retire
from jobd.model.states import Event
from jobd.model.stretch import unpack
from jobd.scheduler.aftermath import Aftermath
from jobd.scheduler.dispatch import Dispatch
from jobd.scheduler.effects import Effects
from jobd.scheduler.keepers import Keepers
from jobd.scheduler.roster import Death, Phase, Worker
from jobd.scheduler.staff import Options, Staff
from jobd.scheduler.stops import Stops
from jobd.scheduler.supply import AHEAD_US


@dataclass
class Workforce:
    """All workers, and what each has in hand."""

    workers: dict[str, Worker]
    options: Options
    effects: Effects
    keepers: Keepers
    stops: Stops
    aftermath: Aftermath
    dispatch: Dispatch
    staff: Staff

    def is_behind(self, job: Job) -> bool:
        """Whether a job is in the hands of a worker that has not come to it yet."""
        worker = self.workers.get(job.lease.worker) if job.lease is not None else None
        return worker is not None and next(iter(worker.assigned.values()), job) is not job

    def worker_ready(self, uid: str, pid: int) -> None:
        """A worker has started and connected."""
        worker = self.workers.get(uid)
        if worker is None:
            return
        worker.pid = pid
        self.staff.started()
        if worker.phase is Phase.STARTING:
            worker.phase = Phase.READY
        elif worker.phase is Phase.RETIRING:  # it could not be told before
            self.effects.orders.append((uid, Retire()))

    def add_orphan(self, uid: str, pid: int) -> None:
        """At start: this worker of a dead daemon counts as one of ours until it has ended."""
        self.workers[uid] = Worker(uid, Phase.ORPHAN, pid, adopted=True)

    def resume(
        self, uid: str, job: Job, attempt: int, lease: Lease, kept: tuple[int, int] | None = None
    ) -> None:
        """At start: this stored job was leased to that orphan; ``kept`` are its items, if any."""
        self.keepers.window.recover(job)
        job.attempt = attempt - 1
        self.dispatch.resume(self.workers[uid], job, lease)
        self.keepers.streams.resume(uid, job, kept)
        if job.stop is not None:
            self.stops.stop(job, job.stop)

    def resume_stretch(self, uid: str, job: Job, lease: Lease) -> None:
        """At start: as ``resume``, of items of an array none of which has a row."""
        self.dispatch.resume(self.workers[uid], job, lease)

    def forget_attempt(self, lease: Lease) -> None:
        """At start: one of this lease's attempts is of no interest any more."""
        self.keepers.ledger.close_lease(lease)
        self.keepers.ledger.batch.urgent = True

    def handed_over(self, uid: str, pid: int, running: tuple[int, int], for_us: int = 0) -> None:
        """An orphan has sent its outcomes; it is in this attempt ``for_us`` now, the rest never started."""
        worker = self.workers.get(uid)
        if worker is None or worker.phase is not Phase.ORPHAN:
            return
        worker.pid = pid
        worker.phase = Phase.RETIRING
        self._isolate(worker, running)
        for job in list(worker.assigned.values()):
            if (job.id, job.attempt) != running:
                self.dispatch.take_back(worker, job)
            elif job.stop is None:
                self.stops.clocks.start(uid, job, self.dispatch.now - for_us)
        self.effects.orders.append((uid, Retire()))

    def outcomes(self, uid: str, seq: int, outcomes: list[Outcome]) -> None:
        """A worker hands in what came of attempts."""
        worker = self.workers.get(uid)
        if worker is None:  # its jobs are in other hands, or never were on record
            self.effects.orders.append((uid, Recorded([seq])))
            return
        batch = self.keepers.ledger.batch
        batch.recorded.append((uid, seq))
        batch.urgent = True
        assigned, take, ended = worker.assigned, self.dispatch.take, self.aftermath.ended
        learn = self.dispatch.supply.forecast.learn
        function, took_us, count = "", 0, 0
        for outcome in outcomes:
            job = assigned.get(outcome.id)
            if job is not None and job.attempt == outcome.attempt:
                if job.function != function or outcome.duration_us > AHEAD_US:
                    learn(function, took_us, count)
                    function, took_us, count = job.function, 0, 0
                took_us += outcome.duration_us
                count += outcome.count or 1
                if job.stretch is not None or outcome.count:
                    self._some_ended(worker, job, outcome)
                    assigned = worker.assigned
                    continue
                take(worker, job)
                ended(worker, job, outcome)
        learn(function, took_us, count)
        self.dispatch.goes_on(worker)
        worker.done += sum(outcome.count or 1 for outcome in outcomes)
        if 0 < self.options.max_jobs_per_worker <= worker.done:
            self.retire(uid)

    def _some_ended(self, worker: Worker, job: Job, outcome: Outcome) -> None:
        """The first item, or items, of a stretch have ended, or one by itself that may be of one."""
        arrays = self.keepers.arrays
        left = job.count
        if outcome.count and job.stretch is not None:
            count = min(outcome.count, left)
            arrays.returned(job, outcome)
            if count < left:
                self.dispatch.advance(worker, job, count)
            else:
                self.dispatch.take(worker, job)
                self.keepers.window.jobs.pop(job.id, None)
            return
        if outcome.count:  # it was of one until it came back that the others are not run here
            outcome.value = unpack(outcome.value or b"")[0]
        if left == 1:
            self.dispatch.take(worker, job)
            self.aftermath.ended(worker, job, outcome)
            return
        item = arrays.part(job)
        self.dispatch.advance(worker, job, 1)
        self.aftermath.ended(worker, item, outcome)

    def _isolate(self, worker: Worker, running: tuple[int, int]) -> None:
        """Have the item that a worker is in, of a stretch, be a job by itself; the rest is not run there."""
        number, attempt = running
        for job in list(worker.assigned.values()):
            if job.stretch is None or job.attempt != attempt:
                continue
            if job.id <= number < job.id + job.count:
                self.dispatch.cut(worker, job, number + 1)
                if number > job.id:  # what is before it has ended, and nobody knows how
                    self.dispatch.cut(worker, job, number)

    def produced(self, uid: str, report: Produced) -> None:
        """A worker hands in what a stream has produced."""
        worker = self.workers.get(uid)
        job = worker.assigned.get(report.id) if worker else None
        if job is None or job.attempt != report.attempt or job.void:
            self.keepers.streams.close(
                uid, report.id, report.attempt
            )  # nobody was promised anything of it
        else:
            self.keepers.streams.produced(uid, job, report.first, report.values)

    def given_back(
        self, uid: str, attempts: list[tuple[int, int]], read: int = 0, upto: int = 0
    ) -> None:
        """A worker gives back what it has not started, and the orders that it has not read."""
        worker = self.workers.get(uid)
        if worker is None:
            return
        unread = [
            (job.id, job.attempt)
            for job in worker.assigned.values()
            if job.lease is not None and read < job.lease.run <= upto
        ]
        for number, attempt in attempts + unread:
            job = worker.assigned.get(number)
            if job is not None and job.attempt == attempt:
                self.dispatch.take_back(worker, job)
            elif number >= FIRST_ITEM:
                self._cut(worker, number, attempt)
        self.dispatch.begins_head(worker)

    def _cut(self, worker: Worker, number: int, attempt: int) -> None:
        """A worker goes on with a stretch up to this item, which it gives back with those behind it."""
        for job in worker.assigned.values():  # what came before it may still be on its way to us
            stretch = job.stretch
            is_its = stretch is not None and stretch.first <= number < stretch.behind
            if is_its and job.attempt == attempt:
                self.dispatch.cut(worker, job, number)
                return

    def leaves(self, uid: str, attempts: list[tuple[int, int]]) -> None:
        """A worker is not what it was, and ends; it gives back what it has not started."""
        self.given_back(uid, attempts)
        worker = self.workers.get(uid)
        if worker is not None and worker.phase is Phase.READY:
            worker.phase = Phase.RETIRING
            # It may be a while until it reads what is still on its way to it.
            self.effects.orders.append((uid, GiveBack(worker.sent)))

    def left(self, uid: str, reports: list[Outcomes | Produced]) -> None:
        """A worker that is dead had finished this; some of it may be known."""
        for report in reports:
            if isinstance(report, Outcomes):
                self.outcomes(uid, report.seq, report.outcomes)
            else:
                self.produced(uid, report)

    def worker_died(self, uid: str, death: Death) -> None:
        """A worker is seen dead, and all that had ended in it has been taken in."""
        worker = self.workers.pop(uid, None)
        if worker is None:
            return
        self.stops.forget(uid)
        self.staff.died(worker, self.dispatch.now)
        if not death.unknown:
            self._isolate(worker, death.running)
        for job in list(worker.assigned.values()):
            if death.unknown and job.count > 1:
                # Most likely the first of them ran; the others are not to suffer for it.
                self.dispatch.cut(worker, job, job.id + 1)
            if death.unknown or (job.id, job.attempt) == death.running:
                self.dispatch.take(worker, job)
                self.aftermath.outlived(job, death)
            else:
                self.dispatch.take_back(worker, job)

    def retire(self, uid: str) -> None:
        """Replace a worker as soon as its job is done."""
        worker = self.workers.get(uid)
        if worker is not None and worker.phase is Phase.READY:
            worker.phase = Phase.RETIRING
            self.effects.orders += [(uid, GiveBack(worker.sent)), (uid, Retire())]

    def retire_all(self) -> None:
        """Replace every worker as soon as its job is done; one that is missing is started at once."""
        self.staff.start_over()
        for worker in self.workers.values():
            if worker.phase in (Phase.READY, Phase.STARTING):
                worker.phase = Phase.RETIRING
                give_back = GiveBack(worker.sent)
                self.effects.orders += [(worker.uid, give_back), (worker.uid, Retire())]

    @property
    def failed_starts(self) -> int:
        """How many workers in a row have died without having worked."""
        return self.staff.failed_starts

    def stop_running(self) -> None:
        """Stop what still runs; it will run again at the next start."""
        for worker in self.workers.values():
            for job in worker.assigned.values():
                if job.count > 1:
                    self.effects.orders.append((worker.uid, GiveBack(worker.sent)))
                else:
                    self.stops.stop(job, Event.PUT_BACK)
            if not worker.assigned:  # it was told to end, and does not hear
                self.stops.expect_end(worker.uid)

    def kill_all(self) -> None:
        """End every worker at once; what it ran goes back into the queue."""
        for uid in self.workers:
            self.kill(uid)

    def kill(self, uid: str) -> None:
        """End a worker at once; what it has in hand goes back into the queue without blame."""
        for job in self.workers[uid].assigned.values():
            job.stop = job.stop or Event.PUT_BACK
        self.effects.kill.append((uid, 0, 0))

    def waits_of_all(self) -> list[list[int]]:
        """Return what each job that runs waits for, as far as that is known; none if one does not wait."""
        busy = [worker for worker in self.workers.values() if worker.assigned]
        if any(worker.waiting is None for worker in busy):
            return []
        return [worker.awaited for worker in busy]
