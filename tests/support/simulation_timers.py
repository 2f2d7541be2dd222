"""What must be so of retries and of jobs that wait for their time, whatever happens in a simulation."""

from __future__ import annotations

from collections.abc import Callable

from fake_store import FakeStore
from simulation_inputs import Broken

from jobd.daemon.assembly import Daemon
from jobd.model.job import Attempt, Job, Raised, Wish
from jobd.model.options import BUILT_IN
from jobd.model.orders import Task
from jobd.model.states import ENDED, State

HAS_FAILED = (State.FAILED, State.TIMED_OUT)


class RetryTruth:
    """What attempts have raised, and what the clock says."""

    def __init__(self, store: FakeStore) -> None:
        self.wall_us: Callable[[], int] = lambda: 0
        self.has_jumped = False
        """The clock was put forward or back: what was right then may look too early now."""
        self._store = store
        self._raised: dict[tuple[bytes, int], Raised] = {}

    def raised(self, task: Task, raised: Raised) -> None:
        """Take note of what an attempt has raised."""
        self._raised[task.args, task.attempt] = raised

    def started(self, task: Task) -> None:
        """Judge a start: it must not come too early."""
        job = self._store.job(task.id)
        if job is None or job.args != task.args or self.has_jumped:
            return
        policy = job.policy or BUILT_IN
        if policy.delay and job.created_at + policy.delay * 1e6 > self.wall_us() + 1:
            raise Broken(f"{task} starts before its time")

    def cancelled(self, row: Job) -> list[int]:
        """Return the attempts of a job that have asked for it to be cancelled."""
        asked = [key for key, raised in self._raised.items() if raised.wish == Wish.CANCEL]
        return [number for args, number in asked if args == row.args]

    def _attempts(self, number: int) -> list[Attempt]:
        # Not of the other store that may stand beside: that one has not committed yet.
        return FakeStore.attempts(self._store, number)

    def judge_row(self, row: Job, *, reopened: bool, has_items: bool) -> None:
        """Judge a row when it is stored."""
        policy = row.policy or BUILT_IN
        attempts = self._attempts(row.id)
        failed = [a for a in attempts if a.state in HAS_FAILED]
        is_spent = has_items or row.failures > policy.retries
        if row.state is State.TIMED_OUT and policy.retry_on in ([], ["timed_out"]) and not is_spent:
            raise Broken(f"job {row.id} timed out {row.failures} times of {policy.retries}")
        if row.state is State.FAILED:
            raised = self._raised[row.args, row.attempt]
            if self._is_to_be_tried(row, raised) and not is_spent:
                raise Broken(f"job {row.id} failed {row.failures} times of {policy.retries}")
            if raised.wish in (Wish.SNOOZE, Wish.CANCEL) and not has_items:
                raise Broken(f"job {row.id} has failed, and wanted {raised}")
        if not reopened:
            count = len(failed) + (row.state in HAS_FAILED)
            if row.failures != count or len(failed) > policy.retries:
                raise Broken(f"job {row.id} failed {count} times, {row.failures} are counted")
        if row.state is State.EXPIRED:
            self._judge_expired(row)

    def _is_to_be_tried(self, row: Job, raised: Raised) -> bool:
        policy, name = row.policy or BUILT_IN, raised.names[0]
        if raised.wish:
            return raised.wish == Wish.RETRY
        return name not in policy.no_retry_on and policy.retry_on in ([], [name])

    def _judge_expired(self, row: Job) -> None:
        after_us = (row.policy or BUILT_IN).expires * 1e6
        if not after_us or self._attempts(row.id):
            raise Broken(f"job {row.id} has expired, after {self._attempts(row.id)}")
        if not self.has_jumped and row.created_at + after_us > row.ended_at + 1:
            raise Broken(f"job {row.id} has expired too early")

    def judge_change(self, old: Job, new: Job) -> None:
        """Judge what has become of a row."""
        # One that is held after an attempt has the time of the next one; before, that of its expiry.
        waits = old.state is State.SCHEDULED or (old.state is State.HELD and old.attempt > 0)
        if not waits or self.has_jumped:
            return
        if new.state in (State.QUEUED, State.SUCCEEDED) and old.due_at > self.wall_us():
            raise Broken(f"job {new.id} is {new.state.name} before {old.due_at}")

    def judge_attempt(self, attempt: Attempt) -> None:
        """Judge an attempt that is put on record: a snoozed one has asked for it."""
        job = FakeStore.job(self._store, attempt.job)
        assert job is not None
        raised = self._raised.get((job.args, attempt.number))
        if attempt.state is State.SCHEDULED and (raised is None or raised.wish != Wish.SNOOZE):
            raise Broken(f"{attempt} was snoozed, and wanted {raised}")
        if attempt.started_at and attempt.ended_at < attempt.started_at:
            raise Broken(f"{attempt} ended before it began")


def check_timers(daemon: Daemon, store: FakeStore) -> None:
    """After each turn: whatever waits for the clock is in the heap, or found when that is filled."""
    scheduler = daemon.scheduler
    jobs, timers = scheduler.window.jobs, scheduler.timers
    waiting = [job for job in jobs.values() if job.due_at and job.state is not State.RUNNING]
    spilled = [row for number, row in store.live.items() if row.due_at and number not in jobs]
    known = set(timers._heap)
    for job in waiting + spilled:
        entry = (job.due_at, job.id)
        if entry not in known and not (timers.has_more and entry > timers.horizon):
            raise Broken(f"1: nobody wakes job {job.id}, {job.state.name}, due at {job.due_at}")
        if job.state >= ENDED:
            raise Broken(f"job {job.id} is {job.state.name} and due at {job.due_at}")
    if scheduler.has_due() and daemon.loop._timeout_ms():
        raise Broken("6: the loop sleeps while there are jobs that are due")
    due_at = timers.next_at()
    if due_at is not None and due_at <= timers.wall and not scheduler.draining:
        wake_at = scheduler.wake_at()
        if wake_at is None or wake_at > scheduler._now:
            raise Broken(f"6: what is due at {due_at} waits until {wake_at}")
