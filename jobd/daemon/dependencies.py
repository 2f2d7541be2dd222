"""Jobs that come after others, where the scheduler needs the store for them.

When something ends: who waits for it and is not in memory, a slice in each turn of the
loop.  When a job is sent to a worker: its inputs' values.  At start: those for whom it
matters that the last daemon did not come to the end of its own lookups.
"""

from __future__ import annotations

from collections.abc import Iterator

from jobd.daemon.array_values import array_value
from jobd.daemon.keys import Keys
from jobd.daemon.view import View
from jobd.model.edges import Standing, When, standing, success_of
from jobd.model.item import items_of
from jobd.model.job import EXPIRED, ITEMS, TAKEN, Job
from jobd.model.orders import Run
from jobd.model.states import ENDED, State
from jobd.scheduler import Scheduler, blame, root_of
from jobd.store import Store

SLICE = 500
"""Jobs that are looked at in one turn of the loop."""

WHAT_BECAME = {
    State.CRASHED: "has crashed",
    State.TIMED_OUT: "has timed out",
    State.CANCELLED: "was cancelled",
    State.EXPIRED: "has expired",
}
"""Of a job that did not succeed, if it has not just failed."""


class Dependencies:
    """Who waits for whom, as far as it is not in memory."""

    def __init__(self, scheduler: Scheduler, store: Store, view: View, keys: Keys) -> None:
        self._scheduler = scheduler
        self._store = store
        self._view = view
        self._keys = keys
        self._blocked = scheduler.blocked
        self._jobs = scheduler.window.jobs
        self._review: Iterator[None] | None = self._reviewing()

    @property
    def has_more(self) -> bool:
        """Whether the next turn of the loop must not wait."""
        blocked = self._blocked
        return bool(blocked.fresh or blocked.lookups or blocked.is_busy or self._review is not None)

    # -- ends, and other changes --

    def step(self) -> None:
        """Look at those who wait and are not in memory, a slice of them."""
        blocked = self._blocked
        left = SLICE
        while left > 0 and (blocked.fresh or blocked.lookups or self._review is not None):
            left -= 1
            if blocked.fresh:
                number = next(iter(blocked.fresh))
                del blocked.fresh[number]
                self._examine(number)
            elif blocked.lookups:
                left -= self._look_up(left)
            elif next(self._review, self) is self:  # type: ignore[arg-type]  # not reached if it is None
                self._review = None

    def _look_up(self, limit: int) -> int:
        """Look at dependants of the first job whose dependants are wanted; return how many."""
        number, lookup = next(iter(self._blocked.lookups.items()))
        job = self._view.job(number)
        found = self._store.dependants(number, lookup.after, limit + 1) if job else []
        for dependant, when in found:
            assert job is not None
            self._consider(dependant, when, job, changed=lookup.changed)
            lookup.after = dependant
        if len(found) <= limit and self._blocked.lookups.get(number) is lookup:
            del self._blocked.lookups[number]
            has_edges = lookup.has_edges or lookup.after > 0
            if has_edges and job is not None and job.state is State.SUCCEEDED:
                self._blocked.settled(number)
        return len(found)

    def _consider(self, number: int, when: When, job: Job, *, changed: bool) -> None:
        """Look at a dependant of a job that has ended, or had."""
        if number in self._blocked.missing:
            return  # it hears of all that matters to it
        is_met = standing(when, job.state) is Standing.MET
        if is_met and not changed and self._has_unmet(number):
            return  # as most do whose sources end one after the other: it need not be loaded
        self._examine(number)

    def _examine(self, number: int) -> None:
        """Make a job that is not resident, and has not started, what its edges make it."""
        job = self._view.job(number)
        if job is None or number in self._blocked.missing:
            return
        if job.state not in (State.BLOCKED, State.ABORTED):
            return
        never = self._never_after(job)
        if never is not None:
            if job.root != root_of(never):
                self._blocked.abort(self._load(job), never)
        elif job.state is State.ABORTED:
            if self._keys.taken(job):
                return  # somebody may retry it when the key is free
            self._blocked.revive(self._load(job), is_waiting=self._is_waiting(job))
        elif not self._is_waiting(job):
            self._blocked.release(self._load(job))

    def retry(self, job: Job) -> str:
        """Open another round of a job that has ended without a result; return the answer."""
        scheduler = self._scheduler
        if scheduler.control.is_unsettled(job.id):
            return "has not ended"
        taken = self._keys.taken(job)
        if taken:
            return taken
        # Who has started once does not wait again.
        if not job.started_at and job.state in (State.ABORTED, State.CANCELLED, State.EXPIRED):
            never = self._never_after(job)
            if never is not None:
                return self._refusal(never)
            is_waiting = self._is_waiting(job)
            if is_waiting or job.state is State.ABORTED:
                return scheduler.control.revive(self._load(job), is_waiting=is_waiting)
        return scheduler.control.retry(self._load(job))

    def _refusal(self, never: Job) -> str:
        """Return the answer to a retry of a job that still can never start."""
        cause, _ = blame(never)
        root = root_of(never)
        if cause == success_of(root):
            return f"it waits for a failure of job {root}, which has succeeded"
        found = self._view.job(root)
        became = WHAT_BECAME[found.state] if found and found.state in WHAT_BECAME else "has failed"
        return f"it comes after job {root}, which {became}: retry that"

    # -- what is so, in memory or else in the store --

    def _load(self, job: Job) -> Job:
        """Bring a job into memory, and with an array, of which none has begun, its items."""
        job, arrays = self._scheduler.window.load(job), self._scheduler.arrays
        if job.array is not None and job.id not in arrays.live:
            span, found = items_of(job.id, job.array.items), self._store.arrays
            arrays.restore(job, found.ranges(*span), found.rows(*span))
        return job

    def _is_waiting(self, job: Job) -> bool:
        """Whether a source of this stored job has not ended, or not again since it was retried."""
        edges = job.edges()
        ledger = self._scheduler.ledger
        return any(
            other.id in edges and self._view.state(other) < ENDED for other in ledger.unsettled()
        ) or self._has_unmet(job.id)

    def _has_unmet(self, number: int) -> bool:
        """Whether a source of this stored job has not ended, retries apart that are not stored yet."""
        jobs = self._jobs
        # As many as may have ended since, and one more.
        unmet = self._store.unmet(number, self._scheduler.ledger.count_unsettled() + 1)
        return any(n not in jobs or self._view.state(jobs[n]) < ENDED for n in unmet)

    def _never_after(self, job: Job) -> Job | None:
        """Return a source that keeps this job from ever starting: one with the same root, if there is one."""
        jobs, edges = self._jobs, job.edges()
        ledger = self._scheduler.ledger
        found = [
            other
            for other in ledger.unsettled()
            if other.id in edges
            and standing(edges[other.id], self._view.state(other)) is Standing.NEVER
        ]
        for number in self._store.never(job.id, ledger.count_unsettled() + 1):
            other = None if number in jobs else self._store.job(number)
            if other is not None:
                found.append(other)
        found.sort(key=lambda other: (root_of(other) != job.root, other.id))
        return found[0] if found else None

    # -- at start --

    def _reviewing(self) -> Iterator[None]:
        """Look, one by one, at jobs that may not be what their edges make them."""
        after = 0
        while blocked := self._store.blocked(after, SLICE):
            for after in blocked:
                self._examine(after)
                yield
        after = 0
        while aborted := self._store.aborted(after, SLICE):
            roots = sorted({root for _, root in aborted if root})
            states = self._store.states(roots)
            for after, root in aborted:
                # One that was aborted itself is no root: it was retried since, in vain.
                if root and (states[root] <= State.SUCCEEDED or states[root] is State.ABORTED):
                    self._examine(after)
                    yield

    # -- values --

    def feed(self, run: Run) -> None:
        """Put the values of their inputs into jobs that go to a worker."""
        for task in run.tasks:
            if task.inputs:
                ids = [n for n in task.inputs if isinstance(n, int)]
                stored = self._store.values([n for n in ids if n not in self._jobs])
                task.inputs = [self._value(n, stored) for n in ids]

    def _value(self, number: int, stored: dict[int, bytes | None]) -> bytes:
        value = self._jobs[number].value if number in self._jobs else stored.get(number)
        if value == ITEMS:
            job = self._view.job(number)
            return b"" if job is None else array_value(self._store, job)
        for tombstone in (TAKEN, EXPIRED):
            if value is None or value.startswith(tombstone):
                return b"%s %d" % (EXPIRED if value is None else tombstone, number)
        assert value is not None
        return value
