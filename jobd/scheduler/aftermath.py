"""What follows an attempt: the job's end, or another one.

Whatever has become of an attempt (it has returned, raised, was stopped, or its worker
is dead) ends here in one of two ways: ``finish`` records the job's end, ``put_back``
queues the job again, at once or when its time comes.
"""

from __future__ import annotations

from jobd.model.durations import written_size
from jobd.model.item import FIRST_ITEM
from jobd.model.job import Attempt, ErrorInfo, Job, LogSpan, Outcome, Raised, Verdict
from jobd.model.states import SUCCEED, Event, State, transition
from jobd.scheduler import again
from jobd.scheduler.again import Then
from jobd.scheduler.clocks import cause_of
from jobd.scheduler.keepers import Keepers
from jobd.scheduler.roster import Death, Worker

LAST_WORDS = "Fatal Python error: "
"""How the faulthandler begins."""


class Aftermath:
    """Decides what follows, and has it stored."""

    def __init__(self, keepers: Keepers, max_crashes: int) -> None:
        """``max_crashes`` is the budget of jobs that have none of their own."""
        self._ledger = keepers.ledger
        self._window = keepers.window
        self._timers = keepers.timers
        self._blocked = keepers.blocked
        self._streams = keepers.streams
        self._arrays = keepers.arrays
        self._max_crashes = max_crashes

    def ended(self, worker: Worker, job: Job, outcome: Outcome) -> None:
        """The worker has handed in what came of the attempt."""
        job.stretch = None
        job.pid = worker.pid
        job.started_at = outcome.started_at
        job.ended_at = outcome.started_at + outcome.duration_us
        job.log, job.usage, job.notes = outcome.log, outcome.usage, outcome.notes
        if outcome.verdict == Verdict.RETURNED:
            job.value = outcome.value
            self.finish(job, SUCCEED)
        elif job.stop is Event.PUT_BACK:
            self.put_back(job)
        elif job.stop is Event.CANCEL:
            self.finish(job, Event.CANCEL)
        elif job.stop is Event.TIME_OUT or (
            outcome.verdict == Verdict.TIMED_OUT and job.policy is not None
        ):
            job.error = outcome.error
            self._timed_out(job, soft=job.stop is None)
        elif outcome.verdict in _HAS_RAISED:
            job.error = outcome.error
            self._raised(job, outcome.raised or Raised([]))
        elif worker.adopted:  # the daemon that has died had it stopped, and could not record that
            self.put_back(job)
        else:
            self._crashed(job, "SIGTERM", "")

    def _raised(self, job: Job, raised: Raised) -> None:
        """An attempt has failed by itself, or wants to be followed by something else than an end."""
        step = again.after(job, raised)
        if step.then is Then.CANCEL:
            job.error, job.cause = None, raised.why
            self.finish(job, Event.CANCEL)
        elif step.then is Then.FAIL or self._streams.has_items(job.id):
            job.failures += 1
            self.finish(job, Event.FAIL)
        elif step.then is Then.SNOOZE:
            job.error, job.cause = None, raised.why
            self._again(job, State.SCHEDULED, step.delay_us)
        else:
            job.failures += 1
            self._again(job, State.FAILED, step.delay_us)

    def _again(self, job: Job, state: State, delay_us: int) -> None:
        """Keep an attempt on record, in this state, and let another one follow."""
        keep_attempt(job, state)
        # It has started, so it does not expire any more.
        job.due_at = self._timers.wall + delay_us if delay_us > 0 else 0
        self.put_back(job, waits=delay_us > 0)

    def outlived(self, job: Job, death: Death) -> None:
        """The worker has died in this attempt, or may have."""
        job.stretch = None
        job.started_at = death.started_at
        job.ended_at = self._timers.wall
        job.log = LogSpan(*death.log) if death.log else None
        job.usage = death.usage
        if job.stop is Event.CANCEL:
            self.finish(job, Event.CANCEL)
        elif job.stop is Event.PUT_BACK:
            self.put_back(job)
        elif job.stop is Event.TIME_OUT:
            self._timed_out(job, soft=False)
        else:
            self._crashed(job, death_of(job, death), death.tail)

    def _crashed(self, job: Job, cause: str, tail: str) -> None:
        job.crashes += 1
        job.cause = cause
        job.error = ErrorInfo("", f"its worker died: {cause}", stack_of(tail))
        budget = None if job.policy is None else job.policy.max_crashes
        if budget is None:
            budget = self._max_crashes
        if job.crashes > budget or self._streams.has_items(job.id):
            self.finish(job, Event.CRASH)
        else:
            self._again(job, State.CRASHED, 0)

    def _timed_out(self, job: Job, *, soft: bool) -> None:
        """An attempt took longer than it may."""
        job.cause = cause_of(job.policy, soft=soft)
        if job.error is None:
            job.error = ErrorInfo("jobd.TimeLimitExceeded", job.cause, "")
        step = again.after(job, again.TIMED_OUT)
        job.failures += 1
        if step.then is Then.FAIL or self._streams.has_items(job.id):
            self.finish(job, Event.TIME_OUT)
        else:
            self._again(job, State.TIMED_OUT, step.delay_us)

    def finish(self, job: Job, event: Event) -> None:
        """Record a job's end, and have those told who come after it."""
        self.record(job, event)
        self.tell(job)

    def record(self, job: Job, event: Event) -> None:
        """Record a job's end."""
        job.state = transition(job.state, event)
        job.due_at = 0
        if not job.ended_at:
            job.ended_at = self._timers.wall
        if event is SUCCEED or event is Event.FAIL:
            job.cause = ""
        self._ledger.store(job)
        if job.id >= FIRST_ITEM:
            self._arrays.ended(job)

    def tell(self, job: Job) -> None:
        """Have those told who come after a job that has ended."""
        if self._blocked.spilled or self._blocked.missing:
            self._blocked.ended(job)

    def put_back(self, job: Job, *, waits: bool = False) -> None:
        """Queue a job again whose attempt came to nothing, or let it wait until ``due_at``.

        Its number keeps rising.
        """
        if job.stop is Event.CANCEL:
            self.finish(job, Event.CANCEL)
            return
        if self._streams.live:
            if self._streams.has_items(job.id):
                job.stop, job.cause = None, "stopped in the middle of its stream"
                job.error = ErrorInfo("", "a stream that was consumed cannot be put back", "")
                self.finish(job, Event.CRASH)
                return
            self._streams.put_back(job.id)
        job.state = transition(job.state, Event.POSTPONE if waits else Event.PUT_BACK)
        job.stop = None
        if job.stretch is not None:
            self._window.push(job)  # it has not started, and is as it was
            return
        job.started_at = job.ended_at = 0
        job.error, job.log, job.cause, job.usage, job.notes = None, None, "", None, ()
        self._ledger.store(job)
        if job.due_at and not job.void:
            self._timers.add(job)
        if not (waits or job.void):
            self._window.push(job)


_HAS_RAISED = (Verdict.RAISED, Verdict.TIMED_OUT)


def keep_attempt(job: Job, state: State) -> None:
    """Keep a record of a job's latest attempt, which is over and was not its last."""
    attempt = Attempt(
        job.id,
        job.attempt,
        state,
        job.started_at,
        job.ended_at,
        job.pid,
        job.cause,
        job.error,
        job.log,
        job.usage,
        notes=job.notes,
    )
    job.earlier = [*(job.earlier or ()), attempt]


def death_of(job: Job, death: Death) -> str:
    """Return the cause of a death, with the limit of memory that may have led to it.

    C code that gets no more memory aborts, exits, or uses what it has not got.  The limit of an
    rlimit does not send SIGKILL, and a cgroup's is told by who counts.
    """
    mem = job.policy.mem if job.policy is not None else 0
    is_named = death.cause.startswith("SIGKILL") or death.cause.endswith("out of memory")
    if not (mem and death.by_rlimit) or is_named:
        return death.cause
    return f"{death.cause}, it had a memory limit of {written_size(mem)}"


def stack_of(tail: str) -> str:
    """Return the interpreter's last words in what a crashed attempt wrote last, or all of that."""
    found = tail.rfind(LAST_WORDS)
    return tail[found:] if found >= 0 else tail
