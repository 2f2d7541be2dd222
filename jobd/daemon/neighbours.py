"""What a job comes after and what comes after it, all the way, read from the store.

A walk by breadth in each direction, a slice in each turn of the loop, and bounded: a job
may have a million of either.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count

from jobd.store import Store

MOST = 2_000
"""Jobs that are looked at in each direction."""

SLICE = 100


class Neighbours:
    """The walk, and what it has found: the nearest ones first."""

    def __init__(self, store: Store, number: int) -> None:
        self.before: list[int] = []
        self.after: list[int] = []
        self.is_whole = True
        self._store = store
        self._number = number

    def steps(self) -> Iterator[None]:
        """Walk; each step is a slice of it."""
        yield from self._walk(self.before, self._sources)
        yield from self._walk(self.after, self._dependants)

    def _walk(self, found: list[int], following: Callable[[int], list[int]]) -> Iterator[None]:
        seen = {self._number}
        ahead = deque([self._number])
        for step in count():
            if not ahead:
                return
            for number in following(ahead.popleft()):
                if number in seen:
                    continue
                if len(found) == MOST:
                    self.is_whole = False
                    return
                seen.add(number)
                found.append(number)
                ahead.append(number)
            if step % SLICE == SLICE - 1:
                yield

    def _sources(self, number: int) -> list[int]:
        job = self._store.job(number)
        return sorted(job.edges()) if job is not None else []

    def _dependants(self, number: int) -> list[int]:
        return [job for job, _ in self._store.dependants(number, 0, MOST + 1)]
