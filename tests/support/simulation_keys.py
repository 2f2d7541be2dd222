"""What must be so of jobs with keys, whatever happens in a simulation.

The name of a key says in which states its jobs are unique, as all submits with one key say
the same.
"""

from __future__ import annotations

import re

from fake_pool import FakeWorker
from fake_store import FakeStore
from simulation_inputs import Broken

from jobd.daemon.assembly import Daemon
from jobd.model.job import Job
from jobd.model.messages import Refused, Submitted
from jobd.model.orders import Task
from jobd.model.states import ENDED, State

REPLACED = re.compile(r"replaced by job (\d+)$")


def key_of(job: Job | None) -> str:
    """Return a job's key, or ''."""
    return job.policy.key if job is not None and job.policy is not None else ""


class KeyTruth:
    """Who has had which key."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self._handed: set[int] = set()
        """Jobs that a worker has had: should they come back, they wait beside another."""

    def daemon_died(self) -> None:
        """Take note of what may have been in a worker's hands."""
        self._handed.update(n for lease in self._store.leased.values() for n, *_ in lease.attempts)

    def judge_row(self, row: Job) -> None:
        """Judge a row when it is stored: who was replaced was so by a job that is stored too."""
        found = REPLACED.match(row.cause)
        if row.state is not State.CANCELLED or found is None:
            return
        other = FakeStore.job(self._store, int(found[1]))
        if other is None or key_of(other) != key_of(row):
            raise Broken(f"job {row.id} was {row.cause}, which is {other}")

    def told(self, message: Submitted | Refused) -> None:
        """Judge an answer that names another job: that is durable."""
        number = message.first if isinstance(message, Submitted) else message.id
        if not key_of(FakeStore.job(self._store, number)):
            raise Broken(f"4: {message} is told, and job {number} has no key")

    def started(self, worker: FakeWorker, task: Task, running: dict[bytes, FakeWorker]) -> None:
        """Judge a start: of those that run one at a time, no other runs."""
        key = key_of(FakeStore.job(self._store, task.id))
        if not key.startswith("run"):
            return
        for other in running.values():
            ran = other.running
            if ran is None or ran.task.id == task.id:
                continue
            if key_of(FakeStore.job(self._store, ran.task.id)) == key:
                raise Broken(f"{worker} starts {task} while {other} runs {ran.task}, with {key}")

    def check(self, daemon: Daemon) -> None:
        """After each turn: no two jobs are live that must not be, nor do two wait."""
        jobs = daemon.scheduler.window.jobs
        found: dict[str, list[Job]] = {}
        spilled = [row for n, row in self._store.live.items() if n not in jobs]
        for job in [*jobs.values(), *spilled]:
            key = job.policy.key if job.policy is not None else ""
            if key and job.state < ENDED:
                found.setdefault(key, []).append(job)
                if job.state is State.RUNNING:
                    self._handed.add(job.id)
        for key, live in found.items():
            if key.startswith("live") and len(live) > 1:
                raise Broken(f"{[(j.id, j.state.name) for j in live]} are live, with {key}")
            waiting = [j for j in live if j.state <= State.QUEUED and j.id not in self._handed]
            if "wait" in key and len(waiting) > 1:
                raise Broken(f"{[(j.id, j.state.name) for j in waiting]} wait, with {key}")
