"""Jobs that come after others, where the scheduler needs the store for them.

At submit: which jobs the sources are, and what became of them.  When something ends:
who waits for it and is not in memory, a slice in each turn of the loop.  When a job is
sent to a worker: its inputs' values.  At start: those for whom it matters that the last
daemon did not come to the end of its own lookups.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from jobd.model.edges import Edges, Standing, When, joined, standing, success_of
from jobd.model.errors import JobdError, NotFound, UsageError
from jobd.model.job import EXPIRED, TAKEN, Job
from jobd.model.messages import OWN_KEY, Apply, Submit
from jobd.model.orders import Run
from jobd.model.states import ENDED, State
from jobd.scheduler import Sources, blame, root_of

if TYPE_CHECKING:
    from jobd.daemon.loop import Daemon

SLICE = 500
"""Jobs that are looked at in one turn of the loop."""

KEY_BYTES = 16

WHAT_BECAME = {
    State.CRASHED: "has crashed",
    State.TIMED_OUT: "has timed out",
    State.CANCELLED: "was cancelled",
    State.EXPIRED: "has expired",
}
"""Of a job that did not succeed, if it has not just failed."""


class Parked(msgspec.Struct):
    """A submit with a source whose own submit is still being checked."""

    key: bytes
    peer: bytes
    request: Submit | Apply


class _NotYet(Exception):
    """A source's submit is still being checked."""

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

    def take_in(self, peer: bytes, request: Submit | Apply) -> None:
        """Take in jobs that may come after others; or have that wait until a source's own submit is through.

        Raises:
            JobdError: the submit is refused.
        """
        try:
            sources = self._sources(request)
        except _NotYet as wait:
            self._parked[request.uid] = Parked(wait.key, peer, request)
        else:
            self._daemon.requests.take_in(peer, request, sources)

    def is_waiting(self, peer: bytes, request: Submit | Apply) -> bool:
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

    def _sources(self, request: Submit | Apply) -> Sources:
        """Find out which jobs its jobs come after, and put their ids into the request."""
        calls = request.jobs if isinstance(request, Apply) else [request]
        first = self._scheduler.ledger.next_id
        known: list[tuple[list[list[int]], list[tuple[int, When]]]] = []
        every: list[Edges] = []
        for place, call in enumerate(calls):
            if len(call.inputs) not in (0, len(call.args)):
                raise UsageError(
                    "a submit names the inputs of each of its calls, or of none",
                    "is the client of another version?",
                )
            number = partial(self._number, key=request.uid, first=first, place=place)
            after = [(number(name), when) for name, when in call.after]
            inputs = [[number(name) for name in names] for names in call.inputs]
            every += [joined(numbers, after) for numbers in inputs or [[]]]
            known.append((inputs, [*joined((), after).items()]))
        named = {n for inputs, _ in known for numbers in inputs for n in numbers if n < first}
        self._daemon.retention.names(named)
        sources = self._known_of(every, first)
        for call, (inputs, after) in zip(calls, known, strict=True):
            call.inputs, call.after = inputs, after  # type: ignore[assignment]  # ids are names
        return sources

    def _known_of(self, every: list[Edges], first: int) -> Sources:
        """Return what is known of the sources of new jobs, which have ids from ``first`` on themselves."""
        outer = [{n: when for n, when in edges.items() if n < first} for edges in every]
        states = self._states(sorted(set().union(*outer)))
        never: dict[int, Job] = {}
        for edges in outer:
            for number, when in edges.items():
                if standing(when, states[number]) is Standing.NEVER:
                    if number not in never and (job := self._daemon.job(number)) is not None:
                        never[number] = job
                    break  # one is enough to know
        return Sources(states, never)

    def _number(self, name: int | bytes, *, key: bytes, first: int, place: int) -> int:
        """Return the id of a job that one of the new ones, at this place among them, is to come after."""
        if isinstance(name, int):
            if name >= first:
                raise NotFound(f"there is no job {name} to come after", "see 'jobd ls'")
            return name
        if name[:KEY_BYTES] != OWN_KEY:
            return self._by_key(name, key)
        other = int.from_bytes(name[KEY_BYTES:], "big")
        if other >= place:
            raise UsageError(
                "a job of a graph comes after one that follows it in the list",
                "is the client of another version?",
            )
        return first + other

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
        elif owner := self._daemon.keys.owner_of(key):
            first, count = owner, 1
        else:
            first, count = self._store.submit_of(key) or (0, 0)
        if index >= count:
            raise NotFound(
                "it comes after a job of a submit that nobody knows", "it may have been refused"
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
        states = {n: self._state(jobs[n]) for n in numbers if n in jobs}
        if len(states) < len(numbers):
            states |= self._store.states([n for n in numbers if n not in states])
        if len(states) < len(numbers):
            submissions = self._scheduler.ledger.submissions.values()
            for n in numbers:
                if n not in states and any(s.first <= n < s.first + s.count for s in submissions):
                    states[n] = State.QUEUED  # on its way to the store, and not in memory
        missing = [n for n in numbers if n not in states]
        if missing:
            raise NotFound(f"there is no job {missing[0]} to come after", "see 'jobd ls'")
        return states

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
        job = self._daemon.job(number)
        if job is None or number in self._blocked.missing:
            return
        if job.state not in (State.BLOCKED, State.ABORTED):
            return
        never = self._never_after(job)
        if never is not None:
            if job.root != root_of(never):
                self._blocked.abort(self._load(job), never)
        elif job.state is State.ABORTED:
            if self._daemon.keys.taken(job):
                return  # somebody may retry it when the key is free
            self._blocked.revive(self._load(job), is_waiting=self._is_waiting(job))
        elif not self._is_waiting(job):
            self._blocked.release(self._load(job))

    def retry(self, job: Job) -> str:
        """Open another round of a job that has ended without a result; return the answer."""
        scheduler = self._scheduler
        if scheduler.control.is_unsettled(job.id):
            return "has not ended"
        taken = self._daemon.keys.taken(job)
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
        found = self._daemon.job(root)
        became = WHAT_BECAME[found.state] if found and found.state in WHAT_BECAME else "has failed"
        return f"it comes after job {root}, which {became}: retry that"

    # -- what is so, in memory or else in the store --

    def _state(self, job: Job) -> State:
        """Return the state of a job in memory; one whose end is not for good yet is what it was."""
        replaced = self._scheduler.succession.pending.get(job.id)
        return job.state if replaced is None else replaced.state

    def _load(self, job: Job) -> Job:
        return self._scheduler.window.load(job)

    def _is_waiting(self, job: Job) -> bool:
        """Whether a source of this stored job has not ended, or not again since it was retried."""
        edges = job.edges()
        ledger = self._scheduler.ledger
        return any(
            other.id in edges and self._state(other) < ENDED for other in ledger.unsettled()
        ) or self._has_unmet(job.id)

    def _has_unmet(self, number: int) -> bool:
        """Whether a source of this stored job has not ended, retries apart that are not stored yet."""
        jobs = self._jobs
        # As many as may have ended since, and one more.
        unmet = self._store.unmet(number, self._scheduler.ledger.count_unsettled() + 1)
        return any(n not in jobs or self._state(jobs[n]) < ENDED for n in unmet)

    def _never_after(self, job: Job) -> Job | None:
        """Return a source that keeps this job from ever starting: one with the same root, if there is one."""
        jobs, edges = self._jobs, job.edges()
        ledger = self._scheduler.ledger
        found = [
            other
            for other in ledger.unsettled()
            if other.id in edges and standing(edges[other.id], self._state(other)) is Standing.NEVER
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
        for tombstone in (TAKEN, EXPIRED):
            if value is None or value.startswith(tombstone):
                return b"%s %d" % (EXPIRED if value is None else tombstone, number)
        assert value is not None
        return value
