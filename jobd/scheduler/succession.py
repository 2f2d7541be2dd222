"""Jobs that are cancelled because a new one with the same key takes their place.

The end of the old job and the new one are stored by the same commit.  Until that is
durable the end is not for good: if the commit fails, the new job never was, and the old
one waits again as it did.  So for those who come after it it is what it was until then.
"""

from __future__ import annotations

import msgspec

from jobd.model.job import Job
from jobd.model.states import Event, State
from jobd.scheduler.aftermath import Aftermath
from jobd.scheduler.batch import Keyed, Submission
from jobd.scheduler.blocked import Blocked
from jobd.scheduler.ledger import Ledger
from jobd.scheduler.timers import Timers


class Replaced(msgspec.Struct):
    """A job whose end is not for good yet, and what it was before."""

    job: Job
    state: State
    due_at: int
    cause: str


class Succession:
    """The jobs that are being replaced."""

    def __init__(
        self, ledger: Ledger, blocked: Blocked, timers: Timers, aftermath: Aftermath
    ) -> None:
        self.pending: dict[int, Replaced] = {}
        self._ledger = ledger
        self._blocked = blocked
        self._timers = timers
        self._aftermath = aftermath

    def replace(self, job: Job, submission: Submission) -> None:
        """Cancel a job in memory, which waits, as soon as this submission is durable."""
        self.pending[job.id] = Replaced(job, job.state, job.due_at, job.cause)
        assert submission.keyed is not None
        submission.keyed.replaces.append(job.id)
        if job.state is State.BLOCKED:
            self._blocked.leave(job)
        job.cause = f"replaced by job {submission.first}"
        self._aftermath.record(job, Event.CANCEL)

    def confirm(self, number: int) -> Job | None:
        """This end is for good, whatever becomes of the successor; returns the job, if it is such a one."""
        replaced = self.pending.pop(number, None)
        if replaced is None:
            return None
        self._aftermath.tell(replaced.job)
        return replaced.job

    def kept(self, successor: Keyed) -> None:
        """The submission is durable, and with it the ends of those that it replaces."""
        for number in successor.replaces:
            self.confirm(number)

    def lost(self, successor: Keyed) -> None:
        """The submission has failed: those that it was to replace are as they were."""
        for number in successor.replaces:
            replaced = self.pending.pop(number, None)
            if replaced is not None and not replaced.job.void:
                self._restore(replaced)

    def _restore(self, replaced: Replaced) -> None:
        job = replaced.job
        job.state, job.due_at, job.cause = replaced.state, replaced.due_at, replaced.cause
        job.ended_at = 0
        self._ledger.store(job)
        if job.due_at:
            self._timers.add(job)
        if job.state is State.QUEUED:
            self._blocked.ready(job, at_once=True)
        elif job.state is State.BLOCKED:
            self._blocked.restore(job)

    def is_at(self, key: str) -> bool:
        """Whether a job with this key is being replaced."""
        return any(
            replaced.job.policy is not None and replaced.job.policy.key == key
            for replaced in self.pending.values()
        )
