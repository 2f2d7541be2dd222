"""What the simulation knows of limits, and how it judges them.

A limit counts from the moment the order to run has left the daemon; nothing may be stopped
before, nothing may go on after, and only what had a limit ends by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from fake_pool import FakeWorker
from simulation_inputs import Broken

from jobd.daemon.assembly import Daemon
from jobd.model.job import Job
from jobd.model.orders import Order, Run, StopJob, Task
from jobd.model.states import Event
from jobd.scheduler import Scheduler, Worker, stops
from jobd.scheduler.clocks import Key


class TimeTruth:
    """When attempts were ordered and started."""

    def __init__(self) -> None:
        self.clock: Callable[[], int] = lambda: 0
        """Returns the time in µs, whoever is the daemon."""
        self._left: dict[tuple[str, int, int], int] = {}
        self._started: dict[str, int] = {}
        self.most = 0
        """How many jobs a worker may run; 0: any number."""
        self._served: Counter[str] = Counter()
        self._worn: set[str] = set()
        self._told_to_stop: dict[Key, int] = {}
        """When attempts were told to stop."""

    def started(self, worker: FakeWorker, task: Task) -> None:
        """A worker starts an attempt: it is not used up, nor worn by a job with limits."""
        if worker.uid in self._worn:
            raise Broken(f"{worker.uid} runs {task} after a job with limits")
        if task.limits is not None and task.limits.restricts:
            self._worn.add(worker.uid)
        self._served[worker.uid] += 1
        if 0 < self.most < self._served[worker.uid]:
            raise Broken(f"{worker.uid} runs more than {self.most} jobs: {task}")
        self._started[worker.uid] = self.clock()

    def killed(self, worker: FakeWorker, number: int, attempt: int, scheduler: Scheduler) -> None:
        """Judge a kill for an attempt's sake: its grace is over, as long as it was asked to be."""
        job = scheduler.workers[worker.uid].assigned[number]
        told = self._told_to_stop.get((worker.uid, number, attempt), self.clock())
        if worker.board[:2] != (number, attempt):
            raise Broken(f"{worker} is killed for {number}, which it does not run")
        if job.stop is Event.CANCEL and job.grace_us and self.clock() < told + job.grace_us:
            raise Broken(f"{worker} was told at {told}, and has no {job.grace_us} µs")

    def look(self, scheduler: Scheduler) -> None:
        """After each turn: take note of who was told to stop."""
        for uid, worker in scheduler.workers.items():
            for job in worker.assigned.values():
                if job.stop is not None:
                    self._told_to_stop.setdefault((uid, job.id, job.attempt), self.clock())

    def age_us(self, worker: FakeWorker) -> int:
        """Return how long a worker's attempt has been running."""
        return self.clock() - self._started.get(worker.uid, self.clock())

    def ordered(self, worker: FakeWorker, order: Order, daemon: Daemon) -> bool:
        """Judge an order; return whether it stops an attempt for its time limit."""
        if isinstance(order, Run):
            for task in order.tasks:
                self._left[worker.uid, task.id, task.attempt] = self.clock()
        if not isinstance(order, StopJob):
            return False
        hands = daemon.scheduler.workers.get(worker.uid)
        job = hands.assigned.get(order.id) if hands else None
        if job is None or job.stop is not Event.TIME_OUT:
            return False
        left = self._left.get((worker.uid, order.id, order.attempt))
        if left is None:  # on the other socket, and still on its way
            return True
        ran_us = self.clock() - left
        if job.policy is None or not 0 < job.policy.timeout * 1e6 <= ran_us + 1:
            raise Broken(f"{order} comes after {ran_us} µs, its limit is {job.policy}")
        return True


def judge_limit(row: Job) -> None:
    """Judge a job that timed out: it had that limit."""
    kind, _, _ = row.cause.partition(",")
    limits = {
        "hard": row.policy and row.policy.timeout,
        "soft": row.policy and row.policy.soft_timeout,
    }
    if not limits.get(kind) or row.error is None:
        raise Broken(f"job {row.id} timed out ({row.cause}, {row.error}), its limits are {limits}")


def _was_overtaken(job: Job, worker: Worker) -> bool:
    """Whether another order left while this job's waited for its commit: the worker is at that."""
    leases = [other.lease for other in worker.assigned.values()]
    return job.lease is not None and any(x and 0 < x.run < job.lease.run for x in leases)


def check_limits(scheduler: Scheduler) -> None:
    """After each turn: every hard limit of what has started runs, none is over, no other one is there."""
    due = dict(scheduler.stops.clocks.due)
    for worker in scheduler.workers.values():
        for place, job in enumerate(worker.assigned.values()):
            is_behind = (
                place > 0 and not worker.adopted
            )  # which of an orphan's runs is not known yet
            if is_behind and (worker.uid, job.id, job.attempt) in due:
                raise Broken(f"a limit runs for {job.id}, which has not started")
            at = due.pop((worker.uid, job.id, job.attempt), None)
            if at is not None and at <= scheduler._now:
                raise Broken(f"the limit of {job.id} was over at {at}, it is {scheduler._now}")
            limited = job.policy is not None and job.policy.timeout > 0
            has_left = job.lease is not None and job.lease.run > 0
            waits = is_behind or _was_overtaken(job, worker)
            if limited and has_left and not waits and at is None and job.stop is None:
                raise Broken(f"no limit runs for {job.id}, attempt {job.attempt}")
    if due:
        raise Broken(f"limits run for what nobody has in hand: {due}")
    for (uid, number, _), at in scheduler.stops.deadlines.items():
        stopped = scheduler.workers[uid].assigned.get(number)
        if stopped is not None and stopped.grace_us is not None:
            patience_us = max(stopped.grace_us, stops.KILL_AGAIN_US)
            if at > scheduler._now + patience_us:
                raise Broken(f"job {number} is killed in {at - scheduler._now} µs only")
