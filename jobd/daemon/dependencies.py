"""Results as arguments, where the scheduler needs the store for them.

At submit: which jobs the inputs are, and what became of them.  When something ends:
who waits for it and is not in memory, a slice in each turn of the loop.  When a job is
sent to a worker: its inputs' values.  At start: those for whom it matters that the last
daemon did not come to the end of its own lookups.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import msgspec

from jobd.model.errors import JobdError, NotFound, UsageError
from jobd.model.job import EXPIRED, TAKEN, Job
from jobd.model.messages import Submit
from jobd.model.orders import Run
from jobd.model.states import ENDED, State
from jobd.scheduler import Fate, has_failed, root_of

if TYPE_CHECKING:
    from jobd.daemon.loop import Daemon

SLICE = 500
"""Jobs that are looked at in one turn of the loop."""

KEY_BYTES = 16


class Parked(msgspec.Struct):
    """A submit with an input whose own submit is still being checked."""

    key: bytes
    peer: bytes
    request: Submit


class _NotYet(Exception):
    """An input's submit is still being checked."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.key = key


class Dependencies:
    """Who waits for whom, as far as it is not in memory."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._store = daemon.store
        self._scheduler = daemon.scheduler
        self._blocked = daemon.scheduler.blocked
        self._jobs = daemon.scheduler.window.jobs
        self._parked: dict[bytes, Parked] = {}
        self._review: Iterator[None] | None = self._reviewing()

    @property
    def has_more(self) -> bool:
        """Whether the next turn of the loop must not wait."""
        blocked = self._blocked
        return bool(blocked.fresh or blocked.lookups or blocked.is_busy or self._review is not None)

    # -- submits --

    def take_in(self, peer: bytes, request: Submit) -> None:
        """Submit jobs with inputs; or have that wait until an input's own submit is through.

        Raises:
            JobdError: the submit is refused.
        """
        try:
            fates = self._fates(request)
        except _NotYet as wait:
            self._parked[request.uid] = Parked(wait.key, peer, request)
        else:
            self._scheduler.submit(peer, request, self._daemon.requests.policy(request), fates)

    def is_waiting(self, peer: bytes, request: Submit) -> bool:
        """Whether a submit with this key waits already; the newest sender gets the answer."""
        parked = self._parked.get(request.uid)
        if parked is not None:
            parked.peer, parked.request = peer, request
        return parked is not None

    def checked(self, key: bytes) -> None:
        """The submit with this key is through, or was refused: go on with those that wait for it."""
        for parked in [p for p in self._parked.values() if p.key == key]:
            uid = parked.request.uid
            del self._parked[uid]
            try:
                self.take_in(parked.peer, parked.request)
            except JobdError as error:
                self._daemon.requests.refuse(parked.peer, parked.request, error)
            else:
                if uid not in self._parked:
                    self.checked(uid)

    def _fates(self, request: Submit) -> list[Fate]:
        """Find out which jobs the inputs are, and put their ids into the request."""
        if len(request.inputs) != len(request.args):
            raise UsageError(
                "a submit names the inputs of each of its calls, or of none",
                "is the client of another version?",
            )
        calls = [
            [n if isinstance(n, int) else self._by_key(n, request.uid) for n in inputs]
            for inputs in request.inputs
        ]
        states = self._states(sorted(set(chain.from_iterable(calls))))
        request.inputs = calls  # type: ignore[assignment]  # a list of lists of ints is one
        return [self._fate(inputs, states) for inputs in calls]

    def _by_key(self, name: bytes, waiting: bytes) -> int:
        """Return the id of a job that is named by its submit's key and its index there."""
        key, index = name[:KEY_BYTES], int.from_bytes(name[KEY_BYTES:], "big")
        ledger = self._scheduler.ledger
        found = ledger.submissions.get(key)
        if found is None:
            found = next(
                (s for some in reversed(ledger.recent) for s in some if s.uid == key), None
            )
        if found is not None:
            first, count = found.first, found.count
        elif self._is_pending(key, waiting):
            raise _NotYet(key)
        else:
            first, count = self._store.submit_of(key) or (0, 0)
        if index >= count:
            raise NotFound(
                "an input is a job of a submit that nobody knows", "it may have been refused"
            )
        return first + index

    def _is_pending(self, key: bytes, waiting: bytes) -> bool:
        """Whether a submit is not through yet; one that itself waits for ``waiting`` never will be."""
        while key in self._parked:
            if key == waiting:
                return False
            key = self._parked[key].key
        return key != waiting and self._daemon.checks.is_pending(key)

    def _states(self, numbers: list[int]) -> dict[int, State]:
        """Return the states of these jobs, which all exist.

        Raises:
            NotFound: one does not.
        """
        jobs = self._jobs
        states = {n: jobs[n].state for n in numbers if n in jobs}
        if len(states) < len(numbers):
            states |= self._store.states([n for n in numbers if n not in states])
        if len(states) < len(numbers):
            submissions = self._scheduler.ledger.submissions.values()
            for n in numbers:
                if n not in states and any(s.first <= n < s.first + s.count for s in submissions):
                    states[n] = State.QUEUED  # on its way to the store, and not in memory
        missing = [n for n in numbers if n not in states]
        if missing:
            raise NotFound(f"there is no job {missing[0]}, to be an input", "see 'jobd ls'")
        return states

    def _fate(self, inputs: list[int], states: dict[int, State]) -> Fate:
        unmet = [n for n in dict.fromkeys(inputs) if states[n] is not State.SUCCEEDED]
        failed = next((n for n in unmet if states[n] >= ENDED), None)
        return unmet, None if failed is None else self._daemon.job(failed)

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
        job = self._daemon.job(number)
        found = self._store.dependants(number, lookup.after, limit + 1) if job else []
        for dependant in found:
            assert job is not None
            self._consider(dependant, job, changed=lookup.changed)
            lookup.after = dependant
        if len(found) <= limit and self._blocked.lookups.get(number) is lookup:
            del self._blocked.lookups[number]
            has_edges = lookup.has_edges or lookup.after > 0
            if has_edges and job is not None and job.state is State.SUCCEEDED:
                self._blocked.settled(number)
        return len(found)

    def _consider(self, number: int, job: Job, *, changed: bool) -> None:
        """Look at a dependant of a job that has ended, or had."""
        if number in self._blocked.missing:
            return  # it hears of all that matters to it
        if not changed and job.state is State.SUCCEEDED and self._is_waiting(number):
            return  # as most do whose inputs come one after the other: it need not be loaded
        self._examine(number)

    def _examine(self, number: int) -> None:
        """Make a job that is not resident what its inputs make it."""
        job = self._daemon.job(number)
        if job is None or number in self._blocked.missing:
            return
        if job.state not in (State.BLOCKED, State.ABORTED):
            return
        failed = self._failed_input(job)
        if failed is not None:
            if job.root != root_of(failed):
                self._blocked.abort(self._load(job), failed)
        elif job.state is State.ABORTED:
            self._blocked.revive(self._load(job), is_waiting=self._is_waiting(number))
        elif not self._is_waiting(number):
            self._blocked.release(self._load(job))

    def retry(self, job: Job) -> str:
        """Open another round of a job that has ended without a result; return the answer."""
        scheduler = self._scheduler
        if scheduler.is_unsettled(job.id):
            return "has not ended"
        if job.inputs and job.state in (State.ABORTED, State.CANCELLED, State.EXPIRED):
            failed = self._failed_input(job)
            if failed is not None:
                return f"its input {root_of(failed)} has failed: retry that"
            is_waiting = self._is_waiting(job.id)
            if is_waiting or job.state is State.ABORTED:
                return scheduler.revive(self._load(job), is_waiting=is_waiting)
        return scheduler.retry(self._load(job))

    # -- what is so, in memory or else in the store --

    def _load(self, job: Job) -> Job:
        return self._scheduler.window.load(job)

    def _is_waiting(self, number: int) -> bool:
        """Whether an input of this stored job has not succeeded."""
        jobs = self._jobs
        # As many as may have succeeded since, and one more.
        unmet = self._store.unmet(number, self._scheduler.ledger.count_unsettled() + 1)
        return any(n not in jobs or jobs[n].state is not State.SUCCEEDED for n in unmet)

    def _failed_input(self, job: Job) -> Job | None:
        """Return an input of this job that has failed: one with the same root, if there is one."""
        jobs, inputs = self._jobs, set(job.inputs or ())
        ledger = self._scheduler.ledger
        failed = [other for other in ledger.unsettled() if other.id in inputs and has_failed(other)]
        for number in self._store.failed(job.id, ledger.count_unsettled() + 1):
            other = None if number in jobs else self._store.job(number)
            if other is not None:
                failed.append(other)
        failed.sort(key=lambda other: (root_of(other) != job.root, other.id))
        return failed[0] if failed else None

    # -- at start --

    def _reviewing(self) -> Iterator[None]:
        """Look, one by one, at jobs that may not be what their inputs make them; tidy up the edges."""
        after = 0
        while blocked := self._store.blocked(after, SLICE):
            for after in blocked:
                self._examine(after)
                yield
        after = 0
        while aborted := self._store.aborted(after, SLICE):
            roots = sorted({root for _, root in aborted})
            states = self._store.states(roots)
            for after, root in aborted:
                # One that was aborted itself is no root: it was retried since, in vain.
                if states[root] <= State.SUCCEEDED or states[root] is State.ABORTED:
                    self._examine(after)
                    yield
        after = 0
        while void := self._store.void_inputs(after, SLICE):
            for after in void:
                self._blocked.settled(after)
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
        for tombstone in (TAKEN, EXPIRED):
            if value is None or value.startswith(tombstone):
                return b"%s %d" % (EXPIRED if value is None else tombstone, number)
        assert value is not None
        return value
