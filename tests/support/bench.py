"""A scheduler with one worker and a store of dictionaries, for tests of its rules."""

from __future__ import annotations

from itertools import count

from fake_store import FakeStore

from jobd.model.job import ErrorInfo, Job, Outcome, Raised, Verdict
from jobd.model.messages import Submit
from jobd.model.options import Layers, parse_options
from jobd.scheduler import Death, Options, Scheduler, timers

WALL = 10**15
KEY_ERROR = Raised(["KeyError", "LookupError", "Exception"])


class Bench:
    """A scheduler with one worker, its store, and a clock."""

    def __init__(self, store: FakeStore | None = None) -> None:
        self.store = store or FakeStore()
        leases = self.store.leases()
        self.scheduler = Scheduler(
            "boot",
            Options(workers=1),
            next_id=self.store.next_id(),
            counts=self.store.counts(),
            next_lease=len(leases) + 1,
        )
        self.now_us = 1_000_000
        self.jump_us = 0
        self.told: list[object] = []
        self.worker = ""
        self._seqs = count(1)
        self.turn()
        self.scheduler.workforce.worker_ready(self.worker, 100)
        self.turn()

    def turn(self, after_s: float = 0.0) -> None:
        """Let time pass, do what the clock asks for, decide, and store it."""
        self.now_us += round(after_s * 1e6)
        scheduler = self.scheduler
        scheduler.begin(self.now_us, self.wall)
        heap = scheduler.timers
        while heap.wants_refill():
            heap.refill(self.store.due(heap.horizon, timers.REFILL), scheduler.ledger.unsettled())
        due = scheduler.due()
        stored = self.store.own_rows(due)
        for number in due:
            job = scheduler.window.jobs.get(number) or stored.get(number)
            if job is not None:
                scheduler.control.fire(job)
        for _ in range(3):
            if scheduler.wants_refill():
                window, high = scheduler.window, scheduler.ledger.stored_high
                scheduler.refill(self.store.backlog(window.cursor, high, 100))
            effects = scheduler.take_effects()
            self.worker = (effects.spawn or [self.worker])[-1]
            self.told += [reply for _, reply in effects.replies]
            if scheduler.ledger.batch:
                self.store.write(scheduler.take_batch())
                self.store.commit()
                scheduler.committed()

    @property
    def wall(self) -> int:
        """What the wall clock says."""
        return WALL + self.now_us + self.jump_us

    def submit(self, jobs: int = 1, **options: object) -> int:
        """Submit jobs with these options; return the id of the first."""
        policy = Layers().policy("m:f", parse_options(options))
        number = self.scheduler.ledger.next_id
        args = [b"%d" % n for n in range(jobs)]
        key = b"session." + number.to_bytes(8, "big")
        self.scheduler.intake.submit(
            b"peer", Submit(1, key, "m:f", args, [(0, ())], watch=True), policy
        )
        self.turn()
        return number

    def end(
        self, number: int, raised: Raised | None = KEY_ERROR, *, notes: tuple[str, ...] = ()
    ) -> None:
        """Let the attempt that runs raise, or return."""
        job = self.scheduler.workers[self.worker].assigned[number]
        verdict = Verdict.RETURNED if raised is None else Verdict.RAISED
        error = ErrorInfo("KeyError", "no", "") if raised else None
        value = b"j1" if raised is None else None
        outcome = Outcome(number, job.attempt, verdict, value, error, 5, 100, raised=raised)
        outcome.notes = notes
        self.scheduler.workforce.outcomes(self.worker, next(self._seqs), [outcome])
        self.turn()

    def die(self) -> None:
        """Let the worker die in its job, and hire the next one."""
        (job,) = self.scheduler.workers[self.worker].assigned.values()
        self.scheduler.workforce.worker_died(self.worker, Death("SIGSEGV", (job.id, job.attempt)))
        self.turn(1.0)
        self.scheduler.workforce.worker_ready(self.worker, 101)
        self.turn()

    def row(self, number: int) -> Job:
        """Return a job as it is stored."""
        row = self.store.job(number)
        assert row is not None
        return row

    def runs(self, number: int) -> bool:
        """Whether the worker has this job."""
        return number in self.scheduler.workers[self.worker].assigned
