"""Which jobs new ones come after, and what is known of those; who waits until that can be told.

A source may be named by the key of its own submit. If that is still being checked, the
submit that names it is parked until the other is through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import msgspec

from jobd.daemon.keys import Keys
from jobd.daemon.view import View
from jobd.model.edges import Edges, Standing, When, joined, standing
from jobd.model.errors import NotFound, UsageError
from jobd.model.job import Job
from jobd.model.messages import OWN_KEY, Apply, Submit
from jobd.model.states import State
from jobd.scheduler import Scheduler, Sources
from jobd.store import Store

KEY_BYTES = 16


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


@dataclass
class Predecessors:
    """Finds the sources of new jobs.

    ``is_checked`` tells whether the submit with a key is being checked; ``spare`` is told
    which values are about to be needed.
    """

    scheduler: Scheduler
    store: Store
    view: View
    keys: Keys
    is_checked: Callable[[bytes], bool]
    spare: Callable[[Iterable[int]], None]
    parked: dict[bytes, Parked] = field(default_factory=dict)

    def of(self, peer: bytes, request: Submit | Apply) -> Sources | None:
        """Return what is known of the jobs that new ones come after; None: it has to wait, and is parked.

        Raises:
            JobdError: the submit is refused.
        """
        try:
            return self._sources(request)
        except _NotYet as wait:
            self.parked[request.uid] = Parked(wait.key, peer, request)
            return None

    def waiting_for(self, key: bytes) -> list[Parked]:
        """Return the submits that wait until the one with this key is through."""
        return [parked for parked in self.parked.values() if parked.key == key]

    def has(self, uid: bytes) -> bool:
        """Whether the submit with this key is parked."""
        return uid in self.parked

    def forget(self, uid: bytes) -> None:
        """The submit with this key is parked no longer."""
        del self.parked[uid]

    def is_waiting(self, peer: bytes, request: Submit | Apply) -> bool:
        """Whether a submit with this key waits already; the newest sender gets the answer."""
        parked = self.parked.get(request.uid)
        if parked is not None:
            parked.peer, parked.request = peer, request
        return parked is not None

    def _sources(self, request: Submit | Apply) -> Sources:
        """Find out which jobs its jobs come after, and put their ids into the request."""
        calls = request.jobs if isinstance(request, Apply) else [request]
        first = self.scheduler.ledger.next_id
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
        self.spare(named)
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
                    if number not in never and (job := self.view.job(number)) is not None:
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
        ledger = self.scheduler.ledger
        found = ledger.submissions.get(key)
        if found is None:
            found = next(
                (s for some in reversed(ledger.recent) for s in some if s.uid == key), None
            )
        if found is not None:
            first, count = found.first, found.count
        elif self._is_pending(key, waiting):
            raise _NotYet(key)
        elif owner := self.keys.owner_of(key):
            first, count = owner, 1
        else:
            first, count = self.store.submit_of(key) or (0, 0)
        if index >= count:
            raise NotFound(
                "it comes after a job of a submit that nobody knows", "it may have been refused"
            )
        return first + index

    def _is_pending(self, key: bytes, waiting: bytes) -> bool:
        """Whether a submit is not through yet; one that itself waits for ``waiting`` never will be."""
        while key in self.parked:
            if key == waiting:
                return False
            key = self.parked[key].key
        return key != waiting and self.is_checked(key)

    def _states(self, numbers: list[int]) -> dict[int, State]:
        """Return the states of these jobs, which all exist.

        Raises:
            NotFound: one does not.
        """
        jobs = self.scheduler.window.jobs
        states = {n: self.view.state(jobs[n]) for n in numbers if n in jobs}
        if len(states) < len(numbers):
            states |= self.store.states([n for n in numbers if n not in states])
        if len(states) < len(numbers):
            submissions = self.scheduler.ledger.submissions.values()
            for n in numbers:
                if n not in states and any(s.first <= n < s.first + s.count for s in submissions):
                    states[n] = State.QUEUED  # on its way to the store, and not in memory
        missing = [n for n in numbers if n not in states]
        if missing:
            raise NotFound(f"there is no job {missing[0]} to come after", "see 'jobd ls'")
        return states
