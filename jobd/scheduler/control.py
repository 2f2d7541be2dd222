"""What is done to jobs that have come in: by whoever asks for it, and by the clock.

Each takes a job that is in memory, ``fire`` also one as it is stored.  What is returned says in
a few words what has come of it, to be told once that is durable.
"""

from __future__ import annotations

from jobd.model.job import Job
from jobd.model.states import ENDED, Event, State, transition
from jobd.scheduler.aftermath import Aftermath, keep_attempt
from jobd.scheduler.keepers import Keepers
from jobd.scheduler.stops import Stops
from jobd.scheduler.succession import Succession
from jobd.scheduler.timers import expires_at


class Control:
    """Cancels, retries, holds and releases jobs, and fires those whose time has come."""

    def __init__(
        self, keepers: Keepers, stops: Stops, succession: Succession, aftermath: Aftermath
    ) -> None:
        self._ledger = keepers.ledger
        self._window = keepers.window
        self._timers = keepers.timers
        self._blocked = keepers.blocked
        self._streams = keepers.streams
        self._stops = stops
        self._succession = succession
        self._aftermath = aftermath

    def cancel(
        self, job: Job, reason: str, *, only_waiting: bool = False, grace_us: int | None = None
    ) -> str:
        """Cancel a job that is in memory; return what is answered once that is stored.

        With ``only_waiting`` one that a worker has in hand, or ahead, goes on.  ``grace_us`` is
        the time between TERM and KILL, instead of the job's own; a later cancel can shorten it.
        """
        if job.state >= ENDED:
            if self._succession.confirm(job.id) is None:
                return "already finished"
            job.cause = reason or job.cause
            self._ledger.store(job)
            return "cancelled"
        if job.state is State.RUNNING and only_waiting:
            return "is running"
        if reason or job.stop is not Event.CANCEL:  # else why it was cancelled first is kept
            job.cause = reason
        if job.state is State.BLOCKED:
            self._blocked.leave(job)
        if job.state <= State.QUEUED:
            self._aftermath.finish(job, Event.CANCEL)
            return "cancelled"
        if grace_us is not None:
            self._stops.set_grace(job, grace_us)
        self._stops.stop(job, Event.CANCEL)
        return "stopping"

    def retry(self, job: Job) -> str:
        """Queue a job again that has ended without a result; return the answer."""
        if job.state < ENDED or self.is_unsettled(job.id):
            return "has not ended"
        if job.state is State.SUCCEEDED:
            return "already succeeded"
        self._blocked.restarted(job.id)
        if job.started_at or job.state not in (State.CANCELLED, State.EXPIRED, State.ABORTED):
            # Over before it started, it has no attempt to keep; its number may be another's.
            keep_attempt(job, job.state)
        job.state = transition(job.state, Event.RETRY)
        job.crashes, job.failures, job.cause, job.stop, job.grace_us = 0, 0, "", None, None
        job.error, job.value, job.log, job.usage, job.notes = None, None, None, None, ()
        job.started_at = job.ended_at = 0
        self._streams.restart(job.id)
        self._blocked.ready(job, at_once=True)  # whatever its time was: somebody wants it now
        return "queued again"

    def hold(self, job: Job) -> str:
        """Set a job aside that is in memory; return the answer."""
        if (answer := self._over(job)) is not None:
            return answer
        if job.state is State.RUNNING:
            return "is running"
        if job.state is not State.HELD:
            self._blocked.hold(job)
        return "held"

    def release(self, job: Job) -> str:
        """Let a job go that is in memory; return the answer."""
        if (answer := self._over(job)) is not None:
            return answer
        if job.state is not State.HELD:
            return "is running" if job.state is State.RUNNING else "is not held"
        if 0 < job.due_at <= self._timers.wall:
            self.fire(job)
        if job.state >= ENDED:
            return "has expired"
        self._blocked.let_go(job)
        return "released"

    def _over(self, job: Job) -> str | None:
        """Return the answer for a job that is over, or about to be replaced; None: it is neither."""
        if job.id in self._succession.pending:
            return job.cause
        return "already finished" if job.state >= ENDED else None

    def fire(self, job: Job) -> None:
        """Do to a job, in memory or as it is stored, what its time has come for, if it has."""
        if not 0 < job.due_at <= self._timers.wall or job.state is State.RUNNING:
            return
        job = self._window.load(job)
        over_at = expires_at(job)
        can_wait = job.state in (State.SCHEDULED, State.HELD)
        if not can_wait or 0 < over_at <= self._timers.wall:
            self._expire(job)
            return
        job.due_at = over_at
        if over_at:
            self._timers.add(job)
        if job.state is State.HELD:
            self._ledger.store(job)
        else:
            job.state = transition(job.state, Event.DUE)
            self._blocked.ready(job)

    def _expire(self, job: Job) -> None:
        if job.state is State.BLOCKED:
            self._blocked.leave(job)
        self._aftermath.finish(job, Event.EXPIRE)

    def revive(self, job: Job, *, is_waiting: bool) -> str:
        """Open another round of a job that never ran, because of others; return the answer."""
        if self.is_unsettled(job.id):
            return "has not ended"
        self._blocked.revive(job, is_waiting=is_waiting)
        return "queued again"

    def is_unsettled(self, number: int) -> bool:
        """Whether what has become of this job is not durable, or not everybody was told."""
        return self._ledger.is_unsettled(number) or self._blocked.is_settling(number)

    def consume(self, job: Job, tombstone: bytes) -> None:
        """Replace the value of a job that has succeeded; it is in memory."""
        job.value = tombstone
        self._ledger.store(job)
