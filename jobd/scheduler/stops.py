"""Ending attempts that run: TERM first, KILL when that has not helped for a while.

A worker gets an order to stop a job (``orders``), and a deadline; at that the worker is
killed (``kill``).  An attempt is told from the next by its number, so that a stop which
comes too late hits nobody.
"""

from __future__ import annotations

from jobd.model.job import Job
from jobd.model.orders import Order, Retire, StopJob
from jobd.model.states import Event
from jobd.scheduler.clocks import Clocks, Key
from jobd.scheduler.ledger import Ledger
from jobd.scheduler.roster import Phase, Worker
from jobd.scheduler.streams import Stream, Streams

KILL_AGAIN_US = 100_000
"""When to try again to kill a worker: another job of it ran, or it takes its time to die."""


class Stops:
    """The attempts that are being stopped, and those that have to be when their time is over."""

    def __init__(
        self, ledger: Ledger, streams: Streams, workers: dict[str, Worker], kill_grace_us: int
    ) -> None:
        """``kill_grace_us``: between TERM and KILL for jobs that have no such time of their own."""
        self.now = 0
        self.orders: list[tuple[str, Order]] = []
        self.kill: list[Key] = []
        """Workers to kill, each with the attempt for whose sake; (0, 0): whatever they run."""
        self.clocks = Clocks()
        self.deadlines: dict[Key, int] = {}
        """When the KILL comes."""
        self.closing: dict[Key, int] = {}
        """Streams that nobody consumes any more: until when they may take to come to their next item."""
        self._ledger = ledger
        self._streams = streams
        self._workers = workers
        self._kill_grace_us = kill_grace_us

    @property
    def is_used(self) -> bool:
        """Whether any attempt is being stopped, or will have to be."""
        return bool(self.deadlines or self.closing or self.clocks.due)

    def times(self) -> list[int]:
        """Return when there is something to do without an event."""
        return [*self.deadlines.values(), *self.closing.values(), *self.clocks.due.values()]

    def stop(self, job: Job, event: Event) -> None:
        """Have a running job stopped; a cancel outranks a time limit, and that a putting back."""
        if job.lease is None:
            return
        if event is Event.CANCEL or job.stop in (None, Event.PUT_BACK):
            job.stop = event
        if event is not Event.PUT_BACK:
            job.stretch = None  # an item that is stopped is a job of its own
            self._ledger.store(job)  # so that a crash of the daemon does not lose the stop
        key = (job.lease.worker, job.id, job.attempt)
        kill_at = self.now + self._grace_us(job)
        if key in self.deadlines:
            self.deadlines[key] = min(kill_at, self.deadlines[key])
        else:
            self.deadlines[key] = kill_at
            self.orders += [(key[0], StopJob(job.id, job.attempt)), (key[0], Retire())]
            worker = self._workers.get(key[0])
            if worker is not None and worker.phase is Phase.READY:
                worker.phase = Phase.RETIRING  # what a stopped job leaves behind is unknown

    def set_grace(self, job: Job, grace_us: int) -> None:
        """Set the grace of a job that is to be stopped; one that is being stopped keeps a shorter one."""
        job.grace_us = grace_us if job.stop is None else min(grace_us, self._grace_us(job))

    def close(self, stream: Stream, job: Job | None) -> None:
        """End a stream, whose job this is: at its next item, or after a while whatever it is at."""
        if job is None or job.lease is None or job.stop is not None:
            return
        job.stop, job.cause = Event.CANCEL, "its last consumer is gone"
        self._ledger.store(job)
        key = (stream.worker, job.id, job.attempt)
        self.closing[key] = self.now + self._kill_grace_us
        self._streams.close(*key)

    def expect_end(self, uid: str) -> None:
        """A worker that has nothing in hand was told to end; it may not hear."""
        self.deadlines[uid, 0, 0] = self.now + self._kill_grace_us

    def over(self, uid: str, job: Job) -> None:
        """An attempt that was being stopped is no longer in this worker's hands."""
        key = (uid, job.id, job.attempt)
        self.deadlines.pop(key, None)
        self.closing.pop(key, None)

    def forget(self, uid: str) -> None:
        """This worker is dead."""
        for key in [key for key in self.deadlines if key[0] == uid]:
            del self.deadlines[key]
        self.orders = [order for order in self.orders if order[0] != uid]

    def stop_late(self) -> None:
        """Stop what has taken too long, and kill what has not stopped."""
        now = self.now
        for key in [key for key, at in self.closing.items() if now >= at]:
            del self.closing[key]
            self.stop(self._job(key), Event.CANCEL)
        for key in self.clocks.take_over(now):
            job = self._job(key)
            if job.stop is None:  # else it is being stopped already, for another reason
                self.stop(job, Event.TIME_OUT)
        for key in [key for key, at in self.deadlines.items() if now >= at]:
            self.deadlines[key] = now + KILL_AGAIN_US
            self.kill.append(key)

    def _job(self, key: Key) -> Job:
        uid, number, attempt = key
        job = self._workers[uid].assigned[number]
        assert job.attempt == attempt
        return job

    def _grace_us(self, job: Job) -> int:
        """Return how long after a TERM the KILL comes."""
        if job.grace_us is not None:
            return job.grace_us
        if job.policy is None or job.policy.kill_grace is None:
            return self._kill_grace_us
        return round(job.policy.kill_grace * 1e6)
